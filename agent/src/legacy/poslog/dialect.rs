//! Dialects of `POSLog`: how a system fills what the standard leaves open, as data.
//!
//! Invariant: a dialect decides nothing by itself; each setting is one question that real files answer differently, and a new dialect is a
//! base with other answers.

use jiff::civil;
use jiff::tz::TimeZone;

/// What a line with `VoidFlag` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidSign {
    /// It is the voided line itself, and counts nowhere.
    Flagged,
    /// It is a second line with negative amount, which takes back an earlier one (NCR).
    Negative,
    /// It is a second line with positive amount, which takes back an earlier one (Diebold Nixdorf).
    Positive,
}

/// Where the change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A tender of its own with negative amount; the `TenderChange` in it says the same again (NCR).
    Tender,
    /// `TenderChange` in the tender that was too much, whose amount is what was handed over.
    Nested,
}

/// How amounts of what comes back are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnSign {
    /// As we write them: below zero.
    Negative,
    /// Above zero (Futura).
    Positive,
}

/// Which of the two forms of a reward counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewards {
    /// None: extended amounts are after rewards.
    None,
    /// Those with `detailedData` (NCR; `summarizedActivity` says them again).
    Detailed,
}

/// A dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Its name; that of the profile.
    pub name: String,
    /// `void=flagged|negative|positive`
    pub void: VoidSign,
    /// `change=tender|nested`
    pub change: Change,
    /// `return=negative|positive`
    pub returns: ReturnSign,
    /// `tax=included|added`: whether extended amounts hold the tax.
    pub tax_included: bool,
    /// `rewards=none|detailed`
    pub rewards: Rewards,
    /// `zone=store`, or an IANA name: where times without offset resolve.
    pub zone: Option<TimeZone>,
    /// `gross=TransactionGrandAmount`: the `TotalType` that lines and taxes make.
    pub gross: String,
    /// `weight_unit=KGM`: the unit of a quantity that is a weight and names none.
    pub weight_unit: String,
    /// `store=9`: the `RetailStoreID` or `UnitID` of this store; a transaction of another is refused. Without it, any is taken.
    pub store: Option<String>,
}

/// NCR ACS `POSLog` 2.1. Times are local; US stores weigh in pounds.
pub fn ncr() -> Dialect {
    Dialect {
        name: "ncr-2.1".to_owned(),
        void: VoidSign::Negative,
        change: Change::Tender,
        returns: ReturnSign::Negative,
        tax_included: false,
        rewards: Rewards::Detailed,
        zone: None,
        gross: "TransactionGrandAmount".to_owned(),
        weight_unit: "LBR".to_owned(),
        store: None,
    }
}

/// ARTS `POSLog` 6 as the standard has it.
pub fn poslog_6() -> Dialect {
    Dialect {
        name: "poslog-6".to_owned(),
        void: VoidSign::Flagged,
        change: Change::Nested,
        rewards: Rewards::None,
        weight_unit: "KGM".to_owned(),
        ..ncr()
    }
}

/// The dialect of that name.
pub fn find(name: &str, configured: &[Dialect]) -> Option<Dialect> {
    match name {
        "ncr-2.1" => Some(ncr()),
        "poslog-6" => Some(poslog_6()),
        name => configured.iter().find(|dialect| dialect.name == name).cloned(),
    }
}

impl Dialect {
    /// Reads `name = base setting=value …`; a base is built in or among `known`.
    pub fn read(line: &str, known: &[Self]) -> Result<Self, String> {
        const EXPECTED: &str =
            "write `name = base setting=value`, such as \"xstore = poslog-6 change=nested zone=UTC\"";
        let (name, rest) = line.split_once('=').ok_or(EXPECTED)?;
        let name = name.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err("a dialect's name has 1 to 64 letters, digits, '-', '_' or '.'".to_owned());
        }
        let mut words = rest.split_whitespace();
        let base = words.next().ok_or(EXPECTED)?;
        let mut dialect =
            find(base, known).ok_or("a dialect starts from ncr-2.1, poslog-6, or one that stands before it")?;
        name.clone_into(&mut dialect.name);
        for word in words {
            let (setting, value) = word.split_once('=').ok_or(EXPECTED)?;
            dialect.set(setting, value)?;
        }
        Ok(dialect)
    }

    fn set(&mut self, setting: &str, value: &str) -> Result<(), String> {
        match (setting, value) {
            ("void", "flagged") => self.void = VoidSign::Flagged,
            ("void", "negative") => self.void = VoidSign::Negative,
            ("void", "positive") => self.void = VoidSign::Positive,
            ("change", "tender") => self.change = Change::Tender,
            ("change", "nested") => self.change = Change::Nested,
            ("return", "negative") => self.returns = ReturnSign::Negative,
            ("return", "positive") => self.returns = ReturnSign::Positive,
            ("tax", "included") => self.tax_included = true,
            ("tax", "added") => self.tax_included = false,
            ("rewards", "none") => self.rewards = Rewards::None,
            ("rewards", "detailed") => self.rewards = Rewards::Detailed,
            ("zone", "store") => self.zone = None,
            ("zone", name) => {
                let zone = TimeZone::get(name).map_err(|_| "`zone` is `store` or an IANA time zone".to_owned());
                self.zone = Some(zone?);
            }
            ("gross", name) => name.clone_into(&mut self.gross),
            ("weight_unit", unit) => unit.clone_into(&mut self.weight_unit),
            ("store", store) => self.store = Some(store.to_owned()),
            _ => {
                return Err(format!(
                    "`{setting}` has no such value; settings are void=flagged|negative|positive, change=tender|nested, \
                     return=negative|positive, tax=included|added, rewards=none|detailed, zone=store|IANA, gross, weight_unit, store"
                ));
            }
        }
        Ok(())
    }

    /// A time of the dialect as our documents have it: with the offset of the dialect's zone where it has none and one is set.
    pub(super) fn time(&self, text: &str) -> String {
        let resolved = self.zone.as_ref().and_then(|zone| {
            if text.parse::<jiff::Timestamp>().is_ok() {
                return None;
            }
            let local: civil::DateTime = text.parse().ok()?;
            let zoned = local.to_zoned(zone.clone()).ok()?;
            Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
        });
        resolved.unwrap_or_else(|| text.to_owned())
    }
}
