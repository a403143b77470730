//! `counterfoil status`: is everything all right on this box, and if not, what is to be done; the words of the status page for a terminal.
//!
//! Invariant: whatever is not as it should be stands first, the worst at the top; figures follow.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Client, ClientError, age, laid_out, plain};
use crate::answer::{DayAnswer, ExceptionAnswer, LaneStatus, Standing, Status};

/// A delivery that takes longer is worth a word.
const SLOW_S: u64 = 120;
/// Of its share of the disk; beyond it there is little room left.
const DISK_PERCENT_MAX: u64 = 80;
const DISK_FREE_MIN: u64 = 512 << 20;

/// What is asked of a running agent.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// `GET /v1/status`.
    pub status: Status,
    /// `GET /v1/days/…` of the business day that it is.
    pub day: DayAnswer,
    /// `GET /v1/exceptions`.
    pub exceptions: Vec<ExceptionAnswer>,
}

/// Asks.
pub fn overview(client: &Client) -> Result<Overview, ClientError> {
    let status: Status = client.get("/v1/status")?;
    let day = client.get(&format!("/v1/days/{}", status.business_day_date))?;
    Ok(Overview { status, day, exceptions: client.get("/v1/exceptions")? })
}

impl Overview {
    fn waiting(&self) -> u64 {
        self.status.lanes.values().map(|lane| lane.waiting).sum()
    }

    fn oldest_s(&self) -> u64 {
        self.status.lanes.values().filter_map(|lane| lane.oldest_unsent_age_s).max().unwrap_or(0)
    }

    fn is_reached(&self) -> bool {
        self.status.uplink.connected && self.status.uplink.welcomed
    }

    fn disk_percent(&self) -> u64 {
        let disk = &self.status.disk;
        disk.journal_bytes.saturating_mul(100).checked_div(disk.journal_bytes_max).unwrap_or(0)
    }

    /// What is not as it should be, the worst first.
    pub fn matters(&self) -> Vec<String> {
        let Status { mode, uplink, clock, disk, .. } = &self.status;
        let (mut bad, mut found) = (Vec::new(), Vec::new());
        match mode.as_str() {
            "drain_only" => bad.push(
                "The disk of this box failed. Tills are refused; what was recorded is still being delivered. Call the technician."
                    .to_owned(),
            ),
            "full" => bad.push(
                "The disk is full. New sales are refused until head office has taken some over; nothing recorded is lost."
                    .to_owned(),
            ),
            "stopping" => found.push("The box is stopping. Tills are answered again when it has started.".to_owned()),
            _ => {}
        }
        if uplink.contested_lanes > 0 {
            bad.push("Another box runs under this name: it was copied or set back. Call the technician.".to_owned());
        }
        let waiting = match self.waiting() {
            0 => "nothing waits".to_owned(),
            count => format!("{}, the oldest for {}", records(count), age(self.oldest_s())),
        };
        if !self.is_reached() {
            let why = uplink.last_error.as_deref().map(|why| format!(" Last fault: {}.", plain(why)));
            let why = why.unwrap_or_default();
            found.push(format!("Head office cannot be reached. Sales go on and are safe on this box; {waiting}.{why}"));
        } else if self.oldest_s() > SLOW_S {
            found.push(format!("Delivery to head office is slow: {waiting}."));
        }
        if mode == "accepting" && (self.disk_percent() > DISK_PERCENT_MAX || disk.free_bytes < DISK_FREE_MIN) {
            let (percent, free) = (self.disk_percent(), size(disk.free_bytes));
            found.push(format!("The disk is filling up: {percent} % of its share is used, {free} are free."));
        }
        if clock == "behind" {
            found
                .push("The clock is behind the records of this box. Set it, or let it reach a time server.".to_owned());
        }
        if matches!(self.day.standing, Standing::Over | Standing::Short) {
            found.push(format!("Today's close does not match: {}.", standing(self.day.standing)));
        }
        let open = self.exceptions.iter().filter(|one| one.severity != "info").count();
        let errors = self.exceptions.iter().filter(|one| one.severity == "error").count();
        if open > 0 {
            let needs = if open == 1 { "1 matter needs".to_owned() } else { format!("{open} matters need") };
            let text = format!("{needs} a person, {errors} of them serious: counterfoil exceptions shows them.");
            if errors > 0 { bad.push(text) } else { found.push(text) }
        }
        bad.append(&mut found);
        bad
    }

    /// As a person reads it.
    pub fn text(&self) -> String {
        let Self { status, day, exceptions } = self;
        let Status { store_id, agent_id, version, uplink, disk, .. } = status;
        let mut text = String::new();
        let matters = self.matters();
        let verdict = if matters.is_empty() { "everything is all right" } else { "not everything is as it should be" };
        // Writing to memory does not fail.
        let _written = writeln!(text, "Store {store_id}, box {agent_id}: {verdict}");
        for matter in &matters {
            let _written = writeln!(text, "  ! {matter}");
        }
        let reached = match (uplink.connected, uplink.welcomed) {
            (true, true) => "connected",
            (true, false) => "the broker is reached, the hub does not answer yet",
            (false, _) => "not connected",
        };
        let word = match uplink.last_word_at.as_deref().map(|at| (at, between(at, &status.time))) {
            None => "no word since the start".to_owned(),
            Some((_, Some(ago))) => format!("last word {} ago", age(ago)),
            Some((at, None)) => format!("last word {}", plain(at)),
        };
        let oldest =
            self.exceptions.iter().map(|one| one.age_s).max().map(|oldest| format!(", the oldest for {}", age(oldest)));
        let facts = [
            ("Head office", format!("{reached}; {word}")),
            ("Waiting", self.waiting_text()),
            ("Today", format!("{}: {}{}", day.business_day_date, standing(day.standing), sold(day))),
            ("Exceptions", format!("{} open{}", exceptions.len(), oldest.unwrap_or_default())),
            (
                "Disk",
                format!(
                    "{} of {} used by the journal, {} free",
                    size(disk.journal_bytes),
                    size(disk.journal_bytes_max),
                    size(disk.free_bytes)
                ),
            ),
            ("Clock", format!("{}, {}", status.time, plain(&status.clock))),
            (
                "Running",
                format!("{}, {}, version {version}", age(status.uptime_s), plain(&status.mode).replace('_', " ")),
            ),
        ];
        let rows = facts.map(|(name, fact)| vec![name.to_owned(), fact]);
        for line in laid_out(&rows) {
            let _written = writeln!(text, "{line}");
        }
        text
    }

    fn waiting_text(&self) -> String {
        let lane = |(name, lane): (&String, &LaneStatus)| format!("{} {name}", lane.waiting);
        let lanes = self.status.lanes.iter().filter(|(_, lane)| lane.waiting > 0).map(lane).collect::<Vec<_>>();
        match self.waiting() {
            0 => "nothing".to_owned(),
            count => format!("{} ({}), the oldest for {}", records(count), lanes.join(", "), age(self.oldest_s())),
        }
    }
}

/// Seconds from one RFC 3339 time to another.
fn between(earlier: &str, later: &str) -> Option<u64> {
    let second = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    Some(u64::try_from(second(later)? - second(earlier)?).unwrap_or(0))
}

fn records(count: u64) -> String {
    if count == 1 { "1 record waits".to_owned() } else { format!("{count} records wait") }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Matched => "closed, and it matches",
        Standing::Unknown => "nothing recorded",
        Standing::Open => "not closed",
        Standing::Over => "closed, and more was counted than declared",
        Standing::Short => "closed, and less was counted than declared",
    }
}

fn sold(day: &DayAnswer) -> String {
    let sums = day.currencies.iter();
    let sums =
        sums.map(|sums| format!(", {} transactions, {} {}", sums.transactions, sums.gross, plain(&sums.currency_code)));
    sums.collect()
}

/// Bytes as a person says them.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..=10_239 => format!("{bytes} bytes"),
        10_240..=10_485_759 => format!("{} KiB", bytes >> 10),
        10_485_760..=10_737_418_239 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{DiskStatus, UplinkStatus};

    fn well() -> Overview {
        let uplink = UplinkStatus { connected: true, welcomed: true, ..UplinkStatus::default() };
        let disk = DiskStatus {
            journal_bytes: 1 << 20,
            journal_bytes_max: 1 << 30,
            free_bytes: 1 << 34,
            ..DiskStatus::default()
        };
        let lanes = [("trade".to_owned(), LaneStatus { head: 5, ..LaneStatus::default() })].into();
        let [mode, clock] = ["accepting", "synchronised"].map(str::to_owned);
        let status = Status { mode, clock, uplink, disk, lanes, ready: true, ..Status::default() };
        Overview { status, day: DayAnswer::default(), exceptions: Vec::new() }
    }

    #[test]
    fn a_box_that_is_well_has_nothing_to_say_and_each_fault_has_its_line_the_worst_first() {
        assert!(well().matters().is_empty() && well().text().contains("everything is all right"));
        let mut ill = well();
        ill.status.uplink.connected = false;
        ill.status.lanes.insert(
            "stock".to_owned(),
            LaneStatus { waiting: 7, oldest_unsent_age_s: Some(7_300), ..LaneStatus::default() },
        );
        ill.status.clock = "behind".to_owned();
        ill.status.mode = "drain_only".to_owned();
        ill.day.standing = Standing::Short;
        let matters = ill.matters();
        let starts =
            ["The disk of this box failed", "Head office cannot be reached", "The clock is behind", "Today's close"];
        assert!(
            matters.len() == 4 && matters.iter().zip(starts).all(|(one, start)| one.starts_with(start)),
            "{matters:?}"
        );
        assert!(ill.text().contains("7 records wait (7 stock), the oldest for 2 h"), "{}", ill.text());
    }

    #[test]
    fn what_others_wrote_is_shown_without_what_a_terminal_obeys() {
        let mut ill = well();
        ill.status.uplink.connected = false;
        ill.status.uplink.last_error = Some("refused \u{1b}[31m".to_owned());
        assert!(!ill.text().contains('\u{1b}'));
    }
}
