//! Replays that a person orders: what is planned, that it is passed on once the agent is online, and what is shown of it.

use super::*;

fn deed() -> Deed {
    Deed { who: "Ann".into(), role: "cli", peer: None, route: "replay".into(), what: "0001.a".into() }
}

#[tokio::test]
async fn a_time_becomes_numbers_and_an_order_is_due_until_the_agent_was_asked() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0001", "b"));
        ledger.take(&[trade(&one, 1, sales(1..=20))]).await.unwrap();
        // 21 and 22 did not come; 23 to 25 did.
        ledger.take(&[trade(&one, 23, sales(23..=25)), trade(&other, 1, sales(101..=105))]).await.unwrap();
        let at = |from: i64, to: i64| ReplayQuery {
            source: one.clone(),
            lane: None,
            from: WallTime(from),
            to: WallTime(to),
        };
        let plan = ledger.plan_replay(&at(0, i64::MAX)).await.unwrap();
        assert_eq!(plan.len(), 1);
        let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
        assert_eq!((plan[0].range, plan[0].held), (range(1, 25), 23));
        assert_eq!(ledger.plan_replay(&at(0, 1)).await.unwrap(), [], "nothing was received then");
        assert_eq!(ledger.plan_replay(&ReplayQuery { lane: Some(Lane::Ops), ..at(0, i64::MAX) }).await.unwrap(), []);

        ledger.order_replay(&plan, "Ann", "the ERP lost a day", &deed()).await.unwrap();
        assert_eq!(ledger.due_replays().await.unwrap(), [], "nobody said hello");
        let online =
            Presence { state: "online".to_owned(), session: SESSION, epoch: None, software: "test".to_owned() };
        hello(&ledger, &one, SESSION, vec![]).await;
        ledger.presence(&one, &online).await.unwrap();
        let due = ledger.due_replays().await.unwrap();
        assert_eq!(due.len(), 1);
        assert_eq!(
            (&due[0].source, due[0].session, due[0].key, due[0].range),
            (&one, SESSION, plan[0].key, range(1, 25))
        );
        ledger.note_asked(due[0].number).await.unwrap();
        assert_eq!(ledger.due_replays().await.unwrap(), []);

        ledger.take(&[trade(&one, 1, sales(1..=25))]).await.unwrap();
        let shown = ledger.replays().await.unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!((shown[0].came_again, shown[0].new, shown[0].asked_at.is_some()), (23, 2, true));
        assert_eq!((shown[0].by.as_str(), shown[0].reason.as_str()), ("Ann", "the ERP lost a day"));
    }
}
