//! Damage met while the journal runs: by the check of a segment, by scrubbing, by readers, by the writer. Each test stands at both sides of
//! a decision. Most were written for a mutant that lived.

use std::io::ErrorKind;

use super::damaged::{frames, item_segment, lost};
use super::segment::SegmentHeader;
use super::*;
use crate::journal::frame::Kind;

fn filled() -> World {
    let mut world = World::new(small());
    for _ in 0..40 {
        world.trade(2);
    }
    assert!(world.journal().sealed.len() > 2);
    world
}

fn records(world: &World, name: &str) -> Vec<scan::Item> {
    frames(world, name, 77).into_iter().filter(|item| item.header.kind == Kind::Record).collect()
}

fn spoil(world: &World, name: &str, item: &scan::Item) {
    assert!(world.disk.flip(name, item.offset as usize + 60, 4));
}

fn trade() -> LaneKey {
    lane_key(epoch(1), Lane::Trade)
}

/// One round of scrubbing in steps of so many bytes: what it read, and what it found.
fn round(world: &mut World, bytes_max: usize) -> (Vec<u64>, Vec<Damage>) {
    let (mut bytes, mut damage) = (Vec::new(), Vec::new());
    loop {
        let step = world.journal().scrub_step(bytes_max).unwrap();
        bytes.push(step.bytes);
        damage.extend(step.damage);
        if step.round_done {
            return (bytes, damage);
        }
        assert!(bytes.len() < 10_000, "a round ends");
    }
}

#[test]
fn damage_of_the_open_segment_is_told_once_with_its_place_also_where_no_hole_can_be_written() {
    for can_write in [true, false] {
        let mut world = filled();
        let (name, number) = (world.names(".seg").pop().unwrap(), world.journal().end().segment());
        let raw = world.disk.content(&name).unwrap();
        let item = records(&world, &name)[1];
        spoil(&world, &name, &item);
        if !can_write {
            // Behind the write that keeps the raw bytes.
            world.disk.fail(Some(fail(Call::Write, 1, false)));
        }
        let found = world.journal().handle_damage(number).unwrap();
        world.disk.fail(None);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].offset, found[0].bytes), (item.offset, u64::from(item.bytes)));
        let kept = world.disk.content(&format!("quarantine/{}", found[0].quarantined[0])).unwrap();
        let differ = kept.iter().zip(&raw[item.offset as usize..item.end() as usize]).filter(|(a, b)| a != b).count();
        assert_eq!((kept.len(), differ), (item.bytes as usize, 1));
        assert_eq!(lost(&found[0].gone), 1);
        let holes = if can_write { vec![] } else { vec![(item.offset, item.end())] };
        assert_eq!(world.journal().open.holes, holes);
        assert!(world.journal().handle_damage(number).unwrap().is_empty());
        assert_eq!(lost(&world.verify()), 1);
        for _ in 0..20 {
            world.trade(2);
        }
        assert!(world.journal().handle_damage(number).unwrap().is_empty(), "nor when it is sealed");
        assert_eq!(round(&mut world, 1000).1, []);
        world.disk.kill();
        world.open();
        assert_eq!(world.opened.damage, []);
        assert_eq!(lost(&world.verify()), 1);
    }
}

#[test]
fn a_snapshot_is_forgotten_where_damage_stands_in_its_segment_or_behind_it() {
    let mut world = filled();
    let at = world.journal().stage_local(0, 1, b"all the stock").unwrap().segment();
    world.journal().commit(NOW).unwrap();
    for _ in 0..20 {
        world.trade(2);
    }
    for (number, stays) in [(at - 1, true), (at, false), (at + 1, false)] {
        let mut world = copy(&world);
        world.open();
        assert!(world.journal().snapshot().is_some());
        let name = format!("journal/{}", segment_name(number));
        spoil(&world, &name, &records(&world, &name)[0]);
        assert_eq!(world.journal().handle_damage(number).unwrap().len(), 1);
        assert_eq!(world.journal().snapshot().is_some(), stays, "{number} of {at}");
    }
}

#[test]
fn the_file_of_the_open_segment_is_written_again_where_it_is_gone_and_only_there() {
    for finder in ["check", "scrub"] {
        let mut world = filled();
        let number = world.journal().end().segment();
        assert!(world.disk.delete(&world.names(".seg").pop().unwrap()));
        let found = match finder {
            "check" => world.journal().handle_damage(number).unwrap(),
            _ => round(&mut world, 1000).1,
        };
        assert_eq!(found.len(), 1, "{finder}");
        assert!(found[0].what.contains("written again") && found[0].gone.is_empty());
        world.trade(1);
        world.disk.power_cut(Cut::DropAll);
        world.open();
        assert_eq!(world.opened.damage, [], "{finder}");
        assert_eq!(world.verify(), [], "{finder}");
    }
    // A disk that does not open it has said nothing of the kind.
    let mut world = filled();
    let number = world.journal().end().segment();
    world.disk.fail(Some(fail(Call::Any, 0, false)));
    assert_eq!(world.journal().handle_damage(number).unwrap(), []);
}

#[test]
fn a_sealed_file_that_is_gone_loses_what_was_in_it_and_one_that_does_not_open_nothing() {
    let mut world = filled();
    let numbers: Vec<u32> = world.journal().sealed.iter().map(|sealed| sealed.number).collect();
    let lost_one = Arc::clone(&world.journal().sealed[1]);
    world.disk.fail(Some(fail(Call::Any, 0, false)));
    assert!(matches!(world.journal().handle_damage(numbers[1]), Err(JournalError::Disk { .. })));
    assert_eq!(world.verify(), []);
    world.disk.delete(&format!("journal/{}", segment_name(numbers[1])));
    let found = world.journal().handle_damage(numbers[1]).unwrap();
    assert_eq!((found[0].offset, found[0].bytes), (0, u64::from(lost_one.end)));
    assert!(found[0].gone.iter().all(|gone| gone.reason == GoneReason::Missing));
    let left: Vec<u32> = world.journal().sealed.iter().map(|sealed| sealed.number).collect();
    assert_eq!(left, [&numbers[..1], &numbers[2..]].concat());
    assert_eq!(world.verify(), found[0].gone);
}

#[test]
fn a_header_and_a_side_file_mended_while_running_say_what_they_said() {
    for (header, side_file) in [(true, true), (true, false), (false, false)] {
        let mut world = filled();
        let name = world.names(".seg")[1].clone();
        let number = item_segment(&name);
        let side = name.replace(".seg", ".idx");
        let (before, kept) = (world.disk.content(&name).unwrap(), world.disk.content(&side).unwrap());
        let table = |bytes: &[u8]| SegmentHeader::decode(bytes).unwrap().0.table;
        assert!(!table(&before).is_empty());
        if header {
            world.disk.flip(&name, 30, 1);
        }
        if !side_file {
            world.disk.delete(&side);
        }
        let found = world.journal().handle_damage(number).unwrap();
        assert_eq!((found.len(), found[0].bytes, found[0].gone.len()), (1, 0, 0), "{header} {side_file}");
        let after = table(&world.disk.content(&name).unwrap());
        if header && !side_file {
            assert!(!after.is_empty(), "as far as its runs tell");
        } else {
            assert_eq!(after, table(&before));
            assert!(world.disk.content(&side).unwrap() == kept, "the side file is what it was");
        }
        let files = world.disk.files().into_iter().filter(|file| file.name.starts_with("journal/"));
        let bytes = files.map(|file| file.bytes).sum::<u64>();
        assert_eq!(world.journal().figures().journal_bytes, bytes);
        assert_eq!(world.journal().handle_damage(number).unwrap(), []);
        assert_eq!(world.verify(), []);
    }
}

#[test]
fn a_round_of_scrubbing_reads_everything_once_and_misses_no_end() {
    let mut world = filled();
    let expected: u64 = world.journal().sealed.iter().map(|sealed| u64::from(sealed.end - sealed.header_bytes)).sum();
    for bytes_max in [1, 300, 1 << 20] {
        let (bytes, damage) = round(&mut world, bytes_max);
        assert_eq!((bytes.iter().sum::<u64>(), damage.as_slice()), (expected, [].as_slice()));
        let short = bytes.iter().filter(|bytes| **bytes < bytes_max as u64).count();
        assert!(short <= world.journal().sealed.len() + 1, "{bytes:?}");
        assert!(bytes.iter().all(|bytes| *bytes < bytes_max as u64 + 1000), "{bytes:?}");
    }
    let first = frames(&world, &world.names(".seg")[0], 77)[0].bytes;
    assert_eq!(world.journal().scrub_step(first as usize).unwrap().bytes, u64::from(first));
    let mut world = filled();
    let names = world.names(".seg");
    for name in &names[..names.len() - 1] {
        spoil(&world, name, records(&world, name).last().unwrap());
    }
    assert_eq!(round(&mut world, 300).1.len(), names.len() - 1);
    assert_eq!(lost(&world.verify()), names.len() as u64 - 1);
}

#[test]
fn every_page_of_every_side_file_is_checked() {
    let mut world = World::new(small());
    // So many identities that they fill two pages.
    world.append(&[Lane::Trade; 120], 10).unwrap();
    world.trade(1);
    for sealed in [1, 3] {
        while world.journal().sealed.len() < sealed {
            world.trade(2);
        }
        let name = world.names(".idx")[0].clone();
        let length = world.disk.content(&name).unwrap().len();
        assert!(length >= 3 * 4096);
        for offset in [10, 4096 + 10, length - 10] {
            world.disk.flip(&name, offset, 1);
            assert_eq!(round(&mut world, 1 << 20).1.len(), 1, "{offset} with {sealed}");
        }
    }
}

#[test]
fn a_reader_keeps_both_bounds_exactly() {
    let mut world = filled();
    let mut reader = world.journal().reader();
    assert_eq!(reader.end(), world.journal().end());
    let mut count = |records_max, bytes_max| {
        let read = reader.read(trade(), seq(1), records_max, bytes_max).unwrap();
        let Read::Records { stored, .. } = read else { panic!("{read:?}") };
        (stored.len(), stored.iter().map(Vec::len).sum::<usize>())
    };
    assert_eq!((0..5).map(|max| count(max, 1 << 20).0).collect::<Vec<_>>(), [1, 1, 2, 3, 4]);
    let two = count(2, 1 << 20).1;
    assert_eq!((count(99, two).0, count(99, two - 1).0, count(99, 0).0), (2, 1, 1));
}

#[test]
fn a_reader_is_woken_by_a_commit_and_by_the_end() {
    let mut world = filled();
    let mut reader = world.journal().reader();
    let mut poll = || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(reader.changed()).poll(&mut context)
    };
    assert!(poll().is_pending());
    world.trade(1);
    assert_eq!(poll(), std::task::Poll::Ready(Ok(())));
    assert!(poll().is_pending());
    world.journal = None;
    assert_eq!(poll(), std::task::Poll::Ready(Err(Closed)));
}

#[test]
fn a_reader_tells_a_file_that_is_gone_from_one_that_does_not_open() {
    let world = filled();
    for stands_before in [true, false] {
        let mut world = copy(&world);
        world.open();
        let second = Arc::clone(&world.journal().sealed[1]);
        let first = second.runs[0].first;
        let mut reader = world.journal().reader();
        if stands_before {
            // It stands at the end of the segment before.
            let from = first.previous();
            assert!(matches!(reader.read(trade(), from, 1, 1 << 20), Ok(Read::Records { .. })));
        }
        world.disk.fail(Some(fail(Call::Any, 0, false)));
        assert!(matches!(reader.read(trade(), first, 1, 1 << 20), Err(ReadError::Disk { .. })), "{stands_before}");
        world.disk.fail(None);
        if stands_before {
            let from = first.previous();
            assert!(matches!(reader.read(trade(), from, 1, 1 << 20), Ok(Read::Records { .. })));
        }
        world.disk.delete(&format!("journal/{}", segment_name(second.number)));
        let read = reader.read(trade(), first, 1, 1 << 20).unwrap();
        assert_eq!(read, Read::Damaged { segment: second.number }, "{stands_before}");
    }
}

#[test]
fn a_group_of_nothing_is_not_written() {
    let mut world = filled();
    let (changes, end) = (world.disk.changes(), world.journal().end());
    assert_eq!(world.journal().commit(NOW).unwrap(), Committed { records: 0, bytes: 0, end });
    assert_eq!((world.disk.changes(), world.journal().end()), (changes, end));
}

#[test]
fn a_write_that_fails_ends_the_journal_unless_the_disk_is_full() {
    for (kind, is_full) in [(ErrorKind::StorageFull, true), (ErrorKind::QuotaExceeded, true), (ErrorKind::Other, false)]
    {
        let mut world = filled();
        world.disk.fail(Some(Failure { call: Call::Write, after: 0, for_ever: false, kind, short_bytes: 30 }));
        let failed = world.append(&[Lane::Trade], 10).unwrap_err();
        assert_eq!(matches!(failed, JournalError::Full), is_full, "{failed}");
        assert_eq!(world.append(&[Lane::Trade], 10).is_ok(), is_full, "{kind:?}");
    }
}

#[test]
fn an_open_file_is_always_longer_than_its_log() {
    let mut overruns = 0;
    for bytes in (2800..4000).step_by(8) {
        let mut world = World::new(small());
        world.append(&[Lane::Trade], bytes).unwrap();
        let end = u64::from(world.journal().end().offset());
        let length = world.disk.content(&world.names(".seg")[0]).unwrap().len() as u64;
        assert_eq!(length, (end + 64).max(4096), "a group that ends at {end}");
        overruns += u64::from(end + 64 > 4096);
    }
    assert!((10..140).contains(&overruns), "{overruns}");
}

#[test]
fn a_table_that_fills_a_segment_does_not_turn_it_with_every_group() {
    let mut world = World::new(small());
    for _ in 0..75 {
        world.trade(1);
        world.disk.kill();
        world.open();
    }
    let number = world.journal().end().segment();
    while world.journal().end().segment() == number {
        world.trade(1);
    }
    assert!(u64::from(world.journal().open.header_bytes) > world.config.segment_bytes);
    for _ in 0..5 {
        world.trade(1);
    }
    assert_eq!(world.journal().end().segment(), number + 1);
}

#[test]
fn a_new_segment_names_the_newest_epoch_though_all_are_safe() {
    let mut world = filled();
    world.disk.kill();
    world.open();
    let number = world.journal().end().segment();
    world.trade(1);
    while world.journal().end().segment() == number {
        for view in world.journal().lanes() {
            for lane in view.lanes {
                let marks = Marks { stored: lane.last, safe: lane.last };
                world.journal().acknowledge(lane_key(view.epoch, lane.lane), marks);
            }
        }
        world.trade(1);
    }
    let (header, _) = SegmentHeader::decode(&world.disk.content(&world.names(".seg").pop().unwrap()).unwrap()).unwrap();
    assert_eq!(header.table.iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [epoch(2)]);
}

#[test]
fn a_damaged_header_of_the_open_segment_alone_is_mended() {
    let mut world = filled();
    let (name, number) = (world.names(".seg").pop().unwrap(), world.journal().end().segment());
    let table = |world: &World| SegmentHeader::decode(&world.disk.content(&name).unwrap()).map(|found| found.0.table);
    let before = table(&world);
    world.disk.flip(&name, 30, 1);
    let found = world.journal().handle_damage(number).unwrap();
    assert_eq!((found.len(), found[0].bytes, found[0].gone.len()), (1, 0, 0));
    assert_eq!(table(&world), before);
    assert_eq!(world.journal().handle_damage(number).unwrap(), []);
    assert_eq!(world.verify(), []);
}
