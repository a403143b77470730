//! Bytes that changed: each flipped, each length cut, each file removed, zeroed or replaced by garbage.
//!
//! What a damage may cost:
//! - a byte of a record's frame: that record, and it must cost it;
//! - a byte of a group's header: **no record.** Each frame carries its own length, checksum and (epoch, lane, seq), so readers need no group
//!   header. What it adds is the heads before the group, which matter only where records before it are lost too; and in the last
//!   group, of which nothing later proves that it was synced, its place: but that can be told from the first frame behind it, since the length
//!   of a group header follows from the heads;
//! - a byte of a segment's header, a side file, the cursor, the binding, a spare file, the rest of the open segment: nothing;
//! - a byte of a record in the last group after a kill: that record and what follows it **in that group**, at most seven here. Nobody
//!   can tell a flipped byte there from a torn append, and of a torn append what stands behind the tear must not count, or a lane
//!   would have a hole that nobody states. A clean stop, or one more group, proves it, and then it is one record;
//! - a length: what stood behind it.

use std::collections::BTreeSet;

use counterfoil::journal::MemoryDisk;
use counterfoil_proto::id::RecordKey;

use crate::judge::{Verdict, judge};
use crate::layout::Kind;
use crate::sample::Sample;
use crate::sweep;

/// The mask that a byte is flipped with: each bit has its turn.
fn mask(offset: usize) -> u8 {
    1 << (offset * 5 % 8)
}

fn near(sample: &Sample, file: &str) -> BTreeSet<RecordKey> {
    sample.records_in(file).map(|(key, _)| *key).collect()
}

/// The records that a flip of this byte may cost. `proven`: whether something later proves the last group.
fn cost(sample: &Sample, file: &str, offset: usize, is_proven: bool) -> BTreeSet<RecordKey> {
    let Some(frame) = sample.frame_at(file, offset) else { return BTreeSet::new() };
    let Kind::Record(hit) = frame.kind else { return BTreeSet::new() };
    let last_group = sample.frames[file].last().unwrap().group;
    if is_proven || file != sample.last || frame.group < last_group {
        return BTreeSet::from([hit]);
    }
    let behind = sample.records_in(file).filter(|(_, acked)| acked.bytes.start >= frame.bytes.start);
    behind.map(|(key, _)| *key).collect()
}

fn flip(sample: &Sample, (file, offset): &(String, usize), is_proven: bool) -> Result<(), String> {
    let image = sample.disk.copy();
    assert!(image.flip(file, *offset, mask(*offset)));
    let may = cost(sample, file, *offset, is_proven);
    let Verdict { lost, said } = judge(sample, &image, &may, &near(sample, file))?;
    if lost != may {
        return Err(format!("{may:?} were hit, {lost:?} are lost"));
    }
    let is_told = !said.damage.is_empty() || said.tail_cut.is_some();
    if is_told || !matters(sample, file, *offset) { Ok(()) } else { Err("nobody was told".to_owned()) }
}

/// Side files are made anew out of their segments, whenever they are not what they should be.
fn is_derived(file: &str) -> bool {
    std::path::Path::new(file).extension().is_some_and(|extension| extension == "idx")
}

/// Whether a byte says anything: not so padding, the mark that the next group overwrites, what lies behind the log's end, a spare file.
fn matters(sample: &Sample, file: &str, offset: usize) -> bool {
    match sample.frames.get(file) {
        Some(frames) => {
            let header = 0..frames.first().unwrap().bytes.start;
            let frame = sample.frame_at(file, offset);
            header.contains(&offset) || frame.is_some_and(|frame| frame.kind != Kind::Closing)
        }
        None => !file.contains("spare") && !is_derived(file),
    }
}

fn flip_name((file, offset): &(String, usize)) -> String {
    format!("{file} byte {offset} ^ {:#x}", mask(*offset))
}

fn each_byte<'a>(files: impl Iterator<Item = &'a (String, usize)>) -> Vec<(String, usize)> {
    files.flat_map(|(name, bytes)| (0..*bytes).map(move |offset| (name.clone(), offset))).collect()
}

#[test]
fn a_flipped_byte_costs_its_record_and_nothing_else() {
    let sample = Sample::new(true);
    sweep(&each_byte(sample.files.iter()), flip_name, |trial| flip(&sample, trial, true));
}

/// Only the last segment differs from that of a clean stop; the other files are the same, and so is what is done with them.
#[test]
fn after_a_kill_a_flipped_byte_of_the_last_group_costs_what_follows_in_it() {
    let sample = Sample::new(false);
    let last = sample.files.iter().filter(|(name, _)| *name == sample.last);
    sweep(&each_byte(last), flip_name, |trial| flip(&sample, trial, false));
}

fn cut(sample: &Sample, (file, length): &(String, usize)) -> Result<(), String> {
    let image = sample.disk.copy();
    let mut bytes = image.content(file).unwrap();
    bytes.truncate(*length);
    image.set_content(file, bytes);
    let behind: BTreeSet<_> = sample
        .records_in(file)
        .filter(|(_, acked)| acked.file == *file && acked.bytes.end > *length)
        .map(|(key, _)| *key)
        .collect();
    // The group that the cut goes through is not proven any more: what is before the cut stays nevertheless.
    let Verdict { lost, .. } = judge(sample, &image, &behind, &near(sample, file))?;
    if lost == behind { Ok(()) } else { Err(format!("{behind:?} were cut off, {lost:?} are lost")) }
}

fn cut_name((file, length): &(String, usize)) -> String {
    format!("{file} cut to {length}")
}

#[test]
fn a_file_cut_at_any_length_costs_what_was_behind() {
    let sample = Sample::new(true);
    sweep(&each_byte(sample.files.iter()), cut_name, |trial| cut(&sample, trial));
}

#[test]
fn after_a_kill_a_last_segment_cut_at_any_length_costs_what_was_behind() {
    let sample = Sample::new(false);
    let last = sample.files.iter().filter(|(name, _)| *name == sample.last);
    sweep(&each_byte(last), cut_name, |trial| cut(&sample, trial));
}

/// What may stand in the place of a file.
const WAYS: [&str; 7] = ["removed", "empty", "zeros", "ones", "noise", "short noise", "another segment"];

fn replace(sample: &Sample, image: &MemoryDisk, file: &str, way: &str) {
    let length = image.content(file).unwrap().len();
    let noise = |length: usize| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        };
        (0..length).map(|_| byte()).collect()
    };
    let bytes = match way {
        "removed" => {
            assert!(image.delete(file));
            return;
        }
        "empty" => Vec::new(),
        "zeros" => vec![0; length],
        "ones" => vec![0xFF; length],
        "noise" => noise(length),
        "short noise" => noise(97),
        _ => {
            let other = sample.frames.keys().find(|name| *name != file).unwrap();
            image.content(other).unwrap()
        }
    };
    image.set_content(file, bytes);
}

#[test]
fn a_file_that_is_missing_or_garbage_costs_what_it_held() {
    for is_clean in [true, false] {
        let sample = Sample::new(is_clean);
        let files = sample.files.iter().map(|(name, _)| name.clone()).chain(["journal/ballast".to_owned()]);
        let trials: Vec<(String, &str)> = files.flat_map(|name| WAYS.map(|way| (name.clone(), way))).collect();
        let name = |(file, way): &(String, &str)| format!("{file} (clean: {is_clean}) {way}");
        sweep(&trials, name, |(file, way)| {
            let image = sample.disk.copy();
            replace(&sample, &image, file, way);
            let held: BTreeSet<_> =
                sample.records_in(file).filter(|(_, acked)| acked.file == *file).map(|(key, _)| *key).collect();
            let Verdict { lost, said } = judge(&sample, &image, &held, &near(&sample, file))?;
            if lost != held {
                return Err(format!("{held:?} were in it, {lost:?} are lost"));
            }
            let mut kept = said.damage.iter().flat_map(|damage| &damage.quarantined);
            let has_bytes = !matches!(*way, "removed" | "empty" | "zeros");
            if has_bytes && !held.is_empty() && kept.next().is_none() {
                return Err(format!("the garbage is not kept: {:?}", said.damage));
            }
            Ok(())
        });
    }
}
