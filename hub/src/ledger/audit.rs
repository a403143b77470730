//! Who changed what by hand: people over the API or the command line, and boxes that get certificates; never what agents send.
//!
//! Invariant: an entry is written in the transaction of the change that it tells of, so that there is neither without the other; a write that
//! was refused has an entry of its own. Entries are only added: no statement of the hub changes one or takes one away (a test looks).

use counterfoil_proto::record::flag;
use counterfoil_proto::time::WallTime;

use super::sql::{Role, Transaction, Value};
use super::watch::first;
use super::{ExceptionView, LedgerError, SqlLedger};
use crate::env;
use crate::ledger::read::{of_exceptions, read_exception};

const NOTE: &str = "INSERT INTO audit (at, who, role, peer, route, what, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const SHOWN: &str = "SELECT number, at, who, role, peer, route, what, outcome FROM audit \
    WHERE number < CAST($1 AS BIGINT) ORDER BY number DESC LIMIT $2";
const CHANGE: &str =
    "UPDATE exceptions SET state = $2, changed_by = $3, reason = $4, changed_at = $5, untold = 1 WHERE id = $1";
const ONE: &str = of_exceptions!("WHERE id = $1");

/// Characters of a text in an entry; what is longer is cut.
const TEXT_CHARS_MAX: usize = 500;

/// Something that somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The name beside the token; of the command line, the person that it names.
    pub who: String,
    /// `read`, `support` or `admin`; `local` where no tokens are asked for, `cli` for the command line, `box` for a box that gets its certificate.
    pub role: &'static str,
    /// The address that it came from; `None` for the command line.
    pub peer: Option<String>,
    /// Method and path of the call, without values; or the command.
    pub route: String,
    /// What is changed, to what and why.
    pub what: String,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditView {
    /// Counts the entries; a number may be missing where a transaction was undone.
    pub number: u64,
    /// When.
    pub at: WallTime,
    /// See [`Deed::who`].
    pub who: String,
    /// See [`Deed::role`].
    pub role: String,
    /// See [`Deed::peer`].
    pub peer: Option<String>,
    /// See [`Deed::route`].
    pub route: String,
    /// See [`Deed::what`].
    pub what: String,
    /// `done`, or why it was not.
    pub outcome: String,
}

/// Adds an entry to the transaction of a change.
pub(super) async fn note(tx: &mut dyn Transaction, deed: &Deed, outcome: &str) -> Result<(), LedgerError> {
    let cut = |text: &str| -> Value { text.chars().take(TEXT_CHARS_MAX).collect::<String>().into() };
    let entry = vec![
        env::wall().0.into(),
        cut(&deed.who),
        deed.role.into(),
        deed.peer.clone().into(),
        cut(&deed.route),
        cut(&deed.what),
        cut(outcome),
    ];
    tx.execute_many(NOTE, vec![entry]).await
}

impl SqlLedger {
    /// Says what was done about an exception; `None` where it is not known, which is noted as well.
    pub(super) async fn set_exception(
        &self,
        id: &str,
        change: flag::Change,
        (by, reason): (&str, &str),
        deed: &Deed,
    ) -> Result<Option<ExceptionView>, LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        let changed = vec![id.into(), change.as_str().into(), by.into(), reason.into(), env::wall().0.into()];
        tx.execute_many(CHANGE, vec![changed]).await?;
        let found = first(tx.query(ONE, vec![id.into()]).await?).map(read_exception).transpose()?;
        note(&mut *tx, deed, if found.is_some() { "done" } else { "refused: not known" }).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await?;
        Ok(found)
    }

    /// Notes what was refused, or what is done in many transactions.
    pub(crate) async fn note_alone(&self, deed: &Deed, outcome: &str) -> Result<(), LedgerError> {
        let mut tx = self.database.begin(Role::Desk).await?;
        note(&mut *tx, deed, outcome).await?;
        let settled = self.watch.settle(&mut *tx, Role::Desk).await?;
        self.watch.commit(tx, settled).await.map(|_| ())
    }

    /// Entries before a number, the newest first.
    pub(super) async fn view_audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditView>, LedgerError> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let params = vec![before.unwrap_or(u64::MAX).into(), limit.into()];
        let mut entries = Vec::new();
        for row in self.database.read(SHOWN, params).await? {
            let mut row = row.read();
            entries.push(AuditView {
                number: row.count()?,
                at: WallTime(row.int()?),
                who: row.text()?,
                role: row.text()?,
                peer: row.text_or_null()?,
                route: row.text()?,
                what: row.text()?,
                outcome: row.text()?,
            });
        }
        Ok(entries)
    }
}
