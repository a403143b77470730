//! What the journal is asked with and answers: positions, identity keys, reports.
//!
//! Invariant: plain values, no I/O.

use std::fmt;

use counterfoil_proto::id::{Chain, Digest, Epoch, Lane, LaneKey, RecordKey, Seq, SeqRange};
use counterfoil_proto::record::Envelope;
use counterfoil_proto::time::WallTime;

/// A place in the log: the segment's number in the upper half, the byte offset in that file in the lower. It orders as the log does,
/// and stays right when the configured length of segments changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// Before everything.
    pub const START: Self = Self(0);

    /// The place `offset` of segment `number`.
    pub const fn new(number: u32, offset: u32) -> Self {
        Self((number as u64) << 32 | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment's file.
    pub const fn offset(self) -> u32 {
        (self.0 & 0xFFFF_FFFF) as u32
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.segment(), self.offset())
    }
}

/// The name of an identity in the index: 128 bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey(pub [u8; 16]);

impl IdentityKey {
    /// The key of an identity: BLAKE3("identity" ‖ 0 ‖ identity).
    pub fn of(identity: &str) -> Self {
        Self::hash(&[b"identity\0", identity.as_bytes()])
    }

    /// The key of a document kept beside another of the same identity: BLAKE3("conflict" ‖ 0 ‖ identity ‖ 0 ‖ content digest).
    pub fn of_conflict(identity: &str, content_digest: &Digest) -> Self {
        Self::hash(&[b"conflict\0", identity.as_bytes(), b"\0", &content_digest.0])
    }

    /// The keys by which a record with this envelope is found: of its identity and its alias, or, where it conflicts with another
    /// record, of the conflict alone.
    pub fn of_envelope(envelope: &Envelope) -> Vec<Self> {
        let Some(identity) = &envelope.identity else { return Vec::new() };
        if envelope.conflicts_with.is_some() {
            return vec![Self::of_conflict(identity, &envelope.content_digest)];
        }
        let mut keys = vec![Self::of(identity)];
        keys.extend(envelope.alias.as_deref().map(Self::of));
        keys
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// What the index knows of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No record, or one that is lost: a submission is recorded anew.
    Nothing,
    /// Staged in the group that waits for its commit.
    Pending(Position),
    /// On the disk; its frame was read and is whole.
    Synced(Position),
}

/// A record that waits for the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its name for ever.
    pub key: RecordKey,
    /// Where it will stand.
    pub position: Position,
}

/// A group that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Records in it.
    pub records: u64,
    /// Bytes written for it.
    pub bytes: u64,
    /// The end of the log now.
    pub end: Position,
}

/// A frame read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A record.
    Record {
        /// Its name.
        key: RecordKey,
        /// Its stored bytes.
        stored: Vec<u8>,
    },
    /// A part of a state snapshot; never sent.
    Local {
        /// Which part, from 0.
        part: u32,
        /// Of how many.
        parts: u32,
        /// What the caller staged.
        bytes: Vec<u8>,
    },
}

/// The last record of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHead {
    /// The lane.
    pub lane: Lane,
    /// Its last number.
    pub last: Seq,
    /// The chain after it; `None` where damage hides it.
    pub chain: Option<Chain>,
}

/// What an epoch descends from, as it was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The epoch of the last records before.
    pub epoch: Epoch,
    /// Its lanes that have records.
    pub lanes: Vec<LaneHead>,
}

/// Why a range cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoneReason {
    /// Bytes on the disk changed.
    Damaged,
    /// The file of their segment is missing, or nothing of it can be read.
    Missing,
}

impl GoneReason {
    /// As records and answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Damaged => 0,
            Self::Missing => 1,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        if code == 1 { Self::Missing } else { Self::Damaged }
    }
}

/// A range of a lane that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The lane.
    pub key: LaneKey,
    /// Exactly what is lost.
    pub range: SeqRange,
    /// Why.
    pub reason: GoneReason,
    /// The chain after the range, where a later header states it.
    pub chain_after: Option<Chain>,
}

/// Damage that was found and dealt with: raw bytes kept, ranges named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// Offset of the first bad byte's region; zero where the file as a whole is meant.
    pub offset: u32,
    /// Bytes that are not what was written.
    pub bytes: u64,
    /// What was found, a sentence for a person.
    pub what: &'static str,
    /// Files below `quarantine/` that keep the raw bytes.
    pub quarantined: Vec<String>,
    /// What is lost by it. Empty where only bytes without records (headers, indexes) were hit.
    pub gone: Vec<Gone>,
    /// Whether more may be lost than could be named: the end of the log itself is missing.
    pub end_unknown: bool,
}

/// Bytes after the last proven position that were not whole: an append that a power cut interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// Where the log ends now: behind what was cut, where only the header of a group was and its records stayed.
    pub position: Position,
    /// Bytes that were cut.
    pub bytes: u64,
    /// The file below `quarantine/` that keeps them.
    pub quarantined: Option<String>,
    /// Whole records behind the first bad frame that were cut with it.
    pub records: Vec<RecordKey>,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was no journal; one was made.
    pub created: bool,
    /// The last process closed it.
    pub clean: bool,
    /// The epoch of the last recovered record; the parent of the next.
    pub parent: Option<Parent>,
    /// Damage at or before the last proven position, and missing files.
    pub damage: Vec<Damage>,
    /// What a power cut left half written.
    pub tail_cut: Option<TailCut>,
    /// Bytes that were proven only by copying them into a fresh file.
    pub rewritten_bytes: u64,
    /// Lanes of which the hub has stored more than is left here: the disk lied about a sync, or was replaced.
    pub behind_hub: Vec<(LaneKey, Seq)>,
    /// Where the newest complete state snapshot begins.
    pub snapshot: Option<Position>,
    /// The end of the log.
    pub end: Position,
    /// The wall time of the last commit; a clock behind it is wrong.
    pub wall_last: Option<WallTime>,
}

/// What the hub said of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Committed by the hub, with all before it.
    pub stored: Seq,
    /// In the hub's verified backup, with all before it.
    pub safe: Seq,
}

/// One lane as the hello states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// The lane.
    pub lane: Lane,
    /// The first number that is retained here (or lost, see `gone`); above `last` where nothing is.
    pub first: Seq,
    /// The chain before `first`.
    pub before: Option<Chain>,
    /// The last number given.
    pub last: Seq,
    /// The chain after `last`.
    pub after: Option<Chain>,
    /// Ranges between `first` and `last` that are lost, in order.
    pub gone: Vec<Gone>,
}

/// One epoch that is not wholly safe or still retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochView {
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch that it descends from.
    pub parent: Option<Epoch>,
    /// Whether this process appends to it.
    pub live: bool,
    /// Its lanes that have records.
    pub lanes: Vec<LaneView>,
}

/// How much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    Plenty,
    /// `ops` records are not to be staged.
    OpsShed,
    /// No records of tills: 507. The agent's own few may still be staged.
    Full,
}

/// What reclaim gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Segments given back.
    pub segments: u64,
    /// Bytes given back to the file system or kept as spares.
    pub bytes: u64,
}

/// How far the scrub got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes checked in this step.
    pub bytes: u64,
    /// Whether it came to the end of the sealed segments and starts over.
    pub round_done: bool,
    /// What it found and dealt with.
    pub damage: Vec<Damage>,
}

/// Figures for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of the journal with side files, spares and ballast.
    pub journal_bytes: u64,
    /// Segments, the open one included.
    pub segments: u64,
    /// Bytes written since the opening.
    pub bytes_written: u64,
    /// Syncs since the opening.
    pub syncs: u64,
    /// Identities whose filters are in memory, and those of the open segment.
    pub identities: u64,
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("The data directory is in use by another process (lock file {name}): {source}")]
    Locked {
        /// The lock file.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It belongs to another store or agent.
    #[error(
        "The data directory belongs to {found}, the configuration says {expected}. Point data_dir elsewhere or correct store_id and agent_id"
    )]
    ForeignSource {
        /// Whom it belongs to.
        found: String,
        /// Whom the configuration names.
        expected: String,
    },
    /// Written by a later software.
    #[error("{name} has format version {found}, this software reads up to {known}. Install the version that wrote it")]
    Version {
        /// The file.
        name: String,
        /// Its version.
        found: u16,
        /// The latest version that this software knows.
        known: u16,
    },
    /// The limits contradict each other.
    #[error("The journal's limits do not fit each other: {rule}")]
    Config {
        /// The rule.
        rule: &'static str,
    },
    /// The disk failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why the journal could not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A call to the disk failed.
    #[error("The journal could not {what}: {source}")]
    Disk {
        /// What it was doing.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// No room on the disk; nothing was acknowledged, nothing of the group is left.
    #[error("The disk is full; nothing was appended. Records are accepted again once the hub has taken over enough")]
    Full,
    /// A write or sync failed earlier: what is on the medium is unknown until the next opening.
    #[error("The journal failed to write earlier and takes no more. Restart the agent")]
    Poisoned,
}

/// Why a record was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The group is as large as it may become: commit, then stage again.
    #[error("The group is full; commit it first")]
    GroupFull,
    /// The payload is larger than a frame may be.
    #[error("The record has {bytes} bytes, a frame holds {bytes_max}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A new segment was needed and could not be made.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position is not that of a synced frame that is retained.
    #[error("There is no frame at {0}")]
    NotThere(Position),
    /// The bytes are not what was written. Tell the journal (`handle_damage`).
    #[error("The frame at {0} is damaged")]
    Damaged(Position),
    /// The disk failed.
    #[error("The journal could not read at {position}: {source}")]
    Disk {
        /// Where.
        position: Position,
        /// What the system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_from_a_side_file_as_it_was_written() {
        for (reason, name) in [(GoneReason::Damaged, "damaged"), (GoneReason::Missing, "missing")] {
            assert_eq!((GoneReason::from_code(reason.code()), reason.as_str()), (reason, name));
        }
    }

    #[test]
    fn a_position_shows_its_segment_and_its_offset() {
        assert_eq!(Position::new(7, 2_104).to_string(), "7:2104");
    }
}
