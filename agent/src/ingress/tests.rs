//! The contract over real sockets: a served ingress, an owner that the test plays, and a client that writes bytes.
//!
//! Every answer that any test sees is looked up in the published description: a status that is not listed there fails the test.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use counterfoil_proto::id::StoreId;
use counterfoil_proto::record::flag::LATE_AFTER_CLOSE;
use counterfoil_proto::record::{Flag, Prepared};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::agent::{Inbox, Refusals, Request as Asked, channel};
use crate::answer::{
    Conflict, DayAnswer, ExceptionAnswer, Forecast, Outcome, Progress, Receipt, ReceiptAnswer, Refused, Status,
    StockAnswer, StockQuantity,
};

mod bounds;
mod calls;
mod lan;
mod peer;

/// No test waits for longer; on a loaded machine everything here takes under two seconds.
const AT_MOST: Duration = Duration::from_secs(30);

fn config() -> IngressConfig {
    IngressConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        unix_socket: None,
        tls: None,
        tokens: None,
        allowed_hosts: Vec::new(),
        connections_max: 64,
        peer_connections_max: 64,
        allowance: peers::Allowance { per_second: 1_000_000, burst: 1_000_000 },
        body_bytes_max: 4 << 20,
        bodies_bytes_max: 16 << 20,
        header_timeout: AT_MOST,
        body_timeout: AT_MOST,
        idle_timeout: AT_MOST,
        drain_timeout: AT_MOST,
        queue_max: 16,
        profiles: crate::legacy::Profiles::default(),
        certificates: Vec::new(),
    }
}

fn context() -> Context {
    Context {
        store_id: StoreId::new("0042").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    }
}

/// A served ingress and the inbox that its requests come to.
struct Served {
    address: SocketAddr,
    inbox: Option<Inbox>,
    refusals: Arc<Refusals>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

async fn serve(config: IngressConfig) -> Served {
    let status = Status { store_id: "0042".into(), ready: true, mode: "accepting".into(), ..Status::default() };
    let (agent, inbox) = channel(config.queue_max, status);
    let ingress = Ingress::bind(&config, context(), agent).await.unwrap();
    let address = ingress.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(ingress.serve(async {
        stopped.await.unwrap_or(());
    }));
    Served { address, refusals: Arc::clone(&inbox.refusals), inbox: Some(inbox), stop: Some(stop), serving }
}

/// A served ingress whose owner remembers what it recorded and answers at once.
async fn serve_with_owner(config: IngressConfig) -> Served {
    let mut served = serve(config).await;
    let mut inbox = served.inbox.take().unwrap();
    tokio::spawn(async move {
        let mut owner = Owner::default();
        while let Some(asked) = inbox.requests.recv().await {
            owner.answer(asked);
        }
    });
    served
}

#[derive(Default)]
struct Owner {
    known: BTreeMap<String, Receipt>,
    seq: u64,
}

impl Owner {
    fn answer(&mut self, asked: Asked) {
        // A till that went away does not wait for its answer; the owner does not care.
        match asked {
            Asked::Submit { documents, reply } => {
                drop(reply.send(Ok(documents.iter().map(|document| self.record(document)).collect())));
            }
            Asked::Forecast { documents, reply } => {
                drop(reply.send(Ok(documents.iter().map(|document| self.forecast(document)).collect())));
            }
            Asked::Stock { item_id, reply } => drop(reply.send(Ok((item_id == "85123A/x").then(|| stock_of(item_id))))),
            Asked::Receipt { identity, reply } => {
                let receipt = self.known.get(&identity).cloned();
                drop(reply.send(Ok(receipt.map(|receipt| ReceiptAnswer {
                    receipt,
                    kind: "transaction".into(),
                    progress: Progress::Stored,
                    correlation_id: None,
                }))));
            }
            Asked::Tally { reply } => drop(reply.send(Ok(crate::agent::Tally::default()))),
            Asked::Day { business_day_date, reply } => {
                drop(reply.send(Ok(DayAnswer { business_day_date, ..DayAnswer::default() })));
            }
            Asked::Exceptions { all, reply } => {
                drop(reply.send(Ok(if all {
                    vec![exception("resolved"), exception("open")]
                } else {
                    vec![exception("open")]
                })));
            }
            Asked::ChangeException { id, change, by, reason, reply } => {
                let resolved =
                    ExceptionAnswer { resolved_by: Some(by), reason: Some(reason), ..exception(change.as_str()) };
                drop(reply.send(Ok((id == resolved.id).then_some(resolved))));
            }
            Asked::Positions { .. }
            | Asked::Marks { .. }
            | Asked::Damaged { .. }
            | Asked::Outage { .. }
            | Asked::Probe { .. }
            | Asked::Finding { .. }
            | Asked::Tick => unreachable!("the ingress does not ask that"),
        }
    }

    /// As `record` would, and every other document is late.
    fn forecast(&self, document: &Prepared) -> Forecast {
        let identity = document.envelope.identity.clone().unwrap_or_default();
        match self.known.get(&identity) {
            Some(known) if known.digest == document.envelope.content_digest.to_string() => Forecast::Duplicate,
            Some(_) => Forecast::Conflict,
            None => Forecast::Recorded { flags: vec![Flag { code: LATE_AFTER_CLOSE.into(), pointer: "/x".into() }] },
        }
    }

    fn record(&mut self, document: &Prepared) -> Outcome {
        self.seq += 1;
        let receipt = Receipt {
            epoch: "0e".repeat(16),
            lane: document.kind.lane().to_string(),
            seq: self.seq,
            digest: document.envelope.content_digest.to_string(),
            recorded_at: "2026-11-23T10:15:40.000Z".into(),
            duplicate: false,
            exceptions: document.envelope.flags.iter().map(|flag| flag.code.clone().into_owned()).collect(),
            warnings: document.warnings.clone(),
        };
        let identity = document.envelope.identity.clone().unwrap();
        match self.known.get(&identity) {
            None => {
                self.known.insert(identity, receipt.clone());
                Outcome::Recorded(receipt)
            }
            Some(first) if first.digest == receipt.digest => {
                Outcome::Duplicate(Receipt { duplicate: true, ..first.clone() })
            }
            Some(first) => Outcome::Conflict(Conflict {
                existing: first.clone(),
                kept: receipt,
                exception_id: "ex-0011223344556677".into(),
            }),
        }
    }
}

fn stock_of(item_id: String) -> StockAnswer {
    let quantity = StockQuantity {
        unit: "EA".into(),
        on_hand: None,
        delta: "-2".into(),
        delta_since: "2026-11-23T10:15:40.000Z".into(),
        reserved: "0".into(),
        available: None,
    };
    StockAnswer { item_id, quantity, other_units: Vec::new(), as_of: None }
}

fn exception(state: &str) -> ExceptionAnswer {
    ExceptionAnswer {
        id: "ex-0011223344556677".into(),
        class: "business".into(),
        code: "TOTALS_MISMATCH".into(),
        severity: "warning".to_owned(),
        owner: "store_finance".into(),
        state: state.into(),
        message: "m".into(),
        pointer: "/totals".into(),
        identity: None,
        epoch: "0e".repeat(16),
        lane: "trade".into(),
        seq: 1,
        correlation_id: None,
        first_seen: "2026-11-23T10:15:40.000Z".into(),
        age_s: 1,
        resolved_by: None,
        changed_by: None,
        changed_at: None,
        reason: None,
    }
}

fn sale(number: u64) -> String {
    format!(
        "{{\"workstation_id\":\"3\",\"business_day_date\":\"2026-11-23\",\"sequence_number\":{number},\"type\":\"sale\",\
         \"end_date_time\":\"2026-11-23T10:15:40+01:00\",\"currency_code\":\"EUR\",\"line_items\":[{{\"line\":1,\"kind\":\"sale\",\
         \"item_id\":\"85123A\",\"quantity\":\"2\",\"unit\":\"EA\",\"actual_unit_price\":\"4.49\",\"extended_amount\":\"8.98\"}}],\
         \"tenders\":[{{\"line\":1,\"type\":\"cash\",\"amount\":\"8.98\"}}],\"totals\":{{\"gross\":\"8.98\"}}}}"
    )
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const JSON: &str = "content-type: application/json\r\n";
const NDJSON: &str = "content-type: application/x-ndjson\r\n";

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
    /// A problem as it should be, of the type.
    fn is_problem(&self, status: u16, slug: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("https://counterfoil.dev/problems/{slug}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut socket = self.connect().await;
        socket.write_all(&request(method, path, headers, body)).await.unwrap();
        answered(&mut socket, method, path).await
    }
    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }
    async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, JSON, body).await
    }
    async fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").await.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }
}

/// Reads one answer, and looks it up in the published description.
async fn answered(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), method: &str, path: &str) -> Answer {
    let answer = timeout(AT_MOST, read_answer(socket)).await.expect("an answer in time").expect("an answer");
    check_documented(method, path, answer.status);
    answer
}

/// `None` where the connection was closed without an answer.
async fn read_answer(socket: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    Some(Answer { status, headers, body })
}

fn openapi() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(openapi::document)
}

fn check_documented(method: &str, path: &str, status: u16) {
    let parts: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let matches = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == parts.len() && template.iter().zip(&parts).all(|(of, part)| of.starts_with('{') || of == part)
    };
    let paths = openapi()["paths"].as_object().unwrap();
    match paths.iter().find(|(template, _)| matches(template)) {
        None => assert!([404, 503].contains(&status), "{path} is not documented and gave {status}"),
        Some((_, item)) => match item.get(method.to_ascii_lowercase()) {
            None => assert_eq!(status, 405, "{method} {path} is not documented"),
            Some(operation) => {
                let listed = operation["responses"].get(status.to_string()).is_some();
                assert!(listed, "{method} {path} gave {status}, which is not documented");
            }
        },
    }
}
