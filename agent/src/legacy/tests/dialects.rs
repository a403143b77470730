//! `POSLog`: the files of two dialects, and what each setting changes.

use serde_json::Value;

use super::*;
use crate::legacy::poslog::dialect::Dialect;

/// A retail transaction, with what stands in it.
fn retail(number: u64, lines: &str, grand: &str, tax: &str) -> String {
    format!(
        "<Transaction><RetailStoreID>9</RetailStoreID><WorkstationID>3</WorkstationID><SequenceNumber>{number}</SequenceNumber>\
         <BusinessDayDate>2026-11-23</BusinessDayDate><EndDateTime>2026-11-23T10:15:40</EndDateTime><OperatorID OperatorName=\"Ann\">17\
         </OperatorID><CurrencyCode>USD</CurrencyCode><RetailTransaction>{lines}<Total TotalType=\"TransactionGrandAmount\">{grand}</Total>\
         <Total TotalType=\"TransactionTaxAmount\">{tax}</Total></RetailTransaction></Transaction>"
    )
}

pub(super) fn file(transactions: &[String]) -> String {
    format!(
        "<?xml version=\"1.0\"?><POSLog xmlns=\"urn:x\" xmlns:acs=\"urn:y\">\n{}\n</POSLog>",
        transactions.join("\n")
    )
}

fn line(number: u64, attributes: &str, inner: &str) -> String {
    format!("<LineItem {attributes}><SequenceNumber>{number}</SequenceNumber>{inner}</LineItem>")
}

fn sale(item: &str, quantity: &str, price: &str, amount: &str) -> String {
    format!(
        "<Sale><POSIdentity POSIDType=\"GTIN\"><POSItemID>{item}</POSItemID></POSIdentity><ItemID>{item}</ItemID><Description>M&amp;M</Description>\
         <RegularSalesUnitPrice>{price}</RegularSalesUnitPrice><ExtendedAmount>{amount}</ExtendedAmount><Quantity>{quantity}</Quantity></Sale>"
    )
}

fn cash(amount: &str, more: &str) -> String {
    format!("<Tender TenderType=\"Cash\" TypeCode=\"Sale\"><Amount>{amount}</Amount>{more}</Tender>")
}

/// A sale of the NCR dialect: one line voided, one reward in both forms, tax, change told twice.
pub(super) fn ncr_sale(number: u64) -> String {
    let reward = "<PromotionID>7</PromotionID><acs:RewardCategory>Monetary</acs:RewardCategory>\
                  <acs:ExtendedRewardAmount>-0.50</acs:ExtendedRewardAmount></LoyaltyReward>";
    let lines = [
        line(1, "", &sale("04006381333931", "2", "5.00", "10.00")),
        line(2, "", &sale("00205601000002", "1", "3.00", "3.00")),
        line(3, "VoidFlag=\"true\"", &sale("00205601000002", "-1", "3.00", "-3.00")),
        line(4, "", &format!("<LoyaltyReward acs:detailedData=\"true\">{reward}")),
        line(5, "", &format!("<LoyaltyReward acs:summarizedActivity=\"true\">{reward}")),
        line(6, "", "<Tax><TaxableAmount>10.00</TaxableAmount><Amount>1.00</Amount><Percent>10</Percent></Tax>"),
        line(7, "", &cash("20.00", "")),
        line(8, "", &cash("-9.50", "<TenderChange><Amount>-9.50</Amount></TenderChange>")),
    ];
    retail(number, &lines.concat(), "10.50", "1.00")
}

pub(super) fn ncr_file(transactions: u64) -> String {
    file(&(1..=transactions).map(ncr_sale).collect::<Vec<_>>())
}

fn document(prepared: &Prepared) -> Value {
    serde_json::from_slice(&prepared.document).unwrap()
}

fn codes(prepared: &[Prepared]) -> Vec<&str> {
    prepared.iter().flat_map(|one| one.envelope.flags.iter().map(|flag| &*flag.code)).collect()
}

#[test]
fn a_generated_day_of_ncr_adds_up_without_a_finding() {
    let source = ncr_file(3);
    let documents = prepared(&profile("ncr-2.1"), source.as_bytes());
    assert_eq!(codes(&documents), Vec::<&str>::new());
    assert_eq!(documents.iter().filter_map(gross).collect::<Vec<_>>(), [1050, 1050, 1050]);
    let first = document(&documents[0]);
    assert_eq!(first["line_items"][0]["gtin"], "04006381333931");
    assert_eq!(first["line_items"][0]["description"], "M&M");
    assert_eq!(first["line_items"][1].get("gtin"), None, "a number of variable measure is the store's own");
    for voided in [1, 2] {
        assert_eq!(first["line_items"][voided]["voided"], true);
    }
    assert_eq!(first["line_items"].as_array().unwrap().len(), 5, "the second form of the reward does not count");
    assert_eq!(first["tenders"][1]["type"], "change");
    assert_eq!(first["attributes"]["source_profile"], "ncr-2.1");
    let Facts::Transaction(facts) = &documents[0].facts else { panic!("a transaction") };
    assert_eq!(facts.stock.len(), 1, "what was voided moves nothing");
    let start = source.find("<Transaction>").unwrap();
    let end = source.find("</Transaction>").unwrap() + "</Transaction>".len();
    let digest = blake3::hash(&source.as_bytes()[start..end]).to_string();
    assert_eq!(first["attributes"]["source_digest"], digest, "of the bytes from < to >");
    let warnings = documents[0].warnings.join("\n");
    assert!(warnings.contains("not mapped: /OperatorID/@OperatorName"), "{warnings}");
    assert!(!warnings.contains("Ann"), "{warnings}");
}

#[test]
fn a_generated_sale_of_the_standard_has_tax_in_its_lines_and_change_in_its_tender() {
    let taxed = sale("4006381333931", "1", "12.00", "12.00").replace(
        "</Sale>",
        "<Tax><TaxableAmount>10.00</TaxableAmount><Amount>2.00</Amount><Percent>20</Percent></Tax></Sale>",
    );
    let lines = [
        line(1, "", &taxed),
        line(2, "VoidFlag=\"true\"", &sale("4006381333931", "1", "12.00", "12.00")),
        line(3, "", &cash("20.00", "<TenderChange><Amount>8.00</Amount></TenderChange>")),
    ];
    let source = file(&[retail(1, &lines.concat(), "12.00", "2.00")]);
    let included = Profiles::read(&["shop = poslog-6 tax=included zone=Europe/Paris".to_owned()]).unwrap();
    let documents = prepared(&included.find("shop").unwrap(), source.as_bytes());
    assert_eq!(codes(&documents), Vec::<&str>::new());
    let document = document(&documents[0]);
    assert_eq!(document["tenders"][1]["amount"], "-8.00");
    assert_eq!(document["line_items"][1]["voided"], true);
    assert_eq!(document["end_date_time"], "2026-11-23T10:15:40+01:00");
    let as_added = prepared(&profile("poslog-6"), source.as_bytes());
    assert!(codes(&as_added).contains(&"TOTALS_MISMATCH"), "the wrong setting shows: {:?}", codes(&as_added));
}

#[test]
fn a_return_of_any_dialect_is_negative() {
    let returned = sale("4006381333931", "-2", "6.00", "12.00");
    let link = "<TransactionLink ReasonCode=\"Return\"><WorkstationID>1</WorkstationID><SequenceNumber>7</SequenceNumber>\
                <BusinessDayDate>2026-11-20</BusinessDayDate></TransactionLink></Sale>";
    let refund = cash("12.00", "").replace("\"Sale\"", "\"Refund\"");
    let lines = [line(1, "", &returned.replace("</Sale>", link)), line(2, "", &refund)];
    let source = file(&[retail(1, &lines.concat(), "-12.00", "0.00")]);
    let futura = Profiles::read(&["futura = poslog-6 return=positive".to_owned()]).unwrap();
    let documents = prepared(&futura.find("futura").unwrap(), source.as_bytes());
    assert_eq!(codes(&documents), Vec::<&str>::new());
    let document = document(&documents[0]);
    assert_eq!(document["type"], "return");
    assert_eq!(document["line_items"][0]["extended_amount"], "-12.00");
    assert_eq!(document["line_items"][0]["transaction_link"]["sequence_number"], 7);
}

#[test]
fn a_void_of_another_dialect_is_positive_and_one_without_its_line_counts_by_itself() {
    let diebold = Profiles::read(&["tp = poslog-6 void=positive".to_owned()]).unwrap().find("tp").unwrap();
    let void = |quantity: &str, amount: &str| line(2, "VoidFlag=\"true\"", &sale("a", quantity, "3.00", amount));
    let voided = line(1, "", &sale("a", "1", "3.00", "3.00")) + &void("1", "3.00");
    let documents = prepared(&diebold, file(&[retail(1, &voided, "0.00", "0.00")]).as_bytes());
    assert_eq!(codes(&documents), ["TENDER_MISMATCH"; 0]);
    let alone = line(1, "", &sale("a", "4", "3.00", "12.00")) + &void("1", "3.00") + &line(3, "", &cash("9.00", ""));
    let documents = prepared(&diebold, file(&[retail(1, &alone, "9.00", "0.00")]).as_bytes());
    assert_eq!(codes(&documents), ["SIGN_MISMATCH"], "the sum is right, and a person sees what was odd");
}

#[test]
fn dialects_are_read_from_the_configuration_or_refused_with_what_to_write() {
    let read = |line: &str| Dialect::read(line, &[]);
    let dialect = read("x = ncr-2.1 store=9 gross=TransactionNetAmount weight_unit=KGM").unwrap();
    assert_eq!((&*dialect.name, dialect.store.as_deref(), &*dialect.weight_unit), ("x", Some("9"), "KGM"));
    for wrong in [
        "",
        "x",
        "x =",
        "x = y",
        "= poslog-6",
        "a b = poslog-6",
        "x = poslog-6 void=maybe",
        "x = poslog-6 zone=Mars/One",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert!(Profiles::read(&["x = poslog-6".to_owned(), "x = ncr-2.1".to_owned()]).is_err());
    let of_another_store = Profiles::read(&["x = ncr-2.1 store=8".to_owned()]).unwrap().find("x").unwrap();
    let refused = refusals(&of_another_store, ncr_file(1).as_bytes());
    assert!(matches!(&refused[..], [Refusal::Invalid(faults)] if faults[0].problem == "wrong_store"), "{refused:?}");
}

#[test]
fn what_cannot_be_mapped_is_refused_in_its_place_by_pointer_without_its_value() {
    let wrong = ncr_sale(2)
        .replace("<ExtendedAmount>10.00<", "<ExtendedAmount>secret<")
        .replace("<CurrencyCode>USD</CurrencyCode>", "");
    let mapped = profile("ncr-2.1").map(file(&[ncr_sale(1), wrong, ncr_sale(3)]).as_bytes());
    assert_eq!(mapped.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let Err(Refusal::Invalid(faults)) = &mapped[1] else { panic!("{mapped:?}") };
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/CurrencyCode", "/RetailTransaction/LineItem/0/Sale/ExtendedAmount"]);
    assert!(!format!("{faults:?}").contains("secret"));
}

/// A transaction that is no sale, with what stands in it.
fn control(number: u64, inner: &str) -> String {
    let sale = retail(number, "", "0", "0");
    let (head, rest) = sale.split_once("<RetailTransaction>").unwrap();
    format!("{head}{inner}{}", rest.split_once("</RetailTransaction>").unwrap().1)
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_is_moved_or_counted_is_told_beside_the_number() {
    let tender = |kind: &str, amount: &str| format!("<Tender TenderType=\"{kind}\"><Amount>{amount}</Amount></Tender>");
    let mut transactions = Vec::new();
    let elements = ["PaidIn", "PaidOut", "SafeDrop", "TenderLoan", "TenderPickup", "TillDeclaration"];
    for (number, element) in (1..).zip(elements) {
        let inner = format!("<{element}>{}<Reason>Ice</Reason></{element}>", tender("Cash", "5.00"));
        transactions.push(control(number, &format!("<TenderControlTransaction>{inner}</TenderControlTransaction>")));
    }
    transactions.push(control(7, "<ControlTransaction><PaidOut><Amount>-5.00</Amount></PaidOut></ControlTransaction>"));
    transactions.push(control(8, "<ControlTransaction><SafeDrop><Bag>1</Bag></SafeDrop></ControlTransaction>"));
    let documents = prepared(&profile("poslog-6"), file(&transactions).as_bytes());
    assert_eq!(codes(&documents), Vec::<&str>::new());
    let (sales, moved): (Vec<_>, Vec<_>) = documents.iter().partition(|one| one.kind == Kind::TRANSACTION);
    let numbers: Vec<Value> = sales.iter().map(|one| document(one)["sequence_number"].clone()).collect();
    assert_eq!(json!(numbers), json!([1, 2, 3, 4, 5, 6, 7, 8]), "no number is missing");
    assert!(moved.iter().all(|one| one.kind == Kind::TENDER_CONTROL));
    let told: Vec<Value> =
        moved.iter().map(|one| document(one)).map(|one| json!([one["type"], one["tenders"][0]["amount"]])).collect();
    let expected = json!([
        ["paid_in", "5.00"],
        ["paid_out", "-5.00"],
        ["safe_drop", "-5.00"],
        ["loan", "5.00"],
        ["pickup", "-5.00"],
        ["declaration", "5.00"],
        ["paid_out", "-5.00"]
    ]);
    assert_eq!(json!(told), expected);
    let first = document(moved[0]);
    assert_eq!(
        (&first["document_id"], &first["reason_code"]),
        (&"poslog-3-2026-11-23-1-paid_in".into(), &"Ice".into())
    );
    assert!(sales[7].warnings.contains(&"not mapped: /ControlTransaction".to_owned()), "{:?}", sales[7].warnings);
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let outcomes = agent.submit(documents).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Recorded(_))));
    assert_eq!(agent.exceptions().await, BTreeMap::new());
    agent.stop();
}

#[test]
fn the_end_of_a_day_is_a_close_with_what_it_declares() {
    let settled = "<SessionSettle><TransactionCount>2</TransactionCount><GrossPositiveAmount>21.00</GrossPositiveAmount>\
                   <GrossNegativeAmount>-1.00</GrossNegativeAmount><TotalNetSalesAmount>19.00</TotalNetSalesAmount>\
                   <TotalTaxAmount>1.00</TotalTaxAmount></SessionSettle>";
    let numbers = "<OpenTransactionSequenceNumber>1</OpenTransactionSequenceNumber>\
                   <LastTransactionSequenceNumber>9</LastTransactionSequenceNumber>";
    let close = |name: &str, inner: &str| {
        control(9, &format!("<ControlTransaction><{name}>{inner}</{name}></ControlTransaction>"))
    };
    let read = |name: &str, inner: &str| {
        let documents = prepared(&profile("ncr-2.1"), file(&[close(name, inner)]).as_bytes());
        assert_eq!(documents.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::TRANSACTION, Kind::DAY_CLOSE]);
        (document(&documents[0]), document(&documents[1]))
    };
    let (number, of_store) = read("BusinessEOD", settled);
    assert_eq!((&number["type"], &number["attributes"]["control"]), (&"no_sale".into(), &"BusinessEOD".into()));
    assert_eq!((of_store.get("workstation_id"), &of_store["business_day_date"]), (None, &"2026-11-23".into()));
    let totals =
        json!([{ "currency_code": "USD", "transactions": 2, "gross": "20.00", "net": "19.00", "tax": "1.00" }]);
    assert_eq!(of_store["totals"], totals);
    let (_, of_till) = read("TillEOD", &format!("{numbers}{}", settled.replace("TransactionCount", "Odd")));
    assert_eq!((&of_till["workstation_id"], &of_till["totals"]), (&"3".into(), &json!([])));
    assert_eq!((&of_till["first_sequence_number"], &of_till["last_sequence_number"]), (&1.into(), &9.into()));
    let training = close("BusinessEOD", settled).replace("<Transaction>", "<Transaction TrainingModeFlag=\"true\">");
    assert_eq!(prepared(&profile("ncr-2.1"), file(&[training]).as_bytes()).len(), 1, "training closes no day");
}

/// The golden file beside the sample: totals and numbers that somebody else computed.
#[tokio::test(flavor = "multi_thread")]
async fn the_day_of_a_real_grocery_goes_in_whole() {
    let (Some(source), Some(golden)) =
        (real("poslog/ncr-acs-store9-51tx.xml"), real("poslog/ncr-acs-store9.golden.json"))
    else {
        return;
    };
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let documents = prepared(&profile("ncr-2.1"), &source);
    assert_eq!(documents.len(), 51);
    assert_eq!(codes(&documents), Vec::<&str>::new(), "no false exception");
    let mut sequences: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut sums, mut sum) = (Vec::new(), 0);
    for one in &documents {
        let document = document(one);
        let till = document["workstation_id"].as_str().unwrap().to_owned();
        let number = document["sequence_number"].as_u64().unwrap();
        sequences.entry(till.clone()).or_default().push(number);
        if document["type"] != "no_sale" {
            sums.push(json!([till, number, document["totals"]["gross"], document["totals"]["tax"]]));
            sum += gross(one).unwrap();
            assert_adds_up(&document);
        }
    }
    assert_eq!(json!(sequences), golden["sequence_by_workstation"]);
    assert_eq!(Value::from(sums), golden["retail_totals_ws_seq_grand_tax"]);
    assert_eq!((sum, &golden["sum_grand"]), (264_372, &Value::from("2643.72")));
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path());
    let outcomes = agent.submit(documents.clone()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Recorded(_))));
    assert_eq!(agent.exceptions().await, BTreeMap::new());
    let again = agent.submit(documents).await;
    assert!(again.iter().all(|outcome| matches!(outcome, Outcome::Duplicate(_))));
    agent.stop();
}

/// Lines and tax make the gross total, and so do the tenders, to the cent.
fn assert_adds_up(document: &Value) {
    let amount = |value: &Value| value.as_str().unwrap().parse::<rust_decimal::Decimal>().unwrap();
    let lines = document["line_items"].as_array().unwrap();
    let counted = lines.iter().filter(|line| line["voided"] != true).map(|line| amount(&line["extended_amount"]));
    let tenders = document["tenders"].as_array().unwrap().iter().map(|tender| amount(&tender["amount"]));
    let gross = amount(&document["totals"]["gross"]);
    assert_eq!(counted.sum::<rust_decimal::Decimal>() + amount(&document["totals"]["tax"]), gross);
    assert_eq!(tenders.sum::<rust_decimal::Decimal>(), gross);
}
