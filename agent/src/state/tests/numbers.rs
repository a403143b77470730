//! The tills' own numbers: what is missing, what fills it, what begins anew.

use super::*;

const DAY_AFTER: &str = "2026-11-24";

fn numbered(number: u64, day: &str, sequence_epoch: u64) -> (Record, Facts) {
    let mut facts = sale_facts("3", number, 600);
    (facts.business_day_date, facts.sequence_epoch) = (day.to_owned(), sequence_epoch);
    transaction(facts)
}

fn missing(journal: &Journal) -> Vec<(u64, u64, u64)> {
    let found = journal.state().missing_numbers(NOW);
    assert!(found.iter().all(|found| found.workstation_id == "3"));
    found.into_iter().flat_map(|found| found.ranges).collect()
}

fn journal_of(numbers: &[(u64, &str, u64)]) -> Journal {
    let mut journal = Journal::new();
    for (number, day, sequence_epoch) in numbers {
        journal.append(numbered(*number, day, *sequence_epoch));
    }
    journal
}

#[test]
fn what_a_larger_number_leaves_out_is_missing_until_it_comes() {
    let mut journal = journal_of(&[(5, DAY, 0), (6, DAY, 0)]);
    assert_eq!(missing(&journal), [], "before the first that was seen nothing is missing");
    journal.append(numbered(11, DAY, 0));
    assert_eq!(missing(&journal), [(0, 7, 10)]);
    journal.append(numbered(8, DAY, 0));
    assert_eq!(missing(&journal), [(0, 7, 7), (0, 9, 10)]);
    journal.append(numbered(10, DAY, 0));
    journal.append(numbered(7, DAY, 0));
    assert_eq!(missing(&journal), [(0, 9, 9)]);
    journal.append(numbered(9, DAY, 0));
    journal.append(numbered(12, DAY, 0));
    assert_eq!(missing(&journal), []);
    journal.append(numbered(3, DAY, 0));
    assert_eq!(missing(&journal), [], "an old one says nothing");
}

#[test]
fn a_counter_that_begins_anew_leaves_nothing_out() {
    assert_eq!(missing(&journal_of(&[(900, DAY, 0), (1, DAY_AFTER, 0), (2, DAY_AFTER, 0)])), [], "each day from one");
    assert_eq!(missing(&journal_of(&[(900, DAY, 0), (1, DAY, 1), (2, DAY, 1)])), [], "and says so");
    assert_eq!(missing(&journal_of(&[(900, DAY, 0), (1, DAY, 1), (901, DAY, 0), (2, DAY, 1)])), [], "a straggler");
    assert_eq!(
        missing(&journal_of(&[(900, DAY, 0), (903, DAY, 0), (1, DAY_AFTER, 0), (4, DAY_AFTER, 0)])),
        [(0, 901, 902), (0, 2, 3)]
    );
}

#[test]
fn a_number_of_another_day_or_epoch_fills_no_gap() {
    let mut journal = journal_of(&[(1, DAY, 0), (4, DAY, 0), (1, DAY_AFTER, 0)]);
    journal.append(numbered(2, DAY_AFTER, 0));
    assert_eq!(missing(&journal), [(0, 2, 3)]);
    journal.append(numbered(3, DAY, 1));
    assert_eq!(missing(&journal), [(0, 2, 3)]);
    journal.append(numbered(3, DAY, 0));
    assert_eq!(missing(&journal), [(0, 2, 2)]);
    let mut across = journal_of(&[(10, DAY, 0), (13, DAY_AFTER, 0)]);
    across.append(numbered(11, DAY, 0));
    across.append(numbered(12, DAY_AFTER, 0));
    assert_eq!(missing(&across), [], "it may be of either day");
}

#[test]
fn it_is_told_when_it_is_old_or_the_day_is_closed_and_once() {
    let mut journal = journal_of(&[(1, DAY, 0), (4, DAY, 0)]);
    let noticed = journal.frames[1].record.envelope.recorded_at;
    let at = |journal: &Journal, before: i64| journal.state().missing_numbers(WallTime(before)).len();
    assert_eq!((at(&journal, noticed.0 - 1), at(&journal, noticed.0)), (0, 1));
    let mut closed = journal.clone();
    closed.append(close(Some("4"), DAY));
    assert_eq!(at(&closed, 0), 0);
    closed.append(close(Some("3"), DAY));
    assert_eq!(at(&closed, 0), 1);
    let told = json!({"code": "SEQUENCE_GAP", "workstation_id": "3", "numbers": [{"sequence_epoch": 0, "first": 2, "last": 3}]});
    journal.append((record(Kind::FINDING, Envelope::default(), told.to_string().as_bytes()), Facts::None));
    assert_eq!(at(&journal, NOW.0), 0);
    journal.append(numbered(6, DAY, 0));
    assert_eq!(missing(&journal), [(0, 5, 5)], "a further one is told by itself");
    journal.append(numbered(2, DAY, 0));
    assert_eq!(missing(&journal), [(0, 5, 5)], "what is left of one that was told was told");
}

#[test]
fn documents_without_a_number_and_conflicts_say_nothing() {
    let mut journal = journal_of(&[(1, DAY, 0)]);
    let mut unnumbered = sale_facts("3", 9, 600);
    unnumbered.sequence_number = None;
    journal.append(transaction(unnumbered));
    let mut conflict = numbered(9, DAY, 0);
    conflict.0.envelope.conflicts_with = Some(journal.frames[0].key);
    journal.append(conflict);
    assert_eq!(missing(&journal), []);
}

#[test]
fn gaps_and_tills_are_bounded() {
    use crate::state::limits::{NUMBER_GAPS_MAX, NUMBER_RUNS_MAX};
    let mut journal = Journal::new();
    for number in 0..=u64::try_from(NUMBER_GAPS_MAX).unwrap() + 1 {
        journal.append(numbered(2 * number + 1, DAY, 0));
    }
    let found = missing(&journal);
    assert_eq!((found.len(), found[0]), (NUMBER_GAPS_MAX, (0, 4, 4)), "the oldest is forgotten");
    let counted = journal.state().exceptions(false, NOW);
    assert_eq!(counted.iter().map(|exception| exception.code.as_str()).collect::<Vec<_>>(), ["NUMBER_GAPS_LIMIT"]);
    let mut journal = Journal::new();
    for till in 0..=NUMBER_RUNS_MAX {
        journal.append(sale(&till.to_string(), 1, 600));
    }
    assert_eq!(journal.state().tables.numbers.runs.len(), NUMBER_RUNS_MAX);
    assert!(!journal.state().tables.numbers.runs.contains_key("0"));
}
