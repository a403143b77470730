//! What was given back against receipts, and how a further return is judged by it.

use super::*;
use crate::state::Group;
use counterfoil_proto::record::flag;

fn given_back(line: usize, store_id: Option<&str>, item_id: &str, quantity: &str) -> ReturnLine {
    ReturnLine {
        index: line,
        store_id: store_id.map(ToOwned::to_owned),
        identity: "t/3/2026-11-23/7/0".to_owned(),
        item_id: item_id.to_owned(),
        unit: "EA".to_owned(),
        quantity: decimal(quantity),
    }
}

fn return_of(number: u64, lines: Vec<ReturnLine>) -> (Record, Facts) {
    let mut facts = sale_facts("3", number, -600);
    (facts.transaction_type, facts.returns) = (TransactionType::Return, lines);
    transaction(facts)
}

#[test]
fn a_return_counts_with_those_before_it_those_beside_it_and_both_spellings_of_this_store() {
    let mut journal = Journal::new();
    let over = |state: &State, group: &Group, lines: Vec<ReturnLine>| {
        let flags =
            state.judge(&prepared(return_of(99, lines)), group, "0042", &mut |line| match line.item_id.as_str() {
                "mug" => Some(decimal("3")),
                _ => None,
            });
        flags.into_iter().map(|flag| (flag.code.into_owned(), flag.pointer)).collect::<Vec<_>>()
    };
    let at = |pointer: &str| vec![(flag::OVER_RETURN.to_owned(), pointer.to_owned())];
    let none = Group::default();
    let mug = |quantity| given_back(1, None, "mug", quantity);
    assert_eq!(over(&journal.state(), &none, vec![mug("3")]), []);
    assert_eq!(over(&journal.state(), &none, vec![mug("3.01")]), at("/line_items/1/quantity"));
    assert_eq!(
        over(&journal.state(), &none, vec![mug("2"), given_back(4, Some("0042"), "mug", "2")]),
        at("/line_items/4/quantity")
    );
    assert_eq!(
        over(&journal.state(), &none, vec![given_back(0, None, "pan", "50")]),
        [],
        "a receipt that nobody knows judges nothing"
    );
    assert_eq!(
        over(&journal.state(), &none, vec![given_back(0, Some("0043"), "mug", "50")]),
        [],
        "another store's receipt"
    );

    journal.append(return_of(
        10,
        vec![mug("1"), given_back(2, Some("0043"), "mug", "40"), given_back(3, None, "pan", "7")],
    ));
    journal.append(return_of(11, vec![given_back(0, Some("0042"), "mug", "1")]));
    let mut conflict = return_of(11, vec![mug("1")]);
    conflict.0.envelope.conflicts_with = Some(RecordKey { seq: Seq(2), epoch: Epoch([1; 16]), lane: Lane::Trade });
    journal.append(conflict);
    let mut state = journal.state();
    assert_eq!(over(&state, &none, vec![mug("1")]), []);
    assert_eq!(over(&state, &none, vec![mug("2")]), at("/line_items/1/quantity"));
    let mut group = Group::default();
    group.note(&prepared(return_of(12, vec![mug("1")])));
    assert_eq!(over(&state, &group, vec![mug("1")]), at("/line_items/1/quantity"));

    let mut restored = State::in_memory();
    restored.restore(&state.snapshot([1; 16], usize::MAX)).unwrap();
    assert_eq!(restored.tables, state.tables, "a snapshot holds what was given back");
    apply_all(&mut state, &journal.frames);
    assert_eq!(restored.tables, state.tables, "a record that is met again counts once");
}
