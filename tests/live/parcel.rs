//! A store whose line is dead for weeks: what it has is carried to the hub as a file, in spite of a stick that was pulled out, and comes over the
//! line as well in the end; nothing is counted twice. And what a person at the box is told meanwhile.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use world::bin::bin;
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(2);
const TOTALS: &str = "/v1/totals?store=0042&business_day=2026-11-23";

fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(bin(program)).args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn status(stage: &Stage) -> String {
    let (code, said) = run("counterfoil", &["status", "--agent", stage.agent.api().base()]);
    assert_eq!(code, Some(0), "{said}");
    said
}

/// What the doctor says of each thing: how it is, by subject.
fn doctor(stage: &Stage) -> Vec<(String, String, String)> {
    let config = stage.agent.config();
    let (_, said) = run("counterfoil", &["doctor", "--config", config.to_str().unwrap(), "--json"]);
    let checks: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let check = |check: &Value| (text(check, "subject"), text(check, "health"), text(check, "found"));
    checks.as_array().unwrap().iter().map(check).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_at_the_box_is_told_what_is_wrong_and_nothing_where_nothing_is() {
    let mut stage = Stage::new().await;
    sell(&stage, 1..=3).await;
    stage.agent.drained(LIMIT).await;
    let said = status(&stage);
    assert!(said.contains("Store 0042, box box1") && said.contains("connected; last word"), "{said}");
    assert!(said.contains("everything is all right"), "{said}");
    let of = |checks: &[(String, String, String)], subject: &str| {
        checks
            .iter()
            .find(|(name, ..)| name == subject)
            .map(|(_, health, found)| format!("{health}: {found}"))
            .unwrap_or_default()
    };
    let checks = doctor(&stage);
    for subject in ["Configuration", "Data", "Disk speed", "DNS", "Broker"] {
        let found = of(&checks, subject);
        assert!(found.starts_with("good") || subject == "Disk speed" && found.contains(" ms"), "{subject}: {found}");
    }
    stage.broker.kill();
    sell(&stage, 4..=5).await;
    let deadline = Deadline::new(LIMIT);
    while !status(&stage).contains("Head office cannot be reached") {
        deadline.rest_for("the agent notices that its broker is gone").await;
    }
    assert!(status(&stage).contains("2 records wait"), "{}", status(&stage));
    let checks = doctor(&stage);
    assert!(of(&checks, "Broker").starts_with("bad") && of(&checks, "Agent").starts_with("warning"), "{checks:?}");
    stage.agent.stop().await;
    assert_eq!(run("counterfoil", &["status", "--agent", stage.agent.api().base()]).0, Some(69));
    assert!(of(&doctor(&stage), "Agent").contains("no agent answers"));
    let left = std::fs::read_dir(stage.agent.data_dir()).unwrap().filter_map(Result::ok);
    assert!(left.map(|file| file.file_name()).all(|name| name != "doctor.probe"));
}

fn export(stage: &Stage, stick: &Path) -> Value {
    let data_dir = stage.agent.data_dir();
    let (code, said) = run("counterfoil", &["export", data_dir.to_str().unwrap(), stick.to_str().unwrap(), "--json"]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

fn import(stage: &Stage, stick: &Path, more: &[&str]) -> (Option<i32>, String) {
    let config = stage.hub.config();
    let arguments = ["import", "--by", "Ann", "--config", config.to_str().unwrap(), stick.to_str().unwrap()];
    run("counterfoil-hub", &[&arguments, more].concat())
}

async fn sell(stage: &Stage, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(post(&stage.agent.api(), &sale(number, 1_000 + number)).await.status, 201);
    }
}

async fn posted(stage: &Stage, transactions: u64) -> Value {
    let deadline = Deadline::new(LIMIT);
    loop {
        let totals: Value = stage.hub.api().json(TOTALS).await.unwrap();
        if totals["currencies"][0]["transactions"] == transactions {
            return totals;
        }
        deadline.rest_for(&format!("{transactions} sales are posted: {totals}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_carried_by_hand_and_came_over_the_line_too_is_there_once() {
    let mut stage = Stage::new().await;
    sell(&stage, 1..=5).await;
    stage.agent.drained(LIMIT).await;
    stage.broker.kill();
    sell(&stage, 6..=205).await;
    // A restart in between: the records are of two epochs.
    stage.agent.stop().await;
    stage.agent.start();
    stage.agent.ready().await;
    sell(&stage, 206..=210).await;

    let stick = stage.directory().join("store-0042.parcel");
    let exported = export(&stage, &stick);
    let key = exported["public_key"].as_str().unwrap().to_owned();
    assert!(exported["added"].as_u64().unwrap() >= 205 && exported["lost"] == 0, "{exported}");
    assert_eq!(export(&stage, &stick)["added"], 0, "everything is in it");

    // Pulled out in the middle of an entry, and taken to head office all the same.
    let whole = std::fs::read(&stick).unwrap();
    std::fs::write(&stick, &whole[..whole.len() - 1_000]).unwrap();
    let (code, said) = import(&stage, &stick, &[]);
    assert!(
        code == Some(65) && said.contains(&key) && said.contains("--public-key"),
        "a key that nobody knows: {said}"
    );
    let (code, said) = import(&stage, &stick, &["--public-key", &"ab".repeat(32)]);
    assert!(code == Some(65) && said.contains("not by"), "{said}");
    let (code, said) = import(&stage, &stick, &["--public-key", &key]);
    assert!(code == Some(65) && said.contains("Not whole: the parcel was cut off"), "{said}");

    // The same command mends it, and adds what was sold since.
    sell(&stage, 211..=220).await;
    let again = export(&stage, &stick);
    assert!(again["added"].as_u64().unwrap() >= 10 && again["mended_bytes"].as_u64().unwrap() > 0, "{again}");
    let (code, said) = import(&stage, &stick, &["--public-key", &key]);
    assert!(code == Some(0) && said.contains(" 0 beside others") && said.contains("All that the box had"), "{said}");
    let totals = posted(&stage, 220).await;
    let (code, said) = import(&stage, &stick, &["--public-key", &key]);
    assert!(code == Some(0) && said.contains(": 0 new,"), "a second time: {said}");

    // One byte of it changed.
    let whole = std::fs::read(&stick).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    std::fs::write(&stick, &changed).unwrap();
    let (code, said) = import(&stage, &stick, &["--public-key", &key]);
    assert!(code == Some(65) && said.contains("not what the box signed"), "{said}");
    assert_eq!(run("counterfoil", &["export", "/nowhere", stick.to_str().unwrap()]).0, Some(74));

    // The line is back.
    stage.broker.start().await;
    sell(&stage, 221..=221).await;
    stage.agent.drained(LIMIT).await;
    let after = posted(&stage, 221).await;
    assert_ne!(after, totals);
    let exceptions: Value = stage.hub.api().json("/v1/exceptions").await.unwrap();
    assert_eq!(exceptions["exceptions"].as_array().map(Vec::len), Some(0), "{exceptions}");
    let ledger = stage.postgres.client("ledger").await.unwrap();
    let trail =
        "SELECT COUNT(*) FROM audit WHERE route = 'counterfoil-hub import' AND who = 'Ann' AND outcome <> 'begun'";
    assert_eq!(ledger.query_one(trail, &[]).await.unwrap().get::<_, i64>(0), 6, "each import has its entry");
    let doubles = "SELECT COUNT(*) FROM records WHERE fork <> 0";
    assert_eq!(ledger.query_one(doubles, &[]).await.unwrap().get::<_, i64>(0), 0);
}
