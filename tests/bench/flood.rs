//! An honest till's sales while one peer floods: percentiles beside those of quiet stretches of the same run.
//!
//! The flood is a process of its own with the lowest priority: a real one would not take this machine's processor for its own work. The agent has
//! the limits that it has by default.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use counterfoil_config::tls::ClientFiles;
use world::agent::{Agent, Mqtt};
use world::flood::{Flood, Plan};
use world::http::Api;
use world::pki::{Identity, Pki};
use world::process::{Process, free_port, more_descriptors, write_file};
use world::wait::rest;

use super::{mib, sale, say};

const TOKENS: &str = "till 0123456789abcdef workstation=1\nother fedcba9876543210 workstation=2\n";
/// Between two sales; one till alone is never so fast.
const SALE_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
enum Kind {
    /// Without a token, so that every request is refused.
    Stranger,
    /// Sales of a till with a token of its own, which are recorded as far as its budget goes.
    Till,
}

/// The flood of one peer.
#[derive(Debug, clap::Args)]
pub(crate) struct From {
    /// The agent.
    #[arg(long)]
    target: SocketAddr,
    /// With TLS, whose certificate that authority signs.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Sales instead of requests without a token.
    #[arg(long)]
    sells: bool,
}

/// Floods until it is killed.
pub(crate) async fn from(from: &From) {
    more_descriptors();
    let config = from.ca_file.as_ref().map(|file| {
        let files = ClientFiles { ca_file: file.clone(), identity: None };
        Arc::new(files.read().expect("the authority's file"))
    });
    let request = if from.sells {
        let body = sale(2, 1);
        format!(
            "POST /v1/transactions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer fedcba9876543210\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    } else {
        "GET /v1/status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer guessed\r\n\r\n".to_owned()
    };
    let source = IpAddr::from([127, 0, 1, 1]);
    let (tls, request) = (config, request.into_bytes());
    let plan = Plan { target: from.target, source, tls, dribbling: 1_000, asking: 32, opening: 2, request };
    let _flood = Flood::begin(&plan);
    std::future::pending::<()>().await;
}

/// Measures, and prints.
pub(crate) async fn measure(rounds: u32, stretch: Duration) {
    let pki = Pki::new();
    let server = pki.server();
    for (name, tls) in [("plain", None), ("TLS", Some(&server))] {
        for (flood, kind) in [("of a stranger", Kind::Stranger), ("of another till's sales", Kind::Till)] {
            println!("{name}, a flood {flood}: 1,000 dribbling sockets, 32 that ask and 2 that connect without end");
            compare(tls, kind, rounds, stretch).await;
        }
    }
}

async fn compare(tls: Option<&Identity>, kind: Kind, rounds: u32, stretch: Duration) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_file(&directory.path().join("tokens"), TOKENS);
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    more_descriptors();
    let mut agent = Agent::guarded(directory.path(), "0042", "box1", &mqtt, "tokens_file = \"tokens\"\n", tls);
    agent.start();
    agent.ready().await;
    let api = agent.api().with_token("0123456789abcdef");
    let mut number = 0;
    sell(&api, &mut number, Duration::from_secs(2)).await;
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let calm = sell(&api, &mut number, stretch).await;
        let flood = begin(directory.path(), agent.address(), tls, kind);
        let attacked = sell(&api, &mut number, stretch).await;
        drop(flood);
        say(&format!("  round {round}: quiet, flooded"), figures(&calm, &attacked));
        quiet.extend(calm);
        flooded.extend(attacked);
        // What the flood left in the agent's queues is not the next quiet stretch's.
        rest(Duration::from_secs(2)).await;
    }
    say("  all rounds: quiet, flooded", figures(&quiet, &flooded));
    say("  agent: resident at the peak", mib(agent.process().expect("running").resident_bytes_peak()));
    let metrics = String::from_utf8(api.success("/metrics").await.expect("the agent answers").body).expect("text");
    for line in metrics.lines().filter(|line| line.starts_with("counterfoil_http_connections_")) {
        let (name, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        say(&format!("  {name}"), value);
    }
}

fn begin(directory: &Path, target: SocketAddr, tls: Option<&Identity>, kind: Kind) -> Process {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(std::env::current_exe().expect("the path of this program")).arg("flood-from");
    command.args(["--target", &target.to_string()]);
    if let Some(identity) = tls {
        command.arg("--ca-file").arg(&identity.ca_file);
    }
    if matches!(kind, Kind::Till) {
        command.arg("--sells");
    }
    Process::start("flood", command, &directory.join("flood.log"))
}

/// How long each of a till's sales took, one after the other.
async fn sell(api: &Api, number: &mut u64, during: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < during {
        let body = sale(1, *number).into_bytes();
        *number += 1;
        let asked = Instant::now();
        let answer = api.post("/v1/transactions", "application/json", body).await.expect("an honest till is answered");
        took.push(asked.elapsed());
        assert!(answer.is_success(), "{} {}", answer.status, answer.text());
        rest(SALE_EVERY).await;
    }
    took
}

fn figures(quiet: &[Duration], flooded: &[Duration]) -> String {
    let [calm, attacked] = [quiet, flooded].map(|took| {
        let mut sorted = took.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        (at(50), at(99), sorted.len())
    });
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    format!(
        "p50 {:.2?}, {:.2?} (x{:.2}); p99 {:.2?}, {:.2?} (x{:.2}); {} and {} sales",
        calm.0,
        attacked.0,
        ratio(attacked.0, calm.0),
        calm.1,
        attacked.1,
        ratio(attacked.1, calm.1),
        calm.2,
        attacked.2
    )
}
