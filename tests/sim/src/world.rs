//! The whole system as one queue of events: whatever happens, happens here, in the order of simulated time.
//!
//! Invariant: the next event is the earliest, of those at one time the one that was planned first; nothing but the plan's seed decides
//! what is planned. Findings are kept, not thrown: the run goes on to its end, so that all of them are seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use counterfoil::answer::{Outcome, Receipt, Refused};
use counterfoil::uplink::backoff;
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
use crate::store::{BEGINNING, Died, Said, StoreBox};
use crate::till::{Heard, Tills, key_of};

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
        let hubs = usize::try_from(random.between(1, 3)).unwrap_or(1);
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
            hubs: Hubs::new(plan.seed, hubs, safe_when),
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

    fn start(&mut self, index: usize) {
        if self.boxes[index].process.is_some() {
            return;
        }
        let started = self.boxes[index].start(self.now);
        let life = self.boxes[index].life;
        self.trace.note(self.now, &format!("start {index} {life} {}", started.is_ok()));
        match started {
            Ok(()) => {
                self.after(1, Event::Connect(index, life));
                self.after(500, Event::Tick(index, life));
            }
            Err(died) => self.died(index, &died),
        }
    }

    /// systemd starts it again after a while.
    pub(crate) fn died(&mut self, index: usize, died: &Died) {
        self.trace.note(self.now, &format!("died {index}: {}", died.0));
        self.leave(index);
        let now = self.now;
        self.boxes[index].kill(now);
        self.start_later(index, 1_000, 4_000);
    }

    pub(crate) fn start_later(&mut self, index: usize, low_ms: u64, high_ms: u64) {
        let delay = self.random.between(low_ms, high_ms);
        let life = self.boxes[index].life;
        self.after(delay, Event::Start(index, life));
    }

    /// The box's connection is gone; whoever is left there does not know yet, or is gone too.
    pub(crate) fn leave(&mut self, index: usize) {
        self.broker.clients.retain(|_, (_, holder)| *holder != index);
    }

    pub(crate) fn serve(&mut self, index: usize) {
        let now = self.moment();
        self.boxes[index].set_time(self.now);
        let Some(process) = &mut self.boxes[index].process else { return };
        let (answers, served) = process.serve();
        if served.is_ok() {
            process.news(now);
        }
        for (document, answer) in answers {
            self.answered(index, document, answer);
        }
        if let Err(died) = served {
            return self.died(index, &died);
        }
        self.check_given_back(index);
        self.pump(index);
    }

    fn tick(&mut self, index: usize) {
        let life = self.boxes[index].life;
        if let Some(process) = &mut self.boxes[index].process {
            process.waiting.push(counterfoil::agent::Request::Tick);
        }
        self.serve(index);
        self.after(1_000, Event::Tick(index, life));
    }

    fn pump(&mut self, index: usize) {
        let now = self.moment();
        self.boxes[index].set_time(self.now);
        let Some(process) = &mut self.boxes[index].process else { return };
        let connection = process.connection();
        match process.pump(now) {
            Ok(said) => {
                if said.line_ended {
                    self.line_ended(index);
                }
                self.publish(index, said);
            }
            Err(died) => return self.died(index, &died),
        }
        if connection.is_some() && self.boxes[index].process.as_ref().is_some_and(|process| !process.waiting.is_empty())
        {
            let life = self.boxes[index].life;
            self.after(1, Event::Serve(index, life));
        }
    }

    fn publish(&mut self, index: usize, said: Said) {
        let (source, life) = (self.boxes[index].source.clone(), self.boxes[index].life);
        let planned = self.boxes[index].wake_at.filter(|planned| *planned > self.now);
        if let Some(at) = said.wake_at
            && planned.is_none_or(|planned| at < planned)
        {
            self.boxes[index].wake_at = Some(at);
            self.at(at, Event::Wake(index, life));
        }
        for (up, payload) in said.messages {
            let message = Message { source: source.clone(), up, payload };
            self.trace.note(self.now, &format!("up {index} {up:?} {}", message.payload.len()));
            if !self.boxes[index].is_cut_off {
                self.send_up(&message);
            }
        }
    }

    // The broker.

    fn connect(&mut self, index: usize) {
        let life = self.boxes[index].life;
        let Some(process) = &self.boxes[index].process else { return };
        if process.connection().is_some() {
            return;
        }
        if self.boxes[index].is_cut_off {
            return self.connect_later(index);
        }
        let source = self.boxes[index].source.clone();
        self.broker.connections += 1;
        let connection = self.broker.connections;
        if let Some((_, other)) = self.broker.clients.insert(source, (connection, index)) {
            // The same client id: the broker drops the older connection.
            self.line_ended_but_for(other, index);
        }
        self.boxes[index].set_time(self.now);
        let now = self.moment();
        let process = self.boxes[index].process.as_mut();
        if let Some(said) = process.and_then(|process| process.connected(connection, now)) {
            self.publish(index, said);
        }
        self.after(1, Event::Serve(index, life));
    }

    fn line_ended_but_for(&mut self, other: usize, index: usize) {
        if other != index {
            self.line_ended(other);
        }
    }

    /// The agent's connection broke; it comes back by itself.
    pub(crate) fn line_ended(&mut self, index: usize) {
        let connection = self.boxes[index].process.as_ref().and_then(crate::store::Process::connection);
        self.broker.clients.retain(|_, (held, holder)| *holder != index || Some(*held) != connection);
        if let Some(process) = &mut self.boxes[index].process {
            process.disconnected();
            self.connect_later(index);
        }
    }

    fn connect_later(&mut self, index: usize) {
        let draw = self.random.next();
        let life = self.boxes[index].life;
        let Some(process) = &mut self.boxes[index].process else { return };
        process.silent_sessions = process.silent_sessions.max(1);
        let wait_ms = backoff::wait_ms(process.silent_sessions, 60_000, draw);
        self.after(wait_ms, Event::Connect(index, life));
    }

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

    fn till(&mut self, till: usize) {
        let (home, pace_ms) = (self.tills.all[till].home, self.tills.all[till].pace_ms);
        let pending = self.tills.all[till].pending;
        if pending.is_none() && self.is_healed {
            return;
        }
        let document = pending.unwrap_or_else(|| self.choose(till, home));
        self.tills.all[till].pending = Some(document);
        let wait_ms = if pending.is_some() { 2_000 } else { pace_ms };
        let next = self.random.around(wait_ms);
        self.after(next, Event::Till(till));
        let context = self.boxes[home].config.context();
        let life = self.boxes[home].life;
        let copies = if self.has(Fault::Doubles) && self.random.chance(100) { 2 } else { 1 };
        let Some(process) = &mut self.boxes[home].process else { return };
        for _ in 0..copies {
            process.submit(document, self.tills.prepared(document, &context));
        }
        let delay = self.random.between(1, 25);
        self.after(delay, Event::Serve(home, life));
    }

    fn choose(&mut self, till: usize, home: usize) -> usize {
        let (source, context) = (self.boxes[home].source.clone(), self.boxes[home].config.context());
        let answered = self.tills.all[till].answered.len();
        if answered > 0 && self.has(Fault::Doubles) && self.random.chance(150) {
            let index = self.random.index(answered);
            return self.tills.all[till].answered[index];
        }
        if answered > 0 && self.has(Fault::Conflicts) && self.random.chance(80) {
            return self.tills.contradict(till, &source, &context, &mut self.random);
        }
        self.tills.make(till, &source, &context, &mut self.random)
    }

    fn answered(&mut self, index: usize, document: usize, answer: Option<Result<Outcome, Refused>>) {
        let outcome = match answer {
            Some(Ok(outcome)) => outcome,
            Some(Err(refused)) => {
                return self.trace.note(self.now, &format!("refused {index} {document} {refused}"));
            }
            None => return,
        };
        self.trace.note(self.now, &format!("answer {index} {document} {outcome:?}"));
        if self.has(Fault::LostReply) && self.random.chance(200) {
            return;
        }
        for till in &mut self.tills.all {
            if till.pending == Some(document) {
                till.pending = None;
                till.answered.push(document);
            }
        }
        match outcome {
            Outcome::Recorded(receipt) | Outcome::Duplicate(receipt) => self.receipt(index, document, &receipt),
            Outcome::Conflict(conflict) => {
                if conflict.existing.digest == self.tills.documents[document].digest.to_string() {
                    self.find(format!("box {index}: called document {document} a conflict with itself"));
                }
                self.receipt(index, document, &conflict.kept);
            }
        }
    }

    fn receipt(&mut self, index: usize, document: usize, receipt: &Receipt) {
        let (key, source) = (key_of(receipt), self.boxes[index].source.clone());
        let digest = self.tills.documents[document].digest;
        if receipt.digest != digest.to_string() {
            self.find(format!("box {index}: document {document} was answered with the receipt of another"));
        }
        let is_twin = self.boxes.iter().filter(|other| other.source == source).count() > 1;
        match self.tills.keys.insert((source, key), document) {
            Some(other) if other != document && !is_twin => {
                self.find(format!("box {index}: documents {other} and {document} have one number, {key:?}"));
            }
            Some(_) | None => {}
        }
        let past = self.boxes[index].past;
        let is_there = self.boxes[index].process.as_ref().is_some_and(|process| {
            let lanes = process.reader.lanes();
            let lane = |heard: &Heard| {
                let view = lanes.iter().find(|view| view.epoch == heard.key.epoch)?;
                view.lanes.iter().find(|lane| lane.lane == heard.key.lane)
            };
            let retained = |heard: &&Heard| lane(heard).is_some_and(|lane| lane.first <= heard.key.seq);
            let heard = self.tills.documents[document].heard.iter();
            heard.filter(|heard| heard.store == index).filter(retained).any(|heard| heard.key != key)
        });
        // Where what it contradicts was given back, a document that was kept beside it is the first one of its identity.
        let identity = (self.tills.documents[document].source.clone(), self.tills.documents[document].identity.clone());
        let is_alone = self.tills.identities.get(&identity).is_some_and(|documents| documents.len() == 1);
        if is_there && is_alone && past.damages == 0 && !past.is_odd && past.excused_until == 0 {
            self.find(format!("box {index}: document {document} was recorded twice"));
        }
        let heard = Heard { store: index, life: self.boxes[index].life, at: self.now, key };
        self.tills.documents[document].heard.push(heard);
    }
}
