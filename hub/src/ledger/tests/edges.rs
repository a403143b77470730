//! What lived through the other tests as a mutant: digests loaded for the chain, sessions and heads told, counters that disagree.

use super::super::sql::Role;
use counterfoil_proto::message::Parent;

use super::*;

fn chain_over(records: &[Vec<u8>]) -> Chain {
    let genesis = Chain::genesis(epoch(1), Lane::Trade);
    records.iter().zip(1_u64..).fold(genesis, |chain, (bytes, seq)| chain.next(Seq(seq), Digest::of(bytes)))
}

#[tokio::test]
async fn who_finds_nothing_to_post_says_how_far_it_is_posted_all_the_same() {
    for place in places() {
        let ledger = place.open().await;
        ledger.take(&[trade(&source("0001", "a"), 1, sales(1..=3))]).await.unwrap();
        let first = ledger.post(BOUNDS).await.unwrap();
        assert_eq!((first.records, first.last_position, first.more, first.elsewhere), (3, 3, false, false));
        let again = ledger.post(BOUNDS).await.unwrap();
        assert_eq!((again.records, again.last_position, again.more, again.elsewhere), (0, 3, false, false));
        if ledger.kind() == "SQLite" {
            continue;
        }
        let mut tx = place.database().begin(Role::Posting).await.unwrap();
        tx.query("SELECT next_position FROM poster WHERE one = 1 FOR UPDATE", vec![]).await.unwrap();
        let behind = ledger.post(BOUNDS).await.unwrap();
        assert_eq!((behind.records, behind.last_position, behind.elsewhere), (0, 3, true));
    }
}

#[tokio::test]
async fn a_page_is_bounded_and_goes_past_what_nobody_asked_for() {
    for place in places() {
        let ledger = place.open().await;
        ledger.take(&[trade(&source("0001", "a"), 1, sales(1..=7))]).await.unwrap();
        ledger.take(&[trade(&source("0002", "a"), 1, sales(1..=5))]).await.unwrap();
        post_all(&ledger).await;
        let page = async |query: PageQuery| {
            let page = ledger.records(&query).await.unwrap();
            (page.entries.len(), page.next.position, page.at_end)
        };
        let of =
            |store_id: &str, limit| PageQuery { store_id: Some(store_id.to_owned()), limit, ..PageQuery::default() };
        assert_eq!(page(of("0001", 3)).await, (3, 3, false));
        assert_eq!(page(of("0001", 7)).await, (7, 7, false));
        assert_eq!(page(of("0001", 8)).await, (7, 12, true), "what follows is another store's");
        assert_eq!(page(of("0003", 8)).await, (0, 12, true));
        let kind = |kind: Kind| PageQuery { kind: Some(kind.0), limit: 8, ..PageQuery::default() };
        assert_eq!(page(kind(Kind::TRANSACTION)).await, (8, 8, false));
        assert_eq!(page(kind(Kind::DAY_CLOSE)).await, (0, 12, true));

        let large: Vec<Vec<u8>> = (0..9).map(|number| vec![number; 1 << 20]).collect();
        for (first, record) in (1..).zip(large) {
            ledger.take(&[arrival(&source("0003", "a"), epoch(1), Lane::Ops, first, vec![record])]).await.unwrap();
        }
        post_all(&ledger).await;
        assert_eq!(page(of("0003", 100)).await, (8, 20, false), "eight MiB, and no more than that");
    }
}

#[tokio::test]
async fn a_page_never_passes_a_run_that_it_did_not_look_at() {
    let runs_max = 4_096;
    for place in places() {
        let ledger = place.open().await;
        let agents: Vec<Arrival> =
            (0..=runs_max).map(|number| trade(&source("0001", &format!("a{number}")), 1, sales(1..=1))).collect();
        ledger.take(&agents).await.unwrap();
        while ledger.post(PostingBounds { records_max: 10_000, ..BOUNDS }).await.unwrap().more {}
        let none = PageQuery { kind: Some(Kind::DAY_CLOSE.0), limit: 10, ..PageQuery::default() };
        let page = ledger.records(&none).await.unwrap();
        assert_eq!((page.entries.len(), page.next.position, page.at_end), (0, runs_max, false));
        let page = ledger.records(&PageQuery { after: Some(page.next), ..none }).await.unwrap();
        assert_eq!((page.entries.len(), page.next.position, page.at_end), (0, runs_max + 1, true));
    }
}

#[tokio::test]
async fn what_is_shown_of_stores_is_their_own_and_adds_up() {
    for place in places() {
        let ledger = place.open().await;
        let sources = [source("0001", "a"), source("0001", "b"), source("0002", "a")];
        for (number, one) in (1..).zip(&sources) {
            hello(&ledger, one, SESSION, vec![heads(epoch(1), 9, None, vec![])]).await;
            ledger.take(&[trade(one, 1, sales(1..=number))]).await.unwrap();
            let presence = Presence {
                state: if number == 1 { "online" } else { "offline" }.to_owned(),
                session: SESSION,
                epoch: None,
                software: "test".to_owned(),
            };
            ledger.presence(one, &presence).await.unwrap();
        }
        // Two that cannot be read at one agent, one at another, none at the third.
        let spoiled = |first, count: u8| trade(&sources[0], first, (0..count).map(|number| vec![number; 40]).collect());
        ledger.take(&[spoiled(2, 2)]).await.unwrap();
        ledger.take(&[trade(&sources[2], 4, vec![vec![7; 40]])]).await.unwrap();
        ledger.take(&[trade(&sources[1], 1, sales(1..=2)), trade(&sources[1], 1, vec![sale(1, 9)])]).await.unwrap();
        post_all(&ledger).await;
        // What came late is posted once its lane has passed it.
        post_all(&ledger).await;
        let views = ledger.stores(None).await.unwrap();
        let open: Vec<_> = views.iter().map(|view| (view.source.clone(), view.exceptions_open)).collect();
        let expected = [2, 2, 1];
        assert_eq!(
            open,
            sources.iter().cloned().zip(expected).collect::<Vec<_>>(),
            "a fork and the number it took count twice"
        );
        assert_eq!(ledger.stores(Some("0002")).await.unwrap().len(), 1);
        let gauges = ledger.gauges().await.unwrap();
        assert_eq!((gauges.agents, gauges.online, gauges.last_position), (3, 1, 10));
        assert_eq!((gauges.records, gauges.duplicates, gauges.forks, gauges.lag), (10, 2, 1, 27 - 9));
        assert_eq!((gauges.unsafe_records, gauges.exceptions_open), (0, 5));

        let part = |number| Positions {
            session: SESSION,
            round: 1,
            part: number,
            parts: 2,
            taken_at: WallTime(0),
            heads: vec![],
            items: vec![],
        };
        for one in &sources {
            for number in [0, 1] {
                ledger.positions(one, &part(number)).await.unwrap();
            }
        }
        let stock = ledger.stock("0001").await.unwrap();
        assert_eq!(
            stock.iter().map(|view| (view.source.clone(), view.parts.len())).collect::<Vec<_>>(),
            [(sources[0].clone(), 2), (sources[1].clone(), 2)]
        );
    }
}

#[tokio::test]
async fn people_are_told_which_database_it_is() {
    let mut kinds = Vec::new();
    for place in places() {
        kinds.push(place.open().await.kind());
    }
    assert_eq!(kinds, ["SQLite", "PostgreSQL"][..kinds.len()]);
}

#[tokio::test]
async fn the_chain_runs_over_what_other_transactions_stored_and_over_first_records_only() {
    for place in places() {
        for (stated, is_wrong) in [(None, false), (Some(Chain([7; 32])), true)] {
            let ledger = place.open().await;
            let one = source(if is_wrong { "0002" } else { "0001" }, "a");
            let records = sales(1..=6);
            ledger.take(&[trade(&one, 3, records[2..].to_vec())]).await.unwrap();
            ledger.take(&[trade(&one, 5, vec![sale(5, 999)])]).await.unwrap();
            let chain = stated.unwrap_or_else(|| chain_over(&records));
            hello(&ledger, &one, SESSION, vec![heads(epoch(1), 6, Some(chain), vec![])]).await;
            // The fork's number is in this transaction too, so that both its digests are loaded.
            let taken = ledger.take(&[trade(&one, 5, vec![sale(5, 999)]), trade(&one, 1, records[..2].to_vec())]).await;
            assert_eq!(taken.unwrap().marks[0].1.stored, Seq(6));
            let found = exceptions(&ledger, flag::CHAIN_MISMATCH).await;
            assert_eq!(found.iter().any(|raised| raised.store_id == one.store_id.as_str()), is_wrong);
        }
    }
}

#[tokio::test]
async fn the_session_and_the_stated_head_are_told() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let taken = ledger.take(&[trade(&one, 1, sales(1..=2))]).await.unwrap();
        assert_eq!(taken.sessions, [(one.clone(), None)], "no hello yet");
        hello(&ledger, &one, SESSION, vec![heads(epoch(1), 10, None, vec![])]).await;
        let taken = ledger.take(&[trade(&one, 3, sales(3..=3))]).await.unwrap();
        assert_eq!(taken.sessions, [(one.clone(), Some(SESSION))]);
        let views = ledger.stores(Some("0001")).await.unwrap();
        assert_eq!((views[0].lanes[0].stored, views[0].lanes[0].head), (3, 10));
        ledger.take(&[trade(&one, 11, sales(11..=12))]).await.unwrap();
        let views = ledger.stores(Some("0001")).await.unwrap();
        assert_eq!((views[0].lanes[0].stored, views[0].lanes[0].head), (3, 12), "what came says as much as a hello");
        assert_eq!(ledger.agents().await.unwrap(), [one]);
    }
}

#[tokio::test]
async fn a_hub_epoch_is_known_and_another_is_not() {
    for place in places() {
        let ledger = place.open().await;
        assert!(ledger.was_epoch(ledger.hub_epoch()).await.unwrap());
        assert!(!ledger.was_epoch(SessionId([1; 16])).await.unwrap());
    }
}

#[tokio::test]
async fn what_does_not_decode_is_kept_and_raised() {
    for place in places() {
        let ledger = place.open().await;
        ledger.reject(&source("0001", "a"), None, "no batch", b"bytes").await.unwrap();
        assert_eq!(exceptions(&ledger, flag::UNREADABLE_RECORD).await.len(), 1);
    }
}

#[tokio::test]
async fn safe_is_raised_once() {
    for place in places() {
        let ledger = place.open_with(SafeWhen::Confirmed).await;
        ledger.take(&[trade(&source("0001", "a"), 1, sales(1..=5))]).await.unwrap();
        let (_, copy) = ledger.all_lanes().await.unwrap();
        assert_eq!(ledger.raise_safe(&copy).await.unwrap(), 1);
        assert_eq!(ledger.raise_safe(&copy).await.unwrap(), 0, "it stands there");
    }
}

/// A ledger that went back need not lack what this role committed: an idle desk sees it by what the others did.
#[tokio::test]
async fn a_count_of_commits_that_disagrees_in_any_role_is_a_ledger_that_went_back() {
    for place in places() {
        for (sql, went_back) in [
            ("UPDATE processes SET commits = commits + 0", false),
            ("UPDATE processes SET commits = commits - 1 WHERE role = 0", true),
            ("UPDATE processes SET commits = commits - 1 WHERE role = 2", true),
            ("UPDATE processes SET commits = commits + 2 WHERE role = 2", true),
        ] {
            let ledger = place.open().await;
            ledger.take(&[trade(&source("0001", "a"), 1, sales(1..=5))]).await.unwrap();
            ledger.beat().await.unwrap();
            let database = place.database();
            let mut tx = database.begin(Role::Desk).await.unwrap();
            tx.execute_many(sql, vec![vec![]]).await.unwrap();
            tx.commit().await.unwrap();
            let beat = ledger.beat().await;
            assert_eq!(matches!(beat, Err(LedgerError::WentBack { .. })), went_back, "{sql}: {beat:?}");
            assert!(went_back || beat.is_ok());
        }
    }
}

#[tokio::test]
async fn what_a_box_that_was_made_anew_never_sent_is_named_once_nobody_speaks_of_it() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = sales(1..=8);
        hello(&ledger, &one, SESSION, vec![heads(epoch(1), 8, None, vec![])]).await;
        ledger.take(&[trade(&one, 1, records[..2].to_vec()), trade(&one, 5, records[4..6].to_vec())]).await.unwrap();
        assert_eq!(post_all(&ledger).await, 2);

        hello(&ledger, &one, SESSION, vec![heads(epoch(2), 0, None, vec![])]).await;
        assert!(exceptions(&ledger, flag::GONE).await.is_empty(), "its other box may only be slow");
        let mut tx = place.database().begin(Role::Desk).await.unwrap();
        tx.execute_many("UPDATE streams SET seen_at = seen_at - 900001", vec![vec![]]).await.unwrap();
        tx.commit().await.unwrap();
        hello(&ledger, &one, SESSION, vec![heads(epoch(1), 8, None, vec![]), heads(epoch(2), 0, None, vec![])]).await;
        assert!(exceptions(&ledger, flag::GONE).await.is_empty(), "it speaks of it");

        let mut tx = place.database().begin(Role::Desk).await.unwrap();
        tx.execute_many("UPDATE streams SET seen_at = seen_at - 900001", vec![vec![]]).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..2 {
            let welcomed = hello(&ledger, &one, SESSION, vec![heads(epoch(2), 0, None, vec![])]).await;
            assert_eq!(welcomed.marks.len(), 1, "it is told of what it asked for");
        }
        let gone = exceptions(&ledger, flag::GONE).await;
        let mut seqs: Vec<u64> = gone.iter().map(|exception| exception.key.seq.0).collect();
        seqs.sort_unstable();
        assert_eq!((seqs, gone.iter().all(|exception| exception.times == 1)), (vec![3, 7], true));
        hello(&ledger, &one, SESSION, vec![heads(epoch(2), 3, None, vec![])]).await;
        let mut tx = place.database().begin(Role::Desk).await.unwrap();
        tx.execute_many("UPDATE streams SET seen_at = seen_at - 900001", vec![vec![]]).await.unwrap();
        tx.commit().await.unwrap();
        let welcomed = hello(&ledger, &one, SESSION, vec![heads(epoch(1), 8, None, vec![])]).await;
        assert_eq!(exceptions(&ledger, flag::GONE).await.len(), 2, "a hello that is played again knows nothing newer");
        let absent = [(3, 4), (7, 8)].map(|(first, last)| SeqRange { first: Seq(first), last: Seq(last) });
        assert_eq!(welcomed.marks[0].absent, absent, "should that box speak again after all, it sends them");
        assert_eq!(post_all(&ledger).await, 2, "what stood above the gap has a position now");
        let taken = ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        assert_eq!((taken.stored, taken.duplicates), (4, 4), "and what comes after all is kept");
        assert_eq!(post_all(&ledger).await, 4);
    }
}

#[tokio::test]
async fn a_chunk_is_shared_out_among_lanes_and_says_whether_more_waits() {
    let bounds = |records_max, bytes_max| PostingBounds { records_max, bytes_max, opaque: false };
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let stock = arrival(&one, epoch(1), Lane::Stock, 1, sales(11..=20));
        ledger.take(&[trade(&one, 1, sales(1..=10)), stock]).await.unwrap();
        let posted = async |records_max, bytes_max| {
            let posted = ledger.post(bounds(records_max, bytes_max)).await.unwrap();
            (posted.records, posted.more)
        };
        let lanes = async || {
            let entries = all_entries(&ledger).await;
            let of = |lane| entries.iter().filter(|entry| entry.key.lane == lane).count();
            (of(Lane::Trade), of(Lane::Stock))
        };
        assert_eq!(posted(6, usize::MAX).await, (6, true));
        assert_eq!(lanes().await, (3, 3));
        assert_eq!(posted(6, 1).await, (1, true), "a record that is larger goes alone");
        assert_eq!(posted(1, usize::MAX).await, (1, true));
        assert_eq!(posted(100, usize::MAX).await, (12, false));
        assert_eq!(posted(100, usize::MAX).await, (0, false));
        assert_eq!(lanes().await, (10, 10));

        // Latecomers: other records under the same numbers.
        ledger.take(&[trade(&one, 1, sales(31..=40)), trade(&one, 11, sales(41..=42))]).await.unwrap();
        assert_eq!(posted(4, usize::MAX).await, (4, true));
        assert_eq!(posted(6, usize::MAX).await, (6, true));
        assert_eq!(posted(6, usize::MAX).await, (2, false));
        ledger.take(&[trade(&one, 1, sales(51..=56))]).await.unwrap();
        assert_eq!(posted(3, usize::MAX).await, (3, true), "nothing but latecomers");
        assert_eq!(posted(100, 1).await, (1, true));
        assert_eq!(posted(100, usize::MAX).await, (2, false));
        assert_gapless(&all_entries(&ledger).await);
    }
}

#[tokio::test]
async fn two_boxes_that_take_turns_are_told_and_suspended_and_what_they_said_of_themselves_is_shown() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let child = |number, records| {
            let parent = Some(Parent { epoch: epoch(1), lanes: vec![] });
            let past = EpochHeads { live: false, ..heads(epoch(1), 1, None, vec![]) };
            vec![past, EpochHeads { parent, ..heads(epoch(number), records, None, vec![]) }]
        };
        let qualities = [ClockQuality::Synchronised, ClockQuality::Unsynchronised, ClockQuality::Behind];
        let said = [(2, 1), (3, 1), (2, 2)];
        let names = ["synchronised", "unsynchronised", "behind"];
        for (((number, records), clock), name) in said.into_iter().zip(qualities).zip(names) {
            let hello = Hello {
                versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
                software: format!("test {number}"),
                session: SESSION,
                round: 1,
                page: 0,
                pages: 1,
                wall_time: WallTime(0),
                clock,
                epochs: child(number, records),
                downlink: vec![],
            };
            ledger.hello(&one, &hello).await.unwrap();
            let view = ledger.stores(Some("0001")).await.unwrap().remove(0);
            assert_eq!(view.clock.as_deref(), Some(name));
            assert_eq!(view.software, Some(format!("test {number}")));
            assert_eq!(view.is_suspended, records == 2, "nothing is sent down to two boxes");
        }
        assert_eq!(exceptions(&ledger, flag::CLONE).await.len(), 1);
        assert_eq!(exceptions(&ledger, flag::ROLLBACK).await.len(), 1);
        assert_eq!(ledger.agents().await.unwrap(), [one]);
    }
}

#[tokio::test]
async fn rounds_of_a_snapshot_that_were_never_whole_give_way_and_the_applied_one_stays() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let part = |round: u32, part| Positions {
            session: SESSION,
            round,
            part,
            parts: 3,
            taken_at: WallTime(0),
            heads: vec![PositionHead { key: LaneKey { epoch: epoch(1), lane: Lane::Trade }, last: Seq(round.into()) }],
            items: vec![],
        };
        let kept = async || {
            let rows = place.database().read("SELECT COUNT(*) FROM positions", vec![]).await.unwrap();
            rows.into_iter().next().unwrap().read().int().unwrap()
        };
        for round in 1..=3 {
            ledger.positions(&one, &part(round, 0)).await.unwrap();
            assert_eq!(kept().await, 1, "only the newest is waited for");
        }
        for number in [1, 2] {
            ledger.positions(&one, &part(3, number)).await.unwrap();
            assert_eq!(kept().await, i64::from(number) + 1);
        }
        ledger.positions(&one, &part(4, 1)).await.unwrap();
        assert_eq!(kept().await, 4, "a part that comes before its first one waits for it");
        ledger.positions(&one, &part(5, 0)).await.unwrap();
        assert_eq!(kept().await, 4, "the applied three, and one of the newest");
    }
}

#[tokio::test]
async fn a_part_of_a_snapshot_that_cannot_be_one_is_left_out() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let part = |part, parts| Positions {
            session: SESSION,
            round: 1,
            part,
            parts,
            taken_at: WallTime(0),
            heads: vec![],
            items: vec![],
        };
        for (number, parts, is_kept) in
            [(0, 0, false), (1, 1, false), (2, 1, false), (0, 1_001, false), (999, 1_000, true)]
        {
            ledger.positions(&one, &part(number, parts)).await.unwrap();
            let mut tx = place.database().begin(Role::Desk).await.unwrap();
            let rows = tx.query("SELECT COUNT(*) FROM positions", vec![]).await.unwrap();
            tx.rollback().await.unwrap();
            assert_eq!(
                rows.into_iter().next().unwrap().read().int().unwrap(),
                i64::from(is_kept),
                "{number} of {parts}"
            );
        }
    }
}
