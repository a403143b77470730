//! Drawers: what should lie in them, and what is told where something else does.

use super::*;
use crate::state::Group;
use counterfoil_proto::record::facts::TenderControlFacts;

pub(super) fn control(is_declaration: bool, amounts: &[(&str, i64)]) -> (Record, Facts) {
    let sum =
        |(tender_type, amount): &(&str, i64)| TenderSum { tender_type: (*tender_type).to_owned(), amount: *amount };
    let facts = TenderControlFacts {
        workstation_id: "3".to_owned(),
        business_day_date: DAY.to_owned(),
        is_declaration,
        currency_code: "EUR".to_owned(),
        tenders: amounts.iter().map(sum).collect(),
    };
    (record(Kind::TENDER_CONTROL, envelope("d/t", &[]), b"{}"), Facts::TenderControl(facts))
}

fn differs(state: &State, group: &Group, amounts: &[(&str, i64)]) -> bool {
    let flags = state.judge(&prepared(control(true, amounts)), group, "0042", &mut |_| None);
    assert!(flags.iter().all(|flag| flag.code == "DRAWER_DIFFERENCE" && flag.pointer == "/tenders"), "{flags:?}");
    !flags.is_empty()
}

#[test]
fn a_drawer_is_known_after_the_first_count() {
    let none = Group::default();
    let mut journal = Journal::new();
    journal.append(sale("3", 1, 600));
    assert!(!differs(&journal.state(), &none, &[("cash", 1)]), "nobody knows what had been there");
    journal.append(control(true, &[("cash", 20_000)]));
    assert!(!differs(&journal.state(), &none, &[("cash", 20_000)]));
    assert!(differs(&journal.state(), &none, &[("cash", 19_999)]));
    assert!(!differs(&journal.state(), &none, &[("card", 5)]), "of cards nothing was counted");
}

#[test]
fn sales_their_change_and_what_is_put_in_or_taken_out_move_it() {
    let none = Group::default();
    let mut journal = Journal::new();
    journal.append(control(true, &[("cash", 20_000)]));
    // Seven euros paid, one given out.
    journal.append(sale("3", 1, 600));
    assert!(!differs(&journal.state(), &none, &[("cash", 20_600)]));
    journal.append(control(false, &[("cash", -15_000)]));
    journal.append(control(false, &[("cash", 1_000)]));
    assert!(!differs(&journal.state(), &none, &[("cash", 6_600)]));
    assert!(differs(&journal.state(), &none, &[("cash", 21_600)]));
    for (index, not_counted) in [(0, "training"), (1, "suspended")] {
        let mut facts = sale_facts("3", 2 + index, 600);
        if not_counted == "training" {
            facts.training_mode = true;
        } else {
            facts.status = TransactionStatus::Suspended;
        }
        journal.append(transaction(facts));
        assert!(!differs(&journal.state(), &none, &[("cash", 6_600)]), "{not_counted}");
    }
    journal.append(sale("4", 1, 600));
    assert!(!differs(&journal.state(), &none, &[("cash", 6_600)]), "another till has its own");
    journal.append(control(true, &[("cash", 6_000)]));
    assert!(!differs(&journal.state(), &none, &[("cash", 6_000)]), "a count is believed, short or not");
}

#[test]
fn what_came_earlier_in_the_same_group_counts() {
    let mut journal = Journal::new();
    journal.append(control(true, &[("cash", 20_000)]));
    let state = journal.state();
    let mut group = Group::default();
    group.note(&prepared(sale("3", 1, 600)));
    group.note(&prepared(control(false, &[("cash", -100)])));
    assert!(!differs(&state, &group, &[("cash", 20_500)]));
    assert!(differs(&state, &group, &[("cash", 20_000)]));
    group.note(&prepared(control(true, &[("cash", 77)])));
    group.note(&prepared(sale("3", 2, 600)));
    assert!(!differs(&state, &group, &[("cash", 677)]), "a count in the group is the newest");
}

#[test]
fn a_movement_after_the_close_is_late_and_a_conflict_moves_nothing() {
    let mut journal = Journal::new();
    journal.append(control(true, &[("cash", 20_000)]));
    let first = journal.append(control(false, &[("cash", 1)]));
    let mut conflict = control(false, &[("cash", 5)]);
    conflict.0.envelope.conflicts_with = Some(first);
    journal.append(conflict);
    assert!(!differs(&journal.state(), &Group::default(), &[("cash", 20_001)]));
    journal.append(close(Some("3"), DAY));
    let flags =
        journal.state().judge(&prepared(control(false, &[("cash", 1)])), &Group::default(), "0042", &mut |_| None);
    assert_eq!(flags.iter().map(|flag| flag.code.as_ref()).collect::<Vec<_>>(), ["LATE_AFTER_CLOSE"]);
}
