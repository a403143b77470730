//! What an order of Square takes back: its `returns`, each of one order, and the money that is given back for them.
//!
//! Invariant: the lines of a return name the transaction of the order that they are of, and everything of it is below zero; an order that
//! sells as well is an exchange.

use serde_json::{Value, json};

use super::Order;
use crate::legacy::{identity, object};

/// What an order tells of.
pub(super) fn type_of(sells: bool, takes_back: bool) -> &'static str {
    match (sells, takes_back) {
        (true, true) => "exchange",
        (false, _) => "return",
        (true, false) => "sale",
    }
}

impl Order<'_, '_> {
    /// Gross and tax: what is sold less what is taken back. `net_amounts` say the same again.
    pub(super) fn totals(&self) -> (i64, i64) {
        let order = self.fields;
        let (mut gross, mut tax) = (self.money(order, "total_money"), self.money(order, "total_tax_money"));
        if let Some(back) = order.get("return_amounts") {
            gross = gross.saturating_sub(self.money(&back, "total_money"));
            tax = tax.saturating_sub(self.money(&back, "tax_money"));
        } else if order.has("returns") {
            order.fault("return_amounts", "missing-field", "An order with returns states what they come to");
        }
        (gross, tax)
    }

    /// Adds the lines of the returns, their charges, rounding and tips.
    pub(super) fn returned(&self, lines: &mut Vec<Value>) {
        for back in self.fields.all("returns") {
            let of_order = back.text("source_order_id");
            let known = back.all("return_taxes");
            for line in back.all("return_line_items") {
                let document_id = of_order.as_ref().map(|id| identity(&["square", id]));
                let order_line = of_order.as_ref().and(line.text("source_line_item_uid"));
                let link = json!({ "document_id": document_id, "order_id": of_order, "order_line": order_line });
                lines.push(self.line(&line, lines.len() + 1, &known, Some(&Value::Object(object(link)))));
            }
            for charge in back.all("return_service_charges") {
                lines.push(self.charge(&charge, lines.len() + 1, -1));
            }
            lines.extend(self.rounding(&back, lines.len() + 1, -1));
        }
        let tip = self.fields.get("return_amounts").map_or(0, |back| self.money(&back, "tip_money"));
        if tip != 0 {
            let amount = self.text(tip.saturating_neg());
            lines.push(json!({ "line": lines.len() + 1, "kind": "tip", "extended_amount": amount }));
        }
    }

    /// Money that is given back. It goes to the tender of the order that was paid with it, which is not named here.
    pub(super) fn refunds(&self) -> Vec<Value> {
        let refunds = if self.fields.has("returns") { self.fields.all("refunds") } else { Vec::new() };
        let one = |refund: &crate::legacy::Fields<'_>| {
            let amount = self.money(refund, "amount_money").saturating_neg();
            let is_declined = refund.text("status").is_some_and(|status| matches!(&*status, "REJECTED" | "FAILED"));
            let state = if is_declined { "declined" } else { "approved" };
            json!({ "type": "other", "amount": self.text(amount), "state": state })
        };
        refunds.iter().map(one).collect()
    }
}
