//! Renews the certificate before it ends, and after: with the key that it was made for, for ever, and without holding anybody up.
//!
//! It is due after two thirds of its life, less up to a twelfth by chance, so that a fleet that was enrolled in one night does not come back in one. What
//! fails is tried again with growing, jittered pauses. A box that was offline for longer than its certificate lived shows the expired one: the hub takes
//! it for renewing alone, as the key still proves who asks.
//!
//! Invariant: a certificate replaces the one before only when it is for this box and this key, and ends later. Whoever changes the file by other means is
//! noticed as well. Not known here: how a connection is made anew ([`crate::uplink`]).

use std::sync::Arc;
use std::time::Duration;

use counterfoil_config::certificate::{CertificateError, Facts, RequestKey};
use counterfoil_config::replace::{Readable, replace};
use counterfoil_config::tls::{ClientFiles, Identity};
use counterfoil_proto::time::Moment;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::enroll::{chain_of, pem};
use super::est::{EstError, Server};
use super::{Alarms, IdentityError, clock, read, seconds, wall};
use crate::answer::CertificateStatus;
use crate::config::Config;
use crate::env::Env;
use crate::uplink::{View, backoff};

/// Between two looks at the file, at most.
const LOOK_MS_MAX: u64 = 60_000;
/// And at least.
const LOOK_MS_MIN: u64 = 100;

/// Why a renewal came to nothing.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Est(#[from] EstError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Files(#[from] counterfoil_config::tls::TlsError),
    #[error("{0} gave a certificate that is not for this box and its key")]
    Foreign(String),
    #[error("{0} gave a certificate that does not end later than the one before")]
    NoGain(String),
    #[error("{file} cannot be written: {why}")]
    Write { file: String, why: std::io::Error },
}

/// Sees to the certificate, driven by [`Renewal::run`].
#[derive(Debug)]
pub struct Renewal {
    env: Env,
    common_name: String,
    files: Identity,
    tls: ClientFiles,
    server: Option<Server>,
    retry_ms_max: u64,
    alarms: Alarms,
    view: watch::Sender<Arc<View>>,
    renewed: watch::Sender<u64>,
    doubted: Arc<Notify>,
    status: CertificateStatus,
    known: Option<Facts>,
    /// A number by chance for the certificate that is known.
    draw: u64,
    failures: u32,
    again_at: Moment,
    doubt_at: Moment,
}

impl Renewal {
    /// For the files that the configuration names; `None` where it names none. `renewed` counts certificates, `doubted` says that the broker kept us
    /// out, which head office may know more about.
    pub fn new(
        config: &Config,
        env: &Env,
        alarms: Alarms,
        view: watch::Sender<Arc<View>>,
        renewed: watch::Sender<u64>,
        doubted: Arc<Notify>,
    ) -> Option<Self> {
        let broker = config.mqtt.tls.as_ref()?;
        let files = broker.identity.clone()?;
        let ca_file = config.identity.ca_file.as_ref().unwrap_or(&broker.ca_file).clone();
        Some(Self {
            env: env.clone(),
            common_name: config.source.to_string(),
            tls: ClientFiles { ca_file, identity: Some(files.clone()) },
            files,
            server: config.identity.server.clone(),
            retry_ms_max: u64::try_from(config.identity.retry_max.as_millis()).unwrap_or(u64::MAX),
            alarms,
            view,
            renewed,
            doubted,
            status: CertificateStatus::default(),
            known: None,
            draw: 0,
            failures: 0,
            again_at: Moment::default(),
            doubt_at: Moment::default(),
        })
    }

    /// Until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut in_doubt = false;
        while !*stop.borrow() {
            let found = self.look().await;
            let now = self.env.moment();
            let mut wait_ms = LOOK_MS_MAX;
            if let (Ok((facts, key)), Some(server)) = (&found, self.server.clone()) {
                let due_ms = due_s(facts, self.draw).saturating_sub(self.now_s()).saturating_mul(1_000);
                let due_ms = if in_doubt { 0 } else { due_ms };
                if due_ms == 0 && now >= self.again_at {
                    in_doubt = false;
                    self.doubt_at = now.plus_ms(self.retry_ms_max);
                    tokio::select! {
                        result = self.renew(&server, facts, key) => self.note(result, facts).await,
                        _ = stop.changed() => return,
                    }
                    continue;
                }
                let life_ms = facts.not_after_s.saturating_sub(facts.not_before_s).saturating_mul(1_000);
                wait_ms = due_ms.max(self.again_at.since_ms(now)).min(life_ms / 20);
            }
            let wait = Duration::from_millis(wait_ms.clamp(LOOK_MS_MIN, LOOK_MS_MAX));
            let doubted = Arc::clone(&self.doubted);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = doubted.notified() => in_doubt |= self.env.moment() >= self.doubt_at,
                _ = stop.changed() => {}
            }
        }
    }

    fn now_s(&self) -> u64 {
        let began = self.known.as_ref().map_or(0, |facts| facts.not_before_s);
        seconds(self.env.time_for_tls()).max(began)
    }

    /// What the files hold now, told to whoever asks.
    async fn look(&mut self) -> Result<(Facts, RequestKey), IdentityError> {
        let found = read(&self.files, &self.common_name);
        let before = self.known.take();
        self.known = found.as_ref().ok().map(|(facts, _)| facts.clone());
        if self.known != before {
            self.draw = self.env.random_bytes().map_or(0, u64::from_le_bytes);
            if before.is_some() && self.known.is_some() {
                info!("the certificate changed; the broker is asked anew");
                self.renewed.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        let (now_s, status) = (self.now_s(), &mut self.status);
        match &found {
            Ok((facts, _)) => {
                let expired = now_s > facts.not_after_s;
                let state = if self.alarms.is_revoked() {
                    "revoked"
                } else if expired {
                    "expired"
                } else {
                    "valid"
                };
                state.clone_into(&mut status.state);
                status.not_after = Some(wall(facts.not_after_s).to_rfc3339());
                status.not_after_s = Some(facts.not_after_s);
                status.renew_at = self.server.as_ref().map(|_| wall(due_s(facts, self.draw)).to_rfc3339());
                if expired {
                    self.alarms.expired(wall(facts.not_after_s)).await;
                } else {
                    self.alarms.valid();
                }
            }
            Err(error) => {
                "missing".clone_into(&mut status.state);
                (status.not_after, status.not_after_s, status.renew_at) = (None, None, None);
                let why = crate::error::chain(error);
                if status.last_error.as_ref() != Some(&why) {
                    warn!(reason = %why, "this box has no identity for the broker; `counterfoil enroll` gets it one");
                }
                status.last_error = Some(why);
            }
        }
        self.publish();
        found
    }

    async fn renew(&self, server: &Server, facts: &Facts, key: &RequestKey) -> Result<Facts, RenewalError> {
        let mut tls = self.tls.read()?;
        tls.time_provider = clock(&self.env, Some(&self.files));
        let answer = server.renew(tls, &key.request(&self.common_name)?).await?;
        let chain = chain_of(answer, &self.common_name, key);
        let chain = chain.ok_or_else(|| RenewalError::Foreign(server.to_string()))?;
        let next =
            chain.first().map(Facts::of).transpose()?.ok_or_else(|| RenewalError::Foreign(server.to_string()))?;
        if next.not_after_s <= facts.not_after_s {
            return Err(RenewalError::NoGain(server.to_string()));
        }
        let cert_file = &self.files.cert_file;
        replace(cert_file, pem(&chain)?.as_bytes(), Readable::ByAll)
            .map_err(|why| RenewalError::Write { file: cert_file.display().to_string(), why })?;
        Ok(next)
    }

    async fn note(&mut self, result: Result<Facts, RenewalError>, before: &Facts) {
        match result {
            Ok(next) => {
                info!(not_after = %wall(next.not_after_s).to_rfc3339(), "the certificate was renewed");
                self.failures = 0;
                // Head office knows this box: whoever doubts that again soon has another trouble.
                let life_ms = next.not_after_s.saturating_sub(next.not_before_s).saturating_mul(1_000);
                self.doubt_at = self.doubt_at.max(self.env.moment().plus_ms(life_ms / 12));
                self.status.renewals = self.status.renewals.saturating_add(1);
                self.status.attempts = 0;
                self.status.last_error = None;
                self.alarms.welcome();
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if matches!(&error, RenewalError::Est(error) if error.is_revocation()) {
                    self.alarms.revoked().await;
                }
                let why = crate::error::chain(&error);
                let not_after = wall(before.not_after_s).to_rfc3339();
                warn!(reason = %why, not_after, attempts = self.failures, "the certificate could not be renewed; it is tried again");
                self.status.attempts = u64::from(self.failures);
                self.status.failures = self.status.failures.saturating_add(1);
                self.status.last_error = Some(why);
            }
        }
        let draw = self.env.random_bytes().map_or(0, u64::from_le_bytes);
        let pause_ms = backoff::wait_ms(self.failures.max(1), self.retry_ms_max, draw);
        self.again_at = self.env.moment().plus_ms(pause_ms);
        self.publish();
    }

    fn publish(&self) {
        let status = Some(self.status.clone());
        self.view.send_if_modified(|view| {
            let is_new = view.certificate != status;
            if is_new {
                Arc::make_mut(view).certificate = status;
            }
            is_new
        });
    }
}

/// When a certificate is to be renewed, seconds since 1970.
fn due_s(facts: &Facts, draw: u64) -> u64 {
    let life_s = facts.not_after_s.saturating_sub(facts.not_before_s);
    let spread_s = draw % (life_s / 12 + 1);
    facts.not_before_s.saturating_add(life_s / 3 * 2).saturating_sub(spread_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_after_two_thirds_of_its_life_less_some_chance() {
        let facts = |life_s: u64| Facts {
            common_name: String::new(),
            not_before_s: 1_000,
            not_after_s: 1_000 + life_s,
            serial: Vec::new(),
            is_self_issued: false,
            public_key: Vec::new(),
        };
        let day = 86_400;
        let due: Vec<u64> =
            (0..100_u64).map(|draw| due_s(&facts(90 * day), draw.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(due.iter().all(|due| (1_000 + 52 * day..=1_000 + 60 * day).contains(due)), "{due:?}");
        let days: std::collections::BTreeSet<u64> = due.iter().map(|due| due / day).collect();
        assert!(days.len() >= 6, "a fleet comes back over a week: {days:?}");
        assert_eq!(due_s(&facts(6), 7), 1_004);
    }
}
