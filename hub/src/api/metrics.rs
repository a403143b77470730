//! Counts in Prometheus' text format.
//!
//! Invariant: every family of [`families`] is written, each time. What the ledger knows has no samples while it cannot be asked: the rest is
//! then all the more wanted, and nothing is called zero that nobody knows.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use counterfoil_proto::message::WireVersion;
use counterfoil_proto::record::flag::{Class, Severity, finding};
use counterfoil_proto::time::WallTime;
use counterfoil_telemetry::metrics::{Exposition, Family};

use super::fleet::{self, Store};
use super::standings::DayStanding;
use super::{Answer, Sources, count};
use crate::env;
use crate::ledger::{FleetView, Gauges, LedgerError, Waits};
use crate::receiver::Counters;

pub mod families;

use families as f;

/// What the ledger says.
#[derive(Debug)]
struct Known {
    gauges: Gauges,
    waits: Waits,
    fleet: FleetView,
}

async fn ask(sources: &Sources, now: WallTime) -> Result<Known, LedgerError> {
    let (gauges, waits) = (sources.ledger.gauges().await?, sources.ledger.waits().await?);
    Ok(Known { gauges, waits, fleet: sources.ledger.fleet(now).await? })
}

pub(super) async fn get(State(sources): State<Arc<Sources>>) -> Answer {
    let now = env::wall();
    let known = ask(&sources, now).await.inspect_err(|error| tracing::warn!(%error, "The ledger cannot be measured"));
    let mut text = Exposition::default();
    let wire = WireVersion::NEWEST.0.to_string();
    text.samples(&f::INFO, [([env!("CARGO_PKG_VERSION"), wire.as_str()], 1)]);
    text.value(&f::UPTIME, env::now().0 / 1_000);
    process(&mut text, &sources.counters);
    text.value(&f::DROPPED, count(&sources.dropped));
    text.value(&f::LEDGER_FAILURES, count(&sources.counters.ledger_failures));
    text.durations(&f::COMMITS, &sources.counters.commits());
    text.value(&f::BROKER_CONNECTED, u8::from(sources.outlet.is_connected()));
    let known = known.ok();
    text.value(&f::LEDGER_REACHABLE, u8::from(known.is_some()));
    ledger(&mut text, known.as_ref(), now);
    exceptions(&mut text, known.as_ref(), now);
    outbox(&mut text, known.as_ref().map(|known| &known.gauges), now);
    let fleet = known.map(|known| fleet::stores(known.fleet, &sources.regions, now)).unwrap_or_default();
    stores(&mut text, &fleet);
    days(&mut text, &sources.standings.borrow());
    let expiry = sources.certificates.iter().filter_map(|(of, file)| {
        let at = counterfoil_config::certificate::ends_at(file)?;
        Some(([*of], at))
    });
    text.samples(&f::CERTIFICATE, expiry);
    text.value(&f::LOG_SUPPRESSED, counterfoil_telemetry::log::suppressed_total());
    Ok(([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], text.finish()).into_response())
}

fn process(text: &mut Exposition, counters: &Counters) {
    let counted = [
        (&f::BATCHES, &counters.batches),
        (&f::RECORDS, &counters.records),
        (&f::DUPLICATES, &counters.duplicates),
        (&f::FORKS, &counters.forks),
        (&f::TRANSACTIONS, &counters.groups),
        (&f::HELLOS, &counters.hellos),
        (&f::ACKS, &counters.acks),
        (&f::NACKS, &counters.nacks),
        (&f::TURNED_AWAY, &counters.turned_away),
        (&f::UNDECODABLE, &counters.undecodable),
    ];
    for (family, counter) in counted {
        text.value(family, count(counter));
    }
}

/// Seconds since then; zero where there is nothing.
fn age_s(at: Option<i64>, now: WallTime) -> i64 {
    at.map_or(0, |at| now.0.saturating_sub(at).max(0) / 1_000)
}

fn ledger(text: &mut Exposition, known: Option<&Known>, now: WallTime) {
    type Of = fn(&Known) -> u64;
    let mut of = |family: &Family, of: Of| text.value_if_known(family, known.map(of));
    of(&f::LEDGER_AGENTS, |known| known.gauges.agents);
    of(&f::LEDGER_ONLINE, |known| known.gauges.online);
    of(&f::LEDGER_RECORDS, |known| known.gauges.records);
    of(&f::LEDGER_DUPLICATES, |known| known.gauges.duplicates);
    of(&f::LEDGER_FORKS, |known| known.gauges.forks);
    of(&f::LEDGER_LAG, |known| known.gauges.lag);
    of(&f::LEDGER_UNSAFE, |known| known.gauges.unsafe_records);
    text.value_if_known(&f::LEDGER_UNSAFE_AGE, known.map(|known| age_s(known.waits.unsafe_since, now)));
    text.value_if_known(&f::LEDGER_POSITION, known.map(|known| known.gauges.last_position));
    text.value_if_known(&f::LEDGER_UNPOSTED, known.map(|known| known.waits.unposted));
    text.value_if_known(&f::LEDGER_UNPOSTED_AGE, known.map(|known| age_s(known.waits.unposted_since, now)));
    text.value_if_known(&f::LEDGER_RESTORES, known.map(|known| known.waits.restores));
    text.value_if_known(&f::LEDGER_EXCEPTIONS, known.map(|known| known.gauges.exceptions_open));
}

fn exceptions(text: &mut Exposition, known: Option<&Known>, now: WallTime) {
    let mut by_labels = std::collections::BTreeMap::new();
    for ((code, owner), found) in known.iter().flat_map(|known| &known.fleet.by_code) {
        let about = finding(code);
        // Codes of other software are one, so that nobody makes more series than there are codes here.
        let labels = [
            about.map_or(Class::Technical, |about| about.class).as_str(),
            about.map_or("other", |about| about.code),
            about.map_or(Severity::Error, |about| about.severity).as_str(),
            owner.as_deref().unwrap_or_else(|| about.map_or("hub_systems", |about| about.owner)),
        ];
        let (open, oldest_at) = by_labels.entry(labels).or_insert((0_u64, found.oldest_at));
        *open = open.saturating_add(found.open);
        *oldest_at = found.oldest_at.min(*oldest_at);
    }
    text.samples(&f::EXCEPTIONS, by_labels.iter().map(|(labels, (open, _))| (*labels, open)));
    text.samples(&f::EXCEPTIONS_AGE, by_labels.iter().map(|(labels, (_, at))| (*labels, age_s(Some(*at), now))));
    let ageing = known.map(|known| known.fleet.ageing);
    let ages = ageing.into_iter().flat_map(|of| {
        [(["under_1h"], of.under_1h), (["under_1d"], of.under_1d), (["under_7d"], of.under_7d), (["older"], of.older)]
    });
    text.samples(&f::EXCEPTIONS_AGEING, ages);
}

fn outbox(text: &mut Exposition, gauges: Option<&Gauges>, now: WallTime) {
    text.value_if_known(&f::OUTBOX, gauges.map(|gauges| gauges.letters_waiting));
    text.value_if_known(&f::OUTBOX_FAILING, gauges.map(|gauges| gauges.letters_failing));
    text.value_if_known(&f::OUTBOX_OLDEST, gauges.map(|gauges| age_s(gauges.letter_oldest_at, now)));
}

fn seconds(age_s: Option<i64>) -> Option<u64> {
    age_s.and_then(|age_s| u64::try_from(age_s).ok())
}

fn stores(text: &mut Exposition, stores: &[Store]) {
    let info = stores.iter().map(|store| ([store.store_id.as_str(), store.region.as_deref().unwrap_or("")], 1));
    text.samples(&f::STORE_INFO, info);
    let mut each = |family: &Family, of: fn(&Store) -> Option<u64>| {
        text.samples(family, stores.iter().filter_map(|store| Some(([store.store_id.as_str()], of(store)?))));
    };
    each(&f::STORE_SILENT, |store| Some(u64::from(store.is_silent())));
    each(&f::STORE_LAST_WORD, |store| seconds(store.silent_s));
    each(&f::STORE_LAG, |store| store.lag);
    each(&f::STORE_LAG_AGE, |store| seconds(store.lag_s));
    each(&f::STORE_AGENTS, |store| Some(store.agents));
    each(&f::STORE_ONLINE, |store| Some(store.agents_online));
    each(&f::STORE_SUSPENDED, |store| Some(store.suspended));
    each(&f::STORE_RECORDS, |store| Some(store.records));
    each(&f::STORE_DUPLICATES, |store| Some(store.duplicates));
    each(&f::STORE_FORKS, |store| Some(store.forks));
    let open = stores.iter().flat_map(|store| {
        let info = store.exceptions_open.saturating_sub(store.errors_open).saturating_sub(store.warnings_open);
        let by_severity = [("error", store.errors_open), ("warning", store.warnings_open), ("info", info)];
        by_severity.map(|(severity, open)| ([store.store_id.as_str(), severity], open))
    });
    text.samples(&f::STORE_EXCEPTIONS, open);
    let oldest = stores.iter().filter_map(|store| Some(([store.store_id.as_str()], store.oldest_exception_s?)));
    text.samples(&f::STORE_EXCEPTION_AGE, oldest);
}

fn days(text: &mut Exposition, standings: &[DayStanding]) {
    let samples = standings.iter().map(|one| ([one.store_id.as_str(), one.day, one.status.as_str()], 1));
    text.samples(&f::STORE_DAY, samples);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::OpenOfCode;

    const NOW: WallTime = WallTime(1_000_000_000);

    #[test]
    fn of_a_ledger_that_is_away_nothing_is_said() {
        let mut text = Exposition::default();
        ledger(&mut text, None, NOW);
        exceptions(&mut text, None, NOW);
        outbox(&mut text, None, NOW);
        stores(&mut text, &[]);
        days(&mut text, &[]);
        let text = text.finish();
        assert!(text.contains("# TYPE counterfoil_hub_store_silent gauge\n"));
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }

    #[test]
    fn codes_of_other_software_are_one_and_a_route_names_the_owner() {
        let open = |open, age_s: i64| OpenOfCode { open, oldest_at: NOW.0 - age_s * 1_000 };
        let by_code = [
            (("MADE_UP_1".to_owned(), None), open(2, 50)),
            (("MADE_UP_2".to_owned(), None), open(3, 70)),
            (("TOTALS_MISMATCH".to_owned(), None), open(1, 5)),
            (("TOTALS_MISMATCH".to_owned(), Some("north \"desk\"".to_owned())), open(4, 6)),
        ];
        let fleet = FleetView { by_code: by_code.into(), ..FleetView::default() };
        let mut text = Exposition::default();
        exceptions(&mut text, Some(&Known { gauges: Gauges::default(), waits: Waits::default(), fleet }), NOW);
        let text = text.finish();
        for line in [
            "open_by_code{class=\"technical\",code=\"other\",severity=\"error\",owner=\"hub_systems\"} 5",
            "oldest_age_seconds{class=\"technical\",code=\"other\",severity=\"error\",owner=\"hub_systems\"} 70",
            "open_by_code{class=\"business\",code=\"TOTALS_MISMATCH\",severity=\"error\",owner=\"store_finance\"} 1",
            "open_by_code{class=\"business\",code=\"TOTALS_MISMATCH\",severity=\"error\",owner=\"north \\\"desk\\\"\"} 4",
        ] {
            assert!(
                text.lines().any(|found| found.strip_prefix("counterfoil_hub_exceptions_") == Some(line)),
                "{line}\n{text}"
            );
        }
    }
}
