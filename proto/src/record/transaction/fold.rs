//! A transaction, read into types, and what it does to stock and totals.
//!
//! Invariant: what must not count does not: training, suspended, canceled and no-sale documents move no stock, voided lines
//! and declined or reversed tenders are in no sum.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use rust_decimal::Decimal;

use super::TAKE_WITH;
use crate::money::Currency;
use crate::record::Envelope;
use crate::record::facts::{
    FactsError, StockChange, TaxSum, TenderSum, TransactionFacts, TransactionStatus, TransactionType,
};
use crate::record::read::Fields;
use crate::record::unit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Sale,
    Return,
    GiftCard,
    Rounding,
    /// Deposits, fees, tips, donations, others: both signs are honest, and they are no goods.
    Other,
}

#[derive(Debug)]
pub(super) struct Line<'n> {
    pub(super) kind: LineKind,
    pub(super) voided: bool,
    pub(super) item_id: Option<&'n str>,
    pub(super) gtin: Option<&'n str>,
    pub(super) quantity: Option<Decimal>,
    pub(super) unit: Option<&'n str>,
    pub(super) regular_unit_price: Option<Decimal>,
    pub(super) actual_unit_price: Option<Decimal>,
    pub(super) extended_amount: i64,
    /// Their sum, where there are any.
    pub(super) modifiers: Option<i64>,
    pub(super) takes_with: bool,
    pub(super) link: Option<Fields<'n>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct TaxGroup<'n> {
    pub(super) category: &'n str,
    pub(super) rate: Decimal,
    pub(super) taxable_amount: i64,
    pub(super) amount: i64,
    pub(super) not_included: i64,
    pub(super) any_not_included: bool,
    pub(super) any_included: bool,
    /// Of how many lines.
    pub(super) lines: usize,
    /// Whether each line says what the tax is on.
    pub(super) has_base: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TenderState {
    Counts,
    Unknown,
    CountsNot,
}

#[derive(Debug)]
pub(super) struct Tender<'n> {
    pub(super) means: &'n str,
    pub(super) amount: i64,
    pub(super) state: TenderState,
}

/// A transaction, read.
#[derive(Debug)]
pub(crate) struct Transaction<'n> {
    pub(super) workstation_id: &'n str,
    pub(crate) sequence_number: Option<u64>,
    pub(crate) sequence_epoch: u64,
    pub(super) tells: TransactionType,
    pub(super) status: TransactionStatus,
    pub(super) training_mode: bool,
    pub(super) currency: Currency,
    pub(super) lines: Vec<Line<'n>>,
    /// Of the lines that are not voided.
    pub(super) taxes: Vec<TaxGroup<'n>>,
    pub(super) tenders: Option<Vec<Tender<'n>>>,
    pub(super) gross: i64,
    pub(super) net: Option<i64>,
    pub(super) tax: Option<i64>,
    pub(super) link: Option<Fields<'n>>,
}

impl<'n> Transaction<'n> {
    pub(crate) fn read(fields: Fields<'n>) -> Result<Self, FactsError> {
        let currency = fields.currency("currency_code")?;
        let mut taxes = BTreeMap::new();
        let lines =
            fields.items("line_items").map(|line| Line::read(line, currency, &mut taxes)).collect::<Result<_, _>>()?;
        let tenders = match fields.list("tenders") {
            Some(list) => Some(list.iter().map(|node| Tender::read(Fields(node), currency)).collect::<Result<_, _>>()?),
            None => None,
        };
        let totals = fields.object("totals").ok_or(FactsError::Field { field: "totals" })?;
        Ok(Self {
            workstation_id: fields.required_text("workstation_id")?,
            sequence_number: fields.integer("sequence_number"),
            sequence_epoch: fields.integer("sequence_epoch").unwrap_or_default(),
            tells: transaction_type(fields.required_text("type")?)?,
            status: status(fields.text("status"))?,
            training_mode: fields.flag("training_mode"),
            currency,
            lines,
            taxes: taxes.into_values().collect(),
            tenders,
            gross: totals.required_amount("gross", currency)?,
            net: totals.amount("net", currency)?,
            tax: totals.amount("tax", currency)?,
            link: fields.object("transaction_link"),
        })
    }

    /// Whether it may move stock: finished, no training, no mere opening of the drawer.
    pub(super) fn counts(&self) -> bool {
        self.status == TransactionStatus::Finished && !self.training_mode && self.tells != TransactionType::NoSale
    }

    pub(crate) fn facts(&self, envelope: &Envelope) -> Result<TransactionFacts, FactsError> {
        let taxes = self.taxes.iter().map(|group| TaxSum {
            category: group.category.to_string(),
            rate: group.rate,
            taxable_amount: group.taxable_amount,
            amount: group.amount,
        });
        Ok(TransactionFacts {
            workstation_id: self.workstation_id.to_string(),
            business_day_date: envelope
                .business_day_date
                .clone()
                .ok_or(FactsError::Field { field: "business_day_date" })?,
            sequence_number: self.sequence_number,
            sequence_epoch: self.sequence_epoch,
            transaction_type: self.tells,
            status: self.status,
            training_mode: self.training_mode,
            currency_code: self.currency.code().to_string(),
            gross: self.gross,
            net: self.net,
            tax: self.tax,
            taxes: taxes.collect(),
            tenders: self.tender_sums(),
            stock: if self.counts() { self.lines.iter().filter_map(Line::stock_change).collect() } else { Vec::new() },
            returns: self.returns(),
            ended_at: envelope.occurred_at.ok_or(FactsError::Field { field: "end_date_time" })?,
        })
    }

    fn tender_sums(&self) -> Vec<TenderSum> {
        let mut sums: Vec<TenderSum> = Vec::new();
        let counted = self.tenders.iter().flatten().filter(|tender| tender.state != TenderState::CountsNot);
        for tender in counted {
            match sums.iter_mut().find(|sum| sum.tender_type == tender.means) {
                Some(sum) => sum.amount = sum.amount.saturating_add(tender.amount),
                None => sums.push(TenderSum { tender_type: tender.means.to_string(), amount: tender.amount }),
            }
        }
        sums
    }
}

fn transaction_type(text: &str) -> Result<TransactionType, FactsError> {
    Ok(match text {
        "sale" => TransactionType::Sale,
        "return" => TransactionType::Return,
        "exchange" => TransactionType::Exchange,
        "void" => TransactionType::Void,
        "no_sale" => TransactionType::NoSale,
        _ => return Err(FactsError::Field { field: "type" }),
    })
}

fn status(text: Option<&str>) -> Result<TransactionStatus, FactsError> {
    Ok(match text {
        None | Some("finished") => TransactionStatus::Finished,
        Some("suspended") => TransactionStatus::Suspended,
        Some("canceled") => TransactionStatus::Canceled,
        Some(_) => return Err(FactsError::Field { field: "status" }),
    })
}

/// Taxes by category and rate; 20 and 20.0 are one rate.
type TaxGroups<'n> = BTreeMap<(&'n str, Decimal), TaxGroup<'n>>;

impl<'n> Line<'n> {
    fn read(fields: Fields<'n>, currency: Currency, taxes: &mut TaxGroups<'n>) -> Result<Self, FactsError> {
        let voided = fields.flag("voided");
        if !voided {
            fields.items("taxes").try_for_each(|tax| add_tax(tax, currency, taxes))?;
        }
        let mut modifiers: Option<i64> = None;
        for modifier in fields.items("modifiers") {
            let amount = modifier.required_amount("amount", currency)?;
            modifiers = Some(modifiers.unwrap_or_default().saturating_add(amount));
        }
        let kind = match fields.required_text("kind")? {
            "sale" => LineKind::Sale,
            "return" => LineKind::Return,
            "gift_card" => LineKind::GiftCard,
            "rounding" => LineKind::Rounding,
            _ => LineKind::Other,
        };
        let fulfillment = fields.object("fulfillment").and_then(|fulfillment| fulfillment.text("type"));
        Ok(Self {
            kind,
            voided,
            item_id: fields.text("item_id"),
            gtin: fields.text("gtin"),
            quantity: fields.decimal("quantity")?,
            unit: fields.text("unit"),
            regular_unit_price: fields.decimal("regular_unit_price")?,
            actual_unit_price: fields.decimal("actual_unit_price")?,
            extended_amount: fields.required_amount("extended_amount", currency)?,
            modifiers,
            takes_with: fulfillment.is_none_or(|how| how == TAKE_WITH),
            link: fields.object("transaction_link"),
        })
    }

    fn stock_change(&self) -> Option<StockChange> {
        let is_goods = matches!(self.kind, LineKind::Sale | LineKind::Return);
        if self.voided || !is_goods || !self.takes_with {
            return None;
        }
        Some(StockChange {
            item_id: self.item_id?.to_string(),
            unit: unit::code_or_text(self.unit),
            delta: Decimal::ZERO.checked_sub(self.quantity?)?,
        })
    }
}

fn add_tax<'n>(fields: Fields<'n>, currency: Currency, taxes: &mut TaxGroups<'n>) -> Result<(), FactsError> {
    let category = fields.text("category").unwrap_or_default();
    let rate = fields.decimal("rate")?;
    let has_rate = rate.is_some();
    let rate = rate.unwrap_or_default();
    let amount = fields.required_amount("amount", currency)?;
    let taxable_amount = fields.amount("taxable_amount", currency)?;
    let group = taxes.entry((category, rate)).or_insert(TaxGroup {
        category,
        rate,
        taxable_amount: 0,
        amount: 0,
        not_included: 0,
        any_not_included: false,
        any_included: false,
        lines: 0,
        has_base: has_rate,
    });
    group.lines = group.lines.saturating_add(1);
    group.has_base &= taxable_amount.is_some();
    group.taxable_amount = group.taxable_amount.saturating_add(taxable_amount.unwrap_or_default());
    group.amount = group.amount.saturating_add(amount);
    if fields.flag("included") {
        group.any_included = true;
    } else {
        group.not_included = group.not_included.saturating_add(amount);
        group.any_not_included = true;
    }
    Ok(())
}

/// The taxes of a declared total, by category and rate.
pub(crate) fn tax_sums(fields: Fields<'_>, currency: Currency) -> Result<Vec<TaxSum>, FactsError> {
    let mut taxes = BTreeMap::new();
    fields.items("taxes").try_for_each(|tax| add_tax(tax, currency, &mut taxes))?;
    Ok(taxes
        .into_values()
        .map(|group| TaxSum {
            category: group.category.to_string(),
            rate: group.rate,
            taxable_amount: group.taxable_amount,
            amount: group.amount,
        })
        .collect())
}

impl<'n> Tender<'n> {
    fn read(fields: Fields<'n>, currency: Currency) -> Result<Self, FactsError> {
        let state = match fields.text("state") {
            None | Some("approved" | "offline_approved") => TenderState::Counts,
            Some("declined" | "reversed") => TenderState::CountsNot,
            Some("unknown") => TenderState::Unknown,
            Some(_) => return Err(FactsError::Field { field: "state" }),
        };
        Ok(Self { means: fields.required_text("type")?, amount: fields.required_amount("amount", currency)?, state })
    }
}
