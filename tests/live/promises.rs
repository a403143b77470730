//! What the contract promises a till and the hub's readers, on the whole chain.

use std::time::Duration;

use serde_json::Value;
use world::http::ApiError;
use world::ledger::Ledger;
use world::wait::Deadline;

use crate::stage::{Stage, post, receipt, sale};

const LIMIT: Duration = Duration::from_mins(2);

/// Reads the ledger until it holds `count` documents of tills.
async fn ledger(stage: &Stage, count: usize) -> Ledger {
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    while ledger.stubs.len() < count {
        deadline.rest_for(&format!("{count} documents in the ledger")).await;
        // A hub that is down just now is asked again; one that went back to an earlier copy wants a reader to start anew.
        if let Err(ApiError::Status { status: 410, .. }) = ledger.read_on(&stage.hub.api()).await {
            ledger = Ledger::default();
        }
    }
    assert_eq!(ledger.faults, Vec::<String>::new());
    ledger
}

#[tokio::test]
async fn the_same_sale_twice_and_at_once_is_one_record_with_one_receipt() {
    let stage = Stage::new().await;
    let api = stage.agent.api();
    let document = sale(1, 499);
    let (one, two) = tokio::join!(post(&api, &document), post(&api, &document));
    let three = post(&api, &document).await;
    let mut statuses = [one.status, two.status, three.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 201]);
    let [one, two, three] = [one, two, three].map(|answer| receipt(&answer));
    let place = |receipt: &counterfoil::answer::Receipt| (receipt.epoch.clone(), receipt.seq, receipt.digest.clone());
    assert_eq!(place(&one), place(&two));
    assert_eq!(place(&one), place(&three));
    let ledger = ledger(&stage, 1).await;
    assert_eq!(ledger.kinds.get("transaction"), Some(&1));
}

#[tokio::test]
async fn another_content_is_a_conflict_that_is_kept_once() {
    let stage = Stage::new().await;
    let api = stage.agent.api();
    let first = receipt(&post(&api, &sale(1, 499)).await);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = post(&api, &sale(1, 500)).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        answers.push(serde_json::from_slice::<Value>(&answer.body).unwrap());
    }
    assert!(answers.windows(2).all(|pair| pair.first() == pair.last()), "{answers:?}");
    let existing = answers.first().and_then(|answer| answer.get("existing")?.get("seq")?.as_u64());
    assert_eq!(existing, Some(first.seq));
    stage.agent.drained(LIMIT).await;
    // What is stored gets its position a moment later.
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    while ledger.kinds.get("transaction").is_none_or(|count| *count < 2) {
        deadline.rest_for("the first and the other one in the ledger").await;
        ledger.read_on(&stage.hub.api()).await.unwrap();
    }
    assert_eq!(ledger.kinds.get("transaction"), Some(&2), "the first, and the other one once");
    let totals: Value = stage.hub.api().json("/v1/totals?store=0042&business_day=2026-11-23").await.unwrap();
    let gross = totals.pointer("/currencies/0/gross").and_then(Value::as_str);
    assert_eq!(gross, Some("4.99"), "{totals}");
}

#[tokio::test]
async fn a_lost_state_store_changes_no_answer() {
    let mut stage = Stage::new().await;
    let api = stage.agent.api();
    for number in 1..=20 {
        assert_eq!(post(&api, &sale(number, number)).await.status, 201);
    }
    stage.agent.drained(LIMIT).await;
    let paths = ["/v1/stock/85123A", "/v1/days/2026-11-23", "/v1/receipts/1/2026-11-23/7", "/v1/exceptions"];
    let mut before = Vec::new();
    for path in paths {
        before.push(api.json::<Value>(path).await.unwrap());
    }
    stage.agent.stop().await;
    stage.hub.stop().await;
    std::fs::remove_dir_all(stage.agent.data_dir().join("state")).unwrap();
    stage.agent.start();
    stage.agent.ready().await;
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(api.json::<Value>(path).await.unwrap(), before, "{path}");
    }
    let again = receipt(&post(&api, &sale(7, 7)).await);
    assert!(again.duplicate);
}

#[tokio::test]
async fn a_hub_restored_to_an_earlier_copy_is_whole_again() {
    let mut stage = Stage::new().await;
    let api = stage.agent.api();
    for number in 1..=30 {
        post(&api, &sale(number, number)).await;
        if number == 10 {
            stage.agent.drained(LIMIT).await;
        }
    }
    ledger(&stage, 10).await;
    let backup = stage.postgres.backup().await;
    for number in 31..=60 {
        post(&api, &sale(number, number)).await;
    }
    ledger(&stage, 60).await;
    // Nobody touches the store: the hub's database goes back, the hub starts anew, and the agent is asked for the rest.
    stage.hub.kill();
    stage.postgres.restore(&backup).await;
    stage.hub.start();
    stage.hub.ready().await;
    let whole = ledger(&stage, 60).await;
    assert_eq!(whole.stubs.len(), 60);
}

#[tokio::test]
async fn a_database_restored_under_a_running_hub_is_whole_again() {
    let mut stage = Stage::new().await;
    let api = stage.agent.api();
    for number in 1..=10 {
        post(&api, &sale(number, number)).await;
    }
    ledger(&stage, 10).await;
    let backup = stage.postgres.backup().await;
    for number in 11..=40 {
        post(&api, &sale(number, number)).await;
    }
    ledger(&stage, 40).await;
    // Hub, broker and agent run on, and no till sells: the hub itself has to notice.
    stage.postgres.restore(&backup).await;
    let whole = ledger(&stage, 40).await;
    assert_eq!(whole.stubs.len(), 40);
}

#[tokio::test]
async fn a_till_does_not_notice_a_broker_that_is_gone() {
    let mut stage = Stage::new().await;
    let api = stage.agent.api();
    stage.broker.kill();
    stage.broker.wipe();
    for number in 1..=50 {
        assert_eq!(post(&api, &sale(number, 100)).await.status, 201);
    }
    stage.agent.kill();
    stage.agent.start();
    stage.agent.ready().await;
    stage.broker.start().await;
    ledger(&stage, 50).await;
    assert!(stage.directory().is_dir());
}
