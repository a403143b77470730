//! Who this box is to broker and hub: a certificate with the common name `{store_id}.{agent_id}` and the key that it was made for.
//!
//! The key is made on the box and never leaves its file. It stays the same at a renewal: only one file then changes, by one rename, so that whatever
//! happens in between, certificate and key fit; and a fresh key would keep out nobody who copied the old one, since whoever has a key can renew
//! with it. What makes a new key is `counterfoil enroll --again`, with a token from head office, which is the way after a theft.
//!
//! Invariant: a certificate that is in place is valid, or the best there was; renewing is tried for ever and holds up neither tills nor uplink. Files are
//! replaced whole. Not known here: what the certificate is used for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use counterfoil_config::certificate::{CertificateError, Facts, RequestKey};
use counterfoil_config::tls::{self, Identity, TlsError};
use counterfoil_proto::record::flag::{CERTIFICATE_EXPIRED, IDENTITY_REVOKED};
use counterfoil_proto::time::WallTime;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use serde_json::json;

use crate::agent::AgentHandle;
use crate::env::Env;

pub mod enroll;
pub mod est;
pub mod renewal;

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, or holds something else.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// What it holds cannot be read.
    #[error("{file}: {why}")]
    Form {
        /// Which.
        file: String,
        /// What is wrong.
        why: CertificateError,
    },
    /// A key that cannot sign requests.
    #[error("{0} is not PKCS #8, so that it cannot be renewed here; `counterfoil enroll --again` makes one that can")]
    KeyForm(String),
    /// They do not belong together.
    #[error("The certificate {certificate} is not of the key {key}; enrol the box again")]
    Unfit {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// A certificate of another box.
    #[error("The certificate {file} is for {found:?}, and this box is {wanted:?}")]
    Foreign {
        /// The certificate's file.
        file: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        wanted: String,
    },
}

/// What the certificate in a file says.
pub fn facts(cert_file: &Path) -> Result<Facts, IdentityError> {
    let found = tls::certificates(cert_file)?;
    let form = |why| IdentityError::Form { file: cert_file.display().to_string(), why };
    let leaf = found.first().ok_or_else(|| form(CertificateError::Empty))?;
    Facts::of(leaf).map_err(form)
}

/// The key in a file.
pub fn key(key_file: &Path) -> Result<RequestKey, IdentityError> {
    let PrivateKeyDer::Pkcs8(pkcs8) = tls::key(key_file)? else {
        return Err(IdentityError::KeyForm(key_file.display().to_string()));
    };
    RequestKey::of(pkcs8.secret_pkcs8_der())
        .map_err(|why| IdentityError::Form { file: key_file.display().to_string(), why })
}

/// Certificate and key as they are now; they belong together, and to this box.
pub fn read(files: &Identity, common_name: &str) -> Result<(Facts, RequestKey), IdentityError> {
    let (facts, key) = (facts(&files.cert_file)?, key(&files.key_file)?);
    let [certificate, key_file] = [&files.cert_file, &files.key_file].map(|file| file.display().to_string());
    if facts.common_name != common_name {
        let (found, wanted) = (facts.common_name, common_name.to_owned());
        return Err(IdentityError::Foreign { file: certificate, found, wanted });
    }
    let public_key = key.public_key().map_err(|why| IdentityError::Form { file: key_file.clone(), why })?;
    if facts.public_key != public_key {
        return Err(IdentityError::Unfit { certificate, key: key_file });
    }
    Ok((facts, key))
}

/// What TLS takes for now. A box whose clock lost its battery knows that it is not before its program was built, its newest record was written, and
/// its own certificate began.
pub fn clock(env: &Env, files: Option<&Identity>) -> Arc<dyn TimeProvider> {
    let began = files.and_then(|files| facts(&files.cert_file).ok()).map_or(0, |facts| facts.not_before_s);
    Arc::new(Clock { env: env.clone(), began: wall(began) })
}

#[derive(Debug)]
struct Clock {
    env: Env,
    began: WallTime,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds(
            self.env.time_for_tls().max(self.began),
        ))))
    }
}

pub(crate) fn seconds(at: WallTime) -> u64 {
    u64::try_from(at.0 / 1_000).unwrap_or(0)
}

pub(crate) fn wall(seconds: u64) -> WallTime {
    WallTime(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000))
}

/// What is told once, until it is over.
#[derive(Clone, Debug)]
pub struct Alarms {
    agent: AgentHandle,
    expired: Arc<AtomicBool>,
    revoked: Arc<AtomicBool>,
}

impl Alarms {
    /// Nothing was told yet.
    pub fn new(agent: AgentHandle) -> Self {
        Self { agent, expired: Arc::default(), revoked: Arc::default() }
    }

    /// The certificate has expired.
    pub async fn expired(&self, not_after: WallTime) {
        if !self.expired.swap(true, Ordering::SeqCst) {
            let not_after = not_after.to_rfc3339();
            tracing::error!(
                not_after,
                "CERTIFICATE EXPIRED: sales are kept here until it is renewed, which is tried for ever"
            );
            self.agent.finding(CERTIFICATE_EXPIRED, json!({"code": CERTIFICATE_EXPIRED, "not_after": not_after})).await;
        }
    }

    /// Head office takes nothing from this box.
    pub async fn revoked(&self) {
        if !self.revoked.swap(true, Ordering::SeqCst) {
            tracing::error!("IDENTITY REVOKED by head office: sales are kept here until this box is enrolled again");
            self.agent.finding(IDENTITY_REVOKED, json!({"code": IDENTITY_REVOKED})).await;
        }
    }

    /// Whether head office said so last.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// The certificate is valid.
    pub fn valid(&self) {
        self.expired.store(false, Ordering::SeqCst);
    }

    /// Head office answers as it does to its own.
    pub fn welcome(&self) {
        self.revoked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
