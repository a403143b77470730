//! What the agent finds in a document beside what stands in it: whether its identity or its till's number is taken, its day closed, its
//! returns covered by the receipts that they name.
//!
//! Invariant: a forecast and the real thing judge by the same code. A receipt that cannot be found (another store's or box's, or older
//! than what the journal retains) judges nothing: absence is no finding.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::{ReturnLine, sold_quantity};
use counterfoil_proto::record::flag::NUMBER_DOUBLED;
use counterfoil_proto::record::{Flag, Kind, Prepared};
use rust_decimal::Decimal;
use tracing::warn;

use super::group::{Group, StagingError, read_record};
use crate::answer::Forecast;
use crate::journal::{Found, IdentityKey, Journal, Position};
use crate::state::{self, State};

/// Judges a document that is about to be staged in `group`.
pub(super) fn judge(
    store_id: &str,
    journal: &mut Journal,
    state: &State,
    group: &Group,
    prepared: &Prepared,
) -> Vec<Flag> {
    let mut sold = |line: &ReturnLine| {
        let staged = |position| group.at(position).map(|staged| (staged.record.kind, &staged.record.document[..]));
        sold_by(journal, staged, line)
    };
    let mut flags = state.judge(prepared, &group.pending, store_id, &mut sold);
    // The identity is free, so whoever has the number is another receipt.
    let number = prepared.envelope.alias.as_deref().map(IdentityKey::of);
    if number.is_some_and(|number| matches!(journal.find(number), Ok(Found::Pending(_) | Found::Synced(_)))) {
        flags.push(number_doubled());
    }
    flags
}

fn number_doubled() -> Flag {
    Flag { code: NUMBER_DOUBLED.into(), pointer: "/sequence_number".to_owned() }
}

/// What would become of each document if they were submitted now, one after the other. Records nothing.
pub(super) fn forecast(
    store_id: &str,
    journal: &mut Journal,
    state: &State,
    documents: &[Prepared],
) -> Result<Vec<Forecast>, StagingError> {
    let mut pending = state::Group::default();
    let mut earlier: BTreeMap<IdentityKey, &Prepared> = BTreeMap::new();
    let mut forecasts = Vec::with_capacity(documents.len());
    for prepared in documents {
        if let Some(identity) = prepared.envelope.identity.as_deref() {
            let key = IdentityKey::of(identity);
            let first = match earlier.get(&key) {
                Some(earlier) => Some(earlier.envelope.content_digest),
                None => match journal.find(key)? {
                    Found::Nothing => None,
                    Found::Pending(position) | Found::Synced(position) => {
                        read_record(journal, position)?.map(|(_, record)| record.envelope.content_digest)
                    }
                },
            };
            if let Some(first) = first {
                let is_same = first == prepared.envelope.content_digest;
                forecasts.push(if is_same { Forecast::Duplicate } else { Forecast::Conflict });
                continue;
            }
        }
        let mut sold = |line: &ReturnLine| match earlier.get(&IdentityKey::of(&line.identity)) {
            Some(earlier) => sold_in(earlier.kind, &earlier.document, line),
            None => sold_by(journal, |_| None, line),
        };
        let mut flags = state.judge(prepared, &pending, store_id, &mut sold);
        if let Some(number) = prepared.envelope.alias.as_deref().map(IdentityKey::of)
            && (earlier.contains_key(&number) || !matches!(journal.find(number)?, Found::Nothing))
        {
            flags.push(number_doubled());
        }
        forecasts.push(Forecast::Recorded { flags });
        pending.note(prepared);
        earlier.extend(IdentityKey::of_envelope(&prepared.envelope).into_iter().map(|key| (key, prepared)));
    }
    Ok(forecasts)
}

/// What the receipt that a line names had sold; `staged` shows what waits for its sync.
fn sold_by<'g>(
    journal: &mut Journal,
    staged: impl Fn(Position) -> Option<(Kind, &'g [u8])>,
    line: &ReturnLine,
) -> Option<Decimal> {
    let found = journal.find(IdentityKey::of(&line.identity));
    let read = match found.map_err(StagingError::from) {
        Ok(Found::Nothing) => return None,
        Ok(Found::Pending(position)) => {
            return staged(position).and_then(|(kind, document)| sold_in(kind, document, line));
        }
        Ok(Found::Synced(position)) => read_record(journal, position),
        Err(failure) => Err(failure),
    };
    let read = read.inspect_err(|failure| warn!(%failure, "a receipt could not be read; a return is not judged by it"));
    read.ok().flatten().and_then(|(_, record)| sold_in(record.kind, &record.document, line))
}

/// A document of another kind had sold nothing.
fn sold_in(kind: Kind, document: &[u8], line: &ReturnLine) -> Option<Decimal> {
    if kind != Kind::TRANSACTION {
        return Some(Decimal::ZERO);
    }
    sold_quantity(document, &line.item_id, &line.unit).ok()?
}
