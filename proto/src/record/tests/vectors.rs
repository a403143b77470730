//! Golden vectors of the tills' documents: what the agent makes of each, for everybody who writes a till or a hub. **What is expected in
//! these files is never changed**: a till that was right once stays right.
//!
//! `COUNTERFOIL_BLESS=1` writes what is expected where it is missing.

extern crate std;

use std::path::PathBuf;

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::id::{Digest, PublicKey, Signature};
use crate::record::control_totals::{ControlTotals, is_signed, signed_bytes};
use crate::record::facts::{Facts, StockChange};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/documents-v1")
}

fn is_blessed() -> bool {
    std::env::var_os("COUNTERFOIL_BLESS").is_some()
}

fn changes<'c>(changes: impl IntoIterator<Item = &'c StockChange>) -> Value {
    changes.into_iter().map(|change| json!([change.item_id, change.unit, change.delta.to_string()])).collect()
}

/// What stock, drawers and totals are folded from, amounts in minor units.
fn effects(facts: &Facts) -> Value {
    match facts {
        Facts::Transaction(facts) => json!({
            "counts": facts.counts(), "gross": facts.gross, "net": facts.net, "tax": facts.tax,
            "tenders": facts.tenders.iter().map(|tender| json!([tender.tender_type, tender.amount])).collect::<Value>(),
            "stock": changes(&facts.stock),
            "returns": facts.returns.iter().map(|line| json!([line.identity, line.quantity.to_string()])).collect::<Value>(),
        }),
        Facts::Movement(facts) => json!({
            "stock": changes(&facts.changes),
            "counted": facts.counts.iter().map(|one| json!([one.item_id, one.unit, one.counted.to_string()])).collect::<Value>(),
        }),
        Facts::Fulfillment(facts) => json!({ "stock": changes(&facts.stock().collect::<Vec<_>>()) }),
        Facts::TenderControl(facts) => json!({
            "tenders": facts.tenders.iter().map(|tender| json!([tender.tender_type, tender.amount])).collect::<Value>(),
        }),
        Facts::DayClose(facts) => json!({
            "declared": facts.declared.iter().map(|one| json!([one.currency_code, one.transactions, one.gross])).collect::<Value>(),
        }),
        Facts::None => Value::Null,
    }
}

fn made_of(kind: Kind, document: &Value) -> Value {
    let prepared = prepare(kind, document.to_string().as_bytes(), None, &context()).unwrap();
    let envelope = &prepared.envelope;
    json!({
        "identity": envelope.identity,
        "alias": envelope.alias,
        "occurred_at": envelope.occurred_at.map(WallTime::to_rfc3339),
        "business_day_date": envelope.business_day_date,
        "business_day_derived": envelope.business_day_derived,
        "correlation_id": envelope.correlation_id,
        "content_digest": envelope.content_digest,
        "stored_digest": Digest::of(&prepared.document),
        "flags": envelope.flags.iter().map(|flag| json!([flag.code, flag.pointer])).collect::<Value>(),
        "warnings": prepared.warnings,
        "effects": effects(&prepared.facts),
    })
}

#[test]
fn each_document_is_taken_as_version_1_promised() {
    let mut kinds = alloc::collections::BTreeMap::<String, usize>::new();
    for file in std::fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let kind =
            [Kind::TRANSACTION, Kind::STOCK_MOVEMENT, Kind::FULFILLMENT_UPDATE, Kind::TENDER_CONTROL, Kind::DAY_CLOSE];
        let Some(kind) = kind.into_iter().find(|kind| name.starts_with(kind.name().unwrap())) else { continue };
        let mut vector: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let made = made_of(kind, &vector["document"]);
        if vector.get("expected").is_none() && is_blessed() {
            vector["expected"] = made.clone();
            std::fs::write(&path, alloc::format!("{vector:#}\n")).unwrap();
        }
        assert_eq!(vector.get("expected"), Some(&made), "{name}");
        *kinds.entry(kind.name().unwrap().to_string()).or_default() += 1;
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert!(kinds.values().sum::<usize>() >= 30, "{kinds:?}");
}

/// The key of the vector: its seed is no secret.
fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

#[test]
fn signed_control_totals_are_checked_as_version_1_promised() {
    let path = directory().join("control_totals.signed.json");
    if !path.exists() && is_blessed() {
        let mut document = json!({
            "number": 1, "closes": { "epoch": "07070707070707070707070707070707", "lane": "trade", "seq": 12 },
            "business_day_date": "2026-11-23", "workstation_id": "3",
            "declared": [{ "currency_code": "EUR", "transactions": 2, "gross": "10.00", "tenders": { "cash": "10.00" } }],
            "computed": [{ "currency_code": "EUR", "transactions": 2, "gross": "10.00", "tills": [] }],
            "perpetual": [{ "currency_code": "EUR", "transactions": 2, "gross": "10.00", "since": "2026-11-23T09:15:40.000Z" }],
            "epochs": [{ "epoch": "07070707070707070707070707070707",
                "lanes": [{ "lane": "trade", "last": 12, "chain": "11".repeat(32) }] }],
            "previous": null, "software": "counterfoil 0.1.0", "made_at": "2026-11-23T19:00:01.000Z", "algorithm": "Ed25519",
            "public_key": PublicKey(key().public_key().as_ref().try_into().unwrap()),
        });
        let signed = signed_bytes(document.to_string().as_bytes()).unwrap();
        document["signature"] = json!(Signature(key().sign(&signed).as_ref().try_into().unwrap()));
        std::fs::write(&path, document.to_string()).unwrap();
    }
    let document = std::fs::read(&path).unwrap();
    let totals: ControlTotals = serde_json::from_slice(&document).unwrap();
    assert!(is_signed(&totals, &document));
    // The order of members and white space are not signed; every value is.
    let value: Value = serde_json::from_slice(&document).unwrap();
    assert!(is_signed(&totals, alloc::format!("{value:#}").as_bytes()));
    for (pointer, changed) in [
        ("/computed/0/gross", json!("10.01")),
        ("/number", json!(2)),
        ("/epochs/0/lanes/0/last", json!(13)),
        ("/made_at", json!("")),
    ] {
        let mut other = value.clone();
        *other.pointer_mut(pointer).unwrap() = changed;
        let other = other.to_string();
        let totals: ControlTotals = serde_json::from_str(&other).unwrap();
        assert!(!is_signed(&totals, other.as_bytes()), "{pointer}");
    }
}
