//! A journal that was cut, flipped or robbed of a segment: the agent starts, the rest arrives, and what is lost is named at the hub.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use world::http::{Api, segment};
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(2);
/// A start takes seconds at the most, whatever it finds; on a machine that does much else, a few more.
const START_LIMIT: Duration = Duration::from_mins(1);
const BATCH: u64 = 1_000;

/// An agent whose broker is down, with some sealed segments full of sales that the hub has not seen.
async fn stage_with_backlog() -> (Stage, u64) {
    let mut stage = Stage::with_agent("[journal]\nsegment_bytes = \"4MiB\"\n").await;
    stage.broker.stop().await;
    let api = stage.agent.api();
    let mut sold = 0;
    while stage.agent.status().await.unwrap().disk.segments < 4 {
        let sales: Vec<String> = (sold + 1..=sold + BATCH).map(|number| sale(number, number).to_string()).collect();
        let body = sales.join("\n");
        let answer = api.post("/v1/transactions", "application/x-ndjson", body.into_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        sold += BATCH;
    }
    (stage, sold)
}

/// The segments, oldest first.
fn segments(stage: &Stage) -> Vec<PathBuf> {
    let directory = stage.agent.data_dir().join("journal");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect();
    segments.sort();
    segments
}

/// Starts everything again and waits until the hub has all that can come; gives the sales that the ledger has.
async fn recovered(stage: &mut Stage) -> BTreeSet<u64> {
    stage.agent.start();
    let begun = Deadline::new(START_LIMIT);
    while stage.agent.api().success("/readyz").await.is_err() {
        begun.rest_for("the agent to start on a damaged journal").await;
    }
    stage.broker.start().await;
    stage.agent.drained(LIMIT).await;
    posted(&stage.hub.api()).await
}

/// The sales in the ledger, once the agent's word about the damage is there and every stored record has its position.
async fn posted(hub: &Api) -> BTreeSet<u64> {
    let deadline = Deadline::new(LIMIT);
    let mut sales = BTreeSet::new();
    let mut after = String::new();
    let mut is_told = false;
    loop {
        let is_posted = gauge(hub, "ledger_records").await == gauge(hub, "ledger_last_position").await;
        let answer = hub.success(&format!("/v1/records?limit=1000{after}")).await.unwrap();
        let lines: Vec<Value> =
            answer.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        for record in &lines {
            if record["kind"] == "transaction" {
                assert!(sales.insert(record["document"]["sequence_number"].as_u64().unwrap()), "doubled: {record}");
            }
        }
        if let Some(next) = answer.next_after {
            after = format!("&after={}", segment(&next));
        }
        is_told |= lines.iter().any(|record| record["kind"] == "journal_damage" || record["kind"] == "tail_cut");
        if lines.is_empty() {
            if is_told && is_posted {
                return sales;
            }
            deadline.rest_for("the agent's word about the damage, and every record, in the ledger").await;
        }
    }
}

/// A figure of the hub.
async fn gauge(hub: &Api, name: &str) -> Option<u64> {
    let text = String::from_utf8(hub.success("/metrics").await.unwrap().body).unwrap();
    text.lines().find(|line| !line.starts_with('#') && line.contains(name))?.rsplit(' ').next()?.parse().ok()
}

/// The open exceptions at the hub.
async fn exceptions(hub: &Api) -> Vec<Value> {
    let answer: Value = hub.json("/v1/exceptions?state=open&store=0042").await.unwrap();
    answer["exceptions"].as_array().unwrap().clone()
}

/// The sales that the hub's exceptions name as gone. Record n of the lane is sale n-1: the epoch's first record is its own.
fn gone(exceptions: &[Value]) -> BTreeSet<u64> {
    let gone = exceptions.iter().filter(|exception| exception["code"] == "GONE");
    gone.flat_map(|exception| {
        let detail = exception["detail"].as_str().unwrap();
        let (range, reason) = detail.split_once(": ").unwrap();
        assert!(!reason.is_empty(), "{detail}");
        let (first, last) = range.split_once(" to ").unwrap();
        first.parse::<u64>().unwrap() - 1..last.parse::<u64>().unwrap()
    })
    .collect()
}

/// The raw bytes that were put aside.
fn quarantined(stage: &Stage) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(stage.agent.data_dir().join("quarantine")).unwrap();
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// The lost sales are one run, exactly they are named, both ends say so, everything else is there, and the lane goes on.
async fn assert_named_and_going_on(stage: &Stage, sold: u64, sales: &BTreeSet<u64>) {
    let lost: Vec<u64> = (1..=sold).filter(|number| !sales.contains(number)).collect();
    assert!(!lost.is_empty() && lost.windows(2).all(|pair| pair[0] + 1 == pair[1]), "one run is lost: {lost:?}");
    let hub = stage.hub.api();
    let found = exceptions(&hub).await;
    assert_eq!(gone(&found), lost.iter().copied().collect::<BTreeSet<_>>(), "what is named is what is lost: {found:?}");
    let is_named = |code: &str| found.iter().any(|exception| exception["code"] == code);
    assert!(is_named("JOURNAL_DAMAGE"), "{found:?}");
    let api = stage.agent.api();
    let own: Value = api.json("/v1/exceptions").await.unwrap();
    assert!(own.to_string().contains("JOURNAL_DAMAGE"), "the store sees it too: {own}");
    // What stands beside the damage has its receipt still, what was lost is recorded anew, and the next sale follows.
    for number in [lost[0] - 1, lost[lost.len() - 1] + 1, sold] {
        assert_eq!(post(&api, &sale(number, number)).await.status, 200, "sale {number} is there");
    }
    for number in BTreeSet::from([lost[0], lost[lost.len() - 1]]) {
        assert_eq!(post(&api, &sale(number, number)).await.status, 201, "sale {number} was lost and is recorded anew");
    }
    assert_eq!(post(&api, &sale(sold + 1, 100)).await.status, 201);
    stage.agent.drained(LIMIT).await;
    let names: Vec<Value> = exceptions(&hub).await.iter().map(|exception| exception["code"].clone()).collect();
    assert!(!names.iter().any(|code| code == "CHAIN_MISMATCH" || code == "FORK"), "{names:?}");
}

#[tokio::test]
async fn a_flipped_byte_loses_one_sale_and_names_it() {
    let (mut stage, sold) = stage_with_backlog().await;
    stage.agent.kill();
    let victim = &segments(&stage)[1];
    let mut bytes = std::fs::read(victim).unwrap();
    let needle = b"\"business_day_date\"";
    let middle = bytes.len() / 2;
    let at = middle + bytes[middle..].windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(victim, bytes).unwrap();
    let sales = recovered(&mut stage).await;
    assert_eq!(sales.len() as u64, sold - 1);
    let mut flipped = needle.to_vec();
    flipped[0] ^= 0x10;
    let is_kept = quarantined(&stage).iter().any(|bytes| bytes.windows(flipped.len()).any(|window| window == flipped));
    assert!(is_kept, "the damaged bytes are put aside");
    assert_named_and_going_on(&stage, sold, &sales).await;
}

#[tokio::test]
async fn a_deleted_segment_loses_its_sales_and_names_them() {
    let (mut stage, sold) = stage_with_backlog().await;
    stage.agent.kill();
    std::fs::remove_file(&segments(&stage)[1]).unwrap();
    let sales = recovered(&mut stage).await;
    assert_named_and_going_on(&stage, sold, &sales).await;
}

#[tokio::test]
async fn a_cut_segment_loses_what_stood_behind_the_cut_and_names_it() {
    let (mut stage, sold) = stage_with_backlog().await;
    stage.agent.kill();
    let victim = &segments(&stage)[2];
    let file = std::fs::OpenOptions::new().write(true).open(victim).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let sales = recovered(&mut stage).await;
    assert!(!quarantined(&stage).is_empty(), "what is left of the record that the cut went through is put aside");
    assert_named_and_going_on(&stage, sold, &sales).await;
}
