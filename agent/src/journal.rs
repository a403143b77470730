//! The journal (API; the bodies follow).
#![allow(unused_variables, dead_code, clippy::unimplemented, clippy::unused_self, clippy::needless_pass_by_value, clippy::allow_attributes_without_reason, clippy::allow_attributes)]

use std::sync::Arc;

use counterfoil_proto::id::{Chain, Epoch, Lane, LaneKey, Seq, Source};
use counterfoil_proto::time::WallTime;

pub mod disk;
pub mod limits;
mod types;

pub use disk::{Disk, MemoryDisk, OsDisk};
pub use limits::JournalConfig;
pub use types::*;

/// The log, owned by one thread.
#[derive(Debug)]
pub struct Journal {}

impl Journal {
    /// Opens or makes the journal of `source` below the disk's root. `nonce`: 64 random bits, used where files are made.
    pub fn open(disk: Arc<dyn Disk>, config: JournalConfig, source: &Source, nonce: u64) -> Result<(Self, Opened), OpenError> { unimplemented!() }
    /// Begins a new epoch; once per opening, with nothing staged. The caller stages its `epoch_start` first.
    pub fn start_epoch(&mut self, epoch: Epoch) { unimplemented!() }
    /// The epoch that is appended to.
    pub fn epoch(&self) -> Option<Epoch> { unimplemented!() }
    /// The epoch of the last recovered records.
    pub fn parent(&self) -> Option<&Parent> { unimplemented!() }
    /// Looks an identity up. The frame of a `Synced` answer was read and is whole; damage met on the way is dealt with (see `take_damage`).
    pub fn find(&mut self, key: IdentityKey) -> Result<Found, JournalError> { unimplemented!() }
    /// The name that the next record staged in that lane gets.
    pub fn next_seq(&self, lane: Lane) -> Seq { unimplemented!() }
    /// Adds a record to the group.
    pub fn stage(&mut self, lane: Lane, keys: &[IdentityKey], stored: &[u8]) -> Result<Staged, StageError> { unimplemented!() }
    /// Adds part `part` of `parts` of a state snapshot to the group. Parts are staged in order; they may span several groups.
    pub fn stage_local(&mut self, part: u32, parts: u32, bytes: &[u8]) -> Result<Position, StageError> { unimplemented!() }
    /// Whether anything is staged.
    pub fn has_staged(&self) -> bool { unimplemented!() }
    /// Drops the group; its numbers are given again.
    pub fn unstage(&mut self) { unimplemented!() }
    /// Writes the group in one write and syncs it once. After `Full` nothing of it is left; after any other error the journal is poisoned.
    pub fn commit(&mut self, now: WallTime) -> Result<Committed, JournalError> { unimplemented!() }
    /// The end of what is synced: the position that a checkpoint of everything folded so far states, and that `replay` goes on from.
    pub fn end(&self) -> Position { unimplemented!() }
    /// Reads the frame at a position.
    pub fn read_at(&self, position: Position) -> Result<Frame, ReadError> { unimplemented!() }
    /// The synced frames from `from` on, local ones included, in bounded memory. It sees what was synced when it was made.
    pub fn replay(&self, from: Position) -> Replay { unimplemented!() }
    /// Where the newest complete state snapshot begins.
    pub fn snapshot(&self) -> Option<Position> { unimplemented!() }
    /// A reader for another thread.
    pub fn reader(&self) -> Reader { unimplemented!() }
    /// The epochs that are not wholly safe or still retained, oldest first.
    pub fn lanes(&self) -> Vec<EpochView> { unimplemented!() }
    /// Checks the segment again, keeps the raw bytes of what is bad, marks its records gone and their identities lost. Empty where all is well by now.
    pub fn handle_damage(&mut self, segment: u32) -> Result<Vec<Damage>, JournalError> { unimplemented!() }
    /// What `find`, a turn or an acknowledgement found damaged on the way and dealt with; to be journaled as `journal_damage`.
    pub fn take_damage(&mut self) -> Vec<Damage> { unimplemented!() }
    /// Checks the next piece of the sealed segments.
    pub fn scrub_step(&mut self, bytes_max: usize) -> Result<Scrubbed, JournalError> { unimplemented!() }
    /// Takes over what the hub said of a lane; it may be lower than before.
    pub fn acknowledge(&mut self, key: LaneKey, marks: Marks) { unimplemented!() }
    /// What the hub said of a lane.
    pub fn marks(&self, key: LaneKey) -> Marks { unimplemented!() }
    /// Writes the marks to the disk, if they changed.
    pub fn save_cursor(&mut self) -> Result<(), JournalError> { unimplemented!() }
    /// Whether segments could be given back if a state snapshot were journaled.
    pub fn wants_snapshot(&self, now: WallTime, checkpoint: Position) -> bool { unimplemented!() }
    /// Gives back what may be: wholly safe, older than `retain_ms` or room is short, before `checkpoint` (durable) and the newest snapshot.
    pub fn reclaim(&mut self, now: WallTime, checkpoint: Position) -> Result<Reclaimed, JournalError> { unimplemented!() }
    /// How much fits. Lets go of the ballast when the disk is full and takes it back before it says otherwise again.
    pub fn room(&mut self) -> Result<Room, JournalError> { unimplemented!() }
    /// Figures for status and metrics.
    pub fn figures(&self) -> Figures { unimplemented!() }
    /// Saves the cursor and writes the closing mark, which proves everything before it.
    pub fn close(self) -> Result<(), JournalError> { unimplemented!() }
}

/// An entry of a replay.
#[derive(Debug)]
pub enum Replayed {
    /// A whole frame.
    Frame {
        /// Where it stands.
        position: Position,
        /// Where the next one may stand: a checkpoint that reflects this frame states it.
        next: Position,
        /// What it holds.
        frame: Frame,
    },
    /// Frames that are damaged; the replay goes on behind them. Tell the journal (`handle_damage`).
    Damaged {
        /// The segment.
        segment: u32,
    },
}

/// Iterator over synced frames.
#[derive(Debug)]
pub struct Replay {}

impl Iterator for Replay {
    type Item = Result<Replayed, ReadError>;
    fn next(&mut self) -> Option<Self::Item> { unimplemented!() }
}

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Records without a hole, from `first` on; at least one.
    Records {
        /// The number of the first.
        first: Seq,
        /// Their stored bytes.
        stored: Vec<Vec<u8>>,
    },
    /// Bytes are damaged: tell the journal (`handle_damage`), then read again.
    Damaged {
        /// The segment.
        segment: u32,
    },
    /// The range that holds the wanted record is lost.
    Gone(Gone),
    /// Nothing there yet.
    NotYet,
    /// Given back, or never known here. Retained records of the lane, if any, begin at `first`, with the chain before it.
    Reclaimed {
        /// The first number that is there.
        first: Seq,
        /// The chain before it.
        before: Option<Chain>,
    },
}

/// Reads synced records on another thread, with its own file handles.
#[derive(Clone, Debug)]
pub struct Reader {}

impl Reader {
    /// Records of a lane from `from` on, up to the bounds but at least one.
    pub fn read(&mut self, key: LaneKey, from: Seq, records_max: usize, bytes_max: usize) -> Result<Read, ReadError> { unimplemented!() }
    /// The epochs and lanes as of the last commit.
    pub fn lanes(&self) -> Vec<EpochView> { unimplemented!() }
    /// The last number of a lane.
    pub fn last(&self, key: LaneKey) -> Seq { unimplemented!() }
    /// Waits until something was committed or given back since the last call.
    pub async fn changed(&mut self) -> Result<(), Closed> { unimplemented!() }
}

/// The journal is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The journal is closed")]
pub struct Closed;
