//! What the ledger shows, as plain values. Invariant: nothing here computes or knows where it comes from.

use std::fmt;
use std::str::FromStr;

use counterfoil_proto::id::{Digest, Epoch, Lane, PublicKey, RecordKey, SessionId, Source};
use counterfoil_proto::message::Positions;
use counterfoil_proto::record::control_totals::Computed;
use rust_decimal::Decimal;

use crate::posting::{DaySums, DayWhat};
use crate::reconcile::Numbers;

/// A place among the positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The hub epoch in which it was given.
    pub hub_epoch: SessionId,
    /// Everything up to here was read.
    pub position: u64,
    /// The first bytes of the digest of the record there; zero at the beginning.
    pub check: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{:08x}", self.hub_epoch, self.position, self.check)
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let (Some(hub_epoch), Some(position), Some(check), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        Ok(Self {
            hub_epoch: hub_epoch.parse().map_err(|_| ())?,
            position: position.parse().map_err(|_| ())?,
            check: u32::from_str_radix(check, 16).map_err(|_| ())?,
        })
    }
}

/// Which records.
#[derive(Clone, Debug, Default)]
pub struct PageQuery {
    /// After this place; `None` from the beginning.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
    /// Of one store.
    pub store_id: Option<String>,
    /// Of one lane.
    pub lane: Option<Lane>,
    /// Of one kind, which the bytes' head names.
    pub kind: Option<u16>,
}

/// A record with its position.
#[derive(Clone, Debug)]
pub struct EntryView {
    /// Its place among all records.
    pub position: u64,
    /// Whose.
    pub source: Source,
    /// Which.
    pub key: RecordKey,
    /// Of the stored bytes.
    pub record_digest: Digest,
    /// Wall time of the hub.
    pub received_at: i64,
    /// As it came.
    pub bytes: Vec<u8>,
    /// The position of the record of which this is a duplicate.
    pub duplicate_of: Option<u64>,
    /// Whether it conflicts with an earlier one; with its position where the hub found that.
    pub conflicts_with: Option<Option<u64>>,
    /// Whether another record came first under the same number.
    pub is_fork: bool,
    /// Whether it could not be read.
    pub is_unreadable: bool,
    /// The position of the transaction that this one reverses.
    pub voids: Option<u64>,
    /// The position of the transaction that reverses this one.
    pub voided_by: Option<u64>,
}

/// What records are asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The identity in its store, or what a receipt is known as beside it.
    Identity(String),
    /// The order.
    Order(String),
    /// The correlation id, trace context or trace id.
    Trace(String),
}

/// Which records.
#[derive(Clone, Debug)]
pub struct LookupQuery {
    /// What they are known as.
    pub by: By,
    /// Of one store.
    pub store_id: Option<String>,
    /// After this position.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// Records that are known as something, and the exceptions about them.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// In the order of their positions; what has none yet has 0 here, and comes last.
    pub entries: Vec<EntryView>,
    /// Oldest first.
    pub exceptions: Vec<ExceptionView>,
    /// Whether there are more.
    pub more: bool,
}

/// Records, and where to go on.
#[derive(Clone, Debug)]
pub struct RecordsPage {
    /// In the order of their positions.
    pub entries: Vec<EntryView>,
    /// After the last one that was looked at.
    pub next: Cursor,
    /// Whether the end was reached.
    pub at_end: bool,
}

/// What makes a line of a return one beyond what was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The line alone is more than its customer ever bought of the item at that unit price, as far as is known now.
    AtPrice,
    /// The customer's returns of the item up to the line are more than the customer's purchases of it before.
    SoFar,
}

/// Which lines of returns.
#[derive(Clone, Debug)]
pub struct ReturnsQuery {
    /// Of one store.
    pub store_id: Option<String>,
    /// Of one customer; empty for buyers who are not known.
    pub customer_id: Option<String>,
    /// Only those that are beyond what was bought, on that ground.
    pub beyond: Option<Ground>,
    /// After this position and line.
    pub after: (u64, u32),
    /// At most so many.
    pub limit: usize,
}

/// A line that gave goods back; quantities in its unit, above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnView {
    /// Of the record.
    pub position: u64,
    /// Place of the line in the document, from 0.
    pub line: u32,
    /// The store that took it back.
    pub store_id: String,
    /// The customer, if known.
    pub customer_id: Option<String>,
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20.
    pub unit: String,
    /// As the line has it.
    pub unit_price: Option<String>,
    /// What was given back.
    pub quantity: Decimal,
    /// What the customer bought at that price, up to now.
    pub bought_at_price: Decimal,
    /// What the customer had bought before, at any price.
    pub bought_before: Decimal,
    /// What the customer has given back with this line, at any price.
    pub returned_so_far: Decimal,
}

/// A lane, as it stands.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// The epoch.
    pub epoch: Epoch,
    /// The lane.
    pub lane: Lane,
    /// Committed up to here.
    pub stored: u64,
    /// In a verified backup up to here.
    pub safe: u64,
    /// The highest number that was stated or received.
    pub head: u64,
    /// Has positions up to here.
    pub posted: u64,
    /// Records that came.
    pub received: u64,
    /// Records that came again.
    pub duplicates: u64,
    /// Records under a number that another has.
    pub forks: u64,
    /// Wall time of the last batch or hello.
    pub seen_at: i64,
}

/// An agent, as it stands.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// Which.
    pub source: Source,
    /// `online`, `offline`, or unknown.
    pub presence: Option<String>,
    /// Wall time of that.
    pub presence_at: Option<i64>,
    /// Of the last hello.
    pub software: Option<String>,
    /// What its clock is worth.
    pub clock: Option<String>,
    /// Wall time of the last hello.
    pub hello_at: Option<i64>,
    /// Whether two boxes claim to be this one.
    pub is_suspended: bool,
    /// Its lanes, oldest epoch first.
    pub lanes: Vec<LaneView>,
    /// How many exceptions are open.
    pub exceptions_open: u64,
}

/// A store among all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetStore {
    /// Agents that ever spoke.
    pub agents: u64,
    /// Of these, those whose presence is online.
    pub online: u64,
    /// Of these, those whose presence is offline.
    pub offline: u64,
    /// Of these, those that another box claims to be as well.
    pub suspended: u64,
    /// Wall time of the last word of any.
    pub heard_at: Option<i64>,
    /// Records that came.
    pub received: u64,
    /// Records that came again.
    pub duplicates: u64,
    /// Records under a number that another has.
    pub forks: u64,
    /// Records known of and not here; `None` where no lane was ever stated.
    pub lag: Option<u64>,
    /// Wall time of the store at which the last record before the first of these was recorded; `None` where none is missing or none came.
    pub whole_until: Option<i64>,
    /// Exceptions that are open.
    pub exceptions_open: u64,
    /// Of these, the serious ones.
    pub errors_open: u64,
    /// Of these, those that need a look.
    pub warnings_open: u64,
    /// Wall time at which the oldest of them was opened.
    pub oldest_exception_at: Option<i64>,
}

/// How old open exceptions are, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ageing {
    /// Below an hour.
    pub under_1h: u64,
    /// Below a day.
    pub under_1d: u64,
    /// Below a week.
    pub under_7d: u64,
    /// Older.
    pub older: u64,
}

/// All stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetView {
    /// By their id.
    pub stores: std::collections::BTreeMap<String, FleetStore>,
    /// Of all of them.
    pub ageing: Ageing,
    /// Open exceptions by code and owner; no owner where no route named one.
    pub by_code: std::collections::BTreeMap<(String, Option<String>), OpenOfCode>,
}

/// Open exceptions of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOfCode {
    /// How many.
    pub open: u64,
    /// Wall time at which the oldest was opened.
    pub oldest_at: i64,
}

/// What waits in the ledger, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Records that are stored and have no position.
    pub unposted: u64,
    /// Wall time at which the oldest of them was stored.
    pub unposted_since: Option<i64>,
    /// Wall time at which the oldest record was stored that is in no verified backup.
    pub unsafe_since: Option<i64>,
    /// How often the ledger went back.
    pub restores: u64,
}

/// A line of the totals.
#[derive(Clone, Debug)]
pub struct TotalsRow {
    /// ISO 4217.
    pub currency: String,
    /// The till.
    pub workstation_id: String,
    /// See [`crate::posting::TotalKey::what`].
    pub what: String,
    /// Transactions.
    pub transactions: u64,
    /// Minor units.
    pub amount: i64,
    /// What a tax is on.
    pub base: i64,
    /// The smallest sequence number.
    pub low: Option<u64>,
    /// The largest.
    pub high: Option<u64>,
}

/// A document that a store's day is asked about by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayDocument {
    /// Its position.
    pub position: u64,
    /// Why it is asked for.
    pub what: DayWhat,
    /// The till; empty where the whole store closed.
    pub workstation_id: String,
    /// The agent that had it.
    pub agent_id: String,
    /// What it is known as in its store.
    pub identity: String,
    /// What it declares or adds.
    pub sums: DaySums,
}

/// The numbers of a till that came on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TillNumbers {
    /// The till.
    pub workstation_id: String,
    /// Raised by the till when its counter restarts.
    pub sequence_epoch: u64,
    /// Those that came.
    pub numbers: Numbers,
}

/// What a box counted at a close, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealView {
    /// Its place.
    pub position: u64,
    /// Whose.
    pub agent_id: String,
    /// The till; empty where the whole store closed.
    pub workstation_id: String,
    /// Counts the closes of the box.
    pub number: u64,
    /// Who signed.
    pub public_key: PublicKey,
    /// What the box counted.
    pub computed: Vec<Computed>,
    /// What is wrong with it, in words; empty where nothing is.
    pub wrong: String,
}

/// What a store's day is reconciled from.
#[derive(Clone, Debug, Default)]
pub struct DayView {
    /// What was counted.
    pub totals: Vec<TotalsRow>,
    /// Closes, late ones, conflicts and doubled numbers, by position.
    pub documents: Vec<DayDocument>,
    /// Numbers by till and epoch.
    pub numbers: Vec<TillNumbers>,
    /// The boxes' signed control totals, by position.
    pub seals: Vec<SealView>,
    /// Agents of the store that are known of, and whether all that they announced of money is posted.
    pub agents: Vec<(String, bool)>,
}

/// Which delays.
#[derive(Clone, Debug, Default)]
pub struct DelayQuery {
    /// Posted on this day (UTC) or later, `YYYY-MM-DD`.
    pub first_day: String,
    /// And not after this one.
    pub last_day: String,
}

/// Documents that took about as long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayView {
    /// Whose.
    pub store_id: String,
    /// Where they were sold or ordered.
    pub channel: String,
    /// How their goods reach the customer.
    pub fulfillment_type: String,
    /// Whether it is until they were posted, or until they were stored.
    pub is_posted: bool,
    /// None took longer, in milliseconds.
    pub longest_ms: u64,
    /// How many.
    pub documents: u64,
}

/// Which exceptions.
#[derive(Clone, Debug, Default)]
pub struct ExceptionFilter {
    /// Of one store.
    pub store_id: Option<String>,
    /// Of one code.
    pub code: Option<String>,
    /// `open`, `acknowledged`, `resolved`, `waived`.
    pub state: Option<String>,
    /// After this id.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// An exception.
#[derive(Clone, Debug)]
pub struct ExceptionView {
    /// Stable.
    pub id: String,
    /// The store.
    pub store_id: String,
    /// The agent.
    pub agent_id: String,
    /// What was found.
    pub code: String,
    /// `open`, or what a person said.
    pub state: String,
    /// Wall time.
    pub opened_at: i64,
    /// Wall time.
    pub changed_at: i64,
    /// How often it was found.
    pub times: u64,
    /// The record.
    pub key: RecordKey,
    /// Where in the document.
    pub pointer: String,
    /// In words.
    pub detail: String,
    /// Who changed it.
    pub changed_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The route that it went by.
    pub route: Option<String>,
    /// Who deals with it, by that route or its escalation.
    pub owner: Option<String>,
    /// Wall time at which it was passed on because nobody had dealt with it.
    pub escalated_at: Option<i64>,
    /// Wall time at which a webhook first took a letter about it.
    pub notified_at: Option<i64>,
}

/// The applied stock snapshot of an agent.
#[derive(Clone, Debug)]
pub struct StockView {
    /// Which.
    pub source: Source,
    /// Wall time at which the hub had it.
    pub received_at: i64,
    /// Its parts.
    pub parts: Vec<Positions>,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Agents that ever spoke.
    pub agents: u64,
    /// Agents whose presence is online.
    pub online: u64,
    /// Records stored.
    pub records: u64,
    /// Records that came again.
    pub duplicates: u64,
    /// Forks.
    pub forks: u64,
    /// Numbers that are known of but not stored.
    pub lag: u64,
    /// Numbers that are stored but not safe.
    pub unsafe_records: u64,
    /// The last position.
    pub last_position: u64,
    /// Exceptions that are open.
    pub exceptions_open: u64,
    /// Letters to webhooks that wait.
    pub letters_waiting: u64,
    /// Of these, those that a webhook did not take the last time.
    pub letters_failing: u64,
    /// Wall time at which the oldest of them was written.
    pub letter_oldest_at: Option<i64>,
}
