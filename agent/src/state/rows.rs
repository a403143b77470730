//! The tables as rows: the one form in which the store and the snapshots hold them.
//!
//! A row's key is a tag and what names the row, its value the postcard form of one entry. Rows are small (the largest fits
//! [`super::limits::SNAPSHOT_PART_BYTES_MIN`]), order by tag, and stand on their own except that a day's parts follow the day.
//!
//! Invariant: the rows of a state, read back, give a state that is equal to it. Bytes that are no rows of ours give an error.

use counterfoil_proto::id::Epoch;
use counterfoil_proto::record::control_totals::Previous;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::date::Date;
use super::days::{Close, Day, DayGone, Days, Till};
use super::drawers::{Drawer, Drawers};
use super::exceptions::{Exception, ExceptionId, Exceptions, Handled};
use super::heads::{Head, Heads};
use super::numbers::{Numbers, Run};
use super::orders::{OrderLine, OrderLineKey, Orders};
use super::returns::{GivenBack, ReturnKey, Returns};
use super::seals::{Perpetual, Seals, Waiting};
use super::stock::{Item, Stock};

/// The version of keys and values. A change of any of them raises it, and then reads the old one still. Only a further variant behind those
/// that there are does not: software of before cannot read such a row, and makes the state anew from the journal.
pub(super) const ROWS_VERSION: u16 = 2;

/// The oldest version that is read: 1 has no rows of orders, drawers, numbers and control totals, and is a state of version 2 for the rest.
pub(super) const ROWS_VERSION_OLDEST: u16 = 1;

/// What the state has counted since the journal began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records of all kinds.
    pub records: u64,
    /// Records of an identity that another record had first.
    pub conflicts: u64,
    /// Records that this software cannot read.
    pub unreadable: u64,
    /// Changes of exceptions that named none that is known and open.
    pub changes_ignored: u64,
}

/// All that is folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// Position of the last record that was folded.
    pub(super) applied: Option<u64>,
    pub(super) heads: Heads,
    pub(super) counters: Counters,
    pub(super) stock: Stock,
    pub(super) days: Days,
    pub(super) returns: Returns,
    pub(super) orders: Orders,
    pub(super) drawers: Drawers,
    pub(super) numbers: Numbers,
    pub(super) seals: Seals,
    pub(super) exceptions: Exceptions,
}

/// What names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKey<'a> {
    /// The one row of [`MetaRow`].
    Meta,
    Item(&'a str),
    Day(Date),
    Till {
        date: Date,
        workstation_id: &'a str,
        currency_code: &'a str,
    },
    Close {
        date: Date,
        index: u32,
    },
    DayGone(Date),
    Exception(ExceptionId),
    Epoch(Epoch),
    Return(ReturnKey),
    OrderLine(OrderLineKey),
    Drawer {
        workstation_id: &'a str,
        currency_code: &'a str,
    },
    /// The numbers of a till.
    Run(&'a str),
    /// What was done about an exception.
    Handled(ExceptionId),
    /// All that was ever counted in a currency.
    Perpetual(&'a str),
    /// A close without control totals, by its position.
    WaitingClose(u64),
    /// The newest control totals.
    LastSeal,
}

#[derive(Serialize, Deserialize)]
struct MetaRow {
    applied: Option<u64>,
    counters: Counters,
    exceptions_number: u64,
}

/// Bytes that are no row of ours, by the tag of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// No key of ours.
    #[error("A row of the state has a key that this software does not know")]
    Key,
    /// No value of ours.
    #[error("A row of the state with tag {0} cannot be decoded")]
    Value(u8),
    /// A row twice, or a part of a day without the day.
    #[error("A row of the state with tag {0} does not fit the other rows")]
    Misplaced(u8),
    /// The row that every state has.
    #[error("The state's row of positions and counters is missing")]
    Incomplete,
}

const META: u8 = 0;
const ITEM: u8 = 1;
const DAY: u8 = 2;
const TILL: u8 = 3;
const CLOSE: u8 = 4;
const DAY_GONE: u8 = 5;
const EXCEPTION: u8 = 6;
const EPOCH: u8 = 7;
const RETURN: u8 = 8;
const ORDER_LINE: u8 = 9;
const DRAWER: u8 = 10;
const RUN: u8 = 11;
const HANDLED: u8 = 12;
const PERPETUAL: u8 = 13;
const WAITING_CLOSE: u8 = 14;
const LAST_SEAL: u8 = 15;

impl<'a> RowKey<'a> {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        match self {
            Self::Meta => bytes.push(META),
            Self::Item(item_id) => {
                bytes.push(ITEM);
                bytes.extend_from_slice(item_id.as_bytes());
            }
            Self::Day(date) => {
                bytes.push(DAY);
                bytes.extend_from_slice(&date.0.to_be_bytes());
            }
            Self::Till { date, workstation_id, currency_code } => {
                bytes.push(TILL);
                bytes.extend_from_slice(&date.0.to_be_bytes());
                push_till(&mut bytes, workstation_id, currency_code);
            }
            Self::Close { date, index } => {
                bytes.push(CLOSE);
                bytes.extend_from_slice(&date.0.to_be_bytes());
                bytes.extend_from_slice(&index.to_be_bytes());
            }
            Self::DayGone(date) => {
                bytes.push(DAY_GONE);
                bytes.extend_from_slice(&date.0.to_be_bytes());
            }
            Self::Exception(id) => {
                bytes.push(EXCEPTION);
                bytes.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::Epoch(epoch) => {
                bytes.push(EPOCH);
                bytes.extend_from_slice(&epoch.0);
            }
            Self::Return(key) => {
                bytes.push(RETURN);
                bytes.extend_from_slice(&key.0);
            }
            Self::OrderLine(key) => {
                bytes.push(ORDER_LINE);
                bytes.extend_from_slice(&key.0);
            }
            Self::Drawer { workstation_id, currency_code } => {
                bytes.push(DRAWER);
                push_till(&mut bytes, workstation_id, currency_code);
            }
            Self::Run(workstation_id) => {
                bytes.push(RUN);
                bytes.extend_from_slice(workstation_id.as_bytes());
            }
            Self::Handled(id) => {
                bytes.push(HANDLED);
                bytes.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::Perpetual(currency_code) => {
                bytes.push(PERPETUAL);
                bytes.extend_from_slice(currency_code.as_bytes());
            }
            Self::WaitingClose(position) => {
                bytes.push(WAITING_CLOSE);
                bytes.extend_from_slice(&position.to_be_bytes());
            }
            Self::LastSeal => bytes.push(LAST_SEAL),
        }
        bytes
    }

    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        Some(match *tag {
            META if rest.is_empty() => Self::Meta,
            ITEM => Self::Item(std::str::from_utf8(rest).ok()?),
            DAY => Self::Day(date(rest)?),
            TILL => {
                let (date_bytes, rest) = rest.split_at_checked(4)?;
                let (workstation_id, currency_code) = split_till(rest)?;
                Self::Till { date: date(date_bytes)?, workstation_id, currency_code }
            }
            CLOSE => {
                let (date_bytes, index) = rest.split_at_checked(4)?;
                Self::Close { date: date(date_bytes)?, index: u32::from_be_bytes(index.try_into().ok()?) }
            }
            DAY_GONE => Self::DayGone(date(rest)?),
            EXCEPTION => Self::Exception(ExceptionId(u64::from_be_bytes(rest.try_into().ok()?))),
            EPOCH => Self::Epoch(Epoch(rest.try_into().ok()?)),
            RETURN => Self::Return(ReturnKey(rest.try_into().ok()?)),
            ORDER_LINE => Self::OrderLine(OrderLineKey(rest.try_into().ok()?)),
            DRAWER => {
                let (workstation_id, currency_code) = split_till(rest)?;
                Self::Drawer { workstation_id, currency_code }
            }
            RUN => Self::Run(std::str::from_utf8(rest).ok()?),
            HANDLED => Self::Handled(ExceptionId(u64::from_be_bytes(rest.try_into().ok()?))),
            PERPETUAL => Self::Perpetual(std::str::from_utf8(rest).ok()?),
            WAITING_CLOSE => Self::WaitingClose(u64::from_be_bytes(rest.try_into().ok()?)),
            LAST_SEAL if rest.is_empty() => Self::LastSeal,
            _ => return None,
        })
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Meta => META,
            Self::Item(_) => ITEM,
            Self::Day(_) => DAY,
            Self::Till { .. } => TILL,
            Self::Close { .. } => CLOSE,
            Self::DayGone(_) => DAY_GONE,
            Self::Exception(_) => EXCEPTION,
            Self::Epoch(_) => EPOCH,
            Self::Return(_) => RETURN,
            Self::OrderLine(_) => ORDER_LINE,
            Self::Drawer { .. } => DRAWER,
            Self::Run(_) => RUN,
            Self::Handled(_) => HANDLED,
            Self::Perpetual(_) => PERPETUAL,
            Self::WaitingClose(_) => WAITING_CLOSE,
            Self::LastSeal => LAST_SEAL,
        }
    }
}

fn push_till(bytes: &mut Vec<u8>, workstation_id: &str, currency_code: &str) {
    bytes.extend_from_slice(&u16::try_from(workstation_id.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(workstation_id.as_bytes());
    bytes.extend_from_slice(currency_code.as_bytes());
}

fn split_till(bytes: &[u8]) -> Option<(&str, &str)> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (workstation_id, currency_code) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(workstation_id).ok()?, std::str::from_utf8(currency_code).ok()?))
}

fn date(bytes: &[u8]) -> Option<Date> {
    Some(Date(u32::from_be_bytes(bytes.try_into().ok()?)))
}

impl Tables {
    /// The value of a row; `None` where the tables have no such row.
    pub(super) fn value(&self, key: &RowKey<'_>) -> Option<Vec<u8>> {
        match *key {
            RowKey::Meta => Some(encode(&MetaRow {
                applied: self.applied,
                counters: self.counters,
                exceptions_number: self.exceptions.number,
            })),
            RowKey::Item(item_id) => self.stock.items.get(item_id).map(encode),
            RowKey::Day(date) => self.days.kept.get(&date).map(|day| encode(&day.touched)),
            RowKey::Till { date, workstation_id, currency_code } => {
                self.days.kept.get(&date)?.tills.get(workstation_id)?.get(currency_code).map(encode)
            }
            RowKey::Close { date, index } => {
                self.days.kept.get(&date)?.closes.get(usize::try_from(index).ok()?).map(encode)
            }
            RowKey::DayGone(date) => self.days.gone.get(&date).map(encode),
            RowKey::Exception(id) => self.exceptions.all.get(&id).map(encode),
            RowKey::Epoch(epoch) => self.heads.epochs.get(&epoch).map(encode),
            RowKey::Return(key) => self.returns.kept.get(&key).map(encode),
            RowKey::OrderLine(key) => self.orders.lines.get(&key).map(encode),
            RowKey::Drawer { workstation_id, currency_code } => {
                self.drawers.kept.get(&(workstation_id.into(), currency_code.into())).map(encode)
            }
            RowKey::Run(workstation_id) => self.numbers.runs.get(workstation_id).map(encode),
            RowKey::Handled(id) => self.exceptions.handled.get(&id).map(encode),
            RowKey::Perpetual(currency_code) => self.seals.perpetual.get(currency_code).map(encode),
            RowKey::WaitingClose(position) => self.seals.waiting.get(&position).map(encode),
            RowKey::LastSeal => self.seals.last.as_ref().map(encode),
        }
    }

    /// Every row's key, days before their parts and exceptions before what was done about them.
    pub(super) fn keys(&self) -> impl Iterator<Item = RowKey<'_>> {
        let items = self.stock.items.keys().map(|item_id| RowKey::Item(item_id));
        let days = self.days.kept.keys().map(|date| RowKey::Day(*date));
        let tills = self.days.kept.iter().flat_map(|(date, day)| {
            day.tills.iter().flat_map(|(workstation_id, currencies)| {
                currencies.keys().map(|currency_code| RowKey::Till { date: *date, workstation_id, currency_code })
            })
        });
        let closes = self
            .days
            .kept
            .iter()
            .flat_map(|(date, day)| (0..).zip(&day.closes).map(|(index, _)| RowKey::Close { date: *date, index }));
        let gone = self.days.gone.keys().map(|date| RowKey::DayGone(*date));
        let epochs = self.heads.epochs.keys().map(|epoch| RowKey::Epoch(*epoch));
        let returns = self.returns.kept.keys().map(|key| RowKey::Return(*key));
        let order_lines = self.orders.lines.keys().map(|key| RowKey::OrderLine(*key));
        let drawers = self
            .drawers
            .kept
            .keys()
            .map(|(workstation_id, currency_code)| RowKey::Drawer { workstation_id, currency_code });
        let runs = self.numbers.runs.keys().map(|workstation_id| RowKey::Run(workstation_id));
        let handled = self.exceptions.handled.keys().map(|id| RowKey::Handled(*id));
        let perpetual = self.seals.perpetual.keys().map(|currency_code| RowKey::Perpetual(currency_code));
        let waiting = self.seals.waiting.keys().map(|position| RowKey::WaitingClose(*position));
        let last_seal = self.seals.last.iter().map(|_| RowKey::LastSeal);
        let exceptions = self.exceptions.all.keys().map(|id| RowKey::Exception(*id));
        std::iter::once(RowKey::Meta)
            .chain(items)
            .chain(days)
            .chain(tills)
            .chain(closes)
            .chain(gone)
            .chain(exceptions)
            .chain(epochs)
            .chain(returns)
            .chain(order_lines)
            .chain(drawers)
            .chain(runs)
            .chain(handled)
            .chain(perpetual)
            .chain(waiting)
            .chain(last_seal)
    }

    /// Every row, key and value.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.keys().filter_map(|key| Some((key.to_bytes(), self.value(&key)?)))
    }
}

/// Reads rows back into tables.
#[derive(Debug, Default)]
pub(super) struct Loader {
    tables: Tables,
    has_meta: bool,
}

impl Loader {
    /// Takes one row in. A day has to come before its parts, closes in their order, and an exception before what was done about it.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let key = RowKey::parse(key).ok_or(RowError::Key)?;
        let tag = key.tag();
        let placed = match key {
            RowKey::Meta => {
                let meta: MetaRow = decode(tag, value)?;
                self.tables.applied = meta.applied;
                self.tables.counters = meta.counters;
                self.tables.exceptions.number = meta.exceptions_number;
                !std::mem::replace(&mut self.has_meta, true)
            }
            RowKey::Item(item_id) => {
                let item: Item = decode_borrowed(tag, value)?;
                self.tables.stock.items.insert(item_id.into(), item).is_none()
            }
            RowKey::Day(date) => {
                let touched: u64 = decode(tag, value)?;
                let days = &mut self.tables.days;
                days.touched = days.touched.max(touched);
                days.kept.insert(date, Day { touched, ..Day::default() }).is_none()
            }
            RowKey::Till { date, workstation_id, currency_code } => {
                let till: Till = decode_borrowed(tag, value)?;
                self.tables.days.kept.get_mut(&date).is_some_and(|day| {
                    day.tills.entry(workstation_id.into()).or_default().insert(currency_code.into(), till).is_none()
                })
            }
            RowKey::Close { date, index } => {
                let close: Close = decode_borrowed(tag, value)?;
                let day = self.tables.days.kept.get_mut(&date);
                day.filter(|day| usize::try_from(index) == Ok(day.closes.len()))
                    .map(|day| day.closes.push(close))
                    .is_some()
            }
            RowKey::DayGone(date) => {
                let gone: DayGone = decode(tag, value)?;
                self.tables.days.gone.insert(date, gone).is_none()
            }
            RowKey::Exception(id) => {
                let exception: Exception = decode_borrowed(tag, value)?;
                self.tables.exceptions.load(id, exception)
            }
            RowKey::Epoch(epoch) => {
                let head: Head = decode(tag, value)?;
                self.tables.heads.load(epoch, head)
            }
            RowKey::Return(key) => {
                let given_back: GivenBack = decode(tag, value)?;
                self.tables.returns.load(key, given_back)
            }
            RowKey::OrderLine(key) => {
                let line: OrderLine = decode_borrowed(tag, value)?;
                self.tables.orders.load(key, line)
            }
            RowKey::Drawer { workstation_id, currency_code } => {
                let drawer: Drawer = decode_borrowed(tag, value)?;
                self.tables.drawers.load(workstation_id, currency_code, drawer)
            }
            RowKey::Run(workstation_id) => {
                let run: Run = decode(tag, value)?;
                self.tables.numbers.load(workstation_id, run)
            }
            RowKey::Handled(id) => {
                let handled: Handled = decode(tag, value)?;
                self.tables.exceptions.load_handled(id, handled)
            }
            RowKey::Perpetual(_) | RowKey::WaitingClose(_) | RowKey::LastSeal => {
                load_seals(&mut self.tables.seals, key, value)?
            }
        };
        if placed { Ok(()) } else { Err(RowError::Misplaced(tag)) }
    }

    /// The tables, once every row came.
    pub(super) fn finish(self) -> Result<Tables, RowError> {
        if self.has_meta { Ok(self.tables) } else { Err(RowError::Incomplete) }
    }
}

/// Takes one row of the control totals in; `false` where it is there, or none of theirs.
fn load_seals(seals: &mut Seals, key: RowKey<'_>, value: &[u8]) -> Result<bool, RowError> {
    let tag = key.tag();
    if let RowKey::Perpetual(currency_code) = key {
        let sum: Perpetual = decode(tag, value)?;
        return Ok(seals.perpetual.insert(currency_code.into(), sum).is_none());
    }
    if let RowKey::WaitingClose(position) = key {
        let close: Waiting = decode(tag, value)?;
        return Ok(seals.waiting.insert(position, close).is_none());
    }
    let last: Previous = decode(tag, value)?;
    Ok(key == RowKey::LastSeal && seals.last.replace(last).is_none())
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("numbers, texts and sequences of known length always encode")
}

fn decode<T: DeserializeOwned>(tag: u8, value: &[u8]) -> Result<T, RowError> {
    decode_borrowed(tag, value)
}

fn decode_borrowed<'a, T: Deserialize<'a>>(tag: u8, value: &'a [u8]) -> Result<T, RowError> {
    match postcard::take_from_bytes(value) {
        Ok((decoded, [])) => Ok(decoded),
        Ok(_) | Err(_) => Err(RowError::Value(tag)),
    }
}
