//! Turning submitted documents into a group of frames, and a group into answers.
//!
//! Invariant: every outcome that relies on an entry (recorded, duplicate, conflict) leaves only after the sync of that
//! entry: outcomes wait in the [`Group`] until the owner has committed it. This module does not sync and does not fold.

use std::collections::BTreeMap;

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::record::facts::{Facts, StockCount};
use counterfoil_proto::record::flag::IDENTITY_CONFLICT;
use counterfoil_proto::record::{Envelope, Flag, Kind, Prepared, Record};
use counterfoil_proto::time::{ClockQuality, WallTime};

use super::{Reply, judge};
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
    pub(super) pending: state::Group,
    /// Answers that rely on it.
    pub(super) waiting: Vec<(Reply<Vec<Outcome>>, Vec<Outcome>)>,
}

/// The parts that staging needs, borrowed from the owner.
#[derive(Debug)]
pub(super) struct Stager<'a> {
    pub(super) env: &'a Env,
    pub(super) journal: &'a mut Journal,
    pub(super) state: &'a State,
    pub(super) store_id: &'a str,
    pub(super) clock: ClockQuality,
}

impl Stager<'_> {
    /// Stages a document, or finds that it is there already.
    ///
    /// What is appended is moved out of `prepared`; after an error it is there again.
    pub(super) fn document(&mut self, group: &mut Group, prepared: &mut Prepared) -> Result<Outcome, StagingError> {
        let first = match prepared.envelope.identity.as_deref() {
            Some(identity) => self.look_up(group, IdentityKey::of(identity))?,
            None => None,
        };
        let Some((first_key, first)) = first else {
            let receipt = self.append(group, prepared, None)?;
            return Ok(Outcome::Recorded(Receipt { warnings: std::mem::take(&mut prepared.warnings), ..receipt }));
        };
        let is_same = first.content_digest == prepared.envelope.content_digest;
        if is_same || planted::is(Bug::DuplicateWithoutDigest) {
            return Ok(Outcome::Duplicate(receipt(first_key, &first, true)));
        }
        let identity = prepared.envelope.identity.as_deref().unwrap_or_default();
        let conflict_key = IdentityKey::of_conflict(identity, &prepared.envelope.content_digest);
        // The same answer each time: a till that retries must not see a difference.
        let (kept_key, kept) = if let Some((key, kept)) = self.look_up(group, conflict_key)? {
            (key, receipt(key, &kept, false))
        } else {
            let receipt = self.append(group, prepared, Some(first_key))?;
            (group.last_key().unwrap_or(first_key), receipt)
        };
        Ok(Outcome::Conflict(Conflict {
            existing: receipt(first_key, &first, true),
            kept,
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
        let epoch = if let Some(epoch) = self.journal.epoch() {
            epoch
        } else {
            let parent = self.journal.parent().filter(|_| planted::is(Bug::SequenceContinued));
            let epoch = match parent {
                Some(parent) => parent.epoch,
                None => counterfoil_proto::id::Epoch(self.env.random_bytes()?),
            };
            self.journal.start_epoch(epoch);
            epoch
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
        prepared: &mut Prepared,
        conflicts_with: Option<RecordKey>,
    ) -> Result<Receipt, StagingError> {
        self.begin_epoch(group)?;
        let flags_before = prepared.envelope.flags.len();
        if conflicts_with.is_some() {
            prepared.envelope.flags.push(Flag { code: IDENTITY_CONFLICT.into(), pointer: String::new() });
        } else {
            let judged = judge::judge(self.store_id, self.journal, self.state, group, prepared);
            prepared.envelope.flags.extend(judged);
        }
        let mut envelope = Envelope { conflicts_with, ..self.stamped(std::mem::take(&mut prepared.envelope)) };
        let (had_correlation, had_trace) = (envelope.correlation_id.is_some(), envelope.traceparent.is_some());
        self.tie(prepared.kind.lane(), &mut envelope);
        let document = std::mem::take(&mut prepared.document);
        let record = Record { kind: prepared.kind, envelope, document };
        let keys = IdentityKey::of_envelope(&record.envelope);
        let staged = record
            .encode()
            .map_err(StagingError::from)
            .and_then(|stored| self.journal.stage(prepared.kind.lane(), &keys, &stored).map_err(StagingError::from));
        match staged {
            Ok(staged) => {
                if conflicts_with.is_none() {
                    group.pending.note(prepared);
                }
                let receipt = receipt(staged.key, &record.envelope, false);
                let facts = std::mem::replace(&mut prepared.facts, Facts::None);
                let variance = counted(&facts).filter(|_| conflicts_with.is_none()).map(|counts| {
                    let correlation_id = record.envelope.correlation_id.clone();
                    notes::stock_variance(staged.key, counts, self.state, correlation_id)
                });
                group.push(StagedRecord { position: staged.position, key: staged.key, record, facts });
                if let Some(variance) = variance {
                    self.own(group, variance)?;
                }
                Ok(receipt)
            }
            Err(error) => {
                prepared.envelope = record.envelope;
                // Another attempt may get another number.
                prepared.envelope.correlation_id.take_if(|_| !had_correlation);
                prepared.envelope.traceparent.take_if(|_| !had_trace);
                prepared.envelope.flags.truncate(flags_before);
                prepared.document = record.document;
                Err(error)
            }
        }
    }

    /// What ties the record to others, where its document does not say.
    fn tie(&self, lane: counterfoil_proto::id::Lane, envelope: &mut Envelope) {
        let Some(epoch) = self.journal.epoch() else { return };
        let key = RecordKey { epoch, lane, seq: self.journal.next_seq(lane) };
        envelope.correlation_id.get_or_insert_with(|| key.correlation_id());
        envelope.traceparent.get_or_insert_with(|| key.traceparent());
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
            Found::Synced(position) => {
                let found = read_envelope(self.journal, position)?;
                let is_forgotten = |envelope: &Envelope| {
                    planted::is(Bug::DuplicateExpires)
                        && self.env.wall().0.saturating_sub(envelope.recorded_at.0) > 20_000
                };
                Ok(found.filter(|(_, envelope)| !is_forgotten(envelope)))
            }
        }
    }
}

/// What a document says lies there. Everything before it has to be folded when it is staged.
pub(super) fn counted(facts: &Facts) -> Option<&[StockCount]> {
    let Facts::Movement(movement) = facts else { return None };
    Some(&movement.counts[..]).filter(|counts| !counts.is_empty())
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

    fn last_key(&self) -> Option<RecordKey> {
        self.records.last().map(|staged| staged.key)
    }

    pub(super) fn at(&self, position: Position) -> Option<&StagedRecord> {
        self.by_position.get(&position).and_then(|index| self.records.get(*index))
    }

    /// Forgets what was folded; the answers go on waiting.
    pub(super) fn folded(&mut self) {
        self.records.clear();
        self.by_position.clear();
        self.pending = state::Group::default();
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
