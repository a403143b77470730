//! One peer with a thousand dribbling sockets and requests without end, against the real agent with the limits that it has by default: an
//! honest till is answered every time, the limits bite, memory stays flat. How long the till waits is `bench flood`'s to measure.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use counterfoil_config::tls::ClientFiles;
use world::agent::{Agent, Mqtt};
use world::flood::{Flood, Plan};
use world::http::Api;
use world::pki::{Identity, Pki};
use world::process::{free_port, more_descriptors, write_file};
use world::wait::{Deadline, rest};

use crate::stage::sale;

const TOKENS: &str = "till 0123456789abcdef workstation=1\n";

/// What a flood may cost beyond what the agent has anyway: its share of the connections, and what the allocator keeps of them.
const MORE_BYTES_MAX: u64 = 48 << 20;

/// An agent with its default limits; its hub is away, which tills do not notice.
async fn agent(directory: &std::path::Path, tls: Option<&Identity>) -> Agent {
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    write_file(&directory.join("tokens"), TOKENS);
    let mut agent = Agent::guarded(directory, "0042", "box1", &mqtt, "tokens_file = \"tokens\"\n", tls);
    agent.start();
    agent.ready().await;
    agent
}

/// A till sells for a while, ten times a second; how much it sold.
async fn sell(api: &Api, from: u64, during: Duration) -> u64 {
    let deadline = Deadline::new(during);
    let mut number = from;
    while deadline.rest().await {
        let body = sale(number, 499).to_string().into_bytes();
        let answer = api.post("/v1/transactions", "application/json", body).await;
        let answer = answer.unwrap_or_else(|error| panic!("sale {number}: {error}"));
        assert_eq!(answer.status, 201, "sale {number}: {}", answer.text());
        number += 1;
        rest(Duration::from_millis(90)).await;
    }
    number - from
}

async fn counted(api: &Api, name: &str) -> u64 {
    let text = String::from_utf8(api.success("/metrics").await.unwrap().body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

async fn flooded(tls: Option<&Identity>) {
    more_descriptors();
    let directory = tempfile::tempdir().unwrap();
    let mut agent = agent(directory.path(), tls).await;
    let api = agent.api().with_token("0123456789abcdef");
    sell(&api, 1, Duration::from_secs(1)).await;
    let before = agent.process().unwrap().resident_bytes_peak();
    let config = tls.map(|identity| ClientFiles { ca_file: identity.ca_file.clone(), identity: None }.read().unwrap());
    let begun = Instant::now();
    let flood = Flood::begin(&Plan {
        target: agent.address(),
        source: IpAddr::from([127, 0, 1, 1]),
        tls: config.map(Arc::new),
        dribbling: 1_000,
        asking: 16,
        opening: 2,
        request: b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer guessed\r\n\r\n".to_vec(),
    });
    let sold = sell(&api, 1_000, Duration::from_secs(6)).await;
    assert!(sold > 10, "{sold}");
    // A till that comes only now is served as well.
    let late = agent.api().with_token("0123456789abcdef");
    assert!(sell(&late, 2_000, Duration::from_secs(2)).await > 3);
    assert!(counted(&api, "counterfoil_http_connections").await <= 64 + 8, "the flood has its share and no more");
    for (limit, least) in [("connections_given_up", 100), ("connections_refused", 32), ("peers_shut_out", 1)] {
        assert!(counted(&api, &format!("counterfoil_http_{limit}_total")).await >= least, "{limit}");
    }
    let (answers, refusals) = (flood.got.answers.load(Ordering::Relaxed), flood.got.refusals.load(Ordering::Relaxed));
    let answers_max = 1_000 + 200 * (begun.elapsed().as_secs() + 1);
    // With TLS the connections alone use the budget up, so that hardly a request comes as far as being refused.
    assert!(
        answers <= answers_max && (refusals > 0 || tls.is_some()),
        "{answers} answers of {answers_max}, {refusals} refusals"
    );
    let peak = agent.process().unwrap().resident_bytes_peak();
    assert!(peak < before + MORE_BYTES_MAX, "{} KiB more", (peak - before) >> 10);
    drop(flood);
    assert!(sell(&api, 3_000, Duration::from_secs(1)).await > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_till_is_answered_every_time_while_another_peer_floods() {
    flooded(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_so_it_is_with_tls() {
    flooded(Some(&Pki::new().server())).await;
}
