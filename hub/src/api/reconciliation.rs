//! `GET /v1/reconciliation`: how the day of each store of which anything came stands; and of one store, what each till, or the whole store, declared for a day against what the ledger counted, with the documents and
//! numbers that explain a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Query, State};
use counterfoil_proto::id::PublicKey;
use counterfoil_proto::record::control_totals::Computed;
use serde::{Deserialize, Serialize};

use super::totals::text;
use super::{Answer, Problem, Sources};
use crate::ledger::{DayDocument, DayView, TotalsRow};
use crate::posting::DayWhat;
use crate::reconcile::{ByCurrency, Side, Sums, Verdict, judge};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DayQuery {
    store: Option<String>,
    business_day: String,
}

/// Stores of which nothing came are not among them: of those nobody knows.
#[derive(Debug, Serialize)]
struct Stores {
    business_day_date: String,
    stores: Vec<StoreDay>,
}

#[derive(Debug, Serialize)]
struct StoreDay {
    store_id: String,
    status: Verdict,
}

#[derive(Debug, Serialize)]
struct Reconciliation {
    store_id: String,
    business_day_date: String,
    /// The worst of the tills', and of the whole store's close where there is one.
    status: Verdict,
    /// Of the whole store, where it closed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Judged>,
    tills: Vec<Till>,
}

#[derive(Debug, Serialize)]
struct Judged {
    status: Verdict,
    declared: Vec<Figures>,
    counted: Vec<Figures>,
    /// What its box counted at the close, signed; missing where the box has not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
    /// What differs, without what came late.
    differences: Vec<Difference>,
    /// Came after the close; counted.
    late: Vec<Document>,
}

#[derive(Debug, Serialize)]
struct Signed {
    agent_id: String,
    /// Counts the closes of the box.
    number: u64,
    public_key: PublicKey,
    /// Whether the signature is right and they follow the ones before, by the same key.
    is_valid: bool,
    /// What is wrong, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    wrong: String,
    counted: Vec<Computed>,
}

#[derive(Debug, Serialize)]
struct Till {
    workstation_id: String,
    #[serde(flatten)]
    judged: Judged,
    /// Numbers that did not come.
    missing_numbers: Vec<Missing>,
    /// Came under a number that the till had used; counted.
    doubled: Vec<Document>,
    /// Of an identity that another document had first; not counted.
    conflicts: Vec<Document>,
}

#[derive(Debug, Serialize)]
struct Figures {
    currency_code: String,
    transactions: u64,
    gross: String,
    tenders: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tax: Option<String>,
}

#[derive(Debug, Serialize)]
struct Difference {
    currency_code: String,
    /// `gross`, `transactions`, `tender/{type}`, `tax`.
    what: String,
    declared: String,
    counted: String,
}

#[derive(Debug, Serialize)]
struct Document {
    position: u64,
    identity: String,
    workstation_id: String,
    agent_id: String,
    gross: Vec<Gross>,
}

#[derive(Debug, Serialize)]
struct Gross {
    currency_code: String,
    amount: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    sequence_epoch: u64,
    first: u64,
    last: u64,
}

pub(super) async fn get(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<DayQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| Problem::query("business_day, which is required, and store"))?;
    let business_day_date = query.business_day;
    if let Some(store_id) = query.store {
        let day = sources.ledger.day(&store_id, &business_day_date).await?;
        return Ok(super::json(&reconciliation(store_id, business_day_date, &day)));
    }
    let mut stores = Vec::new();
    for store_id in sources.ledger.stores_of_day(&business_day_date).await? {
        let day = sources.ledger.day(&store_id, &business_day_date).await?;
        let Reconciliation { store_id, status, .. } = reconciliation(store_id, business_day_date.clone(), &day);
        stores.push(StoreDay { store_id, status });
    }
    Ok(super::json(&Stores { business_day_date, stores }))
}

/// How the day of a store stands as a whole.
pub(super) fn status(store_id: &str, business_day_date: &str, day: &DayView) -> Verdict {
    reconciliation(store_id.to_owned(), business_day_date.to_owned(), day).status
}

fn reconciliation(store_id: String, business_day_date: String, day: &DayView) -> Reconciliation {
    let mut tills: BTreeSet<&str> = day.totals.iter().map(|row| row.workstation_id.as_str()).collect();
    tills.extend(day.documents.iter().map(|document| document.workstation_id.as_str()));
    tills.extend(day.numbers.iter().map(|numbers| numbers.workstation_id.as_str()));
    tills.remove("");
    let tills: Vec<Till> = tills.into_iter().map(|workstation_id| till(workstation_id, day)).collect();
    let store = close_of("", day).is_some().then(|| judged(None, day));
    let closes_whole = store.as_ref().map(|store| store.status);
    // A till that did not close by itself is covered by the store's close.
    let of_tills = tills.iter().map(|till| till.judged.status);
    let of_tills = of_tills.filter(|status| closes_whole.is_none() || *status != Verdict::Open);
    let status = of_tills.chain(closes_whole).max().unwrap_or(Verdict::Unknown);
    Reconciliation { store_id, business_day_date, status, store, tills }
}

/// The close that counts: the last one.
fn close_of<'d>(workstation_id: &str, day: &'d DayView) -> Option<&'d DayDocument> {
    let is_close =
        |document: &&DayDocument| document.what == DayWhat::Close && document.workstation_id == workstation_id;
    day.documents.iter().rev().find(is_close)
}

fn judged(workstation_id: Option<&str>, day: &DayView) -> Judged {
    let is_meant = |found: &str| workstation_id.is_none_or(|wanted| wanted == found);
    let close = close_of(workstation_id.unwrap_or_default(), day);
    let late: Vec<&DayDocument> = day
        .documents
        .iter()
        .filter(|document| document.what == DayWhat::Late && is_meant(&document.workstation_id))
        .collect();
    let mut of_late = ByCurrency::new();
    for (currency, sums) in late.iter().flat_map(|document| &document.sums.sums) {
        of_late.entry(currency.clone()).or_default().add(sums);
    }
    let is_whole = |agent_id: &str| day.agents.iter().all(|(known, is_whole)| known != agent_id || *is_whole);
    let side = Side {
        declared: close.map(|close| close.sums.sums.clone()),
        counted: counted(day.totals.iter().filter(|row| is_meant(&row.workstation_id))),
        late: of_late,
        is_whole: close.is_none_or(|close| is_whole(&close.agent_id)),
    };
    let (status, differences) = judge(&side);
    let amount = |difference: &crate::reconcile::Difference, figure: i64| match difference.what.as_str() {
        "transactions" => figure.to_string(),
        _ => text(figure, &difference.currency),
    };
    Judged {
        status,
        declared: figures(side.declared.as_ref().unwrap_or(&ByCurrency::new())),
        counted: figures(&side.counted),
        signed: signed(workstation_id.unwrap_or_default(), day),
        differences: differences
            .iter()
            .map(|difference| Difference {
                currency_code: difference.currency.clone(),
                what: difference.what.clone(),
                declared: amount(difference, difference.declared),
                counted: amount(difference, difference.counted),
            })
            .collect(),
        late: late.into_iter().map(document).collect(),
    }
}

/// The newest control totals of a till, or of the whole store.
fn signed(workstation_id: &str, day: &DayView) -> Option<Signed> {
    let seal = day.seals.iter().rev().find(|seal| seal.workstation_id == workstation_id)?;
    Some(Signed {
        agent_id: seal.agent_id.clone(),
        number: seal.number,
        public_key: seal.public_key,
        is_valid: seal.wrong.is_empty(),
        wrong: seal.wrong.clone(),
        counted: seal.computed.clone(),
    })
}

fn till(workstation_id: &str, day: &DayView) -> Till {
    let of = |what: DayWhat| {
        let documents = day.documents.iter();
        let meant =
            documents.filter(move |document| document.what == what && document.workstation_id == workstation_id);
        meant.map(document).collect::<Vec<_>>()
    };
    let span = close_of(workstation_id, day).and_then(|close| close.sums.span);
    let numbers: Vec<_> = day.numbers.iter().filter(|numbers| numbers.workstation_id == workstation_id).collect();
    let newest = numbers.iter().map(|numbers| numbers.sequence_epoch).max();
    let missing = numbers.iter().flat_map(|numbers| {
        // What a close states is of the epoch in which it was made.
        let stated = span.filter(|_| Some(numbers.sequence_epoch) == newest);
        let sequence_epoch = numbers.sequence_epoch;
        numbers.numbers.missing(stated).into_iter().map(move |(first, last)| Missing { sequence_epoch, first, last })
    });
    let mut missing_numbers: Vec<Missing> = missing.collect();
    if numbers.is_empty() {
        missing_numbers.extend(span.map(|(first, last)| Missing { sequence_epoch: 0, first, last }));
    }
    Till {
        workstation_id: workstation_id.to_owned(),
        judged: judged(Some(workstation_id), day),
        missing_numbers,
        doubled: of(DayWhat::Doubled),
        conflicts: of(DayWhat::Conflict),
    }
}

fn counted<'r>(rows: impl Iterator<Item = &'r TotalsRow>) -> ByCurrency {
    let mut counted = ByCurrency::new();
    for row in rows {
        let mut words = row.what.splitn(2, '/');
        let (word, rest) = (words.next().unwrap_or_default(), words.next());
        if word == "not" {
            continue;
        }
        let sums: &mut Sums = counted.entry(row.currency.clone()).or_default();
        match (word, rest) {
            ("counted", None) => {
                sums.transactions = sums.transactions.saturating_add(row.transactions);
                sums.gross = sums.gross.saturating_add(row.amount);
            }
            ("tax", None) => sums.tax = Some(sums.tax.unwrap_or_default().saturating_add(row.amount)),
            ("tender", Some(tender_type)) => {
                let sum = sums.tenders.entry(tender_type.to_owned()).or_default();
                *sum = sum.saturating_add(row.amount);
            }
            _ => {}
        }
    }
    counted
}

fn figures(sums: &ByCurrency) -> Vec<Figures> {
    let of_currency = |(currency, sums): (&String, &Sums)| Figures {
        currency_code: currency.clone(),
        transactions: sums.transactions,
        gross: text(sums.gross, currency),
        tenders: sums.tenders.iter().map(|(what, amount)| (what.clone(), text(*amount, currency))).collect(),
        tax: sums.tax.map(|tax| text(tax, currency)),
    };
    sums.iter().map(of_currency).collect()
}

fn document(document: &DayDocument) -> Document {
    let gross = |(currency, sums): (&String, &Sums)| Gross {
        currency_code: currency.clone(),
        amount: text(sums.gross, currency),
    };
    Document {
        position: document.position,
        identity: document.identity.clone(),
        workstation_id: document.workstation_id.clone(),
        agent_id: document.agent_id.clone(),
        gross: document.sums.sums.iter().map(gross).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::TillNumbers;
    use crate::posting::DaySums;
    use crate::reconcile::Numbers;

    fn row(till: &str, what: &str, transactions: u64, amount: i64) -> TotalsRow {
        TotalsRow {
            currency: "EUR".to_owned(),
            workstation_id: till.to_owned(),
            what: what.to_owned(),
            transactions,
            amount,
            base: 0,
            low: None,
            high: None,
        }
    }

    fn named(position: u64, what: DayWhat, till: &str, transactions: u64, gross: i64) -> DayDocument {
        let sums = Sums { transactions, gross, tenders: BTreeMap::from([("cash".to_owned(), gross)]), tax: None };
        DayDocument {
            position,
            what,
            workstation_id: till.to_owned(),
            agent_id: "box1".to_owned(),
            identity: format!("d/{position}"),
            sums: DaySums { sums: ByCurrency::from([("EUR".to_owned(), sums)]), span: None },
        }
    }

    /// One till short of a receipt, one with a late sale, one with a doubled number, one that did not close.
    fn day() -> DayView {
        let mut short_close = named(4, DayWhat::Close, "1", 3, 3_000);
        short_close.sums.span = Some((1, 3));
        let counted = |till: &str, count: u64, gross: i64| {
            [
                row(till, "counted", count, gross),
                row(till, "tender/cash", count, gross),
                row(till, "not/training", 1, 7),
            ]
        };
        let numbers = |till: &str, runs: &[(u64, u64)]| TillNumbers {
            workstation_id: till.to_owned(),
            sequence_epoch: 0,
            numbers: Numbers(runs.to_vec()),
        };
        DayView {
            totals: [counted("1", 2, 2_000), counted("2", 3, 3_500), counted("3", 2, 800), counted("4", 1, 100)]
                .concat(),
            documents: vec![
                short_close,
                named(5, DayWhat::Close, "2", 2, 3_000),
                named(6, DayWhat::Late, "2", 1, 500),
                named(7, DayWhat::Doubled, "3", 1, 400),
                named(8, DayWhat::Close, "3", 2, 800),
                named(9, DayWhat::Conflict, "3", 1, 999),
            ],
            numbers: vec![numbers("1", &[(1, 1), (3, 3)]), numbers("2", &[(1, 3)]), numbers("3", &[(5, 5)])],
            seals: Vec::new(),
            agents: vec![("box1".to_owned(), true)],
        }
    }

    fn judged_day(day: &DayView) -> serde_json::Value {
        serde_json::to_value(reconciliation("0042".to_owned(), "2026-11-23".to_owned(), day)).unwrap()
    }

    fn statuses(answer: &serde_json::Value) -> Vec<&str> {
        answer["tills"].as_array().unwrap().iter().map(|till| till["status"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_day_is_judged_till_by_till_with_what_explains_it() {
        let answer = judged_day(&day());
        assert_eq!(statuses(&answer), ["short", "late_after_close", "matched", "open"]);
        assert_eq!(answer["status"], "short");
        let tills = answer["tills"].as_array().unwrap();
        assert_eq!(tills[0]["missing_numbers"], serde_json::json!([{"sequence_epoch": 0, "first": 2, "last": 2}]));
        assert_eq!(
            tills[0]["differences"][0],
            serde_json::json!({
                "currency_code": "EUR", "what": "gross", "declared": "30.00", "counted": "20.00"
            })
        );
        assert_eq!(tills[0]["differences"][1]["declared"], "3");
        assert_eq!(tills[1]["late"][0]["identity"], "d/6");
        assert_eq!(tills[1]["late"][0]["gross"][0]["amount"], "5.00");
        assert_eq!(
            (tills[2]["doubled"][0]["identity"].as_str(), tills[2]["conflicts"][0]["identity"].as_str()),
            (Some("d/7"), Some("d/9"))
        );
        assert_eq!(answer.get("store"), None);
    }

    #[test]
    fn a_silent_day_is_unknown_and_never_zero() {
        let answer = judged_day(&DayView { agents: vec![("box1".to_owned(), true)], ..DayView::default() });
        assert_eq!((answer["status"].as_str(), answer["tills"].as_array().unwrap().len()), (Some("unknown"), 0));
    }

    #[test]
    fn a_close_of_the_whole_store_covers_tills_that_did_not_close() {
        let mut day = day();
        day.documents.retain(|document| document.workstation_id == "3" && document.what == DayWhat::Close);
        day.documents.push(named(10, DayWhat::Close, "", 8, 6_400));
        let answer = judged_day(&day);
        assert_eq!(statuses(&answer), ["open", "open", "matched", "open"]);
        assert_eq!((answer["status"].as_str(), answer["store"]["status"].as_str()), (Some("matched"), Some("matched")));
        day.documents.push(named(11, DayWhat::Close, "", 8, 6_500));
        let answer = judged_day(&day);
        assert_eq!(
            (answer["status"].as_str(), answer["store"]["status"].as_str()),
            (Some("short"), Some("short")),
            "the last close counts"
        );
    }

    #[test]
    fn a_close_whose_box_has_more_to_deliver_is_pending() {
        let mut day = day();
        day.agents = vec![("box1".to_owned(), false), ("box2".to_owned(), true)];
        assert_eq!(statuses(&judged_day(&day)), ["pending", "pending", "matched", "open"]);
        day.documents[0].agent_id = "box2".to_owned();
        assert_eq!(statuses(&judged_day(&day))[0], "short");
    }

    #[test]
    fn what_a_close_states_counts_where_no_number_came() {
        let mut close = named(1, DayWhat::Close, "9", 2, 100);
        close.sums.span = Some((4, 5));
        let answer = judged_day(&DayView { documents: vec![close], ..DayView::default() });
        assert_eq!(statuses(&answer), ["short"]);
        assert_eq!(
            answer["tills"][0]["missing_numbers"],
            serde_json::json!([{"sequence_epoch": 0, "first": 4, "last": 5}])
        );
    }
}
