//! Drives the hub's end of the protocol: what agents say goes into the ledger, and only what was committed is acknowledged.
//!
//! Invariant: an acknowledgement is published after the commit that it speaks of, never before, and any process may publish it. All that
//! waits is taken into one transaction, bounded in batches, records and bytes; while the ledger is away the group at hand
//! is kept, the queues fill, and the agents' credit falls. Nothing is lost by dropping anything here: what was not
//! acknowledged comes again. Time is `env`'s; what a record means is posting's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use counterfoil_proto::codec::{self, CodecError};
use counterfoil_proto::id::{Digest, Lane, LaneKey, RecordKey, Seq, SessionId, Source};
use counterfoil_proto::limits::{
    HELLO_EPOCHS_MAX, HELLO_GONE_MAX, MARKS_MAX, POSITIONS_ITEMS_MAX, WINDOW_BATCHES_MAX, WINDOW_SEQS_MAX,
};
use counterfoil_proto::message::{
    self, Ack, Batch, Down, Hello, Mark, Nack, NackReason, Positions, Presence, Welcome, WireVersion,
};
use counterfoil_proto::time::Moment;
use counterfoil_proto::topic::Up;
use counterfoil_telemetry::log;
use tokio::sync::{mpsc, watch};

use crate::authority::upkeep::Barred;
use crate::env;
use crate::following;
use crate::ledger::{Arrival, DueReplay, Ledger, LedgerError, Taken};
use crate::mqtt::{Incoming, Outlet, QUEUE_MESSAGES_MAX};
use crate::run::stopped;

mod counters;
#[cfg(test)]
mod tests;

pub use counters::Counters;
use counters::add;

/// Batches in one transaction.
const GROUP_BATCHES_MAX: usize = 64;
/// Records in one transaction: enough that the commit's cost vanishes, little enough that an ack takes milliseconds.
const GROUP_RECORDS_MAX: usize = 8_192;
/// Bytes of records in one transaction, unless one batch is larger.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
const TICK_MS: u64 = 1_000;
/// Ticks between two looks whether the ledger went back.
const BEAT_TICKS: u64 = 5;
/// An agent is asked for a hello no more often than this.
const HELLO_WANTED_INTERVAL_MS: u64 = 5_000;
/// A lane with holes that stands still for this long makes the hub ask for a hello: agent and hub may disagree about what was stored.
const STUCK_MS: u64 = 15_000;
/// How often a mark is repeated after it last moved.
const REPEATS: u8 = 2;
/// Lanes whose marks are repeated; of more, the agents' own timers take care.
const LAGGING_MAX: usize = 4_096;
/// Rejects kept a minute; a flood of them says nothing new.
const REJECTS_A_MINUTE: u32 = 60;
const RETRY_MS_MIN: u64 = 50;
const RETRY_MS_MAX: u64 = 5_000;

/// A lane whose mark is said again.
#[derive(Clone, Copy, Debug)]
struct Lagging {
    repeats: u8,
    stored: Seq,
    since: Moment,
}

/// The receiver of one process.
#[derive(Debug)]
pub struct Receiver {
    ledger: Arc<dyn Ledger>,
    outlet: Outlet,
    counters: Arc<Counters>,
    /// Wakes the poster.
    stored: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
    /// Of whom nothing is taken; of nobody, where it is left out.
    barred: Option<watch::Receiver<Barred>>,
    lagging: BTreeMap<(Source, LaneKey), Lagging>,
    asked: BTreeMap<Source, Moment>,
    told_epoch: SessionId,
    rejects_left: u32,
    queued: usize,
    ticks: u64,
    failures: u32,
}

/// The process is stopping: whatever was at work comes again.
#[derive(Debug)]
struct Stopping;

/// Tries until the ledger answers (`Some`), until it is clear that it never will (`None`), or until the process stops.
macro_rules! insist {
    ($self:ident, $attempt:expr) => {
        loop {
            match $attempt.await {
                Ok(answer) => {
                    $self.failures = 0;
                    break Some(answer);
                }
                Err(error) => {
                    if !$self.after(&error).await? {
                        break None;
                    }
                }
            }
        }
    };
}

impl Receiver {
    /// A receiver over `ledger`, which answers through `outlet`.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        outlet: Outlet,
        counters: Arc<Counters>,
        stored: watch::Sender<u64>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let told_epoch = ledger.hub_epoch();
        Self {
            ledger,
            outlet,
            counters,
            stored,
            stop,
            barred: None,
            lagging: BTreeMap::new(),
            asked: BTreeMap::new(),
            told_epoch,
            rejects_left: REJECTS_A_MINUTE,
            queued: 0,
            ticks: 0,
            failures: 0,
        }
    }

    /// The same, taking nothing from whom `barred` names.
    #[must_use]
    pub fn barring(self, barred: watch::Receiver<Barred>) -> Self {
        Self { barred: Some(barred), ..self }
    }

    /// Works until the process stops.
    pub async fn run(mut self, mut incoming: mpsc::Receiver<Incoming>) {
        let mut tick_at = env::now();
        let mut waiting = Vec::with_capacity(GROUP_BATCHES_MAX);
        let mut stop = self.stop.clone();
        loop {
            let done = tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                () = env::until(tick_at) => {
                    tick_at = env::now().plus_ms(TICK_MS);
                    self.tick().await
                }
                count = incoming.recv_many(&mut waiting, GROUP_BATCHES_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.queued = incoming.len();
                    self.take(&mut waiting).await
                }
            };
            add(&self.counters.turns, 1);
            if let Err(Stopping) = done {
                return;
            }
        }
    }

    /// How many batches an agent may have under way: all while the queue is short, one when it is full.
    fn credit(&self) -> u32 {
        let half = QUEUE_MESSAGES_MAX / 2;
        let free = QUEUE_MESSAGES_MAX.saturating_sub(self.queued).min(half);
        let share = u64::try_from(free).unwrap_or(0).saturating_mul(u64::from(WINDOW_BATCHES_MAX));
        let credit = share / u64::try_from(half).unwrap_or(1).max(1);
        u32::try_from(credit).unwrap_or(WINDOW_BATCHES_MAX).max(1)
    }

    async fn take(&mut self, waiting: &mut Vec<Incoming>) -> Result<(), Stopping> {
        let mut group = Vec::new();
        // What holds the room of queued bytes is let go when its group is committed.
        let mut rooms = Vec::new();
        let (mut records, mut bytes) = (0_usize, 0_usize);
        let barred = self.barred.as_ref().map(|barred| Barred::clone(&barred.borrow()));
        for message in waiting.drain(..) {
            if barred.as_ref().is_some_and(|barred| barred.contains(&message.source)) {
                self.turn_away(&message);
                continue;
            }
            match message.up {
                Up::Batch(_) => {
                    let Some(arrival) = self.decode(&message).await? else { continue };
                    records = records.saturating_add(arrival.batch.records.len());
                    bytes = arrival.batch.records.iter().fold(bytes, |sum, record| sum.saturating_add(record.len()));
                    group.push(arrival);
                    rooms.push(message);
                    if records >= GROUP_RECORDS_MAX || bytes >= GROUP_BYTES_MAX {
                        self.store(&std::mem::take(&mut group)).await?;
                        rooms.clear();
                        (records, bytes) = (0, 0);
                    }
                }
                Up::Hello => self.hello(&message).await?,
                Up::Positions => self.positions(&message).await?,
                Up::State => self.presence(&message).await?,
            }
        }
        if group.is_empty() { Ok(()) } else { self.store(&group).await }
    }

    async fn decode(&mut self, message: &Incoming) -> Result<Option<Arrival>, Stopping> {
        let Up::Batch(lane) = message.up else { return Ok(None) };
        let error = match codec::read_batch(&message.payload, decompress) {
            Ok(batch) if batch.head.first.lane == lane => {
                return Ok(Some(Arrival { source: message.source.clone(), batch }));
            }
            // A batch that names another lane than its topic could evade the broker's access rules.
            Ok(_) => CodecError::Undecodable,
            Err(error) => error,
        };
        self.refuse(message, error).await?;
        Ok(None)
    }

    /// Takes nothing of a message, and says why. What the agent has stays on its box.
    fn turn_away(&self, message: &Incoming) {
        add(&self.counters.turned_away, 1);
        let asked = match message.up {
            Up::Batch(_) => codec::read_batch_first(&message.payload),
            Up::Hello => codec::read::<Hello>(&message.payload).ok().map(|hello| {
                let epoch = hello.epochs.last().map(|heads| heads.epoch).unwrap_or_default();
                (hello.session, RecordKey { epoch, lane: Lane::Trade, seq: Seq::NONE })
            }),
            Up::Positions | Up::State => None,
        };
        let Some((session, first)) = asked else { return };
        self.outlet.down(&message.source, &Down::Nack(Nack { session, first, reason: NackReason::Revoked }));
    }

    /// Answers what does not decode, and keeps it for a person.
    async fn refuse(&mut self, message: &Incoming, error: CodecError) -> Result<(), Stopping> {
        add(&self.counters.undecodable, 1);
        let head = codec::read_batch_first(&message.payload);
        if let (Up::Batch(_), Some((session, first))) = (message.up, head) {
            let reason = match error {
                CodecError::TooLarge(_) => NackReason::TooLarge,
                CodecError::Version(_) | CodecError::Undecodable | CodecError::Unencodable => NackReason::Undecodable,
            };
            add(&self.counters.nacks, 1);
            let nack = Nack { session, first, reason };
            self.outlet.down(&message.source, &Down::Nack(nack));
        }
        tracing::warn!(agent = %message.source, %error, bytes = message.payload.len(), "A message does not decode");
        if self.rejects_left == 0 {
            return Ok(());
        }
        self.rejects_left -= 1;
        let (key, why, ledger) = (head.map(|(_, first)| first.lane_key()), error.to_string(), Arc::clone(&self.ledger));
        let _kept = insist!(self, ledger.reject(&message.source, key, &why, &message.payload));
        Ok(())
    }

    /// Stores a group, then acknowledges it.
    async fn store(&mut self, group: &[Arrival]) -> Result<(), Stopping> {
        let begun = env::micros();
        let records = group.iter().flat_map(|arrival| {
            let first = arrival.batch.head.first;
            let keyed = (first.seq.0..).zip(&arrival.batch.records);
            keyed.map(move |(seq, stored)| (RecordKey { seq: Seq(seq), ..first }, stored.as_slice()))
        });
        let followed = following::begin("stored", records);
        let ledger = Arc::clone(&self.ledger);
        let Some(taken) = insist!(self, ledger.take(group)) else { return self.store_apart(group).await };
        followed.done();
        let counters = &self.counters;
        let took = env::micros().saturating_sub(begun);
        counters.committed(took);
        add(&counters.groups, 1);
        add(&counters.batches, u64::try_from(group.len()).unwrap_or(0));
        add(&counters.records, taken.stored);
        add(&counters.duplicates, taken.duplicates);
        add(&counters.forks, taken.forks);
        if taken.stored > 0 {
            self.stored.send_modify(|count| *count = count.wrapping_add(1));
        }
        self.acknowledge(group, &taken);
        Ok(())
    }

    /// The ledger did not take a group: whatever it is, it must not hold up the other lanes.
    async fn store_apart(&mut self, group: &[Arrival]) -> Result<(), Stopping> {
        for arrival in group {
            let one = std::slice::from_ref(arrival);
            let ledger = Arc::clone(&self.ledger);
            if let Some(taken) = insist!(self, ledger.take(one)) {
                self.stored.send_modify(|count| *count = count.wrapping_add(1));
                self.acknowledge(one, &taken);
            } else {
                let head = &arrival.batch.head;
                tracing::error!(agent = %arrival.source, first = %head.first.seq, "A batch cannot be stored; its lane waits");
                add(&self.counters.nacks, 1);
                let nack = Nack { session: head.session, first: head.first, reason: NackReason::Undecodable };
                self.outlet.down(&arrival.source, &Down::Nack(nack));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, group: &[Arrival], taken: &Taken) {
        let sessions: BTreeMap<&Source, Option<SessionId>> =
            taken.sessions.iter().map(|(source, session)| (source, *session)).collect();
        let mut by_agent: BTreeMap<&Source, Vec<Mark>> = BTreeMap::new();
        let now = env::now();
        for (source, mark) in &taken.marks {
            by_agent.entry(source).or_default().push(mark.clone());
            let lane = (source.clone(), mark.key);
            if self.lagging.len() < LAGGING_MAX || self.lagging.contains_key(&lane) {
                let before = self.lagging.get(&lane).filter(|before| before.stored == mark.stored);
                let since = before.map_or(now, |before| before.since);
                self.lagging.insert(lane, Lagging { repeats: REPEATS, stored: mark.stored, since });
            }
        }
        let strange: BTreeSet<&Source> = group
            .iter()
            .filter(|arrival| sessions.get(&arrival.source).copied().flatten() != Some(arrival.batch.head.session))
            .map(|arrival| &arrival.source)
            .collect();
        for index in &taken.ahead {
            let Some(arrival) = group.get(*index) else { continue };
            let head = &arrival.batch.head;
            add(&self.counters.nacks, 1);
            let nack = Nack { session: head.session, first: head.first, reason: NackReason::Ahead };
            self.outlet.down(&arrival.source, &Down::Nack(nack));
            // Its sender believes that more is stored than is.
            self.want_hello(&arrival.source);
        }
        for (source, marks) in by_agent {
            if strange.contains(source) {
                self.want_hello(source);
            }
            if let Some(session) = sessions.get(source).copied().flatten() {
                let own = |(index, arrival): &(usize, &Arrival)| {
                    arrival.source == *source && arrival.batch.head.session == session && !taken.ahead.contains(index)
                };
                let batches = group.iter().enumerate().filter(own).map(|(_, arrival)| &arrival.batch);
                self.ack(source, session, taken.hub_epoch, &marks, batches.map(content).collect());
            }
        }
    }

    fn ack(
        &self,
        source: &Source,
        session: SessionId,
        hub_epoch: SessionId,
        marks: &[Mark],
        mut taken: Vec<message::Taken>,
    ) {
        for marks in marks.chunks(MARKS_MAX) {
            let taken = std::mem::take(&mut taken);
            let ack = Ack { session, hub_epoch, marks: marks.to_vec(), taken, credit: self.credit() };
            add(&self.counters.acks, u64::from(self.outlet.down(source, &Down::Ack(ack))));
        }
    }

    fn want_hello(&mut self, source: &Source) {
        let now = env::now();
        let is_recent = |at: &Moment| now.since_ms(*at) < HELLO_WANTED_INTERVAL_MS;
        if self.asked.get(source).is_some_and(is_recent) {
            return;
        }
        let hub_epoch = self.ledger.hub_epoch();
        if self.outlet.down(source, &Down::HelloWanted { hub_epoch }) {
            self.asked.insert(source.clone(), now);
        }
    }

    async fn hello(&mut self, message: &Incoming) -> Result<(), Stopping> {
        let hello = match codec::read::<Hello>(&message.payload) {
            Ok(hello) if is_bounded(&hello) => hello,
            Ok(_) => return self.refuse(message, CodecError::TooLarge(message.payload.len())).await,
            Err(error) => return self.refuse(message, error).await,
        };
        let ledger = Arc::clone(&self.ledger);
        let Some(welcomed) = insist!(self, ledger.hello(&message.source, &hello)) else { return Ok(()) };
        add(&self.counters.hellos, 1);
        self.stored.send_modify(|count| *count = count.wrapping_add(1));
        let welcome = Welcome {
            version: WireVersion::NEWEST.min(hello.versions.newest).max(WireVersion::OLDEST),
            session: hello.session,
            round: hello.round,
            hub_epoch: welcomed.hub_epoch,
            page: hello.page,
            marks: welcomed.marks,
            window: WINDOW_SEQS_MAX,
            credit: self.credit(),
        };
        self.outlet.down(&message.source, &Down::Welcome(welcome));
        Ok(())
    }

    async fn positions(&mut self, message: &Incoming) -> Result<(), Stopping> {
        match codec::read::<Positions>(&message.payload) {
            Ok(part) if part.items.len() <= POSITIONS_ITEMS_MAX => {
                let ledger = Arc::clone(&self.ledger);
                let _applied = insist!(self, ledger.positions(&message.source, &part));
                Ok(())
            }
            Ok(_) => self.refuse(message, CodecError::TooLarge(message.payload.len())).await,
            Err(error) => self.refuse(message, error).await,
        }
    }

    async fn presence(&mut self, message: &Incoming) -> Result<(), Stopping> {
        // An empty retained message is how a topic is cleared.
        let Ok(presence) = serde_json::from_slice::<Presence>(&message.payload) else { return Ok(()) };
        let ledger = Arc::clone(&self.ledger);
        let Some(_known) = insist!(self, ledger.presence(&message.source, &presence)) else { return Ok(()) };
        // What the broker kept from before this process came. The ledger may have been put back to an earlier copy while no hub ran,
        // in which even the sessions agree; only the agents know what they sent, so each is asked once.
        if message.is_retained && presence.state == "online" {
            self.want_hello(&message.source);
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), Stopping> {
        self.ticks = self.ticks.wrapping_add(1);
        log::tell_suppressed();
        self.queued = 0;
        if self.ticks.is_multiple_of(60) {
            self.rejects_left = REJECTS_A_MINUTE;
            let now = env::now();
            self.asked.retain(|_, at| now.since_ms(*at) < HELLO_WANTED_INTERVAL_MS);
        }
        if self.ticks.is_multiple_of(BEAT_TICKS)
            && let Err(error) = self.ledger.beat().await
        {
            self.after(&error).await?;
        }
        self.tell_new_epoch().await?;
        self.repeat_marks().await;
        if self.ticks.is_multiple_of(BEAT_TICKS) {
            self.ask_again().await;
        }
        Ok(())
    }

    /// Passes on what people ordered to be sent again. What fails waits for the next look; an order that is passed on twice does no harm.
    async fn ask_again(&mut self) {
        if !self.outlet.is_connected() {
            return;
        }
        let Ok(due) = self.ledger.due_replays().await else { return };
        for DueReplay { number, source, session, key, range } in due {
            if self.outlet.down(&source, &Down::RangeRequest { session, key, range }) {
                tracing::info!(number, agent = %source, ?key, ?range, "An agent is asked for a range that a person wants again");
                if let Err(error) = self.ledger.note_asked(number).await {
                    tracing::warn!(%error, number, "That an agent was asked could not be noted; it is asked again");
                }
            }
        }
    }

    /// Says marks again that moved lately, and all of lanes with holes.
    async fn repeat_marks(&mut self) {
        if self.lagging.is_empty() || !self.outlet.is_connected() {
            return;
        }
        let (hub_epoch, now) = (self.ledger.hub_epoch(), env::now());
        let lanes: Vec<(Source, LaneKey)> = self.lagging.keys().cloned().collect();
        // Without the ledger there is nothing to say.
        let Ok(marks) = self.ledger.marks(&lanes).await else { return };
        let mut by_agent: BTreeMap<Source, (SessionId, Vec<Mark>)> = BTreeMap::new();
        let mut stuck = Vec::new();
        for (source, session, mark) in marks {
            let lane = (source.clone(), mark.key);
            let Some(lagging) = self.lagging.get_mut(&lane) else { continue };
            if lagging.stored != mark.stored {
                *lagging = Lagging { repeats: REPEATS, stored: mark.stored, since: now };
            }
            let has_holes = !mark.ranges.is_empty();
            if has_holes && now.since_ms(lagging.since) >= STUCK_MS {
                stuck.push(source.clone());
                lagging.since = now;
            }
            if lagging.repeats == 0 && !has_holes {
                self.lagging.remove(&lane);
                continue;
            }
            lagging.repeats = lagging.repeats.saturating_sub(1);
            if let Some(session) = session {
                by_agent.entry(source).or_insert((session, Vec::new())).1.push(mark);
            }
        }
        for (source, (session, marks)) in by_agent {
            self.ack(&source, session, hub_epoch, &marks, Vec::new());
        }
        for source in stuck {
            self.want_hello(&source);
        }
    }

    /// After a restore every agent is asked for a hello; it learns there what it has to send again.
    async fn tell_new_epoch(&mut self) -> Result<(), Stopping> {
        let hub_epoch = self.ledger.hub_epoch();
        if self.told_epoch == hub_epoch || !self.outlet.is_connected() {
            return Ok(());
        }
        let ledger = Arc::clone(&self.ledger);
        let Some(agents) = insist!(self, ledger.agents()) else { return Ok(()) };
        tracing::warn!(%hub_epoch, agents = agents.len(), "The ledger was restored from a backup; every agent is asked what it has");
        // Lanes that the restored ledger does not know may be an agent's whole history; their agents are heard of by presence.
        for source in &agents {
            while !self.outlet.down(source, &Down::HelloWanted { hub_epoch }) {
                if !self.outlet.is_connected() {
                    return Ok(());
                }
                self.pause(RETRY_MS_MIN).await?;
            }
        }
        self.lagging.clear();
        self.told_epoch = hub_epoch;
        Ok(())
    }

    /// What follows a failed attempt at the ledger: a pause and another attempt (`true`), or none, where that would fail again.
    async fn after(&mut self, error: &LedgerError) -> Result<bool, Stopping> {
        add(&self.counters.ledger_failures, 1);
        match error {
            LedgerError::WentBack { under } => {
                if let Err(error) = self.ledger.come_back(*under).await {
                    tracing::warn!(%error, "The ledger went back, and cannot be reached again yet");
                }
            }
            LedgerError::Unreachable { .. } | LedgerError::Busy { .. } => {
                tracing::warn!(%error, attempts = self.failures, "The ledger is waited for; nothing is acknowledged meanwhile");
            }
            LedgerError::Doubled { .. }
            | LedgerError::Refused { .. }
            | LedgerError::Shape
            | LedgerError::Newer { .. }
            | LedgerError::Cursor { .. } => {
                tracing::error!(%error, "The ledger did not take something");
                return Ok(false);
            }
        }
        let pause = RETRY_MS_MIN.saturating_mul(1 << self.failures.min(7)).min(RETRY_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.pause(pause).await?;
        Ok(true)
    }

    async fn pause(&mut self, pause_ms: u64) -> Result<(), Stopping> {
        let stopped = env::within(env::jittered(pause_ms), stopped(&mut self.stop)).await;
        if stopped.is_some() { Err(Stopping) } else { Ok(()) }
    }
}

/// A zstd frame of exactly the stated length, which is known to be within bounds.
pub(crate) fn decompress(frame: &[u8], plain_bytes: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(frame, plain_bytes).ok()
}

/// What an ack says of a batch by content.
fn content(batch: &Batch) -> message::Taken {
    let (key, range) = (batch.head.first.lane_key(), batch.head.range());
    message::Taken { key, range, content: Digest::over(&batch.digests()) }
}

fn is_bounded(hello: &Hello) -> bool {
    let lanes: usize = hello.epochs.iter().map(|heads| heads.lanes.len()).sum();
    let gone: usize = hello.epochs.iter().flat_map(|heads| &heads.lanes).map(|head| head.gone.len()).sum();
    hello.epochs.len() <= HELLO_EPOCHS_MAX && lanes <= MARKS_MAX && gone <= HELLO_GONE_MAX
}
