//! Orders: what is held, handed out and let go, what is judged, and what lies ready for too long.

use super::*;
use crate::state::Group;
use counterfoil_proto::record::facts::{
    FulfillmentFacts, FulfillmentLine, FulfillmentState, FulfillmentType, Substitution,
};

const HOUR_MS: i64 = 3_600_000;

pub(super) fn update_facts(state: FulfillmentState, quantity: &str) -> FulfillmentFacts {
    FulfillmentFacts {
        order_id: "W-1".to_owned(),
        fulfillment_id: None,
        fulfillment_type: FulfillmentType::Pickup,
        state,
        lines: vec![FulfillmentLine {
            index: 0,
            order_line: Some("1".to_owned()),
            item_id: "mug".to_owned(),
            unit: "EA".to_owned(),
            quantity: decimal(quantity),
            ordered: Some(decimal("3")),
            substitution: None,
        }],
        ready_at: None,
        expires_at: None,
        ended_at: NOW,
    }
}

pub(super) fn update(facts: FulfillmentFacts) -> (Record, Facts) {
    (record(Kind::FULFILLMENT_UPDATE, envelope("d/f", &[]), b"{}"), Facts::Fulfillment(facts))
}

fn moved(state: FulfillmentState, quantity: &str) -> (Record, Facts) {
    update(update_facts(state, quantity))
}

/// On hand, reserved, available.
fn stock(journal: &Journal, item_id: &str) -> (String, String, String) {
    let answer = journal.state().stock(item_id).unwrap().quantity;
    (answer.on_hand.unwrap_or_default(), answer.reserved, answer.available.unwrap_or_default())
}

fn figures(on_hand: &str, reserved: &str, available: &str) -> (String, String, String) {
    (on_hand.to_owned(), reserved.to_owned(), available.to_owned())
}

fn judged(state: &State, group: &Group, facts: FulfillmentFacts) -> Vec<(String, String)> {
    let flags = state.judge(&prepared(update(facts)), group, "0042", &mut |_| None);
    flags.into_iter().map(|flag| (flag.code.into_owned(), flag.pointer)).collect()
}

fn at_line(code: &str) -> Vec<(String, String)> {
    vec![(code.to_owned(), "/line_items/0/quantity".to_owned())]
}

#[test]
fn what_is_held_is_not_available_and_what_is_handed_out_is_gone() {
    let mut journal = Journal::new();
    journal.append(count("mug", "EA", "10"));
    for (state, quantity, expected) in [
        (FulfillmentState::Proposed, "3", figures("10", "0", "10")),
        (FulfillmentState::Reserved, "3", figures("10", "3", "7")),
        (FulfillmentState::Prepared, "2", figures("10", "3", "7")),
        (FulfillmentState::Completed, "1", figures("9", "2", "7")),
        (FulfillmentState::Canceled, "1", figures("9", "1", "8")),
        (FulfillmentState::Failed, "1", figures("9", "0", "9")),
    ] {
        journal.append(moved(state, quantity));
        assert_eq!(stock(&journal, "mug"), expected, "{state:?}");
    }
}

#[test]
fn an_update_may_begin_anywhere_and_never_holds_less_than_nothing() {
    for (states, on_hand, reserved) in [
        (&[FulfillmentState::Completed][..], "8", "0"),
        (&[FulfillmentState::Canceled], "10", "0"),
        (&[FulfillmentState::Prepared], "10", "2"),
        (&[FulfillmentState::Prepared, FulfillmentState::Completed], "8", "0"),
        (&[FulfillmentState::Reserved, FulfillmentState::Completed], "8", "0"),
    ] {
        let mut journal = Journal::new();
        journal.append(count("mug", "EA", "10"));
        for state in states {
            journal.append(moved(*state, "2"));
        }
        let (found, held, _) = stock(&journal, "mug");
        assert_eq!((found.as_str(), held.as_str()), (on_hand, reserved), "{states:?}");
    }
}

#[test]
fn the_parts_of_a_split_order_meet_in_its_lines() {
    let mut journal = Journal::new();
    journal.append(count("mug", "EA", "10"));
    journal.append(moved(FulfillmentState::Reserved, "3"));
    let part = |id: &str, how: FulfillmentType| {
        let facts = update_facts(FulfillmentState::Completed, "1");
        update(FulfillmentFacts { fulfillment_id: Some(id.to_owned()), fulfillment_type: how, ..facts })
    };
    journal.append(part("1", FulfillmentType::Shipment));
    journal.append(part("2", FulfillmentType::Pickup));
    assert_eq!(stock(&journal, "mug"), figures("8", "1", "7"));
    let mut other = update_facts(FulfillmentState::Reserved, "1");
    other.lines[0].order_line = Some("2".to_owned());
    journal.append(update(other));
    assert_eq!(stock(&journal, "mug"), figures("8", "2", "6"), "another line of the order has its own");
}

#[test]
fn a_substitution_lets_the_article_go_and_takes_another() {
    let mut journal = Journal::new();
    journal.append(count("mug", "EA", "10"));
    journal.append(count("cup", "EA", "5"));
    journal.append(moved(FulfillmentState::Reserved, "3"));
    let mut facts = update_facts(FulfillmentState::Prepared, "2");
    facts.lines[0].substitution =
        Some(Substitution { item_id: "cup".to_owned(), unit: "EA".to_owned(), quantity: decimal("1"), agreed: true });
    journal.append(update(facts));
    assert_eq!(stock(&journal, "mug"), figures("10", "1", "9"));
    assert_eq!(stock(&journal, "cup"), figures("5", "1", "4"));
    let mut facts = update_facts(FulfillmentState::Completed, "1");
    (facts.lines[0].item_id, facts.lines[0].ordered) = ("cup".to_owned(), None);
    journal.append(update(facts));
    assert_eq!(stock(&journal, "cup"), figures("4", "0", "4"));
    let state = journal.state();
    assert_eq!(judged(&state, &Group::default(), update_facts(FulfillmentState::Completed, "1")), []);
    assert_eq!(
        judged(&state, &Group::default(), update_facts(FulfillmentState::Completed, "2")),
        at_line("OVER_FULFILLED"),
        "two of three were replaced"
    );
}

#[test]
fn no_more_is_handed_out_and_let_go_than_was_ordered() {
    let none = Group::default();
    let empty = State::in_memory();
    assert_eq!(judged(&empty, &none, update_facts(FulfillmentState::Completed, "3")), []);
    assert_eq!(judged(&empty, &none, update_facts(FulfillmentState::Completed, "3.5")), at_line("OVER_FULFILLED"));
    assert_eq!(judged(&empty, &none, update_facts(FulfillmentState::Reserved, "9")), [], "held is not handed out");
    let mut unknown = update_facts(FulfillmentState::Completed, "9");
    unknown.lines[0].ordered = None;
    assert_eq!(judged(&empty, &none, unknown.clone()), [], "nobody says what was ordered");

    let mut journal = Journal::new();
    journal.append(moved(FulfillmentState::Completed, "2"));
    let state = journal.state();
    unknown.lines[0].quantity = decimal("1");
    assert_eq!(judged(&state, &none, unknown.clone()), []);
    unknown.lines[0].quantity = decimal("2");
    assert_eq!(judged(&state, &none, unknown.clone()), at_line("OVER_FULFILLED"), "an earlier update said it");
    for end in [FulfillmentState::Canceled, FulfillmentState::Failed] {
        assert_eq!(judged(&state, &none, update_facts(end, "2")), at_line("OVER_FULFILLED"));
    }
    let mut twice = update_facts(FulfillmentState::Completed, "1");
    twice.lines.push(FulfillmentLine { index: 1, ..twice.lines[0].clone() });
    assert_eq!(
        judged(&state, &none, twice),
        [("OVER_FULFILLED".to_owned(), "/line_items/1/quantity".to_owned())],
        "lines of one document add up"
    );
}

#[test]
fn nothing_goes_on_after_its_end() {
    let none = Group::default();
    let mut journal = Journal::new();
    journal.append(moved(FulfillmentState::Completed, "2"));
    assert_eq!(judged(&journal.state(), &none, update_facts(FulfillmentState::Prepared, "1")), []);
    journal.append(moved(FulfillmentState::Canceled, "1"));
    for state in [FulfillmentState::Proposed, FulfillmentState::Reserved, FulfillmentState::Prepared] {
        assert_eq!(judged(&journal.state(), &none, update_facts(state, "1")), at_line("FULFILLMENT_AFTER_END"));
    }
}

#[test]
fn an_update_earlier_in_the_same_group_counts() {
    let state = State::in_memory();
    let mut group = Group::default();
    group.note(&prepared(moved(FulfillmentState::Completed, "2")));
    let other = FulfillmentFacts { order_id: "W-2".to_owned(), ..update_facts(FulfillmentState::Completed, "3") };
    assert_eq!(judged(&state, &group, other), []);
    assert_eq!(judged(&state, &group, update_facts(FulfillmentState::Completed, "1")), []);
    assert_eq!(judged(&state, &group, update_facts(FulfillmentState::Completed, "2")), at_line("OVER_FULFILLED"));
}

#[test]
fn a_conflict_moves_nothing() {
    let mut journal = Journal::new();
    let first = journal.append(moved(FulfillmentState::Reserved, "1"));
    let mut conflict = moved(FulfillmentState::Completed, "3");
    conflict.0.envelope.conflicts_with = Some(first);
    journal.append(conflict);
    assert!(journal.state().stock("mug").is_none());
    assert_eq!(journal.state().tables.orders.held("mug", "EA"), decimal("1"));
}

#[test]
fn what_lies_ready_for_too_long_is_told_once() {
    let stale = |journal: &Journal, hours: i64| {
        let found = journal.state().stale_orders(WallTime(NOW.0 + hours * HOUR_MS), 72 * HOUR_MS);
        found.into_iter().map(|order| (order.order_id, order.lines)).collect::<Vec<_>>()
    };
    let mut journal = Journal::new();
    let prepared = |expires_in: Option<i64>| FulfillmentFacts {
        ready_at: Some(NOW),
        expires_at: expires_in.map(|hours| WallTime(NOW.0 + hours * HOUR_MS)),
        ..update_facts(FulfillmentState::Prepared, "2")
    };
    journal.append(update(prepared(Some(5))));
    let there = vec![("W-1".to_owned(), vec![("mug".to_owned(), "EA".to_owned(), decimal("2"))])];
    assert_eq!(stale(&journal, 4), []);
    assert_eq!(stale(&journal, 5), there);
    let told = json!({"code": "PICKUP_STALE", "order_id": "W-1"}).to_string();
    let mut told_of = journal.clone();
    told_of.append((record(Kind::FINDING, Envelope::default(), told.as_bytes()), Facts::None));
    assert_eq!(stale(&told_of, 500), []);
    told_of.append(moved(FulfillmentState::Completed, "2"));
    told_of.append(update(prepared(Some(9))));
    assert_eq!(stale(&told_of, 9).len(), 1, "what is prepared anew is another matter");

    journal.append(moved(FulfillmentState::Completed, "2"));
    assert_eq!(stale(&journal, 500), [], "somebody came");

    let mut journal = Journal::new();
    journal.append(update(prepared(None)));
    assert_eq!(stale(&journal, 71), []);
    assert_eq!(stale(&journal, 72), there, "where nobody says until when");
    let mut journal = Journal::new();
    journal.append(update(FulfillmentFacts { fulfillment_type: FulfillmentType::Shipment, ..prepared(Some(5)) }));
    assert_eq!(stale(&journal, 500), [], "nobody collects a parcel");
}

#[test]
fn a_finding_that_names_nothing_known_changes_nothing() {
    let mut journal = Journal::new();
    journal.append(moved(FulfillmentState::Prepared, "2"));
    let before = answers(&journal.state());
    for text in ["no JSON", "{}", r#"{"code":"PICKUP_STALE"}"#, r#"{"code":"NEW","order_id":"W-1"}"#] {
        let mut journal = journal.clone();
        journal.append((record(Kind::FINDING, Envelope::default(), text.as_bytes()), Facts::None));
        let after = answers(&journal.state());
        assert_eq!(after["stock"], before["stock"]);
        assert_eq!(journal.state().stale_orders(WallTime(i64::MAX), 0).len(), 1, "{text}");
    }
}
