//! What a document is tied to beside its own identity: orders, other receipts, its customer, and the goods that changed hands.
//!
//! Invariant: ties come from a document alone, read in the same pass as its facts. It deliberately does not know which of the receipts,
//! orders and customers exist: the hub looks them up.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rust_decimal::Decimal;

use super::read::Fields;

/// Orders, and receipts, that are taken from one document. An exchange of more receipts is none; the rest is found by the receipt alone.
pub const TIES_MAX: usize = 256;

/// A receipt that a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The store of the receipt, as written; `None` for the document's own.
    pub store_id: Option<String>,
    /// The receipt's identity in its store, as `identity_of_transaction` or `identity_of_document` make it.
    pub identity: String,
}

/// An item that was bought or given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodsLine {
    /// Place of the line in the document, from 0.
    pub index: usize,
    /// The item.
    pub item_id: String,
    /// UN/ECE Rec 20 unit; `EA` where the document has none.
    pub unit: String,
    /// `actual_unit_price`, where the line has one.
    pub unit_price: Option<Decimal>,
    /// Below zero where it was given back.
    pub quantity: Decimal,
}

/// Everything that a document is tied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// The orders that the document, its lines or its links name; each once, in their order, at most [`TIES_MAX`].
    pub order_ids: Vec<String>,
    /// The receipts that the document or its lines name; each once, in their order, at most [`TIES_MAX`].
    pub links: Vec<Link>,
    /// Whether it reverses the receipts that it names: a finished void, not in training.
    pub is_void: bool,
    /// The customer.
    pub customer_id: Option<String>,
    /// Where it was sold or ordered: `store`, `web` … as written.
    pub channel: Option<String>,
    /// How its goods reach the customer: of the document, or of its first line that says so.
    pub fulfillment_type: Option<String>,
    /// Lines of a transaction that counts, is no void, and are not voided; with an item and a quantity, whatever their kind.
    pub goods: Vec<GoodsLine>,
}

impl Ties {
    /// What any kind of document names. The transaction's own part is filled in by whoever has it read.
    pub(crate) fn read(root: Fields<'_>) -> Self {
        let text = |name: &str| root.text(name).map(ToString::to_string);
        let of_line = |line: Fields<'_>| line.object("fulfillment")?.text("type").map(ToString::to_string);
        let mut ties = Self {
            customer_id: text("customer_id"),
            channel: text("channel"),
            fulfillment_type: root.items("line_items").find_map(of_line),
            ..Self::default()
        };
        ties.add(root);
        root.items("line_items").for_each(|line| ties.add(line));
        ties
    }

    fn add(&mut self, fields: Fields<'_>) {
        let link = fields.object("transaction_link");
        for order_id in [fields.text("order_id"), link.and_then(|link| link.text("order_id"))].into_iter().flatten() {
            if self.order_ids.len() < TIES_MAX && !self.order_ids.iter().any(|known| known == order_id) {
                self.order_ids.push(order_id.to_string());
            }
        }
        let Some((link, identity)) = link.and_then(|link| Some((link, super::transaction::identity_of_link(link)?)))
        else {
            return;
        };
        let link = Link { store_id: link.text("store_id").map(ToString::to_string), identity };
        if self.links.len() < TIES_MAX && !self.links.contains(&link) {
            self.links.push(link);
        }
    }
}
