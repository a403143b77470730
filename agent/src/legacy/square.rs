//! Orders of Square (`Order` of its API), its stock and its cash drawers: amounts are whole minor units, quantities decimal strings.
//!
//! Invariant: a completed order is one `transaction` named by its id; an order that is not completed is `suspended`, named by its version
//! too, so that it never stands in the way of the completed one. A fulfillment is a `fulfillment_update` per state. Lines are net of
//! added taxes and of service charges, which are lines of their own.
//!
//! A return is an order of its own that names the one it is of: its lines and money are below zero, and each names that order's transaction.
//!
//! Not mapped on purpose: cards and recipients. Payments and refunds by themselves are none of ours: their order states them.

use counterfoil_proto::money::{Currency, amount_text};
use counterfoil_proto::record::Kind;
use serde_json::{Map, Value, json};

use super::{Document, Fields, Shape, identity, object};

mod drawer;
mod returns;
mod stock;

/// What is mapped.
pub const SHAPES: &[Shape] = &[
    Shape {
        one: "order",
        many: "orders",
        told_by: &["line_items", "returns"],
        lives: true,
        of_one_location: false,
        map: order,
    },
    Shape { one: "change", many: "changes", map: stock::change, ..SHELF },
    Shape { one: "adjustment", many: "adjustments", map: stock::adjustment, ..SHELF },
    SHELF,
    Shape {
        one: "cash_drawer_shift_event",
        many: "cash_drawer_shift_events",
        of_one_location: false,
        map: drawer::event,
        ..SHELF
    },
    Shape { one: "cash_drawer_shift", many: "cash_drawer_shifts", of_one_location: false, map: drawer::shift, ..SHELF },
];

const SHELF: Shape =
    Shape { one: "count", many: "counts", told_by: &[], lives: false, of_one_location: true, map: stock::count };

fn order(order: &Fields<'_>) -> Vec<Document> {
    let (Some(id), Some(total)) = (order.needed("id"), order.get("total_money")) else {
        if !order.has("total_money") {
            order.fault("total_money", "missing-field", "The field is missing");
        }
        return Vec::new();
    };
    let Some(currency) = total.needed("currency").and_then(|code| currency(&total, &code)) else { return Vec::new() };
    let order = Order { fields: order, id, currency };
    let mut documents = vec![(Kind::TRANSACTION, order.transaction())];
    for fulfillment in order.fields.all("fulfillments") {
        documents.push((Kind::FULFILLMENT_UPDATE, order.fulfillment(&fulfillment)));
    }
    documents
}

fn currency(money: &Fields<'_>, code: &str) -> Option<Currency> {
    let currency = Currency::from_code(code).ok();
    if currency.is_none() {
        money.fault("currency", "unknown-currency", "Is no currency of ISO 4217");
    }
    currency
}

struct Order<'o, 'v> {
    fields: &'o Fields<'v>,
    id: String,
    currency: Currency,
}

impl Order<'_, '_> {
    /// The amount in minor units that stands under that name; nothing is 0.
    fn money(&self, of: &Fields<'_>, name: &str) -> i64 {
        let Some(money) = of.get(name) else { return 0 };
        if money.text("currency").is_some_and(|code| code != self.currency.code()) {
            money.fault("currency", "mixed-currencies", "An order has one currency");
        }
        let Some(amount) = money.needed("amount") else { return 0 };
        amount.parse().unwrap_or_else(|_| {
            money.fault("amount", "wrong-type", "Must be a whole number of minor units");
            0
        })
    }

    fn text(&self, minor: i64) -> Value {
        amount_text(minor, self.currency).into()
    }

    fn time(&self) -> Option<String> {
        let time = ["closed_at", "updated_at", "created_at"].into_iter().find_map(|name| self.fields.text(name));
        if time.is_none() {
            self.fields.fault("closed_at", "missing-field", "None of closed_at, updated_at and created_at is there");
        }
        time
    }

    fn transaction(&self) -> Map<String, Value> {
        let order = self.fields;
        let mut document = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                document.insert(name.to_owned(), value);
            }
        };
        let state = order.text("state").unwrap_or_default();
        let version = order.text("version").unwrap_or_default();
        let (status, document_id) = match state.as_str() {
            "COMPLETED" => ("finished", identity(&["square", &self.id])),
            "CANCELED" => ("canceled", identity(&["square", &self.id, "canceled"])),
            _ => ("suspended", identity(&["square", &self.id, "open", &version])),
        };
        put("document_id", Some(document_id.into()));
        put("workstation_id", Some("square".into()));
        put("order_id", Some(self.id.clone().into()));
        let sells = order.has("line_items") || !order.has("returns");
        put("type", Some(returns::type_of(sells, order.has("returns")).into()));
        put("status", Some(status.into()));
        put("begin_date_time", order.text("created_at").map(Value::from));
        put("end_date_time", self.time().map(Value::from));
        put("currency_code", Some(self.currency.code().into()));
        put("customer_id", order.text("customer_id").map(Value::from));
        put("channel", order.get("source").and_then(|source| source.text("name")).map(Value::from));
        put("line_items", Some(self.lines().into()));
        let mut tenders: Vec<Value> = order.all("tenders").iter().map(|tender| self.tender(tender)).collect();
        tenders.extend(self.refunds());
        if !tenders.is_empty() {
            put("tenders", Some(tenders.into()));
        }
        let (gross, tax) = self.totals();
        put("totals", Some(json!({ "gross": self.text(gross), "tax": self.text(tax) })));
        let mut attributes = Map::new();
        for name in ["location_id", "reference_id"] {
            if let Some(text) = order.text(name) {
                attributes.insert(name.to_owned(), text.into());
            }
        }
        put("attributes", Some(attributes.into()));
        document
    }

    fn lines(&self) -> Vec<Value> {
        let mut lines: Vec<Value> = Vec::new();
        let known = self.fields.all("taxes");
        for line in self.fields.all("line_items") {
            let number = lines.len() + 1;
            lines.push(self.line(&line, number, &known, None));
        }
        for charge in self.fields.all("service_charges") {
            lines.push(self.charge(&charge, lines.len() + 1, 1));
        }
        lines.extend(self.rounding(self.fields, lines.len() + 1, 1));
        let tip = self.money(self.fields, "total_tip_money");
        if tip != 0 {
            lines.push(json!({ "line": lines.len() + 1, "kind": "tip", "extended_amount": self.text(tip) }));
        }
        self.returned(&mut lines);
        lines
    }

    /// A service charge, without its tax; `sign` is -1 for one that is given back.
    fn charge(&self, charge: &Fields<'_>, number: usize, sign: i64) -> Value {
        let of = |name: &str| self.money(charge, name).saturating_mul(sign);
        let (total, tax) = (of("total_money"), of("total_tax_money"));
        let mut line = json!({
            "line": number, "kind": "fee", "extended_amount": self.text(total.saturating_sub(tax)), "description": charge.text("name"),
        });
        if tax != 0 {
            line["taxes"] = json!([{ "amount": self.text(tax) }]);
        }
        line
    }

    /// What cash was rounded by.
    fn rounding(&self, of: &Fields<'_>, number: usize, sign: i64) -> Option<Value> {
        let amount = self.money(&of.get("rounding_adjustment")?, "amount_money").saturating_mul(sign);
        (amount != 0).then(|| json!({ "line": number, "kind": "rounding", "extended_amount": self.text(amount) }))
    }

    /// A line without added taxes and service charges: what its goods cost. With what it `returns` it gives them back.
    fn line(&self, line: &Fields<'_>, number: usize, known: &[Fields<'_>], returns: Option<&Value>) -> Value {
        let (kind, sign) = if returns.is_some() { ("return", -1) } else { ("sale", 1) };
        let of = |fields: &Fields<'_>, name: &str| self.money(fields, name).saturating_mul(sign);
        let quantity = line.needed_decimal("quantity").unwrap_or_default();
        let quantity = if returns.is_some() { -quantity } else { quantity };
        let mut ours = json!({
            "line": number, "kind": kind, "quantity": quantity.to_string(), "item_id": line.text("catalog_object_id"),
            "description": line.text("name"), "transaction_link": returns,
            "attributes": { "uid": line.text("uid").unwrap_or_default() },
        });
        ours["regular_unit_price"] = self.text(self.money(line, "base_price_money"));
        let mut modifiers: Vec<Value> = Vec::new();
        for modifier in ["modifiers", "return_modifiers"].into_iter().flat_map(|name| line.all(name)) {
            let amount = self.text(of(&modifier, "total_price_money"));
            modifiers.push(json!({ "amount": amount, "reason_code": modifier.text("name") }));
        }
        for discount in line.all("applied_discounts") {
            let amount = of(&discount, "applied_money");
            modifiers.push(
                json!({ "amount": self.text(amount.saturating_neg()), "promotion_id": discount.text("discount_uid") }),
            );
        }
        let taxes = self.taxes(line, known, sign);
        let added = taxes.iter().filter(|tax| !tax.included).fold(0_i64, |sum, tax| sum.saturating_add(tax.amount));
        let added = if taxes.is_empty() { of(line, "total_tax_money") } else { added };
        let charges = of(line, "total_service_charge_money");
        let extended = of(line, "total_money").saturating_sub(added).saturating_sub(charges);
        ours["extended_amount"] = self.text(extended);
        if !modifiers.is_empty() {
            ours["modifiers"] = modifiers.into();
        }
        if taxes.is_empty() && added != 0 {
            ours["taxes"] = json!([{ "amount": self.text(added) }]);
        } else if !taxes.is_empty() {
            let ours_of = |tax: &Tax| json!({ "rate": tax.rate, "taxable_amount": self.text(extended), "amount": self.text(tax.amount), "included": tax.included });
            ours["taxes"] = taxes.iter().map(ours_of).collect();
        }
        if kind == "return" {
            return Value::Object(object(ours));
        }
        if let Some(fulfillment) = self.fields.get("fulfillments") {
            ours["fulfillment"] = json!({ "type": way(&fulfillment) });
        }
        Value::Object(object(ours))
    }

    fn taxes(&self, line: &Fields<'_>, known: &[Fields<'_>], sign: i64) -> Vec<Tax> {
        let read = |applied: &Fields<'_>| {
            let amount = self.money(applied, "applied_money").saturating_mul(sign);
            let uid = applied.text("tax_uid");
            let of = known.iter().find(|tax| tax.text("uid") == uid);
            let included = of.and_then(|tax| tax.text("type")).is_some_and(|kind| kind == "INCLUSIVE");
            Tax { amount, rate: of.and_then(|tax| tax.text("percentage")), included }
        };
        line.all("applied_taxes").iter().map(read).collect()
    }

    fn tender(&self, tender: &Fields<'_>) -> Value {
        let means = match tender.text("type").unwrap_or_default().as_str() {
            "CASH" => "cash",
            "CARD" => "card",
            "SQUARE_GIFT_CARD" => "gift_card",
            "WALLET" => "mobile",
            _ => "other",
        };
        let status = tender.get("card_details").and_then(|details| details.text("status")).unwrap_or_default();
        let state = match status.as_str() {
            "FAILED" => "declined",
            "VOIDED" => "reversed",
            _ => "approved",
        };
        json!({ "type": means, "amount": self.text(self.money(tender, "amount_money")), "state": state })
    }

    fn fulfillment(&self, fulfillment: &Fields<'_>) -> Map<String, Value> {
        let state = fulfillment.needed("state").unwrap_or_default().to_ascii_lowercase();
        let uid = fulfillment.needed("uid").unwrap_or_default();
        let details = ["pickup_details", "shipment_details", "delivery_details"]
            .into_iter()
            .find_map(|name| fulfillment.get(name));
        let moment = |names: &[&str]| names.iter().find_map(|name| details.as_ref()?.text(name));
        let at = match state.as_str() {
            "proposed" => moment(&["placed_at"]),
            "reserved" => moment(&["accepted_at", "in_progress_at", "placed_at"]),
            "prepared" => moment(&["ready_at", "packaged_at"]),
            "completed" => moment(&["picked_up_at", "shipped_at", "delivered_at", "completed_at"]),
            "canceled" => moment(&["canceled_at"]),
            _ => moment(&["expired_at", "failed_at", "rejected_at"]),
        };
        let lines = self.fields.all("line_items");
        let entries = fulfillment.all("entries");
        let mut items: Vec<Value> = Vec::new();
        for line in &lines {
            let uid = line.text("uid");
            let entry = entries.iter().find(|entry| entry.text("line_item_uid") == uid);
            if !entries.is_empty() && entry.is_none() {
                continue;
            }
            let ordered = line.text("quantity");
            let quantity = entry.and_then(|entry| entry.text("quantity")).or_else(|| ordered.clone());
            items.push(Value::Object(object(json!({
                "line": items.len() + 1, "order_line": uid, "item_id": line.text("catalog_object_id").or(uid.clone()),
                "description": line.text("name"), "quantity": quantity, "ordered_quantity": ordered,
            }))));
        }
        object(json!({
            "document_id": identity(&["square", &self.id, &uid, &state]), "order_id": self.id, "fulfillment_id": uid,
            "type": way(fulfillment), "state": state, "end_date_time": at.or_else(|| self.time()),
            "ready_at": moment(&["ready_at"]), "expires_at": moment(&["expires_at"]), "line_items": items,
        }))
    }
}

struct Tax {
    amount: i64,
    rate: Option<String>,
    included: bool,
}

fn way(fulfillment: &Fields<'_>) -> &'static str {
    match fulfillment.text("type").unwrap_or_default().as_str() {
        "PICKUP" => "pickup",
        "DELIVERY" => "delivery",
        _ => "shipment",
    }
}
