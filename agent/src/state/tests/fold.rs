//! Rules of the fold, one at a time.

use super::*;
use crate::state::{Group, exception_id};
use counterfoil_proto::id::{Digest, StoreId};
use counterfoil_proto::record::Context;
use counterfoil_proto::record::facts::TenderControlFacts;
use counterfoil_proto::record::flag;

fn till_totals(state: &State, till: &str) -> crate::answer::TillTotals {
    let day = state.day(DAY);
    let found = day.currencies.iter().flat_map(|currency| &currency.tills).find(|totals| totals.workstation_id == till);
    found.expect("the till has totals").clone()
}

#[test]
fn a_sale_moves_stock_and_totals() {
    let mut journal = Journal::new();
    journal.append(sale("3", 8, 600));
    journal.append(sale("3", 7, 1_200));
    journal.append(sale("4", 1, -600));
    let state = journal.state();

    let stock = state.stock("mug").unwrap();
    assert_eq!((stock.quantity.delta.as_str(), stock.quantity.on_hand, stock.quantity.available), ("-6", None, None));
    let day = state.day(DAY);
    assert_eq!(day.currencies.len(), 1);
    assert_eq!((day.currencies[0].transactions, day.currencies[0].gross.as_str()), (3, "12.00"));
    let till = till_totals(&state, "3");
    assert_eq!(
        (till.transactions, till.gross.as_str(), till.net.as_str(), till.tax.as_str()),
        (2, "18.00", "15.00", "3.00")
    );
    assert_eq!((till.first_sequence_number, till.last_sequence_number), (Some(7), Some(8)));
    assert_eq!(till.taxes.len(), 1);
    assert_eq!(
        (till.taxes[0].category.as_str(), till.taxes[0].rate.as_str(), till.taxes[0].amount.as_str()),
        ("S", "20", "3.00")
    );
    assert_eq!(
        till.tenders,
        [("cash".to_owned(), "20.00".to_owned()), ("change".to_owned(), "-2.00".to_owned())].into()
    );
    assert_eq!(lane_of(&state, Lane::Trade), Some(3));
}

#[test]
fn amounts_have_the_places_of_their_currency() {
    let mut journal = Journal::new();
    for (number, currency_code) in (1..).zip(["JPY", "BHD", "EUR"]) {
        let mut facts = sale_facts("3", number, 600);
        facts.currency_code = currency_code.to_owned();
        journal.append(transaction(facts));
    }
    let day = journal.state().day(DAY);
    let gross: Vec<_> =
        day.currencies.iter().map(|totals| (totals.currency_code.as_str(), totals.gross.as_str())).collect();
    assert_eq!(gross, [("BHD", "0.600"), ("EUR", "6.00"), ("JPY", "600")]);
}

#[test]
fn a_conflict_moves_neither_stock_nor_totals_but_is_counted() {
    let mut journal = Journal::new();
    let first = journal.append(sale("3", 7, 600));
    let mut conflict = flagged(sale("3", 9, 99_900), &[flag::IDENTITY_CONFLICT]);
    conflict.0.envelope.conflicts_with = Some(first);
    let kept = journal.append(conflict);
    for mut conflict in [movement(vec![change("mug", "EA", "5")]), count("mug", "EA", "7"), close(None, DAY)] {
        conflict.0.envelope.conflicts_with = Some(first);
        journal.append(conflict);
    }
    let state = journal.state();

    let till = till_totals(&state, "3");
    assert_eq!((till.transactions, till.gross.as_str(), till.last_sequence_number), (1, "6.00", Some(7)));
    assert_eq!(till.not_counted, [("conflicts".to_owned(), 1)].into());
    assert_eq!(state.stock("mug").unwrap().quantity.delta, "-2");
    assert_eq!(state.day(DAY).closes, []);
    assert_eq!(state.counters().conflicts, 4);
    let exception = state.exception(&exception_id(kept, flag::IDENTITY_CONFLICT), NOW).unwrap();
    assert_eq!((exception.class.as_str(), exception.seq), ("business", 2));
}

#[test]
fn what_does_not_count_is_counted_beside() {
    let mut journal = Journal::new();
    let edit = |number, change: fn(&mut TransactionFacts)| {
        let mut facts = sale_facts("3", number, 600);
        facts.stock.clear();
        change(&mut facts);
        transaction(facts)
    };
    journal.append(edit(1, |facts| facts.training_mode = true));
    journal.append(edit(2, |facts| facts.status = TransactionStatus::Suspended));
    journal.append(edit(3, |facts| facts.status = TransactionStatus::Canceled));
    journal.append(edit(4, |facts| facts.transaction_type = TransactionType::NoSale));
    journal.append(edit(5, |facts| facts.transaction_type = TransactionType::Void));
    let till = till_totals(&journal.state(), "3");
    assert_eq!((till.transactions, till.gross.as_str()), (1, "6.00"));
    assert_eq!((till.first_sequence_number, till.last_sequence_number), (Some(1), Some(5)));
    let names = ["canceled", "no_sale", "suspended", "training"];
    assert_eq!(till.not_counted, names.map(|name| (name.to_owned(), 1)).into());
}

#[test]
fn a_restarted_counter_orders_after_the_old_one() {
    let mut journal = Journal::new();
    for (sequence_epoch, number) in [(1, 2), (0, 900), (1, 3), (0, 899)] {
        let mut facts = sale_facts("3", number, 600);
        facts.sequence_epoch = sequence_epoch;
        journal.append(transaction(facts));
    }
    let mut unnumbered = sale_facts("3", 0, 600);
    unnumbered.sequence_number = None;
    journal.append(transaction(unnumbered));
    let till = till_totals(&journal.state(), "3");
    assert_eq!((till.transactions, till.first_sequence_number, till.last_sequence_number), (5, Some(899), Some(3)));
}

#[test]
fn on_hand_is_unknown_until_a_count_and_units_stay_apart() {
    let mut journal = Journal::new();
    journal.append(movement(vec![change("rice", "KGM", "1.250"), change("rice", "EA", "4")]));
    journal.append(count("rice", "KGM", "10.5"));
    journal.append(movement(vec![change("rice", "KGM", "-0.500")]));
    let state = journal.state();
    let stock = state.stock("rice").unwrap();
    let quantity = &stock.quantity;
    assert_eq!(
        (quantity.unit.as_str(), quantity.on_hand.as_deref(), quantity.delta.as_str()),
        ("KGM", Some("10"), "-0.5")
    );
    assert_eq!(quantity.available.as_deref(), Some("10"));
    assert_eq!(quantity.delta_since, journal.frames[1].record.envelope.recorded_at.to_rfc3339());
    let [pieces] = &stock.other_units[..] else { panic!("one further unit") };
    assert_eq!((pieces.unit.as_str(), pieces.on_hand.as_deref(), pieces.delta.as_str()), ("EA", None, "4"));
    assert_eq!(pieces.delta_since, journal.frames[0].record.envelope.recorded_at.to_rfc3339());
    assert_eq!(state.stock("bread"), None);
    assert_eq!(state.stock_all().count(), 2);
}

#[test]
fn an_exceptions_id_follows_from_record_and_code() {
    let mut journal = Journal::new();
    let key = journal.append(flagged(
        sale("3", 7, 600),
        &[flag::TOTALS_MISMATCH, flag::TENDER_MISMATCH, flag::TOTALS_MISMATCH, "LATER"],
    ));
    let state = journal.state();

    let named = [b"exception".as_slice(), &[1; 16], &[0], &1u64.to_le_bytes(), b"TOTALS_MISMATCH"].concat();
    let id = format!("ex-{}", &Digest::of(&named).to_string()[..16]);
    assert_eq!(exception_id(key, flag::TOTALS_MISMATCH), id);
    let exception = state.exception(&id, WallTime(NOW.0 + 1_500)).unwrap();
    assert_eq!(
        (exception.code.as_str(), exception.class.as_str(), exception.owner.as_str()),
        ("TOTALS_MISMATCH", "business", "store_finance")
    );
    assert_eq!(
        (exception.pointer.as_str(), exception.identity.as_deref()),
        ("/totals/gross", Some("t/3/2026-11-23/7/0"))
    );
    assert_eq!((exception.age_s, exception.correlation_id.as_deref()), (1_001, Some("c-1")));
    assert!(exception.message.ends_with("Found in 2 places of this document."), "{}", exception.message);
    assert_eq!(state.open_exceptions(), 3);
    let later = state.exception(&exception_id(key, "LATER"), NOW).unwrap();
    assert_eq!((later.code.as_str(), later.class.as_str()), ("LATER", "technical"));
    assert_eq!(state.exceptions(false, WallTime(0))[0].age_s, 0, "a clock that stepped back gives no huge age");
    for foreign in ["", "ex-", "ex-00", "ex-+000000000000000", "ex-000000000000000\u{e4}", &id.to_uppercase()] {
        assert_eq!(state.exception(foreign, NOW), None);
    }
}

#[test]
fn open_exceptions_are_tallied_by_code_and_those_of_other_software_as_one() {
    let mut journal = Journal::new();
    for number in 7..10 {
        let codes = [flag::TOTALS_MISMATCH, if number == 7 { "OF_LATER" } else { "OF_STILL_LATER" }];
        journal.append(flagged(sale("3", number, 600), &codes));
    }
    let key = journal.append(flagged(sale("3", 10, 600), &[flag::TOTALS_MISMATCH]));
    journal.append(resolve(&exception_id(key, flag::TOTALS_MISMATCH)));
    let state = journal.state();
    let tally = state.tally_exceptions(WallTime(NOW.0 + 60_000));
    let counts: Vec<_> = tally.iter().map(|one| (one.code, one.class.as_str(), one.owner, one.open)).collect();
    let expected = [("TOTALS_MISMATCH", "business", "store_finance", 3), ("other", "technical", "store_systems", 3)];
    assert_eq!(counts, expected);
    assert!(tally.iter().all(|one| one.oldest_s == 1_060), "{tally:?}");
    assert_eq!(state.day_standing("2026-11-23"), state.day("2026-11-23").standing);
    assert_eq!(state.day_standing("no date"), crate::answer::Standing::Unknown);
}

#[test]
fn an_exception_is_resolved_once_and_stays_known() {
    let mut journal = Journal::new();
    let key = journal.append(flagged(sale("3", 7, 600), &[flag::TOTALS_MISMATCH]));
    let id = exception_id(key, flag::TOTALS_MISMATCH);
    journal.append(resolve(&id));
    journal.append(resolve(&id));
    journal.append(resolve("ex-0000000000000000"));
    let mut garbled = resolve(&id);
    garbled.0.document = b"{\"exception_id\":7".to_vec();
    journal.append(garbled);
    let state = journal.state();
    assert_eq!(state.open_exceptions(), 0);
    assert_eq!(state.exceptions(false, NOW), []);
    let exceptions = state.exceptions(true, NOW);
    assert_eq!(exceptions.len(), 1);
    assert_eq!((exceptions[0].state.as_str(), exceptions[0].resolved_by.as_deref()), ("resolved", Some("Ann \"17\"")));
    assert_eq!(exceptions[0].reason.as_deref(), Some("recounted"));
    assert_eq!(state.counters().changes_ignored, 3);
}

#[test]
fn an_exception_is_acknowledged_and_waived_by_somebody() {
    let mut journal = Journal::new();
    let key = journal.append(flagged(sale("3", 7, 600), &[flag::TOTALS_MISMATCH]));
    let id = exception_id(key, flag::TOTALS_MISMATCH);
    let of = |journal: &Journal| {
        let state = journal.state();
        let found = state.exception(&id, NOW).unwrap();
        (found.state, found.changed_by, found.resolved_by, state.open_exceptions())
    };
    assert_eq!(of(&journal), ("open".to_owned(), None, None, 1));
    journal.append(changed(&id, "acknowledged"));
    let ann = Some("Ann \"17\"".to_owned());
    assert_eq!(of(&journal), ("acknowledged".to_owned(), ann.clone(), None, 1), "it still waits for its end");
    assert_eq!(journal.state().exceptions(false, NOW).len(), 1);
    journal.append(changed(&id, "forgotten"));
    assert_eq!(of(&journal), ("acknowledged".to_owned(), ann.clone(), None, 1), "nobody knows what that would be");
    journal.append(changed(&id, "waived"));
    assert_eq!(of(&journal), ("waived".to_owned(), ann.clone(), ann.clone(), 0));
    journal.append(changed(&id, "acknowledged"));
    assert_eq!(of(&journal), ("waived".to_owned(), ann.clone(), ann, 0), "what has ended has ended");
    assert_eq!(journal.state().counters().changes_ignored, 2);
    let told = journal.state().exception(&id, NOW).unwrap();
    assert_eq!((told.reason.as_deref(), told.changed_at.is_some()), (Some("recounted"), true));
}

#[test]
fn the_agents_own_statements_open_exceptions_through_their_flags() {
    let mut journal = Journal::new();
    for (kind, code) in [(Kind::JOURNAL_DAMAGE, flag::JOURNAL_DAMAGE), (Kind::TAIL_CUT, flag::TAIL_CUT)] {
        let mut own = envelope("", &[code]);
        own.identity = None;
        journal.append((record(kind, own, b"{}"), Facts::None));
    }
    let exceptions = journal.state().exceptions(false, NOW);
    let told: Vec<_> = exceptions
        .iter()
        .map(|exception| (exception.code.as_str(), exception.class.as_str(), &exception.identity))
        .collect();
    assert_eq!(told, [("JOURNAL_DAMAGE", "technical", &None), ("TAIL_CUT", "technical", &None)]);
}

#[test]
fn a_record_is_folded_once_also_from_another_position() {
    let mut journal = Journal::new();
    journal.append(flagged(sale("3", 7, 600), &[flag::TOTALS_MISMATCH]));
    journal.append(movement(vec![change("mug", "EA", "40")]));
    journal.append(sale("3", 8, 600));
    let once = journal.state();
    let mut twice = journal.state();
    for frame in &journal.frames {
        twice.apply(frame.position + 4_096, frame.key, &frame.record, &frame.facts);
        twice.apply_stored(frame.position + 8_192, frame.key, &frame.record.encode().unwrap());
        twice.apply_stored(frame.position + 8_192, frame.key, b"garbage");
    }
    assert_eq!(answers(&twice), answers(&once));
    journal.restart();
    journal.append(sale("3", 9, 600));
    let state = journal.state();
    assert_eq!(state.live_epoch(), Some(Epoch([2; 16])));
    assert_eq!((lane_of(&state, Lane::Trade), lane_of(&state, Lane::Stock)), (Some(1), None));
    assert_eq!(state.counters().records, 4);
}

#[test]
fn records_that_cannot_be_read_are_counted_and_named() {
    let mut journal = Journal::new();
    let key = journal.append(sale("3", 7, 600));
    let mut state = State::in_memory();
    state.apply_stored(64, key, b"\x01\x00\x09\x00\x00\x00\x00\x00");
    let unknown = record(Kind(999), envelope("d/x", &[]), b"{}").encode().unwrap();
    state.apply_stored(500, RecordKey { seq: Seq(2), ..key }, &unknown);
    assert_eq!(state.counters().unreadable, 2);
    let codes: Vec<_> = state.exceptions(false, NOW).into_iter().map(|exception| exception.code).collect();
    assert_eq!(codes, [flag::UNREADABLE_RECORD, flag::UNKNOWN_KIND]);
    assert_eq!((lane_of(&state, Lane::Trade), state.applied()), (Some(2), Some(500)));
}

fn late(state: &State, appended: (Record, Facts), group: &Group) -> bool {
    let flags = state.judge(&prepared(appended), group, "0042", &mut |_| None);
    assert!(flags.iter().all(|flag| flag.code == flag::LATE_AFTER_CLOSE && flag.pointer == "/business_day_date"));
    !flags.is_empty()
}

#[test]
fn a_till_that_closed_is_late_and_the_others_are_not() {
    let mut journal = Journal::new();
    journal.append(sale("3", 7, 600));
    let none = Group::default();
    assert!(!late(&journal.state(), sale("3", 8, 600), &none));
    journal.append(close(Some("3"), DAY));
    let state = journal.state();
    assert!(late(&state, sale("3", 8, 600), &none));
    assert!(!late(&state, sale("4", 8, 600), &none));
    let mut tomorrow = sale_facts("3", 9, 600);
    tomorrow.business_day_date = "2026-11-24".to_owned();
    assert!(!late(&state, transaction(tomorrow), &none));
    let closes = state.day(DAY).closes;
    assert_eq!(
        (closes.len(), closes[0].declared[0].gross.as_str(), closes[0].declared[0].transactions),
        (1, "12.34", 3)
    );
    assert!(!late(&state, movement(vec![change("mug", "EA", "1")]), &none), "goods arrive after closing too");
}

#[test]
fn a_closed_store_is_late_for_every_till_and_for_cash() {
    let mut journal = Journal::new();
    let drop = |till: &str| {
        let facts = TenderControlFacts {
            workstation_id: till.to_owned(),
            business_day_date: DAY.to_owned(),
            is_declaration: false,
            currency_code: "EUR".to_owned(),
            tenders: Vec::new(),
        };
        (record(Kind::TENDER_CONTROL, envelope("d/drop", &[]), b"{}"), Facts::TenderControl(facts))
    };
    journal.append(close(Some("3"), DAY));
    let none = Group::default();
    assert!(late(&journal.state(), drop("3"), &none));
    assert!(!late(&journal.state(), drop("4"), &none));
    journal.append(close(None, DAY));
    assert!(late(&journal.state(), drop("4"), &none));
    assert!(late(&journal.state(), sale("5", 1, 600), &none));
}

#[test]
fn a_close_earlier_in_the_same_group_counts() {
    let state = State::in_memory();
    let mut group = Group::default();
    group.note(&prepared(sale("3", 7, 600)));
    assert!(!late(&state, sale("3", 8, 600), &group));
    group.note(&prepared(close(Some("3"), DAY)));
    assert!(late(&state, sale("3", 8, 600), &group));
    assert!(!late(&state, sale("4", 8, 600), &group));
}

/// What tills really send: judged, recorded, folded when it was appended; and again from the stored bytes after a restart.
#[test]
fn replay_of_stored_bytes_gives_what_appending_gave() {
    let context = Context {
        store_id: StoreId::new("0042").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    };
    let mut document = json!({
        "workstation_id": "3", "business_day_date": DAY, "sequence_number": 1187, "type": "exchange",
        "end_date_time": "2026-11-23T10:15:40+01:00", "currency_code": "EUR",
        "line_items": [
            {"line": 1, "kind": "sale", "item_id": "85123A", "quantity": "2", "unit": "EA", "actual_unit_price": "4.49",
             "extended_amount": "8.98", "modifiers": [{"amount": "-1.00", "reason_code": "PROMO"}],
             "taxes": [{"category": "S", "rate": "20", "taxable_amount": "7.48", "amount": "1.50", "included": true}]},
            {"line": 2, "kind": "return", "item_id": "22423", "quantity": "-1", "unit": "EA", "actual_unit_price": "3.00",
             "extended_amount": "-3.00"}],
        "tenders": [{"line": 1, "type": "cash", "amount": "10.00"}, {"line": 2, "type": "change", "amount": "-4.02"}],
        "totals": {"net": "4.48", "tax": "1.50", "gross": "5.98"}
    });
    let mut documents = vec![(Kind::TRANSACTION, document.clone())];
    document["sequence_number"] = 1188.into();
    document["totals"]["gross"] = "5.97".into();
    documents.push((Kind::TRANSACTION, document));
    let line = json!([{"line": 1, "item_id": "85123A", "quantity": "24", "unit": "EA"}]);
    let movement = |id: &str, kind: &str| json!({"document_id": id, "type": kind, "end_date_time": "2026-11-23T11:00:00Z", "line_items": line});
    documents.push((Kind::STOCK_MOVEMENT, movement("m1", "count")));
    documents.push((Kind::STOCK_MOVEMENT, movement("m2", "receipt")));
    let declared = json!([{"currency_code": "EUR", "transactions": 2, "gross": "11.95",
        "tenders": [{"type": "cash", "amount": "11.96"}]}]);
    documents.push((
        Kind::DAY_CLOSE,
        json!({"document_id": "z1", "workstation_id": "3", "business_day_date": DAY,
        "end_date_time": "2026-11-23T20:00:00Z", "totals": declared}),
    ));

    let mut journal = Journal::new();
    for (kind, document) in documents {
        let text = serde_json::to_vec(&document).unwrap();
        let prepared = counterfoil_proto::record::prepare(kind, &text, None, &context);
        let prepared = prepared.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        journal.append((record(prepared.kind, prepared.envelope, &prepared.document), prepared.facts));
    }
    let appended = journal.state();
    let mut replayed = State::in_memory();
    for frame in &journal.frames {
        replayed.apply_stored(frame.position, frame.key, &frame.record.encode().unwrap());
    }
    assert_eq!(answers(&replayed), answers(&appended));
    let stock = appended.stock("85123A").unwrap().quantity;
    assert_eq!((stock.on_hand.as_deref(), stock.delta.as_str()), (Some("48"), "24"));
    let day = appended.day(DAY);
    assert_eq!((day.currencies[0].gross.as_str(), day.closes[0].declared[0].gross.as_str()), ("11.95", "11.95"));
    assert_eq!(appended.counters().unreadable, 0);
    assert!(appended.open_exceptions() > 0, "the second receipt does not add up");
}
