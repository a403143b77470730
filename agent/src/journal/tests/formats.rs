//! Formats of segments side by side: what is written is what was asked for, all of them are read, and one from the future is left alone.

use super::segment::SegmentHeader;
use super::*;

/// States something else in the header of a segment, under a checksum that fits.
pub(in crate::journal::tests) fn restate(world: &World, name: &str, change: impl FnOnce(&mut SegmentHeader)) {
    let mut bytes = world.disk.content(name).unwrap();
    let (mut header, length) = SegmentHeader::decode(&bytes).unwrap();
    change(&mut header);
    bytes[..length as usize].copy_from_slice(&header.encode(length as usize));
    world.disk.set_content(name, bytes);
}

fn header(world: &World, name: &str) -> SegmentHeader {
    SegmentHeader::decode(&world.disk.content(name).unwrap()).unwrap().0
}

fn formats(world: &World) -> Vec<u16> {
    world.names(".seg").iter().map(|name| header(world, name).format()).collect()
}

/// Opens with another `journal.format_write` and sells until there are `segments` more.
fn write_in(world: &mut World, format: u16, segments: usize) {
    world.config.format_write = format;
    world.journal.take().unwrap().close().unwrap();
    world.open();
    let before = world.names(".seg").len();
    while world.names(".seg").len() < before + segments {
        world.append(&[Lane::Trade, Lane::Stock, Lane::Trade], 150).unwrap();
    }
}

#[test]
fn a_backlog_in_formats_1_and_2_and_1_again_is_read_whole() {
    let mut world = World::new(small());
    for (format, segments) in [(1, 2), (2, 2), (1, 1)] {
        write_in(&mut world, format, segments);
    }
    // A segment keeps its format; the next one has the new one.
    assert_eq!(formats(&world), [1, 1, 1, 2, 2, 1]);
    for format in [1, 2] {
        world.config.format_write = format;
        world.journal.take().unwrap().close().unwrap();
        world.open();
        assert!(world.opened.clean && world.opened.damage.is_empty(), "{:?}", world.opened);
        assert!(world.verify().is_empty());
    }
    let records = world.acked.len() as u64;
    world.journal = None;
    let checked = check(&world.disk, &mut |_| Vec::new(), &mut |_, _| {}).unwrap();
    let found: Vec<_> =
        checked.formats.iter().map(|formed| (formed.format, formed.software.as_deref(), formed.segments)).collect();
    assert_eq!(found, [(1, None, 4), (2, Some(crate::SOFTWARE), 2)]);
    assert_eq!((checked.findings, checked.records), (Vec::new(), records));
}

#[test]
fn a_tail_that_is_written_anew_stays_readable_whichever_format_is_asked_for() {
    for (first, then) in [(1, 2), (2, 1)] {
        let mut world = World::new(JournalConfig { format_write: first, ..small() });
        world.trade(3);
        world.config.format_write = then;
        // Killed, so that the last segment is written anew, at the same offsets.
        world.journal = None;
        world.open();
        assert!(world.opened.rewritten_bytes > 0);
        // There is no room for the longer header before the first frame; the shorter one fits.
        assert_eq!(formats(&world), [1]);
        world.trade(3);
        assert!(world.verify().is_empty());
    }
}

/// Marks a file as one of a format that nobody has written yet, under a checksum that fits.
fn make_later(disk: &MemoryDisk, name: &str) {
    let mut bytes = disk.content(name).unwrap();
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(name, bytes);
}

#[test]
fn a_later_version_is_refused_by_name_and_nothing_is_changed() {
    let sample = sample(true);
    let segments = sample.names(".seg");
    for later in segments.iter().chain([&"binding".to_owned()]) {
        let mut world = copy(&sample);
        make_later(&world.disk, later);
        // There is enough that an opening would do.
        world.disk.set_content("journal/0000000099.seg.new", vec![1; 100]);
        world.disk.set_content("journal/0000000099.idx", vec![1; 100]);
        world.disk.set_content("cursor.0", vec![1; 100]);
        let other = segments.iter().find(|name| *name != later).unwrap();
        world.disk.flip(other, 500, 1);
        let content = |world: &World| {
            let names = world.disk.files().into_iter().map(|file| file.name);
            names.map(|name| (name.clone(), world.disk.content(&name))).collect::<Vec<_>>()
        };
        let before = content(&world);
        match world.try_open() {
            Err(OpenError::Version { name, found: 3, known: 2 }) => assert_eq!(name, *later),
            other => panic!("{later}: {other:?}"),
        }
        assert!(content(&world) == before, "{later}: something was changed");
    }
}

/// Killed with the last segment open, which was made with `made` bytes, cut to `cut`, and opened by a box that is told `told`.
fn says_that_it_was_cut(format: u16, made: u64, cut: u64, told: u64) -> bool {
    let mut world = World::new(JournalConfig { format_write: format, segment_bytes: made, ..small() });
    world.trade(1);
    world.journal = None;
    // The first opening proves the tail; what is left to see is the length.
    world.open();
    world.journal = None;
    let name = world.names(".seg").pop().unwrap();
    let mut bytes = world.disk.content(&name).unwrap();
    bytes.truncate(usize::try_from(cut).unwrap());
    world.disk.set_content(&name, bytes);
    world.config.segment_bytes = told;
    world.open();
    world.opened.damage.iter().any(|damage| damage.what.contains("shorter than it was made"))
}

#[test]
fn format_2_knows_a_cut_file_from_one_that_was_made_short() {
    let whole = |format| says_that_it_was_cut(format, 4096, 4096, 8192);
    assert_eq!([1, 2].map(whole), [true, false], "whoever raised `journal.segment_bytes` sees no false alarm");
    let cut = |format| says_that_it_was_cut(format, 8192, 6144, 4096);
    assert_eq!([1, 2].map(cut), [false, true], "whoever lowered it hears of a cut");
    let plain =
        |format| (says_that_it_was_cut(format, 4096, 4096, 4096), says_that_it_was_cut(format, 4096, 4088, 4096));
    assert_eq!([1, 2].map(plain), [(false, true); 2]);
}

#[test]
fn what_a_header_of_format_2_says_is_short_and_printable_or_damage() {
    let mut world = World::new(JournalConfig { format_write: 2, ..small() });
    world.trade(1);
    world.journal = None;
    let name = world.names(".seg").pop().unwrap();
    let software = |text: &str| {
        let world = copy(&world);
        restate(&world, &name, |header| text.clone_into(&mut header.making.as_mut().unwrap().software));
        SegmentHeader::decode(&world.disk.content(&name).unwrap()).map(|(header, _)| header.making.unwrap().software)
    };
    for text in ["", "counterfoil 9.9.9", &"x".repeat(31)] {
        assert_eq!(software(text).as_deref(), Ok(text));
    }
    for text in ["\u{1b}[2J", "line\nline", "caf\u{e9}"] {
        assert_eq!(software(text), Err(super::segment::HeaderFault::Damaged));
    }
}
