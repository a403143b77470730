//! The one thread that owns journal and state: it gathers what waits, appends, syncs once, folds, and answers.
//!
//! Invariants: an answer that relies on a record leaves after that record's sync; a failed sync answers nobody and ends the process;
//! the state is folded from synced records only, in the order of the log. Nothing here knows HTTP or MQTT: what the
//! hub acknowledged comes in as requests, like everything else.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use counterfoil_proto::message::Mark;
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::time::{Moment, WallTime};
use counterfoil_telemetry::trace;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::group::{Group, Stager, StagingError, counted};
use super::notes::{self, Note};
use super::open::{self, Start};
use super::report::Reporter;
use super::{Inbox, Reply, Request};
use crate::answer::{Outcome, Refused};
use crate::config::Config;
use crate::device::DeviceKey;
use crate::env::Env;
use crate::error::ExitError;
use crate::journal::{Disk, Journal, JournalConfig, JournalError, Marks, Position, Reader, Room};
use crate::state::{Shelf, State};
use crate::uplink::View;
use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::{Envelope, Prepared};

mod answering;
mod failing;
mod sealing;
mod watching;

pub use answering::PositionsSnapshot;
use answering::Question;

/// Requests gathered for one sync. More would let the first of them wait longer than a sync takes.
const GATHERED_MAX: usize = 256;

/// Records staged before a group is committed though more waits: bounds what is held in memory for the fold. As many share one
/// sync well enough.
const STAGED_MAX: usize = 512;

/// Bytes of one part of a state snapshot in the journal.
const SNAPSHOT_PART_BYTES: usize = 256 * 1024;

/// Bytes that the scrub checks per tick of half a second: 16 MiB take about half a minute.
const SCRUB_BYTES: usize = 256 * 1024;

/// A wall clock that moves against the monotonic one by more than this, in milliseconds, has stepped.
const CLOCK_STEP_MS: i64 = 2_000;

/// Notes that wait for a record to begin an epoch; more are dropped, oldest first, with a log line.
const NOTES_MAX: usize = 256;

/// Milliseconds between two exceptions about documents that were refused.
const REFUSED_NOTE_MS: u64 = 3_600_000;

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything.
    Accepting,
    /// Nothing new until the hub has taken over enough.
    Full,
    /// Nothing new: the disk failed repeatedly.
    DrainOnly,
}

/// What an owner stands on: the box's own, or a test's.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The disk of the journal.
    pub disk: Arc<dyn Disk>,
    /// The journal's limits.
    pub limits: JournalConfig,
    /// Where the state is kept instead of beside the journal.
    pub shelf: Option<Shelf>,
}

/// Owner of journal and state.
#[derive(Debug)]
pub struct Owner {
    pub(super) env: Env,
    pub(super) journal: Journal,
    pub(super) state: State,
    disk: Arc<dyn Disk>,
    pub(super) uplink: watch::Receiver<Arc<View>>,
    notes: Vec<Note>,
    pub(super) mode: Mode,
    pub(super) wall_newest: WallTime,
    checkpoint_ms: u64,
    checkpoint_at: Moment,
    probe_at: Moment,
    clock_base: (WallTime, Moment),
    refused_noted: (u64, Moment),
    watch_at: Moment,
    patience: Patience,
    reporter: Reporter,
    device: DeviceKey,
}

/// How long is waited for what should come.
#[derive(Clone, Copy, Debug)]
struct Patience {
    pickup: Duration,
    sequence_gap: Duration,
}

impl Owner {
    /// Opens what is on the disk. `uplink` is where the uplink publishes how it is; in `moved` the bytes are counted that are read and
    /// written on the way.
    pub fn open(
        config: &Config,
        env: Env,
        uplink: watch::Receiver<Arc<View>>,
        moved: Arc<AtomicU64>,
    ) -> Result<Self, ExitError> {
        Self::open_on(open::ground(config, moved)?, config, env, uplink)
    }

    /// The same on ground of the caller's.
    pub fn open_on(
        ground: Ground,
        config: &Config,
        env: Env,
        uplink: watch::Receiver<Arc<View>>,
    ) -> Result<Self, ExitError> {
        let Start { mut journal, opened, state, disk } = open::open(ground, config, &env)?;
        let mut notes: Vec<Note> = opened.tail_cut.iter().map(notes::tail_cut).collect();
        let damage = opened.damage.iter().cloned().chain(journal.take_damage());
        notes.extend(damage.map(|damage| notes::damage(&damage)));
        let now = env.moment();
        let device = DeviceKey::open(disk.as_ref(), &env)?;
        env.note_newest(opened.wall_last.unwrap_or_default());
        let mut owner = Self {
            clock_base: (env.wall(), now),
            reporter: Reporter::new(config, now, journal.reader()),
            journal,
            state,
            disk,
            device,
            uplink,
            notes,
            mode: Mode::Accepting,
            wall_newest: opened.wall_last.unwrap_or_default(),
            checkpoint_ms: u64::try_from(config.journal.checkpoint_interval.as_millis()).unwrap_or(u64::MAX),
            checkpoint_at: now,
            probe_at: now,
            refused_noted: (0, now),
            watch_at: now,
            patience: Patience {
                pickup: config.store.pickup_patience,
                sequence_gap: config.store.sequence_gap_patience,
            },
            env,
        };
        owner.check_failed_syncs();
        Ok(owner)
    }

    /// A reader for the uplink.
    pub fn reader(&self) -> Reader {
        self.journal.reader()
    }

    /// Says what the recovery found, so that the hub hears of it before any till sells, and publishes the first status.
    pub fn settle(&mut self, inbox: &Inbox) -> Result<(), ExitError> {
        self.turn(Vec::new())?;
        self.tick(inbox)
    }

    /// Serves requests until every handle is dropped, then closes the journal. On an error nobody is answered any more.
    pub fn run(mut self, mut inbox: Inbox) -> Result<(), ExitError> {
        while let Some(first) = inbox.requests.blocking_recv() {
            let mut requests = vec![first];
            while requests.len() < GATHERED_MAX
                && let Ok(request) = inbox.requests.try_recv()
            {
                requests.push(request);
            }
            self.serve(requests, &inbox)?;
        }
        self.close()
    }

    /// One round: what waits is appended, synced once and answered. On an error nobody is answered, and the owner is of no more use.
    pub fn serve(&mut self, requests: Vec<Request>, inbox: &Inbox) -> Result<(), ExitError> {
        let ticks = requests.iter().any(|request| matches!(request, Request::Tick));
        self.turn(requests).inspect_err(|_| self.note_failed_sync())?;
        if ticks {
            self.tick(inbox).inspect_err(|_| self.note_failed_sync())?;
        }
        Ok(())
    }

    /// Writes the last checkpoint and the journal's closing mark.
    pub fn close(mut self) -> Result<(), ExitError> {
        self.checkpoint();
        self.journal.close().map_err(|error| ExitError::Disk(Box::new(error)))?;
        info!("journal closed");
        Ok(())
    }

    /// One round of group commit.
    pub(super) fn turn(&mut self, requests: Vec<Request>) -> Result<(), ExitError> {
        let mut group = Group::default();
        let mut later = Vec::new();
        for request in requests {
            self.take(request, &mut group, &mut later)?;
        }
        self.append_notes(&mut group)?;
        self.finish(&mut group)?;
        for question in later {
            self.answer(question);
        }
        self.seal_closes()
    }

    fn take(&mut self, request: Request, group: &mut Group, later: &mut Vec<Question>) -> Result<(), ExitError> {
        match request {
            Request::Submit { documents, reply } => return self.submit(documents, reply, group),
            Request::ChangeException { id, change, by, reason, reply } => {
                if self.state.exception(&id, self.env.wall()).is_some() {
                    self.note(notes::exception_changed(&id, change, &by, &reason));
                }
                later.push(Question::Exception { id, reply });
            }
            Request::Forecast { documents, reply } => later.push(Question::Forecast { documents, reply }),
            Request::Stock { item_id, reply } => later.push(Question::Stock { item_id, reply }),
            Request::Receipt { identity, reply } => later.push(Question::Receipt { identity, reply }),
            Request::Day { business_day_date, reply } => later.push(Question::Day { business_day_date, reply }),
            Request::Tally { reply } => later.push(Question::Tally { reply }),
            Request::Exceptions { all, reply } => later.push(Question::Exceptions { all, reply }),
            Request::Positions { reply } => later.push(Question::Positions { reply }),
            Request::Marks { marks } => self.acknowledge(&marks),
            Request::Damaged { segment } => self.handle_damage(segment)?,
            Request::Outage { from, until, duration_ms } => self.note(notes::outage(from, until, duration_ms)),
            Request::Finding { code, document } => self.note(notes::finding(code, document)),
            Request::Probe { reply } => {
                self.test_commit()?;
                reply.send(Ok(())).unwrap_or_default();
            }
            Request::Tick => {}
        }
        Ok(())
    }

    fn submit(
        &mut self,
        documents: Vec<Prepared>,
        reply: Reply<Vec<Outcome>>,
        group: &mut Group,
    ) -> Result<(), ExitError> {
        if let Some(refused) = self.refusal()? {
            reply.send(Err(refused)).unwrap_or_default();
            return Ok(());
        }
        let mut outcomes = Vec::with_capacity(documents.len());
        for mut document in documents {
            // A count is judged by what is synced and folded, all that came before it.
            let settled = if counted(&document.facts).is_some() { self.commit(group) } else { Ok(()) };
            let staged =
                settled.and_then(|()| self.stage(group, |stager, group| stager.document(group, &mut document)));
            match staged {
                Ok(outcome) => outcomes.push(outcome),
                Err(StagingError::Journal(JournalError::Full)) => {
                    self.full(group);
                    reply.send(Err(Refused::Full)).unwrap_or_default();
                    return Ok(());
                }
                Err(error) => return Err(fatal(error)),
            }
        }
        if planted::is(Bug::PendingAnswered) && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Duplicate(_)))
        {
            reply.send(Ok(outcomes)).unwrap_or_default();
            return Ok(());
        }
        group.waiting.push((reply, outcomes));
        Ok(())
    }

    /// Stages something; where the group is full, commits it and tries once more.
    fn stage<T>(
        &mut self,
        group: &mut Group,
        mut what: impl FnMut(&mut Stager<'_>, &mut Group) -> Result<T, StagingError>,
    ) -> Result<T, StagingError> {
        if group.records.len() >= STAGED_MAX {
            self.commit(group)?;
        }
        match what(&mut self.stager(), group) {
            Err(StagingError::GroupFull) => {
                self.commit(group)?;
                what(&mut self.stager(), group)
            }
            result => result,
        }
    }

    fn stager(&mut self) -> Stager<'_> {
        let clock = self.env.clock_quality(self.wall_newest);
        let store_id = self.reporter.store_id();
        Stager { env: &self.env, journal: &mut self.journal, state: &self.state, store_id, clock }
    }

    /// Writes, syncs and folds what is staged.
    fn commit(&mut self, group: &mut Group) -> Result<(), StagingError> {
        if self.journal.has_staged() {
            let begun_us = self.env.micros();
            self.journal.commit(self.env.wall())?;
            self.reporter.committed(Duration::from_micros(self.env.micros().saturating_sub(begun_us)));
        }
        for staged in &group.records {
            self.state.apply(staged.position.0, staged.key, &staged.record, &staged.facts);
            tell(staged.key, &staged.record.envelope);
            self.wall_newest = self.wall_newest.max(staged.record.envelope.recorded_at);
        }
        group.folded();
        Ok(())
    }

    fn finish(&mut self, group: &mut Group) -> Result<(), ExitError> {
        match self.commit(group) {
            Ok(()) => {
                for (_, outcomes) in &group.waiting {
                    self.reporter.count(outcomes);
                }
                group.answer();
                self.take_damage();
                Ok(())
            }
            Err(StagingError::Journal(JournalError::Full)) => {
                self.full(group);
                Ok(())
            }
            Err(error) => Err(fatal(error)),
        }
    }

    fn full(&mut self, group: &mut Group) {
        self.journal.unstage();
        group.refuse(&Refused::Full);
        self.mode = Mode::Full;
    }

    fn refusal(&mut self) -> Result<Option<Refused>, ExitError> {
        if self.mode == Mode::DrainOnly {
            return Ok(Some(Refused::DrainOnly));
        }
        let room = self.journal.room().map_err(fatal)?;
        self.mode = if room == Room::Full { Mode::Full } else { Mode::Accepting };
        Ok((room == Room::Full).then_some(Refused::Full))
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() >= NOTES_MAX {
            let dropped = self.notes.remove(0);
            warn!(kind = ?dropped.kind, "too many notes wait for a record; the oldest is dropped");
        }
        self.notes.push(note);
    }

    /// Notes go into the journal with the next record, or at once where a person or the hub should know.
    fn append_notes(&mut self, group: &mut Group) -> Result<(), ExitError> {
        let is_due = self.notes.iter().any(|note| note.urgent) || self.journal.epoch().is_some();
        if self.notes.is_empty() || !is_due || self.mode == Mode::DrainOnly {
            return Ok(());
        }
        let room = self.journal.room().map_err(fatal)?;
        for note in std::mem::take(&mut self.notes) {
            let is_ops = note.kind.lane() == counterfoil_proto::id::Lane::Ops;
            if is_ops && room != Room::Plenty {
                continue;
            }
            match self.stage(group, |stager, group| stager.note(group, note.clone())) {
                Ok(_) => {}
                Err(StagingError::Journal(JournalError::Full)) => {
                    self.notes.push(note);
                    self.full(group);
                    return Ok(());
                }
                Err(error) => return Err(fatal(error)),
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, marks: &[Mark]) {
        for mark in marks {
            self.journal.acknowledge(mark.key, Marks { stored: mark.stored, safe: mark.safe });
        }
    }

    fn handle_damage(&mut self, segment: u32) -> Result<(), ExitError> {
        for damage in self.journal.handle_damage(segment).map_err(fatal)? {
            warn!(segment, what = damage.what, gone = ?damage.gone, "journal damage");
            self.note(notes::damage(&damage));
        }
        Ok(())
    }

    fn take_damage(&mut self) {
        for damage in self.journal.take_damage() {
            warn!(segment = damage.segment, what = damage.what, gone = ?damage.gone, "journal damage");
            self.note(notes::damage(&damage));
        }
    }

    /// Twice a second: what is due by time.
    pub(super) fn tick(&mut self, inbox: &Inbox) -> Result<(), ExitError> {
        let now = self.env.moment();
        self.watch_clock(now);
        self.note_refusals(inbox, now);
        self.watch_for_what_is_missing(now);
        if self.mode == Mode::DrainOnly {
            self.probe(now);
        } else if self.refusal()?.is_none() {
            let scrubbed = self.journal.scrub_step(SCRUB_BYTES).map_err(fatal)?;
            for damage in scrubbed.damage {
                warn!(segment = damage.segment, what = damage.what, gone = ?damage.gone, "journal damage found by the scrub");
                self.note(notes::damage(&damage));
            }
        }
        if self.checkpoint_at <= now || self.state.is_checkpoint_due() {
            self.checkpoint();
            self.give_back()?;
            self.checkpoint_at = now.plus_ms(self.checkpoint_ms);
        }
        let status = self.status(now);
        inbox.status.send_replace(Arc::new(status));
        Ok(())
    }

    fn watch_clock(&mut self, now: Moment) {
        let (wall, moment) = self.clock_base;
        let expected = WallTime(wall.0.saturating_add(i64::try_from(now.since_ms(moment)).unwrap_or(i64::MAX)));
        let found = self.env.wall();
        let step_ms = found.0.saturating_sub(expected.0);
        if step_ms.abs() > CLOCK_STEP_MS {
            warn!(step_ms, "the wall clock stepped");
            self.note(notes::clock_step(expected, found, step_ms));
        }
        self.clock_base = (found, now);
    }

    fn note_refusals(&mut self, inbox: &Inbox, now: Moment) {
        let counts = inbox.refusals.counts();
        let total: u64 = counts.values().sum();
        let (noted, next_at) = self.refused_noted;
        if total > noted && now >= next_at && self.journal.epoch().is_some() {
            self.note(notes::documents_refused(&counts));
            self.refused_noted = (total, now.plus_ms(REFUSED_NOTE_MS));
        }
    }

    /// A checkpoint that fails costs a longer replay, nothing else: the journal is not reclaimed past the last good one.
    fn checkpoint(&mut self) {
        if self.state.is_dirty() {
            let witness = open::witness(&self.journal);
            if let Err(failure) = self.state.checkpoint(self.journal.end().0, witness) {
                error!(failure = %crate::error::chain(&failure), "checkpoint of the state failed; it will be tried again");
            }
        }
        if let Err(failure) = self.journal.save_cursor() {
            error!(failure = %crate::error::chain(&failure), "the acknowledged positions could not be written; they will be asked of the hub");
        }
    }

    /// Gives segments back that the hub holds for certain. Only marks of a session in which the hub answered count.
    fn give_back(&mut self) -> Result<(), ExitError> {
        let Some(mark) = self.state.checkpointed() else { return Ok(()) };
        if !self.uplink.borrow().status.welcomed {
            return Ok(());
        }
        let now = self.env.wall();
        if self.journal.wants_snapshot(now, Position(mark.position)) {
            self.snapshot()?;
        }
        let Some(mark) = self.state.checkpointed() else { return Ok(()) };
        let reclaimed = self.journal.reclaim(now, Position(mark.position)).map_err(fatal)?;
        if reclaimed.segments > 0 {
            info!(segments = reclaimed.segments, bytes = reclaimed.bytes, "journal segments given back");
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), ExitError> {
        let id = self.env.random_bytes()?;
        let parts = self.state.snapshot(id, SNAPSHOT_PART_BYTES);
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let mut group = Group::default();
        for (part, bytes) in (0..count).zip(&parts) {
            let staged = self.stage(&mut group, |stager, _| {
                stager.journal.stage_local(part, count, bytes).map_err(StagingError::from)
            });
            match staged {
                Ok(_) => {}
                Err(StagingError::Journal(JournalError::Full)) => {
                    warn!("no room for a snapshot of the state; nothing is given back this time");
                    self.full(&mut group);
                    return Ok(());
                }
                Err(error) => return Err(fatal(error)),
            }
        }
        self.finish(&mut group)?;
        self.checkpoint();
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.disk.free_bytes().unwrap_or(0)
    }

    fn status(&mut self, now: Moment) -> crate::answer::Status {
        let mut reporter = std::mem::take(&mut self.reporter);
        let status = reporter.status(self, now);
        self.reporter = reporter;
        status
    }

    /// The status as it is now.
    #[cfg(test)]
    pub(super) fn status_for_test(&mut self, inbox: &Inbox) -> crate::answer::Status {
        let now = self.env.moment();
        let status = self.status(now);
        inbox.status.send_replace(Arc::new(status.clone()));
        status
    }
}

/// What a person will look for in the log: a record by its names, and what was found in it.
fn tell(key: RecordKey, envelope: &Envelope) {
    let trace_id = envelope.traceparent.as_deref().and_then(trace::trace_id);
    debug!(record = %key.correlation_id(), correlation_id = envelope.correlation_id, trace_id, "recorded");
    for flag in &envelope.flags {
        let correlation_id = envelope.correlation_id.as_deref().unwrap_or_default();
        info!(code = %flag.code, correlation_id, trace_id, record = %key.correlation_id(), "found in a record");
    }
}

fn fatal(error: impl std::error::Error + Send + Sync + 'static) -> ExitError {
    ExitError::Disk(Box::new(error))
}
