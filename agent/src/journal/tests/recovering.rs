//! Openings at both sides of their decisions: where the log ends, what of the last group stays, what is told of damage and how often.
//! Most were written for a mutant that lived.

use std::io::ErrorKind;

use super::damaged::{frames, item_segment, lost, rewritten};
use super::frame::Header;
use super::segment::SegmentHeader;
use super::table::GroupHeader;
use super::*;
use crate::journal::frame::Kind;

fn stop(world: &mut World) {
    world.journal = None;
    world.disk.power_cut(Cut::DropAll);
}

fn last_file(world: &World) -> String {
    world.names(".seg").pop().unwrap()
}

/// The frames of the last group in the last segment.
fn last_group(world: &World) -> Vec<scan::Item> {
    let items = frames(world, &last_file(world), 77);
    let at = items.iter().rposition(|item| item.header.kind == Kind::Group).unwrap();
    items[at..].to_vec()
}

fn spoil(world: &World, name: &str, item: &scan::Item) {
    assert!(world.disk.flip(name, item.offset as usize + 44, 4));
}

/// Puts frames with whole checksums to a place of the last segment.
fn forge(world: &World, at: u32, frames: &[(Header, &[u8])]) {
    let name = last_file(world);
    let mut bytes = Vec::new();
    for (header, payload) in frames {
        let offset = at + bytes.len() as u32;
        frame::encode(&mut bytes, Seed::new(77, item_segment(&name)), offset, header, payload);
    }
    let mut content = world.disk.content(&name).unwrap();
    content[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    world.disk.set_content(&name, content);
}

fn kept(name: &str, world: &World) -> Vec<u8> {
    world.disk.content(&format!("quarantine/{name}")).unwrap()
}

/// Opens it again after a kill: nothing is told twice, and nothing more is lost.
fn told_once(world: &mut World, lost_before: u64) {
    world.disk.kill();
    world.open();
    assert_eq!((world.opened.damage.as_slice(), &world.opened.tail_cut), ([].as_slice(), &None));
    assert_eq!(lost(&world.verify()), lost_before);
}

#[test]
fn a_last_group_of_which_only_the_header_is_spoiled_stays() {
    for what in ["an epoch that is known", "the first group of all", "the first of a second epoch"] {
        let mut world = World::new(small());
        if what != "the first group of all" {
            world.trade(1);
        }
        if what == "the first of a second epoch" {
            stop(&mut world);
            world.open();
        }
        world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 50).unwrap();
        stop(&mut world);
        let header = last_group(&world)[0];
        spoil(&world, &last_file(&world), &header);
        world.open();
        assert_eq!(world.opened.tail_cut, None, "{what}");
        let bad: Vec<_> = world.opened.damage.iter().map(|damage| (damage.offset, damage.bytes)).collect();
        assert_eq!(bad, [(header.offset, u64::from(header.bytes))], "{what}");
        assert_eq!(world.verify(), [], "{what}");
        told_once(&mut world, 0);
    }
    // A snapshot before the first record of a process.
    let mut world = World::new(small());
    world.trade(1);
    stop(&mut world);
    world.open();
    let at = world.journal().stage_local(0, 1, b"all the stock").unwrap();
    world.journal().commit(NOW).unwrap();
    stop(&mut world);
    spoil(&world, &last_file(&world), &last_group(&world)[0]);
    world.open();
    assert_eq!((world.opened.snapshot, &world.opened.tail_cut), (Some(at), &None));
}

#[test]
fn behind_a_hole_of_the_last_group_nothing_stays() {
    let mut world = World::new(small());
    world.append(&[Lane::Trade, Lane::Stock], 50).unwrap();
    let keys = world.append(&[Lane::Trade, Lane::Stock], 50).unwrap();
    stop(&mut world);
    let group = last_group(&world);
    for item in &group[..2] {
        spoil(&world, &last_file(&world), item);
    }
    world.open();
    let cut = world.opened.tail_cut.clone().unwrap();
    assert_eq!((cut.position.offset(), cut.records.as_slice()), (group[0].offset, &keys[1..]));
    assert_eq!(cut.bytes, u64::from(group[2].end() - group[0].offset));
}

#[test]
fn frames_behind_the_end_that_the_last_group_states_are_of_another_append() {
    let mut world = World::new(small());
    world.trade(1);
    let last = world.trade(2)[1];
    stop(&mut world);
    let group = last_group(&world);
    let next = RecordKey { seq: last.seq.next(), ..last };
    let end = group[2].end();
    forge(&world, end, &[(Header { seq: next.seq.0, ..group[2].header }, b"never acknowledged")]);
    world.open();
    let cut = world.opened.tail_cut.clone().unwrap();
    assert_eq!((cut.position.offset(), cut.records), (end, vec![next]));
    assert_eq!(world.verify(), []);
}

#[test]
fn a_record_whose_predecessor_is_missing_is_cut() {
    let mut world = World::new(small());
    let last = world.trade(2)[1];
    stop(&mut world);
    let record = last_group(&world)[2];
    let header = GroupHeader { bytes: 400, records: 1, wall: NOW, entries: Vec::new() }.encode();
    let group = Header { kind: Kind::Group, group: record.end(), seq: 0, ..record.header };
    let behind = RecordKey { seq: last.seq.next().next(), ..last };
    let skipping = Header { group: record.end(), seq: behind.seq.0, ..record.header };
    forge(&world, record.end(), &[(group, &header), (skipping, b"the second")]);
    world.open();
    assert_eq!(world.opened.tail_cut.clone().unwrap().records, [behind]);
    assert_eq!(world.verify(), [], "a number that nobody was given is not lost");
}

#[test]
fn bytes_behind_the_log_are_cut_to_the_last_one_and_kept() {
    let mut world = World::new(small());
    world.trade(1);
    stop(&mut world);
    let end = last_group(&world)[1].end();
    for at in 10..=20 {
        world.disk.flip(&last_file(&world), end as usize + at, 7);
    }
    world.open();
    let cut = world.opened.tail_cut.clone().unwrap();
    assert_eq!((cut.position.offset(), cut.bytes), (end, 21));
    assert_eq!(kept(&cut.quarantined.unwrap(), &world), [[0; 10].as_slice(), &[7; 11]].concat());
    assert_eq!(world.opened.damage, []);
    assert_eq!(world.verify(), []);
    told_once(&mut world, 0);
}

#[test]
fn frames_missing_before_the_proven_end_are_told_with_their_place() {
    let mut world = rewritten();
    let item = *last_group(&world).last().unwrap();
    spoil(&world, &last_file(&world), &item);
    world.open();
    let damage = world.opened.damage.clone();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].offset, damage[0].bytes), (item.offset, u64::from(item.bytes)));
    assert!(damage[0].end_unknown && world.opened.tail_cut.is_none());
    assert_eq!(kept(&damage[0].quarantined[0], &world).len(), item.bytes as usize);
    let mut whole = rewritten();
    whole.open();
    assert_eq!(whole.opened.damage, [], "where nothing is missing nothing is told");
}

#[test]
fn rot_in_the_last_segment_is_told_with_its_place_and_once() {
    let mut world = World::new(small());
    for _ in 0..4 {
        world.trade(2);
    }
    stop(&mut world);
    let items = frames(&world, &last_file(&world), 77);
    // The second ends where the last group begins.
    for item in [items[2], items[8]] {
        spoil(&world, &last_file(&world), &item);
    }
    world.open();
    let damage = world.opened.damage.clone();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].offset, damage[0].bytes), (items[2].offset, u64::from(items[2].bytes + items[8].bytes)));
    assert!(!damage[0].end_unknown, "what is missing is before a frame that states heads");
    let lengths: Vec<usize> = damage[0].quarantined.iter().map(|name| kept(name, &world).len()).collect();
    assert_eq!(lengths, [items[2].bytes as usize, items[8].bytes as usize]);
    assert_eq!(lost(&damage[0].gone), 2);
    assert_eq!(world.journal().handle_damage(damage[0].segment).unwrap(), [], "whole holes stand there");
    told_once(&mut world, 2);
    // New rot beside the known holes is told.
    stop(&mut world);
    spoil(&world, &last_file(&world), &frames(&world, &last_file(&world), 77)[1]);
    world.open();
    assert_eq!((world.opened.damage.len(), lost(&world.opened.damage[0].gone), lost(&world.verify())), (1, 3, 3));
}

#[test]
fn a_last_file_of_garbage_is_kept_whole_and_told() {
    let mut world = World::new(small());
    world.trade(1);
    stop(&mut world);
    let name = last_file(&world);
    let mut bytes = vec![0; world.disk.content(&name).unwrap().len()];
    bytes[..1000].fill(9);
    world.disk.set_content(&name, bytes);
    world.open();
    let damage = world.opened.damage.iter().find(|damage| !damage.quarantined.is_empty()).unwrap().clone();
    assert_eq!((damage.offset, damage.bytes, damage.end_unknown), (0, 1000, true));
    assert_eq!(kept(&damage.quarantined[0], &world), [9; 1000]);
}

/// A journal of a few segments, closed.
fn closed() -> World {
    let mut world = World::new(small());
    for _ in 0..40 {
        world.trade(2);
    }
    world.journal.take().unwrap().close().unwrap();
    world
}

fn figures_fit(world: &mut World) {
    let files = world.disk.files().into_iter().filter(|file| file.name.starts_with("journal/"));
    assert_eq!(world.journal().figures().journal_bytes, files.map(|file| file.bytes).sum::<u64>());
}

#[test]
fn a_sealed_segment_is_told_damaged_where_it_is_and_a_lost_side_file_is_nothing() {
    let sample = closed();
    let name = sample.names(".seg")[0].clone();
    let side = name.replace(".seg", ".idx");
    let items = frames(&sample, &name, 77);
    let (last, header) = (*items.last().unwrap(), items[3]);
    assert_eq!((last.header.kind, header.header.kind), (Kind::Record, Kind::Group));
    let cases = [
        ("nothing", true, vec![], 0, false),
        ("its last record", true, vec![(last.offset, last.bytes)], 1, false),
        ("a group's header", true, vec![(header.offset, header.bytes)], 0, false),
        ("its own header", true, vec![], 0, true),
        ("its own header", false, vec![], 0, true),
    ];
    for (what, no_side_file, bad, losses, own) in cases {
        let mut world = copy(&sample);
        let kept_side = world.disk.content(&side).unwrap();
        if no_side_file {
            world.disk.delete(&side);
        }
        for (offset, _) in &bad {
            world.disk.flip(&name, *offset as usize + 44, 1);
        }
        if own {
            world.disk.flip(&name, 30, 1);
        }
        world.open();
        let told: Vec<_> = world.opened.damage.iter().map(|damage| (damage.offset, damage.bytes)).collect();
        let expected = if own { vec![(0, 0)] } else { bad.iter().map(|bad| (bad.0, u64::from(bad.1))).collect() };
        assert_eq!(told, expected, "{what} {no_side_file}: {:?}", world.opened.damage);
        for damage in world.opened.damage.clone() {
            assert_eq!((damage.segment, damage.quarantined.len()), (1, 1), "{what}");
            assert_eq!(lost(&damage.gone), losses, "{what}");
            assert!(damage.gone.iter().all(|gone| gone.reason == GoneReason::Damaged && gone.chain_after.is_some()));
        }
        SegmentHeader::decode(&world.disk.content(&name).unwrap()).unwrap();
        assert!(losses > 0 || world.disk.content(&side).unwrap() == kept_side, "{what}: the side file is what it was");
        figures_fit(&mut world);
        assert_eq!(lost(&world.verify()), losses, "{what}");
        told_once(&mut world, losses);
        figures_fit(&mut world);
    }
}

#[test]
fn a_sealed_segment_that_is_cut_gets_its_length_back() {
    let mut world = closed();
    let name = world.names(".seg")[0].clone();
    let mut bytes = world.disk.content(&name).unwrap();
    let (length, last) = (bytes.len(), *frames(&world, &name, 77).last().unwrap());
    bytes.truncate(last.offset as usize + 48);
    world.disk.set_content(&name, bytes);
    world.open();
    assert_eq!(world.opened.damage.len(), 1);
    assert_eq!(kept(&world.opened.damage[0].quarantined[0], &world).len(), 48);
    assert_eq!(world.disk.content(&name).unwrap().len(), length);
    figures_fit(&mut world);
    told_once(&mut world, 1);
}

#[test]
fn what_a_damaged_header_and_its_side_file_say_of_the_segment_before_counts() {
    for is_missing in [false, true] {
        let mut world = closed();
        let names = world.names(".seg");
        let before = &names[1];
        world.disk.delete(&before.replace(".seg", ".idx"));
        if is_missing {
            world.disk.delete(before);
        } else {
            spoil(&world, before, frames(&world, before, 77).last().unwrap());
        }
        world.disk.flip(&names[2], 30, 1);
        world.open();
        let told: Vec<_> = world.opened.damage.iter().filter(|damage| !damage.gone.is_empty()).collect();
        assert_eq!(told.len(), 1, "{:?}", world.opened.damage);
        assert_eq!(told[0].segment, item_segment(before));
        let reason = if is_missing { GoneReason::Missing } else { GoneReason::Damaged };
        assert!(told[0].gone.iter().all(|gone| gone.reason == reason), "{told:?}");
        let notes = world.opened.damage.iter().filter(|damage| damage.what.contains("missing")).count();
        assert_eq!(notes, usize::from(is_missing), "told once: {:?}", world.opened.damage);
        let expected = told[0].gone.clone();
        assert_eq!(world.verify(), expected);
    }
}

#[test]
fn missing_files_are_told_though_nothing_beside_them_says_what_they_held() {
    let mut world = closed();
    let names = world.names(".seg");
    world.disk.delete(&names[1]);
    world.disk.flip(&names[2], 30, 1);
    for name in &names[1..3] {
        world.disk.delete(&name.replace(".seg", ".idx"));
    }
    world.open();
    let missing: Vec<_> = world.opened.damage.iter().filter(|damage| damage.what.contains("missing")).collect();
    assert_eq!(missing.iter().map(|damage| damage.segment).collect::<Vec<_>>(), [item_segment(&names[1])]);
    world.verify();
}

#[test]
fn where_header_and_first_frame_are_damaged_the_side_file_says_where_the_log_began() {
    let mut world = closed();
    let name = world.names(".seg")[0].clone();
    let first = frames(&world, &name, 77)[0];
    world.disk.flip(&name, 30, 1);
    spoil(&world, &name, &first);
    world.open();
    let damage = world.opened.damage.clone();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].offset, damage[0].bytes), (first.offset, u64::from(first.bytes)));
    assert_eq!(damage[0].quarantined.len(), 2, "the frame, and the header");
    assert_eq!(world.verify(), []);
}

#[test]
fn a_later_segment_under_the_name_of_an_earlier_one_costs_what_stood_there() {
    let mut world = closed();
    let names = world.names(".seg");
    let held = frames(&world, &names[1], 77).iter().filter(|item| item.header.kind == Kind::Record).count();
    // Its header states the heads behind segments that are whole.
    world.disk.set_content(&names[1], world.disk.content(&names[4]).unwrap());
    world.open();
    assert_eq!(lost(&world.verify()), held as u64);
}

#[test]
fn the_time_of_the_last_commit_is_that_of_the_last_group() {
    for is_closed in [false, true] {
        let mut world = World::new(small());
        world.trade(1);
        let later = WallTime(NOW.0 + 5000);
        world.journal().stage_local(0, 1, b"all the stock").unwrap();
        world.journal().commit(later).unwrap();
        if is_closed {
            world.journal.take().unwrap().close().unwrap();
        }
        stop(&mut world);
        world.open();
        assert_eq!(world.opened.wall_last, Some(later), "{is_closed}");
    }
}

#[test]
fn a_binding_that_cannot_be_read_is_not_a_missing_one() {
    let sample = closed();
    for nth in 0..48 {
        let mut world = copy(&sample);
        world.disk.fail(Some(fail(Call::Any, nth, false)));
        if world.try_open().is_ok() {
            assert!(world.opened.damage.iter().all(|damage| !damage.what.contains("binding")), "call {nth}");
        }
    }
}

#[test]
fn a_damaged_cursor_that_cannot_be_mended_ends_the_opening_unless_the_disk_is_full() {
    let mut world = closed();
    world.open();
    for safe in 1..=2 {
        let marks = Marks { stored: seq(safe), safe: seq(safe) };
        world.journal().acknowledge(lane_key(epoch(1), Lane::Trade), marks);
        world.journal().save_cursor().unwrap();
    }
    world.journal.take().unwrap().close().unwrap();
    assert!(world.disk.flip("cursor.0", 20, 1));
    for (kind, opens) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        let mut world = copy(&world);
        world.disk.fail(Some(Failure { call: Call::Write, after: 0, for_ever: true, kind, short_bytes: 0 }));
        let opened = world.try_open();
        assert_eq!(opened.is_ok(), opens, "{kind:?}: {opened:?}");
        world.disk.fail(None);
        world.journal = None;
        world.disk.kill();
        world.open();
        assert!(
            world.opened.damage.iter().any(|damage| damage.what.contains("cursor")),
            "it is told until it is mended"
        );
        told_once(&mut world, 0);
    }
}
