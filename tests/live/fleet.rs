//! The hub's pages in a real browser: a fleet of some hundred stores in a real ledger, one of them with a real agent.
//!
//! The other stores are put into the ledger the way the receiver puts them: hello, presence, batches, positions. Time cannot be waited for,
//! so that a store is made silent by setting back when it was last heard.

use std::fmt::Write as _;
use std::time::Duration;

use counterfoil_hub::ledger::postgres::Postgres as Database;
use counterfoil_hub::ledger::{Arrival, Ledger, PostingBounds, SafeWhen, SqlLedger};
use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, Seq, SessionId, Source, StoreId};
use counterfoil_proto::message::{
    Batch, BatchHead, Codec, EpochHeads, Hello, LaneHead, Presence, Versions, WireVersion,
};
use counterfoil_proto::record::{Context, Kind, Record, prepare};
use counterfoil_proto::time::{ClockQuality, WallTime};
use serde_json::{Value, json};
use world::agent::{Agent, Mqtt};
use world::broker::Broker;
use world::browser::{DESKTOP, PHONE, Page, TABLET, screenshots};
use world::http::Api;
use world::hub::Hub;
use world::postgres::Postgres;

use crate::stage::{post, sale};

const STORES: u64 = 400;
const SALES: u64 = 4;
const LIMIT: Duration = Duration::from_mins(1);

/// What is the matter with the store of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lot {
    Good,
    Behind,
    Offline,
    Silent,
    Odd,
}

fn lot(number: u64) -> Lot {
    match number {
        _ if number % 40 == 11 => Lot::Odd,
        _ if number % 50 == 7 => Lot::Offline,
        _ if number % 33 == 5 => Lot::Silent,
        _ if number % 20 == 3 => Lot::Behind,
        _ => Lot::Good,
    }
}

fn name(number: u64) -> String {
    format!("{:04}", 1_000 + number)
}

fn of_lot(wanted: Lot) -> usize {
    (0..STORES).filter(|number| lot(*number) == wanted).count()
}

fn record(kind: Kind, document: &Value, context: &Context, recorded_at: WallTime) -> Vec<u8> {
    let prepared = prepare(kind, document.to_string().as_bytes(), None, context).unwrap();
    let mut envelope = prepared.envelope;
    envelope.recorded_at = recorded_at;
    Record { kind: prepared.kind, envelope, document: prepared.document }.encode().unwrap()
}

/// The records of a store: sales, and for every second one a close that matches.
fn records(number: u64, context: &Context, now: i64) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = (1..=SALES)
        .map(|receipt| {
            let mut document = sale(receipt, 500 + 10 * receipt);
            if lot(number) == Lot::Odd && receipt == 2 {
                document["totals"]["gross"] = "99.00".into();
            }
            record(Kind::TRANSACTION, &document, context, WallTime(now - 3_600_000))
        })
        .collect();
    if number.is_multiple_of(2) && lot(number) != Lot::Odd {
        let close = json!({"document_id": format!("close-{number}"), "workstation_id": "1", "business_day_date": "2026-11-23",
            "end_date_time": "2026-11-23T20:00:00Z", "totals": [{"currency_code": "GBP", "transactions": SALES, "gross": "21.00"}]});
        records.push(record(Kind::DAY_CLOSE, &close, context, WallTime(now - 3_600_000)));
    }
    records
}

async fn put_store(ledger: &SqlLedger, number: u64, now: i64) -> Arrival {
    let store_id = StoreId::new(&name(number)).unwrap();
    let source = Source { store_id: store_id.clone(), agent_id: AgentId::new("box1").unwrap() };
    let context = Context {
        store_id,
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    };
    let records = records(number, &context, now);
    let session = SessionId(u128::from(number + 1).to_le_bytes());
    let epoch = Epoch(u128::from(number + 7_000).to_le_bytes());
    let missing = if lot(number) == Lot::Behind { 10 + number } else { 0 };
    let last = Seq(u64::try_from(records.len()).unwrap() + missing);
    let head = LaneHead { lane: Lane::Trade, first: Seq(1), chain_before: None, last, chain: None, gone: vec![] };
    let hello = Hello {
        versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
        software: "counterfoil 0.1.0".to_owned(),
        session,
        round: 1,
        page: 0,
        pages: 1,
        wall_time: WallTime(now),
        clock: ClockQuality::Synchronised,
        epochs: vec![EpochHeads { epoch, parent: None, live: true, lanes: vec![head] }],
        downlink: vec![],
    };
    ledger.hello(&source, &hello).await.unwrap();
    let state = if lot(number) == Lot::Offline { "offline" } else { "online" }.to_owned();
    let presence = Presence { state, session, epoch: Some(epoch), software: "counterfoil 0.1.0".to_owned() };
    ledger.presence(&source, &presence).await.unwrap();
    let first = RecordKey { epoch, lane: Lane::Trade, seq: Seq(1) };
    let count = u32::try_from(records.len()).unwrap();
    let head = BatchHead { session, first, count, codec: Codec::Plain, plain_bytes: 0 };
    Arrival { source, batch: Batch { head, records } }
}

/// Puts the stores into the ledger.
async fn put_fleet(postgres: &Postgres, url: &str) {
    let database = Database::new(url.parse().unwrap(), None);
    let ledger = SqlLedger::open(Box::new(database), SafeWhen::Stored).await.unwrap();
    let now = counterfoil_hub::env::wall().0;
    let mut arrivals = Vec::new();
    for number in 0..STORES {
        arrivals.push(put_store(&ledger, number, now).await);
    }
    for group in arrivals.chunks(64) {
        ledger.take(group).await.unwrap();
    }
    let bounds = PostingBounds { records_max: 1_000, bytes_max: 1 << 24, opaque: false };
    while ledger.post(bounds).await.unwrap().more {}
    let client = postgres.client("ledger").await.unwrap();
    for number in (0..STORES).filter(|number| lot(*number) == Lot::Silent) {
        let (store, then) = (name(number), now - 3 * 3_600_000);
        for sql in [
            "UPDATE streams SET seen_at = $2 WHERE store_id = $1",
            "UPDATE agents SET hello_at = $2 WHERE store_id = $1",
        ] {
            client.execute(sql, &[&store, &then]).await.unwrap();
        }
    }
}

fn regions() -> String {
    let mut text = String::from("[exceptions]\n");
    for (index, region) in ["North", "South", "West"].iter().enumerate() {
        let stores = (0..STORES).filter(|number| usize::try_from(*number % 3).unwrap() == index).map(name);
        let mut stores: Vec<String> = stores.collect();
        if index == 2 {
            stores.extend(["9998", "9999"].map(str::to_owned));
        }
        write!(text, "[[exceptions.region]]\nname = {region:?}\nstores = {stores:?}\n").unwrap();
    }
    text
}

async fn count_of(page: &mut Page, state: &str) -> u64 {
    let text = page.eval(&format!("document.querySelector('#filters [data-state={state}] b').textContent")).await;
    text.as_str().unwrap().replace(',', "").parse().unwrap()
}

#[tokio::test]
async fn a_fleet_is_seen_at_a_glance_and_a_store_in_depth() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::plain().await;
    let postgres = Postgres::new().await;
    let url = postgres.create_database("ledger").await;
    put_fleet(&postgres, &url).await;
    let mqtt = Mqtt { url: broker.url(), identity: None };
    let mut hub = Hub::new(&directory.path().join("hub"), "hub1", &mqtt, &url, &regions());
    hub.start();
    hub.ready().await;
    let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, "");
    agent.start();
    agent.ready().await;
    let mut odd = sale(1, 499);
    odd["document_id"] = "<img src=x onerror=document.body.id='owned'>".into();
    odd["tenders"][0]["amount"] = "9.00".into();
    odd["totals"]["gross"] = "9.00".into();
    assert_eq!(post(&agent.api(), &odd).await.status, 201);
    agent.drained(LIMIT).await;
    let api = hub.api();
    let base = api.base().to_owned();

    let matched = the_api_tells(&api).await;
    let mut page = Page::new().await;
    page.look(DESKTOP, false).await;
    page.open(&format!("{base}/?day=2026-11-23")).await;
    page.until("document.querySelectorAll('.cells a').length > 400").await;
    page.until("document.querySelector('#rate').textContent.endsWith('records/s')").await;
    // The real store's exception is counted among the serious ones; two stores of the configuration never spoke.
    page.until(&format!(
        "document.querySelector('#filters [data-state=bad] b').textContent === '{}'",
        of_lot(Lot::Odd) + 1
    ))
    .await;
    let unknown = u64::try_from(of_lot(Lot::Silent) + of_lot(Lot::Offline) + 2).unwrap();
    assert_eq!(count_of(&mut page, "unknown").await, unknown);
    assert_eq!(count_of(&mut page, "behind").await, u64::try_from(of_lot(Lot::Behind)).unwrap());
    page.shows(&format!("✓ Matches\n{matched}")).await;
    page.pictures(&screenshots(), "fleet", &[TABLET, DESKTOP, PHONE]).await;
    page.look(DESKTOP, false).await;
    with_the_keyboard(&mut page).await;

    page.open(&format!("{base}/stores/0042?day=2026-11-23")).await;
    page.shows("1 serious exception is open").await;
    page.shows("The lines of this receipt do not add up").await;
    page.shows("Not closed yet").await;
    page.pictures(&screenshots(), "store", &[TABLET, DESKTOP]).await;
    assert_eq!(page.eval("document.body.id !== 'owned' && document.images.length === 0").await, true);
    page.open(&format!("{base}/stores/{}?day=2026-11-23", name(5))).await;
    page.shows("Silent: nobody knows what this store sells").await;
    page.shows("? Silent").await;
    assert_eq!(
        page.eval("document.querySelector('#lanes td:nth-child(6)').textContent").await,
        "unknown",
        "never zero"
    );
    page.pictures(&screenshots(), "store-silent", &[DESKTOP]).await;
    page.open(&format!("{base}/stores/nobody")).await;
    page.shows("No agent of this store ever spoke to this hub").await;
    assert_eq!(page.faults(), [""; 0]);

    page.open(&format!("{}/", base.replace("127.0.0.1", "evil.example"))).await;
    page.shows("Host not allowed").await;
    page.open(&format!("{base}/")).await;
    page.shows("The fleet").await;
    page.until("document.querySelectorAll('.cells a').length > 400").await;
    hub.kill();
    page.shows("No answer from the hub since").await;
}

/// What the API says of the fleet; gives how many stores match.
async fn the_api_tells(api: &Api) -> usize {
    let fleet: Value = api.json("/v1/fleet").await.unwrap();
    let days: Value = api.json("/v1/reconciliation?business_day=2026-11-23").await.unwrap();
    let silent = fleet["stores"].as_array().unwrap().iter().find(|store| store["store_id"] == name(5)).unwrap();
    assert_eq!(
        (&silent["standing"], &silent["lag"], &silent["lag_s"]),
        (&"unknown".into(), &Value::Null, &Value::Null)
    );
    let matched = days["stores"].as_array().unwrap().iter().filter(|store| store["status"] == "matched").count();
    assert!(matched > 150, "{days}");
    matched
}

/// Filters, moves over the grid and opens a store, all with keys.
async fn with_the_keyboard(page: &mut Page) {
    page.eval("document.activeElement.blur()").await;
    page.tab_to("#filters [data-state=behind]").await;
    page.press("Enter").await;
    let behind = of_lot(Lot::Behind);
    page.until(&format!("document.querySelectorAll('.cells a').length === {behind}")).await;
    page.tab_to(".cells a").await;
    let stop = "document.querySelectorAll('.cells a[tabindex=\"0\"]').length";
    assert_eq!(page.eval(stop).await, 1, "one stop for Tab in all of the grid");
    let first = page.eval("document.activeElement.textContent").await;
    page.press("ArrowRight").await;
    page.press("ArrowDown").await;
    let second = page.eval("document.activeElement.lastChild.textContent").await;
    assert_ne!(first, second);
    let about = page.text("pointed").await;
    assert!(about.contains("Behind") && about.contains(second.as_str().unwrap()), "{about}");
    // The focus stays where it is while figures come in.
    page.eval("window.rounds = 0; new MutationObserver(() => { window.rounds += 1; }).observe(document.getElementById('live'), {childList: true})").await;
    page.until("window.rounds > 1").await;
    assert_eq!(page.eval("document.activeElement.lastChild.textContent").await, second);
    page.press("Enter").await;
    page.until("location.pathname.startsWith('/stores/')").await;
    page.shows("are known of and not here").await;
    page.shows("whole up to 1 h").await;
}
