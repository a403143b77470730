//! A person has a range of old records sent again: first a dry run, then an order; and no total moves.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use world::bin::bin;
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(2);
const SIX_DAYS_MS: i64 = 6 * 86_400_000;

fn hub(stage: &Stage, arguments: &[&str]) -> String {
    let mut command = Command::new(bin("counterfoil-hub"));
    command.arg(arguments[0]).arg("--config").arg(stage.hub.config()).args(&arguments[1..]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_six_days_old_comes_again_after_a_dry_run_and_changes_no_total() {
    let mut stage = Stage::new().await;
    for number in 1..=30 {
        assert_eq!(post(&stage.agent.api(), &sale(number, 1_000 + number)).await.status, 201);
    }
    stage.agent.drained(LIMIT).await;
    let ledger = stage.postgres.client("ledger").await.unwrap();
    let trade = "SELECT COUNT(*) FROM records r JOIN streams s ON s.stream = r.stream WHERE s.lane = 0";
    let old: i64 = ledger.query_one(trade, &[]).await.unwrap().get(0);
    ledger.execute("UPDATE records SET received_at = received_at - $1", &[&SIX_DAYS_MS]).await.unwrap();
    // Another life of the box, with sales of today.
    stage.agent.stop().await;
    stage.agent.start();
    stage.agent.ready().await;
    for number in 31..=35 {
        post(&stage.agent.api(), &sale(number, 1_000)).await;
    }
    stage.agent.drained(LIMIT).await;
    let path = "/v1/totals?store=0042&business_day=2026-11-23";
    let deadline = Deadline::new(LIMIT);
    let mut totals: Value = stage.hub.api().json(path).await.unwrap();
    while totals["currencies"][0]["transactions"] != 35 {
        deadline.rest_for(&format!("the sales are posted: {totals}")).await;
        totals = stage.hub.api().json(path).await.unwrap();
    }

    let now: i64 = ledger.query_one("SELECT MAX(received_at) FROM records", &[]).await.unwrap().get(0);
    let day = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    let (from, to) = (day(now - SIX_DAYS_MS - 43_200_000), day(now - SIX_DAYS_MS + 43_200_000));
    let wanted =
        ["replay", "--store", "0042", "--agent", "box1", "--from", &from, "--to", &to, "--lane", "trade"].to_vec();
    assert_eq!(hub(&stage, &["replays"]), "Nothing was ordered yet.\n");
    let dry = hub(&stage, &wanted);
    let all_of_it = format!("trade: 1 to {old}, {old} here, 0 not");
    assert!(old >= 30 && dry.contains(&all_of_it) && dry.contains("Nothing was ordered"), "{dry}");
    assert_eq!(dry.lines().count(), 3, "today's sales are not of that time: {dry}");
    assert_eq!(hub(&stage, &["replays"]), "Nothing was ordered yet.\n");

    let order = [&wanted[..], &["--order", "--by", "Ann", "--reason", "the ERP lost a day"]].concat();
    assert!(hub(&stage, &order).contains("Ordered."));
    let deadline = Deadline::new(LIMIT);
    let mut shown = hub(&stage, &["replays"]);
    while !shown.contains(&format!("{old} came again, 0 new")) {
        deadline.rest_for(&format!("the records come again: {shown}")).await;
        shown = hub(&stage, &["replays"]);
    }
    assert!(shown.contains("by Ann: the ERP lost a day"), "{shown}");
    let after: Value = stage.hub.api().json(path).await.unwrap();
    assert_eq!(after, totals);
}
