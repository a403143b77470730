//! What is seldom: hellos, presence, stock snapshots, rejects, and what an operator does.
//!
//! Invariant: a hello is answered from what its transaction committed. Its agent's row is locked before its lanes' rows, which
//! are locked in the order that intake locks them in.

use std::collections::BTreeSet;

use counterfoil_proto::id::{Digest, Epoch, Lane, LaneKey, RecordKey, Seq, SessionId, Source};
use counterfoil_proto::message::{EpochHeads, Hello, Mark, Positions, Presence};
use counterfoil_proto::record::flag;
use counterfoil_proto::sync::lineage::{Lineage, LineageIncident};
use counterfoil_proto::time::{ClockQuality, WallTime};

use super::intake::{Held, LaneOf, advance, of_incident, raise, read_state, store_params};
use super::posting::{read_lane, read_source};
use super::sql::{Database, Role, Transaction, Value, Work};
use super::{
    AgentView, Arrival, AuditView, Beat, Cursor, DayView, Deed, DelayQuery, DelayView, DueReplay, ExceptionFilter,
    ExceptionView, FleetView, Gauges, LaneCopy, Ledger, LedgerError, Lookup, LookupQuery, PageQuery, Posted,
    PostingBounds, RecordsPage, ReturnView, ReturnsQuery, SqlLedger, StockView, Taken, TotalsRow, Waits, Welcomed,
    audit, watch,
};
use crate::env;
use crate::posting::Raised;

/// Undecodable batches that are kept; the oldest give way.
const REJECTS_MAX: i64 = 1_000;
/// Bytes of one that are kept.
const REJECT_BYTES_MAX: usize = 64 * 1024;
/// Parts of one snapshot; more are not a snapshot of a store.
const PARTS_MAX: u16 = 1_000;
/// A lane of which an agent that is there says nothing for so long is no longer on it: one and a half times between two hellos.
const SILENT_MS: i64 = 15 * 60 * 1_000;
/// Lanes whose `safe` is raised in one transaction.
const LANES_AT_ONCE: usize = 500;

fn source_params(source: &Source) -> Vec<Value> {
    vec![source.store_id.as_str().into(), source.agent_id.as_str().into()]
}

async fn ensure_agent(tx: &mut dyn Transaction, source: &Source) -> Result<(), LedgerError> {
    let sql = "INSERT INTO agents (store_id, agent_id) VALUES ($1, $2) ON CONFLICT (store_id, agent_id) DO NOTHING";
    tx.execute_many(sql, vec![source_params(source)]).await
}

fn read_lineage(bytes: Option<Vec<u8>>) -> Result<Lineage, LedgerError> {
    bytes.map_or_else(|| Ok(Lineage::default()), |bytes| postcard::from_bytes(&bytes).map_err(|_| LedgerError::Shape))
}

/// How much of an agent's history a snapshot reflects: the place of its newest epoch, and the records of that.
fn reflects(lineage: &Lineage, positions: &Positions) -> (usize, u64) {
    let place = |epoch| lineage.epochs.iter().position(|known| known.epoch == epoch).map_or(0, |index| index + 1);
    let newest = positions.heads.iter().map(|head| place(head.key.epoch)).max().unwrap_or(0);
    let records = positions.heads.iter().filter(|head| place(head.key.epoch) == newest).map(|head| head.last.0);
    (newest, records.fold(0, u64::saturating_add))
}

fn lanes_of(source: &Source, epochs: &[EpochHeads]) -> BTreeSet<LaneOf> {
    let lanes = epochs.iter().flat_map(|heads| heads.lanes.iter().map(|head| (heads.epoch, head.lane)));
    lanes.map(|(epoch, lane)| (source.clone(), LaneKey { epoch, lane })).collect()
}

/// What is said of an epoch's lanes.
fn state_heads(held: &mut [Held], heads: &EpochHeads, live: bool, raised: &mut Vec<Raised>) {
    for head in &heads.lanes {
        let lane = LaneKey { epoch: heads.epoch, lane: head.lane };
        let Some(held) = held.iter_mut().find(|held| held.of.1 == lane) else { continue };
        let incidents = held.state.hello(head, live);
        held.state_head(head.last);
        raised.extend(incidents.iter().map(|incident| of_incident(&held.of, incident)));
    }
}

impl SqlLedger {
    async fn take_hello(&self, source: &Source, hello: &Hello) -> Result<Welcomed, LedgerError> {
        let silent = self.silent(source, hello).await?;
        let mut lanes = lanes_of(source, &hello.epochs);
        lanes.extend(silent.iter().map(|(lane, _)| (source.clone(), *lane)));
        let (mut tx, mut held) = self.hold(Role::Desk, &lanes).await?;
        let (mut raised, lineage) = self.note_agent(&mut *tx, source, hello).await?;
        let newest = hello.epochs.last().map(|heads| heads.epoch);
        for (lane, head) in &silent {
            if newest.is_none_or(|newest| !lineage.precedes(lane.epoch, newest)) {
                continue;
            }
            let Some(held) = held.iter_mut().find(|held| held.of.1 == *lane) else { continue };
            let incidents = held.state.give_up(*head);
            raised.extend(incidents.iter().map(|incident| of_incident(&held.of, incident)));
        }
        for heads in &hello.epochs {
            state_heads(&mut held, heads, heads.live, &mut raised);
        }
        advance(&mut *tx, &mut held, &mut raised).await?;
        self.write_lanes(&mut *tx, &mut held).await?;
        raise(&mut *tx, &raised).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        let hub_epoch = self.watch.commit(tx, settled).await?;
        let asked = held.iter().filter(|held| silent.iter().all(|(lane, _)| *lane != held.of.1));
        let marks = asked.map(|held| held.state.mark(held.of.1)).collect();
        Ok(Welcomed { hub_epoch, marks })
    }

    /// Takes in how far lanes reach and what of them is lost, said by other means than a hello: it is no word of a live agent, so it says nothing of
    /// sessions and of what epoch came from which. Gives where the lanes stand then.
    pub(crate) async fn declare(&self, source: &Source, epochs: &[EpochHeads]) -> Result<Vec<Mark>, LedgerError> {
        let (mut tx, mut held) = self.hold(Role::Desk, &lanes_of(source, epochs)).await?;
        ensure_agent(&mut *tx, source).await?;
        let mut raised = Vec::new();
        for heads in epochs {
            // As of a live one: that the hub has more by now is no loss of the box.
            state_heads(&mut held, heads, true, &mut raised);
        }
        advance(&mut *tx, &mut held, &mut raised).await?;
        self.write_lanes(&mut *tx, &mut held).await?;
        raise(&mut *tx, &raised).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await?;
        Ok(held.iter().map(|held| held.state.mark(held.of.1)).collect())
    }

    /// Lanes of the agent that are not whole and that a whole hello does not name, for a while already: its box was made anew, or gave
    /// them back before the ledger was restored. Each with the last number that is known to have been.
    async fn silent(&self, source: &Source, hello: &Hello) -> Result<Vec<(LaneKey, Seq)>, LedgerError> {
        if hello.pages != 1 {
            return Ok(Vec::new());
        }
        let sql = "SELECT epoch, lane, head FROM streams \
            WHERE store_id = $1 AND agent_id = $2 AND stored < head AND seen_at < $3";
        let mut params = source_params(source);
        params.push((env::wall().0 - SILENT_MS).into());
        let mut silent = Vec::new();
        for row in self.database.read(sql, params).await? {
            let mut row = row.read();
            let epoch = Epoch(row.array()?);
            let lane = u8::try_from(row.int()?).ok().and_then(Lane::from_code).ok_or(LedgerError::Shape)?;
            if hello.epochs.iter().all(|heads| heads.epoch != epoch) {
                silent.push((LaneKey { epoch, lane }, Seq(row.count()?)));
            }
        }
        Ok(silent)
    }

    /// Session, software and lineage; gives what a person should see of the epochs, and the lineage.
    async fn note_agent(
        &self,
        tx: &mut dyn Transaction,
        source: &Source,
        hello: &Hello,
    ) -> Result<(Vec<Raised>, Lineage), LedgerError> {
        ensure_agent(tx, source).await?;
        let sql = "SELECT lineage FROM agents WHERE store_id = $1 AND agent_id = $2 FOR UPDATE";
        let row = watch::first(tx.query(sql, source_params(source)).await?).ok_or(LedgerError::Shape)?;
        let mut lineage = read_lineage(row.read().bytes_or_null()?)?;
        let incidents = lineage.hello(&hello.epochs, hello.page == 0);
        let is_clone = incidents.iter().any(|incident| matches!(incident, LineageIncident::Clone { .. }));
        let raised = incidents.iter().map(|incident| of_lineage(source, incident)).collect();
        let kept = postcard::to_extend(&lineage, Vec::new()).map_err(|_| LedgerError::Shape)?;
        let sql = "UPDATE agents SET session = $3, software = $4, clock = $5, hello_at = $6, lineage = $7, \
            suspended = CASE WHEN $8 = 1 THEN 1 ELSE suspended END WHERE store_id = $1 AND agent_id = $2";
        let mut params = source_params(source);
        params.extend([
            hello.session.0.into(),
            hello.software.chars().take(128).collect::<String>().into(),
            clock(hello.clock).into(),
            env::wall().0.into(),
            kept.into(),
            i64::from(is_clone).into(),
        ]);
        tx.execute_many(sql, vec![params]).await?;
        Ok((raised, lineage))
    }

    async fn note_presence(&self, source: &Source, presence: &Presence) -> Result<Option<SessionId>, LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        ensure_agent(&mut *tx, source).await?;
        // A will that arrives after the next session began says nothing about that one.
        let sql = "UPDATE agents SET presence = $3, presence_session = $4, presence_at = $5 \
            WHERE store_id = $1 AND agent_id = $2 AND ($3 = 'online' OR presence_session IS NULL OR presence_session = $4) \
            RETURNING session";
        let state = if presence.state == "online" { "online" } else { "offline" };
        let mut params = source_params(source);
        params.extend([state.into(), presence.session.0.into(), env::wall().0.into()]);
        let rows = tx.query(sql, params).await?;
        let session = match watch::first(rows) {
            Some(row) => row.read().array_or_null()?,
            None => None,
        };
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await?;
        Ok(session.map(SessionId))
    }

    async fn keep_positions(&self, source: &Source, part: &Positions) -> Result<(), LedgerError> {
        if part.parts == 0 || part.parts > PARTS_MAX || part.part >= part.parts {
            return Ok(());
        }
        let payload = postcard::to_extend(part, Vec::new()).map_err(|_| LedgerError::Shape)?;
        let mut tx = self.database.begin(Role::Desk).await?;
        ensure_agent(&mut *tx, source).await?;
        let sql = "SELECT lineage, positions_session, positions_round FROM agents \
            WHERE store_id = $1 AND agent_id = $2 FOR UPDATE";
        let row = watch::first(tx.query(sql, source_params(source)).await?).ok_or(LedgerError::Shape)?;
        let mut row = row.read();
        let lineage = read_lineage(row.bytes_or_null()?)?;
        let (applied, applied_round) = (row.array_or_null::<16>()?, row.int_or_null()?);
        let round = i64::from(part.round);
        if let (Some(session), Some(round)) = (applied, applied_round) {
            let sql = "SELECT payload FROM positions \
                WHERE store_id = $1 AND agent_id = $2 AND session = $3 AND round = $4 AND part = 0";
            let mut params = source_params(source);
            params.extend([session.into(), round.into()]);
            let known = watch::first(tx.query(sql, params).await?).map(|row| row.read().bytes()).transpose()?;
            let known = known.and_then(|bytes| postcard::from_bytes::<Positions>(&bytes).ok());
            // What the snapshot reflects decides, not when it came: it may be late, or be played again.
            if known.is_some_and(|known| reflects(&lineage, part) <= reflects(&lineage, &known)) {
                return tx.rollback().await;
            }
        }
        let mut params = source_params(source);
        params.extend([part.session.0.into(), round.into()]);
        let mut row = params.clone();
        row.extend([i64::from(part.part).into(), i64::from(part.parts).into(), env::wall().0.into(), payload.into()]);
        let insert = "INSERT INTO positions (store_id, agent_id, session, round, part, parts, received_at, payload) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (store_id, agent_id, session, round, part) DO NOTHING";
        tx.execute_many(insert, vec![row]).await?;
        let sql =
            "SELECT COUNT(*) FROM positions WHERE store_id = $1 AND agent_id = $2 AND session = $3 AND round = $4";
        let found = watch::first(tx.query(sql, params.clone()).await?).ok_or(LedgerError::Shape)?;
        if found.read().int()? == i64::from(part.parts) {
            let apply =
                "UPDATE agents SET positions_session = $3, positions_round = $4 WHERE store_id = $1 AND agent_id = $2";
            tx.execute_many(apply, vec![params.clone()]).await?;
            let clear =
                "DELETE FROM positions WHERE store_id = $1 AND agent_id = $2 AND NOT (session = $3 AND round = $4)";
            tx.execute_many(clear, vec![params]).await?;
        } else if part.part == 0 {
            // Rounds that were never whole give way to the next one; the applied one stays.
            let clear = "DELETE FROM positions WHERE store_id = $1 AND agent_id = $2 AND NOT (session = $3 AND round = $4) \
                AND NOT (session = COALESCE($5, $3) AND round = COALESCE($6, -1))";
            params.extend([applied.into(), applied_round.into()]);
            tx.execute_many(clear, vec![params]).await?;
        }
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await.map(|_| ())
    }

    async fn keep_reject(
        &self,
        source: &Source,
        key: Option<LaneKey>,
        reason: &str,
        bytes: &[u8],
    ) -> Result<(), LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        let mut row = source_params(source);
        let kept = bytes.get(..REJECT_BYTES_MAX).unwrap_or(bytes);
        row.extend([env::wall().0.into(), reason.into(), kept.to_vec().into()]);
        let insert = "INSERT INTO rejects (store_id, agent_id, received_at, reason, bytes) VALUES ($1, $2, $3, $4, $5)";
        tx.execute_many(insert, vec![row]).await?;
        let bound = "DELETE FROM rejects WHERE number <= (SELECT MAX(number) FROM rejects) - $1";
        tx.execute_many(bound, vec![vec![REJECTS_MAX.into()]]).await?;
        // Without a head that can be read the finding is about the agent; its own name tells it from others.
        let of_agent = || {
            let digest = Digest::of(source.to_string().as_bytes());
            let mut epoch = [0; 16];
            epoch.copy_from_slice(&digest.0[..16]);
            LaneKey { epoch: Epoch(epoch), lane: Lane::Trade }
        };
        let lane = key.unwrap_or_else(of_agent);
        let key = RecordKey { epoch: lane.epoch, lane: lane.lane, seq: Seq::NONE };
        let raised = Raised::new(source, key, flag::UNREADABLE_RECORD, "", format!("a batch: {reason}"));
        raise(&mut *tx, &[raised]).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await.map(|_| ())
    }

    async fn look(&self) -> Result<Beat, LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await.map(Beat::Same)
    }

    /// Raises `safe` to what a restored copy holds, on the word of a person.
    pub async fn verified(&self, copy: &[LaneCopy], deed: &Deed) -> Result<u64, LedgerError> {
        if copy.is_empty() {
            self.note_alone(deed, "done: nothing is in it").await?;
        }
        self.raise_to(copy, Some(deed)).await
    }

    async fn raise_to(&self, copy: &[LaneCopy], deed: Option<&Deed>) -> Result<u64, LedgerError> {
        let mut count = 0_u64;
        for chunk in copy.chunks(LANES_AT_ONCE) {
            let named: Vec<LaneOf> = chunk.iter().map(|lane| (lane.source.clone(), lane.mark.key)).collect();
            let known = self.marks_of(&named).await?;
            let known: BTreeSet<LaneOf> = known.into_iter().map(|(source, _, mark)| (source, mark.key)).collect();
            let (mut tx, mut held) = self.hold(Role::Desk, &known).await?;
            for lane in &mut held {
                let copy = chunk.iter().find(|copy| (&copy.source, &copy.mark.key) == (&lane.of.0, &lane.of.1));
                // A fork that the copy lacks may lie under any number.
                let whole = copy.filter(|copy| copy.forks >= lane.forks_before);
                let verified = whole.map_or(Seq::NONE, |copy| lane.state.verified_by(&copy.mark));
                if verified > lane.state.safe {
                    lane.state.safe = verified;
                    count = count.saturating_add(1);
                }
            }
            self.write_lanes(&mut *tx, &mut held).await?;
            if let Some(deed) = deed {
                audit::note(&mut *tx, deed, "done").await?;
            }
            let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
            self.watch.commit(tx, settled).await?;
        }
        Ok(count)
    }

    async fn marks_of(&self, lanes: &[LaneOf]) -> Result<Vec<(Source, Option<SessionId>, Mark)>, LedgerError> {
        let sql = "SELECT s.state, a.session FROM streams s \
            LEFT JOIN agents a ON a.store_id = s.store_id AND a.agent_id = s.agent_id \
            WHERE s.store_id = $1 AND s.agent_id = $2 AND s.epoch = $3 AND s.lane = $4";
        let answers = self.database.read_many(sql, lanes.iter().map(store_params).collect()).await?;
        let mut marks = Vec::with_capacity(lanes.len());
        for ((source, key), rows) in lanes.iter().zip(answers) {
            let Some(row) = watch::first(rows) else { continue };
            let mut row = row.read();
            let mark = read_state(&row.bytes()?)?.mark(*key);
            marks.push((source.clone(), row.array_or_null()?.map(SessionId), mark));
        }
        Ok(marks)
    }

    /// Whether the ledger ever had that hub epoch.
    pub async fn was_epoch(&self, hub_epoch: SessionId) -> Result<bool, LedgerError> {
        let sql = "SELECT number FROM hub_epochs WHERE hub_epoch = $1";
        let rows = self.database.read(sql, vec![hub_epoch.0.into()]).await?;
        Ok(!rows.is_empty())
    }

    async fn every_agent(&self) -> Result<Vec<Source>, LedgerError> {
        let sql = "SELECT store_id, agent_id FROM agents UNION SELECT store_id, agent_id FROM streams";
        let mut agents = Vec::new();
        for row in self.database.read(sql, vec![]).await? {
            agents.push(read_source(&mut row.read())?);
        }
        Ok(agents)
    }
}

/// Every lane as a database holds it, which may be a copy that nobody opened as a ledger.
pub async fn read_copy(database: &dyn Database) -> Result<(SessionId, Vec<LaneCopy>), LedgerError> {
    let row = watch::first(database.read("SELECT hub_epoch FROM hub WHERE one = 1", vec![]).await?);
    let hub_epoch = SessionId(row.ok_or(LedgerError::Shape)?.read().array()?);
    let sql = "SELECT stream, store_id, agent_id, epoch, lane, state, forks FROM streams \
        ORDER BY store_id, agent_id, epoch, lane";
    let mut lanes = Vec::new();
    for row in database.read(sql, vec![]).await? {
        let mut row = row.read();
        let (_, source, epoch, lane) = read_lane(&mut row)?;
        let mark = read_state(&row.bytes()?)?.mark(LaneKey { epoch, lane });
        lanes.push(LaneCopy { source, mark, forks: row.count()? });
    }
    Ok((hub_epoch, lanes))
}

const fn clock(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Synchronised => "synchronised",
        ClockQuality::Unsynchronised => "unsynchronised",
        ClockQuality::Behind => "behind",
    }
}

fn of_lineage(source: &Source, incident: &LineageIncident) -> Raised {
    let key = |epoch| RecordKey { epoch, lane: counterfoil_proto::id::Lane::Trade, seq: Seq::NONE };
    match incident {
        LineageIncident::Clone { returned, between } => {
            let detail = format!("epoch {returned} spoke again after {between}");
            Raised::new(source, key(*returned), flag::CLONE, "", detail)
        }
        LineageIncident::Rollback { parent, earlier, later } => {
            let detail = format!("epochs {earlier} and {later} both follow {parent}");
            Raised::new(source, key(*later), flag::ROLLBACK, "", detail)
        }
    }
}

impl Ledger for SqlLedger {
    fn take<'a>(&'a self, arrivals: &'a [Arrival]) -> Work<'a, Taken> {
        Box::pin(self.take_in(arrivals))
    }
    fn reject<'a>(
        &'a self,
        source: &'a Source,
        key: Option<LaneKey>,
        reason: &'a str,
        bytes: &'a [u8],
    ) -> Work<'a, ()> {
        Box::pin(self.keep_reject(source, key, reason, bytes))
    }
    fn hello<'a>(&'a self, source: &'a Source, hello: &'a Hello) -> Work<'a, Welcomed> {
        Box::pin(self.take_hello(source, hello))
    }
    fn presence<'a>(&'a self, source: &'a Source, presence: &'a Presence) -> Work<'a, Option<SessionId>> {
        Box::pin(self.note_presence(source, presence))
    }
    fn positions<'a>(&'a self, source: &'a Source, part: &'a Positions) -> Work<'a, ()> {
        Box::pin(self.keep_positions(source, part))
    }
    fn post(&self, bounds: PostingBounds) -> Work<'_, Posted> {
        Box::pin(self.post_chunk(bounds))
    }
    fn marks<'a>(&'a self, lanes: &'a [(Source, LaneKey)]) -> Work<'a, Vec<(Source, Option<SessionId>, Mark)>> {
        Box::pin(self.marks_of(lanes))
    }
    fn hub_epoch(&self) -> SessionId {
        self.watch.hub_epoch()
    }
    fn beat(&self) -> Work<'_, Beat> {
        Box::pin(self.look())
    }
    fn come_back(&self, under: SessionId) -> Work<'_, SessionId> {
        Box::pin(self.watch.come_back(&*self.database, under))
    }
    fn agents(&self) -> Work<'_, Vec<Source>> {
        Box::pin(self.every_agent())
    }
    fn raise_safe<'a>(&'a self, copy: &'a [LaneCopy]) -> Work<'a, u64> {
        Box::pin(self.raise_to(copy, None))
    }
    fn all_lanes(&self) -> Work<'_, (SessionId, Vec<LaneCopy>)> {
        Box::pin(read_copy(&*self.database))
    }
    fn stores<'a>(&'a self, store_id: Option<&'a str>) -> Work<'a, Vec<AgentView>> {
        Box::pin(self.view_stores(store_id))
    }
    fn fleet(&self, now: WallTime) -> Work<'_, FleetView> {
        Box::pin(self.view_fleet(now))
    }
    fn stores_of_day<'a>(&'a self, business_day: &'a str) -> Work<'a, Vec<String>> {
        Box::pin(self.view_stores_of_day(business_day))
    }
    fn records<'a>(&'a self, query: &'a PageQuery) -> Work<'a, RecordsPage> {
        Box::pin(self.page(query))
    }
    fn lookup<'a>(&'a self, query: &'a LookupQuery) -> Work<'a, Lookup> {
        Box::pin(self.find(query))
    }
    fn returns<'a>(&'a self, query: &'a ReturnsQuery) -> Work<'a, Vec<ReturnView>> {
        Box::pin(self.view_returns(query))
    }
    fn totals<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, Vec<TotalsRow>> {
        Box::pin(self.view_totals(store_id, business_day))
    }
    fn day<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, DayView> {
        Box::pin(self.view_day(store_id, business_day))
    }
    fn due_replays(&self) -> Work<'_, Vec<DueReplay>> {
        Box::pin(Self::due_replays(self))
    }
    fn note_asked(&self, number: u64) -> Work<'_, ()> {
        Box::pin(Self::note_asked(self, number))
    }
    fn delays<'a>(&'a self, query: &'a DelayQuery) -> Work<'a, Vec<DelayView>> {
        Box::pin(self.view_delays(query))
    }
    fn exceptions<'a>(&'a self, filter: &'a ExceptionFilter) -> Work<'a, Vec<ExceptionView>> {
        Box::pin(self.view_exceptions(filter))
    }
    fn change_exception<'a>(
        &'a self,
        id: &'a str,
        change: flag::Change,
        by_and_why: (&'a str, &'a str),
        deed: &'a Deed,
    ) -> Work<'a, Option<ExceptionView>> {
        Box::pin(self.set_exception(id, change, by_and_why, deed))
    }
    fn note_alone<'a>(&'a self, deed: &'a Deed, outcome: &'a str) -> Work<'a, ()> {
        Box::pin(Self::note_alone(self, deed, outcome))
    }
    fn audit(&self, before: Option<u64>, limit: usize) -> Work<'_, Vec<AuditView>> {
        Box::pin(self.view_audit(before, limit))
    }
    fn stock<'a>(&'a self, store_id: &'a str) -> Work<'a, Vec<StockView>> {
        Box::pin(self.view_stock(store_id))
    }
    fn gauges(&self) -> Work<'_, Gauges> {
        Box::pin(self.count())
    }
    fn waits(&self) -> Work<'_, Waits> {
        Box::pin(self.view_waits())
    }
    fn cursor(&self, position: Option<u64>) -> Work<'_, Cursor> {
        Box::pin(self.place(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use counterfoil_proto::message::PositionHead;

    #[test]
    fn a_snapshot_reflects_its_newest_epoch_and_the_records_of_that() {
        let known = |number| EpochHeads { epoch: Epoch([number; 16]), parent: None, live: false, lanes: vec![] };
        let mut lineage = Lineage::default();
        lineage.hello(&[known(1), known(2)], true);
        let of = |heads: &[(u8, Lane, u64)]| {
            let head = |&(number, lane, last)| PositionHead {
                key: LaneKey { epoch: Epoch([number; 16]), lane },
                last: Seq(last),
            };
            let heads = heads.iter().map(head).collect();
            let (session, items) = (SessionId([1; 16]), vec![]);
            reflects(&lineage, &Positions { session, round: 1, part: 0, parts: 1, taken_at: WallTime(0), heads, items })
        };
        assert_eq!(of(&[(1, Lane::Trade, 100), (2, Lane::Trade, 3), (2, Lane::Stock, 4)]), (2, 7));
        assert_eq!(of(&[(1, Lane::Trade, 100), (9, Lane::Trade, 3)]), (1, 100));
        assert_eq!(of(&[(9, Lane::Trade, 3)]), (0, 3));
        assert_eq!(of(&[]), (0, 0));
    }
}
