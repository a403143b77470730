//! A stock movement: goods in, out, adjusted, lost or counted; its fields, what it does, and the rule that it is judged by.
//!
//! Invariant: a delta counts as it is written. Receipts and transfers in are positive; transfers out, losses and returns to a vendor
//! are negative; an adjustment has either sign. A sign that does not fit its type is flagged, never turned: the till may be right.
//! A count is absolute.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use rust_decimal::Decimal;

use super::common::{ATTRIBUTES, BUSINESS_DAY_DATE, CORRELATION_ID, DOCUMENT_ID, END_DATE_TIME, STORE_ID, TRACEPARENT};
use super::facts::{FactsError, MovementFacts, StockChange, StockCount};
use super::flag::{self, Flags};
use super::read::Fields;
use super::schema::{SERIAL_NUMBERS_MAX, Table, Type, optional, required};
use super::unit;
use crate::limits::LINE_ITEMS_MAX;

const TYPES: &[&str] = &["receipt", "transfer_in", "transfer_out", "adjustment", "loss", "return_to_vendor", "count"];

pub(crate) static TABLE: Table = Table {
    title: "stock_movement",
    doc: "Goods in, out, adjusted, lost or counted. Quantities are signed: receipt and transfer_in are positive; transfer_out, loss and \
          return_to_vendor are negative; an adjustment has either sign; a count states what lies on the shelf.",
    fields: &[
        DOCUMENT_ID,
        STORE_ID,
        required("type", Type::Choice(TYPES), "What happened to the goods."),
        END_DATE_TIME,
        BUSINESS_DAY_DATE,
        optional("workstation_id", Type::Identifier, "Where it was entered."),
        optional("operator_id", Type::Identifier, "Who entered it; a pseudonym, not a name."),
        optional("reason_code", Type::Text, "Why."),
        optional("order_id", Type::Identifier, "The order or delivery that it belongs to."),
        CORRELATION_ID,
        TRACEPARENT,
        optional(
            "source_location",
            Type::Identifier,
            "Where the goods come from: another store, a warehouse, a vendor.",
        ),
        optional("target_location", Type::Identifier, "Where the goods go."),
        required("line_items", Type::List(&LINE, LINE_ITEMS_MAX), "Its lines."),
        ATTRIBUTES,
    ],
};

static LINE: Table = Table {
    title: "line item",
    doc: "A line of a stock movement.",
    fields: &[
        required("line", Type::Integer, "Its number in the document."),
        required("item_id", Type::Identifier, "The item."),
        optional("gtin", Type::Gtin, "GTIN of 8, 12, 13 or 14 digits."),
        optional("description", Type::Text, "For people."),
        required("quantity", Type::Decimal, "Added to what is on hand; in a count, what is on hand."),
        optional("unit", Type::Text, "UN/ECE Rec 20; EA where it is missing. Common names (kg, pcs) are understood."),
        optional("reason_code", Type::Text, "Why, for this line."),
        optional("serial_numbers", Type::Texts(SERIAL_NUMBERS_MAX), "Serial numbers of the pieces."),
    ],
};

#[derive(Debug)]
struct Line<'n> {
    item_id: &'n str,
    quantity: Decimal,
    unit: Option<&'n str>,
}

/// A stock movement, read.
#[derive(Debug)]
pub(crate) struct StockMovement<'n> {
    movement_type: &'n str,
    lines: Vec<Line<'n>>,
}

impl<'n> StockMovement<'n> {
    pub(crate) fn read(fields: Fields<'n>) -> Result<Self, FactsError> {
        let read_line = |fields: Fields<'n>| {
            Ok(Line {
                item_id: fields.required_text("item_id")?,
                quantity: fields.required_decimal("quantity")?,
                unit: fields.text("unit"),
            })
        };
        Ok(Self {
            movement_type: fields.required_text("type")?,
            lines: fields.items("line_items").map(read_line).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn facts(&self) -> MovementFacts {
        let mut facts = MovementFacts { changes: Vec::new(), counts: Vec::new() };
        for line in &self.lines {
            let (item_id, unit) = (line.item_id.to_string(), unit::code_or_text(line.unit));
            if self.movement_type == "count" {
                facts.counts.push(StockCount { item_id, unit, counted: line.quantity });
            } else {
                facts.changes.push(StockChange { item_id, unit, delta: line.quantity });
            }
        }
        facts
    }

    pub(crate) fn judge(&self, flags: &mut Flags) {
        for (index, line) in self.lines.iter().enumerate() {
            let is_wrong = match self.movement_type {
                "receipt" | "transfer_in" | "count" => line.quantity < Decimal::ZERO,
                "transfer_out" | "loss" | "return_to_vendor" => line.quantity > Decimal::ZERO,
                _ => false,
            };
            if is_wrong {
                flags.raise(flag::SIGN_MISMATCH, || format!("/line_items/{index}/quantity"));
            }
            if line.unit.is_some_and(|unit| unit::code_of(unit).is_none()) {
                flags.raise(flag::UNIT_UNKNOWN, || format!("/line_items/{index}/unit"));
            }
        }
    }
}
