//! A transaction of a till: the table of its fields. What it does stands in `fold`, what it is judged by in `rules`.
//!
//! Invariant: fields are only added, and none becomes required later: documents of every age have to be read.

use super::common::{
    ATTRIBUTES, BUSINESS_DAY_DATE, CORRELATION_ID, CUSTOMER_ID, FISCAL_EVIDENCE, STORE_ID, TRACEPARENT,
};
use super::schema::{Field, Need, SERIAL_NUMBERS_MAX, Table, Type, identity, optional, required};
use crate::limits::{LINE_ITEMS_MAX, TENDERS_MAX};

pub(crate) mod fold;
mod returns;
mod rules;

pub(crate) use returns::identity_of_link;

/// Modifiers of one line; more are refused.
pub const MODIFIERS_MAX: usize = 64;

/// Taxes of one line, or of one declared total; more are refused.
pub const TAXES_MAX: usize = 32;

const TYPES: &[&str] = &["sale", "return", "exchange", "void", "no_sale"];
const STATUSES: &[&str] = &["finished", "suspended", "canceled"];
const LINE_KINDS: &[&str] = &["sale", "return", "deposit", "gift_card", "fee", "tip", "donation", "rounding", "other"];
pub(crate) const TENDER_TYPES: &[&str] =
    &["cash", "card", "gift_card", "voucher", "store_credit", "account", "mobile", "foreign_cash", "change", "other"];
const TENDER_STATES: &[&str] = &["approved", "declined", "unknown", "reversed", "offline_approved"];
const TAKE_WITH: &str = "take_with";

pub(crate) static TABLE: Table = Table {
    title: "transaction",
    doc: "A sale, return, exchange, void or no-sale of a till. Amounts are decimal strings; returns are negative in quantity and \
          amount; tender given out is negative; rounding is a line of its own.",
    fields: &[
        identity(
            "document_id",
            Type::Identifier,
            "Names the document; unique per store. Without it the four parts (workstation_id, \
            business_day_date, sequence_number, sequence_epoch) do. On a single post the header Idempotency-Key says the same.",
        ),
        STORE_ID,
        required("workstation_id", Type::Identifier, "The till, unique in the store."),
        BUSINESS_DAY_DATE,
        identity("sequence_number", Type::Integer, "The till's own number; required without document_id."),
        optional(
            "sequence_epoch",
            Type::Integer,
            "Raised by the till whenever its counter restarts; 0 where it is missing.",
        ),
        required(
            "type",
            Type::Choice(TYPES),
            "What it tells; exchange has mixed lines, void reverses what transaction_link names.",
        ),
        optional("status", Type::Choice(STATUSES), "How it ended; finished where it is missing."),
        optional("begin_date_time", Type::DateTime, "When it began."),
        required(
            "end_date_time",
            Type::DateTime,
            "When it ended. A time without offset is taken in the store's time zone.",
        ),
        optional("operator_id", Type::Identifier, "Who served; a pseudonym, not a name."),
        required("currency_code", Type::Currency, "ISO 4217; all amounts are in it."),
        optional("channel", Type::Text, "store, click_and_collect …"),
        CORRELATION_ID,
        TRACEPARENT,
        optional("training_mode", Type::Boolean, "Training never reaches stock or totals."),
        CUSTOMER_ID,
        optional("loyalty_id", Type::Identifier, "The loyalty account; a token where it looks like a card number."),
        optional("order_id", Type::Identifier, "The order that it belongs to."),
        optional("transaction_link", Type::Object(&LINK), "The transaction that it refers to."),
        required("line_items", Type::List(&LINE, LINE_ITEMS_MAX), "Its lines; empty for no_sale."),
        optional("tenders", Type::List(&TENDER, TENDERS_MAX), "What was paid with."),
        required("totals", Type::Object(&TOTALS), "The totals as the till has them."),
        FISCAL_EVIDENCE,
        ATTRIBUTES,
    ],
};

static LINE: Table = Table {
    title: "line item",
    doc: "A line of a transaction.",
    fields: &[
        required("line", Type::Integer, "Its number in the document."),
        required("kind", Type::Choice(LINE_KINDS), "What was sold, returned or charged."),
        optional("voided", Type::Boolean, "A voided line counts nowhere."),
        optional("item_id", Type::Identifier, "The item; lines of kind sale and return with an item move stock."),
        optional("gtin", Type::Gtin, "GTIN of 8, 12, 13 or 14 digits."),
        optional("description", Type::Text, "As on the receipt."),
        Field {
            name: "quantity",
            holds: Type::Decimal,
            need: Need::RequiredIf { field: "kind", values: &["sale", "return"] },
            doc: "Negative for a return.",
        },
        optional("unit", Type::Text, "UN/ECE Rec 20; EA where it is missing. Common names (kg, pcs) are understood."),
        optional("regular_unit_price", Type::Decimal, "Price of one unit before modifiers."),
        optional(
            "actual_unit_price",
            Type::Decimal,
            "Price of one unit after modifiers; may have more places than the currency.",
        ),
        required(
            "extended_amount",
            Type::Amount,
            "What the line costs, after modifiers: quantity times actual_unit_price, rounded.",
        ),
        optional(
            "modifiers",
            Type::List(&MODIFIER, MODIFIERS_MAX),
            "What led from the regular price to the actual one.",
        ),
        optional("taxes", Type::List(&TAX, TAXES_MAX), "Taxes of the line."),
        optional("serial_numbers", Type::Texts(SERIAL_NUMBERS_MAX), "Serial numbers of the pieces."),
        optional(
            "fulfillment",
            Type::Object(&FULFILLMENT),
            "How the goods reach the customer; take_with where it is missing.",
        ),
        optional("transaction_link", Type::Object(&LINK), "The line that is returned."),
        optional("order_id", Type::Identifier, "The order that it belongs to."),
        optional("reason_code", Type::Text, "Why, for returns and the like."),
        optional("attributes", Type::Attributes, "Texts by name, carried untouched."),
    ],
};

static MODIFIER: Table = Table {
    title: "modifier",
    doc: "A discount or surcharge on a line, for its whole quantity.",
    fields: &[
        required("amount", Type::Amount, "Negative for a discount."),
        optional("reason_code", Type::Text, "Why."),
        optional("promotion_id", Type::Text, "The promotion."),
    ],
};

pub(crate) static TAX: Table = Table {
    title: "tax",
    doc: "Tax of one category and rate.",
    fields: &[
        optional("category", Type::Text, "UNCL5305 category."),
        optional("rate", Type::Decimal, "Percent."),
        optional("taxable_amount", Type::Amount, "What the tax is on."),
        required("amount", Type::Amount, "The tax."),
        optional(
            "included",
            Type::Boolean,
            "Whether extended_amount holds it already; it does not where this is missing.",
        ),
    ],
};

static FULFILLMENT: Table = Table {
    title: "fulfillment",
    doc: "How the goods reach the customer.",
    fields: &[required(
        "type",
        Type::OpenChoice(&[TAKE_WITH, "pickup", "shipment", "delivery"]),
        "Only take_with moves the stock of this store now.",
    )],
};

static LINK: Table = Table {
    title: "transaction link",
    doc: "Another transaction or line: its four parts, its document_id, or an order's line.",
    fields: &[
        optional("store_id", Type::Identifier, "Another store."),
        optional("workstation_id", Type::Identifier, "Its till."),
        optional("business_day_date", Type::Date, "Its business day."),
        optional("sequence_number", Type::Integer, "Its number."),
        optional("sequence_epoch", Type::Integer, "Its sequence_epoch."),
        optional("document_id", Type::Identifier, "Its document_id."),
        optional("line", Type::Integer, "Its line."),
        optional("order_id", Type::Identifier, "An online order."),
        optional("order_line", Type::Reference, "A line of that order."),
        optional("reason_code", Type::Text, "Why it is referred to."),
    ],
};

static TENDER: Table = Table {
    title: "tender",
    doc: "A payment, or money given out.",
    fields: &[
        optional("line", Type::Integer, "Its number in the document."),
        required("type", Type::Choice(TENDER_TYPES), "The means of payment."),
        required("amount", Type::Amount, "Negative where money is given out (change, refund)."),
        optional("state", Type::Choice(TENDER_STATES), "What became of it; approved where it is missing."),
    ],
};

static TOTALS: Table = Table {
    title: "totals",
    doc: "Totals as the till has them.",
    fields: &[
        optional("net", Type::Amount, "Without tax."),
        optional("tax", Type::Amount, "All taxes."),
        required("gross", Type::Amount, "What the customer owes, or gets back where it is negative."),
    ],
};
