//! What is refused: every fault, by JSON pointer, and never with a value.

use alloc::format;

use super::*;
use crate::limits::{DOCUMENT_BYTES_MAX, LINE_ITEMS_MAX, TENDERS_MAX};

#[test]
fn what_is_no_json_object_is_unreadable() {
    for (text, problem) in [("", "not-json"), ("{", "not-json"), ("[]", "not-an-object"), ("\"x\"", "not-an-object")] {
        match prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()) {
            Err(Refusal::Unreadable(fault)) => assert_eq!(fault.problem, problem),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let text = " ".repeat(10) + "x" + &"y".repeat(DOCUMENT_BYTES_MAX);
    assert!(matches!(prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()), Err(Refusal::TooLarge(_))));
    let many = with(sale(), "/note", Value::Array(alloc::vec![json!(0); json::VALUES_MAX]));
    assert!(matches!(prepare_in(&context(), Kind::TRANSACTION, &many), Err(Refusal::TooLarge(_))));
}

#[test]
fn kinds_that_tills_do_not_send_yet_are_refused() {
    for kind in Kind::KNOWN.iter().copied().filter(|kind| json_schema(*kind).is_none()) {
        assert_eq!(faults(kind, &json!({})), [("unsupported-kind", String::new())]);
    }
}

#[test]
fn all_faults_are_listed_at_once() {
    let document = json!({
        "sequence_number": "1187", "type": "sell", "end_date_time": "yesterday", "currency_code": "EURO",
        "line_items": [{ "line": 1, "kind": "sale", "extended_amount": 8.98 }, 7], "totals": {}
    });
    let mut found = faults(Kind::TRANSACTION, &document);
    found.sort();
    let expected = [
        ("invalid-date-time", "/end_date_time"),
        ("invalid-value", "/type"),
        ("missing-field", "/line_items/0/quantity"),
        ("missing-field", "/totals/gross"),
        ("missing-field", "/workstation_id"),
        ("number-not-string", "/line_items/0/extended_amount"),
        ("unknown-currency", "/currency_code"),
        ("wrong-type", "/line_items/1"),
        ("wrong-type", "/sequence_number"),
    ];
    assert_eq!(found, expected.map(|(problem, pointer)| (problem, pointer.to_string())));
}

#[test]
fn each_fault_has_its_problem_and_place() {
    let long = "x".repeat(65);
    for (pointer, value, problem) in [
        ("/line_items/0/quantity", json!("1e3"), "invalid-decimal"),
        ("/line_items/0/quantity", json!(2), "number-not-string"),
        ("/line_items/0/quantity", json!(true), "wrong-type"),
        ("/line_items/0/quantity", json!("1.0000000001"), "too-many-places"),
        ("/line_items/0/extended_amount", json!("8.981"), "too-many-places"),
        ("/totals/gross", json!("1000000000000"), "out-of-range"),
        ("/totals", json!("8.98"), "wrong-type"),
        ("/currency_code", json!("ZZZ"), "unknown-currency"),
        ("/type", json!("SALE"), "invalid-value"),
        ("/status", json!("post_voided"), "invalid-value"),
        ("/line_items/0/kind", json!("gift"), "invalid-value"),
        ("/tenders/0/state", json!("maybe"), "invalid-value"),
        ("/business_day_date", json!("23.11.2026"), "invalid-date"),
        ("/end_date_time", json!("2026-11-23"), "invalid-date-time"),
        ("/workstation_id", json!(3), "wrong-type"),
        ("/workstation_id", json!(""), "invalid-identifier"),
        ("/workstation_id", json!(long), "invalid-identifier"),
        ("/operator_id", json!("a\nb"), "invalid-identifier"),
        ("/sequence_number", json!(-1), "wrong-type"),
        ("/sequence_number", json!(1.5), "wrong-type"),
        ("/sequence_number", json!(9_007_199_254_740_992_u64), "out-of-range"),
        ("/training_mode", json!("no"), "wrong-type"),
        ("/channel", json!("x".repeat(schema::TEXT_CHARS_MAX + 1)), "too-long"),
        ("/line_items", json!({}), "wrong-type"),
        ("/line_items", Value::Array(alloc::vec![json!({}); LINE_ITEMS_MAX + 1]), "too-many-items"),
        ("/tenders", Value::Array(alloc::vec![json!({}); TENDERS_MAX + 1]), "too-many-items"),
        ("/attributes", json!("x"), "wrong-type"),
        ("/store_id", json!("0043"), "wrong_store"),
        ("/sequence_number", Value::Null, "missing-field"),
    ] {
        let found = faults(Kind::TRANSACTION, &with(sale(), pointer, value));
        assert_eq!(found, [(problem, pointer.to_string())]);
    }
    let attributes: serde_json::Map<String, Value> = (0..33).map(|index| (format!("a{index}"), json!(""))).collect();
    assert_eq!(
        faults(Kind::TRANSACTION, &with(sale(), "/attributes", attributes.into())),
        [("too-many-items", "/attributes".into())]
    );
    assert_eq!(
        faults(Kind::TRANSACTION, &with(sale(), "/attributes", json!({ "a/b": 1 }))),
        [("wrong-type", "/attributes/a~1b".into())]
    );
}

#[test]
fn every_required_field_of_every_kind_is_missed() {
    for (kind, document) in
        [(Kind::TRANSACTION, exchange()), (Kind::STOCK_MOVEMENT, movement()), (Kind::DAY_CLOSE, close())]
    {
        let table = schema::table_of(kind).unwrap();
        let required = table.fields.iter().filter(|field| matches!(field.need, schema::Need::Required));
        for field in required {
            let pointer = format!("/{}", field.name);
            assert_eq!(faults(kind, &with(document.clone(), &pointer, Value::Null)), [("missing-field", pointer)]);
        }
    }
    for kind in [Kind::STOCK_MOVEMENT, Kind::DAY_CLOSE] {
        let document = if kind == Kind::DAY_CLOSE { close() } else { movement() };
        let document = with(document, "/document_id", Value::Null);
        assert_eq!(faults(kind, &document), [("missing-field", "/document_id".into())]);
    }
}

#[test]
fn amounts_have_the_places_of_the_nearest_currency() {
    let document = with(close(), "/totals/0/currency_code", "JPY".into());
    let found = faults(Kind::DAY_CLOSE, &document);
    assert_eq!(found.len(), 7);
    assert!(found.iter().all(|(problem, _)| *problem == "too-many-places"));
    assert!(found.contains(&("too-many-places", "/totals/0/taxes/0/amount".into())));
}

#[test]
fn equal_keys_are_refused_wherever_they_stand() {
    for (text, pointer) in [
        (r#""type":"sale","type":"#, "/type"),
        (r#""note":1,"note":1,"type":"#, "/note"),
        (r#""note":[{"a":1,"a":1}],"type":"#, "/note/0/a"),
        (r#""attributes":{"a":"1","a":"1"},"type":"#, "/attributes/a"),
        (r#""\u0074ype":"sale","type":"#, "/type"),
    ] {
        let text = sale().to_string().replacen("\"type\":", text, 1);
        let Err(Refusal::Invalid(found)) = prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()) else {
            panic!("{text}")
        };
        assert!(found.iter().any(|fault| fault.problem == "duplicate-key" && fault.pointer == pointer), "{found:?}");
    }
}

#[test]
fn a_card_number_in_an_identifier_is_refused() {
    let document = with(exchange(), "/transaction_link", json!({ "order_line": 1 }));
    for pointer in [
        "/document_id",
        "/workstation_id",
        "/operator_id",
        "/customer_id",
        "/loyalty_id",
        "/order_id",
        "/correlation_id",
        "/line_items/0/item_id",
        "/transaction_link/order_line",
        "/line_items/1/transaction_link/workstation_id",
    ] {
        for card in ["4111111111111111", "4111-1111-1111-1111", "id:5555555555554444"] {
            let found = faults(Kind::TRANSACTION, &with(document.clone(), pointer, card.into()));
            assert_eq!(found, [("card-number", pointer.to_string())]);
        }
    }
    let number = with(document, "/sequence_number", 4_111_111_111_111_111_u64.into());
    assert_eq!(faults(Kind::TRANSACTION, &number), [("card-number", "/sequence_number".into())]);
}

#[test]
fn header_and_document_id_must_agree() {
    let refused = |text: &str, key: &str| match prepare(Kind::STOCK_MOVEMENT, text.as_bytes(), Some(key), &context()) {
        Err(Refusal::Invalid(faults)) => faults.into_iter().map(|fault| fault.problem).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&movement().to_string(), "m-2"), ["idempotency-key-mismatch"]);
    let unnamed = with(movement(), "/document_id", Value::Null).to_string();
    assert_eq!(refused(&unnamed, ""), ["invalid-identifier"]);
    assert_eq!(refused(&unnamed, &"x".repeat(65)), ["invalid-identifier"]);
    assert_eq!(refused(&unnamed, "4111111111111111"), ["card-number"]);
}

#[test]
fn faults_are_bounded_and_never_echo_a_value() {
    let mut document = exchange();
    for pointer in
        ["/workstation_id", "/type", "/end_date_time", "/currency_code", "/totals/gross", "/store_id", "/tenders"]
    {
        document = with(document, pointer, "SENTINEL\u{7}".into());
    }
    let lines = alloc::vec![json!({ "line": "SENTINEL", "kind": "SENTINEL", "extended_amount": "SENTINEL" }); 1_000];
    document = with(document, "/line_items", lines.into());
    let Err(refusal) = prepare(Kind::TRANSACTION, document.to_string().as_bytes(), Some("SENTINEL"), &context()) else {
        panic!("accepted")
    };
    assert!(!format!("{refusal:?}").contains("SENTINEL"));
    let Refusal::Invalid(found) = refusal else { panic!("{refusal:?}") };
    assert_eq!(found.len(), inspect::FAULTS_MAX);
}
