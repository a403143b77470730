//! The fixtures of each format, made once, opened and read for ever: `agent/fixtures/journal-v1/` and `-v2/`.
//!
//! Each holds two epochs on three lanes over several segments, a state snapshot, a cursor, and a closing mark. Where a change of the code
//! changes these bytes, the format has changed: write a new version beside it.

use super::formats::restate;
use super::*;
use std::path::{Path, PathBuf};

fn fixture(format: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/journal-v{format}"))
}

fn make(format: u16) -> World {
    let mut world = World::new(JournalConfig { format_write: format, ..small() });
    for _ in 0..4 {
        world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 100).unwrap();
    }
    world.journal().stage_local(0, 2, b"snapshot part 0").unwrap();
    world.journal().stage_local(1, 2, b"snapshot part 1").unwrap();
    world.journal().commit(NOW).unwrap();
    world.journal.take().unwrap().close().unwrap();
    world.open();
    world.append(&[Lane::Trade, Lane::Ops], 100).unwrap();
    let key = lane_key(epoch(1), Lane::Trade);
    world.journal().acknowledge(key, Marks { stored: seq(5), safe: seq(3) });
    world.append(&[Lane::Stock], 100).unwrap();
    world.journal.take().unwrap().close().unwrap();
    world
}

/// The files of the fixture, without the ballast, which is zeros, and as the first software with format 2 made them.
fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    for name in world.names(".seg") {
        restate(world, &name, |header| {
            if let Some(making) = &mut header.making {
                assert_eq!(making.software, crate::SOFTWARE);
                "counterfoil 0.1.0".clone_into(&mut making.software);
            }
        });
    }
    let kept = world.disk.files().into_iter().filter(|file| !file.name.ends_with("ballast"));
    kept.map(|file| (file.name.clone(), trimmed(&file.name, world.disk.content(&file.name).unwrap()))).collect()
}

/// An open segment is kept without the zeros behind it.
fn trimmed(name: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    if name.ends_with(".seg") {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate((end + 1).next_multiple_of(64));
    }
    bytes
}

fn load(format: u16) -> World {
    let world = make(format);
    let loaded = World { disk: MemoryDisk::new(), journal: None, ..copy(&world) };
    for dir in ["", "journal"] {
        for entry in std::fs::read_dir(fixture(format).join(dir)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                let name = format!("{dir}/{}", entry.file_name().into_string().unwrap());
                loaded.disk.set_content(name.trim_start_matches('/'), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    loaded
}

fn is_written_as_it_was(format: u16) {
    let made = files(&make(format));
    let fixture = fixture(format);
    if std::env::var_os("COUNTERFOIL_MAKE_FIXTURES").is_some() {
        std::fs::create_dir_all(fixture.join("journal")).unwrap();
        for (name, bytes) in &made {
            std::fs::write(fixture.join(name), bytes).unwrap();
        }
    }
    assert!(made.len() >= 6, "{:?}", made.keys());
    for (name, bytes) in &made {
        let kept = std::fs::read(fixture.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kept == *bytes, "{name} differs from the fixture");
    }
}

fn is_read_for_ever(format: u16) {
    let mut world = load(format);
    world.open();
    let opened = world.opened.clone();
    assert!(opened.clean && opened.damage.is_empty() && opened.tail_cut.is_none() && !opened.created, "{opened:?}");
    assert_eq!(opened.parent.as_ref().map(|parent| parent.epoch), Some(epoch(2)));
    assert_eq!(opened.snapshot, world.journal().snapshot());
    assert!(opened.snapshot.is_some());
    assert_eq!(world.journal().marks(lane_key(epoch(1), Lane::Trade)), Marks { stored: seq(5), safe: seq(3) });
    assert_eq!(world.read_all().records.len(), 15);
    assert!(world.verify().is_empty());
    world.trade(1);
    assert!(world.verify().is_empty());
    assert_eq!(world.journal().lanes().last().unwrap().parent, Some(epoch(2)));
}

/// What is written by default is byte for byte what the release before wrote, and reads.
#[test]
fn version_1_is_written_as_it_was() {
    assert_eq!(JournalConfig::default().format_write, 1);
    is_written_as_it_was(1);
}

#[test]
fn version_1_is_read_for_ever() {
    is_read_for_ever(1);
}

#[test]
fn version_2_is_written_as_it_was() {
    is_written_as_it_was(2);
}

#[test]
fn version_2_is_read_for_ever() {
    is_read_for_ever(2);
}
