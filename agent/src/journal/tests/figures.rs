//! Figures that bound the journal's cost, and a measurement against a bare loop (run with `COUNTERFOIL_BENCH=1`, in release).

use super::*;
use std::io::Write as _;
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A sale of 400 stored bytes, with a document id and no alias, as most tills send it.
fn sale(n: u64) -> (Vec<IdentityKey>, Vec<u8>) {
    let text = vec![b'x'; 330];
    let envelope = Envelope { recorded_at: NOW, content_digest: Digest::of(&n.to_le_bytes()), identity: Some(identity(n)), ..Envelope::default() };
    let keys = IdentityKey::of_envelope(&envelope);
    let stored = Record { kind: RecordKind::TRANSACTION, envelope, document: text }.encode().unwrap();
    (keys, stored)
}

#[test]
fn groups_of_eight_cost_at_most_thirty_percent_more_than_their_records() {
    let mut world = World::new(JournalConfig { segment_bytes: 1 << 20, ..small() });
    world.begin_epoch();
    let before = world.disk.bytes_written();
    let mut bytes = 0;
    for group in 0..1500_u64 {
        for n in group * 8..group * 8 + 8 {
            let (keys, stored) = sale(n);
            bytes += stored.len() as u64;
            world.journal().stage(Lane::Trade, &keys, &stored).unwrap();
        }
        world.journal().commit(NOW).unwrap();
    }
    assert!(world.journal().figures().segments > 4, "turns and side files are counted");
    let written = world.disk.bytes_written() - before;
    assert!(written * 10 <= bytes * 13, "{written} bytes for {bytes}: {:.3}", written as f64 / bytes as f64);
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

fn rate(count: u64, taken: Duration) -> f64 {
    count as f64 / taken.as_secs_f64()
}

/// Whether to measure; says so where not.
fn measures() -> bool {
    let wanted = std::env::var_os("COUNTERFOIL_BENCH").is_some();
    if !wanted {
        eprintln!("skipped: a measurement; set COUNTERFOIL_BENCH=1 and build in release");
    }
    wanted
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort();
    taken[taken.len() / 2]
}

/// Group after group, by turns: one through the journal (look up, stage, commit), one of as many bytes into a preallocated file. Turns
/// share the noise of the machine.
fn by_turns(directory: &std::path::Path, group: u64, groups: u64) -> (Duration, Duration, Duration, Duration) {
    let disk = Arc::new(OsDisk::new(directory).unwrap());
    let (mut journal, _) = Journal::open(disk, JournalConfig::default(), &source(), 5).unwrap();
    journal.start_epoch(epoch(1));
    let mut bare = std::fs::File::create(directory.join("bare")).unwrap();
    rustix::fs::fallocate(&bare, rustix::fs::FallocateFlags::empty(), 0, groups * group * 600).unwrap();
    bare.sync_all().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..groups {
        let sales: Vec<_> = (turn * group..(turn + 1) * group).map(sale).collect();
        let start = now();
        for (keys, stored) in &sales {
            assert_eq!(journal.find(keys[0]).unwrap(), Found::Nothing);
            journal.stage(Lane::Trade, keys, stored).unwrap();
        }
        let bytes = journal.commit(NOW).unwrap().bytes;
        ours.push(start.elapsed());
        let buffer = vec![7; usize::try_from(bytes).unwrap()];
        let start = now();
        bare.write_all(&buffer).unwrap();
        bare.sync_data().unwrap();
        theirs.push(start.elapsed());
    }
    (ours.iter().sum(), theirs.iter().sum(), median(ours), median(theirs))
}

#[test]
fn measured_against_a_bare_loop() {
    if !measures() {
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    for (group, groups) in [(1, 2000), (8, 2000), (64, 1500), (256, 600)] {
        let (ours, bare, our_median, bare_median) = by_turns(&directory.path().join(group.to_string()), group, groups);
        eprintln!(
            "groups of {group}: {:.0}/s, bare loop {:.0}/s, ratio {:.2}; medians {our_median:?} and {bare_median:?}, ratio {:.2}",
            rate(group * groups, ours),
            rate(group * groups, bare),
            bare.as_secs_f64() / ours.as_secs_f64(),
            bare_median.as_secs_f64() / our_median.as_secs_f64()
        );
    }
}

#[test]
fn measured_with_a_million_records() {
    if measures() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        million(directory.path());
    }
}

fn million(at: &std::path::Path) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(at).unwrap());
    let (mut journal, _) = Journal::open(Arc::clone(&disk), JournalConfig::default(), &source(), 5).unwrap();
    journal.start_epoch(epoch(1));
    let before = resident_kb();
    for group in 0..4000_u64 {
        for n in group * 250..group * 250 + 250 {
            let (keys, stored) = sale(n);
            journal.stage(Lane::ALL[usize::from(n % 10 == 0)], &keys, &stored).unwrap();
        }
        journal.commit(NOW).unwrap();
    }
    eprintln!("1,000,000 records written: resident +{} KB (limit 10,000), {:?}", resident_kb() - before, journal.figures());
    drop(journal);
    drop_caches(at);
    for kind in ["cold, after a kill", "warm, unproven tail proven"] {
        let start = now();
        let (journal, opened) = Journal::open(Arc::clone(&disk), JournalConfig::default(), &source(), 5).unwrap();
        eprintln!("opening 1,000,000 records ({kind}): {:?}, rewritten {} bytes", start.elapsed(), opened.rewritten_bytes);
        drop(journal);
    }
    let (mut journal, _) = Journal::open(disk, JournalConfig::default(), &source(), 5).unwrap();
    for kind in ["cold", "warm"] {
        let mut reader = journal.reader();
        let before = resident_kb();
        let start = now();
        let mut count = 0;
        for lane in [Lane::Trade, Lane::Stock] {
            let mut next = Seq::FIRST;
            while let Read::Records { stored, .. } = reader.read(lane_key(epoch(1), lane), next, 512, 128 * 1024).unwrap() {
                count += stored.len() as u64;
                next = next.plus(stored.len() as u64);
            }
        }
        eprintln!("drained {count} records ({kind}) in {:?}, resident +{} KB", start.elapsed(), resident_kb().saturating_sub(before));
    }
    let start = now();
    for n in (0..1_000_000).step_by(100) {
        assert!(matches!(journal.find(key_of(n)).unwrap(), Found::Synced(_)));
    }
    eprintln!("10,000 known identities looked up in {:?}", start.elapsed());
    let start = now();
    let count = journal.replay(Position::START).count();
    eprintln!("replayed {count} records in {:?}", start.elapsed());
}

fn drop_caches(at: &std::path::Path) {
    for entry in std::fs::read_dir(at.join("journal")).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}
