//! Counters of the ingress, and everything countable about the agent as Prometheus text.
//!
//! Invariant: every family of [`families`] is written, each time, and the number of series does not depend on what anybody sends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use counterfoil_proto::message::WireVersion;
use counterfoil_telemetry::metrics::{Exposition, Family};

use super::route::ROUTES;
use crate::agent::{Refusals, Spooled, Tally};
use crate::answer::{LaneStatus, Standing, Status};
use crate::journal::limits::FORMAT_VERSION;

pub mod families;

use families as f;

/// The statuses that answers have; another one would count as the last.
const STATUSES: [u16; 17] = [200, 201, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 503, 507, 500, 0];

/// Calls, and one for what matched none.
const CALLS: usize = ROUTES.len() + 1;

/// What the ingress counts, without a lock.
#[derive(Debug)]
pub struct Counters {
    answered: [[AtomicU64; STATUSES.len()]; CALLS],
    refused: Refusals,
    connections: AtomicU64,
    given_up: AtomicU64,
    turned_away: AtomicU64,
    connections_refused: AtomicU64,
    shut_out: AtomicU64,
    unencrypted: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            answered: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            refused: Refusals::default(),
            connections: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            shut_out: AtomicU64::new(0),
            unencrypted: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts an answer to a call of [`ROUTES`], or to none, and the problem that it names.
    pub fn answered(&self, route: Option<usize>, status: u16, problem: Option<&'static str>) {
        let of_route = self.answered.get(route.unwrap_or(ROUTES.len()));
        let column = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        if let Some(count) = of_route.and_then(|counts| counts.get(column)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(problem) = problem {
            self.refused.count(problem);
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

    /// Counts a connection of a peer that opened too many of them.
    pub fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a peer that is shut out.
    pub fn shut_out(&self) {
        self.shut_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection on which TLS was not agreed on.
    pub fn unencrypted(&self) {
        self.unencrypted.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the text is made of.
#[derive(Debug)]
pub struct Figures<'a> {
    /// The newest snapshot.
    pub status: &'a Status,
    /// What is counted on demand; `None` where the journal's thread did not answer in time.
    pub tally: Option<&'a Tally>,
    /// Documents that were refused, by problem.
    pub refused: &'a BTreeMap<&'static str, u64>,
    /// The spool's.
    pub spooled: &'a Spooled,
    /// The ingress's.
    pub counters: &'a Counters,
    /// Certificates that are looked after, by what they are for.
    pub certificates: &'a [(&'static str, PathBuf)],
}

/// The text.
pub fn render(figures: &Figures<'_>) -> String {
    let mut text = Exposition::default();
    agent(&mut text, figures.status);
    exceptions(&mut text, figures.status, figures.tally);
    documents(&mut text, figures.status, figures.refused);
    lanes(&mut text, figures.status);
    uplink(&mut text, figures.status);
    disk(&mut text, figures.status);
    ingress(&mut text, figures.counters);
    spool(&mut text, figures.spooled);
    let expiry = figures.certificates.iter().filter_map(|(of, file)| {
        let at = counterfoil_config::certificate::ends_at(file)?;
        Some(([*of], at))
    });
    text.samples(&f::CERTIFICATE, expiry);
    text.value(&f::LOG_SUPPRESSED, counterfoil_telemetry::log::suppressed_total());
    text.finish()
}

fn agent(text: &mut Exposition, status: &Status) {
    let [format, wire] = [FORMAT_VERSION, u16::from(WireVersion::NEWEST.0)].map(|version| version.to_string());
    text.samples(&f::INFO, [([status.version.as_str(), &status.store_id, &status.agent_id, &format, &wire], 1)]);
    text.value(&f::READY, u8::from(status.ready));
    text.one_of(&f::MODE, &["accepting", "full", "drain_only"], Some(&status.mode));
    text.value(&f::UPTIME, status.uptime_s);
    text.value(&f::CLOCK_SYNCHRONISED, u8::from(status.clock == "synchronised"));
    text.one_of(&f::CLOCK, &["synchronised", "unsynchronised", "behind"], Some(&status.clock));
    text.value_if_known(&f::TIME, unix_s(&status.time));
}

fn unix_s(rfc3339: &str) -> Option<i64> {
    rfc3339.parse().ok().map(jiff::Timestamp::as_second)
}

fn exceptions(text: &mut Exposition, status: &Status, tally: Option<&Tally>) {
    text.value(&f::EXCEPTIONS_OPEN, status.open_exceptions);
    let open = || {
        let found = tally.into_iter().flat_map(|tally| &tally.exceptions);
        found.map(|one| ([one.class.as_str(), one.code, one.severity.as_str(), one.owner], one))
    };
    text.samples(&f::EXCEPTIONS, open().map(|(labels, one)| (labels, one.open)));
    text.samples(&f::EXCEPTIONS_AGE, open().map(|(labels, one)| (labels, one.oldest_s)));
    let named = |standing| match standing {
        Standing::Matched => "matched",
        Standing::Unknown => "unknown",
        Standing::Open => "open",
        Standing::Over => "over",
        Standing::Short => "short",
    };
    let all = ["matched", "unknown", "open", "over", "short"];
    text.one_of(&f::DAY_STANDING, &all, tally.map(|tally| named(tally.today)));
}

fn documents(text: &mut Exposition, status: &Status, refused: &BTreeMap<&'static str, u64>) {
    text.value(&f::RECORDED, status.recorded);
    text.value(&f::DUPLICATES, status.duplicates);
    text.value(&f::CONFLICTS, status.conflicts);
    text.samples(&f::REFUSED, refused.iter().map(|(problem, count)| ([*problem], count)));
}

fn lanes(text: &mut Exposition, status: &Status) {
    type Of = fn(&LaneStatus) -> Option<u64>;
    let families: [(&Family, Of); 6] = [
        (&f::LANE_HEAD, |lane| Some(lane.head)),
        (&f::LANE_SENT, |lane| Some(lane.sent)),
        (&f::LANE_STORED, |lane| Some(lane.stored)),
        (&f::LANE_SAFE, |lane| Some(lane.safe)),
        (&f::LANE_WAITING, |lane| Some(lane.waiting)),
        (&f::LANE_OLDEST, |lane| lane.oldest_unsent_age_s),
    ];
    for (family, of) in families {
        let samples = status.lanes.iter().filter_map(|(lane, standing)| Some(([lane.as_str()], of(standing)?)));
        text.samples(family, samples);
    }
}

fn uplink(text: &mut Exposition, status: &Status) {
    let uplink = &status.uplink;
    text.value(&f::UPLINK_CONNECTED, u8::from(uplink.connected));
    text.value(&f::UPLINK_WELCOMED, u8::from(uplink.welcomed));
    text.value(&f::UPLINK_ATTEMPTS, uplink.attempts);
    text.value_if_known(&f::UPLINK_LAST_WORD, uplink.last_word_at.as_deref().and_then(unix_s));
    text.value(&f::UPLINK_CONNECTIONS, uplink.connections);
    text.value(&f::BATCHES_SENT, uplink.batches_sent);
    text.value(&f::BATCHES_RESENT, uplink.batches_resent);
    text.value(&f::BYTES_SENT, uplink.bytes_sent);
    text.value(&f::CONTESTED, uplink.contested_lanes);
    text.value(&f::UPLINK_REVOKED, u8::from(uplink.revoked));
    let certificate = status.certificate.as_ref();
    text.value_if_known(&f::CERTIFICATE_VALID, certificate.map(|certificate| u8::from(certificate.state == "valid")));
    text.value_if_known(&f::CERTIFICATE_RENEWALS, certificate.map(|certificate| certificate.renewals));
    text.value_if_known(&f::CERTIFICATE_FAILURES, certificate.map(|certificate| certificate.failures));
}

fn disk(text: &mut Exposition, status: &Status) {
    let disk = &status.disk;
    text.value(&f::JOURNAL_BYTES, disk.journal_bytes);
    text.value(&f::JOURNAL_BYTES_MAX, disk.journal_bytes_max);
    text.value(&f::JOURNAL_SEGMENTS, disk.segments);
    text.value(&f::JOURNAL_FULL, u8::from(disk.full));
    text.value(&f::JOURNAL_WRITTEN, disk.bytes_written);
    text.value(&f::JOURNAL_SYNCS, disk.syncs);
    text.durations(&f::JOURNAL_COMMITS, &status.commits);
    text.value(&f::DISK_FREE, disk.free_bytes);
}

fn ingress(text: &mut Exposition, counters: &Counters) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    text.value(&f::HTTP_CONNECTIONS, read(&counters.connections));
    text.value(&f::HTTP_GIVEN_UP, read(&counters.given_up));
    text.value(&f::HTTP_TURNED_AWAY, read(&counters.turned_away));
    text.value(&f::HTTP_CONNECTIONS_REFUSED, read(&counters.connections_refused));
    text.value(&f::HTTP_SHUT_OUT, read(&counters.shut_out));
    text.value(&f::HTTP_HANDSHAKES_FAILED, read(&counters.unencrypted));
    let statuses = STATUSES.map(|status| status.to_string());
    let answered = counters.answered.iter().enumerate().flat_map(|(index, of_route)| {
        let route = ROUTES.get(index).map_or("none", |route| route.path);
        statuses.iter().zip(of_route).map(move |(status, count)| ([route, status.as_str()], read(count)))
    });
    text.samples(&f::HTTP_RESPONSES, answered.filter(|(_, count)| *count > 0));
    let refused = counters.refused.counts();
    text.samples(&f::HTTP_REFUSED, refused.iter().map(|(problem, count)| ([*problem], count)));
}

fn spool(text: &mut Exposition, spooled: &Spooled) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    text.value(&f::SPOOL_TAKEN, read(&spooled.taken));
    text.value(&f::SPOOL_REFUSED, read(&spooled.refused));
    text.value(&f::SPOOL_DOCUMENTS, read(&spooled.documents));
    text.value(&f::SPOOL_RENAMED, read(&spooled.renamed));
    text.value(&f::SPOOL_WAITING, read(&spooled.waiting));
    text.value(&f::SPOOL_OLDEST, read(&spooled.oldest_age_s));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_written_in_the_order_of_the_table_even_where_nothing_is_known() {
        let figures = Figures {
            status: &Status::default(),
            tally: None,
            refused: &BTreeMap::new(),
            spooled: &Spooled::default(),
            counters: &Counters::default(),
            certificates: &[("mqtt", "/nowhere.pem".into())],
        };
        let text = render(&figures);
        let written: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let listed: Vec<&str> = families::FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(written, listed);
    }
}
