//! `counterfoil export`: what the hub does not have yet, into a parcel on a stick ([`counterfoil_proto::parcel`]).
//!
//! Invariant: the data directory is only read, whether the agent runs or not. What goes into a parcel was on the medium before, so no power cut can
//! leave the hub with more than the box has. A parcel that was begun is gone on with behind its last whole entry, so that whoever pulls the stick
//! too early, or comes again a week later, does the same again. Not known here: what records mean.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use counterfoil_proto::codec::{self, CodecError};
use counterfoil_proto::id::{LaneKey, PublicKey, RecordKey, Seq, SeqRange, SessionId, Source};
use counterfoil_proto::limits::{BATCH_BYTES_TARGET, BATCH_RECORDS_MAX};
use counterfoil_proto::message::{EpochHeads, Gone, GoneReason, LaneHead, Parent};
use counterfoil_proto::parcel::{self, Entry, HEAD_BYTES, Label, ParcelError, Reader, Statement, Stop, Writer};
use counterfoil_proto::time::WallTime;

use crate::device::DeviceKey;
use crate::env::{Env, EnvError};
use crate::journal::{self, Checked, Disk, LaneRuns, Met, OsDisk};
use crate::uplink::packer::ZSTD_LEVEL;

/// Bytes between two syncs of the stick: what is pulled out too early has to be written again.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// Why there is no parcel, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The data directory cannot be read.
    #[error("{} cannot be read: {}", .0.display(), .1)]
    Data(PathBuf, io::Error),
    /// There is no journal in it that can be read.
    #[error("{} holds no journal of an agent; data_dir of its configuration is wanted", .0.display())]
    NoJournal(PathBuf),
    /// Nothing can be signed.
    #[error("the box's own key, device.key in {}, is missing or damaged; start the agent once, it makes a new one", .0.display())]
    NoKey(PathBuf),
    /// The file cannot be written.
    #[error("{} cannot be written: {}; what is in it stays usable, and the same command goes on", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// The file is something else.
    #[error("{}: {}; name another file", .0.display(), .1)]
    Parcel(PathBuf, ParcelError),
    /// The file is a parcel of another box.
    #[error("{} is a parcel of {}, and this is {} with another key or name; name another file", .0.display(), .1, .2)]
    Other(PathBuf, Source, Source),
    /// A record cannot be packed.
    #[error("a record cannot be packed: {0}")]
    Codec(#[from] CodecError),
    /// The box gives neither time nor randomness.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// Whose.
    pub source: Source,
    /// The key that signed; head office has to know it.
    pub public_key: PublicKey,
    /// Records that this run added.
    pub added: u64,
    /// Records in the parcel.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of an entry that was cut off, and written again.
    pub mended_bytes: u64,
    /// Records that are lost here, and named in the parcel as such.
    pub lost: u64,
    /// What the check of the journal found.
    pub findings: u64,
}

impl fmt::Display for Exported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, public_key, added, records, bytes, mended_bytes, lost, findings } = self;
        writeln!(formatter, "{added} records added, {records} in all, {bytes} bytes; whole")?;
        if *mended_bytes > 0 {
            writeln!(formatter, "it had been cut off: its last {mended_bytes} bytes were written anew")?;
        }
        if *lost > 0 {
            writeln!(formatter, "{lost} records are lost on this box; the parcel names them")?;
        }
        if *findings > 0 {
            writeln!(
                formatter,
                "the journal is not all as it was written ({findings} findings): see counterfoil verify"
            )?;
        }
        writeln!(formatter, "store and box {source}, signed with the key {public_key}")?;
        writeln!(formatter, "At head office: counterfoil-hub import --config hub.toml FILE")
    }
}

/// What is to be exported.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The parcel, made or gone on with.
    pub file: PathBuf,
    /// Whatever is retained, not only what the hub lacks as far as the box knows: for a hub that lost something.
    pub all: bool,
}

/// Writes the parcel. `on_progress` hears how many bytes of how many of the journal are dealt with.
pub fn export(wanted: &Wanted, env: &Env, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Exported, ExportError> {
    let of_data = |error| ExportError::Data(wanted.data_dir.clone(), error);
    if !wanted.data_dir.join("journal").is_dir() {
        return Err(ExportError::NoJournal(wanted.data_dir.clone()));
    }
    let disk = OsDisk::at(&wanted.data_dir);
    let key = DeviceKey::read(&disk).map_err(of_data)?.ok_or_else(|| ExportError::NoKey(wanted.data_dir.clone()))?;
    let checked = journal::check(&disk, &mut |_| Vec::new(), &mut |done, total| on_progress(done, total * 2));
    let checked = checked.map_err(of_data)?;
    let source = checked.source.clone().ok_or_else(|| ExportError::NoJournal(wanted.data_dir.clone()))?;
    journal::settle(&disk).map_err(of_data)?;
    let mut parcel = Parcel::open(&wanted.file, &source, &key, env)?;
    let total = checked.bytes * 2;
    let lost = parcel.fill(&disk, &checked, wanted, &mut |done| on_progress(checked.bytes + done, total))?;
    parcel.close(lost.clone(), env.wall())?;
    let lost = lost.iter().flat_map(|heads| &heads.lanes).flat_map(|lane| &lane.gone);
    Ok(Exported {
        source,
        public_key: key.public_key(),
        added: parcel.added,
        records: parcel.records,
        bytes: parcel.bytes,
        mended_bytes: parcel.mended_bytes,
        lost: lost.map(|gone| gone.range.last.above(gone.range.first) + 1).sum(),
        findings: checked.findings.len() as u64,
    })
}

/// The file, open behind its last whole entry.
struct Parcel<'a> {
    path: &'a Path,
    file: File,
    key: &'a DeviceKey,
    writer: Writer,
    name: SessionId,
    /// Up to here each lane is in it.
    reached: BTreeMap<LaneKey, Seq>,
    /// Whether a statement is the last thing in it.
    is_stated: bool,
    records: u64,
    added: u64,
    bytes: u64,
    synced: u64,
    mended_bytes: u64,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl<'a> Parcel<'a> {
    fn open(path: &'a Path, source: &Source, key: &'a DeviceKey, env: &Env) -> Result<Self, ExportError> {
        let failed = |error| ExportError::File(path.to_owned(), error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut parcel = Self {
            path,
            file,
            key,
            writer: Writer::default(),
            name: SessionId(env.random_bytes()?),
            reached: BTreeMap::new(),
            is_stated: false,
            records: 0,
            added: 0,
            bytes: 0,
            synced: 0,
            mended_bytes: 0,
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
        };
        let length = parcel.file.metadata().map_err(failed)?.len();
        parcel.take_up(source)?;
        parcel.mended_bytes = length - parcel.bytes;
        parcel.file.set_len(parcel.bytes).map_err(failed)?;
        parcel.file.seek(SeekFrom::Start(parcel.bytes)).map_err(failed)?;
        if parcel.bytes == 0 {
            parcel.write(&parcel::head())?;
            let label = Label {
                source: source.clone(),
                public_key: key.public_key(),
                parcel: parcel.name,
                software: crate::SOFTWARE.to_owned(),
                begun_at: env.wall(),
            };
            parcel.append(&Entry::Label(label))?;
        }
        Ok(parcel)
    }

    /// Follows what is in the file already. What is not whole was cut off when it was written: it is written again.
    fn take_up(&mut self, source: &Source) -> Result<(), ExportError> {
        let of_file = |error| ExportError::File(self.path.to_owned(), error);
        let mut input = io::BufReader::with_capacity(1 << 20, &self.file);
        let mut more = |count: usize| {
            let mut bytes = Vec::with_capacity(count);
            input.by_ref().take(count as u64).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let head = more(HEAD_BYTES).map_err(of_file)?;
        if head.len() < HEAD_BYTES && parcel::head().starts_with(&head) {
            return Ok(());
        }
        let mut reader = Reader::begin(&head).map_err(|error| ExportError::Parcel(self.path.to_owned(), error))?;
        let mut at = HEAD_BYTES as u64;
        loop {
            let before = reader.clone();
            let next = reader.next(&mut more);
            let (entry, bytes) = match next {
                Ok(Some(next)) => next,
                Err(Stop::Read(error)) => return Err(of_file(error)),
                // Cut off within its label, it is begun anew.
                Ok(None) | Err(Stop::Entry(ParcelError::Cut)) if before.label().is_none() => return Ok(()),
                Err(Stop::Entry(error)) if before.label().is_none() => {
                    return Err(ExportError::Parcel(self.path.to_owned(), error));
                }
                Ok(None) | Err(Stop::Entry(_)) => {
                    self.writer = before.into_writer();
                    (self.bytes, self.synced) = (at, at);
                    return Ok(());
                }
            };
            at += bytes as u64;
            self.is_stated = matches!(entry, Entry::Statement(_));
            match entry {
                Entry::Label(label) if label.source == *source && label.public_key == self.key.public_key() => {
                    self.name = label.parcel;
                }
                Entry::Label(label) => {
                    return Err(ExportError::Other(self.path.to_owned(), label.source, source.clone()));
                }
                Entry::Batch(batch) => {
                    let (head, _) = codec::decode_batch_head(&batch)?;
                    self.reached.insert(head.first.lane_key(), head.range().last);
                    self.records += u64::from(head.count);
                }
                Entry::Statement(_) => {}
            }
        }
    }

    /// Appends what is not in it yet, up to what `checked` met. Gives how far the lanes reach, with what of them is lost.
    fn fill(
        &mut self,
        disk: &dyn Disk,
        checked: &Checked,
        wanted: &Wanted,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<EpochHeads>, ExportError> {
        let lanes: BTreeMap<LaneKey, (Seq, Seq)> = checked
            .lanes
            .iter()
            .map(|lane| {
                let kept = if wanted.all {
                    lane.runs.first().map_or(Seq::NONE, |run| run.first.previous())
                } else {
                    lane.at_hub
                };
                let from = self.reached.get(&lane.key).map_or(kept, |reached| kept.max(*reached));
                (lane.key, (from, lane.last))
            })
            .collect();
        let heads = heads(checked, |lane| lanes.get(&lane.key).map_or(lane.last, |(from, _)| *from));
        let mut pending: BTreeMap<LaneKey, Pending> = BTreeMap::new();
        let mut failed = None;
        let mut on_record = |met: &Met<'_>| {
            let lane = met.key.lane_key();
            let is_wanted = lanes.get(&lane).is_some_and(|(from, last)| met.key.seq > *from && met.key.seq <= *last);
            if is_wanted && failed.is_none() {
                failed = self.add(pending.entry(lane).or_default(), met).err();
            }
            Vec::new()
        };
        let read = journal::check(disk, &mut on_record, &mut |done, _| on_progress(done));
        read.map_err(|error| ExportError::Data(wanted.data_dir.clone(), error))?;
        if let Some(error) = failed {
            return Err(error);
        }
        for mut batch in pending.into_values() {
            self.pack(&mut batch)?;
        }
        Ok(heads)
    }

    fn add(&mut self, pending: &mut Pending, met: &Met<'_>) -> Result<(), ExportError> {
        let goes_on = pending.first.is_some_and(|first| first.seq.plus(pending.records.len() as u64) == met.key.seq);
        let is_full =
            pending.records.len() >= BATCH_RECORDS_MAX || pending.bytes + met.stored.len() > BATCH_BYTES_TARGET;
        if !goes_on || is_full {
            self.pack(pending)?;
        }
        pending.first.get_or_insert(met.key);
        pending.bytes += met.stored.len();
        pending.records.push(met.stored.to_vec());
        Ok(())
    }

    fn pack(&mut self, pending: &mut Pending) -> Result<(), ExportError> {
        let Pending { first: Some(first), records, .. } = std::mem::take(pending) else { return Ok(()) };
        let compressor = &mut self.compressor;
        let batch = codec::encode_batch(self.name, first, &records, |bytes| compressor.as_mut()?.compress(bytes).ok())?;
        self.append(&Entry::Batch(batch))?;
        self.added += records.len() as u64;
        self.records += records.len() as u64;
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), ExportError> {
        let key = self.key;
        let bytes = self.writer.entry(entry, |bytes| key.sign(bytes));
        self.write(&bytes.map_err(|error| ExportError::Parcel(self.path.to_owned(), error))?)?;
        self.is_stated = matches!(entry, Entry::Statement(_));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let failed = |error| ExportError::File(self.path.to_owned(), error);
        self.file.write_all(bytes).map_err(failed)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(failed)?;
            self.synced = self.bytes;
        }
        Ok(())
    }

    /// States that it is whole, unless that is the last thing it says, and has all of it on the stick.
    fn close(&mut self, epochs: Vec<EpochHeads>, made_at: WallTime) -> Result<(), ExportError> {
        if self.added > 0 || !self.is_stated {
            self.append(&Entry::Statement(Statement { made_at, records: self.records, epochs }))?;
        }
        let failed = |error| ExportError::File(self.path.to_owned(), error);
        self.file.sync_all().map_err(failed)?;
        // Its name as well.
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

/// Records of a lane that are to become a batch.
#[derive(Default)]
struct Pending {
    first: Option<RecordKey>,
    records: Vec<Vec<u8>>,
    bytes: usize,
}

/// The lanes that reach beyond what the hub has, or what `from` says of them, with what is lost in between.
fn heads(checked: &Checked, from: impl Fn(&LaneRuns) -> Seq) -> Vec<EpochHeads> {
    let mut epochs: Vec<EpochHeads> = Vec::new();
    for lane in checked.lanes.iter().filter(|lane| lane.last > from(lane)) {
        let LaneKey { epoch, lane: name } = lane.key;
        let head = LaneHead {
            lane: name,
            first: from(lane).next(),
            chain_before: None,
            last: lane.last,
            chain: lane.chain,
            gone: lost(lane, from(lane)),
        };
        if let Some(heads) = epochs.last_mut().filter(|heads| heads.epoch == epoch) {
            heads.lanes.push(head);
        } else {
            let parent = lane.parent.map(|epoch| Parent { epoch, lanes: Vec::new() });
            epochs.push(EpochHeads { epoch, parent, live: false, lanes: vec![head] });
        }
    }
    epochs
}

/// The numbers above `from` that were given and are not here.
fn lost(lane: &LaneRuns, from: Seq) -> Vec<Gone> {
    let mut gone = Vec::new();
    let mut next = from.next();
    let end = SeqRange { first: lane.last.next(), last: lane.last.next() };
    for run in lane.runs.iter().chain([&end]) {
        if run.first > next {
            let range = SeqRange { first: next, last: run.first.previous() };
            gone.push(Gone { range, reason: GoneReason::Damaged, chain_before: None, chain_after: None });
        }
        next = next.max(run.last.next());
    }
    gone
}

#[cfg(test)]
mod tests {
    use counterfoil_proto::id::{Epoch, Lane};

    use super::*;

    #[test]
    fn what_was_given_a_number_and_is_not_here_is_named() {
        let range = |(first, last)| SeqRange { first: Seq(first), last: Seq(last) };
        let lost_of = |at_hub, runs: &[(u64, u64)], last| {
            let key = LaneKey { epoch: Epoch([1; 16]), lane: Lane::Trade };
            let runs = runs.iter().copied().map(range).collect();
            let lane = LaneRuns { key, parent: None, at_hub: Seq(at_hub), runs, last: Seq(last), chain: None };
            lost(&lane, lane.at_hub).into_iter().map(|gone| (gone.range.first.0, gone.range.last.0)).collect::<Vec<_>>()
        };
        assert_eq!(lost_of(0, &[(1, 9)], 9), []);
        assert_eq!(lost_of(4, &[(1, 9)], 9), []);
        assert_eq!(lost_of(4, &[(7, 8), (11, 12)], 15), [(5, 6), (9, 10), (13, 15)]);
        assert_eq!(lost_of(7, &[(1, 2), (5, 8)], 8), [], "what the hub has is not lost");
        assert_eq!(lost_of(3, &[], 5), [(4, 5)]);
    }
}
