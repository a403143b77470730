//! The oracle: what is there, what is lost, whether it is named and kept, whether the journal goes on, whether a second opening agrees.
//!
//! Invariant: it knows what was acknowledged, and of the damage only the bytes that it left and the records that it may have hit.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil::journal::{Damage, Found, Frame, Journal, MemoryDisk, Position, Read, Replayed, TailCut};
use counterfoil_proto::id::{Epoch, Lane, LaneKey, RecordKey, Seq};

use crate::sample::{self, NOW, Sample, document};

type Records = BTreeMap<RecordKey, Vec<u8>>;

/// Records, and ranges that are said to be lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    records: BTreeMap<RecordKey, Vec<u8>>,
    gone: BTreeSet<RecordKey>,
    lasts: BTreeMap<LaneKey, Seq>,
}

/// Of the records far from the damage one in so many is looked up by its identity. (All of them are read.)
const FAR_STEP: usize = 16;

/// What the journal said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) damage: Vec<Damage>,
    pub(crate) tail_cut: Option<TailCut>,
}

/// What a damage did.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) lost: BTreeSet<RecordKey>,
    pub(crate) said: Said,
}

/// Opens a damaged journal, reads everything, goes on with it and opens it again. `image` is a copy of the disk as the damage left it;
/// `may` holds the records that it may cost, `near` those of the damaged file.
pub(crate) fn judge(
    sample: &Sample,
    image: &MemoryDisk,
    may: &BTreeSet<RecordKey>,
    near: &BTreeSet<RecordKey>,
) -> Result<Verdict, String> {
    let disk = image.copy();
    let (mut journal, opened) = sample::open(&disk).map_err(|error| format!("it does not open: {error}"))?;
    let mut said = Said { damage: opened.damage, tail_cut: opened.tail_cut };
    let contents = read_all(&mut journal, &mut said.damage)?;
    let lost = compare(sample, &contents)?;
    for (index, (key, acked)) in sample.acked.iter().enumerate() {
        let is_near = near.contains(key) || lost.contains(key);
        if is_near || index % FAR_STEP == 0 {
            look_up(&mut journal, key, acked, lost.contains(key))?;
        }
    }
    said.damage.extend(journal.take_damage());
    if let Some(beyond) = lost.iter().find(|key| !may.contains(key)) {
        return Err(format!("{beyond:?} was not hit and is lost; {} are; {said:?}", lost.len()));
    }
    for key in &lost {
        named(sample, &contents, &said, key)?;
    }
    kept(sample, image, &disk, &said, &lost)?;
    let appended = go_on(sample, &mut journal, &lost)?;
    drop(journal);
    agrees(&disk, contents, appended).map_err(|error| format!("the second opening: {error}; the first: {said:?}"))?;
    Ok(Verdict { lost, said })
}

/// Reads by replay and by reader; damage that either meets is dealt with, and what deals with it says so.
fn read_all(journal: &mut Journal, damage: &mut Vec<Damage>) -> Result<Contents, String> {
    let (mut replayed, met) = replay(journal)?;
    let before = damage.len();
    for segment in &met {
        damage.extend(journal.handle_damage(*segment).map_err(|error| error.to_string())?);
    }
    let mut contents = Contents::default();
    let mut reader = journal.reader();
    for view in reader.lanes() {
        for lane in view.lanes {
            let key = LaneKey { epoch: view.epoch, lane: lane.lane };
            contents.lasts.insert(key, lane.last);
            let mut next = lane.first;
            while next <= lane.last {
                next = match reader.read(key, next, 50, 100_000).map_err(|error| error.to_string())? {
                    Read::Records { first, stored } => {
                        let numbers =
                            (first.0..).map(|seq| RecordKey { epoch: key.epoch, lane: key.lane, seq: Seq(seq) });
                        let count = stored.len() as u64;
                        contents.records.extend(numbers.zip(stored));
                        first.plus(count)
                    }
                    Read::Damaged { segment } => {
                        let found = journal.handle_damage(segment).map_err(|error| error.to_string())?;
                        if found.is_empty() {
                            return Err(format!("a reader met damage in {segment} that the check does not find"));
                        }
                        damage.extend(found);
                        next
                    }
                    Read::Gone(gone) => {
                        let numbers = gone.range.first.0..=gone.range.last.0;
                        contents.gone.extend(numbers.map(|seq| RecordKey {
                            epoch: key.epoch,
                            lane: key.lane,
                            seq: Seq(seq),
                        }));
                        gone.range.last.next()
                    }
                    Read::Reclaimed { first, .. } => first,
                    Read::NotYet => return Err(format!("{key:?}: nothing at {next} before the head {}", lane.last)),
                };
            }
        }
    }
    if damage.len() > before || !met.is_empty() {
        let again = replay(journal)?;
        if !again.1.is_empty() {
            return Err(format!("damage in {:?} after it was dealt with", again.1));
        }
        replayed = again.0;
    }
    if replayed != contents.records {
        return Err("replay and reader differ".to_owned());
    }
    Ok(contents)
}

/// The records that a replay sees, and the segments in which it met damage.
fn replay(journal: &Journal) -> Result<(Records, BTreeSet<u32>), String> {
    let (mut records, mut met) = (BTreeMap::new(), BTreeSet::new());
    for entry in journal.replay(Position::START) {
        match entry.map_err(|error| error.to_string())? {
            Replayed::Frame { frame: Frame::Record { key, stored }, .. } => drop(records.insert(key, stored)),
            Replayed::Frame { frame: Frame::Local { .. }, .. } => {}
            Replayed::Damaged { segment } => drop(met.insert(segment)),
        }
    }
    Ok((records, met))
}

/// Everything is byte for byte what it was, or not there; says what is not.
fn compare(sample: &Sample, contents: &Contents) -> Result<BTreeSet<RecordKey>, String> {
    for (key, stored) in &contents.records {
        match sample.acked.get(key) {
            Some(acked) if acked.stored == *stored => {}
            Some(_) => return Err(format!("{key:?} has other bytes")),
            None if sample.given.get(key).is_some_and(|given| given.contains(stored)) => {}
            None => return Err(format!("{key:?} was never given")),
        }
    }
    if let Some(key) = contents.gone.iter().find(|key| contents.records.contains_key(key)) {
        return Err(format!("{key:?} is there and called gone"));
    }
    Ok(sample.acked.keys().filter(|key| !contents.records.contains_key(key)).copied().collect())
}

fn look_up(journal: &mut Journal, key: &RecordKey, acked: &sample::Acked, is_lost: bool) -> Result<(), String> {
    let (keys, _) = document(acked.n);
    match journal.find(keys[0]).map_err(|error| error.to_string())? {
        Found::Nothing if is_lost => Ok(()),
        Found::Synced(position) if !is_lost => match journal.read_at(position) {
            Ok(Frame::Record { key: found, stored }) if found == *key && stored == acked.stored => Ok(()),
            other => Err(format!("the index has {key:?} at {position}, there is {other:?}")),
        },
        other @ (Found::Nothing | Found::Pending(_) | Found::Synced(_)) => {
            Err(format!("a question for {key:?} (lost: {is_lost}) gives {other:?}"))
        }
    }
}

/// Whether a person learns of a lost record: by its number; by its place, where its bytes were cut from the end of the log; or by the word
/// that nobody knows how far the log went.
fn named(sample: &Sample, contents: &Contents, said: &Said, key: &RecordKey) -> Result<(), String> {
    let by_number = said.damage.iter().flat_map(|damage| &damage.gone);
    if by_number.clone().any(|gone| gone.key == key.lane_key() && gone.range.contains(key.seq)) {
        return if contents.gone.contains(key) {
            Ok(())
        } else {
            Err(format!("{key:?} is reported, and readers are not told"))
        };
    }
    let is_beyond = contents.lasts.get(&key.lane_key()).is_none_or(|last| key.seq > *last);
    let acked = &sample.acked[key];
    let is_cut = said.tail_cut.as_ref().is_some_and(|cut| {
        let start = cut.position.offset() as usize;
        let region = start..start + usize::try_from(cut.bytes).unwrap();
        cut.records.contains(key) || (acked.file == sample.last && region.contains(&acked.bytes.start))
    });
    let is_unknown = said.damage.iter().any(|damage| damage.end_unknown);
    let is_safe = sample.safe.get(&key.lane_key()).is_some_and(|safe| key.seq <= *safe);
    if (is_beyond && (is_cut || is_unknown)) || is_safe {
        return Ok(());
    }
    Err(format!("{key:?} is lost in silence: {said:?}"))
}

/// Whether the quarantine holds what it says it holds, and what is left of each lost record.
fn kept(
    sample: &Sample,
    image: &MemoryDisk,
    disk: &MemoryDisk,
    said: &Said,
    lost: &BTreeSet<RecordKey>,
) -> Result<(), String> {
    let mut places = Vec::new();
    let names = said.damage.iter().flat_map(|damage| &damage.quarantined);
    for name in names.chain(said.tail_cut.iter().filter_map(|cut| cut.quarantined.as_ref())) {
        let bytes = disk.content(&format!("quarantine/{name}")).ok_or(format!("{name} is named and not there"))?;
        let mut parts = name.split('-');
        let (number, offset) = (parts.next().unwrap(), parts.next().unwrap());
        let offset: usize = offset.parse().unwrap();
        // Number zero is no segment: the cursor.
        let is_cursor = number.bytes().all(|digit| digit == b'0');
        let (file, start) =
            if is_cursor { (format!("cursor.{offset}"), 0) } else { (format!("journal/{number}.seg"), offset) };
        let there = image.content(&file).unwrap_or_default();
        let there = there.get(start.min(there.len())..(start + bytes.len()).min(there.len())).unwrap();
        let (same, rest) = bytes.split_at(there.len());
        if same != there || rest.iter().any(|byte| *byte != 0) {
            return Err(format!("{name} does not hold the bytes that stood there"));
        }
        places.push((file, start..start + there.len()));
    }
    for key in lost {
        let acked = &sample.acked[key];
        let there = image.content(&acked.file).unwrap_or_default();
        let rest = acked.bytes.start.min(there.len())..acked.bytes.end.min(there.len());
        let is_kept = |(file, place): &(String, std::ops::Range<usize>)| {
            *file == acked.file && place.start <= rest.start && rest.end <= place.end
        };
        // Zeros are not worth keeping.
        let is_something = there[rest.clone()].iter().any(|byte| *byte != 0);
        if is_something && !places.iter().any(is_kept) {
            return Err(format!("the bytes of {key:?} are not in quarantine: {said:?}"));
        }
    }
    Ok(())
}

/// A new epoch takes a new document, and again each one that is lost.
fn go_on(
    sample: &Sample,
    journal: &mut Journal,
    lost: &BTreeSet<RecordKey>,
) -> Result<BTreeMap<RecordKey, Vec<u8>>, String> {
    journal.start_epoch(Epoch([9; 16]));
    let again = lost.iter().map(|key| sample.acked[key].n);
    let mut appended = BTreeMap::new();
    for n in again.chain([100_000]) {
        let (keys, stored) = document(n);
        let staged = journal.stage(Lane::Trade, &keys, &stored).map_err(|error| error.to_string())?;
        journal.commit(NOW).map_err(|error| format!("an append afterwards: {error}"))?;
        if journal.find(keys[0]).map_err(|error| error.to_string())? != Found::Synced(staged.position) {
            return Err(format!("document {n} was appended afterwards and is not found"));
        }
        appended.insert(staged.key, stored);
    }
    Ok(appended)
}

/// A second opening has nothing new to tell and the same to show. That files are missing shows each time.
fn agrees(disk: &MemoryDisk, mut contents: Contents, appended: BTreeMap<RecordKey, Vec<u8>>) -> Result<(), String> {
    disk.kill();
    let (mut journal, opened) = sample::open(disk).map_err(|error| error.to_string())?;
    let mut damage = opened.damage;
    let again = read_all(&mut journal, &mut damage)?;
    damage.retain(|damage| !damage.what.contains("missing") || damage.bytes > 0 || damage.end_unknown);
    // A byte that changed behind a closing mark is met when the log has grown towards it.
    let cut_records = opened.tail_cut.as_ref().is_some_and(|cut| !cut.records.is_empty());
    if !damage.is_empty() || cut_records {
        return Err(format!("it finds {damage:?} {:?}", opened.tail_cut));
    }
    contents.lasts.insert(LaneKey { epoch: Epoch([9; 16]), lane: Lane::Trade }, Seq(appended.len() as u64));
    contents.records.extend(appended);
    if again.records != contents.records {
        return Err("other records".to_owned());
    }
    if again.gone != contents.gone {
        return Err(format!("other records are gone: {:?}, not {:?}", again.gone, contents.gone));
    }
    Ok(())
}
