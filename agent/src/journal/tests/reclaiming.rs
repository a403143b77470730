//! What is given back, when, and what a full disk does.

use super::*;

const LATER: WallTime = WallTime(NOW.0 + 2000);

fn safe_all(world: &mut World, up_to: u64) {
    for view in world.journal().lanes() {
        for lane in view.lanes {
            let mark = lane.last.min(Seq(up_to));
            world.journal().acknowledge(lane_key(view.epoch, lane.lane), Marks { stored: mark, safe: mark });
        }
    }
}

fn snapshot(world: &mut World) {
    world.journal().stage_local(0, 1, b"all the stock").unwrap();
    world.journal().commit(NOW).unwrap();
}

fn filled(groups: usize) -> World {
    let mut world = World::new(small());
    for _ in 0..groups {
        world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
    }
    world
}

#[test]
fn only_what_is_safe_on_every_lane_goes() {
    let mut world = filled(40);
    snapshot(&mut world);
    let end = world.journal().end();
    let (trade, stock) = (lane_key(epoch(1), Lane::Trade), lane_key(epoch(1), Lane::Stock));
    let last = Marks { stored: seq(40), safe: seq(40) };
    let stored = Marks { stored: seq(40), safe: seq(0) };
    for (trade_marks, stock_marks) in [(stored, stored), (last, stored), (stored, last), (last, Marks::default())] {
        world.journal().acknowledge(trade, trade_marks);
        world.journal().acknowledge(stock, stock_marks);
        assert_eq!(world.journal().reclaim(LATER, end).unwrap(), Reclaimed::default());
    }
    let third = world.journal().sealed[2].runs.clone();
    for run in third {
        world.journal().acknowledge(run.key, Marks { stored: run.last, safe: run.last.previous() });
    }
    assert_eq!(world.journal().reclaim(LATER, end).unwrap().segments, 2, "the third lacks one record of each lane");
}

#[test]
fn only_what_is_old_checkpointed_and_snapshotted_goes() {
    let mut world = filled(40);
    let end = world.journal().end();
    assert!(!world.journal().wants_snapshot(LATER, end), "nothing is safe");
    safe_all(&mut world, 40);
    assert!(!world.journal().wants_snapshot(NOW, end), "nothing is old");
    assert!(world.journal().wants_snapshot(LATER, end));
    assert_eq!(world.journal().reclaim(LATER, end).unwrap().segments, 0, "there is no snapshot");
    snapshot(&mut world);
    assert!(!world.journal().wants_snapshot(LATER, end));
    let (segments, end) = (world.journal().figures().segments, world.journal().end());
    assert_eq!(world.journal().reclaim(LATER, Position::START).unwrap().segments, 0, "there is no checkpoint");
    assert_eq!(world.journal().reclaim(NOW, end).unwrap().segments, 0, "nothing is old");
    assert_eq!(
        world.journal().reclaim(LATER, Position::new(3, 100)).unwrap().segments,
        2,
        "the checkpoint lies in the third"
    );
    assert_eq!(world.journal().reclaim(LATER, end).unwrap().segments, segments - 3);
    assert_eq!(world.journal().figures().segments, 1);
    let view = &world.journal().lanes()[0].lanes[0];
    assert!(view.first > Seq::FIRST && view.before.is_some());
}

#[test]
fn reclaimed_records_are_not_gone_and_not_lost_after_a_restart() {
    let mut world = filled(40);
    safe_all(&mut world, 30);
    snapshot(&mut world);
    let end = world.journal().end();
    assert!(world.journal().reclaim(LATER, end).unwrap().segments > 3);
    let views = world.journal().lanes();
    let trade = lane_key(epoch(1), Lane::Trade);
    let mut reader = world.journal().reader();
    let Read::Reclaimed { first, before } = reader.read(trade, Seq::FIRST, 9, 999).unwrap() else {
        panic!("given back")
    };
    assert_eq!((first, before), (views[0].lanes[0].first, views[0].lanes[0].before));
    world.acked.retain(|key, _| key.seq >= views[0].lanes.iter().find(|lane| lane.lane == key.lane).unwrap().first);
    for cut in [Cut::DropAll, Cut::KeepAll] {
        world.disk.power_cut(cut);
        world.open();
        assert!(world.opened.damage.is_empty(), "{:?}", world.opened);
        let again = world.journal().lanes();
        assert_eq!(again[0].lanes, views[0].lanes);
        assert!(world.verify().is_empty());
    }
    // Neither is it when one cursor file is lost.
    for name in ["cursor.0", "cursor.1"] {
        let mut other = copy(&world);
        other.disk.kill();
        other.disk.delete(name);
        other.open();
        assert!(other.opened.damage.is_empty(), "{name}");
    }
}

#[test]
fn a_reader_under_reclaim_and_reuse_sees_records_or_reclaimed_never_damage() {
    let mut world = filled(40);
    let trade = lane_key(epoch(1), Lane::Trade);
    let mut reader = world.journal().reader();
    let Read::Records { .. } = reader.read(trade, Seq::FIRST, 2, 9999).unwrap() else { panic!("records") };
    safe_all(&mut world, 40);
    snapshot(&mut world);
    let end = world.journal().end();
    assert!(world.journal().reclaim(LATER, end).unwrap().segments > 2);
    // The spare files, one of them under the reader, are written anew.
    for _ in 0..12 {
        world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
    }
    let Read::Reclaimed { first, .. } = reader.read(trade, seq(3), 100, 9999).unwrap() else { panic!("given back") };
    let Read::Records { stored, .. } = reader.read(trade, first, 100, 99_999).unwrap() else { panic!("records") };
    assert!(!stored.is_empty());
    world.acked.retain(|key, _| key.seq > seq(40));
    assert!(world.names("").iter().filter(|name| name.contains("spare")).count() <= 2);
    assert!(world.verify().is_empty());
    world.disk.kill();
    world.open();
    assert!(world.opened.damage.is_empty() && world.opened.tail_cut.is_none(), "{:?}", world.opened);
    assert!(world.verify().is_empty());
}

type Hook = Box<dyn FnOnce() + Send>;

/// A disk on which something happens right after a segment's file was opened to be read.
struct Hooked {
    disk: MemoryDisk,
    hook: std::sync::Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(formatter)
    }
}

impl Disk for Hooked {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }
    fn open_read(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open_read(name);
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        file
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<disk::Listed>> {
        self.disk.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn write_aside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_aside(name, bytes)
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(name)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// The reader has the oldest segment's file open when the writer gives it back and writes it anew: what the reader then finds in it is no
/// damage.
#[test]
fn a_file_reused_under_a_reader_is_not_damaged() {
    let mut world = filled(40);
    safe_all(&mut world, 40);
    snapshot(&mut world);
    world.journal.take().unwrap().close().unwrap();
    world.disk.kill();
    let disk = Arc::new(Hooked { disk: world.disk.clone(), hook: std::sync::Mutex::new(None) });
    let (journal, _) = Journal::open(Arc::clone(&disk) as Arc<dyn Disk>, world.config, &source(), 1).unwrap();
    let mut reader = journal.reader();
    let trade = lane_key(epoch(1), Lane::Trade);
    *disk.hook.lock().unwrap() = Some(Box::new(move || {
        let mut world = World { journal: Some(journal), documents: 1000, ..copy(&world) };
        world.epochs += 1;
        let end = world.journal().end();
        assert!(world.journal().reclaim(LATER, end).unwrap().segments > 2);
        for _ in 0..12 {
            world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
        }
    }));
    let read = reader.read(trade, Seq::FIRST, 100, 9999).unwrap();
    assert!(matches!(read, Read::Reclaimed { first, .. } if first > Seq::FIRST), "{read:?}");
    assert!(disk.hook.lock().unwrap().is_none(), "it happened");
}

#[test]
fn a_hub_restored_from_a_backup_lowers_safe_and_nothing_more_goes() {
    let mut world = filled(40);
    safe_all(&mut world, 40);
    safe_all(&mut world, 2);
    snapshot(&mut world);
    let end = world.journal().end();
    assert_eq!(world.journal().reclaim(LATER, end).unwrap().segments, 0);
    world.journal().save_cursor().unwrap();
    world.disk.kill();
    world.open();
    assert_eq!(world.journal().marks(lane_key(epoch(1), Lane::Trade)).safe, seq(2));
    let end = world.journal().end();
    assert_eq!(world.journal().reclaim(LATER, end).unwrap().segments, 0);
}

#[test]
fn what_was_given_back_is_no_loss_when_the_hub_then_says_less() {
    let mut world = filled(40);
    safe_all(&mut world, 30);
    snapshot(&mut world);
    let end = world.journal().end();
    assert!(world.journal().reclaim(LATER, end).unwrap().segments > 3);
    // Only the cursor knows now that the records before its first segment are not lost.
    safe_all(&mut world, 2);
    world.journal().save_cursor().unwrap();
    world.disk.kill();
    world.open();
    assert!(world.opened.damage.is_empty(), "{:?}", world.opened.damage);
}

#[test]
fn the_segment_of_the_newest_snapshot_stays() {
    let mut world = filled(10);
    snapshot(&mut world);
    let holds_it = world.journal().snapshot().unwrap().segment();
    for _ in 0..30 {
        world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
    }
    safe_all(&mut world, 40);
    let end = world.journal().end();
    assert!(end.segment() > holds_it + 1 && holds_it > 1, "{holds_it} of {}", end.segment());
    world.journal().reclaim(LATER, end).unwrap();
    assert_eq!(world.journal().sealed[0].number, holds_it);
}

#[test]
fn marks_are_written_when_they_changed_and_only_then() {
    let mut world = filled(2);
    let trade = lane_key(epoch(1), Lane::Trade);
    for mark in [1, 2, 1] {
        let marks = Marks { stored: seq(mark), safe: seq(mark) };
        world.journal().acknowledge(trade, marks);
        world.journal().save_cursor().unwrap();
        let syncs = world.journal().figures().syncs;
        world.journal().acknowledge(trade, marks);
        world.journal().save_cursor().unwrap();
        assert_eq!(world.journal().figures().syncs, syncs, "nothing changed");
        world.disk.kill();
        world.open();
        assert_eq!(world.journal().marks(trade), marks);
    }
}

#[test]
fn a_cursor_that_cannot_be_read_is_not_an_empty_one() {
    let disk = MemoryDisk::new();
    Cursor::default().save_both(&disk).unwrap();
    disk.fail(Some(fail(Call::Read, 0, true)));
    assert!(Cursor::load(&disk).is_err());
}

#[test]
fn epochs_that_are_safe_and_given_back_are_forgotten() {
    let mut world = World::new(small());
    for _ in 0..6 {
        for _ in 0..6 {
            world.trade(2);
        }
        world.disk.kill();
        world.open();
    }
    assert_eq!(world.journal().lanes().len(), 6);
    safe_all(&mut world, 1000);
    world.trade(1);
    snapshot(&mut world);
    let end = world.journal().end();
    world.journal().reclaim(LATER, end).unwrap();
    assert!(world.journal().lanes().len() <= 3, "{:?}", world.journal().lanes());
    world.disk.kill();
    let opened = world.open().clone();
    assert_eq!(opened.parent.unwrap().epoch, epoch(7));
    assert!(opened.damage.is_empty());
}

fn fill(world: &mut World) -> Room {
    for _ in 0..10_000 {
        match world.journal().room().unwrap() {
            Room::Full => return Room::Full,
            Room::Plenty | Room::OpsShed => {}
        }
        match world.append(&[Lane::Trade, Lane::Stock], 200) {
            Ok(_) => {}
            Err(JournalError::Full) => return Room::Full,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never fills")
}

fn fill_drain_and_accept_again(config: JournalConfig, capacity: Option<u64>) {
    let mut world = World::new(config);
    world.disk.set_capacity(capacity);
    let mut segments = Vec::new();
    for _ in 0..4 {
        assert_eq!(fill(&mut world), Room::Full);
        segments.push(world.journal().figures().segments);
        assert_eq!(world.journal().room().unwrap(), Room::Full, "it stays full until something goes");
        assert!(!world.names("").iter().any(|name| name.ends_with("ballast")), "the ballast is gone");
        // The agent's own few records, the snapshot, a checkpoint and the cursor still go.
        snapshot(&mut world);
        safe_all(&mut world, u64::MAX);
        world.journal().save_cursor().unwrap();
        let checkpoint = world.disk.create("checkpoint").unwrap();
        checkpoint.preallocate(config.checkpoint_bytes_max / 2).unwrap();
        let end = world.journal().end();
        assert!(world.journal().reclaim(NOW, end).unwrap().segments > 1, "age does not count when room is short");
        assert!(world.journal().room().unwrap() < Room::Full);
        assert!(world.names("").iter().any(|name| name.ends_with("ballast")), "the ballast is back first");
        let firsts: BTreeMap<_, _> = world
            .journal()
            .lanes()
            .iter()
            .flat_map(|view| view.lanes.iter().map(|lane| (lane_key(view.epoch, lane.lane), lane.first)))
            .collect();
        world.acked.retain(|key, _| firsts.get(&key.lane_key()).is_some_and(|first| key.seq >= *first));
        world.disk.kill();
        world.open();
        assert!(world.verify().is_empty());
    }
    assert!(
        segments.iter().all(|count| *count + 2 >= segments[0]),
        "room does not shrink from round to round: {segments:?}"
    );
}

#[test]
fn the_cap_fills_drains_and_accepts_again() {
    let config = JournalConfig { bytes_max: 192 * 1024, ..small() };
    fill_drain_and_accept_again(config, None);
}

#[test]
fn a_full_file_system_fills_drains_and_accepts_again() {
    fill_drain_and_accept_again(JournalConfig { free_bytes_min: 1024, ..small() }, Some(192 * 1024));
}

#[test]
fn the_journal_never_takes_more_than_its_cap() {
    let config = JournalConfig { bytes_max: 64 * 1024, ..small() };
    let mut world = World::new(config);
    // Even if nobody asks for room.
    let mut full = 0;
    for _ in 0..500 {
        full += u32::from(world.append(&[Lane::Trade], 300).is_err());
        assert!(world.disk.used_bytes() <= config.bytes_max + 4096, "{}", world.disk.used_bytes());
    }
    assert!(full > 0);
    assert!(world.verify().is_empty());
}

#[test]
fn ops_is_shed_before_the_disk_is_full() {
    let config = JournalConfig { bytes_max: 192 * 1024, ops_shed_segments: 16, ..small() };
    let mut world = World::new(config);
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        let room = world.journal().room().unwrap();
        if seen.last() != Some(&room) {
            seen.push(room);
        }
        if room == Room::Full {
            break;
        }
        world.trade(2);
    }
    assert_eq!(seen, [Room::Plenty, Room::OpsShed, Room::Full]);
}

#[test]
fn a_full_disk_does_not_prevent_a_start() {
    let mut world = World::new(JournalConfig { free_bytes_min: 0, ..small() });
    world.disk.set_capacity(Some(64 * 1024));
    assert_eq!(fill(&mut world), Room::Full);
    assert_eq!(world.journal().room().unwrap(), Room::Full);
    // Somebody else takes the rest.
    let left = world.disk.free_bytes().unwrap();
    let hog = world.disk.create("hog").unwrap();
    hog.preallocate(left).unwrap();
    hog.sync_data().unwrap();
    world.disk.sync_dir("").unwrap();
    for _ in 0..3 {
        world.disk.kill();
        world.open();
        assert!(world.verify().is_empty());
        assert_eq!(world.journal().room().unwrap(), Room::Full);
    }
}
