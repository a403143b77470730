//! A day close: what a till, or the back office for the whole store, declares at the end of a business day.
//!
//! Invariant: the totals are kept as declared. They are compared with what was recorded by the agent and the hub, again on each later
//! arrival, so nothing is judged here.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::common::{ATTRIBUTES, CORRELATION_ID, DOCUMENT_ID, END_DATE_TIME, FISCAL_EVIDENCE, STORE_ID, TRACEPARENT};
use super::facts::{DayCloseFacts, DeclaredTotals, FactsError, TenderSum};
use super::read::Fields;
use super::schema::{Table, Type, optional, required};
use super::transaction::fold::tax_sums;
use super::transaction::{TAX, TAXES_MAX, TENDER_TYPES};
use crate::limits::TENDERS_MAX;

/// Currencies of one day close; more are refused.
pub const CURRENCIES_MAX: usize = 32;

pub(crate) static TABLE: Table = Table {
    title: "day_close",
    doc: "The end of a business day at a till, or in the whole store, with the totals that it declares.",
    fields: &[
        DOCUMENT_ID,
        STORE_ID,
        optional("workstation_id", Type::Identifier, "The till; missing where the whole store closes."),
        required("business_day_date", Type::Date, "The business day that is closed."),
        END_DATE_TIME,
        optional("operator_id", Type::Identifier, "Who closed it; a pseudonym, not a name."),
        CORRELATION_ID,
        TRACEPARENT,
        required("totals", Type::List(&DECLARED, CURRENCIES_MAX), "What is declared, per currency."),
        optional("first_sequence_number", Type::Integer, "The till's first number of the day."),
        optional("last_sequence_number", Type::Integer, "The till's last number of the day."),
        FISCAL_EVIDENCE,
        ATTRIBUTES,
    ],
};

static DECLARED: Table = Table {
    title: "declared totals",
    doc: "What is declared for one currency.",
    fields: &[
        required("currency_code", Type::Currency, "ISO 4217; the amounts beside it are in it."),
        required(
            "transactions",
            Type::Integer,
            "Number of finished sales, returns, exchanges and voids, training aside.",
        ),
        required("gross", Type::Amount, "Sum of their totals.gross."),
        optional("net", Type::Amount, "Sum of their totals.net."),
        optional("tax", Type::Amount, "Sum of their totals.tax."),
        optional("taxes", Type::List(&TAX, TAXES_MAX), "By category and rate."),
        optional("tenders", Type::List(&TENDER, TENDERS_MAX), "By means of payment."),
    ],
};

static TENDER: Table = Table {
    title: "declared tender",
    doc: "What is declared for one means of payment.",
    fields: &[
        required("type", Type::Choice(TENDER_TYPES), "The means of payment."),
        required("amount", Type::Amount, "Taken in less given out."),
    ],
};

/// What a day close declares.
pub(crate) fn facts(fields: Fields<'_>) -> Result<DayCloseFacts, FactsError> {
    Ok(DayCloseFacts {
        workstation_id: fields.text("workstation_id").map(ToString::to_string),
        business_day_date: fields.required_text("business_day_date")?.to_string(),
        declared: fields.items("totals").map(declared).collect::<Result<_, _>>()?,
        first_sequence_number: fields.integer("first_sequence_number"),
        last_sequence_number: fields.integer("last_sequence_number"),
    })
}

fn declared(fields: Fields<'_>) -> Result<DeclaredTotals, FactsError> {
    let currency = fields.currency("currency_code")?;
    let mut tenders: Vec<TenderSum> = Vec::new();
    for tender in fields.items("tenders") {
        let (tender_type, amount) = (tender.required_text("type")?, tender.required_amount("amount", currency)?);
        match tenders.iter_mut().find(|sum| sum.tender_type == tender_type) {
            Some(sum) => sum.amount = sum.amount.saturating_add(amount),
            None => tenders.push(TenderSum { tender_type: tender_type.to_string(), amount }),
        }
    }
    Ok(DeclaredTotals {
        currency_code: currency.code().to_string(),
        transactions: fields.integer("transactions").ok_or(FactsError::Field { field: "transactions" })?,
        gross: fields.required_amount("gross", currency)?,
        net: fields.amount("net", currency)?,
        tax: fields.amount("tax", currency)?,
        taxes: tax_sums(fields, currency)?,
        tenders,
    })
}
