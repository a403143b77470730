//! Tests of the retail model as a whole, by what they are about; the parts have their own beside them.

mod accepting;
mod fulfillments;
mod golden;
mod movements;
mod published;
mod refusing;
mod replay;
mod returns;
mod tender_controls;
mod transactions;
mod vectors;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use jiff::civil;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::*;
use crate::id::StoreId;

fn context() -> Context {
    Context {
        store_id: StoreId::new("0042").unwrap(),
        time_zone: TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
        day_cutover: civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    }
}

/// The example of the design, section 7.
fn exchange() -> Value {
    json!({
        "workstation_id": "3", "business_day_date": "2026-11-23", "sequence_number": 1187,
        "type": "exchange", "begin_date_time": "2026-11-23T10:15:02+01:00", "end_date_time": "2026-11-23T10:15:40+01:00",
        "operator_id": "17", "currency_code": "EUR", "channel": "store", "correlation_id": "9a0c",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "line_items": [
            { "line": 1, "kind": "sale", "item_id": "85123A", "gtin": "05012345678900", "description": "Mug", "quantity": "2",
              "unit": "EA", "regular_unit_price": "4.99", "actual_unit_price": "4.49", "extended_amount": "8.98",
              "modifiers": [{ "amount": "-1.00", "reason_code": "PROMO", "promotion_id": "P7" }],
              "taxes": [{ "category": "S", "rate": "20", "taxable_amount": "7.48", "amount": "1.50", "included": true }],
              "fulfillment": { "type": "take_with" } },
            { "line": 2, "kind": "return", "item_id": "22423", "quantity": "-1", "unit": "EA", "actual_unit_price": "3.00",
              "extended_amount": "-3.00",
              "transaction_link": { "workstation_id": "1", "business_day_date": "2026-11-20", "sequence_number": 77, "line": 2,
                                    "reason_code": "DEFECT" } }
        ],
        "tenders": [{ "line": 1, "type": "cash", "amount": "10.00" }, { "line": 2, "type": "change", "amount": "-4.02" }],
        "totals": { "net": "4.48", "tax": "1.50", "gross": "5.98" }
    })
}

/// A sale of one line without taxes, paid in cash: 2 at 4.49.
fn sale() -> Value {
    json!({
        "workstation_id": "3", "business_day_date": "2026-11-23", "sequence_number": 1188, "type": "sale",
        "end_date_time": "2026-11-23T10:16:00+01:00", "currency_code": "EUR",
        "line_items": [{ "line": 1, "kind": "sale", "item_id": "85123A", "quantity": "2", "actual_unit_price": "4.49",
                         "extended_amount": "8.98" }],
        "tenders": [{ "type": "cash", "amount": "8.98" }],
        "totals": { "gross": "8.98" }
    })
}

fn movement() -> Value {
    json!({
        "document_id": "m-1", "type": "receipt", "end_date_time": "2026-11-23T06:00:00Z",
        "line_items": [{ "line": 1, "item_id": "85123A", "quantity": "24", "unit": "H87" }]
    })
}

fn close() -> Value {
    json!({
        "document_id": "c-1", "workstation_id": "3", "business_day_date": "2026-11-23",
        "end_date_time": "2026-11-23T20:00:00", "first_sequence_number": 1, "last_sequence_number": 1188,
        "totals": [{ "currency_code": "EUR", "transactions": 2, "gross": "14.96", "net": "13.46", "tax": "1.50",
                     "taxes": [{ "category": "S", "rate": "20", "taxable_amount": "7.48", "amount": "1.50" }],
                     "tenders": [{ "type": "cash", "amount": "18.98" }, { "type": "change", "amount": "-4.02" }] }]
    })
}

/// Two of three mugs of a web order, ready to be collected.
fn fulfillment() -> Value {
    json!({
        "document_id": "f-1", "order_id": "W-1001", "fulfillment_id": "1", "type": "pickup", "state": "prepared",
        "end_date_time": "2026-11-23T11:00:00", "ready_at": "2026-11-23T11:00:00+01:00", "expires_at": "2026-11-30T20:00:00+01:00",
        "channel": "web", "currency_code": "EUR", "packages": ["003400123456789012"], "correlation_id": "W-1001",
        "line_items": [{ "line": 1, "order_line": 1, "item_id": "85123A", "quantity": "2", "ordered_quantity": "3", "unit": "EA" }]
    })
}

fn tender_control() -> Value {
    json!({
        "document_id": "t-1", "workstation_id": "3", "type": "safe_drop", "end_date_time": "2026-11-23T14:00:00",
        "business_day_date": "2026-11-23", "operator_id": "17", "currency_code": "EUR",
        "tenders": [{ "type": "cash", "amount": "-500.00", "pieces": 10 }], "reason_code": "LIMIT"
    })
}

/// Sets the value at `pointer`, adding the last field where it is missing; `Value::Null` removes it.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) => match value {
            Value::Null => drop(members.shift_remove(field)),
            value => drop(members.insert(field.to_string(), value)),
        },
        Value::Array(items) => *items.get_mut(field.parse::<usize>().unwrap()).unwrap() = value,
        _ => panic!("{pointer}"),
    }
    document
}

fn prepare_in(context: &Context, kind: Kind, document: &Value) -> Result<Prepared, Refusal> {
    prepare(kind, document.to_string().as_bytes(), None, context)
}

fn accepted(kind: Kind, document: &Value) -> Prepared {
    prepare_in(&context(), kind, document).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn flags(document: &Value) -> Vec<String> {
    codes(&accepted(Kind::TRANSACTION, document))
}

fn codes(prepared: &Prepared) -> Vec<String> {
    prepared.envelope.flags.iter().map(|flag| flag.code.to_string()).collect()
}

fn transaction_facts(document: &Value) -> facts::TransactionFacts {
    match accepted(Kind::TRANSACTION, document).facts {
        facts::Facts::Transaction(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// Problem and pointer of each fault.
fn faults(kind: Kind, document: &Value) -> Vec<(&'static str, String)> {
    match prepare_in(&context(), kind, document) {
        Err(Refusal::Invalid(faults)) => faults.into_iter().map(|fault| (fault.problem, fault.pointer)).collect(),
        other => panic!("{other:?}"),
    }
}
