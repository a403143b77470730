//! Stock on hand, per item and unit.
//!
//! Invariant: on hand is known only after a count; until then there is only the sum of what moved. This file does not know
//! why something moved, nor how a row is stored.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::{StockChange, StockCount};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::exceptions::local;
use super::limits::{ITEMS_MAX, NAME_BYTES_MAX, UNITS_PER_ITEM_MAX, WORD_BYTES_MAX};
use super::rows::RowKey;
use super::word::{Word, decimal, decimal_option};

/// An item's stock in one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnitStock {
    pub(super) unit: Word,
    /// What the last count found.
    #[serde(with = "decimal_option")]
    pub(super) baseline: Option<Decimal>,
    /// What moved since.
    #[serde(with = "decimal")]
    pub(super) delta: Decimal,
    /// When it was counted, or first moved.
    pub(super) since: WallTime,
}

impl UnitStock {
    /// Baseline and what moved since; `None` without a baseline.
    pub(super) fn on_hand(&self) -> Option<Decimal> {
        self.baseline.map(|baseline| add(baseline, self.delta).0)
    }
}

/// An item. Nearly all have one unit, so that the further ones cost nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    /// The first unit that it was moved in.
    pub(super) first: UnitStock,
    /// Further ones, in the order in which they came.
    pub(super) more: Vec<UnitStock>,
}

impl Item {
    pub(super) fn units(&self) -> impl Iterator<Item = &UnitStock> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stock {
    pub(super) items: BTreeMap<Box<str>, Item>,
}

impl Stock {
    /// Adds what a record moved at `at`.
    pub(super) fn change(
        &mut self,
        change: &StockChange,
        at: WallTime,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) {
        let Some(stock) = self.unit(&change.item_id, &change.unit, at, found) else { return };
        let (delta, exact) = add(stock.delta, change.delta);
        stock.delta = delta;
        if !exact {
            found.push(local::STOCK_OVERFLOW);
        }
        dirty.mark(&RowKey::Item(&change.item_id));
    }

    /// Takes what was counted at `at` as the new baseline.
    pub(super) fn count(&mut self, count: &StockCount, at: WallTime, dirty: &mut Dirty, found: &mut Vec<&'static str>) {
        let Some(stock) = self.unit(&count.item_id, &count.unit, at, found) else { return };
        stock.baseline = Some(count.counted);
        stock.delta = Decimal::ZERO;
        stock.since = at;
        dirty.mark(&RowKey::Item(&count.item_id));
    }

    fn unit(
        &mut self,
        item_id: &str,
        unit: &str,
        at: WallTime,
        found: &mut Vec<&'static str>,
    ) -> Option<&mut UnitStock> {
        let fresh = || UnitStock { unit: Word::of(unit), baseline: None, delta: Decimal::ZERO, since: at };
        if !self.items.contains_key(item_id) {
            if self.items.len() >= ITEMS_MAX || item_id.len() > NAME_BYTES_MAX || unit.len() > WORD_BYTES_MAX {
                found.push(local::STOCK_ITEMS_LIMIT);
                return None;
            }
            self.items.insert(item_id.into(), Item { first: fresh(), more: Vec::new() });
        }
        let item = self.items.get_mut(item_id)?;
        if item.first.unit.as_str() == unit {
            return Some(&mut item.first);
        }
        let index = match item.more.iter().position(|stock| stock.unit.as_str() == unit) {
            Some(index) => index,
            None if item.more.len().saturating_add(1) >= UNITS_PER_ITEM_MAX || unit.len() > WORD_BYTES_MAX => {
                found.push(local::STOCK_UNITS_LIMIT);
                return None;
            }
            None => {
                item.more.push(fresh());
                item.more.len().saturating_sub(1)
            }
        };
        item.more.get_mut(index)
    }
}

/// The sum, and whether it is exact; at the end of the number range it stays there.
pub(super) fn add(left: Decimal, right: Decimal) -> (Decimal, bool) {
    match left.checked_add(right) {
        Some(sum) => (sum, true),
        None if right.is_sign_negative() => (Decimal::MIN, false),
        None => (Decimal::MAX, false),
    }
}
