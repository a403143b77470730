//! Counts in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::{Answer, Sources, count};
use crate::env;

/// Zero where there is none.
fn oldest_s(written_at: Option<i64>) -> u64 {
    let age_ms = written_at.map_or(0, |written_at| env::wall().0.saturating_sub(written_at));
    u64::try_from(age_ms / 1_000).unwrap_or_default()
}

pub(super) async fn get(State(sources): State<Arc<Sources>>) -> Answer {
    let counters = &sources.counters;
    let mut lines = vec![
        ("batches_total", "counter", "Batches taken in", count(&counters.batches)),
        ("records_total", "counter", "Records that were new", count(&counters.records)),
        ("duplicates_total", "counter", "Records that were there already", count(&counters.duplicates)),
        ("forks_total", "counter", "Records under a number that another has", count(&counters.forks)),
        ("transactions_total", "counter", "Transactions of intake", count(&counters.groups)),
        ("hellos_total", "counter", "Hello pages answered", count(&counters.hellos)),
        ("acks_total", "counter", "Acks published", count(&counters.acks)),
        ("nacks_total", "counter", "Batches refused", count(&counters.nacks)),
        ("turned_away_total", "counter", "Messages of agents whose identity was revoked", count(&counters.turned_away)),
        ("undecodable_total", "counter", "Messages that do not decode", count(&counters.undecodable)),
        ("dropped_total", "counter", "Messages dropped because the receiver did not keep up", count(&sources.dropped)),
        ("ledger_failures_total", "counter", "Failed attempts at the ledger", count(&counters.ledger_failures)),
        ("commit_microseconds", "gauge", "Duration of the last transaction of intake", count(&counters.last_commit_us)),
        (
            "broker_connected",
            "gauge",
            "Whether the broker accepted the subscriptions",
            u64::from(sources.outlet.is_connected()),
        ),
    ];
    // What the ledger knows is left out while it cannot be asked; the rest is then all the more wanted.
    if let Ok(gauges) = sources.ledger.gauges().await {
        lines.extend([
            ("ledger_agents", "gauge", "Agents that ever spoke", gauges.agents),
            ("ledger_agents_online", "gauge", "Agents whose presence is online", gauges.online),
            ("ledger_records", "gauge", "Records stored", gauges.records),
            ("ledger_duplicates", "gauge", "Records that came again", gauges.duplicates),
            ("ledger_forks", "gauge", "Forks", gauges.forks),
            ("ledger_lag_records", "gauge", "Records known of but not stored", gauges.lag),
            ("ledger_unsafe_records", "gauge", "Records stored but in no verified backup", gauges.unsafe_records),
            ("ledger_last_position", "gauge", "The last position", gauges.last_position),
            ("ledger_exceptions_open", "gauge", "Exceptions that are open", gauges.exceptions_open),
            ("outbox_letters", "gauge", "Letters to webhooks that wait", gauges.letters_waiting),
            ("outbox_letters_failing", "gauge", "Of these, those that a webhook did not take", gauges.letters_failing),
            (
                "outbox_oldest_seconds",
                "gauge",
                "Age of the oldest letter that waits",
                oldest_s(gauges.letter_oldest_at),
            ),
        ]);
    }
    let mut text = String::new();
    for (name, kind, help, value) in lines {
        let line = writeln!(
            text,
            "# HELP counterfoil_hub_{name} {help}\n# TYPE counterfoil_hub_{name} {kind}\ncounterfoil_hub_{name} {value}"
        );
        debug_assert!(line.is_ok(), "writing to a string does not fail");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
