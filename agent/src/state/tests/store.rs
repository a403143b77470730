//! The store: what it gives back is what a checkpoint wrote, and everything else is put aside and rebuilt.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::state::limits::{DAYS_MAX, QUARANTINED_MAX};
use crate::state::rows::RowKey;
use crate::state::{CheckpointError, Mark, Opened, SyncDoor, exception_id};
use counterfoil_proto::record::flag;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn sled(&self) -> PathBuf {
        self.dir().join("sled")
    }

    fn quarantine(&self) -> PathBuf {
        self.root.path().join("quarantine")
    }

    fn open(&self) -> Opened {
        State::open(&self.dir(), &self.quarantine())
    }

    /// A store with two checkpoints, closed.
    fn filled(journal: &Journal) -> Self {
        let place = Self::new();
        let mut state = place.open().state;
        let half = journal.frames.len() / 2;
        apply_all(&mut state, &journal.frames[..half]);
        state.checkpoint(1, [1; 32]).unwrap();
        apply_all(&mut state, &journal.frames[half..]);
        state.checkpoint(2, [2; 32]).unwrap();
        place
    }
}

fn journal() -> Journal {
    let mut journal = Journal::new();
    for number in 0..60 {
        journal.append(flagged(sale("3", number, 600), &[flag::TOTALS_MISMATCH]));
        journal.append(movement(vec![change(&format!("item{number}"), "EA", "1")]));
    }
    journal.append(close(Some("3"), DAY));
    journal
}

/// Whatever was found: replay brings the state to where it was.
fn assert_rebuilds(opened: Opened, journal: &Journal) {
    let mut state = opened.state;
    apply_all(&mut state, &journal.frames);
    assert_eq!(answers(&state), answers(&journal.state()));
}

fn assert_put_aside(place: &Place, journal: &Journal) {
    let opened = place.open();
    let damaged = opened.damaged.as_ref().expect("damage is told");
    assert!(damaged.quarantined.as_ref().unwrap().starts_with(place.quarantine()));
    assert_eq!((opened.mark, opened.state.checkpointed()), (None, None));
    assert!(!place.sled().exists());
    assert_rebuilds(opened, journal);
}

#[test]
fn what_was_checkpointed_is_there_after_opening() {
    let journal = journal();
    let place = Place::filled(&journal);
    let opened = place.open();
    assert_eq!(opened.damaged, None);
    assert_eq!(opened.mark, Some(Mark { position: 2, witness: [2; 32] }));
    assert_eq!(opened.state.tables, journal.state().tables);
    assert_eq!(answers(&opened.state), answers(&journal.state()));
    assert!(!opened.state.is_dirty());
}

#[test]
fn a_first_start_finds_nothing_and_writes_nothing_until_a_checkpoint() {
    let place = Place::new();
    let opened = place.open();
    assert_eq!((opened.mark, opened.damaged), (None, None));
    assert!(!place.dir().exists());
}

#[test]
fn an_unchanged_state_is_not_written_again() {
    let place = Place::new();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let door = SyncDoor::new(move |file| {
        counted.fetch_add(1, Ordering::Relaxed);
        file.sync_data()
    });
    let mut state = State::open_with(&place.dir(), &place.quarantine(), door).state;
    apply_all(&mut state, &journal().frames);
    state.checkpoint(1, [1; 32]).unwrap();
    let before = syncs.load(Ordering::Relaxed);
    state.checkpoint(1, [1; 32]).unwrap();
    assert_eq!(syncs.load(Ordering::Relaxed), before);
    state.checkpoint(2, [2; 32]).unwrap();
    assert_eq!(syncs.load(Ordering::Relaxed), before + 1, "an incremental checkpoint is one sync");
    drop(state);
    assert_eq!(place.open().mark.map(|mark| mark.position), Some(2));
}

#[test]
fn every_failed_sync_surfaces_and_does_not_advance_the_checkpoint() {
    let journal = journal();
    let half = journal.frames.len() / 2;
    // A first checkpoint syncs five things or more; let each of them fail once, then one of the incremental checkpoint.
    for failing in 1..=8 {
        let place = Place::new();
        let syncs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&syncs);
        let door = SyncDoor::new(move |file| match counted.fetch_add(1, Ordering::Relaxed) + 1 {
            number if number == failing => Err(io::Error::other("planted")),
            _ => file.sync_data(),
        });
        let mut state = State::open_with(&place.dir(), &place.quarantine(), door).state;
        let mut durable = None;
        let mut failures = 0;
        for (position, frames) in (1..).zip([&journal.frames[..half], &journal.frames[half..], &[], &[]]) {
            apply_all(&mut state, frames);
            let written = state.checkpoint(position, [1; 32]);
            if let Err(error) = &written {
                failures += 1;
                assert!(matches!(error, CheckpointError::Sync { .. }), "{error}");
                assert!(state.is_dirty());
            } else {
                durable = Some(position);
            }
            assert_eq!(state.checkpointed().map(|mark| mark.position), durable);
        }
        assert_eq!(failures, 1, "sync {failing}");
        drop(state);
        let opened = place.open();
        assert_eq!(opened.damaged, None, "sync {failing}");
        assert_eq!(opened.mark.map(|mark| mark.position), Some(4), "sync {failing}");
        assert_eq!(opened.state.tables, journal.state().tables);
    }
}

#[test]
fn what_was_given_up_is_gone_from_the_store_too() {
    let mut journal = Journal::new();
    journal.append(close(Some("3"), "2026-01-01"));
    let on = |day: usize| {
        let mut facts = sale_facts("3", 1, 600);
        facts.business_day_date = format!("2026-{:02}-{:02}", 2 + day / 28, 1 + day % 28);
        transaction(facts)
    };
    let mut ids = Vec::new();
    for day in 1..DAYS_MAX {
        ids.push(exception_id(journal.append(flagged(on(day), &[flag::TOTALS_MISMATCH])), flag::TOTALS_MISMATCH));
    }
    let place = Place::new();
    let mut state = place.open().state;
    apply_all(&mut state, &journal.frames);
    state.checkpoint(1, [1; 32]).unwrap();
    for day in DAYS_MAX..DAYS_MAX + 3 {
        journal.append(on(day));
    }
    journal.append(resolve(&ids[0]));
    apply_all(&mut state, &journal.frames);
    state.checkpoint(2, [2; 32]).unwrap();
    drop(state);
    let opened = place.open();
    assert_eq!(opened.state.tables, journal.state().tables);
    assert_eq!(opened.state.tables.days.gone.len(), 3);
}

#[test]
fn a_directory_that_cannot_be_written_leaves_the_state_in_memory_whole() {
    let journal = journal();
    let place = Place::new();
    fs::write(place.dir(), b"a file where the directory should be").unwrap();
    let mut state = place.open().state;
    apply_all(&mut state, &journal.frames);
    assert!(matches!(state.checkpoint(1, [1; 32]), Err(CheckpointError::Files { .. })));
    assert_eq!(answers(&state), answers(&journal.state()));
    fs::remove_file(place.dir()).unwrap();
    state.checkpoint(2, [1; 32]).unwrap();
    drop(state);
    assert_eq!(place.open().state.tables, journal.state().tables);
    assert!(matches!(State::in_memory().checkpoint(1, [1; 32]), Err(CheckpointError::InMemory)));
}

type Damage = Box<dyn Fn(&Place)>;

fn damage(place: &Place, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = place.sled().join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn garbage_and_missing_files_are_put_aside() {
    let journal = journal();
    let broken: [fn(&Place); 4] = [
        |place| damage(place, "db", |bytes| bytes.fill(0xa5)),
        |place| {
            damage(place, "db", |bytes| {
                for (byte, index) in bytes.iter_mut().zip(0..) {
                    *byte ^= u8::try_from(index % 251).unwrap();
                }
            });
        },
        |place| {
            fs::remove_dir_all(place.sled()).unwrap();
            fs::write(place.sled(), b"a file").unwrap();
        },
        |place| {
            let db = place.sled().join("db");
            fs::remove_file(&db).unwrap();
            fs::create_dir(&db).unwrap();
        },
    ];
    for damage in broken {
        let place = Place::filled(&journal);
        damage(&place);
        assert_put_aside(&place, &journal);
    }
}

/// Truncation, a missing or empty `db`, a missing `conf`, single flipped bits: sled may heal it, refuse it, panic, or open something else. It must
/// never be taken for the state unless it is exactly that.
#[test]
fn whatever_happened_to_the_files_the_answers_are_the_same() {
    let journal = journal();
    let expected = journal.state();
    let original = Place::filled(&journal);
    let db = fs::read(original.sled().join("db")).unwrap();
    let mut cases: Vec<Damage> = vec![
        Box::new(|place| fs::remove_file(place.sled().join("db")).unwrap()),
        Box::new(|place| fs::remove_file(place.sled().join("conf")).unwrap()),
        Box::new(|place| damage(place, "conf", Vec::clear)),
        Box::new(|place| damage(place, "conf", |bytes| bytes.fill(b'x'))),
        Box::new(|place| fs::write(place.sled().join("snap.00000000000000ff.generating"), b"half").unwrap()),
    ];
    for length in [0, 1, 511, 4_096, 20_000, db.len() / 2, db.len().saturating_sub(1)] {
        cases.push(Box::new(move |place| damage(place, "db", |bytes| bytes.truncate(length))));
    }
    let used = db.iter().rposition(|byte| *byte != 0).unwrap();
    for step in 0..60 {
        let index = used * step / 60;
        cases.push(Box::new(move |place| damage(place, "db", |bytes| bytes[index] ^= 1 << (step % 8))));
    }
    let mut used_as_is = 0;
    for change in &cases {
        let place = copy_of(&original);
        change(&place);
        let opened = place.open();
        if let Some(mark) = opened.mark {
            used_as_is += 1;
            assert!(mark.position == 2 || mark.position == 1, "a mark that was written");
            let frames =
                if mark.position == 2 { &journal.frames[..] } else { &journal.frames[..journal.frames.len() / 2] };
            let mut state = State::in_memory();
            apply_all(&mut state, frames);
            assert_eq!(opened.state.tables, state.tables);
        }
        let mut state = opened.state;
        apply_all(&mut state, &journal.frames);
        assert_eq!(answers(&state), answers(&expected));
        state.checkpoint(3, [3; 32]).unwrap();
        drop(state);
        let opened = place.open();
        assert_eq!((opened.mark.map(|mark| mark.position), opened.damaged), (Some(3), None));
    }
    println!("{used_as_is} of {} were usable", cases.len());
    assert!(used_as_is > 0 && used_as_is < cases.len(), "{used_as_is} of {} were usable", cases.len());
}

fn copy_of(original: &Place) -> Place {
    let place = Place::new();
    fs::create_dir_all(place.sled()).unwrap();
    for entry in fs::read_dir(original.sled()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), place.sled().join(entry.file_name())).unwrap();
        }
    }
    place
}

#[test]
fn a_store_that_lost_a_row_in_silence_is_not_believed() {
    let journal = journal();
    for lost in [RowKey::Item("item3"), RowKey::Meta] {
        let place = Place::filled(&journal);
        place.open().state.store.as_mut().unwrap().lose_row(&lost.to_bytes());
        assert_put_aside(&place, &journal);
    }
    let place = Place::filled(&journal);
    place.open().state.store.as_mut().unwrap().lose_row(&[0xff]);
    assert_put_aside(&place, &journal);
}

#[test]
fn a_store_that_opens_empty_is_not_taken_for_a_new_one() {
    let journal = journal();
    let place = Place::filled(&journal);
    place.open().state.store.as_mut().unwrap().lose_all();
    assert_put_aside(&place, &journal);
}

#[test]
fn a_store_that_disagrees_with_the_journal_is_put_aside() {
    let journal = journal();
    let place = Place::filled(&journal);
    let mut opened = place.open();
    let kept = opened.state.reject(&place.quarantine()).unwrap();
    assert!(kept.join("db").exists() && !place.sled().exists());
    assert_eq!(opened.state.tables, State::in_memory().tables);
    apply_all(&mut opened.state, &journal.frames);
    opened.state.checkpoint(7, [7; 32]).unwrap();
    drop(opened);
    assert_eq!(place.open().state.tables, journal.state().tables);
}

#[test]
fn a_leftover_of_an_unfinished_snapshot_does_not_keep_the_store_from_opening() {
    let journal = journal();
    let place = Place::filled(&journal);
    for name in ["snap.00000000000000ff.generating", "snap.0000000000000000.generating"] {
        fs::write(place.sled().join(name), b"cut off").unwrap();
        let opened = place.open();
        assert_eq!((opened.mark.map(|mark| mark.position), opened.damaged), (Some(2), None));
        assert!(!place.sled().join(name).exists());
    }
}

/// sled unwraps the names of its snapshots as text. It is a rare way to make it panic, but one that never changes.
#[test]
fn a_panic_while_opening_is_caught() {
    let journal = journal();
    let place = Place::filled(&journal);
    let mut state = place.open().state;
    state.checkpoint(3, [3; 32]).unwrap();
    drop(state);
    let snapshot = fs::read_dir(place.sled()).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshot.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
    let unnamable = std::os::unix::ffi::OsStrExt::from_bytes(b"snap.\xff");
    fs::copy(snapshot.unwrap(), place.sled().join::<&std::ffi::OsStr>(unnamable)).unwrap();
    let opened = place.open();
    let reason = opened.damaged.unwrap().reason;
    assert!(reason.contains("panicked"), "{reason}");
    assert_rebuilds(place.open(), &journal);
}

#[test]
fn a_swap_that_was_cut_off_is_ended_or_undone() {
    let journal = journal();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in
            fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file())
        {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    for (old, new) in [(true, true), (true, false), (false, true)] {
        let place = Place::filled(&journal);
        let [replaced, fresh] = ["sled.old", "sled.new"].map(|name| place.dir().join(name));
        if old && new {
            let mut state = place.open().state;
            state.checkpoint(1, [1; 32]).unwrap();
            copy(&place.sled(), &replaced);
            state.checkpoint(2, [2; 32]).unwrap();
            drop(state);
            fs::rename(place.sled(), &fresh).unwrap();
        } else if old {
            fs::rename(place.sled(), &replaced).unwrap();
        } else {
            fs::create_dir(&fresh).unwrap();
            fs::write(fresh.join("db"), b"half-written").unwrap();
        }
        let opened = place.open();
        assert_eq!((opened.mark.map(|mark| mark.position), opened.damaged), (Some(2), None), "old {old}, new {new}");
        assert!(!replaced.exists() && !fresh.exists() && place.sled().exists());
    }
}

#[test]
fn a_store_that_grew_too_large_is_written_anew() {
    let journal = journal();
    let place = Place::filled(&journal);
    let mut state = place.open().state;
    state.store.as_mut().unwrap().set_bytes_max(1);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path.join("db")).unwrap());
    let before = inode(&place.sled());
    state.checkpoint(3, [3; 32]).unwrap();
    let after = inode(&place.sled());
    assert_ne!(after, before);
    assert!(!place.dir().join("sled.old").exists() && !place.dir().join("sled.new").exists());
    let mut further = Journal::new();
    further.epoch = 9;
    further.append(sale("8", 1, 600));
    apply_all(&mut state, &further.frames);
    state.checkpoint(4, [4; 32]).unwrap();
    assert_eq!(inode(&place.sled()), after, "the bound holds for what grows");
    let expected = answers(&state);
    drop(state);
    let opened = place.open();
    assert_eq!(opened.mark.map(|mark| mark.position), Some(4));
    assert_eq!(answers(&opened.state), expected);
}

#[test]
fn quarantine_keeps_the_newest_few() {
    let journal = journal();
    let place = Place::new();
    let rounds = QUARANTINED_MAX + 2;
    for round in 1..=rounds {
        let mut state = place.open().state;
        apply_all(&mut state, &journal.frames);
        state.checkpoint(1, [1; 32]).unwrap();
        drop(state);
        damage(&place, "db", |bytes| bytes.fill(0x5a));
        let kept = place.open().damaged.unwrap().quarantined.unwrap();
        assert_eq!(kept, place.quarantine().join(format!("state-{round:04}")));
        assert!(kept.exists());
    }
    assert_eq!(fs::read_dir(place.quarantine()).unwrap().count(), QUARANTINED_MAX);
}

#[test]
fn a_restored_snapshot_is_written_by_the_next_checkpoint() {
    let journal = journal();
    let place = Place::new();
    let mut state = place.open().state;
    state.restore(&journal.state().snapshot([1; 16], 0)).unwrap();
    assert!(state.is_dirty());
    state.checkpoint(9, [9; 32]).unwrap();
    drop(state);
    let opened = place.open();
    assert_eq!((opened.mark.map(|mark| mark.position), opened.state.tables), (Some(9), journal.state().tables));
}
