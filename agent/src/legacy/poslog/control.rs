//! What is no retail transaction: money moved or counted, and the end of a day.
//!
//! Invariant: it is told beside the `no_sale` that keeps the till's numbers whole, under an identity out of till, day and number. Signs are
//! ours, whatever the dialect writes. A close declares totals only where it states both how many transactions there were and their sum.

use counterfoil_proto::record::Kind;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::lines::means;
use crate::legacy::{Document, Fields, identity, object};

/// The elements that move or count money, what we call them, and whether the money goes into the till, where it does either.
const MONEY: &[(&str, &str, Option<bool>)] = &[
    ("PaidIn", "paid_in", Some(true)),
    ("PaidOut", "paid_out", Some(false)),
    ("SafeDrop", "safe_drop", Some(false)),
    ("TenderLoan", "loan", Some(true)),
    ("TenderPickup", "pickup", Some(false)),
    ("TillDeclaration", "declaration", None),
    ("TillSettle", "declaration", None),
];

/// The elements that end a day, and whether they do so for one till.
const CLOSES: &[(&str, bool)] = &[("BusinessEOD", false), ("POSEOD", true), ("TillEOD", true)];

/// Elements that are told by the `no_sale` alone.
const OTHERS: &[&str] = &["OperatorSignOn", "OperatorSignOff", "NoSale", "BusinessSOD", "POSSOD"];

/// Names the element in the `no_sale` (`head`), and gives what it tells beside.
pub(super) fn control(fields: &Fields<'_>, head: &mut Map<String, Value>) -> Option<Document> {
    let control = fields.get("ControlTransaction").or_else(|| fields.get("TenderControlTransaction"))?;
    let names = MONEY.iter().map(|(name, ..)| *name).chain(CLOSES.iter().map(|(name, _)| *name));
    let kind = names.chain(OTHERS.iter().copied()).find(|name| control.has(name));
    let reason = control.text("ReasonCode");
    let attributes = head.get_mut("attributes").and_then(Value::as_object_mut)?;
    for (name, value) in [("control", kind.map(str::to_owned)), ("control_reason", reason.clone())] {
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.into());
        }
    }
    let kind = kind?;
    let element = control.get(kind)?;
    if let Some((_, ours, goes_in)) = MONEY.iter().find(|(name, ..)| *name == kind) {
        let tenders = tenders(&element, *goes_in)?;
        let mut document = beside(head, ours);
        document.insert("type".to_owned(), (*ours).into());
        document.insert("tenders".to_owned(), tenders.into());
        let reason = element.text("ReasonCode").or_else(|| element.text("Reason")).or(reason);
        document.extend(reason.map(|reason| ("reason_code".to_owned(), reason.into())));
        return Some((Kind::TENDER_CONTROL, document));
    }
    let (_, of_till) = CLOSES.iter().find(|(name, _)| *name == kind)?;
    Some((Kind::DAY_CLOSE, close(&element, head, *of_till)))
}

/// What both say in the same words, under an identity of its own.
fn beside(head: &Map<String, Value>, what: &str) -> Map<String, Value> {
    let mut document = Map::new();
    for name in ["workstation_id", "business_day_date", "end_date_time", "operator_id", "currency_code"] {
        document.extend(head.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let text = |name: &str| head.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = head.get("sequence_number").map(Value::to_string).unwrap_or_default();
    let parts = ["poslog", text("workstation_id"), text("business_day_date"), &number, what];
    document.insert("document_id".to_owned(), identity(&parts).into());
    document
}

/// The tenders in an element, or its own amount as cash; `None` where it states neither.
fn tenders(element: &Fields<'_>, goes_in: Option<bool>) -> Option<Vec<Value>> {
    let sign = |amount: Decimal| match goes_in {
        Some(true) => amount.abs(),
        Some(false) => -amount.abs(),
        None => amount,
    };
    let inner = element.all("Tender");
    let tenders: Vec<Value> = inner
        .iter()
        .chain(inner.is_empty().then_some(element))
        .filter_map(|tender| {
            let amount = tender.decimal("Amount")?;
            let kind = tender.text("@TenderType").or_else(|| tender.text("TenderType"));
            Some(json!({ "type": kind.map_or("cash", |kind| means(&kind)), "amount": sign(amount).to_string() }))
        })
        .collect();
    (!tenders.is_empty()).then_some(tenders)
}

fn close(element: &Fields<'_>, head: &Map<String, Value>, of_till: bool) -> Map<String, Value> {
    let mut document = beside(head, "day_close");
    let currency = document.remove("currency_code");
    if of_till {
        for (theirs, ours) in [
            ("OpenTransactionSequenceNumber", "first_sequence_number"),
            ("LastTransactionSequenceNumber", "last_sequence_number"),
        ] {
            if element.has(theirs)
                && let Some(number) = element.needed_integer(theirs)
            {
                document.insert(ours.to_owned(), number.into());
            }
        }
    } else {
        document.remove("workstation_id");
    }
    let declared = element.get("SessionSettle").and_then(|settle| declared(&settle, currency.as_ref()));
    document.insert("totals".to_owned(), declared.into_iter().collect());
    document
}

/// What a settlement declares: sums that are given back are below zero in ours, and in some dialects.
fn declared(settle: &Fields<'_>, currency: Option<&Value>) -> Option<Value> {
    if !settle.has("TransactionCount") || !settle.has("GrossPositiveAmount") {
        return None;
    }
    let less = |plus: &str, minus: &str| {
        let taken = settle.decimal(plus)?;
        let given = settle.decimal(minus).unwrap_or_default().abs();
        taken.checked_sub(given).map(|amount| amount.to_string())
    };
    let ours = object(json!({
        "currency_code": currency, "transactions": settle.needed_integer("TransactionCount"),
        "gross": less("GrossPositiveAmount", "GrossNegativeAmount"), "net": less("TotalNetSalesAmount", "TotalNetReturnAmount"),
        "tax": settle.decimal("TotalTaxAmount").map(|amount| amount.to_string()),
    }));
    Some(Value::Object(ours))
}
