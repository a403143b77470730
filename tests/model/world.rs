//! The whole: boxes, the network, the hub, and what may happen next.
//!
//! Invariant: the network may do everything (what was sent once may arrive at any later time, any number of times, or never), time passes
//! by whole ticks that are longer than each timer, and each fault has a budget, so that there are finitely many states.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::codec;
use counterfoil_proto::id::{Digest, RecordKey};
use counterfoil_proto::message::{Down, Hello};

use crate::agent::{AgentBox, Image, Up};
use crate::canon::Clock;
use crate::hub::{Flag, Hub};

/// Longer than the hello interval, the longest wait before sending again, and the life of credit.
const TICK_MS: u64 = 700_000;

/// Rounds in which a network without faults drains everything: hellos, windows and backoffs of a few records.
const DRAIN_ROUNDS: usize = 24;

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Records that tills hand in.
    pub(crate) sales: u8,
    /// Ticks of the clock.
    pub(crate) ticks: u8,
    /// New connections of a running process.
    pub(crate) reconnects: u8,
    /// Starts of a process on its own disk.
    pub(crate) restarts: u8,
    /// Boxes that are started on a copy of another's disk, beside it.
    pub(crate) clones: u8,
    /// Boxes that are copied with their memory, and go on beside the other.
    pub(crate) twins: u8,
    /// Boxes that are set back to a copy of their disk made before the last sale.
    pub(crate) images: u8,
    /// Backups of the hub.
    pub(crate) backups: u8,
    /// Hubs set back to the newest backup.
    pub(crate) restores: u8,
    /// Rounds of giving back what is safe.
    pub(crate) reclaims: u8,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Sale(usize),
    Up(Up),
    Down(Vec<u8>, usize),
    Tick,
    Reconnect(usize),
    Restart(usize),
    Clone,
    Twin,
    Image,
    BackUp,
    Restore,
    Reclaim(usize),
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) boxes: Vec<AgentBox>,
    /// The first box's disk before its last sale.
    earlier: Image,
    pub(crate) hub: Hub,
    up: BTreeSet<Up>,
    down: BTreeSet<Vec<u8>>,
    /// What tills were told is safe, but for what vanished with a disk before the hub heard of it.
    pub(crate) told: BTreeMap<RecordKey, BTreeSet<Digest>>,
    pub(crate) left: Budget,
    /// Names that sessions, epochs and records were given.
    names: u8,
    now: Clock,
}

impl World {
    pub(crate) fn new(left: Budget) -> Self {
        let mut up = BTreeSet::new();
        let first = AgentBox::start(Image::default(), 1, 0, &mut up);
        Self {
            boxes: vec![first],
            earlier: Image::default(),
            hub: Hub::new(),
            up,
            down: BTreeSet::new(),
            told: BTreeMap::new(),
            left,
            names: 1,
            now: Clock(0),
        }
    }

    /// The same with one sale made and stored, which is not counted.
    pub(crate) fn after_a_sale(mut self) -> Self {
        self.sell(0);
        self.when_faults_stop()
    }

    /// The same with a new process.
    pub(crate) fn after_a_restart(mut self) -> Self {
        self.start(0, self.boxes[0].image.clone());
        self.when_faults_stop()
    }

    fn name(&mut self) -> u8 {
        self.names += 1;
        self.names
    }

    /// Everything that may happen now.
    pub(crate) fn events(&self, events: &mut Vec<Event>) {
        let boxes = 0..self.boxes.len();
        let left = &self.left;
        events.extend(boxes.clone().filter(|_| left.sales > 0).map(Event::Sale));
        events.extend(self.up.iter().cloned().map(Event::Up));
        events.extend(self.down.iter().flat_map(|down| boxes.clone().map(|to| Event::Down(down.clone(), to))));
        events.extend(boxes.clone().filter(|_| left.reconnects > 0).map(Event::Reconnect));
        events.extend(boxes.clone().filter(|_| left.restarts > 0).map(Event::Restart));
        events.extend(boxes.filter(|_| left.reclaims > 0).map(Event::Reclaim));
        let budgets = [
            (left.ticks, Event::Tick),
            (left.clones, Event::Clone),
            (left.twins, Event::Twin),
            (left.images, Event::Image),
            (left.backups, Event::BackUp),
            (left.restores, Event::Restore),
        ];
        events.extend(budgets.into_iter().filter(|(left, _)| *left > 0).map(|(_, event)| event));
    }

    /// The state after an event; `None` where it changes nothing.
    pub(crate) fn after(&self, event: Event) -> Option<Self> {
        let mut next = self.clone();
        let now = next.now.0;
        match event {
            Event::Sale(at) => {
                next.left.sales -= 1;
                next.sell(at);
            }
            Event::Up(up) => next.receive(&up),
            Event::Down(bytes, to) => next.boxes[to].hear(codec::decode(&bytes).unwrap(), now, &mut next.up),
            Event::Tick => {
                next.left.ticks -= 1;
                next.tick();
            }
            Event::Reconnect(at) => {
                next.left.reconnects -= 1;
                let name = next.name();
                next.boxes[at].reconnect(name, now, &mut next.up);
            }
            Event::Restart(at) => {
                next.left.restarts -= 1;
                next.start(at, next.boxes[at].image.clone());
            }
            Event::Clone => {
                next.left.clones -= 1;
                let name = next.name();
                let copy = AgentBox::start(next.boxes[0].image.clone(), name, now, &mut next.up);
                next.boxes.push(copy);
            }
            Event::Twin => {
                next.left.twins -= 1;
                let name = next.name();
                let mut twin = next.boxes[0].clone();
                twin.reconnect(name, now, &mut next.up);
                next.boxes.push(twin);
            }
            Event::Image => {
                next.left.images -= 1;
                let earlier = next.earlier.clone();
                next.start(0, earlier);
                next.forget_what_vanished();
            }
            Event::BackUp => {
                next.left.backups -= 1;
                next.hub.back_up();
            }
            Event::Restore => {
                next.left.restores -= 1;
                if !next.hub.restore() {
                    return None;
                }
            }
            Event::Reclaim(at) => {
                next.left.reclaims -= 1;
                if !next.boxes[at].reclaim(now, &mut next.up) {
                    return None;
                }
            }
        }
        (next != *self).then_some(next)
    }

    fn sell(&mut self, at: usize) {
        let name = self.name();
        if at == 0 {
            self.earlier = self.boxes[0].image.clone();
        }
        let digest = Digest::of(&[name]);
        let key = self.boxes[at].accept(digest, name, self.now.0, &mut self.up);
        self.told.entry(key).or_default().insert(digest);
    }

    fn start(&mut self, at: usize, image: Image) {
        let name = self.name();
        self.boxes[at] = AgentBox::start(image, name, self.now.0, &mut self.up);
    }

    /// What stood only on the disk that was set back, and never reached the hub, is lost with that disk: nobody can know of it.
    fn forget_what_vanished(&mut self) {
        let held = self.held();
        self.told.retain(|key, digests| {
            digests.retain(|digest| held.contains(&(*key, *digest)));
            !digests.is_empty()
        });
    }

    /// Records that a box or the hub has.
    pub(crate) fn held(&self) -> BTreeSet<(RecordKey, Digest)> {
        let boxes = self.boxes.iter().flat_map(|one| one.image.records());
        let stored = self.hub.ledger.records.iter();
        boxes.chain(stored.flat_map(|(key, digests)| digests.iter().map(|digest| (*key, *digest)))).collect()
    }

    fn receive(&mut self, up: &Up) {
        let answers = match up {
            Up::Hello(bytes) => vec![self.hub.hello(&codec::decode::<Hello>(bytes).unwrap())],
            Up::Batch(batch) => self.hub.batch(batch),
        };
        self.down.extend(answers.iter().map(|down: &Down| codec::encode(down).unwrap()));
    }

    fn tick(&mut self) {
        self.now.0 += TICK_MS;
        for one in &mut self.boxes {
            one.time_passes(self.now.0, &mut self.up);
        }
    }

    /// Whether a person is told of a record that is not in the ledger.
    pub(crate) fn is_flagged(&self, key: RecordKey) -> bool {
        self.hub.ledger.flags.iter().any(|flag| match flag {
            Flag::Gone(lane, range) => *lane == key.lane_key() && range.contains(key.seq),
            Flag::Fork(_) | Flag::ChainMismatch(_) | Flag::AgentBehind(_) | Flag::Clone | Flag::Rollback => false,
        })
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.told.iter().all(|(key, digests)| {
            let stored = self.hub.ledger.records.get(key);
            let is_stored = |digest| stored.is_some_and(|stored| stored.contains(digest));
            digests.iter().all(is_stored) || self.is_flagged(*key)
        })
    }

    /// What becomes of this state when faults stop: everything under way is lost, then everything arrives in order, once.
    pub(crate) fn when_faults_stop(&self) -> Self {
        let mut world = self.clone();
        world.up.clear();
        world.down.clear();
        for _ in 0..DRAIN_ROUNDS {
            if world.is_drained() {
                break;
            }
            world.tick();
            while !world.up.is_empty() || !world.down.is_empty() {
                for up in std::mem::take(&mut world.up) {
                    world.receive(&up);
                }
                for down in std::mem::take(&mut world.down) {
                    for one in &mut world.boxes {
                        one.hear(codec::decode(&down).unwrap(), world.now.0, &mut world.up);
                    }
                }
            }
        }
        world
    }
}
