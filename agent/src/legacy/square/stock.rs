//! Stock of Square: changes of its inventory, and counts.
//!
//! Invariant: only what is `IN_STOCK` lies on the shelf, so that an adjustment is a delta of what comes into that state or leaves it, and
//! a count is of that state. What a payment caused is left out and named: the order moves the goods.

use counterfoil_proto::record::Kind;
use serde_json::{Value, json};

use crate::legacy::{Document, Fields, identity, object};

const SHELF: &str = "IN_STOCK";

/// One of `changes`: an adjustment or a physical count under its own name.
pub(super) fn change(fields: &Fields<'_>) -> Vec<Document> {
    fields.text("type");
    if let Some(inner) = fields.get("adjustment") {
        adjustment(&inner)
    } else if let Some(inner) = fields.get("physical_count") {
        count(&inner)
    } else {
        fields.skip("neither an adjustment nor a physical count");
        Vec::new()
    }
}

/// An adjustment.
pub(super) fn adjustment(fields: &Fields<'_>) -> Vec<Document> {
    if fields.has("transaction_id") || fields.has("refund_id") {
        fields.skip("an adjustment by a payment; its order moves the goods");
        return Vec::new();
    }
    let (from, to) = (fields.text("from_state").unwrap_or_default(), fields.text("to_state").unwrap_or_default());
    let (movement, goes_in, reason) = match (from.as_str(), to.as_str()) {
        ("NONE", SHELF) => ("receipt", true, from),
        (_, SHELF) => ("adjustment", true, from),
        (SHELF, "WASTE") => ("loss", false, to),
        (SHELF, _) => ("adjustment", false, to),
        _ => {
            fields.skip("an adjustment between states of which none is IN_STOCK");
            return Vec::new();
        }
    };
    let id = fields.needed("id").unwrap_or_default();
    let quantity = fields.needed_decimal("quantity").unwrap_or_default();
    let quantity = if goes_in { quantity } else { -quantity };
    let at = fields.needed("occurred_at");
    movement_of(fields, movement, &["square-adjustment", &id], &quantity.to_string(), at.as_deref(), Some(&reason))
}

/// A physical count, which has a name of its own, or what Square calculates to be there, which is named by item, place and time.
pub(super) fn count(fields: &Fields<'_>) -> Vec<Document> {
    if fields.needed("state").is_some_and(|state| state != SHELF) {
        fields.skip("a count of what is not IN_STOCK");
        return Vec::new();
    }
    let quantity = fields.needed_decimal("quantity").unwrap_or_default().to_string();
    if fields.has("calculated_at") {
        let at = fields.text("calculated_at");
        let item = fields.text("catalog_object_id").unwrap_or_default();
        let place = fields.text("location_id").unwrap_or_default();
        let parts = ["square-count", at.as_deref().unwrap_or_default(), &place, &item];
        return movement_of(fields, "count", &parts, &quantity, at.as_deref(), Some("CALCULATED"));
    }
    let id = fields.needed("id").unwrap_or_default();
    movement_of(fields, "count", &["square-count", &id], &quantity, fields.needed("occurred_at").as_deref(), None)
}

fn movement_of(
    fields: &Fields<'_>,
    movement: &str,
    parts: &[&str],
    quantity: &str,
    at: Option<&str>,
    reason: Option<&str>,
) -> Vec<Document> {
    let mut attributes = serde_json::Map::new();
    for name in ["location_id", "reference_id"] {
        if let Some(text) = fields.text(name) {
            attributes.insert(name.to_owned(), text.into());
        }
    }
    let document = object(json!({
        "document_id": identity(parts), "type": movement, "end_date_time": at, "reason_code": reason,
        "operator_id": fields.text("team_member_id").or_else(|| fields.text("employee_id")),
        "line_items": [{ "line": 1, "item_id": fields.needed("catalog_object_id"), "quantity": quantity }],
        "attributes": Value::Object(attributes),
    }));
    vec![(Kind::STOCK_MOVEMENT, document)]
}
