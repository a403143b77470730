//! What is kept of a store's day, and that it is the same whatever the chunks.

use super::*;
use crate::posting::DayWhat;
use crate::reconcile::Numbers;

fn document(kind: Kind, text: &str, flags: &[&str]) -> Vec<u8> {
    let prepared = prepare(kind, text.as_bytes(), None, &context()).unwrap();
    let mut envelope = prepared.envelope;
    envelope.flags.extend(flags.iter().map(|code| Flag { code: (*code).to_owned().into(), pointer: String::new() }));
    Record { kind: prepared.kind, envelope, document: prepared.document }.encode().unwrap()
}

fn named(document_id: &str, number: u64, cents: u64, flags: &[&str]) -> Vec<u8> {
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    let text = format!(
        r#"{{"document_id":"{document_id}","workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"sale",
        "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR",
        "line_items":[{{"line":1,"kind":"sale","item_id":"A","quantity":"1","actual_unit_price":"{amount}","extended_amount":"{amount}"}}],
        "tenders":[{{"type":"cash","amount":"{amount}"}}],"totals":{{"gross":"{amount}"}}}}"#
    );
    document(Kind::TRANSACTION, &text, flags)
}

fn close(till: Option<&str>, transactions: u64, gross: &str) -> Vec<u8> {
    let till = till.map(|till| format!(r#""workstation_id":"{till}","#)).unwrap_or_default();
    let text = format!(
        r#"{{"document_id":"c{transactions}",{till}"business_day_date":"2026-11-23","end_date_time":"2026-11-23T20:00:00Z",
        "first_sequence_number":1,"last_sequence_number":9,
        "totals":[{{"currency_code":"EUR","transactions":{transactions},"gross":"{gross}","tenders":[{{"type":"cash","amount":"{gross}"}}]}}]}}"#
    );
    document(Kind::DAY_CLOSE, &text, &[])
}

#[tokio::test]
async fn a_day_names_its_closes_what_came_late_conflicts_and_numbers() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = vec![
            named("a", 1, 100, &[]),
            named("b", 2, 200, &[]),
            named("b", 2, 201, &[]),
            named("c", 5, 300, &[]),
            named("d", 5, 400, &[]),
            close(Some("3"), 4, "10.00"),
            named("e", 6, 500, &["LATE_AFTER_CLOSE"]),
            close(None, 5, "15.00"),
        ];
        for (index, record) in (1..).zip(&records) {
            ledger.take(&[trade(&one, index, vec![record.clone()])]).await.unwrap();
            if index % 3 == 0 {
                post_all(&ledger).await;
            }
        }
        post_all(&ledger).await;
        let day = ledger.day("0001", "2026-11-23").await.unwrap();
        let found: Vec<_> = day
            .documents
            .iter()
            .map(|document| {
                let gross = document.sums.sums.get("EUR").map(|sums| (sums.transactions, sums.gross));
                (document.position, document.what, document.workstation_id.as_str(), document.identity.as_str(), gross)
            })
            .collect();
        assert_eq!(
            found,
            [
                (3, DayWhat::Conflict, "3", "d/b", Some((1, 201))),
                (5, DayWhat::Doubled, "3", "d/d", Some((1, 400))),
                (6, DayWhat::Close, "3", "d/c4", Some((4, 1_000))),
                (7, DayWhat::Late, "3", "d/e", Some((1, 500))),
                (8, DayWhat::Close, "", "d/c5", Some((5, 1_500))),
            ]
        );
        assert_eq!(day.documents[2].sums.span, Some((1, 9)));
        assert_eq!(day.numbers.len(), 1);
        assert_eq!(day.numbers[0].numbers, Numbers(vec![(1, 2), (5, 6)]));
        assert_eq!(day.agents, [("a".to_owned(), true)]);
        assert!(ledger.day("0001", "2026-11-24").await.unwrap().documents.is_empty());
        assert!(ledger.day("0002", "2026-11-23").await.unwrap().agents.is_empty());
        // A duplicate adds nothing, and what is announced and not here is waited for.
        ledger
            .take(&[trade(&one, 9, vec![named("a", 1, 100, &[])]), trade(&one, 12, vec![named("f", 7, 1, &[])])])
            .await
            .unwrap();
        post_all(&ledger).await;
        let again = ledger.day("0001", "2026-11-23").await.unwrap();
        assert_eq!((again.documents, again.numbers), (day.documents, day.numbers));
        assert_eq!(again.agents, [("a".to_owned(), false)]);
    }
}
