//! JSON on the wire: golden vectors and the published schemas, round trips, foreign bytes.
//!
//! `COUNTERFOIL_BLESS=1` writes vectors that are missing (one that is there is never overwritten) and all schemas anew (what they already
//! say must stay true: `git diff` shows it).

extern crate std;

use alloc::vec;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::super::tests::{FIRST, SESSION, downs, hello, positions, record};
use super::*;
use crate::codec::{Encoding, read, read_batch, read_batch_first, write};
use crate::id::{AgentId, Seq, StoreId};
use crate::record::json_schema;

fn at(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(place)
}

fn is_blessed() -> bool {
    std::env::var_os("COUNTERFOIL_BLESS").is_some()
}

fn golden(name: &str, bytes: &[u8]) {
    let path = at("fixtures/wire-v1-json").join(name);
    if !path.exists() && is_blessed() {
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        core::str::from_utf8(&kept).unwrap().trim_end(),
        core::str::from_utf8(bytes).unwrap(),
        "{name} is written differently from what version 1 promised"
    );
}

fn source() -> Source {
    Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() }
}

fn batch(records: &[Vec<u8>]) -> Vec<u8> {
    encode_batch(&source(), SESSION, FIRST, Some(Chain([1; 32])), records).unwrap()
}

fn records() -> [Vec<u8>; 2] {
    let mut second = record();
    second.envelope.conflicts_with = Some(FIRST);
    second.envelope.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_string());
    [record().encode().unwrap(), second.encode().unwrap()]
}

#[test]
fn messages_are_written_and_read_as_version_1_promised() {
    let bytes = write(&hello(), Encoding::Json).unwrap();
    golden("hello.json", &bytes);
    assert_eq!(read::<Hello>(&bytes).unwrap(), hello());
    let bytes = write(&positions(), Encoding::Json).unwrap();
    golden("positions.json", &bytes);
    assert_eq!(read::<Positions>(&bytes).unwrap(), positions());
    for (name, down) in downs() {
        let bytes = write(&down, Encoding::Json).unwrap();
        golden(&name.replace(".hex", ".json"), &bytes);
        assert_eq!(read::<Down>(&bytes).unwrap(), down);
        // The binary form goes through the same door.
        assert_eq!(read::<Down>(&write(&down, Encoding::Postcard).unwrap()).unwrap(), down);
    }
    let bytes = batch(&records());
    golden("batch.json", &bytes);
    let read = read_batch(&bytes, |_, _| None).unwrap();
    assert_eq!(read.records, records());
    assert_eq!(read.head.range(), SeqRange { first: Seq(41), last: Seq(42) });
    assert_eq!(read_batch_first(&bytes), Some((SESSION, FIRST)));
}

#[test]
fn attributes_say_what_the_stored_bytes_say_and_chains_link() {
    let value: Value = serde_json::from_slice(&batch(&records())).unwrap();
    let events = value["records"].as_array().unwrap();
    let (first, second) = (&events[0], &events[1]);
    assert_eq!(first["chain"], second["chainbefore"]);
    let digest = Digest::of(&records()[0]);
    assert_eq!(first["recorddigest"], digest.to_string());
    assert_eq!(first["chain"], Chain([1; 32]).next(FIRST.seq, digest).to_string());
    assert_eq!(first["type"], "counterfoil.transaction.v1");
    assert_eq!(first["data"], json!({ "type": "sale" }));
    assert_eq!(second["conflictswith"], first["id"]);
    // What is unknown is left out, not guessed.
    let bytes = encode_batch(&source(), SESSION, FIRST, None, &[records()[0].clone()]).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(value["records"][0].get("chain").is_none() && value["records"][0].get("chainbefore").is_none());
}

#[test]
fn a_record_of_an_unknown_kind_or_body_is_carried_as_it_is() {
    let mut newer = record().encode().unwrap();
    newer[2] = 9;
    let strange = b"no record at all".to_vec();
    let bytes = batch(&[newer.clone(), strange.clone()]);
    assert_eq!(decode_batch(&bytes).unwrap().records, [newer, strange]);
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["records"][0]["type"], "counterfoil.transaction.v9");
    assert_eq!(value["records"][1]["type"], "counterfoil.unreadable");
    assert!(value["records"][1].get("data").is_none());
}

#[test]
fn what_differs_from_its_digest_or_goes_beyond_bounds_is_refused() {
    let good: Value = serde_json::from_slice(&batch(&records())).unwrap();
    let bent = |bend: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        bend(&mut value);
        decode_batch(&serde_json::to_vec(&value).unwrap())
    };
    assert!(bent(&|_| ()).is_ok());
    assert!(bent(&|value| value["later"] = json!(1)).is_ok(), "members are added");
    let other = BASE64_STANDARD.encode(b"other");
    assert_eq!(bent(&|value| value["records"][0]["stored"] = json!(other)), Err(CodecError::Undecodable));
    assert_eq!(bent(&|value| value["records"][0]["stored"] = json!("*")), Err(CodecError::Undecodable));
    assert_eq!(bent(&|value| value["records"] = json!([])), Err(CodecError::Undecodable));
    assert_eq!(bent(&|value| value["first"]["seq"] = json!(0)), Err(CodecError::Undecodable));
    assert_eq!(bent(&|value| value["type"] = json!("hello")), Err(CodecError::Undecodable));
    assert_eq!(bent(&|value| value["wire"] = json!(9)), Err(CodecError::Version(9)));
    let many = vec![good["records"][0].clone(); BATCH_RECORDS_MAX + 1];
    assert!(matches!(bent(&|value| value["records"] = json!(many)), Err(CodecError::TooLarge(_))));
    let long = vec![b'{'; JSON_PUBLISH_BYTES_MAX + 1];
    assert!(matches!(decode_batch(&long), Err(CodecError::TooLarge(_))));
    assert!(matches!(read::<Hello>(&long), Err(CodecError::TooLarge(_))));
    assert_eq!(read::<Hello>(&write(&downs()[0].1, Encoding::Json).unwrap()), Err(CodecError::Undecodable));
}

#[test]
fn the_longest_record_fits_a_publish() {
    let mut record = record();
    record.document = [b"\"".as_slice(), &vec![b'x'; crate::limits::DOCUMENT_BYTES_MAX - 2], b"\""].concat();
    let stored = record.encode().unwrap();
    let bytes = batch(core::slice::from_ref(&stored));
    assert_eq!(decode_batch(&bytes).unwrap().records, [stored]);
}

/// The schema of a message: that of its fields, with what every message has before them.
fn schema<M: JsonSchema>(settings: SchemaSettings, kind: &str) -> Value {
    let fields: Value = SchemaGenerator::new(settings).into_root_schema_for::<M>().to_value();
    let Value::Object(fields) = fields else { panic!("{kind} is an object") };
    let mut all = Map::new();
    all.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    all.insert("$id".into(), format!("urn:counterfoil:schema:wire:v1:{kind}").into());
    for (name, mut value) in fields {
        if name == "properties" {
            let mut properties = Map::new();
            properties.insert("wire".into(), json!({ "description": "The wire version.", "const": 1 }));
            properties.insert("type".into(), json!({ "description": "Which message this is.", "const": kind }));
            properties.extend(value.as_object().unwrap().clone());
            value = Value::Object(properties);
        } else if name == "required" {
            let mut required = vec![json!("wire"), json!("type")];
            required.extend(value.as_array().unwrap().clone());
            value = Value::Array(required);
        }
        all.insert(name, value);
    }
    all.insert("title".into(), kind.into());
    Value::Object(all)
}

fn published(name: &str, schema: &Value) {
    let path = at("schemas").join(name);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if is_blessed() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(kept, text, "{name} is not what the types say; COUNTERFOIL_BLESS=1 writes it anew");
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    // What agents say is described as it is written; what hubs say, as it is read.
    let up = || SchemaSettings::draft2020_12().for_serialize();
    let down = || SchemaSettings::draft2020_12().for_deserialize();
    published("wire-v1/hello.json", &schema::<Hello>(up(), "hello"));
    published("wire-v1/batch.json", &schema::<BatchOut<'_>>(up(), "batch"));
    published("wire-v1/positions.json", &schema::<Positions>(up(), "positions"));
    published("wire-v1/welcome.json", &schema::<Welcome>(down(), "welcome"));
    published("wire-v1/ack.json", &schema::<Ack>(down(), "ack"));
    published("wire-v1/nack.json", &schema::<Nack>(down(), "nack"));
    published("wire-v1/range_request.json", &schema::<RangeRequest>(down(), "range_request"));
    published("wire-v1/hello_wanted.json", &schema::<HelloWanted>(down(), "hello_wanted"));
    let mut presence = SchemaGenerator::new(up()).into_root_schema_for::<crate::message::Presence>().to_value();
    presence["$id"] = "urn:counterfoil:schema:wire:v1:state".into();
    published("wire-v1/state.json", &presence);
    for kind in Kind::KNOWN {
        let (Some(mut schema), Some(name)) = (json_schema(*kind), kind.name()) else { continue };
        schema["$id"] = format!("urn:counterfoil:schema:{name}").into();
        published(&format!("document-v1/{name}.json"), &schema);
    }
}

proptest! {
    #[test]
    fn foreign_json_never_panics(text in "\\{\"wire\":1,\"type\":\"(hello|batch|ack|welcome|positions)\"(,\"(session|first|records|marks|key)\":(\\[\\{\\}\\]|\\{\\}|[0-9]{1,20}|\"[0-9a-f]{0,64}\")){0,4}\\}?", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        for bytes in [text.as_bytes(), &[b"{".as_slice(), &bytes].concat()] {
            drop(read::<Hello>(bytes));
            drop(read::<Down>(bytes));
            drop(read::<Positions>(bytes));
            drop(read_batch(bytes, |_, _| None));
            let _first = read_batch_first(bytes);
        }
    }

    #[test]
    fn batches_come_back_as_they_went(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..50)) {
        prop_assert_eq!(decode_batch(&batch(&records)).unwrap().records, records);
    }
}
