//! The tills' own numbers: which of them are missing.
//!
//! Invariant: a number is missing only where a larger one of the same run came and it did not. A run is a till and its sequence epoch; a
//! till that begins anew each day without saying so begins a run anew, too. Before the first number that was ever seen nothing is missing.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::TransactionFacts;
use counterfoil_proto::time::WallTime;
use serde::{Deserialize, Serialize};

use super::date::Date;
use super::dirty::Dirty;
use super::exceptions::local;
use super::limits::{NAME_BYTES_MAX, NUMBER_GAPS_MAX, NUMBER_RUNS_MAX};
use super::rows::RowKey;

/// Numbers that did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    sequence_epoch: u64,
    /// Business days between which they belong, both included.
    days: (Date, Date),
    first: u64,
    last: u64,
    /// When a larger one came.
    since: WallTime,
    /// Whether it was told.
    is_told: bool,
}

/// The numbers of a till.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    sequence_epoch: u64,
    /// The business day of `last`.
    day: Date,
    last: u64,
    /// In the order in which they were found, of earlier runs as well.
    gaps: Vec<Gap>,
    /// Grows with each number: the smallest is forgotten first.
    number: u64,
}

/// Numbers of a till that are missing for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingNumbers {
    /// The till.
    pub workstation_id: String,
    /// Sequence epoch, first and last of each run of them.
    pub ranges: Vec<(u64, u64, u64)>,
}

/// The table, by till.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) runs: BTreeMap<Box<str>, Run>,
    number: u64,
}

impl Numbers {
    /// Takes the number of a transaction in.
    pub(super) fn see(
        &mut self,
        facts: &TransactionFacts,
        at: WallTime,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) {
        let Some(seen) = facts.sequence_number else { return };
        let (workstation_id, sequence_epoch) = (facts.workstation_id.as_str(), facts.sequence_epoch);
        let Some(day) = Date::parse(&facts.business_day_date).filter(|_| workstation_id.len() <= NAME_BYTES_MAX) else {
            return;
        };
        self.number = self.number.saturating_add(1);
        let fresh = || Run { sequence_epoch, day, last: seen, gaps: Vec::new(), number: 0 };
        let run = self.runs.entry(workstation_id.into()).or_insert_with(fresh);
        run.number = self.number;
        let fills = run.fill(sequence_epoch, day, seen);
        let begins_anew = sequence_epoch > run.sequence_epoch
            || (sequence_epoch == run.sequence_epoch && seen < run.last && day > run.day && !fills);
        if begins_anew {
            (run.sequence_epoch, run.day, run.last) = (sequence_epoch, day, seen);
        } else if sequence_epoch == run.sequence_epoch && seen > run.last {
            let first = run.last.saturating_add(1);
            if seen > first {
                if run.gaps.len() >= NUMBER_GAPS_MAX {
                    found.push(local::NUMBER_GAPS_LIMIT);
                    run.gaps.remove(0);
                }
                let days = (run.day.min(day), run.day.max(day));
                let last = seen.saturating_sub(1);
                run.gaps.push(Gap { sequence_epoch, days, first, last, since: at, is_told: false });
            }
            (run.last, run.day) = (seen, run.day.max(day));
        }
        dirty.mark(&RowKey::Run(workstation_id));
        if self.runs.len() > NUMBER_RUNS_MAX
            && let Some(oldest) = self.runs.iter().min_by_key(|(_, run)| run.number).map(|(till, _)| till.clone())
        {
            self.runs.remove(&oldest);
            dirty.mark(&RowKey::Run(&oldest));
        }
    }

    /// Numbers that are missing since `before` or longer, or at all where the till's day is closed; without those that were told.
    pub(super) fn missing(&self, before: WallTime, is_closed: &dyn Fn(&str, &str) -> bool) -> Vec<MissingNumbers> {
        let of_till = |workstation_id: &str, run: &Run| {
            if run.gaps.iter().all(|gap| gap.is_told) {
                return None;
            }
            let is_over = is_closed(workstation_id, &run.day.to_string());
            let is_due = |gap: &&Gap| !gap.is_told && (is_over || gap.since <= before);
            let range = |gap: &Gap| (gap.sequence_epoch, gap.first, gap.last);
            let ranges: Vec<(u64, u64, u64)> = run.gaps.iter().filter(is_due).map(range).collect();
            let workstation_id = workstation_id.to_owned();
            (!ranges.is_empty()).then_some(MissingNumbers { workstation_id, ranges })
        };
        self.runs.iter().filter_map(|(workstation_id, run)| of_till(workstation_id, run)).collect()
    }

    /// They were told.
    pub(super) fn note_told(&mut self, missing: &MissingNumbers, dirty: &mut Dirty) {
        let Some(run) = self.runs.get_mut(missing.workstation_id.as_str()) else { return };
        for gap in &mut run.gaps {
            gap.is_told |= missing.ranges.iter().any(|(sequence_epoch, first, last)| {
                *sequence_epoch == gap.sequence_epoch && *first <= gap.first && gap.last <= *last
            });
        }
        dirty.mark(&RowKey::Run(&missing.workstation_id));
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, workstation_id: &str, run: Run) -> bool {
        self.number = self.number.max(run.number);
        self.runs.insert(workstation_id.into(), run).is_none()
    }
}

impl Run {
    /// A number that was missing came; `false` where it was not.
    fn fill(&mut self, sequence_epoch: u64, day: Date, number: u64) -> bool {
        let holds = |gap: &Gap| {
            gap.sequence_epoch == sequence_epoch
                && (gap.days.0..=gap.days.1).contains(&day)
                && (gap.first..=gap.last).contains(&number)
        };
        let Some(index) = self.gaps.iter().position(holds) else { return false };
        let gap = self.gaps.remove(index);
        let below = (number > gap.first).then(|| Gap { last: number.saturating_sub(1), ..gap.clone() });
        let above = (number < gap.last).then(|| Gap { first: number.saturating_add(1), ..gap });
        self.gaps.splice(index..index, below.into_iter().chain(above));
        true
    }
}
