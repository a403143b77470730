//! The business rules that a transaction is judged by when it is accepted.
//!
//! Invariant: a rule never refuses; it flags. Amounts are compared exactly, with the tolerance that stands beside each rule, chosen
//! so that an honest till raises nothing. What does not count (training, suspended, canceled) is not judged.
//!
//! It deliberately knows neither other documents nor master data: over-returns and closed days are found by the agent and the hub.

use alloc::format;

use rust_decimal::Decimal;

use super::fold::{Line, LineKind, TenderState, Transaction};
use crate::record::facts::{TransactionStatus, TransactionType};
use crate::record::flag::{self, Flags};
use crate::record::unit;

impl Transaction<'_> {
    pub(crate) fn judge(&self, flags: &mut Flags) {
        if self.status != TransactionStatus::Finished || self.training_mode {
            return;
        }
        self.judge_totals(flags);
        self.judge_tenders(flags);
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| !line.voided) {
            if !line.adds_up(self.currency.places()) {
                flags.raise(flag::LINE_AMOUNT_MISMATCH, || format!("/line_items/{index}/extended_amount"));
            }
            if line.has_negative_price() {
                flags.raise(flag::NEGATIVE_PRICE, || format!("/line_items/{index}"));
            }
            if let Some(field) = line.wrong_sign()
                && self.tells != TransactionType::Void
            {
                flags.raise(flag::SIGN_MISMATCH, || format!("/line_items/{index}/{field}"));
            }
            if line.unit.is_some_and(|unit| unit::code_of(unit).is_none()) {
                flags.raise(flag::UNIT_UNKNOWN, || format!("/line_items/{index}/unit"));
            }
        }
    }

    /// The lines and the taxes that they do not hold make the gross total, to one minor unit per group of such taxes (systems round
    /// by line or by receipt). Net and tax make the gross total, to one minor unit per tax group, with or without the rounding lines.
    fn judge_totals(&self, flags: &mut Flags) {
        let sum_of = |kind: Option<LineKind>| {
            let lines = self.lines.iter().filter(|line| !line.voided && kind.is_none_or(|kind| line.kind == kind));
            lines.fold(0_i128, |sum, line| sum.saturating_add(line.extended_amount.into()))
        };
        let gross = i128::from(self.gross);
        let within = |sum: i128, tolerance: usize| {
            usize::try_from(sum.saturating_sub(gross).unsigned_abs()).is_ok_and(|difference| difference <= tolerance)
        };
        let lines = sum_of(None);
        let added = self.taxes.iter().filter(|group| group.any_not_included);
        let with_taxes = added.clone().fold(lines, |sum, group| sum.saturating_add(group.not_included.into()));
        // A till may state tax in its totals only.
        let stated = if self.taxes.is_empty() { self.tax.unwrap_or_default() } else { 0 };
        let mut adds_up = within(with_taxes, added.count()) || within(with_taxes.saturating_add(stated.into()), 0);
        if let (Some(net), Some(tax)) = (self.net, self.tax) {
            let sum = i128::from(net).saturating_add(tax.into());
            let groups = self.taxes.len();
            let rounding = sum_of(Some(LineKind::Rounding));
            adds_up &= within(sum, groups) || within(sum.saturating_add(rounding), groups);
        }
        if !adds_up {
            flags.raise(flag::TOTALS_MISMATCH, || "/totals/gross".into());
        }
    }

    /// What was paid, less what was given out, is the gross total. A payment of unknown state counts here, and is flagged itself.
    fn judge_tenders(&self, flags: &mut Flags) {
        let Some(tenders) = &self.tenders else { return };
        let mut sum: i128 = 0;
        for (index, tender) in tenders.iter().enumerate() {
            match tender.state {
                TenderState::CountsNot => continue,
                TenderState::Unknown => flags.raise(flag::TENDER_UNKNOWN, || format!("/tenders/{index}/state")),
                TenderState::Counts => {}
            }
            let is_change_taken_in = tender.means == "change" && tender.amount > 0;
            if is_change_taken_in && self.tells != TransactionType::Void {
                flags.raise(flag::SIGN_MISMATCH, || format!("/tenders/{index}/amount"));
            }
            sum = sum.saturating_add(tender.amount.into());
        }
        if sum != i128::from(self.gross) {
            flags.raise(flag::TENDER_MISMATCH, || "/tenders".into());
        }
    }
}

impl Line<'_> {
    /// `extended_amount` is after modifiers, and so is the actual price: quantity times actual price is the amount, to one minor unit
    /// after rounding. Where a modifier does not divide by the quantity, the actual price is itself rounded; then quantity times
    /// regular price and the modifiers have to make the amount.
    fn adds_up(&self, places: usize) -> bool {
        let (Some(quantity), Ok(places)) = (self.quantity, u32::try_from(places)) else { return true };
        let amount = |minor: i64| Decimal::try_new(minor, places).ok();
        let Some(extended) = amount(self.extended_amount) else { return true };
        // Rounding moves by half a minor unit, and one is tolerated beyond it.
        let Ok(tolerance) = Decimal::try_new(15, places.saturating_add(1)) else { return true };
        let matches = |price: Decimal, modifiers: Option<Decimal>| {
            let product =
                quantity.checked_mul(price).and_then(|product| product.checked_add(modifiers.unwrap_or_default()));
            let difference = product.and_then(|product| product.checked_sub(extended));
            difference.is_some_and(|difference| difference.abs() <= tolerance)
        };
        let by_actual_price = self.actual_unit_price.map(|price| matches(price, None));
        let by_regular_price = match (self.regular_unit_price, self.modifiers) {
            (Some(price), Some(modifiers)) => Some(matches(price, amount(modifiers))),
            _ => None,
        };
        match (by_actual_price, by_regular_price) {
            (None, None) => true,
            (actual, regular) => actual.unwrap_or_default() || regular.unwrap_or_default(),
        }
    }

    fn has_negative_price(&self) -> bool {
        let is_negative = |price: Option<Decimal>| price.is_some_and(|price| price < Decimal::ZERO);
        self.kind.is_priced() && (is_negative(self.actual_unit_price) || is_negative(self.regular_unit_price))
    }

    /// The field whose sign is not that of the line's kind. An amount that a negative price explains is no second finding.
    fn wrong_sign(&self) -> Option<&'static str> {
        let quantity = self.quantity.unwrap_or_default();
        let (wrong_quantity, wrong_amount) = match self.kind {
            LineKind::Sale => (quantity < Decimal::ZERO, self.extended_amount < 0),
            LineKind::Return => (quantity > Decimal::ZERO, self.extended_amount > 0),
            LineKind::GiftCard | LineKind::Rounding | LineKind::Other => (false, false),
        };
        match (wrong_quantity, wrong_amount && !self.has_negative_price()) {
            (true, _) => Some("quantity"),
            (false, true) => Some("extended_amount"),
            (false, false) => None,
        }
    }
}

impl LineKind {
    /// Whether its price is one of goods, which is never below zero; deposits and discounts given as lines of another kind may be.
    fn is_priced(self) -> bool {
        match self {
            LineKind::Sale | LineKind::Return | LineKind::GiftCard => true,
            LineKind::Rounding | LineKind::Other => false,
        }
    }
}
