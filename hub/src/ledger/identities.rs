//! Who was let in and who is kept out: one-time tokens, certificates that were signed, and names that are barred.
//!
//! Invariant: of a token only the hash is here; it lets in one name, until it runs out, and with the one public key that came with it first (so that
//! an answer that was lost can be asked for again). Revoking a name revokes every certificate that it has and bars it; a token that
//! is used afterwards lifts the bar and leaves the old certificates revoked. What a restored ledger has forgotten to be revoked has to be revoked again;
//! what it has forgotten to be issued still holds.
//! Not known here: keys, signatures, how a certificate looks.

use counterfoil_proto::time::WallTime;

use super::sql::{self, Value};
use super::{Deed, LedgerError, SqlLedger, audit};
use crate::env;

const FORGET: &str = "DELETE FROM enrolments WHERE valid_until < $1";
const MAKE: &str = "INSERT INTO enrolments (token, common_name, made_at, valid_until) VALUES ($1, $2, $3, $4)";
const TOKEN: &str = "SELECT common_name, valid_until, public_key FROM enrolments WHERE token = $1 FOR UPDATE";
const USE: &str = "UPDATE enrolments SET public_key = $2 WHERE token = $1";
const LET_IN: &str =
    "DELETE FROM barred WHERE common_name = $1 AND since <= (SELECT made_at FROM enrolments WHERE token = $2)";
const NOTE: &str =
    "INSERT INTO certificates (serial, common_name, role, issued_at, not_after) VALUES ($1, $2, $3, $4, $5)";
const BARRED: &str = "SELECT common_name FROM barred ORDER BY common_name";
const IS_REVOKED: &str = "SELECT 1 FROM barred WHERE common_name = $1 \
    UNION ALL SELECT 1 FROM certificates WHERE serial = $2 AND revoked_at IS NOT NULL";
const BAR: &str = "INSERT INTO barred (common_name, since, reason) VALUES ($1, $2, $3) \
    ON CONFLICT (common_name) DO UPDATE SET since = excluded.since, reason = excluded.reason";
const REVOKE: &str = "UPDATE certificates SET revoked_at = $2 WHERE common_name = $1 AND revoked_at IS NULL";
const DROP_TOKENS: &str = "DELETE FROM enrolments WHERE common_name = $1";
const REVOKED: &str = "SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL AND not_after >= $1 ORDER BY revoked_at, serial";
const SHOWN: &str = "SELECT c.common_name, c.role, COUNT(*), MAX(c.issued_at), \
    MAX(CASE WHEN c.revoked_at IS NULL THEN c.not_after END), b.since, b.reason \
    FROM certificates c LEFT JOIN barred b ON b.common_name = c.common_name \
    GROUP BY c.common_name, c.role, b.since, b.reason \
    UNION ALL SELECT common_name, '', 0, NULL, NULL, since, reason FROM barred b \
    WHERE NOT EXISTS (SELECT 1 FROM certificates c WHERE c.common_name = b.common_name) ORDER BY 1";

/// What becomes of a token that somebody shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// It lets in that name.
    For(String),
    /// It is none of ours, or no longer.
    Unknown,
    /// It was valid until then.
    Late(WallTime),
    /// It was used with another key.
    Used,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A box in a store.
    Agent,
    /// A hub process, as a client of the broker.
    Hub,
    /// A broker, or the API of a hub.
    Server,
}

impl Role {
    const ALL: [Self; 3] = [Self::Agent, Self::Hub, Self::Server];

    /// As the ledger and people have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hub => "hub",
            Self::Server => "server",
        }
    }
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// Whose.
    pub common_name: String,
    /// What for.
    pub role: Role,
    /// Until when it is valid.
    pub not_after: WallTime,
}

/// A certificate for the list of revoked ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// Since when.
    pub revoked_at: WallTime,
}

/// A name, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityView {
    /// The name.
    pub common_name: String,
    /// What it is; `None` for one that is only kept out.
    pub role: Option<Role>,
    /// Certificates that it was ever given.
    pub certificates: u64,
    /// When the last one was signed.
    pub issued_at: Option<WallTime>,
    /// Until when the best one is valid that is not revoked.
    pub not_after: Option<WallTime>,
    /// Since when it is barred, and why.
    pub barred: Option<(WallTime, String)>,
}

impl SqlLedger {
    /// Keeps a token's hash; forgets those that ran out long ago.
    pub async fn make_enrolment(
        &self,
        token: [u8; 32],
        common_name: &str,
        until: WallTime,
        deed: &Deed,
    ) -> Result<(), LedgerError> {
        const KEPT_MS: i64 = 30 * 86_400_000;
        let now = env::wall().0;
        let mut tx = self.database.begin(sql::Role::Desk).await?;
        tx.execute_many(FORGET, vec![vec![now.saturating_sub(KEPT_MS).into()]]).await?;
        tx.execute_many(MAKE, vec![vec![token.into(), common_name.into(), now.into(), until.0.into()]]).await?;
        audit::note(&mut *tx, deed, "done").await?;
        tx.commit().await
    }

    /// What a token stands for that comes with this public key. Changes nothing.
    pub async fn look_up_enrolment(&self, token: [u8; 32], public_key: &[u8]) -> Result<Enrolment, LedgerError> {
        let mut tx = self.database.begin(sql::Role::Desk).await?;
        let rows = tx.query(TOKEN, vec![token.into()]).await?;
        tx.rollback().await?;
        let Some(row) = rows.into_iter().next() else { return Ok(Enrolment::Unknown) };
        let mut row = row.read();
        let (common_name, until, used_with) = (row.text()?, WallTime(row.int()?), row.bytes_or_null()?);
        Ok(if env::wall() > until {
            Enrolment::Late(until)
        } else if used_with.is_some_and(|used_with| used_with != public_key) {
            Enrolment::Used
        } else {
            Enrolment::For(common_name)
        })
    }

    /// Notes a certificate before it is handed out; with the token and the key that it is handed out for, the token is bound to the key and lifts a
    /// bar that is older than it. `false` where the token was used with another key meanwhile.
    pub async fn note_issued(
        &self,
        issued: &Issued,
        enrolment: Option<([u8; 32], Vec<u8>)>,
        deed: &Deed,
    ) -> Result<bool, LedgerError> {
        let mut tx = self.database.begin(sql::Role::Desk).await?;
        if let Some((token, public_key)) = enrolment {
            let row = tx.query(TOKEN, vec![token.into()]).await?.into_iter().next();
            let used_with = row.map(|row| {
                let mut row = row.read();
                row.text().and_then(|_| row.int()).and_then(|_| row.bytes_or_null())
            });
            match used_with.transpose()? {
                Some(None) => {}
                Some(Some(used_with)) if used_with == public_key => {}
                Some(Some(_)) | None => {
                    tx.rollback().await?;
                    return Ok(false);
                }
            }
            tx.execute_many(USE, vec![vec![token.into(), public_key.into()]]).await?;
            tx.execute_many(LET_IN, vec![vec![issued.common_name.as_str().into(), token.into()]]).await?;
        }
        let row: Vec<Value> = vec![
            issued.serial.clone().into(),
            issued.common_name.as_str().into(),
            issued.role.as_str().into(),
            env::wall().0.into(),
            issued.not_after.0.into(),
        ];
        tx.execute_many(NOTE, vec![row]).await?;
        audit::note(&mut *tx, deed, "done").await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Revokes all that a name has, and bars it. Tokens that were made for it are void.
    pub async fn revoke(&self, common_name: &str, reason: &str, deed: &Deed) -> Result<(), LedgerError> {
        let now = env::wall().0;
        let mut tx = self.database.begin(sql::Role::Desk).await?;
        tx.execute_many(BAR, vec![vec![common_name.into(), now.into(), reason.into()]]).await?;
        tx.execute_many(REVOKE, vec![vec![common_name.into(), now.into()]]).await?;
        tx.execute_many(DROP_TOKENS, vec![vec![common_name.into()]]).await?;
        audit::note(&mut *tx, deed, "done").await?;
        tx.commit().await
    }

    /// Whether a certificate is revoked, or its name barred.
    pub async fn is_revoked(&self, common_name: &str, serial: &[u8]) -> Result<bool, LedgerError> {
        let rows = self.database.read(IS_REVOKED, vec![common_name.into(), serial.to_vec().into()]).await?;
        Ok(!rows.is_empty())
    }

    /// The names of whom nothing is taken.
    pub async fn barred(&self) -> Result<Vec<String>, LedgerError> {
        let rows = self.database.read(BARRED, Vec::new()).await?;
        rows.into_iter().map(|row| row.read().text()).collect()
    }

    /// Revoked certificates that have not expired.
    pub async fn revoked_certificates(&self) -> Result<Vec<RevokedCertificate>, LedgerError> {
        let rows = self.database.read(REVOKED, vec![env::wall().0.into()]).await?;
        let read = |row: sql::Row| {
            let mut row = row.read();
            Ok(RevokedCertificate { serial: row.bytes()?, revoked_at: WallTime(row.int()?) })
        };
        rows.into_iter().map(read).collect()
    }

    /// Every name that was ever let in or kept out.
    pub async fn identities(&self) -> Result<Vec<IdentityView>, LedgerError> {
        let mut found = Vec::new();
        for row in self.database.read(SHOWN, Vec::new()).await? {
            let mut row = row.read();
            let (common_name, role, certificates) = (row.text()?, row.text()?, row.count()?);
            let role = Role::ALL.into_iter().find(|known| known.as_str() == role);
            let (issued_at, not_after) = (row.int_or_null()?.map(WallTime), row.int_or_null()?.map(WallTime));
            let (since, reason) = (row.int_or_null()?.map(WallTime), row.text_or_null()?);
            found.push(IdentityView {
                common_name,
                role,
                certificates,
                issued_at,
                not_after,
                barred: since.zip(reason),
            });
        }
        Ok(found)
    }
}
