//! Every byte flipped, every length cut, every file removed.

use super::*;

mod ends;

pub(super) fn frames(world: &World, name: &str, nonce: u64) -> Vec<scan::Item> {
    let number = segment::number_of(name.strip_prefix("journal/").unwrap(), "", ".seg").unwrap();
    let bytes = world.disk.content(name).unwrap();
    scan::items(&bytes, Seed::new(nonce, number), 0).items
}

pub(super) fn lost(gone: &[Gone]) -> u64 {
    gone.iter().map(|gone| gone.range.count()).sum()
}

/// Opens a damaged copy; whatever was hit, the rest is served, what is lost is named, and a resubmission of it is recorded anew.
fn survives(mut world: World, lost_max: u64, what: &str) -> u64 {
    let opening = world.try_open();
    assert!(opening.is_ok(), "{what}: {opening:?}");
    let cut: Vec<RecordKey> = world.opened.tail_cut.iter().flat_map(|cut| cut.records.clone()).collect();
    let forgotten = world.forget_cut(&cut);
    let gone = world.verify();
    let count = lost(&gone);
    assert!(count + forgotten <= lost_max, "{what}: {count} records lost and {forgotten} cut, {gone:?}");
    for (key, (n, _)) in world.acked.clone() {
        if gone.iter().any(|gone| gone.key == key.lane_key() && gone.range.contains(key.seq)) {
            assert_eq!(world.journal().find(key_of(n)).unwrap(), Found::Nothing, "{what}: document {n} is lost");
            resubmit(&mut world, n);
        }
    }
    let reported = world.journal().take_damage();
    // The same after another start, the side files thrown away.
    world.journal = None;
    for name in world.names(".idx") {
        world.disk.delete(&name);
    }
    world.disk.power_cut(Cut::DropAll);
    world.open();
    assert!(world.opened.damage.iter().all(|damage| !damage.end_unknown), "{what}: told once: {:?}", world.opened);
    let again = world.verify();
    assert_eq!(lost(&again), count, "{what}: {gone:?} then {again:?}; told {reported:?}");
    count
}

fn resubmit(world: &mut World, n: u64) {
    world.begin_epoch();
    let (keys, stored) = document(n, 20);
    let staged = world.journal().stage(Lane::Trade, &keys, &stored).unwrap();
    world.journal().commit(NOW).unwrap();
    world.given.entry(staged.key).or_default().push(stored.clone());
    world.acked.retain(|_, (other, _)| *other != n);
    world.acked.insert(staged.key, (n, stored));
    assert_eq!(world.journal().find(keys[0]).unwrap(), Found::Synced(staged.position));
}

impl World {
    /// What the report of a cut tail names is not expected any more. Says how many records that are.
    fn forget_cut(&mut self, cut: &[RecordKey]) -> u64 {
        let before = self.acked.len();
        let mut journal_ends = BTreeMap::new();
        for view in self.journal().lanes() {
            for lane in view.lanes {
                journal_ends.insert(lane_key(view.epoch, lane.lane), lane.last);
            }
        }
        if self.opened.tail_cut.is_some() || self.opened.damage.iter().any(|damage| damage.end_unknown) {
            self.acked.retain(|key, _| {
                journal_ends.get(&key.lane_key()).is_some_and(|last| key.seq <= *last) && !cut.contains(key)
            });
        }
        (before - self.acked.len()) as u64
    }
}

/// With a step, because each byte is an opening, a full read and a second opening; the steps of the two tests are coprime to eight.
fn flip_each(sample: &World, step: usize, mask: u8, lost_max: u64) {
    let mut tried = 0;
    for name in sample.disk.files().into_iter().map(|file| file.name).filter(|name| !name.ends_with("ballast")) {
        let length = sample.disk.content(&name).unwrap().len();
        let end = if name.ends_with(".seg") {
            frames(sample, &name, 77).last().map_or(0, scan::Item::end) as usize + 64
        } else {
            length
        };
        for offset in (0..length.min(end)).step_by(step) {
            let world = copy(sample);
            world.disk.flip(&name, offset, mask);
            survives(world, lost_max, &format!("{name} byte {offset} ^ {mask:#x}"));
            tried += 1;
        }
    }
    assert!(tried > 100);
}

#[test]
fn a_flipped_byte_costs_at_most_its_record() {
    flip_each(&sample(true), 5, 0x40, 1);
}

#[test]
fn a_flipped_byte_costs_at_most_its_record_or_the_unproven_tail_after_a_kill() {
    flip_each(&sample(false), 13, 0x01, 2);
}

#[test]
fn a_flipped_byte_of_a_segment_written_anew_costs_at_most_its_record() {
    flip_each(&rewritten(), 11, 0x10, 1);
}

/// After a kill the last segment is written anew, and its header proves all that is in it.
pub(super) fn rewritten() -> World {
    let mut world = sample(false);
    world.open();
    world.journal = None;
    world
}

#[test]
fn every_byte_of_every_frame_header_flipped_is_isolated() {
    let sample = sample(true);
    for name in sample.names(".seg") {
        for item in frames(&sample, &name, 77).iter().step_by(4) {
            for at in (0..limits::FRAME_HEADER_BYTES as u32).step_by(2) {
                let mut world = copy(&sample);
                world.disk.flip(&name, (item.offset + at) as usize, 0x80);
                world.try_open().unwrap();
                let gone = world.verify();
                let expected = u64::from(item.header.kind == super::super::frame::Kind::Record);
                assert_eq!(lost(&gone), expected, "{name} {item:?} byte {at}");
            }
        }
    }
}

#[test]
fn a_removed_zeroed_or_foreign_file_loses_only_what_it_held_and_names_it() {
    let sample = sample(true);
    let names: Vec<String> = sample.disk.files().into_iter().map(|file| file.name).collect();
    let last = sample.names(".seg").pop().unwrap();
    for name in names {
        let held = if name.ends_with(".seg") {
            frames(&sample, &name, 77)
                .iter()
                .filter(|item| item.header.kind == super::super::frame::Kind::Record)
                .count() as u64
        } else {
            0
        };
        for way in ["removed", "zeroed", "foreign", "empty"] {
            let mut world = copy(&sample);
            let length = world.disk.content(&name).unwrap().len();
            match way {
                "removed" => assert!(world.disk.delete(&name)),
                "zeroed" => world.disk.set_content(&name, vec![0; length]),
                "foreign" => world.disk.set_content(&name, (0..length).map(|at| (at * 7 + at / 256) as u8).collect()),
                _ => world.disk.set_content(&name, Vec::new()),
            }
            let what = format!("{name} {way}");
            if name == last {
                // Nothing behind it says what it held: that it is lost is told, the rest is whole, and the next epoch is a new one.
                world.try_open().unwrap();
                assert!(world.opened.damage.iter().any(|damage| damage.end_unknown), "{what}: {:?}", world.opened);
                let ends: BTreeMap<_, _> = world
                    .journal()
                    .lanes()
                    .into_iter()
                    .flat_map(|view| {
                        view.lanes.into_iter().map(move |lane| (lane_key(view.epoch, lane.lane), lane.last))
                    })
                    .collect();
                world.acked.retain(|key, _| ends.get(&key.lane_key()).is_some_and(|last| key.seq <= *last));
                assert!(world.acked.len() as u64 + held >= 35, "{what}");
                assert!(world.verify().is_empty(), "{what}");
                world.trade(3);
                assert!(world.verify().is_empty(), "{what}");
            } else {
                let count = survives(world, held, &what);
                assert_eq!(count, held, "{what}");
            }
        }
    }
}

#[test]
fn an_epoch_that_lived_in_a_lost_segment_is_named_whole() {
    let mut world = World::new(small());
    world.trade(2);
    world.journal.take().unwrap().close().unwrap();
    // Fill the first segment's rest and one more with a second epoch, then a third.
    for count in [12, 8] {
        world.open();
        for _ in 0..count {
            world.trade(2);
        }
        world.journal.take().unwrap().close().unwrap();
    }
    let names = world.names(".seg");
    assert!(names.len() >= 4);
    for pair in [0..1, 0..2, 1..3, 0..names.len() - 1] {
        let mut broken = copy(&world);
        let mut held = 0;
        for name in &names[pair] {
            held += frames(&world, name, 77)
                .iter()
                .filter(|item| item.header.kind == super::super::frame::Kind::Record)
                .count() as u64;
            broken.disk.delete(name);
        }
        broken.open();
        let gone = broken.verify();
        assert_eq!(lost(&gone), held, "{gone:?}");
        assert!(gone.iter().all(|gone| gone.reason == GoneReason::Missing && gone.chain_after.is_some()), "{gone:?}");
    }
}

#[test]
fn damage_while_running_is_found_by_reader_lookup_and_scrub() {
    for finder in ["reader", "find", "scrub", "replay"] {
        for (turn, name) in sample(true).names(".seg").into_iter().enumerate() {
            let mut world = sample(true);
            world.open();
            let item = *frames(&world, &name, 77)
                .iter()
                .filter(|item| item.header.kind == super::super::frame::Kind::Record)
                .nth(2)
                .unwrap();
            let record = RecordKey { epoch: item.header.epoch, lane: item.header.lane, seq: Seq(item.header.seq) };
            let n = world.acked[&record].0;
            world.disk.flip(&name, item.offset as usize + 60, 4);
            match finder {
                "reader" => {}
                "find" => {
                    assert_eq!(world.journal().find(key_of(n)).unwrap(), Found::Nothing);
                    let damage = world.journal().take_damage();
                    assert_eq!(lost(&damage[0].gone), 1, "{turn} {damage:?}");
                    assert_eq!(damage[0].quarantined.len(), 1);
                }
                "replay" => {
                    let segments: Vec<u32> = world
                        .journal()
                        .replay(Position::START)
                        .filter_map(|entry| match entry.unwrap() {
                            Replayed::Damaged { segment } => Some(segment),
                            Replayed::Frame { .. } => None,
                        })
                        .collect();
                    assert_eq!(segments.len(), 1);
                    assert_eq!(world.journal().handle_damage(segments[0]).unwrap().len(), 1);
                }
                _ => {
                    let mut found = Vec::new();
                    while !world
                        .journal()
                        .scrub_step(1000)
                        .map(|step| {
                            found.extend(step.damage);
                            step.round_done
                        })
                        .unwrap()
                    {}
                    let is_last = world.names(".seg").last() == Some(&name);
                    assert_eq!(found.len(), usize::from(!is_last), "{name}");
                }
            }
            let gone = world.verify();
            assert_eq!(gone.len(), 1, "{finder}");
            assert!(gone[0].range.contains(record.seq) && gone[0].range.count() == 1);
            resubmit(&mut world, n);
            assert!(world.journal().handle_damage(item_segment(&name)).unwrap().is_empty(), "it is dealt with");
            world.disk.power_cut(Cut::DropAll);
            world.open();
            assert!(world.opened.damage.is_empty(), "told once: {:?}", world.opened.damage);
            assert_eq!(lost(&world.verify()), 1);
        }
    }
}

pub(super) fn item_segment(name: &str) -> u32 {
    segment::number_of(name.strip_prefix("journal/").unwrap(), "", ".seg").unwrap()
}

#[test]
fn a_header_and_a_side_file_damaged_while_running_are_mended() {
    let mut world = sample(true);
    world.open();
    for name in [world.names(".seg")[0].clone(), world.names(".idx")[1].clone()] {
        world.disk.flip(&name, 30, 1);
        let mut found = 0;
        while !world
            .journal()
            .scrub_step(1 << 20)
            .map(|step| {
                found += step.damage.len();
                step.round_done
            })
            .unwrap()
        {}
        assert_eq!(found, 1, "{name}");
        world.disk.kill();
        world.open();
        assert!(world.verify().is_empty());
    }
}

#[test]
fn two_files_lost_at_once_still_open() {
    let sample = sample(true);
    let names: Vec<String> = sample.disk.files().into_iter().map(|file| file.name).collect();
    for one in &names {
        for other in &names {
            let mut world = copy(&sample);
            world.disk.delete(one);
            world.disk.delete(other);
            world.try_open().unwrap_or_else(|error| panic!("{one} and {other}: {error}"));
            world.trade(1);
        }
    }
}

#[test]
fn random_garbage_opens() {
    let sample = sample(false);
    for seed in 0..40_u64 {
        let mut world = copy(&sample);
        let mut state = seed;
        for name in sample.disk.files().into_iter().map(|file| file.name) {
            let length = world.disk.content(&name).unwrap().len();
            for _ in 0..length / 200 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(state >> 33).unwrap() % length;
                world.disk.flip(&name, at, (state >> 20) as u8 | 1);
            }
        }
        match world.try_open() {
            Ok(()) => {
                world.read_all();
                world.trade(1);
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}
