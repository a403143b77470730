//! What ties records of one business process together, where nobody said so: names that follow from the record's own place, so that
//! whoever reads one in a log or an exception finds the record by it without an index.
//!
//! Invariant: minted once, when the record is appended, and kept in its envelope from then on. A till's own names are never replaced.

use alloc::format;
use alloc::string::String;

use crate::id::{Epoch, Lane, RecordKey, Seq};

impl RecordKey {
    /// The correlation id of a record that came without one: `{epoch}-{lane}-{seq}`.
    pub fn correlation_id(self) -> String {
        format!("{}-{}-{}", self.epoch, self.lane, self.seq)
    }

    /// The record of which that is the minted correlation id.
    pub fn from_correlation_id(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (epoch, lane, seq) = (parts.next()?, parts.next()?, parts.next()?);
        let key = Self { epoch: epoch.parse().ok()?, lane: lane.parse().ok()?, seq: Seq(seq.parse().ok()?) };
        (key.correlation_id() == text).then_some(key)
    }

    /// The W3C trace context of a record that came without one: the trace id is half of the epoch and the place, the parent id the other
    /// half; not sampled.
    pub fn traceparent(self) -> String {
        let [first, second] = halves(self.epoch);
        format!("00-{first:016x}{:016x}-{:016x}-00", self.place(), second.max(1))
    }

    /// Whether a trace id of 32 hexadecimal digits is the one that was minted for this record.
    pub fn has_trace_id(self, trace_id: &str) -> bool {
        self.traceparent().get(3..35) == Some(trace_id)
    }

    /// Lane and number of the record with that minted trace id, and the first half of its epoch.
    pub fn place_of_trace_id(trace_id: &str) -> Option<([u8; 8], Lane, Seq)> {
        let (first, place) = trace_id.split_at_checked(16).filter(|(_, place)| place.len() == 16)?;
        let (first, place) = (u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(place, 16).ok()?);
        let [lane, ..] = place.to_be_bytes();
        let lane = Lane::from_code(lane.checked_sub(1)?)?;
        Some((first.to_be_bytes(), lane, Seq(place & SEQ_MASK)))
    }

    /// The lane, one more than its code so that it is never zero, and the number.
    fn place(self) -> u64 {
        let lane = u64::from(self.lane.code().saturating_add(1));
        lane.wrapping_shl(SEQ_MASK.count_ones()) | (self.seq.0 & SEQ_MASK)
    }
}

/// Numbers have 56 bits here: at a thousand records a second for two million years.
const SEQ_MASK: u64 = (1 << 56) - 1;

fn halves(epoch: Epoch) -> [u64; 2] {
    let (first, second) = epoch.0.split_at(8);
    [first, second].map(|half| half.iter().fold(0, |value: u64, byte| value.wrapping_shl(8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IDENTIFIER_CHARS_MAX;
    use crate::record::inspect::is_trace_parent;
    use proptest::prelude::*;

    fn lanes() -> impl Strategy<Value = Lane> {
        prop::sample::select(alloc::vec![Lane::Trade, Lane::Stock, Lane::Ops])
    }

    proptest! {
        #[test]
        fn a_record_is_found_by_the_names_that_were_minted_for_it(epoch: [u8; 16], lane in lanes(), seq in 1_u64..SEQ_MASK) {
            let key = RecordKey { epoch: Epoch(epoch), lane, seq: Seq(seq) };
            let correlation_id = key.correlation_id();
            prop_assert!(correlation_id.len() <= IDENTIFIER_CHARS_MAX);
            prop_assert_eq!(RecordKey::from_correlation_id(&correlation_id), Some(key));
            let traceparent = key.traceparent();
            prop_assert!(is_trace_parent(&traceparent), "{}", traceparent);
            let trace_id = traceparent.get(3..35).unwrap();
            prop_assert!(key.has_trace_id(trace_id));
            let (first, found, number) = RecordKey::place_of_trace_id(trace_id).unwrap();
            prop_assert_eq!((&first[..], found, number), (epoch.get(..8).unwrap(), lane, Seq(seq)));
        }

        #[test]
        fn what_is_no_minted_name_is_none(text in "\\PC{0,70}") {
            if let Some(key) = RecordKey::from_correlation_id(&text) {
                prop_assert_eq!(key.correlation_id(), text);
            }
        }
    }

    #[test]
    fn foreign_names_are_nobodys() {
        for text in ["", "9a0c", "-trade-1", "00-trade-1", "order 7"] {
            assert_eq!(RecordKey::from_correlation_id(text), None, "{text}");
        }
        assert_eq!(RecordKey::place_of_trace_id("4bf92f3577b34da6a3ce929d0e0e4736"), None, "no lane of ours");
        assert_eq!(RecordKey::place_of_trace_id("4bf9"), None);
    }
}
