//! The business rules that a transaction is judged by when it is accepted.
//!
//! Invariant: a rule never refuses; it flags. Amounts are compared exactly, with the tolerance that stands beside each rule, chosen
//! so that an honest till raises nothing. What does not count (training, suspended, canceled) is not judged.
//!
//! It deliberately knows neither other documents nor master data: over-returns and closed days are found by the agent and the hub.

use alloc::format;
use alloc::vec::Vec;

use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive as _;

use super::fold::{Line, LineKind, TaxGroup, Tender, TenderState, Transaction};
use crate::record::facts::{TransactionStatus, TransactionType};
use crate::record::flag::{self, Flags};
use crate::record::{gtin, unit};

impl Transaction<'_> {
    pub(crate) fn judge(&self, flags: &mut Flags) {
        if self.status != TransactionStatus::Finished || self.training_mode {
            return;
        }
        self.judge_type(flags);
        self.judge_totals(flags);
        self.judge_taxes(flags);
        self.judge_tenders(flags);
        self.judge_rounding(flags);
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
            if line.gtin.is_some_and(gtin::has_wrong_check_digit) {
                flags.raise(flag::GTIN_CHECK_DIGIT, || format!("/line_items/{index}/gtin"));
            }
            if line.kind == LineKind::Return && self.tells != TransactionType::Void && line.link.or(self.link).is_none()
            {
                flags.raise_each(flag::UNLINKED_RETURN, || format!("/line_items/{index}"));
            }
        }
    }

    /// What it calls itself is what it does, and it does something. A no-sale is judged by its amounts alone.
    fn judge_type(&self, flags: &mut Flags) {
        let first = |kind: LineKind| self.lines.iter().position(|line| !line.voided && line.kind == kind);
        let stray = match self.tells {
            TransactionType::Sale => first(LineKind::Return),
            TransactionType::Return => first(LineKind::Sale),
            TransactionType::Exchange | TransactionType::Void | TransactionType::NoSale => None,
        };
        if let Some(index) = stray {
            flags.raise(flag::TYPE_MISMATCH, || format!("/line_items/{index}/kind"));
        }
        let is_empty = self.lines.is_empty() && self.tenders.as_ref().is_none_or(Vec::is_empty);
        if is_empty && self.tells != TransactionType::NoSale && self.tells != TransactionType::Void {
            flags.raise(flag::EMPTY_TRANSACTION, || "/line_items".into());
        }
        let is_linked = self.link.is_some() || self.lines.iter().any(|line| line.link.is_some());
        if self.tells == TransactionType::Void && !is_linked {
            flags.raise(flag::VOID_UNLINKED, || "/transaction_link".into());
        }
    }

    /// Each tax is what its rate makes of its base, to one minor unit per line (systems round by line or by receipt); a base that
    /// contains the tax is understood too. The taxes of the lines are the tax of the totals, to one minor unit per group.
    fn judge_taxes(&self, flags: &mut Flags) {
        for group in &self.taxes {
            if group.any_included && group.any_not_included {
                flags.raise(flag::TAX_BASIS_MIXED, || "/line_items".into());
            }
            if group.has_base && !group.adds_up() {
                flags.raise(flag::TAX_MISMATCH, || "/line_items".into());
            }
        }
        let Some(total) = self.tax.filter(|_| !self.taxes.is_empty()) else { return };
        let sum = self.taxes.iter().fold(0_i128, |sum, group| sum.saturating_add(group.amount.into()));
        let difference = sum.saturating_sub(total.into()).unsigned_abs();
        if usize::try_from(difference).map_or(true, |difference| difference > self.taxes.len()) {
            flags.raise(flag::TAX_MISMATCH, || "/totals/tax".into());
        }
    }

    /// Rounding is for cash, and by less than the smallest amount that can be paid in it (a system may round either way).
    fn judge_rounding(&self, flags: &mut Flags) {
        let rounding =
            || self.lines.iter().enumerate().filter(|(_, line)| !line.voided && line.kind == LineKind::Rounding);
        let Some((index, _)) = rounding().next() else { return };
        let sum = rounding().fold(0_i64, |sum, (_, line)| sum.saturating_add(line.extended_amount));
        let is_cash = |tender: &Tender<'_>| matches!(tender.means, "cash" | "foreign_cash" | "change");
        let paid_in_cash = self.tenders.as_ref().is_none_or(|tenders| tenders.iter().any(is_cash));
        if sum != 0 && (!paid_in_cash || sum.unsigned_abs() >= self.currency.cash_step()) {
            flags.raise(flag::ROUNDING_UNEXPECTED, || format!("/line_items/{index}/extended_amount"));
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
                TenderState::Unknown => flags.raise(flag::PAYMENT_UNKNOWN, || format!("/tenders/{index}/state")),
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

impl TaxGroup<'_> {
    fn adds_up(&self) -> bool {
        let hundred = Decimal::ONE_HUNDRED;
        let (Some(lines), Some(whole)) = (Decimal::from_usize(self.lines), hundred.checked_add(self.rate)) else {
            return true;
        };
        // Rounding moves by half a minor unit, and one per line is tolerated beyond it.
        let tolerance = lines.saturating_add(Decimal::new(5, 1));
        let is_near = |percent: Decimal| {
            let product = self.rate.checked_mul(Decimal::from(self.taxable_amount));
            let expected = product.and_then(|product| product.checked_div(percent));
            let difference = expected.and_then(|expected| expected.checked_sub(Decimal::from(self.amount)));
            difference.is_none_or(|difference| difference.abs() <= tolerance)
        };
        is_near(hundred) || (self.any_included && is_near(whole))
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
