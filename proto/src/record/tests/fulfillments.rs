//! What updates of orders do, and what they are judged by.

use super::*;
use crate::record::facts::{Facts, FulfillmentFacts, FulfillmentState, FulfillmentType, StockChange};

fn update_facts(document: &Value) -> FulfillmentFacts {
    match accepted(Kind::FULFILLMENT_UPDATE, document).facts {
        Facts::Fulfillment(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn found(document: &Value) -> Vec<(String, String)> {
    let flags = accepted(Kind::FULFILLMENT_UPDATE, document).envelope.flags;
    flags.into_iter().map(|flag| (flag.code.into_owned(), flag.pointer)).collect()
}

fn substituted(consent: &str) -> Value {
    let substitution = json!({ "item_id": "85123B", "gtin": "4006381333931", "quantity": "1.5", "unit": "kg", "price_delta": "-0.50",
                               "tax_delta": "-0.08", "consent": consent });
    with(fulfillment(), "/line_items/0/substitution", substitution)
}

fn moved(facts: &FulfillmentFacts) -> Vec<(String, String, String)> {
    facts.stock().map(|StockChange { item_id, unit, delta }| (item_id, unit, delta.to_string())).collect()
}

#[test]
fn an_update_is_read_as_it_is_written() {
    let facts = update_facts(&fulfillment());
    assert_eq!((facts.order_id.as_str(), facts.fulfillment_id.as_deref()), ("W-1001", Some("1")));
    assert_eq!((facts.fulfillment_type, facts.state), (FulfillmentType::Pickup, FulfillmentState::Prepared));
    assert_eq!(facts.ready_at.unwrap().to_rfc3339(), "2026-11-23T10:00:00.000Z");
    assert_eq!(facts.expires_at.unwrap().to_rfc3339(), "2026-11-30T19:00:00.000Z");
    let line = facts.lines.first().unwrap();
    assert_eq!((line.order_line.as_deref(), line.item_id.as_str(), line.unit.as_str()), (Some("1"), "85123A", "EA"));
    assert_eq!((line.quantity.to_string(), line.ordered.unwrap().to_string()), ("2".into(), "3".into()));
    assert_eq!(
        update_facts(&with(fulfillment(), "/line_items/0/order_line", "A-7".into()))
            .lines
            .first()
            .unwrap()
            .order_line
            .as_deref(),
        Some("A-7")
    );
    for (name, expected) in [
        ("pickup", FulfillmentType::Pickup),
        ("shipment", FulfillmentType::Shipment),
        ("delivery", FulfillmentType::Delivery),
    ] {
        assert_eq!(update_facts(&with(fulfillment(), "/type", name.into())).fulfillment_type, expected);
    }
    assert_eq!(found(&fulfillment()), []);
}

#[test]
fn goods_leave_the_shelf_when_they_are_handed_out() {
    for (state, expected) in [
        ("proposed", FulfillmentState::Proposed),
        ("reserved", FulfillmentState::Reserved),
        ("prepared", FulfillmentState::Prepared),
        ("completed", FulfillmentState::Completed),
        ("canceled", FulfillmentState::Canceled),
        ("failed", FulfillmentState::Failed),
    ] {
        let facts = update_facts(&with(fulfillment(), "/state", state.into()));
        assert_eq!(facts.state, expected);
        let goods =
            if state == "completed" { alloc::vec![("85123A".into(), "EA".into(), "-2".into())] } else { Vec::new() };
        assert_eq!(moved(&facts), goods, "{state}");
    }
}

#[test]
fn a_substitute_is_handed_out_in_place_of_the_article() {
    let facts = update_facts(&with(substituted("given"), "/state", "completed".into()));
    assert_eq!(moved(&facts), [("85123B".into(), "KGM".into(), "-1.5".into())]);
    assert_eq!(facts.lines.first().unwrap().item_id, "85123A", "what is let go");
    let consent =
        alloc::vec![("SUBSTITUTION_WITHOUT_CONSENT".to_string(), "/line_items/0/substitution/consent".to_string())];
    for (text, expected) in [("given", &[][..]), ("standing", &[]), ("not_asked", &consent), ("refused", &consent)] {
        assert_eq!(found(&substituted(text)), expected, "{text}");
    }
}

#[test]
fn quantities_are_above_zero_and_move_nothing_otherwise() {
    let at = |pointer: &str| [("SIGN_MISMATCH".to_string(), pointer.to_string())];
    for quantity in ["0", "-1"] {
        let document =
            with(with(fulfillment(), "/state", "completed".into()), "/line_items/0/quantity", quantity.into());
        assert_eq!(found(&document), at("/line_items/0/quantity"));
        assert_eq!(moved(&update_facts(&document)), []);
        let document = with(
            with(substituted("given"), "/state", "completed".into()),
            "/line_items/0/substitution/quantity",
            quantity.into(),
        );
        assert_eq!(found(&document), at("/line_items/0/substitution/quantity"));
        assert_eq!(moved(&update_facts(&document)), []);
    }
}

#[test]
fn units_and_article_numbers_are_looked_at_in_both_places() {
    for (pointer, value, code) in [
        ("/line_items/0/unit", "furlong", "UNIT_UNKNOWN"),
        ("/line_items/0/gtin", "4006381333932", "GTIN_CHECK_DIGIT"),
        ("/line_items/0/substitution/unit", "furlong", "UNIT_UNKNOWN"),
        ("/line_items/0/substitution/gtin", "4006381333932", "GTIN_CHECK_DIGIT"),
    ] {
        assert_eq!(
            found(&with(substituted("given"), pointer, value.into())),
            [(code.to_string(), pointer.to_string())]
        );
    }
}

#[test]
fn moments_to_come_need_an_offset() {
    for field in ["/ready_at", "/expires_at"] {
        let zoneless = with(fulfillment(), field, "2026-11-30T20:00:00".into());
        assert_eq!(faults(Kind::FULFILLMENT_UPDATE, &zoneless), [("invalid-date-time", field.to_string())]);
        assert!(accepted(Kind::FULFILLMENT_UPDATE, &with(fulfillment(), field, Value::Null)).warnings.is_empty());
    }
    assert_eq!(update_facts(&with(fulfillment(), "/ready_at", Value::Null)).ready_at, None);
}
