//! The pieces of which dealing with damage is made, each at both sides of its decisions. Most were written for a mutant that lived.

use std::io;

use super::*;
use counterfoil_proto::id::SeqRange;

use crate::journal::damage::{mend_header, punch, quarantine, read_tolerant, subtract};
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::scan::Content;
use crate::journal::segment::{Making, SegmentHeader};
use crate::journal::table::{Entry, Head, Table};

const NONCE: u64 = 77;

/// A file of sevens of which some pages cannot be read, and after `reads` calls nothing can. It cannot be written either.
#[derive(Debug)]
struct Sectors {
    bytes: usize,
    bad: Vec<u64>,
    reads: std::sync::atomic::AtomicU64,
}

impl DiskFile for Sectors {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.reads.load(std::sync::atomic::Ordering::Relaxed);
        self.reads.store(left.saturating_sub(1), std::sync::atomic::Ordering::Relaxed);
        let pages = offset / 4096..(offset + buffer.len() as u64).div_ceil(4096);
        if left == 0 || self.bad.iter().any(|page| pages.contains(page)) {
            return Err(io::Error::other("a bad sector"));
        }
        let count = self.bytes.saturating_sub(usize::try_from(offset).unwrap()).min(buffer.len());
        buffer[..count].fill(7);
        Ok(count)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("a bad sector"))
    }
    fn preallocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes as u64)
    }
}

fn sectors(bytes: usize, bad: &[u64], reads: u64) -> Sectors {
    Sectors { bytes, bad: bad.to_vec(), reads: reads.into() }
}

#[test]
fn pages_that_cannot_be_read_are_zeros_and_a_disk_that_reads_nothing_is_an_error() {
    let length = 3 * 4096;
    assert_eq!(read_tolerant(&sectors(length, &[], 1), length).unwrap(), vec![7; length]);
    let expected = [vec![7; 4096], vec![0; 4096], vec![7; 4096]].concat();
    assert_eq!(read_tolerant(&sectors(length, &[1], 99), length).unwrap(), expected);
    assert_eq!(read_tolerant(&sectors(4096, &[], 1), length).unwrap()[4096..], vec![0; length - 4096]);
    assert!(read_tolerant(&sectors(length, &[0, 1, 2], 99), length).is_err());
    // It read one page, and then nothing any more.
    assert!(read_tolerant(&sectors(length, &[2], 2), length).is_err());
}

#[test]
fn raw_bytes_are_kept_up_to_the_bound_each_in_its_own_file() {
    let disk = MemoryDisk::new();
    let names: Vec<String> = (0..3).map(|turn| quarantine(&disk, 5, 64, &[turn; 9]).unwrap()).collect();
    for (turn, name) in names.iter().enumerate() {
        assert_eq!(disk.content(&format!("quarantine/{name}")).unwrap(), vec![turn as u8; 9], "{names:?}");
    }
    assert_eq!(quarantine(&disk, 5, 64, &[]), None);
    let filled = limits::QUARANTINE_BYTES_MAX - 27 - 10;
    disk.set_content("quarantine/other", vec![0; usize::try_from(filled).unwrap()]);
    assert_eq!(quarantine(&disk, 6, 0, &[1; 11]), None);
    assert!(quarantine(&disk, 6, 0, &[1; 10]).is_some(), "it fits exactly");
}

#[test]
fn holes_stand_where_they_fit_and_the_rest_is_said() {
    let disk = MemoryDisk::new();
    let file = disk.create("file").unwrap();
    let (seed, bytes) = (Seed::new(NONCE, 1), vec![9; 300]);
    file.write_at(&bytes, 0).unwrap();
    let bad = [(64, 104), (160, 168), (200, 296), (296, 400)];
    let (kept, left) = punch(&disk, file.as_ref(), seed, 1, &bytes, &bad);
    assert_eq!(left, [(160, 168)], "no frame fits there");
    let lengths: Vec<usize> =
        kept.iter().map(|name| disk.content(&format!("quarantine/{name}")).unwrap().len()).collect();
    assert_eq!(lengths, [40, 8, 96, 4], "of the last one the file holds the beginning alone");
    let after = disk.content("file").unwrap();
    for (start, end) in [(64_u32, 104_u32), (200, 296), (296, 400)] {
        let frame::Decoded::Frame(hole) = frame::decode(&after[start as usize..], seed, start) else {
            panic!("no hole at {start}")
        };
        assert_eq!((hole.header.kind, hole.bytes), (frame::Kind::Hole, (end - start) as usize));
    }
    assert_eq!(after[160..168], [9; 8]);
    let (_, left) = punch(&disk, &sectors(300, &[], 99), seed, 1, &bytes, &bad);
    assert_eq!(left, bad, "nothing could be written");
}

fn header(epochs: u8) -> SegmentHeader {
    let table = (1..=epochs).map(|n| Entry::new(epoch(n), None)).collect();
    SegmentHeader {
        number: 3,
        nonce: NONCE,
        proven: 0,
        previous_end: 0,
        recycled: false,
        wall: NOW,
        source: source(),
        making: None,
        table,
    }
}

#[test]
fn a_mended_header_is_as_long_as_the_old_one_and_forgets_the_oldest_epochs_first() {
    for (epochs, length) in [(0, 4), (3, 3), (3, 2), (5, 0), (4, 9)] {
        let length_of = |epochs| header(epochs).encode(0).len();
        let bytes = mend_header(header(epochs), length_of(length) as u32);
        assert_eq!(bytes.len(), length_of(length));
        let (mended, _) = SegmentHeader::decode(&bytes).unwrap();
        let expected = (epochs.saturating_sub(length) + 1..=epochs).map(epoch).collect::<Vec<_>>();
        let named: Vec<_> = mended.table.iter().map(|entry| entry.epoch).collect();
        assert!(named.ends_with(&expected) && named.len() <= expected.len() + 1, "{epochs} in {length}: {named:?}");
        assert_eq!(length_of(named.len() as u8).min(length_of(length)), length_of(named.len() as u8));
    }
    // What format 2 says more goes before any epoch does.
    let longer = |epochs| SegmentHeader { making: Making::now(2, 4096), ..header(epochs) };
    for (epochs, room, format) in [(3, header(3).encode(0).len(), 1), (3, longer(3).encode(0).len(), 2)] {
        let (mended, length) = SegmentHeader::decode(&mend_header(longer(epochs), room as u32)).unwrap();
        assert_eq!((mended.format(), mended.table.len(), length as usize), (format, 3, room));
    }
    // Not even without a table does it fit: it is written all the same.
    assert!(!mend_header(header(0), 8).is_empty());
}

fn trade() -> LaneKey {
    lane_key(epoch(1), Lane::Trade)
}

fn gone(key: LaneKey, first: u64, last: u64) -> Gone {
    let range = SeqRange { first: Seq(first), last: Seq(last) };
    Gone { key, range, reason: GoneReason::Damaged, chain_after: Some(Chain([5; 32])) }
}

type Ranges = &'static [(u64, u64)];

#[test]
fn what_is_known_to_be_gone_is_left_out() {
    let stock = lane_key(epoch(1), Lane::Stock);
    let cases: [(Ranges, Ranges); 12] = [
        (&[], &[(5, 9)]),
        (&[(5, 9)], &[]),
        (&[(1, 20)], &[]),
        (&[(1, 4), (10, 12)], &[(5, 9)]),
        (&[(1, 5)], &[(6, 9)]),
        (&[(9, 12)], &[(5, 8)]),
        (&[(5, 5)], &[(6, 9)]),
        (&[(9, 9)], &[(5, 8)]),
        (&[(7, 7)], &[(5, 6), (8, 9)]),
        (&[(8, 8), (6, 6)], &[(5, 5), (7, 7), (9, 9)]),
        (&[(5, 6), (7, 9)], &[]),
        (&[(6, 8), (1, 2), (20, 30)], &[(5, 5), (9, 9)]),
    ];
    for (known, expected) in cases {
        let mut known: Vec<Gone> = known.iter().map(|(first, last)| gone(trade(), *first, *last)).collect();
        known.push(gone(stock, 1, 99));
        let left = subtract(gone(trade(), 5, 9), &known);
        let ranges: Vec<_> = left.iter().map(|gone| (gone.range.first.0, gone.range.last.0)).collect();
        assert_eq!(ranges, expected, "{known:?}");
        for piece in &left {
            assert_eq!(piece.chain_after.is_some(), piece.range.last == Seq(9), "the chain is that after the last");
        }
    }
}

fn head(last: u64, chain: Option<u8>) -> Head {
    Head { last: Seq(last), chain: chain.map(|byte| Chain([byte; 32])) }
}

fn stating(lanes: &[(Lane, Head)]) -> Vec<Entry> {
    let mut entry = Entry::new(epoch(1), None);
    for (lane, head) in lanes {
        entry.heads[table::lane_index(*lane)] = Some(*head);
    }
    vec![entry]
}

#[test]
fn a_head_that_is_stated_names_what_was_not_met_and_not_given_back() {
    for floor in 0..=4_u64 {
        let (mut table, mut cursor) = (Table::default(), Cursor::default());
        if floor > 0 {
            cursor.raise_floor(trade(), Seq(floor));
        }
        let mut content = Content::default();
        let stated = stating(&[(Lane::Trade, head(3, Some(9)))]);
        content.state_entries(&mut table, &cursor, &stated, 64, GoneReason::Missing);
        assert_eq!(table.head(trade()), head(3, Some(9)), "floor {floor}");
        let ranges: Vec<_> = content.gone.iter().map(|gone| (gone.range.first.0, gone.range.last.0)).collect();
        assert_eq!(ranges, if floor < 3 { vec![(floor + 1, 3)] } else { vec![] });
        let before: Vec<_> = content.runs.iter().map(|run| run.before).collect();
        let genesis = Chain::genesis(epoch(1), Lane::Trade);
        let expected = [vec![Some(genesis)], vec![None], vec![None], vec![], vec![]];
        assert_eq!(before, expected[usize::try_from(floor).unwrap()], "the chain before it is that of the beginning");
    }
}

#[test]
fn a_chain_that_damage_hid_is_taken_from_where_it_is_stated_again() {
    let stock = lane_key(epoch(1), Lane::Stock);
    let (mut table, cursor, mut content) = (Table::default(), Cursor::default(), Content::default());
    let state = |content: &mut Content, table: &mut Table, lanes: &[(Lane, Head)]| {
        content.state_entries(table, &cursor, &stating(lanes), 64, GoneReason::Damaged);
    };
    // Two ranges of the lane and one of another, of which no chain is known.
    state(&mut content, &mut table, &[(Lane::Trade, head(2, None)), (Lane::Stock, head(4, None))]);
    state(&mut content, &mut table, &[(Lane::Trade, head(4, None))]);
    state(&mut content, &mut table, &[(Lane::Trade, head(4, Some(8)))]);
    let chains = |content: &Content| content.gone.iter().map(|gone| gone.chain_after).collect::<Vec<_>>();
    let eight = Some(Chain([8; 32]));
    assert_eq!(chains(&content), [None, None, eight], "{:?}", content.gone);
    let after = |content: &Content, key| content.runs.iter().find(|run| run.key == key).unwrap().after;
    assert_eq!((after(&content, trade()), after(&content, stock)), (eight, None));
    assert_eq!(table.head(trade()), head(4, Some(8)));
    // What is known is not replaced, whatever is said: not by another chain, not by none, not by an earlier number.
    for other in [head(4, Some(1)), head(4, None), head(3, Some(1))] {
        state(&mut content, &mut table, &[(Lane::Trade, other)]);
        assert_eq!((table.head(trade()), after(&content, trade())), (head(4, Some(8)), eight), "{other:?}");
    }
    assert_eq!(chains(&content), [None, None, eight]);
    // Nor does an earlier number show the chain of a later one.
    state(&mut content, &mut table, &[(Lane::Stock, head(3, Some(1)))]);
    assert_eq!((table.head(stock), after(&content, stock)), (head(4, None), None));
}

#[test]
fn each_lane_has_its_marks() {
    let stock = lane_key(epoch(1), Lane::Stock);
    let mut content = Content::default();
    let mut heads = [head(0, None); 2];
    for turn in 0..100_u32 {
        for (index, key) in [trade(), stock].into_iter().enumerate() {
            let seq = heads[index].last.next();
            content.add_record(key, heads[index], seq, None, turn * 20_000 + index as u32 * 8);
            heads[index].last = seq;
        }
    }
    for run in 0..2 {
        let offsets: Vec<u32> =
            content.marks.iter().filter(|mark| mark.run == run).map(|mark| mark.offset / 20_000).collect();
        assert_eq!(offsets, [14, 28, 42, 56, 70, 84, 98], "every 14 records are 256 KiB");
    }
}

#[test]
fn a_frame_of_which_the_padding_is_cut_is_no_whole_one() {
    let seed = Seed::new(NONCE, 1);
    let mut bytes = Vec::new();
    for seq in 1..=2 {
        let offset = bytes.len() as u32;
        let header = frame::Header { kind: frame::Kind::Record, lane: Lane::Trade, group: 0, seq, epoch: epoch(1) };
        frame::encode(&mut bytes, seed, offset, &header, &[3; 9]);
    }
    assert_eq!(scan::items(&bytes, seed, 0).items.len(), 2);
    bytes.truncate(bytes.len() - 1);
    let found = scan::items(&bytes, seed, 0);
    assert_eq!((found.items.len(), found.bad.len()), (1, 0));
}
