//! The tables as the HTTP API shows them.
//!
//! Invariant: an answer follows from the tables alone, and from the time that the caller passes for ages.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Epoch, LaneKey, RecordKey, Seq};
use counterfoil_proto::money::{Currency, amount_text};
use counterfoil_proto::record::control_totals::Previous;
use counterfoil_proto::record::flag::{Change, Class, Severity};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;

use super::State;
use super::date::Date;
use super::days::{Close, Day, NotCounted, Till};

use super::exceptions::{Exception, ExceptionId, Handled, finding_of};
use super::standing::standings;
use super::stock::UnitStock;
use super::word::{Word, decimal_text};
use crate::agent::OpenExceptions;
use crate::answer::{
    AsOf, CurrencyTotals, DayAnswer, DeclaredClose, DeclaredCurrency, ExceptionAnswer, Standing, StockAnswer,
    StockQuantity, TaxTotal, TillTotals,
};

/// Stock of one item in one unit, for the snapshot that goes to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockEntry<'a> {
    /// The item.
    pub item_id: &'a str,
    /// UN/ECE Rec 20.
    pub unit: &'a str,
    /// `None` until a count gave a baseline.
    pub on_hand: Option<Decimal>,
    /// What moved since `delta_since`.
    pub delta: Decimal,
    /// When it was counted, or first moved.
    pub delta_since: WallTime,
    /// Held for orders.
    pub reserved: Decimal,
}

/// A close that has no control totals yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseToSeal {
    /// Its record.
    pub key: RecordKey,
    /// What ties it to other records.
    pub correlation_id: Option<String>,
    /// The day, `YYYY-MM-DD`.
    pub business_day_date: String,
    /// The till; `None` where the store closed.
    pub workstation_id: Option<String>,
    /// What it declares.
    pub declared: Vec<DeclaredCurrency>,
    /// What was counted, of the till or of all of them.
    pub computed: Vec<CurrencyTotals>,
    /// All that this box ever counted.
    pub perpetual: Vec<PerpetualTotals>,
    /// The control totals before.
    pub previous: Option<Previous>,
}

/// All that a box ever counted in one currency.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PerpetualTotals {
    /// ISO 4217.
    pub currency_code: String,
    /// Transactions that count.
    pub transactions: u64,
    /// Sum of their totals.gross.
    pub gross: String,
    /// When the first of them was recorded.
    pub since: String,
}

impl State {
    /// Stock of one item; `None` for one that no record moved.
    pub fn stock(&self, item_id: &str) -> Option<StockAnswer> {
        let item = self.tables.stock.items.get(item_id)?;
        let quantity = |stock| self.quantity(item_id, stock);
        Some(StockAnswer {
            item_id: item_id.to_owned(),
            quantity: quantity(&item.first),
            other_units: item.more.iter().map(quantity).collect(),
            as_of: self.as_of(),
        })
    }

    fn quantity(&self, item_id: &str, stock: &UnitStock) -> StockQuantity {
        let reserved = self.tables.orders.held(item_id, stock.unit.as_str());
        StockQuantity {
            unit: stock.unit.as_str().to_owned(),
            on_hand: stock.on_hand().map(decimal_text),
            delta: decimal_text(stock.delta),
            delta_since: stock.since.to_rfc3339(),
            reserved: decimal_text(reserved),
            available: stock.on_hand().map(|on_hand| decimal_text(on_hand.saturating_sub(reserved))),
        }
    }

    /// Stock of everything, by item and unit.
    pub fn stock_all(&self) -> impl Iterator<Item = StockEntry<'_>> {
        self.tables.stock.items.iter().flat_map(move |(item_id, item)| {
            item.units().map(move |stock| StockEntry {
                item_id,
                unit: stock.unit.as_str(),
                on_hand: stock.on_hand(),
                delta: stock.delta,
                delta_since: stock.since,
                reserved: self.tables.orders.held(item_id, stock.unit.as_str()),
            })
        })
    }

    /// What lies there of an item in a unit; `None` before it was counted.
    pub fn on_hand(&self, item_id: &str, unit: &str) -> Option<Decimal> {
        let item = self.tables.stock.items.get(item_id)?;
        item.units().find(|stock| stock.unit.as_str() == unit)?.on_hand()
    }

    /// Totals and closes of a business day; empty where nothing is known of it.
    pub fn day(&self, business_day_date: &str) -> DayAnswer {
        let mut answer = DayAnswer { business_day_date: business_day_date.to_owned(), ..DayAnswer::default() };
        let Some(day) = Date::parse(business_day_date).and_then(|date| self.tables.days.kept.get(&date)) else {
            return answer;
        };
        answer.currencies = currency_totals(day, None);
        answer.closes = day.closes.iter().map(declared_close).collect();
        (answer.standing, answer.standings) = standings(day);
        answer
    }

    /// The oldest close that has no control totals yet, with all that they state.
    pub fn close_to_seal(&self) -> Option<CloseToSeal> {
        let seals = &self.tables.seals;
        let waiting = seals.waiting.first_key_value()?.1;
        let day = self.tables.days.kept.get(&waiting.date);
        let close = day.and_then(|day| day.closes.get(usize::try_from(waiting.index).ok()?)).map(declared_close);
        let workstation_id = close.as_ref().and_then(|close| close.workstation_id.clone());
        let perpetual = seals.perpetual.iter().map(|(currency_code, sum)| PerpetualTotals {
            currency_code: currency_code.as_ref().to_owned(),
            transactions: sum.transactions,
            gross: amount(sum.gross, currency_code),
            since: sum.since.to_rfc3339(),
        });
        Some(CloseToSeal {
            key: waiting.key,
            correlation_id: waiting.correlation_id.as_deref().map(ToOwned::to_owned),
            business_day_date: waiting.date.to_string(),
            computed: day.map(|day| currency_totals(day, workstation_id.as_deref())).unwrap_or_default(),
            workstation_id,
            declared: close.map(|close| close.declared).unwrap_or_default(),
            perpetual: perpetual.collect(),
            previous: seals.last,
        })
    }

    /// Open exceptions in the order in which they were opened, acknowledged or not; with `all` also those that ended and are still known.
    pub fn exceptions(&self, all: bool, now: WallTime) -> Vec<ExceptionAnswer> {
        let mut listed: Vec<(&ExceptionId, &Exception)> =
            self.tables.exceptions.all.iter().filter(|(_, exception)| all || exception.resolution.is_none()).collect();
        listed.sort_unstable_by_key(|(_, exception)| exception.number);
        let handled = &self.tables.exceptions.handled;
        listed.into_iter().map(|(id, exception)| exception_answer(*id, exception, handled.get(id), now)).collect()
    }

    /// One exception, open or resolved; `None` for an id that is not known.
    pub fn exception(&self, id: &str, now: WallTime) -> Option<ExceptionAnswer> {
        let id = ExceptionId::parse(id)?;
        let handled = self.tables.exceptions.handled.get(&id);
        self.tables.exceptions.all.get(&id).map(|exception| exception_answer(id, exception, handled, now))
    }

    /// Open exceptions by code; all codes of other software together.
    pub fn tally_exceptions(&self, now: WallTime) -> Vec<OpenExceptions> {
        let mut tally: BTreeMap<&str, OpenExceptions> = BTreeMap::new();
        for exception in self.tables.exceptions.all.values().filter(|exception| exception.resolution.is_none()) {
            let oldest_s = u64::try_from(now.0.saturating_sub(exception.first_seen.0).max(0) / 1_000).unwrap_or(0);
            let found = finding_of(exception.code.as_str());
            let of = tally.entry(found.map_or("other", |found| found.code)).or_insert(OpenExceptions {
                code: found.map_or("other", |found| found.code),
                class: found.map_or(Class::Technical, |found| found.class),
                severity: found.map_or(Severity::Error, |found| found.severity),
                owner: found.map_or("store_systems", |found| found.owner),
                open: 0,
                oldest_s: 0,
            });
            of.open = of.open.saturating_add(1);
            of.oldest_s = of.oldest_s.max(oldest_s);
        }
        tally.into_values().collect()
    }

    /// How the close of a business day stands.
    pub fn day_standing(&self, business_day_date: &str) -> Standing {
        let day = Date::parse(business_day_date).and_then(|date| self.tables.days.kept.get(&date));
        day.map_or(Standing::Unknown, |day| standings(day).0)
    }

    /// How many exceptions wait for a person.
    pub fn open_exceptions(&self) -> u64 {
        u64::try_from(self.tables.exceptions.open_count()).unwrap_or(u64::MAX)
    }

    /// The epoch of the last record and how far its lanes are folded; `None` before the first record.
    pub fn as_of(&self) -> Option<AsOf> {
        let epoch = self.live_epoch()?;
        let lanes = self.lane_heads().filter(|(key, _)| key.epoch == epoch);
        Some(AsOf { epoch: epoch.to_string(), lanes: lanes.map(|(key, seq)| (key.lane.to_string(), seq.0)).collect() })
    }

    /// The epoch of the last record.
    pub fn live_epoch(&self) -> Option<Epoch> {
        self.tables.heads.live()
    }

    /// How far every remembered lane is folded.
    pub fn lane_heads(&self) -> impl Iterator<Item = (LaneKey, Seq)> {
        self.tables.heads.lanes()
    }
}

/// Totals by currency, of all tills or of one.
fn currency_totals(day: &Day, workstation_id: Option<&str>) -> Vec<CurrencyTotals> {
    let mut currencies: BTreeMap<&str, (i64, CurrencyTotals)> = BTreeMap::new();
    for (name, tills) in day.tills.iter().filter(|(name, _)| workstation_id.is_none_or(|wanted| wanted == &***name)) {
        for (currency_code, till) in tills {
            let (gross, totals) = currencies.entry(currency_code).or_default();
            *gross = gross.saturating_add(till.gross);
            totals.transactions = totals.transactions.saturating_add(till.transactions);
            totals.tills.push(till_totals(name, currency_code, till));
        }
    }
    let named = currencies.into_iter().map(|(currency_code, (gross, totals))| CurrencyTotals {
        currency_code: currency_code.to_owned(),
        gross: amount(gross, currency_code),
        ..totals
    });
    named.collect()
}

fn till_totals(workstation_id: &str, currency_code: &str, till: &Till) -> TillTotals {
    let text = |minor_units| amount(minor_units, currency_code);
    let not_counted = NotCounted::ALL.into_iter().zip(till.not_counted).filter(|(_, count)| *count > 0);
    TillTotals {
        workstation_id: workstation_id.to_owned(),
        transactions: till.transactions,
        gross: text(till.gross),
        net: text(till.net),
        tax: text(till.tax),
        taxes: till
            .taxes
            .iter()
            .map(|tax| TaxTotal {
                category: tax.category.as_str().to_owned(),
                rate: decimal_text(tax.rate),
                taxable_amount: text(tax.taxable_amount),
                amount: text(tax.amount),
            })
            .collect(),
        tenders: tender_texts(&till.tenders, currency_code),
        first_sequence_number: till.span.map(|((_, first), _)| first),
        last_sequence_number: till.span.map(|(_, (_, last))| last),
        not_counted: not_counted.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
    }
}

fn declared_close(close: &Close) -> DeclaredClose {
    let declared = close.declared.iter().map(|declared| DeclaredCurrency {
        currency_code: declared.currency_code.as_str().to_owned(),
        transactions: declared.transactions,
        gross: amount(declared.gross, declared.currency_code.as_str()),
        tenders: tender_texts(&declared.tenders, declared.currency_code.as_str()),
    });
    DeclaredClose {
        workstation_id: close.workstation_id.as_deref().map(ToOwned::to_owned),
        recorded_at: close.recorded_at.to_rfc3339(),
        declared: declared.collect(),
    }
}

fn tender_texts(tenders: &BTreeMap<Word, i64>, currency_code: &str) -> BTreeMap<String, String> {
    tenders.iter().map(|(tender_type, sum)| (tender_type.as_str().to_owned(), amount(*sum, currency_code))).collect()
}

fn exception_answer(
    id: ExceptionId,
    exception: &Exception,
    handled: Option<&Handled>,
    now: WallTime,
) -> ExceptionAnswer {
    let finding = finding_of(exception.code.as_str());
    let sentence =
        finding.map_or("A finding of a software version that this one does not know.", |finding| finding.sentence);
    let further = exception.count.saturating_sub(1);
    let message = match (exception.counting, further) {
        (_, 0) => sentence.to_owned(),
        (true, _) => format!("{sentence} Found {} times beyond what is listed one by one.", exception.count),
        (false, _) => format!("{sentence} Found in {} places of this document.", exception.count),
    };
    let state = match (&exception.resolution, handled) {
        (_, Some(handled)) => handled.change.as_str(),
        // Of a snapshot from before it was kept who did what.
        (Some(_), None) => Change::Resolved.as_str(),
        (None, None) => "open",
    };
    let age_ms = now.0.saturating_sub(exception.first_seen.0).max(0);
    ExceptionAnswer {
        id: id.to_string(),
        class: finding.map_or(Class::Technical, |finding| finding.class).as_str().to_owned(),
        code: exception.code.as_str().to_owned(),
        severity: finding.map_or(Severity::Error, |finding| finding.severity).as_str().to_owned(),
        owner: finding.map_or("store_systems", |finding| finding.owner).to_owned(),
        state: state.to_owned(),
        message,
        pointer: exception.pointer.as_ref().to_owned(),
        identity: exception.identity.as_deref().map(ToOwned::to_owned),
        epoch: exception.key.epoch.to_string(),
        lane: exception.key.lane.to_string(),
        seq: exception.key.seq.0,
        correlation_id: exception.correlation_id.as_deref().map(ToOwned::to_owned),
        first_seen: exception.first_seen.to_rfc3339(),
        age_s: u64::try_from(age_ms / 1_000).unwrap_or(0),
        resolved_by: exception.resolution.as_ref().map(|resolution| resolution.by.as_ref().to_owned()),
        reason: exception
            .resolution
            .as_ref()
            .map(|resolution| &resolution.reason)
            .or(handled.map(|handled| &handled.reason))
            .map(|reason| reason.as_ref().to_owned()),
        changed_by: handled.map(|handled| handled.by.as_ref().to_owned()),
        changed_at: handled.map(|handled| handled.at.to_rfc3339()),
    }
}

/// Minor units with the currency's places; as they are where the currency is none that this version knows.
fn amount(minor_units: i64, currency_code: &str) -> String {
    Currency::from_code(currency_code)
        .map_or_else(|_| minor_units.to_string(), |currency| amount_text(minor_units, currency))
}
