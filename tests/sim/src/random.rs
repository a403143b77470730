//! Random numbers from a seed, the same on every machine: `SplitMix64` (Steele, Lea, Flood 2014). Not for secrets.
//!
//! Invariant: parts that draw from sources of their own name do not shift each other's draws.

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The source of `name` within the run of `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let mut state = [0; 8];
        hasher.finalize_xof().fill(&mut state);
        Self { state: u64::from_le_bytes(state) }
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero where the bound is zero.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `low` to `high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something happens that does so in `per_mille` of thousand cases.
    pub(crate) const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An index of a list of that length, which must not be empty.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        assert!(length > 0, "picked from something that is not empty");
        usize::try_from(self.below(length as u64)).expect("an index fits")
    }

    /// A time around `mean_ms`, from a tenth of it to twice as much.
    pub(crate) const fn around(&mut self, mean_ms: u64) -> u64 {
        self.between(mean_ms / 10 + 1, mean_ms * 2)
    }
}
