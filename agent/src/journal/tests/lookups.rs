//! Looking up by position and by identity, at both sides of each decision. Most were written for a mutant that lived.

use super::*;
use crate::journal::catalog::Span;
use crate::journal::scan::{Mark, Run};
use crate::journal::types::ReadError;

/// Three segments at the least; where each record stands.
fn filled() -> (World, Vec<Position>) {
    let mut world = World::new(small());
    for _ in 0..40 {
        world.trade(3);
    }
    assert!(world.names(".seg").len() > 3);
    let numbers = 1..=world.documents;
    let place = |n| match world.journal.as_mut().unwrap().find(key_of(n)).unwrap() {
        Found::Synced(position) => position,
        other @ (Found::Pending(_) | Found::Nothing) => panic!("{other:?}"),
    };
    let places = numbers.map(place).collect();
    (world, places)
}

fn name_of(world: &World, position: Position) -> String {
    let names = world.names(".seg");
    names.into_iter().find(|name| name.contains(&format!("{:08}", position.segment()))).unwrap()
}

#[test]
fn nothing_stands_before_the_first_frame_or_behind_the_last() {
    let (mut world, places) = filled();
    let number = places[0].segment();
    for offset in [0, 1, 8] {
        let found = world.journal().read_at(Position::new(number, offset));
        assert!(matches!(found, Err(ReadError::NotThere(_))), "{offset}: {found:?}");
    }
    let end = world.journal().end();
    assert!(matches!(world.journal().read_at(end), Err(ReadError::NotThere(_))));
    let beyond = Position::new(end.segment() + 1, end.offset());
    assert!(matches!(world.journal().read_at(beyond), Err(ReadError::NotThere(_))));
}

#[test]
fn a_missing_file_is_damage_and_a_failing_read_is_not() {
    let (mut world, places) = filled();
    world.disk.fail(Some(fail(Call::Read, 0, true)));
    assert!(matches!(world.journal().read_at(places[0]), Err(ReadError::Disk { .. })));
    world.disk.fail(None);
    assert!(world.journal().read_at(places[0]).is_ok());
    let name = name_of(&world, places[0]);
    assert!(world.disk.delete(&name));
    assert!(matches!(world.journal().read_at(places[0]), Err(ReadError::Damaged(_))));
}

#[test]
fn a_record_that_ends_before_its_frame_does_is_damaged() {
    let (mut world, places) = filled();
    let number = places[0].segment();
    let last = *places.iter().rfind(|place| place.segment() == number).unwrap();
    for place in [places[0], last] {
        let name = name_of(&world, place);
        let whole = world.disk.content(&name).unwrap();
        for left in [0, 20, 60] {
            world.disk.set_content(&name, whole[..place.offset() as usize + left].to_vec());
            let found = world.journal().read_at(place);
            assert!(matches!(found, Err(ReadError::Damaged(_))), "{left}: {found:?}");
        }
        world.disk.set_content(&name, whole);
        assert!(world.journal().read_at(place).is_ok());
    }
}

#[test]
fn a_last_record_that_was_cut_is_damaged_with_padding_behind_it_or_without() {
    for extra in 0..8 {
        let mut world = World::new(small());
        world.append(&[Lane::Trade], 100 + extra).unwrap();
        let Found::Synced(place) = world.journal().find(key_of(1)).unwrap() else { panic!("it is there") };
        let name = name_of(&world, place);
        let whole = world.disk.content(&name).unwrap();
        world.disk.set_content(&name, whole[..place.offset() as usize + 60].to_vec());
        let found = world.journal().read_at(place);
        assert!(matches!(found, Err(ReadError::Damaged(_))), "{extra}: {found:?}");
    }
}

#[test]
fn where_a_hole_begins_nothing_stands() {
    let (mut world, places) = filled();
    let name = name_of(&world, places[0]);
    let mut bytes = world.disk.content(&name).unwrap();
    for place in &places[..2] {
        bytes[place.offset() as usize + 50] ^= 1;
    }
    world.disk.set_content(&name, bytes);
    assert_eq!(world.journal().handle_damage(places[0].segment()).unwrap().len(), 1);
    let found = world.journal().read_at(places[0]);
    assert!(matches!(found, Err(ReadError::NotThere(_))), "{found:?}");
    assert!(world.journal().read_at(places[2]).is_ok());
}

#[test]
fn an_identity_is_found_though_the_side_files_were_damaged_a_moment_ago() {
    let (world, places) = filled();
    let number = |n: u64| places[usize::try_from(n - 1).unwrap()].segment();
    for segment in number(1)..=number(world.documents) {
        // The first identity of a page: by another segment's side file it would stand before the first page.
        let own = (1..=world.documents).filter(|n| number(*n) == segment);
        let Some(n) = own.min_by_key(|n| key_of(*n).0) else { continue };
        let mut copy = copy(&world);
        copy.try_open().unwrap();
        for name in copy.names(".idx") {
            let mut bytes = copy.disk.content(&name).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0);
            copy.disk.set_content(&name, bytes);
        }
        assert!(matches!(copy.journal().find(key_of(n)).unwrap(), Found::Synced(_)), "{n}");
    }
}

#[test]
fn a_lane_that_begins_with_a_gap_states_the_chain_before_it_where_that_is_known() {
    let (mut world, places) = filled();
    let first = |world: &mut World| {
        let lane = world.journal().lanes()[0].lanes[0].clone();
        (lane.first, lane.before)
    };
    let genesis = Chain::genesis(epoch(1), Lane::Trade);
    assert_eq!(first(&mut world), (seq(1), Some(genesis)));
    let name = name_of(&world, places[0]);
    let mut bytes = world.disk.content(&name).unwrap();
    bytes[places[0].offset() as usize + 50] ^= 1;
    world.disk.set_content(&name, bytes);
    world.journal().handle_damage(places[0].segment()).unwrap();
    assert_eq!(first(&mut world), (seq(1), Some(genesis)));

    // The same behind a segment that was given back.
    let second = places.iter().position(|place| place.segment() > places[0].segment()).unwrap();
    let name = name_of(&world, places[second]);
    let mut bytes = world.disk.content(&name).unwrap();
    bytes[places[second].offset() as usize + 50] ^= 1;
    world.disk.set_content(&name, bytes);
    world.journal().handle_damage(places[second].segment()).unwrap();
    let safe = seq(second as u64);
    world.journal().acknowledge(lane_key(epoch(1), Lane::Trade), Marks { stored: safe, safe });
    world.journal().stage_local(0, 1, &[1; 8]).unwrap();
    world.journal().commit(NOW).unwrap();
    let end = world.journal().end();
    let given_back = world.journal().reclaim(WallTime(NOW.0 + 2_000), end).unwrap();
    assert_eq!(given_back.segments, 1);
    let (begins, before) = first(&mut world);
    assert_eq!(begins, safe.next());
    assert_ne!(before, Some(genesis), "that is the chain before the first number of all");
}

#[test]
fn a_lane_whose_first_segment_is_missing_begins_with_the_genesis_of_its_chain() {
    let (mut world, places) = filled();
    let name = name_of(&world, places[0]);
    world.journal = None;
    world.disk.kill();
    assert!(world.disk.delete(&name));
    world.open();
    let lane = world.journal().lanes()[0].lanes[0].clone();
    assert_eq!((lane.first, lane.before), (seq(1), Some(Chain::genesis(epoch(1), Lane::Trade))));
}

#[test]
fn a_side_file_that_leads_astray_is_damage() {
    let (mut world, places) = filled();
    let number = places[0].segment();
    let right = world.journal().sealed[0].as_ref().clone();
    let mut wrong = [right.clone(), right.clone()];
    wrong[0].runs[0].start += 8;
    wrong[1].marks.push(Mark { run: 0, seq: seq(2), offset: right.runs[0].start + 8 });
    for wrong in wrong {
        Arc::make_mut(&mut world.journal().sealed)[0] = Arc::new(wrong.clone());
        let found = world.journal().handle_damage(number).unwrap();
        assert!(found.iter().all(|damage| damage.gone.is_empty()), "{found:?}");
        let mended = world.journal().sealed[0].clone();
        assert_eq!((&mended.runs, &mended.marks), (&right.runs, &right.marks));
    }
    assert_eq!(world.read_all().records.len(), places.len());
}

#[test]
fn saving_the_cursor_costs_two_syncs_and_nothing_where_nothing_moved() {
    let (mut world, _) = filled();
    world.journal().save_cursor().unwrap();
    let before = world.journal().figures().syncs;
    world.journal().save_cursor().unwrap();
    assert_eq!(world.journal().figures().syncs, before);
    world.journal().acknowledge(lane_key(epoch(1), Lane::Trade), Marks { stored: seq(1), safe: seq(1) });
    world.journal().save_cursor().unwrap();
    assert_eq!(world.journal().figures().syncs, before + 2);
}

#[test]
fn a_reader_is_shown_the_marks_of_the_open_segment() {
    let mut world = World::new(JournalConfig { segment_bytes: 4 << 20, bytes_max: 1 << 30, ..small() });
    let mut seen = 0;
    for _ in 0..40 {
        world.append(&[Lane::Trade; 4], 10_000).unwrap();
        let open = &world.journal().open;
        let (own, shown) = (open.content.marks.clone(), world.journal().catalog().open_span().marks.to_vec());
        assert_eq!(own, shown);
        seen = shown.len();
    }
    assert!(seen > 1);
}

#[test]
fn a_walk_begins_at_the_nearest_mark_of_the_run_that_holds_the_number() {
    let key = lane_key(epoch(1), Lane::Trade);
    let run = |first, last, start| Run { key, first: seq(first), before: None, last: seq(last), after: None, start };
    let runs = [run(1, 50, 100), run(60, 90, 5_000)];
    let mark = |run, at, offset| Mark { run, seq: seq(at), offset };
    let marks = [mark(0, 20, 2_000), mark(0, 40, 4_000), mark(1, 70, 6_000)];
    let span =
        Span { number: 1, nonce: 0, header_bytes: 64, end: 9_000, runs: &runs, marks: &marks, holes: &[(300, 400)] };
    let found: Vec<_> = [1, 19, 20, 39, 40, 50, 51, 60, 69, 70, 90, 91].map(|at| span.seek(key, seq(at))).into();
    let [start, first, second, other, third] = [100, 2_000, 4_000, 5_000, 6_000].map(Some);
    assert_eq!(found, [start, start, first, first, second, second, None, other, other, third, third, None]);
    assert_eq!(span.seek(lane_key(epoch(1), Lane::Stock), seq(1)), None);
    assert_eq!([299, 300, 399, 400].map(|at| span.hole_end(at)), [None, Some(400), Some(400), None]);
}
