//! The receiver against a plain model, sets of numbers; and the bounds that its decisions turn at.

use alloc::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{KEY, chain_at, digest, range};
use super::*;
use crate::id::Lane;
use crate::message::GoneReason;

fn head(last: u64, chain: Option<Chain>, gone: Vec<Gone>) -> LaneHead {
    LaneHead { lane: KEY.lane, first: Seq(1), chain_before: None, last: Seq(last), chain, gone }
}

fn gone(first: u64, last: u64) -> Gone {
    Gone {
        range: range(first, last),
        reason: GoneReason::Damaged,
        chain_before: None,
        chain_after: Some(chain_at(last)),
    }
}

fn numbers(range: SeqRange) -> impl Iterator<Item = u64> {
    range.first.0..=range.last.0
}

proptest! {
    #[test]
    fn the_mark_crosses_what_is_stored_or_gone_and_nothing_else(
        steps in proptest::collection::vec((any::<bool>(), 1_u64..40, 0_u64..8), 1..40)
    ) {
        let mut state = LaneState::new(KEY);
        let (mut stored, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for (is_gone, first, more) in steps {
            let last = first + more;
            if is_gone {
                let missing = (first..=last).filter(|seq| !state.holds(Seq(*seq)) && !lost.contains(seq));
                let missing: Vec<u64> = missing.collect();
                let told = state.hello(&head(100, None, alloc::vec![gone(first, last)]), true);
                let named = told.iter().flat_map(|incident| match incident {
                    Incident::Gone(gone) => numbers(gone.range).collect(),
                    Incident::ChainMismatch { .. } | Incident::AgentBehind { .. } => Vec::new(),
                });
                prop_assert_eq!(named.collect::<Vec<u64>>(), missing.clone(), "each is named once");
                lost.extend(missing);
            } else {
                state.note_stored(range(first, last));
                stored.extend(first..=last);
            }
            prop_assert_eq!(state.advance(|seq| Some(digest(seq))), []);
            let whole = (1..=100).take_while(|seq| stored.contains(seq) || lost.contains(seq)).last().unwrap_or(0);
            prop_assert_eq!(state.stored, Seq(whole));
            prop_assert!(state.chain.is_none_or(|chain| chain == chain_at(whole)));
            let above: Vec<u64> = state.ranges.iter().flat_map(|range| numbers(*range)).collect();
            prop_assert_eq!(above, stored.range(whole + 1..).copied().collect::<Vec<u64>>());
            let absent: Vec<u64> = state.absent.iter().flat_map(|range| numbers(*range)).collect();
            prop_assert!(state.absent.windows(2).all(|pair| pair[0].last.next() < pair[1].first));
            let never_came = lost.range(..=whole).filter(|seq| !stored.contains(seq));
            prop_assert_eq!(absent, never_came.copied().collect::<Vec<u64>>());
            prop_assert!(state.gone.iter().all(|gone| gone.range.last > state.stored));
            prop_assert!(state.gone.windows(2).all(|pair| pair[0].range.last < pair[1].range.first));
        }
    }
}

#[test]
fn the_chain_goes_on_behind_a_gap_that_states_it_and_not_behind_a_piece_of_one() {
    let mut state = LaneState::new(KEY);
    state.hello(&head(9, None, alloc::vec![gone(1, 3)]), true);
    state.advance(|seq| Some(digest(seq)));
    assert_eq!((state.stored, state.chain), (Seq(3), Some(chain_at(3))));
    state.hello(&head(9, None, alloc::vec![gone(5, 9)]), true);
    state.note_stored(range(7, 7));
    state.note_stored(range(4, 4));
    state.advance(|seq| Some(digest(seq)));
    assert_eq!((state.stored, state.chain), (Seq(9), Some(chain_at(9))), "the last piece states it");
    let mut state = LaneState::new(KEY);
    state.hello(&head(9, None, alloc::vec![gone(1, 3)]), true);
    state.note_stored(range(3, 3));
    state.advance(|seq| Some(digest(seq)));
    assert_eq!((state.stored, state.chain), (Seq(3), None), "nobody knows the chain before 3");
}

#[test]
fn no_more_gaps_are_kept_than_the_bound_and_those_are_named() {
    let mut state = LaneState::new(KEY);
    let gaps = (1..=RECEIVER_RANGES_MAX as u64 + 9).map(|index| gone(index * 3, index * 3)).collect();
    let told = state.hello(&head(9_999, None, gaps), true);
    assert_eq!((told.len(), state.gone.len()), (RECEIVER_RANGES_MAX, RECEIVER_RANGES_MAX));
}

#[test]
fn the_window_ends_where_it_says_and_what_touches_a_range_is_taken() {
    let mut state = LaneState::new(KEY);
    assert!(matches!(state.plan(range(WINDOW_SEQS_MAX, WINDOW_SEQS_MAX)), Plan::Take { .. }));
    assert_eq!(state.plan(range(WINDOW_SEQS_MAX + 1, WINDOW_SEQS_MAX + 1)), Plan::Ahead);
    for index in 1..=RECEIVER_RANGES_MAX as u64 {
        state.note_stored(range(index * 5, index * 5));
    }
    for (first, last, is_taken) in [(6, 7, true), (3, 4, true), (5, 5, true), (7, 8, false), (2, 3, false)] {
        let plan = state.plan(range(first, last));
        assert_eq!(matches!(plan, Plan::Take { .. }), is_taken, "{first} to {last}: {plan:?}");
    }
}

#[test]
fn heads_that_were_stated_are_kept_until_they_are_reached_and_the_last_word_counts() {
    let mut state = LaneState::new(KEY);
    let wrong = Chain::genesis(KEY.epoch, Lane::Ops);
    let before_first = LaneHead { chain_before: Some(wrong), ..head(2, Some(wrong), Vec::new()) };
    assert_eq!(state.hello(&before_first, true), [], "there is nothing before the first number");
    assert_eq!(state.chain, Some(chain_at(0)));
    for last in [2, 4] {
        state.hello(&head(last, Some(chain_at(last)), Vec::new()), true);
    }
    assert_eq!(state.anchors, [(Seq(2), chain_at(2)), (Seq(4), chain_at(4))], "one head for a number");
    state.note_stored(range(1, 2));
    assert_eq!(state.advance(|seq| Some(digest(seq))), []);
    assert_eq!(state.anchors, [(Seq(4), chain_at(4))]);
    state.hello(&head(1, Some(wrong), Vec::new()), true);
    assert_eq!(state.anchors, [(Seq(4), chain_at(4))], "what lies behind says nothing");
}

#[test]
fn of_many_absent_ranges_none_is_left_out() {
    let mut state = LaneState::new(KEY);
    let mut lost = BTreeSet::new();
    for index in 1..=RECEIVER_RANGES_MAX as u64 + 9 {
        let seq = index * 2;
        state.note_stored(range(seq - 1, seq - 1));
        state.hello(&head(seq, None, alloc::vec![gone(seq, seq)]), true);
        assert_eq!(state.advance(|seq| Some(digest(seq))), []);
        lost.insert(seq);
        for (absent, most) in [(&state.absent, RECEIVER_RANGES_MAX), (&state.mark(KEY).absent, ACK_RANGES_MAX)] {
            assert!(absent.len() <= most);
            assert!(lost.iter().all(|seq| absent.iter().any(|range| range.contains(Seq(*seq)))), "{absent:?}");
            assert!(absent.windows(2).all(|pair| pair[0].last < pair[1].first), "{absent:?}");
            assert_eq!(absent.last(), Some(&if absent.len() == most { absent[most - 1] } else { range(seq, seq) }));
            assert_eq!(absent.len(), lost.len().min(most), "no more is claimed than has to be");
        }
    }
}

#[test]
fn a_copy_verifies_what_it_has_of_what_came_late() {
    let state = |absent: &[SeqRange]| LaneState { stored: Seq(20), absent: absent.to_vec(), ..LaneState::new(KEY) };
    let copy = |stored, absent: &[SeqRange]| Mark { stored: Seq(stored), ..state(absent).mark(KEY) };
    assert_eq!(state(&[]).verified_by(&copy(30, &[])), Seq(20));
    assert_eq!(state(&[]).verified_by(&copy(9, &[])), Seq(9));
    assert_eq!(state(&[range(4, 5)]).verified_by(&copy(9, &[range(4, 5)])), Seq(9), "neither has it");
    assert_eq!(state(&[range(4, 4)]).verified_by(&copy(9, &[range(4, 5)])), Seq(4), "5 came since");
    assert_eq!(state(&[range(4, 5)]).verified_by(&copy(9, &[range(4, 5), range(7, 8)])), Seq(6));
    assert_eq!(state(&[]).verified_by(&copy(9, &[range(12, 13)])), Seq(9), "beyond what the copy reaches");
}
