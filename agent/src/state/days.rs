//! Totals and closes of the business days that the store works on.
//!
//! Invariant: only transactions that count move a sum; what does not count is counted beside. A day whose totals were given up stays
//! known as gone, so that a remainder is never shown as the whole. This file does not know about conflicts' other documents
//! nor judges a close: the hub compares.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::record::facts::{DayCloseFacts, TransactionFacts, TransactionStatus, TransactionType};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::date::Date;
use super::dirty::Dirty;
use super::exceptions::local;
use super::limits::{
    CLOSES_PER_DAY_MAX, CURRENCIES_PER_TILL_MAX, DAYS_GONE_MAX, DAYS_MAX, NAME_BYTES_MAX, TAXES_PER_TILL_MAX,
    TENDERS_PER_CLOSE_MAX, TENDERS_PER_TILL_MAX, TILLS_GONE_MAX, TILLS_PER_DAY_MAX, WORD_BYTES_MAX,
};
use super::rows::RowKey;
use super::word::{Word, decimal};

/// Why a transaction is not in the totals. The order is the order on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCounted {
    Conflict,
    Training,
    Suspended,
    Canceled,
    NoSale,
}

impl NotCounted {
    pub(super) const ALL: [Self; 5] = [Self::Conflict, Self::Training, Self::Suspended, Self::Canceled, Self::NoSale];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflicts",
            Self::Training => "training",
            Self::Suspended => "suspended",
            Self::Canceled => "canceled",
            Self::NoSale => "no_sale",
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Conflict => 0,
            Self::Training => 1,
            Self::Suspended => 2,
            Self::Canceled => 3,
            Self::NoSale => 4,
        }
    }

    fn of(facts: &TransactionFacts) -> Option<Self> {
        if facts.training_mode {
            return Some(Self::Training);
        }
        match (facts.status, facts.transaction_type) {
            (TransactionStatus::Suspended, _) => Some(Self::Suspended),
            (TransactionStatus::Canceled, _) => Some(Self::Canceled),
            (TransactionStatus::Finished, TransactionType::NoSale) => Some(Self::NoSale),
            (TransactionStatus::Finished, _) => None,
        }
    }
}

/// Tax of one category and rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tax {
    pub(super) category: Word,
    #[serde(with = "decimal")]
    pub(super) rate: Decimal,
    pub(super) taxable_amount: i64,
    pub(super) amount: i64,
}

/// Totals of one till in one currency on one day; amounts in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Till {
    pub(super) transactions: u64,
    pub(super) gross: i64,
    pub(super) net: i64,
    pub(super) tax: i64,
    /// By category and rate, in that order.
    pub(super) taxes: Vec<Tax>,
    pub(super) tenders: BTreeMap<Word, i64>,
    /// Sequence epoch and number of the first and of the last transaction, counted or not, by the till's own order.
    pub(super) span: Option<((u64, u64), (u64, u64))>,
    pub(super) not_counted: [u64; NotCounted::ALL.len()],
}

/// What was declared for one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Declared {
    pub(super) currency_code: Word,
    pub(super) transactions: u64,
    pub(super) gross: i64,
    pub(super) tenders: BTreeMap<Word, i64>,
}

/// A close as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Close {
    /// `None` where the whole store closed.
    pub(super) workstation_id: Option<Box<str>>,
    pub(super) recorded_at: WallTime,
    pub(super) declared: Vec<Declared>,
}

/// One business day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Day {
    /// Grows with each change from day to day: the smallest goes first.
    pub(super) touched: u64,
    /// By till and currency.
    pub(super) tills: BTreeMap<Box<str>, BTreeMap<Box<str>, Till>>,
    pub(super) closes: Vec<Close>,
}

/// A day whose totals were given up, by who had closed it. The stored forms of the first two are those of `false` and `true`, which
/// earlier versions wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum DayGone {
    /// Nobody.
    Open,
    /// The store, or more tills than are named.
    Closed,
    /// These tills.
    ClosedBy(BTreeSet<Box<str>>),
}

impl DayGone {
    fn of(day: &Day) -> Self {
        let tills: Option<BTreeSet<Box<str>>> = day.closes.iter().map(|close| close.workstation_id.clone()).collect();
        match tills {
            Some(tills) if tills.is_empty() => Self::Open,
            Some(tills) if tills.len() <= TILLS_GONE_MAX => Self::ClosedBy(tills),
            Some(_) | None => Self::Closed,
        }
    }

    fn is_closed(&self, workstation_id: Option<&str>) -> bool {
        match self {
            Self::Open => false,
            Self::Closed => true,
            Self::ClosedBy(tills) => workstation_id.is_some_and(|till| tills.contains(till)),
        }
    }
}

/// The tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) kept: BTreeMap<Date, Day>,
    pub(super) gone: BTreeMap<Date, DayGone>,
    /// The `touched` of the day that was touched last.
    pub(super) touched: u64,
}

impl Days {
    /// Takes a transaction in.
    pub(super) fn transaction(
        &mut self,
        facts: &TransactionFacts,
        conflict: bool,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) {
        let Some(date) = self.touch(&facts.business_day_date, dirty, found) else { return };
        let (workstation_id, currency_code) = (facts.workstation_id.as_str(), facts.currency_code.as_str());
        let Some(till) = self.till(date, workstation_id, currency_code, found) else { return };
        let not_counted = if conflict { Some(NotCounted::Conflict) } else { NotCounted::of(facts) };
        if let Some(sequence_number) = facts.sequence_number.filter(|_| !conflict) {
            let number = (facts.sequence_epoch, sequence_number);
            let (first, last) = till.span.unwrap_or((number, number));
            till.span = Some((first.min(number), last.max(number)));
        }
        if let Some(reason) = not_counted {
            if let Some(count) = till.not_counted.get_mut(reason.index()) {
                *count = count.saturating_add(1);
            }
        } else {
            till.count(facts, found);
        }
        dirty.mark(&RowKey::Till { date, workstation_id, currency_code });
    }

    /// Takes a declared close in; gives its day and which of the day's closes it is.
    pub(super) fn close(
        &mut self,
        facts: &DayCloseFacts,
        at: WallTime,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) -> Option<(Date, u32)> {
        let date = self.touch(&facts.business_day_date, dirty, found)?;
        let day = self.kept.get_mut(&date)?;
        let name_too_long = facts.workstation_id.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX);
        if day.closes.len() >= CLOSES_PER_DAY_MAX || name_too_long {
            found.push(local::DAY_TOTALS_LIMIT);
            return None;
        }
        let mut declared = Vec::with_capacity(facts.declared.len().min(CURRENCIES_PER_TILL_MAX));
        let mut tenders_left = TENDERS_PER_CLOSE_MAX;
        for totals in &facts.declared {
            if declared.len() >= CURRENCIES_PER_TILL_MAX || totals.currency_code.len() > WORD_BYTES_MAX {
                found.push(local::DAY_TOTALS_LIMIT);
                continue;
            }
            let mut tenders = BTreeMap::new();
            for tender in &totals.tenders {
                add_tender(&mut tenders, tenders_left, &tender.tender_type, tender.amount, found);
            }
            tenders_left = tenders_left.saturating_sub(tenders.len());
            let currency_code = Word::of(&totals.currency_code);
            declared.push(Declared { currency_code, transactions: totals.transactions, gross: totals.gross, tenders });
        }
        let index = u32::try_from(day.closes.len()).unwrap_or(u32::MAX);
        day.closes.push(Close {
            workstation_id: facts.workstation_id.as_deref().map(Into::into),
            recorded_at: at,
            declared,
        });
        dirty.mark(&RowKey::Close { date, index });
        Some((date, index))
    }

    /// Whether the store or that till has closed the day.
    pub(super) fn is_closed(&self, business_day_date: &str, workstation_id: Option<&str>) -> bool {
        let Some(date) = Date::parse(business_day_date) else { return false };
        if self.gone.get(&date).is_some_and(|gone| gone.is_closed(workstation_id)) {
            return true;
        }
        self.kept.get(&date).is_some_and(|day| {
            day.closes
                .iter()
                .any(|close| close.workstation_id.is_none() || close.workstation_id.as_deref() == workstation_id)
        })
    }

    /// The day's date, once the day is there and known as the one in use.
    fn touch(&mut self, business_day_date: &str, dirty: &mut Dirty, found: &mut Vec<&'static str>) -> Option<Date> {
        let date = Date::parse(business_day_date);
        let Some(date) = date.filter(|date| !self.gone.contains_key(date)) else {
            found.push(local::DAY_NOT_KEPT);
            return None;
        };
        let touched = self.touched;
        let day = self.kept.entry(date).or_default();
        if touched == 0 || day.touched != touched {
            self.touched = touched.saturating_add(1);
            day.touched = self.touched;
            dirty.mark(&RowKey::Day(date));
            self.give_up_surplus(dirty);
        }
        Some(date)
    }

    fn give_up_surplus(&mut self, dirty: &mut Dirty) {
        if self.kept.len() <= DAYS_MAX {
            return;
        }
        let Some(date) = self.kept.iter().min_by_key(|(_, day)| day.touched).map(|(date, _)| *date) else { return };
        let Some(day) = self.kept.remove(&date) else { return };
        dirty.mark(&RowKey::Day(date));
        for (workstation_id, currencies) in &day.tills {
            for currency_code in currencies.keys() {
                dirty.mark(&RowKey::Till { date, workstation_id, currency_code });
            }
        }
        for index in 0..u32::try_from(day.closes.len()).unwrap_or(u32::MAX) {
            dirty.mark(&RowKey::Close { date, index });
        }
        self.gone.insert(date, DayGone::of(&day));
        dirty.mark(&RowKey::DayGone(date));
        if self.gone.len() > DAYS_GONE_MAX
            && let Some((forgotten, _)) = self.gone.pop_first()
        {
            dirty.mark(&RowKey::DayGone(forgotten));
        }
    }

    fn till(
        &mut self,
        date: Date,
        workstation_id: &str,
        currency_code: &str,
        found: &mut Vec<&'static str>,
    ) -> Option<&mut Till> {
        let day = self.kept.get_mut(&date)?;
        let too_long = workstation_id.len() > NAME_BYTES_MAX || currency_code.len() > WORD_BYTES_MAX;
        let tills = day.tills.len();
        let currencies = day.tills.get(workstation_id);
        let full = match currencies {
            None => tills >= TILLS_PER_DAY_MAX,
            Some(currencies) => !currencies.contains_key(currency_code) && currencies.len() >= CURRENCIES_PER_TILL_MAX,
        };
        if too_long || full {
            found.push(local::DAY_TOTALS_LIMIT);
            return None;
        }
        if currencies.is_none() {
            day.tills.insert(workstation_id.into(), BTreeMap::new());
        }
        let currencies = day.tills.get_mut(workstation_id)?;
        if !currencies.contains_key(currency_code) {
            currencies.insert(currency_code.into(), Till::default());
        }
        currencies.get_mut(currency_code)
    }
}

impl Till {
    fn count(&mut self, facts: &TransactionFacts, found: &mut Vec<&'static str>) {
        self.transactions = self.transactions.saturating_add(1);
        add_amount(&mut self.gross, facts.gross, found);
        add_amount(&mut self.net, facts.net.unwrap_or(0), found);
        add_amount(&mut self.tax, facts.tax.unwrap_or(0), found);
        for sum in &facts.taxes {
            let rate = sum.rate.normalize();
            let place = self
                .taxes
                .binary_search_by(|tax| tax.category.as_str().cmp(&sum.category).then_with(|| tax.rate.cmp(&rate)));
            let index = match place {
                Ok(index) => index,
                Err(_) if self.taxes.len() >= TAXES_PER_TILL_MAX || sum.category.len() > WORD_BYTES_MAX => {
                    found.push(local::DAY_TOTALS_LIMIT);
                    continue;
                }
                Err(index) => {
                    let category = Word::of(&sum.category);
                    self.taxes.insert(index, Tax { category, rate, taxable_amount: 0, amount: 0 });
                    index
                }
            };
            if let Some(tax) = self.taxes.get_mut(index) {
                add_amount(&mut tax.taxable_amount, sum.taxable_amount, found);
                add_amount(&mut tax.amount, sum.amount, found);
            }
        }
        for tender in &facts.tenders {
            add_tender(&mut self.tenders, TENDERS_PER_TILL_MAX, &tender.tender_type, tender.amount, found);
        }
    }
}

fn add_tender(
    tenders: &mut BTreeMap<Word, i64>,
    max: usize,
    tender_type: &str,
    amount: i64,
    found: &mut Vec<&'static str>,
) {
    if let Some(sum) = tenders.get_mut(tender_type) {
        add_amount(sum, amount, found);
    } else if tenders.len() >= max || tender_type.len() > WORD_BYTES_MAX {
        found.push(local::DAY_TOTALS_LIMIT);
    } else {
        tenders.insert(Word::of(tender_type), amount);
    }
}

fn add_amount(sum: &mut i64, amount: i64, found: &mut Vec<&'static str>) {
    *sum = sum.checked_add(amount).unwrap_or_else(|| {
        found.push(local::TOTALS_OVERFLOW);
        sum.saturating_add(amount)
    });
}
