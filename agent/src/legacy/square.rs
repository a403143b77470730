//! Orders of Square (`Order` of its API): amounts are whole minor units, quantities decimal strings.
//!
//! Invariant: a completed order is one `transaction` named by its id; an order that is not completed is `suspended`, named by its version
//! too, so that it never stands in the way of the completed one. A fulfillment is a `fulfillment_update` per state. Lines are net of
//! added taxes and of service charges, which are lines of their own.
//!
//! Not mapped on purpose: cards and recipients. `returns` are not mapped: Square states them as orders of their own as well.

use counterfoil_proto::money::{Currency, amount_text};
use counterfoil_proto::record::Kind;
use serde_json::{Map, Value, json};

use super::Fields;

/// The documents of `{"order":…}` or of an order.
pub fn map(root: &Fields<'_>) -> Vec<(Kind, Map<String, Value>)> {
    let inner = root.get("order").filter(Fields::is_object);
    let order = inner.as_ref().unwrap_or(root);
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
            "COMPLETED" => ("finished", format!("square-{}", self.id)),
            "CANCELED" => ("canceled", format!("square-{}-canceled", self.id)),
            _ => ("suspended", format!("square-{}-open-{version}", self.id)),
        };
        put("document_id", Some(document_id.into()));
        put("workstation_id", Some("square".into()));
        put("order_id", Some(self.id.clone().into()));
        put("type", Some("sale".into()));
        put("status", Some(status.into()));
        put("begin_date_time", order.text("created_at").map(Value::from));
        put("end_date_time", self.time().map(Value::from));
        put("currency_code", Some(self.currency.code().into()));
        put("customer_id", order.text("customer_id").map(Value::from));
        put("channel", order.get("source").and_then(|source| source.text("name")).map(Value::from));
        put("line_items", Some(self.lines().into()));
        if order.has("tenders") {
            let tenders: Vec<Value> = order.all("tenders").iter().map(|tender| self.tender(tender)).collect();
            put("tenders", Some(tenders.into()));
        }
        let (gross, tax) = (self.money(order, "total_money"), self.money(order, "total_tax_money"));
        put("totals", Some(json!({ "gross": self.text(gross), "tax": self.text(tax) })));
        let mut attributes = Map::new();
        for name in ["location_id", "reference_id", "version"] {
            if let Some(text) = order.text(name) {
                attributes.insert(name.to_owned(), text.into());
            }
        }
        put("attributes", Some(attributes.into()));
        document
    }

    fn lines(&self) -> Vec<Value> {
        let mut lines: Vec<Value> = Vec::new();
        for line in self.fields.all("line_items") {
            let number = lines.len() + 1;
            lines.push(self.line(&line, number));
        }
        for charge in self.fields.all("service_charges") {
            let (total, tax) = (self.money(&charge, "total_money"), self.money(&charge, "total_tax_money"));
            let mut line = json!({
                "line": lines.len() + 1, "kind": "fee", "extended_amount": self.text(total.saturating_sub(tax)),
                "description": charge.text("name"),
            });
            if tax != 0 {
                line["taxes"] = json!([{ "amount": self.text(tax) }]);
            }
            lines.push(line);
        }
        let tip = self.money(self.fields, "total_tip_money");
        if tip != 0 {
            lines.push(json!({ "line": lines.len() + 1, "kind": "tip", "extended_amount": self.text(tip) }));
        }
        lines
    }

    /// A line without added taxes and service charges: what its goods cost.
    fn line(&self, line: &Fields<'_>, number: usize) -> Value {
        let mut ours = json!({
            "line": number, "kind": "sale", "quantity": line.needed("quantity"), "item_id": line.text("catalog_object_id"),
            "description": line.text("name"),
            "attributes": { "uid": line.text("uid").unwrap_or_default() },
        });
        ours["regular_unit_price"] = self.text(self.money(line, "base_price_money"));
        let mut modifiers: Vec<Value> = Vec::new();
        for modifier in line.all("modifiers") {
            let amount = self.text(self.money(&modifier, "total_price_money"));
            modifiers.push(json!({ "amount": amount, "reason_code": modifier.text("name") }));
        }
        for discount in line.all("applied_discounts") {
            let amount = self.money(&discount, "applied_money");
            modifiers.push(
                json!({ "amount": self.text(amount.saturating_neg()), "promotion_id": discount.text("discount_uid") }),
            );
        }
        let taxes = self.taxes(line);
        let added = taxes.iter().filter(|tax| !tax.included).fold(0_i64, |sum, tax| sum.saturating_add(tax.amount));
        let total = self.money(line, "total_money");
        let added = if taxes.is_empty() { self.money(line, "total_tax_money") } else { added };
        let charges = self.money(line, "total_service_charge_money");
        let extended = total.saturating_sub(added).saturating_sub(charges);
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
        if let Some(fulfillment) = self.fields.get("fulfillments") {
            ours["fulfillment"] = json!({ "type": way(&fulfillment) });
        }
        without_nulls(ours)
    }

    fn taxes(&self, line: &Fields<'_>) -> Vec<Tax> {
        let known = self.fields.all("taxes");
        let read = |applied: &Fields<'_>| {
            let amount = self.money(applied, "applied_money");
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
            items.push(without_nulls(json!({
                "line": items.len() + 1, "order_line": uid, "item_id": line.text("catalog_object_id").or(uid.clone()),
                "description": line.text("name"), "quantity": quantity, "ordered_quantity": ordered,
            })));
        }
        let ours = without_nulls(json!({
            "document_id": format!("square-{}-{uid}-{state}", self.id), "order_id": self.id, "fulfillment_id": uid,
            "type": way(fulfillment), "state": state, "end_date_time": at.or_else(|| self.time()),
            "ready_at": moment(&["ready_at"]), "expires_at": moment(&["expires_at"]), "line_items": items,
        }));
        if let Value::Object(document) = ours { document } else { Map::new() }
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

/// A null of ours is a field that the source does not have.
pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    value
}
