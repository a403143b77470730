//! Counters of the ingress, and everything countable about the agent as Prometheus text.
//!
//! Invariant: names are for ever, each has its HELP and TYPE, and the number of series does not depend on what anybody sends.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::route::ROUTES;
use crate::agent::Spooled;
use crate::answer::{LaneStatus, Status};

/// The statuses that answers have; another one would count as the last.
const STATUSES: [u16; 16] = [200, 201, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422, 503, 507, 500, 0];

/// Calls, and one for what matched none.
const CALLS: usize = ROUTES.len() + 1;

/// What the ingress counts, without a lock.
#[derive(Debug)]
pub struct Counters {
    answered: [[AtomicU64; STATUSES.len()]; CALLS],
    connections: AtomicU64,
    given_up: AtomicU64,
    turned_away: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            answered: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            connections: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts an answer to a call of [`ROUTES`], or to none.
    pub fn answered(&self, route: Option<usize>, status: u16) {
        let of_route = self.answered.get(route.unwrap_or(ROUTES.len()));
        let column = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        if let Some(count) = of_route.and_then(|counts| counts.get(column)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how many connections are open.
    pub fn connections(&self, open: usize) {
        self.connections.store(u64::try_from(open).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a connection that had to make room.
    pub fn given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection for which there was no room.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }
}

/// The text. Label values are names of our own or checked names, so that none needs escaping.
pub fn render(
    status: &Status,
    refused: &BTreeMap<&'static str, u64>,
    spooled: &Spooled,
    counters: &Counters,
) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    agent(&mut text, status, refused);
    lanes(&mut text, status);
    uplink_and_disk(&mut text, status);
    ingress(&mut text, counters);
    spool(&mut text, spooled);
    text.0
}

fn agent(text: &mut Text, status: &Status, refused: &BTreeMap<&'static str, u64>) {
    text.family("counterfoil_info", "gauge", "What runs here; always 1.");
    text.sample(
        "counterfoil_info",
        &[("version", &status.version), ("store_id", &status.store_id), ("agent_id", &status.agent_id)],
        1,
    );
    text.gauge("counterfoil_ready", "Whether documents are accepted.", u64::from(status.ready));
    text.gauge("counterfoil_uptime_seconds", "Since the start.", status.uptime_s);
    text.gauge(
        "counterfoil_clock_synchronised",
        "Whether the wall clock is vouched for.",
        u64::from(status.clock == "synchronised"),
    );
    text.gauge("counterfoil_exceptions_open", "Exceptions that wait for a person.", status.open_exceptions);
    text.counter("counterfoil_documents_recorded_total", "Documents recorded since the start.", status.recorded);
    text.counter(
        "counterfoil_documents_duplicate_total",
        "Documents that had been recorded before.",
        status.duplicates,
    );
    text.counter("counterfoil_documents_conflict_total", "Documents with the identity of another.", status.conflicts);
    text.family(
        "counterfoil_documents_refused_total",
        "counter",
        "Documents or bodies that were not recorded, by problem.",
    );
    for (problem, count) in refused {
        text.sample("counterfoil_documents_refused_total", &[("problem", problem)], *count);
    }
}

fn lanes(text: &mut Text, status: &Status) {
    type Of = fn(&LaneStatus) -> Option<u64>;
    let families: [(&str, &str, Of); 6] = [
        ("counterfoil_lane_head", "The last number that was given in the live epoch.", |lane| Some(lane.head)),
        ("counterfoil_lane_sent", "The last number handed to MQTT in this session.", |lane| Some(lane.sent)),
        ("counterfoil_lane_stored", "The last number that the hub committed, with all before it.", |lane| {
            Some(lane.stored)
        }),
        ("counterfoil_lane_safe", "The last number in the hub's verified backup, with all before it.", |lane| {
            Some(lane.safe)
        }),
        ("counterfoil_lane_waiting_records", "Records that the hub has not committed, of all epochs.", |lane| {
            Some(lane.waiting)
        }),
        ("counterfoil_lane_oldest_unsent_age_seconds", "Age of the oldest of them; absent where none waits.", |lane| {
            lane.oldest_unsent_age_s
        }),
    ];
    for (name, help, of) in families {
        text.family(name, "gauge", help);
        for (lane, standing) in &status.lanes {
            if let Some(value) = of(standing) {
                text.sample(name, &[("lane", lane)], value);
            }
        }
    }
}

fn uplink_and_disk(text: &mut Text, status: &Status) {
    let (uplink, disk) = (&status.uplink, &status.disk);
    text.gauge(
        "counterfoil_uplink_connected",
        "Whether the broker accepted the connection.",
        u64::from(uplink.connected),
    );
    text.gauge("counterfoil_uplink_welcomed", "Whether the hub answered in this session.", u64::from(uplink.welcomed));
    text.counter(
        "counterfoil_uplink_connections_total",
        "Connections to the broker since the start.",
        uplink.connections,
    );
    text.counter("counterfoil_uplink_batches_sent_total", "Batches published.", uplink.batches_sent);
    text.counter("counterfoil_uplink_batches_resent_total", "Batches published again.", uplink.batches_resent);
    text.counter("counterfoil_uplink_sent_bytes_total", "Bytes of batches after compression.", uplink.bytes_sent);
    text.gauge(
        "counterfoil_uplink_contested_lanes",
        "Lanes under whose numbers the hub has records of another box.",
        u64::try_from(uplink.contested_lanes).unwrap_or(u64::MAX),
    );
    text.gauge(
        "counterfoil_uplink_revoked",
        "Whether head office takes nothing from this box.",
        u64::from(uplink.revoked),
    );
    if let Some(certificate) = &status.certificate {
        text.gauge(
            "counterfoil_certificate_not_after_seconds",
            "End of the certificate, in seconds since 1970; 0 where there is none.",
            certificate.not_after_s.unwrap_or(0),
        );
        text.gauge(
            "counterfoil_certificate_valid",
            "Whether the certificate is there, not expired and not revoked.",
            u64::from(certificate.state == "valid"),
        );
        text.counter("counterfoil_certificate_renewals_total", "Renewals of the certificate.", certificate.renewals);
        text.counter(
            "counterfoil_certificate_failures_total",
            "Renewals of the certificate that failed.",
            certificate.failures,
        );
    }
    text.gauge("counterfoil_journal_bytes", "The journal with its side files and ballast.", disk.journal_bytes);
    text.gauge("counterfoil_journal_bytes_max", "What the journal may take.", disk.journal_bytes_max);
    text.gauge("counterfoil_journal_segments", "Segments in the journal.", disk.segments);
    text.gauge(
        "counterfoil_journal_full",
        "Whether new records are refused because the disk is full.",
        u64::from(disk.full),
    );
    text.counter("counterfoil_journal_written_bytes_total", "Bytes written to journal files.", disk.bytes_written);
    text.counter("counterfoil_journal_syncs_total", "Syncs of the journal.", disk.syncs);
    text.gauge("counterfoil_disk_free_bytes", "Free bytes of the file system.", disk.free_bytes);
}

fn ingress(text: &mut Text, counters: &Counters) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    text.gauge("counterfoil_http_connections", "Open connections of tills.", read(&counters.connections));
    text.counter(
        "counterfoil_http_connections_given_up_total",
        "Idle or slow connections that had to make room.",
        read(&counters.given_up),
    );
    text.counter(
        "counterfoil_http_connections_turned_away_total",
        "Connections for which there was no room.",
        read(&counters.turned_away),
    );
    text.family("counterfoil_http_responses_total", "counter", "Answers by call and status.");
    for (index, of_route) in counters.answered.iter().enumerate() {
        let route = ROUTES.get(index).map_or("none", |route| route.path);
        for (status, count) in STATUSES.iter().zip(of_route).filter(|(_, count)| read(count) > 0) {
            text.sample(
                "counterfoil_http_responses_total",
                &[("route", route), ("status", &status.to_string())],
                read(count),
            );
        }
    }
}

fn spool(text: &mut Text, spooled: &Spooled) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    text.counter(
        "counterfoil_spool_files_taken_total",
        "Files taken out of the spool directory.",
        read(&spooled.taken),
    );
    text.counter(
        "counterfoil_spool_files_refused_total",
        "Files that ended in failed/: something in them was refused, or they held nothing.",
        read(&spooled.refused),
    );
    text.counter(
        "counterfoil_spool_documents_total",
        "Documents in files that were answered, whatever the answer.",
        read(&spooled.documents),
    );
    text.counter(
        "counterfoil_spool_files_renamed_total",
        "Files whose name was not UTF-8, taken under a name that is.",
        read(&spooled.renamed),
    );
    text.gauge("counterfoil_spool_files_waiting", "Finished files that are not answered yet.", read(&spooled.waiting));
    text.gauge(
        "counterfoil_spool_oldest_file_age_seconds",
        "Age of the oldest of them by its last change; 0 where none waits.",
        read(&spooled.oldest_age_s),
    );
}

struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn family(&mut self, name: &str, form: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {form}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(format_args!("{name}"));
        for (index, (label, of)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.line(format_args!("{before}{label}=\"{of}\""));
        }
        self.line(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("writing to a String does not fail");
    }
}
