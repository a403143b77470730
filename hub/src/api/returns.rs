//! `GET /v1/returns/beyond-bought` and `GET /v1/customers/{customer_id}/returns`: what came back, beside what had been bought.
//!
//! A line of a return is beyond what its customer bought, on one of two grounds (`ground`):
//!
//! - `at_price`, the default: the line alone gives back more of an item than the customer ever bought of it at that unit price, as far as the
//!   hub knows now. It does not depend on the order in which stores deliver, and a purchase that comes later takes the line off the list.
//! - `so_far`: with that line the customer has given back more of an item than the customer had bought of it until then, at whatever price,
//!   in the order of positions. It never changes afterwards.
//!
//! Customers are told apart by `customer_id`, across stores; lines without one are those of one buyer.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{Answer, Problem, Sources};
use crate::ledger::{Ground, ReturnView, ReturnsQuery};

const LIMIT_DEFAULT: usize = 500;
const LIMIT_MAX: usize = 5_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    store: Option<String>,
    customer: Option<String>,
    beyond: Option<bool>,
    #[serde(default)]
    ground: AskedGround,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum AskedGround {
    #[default]
    AtPrice,
    SoFar,
}

#[derive(Serialize)]
struct Returns {
    ground: AskedGround,
    lines: Vec<ReturnLine>,
    /// Goes into `after` of the next call; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<String>,
}

#[derive(Serialize)]
struct ReturnLine {
    position: u64,
    /// Place of the line in the document, from 0.
    line: u32,
    store_id: String,
    /// `null` where the buyer is not known.
    customer_id: Option<String>,
    item_id: String,
    unit: String,
    unit_price: Option<String>,
    quantity: String,
    bought_at_price: String,
    bought_before: String,
    returned_so_far: String,
    /// How much too much it is, on that ground; zero where it is not.
    beyond: String,
}

fn wrong() -> Problem {
    Problem::query("store, customer, beyond, ground (at_price or so_far), after (from next_after) and limit")
}

/// All lines that are beyond what was bought.
pub(super) async fn beyond_bought(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let Query(mut asked) = query.map_err(|_| wrong())?;
    asked.beyond = Some(asked.beyond.unwrap_or(true));
    answer(&sources, asked).await
}

/// The lines of one customer; with `beyond=true` those that are beyond what was bought.
pub(super) async fn of_customer(
    State(sources): State<Arc<Sources>>,
    Path(customer_id): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let Query(mut asked) = query.map_err(|_| wrong())?;
    if asked.customer.replace(customer_id).is_some() {
        return Err(wrong());
    }
    answer(&sources, asked).await
}

async fn answer(sources: &Sources, asked: Asked) -> Answer {
    let after = match asked.after.as_deref() {
        None => (0, 0),
        Some(text) => {
            let (position, line) = text.split_once('.').ok_or_else(wrong)?;
            (position.parse().map_err(|_| wrong())?, line.parse().map_err(|_| wrong())?)
        }
    };
    let ground = match asked.ground {
        AskedGround::AtPrice => Ground::AtPrice,
        AskedGround::SoFar => Ground::SoFar,
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let beyond = asked.beyond.unwrap_or(false).then_some(ground);
    let query = ReturnsQuery { store_id: asked.store, customer_id: asked.customer, beyond, after, limit };
    let views = sources.ledger.returns(&query).await?;
    let last = views.last().filter(|_| views.len() == limit);
    let next_after = last.map(|view| format!("{}.{}", view.position, view.line));
    let lines = views.into_iter().map(|view| line(view, ground)).collect();
    Ok(super::json(&Returns { ground: asked.ground, lines, next_after }))
}

fn line(view: ReturnView, ground: Ground) -> ReturnLine {
    let beyond = match ground {
        Ground::AtPrice => view.quantity - view.bought_at_price,
        Ground::SoFar => view.returned_so_far - view.bought_before,
    };
    ReturnLine {
        position: view.position,
        line: view.line,
        store_id: view.store_id,
        customer_id: view.customer_id,
        item_id: view.item_id,
        unit: view.unit,
        unit_price: view.unit_price,
        quantity: view.quantity.to_string(),
        bought_at_price: view.bought_at_price.to_string(),
        bought_before: view.bought_before.to_string(),
        returned_so_far: view.returned_so_far.to_string(),
        beyond: beyond.max(Decimal::ZERO).normalize().to_string(),
    }
}
