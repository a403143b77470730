//! The contract of the ledger, against SQLite always and against a real PostgreSQL where its programs are installed.
//!
//! Method: several [`SqlLedger`]s on one database stand for several hub processes. The oracle is the plain list of what was
//! sent: each record once, in positions without gaps, and totals that equal a fold over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use counterfoil_proto::id::{AgentId, Chain, Epoch, Lane, StoreId};
use counterfoil_proto::id::{Digest, LaneKey, RecordKey, Seq, SeqRange, SessionId};
use counterfoil_proto::message::{
    BatchHead, Codec, EpochHeads, Gone, GoneReason, LaneHead, PositionHead, PositionItem, Versions, WireVersion,
};
use counterfoil_proto::record::{Context, Envelope, Flag, Kind, Record, flag, prepare};
use counterfoil_proto::time::{ClockQuality, WallTime};

use super::sql::Role;
use super::*;

mod audit;
pub(crate) mod database;
mod days;
mod delays;
mod edges;
mod lookup;
mod outbox;
mod races;
mod replays;
mod returns;
mod seals;

pub(crate) use database::postgres_url;
use database::{Place, places};

const BOUNDS: PostingBounds = PostingBounds { records_max: 100, bytes_max: 1 << 20, opaque: false };

fn source(store_id: &str, agent_id: &str) -> Source {
    Source { store_id: StoreId::new(store_id).unwrap(), agent_id: AgentId::new(agent_id).unwrap() }
}

const fn epoch(number: u8) -> Epoch {
    Epoch([number; 16])
}

const SESSION: SessionId = SessionId([9; 16]);

fn context() -> Context {
    Context {
        store_id: StoreId::new("0001").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::Time::constant(4, 0, 0, 0),
        mask_13_digits: false,
    }
}

/// A sale of `cents` with the till's number.
fn sale(number: u64, cents: u64) -> Vec<u8> {
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    let document = format!(
        r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"sale",
        "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR",
        "line_items":[{{"line":1,"kind":"sale","item_id":"A{}","quantity":"1","unit":"EA","actual_unit_price":"{amount}","extended_amount":"{amount}"}}],
        "tenders":[{{"line":1,"type":"cash","amount":"{amount}"}}],"totals":{{"gross":"{amount}"}}}}"#,
        number % 7
    );
    let prepared = prepare(Kind::TRANSACTION, document.as_bytes(), None, &context()).unwrap();
    let record = Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document };
    record.encode().unwrap()
}

fn sales(numbers: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| sale(number, 100 + number)).collect()
}

fn arrival(source: &Source, epoch: Epoch, lane: Lane, first: u64, records: Vec<Vec<u8>>) -> Arrival {
    let head = BatchHead {
        session: SESSION,
        first: RecordKey { epoch, lane, seq: Seq(first) },
        count: records.len().try_into().unwrap(),
        codec: Codec::Plain,
        plain_bytes: 0,
    };
    Arrival { source: source.clone(), batch: Batch { head, records } }
}

fn trade(source: &Source, first: u64, records: Vec<Vec<u8>>) -> Arrival {
    arrival(source, epoch(1), Lane::Trade, first, records)
}

async fn post_all(ledger: &SqlLedger) -> u64 {
    let mut records = 0;
    loop {
        let done = ledger.post(BOUNDS).await.unwrap();
        records += done.records;
        if !done.more {
            return records;
        }
    }
}

async fn all_entries(ledger: &SqlLedger) -> Vec<EntryView> {
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let query = PageQuery { after, limit: 37, ..PageQuery::default() };
        let page = ledger.records(&query).await.unwrap();
        entries.extend(page.entries);
        after = Some(page.next);
        if page.at_end {
            return entries;
        }
    }
}

fn assert_gapless(entries: &[EntryView]) {
    let positions: Vec<u64> = entries.iter().map(|entry| entry.position).collect();
    let expected: Vec<u64> = (1..=u64::try_from(entries.len()).unwrap()).collect();
    assert_eq!(positions, expected, "positions have no gap and no repeat");
}

async fn exceptions(ledger: &SqlLedger, code: &str) -> Vec<ExceptionView> {
    let filter = ExceptionFilter { code: Some(code.to_owned()), limit: 100, ..ExceptionFilter::default() };
    ledger.exceptions(&filter).await.unwrap()
}

async fn hello(ledger: &SqlLedger, source: &Source, session: SessionId, epochs: Vec<EpochHeads>) -> Welcomed {
    let hello = Hello {
        versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
        software: "test".to_owned(),
        session,
        round: 1,
        page: 0,
        pages: 1,
        wall_time: WallTime(0),
        clock: ClockQuality::Synchronised,
        epochs,
        downlink: vec![],
    };
    ledger.hello(source, &hello).await.unwrap()
}

fn heads(epoch: Epoch, last: u64, chain: Option<Chain>, gone: Vec<Gone>) -> EpochHeads {
    let head = LaneHead { lane: Lane::Trade, first: Seq(1), chain_before: None, last: Seq(last), chain, gone };
    EpochHeads { epoch, parent: None, live: true, lanes: vec![head] }
}

#[tokio::test]
async fn what_was_sent_is_there_once_in_order_whatever_the_order_of_arrival() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0002", "a"));
        let records = sales(1..=20);
        let part = |first: usize, last: usize| records[first - 1..last].to_vec();
        let batches = [trade(&one, 11, part(11, 15)), trade(&one, 1, part(1, 2)), trade(&other, 1, part(1, 3))];
        let taken = ledger.take(&batches).await.unwrap();
        let marks: BTreeMap<&Source, &Mark> = taken.marks.iter().map(|(source, mark)| (source, mark)).collect();
        assert_eq!(marks[&one].stored, Seq(2));
        assert_eq!(marks[&one].ranges, vec![SeqRange { first: Seq(11), last: Seq(15) }]);
        assert_eq!(marks[&other].stored, Seq(3));
        assert_eq!(post_all(&ledger).await, 5, "nothing above a watermark is posted");
        // Overlaps within one transaction and with what is stored.
        let batches = [trade(&one, 1, part(1, 8)), trade(&one, 6, part(6, 12)), trade(&one, 14, part(14, 20))];
        let taken = ledger.take(&batches).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates, taken.forks), (13, 9, 0));
        assert_eq!(taken.marks[0].1.stored, Seq(20));
        let again = ledger.take(&batches).await.unwrap();
        assert_eq!((again.stored, again.duplicates, again.forks), (0, 22, 0));
        assert_eq!(post_all(&ledger).await, 18);
        assert_eq!(post_all(&ledger).await, 0);
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        let of_one: Vec<&EntryView> = entries.iter().filter(|entry| entry.source == one).collect();
        assert_eq!(of_one.iter().map(|entry| entry.key.seq.0).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
        assert!(of_one.iter().zip(&records).all(|(entry, bytes)| entry.bytes == *bytes));
        let views = ledger.stores(Some("0001")).await.unwrap();
        assert_eq!((views[0].lanes[0].duplicates, views[0].lanes[0].stored, views[0].lanes[0].safe), (31, 20, 20));
    }
}

#[tokio::test]
async fn what_is_declared_lost_by_other_means_than_a_hello_holds_up_nothing_and_says_nothing_of_sessions() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = sales(1..=9);
        ledger.take(&[trade(&one, 1, records[..3].to_vec()), trade(&one, 6, records[5..9].to_vec())]).await.unwrap();
        assert_eq!(post_all(&ledger).await, 3);
        let range = SeqRange { first: Seq(4), last: Seq(5) };
        let gone = Gone { range, reason: GoneReason::Damaged, chain_before: None, chain_after: None };
        let marks = ledger.declare(&one, &[heads(epoch(1), 9, None, vec![gone])]).await.unwrap();
        assert_eq!((marks[0].stored, marks[0].ranges.len()), (Seq(9), 0));
        assert_eq!(post_all(&ledger).await, 4);
        let again = ledger.declare(&one, &[heads(epoch(1), 9, None, vec![gone])]).await.unwrap();
        assert_eq!(again[0].stored, Seq(9));
        let (_, session, _) = ledger.marks(&[(one.clone(), marks[0].key)]).await.unwrap()[0].clone();
        assert_eq!(session, None);
        let filter = ExceptionFilter { limit: 100, ..ExceptionFilter::default() };
        let raised = ledger.exceptions(&filter).await.unwrap();
        assert_eq!(raised.iter().map(|one| one.code.as_str()).collect::<Vec<_>>(), [flag::GONE]);
        // The lost ones turn up after all.
        let taken = ledger.take(&[trade(&one, 4, records[3..5].to_vec())]).await.unwrap();
        assert_eq!((taken.stored, post_all(&ledger).await), (2, 2));
    }
}

#[tokio::test]
async fn another_record_under_the_same_number_is_kept_beside_and_raised_once() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=3))]).await.unwrap();
        let forked = vec![sale(2, 999)];
        let taken = ledger.take(&[trade(&one, 2, forked.clone()), trade(&one, 2, forked.clone())]).await.unwrap();
        assert_eq!((taken.stored, taken.forks, taken.duplicates), (1, 1, 1));
        let taken =
            ledger.take(&[trade(&one, 2, forked.clone()), trade(&one, 2, vec![sale(2, 100 + 2)])]).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates), (0, 2), "both digests are known now");
        post_all(&ledger).await;
        post_all(&ledger).await;
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        assert_eq!(entries.len(), 4);
        let fork: Vec<&EntryView> = entries.iter().filter(|entry| entry.is_fork).collect();
        assert_eq!(fork.len(), 1);
        assert_eq!((fork[0].bytes.clone(), fork[0].key.seq), (forked[0].clone(), Seq(2)));
        assert_eq!(fork[0].conflicts_with, Some(Some(2)), "the till's number was taken by the first");
        assert_eq!(exceptions(&ledger, flag::FORK).await.len(), 1);
        assert_eq!(exceptions(&ledger, flag::IDENTITY_CONFLICT).await.len(), 1);
    }
}

#[tokio::test]
async fn gone_lets_the_watermark_cross_and_what_comes_later_fills_it() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = sales(1..=10);
        ledger.take(&[trade(&one, 1, records[..3].to_vec()), trade(&one, 7, records[6..].to_vec())]).await.unwrap();
        let gone = Gone {
            range: SeqRange { first: Seq(4), last: Seq(6) },
            reason: GoneReason::Damaged,
            chain_before: None,
            chain_after: None,
        };
        let chain = records
            .iter()
            .zip(1_u64..)
            .fold(Chain::genesis(epoch(1), Lane::Trade), |chain, (bytes, seq)| chain.next(Seq(seq), Digest::of(bytes)));
        let welcomed = hello(&ledger, &one, SESSION, vec![heads(epoch(1), 10, Some(chain), vec![gone])]).await;
        assert_eq!(welcomed.marks[0].stored, Seq(10));
        assert_eq!(post_all(&ledger).await, 7);
        let named = exceptions(&ledger, flag::GONE).await;
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].key.seq, Seq(4));
        let taken = ledger.take(&[trade(&one, 4, records[3..6].to_vec())]).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates), (3, 0));
        assert_eq!(post_all(&ledger).await, 3);
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.key.seq.0).collect();
        assert_eq!(seqs, vec![1, 2, 3, 7, 8, 9, 10, 4, 5, 6]);
        let taken = ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates), (0, 10));
        assert!(exceptions(&ledger, flag::CHAIN_MISMATCH).await.is_empty());
    }
}

#[tokio::test]
async fn a_chain_that_differs_is_named_and_holds_up_nothing() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        hello(&ledger, &one, SESSION, vec![heads(epoch(1), 3, Some(Chain([7; 32])), vec![])]).await;
        let taken = ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        assert_eq!(taken.marks[0].1.stored, Seq(5));
        assert_eq!(exceptions(&ledger, flag::CHAIN_MISMATCH).await[0].key.seq, Seq(3));
    }
}

#[tokio::test]
async fn too_far_ahead_is_not_taken_and_says_so() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let taken = ledger.take(&[trade(&one, 40_000, sales(1..=2)), trade(&one, 1, sales(1..=2))]).await.unwrap();
        assert_eq!((taken.ahead, taken.stored), (vec![0], 2));
        assert_eq!(taken.marks[0].1.stored, Seq(2));
    }
}

#[tokio::test]
async fn the_first_of_an_identity_counts_across_epochs_and_agents() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0001", "b"));
        let elsewhere = source("0002", "a");
        ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        post_all(&ledger).await;
        // The same sales from another box: 1 to 4 alike, 5 differently. Another store is no concern of theirs.
        let mut records = sales(1..=4);
        records.push(sale(5, 7_777));
        ledger.take(&[arrival(&other, epoch(2), Lane::Trade, 1, records)]).await.unwrap();
        ledger.take(&[arrival(&elsewhere, epoch(3), Lane::Trade, 1, sales(5..=5))]).await.unwrap();
        post_all(&ledger).await;
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        let second: Vec<&EntryView> = entries.iter().filter(|entry| entry.source == other).collect();
        assert_eq!(second.iter().filter_map(|entry| entry.duplicate_of).collect::<Vec<_>>(), vec![1, 2, 3, 4]);
        assert_eq!(second[4].conflicts_with, Some(Some(5)));
        let counted = |rows: &[TotalsRow], what: &str| {
            rows.iter().find(|row| row.what == what).map(|row| (row.transactions, row.amount))
        };
        let totals = ledger.totals("0001", "2026-11-23").await.unwrap();
        assert_eq!(counted(&totals, "counted"), Some((5, 101 + 102 + 103 + 104 + 105)));
        assert_eq!(counted(&totals, "not/duplicates"), Some((4, 101 + 102 + 103 + 104)));
        assert_eq!(counted(&totals, "not/conflicts"), Some((1, 7_777)));
        let totals = ledger.totals("0002", "2026-11-23").await.unwrap();
        assert_eq!(counted(&totals, "counted"), Some((1, 105)));
        assert_eq!(exceptions(&ledger, flag::IDENTITY_CONFLICT).await.len(), 1);
    }
}

#[tokio::test]
async fn poison_gets_a_position_and_an_exception_and_the_lane_goes_on() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let unknown = Record { kind: Kind(999), envelope: Envelope::default(), document: b"{}".to_vec() };
        let no_json = Record { kind: Kind::TRANSACTION, envelope: Envelope::default(), document: b"\0\xff".to_vec() };
        let code = std::borrow::Cow::Owned("NUL\0CODE".to_owned());
        let flags = vec![Flag { code, pointer: "\0".repeat(100_000) }];
        let odd = Record {
            kind: Kind::OUTAGE,
            envelope: Envelope { flags, identity: Some("\0".to_owned()), ..Envelope::default() },
            document: b"{}".to_vec(),
        };
        let mut records = vec![b"not a record".to_vec(), vec![]];
        records.extend([unknown, no_json, odd].iter().map(|record| record.encode().unwrap()));
        records.push(sale(6, 600));
        ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        assert_eq!(post_all(&ledger).await, 6);
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        let unreadable: Vec<bool> = entries.iter().map(|entry| entry.is_unreadable).collect();
        assert_eq!(unreadable, vec![true, true, true, false, false, false]);
        assert_eq!(exceptions(&ledger, flag::UNREADABLE_RECORD).await.len(), 3);
        assert_eq!(exceptions(&ledger, flag::UNKNOWN_KIND).await.len(), 1);
        assert_eq!(ledger.totals("0001", "2026-11-23").await.unwrap()[0].amount, 600);
    }
}

#[tokio::test]
async fn totals_equal_a_fold_over_the_records_however_they_were_cut_into_chunks() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = sales(1..=230);
        for (index, chunk) in records.chunks(17).enumerate() {
            let first = u64::try_from(index * 17 + 1).unwrap();
            ledger.take(&[trade(&one, first, chunk.to_vec())]).await.unwrap();
            if index % 3 == 0 {
                post_all(&ledger).await;
            }
        }
        post_all(&ledger).await;
        let totals = ledger.totals("0001", "2026-11-23").await.unwrap();
        let sum: i64 = (1..=230).map(|number| 100 + number).sum();
        let counted = totals.iter().find(|row| row.what == "counted").unwrap();
        assert_eq!((counted.transactions, counted.amount, counted.low, counted.high), (230, sum, Some(1), Some(230)));
        let cash = totals.iter().find(|row| row.what == "tender/cash").unwrap();
        assert_eq!(cash.amount, sum);
    }
}

#[tokio::test]
async fn resolutions_reach_the_exception_and_flags_open_one_with_the_agents_id() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let flags = vec![Flag { code: flag::TOTALS_MISMATCH.into(), pointer: "/totals".to_owned() }];
        let flagged = Record {
            kind: Kind::TENDER_CONTROL,
            envelope: Envelope { flags, ..Envelope::default() },
            document: b"{}".to_vec(),
        };
        let key = RecordKey { epoch: epoch(1), lane: Lane::Trade, seq: Seq(1) };
        let id = crate::posting::exception_id(key, flag::TOTALS_MISMATCH);
        let text = format!(r#"{{"exception_id":"{id}","change":"resolved","by":"ana","reason":"typo"}}"#);
        let change =
            Record { kind: Kind::EXCEPTION_CHANGE, envelope: Envelope::default(), document: text.into_bytes() };
        let records = vec![flagged.encode().unwrap(), change.encode().unwrap()];
        ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        post_all(&ledger).await;
        let found = exceptions(&ledger, flag::TOTALS_MISMATCH).await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), found[0].state.as_str()), (id.as_str(), "resolved"));
        assert_eq!((found[0].changed_by.as_deref(), found[0].pointer.as_str()), (Some("ana"), "/totals"));
    }
}

#[tokio::test]
async fn a_snapshot_of_stock_applies_whole_and_only_if_newer() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let history = |records| vec![heads(epoch(1), records, None, vec![])];
        hello(&ledger, &one, SESSION, history(2)).await;
        let part = |session: SessionId, round: u32, records: u64, part: u16| Positions {
            session,
            round,
            part,
            parts: 2,
            taken_at: WallTime(0),
            heads: vec![PositionHead { key: LaneKey { epoch: epoch(1), lane: Lane::Trade }, last: Seq(records) }],
            items: vec![PositionItem {
                item_id: format!("{records}/{part}"),
                unit: "EA".to_owned(),
                on_hand: None,
                delta: "1".to_owned(),
            }],
        };
        let items = async || -> Vec<String> {
            let views = ledger.stock("0001").await.unwrap();
            let parts = views.iter().flat_map(|view| view.parts.iter());
            parts.flat_map(|part| part.items.iter().map(|item| item.item_id.clone())).collect()
        };
        ledger.positions(&one, &part(SESSION, 1, 2, 1)).await.unwrap();
        assert!(items().await.is_empty());
        ledger.positions(&one, &part(SESSION, 1, 2, 0)).await.unwrap();
        assert_eq!(items().await, vec!["2/0", "2/1"]);
        ledger.positions(&one, &part(SESSION, 2, 3, 0)).await.unwrap();
        assert_eq!(items().await, vec!["2/0", "2/1"], "a half one changes nothing");
        let next = SessionId([8; 16]);
        hello(&ledger, &one, next, history(4)).await;
        ledger.positions(&one, &part(next, 1, 4, 0)).await.unwrap();
        ledger.positions(&one, &part(next, 1, 4, 1)).await.unwrap();
        assert_eq!(items().await, vec!["4/0", "4/1"]);
        // The session before, played again, its hello first: what it reflects is older, whenever it comes.
        hello(&ledger, &one, SESSION, history(2)).await;
        for number in [0, 1] {
            ledger.positions(&one, &part(SESSION, 9, 3, number)).await.unwrap();
            ledger.positions(&one, &part(SESSION, 1, 2, number)).await.unwrap();
        }
        assert_eq!(items().await, vec!["4/0", "4/1"], "older ones change nothing");
    }
}

#[tokio::test]
async fn presence_tells_the_known_session_and_a_late_will_says_nothing() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let presence = |state: &str, session| Presence {
            state: state.to_owned(),
            session,
            epoch: None,
            software: "test".to_owned(),
        };
        assert_eq!(ledger.presence(&one, &presence("online", SESSION)).await.unwrap(), None);
        hello(&ledger, &one, SESSION, vec![]).await;
        assert_eq!(ledger.presence(&one, &presence("online", SESSION)).await.unwrap(), Some(SESSION));
        ledger.presence(&one, &presence("offline", SessionId([1; 16]))).await.unwrap();
        assert_eq!(ledger.stores(None).await.unwrap()[0].presence.as_deref(), Some("online"));
        ledger.presence(&one, &presence("offline", SESSION)).await.unwrap();
        assert_eq!(ledger.stores(None).await.unwrap()[0].presence.as_deref(), Some("offline"));
    }
}

#[tokio::test]
async fn safe_moves_only_when_a_copy_was_seen_where_that_was_chosen() {
    for place in places() {
        let ledger = place.open_with(SafeWhen::Confirmed).await;
        let one = source("0001", "a");
        let taken = ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        assert_eq!((taken.marks[0].1.stored, taken.marks[0].1.safe), (Seq(5), Seq(0)));
        let (_, copy) = ledger.all_lanes().await.unwrap();
        ledger.take(&[trade(&one, 6, sales(6..=9))]).await.unwrap();
        assert_eq!(ledger.raise_safe(&copy).await.unwrap(), 1);
        let (_, lanes) = ledger.all_lanes().await.unwrap();
        assert_eq!((lanes[0].mark.stored, lanes[0].mark.safe), (Seq(9), Seq(5)));
        // Another box has the same numbers: what it has is in no copy yet, and the copy from before it proves nothing of it.
        let forked = ledger.take(&[trade(&one, 3, sales(13..=14))]).await.unwrap();
        assert_eq!((forked.forks, forked.marks[0].1.safe), (2, Seq(2)));
        assert_eq!(ledger.raise_safe(&lanes).await.unwrap(), 0);
        let (_, lanes) = ledger.all_lanes().await.unwrap();
        assert_eq!(ledger.raise_safe(&lanes).await.unwrap(), 1);
        // The same of what comes after it was called gone.
        let range = SeqRange { first: Seq(10), last: Seq(11) };
        let gone = Gone { range, reason: GoneReason::Damaged, chain_before: None, chain_after: None };
        let welcomed = hello(&ledger, &one, SESSION, vec![heads(epoch(1), 12, None, vec![gone])]).await;
        assert_eq!((welcomed.marks[0].stored, &welcomed.marks[0].absent), (Seq(11), &vec![range]));
        let (_, before) = ledger.all_lanes().await.unwrap();
        assert_eq!(ledger.raise_safe(&before).await.unwrap(), 1);
        let filled = ledger.take(&[trade(&one, 11, sales(11..=11))]).await.unwrap();
        let mark = &filled.marks[0].1;
        let left = SeqRange { last: Seq(10), ..range };
        assert_eq!((mark.stored, mark.safe, &mark.absent), (Seq(11), Seq(10), &vec![left]));
        assert_eq!(ledger.raise_safe(&before).await.unwrap(), 0);
        let (_, after) = ledger.all_lanes().await.unwrap();
        assert_eq!(ledger.raise_safe(&after).await.unwrap(), 1);
    }
}
