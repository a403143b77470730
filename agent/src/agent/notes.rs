//! What the agent itself has to say: records that no till sent.
//!
//! Invariant: a note is bounded, says what happened and names what is affected; what a person must see carries a flag, which
//! opens an exception here and at the hub. This module only writes documents; the owner appends them.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Digest, Epoch, RecordKey};
use counterfoil_proto::record::facts::StockCount;
use counterfoil_proto::record::flag::{
    Change, DOCUMENTS_REFUSED, JOURNAL_DAMAGE, PICKUP_STALE, SEQUENCE_GAP, TAIL_CUT,
};
use counterfoil_proto::record::{Envelope, Flag, Kind};
use counterfoil_proto::time::{ClockQuality, WallTime};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::env::Env;
use crate::journal::{Damage, Gone, Parent, TailCut};
use crate::state::{MissingNumbers, StaleOrder, State};

/// Ranges or keys that one note lists; more are counted.
const LISTED_MAX: usize = 1_000;

/// Bytes of the lines of one variance; of a count of more only the number is told. Fits a record with room to spare.
const VARIANCE_BYTES_MAX: usize = 1024 * 1024;

/// A record of the agent's own, to be appended.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// What it tells of.
    pub(super) kind: Kind,
    /// The document.
    pub(super) document: Value,
    /// What it is flagged with.
    pub(super) flag: Option<&'static str>,
    /// What ties it to the records that it speaks of.
    pub(super) correlation_id: Option<String>,
    /// Whether it begins an epoch, where none has begun. Notes that are not urgent wait for the next till record.
    pub(super) urgent: bool,
}

impl Note {
    /// Its stored form, as far as the document decides it.
    pub(super) fn into_parts(self) -> (Kind, Envelope, Vec<u8>) {
        let document = self.document.to_string().into_bytes();
        let flags = self.flag.map(|code| Flag { code: code.into(), pointer: String::new() });
        let envelope = Envelope {
            content_digest: Digest::of(&document),
            flags: flags.into_iter().collect(),
            correlation_id: self.correlation_id,
            ..Envelope::default()
        };
        (self.kind, envelope, document)
    }
}

/// The first record of an epoch.
pub(super) fn epoch_start(epoch: Epoch, parent: Option<&Parent>, env: &Env, clock: ClockQuality) -> Note {
    let parent = parent.map(|parent| {
        let lanes = parent.lanes.iter().map(|head| json!({"lane": head.lane, "last": head.last, "chain": head.chain}));
        json!({"epoch": parent.epoch, "lanes": lanes.collect::<Vec<_>>()})
    });
    let document = json!({
        "epoch": epoch,
        "parent": parent,
        "boot_id": env.boot_id(),
        "software": crate::SOFTWARE,
        "clock": clock,
        "started_at": env.wall().to_rfc3339(),
    });
    Note { kind: Kind::EPOCH_START, document, flag: None, correlation_id: None, urgent: true }
}

/// Bytes after the last synced position that were cut when the journal was opened.
pub(super) fn tail_cut(cut: &TailCut) -> Note {
    let records: Vec<Value> = cut.records.iter().take(LISTED_MAX).map(|key| json!(key)).collect();
    let document = json!({
        "position": cut.position.to_string(),
        "bytes": cut.bytes,
        "quarantined": cut.quarantined,
        "records": records,
        "records_count": cut.records.len(),
    });
    Note { kind: Kind::TAIL_CUT, document, flag: Some(TAIL_CUT), correlation_id: None, urgent: true }
}

/// Synced bytes that are damaged or missing.
pub(super) fn damage(damage: &Damage) -> Note {
    let gone: Vec<Value> = damage.gone.iter().take(LISTED_MAX).map(gone_range).collect();
    let document = json!({
        "segment": damage.segment,
        "offset": damage.offset,
        "bytes": damage.bytes,
        "what": damage.what,
        "quarantined": damage.quarantined,
        "gone": gone,
        "gone_count": damage.gone.iter().map(|gone| gone.range.count()).sum::<u64>(),
        "end_unknown": damage.end_unknown,
    });
    Note { kind: Kind::JOURNAL_DAMAGE, document, flag: Some(JOURNAL_DAMAGE), correlation_id: None, urgent: true }
}

fn gone_range(gone: &Gone) -> Value {
    json!({
        "epoch": gone.key.epoch,
        "lane": gone.key.lane,
        "first": gone.range.first,
        "last": gone.range.last,
        "reason": gone.reason.as_str(),
    })
}

/// The wall clock moved against the monotonic clock.
pub(super) fn clock_step(before: WallTime, after: WallTime, step_ms: i64) -> Note {
    let document = json!({"expected": before.to_rfc3339(), "found": after.to_rfc3339(), "step_ms": step_ms});
    Note { kind: Kind::CLOCK_STEP, document, flag: None, correlation_id: None, urgent: false }
}

/// The uplink was away.
pub(super) fn outage(from: WallTime, until: WallTime, duration_ms: u64) -> Note {
    let document = json!({"from": from.to_rfc3339(), "until": until.to_rfc3339(), "duration_ms": duration_ms});
    Note { kind: Kind::OUTAGE, document, flag: None, correlation_id: None, urgent: false }
}

/// Documents that could not be read or identified, by problem; never a value of them.
pub(super) fn documents_refused(counts: &BTreeMap<&'static str, u64>) -> Note {
    let document = json!({"change": "opened", "counts": counts});
    Note { kind: Kind::EXCEPTION_CHANGE, document, flag: Some(DOCUMENTS_REFUSED), correlation_id: None, urgent: false }
}

/// A person dealt with an exception.
pub(super) fn exception_changed(exception_id: &str, change: Change, by: &str, reason: &str) -> Note {
    let document = json!({"exception_id": exception_id, "change": change.as_str(), "by": by, "reason": reason});
    Note { kind: Kind::EXCEPTION_CHANGE, document, flag: None, correlation_id: None, urgent: true }
}

/// What a count differs by from what was held to be on hand, with how far the state was folded: `null` where nothing was known.
pub(super) fn stock_variance(
    count: RecordKey,
    counts: &[StockCount],
    state: &State,
    correlation_id: Option<String>,
) -> Note {
    let mut counted: BTreeMap<(&str, &str), Decimal> = BTreeMap::new();
    let (mut lines, mut bytes): (Vec<Value>, usize) = (Vec::new(), 0);
    for line in counts {
        let item = (line.item_id.as_str(), line.unit.as_str());
        // A second line of an item is judged by the first.
        let before = counted.insert(item, line.counted).or_else(|| state.on_hand(item.0, item.1));
        let variance = before.and_then(|before| line.counted.checked_sub(before));
        let text = |quantity: Decimal| quantity.normalize().to_string();
        let line = json!({"item_id": line.item_id, "unit": line.unit, "counted": text(line.counted),
            "on_hand": before.map(text), "variance": variance.map(text)});
        bytes = bytes.saturating_add(line.to_string().len());
        if bytes > VARIANCE_BYTES_MAX {
            break;
        }
        lines.push(line);
    }
    let left_out = counts.len().saturating_sub(lines.len());
    let document = json!({"counts": count, "as_of": state.as_of(), "lines": lines, "left_out": left_out});
    Note { kind: Kind::STOCK_VARIANCE, document, flag: None, correlation_id, urgent: true }
}

/// Goods of an order lie ready for too long.
pub(super) fn pickup_stale(order: &StaleOrder) -> Note {
    let lines = order.lines.iter().take(LISTED_MAX).map(|(item_id, unit, quantity)| {
        json!({"item_id": item_id, "unit": unit, "quantity": quantity.normalize().to_string()})
    });
    let document = json!({
        "code": PICKUP_STALE,
        "order_id": order.order_id,
        "ready_since": order.ready_since.to_rfc3339(),
        "expires_at": order.expires_at.map(WallTime::to_rfc3339),
        "lines": lines.collect::<Vec<_>>(),
    });
    let correlation_id = Some(order.order_id.clone());
    Note { kind: Kind::FINDING, document, flag: Some(PICKUP_STALE), correlation_id, urgent: true }
}

/// What another part of the agent noticed.
pub(super) fn finding(code: &'static str, document: Value) -> Note {
    Note { kind: Kind::FINDING, document, flag: Some(code), correlation_id: None, urgent: true }
}

/// Numbers of a till are missing for too long.
pub(super) fn sequence_gap(missing: &MissingNumbers) -> Note {
    let numbers = missing
        .ranges
        .iter()
        .map(|(sequence_epoch, first, last)| json!({"sequence_epoch": sequence_epoch, "first": first, "last": last}));
    let document = json!({
        "code": SEQUENCE_GAP,
        "workstation_id": missing.workstation_id,
        "numbers": numbers.collect::<Vec<_>>(),
    });
    Note { kind: Kind::FINDING, document, flag: Some(SEQUENCE_GAP), correlation_id: None, urgent: true }
}
