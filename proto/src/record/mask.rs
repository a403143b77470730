//! Masking a document: the card numbers in those of its texts that name nothing.
//!
//! Invariant: after it, the walk of [`super::inspect`] finds no card number in free text any more, whatever the document holds:
//! unknown fields, their names, and numbers in them included.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};

use super::card::CardRule;
use super::gtin;
use super::inspect::{Path, is_trace_parent, lookup};
use super::json::{Member, Node};
use super::schema::{Table, Type};

/// A number with its digits masked, where they are those of a card: tills do write cards as numbers.
pub(crate) fn masked_number(number: &serde_json::Number, rule: &CardRule) -> Option<String> {
    let text = match number.as_f64() {
        // Doubles from 2^53 on lose digits, but a card number below 10^16 survives as a double too.
        Some(value) if number.is_f64() => format!("{value}"),
        _ => number.to_string(),
    };
    if text.contains('.') { None } else { rule.masked(&text) }
}

/// Masks the card numbers in the texts of `root` that name nothing, and says where the first one was.
///
/// Identifiers need no masking: a card number in one refuses the document. So do numbers in known fields.
pub(crate) fn mask(root: &mut Node<'_>, table: &Table, rule: &CardRule) -> String {
    let mut masking = Masking { rule, first: None };
    if let Node::Object(members) = root {
        masking.object(Some(table), members, &Path::Root);
    }
    masking.first.unwrap_or_default()
}

struct Masking<'r> {
    rule: &'r CardRule,
    first: Option<String>,
}

impl Masking<'_> {
    fn note(&mut self, path: &Path<'_>) {
        if self.first.is_none() {
            self.first = Some(path.pointer());
        }
    }

    fn object(&mut self, table: Option<&Table>, members: &mut [Member<'_>], path: &Path<'_>) {
        for index in 0..members.len() {
            let Some((key, _)) = members.get(index) else { continue };
            let field = table.and_then(|table| lookup(table, key)).map(|(_, field)| field);
            let masked_key = if field.is_none() { self.rule.masked(key) } else { None };
            if let Some(mut masked) = masked_key {
                self.note(path);
                // Two cards with the same last digits must not become one key.
                while members.iter().any(|(other, _)| *other == masked) {
                    masked.insert(0, '*');
                }
                if let Some((key, _)) = members.get_mut(index) {
                    *key = Cow::Owned(masked);
                }
            }
            let Some((key, node)) = members.get_mut(index) else { continue };
            let key = key.clone().into_owned();
            self.value(field.map(|field| field.holds), node, &Path::Key(path, &key));
        }
    }

    fn value(&mut self, holds: Option<Type>, node: &mut Node<'_>, path: &Path<'_>) {
        match (holds, &mut *node) {
            (Some(Type::Gtin), Node::Text(text)) if gtin::is_gtin(text) => {}
            (Some(Type::TraceParent), Node::Text(text)) if is_trace_parent(text) => {}
            (_, Node::Null | Node::Bool(_)) => {}
            (Some(holds), _) if !holds.is_free() => {}
            (_, Node::Text(text)) => {
                if let Some(masked) = self.rule.masked(text) {
                    self.note(path);
                    *text = Cow::Owned(masked);
                }
            }
            (_, Node::Number(number)) => {
                if let Some(masked) = masked_number(number, self.rule) {
                    self.note(path);
                    *node = Node::Text(Cow::Owned(masked));
                }
            }
            (holds, Node::List(list)) => {
                let each = match holds {
                    Some(Type::List(table, _)) => Some(Type::Object(table)),
                    other => other,
                };
                for (index, node) in list.iter_mut().enumerate() {
                    self.value(each, node, &Path::Index(path, index));
                }
            }
            (Some(Type::Object(table)), Node::Object(members)) => self.object(Some(table), members, path),
            (_, Node::Object(members)) => self.object(None, members, path),
        }
    }
}
