//! Keeps up with who is let in and who is kept out: the set that the receiver takes nothing from, the list of revoked certificates and the access
//! rules for the broker.
//!
//! Invariant: a bar holds in every hub process within a second of the ledger's knowing it, and while the ledger cannot be asked the last one
//! holds. A file is written only when something in it changed, so that whoever watches it reloads a broker no more often than that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_config::replace::{Readable, replace};
use counterfoil_proto::id::{AgentId, Source, StoreId};
use tokio::sync::watch;

use super::{Authority, AuthorityError};
use crate::env;
use crate::ledger::{IdentityRole, IdentityView, LedgerError, RevokedCertificate, SqlLedger};
use crate::run::stopped;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The list of revoked certificates is written anew this often, so that it never runs out.
const RENEW_LIST_EVERY_MS: u64 = 86_400_000;

/// The agents of whom nothing is taken.
pub type Barred = Arc<BTreeSet<Source>>;

/// The agents that the ledger bars.
pub async fn barred(ledger: &SqlLedger) -> Result<Barred, LedgerError> {
    Ok(Arc::new(ledger.barred().await?.iter().filter_map(|name| agent(name)).collect()))
}

/// The agent of that common name.
pub fn agent(common_name: &str) -> Option<Source> {
    let (store, agent) = common_name.split_once('.')?;
    Some(Source { store_id: StoreId::new(store).ok()?, agent_id: AgentId::new(agent).ok()? })
}

/// Looks again and again, until the process stops.
pub(crate) async fn run(
    ledger: Arc<SqlLedger>,
    authority: Option<Arc<Authority>>,
    told: watch::Sender<Barred>,
    mut stop: watch::Receiver<bool>,
) {
    let mut files = authority.map(Files::new);
    loop {
        match barred(&ledger).await {
            Ok(now) => {
                told.send_if_modified(|before| {
                    let is_new = *before != now;
                    for agent in now.difference(before) {
                        tracing::warn!(%agent, "The identity was revoked; nothing is taken from this agent");
                    }
                    *before = now;
                    is_new
                });
            }
            Err(error) => tracing::debug!(%error, "Who is revoked is not known anew; what was known holds"),
        }
        if let Some(files) = &mut files
            && let Err(error) = files.keep().await
        {
            tracing::warn!(%error, "The broker's files cannot be kept up");
        }
        tokio::select! {
            () = env::pause(LOOK_EVERY) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// The files for the broker, as they were written last.
struct Files {
    authority: Arc<Authority>,
    revoked: Option<(Vec<RevokedCertificate>, u64)>,
    rules: Option<String>,
}

impl Files {
    const fn new(authority: Arc<Authority>) -> Self {
        Self { authority, revoked: None, rules: None }
    }

    async fn keep(&mut self) -> Result<(), AuthorityError> {
        let authority = Arc::clone(&self.authority);
        let now_ms = env::now().0;
        if let Some(file) = &authority.config().crl_file {
            let revoked = authority.ledger().revoked_certificates().await?;
            let is_kept = |(known, at): &(Vec<RevokedCertificate>, u64)| {
                *known == revoked && now_ms.saturating_sub(*at) < RENEW_LIST_EVERY_MS
            };
            if !self.revoked.as_ref().is_some_and(is_kept) {
                write(file, &authority.revocation_list().await?)?;
                self.revoked = Some((revoked, now_ms));
            }
        }
        if let Some(file) = &authority.config().acl_file {
            let rules = access_rules(&authority.ledger().identities().await?, &authority.config().topic_prefix);
            if self.rules.as_ref() != Some(&rules) && std::fs::read_to_string(file).ok().as_ref() != Some(&rules) {
                write(file, &rules)?;
            }
            self.rules = Some(rules);
        }
        Ok(())
    }
}

fn write(file: &Path, text: &str) -> Result<(), AuthorityError> {
    replace(file, text.as_bytes(), Readable::ByAll)
        .map_err(|why| AuthorityError::Write { file: file.display().to_string(), why })
}

/// Writes the broker's files once, for a command that changed something.
pub async fn write_files(authority: &Arc<Authority>) -> Result<(), AuthorityError> {
    Files::new(Arc::clone(authority)).keep().await
}

/// The access rules for Mosquitto: each agent its own subtree, each hub process all of them; nobody else anything. Whoever is barred has no rules,
/// which also holds for sessions that are open, once Mosquitto was told (SIGHUP).
pub fn access_rules(identities: &[IdentityView], prefix: &str) -> String {
    let mut rules = String::from("# Written by counterfoil-hub; what is changed here by hand is lost.\n");
    for identity in identities.iter().filter(|identity| identity.barred.is_none()) {
        let name = &identity.common_name;
        let topics = match (identity.role, agent(name)) {
            (Some(IdentityRole::Hub), _) => [
                format!("read {prefix}/+/+/state"),
                format!("read {prefix}/+/+/up/#"),
                format!("write {prefix}/+/+/down/#"),
            ],
            (Some(IdentityRole::Agent), Some(Source { store_id, agent_id })) => {
                let base = format!("{prefix}/{store_id}/{agent_id}");
                [format!("write {base}/state"), format!("write {base}/up/#"), format!("read {base}/down/#")]
            }
            (Some(IdentityRole::Agent | IdentityRole::Server) | None, _) => continue,
        };
        let written = write!(rules, "\nuser {name}\n")
            .and_then(|()| topics.iter().try_for_each(|topic| writeln!(rules, "topic {topic}")));
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    rules
}
