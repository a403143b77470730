//! Golden vectors of the stored form. **These files are never changed**: a record that was stored once has to be read for ever.

use super::*;
use crate::id::{Epoch, Seq};

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(digit.into(), 16).unwrap())
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A record that uses every field of version 1.
fn full() -> Record {
    let envelope = Envelope {
        recorded_at: WallTime(1_795_425_340_123),
        monotonic_ms: 5_000_000_000,
        clock: ClockQuality::Behind,
        content_digest: Digest(core::array::from_fn(|index| u8::try_from(index).unwrap())),
        identity: Some("d/a1".into()),
        alias: Some("t/3/2026-11-23/1187/0".into()),
        occurred_at: Some(WallTime(-1)),
        business_day_date: Some("2026-11-23".into()),
        business_day_derived: true,
        correlation_id: Some("9a0c".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        flags: alloc::vec![
            Flag { code: Cow::Borrowed("TOTALS_MISMATCH"), pointer: "/totals/gross".into() },
            Flag { code: Cow::Borrowed("PAN_MASKED"), pointer: String::new() },
        ],
        conflicts_with: Some(RecordKey { epoch: Epoch([7; 16]), lane: Lane::Stock, seq: Seq(5_000_000_000) }),
    };
    Record { kind: Kind::TRANSACTION, envelope, document: "{\"type\":\"sale\",\"note\":\"é\"}".into() }
}

/// A record that uses none.
fn bare() -> Record {
    Record { kind: Kind::EPOCH_START, envelope: Envelope::default(), document: b"{}".to_vec() }
}

#[test]
fn version_1_is_written_and_read_for_ever() {
    for (record, golden) in [
        (full(), include_str!("../../../fixtures/record-v1-full.hex")),
        (bare(), include_str!("../../../fixtures/record-v1-bare.hex")),
    ] {
        let golden = bytes(golden);
        assert_eq!(hex(&record.encode().unwrap()), hex(&golden));
        let decoded = Record::decode(&golden).unwrap();
        assert_eq!(decoded, record);
        assert_eq!(decoded.encode().unwrap(), golden);
    }
}

#[test]
fn cut_and_lengthened_bytes_are_errors() {
    let golden = full().encode().unwrap();
    for end in 0..golden.len() {
        assert!(Record::decode(golden.get(..end).unwrap()).is_err());
    }
    let mut longer = golden.clone();
    longer.push(0);
    assert_eq!(Record::decode(&longer), Err(RecordError::Length));
    let mut newer = golden;
    *newer.get_mut(2).unwrap() = 2;
    assert_eq!(Record::decode(&newer), Err(RecordError::Version(2)));
}

#[test]
fn flipped_bytes_never_panic() {
    let golden = full().encode().unwrap();
    for index in 0..golden.len() {
        for bit in 0..8 {
            let mut flipped = golden.clone();
            *flipped.get_mut(index).unwrap() ^= 1 << bit;
            drop(Record::decode(&flipped));
        }
    }
}
