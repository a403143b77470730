//! Starting the parts in order, and stopping them in order.
//!
//! Invariants: no till is answered before the journal is recovered and took a test commit; a stop refuses new requests, answers those at work, says goodbye to
//! the broker, and closes the journal last. A part that ends on its own ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use counterfoil_telemetry::log;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::agent::{self, AgentHandle, Owner};
use crate::answer::Status;
use crate::config::Config;
use crate::env::Env;
use crate::error::ExitError;
use crate::identity::Alarms;
use crate::identity::renewal::Renewal;
use crate::ingress::{Ingress, IngressError};
use crate::legacy::spool::Spool;
use crate::service;
use crate::uplink::{Ties, Uplink, View};

/// How often the owner looks at what is due by time.
const TICK: Duration = Duration::from_millis(500);

const ENDED: ExitError = ExitError::Ended { what: "the journal's thread" };

/// Runs the agent until a signal stops it or a part fails.
pub async fn run(config: Config) -> Result<(), ExitError> {
    let env = Env::of_this_box()?;
    let inherited = service::inherited().map_err(|source| IngressError::Inherited { source })?;
    let (view, view_out) = watch::channel(Arc::new(View::default()));
    let opening = (config.clone(), env.clone());
    let moved = Arc::new(AtomicU64::new(0));
    let recovering = tokio::spawn(service::recovering(Arc::clone(&moved), service::say));
    let opened = tokio::task::spawn_blocking(move || Owner::open(&opening.0, opening.1, view_out, moved)).await;
    recovering.abort();
    let mut owner = opened.map_err(|_| ExitError::Ended { what: "the recovery of the journal" })??;
    let reader = owner.reader();
    let (handle, inbox) = agent::channel(config.ingress.queue_max, Status::default());
    owner.settle(&inbox)?;
    let (ended, owner_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
        let result = owner.run(inbox);
        ended.send(result).unwrap_or_default();
    });
    thread.map_err(|error| ExitError::Disk(Box::new(error)))?;
    let (stop, stopping) = watch::channel(false);
    let ticker = tokio::spawn(tick(handle.clone()));
    let (renewed, renewals) = watch::channel(0);
    let ties = Ties { alarms: Alarms::new(handle.clone()), renewed: renewals, doubted: Arc::default() };
    let doubted = Arc::clone(&ties.doubted);
    let renewal = Renewal::new(&config, &env, ties.alarms.clone(), view.clone(), renewed, doubted);
    let renewal = renewal.map(|renewal| tokio::spawn(renewal.run(stopping.clone())));
    let uplink = Uplink::new(config.clone(), env.clone(), handle.clone(), reader, view, ties);
    let uplink = tokio::spawn(uplink.run(stopping.clone()));
    let spool = config.spool.clone().map(|spool| Spool::open(spool, config.context(), handle.clone(), env.clone()));
    let spool = spool.transpose().map_err(|error| ExitError::Disk(Box::new(error)))?;
    let spool = spool.map(|spool| tokio::spawn(spool.run(stopping)));
    let ingress = Ingress::bind_with(&config.ingress, config.context(), handle.clone(), inherited).await?;
    if let Ok(address) = ingress.local_addr() {
        info!(%address, "ready for the tills");
    }
    let mut owner_ended = owner_ended;
    let watchdog = if handle.probe().await.is_ok() {
        service::ready(&handle.status());
        tokio::spawn(service::attend(handle.clone(), service::watchdog(), service::say))
    } else {
        // The owner says why.
        return owner_ended.await.unwrap_or(Err(ENDED));
    };
    tokio::select! {
        () = ingress.serve(signalled()) => {}
        // Nobody is answered any more: the tills' connections break, and they send the same again after the restart.
        result = &mut owner_ended => return result.unwrap_or(Err(ENDED)),
    }
    stop.send_replace(true);
    if uplink.await.is_err() {
        error!("the uplink ended unexpectedly");
    }
    if let Some(spool) = spool
        && spool.await.is_err()
    {
        error!("the spool ended unexpectedly");
    }
    if let Some(renewal) = renewal
        && renewal.await.is_err()
    {
        error!("the renewal of the certificate ended unexpectedly");
    }
    ticker.abort();
    watchdog.abort();
    drop(handle);
    owner_ended.await.unwrap_or(Err(ENDED))
}

async fn tick(handle: AgentHandle) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while handle.tick().is_ok() {
        log::tell_suppressed();
        interval.tick().await;
    }
}

/// Ends at the first SIGTERM or SIGINT.
async fn signalled() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("signals cannot be received; stop the process with SIGKILL, nothing is lost by it");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    service::stopping();
}

/// ring is the only crypto provider.
pub fn set_up_tls() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider is set up already");
    }
}
