//! What agent and hub tell of themselves while they work: the log, and traces.
//!
//! Invariant: at the most verbose level both logs follow each record by its names, and hold nothing of its contents; a name that somebody made to
//! forge a line or move a terminal is text. A collector gets what the callers' trace contexts say, and no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use world::ledger::Ledger;
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(2);
const MARK: &str = "Zwetschgenkuchen";
const VERBOSE: &str = "[log]\nlevel = \"trace\"\nlines_max = 1000000\n";

/// A sale with the mark wherever it takes text of people, and an amount that does not add up.
fn marked(number: u64) -> Value {
    let mut document = sale(number, 499);
    document["operator_name"] = json!(format!("{MARK} one"));
    document["attributes"] = json!({"note": format!("{MARK} two"), MARK: "three"});
    document["remark"] = json!(format!("{MARK} four"));
    document["line_items"][0]["description"] = json!(format!("{MARK} five"));
    document["customer_id"] = json!(MARK);
    document["totals"]["gross"] = json!("5.00");
    document
}

async fn ledger(stage: &Stage, count: usize) -> Ledger {
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    while ledger.stubs.len() < count {
        deadline.rest_for(&format!("{count} documents in the ledger")).await;
        ledger.read_on(&stage.hub.api()).await.unwrap();
    }
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_at_trace_follows_each_record_and_holds_nothing_of_its_contents() {
    let mut stage = Stage::with(VERBOSE, VERBOSE).await;
    let api = stage.agent.api();
    for number in 1..=20 {
        assert_eq!(post(&api, &marked(number)).await.status, 201);
    }
    // What cannot be taken is told of without its contents as well.
    let mut wrong = marked(21);
    wrong["totals"]["gross"] = json!(MARK);
    assert_eq!(post(&api, &wrong).await.status, 422);
    let broken = format!("{{\"remark\": \"{MARK}\", ").into_bytes();
    assert_eq!(api.post("/v1/transactions", "application/json", broken).await.unwrap().status, 400);
    let exceptions: Value = api.json("/v1/exceptions").await.unwrap();
    let id = exceptions[0]["id"].as_str().unwrap();
    let remark = json!({"by": MARK, "reason": MARK}).to_string().into_bytes();
    let answer = api.post(&format!("/v1/exceptions/{id}/resolve"), "application/json", remark).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    ledger(&stage, 20).await;
    // What is asked about is not told either.
    for path in [format!("/v1/customers/{MARK}/returns"), format!("/v1/lookup?trace={MARK}")] {
        stage.hub.api().get(&path).await.unwrap();
    }
    let told = [stage.agent.process().unwrap().output(), stage.hub.process().unwrap().output()];
    for (log, steps) in told.iter().zip([["recorded", "sent"], ["stored", "posted"]]) {
        for step in steps {
            let lines = log.lines().filter(|line| line.contains(&format!(": {step} record=")));
            assert!(lines.count() >= 20, "the log is verbose: {step}\n{log}");
        }
        let holding: Vec<_> = log.lines().filter(|line| line.contains(MARK)).collect();
        assert!(holding.is_empty(), "{holding:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_id_is_in_every_line_of_its_request_from_the_till_to_the_position() {
    let mut stage = Stage::with(VERBOSE, VERBOSE).await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = format!("00-{trace_id}-00f067aa0ba902b7-00");
    let answer = post_traced(&stage, &sale(1, 499), &traced).await;
    assert_eq!(answer, 201);
    // A context that is none is nobody's, and harms nothing.
    assert_eq!(post_traced(&stage, &sale(2, 499), "00-zz\u{9}[2J").await, 201);
    ledger(&stage, 2).await;
    let found: Value = stage.hub.api().json(&format!("/v1/lookup?trace={trace_id}")).await.unwrap();
    assert_eq!(
        found["records"].as_array().unwrap().len(),
        1,
        "the record carries what the request came in with: {found}"
    );
    let [agent, hub] = [stage.agent.process().unwrap().output(), stage.hub.process().unwrap().output()];
    for (log, message) in [
        (&agent, "receipt given"),
        (&agent, "answered"),
        (&agent, "recorded record="),
        (&agent, "sent record="),
        (&hub, "stored record="),
        (&hub, "posted record="),
    ] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(message) && line.contains(trace_id)).collect();
        assert_eq!(lines.len(), 1, "{message} with the trace id\n{log}");
    }
}

async fn post_traced(stage: &Stage, document: &Value, traceparent: &str) -> u16 {
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/transactions", stage.agent.url())).header("traceparent", traceparent);
    let request = request.header("content-type", "application/json").body(document.to_string());
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_made_to_forge_a_line_is_text() {
    let directory = tempfile::tempdir().unwrap();
    let spool = format!("[spool]\ndirectory = {:?}\npoll_interval = \"100ms\"\n", directory.path());
    let mut stage = Stage::with_agent(&spool).await;
    let name = "\u{1b}[2J\u{1b}]0;owned\u{7}\nERROR forged\u{9b}31m.xml";
    // A card number makes the agent tell of the file.
    std::fs::write(directory.path().join(name), "<POSLog>4111 1111 1111 1111</POSLog>").unwrap();
    let deadline = Deadline::new(LIMIT);
    let process = stage.agent.process().unwrap();
    while !process.output().contains("held card numbers") {
        deadline.rest_for("the file to be told of").await;
    }
    let log = process.output();
    let line = log.lines().find(|line| line.contains("held card numbers")).unwrap();
    assert!(line.contains("owned") && line.contains("ERROR forged"), "it is told whole: {line}");
    assert!(!log.lines().any(|line| line.starts_with("ERROR forged")), "{log}");
    assert!(log.chars().all(|letter| letter == '\n' || !letter.is_control()), "{log:?}");
}

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    service: String,
    name: String,
    trace_id: String,
    id: String,
    parent: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An OpenTelemetry collector: HTTP, and protobuf within.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<BTreeSet<Span>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let of_task = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(of_task.clone().serve(stream));
            }
        });
        (collector, endpoint)
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            while let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
                let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
                let length: usize = length.unwrap().trim().parse().unwrap();
                while read.len() < end + 4 + length {
                    assert!(stream.read_buf(&mut read).await.unwrap() > 0, "a whole body");
                }
                assert!(head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"), "{head}");
                self.take(&read[end + 4..end + 4 + length]);
                read.drain(..end + 4 + length);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    fn take(&self, body: &[u8]) {
        self.bytes.lock().unwrap().extend_from_slice(body);
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = format!("{:?}", service.value.unwrap().value.unwrap());
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                self.spans.lock().unwrap().insert(Span {
                    service: service.split('"').nth(1).unwrap().to_owned(),
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                });
            }
        }
    }

    fn of_trace(&self, trace_id: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.trace_id == trace_id).cloned().collect()
    }
}

const STEPS: [(&str, &str); 4] = [
    ("counterfoil", "/v1/transactions"),
    ("counterfoil", "sent"),
    ("counterfoil-hub", "posted"),
    ("counterfoil-hub", "stored"),
];

fn steps(spans: &[Span]) -> BTreeSet<(&str, &str)> {
    spans.iter().map(|span| (span.service.as_str(), span.name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_a_request_from_the_till_to_the_position_as_one_trace() {
    let (collector, endpoint) = Collector::start().await;
    let export = format!("[log]\notlp_endpoint = {endpoint:?}\n");
    let stage = Stage::with(&export, &export).await;
    let (kept, dropped) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000abc");
    let till = "00f067aa0ba902b7";
    assert_eq!(post_traced(&stage, &marked(1), &format!("00-{kept}-{till}-01")).await, 201);
    assert_eq!(post_traced(&stage, &marked(2), &format!("00-{dropped}-{till}-00")).await, 201);
    // Who says nothing gets a trace as well.
    assert_eq!(post(&stage.agent.api(), &marked(3)).await.status, 201);

    let deadline = Deadline::new(LIMIT);
    let own = || {
        let spans = collector.spans.lock().unwrap();
        let request = spans.iter().find(|span| span.name == "/v1/transactions" && span.trace_id != kept);
        request.map(|span| span.trace_id.clone())
    };
    let is_whole = |trace_id: &str| steps(&collector.of_trace(trace_id)) == STEPS.into();
    while !(is_whole(kept) && own().is_some_and(|own| is_whole(&own))) {
        deadline.rest_for(&format!("whole traces: {:#?}", collector.spans.lock().unwrap())).await;
    }
    let spans = collector.of_trace(kept);
    let request = spans.iter().find(|span| span.name == "/v1/transactions").unwrap();
    assert_eq!(request.parent, till, "below the till's own span");
    for span in spans.iter().filter(|span| *span != request) {
        assert_eq!(span.parent, request.id, "{span:?}");
    }
    assert_eq!(collector.of_trace(dropped), vec![], "the till did not want it kept");
    let bytes = collector.bytes.lock().unwrap();
    assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()), "no contents");
}
