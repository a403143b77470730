//! What money moved outside a sale does.

use super::*;
use crate::record::facts::{Facts, TenderControlFacts, TenderSum};

fn control_facts(document: &Value) -> TenderControlFacts {
    match accepted(Kind::TENDER_CONTROL, document).facts {
        Facts::TenderControl(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn amounts_count_as_written_and_a_wrong_sign_is_flagged() {
    for (control_type, plus, minus) in [
        ("paid_in", true, false),
        ("loan", true, false),
        ("paid_out", false, true),
        ("safe_drop", false, true),
        ("pickup", false, true),
        ("declaration", true, false),
    ] {
        for (amount, minor, is_right) in [("500.00", 50_000, plus), ("-500.00", -50_000, minus), ("0", 0, true)] {
            let document =
                with(with(tender_control(), "/type", control_type.into()), "/tenders/0/amount", amount.into());
            let expected: &[&str] = if is_right { &[] } else { &["SIGN_MISMATCH"] };
            assert_eq!(codes(&accepted(Kind::TENDER_CONTROL, &document)), expected, "{control_type} {amount}");
            let facts = control_facts(&document);
            assert_eq!(facts.is_declaration, control_type == "declaration");
            assert_eq!(facts.tenders, [TenderSum { tender_type: "cash".into(), amount: minor }]);
        }
    }
}

#[test]
fn it_belongs_to_a_till_and_a_day() {
    let facts = control_facts(&tender_control());
    assert_eq!((facts.workstation_id.as_str(), facts.business_day_date.as_str()), ("3", "2026-11-23"));
    assert_eq!(facts.currency_code, "EUR");
    let derived =
        with(with(tender_control(), "/business_day_date", Value::Null), "/end_date_time", "2026-11-24T03:00:00".into());
    assert_eq!(control_facts(&derived).business_day_date, "2026-11-23");
    assert_eq!(
        faults(Kind::TENDER_CONTROL, &with(tender_control(), "/workstation_id", Value::Null)),
        [("missing-field", "/workstation_id".into())]
    );
    assert_eq!(
        faults(Kind::TENDER_CONTROL, &with(tender_control(), "/document_id", Value::Null)),
        [("missing-field", "/document_id".into())]
    );
}
