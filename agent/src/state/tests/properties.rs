//! Random histories: however the state came to where it is, it answers the same.

use super::*;
use crate::state::exception_id;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Sale { till: u8, day: u8, number: u64, gross: i64, kind: u8, item: u8, flags: u8 },
    Conflict { till: u8, gross: i64 },
    Move { item: u8, unit: u8, thousandths: i64 },
    Count { item: u8, unit: u8, thousandths: i64 },
    Close { till: Option<u8>, day: u8 },
    Resolve { back: usize },
    Restart,
    Unknown,
}

fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![8 => -100_000..100_000i64, 1 => Just(i64::MAX / 2), 1 => Just(i64::MIN / 2)];
    prop_oneof![
        8 => (0..4u8, 1..28u8, 0..50u64, amount, 0..8u8, 0..6u8, 0..8u8)
            .prop_map(|(till, day, number, gross, kind, item, flags)| Step::Sale { till, day, number, gross, kind, item, flags }),
        1 => (0..4u8, -500..500i64).prop_map(|(till, gross)| Step::Conflict { till, gross }),
        4 => (0..6u8, 0..3u8, -5_000..5_000i64).prop_map(|(item, unit, thousandths)| Step::Move { item, unit, thousandths }),
        2 => (0..6u8, 0..3u8, 0..5_000i64).prop_map(|(item, unit, thousandths)| Step::Count { item, unit, thousandths }),
        1 => (proptest::option::of(0..4u8), 1..28u8).prop_map(|(till, day)| Step::Close { till, day }),
        2 => (0..40usize).prop_map(|back| Step::Resolve { back }),
        1 => Just(Step::Restart),
        1 => Just(Step::Unknown),
    ]
}

fn day(number: u8) -> String {
    format!("2026-11-{number:02}")
}

fn journal_of(steps: &[Step]) -> Journal {
    let mut journal = Journal::new();
    for step in steps {
        let appended = match step.clone() {
            Step::Sale { till, day: date, number, gross, kind, item, flags } => {
                let mut facts = sale_facts(&till.to_string(), number, gross.clamp(-1_000_000, 1_000_000));
                facts.gross = gross;
                facts.business_day_date = day(date);
                facts.training_mode = kind == 1;
                facts.status = if kind == 2 { TransactionStatus::Suspended } else { TransactionStatus::Finished };
                facts.currency_code = if kind == 3 { "JPY" } else { "EUR" }.to_owned();
                facts.stock = vec![change(&format!("item{item}"), "EA", "-1.50")];
                let codes = ["TOTALS_MISMATCH", "TENDER_MISMATCH", "LATER_CODE"];
                let codes: Vec<&str> = codes
                    .into_iter()
                    .enumerate()
                    .filter(|(bit, _)| flags >> bit & 1 == 1)
                    .map(|(_, code)| code)
                    .collect();
                flagged(transaction(facts), &codes)
            }
            Step::Conflict { till, gross } => {
                let mut conflict = flagged(sale(&till.to_string(), 1, gross), &["IDENTITY_CONFLICT"]);
                conflict.0.envelope.conflicts_with = journal.frames.first().map(|frame| frame.key);
                conflict
            }
            Step::Move { item, unit, thousandths } => movement(vec![change(
                &format!("item{item}"),
                ["EA", "KGM", "BOX"][usize::from(unit)],
                &Decimal::new(thousandths, 3).to_string(),
            )]),
            Step::Count { item, unit, thousandths } => count(
                &format!("item{item}"),
                ["EA", "KGM", "BOX"][usize::from(unit)],
                &Decimal::new(thousandths, 3).to_string(),
            ),
            Step::Close { till, day: date } => close(till.map(|till| till.to_string()).as_deref(), &day(date)),
            Step::Resolve { back } => {
                let index = journal.frames.len().checked_sub(back + 1);
                resolve(
                    &index.map_or("ex-".to_owned(), |index| exception_id(journal.frames[index].key, "TOTALS_MISMATCH")),
                )
            }
            Step::Restart => {
                journal.restart();
                continue;
            }
            Step::Unknown => (record(Kind(300), envelope("d/u", &[]), b"{}"), Facts::None),
        };
        journal.append(appended);
    }
    journal
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn folding_is_deterministic_and_survives_a_snapshot_at_any_point(
        steps in proptest::collection::vec(step(), 1..120),
        at in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let frames = journal_of(&steps).frames;
        let whole = {
            let mut state = State::in_memory();
            apply_all(&mut state, &frames);
            state
        };
        let at = at.index(frames.len() + 1);
        let mut first = State::in_memory();
        apply_all(&mut first, &frames[..at]);
        let mut restored = State::in_memory();
        prop_assert_eq!(restored.restore(&first.snapshot([3; 16], 0)), Ok(first.applied()));
        prop_assert_eq!(&restored.tables, &first.tables);
        prop_assert_eq!(answers(&restored), answers(&first));
        // Replay begins somewhere at or before the snapshot.
        apply_all(&mut restored, &frames[again.index(at + 1)..]);
        prop_assert_eq!(answers(&restored), answers(&whole));
        prop_assert_eq!(restored.tables, whole.tables);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_and_a_replay_give_the_same_wherever_the_agent_was_killed(
        steps in proptest::collection::vec(step(), 1..120),
        kills in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let frames = journal_of(&steps).frames;
        let dir = tempfile::tempdir().unwrap();
        let quarantine = dir.path().join("quarantine");
        let mut whole = State::in_memory();
        apply_all(&mut whole, &frames);
        for (checkpoint_at, kill_at) in kills {
            let opened = State::open(&dir.path().join("state"), &quarantine);
            prop_assert_eq!(opened.damaged, None);
            let mut state = opened.state;
            let applied = opened.mark.map(|mark| mark.position);
            prop_assert_eq!(applied, state.applied());
            let from = frames.iter().position(|frame| Some(frame.position) > applied).unwrap_or(frames.len());
            let kill_at = from + kill_at.index(frames.len() - from + 1);
            let checkpoint_at = from + checkpoint_at.index(kill_at - from + 1);
            apply_all(&mut state, &frames[from..checkpoint_at]);
            if let Some(position) = state.applied() {
                state.checkpoint(position, [5; 32]).unwrap();
                prop_assert_eq!(state.checkpointed().map(|mark| mark.position), Some(position));
            }
            apply_all(&mut state, &frames[checkpoint_at..kill_at]);
        }
        let mut opened = State::open(&dir.path().join("state"), &quarantine);
        let at = frames.iter().filter(|frame| Some(frame.position) <= opened.mark.map(|mark| mark.position)).count();
        let mut prefix = State::in_memory();
        apply_all(&mut prefix, &frames[..at]);
        prop_assert_eq!(answers(&opened.state), answers(&prefix));
        prop_assert_eq!(&opened.state.tables, &prefix.tables);
        apply_all(&mut opened.state, &frames[at..]);
        prop_assert_eq!(answers(&opened.state), answers(&whole));
        prop_assert_eq!(&opened.state.tables, &whole.tables);
    }
}
