//! The findings that a record can be flagged with: class, owner, severity, and a sentence for a store manager.

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

/// The findings of this version.
pub const FINDINGS: &[Finding] = &[];

/// What is known of `code`; `None` for one of a later version.
pub fn finding(code: &str) -> Option<&'static Finding> {
    FINDINGS.iter().find(|finding| finding.code == code)
}
