//! What stock movements and day closes do.

use super::*;
use crate::record::facts::{DayCloseFacts, Facts, MovementFacts};

fn movement_facts(document: &Value) -> MovementFacts {
    match accepted(Kind::STOCK_MOVEMENT, document).facts {
        Facts::Movement(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn close_facts(document: &Value) -> DayCloseFacts {
    match accepted(Kind::DAY_CLOSE, document).facts {
        Facts::DayClose(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn deltas_count_as_written_and_a_wrong_sign_is_flagged() {
    for (movement_type, plus, minus) in [
        ("receipt", true, false),
        ("transfer_in", true, false),
        ("transfer_out", false, true),
        ("loss", false, true),
        ("return_to_vendor", false, true),
        ("adjustment", true, true),
    ] {
        for (quantity, is_right) in [("24", plus), ("-24", minus), ("0", true)] {
            let document = with(movement(), "/type", movement_type.into());
            let document = with(document, "/line_items/0/quantity", quantity.into());
            let expected: &[&str] = if is_right { &[] } else { &["SIGN_MISMATCH"] };
            assert_eq!(codes(&accepted(Kind::STOCK_MOVEMENT, &document)), expected, "{movement_type} {quantity}");
            let facts = movement_facts(&document);
            assert!(facts.counts.is_empty());
            let change = facts.changes.first().unwrap();
            assert_eq!((change.item_id.as_str(), change.unit.as_str()), ("85123A", "EA"));
            assert_eq!(change.delta.to_string(), quantity);
        }
    }
}

#[test]
fn a_count_is_absolute() {
    let facts = movement_facts(&with(movement(), "/type", "count".into()));
    assert!(facts.changes.is_empty());
    assert_eq!(facts.counts.first().unwrap().counted.to_string(), "24");
}

#[test]
fn every_field_of_a_movement_is_known() {
    let mut document = movement();
    for field in [
        "workstation_id",
        "operator_id",
        "reason_code",
        "order_id",
        "correlation_id",
        "source_location",
        "target_location",
    ] {
        document = with(document, &alloc::format!("/{field}"), "x".into());
    }
    document = with(document, "/business_day_date", "2026-11-23".into());
    document = with(document, "/attributes", json!({ "a": "b" }));
    for (field, value) in [
        ("gtin", json!("05012345678900")),
        ("description", json!("Mug")),
        ("reason_code", json!("DAMAGED")),
        ("serial_numbers", json!(["1"])),
    ] {
        document = with(document, &alloc::format!("/line_items/0/{field}"), value);
    }
    let prepared = accepted(Kind::STOCK_MOVEMENT, &document);
    assert_eq!((prepared.warnings.len(), prepared.envelope.flags.len()), (0, 0));
}

#[test]
fn a_movement_in_an_unknown_unit_is_flagged() {
    let document = with(movement(), "/line_items/0/unit", "furlong".into());
    assert_eq!(codes(&accepted(Kind::STOCK_MOVEMENT, &document)), ["UNIT_UNKNOWN"]);
}

#[test]
fn a_day_close_is_kept_as_declared() {
    let facts = close_facts(&close());
    assert_eq!(facts.workstation_id.as_deref(), Some("3"));
    assert_eq!((facts.first_sequence_number, facts.last_sequence_number), (Some(1), Some(1188)));
    let declared = facts.declared.first().unwrap();
    assert_eq!((declared.transactions, declared.gross, declared.net, declared.tax), (2, 1496, Some(1346), Some(150)));
    assert_eq!(declared.taxes.first().unwrap().amount, 150);
    let tenders: Vec<(&str, i64)> = declared.tenders.iter().map(|sum| (sum.tender_type.as_str(), sum.amount)).collect();
    assert_eq!(tenders, [("cash", 1898), ("change", -402)]);
    assert_eq!(close_facts(&with(close(), "/workstation_id", Value::Null)).workstation_id, None);
}

#[test]
fn a_day_close_is_not_judged() {
    let document = with(close(), "/totals/0/gross", "1.00".into());
    assert_eq!(codes(&accepted(Kind::DAY_CLOSE, &document)), Vec::<String>::new());
}
