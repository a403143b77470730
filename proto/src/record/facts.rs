//! What a document does: the effects that stock, totals and the hub's ledger are folded from.
//!
//! Invariant: facts come from a record alone (its kind, envelope and document), so that replay gives the same facts as
//! the first time. This module does not judge; findings stand in the envelope's flags.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rust_decimal::Decimal;

use super::fulfillment_update::FulfillmentUpdate;
use super::json::{self, Node};
use super::read::Fields;
use super::stock_movement::StockMovement;
use super::tender_control::TenderControl;
use super::ties::Ties;
use super::transaction::fold::Transaction;
use super::{Envelope, Kind, day_close, schema};
use crate::time::WallTime;

/// A line of a transaction or movement that changes what lies on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockChange {
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20 unit; `EA` where the document has none.
    pub unit: String,
    /// Added to what is on hand: negative for a sale, positive for a return or a receipt.
    pub delta: Decimal,
}

/// A line of a count: what was found on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockCount {
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20 unit.
    pub unit: String,
    /// What was counted.
    pub counted: Decimal,
}

/// What a transaction tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionType {
    /// Goods out against money.
    Sale,
    /// Goods back against money.
    Return,
    /// Both.
    Exchange,
    /// Reverses what its `transaction_link` names.
    Void,
    /// The drawer was opened.
    NoSale,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionStatus {
    /// Complete.
    Finished,
    /// Laid aside, to be taken up again.
    Suspended,
    /// Given up.
    Canceled,
}

/// Tax of one category and rate, summed over a document; in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaxSum {
    /// UNCL5305 category.
    pub category: String,
    /// Percent, as written.
    pub rate: Decimal,
    /// What the tax is on.
    pub taxable_amount: i64,
    /// The tax.
    pub amount: i64,
}

/// Tenders of one type, summed over a document; in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenderSum {
    /// `cash`, `card` … as in the document.
    pub tender_type: String,
    /// Negative where money was given out.
    pub amount: i64,
}

/// A line that gives goods back against a receipt that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnLine {
    /// Place of the line in the document, from 0.
    pub index: usize,
    /// The store of the receipt, as written; `None` for this one.
    pub store_id: Option<String>,
    /// The receipt's identity in its store, as `identity_of_transaction` or `identity_of_document` make it.
    pub identity: String,
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20 unit; `EA` where the document has none.
    pub unit: String,
    /// What is given back; above zero.
    pub quantity: Decimal,
}

/// The effects of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionFacts {
    /// The till.
    pub workstation_id: String,
    /// `YYYY-MM-DD`.
    pub business_day_date: String,
    /// The till's own number; `None` where the till identifies its documents by `document_id` alone.
    pub sequence_number: Option<u64>,
    /// Raised by the till when its counter restarts.
    pub sequence_epoch: u64,
    /// What it tells.
    pub transaction_type: TransactionType,
    /// How it ended.
    pub status: TransactionStatus,
    /// Training never reaches stock or totals.
    pub training_mode: bool,
    /// ISO 4217.
    pub currency_code: String,
    /// `totals.gross`, in minor units.
    pub gross: i64,
    /// `totals.net`, in minor units.
    pub net: Option<i64>,
    /// `totals.tax`, in minor units.
    pub tax: Option<i64>,
    /// Taxes of the lines that are not voided, by category and rate.
    pub taxes: Vec<TaxSum>,
    /// Tenders that were not declined or reversed, by type.
    pub tenders: Vec<TenderSum>,
    /// What it moves on the shelf; empty where it must not (training, suspended, canceled, no sale).
    pub stock: Vec<StockChange>,
    /// What it gives back against receipts that it names; empty where [`Self::stock`] must be, and for a void.
    pub returns: Vec<ReturnLine>,
    /// When it ended, UTC.
    pub ended_at: WallTime,
}

impl TransactionFacts {
    /// Whether it counts in the totals of its day: a finished sale, return, exchange or void, not in training.
    pub fn counts(&self) -> bool {
        self.status == TransactionStatus::Finished
            && !self.training_mode
            && self.transaction_type != TransactionType::NoSale
    }
}

/// The effects of a stock movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovementFacts {
    /// Deltas (every type but `count`).
    pub changes: Vec<StockChange>,
    /// Absolute values (type `count`).
    pub counts: Vec<StockCount>,
}

/// How goods of an order reach the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FulfillmentType {
    /// Collected in the store.
    Pickup,
    /// Sent by a carrier.
    Shipment,
    /// Brought by the store.
    Delivery,
}

/// What lines of an order come into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FulfillmentState {
    /// Asked for; nothing is held.
    Proposed,
    /// Held.
    Reserved,
    /// Held, picked and ready.
    Prepared,
    /// Handed out.
    Completed,
    /// Let go, because somebody gave it up.
    Canceled,
    /// Let go, because it could not be done.
    Failed,
}

/// Another article for what was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution {
    /// The article that the customer gets.
    pub item_id: String,
    /// UN/ECE Rec 20 unit; `EA` where the document has none.
    pub unit: String,
    /// How much of it.
    pub quantity: Decimal,
    /// Whether the customer agreed.
    pub agreed: bool,
}

/// A line of a fulfillment update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FulfillmentLine {
    /// Place of the line in the document, from 0.
    pub index: usize,
    /// The line of the order.
    pub order_line: Option<String>,
    /// The item that was ordered, or an earlier substitute of it.
    pub item_id: String,
    /// UN/ECE Rec 20 unit; `EA` where the document has none.
    pub unit: String,
    /// How much comes into the update's state.
    pub quantity: Decimal,
    /// How much of it was ordered, where the document says so.
    pub ordered: Option<Decimal>,
    /// What comes into the state in its place; the item itself is then let go.
    pub substitution: Option<Substitution>,
}

/// The effects of a fulfillment update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FulfillmentFacts {
    /// The order.
    pub order_id: String,
    /// The part of the order that is handed out together.
    pub fulfillment_id: Option<String>,
    /// How the goods reach the customer.
    pub fulfillment_type: FulfillmentType,
    /// What the lines come into.
    pub state: FulfillmentState,
    /// What comes into it.
    pub lines: Vec<FulfillmentLine>,
    /// Since when the goods lie ready.
    pub ready_at: Option<WallTime>,
    /// Until when they are kept.
    pub expires_at: Option<WallTime>,
    /// When it happened, UTC.
    pub ended_at: WallTime,
}

impl FulfillmentFacts {
    /// What leaves the shelf: everything that is handed out.
    pub fn stock(&self) -> impl Iterator<Item = StockChange> + '_ {
        let handed_out = self.lines.iter().filter(|_| self.state == FulfillmentState::Completed);
        handed_out.filter_map(|line| {
            let (item_id, unit, quantity) = line.handed();
            let delta = Decimal::ZERO.checked_sub(quantity)?;
            (quantity > Decimal::ZERO).then(|| StockChange { item_id: item_id.into(), unit: unit.into(), delta })
        })
    }
}

impl FulfillmentLine {
    /// Item, unit and quantity that come into the state: the substitute's where there is one.
    pub fn handed(&self) -> (&str, &str, Decimal) {
        match &self.substitution {
            Some(substitution) => (&substitution.item_id, &substitution.unit, substitution.quantity),
            None => (&self.item_id, &self.unit, self.quantity),
        }
    }
}

/// The effects of a tender control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenderControlFacts {
    /// The till.
    pub workstation_id: String,
    /// `YYYY-MM-DD`.
    pub business_day_date: String,
    /// Whether the amounts are what was counted, and not what was moved.
    pub is_declaration: bool,
    /// ISO 4217.
    pub currency_code: String,
    /// Moved or counted, in minor units.
    pub tenders: Vec<TenderSum>,
}

/// Totals that a till or a back office declared for one currency; in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredTotals {
    /// ISO 4217.
    pub currency_code: String,
    /// Number of counted transactions.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: i64,
    /// Σ totals.net.
    pub net: Option<i64>,
    /// Σ totals.tax.
    pub tax: Option<i64>,
    /// By category and rate.
    pub taxes: Vec<TaxSum>,
    /// By type.
    pub tenders: Vec<TenderSum>,
}

/// The effects of a day close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCloseFacts {
    /// The till that closed; `None` where the whole store did.
    pub workstation_id: Option<String>,
    /// `YYYY-MM-DD`.
    pub business_day_date: String,
    /// What was declared, per currency.
    pub declared: Vec<DeclaredTotals>,
    /// The till's first number of the day.
    pub first_sequence_number: Option<u64>,
    /// The till's last number of the day.
    pub last_sequence_number: Option<u64>,
}

/// The effects of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// Of a transaction.
    Transaction(TransactionFacts),
    /// Of a stock movement.
    Movement(MovementFacts),
    /// Of a fulfillment update.
    Fulfillment(FulfillmentFacts),
    /// Of a tender control.
    TenderControl(TenderControlFacts),
    /// Of a day close.
    DayClose(DayCloseFacts),
    /// Nothing that stock or totals are folded from.
    None,
}

/// A stored document that gives no facts, although its kind should. It stays stored; whoever folds it raises `UNREADABLE_RECORD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The document is not JSON, or not an object.
    #[error("The stored document is not a JSON object")]
    Unreadable,
    /// A field that its kind needs is missing or not what it should be.
    #[error("The stored document has no usable field {field}")]
    Field {
        /// The field's name.
        field: &'static str,
    },
}

/// The effects of a stored record, from its kind, envelope and document alone.
///
/// A record with [`Envelope::conflicts_with`] gives facts too; its reader sees to it that they move neither stock nor totals.
pub fn facts(kind: Kind, envelope: &Envelope, document: &[u8]) -> Result<Facts, FactsError> {
    read_stored(kind, document, Facts::None, |root| read(kind, root, envelope, &mut |_| ()))
}

/// The same together with what the document is tied to, read once.
pub fn facts_and_ties(kind: Kind, envelope: &Envelope, document: &[u8]) -> Result<(Facts, Ties), FactsError> {
    read_stored(kind, document, (Facts::None, Ties::default()), |root| {
        let mut ties = Ties::read(root);
        if kind == Kind::FULFILLMENT_UPDATE {
            ties.fulfillment_type = root.text("type").map(ToString::to_string);
        }
        let facts = read(kind, root, envelope, &mut |typed| {
            if let Typed::Transaction(transaction) = typed {
                ties.is_void = transaction.is_void();
                ties.goods = transaction.goods();
            }
        })?;
        Ok((facts, ties))
    })
}

fn read_stored<T>(
    kind: Kind,
    document: &[u8],
    none: T,
    read: impl FnOnce(Fields<'_>) -> Result<T, FactsError>,
) -> Result<T, FactsError> {
    if schema::table_of(kind).is_none() {
        return Ok(none);
    }
    let root = json::parse(document).map_err(|_| FactsError::Unreadable)?;
    if !matches!(root, Node::Object(_)) {
        return Err(FactsError::Unreadable);
    }
    read(Fields(&root))
}

/// How much of an item a stored transaction had sold, for returns that name it: voided lines are in no sum, and a transaction that
/// does not count (training, suspended, canceled, void) had sold nothing. `None` where the item is on it in other units only, which
/// cannot be compared.
pub fn sold_quantity(document: &[u8], item_id: &str, unit: &str) -> Result<Option<Decimal>, FactsError> {
    let root = json::parse(document).map_err(|_| FactsError::Unreadable)?;
    Transaction::read(Fields(&root)).map(|transaction| transaction.sold_quantity(item_id, unit))
}

/// A document's typed form, shown to whoever judges it before the facts are drawn from it.
pub(crate) enum Typed<'t, 'n> {
    Transaction(&'t Transaction<'n>),
    Movement(&'t StockMovement<'n>),
    Fulfillment(&'t FulfillmentUpdate<'n>),
    TenderControl(&'t TenderControl),
}

/// Reads a document and draws its facts; one way for submitted and stored ones.
pub(crate) fn read(
    kind: Kind,
    fields: Fields<'_>,
    envelope: &Envelope,
    judge: &mut dyn FnMut(Typed<'_, '_>),
) -> Result<Facts, FactsError> {
    match kind {
        Kind::TRANSACTION => {
            let transaction = Transaction::read(fields)?;
            judge(Typed::Transaction(&transaction));
            transaction.facts(envelope).map(Facts::Transaction)
        }
        Kind::STOCK_MOVEMENT => {
            let movement = StockMovement::read(fields)?;
            judge(Typed::Movement(&movement));
            Ok(Facts::Movement(movement.facts()))
        }
        Kind::FULFILLMENT_UPDATE => {
            let update = FulfillmentUpdate::read(fields, envelope)?;
            judge(Typed::Fulfillment(&update));
            Ok(Facts::Fulfillment(update.into_facts()))
        }
        Kind::TENDER_CONTROL => {
            let control = TenderControl::read(fields, envelope)?;
            judge(Typed::TenderControl(&control));
            Ok(Facts::TenderControl(control.into_facts()))
        }
        Kind::DAY_CLOSE => day_close::facts(fields).map(Facts::DayClose),
        _ => Ok(Facts::None),
    }
}
