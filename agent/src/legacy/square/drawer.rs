//! Cash drawers of Square: what was put in or taken out, and what was counted at the end of a shift.
//!
//! Invariant: what a sale or a refund moved is left out and named, because the order tells it; a shift tells its closing count alone,
//! because an opening count that arrives after the sales of its shift would forget them.

use counterfoil_proto::money::amount_text;
use counterfoil_proto::record::Kind;
use serde_json::json;

use super::currency;
use crate::legacy::{Document, Fields, identity, object};

/// An event of a shift.
pub(super) fn event(fields: &Fields<'_>) -> Vec<Document> {
    let (control, goes_in) = match fields.needed("event_type").unwrap_or_default().as_str() {
        "PAID_IN" => ("paid_in", true),
        "PAID_OUT" => ("paid_out", false),
        _ => {
            fields.skip("an event that is neither PAID_IN nor PAID_OUT; orders tell of sales and refunds");
            return Vec::new();
        }
    };
    let id = fields.needed("id").unwrap_or_default();
    let at = fields.needed("created_at");
    let who = fields.text("team_member_id").or_else(|| fields.text("employee_id"));
    let sign = |amount: i64| if goes_in { amount.saturating_abs() } else { amount.saturating_abs().saturating_neg() };
    control_of(fields, control, &["square-drawer", &id], at.as_deref(), who.as_deref(), "event_money", sign)
}

/// A shift, once it is counted.
pub(super) fn shift(fields: &Fields<'_>) -> Vec<Document> {
    let id = fields.needed("id").unwrap_or_default();
    if fields.text("state").is_none_or(|state| state != "CLOSED") || !fields.has("closed_cash_money") {
        fields.skip("a shift that is not CLOSED has no count");
        return Vec::new();
    }
    let at = fields.needed("closed_at");
    let who = fields.text("closing_team_member_id").or_else(|| fields.text("closing_employee_id"));
    control_of(
        fields,
        "declaration",
        &["square-shift", &id],
        at.as_deref(),
        who.as_deref(),
        "closed_cash_money",
        |amount| amount,
    )
}

fn control_of(
    fields: &Fields<'_>,
    control: &str,
    parts: &[&str],
    at: Option<&str>,
    operator: Option<&str>,
    money: &str,
    sign: impl Fn(i64) -> i64,
) -> Vec<Document> {
    let Some(money) = fields.get(money) else {
        fields.fault(money, "missing-field", "The field is missing");
        return Vec::new();
    };
    let Some(currency) = money.needed("currency").and_then(|code| currency(&money, &code)) else { return Vec::new() };
    let amount = money.needed("amount").and_then(|amount| amount.parse().ok());
    if amount.is_none() {
        money.fault("amount", "wrong-type", "Must be a whole number of minor units");
    }
    let document = object(json!({
        "document_id": identity(parts), "workstation_id": "square", "type": control, "end_date_time": at, "operator_id": operator,
        "currency_code": currency.code(), "reason_code": fields.text("description"),
        "tenders": [{ "type": "cash", "amount": amount_text(sign(amount.unwrap_or_default()), currency) }],
    }));
    vec![(Kind::TENDER_CONTROL, document)]
}
