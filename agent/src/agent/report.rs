//! The status snapshot: what the owner knows, put together for people, metrics and health checks.
//!
//! Invariant: computing it neither syncs nor changes anything; the age of the oldest waiting record is read from the journal once per
//! record, not once per look.

use std::collections::BTreeMap;
use std::time::Duration;

use counterfoil_proto::id::{Lane, RecordKey};
use counterfoil_proto::record::{Context, Record};
use counterfoil_proto::time::{ClockQuality, Moment, WallTime};
use counterfoil_telemetry::metrics::Durations;

use super::group::age_s;
use super::owner::{Mode, Owner};
use crate::answer::{DiskStatus, LaneStatus, Outcome, Status};
use crate::config::Config;
use crate::journal::{EpochView, Read, Reader};

/// What the snapshot needs beside journal and state.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    store_id: String,
    agent_id: String,
    bytes_max: u64,
    /// What business day it is.
    context: Option<Context>,
    started: Moment,
    reader: Option<Reader>,
    recorded: u64,
    duplicates: u64,
    conflicts: u64,
    commits: Durations,
    oldest: BTreeMap<Lane, (RecordKey, WallTime)>,
}

impl Reporter {
    pub(super) fn store_id(&self) -> &str {
        &self.store_id
    }

    pub(super) fn new(config: &Config, started: Moment, reader: Reader) -> Self {
        Self {
            store_id: config.source.store_id.to_string(),
            agent_id: config.source.agent_id.to_string(),
            bytes_max: config.journal.bytes_max,
            context: Some(config.context()),
            started,
            reader: Some(reader),
            ..Self::default()
        }
    }

    /// Counts what tills were told.
    pub(super) fn count(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let counter = match outcome {
                Outcome::Recorded(_) => &mut self.recorded,
                Outcome::Duplicate(_) => &mut self.duplicates,
                Outcome::Conflict(_) => &mut self.conflicts,
            };
            *counter = counter.saturating_add(1);
        }
    }

    /// Counts a group commit.
    pub(super) fn committed(&mut self, took: Duration) {
        self.commits.add(took);
    }

    /// The business day that it is in this store.
    pub(super) fn business_day(&self, wall: WallTime) -> String {
        self.context.as_ref().map(|context| context.business_day(wall)).unwrap_or_default()
    }

    /// The snapshot.
    pub(super) fn status(&mut self, owner: &Owner, now: Moment) -> Status {
        let view = std::sync::Arc::clone(&owner.uplink.borrow());
        let wall = owner.env.wall();
        let epochs = owner.journal.lanes();
        let lanes = Lane::ALL.into_iter().map(|lane| {
            let status = self.lane(owner, &epochs, lane, wall);
            (lane.to_string(), LaneStatus { sent: view_sent(&view, owner, lane), ..status })
        });
        let lanes = lanes.collect();
        let figures = owner.journal.figures();
        Status {
            store_id: self.store_id.clone(),
            agent_id: self.agent_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: owner.journal.epoch().map(|epoch| epoch.to_string()),
            ready: owner.mode == Mode::Accepting,
            mode: match owner.mode {
                Mode::Accepting => "accepting",
                Mode::Full => "full",
                Mode::DrainOnly => "drain_only",
            }
            .to_owned(),
            lanes,
            uplink: view.status.clone(),
            certificate: view.certificate.clone(),
            disk: DiskStatus {
                journal_bytes: figures.journal_bytes,
                journal_bytes_max: self.bytes_max,
                free_bytes: owner.free_bytes(),
                segments: figures.segments,
                full: owner.mode == Mode::Full,
                bytes_written: figures.bytes_written,
                syncs: figures.syncs,
            },
            clock: match owner.env.clock_quality(owner.wall_newest) {
                ClockQuality::Synchronised => "synchronised",
                ClockQuality::Unsynchronised => "unsynchronised",
                ClockQuality::Behind => "behind",
            }
            .to_owned(),
            time: wall.to_rfc3339(),
            business_day_date: self.business_day(wall),
            uptime_s: now.since_ms(self.started) / 1_000,
            open_exceptions: owner.state.open_exceptions(),
            recorded: self.recorded,
            duplicates: self.duplicates,
            conflicts: self.conflicts,
            commits: self.commits.clone(),
        }
    }

    fn lane(&mut self, owner: &Owner, epochs: &[EpochView], lane: Lane, wall: WallTime) -> LaneStatus {
        let mut status = LaneStatus::default();
        let mut oldest = None;
        for view in epochs {
            let Some(head) = view.lanes.iter().find(|head| head.lane == lane) else { continue };
            let key = counterfoil_proto::id::LaneKey { epoch: view.epoch, lane };
            let marks = owner.journal.marks(key);
            let stored = marks.stored.max(head.first.previous());
            let waiting = head.last.above(stored);
            status.waiting = status.waiting.saturating_add(waiting);
            if waiting > 0 && oldest.is_none() {
                oldest = Some(RecordKey { epoch: view.epoch, lane, seq: stored.next() });
            }
            if view.live {
                status.head = head.last.0;
                status.stored = marks.stored.0;
                status.safe = marks.safe.0;
            }
        }
        status.oldest_unsent_age_s = oldest.and_then(|key| self.recorded_at(key)).map(|at| age_s(at, wall));
        status
    }

    fn recorded_at(&mut self, key: RecordKey) -> Option<WallTime> {
        if let Some((known, at)) = self.oldest.get(&key.lane)
            && *known == key
        {
            return Some(*at);
        }
        let reader = self.reader.as_mut()?;
        let Ok(Read::Records { stored, .. }) = reader.read(key.lane_key(), key.seq, 1, 1) else { return None };
        let at = Record::decode(stored.first()?).ok()?.envelope.recorded_at;
        self.oldest.insert(key.lane, (key, at));
        Some(at)
    }
}

fn view_sent(view: &crate::uplink::View, owner: &Owner, lane: Lane) -> u64 {
    let Some(epoch) = owner.journal.epoch() else { return 0 };
    view.sent.get(&counterfoil_proto::id::LaneKey { epoch, lane }).map_or(0, |seq| seq.0)
}
