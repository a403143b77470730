//! `GET /v1/fleet`: every store in one line, and the hub itself; what the page at `/` shows.
//!
//! Invariant: a store that nobody has heard of for a while is `unknown`, and so is its lag: what is known of it is old, and never zero.
//! A store that the configuration names and that never spoke is there as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use counterfoil_proto::time::WallTime;
use serde::Serialize;

use super::{Answer, Sources, count, rfc3339};
use crate::env;
use crate::ledger::{FleetStore, FleetView, Gauges};

/// Agents say hello every ten minutes, with jitter; who missed that and half as much is silent.
const SILENT_AFTER_MS: i64 = 15 * 60_000;
/// What is on its way for no longer than this is no delay.
const BEHIND_AFTER_S: i64 = 120;

#[derive(Debug, Serialize)]
struct Fleet {
    /// RFC 3339; ages are as of this.
    time: String,
    hub: Hub,
    exceptions: Exceptions,
    /// By their id.
    stores: Vec<Store>,
}

/// Totals are of the ledger, and so of all hub processes; nacks and failures are of this one since its start.
#[derive(Debug, Serialize)]
struct Hub {
    version: &'static str,
    broker_connected: bool,
    agents: u64,
    agents_online: u64,
    records: u64,
    /// Records that came again.
    duplicates: u64,
    forks: u64,
    last_position: u64,
    nacks: u64,
    ledger_failures: u64,
    commit_microseconds: u64,
}

/// Open ones by age, each counted once.
#[derive(Debug, Serialize)]
struct Exceptions {
    open: u64,
    under_1h: u64,
    under_1d: u64,
    under_7d: u64,
    older: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// The hub has all that it knows of, or the rest has only just been recorded.
    Current,
    /// More is known of than is here.
    Behind,
    /// An agent of it is offline or silent, or none ever spoke.
    Unknown,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the contract's")]
pub(super) struct Store {
    pub(super) store_id: String,
    pub(super) region: Option<String>,
    standing: Standing,
    pub(super) agents: u64,
    pub(super) agents_online: u64,
    /// Agents that two boxes claim to be.
    pub(super) suspended: u64,
    last_word_at: Option<String>,
    /// Seconds since then.
    pub(super) silent_s: Option<i64>,
    /// Records known of and not here; `null` while the store is unknown.
    pub(super) lag: Option<u64>,
    /// Seconds since the newest record was recorded that is here with all before it; 0 where nothing is missing, `null` where it is not known.
    pub(super) lag_s: Option<i64>,
    pub(super) records: u64,
    pub(super) duplicates: u64,
    pub(super) forks: u64,
    pub(super) exceptions_open: u64,
    pub(super) errors_open: u64,
    pub(super) warnings_open: u64,
    pub(super) oldest_exception_s: Option<i64>,
}

impl Store {
    /// Whether nobody knows what it sells.
    pub(super) fn is_silent(&self) -> bool {
        self.standing == Standing::Unknown
    }
}

pub(super) async fn get(State(sources): State<Arc<Sources>>) -> Answer {
    let now = env::wall();
    let (view, gauges) = (sources.ledger.fleet(now).await?, sources.ledger.gauges().await?);
    let counters = &sources.counters;
    let hub = Hub {
        version: env!("CARGO_PKG_VERSION"),
        broker_connected: sources.outlet.is_connected(),
        nacks: count(&counters.nacks),
        ledger_failures: count(&counters.ledger_failures),
        commit_microseconds: count(&counters.last_commit_us),
        ..hub(&gauges)
    };
    Ok(super::json(&fleet(view, &sources.regions, hub, now)))
}

fn hub(gauges: &Gauges) -> Hub {
    Hub {
        version: "",
        broker_connected: false,
        agents: gauges.agents,
        agents_online: gauges.online,
        records: gauges.records,
        duplicates: gauges.duplicates,
        forks: gauges.forks,
        last_position: gauges.last_position,
        nacks: 0,
        ledger_failures: 0,
        commit_microseconds: 0,
    }
}

/// Every store, also those that only the configuration names.
pub(super) fn stores(mut view: FleetView, regions: &BTreeMap<String, String>, now: WallTime) -> Vec<Store> {
    for store_id in regions.keys() {
        view.stores.entry(store_id.clone()).or_default();
    }
    let stores = view.stores.into_iter();
    stores.map(|(store_id, found)| store(regions.get(&store_id).cloned(), store_id, &found, now.0)).collect()
}

fn fleet(view: FleetView, regions: &BTreeMap<String, String>, hub: Hub, now: WallTime) -> Fleet {
    let ageing = view.ageing;
    let open = [ageing.under_1h, ageing.under_1d, ageing.under_7d, ageing.older].into_iter().sum();
    Fleet {
        time: rfc3339(now.0),
        hub,
        exceptions: Exceptions {
            open,
            under_1h: ageing.under_1h,
            under_1d: ageing.under_1d,
            under_7d: ageing.under_7d,
            older: ageing.older,
        },
        stores: stores(view, regions, now),
    }
}

fn store(region: Option<String>, store_id: String, found: &FleetStore, now: i64) -> Store {
    let age_s = |at: i64| now.saturating_sub(at).max(0) / 1_000;
    let is_silent = found.heard_at.is_none_or(|at| now.saturating_sub(at) > SILENT_AFTER_MS);
    let is_unknown = is_silent || found.offline > 0;
    let lag = found.lag.filter(|_| !is_unknown);
    let lag_s = match lag {
        Some(0) => Some(0),
        Some(_) => found.whole_until.map(age_s),
        None => None,
    };
    let is_behind = lag.is_some_and(|lag| lag > 0) && lag_s.is_none_or(|seconds| seconds > BEHIND_AFTER_S);
    Store {
        store_id,
        region,
        standing: match (is_unknown, is_behind) {
            (true, _) => Standing::Unknown,
            (false, true) => Standing::Behind,
            (false, false) => Standing::Current,
        },
        agents: found.agents,
        agents_online: found.online,
        suspended: found.suspended,
        last_word_at: found.heard_at.map(rfc3339),
        silent_s: found.heard_at.map(age_s),
        lag,
        lag_s,
        records: found.received,
        duplicates: found.duplicates,
        forks: found.forks,
        exceptions_open: found.exceptions_open,
        errors_open: found.errors_open,
        warnings_open: found.warnings_open,
        oldest_exception_s: found.oldest_exception_at.map(age_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn answer(found: &FleetStore) -> (Standing, Option<u64>, Option<i64>) {
        let store = store(None, "0042".to_owned(), found, NOW);
        (store.standing, store.lag, store.lag_s)
    }

    #[test]
    fn a_silent_store_is_unknown_and_its_lag_is_never_zero() {
        let heard =
            FleetStore { agents: 1, online: 1, heard_at: Some(NOW - 1_000), lag: Some(0), ..FleetStore::default() };
        assert_eq!(answer(&heard), (Standing::Current, Some(0), Some(0)));
        let unknown = (Standing::Unknown, None, None);
        assert_eq!(answer(&FleetStore { heard_at: Some(NOW - SILENT_AFTER_MS - 1), ..heard.clone() }), unknown);
        assert_eq!(answer(&FleetStore { offline: 1, ..heard.clone() }), unknown);
        assert_eq!(answer(&FleetStore::default()), unknown, "of the configuration alone");
        let behind = FleetStore { lag: Some(7), whole_until: Some(NOW - 300_000), ..heard.clone() };
        assert_eq!(answer(&behind), (Standing::Behind, Some(7), Some(300)));
        let moving = FleetStore { whole_until: Some(NOW - 5_000), ..behind.clone() };
        assert_eq!(answer(&moving), (Standing::Current, Some(7), Some(5)));
        assert_eq!(answer(&FleetStore { whole_until: None, ..behind }), (Standing::Behind, Some(7), None));
    }

    #[test]
    fn a_store_that_is_configured_and_never_spoke_is_there() {
        let regions = BTreeMap::from([("0001".to_owned(), "north".to_owned())]);
        let fleet = fleet(FleetView::default(), &regions, hub(&Gauges::default()), WallTime(NOW));
        let stores: Vec<_> = fleet.stores.iter().map(|store| (store.store_id.as_str(), store.standing)).collect();
        assert_eq!(stores, [("0001", Standing::Unknown)]);
        assert_eq!(fleet.stores[0].region.as_deref(), Some("north"));
    }
}
