//! Fields that documents of several kinds have, with one name and one meaning.

use super::schema::{Field, Type, identity, optional, required};

pub(crate) const DOCUMENT_ID: Field = identity(
    "document_id",
    Type::Identifier,
    "Names the document; unique per store. On a single post the header Idempotency-Key says the same.",
);
pub(crate) const STORE_ID: Field =
    optional("store_id", Type::Identifier, "Comes from configuration; where it is given, it must match.");
pub(crate) const END_DATE_TIME: Field =
    required("end_date_time", Type::DateTime, "When. A time without offset is taken in the store's time zone.");
pub(crate) const BUSINESS_DAY_DATE: Field =
    optional("business_day_date", Type::Date, "The business day; derived from end_date_time where it is missing.");
pub(crate) const CUSTOMER_ID: Field =
    optional("customer_id", Type::Identifier, "The customer; a pseudonym, not a name.");
pub(crate) const CORRELATION_ID: Field =
    optional("correlation_id", Type::Identifier, "Ties records of one business process together.");
pub(crate) const TRACEPARENT: Field =
    optional("traceparent", Type::TraceParent, "W3C trace context; no part of the content digest.");
pub(crate) const FISCAL_EVIDENCE: Field =
    optional("fiscal_evidence", Type::Opaque, "Signatures and counters of a fiscal device, carried untouched.");
pub(crate) const ATTRIBUTES: Field = optional("attributes", Type::Attributes, "Texts by name, carried untouched.");
