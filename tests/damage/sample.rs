//! The journal that is damaged: two hundred records in three epochs and three lanes, several segments, a part given back to the hub,
//! one epoch that ended in a kill.
//!
//! Invariant: everything that was acknowledged and is not given back stands in `acked`, with where it stands on the disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use counterfoil::journal::disk::memory::Cut;
use counterfoil::journal::{IdentityKey, Journal, JournalConfig, Marks, MemoryDisk};
use counterfoil_proto::id::{AgentId, Digest, Epoch, Lane, LaneKey, RecordKey, Seq, Source, StoreId};
use counterfoil_proto::record::{Envelope, Kind as RecordKind, Record};
use counterfoil_proto::time::WallTime;

use crate::layout::{self, Frame, Kind};

pub(crate) const NOW: WallTime = WallTime(1_700_000_000_000);
/// Records that the hub does not have.
const RECORDS: usize = 200;
/// Records before those, that it has.
const HANDED_OVER: usize = 80;
const NONCE: u64 = 77;

pub(crate) const CONFIG: JournalConfig = JournalConfig {
    segment_bytes: 8192,
    bytes_max: 1 << 30,
    free_bytes_min: 0,
    retain_ms: 1000,
    checkpoint_bytes_max: 0,
    ops_shed_segments: 2,
    spares_max: 1,
    format_write: 2,
};

pub(crate) fn source() -> Source {
    Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() }
}

/// Opens the journal on a disk.
pub(crate) fn open(
    disk: &MemoryDisk,
) -> Result<(Journal, counterfoil::journal::Opened), counterfoil::journal::OpenError> {
    open_to_write(disk, CONFIG.format_write)
}

fn open_to_write(
    disk: &MemoryDisk,
    format_write: u16,
) -> Result<(Journal, counterfoil::journal::Opened), counterfoil::journal::OpenError> {
    Journal::open(Arc::new(disk.clone()), JournalConfig { format_write, ..CONFIG }, &source(), NONCE)
}

/// Document number `n`: the key that it is found by, and its stored bytes.
pub(crate) fn document(n: usize) -> (Vec<IdentityKey>, Vec<u8>) {
    let text = format!("{{\"n\":{n}}}").into_bytes();
    let envelope = Envelope {
        recorded_at: NOW,
        content_digest: Digest::of(&text),
        identity: Some(format!("d/{n}")),
        ..Envelope::default()
    };
    let keys = IdentityKey::of_envelope(&envelope);
    let record = Record { kind: RecordKind::TRANSACTION, envelope, document: text };
    (keys, record.encode().unwrap())
}

/// A record that a till was told is safe.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    /// The number of its document.
    pub(crate) n: usize,
    pub(crate) stored: Vec<u8>,
    /// The file that it stands in.
    pub(crate) file: String,
    /// Its frame without padding.
    pub(crate) bytes: Range<usize>,
}

/// A journal that is closed, or whose process was killed.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) disk: MemoryDisk,
    pub(crate) acked: BTreeMap<RecordKey, Acked>,
    /// What may be there beside it: staged and not acknowledged, or not owed any more.
    pub(crate) given: BTreeMap<RecordKey, Vec<Vec<u8>>>,
    /// Per segment file.
    pub(crate) frames: BTreeMap<String, Vec<Frame>>,
    /// Up to where the hub has a lane for good: of that the journal owes nothing.
    pub(crate) safe: BTreeMap<LaneKey, Seq>,
    /// Files but for the ballast, which nobody reads (`calls::nobody_reads_the_ballast`), with their lengths.
    pub(crate) files: Vec<(String, usize)>,
    /// The last segment file.
    pub(crate) last: String,
}

/// The life of the journal until the damage.
struct Life {
    disk: MemoryDisk,
    journal: Option<Journal>,
    given: BTreeMap<RecordKey, (usize, Vec<u8>)>,
    safe: BTreeMap<LaneKey, Seq>,
}

impl Life {
    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().unwrap()
    }

    fn start(&mut self, epoch: u8) {
        self.disk.kill();
        // A box that was upgraded: the first epoch is in format 1, what follows in 2.
        self.journal = Some(open_to_write(&self.disk, if epoch == 1 { 1 } else { 2 }).unwrap().0);
        self.journal().start_epoch(Epoch([epoch; 16]));
    }

    /// Appends groups of one to seven records until there are so many.
    fn append_until(&mut self, count: usize) {
        while self.given.len() < count {
            let size = (1 + self.given.len() * 5 % 7).min(count - self.given.len());
            for _ in 0..size {
                let n = self.given.len() + 1;
                let (keys, stored) = document(n);
                let lane = [Lane::Trade, Lane::Stock, Lane::Trade, Lane::Ops, Lane::Trade][n % 5];
                let staged = self.journal().stage(lane, &keys, &stored).unwrap();
                self.given.insert(staged.key, (n, stored));
            }
            self.journal().commit(NOW).unwrap();
        }
    }

    /// The hub has everything so far; what of it fills segments is given back.
    fn hand_over(&mut self) {
        for view in self.journal().lanes() {
            for lane in &view.lanes {
                let key = LaneKey { epoch: view.epoch, lane: lane.lane };
                self.journal().acknowledge(key, Marks { stored: lane.last, safe: lane.last });
                self.safe.insert(key, lane.last);
            }
        }
        self.journal().save_cursor().unwrap();
        self.journal().stage_local(0, 1, b"a state snapshot").unwrap();
        self.journal().commit(NOW).unwrap();
        let end = self.journal().end();
        assert!(self.journal().reclaim(WallTime(NOW.0 + 5000), end).unwrap().segments > 0, "segments are given back");
    }
}

impl Sample {
    /// Two hundred records that are owed; `clean`: closed at the end, else killed.
    pub(crate) fn new(clean: bool) -> Self {
        let disk = MemoryDisk::new();
        let mut life = Life { disk, journal: None, given: BTreeMap::new(), safe: BTreeMap::new() };
        life.start(1);
        life.append_until(HANDED_OVER);
        life.hand_over();
        life.append_until(140);
        life.journal.take().unwrap().close().unwrap();
        life.start(2);
        life.append_until(210);
        life.journal = None;
        life.start(3);
        life.append_until(RECORDS + HANDED_OVER);
        let journal = life.journal.take().unwrap();
        if clean {
            journal.close().unwrap();
            life.disk.power_cut(Cut::DropAll);
        } else {
            // The process alone died: what it wrote is there, synced or not.
            life.disk.power_cut(Cut::KeepAll);
        }
        Self::of(&life)
    }

    fn of(life: &Life) -> Self {
        let files: Vec<(String, usize)> = life
            .disk
            .files()
            .into_iter()
            .map(|file| (file.name, usize::try_from(file.bytes).unwrap()))
            .filter(|(name, _)| !name.ends_with("/ballast"))
            .collect();
        let segments = files.iter().map(|(name, _)| name).filter(|name| name.contains(".seg"));
        let frames: BTreeMap<String, Vec<Frame>> =
            segments.map(|name| (name.clone(), layout::frames(&life.disk.content(name).unwrap()))).collect();
        let mut acked = BTreeMap::new();
        for (file, frames) in &frames {
            for frame in frames {
                let Kind::Record(key) = frame.kind else { continue };
                let (n, stored) = life.given[&key].clone();
                acked.insert(key, Acked { n, stored, file: file.clone(), bytes: frame.bytes.clone() });
            }
        }
        let is_owed = |key: &&RecordKey| life.safe.get(&key.lane_key()).is_none_or(|safe| key.seq > *safe);
        assert!(life.given.keys().filter(is_owed).all(|key| acked.contains_key(key)), "what the hub lacks is there");
        assert_eq!(life.given.keys().filter(is_owed).count(), RECORDS);
        let last = frames.keys().next_back().unwrap().clone();
        let bytes: usize = files.iter().map(|(_, bytes)| bytes).sum();
        assert!(frames.len() >= 4 && bytes <= 256 * 1024, "{} segments, {bytes} bytes", frames.len());
        Self { disk: life.disk.copy(), acked, given: BTreeMap::new(), frames, safe: life.safe.clone(), files, last }
    }

    /// The frame that a byte of a segment file stands in, padding aside.
    pub(crate) fn frame_at(&self, file: &str, offset: usize) -> Option<&Frame> {
        self.frames.get(file)?.iter().find(|frame| frame.bytes.contains(&offset))
    }

    /// The records of a file, or of the segment that a side file is about.
    pub(crate) fn records_in<'a>(&'a self, file: &'a str) -> impl Iterator<Item = (&'a RecordKey, &'a Acked)> {
        let segment = file.strip_suffix(".idx");
        self.acked.iter().filter(move |(_, acked)| {
            acked.file == file || (segment.is_some() && acked.file.strip_suffix(".seg") == segment)
        })
    }
}
