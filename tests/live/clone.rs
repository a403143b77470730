//! A cloned box: its data directory was copied while it ran, both copies were started, both sell under one name.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use world::agent::{Agent, Mqtt};
use world::checkout::verdict::named;
use world::http::Api;
use world::ledger::Ledger;
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

/// From the first sale that both boxes make until the hub names them: as promised.
const NAMED_WITHIN: Duration = Duration::from_mins(1);

/// Until everything of both boxes is in the ledger.
const LIMIT: Duration = Duration::from_mins(3);

/// Copies a directory that is being written to, as a person does who images a box that runs.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    // Files that vanish meanwhile make `cp` complain; the rest is there.
    assert!(copied.success() || to.join("journal").is_dir(), "copying {} failed", from.display());
}

async fn sell(api: &Api, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(post(api, &sale(number, number)).await.status, 201, "sale {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloned_box_loses_nothing_and_is_named() {
    let stage = Stage::new().await;
    sell(&stage.agent.api(), 1..101).await;
    stage.agent.drained(LIMIT).await;

    let api = stage.agent.api();
    let selling = tokio::spawn(async move { sell(&api, 101..301).await });
    let mqtt = Mqtt { url: stage.broker.url(), identity: None };
    let mut clone = Agent::new(&stage.directory().join("clone"), "0042", "box1", &mqtt, "");
    copy(&stage.agent.data_dir(), &clone.data_dir());
    selling.await.unwrap();

    clone.start();
    clone.ready().await;
    let (one, other) = (stage.agent.api(), clone.api());
    let deadline = Deadline::new(NAMED_WITHIN);
    tokio::join!(sell(&one, 301..401), sell(&other, 1_001..1_101));

    let hub = stage.hub.api();
    while !named(&hub, "0042").await.unwrap().iter().any(|code| code == "CLONE") {
        deadline.rest_for("the hub to name the clone").await;
    }
    // Nobody intervenes: both go on taking the line from each other, and everything arrives.
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    loop {
        ledger.read_on(&hub).await.unwrap();
        if ledger.stubs.len() >= 500 {
            break;
        }
        deadline.rest_for(&format!("500 sales of both boxes in the ledger, which has {}", ledger.stubs.len())).await;
    }
    assert_eq!(ledger.faults, Vec::<String>::new());
    let missing = (1..401)
        .chain(1_001..1_101)
        .filter(|number| !ledger.stubs.contains_key(&format!("0042/t/1/2026-11-23/{number}")));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<u64>::new());
    assert!(ledger.epochs() >= 2, "each box writes an epoch of its own");
}
