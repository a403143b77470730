//! A tender control: cash put into or taken out of a till, or counted in it; its fields, what it does, and the rule that it is judged by.
//!
//! Invariant: an amount counts as it is written. What goes into the till (`paid_in`, `loan`) is positive, what leaves it (`paid_out`,
//! `safe_drop`, `pickup`) is negative; a declaration is absolute. A sign that does not fit its type is flagged, never turned.
//!
//! It deliberately does not know what should be in a till: the agent compares a declaration with what was recorded.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::Envelope;
use super::common::{
    ATTRIBUTES, BUSINESS_DAY_DATE, CORRELATION_ID, DOCUMENT_ID, END_DATE_TIME, FISCAL_EVIDENCE, STORE_ID, TRACEPARENT,
};
use super::facts::{FactsError, TenderControlFacts, TenderSum};
use super::flag::{self, Flags};
use super::read::Fields;
use super::schema::{Table, Type, optional, required};
use super::transaction::TENDER_TYPES;
use crate::limits::TENDERS_MAX;

const TYPES: &[&str] = &["paid_in", "paid_out", "safe_drop", "loan", "pickup", DECLARATION];
const DECLARATION: &str = "declaration";

pub(crate) static TABLE: Table = Table {
    title: "tender_control",
    doc: "Cash or other tender put into or taken out of a till outside a sale, or counted in it. Amounts are signed: paid_in and loan are \
          positive; paid_out, safe_drop and pickup are negative; a declaration states what lies in the till.",
    fields: &[
        DOCUMENT_ID,
        STORE_ID,
        required("workstation_id", Type::Identifier, "The till."),
        required("type", Type::Choice(TYPES), "What happened to the money."),
        END_DATE_TIME,
        BUSINESS_DAY_DATE,
        optional("operator_id", Type::Identifier, "Who did it; a pseudonym, not a name."),
        required("currency_code", Type::Currency, "ISO 4217; the amounts beside it are in it."),
        required("tenders", Type::List(&TENDER, TENDERS_MAX), "What was moved or counted, by means of payment."),
        optional("reason_code", Type::Text, "Why."),
        CORRELATION_ID,
        TRACEPARENT,
        FISCAL_EVIDENCE,
        ATTRIBUTES,
    ],
};

static TENDER: Table = Table {
    title: "moved tender",
    doc: "What was moved or counted of one means of payment.",
    fields: &[
        required("type", Type::Choice(TENDER_TYPES), "The means of payment."),
        required(
            "amount",
            Type::Amount,
            "Into the till positive, out of it negative; in a declaration what was counted.",
        ),
        optional("pieces", Type::Integer, "Coins, notes or slips, where they were counted."),
    ],
};

/// A tender control, read.
#[derive(Debug)]
pub(crate) struct TenderControl {
    is_declaration: bool,
    /// Into the till or out of it; `None` where the type says neither.
    goes_in: Option<bool>,
    facts: TenderControlFacts,
}

impl TenderControl {
    pub(crate) fn read(fields: Fields<'_>, envelope: &Envelope) -> Result<Self, FactsError> {
        let currency = fields.currency("currency_code")?;
        let read_tender = |tender: Fields<'_>| {
            let tender_type = tender.required_text("type")?.to_string();
            Ok(TenderSum { tender_type, amount: tender.required_amount("amount", currency)? })
        };
        let control_type = fields.required_text("type")?;
        Ok(Self {
            is_declaration: control_type == DECLARATION,
            goes_in: match control_type {
                "paid_in" | "loan" => Some(true),
                "paid_out" | "safe_drop" | "pickup" => Some(false),
                _ => None,
            },
            facts: TenderControlFacts {
                workstation_id: fields.required_text("workstation_id")?.to_string(),
                business_day_date: envelope
                    .business_day_date
                    .clone()
                    .ok_or(FactsError::Field { field: "business_day_date" })?,
                is_declaration: control_type == DECLARATION,
                currency_code: currency.code().to_string(),
                tenders: fields.items("tenders").map(read_tender).collect::<Result<Vec<_>, _>>()?,
            },
        })
    }

    pub(crate) fn judge(&self, flags: &mut Flags) {
        let is_wrong =
            |amount: i64| self.goes_in.map_or(self.is_declaration && amount < 0, |goes_in| goes_in == (amount < 0));
        let wrong = self.facts.tenders.iter().position(|tender| tender.amount != 0 && is_wrong(tender.amount));
        if let Some(index) = wrong {
            flags.raise(flag::SIGN_MISMATCH, || format!("/tenders/{index}/amount"));
        }
    }

    pub(crate) fn into_facts(self) -> TenderControlFacts {
        self.facts
    }
}
