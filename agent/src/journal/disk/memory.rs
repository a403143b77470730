//! A disk in memory that can lose power, run full, fail and rot: for tests and the simulator.
//!
//! Invariant: what was synced (a file's bytes by `sync_data`, a name by `sync_dir`) is in every image that [`MemoryDisk::power_cut`]
//! leaves; of the rest a cut keeps what its [`Cut`] says. Each file and the directory tree has a live image, a durable image, and the
//! changes between them in order. It has no randomness: draws come from a seed in the call.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use counterfoil_proto::planted::{self, Bug};

use super::{Disk, DiskFile, DiskLock, Listed};

mod tree;

use tree::{Change, NameChange, Node, Tree, apply_name, change_dir, dir_of, draw};

/// What a power cut leaves of the changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    DropAll,
    /// The first changes of each file, the last of them torn; the seed decides how many.
    Prefix(u64),
    /// Any sectors; the seed decides which.
    Subset(u64),
    /// Everything: the cut came late.
    KeepAll,
}

/// Which calls a planned failure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Every call that can fail, reads included.
    Any,
    /// Calls that change something: create, write, allocate, truncate, sync, rename, remove.
    Change,
    /// `write_at`.
    Write,
    /// `sync_data` and `sync_dir`.
    Sync,
    /// `read_at`.
    Read,
}

/// A failure that is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Which calls count.
    pub call: Call,
    /// How many of them still succeed.
    pub after: u64,
    /// Whether every later one of them fails too.
    pub for_ever: bool,
    /// What they fail with.
    pub kind: io::ErrorKind,
    /// For a write: how many of its bytes reach the file nevertheless.
    pub short_bytes: usize,
}

/// A disk in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    // A lock is the honest form here: handles of one simulated disk are shared by threads of a test, and it is held for single calls.
    tree: Arc<Mutex<Tree>>,
}

impl MemoryDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An independent copy of the disk as it is now, without open files, locks and planned failures.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut tree = self.tree().clone();
        tree.locks.clear();
        tree.failure = None;
        tree.sync_failed = false;
        Self { tree: Arc::new(Mutex::new(tree)) }
    }

    /// Cuts the power: open files and locks are gone, and of what was not synced only what `cut` says is left. The disk works again
    /// afterwards.
    pub fn power_cut(&self, cut: Cut) {
        let mut tree = self.tree();
        let mut seed = match cut {
            Cut::Prefix(seed) | Cut::Subset(seed) => seed,
            Cut::DropAll | Cut::KeepAll => 0,
        };
        for node in &mut tree.nodes {
            node.cut(cut, &mut seed);
        }
        let changes = std::mem::take(&mut tree.changes);
        let keep = match cut {
            Cut::DropAll => 0,
            Cut::KeepAll => changes.len() as u64,
            // A file system keeps the order of changes to names.
            Cut::Prefix(_) | Cut::Subset(_) => draw(&mut seed) % (changes.len() as u64 + 1),
        };
        let mut durable = std::mem::take(&mut tree.durable);
        for change in changes.iter().take(usize::try_from(keep).unwrap_or(usize::MAX)) {
            apply_name(&mut durable, change);
        }
        tree.live.clone_from(&durable);
        tree.durable = durable;
        tree.restart();
    }

    /// Ends the process that used the disk: locks are gone, the cache stays.
    pub fn kill(&self) {
        self.tree().restart();
    }

    /// Ends the process that used the disk; planned failures stay.
    pub fn kill_but_keep_plans(&self) {
        let mut tree = self.tree();
        let (failure, sync_failed) = (tree.failure, tree.sync_failed);
        tree.restart();
        tree.failure = failure;
        tree.sync_failed = sync_failed;
    }

    /// Plans a failure; `None` cancels it.
    pub fn fail(&self, failure: Option<Failure>) {
        self.tree().failure = failure;
    }

    /// Lets writes go on after a failed sync, to see whether the journal itself refuses them.
    pub fn forgive_sync(&self, forgive: bool) {
        self.tree().forgive_sync = forgive;
    }

    /// How many bytes fit; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.tree().capacity_bytes = bytes;
    }

    /// Calls so far that can fail.
    pub fn calls(&self) -> u64 {
        self.tree().calls
    }

    /// Calls so far that change something.
    pub fn changes(&self) -> u64 {
        self.tree().changes_made
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        self.tree().syncs
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.tree().bytes_written
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.tree().used_bytes()
    }

    /// Names of all files with their lengths.
    pub fn files(&self) -> Vec<Listed> {
        let tree = self.tree();
        let length = |node: &usize| tree.nodes.get(*node).map_or(0, |node| node.live.len() as u64);
        tree.live.iter().map(|(name, node)| Listed { name: name.clone(), bytes: length(node) }).collect()
    }

    /// A file's bytes.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let tree = self.tree();
        let node = tree.live.get(name)?;
        tree.nodes.get(*node).map(|node| node.live.clone())
    }

    /// Sets a file's bytes, durably and behind the back of whoever has it open; makes the file where it is missing.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut tree = self.tree();
        let node = Node { durable: bytes.clone(), live: bytes, ..Node::default() };
        if let Some(index) = tree.live.get(name).copied() {
            if let Some(place) = tree.nodes.get_mut(index) {
                *place = node;
            }
        } else {
            tree.nodes.push(node);
            let index = tree.nodes.len() - 1;
            tree.live.insert(name.to_owned(), index);
            tree.durable.insert(name.to_owned(), index);
        }
    }

    /// Flips the bits of `mask` in one byte of a file, in both images; `false` where there is no such byte.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) -> bool {
        let mut tree = self.tree();
        let Some(index) = tree.live.get(name).copied() else { return false };
        let Some(node) = tree.nodes.get_mut(index) else { return false };
        let flipped = node.live.get_mut(offset).map(|byte| *byte ^= mask).is_some();
        if let Some(byte) = node.durable.get_mut(offset) {
            *byte ^= mask;
        }
        flipped
    }

    /// Removes a file for good, durably.
    pub fn delete(&self, name: &str) -> bool {
        let mut tree = self.tree();
        tree.durable.remove(name);
        tree.live.remove(name).is_some()
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        self.tree().changing(Call::Change)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.tree();
        tree.changing(Call::Change)?;
        let node = if let Some(node) = tree.live.get(name).copied() {
            tree.node(node)?.apply(Change::Length(0));
            node
        } else {
            tree.nodes.push(Node::default());
            let node = tree.nodes.len() - 1;
            tree.change_name(NameChange::Link(name.to_owned(), node));
            node
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), node, generation: tree.generation }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open_read(name)
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut tree = self.tree();
        tree.call(Call::Any).map_err(|(error, _)| error)?;
        let node = tree.find(name)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node, generation: tree.generation }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut tree = self.tree();
        tree.changing(Call::Change)?;
        tree.find(from)?;
        tree.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut tree = self.tree();
        tree.changing(Call::Change)?;
        tree.find(name)?;
        tree.change_name(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        let mut tree = self.tree();
        tree.call(Call::Any).map_err(|(error, _)| error)?;
        let length = |node: &usize| tree.nodes.get(*node).map_or(0, |node| node.live.len() as u64);
        Ok(tree
            .live
            .iter()
            .filter(|(name, _)| dir_of(name) == dir)
            .map(|(name, node)| Listed {
                name: name.rsplit_once('/').map_or(name.as_str(), |(_, last)| last).to_owned(),
                bytes: length(node),
            })
            .collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut tree = self.tree();
        if let Err(error) = tree.changing(Call::Sync) {
            tree.sync_failed = !tree.forgive_sync;
            return Err(error);
        }
        tree.syncs += 1;
        // Changes before the last one of this directory go with it: metadata is journaled in order.
        let last = tree.changes.iter().rposition(|change| change_dir(change) == dir).map_or(0, |index| index + 1);
        let changes: Vec<_> = tree.changes.drain(..last).collect();
        for change in &changes {
            apply_name(&mut tree.durable, change);
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        let mut tree = self.tree();
        tree.call(Call::Any).map_err(|(error, _)| error)?;
        if !tree.locks.insert(name.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { disk: self.clone(), name: name.to_owned(), generation: tree.generation }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut tree = self.tree();
        tree.call(Call::Any).map_err(|(error, _)| error)?;
        Ok(tree.capacity_bytes.map_or(u64::MAX / 4, |capacity| capacity.saturating_sub(tree.used_bytes())))
    }

    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut tree = self.tree();
        tree.nodes.push(Node::default());
        let node = tree.nodes.len() - 1;
        tree.change_name(NameChange::Link(name.to_owned(), node));
        tree.node(node)?.apply(Change::Write { offset: 0, bytes: bytes.to_vec() });
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    name: String,
    generation: u64,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut tree = self.disk.tree();
        if tree.generation == self.generation {
            tree.locks.remove(&self.name);
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    node: usize,
    generation: u64,
}

impl MemoryFile {
    fn tree(&self) -> io::Result<MutexGuard<'_, Tree>> {
        let tree = self.disk.tree();
        if tree.generation == self.generation {
            Ok(tree)
        } else {
            Err(io::Error::other("the process of this file is dead"))
        }
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut tree = self.tree()?;
        tree.call(Call::Read).map_err(|(error, _)| error)?;
        let live = &tree.node(self.node)?.live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let end = start.saturating_add(buffer.len()).min(live.len());
        let source = live.get(start..end).unwrap_or(&[]);
        if let Some(target) = buffer.get_mut(..source.len()) {
            target.copy_from_slice(source);
        }
        Ok(source.len())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut tree = self.tree()?;
        if tree.sync_failed {
            return Err(io::Error::other("an earlier sync of this disk failed"));
        }
        let (bytes, result) = match tree.call(Call::Write) {
            Ok(()) => (bytes, Ok(())),
            Err((error, short_bytes)) => (bytes.get(..short_bytes.min(bytes.len())).unwrap_or(&[]), Err(error)),
        };
        tree.grow(self.node, offset + bytes.len() as u64)?;
        tree.bytes_written += bytes.len() as u64;
        if !bytes.is_empty() {
            tree.node(self.node)?.apply(Change::Write { offset, bytes: bytes.to_vec() });
        }
        result
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut tree = self.tree()?;
        tree.changing(Call::Change)?;
        tree.grow(self.node, bytes)?;
        let node = tree.node(self.node)?;
        if (node.live.len() as u64) < bytes {
            node.apply(Change::Length(bytes));
        }
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut tree = self.tree()?;
        tree.changing(Call::Change)?;
        tree.grow(self.node, bytes)?;
        tree.node(self.node)?.apply(Change::Length(bytes));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut tree = self.tree()?;
        if let Err(error) = tree.changing(Call::Sync) {
            tree.sync_failed = !tree.forgive_sync && !planted::is(Bug::RetryAfterFailedSync);
            // What a kernel does: the pages are marked clean and stay in the cache.
            tree.node(self.node)?.changes.clear();
            return Err(error);
        }
        tree.syncs += 1;
        tree.node(self.node)?.sync();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.tree()?.node(self.node)?.live.len() as u64)
    }
}
