//! Random work with random power cuts, against the model.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Append {
        lanes: u8,
        bytes: usize,
    },
    Snapshot,
    Close,
    Kill,
    Cut(Cut),
    /// The power fails in the middle of an append: after so many calls that change something.
    CutWithin {
        after: u64,
        cut: Cut,
    },
    /// The process dies in the middle of an append, and what the kernel has stays.
    KillWithin {
        after: u64,
    },
    /// The process dies in the middle of an opening.
    KillInOpening {
        after: u64,
    },
    Acknowledge,
    Reclaim,
    /// Somebody sets `journal.format_write`; the next opening heeds it.
    Format(u16),
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        Just(Cut::DropAll),
        Just(Cut::KeepAll),
        any::<u64>().prop_map(Cut::Prefix),
        any::<u64>().prop_map(Cut::Subset)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1_u8..64, 0_usize..600).prop_map(|(lanes, bytes)| Step::Append { lanes, bytes }),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => cut().prop_map(Step::Cut),
        3 => (0_u64..24, cut()).prop_map(|(after, cut)| Step::CutWithin { after, cut }),
        2 => (0_u64..24).prop_map(|after| Step::KillWithin { after }),
        1 => (0_u64..24).prop_map(|after| Step::KillInOpening { after }),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::Reclaim),
        1 => (1_u16..3).prop_map(Step::Format),
    ]
}

fn lanes(bits: u8) -> Vec<Lane> {
    (0..6).filter(|bit| bits >> bit & 1 == 1).map(|bit| Lane::ALL[bit % 3]).collect()
}

/// What the model need not find any more.
#[derive(Default)]
struct Floors {
    /// Everything up to these was given back.
    given_back: BTreeMap<LaneKey, Seq>,
    /// Everything up to these was safe once.
    safe: BTreeMap<LaneKey, Seq>,
}

fn run(steps: &[Step]) {
    let mut world = World::new(small());
    let mut floors = Floors::default();
    for step in steps {
        match *step {
            Step::Append { lanes: bits, bytes } => {
                world.append(&lanes(bits), bytes).unwrap();
            }
            Step::Format(format) => world.config.format_write = format,
            Step::Snapshot => {
                world.journal().stage_local(0, 2, b"one").unwrap();
                world.journal().stage_local(1, 2, b"two").unwrap();
                world.journal().commit(NOW).unwrap();
            }
            Step::Close => {
                world.journal.take().unwrap().close().unwrap();
                world.disk.kill();
                reopen(&mut world, &mut floors);
                assert!(world.opened.clean);
            }
            Step::Kill => {
                world.disk.kill();
                reopen(&mut world, &mut floors);
            }
            Step::Cut(cut) => {
                world.disk.power_cut(cut);
                reopen(&mut world, &mut floors);
            }
            Step::CutWithin { after, cut } => {
                world.disk.fail(Some(fail(Call::Change, after, true)));
                let result = world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 300);
                world.disk.fail(None);
                // Without an error the plan came too late: it was acknowledged.
                drop(result);
                world.disk.power_cut(cut);
                reopen(&mut world, &mut floors);
            }
            Step::KillWithin { after } => {
                world.disk.fail(Some(fail(Call::Change, after, true)));
                drop(world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 300));
                world.disk.kill();
                reopen(&mut world, &mut floors);
            }
            Step::KillInOpening { after } => {
                world.disk.kill();
                world.disk.fail(Some(fail(Call::Change, after, true)));
                drop(world.try_open());
                world.disk.kill();
                reopen(&mut world, &mut floors);
            }
            Step::Acknowledge => {
                for view in world.journal().lanes() {
                    for lane in view.lanes {
                        let safe = Seq(lane.last.0 - lane.last.0 / 4);
                        let key = lane_key(view.epoch, lane.lane);
                        world.journal().acknowledge(key, Marks { stored: lane.last, safe });
                        floors.safe.insert(key, safe);
                    }
                }
                world.journal().save_cursor().unwrap();
            }
            Step::Reclaim => {
                let (end, later) = (world.journal().end(), WallTime(NOW.0 + 5000));
                world.journal().reclaim(later, end).unwrap();
                forget(&mut world, &mut floors);
            }
        }
    }
    world.disk.power_cut(Cut::DropAll);
    reopen(&mut world, &mut floors);
    let gone = world.verify();
    assert!(gone.is_empty(), "{gone:?}");
}

/// Drops what was given back from the model, after checking that it was safe.
fn forget(world: &mut World, floors: &mut Floors) {
    for view in world.journal().lanes() {
        for lane in view.lanes {
            let key = lane_key(view.epoch, lane.lane);
            assert!(lane.first.previous() <= world.journal().marks(key).safe.max(Seq::NONE), "given back, not safe");
            floors.given_back.insert(key, lane.first.previous());
        }
    }
    let known: Vec<_> = world.journal().lanes().iter().map(|view| view.epoch).collect();
    world.acked.retain(|key, _| {
        // An epoch that the journal does not know at all has to have been safe.
        let floors = if known.contains(&key.epoch) { &floors.given_back } else { &floors.safe };
        floors.get(&key.lane_key()).is_none_or(|floor| key.seq > *floor)
    });
}

fn reopen(world: &mut World, floors: &mut Floors) {
    world.open();
    let opened = world.opened.clone();
    assert!(opened.damage.is_empty(), "a power cut is not damage: {:?}", opened.damage);
    assert!(opened.behind_hub.is_empty());
    forget(world, floors);
    // What was acknowledged is there; the rest of what was staged may be.
    for (key, (_, _)) in &world.acked {
        let last = world.journal.as_ref().unwrap().reader().last(key.lane_key());
        assert!(last >= key.seq, "{key:?} was acknowledged, the lane ends at {last}");
    }
    // The model learns which unacknowledged records stayed: they are served from now on, for ever with these bytes.
    let contents = world.read_all();
    for (key, stored) in contents.records {
        world.acked.entry(key).or_insert_with(|| {
            let record = Record::decode(&stored).unwrap();
            let n = record.envelope.identity.unwrap().strip_prefix("d/").unwrap().parse().unwrap();
            (n, stored)
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_survives_every_power_cut(steps in proptest::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}

/// The cut after a failed sync: the kernel keeps the pages in its cache, clean, and they never reach the medium. The next process reads
/// them; were they served as they are, a second cut would take away what the hub has by then.
#[test]
fn the_unproven_tail_is_on_the_medium_before_it_is_served() {
    let mut world = World::new(small());
    world.trade(2);
    world.disk.fail(Some(fail(Call::Sync, 0, false)));
    assert!(world.append(&[Lane::Trade], 100).is_err());
    world.disk.kill();
    world.open();
    let served = world.read_all().records;
    assert_eq!(served.len(), 3, "the cache has it");
    assert!(world.opened.rewritten_bytes > 0);
    world.disk.power_cut(Cut::DropAll);
    world.open();
    assert_eq!(world.read_all().records, served, "what was served once is served for ever");
}

/// A clean stop, then an append at the place of the closing mark of which only later sectors arrived: the mark is whole, and behind it stand
/// whole frames of a group that nobody was told of. They must neither be served nor be taken for the end of a shorter group.
#[test]
fn frames_of_a_failed_append_behind_a_closing_mark_do_not_come_back() {
    let mut world = World::new(small());
    world.trade(2);
    world.journal.take().unwrap().close().unwrap();
    world.disk.kill();
    let file = world.names(".seg").pop().unwrap();
    let closed = world.disk.content(&file).unwrap();
    world.open();
    world.disk.fail(Some(fail(Call::Sync, 0, false)));
    assert!(world.append(&[Lane::Trade, Lane::Stock, Lane::Stock], 100).is_err());
    let mut torn = world.disk.content(&file).unwrap();
    let mark = closed.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    torn[..mark].copy_from_slice(&closed[..mark]);
    world.disk.set_content(&file, torn);
    world.disk.kill();
    world.open();
    assert!(world.opened.tail_cut.as_ref().is_some_and(|cut| !cut.records.is_empty()), "{:?}", world.opened);
    assert_eq!(world.read_all().records.len(), 2);
    world.append(&[Lane::Trade], 100).unwrap();
    world.disk.kill();
    world.open();
    assert!(world.opened.tail_cut.is_none(), "{:?}", world.opened);
    assert_eq!(world.read_all().records.len(), 3);
    assert!(world.verify().is_empty());
}

#[test]
fn a_torn_group_is_cut_kept_in_quarantine_and_told() {
    for seed in 0..200 {
        let mut world = World::new(small());
        world.trade(2);
        let file = world.names(".seg").pop().unwrap();
        world.disk.fail(Some(fail(Call::Sync, 0, false)));
        world.disk.forgive_sync(true);
        let before = world.disk.content(&file).unwrap();
        assert!(world.append(&[Lane::Trade; 5], 400).is_err());
        // The same as an unsynced write of which some sectors arrived.
        let after = world.disk.content(&file).unwrap();
        let torn: Vec<u8> = before
            .chunks(512)
            .zip(after.chunks(512))
            .enumerate()
            .flat_map(|(sector, (old, new))| if seed >> (sector % 8) & 1 == 1 { new } else { old }.to_vec())
            .collect();
        world.disk.set_content(&file, torn.clone());
        world.disk.kill();
        world.open();
        let told = world.opened.tail_cut.clone();
        let kept = world.read_all().records.len() - 2;
        assert!(world.opened.damage.is_empty(), "{:?}", world.opened.damage);
        assert!(told.is_some() || kept == 5 || torn == before, "cut in silence: seed {seed}, kept {kept}");
        if let Some(cut) = told {
            assert!(cut.bytes > 0 && cut.quarantined.is_some());
        }
        // Whatever was kept stays, whatever was cut stays away.
        world.disk.power_cut(Cut::DropAll);
        world.open();
        assert!(world.opened.tail_cut.is_none() && world.opened.rewritten_bytes == 0);
        assert_eq!(world.read_all().records.len() - 2, kept);
    }
}

/// A group of three records whose header ends with a sector, and what stood there before; where its frames begin.
fn aligned_group(fails: bool) -> (World, String, Vec<u8>, Vec<usize>) {
    for filler in 0..520 {
        let mut world = World::new(small());
        world.append(&[Lane::Trade], filler).unwrap();
        let file = world.names(".seg").pop().unwrap();
        let start = usize::try_from(world.journal().end().offset()).unwrap();
        let before = world.disk.content(&file).unwrap();
        if fails {
            world.disk.fail(Some(fail(Call::Sync, 0, false)));
        }
        assert_eq!(world.append(&[Lane::Trade; 3], 400).is_err(), fails);
        let written = world.disk.content(&file).unwrap();
        let frames = (start..written.len()).step_by(8).filter(|at| written[*at..].starts_with(b"CF"));
        let frames: Vec<usize> = frames.take(4).collect();
        if frames[1].is_multiple_of(512) {
            return (world, file, before, frames);
        }
    }
    panic!("no header ended with a sector");
}

/// The header of a group may end where a sector does, and that sector alone may be lost. Its records are whole and stay; nothing that was
/// ever counted on is damaged, and nobody is alarmed. The last record may be lost beside it.
#[test]
fn a_group_whose_header_alone_was_torn_off_is_no_damage() {
    for is_last_lost in [false, true] {
        let (mut world, file, before, frames) = aligned_group(true);
        let mut torn = world.disk.content(&file).unwrap();
        let end = torn.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        torn[frames[0]..frames[1]].copy_from_slice(&before[frames[0]..frames[1]]);
        let mut bytes = frames[1] - frames[0];
        if is_last_lost {
            // All but its first bytes.
            torn[frames[3] + 16..].copy_from_slice(&before[frames[3] + 16..]);
            bytes += torn.iter().rposition(|byte| *byte != 0).unwrap() + 1 - frames[3];
        }
        world.disk.set_content(&file, torn);
        world.disk.kill();
        world.open();
        assert!(world.opened.damage.is_empty(), "{:?}", world.opened.damage);
        let cut = world.opened.tail_cut.clone().unwrap();
        assert_eq!((cut.bytes, cut.quarantined.is_some()), (bytes as u64, true), "{cut:?}");
        let log_end = if is_last_lost { frames[3] } else { end.next_multiple_of(8) };
        assert_eq!(cut.position.offset() as usize, log_end);
        // Told once: a hole stands there now. Before anybody reads, for a reader would mend it.
        world.disk.power_cut(Cut::DropAll);
        world.open();
        assert!(world.opened.damage.is_empty() && world.opened.tail_cut.is_none(), "{:?}", world.opened);
        assert_eq!(world.read_all().records.len(), if is_last_lost { 3 } else { 4 });
    }
}

/// A file that ends within its last record keeps what there is of it.
#[test]
fn of_a_record_that_the_file_cuts_the_bytes_are_kept() {
    let (mut world, file, _, frames) = aligned_group(true);
    let mut torn = world.disk.content(&file).unwrap();
    torn.truncate(frames[3] + 100);
    world.disk.set_content(&file, torn.clone());
    world.disk.kill();
    world.open();
    let cut = world.opened.tail_cut.clone().unwrap();
    let kept = world.disk.content(&format!("quarantine/{}", cut.quarantined.unwrap())).unwrap();
    assert!(kept.starts_with(&torn[frames[3]..]), "{kept:?}");
}

/// The same sector lost once the group was counted on is damage, wherever it ends.
#[test]
fn a_sector_that_is_lost_before_the_proven_end_is_damage() {
    let (mut world, file, before, frames) = aligned_group(false);
    world.trade(1);
    let mut content = world.disk.content(&file).unwrap();
    content[frames[0]..frames[1]].copy_from_slice(&before[frames[0]..frames[1]]);
    world.disk.set_content(&file, content);
    world.disk.kill();
    world.open();
    let told: Vec<_> = world.opened.damage.iter().map(|damage| (damage.offset as usize, damage.bytes)).collect();
    assert_eq!(told, [(frames[0], (frames[1] - frames[0]) as u64)]);
    assert!(world.opened.tail_cut.is_none());
    assert!(world.verify().is_empty(), "no record is gone by it");
}

/// Processes that end in their first groups never told anybody of their epochs: the line of the next one goes past them.
#[test]
fn an_epoch_whose_first_group_is_torn_has_no_descendants() {
    for kept_bytes in (0..1_000).step_by(40) {
        let mut world = World::new(small());
        world.trade(2);
        for _ in 0..2 {
            world.disk.kill();
            world.open();
            let file = world.names(".seg").pop().unwrap();
            let end = usize::try_from(world.opened.end.offset()).unwrap();
            let mut torn = world.disk.content(&file).unwrap();
            world.disk.fail(Some(fail(Call::Sync, 0, false)));
            assert!(world.append(&[Lane::Trade; 5], 400).is_err());
            let written = world.disk.content(&file).unwrap();
            torn[end..end + kept_bytes].copy_from_slice(&written[end..end + kept_bytes]);
            world.disk.set_content(&file, torn);
        }
        world.disk.kill();
        world.open();
        world.trade(1);
        let views = world.journal().lanes();
        let is_dead = |parent| !views.iter().any(|view| Some(view.epoch) == parent);
        let parents: Vec<_> = views.iter().map(|view| view.parent).collect();
        assert!(!parents.iter().any(|parent| parent.is_some() && is_dead(*parent)), "{kept_bytes}: {parents:?}");
        assert!(views.iter().all(|view| !view.lanes.is_empty()), "{kept_bytes}: {views:?}");
        world.disk.kill();
        world.open();
        assert_eq!(world.journal().lanes().iter().map(|view| view.parent).collect::<Vec<_>>(), parents);
    }
}

/// The process dies at each of its calls in turn, the next one sells on, and then the power fails: also a name that the first one had given
/// a file and not synced has to be on the medium.
#[test]
fn what_is_acknowledged_after_a_kill_at_any_call_of_an_append_survives_a_power_cut() {
    let mut turned = 0;
    for after in 0.. {
        let (mut world, mut floors) = (World::new(small()), Floors::default());
        world.disk.fail(Some(fail(Call::Change, after, true)));
        let survived = (0..12).all(|_| world.append(&[Lane::Trade, Lane::Stock], 600).is_ok());
        world.disk.kill();
        reopen(&mut world, &mut floors);
        turned += usize::from(world.names(".seg").len() > 1);
        world.append(&[Lane::Trade], 100).unwrap();
        world.disk.power_cut(Cut::DropAll);
        reopen(&mut world, &mut floors);
        assert!(world.verify().is_empty(), "killed after {after} calls");
        if survived {
            break;
        }
    }
    assert!(turned > 1, "segments were turned on the way");
}

#[test]
fn what_is_acknowledged_after_a_kill_at_any_call_of_an_opening_survives_a_power_cut() {
    for after in 0.. {
        let (mut world, mut floors) = (World::new(small()), Floors::default());
        world.trade(3);
        world.disk.kill();
        world.disk.fail(Some(fail(Call::Change, after, true)));
        let survived = world.try_open().is_ok();
        world.disk.kill();
        reopen(&mut world, &mut floors);
        world.append(&[Lane::Trade], 100).unwrap();
        world.disk.power_cut(Cut::DropAll);
        reopen(&mut world, &mut floors);
        assert_eq!(world.read_all().records.len(), 4, "killed after {after} calls");
        if survived {
            break;
        }
    }
}
