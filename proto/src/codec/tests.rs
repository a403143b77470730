//! The wire's bytes: golden vectors of version 1 (kept for ever), round trips, and foreign bytes.
//!
//! `COUNTERFOIL_BLESS=1` writes vectors that are missing; one that is there is never overwritten.

extern crate std;

use alloc::string::{String, ToString};
use alloc::vec;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::id::{Chain, LaneKey, SeqRange};
use crate::message::{
    Ack, Applied, Down, EpochHeads, Gone, GoneReason, Hello, LaneHead, Mark, Nack, NackReason, Parent, ParentLane,
    PositionHead, PositionItem, Positions, Taken, Versions, Welcome,
};
use crate::record::{Envelope, Flag, Kind, Record};
use crate::time::{ClockQuality, WallTime};

pub(super) const FIRST: RecordKey = RecordKey { epoch: Epoch([0x11; 16]), lane: Lane::Trade, seq: Seq(41) };
pub(super) const SESSION: SessionId = SessionId([0x22; 16]);
const HUB: SessionId = SessionId([0x33; 16]);

fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire-v1").join(name);
    let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &alloc::format!("{byte:02x}"));
    if !path.exists() && std::env::var_os("COUNTERFOIL_BLESS").is_some() {
        std::fs::write(&path, alloc::format!("{hex}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(kept.trim(), hex, "{name} is written differently from what version 1 promised");
}

pub(super) fn record() -> Record {
    Record {
        kind: Kind::TRANSACTION,
        envelope: Envelope {
            recorded_at: WallTime(1_795_000_000_123),
            monotonic_ms: 77,
            clock: ClockQuality::Synchronised,
            content_digest: crate::id::Digest::of(b"{}"),
            identity: Some("t/3/2026-11-23/1187/0".to_string()),
            alias: None,
            occurred_at: Some(WallTime(1_795_000_000_000)),
            business_day_date: Some("2026-11-23".to_string()),
            business_day_derived: false,
            correlation_id: Some("c-1".to_string()),
            traceparent: None,
            flags: vec![Flag { code: "TOTALS_MISMATCH".into(), pointer: "/totals/gross".to_string() }],
            conflicts_with: None,
        },
        document: b"{\"type\":\"sale\"}".to_vec(),
    }
}

pub(super) fn hello() -> Hello {
    let gone = Gone {
        range: SeqRange { first: Seq(3), last: Seq(4) },
        reason: GoneReason::Damaged,
        chain_before: Some(Chain([6; 32])),
        chain_after: None,
    };
    let head = LaneHead {
        lane: Lane::Trade,
        first: Seq(1),
        chain_before: Some(Chain([1; 32])),
        last: Seq(9),
        chain: Some(Chain([2; 32])),
        gone: vec![gone],
    };
    let parent =
        Parent { epoch: Epoch([0x44; 16]), lanes: vec![ParentLane { lane: Lane::Stock, last: Seq(5), chain: None }] };
    Hello {
        versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
        software: "counterfoil 0.1.0".to_string(),
        session: SESSION,
        round: 1,
        page: 0,
        pages: 1,
        wall_time: WallTime(1_795_000_000_123),
        clock: ClockQuality::Unsynchronised,
        epochs: vec![EpochHeads { epoch: FIRST.epoch, parent: Some(parent), live: true, lanes: vec![head] }],
        downlink: vec![Applied { stream: "master".to_string(), position: 7 }],
    }
}

#[test]
fn the_last_number_is_refused() {
    let bytes = |last| encode(&Mark { stored: Seq(last), ..mark() }).unwrap();
    assert!(decode::<Mark>(&bytes(u64::MAX - 1)).is_ok());
    assert_eq!(decode::<Mark>(&bytes(u64::MAX)), Err(CodecError::Undecodable));
}

fn mark() -> Mark {
    let ranges = vec![SeqRange { first: Seq(50), last: Seq(60) }];
    Mark {
        key: LaneKey { epoch: FIRST.epoch, lane: Lane::Trade },
        stored: Seq(40),
        safe: Seq(30),
        ranges,
        absent: vec![SeqRange { first: Seq(7), last: Seq(9) }],
        chain: Some(Chain([5; 32])),
    }
}

pub(super) fn downs() -> [(&'static str, Down); 5] {
    let key = FIRST.lane_key();
    let content = crate::id::Digest::of(b"batch");
    let taken = vec![Taken { key, range: SeqRange { first: Seq(38), last: Seq(40) }, content }];
    let welcome = Welcome {
        version: WireVersion::V1,
        session: SESSION,
        round: 1,
        hub_epoch: HUB,
        page: 0,
        marks: vec![mark()],
        window: 32_768,
        credit: 64,
    };
    [
        ("welcome.hex", Down::Welcome(welcome)),
        ("ack.hex", Down::Ack(Ack { session: SESSION, hub_epoch: HUB, marks: vec![mark()], taken, credit: 64 })),
        ("nack.hex", Down::Nack(Nack { session: SESSION, first: FIRST, reason: NackReason::Undecodable })),
        (
            "range_request.hex",
            Down::RangeRequest { session: SESSION, key, range: SeqRange { first: Seq(1), last: Seq(2) } },
        ),
        ("hello_wanted.hex", Down::HelloWanted { hub_epoch: HUB }),
    ]
}

pub(super) fn positions() -> Positions {
    let item =
        PositionItem { item_id: "85123A".to_string(), unit: "EA".to_string(), on_hand: None, delta: "-3".to_string() };
    Positions {
        session: SESSION,
        round: 1,
        part: 0,
        parts: 1,
        taken_at: WallTime(1),
        heads: vec![PositionHead { key: FIRST.lane_key(), last: Seq(40) }],
        items: vec![item],
    }
}

#[test]
fn messages_are_written_and_read_as_version_1_promised() {
    let bytes = encode(&hello()).unwrap();
    golden("hello.hex", &bytes);
    assert_eq!(decode::<Hello>(&bytes).unwrap(), hello());
    for (name, down) in downs() {
        let bytes = encode(&down).unwrap();
        golden(name, &bytes);
        assert_eq!(decode::<Down>(&bytes).unwrap(), down);
    }
    let positions = positions();
    let bytes = encode(&positions).unwrap();
    golden("positions.hex", &bytes);
    assert_eq!(decode::<Positions>(&bytes).unwrap(), positions);
}

#[test]
fn records_and_batches_are_written_and_read_as_version_1_promised() {
    let stored = record().encode().unwrap();
    golden("record.hex", &stored);
    assert_eq!(Record::decode(&stored).unwrap(), record());
    let bytes = encode_batch(SESSION, FIRST, &[&stored, &stored], |_| None).unwrap();
    golden("batch_plain.hex", &bytes);
    let batch = decode_batch(&bytes, |_, _| None).unwrap();
    assert_eq!(batch.records, [stored.clone(), stored]);
    assert_eq!(batch.head.range(), SeqRange { first: Seq(41), last: Seq(42) });
}

#[test]
fn a_newer_version_is_named_and_not_guessed() {
    let mut bytes = encode(&hello()).unwrap();
    bytes[0] = 9;
    assert_eq!(decode::<Hello>(&bytes), Err(CodecError::Version(9)));
    let mut bytes = encode_batch(SESSION, FIRST, &[b"x"], |_| None).unwrap();
    bytes[0] = 0;
    assert_eq!(decode_batch_head(&bytes), Err(CodecError::Version(0)));
}

#[test]
fn what_claims_to_grow_beyond_bounds_is_not_decompressed() {
    let mut bytes = encode_batch(SESSION, FIRST, &[b"x"], |_| None).unwrap();
    bytes[1] = 1;
    bytes[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
    let result = decode_batch(&bytes, |_, _| panic!("decompressed a bomb"));
    assert!(matches!(result, Err(CodecError::TooLarge(_))));
}

#[test]
fn trailing_bytes_and_false_counts_are_refused() {
    let mut bytes = encode(&hello()).unwrap();
    bytes.push(0);
    assert_eq!(decode::<Hello>(&bytes), Err(CodecError::Undecodable));
    let mut bytes = encode_batch(SESSION, FIRST, &[b"x", b"y"], |_| None).unwrap();
    bytes[44] = 3;
    assert_eq!(decode_batch(&bytes, |_, _| None), Err(CodecError::Undecodable));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut versioned = vec![1];
        versioned.extend_from_slice(&bytes);
        for bytes in [&bytes, &versioned] {
            drop(decode::<Hello>(bytes));
            drop(decode::<Down>(bytes));
            drop(decode::<Positions>(bytes));
            drop(decode_batch(bytes, |_, _| None));
            drop(Record::decode(bytes));
        }
    }

    #[test]
    fn batches_come_back_as_they_went(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..50)) {
        let bytes = encode_batch(SESSION, FIRST, &records, |_| None).unwrap();
        prop_assert_eq!(decode_batch(&bytes, |_, _| None).unwrap().records, records);
    }
}
