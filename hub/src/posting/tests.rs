//! Interpretation of chunks alone: what counts, what conflicts, what is raised.

use counterfoil_proto::id::{AgentId, Epoch, Lane, Seq, StoreId};
use counterfoil_proto::record::{Context, prepare};

use super::*;

fn stored(more: &str, gross: &str) -> Stored {
    let document = format!(
        r#"{{"workstation_id":"3","business_day_date":"2026-11-23","sequence_number":7,"type":"sale",
        "end_date_time":"2026-11-23T10:15:40Z","currency_code":"EUR","line_items":[],"tenders":[],
        "totals":{{"gross":"5.00"}}{more}}}"#
    );
    let context = Context {
        store_id: StoreId::new("1").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::Time::midnight(),
        mask_13_digits: false,
    };
    let prepared = prepare(Kind::TRANSACTION, document.as_bytes(), None, &context).unwrap();
    // An agent refuses what is out of range; what comes from elsewhere may not have asked.
    let document = str::from_utf8(&prepared.document).unwrap().replace("5.00", gross).into_bytes();
    let record = Record { kind: prepared.kind, envelope: prepared.envelope, document };
    let source = Source { store_id: StoreId::new("1").unwrap(), agent_id: AgentId::new("a").unwrap() };
    let key = RecordKey { epoch: Epoch([1; 16]), lane: Lane::Trade, seq: Seq(1) };
    Stored { stream: 1, source, key, fork: 0, received_at: WallTime(0), bytes: record.encode().unwrap() }
}

fn folded(more: &str, standing: Standing) -> Vec<(String, i64)> {
    let mut totals = Totals::new();
    fold(&mut totals, "1", &read(&stored(more, "5.00"), false), standing);
    totals.into_iter().map(|(key, total)| (key.what, total.amount)).collect()
}

#[test]
fn only_what_counts_is_counted_and_the_rest_stands_beside() {
    assert_eq!(folded("", Standing::First), vec![("counted".to_owned(), 500)]);
    let beside = |more: &str, standing, reason: &str| {
        assert_eq!(folded(more, standing), vec![(format!("not/{reason}"), 500)], "{more}");
    };
    beside(r#","training_mode":true"#, Standing::First, "training");
    beside(r#","status":"suspended""#, Standing::First, "suspended");
    beside(r#","status":"canceled""#, Standing::First, "canceled");
    beside("", Standing::Duplicate(3), "duplicates");
    beside("", Standing::Conflict(3), "conflicts");
}

#[test]
fn an_amount_beyond_any_sale_is_raised_and_never_summed() {
    let reading = read(&stored("", "9000000000000000.00"), false);
    assert_eq!(reading.raised.iter().filter(|raised| raised.code == flag::UNREADABLE_RECORD).count(), 1);
    let mut totals = Totals::new();
    fold(&mut totals, "1", &reading, Standing::First);
    assert!(totals.is_empty());
}

#[test]
fn the_way_past_a_record_looks_at_nothing_but_raises_it() {
    let reading = read(&stored("", "5.00"), true);
    assert!(reading.unreadable && reading.claim.is_none() && reading.raised.len() == 1);
}
