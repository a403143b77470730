//! Ranges of records that a person wants from an agent again: what there would be to send, who ordered it and why, and what came of it.
//!
//! Invariant: an order changes nothing but that records come again under the numbers that they have; what is here already is a duplicate,
//! what is not fills its gap. An order stays, so that who and why can be read later. A running hub passes it on once the agent is online.

use counterfoil_proto::id::{Lane, LaneKey, Seq, SeqRange, SessionId, Source};
use counterfoil_proto::time::WallTime;

use super::posting::read_lane;
use super::sql::{Role, Value};
use super::{Deed, LedgerError, SqlLedger, audit};
use crate::env;

/// Orders that are shown.
const SHOWN_MAX: i64 = 100;
/// Orders that are passed on at a time.
const DUE_MAX: i64 = 64;

const LANES: &str = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, s.head FROM streams s \
    WHERE s.store_id = $1 AND s.agent_id = $2 ORDER BY s.stream";
const BEFORE: &str = "SELECT COALESCE(MAX(seq), 0) FROM records WHERE stream = $1 AND fork = 0 AND received_at < $2";
const AFTER: &str = "SELECT MIN(seq) FROM records WHERE stream = $1 AND fork = 0 AND seq > $2 AND received_at > $3";
const HELD: &str = "SELECT COUNT(*) FROM records WHERE stream = $1 AND fork = 0 AND seq >= $2 AND seq <= $3";
const ORDER: &str = "INSERT INTO replays (stream, first, last, ordered_at, ordered_by, reason, duplicates, received) \
    SELECT stream, CAST($2 AS BIGINT), CAST($3 AS BIGINT), CAST($4 AS BIGINT), CAST($5 AS TEXT), CAST($6 AS TEXT), duplicates, received \
    FROM streams WHERE stream = $1";
const DUE: &str = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, r.number, r.first, r.last, a.session \
    FROM replays r JOIN streams s ON s.stream = r.stream \
    JOIN agents a ON a.store_id = s.store_id AND a.agent_id = s.agent_id \
    WHERE r.asked_at IS NULL AND a.session IS NOT NULL AND a.presence = 'online' ORDER BY r.number LIMIT $1";
const ASKED: &str = "UPDATE replays SET asked_at = $2 WHERE number = $1 AND asked_at IS NULL";
const SHOWN: &str = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, r.number, r.first, r.last, r.ordered_at, \
    r.ordered_by, r.reason, r.asked_at, s.duplicates - r.duplicates, s.received - r.received \
    FROM replays r JOIN streams s ON s.stream = r.stream ORDER BY r.number DESC LIMIT $1";

/// Whose records of which time.
#[derive(Clone, Debug)]
pub struct ReplayQuery {
    /// Whose.
    pub source: Source,
    /// Of one lane; of all where it is left out.
    pub lane: Option<Lane>,
    /// Received here at this time or later.
    pub from: WallTime,
    /// And not after this one.
    pub to: WallTime,
}

/// What there would be to send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPart {
    stream: i64,
    /// Which lane.
    pub key: LaneKey,
    /// Which numbers: from the first that was received in that time to the last, with what is missing between and beside them.
    pub range: SeqRange,
    /// How many of them are here.
    pub held: u64,
}

/// An order to be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReplay {
    /// Its number.
    pub number: u64,
    /// Whose.
    pub source: Source,
    /// In which session the agent is.
    pub session: SessionId,
    /// Which lane.
    pub key: LaneKey,
    /// What to send again.
    pub range: SeqRange,
}

/// An order, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayView {
    /// Its number.
    pub number: u64,
    /// Whose.
    pub source: Source,
    /// Which lane.
    pub key: LaneKey,
    /// Which numbers.
    pub range: SeqRange,
    /// When it was ordered.
    pub ordered_at: WallTime,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When the agent was asked; `None` while it is not online.
    pub asked_at: Option<WallTime>,
    /// Records of the lane that came again since it was ordered, for whatever reason.
    pub came_again: u64,
    /// Records of the lane that are new since then.
    pub new: u64,
}

impl SqlLedger {
    /// What an order would have sent again. Changes nothing.
    pub async fn plan_replay(&self, query: &ReplayQuery) -> Result<Vec<ReplayPart>, LedgerError> {
        let source: Vec<Value> = vec![query.source.store_id.as_str().into(), query.source.agent_id.as_str().into()];
        let mut parts = Vec::new();
        for row in self.database.read(LANES, source).await? {
            let mut row = row.read();
            let (stream, _, epoch, lane) = read_lane(&mut row)?;
            let newest = row.count()?;
            if query.lane.is_some_and(|wanted| wanted != lane) {
                continue;
            }
            let before = self.one(BEFORE, vec![stream.into(), query.from.0.into()]).await?.unwrap_or_default();
            let after = self.one(AFTER, vec![stream.into(), before.into(), query.to.0.into()]).await?;
            let (first, last) = (before.saturating_add(1), after.map_or(newest, |after| after.saturating_sub(1)));
            if first > last {
                continue;
            }
            let held = self.one(HELD, vec![stream.into(), first.into(), last.into()]).await?.unwrap_or_default();
            let range = SeqRange { first: Seq(first), last: Seq(last) };
            parts.push(ReplayPart { stream, key: LaneKey { epoch, lane }, range, held });
        }
        Ok(parts)
    }

    async fn one(&self, sql: &'static str, params: Vec<Value>) -> Result<Option<u64>, LedgerError> {
        let rows = self.database.read(sql, params).await?;
        let number = rows.into_iter().next().map(|row| row.read().int_or_null()).transpose()?.flatten();
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }

    /// Orders that these are sent again.
    pub async fn order_replay(
        &self,
        parts: &[ReplayPart],
        by: &str,
        reason: &str,
        deed: &Deed,
    ) -> Result<(), LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        let now = env::wall().0;
        let row = |part: &ReplayPart| -> Vec<Value> {
            vec![
                part.stream.into(),
                part.range.first.0.into(),
                part.range.last.0.into(),
                now.into(),
                by.into(),
                reason.into(),
            ]
        };
        tx.execute_many(ORDER, parts.iter().map(row).collect()).await?;
        audit::note(&mut *tx, deed, if parts.is_empty() { "done: nothing is known of that time" } else { "done" })
            .await?;
        tx.commit().await
    }

    pub(super) async fn due_replays(&self) -> Result<Vec<DueReplay>, LedgerError> {
        let mut due = Vec::new();
        for row in self.database.read(DUE, vec![DUE_MAX.into()]).await? {
            let mut row = row.read();
            let (_, source, epoch, lane) = read_lane(&mut row)?;
            let number = row.count()?;
            let range = SeqRange { first: Seq(row.count()?), last: Seq(row.count()?) };
            due.push(DueReplay {
                number,
                source,
                session: SessionId(row.array()?),
                key: LaneKey { epoch, lane },
                range,
            });
        }
        Ok(due)
    }

    pub(super) async fn note_asked(&self, number: u64) -> Result<(), LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        tx.execute_many(ASKED, vec![vec![number.into(), env::wall().0.into()]]).await?;
        tx.commit().await
    }

    /// The newest orders, the newest first.
    pub async fn replays(&self) -> Result<Vec<ReplayView>, LedgerError> {
        let mut found = Vec::new();
        for row in self.database.read(SHOWN, vec![SHOWN_MAX.into()]).await? {
            let mut row = row.read();
            let (_, source, epoch, lane) = read_lane(&mut row)?;
            let number = row.count()?;
            let range = SeqRange { first: Seq(row.count()?), last: Seq(row.count()?) };
            found.push(ReplayView {
                number,
                source,
                key: LaneKey { epoch, lane },
                range,
                ordered_at: WallTime(row.int()?),
                by: row.text()?,
                reason: row.text()?,
                asked_at: row.int_or_null()?.map(WallTime),
                came_again: row.count()?,
                new: row.count()?,
            });
        }
        Ok(found)
    }
}
