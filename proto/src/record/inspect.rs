//! The check of a submitted document against its kind's table: every fault by JSON pointer, and whether card numbers have to be masked.
//!
//! Invariant: no value of the document gets into a fault or a warning, only names of fields and places. The walk changes
//! nothing.
//!
//! It deliberately does not know what fields mean together; identity and business rules come after it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Fault;
use super::card::{CardRule, Place};
use super::json::{self, Member, Node};
use super::schema::{ATTRIBUTE_KEY_BYTES_MAX, Field, INTEGER_MAX, Need, TEXT_CHARS_MAX, Table, Type};
use super::{gtin, mask, when};
use crate::limits::{ATTRIBUTES_MAX, IDENTIFIER_CHARS_MAX};
use crate::money::{self, Currency, MoneyError};

/// Faults of one document that are listed; further ones come to light when these are mended.
pub const FAULTS_MAX: usize = 100;

/// Warnings of one document that are listed; the last one says how many more there are.
pub const WARNINGS_MAX: usize = 32;

/// Bytes of a warning; a longer one (only an unknown field's name can be) is cut.
const WARNING_BYTES_MAX: usize = 200;

/// Where the walk is, as a list along the stack, so that a pointer is only built where it is needed.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// The JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, pointer: &mut String) {
        match self {
            Path::Root => {}
            Path::Key(parent, key) => {
                parent.write(pointer);
                pointer.push('/');
                for character in key.chars() {
                    match character {
                        '~' => pointer.push_str("~0"),
                        '/' => pointer.push_str("~1"),
                        other => pointer.push(other),
                    }
                }
            }
            Path::Index(parent, index) => {
                parent.write(pointer);
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
        }
    }
}

/// What the walk found.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<String>,
    /// Whether free text holds card numbers, which have to be masked.
    pub(crate) cards: bool,
}

/// Checks `root`, an object, against `table`.
pub(crate) fn inspect(root: &Node<'_>, table: &Table, rule: &CardRule) -> Inspection {
    let mut walk = Walk { rule, faults: Vec::new(), warnings: Vec::new(), warnings_omitted: 0, cards: false };
    if let Node::Object(members) = root {
        walk.object(table, members, &Path::Root, None);
    }
    if walk.warnings_omitted > 0 {
        walk.warnings.push(format!("and {} more", walk.warnings_omitted));
    }
    Inspection { faults: walk.faults, warnings: walk.warnings, cards: walk.cards }
}

struct Walk<'r> {
    rule: &'r CardRule,
    faults: Vec<Fault>,
    warnings: Vec<String>,
    warnings_omitted: usize,
    cards: bool,
}

impl Walk<'_> {
    fn fault(&mut self, path: &Path<'_>, problem: &'static str, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { pointer: path.pointer(), problem, detail: detail.into() });
        }
    }

    fn warn(&mut self, path: &Path<'_>, what: &str) {
        if self.warnings.len() >= WARNINGS_MAX {
            self.warnings_omitted = self.warnings_omitted.saturating_add(1);
            return;
        }
        let mut warning = format!("{what} {}", path.pointer());
        let end = (0..=WARNING_BYTES_MAX).rev().find(|&end| warning.is_char_boundary(end)).unwrap_or_default();
        warning.truncate(end);
        self.warnings.push(warning);
    }

    fn object(&mut self, table: &Table, members: &[Member<'_>], path: &Path<'_>, currency: Option<Currency>) {
        let currency = currency_of(table, members, currency);
        let mut seen: u64 = 0;
        let mut unknown: Vec<&str> = Vec::new();
        for (key, node) in members {
            let path = Path::Key(path, key);
            let Some((bit, field)) = lookup(table, key) else {
                unknown.push(key);
                self.warn(&path, "unknown field");
                self.free_text(key);
                self.opaque(node, &path);
                continue;
            };
            if seen & bit != 0 {
                self.fault(&path, "duplicate-key", "The field stands twice in its object");
            }
            if !matches!(node, Node::Null) {
                seen |= bit;
                self.value(field, node, &path, currency);
            }
        }
        if let Some(double) = json::first_double(unknown.iter().copied()) {
            self.fault(&Path::Key(path, double), "duplicate-key", "The field stands twice in its object");
        }
        let mut bit: u64 = 1;
        for field in table.fields {
            if seen & bit == 0 && is_needed(field.need, members) {
                let detail = format!("The field {} is missing", field.name);
                self.fault(&Path::Key(path, field.name), "missing-field", detail);
            }
            bit = bit.wrapping_shl(1);
        }
    }

    fn value(&mut self, field: &Field, node: &Node<'_>, path: &Path<'_>, currency: Option<Currency>) {
        match (field.holds, node) {
            (Type::Identifier | Type::Reference, Node::Text(text)) => self.identifier(text, path),
            (Type::Text, Node::Text(text)) => self.text(text, path),
            (Type::OpenChoice(known), Node::Text(text)) => {
                self.text(text, path);
                if !known.contains(&&**text) {
                    self.warn(path, "unknown value of");
                }
            }
            (Type::Gtin, Node::Text(text)) => {
                if !gtin::is_gtin(text) {
                    self.text(text, path);
                    self.warn(path, "not a GTIN:");
                }
            }
            (Type::TraceParent, Node::Text(text)) => {
                if !is_trace_parent(text) {
                    self.text(text, path);
                    self.warn(path, "not a W3C trace context, ignored:");
                }
            }
            (Type::Choice(values), Node::Text(text)) => {
                if !values.contains(&&**text) {
                    self.fault(path, "invalid-value", format!("Must be one of {}", values.join(", ")));
                }
            }
            (Type::Decimal, Node::Text(text)) => self.money(money::decimal(text).map(drop), path),
            (Type::Amount, Node::Text(text)) => self.money(amount(text, currency), path),
            (Type::Currency, Node::Text(text)) => self.money(Currency::from_code(text).map(drop), path),
            (Type::Date, Node::Text(text)) => {
                if !when::is_date(text) {
                    self.fault(path, "invalid-date", "Must be a day, YYYY-MM-DD");
                }
            }
            (Type::DateTime, Node::Text(text)) => {
                if when::resolve(text, &jiff::tz::TimeZone::UTC).is_none() {
                    self.fault(
                        path,
                        "invalid-date-time",
                        "Must be an RFC 3339 time, such as 2026-11-23T10:15:40+01:00",
                    );
                }
            }
            (Type::Instant, Node::Text(text)) => {
                if when::instant(text).is_none() {
                    let detail = "Must be an RFC 3339 time with an offset, such as 2026-11-23T10:15:40+01:00";
                    self.fault(path, "invalid-date-time", detail);
                }
            }
            (Type::Boolean, Node::Bool(_)) => {}
            (Type::Integer | Type::Reference, Node::Number(_)) => self.integer(node, path),
            (Type::Object(table), Node::Object(members)) => self.object(table, members, path, currency),
            (Type::List(table, max), Node::List(list)) => self.list(table, max, list, path, currency),
            (Type::Texts(max), Node::List(list)) => self.texts(max, list, path),
            (Type::Attributes, Node::Object(members)) => self.attributes(members, path),
            (Type::Opaque, node) => self.opaque(node, path),
            (Type::Decimal | Type::Amount, Node::Number(_)) => {
                let detail =
                    "Must be a decimal string such as \"4.49\"; a JSON number is refused because readers round it";
                self.fault(path, "number-not-string", detail);
            }
            (holds, _) => self.fault(path, "wrong-type", format!("Must be {}", expected(holds))),
        }
    }

    fn identifier(&mut self, text: &str, path: &Path<'_>) {
        let is_sized =
            !text.is_empty() && (text.len() <= IDENTIFIER_CHARS_MAX || text.chars().count() <= IDENTIFIER_CHARS_MAX);
        if !is_sized || text.chars().any(char::is_control) {
            let detail = format!("Must have 1 to {IDENTIFIER_CHARS_MAX} characters, control characters not among them");
            self.fault(path, "invalid-identifier", detail);
        }
        if self.rule.finds(text, Place::Identifier) {
            self.card_number(path);
        }
    }

    fn card_number(&mut self, path: &Path<'_>) {
        let detail = "Looks like a card number. Card numbers are not recorded; send a token or a number of your own";
        self.fault(path, "card-number", detail);
    }

    fn text(&mut self, text: &str, path: &Path<'_>) {
        if text.len() > TEXT_CHARS_MAX && text.chars().count() > TEXT_CHARS_MAX {
            self.fault(path, "too-long", format!("Must have at most {TEXT_CHARS_MAX} characters"));
        }
        self.free_text(text);
    }

    fn free_text(&mut self, text: &str) {
        self.cards |= self.rule.finds(text, Place::FreeText);
    }

    fn money(&mut self, result: Result<(), MoneyError>, path: &Path<'_>) {
        let Err(error) = result else { return };
        let problem = match error {
            MoneyError::Syntax => "invalid-decimal",
            MoneyError::OutOfRange => "out-of-range",
            MoneyError::TooManyPlaces { .. } => "too-many-places",
            MoneyError::UnknownCurrency => "unknown-currency",
        };
        self.fault(path, problem, format!("The field {error}"));
    }

    fn integer(&mut self, node: &Node<'_>, path: &Path<'_>) {
        match node.as_u64() {
            Some(value) if value > INTEGER_MAX => {
                self.fault(path, "out-of-range", format!("Must be at most {INTEGER_MAX}"));
            }
            Some(value) if self.rule.finds(&value.to_string(), Place::Identifier) => self.card_number(path),
            Some(_) => {}
            None => self.fault(path, "wrong-type", "Must be a whole number, not negative"),
        }
    }

    fn list(&mut self, table: &Table, max: usize, list: &[Node<'_>], path: &Path<'_>, currency: Option<Currency>) {
        if list.len() > max {
            return self.fault(path, "too-many-items", format!("Must have at most {max} items"));
        }
        for (index, node) in list.iter().enumerate() {
            let path = Path::Index(path, index);
            match node {
                Node::Object(members) => self.object(table, members, &path, currency),
                Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => {
                    self.fault(&path, "wrong-type", "Must be an object");
                }
            }
        }
    }

    fn texts(&mut self, max: usize, list: &[Node<'_>], path: &Path<'_>) {
        if list.len() > max {
            return self.fault(path, "too-many-items", format!("Must have at most {max} items"));
        }
        for (index, node) in list.iter().enumerate() {
            let path = Path::Index(path, index);
            match node {
                Node::Text(text) => self.text(text, &path),
                Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Object(_) => {
                    self.fault(&path, "wrong-type", "Must be a text");
                }
            }
        }
    }

    fn attributes(&mut self, members: &[Member<'_>], path: &Path<'_>) {
        if members.len() > ATTRIBUTES_MAX {
            return self.fault(path, "too-many-items", format!("Must have at most {ATTRIBUTES_MAX} entries"));
        }
        if let Some(double) = json::first_double(members.iter().map(|(key, _)| &**key)) {
            self.fault(&Path::Key(path, double), "duplicate-key", "The entry stands twice");
        }
        for (key, node) in members {
            let path = Path::Key(path, key);
            if key.len() > ATTRIBUTE_KEY_BYTES_MAX {
                self.fault(&path, "too-long", format!("A name must have at most {ATTRIBUTE_KEY_BYTES_MAX} bytes"));
            }
            self.free_text(key);
            match node {
                Node::Text(text) => self.free_text(text),
                Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Object(_) => {
                    self.fault(&path, "wrong-type", "Must be a text");
                }
            }
        }
    }

    fn opaque(&mut self, node: &Node<'_>, path: &Path<'_>) {
        match node {
            Node::Null | Node::Bool(_) => {}
            Node::Number(number) => self.cards |= mask::masked_number(number, self.rule).is_some(),
            Node::Text(text) => self.free_text(text),
            Node::List(list) => {
                list.iter().enumerate().for_each(|(index, node)| self.opaque(node, &Path::Index(path, index)));
            }
            Node::Object(members) => {
                if let Some(double) = json::first_double(members.iter().map(|(key, _)| &**key)) {
                    self.fault(&Path::Key(path, double), "duplicate-key", "The field stands twice in its object");
                }
                for (key, node) in members {
                    self.free_text(key);
                    self.opaque(node, &Path::Key(path, key));
                }
            }
        }
    }
}

/// The field's place in the table as a bit, and the field. A table has at most 64 fields (a test sees to it).
pub(crate) fn lookup<'t>(table: &'t Table, key: &str) -> Option<(u64, &'t Field)> {
    let mut bit: u64 = 1;
    for field in table.fields {
        if field.name == key {
            return Some((bit, field));
        }
        bit = bit.wrapping_shl(1);
    }
    None
}

fn is_needed(need: Need, members: &[Member<'_>]) -> bool {
    match need {
        Need::Required => true,
        Need::Optional | Need::Identity => false,
        Need::RequiredIf { field, values } => {
            let sibling = members.iter().find(|(key, _)| key == field).and_then(|(_, node)| node.as_text());
            sibling.is_some_and(|value| values.contains(&value))
        }
    }
}

/// The currency that an object's amounts are in: its own where it has one, else that of the object around it. None where the text
/// that should be it is none, which is a fault of its own.
fn currency_of(table: &Table, members: &[Member<'_>], around: Option<Currency>) -> Option<Currency> {
    let Some(field) = table.fields.iter().find(|field| matches!(field.holds, Type::Currency)) else { return around };
    let (_, node) = members.iter().find(|(key, _)| key == field.name)?;
    Currency::from_code(node.as_text()?).ok()
}

/// Checks an amount. Where the currency is unknown, which is a fault of its own, only its form is.
fn amount(text: &str, currency: Option<Currency>) -> Result<(), MoneyError> {
    match currency {
        Some(currency) => money::minor_units(text, currency).map(drop),
        None => money::decimal(text).map(drop),
    }
}

/// Whether `text` is a `traceparent` of version 00: `00-32hex-16hex-2hex`, lower case.
pub fn is_trace_parent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    text.len() == 55
        && [2, 32, 16, 2]
            .into_iter()
            .all(|length| parts.next().is_some_and(|part| part.len() == length && is_hex(part)))
}

fn expected(holds: Type) -> &'static str {
    match holds {
        Type::Identifier
        | Type::Text
        | Type::OpenChoice(_)
        | Type::Choice(_)
        | Type::Gtin
        | Type::TraceParent
        | Type::Currency
        | Type::Date
        | Type::DateTime
        | Type::Instant => "a text",
        Type::Reference => "a text or a whole number",
        Type::Decimal | Type::Amount => "a decimal string such as \"4.49\"",
        Type::Integer => "a whole number",
        Type::Boolean => "true or false",
        Type::Object(_) => "an object",
        Type::List(_, _) => "a list of objects",
        Type::Texts(_) => "a list of texts",
        Type::Attributes => "an object of texts",
        Type::Opaque => "any value",
    }
}
