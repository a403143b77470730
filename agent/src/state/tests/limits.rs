//! What happens at the bounds: nothing panics, nothing is dropped in silence.

use super::*;
use crate::state::days::DayGone;
use crate::state::limits::{
    DAYS_GONE_MAX, DAYS_MAX, EPOCHS_MAX, EXCEPTIONS_OPEN_MAX, EXCEPTIONS_RESOLVED_MAX, ITEMS_MAX, ROW_BYTES_MAX,
    TENDERS_PER_TILL_MAX, TILLS_GONE_MAX, TILLS_PER_DAY_MAX, UNITS_PER_ITEM_MAX, WORD_BYTES_MAX,
};
use crate::state::{Group, exception_id};
use counterfoil_proto::record::flag;

fn codes(state: &State) -> Vec<String> {
    state.exceptions(false, NOW).into_iter().map(|exception| exception.code).collect()
}

fn sale_on(day: &str, number: u64) -> (Record, Facts) {
    let mut facts = sale_facts("3", number, 600);
    facts.business_day_date = day.to_owned();
    transaction(facts)
}

#[test]
fn the_day_that_was_touched_longest_ago_goes_and_stays_gone() {
    let mut journal = Journal::new();
    journal.append(close(Some("3"), "2026-01-01"));
    for number in 0..u64::try_from(DAYS_MAX).unwrap() {
        let day = format!("2026-{:02}-{:02}", 2 + number / 28, 1 + number % 28);
        journal.append(sale_on(&day, number));
        // The first of February is in use all the time.
        journal.append(sale_on("2026-02-01", 1_000 + number));
    }
    let mut state = journal.state();
    assert_eq!(state.tables.days.kept.len(), DAYS_MAX);
    assert_eq!(state.day("2026-01-01").closes, []);
    assert_eq!(state.day("2026-02-01").currencies[0].transactions, 63);
    assert!(codes(&state).is_empty());

    assert!(
        !state.judge(&prepared(sale_on("2026-01-01", 5)), &Group::default(), "0042", &mut |_| None).is_empty(),
        "that it was closed is remembered"
    );
    let mut other = sale_facts("4", 5, 600);
    other.business_day_date = "2026-01-01".to_owned();
    let other = state.judge(&prepared(transaction(other)), &Group::default(), "0042", &mut |_| None);
    assert!(other.is_empty(), "a till that is far behind did not close it: {other:?}");
    journal.append(sale_on("2026-01-01", 5));
    apply_all(&mut state, &journal.frames);
    assert_eq!(state.day("2026-01-01").currencies, [], "a remainder is not shown as the day");
    assert_eq!(codes(&state), ["DAY_NOT_KEPT"]);
}

#[test]
fn a_day_that_the_store_or_very_many_tills_closed_is_closed_for_all_when_it_is_gone() {
    let many = (0..=TILLS_GONE_MAX).map(|till| close(Some(&till.to_string()), "2026-01-01")).collect();
    for (closes, is_closed) in [(vec![close(None, "2026-01-01")], true), (many, true), (Vec::new(), false)] {
        let mut journal = Journal::new();
        journal.append(sale_on("2026-01-01", 1));
        for close in closes {
            journal.append(close);
        }
        for number in 0..u64::try_from(DAYS_MAX).unwrap() {
            journal.append(sale_on(&format!("2026-{:02}-{:02}", 2 + number / 28, 1 + number % 28), number));
        }
        let state = journal.state();
        assert_eq!(state.tables.days.gone.len(), 1);
        let late = state.judge(&prepared(sale_on("2026-01-01", 5)), &Group::default(), "0042", &mut |_| None);
        assert_eq!(!late.is_empty(), is_closed);
    }
}

#[test]
fn the_stored_form_of_earlier_versions_is_read() {
    for (written, read) in [(false, DayGone::Open), (true, DayGone::Closed)] {
        assert_eq!(postcard::from_bytes::<DayGone>(&postcard::to_allocvec(&written).unwrap()), Ok(read));
    }
}

#[test]
fn a_till_with_a_broken_clock_does_not_push_out_today() {
    let mut journal = Journal::new();
    for number in 0..5_000u64 {
        journal.append(sale_on(DAY, number));
        journal.append(sale_on(&format!("{:04}-{:02}-01", 2100 + number / 12, 1 + number % 12), number));
    }
    let state = journal.state();
    assert_eq!(state.day(DAY).currencies[0].transactions, 5_000);
    assert_eq!((state.tables.days.kept.len(), state.tables.days.gone.len()), (DAYS_MAX, DAYS_GONE_MAX));
}

#[test]
fn further_tills_tenders_and_unreadable_days_are_counted_not_taken() {
    let mut journal = Journal::new();
    for till in 0..=TILLS_PER_DAY_MAX {
        journal.append(sale(&format!("t{till}"), 1, 600));
    }
    let mut facts = sale_facts("t0", 2, 600);
    facts.tenders =
        (0..=TENDERS_PER_TILL_MAX).map(|index| TenderSum { tender_type: format!("x{index}"), amount: 1 }).collect();
    journal.append(transaction(facts));
    journal.append(sale_on("tomorrow", 3));
    let state = journal.state();
    assert_eq!(state.day(DAY).currencies[0].tills.len(), TILLS_PER_DAY_MAX);
    let exceptions = state.exceptions(false, NOW);
    let told: Vec<_> = exceptions.iter().map(|exception| (exception.code.as_str(), exception.class.as_str())).collect();
    let expected = ["DAY_TOTALS_LIMIT", "DRAWERS_LIMIT", "DAY_NOT_KEPT"].map(|code| (code, "technical"));
    assert_eq!(told, expected);
    // The till beyond, and three tenders: two of the 33, since the two of the first sale are there already.
    assert!(exceptions[0].message.contains("4 times"), "{}", exceptions[0].message);
}

/// The store's pages hold up to 17 rows, and put into files of their own what is larger than it keeps inline.
#[test]
fn the_largest_rows_stay_below_their_bound() {
    let name = |letter: &str| letter.repeat(WORD_BYTES_MAX / 2);
    let mut journal = Journal::new();
    let mut facts = sale_facts(&"\u{20ac}".repeat(64), u64::MAX, i64::MIN);
    facts.currency_code = name("\u{e4}");
    let tender = |index| TenderSum { tender_type: format!("{index:064}"), amount: i64::MIN };
    facts.tenders = (0..200).map(tender).collect();
    let tax = |index| TaxSum {
        category: format!("{index:064}"),
        rate: Decimal::MIN,
        taxable_amount: i64::MIN,
        amount: i64::MIN,
    };
    facts.taxes = (0..200).map(tax).collect();
    facts.sequence_epoch = u64::MAX;
    (facts.net, facts.tax) = (Some(i64::MIN), Some(i64::MIN));
    let huge = (0..40).map(|unit| change(&"\u{20ac}".repeat(64), &format!("{unit:064}"), &Decimal::MIN.to_string()));
    facts.stock = huge.collect();
    journal.append(flagged(transaction(facts), &["X"; 3]));
    let mut declared = close(Some(&"\u{20ac}".repeat(64)), DAY);
    let Facts::DayClose(facts) = &mut declared.1 else { panic!("a close") };
    facts.declared[0].tenders = (0..60).map(tender).collect();
    facts.declared[0].currency_code = name("\u{f6}");
    facts.declared = vec![facts.declared[0].clone(); 40];
    journal.append(declared);
    let mut long = flagged(sale("3", 1, 600), &[&"L".repeat(900)]);
    long.0.envelope.identity = Some("i".repeat(900));
    long.0.envelope.correlation_id = Some("c".repeat(900));
    long.0.envelope.flags[0].pointer = "p".repeat(900);
    let key = journal.append(long);
    let mut resolved = resolve(&exception_id(key, &"L".repeat(900)));
    let reason = format!("\"reason\":\"{}\"", "r".repeat(900));
    resolved.0.document =
        String::from_utf8(resolved.0.document).unwrap().replace("\"reason\":\"recounted\"", &reason).into();
    journal.append(resolved);
    let state = journal.state();
    let largest = state.tables.rows().map(|(key, value)| key.len() + value.len()).max().unwrap();
    assert!((5_000..ROW_BYTES_MAX).contains(&largest), "{largest}");
    assert_eq!(state.counters().changes_ignored, 0);
}

#[test]
fn sums_saturate_with_an_exception() {
    let mut journal = Journal::new();
    let mut facts = sale_facts("3", 1, 600);
    (facts.gross, facts.tenders[0].amount) = (i64::MAX, i64::MIN);
    journal.append(transaction(facts.clone()));
    facts.sequence_number = Some(2);
    journal.append(transaction(facts));
    for _ in 0..2 {
        journal.append(movement(vec![
            change("sand", "KGM", &Decimal::MAX.to_string()),
            change("air", "KGM", &Decimal::MIN.to_string()),
        ]));
    }
    journal.append(count("sand", "KGM", &Decimal::MAX.to_string()));
    journal.append(movement(vec![change("sand", "KGM", "5")]));
    let state = journal.state();
    assert_eq!(state.day(DAY).currencies[0].gross, "92233720368547758.07");
    assert_eq!(state.stock("sand").unwrap().quantity.on_hand.unwrap(), Decimal::MAX.to_string());
    assert_eq!(state.stock("air").unwrap().quantity.delta, Decimal::MIN.to_string());
    assert_eq!(codes(&state), ["TOTALS_OVERFLOW", "STOCK_OVERFLOW"]);
}

#[test]
fn items_and_units_beyond_the_bound_are_not_tracked_and_said_so() {
    let mut journal = Journal::new();
    let units = (0..=UNITS_PER_ITEM_MAX).map(|unit| change("mug", &format!("U{unit}"), "1")).collect();
    journal.append(movement(units));
    for first in (0..ITEMS_MAX).step_by(5_000) {
        journal.append(movement((first..first + 5_000).map(|item| change(&format!("i{item}"), "EA", "1")).collect()));
    }
    journal.append(movement(vec![change("mug", "U3", "1")]));
    let state = journal.state();
    assert_eq!(state.stock("mug").unwrap().other_units.len(), UNITS_PER_ITEM_MAX - 1);
    assert_eq!(state.stock("mug").unwrap().other_units[2].delta, "2");
    assert_eq!(state.tables.stock.items.len(), ITEMS_MAX);
    assert_eq!(codes(&state), ["STOCK_UNITS_LIMIT", "STOCK_ITEMS_LIMIT"]);
}

#[test]
fn exceptions_beyond_the_bound_are_counted_in_one_per_code() {
    let mut journal = Journal::new();
    let mut keys = Vec::new();
    let max = u64::try_from(EXCEPTIONS_OPEN_MAX).unwrap();
    for number in 0..max + 3 {
        keys.push(journal.append(flagged(sale("3", number, 600), &[flag::TOTALS_MISMATCH])));
    }
    journal.append(flagged(sale("3", max + 3, 600), &[flag::SIGN_MISMATCH]));
    let state = journal.state();
    assert_eq!(state.open_exceptions(), max + 2);
    let exceptions = state.exceptions(false, NOW);
    let [totals, signs] = &exceptions[EXCEPTIONS_OPEN_MAX..] else { panic!("two that count") };
    assert!(totals.message.contains("3 times"), "{}", totals.message);
    assert_eq!(
        (totals.code.as_str(), totals.class.as_str(), signs.code.as_str()),
        ("TOTALS_MISMATCH", "business", "SIGN_MISMATCH")
    );

    // Resolved, the counting one starts anew; and where there is room again, findings are listed one by one again.
    journal.append(resolve(&totals.id));
    journal.append(flagged(sale("3", max + 4, 600), &[flag::TOTALS_MISMATCH]));
    let state = journal.state();
    let again = state.exception(&totals.id, NOW).unwrap();
    assert_eq!((again.state.as_str(), again.message.contains("times")), ("open", false));
    journal.append(resolve(&exception_id(keys[0], flag::TOTALS_MISMATCH)));
    let key = journal.append(flagged(sale("3", max + 5, 600), &[flag::TOTALS_MISMATCH]));
    assert!(journal.state().exception(&exception_id(key, flag::TOTALS_MISMATCH), NOW).is_some());
}

#[test]
fn codes_beyond_the_bound_are_counted_together() {
    let mut journal = Journal::new();
    for number in 0..u64::try_from(EXCEPTIONS_OPEN_MAX).unwrap() {
        journal.append(flagged(sale("3", number, 600), &["FILL"]));
    }
    for number in 0..300 {
        journal.append(flagged(sale("4", number, 600), &[&format!("CODE_{number}")]));
    }
    let state = journal.state();
    let last = state.exceptions(false, NOW).pop().unwrap();
    assert_eq!((last.code.as_str(), state.open_exceptions()), ("OTHER_FINDINGS", 20_257));
    assert!(last.message.contains("44 times"), "{}", last.message);
}

#[test]
fn resolved_exceptions_are_forgotten_in_the_order_of_their_resolution() {
    let mut journal = Journal::new();
    let mut ids = Vec::new();
    for number in 0..=u64::try_from(EXCEPTIONS_RESOLVED_MAX).unwrap() {
        let key = journal.append(flagged(sale("3", number, 600), &[flag::TOTALS_MISMATCH]));
        ids.push(exception_id(key, flag::TOTALS_MISMATCH));
    }
    ids.iter().rev().for_each(|id| {
        journal.append(resolve(id));
    });
    let state = journal.state();
    assert_eq!(state.exceptions(true, NOW).len(), EXCEPTIONS_RESOLVED_MAX);
    assert_eq!(state.exception(ids.last().unwrap(), NOW), None);
    assert!(state.exception(&ids[0], NOW).is_some());
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let mut journal = Journal::new();
    let mut long = flagged(sale("3", 1, 600), &[flag::TOTALS_MISMATCH]);
    long.0.envelope.identity = Some(format!("d/x{}", "\u{20ac}".repeat(400)));
    long.0.envelope.flags[0].pointer = format!("/{}", "\u{e4}".repeat(400));
    journal.append(long);
    let exceptions = journal.state().exceptions(false, NOW);
    assert_eq!((exceptions[0].pointer.len(), exceptions[0].identity.as_ref().unwrap().len()), (511, 510));
}

#[test]
fn a_box_that_restarts_over_and_over_folds_nothing_twice() {
    let mut journal = Journal::new();
    for restart in 0..200 {
        journal.append(sale("3", restart, 600));
        journal.restart();
    }
    let mut state = journal.state();
    let before = answers(&state);
    apply_all(&mut state, &journal.frames);
    assert_eq!(state.day(DAY).currencies[0].transactions, 200);
    assert_eq!(answers(&state), before);

    let mut heads = crate::state::heads::Heads::default();
    let mut dirty = crate::state::dirty::Dirty::none();
    let key = |number: usize| {
        let mut epoch = [0; 16];
        epoch[..8].copy_from_slice(&u64::try_from(number).unwrap().to_le_bytes());
        RecordKey { epoch: Epoch(epoch), lane: Lane::Trade, seq: Seq(1) }
    };
    for number in 0..=EPOCHS_MAX {
        assert!(heads.advance(key(number), &mut dirty));
    }
    assert_eq!(heads.epochs.len(), EPOCHS_MAX);
    assert!(heads.covers(key(1)) && !heads.covers(key(0)));
}
