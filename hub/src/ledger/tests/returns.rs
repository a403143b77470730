//! Returns against purchases: a drawn history of few customers and items against the plain rule, however it was cut into chunks.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::*;

/// Customer, item, price in cents, quantity: below zero where it came back.
type Drawn = (Option<u8>, u8, u32, i64);

fn document(number: usize, lines: &[Drawn], more: &str) -> Vec<u8> {
    let items: Vec<String> = lines
        .iter()
        .map(|(_, item, price, quantity)| {
            let kind = if *quantity < 0 { "return" } else { "sale" };
            let (price, amount) = (Decimal::new(i64::from(*price), 2), Decimal::new(i64::from(*price) * quantity, 2));
            format!(
                r#"{{"line":1,"kind":"{kind}","item_id":"I{item}","quantity":"{quantity}","actual_unit_price":"{price}","extended_amount":"{amount}"}}"#
            )
        })
        .collect();
    let gross: i64 = lines.iter().map(|(_, _, price, quantity)| i64::from(*price) * quantity).sum();
    let customer =
        lines.first().and_then(|line| line.0).map(|id| format!(r#""customer_id":"C{id}","#)).unwrap_or_default();
    let text = format!(
        r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":{number},"type":"exchange",{customer}
        "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR","line_items":[{}],"totals":{{"gross":"{}"}}{more}}}"#,
        items.join(","),
        Decimal::new(gross, 2)
    );
    let prepared = prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()).unwrap();
    Record { kind: prepared.kind, envelope: prepared.envelope, document: prepared.document }.encode().unwrap()
}

async fn lines(ledger: &SqlLedger, beyond: Option<Ground>, customer: Option<&str>) -> Vec<ReturnView> {
    let (mut after, mut all) = ((0, 0), Vec::new());
    loop {
        let query = ReturnsQuery { store_id: None, customer_id: customer.map(str::to_owned), beyond, after, limit: 7 };
        let page = ledger.returns(&query).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = (last.position, last.line);
        all.extend(page);
    }
}

/// A history of that seed: transactions of one to three lines.
fn history(seed: u64) -> Vec<Vec<Drawn>> {
    let mut draw = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut below = move |bound: u8| {
        let mut byte = [0];
        draw.fill(&mut byte);
        byte[0] % bound
    };
    let transaction = |_| {
        let customer = Some(below(4)).filter(|customer| *customer > 0);
        let count = 1 + below(3);
        (0..count)
            .map(|_| {
                let quantity = i64::from(below(9)) - 4;
                (customer, below(20), 100 + u32::from(below(2)), if quantity == 0 { 5 } else { quantity })
            })
            .collect()
    };
    (0..120).map(transaction).collect()
}

/// Position and line of the lines that are beyond, on both grounds.
fn expected(history: &[Vec<Drawn>]) -> [Vec<(u64, u32)>; 2] {
    let all = || {
        history.iter().zip(1_u64..).flat_map(|(lines, position)| {
            lines.iter().zip(0_u32..).map(move |(drawn, line)| ((position, line), *drawn))
        })
    };
    let mut at_price: BTreeMap<_, i64> = BTreeMap::new();
    for (_, (customer, item, price, quantity)) in all().filter(|(_, drawn)| drawn.3 > 0) {
        *at_price.entry((customer, item, price)).or_default() += quantity;
    }
    let mut so_far: BTreeMap<_, i64> = BTreeMap::new();
    let mut beyond = [Vec::new(), Vec::new()];
    for (place, (customer, item, price, quantity)) in all() {
        let left = so_far.entry((customer, item)).or_default();
        *left += quantity;
        if quantity < 0 {
            if -quantity > at_price.get(&(customer, item, price)).copied().unwrap_or_default() {
                beyond[0].push(place);
            }
            if *left < 0 {
                beyond[1].push(place);
            }
        }
    }
    beyond
}

#[tokio::test]
async fn what_is_beyond_is_what_the_plain_rule_says_however_it_came_in() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        let history = history(1);
        let records: Vec<Vec<u8>> =
            history.iter().zip(1..).map(|(lines, number)| document(number, lines, "")).collect();
        for (index, chunk) in records.chunks(13).enumerate() {
            ledger.take(&[trade(&one, u64::try_from(index * 13 + 1).unwrap(), chunk.to_vec())]).await.unwrap();
            if index % 2 == 0 {
                while ledger.post(PostingBounds { records_max: 5, ..BOUNDS }).await.unwrap().more {}
            }
        }
        post_all(&ledger).await;
        let [at_price, so_far] = expected(&history);
        assert!(at_price.len() > 2 && so_far.len() > 2 && at_price != so_far, "the history has both");
        let places = |views: &[ReturnView]| views.iter().map(|view| (view.position, view.line)).collect::<Vec<_>>();
        let found = lines(&ledger, Some(Ground::AtPrice), None).await;
        assert_eq!(places(&found), at_price);
        assert!(found.iter().all(|view| view.quantity > view.bought_at_price));
        let found = lines(&ledger, Some(Ground::SoFar), None).await;
        assert_eq!(places(&found), so_far);
        let every = lines(&ledger, None, None).await;
        assert_eq!(every.len(), history.iter().flatten().filter(|drawn| drawn.3 < 0).count());
        let of_one = lines(&ledger, None, Some("C1")).await;
        assert!(!of_one.is_empty() && of_one.iter().all(|view| view.customer_id.as_deref() == Some("C1")));
        let unknown = lines(&ledger, None, Some("")).await;
        assert!(!unknown.is_empty() && unknown.iter().all(|view| view.customer_id.is_none()));
    }
}

#[tokio::test]
async fn what_does_not_count_is_neither_bought_nor_given_back() {
    for place in places() {
        let ledger = place.open().await;
        let (one, other) = (source("0001", "a"), source("0001", "b"));
        let sale = [(Some(1), 0, 100, 2)];
        let back = [(Some(1), 0, 100, -3)];
        let records = vec![
            document(1, &sale, ""),
            document(2, &sale, r#","training_mode":true"#),
            document(3, &sale, r#","status":"canceled""#),
            document(4, &back, r#","status":"suspended""#),
            document(5, &back, ""),
        ];
        ledger.take(&[trade(&one, 1, records)]).await.unwrap();
        post_all(&ledger).await;
        // The sale again, and another one under its number.
        let again = vec![document(1, &sale, ""), document(1, &[(Some(1), 0, 100, 9)], "")];
        ledger.take(&[arrival(&other, epoch(2), Lane::Trade, 1, again)]).await.unwrap();
        post_all(&ledger).await;
        let found = lines(&ledger, Some(Ground::AtPrice), None).await;
        assert_eq!(found.len(), 1);
        let (bought, back) = (found[0].bought_at_price, found[0].returned_so_far);
        assert_eq!((found[0].position, bought, found[0].bought_before, back), (5, 2.into(), 2.into(), 3.into()));
        // A purchase that comes later, from another store, takes it off the first list and not off the second.
        let elsewhere = source("0002", "a");
        ledger.take(&[arrival(&elsewhere, epoch(3), Lane::Trade, 1, vec![document(1, &sale, "")])]).await.unwrap();
        post_all(&ledger).await;
        assert_eq!(lines(&ledger, Some(Ground::AtPrice), None).await, []);
        assert_eq!(lines(&ledger, Some(Ground::SoFar), None).await.len(), 1);
    }
}
