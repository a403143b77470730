//! What agent and hub say to each other.
//!
//! Invariant: a message is a statement that stays true when it is repeated, doubled or late: sequence numbers and sessions
//! in it say what it is about. Nothing here knows bytes ([`crate::codec`]) or topics ([`crate::topic`]).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Chain, Digest, Epoch, Lane, LaneKey, RecordKey, Seq, SeqRange, SessionId};
use crate::time::{ClockQuality, WallTime};

/// Versions of the wire that a peer speaks. Each documents what it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct WireVersion(pub u8);

impl WireVersion {
    /// The first: hello, welcome, ack, nack, range request, positions; batches of postcard, plain or zstd.
    pub const V1: Self = Self(1);
    /// The newest that this software speaks.
    pub const NEWEST: Self = Self::V1;
    /// The oldest that this software understands.
    pub const OLDEST: Self = Self::V1;
}

/// Why a range can never be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// The bytes on the disk are damaged; what is left of them is in quarantine.
    Damaged,
    /// The file that held the range is missing.
    Missing,
    /// The hub had confirmed it, the agent gave the room back, and now the hub asks again (it was restored, or replaced).
    Reclaimed,
}

impl GoneReason {
    /// As answers and logs show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Reclaimed => "reclaimed",
        }
    }
}

/// The agent's statement that a range cannot be delivered. Real records that turn up later fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gone {
    /// What is gone.
    pub range: SeqRange,
    /// Why.
    pub reason: GoneReason,
    /// The chain before the range, where the agent knows it: whether what the hub has up to there is this agent's.
    pub chain_before: Option<Chain>,
    /// The chain after the range, where the agent knows it; else the next known head lets the chain go on.
    pub chain_after: Option<Chain>,
}

/// How far a lane of an epoch reaches on the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LaneHead {
    /// Which lane.
    pub lane: Lane,
    /// The oldest number that the agent can still deliver; one above `last` where it retains none.
    pub first: Seq,
    /// The chain before `first`, where known.
    pub chain_before: Option<Chain>,
    /// The newest number that is synced.
    pub last: Seq,
    /// The chain after `last`, where known.
    pub chain: Option<Chain>,
    /// What cannot be delivered, in order.
    pub gone: Vec<Gone>,
}

/// Where an epoch came from: what the agent recovered of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Parent {
    /// The epoch before.
    pub epoch: Epoch,
    /// How far its lanes reached, as recovered.
    pub lanes: Vec<ParentLane>,
}

/// How far a lane of an epoch reached when the next one began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ParentLane {
    /// Which lane.
    pub lane: Lane,
    /// Its last number.
    pub last: Seq,
    /// The chain after that, where known.
    pub chain: Option<Chain>,
}

/// An epoch that is not yet wholly safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EpochHeads {
    /// Which.
    pub epoch: Epoch,
    /// Where it came from; `None` on a fresh box.
    pub parent: Option<Parent>,
    /// Whether the agent still appends to it.
    pub live: bool,
    /// Its lanes that hold anything.
    pub lanes: Vec<LaneHead>,
}

/// The wire versions that a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Versions {
    /// The oldest.
    pub oldest: WireVersion,
    /// The newest.
    pub newest: WireVersion,
}

/// How far a stream of the way down was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Applied {
    /// Which stream.
    pub stream: String,
    /// Its last position that took effect.
    pub position: u64,
}

/// What an agent says after every connection, and every ten minutes: all that a hub needs to know where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hello {
    /// The wire versions that the agent speaks.
    pub versions: Versions,
    /// Name and version of the software.
    pub software: String,
    /// This connection.
    pub session: SessionId,
    /// Counts hellos in the session; the welcome repeats it, so that an old welcome is known as such.
    pub round: u32,
    /// This page, from 0.
    pub page: u16,
    /// How many pages there are.
    pub pages: u16,
    /// The agent's wall clock.
    pub wall_time: WallTime,
    /// What it is worth.
    pub clock: ClockQuality,
    /// Epochs, oldest first.
    pub epochs: Vec<EpochHeads>,
    /// Positions up to which the streams of the way down were applied.
    pub downlink: Vec<Applied>,
}

/// Where the hub stands on a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mark {
    /// Which epoch and lane.
    pub key: LaneKey,
    /// Everything up to here is committed, or was declared gone.
    pub stored: Seq,
    /// Everything up to here would survive a restore of the hub's backup.
    pub safe: Seq,
    /// Some of what is committed above `stored`; only suppresses resending.
    pub ranges: Vec<SeqRange>,
    /// What was declared gone up to `stored` and has not come since; of many ranges the last ones are told as one. An agent that has
    /// a record there (its double lost it, or the hub gave up waiting) sends again.
    pub absent: Vec<SeqRange>,
    /// The chain after `stored`, over what came first under each number; `None` where a gap hides it. An agent takes the mark
    /// for its own only if its chain there is the same: a copy of its box may have given the numbers to other records.
    pub chain: Option<Chain>,
}

/// The hub's word that it has these very records, whatever else has their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Taken {
    /// Which epoch and lane.
    pub key: LaneKey,
    /// The numbers of a batch.
    pub range: SeqRange,
    /// See [`Digest::over`]: the digest of the batch's record digests.
    pub content: Digest,
}

/// The hub's answer to a hello: authoritative for its session, and it may lower marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The wire version to speak.
    pub version: WireVersion,
    /// The session of the hello.
    pub session: SessionId,
    /// The round of the hello.
    pub round: u32,
    /// Changes whenever the ledger may have gone back.
    pub hub_epoch: SessionId,
    /// The page of the hello that this answers.
    pub page: u16,
    /// A mark for each lane of that page.
    pub marks: Vec<Mark>,
    /// How far above `stored` the receiver takes records, in sequence numbers.
    pub window: u64,
    /// How many batches above `stored` the agent may have in flight.
    pub credit: u32,
}

/// What the hub says after a commit, and again while the agent lags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ack {
    /// The session that the hub knows of the agent.
    pub session: SessionId,
    /// See [`Welcome::hub_epoch`].
    pub hub_epoch: SessionId,
    /// Lanes that moved, or all that lag.
    pub marks: Vec<Mark>,
    /// Batches of this session that were committed.
    pub taken: Vec<Taken>,
    /// How many batches above `stored` the agent may have in flight.
    pub credit: u32,
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NackReason {
    /// Its bytes do not decode.
    Undecodable,
    /// It is, or would become, larger than the receiver takes.
    TooLarge,
    /// It lies further above `stored` than the receiver keeps.
    Ahead,
    /// The agent's identity was revoked: nothing is taken from it, whatever it is. What it has stays its own to keep.
    Revoked,
}

/// The hub's word that it did not take a batch, or that it does not hear the agent at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Nack {
    /// The session of the batch.
    pub session: SessionId,
    /// Its first record; where a hello was refused, the number 0.
    pub first: RecordKey,
    /// Why.
    pub reason: NackReason,
}

/// Everything that the hub says on `down/ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// Answer to a hello.
    Welcome(Welcome),
    /// After a commit.
    Ack(Ack),
    /// A batch was not taken.
    Nack(Nack),
    /// A person wants a range again.
    RangeRequest {
        /// The session that the hub knows.
        session: SessionId,
        /// Which lane.
        key: LaneKey,
        /// What to send again.
        range: SeqRange,
    },
    /// The hub does not know the agent's session, or the ledger went back: say hello.
    HelloWanted {
        /// See [`Welcome::hub_epoch`].
        hub_epoch: SessionId,
    },
}

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// The fixed head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The session that sent it.
    pub session: SessionId,
    /// Epoch, lane and number of its first record.
    pub first: RecordKey,
    /// How many records follow on one another from there; at least one.
    pub count: u32,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Bytes of the payload before compression.
    pub plain_bytes: u32,
}

impl BatchHead {
    /// The numbers that the batch covers.
    pub const fn range(&self) -> SeqRange {
        SeqRange { first: self.first.seq, last: self.first.seq.plus(widen(self.count)).previous() }
    }
}

/// Records that follow on one another in one lane, as stored bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its head.
    pub head: BatchHead,
    /// Stored bytes, one entry a record.
    pub records: Vec<Vec<u8>>,
}

impl Batch {
    /// The record digests, in order.
    pub fn digests(&self) -> Vec<Digest> {
        self.records.iter().map(|stored| Digest::of(stored)).collect()
    }
}

/// Stock of one item, for the snapshot that overtakes the backlog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PositionItem {
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20 unit.
    pub unit: String,
    /// On the shelf, decimal string; `None` until a count gave a baseline.
    pub on_hand: Option<String>,
    /// Sum of movements since the baseline, or since the first movement.
    pub delta: String,
}

/// How much of a lane a snapshot reflects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PositionHead {
    /// Which epoch and lane.
    pub key: LaneKey,
    /// The last number whose movement is in the snapshot.
    pub last: Seq,
}

/// A part of a snapshot of stock on hand. Applied whole, and only if newer; kept apart from the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Positions {
    /// The session.
    pub session: SessionId,
    /// Counts snapshots of the session.
    pub round: u32,
    /// This part, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// Wall time of the snapshot.
    pub taken_at: WallTime,
    /// Head per epoch and lane: movements up to there are in the snapshot.
    pub heads: Vec<PositionHead>,
    /// The items of this part.
    pub items: Vec<PositionItem>,
}

/// Presence, retained at `state`; JSON, since people and other systems read it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Presence {
    /// `online`, or `offline` by the will or a clean stop.
    pub state: String,
    /// The session.
    pub session: SessionId,
    /// The live epoch, if one has begun.
    pub epoch: Option<Epoch>,
    /// Name and version of the software.
    pub software: String,
}

#[cfg_attr(not(test), expect(clippy::as_conversions, reason = "u64::from is not const yet; widening loses nothing"))]
const fn widen(count: u32) -> u64 {
    count as u64
}
