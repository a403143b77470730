//! Documents of other systems: what they say, in our own documents.
//!
//! ```text
//! foreign bytes -> profile -> tree (serde_json) -> mapping -> our document -> record::prepare, as if it had been posted
//! ```
//!
//! **A new `POSLog` dialect in an afternoon.** Take a day's file of the system. Write one line of `ingest.dialects` that starts from
//! the nearest built-in, `xstore = poslog-6 change=nested zone=UTC` (settings: [`poslog::dialect::Dialect`]), post the file to
//! `/v1/ingest/xstore`, and look at two things in the answer: a flag `TOTALS_MISMATCH` or `TENDER_MISMATCH` means that a sign or
//! the kind of total is not set right, because lines, taxes, gross and tenders of an honest file agree; `not mapped:` names what this
//! module does not carry. A dialect that proves itself becomes a constant in `poslog/dialect.rs` with a file in its test.
//!
//! **A new JSON profile** is a table like [`shopify::SHAPES`]: the names that its objects stand under, each with one function. It reads
//! through [`Fields`], which remembers what was asked for, and gives back our documents; give the table a name in [`Profiles::find`]. What
//! nobody asked for is named in the receipt by itself.
//!
//! Invariants: mapping is pure, and a foreign field is either mapped or named as not mapped. A fault says where, never what.
//! Equal source gives an equal document, so that sending again is safe; the source's digest (BLAKE3 of its bytes) and the profile stand in
//! the document's `attributes`; of an order, which lives on and is sent again whenever something comes to it, the profile alone. Over HTTP the source itself is not kept: whoever sent it has it, and the digest proves which it was. Of a
//! spooled file it is kept, card numbers masked ([`spool`]). Names, signatures, addresses and loyalty accounts are not mapped on purpose.
//!
//! Deliberately not known here: HTTP, and what our documents are judged by.

use counterfoil_proto::id::Digest;
use counterfoil_proto::record::{Context, Fault, Kind, Prepared, Refusal, mask_cards, prepare};
use serde_json::{Map, Value};

mod fields;
mod json;
pub mod poslog;
pub mod shopify;
pub mod spool;
pub mod square;

pub use fields::Fields;
pub use json::{Document, Shape};

/// Names of fields that are not mapped, of one document; further ones are counted.
pub const NOT_MAPPED_MAX: usize = 128;

/// Characters of one such name; the rest is cut.
const NAME_CHARS_MAX: usize = 160;

/// Characters of an identity; the model's bound.
const IDENTITY_CHARS_MAX: usize = 64;

/// A document of ours that a foreign one was mapped to.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// What it tells of.
    pub kind: Kind,
    /// Its fields.
    pub document: Map<String, Value>,
    /// What in its source is not mapped, and what was odd.
    pub warnings: Vec<String>,
}

impl Mapped {
    /// Reads, checks and judges it as if it had been posted.
    pub fn prepare(self, context: &Context) -> Result<Prepared, Refusal> {
        let text = Value::Object(self.document).to_string();
        let mut prepared = prepare(self.kind, text.as_bytes(), None, context)?;
        prepared.warnings.extend(self.warnings);
        Ok(prepared)
    }
}

/// What a source is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/xml` or `text/xml`.
    Xml,
}

/// How the documents of one system are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Orders, stock and cash drawers of Square.
    Square,
    /// Orders, refunds, fulfillments and stock of Shopify.
    Shopify,
    /// `POSLog` in a dialect.
    Poslog(poslog::dialect::Dialect),
}

impl Profile {
    /// What its sources are made of.
    pub const fn form(&self) -> Form {
        match self {
            Self::Square | Self::Shopify => Form::Json,
            Self::Poslog(_) => Form::Xml,
        }
    }

    /// Maps a whole source. What cannot be mapped stands in its place among the others; a source that cannot be read gives what came
    /// before, and its refusal last.
    pub fn map(&self, source: &[u8]) -> Vec<Result<Mapped, Refusal>> {
        match self {
            Self::Square => json::map(source, "square", square::SHAPES),
            Self::Shopify => json::map(source, "shopify", shopify::SHAPES),
            Self::Poslog(dialect) => {
                let read = |read: Result<poslog::Transaction, Refusal>| match read {
                    Ok(one) => poslog::map(&one, dialect),
                    Err(refusal) => vec![Err(refusal)],
                };
                poslog::Transactions::new(source).flat_map(read).collect()
            }
        }
    }
}

/// The profiles that there are: the built-in ones and those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    configured: Vec<poslog::dialect::Dialect>,
}

impl Profiles {
    /// Reads `ingest.dialects`, each `name = base setting=value …`.
    pub fn read(lines: &[String]) -> Result<Self, String> {
        let mut profiles = Self::default();
        for line in lines {
            let dialect = poslog::dialect::Dialect::read(line, &profiles.configured)?;
            if profiles.find(&dialect.name).is_some() {
                return Err(format!("the profile `{}` exists already", dialect.name));
            }
            profiles.configured.push(dialect);
        }
        Ok(profiles)
    }

    /// The profile of that name.
    pub fn find(&self, name: &str) -> Option<Profile> {
        match name {
            "square" => Some(Profile::Square),
            "shopify" => Some(Profile::Shopify),
            name => poslog::dialect::find(name, &self.configured).map(Profile::Poslog),
        }
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        let configured = self.configured.iter().map(|dialect| dialect.name.as_str());
        ["square", "shopify", "ncr-2.1", "poslog-6"].into_iter().chain(configured).collect()
    }
}

/// Puts digest and profile into the documents, and names what was not mapped; or refuses with every fault.
fn finish(
    fields: &Fields<'_>,
    documents: Vec<Document>,
    text: Option<&[u8]>,
    profile: &str,
) -> Vec<Result<Mapped, Refusal>> {
    let faults = fields.faults();
    if !faults.is_empty() {
        return vec![Err(Refusal::Invalid(faults))];
    }
    let mut warnings = not_mapped(fields);
    let digest = text.map(|text| Digest::of(text).to_string());
    let documents = documents.into_iter().map(|(kind, mut document)| {
        let attributes = document.entry("attributes").or_insert_with(|| Value::Object(Map::new()));
        if let Some(attributes) = attributes.as_object_mut() {
            attributes.insert("source_profile".to_owned(), profile.into());
            if let Some(digest) = &digest {
                attributes.insert("source_digest".to_owned(), digest.clone().into());
            }
        }
        // Said once, with the first document of the source.
        Ok(Mapped { kind, document, warnings: std::mem::take(&mut warnings) })
    });
    documents.collect()
}

fn not_mapped(fields: &Fields<'_>) -> Vec<String> {
    let names = fields.not_mapped();
    let beyond = names.len().saturating_sub(NOT_MAPPED_MAX);
    let said = |name: &String| format!("not mapped: {}", printable(name));
    let mut warnings: Vec<String> = names.iter().take(NOT_MAPPED_MAX).map(said).collect();
    if beyond > 0 {
        warnings.push(format!("not mapped: {beyond} more fields"));
    }
    warnings
}

/// A name as it may be said: it is foreign text as well.
fn printable(name: &str) -> String {
    let name = mask_cards(name, true).unwrap_or_else(|| name.to_owned());
    name.chars().filter(|character| !character.is_control()).take(NAME_CHARS_MAX).collect()
}

/// An identity out of a system's names: as it is, or by its digest where it would be too long for ours.
fn identity(parts: &[&str]) -> String {
    let whole = parts.join("-");
    if whole.chars().count() <= IDENTITY_CHARS_MAX {
        return whole;
    }
    let digest = Digest::of(whole.as_bytes()).to_string();
    let head: String = whole.chars().take(IDENTITY_CHARS_MAX - 33).collect();
    format!("{head}-{}", digest.get(..32).unwrap_or(&digest))
}

/// An object of ours; a null in it is a field that the source does not have.
fn object(value: Value) -> Map<String, Value> {
    let Value::Object(mut members) = value else { return Map::new() };
    members.retain(|_, value| !value.is_null());
    members
}

fn fault(pointer: impl Into<String>, problem: &'static str, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), problem, detail: detail.into() }
}

#[cfg(test)]
mod tests;
