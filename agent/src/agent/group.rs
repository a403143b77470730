//! Turning submitted documents into a group of frames, and a group into answers.
//!
//! Invariant: every outcome that relies on an entry (recorded, duplicate, conflict) leaves only after the sync of that
//! entry: outcomes wait in the [`Group`] until the owner has committed it. This module does not sync and does not fold.

use std::collections::BTreeMap;

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::facts::Facts;
use counterfoil_proto::record::flag::IDENTITY_CONFLICT;
use counterfoil_proto::record::{Envelope, Flag, Kind, Prepared, Record};
use counterfoil_proto::time::{ClockQuality, WallTime};

use super::Reply;
use crate::answer::{Conflict, Outcome, Receipt, Refused};
use crate::env::Env;
use crate::journal::{Found, Frame, IdentityKey, Journal, JournalError, Position, ReadError, StageError};
use crate::state::{self, State, exception_id};

use super::notes::{self, Note};

/// Why staging stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    /// The journal could not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A frame that the index names could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel gave no randomness for an epoch.
    #[error(transparent)]
    Env(#[from] crate::env::EnvError),
    /// A record that we made ourselves cannot be stored.
    #[error("A record could not be written: {0}")]
    Record(#[from] counterfoil_proto::record::RecordError),
    /// A record is larger than a frame may be; checked at the door, so a fault of ours.
    #[error("A record of {bytes} bytes does not fit a frame")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The group is full: commit, then go on.
    #[error("The group is full")]
    GroupFull,
}

impl From<StageError> for StagingError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::GroupFull => Self::GroupFull,
            StageError::TooLarge { bytes, .. } => Self::TooLarge { bytes },
            StageError::Journal(error) => Self::Journal(error),
        }
    }
}

/// A record that is staged and waits to be folded.
#[derive(Debug)]
pub(super) struct StagedRecord {
    pub(super) position: Position,
    pub(super) key: RecordKey,
    pub(super) record: Record,
    pub(super) facts: Facts,
}

/// What waits for the next sync.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Records in the order of the log.
    pub(super) records: Vec<StagedRecord>,
    by_position: BTreeMap<Position, usize>,
    closes: state::Group,
    /// Answers that rely on it.
    pub(super) waiting: Vec<(Reply<Vec<Outcome>>, Vec<Outcome>)>,
}

/// The parts that staging needs, borrowed from the owner.
#[derive(Debug)]
pub(super) struct Stager<'a> {
    pub(super) env: &'a Env,
    pub(super) journal: &'a mut Journal,
    pub(super) state: &'a State,
    pub(super) clock: ClockQuality,
}

impl Stager<'_> {
    /// Stages a document, or finds that it is there already.
    pub(super) fn document(&mut self, group: &mut Group, prepared: &Prepared) -> Result<Outcome, StagingError> {
        let envelope = &prepared.envelope;
        let Some(identity) = envelope.identity.as_deref() else {
            let (key, envelope) = self.append(group, prepared, None)?;
            return Ok(recorded(key, &envelope, &prepared.warnings));
        };
        let Some((first_key, first)) = self.look_up(group, IdentityKey::of(identity))? else {
            let (key, envelope) = self.append(group, prepared, None)?;
            return Ok(recorded(key, &envelope, &prepared.warnings));
        };
        if first.content_digest == envelope.content_digest {
            return Ok(Outcome::Duplicate(receipt(first_key, &first, true)));
        }
        let conflict_key = IdentityKey::of_conflict(identity, &envelope.content_digest);
        let (kept_key, kept) = match self.look_up(group, conflict_key)? {
            Some(found) => found,
            None => self.append(group, prepared, Some(first_key))?,
        };
        Ok(Outcome::Conflict(Conflict {
            existing: receipt(first_key, &first, true),
            // The same answer each time: a till that retries must not see a difference.
            kept: receipt(kept_key, &kept, false),
            exception_id: exception_id(kept_key, IDENTITY_CONFLICT),
        }))
    }

    /// Stages a record of the agent's own.
    pub(super) fn note(&mut self, group: &mut Group, note: Note) -> Result<RecordKey, StagingError> {
        self.begin_epoch(group)?;
        self.own(group, note)
    }

    fn own(&mut self, group: &mut Group, note: Note) -> Result<RecordKey, StagingError> {
        let (kind, envelope, document) = note.into_parts();
        let record = Record { kind, envelope: self.stamped(envelope), document };
        let staged = self.journal.stage(kind.lane(), &[], &record.encode()?)?;
        group.push(StagedRecord { position: staged.position, key: staged.key, record, facts: Facts::None });
        Ok(staged.key)
    }

    /// The epoch begins with the first record after a start, and its first record says where it comes from.
    fn begin_epoch(&mut self, group: &mut Group) -> Result<(), StagingError> {
        let epoch = match self.journal.epoch() {
            Some(epoch) => epoch,
            None => {
                let epoch = counterfoil_proto::id::Epoch(self.env.random_bytes()?);
                self.journal.start_epoch(epoch);
                epoch
            }
        };
        if self.journal.next_seq(Kind::EPOCH_START.lane()) == counterfoil_proto::id::Seq::FIRST {
            let note = notes::epoch_start(epoch, self.journal.parent(), self.env, self.clock);
            self.own(group, note)?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        group: &mut Group,
        prepared: &Prepared,
        conflicts_with: Option<RecordKey>,
    ) -> Result<(RecordKey, Envelope), StagingError> {
        self.begin_epoch(group)?;
        let mut envelope = self.stamped(prepared.envelope.clone());
        if conflicts_with.is_some() {
            envelope.flags.push(Flag { code: IDENTITY_CONFLICT.into(), pointer: String::new() });
        } else {
            envelope.flags.extend(self.state.judge(prepared, &group.closes));
        }
        envelope.conflicts_with = conflicts_with;
        let keys = IdentityKey::of_envelope(&envelope);
        let record = Record { kind: prepared.kind, envelope, document: prepared.document.clone() };
        let staged = self.journal.stage(prepared.kind.lane(), &keys, &record.encode()?)?;
        if conflicts_with.is_none() {
            group.closes.note(prepared);
        }
        let envelope = record.envelope.clone();
        let facts = prepared.facts.clone();
        group.push(StagedRecord { position: staged.position, key: staged.key, record, facts });
        Ok((staged.key, envelope))
    }

    fn stamped(&self, envelope: Envelope) -> Envelope {
        Envelope { recorded_at: self.env.wall(), monotonic_ms: self.env.monotonic_ms(), clock: self.clock, ..envelope }
    }

    fn look_up(&mut self, group: &Group, key: IdentityKey) -> Result<Option<(RecordKey, Envelope)>, StagingError> {
        match self.journal.find(key)? {
            Found::Nothing => Ok(None),
            Found::Pending(position) => {
                Ok(group.at(position).map(|staged| (staged.key, staged.record.envelope.clone())))
            }
            Found::Synced(position) => read_envelope(self.journal, position),
        }
    }
}

/// The record at a position that the index names; `None` where it holds no record that we can read.
pub(super) fn read_envelope(
    journal: &Journal,
    position: Position,
) -> Result<Option<(RecordKey, Envelope)>, StagingError> {
    Ok(read_record(journal, position)?.map(|(key, record)| (key, record.envelope)))
}

/// The same with the document.
pub(super) fn read_record(journal: &Journal, position: Position) -> Result<Option<(RecordKey, Record)>, StagingError> {
    match journal.read_at(position)? {
        Frame::Record { key, stored } => Ok(Record::decode(&stored).ok().map(|record| (key, record))),
        Frame::Local { .. } => Ok(None),
    }
}

impl Group {
    fn push(&mut self, staged: StagedRecord) {
        self.by_position.insert(staged.position, self.records.len());
        self.records.push(staged);
    }

    fn at(&self, position: Position) -> Option<&StagedRecord> {
        self.by_position.get(&position).and_then(|index| self.records.get(*index))
    }

    /// Forgets what was folded; the answers go on waiting.
    pub(super) fn folded(&mut self) {
        self.records.clear();
        self.by_position.clear();
        self.closes = state::Group::default();
    }

    /// Sends every answer that waited.
    pub(super) fn answer(&mut self) {
        for (reply, outcomes) in self.waiting.drain(..) {
            // A till that hung up asks again and gets the same receipt.
            reply.send(Ok(outcomes)).unwrap_or_default();
        }
    }

    /// Tells everybody who waited that nothing was appended.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        self.folded();
        for (reply, _) in self.waiting.drain(..) {
            reply.send(Err(refused.clone())).unwrap_or_default();
        }
    }
}

fn recorded(key: RecordKey, envelope: &Envelope, warnings: &[String]) -> Outcome {
    Outcome::Recorded(Receipt { warnings: warnings.to_vec(), ..receipt(key, envelope, false) })
}

/// The receipt of a record.
pub(super) fn receipt(key: RecordKey, envelope: &Envelope, duplicate: bool) -> Receipt {
    let mut exceptions: Vec<String> = Vec::new();
    for flag in &envelope.flags {
        if !exceptions.iter().any(|code| *code == flag.code) {
            exceptions.push(flag.code.to_string());
        }
    }
    Receipt {
        epoch: key.epoch.to_string(),
        lane: key.lane.to_string(),
        seq: key.seq.0,
        digest: envelope.content_digest.to_string(),
        recorded_at: envelope.recorded_at.to_rfc3339(),
        duplicate,
        exceptions,
        warnings: Vec::new(),
    }
}

/// Milliseconds of wall time between two moments of one clock, for ages.
pub(super) fn age_s(then: WallTime, now: WallTime) -> u64 {
    u64::try_from(now.0.saturating_sub(then.0).max(0)).unwrap_or(0) / 1_000
}
