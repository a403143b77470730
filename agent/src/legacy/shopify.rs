//! Orders of Shopify (`Order` of its Admin REST API, as webhooks send it), and refunds, fulfillments and stock levels by themselves.
//! Amounts are decimal strings.
//!
//! Invariant: a paid order is one `transaction` named by its id; one that is not paid yet is `suspended` and named by its payment status
//! too, so that it never stands in the way of the paid one. A fulfillment is a `fulfillment_update` per state.
//!
//! A stock level is a count of what is `available`, under the number of the inventory item, which is not the SKU that orders name.
//!
//! Not mapped on purpose: addresses, names, e-mail, cards. Payments by themselves are none of ours: their order states them.

use counterfoil_proto::record::Kind;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::{Document, Fields, Shape, identity, object};

mod refund;

/// What is mapped.
pub const SHAPES: &[Shape] = &[
    Shape { one: "refund", many: "refunds", told_by: &["refund_line_items"], map: refund::alone, ..ORDER },
    Shape {
        one: "fulfillment",
        many: "fulfillments",
        told_by: &["tracking_number", "tracking_numbers", "tracking_company"],
        map: fulfillment_alone,
        ..ORDER
    },
    ORDER,
    Shape {
        one: "inventory_level",
        many: "inventory_levels",
        told_by: &["inventory_item_id"],
        lives: false,
        of_one_location: true,
        map: level,
    },
];

const ORDER: Shape = Shape {
    one: "order",
    many: "orders",
    told_by: &["line_items", "total_price"],
    lives: true,
    of_one_location: false,
    map: order,
};

fn order(order: &Fields<'_>) -> Vec<Document> {
    let Some(id) = order.needed("id") else { return Vec::new() };
    let mut documents = vec![(Kind::TRANSACTION, transaction(order, &id))];
    for one in order.all("fulfillments") {
        documents.push((Kind::FULFILLMENT_UPDATE, fulfillment(&one, &id)));
    }
    for one in order.all("refunds") {
        documents.extend(refund::document(&one, &id, order.text("currency")));
    }
    documents
}

fn fulfillment_alone(alone: &Fields<'_>) -> Vec<Document> {
    let order = alone.needed("order_id").unwrap_or_default();
    vec![(Kind::FULFILLMENT_UPDATE, fulfillment(alone, &order))]
}

fn level(level: &Fields<'_>) -> Vec<Document> {
    let item = level.needed("inventory_item_id").unwrap_or_default();
    let place = level.needed("location_id").unwrap_or_default();
    let at = level.needed("updated_at").unwrap_or_default();
    if !level.has("available") {
        level.skip("an item whose stock is not tracked");
        return Vec::new();
    }
    let quantity = level.needed_decimal("available").unwrap_or_default().to_string();
    let document = object(json!({
        "document_id": identity(&["shopify-level", &at, &place, &item]), "type": "count", "end_date_time": at,
        "line_items": [{ "line": 1, "item_id": item, "quantity": quantity }], "attributes": { "location_id": place },
    }));
    vec![(Kind::STOCK_MOVEMENT, document)]
}

fn transaction(order: &Fields<'_>, id: &str) -> Map<String, Value> {
    let payment = order.text("financial_status").unwrap_or_default();
    let canceled = order.text("cancelled_at").is_some() || payment == "voided";
    let (status, document_id) = match payment.as_str() {
        _ if canceled => ("canceled", identity(&["shopify", id, "canceled"])),
        "paid" | "partially_refunded" | "refunded" => ("finished", identity(&["shopify", id])),
        other => ("suspended", identity(&["shopify", id, other])),
    };
    let end = ["processed_at", "created_at"].into_iter().find_map(|name| order.text(name));
    if end.is_none() {
        order.fault("processed_at", "missing-field", "Neither processed_at nor created_at is there");
    }
    let mut attributes = Map::new();
    for name in ["name", "order_number", "location_id"] {
        if let Some(text) = order.text(name) {
            attributes.insert(name.to_owned(), text.into());
        }
    }
    let gross = order.needed_decimal("total_price").unwrap_or_default();
    object(json!({
        "document_id": document_id, "workstation_id": "shopify", "order_id": id, "type": "sale", "status": status,
        "begin_date_time": order.text("created_at"), "end_date_time": end, "currency_code": order.needed("currency"),
        "training_mode": order.flag("test").then_some(true), "channel": order.text("source_name"),
        "customer_id": order.get("customer").and_then(|customer| customer.text("id")),
        "line_items": lines(order), "tenders": tenders(order),
        "totals": { "gross": gross.to_string(), "tax": order.decimal("total_tax").unwrap_or_default().to_string() },
        "attributes": attributes,
    }))
}

fn lines(order: &Fields<'_>) -> Vec<Value> {
    let included = order.flag("taxes_included");
    let way = order.has("fulfillments") || order.has("shipping_lines");
    let mut lines: Vec<Value> = Vec::new();
    let (mut discounted, mut by_line) = (false, false);
    for line in order.all("line_items") {
        let quantity = line.needed_decimal("quantity").unwrap_or_default();
        let price = line.needed_decimal("price").unwrap_or_default();
        let allocations = line.all("discount_allocations");
        let mut discounts: Vec<Decimal> = allocations.iter().filter_map(|one| one.needed_decimal("amount")).collect();
        if discounts.is_empty() {
            discounts.extend(line.decimal("total_discount").filter(|amount| !amount.is_zero()));
        }
        discounted |= !discounts.is_empty();
        let off: Decimal = discounts.iter().copied().fold(Decimal::ZERO, Decimal::saturating_add);
        let Some(full) = price.checked_mul(quantity) else {
            line.fault("price", "out-of-range", "The amount of the line is out of range");
            continue;
        };
        let taxes = taxes(&line, included);
        by_line |= !taxes.is_empty();
        let modifiers: Vec<Value> = discounts.iter().map(|amount| json!({ "amount": (-amount).to_string() })).collect();
        lines.push(Value::Object(object(json!({
            "line": lines.len() + 1, "kind": "sale", "item_id": line.text("sku").or_else(|| line.text("variant_id")),
            "description": line.text("name").or_else(|| line.text("title")), "quantity": quantity.to_string(),
            "regular_unit_price": price.to_string(), "extended_amount": full.saturating_sub(off).to_string(),
            "modifiers": (!modifiers.is_empty()).then_some(modifiers), "taxes": (!taxes.is_empty()).then_some(taxes),
            "fulfillment": way.then(|| json!({ "type": "shipment" })),
            "attributes": { "line_id": line.text("id").unwrap_or_default() },
        }))));
    }
    for shipping in order.all("shipping_lines") {
        let price =
            shipping.decimal("discounted_price").or_else(|| shipping.needed_decimal("price")).unwrap_or_default();
        let taxes = taxes(&shipping, included);
        by_line |= !taxes.is_empty();
        lines.push(Value::Object(object(json!({
            "line": lines.len() + 1, "kind": "fee", "description": shipping.text("title"), "extended_amount": price.to_string(),
            "taxes": (!taxes.is_empty()).then_some(taxes),
        }))));
    }
    let off = if discounted { Decimal::ZERO } else { order.decimal("total_discounts").unwrap_or_default() };
    if !off.is_zero() {
        lines.push(json!({ "line": lines.len() + 1, "kind": "other", "description": "Discount", "extended_amount": (-off).to_string() }));
    }
    if let Some(tip) = order.decimal("total_tip_received").filter(|tip| !tip.is_zero()) {
        lines.push(json!({ "line": lines.len() + 1, "kind": "tip", "extended_amount": tip.to_string() }));
    }
    // Older orders state their taxes as a whole only.
    let whole = if by_line { Vec::new() } else { taxes(order, included) };
    if !whole.is_empty() {
        lines.push(json!({ "line": lines.len() + 1, "kind": "other", "description": "Tax", "extended_amount": "0", "taxes": whole }));
    }
    lines
}

fn taxes(of: &Fields<'_>, included: bool) -> Vec<Value> {
    let one = |tax: &Fields<'_>| {
        let rate = tax.rate("rate").and_then(|rate| rate.checked_mul(Decimal::ONE_HUNDRED));
        Value::Object(object(json!({
            "rate": rate.map(|rate| rate.normalize().to_string()), "included": included,
            "amount": tax.needed_decimal("price").unwrap_or_default().to_string(),
        })))
    };
    of.all("tax_lines").iter().map(one).collect()
}

/// Payments, where the order has them; it states them by itself only in part of Shopify's calls.
fn tenders(order: &Fields<'_>) -> Option<Vec<Value>> {
    let mut tenders = Vec::new();
    for payment in order.all("transactions") {
        let kind = payment.text("kind").unwrap_or_default();
        if !matches!(kind.as_str(), "sale" | "capture") {
            continue;
        }
        let amount = payment.needed_decimal("amount").unwrap_or_default();
        tenders
            .push(json!({ "type": means(&payment), "amount": amount.to_string(), "state": payment_state(&payment) }));
    }
    (!tenders.is_empty()).then_some(tenders)
}

fn payment_state(payment: &Fields<'_>) -> &'static str {
    match payment.text("status").unwrap_or_default().as_str() {
        "success" => "approved",
        "failure" | "error" => "declined",
        _ => "unknown",
    }
}

fn means(payment: &Fields<'_>) -> &'static str {
    match payment.text("gateway").unwrap_or_default().as_str() {
        "cash" => "cash",
        "gift_card" => "gift_card",
        _ => "card",
    }
}

fn fulfillment(of: &Fields<'_>, order: &str) -> Map<String, Value> {
    let id = of.needed("id").unwrap_or_default();
    let state = match of.text("status").unwrap_or_default().as_str() {
        "success" => "completed",
        "cancelled" => "canceled",
        "error" | "failure" => "failed",
        _ => "reserved",
    };
    let mut items: Vec<Value> = Vec::new();
    for line in of.all("line_items") {
        items.push(Value::Object(object(json!({
            "line": items.len() + 1, "order_line": line.text("id"), "item_id": line.text("sku").or_else(|| line.text("variant_id")),
            "description": line.text("name"), "quantity": line.needed_decimal("quantity").unwrap_or_default().to_string(),
        }))));
    }
    let end = of.text("updated_at").or_else(|| of.needed("created_at"));
    let packages: Vec<String> = of.all("tracking_numbers").iter().filter_map(Fields::own_text).collect();
    object(json!({
        "document_id": identity(&["shopify", order, &id, state]), "order_id": order, "fulfillment_id": id, "type": "shipment",
        "state": state, "end_date_time": end, "packages": packages, "line_items": items,
    }))
}
