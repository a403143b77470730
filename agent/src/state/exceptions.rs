//! What needs a person: one exception per finding, until somebody resolves or waives it.
//!
//! Invariant: an exception's id follows from the record and the code alone, so that agent and hub name it alike. Nothing is dropped in
//! silence: what is beyond the bound is counted in one exception per code. This file does not judge; findings come in flags,
//! and from the fold where it cannot take a record in whole ([`local`]).

use std::collections::BTreeMap;

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::flag::{Change, Class, Finding, Severity, finding};
use counterfoil_proto::time::WallTime;
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::limits::{EXCEPTIONS_COUNTING_MAX, EXCEPTIONS_OPEN_MAX, EXCEPTIONS_RESOLVED_MAX, TEXT_BYTES_MAX};
use super::rows::RowKey;
use super::word::{Word, cut};

/// Codes of what the state itself cannot take in. They are never in a record's flags, so the hub does not see them.
pub(super) mod local {
    use super::{Class, Finding, Severity};

    pub(in crate::state) const STOCK_ITEMS_LIMIT: &str = "STOCK_ITEMS_LIMIT";
    pub(in crate::state) const STOCK_UNITS_LIMIT: &str = "STOCK_UNITS_LIMIT";
    pub(in crate::state) const STOCK_OVERFLOW: &str = "STOCK_OVERFLOW";
    pub(in crate::state) const DAY_TOTALS_LIMIT: &str = "DAY_TOTALS_LIMIT";
    pub(in crate::state) const DAY_NOT_KEPT: &str = "DAY_NOT_KEPT";
    pub(in crate::state) const TOTALS_OVERFLOW: &str = "TOTALS_OVERFLOW";
    pub(in crate::state) const ORDER_LINES_LIMIT: &str = "ORDER_LINES_LIMIT";
    pub(in crate::state) const DRAWERS_LIMIT: &str = "DRAWERS_LIMIT";
    pub(in crate::state) const NUMBER_GAPS_LIMIT: &str = "NUMBER_GAPS_LIMIT";
    pub(in crate::state) const OTHER_FINDINGS: &str = "OTHER_FINDINGS";

    const fn technical(code: &'static str, sentence: &'static str) -> Finding {
        Finding { code, class: Class::Technical, severity: Severity::Warning, owner: "store_systems", sentence }
    }

    /// Every one of them.
    pub(in crate::state) const FINDINGS: &[Finding] = &[
        technical(
            STOCK_ITEMS_LIMIT,
            "More items than this box can keep stock of were moved; the hub knows their stock.",
        ),
        technical(
            STOCK_UNITS_LIMIT,
            "An item was moved in more units than this box can keep apart; the hub knows its stock.",
        ),
        technical(STOCK_OVERFLOW, "A stock figure left the range of numbers and is no longer exact."),
        technical(
            DAY_TOTALS_LIMIT,
            "A business day has more tills, currencies, taxes, tenders or closes than this box keeps; the hub has all.",
        ),
        technical(
            DAY_NOT_KEPT,
            "A record came for a business day whose totals this box no longer keeps; the hub has them.",
        ),
        technical(TOTALS_OVERFLOW, "A total left the range of numbers and is no longer exact."),
        technical(
            ORDER_LINES_LIMIT,
            "More order lines are under way than this box can follow; what it holds for orders is no longer complete.",
        ),
        technical(DRAWERS_LIMIT, "There are more drawers or means of payment than this box can follow the money of."),
        technical(
            NUMBER_GAPS_LIMIT,
            "A till leaves out more numbers than this box can keep; the oldest gaps are forgotten.",
        ),
        technical(OTHER_FINDINGS, "There are more kinds of findings than this box can list; the hub has all."),
    ];
}

/// The first eight bytes of the hash that names an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExceptionId(pub(super) u64);

impl ExceptionId {
    fn of(key: RecordKey, code: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"exception");
        hasher.update(&key.epoch.0);
        hasher.update(&[key.lane.code()]);
        hasher.update(&key.seq.0.to_le_bytes());
        hasher.update(code.as_bytes());
        Self::first_bytes(&hasher)
    }

    /// Of the one that counts all further findings of `code`.
    fn of_counting(code: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"counting exception");
        hasher.update(code.as_bytes());
        Self::first_bytes(&hasher)
    }

    fn first_bytes(hasher: &blake3::Hasher) -> Self {
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Self(u64::from_be_bytes(bytes))
    }

    /// Reads what [`std::fmt::Display`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("ex-").filter(|digits| digits.len() == 16)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        plain.then(|| u64::from_str_radix(digits, 16).ok().map(Self))?
    }
}

impl std::fmt::Display for ExceptionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ex-{:016x}", self.0)
    }
}

/// The id of the exception that a flag `code` of the record `key` opens.
pub fn exception_id(key: RecordKey, code: &str) -> String {
    ExceptionId::of(key, code).to_string()
}

/// What is known of `code`, be it a flag's or the state's own.
pub(super) fn finding_of(code: &str) -> Option<&'static Finding> {
    finding(code).or_else(|| local::FINDINGS.iter().find(|finding| finding.code == code))
}

/// How an exception ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resolution {
    pub(super) by: Box<str>,
    pub(super) reason: Box<str>,
    /// Grows with each: the smallest is forgotten first.
    pub(super) number: u64,
}

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exception {
    pub(super) code: Word,
    pub(super) key: RecordKey,
    pub(super) identity: Option<Box<str>>,
    pub(super) pointer: Box<str>,
    pub(super) correlation_id: Option<Box<str>>,
    pub(super) first_seen: WallTime,
    /// The order of opening.
    pub(super) number: u64,
    /// Findings that it stands for: several places of one document, or all beyond the bound.
    pub(super) count: u64,
    /// Whether it counts what is beyond the bound; record and place are then those of the first.
    pub(super) counting: bool,
    pub(super) resolution: Option<Box<Resolution>>,
}

/// What a person did last about an exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handled {
    pub(super) change: Change,
    pub(super) by: Box<str>,
    pub(super) reason: Box<str>,
    pub(super) at: WallTime,
}

/// Where a finding comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) key: RecordKey,
    pub(super) identity: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) at: WallTime,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exceptions {
    pub(super) all: BTreeMap<ExceptionId, Exception>,
    /// What was done about them last.
    pub(super) handled: BTreeMap<ExceptionId, Handled>,
    /// Resolved ones in the order of their resolution. Follows from `all`.
    resolved: BTreeMap<u64, ExceptionId>,
    /// Open ones that do not count. Follows from `all`.
    open_single: usize,
    /// Open ones that count. Follows from `all`.
    open_counting: usize,
    /// The last number that was given, to an opening or a resolution.
    pub(super) number: u64,
}

impl Exceptions {
    /// How many a person has to look at.
    pub(super) fn open_count(&self) -> usize {
        self.open_single.saturating_add(self.open_counting)
    }

    /// A flag of a record.
    pub(super) fn open(&mut self, code: &str, pointer: &str, origin: Origin<'_>, dirty: &mut Dirty) {
        let id = ExceptionId::of(origin.key, code);
        if let Some(exception) = self.all.get_mut(&id) {
            exception.count = exception.count.saturating_add(1);
            dirty.mark(&RowKey::Exception(id));
        } else if self.open_single >= EXCEPTIONS_OPEN_MAX {
            self.count(code, origin, dirty);
        } else {
            self.insert(id, code, pointer, origin, false, dirty);
            self.open_single = self.open_single.saturating_add(1);
        }
    }

    /// A finding that is not listed singly.
    pub(super) fn count(&mut self, code: &str, origin: Origin<'_>, dirty: &mut Dirty) {
        let mut code = code;
        let mut id = ExceptionId::of_counting(code);
        let is_open = |exception: &Exception| exception.resolution.is_none();
        if self.open_counting >= EXCEPTIONS_COUNTING_MAX && !self.all.get(&id).is_some_and(is_open) {
            code = local::OTHER_FINDINGS;
            id = ExceptionId::of_counting(code);
        }
        match self.all.get_mut(&id) {
            Some(exception) if exception.resolution.is_none() => {
                exception.count = exception.count.saturating_add(1);
                dirty.mark(&RowKey::Exception(id));
            }
            Some(_) | None => {
                self.forget(id, dirty);
                self.insert(id, code, "", origin, true, dirty);
                self.open_counting = self.open_counting.saturating_add(1);
            }
        }
    }

    /// Notes what a person did about an open one; `false` where there is none.
    pub(super) fn change(&mut self, id: ExceptionId, handled: Handled, dirty: &mut Dirty) -> bool {
        let is_open = self.all.get(&id).is_some_and(|exception| exception.resolution.is_none());
        if !is_open {
            return false;
        }
        if handled.change.ends() {
            self.resolve(id, &handled.by, &handled.reason, dirty);
        }
        if self.all.contains_key(&id) {
            self.handled.insert(id, handled);
            dirty.mark(&RowKey::Handled(id));
        }
        true
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load_handled(&mut self, id: ExceptionId, handled: Handled) -> bool {
        self.all.contains_key(&id) && self.handled.insert(id, handled).is_none()
    }

    fn resolve(&mut self, id: ExceptionId, by: &str, reason: &str, dirty: &mut Dirty) {
        let Some(exception) = self.all.get_mut(&id).filter(|exception| exception.resolution.is_none()) else {
            return;
        };
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let resolution = Resolution { by: cut(by, TEXT_BYTES_MAX), reason: cut(reason, TEXT_BYTES_MAX), number };
        exception.resolution = Some(Box::new(resolution));
        let open = if exception.counting { &mut self.open_counting } else { &mut self.open_single };
        *open = open.saturating_sub(1);
        self.resolved.insert(number, id);
        dirty.mark(&RowKey::Exception(id));
        if self.resolved.len() > EXCEPTIONS_RESOLVED_MAX
            && let Some((_, oldest)) = self.resolved.pop_first()
        {
            self.forget(oldest, dirty);
        }
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, id: ExceptionId, exception: Exception) -> bool {
        match &exception.resolution {
            Some(resolution) => {
                if self.resolved.insert(resolution.number, id).is_some() {
                    return false;
                }
            }
            None if exception.counting => self.open_counting = self.open_counting.saturating_add(1),
            None => self.open_single = self.open_single.saturating_add(1),
        }
        self.all.insert(id, exception).is_none()
    }

    fn insert(
        &mut self,
        id: ExceptionId,
        code: &str,
        pointer: &str,
        origin: Origin<'_>,
        counting: bool,
        dirty: &mut Dirty,
    ) {
        self.number = self.number.saturating_add(1);
        let exception = Exception {
            code: Word::of(&cut(code, TEXT_BYTES_MAX)),
            key: origin.key,
            identity: origin.identity.map(|text| cut(text, TEXT_BYTES_MAX)),
            pointer: cut(pointer, TEXT_BYTES_MAX),
            correlation_id: origin.correlation_id.map(|text| cut(text, TEXT_BYTES_MAX)),
            first_seen: origin.at,
            number: self.number,
            count: 1,
            counting,
            resolution: None,
        };
        self.all.insert(id, exception);
        dirty.mark(&RowKey::Exception(id));
    }

    fn forget(&mut self, id: ExceptionId, dirty: &mut Dirty) {
        if let Some(exception) = self.all.remove(&id) {
            if let Some(resolution) = exception.resolution {
                self.resolved.remove(&resolution.number);
            }
            if self.handled.remove(&id).is_some() {
                dirty.mark(&RowKey::Handled(id));
            }
            dirty.mark(&RowKey::Exception(id));
        }
    }
}
