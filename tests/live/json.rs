//! `wire.encoding = "json"`: the hub in Python that ships as an example, killed again and again; our own hub, which understands both forms;
//! and the published schemas, held against what really goes over the line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use counterfoil::answer::Receipt;
use counterfoil_proto::id::{Chain, Digest, Epoch, Lane, Seq};
use jsonschema::Validator;
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use world::agent::{Agent, Mqtt};
use world::broker::Broker;
use world::ledger::LedgerRecord;
use world::needs;
use world::process::Process;
use world::wait::Deadline;

use crate::stage::{Stage, post, receipt, sale};

const LIMIT: Duration = Duration::from_mins(2);
const JSON: &str = "[wire]\nencoding = \"json\"\n";
const SALES: u64 = 10_000;
const SALES_A_REQUEST: u64 = 1_000;
/// Records in the ledger at which the hub is killed.
const KILLS: [u64; 3] = [500, 3_000, 6_000];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The published schemas, by their file's name or `$id`.
struct Schemas(BTreeMap<String, Validator>);

impl Schemas {
    fn read() -> Self {
        let mut all = BTreeMap::new();
        for directory in ["wire-v1", "document-v1"] {
            for entry in std::fs::read_dir(root().join("proto/schemas").join(directory)).unwrap() {
                let path = entry.unwrap().path();
                let schema: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let validator =
                    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                all.insert(schema["$id"].as_str().unwrap().to_owned(), validator);
            }
        }
        assert_eq!(all.len(), 9 + 5, "nine messages, five kinds of documents");
        Self(all)
    }

    #[track_caller]
    fn judge(&self, id: &str, value: &Value) {
        let validator = self.0.get(id).unwrap_or_else(|| panic!("no schema {id} for {value}"));
        let faults: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert!(faults.is_empty(), "{id}: {faults:?} in {value}");
    }

    /// Judges a message, and the documents in it; says which message it is.
    fn message(&self, message: &Value) -> String {
        let kind = message["type"].as_str().unwrap_or("state").to_owned();
        self.judge(&format!("urn:counterfoil:schema:wire:v1:{kind}"), message);
        for event in message["records"].as_array().into_iter().flatten() {
            if let Some(schema) = event.get("dataschema") {
                self.judge(schema.as_str().unwrap(), &event["data"]);
            }
        }
        kind
    }
}

#[test]
fn the_kept_vectors_are_what_the_schemas_say() {
    let schemas = Schemas::read();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("proto/fixtures/wire-v1-json")).unwrap() {
        let mut message: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        // Their documents are shortened to nothing.
        for event in message["records"].as_array_mut().into_iter().flatten() {
            event.as_object_mut().unwrap().remove("dataschema");
        }
        seen.insert(schemas.message(&message));
        // A schema that takes anything proves nothing.
        message["session"] = json!("no session");
        message.as_object_mut().unwrap().remove("hub_epoch");
        let id = format!("urn:counterfoil:schema:wire:v1:{}", message["type"].as_str().unwrap());
        assert!(!schemas.0[&id].is_valid(&message), "{id} takes anything");
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
}

/// Everything that goes over a broker, in order, until something is published on `end`.
async fn capture(broker: &Broker) -> tokio::task::JoinHandle<Vec<(String, Vec<u8>)>> {
    async fn next(events: &mut EventLoop) -> Incoming {
        loop {
            let event = tokio::time::timeout(LIMIT, events.poll()).await.expect("the broker speaks in time");
            if let Event::Incoming(incoming) = event.expect("the line to the broker holds") {
                return incoming;
            }
        }
    }
    let mut options = MqttOptions::new("listener", "127.0.0.1", broker.port());
    options.set_max_packet_size(4 << 20, 4 << 20);
    let (client, mut events) = AsyncClient::new(options, 64);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    while !matches!(next(&mut events).await, Incoming::SubAck(_)) {}
    tokio::spawn(async move {
        let _alive = client;
        let mut heard = Vec::new();
        loop {
            if let Incoming::Publish(publish) = next(&mut events).await {
                if publish.topic == "end" {
                    return heard;
                }
                heard.push((publish.topic.clone(), publish.payload.to_vec()));
            }
        }
    })
}

async fn end(broker: &Broker) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("ender", "127.0.0.1", broker.port()), 4);
    client.publish("end", QoS::AtLeastOnce, false, "").await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Incoming::PubAck(_))) {}
}

/// The hub in Python, as the example ships it.
struct PythonHub {
    python: PathBuf,
    directory: PathBuf,
    broker: String,
    process: Option<Process>,
}

impl PythonHub {
    fn new(directory: &Path, broker: &Broker) -> Self {
        let python = needs::python_with_paho();
        let broker = format!("127.0.0.1:{}", broker.port());
        Self { python, directory: directory.to_owned(), broker, process: None }
    }

    fn db(&self) -> PathBuf {
        self.directory.join("hub.db")
    }

    async fn start(&mut self) {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(root().join("config/examples/hub.py"));
        command.args(["run", "--broker", &self.broker, "--db"]).arg(self.db());
        let process = Process::start("hub.py", command, &self.directory.join("hub.py.log"));
        self.process.insert(process).line("listening", LIMIT).await;
    }

    fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    fn ledger(&self) -> Connection {
        let ledger = Connection::open_with_flags(self.db(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        ledger.busy_timeout(LIMIT).unwrap();
        ledger
    }

    fn count(&self, what: &str) -> u64 {
        let count: i64 =
            self.ledger().query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap();
        u64::try_from(count).unwrap()
    }
}

/// A record of its ledger.
struct Row {
    epoch: String,
    lane: String,
    seq: u64,
    digest: String,
    content: String,
    bytes: Vec<u8>,
    chain: String,
    status: String,
}

fn rows(hub: &PythonHub) -> Vec<Row> {
    let ledger = hub.ledger();
    let sql = "SELECT epoch, lane, seq, digest, content, bytes, chain, status FROM records ORDER BY epoch, lane, seq";
    let mut query = ledger.prepare(sql).unwrap();
    let rows = query.query_map([], |row| {
        Ok(Row {
            epoch: row.get(0)?,
            lane: row.get(1)?,
            seq: u64::try_from(row.get::<_, i64>(2)?).unwrap(),
            digest: row.get(3)?,
            content: row.get(4)?,
            bytes: row.get(5)?,
            chain: row.get(6)?,
            status: row.get(7)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_hub_in_python_that_is_killed_has_each_record_once() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::plain().await;
    let mut hub = PythonHub::new(directory.path(), &broker);
    let mqtt = Mqtt { url: broker.url(), identity: None };
    let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, JSON);
    agent.start();
    agent.ready().await;
    // Only now: what had to be installed or built first would hold up the listener until the broker lets go of it.
    let heard = capture(&broker).await;
    let mut receipts: Vec<Receipt> = Vec::new();
    for from in (1..=SALES).step_by(usize::try_from(SALES_A_REQUEST).unwrap()) {
        let sales: Vec<Value> = (from..from + SALES_A_REQUEST).map(|number| sale(number, number)).collect();
        let answer = post(&agent.api(), &Value::Array(sales)).await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        for result in answer["results"].as_array().unwrap() {
            receipts.push(serde_json::from_value(result["receipt"].clone()).unwrap());
        }
    }
    assert_eq!(receipts.len() as u64, SALES);

    hub.start().await;
    for count in KILLS {
        let deadline = Deadline::new(LIMIT);
        while hub.count("records") < count {
            hub.process.as_mut().unwrap().wait_on(deadline, "records in the ledger").await;
        }
        hub.kill();
        assert!(hub.count("records") < SALES, "killed in the middle");
        hub.start().await;
    }
    agent.drained(LIMIT).await;

    let rows = rows(&hub);
    let mut of_receipts: BTreeMap<(&str, &str, u64), &str> =
        receipts.iter().map(|receipt| ((&*receipt.epoch, &*receipt.lane, receipt.seq), &*receipt.digest)).collect();
    let mut reached: BTreeMap<(&str, &str), (Seq, Chain)> = BTreeMap::new();
    for row in &rows {
        assert_eq!(row.status, "counted");
        let lane: Lane = row.lane.parse().unwrap();
        let genesis = Chain::genesis(row.epoch.parse::<Epoch>().unwrap(), lane);
        let (seq, chain) = reached.entry((&row.epoch, &row.lane)).or_insert((Seq::NONE, genesis));
        // Without a hole, without a second one; the bytes are those of the digest, and the chain is that of the bytes.
        assert_eq!(row.seq, seq.next().0);
        let digest = Digest::of(&row.bytes);
        assert_eq!(row.digest, digest.to_string());
        (*seq, *chain) = (seq.next(), chain.next(seq.next(), digest));
        assert_eq!(row.chain, chain.to_string());
        if let Some(told) = of_receipts.remove(&(&*row.epoch, &*row.lane, row.seq)) {
            assert_eq!(row.content, told, "what the till was told");
        }
    }
    assert!(of_receipts.is_empty(), "{} receipts without a record", of_receipts.len());
    for table in ["exceptions", "rejects"] {
        assert_eq!(hub.count(table), 0, "{table}");
    }
    assert!(hub.count("stock") > 0, "a snapshot of the stock came");

    end(&broker).await;
    let schemas = Schemas::read();
    let mut seen = BTreeSet::new();
    for (topic, payload) in heard.await.unwrap() {
        let message: Value = serde_json::from_slice(&payload).unwrap_or_else(|error| panic!("{topic}: {error}"));
        seen.insert(schemas.message(&message));
    }
    for kind in ["state", "hello", "batch", "positions", "welcome", "ack", "hello_wanted"] {
        assert!(seen.contains(kind), "no {kind} among {seen:?}");
    }
}

#[tokio::test]
async fn the_hub_takes_both_forms_and_makes_the_same_of_them() {
    let stage = Stage::new().await;
    let mqtt = Mqtt { url: stage.broker.url(), identity: None };
    let mut other = Agent::new(&stage.directory().join("other"), "0043", "box1", &mqtt, JSON);
    other.start();
    other.ready().await;
    for number in 1..=100 {
        let told = [&stage.agent, &other].map(Agent::api);
        let first = receipt(&post(&told[0], &sale(number, number)).await);
        let second = receipt(&post(&told[1], &sale(number, number)).await);
        assert_eq!(first.digest, second.digest);
    }
    stage.agent.drained(LIMIT).await;
    other.drained(LIMIT).await;
    let [ours, others] = ["0042", "0043"].map(|store| sales(&stage, store));
    let (ours, others) = (ours.await, others.await);
    assert_eq!(ours.len(), 100);
    assert_eq!(ours, others);
}

/// Content digests and documents of a store's sales, in the ledger's order.
async fn sales(stage: &Stage, store: &str) -> Vec<(String, Value)> {
    let deadline = Deadline::new(LIMIT);
    loop {
        let path = format!("/v1/records?store={store}&limit=1000");
        let body = stage.hub.api().success(&path).await.unwrap().body;
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records = lines.map(|line| serde_json::from_slice::<LedgerRecord>(line).unwrap());
        let sales = records.filter(|record| record.kind == "transaction");
        let sales: Vec<_> = sales.map(|record| (record.digest, record.document)).collect();
        if sales.len() >= 100 {
            return sales;
        }
        deadline.rest_for("the hub to give its records a place").await;
    }
}
