//! Reconciliation: what a till or a store declared at the end of its day against what the ledger counted, and why they differ.
//!
//! Invariant: the verdict follows from what is posted alone, and is given anew on each later arrival. Nothing is called zero that is
//! merely not there: a day of which nothing came is unknown, and a close whose box still has records to deliver is pending.
//! This file reads no ledger and knows no HTTP.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How a till's or a store's day stands. Of several the last in this order stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What was declared is what was counted.
    Matched,
    /// Nothing came of it: nobody knows.
    Unknown,
    /// Not closed.
    Open,
    /// Closed, and its box has records that are not here yet.
    Pending,
    /// It would match without what came after the close.
    LateAfterClose,
    /// More was counted than declared.
    Over,
    /// Less was counted than declared: receipts are missing here.
    Short,
}

impl Verdict {
    /// As answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Unknown => "unknown",
            Self::Open => "open",
            Self::Pending => "pending",
            Self::LateAfterClose => "late_after_close",
            Self::Over => "over",
            Self::Short => "short",
        }
    }
}

/// Sums in one currency; amounts in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Counted transactions.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: i64,
    /// By type.
    pub tenders: BTreeMap<String, i64>,
    /// Σ of the tax, where it is known.
    pub tax: Option<i64>,
}

impl Sums {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.transactions = self.transactions.saturating_add(other.transactions);
        self.gross = self.gross.saturating_add(other.gross);
        for (tender_type, amount) in &other.tenders {
            let sum = self.tenders.entry(tender_type.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        self.tax = match (self.tax, other.tax) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Sums by currency.
pub type ByCurrency = BTreeMap<String, Sums>;

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// What was declared; `None` where nobody closed.
    pub declared: Option<ByCurrency>,
    /// What was counted, late documents among it.
    pub counted: ByCurrency,
    /// Of that, what came after the close.
    pub late: ByCurrency,
    /// Whether the box that closed has delivered everything.
    pub is_whole: bool,
}

/// One figure that differs; amounts in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// ISO 4217.
    pub currency: String,
    /// `gross`, `transactions`, `tender/{type}`, `tax`.
    pub what: String,
    /// As declared.
    pub declared: i64,
    /// As counted, without what came late.
    pub counted: i64,
}

/// Judges a side. The differences are those that remain without what came late.
pub fn judge(side: &Side) -> (Verdict, Vec<Difference>) {
    let Some(declared) = &side.declared else {
        let verdict = if side.counted.is_empty() { Verdict::Unknown } else { Verdict::Open };
        return (verdict, Vec::new());
    };
    if differences(declared, &side.counted, &ByCurrency::new()).is_empty() {
        return (Verdict::Matched, Vec::new());
    }
    let remaining = differences(declared, &side.counted, &side.late);
    let verdict = match remaining.first() {
        _ if !side.is_whole => Verdict::Pending,
        None => Verdict::LateAfterClose,
        Some(first) if first.counted < first.declared => Verdict::Short,
        Some(_) => Verdict::Over,
    };
    (verdict, remaining)
}

/// What differs, the most telling figure first.
fn differences(declared: &ByCurrency, counted: &ByCurrency, late: &ByCurrency) -> Vec<Difference> {
    let mut found = Vec::new();
    let none = Sums::default();
    let currencies: BTreeSet<&String> = declared.keys().chain(counted.keys()).collect();
    for currency in &currencies {
        let of = |sums: &ByCurrency| sums.get(*currency).cloned().unwrap_or_default();
        let (declared, counted, late) = (declared.get(*currency).unwrap_or(&none), of(counted), of(late));
        let mut compare = |what: String, declared: i64, counted: i64, late: i64| {
            let counted = counted.saturating_sub(late);
            if declared != counted {
                found.push(Difference { currency: (*currency).clone(), what, declared, counted });
            }
        };
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        compare("gross".to_owned(), declared.gross, counted.gross, late.gross);
        let (here, after) = (number(counted.transactions), number(late.transactions));
        compare("transactions".to_owned(), number(declared.transactions), here, after);
        // Who declares no tenders, or no tax, says nothing about them.
        if !declared.tenders.is_empty() {
            let types: BTreeSet<&String> = declared.tenders.keys().chain(counted.tenders.keys()).collect();
            for tender_type in types {
                let of = |sums: &Sums| sums.tenders.get(tender_type).copied().unwrap_or_default();
                compare(format!("tender/{tender_type}"), of(declared), of(&counted), of(&late));
            }
        }
        if let Some(tax) = declared.tax {
            compare("tax".to_owned(), tax, counted.tax.unwrap_or_default(), late.tax.unwrap_or_default());
        }
    }
    found.sort_by_key(|difference| match difference.what.as_str() {
        "gross" => 0,
        "transactions" => 1,
        _ => 2,
    });
    found
}

/// Whole numbers that came, as first and last of each run of them, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers(pub Vec<(u64, u64)>);

impl Numbers {
    /// Takes a number in; `false` where it is there already.
    pub fn insert(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        if self.0.get(at).is_some_and(|(first, _)| *first <= number) {
            return false;
        }
        let joins_before = at > 0 && self.0.get(at - 1).is_some_and(|(_, last)| last.checked_add(1) == Some(number));
        let joins_after = self.0.get(at).is_some_and(|(first, _)| number.checked_add(1) == Some(*first));
        match (joins_before, joins_after) {
            (true, true) => {
                let (_, last) = self.0.remove(at);
                self.0[at - 1].1 = last;
            }
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
        true
    }

    /// What is missing between the smallest and the largest, and between what a close says they were.
    pub fn missing(&self, stated: Option<(u64, u64)>) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let (Some((first, _)), Some((_, last))) = (self.0.first(), self.0.last()) else {
            return stated.filter(|(first, last)| first <= last).into_iter().collect();
        };
        if let Some((stated, _)) = stated.filter(|(stated, _)| stated < first) {
            missing.push((stated, first - 1));
        }
        missing.extend(self.0.array_windows::<2>().map(|[one, next]| (one.1 + 1, next.0 - 1)));
        if let Some((_, stated)) = stated.filter(|(_, stated)| stated > last) {
            missing.push((last + 1, stated));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(transactions: u64, gross: i64, cash: i64) -> ByCurrency {
        let tenders = BTreeMap::from([("cash".to_owned(), cash)]);
        BTreeMap::from([("EUR".to_owned(), Sums { transactions, gross, tenders, tax: None })])
    }

    fn side(declared: Option<ByCurrency>, counted: ByCurrency, late: ByCurrency) -> Side {
        Side { declared, counted, late, is_whole: true }
    }

    fn verdict(side: &Side) -> Verdict {
        judge(side).0
    }

    #[test]
    fn what_nobody_closed_is_open_and_what_never_came_unknown() {
        assert_eq!(verdict(&side(None, ByCurrency::new(), ByCurrency::new())), Verdict::Unknown);
        assert_eq!(verdict(&side(None, sums(1, 5, 5), ByCurrency::new())), Verdict::Open);
    }

    #[test]
    fn equal_figures_match_and_the_first_that_differs_says_which_way() {
        let none = ByCurrency::new;
        assert_eq!(judge(&side(Some(sums(2, 10, 10)), sums(2, 10, 10), none())), (Verdict::Matched, Vec::new()));
        assert_eq!(verdict(&side(Some(sums(2, 10, 10)), sums(1, 4, 4), none())), Verdict::Short);
        assert_eq!(verdict(&side(Some(sums(2, 10, 10)), sums(3, 14, 14), none())), Verdict::Over);
        let (found, differing) = judge(&side(Some(sums(2, 10, 10)), sums(2, 10, 8), none()));
        assert_eq!(found, Verdict::Short, "the drawer");
        let expected =
            Difference { currency: "EUR".to_owned(), what: "tender/cash".to_owned(), declared: 10, counted: 8 };
        assert_eq!(differing, [expected]);
        assert_eq!(verdict(&side(Some(sums(2, 10, 10)), sums(1, 10, 10), none())), Verdict::Short, "a receipt of zero");
        assert_eq!(verdict(&side(Some(none()), none(), none())), Verdict::Matched, "a day without a sale");
        assert_eq!(verdict(&side(Some(none()), sums(1, 5, 5), none())), Verdict::Over, "a currency nobody declared");
    }

    #[test]
    fn who_declares_no_tenders_and_no_tax_says_nothing_about_them() {
        let mut declared = sums(2, 10, 0);
        declared.get_mut("EUR").unwrap().tenders.clear();
        let mut counted = sums(2, 10, 10);
        counted.get_mut("EUR").unwrap().tax = Some(2);
        assert_eq!(verdict(&side(Some(declared.clone()), counted.clone(), ByCurrency::new())), Verdict::Matched);
        declared.get_mut("EUR").unwrap().tax = Some(3);
        assert_eq!(verdict(&side(Some(declared), counted, ByCurrency::new())), Verdict::Short);
    }

    #[test]
    fn what_came_late_explains_a_difference_or_does_not() {
        assert_eq!(verdict(&side(Some(sums(2, 10, 10)), sums(3, 14, 14), sums(1, 4, 4))), Verdict::LateAfterClose);
        assert_eq!(verdict(&side(Some(sums(3, 14, 14)), sums(3, 14, 14), sums(1, 4, 4))), Verdict::Matched);
        let (found, differing) = judge(&side(Some(sums(3, 12, 12)), sums(3, 14, 14), sums(1, 4, 4)));
        assert_eq!((found, differing.len()), (Verdict::Short, 3));
        assert_eq!((differing[0].declared, differing[0].counted), (12, 10));
    }

    #[test]
    fn a_box_that_has_more_to_deliver_is_waited_for() {
        let waiting = |declared| Side { is_whole: false, ..side(declared, sums(1, 4, 4), ByCurrency::new()) };
        assert_eq!(verdict(&waiting(Some(sums(2, 10, 10)))), Verdict::Pending);
        assert_eq!(verdict(&waiting(Some(sums(1, 4, 4)))), Verdict::Matched, "it has all that was declared");
        assert_eq!(verdict(&waiting(None)), Verdict::Open);
    }

    #[test]
    fn numbers_that_are_missing_are_named_also_at_the_ends() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.missing(None), []);
        assert_eq!(numbers.missing(Some((3, 5))), [(3, 5)]);
        for number in [7, 5, 6, 10, 9] {
            assert!(numbers.insert(number));
            assert!(!numbers.insert(number));
        }
        assert_eq!(numbers.0, [(5, 7), (9, 10)]);
        assert_eq!(numbers.missing(None), [(8, 8)]);
        assert_eq!(numbers.missing(Some((4, 12))), [(4, 4), (8, 8), (11, 12)]);
        assert_eq!(numbers.missing(Some((6, 9))), [(8, 8)], "what is there was there");
        assert!(numbers.insert(8));
        assert_eq!((numbers.0.as_slice(), numbers.missing(None)), (&[(5, 10)][..], Vec::new()));
        assert!(numbers.insert(u64::MAX) && !numbers.insert(u64::MAX));
    }

    proptest! {
        #[test]
        fn runs_hold_what_came_and_miss_the_rest(came in prop::collection::vec(0_u64..40, 0..60)) {
            let mut numbers = Numbers::default();
            let mut seen = BTreeSet::new();
            for number in came {
                prop_assert_eq!(numbers.insert(number), seen.insert(number));
            }
            let all: Vec<u64> = numbers.0.iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(&all, &seen.iter().copied().collect::<Vec<_>>());
            let missing: Vec<u64> = numbers.missing(None).into_iter().flat_map(|(first, last)| first..=last).collect();
            let between = seen.first().copied().unwrap_or_default()..=seen.last().copied().unwrap_or_default();
            prop_assert_eq!(missing, between.filter(|number| !seen.contains(number) && !seen.is_empty()).collect::<Vec<_>>());
        }
    }
}
