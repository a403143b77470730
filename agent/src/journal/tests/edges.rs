//! Where reclaim, room and recovery turn: each test stands at both sides of a decision. Most were written for a mutant that lived.

use super::*;
use std::io::ErrorKind;

const LATER: WallTime = WallTime(NOW.0 + 2000);

/// Three epochs of a few segments each; the second ended with its last record in a segment that the third shares.
fn three_epochs() -> World {
    let mut world = World::new(small());
    for _ in 0..3 {
        for _ in 0..12 {
            world.trade(3);
        }
        world.disk.kill();
        world.open();
    }
    world.trade(1);
    world
}

fn safe_all(world: &mut World) {
    for view in world.journal().lanes() {
        for lane in view.lanes {
            world.journal().acknowledge(lane_key(view.epoch, lane.lane), Marks { stored: lane.last, safe: lane.last });
        }
    }
}

fn snapshot(world: &mut World) -> Position {
    world.journal().stage_local(0, 1, b"all the stock").unwrap();
    world.journal().commit(NOW).unwrap();
    world.journal().end()
}

/// Gives back up to the middle of the journal.
fn reclaim_half(world: &mut World) -> Reclaimed {
    safe_all(world);
    let end = snapshot(world);
    world.journal().reclaim(LATER, Position::new(end.segment() / 2, 100)).unwrap()
}

#[test]
fn figures_are_those_of_the_disk() {
    let mut world = three_epochs();
    let documents = world.documents;
    let sizes = |world: &World| {
        let files = world.disk.files().into_iter().filter(|file| file.name.starts_with("journal/"));
        files.map(|file| file.bytes).sum::<u64>()
    };
    assert_eq!(world.journal().figures().journal_bytes, sizes(&world));
    assert_eq!(world.journal().figures().identities, 2 * documents);
    let sealed: Vec<u64> = world.journal().sealed.iter().map(|sealed| sealed.bytes).collect();
    let done = reclaim_half(&mut world);
    assert!(done.segments > 2 && !world.journal().spares.is_empty());
    assert_eq!(done.bytes, sealed.iter().take(done.segments.try_into().unwrap()).sum::<u64>());
    assert_eq!(world.journal().figures().journal_bytes, sizes(&world));
}

#[test]
fn an_epoch_stays_as_long_as_one_of_its_records_does() {
    let mut world = three_epochs();
    assert!(reclaim_half(&mut world).segments > 2);
    for round in 0..2 {
        let views = world.journal().lanes();
        let runs: Vec<LaneKey> =
            world.journal().sealed.iter().flat_map(|sealed| &sealed.runs).map(|run| run.key).collect();
        assert!(runs.iter().all(|key| views.iter().any(|view| view.epoch == key.epoch)), "round {round}: {views:?}");
        assert!(views.iter().any(|view| view.epoch == epoch(2)), "the middle one is retained, and safe");
        assert!(!views.iter().any(|view| view.epoch == epoch(1)), "the first is not");
        world.disk.kill();
        world.open();
        assert!(world.opened.damage.is_empty(), "{:?}", world.opened.damage);
    }
}

#[test]
fn every_failed_change_of_a_reclaim_is_told_and_a_missing_side_file_is_none() {
    let prepared = || {
        let mut world = three_epochs();
        safe_all(&mut world);
        let end = snapshot(&mut world);
        (world, end)
    };
    let mut nth = 0;
    loop {
        let (mut world, end) = prepared();
        let change =
            Failure { call: Call::Change, after: nth, for_ever: false, kind: ErrorKind::Other, short_bytes: 0 };
        world.disk.fail(Some(change));
        if world.journal().reclaim(LATER, end).is_ok() {
            // It was passed over by nobody: it still waits for the change after the last.
            assert!(world.disk.create("next").is_err(), "failure {nth} was not told");
            break;
        }
        nth += 1;
    }
    assert!(nth > 10, "{nth}");
    let (mut world, end) = prepared();
    for name in world.names(".idx") {
        world.disk.delete(&name);
    }
    assert!(world.journal().reclaim(LATER, end).unwrap().segments > 2);
}

#[test]
fn a_disk_that_fails_while_the_ballast_is_made_again_ends_the_journal_and_a_full_one_does_not() {
    for (kind, is_full) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        let mut world = World::new(JournalConfig { bytes_max: 192 * 1024, ..small() });
        while world.journal().room().unwrap() < Room::Full {
            world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
        }
        safe_all(&mut world);
        let end = snapshot(&mut world);
        world.journal().reclaim(NOW, end).unwrap();
        world.disk.fail(Some(Failure { call: Call::Change, after: 0, for_ever: true, kind, short_bytes: 0 }));
        match world.journal().room() {
            Ok(room) => assert!(is_full && room == Room::Full, "{kind:?}: {room:?}"),
            Err(_) => assert!(!is_full, "{kind:?}"),
        }
        world.disk.fail(None);
        assert_eq!(world.journal().room().is_ok(), is_full, "{kind:?}");
    }
}

#[test]
fn lost_ranges_are_named_until_their_segments_go() {
    let mut world = three_epochs();
    let name = world.names(".seg")[1].clone();
    let number = world.journal().sealed[1].number;
    world.disk.delete(&name);
    let gone = world.journal().handle_damage(number).unwrap()[0].gone.clone();
    assert!(!gone.is_empty());
    safe_all(&mut world);
    let end = snapshot(&mut world);
    // The first segment only: what was lost stood behind it.
    assert_eq!(world.journal().reclaim(LATER, Position::new(number, 100)).unwrap().segments, 1);
    assert_eq!(*world.journal().gone, gone);
    world.journal().reclaim(LATER, end).unwrap();
    assert!(world.journal().gone.is_empty(), "{:?}", world.journal().gone);
}

/// One epoch whose lane reaches over the ranges that are lost.
#[test]
fn lost_ranges_are_forgotten_with_what_stood_before_them_though_their_epoch_stays() {
    let mut world = World::new(small());
    for _ in 0..40 {
        world.trade(2);
    }
    safe_all(&mut world);
    snapshot(&mut world);
    // The last record of the first segment, and the whole third one.
    let (first, third) = (Arc::clone(&world.journal().sealed[0]), world.journal().sealed[2].number);
    let name = world.names(".seg")[0].clone();
    assert!(world.disk.flip(&name, u64::from(first.end - 20).try_into().unwrap(), 1));
    world.journal().handle_damage(first.number).unwrap();
    let lost = world.names(".seg")[2].clone();
    world.disk.delete(&lost);
    world.journal().handle_damage(third).unwrap();
    let gone = world.journal().gone.clone();
    assert_eq!((gone.len(), gone[0].range.last), (2, first.runs[0].last));
    snapshot(&mut world);
    world.journal().reclaim(LATER, Position::new(first.number + 1, 100)).unwrap();
    assert_eq!(world.journal().gone.len(), 1, "what ended with the first segment is forgotten");
    world.journal().reclaim(LATER, Position::new(third + 2, 100)).unwrap();
    assert!(world.journal().gone.is_empty(), "{:?}", world.journal().gone);
}

/// The first group of an epoch names the one that it came from. Where they stand in different segments, that of the child stays longer.
#[test]
fn an_epoch_that_only_its_childs_first_group_names_is_not_called_lost() {
    let split = (1..30).find_map(|groups| {
        let mut world = World::new(small());
        for _ in 0..groups {
            world.trade(2);
        }
        safe_all(&mut world);
        world.journal().save_cursor().unwrap();
        world.disk.kill();
        world.open();
        let before = world.journal().end().segment();
        world.trade(2);
        (before > 1 && world.journal().end().segment() > before).then_some(world)
    });
    let mut world = split.expect("some number of groups fills a segment");
    let first_of_child = world.journal().end().segment();
    for _ in 0..30 {
        world.trade(2);
    }
    let end = snapshot(&mut world);
    world.journal().reclaim(LATER, end).unwrap();
    assert_eq!(world.journal().sealed[0].number, first_of_child, "only the parent's segments were safe");
    assert!(world.journal().lanes().iter().all(|view| view.epoch == epoch(2)));
    for name in world.names(".idx") {
        world.disk.delete(&name);
    }
    world.disk.kill();
    world.open();
    assert!(world.opened.damage.iter().all(|damage| damage.gone.is_empty()), "{:?}", world.opened.damage);
}

#[test]
fn the_marks_of_an_epoch_that_goes_on_stay_through_every_reclaim() {
    let mut world = World::new(small());
    let key = lane_key(epoch(1), Lane::Trade);
    for _ in 0..4 {
        for _ in 0..20 {
            world.trade(2);
        }
        safe_all(&mut world);
        let end = snapshot(&mut world);
        assert!(world.journal().reclaim(LATER, end).unwrap().segments > 0);
        assert_eq!(world.journal().marks(key).safe, world.journal().lanes()[0].lanes[0].last);
    }
}

#[test]
fn spare_files_count_as_room() {
    let mut world = three_epochs();
    assert!(reclaim_half(&mut world).segments > 2);
    let spares: u64 = world.journal().spares.iter().map(|(_, bytes)| *bytes).sum();
    let turn = world.config.turn_bytes_max();
    assert!(spares > 0 && spares < turn, "{spares} of {turn}");
    world.disk.set_capacity(Some(world.disk.used_bytes() + turn - spares));
    assert!(world.journal().room().unwrap() < Room::Full);
    world.journal().spares.clear();
    assert_eq!(world.journal().room().unwrap(), Room::Full);
}

#[test]
fn damaged_cursor_files_are_kept_told_and_mended() {
    let mut world = three_epochs();
    safe_all(&mut world);
    world.journal().save_cursor().unwrap();
    world.journal.take().unwrap().close().unwrap();
    for name in ["cursor.0", "cursor.1"] {
        let mut world = copy(&world);
        if !world.disk.flip(name, 20, 1) {
            world.disk.set_content(name, b"no cursor".to_vec());
        }
        world.open();
        let damage = &world.opened.damage;
        assert!(damage.iter().any(|damage| damage.what.contains("cursor") && !damage.quarantined.is_empty()), "{name}");
        world.disk.kill();
        world.open();
        assert!(world.opened.damage.is_empty(), "{name} was mended: {:?}", world.opened.damage);
    }
}

#[test]
fn a_segment_under_another_ones_name_is_a_damaged_one() {
    let mut world = three_epochs();
    world.journal.take().unwrap().close().unwrap();
    let names = world.names(".seg");
    world.disk.set_content(&names[1], world.disk.content(&names[0]).unwrap());
    world.disk.kill();
    world.open();
    assert!(!world.opened.damage.is_empty());
    assert!(!world.verify().is_empty(), "what stood in it is named");
}

#[test]
fn a_first_start_is_told_from_one_that_lost_its_segments() {
    let world = World::new(small());
    assert!(world.opened.created && world.opened.damage.is_empty());
    let mut world = three_epochs();
    // Twice, so that both files exist.
    world.journal().save_cursor().unwrap();
    safe_all(&mut world);
    world.journal().save_cursor().unwrap();
    let last = world.journal().end().segment();
    for name in world.names(".seg").into_iter().chain(world.names(".idx")) {
        world.disk.delete(&name);
    }
    // Each file alone tells that this is no first start.
    for kept in ["binding", "cursor.0", "cursor.1"] {
        let mut world = copy(&world);
        for name in ["binding", "cursor.0", "cursor.1"] {
            if name != kept {
                world.disk.delete(name);
            }
        }
        world.open();
        assert!(!world.opened.created && !world.opened.damage.is_empty(), "{kept}");
        if kept != "binding" {
            assert!(world.opened.end.segment() > last + 1, "no number is used twice: {:?}", world.opened.end);
        }
    }
}

#[test]
fn the_files_missing_in_the_middle_are_named_once() {
    let mut world = three_epochs();
    world.journal.take().unwrap().close().unwrap();
    let names = world.names(".seg");
    for (from, count) in [(1, 1), (1, 2), (2, 3)] {
        let mut world = copy(&world);
        for name in &names[from..from + count] {
            world.disk.delete(name);
        }
        world.open();
        let missing: Vec<_> = world.opened.damage.iter().filter(|damage| damage.what.contains("missing")).collect();
        assert_eq!(missing.len(), 1, "{:?}", world.opened.damage);
        let first = segment::number_of(names[from].strip_prefix("journal/").unwrap(), "", ".seg").unwrap();
        assert_eq!(missing[0].segment, first);
        assert!(missing[0].gone.iter().all(|gone| gone.reason == GoneReason::Missing));
        assert!(!missing[0].gone.is_empty());
        world.verify();
    }
}

#[test]
fn a_snapshot_of_parts_counts_only_whole_and_in_order() {
    let at = |offset| Position::new(1, offset);
    let mut snapshots = scan::Snapshots::default();
    for (offset, part, parts) in [(1, 0, 3), (2, 1, 3), (3, 0, 2), (4, 1, 3), (5, 2, 3), (6, 1, 2)] {
        snapshots.add(at(offset), part, parts);
        assert_eq!(snapshots.complete, None, "part {part} of {parts} at {offset}");
    }
    for (offset, part) in [(7, 0), (8, 1), (9, 2)] {
        snapshots.add(at(offset), part, 3);
    }
    assert_eq!(snapshots.complete, Some(at(7)));
}

#[test]
fn the_first_file_missing_is_told_by_itself() {
    let mut world = three_epochs();
    world.journal.take().unwrap().close().unwrap();
    world.disk.delete("binding");
    world.disk.delete(&world.names(".seg")[0]);
    world.open();
    let told: Vec<_> = world.opened.damage.iter().map(|damage| (damage.segment, damage.gone.is_empty())).collect();
    assert_eq!(told, [(0, true), (1, false)], "{:?}", world.opened.damage);
    assert!(world.opened.damage[1].what.contains("missing"));
}

#[test]
fn what_is_not_proven_goes_into_a_fresh_file_though_only_the_ballast_has_room_for_it() {
    let mut world = three_epochs();
    world.journal = None;
    let name = world.names(".seg").pop().unwrap();
    let before = world.disk.content(&name).unwrap();
    let old = disk::Disk::open_read(&world.disk, &name).unwrap();
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    world.open();
    let mut bytes = vec![0; before.len()];
    old.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == before, "the only copy was not written to");
    assert!(world.disk.content(&name).unwrap() != before);
    assert_eq!(world.verify(), []);
}

/// Where not even one file more fits, the last segment is written again in its place: a write that ends anywhere in it damages nothing.
#[test]
fn a_last_segment_that_was_half_written_again_in_its_place_is_whole() {
    let mut failed = 0;
    for short_bytes in [0, 1, 30, 100, 700, 5_000] {
        for after in 0..8 {
            let mut world = three_epochs();
            world.append(&[Lane::Trade; 3], 200).unwrap();
            let before = world.read_all().records;
            world.journal = None;
            world.disk.kill();
            assert!(world.disk.delete(super::super::reclaim::BALLAST));
            world.disk.set_capacity(Some(world.disk.used_bytes()));
            let failure = fail(Call::Write, after, false);
            world.disk.fail(Some(Failure { short_bytes, ..failure }));
            failed += usize::from(world.try_open().is_err());
            world.journal = None;
            world.disk.fail(None);
            world.disk.kill();
            world.open();
            assert_eq!(world.opened.damage, [], "{short_bytes} bytes of write {after}");
            assert_eq!(world.read_all().records, before);
        }
    }
    assert!(failed > 0);
}

/// The process that finds the last file missing may end before anybody hears of it; the next one knows it too.
#[test]
fn a_missing_file_is_told_though_the_process_that_found_it_missing_ended_while_it_made_the_next() {
    let mut made = 0;
    for after in 0..12 {
        let mut world = World::new(small());
        world.trade(3);
        world.journal = None;
        world.disk.kill();
        let name = world.names(".seg").pop().unwrap();
        assert!(world.disk.delete(&name));
        world.disk.fail(Some(fail(Call::Sync, after, true)));
        let ended = world.try_open().is_err();
        made += usize::from(ended && !world.names(".seg").is_empty());
        world.journal = None;
        world.disk.fail(None);
        world.disk.kill();
        world.open();
        assert!(!ended || world.opened.damage.iter().any(|damage| damage.end_unknown), "{after} syncs");
    }
    assert!(made > 0);
}
