//! What should lie in each till's drawer: what was counted last, and what moved since.
//!
//! Invariant: a drawer is known only after a declaration, as a shelf is only after a count; until then there is only the sum of what
//! moved. Change is cash. This file does not know whether a difference matters.

use std::collections::BTreeMap;

use counterfoil_proto::record::facts::{TenderControlFacts, TransactionFacts};
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::exceptions::local;
use super::limits::{DRAWERS_MAX, NAME_BYTES_MAX, TENDERS_PER_TILL_MAX, WORD_BYTES_MAX};
use super::rows::RowKey;
use super::word::Word;

/// One means of payment in a drawer; amounts in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tender {
    /// What the last declaration counted.
    declared: Option<i64>,
    /// What moved since.
    moved: i64,
}

/// A till's drawer in one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drawer {
    tenders: BTreeMap<Word, Tender>,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drawers {
    /// By till and currency.
    pub(super) kept: BTreeMap<(Box<str>, Box<str>), Drawer>,
}

/// Change comes out of the cash.
fn kind_of(tender_type: &str) -> &str {
    if tender_type == "change" { "cash" } else { tender_type }
}

impl Drawers {
    /// Takes in what the tenders of a transaction moved; it has to be one that counts.
    pub(super) fn transaction(&mut self, facts: &TransactionFacts, dirty: &mut Dirty, found: &mut Vec<&'static str>) {
        if facts.tenders.is_empty() {
            return;
        }
        let Some(drawer) = self.drawer(&facts.workstation_id, &facts.currency_code, dirty, found) else { return };
        for tender in &facts.tenders {
            if let Some(place) = drawer.tender(&tender.tender_type, found) {
                place.moved = place.moved.saturating_add(tender.amount);
            }
        }
    }

    /// Takes in a movement of money, or a count of it.
    pub(super) fn control(&mut self, facts: &TenderControlFacts, dirty: &mut Dirty, found: &mut Vec<&'static str>) {
        let Some(drawer) = self.drawer(&facts.workstation_id, &facts.currency_code, dirty, found) else { return };
        for (tender_type, amount) in sums(facts) {
            let Some(place) = drawer.tender(tender_type, found) else { continue };
            if facts.is_declaration {
                *place = Tender { declared: Some(amount), moved: 0 };
            } else {
                place.moved = place.moved.saturating_add(amount);
            }
        }
    }

    /// Whether a declaration counts something else than what should be there, by what is here and what came since in `later`.
    pub(super) fn is_different(&self, later: &Self, facts: &TenderControlFacts) -> bool {
        let key = (facts.workstation_id.as_str().into(), facts.currency_code.as_str().into());
        let place = |drawers: &Self, tender_type: &str| {
            drawers.kept.get(&key).and_then(|drawer| drawer.tenders.get(tender_type)).copied().unwrap_or_default()
        };
        facts.is_declaration
            && sums(facts).into_iter().any(|(tender_type, counted)| {
                let (here, later) = (place(self, tender_type), place(later, tender_type));
                let before = later.declared.or_else(|| Some(here.declared?.saturating_add(here.moved)));
                before.is_some_and(|before| before.saturating_add(later.moved) != counted)
            })
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, workstation_id: &str, currency_code: &str, drawer: Drawer) -> bool {
        self.kept.insert((workstation_id.into(), currency_code.into()), drawer).is_none()
    }

    fn drawer(
        &mut self,
        workstation_id: &str,
        currency_code: &str,
        dirty: &mut Dirty,
        found: &mut Vec<&'static str>,
    ) -> Option<&mut Drawer> {
        let key = (workstation_id.into(), currency_code.into());
        let too_long = workstation_id.len() > NAME_BYTES_MAX || currency_code.len() > WORD_BYTES_MAX;
        if too_long || (self.kept.len() >= DRAWERS_MAX && !self.kept.contains_key(&key)) {
            found.push(local::DRAWERS_LIMIT);
            return None;
        }
        dirty.mark(&RowKey::Drawer { workstation_id, currency_code });
        Some(self.kept.entry(key).or_default())
    }
}

/// What a control moves or counts, by means of payment.
fn sums(facts: &TenderControlFacts) -> BTreeMap<&str, i64> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for tender in &facts.tenders {
        let sum = sums.entry(kind_of(&tender.tender_type)).or_default();
        *sum = sum.saturating_add(tender.amount);
    }
    sums
}

impl Drawer {
    fn tender(&mut self, tender_type: &str, found: &mut Vec<&'static str>) -> Option<&mut Tender> {
        let tender_type = kind_of(tender_type);
        let is_full = self.tenders.len() >= TENDERS_PER_TILL_MAX && !self.tenders.contains_key(tender_type);
        if is_full || tender_type.len() > WORD_BYTES_MAX {
            found.push(local::DRAWERS_LIMIT);
            return None;
        }
        Some(self.tenders.entry(Word::of(tender_type)).or_default())
    }
}
