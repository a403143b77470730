//! What was given back against receipts, per receipt, item and unit: what a further return is judged by.
//!
//! Invariant: a return counts under the store and identity that it names, as written; whoever judges knows which spellings mean
//! this store. This file does not know what a receipt had sold.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::ReturnLine;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::limits::RETURNS_MAX;
use super::rows::RowKey;
use super::word::decimal;

/// Names a receipt, item and unit: 128 bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReturnKey(pub(super) [u8; 16]);

impl ReturnKey {
    /// The key of what `line` gives back, with the receipt's store written as `store_id`.
    pub(super) fn of(line: &ReturnLine, store_id: Option<&str>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [store_id.unwrap_or_default(), &line.identity, &line.item_id, &line.unit] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// What was given back so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenBack {
    /// Grows with each return: the smallest is forgotten first.
    number: u64,
    #[serde(with = "decimal")]
    pub(super) quantity: Decimal,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Returns {
    pub(super) kept: BTreeMap<ReturnKey, GivenBack>,
    number: u64,
}

impl Returns {
    pub(super) fn add(&mut self, line: &ReturnLine, dirty: &mut Dirty) {
        let key = ReturnKey::of(line, line.store_id.as_deref());
        self.number = self.number.saturating_add(1);
        let given_back = self.kept.entry(key).or_insert(GivenBack { number: 0, quantity: Decimal::ZERO });
        given_back.number = self.number;
        given_back.quantity = given_back.quantity.saturating_add(line.quantity);
        dirty.mark(&RowKey::Return(key));
        if self.kept.len() > RETURNS_MAX
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.number).map(|(key, _)| *key)
        {
            self.kept.remove(&oldest);
            dirty.mark(&RowKey::Return(oldest));
        }
    }

    pub(super) fn quantity(&self, key: ReturnKey) -> Decimal {
        self.kept.get(&key).map_or(Decimal::ZERO, |given_back| given_back.quantity)
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, key: ReturnKey, given_back: GivenBack) -> bool {
        self.number = self.number.max(given_back.number);
        self.kept.insert(key, given_back).is_none()
    }
}
