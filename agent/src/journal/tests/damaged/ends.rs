//! Files cut short, and ends and numbers that are wrong under a checksum that fits.

use super::super::formats::restate;
use super::*;

fn cut_each(sample: &World, name: &str) {
    let items = frames(sample, name, 77);
    let end = items.last().unwrap().end();
    for length in (0..end as usize + 8).step_by(41).chain(items.iter().map(|item| item.end() as usize)) {
        let world = copy(sample);
        let mut bytes = sample.disk.content(name).unwrap();
        bytes.truncate(length);
        world.disk.set_content(name, bytes);
        let behind = items
            .iter()
            .filter(|item| {
                item.header.kind == super::super::frame::Kind::Record && item.end() as usize - padding(item) > length
            })
            .count() as u64;
        survives(world, behind, &format!("{name} cut at {length}"));
    }
}

#[test]
fn a_segment_cut_at_any_length_loses_only_what_was_behind() {
    let sample = sample(true);
    sample.names(".seg").iter().for_each(|name| cut_each(&sample, name));
}

#[test]
fn a_segment_cut_below_what_its_header_proves_loses_only_what_was_behind() {
    let sample = rewritten();
    // The last group runs over the length of a segment.
    let mut long = copy(&sample);
    long.open();
    long.trade(20);
    long.journal = None;
    long.open();
    long.journal = None;
    for world in [sample, long] {
        cut_each(&world, world.names(".seg").last().unwrap());
    }
}

#[test]
fn an_end_that_no_segment_can_have_is_not_believed() {
    const FAR: u32 = u32::MAX - 7;
    let sample = sample(false);
    let segments = sample.names(".seg");
    let (proven, previous) = (copy(&sample), copy(&sample));
    restate(&proven, segments.last().unwrap(), |header| header.proven = FAR);
    restate(&previous, segments.last().unwrap(), |header| header.previous_end = FAR);
    previous.names(".idx").iter().for_each(|name| assert!(previous.disk.delete(name)));
    for mut world in [proven, previous] {
        world.open();
        assert_eq!(world.verify(), []);
        assert!(world.disk.used_bytes() < 2 * limits::GROUP_BYTES_MAX as u64);
    }
}

#[test]
fn the_last_number_of_a_lane_or_a_segment_is_not_believed() {
    let sample = sample(true);
    let name = sample.names(".seg").pop().unwrap();
    let (head, record, cursor) = (copy(&sample), copy(&sample), copy(&sample));
    restate(&head, &name, |header| {
        let last = Seq(u64::MAX);
        header.table[0].heads[0] = Some(table::Head { last, chain: None });
    });
    let item = frames(&record, &name, 77).into_iter().rfind(|item| item.header.kind == frame::Kind::Record).unwrap();
    let mut bytes = record.disk.content(&name).unwrap();
    let mut other = Vec::new();
    let header = frame::Header { seq: u64::MAX, ..item.header };
    frame::encode(&mut other, Seed::new(77, item_segment(&name)), item.offset, &header, item.payload(&bytes));
    bytes[item.offset as usize..item.end() as usize].copy_from_slice(&other);
    record.disk.set_content(&name, bytes);
    let (mut far, _) = Cursor::load(&cursor.disk).unwrap();
    far.segment = u32::MAX;
    far.save_both(&cursor.disk).unwrap();
    let mut last = copy(&sample);
    far.segment = limits::SEGMENTS_MAX;
    far.save_both(&last.disk).unwrap();
    for (world, lost_max) in [(head, 0), (record, 1), (cursor, 0)] {
        survives(world, lost_max, "a last number");
    }
    let opening = last.try_open();
    assert!(opening.is_err(), "nothing is acknowledged into a file that the next opening leaves alone: {opening:?}");
}

fn padding(item: &scan::Item) -> usize {
    item.bytes as usize - limits::FRAME_HEADER_BYTES - item.payload as usize
}
