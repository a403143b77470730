//! Orders of Square and Shopify.

use serde_json::Value;

use super::*;

const SQUARE: &str = r#"{"order":{"id":"o1","state":"COMPLETED","version":4,"created_at":"2026-11-23T10:00:00Z","closed_at":"2026-11-23T10:01:00Z",
"source":{"name":"App"},"line_items":[{"uid":"l1","catalog_object_id":"mug","name":"Mug","quantity":"2","base_price_money":{"amount":2200,"currency":"USD"},
"modifiers":[{"name":"Well","total_price_money":{"amount":100,"currency":"USD"}}],
"applied_discounts":[{"discount_uid":"d1","applied_money":{"amount":346,"currency":"USD"}}],
"applied_taxes":[{"tax_uid":"t1","applied_money":{"amount":374,"currency":"USD"}}],"total_money":{"amount":4528,"currency":"USD"}}],
"taxes":[{"uid":"t1","percentage":"9","type":"ADDITIVE","name":"State"}],"total_tip_money":{"amount":100,"currency":"USD"},
"fulfillments":[{"uid":"f1","type":"PICKUP","state":"PREPARED","pickup_details":{"ready_at":"2026-11-23T11:00:00Z","recipient":{"display_name":"Ann"}}}],
"tenders":[{"type":"CARD","amount_money":{"amount":4628,"currency":"USD"},"card_details":{"status":"CAPTURED","card":{"last_4":"1111"}}}],
"total_tax_money":{"amount":374,"currency":"USD"},"total_money":{"amount":4628,"currency":"USD"}}}"#;

pub(super) const SHOPIFY: &str = r##"{"id":450789469,"name":"#1001","currency":"EUR","financial_status":"paid","created_at":"2026-11-23T10:00:00+01:00","taxes_included":true,
"total_price":"23.80","total_tax":"3.80","total_discounts":"1.20","customer":{"id":7,"email":"a@b.c"},"billing_address":{"city":"Paris"},
"line_items":[{"id":1,"sku":"MUG","name":"Mug","quantity":2,"price":"10.50","discount_allocations":[{"amount":"1.20"}],
"tax_lines":[{"price":"3.16","rate":0.19,"title":"VAT"}]}],
"shipping_lines":[{"title":"Post","price":"4.00","tax_lines":[{"price":"0.64","rate":0.19}]}],
"fulfillments":[{"id":9,"status":"success","updated_at":"2026-11-23T12:00:00Z","tracking_numbers":["1Z"],"line_items":[{"id":1,"sku":"MUG","quantity":2}]}]}"##;

fn document(prepared: &Prepared) -> Value {
    serde_json::from_slice(&prepared.document).unwrap()
}

#[test]
fn an_order_of_square_is_a_sale_and_a_fulfillment() {
    let documents = prepared(&profile("square"), SQUARE.as_bytes());
    assert_eq!(documents.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::TRANSACTION, Kind::FULFILLMENT_UPDATE]);
    assert!(documents.iter().all(|one| one.envelope.flags.is_empty()), "{documents:?}");
    let sale = document(&documents[0]);
    assert_eq!((&sale["document_id"], &sale["status"]), (&"square-o1".into(), &"finished".into()));
    assert_eq!(sale["line_items"][0]["extended_amount"], "41.54", "without the tax that is added");
    assert_eq!(sale["line_items"][1]["kind"], "tip");
    assert_eq!(sale["totals"]["gross"], "46.28");
    let update = document(&documents[1]);
    assert_eq!((&update["state"], &update["type"]), (&"prepared".into(), &"pickup".into()));
    assert_eq!(
        (&update["line_items"][0]["item_id"], &update["end_date_time"]),
        (&"mug".into(), &"2026-11-23T11:00:00Z".into())
    );
    let warnings = documents[0].warnings.join("\n");
    for named in
        ["/order/tenders/*/card_details/card", "/order/taxes/*/name", "/order/fulfillments/*/pickup_details/recipient"]
    {
        assert!(warnings.contains(&format!("not mapped: {named}")), "{named} in {warnings}");
    }
    let open = SQUARE.replace("COMPLETED", "OPEN");
    assert_eq!(document(&prepared(&profile("square"), open.as_bytes())[0])["document_id"], "square-o1-open-4");
}

#[test]
fn an_order_of_shopify_is_a_sale_and_a_fulfillment() {
    let documents = prepared(&profile("shopify"), SHOPIFY.as_bytes());
    assert_eq!(documents.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::TRANSACTION, Kind::FULFILLMENT_UPDATE]);
    assert!(documents.iter().all(|one| one.envelope.flags.is_empty()), "{documents:?}");
    let sale = document(&documents[0]);
    assert_eq!(
        (&sale["document_id"], &sale["line_items"][0]["extended_amount"]),
        (&"shopify-450789469".into(), &"19.80".into())
    );
    assert_eq!(sale["line_items"][0]["taxes"][0], json!({ "rate": "19", "included": true, "amount": "3.16" }));
    let update = document(&documents[1]);
    assert_eq!((&update["state"], &update["packages"][0]), (&"completed".into(), &"1Z".into()));
    let warnings = documents[0].warnings.join("\n");
    for named in ["/billing_address", "/customer/email", "/line_items/*/tax_lines/*/title"] {
        assert!(warnings.contains(&format!("not mapped: {named}")), "{named} in {warnings}");
    }
    let many = format!("{{\"orders\":[{SHOPIFY},{}]}}", SHOPIFY.replace("450789469", "450789470"));
    let both = prepared(&profile("shopify"), many.as_bytes());
    assert_eq!(both.len(), 4);
    assert_eq!(both[0].document, documents[0].document, "an order is the same alone and among others");
}

/// A field under a name that nobody knows is named, or missed.
#[test]
fn every_field_is_mapped_or_named() {
    for (name, source) in [("square", SQUARE), ("shopify", SHOPIFY)] {
        let root: Value = serde_json::from_str(source).unwrap();
        let alone = if name == "square" { root["order"].clone() } else { root };
        for key in alone.as_object().unwrap().keys() {
            let mut odd = alone.clone();
            let value = odd.as_object_mut().unwrap().remove(key).unwrap();
            odd[format!("odd_{key}")] = value;
            let first = profile(name).map(odd.to_string().as_bytes()).remove(0);
            let accounted = match first {
                Ok(mapped) => mapped.warnings.contains(&format!("not mapped: /odd_{key}")),
                Err(Refusal::Invalid(faults)) => {
                    faults.iter().any(|fault| matches!(fault.problem, "missing-field" | "not-mapped"))
                }
                Err(Refusal::Unreadable(_) | Refusal::TooLarge(_)) => false,
            };
            assert!(accounted, "{name}: {key}");
        }
    }
}

#[test]
fn amounts_are_refused_as_floats_and_never_echoed() {
    let float = SHOPIFY.replace("\"23.80\"", "23.80");
    let refused = refusals(&profile("shopify"), float.as_bytes());
    let Refusal::Invalid(faults) = &refused[0] else { panic!("{refused:?}") };
    assert_eq!((faults[0].pointer.as_str(), faults[0].problem), ("/total_price", "number-not-string"));
    for (source, pointer) in [
        (SQUARE.replace("\"amount\":4628", "\"amount\":46.28"), "/order/tenders/0/amount_money/amount"),
        (SQUARE.replace("\"id\":\"o1\",", ""), "/order/id"),
        (SQUARE.replace("\"currency\":\"USD\"", "\"currency\":\"secret\""), "/order/total_money/currency"),
    ] {
        let refused = refusals(&profile("square"), source.as_bytes());
        let Refusal::Invalid(faults) = &refused[0] else { panic!("{refused:?}") };
        assert!(faults.iter().any(|fault| fault.pointer == pointer), "{pointer}: {faults:?}");
        assert!(!format!("{refused:?}").contains("secret"));
    }
}

#[test]
fn a_card_number_in_the_name_of_a_foreign_field_is_masked() {
    let source = SHOPIFY.replace("\"billing_address\"", "\"4111111111111111\"");
    let documents = prepared(&profile("shopify"), source.as_bytes());
    let warnings = documents[0].warnings.join("\n");
    assert!(!warnings.contains("4111111111111111") && warnings.contains("1111"), "{warnings}");
}
