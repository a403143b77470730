//! Golden bytes: every version of the snapshot stays readable, and this one is written as it was.

use super::drawers::control;
use super::orders::{update, update_facts};
use super::*;
use counterfoil_proto::record::facts::FulfillmentState;
use counterfoil_proto::record::flag;

const SNAPSHOT_V1: &[u8] = include_bytes!("../../../fixtures/state-snapshot-v1.bin");
const ANSWERS_V1: &str = include_str!("../../../fixtures/state-snapshot-v1.json");

/// What the golden snapshot was taken of: every table, every optional field with and without a value.
fn journal() -> Journal {
    let mut journal = Journal::new();
    journal.append(flagged(sale("3", 7, 600), &[flag::TOTALS_MISMATCH, flag::TENDER_MISMATCH]));
    let first = journal.append(sale("t\u{e4}", 1, -1_200));
    let mut conflict = flagged(sale("3", 7, 9_900), &[flag::IDENTITY_CONFLICT]);
    conflict.0.envelope.conflicts_with = Some(first);
    journal.append(conflict);
    journal.append(movement(vec![
        change("rice", "KGM", "1.250"),
        change("rice", "BOX", "-4"),
        change("mug", "EA", "12"),
    ]));
    journal.append(count("rice", "KGM", "10.5"));
    journal.append(close(Some("3"), DAY));
    journal.append(close(None, DAY));
    let resolved = journal.state().exceptions(false, NOW)[0].id.clone();
    journal.append(resolve(&resolved));
    journal.restart();
    let mut yen = sale_facts("3", 8, 500);
    (yen.currency_code, yen.training_mode, yen.sequence_number) = ("JPY".to_owned(), true, None);
    journal.append(transaction(yen));
    journal.append(flagged(movement(vec![change("mug", "EA", "-1")]), &["CODE_OF_A_LATER_VERSION"]));
    let mut huge = sale_facts("3", 9, 600);
    huge.gross = i64::MAX;
    journal.append(transaction(huge));
    journal
}

/// The same with the tables that version 2 added.
fn journal_of_version_2() -> Journal {
    let mut journal = journal();
    let mut prepared = update_facts(FulfillmentState::Prepared, "2");
    (prepared.ready_at, prepared.expires_at) = (Some(NOW), Some(NOW));
    journal.append(update(prepared));
    journal.append(update(update_facts(FulfillmentState::Completed, "1.5")));
    journal.append(control(true, &[("cash", 20_000)]));
    journal.append(control(false, &[("cash", -500), ("voucher", 700)]));
    journal.append(sale("3", 20, 600));
    let open = journal.state().exceptions(false, NOW)[0].id.clone();
    journal.append(changed(&open, "acknowledged"));
    journal
}

#[test]
fn version_1_is_read_as_ever() {
    let mut restored = State::in_memory();
    restored.restore(&[SNAPSHOT_V1]).expect("the golden snapshot is readable");
    let golden: Value = serde_json::from_str(ANSWERS_V1).unwrap();
    assert_eq!(answers(&restored), golden, "\n{}", serde_json::to_string_pretty(&answers(&restored)).unwrap());
}

#[test]
fn version_2_is_read_and_written_as_ever() {
    let state = journal_of_version_2().state();
    let written = state.snapshot([7; 16], usize::MAX).concat();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/state-snapshot-v2.bin");
    // Once, when the version was made.
    if std::env::var_os("COUNTERFOIL_BLESS").is_some() && !file.exists() {
        std::fs::write(&file, &written).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    assert_eq!(written, golden, "a changed form needs a new version, and its own golden bytes");
    let mut restored = State::in_memory();
    restored.restore(&[golden]).expect("the golden snapshot is readable");
    assert_eq!(restored.tables, state.tables);
}
