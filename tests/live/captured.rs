//! A day of MQTT traffic, captured and played three more times, and its morning once more: no total, no stock, no count changes.
//!
//! What a hub may well say is that somebody speaks with the voice of the past: old hellos look like a copy of the box.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};
use serde_json::{Value, json};
use world::broker::Broker;
use world::checkout::verdict::named;
use world::ledger::Ledger;
use world::wait::Deadline;

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(2);
const UP: &str = "counterfoil/v1/+/+/up/#";

/// Somebody on the broker.
pub(crate) struct Peer {
    pub(crate) client: AsyncClient,
    events: EventLoop,
}

impl Peer {
    pub(crate) fn new(broker: &Broker, id: &str) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.port());
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::new(options, 64);
        Self { client, events }
    }

    pub(crate) async fn next(&mut self) -> Incoming {
        loop {
            let event = tokio::time::timeout(LIMIT, self.events.poll()).await.expect("the broker speaks in time");
            if let Event::Incoming(incoming) = event.expect("the line to the broker holds") {
                return incoming;
            }
        }
    }
}

/// What went up, in order.
pub(crate) async fn capture(broker: &Broker) -> tokio::task::JoinHandle<Vec<(String, Vec<u8>)>> {
    let mut peer = Peer::new(broker, "listener");
    for topic in [UP, "end"] {
        peer.client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
    }
    let mut confirmed = 0;
    while confirmed < 2 {
        confirmed += usize::from(matches!(peer.next().await, Incoming::SubAck(_)));
    }
    tokio::spawn(async move {
        let mut heard = Vec::new();
        loop {
            if let Incoming::Publish(publish) = peer.next().await {
                if publish.topic == "end" {
                    return heard;
                }
                heard.push((publish.topic.clone(), publish.payload.to_vec()));
            }
        }
    })
}

/// Publishes messages in order; each is confirmed before the next.
pub(crate) async fn play(broker: &Broker, messages: &[(String, Vec<u8>)]) {
    let mut peer = Peer::new(broker, "player");
    for (topic, payload) in messages {
        peer.client.publish(topic, QoS::AtLeastOnce, false, payload.clone()).await.unwrap();
        while !matches!(peer.next().await, Incoming::PubAck(_)) {}
    }
}

/// A figure of the hub.
async fn figure(stage: &Stage, name: &str) -> u64 {
    let text = String::from_utf8(stage.hub.api().success("/metrics").await.unwrap().body).unwrap();
    let name = format!("counterfoil_hub_{name} ");
    text.lines().find_map(|line| line.strip_prefix(name.as_str())?.parse().ok()).unwrap()
}

/// What must not change: totals, stock with the place that it reflects, records.
async fn books(stage: &Stage) -> Value {
    let api = stage.hub.api();
    let get = async |path: &str| api.json::<Value>(path).await.unwrap();
    let mut stock = get("/v1/stock?store=0042").await;
    for agent in stock["agents"].as_array_mut().unwrap() {
        agent.as_object_mut().unwrap().remove("received_at");
    }
    let mut ledger = Ledger::default();
    ledger.read_on(&api).await.unwrap();
    assert_eq!(ledger.faults, Vec::<String>::new());
    let harmful = named(&api, "0042").await.unwrap().into_iter().filter(|code| code != "CLONE" && code != "ROLLBACK");
    assert_eq!(harmful.collect::<Vec<_>>(), Vec::<String>::new());
    json!({
        "totals": get("/v1/totals?store=0042&business_day=2026-11-23").await,
        "stock": stock,
        "records": ledger.position(),
        "forks": figure(stage, "ledger_forks").await,
    })
}

/// A day: a count of the shelf, sales, a delivery, a restart in the middle, and the close.
async fn day(stage: &mut Stage) {
    let movement = |id: &str, kind: &str, quantity: &str| {
        json!({"document_id": id, "type": kind, "business_day_date": "2026-11-23",
            "end_date_time": "2026-11-23T07:00:00+00:00",
            "line_items": [{"line": 1, "item_id": "85123A", "quantity": quantity, "unit": "EA"}]})
    };
    let move_stock = async |stage: &Stage, document: Value| {
        let body = document.to_string().into_bytes();
        let answer = stage.agent.api().post("/v1/stock-movements", "application/json", body).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    move_stock(stage, movement("count-1", "count", "1000")).await;
    for number in 1..=40 {
        assert_eq!(post(&stage.agent.api(), &sale(number, number)).await.status, 201);
        if number == 20 {
            stage.agent.drained(LIMIT).await;
            stage.agent.stop().await;
            stage.agent.start();
            stage.agent.ready().await;
            move_stock(stage, movement("delivery-1", "receipt", "12")).await;
        }
    }
    stage.agent.drained(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_day_played_three_more_times_changes_nothing() {
    let mut stage = Stage::new().await;
    let listening = capture(&stage.broker).await;
    // The agent that is already connected says hello again, so that the day begins with one.
    stage.agent.stop().await;
    stage.agent.start();
    stage.agent.ready().await;
    day(&mut stage).await;
    // A last session says where the shelf stands at the end of the day.
    stage.agent.stop().await;
    stage.agent.start();
    stage.agent.ready().await;
    stage.agent.drained(LIMIT).await;
    let on_hand = json!("972");
    let deadline = Deadline::new(LIMIT);
    while stage.hub.api().json::<Value>("/v1/stock?store=0042").await.unwrap().pointer("/items/0/on_hand")
        != Some(&on_hand)
    {
        deadline.rest_for("the hub to know the shelf").await;
    }
    while figure(&stage, "ledger_records").await != figure(&stage, "ledger_last_position").await {
        deadline.rest_for("every record to have its position").await;
    }
    stage.agent.stop().await;
    play(&stage.broker, &[("end".to_owned(), Vec::new())]).await;
    let heard = listening.await.unwrap();
    let of = |kind: &str| heard.iter().filter(|(topic, _)| topic.ends_with(kind)).cloned().collect::<Vec<_>>();
    let (hellos, batches, positions) = (of("/hello"), of("/trade").len() + of("/stock").len(), of("/positions").len());
    assert!(
        hellos.len() >= 3 && batches >= 3 && positions >= 2,
        "{} hellos, {batches} batches, {positions}",
        hellos.len()
    );

    let before = books(&stage).await;
    for round in 1..=3 {
        play_and_settle(&stage, &heard, &hellos[0]).await;
        assert_eq!(books(&stage).await, before, "after round {round}");
    }
    // The morning alone: up to the first word about the shelf, which knew nothing of the afternoon.
    let first = heard.iter().position(|(topic, _)| topic.ends_with("/positions")).unwrap();
    play_and_settle(&stage, &heard[..=first], &hellos[0]).await;
    assert_eq!(books(&stage).await, before, "after the morning");
}

/// Plays messages, and waits until the hub has dealt with all of them: it answers hellos in the order of arrival, so one closes the round.
async fn play_and_settle(stage: &Stage, messages: &[(String, Vec<u8>)], hello: &(String, Vec<u8>)) {
    let count = |kinds: &[&str]| {
        messages.iter().filter(|(topic, _)| kinds.iter().any(|kind| topic.ends_with(kind))).count() as u64
    };
    let hellos = figure(stage, "hellos_total").await + count(&["/hello"]) + 1;
    let batches = figure(stage, "batches_total").await + count(&["/trade", "/stock", "/ops"]);
    play(&stage.broker, messages).await;
    play(&stage.broker, std::slice::from_ref(hello)).await;
    let deadline = Deadline::new(LIMIT);
    while figure(stage, "hellos_total").await < hellos || figure(stage, "batches_total").await < batches {
        deadline.rest_for(&format!("the hub to have {hellos} hellos and {batches} batches")).await;
    }
}
