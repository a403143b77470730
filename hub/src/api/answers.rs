//! The answers' forms. Invariant: fields are only added.

use std::collections::BTreeMap;

use counterfoil_proto::record::flag;
use rust_decimal::Decimal;
use serde::Serialize;

use super::rfc3339;
use crate::ledger::{AgentView, ExceptionView, LaneView, StockView};

#[derive(Debug, Serialize)]
pub(super) struct Stores {
    pub(super) stores: Vec<Store>,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the contract's")]
pub(super) struct Store {
    store_id: String,
    agents: Vec<Agent>,
    lag: u64,
    exceptions_open: u64,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the contract's")]
struct Agent {
    agent_id: String,
    presence: String,
    presence_at: Option<String>,
    software: Option<String>,
    clock: Option<String>,
    hello_at: Option<String>,
    last_word_at: Option<String>,
    suspended: bool,
    exceptions_open: u64,
    lag: u64,
    duplicates: u64,
    forks: u64,
    lanes: Vec<LaneAnswer>,
}

#[derive(Debug, Serialize)]
struct LaneAnswer {
    epoch: String,
    lane: &'static str,
    stored: u64,
    safe: u64,
    posted: u64,
    head: u64,
    lag: u64,
    received: u64,
    duplicates: u64,
    forks: u64,
    last_word_at: String,
}

pub(super) fn stores(views: Vec<AgentView>) -> Vec<Store> {
    let mut stores: Vec<Store> = Vec::new();
    for view in views {
        let store_id = view.source.store_id.as_str().to_owned();
        let agent = agent(view);
        if stores.last().is_none_or(|store| store.store_id != store_id) {
            stores.push(Store { store_id, agents: Vec::new(), lag: 0, exceptions_open: 0 });
        }
        let Some(store) = stores.last_mut() else { continue };
        store.lag = store.lag.saturating_add(agent.lag);
        store.exceptions_open = store.exceptions_open.saturating_add(agent.exceptions_open);
        store.agents.push(agent);
    }
    stores
}

fn agent(view: AgentView) -> Agent {
    let seen = view.lanes.iter().map(|lane| lane.seen_at).chain(view.hello_at).max();
    let lanes: Vec<LaneAnswer> = view.lanes.iter().map(lane).collect();
    Agent {
        agent_id: view.source.agent_id.as_str().to_owned(),
        presence: view.presence.unwrap_or_else(|| "unknown".to_owned()),
        presence_at: view.presence_at.map(rfc3339),
        software: view.software,
        clock: view.clock,
        hello_at: view.hello_at.map(rfc3339),
        last_word_at: seen.map(rfc3339),
        suspended: view.is_suspended,
        exceptions_open: view.exceptions_open,
        lag: lanes.iter().map(|lane| lane.lag).sum(),
        duplicates: lanes.iter().map(|lane| lane.duplicates).sum(),
        forks: lanes.iter().map(|lane| lane.forks).sum(),
        lanes,
    }
}

fn lane(view: &LaneView) -> LaneAnswer {
    LaneAnswer {
        epoch: view.epoch.to_string(),
        lane: view.lane.as_str(),
        stored: view.stored,
        safe: view.safe,
        posted: view.posted,
        head: view.head.max(view.stored),
        lag: view.head.saturating_sub(view.stored),
        received: view.received,
        duplicates: view.duplicates,
        forks: view.forks,
        last_word_at: rfc3339(view.seen_at),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Exceptions {
    pub(super) exceptions: Vec<ExceptionAnswer>,
    /// Goes into `after` of the next call; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_after: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ExceptionAnswer {
    id: String,
    class: &'static str,
    code: String,
    severity: &'static str,
    /// By its route, or by its code where there is none.
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    state: String,
    message: &'static str,
    pointer: String,
    detail: String,
    store_id: String,
    agent_id: String,
    epoch: String,
    lane: &'static str,
    seq: u64,
    first_seen: String,
    last_change: String,
    age_s: i64,
    times: u64,
    /// When a webhook first took a letter about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    notified_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    escalated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(crate) fn exception(view: ExceptionView, now: i64) -> ExceptionAnswer {
    let known = flag::finding(&view.code);
    ExceptionAnswer {
        class: known.map_or(flag::Class::Technical, |known| known.class).as_str(),
        severity: known.map_or(flag::Severity::Error, |known| known.severity).as_str(),
        owner: view.owner.unwrap_or_else(|| known.map_or("hub_operations", |known| known.owner).to_owned()),
        route: view.route,
        message: known
            .map_or("Something that this version of the hub has no words for was found.", |known| known.sentence),
        id: view.id,
        code: view.code,
        state: view.state,
        pointer: view.pointer,
        detail: view.detail,
        store_id: view.store_id,
        agent_id: view.agent_id,
        epoch: view.key.epoch.to_string(),
        lane: view.key.lane.as_str(),
        seq: view.key.seq.0,
        first_seen: rfc3339(view.opened_at),
        last_change: rfc3339(view.changed_at),
        age_s: now.saturating_sub(view.opened_at) / 1_000,
        times: view.times,
        notified_at: view.notified_at.map(rfc3339),
        escalated_at: view.escalated_at.map(rfc3339),
        resolved_by: view.changed_by,
        reason: view.reason,
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Stock {
    store_id: String,
    /// `snapshot`: what the agents last said; movements since then are not added.
    basis: &'static str,
    agents: Vec<StockAgent>,
    items: Vec<StockItem>,
}

#[derive(Debug, Serialize)]
struct StockAgent {
    agent_id: String,
    taken_at: Option<String>,
    received_at: String,
    as_of: Vec<Head>,
}

#[derive(Debug, Serialize)]
struct Head {
    epoch: String,
    lane: &'static str,
    seq: u64,
}

#[derive(Debug, Serialize)]
struct StockItem {
    item_id: String,
    unit: String,
    /// Of all agents; `null` where one of them has no baseline.
    on_hand: Option<String>,
    delta: String,
}

/// The agents' snapshots side by side, their items summed.
pub(super) fn stock(store_id: String, views: &[StockView]) -> Stock {
    let mut sums: BTreeMap<(String, String), (Option<Decimal>, Decimal)> = BTreeMap::new();
    for item in views.iter().flat_map(|view| &view.parts).flat_map(|part| &part.items) {
        let read = |text: &str| text.parse::<Decimal>().unwrap_or_default();
        let key = (item.item_id.clone(), item.unit.clone());
        let (on_hand, delta) = sums.entry(key).or_insert((Some(Decimal::ZERO), Decimal::ZERO));
        *on_hand = on_hand.zip(item.on_hand.as_deref().map(read)).and_then(|(sum, more)| sum.checked_add(more));
        *delta = delta.checked_add(read(&item.delta)).unwrap_or(*delta);
    }
    let agents = views.iter().map(|view| {
        let first = view.parts.first();
        let heads = first.map_or(&[][..], |part| part.heads.as_slice()).iter();
        let head = |head: &counterfoil_proto::message::PositionHead| Head {
            epoch: head.key.epoch.to_string(),
            lane: head.key.lane.as_str(),
            seq: head.last.0,
        };
        StockAgent {
            agent_id: view.source.agent_id.as_str().to_owned(),
            taken_at: first.map(|part| part.taken_at.to_rfc3339()),
            received_at: rfc3339(view.received_at),
            as_of: heads.map(head).collect(),
        }
    });
    let items = sums.into_iter().map(|((item_id, unit), (on_hand, delta))| StockItem {
        item_id,
        unit,
        on_hand: on_hand.map(|on_hand| on_hand.normalize().to_string()),
        delta: delta.normalize().to_string(),
    });
    Stock { store_id, basis: "snapshot", agents: agents.collect(), items: items.collect() }
}
