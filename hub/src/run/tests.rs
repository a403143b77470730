//! The whole hub in one process: embedded broker, SQLite, an agent made of the codec and an MQTT client, and the API over TCP.

use std::net::SocketAddr;
use std::path::Path;

use counterfoil_proto::codec;
use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, Seq, SeqRange, SessionId, Source, StoreId};
use counterfoil_proto::message::{Down, EpochHeads, Hello, LaneHead, NackReason, Presence, Versions, WireVersion};
use counterfoil_proto::record::{Context, Kind, Record, prepare};
use counterfoil_proto::time::{ClockQuality, WallTime};
use counterfoil_proto::topic::{DEFAULT_PREFIX, Topics, Up};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

const SESSION: SessionId = SessionId([5; 16]);
const EPOCH: Epoch = Epoch([6; 16]);

async fn free_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

struct Running {
    api: SocketAddr,
    broker: SocketAddr,
    stop: oneshot::Sender<()>,
    hub: tokio::task::JoinHandle<Result<(), ExitError>>,
}

async fn start(directory: &Path, broker: Option<SocketAddr>, more: &str) -> Running {
    start_on(directory, broker, "url = \"sqlite:hub.db\"", more).await
}

async fn start_on(directory: &Path, broker: Option<SocketAddr>, ledger: &str, more: &str) -> Running {
    let api = free_port().await;
    let is_embedded = broker.is_none();
    let broker = match broker {
        Some(broker) => broker,
        None => free_port().await,
    };
    let text = format!(
        "[mqtt]\nurl = \"mqtt://{broker}\"\n[ledger]\n{ledger}\n[broker]\nembedded = {is_embedded}\n\
         listen = \"{broker}\"\n[api]\nlisten = \"{api}\"\n{more}"
    );
    let file = directory.join("hub.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load_with(&file, []).unwrap();
    let (stop, stopped) = oneshot::channel();
    let hub = tokio::spawn(run(config, async { drop(stopped.await) }));
    Running { api, broker, stop, hub }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.hub.await.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.get_with(path, "").await
    }

    /// Status, head and body.
    async fn get_with(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = loop {
            if let Ok(stream) = tokio::net::TcpStream::connect(self.api).await {
                break stream;
            }
            assert!(!self.hub.is_finished(), "the hub ended at its start");
            tokio::task::yield_now().await;
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    async fn ready(&self) {
        while self.get("/readyz").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    }
}

struct Agent {
    client: AsyncClient,
    events: EventLoop,
    topics: Topics,
}

impl Agent {
    async fn connect(broker: SocketAddr) -> Self {
        let source = Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() };
        let mut options = MqttOptions::new("0042.box1", broker.ip().to_string(), broker.port());
        options.set_max_packet_size(2 << 20, 2 << 20);
        let (client, mut events) = AsyncClient::new(options, 100);
        let topics = Topics::new(DEFAULT_PREFIX, &source);
        client.try_subscribe(topics.down_ack(), QoS::AtLeastOnce).unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        Self { client, events, topics }
    }

    fn say(&self, what: Up, bytes: Vec<u8>) {
        self.client.try_publish(self.topics.up(what), QoS::AtLeastOnce, what == Up::State, bytes).unwrap();
    }

    async fn hear(&mut self) -> Down {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = self.events.poll().await.unwrap() {
                return codec::decode(&publish.payload).unwrap();
            }
        }
    }

    /// Waits until the hub says that everything up to `seq` of the trade lane is stored.
    async fn hear_stored(&mut self, seq: u64) {
        loop {
            if let Down::Ack(ack) = self.hear().await
                && ack.marks.iter().any(|mark| mark.key.lane == Lane::Trade && mark.stored == Seq(seq))
            {
                assert_eq!(ack.session, SESSION);
                assert!(ack.credit >= 1);
                return;
            }
        }
    }

    fn hello(&self, last: u64) {
        let head = LaneHead {
            lane: Lane::Trade,
            first: Seq(1),
            chain_before: None,
            last: Seq(last),
            chain: None,
            gone: vec![],
        };
        let hello = Hello {
            versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
            software: "test".to_owned(),
            session: SESSION,
            round: 7,
            page: 0,
            pages: 1,
            wall_time: WallTime(0),
            clock: ClockQuality::Synchronised,
            epochs: vec![EpochHeads { epoch: EPOCH, parent: None, live: true, lanes: vec![head] }],
            downlink: vec![],
        };
        self.say(Up::Hello, codec::encode(&hello).unwrap());
    }

    fn batch(&self, first: u64, records: &[Vec<u8>]) {
        let first = RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(first) };
        let compress = |plain: &[u8]| zstd::bulk::compress(plain, 3).ok();
        self.say(Up::Batch(Lane::Trade), codec::encode_batch(SESSION, first, records, compress).unwrap());
    }
}

fn sale(number: u64) -> Vec<u8> {
    let document = format!(
        "{{\"workstation_id\":\"3\",\"business_day_date\":\"2026-11-23\",\n\"sequence_number\":{number},\"type\":\"sale\",\
         \"end_date_time\":\"2026-11-23T10:15:40Z\",\"currency_code\":\"EUR\",\"line_items\":[{{\"line\":1,\"kind\":\"sale\",\
         \"item_id\":\"A\",\"quantity\":\"1\",\"unit\":\"EA\",\"actual_unit_price\":\"1.25\",\"extended_amount\":\"1.25\"}}],\
         \"tenders\":[{{\"line\":1,\"type\":\"cash\",\"amount\":\"1.25\"}}],\"totals\":{{\"gross\":\"1.25\"}}}}"
    );
    let context = Context {
        store_id: StoreId::new("0042").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::Time::constant(4, 0, 0, 0),
        mask_13_digits: false,
    };
    let prepared = prepare(Kind::TRANSACTION, document.as_bytes(), None, &context).unwrap();
    Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document }.encode().unwrap()
}

fn lines(body: &str) -> Vec<serde_json::Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sales_come_in_over_mqtt_and_go_out_over_http_once_and_in_order() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let hub = start(directory.path(), None, "").await;
    hub.ready().await;
    let mut agent = Agent::connect(hub.broker).await;
    let presence =
        Presence { state: "online".to_owned(), session: SESSION, epoch: Some(EPOCH), software: "test".to_owned() };
    agent.say(Up::State, serde_json::to_vec(&presence).unwrap());
    agent.hello(0);
    let Down::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
    assert_eq!((welcome.session, welcome.round, welcome.marks[0].stored), (SESSION, 7, Seq(0)));
    let sales: Vec<Vec<u8>> = (1..=100).map(sale).collect();
    agent.batch(51, &sales[50..]);
    let Down::Ack(ack) = agent.hear().await else { panic!("no ack") };
    assert_eq!(
        (ack.marks[0].stored, ack.marks[0].ranges.clone()),
        (Seq(0), vec![SeqRange { first: Seq(51), last: Seq(100) }])
    );
    let Down::Ack(again) = agent.hear().await else { panic!("no ack") };
    assert_eq!(again.marks, ack.marks, "an ack is repeated while the lane lags");
    agent.batch(1, &sales[..60]);
    agent.hear_stored(100).await;
    // A long poll wakes when posting is through.
    let (status, head, body) = hub.get("/v1/records?store=0042&kind=transaction&wait=20").await;
    assert_eq!(status, 200, "{body}");
    let found = lines(&body);
    assert_eq!(
        found.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=100).collect::<Vec<_>>()
    );
    assert_eq!(found[4]["document"]["sequence_number"], 5);
    assert_eq!((found[0]["kind"].as_str(), found[0]["lane"].as_str()), (Some("transaction"), Some("trade")));
    let next = head.lines().find_map(|line| line.strip_prefix("next-after: ")).unwrap().to_owned();
    let (status, _, body) = hub.get(&format!("/v1/records?after={next}")).await;
    assert_eq!((status, body.as_str()), (200, ""));
    let (_, _, body) = hub.get("/v1/totals?store=0042&business_day=2026-11-23").await;
    let totals: serde_json::Value = serde_json::from_str(&body).unwrap();
    let till = &totals["currencies"][0]["tills"][0];
    assert_eq!((totals["currencies"][0]["gross"].as_str(), till["transactions"].as_u64()), (Some("125.00"), Some(100)));
    assert_eq!((till["tenders"]["cash"].as_str(), till["last_sequence_number"].as_u64()), (Some("125.00"), Some(100)));
    let (status, _, body) = hub.get("/v1/delays?first_day=2020-01-01&last_day=9999-12-31").await;
    let delays: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, delays[0]["documents"].as_u64()), (200, Some(100)), "{body}");
    assert!(delays[0]["posted_ms"]["p50"].as_u64() >= delays[0]["stored_ms"]["p50"].as_u64(), "{body}");
    assert_eq!(hub.get("/v1/delays?first_day=2026-02-30&last_day=2026-03-01").await.0, 400);
    let (_, _, body) = hub.get("/v1/stores/0042").await;
    let store: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(store["agents"][0]["presence"], "online");
    assert_eq!(store["agents"][0]["lanes"][0]["duplicates"], 10);
    let (_, _, body) = hub.get("/v1/fleet").await;
    let fleet: serde_json::Value = serde_json::from_str(&body).unwrap();
    let store = &fleet["stores"][0];
    assert_eq!((store["store_id"].as_str(), store["standing"].as_str()), (Some("0042"), Some("current")), "{fleet}");
    assert_eq!(
        (store["records"].as_u64(), store["duplicates"].as_u64(), store["lag"].as_u64()),
        (Some(100), Some(10), Some(0))
    );
    assert_eq!((fleet["hub"]["records"].as_u64(), fleet["exceptions"]["older"].as_u64()), (Some(100), Some(0)));
    let (_, _, body) = hub.get("/v1/reconciliation?business_day=2026-11-23").await;
    let days: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(days["stores"], serde_json::json!([{"store_id": "0042", "status": "open"}]));
    assert!(hub.get("/metrics").await.2.contains("counterfoil_hub_records_total 100\n"));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_refused_bombs_are_bounded_and_an_unknown_session_is_asked_for_a_hello() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "ana read 0123456789abcdef\n").unwrap();
    let hub = start(directory.path(), None, "tokens_file = \"tokens\"\n").await;
    hub.ready().await;
    let mut agent = Agent::connect(hub.broker).await;
    agent.batch(1, &[sale(1)]);
    assert!(matches!(agent.hear().await, Down::HelloWanted { .. }));
    agent.hello(1);
    let Down::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
    assert_eq!(welcome.marks[0].stored, Seq(1), "it was stored all the same");
    // A frame of many zeros that claims to be small.
    let first = RecordKey { epoch: EPOCH, lane: Lane::Trade, seq: Seq(2) };
    let bomb = |_: &[u8]| zstd::bulk::compress(&vec![0; 50_000_000], 3).ok();
    let mut bytes = codec::encode_batch(SESSION, first, &[vec![0; 100_000]], bomb).unwrap();
    agent.say(Up::Batch(Lane::Trade), bytes.clone());
    bytes.truncate(60);
    agent.say(Up::Batch(Lane::Trade), bytes.clone());
    bytes[1] = 9;
    agent.say(Up::Batch(Lane::Trade), bytes);
    agent.say(Up::Hello, vec![1, 2, 3]);
    let mut nacks = 0;
    while nacks < 2 {
        if let Down::Nack(nack) = agent.hear().await {
            assert_eq!((nack.reason, nack.first), (NackReason::Undecodable, first));
            nacks += 1;
        }
    }
    agent.batch(2, &[sale(2)]);
    agent.hear_stored(2).await;
    assert_eq!(hub.get("/v1/exceptions").await.0, 401);
    assert_eq!(hub.get("/v1/fleet").await.0, 401);
    for page in ["/", "/stores/0042", "/app.js", "/app.css"] {
        let (status, head, _) = hub.get(page).await;
        assert!(status == 200 && head.contains("content-security-policy: default-src 'none'"), "{page} {head}");
    }
    assert_eq!(hub.get_with("/v1/exceptions", "Authorization: Bearer 0123456789abcdeX\r\n").await.0, 401);
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    let (status, _, body) = hub.get_with("/v1/exceptions?code=UNREADABLE_RECORD", right).await;
    assert_eq!(status, 200);
    let found: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(found["exceptions"].as_array().unwrap().len(), 2, "one of the lane, one of the agent: {body}");
    assert_eq!(hub.get_with("/v1/records?limit=x", right).await.0, 400);
    assert_eq!(hub.get_with("/nothing", right).await.0, 404);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_only_names_of_this_machine_are_answered() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let hub = start(directory.path(), None, "").await;
    hub.ready().await;
    let evil = "Host: rebound.example\r\n";
    assert_eq!(hub.get("/v1/stores").await.0, 200);
    let mut stream = tokio::net::TcpStream::connect(hub.api).await.unwrap();
    stream.write_all(format!("GET /v1/stores HTTP/1.1\r\n{evil}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_it_is_committed() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let hub = start(directory.path(), None, "").await;
    hub.ready().await;
    let mut agent = Agent::connect(hub.broker).await;
    agent.hello(0);
    let Down::Welcome(_) = agent.hear().await else { panic!("no welcome") };
    // Somebody else writes to the ledger: the hub can read it, but not commit.
    let database = Sqlite::open(&directory.path().join("hub.db")).unwrap();
    let other = database.begin(crate::ledger::sql::Role::Desk).await.unwrap();
    agent.batch(1, &[sale(1), sale(2)]);
    let early = tokio::time::timeout(Duration::from_millis(1_500), agent.hear_stored(2)).await;
    assert!(early.is_err(), "acknowledged, but not committed");
    assert_eq!(hub.get("/v1/records").await.2, "");
    other.rollback().await.unwrap();
    agent.hear_stored(2).await;
    let (_, _, body) = hub.get("/v1/records?wait=20").await;
    assert_eq!(lines(&body).len(), 2);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_goes_back_while_all_runs_makes_the_hub_ask_every_agent_for_a_hello() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let hub = start(directory.path(), None, "").await;
    hub.ready().await;
    let mut agent = Agent::connect(hub.broker).await;
    agent.hello(0);
    let Down::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
    agent.batch(1, &[sale(1), sale(2)]);
    agent.hear_stored(2).await;
    let database = Sqlite::open(&directory.path().join("hub.db")).unwrap();
    let mut restore = database.begin(crate::ledger::sql::Role::Desk).await.unwrap();
    restore.execute_many("UPDATE processes SET commits = 0", vec![vec![]]).await.unwrap();
    restore.commit().await.unwrap();
    // Nobody sends anything: the hub finds out by itself.
    let hub_epoch = loop {
        if let Down::HelloWanted { hub_epoch } = agent.hear().await {
            break hub_epoch;
        }
    };
    assert_ne!(hub_epoch, welcome.hub_epoch);
    agent.hello(2);
    let again = loop {
        if let Down::Welcome(welcome) = agent.hear().await {
            break welcome;
        }
    };
    assert_eq!((again.hub_epoch, again.marks[0].stored), (hub_epoch, Seq(2)));
    hub.stop().await;
}

struct Mosquitto(std::process::Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hubs_share_a_mosquitto_subscription_and_a_postgresql_ledger() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let program = Path::new("/usr/sbin/mosquitto");
    let Some(url) = crate::ledger::postgres_url().filter(|_| program.exists()) else {
        eprintln!("SKIPPED two hubs on one subscription: install the packages mosquitto and postgresql");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let broker = free_port().await;
    let file = directory.path().join("mosquitto.conf");
    std::fs::write(
        &file,
        format!("listener {} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n", broker.port()),
    )
    .unwrap();
    let child = std::process::Command::new(program).arg("-c").arg(&file).stderr(std::process::Stdio::null()).spawn();
    let _mosquitto = Mosquitto(child.unwrap());
    while tokio::net::TcpStream::connect(broker).await.is_err() {
        tokio::task::yield_now().await;
    }
    let ledger = format!("url = \"{url}\"\nsafe = \"stored\"");
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = start_on(first.path(), Some(broker), &ledger, "").await;
    let other = start_on(second.path(), Some(broker), &ledger, "").await;
    one.ready().await;
    other.ready().await;
    let mut agent = Agent::connect(broker).await;
    agent.hello(0);
    let Down::Welcome(_) = agent.hear().await else { panic!("no welcome") };
    let sales: Vec<Vec<u8>> = (1..=400).map(sale).collect();
    for (index, batch) in sales.chunks(10).enumerate() {
        agent.batch(u64::try_from(index).unwrap() * 10 + 1, batch);
    }
    agent.hear_stored(400).await;
    let mut pages = Vec::new();
    for hub in [&one, &other] {
        let mut entries = Vec::new();
        let mut next = "0".to_owned();
        while entries.len() < 400 {
            let (status, head, body) = hub.get(&format!("/v1/records?limit=150&wait=20&after={next}")).await;
            assert_eq!(status, 200, "{body}");
            next = head.lines().find_map(|line| line.strip_prefix("next-after: ")).unwrap().to_owned();
            entries.extend(lines(&body).iter().map(|line| (line["position"].as_u64(), line["seq"].as_u64())));
        }
        pages.push(entries);
    }
    assert_eq!(pages[0], pages[1], "both show the same under the same positions");
    assert_eq!(pages[0], (1..=400).map(|place| (Some(place), Some(place))).collect::<Vec<_>>());
    for hub in [&one, &other] {
        let text = hub.get("/metrics").await.2;
        let line = text.lines().find(|line| line.starts_with("counterfoil_hub_batches_total ")).unwrap();
        assert_ne!(line, "counterfoil_hub_batches_total 0", "each had its share");
    }
    one.stop().await;
    other.stop().await;
}
