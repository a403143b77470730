//! Records are found by what a person knows of them, whatever the order of arrival and whichever version posted them.

use super::*;

/// A document of a till, `more` put into it.
fn written(kind: Kind, text: &str) -> Vec<u8> {
    let prepared = prepare(kind, text.as_bytes(), None, &context()).unwrap();
    Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document }.encode().unwrap()
}

fn transaction(number: u64, tells: &str, more: &str) -> Vec<u8> {
    let (kind, sign) = if tells == "sale" { ("sale", "") } else { ("return", "-") };
    written(
        Kind::TRANSACTION,
        &format!(
            r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"{tells}",
            "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR",
            "line_items":[{{"line":1,"kind":"{kind}","item_id":"A","quantity":"{sign}1","actual_unit_price":"5.00","extended_amount":"{sign}5.00"}}],
            "tenders":[{{"type":"cash","amount":"{sign}5.00"}}],"totals":{{"gross":"{sign}5.00"}}{more}}}"#
        ),
    )
}

fn link(number: u64) -> String {
    format!(
        r#","transaction_link":{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number}}}"#
    )
}

/// A record with what its box says of it.
fn enveloped(bytes: &[u8], change: impl FnOnce(&mut Envelope)) -> Vec<u8> {
    let mut record = Record::decode(bytes).unwrap();
    change(&mut record.envelope);
    record.encode().unwrap()
}

async fn look(ledger: &SqlLedger, by: By) -> Lookup {
    look_in(ledger, by, None).await
}

async fn look_in(ledger: &SqlLedger, by: By, store_id: Option<&str>) -> Lookup {
    let query = LookupQuery { by, store_id: store_id.map(str::to_owned), after: 0, limit: 100 };
    ledger.lookup(&query).await.unwrap()
}

fn receipt(number: u64) -> By {
    By::Identity(format!("t/3/2026-11-23/{number}/0"))
}

fn positions(found: &Lookup) -> Vec<u64> {
    found.entries.iter().map(|entry| entry.position).collect()
}

/// Eight records: a sale with an order, the same from another box, another under its number, a return and a void that name it; a document with
/// a name of its own and a stated trace; a fulfillment of the order; the same number in another store.
async fn business(ledger: &SqlLedger) {
    let (one, other, elsewhere) = (source("0001", "a"), source("0001", "b"), source("0002", "a"));
    let sold = transaction(7, "sale", r#","order_id":"W-1""#);
    let trace = r#","document_id":"doc-8","correlation_id":"basket-8","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01""#;
    let own = vec![
        sold.clone(),
        transaction(8, "sale", trace),
        transaction(9, "return", &link(7)),
        transaction(10, "void", &link(7)),
        written(
            Kind::FULFILLMENT_UPDATE,
            r#"{"document_id":"f-1","order_id":"W-1","type":"pickup","state":"prepared","end_date_time":"2026-11-23T10:15:40Z",
            "line_items":[{"line":1,"item_id":"A","quantity":"1"}]}"#,
        ),
    ];
    ledger.take(&[trade(&one, 1, own)]).await.unwrap();
    post_all(ledger).await;
    let again = vec![sold, transaction(7, "sale", r#","order_id":"W-2""#)];
    ledger.take(&[arrival(&other, epoch(2), Lane::Trade, 1, again)]).await.unwrap();
    ledger.take(&[arrival(&elsewhere, epoch(3), Lane::Trade, 1, vec![transaction(7, "sale", "")])]).await.unwrap();
    post_all(ledger).await;
}

/// What every ledger with that business says, whichever version posted it.
async fn assert_found(ledger: &SqlLedger) {
    let found = look_in(ledger, receipt(7), Some("0001")).await;
    assert_eq!(positions(&found), [1, 3, 4, 6, 7], "the sale, what names it, and what came again or otherwise");
    assert_eq!(found.entries[0].voided_by, Some(4));
    assert_eq!((found.entries[2].voids, found.entries[1].voids), (Some(1), None), "a return is no void");
    assert_eq!((found.entries[3].duplicate_of, found.entries[4].conflicts_with), (Some(1), Some(Some(1))));
    let codes: Vec<&str> = found.exceptions.iter().map(|exception| exception.code.as_str()).collect();
    assert_eq!(codes, [flag::IDENTITY_CONFLICT]);
    assert_eq!(positions(&look(ledger, receipt(7)).await), [1, 3, 4, 6, 7, 8], "every store's");
    assert_eq!(positions(&look_in(ledger, receipt(7), Some("0002")).await), [8]);
    assert_eq!(positions(&look(ledger, receipt(8)).await), [2], "a receipt that is identified by a name of its own");
    assert_eq!(positions(&look(ledger, By::Identity("d/doc-8".to_owned())).await), [2]);
    assert_eq!(positions(&look(ledger, By::Order("W-1".to_owned())).await), [1, 5, 6]);
    assert_eq!(positions(&look(ledger, By::Order("W-2".to_owned())).await), [7]);
    assert_eq!(positions(&look(ledger, By::Order("W-3".to_owned())).await), Vec::<u64>::new());
    let trace = |text: &str| By::Trace(text.to_owned());
    assert_eq!(positions(&look(ledger, trace("basket-8")).await), [2]);
    assert_eq!(positions(&look(ledger, trace("4bf92f3577b34da6a3ce929d0e0e4736")).await), [2]);
    let other_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-00";
    assert_eq!(positions(&look(ledger, trace(other_span)).await), [2]);
    let records = all_entries(ledger).await;
    assert_eq!((records[0].voided_by, records[3].voids), (Some(4), Some(1)), "who follows the records sees it, too");
}

#[tokio::test]
async fn a_receipt_an_order_a_document_and_a_stated_trace_are_found() {
    for place in places() {
        let ledger = place.open().await;
        business(&ledger).await;
        assert_found(&ledger).await;
    }
}

#[tokio::test]
async fn an_answer_is_paged_and_misses_nothing() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let records = (1..=25).map(|number| transaction(number, "sale", r#","order_id":"W""#)).collect();
        ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        post_all(&ledger).await;
        let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
        loop {
            let query = LookupQuery { by: By::Order("W".to_owned()), store_id: None, after, limit: 10 };
            let found = ledger.lookup(&query).await.unwrap();
            seen.extend(positions(&found));
            pages += 1;
            if !found.more {
                break;
            }
            after = *seen.last().unwrap();
        }
        assert_eq!((pages, seen), (3, (1..=25).collect()));
    }
}

#[tokio::test]
async fn names_that_were_minted_lead_to_the_record_also_before_it_is_posted() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let key = RecordKey { epoch: Epoch([0x5a; 16]), lane: Lane::Trade, seq: Seq(2) };
        let minted = |number: u64, key: RecordKey| {
            enveloped(&transaction(number, "sale", ""), |envelope| {
                envelope.correlation_id = Some(key.correlation_id());
                envelope.traceparent = Some(key.traceparent());
            })
        };
        let first = RecordKey { seq: Seq(1), ..key };
        let records = vec![minted(1, first), minted(2, key)];
        ledger.take(&[arrival(&one, key.epoch, Lane::Trade, 1, records)]).await.unwrap();
        let of_trace = || By::Trace(key.traceparent().get(3..35).unwrap().to_owned());
        let names = || [By::Trace(key.correlation_id()), By::Trace(key.traceparent()), of_trace()];
        for by in names() {
            let found = look(&ledger, by.clone()).await;
            assert_eq!((positions(&found), found.entries[0].key), (vec![0], key), "stored and not posted: {by:?}");
        }
        post_all(&ledger).await;
        for by in names() {
            assert_eq!(positions(&look(&ledger, by).await), [2]);
        }
        assert_eq!(
            positions(&look_in(&ledger, By::Trace(key.correlation_id()), Some("0002")).await),
            Vec::<u64>::new()
        );
        let names = ledger.database.read("SELECT COUNT(*) FROM names", vec![]).await.unwrap().pop().unwrap();
        assert_eq!(names.read().int().unwrap(), 0, "what a record is minted as needs no index");
        // Half of another epoch is the same, which is all that a trace id has room for.
        let mut half = key.epoch.0;
        half[15] = 1;
        let near = RecordKey { epoch: Epoch(half), ..key };
        ledger
            .take(&[arrival(
                &one,
                near.epoch,
                Lane::Trade,
                1,
                vec![minted(3, RecordKey { seq: Seq(1), ..near }), minted(4, near)],
            )])
            .await
            .unwrap();
        post_all(&ledger).await;
        assert_eq!(positions(&look(&ledger, of_trace()).await), [2, 4], "both have that trace id");
        assert_eq!(positions(&look(&ledger, By::Trace(key.correlation_id())).await), [2]);
    }
}

#[tokio::test]
async fn a_void_that_comes_before_its_receipt_is_tied_to_it_when_it_comes() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0001", "b"));
        let named = transaction(6, "sale", r#","document_id":"doc-6""#);
        ledger
            .take(&[trade(&one, 1, vec![transaction(10, "void", &link(7)), transaction(11, "void", &link(6))])])
            .await
            .unwrap();
        post_all(&ledger).await;
        assert_eq!(look(&ledger, receipt(10)).await.entries[0].voids, None);
        let late = vec![transaction(7, "sale", ""), named, transaction(12, "void", &link(7))];
        ledger.take(&[arrival(&other, epoch(2), Lane::Trade, 1, late)]).await.unwrap();
        post_all(&ledger).await;
        let found = look(&ledger, receipt(7)).await;
        assert_eq!(positions(&found), [1, 3, 5]);
        assert_eq!(found.entries[1].voided_by, Some(1), "the first void of a receipt");
        assert_eq!((found.entries[0].voids, found.entries[2].voids), (Some(3), Some(3)));
        assert_eq!(
            look(&ledger, receipt(6)).await.entries[1].voided_by,
            Some(2),
            "by what it is known as beside its name"
        );
        let waiting = ledger.database.read("SELECT COUNT(*) FROM voids_waiting", vec![]).await.unwrap().pop().unwrap();
        assert_eq!(waiting.read().int().unwrap(), 0);
        // What is no first of its identity reverses nothing.
        let conflict = enveloped(&transaction(20, "void", &link(8)), |envelope| {
            envelope.conflicts_with = Some(found.entries[0].key);
        });
        ledger
            .take(&[arrival(&other, epoch(2), Lane::Trade, 4, vec![transaction(8, "sale", ""), conflict])])
            .await
            .unwrap();
        post_all(&ledger).await;
        let found = look(&ledger, receipt(8)).await;
        assert_eq!((positions(&found), found.entries[0].voided_by), (vec![6, 7], None));
        assert_eq!(
            positions(&look(&ledger, receipt(20)).await),
            [7],
            "a conflict that its box knew is found all the same"
        );
    }
}

#[tokio::test]
async fn a_ledger_of_the_version_before_is_migrated_and_its_records_are_found() {
    for place in places() {
        let ledger = place.open().await;
        business(&ledger).await;
        let mut tx = ledger.database.begin(Role::Desk).await.unwrap();
        for sql in place.undo() {
            tx.execute_many(sql, vec![vec![]]).await.unwrap();
        }
        tx.commit().await.unwrap();
        drop(ledger);
        let ledger = place.open().await;
        assert_eq!(positions(&look(&ledger, By::Order("W-1".to_owned())).await), Vec::<u64>::new());
        // In small pieces, and before anything new is posted.
        ledger
            .take(&[trade(&source("0001", "a"), 6, vec![transaction(11, "sale", r#","order_id":"W-9""#)])])
            .await
            .unwrap();
        let bounds = PostingBounds { records_max: 3, ..BOUNDS };
        let mut rounds = 0;
        while ledger.post(bounds).await.unwrap().more {
            rounds += 1;
        }
        assert_eq!(rounds, 3, "eight records, three at a time, and then the new one");
        assert_found(&ledger).await;
        assert_eq!(positions(&look(&ledger, By::Order("W-9".to_owned())).await), [9]);
        assert_eq!(
            ledger
                .totals("0001", "2026-11-23")
                .await
                .unwrap()
                .iter()
                .find(|row| row.what == "counted")
                .unwrap()
                .transactions,
            5
        );
    }
}
