//! What a field of a document may be: the tables that both the check of submitted documents and the published JSON Schema are made of.
//!
//! Invariant: one source. Whatever the check (`super::inspect`) demands of a single field stands in a `Table`, and
//! [`json_schema`] prints the same table. What binds several fields together (identity, sums) is judged elsewhere.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::{Kind, day_close, fulfillment_update, stock_movement, tender_control, transaction};
use crate::limits::{ATTRIBUTES_MAX, IDENTIFIER_CHARS_MAX};
use crate::money::{FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX};

/// Characters of a text that people read (description, reason); a longer one is refused.
pub const TEXT_CHARS_MAX: usize = 1_024;

/// Bytes of a key of `attributes`; a longer one is refused.
pub const ATTRIBUTE_KEY_BYTES_MAX: usize = 128;

/// Serial numbers of one line; more are refused.
pub const SERIAL_NUMBERS_MAX: usize = 1_000;

/// The largest whole number that every JSON reader keeps exactly (RFC 8259, section 6).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    /// Names something: 1 to 64 characters, no control characters. A card number in it refuses the document.
    Identifier,
    /// An identifier, or a whole number.
    Reference,
    /// Read by people; card numbers in it are masked.
    Text,
    /// Texts, at most so many.
    Texts(usize),
    /// A text with known values; others are taken too, with a warning.
    OpenChoice(&'static [&'static str]),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A GTIN; other text is taken for free text, with a warning.
    Gtin,
    /// W3C trace context; other text is ignored, with a warning.
    TraceParent,
    /// A price, a quantity or a rate.
    Decimal,
    /// An amount in the currency of its object, or of the nearest object around it.
    Amount,
    /// A whole number from 0 to [`INTEGER_MAX`].
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// RFC 3339, the offset optional.
    DateTime,
    /// RFC 3339, with an offset.
    Instant,
    /// ISO 4217 code.
    Currency,
    /// An object.
    Object(&'static Table),
    /// Objects, at most so many.
    List(&'static Table, usize),
    /// Texts by name, at most [`ATTRIBUTES_MAX`].
    Attributes,
    /// Anything, carried untouched.
    Opaque,
}

impl Type {
    /// Whether text in it names nothing and has no form of its own, so that a card number in it is masked, not refused.
    pub(crate) const fn is_free(self) -> bool {
        match self {
            Self::Identifier
            | Self::Reference
            | Self::Choice(_)
            | Self::Decimal
            | Self::Amount
            | Self::Integer
            | Self::Boolean
            | Self::Date
            | Self::DateTime
            | Self::Instant
            | Self::Currency => false,
            Self::Text
            | Self::Texts(_)
            | Self::OpenChoice(_)
            | Self::Gtin
            | Self::TraceParent
            | Self::Object(_)
            | Self::List(_, _)
            | Self::Attributes
            | Self::Opaque => true,
        }
    }
}

/// Whether a field must be there. A null stands for an absent field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Always.
    Required,
    /// Not at all.
    Optional,
    /// Where the sibling `field` has one of `values`.
    RequiredIf { field: &'static str, values: &'static [&'static str] },
    /// It, or the header `Idempotency-Key`, or (a transaction) the till's own number: checked with the identity.
    Identity,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) holds: Type,
    pub(crate) need: Need,
    /// A sentence for the integrator.
    pub(crate) doc: &'static str,
}

/// The fields of an object. Others are kept and named in the receipt's warnings.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) fields: &'static [Field],
}

/// A field that must be there.
pub(crate) const fn required(name: &'static str, holds: Type, doc: &'static str) -> Field {
    Field { name, holds, need: Need::Required, doc }
}

/// A field that may be left out.
pub(crate) const fn optional(name: &'static str, holds: Type, doc: &'static str) -> Field {
    Field { name, holds, need: Need::Optional, doc }
}

/// The field that names the document.
pub(crate) const fn identity(name: &'static str, holds: Type, doc: &'static str) -> Field {
    Field { name, holds, need: Need::Identity, doc }
}

/// The table of documents of `kind`; `None` for kinds that tills do not send.
pub(crate) fn table_of(kind: Kind) -> Option<&'static Table> {
    match kind {
        Kind::TRANSACTION => Some(&transaction::TABLE),
        Kind::STOCK_MOVEMENT => Some(&stock_movement::TABLE),
        Kind::FULFILLMENT_UPDATE => Some(&fulfillment_update::TABLE),
        Kind::TENDER_CONTROL => Some(&tender_control::TABLE),
        Kind::DAY_CLOSE => Some(&day_close::TABLE),
        _ => None,
    }
}

/// The JSON Schema (2020-12) of documents of `kind`; `None` for kinds that tills do not send.
pub fn json_schema(kind: Kind) -> Option<Value> {
    let table = table_of(kind)?;
    let mut schema = object_schema(table);
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    if kind == Kind::TRANSACTION {
        schema.insert(
            "anyOf".into(),
            json!([
                { "required": ["document_id"], "properties": { "document_id": { "type": "string" } } },
                { "required": ["sequence_number"], "properties": { "sequence_number": { "type": "integer" } } },
            ]),
        );
    }
    Some(Value::Object(schema))
}

fn object_schema(table: &Table) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required: Vec<Value> = Vec::new();
    let mut conditions: Vec<Value> = Vec::new();
    for field in table.fields {
        let mut schema = type_schema(field.holds);
        // An identity other than `document_id` has an alternative, stated beside the properties.
        let is_required = match field.need {
            Need::Required => true,
            Need::Identity => {
                field.name == "document_id" && !table.fields.iter().any(|other| other.name == "sequence_number")
            }
            Need::Optional | Need::RequiredIf { .. } => false,
        };
        if is_required {
            required.push(field.name.into());
        } else if let Some(Value::String(one)) = schema.get("type").cloned() {
            schema.insert("type".into(), json!([one, "null"]));
            if let Some(Value::Array(values)) = schema.get_mut("enum") {
                values.push(Value::Null);
            }
        }
        if let Need::RequiredIf { field: sibling, values } = field.need {
            conditions.push(json!({
                "if": { "properties": { sibling: { "enum": values } }, "required": [sibling] },
                "then": { "required": [field.name], "properties": { (field.name): { "type": type_schema(field.holds).get("type") } } },
            }));
        }
        schema.insert("description".into(), field.doc.into());
        properties.insert(field.name.into(), Value::Object(schema));
    }
    let mut schema = Map::new();
    schema.insert("title".into(), table.title.into());
    schema.insert("description".into(), table.doc.into());
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("required".into(), Value::Array(required));
    if !conditions.is_empty() {
        schema.insert("allOf".into(), Value::Array(conditions));
    }
    schema
}

fn type_schema(holds: Type) -> Map<String, Value> {
    const IDENTIFIER_PATTERN: &str = "^[^\\u0000-\\u001F\\u007F-\\u009F]+$";
    let decimal = |places: usize| format!("^-?0*[0-9]{{1,{INTEGER_DIGITS_MAX}}}(\\.[0-9]{{1,{places}}}0*)?$");
    let schema = match holds {
        Type::Identifier => {
            json!({ "type": "string", "minLength": 1, "maxLength": IDENTIFIER_CHARS_MAX, "pattern": IDENTIFIER_PATTERN })
        }
        Type::Reference => {
            json!({ "type": ["string", "integer", "null"], "minLength": 1, "maxLength": IDENTIFIER_CHARS_MAX,
                    "minimum": 0, "maximum": INTEGER_MAX })
        }
        Type::Text => json!({ "type": "string", "maxLength": TEXT_CHARS_MAX }),
        Type::Texts(max) => {
            json!({ "type": "array", "maxItems": max, "items": { "type": "string", "maxLength": TEXT_CHARS_MAX } })
        }
        Type::OpenChoice(known) => json!({ "type": "string", "maxLength": TEXT_CHARS_MAX, "examples": known }),
        Type::Choice(values) => json!({ "type": "string", "enum": values }),
        Type::Gtin => json!({ "type": "string", "maxLength": TEXT_CHARS_MAX, "examples": ["05012345678900"] }),
        Type::TraceParent => {
            let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            json!({ "type": "string", "maxLength": TEXT_CHARS_MAX, "examples": [example] })
        }
        Type::Decimal => json!({ "type": "string", "pattern": decimal(FRACTION_DIGITS_MAX), "examples": ["4.49"] }),
        // The places of the currency are not known to a schema; no currency has more than four.
        Type::Amount => json!({ "type": "string", "pattern": decimal(4), "examples": ["8.98"] }),
        Type::Integer => json!({ "type": "integer", "minimum": 0, "maximum": INTEGER_MAX }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Date => json!({ "type": "string", "format": "date" }),
        Type::DateTime => {
            let pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}";
            json!({ "type": "string", "pattern": pattern, "examples": ["2026-11-23T10:15:40+01:00", "2026-11-23T10:15:40"] })
        }
        Type::Instant => {
            let pattern =
                "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})$";
            json!({ "type": "string", "pattern": pattern, "examples": ["2026-11-23T10:15:40+01:00"] })
        }
        Type::Currency => json!({ "type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"] }),
        Type::Object(table) => return object_schema(table),
        Type::List(table, max) => json!({ "type": "array", "maxItems": max, "items": object_schema(table) }),
        Type::Attributes => json!({
            "type": "object",
            "maxProperties": ATTRIBUTES_MAX,
            "additionalProperties": { "type": "string" },
        }),
        Type::Opaque => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}
