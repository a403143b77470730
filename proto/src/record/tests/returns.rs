//! Returns against a receipt: what a line gives back, and what a receipt had sold.

use super::*;
use crate::record::facts::{ReturnLine, sold_quantity};

fn sold(document: &Value, unit: &str) -> Option<String> {
    sold_quantity(document.to_string().as_bytes(), "85123A", unit).unwrap().map(|sold| sold.to_string())
}

#[test]
fn a_line_gives_back_what_its_link_names() {
    let returns = transaction_facts(&exchange()).returns;
    let expected = ReturnLine {
        index: 1,
        store_id: None,
        identity: "t/1/2026-11-20/77/0".into(),
        item_id: "22423".into(),
        unit: "EA".into(),
        quantity: Decimal::ONE,
    };
    assert_eq!(returns, core::slice::from_ref(&expected));
    let by_document = json!({ "store_id": "7", "document_id": "d-9", "line": 2 });
    let by_document = transaction_facts(&with(exchange(), "/line_items/1/transaction_link", by_document)).returns;
    assert_eq!(by_document, [ReturnLine { store_id: Some("7".into()), identity: "d/d-9".into(), ..expected.clone() }]);
    let of_order = with(exchange(), "/line_items/1/transaction_link", json!({ "order_id": "o", "order_line": 3 }));
    assert_eq!(transaction_facts(&of_order).returns, [], "no till recorded an online order");
    let unlinked = with(exchange(), "/line_items/1/transaction_link", Value::Null);
    assert_eq!(transaction_facts(&unlinked).returns, []);
    let link =
        json!({ "workstation_id": "1", "business_day_date": "2026-11-20", "sequence_number": 77, "sequence_epoch": 2 });
    let by_transaction = transaction_facts(&with(unlinked, "/transaction_link", link)).returns;
    assert_eq!(by_transaction, [ReturnLine { identity: "t/1/2026-11-20/77/2".into(), ..expected }]);
    for (pointer, value) in [
        ("/training_mode", json!(true)),
        ("/status", json!("suspended")),
        ("/type", json!("void")),
        ("/line_items/1/voided", json!(true)),
        ("/line_items/1/quantity", json!("1")),
    ] {
        assert_eq!(transaction_facts(&with(exchange(), pointer, value)).returns, [], "{pointer}");
    }
}

#[test]
fn a_receipt_sold_what_its_lines_that_count_sold() {
    assert_eq!(sold(&exchange(), "EA").as_deref(), Some("2"));
    assert_eq!(sold(&exchange(), "KGM"), None, "pieces and kilograms cannot be compared");
    let other = sold_quantity(exchange().to_string().as_bytes(), "22423", "EA").unwrap();
    assert_eq!(other, Some(Decimal::ZERO), "a line that gives back sold nothing");
    let mut twice = exchange();
    let line = twice["line_items"][0].clone();
    twice["line_items"].as_array_mut().unwrap().push(with(line, "/unit", json!("H87")));
    assert_eq!(sold(&twice, "EA").as_deref(), Some("4"), "on several lines, in one unit by another name");
    for (pointer, value) in [
        ("/training_mode", json!(true)),
        ("/status", json!("canceled")),
        ("/type", json!("void")),
        ("/line_items/0/voided", json!(true)),
    ] {
        assert_eq!(sold(&with(exchange(), pointer, value), "EA").as_deref(), Some("0"), "{pointer}");
    }
    assert!(sold_quantity(b"[]", "85123A", "EA").is_err());
}
