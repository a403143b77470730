//! What the agent knows beyond the journal: stock on hand, day totals and closes, exceptions, how far the lanes go.
//!
//! The state is a fold over the journal: [`State::apply`] takes each synced record in order, and what it makes of it depends on the
//! record alone. What was judged when a document came in ([`State::judge`]) stands in the record's flags; replay reads it there.
//!
//! ```text
//! journal frame -> apply -> tables in memory -> answers
//!                             |-> checkpoint: dirty rows, mark (position, chain) -> store beside the journal
//!                             '-> snapshot: all rows, in parts                   -> frames in the journal
//! start: open the store, else restore the journal's newest snapshot, else nothing; then apply what the journal has beyond it
//! ```
//!
//! Invariants: losing the store loses no record and changes no answer; a record is folded once, however often it is applied;
//! every table is bounded ([`limits`]). Deliberately unknown here: threads, the clock, files of the journal, identities of
//! documents (the journal keeps their index), and sled outside `state::store`.

mod answers;
mod date;
mod days;
mod directory;
mod dirty;
mod drawers;
mod exceptions;
mod fingerprint;
mod heads;
pub mod limits;
mod numbers;
mod orders;
mod returns;
mod rows;
mod seals;
mod shelf;
mod snapshot;
mod standing;
mod stock;
mod store;
mod word;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use counterfoil_proto::id::{Digest, RecordKey};
use counterfoil_proto::record::control_totals::{ControlTotals, Previous};
use counterfoil_proto::record::facts::{Facts, FulfillmentFacts, ReturnLine};
use counterfoil_proto::record::flag::{
    Change, DRAWER_DIFFERENCE, FULFILLMENT_AFTER_END, LATE_AFTER_CLOSE, OVER_FULFILLED, OVER_RETURN, PICKUP_STALE,
    SEQUENCE_GAP, UNKNOWN_KIND, UNREADABLE_RECORD,
};
use counterfoil_proto::record::{self, Flag, Kind, Prepared, Record};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;
use serde::Deserialize;

pub use answers::{CloseToSeal, StockEntry};
pub use exceptions::exception_id;
pub use numbers::MissingNumbers;
pub use orders::StaleOrder;
pub use rows::{Counters, RowError};
pub use shelf::Shelf;
pub use snapshot::{PartHeader, RestoreError, read_part};
pub use store::{CheckpointError, Mark, SyncDoor};

use dirty::Dirty;
use drawers::Drawers;
use exceptions::{ExceptionId, Handled, Origin};
use limits::{STALE_ORDERS_MAX, TEXT_BYTES_MAX};
use orders::OrderFinding;
use returns::ReturnKey;
use rows::{RowKey, Tables};
use seals::Waiting;
use store::{Found, Store};
use word::cut;

/// The fold, its store, and what the store does not have yet.
#[derive(Debug)]
pub struct State {
    tables: Tables,
    dirty: Dirty,
    store: Place,
    /// What the store has for certain: the last checkpoint of this run, or the one that was opened.
    checkpointed: Option<Mark>,
}

/// Where checkpoints go.
#[derive(Debug)]
enum Place {
    Nowhere,
    Disk(Store),
    Shelf(Shelf),
}

#[cfg(test)]
impl Place {
    /// The store on the disk, for tests that hurt it.
    fn as_mut(&mut self) -> Option<&mut Store> {
        match self {
            Self::Disk(store) => Some(store),
            Self::Nowhere | Self::Shelf(_) => None,
        }
    }
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The state as of `mark`; empty without one.
    pub state: State,
    /// What the state reflects. Without it, restore the journal's newest snapshot, then replay.
    pub mark: Option<Mark>,
    /// What was not usable.
    pub damaged: Option<Damaged>,
}

/// A store that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Why.
    pub reason: String,
    /// Where it is kept; `None` where it could not be moved (the next checkpoint then replaces it).
    pub quarantined: Option<PathBuf>,
}

/// What a group of documents that are appended together does: what the state will know of the earlier ones when the later ones are
/// judged.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Day and till; without till where the whole store closed.
    closes: BTreeSet<(String, Option<String>)>,
    given_back: BTreeMap<ReturnKey, Decimal>,
    fulfillments: Vec<FulfillmentFacts>,
    drawers: Drawers,
}

impl Group {
    /// Takes note of a document that is appended, neither as a duplicate nor as a conflict.
    pub fn note(&mut self, prepared: &Prepared) {
        match &prepared.facts {
            Facts::DayClose(close) => {
                self.closes.insert((close.business_day_date.clone(), close.workstation_id.clone()));
            }
            Facts::Transaction(transaction) => {
                for line in &transaction.returns {
                    let sum = self.given_back.entry(ReturnKey::of(line, line.store_id.as_deref())).or_default();
                    *sum = sum.saturating_add(line.quantity);
                }
                if transaction.counts() {
                    self.drawers.transaction(transaction, &mut Dirty::All, &mut Vec::new());
                }
            }
            Facts::Fulfillment(update) => self.fulfillments.push(update.clone()),
            Facts::TenderControl(control) => self.drawers.control(control, &mut Dirty::All, &mut Vec::new()),
            Facts::Movement(_) | Facts::None => {}
        }
    }

    fn is_closed(&self, business_day_date: &str, workstation_id: Option<&str>) -> bool {
        self.closes
            .iter()
            .any(|(day, till)| day == business_day_date && (till.is_none() || till.as_deref() == workstation_id))
    }
}

/// The document of a `finding`, as far as the state needs it.
#[derive(Deserialize)]
struct Finding<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    order_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    workstation_id: Option<Cow<'a, str>>,
    #[serde(default)]
    numbers: Vec<FoundNumbers>,
}

#[derive(Deserialize)]
struct FoundNumbers {
    sequence_epoch: u64,
    first: u64,
    last: u64,
}

/// The document of an `exception_change`.
#[derive(Deserialize)]
struct ExceptionChange<'a> {
    #[serde(borrow)]
    exception_id: Cow<'a, str>,
    #[serde(borrow)]
    change: Cow<'a, str>,
    #[serde(borrow)]
    by: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

impl State {
    /// Opens the store in `dir`. What cannot be used goes to `quarantine_dir`; opening itself never fails, for the journal can rebuild all.
    pub fn open(dir: &Path, quarantine_dir: &Path) -> Opened {
        Self::open_with(dir, quarantine_dir, SyncDoor::default())
    }

    /// The same, with every sync through `sync`.
    pub fn open_with(dir: &Path, quarantine_dir: &Path, sync: SyncDoor) -> Opened {
        let (store, found) = Store::open(dir, quarantine_dir, sync);
        let (tables, mark, damaged) = match found {
            Found::State(tables, mark) => (*tables, Some(mark), None),
            Found::Nothing => (Tables::default(), None, None),
            Found::Damaged(error, quarantined) => {
                let reason = error.to_string();
                (Tables::default(), None, Some(Damaged { reason, quarantined }))
            }
        };
        let dirty = if mark.is_some() { Dirty::none() } else { Dirty::All };
        Opened { state: Self { tables, dirty, store: Place::Disk(store), checkpointed: mark }, mark, damaged }
    }

    /// The same from a shelf.
    pub fn on_shelf(shelf: Shelf) -> Opened {
        let (tables, mark) = shelf.take().map_or_else(Default::default, |(tables, mark)| (tables, Some(mark)));
        let dirty = if mark.is_some() { Dirty::none() } else { Dirty::All };
        Opened { state: Self { tables, dirty, store: Place::Shelf(shelf), checkpointed: mark }, mark, damaged: None }
    }

    /// An empty state without a store.
    pub fn in_memory() -> Self {
        Self { tables: Tables::default(), dirty: Dirty::All, store: Place::Nowhere, checkpointed: None }
    }

    /// Forgets what was opened, because it does not agree with the journal, and moves the store to `quarantine_dir`; then restore a
    /// snapshot, and replay. Returns where the store is kept.
    pub fn reject(&mut self, quarantine_dir: &Path) -> Option<PathBuf> {
        self.tables = Tables::default();
        self.dirty = Dirty::All;
        self.checkpointed = None;
        match &mut self.store {
            Place::Disk(store) => store.quarantine(quarantine_dir),
            Place::Nowhere | Place::Shelf(_) => None,
        }
    }

    /// Folds a synced record in. A record that is folded already changes nothing.
    pub fn apply(&mut self, position: u64, key: RecordKey, record: &Record, facts: &Facts) {
        if !self.tables.heads.advance(key, &mut self.dirty) {
            return;
        }
        self.begin(position);
        let Self { tables, dirty, .. } = self;
        let envelope = &record.envelope;
        let at = envelope.recorded_at;
        let origin = Origin {
            key,
            identity: envelope.identity.as_deref(),
            correlation_id: envelope.correlation_id.as_deref(),
            at,
        };
        for flag in &envelope.flags {
            tables.exceptions.open(&flag.code, &flag.pointer, origin, dirty);
        }
        let conflict = envelope.conflicts_with.is_some();
        if conflict {
            tables.counters.conflicts = tables.counters.conflicts.saturating_add(1);
        }
        let mut found = Vec::new();
        match facts {
            Facts::Transaction(transaction) => {
                tables.days.transaction(transaction, conflict, dirty, &mut found);
                if !conflict {
                    transaction.stock.iter().for_each(|change| tables.stock.change(change, at, dirty, &mut found));
                    transaction.returns.iter().for_each(|line| tables.returns.add(line, dirty));
                    tables.numbers.see(transaction, at, dirty, &mut found);
                }
                if !conflict && transaction.counts() {
                    tables.seals.transaction(transaction, at, dirty, &mut found);
                    tables.drawers.transaction(transaction, dirty, &mut found);
                }
            }
            Facts::Fulfillment(update) if !conflict => {
                tables.orders.update(update, at, dirty, &mut found);
                for change in update.stock() {
                    tables.stock.change(&change, at, dirty, &mut found);
                }
            }
            Facts::TenderControl(control) if !conflict => tables.drawers.control(control, dirty, &mut found),
            Facts::Movement(movement) if !conflict => {
                for change in &movement.changes {
                    tables.stock.change(change, at, dirty, &mut found);
                }
                for count in &movement.counts {
                    tables.stock.count(count, at, dirty, &mut found);
                }
            }
            Facts::DayClose(close) if !conflict => {
                if let Some(kept) = tables.days.close(close, at, dirty, &mut found) {
                    tables.seals.wait(position, Waiting::of(origin, kept), dirty, &mut found);
                }
            }
            Facts::Movement(_) | Facts::Fulfillment(_) | Facts::TenderControl(_) | Facts::DayClose(_) | Facts::None => {
            }
        }
        for code in found {
            tables.exceptions.count(code, origin, dirty);
        }
        if record.kind == Kind::EXCEPTION_CHANGE {
            self.change_exception(&record.document, at);
        } else if record.kind == Kind::FINDING {
            self.note_found(&record.document);
        } else if record.kind == Kind::CONTROL_TOTALS {
            self.note_sealed(&record.document, envelope.content_digest);
        } else if record.kind.name().is_none() {
            self.count_unreadable(UNKNOWN_KIND, origin);
        }
    }

    /// Folds a synced record in, from its stored bytes: as [`Self::apply`], also where this software cannot read them.
    pub fn apply_stored(&mut self, position: u64, key: RecordKey, stored: &[u8]) {
        let origin = |at| Origin { key, identity: None, correlation_id: None, at };
        match Record::decode(stored) {
            Ok(record) => match record::facts(record.kind, &record.envelope, &record.document) {
                Ok(facts) => self.apply(position, key, &record, &facts),
                Err(_) if self.tables.heads.covers(key) => {}
                Err(_) => {
                    self.apply(position, key, &record, &Facts::None);
                    self.count_unreadable(UNREADABLE_RECORD, origin(record.envelope.recorded_at));
                }
            },
            Err(_) if self.tables.heads.advance(key, &mut self.dirty) => {
                self.begin(position);
                self.count_unreadable(UNREADABLE_RECORD, origin(WallTime::default()));
            }
            Err(_) => {}
        }
    }

    /// What the state has to say about a document before it is appended: that its business day is closed, at its till or in the store,
    /// that more is given back than the receipt that it names had sold, that an order line goes beyond what was ordered or on after its
    /// end, that a drawer holds something else than it should. `store_id` is this store; `sold` says how much of a line's
    /// item the receipt had sold, `None` where that is not known.
    pub fn judge(
        &self,
        prepared: &Prepared,
        group: &Group,
        store_id: &str,
        sold: &mut dyn FnMut(&ReturnLine) -> Option<Decimal>,
    ) -> Vec<Flag> {
        let mut flags = Vec::new();
        if self.is_after_close(prepared, group) {
            flags.push(Flag { code: Cow::Borrowed(LATE_AFTER_CLOSE), pointer: "/business_day_date".to_owned() });
        }
        if let Facts::Transaction(facts) = &prepared.facts
            && let Some(line) = self.over_return(&facts.returns, group, store_id, sold)
        {
            let pointer = format!("/line_items/{}/quantity", line.index);
            flags.push(Flag { code: Cow::Borrowed(OVER_RETURN), pointer });
        }
        if let Facts::Fulfillment(update) = &prepared.facts
            && let Some((index, finding)) = self.tables.orders.judge(&group.fulfillments, update)
        {
            let code = match finding {
                OrderFinding::Over => OVER_FULFILLED,
                OrderFinding::AfterEnd => FULFILLMENT_AFTER_END,
            };
            flags.push(Flag { code: Cow::Borrowed(code), pointer: format!("/line_items/{index}/quantity") });
        }
        if let Facts::TenderControl(control) = &prepared.facts
            && self.tables.drawers.is_different(&group.drawers, control)
        {
            flags.push(Flag { code: Cow::Borrowed(DRAWER_DIFFERENCE), pointer: "/tenders".to_owned() });
        }
        flags
    }

    fn is_after_close(&self, prepared: &Prepared, group: &Group) -> bool {
        let (day, till) = match &prepared.facts {
            Facts::Transaction(facts) => (Some(facts.business_day_date.as_str()), Some(facts.workstation_id.as_str())),
            Facts::TenderControl(facts) => {
                (Some(facts.business_day_date.as_str()), Some(facts.workstation_id.as_str()))
            }
            Facts::Movement(_) | Facts::Fulfillment(_) | Facts::DayClose(_) | Facts::None => (None, None),
        };
        day.is_some_and(|day| self.tables.days.is_closed(day, till) || group.is_closed(day, till))
    }

    /// The first line with which more comes back than went out.
    fn over_return<'l>(
        &self,
        lines: &'l [ReturnLine],
        group: &Group,
        store_id: &str,
        sold: &mut dyn FnMut(&ReturnLine) -> Option<Decimal>,
    ) -> Option<&'l ReturnLine> {
        let mut here: BTreeMap<ReturnKey, Decimal> = BTreeMap::new();
        lines.iter().filter(|line| line.store_id.as_deref().is_none_or(|named| named == store_id)).find(|line| {
            let unnamed = ReturnKey::of(line, None);
            let before = [unnamed, ReturnKey::of(line, Some(store_id))].into_iter().map(|key| {
                let pending = group.given_back.get(&key).copied().unwrap_or_default();
                self.tables.returns.quantity(key).saturating_add(pending)
            });
            let before = before.fold(Decimal::ZERO, Decimal::saturating_add);
            let given_back = here.entry(unnamed).or_default();
            *given_back = given_back.saturating_add(line.quantity);
            sold(line).is_some_and(|sold| before.saturating_add(*given_back) > sold)
        })
    }

    /// Writes what changed, with the journal's position and chain that it reflects. Blocks for a sync. On an error nothing is
    /// lost: the rows stay dirty, and the next checkpoint writes all of them into fresh files.
    pub fn checkpoint(&mut self, position: u64, witness: [u8; 32]) -> Result<(), CheckpointError> {
        let mark = Mark { position, witness };
        if self.checkpointed == Some(mark) && self.dirty.is_clean() {
            return Ok(());
        }
        let tables = &self.tables;
        let written = match (&mut self.store, &self.dirty) {
            (Place::Nowhere, _) => return Err(CheckpointError::InMemory),
            (Place::Shelf(memory), _) => {
                memory.put(tables, mark);
                Ok(())
            }
            (Place::Disk(store), Dirty::Rows(keys)) if !store.needs_all() => {
                let changes =
                    keys.iter().map(|key| (key.clone(), RowKey::parse(key).and_then(|row| tables.value(&row))));
                store.write(changes, mark)
            }
            (Place::Disk(store), Dirty::Rows(_) | Dirty::All) => store.write_all(tables.rows(), mark),
        };
        match written {
            Ok(()) => {
                self.dirty = Dirty::none();
                self.checkpointed = Some(mark);
                Ok(())
            }
            Err(error) => {
                self.dirty = Dirty::All;
                Err(error)
            }
        }
    }

    /// What the store has for certain. The journal is never reclaimed past it, unless a snapshot in the journal covers it.
    pub fn checkpointed(&self) -> Option<Mark> {
        self.checkpointed
    }

    /// Whether a checkpoint would write anything.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_clean()
    }

    /// Whether so much has changed that a checkpoint should not wait for its time: further on it would have to write everything.
    pub fn is_checkpoint_due(&self) -> bool {
        self.dirty.is_much()
    }

    /// Position of the last record that was folded.
    pub fn applied(&self) -> Option<u64> {
        self.tables.applied
    }

    /// What was counted since the journal began.
    pub fn counters(&self) -> Counters {
        self.tables.counters
    }

    /// All rows in parts of at most `part_bytes_max` bytes (and at least [`limits::SNAPSHOT_PART_BYTES_MIN`]).
    pub fn snapshot(&self, snapshot_id: [u8; 16], part_bytes_max: usize) -> Vec<Vec<u8>> {
        snapshot::parts_of(&self.tables, snapshot_id, part_bytes_max)
    }

    /// Takes on what a snapshot holds, its parts in any order; on an error the state is as before. The next checkpoint writes all of it.
    /// Replay goes on after the position that is returned (`None`: from the journal's beginning).
    pub fn restore(&mut self, parts: &[impl AsRef<[u8]>]) -> Result<Option<u64>, RestoreError> {
        self.tables = snapshot::tables_of(parts)?;
        self.dirty = Dirty::All;
        self.checkpointed = None;
        Ok(self.tables.applied)
    }

    fn begin(&mut self, position: u64) {
        self.tables.applied = Some(position);
        self.tables.counters.records = self.tables.counters.records.saturating_add(1);
        self.dirty.mark(&RowKey::Meta);
    }

    fn count_unreadable(&mut self, code: &str, origin: Origin<'_>) {
        self.tables.counters.unreadable = self.tables.counters.unreadable.saturating_add(1);
        self.tables.exceptions.count(code, origin, &mut self.dirty);
    }

    /// What was told is not told again.
    fn note_found(&mut self, document: &[u8]) {
        let Ok(finding) = serde_json::from_slice::<Finding<'_>>(document) else { return };
        let Self { tables, dirty, .. } = self;
        if let (PICKUP_STALE, Some(order_id)) = (&*finding.code, &finding.order_id) {
            tables.orders.note_stale(order_id, dirty);
        }
        if let (SEQUENCE_GAP, Some(workstation_id)) = (&*finding.code, &finding.workstation_id) {
            let ranges = finding.numbers.iter().map(|found| (found.sequence_epoch, found.first, found.last)).collect();
            tables.numbers.note_told(&MissingNumbers { workstation_id: workstation_id.to_string(), ranges }, dirty);
        }
    }

    fn note_sealed(&mut self, document: &[u8], digest: Digest) {
        let Ok(totals) = serde_json::from_slice::<ControlTotals>(document) else { return };
        let last = Previous { number: totals.number, digest };
        self.tables.seals.sealed(totals.closes, last, &mut self.dirty);
    }

    /// Orders of which something lies ready at `now` although its time is over, or for longer than `patience_ms` where nobody said until when.
    /// Each is told once; at most [`limits::STALE_ORDERS_MAX`] at a time.
    pub fn stale_orders(&self, now: WallTime, patience_ms: i64) -> Vec<StaleOrder> {
        self.tables.orders.stale(now, patience_ms, STALE_ORDERS_MAX)
    }

    /// Numbers that tills left out: those noticed at `before` or earlier, and at tills whose day is closed all of them. Each is told once.
    pub fn missing_numbers(&self, before: WallTime) -> Vec<MissingNumbers> {
        let is_closed = |till: &str, day: &str| self.tables.days.is_closed(day, Some(till));
        self.tables.numbers.missing(before, &is_closed)
    }

    fn change_exception(&mut self, document: &[u8], at: WallTime) {
        let read = serde_json::from_slice::<ExceptionChange<'_>>(document).ok();
        let changed = read.is_some_and(|read| {
            let (Some(id), Some(change)) = (ExceptionId::parse(&read.exception_id), Change::from_name(&read.change))
            else {
                return false;
            };
            let (by, reason) = (cut(&read.by, TEXT_BYTES_MAX), cut(&read.reason, TEXT_BYTES_MAX));
            self.tables.exceptions.change(id, Handled { change, by, reason, at }, &mut self.dirty)
        });
        if !changed {
            self.tables.counters.changes_ignored = self.tables.counters.changes_ignored.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
