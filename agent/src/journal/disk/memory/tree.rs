//! The images of a disk in memory, live and durable, and the changes between them.
//!
//! Invariant: the live image is the durable one with all changes applied in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Call, Cut, Failure};

/// Bytes that a medium writes whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) changes: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) live: BTreeMap<String, usize>,
    pub(super) durable: BTreeMap<String, usize>,
    pub(super) changes: Vec<NameChange>,
    pub(super) locks: BTreeSet<String>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) failure: Option<Failure>,
    pub(super) calls: u64,
    pub(super) changes_made: u64,
    pub(super) syncs: u64,
    pub(super) bytes_written: u64,
    pub(super) generation: u64,
    pub(super) sync_failed: bool,
    pub(super) forgive_sync: bool,
}

pub(super) fn draw(seed: &mut u64) -> u64 {
    // SplitMix64.
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut value = *seed;
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn write_into(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("a memory disk is smaller than memory");
    let end = start + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(place) = image.get_mut(start..end) {
        place.copy_from_slice(bytes);
    }
}

fn set_length(image: &mut Vec<u8>, bytes: u64) {
    image.resize(usize::try_from(bytes).expect("a memory disk is smaller than memory"), 0);
}

impl Node {
    pub(super) fn apply(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => write_into(&mut self.live, *offset, bytes),
            Change::Length(bytes) => set_length(&mut self.live, *bytes),
        }
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        // Only what changed since: what a failed sync marked clean is never written again.
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Write { offset, bytes } => write_into(&mut self.durable, offset, &bytes),
                Change::Length(bytes) => set_length(&mut self.durable, bytes),
            }
        }
    }

    pub(super) fn cut(&mut self, cut: Cut, seed: &mut u64) {
        let changes = std::mem::take(&mut self.changes);
        let count = changes.len() as u64;
        match cut {
            Cut::DropAll => {}
            Cut::KeepAll => {
                self.changes = changes;
                self.sync();
            }
            Cut::Prefix(_) => {
                let keep = draw(seed) % (count + 1);
                for (index, change) in changes.into_iter().enumerate() {
                    let torn = index as u64 == keep;
                    if index as u64 > keep {
                        break;
                    }
                    match change {
                        Change::Write { offset, bytes } => {
                            let length = if torn { draw(seed) % (bytes.len() as u64 + 1) } else { bytes.len() as u64 };
                            let length = usize::try_from(length).unwrap_or(0);
                            write_into(&mut self.durable, offset, bytes.get(..length).unwrap_or(&[]));
                        }
                        Change::Length(bytes) if !torn => set_length(&mut self.durable, bytes),
                        Change::Length(_) => {}
                    }
                }
            }
            Cut::Subset(_) => {
                for change in changes {
                    match change {
                        Change::Write { offset, bytes } => cut_sectors(&mut self.durable, offset, &bytes, seed),
                        Change::Length(bytes) => {
                            if draw(seed).is_multiple_of(2) {
                                set_length(&mut self.durable, bytes);
                            }
                        }
                    }
                }
            }
        }
        self.live.clone_from(&self.durable);
    }
}

fn cut_sectors(image: &mut Vec<u8>, offset: u64, bytes: &[u8], seed: &mut u64) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let into_sector = usize::try_from(at % SECTOR_BYTES as u64).unwrap_or(0);
        let length = (SECTOR_BYTES - into_sector).min(bytes.len() - done);
        if draw(seed).is_multiple_of(2) {
            write_into(image, at, bytes.get(done..done + length).unwrap_or(&[]));
        }
        done += length;
    }
}

pub(super) fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Unlink(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

pub(super) fn dir_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

pub(super) fn change_dir(change: &NameChange) -> &str {
    match change {
        NameChange::Link(name, _) | NameChange::Unlink(name) | NameChange::Rename(_, name) => dir_of(name),
    }
}

impl Tree {
    pub(super) fn restart(&mut self) {
        self.locks.clear();
        self.failure = None;
        self.sync_failed = false;
        self.generation += 1;
    }

    pub(super) fn call(&mut self, call: Call) -> Result<(), (io::Error, usize)> {
        self.calls += 1;
        let is_change = matches!(call, Call::Change | Call::Write | Call::Sync);
        if is_change {
            self.changes_made += 1;
        }
        let Some(failure) = &mut self.failure else { return Ok(()) };
        let counts = failure.call == Call::Any || failure.call == call || (failure.call == Call::Change && is_change);
        if !counts {
            return Ok(());
        }
        if failure.after > 0 {
            failure.after -= 1;
            return Ok(());
        }
        let error = io::Error::new(failure.kind, "planned failure");
        let short_bytes = failure.short_bytes;
        if !failure.for_ever {
            self.failure = None;
        }
        Err((error, short_bytes))
    }

    pub(super) fn changing(&mut self, call: Call) -> io::Result<()> {
        if self.sync_failed {
            return Err(io::Error::other("an earlier sync of this disk failed"));
        }
        self.call(call).map_err(|(error, _)| error)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.live.values().filter_map(|node| self.nodes.get(*node)).map(|node| node.live.len() as u64).sum()
    }

    pub(super) fn grow(&self, node: usize, end: u64) -> io::Result<()> {
        let length = self.nodes.get(node).map_or(0, |node| node.live.len() as u64);
        let more = end.saturating_sub(length);
        match self.capacity_bytes {
            Some(capacity) if more > 0 && self.used_bytes() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.live, &change);
        self.changes.push(change);
    }

    pub(super) fn node(&mut self, node: usize) -> io::Result<&mut Node> {
        self.nodes.get_mut(node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn find(&self, name: &str) -> io::Result<usize> {
        self.live.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
