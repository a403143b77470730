//! The examples for who writes a till (`config/examples`), run as they are against a real agent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use world::agent::{Agent, Mqtt};
use world::process::{Process, free_port};
use world::wait::Deadline;

const LIMIT: Duration = Duration::from_mins(2);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples").join(name)
}

/// An agent that is not started; its hub is away, which tills do not notice.
fn agent(directory: &Path) -> Agent {
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    Agent::new(&directory.join("agent"), "0042", "box1", &mqtt, "")
}

/// What the day comes to: ten counted, two sold, one brought back, one held.
async fn check_day(agent: &Agent) {
    let api = agent.api();
    let stock: Value = api.json("/v1/stock/85123A").await.unwrap();
    assert_eq!((&stock["on_hand"], &stock["reserved"], &stock["available"]), (&"9".into(), &"1".into(), &"8".into()));
    let day: Value = api.json("/v1/days/2026-11-23").await.unwrap();
    let totals = &day["currencies"][0];
    assert_eq!((&totals["gross"], &totals["transactions"]), (&"4.49".into(), &2.into()), "{day}");
    let exceptions: Value = api.json("/v1/exceptions").await.unwrap();
    assert_eq!(exceptions, Value::Array(Vec::new()), "an example should not need a person");
}

/// Python, once for the outbox in `directory`.
fn till(agent: &Agent, directory: &Path) -> Process {
    let mut command = Command::new("python3");
    command.arg(example("till.py")).args(["--url", &agent.url(), "--outbox"]).arg(directory.join("outbox"));
    Process::start("till.py", command, &directory.join("till.log"))
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn the_shell_examples_sell_a_day_twice_over_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = agent(directory.path());
    agent.start();
    agent.ready().await;
    for name in ["curl.sh", "till.sh", "till.sh", "curl.sh"] {
        let mut command = Command::new("sh");
        command.arg(example(name)).arg(agent.url());
        let mut shell = Process::start(name, command, &directory.path().join("shell.log"));
        let status = shell.end(LIMIT).await;
        assert!(status.success(), "{name}: {}", shell.output());
        assert!(shell.output().contains("\"on_hand\":\"9\""), "{name}: {}", shell.output());
        check_day(&agent).await;
    }
}

#[tokio::test]
async fn the_python_till_outlives_an_agent_that_is_away_and_its_own_memory() {
    let directory = tempfile::tempdir().unwrap();
    let [outbox, answers] = ["outbox", "outbox.answers"].map(|name| directory.path().join(name));
    let mut agent = agent(directory.path());
    // The agent is down: everything is in the outbox, and nothing is answered.
    let mut first = till(&agent, directory.path());
    let deadline = Deadline::new(LIMIT);
    while lines(&outbox).len() < 4 {
        first.wait_on(deadline, "an outbox with the whole day").await;
    }
    assert_eq!(lines(&answers), Vec::<Value>::new());
    agent.start();
    agent.ready().await;
    assert!(first.end(LIMIT).await.success(), "{}", first.output());
    let receipts = lines(&answers);
    assert!(receipts.len() == 4 && receipts.iter().all(|answer| answer["status"] == 201), "{receipts:?}");
    check_day(&agent).await;

    // A power cut of the till in the middle of writing an answer, and one of the agent: the rest goes again, with the same receipts.
    let text = std::fs::read_to_string(&answers).unwrap();
    let second = text.lines().nth(1).unwrap();
    let torn = text.find(second).unwrap() + second.len() / 2;
    std::fs::write(&answers, &text[..torn]).unwrap();
    agent.kill();
    agent.start();
    agent.ready().await;
    let mut again = till(&agent, directory.path());
    assert!(again.end(LIMIT).await.success(), "{}", again.output());
    let statuses: Vec<Value> = lines(&answers).iter().map(|answer| answer["status"].clone()).collect();
    assert_eq!(statuses, [201, 200, 200, 200]);
    for (before, now) in receipts.iter().zip(lines(&answers)) {
        for part in ["epoch", "lane", "seq", "digest"] {
            assert_eq!(before["answer"][part], now["answer"][part], "{part}");
        }
    }
    check_day(&agent).await;
}
