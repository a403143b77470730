//! Who deals with exceptions, and the letters about them that wait to be delivered.
//!
//! Invariant: an exception gets its route, and each change of its state its letter, in one transaction, under the lock of its row: any number of
//! hub processes write each letter once. A letter keeps its id and its body through all attempts. Whoever takes one moves its `due_at` on by
//! more than an attempt lasts; who dies with it in hand leaves it to the next, with the same id. States that follow each other faster than
//! somebody looks are told as the last one. Nothing here sends anything.

use counterfoil_proto::id::SessionId;

use super::read::{TOLD_STATE, of_exceptions, read_exception};
use super::sql::{Role, Transaction, Value};
use super::view::ExceptionView;
use super::{LedgerError, SqlLedger, watch};
use crate::env;
use crate::routing::{Route, Routes, escalation_target};

/// Exceptions that are looked at in one transaction.
const AT_ONCE: i64 = 200;
/// Letters that were delivered are kept this long, for people who look.
const KEEP_MS: i64 = 30 * 86_400_000;

const UNTOLD: &str = of_exceptions!("WHERE untold = 1 ORDER BY opened_at, id LIMIT $1 FOR UPDATE SKIP LOCKED");
const OVERDUE: &str = of_exceptions!(
    "WHERE escalate_at <= $1 AND state IN ('open', 'acknowledged') ORDER BY escalate_at LIMIT $2 FOR UPDATE SKIP LOCKED"
);
const ESCALATE: &str = "UPDATE exceptions SET escalated_at = $2, escalate_at = NULL, owner = $3 WHERE id = $1";
const TOLD: &str = "UPDATE exceptions SET untold = 0, told_state = state, route = $2, owner = COALESCE($3, owner), escalate_at = $4 \
    WHERE id = $1";
const WRITE: &str = "INSERT INTO outbox (id, exception_id, target, made_at, body, attempts, due_at) \
    VALUES ($1, $2, $3, $4, $5, 0, $4)";
const TAKE: &str = "SELECT number, id, exception_id, body, attempts FROM outbox \
    WHERE target = $1 AND delivered_at IS NULL AND due_at <= $2 ORDER BY due_at, number LIMIT $3 FOR UPDATE SKIP LOCKED";

/// A letter in somebody's hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// In the ledger.
    pub number: i64,
    /// The same in every attempt, and no other letter's.
    pub id: SessionId,
    /// What it is about.
    pub exception_id: String,
    /// What is sent.
    pub body: Vec<u8>,
    /// This one included.
    pub attempts: u32,
}

/// What happened to an exception, as a letter says it: its state, or `escalated`.
const ESCALATED: &str = "escalated";

impl SqlLedger {
    /// Gives routes to exceptions that are new or changed, escalates those whose time is over, and writes the letters. Says how many it looked
    /// at; as many as at once means that there may be more.
    pub async fn tell(&self, routes: &Routes) -> Result<usize, LedgerError> {
        let now = env::wall().0;
        let mut tx = self.database.begin(Role::Desk).await?;
        let (mut letters, mut told, mut escalated) = (Vec::new(), Vec::new(), Vec::new());
        let untold = tx.query(UNTOLD, vec![AT_ONCE.into()]).await?;
        let mut count = untold.len();
        for row in untold {
            let (exception, told_state) = (read_exception(row.clone())?, row.0.into_iter().nth(TOLD_STATE));
            let told_state = if let Some(Value::Text(state)) = told_state { Some(state) } else { None };
            let route = routes.find(&exception.code, &exception.store_id);
            let is_live = matches!(exception.state.as_str(), "open" | "acknowledged");
            // What ended before anybody was told of it needs nobody.
            let is_news = told_state.as_deref() != Some(exception.state.as_str()) && (is_live || told_state.is_some());
            if let Some(route) = route.filter(|route| is_news && route.webhook.is_some()) {
                let owner = exception.owner.clone().filter(|_| exception.escalated_at.is_some());
                let owner = owner.unwrap_or_else(|| route.owner.clone());
                letters.push(letter(&exception, route, &exception.state, &owner, &route.name, routes, now)?);
            }
            let after = route.filter(|_| is_live && exception.escalated_at.is_none());
            let after = after.and_then(|route| route.escalation.as_ref()).map(|escalation| escalation.after);
            let escalate_at = after
                .map(|after| exception.opened_at.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)));
            let owner = route.filter(|_| exception.escalated_at.is_none()).map(|route| route.owner.as_str());
            let name = route.map(|route| route.name.as_str());
            told.push(vec![exception.id.into(), name.into(), owner.into(), escalate_at.into()]);
        }
        tx.execute_many(TOLD, told).await?;
        let overdue = tx.query(OVERDUE, vec![now.into(), AT_ONCE.into()]).await?;
        count = count.max(overdue.len());
        for row in overdue {
            let exception = read_exception(row)?;
            let route = exception.route.as_deref().and_then(|name| routes.named(name));
            let route = route.or_else(|| routes.find(&exception.code, &exception.store_id));
            let escalation = route.and_then(|route| Some((route, route.escalation.as_ref()?)));
            let Some((route, escalation)) = escalation else {
                // Nobody is to be told any more.
                escalated.push(vec![exception.id.into(), Value::Null, exception.owner.into()]);
                continue;
            };
            if escalation.webhook.is_some() {
                let target = escalation_target(&route.name);
                letters.push(letter(&exception, route, ESCALATED, &escalation.owner, &target, routes, now)?);
            }
            escalated.push(vec![exception.id.into(), now.into(), escalation.owner.as_str().into()]);
        }
        if count == 0 {
            tx.rollback().await?;
            return Ok(0);
        }
        tx.execute_many(ESCALATE, escalated).await?;
        tx.execute_many(WRITE, letters).await?;
        let old = "DELETE FROM outbox WHERE delivered_at < $1";
        tx.execute_many(old, vec![vec![now.saturating_sub(KEEP_MS).into()]]).await?;
        self.finish(tx).await?;
        Ok(count)
    }

    /// Takes letters to a target that are due; nobody else has them until `lease_ms` is over.
    pub async fn take_letters(&self, target: &str, count: i64, lease_ms: i64) -> Result<Vec<Letter>, LedgerError> {
        let now = env::wall().0;
        let mut tx = self.database.begin(Role::Desk).await?;
        let rows = tx.query(TAKE, vec![target.into(), now.into(), count.into()]).await?;
        if rows.is_empty() {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        let mut letters = Vec::new();
        for row in rows {
            let mut row = row.read();
            letters.push(Letter {
                number: row.int()?,
                id: SessionId(row.array()?),
                exception_id: row.text()?,
                body: row.bytes()?,
                attempts: u32::try_from(row.int()?).unwrap_or(u32::MAX).saturating_add(1),
            });
        }
        let sql = "UPDATE outbox SET due_at = $2, attempts = $3 WHERE number = $1";
        let until = now.saturating_add(lease_ms);
        let rows =
            letters.iter().map(|letter| vec![letter.number.into(), until.into(), i64::from(letter.attempts).into()]);
        tx.execute_many(sql, rows.collect()).await?;
        self.finish(tx).await?;
        Ok(letters)
    }

    /// Notes that a letter was accepted.
    pub async fn delivered(&self, letter: &Letter) -> Result<(), LedgerError> {
        let now = env::wall().0;
        let mut tx = self.database.begin(Role::Desk).await?;
        let sql = "UPDATE outbox SET delivered_at = $2, failure = NULL WHERE number = $1";
        tx.execute_many(sql, vec![vec![letter.number.into(), now.into()]]).await?;
        let sql = "UPDATE exceptions SET notified_at = COALESCE(notified_at, $2) WHERE id = $1";
        tx.execute_many(sql, vec![vec![letter.exception_id.as_str().into(), now.into()]]).await?;
        self.finish(tx).await
    }

    /// Notes that a letter was not accepted, and when to try again.
    pub async fn not_delivered(&self, letter: &Letter, failure: &str, pause_ms: i64) -> Result<(), LedgerError> {
        let due_at = env::wall().0.saturating_add(pause_ms);
        let mut tx = self.database.begin(Role::Desk).await?;
        let sql = "UPDATE outbox SET due_at = $2, failure = $3 WHERE number = $1 AND delivered_at IS NULL";
        tx.execute_many(sql, vec![vec![letter.number.into(), due_at.into(), failure.into()]]).await?;
        self.finish(tx).await
    }

    async fn finish(&self, mut tx: Box<dyn Transaction>) -> Result<(), LedgerError> {
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await.map(|_| ())
    }

    /// Letters that wait, how many of them failed before, and when the oldest was written.
    pub(super) async fn letters_waiting(&self) -> Result<(u64, u64, Option<i64>), LedgerError> {
        let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN failure IS NULL THEN 0 ELSE 1 END), 0) AS BIGINT), MIN(made_at) \
            FROM outbox WHERE delivered_at IS NULL";
        let row = watch::first(self.database.read(sql, vec![]).await?).ok_or(LedgerError::Shape)?;
        let mut row = row.read();
        Ok((row.count()?, row.count()?, row.int_or_null()?))
    }
}

/// A row of the outbox: its body is a `CloudEvent` in structured JSON.
fn letter(
    exception: &ExceptionView,
    route: &Route,
    change: &str,
    owner: &str,
    target: &str,
    routes: &Routes,
    now: i64,
) -> Result<Vec<Value>, LedgerError> {
    let id = env::random_id();
    let region = routes.regions.get(&exception.store_id).map(String::as_str);
    let body =
        crate::notify::event(id, exception, &crate::notify::About { change, route: &route.name, owner, region, now });
    let body = serde_json::to_vec(&body).map_err(|_| LedgerError::Shape)?;
    Ok(vec![id.0.into(), exception.id.as_str().into(), target.into(), now.into(), body.into()])
}
