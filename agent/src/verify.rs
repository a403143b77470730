//! `counterfoil verify`: is a data directory what the agent wrote?
//!
//! Invariant: nothing is changed. The journal's own checks ([`journal::check`]) hold a record to its neighbours; the control totals hold
//! all of them to a signature, each to the one before. Whoever keeps one set of control totals elsewhere (the hub does) can show that
//! nothing before it was changed, even by somebody who holds the box's key.

use std::path::Path;
use std::{fmt, io};

use counterfoil_proto::id::{Digest, LaneKey, PublicKey};
use counterfoil_proto::record::control_totals::{ControlTotals, Previous, is_signed};
use counterfoil_proto::record::{Kind, Record};

use crate::journal::{self, Checked, Disk, Finding, Met, OsDisk};

/// What was gone through and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The journal.
    #[serde(flatten)]
    pub journal: Checked,
    /// Control totals whose signature, predecessor and chains are right.
    pub control_totals: u64,
    /// The number of the newest control totals.
    pub last_number: Option<u64>,
    /// Who signed them.
    pub public_key: Option<PublicKey>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { journal, control_totals, .. } = self;
        for finding in &journal.findings {
            writeln!(formatter, "{} at byte {}: {}", finding.file, finding.offset, finding.what)?;
        }
        writeln!(formatter, "{} records in {} segments, {} bytes", journal.records, journal.segments, journal.bytes)?;
        for formed in &journal.formats {
            let software = formed.software.as_ref().map(|software| format!(", made by {software}")).unwrap_or_default();
            writeln!(formatter, "{} of the segments in format {}{software}", formed.segments, formed.format)?;
        }
        match journal.undelivered {
            0 => writeln!(formatter, "the hub has all of them safe")?,
            count => writeln!(formatter, "{count} of them are not known to be safe at the hub")?,
        }
        match (self.last_number, self.public_key) {
            (Some(number), Some(key)) => {
                writeln!(
                    formatter,
                    "{control_totals} control totals are right, the newest is number {number}; key {key}"
                )?;
            }
            _ => writeln!(formatter, "no control totals yet")?,
        }
        if !journal.closed {
            writeln!(formatter, "the journal was not closed: whether its last group is whole cannot be told")?;
        }
        match journal.findings.len() {
            0 => writeln!(formatter, "Everything is as it was written."),
            count => writeln!(formatter, "{count} findings."),
        }
    }
}

/// Checks a data directory. `expected` is the key that must have signed; `on_progress` hears how many bytes of how many are read.
///
/// # Errors
/// The directory holds no journal, or cannot be read.
pub fn directory(
    data_dir: &Path,
    expected: Option<PublicKey>,
    on_progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Report> {
    if !data_dir.join("journal").is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no directory \"journal\" in it"));
    }
    on(&OsDisk::at(data_dir), expected, on_progress)
}

/// The same on any disk.
///
/// # Errors
/// The journal's files cannot be read.
pub fn on(disk: &dyn Disk, expected: Option<PublicKey>, on_progress: &mut dyn FnMut(u64, u64)) -> io::Result<Report> {
    let mut line = Line { expected, previous: None, public_key: None, whole: 0 };
    let journal = journal::check(disk, &mut |met| line.meet(met), on_progress)?;
    Ok(Report {
        journal,
        control_totals: line.whole,
        last_number: line.previous.map(|previous| previous.number),
        public_key: line.public_key,
    })
}

/// The control totals so far.
struct Line {
    expected: Option<PublicKey>,
    previous: Option<Previous>,
    public_key: Option<PublicKey>,
    whole: u64,
}

impl Line {
    fn meet(&mut self, met: &Met<'_>) -> Vec<Finding> {
        // The kind stands in the first two stored bytes; only few records are looked into.
        if met.stored.first_chunk() != Some(&Kind::CONTROL_TOTALS.0.to_le_bytes()) {
            return Vec::new();
        }
        let Ok(record) = Record::decode(met.stored) else {
            return vec![met.finding("control totals that cannot be read".to_owned())];
        };
        let document = &record.document;
        let Ok(totals) = serde_json::from_slice::<ControlTotals>(document) else {
            return vec![met.finding("control totals that cannot be read".to_owned())];
        };
        let wrong = self.judge(met, &totals, document);
        self.previous = Some(Previous { number: totals.number, digest: Digest::of(document) });
        self.public_key = Some(totals.public_key);
        self.whole += u64::from(wrong.is_empty());
        wrong.into_iter().map(|what| met.finding(format!("control totals {}: {what}", totals.number))).collect()
    }

    fn judge(&self, met: &Met<'_>, totals: &ControlTotals, document: &[u8]) -> Vec<String> {
        let mut wrong = Vec::new();
        if !is_signed(totals, document) {
            wrong.push(
                "the signature does not belong to what stands there; it was changed after it was signed".to_owned(),
            );
        }
        let known = self.expected.or(self.public_key);
        if known.is_some_and(|known| known != totals.public_key) {
            wrong.push(format!("signed by another key, {}", totals.public_key));
        }
        if let Some(previous) = self.previous
            && totals.previous != Some(previous)
        {
            wrong.push(format!("they do not name the ones before, {}, as these stand here", previous.number));
        }
        for epoch in &totals.epochs {
            for stated in &epoch.lanes {
                let Some((last, chain)) = met.head(LaneKey { epoch: epoch.epoch, lane: stated.lane }) else { continue };
                let is_other = chain.is_some() && stated.chain.is_some() && chain != stated.chain;
                if last != stated.last || is_other {
                    let name = format!("{} {}", epoch.epoch, stated.lane);
                    wrong.push(format!("lane {name} is not what was signed up to record {}", stated.last));
                }
            }
        }
        wrong
    }
}
