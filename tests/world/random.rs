//! Random numbers from a seed: the same on every machine and in every version, so that a failing run can be had again.
//!
//! Not for secrets. `SplitMix64` (Steele, Lea, Flood 2014).

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The source that `seed` names.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A source of its own for `name`, so that one part's draws do not shift another's.
    pub fn named(seed: u64, name: &str) -> Self {
        Self::new(seed ^ hash(name))
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero where the bound is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Whether an event of one in `n` happens.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let index = usize::try_from(self.below(items.len() as u64)).expect("an index of a slice fits");
        *items.get(index).expect("picked from something that is not empty")
    }

    /// `count` ascending numbers in `1..=last`, equal ones possible.
    pub fn ascending(&mut self, count: usize, last: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..count).map(|_| 1 + self.below(last)).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// A stable hash of a name: what deterministic assignments are made by.
pub fn hash(name: &str) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk::<8>().expect("a BLAKE3 hash has 32 bytes");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        // The reference values of SplitMix64 for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        let points = Random::named(7, "agent").ascending(20, 100);
        assert_eq!(points, Random::named(7, "agent").ascending(20, 100));
        assert!(points.is_sorted() && points.iter().all(|point| (1..=100).contains(point)));
        assert_ne!(points, Random::named(7, "hub").ascending(20, 100));
    }
}
