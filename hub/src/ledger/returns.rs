//! What customers gave back, beside what they had bought: a line of a return, and sums of what was sold.
//!
//! Invariant: written in the transaction that gives the positions, from transactions that count (see `Ties::goods`). Customers are told apart
//! by `customer_id` alone, across stores; buyers without one are one buyer. Quantities are millionths of the unit, in whole numbers.
//!
//! A line is beyond what was bought, on one of two grounds, see [`Ground`].

use std::collections::BTreeMap;

use counterfoil_proto::record::ties::GoodsLine;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::sql::{Row, Transaction, Value};
use super::view::{Ground, ReturnView, ReturnsQuery};
use super::{LedgerError, SqlLedger};
use crate::posting::{Reading, Standing, Stored, bounded};

/// Parts of a unit.
const MILLIONTHS: i64 = 1_000_000;
/// Units on one line. More is no sale but a fault, and would one day overflow a sum.
const QUANTITY_MAX: i64 = 10_000_000;

const BOUGHT: &str = "SELECT CAST(COALESCE(SUM(quantity), 0) AS BIGINT) FROM purchases \
    WHERE customer_id = $1 AND item_id = $2 AND unit = $3";
const RETURNED: &str = "SELECT returned_so_far FROM return_lines WHERE customer_id = $1 AND item_id = $2 AND unit = $3 \
    ORDER BY position DESC, line DESC LIMIT 1";
const BUY: &str = "INSERT INTO purchases (customer_id, item_id, unit, unit_price, quantity) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (customer_id, item_id, unit, unit_price) DO UPDATE SET quantity = purchases.quantity + excluded.quantity";
const RETURN: &str = "INSERT INTO return_lines (position, line, store_id, customer_id, item_id, unit, unit_price, quantity, \
    bought_before, returned_so_far) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const LINES: &str = "SELECT r.position, r.line, r.store_id, r.customer_id, r.item_id, r.unit, r.unit_price, r.quantity, \
    COALESCE(p.quantity, 0), r.bought_before, r.returned_so_far FROM return_lines r LEFT JOIN purchases p \
    ON p.customer_id = r.customer_id AND p.item_id = r.item_id AND p.unit = r.unit AND p.unit_price = r.unit_price \
    WHERE (r.position > $1 OR (r.position = $1 AND r.line > $2)) \
    AND (CAST($3 AS TEXT) IS NULL OR r.store_id = $3) AND (CAST($4 AS TEXT) IS NULL OR r.customer_id = $4) \
    AND (CAST($5 AS BIGINT) = 0 OR (CAST($5 AS BIGINT) = 1 AND r.quantity > COALESCE(p.quantity, 0)) \
    OR (CAST($5 AS BIGINT) = 2 AND r.returned_so_far > r.bought_before)) ORDER BY r.position, r.line LIMIT $6";

/// Customer, item and unit.
type Bought = (String, String, String);

/// A line in the order of the positions.
struct Moved {
    position: u64,
    line: i64,
    store_id: String,
    of: Bought,
    unit_price: String,
    /// Millionths; below zero where it came back.
    quantity: i64,
}

/// The lines of a chunk.
#[derive(Default)]
pub(super) struct Goods(Vec<Moved>);

impl Goods {
    /// Notes what a record moved between the store and a customer.
    pub(super) fn take(&mut self, record: &Stored, position: u64, reading: &Reading, standing: Standing) {
        if !reading.is_effective(standing) {
            return;
        }
        let ties = &reading.named.ties;
        let customer_id = bounded(ties.customer_id.as_deref().unwrap_or_default());
        self.0.extend(ties.goods.iter().filter_map(|line| {
            Some(Moved {
                position,
                line: i64::try_from(line.index).ok()?,
                store_id: record.source.store_id.as_str().to_owned(),
                of: (customer_id.clone(), bounded(&line.item_id), bounded(&line.unit)),
                unit_price: line.unit_price.map(|price| price.normalize().to_string()).unwrap_or_default(),
                quantity: millionths(line)?,
            })
        }));
    }

    /// Writes them.
    pub(super) async fn write(self, tx: &mut dyn Transaction) -> Result<(), LedgerError> {
        let mut sums: BTreeMap<Bought, (i64, i64)> = BTreeMap::new();
        sums.extend(self.0.iter().filter(|moved| moved.quantity < 0).map(|moved| (moved.of.clone(), (0, 0))));
        let keys = || sums.keys().map(|of| key(of).to_vec()).collect();
        let (bought, returned) = (tx.query_many(BOUGHT, keys()).await?, tx.query_many(RETURNED, keys()).await?);
        for ((sums, bought), returned) in sums.values_mut().zip(bought).zip(returned) {
            *sums = (first(bought)?, first(returned)?);
        }
        let (mut buys, mut returns): (BTreeMap<(Bought, String), i64>, _) = (BTreeMap::new(), Vec::new());
        for moved in self.0 {
            let sums = sums.get_mut(&moved.of);
            if moved.quantity > 0 {
                if let Some((bought, _)) = sums {
                    *bought = bought.saturating_add(moved.quantity);
                }
                let sum = buys.entry((moved.of, moved.unit_price)).or_default();
                *sum = sum.saturating_add(moved.quantity);
                continue;
            }
            let Some((bought, returned)) = sums else { continue };
            let quantity = moved.quantity.saturating_neg();
            *returned = returned.saturating_add(quantity);
            let [customer_id, item_id, unit] = key(&moved.of);
            returns.push(vec![
                moved.position.into(),
                moved.line.into(),
                moved.store_id.into(),
                customer_id,
                item_id,
                unit,
                moved.unit_price.into(),
                quantity.into(),
                (*bought).into(),
                (*returned).into(),
            ]);
        }
        let buys = buys.into_iter().map(|((of, unit_price), quantity)| {
            let [customer_id, item_id, unit] = key(&of);
            vec![customer_id, item_id, unit, unit_price.into(), quantity.into()]
        });
        tx.execute_many(BUY, buys.collect()).await?;
        tx.execute_many(RETURN, returns).await
    }
}

fn key((customer_id, item_id, unit): &Bought) -> [Value; 3] {
    [customer_id.as_str().into(), item_id.as_str().into(), unit.as_str().into()]
}

fn first(rows: Vec<Row>) -> Result<i64, LedgerError> {
    rows.into_iter().next().map_or(Ok(0), |row| row.read().int())
}

fn millionths(line: &GoodsLine) -> Option<i64> {
    let quantity = line.quantity.checked_mul(Decimal::from(MILLIONTHS))?.round().to_i64()?;
    (quantity != 0 && quantity.unsigned_abs() <= QUANTITY_MAX.saturating_mul(MILLIONTHS).unsigned_abs())
        .then_some(quantity)
}

impl SqlLedger {
    pub(super) async fn view_returns(&self, query: &ReturnsQuery) -> Result<Vec<ReturnView>, LedgerError> {
        let ground: i64 = match query.beyond {
            None => 0,
            Some(Ground::AtPrice) => 1,
            Some(Ground::SoFar) => 2,
        };
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let (position, line) = query.after;
        let params = vec![
            position.into(),
            i64::from(line).into(),
            query.store_id.clone().into(),
            query.customer_id.clone().into(),
            ground.into(),
            limit.into(),
        ];
        let rows = self.database.read(LINES, params).await?;
        let units = |millionths: i64| (Decimal::from(millionths) / Decimal::from(MILLIONTHS)).normalize();
        rows.into_iter()
            .map(|row| {
                let mut row = row.read();
                Ok(ReturnView {
                    position: row.count()?,
                    line: u32::try_from(row.int()?).map_err(|_| LedgerError::Shape)?,
                    store_id: row.text()?,
                    customer_id: Some(row.text()?).filter(|text| !text.is_empty()),
                    item_id: row.text()?,
                    unit: row.text()?,
                    unit_price: Some(row.text()?).filter(|text| !text.is_empty()),
                    quantity: units(row.int()?),
                    bought_at_price: units(row.int()?),
                    bought_before: units(row.int()?),
                    returned_so_far: units(row.int()?),
                })
            })
            .collect()
    }
}
