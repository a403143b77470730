//! Control totals, and what `verify` finds when somebody changed a byte.

use counterfoil_proto::record::control_totals::ControlTotals;
use serde_json::Value;

use super::*;
use crate::journal::{Finding, forge, forge_all};
use crate::verify::{self, Report};
use counterfoil_proto::id::{Chain, Digest, Lane};

fn close(world: &World, name: &str, till: Option<&str>, transactions: u64, gross: &str) -> Prepared {
    let till = till.map_or_else(String::new, |till| format!(r#""workstation_id":"{till}","#));
    let document = format!(
        r#"{{"document_id":"{name}",{till}"business_day_date":"2026-11-23","end_date_time":"2026-11-23T20:00:00+01:00",
        "correlation_id":"evening","totals":[{{"currency_code":"EUR","transactions":{transactions},"gross":"{gross}"}}]}}"#
    );
    prepare(Kind::DAY_CLOSE, document.as_bytes(), None, &world.config.context()).unwrap()
}

fn verified(world: &World) -> Report {
    verify::on(&world.disk, None, &mut |_, _| {}).unwrap()
}

/// All control totals of the journal: where they stand, and what they say.
fn control_totals(world: &World) -> Vec<(u32, u32, Value)> {
    let mut found = Vec::new();
    let mut meet = |met: &crate::journal::Met<'_>| {
        let record = counterfoil_proto::record::Record::decode(met.stored).unwrap();
        if record.kind == Kind::CONTROL_TOTALS {
            let document = serde_json::from_slice(&record.document).unwrap();
            found.push((met.position.segment(), met.position.offset(), document));
        }
        Vec::<Finding>::new()
    };
    crate::journal::check(&world.disk, &mut meet, &mut |_, _| {}).unwrap();
    found
}

/// The chain after each record of lane `trade`.
fn chains_of_trade(world: &World) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut meet = |met: &crate::journal::Met<'_>| {
        if met.key.lane == Lane::Trade {
            let before = chains.last().copied().unwrap_or_else(|| Chain::genesis(met.key.epoch, Lane::Trade));
            chains.push(before.next(met.key.seq, Digest::of(met.stored)));
        }
        Vec::<Finding>::new()
    };
    crate::journal::check(&world.disk, &mut meet, &mut |_, _| {}).unwrap();
    chains
}

/// Two sales, the till's close, a late sale, the store's close; stopped in good order.
fn evening() -> World {
    let world = World::new("[journal]\nsegment_bytes = \"4MiB\"\n");
    let mut owner = world.start();
    post(&mut owner, world.sale(1, "8.98"));
    post(&mut owner, world.sale(2, "1.02"));
    post(&mut owner, close(&world, "z1", Some("3"), 2, "10.00"));
    post(&mut owner, world.sale(3, "0.50"));
    post(&mut owner, close(&world, "z2", None, 2, "10.00"));
    owner.close().unwrap();
    world
}

#[test]
fn each_close_is_followed_by_what_was_counted_signed_and_tied_to_the_one_before() {
    let world = evening();
    let all: Vec<Value> = control_totals(&world).into_iter().map(|(_, _, document)| document).collect();
    let text = |document: &Value, pointer: &str| document.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    assert_eq!(all.len(), 2);
    let (first, second) = (&all[0], &all[1]);
    assert_eq!((&first["number"], &second["number"]), (&1.into(), &2.into()));
    assert_eq!((text(first, "/declared/0/gross"), text(first, "/computed/0/gross")), ("10.00".into(), "10.00".into()));
    assert_eq!(
        (text(second, "/declared/0/gross"), text(second, "/computed/0/gross")),
        ("10.00".into(), "10.50".into())
    );
    assert_eq!(text(second, "/perpetual/0/gross"), "10.50");
    assert_eq!(first["workstation_id"], "3");
    assert_eq!((&second["workstation_id"], first.get("previous")), (&Value::Null, Some(&Value::Null)));
    let report = verified(&world);
    assert_eq!((report.control_totals, report.last_number, &report.journal.findings[..]), (2, Some(2), &[][..]));
    assert!(report.journal.closed && report.journal.records == 8, "{report:?}");
    // Another key is not taken for the one that is known.
    let other = verify::on(&world.disk, Some(counterfoil_proto::id::PublicKey([1; 32])), &mut |_, _| {}).unwrap();
    assert_eq!(other.control_totals, 0);
}

#[test]
fn a_close_whose_control_totals_were_cut_off_gets_them_at_the_next_start_once() {
    let world = World::new("");
    let mut owner = world.start();
    post(&mut owner, world.sale(1, "8.98"));
    let failure =
        Failure { call: Call::Sync, after: 1, for_ever: true, kind: std::io::ErrorKind::Other, short_bytes: 0 };
    world.disk.fail(Some(failure));
    let (request, mut answer) = submit(vec![close(&world, "z1", None, 1, "8.98")]);
    assert!(owner.turn(vec![request]).is_err(), "the second sync is that of the control totals");
    assert!(matches!(answer.try_recv().unwrap().unwrap()[0], Outcome::Recorded(_)), "the close itself was synced");
    drop(owner);
    world.disk.fail(None);
    world.disk.power_cut(Cut::DropAll);
    assert_eq!(control_totals(&world).len(), 0);
    for _ in 0..2 {
        let owner = world.start();
        world.forget_state();
        drop(owner);
        world.disk.kill();
        let found = control_totals(&world);
        assert_eq!(found.len(), 1, "once, also where the state was lost");
        assert_eq!(found[0].2["correlation_id"], Value::Null);
        assert_eq!(found[0].2["business_day_date"], "2026-11-23");
    }
    assert_eq!(verified(&world).control_totals, 1);
}

#[test]
fn verify_names_every_byte_that_was_changed_in_the_journal() {
    let world = evening();
    let name = "journal/0000000001.seg";
    let whole = world.disk.content(name).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (0..=end).step_by(41) {
        world.disk.flip(name, at, 3);
        let findings = verified(&world).journal.findings;
        // Zeros between two frames are no part of either.
        let is_padding = whole[at] == 0 && findings.is_empty();
        assert!(is_padding || findings.iter().any(|found| found.file == name), "byte {at}: {findings:?}");
        let near = findings.iter().filter(|found| found.offset as usize <= at).count();
        assert!(is_padding || near > 0, "byte {at}: {findings:?}");
        world.disk.flip(name, at, 3);
    }
    assert_eq!(verified(&world).journal.findings, []);
}

#[test]
fn verify_names_control_totals_that_were_changed_with_all_their_checksums() {
    let world = evening();
    let whole = world.disk.content("journal/0000000001.seg").unwrap();
    let (segment, offset, document) = control_totals(&world).remove(0);
    let totals: ControlTotals = serde_json::from_value(document).unwrap();
    assert!(forge(&world.disk, segment, offset, br#""gross":"10.00""#, br#""gross":"90.00""#));
    let told: Vec<String> = verified(&world).journal.findings.into_iter().map(|found| found.what).collect();
    let is_named = |part: &str| told.iter().any(|what| what.contains(part));
    assert!(is_named("control totals 1: the signature"), "{told:?}");
    assert!(is_named("control totals 2: they do not name the ones before"), "{told:?}");
    assert!(is_named("a record up to it was changed"), "{told:?}");

    // A sale before them, by somebody who forges its checksum: the chain that was signed does not fit any more.
    world.disk.set_content("journal/0000000001.seg", whole);
    let trade = totals.epochs[0].lanes[0];
    assert_eq!(trade.last, Seq(4), "two sales, the start of the epoch, the close");
    let chains = chains_of_trade(&world);
    let sale = crate::journal::offset_of(&world.disk, segment, Seq(2)).unwrap();
    assert!(forge(&world.disk, segment, sale, br#""gross":"8.98""#, br#""gross":"8.88""#));
    let told: Vec<String> = verified(&world).journal.findings.into_iter().map(|found| found.what).collect();
    assert!(told.iter().any(|what| what.contains("trade-2 is not the one stated here")), "{told:?}");

    // By somebody who forges the chain in the heads of all groups, too: what was signed cannot be brought to fit.
    for (old, new) in chains.into_iter().zip(chains_of_trade(&world)).filter(|(old, new)| old != new) {
        assert!(forge_all(&world.disk, segment, &old.0, &new.0) > 0);
    }
    let told: Vec<String> = verified(&world).journal.findings.into_iter().map(|found| found.what).collect();
    assert!(told.iter().all(|what| what.starts_with("control totals")) && told.len() == 2, "{told:?}");
    assert!(told[0].contains("control totals 1: lane") && told[1].contains("control totals 2: lane"), "{told:?}");
}
