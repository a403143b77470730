//! From submitted bytes to a document that is ready to be appended: read, checked, masked, digested, judged.
//!
//! Invariant: what comes out of [`prepare`] holds no card number, and everything that was decided about the document stands in its
//! envelope, so that replay never judges again. It parses once.
//!
//! It deliberately does not know the agent's state: duplicates, conflicts and closed days are the appender's to find.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::card::{self, CardRule};
use super::facts::{self, Facts, FactsError, Typed};
use super::flag::{self, Flags};
use super::inspect::{self, FAULTS_MAX, Inspection, is_trace_parent};
use super::json::{self, Node, ParseError};
use super::mask;
use super::read::Fields;
use super::schema::{self, Table};
use super::when::{self, Occurred};
use super::{Context, Envelope, Fault, Kind, Prepared, Refusal};
use crate::id::Digest;
use crate::limits::{DOCUMENT_BYTES_MAX, IDENTIFIER_CHARS_MAX};

/// Reads, checks and judges one submitted document.
///
/// `idempotency_key` is the header of that name on a single post; it says the same as `document_id`, and stands for it where the
/// document has none. The stored text is what was submitted, surrounding blanks aside; only where a card number had to be masked is it
/// written anew, its fields in the same order.
pub fn prepare(
    kind: Kind,
    document: &[u8],
    idempotency_key: Option<&str>,
    context: &Context,
) -> Result<Prepared, Refusal> {
    let document = document.trim_ascii();
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(format!("A document has at most {DOCUMENT_BYTES_MAX} bytes")));
    }
    let mut root = parse(document)?;
    let table = schema::table_of(kind).ok_or_else(|| {
        Refusal::Invalid(vec![fault("", "unsupported-kind", "Documents of this kind are not taken by this version")])
    })?;
    let (rule, mut inspection) = inspect_with_rule(&root, table, context);
    let mut checks = Checks { root: &root, rule: &rule, context, faults: &mut inspection.faults };
    checks.store();
    let document_id = checks.document_id(kind, idempotency_key);
    let occurred = checks.occurred();
    let (Some(occurred), true) = (occurred, inspection.faults.is_empty()) else {
        return Err(Refusal::Invalid(inspection.faults));
    };
    let mut flags = Flags::default();
    let text = if inspection.cards {
        let pointer = mask::mask(&mut root, table, &rule);
        flags.raise(flag::PAN_MASKED, || pointer);
        rewrite(&root, table, &rule, &mut inspection)?
    } else {
        document.to_vec()
    };
    if occurred.ambiguous {
        flags.raise(flag::TIME_AMBIGUOUS, || "/end_date_time".into());
    }
    let mut envelope = envelope(Fields(&root), occurred, document.len(), context, kind, &mut inspection.warnings);
    identify(kind, Fields(&root), document_id, &mut envelope);
    let facts = judge(kind, &root, &envelope, &mut flags)?;
    envelope.flags = flags.into_flags();
    Ok(Prepared { kind, envelope, document: text, warnings: inspection.warnings, facts })
}

/// The identity of a transaction without `document_id`, and the alias of one that has it.
pub fn identity_of_transaction(
    workstation_id: &str,
    business_day_date: &str,
    sequence_number: u64,
    sequence_epoch: u64,
) -> String {
    format!("t/{workstation_id}/{business_day_date}/{sequence_number}/{sequence_epoch}")
}

/// The identity of a document that has a `document_id`, of whatever kind.
pub fn identity_of_document(document_id: &str) -> String {
    format!("d/{document_id}")
}

fn fault(pointer: &str, problem: &'static str, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), problem, detail: detail.into() }
}

fn too_large(detail: String) -> Refusal {
    Refusal::TooLarge(fault("", "too-large", detail))
}

fn parse(document: &[u8]) -> Result<Node<'_>, Refusal> {
    match json::parse(document) {
        Ok(root @ Node::Object(_)) => Ok(root),
        Ok(Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_)) => {
            Err(Refusal::Unreadable(fault("", "not-an-object", "A document is a JSON object")))
        }
        Err(ParseError::NotJson(place)) => {
            Err(Refusal::Unreadable(fault("", "not-json", format!("The document is {place}"))))
        }
        Err(ParseError::TooManyValues) => {
            Err(too_large(format!("A document holds fewer than {} values", json::VALUES_MAX)))
        }
    }
}

/// Checks the document's fields. Its article numbers, which are no cards, are only gathered where there seems to be a card.
fn inspect_with_rule(root: &Node<'_>, table: &Table, context: &Context) -> (CardRule, Inspection) {
    let mut rule = CardRule { mask_13_digits: context.mask_13_digits, gtins: Vec::new() };
    let mut inspection = inspect::inspect(root, table, &rule);
    if inspection.cards || inspection.faults.iter().any(|fault| fault.problem == "card-number") {
        rule.gtins = card::gtins_of(root);
        inspection = inspect::inspect(root, table, &rule);
    }
    (rule, inspection)
}

/// The checks that bind a field to something beside it.
struct Checks<'c, 'n> {
    root: &'c Node<'n>,
    rule: &'c CardRule,
    context: &'c Context,
    faults: &'c mut Vec<Fault>,
}

impl Checks<'_, '_> {
    fn add(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn store(&mut self) {
        let stated = self.root.get("store_id").and_then(Node::as_text);
        if stated.is_some_and(|stated| stated != self.context.store_id.as_str()) {
            // The contract's word, underscore and all.
            self.add(fault("/store_id", "wrong_store", "The document is of another store than this agent"));
        }
    }

    /// The name of the document, from its field or from the header.
    fn document_id(&mut self, kind: Kind, idempotency_key: Option<&str>) -> Option<String> {
        let stated = self.root.get("document_id").and_then(Node::as_text).map(ToString::to_string);
        if let Some(key) = idempotency_key {
            self.header(key);
            if stated.as_deref().is_some_and(|stated| stated != key) {
                let detail = "The header Idempotency-Key and the field document_id must say the same";
                self.add(fault("/document_id", "idempotency-key-mismatch", detail));
            }
        }
        let is_stated_otherwise = self.root.get("document_id").is_some() || idempotency_key.is_some();
        if kind == Kind::TRANSACTION && !is_stated_otherwise && self.root.get("sequence_number").is_none() {
            let detail = "The document cannot be identified: it needs a document_id or a sequence_number";
            self.add(fault("/sequence_number", "missing-field", detail));
        } else if kind != Kind::TRANSACTION && !is_stated_otherwise {
            self.add(fault("/document_id", "missing-field", "The field document_id is missing"));
        }
        stated.or_else(|| idempotency_key.map(ToString::to_string))
    }

    fn header(&mut self, key: &str) {
        if key.is_empty() || key.chars().count() > IDENTIFIER_CHARS_MAX || key.chars().any(char::is_control) {
            let detail = format!("The header Idempotency-Key must have 1 to {IDENTIFIER_CHARS_MAX} characters");
            self.add(fault("", "invalid-identifier", detail));
        }
        if self.rule.finds(key, card::Place::Identifier) {
            self.add(fault("", "card-number", "The header Idempotency-Key looks like a card number"));
        }
    }

    fn occurred(&mut self) -> Option<Occurred> {
        let text = self.root.get("end_date_time")?.as_text()?;
        let occurred = when::resolve(text, &self.context.time_zone);
        if occurred.is_none() && !self.faults.iter().any(|fault| fault.pointer == "/end_date_time") {
            self.add(fault("/end_date_time", "invalid-date-time", "The time is out of range"));
        }
        occurred
    }
}

/// The masked document's text, checked anew so that names of unknown fields are masked in the warnings as well.
fn rewrite(root: &Node<'_>, table: &Table, rule: &CardRule, inspection: &mut Inspection) -> Result<Vec<u8>, Refusal> {
    *inspection = inspect::inspect(root, table, rule);
    let text = serde_json::to_vec(root).map_err(|_| {
        Refusal::Unreadable(fault("", "not-json", "The document cannot be written without its card number"))
    })?;
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large("The document, card numbers masked, is too large".into()));
    }
    if inspection.cards || !inspection.faults.is_empty() {
        // Cannot happen, and if it does the card number must not be stored.
        return Err(Refusal::Invalid(vec![fault(
            "",
            "card-number",
            "The document holds a card number that cannot be masked",
        )]));
    }
    Ok(text)
}

fn envelope(
    fields: Fields<'_>,
    occurred: Occurred,
    length: usize,
    context: &Context,
    kind: Kind,
    warnings: &mut Vec<String>,
) -> Envelope {
    let stated_day = fields.text("business_day_date").map(ToString::to_string);
    let business_day_derived = stated_day.is_none();
    let day = stated_day.unwrap_or_else(|| when::business_day(occurred.at, &context.time_zone, context.day_cutover));
    if business_day_derived && kind == Kind::TRANSACTION {
        warnings.push(format!("business_day_date is missing; derived from end_date_time: {day}"));
    }
    let mut canonical = Vec::with_capacity(length);
    json::canonicalise(fields.0, "traceparent", &mut canonical);
    Envelope {
        content_digest: Digest::of(&canonical),
        occurred_at: Some(occurred.wall_time()),
        business_day_date: Some(day),
        business_day_derived,
        correlation_id: fields.text("correlation_id").map(ToString::to_string),
        traceparent: fields.text("traceparent").filter(|text| is_trace_parent(text)).map(ToString::to_string),
        ..Envelope::default()
    }
}

fn identify(kind: Kind, fields: Fields<'_>, document_id: Option<String>, envelope: &mut Envelope) {
    let by_parts = || {
        let (till, number) = (fields.text("workstation_id")?, fields.integer("sequence_number")?);
        let day = envelope.business_day_date.as_deref()?;
        Some(identity_of_transaction(till, day, number, fields.integer("sequence_epoch").unwrap_or_default()))
    };
    let by_parts = if kind == Kind::TRANSACTION { by_parts() } else { None };
    match document_id {
        Some(document_id) => {
            envelope.identity = Some(identity_of_document(&document_id));
            envelope.alias = by_parts;
        }
        None => envelope.identity = by_parts,
    }
}

fn judge(kind: Kind, root: &Node<'_>, envelope: &Envelope, flags: &mut Flags) -> Result<Facts, Refusal> {
    let mut judge = |typed: Typed<'_, '_>| match typed {
        Typed::Transaction(transaction) => transaction.judge(flags),
        Typed::Movement(movement) => movement.judge(flags),
        Typed::Fulfillment(update) => update.judge(flags),
        Typed::TenderControl(control) => control.judge(flags),
    };
    facts::read(kind, Fields(root), envelope, &mut judge).map_err(|error| match error {
        // The check has seen to both; said as a fault all the same, because the text is foreign.
        FactsError::Unreadable => Refusal::Unreadable(fault("", "not-json", error.to_string())),
        FactsError::Field { field } => {
            Refusal::Invalid(vec![fault("", "invalid-value", format!("The field {field} cannot be read"))])
        }
    })
}
