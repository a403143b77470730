//! Calls to the disk that fail, each in turn, once and for ever: writes, syncs of files and directories, renames, opens, reads, all of them.
//!
//! The calls of an ordinary life are counted first, by kind; then that life is lived again for each of them, with that one failing. A life that
//! meets an error ends there, as the agent's process does. A power cut follows (what was not synced is lost, or kept), then an opening on
//! a disk that works again: nothing acknowledged is missing, and nothing is called damaged, since nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use counterfoil::journal::disk::memory::Cut;
use counterfoil::journal::{Found, Journal, JournalError, Marks, MemoryDisk, OpenError, Position, Read, StageError};
use counterfoil_proto::id::{Epoch, Lane, LaneKey, RecordKey, Seq};
use counterfoil_proto::time::WallTime;

use crate::disk::{Call, FailingDisk, Plan};
use crate::judge::judge;
use crate::sample::{Acked, CONFIG, NOW, Sample, document, source};
use crate::sweep;

/// What a life left behind.
#[derive(Debug, Default)]
struct Told {
    acked: BTreeMap<RecordKey, (usize, Vec<u8>)>,
    /// Staged, acknowledged or not.
    given: BTreeMap<RecordKey, Vec<Vec<u8>>>,
    safe: BTreeMap<LaneKey, Seq>,
    documents: usize,
}

/// Why a life ended early. A full disk is none of the plans; every error is a failing disk.
#[derive(Debug)]
struct Died;

impl From<JournalError> for Died {
    fn from(_: JournalError) -> Self {
        Self
    }
}

impl From<StageError> for Died {
    fn from(_: StageError) -> Self {
        Self
    }
}

fn open(disk: &FailingDisk) -> Result<Journal, OpenError> {
    Journal::open(Arc::new(disk.clone()), CONFIG, &source(), 77).map(|(journal, _)| journal)
}

impl Told {
    fn append(&mut self, journal: &mut Journal) -> Result<(), Died> {
        let mut staged = Vec::new();
        for lane in [Lane::Trade, Lane::Stock, Lane::Trade] {
            self.documents += 1;
            let (keys, stored) = document(self.documents);
            let at = journal.stage(lane, &keys, &stored)?;
            assert_eq!(journal.find(keys[0])?, Found::Pending(at.position));
            self.given.entry(at.key).or_default().push(stored.clone());
            staged.push((at.key, (self.documents, stored)));
        }
        journal.commit(NOW)?;
        self.acked.extend(staged);
        Ok(())
    }

    /// The hub has a part; the cursor, a snapshot, a reclaim, a scrub, a lookup and a reader follow.
    fn keep_house(&mut self, journal: &mut Journal) -> Result<(), Died> {
        for view in journal.lanes() {
            for lane in &view.lanes {
                let key = LaneKey { epoch: view.epoch, lane: lane.lane };
                let mark = Seq(lane.last.0.saturating_sub(1));
                journal.acknowledge(key, Marks { stored: mark, safe: mark });
                self.safe.insert(key, mark);
            }
        }
        journal.save_cursor()?;
        journal.stage_local(0, 1, b"a state snapshot")?;
        journal.commit(NOW)?;
        let end = journal.end();
        journal.reclaim(WallTime(NOW.0 + 5000), end)?;
        while !journal.scrub_step(4096)?.round_done {}
        journal.room()?;
        let (keys, _) = document(self.documents);
        assert!(matches!(journal.find(keys[0])?, Found::Synced(_)));
        let met = journal.replay(Position::START).filter(Result::is_err).count();
        let mut reader = journal.reader();
        for view in reader.lanes() {
            for lane in view.lanes {
                let key = LaneKey { epoch: view.epoch, lane: lane.lane };
                match reader.read(key, lane.first, 100, 100_000) {
                    Ok(Read::Damaged { segment }) => drop(journal.handle_damage(segment)?),
                    Ok(_) => {}
                    Err(_) => return Err(Died),
                }
            }
        }
        if met == 0 { Ok(()) } else { Err(Died) }
    }

    fn live(&mut self, disk: &FailingDisk, inner: &MemoryDisk) -> Result<(), Died> {
        for start in 1..=2 {
            inner.kill();
            let mut journal = open(disk).map_err(|_| Died)?;
            journal.start_epoch(Epoch([start; 16]));
            for group in 0..28 {
                self.append(&mut journal)?;
                if group == 21 {
                    self.keep_house(&mut journal)?;
                }
            }
            if start == 2 {
                journal.close()?;
            }
        }
        Ok(())
    }

    /// As the judge wants it: what the hub has for good is owed no more.
    fn sample(self, disk: MemoryDisk) -> Sample {
        let owed = |key: &RecordKey| self.safe.get(&key.lane_key()).is_none_or(|safe| key.seq > *safe);
        let acked = self.acked.iter().filter(|(key, _)| owed(key));
        let acked = acked.map(|(key, (n, stored))| {
            (*key, Acked { n: *n, stored: stored.clone(), file: String::new(), bytes: 0..0 })
        });
        Sample { acked: acked.collect(), given: self.given, safe: self.safe, disk, ..Sample::default() }
    }
}

fn counts() -> (BTreeMap<Call, u64>, Vec<String>) {
    let inner = MemoryDisk::new();
    let disk = FailingDisk::new(inner.clone(), None);
    let mut told = Told::default();
    told.live(&disk, &inner).expect("nothing fails");
    assert_eq!(told.acked.len(), 2 * 28 * 3);
    (disk.counts(), disk.read())
}

/// The ballast is left out of the sweeps over bytes: its bytes are never looked at.
#[test]
fn nobody_reads_the_ballast() {
    let (_, read) = counts();
    assert!(read.iter().any(|name| name.starts_with("journal/")));
    assert!(read.iter().all(|name| !name.ends_with("ballast")), "{read:?}");
}

fn trial((plan, cut): &(Plan, Cut)) -> Result<(), String> {
    let inner = MemoryDisk::new();
    let disk = FailingDisk::new(inner.clone(), Some(*plan));
    let mut told = Told::default();
    let lived = told.live(&disk, &inner);
    if lived.is_ok() && !disk.happened() {
        return Err("the call was never made".to_owned());
    }
    // A supervisor starts it again, on the same disk.
    inner.kill();
    drop(open(&disk));
    inner.power_cut(*cut);
    let sample = told.sample(inner.copy());
    let all = sample.acked.keys().copied().collect();
    let verdict = judge(&sample, &inner, &BTreeSet::new(), &all)?;
    let false_alarms: Vec<_> = verdict.said.damage.iter().filter(|damage| !damage.gone.is_empty()).collect();
    if false_alarms.is_empty() { Ok(()) } else { Err(format!("nothing was damaged: {false_alarms:?}")) }
}

#[test]
fn a_call_that_fails_loses_nothing_that_was_acknowledged() {
    let (counts, _) = counts();
    assert!(Call::ALL.iter().all(|call| counts.contains_key(call)), "a life makes every call: {counts:?}");
    let mut trials = Vec::new();
    for (call, count) in counts {
        for after in 0..count {
            for for_ever in [false, true] {
                for cut in [Cut::DropAll, Cut::KeepAll] {
                    trials.push((Plan { call, after, for_ever }, cut));
                }
            }
        }
    }
    sweep(&trials, |(plan, cut)| format!("{plan:?} then {cut:?}"), trial);
}

#[test]
fn a_lock_that_cannot_be_asked_for_is_a_failing_disk() {
    let disk = FailingDisk::new(MemoryDisk::new(), Some(Plan { call: Call::Lock, after: 0, for_ever: false }));
    assert!(matches!(open(&disk), Err(OpenError::Journal(JournalError::Disk { .. }))));
    let held = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(OpenError::Locked { .. })));
    drop(held);
}
