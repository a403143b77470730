//! The names of stored records, for log and traces.
//!
//! Invariant: nothing is decoded where nobody wants to know, and what cannot be read has no names.

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::Record;
use counterfoil_telemetry::follow::{self, Followed, Names};

/// Begins a step with records as they are stored.
pub(crate) fn begin<'a>(step: &'static str, records: impl IntoIterator<Item = (RecordKey, &'a [u8])>) -> Followed {
    if !follow::is_wanted() {
        return follow::begin(step, Vec::new());
    }
    let names = |(key, stored): (RecordKey, &[u8])| {
        let envelope = Record::decode(stored).ok()?.envelope;
        let record = key.correlation_id();
        let correlation_id = envelope.correlation_id.unwrap_or_else(|| record.clone());
        Some(Names { record, correlation_id, traceparent: envelope.traceparent })
    };
    follow::begin(step, records.into_iter().filter_map(names).collect())
}
