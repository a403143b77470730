//! Refunds of Shopify, alone or in their order: returns that name the order's transaction and its lines.
//!
//! Invariant: a refund gives the same document alone and in its order. Goods come back to the shelf only where they were handed out and
//! are restocked; a line that cancels what was never sent moves nothing. What was given back is what the refund's payments say.

use counterfoil_proto::record::Kind;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{means, payment_state};
use crate::legacy::{Document, Fields, identity, object};

/// A refund by itself.
pub(super) fn alone(refund: &Fields<'_>) -> Vec<Document> {
    let order = refund.needed("order_id").unwrap_or_default();
    document(refund, &order, None)
}

/// A refund of an order, whose currency is that of the refund where it states none.
pub(super) fn document(refund: &Fields<'_>, order: &str, order_currency: Option<String>) -> Vec<Document> {
    let id = refund.needed("id").unwrap_or_default();
    let payments = refund.all("transactions");
    let mut tenders = Vec::new();
    let mut given_back = Decimal::ZERO;
    for payment in payments.iter().filter(|payment| payment.text("kind").is_some_and(|kind| kind == "refund")) {
        let amount = payment.needed_decimal("amount").unwrap_or_default();
        let state = payment_state(payment);
        if state != "declined" {
            given_back = given_back.saturating_add(amount);
        }
        tenders.push(json!({ "type": means(payment), "amount": (-amount).to_string(), "state": state }));
    }
    let currency = payments.iter().find_map(|payment| payment.text("currency")).or(order_currency);
    if currency.is_none() {
        refund.fault("transactions", "missing-field", "No payment of the refund states its currency");
    }
    let refers = |order_line: Option<String>| {
        let to = json!({ "document_id": identity(&["shopify", order]), "order_id": order, "order_line": order_line });
        Value::Object(object(to))
    };
    let mut lines = Vec::new();
    let (mut sum, mut tax) = (Decimal::ZERO, Decimal::ZERO);
    for returned in refund.all("refund_line_items") {
        let (line, amount, line_tax) = line(&returned, lines.len() + 1, refund.flag("restock"), &refers);
        (sum, tax) = (sum.saturating_add(amount), tax.saturating_add(line_tax));
        lines.push(line);
    }
    for adjustment in refund.all("order_adjustments") {
        let amount = adjustment.needed_decimal("amount").unwrap_or_default();
        let own_tax = adjustment.decimal("tax_amount").unwrap_or_default();
        (sum, tax) = (sum.saturating_add(amount).saturating_add(own_tax), tax.saturating_add(own_tax));
        lines.push(Value::Object(object(json!({
            "line": lines.len() + 1, "kind": "other", "extended_amount": amount.to_string(),
            "description": adjustment.text("kind"), "reason_code": adjustment.text("reason"),
            "taxes": (!own_tax.is_zero()).then(|| json!([{ "amount": own_tax.to_string() }])),
        }))));
    }
    let gross = if tenders.is_empty() { sum } else { -given_back };
    let end = refund.text("processed_at").or_else(|| refund.needed("created_at"));
    let document = object(json!({
        "document_id": identity(&["shopify-refund", &id]), "workstation_id": "shopify", "order_id": order, "type": "return",
        "end_date_time": end, "currency_code": currency, "operator_id": refund.text("user_id"), "transaction_link": refers(None),
        "line_items": lines, "tenders": (!tenders.is_empty()).then_some(tenders),
        "totals": { "gross": gross.to_string(), "tax": tax.to_string() },
    }));
    vec![(Kind::TRANSACTION, document)]
}

/// A line, what it comes to with its tax, and its tax; all below zero.
fn line(
    returned: &Fields<'_>,
    number: usize,
    restocks: bool,
    refers: &impl Fn(Option<String>) -> Value,
) -> (Value, Decimal, Decimal) {
    let quantity = returned.needed_decimal("quantity").unwrap_or_default();
    let sold = returned.get("line_item");
    let sold = sold.as_ref();
    let price = sold.and_then(|sold| sold.decimal("price"));
    // Older refunds state no amounts of their own: the share of the line that was sold.
    let whole = sold.and_then(|sold| sold.decimal("quantity")).filter(|whole| !whole.is_zero());
    let share = |amount: Decimal| {
        let part = amount.checked_mul(quantity)?.checked_div(whole.unwrap_or(quantity))?;
        Some(part.round_dp(amount.scale()))
    };
    let full = || {
        let off = sold.and_then(|sold| sold.decimal("total_discount")).and_then(share).unwrap_or_default();
        price?.checked_mul(quantity)?.checked_sub(off)
    };
    let amount = returned.decimal("subtotal").or_else(full);
    if amount.is_none() {
        returned.fault("subtotal", "missing-field", "Neither a subtotal nor the price of the line is there");
    }
    let amount = amount.unwrap_or_default();
    let taxes = || sold.map(|sold| sold.all("tax_lines")).unwrap_or_default();
    let stated = returned.decimal("total_tax");
    let by_rate =
        || taxes().iter().filter_map(|tax| share(tax.decimal("price")?)).fold(Decimal::ZERO, Decimal::saturating_add);
    let tax = stated.unwrap_or_else(by_rate);
    let comes_back = returned.text("restock_type").map_or(restocks, |kind| kind == "return");
    let of_line = |name: &str| sold.and_then(|sold| sold.text(name));
    let line = object(json!({
        "line": number, "kind": "return", "item_id": of_line("sku").or_else(|| of_line("variant_id")),
        "description": of_line("name").or_else(|| of_line("title")), "quantity": (-quantity).to_string(),
        "regular_unit_price": price.map(|price| price.to_string()), "extended_amount": (-amount).to_string(),
        "taxes": (!tax.is_zero()).then(|| json!([{ "amount": (-tax).to_string() }])),
        "transaction_link": refers(returned.text("line_item_id").or_else(|| of_line("id"))),
        // What does not come back to the shelf is not handed over here.
        "fulfillment": (!comes_back).then(|| json!({ "type": "shipment" })),
    }));
    (Value::Object(line), -amount.saturating_add(tax), -tax)
}
