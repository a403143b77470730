//! Notices that the ledger was restored from a backup, and gives it a new hub epoch.
//!
//! Invariant: every transaction of this process counts up the row of its role. What the row says after that can only be one more than what
//! was committed last, or as many more as there were commits of unknown outcome. Anything else, or no row at all, means that the ledger
//! is an older copy. Rows are per process and role: nobody waits for another's.

use std::sync::Mutex;

use counterfoil_proto::id::SessionId;

use super::LedgerError;
use super::sql::{Database, Role, Row, Transaction, Value};
use crate::env;

/// Rows of processes that were not seen for this long are cleared away.
const FORGET_MS: i64 = 7 * 86_400_000;

/// What a look at the ledger found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It is what it was.
    Same(SessionId),
    /// It went back, or another process found that it did: every agent has to say hello.
    WentBack(SessionId),
}

#[derive(Debug)]
pub(super) struct Watch {
    process: SessionId,
    remembered: Mutex<Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    hub_epoch: SessionId,
    roles: [Count; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    committed: i64,
    in_doubt: i64,
}

/// A transaction that counted itself and may now be committed.
#[derive(Debug)]
pub(super) struct Settled {
    role: Role,
    commits: i64,
    pub(super) hub_epoch: SessionId,
}

impl Watch {
    pub(super) async fn sign_in(database: &dyn Database) -> Result<Self, LedgerError> {
        let process = env::random_id();
        let mut tx = database.begin(Role::Desk).await?;
        let found = current(&mut *tx).await?;
        let hub_epoch = match found {
            Some(hub_epoch) => hub_epoch,
            None => mint(&mut *tx, "created").await?,
        };
        enrol(&mut *tx, process).await?;
        let old = env::wall().0.saturating_sub(FORGET_MS);
        let forget = "DELETE FROM processes WHERE seen_at < $1";
        tx.execute_many(forget, vec![vec![old.into()]]).await?;
        tx.commit().await?;
        let roles = [Count::default(); 3];
        let remembered = Mutex::new(Remembered { hub_epoch, roles });
        Ok(Self { process, remembered })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        // Nothing panics while it is held.
        self.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn hub_epoch(&self) -> SessionId {
        self.remembered().hub_epoch
    }

    /// Counts the transaction; the last thing before its commit.
    pub(super) async fn settle(&self, tx: &mut dyn Transaction, role: Role) -> Result<Settled, LedgerError> {
        let sql = "UPDATE processes SET commits = commits + 1, seen_at = $3 WHERE process = $1 AND role = $2 \
            RETURNING commits, (SELECT hub_epoch FROM hub WHERE one = 1)";
        let under = self.hub_epoch();
        let params = vec![self.process.0.into(), role.code().into(), env::wall().0.into()];
        if role == Role::Desk {
            self.look_at_the_others(tx, under).await?;
        }
        let row = tx.query(sql, params).await?.pop().ok_or(LedgerError::WentBack { under })?;
        let mut row = row.read();
        let (commits, hub_epoch) = (row.int()?, SessionId(row.array()?));
        let count = self.remembered().roles[index(role)];
        let expected = count.committed.saturating_add(1);
        if hub_epoch != under || commits < expected || commits > expected.saturating_add(count.in_doubt) {
            return Err(LedgerError::WentBack { under });
        }
        Ok(Settled { role, commits, hub_epoch })
    }

    /// The desk's regular look also compares what the other roles committed last: while no till sells they commit nothing, and would not
    /// notice by themselves. What is remembered is read first, so a commit that happens meanwhile only makes the row larger.
    async fn look_at_the_others(&self, tx: &mut dyn Transaction, under: SessionId) -> Result<(), LedgerError> {
        let roles = self.remembered().roles;
        for role in Role::ALL {
            let sql = "SELECT commits FROM processes WHERE process = $1 AND role = $2";
            let rows = tx.query(sql, vec![self.process.0.into(), role.code().into()]).await?;
            let commits = first(rows).ok_or(LedgerError::WentBack { under })?.read().int()?;
            if commits < roles[index(role)].committed {
                return Err(LedgerError::WentBack { under });
            }
        }
        Ok(())
    }

    /// Commits, and remembers that.
    pub(super) async fn commit(&self, tx: Box<dyn Transaction>, settled: Settled) -> Result<SessionId, LedgerError> {
        // In doubt from now on: whoever waits for this may go away, and the commit happens all the same.
        let place = index(settled.role);
        self.remembered().roles[place].in_doubt += 1;
        tx.commit().await?;
        self.remembered().roles[place] = Count { committed: settled.commits, in_doubt: 0 };
        Ok(settled.hub_epoch)
    }

    /// After [`LedgerError::WentBack`]: mints a new hub epoch, unless somebody did, and signs this process in again.
    pub(super) async fn come_back(&self, database: &dyn Database, under: SessionId) -> Result<SessionId, LedgerError> {
        let mut tx = database.begin(Role::Desk).await?;
        let known = self.hub_epoch();
        if known != under {
            tx.rollback().await?;
            return Ok(known);
        }
        let hub_epoch = match current(&mut *tx).await? {
            Some(found) if found != under => found,
            Some(_) | None => mint(&mut *tx, "the ledger went back").await?,
        };
        enrol(&mut *tx, self.process).await?;
        tx.commit().await?;
        let roles = [Count::default(); 3];
        *self.remembered() = Remembered { hub_epoch, roles };
        Ok(hub_epoch)
    }
}

const fn index(role: Role) -> usize {
    match role {
        Role::Intake => 0,
        Role::Posting => 1,
        Role::Desk => 2,
    }
}

async fn current(tx: &mut dyn Transaction) -> Result<Option<SessionId>, LedgerError> {
    // The row is there before it is locked, so that two processes that start at once mint one epoch.
    let none = Value::from([0; 16]);
    let insert = "INSERT INTO hub (one, hub_epoch) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
    tx.execute_many(insert, vec![vec![none]]).await?;
    let rows = tx.query("SELECT hub_epoch FROM hub WHERE one = 1 FOR UPDATE", vec![]).await?;
    let row = rows.into_iter().next().ok_or(LedgerError::Shape)?;
    let found = SessionId(row.read().array()?);
    Ok((found != SessionId([0; 16])).then_some(found))
}

async fn mint(tx: &mut dyn Transaction, reason: &str) -> Result<SessionId, LedgerError> {
    let minted = env::random_id();
    let insert = "INSERT INTO poster (one, next_position) VALUES (1, 1) ON CONFLICT (one) DO NOTHING";
    tx.execute_many(insert, vec![vec![]]).await?;
    let update = "UPDATE hub SET hub_epoch = $1 WHERE one = 1";
    tx.execute_many(update, vec![vec![minted.0.into()]]).await?;
    let note = "INSERT INTO hub_epochs (number, hub_epoch, minted_at, reason, restore_point) \
        SELECT COALESCE((SELECT MAX(number) FROM hub_epochs), 0) + 1, $1, $2, $3, next_position - 1 FROM poster WHERE one = 1";
    tx.execute_many(note, vec![vec![minted.0.into(), env::wall().0.into(), reason.into()]]).await?;
    Ok(minted)
}

async fn enrol(tx: &mut dyn Transaction, process: SessionId) -> Result<(), LedgerError> {
    let upsert = "INSERT INTO processes (process, role, commits, seen_at) VALUES ($1, $2, 0, $3) \
        ON CONFLICT (process, role) DO UPDATE SET commits = 0, seen_at = excluded.seen_at";
    let now = Value::from(env::wall().0);
    let rows = Role::ALL.map(|role| vec![process.0.into(), role.code().into(), now.clone()]);
    tx.execute_many(upsert, rows.into()).await
}

/// Rows whose shape is one optional value, for statements that look for one.
pub(super) fn first(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}
