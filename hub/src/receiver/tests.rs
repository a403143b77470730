//! The receiver by itself, over a ledger in SQLite that fails when it is told to: what it answers, groups, keeps, repeats and asks for.
//!
//! Method: its steps are called one by one under a scripted clock, and what it says to agents is read from a queue.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, SeqRange, StoreId};
use counterfoil_proto::message::{EpochHeads, LaneHead, Versions};
use counterfoil_proto::time::{ClockQuality, WallTime};

use super::*;
use crate::env::Script;
use crate::ledger::sql::{Database, Role, Row, Transaction, Value, Work};
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{SafeWhen, SqlLedger};

mod barred;

const SESSION: SessionId = SessionId([5; 16]);
const EPOCH: Epoch = Epoch([6; 16]);

/// A database whose next intake transactions fail as told.
#[derive(Debug)]
struct Balking {
    inner: Sqlite,
    next: Arc<Mutex<VecDeque<Option<LedgerError>>>>,
}

impl Database for Balking {
    fn migrate(&self) -> Work<'_, ()> {
        self.inner.migrate()
    }

    fn begin(&self, role: Role) -> Work<'_, Box<dyn Transaction>> {
        let balk = if role == Role::Intake { self.next.lock().unwrap().pop_front().flatten() } else { None };
        match balk {
            Some(error) => Box::pin(std::future::ready(Err(error))),
            None => self.inner.begin(role),
        }
    }

    fn read(&self, sql: &'static str, params: Vec<Value>) -> Work<'_, Vec<Row>> {
        self.inner.read(sql, params)
    }

    fn read_many(&self, sql: &'static str, params: Vec<Vec<Value>>) -> Work<'_, Vec<Vec<Row>>> {
        self.inner.read_many(sql, params)
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }
}

struct Rig {
    receiver: Receiver,
    down: mpsc::UnboundedReceiver<(Source, Down)>,
    database: Sqlite,
    balks: Arc<Mutex<VecDeque<Option<LedgerError>>>>,
    woken: watch::Receiver<u64>,
    script: Script,
    now: u64,
    _stop: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

fn source(agent_id: &str) -> Source {
    Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new(agent_id).unwrap() }
}

const fn key(lane: Lane, seq: u64) -> RecordKey {
    RecordKey { epoch: EPOCH, lane, seq: Seq(seq) }
}

fn message(agent_id: &str, up: Up, payload: Vec<u8>) -> Incoming {
    Incoming { source: source(agent_id), up, payload: payload.into(), is_retained: false, room: None }
}

/// Bytes that nobody has to understand.
fn batch(agent_id: &str, first: u64, records: &[Vec<u8>]) -> Incoming {
    let bytes = codec::encode_batch(SESSION, key(Lane::Trade, first), records, |_| None).unwrap();
    message(agent_id, Up::Batch(Lane::Trade), bytes)
}

fn records(first: u64, count: u64) -> Vec<Vec<u8>> {
    (first..first + count).map(|number| number.to_be_bytes().to_vec()).collect()
}

fn hello(agent_id: &str, last: u64) -> Incoming {
    let lane =
        LaneHead { lane: Lane::Trade, first: Seq(1), chain_before: None, last: Seq(last), chain: None, gone: vec![] };
    let hello = Hello {
        versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
        software: "test".to_owned(),
        session: SESSION,
        round: 1,
        page: 0,
        pages: 1,
        wall_time: WallTime(0),
        clock: ClockQuality::Synchronised,
        epochs: vec![EpochHeads { epoch: EPOCH, parent: None, live: true, lanes: vec![lane] }],
        downlink: vec![],
    };
    message(agent_id, Up::Hello, codec::encode(&hello).unwrap())
}

impl Rig {
    async fn new() -> Self {
        let script = Script::begin(1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.db");
        let balks = Arc::new(Mutex::new(VecDeque::new()));
        let balking = Balking { inner: Sqlite::open(&path).unwrap(), next: Arc::clone(&balks) };
        let ledger = Arc::new(SqlLedger::open(Box::new(balking), SafeWhen::Stored).await.unwrap());
        let (queue, down) = mpsc::unbounded_channel();
        let (stored, woken) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let receiver = Receiver::new(ledger, Outlet::queue(queue), counters, stored, stopping);
        let database = Sqlite::open(&path).unwrap();
        Self { receiver, down, database, balks, woken, script, now: 0, _stop: stop, _directory: directory }
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.script.set(Moment(self.now), WallTime(i64::try_from(self.now).unwrap()));
    }

    async fn take(&mut self, messages: Vec<Incoming>) -> Vec<Down> {
        let mut messages = messages;
        self.receiver.take(&mut messages).await.unwrap();
        assert!(messages.is_empty());
        self.said()
    }

    async fn tick(&mut self) -> Vec<Down> {
        self.wait(TICK_MS);
        self.receiver.tick().await.unwrap();
        self.said()
    }

    fn said(&mut self) -> Vec<Down> {
        std::iter::from_fn(|| self.down.try_recv().ok()).map(|(_, down)| down).collect()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.database.read(sql, vec![]).await.unwrap().remove(0).read().int().unwrap()
    }

    fn counted(&self, counter: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64) -> u64 {
        counter(&self.receiver.counters).load(Ordering::Relaxed)
    }
}

/// The first number and reason of each refusal.
fn nacks(said: &[Down]) -> Vec<(u64, NackReason)> {
    let nack = |down: &Down| match down {
        Down::Nack(nack) => Some((nack.first.seq.0, nack.reason)),
        Down::Welcome(_) | Down::Ack(_) | Down::RangeRequest { .. } | Down::HelloWanted { .. } => None,
    };
    said.iter().filter_map(nack).collect()
}

/// Where the trade lane stands by each ack.
fn acks(said: &[Down]) -> Vec<u64> {
    let ack = |down: &Down| match down {
        Down::Ack(ack) => ack.marks.first().map(|mark| mark.stored.0),
        Down::Welcome(_) | Down::Nack(_) | Down::RangeRequest { .. } | Down::HelloWanted { .. } => None,
    };
    said.iter().filter_map(ack).collect()
}

fn wants_hello(said: &[Down]) -> usize {
    said.iter().filter(|down| matches!(down, Down::HelloWanted { .. })).count()
}

#[tokio::test]
async fn credit_falls_with_the_queue_and_never_to_nothing() {
    let mut rig = Rig::new().await;
    for (queued, credit) in [
        (0, WINDOW_BATCHES_MAX),
        (QUEUE_MESSAGES_MAX / 2, WINDOW_BATCHES_MAX),
        (QUEUE_MESSAGES_MAX * 3 / 4, WINDOW_BATCHES_MAX / 2),
        (QUEUE_MESSAGES_MAX * 7 / 8, WINDOW_BATCHES_MAX / 4),
        (QUEUE_MESSAGES_MAX - 1, 1),
        (QUEUE_MESSAGES_MAX, 1),
        (QUEUE_MESSAGES_MAX * 2, 1),
    ] {
        rig.receiver.queued = queued;
        assert_eq!(rig.receiver.credit(), credit, "{queued}");
    }
}

#[tokio::test]
async fn a_transaction_is_bounded_in_records_and_in_bytes() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1)]).await;
    let full = GROUP_RECORDS_MAX / 512;
    let many = (0..3 * full).map(|number| batch("a", number as u64 * 512 + 1, &records(number as u64 * 512, 512)));
    let said = rig.take(many.collect()).await;
    assert_eq!(rig.counted(|counters| &counters.groups), 3);
    assert_eq!(acks(&said), [8_192, 16_384, 24_576]);

    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1)]).await;
    let large = (0..9_u8).map(|number| batch("a", u64::from(number) + 1, &[vec![number; 1 << 20]]));
    let said = rig.take(large.collect()).await;
    assert_eq!(rig.counted(|counters| &counters.groups), 2, "eight of one MiB, and one");
    assert_eq!(acks(&said), [8, 9]);
}

#[tokio::test]
async fn a_batch_of_another_lane_than_its_topic_is_refused_and_kept_for_a_person() {
    let mut rig = Rig::new().await;
    let mut stray = batch("a", 7, &records(7, 2));
    stray.up = Up::Batch(Lane::Stock);
    let said = rig.take(vec![stray]).await;
    assert_eq!(nacks(&said), [(7, NackReason::Undecodable)]);
    assert!(acks(&said).is_empty());
    assert_eq!(rig.count("SELECT COUNT(*) FROM records").await, 0);
    assert_eq!(rig.count("SELECT COUNT(*) FROM rejects").await, 1);
}

#[tokio::test]
async fn a_flood_of_what_does_not_decode_is_answered_and_kept_up_to_a_bound_a_minute() {
    let mut rig = Rig::new().await;
    let flood = |first: u64| {
        let spoiled = move |number: u64| {
            let mut message = batch("a", number, &records(number, 1));
            let mut bytes = message.payload.to_vec();
            bytes.push(0);
            message.payload = bytes.into();
            message
        };
        (first..first + 100).map(spoiled).collect::<Vec<_>>()
    };
    let said = rig.take(flood(1)).await;
    assert_eq!(nacks(&said).len(), 100);
    assert_eq!(rig.counted(|counters| &counters.undecodable), 100);
    assert_eq!(rig.count("SELECT COUNT(*) FROM rejects").await, i64::from(REJECTS_A_MINUTE));
    for _ in 0..59 {
        rig.tick().await;
    }
    rig.take(flood(101)).await;
    assert_eq!(rig.count("SELECT COUNT(*) FROM rejects").await, i64::from(REJECTS_A_MINUTE));
    rig.tick().await;
    rig.take(flood(201)).await;
    assert_eq!(rig.count("SELECT COUNT(*) FROM rejects").await, 2 * i64::from(REJECTS_A_MINUTE));
}

#[tokio::test]
async fn only_what_is_new_wakes_the_poster() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 3)]).await;
    rig.woken.mark_unchanged();
    rig.take(vec![batch("a", 1, &records(1, 2))]).await;
    assert!(rig.woken.has_changed().unwrap());
    rig.woken.mark_unchanged();
    let said = rig.take(vec![batch("a", 1, &records(1, 2))]).await;
    assert!(!rig.woken.has_changed().unwrap());
    assert_eq!(acks(&said), [2], "a duplicate is acknowledged all the same");
    assert_eq!(rig.counted(|counters| &counters.duplicates), 2);
}

#[tokio::test]
async fn a_batch_that_the_ledger_does_not_take_holds_up_nobody_else() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9), hello("b", 9)]).await;
    let refusal = || Some(LedgerError::Refused { why: "told to".to_owned() });
    // The group, then the first alone; the second alone is taken.
    rig.balks.lock().unwrap().extend([refusal(), refusal(), None]);
    rig.woken.mark_unchanged();
    let said = rig.take(vec![batch("a", 1, &records(1, 3)), batch("b", 1, &records(11, 4))]).await;
    assert_eq!(nacks(&said), [(1, NackReason::Undecodable)]);
    assert_eq!(acks(&said), [4]);
    assert_eq!(rig.count("SELECT COUNT(*) FROM records").await, 4);
    assert!(rig.woken.has_changed().unwrap());
    assert_eq!(rig.counted(|counters| &counters.ledger_failures), 2);
    let said = rig.take(vec![batch("a", 1, &records(1, 3))]).await;
    assert_eq!(acks(&said), [3], "and it may come again");
}

#[tokio::test]
async fn an_ack_names_by_content_what_was_taken_of_its_session_and_no_more() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9), hello("b", 9)]).await;
    let stranger = codec::encode_batch(SessionId([7; 16]), key(Lane::Trade, 3), &records(3, 1), |_| None).unwrap();
    let group = vec![
        batch("a", 1, &records(1, 2)),
        batch("b", 1, &records(1, 2)),
        message("a", Up::Batch(Lane::Trade), stranger),
        batch("a", WINDOW_SEQS_MAX + 9, &records(9, 1)),
    ];
    rig.receiver.take(&mut group.into_iter().collect()).await.unwrap();
    let mut named = Vec::new();
    for (source, down) in std::iter::from_fn(|| rig.down.try_recv().ok()) {
        if let Down::Ack(ack) = down {
            assert_eq!(ack.session, SESSION);
            named.extend(ack.taken.iter().map(|taken| (source.agent_id.to_string(), taken.range)));
        }
    }
    let range = SeqRange { first: Seq(1), last: Seq(2) };
    assert_eq!(named, [("a".to_owned(), range), ("b".to_owned(), range)]);
}

#[tokio::test]
async fn nobody_is_asked_for_a_hello_twice_at_once() {
    let mut rig = Rig::new().await;
    // The session is not known: the ledger has heard no hello.
    assert_eq!(wants_hello(&rig.take(vec![batch("a", 1, &records(1, 1))]).await), 1);
    rig.wait(HELLO_WANTED_INTERVAL_MS - 1);
    assert_eq!(wants_hello(&rig.take(vec![batch("a", 1, &records(1, 1))]).await), 0);
    assert_eq!(wants_hello(&rig.take(vec![batch("b", 1, &records(1, 1))]).await), 1, "each by itself");
    rig.wait(1);
    assert_eq!(wants_hello(&rig.take(vec![batch("a", 1, &records(1, 1))]).await), 1);
}

#[tokio::test]
async fn what_lies_too_far_ahead_is_refused_and_its_sender_asked() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1)]).await;
    let beyond = WINDOW_SEQS_MAX + 2;
    let said = rig.take(vec![batch("a", beyond, &records(1, 1))]).await;
    assert_eq!(nacks(&said), [(beyond, NackReason::Ahead)]);
    assert_eq!(wants_hello(&said), 1);
}

#[tokio::test]
async fn a_mark_is_repeated_a_few_times_and_a_lane_with_holes_until_it_has_none() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9)]).await;
    rig.take(vec![batch("a", 1, &records(1, 2))]).await;
    for _ in 0..REPEATS {
        assert_eq!(acks(&rig.tick().await), [2]);
    }
    assert!(acks(&rig.tick().await).is_empty());
    assert!(rig.receiver.lagging.is_empty());

    rig.take(vec![batch("a", 5, &records(5, 2))]).await;
    for second in 0..14 {
        if second == 7 {
            rig.take(vec![batch("a", 1, &records(1, 2))]).await;
        }
        let said = rig.tick().await;
        assert_eq!((acks(&said), wants_hello(&said)), (vec![2], 0));
    }
    assert_eq!(wants_hello(&rig.tick().await), 1, "it has stood still for long enough, duplicates or not");
    assert_eq!(wants_hello(&rig.tick().await), 0);
    rig.take(vec![batch("a", 3, &records(3, 2))]).await;
    for _ in 0..REPEATS {
        assert_eq!(acks(&rig.tick().await), [6]);
    }
    assert!(acks(&rig.tick().await).is_empty());
}

#[tokio::test]
async fn a_lane_that_another_process_moved_is_told_as_it_stands() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9)]).await;
    rig.take(vec![batch("a", 3, &records(3, 1))]).await;
    let other = SqlLedger::open(Box::new(Sqlite::open(rig.database.path()).unwrap()), SafeWhen::Stored).await.unwrap();
    rig.tick().await;
    let decoded = codec::decode_batch(&batch("a", 1, &records(1, 2)).payload, decompress).unwrap();
    other.take(&[Arrival { source: source("a"), batch: decoded }]).await.unwrap();
    for _ in 0..REPEATS {
        assert_eq!(acks(&rig.tick().await), [3]);
    }
    assert!(acks(&rig.tick().await).is_empty());
}

#[tokio::test]
async fn presence_that_the_broker_kept_is_answered_by_a_question_once() {
    let mut rig = Rig::new().await;
    let presence = |state: &str, is_retained: bool| {
        let payload = format!(r#"{{"state":"{state}","session":"{SESSION}","epoch":"{EPOCH}","software":"test"}}"#);
        let mut message = message("a", Up::State, payload.into_bytes());
        message.is_retained = is_retained;
        message
    };
    assert_eq!(wants_hello(&rig.take(vec![presence("online", false)]).await), 0);
    assert_eq!(wants_hello(&rig.take(vec![presence("offline", true)]).await), 0);
    assert_eq!(wants_hello(&rig.take(vec![presence("online", true)]).await), 1);
    assert_eq!(wants_hello(&rig.take(vec![message("a", Up::State, Vec::new())]).await), 0, "a topic that was cleared");
}

#[tokio::test]
async fn a_hello_is_answered_in_a_version_that_both_speak_and_wakes_the_poster() {
    let mut rig = Rig::new().await;
    rig.woken.mark_unchanged();
    let said = rig.take(vec![hello("a", 9)]).await;
    let [Down::Welcome(welcome)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((welcome.session, welcome.round, welcome.page), (SESSION, 1, 0));
    assert_eq!(
        (welcome.version, welcome.window, welcome.credit),
        (WireVersion::NEWEST, WINDOW_SEQS_MAX, WINDOW_BATCHES_MAX)
    );
    assert_eq!(welcome.marks.len(), 1);
    assert!(rig.woken.has_changed().unwrap());
    assert_eq!(rig.counted(|counters| &counters.hellos), 1);
}

#[tokio::test]
async fn a_hello_beyond_its_bounds_is_refused_whole() {
    let lane = |gone: usize| LaneHead {
        lane: Lane::Trade,
        first: Seq(1),
        chain_before: None,
        last: Seq(1),
        chain: None,
        gone: (0..gone)
            .map(|_| counterfoil_proto::message::Gone {
                range: SeqRange { first: Seq(1), last: Seq(1) },
                reason: counterfoil_proto::message::GoneReason::Damaged,
                chain_before: None,
                chain_after: None,
            })
            .collect(),
    };
    let heads = |lanes: Vec<LaneHead>| EpochHeads { epoch: EPOCH, parent: None, live: true, lanes };
    let bounded = |epochs: Vec<EpochHeads>| {
        let Ok(mut hello) = codec::decode::<Hello>(&hello("a", 1).payload) else { panic!("a hello") };
        hello.epochs = epochs;
        is_bounded(&hello)
    };
    assert!(bounded(vec![heads(vec![lane(HELLO_GONE_MAX)])]));
    assert!(!bounded(vec![heads(vec![lane(HELLO_GONE_MAX / 2), lane(HELLO_GONE_MAX / 2 + 1)])]));
    assert!(bounded((0..HELLO_EPOCHS_MAX).map(|_| heads(vec![])).collect()));
    assert!(!bounded((0..=HELLO_EPOCHS_MAX).map(|_| heads(vec![])).collect()));
    assert!(bounded(vec![heads((0..MARKS_MAX).map(|_| lane(0)).collect())]));
    assert!(!bounded(vec![heads((0..=MARKS_MAX).map(|_| lane(0)).collect())]));

    let mut rig = Rig::new().await;
    let Ok(mut large) = codec::decode::<Hello>(&hello("a", 1).payload) else { panic!("a hello") };
    large.epochs = (0..=HELLO_EPOCHS_MAX).map(|_| heads(vec![])).collect();
    let said = rig.take(vec![message("a", Up::Hello, codec::encode(&large).unwrap())]).await;
    assert_eq!((said.len(), rig.counted(|counters| &counters.undecodable)), (0, 1));
}

#[tokio::test]
async fn a_part_of_a_stock_snapshot_beyond_its_bounds_is_refused() {
    let mut rig = Rig::new().await;
    let item = |number: usize| message::PositionItem {
        item_id: number.to_string(),
        unit: "EA".to_owned(),
        on_hand: None,
        delta: "1".to_owned(),
    };
    let part = |items: usize| Positions {
        session: SESSION,
        round: 1,
        part: 0,
        parts: 1,
        taken_at: WallTime(0),
        heads: vec![],
        items: (0..items).map(item).collect(),
    };
    for (items, refused) in [(POSITIONS_ITEMS_MAX, 0), (POSITIONS_ITEMS_MAX + 1, 1)] {
        rig.take(vec![message("a", Up::Positions, codec::encode(&part(items)).unwrap())]).await;
        assert_eq!(rig.counted(|counters| &counters.undecodable), refused, "{items}");
    }
}

#[tokio::test]
async fn after_a_restore_every_agent_is_asked_once() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1), hello("b", 1)]).await;
    rig.take(vec![batch("a", 1, &records(1, 1))]).await;
    let under = rig.receiver.ledger.hub_epoch();
    rig.receiver.ledger.come_back(under).await.unwrap();
    let said = rig.tick().await;
    assert_eq!(wants_hello(&said), 2);
    assert!(acks(&said).is_empty(), "marks of before say nothing now");
    assert_eq!(wants_hello(&rig.tick().await), 0);
}

#[tokio::test]
async fn a_restore_is_looked_for_while_nothing_comes() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1)]).await;
    let mut tx = rig.database.begin(Role::Desk).await.unwrap();
    tx.execute_many("DELETE FROM processes", vec![vec![]]).await.unwrap();
    tx.commit().await.unwrap();
    let before = rig.receiver.ledger.hub_epoch();
    for _ in 1..BEAT_TICKS {
        assert_eq!(wants_hello(&rig.tick().await), 0);
    }
    rig.wait(TICK_MS);
    let paused = drive(Rig::tick_itself, &mut rig).await;
    assert_eq!(paused.len(), 1, "once, after what it found");
    assert_ne!(rig.receiver.ledger.hub_epoch(), before);
    assert_eq!(wants_hello(&rig.said()), 1);
}

#[tokio::test]
async fn attempts_at_a_ledger_that_is_away_come_further_and_further_apart() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 1)]).await;
    let away = || Some(LedgerError::Unreachable { why: "told to".to_owned() });
    rig.balks.lock().unwrap().extend((0..9).map(|_| away()));
    let paused = drive(Rig::take_one, &mut rig).await;
    assert_eq!(paused.len(), 9);
    for (attempt, pause) in paused.into_iter().enumerate() {
        let expected = (RETRY_MS_MIN << attempt.min(7)).min(RETRY_MS_MAX);
        assert!((expected * 3 / 4..=expected * 5 / 4).contains(&pause), "attempt {attempt}: {pause}");
    }
    assert_eq!(acks(&rig.said()), [1]);
    rig.balks.lock().unwrap().push_back(away());
    let paused = drive(Rig::take_one, &mut rig).await;
    assert!(paused.len() == 1 && paused[0] <= RETRY_MS_MIN * 5 / 4, "it begins anew: {paused:?}");
}

#[tokio::test]
async fn what_is_remembered_of_lanes_and_questions_is_bounded() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9), hello("b", 9)]).await;
    rig.take(vec![batch("a", 1, &records(1, 1))]).await;
    let lagging = Lagging { repeats: 0, stored: Seq(1), since: Moment(0) };
    let lane = |number: usize| LaneKey { epoch: Epoch([u8::try_from(number % 256).unwrap(); 16]), lane: Lane::Ops };
    for number in 0.. {
        if rig.receiver.lagging.len() == LAGGING_MAX {
            break;
        }
        rig.receiver.lagging.insert((source(&format!("c{number}")), lane(number)), lagging);
    }
    rig.take(vec![batch("b", 1, &records(1, 1)), batch("a", 2, &records(2, 1))]).await;
    assert_eq!(rig.receiver.lagging.len(), LAGGING_MAX);
    let trade = key(Lane::Trade, 1).lane_key();
    assert_eq!(rig.receiver.lagging.get(&(source("a"), trade)).map(|known| known.stored), Some(Seq(2)));

    let mut rig = Rig::new().await;
    for second in 1..60 {
        rig.tick().await;
        if second == 55 {
            rig.take(vec![batch("a", 1, &records(1, 1))]).await;
        }
        if second == 56 {
            rig.take(vec![batch("b", 1, &records(1, 1))]).await;
        }
    }
    assert_eq!(rig.receiver.asked.len(), 2);
    rig.tick().await;
    assert_eq!(rig.receiver.asked.keys().collect::<Vec<_>>(), [&source("b")]);
}

#[tokio::test]
async fn a_mark_that_nobody_can_hear_is_repeated_later() {
    let mut rig = Rig::new().await;
    rig.take(vec![hello("a", 9)]).await;
    rig.take(vec![batch("a", 1, &records(1, 1))]).await;
    rig.down.close();
    rig.wait(TICK_MS);
    rig.receiver.tick().await.unwrap();
    assert_eq!(rig.receiver.lagging.values().map(|lagging| lagging.repeats).collect::<Vec<_>>(), [REPEATS]);
}

/// Does `work`, which waits for times; says how long each of its waits was.
async fn drive(work: impl AsyncFn(&mut Receiver), rig: &mut Rig) -> Vec<u64> {
    let mut waited = Vec::new();
    let mut work = Box::pin(work(&mut rig.receiver));
    loop {
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(work.as_mut().poll(context))).await;
        if polled.is_ready() {
            return waited;
        }
        tokio::task::yield_now().await;
        if let Some(at) = rig.script.take_awaited() {
            waited.push(at.0 - rig.now);
            rig.now = at.0;
            rig.script.set(at, WallTime(0));
        }
    }
}

impl Rig {
    async fn tick_itself(receiver: &mut Receiver) {
        receiver.tick().await.unwrap();
    }

    async fn take_one(receiver: &mut Receiver) {
        receiver.take(&mut vec![batch("a", 1, &records(1, 1))]).await.unwrap();
    }
}
