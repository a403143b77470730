//! A journal out of foreign bytes: opened, read, appended to, opened again.
//!
//! An input is a list of files: the place of the name in [`NAMES`] (a byte), the length (two bytes, little-endian), the bytes. With
//! [`SEALED`] in the first byte the checksums of the file are made to fit (`seal`), so that what stands behind them is met too.

use std::sync::Arc;

mod seal;

use counterfoil::journal::{Journal, JournalConfig, MemoryDisk, Position, Read, Replayed};
use counterfoil_proto::id::{AgentId, Epoch, Lane, LaneKey, Source, StoreId};
use counterfoil_proto::time::WallTime;

/// The files that an input may hold.
pub(crate) const NAMES: [&str; 9] = [
    "binding",
    "cursor.0",
    "cursor.1",
    "journal/0000000001.seg",
    "journal/0000000001.idx",
    "journal/0000000002.seg",
    "journal/0000000002.idx",
    "journal/0000000003.seg",
    "journal/spare-0000000004",
];

/// The bit beside the place of a name.
const SEALED: u8 = 0x80;

/// Records that are read: far more than an input can hold.
const RECORDS_MAX: usize = 100_000;

/// Damages that are dealt with in one life: each of them mends its segment, so that there are few.
const DAMAGES_MAX: usize = 100;

fn disk(mut bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    while let [name, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let mut content = content.to_vec();
        if let Some(place) = NAMES.get(usize::from(*name & !SEALED)) {
            if name & SEALED != 0 {
                seal::seal(place, &mut content);
            }
            disk.set_content(place, content);
        }
        bytes = rest;
    }
    disk
}

pub(super) fn recover(bytes: &[u8]) {
    let disk = disk(bytes);
    for start in 1..=2 {
        disk.kill();
        let Some(mut journal) = open(&disk, u16::from(start)) else { return };
        read(&mut journal);
        let epoch = Epoch([200 + start; 16]);
        if journal.lanes().iter().all(|view| view.epoch != epoch) {
            journal.start_epoch(epoch);
            journal.stage(Lane::Trade, &[], b"stored").expect("there is room");
            journal.commit(WallTime(1)).expect("the disk works");
        }
    }
}

fn open(disk: &MemoryDisk, format_write: u16) -> Option<Journal> {
    let source =
        Source { store_id: StoreId::new("0042").expect("a store"), agent_id: AgentId::new("box1").expect("an agent") };
    let config = JournalConfig {
        segment_bytes: 4096,
        checkpoint_bytes_max: 4096,
        free_bytes_min: 0,
        format_write,
        ..JournalConfig::default()
    };
    Journal::open(Arc::new(disk.clone()), config, &source, 77).ok().map(|(journal, _)| journal)
}

fn read(journal: &mut Journal) {
    let mut damages = 0;
    let met: Vec<u32> = journal
        .replay(Position::START)
        .filter_map(|entry| match entry {
            Ok(Replayed::Damaged { segment }) => Some(segment),
            Ok(Replayed::Frame { .. }) | Err(_) => None,
        })
        .collect();
    for segment in met {
        damages += journal.handle_damage(segment).expect("the disk works").len();
    }
    let mut reader = journal.reader();
    for view in reader.lanes() {
        for lane in view.lanes {
            let key = LaneKey { epoch: view.epoch, lane: lane.lane };
            let mut next = lane.first;
            let mut records = 0;
            while next <= lane.last && records < RECORDS_MAX {
                next = match reader.read(key, next, 64, 1 << 20).expect("the disk works") {
                    Read::Records { first, stored } => {
                        records += stored.len();
                        first.plus(stored.len() as u64)
                    }
                    Read::Damaged { segment } => {
                        damages += 1;
                        assert!(damages < DAMAGES_MAX, "damage that is dealt with is dealt with");
                        journal.handle_damage(segment).expect("the disk works");
                        next
                    }
                    Read::Gone(gone) => gone.range.last.next(),
                    Read::Reclaimed { first, .. } => {
                        assert!(first > next, "a reader is led on");
                        first
                    }
                    Read::NotYet => break,
                };
            }
        }
    }
}
