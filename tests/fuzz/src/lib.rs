//! What is done with foreign bytes, one function for each decoder that meets them.
//!
//! Invariant: a function returns for every input; a panic, a hang or unbounded memory is a finding. What is decoded is encoded again
//! where both exist, and must come back. Not known here: where inputs come from (the fuzzer, or the kept corpus).

mod image;
mod served;

use std::alloc::System;
use std::path::Path;

use cap::Cap;
use counterfoil_proto::codec;
use counterfoil_proto::limits::BATCH_BYTES_MAX;
use counterfoil_proto::message::{Down, Hello, Positions};
use counterfoil_proto::parcel;
use counterfoil_proto::record::{self, Context, Kind, Record};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What foreign bytes are handed to.
pub type Function = fn(&[u8]);

/// Each target by its name, which is that of its directory in the corpus.
pub const TARGETS: [(&str, Function); 9] = [
    ("documents", documents),
    ("legacy", legacy),
    ("http", http),
    ("batch", batch),
    ("messages", messages),
    ("record", record),
    ("snapshot", snapshot),
    ("journal", journal),
    ("config", config),
];

/// Bounds what is held at once, with what stands around a target (a runtime, a server); asking for more ends the process. Inputs of the
/// fuzzer have 64 KiB at most.
fn within_mebibytes(count: usize) {
    MEMORY.set_limit(count << 20).expect("a target starts with next to nothing");
}

fn context() -> Context {
    Context {
        store_id: counterfoil_proto::id::StoreId::new("0042").expect("a store"),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    }
}

/// Documents of tills: judged one by one as each kind, and posted to the ingress as one document and as lines.
fn documents(bytes: &[u8]) {
    within_mebibytes(64);
    for kind in [Kind::TRANSACTION, Kind::STOCK_MOVEMENT, Kind::DAY_CLOSE] {
        if let Ok(prepared) = record::prepare(kind, bytes, None, &context()) {
            let accepted = Record { kind, envelope: prepared.envelope, document: prepared.document };
            let stored = accepted.encode().expect("what was accepted is within bounds");
            assert_eq!(Record::decode(&stored).as_ref(), Ok(&accepted));
        }
    }
    for (path, media) in [
        ("transactions", "application/json"),
        ("transactions", "application/x-ndjson"),
        ("stock-movements", "application/x-ndjson"),
        ("day-closes", "application/json"),
    ] {
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        let answer = served::exchange(&[head.as_bytes(), bytes].concat(), false);
        assert!(answer.starts_with(b"HTTP/1.1 "), "every request is answered: {head}");
    }
}

/// Sources of other systems: JSON as Square's and Shopify's, anything else as `POSLog` of both dialects. What is mapped is accepted or
/// refused, and the same source gives the same again.
fn legacy(bytes: &[u8]) {
    within_mebibytes(64);
    let profiles = counterfoil::legacy::Profiles::default();
    let is_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    for name in if is_json { ["square", "shopify"] } else { ["ncr-2.1", "poslog-6"] } {
        let profile = profiles.find(name).expect("it is built in");
        let mapped = profile.map(bytes);
        assert_eq!(mapped, profile.map(bytes), "equal sources give equal documents");
        for prepared in
            mapped.into_iter().filter_map(|mapped| mapped.and_then(|mapped| mapped.prepare(&context())).ok())
        {
            let accepted = Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document };
            let stored = accepted.encode().expect("what was accepted is within bounds");
            assert_eq!(Record::decode(&stored).as_ref(), Ok(&accepted));
        }
    }
}

/// Bytes on a connection of the ingress.
fn http(bytes: &[u8]) {
    within_mebibytes(64);
    served::exchange(bytes, true);
}

fn decompress(frame: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    assert!(bytes_max <= BATCH_BYTES_MAX, "asked for within bounds");
    zstd::bulk::decompress(frame, bytes_max).ok()
}

/// Batches as the hub gets them, over the line and on a stick, and the records in them.
fn batch(bytes: &[u8]) {
    within_mebibytes(16);
    if let Ok(batch) = codec::read_batch(bytes, decompress) {
        assert_eq!(batch.records.len() as u64, batch.head.range().count());
        let again = codec::encode_batch(batch.head.session, batch.head.first, &batch.records, |_| None);
        if let Ok(again) = again {
            let again = codec::decode_batch(&again, decompress).expect("what was encoded decodes");
            assert_eq!(again.records, batch.records);
        }
        batch.records.iter().for_each(|stored| record(stored));
    }
    // The same from a stick. Nobody signs for the fuzzer, so it gets as far as the label.
    let mut reader = parcel::Reader::begin(bytes).unwrap_or_default();
    let mut rest = bytes.get(parcel::HEAD_BYTES..).unwrap_or(bytes);
    let more = |count: usize| {
        let (piece, after) = rest.split_at(count.min(rest.len()));
        rest = after;
        Ok::<_, ()>(piece.to_vec())
    };
    if let Ok(Some((entry, taken))) = reader.next(more) {
        assert!(taken <= bytes.len() && matches!(entry, parcel::Entry::Label(_)));
    }
}

/// Hellos as the hub gets them; welcomes, acks and nacks as the agent gets them.
fn messages(bytes: &[u8]) {
    within_mebibytes(16);
    if let Ok(hello) = codec::read::<Hello>(bytes) {
        assert_eq!(codec::decode(&codec::encode(&hello).expect("it was decoded")).as_ref(), Ok(&hello));
    }
    if let Ok(down) = codec::read::<Down>(bytes) {
        assert_eq!(codec::decode(&codec::encode(&down).expect("it was decoded")).as_ref(), Ok(&down));
    }
}

/// Stored bytes of a record.
fn record(bytes: &[u8]) {
    within_mebibytes(16);
    if let Ok(record) = Record::decode(bytes) {
        let again = record.encode().expect("it was decoded");
        assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
    }
}

/// Snapshots of stock on hand.
fn snapshot(bytes: &[u8]) {
    within_mebibytes(16);
    if let Ok(positions) = codec::read::<Positions>(bytes) {
        assert_eq!(codec::decode(&codec::encode(&positions).expect("it was decoded")).as_ref(), Ok(&positions));
    }
}

/// The files of a journal.
fn journal(bytes: &[u8]) {
    within_mebibytes(128);
    image::recover(bytes);
}

/// Configuration files of the agent and of the hub.
fn config(bytes: &[u8]) {
    within_mebibytes(16);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.toml");
    std::fs::write(&file, bytes).expect("a file");
    let agent = counterfoil::config::Config::load_with(&file, []).map(|config| config.to_string());
    let hub = counterfoil_hub::config::Config::load_with(&file, []).map(|config| config.to_string());
    let said = [agent.map_err(|error| error.to_string()), hub.map_err(|error| error.to_string())];
    said.iter().filter_map(|said| said.as_ref().err()).for_each(|said| says_where(&file, said));
}

fn says_where(file: &Path, said: &str) {
    assert!(said.contains(&*file.to_string_lossy()), "an error names the file: {said}");
}
