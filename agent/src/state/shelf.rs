//! A shelf: where the state is kept in memory between two runs of one owner, for tests and the simulator.
//!
//! Invariant: what is taken from it is, whole, what one checkpoint put there. Clones share it; a [`Shelf::copy`] does not. Deliberately
//! not known here: how the store on a real disk fails, which has tests of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rows::Tables;
use super::store::Mark;

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    kept: Arc<Mutex<Option<(Tables, Mark)>>>,
}

impl Shelf {
    fn kept(&self) -> MutexGuard<'_, Option<(Tables, Mark)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An independent shelf with the same on it.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { kept: Arc::new(Mutex::new(self.kept().clone())) }
    }

    /// Empties it: the store was lost.
    pub fn clear(&self) {
        *self.kept() = None;
    }

    pub(super) fn put(&self, tables: &Tables, mark: Mark) {
        *self.kept() = Some((tables.clone(), mark));
    }

    pub(super) fn take(&self) -> Option<(Tables, Mark)> {
        self.kept().clone()
    }
}
