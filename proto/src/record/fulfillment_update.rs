//! A fulfillment update: how far an order's lines got in the store; its fields, what it does, and the rules that it is judged by.
//!
//! Invariant: an update states quantities that come into its state, never balances, so that a split or partial hand-over is several
//! updates and each of them stands on its own. Goods leave the shelf when they are handed out (`completed`); until then they are
//! reserved. A substitution is stated once; later updates name the substitute as their item.
//!
//! The states are those of Square's order fulfillments, for which ARTS has no list. It deliberately does not know the order: what was
//! ordered is compared where it is stated, here or in an earlier update, by the agent.

use alloc::format;
use alloc::string::ToString;

use rust_decimal::Decimal;

use super::common::{
    ATTRIBUTES, BUSINESS_DAY_DATE, CORRELATION_ID, CUSTOMER_ID, DOCUMENT_ID, END_DATE_TIME, STORE_ID, TRACEPARENT,
};
use super::facts::{FactsError, FulfillmentFacts, FulfillmentLine, FulfillmentState, FulfillmentType, Substitution};
use super::flag::{self, Flags};
use super::json::Node;
use super::read::Fields;
use super::schema::{SERIAL_NUMBERS_MAX, Table, Type, optional, required};
use super::{Envelope, gtin, unit, when};
use crate::limits::LINE_ITEMS_MAX;
use crate::time::WallTime;

/// Packages of one update; more are refused.
pub const PACKAGES_MAX: usize = 256;

const TYPES: &[&str] = &["pickup", "shipment", "delivery"];
const STATES: &[&str] = &["proposed", "reserved", "prepared", "completed", "canceled", "failed"];
const CONSENT: &[&str] = &["given", "standing", "not_asked", "refused"];

pub(crate) static TABLE: Table = Table {
    title: "fulfillment_update",
    doc: "How far the lines of an order got in the store. Quantities are those that come into the stated state with this update, so that a \
          partial or split hand-over is several updates.",
    fields: &[
        DOCUMENT_ID,
        STORE_ID,
        required("order_id", Type::Identifier, "The order."),
        optional(
            "fulfillment_id",
            Type::Identifier,
            "The part of the order that is handed out together; for split orders.",
        ),
        required("type", Type::Choice(TYPES), "How the goods reach the customer."),
        required(
            "state",
            Type::Choice(STATES),
            "What the lines come into: proposed; reserved and prepared hold the goods; completed hands them out; canceled \
             and failed let them go.",
        ),
        END_DATE_TIME,
        BUSINESS_DAY_DATE,
        optional("ready_at", Type::Instant, "Since when the goods lie ready; with an offset."),
        optional(
            "expires_at",
            Type::Instant,
            "Until when they are kept for the customer; with an offset. Goods that are prepared and still there then open an exception.",
        ),
        optional("workstation_id", Type::Identifier, "Where it was entered."),
        optional("operator_id", Type::Identifier, "Who entered it; a pseudonym, not a name."),
        CUSTOMER_ID,
        optional("channel", Type::Text, "Where the order comes from: web, app, call_center …"),
        optional("currency_code", Type::Currency, "ISO 4217; the amounts beside it are in it."),
        optional("reason_code", Type::Text, "Why, for canceled and failed."),
        optional("packages", Type::Texts(PACKAGES_MAX), "Packages, by SSCC where they have one."),
        CORRELATION_ID,
        TRACEPARENT,
        required("line_items", Type::List(&LINE, LINE_ITEMS_MAX), "Its lines."),
        ATTRIBUTES,
    ],
};

static LINE: Table = Table {
    title: "line item",
    doc: "A line of a fulfillment update.",
    fields: &[
        required("line", Type::Integer, "Its number in the document."),
        optional("order_line", Type::Reference, "The line of the order."),
        required("item_id", Type::Identifier, "The item."),
        optional("gtin", Type::Gtin, "GTIN of 8, 12, 13 or 14 digits."),
        optional("description", Type::Text, "For people."),
        required("quantity", Type::Decimal, "How much comes into the state; above zero."),
        optional(
            "ordered_quantity",
            Type::Decimal,
            "How much of it was ordered; what is handed out and canceled is compared with it.",
        ),
        optional("unit", Type::Text, "UN/ECE Rec 20; EA where it is missing. Common names (kg, pcs) are understood."),
        optional("substitution", Type::Object(&SUBSTITUTION), "What the customer gets instead of this quantity."),
        optional("reason_code", Type::Text, "Why, for this line."),
        optional("serial_numbers", Type::Texts(SERIAL_NUMBERS_MAX), "Serial numbers of the pieces."),
        optional("attributes", Type::Attributes, "Texts by name, carried untouched."),
    ],
};

static SUBSTITUTION: Table = Table {
    title: "substitution",
    doc: "Another article for what was ordered. The ordered one is let go, this one comes into the state of the update. Stated once; later \
          updates name it as their item.",
    fields: &[
        required("item_id", Type::Identifier, "The article that the customer gets."),
        optional("gtin", Type::Gtin, "GTIN of 8, 12, 13 or 14 digits."),
        optional("description", Type::Text, "For people."),
        required("quantity", Type::Decimal, "How much of it; above zero."),
        optional("unit", Type::Text, "UN/ECE Rec 20; EA where it is missing."),
        optional(
            "price_delta",
            Type::Amount,
            "What the customer pays more, or less where it is negative, tax included.",
        ),
        optional("tax_delta", Type::Amount, "The tax in price_delta."),
        required(
            "consent",
            Type::Choice(CONSENT),
            "Whether the customer agreed: given, standing (in advance), not_asked, refused.",
        ),
    ],
};

/// A fulfillment update, read.
#[derive(Debug)]
pub(crate) struct FulfillmentUpdate<'n> {
    facts: FulfillmentFacts,
    lines: &'n [Node<'n>],
}

impl<'n> FulfillmentUpdate<'n> {
    pub(crate) fn read(fields: Fields<'n>, envelope: &Envelope) -> Result<Self, FactsError> {
        let lines = fields.list("line_items").unwrap_or_default();
        let read_line = |(index, node)| read_line(index, Fields(node));
        Ok(Self {
            facts: FulfillmentFacts {
                order_id: fields.required_text("order_id")?.to_string(),
                fulfillment_id: fields.text("fulfillment_id").map(ToString::to_string),
                fulfillment_type: fulfillment_type(fields.required_text("type")?)?,
                state: state(fields.required_text("state")?)?,
                lines: lines.iter().enumerate().map(read_line).collect::<Result<_, _>>()?,
                ready_at: instant(fields, "ready_at"),
                expires_at: instant(fields, "expires_at"),
                ended_at: envelope.occurred_at.ok_or(FactsError::Field { field: "end_date_time" })?,
            },
            lines,
        })
    }

    pub(crate) fn judge(&self, flags: &mut Flags) {
        for (index, (line, node)) in self.facts.lines.iter().zip(self.lines).enumerate() {
            let at = |field: &str| format!("/line_items/{index}/{field}");
            let substitution = line.substitution.as_ref();
            if line.quantity <= Decimal::ZERO {
                flags.raise(flag::SIGN_MISMATCH, || at("quantity"));
            }
            if substitution.is_some_and(|substitution| substitution.quantity <= Decimal::ZERO) {
                flags.raise(flag::SIGN_MISMATCH, || at("substitution/quantity"));
            }
            if substitution.is_some_and(|substitution| !substitution.agreed) {
                flags.raise(flag::SUBSTITUTION_WITHOUT_CONSENT, || at("substitution/consent"));
            }
            for (object, prefix) in [(Some(Fields(node)), ""), (Fields(node).object("substitution"), "substitution/")] {
                let Some(object) = object else { continue };
                if object.text("unit").is_some_and(|unit| unit::code_of(unit).is_none()) {
                    flags.raise(flag::UNIT_UNKNOWN, || at(&format!("{prefix}unit")));
                }
                if object.text("gtin").is_some_and(gtin::has_wrong_check_digit) {
                    flags.raise(flag::GTIN_CHECK_DIGIT, || at(&format!("{prefix}gtin")));
                }
            }
        }
    }

    pub(crate) fn into_facts(self) -> FulfillmentFacts {
        self.facts
    }
}

fn read_line(index: usize, fields: Fields<'_>) -> Result<FulfillmentLine, FactsError> {
    let substitution = fields.object("substitution").map(read_substitution).transpose()?;
    let order_line = fields.text("order_line").map(ToString::to_string);
    Ok(FulfillmentLine {
        index,
        order_line: order_line.or_else(|| fields.integer("order_line").map(|number| number.to_string())),
        item_id: fields.required_text("item_id")?.to_string(),
        unit: unit::code_or_text(fields.text("unit")),
        quantity: fields.required_decimal("quantity")?,
        ordered: fields.decimal("ordered_quantity")?,
        substitution,
    })
}

fn read_substitution(fields: Fields<'_>) -> Result<Substitution, FactsError> {
    Ok(Substitution {
        item_id: fields.required_text("item_id")?.to_string(),
        unit: unit::code_or_text(fields.text("unit")),
        quantity: fields.required_decimal("quantity")?,
        agreed: matches!(fields.text("consent"), Some("given" | "standing")),
    })
}

/// A moment with an offset, which the check has seen to.
fn instant(fields: Fields<'_>, field: &str) -> Option<WallTime> {
    when::instant(fields.text(field)?).map(when::Occurred::wall_time)
}

fn fulfillment_type(text: &str) -> Result<FulfillmentType, FactsError> {
    Ok(match text {
        "pickup" => FulfillmentType::Pickup,
        "shipment" => FulfillmentType::Shipment,
        "delivery" => FulfillmentType::Delivery,
        _ => return Err(FactsError::Field { field: "type" }),
    })
}

fn state(text: &str) -> Result<FulfillmentState, FactsError> {
    Ok(match text {
        "proposed" => FulfillmentState::Proposed,
        "reserved" => FulfillmentState::Reserved,
        "prepared" => FulfillmentState::Prepared,
        "completed" => FulfillmentState::Completed,
        "canceled" => FulfillmentState::Canceled,
        "failed" => FulfillmentState::Failed,
        _ => return Err(FactsError::Field { field: "state" }),
    })
}
