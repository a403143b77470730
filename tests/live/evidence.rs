//! One name through everything: what a person finds on a receipt is found in the journal, on the wire, in the ledger, among the exceptions and
//! in the log. And what somebody changed afterwards in the data directory is named.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use counterfoil_proto::codec::decode_batch;
use counterfoil_proto::record::Record;
use counterfoil_proto::topic;
use rumqttc::QoS;
use serde_json::{Value, json};
use world::bin::bin;
use world::wait::Deadline;

use crate::captured::{Peer, capture};
use crate::stage::{Stage, post, receipt, sale};

const LIMIT: Duration = Duration::from_mins(2);

fn is_batch(topic: &str) -> bool {
    matches!(topic::parse(topic::DEFAULT_PREFIX, topic), Some((_, topic::Up::Batch(_))))
}

/// The envelopes' correlation ids in what was heard on the broker.
fn correlations(heard: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (_, payload) in heard.iter().filter(|(topic, _)| is_batch(topic)) {
        let batch = decode_batch(payload, |bytes, length| zstd::bulk::decompress(bytes, length).ok()).unwrap();
        found.extend(batch.records.iter().filter_map(|stored| Record::decode(stored).ok()?.envelope.correlation_id));
    }
    found
}

fn is_in_journal(data_dir: &Path, text: &str) -> bool {
    std::fs::read_dir(data_dir.join("journal")).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_correlation_id_is_found_everywhere() {
    let mut stage = Stage::new().await;
    let listening = capture(&stage.broker).await;
    // The first names the basket, the second gets its name here; both have a fault that a person must see.
    let mut stated = sale(1, 1_000);
    stated["correlation_id"] = json!("basket-4711");
    stated["totals"]["gross"] = json!("10.01");
    let mut silent = sale(2, 1_000);
    silent["totals"]["gross"] = json!("10.02");
    let first = receipt(&post(&stage.agent.api(), &stated).await);
    let second = receipt(&post(&stage.agent.api(), &silent).await);
    assert!(first.exceptions.contains(&"TOTALS_MISMATCH".to_owned()), "{first:?}");
    stage.agent.drained(LIMIT).await;
    let minted = format!("{}-{}-{}", second.epoch, second.lane, second.seq);

    let broker = Peer::new(&stage.broker, "the end");
    broker.client.publish("end", QoS::AtLeastOnce, false, "").await.unwrap();
    let _line = tokio::spawn(async move {
        let mut broker = broker;
        loop {
            broker.next().await;
        }
    });
    let on_the_wire = correlations(&tokio::time::timeout(LIMIT, listening).await.unwrap().unwrap());
    let here: Value = stage.agent.api().json("/v1/exceptions").await.unwrap();
    let deadline = Deadline::new(LIMIT);
    for (name, number) in [("basket-4711", 1), (minted.as_str(), 2)] {
        assert!(on_the_wire.iter().any(|id| id == name), "{name} on the wire: {on_the_wire:?}");
        assert!(is_in_journal(&stage.agent.data_dir(), name), "{name} in the journal");
        let log = stage.agent.process().unwrap().output();
        let line = log.lines().find(|line| line.contains("TOTALS_MISMATCH") && line.contains(name));
        assert!(line.is_some(), "{name} in the log:\n{log}");
        let open = here.as_array().unwrap();
        assert!(open.iter().any(|found| found["correlation_id"] == name), "{name} among the exceptions: {here}");
        let path = format!("/v1/lookup?trace={name}");
        let mut there: Value = stage.hub.api().json(&path).await.unwrap();
        let is_told = |there: &Value| {
            there["exceptions"].as_array().unwrap().iter().any(|found| found["code"] == "TOTALS_MISMATCH")
        };
        while !is_told(&there) {
            deadline.rest_for(&format!("{name} among the hub's exceptions: {there}")).await;
            there = stage.hub.api().json(&path).await.unwrap();
        }
        assert_eq!(there["records"].as_array().unwrap().len(), 1, "{name} in the ledger: {there}");
        assert_eq!(there["records"][0]["document"]["sequence_number"], number, "{there}");
    }
}

fn verify(data_dir: &Path) -> (Option<i32>, String) {
    let output = Command::new(bin("counterfoil")).arg("verify").arg(data_dir).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_that_somebody_changed_is_named() {
    let mut stage = Stage::new().await;
    for number in 1..=20 {
        post(&stage.agent.api(), &sale(number, 1_000 + number)).await;
    }
    let close = json!({"document_id": "z1", "business_day_date": "2026-11-23", "end_date_time": "2026-11-23T20:00:00+00:00",
        "totals": [{"currency_code": "GBP", "transactions": 20, "gross": "202.10"}]});
    let api = stage.agent.api();
    let answer = api.post("/v1/day-closes", "application/json", close.to_string().into_bytes()).await.unwrap();
    assert_eq!(answer.status, 201);
    stage.agent.stop().await;
    let data_dir = stage.agent.data_dir();
    let (code, said) = verify(&data_dir);
    assert!(code == Some(0) && said.contains("1 control totals are right"), "{said}");

    let file = data_dir.join("journal/0000000001.seg");
    let whole = std::fs::read(&file).unwrap();
    for text in ["\"gross\":\"10.07\"", "\"perpetual\""] {
        let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let mut changed = whole.clone();
        changed[at + text.len() - 2] ^= 1;
        std::fs::write(&file, changed).unwrap();
        let (code, said) = verify(&data_dir);
        let offset = said.split("journal/0000000001.seg at byte ").nth(1).and_then(|rest| rest.split(':').next());
        let offset: usize = offset.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        assert!(code == Some(1) && offset <= at && at < offset + 4_096, "{text} at {at}: {said}");
    }
    std::fs::write(&file, whole).unwrap();
    assert_eq!(verify(&data_dir).0, Some(0));
}
