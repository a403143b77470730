//! What goes wrong, and how it ends.
//!
//! Invariant: a fault that is not in the plan never happens, none happens after [`World::heal`], and what a fault allows to be
//! missing is written into the past of the box that it struck.

use counterfoil::journal::JournalConfig;
use counterfoil::journal::disk::memory::{Call, Cut, Failure};

use crate::disk::SimDisk;
use crate::plan::Fault;
use crate::random::Random;
use crate::world::{Event, World};

/// How much of what, drawn per run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) loss: u64,
    pub(crate) double: u64,
    pub(crate) reorder: u64,
    /// Between two faults.
    pace_ms: u64,
    pub(crate) limits: JournalConfig,
}

impl Rates {
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut random = Random::new(seed, "rates");
        let limits = JournalConfig {
            segment_bytes: 4096 << random.below(4),
            bytes_max: 4 * 1024 * 1024,
            free_bytes_min: 16 * 1024,
            retain_ms: [0, 10_000, 60_000, 3_600_000][random.index(4)],
            checkpoint_bytes_max: 16 * 1024,
            ..JournalConfig::default()
        };
        Self {
            loss: [5, 50, 200, 400][random.index(4)],
            double: [10, 100, 500][random.index(3)],
            reorder: [20, 200, 600][random.index(3)],
            pace_ms: [1_500, 4_000, 10_000][random.index(3)],
            limits,
        }
    }
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Remedy {
    /// A store is reachable again.
    Join(usize),
    /// A disk has room again.
    Room(usize),
    /// A disk is honest again.
    Honest(usize),
    /// A clock is right again.
    Clock(usize),
}

/// Faults that strike at a time; the others are with the run as long as it lasts.
const STRIKES: [Fault; 21] = [
    Fault::Replay,
    Fault::Partition,
    Fault::BrokerWipe,
    Fault::Kill,
    Fault::PowerCut,
    Fault::FailedSync,
    Fault::FailedWrite,
    Fault::LyingSync,
    Fault::LostWrite,
    Fault::FullDisk,
    Fault::Rot,
    Fault::LostFile,
    Fault::StateLost,
    Fault::Restore,
    Fault::Clone,
    Fault::Twin,
    Fault::Reimage,
    Fault::HubKill,
    Fault::HubRestore,
    Fault::Clock1970,
    Fault::ClockJump,
];

impl World {
    pub(crate) fn chaos(&mut self) {
        if self.is_healed {
            return;
        }
        let next = self.random.around(self.rates.pace_ms);
        self.after(next, Event::Chaos);
        let possible: Vec<Fault> = STRIKES.into_iter().filter(|fault| self.has(*fault)).collect();
        if possible.is_empty() {
            return;
        }
        let fault = possible[self.random.index(possible.len())];
        let index = self.random.index(self.boxes.len());
        self.trace.note(self.now, &format!("fault {fault:?} {index}"));
        self.strike(fault, index);
    }

    fn strike(&mut self, fault: Fault, index: usize) {
        match fault {
            Fault::Replay => {
                for _ in 0..self.random.between(1, 10) {
                    if let Some(message) = self.captured() {
                        let (delay, life) = (self.random.between(1, 3_000), self.broker.life);
                        self.after(delay, Event::Up(life, message));
                    }
                }
            }
            Fault::Partition => {
                self.boxes[index].is_cut_off = true;
                if self.random.chance(700) {
                    self.line_ended(index);
                }
                let long = self.random.between(1_000, 45_000);
                self.after(long, Event::Remedy(Remedy::Join(index)));
            }
            Fault::BrokerWipe => self.wipe_broker(),
            Fault::Kill => self.kill(index),
            Fault::PowerCut => self.cut(index),
            Fault::FailedSync | Fault::FailedWrite => self.fail_disk(fault, index),
            Fault::LyingSync => {
                self.boxes[index].disk.controller().is_lying = true;
                self.boxes[index].past.is_odd = true;
                let long = self.random.between(500, 20_000);
                self.after(long, Event::Remedy(Remedy::Honest(index)));
            }
            Fault::LostWrite => {
                self.boxes[index].disk.controller().writes_to_lose += 1;
                self.boxes[index].past.damages += 1;
                self.boxes[index].past.is_odd = true;
                self.boxes[index].past.was_cut = true;
            }
            Fault::FullDisk => {
                let disk = &self.boxes[index].disk.medium;
                disk.set_capacity(Some(disk.used_bytes() + self.random.below(40_000)));
                let long = self.random.between(1_000, 30_000);
                self.after(long, Event::Remedy(Remedy::Room(index)));
            }
            Fault::Rot | Fault::LostFile => self.damage(fault, index),
            Fault::StateLost => {
                self.kill(index);
                self.boxes[index].shelf.clear();
            }
            Fault::Restore | Fault::Reimage => self.set_back(fault, index),
            Fault::Clone | Fault::Twin => self.copy(fault, index),
            Fault::HubKill => {
                let hub = self.random.index(self.hubs.count());
                self.hubs.kill(hub);
                let delay = self.random.between(100, 8_000);
                self.after(delay, Event::StartHub(hub));
                self.wake_hubs(0);
            }
            Fault::HubRestore => {
                let done = self.hubs.restore();
                self.trace.note(self.now, &format!("restored {done}"));
                self.wake_hubs(0);
            }
            Fault::Clock1970 => self.lose_clock(index),
            Fault::ClockJump => self.move_clock(index),
            Fault::Loss
            | Fault::Double
            | Fault::Reorder
            | Fault::LostReply
            | Fault::Doubles
            | Fault::Conflicts
            | Fault::Crowd => {}
        }
    }

    fn lose_clock(&mut self, index: usize) {
        self.boxes[index].wall_skew = -crate::store::BEGINNING;
        let long = self.random.between(1_000, 60_000);
        self.after(long, Event::Remedy(Remedy::Clock(index)));
    }

    fn move_clock(&mut self, index: usize) {
        let jump = i64::try_from(self.random.below(4 * 86_400_000)).unwrap_or(0) - 2 * 86_400_000;
        self.boxes[index].wall_skew = jump;
    }

    fn kill(&mut self, index: usize) {
        let now = self.now;
        self.leave(index);
        self.boxes[index].kill(now);
        self.start_later(index, 500, 5_000);
    }

    fn cut(&mut self, index: usize) {
        let cut = match self.random.below(4) {
            0 => Cut::DropAll,
            1 => Cut::Prefix(self.random.next()),
            2 => Cut::Subset(self.random.next()),
            _ => Cut::KeepAll,
        };
        let now = self.now;
        self.leave(index);
        self.boxes[index].cut(now, cut);
        self.start_later(index, 2_000, 15_000);
    }

    fn fail_disk(&mut self, fault: Fault, index: usize) {
        let call = if fault == Fault::FailedSync { Call::Sync } else { Call::Write };
        let failure = Failure {
            call,
            after: self.random.below(6),
            for_ever: self.random.chance(300),
            kind: std::io::ErrorKind::Other,
            short_bytes: usize::try_from(self.random.below(600)).unwrap_or(0),
        };
        self.boxes[index].disk.medium.fail(Some(failure));
        self.boxes[index].past.was_cut = true;
        if self.random.chance(400) {
            // Several at once: two tills in one group.
            let life = self.boxes[index].life;
            self.after(1, Event::Serve(index, life));
        }
    }

    fn damage(&mut self, fault: Fault, index: usize) {
        let files = self.boxes[index].disk.medium.files();
        let is_ours = |name: &str| {
            let extension = name.strip_prefix("journal/").and_then(|name| name.rsplit_once('.'));
            let segment = extension.is_some_and(|(_, extension)| matches!(extension, "seg" | "idx"));
            segment || name.starts_with("cursor") || name == "binding"
        };
        let files: Vec<_> = files.into_iter().filter(|file| is_ours(&file.name) && file.bytes > 0).collect();
        if files.is_empty() {
            return;
        }
        let file = &files[self.random.index(files.len())];
        self.boxes[index].past.damages += 1;
        self.trace.note(self.now, &format!("damage {index} {}", file.name));
        if fault == Fault::LostFile {
            self.boxes[index].disk.medium.delete(&file.name);
            return;
        }
        let offset = self.random.index(usize::try_from(file.bytes).unwrap_or(1));
        let mask = 1 << self.random.below(8);
        self.boxes[index].disk.medium.flip(&file.name, offset, mask);
    }

    fn set_back(&mut self, fault: Fault, index: usize) {
        let now = self.now;
        if fault == Fault::Reimage {
            self.leave(index);
            self.boxes[index].stand_on(now, SimDisk::default(), counterfoil::state::Shelf::default());
            return self.start_later(index, 2_000, 10_000);
        }
        let image = self.boxes[index].image.take();
        if let Some((disk, shelf)) = image {
            self.leave(index);
            self.boxes[index].stand_on(now, disk, shelf);
            return self.start_later(index, 2_000, 10_000);
        }
        let image = (self.boxes[index].disk.image(), self.boxes[index].shelf.copy());
        self.boxes[index].image = Some(image);
    }

    fn copy(&mut self, fault: Fault, index: usize) {
        if self.boxes.len() > 4 {
            return;
        }
        if fault == Fault::Twin {
            self.kill(index);
        }
        let seed = self.random.next();
        let mut copy = self.boxes[index].copy(seed);
        self.boxes[index].past.is_odd = true;
        copy.past.is_odd = true;
        if fault == Fault::Twin {
            let life = self.boxes[index].life + 1;
            let shared = self.boxes[index].env_seed(life);
            copy.next_env = Some(shared);
            self.boxes[index].next_env = Some(shared);
        }
        self.boxes.push(copy);
        let other = self.boxes.len() - 1;
        self.open_till(other);
        self.start_later(other, 1_000, 3_000);
    }

    pub(crate) fn remedy(&mut self, remedy: Remedy) {
        match remedy {
            Remedy::Join(index) => self.boxes[index].is_cut_off = false,
            Remedy::Room(index) => self.boxes[index].disk.medium.set_capacity(None),
            Remedy::Honest(index) => self.boxes[index].disk.controller().is_lying = false,
            Remedy::Clock(index) => self.boxes[index].wall_skew = 0,
        }
    }

    /// Everything is well from now on.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.hubs.database.calm();
        self.trace.note(self.now, &"healed");
        for index in 0..self.boxes.len() {
            for remedy in [Remedy::Join(index), Remedy::Room(index), Remedy::Honest(index), Remedy::Clock(index)] {
                self.remedy(remedy);
            }
            self.boxes[index].disk.medium.fail(None);
            self.boxes[index].disk.controller().writes_to_lose = 0;
            if self.boxes[index].process.is_none() {
                self.start_later(index, 100, 2_000);
            }
        }
        for hub in 0..self.hubs.count() {
            self.after(100, Event::StartHub(hub));
        }
    }
}
