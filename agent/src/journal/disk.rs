//! The one door to files: everything that the journal does to a disk goes through [`Disk`], so that tests and the simulator can
//! cut the power, fill the disk and flip bits.
//!
//! Invariant: after a failed sync a disk takes no more writes (it fails closed), because nobody can tell what of the earlier ones
//! reached the medium. Names are paths below one directory (`data_dir`), with `/` between the parts.
//! Deliberately not known here: what the bytes mean.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pread, retry_on_intr};

pub mod memory;

pub use memory::MemoryDisk;

/// A directory tree on a medium.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory and its parents; one that exists is left alone.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes an empty file, or empties the one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to read and write it.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to read it.
    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing the file that has it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The files of a directory, by name.
    fn list(&self, dir: &str) -> io::Result<Vec<Listed>>;
    /// Makes new, renamed and removed names of a directory durable. The empty name is the root.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the exclusive lock of a file, made where it is missing; held until the guard is dropped.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>>;
    /// Bytes that may still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Writes a small file even where a sync failed before: a word for the next start, which may not be there then.
    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// An open file. Writes are visible to readers at once and durable after [`DiskFile::sync_data`].
pub trait DiskFile: Debug + Send + Sync {
    /// Reads into `buffer` from `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Allocates blocks for the first `bytes` bytes and makes the file at least that long.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// Sets the length.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn bytes(&self) -> io::Result<u64>;
}

/// A held lock.
pub trait DiskLock: Debug + Send + Sync {}

/// A file of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name within the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// The file system of the box, below one directory.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    failed: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
}

impl OsDisk {
    /// The tree below `root`, which is made where it is missing.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self::at(root))
    }

    /// The tree below `root` as it is, made or not: to be read.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), failed: Arc::default(), moved: Arc::default() }
    }

    /// Counts in `moved` the bytes that are read and written, so that somebody else sees a long opening advance.
    #[must_use]
    pub fn counting(self, moved: Arc<AtomicU64>) -> Self {
        Self { moved, ..self }
    }

    fn file(&self, name: &str, options: &OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        let file = options.open(self.root.join(name))?;
        Ok(Box::new(OsFile { file, failed: Arc::clone(&self.failed), moved: Arc::clone(&self.moved) }))
    }

    fn check(&self) -> io::Result<()> {
        check(&self.failed)
    }
}

fn check(failed: &AtomicBool) -> io::Result<()> {
    if failed.load(Ordering::Acquire) {
        return Err(io::Error::other("an earlier sync of this disk failed"));
    }
    Ok(())
}

fn synced(failed: &AtomicBool, result: io::Result<()>) -> io::Result<()> {
    if result.is_err() {
        failed.store(true, Ordering::Release);
    }
    result
}

impl Disk for OsDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.check()?;
        fs::create_dir_all(self.root.join(dir))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.check()?;
        self.file(name, OpenOptions::new().read(true).write(true).create(true).truncate(true))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, OpenOptions::new().read(true).write(true))
    }

    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, OpenOptions::new().read(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check()?;
        fs::remove_file(self.root.join(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(Listed { name, bytes: metadata.len() });
            }
        }
        files.sort();
        Ok(files)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.check()?;
        let directory = File::open(self.root.join(dir))?;
        synced(&self.failed, directory.sync_all())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.root.join(name))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::statvfs(&self.root)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self.root.join(name))?;
        file.write_all_at(bytes, 0)?;
        // What this sync says changes nothing: the disk is closed, or is about to be.
        drop(file.sync_all());
        Ok(())
    }
}

#[derive(Debug)]
struct OsLock {
    /// The lock lives as long as the open file.
    _file: File,
}

impl DiskLock for OsLock {}

#[derive(Debug)]
struct OsFile {
    file: File,
    failed: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
}

impl OsFile {
    fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Not every file system can allocate: a longer, sparse file is the next best.
pub(super) fn without_blocks(file: &File, error: Errno, bytes: u64) -> io::Result<()> {
    if !matches!(error, Errno::OPNOTSUPP | Errno::NOSYS) {
        return Err(error.into());
    }
    let length = file.metadata()?.len();
    if length < bytes { file.set_len(bytes) } else { Ok(()) }
}

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            match retry_on_intr(|| pread(&self.file, &mut *rest, at))? {
                0 => break,
                count => filled += count,
            }
        }
        self.count(filled);
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        check(&self.failed)?;
        self.file.write_all_at(bytes, offset)?;
        self.count(bytes.len());
        Ok(())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        check(&self.failed)?;
        let allocated = fallocate(&self.file, FallocateFlags::empty(), 0, bytes);
        allocated.or_else(|error| without_blocks(&self.file, error, bytes))
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        check(&self.failed)?;
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        check(&self.failed)?;
        synced(&self.failed, self.file.sync_data())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Writes a file under its final name in one step: whole and synced, or not at all.
pub fn replace(disk: &dyn Disk, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let target = format!("{dir}/{name}");
    let target = target.trim_start_matches('/');
    let fresh = format!("{target}.new");
    let written = (|| {
        let file = disk.create(&fresh)?;
        file.write_at(bytes, 0)?;
        file.sync_data()
    })();
    if let Err(error) = written {
        // A leftover is removed by the next opening; here it would only hold space.
        drop(disk.remove(&fresh));
        return Err(error);
    }
    disk.rename(&fresh, target)?;
    disk.sync_dir(dir)
}

/// Reads a whole file, or at most `bytes_max` of it.
pub fn read_whole(disk: &dyn Disk, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open_read(name)?;
    let length = usize::try_from(file.bytes()?).unwrap_or(usize::MAX).min(bytes_max);
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}
