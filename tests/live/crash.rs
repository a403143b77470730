//! The small form of the kills (`--bin crash`): with the hub's own broker and `SQLite`, and with real servers that are killed too.

use world::crash::{Options, crashes};

async fn run(servers: bool) {
    let options = Options { cycles: 30, seed: 3, servers, progress: |_| () };
    let figures = Box::pin(crashes(&options)).await;
    assert!(figures.is_clean() && figures.cycles == options.cycles, "{}", figures.text());
    assert!(figures.agent.0 > 5 && figures.hub > 2, "too little was killed\n{}", figures.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receipt_is_lost_when_agent_and_hub_are_killed() {
    run(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receipt_is_lost_when_broker_and_database_are_killed_too() {
    run(true).await;
}
