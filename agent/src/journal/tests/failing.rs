//! Calls to the disk that fail: once or for ever, each in turn.

use super::*;
use std::io::ErrorKind;

/// A little life: two starts, appends over several segments, an acknowledgement, a snapshot, a reclaim, a scrub. Stops at the first error
/// that is not `Full`.
fn live(world: &mut World) -> bool {
    for round in 0..2 {
        if world.journal.is_none() && world.try_open().is_err() {
            return false;
        }
        for group in 0..8 {
            match world.append(&[Lane::Trade, Lane::Stock], 250) {
                Ok(_) | Err(JournalError::Full) => {}
                Err(_) => return false,
            }
            if group == 4 && housekeeping(world).is_err() {
                return false;
            }
        }
        let journal = world.journal.take().unwrap();
        if round == 1 && journal.close().is_err() {
            return false;
        }
        world.disk.kill_but_keep_plans();
    }
    true
}

fn housekeeping(world: &mut World) -> Result<(), JournalError> {
    let journal = world.journal.as_mut().unwrap();
    for view in journal.lanes() {
        for lane in &view.lanes {
            let mark = Seq(lane.last.0.saturating_sub(1).min(3));
            journal.acknowledge(lane_key(view.epoch, lane.lane), Marks { stored: mark, safe: mark });
        }
    }
    journal.save_cursor()?;
    if let Err(StageError::Journal(error)) = journal.stage_local(0, 1, b"snapshot") {
        return Err(error);
    }
    journal.commit(NOW)?;
    let end = journal.end();
    journal.reclaim(WallTime(NOW.0 + 5000), end)?;
    journal.scrub_step(4096)?;
    journal.room().map(|_| ())
}

fn after(world: &mut World, cut: Cut, what: &str) {
    world.disk.fail(None);
    world.journal = None;
    world.disk.power_cut(cut);
    world.open();
    let opened = world.opened.clone();
    assert!(opened.damage.is_empty(), "{what}: {:?}", opened.damage);
    let floors: BTreeMap<_, _> = world
        .journal()
        .lanes()
        .iter()
        .flat_map(|view| view.lanes.iter().map(|lane| (lane_key(view.epoch, lane.lane), lane.first)))
        .collect();
    world.acked.retain(|key, _| floors.get(&key.lane_key()).is_none_or(|first| key.seq >= *first));
    assert!(world.verify().is_empty(), "{what}");
    world.trade(2);
    assert!(world.verify().is_empty(), "{what}");
}

fn each_call(call: Call, for_ever: bool, kind: ErrorKind, short_bytes: usize, cut: Cut) {
    let mut nth = 0;
    loop {
        let mut world = World::new(small());
        world.disk.fail(Some(Failure { call, after: nth, for_ever, kind, short_bytes }));
        let survived = live(&mut world);
        after(&mut world, cut, &format!("{call:?} {nth} for_ever={for_ever} {kind:?}"));
        if survived && !for_ever && nth > 30 && kind != ErrorKind::StorageFull {
            break;
        }
        nth += 1;
        if nth > 120 {
            break;
        }
    }
    assert!(nth > 10, "the plan was reached: {nth}");
}

#[test]
fn any_failed_sync_loses_nothing_that_was_acknowledged() {
    each_call(Call::Sync, false, ErrorKind::Other, 0, Cut::DropAll);
    each_call(Call::Sync, true, ErrorKind::Other, 0, Cut::KeepAll);
}

#[test]
fn any_failed_write_loses_nothing_that_was_acknowledged() {
    each_call(Call::Write, false, ErrorKind::Other, 100, Cut::KeepAll);
    each_call(Call::Write, true, ErrorKind::Other, 0, Cut::DropAll);
}

#[test]
fn any_failed_change_loses_nothing_that_was_acknowledged() {
    each_call(Call::Change, false, ErrorKind::Other, 0, Cut::Prefix(3));
    each_call(Call::Change, true, ErrorKind::Other, 0, Cut::Subset(4));
}

#[test]
fn a_disk_that_is_full_for_one_call_loses_nothing() {
    each_call(Call::Write, false, ErrorKind::StorageFull, 200, Cut::KeepAll);
    each_call(Call::Change, false, ErrorKind::StorageFull, 0, Cut::DropAll);
}

#[test]
fn after_a_failed_sync_the_journal_takes_nothing_even_if_the_disk_would() {
    let mut world = World::new(small());
    world.trade(1);
    world.disk.forgive_sync(true);
    world.disk.fail(Some(fail(Call::Sync, 0, false)));
    assert!(matches!(world.append(&[Lane::Trade], 10), Err(JournalError::Disk { .. })));
    assert!(matches!(world.append(&[Lane::Trade], 10), Err(JournalError::Poisoned)));
    assert!(matches!(world.journal().room(), Err(JournalError::Poisoned)));
    assert!(matches!(world.journal().find(key_of(1)), Err(JournalError::Poisoned)));
    let mut reader = world.journal().reader();
    assert_eq!(reader.last(lane_key(epoch(1), Lane::Trade)), seq(1), "what was not synced is not shown");
    assert!(
        matches!(reader.read(lane_key(epoch(1), Lane::Trade), seq(1), 9, 999), Ok(Read::Records { stored, .. }) if stored.len() == 1)
    );
}

#[test]
fn a_full_disk_leaves_nothing_of_the_group() {
    let mut world = World::new(small());
    world.trade(1);
    world.disk.fail(Some(Failure {
        call: Call::Write,
        after: 0,
        for_ever: false,
        kind: ErrorKind::StorageFull,
        short_bytes: usize::MAX,
    }));
    assert!(matches!(world.append(&[Lane::Trade; 3], 100), Err(JournalError::Full)));
    for n in 2..=4 {
        assert_eq!(world.journal().find(key_of(n)).unwrap(), Found::Nothing);
    }
    assert_eq!(world.journal().next_seq(Lane::Trade), seq(2));
    let keys = world.trade(1);
    assert_eq!(keys[0].seq, seq(2));
    world.disk.kill();
    world.open();
    assert!(world.opened.tail_cut.is_none(), "the bytes of the failed group were taken back: {:?}", world.opened);
    assert_eq!(world.read_all().records.len(), 2);
    assert!(world.verify().is_empty());
}

#[test]
fn a_damaged_read_does_not_stop_the_opening() {
    for nth in 0..60 {
        let mut world = copy(&sample(true));
        world.disk.fail(Some(Failure {
            call: Call::Read,
            after: nth,
            for_ever: false,
            kind: ErrorKind::Other,
            short_bytes: 0,
        }));
        // Either it says that the disk fails, or it goes on; it does not lose anything and does not panic.
        drop(world.try_open());
        world.disk.fail(None);
        world.journal = None;
        world.disk.kill();
        world.open();
        assert!(world.verify().iter().map(|gone| gone.range.count()).sum::<u64>() <= 40, "read {nth}");
    }
}

#[test]
fn a_check_that_ends_in_the_middle_leaves_no_hole_that_nobody_names() {
    for call in [Call::Sync, Call::Write, Call::Change] {
        for nth in 0.. {
            let mut world = World::new(small());
            // Past the first segment's end, so that it is sealed.
            while world.names(".seg").len() < 2 {
                world.trade(1);
            }
            let name = world.names(".seg")[0].clone();
            let damaged = world.disk.content(&name).unwrap().windows(4).rposition(|bytes| bytes == b"\"pad").unwrap();
            world.disk.flip(&name, damaged, 1);
            let plan = Failure { call, after: nth, for_ever: false, kind: ErrorKind::Other, short_bytes: 0 };
            world.disk.fail(Some(plan));
            let checked = world.journal().handle_damage(1);
            world.disk.fail(None);
            world.disk.kill();
            world.open();
            let gone = world.verify();
            assert_eq!(gone.iter().map(|gone| gone.range.count()).sum::<u64>(), 1, "{call:?} {nth}: {checked:?}");
            if checked.is_ok() {
                break;
            }
        }
    }
}
