//! Starts the parts, waits for the word to stop, and stops them in the order of the data's flow.
//!
//! Invariant: the ledger is open before anything is heard, and the broker is heard before the API says ready.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_config::tls::ClientFiles;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{self, Sources};
use crate::authority::{Authority, upkeep};
use crate::config::{Config, LedgerConfig, Place};
use crate::env;
use crate::error::ExitError;
use crate::import::{self, Imported, Wanted};
use crate::ledger::postgres::Postgres;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{Database, Deed, Ledger, LedgerError, ReplayPart, ReplayQuery, ReplayView, SqlLedger};
use crate::mqtt::Line;
use crate::notify;
use crate::posting;
use crate::receiver::{Counters, Receiver};
use crate::service;

/// How long a ledger that cannot be reached is waited for at the start; systemd begins anew after that.
const LEDGER_PATIENCE: Duration = Duration::from_mins(1);
/// For a transaction at work when the hub stops; what is not acknowledged comes again.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The database that the configuration names.
pub fn database(config: &LedgerConfig) -> Result<Box<dyn Database>, ExitError> {
    match &config.place {
        Place::Sqlite(path) => Ok(Box::new(Sqlite::open(path)?)),
        Place::Postgres { url, password_file, ca_file } => {
            let wrong = |why: String| ExitError::LedgerFiles(format!("The ledger's connection cannot be made: {why}"));
            let mut server: tokio_postgres::Config =
                url.parse().map_err(|_| wrong("ledger.url is not understood".to_owned()))?;
            if let Some(file) = password_file {
                let text =
                    std::fs::read_to_string(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
                server.password(text.trim_end_matches(['\r', '\n']));
            }
            let tls = match ca_file {
                Some(ca_file) => {
                    let tls = ClientFiles { ca_file: ca_file.clone(), identity: None }
                        .read()
                        .map_err(|error| wrong(error.to_string()))?;
                    server.ssl_mode(tokio_postgres::config::SslMode::Require);
                    Some(Arc::new(tls))
                }
                None if server.get_ssl_mode() == tokio_postgres::config::SslMode::Require => {
                    return Err(wrong("sslmode=require needs ledger.ca_file to verify the server with".to_owned()));
                }
                None => None,
            };
            Ok(Box::new(Postgres::new(server, tls)))
        }
    }
}

async fn open(config: &LedgerConfig) -> Result<SqlLedger, ExitError> {
    let patience = tokio::time::Instant::now() + LEDGER_PATIENCE;
    loop {
        let error = match SqlLedger::open(database(config)?, config.safe_when).await {
            Ok(ledger) => return Ok(ledger),
            Err(error) => error,
        };
        let may_pass = matches!(error, LedgerError::Unreachable { .. } | LedgerError::Busy { .. });
        if !may_pass || tokio::time::Instant::now() > patience {
            return Err(error.into());
        }
        tracing::warn!(%error, "The ledger is waited for");
        service::waiting(LEDGER_PATIENCE);
        tokio::time::sleep(env::jittered(1_000)).await;
    }
}

/// Runs the hub until `shutdown` completes. A crypto provider must have been installed.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), ExitError> {
    let opened = open(&config.ledger).await?;
    tracing::info!(ledger = opened.kind(), hub_epoch = %opened.hub_epoch(), "The ledger is open");
    let opened = Arc::new(opened);
    let ledger: Arc<dyn Ledger> = Arc::<SqlLedger>::clone(&opened);
    start_broker(&config)?;
    let authority = open_authority(&config, &opened)?;
    let encryption = api::encryption(&config).map_err(|error| ExitError::ApiFiles(error.to_string()))?;
    let (bar, barred) = watch::channel(upkeep::barred(&opened).await?);
    let listener =
        api::bind(config.api.listen).await.map_err(|why| ExitError::Listen { listen: config.api.listen, why })?;
    let (stop, stopped) = watch::channel(false);
    let (stored, wake) = watch::channel(0_u64);
    let (posted, last_position) = watch::channel(0_u64);
    let counters = Arc::new(Counters::default());
    let (line, incoming, outlet) = Line::new(config.mqtt.clone());
    let (judged, standings) = watch::channel(Vec::new());
    let certificate = config.mqtt.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    let sources = Arc::new(Sources {
        ledger: Arc::clone(&ledger),
        counters: Arc::clone(&counters),
        dropped: Arc::clone(&line.dropped),
        outlet: outlet.clone(),
        posted: last_position,
        tokens: config.api.tokens.clone(),
        allowed_hosts: config.api.allowed_hosts.clone(),
        regions: config.exceptions.regions.clone(),
        standings,
        certificates: certificate.map(|identity| ("mqtt", identity.cert_file.clone())).into_iter().collect(),
        authority: authority.clone(),
    });
    let receiver = Receiver::new(Arc::clone(&ledger), outlet, counters, stored, stopped.clone()).barring(barred);
    let mut parts: JoinSet<&'static str> = JoinSet::new();
    parts.spawn(named("The line to the broker", line.run()));
    parts.spawn(named("The receiver", receiver.run(incoming)));
    parts
        .spawn(named("Looking at the stores' days", api::standings::run(Arc::clone(&ledger), judged, stopped.clone())));
    let keeping = upkeep::run(Arc::clone(&opened), authority, bar, stopped.clone());
    parts.spawn(named("The upkeep of identities", keeping));
    // Ends when the receiver does, which holds what wakes it.
    parts.spawn(named("The poster", posting::run(ledger, wake, posted)));
    if !config.exceptions.routes.is_empty() {
        let telling = notify::run(opened, Arc::new(config.exceptions.clone()), stopped.clone());
        parts.spawn(named("Telling of exceptions", telling));
    }
    let api_config = config.api.clone();
    let attending = service::attend(Arc::clone(&sources), service::watchdog(), service::say);
    parts.spawn(named("The API", async move {
        api::serve(listener, encryption, &api_config, sources, stopped).await;
    }));
    service::ready(&config);
    let attending = tokio::spawn(attending);
    let mut shutdown = std::pin::pin!(shutdown);
    let ended = tokio::select! {
        () = shutdown.as_mut() => None,
        ended = parts.join_next() => Some(ended),
    };
    service::stopping();
    attending.abort();
    stop.send_replace(true);
    let drained = tokio::time::timeout(STOP_PATIENCE, async { while parts.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("Something was still at work; what was not acknowledged comes again");
    }
    match ended {
        None => Ok(()),
        Some(Some(Ok(what))) => Err(ExitError::Ended { what }),
        Some(Some(Err(_)) | None) => Err(ExitError::Ended { what: "A part of the hub" }),
    }
}

/// The authority that the configuration names.
fn open_authority(config: &Config, ledger: &Arc<SqlLedger>) -> Result<Option<Arc<Authority>>, ExitError> {
    let Some(wanted) = config.authority.clone() else { return Ok(None) };
    Ok(Some(Arc::new(Authority::open(wanted, Arc::clone(ledger))?)))
}

/// The authority and its ledger, for a command beside a hub that may be running.
pub(crate) async fn authority(config: &Config) -> Result<Arc<Authority>, ExitError> {
    let ledger = Arc::new(open(&config.ledger).await?);
    open_authority(config, &ledger)?.ok_or(ExitError::NoAuthority)
}

/// Completes when the word to stop was given, or nobody is left to give it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn named(what: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    what
}

#[cfg(feature = "embedded-broker")]
fn start_broker(config: &Config) -> Result<(), ExitError> {
    let Some(listen) = config.broker else { return Ok(()) };
    crate::broker::start(listen).map_err(|error| ExitError::Broker(error.to_string()))
}

#[cfg(not(feature = "embedded-broker"))]
#[expect(clippy::unnecessary_wraps, reason = "the same with a broker can fail")]
fn start_broker(_: &Config) -> Result<(), ExitError> {
    Ok(())
}

/// Raises `safe` to what a restored copy of the ledger holds, on the word of a person. Gives the number of lanes that moved.
pub async fn backup_verified(config: &Config, copy: &LedgerConfig, by: &str) -> Result<u64, ExitError> {
    let ledger = open(&config.ledger).await?;
    // Read as it is: a copy that needs a migration, or that is being written to, is no proof of a backup.
    let (of_copy, lanes) = crate::ledger::read_copy(&*database(copy)?).await?;
    if !ledger.was_epoch(of_copy).await? {
        return Err(ExitError::Copy(of_copy));
    }
    let what = format!("a copy of hub epoch {of_copy} with {} lanes is safe", lanes.len());
    Ok(ledger.verified(&lanes, &on_command_line(by, "backup-verified", what)).await?)
}

/// Takes a parcel in.
pub(crate) async fn import(
    config: &Config,
    wanted: &Wanted,
    by: &str,
    on_progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Imported, ExitError> {
    let ledger = open(&config.ledger).await?;
    // In many transactions, so that there are two entries: that it began, whatever came of it, and what did.
    let deed = on_command_line(by, "import", wanted.file.display().to_string());
    ledger.note_alone(&deed, "begun").await?;
    let imported = import::import(&ledger, wanted, on_progress).await;
    let outcome = match &imported {
        Ok(imported) => imported.to_string(),
        Err(error) => format!("refused: {error}"),
    };
    ledger.note_alone(&deed, &outcome).await?;
    imported
}

/// Says what an agent would send again, and with an order (who, why) has it done.
pub(crate) async fn replay(
    config: &Config,
    query: &ReplayQuery,
    order: Option<&(String, String)>,
) -> Result<Vec<ReplayPart>, ExitError> {
    let ledger = open(&config.ledger).await?;
    let parts = ledger.plan_replay(query).await?;
    if let Some((by, reason)) = order {
        let what =
            format!("{}, received {} to {}: {reason}", query.source, query.from.to_rfc3339(), query.to.to_rfc3339());
        ledger.order_replay(&parts, by, reason, &on_command_line(by, "replay --order", what)).await?;
    }
    Ok(parts)
}

/// What somebody does on the command line, who may do there what the configuration's files let anybody do.
pub(crate) fn on_command_line(by: &str, command: &str, what: String) -> Deed {
    Deed { who: by.to_owned(), role: "cli", peer: None, route: format!("counterfoil-hub {command}"), what }
}

/// The newest orders of replays.
pub(crate) async fn replays(config: &Config) -> Result<Vec<ReplayView>, ExitError> {
    Ok(open(&config.ledger).await?.replays().await?)
}

#[cfg(test)]
mod tests;
