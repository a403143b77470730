//! A transaction of `POSLog` in our words.
//!
//! Invariant: every transaction of a file gives one transaction, so that the tills' numbers stay without holes: what is no retail transaction
//! (sign-on, no-sale, end of day) becomes a `no_sale` that names the element it came from, and `control` tells the rest beside it. What a dialect answers stands in its settings;
//! no name of a system is asked for here.

use counterfoil_proto::record::{Kind, Refusal};
use serde_json::{Map, Value, json};

use super::Transaction;
use super::control::control;
use super::dialect::Dialect;
use super::lines::Lines;
use crate::legacy::{Document, Fields, Mapped, finish};

/// Maps one transaction.
pub fn map(transaction: &Transaction, dialect: &Dialect) -> Vec<Result<Mapped, Refusal>> {
    let fields = Fields::root(&transaction.tree);
    let mut document = head(&fields, dialect);
    let beside = match fields.get("RetailTransaction") {
        Some(retail) => {
            body(&fields, &retail, dialect, &mut document);
            None
        }
        None => no_sale(&fields, &mut document),
    };
    let documents = std::iter::once((Kind::TRANSACTION, document)).chain(beside).collect();
    finish(&fields, documents, Some(&transaction.source), &dialect.name)
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

/// What is no retail transaction; in training it tells nothing beside its number.
fn no_sale(fields: &Fields<'_>, document: &mut Map<String, Value>) -> Option<Document> {
    document.insert("type".to_owned(), "no_sale".into());
    document.insert("line_items".to_owned(), json!([]));
    document.insert("totals".to_owned(), json!({ "gross": "0" }));
    control(fields, document).filter(|_| !document.contains_key("training_mode"))
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
