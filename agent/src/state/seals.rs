//! What the box's control totals need from one close to the next: perpetual totals, closes that wait for theirs, and which were the last.
//!
//! Invariant: perpetual totals only take in what counts, and never start again; a close waits until a record says that its control totals
//! are written. This file does not know how they are signed.

use std::collections::BTreeMap;

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::control_totals::Previous;
use counterfoil_proto::record::facts::TransactionFacts;
use counterfoil_proto::time::WallTime;
use serde::{Deserialize, Serialize};

use super::date::Date;
use super::dirty::Dirty;
use super::exceptions::{Origin, local};
use super::limits::{CLOSES_WAITING_MAX, CURRENCIES_MAX, TEXT_BYTES_MAX, WORD_BYTES_MAX};
use super::rows::RowKey;
use super::word::cut;

/// All that a box ever counted in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Perpetual {
    pub(super) transactions: u64,
    /// Minor units.
    pub(super) gross: i64,
    /// When the first of them was recorded.
    pub(super) since: WallTime,
}

/// A close without control totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) key: RecordKey,
    pub(super) date: Date,
    /// Which close of its day.
    pub(super) index: u32,
    pub(super) correlation_id: Option<Box<str>>,
}

impl Waiting {
    /// A close that was kept as one of its day's.
    pub(super) fn of(origin: Origin<'_>, (date, index): (Date, u32)) -> Self {
        let correlation_id = origin.correlation_id.map(|id| cut(id, TEXT_BYTES_MAX));
        Self { key: origin.key, date, index, correlation_id }
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seals {
    pub(super) perpetual: BTreeMap<Box<str>, Perpetual>,
    /// By the position of the close in the journal.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) last: Option<Previous>,
}

impl Seals {
    /// Takes in a transaction that counts.
    pub(super) fn transaction(
        &mut self,
        facts: &TransactionFacts,
        at: WallTime,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) {
        let currency_code = facts.currency_code.as_str();
        let is_known = self.perpetual.contains_key(currency_code);
        if !is_known && (self.perpetual.len() >= CURRENCIES_MAX || currency_code.len() > WORD_BYTES_MAX) {
            found.push(local::DAY_TOTALS_LIMIT);
            return;
        }
        let nothing = Perpetual { transactions: 0, gross: 0, since: at };
        let sum = self.perpetual.entry(currency_code.into()).or_insert(nothing);
        sum.transactions = sum.transactions.saturating_add(1);
        sum.gross = sum.gross.checked_add(facts.gross).unwrap_or_else(|| {
            found.push(local::TOTALS_OVERFLOW);
            sum.gross.saturating_add(facts.gross)
        });
        dirty.mark(&RowKey::Perpetual(currency_code));
    }

    /// A close was folded.
    pub(super) fn wait(&mut self, position: u64, close: Waiting, dirty: &mut Dirty, found: &mut Vec<&'static str>) {
        if self.waiting.len() >= CLOSES_WAITING_MAX {
            found.push(local::DAY_TOTALS_LIMIT);
            return;
        }
        self.waiting.insert(position, close);
        dirty.mark(&RowKey::WaitingClose(position));
    }

    /// Control totals were folded.
    pub(super) fn sealed(&mut self, closes: RecordKey, last: Previous, dirty: &mut Dirty) {
        let found = self.waiting.iter().find(|(_, close)| close.key == closes).map(|(position, _)| *position);
        if let Some(position) = found {
            self.waiting.remove(&position);
            dirty.mark(&RowKey::WaitingClose(position));
        }
        self.last = Some(last);
        dirty.mark(&RowKey::LastSeal);
    }
}
