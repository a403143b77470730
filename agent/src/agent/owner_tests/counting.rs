//! A count becomes its variance.

use counterfoil_proto::id::Lane;
use serde_json::{Value, json};

use super::*;
use crate::journal::Finding;

fn movement(world: &World, name: &str, kind: &str, lines: &[(&str, &str)]) -> Prepared {
    let lines: Vec<Value> = (1..)
        .zip(lines)
        .map(|(line, (item_id, quantity))| json!({"line": line, "item_id": item_id, "quantity": quantity}))
        .collect();
    let document = json!({"document_id": name, "type": kind, "business_day_date": "2026-11-23",
        "end_date_time": "2026-11-23T12:00:00+01:00", "correlation_id": "inventory", "line_items": lines});
    prepare(Kind::STOCK_MOVEMENT, document.to_string().as_bytes(), None, &world.config.context()).unwrap()
}

/// All records of lane `stock`: kind and document, in their order.
fn stock_records(world: &World) -> Vec<(Kind, u64, Value)> {
    let mut found = Vec::new();
    let mut meet = |met: &crate::journal::Met<'_>| {
        if met.key.lane == Lane::Stock {
            let record = counterfoil_proto::record::Record::decode(met.stored).unwrap();
            let document = serde_json::from_slice(&record.document).unwrap();
            assert_eq!(record.envelope.correlation_id.as_deref(), Some("inventory"));
            found.push((record.kind, met.key.seq.0, document));
        }
        Vec::<Finding>::new()
    };
    crate::journal::check(&world.disk, &mut meet, &mut |_, _| {}).unwrap();
    found
}

#[test]
fn each_count_is_followed_by_what_it_differs_by_judged_by_all_that_came_before() {
    let world = World::new("");
    let mut owner = world.start();
    let first = movement(&world, "c1", "count", &[("A", "10"), ("B", "2.500")]);
    post(&mut owner, first.clone());
    // In one request: goods in, a count, goods out, a count again.
    let (request, mut answer) = submit(vec![
        movement(&world, "m1", "receipt", &[("A", "5")]),
        movement(&world, "c2", "count", &[("A", "14"), ("A", "13")]),
        movement(&world, "m2", "loss", &[("A", "-1")]),
        movement(&world, "c3", "count", &[("A", "12"), ("B", "3")]),
    ]);
    owner.turn(vec![request]).unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().len(), 4);
    // Sent again, and other content under the same name: no second variance, and none of what does not count.
    assert!(matches!(post(&mut owner, first), Outcome::Duplicate(_)));
    assert!(matches!(post(&mut owner, movement(&world, "c1", "count", &[("A", "99")])), Outcome::Conflict(_)));
    owner.close().unwrap();

    let records = stock_records(&world);
    let variances: Vec<(u64, u64, Value)> = records
        .iter()
        .filter(|(kind, ..)| *kind == Kind::STOCK_VARIANCE)
        .map(|(_, seq, document)| {
            let lines = document["lines"].as_array().unwrap().iter();
            let lines = lines.map(|line| json!([line["item_id"], line["counted"], line["on_hand"], line["variance"]]));
            (*seq, document["counts"]["seq"].as_u64().unwrap(), lines.collect::<Value>())
        })
        .collect();
    assert_eq!(
        variances,
        [
            (2, 1, json!([["A", "10", null, null], ["B", "2.5", null, null]])),
            (5, 4, json!([["A", "14", "15", "-1"], ["A", "13", "14", "-1"]])),
            (8, 7, json!([["A", "12", "12", "0"], ["B", "3", "2.5", "0.5"]])),
        ]
    );
    let third = &records.iter().find(|(_, seq, _)| *seq == 8).unwrap().2;
    assert_eq!((&third["as_of"]["lanes"]["stock"], &third["left_out"]), (&json!(6), &json!(0)), "{third}");
}

#[test]
fn of_a_count_of_very_many_long_names_the_rest_is_counted() {
    let world = World::new("");
    let mut owner = world.start();
    let names: Vec<String> = (0..5_000).map(|number| format!("{number:04}{}", "\u{e9}".repeat(60))).collect();
    let lines: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    post(&mut owner, movement(&world, "c1", "count", &lines));
    owner.close().unwrap();
    let (kind, _, document) = stock_records(&world).pop().unwrap();
    assert_eq!(kind, Kind::STOCK_VARIANCE);
    let listed = document["lines"].as_array().unwrap().len();
    assert!(listed > 1_000, "{listed}");
    assert_eq!(document["left_out"], 5_000 - listed);
}
