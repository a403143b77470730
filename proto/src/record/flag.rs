//! The findings that a record can be flagged with: class, owner, severity, and a sentence for a store manager.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Flag;
use crate::limits::{FLAGS_KEPT, FLAGS_MAX};

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

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong by itself.
    Info,
    /// Somebody should look.
    Warning,
    /// Money, goods or records may be wrong until somebody has looked.
    Error,
}

impl Severity {
    /// As answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a person did about an exception, as an `exception_change` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Change {
    /// Somebody looks after it; it stays open.
    Acknowledged,
    /// It needs nobody any more.
    Resolved,
    /// Nothing is done about it, on purpose.
    Waived,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Acknowledged, Self::Resolved, Self::Waived];

    /// As documents and answers show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Waived => "waived",
        }
    }

    /// The change of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.as_str() == name)
    }

    /// Whether the exception needs nobody any more.
    pub const fn ends(self) -> bool {
        !matches!(self, Self::Acknowledged)
    }
}

/// What is known of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, in capitals.
    pub code: &'static str,
    /// Business or technical.
    pub class: Class,
    /// How much it matters.
    pub severity: Severity,
    /// The queue of those who deal with it.
    pub owner: &'static str,
    /// A sentence that a store manager understands.
    pub sentence: &'static str,
}

macro_rules! findings {
    ($($code:ident: $class:ident, $severity:ident, $owner:literal, $sentence:literal;)*) => {
        $(
            #[doc = $sentence]
            pub const $code: &str = stringify!($code);
        )*

        /// The findings of this version.
        pub const FINDINGS: &[Finding] = &[$(
            Finding {
                code: $code,
                class: Class::$class,
                severity: Severity::$severity,
                owner: $owner,
                sentence: $sentence,
            }
        ),*];
    };
}

findings! {
    TOTALS_MISMATCH: Business, Error, "store_finance",
        "The lines of this receipt do not add up to its total; compare it with the till's printout.";
    TAX_MISMATCH: Business, Warning, "store_finance",
        "A tax on this receipt is not what its rate makes of the amount that it is on, or the taxes of the lines are not the total.";
    TAX_BASIS_MIXED: Business, Warning, "store_finance",
        "One tax is contained in the price on one line of this receipt and added to it on another.";
    LINE_AMOUNT_MISMATCH: Business, Warning, "store_finance",
        "On one line of this receipt, quantity times price is not the amount that was charged.";
    TENDER_MISMATCH: Business, Error, "store_finance",
        "What was paid is not what the receipt asks for.";
    PAYMENT_UNKNOWN: Business, Error, "store_finance",
        "Goods went out and nobody knows yet whether a payment went through; ask the payment provider.";
    ROUNDING_UNEXPECTED: Business, Warning, "store_finance",
        "This receipt was rounded although nobody paid in cash, or by more than the smallest coin.";
    SIGN_MISMATCH: Business, Warning, "store_finance",
        "A return counts like a sale, or the other way round: a sign of a quantity or amount is wrong.";
    TYPE_MISMATCH: Business, Warning, "store_finance",
        "A receipt that calls itself a sale takes goods back, or one that calls itself a return sells some.";
    EMPTY_TRANSACTION: Business, Warning, "store_finance",
        "A finished receipt has nothing on it.";
    VOID_UNLINKED: Business, Warning, "store_finance",
        "A receipt was reversed, and nobody said which one.";
    NEGATIVE_PRICE: Business, Warning, "store_finance",
        "An item was sold at a price below zero.";
    UNIT_UNKNOWN: Business, Warning, "master_data",
        "An item was moved in a unit that nobody knows; its stock is kept apart until the unit is known.";
    GTIN_CHECK_DIGIT: Business, Warning, "master_data",
        "The article number of a line has a wrong check digit; it was probably mistyped.";
    OVER_RETURN: Business, Warning, "store_finance",
        "More was returned than had been sold on the receipt that the return names.";
    UNLINKED_RETURN: Business, Info, "store_finance",
        "Goods were taken back without the receipt on which they had been sold.";
    OVER_FULFILLED: Business, Warning, "order_desk",
        "More of an order line was handed out or canceled than had been ordered.";
    FULFILLMENT_AFTER_END: Business, Warning, "order_desk",
        "An order line moved on although all of it had been handed out or canceled before.";
    SUBSTITUTION_WITHOUT_CONSENT: Business, Warning, "order_desk",
        "A customer was given another article than the one ordered, and did not agree to it.";
    PICKUP_STALE: Business, Warning, "order_desk",
        "Goods of an order lie ready, and nobody has collected them in time.";
    DRAWER_DIFFERENCE: Business, Warning, "store_finance",
        "The money counted in a till is not what its receipts and cash movements make.";
    LATE_AFTER_CLOSE: Business, Warning, "store_finance",
        "This came after the totals of its day had been closed; the day has to be judged again.";
    IDENTITY_CONFLICT: Business, Error, "store_finance",
        "The till sent two different receipts under one number; both are kept, the first one counts.";
    NUMBER_DOUBLED: Business, Warning, "store_finance",
        "A till used one receipt number for two receipts; both count, so one of them may be there twice.";
    SEQUENCE_GAP: Business, Warning, "store_finance",
        "Receipt numbers of a till are missing; the receipts may be lost, or were never printed.";
    TIME_AMBIGUOUS: Business, Info, "store_systems",
        "The time of sale falls into the hour of a clock change and was taken as the earlier one.";
    PAN_MASKED: Technical, Warning, "security",
        "A card number stood in a text and was masked before it was stored; the till must not send it.";
    UNKNOWN_KIND: Technical, Warning, "hub_operations",
        "A record of a kind that this software does not know was kept; the software has to be updated.";
    UNREADABLE_RECORD: Technical, Error, "hub_operations",
        "A record was kept that this software cannot read.";
    JOURNAL_DAMAGE: Technical, Error, "store_systems",
        "Stored records of this box were damaged; the range that is gone is named, compare it with the tills.";
    TAIL_CUT: Technical, Info, "store_systems",
        "After a power cut or crash, unfinished bytes were cut off; no till had been told that they were safe.";
    GONE: Technical, Error, "hub_operations",
        "A box cannot deliver a range of its records any more, and says why.";
    FORK: Technical, Error, "hub_operations",
        "A box sent two different records under one number; both are kept.";
    CHAIN_MISMATCH: Technical, Error, "hub_operations",
        "The records received from a box do not match what the box says it recorded.";
    CONTROL_TOTALS_BROKEN: Technical, Error, "security",
        "The signed totals of a close were changed, do not follow the ones before, or are signed by another box's key.";
    CLONE: Technical, Error, "hub_operations",
        "Two boxes run under one name, probably from one copied disk; one of them has to be renamed.";
    ROLLBACK: Technical, Warning, "hub_operations",
        "A box was set back to an earlier copy of its disk; nothing is lost, but somebody should know why.";
    CERTIFICATE_EXPIRED: Technical, Error, "store_systems",
        "The certificate by which head office knows this box has expired; sales are kept here, and the box keeps asking for a new one.";
    IDENTITY_REVOKED: Technical, Error, "store_systems",
        "Head office has revoked the identity of this box and takes nothing from it; sales are kept here until it is enrolled again.";
    DOCUMENTS_REFUSED: Technical, Error, "store_systems",
        "A till sends documents that cannot be read or identified; they were refused and are not recorded.";
}

/// The findings about one document. A code opens one exception, at the first place where it was found; what is told line by line is
/// counted in it.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<Flag>);

impl Flags {
    pub(crate) fn raise(&mut self, code: &'static str, pointer: impl FnOnce() -> String) {
        if self.0.len() < FLAGS_MAX && !self.0.iter().any(|flag| flag.code == code) {
            self.0.push(Flag { code: Cow::Borrowed(code), pointer: pointer() });
        }
    }

    /// A finding that counts at every place.
    pub(crate) fn raise_each(&mut self, code: &'static str, pointer: impl FnOnce() -> String) {
        if self.0.len().saturating_add(FLAGS_KEPT) < FLAGS_MAX {
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
    fn what_is_told_line_by_line_leaves_room_for_the_rest() {
        let mut flags = Flags::default();
        for _ in 0..2 * FLAGS_MAX {
            flags.raise_each(UNLINKED_RETURN, String::new);
        }
        flags.raise(PAN_MASKED, String::new);
        let flags = flags.into_flags();
        assert_eq!(flags.len(), FLAGS_MAX - FLAGS_KEPT + 1);
        assert!(flags.iter().any(|flag| flag.code == PAN_MASKED));
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
