//! `GET /v1/delays`: how long documents took from the till's word until they were in the ledger, and until they were in its totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::{Answer, Problem, Sources};
use crate::ledger::{DelayQuery, DelayView};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Posted on this day (UTC) or later.
    first_day: String,
    /// And not after this one.
    last_day: String,
    /// Of one store.
    store: Option<String>,
}

/// Documents of one region, channel and way of fulfillment.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Delays {
    /// `null` where the store is in none.
    region: Option<String>,
    /// As tills say it; empty where they do not.
    channel: String,
    /// As documents say it; empty where they do not.
    fulfillment_type: String,
    documents: u64,
    /// From the till's word, by the box's clock, until the record was in the ledger.
    stored_ms: Percentiles,
    /// And until it had its position and was in the totals.
    posted_ms: Percentiles,
}

/// Durations that so many of a hundred documents did not go beyond; each is at most a quarter too long.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Percentiles {
    p50: u64,
    p90: u64,
    p99: u64,
    longest: u64,
}

pub(super) async fn get(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let wanted = "first_day and last_day, YYYY-MM-DD, both required; store";
    let Query(asked) = query.map_err(|_| Problem::query(wanted))?;
    // The parser knows which days there are; the text compares as the ledger writes it.
    let day = |text: &str| text.parse::<Date>().map(|day| day.to_string()).map_err(|_| Problem::query(wanted));
    let query = DelayQuery { first_day: day(&asked.first_day)?, last_day: day(&asked.last_day)? };
    let mut found = sources.ledger.delays(&query).await?;
    found.retain(|view| asked.store.as_ref().is_none_or(|store| *store == view.store_id));
    Ok(super::json(&delays(&found, &sources.regions)))
}

fn delays(found: &[DelayView], regions: &BTreeMap<String, String>) -> Vec<Delays> {
    type Classes = BTreeMap<u64, u64>;
    let mut groups: BTreeMap<(Option<&String>, &str, &str), [Classes; 2]> = BTreeMap::new();
    for view in found {
        let key = (regions.get(&view.store_id), view.channel.as_str(), view.fulfillment_type.as_str());
        let [stored, posted] = groups.entry(key).or_default();
        let classes = if view.is_posted { posted } else { stored };
        let count = classes.entry(view.longest_ms).or_default();
        *count = count.saturating_add(view.documents);
    }
    let row =
        |((region, channel, fulfillment_type), [stored, posted]): ((Option<&String>, &str, &str), [Classes; 2])| {
            Delays {
                region: region.cloned(),
                channel: channel.to_owned(),
                fulfillment_type: fulfillment_type.to_owned(),
                documents: posted.values().sum(),
                stored_ms: percentiles(&stored),
                posted_ms: percentiles(&posted),
            }
        };
    groups.into_iter().map(row).collect()
}

fn percentiles(classes: &BTreeMap<u64, u64>) -> Percentiles {
    let all: u64 = classes.values().sum();
    let within = |hundredths: u64| {
        let wanted = all.saturating_mul(hundredths).div_ceil(100);
        let mut so_far = 0_u64;
        let reached = classes.iter().find(|(_, documents)| {
            so_far = so_far.saturating_add(**documents);
            so_far >= wanted
        });
        reached.map_or(0, |(longest_ms, _)| *longest_ms)
    };
    Percentiles { p50: within(50), p90: within(90), p99: within(99), longest: within(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_stores_of_a_region() {
        let view = |store: &str, is_posted: bool, longest_ms: u64, documents: u64| DelayView {
            store_id: store.to_owned(),
            channel: "web".to_owned(),
            fulfillment_type: String::new(),
            is_posted,
            longest_ms,
            documents,
        };
        let regions = ["1", "2"].map(|store| (store.to_owned(), "north".to_owned())).into();
        let found = [
            view("1", false, 10, 89),
            view("1", true, 20, 50),
            view("1", true, 30, 39),
            view("2", false, 40_000, 10),
            view("2", true, 50_000, 10),
            view("2", false, 90_000, 1),
            view("2", true, 90_000, 1),
            view("3", true, 1, 1),
        ];
        let answer = delays(&found, &regions);
        assert_eq!(answer.iter().map(|row| row.region.as_deref()).collect::<Vec<_>>(), [None, Some("north")]);
        assert_eq!(answer[1].documents, 100);
        assert_eq!(answer[1].stored_ms, Percentiles { p50: 10, p90: 40_000, p99: 40_000, longest: 90_000 });
        assert_eq!(answer[1].posted_ms, Percentiles { p50: 20, p90: 50_000, p99: 50_000, longest: 90_000 });
        assert_eq!(answer[0].stored_ms, Percentiles { p50: 0, p90: 0, p99: 0, longest: 0 });
    }
}
