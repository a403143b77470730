//! A disk with a cache that forgets: what it was told to flush stays, of the rest only what the cut leaves.
//!
//! Invariant: `shown` is what the machine reads; `kept` is what a power cut leaves at the least. They differ in nothing but the blocks of
//! `pending`. A block of [`BLOCK`] bytes is never torn, as the file system above may expect of a disk with such sectors; a write of
//! many blocks is. This module knows nothing of files, devices or processes.

use crate::random::Random;

/// What the disk writes at once or not at all.
pub(super) const BLOCK: usize = 4096;

/// What a cut leaves of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    None,
    /// The first so many, in the order of writing.
    Prefix,
    /// Each of them or not, by lot.
    Subset,
}

/// What a cut did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Blocks that were not flushed.
    pub pending: usize,
    /// How many of them are there all the same.
    pub kept: usize,
}

/// The disk.
#[derive(Debug)]
pub(super) struct Medium {
    shown: Vec<u8>,
    kept: Vec<u8>,
    pending: Vec<Block>,
    is_lying: bool,
}

#[derive(Debug)]
struct Block {
    offset: usize,
    bytes: Vec<u8>,
}

impl Medium {
    /// An empty disk.
    pub(super) fn new(bytes: usize) -> Self {
        Self { shown: vec![0; bytes], kept: vec![0; bytes], pending: Vec::new(), is_lying: false }
    }

    /// Its length.
    pub(super) const fn bytes(&self) -> usize {
        self.shown.len()
    }

    /// What the machine sees; shorter at the end of the disk.
    pub(super) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        let offset = offset.min(self.shown.len());
        let end = offset.saturating_add(bytes).min(self.shown.len());
        self.shown.get(offset..end).unwrap_or_default()
    }

    /// Takes a write into the cache; says how many bytes fitted.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let room = self.shown.len().saturating_sub(offset);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, after) = rest.split_at((BLOCK - at % BLOCK).min(rest.len()));
            copy(&mut self.shown, at, block);
            self.pending.push(Block { offset: at, bytes: block.to_vec() });
            at += block.len();
            rest = after;
        }
        bytes.len()
    }

    /// Makes everything that was written durable, or says so only.
    pub(super) fn flush(&mut self) {
        if !self.is_lying {
            for block in self.pending.drain(..) {
                copy(&mut self.kept, block.offset, &block.bytes);
            }
        }
    }

    /// From now on it confirms flushes without doing them.
    pub(super) const fn lie(&mut self) {
        self.is_lying = true;
    }

    /// The power is cut and comes back. It is honest again.
    pub(super) fn cut(&mut self, keep: Keep, random: &mut Random) -> Cut {
        let pending = std::mem::take(&mut self.pending);
        let prefix = usize::try_from(random.below(pending.len() as u64 + 1)).unwrap_or(0);
        // A disk that wrote nearly everything back is as likely as one that wrote nearly nothing.
        let odds = random.below(101);
        let mut kept = 0;
        for (index, block) in pending.iter().enumerate() {
            let stays = match keep {
                Keep::None => false,
                Keep::Prefix => index < prefix,
                Keep::Subset => random.below(100) < odds,
            };
            if stays {
                kept += 1;
                copy(&mut self.kept, block.offset, &block.bytes);
            }
        }
        for block in &pending {
            let range = block.offset..block.offset + block.bytes.len();
            if let (Some(shown), Some(kept)) = (self.shown.get_mut(range.clone()), self.kept.get(range)) {
                shown.copy_from_slice(kept);
            }
        }
        self.is_lying = false;
        Cut { pending: pending.len(), kept }
    }
}

fn copy(image: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 16 * BLOCK;

    fn random() -> Random {
        Random::new(7)
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_gone() {
        let mut medium = Medium::new(BYTES);
        assert_eq!(medium.write(0, &[1; 2 * BLOCK]), 2 * BLOCK);
        medium.flush();
        medium.write(BLOCK, &[2; BLOCK]);
        medium.write(3 * BLOCK, &[3; BLOCK]);
        assert_eq!(medium.read(BLOCK, BLOCK), [2; BLOCK]);
        assert_eq!(medium.cut(Keep::None, &mut random()), Cut { pending: 2, kept: 0 });
        assert_eq!(medium.read(BLOCK, BLOCK), [1; BLOCK]);
        assert_eq!(medium.read(3 * BLOCK, BLOCK), [0; BLOCK]);
        // What was thrown away does not come back with a later flush.
        medium.flush();
        medium.cut(Keep::None, &mut random());
        assert_eq!(medium.read(0, 2 * BLOCK), [1; 2 * BLOCK]);
    }

    #[test]
    fn a_prefix_keeps_the_order_and_a_subset_does_not() {
        let mut has_hole = false;
        for seed in 0..50 {
            for keep in [Keep::Prefix, Keep::Subset] {
                let mut medium = Medium::new(BYTES);
                medium.write(0, &vec![9; 8 * BLOCK]);
                let cut = medium.cut(keep, &mut Random::new(seed));
                let there: Vec<bool> = (0..8).map(|block| medium.read(block * BLOCK, 1) == [9]).collect();
                assert_eq!(there.iter().filter(|there| **there).count(), cut.kept);
                let holes = there.windows(2).any(|pair| pair == [false, true]);
                assert!(!holes || keep == Keep::Subset);
                has_hole |= holes;
            }
        }
        assert!(has_hole);
    }

    #[test]
    fn a_liar_loses_what_it_confirmed_and_is_honest_after_the_cut() {
        let mut medium = Medium::new(BYTES);
        medium.lie();
        medium.write(0, &[1; BLOCK]);
        medium.flush();
        assert_eq!(medium.cut(Keep::None, &mut random()).pending, 1);
        assert_eq!(medium.read(0, 1), [0]);
        medium.write(0, &[1; BLOCK]);
        medium.flush();
        medium.cut(Keep::None, &mut random());
        assert_eq!(medium.read(0, 1), [1]);
    }

    #[test]
    fn the_end_of_the_disk_is_the_end() {
        let mut medium = Medium::new(BYTES);
        assert_eq!(medium.write(BYTES - 10, &[1; 20]), 10);
        assert_eq!(medium.read(BYTES - 5, 20), [1; 5]);
        assert_eq!((medium.write(BYTES + 1, &[1]), medium.read(BYTES + 1, 1).len()), (0, 0));
    }
}
