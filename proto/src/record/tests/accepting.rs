//! What an accepted document becomes: identity, digest, stored text, times, warnings, masking.

use alloc::format;

use super::*;

#[test]
fn the_example_of_the_design_is_accepted_without_a_finding() {
    let prepared = accepted(Kind::TRANSACTION, &exchange());
    assert_eq!(prepared.envelope.flags, []);
    assert_eq!(prepared.warnings, Vec::<String>::new());
    assert_eq!(prepared.envelope.identity.as_deref(), Some("t/3/2026-11-23/1187/0"));
    assert_eq!(prepared.envelope.alias, None);
    assert_eq!(prepared.envelope.correlation_id.as_deref(), Some("9a0c"));
    assert_eq!(prepared.envelope.occurred_at.unwrap().to_rfc3339(), "2026-11-23T09:15:40.000Z");
    assert_eq!(
        prepared.envelope.traceparent.as_deref(),
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    );
}

#[test]
fn the_stored_text_is_the_submitted_one_without_surrounding_blanks() {
    let text = format!("  \n{}\r\n\t", serde_json::to_string_pretty(&exchange()).unwrap());
    let prepared = prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()).unwrap();
    assert_eq!(prepared.document, text.trim().as_bytes());
}

#[test]
fn a_document_id_is_the_identity_and_the_four_parts_its_alias() {
    let prepared = accepted(Kind::TRANSACTION, &with(exchange(), "/document_id", "a1".into()));
    assert_eq!(prepared.envelope.identity.as_deref(), Some("d/a1"));
    assert_eq!(prepared.envelope.alias.as_deref(), Some("t/3/2026-11-23/1187/0"));
    let document = with(with(exchange(), "/document_id", "a1".into()), "/sequence_number", Value::Null);
    let prepared = accepted(Kind::TRANSACTION, &document);
    assert_eq!((prepared.envelope.identity.as_deref(), prepared.envelope.alias), (Some("d/a1"), None));
}

#[test]
fn a_restarted_counter_is_another_identity() {
    let prepared = accepted(Kind::TRANSACTION, &with(exchange(), "/sequence_epoch", 2.into()));
    assert_eq!(prepared.envelope.identity, Some(identity_of_transaction("3", "2026-11-23", 1187, 2)));
}

#[test]
fn the_header_stands_for_a_missing_document_id_and_leaves_the_text_alone() {
    let text = with(movement(), "/document_id", Value::Null).to_string();
    let prepared = prepare(Kind::STOCK_MOVEMENT, text.as_bytes(), Some("m-9"), &context()).unwrap();
    assert_eq!(prepared.envelope.identity, Some(identity_of_document("m-9")));
    assert_eq!(prepared.document, text.as_bytes());
    let text = movement().to_string();
    assert!(prepare(Kind::STOCK_MOVEMENT, text.as_bytes(), Some("m-1"), &context()).is_ok());
}

#[test]
fn the_digest_is_of_the_canonical_form_without_traceparent() {
    let one = accepted(Kind::TRANSACTION, &exchange());
    let other_trace = "00-00000000000000000000000000000001-0000000000000001-00";
    let other = accepted(Kind::TRANSACTION, &with(exchange(), "/traceparent", other_trace.into()));
    assert_eq!(one.envelope.content_digest, other.envelope.content_digest);
    let mut bare = exchange();
    bare.as_object_mut().unwrap().shift_remove("traceparent");
    let canonical = serde_json_canonicalizer::to_vec(&bare).unwrap();
    assert_eq!(one.envelope.content_digest, Digest::of(&canonical));
    let changed = accepted(Kind::TRANSACTION, &with(exchange(), "/operator_id", "18".into()));
    assert_ne!(one.envelope.content_digest, changed.envelope.content_digest);
}

#[test]
fn spacing_and_order_of_fields_do_not_change_the_digest() {
    let one = accepted(Kind::TRANSACTION, &sale());
    let reversed: serde_json::Map<String, Value> = sale().as_object().unwrap().clone().into_iter().rev().collect();
    let text = serde_json::to_string_pretty(&Value::Object(reversed)).unwrap();
    let other = prepare(Kind::TRANSACTION, text.as_bytes(), None, &context()).unwrap();
    assert_eq!(one.envelope.content_digest, other.envelope.content_digest);
    assert_ne!(one.document, other.document);
}

#[test]
fn every_field_of_the_contract_is_known() {
    let mut document = exchange();
    for (field, value) in [
        ("document_id", json!("d")),
        ("store_id", json!("0042")),
        ("sequence_epoch", json!(0)),
        ("status", json!("finished")),
        ("training_mode", json!(false)),
        ("customer_id", json!("c")),
        ("loyalty_id", json!("l")),
        ("order_id", json!("o")),
        ("transaction_link", json!({ "store_id": "7", "order_id": "o", "order_line": 3, "sequence_epoch": 0 })),
        ("fiscal_evidence", json!({ "tse": [1, "x", null] })),
        ("attributes", json!({ "country": "FR" })),
    ] {
        document = with(document, &format!("/{field}"), value);
    }
    document = with(document, "/line_items/0/serial_numbers", json!(["s1", "s2"]));
    document = with(document, "/line_items/0/voided", json!(false));
    document = with(document, "/tenders/0/state", json!("approved"));
    let prepared = accepted(Kind::TRANSACTION, &document);
    assert_eq!(prepared.warnings, Vec::<String>::new());
    assert_eq!(prepared.envelope.flags, []);
}

#[test]
fn unknown_fields_are_kept_and_named_without_their_values() {
    let mut document = with(exchange(), "/line_items/1/colour", json!("SENTINEL"));
    document.as_object_mut().unwrap().insert("a/b~c".into(), json!({ "name": "SENTINEL" }));
    let prepared = accepted(Kind::TRANSACTION, &document);
    assert_eq!(prepared.warnings, ["unknown field /line_items/1/colour", "unknown field /a~1b~0c"]);
    assert_eq!(prepared.document, document.to_string().as_bytes());
}

#[test]
fn warnings_are_bounded_and_say_how_many_more_there_are() {
    let mut document = sale();
    for index in 0..100 {
        document.as_object_mut().unwrap().insert(format!("x{index}"), Value::Null);
    }
    let warnings = accepted(Kind::TRANSACTION, &document).warnings;
    assert_eq!(warnings.len(), inspect::WARNINGS_MAX + 1);
    assert_eq!(warnings.last().unwrap(), "and 68 more");
}

#[test]
fn a_null_stands_for_an_absent_field() {
    let mut document = exchange();
    document.as_object_mut().unwrap().insert("customer_id".into(), Value::Null);
    assert_eq!(accepted(Kind::TRANSACTION, &document).warnings, Vec::<String>::new());
    document.as_object_mut().unwrap().insert("workstation_id".into(), Value::Null);
    assert_eq!(faults(Kind::TRANSACTION, &document), [("missing-field", "/workstation_id".into())]);
}

#[test]
fn a_missing_business_day_is_derived_once_and_marked() {
    let document = with(sale(), "/business_day_date", Value::Null);
    let night = with(document, "/end_date_time", "2026-11-24T02:30:00".into());
    let prepared = accepted(Kind::TRANSACTION, &night);
    assert_eq!(prepared.envelope.business_day_date.as_deref(), Some("2026-11-23"));
    assert!(prepared.envelope.business_day_derived);
    assert_eq!(prepared.envelope.identity.as_deref(), Some("t/3/2026-11-23/1188/0"));
    assert_eq!(prepared.warnings, ["business_day_date is missing; derived from end_date_time: 2026-11-23"]);
    let stated = accepted(Kind::TRANSACTION, &with(night, "/business_day_date", "2026-11-20".into()));
    assert_eq!(stated.envelope.business_day_date.as_deref(), Some("2026-11-20"));
    assert!(!stated.envelope.business_day_derived);
    // A movement needs none, so there is nothing to warn of.
    let prepared = accepted(Kind::STOCK_MOVEMENT, &movement());
    assert!(prepared.envelope.business_day_derived && prepared.warnings.is_empty());
}

#[test]
fn an_ambiguous_hour_takes_the_earlier_offset_and_is_flagged() {
    for (text, utc, expected) in [
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00.000Z", &["TIME_AMBIGUOUS"][..]),
        ("2026-03-29T02:30:00", "2026-03-29T01:30:00.000Z", &["TIME_AMBIGUOUS"]),
        ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00.000Z", &[]),
        ("2026-10-25T12:30:00", "2026-10-25T11:30:00.000Z", &[]),
    ] {
        let prepared = accepted(Kind::TRANSACTION, &with(sale(), "/end_date_time", text.into()));
        assert_eq!(codes(&prepared), expected, "{text}");
        assert_eq!(prepared.envelope.occurred_at.unwrap().to_rfc3339(), utc);
    }
}

#[test]
fn a_card_number_in_free_text_is_masked_before_digest_and_store() {
    let card = "4111 1111 1111 1111";
    for pointer in
        ["/line_items/0/description", "/channel", "/note", "/traceparent", "/line_items/0/modifiers/0/reason_code"]
    {
        let document = with(exchange(), pointer, format!("card {card}").into());
        let prepared = accepted(Kind::TRANSACTION, &document);
        assert_eq!(codes(&prepared), ["PAN_MASKED"], "{pointer}");
        assert_eq!(prepared.envelope.flags.first().unwrap().pointer, pointer);
        let masked = with(exchange(), pointer, "card **** **** **** 1111".into());
        assert_eq!(String::from_utf8(prepared.document).unwrap(), masked.to_string());
        let sent_masked = accepted(Kind::TRANSACTION, &masked);
        assert_eq!(prepared.envelope.content_digest, sent_masked.envelope.content_digest, "{pointer}");
    }
}

#[test]
fn no_place_lets_a_card_number_through() {
    let card = "4111111111111111";
    for document in [
        with(sale(), "/attributes", json!({ "note": card })),
        with(sale(), "/attributes", json!({ card: "note" })),
        with(sale(), "/attributes", json!({ card: "1", "************1111": "2" })),
        with(sale(), "/fiscal_evidence", json!([[{ "deep": ["x", card] }]])),
        with(sale(), "/payment", json!({ "pan": 4_111_111_111_111_111_u64 })),
        with(sale(), "/payment", json!({ "pan": 4_111_111_111_111_111.0 })),
        with(sale(), "/payment", json!({ card: null })),
        with(sale(), "/4111111111111111", json!(1)),
        with(sale(), "/line_items/0/serial_numbers", json!([card])),
        with(sale(), "/line_items/0/gtin", json!(card)),
        with(sale(), "/line_items/0/fulfillment", json!({ "type": card })),
        with(sale(), "/line_items/0/unit", json!(card)),
    ] {
        let prepared = accepted(Kind::TRANSACTION, &document);
        assert!(codes(&prepared).contains(&"PAN_MASKED".to_string()), "{document}");
        let stored = String::from_utf8(prepared.document.clone()).unwrap();
        assert!(!stored.contains(card), "{stored}");
        assert!(!format!("{prepared:?}").contains(card), "{prepared:?}");
        assert!(facts(prepared.kind, &prepared.envelope, &prepared.document).is_ok());
    }
    let escaped = sale().to_string().replacen('{', "{\"note\":\"\\u0034111111111111111\",", 1);
    let prepared = prepare(Kind::TRANSACTION, escaped.as_bytes(), None, &context()).unwrap();
    assert!(String::from_utf8(prepared.document).unwrap().contains("************1111"));
}

#[test]
fn an_article_number_of_the_document_is_no_card_number() {
    let gtin = "30569309025912";
    let document = with(exchange(), "/line_items/0/description", format!("case {gtin}").into());
    assert_eq!(flags(&document), ["PAN_MASKED"]);
    let document = with(document, "/line_items/0/gtin", gtin.into());
    assert_eq!(flags(&document), Vec::<String>::new());
    assert_eq!(flags(&with(document, "/line_items/0/item_id", gtin.into())), Vec::<String>::new());
}

#[test]
fn odd_gtins_and_trace_contexts_are_warned_of_and_not_refused() {
    let document = with(with(exchange(), "/line_items/0/gtin", "4011".into()), "/traceparent", "00-zz".into());
    let prepared = accepted(Kind::TRANSACTION, &document);
    assert_eq!(prepared.warnings.len(), 2);
    assert_eq!(prepared.envelope.traceparent, None);
}
