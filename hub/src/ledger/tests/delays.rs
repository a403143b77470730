//! Delays: each till's document is counted once, under its channel, from its capture on.

use super::*;
use crate::env;

#[tokio::test]
async fn each_document_is_timed_once_under_its_channel() {
    let captured_ago = |seconds: i64, kind: Kind, text: &str| {
        let prepared = prepare(kind, text.as_bytes(), None, &context()).unwrap();
        let mut envelope = prepared.envelope;
        envelope.recorded_at = WallTime(env::wall().0 - 1_000 * seconds);
        Record { kind: prepared.kind, envelope, document: prepared.document }.encode().unwrap()
    };
    let sale = |number: u64, channel: &str| {
        format!(
            r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"sale","channel":"{channel}",
            "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR","line_items":[{{"line":1,"kind":"sale","item_id":"A","quantity":"1",
            "actual_unit_price":"1.00","extended_amount":"1.00","fulfillment":{{"type":"take_with"}}}}],
            "tenders":[{{"type":"cash","amount":"1.00"}}],"totals":{{"gross":"1.00"}}}}"#
        )
    };
    let order = r#"{"document_id":"f1","order_id":"W1","type":"pickup","state":"reserved","channel":"web",
        "end_date_time":"2026-11-23T10:15:40Z","line_items":[{"line":1,"order_line":"1","item_id":"A","quantity":"1"}]}"#;
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = vec![
            captured_ago(3_600, Kind::TRANSACTION, &sale(1, "store")),
            captured_ago(3_600, Kind::TRANSACTION, &sale(2, "store")),
            // A box whose clock is ahead.
            captured_ago(-3_600, Kind::TRANSACTION, &sale(3, "store")),
            captured_ago(86_400, Kind::FULFILLMENT_UPDATE, order),
            Record { kind: Kind::EPOCH_START, envelope: Envelope::default(), document: b"{}".to_vec() }
                .encode()
                .unwrap(),
        ];
        ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        post_all(&ledger).await;
        post_all(&ledger).await;
        let query = DelayQuery { first_day: "2026-01-01".to_owned(), last_day: "9999-01-01".to_owned() };
        let found = ledger.delays(&query).await.unwrap();
        for is_posted in [false, true] {
            let mut rows: Vec<(&str, &str, u64, u64)> = found
                .iter()
                .filter(|view| view.is_posted == is_posted)
                .map(|view| {
                    (view.channel.as_str(), view.fulfillment_type.as_str(), view.longest_ms / 3_600_000, view.documents)
                })
                .collect();
            rows.sort_unstable();
            assert_eq!(rows.len(), 3, "{found:?}");
            assert_eq!(
                (rows[0], rows[1].0, rows[1].1, rows[1].3),
                (("store", "take_with", 0, 1), "store", "take_with", 2)
            );
            assert_eq!((rows[2].0, rows[2].1, rows[2].3), ("web", "pickup", 1));
            assert!((1..2).contains(&rows[1].2) && (24..30).contains(&rows[2].2), "{rows:?}");
        }
        let long_ago = DelayQuery { first_day: "2020-01-01".to_owned(), last_day: "2020-01-02".to_owned() };
        assert_eq!(ledger.delays(&long_ago).await.unwrap(), []);
    }
}
