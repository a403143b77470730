//! The lines of a retail transaction: what was sold and came back, taxes, rewards and tenders.
//!
//! Invariant: what our lines, added taxes and tenders add up to is what the source's add up to under its dialect; a voided sale and the
//! line that takes it back both become `voided`, so that neither money nor stock counts them.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::dialect::{Change, Dialect, ReturnSign, Rewards, VoidSign};
use super::map::link;
use crate::legacy::Fields;

/// A sale that a later line may take back: its item, quantity and amount, and where it stands.
#[derive(Debug)]
struct Sold {
    item: Option<String>,
    quantity: Decimal,
    amount: Decimal,
    index: usize,
}

/// The lines of one transaction, while they are read.
#[derive(Debug)]
pub(super) struct Lines<'d> {
    dialect: &'d Dialect,
    items: Vec<Map<String, Value>>,
    tenders: Vec<Value>,
    sold: Vec<Sold>,
    /// Whether goods were sold.
    pub(super) sells: bool,
    /// Whether goods came back.
    pub(super) takes_back: bool,
}

impl<'d> Lines<'d> {
    pub(super) fn new(dialect: &'d Dialect) -> Self {
        Self { dialect, items: Vec::new(), tenders: Vec::new(), sold: Vec::new(), sells: false, takes_back: false }
    }

    /// Lines and tenders.
    pub(super) fn finish(self) -> (Vec<Value>, Vec<Value>) {
        (self.items.into_iter().map(Value::Object).collect(), self.tenders)
    }

    /// Reads one `LineItem`.
    pub(super) fn add(&mut self, line: &Fields<'_>) {
        let number = line.needed_integer("SequenceNumber");
        let voids = line.flag("@VoidFlag");
        let mut item = Map::new();
        item.insert("line".to_owned(), number.unwrap_or_default().into());
        for (element, returns) in
            [("Sale", false), ("SaleForPickup", false), ("Return", true), ("ReturnForPickup", true)]
        {
            if let Some(sale) = line.get(element) {
                self.goods(line, &sale, item, returns, voids);
                return;
            }
        }
        if let Some(tax) = line.get("Tax") {
            if !voids || self.dialect.void == VoidSign::Negative {
                item.insert("kind".to_owned(), "other".into());
                item.insert("description".to_owned(), "Tax".into());
                item.insert("extended_amount".to_owned(), "0".into());
                item.insert("taxes".to_owned(), json!([self.tax(&tax)]));
                self.items.push(item);
            }
        } else if let Some(reward) = line.get("LoyaltyReward") {
            self.reward(&reward, item, voids);
        } else if let Some(rounding) = line.get("Rounding") {
            item.insert("kind".to_owned(), "rounding".into());
            put_decimal(&mut item, "extended_amount", rounding.decimal("Amount").or_else(|| rounding.rate("#text")));
            self.items.push(item);
        } else if let Some(tender) = line.get("Tender") {
            self.tender(&tender, number, voids);
        }
    }

    fn goods(
        &mut self,
        line: &Fields<'_>,
        sale: &Fields<'_>,
        mut item: Map<String, Value>,
        returns: bool,
        voids: bool,
    ) {
        let id = sale.text("ItemID");
        put(&mut item, "item_id", id.clone());
        if let Some(identity) = sale.get("POSIdentity") {
            let of_gs1 =
                identity.text("@POSIDType").is_some_and(|kind| matches!(kind.as_str(), "GTIN" | "EAN" | "UPC"));
            let code = identity.text("POSItemID");
            put(&mut item, "gtin", code.filter(|code| of_gs1 && is_global(code)));
        }
        put(&mut item, "description", sale.text("Description"));
        put_decimal(&mut item, "regular_unit_price", sale.decimal("RegularSalesUnitPrice"));
        put_decimal(&mut item, "actual_unit_price", sale.decimal("ActualSalesUnitPrice"));
        let (quantity, unit) = self.quantity(line, sale);
        put(&mut item, "unit", unit);
        let mut quantity = quantity.unwrap_or(Decimal::ONE);
        let mut amount = sale.needed_decimal("ExtendedAmount").unwrap_or_default();
        let takes_back_line = voids && self.dialect.void != VoidSign::Flagged;
        if takes_back_line && self.dialect.void == VoidSign::Positive {
            (quantity, amount) = (-quantity, -amount);
        }
        // A sale of less than nothing is a return; one of something for less than nothing is a coupon or a container that comes back.
        let returns = !voids && (returns || quantity < Decimal::ZERO);
        if returns {
            quantity = -quantity.abs();
            if self.dialect.returns == ReturnSign::Positive {
                amount = -amount;
            }
            if let Some(reference) = sale.get("TransactionLink") {
                item.insert("transaction_link".to_owned(), link(&reference));
            }
        }
        let gives = !returns && !takes_back_line && amount < Decimal::ZERO;
        let kind = if returns {
            "return"
        } else if gives {
            "other"
        } else {
            "sale"
        };
        item.insert("kind".to_owned(), kind.into());
        let prices_negative = item.get("regular_unit_price").is_some() && gives;
        if prices_negative {
            // Its price is written without the sign that its amount has.
            item.remove("regular_unit_price");
            item.remove("actual_unit_price");
        }
        put_decimal(&mut item, "quantity", Some(quantity));
        put_decimal(&mut item, "extended_amount", Some(amount));
        let taxes: Vec<Value> = sale.all("Tax").iter().map(|tax| self.tax(tax)).collect();
        if !taxes.is_empty() {
            item.insert("taxes".to_owned(), taxes.into());
        }
        if voids && !takes_back_line {
            item.insert("voided".to_owned(), true.into());
        } else if takes_back_line {
            if self.take_back(id.as_ref(), quantity, amount) {
                item.insert("voided".to_owned(), true.into());
            }
        } else {
            self.sells |= kind == "sale";
            self.takes_back |= returns;
            self.sold.push(Sold { item: id, quantity, amount, index: self.items.len() });
        }
        self.items.push(item);
    }

    /// Marks the newest line that a void takes back; `false` where there is none, and the void then counts by itself.
    fn take_back(&mut self, item: Option<&String>, quantity: Decimal, amount: Decimal) -> bool {
        let matches = |sold: &Sold| sold.item.as_ref() == item && sold.quantity == -quantity && sold.amount == -amount;
        let Some(place) = self.sold.iter().rposition(matches) else { return false };
        let sold = self.sold.remove(place);
        if let Some(line) = self.items.get_mut(sold.index) {
            line.insert("voided".to_owned(), true.into());
        }
        true
    }

    /// Quantity and unit. A weight beside a count of pieces is the quantity; the count is then not mapped.
    fn quantity(&self, line: &Fields<'_>, sale: &Fields<'_>) -> (Option<Decimal>, Option<String>) {
        let all = sale.all("Quantity");
        let is_weight = |one: &&Fields<'_>| {
            one.text("@UnitOfMeasureCode").is_some_and(|unit| !matches!(unit.as_str(), "EA" | "Ea" | "H87" | "C62"))
        };
        let Some(one) = all.iter().find(is_weight).or_else(|| all.first()) else { return (None, None) };
        let number = one.own_text();
        let quantity = number.as_deref().and_then(|text| counterfoil_proto::money::decimal(text).ok());
        if number.is_some() && quantity.is_none() {
            one.fault("", "invalid-decimal", "Is no decimal number");
        }
        let stated = one.text("@UnitOfMeasureCode");
        let weighs = line.flag("@weightItem") || sale.flag("@WeightItemFlag");
        (quantity, stated.or_else(|| weighs.then(|| self.dialect.weight_unit.clone())))
    }

    fn tax(&self, tax: &Fields<'_>) -> Value {
        let mut ours = Map::new();
        put_decimal(&mut ours, "rate", tax.rate("Percent"));
        put_decimal(&mut ours, "taxable_amount", tax.decimal("TaxableAmount"));
        put_decimal(&mut ours, "amount", tax.needed_decimal("Amount"));
        if self.dialect.tax_included {
            ours.insert("included".to_owned(), true.into());
        }
        ours.into()
    }

    /// A reward that is money off; messages and points are not mapped, nor is the form that says it again.
    fn reward(&mut self, reward: &Fields<'_>, mut item: Map<String, Value>, voids: bool) {
        let counts = match self.dialect.rewards {
            Rewards::None => false,
            Rewards::Detailed => reward.flag("@detailedData"),
        };
        let is_money = reward.text("RewardCategory").is_none_or(|category| category == "Monetary");
        if !counts || !is_money || (voids && self.dialect.void == VoidSign::Flagged) {
            return;
        }
        item.insert("kind".to_owned(), "other".into());
        put(&mut item, "description", reward.text("RewardType"));
        put_decimal(&mut item, "extended_amount", reward.needed_decimal("ExtendedRewardAmount"));
        if let Some(promotion) = reward.text("PromotionID") {
            item.insert("attributes".to_owned(), json!({ "promotion_id": promotion }));
        }
        self.items.push(item);
    }

    fn tender(&mut self, tender: &Fields<'_>, number: Option<u64>, voids: bool) {
        if voids && self.dialect.void == VoidSign::Flagged {
            return;
        }
        let Some(mut amount) = tender.needed_decimal("Amount") else { return };
        let kind = tender.text("@TenderType").unwrap_or_default();
        let means = means(&kind);
        if tender.text("@TypeCode").is_some_and(|code| code == "Refund")
            || (voids && self.dialect.void == VoidSign::Positive)
        {
            amount = -amount.abs();
        }
        let change = tender.get("TenderChange").and_then(|change| change.decimal("Amount"));
        let is_change = self.dialect.change == Change::Tender && change.is_some();
        let means = if is_change { "change" } else { means };
        self.tenders.push(json!({ "line": number.unwrap_or_default(), "type": means, "amount": amount.to_string() }));
        if let (Change::Nested, Some(change)) = (self.dialect.change, change) {
            let change = -change.abs();
            self.tenders
                .push(json!({ "line": number.unwrap_or_default(), "type": "change", "amount": change.to_string() }));
        }
    }
}

/// What a `TenderType` is in our words.
pub(super) fn means(kind: &str) -> &'static str {
    match kind {
        "Cash" => "cash",
        "CreditDebit" | "Credit" | "Debit" => "card",
        "GiftCard" | "GiftCertificate" => "gift_card",
        "Voucher" | "Coupon" | "ManufacturerCoupon" => "voucher",
        "StoredValue" => "store_credit",
        "CustomerAccount" => "account",
        _ => "other",
    }
}

/// Whether a code is more than this store's own: neither a PLU that was filled up with zeros nor one that holds a price or a weight.
fn is_global(code: &str) -> bool {
    let significant = code.trim_start_matches('0');
    let thirteen = code.get(code.len().saturating_sub(13)..).unwrap_or_default();
    matches!(code.len(), 8 | 12 | 13 | 14)
        && code.bytes().all(|byte| byte.is_ascii_digit())
        && significant.len() >= 8
        && (code.len() < 13 || !thirteen.starts_with('2') && !thirteen.starts_with("02"))
}

fn put(item: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value {
        item.insert(name.to_owned(), value.into());
    }
}

fn put_decimal(item: &mut Map<String, Value>, name: &str, value: Option<Decimal>) {
    put(item, name, value.map(|value| value.to_string()));
}
