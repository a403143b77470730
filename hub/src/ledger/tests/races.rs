//! Several processes at once, transactions that end badly, and ledgers that go back.

use tokio::task::JoinSet;

use super::super::sql::{Role, Value};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_race_on_a_lane_leave_no_gap_and_no_double_and_readers_see_no_position_out_of_order() {
    for place in places() {
        let one = source("0001", "a");
        let records = Arc::new(sales(1..=300));
        let mut tasks = JoinSet::new();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for process in 0..3_usize {
            let (ledger, records, one) = (place.open().await, Arc::clone(&records), one.clone());
            tasks.spawn(async move {
                // Each sends everything, in an order of its own, in overlapping batches.
                for step in 0..60_usize {
                    let first = (step * 37 + process * 101) % 60 * 5;
                    let batch = records[first..(first + 9).min(300)].to_vec();
                    let arrivals = [trade(&one, u64::try_from(first + 1).unwrap(), batch)];
                    while let Err(error) = ledger.take(&arrivals).await {
                        assert!(matches!(error, LedgerError::Busy { .. }), "{error}");
                    }
                    while let Err(error) = ledger.post(PostingBounds { records_max: 7, ..BOUNDS }).await {
                        assert!(matches!(error, LedgerError::Busy { .. }), "{error}");
                    }
                }
                post_all(&ledger).await;
            });
        }
        let reader = place.open().await;
        let finished = Arc::clone(&done);
        let watching = tokio::spawn(async move {
            // Whatever was at or below a position that was served stays what it was.
            let mut seen: Vec<(u64, Digest)> = Vec::new();
            loop {
                let stop = finished.load(std::sync::atomic::Ordering::SeqCst);
                let entries: Vec<(u64, Digest)> =
                    all_entries(&reader).await.iter().map(|entry| (entry.position, entry.record_digest)).collect();
                assert!(entries.starts_with(&seen), "a position that was served changed");
                let expected: Vec<u64> = (1..=u64::try_from(entries.len()).unwrap()).collect();
                assert_eq!(entries.iter().map(|(position, _)| *position).collect::<Vec<_>>(), expected);
                seen = entries;
                if stop {
                    return seen;
                }
            }
        });
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        let seen = watching.await.unwrap();
        let digests: BTreeSet<Digest> = seen.iter().map(|(_, digest)| *digest).collect();
        assert_eq!((seen.len(), digests.len()), (300, 300), "each record once");
        let ledger = place.open().await;
        let views = ledger.stores(None).await.unwrap();
        let lane = &views[0].lanes[0];
        assert_eq!((lane.stored, lane.received, lane.posted, lane.forks), (300, 300, 300, 0));
        let counted = ledger.totals("0001", "2026-11-23").await.unwrap();
        assert_eq!(counted.iter().find(|row| row.what == "counted").map(|row| row.transactions), Some(300));
    }
}

#[tokio::test]
async fn what_was_not_committed_is_not_there_neither_records_nor_watermark() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=3))]).await.unwrap();
        // Whoever waits goes away, wherever that is: every point of suspension is tried, then fewer. How many there are depends on
        // the machine's mood (connecting anew, which each abandoned one on PostgreSQL entails, takes many), so there is no last
        // one: it goes on until a transaction gets to its end.
        let mut polls = 0_u64;
        loop {
            let arrivals = [trade(&one, 4, sales(4..=6))];
            let mut work = ledger.take(&arrivals);
            let mut left = polls;
            let outcome = std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(None);
                }
                left -= 1;
                work.as_mut().poll(context).map(Some)
            });
            let outcome = outcome.await;
            drop(work);
            let (_, lanes) = place.open().await.all_lanes().await.unwrap();
            let kept = rows(&place, "SELECT COUNT(*) FROM records").await;
            assert_eq!(u64::try_from(kept).unwrap(), lanes[0].mark.stored.0, "records and watermark go together");
            match outcome {
                Some(Ok(_)) => {
                    assert_eq!(lanes[0].mark.stored, Seq(6), "what was confirmed is there");
                    break;
                }
                // There may be no connection left for a moment.
                Some(Err(LedgerError::Unreachable { .. })) => {}
                Some(Err(error)) => panic!("after {polls} steps: {error}"),
                None => polls += 1.max(polls / 8),
            }
        }
    }
}

async fn rows(place: &Place, sql: &'static str) -> i64 {
    place.database().read(sql, vec![]).await.unwrap().remove(0).read().int().unwrap()
}

/// Sets the ledger's tables back to what they were, as a restored backup does; the processes keep running.
async fn go_back(place: &Place, kept: &[(&'static str, Vec<Value>)]) {
    let database = place.database();
    let mut tx = database.begin(Role::Desk).await.unwrap();
    for (sql, params) in kept {
        tx.execute_many(sql, vec![params.clone()]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_restored_ledger_is_noticed_gets_a_new_hub_epoch_and_refuses_old_cursors() {
    for place in places() {
        let (ledger, other) = (place.open().await, place.open().await);
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        post_all(&ledger).await;
        let early = ledger.cursor(None).await.unwrap();
        let before = ledger.hub_epoch();
        assert_eq!(ledger.beat().await.unwrap(), Beat::Same(before));
        ledger.take(&[trade(&one, 6, sales(6..=9))]).await.unwrap();
        other.beat().await.unwrap();
        post_all(&ledger).await;
        let late = ledger.cursor(None).await.unwrap();
        assert_eq!((early.position, late.position), (5, 9));
        let state = super::super::intake::write_state(&{
            let mut state =
                counterfoil_proto::sync::receiver::LaneState::new(LaneKey { epoch: epoch(1), lane: Lane::Trade });
            state.stored = Seq(5);
            state.chain = None;
            state
        });
        go_back(
            &place,
            &[
                ("DELETE FROM records WHERE seq > 5", vec![]),
                ("DELETE FROM runs WHERE first_position > 5", vec![]),
                ("DELETE FROM identities WHERE position > 5", vec![]),
                ("UPDATE posted SET seq = 5", vec![]),
                ("UPDATE poster SET next_position = 6", vec![]),
                ("UPDATE streams SET stored = 5, safe = 5, state = $1", vec![state.unwrap().into()]),
                ("UPDATE processes SET commits = 1", vec![]),
            ],
        )
        .await;
        let error = ledger.take(&[trade(&one, 10, sales(10..=10))]).await.unwrap_err();
        let LedgerError::WentBack { under } = error else { panic!("{error}") };
        assert_eq!(under, before);
        let minted = ledger.come_back(under).await.unwrap();
        assert_ne!(minted, before);
        assert_eq!(ledger.come_back(under).await.unwrap(), minted, "once is enough");
        let error = other.beat().await.unwrap_err();
        let LedgerError::WentBack { under } = error else { panic!("{error}") };
        assert_eq!(other.come_back(under).await.unwrap(), minted, "processes agree on the new one");
        assert_eq!(other.beat().await.unwrap(), Beat::Same(minted));
        let after = |cursor| PageQuery { after: Some(cursor), limit: 10, ..PageQuery::default() };
        let refused = LedgerError::Cursor { restore_point: 5 };
        assert_eq!(ledger.records(&after(late)).await.unwrap_err(), refused);
        assert_eq!(ledger.records(&after(early)).await.unwrap_err(), refused);
        // The agent sends again what is missing, and more; the marks are lower and the positions are given anew.
        let taken = ledger.take(&[trade(&one, 6, sales(6..=12))]).await.unwrap();
        assert_eq!((taken.marks[0].1.stored, taken.hub_epoch), (Seq(12), minted));
        post_all(&ledger).await;
        let entries = all_entries(&ledger).await;
        assert_gapless(&entries);
        assert_eq!(entries.len(), 12);
    }
}

#[tokio::test]
async fn a_restore_that_nobody_saw_is_found_by_the_record_that_a_cursor_stood_on() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        post_all(&ledger).await;
        let mut cursor = ledger.cursor(None).await.unwrap();
        cursor.check ^= 1;
        let query = PageQuery { after: Some(cursor), limit: 10, ..PageQuery::default() };
        assert!(matches!(ledger.records(&query).await, Err(LedgerError::Cursor { .. })));
        let mut checks = BTreeSet::new();
        for position in 1..=5 {
            checks.insert(ledger.cursor(Some(position)).await.unwrap().check);
        }
        assert_eq!(checks.len(), 5, "each record by its digest");
        let text = ledger.cursor(None).await.unwrap().to_string();
        assert_eq!(text.parse(), Ok(ledger.cursor(None).await.unwrap()));
    }
}

#[tokio::test]
async fn a_key_that_the_lanes_state_does_not_know_is_looked_up_not_fatal() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=5))]).await.unwrap();
        let fresh = counterfoil_proto::sync::receiver::LaneState::new(LaneKey { epoch: epoch(1), lane: Lane::Trade });
        let state = super::super::intake::write_state(&fresh).unwrap();
        go_back(&place, &[("UPDATE streams SET stored = 0, state = $1", vec![state.into()])]).await;
        let taken = ledger.take(&[trade(&one, 1, sales(1..=7))]).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates, taken.forks), (2, 5, 0));
        assert_eq!(taken.marks[0].1.stored, Seq(7));
        assert_eq!(rows(&place, "SELECT COUNT(*) FROM records").await, 7);
    }
}
