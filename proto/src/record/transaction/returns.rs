//! Returns against a receipt: what a line gives back, and what the receipt that it names had sold.
//!
//! Invariant: quantities are compared per receipt, item and unit; a receipt may hold an item on many lines, and a till that names
//! the line as well is treated alike. It deliberately does not know which receipts exist: the agent looks them up.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rust_decimal::Decimal;

use super::fold::{Line, LineKind, Transaction};
use crate::record::facts::{ReturnLine, TransactionType};
use crate::record::read::Fields;
use crate::record::ties::GoodsLine;
use crate::record::{identity_of_document, identity_of_transaction, unit};

impl Transaction<'_> {
    /// The lines that give goods back against a receipt. A line without a link of its own has that of the transaction.
    pub(super) fn returns(&self) -> Vec<ReturnLine> {
        if !self.counts() || self.tells == TransactionType::Void {
            return Vec::new();
        }
        let lines = self.lines.iter().enumerate().filter(|(_, line)| !line.voided && line.kind == LineKind::Return);
        lines.filter_map(|(index, line)| line.given_back(index, line.link.or(self.link)?)).collect()
    }

    /// Whether it reverses what its links name.
    pub(crate) fn is_void(&self) -> bool {
        self.counts() && self.tells == TransactionType::Void
    }

    /// See [`crate::record::ties::Ties::goods`]. Rounding is no goods, whatever it says.
    pub(crate) fn goods(&self) -> Vec<GoodsLine> {
        if !self.counts() || self.tells == TransactionType::Void {
            return Vec::new();
        }
        let lines = self.lines.iter().enumerate().filter(|(_, line)| !line.voided && line.kind != LineKind::Rounding);
        let goods = lines.filter_map(|(index, line)| {
            let (item_id, unit) = (line.item_id?.to_string(), unit::code_or_text(line.unit));
            let quantity = line.quantity.filter(|quantity| !quantity.is_zero())?;
            Some(GoodsLine { index, item_id, unit, unit_price: line.actual_unit_price, quantity })
        });
        goods.collect()
    }

    /// See [`crate::record::facts::sold_quantity`].
    pub(crate) fn sold_quantity(&self, item_id: &str, unit: &str) -> Option<Decimal> {
        if !self.counts() || self.tells == TransactionType::Void {
            return Some(Decimal::ZERO);
        }
        let of_item = self.lines.iter().filter(|line| {
            !line.voided && line.kind == LineKind::Sale && line.item_id == Some(item_id) && line.quantity.is_some()
        });
        let mut in_unit = of_item.clone().filter(|line| unit::code_or_text(line.unit) == unit).peekable();
        if in_unit.peek().is_none() && of_item.count() > 0 {
            return None;
        }
        Some(in_unit.filter_map(|line| line.quantity).fold(Decimal::ZERO, Decimal::saturating_add))
    }
}

impl Line<'_> {
    fn given_back(&self, index: usize, link: Fields<'_>) -> Option<ReturnLine> {
        let quantity = Decimal::ZERO.checked_sub(self.quantity?)?;
        (quantity > Decimal::ZERO).then_some(())?;
        Some(ReturnLine {
            index,
            store_id: link.text("store_id").map(ToString::to_string),
            identity: identity_of_link(link)?,
            item_id: self.item_id?.to_string(),
            unit: unit::code_or_text(self.unit),
            quantity,
        })
    }
}

/// What a link names; `None` for the line of an online order, which no till recorded.
pub(crate) fn identity_of_link(link: Fields<'_>) -> Option<String> {
    if let Some(document_id) = link.text("document_id") {
        return Some(identity_of_document(document_id));
    }
    Some(identity_of_transaction(
        link.text("workstation_id")?,
        link.text("business_day_date")?,
        link.integer("sequence_number")?,
        link.integer("sequence_epoch").unwrap_or_default(),
    ))
}
