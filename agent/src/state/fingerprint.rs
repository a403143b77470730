//! An order-free hash over all rows, by which a store that lost some of them in silence is told from a whole one.
//!
//! It is a sum of the rows' hashes: good against loss and decay, which is what it is for, not against somebody who forges rows.

use serde::{Deserialize, Serialize};

/// Kept up to date row by row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    rows: u64,
    sum: u128,
}

impl Fingerprint {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(Self::of_row(key, value));
    }

    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::of_row(key, value));
    }

    fn of_row(key: &[u8], value: &[u8]) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.len().to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}
