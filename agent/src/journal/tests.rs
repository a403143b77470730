//! Tests of the journal as a whole. The model is a list of what was acknowledged; each test breaks something and compares.
//!
//! Oracle: each acknowledged record is read back with its bytes under its number, or is named as gone; numbers have no other holes; no
//! (epoch, lane, seq) was ever seen with two contents.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the numbers and names of these tests are small and their own"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use counterfoil_proto::id::{AgentId, Digest, Epoch, Lane, LaneKey, RecordKey, Seq, Source, StoreId};
use counterfoil_proto::record::{Envelope, Kind as RecordKind, Record};
use counterfoil_proto::time::WallTime;

use super::disk::memory::{Call, Cut, Failure};
use super::*;

mod basics;
mod checking;
mod damaged;
mod edges;
mod failing;
mod figures;
mod formats;
mod golden;
mod lookups;
mod mending;
mod powercut;
mod reclaiming;
mod recovering;
mod system;

pub(super) const NOW: WallTime = WallTime(1_700_000_000_000);

pub(super) fn source() -> Source {
    Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() }
}

/// Small segments, so that a few records turn them.
pub(super) fn small() -> JournalConfig {
    JournalConfig {
        segment_bytes: 4096,
        bytes_max: 1 << 30,
        free_bytes_min: 0,
        retain_ms: 1000,
        checkpoint_bytes_max: 4096,
        ops_shed_segments: 2,
        spares_max: 2,
        format_write: 1,
    }
}

pub(super) fn identity(n: u64) -> String {
    format!("d/{n}")
}

pub(super) fn key_of(n: u64) -> IdentityKey {
    IdentityKey::of(&identity(n))
}

/// Document number `n` with about `bytes` bytes of text.
pub(super) fn document(n: u64, bytes: usize) -> (Vec<IdentityKey>, Vec<u8>) {
    let text = format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(bytes)).into_bytes();
    let envelope = Envelope {
        recorded_at: NOW,
        content_digest: Digest::of(&text),
        identity: Some(identity(n)),
        alias: Some(format!("t/{n}")),
        ..Envelope::default()
    };
    let keys = IdentityKey::of_envelope(&envelope);
    let record = Record { kind: RecordKind::TRANSACTION, envelope, document: text };
    (keys, record.encode().unwrap())
}

pub(super) fn epoch(n: u8) -> Epoch {
    Epoch([n; 16])
}

/// A journal on a memory disk, with what it acknowledged.
#[derive(Debug)]
pub(super) struct World {
    pub(super) disk: MemoryDisk,
    pub(super) config: JournalConfig,
    pub(super) journal: Option<Journal>,
    pub(super) opened: Opened,
    pub(super) epochs: u8,
    pub(super) documents: u64,
    /// Acknowledged: number, document, stored bytes.
    pub(super) acked: BTreeMap<RecordKey, (u64, Vec<u8>)>,
    /// Everything that was ever staged under a number.
    pub(super) given: BTreeMap<RecordKey, Vec<Vec<u8>>>,
}

impl World {
    pub(super) fn new(config: JournalConfig) -> Self {
        let mut world = Self {
            disk: MemoryDisk::new(),
            config,
            journal: None,
            opened: Opened::default(),
            epochs: 0,
            documents: 0,
            acked: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        world.open();
        world
    }

    pub(super) fn open(&mut self) -> &Opened {
        self.try_open().unwrap();
        &self.opened
    }

    pub(super) fn try_open(&mut self) -> Result<(), OpenError> {
        self.journal = None;
        let (journal, opened) = Journal::open(Arc::new(self.disk.clone()), self.config, &source(), 77)?;
        self.journal = Some(journal);
        self.opened = opened;
        Ok(())
    }

    pub(super) fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("it is open")
    }

    pub(super) fn begin_epoch(&mut self) {
        if self.journal().epoch().is_none() {
            self.epochs += 1;
            let epoch = epoch(self.epochs);
            self.journal().start_epoch(epoch);
        }
    }

    /// Stages and commits one group.
    pub(super) fn append(&mut self, lanes: &[Lane], bytes: usize) -> Result<Vec<RecordKey>, JournalError> {
        self.begin_epoch();
        let mut staged = Vec::new();
        for lane in lanes {
            self.documents += 1;
            let n = self.documents;
            let (keys, stored) = document(n, bytes);
            match self.journal().stage(*lane, &keys, &stored) {
                Ok(at) => {
                    assert_eq!(self.journal().find(keys[0]).unwrap(), Found::Pending(at.position));
                    self.given.entry(at.key).or_default().push(stored.clone());
                    staged.push((at.key, n, stored));
                }
                Err(StageError::Journal(error)) => {
                    self.journal().unstage();
                    return Err(error);
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.journal().commit(NOW)?;
        let keys = staged.iter().map(|(key, _, _)| *key).collect();
        self.acked.extend(staged.into_iter().map(|(key, n, stored)| (key, (n, stored))));
        Ok(keys)
    }

    pub(super) fn trade(&mut self, records: usize) -> Vec<RecordKey> {
        self.append(&vec![Lane::Trade; records], 100).unwrap()
    }

    /// The last segment's file, and all others that matter.
    pub(super) fn names(&self, suffix: &str) -> Vec<String> {
        self.disk.files().into_iter().map(|file| file.name).filter(|name| name.ends_with(suffix)).collect()
    }

    /// Reads everything through a reader; damage met is dealt with.
    pub(super) fn read_all(&mut self) -> Contents {
        let mut contents = Contents::default();
        let mut reader = self.journal().reader();
        for view in reader.lanes() {
            for lane in view.lanes {
                let key = LaneKey { epoch: view.epoch, lane: lane.lane };
                let mut next = lane.first;
                loop {
                    match reader.read(key, next, 7, 10_000).unwrap() {
                        Read::Records { first, stored } => {
                            assert_eq!(first, next);
                            assert!(!stored.is_empty());
                            for stored in stored {
                                contents
                                    .records
                                    .insert(RecordKey { epoch: key.epoch, lane: key.lane, seq: next }, stored);
                                next = next.next();
                            }
                        }
                        Read::Damaged { segment } => {
                            let found = self.journal().handle_damage(segment).unwrap();
                            assert!(!found.is_empty(), "damage that a reader meets is found by the check");
                        }
                        Read::Gone(gone) => {
                            assert!(gone.range.contains(next));
                            contents.gone.push(gone);
                            next = gone.range.last.next();
                        }
                        Read::NotYet => break,
                        Read::Reclaimed { first, .. } => {
                            assert!(first > next, "{first} after {next}");
                            next = first;
                        }
                    }
                }
                assert_eq!(next, reader.last(key).next(), "the lane is read to its head");
            }
        }
        contents
    }

    /// The oracle: everything acknowledged is there or gone, nothing is there that was not given, chains fit.
    pub(super) fn verify(&mut self) -> Vec<Gone> {
        // What a reader does not pass (a group's header behind the last record), a replay does.
        let met: Vec<u32> = self
            .journal()
            .replay(Position::START)
            .filter_map(|entry| match entry.unwrap() {
                Replayed::Damaged { segment } => Some(segment),
                Replayed::Frame { .. } => None,
            })
            .collect();
        for segment in met {
            self.journal().handle_damage(segment).unwrap();
        }
        let contents = self.read_all();
        let is_gone = |key: &RecordKey| {
            contents.gone.iter().any(|gone| gone.key == key.lane_key() && gone.range.contains(key.seq))
        };
        for (key, (n, stored)) in self.acked.clone() {
            match contents.records.get(&key) {
                Some(read) => {
                    assert_eq!(*read, stored, "{key:?}");
                    let found = self.journal().find(key_of(n)).unwrap();
                    let Found::Synced(position) = found else { panic!("document {n} at {key:?}: {found:?}") };
                    let Frame::Record { stored: at, .. } = self.journal().read_at(position).unwrap() else {
                        panic!("no record")
                    };
                    assert_eq!(at, stored);
                }
                None => assert!(is_gone(&key), "{key:?} (document {n}) was acknowledged and is neither there nor gone"),
            }
        }
        for (key, read) in &contents.records {
            assert!(self.given.get(key).is_some_and(|given| given.contains(read)), "{key:?} was never given");
        }
        self.check_chains(&contents);
        self.check_replay(&contents);
        contents.gone
    }

    fn check_chains(&mut self, contents: &Contents) {
        for view in self.journal().lanes() {
            for lane in view.lanes {
                let mut chain = lane.before;
                let mut seq = lane.first;
                while seq <= lane.last {
                    let key = RecordKey { epoch: view.epoch, lane: lane.lane, seq };
                    if let Some(stored) = contents.records.get(&key) {
                        chain = chain.map(|chain| chain.next(seq, Digest::of(stored)));
                        seq = seq.next();
                    } else {
                        let gone =
                            contents.gone.iter().find(|gone| gone.key == key.lane_key() && gone.range.contains(seq));
                        let gone = gone.expect("a hole is named");
                        chain = gone.chain_after;
                        seq = gone.range.last.next();
                    }
                }
                if let (Some(chain), Some(after)) = (chain, lane.after) {
                    assert_eq!(chain, after, "{:?} {:?}", view.epoch, lane.lane);
                }
            }
        }
    }

    fn check_replay(&mut self, contents: &Contents) {
        let mut records = BTreeMap::new();
        let mut last = Position::START;
        for entry in self.journal().replay(Position::START) {
            let Replayed::Frame { position, next, frame } = entry.unwrap() else {
                panic!("damage after it was dealt with")
            };
            assert!(position >= last && next > position);
            last = next;
            if let Frame::Record { key, stored } = frame {
                assert!(records.insert(key, stored).is_none(), "{key:?} twice");
            }
        }
        assert_eq!(records, contents.records);
    }
}

/// What a reader gave.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) records: BTreeMap<RecordKey, Vec<u8>>,
    pub(super) gone: Vec<Gone>,
}

/// A journal of a few segments and lanes, several groups in each, closed or killed; the last epoch is the second, and begins format 2.
pub(super) fn sample(clean: bool) -> World {
    let mut world = World::new(small());
    for _ in 0..6 {
        world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 150).unwrap();
    }
    world.journal.take().unwrap().close().unwrap();
    // From here on somebody has both formats.
    world.config.format_write = 2;
    world.open();
    for _ in 0..5 {
        world.append(&[Lane::Trade, Lane::Trade, Lane::Ops], 150).unwrap();
    }
    world.append(&[Lane::Stock, Lane::Trade], 150).unwrap();
    if clean {
        world.journal.take().unwrap().close().unwrap();
    } else {
        world.journal = None;
    }
    world.disk.power_cut(Cut::DropAll);
    world
}

/// A copy of a world with its disk, closed.
pub(super) fn copy(world: &World) -> World {
    World {
        disk: world.disk.copy(),
        config: world.config,
        journal: None,
        opened: Opened::default(),
        epochs: world.epochs,
        documents: world.documents,
        acked: world.acked.clone(),
        given: world.given.clone(),
    }
}

pub(super) fn fail(call: Call, after: u64, for_ever: bool) -> Failure {
    Failure { call, after, for_ever, kind: std::io::ErrorKind::Other, short_bytes: 0 }
}

pub(super) fn lane_key(epoch: Epoch, lane: Lane) -> LaneKey {
    LaneKey { epoch, lane }
}

pub(super) fn seq(n: u64) -> Seq {
    Seq(n)
}
