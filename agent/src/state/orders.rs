//! Lines of orders that are fulfilled in this store: how much of each is held, handed out and let go, and what lies ready for too long.
//!
//! Invariant: a quantity is in one place: reserved, prepared, completed or released. What is held of an item follows from the lines.
//! An order line is known by order, line, item and unit; the parts of a split order meet in it. This file does not know what
//! lies on the shelf.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::{FulfillmentFacts, FulfillmentState, FulfillmentType};
use counterfoil_proto::time::WallTime;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::exceptions::local;
use super::limits::{NAME_BYTES_MAX, ORDER_LINES_MAX, WORD_BYTES_MAX};
use super::rows::RowKey;
use super::word::{Word, decimal, decimal_option};

/// Names an order line: 128 bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderLineKey(pub(super) [u8; 16]);

impl OrderLineKey {
    fn of(order_id: &str, order_line: Option<&str>, item_id: &str, unit: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [order_id, order_line.unwrap_or_default(), item_id, unit] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// Where the quantities of an order line are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderLine {
    order_id: Box<str>,
    item_id: Box<str>,
    unit: Word,
    #[serde(with = "decimal_option")]
    ordered: Option<Decimal>,
    #[serde(with = "decimal")]
    reserved: Decimal,
    #[serde(with = "decimal")]
    prepared: Decimal,
    #[serde(with = "decimal")]
    completed: Decimal,
    #[serde(with = "decimal")]
    released: Decimal,
    /// Since when something lies ready to be collected; `None` where nothing does, or where nobody collects it.
    ready_since: Option<WallTime>,
    expires_at: Option<WallTime>,
    /// Whether it was told that nobody came.
    is_stale: bool,
    /// Grows with each update: the smallest is forgotten first.
    number: u64,
}

/// What an update does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderFinding {
    /// More than was ordered is handed out or let go.
    Over,
    /// All of it was handed out or let go before.
    AfterEnd,
}

/// An order of which something lies ready for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleOrder {
    /// The order.
    pub order_id: String,
    /// Item, unit and quantity of what lies there.
    pub lines: Vec<(String, String, Decimal)>,
    /// Since when the first of it does.
    pub ready_since: WallTime,
    /// Until when it was to be kept, where an update said so.
    pub expires_at: Option<WallTime>,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) lines: BTreeMap<OrderLineKey, OrderLine>,
    /// What is held by item and unit; nothing that is zero. Follows from `lines`.
    held: BTreeMap<Box<str>, BTreeMap<Word, Decimal>>,
    number: u64,
}

/// One line of an update, as the table sees it: a substituted line is two, the second with the substitute's own state.
struct Step<'f> {
    index: usize,
    order_line: Option<&'f str>,
    item_id: &'f str,
    unit: &'f str,
    quantity: Decimal,
    ordered: Option<Decimal>,
    state: FulfillmentState,
}

fn steps(facts: &FulfillmentFacts) -> impl Iterator<Item = Step<'_>> {
    facts.lines.iter().flat_map(|line| {
        let own = Step {
            index: line.index,
            order_line: line.order_line.as_deref(),
            item_id: &line.item_id,
            unit: &line.unit,
            quantity: line.quantity,
            ordered: line.ordered,
            state: if line.substitution.is_some() { FulfillmentState::Canceled } else { facts.state },
        };
        let substitute = line.substitution.as_ref().map(|substitution| Step {
            index: line.index,
            order_line: line.order_line.as_deref(),
            item_id: &substitution.item_id,
            unit: &substitution.unit,
            quantity: substitution.quantity,
            ordered: None,
            state: facts.state,
        });
        std::iter::once(own).chain(substitute)
    })
}

impl Orders {
    /// Takes an update in.
    pub(super) fn update(
        &mut self,
        facts: &FulfillmentFacts,
        at: WallTime,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) {
        for step in steps(facts).filter(|step| step.quantity > Decimal::ZERO) {
            let names = [&*facts.order_id, step.order_line.unwrap_or_default(), step.item_id];
            if names.iter().any(|name| name.len() > NAME_BYTES_MAX) || step.unit.len() > WORD_BYTES_MAX {
                found.push(local::ORDER_LINES_LIMIT);
                continue;
            }
            let key = OrderLineKey::of(&facts.order_id, step.order_line, step.item_id, step.unit);
            self.number = self.number.saturating_add(1);
            let number = self.number;
            let line = self.lines.entry(key).or_insert_with(|| OrderLine::new(&facts.order_id, &step));
            let before = line.held();
            line.number = number;
            line.ordered = step.ordered.or(line.ordered);
            line.take(step.state, step.quantity);
            line.note_ready(facts, at);
            let after = line.held();
            dirty.mark(&RowKey::OrderLine(key));
            self.hold(step.item_id, step.unit, before, after);
            self.give_up_surplus(dirty, found);
        }
    }

    /// What is wrong with an update that is about to be taken in after `earlier` ones, by the place of the line in its document.
    pub(super) fn judge(
        &self,
        earlier: &[FulfillmentFacts],
        facts: &FulfillmentFacts,
    ) -> Option<(usize, OrderFinding)> {
        let mut lines: BTreeMap<OrderLineKey, OrderLine> = BTreeMap::new();
        let mut take = |step: &Step<'_>| {
            let key = OrderLineKey::of(&facts.order_id, step.order_line, step.item_id, step.unit);
            let known = || self.lines.get(&key).cloned().unwrap_or_else(|| OrderLine::new(&facts.order_id, step));
            let line = lines.entry(key).or_insert_with(known);
            line.ordered = step.ordered.or(line.ordered);
            let was_at_end = line.ordered.is_some_and(|ordered| line.ended() >= ordered && ordered > Decimal::ZERO);
            line.take(step.state, step.quantity);
            (was_at_end, line.ordered.is_some_and(|ordered| line.ended() > ordered))
        };
        let is_some_of_it = |step: &Step<'_>| step.quantity > Decimal::ZERO;
        for step in earlier.iter().filter(|earlier| earlier.order_id == facts.order_id).flat_map(steps) {
            if is_some_of_it(&step) {
                take(&step);
            }
        }
        for step in steps(facts).filter(is_some_of_it) {
            let (was_at_end, is_over) = take(&step);
            match step.state {
                FulfillmentState::Completed | FulfillmentState::Canceled | FulfillmentState::Failed if is_over => {
                    return Some((step.index, OrderFinding::Over));
                }
                FulfillmentState::Proposed | FulfillmentState::Reserved | FulfillmentState::Prepared if was_at_end => {
                    return Some((step.index, OrderFinding::AfterEnd));
                }
                FulfillmentState::Proposed
                | FulfillmentState::Reserved
                | FulfillmentState::Prepared
                | FulfillmentState::Completed
                | FulfillmentState::Canceled
                | FulfillmentState::Failed => {}
            }
        }
        None
    }

    /// What is held of an item in a unit.
    pub(super) fn held(&self, item_id: &str, unit: &str) -> Decimal {
        self.held.get(item_id).and_then(|units| units.get(unit)).copied().unwrap_or_default()
    }

    /// Orders that lie ready at `now` although their time is over: until when they were to be kept, or else for `patience_ms`. Those that
    /// were told are left out; the earliest come first, at most `count`.
    pub(super) fn stale(&self, now: WallTime, patience_ms: i64, count: usize) -> Vec<StaleOrder> {
        let mut orders: BTreeMap<&str, StaleOrder> = BTreeMap::new();
        for line in self.lines.values().filter(|line| !line.is_stale) {
            let Some(ready_since) = line.ready_since else { continue };
            if now < line.expires_at.unwrap_or(WallTime(ready_since.0.saturating_add(patience_ms))) {
                continue;
            }
            let order = orders.entry(&line.order_id).or_insert_with(|| StaleOrder {
                order_id: line.order_id.as_ref().to_owned(),
                lines: Vec::new(),
                ready_since,
                expires_at: line.expires_at,
            });
            order.lines.push((line.item_id.as_ref().to_owned(), line.unit.as_str().to_owned(), line.prepared));
            order.ready_since = order.ready_since.min(ready_since);
            order.expires_at = order.expires_at.min(line.expires_at).or(order.expires_at).or(line.expires_at);
        }
        let mut orders: Vec<StaleOrder> = orders.into_values().collect();
        orders.sort_by(|one, other| (one.ready_since, &one.order_id).cmp(&(other.ready_since, &other.order_id)));
        orders.truncate(count);
        orders
    }

    /// It was told that nobody collected what lies ready of an order.
    pub(super) fn note_stale(&mut self, order_id: &str, dirty: &mut Dirty) {
        for (key, line) in &mut self.lines {
            if &*line.order_id == order_id && line.ready_since.is_some() && !line.is_stale {
                line.is_stale = true;
                dirty.mark(&RowKey::OrderLine(*key));
            }
        }
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, key: OrderLineKey, line: OrderLine) -> bool {
        self.number = self.number.max(line.number);
        self.hold(&line.item_id, line.unit.as_str(), Decimal::ZERO, line.held());
        self.lines.insert(key, line).is_none()
    }

    fn hold(&mut self, item_id: &str, unit: &str, before: Decimal, after: Decimal) {
        if before == after {
            return;
        }
        let units = self.held.entry(item_id.into()).or_default();
        let held = units.entry(Word::of(unit)).or_default();
        *held = held.saturating_sub(before).saturating_add(after);
        if held.is_zero() {
            units.remove(unit);
        }
        if units.is_empty() {
            self.held.remove(item_id);
        }
    }

    /// What is finished goes first, then what was not touched for longest.
    fn give_up_surplus(&mut self, dirty: &mut Dirty, found: &mut Vec<&'static str>) {
        if self.lines.len() <= ORDER_LINES_MAX {
            return;
        }
        let age = |line: &OrderLine| (!line.held().is_zero(), line.number);
        let Some(key) = self.lines.iter().min_by_key(|(_, line)| age(line)).map(|(key, _)| *key) else { return };
        if let Some(line) = self.lines.remove(&key) {
            if !line.held().is_zero() {
                found.push(local::ORDER_LINES_LIMIT);
            }
            self.hold(&line.item_id, line.unit.as_str(), line.held(), Decimal::ZERO);
            dirty.mark(&RowKey::OrderLine(key));
        }
    }
}

impl OrderLine {
    fn new(order_id: &str, step: &Step<'_>) -> Self {
        Self {
            order_id: order_id.into(),
            item_id: step.item_id.into(),
            unit: Word::of(step.unit),
            ordered: None,
            reserved: Decimal::ZERO,
            prepared: Decimal::ZERO,
            completed: Decimal::ZERO,
            released: Decimal::ZERO,
            ready_since: None,
            expires_at: None,
            is_stale: false,
            number: 0,
        }
    }

    fn held(&self) -> Decimal {
        self.reserved.saturating_add(self.prepared)
    }

    fn ended(&self) -> Decimal {
        self.completed.saturating_add(self.released)
    }

    /// Moves a quantity into `state`. What was not held before is taken as if it had been: updates may begin anywhere.
    fn take(&mut self, state: FulfillmentState, quantity: Decimal) {
        let (reserved, prepared) = (&mut self.reserved, &mut self.prepared);
        match state {
            FulfillmentState::Proposed => {}
            FulfillmentState::Reserved => *reserved = reserved.saturating_add(quantity),
            FulfillmentState::Prepared => {
                draw(quantity, [reserved]);
                *prepared = prepared.saturating_add(quantity);
            }
            FulfillmentState::Completed => {
                draw(quantity, [prepared, reserved]);
                self.completed = self.completed.saturating_add(quantity);
            }
            FulfillmentState::Canceled | FulfillmentState::Failed => {
                draw(quantity, [reserved, prepared]);
                self.released = self.released.saturating_add(quantity);
            }
        }
    }

    fn note_ready(&mut self, facts: &FulfillmentFacts, at: WallTime) {
        self.expires_at = facts.expires_at.or(self.expires_at);
        if self.prepared.is_zero() {
            (self.ready_since, self.is_stale) = (None, false);
        } else if facts.fulfillment_type == FulfillmentType::Pickup && self.ready_since.is_none() {
            self.ready_since = Some(facts.ready_at.unwrap_or(at));
        }
    }
}

/// Takes up to `quantity` out of `places`, in their order.
fn draw<const N: usize>(quantity: Decimal, places: [&mut Decimal; N]) {
    let mut left = quantity;
    for place in places {
        let taken = left.min(*place);
        *place = place.saturating_sub(taken);
        left = left.saturating_sub(taken);
    }
}
