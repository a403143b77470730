//! Typed reading of a document's fields: what the facts and the business rules of every kind are made of.
//!
//! Invariant: submitted and stored documents are read by the same code. A document that passed the check gives no error here, and
//! one out of a store, whoever wrote it, gives an error and never a panic.

use rust_decimal::Decimal;

use super::facts::FactsError;
use super::json::Node;
use crate::money::{self, Currency};

/// An object's fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'n>(pub(crate) &'n Node<'n>);

impl<'n> Fields<'n> {
    pub(crate) fn text(self, field: &str) -> Option<&'n str> {
        self.0.get(field)?.as_text()
    }

    pub(crate) fn required_text(self, field: &'static str) -> Result<&'n str, FactsError> {
        self.text(field).ok_or(FactsError::Field { field })
    }

    pub(crate) fn integer(self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    /// `false` where it is absent.
    pub(crate) fn flag(self, field: &str) -> bool {
        matches!(self.0.get(field), Some(Node::Bool(true)))
    }

    pub(crate) fn decimal(self, field: &'static str) -> Result<Option<Decimal>, FactsError> {
        self.parsed(field, |text| money::decimal(text).ok())
    }

    pub(crate) fn required_decimal(self, field: &'static str) -> Result<Decimal, FactsError> {
        self.decimal(field)?.ok_or(FactsError::Field { field })
    }

    pub(crate) fn amount(self, field: &'static str, currency: Currency) -> Result<Option<i64>, FactsError> {
        self.parsed(field, |text| money::minor_units(text, currency).ok())
    }

    pub(crate) fn required_amount(self, field: &'static str, currency: Currency) -> Result<i64, FactsError> {
        self.amount(field, currency)?.ok_or(FactsError::Field { field })
    }

    pub(crate) fn currency(self, field: &'static str) -> Result<Currency, FactsError> {
        Currency::from_code(self.required_text(field)?).map_err(|_| FactsError::Field { field })
    }

    fn parsed<T>(self, field: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, FactsError> {
        match self.0.get(field) {
            None => Ok(None),
            Some(node) => node.as_text().and_then(parse).map(Some).ok_or(FactsError::Field { field }),
        }
    }

    pub(crate) fn object(self, field: &str) -> Option<Fields<'n>> {
        self.0.get(field).map(Fields)
    }

    /// The items of a list; `None` where it is absent.
    pub(crate) fn list(self, field: &str) -> Option<&'n [Node<'n>]> {
        match self.0.get(field)? {
            Node::List(list) => Some(list),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::Object(_) => None,
        }
    }

    /// The items of a list, none where it is absent.
    pub(crate) fn items(self, field: &str) -> impl Iterator<Item = Fields<'n>> + use<'n> {
        self.list(field).unwrap_or_default().iter().map(Fields)
    }
}
