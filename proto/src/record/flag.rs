//! The findings that a record can be flagged with: class, owner, severity, and a sentence for a store manager.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::Flag;
use crate::limits::FLAGS_MAX;

/// Who has to look: the business or the people who run the systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A document tells something that does not add up.
    Business,
    /// A system did not do what it should.
    Technical,
}

impl Class {
    /// As answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Business => "business",
            Self::Technical => "technical",
        }
    }
}

/// What is known of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, in capitals.
    pub code: &'static str,
    /// Business or technical.
    pub class: Class,
    /// The queue of those who deal with it.
    pub owner: &'static str,
    /// A sentence that a store manager understands.
    pub sentence: &'static str,
}

/// The lines of this receipt do not add up to its total; compare it with the till's printout.
pub const TOTALS_MISMATCH: &str = "TOTALS_MISMATCH";
/// On one line of this receipt, quantity times price is not the amount that was charged.
pub const LINE_AMOUNT_MISMATCH: &str = "LINE_AMOUNT_MISMATCH";
/// What was paid is not what the receipt asks for.
pub const TENDER_MISMATCH: &str = "TENDER_MISMATCH";
/// Goods went out and nobody knows yet whether a payment went through; ask the payment provider.
pub const TENDER_UNKNOWN: &str = "TENDER_UNKNOWN";
/// A return counts like a sale, or the other way round: a sign of a quantity or amount is wrong.
pub const SIGN_MISMATCH: &str = "SIGN_MISMATCH";
/// An item was sold at a price below zero.
pub const NEGATIVE_PRICE: &str = "NEGATIVE_PRICE";
/// An item was moved in a unit that nobody knows; its stock is kept apart until the unit is known.
pub const UNIT_UNKNOWN: &str = "UNIT_UNKNOWN";
/// More was returned than had been sold on the receipt that the return names.
pub const OVER_RETURN: &str = "OVER_RETURN";
/// This came after the totals of its day had been closed; the day has to be judged again.
pub const LATE_AFTER_CLOSE: &str = "LATE_AFTER_CLOSE";
/// The till sent two different receipts under one number; both are kept, the first one counts.
pub const IDENTITY_CONFLICT: &str = "IDENTITY_CONFLICT";
/// The time of sale falls into the hour of a clock change and was taken as the earlier one.
pub const TIME_AMBIGUOUS: &str = "TIME_AMBIGUOUS";
/// A card number stood in a text and was masked before it was stored; the till must not send it.
pub const PAN_MASKED: &str = "PAN_MASKED";
/// A record of a kind that this software does not know was kept; the software has to be updated.
pub const UNKNOWN_KIND: &str = "UNKNOWN_KIND";
/// A record was kept that this software cannot read.
pub const UNREADABLE_RECORD: &str = "UNREADABLE_RECORD";
/// Stored records of this box were damaged; the range that is gone is named, compare it with the tills.
pub const JOURNAL_DAMAGE: &str = "JOURNAL_DAMAGE";
/// After a power cut or crash, unfinished bytes were cut off; no till had been told that they were safe.
pub const TAIL_CUT: &str = "TAIL_CUT";
/// A box cannot deliver a range of its records any more, and says why.
pub const GONE: &str = "GONE";
/// A box sent two different records under one number; both are kept.
pub const FORK: &str = "FORK";
/// The records received from a box do not match what the box says it recorded.
pub const CHAIN_MISMATCH: &str = "CHAIN_MISMATCH";
/// Two boxes run under one name, probably from one copied disk; one of them has to be renamed.
pub const CLONE: &str = "CLONE";
/// A box was set back to an earlier copy of its disk; nothing is lost, but somebody should know why.
pub const ROLLBACK: &str = "ROLLBACK";
/// A till sends documents that cannot be read or identified; they were refused and are not recorded.
pub const DOCUMENTS_REFUSED: &str = "DOCUMENTS_REFUSED";

/// The findings of this version.
pub const FINDINGS: &[Finding] = &[
    business(
        TOTALS_MISMATCH,
        "store_finance",
        "The lines of this receipt do not add up to its total; compare it with the till's printout.",
    ),
    business(
        LINE_AMOUNT_MISMATCH,
        "store_finance",
        "On one line of this receipt, quantity times price is not the amount that was charged.",
    ),
    business(TENDER_MISMATCH, "store_finance", "What was paid is not what the receipt asks for."),
    business(
        TENDER_UNKNOWN,
        "store_finance",
        "Goods went out and nobody knows yet whether a payment went through; ask the payment provider.",
    ),
    business(
        SIGN_MISMATCH,
        "store_finance",
        "A return counts like a sale, or the other way round: a sign of a quantity or amount is wrong.",
    ),
    business(NEGATIVE_PRICE, "store_finance", "An item was sold at a price below zero."),
    business(
        UNIT_UNKNOWN,
        "master_data",
        "An item was moved in a unit that nobody knows; its stock is kept apart until the unit is known.",
    ),
    business(
        OVER_RETURN,
        "store_finance",
        "More was returned than had been sold on the receipt that the return names.",
    ),
    business(
        LATE_AFTER_CLOSE,
        "store_finance",
        "This came after the totals of its day had been closed; the day has to be judged again.",
    ),
    business(
        IDENTITY_CONFLICT,
        "store_finance",
        "The till sent two different receipts under one number; both are kept, the first one counts.",
    ),
    business(
        TIME_AMBIGUOUS,
        "store_systems",
        "The time of sale falls into the hour of a clock change and was taken as the earlier one.",
    ),
    technical(
        PAN_MASKED,
        "security",
        "A card number stood in a text and was masked before it was stored; the till must not send it.",
    ),
    technical(
        UNKNOWN_KIND,
        "hub_operations",
        "A record of a kind that this software does not know was kept; the software has to be updated.",
    ),
    technical(UNREADABLE_RECORD, "hub_operations", "A record was kept that this software cannot read."),
    technical(
        JOURNAL_DAMAGE,
        "store_systems",
        "Stored records of this box were damaged; the range that is gone is named, compare it with the tills.",
    ),
    technical(
        TAIL_CUT,
        "store_systems",
        "After a power cut or crash, unfinished bytes were cut off; no till had been told that they were safe.",
    ),
    technical(GONE, "hub_operations", "A box cannot deliver a range of its records any more, and says why."),
    technical(FORK, "hub_operations", "A box sent two different records under one number; both are kept."),
    technical(
        CHAIN_MISMATCH,
        "hub_operations",
        "The records received from a box do not match what the box says it recorded.",
    ),
    technical(
        CLONE,
        "hub_operations",
        "Two boxes run under one name, probably from one copied disk; one of them has to be renamed.",
    ),
    technical(
        ROLLBACK,
        "hub_operations",
        "A box was set back to an earlier copy of its disk; nothing is lost, but somebody should know why.",
    ),
    technical(
        DOCUMENTS_REFUSED,
        "store_systems",
        "A till sends documents that cannot be read or identified; they were refused and are not recorded.",
    ),
];

const fn business(code: &'static str, owner: &'static str, sentence: &'static str) -> Finding {
    Finding { code, class: Class::Business, owner, sentence }
}

const fn technical(code: &'static str, owner: &'static str, sentence: &'static str) -> Finding {
    Finding { code, class: Class::Technical, owner, sentence }
}

/// The findings about one document, one of each code: a code opens one exception, at the first place where it was found.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<Flag>);

impl Flags {
    pub(crate) fn raise(&mut self, code: &'static str, pointer: impl FnOnce() -> String) {
        if self.0.len() < FLAGS_MAX && !self.0.iter().any(|flag| flag.code == code) {
            self.0.push(Flag { code: Cow::Borrowed(code), pointer: pointer() });
        }
    }

    pub(crate) fn into_flags(self) -> Vec<Flag> {
        self.0
    }
}

/// What is known of `code`; `None` for one of a later version.
pub fn finding(code: &str) -> Option<&'static Finding> {
    FINDINGS.iter().find(|finding| finding.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_flagged_once_where_it_was_found_first() {
        let mut flags = Flags::default();
        flags.raise(UNIT_UNKNOWN, || "/line_items/0/unit".into());
        flags.raise(UNIT_UNKNOWN, || "/line_items/1/unit".into());
        flags.raise(PAN_MASKED, String::new);
        let flags = flags.into_flags();
        assert_eq!(flags.len(), 2);
        assert_eq!(flags.first().map(|flag| flag.pointer.as_str()), Some("/line_items/0/unit"));
    }

    #[test]
    fn every_finding_is_known_by_its_code_once() {
        for found in FINDINGS {
            assert_eq!(finding(found.code), Some(found));
            assert!(found.sentence.ends_with('.') && !found.owner.is_empty());
        }
        assert_eq!(finding("NEW_IN_A_LATER_VERSION"), None);
    }
}
