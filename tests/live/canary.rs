//! Card numbers as canaries: sent in every place of a document, in remarks, keys, paths and broken bodies, through a real agent with
//! the most verbose log to a real hub, and then looked for in every byte that stayed anywhere.
//!
//! Invariant: the numbers are the brands' published test numbers, and each is looked for as it is, with separators, as hexadecimal digits and in
//! base 64. A control that is no card number goes along and must be found, so that looking in the wrong place fails the test.

use std::path::Path;
use std::time::Duration;

use counterfoil_proto::codec::decode_batch;
use serde_json::{Value, json};
use world::http::segment;
use world::ledger::Ledger;
use world::wait::Deadline;

use crate::captured::{capture, play};
use crate::stage::{Stage, sale};

const LIMIT: Duration = Duration::from_mins(2);
/// Visa, Mastercard, American Express, Discover.
const CARDS: [&str; 4] = ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"];
/// Sixteen digits with a wrong check digit: stays as it is.
const CONTROL: &str = "4111111111111112";

/// `digits` in the groups that are embossed on a card.
fn grouped(digits: &str, separator: &str) -> String {
    let sizes = if digits.len() == 15 { [4, 6, 5, 0] } else { [4; 4] };
    let mut rest = digits;
    let mut groups = sizes.into_iter().filter(|size| *size > 0).map(|size| {
        let (group, after) = rest.split_at(size);
        rest = after;
        group
    });
    let first = groups.next().unwrap().to_owned();
    groups.fold(first, |text, group| text + separator + group)
}

/// Base 64 (RFC 4648) without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().chain([0; 3].iter()).take(3).fold(0, |bits: usize, byte| (bits << 8) | usize::from(*byte));
        text.extend((0..=group.len()).map(|place| char::from(ALPHABET[(bits >> (18 - 6 * place)) & 63])));
    }
    text
}

/// The forms in which `digits` may stand somewhere.
fn forms(digits: &str) -> Vec<Vec<u8>> {
    let hex: String = digits.chars().flat_map(|digit| ['3', digit]).collect();
    let number: u64 = digits.parse().unwrap();
    let mut forms = vec![digits.to_owned(), grouped(digits, " "), grouped(digits, "-"), hex, format!("{number:x}")];
    // Whatever stands before it, at one of three offsets the inner characters are these.
    forms.extend((0..3).map(|offset| {
        let encoded = base64(&[vec![b' '; offset], digits.as_bytes().to_vec()].concat());
        encoded[if offset == 0 { 0 } else { offset + 1 }..encoded.len() - 1].to_owned()
    }));
    // Without the zeros at the upper end.
    let binary = [number.to_le_bytes()[..7].to_vec(), number.to_be_bytes()[1..].to_vec()];
    forms.into_iter().map(String::into_bytes).chain(binary).collect()
}

/// What was kept, by where.
#[derive(Default)]
struct Kept(Vec<(String, Vec<u8>)>);

impl Kept {
    fn add(&mut self, place: impl Into<String>, bytes: Vec<u8>) {
        self.0.push((place.into(), bytes));
    }

    /// Every file below `directory`.
    fn files(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.files(&path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                self.add(path.display().to_string(), bytes);
            }
        }
    }

    /// Where any form of `digits` stands.
    fn places(&self, digits: &str) -> Vec<&str> {
        let forms = forms(digits);
        let mut begins = [false; 256];
        for form in &forms {
            begins[usize::from(form[0])] = true;
        }
        let holds = |bytes: &[u8]| {
            let mut starts = bytes.iter().enumerate().filter(|(_, byte)| begins[usize::from(**byte)]);
            starts.any(|(start, _)| forms.iter().any(|form| bytes[start..].starts_with(form)))
        };
        self.0.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.as_str()).collect()
    }
}

/// Every place of a sale that takes text, with a card number in it.
fn sales() -> Vec<Value> {
    let pointers = [
        "/operator_name",
        "/4111 1111 1111 1111",
        "/attributes",
        "/fiscal_evidence",
        "/channel",
        "/traceparent",
        "/line_items/0/description",
        "/line_items/0/gtin",
        "/line_items/0/unit",
        "/line_items/0/serial_numbers",
        "/line_items/0/unknown",
        "/tenders/0/reference",
        "/payment",
        "/correlation_id",
        "/document_id",
        "/customer_id",
        "/line_items/0/item_id",
        "/end_date_time",
        "/totals/gross",
        "/type",
    ];
    let mut documents = Vec::new();
    for card in CARDS {
        for written in [card.to_owned(), grouped(card, " "), grouped(card, "-"), format!("paid with {card}.")] {
            for pointer in pointers {
                let mut document = sale(100 + documents.len() as u64, 499);
                document["attributes"] = json!({"control": CONTROL});
                let value = match pointer {
                    "/attributes" => json!({"control": CONTROL, "note": written, written.as_str(): "note"}),
                    "/fiscal_evidence" => json!([{"deep": [written, {"pan": card.parse::<u64>().unwrap()}]}]),
                    "/line_items/0/serial_numbers" => json!([written]),
                    "/payment" => json!({"pan": card.parse::<u64>().unwrap(), written.as_str(): null}),
                    _ => json!(written),
                };
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                document.pointer_mut(parent).unwrap()[name] = value;
                documents.push(document);
            }
        }
    }
    documents
}

/// Sends everything; gives the answers, which must not repeat a card number either.
async fn send(stage: &Stage, kept: &mut Kept) -> usize {
    let api = stage.agent.api();
    let mut recorded = 0;
    for document in sales() {
        for path in ["/v1/validate", "/v1/transactions"] {
            let answer = api.post(path, "application/json", document.to_string().into_bytes()).await.unwrap();
            recorded += usize::from(path == "/v1/transactions" && answer.status == 201);
            assert!([200, 201, 422].contains(&answer.status), "{} {}", answer.status, answer.text());
            kept.add(format!("the answer to {path} {document}"), answer.body);
        }
    }
    let api = &api;
    let mut ask = async |path: String, content_type: &str, body: String| {
        let answer = if content_type.is_empty() {
            api.get(&path).await
        } else {
            api.post(&path, content_type, body.into_bytes()).await
        };
        kept.add("an answer", answer.unwrap().body);
    };
    for card in CARDS {
        let (quoted, spaced) = (segment(card), segment(&grouped(card, " ")));
        for path in [
            "/v1/stock/",
            "/v1/receipts?document_id=",
            "/v1/days/",
            "/v1/exceptions?",
            "/",
            "/v1/receipts/1/2026-11-23/",
        ] {
            ask(format!("{path}{quoted}"), "", String::new()).await;
            ask(format!("{path}{spaced}"), "", String::new()).await;
        }
        for body in [
            card.to_owned(),
            format!("\"{card}\""),
            format!("{{\"pan\":\"{card}\""),
            format!("[{card},{{\"{card}\":{card}}}]"),
        ] {
            for path in [
                "/v1/transactions",
                "/v1/stock-movements",
                "/v1/fulfillment-updates",
                "/v1/tender-controls",
                "/v1/day-closes",
            ] {
                ask(path.to_owned(), "application/json", body.clone()).await;
                ask(path.to_owned(), "application/x-ndjson", body.clone()).await;
            }
        }
        ask("/v1/transactions".to_owned(), &format!("text/{card}"), card.to_owned()).await;
    }
    // Remarks about an exception go into the journal and to the hub as well.
    let exceptions: Value = api.json("/v1/exceptions").await.unwrap();
    let exceptions = exceptions.as_array().unwrap();
    assert!(exceptions.len() >= CARDS.len(), "{exceptions:?}");
    for (exception, card) in exceptions.iter().zip(CARDS) {
        let path = format!("/v1/exceptions/{}/resolve", exception["id"].as_str().unwrap());
        let remark = json!({"by": format!("Ann {card}"), "reason": format!("was {}", grouped(card, "-"))});
        ask(path, "application/json", remark.to_string()).await;
    }
    recorded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_card_number_is_found_anywhere() {
    let verbose = "[log]\nlevel = \"trace\"\n";
    let mut stage = Stage::with(verbose, verbose).await;
    let listening = capture(&stage.broker).await;
    let mut kept = Kept::default();
    let recorded = send(&stage, &mut kept).await;
    assert!(recorded > 100, "{recorded} sales were recorded");
    stage.agent.drained(LIMIT).await;
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    while ledger.stubs.len() < recorded {
        deadline.rest_for(&format!("{recorded} sales in the ledger")).await;
        ledger.read_on(&stage.hub.api()).await.unwrap();
    }
    // The state store is written at the latest when the agent stops.
    stage.agent.stop().await;
    play(&stage.broker, &[("end".to_owned(), Vec::new())]).await;
    let mut batches = 0;
    for (topic, payload) in listening.await.unwrap() {
        let decompress = |bytes: &[u8], length: usize| zstd::bulk::decompress(bytes, length).ok();
        if let Ok(batch) = decode_batch(&payload, decompress) {
            batches += 1;
            for record in batch.records {
                kept.add(format!("a record of {topic}"), record);
            }
        }
        kept.add(topic, payload);
    }
    assert!(batches > 0, "batches were captured");
    let client = stage.postgres.client("ledger").await.unwrap();
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // As JSON: bytes become hexadecimal digits, and nothing is left out.
        let rows = client.query(&format!("SELECT to_jsonb(t)::text FROM \"{table}\" t"), &[]).await.unwrap();
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        kept.add(format!("table {table} of the hub"), rows.join("\n").into_bytes());
    }
    kept.files(stage.directory());

    // The control is where the cards would be.
    let control = kept.places(CONTROL).join("\n");
    for place in ["/journal/", "a record of ", "table records"] {
        assert!(control.contains(place), "{place} does not hold the control:\n{control}");
    }
    for card in CARDS {
        let found = kept.places(card);
        assert!(found.is_empty(), "{card} stands in {} places: {:#?}", found.len(), found.get(..found.len().min(20)));
    }
}
