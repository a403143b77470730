//! A day in a store with everything that goes wrong in one, as the hub shows it and as a person deals with it at the box.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use world::bin::bin;
use world::wait::Deadline;

use crate::stage::{Stage, post, receipt, sale};

const LIMIT: Duration = Duration::from_mins(2);

fn of_till(till: &str, number: u64, pence: u64) -> Value {
    let mut sale = sale(number, pence);
    sale["workstation_id"] = json!(till);
    sale
}

async fn close(stage: &Stage, till: &str, transactions: u64, gross: &str, last: u64) {
    let close = json!({"document_id": format!("z-{till}"), "workstation_id": till, "business_day_date": "2026-11-23",
        "end_date_time": "2026-11-23T20:00:00+00:00", "first_sequence_number": 1, "last_sequence_number": last,
        "totals": [{"currency_code": "GBP", "transactions": transactions, "gross": gross,
            "tenders": [{"type": "cash", "amount": gross}]}]});
    let answer = stage.agent.api().post("/v1/day-closes", "application/json", close.to_string().into_bytes()).await;
    assert_eq!(answer.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_till_a_late_sale_a_missing_number_and_a_doubled_one_are_named_at_the_hub() {
    let stage = Stage::new().await;
    let api = stage.agent.api();
    // Till 1 sold four times, and the third receipt never came. Till 2 sells once more after its close. Till 3 uses a number twice.
    // Till 4 is as it should be.
    let mut posted = vec![of_till("1", 1, 100), of_till("1", 2, 200), of_till("1", 4, 400)];
    posted.extend([of_till("2", 1, 500), of_till("3", 1, 600), of_till("3", 2, 700), of_till("4", 1, 900)]);
    for (document_id, pence) in [("first", 800), ("second", 801)] {
        let mut doubled = of_till("3", 3, pence);
        doubled["document_id"] = json!(document_id);
        posted.push(doubled);
    }
    for document in &posted {
        assert_eq!(post(&api, document).await.status, 201, "{document}");
    }
    for (till, transactions, gross, last) in
        [("1", 4, "10.00", 4), ("2", 1, "5.00", 1), ("3", 4, "29.01", 3), ("4", 1, "9.00", 1)]
    {
        close(&stage, till, transactions, gross, last).await;
    }
    let late = receipt(&post(&api, &of_till("2", 2, 550)).await);
    assert!(late.exceptions.contains(&"LATE_AFTER_CLOSE".to_owned()), "{late:?}");
    stage.agent.drained(LIMIT).await;

    let path = "/v1/reconciliation?store=0042&business_day=2026-11-23";
    let deadline = Deadline::new(LIMIT);
    let status = |day: &Value, till: usize| day["tills"][till]["status"].as_str().unwrap_or_default().to_owned();
    let mut day: Value = stage.hub.api().json(path).await.unwrap();
    while (0..4).map(|till| status(&day, till)).collect::<Vec<_>>()
        != ["short", "late_after_close", "matched", "matched"]
        || (0..4).any(|till| day["tills"][till]["signed"].is_null())
    {
        deadline.rest_for(&format!("the verdicts: {day}")).await;
        day = stage.hub.api().json(path).await.unwrap();
    }
    let till = |number: usize| &day["tills"][number - 1];
    assert_eq!(day["status"], "short");
    assert_eq!(till(1)["missing_numbers"], json!([{"sequence_epoch": 0, "first": 3, "last": 3}]));
    let gross = &till(1)["differences"][0];
    assert_eq!(
        (&gross["what"], &gross["declared"], &gross["counted"]),
        (&json!("gross"), &json!("10.00"), &json!("7.00"))
    );
    assert_eq!(till(2)["late"][0]["gross"][0]["amount"], "5.50");
    assert_eq!(till(2)["late"].as_array().unwrap().len(), 1);
    assert_eq!(till(3)["doubled"].as_array().unwrap().len(), 1, "{day}");
    assert_eq!(till(3)["doubled"][0]["identity"], "d/second");
    for (number, counted) in [(1, "7.00"), (2, "5.00"), (3, "29.01"), (4, "9.00")] {
        let signed = &till(number)["signed"];
        assert_eq!((&signed["is_valid"], &signed["counted"][0]["gross"]), (&json!(true), &json!(counted)), "{signed}");
        let nothing = json!([]);
        for list in ["missing_numbers", "late", "doubled", "conflicts", "differences"] {
            let is_meant =
                matches!((number, list), (1, "missing_numbers" | "differences") | (2, "late") | (3, "doubled"));
            assert_eq!(till(number)[list] != nothing, is_meant, "{list} of till {number}: {day}");
        }
    }
}

fn counterfoil(arguments: &[&str], agent: &str) -> Output {
    Command::new(bin("counterfoil")).arg("exceptions").args(["--agent", agent]).args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exceptions_are_seen_and_ended_on_the_command_line() {
    let stage = Stage::new().await;
    let api = stage.agent.api();
    let agent = api.base().to_owned();
    assert_eq!(printed(&counterfoil(&[], &agent)), "No exceptions.\n");
    let mut wrong = sale(1, 1_000);
    wrong["totals"]["gross"] = json!("10.01");
    let mut wrong_again = sale(2, 1_000);
    wrong_again["totals"]["gross"] = json!("10.02");
    post(&api, &wrong).await;
    post(&api, &wrong_again).await;
    let listed: Value = serde_json::from_str(&printed(&counterfoil(&["--json"], &agent))).unwrap();
    let over_http: Value = api.json("/v1/exceptions").await.unwrap();
    let ids = |list: &Value| list.as_array().unwrap().iter().map(|found| found["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&listed), ids(&over_http));
    let id = listed.as_array().unwrap().iter().find(|found| found["code"] == "TOTALS_MISMATCH").unwrap()["id"].clone();
    let id = id.as_str().unwrap();
    let table = printed(&counterfoil(&[], &agent));
    let line = table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{table}"));
    assert!(line.contains("error") && line.contains("TOTALS_MISMATCH") && line.contains("store_finance"), "{line}");
    assert!(table.contains("do not add up to its total"), "{table}");

    printed(&counterfoil(&["acknowledge", id, "--by", "Ann", "--reason", "I ask the till"], &agent));
    assert!(printed(&counterfoil(&[], &agent)).contains("acknowledged by Ann: I ask the till"), "still open");
    let said = printed(&counterfoil(&["resolve", id, "--by", "Ann", "--reason", "mistyped"], &agent));
    assert!(said.contains("resolved by Ann: mistyped"), "{said}");
    assert!(!printed(&counterfoil(&[], &agent)).contains(id));
    assert!(printed(&counterfoil(&["--all"], &agent)).contains(id));
    let deadline = Deadline::new(LIMIT);
    stage.agent.drained(LIMIT).await;
    loop {
        let there: Value = stage.hub.api().json("/v1/exceptions?store=0042&state=resolved").await.unwrap();
        if there.to_string().contains(id) {
            break;
        }
        deadline.rest_for(&format!("the hub knows it: {there}")).await;
    }

    let refused = counterfoil(&["waive", id, "--by", "Ann", "--reason", "\u{1b}[2J"], &agent);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("/reason 1 to 500 characters"), "{said}");
    let unknown = counterfoil(&["waive", "ex-0000000000000000", "--by", "Ann", "--reason", "no"], &agent);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(1) && said.contains("404"), "{said}");
    let silent = counterfoil(&[], "http://127.0.0.1:1");
    let said = String::from_utf8_lossy(&silent.stderr).into_owned();
    assert!(silent.status.code() == Some(69) && said.contains("is it running"), "{said}");
    let no_address = counterfoil(&[], "ftp://127.0.0.1");
    assert!(String::from_utf8_lossy(&no_address.stderr).contains("http://host:port"));
}
