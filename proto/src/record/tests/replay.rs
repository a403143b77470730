//! Facts out of a store are the facts that were accepted, whatever the document.

use proptest::prelude::*;

use super::*;
use crate::record::facts::{Facts, FactsError};

#[test]
fn kinds_without_effects_and_unknown_ones_give_none() {
    for kind in [Kind::EPOCH_START, Kind::EXCEPTION_CHANGE, Kind(9999)] {
        assert_eq!(facts(kind, &Envelope::default(), b"no JSON"), Ok(Facts::None));
    }
}

#[test]
fn a_damaged_document_gives_an_error_and_no_panic() {
    let prepared = accepted(Kind::TRANSACTION, &exchange());
    for end in 0..prepared.document.len() {
        let cut = prepared.document.get(..end).unwrap();
        assert_eq!(facts(Kind::TRANSACTION, &prepared.envelope, cut), Err(FactsError::Unreadable));
    }
    assert_eq!(facts(Kind::TRANSACTION, &prepared.envelope, b"[]"), Err(FactsError::Unreadable));
    assert_eq!(facts(Kind::TRANSACTION, &prepared.envelope, b"{}"), Err(FactsError::Field { field: "currency_code" }));
    assert_eq!(
        facts(Kind::TRANSACTION, &Envelope::default(), &prepared.document),
        Err(FactsError::Field { field: "business_day_date" })
    );
}

fn amount() -> impl Strategy<Value = String> {
    (-1_000_000_i64..1_000_000)
        .prop_map(|minor| crate::money::amount_text(minor, crate::money::Currency::from_code("EUR").unwrap()))
}

fn line() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(alloc::vec!["sale", "return", "deposit", "rounding", "gift_card", "other"]);
    let quantity = (-9_999_i64..9_999, 0_u32..4)
        .prop_map(|(digits, places)| rust_decimal::Decimal::new(digits, places).to_string());
    let unit = prop::option::of(prop::sample::select(alloc::vec!["EA", "kg", "H87", "furlong"]));
    let item = prop::option::of("[0-9A-Z]{1,8}|4111 1111 1111 111[0-9]");
    let tax = prop::option::of((amount(), any::<bool>(), 0_u32..3));
    (kind, quantity, unit, item, amount(), tax, any::<bool>(), "\\PC{0,12}|4111 ?1111 ?1111 ?1111|[0-9 -]{0,24}")
        .prop_map(|(kind, quantity, unit, item, extended, tax, voided, description)| {
            let mut line = json!({ "line": 1, "kind": kind, "quantity": quantity, "extended_amount": extended,
                                   "voided": voided, "description": description, "unit": unit, "item_id": item });
            if let Some((amount, included, rate)) = tax {
                line =
                    with(line, "/taxes", json!([{ "rate": rate.to_string(), "amount": amount, "included": included }]));
            }
            line
        })
}

fn transaction() -> impl Strategy<Value = Value> {
    let tender = (prop::sample::select(alloc::vec!["cash", "card", "change"]), amount(), any::<bool>());
    (
        prop::sample::select(alloc::vec!["sale", "return", "exchange", "void", "no_sale"]),
        prop::collection::vec(line(), 0..6),
        prop::option::of(prop::collection::vec(tender, 0..4)),
        amount(),
        prop::option::of(0_u64..u64::from(u32::MAX)),
        prop::option::of("\\PC{0,8}|4111111111111111"),
        any::<bool>(),
    )
        .prop_map(|(transaction_type, lines, tenders, gross, number, note, training)| {
            let mut document = json!({
                "workstation_id": "3", "document_id": "d", "type": transaction_type, "currency_code": "EUR",
                "end_date_time": "2026-10-25T02:30:00", "line_items": lines, "totals": { "gross": gross },
                "training_mode": training, "sequence_number": number
            });
            if let Some(tenders) = tenders {
                let tenders = tenders.into_iter().map(|(tender, amount, declined)| {
                    json!({ "type": tender, "amount": amount, "state": if declined { "declined" } else { "approved" } })
                });
                document = with(document, "/tenders", tenders.collect());
            }
            if let Some(note) = note {
                document.as_object_mut().unwrap().insert("note \u{e9}".into(), json!([note]));
            }
            document
        })
}

proptest! {
    #[test]
    fn stored_facts_are_the_accepted_ones(document in transaction()) {
        match prepare_in(&context(), Kind::TRANSACTION, &document) {
            Ok(prepared) => {
                let again = facts(prepared.kind, &prepared.envelope, &prepared.document);
                prop_assert_eq!(again.as_ref(), Ok(&prepared.facts));
                // What is stored holds no card number any more and is the same document when it is sent again.
                let resent = prepare(prepared.kind, &prepared.document, None, &context()).unwrap();
                prop_assert!(!codes(&resent).contains(&flag::PAN_MASKED.to_string()));
                prop_assert_eq!(resent.envelope.content_digest, prepared.envelope.content_digest);
                prop_assert_eq!(resent.document, prepared.document);
            }
            Err(Refusal::Invalid(faults)) => {
                prop_assert!(faults.iter().all(|fault| fault.problem == "card-number"), "{:?}", faults);
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_document_is_judged_without_a_panic(
        kind in prop::sample::select(super::published::KINDS),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        place in 0_usize..2_000,
    ) {
        let mut text = exchange().to_string().into_bytes();
        let place = place % text.len();
        text.splice(place..place, bytes);
        drop(prepare(kind, &text, None, &context()));
        drop(facts(kind, &Envelope::default(), &text));
    }
}
