//! Every sample that the vendors publish of their calls: mapped with each field accounted for, or refused with what was looked for.
//!
//! The answers expected stand in one table by file. What the samples' shapes are stands in generated sources of the same shape, which are
//! tested where the samples are not.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// What a sample gives: the types of its documents, or a piece of its refusal.
type Gives = Result<&'static [&'static str], &'static str>;

const SAMPLES: &[(&str, Gives)] = &[
    ("square/BatchChangeInventoryRequest", Err("/changes/0/physical_count/id")),
    ("square/BatchChangeInventoryResponse", Ok(&["count"])),
    ("square/BatchRetrieveOrdersResponse", Err("/orders/0/closed_at")),
    ("square/CalculateOrderResponse", Err("/order/id")),
    ("square/CloneOrderResponse", Ok(&["sale 61.76"])),
    ("square/CreateOrderRequest", Err("/order/id")),
    ("square/CreateOrderResponse", Ok(&["sale 61.76"])),
    ("square/GetPaymentResponse", Err("looked for adjustment, adjustments, cash_drawer_shift")),
    ("square/ListCashDrawerShiftEventsResponse", Ok(&["paid_in", "paid_out"])),
    ("square/PayOrderResponse", Ok(&["sale 20.00"])),
    ("square/RefundPaymentResponse", Err("order, orders")),
    ("square/RetrieveCashDrawerShiftResponse", Ok(&["declaration"])),
    // The vendor's sample occurred in the 26th hour of a day.
    ("square/RetrieveInventoryAdjustmentResponse", Err("/end_date_time")),
    (
        "square/RetrieveInventoryChangesResponse",
        Err("/changes/*: an adjustment by a payment; its order moves the goods"),
    ),
    ("square/RetrieveInventoryPhysicalCountResponse", Ok(&["count"])),
    ("square/RetrieveOrderResponse", Ok(&["sale 5.50"])),
    ("square/SearchOrdersResponse", Err("looked for")),
    ("square/UpdateOrderRequest", Err("/order/id")),
    ("square/UpdateOrderResponse", Ok(&["sale 9.00"])),
    ("shopify/fulfillment", Ok(&["shipment"])),
    ("shopify/fulfillment_event", Err("fulfillment, fulfillments, inventory_level")),
    ("shopify/inventory_level", Ok(&["count"])),
    ("shopify/inventory_levels", Err("several locations")),
    ("shopify/location", Err("looked for")),
    ("shopify/order", Ok(&["sale 409.94", "shipment"])),
    ("shopify/orders", Ok(&["sale 598.94"])),
    ("shopify/refund", Ok(&["return -209.00"])),
    ("shopify/tender_transactions", Err("looked for")),
    ("shopify/transaction", Err("looked for")),
    ("shopify/transactions", Err("looked for")),
];

fn document(prepared: &Prepared) -> Value {
    serde_json::from_slice(&prepared.document).unwrap()
}

/// Documents by type, with the total of those that have one; the faults of what is refused.
fn given(profile_name: &str, source: &[u8]) -> Result<Vec<String>, String> {
    let told = |prepared: Prepared| {
        let document = document(&prepared);
        let gross = document["totals"]["gross"].as_str().map(|gross| format!(" {gross}")).unwrap_or_default();
        format!("{}{gross}", document["type"].as_str().unwrap())
    };
    let one = |mapped: Result<Mapped, Refusal>| mapped.and_then(|mapped| mapped.prepare(&context())).map(told);
    let given: Result<_, Refusal> = profile(profile_name).map(source).into_iter().map(one).collect();
    given.map_err(|refusal| format!("{refusal:?}"))
}

#[test]
fn every_sample_of_the_vendors_is_mapped_or_refused_with_what_was_looked_for() {
    for (name, gives) in SAMPLES {
        let Some(source) = real(&format!("json/{name}.json")) else { return };
        let vendor = name.split('/').next().unwrap();
        match (given(vendor, &source), gives) {
            (Ok(given), Ok(expected)) => assert_eq!(given, *expected, "{name}"),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{name}: {said}"),
            (given, _) => panic!("{name}: {given:?}"),
        }
        assert_accounted(vendor, &source, name);
    }
    for vendor in ["square", "shopify"] {
        let directory = PathBuf::from(std::env::var_os("COUNTERFOIL_TEST_DATA").unwrap()).join("json").join(vendor);
        for entry in std::fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = file.strip_suffix(".json") else { continue };
            assert!(SAMPLES.iter().any(|(known, _)| *known == format!("{vendor}/{name}")), "{file} is in the table");
        }
    }
}

/// Each value of a source that maps stands in a document, is named in a warning, or decided something; found by taking it away: then the
/// documents or the warnings are others, or it is refused.
fn assert_accounted(vendor: &str, source: &[u8], name: &str) {
    if given(vendor, source).is_err() {
        return;
    }
    let root: Value = serde_json::from_slice(source).unwrap();
    let told = |root: &Value| -> Vec<Result<(String, BTreeSet<String>), Refusal>> {
        let without_digest = |mapped: Mapped| {
            let mut document = Value::Object(mapped.document);
            if let Some(attributes) = document["attributes"].as_object_mut() {
                attributes.remove("source_digest");
            }
            (document.to_string(), mapped.warnings.into_iter().collect())
        };
        profile(vendor).map(root.to_string().as_bytes()).into_iter().map(|one| one.map(without_digest)).collect()
    };
    let before = told(&root);
    let warnings: BTreeSet<&String> = before.iter().flatten().flat_map(|(_, warnings)| warnings).collect();
    for pointer in leaves(&root, String::new()) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let generic: Vec<&str> =
            pointer.split('/').map(|token| if token.parse::<usize>().is_ok() { "*" } else { token }).collect();
        let generic = generic.join("/");
        let is_named = |warning: &&&String| {
            let named = warning.trim_start_matches("not mapped: ").split(": ").next().unwrap();
            generic == named || generic.starts_with(&format!("{named}/"))
        };
        if warnings.iter().any(|warning| is_named(&warning)) {
            continue;
        }
        let mut odd = root.clone();
        let holder = odd.pointer_mut(parent).unwrap();
        if let Some(members) = holder.as_object_mut() {
            members.remove(key);
        } else {
            holder.as_array_mut().unwrap().remove(key.parse().unwrap());
        }
        // What says the same again, or an empty text or a zero, changes nothing by being away; it was read.
        let is_empty = matches!(root.pointer(&pointer).unwrap(), Value::String(text) if text.is_empty() || text.trim_matches(['0', '.']).is_empty())
            || root.pointer(&pointer).unwrap().as_i64() == Some(0)
            || root.pointer(&pointer) == Some(&Value::Bool(false));
        let mut renamed = odd.clone();
        if let Some(Value::Object(members)) = renamed.pointer_mut(parent) {
            members.insert(format!("odd_{key}"), root.pointer(&pointer).unwrap().clone());
        }
        assert!(
            is_empty || told(&odd) != before || told(&renamed) != before,
            "{name}: {pointer} is in no document and no warning"
        );
    }
}

fn leaves(value: &Value, pointer: String) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Null => return Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => return vec![pointer],
    };
    inner.into_iter().flat_map(|(key, value)| leaves(value, format!("{pointer}/{key}"))).collect()
}

fn flags(prepared: &Prepared) -> Vec<&str> {
    prepared.envelope.flags.iter().map(|flag| &*flag.code).collect()
}

const RETURN: &str = r#"{"id":"o2","state":"COMPLETED","closed_at":"2026-11-24T10:00:00Z","total_money":{"amount":0,"currency":"USD"},
"return_amounts":{"total_money":{"amount":2399,"currency":"USD"},"tax_money":{"amount":199,"currency":"USD"},"tip_money":{"amount":100,"currency":"USD"}},
"returns":[{"source_order_id":"o1","return_line_items":[{"uid":"r1","source_line_item_uid":"l1","catalog_object_id":"mug","name":"Mug","quantity":"1",
"base_price_money":{"amount":2200,"currency":"USD"},"applied_discounts":[{"discount_uid":"d","applied_money":{"amount":200,"currency":"USD"}}],
"applied_taxes":[{"tax_uid":"t1","applied_money":{"amount":199,"currency":"USD"}}],"total_money":{"amount":2199,"currency":"USD"}}],
"return_taxes":[{"uid":"t1","percentage":"9.95","type":"ADDITIVE"}],
"return_service_charges":[{"name":"Bag","total_money":{"amount":98,"currency":"USD"}}],"rounding_adjustment":{"amount_money":{"amount":2,"currency":"USD"}}}],
"refunds":[{"tender_id":"x","amount_money":{"amount":2399,"currency":"USD"},"status":"APPROVED","reason":"broken"}]}"#;

#[test]
fn an_order_that_takes_back_is_a_return_of_the_lines_of_another() {
    let source = RETURN;
    let documents = prepared(&profile("square"), source.as_bytes());
    let ours = document(&documents[0]);
    // Rounded by two cents, though not in cash.
    assert_eq!(flags(&documents[0]), ["ROUNDING_UNEXPECTED"], "{ours}");
    assert_eq!((&ours["type"], &ours["totals"]), (&"return".into(), &json!({ "gross": "-23.99", "tax": "-1.99" })));
    let line = &ours["line_items"][0];
    assert_eq!((&line["quantity"], &line["extended_amount"]), (&"-1".into(), &"-20.00".into()));
    let refers_to = json!({ "document_id": "square-o1", "order_id": "o1", "order_line": "l1" });
    assert_eq!((&line["transaction_link"], &line["kind"]), (&refers_to, &"return".into()));
    assert_eq!(line["taxes"][0]["rate"], "9.95");
    let others: Vec<[&Value; 2]> = ours["line_items"].as_array().unwrap()[1..]
        .iter()
        .map(|line| [&line["kind"], &line["extended_amount"]])
        .collect();
    assert_eq!(json!(others), json!([["fee", "-0.98"], ["rounding", "-0.02"], ["tip", "-1.00"]]));
    assert_eq!(ours["tenders"], json!([{ "type": "other", "amount": "-23.99", "state": "approved" }]));
    let Facts::Transaction(facts) = &documents[0].facts else { panic!("a transaction") };
    assert_eq!((facts.returns.len(), facts.stock[0].delta), (1, rust_decimal::Decimal::ONE), "the mug is back");
    let exchange = source.replace("\"total_money\":{\"amount\":0,", "\"line_items\":[{\"uid\":\"a\",\"quantity\":\"1\",\"base_price_money\":{\"amount\":500,\"currency\":\"USD\"},\"total_money\":{\"amount\":500,\"currency\":\"USD\"}}],\"total_money\":{\"amount\":500,");
    let exchange = document(&prepared(&profile("square"), exchange.as_bytes())[0]);
    assert_eq!((&exchange["type"], &exchange["totals"]["gross"]), (&"exchange".into(), &"-18.99".into()));
    assert!(
        given("square", source.replace("return_amounts", "odd").as_bytes()).unwrap_err().contains("/return_amounts")
    );
}

const REFUND: &str = r#"{"id":5,"order_id":450789469,"created_at":"2026-11-24T10:00:00Z","user_id":3,"refund_line_items":[
{"quantity":1,"line_item_id":1,"subtotal":"9.50","total_tax":"1.90","restock_type":"return","line_item":{"id":1,"sku":"MUG","name":"Mug","quantity":2,"price":"10.50"}},
{"quantity":1,"line_item_id":2,"restock_type":"no_restock","line_item":{"sku":"CUP","quantity":2,"price":"4.00","total_discount":"1.00","tax_lines":[{"price":"0.70","rate":0.1}]}}],
"transactions":[{"kind":"refund","status":"success","gateway":"cash","amount":"13.25","currency":"EUR"}],
"order_adjustments":[{"kind":"refund_discrepancy","amount":"2.00","tax_amount":"0.00"}]}"#;

#[test]
fn a_refund_is_the_same_return_alone_and_in_its_order() {
    let alone = prepared(&profile("shopify"), format!("{{\"refund\":{REFUND}}}").as_bytes());
    assert_eq!(flags(&alone[0]), Vec::<&str>::new());
    let ours = document(&alone[0]);
    assert_eq!((&ours["document_id"], &ours["totals"]["gross"]), (&"shopify-refund-5".into(), &"-13.25".into()));
    let line = |index: usize| &ours["line_items"][index];
    assert_eq!((&line(0)["extended_amount"], &line(0)["taxes"][0]["amount"]), (&"-9.50".into(), &"-1.90".into()));
    assert_eq!((&line(1)["extended_amount"], &line(1)["taxes"][0]["amount"]), (&"-3.50".into(), &"-0.35".into()));
    let refers_to = json!({ "document_id": "shopify-450789469", "order_id": "450789469", "order_line": "1" });
    assert_eq!(line(0)["transaction_link"], refers_to);
    assert_eq!(ours["tenders"], json!([{ "type": "cash", "amount": "-13.25", "state": "approved" }]));
    let Facts::Transaction(facts) = &alone[0].facts else { panic!("a transaction") };
    let back: Vec<&str> = facts.stock.iter().map(|change| change.item_id.as_str()).collect();
    assert_eq!((back, facts.returns.len()), (vec!["MUG"], 2), "what is not restocked does not lie on the shelf");
    for order in [super::orders::SHOPIFY, &super::orders::SHOPIFY.replace("\"paid\"", "\"partially_refunded\"")] {
        let sold = prepared(&profile("shopify"), order.as_bytes());
        let refunded = order.replacen("{\"id\"", &format!("{{\"refunds\":[{REFUND}],\"id\""), 1);
        let both = prepared(&profile("shopify"), refunded.as_bytes());
        let texts = |documents: &[Prepared]| documents.iter().map(document).collect::<Vec<_>>();
        assert_eq!(
            texts(&both),
            [texts(&sold), texts(&alone)].concat(),
            "the order says again what it said, and its refund"
        );
    }
    assert_eq!(texts_of(REFUND.as_bytes()), texts_of(format!("{{\"refunds\":[{REFUND}]}}").as_bytes()));
}

fn texts_of(source: &[u8]) -> Vec<Value> {
    prepared(&profile("shopify"), source).iter().map(document).collect()
}

fn adjustment(from: &str, to: &str, more: &str) -> String {
    format!(
        "{{\"id\":\"a1\",\"catalog_object_id\":\"mug\",\"location_id\":\"L\",\"from_state\":\"{from}\",\"to_state\":\"{to}\",\
         \"quantity\":\"7\",\"occurred_at\":\"2026-11-23T10:00:00Z\",\"team_member_id\":\"t\"{more}}}"
    )
}

#[test]
fn an_adjustment_is_what_comes_to_the_shelf_or_leaves_it() {
    for (from, to, movement, quantity) in [
        ("NONE", "IN_STOCK", "receipt", "7"),
        ("UNLINKED_RETURN", "IN_STOCK", "adjustment", "7"),
        ("IN_STOCK", "WASTE", "loss", "-7"),
        ("IN_STOCK", "SOLD", "adjustment", "-7"),
    ] {
        let documents =
            prepared(&profile("square"), format!("{{\"adjustment\":{}}}", adjustment(from, to, "")).as_bytes());
        let ours = document(&documents[0]);
        assert_eq!((&ours["type"], &ours["line_items"][0]["quantity"]), (&movement.into(), &quantity.into()));
        assert_eq!((flags(&documents[0]), &ours["operator_id"]), (vec![], &"t".into()));
    }
    let change = |inner: &str| format!("{{\"type\":\"ADJUSTMENT\",\"adjustment\":{inner}}}");
    let own = change(&adjustment("NONE", "IN_STOCK", ""));
    let by_payment = change(&adjustment("IN_STOCK", "SOLD", ",\"transaction_id\":\"p\""));
    let both = format!("{{\"changes\":[{by_payment},{own}],\"cursor\":\"c\"}}");
    let documents = prepared(&profile("square"), both.as_bytes());
    let left_out = "not mapped: /changes/*: an adjustment by a payment; its order moves the goods";
    let warnings = &documents[0].warnings;
    assert!(documents.len() == 1 && warnings.contains(&left_out.to_owned()), "{warnings:?}");
    assert!(warnings.contains(&"not mapped: /cursor".to_owned()), "{warnings:?}");
    let text = own.as_bytes();
    assert_eq!(
        document(&documents[0])["attributes"]["source_digest"],
        blake3::hash(text).to_string(),
        "of its own bytes"
    );
    let elsewhere = both.replacen("\"L\"", "\"M\"", 1);
    assert!(given("square", elsewhere.as_bytes()).unwrap_err().contains("several-locations"));
    let neither = format!("{{\"changes\":[{}]}}", change(&adjustment("SOLD", "WASTE", "")));
    assert!(given("square", neither.as_bytes()).unwrap_err().contains("none is IN_STOCK"));
}

#[test]
fn counts_and_levels_are_counts() {
    let count = |more: &str| {
        format!(
            "{{\"counts\":[{{\"catalog_object_id\":\"W62UWFY35CWMYGVWK6TWJDNI\",\"location_id\":\"C6W5YS5QM06F5\",\"state\":\"IN_STOCK\",\
             \"quantity\":\"53\",{more}}}]}}"
        )
    };
    for (profile_name, source) in [
        ("square", count("\"id\":\"c\",\"occurred_at\":\"2026-11-23T10:00:00Z\"")),
        ("square", count("\"calculated_at\":\"2026-11-23T10:00:00.123Z\"")),
        (
            "shopify",
            "{\"inventory_item_id\":8,\"location_id\":9,\"available\":53,\"updated_at\":\"2026-11-23T10:00:00Z\"}"
                .to_owned(),
        ),
    ] {
        let documents = prepared(&profile(profile_name), source.as_bytes());
        let ours = document(&documents[0]);
        assert_eq!((&ours["type"], &ours["line_items"][0]["quantity"]), (&"count".into(), &"53".into()));
        assert_eq!(documents[0].warnings, Vec::<String>::new());
    }
    let sold = count("\"id\":\"c\",\"occurred_at\":\"2026-11-23T10:00:00Z\"").replace("IN_STOCK", "WASTE");
    assert!(given("square", sold.as_bytes()).unwrap_err().contains("a count of what is not IN_STOCK"));
    let untracked =
        "{\"inventory_level\":{\"inventory_item_id\":8,\"location_id\":9,\"available\":null,\"updated_at\":\"x\"}}";
    assert!(given("shopify", untracked.as_bytes()).unwrap_err().contains("not tracked"));
}

#[test]
fn a_drawer_tells_what_was_put_in_taken_out_and_counted() {
    let event = |kind: &str| {
        format!(
            "{{\"id\":\"e-{kind}\",\"event_type\":\"{kind}\",\"created_at\":\"2026-11-23T10:00:00Z\",\"description\":\"Why\",\
             \"event_money\":{{\"amount\":10000,\"currency\":\"USD\"}}}}"
        )
    };
    let events: Vec<String> = ["PAID_IN", "PAID_OUT", "CASH_TENDER_PAYMENT"].map(event).into();
    let documents =
        prepared(&profile("square"), format!("{{\"cash_drawer_shift_events\":[{}]}}", events.join(",")).as_bytes());
    let told: Vec<Value> =
        documents.iter().map(document).map(|one| json!([one["type"], one["tenders"][0]["amount"]])).collect();
    assert_eq!(told, [json!(["paid_in", "100.00"]), json!(["paid_out", "-100.00"])]);
    assert!(documents.iter().all(|one| one.envelope.flags.is_empty()));
    assert!(documents[0].warnings[0].contains("orders tell of sales"), "{:?}", documents[0].warnings);
    let shift = "{\"cash_drawer_shift\":{\"id\":\"s\",\"state\":\"CLOSED\",\"closed_at\":\"2026-11-23T20:00:00Z\",\
                 \"closed_cash_money\":{\"amount\":9970,\"currency\":\"USD\"}}}";
    let counted = document(&prepared(&profile("square"), shift.as_bytes())[0]);
    assert_eq!((&counted["type"], &counted["tenders"][0]["amount"]), (&"declaration".into(), &"99.70".into()));
    assert!(given("square", shift.replace("CLOSED", "ENDED").as_bytes()).unwrap_err().contains("no count"));
}

#[test]
fn what_holds_no_document_is_refused_with_what_was_looked_for() {
    for (profile_name, source) in [
        ("square", "{\"payment\":{\"id\":\"p\",\"total_money\":{\"amount\":1,\"currency\":\"USD\"}}}"),
        ("square", "{}"),
        ("square", "[{\"id\":1}]"),
        ("shopify", "{\"location\":{\"id\":1}}"),
        ("shopify", "{\"transactions\":[{\"id\":1,\"amount\":\"1.00\"}]}"),
    ] {
        let said = given(profile_name, source.as_bytes()).unwrap_err();
        assert!(said.contains("looked for") && said.contains("order, orders"), "{source}: {said}");
    }
}

#[test]
fn a_name_that_is_too_long_is_shortened_by_its_digest() {
    let long = |last: char| identity(&["square", &"x".repeat(40), &"y".repeat(40), &last.to_string()]);
    assert_eq!((long('a').len(), identity(&["a", "b"])), (64, "a-b".to_owned()));
    assert_ne!(long('a'), long('b'));
}
