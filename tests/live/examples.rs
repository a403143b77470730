//! The examples for who writes a till (`config/examples`), run as they are against a real agent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use world::agent::{Agent, Mqtt};
use world::bin::bin;
use world::pki::{Identity, Pki};
use world::process::{Process, free_port, write_file};
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

/// On the LAN: over TLS, by a token, by a certificate; and the command line likewise.
#[tokio::test]
async fn the_examples_and_the_command_line_speak_tls_and_say_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let (server, till3, till4) = (pki.server(), pki.client("3"), pki.client("4"));
    let at = |name: &str| directory.path().join(name);
    write_file(&at("tokens"), "till3 0123456789abcdef workstation=3\nmanager fedcba9876543210\n");
    write_file(&at("token"), "0123456789abcdef\n");
    write_file(&at("manager"), "fedcba9876543210\n");
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    let ingress = format!("tokens_file = \"tokens\"\nclient_ca_file = {:?}\n", pki.ca_file());
    let mut agent = Agent::guarded(directory.path(), "0042", "box1", &mqtt, &ingress, Some(&server));
    agent.start();
    agent.ready().await;
    let mut shell = Command::new("sh");
    shell.arg(example("till.sh")).arg(agent.url()).env("TOKEN_FILE", at("token")).env("CA_FILE", pki.ca_file());
    let mut shell = Process::start("till.sh", shell, &at("shell.log"));
    assert!(shell.end(LIMIT).await.success(), "{}", shell.output());
    assert!(shell.output().contains("\"on_hand\":\"9\""), "{}", shell.output());
    let python = |outbox: &str, identity: &Identity| {
        let mut command = Command::new("python3");
        command.arg(example("till.py")).args(["--url", &agent.url(), "--outbox"]).arg(at(outbox));
        command.arg("--ca-file").arg(pki.ca_file()).arg("--cert-file").arg(&identity.cert_file);
        command.arg("--key-file").arg(&identity.key_file);
        Process::start("till.py", command, &at(&format!("{outbox}.log")))
    };
    let mut own = python("own", &till3);
    assert!(own.end(LIMIT).await.success(), "{}", own.output());
    let statuses = |outbox: &str| -> Vec<Value> {
        lines(&at(&format!("{outbox}.answers"))).iter().map(|answer| answer["status"].clone()).collect()
    };
    assert_eq!(statuses("own"), [200; 4], "the same documents, by the certificate of that till");
    // Another till's certificate: what names a till is refused, and said to be for a person; a count of stock is nobody's.
    let mut other = python("other", &till4);
    assert!(!other.end(LIMIT).await.success(), "{}", other.output());
    assert_eq!(statuses("other"), [200, 403, 403, 200]);

    let exceptions = |arguments: &[&str], name: &str| {
        let mut command = Command::new(bin("counterfoil"));
        command.args(["exceptions", "--agent", &agent.url()]).args(arguments).arg("--token-file").arg(at("manager"));
        Process::start(name, command, &at(name))
    };
    let ca_file = pki.ca_file().display().to_string();
    let mut asked = exceptions(&["--ca-file", &ca_file], "asked.log");
    assert!(asked.end(LIMIT).await.success(), "{}", asked.output());
    for (arguments, name) in [(&[][..], "without.log"), (&["--ca-file", "/none"], "none.log")] {
        let mut refused = exceptions(arguments, name);
        assert!(
            !refused.end(LIMIT).await.success() && refused.output().contains("ca-file") || name == "none.log",
            "{}",
            refused.output()
        );
    }
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
