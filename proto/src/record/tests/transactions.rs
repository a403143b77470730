//! What a transaction does, and each rule that it is judged by: what raises it, and the honest neighbour that does not.

use rust_decimal::Decimal;

use super::*;
use crate::record::facts::{StockChange, TaxSum, TenderSum, TransactionStatus, TransactionType};

fn decimal(text: &str) -> Decimal {
    crate::money::decimal(text).unwrap()
}

fn change(item_id: &str, delta: &str) -> StockChange {
    StockChange { item_id: item_id.into(), unit: "EA".into(), delta: decimal(delta) }
}

/// A one-line sale with these prices, totals and tender following the line.
fn priced(quantity: &str, price: &str, extended: &str) -> Value {
    let document = with(sale(), "/line_items/0/quantity", quantity.into());
    let document = with(document, "/line_items/0/actual_unit_price", price.into());
    charged(document, extended)
}

fn charged(document: Value, amount: &str) -> Value {
    let document = with(document, "/line_items/0/extended_amount", amount.into());
    let document = with(document, "/tenders/0/amount", amount.into());
    with(document, "/totals/gross", amount.into())
}

/// Names the transaction that it refers to.
fn linked(document: Value) -> Value {
    let link = json!({ "workstation_id": "1", "business_day_date": "2026-11-20", "sequence_number": 77 });
    with(document, "/transaction_link", link)
}

const NOTHING: &[&str] = &[];

#[test]
fn the_example_of_the_design_gives_its_facts() {
    let facts = transaction_facts(&exchange());
    assert_eq!((facts.workstation_id.as_str(), facts.business_day_date.as_str()), ("3", "2026-11-23"));
    assert_eq!((facts.sequence_number, facts.sequence_epoch), (Some(1187), 0));
    assert_eq!((facts.transaction_type, facts.status), (TransactionType::Exchange, TransactionStatus::Finished));
    assert_eq!((facts.gross, facts.net, facts.tax), (598, Some(448), Some(150)));
    assert_eq!(facts.taxes, [TaxSum { category: "S".into(), rate: decimal("20"), taxable_amount: 748, amount: 150 }]);
    let tenders = [("cash", 1000), ("change", -402)];
    assert_eq!(
        facts.tenders,
        tenders.map(|(tender_type, amount)| TenderSum { tender_type: tender_type.into(), amount })
    );
    assert_eq!(facts.stock, [change("85123A", "-2"), change("22423", "1")]);
    assert!(facts.counts());
}

#[test]
fn what_does_not_count_moves_no_stock_and_is_not_judged() {
    for (pointer, value) in [
        ("/training_mode", json!(true)),
        ("/status", json!("suspended")),
        ("/status", json!("canceled")),
        ("/type", json!("no_sale")),
    ] {
        let document = with(sale(), pointer, value.clone());
        let facts = transaction_facts(&document);
        assert!(facts.stock.is_empty() && !facts.counts(), "{pointer}");
        if value != json!("no_sale") {
            assert_eq!(flags(&with(document, "/totals/gross", "1.00".into())), NOTHING);
        }
    }
}

#[test]
fn only_goods_taken_along_move_stock() {
    for (pointer, value, expected) in [
        ("/line_items/0/fulfillment", json!({ "type": "take_with" }), 1),
        ("/line_items/0/fulfillment", json!({ "type": "shipment" }), 0),
        ("/line_items/0/voided", json!(true), 0),
        ("/line_items/0/item_id", Value::Null, 0),
        ("/line_items/0/kind", json!("deposit"), 0),
        ("/line_items/0/kind", json!("gift_card"), 0),
    ] {
        assert_eq!(transaction_facts(&with(sale(), pointer, value)).stock.len(), expected, "{pointer}");
    }
}

#[test]
fn a_void_reverses_by_its_own_signs() {
    let document = linked(with(priced("-2", "4.49", "-8.98"), "/type", "void".into()));
    assert_eq!(flags(&document), NOTHING);
    assert_eq!(flags(&with(document.clone(), "/transaction_link", Value::Null)), ["VOID_UNLINKED"]);
    assert_eq!(transaction_facts(&document).stock, [change("85123A", "2")]);
    let of_a_return = linked(with(with(sale(), "/type", "void".into()), "/line_items/0/kind", "return".into()));
    assert_eq!(flags(&of_a_return), NOTHING);
}

#[test]
fn lines_and_taxes_make_the_total() {
    assert_eq!(flags(&with(sale(), "/totals/gross", "8.99".into())), ["TOTALS_MISMATCH", "TENDER_MISMATCH"]);
    let voided = json!({ "line": 2, "kind": "sale", "quantity": "1", "extended_amount": "5.00", "voided": true });
    let mut document = sale();
    document.pointer_mut("/line_items").unwrap().as_array_mut().unwrap().push(voided);
    assert_eq!(flags(&document), NOTHING);
    assert_eq!(flags(&with(document, "/line_items/1/voided", json!(false))), ["TOTALS_MISMATCH"]);
}

#[test]
fn taxes_that_lines_do_not_hold_come_on_top_to_one_minor_unit_per_group() {
    let tax = json!([{ "category": "S", "rate": "8.25", "taxable_amount": "8.98", "amount": "0.74" }]);
    let document = with(sale(), "/line_items/0/taxes", tax);
    let total = |gross: &str| {
        let document = with(document.clone(), "/totals", json!({ "net": "8.98", "tax": "0.74", "gross": gross }));
        flags(&with(document, "/tenders/0/amount", gross.into()))
    };
    assert_eq!(total("9.72"), NOTHING);
    assert_eq!(total("9.73"), NOTHING);
    assert_eq!(total("9.71"), NOTHING);
    assert_eq!(total("9.74"), ["TOTALS_MISMATCH"]);
    assert_eq!(total("8.98"), ["TOTALS_MISMATCH"]);
}

#[test]
fn tax_that_stands_in_the_totals_only_is_understood() {
    let totals = json!({ "net": "8.98", "tax": "0.74", "gross": "9.72" });
    let document = with(with(sale(), "/totals", totals), "/tenders/0/amount", "9.72".into());
    assert_eq!(flags(&document), NOTHING);
}

#[test]
fn net_and_tax_make_gross() {
    assert_eq!(flags(&with(exchange(), "/totals/net", "4.47".into())), NOTHING);
    assert_eq!(flags(&with(exchange(), "/totals/net", "4.46".into())), ["TOTALS_MISMATCH"]);
    let totals = json!({ "net": "7.48", "tax": "1.49", "gross": "8.98" });
    assert_eq!(flags(&with(sale(), "/totals", totals)), ["TOTALS_MISMATCH"]);
}

#[test]
fn rounding_is_a_line_of_the_total() {
    let rounding = json!({ "line": 2, "kind": "rounding", "extended_amount": "0.02" });
    let mut document = with(sale(), "/line_items/0/extended_amount", "8.98".into());
    document.pointer_mut("/line_items").unwrap().as_array_mut().unwrap().push(rounding);
    document = with(document, "/tenders/0/amount", "9.00".into());
    for net in ["7.48", "7.50"] {
        let document = with(document.clone(), "/totals", json!({ "net": net, "tax": "1.50", "gross": "9.00" }));
        assert_eq!(flags(&document), NOTHING);
    }
}

#[test]
fn quantity_times_price_is_the_amount_to_one_minor_unit() {
    for (quantity, price, extended) in [
        ("3", "0.001", "0.00"),
        ("1000", "0.001", "1.00"),
        ("0.333", "4.49", "1.50"),
        ("0.333", "4.49", "1.49"),
        ("12", "0", "0.00"),
        ("80995", "2.08", "168469.60"),
        ("0", "3.00", "0.00"),
    ] {
        assert_eq!(flags(&priced(quantity, price, extended)), NOTHING, "{quantity} x {price}");
    }
    for (quantity, price, extended) in
        [("2", "4.49", "9.00"), ("2", "4.49", "4.49"), ("999999999999", "999999999999", "1.00")]
    {
        assert_eq!(flags(&priced(quantity, price, extended)), ["LINE_AMOUNT_MISMATCH"], "{quantity} x {price}");
    }
    let unpriced = with(sale(), "/line_items/0/actual_unit_price", Value::Null);
    assert_eq!(flags(&unpriced), NOTHING);
}

#[test]
fn the_actual_price_holds_the_modifiers_unless_it_had_to_be_rounded() {
    let discounted = |actual: &str, extended: &str| {
        let document = with(priced("300", actual, extended), "/line_items/0/regular_unit_price", "4.99".into());
        flags(&with(document, "/line_items/0/modifiers", json!([{ "amount": "-100.00" }])))
    };
    assert_eq!(discounted("4.656667", "1397.00"), NOTHING);
    assert_eq!(discounted("4.66", "1397.00"), NOTHING);
    assert_eq!(discounted("4.66", "1398.00"), NOTHING);
    assert_eq!(discounted("4.66", "1297.00"), ["LINE_AMOUNT_MISMATCH"]);
    assert_eq!(flags(&with(exchange(), "/line_items/0/modifiers/0/amount", "-2.00".into())), NOTHING);
}

#[test]
fn tenders_make_the_total_and_only_those_that_count() {
    assert_eq!(flags(&with(sale(), "/tenders/0/amount", "8.00".into())), ["TENDER_MISMATCH"]);
    assert_eq!(flags(&with(sale(), "/tenders", Value::Null)), NOTHING);
    assert_eq!(flags(&with(sale(), "/tenders", json!([]))), ["TENDER_MISMATCH"]);
    for (state, expected) in [
        ("approved", NOTHING),
        ("offline_approved", NOTHING),
        ("declined", &["TENDER_MISMATCH"]),
        ("reversed", &["TENDER_MISMATCH"]),
        ("unknown", &["PAYMENT_UNKNOWN"]),
    ] {
        let document = with(sale(), "/tenders/0/state", state.into());
        assert_eq!(flags(&document), expected, "{state}");
        let counted = !matches!(state, "declined" | "reversed");
        assert_eq!(transaction_facts(&document).tenders.len(), usize::from(counted));
    }
    let retried = json!([
        { "type": "card", "amount": "8.98", "state": "declined" },
        { "type": "card", "amount": "5.00" },
        { "type": "card", "amount": "3.98" }
    ]);
    let document = with(sale(), "/tenders", retried);
    assert_eq!(flags(&document), NOTHING);
    assert_eq!(transaction_facts(&document).tenders, [TenderSum { tender_type: "card".into(), amount: 898 }]);
}

#[test]
fn change_is_given_out() {
    let tenders = json!([{ "type": "cash", "amount": "4.98" }, { "type": "change", "amount": "4.00" }]);
    assert_eq!(flags(&with(sale(), "/tenders", tenders)), ["SIGN_MISMATCH"]);
}

#[test]
fn returns_are_negative_and_sales_are_not() {
    let returned = |quantity: &str, extended: &str| {
        let document = with(priced(quantity, "4.49", extended), "/line_items/0/kind", "return".into());
        flags(&linked(with(document, "/type", "return".into())))
    };
    assert_eq!(returned("-2", "-8.98"), NOTHING);
    assert_eq!(returned("2", "8.98"), ["SIGN_MISMATCH"]);
    assert_eq!(returned("-2", "8.98"), ["LINE_AMOUNT_MISMATCH", "SIGN_MISMATCH"]);
    assert_eq!(flags(&priced("-2", "4.49", "-8.98")), ["SIGN_MISMATCH"]);
    for kind in ["deposit", "fee", "tip", "other"] {
        let document = with(priced("-2", "4.49", "-8.98"), "/line_items/0/kind", kind.into());
        assert_eq!(flags(&document), NOTHING, "{kind}");
    }
}

#[test]
fn a_negative_price_is_one_finding_and_none_where_it_is_no_price_of_goods() {
    let bad_debt = priced("1", "-11062.06", "-11062.06");
    assert_eq!(flags(&bad_debt), ["NEGATIVE_PRICE"]);
    assert_eq!(flags(&with(bad_debt, "/line_items/0/kind", "other".into())), NOTHING);
    assert_eq!(flags(&priced("3", "0", "0.00")), NOTHING);
}

#[test]
fn units_are_known_by_code_or_name_and_the_text_stays() {
    for (unit, expected) in [("kg", "KGM"), ("Kg", "KGM"), ("pcs", "EA"), ("H87", "EA"), ("LTR", "LTR")] {
        let document = with(sale(), "/line_items/0/unit", unit.into());
        let prepared = accepted(Kind::TRANSACTION, &document);
        assert_eq!(codes(&prepared), NOTHING);
        assert_eq!(prepared.document, document.to_string().as_bytes());
        assert_eq!(transaction_facts(&document).stock.first().unwrap().unit, expected);
    }
    let document = with(sale(), "/line_items/0/unit", "furlong".into());
    assert_eq!(flags(&document), ["UNIT_UNKNOWN"]);
    assert_eq!(transaction_facts(&document).stock.first().unwrap().unit, "furlong");
}

#[test]
fn a_return_without_a_receipt_is_told_line_by_line_and_is_nothing_bad() {
    let mut document = with(priced("-1", "4.49", "-4.49"), "/line_items/0/kind", "return".into());
    document = with(document, "/type", "return".into());
    let line = document.pointer("/line_items/0").unwrap().clone();
    document = with(document, "/line_items", json!([line, line, line]));
    document = with(with(document, "/totals/gross", "-13.47".into()), "/tenders/0/amount", "-13.47".into());
    let pointers = |document: &Value| {
        let flags = accepted(Kind::TRANSACTION, document).envelope.flags;
        assert!(flags.iter().all(|flag| flag.code == "UNLINKED_RETURN"), "{flags:?}");
        flags.into_iter().map(|flag| flag.pointer).collect::<Vec<_>>()
    };
    assert_eq!(pointers(&document), ["/line_items/0", "/line_items/1", "/line_items/2"]);
    let online =
        with(document.clone(), "/line_items/1/transaction_link", json!({ "order_id": "W-1", "order_line": 2 }));
    assert_eq!(pointers(&online), ["/line_items/0", "/line_items/2"]);
    let voided = with(online, "/line_items/0/voided", json!(true));
    let voided = with(with(voided, "/totals/gross", "-8.98".into()), "/tenders/0/amount", "-8.98".into());
    assert_eq!(pointers(&voided), ["/line_items/2"]);
    assert_eq!(pointers(&linked(document)), Vec::<String>::new());
    assert_eq!(flag::finding("UNLINKED_RETURN").unwrap().severity, flag::Severity::Info);
}

#[test]
fn what_a_receipt_calls_itself_is_what_it_does() {
    let lone = |kind: &str, line: &str, sign: &str| {
        let amount = alloc::format!("{sign}4.49");
        let document = with(priced(&alloc::format!("{sign}1"), "4.49", &amount), "/line_items/0/kind", line.into());
        linked(with(document, "/type", kind.into()))
    };
    for (document, expected) in [
        (lone("sale", "sale", ""), NOTHING),
        (lone("return", "return", "-"), NOTHING),
        (lone("exchange", "sale", ""), NOTHING),
        (lone("exchange", "return", "-"), NOTHING),
        (lone("sale", "return", "-"), &["TYPE_MISMATCH"]),
        (lone("return", "sale", ""), &["TYPE_MISMATCH"]),
        (lone("return", "deposit", "-"), NOTHING),
    ] {
        assert_eq!(flags(&document), expected, "{document}");
    }
    let mut mixed = lone("sale", "sale", "");
    let voided = with(lone("return", "return", "-").pointer("/line_items/0").unwrap().clone(), "/voided", json!(true));
    mixed.pointer_mut("/line_items").unwrap().as_array_mut().unwrap().push(voided);
    assert_eq!(flags(&mixed), NOTHING, "a voided line is none");
}

#[test]
fn a_receipt_has_something_on_it() {
    let empty = with(sale(), "/line_items", json!([]));
    let empty = with(with(empty, "/totals/gross", "0".into()), "/tenders", Value::Null);
    assert_eq!(flags(&empty), ["EMPTY_TRANSACTION"]);
    assert_eq!(flags(&with(empty.clone(), "/type", "no_sale".into())), NOTHING);
    assert_eq!(flags(&linked(with(empty.clone(), "/type", "void".into()))), NOTHING);
    assert_eq!(flags(&with(empty, "/status", "canceled".into())), NOTHING);
}

#[test]
fn a_tax_is_what_its_rate_makes_of_its_base() {
    let taxed = |tax: Value| with(exchange(), "/line_items/0/taxes", json!([tax]));
    let tax = |base: &str, amount: &str, included: bool| {
        taxed(json!({ "category": "S", "rate": "20", "taxable_amount": base, "amount": amount, "included": included }))
    };
    for (document, expected) in [
        (tax("7.48", "1.50", true), NOTHING),
        // A base that contains the tax.
        (tax("8.98", "1.50", true), NOTHING),
        // One minor unit either way, and no more.
        (tax("7.48", "1.51", true), NOTHING),
        (tax("7.45", "1.50", true), NOTHING),
        (tax("7.42", "1.50", true), &["TAX_MISMATCH"]),
        (tax("7.60", "1.50", true), &["TAX_MISMATCH"]),
        (taxed(json!({ "category": "S", "rate": "20", "amount": "1.50", "included": true })), NOTHING),
        (taxed(json!({ "taxable_amount": "7.48", "amount": "1.50", "included": true })), NOTHING),
        (
            taxed(
                json!({ "category": "Z", "rate": "0", "taxable_amount": "7.48", "amount": "1.50", "included": true }),
            ),
            &["TAX_MISMATCH"],
        ),
    ] {
        assert_eq!(flags(&document), expected, "{document}");
    }
}

#[test]
fn a_tax_of_many_lines_may_be_a_minor_unit_off_for_each() {
    // 1.45 at 19 percent is 0.2755: each line rounds up, the sum of the bases would not.
    let line = json!({ "line": 1, "kind": "sale", "item_id": "A", "quantity": "1", "actual_unit_price": "1.45", "extended_amount": "1.45",
                       "taxes": [{ "category": "S", "rate": "19", "taxable_amount": "1.45", "amount": "0.28" }] });
    let of = |count: usize, tax: &str, gross: &str| {
        let document = with(sale(), "/line_items", alloc::vec![line.clone(); count].into());
        let document = with(document, "/tenders/0/amount", gross.into());
        flags(&with(document, "/totals", json!({ "tax": tax, "gross": gross })))
    };
    assert_eq!(of(10, "2.80", "17.30"), NOTHING);
    assert_eq!(of(10, "2.79", "17.30"), NOTHING);
    assert_eq!(of(10, "2.78", "17.30"), ["TAX_MISMATCH"]);
}

#[test]
fn one_tax_is_contained_or_added_not_both() {
    let mut document = exchange();
    let line = |included: bool, amount: &str| {
        json!({ "line": 3, "kind": "sale", "item_id": "B", "quantity": "1", "actual_unit_price": "1.00", "extended_amount": "1.00",
                "taxes": [{ "category": "S", "rate": "20", "taxable_amount": amount, "amount": "0.17", "included": included }] })
    };
    document.pointer_mut("/line_items").unwrap().as_array_mut().unwrap().push(line(true, "0.83"));
    document = with(document, "/totals", json!({ "gross": "6.98" }));
    document = with(document, "/tenders/0/amount", "11.00".into());
    assert_eq!(flags(&document), NOTHING);
    document = with(document, "/line_items/2", line(false, "0.83"));
    document = with(with(document, "/totals/gross", "7.15".into()), "/tenders/0/amount", "11.17".into());
    assert!(flags(&document).contains(&"TAX_BASIS_MIXED".to_string()), "{:?}", flags(&document));
}

#[test]
fn rounding_is_for_cash_and_smaller_than_the_smallest_coin() {
    let rounded = |means: &str, rounding: &str, currency: &str, total: &str| {
        let mut document = with(priced("1", "9.97", "9.97"), "/currency_code", currency.into());
        let line = json!({ "line": 2, "kind": "rounding", "extended_amount": rounding });
        document.pointer_mut("/line_items").unwrap().as_array_mut().unwrap().push(line);
        document = with(document, "/totals/gross", total.into());
        flags(&with(document, "/tenders", json!([{ "type": means, "amount": total }])))
    };
    assert_eq!(rounded("cash", "-0.02", "CHF", "9.95"), NOTHING);
    assert_eq!(rounded("cash", "0.03", "CHF", "10.00"), NOTHING);
    assert_eq!(rounded("cash", "0.00", "CHF", "9.97"), NOTHING);
    assert_eq!(rounded("card", "0.00", "CHF", "9.97"), NOTHING);
    assert_eq!(rounded("card", "-0.02", "CHF", "9.95"), ["ROUNDING_UNEXPECTED"]);
    assert_eq!(rounded("cash", "-0.05", "CHF", "9.92"), ["ROUNDING_UNEXPECTED"]);
    assert_eq!(rounded("cash", "0.03", "SEK", "10.00"), NOTHING);
    assert_eq!(rounded("cash", "-0.97", "SEK", "9.00"), NOTHING);
    assert_eq!(rounded("cash", "1.03", "SEK", "11.00"), ["ROUNDING_UNEXPECTED"]);
}

#[test]
fn a_mistyped_article_number_is_flagged() {
    assert_eq!(flags(&with(sale(), "/line_items/0/gtin", "4006381333931".into())), NOTHING);
    assert_eq!(flags(&with(sale(), "/line_items/0/gtin", "4006381333932".into())), ["GTIN_CHECK_DIGIT"]);
    assert_eq!(flags(&with(sale(), "/line_items/0/gtin", "PLU 4011".into())), NOTHING);
}

#[test]
fn a_payment_of_unknown_state_counts_and_is_told() {
    let tender = |state: &str| with(sale(), "/tenders/0/state", state.into());
    assert_eq!(flags(&tender("unknown")), ["PAYMENT_UNKNOWN"]);
    assert_eq!(flags(&tender("offline_approved")), NOTHING);
    assert_eq!(flags(&tender("declined")), ["TENDER_MISMATCH"]);
    assert_eq!(flags(&tender("reversed")), ["TENDER_MISMATCH"]);
}

#[test]
fn a_flag_points_to_the_first_place() {
    let mut document = sale();
    let line = document.pointer("/line_items/0").unwrap().clone();
    let lines: Vec<Value> = (0..4).map(|number| with(line.clone(), "/line", number.into())).collect();
    document = with(document, "/line_items", lines.into());
    document = with(document, "/line_items/2/unit", "?".into());
    document = with(document, "/line_items/3/unit", "?".into());
    document = with(with(document, "/totals/gross", "35.92".into()), "/tenders/0/amount", "35.92".into());
    let flags = accepted(Kind::TRANSACTION, &document).envelope.flags;
    assert_eq!(flags, [Flag { code: Cow::Borrowed("UNIT_UNKNOWN"), pointer: "/line_items/2/unit".into() }]);
}

#[test]
fn taxes_of_one_category_and_rate_are_one_sum() {
    let tax = |rate: &str| json!([{ "category": "S", "rate": rate, "taxable_amount": "7.48", "amount": "1.50", "included": true }]);
    let document = with(exchange(), "/line_items/0/taxes", tax("20"));
    let document = with(document, "/line_items/1/taxes", tax("20.0"));
    assert_eq!(
        transaction_facts(&document).taxes,
        [TaxSum { category: "S".into(), rate: decimal("20"), taxable_amount: 1496, amount: 300 }]
    );
    let voided = with(document, "/line_items/1/voided", json!(true));
    assert_eq!(transaction_facts(&voided).taxes.first().unwrap().amount, 150);
}

#[test]
fn the_largest_amounts_overflow_nothing() {
    let line = with(priced("1", "1", "999999999999.9999"), "/currency_code", "CLF".into());
    let mut document = line;
    let one = document.pointer("/line_items/0").unwrap().clone();
    let tax = json!([{ "amount": "999999999999.9999" }]);
    let lines = alloc::vec![with(one, "/taxes", tax); 2_000];
    document = with(document, "/line_items", lines.into());
    assert!(flags(&document).contains(&"TOTALS_MISMATCH".to_string()), "{:?}", flags(&document));
}
