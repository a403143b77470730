//! Who is told of an exception, how often, and what a webhook that fails, hangs or dies with its hub does to that.
//!
//! Method: a real HTTP server that does as it is told and says through a channel what it got; ledgers on both databases.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::notify;
use crate::routing::tests::route;
use crate::routing::{Escalation, Route, Routes, Secret, Sending, Webhook, escalation_target};

/// Longer than any of these tests.
const EVER: Duration = Duration::from_mins(1);

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answer(u16),
    Hang,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    key: String,
    signature: Option<String>,
    body: Vec<u8>,
}

impl Got {
    fn event(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Clone)]
struct Script {
    does: Arc<Mutex<VecDeque<Does>>>,
    then: Does,
    got: mpsc::UnboundedSender<Got>,
}

async fn answer(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(text("content-type").as_deref(), Some("application/cloudevents+json"));
    let does = script.does.lock().unwrap().pop_front().unwrap_or(script.then);
    let key = text("idempotency-key").unwrap();
    // The test may be over.
    drop(script.got.send(Got { key, signature: text("counterfoil-signature"), body: body.to_vec() }));
    match does {
        Does::Answer(status) => StatusCode::from_u16(status).unwrap(),
        Does::Hang => std::future::pending().await,
    }
}

/// A server that does this, one by one, and that from then on.
async fn server(does: &[Does], then: Does) -> (Webhook, mpsc::UnboundedReceiver<Got>) {
    // The client wants one even for plain HTTP; another test may have installed it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let (got, received) = mpsc::unbounded_channel();
    let script = Script { does: Arc::new(Mutex::new(does.iter().copied().collect())), then, got };
    let router = axum::Router::new().fallback(answer).with_state(script);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (Webhook { url, secret: Some(Secret::new(b"between us and the desk")) }, received)
}

async fn next(received: &mut mpsc::UnboundedReceiver<Got>) -> Got {
    tokio::time::timeout(EVER, received.recv()).await.expect("a letter within a minute").unwrap()
}

fn sending(timeout_ms: u64) -> Sending {
    Sending {
        timeout: Duration::from_millis(timeout_ms),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(100),
    }
}

fn to(name: &str, webhook: &Webhook) -> Route {
    Route { webhook: Some(webhook.clone()), ..route(name) }
}

struct Telling {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Telling {
    fn begin(ledger: &Arc<SqlLedger>, routes: &Routes) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(notify::run(Arc::clone(ledger), Arc::new(routes.clone()), stopped));
        Self { task, stop }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// Records of which each opens an exception of that code.
async fn flagged(ledger: &SqlLedger, store_id: &str, first: u64, code: &'static str, count: u64) -> Vec<String> {
    let record = |_| {
        let flags = vec![Flag { code: code.into(), pointer: "/totals".to_owned() }];
        let envelope = Envelope { flags, ..Envelope::default() };
        Record { kind: Kind::FINDING, envelope, document: b"{}".to_vec() }.encode().unwrap()
    };
    let (source, of) = (source(store_id, "a"), epoch(store_id.len().try_into().unwrap()));
    let records = (0..count).map(record).collect();
    ledger.take(&[arrival(&source, of, Lane::Trade, first, records)]).await.unwrap();
    post_all(ledger).await;
    let key = |seq| RecordKey { epoch: of, lane: Lane::Trade, seq: Seq(seq) };
    (first..first + count).map(|seq| crate::posting::exception_id(key(seq), code)).collect()
}

async fn change(ledger: &SqlLedger, seq: u64, id: &str, what: &str) {
    let text = format!(r#"{{"exception_id":"{id}","change":"{what}","by":"ana","reason":"seen"}}"#);
    let record = Record { kind: Kind::EXCEPTION_CHANGE, envelope: Envelope::default(), document: text.into_bytes() };
    let arrival = arrival(&source("0001", "a"), epoch(4), Lane::Trade, seq, vec![record.encode().unwrap()]);
    ledger.take(&[arrival]).await.unwrap();
    post_all(ledger).await;
}

/// Waits until nothing waits to be delivered and that many exceptions were told.
async fn all_told(ledger: &SqlLedger, count: usize) -> Vec<ExceptionView> {
    let told = async {
        loop {
            let filter = ExceptionFilter { limit: 1_000, ..ExceptionFilter::default() };
            let views = ledger.exceptions(&filter).await.unwrap();
            let told = views.iter().filter(|view| view.notified_at.is_some()).count();
            if told == count && ledger.gauges().await.unwrap().letters_waiting == 0 {
                return views;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(EVER, told).await.expect("all is told within a minute")
}

#[tokio::test]
async fn a_webhook_that_fails_and_hangs_gets_the_same_letter_until_it_takes_it() {
    for place in places() {
        let ledger = Arc::new(place.open().await);
        let does = [Does::Answer(500), Does::Hang, Does::Answer(302)];
        let (webhook, mut received) = server(&does, Does::Answer(204)).await;
        let regions = [("0001".to_owned(), "north".to_owned())].into();
        let routes = Routes { routes: vec![to("desk", &webhook)], regions, sending: sending(300), ..Routes::default() };
        let ids = flagged(&ledger, "0001", 1, flag::TOTALS_MISMATCH, 1).await;
        let telling = Telling::begin(&ledger, &routes);
        let mut letters = Vec::new();
        for _ in 0..4 {
            letters.push(next(&mut received).await);
        }
        assert!(letters.iter().all(|letter| *letter == letters[0]), "{letters:?}");
        let signed = Secret::new(b"between us and the desk").sign(&letters[0].body);
        assert_eq!(letters[0].signature, Some(signed));
        let event = letters[0].event();
        assert_eq!(event["id"], letters[0].key.as_str());
        assert_eq!((event["specversion"].as_str(), event["subject"].as_str()), (Some("1.0"), Some(ids[0].as_str())));
        assert_eq!(
            (event["type"].as_str(), event["source"].as_str()),
            (Some("counterfoil.exception.open"), Some("/stores/0001/agents/a"))
        );
        let data = &event["data"];
        assert_eq!((data["owner"].as_str(), data["region"].as_str()), (Some("desk-desk"), Some("north")));
        assert_eq!((data["code"].as_str(), data.get("age_s")), (Some(flag::TOTALS_MISMATCH), None));
        let views = all_told(&ledger, 1).await;
        assert_eq!((views[0].owner.as_deref(), views[0].route.as_deref()), (Some("desk-desk"), Some("desk")));
        telling.end().await;
        assert!(received.try_recv().is_err(), "what was taken is not sent again");
    }
}

#[tokio::test]
async fn a_webhook_that_is_down_delays_no_other() {
    for place in places() {
        let ledger = Arc::new(place.open().await);
        let (dead, mut never) = server(&[], Does::Hang).await;
        let (alive, mut received) = server(&[], Does::Answer(200)).await;
        let narrow = Route { codes: vec![flag::TAX_MISMATCH.to_owned()], ..to("dead", &dead) };
        let timeout = 5_000;
        let routes =
            Routes { routes: vec![narrow, to("alive", &alive)], sending: sending(timeout), ..Routes::default() };
        flagged(&ledger, "0001", 1, flag::TAX_MISMATCH, 10).await;
        flagged(&ledger, "0001", 11, flag::TOTALS_MISMATCH, 20).await;
        let telling = Telling::begin(&ledger, &routes);
        next(&mut never).await;
        let all = async {
            for _ in 0..20 {
                next(&mut received).await;
            }
        };
        let patience = Duration::from_millis(10 * timeout);
        tokio::time::timeout(patience, all).await.expect("twenty letters before ten time out one after the other");
        assert!(ledger.gauges().await.unwrap().letters_waiting >= 10);
        telling.end().await;
    }
}

#[tokio::test]
async fn a_hub_that_dies_before_it_notes_a_delivery_leaves_the_letter_to_the_next() {
    for place in places() {
        let ledger = Arc::new(place.open().await);
        let (webhook, mut received) = server(&[Does::Hang], Does::Answer(200)).await;
        let routes = Routes { routes: vec![to("desk", &webhook)], sending: sending(400), ..Routes::default() };
        flagged(&ledger, "0001", 1, flag::TOTALS_MISMATCH, 1).await;
        let telling = Telling::begin(&ledger, &routes);
        let first = next(&mut received).await;
        // The webhook has it, and nobody will note that.
        telling.task.abort();
        assert!(telling.task.await.unwrap_err().is_cancelled());
        drop(ledger);
        let ledger = Arc::new(place.open().await);
        assert_eq!(ledger.gauges().await.unwrap().letters_waiting, 1);
        let telling = Telling::begin(&ledger, &routes);
        assert_eq!(next(&mut received).await, first, "the same letter under the same key");
        all_told(&ledger, 1).await;
        telling.end().await;
        assert!(received.try_recv().is_err());
    }
}

#[tokio::test]
async fn two_processes_deliver_each_letter_once() {
    for place in places() {
        let hubs = [Arc::new(place.open().await), Arc::new(place.open().await)];
        let (webhook, mut received) = server(&[], Does::Answer(200)).await;
        let routes = Routes { routes: vec![to("desk", &webhook)], sending: sending(10_000), ..Routes::default() };
        let telling: Vec<Telling> = hubs.iter().map(|hub| Telling::begin(hub, &routes)).collect();
        flagged(&hubs[0], "0001", 1, flag::TOTALS_MISMATCH, 25).await;
        flagged(&hubs[1], "00002", 1, flag::TOTALS_MISMATCH, 25).await;
        all_told(&hubs[0], 50).await;
        for telling in telling {
            telling.end().await;
        }
        let (mut keys, mut subjects) = (BTreeSet::new(), BTreeSet::new());
        while let Ok(got) = received.try_recv() {
            subjects.insert(got.event()["subject"].as_str().unwrap().to_owned());
            assert!(keys.insert(got.key), "delivered twice");
        }
        assert_eq!((keys.len(), subjects.len()), (50, 50));
    }
}

/// The kinds of letters that are due at a target, which are taken with that.
async fn due(ledger: &SqlLedger, target: &str) -> Vec<String> {
    let letters = ledger.take_letters(target, 100, 1_000_000).await.unwrap();
    let kind = |letter: &Letter| {
        let event: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
        let kind = event["type"].as_str().unwrap().trim_start_matches("counterfoil.exception.").to_owned();
        format!("{kind} {} {}", event["subject"].as_str().unwrap(), event["data"]["owner"].as_str().unwrap())
    };
    let mut kinds: Vec<String> = letters.iter().map(kind).collect();
    kinds.sort();
    kinds
}

#[tokio::test]
async fn each_change_is_told_once_and_what_nobody_ends_is_escalated_once() {
    for place in places() {
        let ledger = place.open().await;
        let (webhook, _received) = server(&[], Does::Answer(200)).await;
        let after = Duration::from_hours(1);
        let escalation = Some(Escalation { after, owner: "boss".to_owned(), webhook: Some(webhook.clone()) });
        let routes = Routes { routes: vec![Route { escalation, ..to("desk", &webhook) }], ..Routes::default() };
        let ids = flagged(&ledger, "0001", 1, flag::TOTALS_MISMATCH, 3).await;
        let then = escalation_target("desk");
        let of = |kind: &str, id: usize, owner: &str| format!("{kind} {} {owner}", ids[id]);
        let sorted = |mut texts: Vec<String>| {
            texts.sort();
            texts
        };
        assert_eq!(ledger.tell(&routes).await.unwrap(), 3);
        assert_eq!(ledger.tell(&routes).await.unwrap(), 0);
        assert_eq!(due(&ledger, "desk").await, sorted((0..3).map(|id| of("open", id, "desk-desk")).collect()));
        assert_eq!(due(&ledger, "desk").await, Vec::<String>::new(), "they are in a hand already");
        change(&ledger, 4, &ids[1], "acknowledged").await;
        change(&ledger, 5, &ids[2], "resolved").await;
        while ledger.tell(&routes).await.unwrap() > 0 {}
        let expected = sorted(vec![of("acknowledged", 1, "desk-desk"), of("resolved", 2, "desk-desk")]);
        assert_eq!(due(&ledger, "desk").await, expected);
        assert_eq!(due(&ledger, &then).await, Vec::<String>::new(), "an hour is not over");
        let older = "UPDATE exceptions SET escalate_at = escalate_at - 3600000";
        let mut tx = ledger.database.begin(Role::Desk).await.unwrap();
        tx.execute_many(older, vec![vec![]]).await.unwrap();
        tx.commit().await.unwrap();
        while ledger.tell(&routes).await.unwrap() > 0 {}
        let expected = sorted(vec![of("escalated", 0, "boss"), of("escalated", 1, "boss")]);
        assert_eq!(due(&ledger, &then).await, expected, "what ended is not");
        change(&ledger, 6, &ids[0], "acknowledged").await;
        while ledger.tell(&routes).await.unwrap() > 0 {}
        assert_eq!(due(&ledger, "desk").await, [of("acknowledged", 0, "boss")], "it stays with whom it went to");
        assert_eq!(due(&ledger, &then).await, Vec::<String>::new(), "once");
        let views = exceptions(&ledger, flag::TOTALS_MISMATCH).await;
        let owners: BTreeMap<&str, _> =
            views.iter().map(|view| (view.id.as_str(), (view.owner.as_deref(), view.escalated_at.is_some()))).collect();
        assert_eq!(owners[ids[0].as_str()], (Some("boss"), true));
        assert_eq!(owners[ids[2].as_str()], (Some("desk-desk"), false));
    }
}

#[tokio::test]
async fn what_ended_before_anybody_was_told_is_not_told_and_a_route_without_a_webhook_names_the_owner_alone() {
    for place in places() {
        let ledger = place.open().await;
        let (webhook, _received) = server(&[], Does::Answer(200)).await;
        let silent = Route { codes: vec![flag::TAX_MISMATCH.to_owned()], ..route("silent") };
        let routes = Routes { routes: vec![silent, to("desk", &webhook)], ..Routes::default() };
        let ended = flagged(&ledger, "0001", 1, flag::TOTALS_MISMATCH, 1).await;
        change(&ledger, 2, &ended[0], "waived").await;
        flagged(&ledger, "0001", 3, flag::TAX_MISMATCH, 1).await;
        while ledger.tell(&routes).await.unwrap() > 0 {}
        assert_eq!(ledger.gauges().await.unwrap().letters_waiting, 0);
        let owner = exceptions(&ledger, flag::TAX_MISMATCH).await[0].owner.clone();
        assert_eq!(owner.as_deref(), Some("silent-desk"));
    }
}
