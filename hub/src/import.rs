//! `counterfoil-hub import`: a parcel ([`counterfoil_proto::parcel`]) into the ledger, by the same door as what comes over the line.
//!
//! Invariant: nothing is taken that is not signed by the box's own key, and nothing behind the first byte that is not. Taking in a parcel again, or
//! what came by MQTT meanwhile, changes nothing: records are known by number and digest. It is no word of a live agent, so sessions and epochs'
//! descent stay as the hub knows them. Not known here: what records mean.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::PathBuf;

use counterfoil_proto::codec;
use counterfoil_proto::id::PublicKey;
use counterfoil_proto::message::Mark;
use counterfoil_proto::parcel::{Entry, HEAD_BYTES, Label, ParcelError, Reader, Stop};
use counterfoil_proto::time::WallTime;

use crate::error::ExitError;
use crate::ledger::{Arrival, Ledger as _, LedgerError, SqlLedger};
use crate::receiver::decompress;

/// Batches of one transaction.
const GROUP_BATCHES: usize = 32;

/// What is to be taken in.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The parcel.
    pub(crate) file: PathBuf,
    /// The key that has to have signed; without it, the one that the ledger knows of the box.
    pub(crate) public_key: Option<PublicKey>,
}

/// What became of a parcel.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    label: Label,
    /// Records read.
    records: u64,
    /// Of these, new.
    new: u64,
    /// Of these, here already.
    duplicates: u64,
    /// Of these, kept beside another under their number.
    forks: u64,
    /// Batches that lie too far above what is here.
    ahead: u64,
    /// When the box had nothing more to say.
    stated_at: Option<WallTime>,
    /// Where the lanes stand.
    marks: Vec<Mark>,
    /// Why it ends before its end.
    trouble: Option<ParcelError>,
}

impl Imported {
    /// Whether all that the box had is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.stated_at.is_some() && self.trouble.is_none() && self.ahead == 0 && self.waiting().next().is_none()
    }

    /// Lanes of which something is missing before what is here.
    fn waiting(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(|mark| !mark.ranges.is_empty())
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, records, new, duplicates, forks, ahead, stated_at, trouble, .. } = self;
        let (source, begun) = (&label.source, label.begun_at.to_rfc3339());
        writeln!(formatter, "Parcel of {source}, begun {begun}, signed by {}", label.public_key)?;
        writeln!(formatter, "{records} records: {new} new, {duplicates} were here already, {forks} beside others")?;
        if let Some(trouble) = trouble {
            writeln!(formatter, "Not whole: {trouble}. What stands before that is taken; copy or export it again.")?;
        } else if stated_at.is_none() {
            writeln!(formatter, "Not whole: the export was interrupted. Run the same export again; it goes on.")?;
        }
        for mark in self.waiting() {
            let first = mark.ranges.first().map_or(mark.stored, |range| range.first);
            let (lane, epoch) = (mark.key.lane, mark.key.epoch);
            writeln!(
                formatter,
                "Not whole: of lane {lane}, epoch {epoch}, {} to {} are missing, and what follows waits for them. \
                 Export with --all.",
                mark.stored.next(),
                first.previous()
            )?;
        }
        if *ahead > 0 {
            writeln!(formatter, "Not whole: {ahead} batches lie too far above what is here. Export with --all.")?;
        }
        match stated_at.filter(|_| self.is_whole()) {
            Some(at) => writeln!(formatter, "All that the box had at {} is here.", at.to_rfc3339()),
            None => Ok(()),
        }
    }
}

/// A parcel's file, entry by entry.
struct Input {
    wanted: Wanted,
    file: BufReader<File>,
    reader: Reader,
    done: u64,
    total: u64,
}

impl Input {
    fn open(wanted: &Wanted) -> Result<Self, ExitError> {
        let refused = |why: &dyn fmt::Display| refused(wanted, why);
        let file = File::open(&wanted.file).map_err(|error| refused(&error))?;
        let total = file.metadata().map_err(|error| refused(&error))?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|error| refused(&error))?;
        let reader = Reader::begin(&head).map_err(|error| refused(&error))?;
        Ok(Self { wanted: wanted.clone(), file, reader, done: HEAD_BYTES as u64, total })
    }

    /// The next entry, `None` at the end; within, why what follows is none.
    fn next(&mut self) -> Result<Result<Option<Entry>, ParcelError>, ExitError> {
        let file = &mut self.file;
        let next = self.reader.next(|count| {
            let mut bytes = Vec::with_capacity(count);
            file.by_ref().take(count as u64).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        });
        match next {
            Ok(next) => Ok(Ok(next.map(|(entry, bytes)| {
                self.done += bytes as u64;
                entry
            }))),
            Err(Stop::Entry(error)) => Ok(Err(error)),
            Err(Stop::Read(error)) => Err(refused(&self.wanted, &error)),
        }
    }

    fn label(&mut self) -> Result<Label, ExitError> {
        match self.next()? {
            Ok(Some(Entry::Label(label))) => Ok(label),
            Ok(_) => Err(refused(&self.wanted, &ParcelError::Cut)),
            Err(error) => Err(refused(&self.wanted, &error)),
        }
    }
}

fn refused(wanted: &Wanted, why: &dyn fmt::Display) -> ExitError {
    ExitError::Parcel(format!("{}: {why}", wanted.file.display()))
}

/// Takes a parcel in. `on_progress` hears how many bytes of how many are dealt with.
pub(crate) async fn import(
    ledger: &SqlLedger,
    wanted: &Wanted,
    on_progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ExitError> {
    let mut input = Input::open(wanted)?;
    let label = input.label()?;
    trust(&label, wanted.public_key, ledger.box_key(&label.source).await?).map_err(|why| refused(wanted, &why))?;
    let (marks, stated_at, trouble) = (Vec::new(), None, None);
    let mut imported =
        Imported { label, records: 0, new: 0, duplicates: 0, forks: 0, ahead: 0, stated_at, marks, trouble };
    let mut group = Vec::with_capacity(GROUP_BATCHES);
    loop {
        let next = match input.next()? {
            Ok(Some(Entry::Batch(bytes))) => match codec::decode_batch(&bytes, decompress) {
                Ok(batch) => {
                    imported.records += batch.records.len() as u64;
                    imported.stated_at = None;
                    group.push(Arrival { source: imported.label.source.clone(), batch });
                    Ok(None)
                }
                Err(_) => Err(Some(ParcelError::Unknown)),
            },
            Ok(Some(Entry::Statement(statement))) => Ok(Some(statement)),
            Ok(Some(Entry::Label(_))) => Err(Some(ParcelError::Unknown)),
            Ok(None) => Err(None),
            Err(error) => Err(Some(error)),
        };
        if group.len() >= GROUP_BATCHES || !matches!(next, Ok(None)) {
            imported.take(ledger, &group).await?;
            group.clear();
            on_progress(input.done, input.total);
        }
        match next {
            Ok(None) => {}
            Ok(Some(statement)) => {
                let marks = ledger.declare(&imported.label.source, &statement.epochs).await?;
                imported.marks.retain(|known| marks.iter().all(|mark| mark.key != known.key));
                imported.marks.extend(marks);
                imported.stated_at = Some(statement.made_at);
            }
            Err(trouble) => {
                imported.trouble = trouble;
                return Ok(imported);
            }
        }
    }
}

impl Imported {
    async fn take(&mut self, ledger: &SqlLedger, group: &[Arrival]) -> Result<(), LedgerError> {
        if group.is_empty() {
            return Ok(());
        }
        let taken = ledger.take(group).await?;
        self.new += taken.stored;
        self.duplicates += taken.duplicates;
        self.forks += taken.forks;
        self.ahead += taken.ahead.len() as u64;
        Ok(())
    }
}

/// Whether a parcel's key is the box's.
fn trust(label: &Label, named: Option<PublicKey>, known: Option<PublicKey>) -> Result<(), String> {
    let (source, signed) = (&label.source, label.public_key);
    match (named, known) {
        (Some(named), _) if named == signed => Ok(()),
        (Some(named), _) => Err(format!("it is signed by {signed}, not by {named}")),
        (None, Some(known)) if known == signed => Ok(()),
        (None, Some(known)) => Err(format!(
            "it is signed by {signed}, and this ledger knows {source} by {known}: another box, or one that was set up anew. \
             If the store confirms the key that counterfoil export printed there, name it with --public-key"
        )),
        (None, None) => Err(format!(
            "it is signed by {signed}, and this ledger does not know the key of {source} yet. \
             Ask the store for the key that counterfoil export printed, and name it with --public-key"
        )),
    }
}
