//! The trail of what was changed by hand: that it goes with the change, and that it stays.

use counterfoil_proto::record::flag;

use super::*;
use crate::ledger::audit::{AuditView, Deed};

fn deed(who: &str, what: &str) -> Deed {
    let (role, peer, route) = ("support", Some("10.0.0.9".to_owned()), "POST /v1/exceptions/{id}/resolve".to_owned());
    Deed { who: who.to_owned(), role, peer, route, what: what.to_owned() }
}

#[tokio::test]
async fn a_change_and_its_entry_are_one_and_what_is_refused_has_one_too() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=3))]).await.unwrap();
        ledger.reject(&one, None, "not a batch", b"x").await.unwrap();
        let open = ledger.exceptions(&ExceptionFilter { limit: 10, ..ExceptionFilter::default() }).await.unwrap();
        assert_eq!(open.len(), 1);
        let id = open[0].id.clone();
        let resolve = flag::Change::Resolved;
        let changed = ledger.change_exception(&id, resolve, ("Ann", "seen"), &deed("desk", "first")).await.unwrap();
        let changed = changed.unwrap();
        assert_eq!((changed.state.as_str(), changed.changed_by.as_deref()), ("resolved", Some("Ann")));
        let unknown = ledger.change_exception("ex-none", resolve, ("Ann", "seen"), &deed("desk", "second")).await;
        assert!(unknown.unwrap().is_none());
        ledger.note_alone(&deed("reader", &"long ".repeat(1_000)), "refused: role").await.unwrap();

        let entries = ledger.audit(None, 10).await.unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry.who.as_str(), entry.outcome.as_str())).collect();
        assert_eq!(told, [("reader", "refused: role"), ("desk", "refused: not known"), ("desk", "done")]);
        let AuditView { role, peer, route, what, at, .. } = &entries[2];
        assert_eq!((role.as_str(), peer.as_deref(), what.as_str()), ("support", Some("10.0.0.9"), "first"));
        assert!(route.starts_with("POST /v1/exceptions") && at.0 > 0);
        assert_eq!(entries[0].what.chars().count(), 500);
        let page = ledger.audit(Some(entries[1].number), 1).await.unwrap();
        assert_eq!(page, entries[2..], "the next page begins behind the last");
    }
}

/// What cannot be committed leaves neither change nor entry: the ledger is an older copy by then.
#[tokio::test]
async fn without_its_entry_nothing_is_changed() {
    for place in places() {
        let ledger = place.open().await;
        let one = source("0001", "a");
        ledger.reject(&one, None, "not a batch", b"x").await.unwrap();
        let filter = ExceptionFilter { limit: 10, ..ExceptionFilter::default() };
        let id = ledger.exceptions(&filter).await.unwrap()[0].id.clone();
        let mut broken = place.database().begin(crate::ledger::sql::Role::Desk).await.unwrap();
        broken.execute_many("DROP TABLE audit", vec![vec![]]).await.unwrap();
        broken.commit().await.unwrap();
        let changed = ledger.change_exception(&id, flag::Change::Waived, ("Ann", "seen"), &deed("desk", "x")).await;
        assert!(changed.is_err(), "{changed:?}");
        assert_eq!(ledger.exceptions(&filter).await.unwrap()[0].state, "open");
    }
}

#[tokio::test]
async fn orders_and_verified_backups_are_in_the_trail() {
    for place in places() {
        let ledger = place.open_with(SafeWhen::Confirmed).await;
        let one = source("0001", "a");
        ledger.take(&[trade(&one, 1, sales(1..=20))]).await.unwrap();
        let query = ReplayQuery { source: one, lane: None, from: WallTime(0), to: WallTime(i64::MAX) };
        let plan = ledger.plan_replay(&query).await.unwrap();
        ledger.order_replay(&plan, "Ann", "the ERP lost a day", &deed("Ann", "replay")).await.unwrap();
        let (_, copy) = ledger.all_lanes().await.unwrap();
        assert_eq!(ledger.verified(&copy, &deed("Ben", "backup")).await.unwrap(), 1);
        let entries = ledger.audit(None, 10).await.unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry.who.as_str(), entry.outcome.as_str())).collect();
        assert_eq!(told, [("Ben", "done"), ("Ann", "done")]);
    }
}

/// Every statement of the hub that names the table.
#[test]
fn no_statement_changes_an_entry_or_takes_one_away() {
    fn sources(directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut found = Vec::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let adding = found.iter().map(|text| text.matches("INSERT INTO audit ").count()).sum::<usize>();
    assert_eq!(adding, 1, "one place adds");
    for word in ["UPDATE", "DELETE FROM", "ALTER TABLE", "DROP TABLE"] {
        let statement = format!("{word} audit");
        assert!(!found.iter().any(|text| text.contains(&statement)), "{statement}");
    }
}
