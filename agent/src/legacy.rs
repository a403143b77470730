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
//! **A new JSON profile** is one function like [`square::map`]: it reads through [`Fields`], which remembers what was asked for, and gives
//! back our documents; give it a name in [`Profiles::find`]. What nobody asked for is named in the receipt by itself.
//!
//! Invariants: mapping is pure, and a foreign field is either mapped or named as not mapped. A fault says where, never what.
//! Equal source gives an equal document, so that sending again is safe; the source's digest (BLAKE3 of its bytes) and the profile stand in
//! the document's `attributes`. Over HTTP the source itself is not kept: whoever sent it has it, and the digest proves which it was. Of a
//! spooled file it is kept, card numbers masked ([`spool`]). Names, signatures, addresses and loyalty accounts are not mapped on purpose.
//!
//! Deliberately not known here: HTTP, and what our documents are judged by.

use counterfoil_proto::id::Digest;
use counterfoil_proto::record::{Context, Fault, Kind, Prepared, Refusal, mask_cards, prepare};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

mod fields;
pub mod poslog;
pub mod shopify;
pub mod spool;
pub mod square;

pub use fields::Fields;

/// Names of fields that are not mapped, of one document; further ones are counted.
pub const NOT_MAPPED_MAX: usize = 128;

/// Characters of one such name; the rest is cut.
const NAME_CHARS_MAX: usize = 160;

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
    /// Orders of Square.
    Square,
    /// Orders and fulfillments of Shopify.
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
            Self::Square => orders(source, "square", square::map),
            Self::Shopify => orders(source, "shopify", shopify::map),
            Self::Poslog(dialect) => {
                poslog::Transactions::new(source).map(|read| read.and_then(|one| poslog::map(&one, dialect))).collect()
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

/// What a mapping of one object gives: documents of ours, or every fault that keeps it from being mapped.
type Mapping = fn(&Fields<'_>) -> Vec<(Kind, Map<String, Value>)>;

/// The orders of a JSON source: one, `{"order":…}` or `{"orders":[…]}`.
fn orders(source: &[u8], profile: &str, mapping: Mapping) -> Vec<Result<Mapped, Refusal>> {
    let unreadable = |error: &serde_json::Error| {
        let detail = format!("The body is not JSON at line {}, column {}", error.line(), error.column());
        vec![Err(Refusal::Unreadable(fault("", "not-json", detail)))]
    };
    let root: Value = match serde_json::from_slice(source) {
        Ok(root) => root,
        Err(error) => return unreadable(&error),
    };
    match &root {
        Value::Object(members) if members.get("orders").is_some_and(Value::is_array) => {
            // Each order's own bytes, so that its digest does not depend on the others beside it.
            let texts: Result<Orders<'_>, _> = serde_json::from_slice(source);
            let texts = match texts {
                Ok(texts) => texts.orders,
                Err(error) => return unreadable(&error),
            };
            let one = |text: &&RawValue| match serde_json::from_str(text.get()) {
                Ok(order) => map_one(&order, text.get().as_bytes(), profile, mapping),
                Err(error) => unreadable(&error),
            };
            texts.iter().flat_map(one).collect()
        }
        Value::Object(_) => map_one(&root, source.trim_ascii(), profile, mapping),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![Err(Refusal::Unreadable(fault("", "not-an-object", "The body is no JSON object")))]
        }
    }
}

#[derive(serde::Deserialize)]
struct Orders<'a> {
    #[serde(borrow)]
    orders: Vec<&'a RawValue>,
}

fn map_one(root: &Value, text: &[u8], profile: &str, mapping: Mapping) -> Vec<Result<Mapped, Refusal>> {
    let fields = Fields::root(root);
    let documents = mapping(&fields);
    finish(&fields, documents, text, profile)
}

/// Puts digest and profile into the documents, and names what was not mapped; or refuses with every fault.
fn finish(
    fields: &Fields<'_>,
    documents: Vec<(Kind, Map<String, Value>)>,
    text: &[u8],
    profile: &str,
) -> Vec<Result<Mapped, Refusal>> {
    let faults = fields.faults();
    if !faults.is_empty() {
        return vec![Err(Refusal::Invalid(faults))];
    }
    let mut warnings = not_mapped(fields);
    let digest = Digest::of(text).to_string();
    let documents = documents.into_iter().map(|(kind, mut document)| {
        let attributes = document.entry("attributes").or_insert_with(|| json!({}));
        if let Some(attributes) = attributes.as_object_mut() {
            attributes.insert("source_profile".to_owned(), profile.into());
            attributes.insert("source_digest".to_owned(), digest.clone().into());
        }
        // Said once, with the first document of the source.
        Ok(Mapped { kind, document, warnings: std::mem::take(&mut warnings) })
    });
    documents.collect()
}

fn not_mapped(fields: &Fields<'_>) -> Vec<String> {
    let names = fields.not_mapped();
    let beyond = names.len().saturating_sub(NOT_MAPPED_MAX);
    let said = |name: &String| {
        // A name is foreign text as well.
        let name = mask_cards(name, true).unwrap_or_else(|| name.clone());
        let name: String = name.chars().filter(|character| !character.is_control()).take(NAME_CHARS_MAX).collect();
        format!("not mapped: {name}")
    };
    let mut warnings: Vec<String> = names.iter().take(NOT_MAPPED_MAX).map(said).collect();
    if beyond > 0 {
        warnings.push(format!("not mapped: {beyond} more fields"));
    }
    warnings
}

fn fault(pointer: impl Into<String>, problem: &'static str, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), problem, detail: detail.into() }
}

#[cfg(test)]
mod tests;
