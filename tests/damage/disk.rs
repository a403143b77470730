//! A disk whose calls are counted by kind, of which one, or all from one on, fail.
//!
//! Invariant: a call that fails changes nothing. Everything else is the disk in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use counterfoil::journal::MemoryDisk;
use counterfoil::journal::disk::{Disk, DiskFile, DiskLock, Listed};

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    CreateDir,
    Create,
    Open,
    OpenRead,
    Rename,
    Remove,
    List,
    SyncDir,
    Lock,
    FreeBytes,
    Read,
    Write,
    Allocate,
    Truncate,
    SyncData,
    Length,
}

impl Call {
    pub(crate) const ALL: [Self; 16] = [
        Self::CreateDir,
        Self::Create,
        Self::Open,
        Self::OpenRead,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::SyncDir,
        Self::Lock,
        Self::FreeBytes,
        Self::Read,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::SyncData,
        Self::Length,
    ];
}

/// A failure that is to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) call: Call,
    /// How many such calls still succeed.
    pub(crate) after: u64,
    pub(crate) for_ever: bool,
}

#[derive(Debug, Default)]
struct Book {
    plan: Option<Plan>,
    counts: BTreeMap<Call, u64>,
    /// Files that were read from.
    read: Vec<String>,
    happened: bool,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct FailingDisk {
    inner: MemoryDisk,
    book: Arc<Mutex<Book>>,
}

impl FailingDisk {
    pub(crate) fn new(inner: MemoryDisk, plan: Option<Plan>) -> Self {
        Self { inner, book: Arc::new(Mutex::new(Book { plan, ..Book::default() })) }
    }

    /// How often each call was made.
    pub(crate) fn counts(&self) -> BTreeMap<Call, u64> {
        self.book.lock().unwrap().counts.clone()
    }

    pub(crate) fn read(&self) -> Vec<String> {
        self.book.lock().unwrap().read.clone()
    }

    pub(crate) fn happened(&self) -> bool {
        self.book.lock().unwrap().happened
    }

    fn call(&self, call: Call) -> io::Result<()> {
        let mut book = self.book.lock().unwrap();
        let count = book.counts.entry(call).or_default();
        let before = *count;
        *count += 1;
        let fails =
            |plan: Plan| plan.call == call && if plan.for_ever { before >= plan.after } else { before == plan.after };
        if book.plan.is_some_and(fails) {
            book.happened = true;
            return Err(io::Error::other("the disk fails, as planned"));
        }
        Ok(())
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { disk: self.clone(), name: name.to_owned(), inner: file })
    }
}

impl Disk for FailingDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.call(Call::CreateDir)?;
        self.inner.create_dir(dir)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.call(Call::Create)?;
        self.inner.create(name).map(|file| self.file(name, file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.call(Call::Open)?;
        self.inner.open(name).map(|file| self.file(name, file))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.call(Call::OpenRead)?;
        self.inner.open_read(name).map(|file| self.file(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(Call::Rename)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(Call::Remove)?;
        self.inner.remove(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        self.call(Call::List)?;
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.call(Call::SyncDir)?;
        self.inner.sync_dir(dir)
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.call(Call::Lock)?;
        self.inner.lock(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.call(Call::FreeBytes)?;
        self.inner.free_bytes()
    }

    /// Not the journal's: the owner's word for the next start.
    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_aside(name, bytes)
    }
}

#[derive(Debug)]
struct FailingFile {
    disk: FailingDisk,
    name: String,
    inner: Box<dyn DiskFile>,
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.book.lock().unwrap().read.push(self.name.clone());
        self.disk.call(Call::Read)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call(Call::Write)?;
        self.inner.write_at(bytes, offset)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Allocate)?;
        self.inner.preallocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Truncate)?;
        self.inner.truncate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call(Call::SyncData)?;
        self.inner.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.disk.call(Call::Length)?;
        self.inner.bytes()
    }
}
