//! A hub restored from yesterday's backup (`pg_dump`, `pg_restore`), while the broker stays up and the stores sell: whole again by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use world::checkout::Checkout;
use world::checkout::judge::Look;
use world::checkout::verdict::{named, read};
use world::wait::Deadline;

use crate::stage::Stage;

const LIMIT: Duration = Duration::from_mins(3);

/// Reads the ledger anew until it holds what the tills were told.
async fn whole(stage: &Stage, checkout: &Checkout) {
    let deadline = Deadline::new(LIMIT);
    let told = checkout.stubs();
    loop {
        // A reader whose cursor is refused starts anew; `read` always does.
        if let Ok(ledger) = read(&stage.hub.api(), told.len()).await {
            let has: BTreeSet<&String> = ledger.stubs.keys().collect();
            if told.keys().all(|key| has.contains(key)) {
                assert_eq!(ledger.faults, Vec::<String>::new());
                assert_eq!(ledger.stubs, told, "each where its till was told");
                return;
            }
        }
        deadline.rest_for("the hub to be whole again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_a_dump_is_whole_again_without_anybody_at_the_store() {
    let mut stage = Stage::new().await;
    let mut checkout = Checkout::new("0042", 3, 16);
    // Yesterday: sales, and the dump of the night, taken while the hub runs.
    assert_eq!(checkout.sell(&stage.agent, Some(200)).await, Vec::<String>::new());
    whole(&stage, &checkout).await;
    let dump = stage.postgres.dump("ledger");
    // Today: more of them, and some over a restart of the agent.
    assert_eq!(checkout.sell(&stage.agent, Some(200)).await, Vec::<String>::new());
    stage.agent.kill();
    stage.agent.start();
    stage.agent.ready().await;
    assert_eq!(checkout.sell(&stage.agent, Some(200)).await, Vec::<String>::new());
    whole(&stage, &checkout).await;
    let before: serde_json::Value =
        stage.hub.api().json("/v1/totals?store=0042&business_day=2026-11-23").await.unwrap();

    // The disaster. The broker runs on, the agent stays connected to it, the tills go on selling.
    stage.hub.kill();
    stage.postgres.restore_dump("ledger", &dump).await;
    assert_eq!(checkout.sell(&stage.agent, Some(50)).await, Vec::<String>::new());
    stage.hub.start();
    stage.hub.ready().await;
    whole(&stage, &checkout).await;

    let after: serde_json::Value = stage.hub.api().json("/v1/totals?store=0042&business_day=2026-11-23").await.unwrap();
    assert_ne!(before, after, "the sales of the outage are counted too");
    // What the agent itself counts agrees with its tills.
    let findings = checkout.judge(&stage.agent, Look::Newest(usize::MAX)).await;
    assert_eq!(findings.faults, Vec::<String>::new());
    let mut codes = named(&stage.hub.api(), "0042").await.unwrap();
    // A kill in the middle of a write may leave bytes of which nobody was told.
    codes.retain(|code| code != "TAIL_CUT");
    assert_eq!(codes, Vec::<String>::new());
}
