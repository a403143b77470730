//! The journal: the agent's own append-only log. Its header is the specification of the format.
//!
//! **A success reply to a till means that the record is on the disk, synced, and survives a power cut.** [`Journal::commit`] is where that
//! becomes true.
//!
//! # Promises
//! 1. What was committed is there after any crash, with the same (epoch, lane, seq) and bytes, or is named as [`Gone`].
//! 2. A number is never used for two records. An epoch ends with its process; the next one begins a new epoch.
//! 3. Readers see only what is synced, and after a start only what is on the medium, not only in the page cache.
//! 4. A damaged byte costs at most the record that it stands in.
//!
//! # Files, below the data directory
//! ```text
//! lock                    held (flock) by the process that has the journal open
//! binding                 the header of a segment with number 0: store, agent, nonce
//! cursor.0, cursor.1      what the hub has (journal/cursor.rs)
//! journal/NNNNNNNNNN.seg  segments, numbered from 1 (ten digits), oldest first; the last one is open, the others are sealed
//! journal/NNNNNNNNNN.idx  the side file of a sealed segment (journal/index.rs); derived
//! journal/spare-…         files of segments that were given back, to be used again
//! journal/ballast         room for draining a full disk
//! quarantine/…            raw bytes that were damaged or cut, named by segment and offset
//! *.new                   unfinished; removed when the journal is opened
//! ```
//! All numbers are little-endian. CRC is CRC32C.
//!
//! # Segment
//! ```text
//!   0 magic "CFJSEGMT"          8 version: u16, 1 or 2       10 flags: u16 (1: the file held another segment before)
//!  12 header length: u32       16 number: u32               20 proven: u32 (synced up to here before it got its name)
//!  24 nonce: u64               32 end of the segment before: u32 (0: none)                       36 zeros
//!  40 wall time: i64           48 store: u8 length + 32     81 agent: u8 length + 31            113 zeros
//! 120 in version 2 alone: bytes that the file was made with, or more: u32, zeros: u32, software that made it: u8 length + 31 (ASCII)
//! 120, in version 2 160: table, zeros, CRC of all before it in the last four bytes of the header; frames follow
//! ```
//! Table: `count: u32`, then per epoch `epoch [16], parent [16] (zeros: none), lanes: u8`, then per lane `code: u8 (bit 7: no chain),
//! last: u64, chain [32]`. It names every epoch that was not wholly safe when the segment was made, oldest first, with its heads then: should
//! any segment before be lost, its ranges can be named from here.
//!
//! Both versions are read, in any order. A new segment is of the version that [`JournalConfig::format_write`] asks for, which by default is the
//! one before the latest: the release before reads what this one wrote, and can be gone back to with a backlog on board. A segment keeps its
//! version, unless an opening writes it anew: then it is of the version asked for, or 1 where there is no room for more. A journal with a later
//! version in it is refused, and not a byte of it changed. Binding, cursors and side files have versions of their own (1).
//!
//! # Frame
//! At multiples of eight bytes:
//! ```text
//!   0 magic "CF"   2 kind: u8   3 lane: u8   4 payload length: u32   8 group: u32   12 CRC   16 seq: u64   24 epoch [16]
//!  40 payload, zeros up to the next multiple of eight
//! ```
//! The CRC runs over nonce (u64), segment number (u32), the 40 bytes of the header with the frame's offset (u32) in place of the CRC, and the
//! payload. So bytes of a recycled file, or of another place, are never taken for frames, and a reader that lost its way finds the next frame by
//! trying every eighth byte. `group` is the offset of the group that the frame was written with: **everything before it had been synced
//! then**. Each frame thus proves what stands before its group.
//!
//! | kind | is | payload |
//! |---|---|---|
//! | 1 | record | its stored bytes |
//! | 2 | local | a part of a state snapshot; seq = part (lower half) of parts (upper half); never sent |
//! | 3 | group | `bytes: u32` of the group, `records: u32`, `wall time: i64`, then entries as in the table: the live epoch's heads before the group; in its first group also its parent's |
//! | 4 | closing mark | as a group's, of the last epoch. The next group is written over it |
//! | 5 | hole | none; `seq` bytes from here on are lost (they are in `quarantine/`) |
//!
//! A group is a group frame and then its frames, in one write and one sync. The payload of a frame does not depend on its neighbours; a
//! record that is missing shows as a hole in its lane's numbers, up to heads that a later group, closing mark or table states.
//!
//! # Opening
//! Headers of all segments and the open segment are read; sealed ones are taken over by their side files, or scanned where those are missing,
//! damaged or do not fit the file. P is the greatest of: `group` of all whole frames, the place of a closing mark, `proven` (in a file that
//! ends before it: the end of the last whole frame). Bad bytes before P are rot: quarantined, replaced by a hole, their records gone; where
//! no head is stated behind them nobody can name those, and that is told. Behind P is the last group, of which nobody knows whether it was
//! synced: it is kept up to its first missing record; the rest is cut and reported. Unless all is proven, what counts is then copied, at
//! the same offsets, into a fresh file of the same number (`proven` = its end) that is synced and takes the name. The directories are
//! synced before anything is served, for the process before may have died between a name and its sync. So positions never change, a restart
//! loop stays within one segment, and what the page cache alone had is on the medium before it is served.
//!
//! # Threads
//! None. One owner calls [`Journal`]; [`Reader`]s on other threads follow the [`catalog`] that each commit publishes. The caller brings
//! time, randomness and epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{Chain, Epoch, LaneKey, Seq, Source};
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::time::WallTime;
use tokio::sync::watch;

mod catalog;
mod check;
mod cursor;
mod damage;
pub mod disk;
mod frame;
mod index;
pub mod limits;
mod reader;
mod reclaim;
mod recover;
mod replay;
mod scan;
mod segment;
mod table;
mod types;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use check::{Checked, Finding, Formed, LaneRuns, Met, check, settle};
#[cfg(test)]
pub(crate) use check::{forge, forge_all, offset_of};
pub use disk::{Disk, MemoryDisk, OsDisk};
pub use limits::JournalConfig;
pub use reader::{Closed, Read, Reader};
pub use replay::{Replay, Replayed};
pub use types::*;

use catalog::{Catalog, OpenView, Sealed};
use cursor::Cursor;
use disk::{DiskFile, DiskLock};
use frame::{Decoded, Seed};
use scan::{Content, Mark, Snapshots};
use segment::{Made, path, segment_name};
use table::{Entry, Table};
use writer::Group;

/// The segment that is appended to.
#[derive(Debug)]
struct Open {
    number: u32,
    file: Box<dyn DiskFile>,
    header_bytes: u32,
    /// End of what is synced.
    end: u32,
    /// Length of the file, all of it allocated.
    allocated: u64,
    /// The table in its header.
    table: Vec<Entry>,
    content: Content,
    /// Regions without frames that could not be overwritten by a hole.
    holes: Vec<(u32, u32)>,
    /// Offsets at or above `end` are pending.
    identities: BTreeSet<(IdentityKey, u32)>,
    published_marks: Arc<Vec<Mark>>,
}

impl Open {
    fn new(number: u32, made: Made, table: Vec<Entry>) -> Self {
        Self {
            number,
            file: made.file,
            header_bytes: made.header_bytes,
            end: made.header_bytes,
            allocated: made.bytes,
            table,
            content: Content::default(),
            holes: Vec::new(),
            identities: BTreeSet::new(),
            published_marks: Arc::default(),
        }
    }

    fn view(&mut self, nonce: u64) -> OpenView {
        if self.published_marks.len() != self.content.marks.len() {
            self.published_marks = Arc::new(self.content.marks.clone());
        }
        OpenView {
            number: self.number,
            nonce,
            header_bytes: self.header_bytes,
            end: self.end,
            runs: Arc::new(self.content.runs.clone()),
            marks: Arc::clone(&self.published_marks),
            holes: Arc::new(self.holes.clone()),
        }
    }
}

/// What an opening hands over.
#[derive(Debug)]
struct Parts {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    source: Source,
    nonce: u64,
    lock: Box<dyn DiskLock>,
    sealed: Vec<Arc<Sealed>>,
    open: Open,
    table: Table,
    gone: Vec<Gone>,
    snapshots: Snapshots,
    cursor: Cursor,
    spares: Vec<(String, u64)>,
    ballast_bytes: u64,
    wall_last: WallTime,
}

/// The log, owned by one thread.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    source: Source,
    nonce: u64,
    /// Held until the journal is dropped.
    _lock: Box<dyn DiskLock>,
    sealed: Arc<Vec<Arc<Sealed>>>,
    open: Open,
    /// Committed heads of all epochs that are retained or not wholly safe.
    table: Table,
    live: Option<Epoch>,
    parent: Option<Parent>,
    group: Option<Group>,
    buffer: Vec<u8>,
    gone: Arc<Vec<Gone>>,
    views: Arc<Vec<EpochView>>,
    snapshots: Snapshots,
    cursor: Cursor,
    /// Epochs that left the table, with the segment that was open then: headers up to it may name them.
    forgotten: BTreeMap<Epoch, u32>,
    spares: Vec<(String, u64)>,
    ballast_bytes: u64,
    is_short: bool,
    damage: Vec<Damage>,
    scrub_at: (u32, u32),
    wall_last: WallTime,
    poisoned: bool,
    published: watch::Sender<Arc<Catalog>>,
    bytes_written: u64,
    syncs: u64,
}

impl Journal {
    /// Opens the journal of `source` below the disk's root, or makes it. `nonce`: 64 random bits, used where there is no journal yet.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        source: &Source,
        nonce: u64,
    ) -> Result<(Self, Opened), OpenError> {
        recover::open(disk, config, source, nonce)
    }

    fn assemble(parts: Parts) -> Self {
        let parent = parts.table.entries.last().map(|entry| Parent {
            epoch: entry.epoch,
            lanes: entry.lanes().map(|(lane, head)| LaneHead { lane, last: head.last, chain: head.chain }).collect(),
        });
        let mut open = parts.open;
        let view = open.view(parts.nonce);
        let sealed = Arc::new(parts.sealed);
        let gone = Arc::new(parts.gone);
        let catalog = Catalog {
            sealed: Arc::clone(&sealed),
            open: view,
            gone: Arc::clone(&gone),
            epochs: Arc::default(),
            live: None,
        };
        let mut journal = Self {
            disk: parts.disk,
            config: parts.config,
            source: parts.source,
            nonce: parts.nonce,
            _lock: parts.lock,
            sealed,
            open,
            table: parts.table,
            live: None,
            parent,
            group: None,
            buffer: Vec::new(),
            gone,
            views: Arc::default(),
            snapshots: parts.snapshots,
            cursor: parts.cursor,
            forgotten: BTreeMap::new(),
            spares: parts.spares,
            ballast_bytes: parts.ballast_bytes,
            is_short: false,
            damage: Vec::new(),
            scrub_at: (0, 0),
            wall_last: parts.wall_last,
            poisoned: false,
            published: watch::Sender::new(Arc::new(catalog)),
            bytes_written: 0,
            syncs: 0,
        };
        journal.rebuild_views();
        journal.publish();
        journal
    }

    /// Begins a new epoch; once per opening. The caller stages its `epoch_start` first.
    ///
    /// # Panics
    /// When an epoch was started before, when that epoch is known, or when something is staged: bugs of the caller.
    pub fn start_epoch(&mut self, epoch: Epoch) {
        assert!(self.live.is_none(), "a process appends to one epoch");
        assert!(self.table.get(epoch).is_none() || planted::is(Bug::SequenceContinued), "an epoch is never continued");
        assert!(self.group.is_none(), "an epoch begins with a group of its own");
        let parent = self.parent.as_ref().map(|parent| parent.epoch);
        self.table.entry(epoch, parent);
        self.live = Some(epoch);
        self.rebuild_views();
    }

    /// The epoch that is appended to.
    pub const fn epoch(&self) -> Option<Epoch> {
        self.live
    }

    /// The epoch of the last recovered records, which a new epoch descends from.
    pub const fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// Looks an identity up. The frame of a `Synced` answer was read and is whole; damage met on the way is dealt with and told by
    /// [`Journal::take_damage`].
    pub fn find(&mut self, key: IdentityKey) -> Result<Found, JournalError> {
        self.check()?;
        let passed: Vec<Arc<Sealed>> =
            self.sealed.iter().filter(|sealed| sealed.filter.may_hold(&key)).cloned().collect();
        for sealed in passed {
            for offset in self.offsets_in(&sealed, key)? {
                let position = Position::new(sealed.number, offset);
                if self.is_there(position)? {
                    return Ok(Found::Synced(position));
                }
            }
        }
        let open = self.open.identities.range((key, 0)..=(key, u32::MAX));
        let offsets: Vec<u32> = open.map(|(_, offset)| *offset).collect();
        for offset in offsets {
            let position = Position::new(self.open.number, offset);
            if offset >= self.open.end {
                return Ok(Found::Pending(position));
            }
            if self.is_there(position)? {
                return Ok(Found::Synced(position));
            }
        }
        Ok(Found::Nothing)
    }

    /// Where the side file of a segment says that records of this identity stand; the file is mended first where it must be.
    fn offsets_in(&mut self, sealed: &Sealed, key: IdentityKey) -> Result<Vec<u32>, JournalError> {
        if let Ok(Some(offsets)) = sealed.filter.offsets(self.disk.as_ref(), sealed.number, &key) {
            return Ok(offsets);
        }
        self.deal_with(sealed.number)?;
        let Some(mended) = self.sealed_at(sealed.number) else { return Ok(Vec::new()) };
        let offsets = mended.filter.offsets(self.disk.as_ref(), sealed.number, &key);
        offsets
            .map(Option::unwrap_or_default)
            .map_err(|source| JournalError::Disk { what: "look an identity up", source })
    }

    /// Whether a record stands there, whole. Where it is damaged that is dealt with, and it is lost; where the disk merely fails to
    /// read it nobody may say so, or it would be recorded twice.
    fn is_there(&mut self, position: Position) -> Result<bool, JournalError> {
        match self.read_at(position) {
            Ok(frame) => return Ok(matches!(frame, Frame::Record { .. })),
            Err(ReadError::NotThere(_)) => return Ok(false),
            Err(ReadError::Damaged(_) | ReadError::Disk { .. }) => self.deal_with(position.segment())?,
        }
        match self.read_at(position) {
            Ok(frame) => Ok(matches!(frame, Frame::Record { .. })),
            Err(ReadError::NotThere(_) | ReadError::Damaged(_)) => Ok(false),
            Err(ReadError::Disk { source, .. }) => Err(JournalError::Disk { what: "read a record back", source }),
        }
    }

    fn deal_with(&mut self, segment: u32) -> Result<(), JournalError> {
        let found = self.handle_damage(segment)?;
        self.damage.extend(found);
        Ok(())
    }

    /// The end of what is synced: what a checkpoint of everything folded so far states, and where [`Journal::replay`] goes on from.
    pub const fn end(&self) -> Position {
        Position::new(self.open.number, self.open.end)
    }

    /// Reads the frame at a position.
    pub fn read_at(&self, position: Position) -> Result<Frame, ReadError> {
        let catalog = self.catalog();
        let span = catalog.span(position.segment()).ok_or(ReadError::NotThere(position))?;
        if position.offset() < span.header_bytes || position.offset() >= span.end {
            return Err(ReadError::NotThere(position));
        }
        let disk_error = |source: io::Error| {
            let is_missing = source.kind() == io::ErrorKind::NotFound;
            if is_missing { ReadError::Damaged(position) } else { ReadError::Disk { position, source } }
        };
        let sealed_file;
        let file: &dyn DiskFile = if span.number == self.open.number {
            self.open.file.as_ref()
        } else {
            sealed_file = self.disk.open_read(&path(&segment_name(span.number))).map_err(disk_error)?;
            sealed_file.as_ref()
        };
        let left = (span.end - position.offset()) as usize;
        let mut bytes = vec![0; left.min(4096)];
        loop {
            let count = file.read_at(&mut bytes, u64::from(position.offset())).map_err(disk_error)?;
            let ahead = bytes.get(..count).unwrap_or(&[]);
            match frame::decode(ahead, Seed::new(span.nonce, span.number), position.offset()) {
                Decoded::Frame(view) => {
                    return replay::frame(view.header, view.payload).ok_or(ReadError::NotThere(position));
                }
                Decoded::Short(wanted) if wanted > bytes.len() && wanted <= left => bytes.resize(wanted, 0),
                Decoded::Short(_) | Decoded::Bad if span.hole_end(position.offset()).is_some() => {
                    return Err(ReadError::NotThere(position));
                }
                Decoded::Short(_) | Decoded::Bad => return Err(ReadError::Damaged(position)),
            }
        }
    }

    /// The synced frames from `from` on, local ones included, in bounded memory. It sees what was synced when it was made.
    pub fn replay(&self, from: Position) -> Replay {
        Replay::new(Arc::clone(&self.disk), self.catalog(), from)
    }

    /// Where the newest complete state snapshot begins.
    pub const fn snapshot(&self) -> Option<Position> {
        self.snapshots.complete
    }

    /// A reader for another thread.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.disk), self.published.subscribe())
    }

    /// The epochs that are not wholly safe or still retained, oldest first.
    pub fn lanes(&self) -> Vec<EpochView> {
        self.catalog().views()
    }

    /// Takes over what the hub said of a lane. It may be lower than before: a hub restored from a backup.
    pub fn acknowledge(&mut self, key: LaneKey, marks: Marks) {
        self.cursor.set_marks(key, marks);
    }

    /// What the hub said of a lane.
    pub fn marks(&self, key: LaneKey) -> Marks {
        self.cursor.place(key).marks
    }

    /// Writes the marks to the disk, if they changed.
    pub fn save_cursor(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if !self.cursor.is_dirty() && self.cursor.segment == self.open.number {
            return Ok(());
        }
        self.cursor.segment = self.open.number;
        let disk = Arc::clone(&self.disk);
        self.syncs += 2;
        self.cursor.save(disk.as_ref()).map_err(|error| self.failed("save the cursor", error))
    }

    /// Saves the cursor and writes the closing mark, which proves everything before it. What was staged and not committed is dropped.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.unstage();
        self.save_cursor()?;
        self.write_closing()
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.published.borrow())
    }

    /// Shows readers what is synced now.
    fn publish(&mut self) {
        let live = self.live.map(|epoch| (epoch, self.live_heads()));
        let catalog = Catalog {
            sealed: Arc::clone(&self.sealed),
            open: self.open.view(self.nonce),
            gone: Arc::clone(&self.gone),
            epochs: Arc::clone(&self.views),
            live,
        };
        self.published.send_replace(Arc::new(catalog));
    }

    /// Computes the views of all epochs anew, after anything but an append.
    fn rebuild_views(&mut self) {
        let mut firsts: BTreeMap<LaneKey, (Seq, Option<Chain>)> = BTreeMap::new();
        for run in self.sealed.iter().flat_map(|sealed| &sealed.runs).chain(&self.open.content.runs) {
            firsts.entry(run.key).or_insert((run.first, run.before));
        }
        for gone in self.gone.iter() {
            let first = firsts.entry(gone.key).or_insert((gone.range.last.next(), gone.chain_after));
            if gone.range.first < first.0 {
                let is_genesis = gone.range.first == Seq::FIRST;
                *first = (gone.range.first, is_genesis.then(|| Chain::genesis(gone.key.epoch, gone.key.lane)));
            }
        }
        let views = self.table.entries.iter().map(|entry| self.view_of(entry, &firsts)).collect();
        self.views = Arc::new(views);
    }

    fn view_of(&self, entry: &Entry, firsts: &BTreeMap<LaneKey, (Seq, Option<Chain>)>) -> EpochView {
        let lanes = entry
            .lanes()
            .map(|(lane, head)| {
                let key = LaneKey { epoch: entry.epoch, lane };
                let (first, before) = firsts.get(&key).copied().unwrap_or((head.last.next(), head.chain));
                let gone = self.gone.iter().filter(|gone| gone.key == key).copied().collect();
                LaneView { lane, first, before, last: head.last, after: head.chain, gone }
            })
            .collect();
        EpochView { epoch: entry.epoch, parent: entry.parent, live: self.live == Some(entry.epoch), lanes }
    }
}
