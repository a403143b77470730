//! What a run is made of: a seed, the faults that are allowed, how long they go on.
//!
//! Invariant: a [`Plan`] and the commit decide a run, to the last bit; [`Plan::command`] is how a person repeats it.

use counterfoil_proto::planted::Bug;

use crate::random::Random;

/// Something that goes wrong. Each run has some of them, each at a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Messages vanish.
    Loss,
    /// Messages arrive twice.
    Double,
    /// Messages overtake each other.
    Reorder,
    /// Old messages are played again.
    Replay,
    /// A store is cut off for a while.
    Partition,
    /// The broker forgets everything and drops every line.
    BrokerWipe,
    /// An agent's process is killed.
    Kill,
    /// A box loses power; of what was not synced anything may be left.
    PowerCut,
    /// A sync fails.
    FailedSync,
    /// A write fails.
    FailedWrite,
    /// The disk says that it synced, and did not.
    LyingSync,
    /// A write goes nowhere.
    LostWrite,
    /// The disk is full for a while.
    FullDisk,
    /// A bit flips.
    Rot,
    /// A file vanishes.
    LostFile,
    /// The state store is lost at a restart.
    StateLost,
    /// A box is set back to an image of its disk.
    Restore,
    /// A box is copied, and both go on.
    Clone,
    /// A box is copied as it starts, its random numbers with it.
    Twin,
    /// A box gets an empty disk.
    Reimage,
    /// A hub process is killed.
    HubKill,
    /// The ledger is set back to its verified backup.
    HubRestore,
    /// A box's clock stands at 1970.
    Clock1970,
    /// A box's clock jumps.
    ClockJump,
    /// A till does not hear the answer.
    LostReply,
    /// A till sends what was answered again.
    Doubles,
    /// A till sends other content under an old identity.
    Conflicts,
    /// Hub processes crowd in one lane: there are three, and their transactions wait for each other between any two statements.
    Crowd,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Loss,
        Self::Double,
        Self::Reorder,
        Self::Replay,
        Self::Partition,
        Self::BrokerWipe,
        Self::Kill,
        Self::PowerCut,
        Self::FailedSync,
        Self::FailedWrite,
        Self::LyingSync,
        Self::LostWrite,
        Self::FullDisk,
        Self::Rot,
        Self::LostFile,
        Self::StateLost,
        Self::Restore,
        Self::Clone,
        Self::Twin,
        Self::Reimage,
        Self::HubKill,
        Self::HubRestore,
        Self::Clock1970,
        Self::ClockJump,
        Self::LostReply,
        Self::Doubles,
        Self::Conflicts,
        Self::Crowd,
    ];

    /// Of thousand runs, so many have it. What lets records be lost for good is seldom: it excuses too much.
    const fn share(self) -> u64 {
        match self {
            Self::LyingSync | Self::LostWrite | Self::Restore | Self::Clone | Self::Twin | Self::Reimage => 90,
            Self::Rot | Self::LostFile => 130,
            Self::Kill | Self::PowerCut | Self::HubKill | Self::LostReply | Self::Doubles | Self::Crowd => 500,
            Self::Loss
            | Self::Double
            | Self::Reorder
            | Self::Replay
            | Self::Partition
            | Self::BrokerWipe
            | Self::FailedSync
            | Self::FailedWrite
            | Self::FullDisk
            | Self::StateLost
            | Self::HubRestore
            | Self::Clock1970
            | Self::ClockJump
            | Self::Conflicts => 330,
        }
    }

    fn bit(self) -> u32 {
        1 << Self::ALL.iter().position(|fault| *fault == self).unwrap_or(0)
    }

    /// As the command line names it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Those that the seed draws.
    fn drawn(seed: u64) -> Self {
        let mut random = Random::new(seed, "faults");
        let mut faults = Self(0);
        for fault in Fault::ALL {
            if random.chance(fault.share()) {
                faults.0 |= fault.bit();
            }
        }
        faults
    }

    /// Whether it is among them.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// All but one.
    #[must_use]
    pub fn without(self, fault: Fault) -> Self {
        Self(self.0 & !fault.bit())
    }

    /// One more.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | fault.bit())
    }

    /// Those that are in it.
    pub fn list(self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| self.has(*fault)).collect()
    }
}

/// A run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything that is left open.
    pub seed: u64,
    /// What may go wrong.
    pub faults: Faults,
    /// For how long, in simulated milliseconds; then everything is healed and has to drain.
    pub until_ms: u64,
    /// A bug that is planted.
    pub bug: Option<Bug>,
    /// Whether every event is printed.
    pub trace: bool,
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Self {
        let until_ms = Random::new(seed, "until").between(20_000, 150_000);
        Self { seed, faults: Faults::drawn(seed), until_ms, bug: None, trace: false }
    }

    /// How a person repeats it.
    pub fn command(&self) -> String {
        let own = Self::of(self.seed);
        let mut command = format!("cargo run -p counterfoil-sim --bin sim -- --seed {}", self.seed);
        let gone: Vec<String> =
            own.faults.list().into_iter().filter(|fault| !self.faults.has(*fault)).map(Fault::name).collect();
        if !gone.is_empty() {
            command.extend([" --without ", &gone.join(",")]);
        }
        if self.until_ms != own.until_ms {
            command.extend([" --until-ms ", &self.until_ms.to_string()]);
        }
        if let Some(bug) = self.bug {
            command.extend([" --plant ", &format!("{bug:?}")]);
        }
        command
    }
}
