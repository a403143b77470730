//! The whole system as one queue of events: whatever happens, happens here, in the order of simulated time.
//!
//! Invariant: the next event is the earliest, of those at one time the one that was planned first; nothing but the plan's seed decides
//! what is planned. Findings are kept, not thrown: the run goes on to its end, so that all of them are seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use counterfoil_hub::ledger::SafeWhen;
use counterfoil_hub::mqtt::Incoming;
use counterfoil_proto::codec;
use counterfoil_proto::id::{Seq, Source};
use counterfoil_proto::message::{Down, Mark};
use counterfoil_proto::time::{Moment, WallTime};
use counterfoil_proto::topic::Up;

use crate::chaos::{Rates, Remedy};
use crate::hub::Hubs;
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::store::{BEGINNING, StoreBox};
use crate::till::Tills;

mod boxes;
mod tills;

/// Findings that are kept; more of one run say nothing new.
const FINDINGS_MAX: usize = 20;
/// Old messages that may be played again.
const CAPTURED_MAX: usize = 64;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A till does something.
    Till(usize),
    /// A box's process serves what waits.
    Serve(usize, u32),
    /// Time went by for a box's process.
    Tick(usize, u32),
    /// A box's sender wants to be asked.
    Wake(usize, u32),
    /// A box tries to connect.
    Connect(usize, u32),
    /// A box's process starts.
    Start(usize, u32),
    /// A message arrives at the hubs.
    Up(u32, Message),
    /// A message arrives at the box that holds the connection.
    Down(u32, u64, Vec<u8>),
    /// The hubs' futures are polled.
    Poll,
    /// A hub process starts.
    StartHub(usize),
    /// A backup is taken.
    Backup,
    /// Somebody downstream reads.
    Read,
    /// A fault comes.
    Chaos,
    /// A fault ends.
    Remedy(Remedy),
}

/// What an agent published.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) source: Source,
    pub(crate) up: Up,
    pub(crate) payload: Vec<u8>,
}

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    /// Counts its restarts; what was under way before is gone.
    pub(crate) life: u32,
    connections: u64,
    /// Who holds the client id.
    clients: BTreeMap<Source, (u64, usize)>,
    retained: BTreeMap<Source, Vec<u8>>,
    captured: VecDeque<Message>,
}

/// The run's footprint: the same for the same seed, on every machine.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    is_printed: bool,
}

impl Trace {
    pub(crate) fn note(&mut self, now: u64, what: &dyn std::fmt::Display) {
        let text = format!("{now:>8} {what}");
        self.hasher.update(text.as_bytes());
        self.hasher.update(b"\n");
        if self.is_printed {
            crate::say(&text);
        }
    }

    pub(crate) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().as_str()[..16].to_owned()
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rates: Rates,
    pub(crate) random: Random,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    planned: u64,
    pub(crate) boxes: Vec<StoreBox>,
    pub(crate) tills: Tills,
    pub(crate) hubs: Hubs,
    pub(crate) broker: Broker,
    pub(crate) is_healed: bool,
    poll_at: Option<u64>,
    pub(crate) trace: Trace,
    pub(crate) findings: Vec<String>,
    known: BTreeSet<String>,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed, "world");
        let rates = Rates::drawn(plan.seed);
        let limits = rates.limits;
        let boxes = (0..random.between(2, 3)).map(|index| {
            let (store, agent) = (format!("S{}", 1 + index / 2), format!("box{index}"));
            StoreBox::new(Random::new(plan.seed, &agent).next(), &store, &agent, limits)
        });
        let boxes: Vec<StoreBox> = boxes.collect();
        let (is_crowd, drawn) = (plan.faults.has(Fault::Crowd), random.between(1, 3));
        let hubs = if is_crowd { 3 } else { usize::try_from(drawn).unwrap_or(1) };
        let safe_when = if plan.faults.has(Fault::HubRestore) || random.chance(500) {
            SafeWhen::Confirmed
        } else {
            SafeWhen::Stored
        };
        let mut world = Self {
            plan,
            rates,
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            boxes,
            tills: Tills::default(),
            hubs: Hubs::new(plan.seed, hubs, is_crowd, safe_when),
            broker: Broker::default(),
            is_healed: false,
            poll_at: None,
            trace: Trace { hasher: blake3::Hasher::new(), is_printed: plan.trace },
            findings: Vec::new(),
            known: BTreeSet::new(),
            events: 0,
            random,
        };
        for index in 0..world.boxes.len() {
            world.at(0, Event::Start(index, 0));
            for _ in 0..world.random.between(1, 2) {
                world.open_till(index);
            }
        }
        world.at(10_000, Event::Backup);
        world.at(3_000, Event::Read);
        world.at(5_000, Event::Chaos);
        world.wake_hubs(0);
        world
    }

    pub(crate) fn open_till(&mut self, home: usize) {
        let pace_ms = self.random.between(1_500, 6_000);
        let till = self.tills.open(format!("T{}", self.tills.all.len()), home, pace_ms);
        let at = self.random.around(pace_ms);
        self.after(at, Event::Till(till));
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.queue.insert((at.max(self.now), self.planned), event);
    }

    pub(crate) fn after(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now + delay_ms, event);
    }

    pub(crate) fn find(&mut self, finding: String) {
        let is_new = self.findings.len() < FINDINGS_MAX && self.known.insert(finding.clone());
        if is_new {
            self.trace.note(self.now, &format!("FINDING {finding}"));
            self.findings.push(finding);
        }
    }

    pub(crate) const fn moment(&self) -> Moment {
        Moment(self.now)
    }

    /// Does what is next; `false` where that lies behind `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        let Some((&(at, planned), _)) = self.queue.first_key_value() else { return false };
        if at > until {
            self.now = until;
            return false;
        }
        let Some(event) = self.queue.remove(&(at, planned)) else { return false };
        self.now = at;
        self.events += 1;
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Till(till) => self.till(till),
            Event::Serve(index, life) if self.lives(index, life) => self.serve(index),
            Event::Tick(index, life) if self.lives(index, life) => self.tick(index),
            Event::Wake(index, life) if self.lives(index, life) && self.boxes[index].wake_at == Some(self.now) => {
                self.boxes[index].wake_at = None;
                self.pump(index);
            }
            Event::Connect(index, life) if self.lives(index, life) => self.connect(index),
            Event::Start(index, life) if self.boxes[index].life == life => self.start(index),
            Event::Up(life, message) => {
                if life == self.broker.life {
                    self.arrive(message);
                }
            }
            Event::Down(life, connection, bytes) => {
                if life == self.broker.life {
                    self.hear(connection, &bytes);
                }
            }
            // Of those that were planned, the earliest counts; it plans the next.
            Event::Poll if self.poll_at == Some(self.now) => self.poll_hubs(),
            Event::Serve(..)
            | Event::Tick(..)
            | Event::Wake(..)
            | Event::Connect(..)
            | Event::Start(..)
            | Event::Poll => {}
            Event::StartHub(index) => self.start_hub(index),
            Event::Backup => {
                let done = self.hubs.back_up();
                self.wake_hubs(0);
                self.after(if done { 15_000 } else { 50 }, Event::Backup);
            }
            Event::Read => {
                self.hubs.read();
                self.wake_hubs(0);
                self.after(2_500, Event::Read);
            }
            Event::Chaos => self.chaos(),
            Event::Remedy(remedy) => self.remedy(remedy),
        }
    }

    fn lives(&self, index: usize, life: u32) -> bool {
        self.boxes[index].life == life && self.boxes[index].process.is_some()
    }

    // The boxes.

    pub(crate) fn holders(&self) -> Vec<usize> {
        self.broker.clients.values().map(|(_, index)| *index).collect()
    }

    fn delay(&mut self) -> Option<u64> {
        if self.has(Fault::Loss) && self.random.chance(self.rates.loss) {
            return None;
        }
        let late = self.has(Fault::Reorder) && self.random.chance(self.rates.reorder);
        Some(if late { self.random.between(20, 8_000) } else { self.random.between(1, 15) })
    }

    /// Whether a fault is at work now.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        !self.is_healed && self.plan.faults.has(fault)
    }

    pub(crate) fn send_up(&mut self, message: &Message) {
        let copies = if self.has(Fault::Double) && self.random.chance(self.rates.double) { 2 } else { 1 };
        for _ in 0..copies {
            if let Some(delay) = self.delay() {
                let life = self.broker.life;
                self.after(delay, Event::Up(life, message.clone()));
            }
        }
    }

    fn arrive(&mut self, message: Message) {
        let Message { source, up, payload } = message.clone();
        if up == Up::State {
            self.broker.retained.insert(source.clone(), payload.clone());
            for index in 0..self.hubs.count() {
                let (source, payload) = (source.clone(), Bytes::from(payload.clone()));
                self.hubs.deliver_to(index, Incoming { source, up, payload, is_retained: false, room: None });
            }
        } else {
            self.hubs.deliver(Incoming { source, up, payload: Bytes::from(payload), is_retained: false, room: None });
        }
        if self.broker.captured.len() >= CAPTURED_MAX {
            self.broker.captured.pop_front();
        }
        self.broker.captured.push_back(message);
        self.wake_hubs(0);
    }

    /// A message of those that went by, to be played again.
    pub(crate) fn captured(&mut self) -> Option<Message> {
        if self.broker.captured.is_empty() {
            return None;
        }
        let index = self.random.index(self.broker.captured.len());
        self.broker.captured.get(index).cloned()
    }

    /// The broker starts anew, and knows nothing.
    pub(crate) fn wipe_broker(&mut self) {
        self.broker.life += 1;
        self.broker.retained.clear();
        for index in self.holders() {
            self.line_ended(index);
        }
        self.broker.clients.clear();
    }

    fn hear(&mut self, connection: u64, bytes: &[u8]) {
        let holder = self.broker.clients.values().find(|(held, _)| *held == connection).map(|(_, index)| *index);
        let Some(index) = holder.filter(|index| !self.boxes[*index].is_cut_off) else { return };
        self.boxes[index].set_time(self.now);
        let now = self.moment();
        if let Some(process) = &mut self.boxes[index].process {
            process.heard(bytes, now);
        }
        self.pump(index);
    }

    // The hubs.

    pub(crate) fn wake_hubs(&mut self, delay_ms: u64) {
        let at = self.now + delay_ms;
        if self.poll_at.is_none_or(|planned| planned > at || planned < self.now) {
            self.poll_at = Some(at);
            self.at(at, Event::Poll);
        }
    }

    fn poll_hubs(&mut self) {
        self.poll_at = None;
        let wall = WallTime(BEGINNING + i64::try_from(self.now).unwrap_or(0));
        let (said, next) = self.hubs.poll(self.moment(), wall);
        for (source, down) in said {
            self.check_said(&source, &down);
            self.trace.note(self.now, &format!("down {source} {down:?}"));
            let Some((connection, _)) = self.broker.clients.get(&source).copied() else { continue };
            let bytes = codec::encode(&down).expect("what a hub says fits");
            let life = self.broker.life;
            if let Some(delay) = self.delay() {
                self.after(delay, Event::Down(life, connection, bytes));
            }
        }
        let found = std::mem::take(&mut self.hubs.books.get().findings);
        for finding in found {
            self.find(finding);
        }
        if let Some(next) = next {
            self.wake_hubs(next.saturating_sub(self.now).max(1));
        }
    }

    pub(crate) fn start_hub(&mut self, index: usize) {
        if self.hubs.is_up(index) {
            return;
        }
        self.trace.note(self.now, &format!("hub {index} starts"));
        self.hubs.start(index);
        for (source, payload) in &self.broker.retained {
            let (source, payload) = (source.clone(), Bytes::from(payload.clone()));
            self.hubs.deliver_to(index, Incoming { source, up: Up::State, payload, is_retained: true, room: None });
        }
        self.wake_hubs(0);
    }

    fn check_said(&mut self, source: &Source, down: &Down) {
        let marks: &[Mark] = match down {
            Down::Welcome(welcome) => &welcome.marks,
            Down::Ack(ack) => &ack.marks,
            Down::Nack(_) | Down::RangeRequest { .. } | Down::HelloWanted { .. } => &[],
        };
        let mut wrong = Vec::new();
        let safe_only_in_backup = self.hubs.safe_when == SafeWhen::Confirmed;
        for mark in marks {
            if !self.hubs.books.get().covers(source, mark.key, mark.stored) {
                wrong.push(format!("hub: told {source} that {:?} is stored up to {}", mark.key, mark.stored));
            }
            let is_safe = !safe_only_in_backup
                || mark.safe == Seq::NONE
                || self.hubs.backup.as_mut().is_some_and(|backup| backup.books.covers(source, mark.key, mark.safe));
            if !is_safe {
                wrong.push(format!("hub: told {source} that {:?} is safe up to {}", mark.key, mark.safe));
            }
        }
        for finding in wrong {
            self.find(finding);
        }
    }

    fn check_given_back(&mut self, index: usize) {
        let source = self.boxes[index].source.clone();
        let Some(process) = &mut self.boxes[index].process else { return };
        let given = process.given_back();
        if given.is_empty() {
            return;
        }
        let gone: Vec<_> =
            process.reader.lanes().into_iter().flat_map(|view| view.lanes).flat_map(|lane| lane.gone).collect();
        let mut wrong = Vec::new();
        for (key, first, last) in given {
            self.trace.note(self.now, &format!("given back {index} {key:?} {first} {last}"));
            let mut seq = first;
            while seq <= last {
                let in_ledger = match (&self.hubs.backup, self.hubs.safe_when) {
                    (Some(backup), SafeWhen::Confirmed) => backup.books.holds(&source, key, seq),
                    (None, SafeWhen::Confirmed) => false,
                    (_, SafeWhen::Stored) => self.hubs.books.get().holds(&source, key, seq),
                };
                if !in_ledger && !gone.iter().any(|gone| gone.key == key && gone.range.contains(seq)) {
                    wrong.push(format!("box {index}: gave {key:?} {seq} back, which is not safe"));
                    break;
                }
                seq = seq.next();
            }
        }
        for finding in wrong {
            self.find(finding);
        }
    }

    // The tills.
}
