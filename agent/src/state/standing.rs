//! How a day stands: what was declared at a close against what this box counted.
//!
//! Invariant: follows from the day's table alone, and is given anew at each look. Nothing is called zero that is merely not there: a day
//! without records is unknown. What other boxes of the store counted is not known here; the hub judges over all of them.

use std::collections::BTreeMap;

use super::days::{Close, Day, Declared};
use super::word::Word;
use crate::answer::{Standing, TillStanding};

/// What was counted in one currency.
#[derive(Debug, Default)]
struct Counted<'a> {
    transactions: u64,
    gross: i64,
    tenders: BTreeMap<&'a str, i64>,
}

/// The day as a whole, and by till.
pub(super) fn standings(day: &Day) -> (Standing, Vec<TillStanding>) {
    let close_of = |till: Option<&str>| day.closes.iter().rev().find(|close| close.workstation_id.as_deref() == till);
    let of_close = |close: &Close, till: Option<&str>| judge(&close.declared, &counted(day, till));
    let whole = close_of(None).map(|close| of_close(close, None));
    let mut names: Vec<&str> = day.tills.keys().map(|name| &**name).collect();
    names.extend(day.closes.iter().filter_map(|close| close.workstation_id.as_deref()));
    names.sort_unstable();
    names.dedup();
    let mut standings: Vec<TillStanding> =
        whole.iter().map(|standing| TillStanding { workstation_id: None, standing: *standing }).collect();
    standings.extend(names.into_iter().map(|name| TillStanding {
        workstation_id: Some(name.to_owned()),
        standing: close_of(Some(name)).map_or(Standing::Open, |close| of_close(close, Some(name))),
    }));
    let is_covered =
        |till: &&TillStanding| whole.is_some() && till.workstation_id.is_some() && till.standing == Standing::Open;
    let worst = standings.iter().filter(|till| !is_covered(till)).map(|till| till.standing).max();
    (worst.unwrap_or_default(), standings)
}

/// Of one till, or of all.
fn counted<'a>(day: &'a Day, till: Option<&str>) -> BTreeMap<&'a str, Counted<'a>> {
    let mut sums: BTreeMap<&str, Counted<'_>> = BTreeMap::new();
    let meant = day.tills.iter().filter(|(name, _)| till.is_none_or(|till| till == &***name));
    for (currency, totals) in meant.flat_map(|(_, currencies)| currencies) {
        let sum = sums.entry(currency).or_default();
        sum.transactions = sum.transactions.saturating_add(totals.transactions);
        sum.gross = sum.gross.saturating_add(totals.gross);
        for (tender_type, amount) in &totals.tenders {
            let tender = sum.tenders.entry(tender_type.as_str()).or_default();
            *tender = tender.saturating_add(*amount);
        }
    }
    sums
}

/// The most telling difference decides: the gross, the number of transactions, then tenders, of which who declares none says nothing.
fn judge(declared: &[Declared], counted: &BTreeMap<&str, Counted<'_>>) -> Standing {
    let none = Counted::default();
    let of = |currency: &str| declared.iter().find(|sums| sums.currency_code.as_str() == currency);
    let mut currencies: Vec<&str> = declared.iter().map(|sums| sums.currency_code.as_str()).collect();
    currencies.extend(counted.keys());
    for currency in currencies {
        let (declared, counted) = (of(currency), counted.get(currency).unwrap_or(&none));
        let no_tenders = BTreeMap::new();
        let (transactions, gross, tenders) =
            declared.map_or((0, 0, &no_tenders), |sums| (sums.transactions, sums.gross, &sums.tenders));
        let found = counted.gross.cmp(&gross).then(counted.transactions.cmp(&transactions));
        let found = found.then_with(|| tender_difference(tenders, &counted.tenders));
        match found {
            std::cmp::Ordering::Less => return Standing::Short,
            std::cmp::Ordering::Greater => return Standing::Over,
            std::cmp::Ordering::Equal => {}
        }
    }
    Standing::Matched
}

fn tender_difference(declared: &BTreeMap<Word, i64>, counted: &BTreeMap<&str, i64>) -> std::cmp::Ordering {
    if declared.is_empty() {
        return std::cmp::Ordering::Equal;
    }
    let names = declared.keys().map(Word::as_str).chain(counted.keys().copied());
    let sum = |name: &str| (counted.get(name).unwrap_or(&0), declared.get(name).unwrap_or(&0));
    let differences = names.map(|name| {
        let (counted, declared) = sum(name);
        counted.cmp(declared)
    });
    differences.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

#[cfg(test)]
mod tests {
    use counterfoil_proto::time::WallTime;

    use super::*;
    use crate::state::days::Till;

    fn day(tills: &[(&str, u64, i64)], closes: &[(Option<&str>, u64, i64, i64)]) -> Day {
        let mut day = Day::default();
        for &(name, transactions, gross) in tills {
            let tenders = BTreeMap::from([(Word::of("cash"), gross)]);
            let till = Till { transactions, gross, tenders, ..Till::default() };
            day.tills.insert(name.into(), BTreeMap::from([("EUR".into(), till)]));
        }
        for &(till, transactions, gross, cash) in closes {
            let tenders = BTreeMap::from([(Word::of("cash"), cash)]);
            let declared = vec![Declared { currency_code: Word::of("EUR"), transactions, gross, tenders }];
            day.closes.push(Close { workstation_id: till.map(Into::into), recorded_at: WallTime(0), declared });
        }
        day
    }

    #[test]
    fn a_day_stands_as_its_worst_till_does() {
        use Standing::{Matched, Open, Over, Short, Unknown};
        let of = |tills: &[_], closes: &[_]| standings(&day(tills, closes)).0;
        assert_eq!(of(&[], &[]), Unknown);
        assert_eq!(of(&[("1", 2, 900)], &[]), Open);
        assert_eq!(of(&[("1", 2, 900)], &[(Some("1"), 2, 900, 900)]), Matched);
        assert_eq!(of(&[("1", 2, 900)], &[(Some("1"), 3, 950, 950)]), Short);
        assert_eq!(of(&[("1", 2, 900)], &[(Some("1"), 1, 900, 900)]), Over);
        assert_eq!(of(&[("1", 2, 900)], &[(Some("1"), 2, 900, 800)]), Over);
        assert_eq!(of(&[("1", 2, 900), ("2", 1, 50)], &[(Some("1"), 2, 900, 900)]), Open);
        assert_eq!(of(&[], &[(Some("1"), 2, 900, 900)]), Short, "declared, and nothing came");
        assert_eq!(of(&[("1", 2, 900)], &[(Some("1"), 9, 9, 9), (Some("1"), 2, 900, 900)]), Matched, "the last counts");
    }

    #[test]
    fn a_close_of_the_whole_store_covers_tills_that_did_not_close() {
        let tills = [("1", 2, 900), ("2", 1, 50)];
        let (whole, standings) = standings(&day(&tills, &[(None, 3, 950, 950)]));
        assert_eq!(whole, Standing::Matched);
        let named: Vec<_> = standings.iter().map(|till| (till.workstation_id.as_deref(), till.standing)).collect();
        assert_eq!(named, [(None, Standing::Matched), (Some("1"), Standing::Open), (Some("2"), Standing::Open)]);
    }
}
