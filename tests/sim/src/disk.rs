//! The disk of a box: the journal's disk in memory, behind a controller that may lie and lose writes.
//!
//! Invariant: the controller only ever leaves something out; everything else is `MemoryDisk`'s to do. What it left out is counted.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use counterfoil::journal::disk::{DiskFile, DiskLock, Listed};
use counterfoil::journal::{Disk, MemoryDisk};

/// What the controller does, and did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Controller {
    /// Syncs are confirmed and not done.
    pub(crate) is_lying: bool,
    /// So many writes go nowhere.
    pub(crate) writes_to_lose: u32,
    /// Syncs that were confirmed and not done.
    pub(crate) lies: u64,
    /// Writes that went nowhere.
    pub(crate) lost: u64,
}

/// A disk with its controller; clones share both.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    pub(crate) medium: MemoryDisk,
    controller: Arc<Mutex<Controller>>,
}

impl SimDisk {
    pub(crate) fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same on it, as after a cut that kept everything.
    pub(crate) fn image(&self) -> Self {
        let medium = self.medium.copy();
        medium.power_cut(counterfoil::journal::disk::memory::Cut::KeepAll);
        Self { medium, controller: Arc::default() }
    }

    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(SimFile { file, controller: Arc::clone(&self.controller) })
    }
}

fn lies(controller: &Mutex<Controller>) -> bool {
    let mut controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
    controller.lies += u64::from(controller.is_lying);
    controller.is_lying
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.medium.create_dir(dir)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.medium.create(name).map(|file| self.file(file))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.medium.open(name).map(|file| self.file(file))
    }
    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.medium.open_read(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.medium.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.medium.remove(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.medium.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if lies(&self.controller) { Ok(()) } else { self.medium.sync_dir(dir) }
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.medium.lock(name)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.medium.free_bytes()
    }
    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.medium.write_aside(name, bytes)
    }
}

#[derive(Debug)]
struct SimFile {
    file: Box<dyn DiskFile>,
    controller: Arc<Mutex<Controller>>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut controller = self.controller.lock().unwrap_or_else(PoisonError::into_inner);
        if controller.writes_to_lose > 0 {
            controller.writes_to_lose -= 1;
            controller.lost += 1;
            return Ok(());
        }
        drop(controller);
        self.file.write_at(bytes, offset)
    }
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.file.preallocate(bytes)
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        if lies(&self.controller) { Ok(()) } else { self.file.sync_data() }
    }
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
}
