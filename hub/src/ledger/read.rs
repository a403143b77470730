//! What the ledger shows: stores, records by position, totals, exceptions, stock, counts.
//!
//! Invariant: only what is committed; a page of records is gapless from its start to its end, or says that it was filtered by
//! moving the cursor past what it left out. A [`Cursor`] names hub epoch, position and the record that stood there: one from a
//! state of the ledger that is gone is refused and told the restore point. Nothing here writes.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Digest, Epoch, Lane, RecordKey, Seq, SessionId, Source};

use super::posting::{mark, read_lane, read_source};
use super::sql::{Row, RowReader};
use super::{
    AgentView, Cursor, EntryView, ExceptionFilter, ExceptionView, Gauges, LaneView, LedgerError, PageQuery,
    RecordsPage, SqlLedger, StockView, TotalsRow, watch,
};

/// Runs looked through for one page; a page that found little moves the cursor and comes back.
const RUNS_MAX: i64 = 4_096;
/// Positions looked through for one page: bounds the search for the next record of one store among all others'.
const POSITIONS_MAX: u64 = 200_000;
/// Stored bytes of one page.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

struct Run {
    first_position: u64,
    count: u64,
    stream: i64,
    first_seq: u64,
    fork: i64,
    source: Source,
    epoch: Epoch,
    lane: Lane,
}

/// Runs that reach beyond a position, of all stores or one, of all lanes or one.
const RUNS: &str = "SELECT r.stream, s.store_id, s.agent_id, s.epoch, s.lane, r.first_position, r.positions, r.first_seq, r.fork \
    FROM runs r JOIN streams s ON s.stream = r.stream \
    WHERE r.first_position >= COALESCE((SELECT MAX(first_position) FROM runs WHERE first_position <= $1), 0) \
    AND r.first_position + r.positions > $1 AND r.first_position <= $2 \
    AND (CAST($3 AS TEXT) IS NULL OR s.store_id = $3) AND (CAST($4 AS BIGINT) IS NULL OR s.lane = $4) \
    ORDER BY r.first_position LIMIT $5";
const RUN_AT: &str = "SELECT r.stream, s.store_id, s.agent_id, s.epoch, s.lane, r.first_position, r.positions, r.first_seq, r.fork \
    FROM runs r JOIN streams s ON s.stream = r.stream WHERE r.first_position <= $1 ORDER BY r.first_position DESC LIMIT 1";

pub(super) const RECORD: &str =
    "SELECT digest, received_at, bytes FROM records WHERE stream = $1 AND seq = $2 AND fork = $3";

fn read_run(mut row: RowReader) -> Result<Run, LedgerError> {
    let (stream, source, epoch, lane) = read_lane(&mut row)?;
    Ok(Run {
        stream,
        source,
        epoch,
        lane,
        first_position: row.count()?,
        count: row.count()?,
        first_seq: row.count()?,
        fork: row.int()?,
    })
}

fn apply_marks(entries: &mut [EntryView], rows: Vec<Row>) -> Result<(), LedgerError> {
    let mut by_position: BTreeMap<u64, &mut EntryView> =
        entries.iter_mut().map(|entry| (entry.position, entry)).collect();
    for row in rows {
        let mut row = row.read();
        let (position, what, other) = (row.count()?, row.int()?, row.int_or_null()?);
        let other = other.and_then(|other| u64::try_from(other).ok());
        let Some(entry) = by_position.get_mut(&position) else { continue };
        match what {
            mark::DUPLICATE => entry.duplicate_of = other,
            mark::CONFLICT => entry.conflicts_with = Some(other),
            mark::UNREADABLE => entry.is_unreadable = true,
            mark::VOIDS => entry.voids = other,
            mark::VOIDED => entry.voided_by = other,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn read_entry(
    row: &mut RowReader,
    position: u64,
    source: Source,
    key: RecordKey,
    fork: i64,
) -> Result<EntryView, LedgerError> {
    Ok(EntryView {
        position,
        source,
        key,
        record_digest: Digest(row.array()?),
        received_at: row.int()?,
        bytes: row.bytes()?,
        duplicate_of: None,
        conflicts_with: None,
        is_fork: fork > 0,
        is_unreadable: false,
        voids: None,
        voided_by: None,
    })
}

/// A query of exceptions, in the columns of [`read_exception`]; what is asked of them follows.
macro_rules! of_exceptions {
    ($more:literal) => {
        concat!(
            "SELECT id, store_id, agent_id, code, state, opened_at, changed_at, times, epoch, lane, seq, pointer, detail, \
            changed_by, reason, route, owner, escalated_at, notified_at, told_state FROM exceptions ",
            $more
        )
    };
}
pub(super) use of_exceptions;

/// Where `told_state` stands, which no view shows.
pub(super) const TOLD_STATE: usize = 19;

pub(super) fn read_exception(row: Row) -> Result<ExceptionView, LedgerError> {
    let mut row = row.read();
    Ok(ExceptionView {
        id: row.text()?,
        store_id: row.text()?,
        agent_id: row.text()?,
        code: row.text()?,
        state: row.text()?,
        opened_at: row.int()?,
        changed_at: row.int()?,
        times: row.count()?,
        key: RecordKey {
            epoch: Epoch(row.array()?),
            lane: u8::try_from(row.int()?).ok().and_then(Lane::from_code).ok_or(LedgerError::Shape)?,
            seq: Seq(row.count()?),
        },
        pointer: row.text()?,
        detail: row.text()?,
        changed_by: row.text_or_null()?,
        reason: row.text_or_null()?,
        route: row.text_or_null()?,
        owner: row.text_or_null()?,
        escalated_at: row.int_or_null()?,
        notified_at: row.int_or_null()?,
    })
}

fn check_of(digest: Digest) -> u32 {
    let [a, b, c, d, ..] = digest.0;
    u32::from_be_bytes([a, b, c, d])
}

impl SqlLedger {
    pub(super) async fn last_position(&self) -> Result<u64, LedgerError> {
        let rows = self.database.read("SELECT next_position FROM poster WHERE one = 1", vec![]).await?;
        let row = watch::first(rows).ok_or(LedgerError::Shape)?;
        Ok(row.read().count()?.saturating_sub(1))
    }

    async fn epoch_now(&self) -> Result<SessionId, LedgerError> {
        let row = watch::first(self.database.read("SELECT hub_epoch FROM hub WHERE one = 1", vec![]).await?);
        Ok(SessionId(row.ok_or(LedgerError::Shape)?.read().array()?))
    }

    async fn cursor_at(&self, position: u64) -> Result<Cursor, LedgerError> {
        let hub_epoch = self.epoch_now().await?;
        let check = if position == 0 { 0 } else { self.check_at(position).await?.unwrap_or(0) };
        Ok(Cursor { hub_epoch, position, check })
    }

    /// The check of the record at a position; `None` where there is none.
    async fn check_at(&self, position: u64) -> Result<Option<u32>, LedgerError> {
        let rows = self.database.read(RUN_AT, vec![position.into()]).await?;
        let Some(row) = watch::first(rows) else { return Ok(None) };
        let run = read_run(row.read())?;
        let offset = position.saturating_sub(run.first_position);
        if offset >= run.count {
            return Ok(None);
        }
        let sql = "SELECT digest FROM records WHERE stream = $1 AND seq = $2 AND fork = $3";
        let params = vec![run.stream.into(), run.first_seq.saturating_add(offset).into(), run.fork.into()];
        let row = watch::first(self.database.read(sql, params).await?).ok_or(LedgerError::Shape)?;
        Ok(Some(check_of(Digest(row.read().array()?))))
    }

    pub(super) async fn place(&self, position: Option<u64>) -> Result<Cursor, LedgerError> {
        let last = self.last_position().await?;
        self.cursor_at(position.map_or(last, |position| position.min(last))).await
    }

    /// Refuses a cursor that does not stand in this ledger as it is now.
    async fn vet(&self, cursor: Cursor) -> Result<(), LedgerError> {
        let last = self.last_position().await?;
        let is_current = cursor.hub_epoch == self.epoch_now().await?;
        if is_current && (cursor.position == 0 || self.check_at(cursor.position).await? == Some(cursor.check)) {
            return Ok(());
        }
        // Positions up to the lowest restore point since the cursor's epoch are still what they were.
        let sql = "SELECT MIN(later.restore_point) FROM hub_epochs later \
            JOIN hub_epochs mine ON mine.hub_epoch = $1 WHERE later.number > mine.number";
        let rows = self.database.read(sql, vec![cursor.hub_epoch.0.into()]).await?;
        let point = watch::first(rows).map_or(Ok(None), |row| row.read().int_or_null())?;
        let point = point.and_then(|point| u64::try_from(point).ok()).unwrap_or(0);
        Err(LedgerError::Cursor { restore_point: point.min(cursor.position).min(last) })
    }

    pub(super) async fn page(&self, query: &PageQuery) -> Result<RecordsPage, LedgerError> {
        if let Some(cursor) = query.after {
            self.vet(cursor).await?;
        }
        let after = query.after.map_or(0, |cursor| cursor.position);
        // What is posted after this is left for the next page, so that the cursor never passes what was not looked at.
        let last = self.last_position().await?;
        let until = last.min(after.saturating_add(POSITIONS_MAX));
        let params = vec![
            after.saturating_add(1).into(),
            until.into(),
            query.store_id.clone().into(),
            query.lane.map(|lane| i64::from(lane.code())).into(),
            RUNS_MAX.into(),
        ];
        let rows = self.database.read(RUNS, params).await?;
        let is_whole = i64::try_from(rows.len()).is_ok_and(|count| count < RUNS_MAX);
        let (mut entries, mut bytes, mut reached) = (Vec::new(), 0_usize, after);
        let mut is_full = false;
        for row in rows {
            let run = read_run(row.read())?;
            if is_full {
                break;
            }
            is_full = self.read_entries(&run, query, &mut reached, &mut entries, &mut bytes).await?;
        }
        if !is_full && is_whole {
            reached = until.max(after);
        }
        self.add_marks(&mut entries).await?;
        let next = self.cursor_at(reached).await?;
        Ok(RecordsPage { entries, next, at_end: reached >= last })
    }

    /// Reads what a page wants of a run; says whether the page is full.
    async fn read_entries(
        &self,
        run: &Run,
        query: &PageQuery,
        reached: &mut u64,
        entries: &mut Vec<EntryView>,
        bytes: &mut usize,
    ) -> Result<bool, LedgerError> {
        let last = run.first_position.saturating_add(run.count).saturating_sub(1);
        let mut next = run.first_position.max(reached.saturating_add(1));
        let sql = "SELECT seq, digest, received_at, bytes FROM records \
            WHERE stream = $1 AND seq >= $2 AND seq <= $3 AND fork = $4 ORDER BY seq";
        while next <= last {
            // In slices, so that a run of large records is not held as a whole.
            let room = u64::try_from(query.limit.saturating_sub(entries.len())).unwrap_or(u64::MAX);
            let slice = last.min(next.saturating_add(room.clamp(16, 256)).saturating_sub(1));
            let seq_of = |position: u64| run.first_seq.saturating_add(position.saturating_sub(run.first_position));
            let params = vec![run.stream.into(), seq_of(next).into(), seq_of(slice).into(), run.fork.into()];
            for row in self.database.read(sql, params).await? {
                if entries.len() >= query.limit || *bytes >= PAGE_BYTES_MAX {
                    return Ok(true);
                }
                let mut row = row.read();
                let seq = row.count()?;
                let position = run.first_position.saturating_add(seq.saturating_sub(run.first_seq));
                let key = RecordKey { epoch: run.epoch, lane: run.lane, seq: Seq(seq) };
                let entry = read_entry(&mut row, position, run.source.clone(), key, run.fork)?;
                *reached = position;
                let kind = entry.bytes.first_chunk().map(|kind| u16::from_le_bytes(*kind));
                if query.kind.is_some_and(|wanted| kind != Some(wanted)) {
                    continue;
                }
                *bytes = bytes.saturating_add(entry.bytes.len());
                entries.push(entry);
            }
            next = slice.saturating_add(1);
        }
        Ok(entries.len() >= query.limit || *bytes >= PAGE_BYTES_MAX)
    }

    /// The records at positions, in their order, with what is said of them.
    pub(super) async fn entries_at(&self, positions: &[u64]) -> Result<Vec<EntryView>, LedgerError> {
        let at = positions.iter().map(|position| vec![(*position).into()]).collect();
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        for (position, rows) in positions.iter().zip(self.database.read_many(RUN_AT, at).await?) {
            let run = read_run(watch::first(rows).ok_or(LedgerError::Shape)?.read())?;
            let seq = run.first_seq.saturating_add(position.saturating_sub(run.first_position));
            wanted.push(vec![run.stream.into(), seq.into(), run.fork.into()]);
            found.push((*position, run, Seq(seq)));
        }
        let mut entries = Vec::new();
        for ((position, run, seq), rows) in found.into_iter().zip(self.database.read_many(RECORD, wanted).await?) {
            let mut row = watch::first(rows).ok_or(LedgerError::Shape)?.read();
            let key = RecordKey { epoch: run.epoch, lane: run.lane, seq };
            entries.push(read_entry(&mut row, position, run.source, key, run.fork)?);
        }
        let marks = "SELECT position, mark, other FROM marks WHERE position = $1";
        let at = positions.iter().map(|position| vec![(*position).into()]).collect();
        let rows = self.database.read_many(marks, at).await?.into_iter().flatten().collect();
        apply_marks(&mut entries, rows)?;
        Ok(entries)
    }

    async fn add_marks(&self, entries: &mut [EntryView]) -> Result<(), LedgerError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let sql = "SELECT position, mark, other FROM marks WHERE position BETWEEN $1 AND $2";
        let rows = self.database.read(sql, vec![first.position.into(), last.position.into()]).await?;
        apply_marks(entries, rows)
    }

    pub(super) async fn view_stores(&self, store_id: Option<&str>) -> Result<Vec<AgentView>, LedgerError> {
        let mut agents: BTreeMap<Source, AgentView> = BTreeMap::new();
        let empty = |source: &Source| AgentView {
            source: source.clone(),
            presence: None,
            presence_at: None,
            software: None,
            clock: None,
            hello_at: None,
            is_suspended: false,
            lanes: Vec::new(),
            exceptions_open: 0,
        };
        let sql = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, s.stored, s.safe, s.head, \
            COALESCE(p.seq, 0), s.received, s.duplicates, s.forks, s.seen_at \
            FROM streams s LEFT JOIN posted p ON p.stream = s.stream \
            WHERE CAST($1 AS TEXT) IS NULL OR s.store_id = $1 ORDER BY s.store_id, s.agent_id, s.stream";
        for row in self.database.read(sql, vec![store_id.into()]).await? {
            let mut row = row.read();
            let (_, source, epoch, lane) = read_lane(&mut row)?;
            let view = LaneView {
                epoch,
                lane,
                stored: row.count()?,
                safe: row.count()?,
                head: row.count()?,
                posted: row.count()?,
                received: row.count()?,
                duplicates: row.count()?,
                forks: row.count()?,
                seen_at: row.int()?,
            };
            agents.entry(source.clone()).or_insert_with(|| empty(&source)).lanes.push(view);
        }
        let sql = "SELECT store_id, agent_id, presence, presence_at, software, clock, hello_at, suspended \
            FROM agents WHERE CAST($1 AS TEXT) IS NULL OR store_id = $1";
        for row in self.database.read(sql, vec![store_id.into()]).await? {
            let mut row = row.read();
            let source = read_source(&mut row)?;
            let view = agents.entry(source.clone()).or_insert_with(|| empty(&source));
            view.presence = row.text_or_null()?;
            view.presence_at = row.int_or_null()?;
            view.software = row.text_or_null()?;
            view.clock = row.text_or_null()?;
            view.hello_at = row.int_or_null()?;
            view.is_suspended = row.int()? != 0;
        }
        let sql = "SELECT store_id, agent_id, COUNT(*) FROM exceptions WHERE state IN ('open', 'acknowledged') \
            AND (CAST($1 AS TEXT) IS NULL OR store_id = $1) GROUP BY store_id, agent_id";
        for row in self.database.read(sql, vec![store_id.into()]).await? {
            let mut row = row.read();
            let (store_id, agent_id, open) = (row.text()?, row.text()?, row.count()?);
            let of = |source: &Source| source.store_id.as_str() == store_id && source.agent_id.as_str() == agent_id;
            if let Some((_, view)) = agents.iter_mut().find(|(source, _)| of(source)) {
                view.exceptions_open = open;
            }
        }
        Ok(agents.into_values().collect())
    }

    pub(super) async fn view_totals(&self, store_id: &str, day: &str) -> Result<Vec<TotalsRow>, LedgerError> {
        let sql = "SELECT currency, workstation_id, what, transactions, amount, base, low, high FROM totals \
            WHERE store_id = $1 AND business_day = $2 ORDER BY currency, workstation_id, what";
        let rows = self.database.read(sql, vec![store_id.into(), day.into()]).await?;
        let unsigned = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        rows.into_iter()
            .map(|row| {
                let mut row = row.read();
                Ok(TotalsRow {
                    currency: row.text()?,
                    workstation_id: row.text()?,
                    what: row.text()?,
                    transactions: row.count()?,
                    amount: row.int()?,
                    base: row.int()?,
                    low: unsigned(row.int_or_null()?),
                    high: unsigned(row.int_or_null()?),
                })
            })
            .collect()
    }

    pub(super) async fn view_exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<ExceptionView>, LedgerError> {
        let sql = of_exceptions!(
            "WHERE (CAST($1 AS TEXT) IS NULL OR store_id = $1) AND (CAST($2 AS TEXT) IS NULL OR code = $2) \
            AND (CAST($3 AS TEXT) IS NULL OR state = $3) AND (CAST($4 AS TEXT) IS NULL OR id > $4) ORDER BY id LIMIT $5"
        );
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let params = vec![
            filter.store_id.clone().into(),
            filter.code.clone().into(),
            filter.state.clone().into(),
            filter.after.clone().into(),
            limit.into(),
        ];
        let rows = self.database.read(sql, params).await?;
        rows.into_iter().map(read_exception).collect()
    }

    pub(super) async fn view_stock(&self, store_id: &str) -> Result<Vec<StockView>, LedgerError> {
        let sql = "SELECT p.store_id, p.agent_id, p.received_at, p.payload FROM positions p \
            JOIN agents a ON a.store_id = p.store_id AND a.agent_id = p.agent_id \
            AND a.positions_session = p.session AND a.positions_round = p.round \
            WHERE p.store_id = $1 ORDER BY p.agent_id, p.part";
        let mut views: Vec<StockView> = Vec::new();
        for row in self.database.read(sql, vec![store_id.into()]).await? {
            let mut row = row.read();
            let source = read_source(&mut row)?;
            let received_at = row.int()?;
            let part = postcard::from_bytes(&row.bytes()?).map_err(|_| LedgerError::Shape)?;
            match views.last_mut().filter(|view| view.source == source) {
                Some(view) => {
                    view.received_at = view.received_at.max(received_at);
                    view.parts.push(part);
                }
                None => views.push(StockView { source, received_at, parts: vec![part] }),
            }
        }
        Ok(views)
    }

    pub(super) async fn count(&self) -> Result<Gauges, LedgerError> {
        let sql = "SELECT (SELECT COUNT(*) FROM agents), (SELECT COUNT(*) FROM agents WHERE presence = 'online'), \
            CAST(COALESCE(SUM(received), 0) AS BIGINT), CAST(COALESCE(SUM(duplicates), 0) AS BIGINT), \
            CAST(COALESCE(SUM(forks), 0) AS BIGINT), \
            CAST(COALESCE(SUM(CASE WHEN head > stored THEN head - stored ELSE 0 END), 0) AS BIGINT), \
            CAST(COALESCE(SUM(stored - safe), 0) AS BIGINT), \
            (SELECT next_position - 1 FROM poster WHERE one = 1), \
            (SELECT COUNT(*) FROM exceptions WHERE state IN ('open', 'acknowledged')) FROM streams";
        let row = watch::first(self.database.read(sql, vec![]).await?).ok_or(LedgerError::Shape)?;
        let mut row = row.read();
        let (letters_waiting, letters_failing, letter_oldest_at) = self.letters_waiting().await?;
        Ok(Gauges {
            agents: row.count()?,
            online: row.count()?,
            records: row.count()?,
            duplicates: row.count()?,
            forks: row.count()?,
            lag: row.count()?,
            unsafe_records: row.count()?,
            last_position: row.count()?,
            exceptions_open: row.count()?,
            letters_waiting,
            letters_failing,
            letter_oldest_at,
        })
    }
}
