//! `bench`: figures beside their yardsticks, taken in the same run.
//!
//! `bench backlog` takes a million sales while the broker is down, starts the agent again with all of them on board, and drains them
//! into `PostgreSQL`. `bench ingest` posts single sales over many connections. `bench flood` has one peer flood the agent, and measures how long
//! another one's sales take meanwhile.
//!
//! Invariant: every figure is printed beside that of a yardstick which does the least that could be done on the same machine in the same
//! minute: a bare append and `fdatasync` for what is accepted, rows made on the database server for what is drained. Nothing here passes or fails.

#![expect(clippy::print_stdout, reason = "a program for people says what it does")]
#![expect(clippy::cast_precision_loss, reason = "figures for people, to three digits")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use counterfoil::answer::Status;
use serde_json::json;
use world::agent::{Agent, Mqtt};
use world::broker::Broker;
use world::http::Api;
use world::hub::Hub;
use world::postgres::Postgres;
use world::process::free_port;
use world::wait::{Deadline, rest};

const STORE: &str = "0042";
const BATCH: u64 = 1_000;
const ITEMS: u64 = 20_000;

/// Measures Counterfoil beside yardsticks.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Accepts a backlog with the broker down, restarts the agent with it, and drains it into `PostgreSQL`.
    Backlog {
        /// Documents.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Connections that post at once.
        #[arg(long, default_value_t = 4)]
        connections: u64,
    },
    /// Posts single sales over many connections.
    Ingest {
        /// Documents.
        #[arg(long, default_value_t = 20_000)]
        records: u64,
        /// Connections that post at once.
        #[arg(long, default_value_t = 64)]
        connections: u64,
    },
    /// Measures a till's sales while nothing else happens and while another peer floods, in turn; plain and with TLS.
    Flood {
        /// Pairs of a quiet and a flooded stretch, of each kind.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Of each stretch.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// The flood of `flood`, as a process of its own.
    #[command(hide = true)]
    FloodFrom(flood::From),
}

mod flood;

#[tokio::main]
async fn main() {
    match Arguments::parse().what {
        What::Backlog { records, connections } => backlog(records, connections).await,
        What::Ingest { records, connections } => ingest(records, connections).await,
        What::Flood { rounds, seconds } => flood::measure(rounds, Duration::from_secs(seconds)).await,
        What::FloodFrom(from) => flood::from(&from).await,
    }
}

fn say(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<58} {figure}");
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn backlog(records: u64, connections: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut broker = Broker::plain().await;
    broker.stop().await;
    let mqtt = Mqtt { url: broker.url(), identity: None };
    let more = "[journal]\nretain = \"0s\"\nbytes_max = \"8GiB\"\ncheckpoint_interval = \"1s\"\n";
    let mut agent = Agent::new(&directory.path().join("agent"), STORE, "box1", &mqtt, more);
    agent.start();
    agent.ready().await;
    say("agent: resident at rest", mib(agent.process().expect("running").resident_bytes()));

    let begun = Instant::now();
    post_all(&agent.api(), records, connections, BATCH).await;
    let took = begun.elapsed();
    let status: Status = agent.status().await.expect("the agent answers");
    say(
        "accepted, NDJSON of 1,000, broker down",
        format!("{records} in {took:.1?}: {:.0}/s", per_second(records, took)),
    );
    say("agent: resident at the peak of the backlog", mib(agent.process().expect("running").resident_bytes_peak()));
    say("agent: syncs, bytes written", format!("{}, {}", status.disk.syncs, mib(status.disk.bytes_written)));
    let bare = bare_append(directory.path(), status.disk.bytes_written, status.disk.syncs.max(1));
    say(
        "yardstick: bare append of as many bytes and syncs",
        format!("{bare:.1?}; accepting took {:.1} times as long", took.as_secs_f64() / bare.as_secs_f64()),
    );
    say("disk before draining", mib(size(&agent.data_dir())));

    agent.kill();
    let cold = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    let begun = Instant::now();
    agent.start();
    agent.ready().await;
    say(
        &format!("ready with the whole backlog ({} cache, after SIGKILL)", if cold { "cold" } else { "warm" }),
        format!("{:.0?}", begun.elapsed()),
    );
    say("agent: resident after the start", mib(agent.process().expect("running").resident_bytes()));

    drain(directory.path(), &mut agent, &mut broker, &mqtt, records).await;
}

/// Lets the backlog drain into a database, from the moment in which the hub answers.
async fn drain(directory: &Path, agent: &mut Agent, broker: &mut Broker, mqtt: &Mqtt, records: u64) {
    let postgres = Postgres::new().await;
    let ledger = postgres.create_database("ledger").await;
    let mut hub = Hub::new(&directory.join("hub"), "hub1", mqtt, &ledger, "");
    broker.start().await;
    hub.start();
    hub.ready().await;
    while agent.status().await.is_none_or(|status| !status.uplink.welcomed) {
        rest(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    agent.drained(Duration::from_mins(10)).await;
    let took = begun.elapsed();
    say("drained into the ledger (stored, acknowledged)", format!("{took:.1?}: {:.0}/s", per_second(records, took)));
    let posted = posted(&hub.api(), records).await;
    let took = begun.elapsed();
    say(
        "drained and posted (positions, totals)",
        format!("{posted} in {took:.1?}: {:.0}/s", per_second(records, took)),
    );
    say("agent: resident at the peak since its start", mib(agent.process().expect("running").resident_bytes_peak()));
    say("hub: resident at the peak", mib(hub.process().expect("running").resident_bytes_peak()));
    let status: Status = agent.status().await.expect("the agent answers");
    say(
        "on the wire",
        format!(
            "{}, {:.0} bytes a record, {} batches, {} sent again",
            mib(status.uplink.bytes_sent),
            status.uplink.bytes_sent as f64 / records as f64,
            status.uplink.batches_sent,
            status.uplink.batches_resent
        ),
    );
    let bare = bare_copy(&postgres, records).await;
    say(
        "yardstick: PostgreSQL alone, as many 700-byte rows made on the server",
        format!("{bare:.1?}: {:.0}/s", per_second(records, bare)),
    );
    let deadline = Deadline::new(Duration::from_secs(30));
    while agent.status().await.is_some_and(|status| status.disk.segments > 2) && deadline.rest().await {}
    say("disk after draining", mib(size(&agent.data_dir())));
}

async fn ingest(records: u64, connections: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    let mut agent = Agent::new(&directory.path().join("agent"), STORE, "box1", &mqtt, "");
    agent.start();
    agent.ready().await;
    let begun = Instant::now();
    post_all(&agent.api(), records, connections, 1).await;
    let took = begun.elapsed();
    let status: Status = agent.status().await.expect("the agent answers");
    say(
        &format!("accepted one by one over {connections} connections"),
        format!("{records} in {took:.1?}: {:.0}/s", per_second(records, took)),
    );
    say("syncs", format!("{}: {:.1} sales each", status.disk.syncs, records as f64 / status.disk.syncs as f64));
    let bare = bare_append(directory.path(), status.disk.bytes_written, status.disk.syncs.max(1));
    say(
        "yardstick: bare append of as many bytes and syncs",
        format!("{bare:.1?}; accepting took {:.1} times as long", took.as_secs_f64() / bare.as_secs_f64()),
    );
}

async fn post_all(api: &Api, records: u64, connections: u64, batch: u64) {
    let share = records / connections;
    let posting: Vec<_> = (0..connections)
        .map(|connection| {
            let api = Api::new(api.base());
            tokio::spawn(async move {
                let mut number = 0;
                while number < share {
                    let count = batch.min(share - number);
                    let body: String = (number..number + count).map(|number| sale(connection, number)).collect();
                    let kind = if batch == 1 { "application/json" } else { "application/x-ndjson" };
                    let answer =
                        api.post("/v1/transactions", kind, body.into_bytes()).await.expect("the agent answers");
                    assert!(answer.is_success(), "{} {}", answer.status, answer.text());
                    number += count;
                }
            })
        })
        .collect();
    for connection in posting {
        connection.await.expect("a connection posts to the end");
    }
}

fn sale(till: u64, number: u64) -> String {
    let cents = 100 + number * 7 % 900;
    let price = format!("{}.{:02}", cents / 100, cents % 100);
    let day = 1 + number / 20_000 % 28;
    let document = json!({
        "workstation_id": till.to_string(), "business_day_date": format!("2026-10-{day:02}"), "sequence_number": number, "type": "sale",
        "end_date_time": format!("2026-10-{day:02}T{:02}:{:02}:{:02}+01:00", 8 + number / 3600 % 12, number / 60 % 60, number % 60),
        "operator_id": (number % 17).to_string(), "currency_code": "EUR",
        "line_items": [{"line": 1, "kind": "sale", "item_id": format!("{:05}", number * 31 % ITEMS), "quantity": "1", "unit": "EA",
            "actual_unit_price": price, "extended_amount": price}],
        "tenders": [{"line": 1, "type": "card", "amount": price}], "totals": {"gross": price},
    });
    format!("{document}\n")
}

/// The least that durable acceptance could cost: as many bytes, preallocated, in as many writes, each followed by a sync.
fn bare_append(directory: &Path, bytes: u64, syncs: u64) -> Duration {
    let path = directory.join("yardstick");
    let mut file = File::create(&path).expect("a file of our own");
    let each = usize::try_from(bytes / syncs).expect("a group fits memory").max(1);
    let group = vec![0xA5_u8; each];
    let begun = Instant::now();
    for _ in 0..syncs {
        file.write_all(&group).expect("writing a file of our own");
        file.sync_data().expect("syncing a file of our own");
    }
    let took = begun.elapsed();
    fs::remove_file(path).expect("removing a file of our own");
    took
}

async fn posted(hub: &Api, records: u64) -> u64 {
    let deadline = Deadline::new(Duration::from_mins(10));
    loop {
        let mut sum = 0;
        for day in 1..=28 {
            let path = format!("/v1/totals?store={STORE}&business_day=2026-10-{day:02}");
            let totals: serde_json::Value = hub.json(&path).await.unwrap_or_default();
            let currencies = totals["currencies"].as_array().cloned().unwrap_or_default();
            sum += currencies.iter().filter_map(|currency| currency["transactions"].as_u64()).sum::<u64>();
        }
        if sum >= records || !deadline.rest().await {
            return sum;
        }
    }
}

async fn bare_copy(postgres: &Postgres, records: u64) -> Duration {
    let client = postgres.client("ledger").await.expect("the server accepts connections");
    client
        .batch_execute("CREATE TABLE yardstick (id bigint PRIMARY KEY, bytes bytea NOT NULL)")
        .await
        .expect("a table of our own");
    let begun = Instant::now();
    let rows = format!(
        "INSERT INTO yardstick SELECT i, convert_to(repeat(md5(i::text), 22), 'UTF8') FROM generate_series(1, {records}) AS i"
    );
    client.batch_execute(&rows).await.expect("rows of our own");
    begun.elapsed()
}

fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| {
        let metadata = entry.metadata();
        metadata.map_or(0, |metadata| if metadata.is_dir() { size(&entry.path()) } else { metadata.blocks() * 512 })
    });
    sizes.sum()
}
