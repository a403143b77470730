//! The process behind the disk: a file system with one file, whose content is a [`Medium`], and a line of orders on standard input.
//!
//! It is a process of its own, so that no thread that waits for the disk can keep the disk from answering, and so that it goes when the rig goes:
//! at the end of its input it lets every request fail and ends. Invariant: from the moment of the cut nothing is confirmed; what
//! is asked then waits, as on a machine without power, until the rig says that nobody is left to hear an answer.
//! Each life of the disk is a file of its own, so that a block device that was left over from before the cut cannot reach it.
//!
//! One answer a line: `on` or `off` for `state`, `lie`, `arm OPERATIONS`, `disarm`; `on PENDING KEPT` for `restore KEEP SEED`; `off` for `fail`.

use std::ffi::OsStr;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

use super::medium::{Keep, Medium};
use crate::random::Random;

/// How long the kernel may believe what it was told of a file; its size never changes.
const TTL: Duration = Duration::from_secs(1);

/// The name of the disk's file in its `life`.
pub(super) fn file_name(tag: &str, life: u64) -> String {
    format!("{tag}-{life}")
}

/// Where the power is.
enum Power {
    /// There; after so many more writes and flushes it goes, where that was ordered.
    On { left: Option<u64> },
    /// Gone; these wait.
    Off(Vec<Waiting>),
    /// Gone, and whoever asks hears so.
    Failing,
}

/// A request that met the cut.
enum Waiting {
    Data(ReplyData),
    Written(ReplyWrite),
    Flushed(ReplyEmpty),
}

impl Waiting {
    fn fail(self) {
        match self {
            Self::Data(reply) => reply.error(Errno::EIO),
            Self::Written(reply) => reply.error(Errno::EIO),
            Self::Flushed(reply) => reply.error(Errno::EIO),
        }
    }
}

struct Disk {
    medium: Medium,
    power: Power,
    life: u64,
    tag: String,
}

impl Disk {
    /// Counts a write or a flush of the file `ino`; the power goes before the one that is one too many.
    fn count(&mut self, ino: INodeNo) {
        if u64::from(ino) == self.ino()
            && let Power::On { left: Some(left) } = &mut self.power
        {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.power = Power::Off(Vec::new()),
            }
        }
    }

    /// What becomes of a request to the file `ino`: `Some` where it is to be carried out.
    fn admit<R>(&mut self, ino: INodeNo, reply: R, waiting: impl FnOnce(R) -> Waiting) -> Option<R> {
        if u64::from(ino) != self.ino() {
            waiting(reply).fail();
            return None;
        }
        match &mut self.power {
            Power::On { .. } => Some(reply),
            Power::Off(held) => {
                held.push(waiting(reply));
                None
            }
            Power::Failing => {
                waiting(reply).fail();
                None
            }
        }
    }

    /// The root is number 1.
    const fn ino(&self) -> u64 {
        1 + self.life
    }

    fn fail(&mut self) {
        if let Power::Off(held) = std::mem::replace(&mut self.power, Power::Failing) {
            held.into_iter().for_each(Waiting::fail);
        }
    }

    const fn state(&self) -> &'static str {
        if matches!(self.power, Power::On { .. }) { "on" } else { "off" }
    }

    fn order(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let mut word = || words.next();
        match word()? {
            "state" => {}
            "lie" => self.medium.lie(),
            "arm" => {
                let left = Some(word()?.parse().ok()?);
                if matches!(self.power, Power::On { .. }) {
                    self.power = Power::On { left };
                }
            }
            "disarm" => {
                if matches!(self.power, Power::On { .. }) {
                    self.power = Power::On { left: None };
                }
            }
            "fail" => self.fail(),
            "restore" => {
                let keep = match word()? {
                    "none" => Keep::None,
                    "prefix" => Keep::Prefix,
                    "subset" => Keep::Subset,
                    _ => return None,
                };
                let mut random = Random::new(word()?.parse().ok()?);
                self.fail();
                let cut = self.medium.cut(keep, &mut random);
                self.life += 1;
                self.power = Power::On { left: None };
                return Some(format!("on {} {}", cut.pending, cut.kept));
            }
            _ => return None,
        }
        Some(self.state().to_owned())
    }

    fn attr(&self, ino: u64) -> FileAttr {
        let is_root = ino == 1;
        let size = if is_root { 0 } else { self.medium.bytes() as u64 };
        FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The file system that the kernel sees.
struct Served(Arc<Mutex<Disk>>);

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        if name.to_str() == Some(&file_name(&disk.tag, disk.life)) {
            reply.entry(&TTL, &disk.attr(disk.ino()), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.disk().attr(u64::from(ino)));
    }

    /// Past the page cache: what is written comes here at once, and a flush of the device is a flush here.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut disk = self.disk();
        if let Some(reply) = disk.admit(ino, reply, Waiting::Data) {
            reply.data(disk.medium.read(place(offset), place(u64::from(size))));
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.disk();
        disk.count(ino);
        if let Some(reply) = disk.admit(ino, reply, Waiting::Written) {
            reply.written(u32::try_from(disk.medium.write(place(offset), data)).unwrap_or(0));
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut disk = self.disk();
        disk.count(ino);
        if let Some(reply) = disk.admit(ino, reply, Waiting::Flushed) {
            disk.medium.flush();
            reply.ok();
        }
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Serves a disk of `bytes` below `mountpoint` until the orders end.
pub fn serve(mountpoint: &Path, tag: &str, bytes: usize) -> std::io::Result<()> {
    let disk = Disk { medium: Medium::new(bytes), power: Power::On { left: None }, life: 1, tag: tag.to_owned() };
    let disk = Arc::new(Mutex::new(disk));
    let session = Session::new(Served(Arc::clone(&disk)), mountpoint, &Config::default())?.spawn()?;
    let mut answers = std::io::stdout().lock();
    writeln!(answers, "on")?;
    answers.flush()?;
    for line in std::io::stdin().lock().lines() {
        let answer = disk.lock().unwrap_or_else(PoisonError::into_inner).order(&line?);
        writeln!(answers, "{}", answer.as_deref().unwrap_or("what?"))?;
        answers.flush()?;
    }
    disk.lock().unwrap_or_else(PoisonError::into_inner).fail();
    // Unmounting would wait for whoever still has the file open; the end of this process ends the file system.
    std::mem::forget(session);
    Ok(())
}
