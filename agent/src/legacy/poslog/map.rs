//! A transaction of `POSLog` in our words.
//!
//! Invariant: every transaction of a file gives one document, so that the tills' numbers stay without holes: what is no retail transaction
//! (sign-on, no-sale, end of day) becomes a `no_sale` that names the element it came from. What a dialect answers stands in its settings;
//! no name of a system is asked for here.

use counterfoil_proto::record::{Kind, Refusal};
use serde_json::{Map, Value, json};

use super::Transaction;
use super::dialect::Dialect;
use super::lines::Lines;
use crate::legacy::{Fields, Mapped, fault, finish};

/// Maps one transaction.
pub fn map(transaction: &Transaction, dialect: &Dialect) -> Result<Mapped, Refusal> {
    let fields = Fields::root(&transaction.tree);
    let mut document = head(&fields, dialect);
    match fields.get("RetailTransaction") {
        Some(retail) => body(&fields, &retail, dialect, &mut document),
        None => control(&fields, &mut document),
    }
    let documents = vec![(Kind::TRANSACTION, document)];
    let mapped = finish(&fields, documents, &transaction.source, &dialect.name).pop();
    mapped.unwrap_or_else(|| Err(Refusal::Unreadable(fault("", "not-mapped", "The transaction gave no document"))))
}

/// What every transaction has: till, day, number, times.
fn head(fields: &Fields<'_>, dialect: &Dialect) -> Map<String, Value> {
    let mut document = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    };
    put("workstation_id", fields.needed("WorkstationID").map(Value::from));
    put("business_day_date", fields.text("BusinessDayDate").map(Value::from));
    put("sequence_number", fields.needed_integer("SequenceNumber").map(Value::from));
    put("begin_date_time", fields.text("BeginDateTime").map(|text| dialect.time(&text).into()));
    put("end_date_time", fields.needed("EndDateTime").map(|text| dialect.time(&text).into()));
    put("operator_id", fields.text("OperatorID").map(Value::from));
    put("currency_code", fields.needed("CurrencyCode").map(Value::from));
    if fields.flag("@TrainingModeFlag") {
        put("training_mode", Some(true.into()));
    }
    let store = fields.text("RetailStoreID").or_else(|| fields.get("BusinessUnit")?.text("UnitID"));
    if dialect.store.is_some() && dialect.store != store {
        fields.fault("RetailStoreID", "wrong_store", "The transaction is of another store than the dialect's `store`");
    }
    put("attributes", Some(store.map_or_else(|| json!({}), |store| json!({ "source_store": store }))));
    document
}

fn control(fields: &Fields<'_>, document: &mut Map<String, Value>) {
    document.insert("type".to_owned(), "no_sale".into());
    document.insert("line_items".to_owned(), json!([]));
    document.insert("totals".to_owned(), json!({ "gross": "0" }));
    let Some(control) = fields.get("ControlTransaction") else { return };
    let Some(attributes) = document.get_mut("attributes").and_then(Value::as_object_mut) else { return };
    let kinds =
        ["OperatorSignOn", "OperatorSignOff", "NoSale", "BusinessEOD", "POSEOD", "TillEOD", "BusinessSOD", "POSSOD"];
    if let Some(kind) = kinds.into_iter().find(|kind| control.has(kind)) {
        attributes.insert("control".to_owned(), kind.into());
    }
    if let Some(reason) = control.text("ReasonCode") {
        attributes.insert("control_reason".to_owned(), reason.into());
    }
}

fn body(fields: &Fields<'_>, retail: &Fields<'_>, dialect: &Dialect, document: &mut Map<String, Value>) {
    let status = retail.text("@TransactionStatus").unwrap_or_default();
    let status = match status.as_str() {
        "Canceled" | "Cancelled" | "Totalled" | "Failed" => Some("canceled"),
        "Suspended" => Some("suspended"),
        _ => None,
    };
    let canceled = fields.flag("@CancelFlag") || fields.flag("@CanceledFlag");
    if let Some(status) = status.or(canceled.then_some("canceled")) {
        document.insert("status".to_owned(), status.into());
    }
    if let Some(link) = retail.get("TransactionLink") {
        document.insert("transaction_link".to_owned(), self::link(&link));
    }
    let mut lines = Lines::new(dialect);
    for item in retail.all("LineItem") {
        lines.add(&item);
    }
    let kind = match (lines.sells, lines.takes_back) {
        (true, true) => "exchange",
        (false, true) => "return",
        (_, false) => "sale",
    };
    document.insert("type".to_owned(), kind.into());
    let (line_items, tenders) = lines.finish();
    document.insert("line_items".to_owned(), line_items.into());
    document.insert("tenders".to_owned(), tenders.into());
    let mut totals = Map::new();
    for total in retail.all("Total") {
        let name = total.text("@TotalType").unwrap_or_default();
        let name = name.rsplit(':').next().unwrap_or_default();
        let ours = match name {
            name if name == dialect.gross => "gross",
            "TransactionTaxAmount" => "tax",
            "TransactionNetAmount" => "net",
            _ => continue,
        };
        if let Some(amount) = total.own_text() {
            totals.insert(ours.to_owned(), amount.into());
        }
    }
    if !totals.contains_key("gross") {
        retail.fault("Total", "missing-field", "There is no Total of the type that is the dialect's `gross`");
    }
    document.insert("totals".to_owned(), totals.into());
}

/// What a `TransactionLink` refers to.
pub(super) fn link(link: &Fields<'_>) -> Value {
    let mut ours = Map::new();
    for (theirs, name) in
        [("WorkstationID", "workstation_id"), ("BusinessDayDate", "business_day_date"), ("@ReasonCode", "reason_code")]
    {
        if let Some(text) = link.text(theirs) {
            ours.insert(name.to_owned(), text.into());
        }
    }
    for (theirs, name) in [("SequenceNumber", "sequence_number"), ("LineItemSequenceNumber", "line")] {
        if link.has(theirs)
            && let Some(number) = link.needed_integer(theirs)
        {
            ours.insert(name.to_owned(), number.into());
        }
    }
    ours.into()
}
