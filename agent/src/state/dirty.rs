//! Which rows differ from the last checkpoint.

use std::collections::BTreeSet;

use super::limits::CHECKPOINT_ROWS_MAX;
use super::rows::RowKey;

/// The rows that the next checkpoint has to write.
#[derive(Clone, Debug)]
pub(super) enum Dirty {
    /// These; where the table no longer has one, it is removed.
    Rows(BTreeSet<Vec<u8>>),
    /// Everything, into a fresh store.
    All,
}

impl Dirty {
    pub(super) fn none() -> Self {
        Self::Rows(BTreeSet::new())
    }

    pub(super) fn mark(&mut self, key: &RowKey<'_>) {
        if let Self::Rows(rows) = self {
            rows.insert(key.to_bytes());
            if rows.len() > CHECKPOINT_ROWS_MAX {
                *self = Self::All;
            }
        }
    }

    /// Whether more changes would soon cost a write of everything; not where they already do.
    pub(super) fn is_much(&self) -> bool {
        match self {
            Self::Rows(rows) => rows.len() > CHECKPOINT_ROWS_MAX / 2,
            Self::All => false,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        match self {
            Self::Rows(rows) => rows.is_empty(),
            Self::All => false,
        }
    }
}
