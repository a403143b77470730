//! The hub as a small certificate authority, for pilots and for whoever has no other: it lets boxes in by one-time token, renews what they have, and
//! says who is kept out.
//!
//! Invariant: what is signed for a box carries the name that its token was made for, or that the certificate it renews carries, and nothing else of
//! what a request asks for; the request's own signature is verified before. A certificate is in the ledger before anybody has it, so that whatever
//! is out there can be revoked. Not known here: HTTP ([`crate::api`]), the way of a certificate to a broker ([`upkeep`]).

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_config::certificate::{self, CertificateError, Facts};
use counterfoil_config::replace::{Readable, replace};
use counterfoil_config::tls::{self, Identity, TlsError};
use counterfoil_proto::time::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::config::AuthorityConfig;
use crate::env;
use crate::ledger::{Deed, Enrolment, IdentityRole, Issued, LedgerError, SqlLedger};

pub mod upkeep;

/// An authority's own life: longer than any box.
const AUTHORITY_LIFE: Duration = Duration::from_hours(20 * 366 * 24);
/// How far before its signing a certificate begins, for clocks that are behind; of a short life only a tenth.
const BACKDATED: Duration = Duration::from_mins(5);
/// How long a list of revoked certificates may be relied upon. Long, because a broker lets nobody in with one that has run out.
const CRL_LIFE: Duration = Duration::from_hours(366 * 24);

/// The authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files cannot be used.
    #[error("{0}; `counterfoil-hub ca init` makes them")]
    Files(#[from] TlsError),
    /// They are there already.
    #[error(
        "{0} is there already; an authority that is replaced lets nobody in any more, so remove it by hand if you mean it"
    )]
    There(String),
    /// A file cannot be written.
    #[error("{file} cannot be written: {why}")]
    Write {
        /// Which.
        file: String,
        /// Why not.
        why: std::io::Error,
    },
    /// Its key or certificate cannot sign.
    #[error("The authority cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// Its certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The ledger cannot be asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why somebody gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// What was sent is no request.
    #[error("This is not a PKCS #10 request in base64, signed with its own key: {0}")]
    Request(String),
    /// No token, or none that is known.
    #[error("This one-time token is not known here; ask head office for a new one")]
    Token,
    /// A token that ran out.
    #[error("This one-time token was valid until {0}; ask head office for a new one")]
    TokenLate(String),
    /// A token that somebody else has used.
    #[error("This one-time token was used before, with another key; if that was not this box, tell head office")]
    TokenUsed,
    /// The request names somebody else.
    #[error("The request is for {asked:?}, and this lets in {granted:?} alone")]
    Name {
        /// Whom the request names.
        asked: String,
        /// Who may have a certificate.
        granted: String,
    },
    /// A renewal without a certificate.
    #[error("A renewal needs a client certificate of this authority in the TLS handshake")]
    Unproven,
    /// Revoked.
    #[error("The identity {0:?} was revoked; ask head office for a one-time token, and enrol again")]
    Revoked(String),
    /// Expired for too long.
    #[error(
        "The certificate of {common_name:?} ended at {ended}, longer ago than is renewed; enrol again with a one-time token"
    )]
    Late {
        /// Whose.
        common_name: String,
        /// When it ended.
        ended: String,
    },
    /// The authority itself fails.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl From<LedgerError> for Denied {
    fn from(error: LedgerError) -> Self {
        Self::Authority(error.into())
    }
}

/// The authority.
pub struct Authority {
    config: AuthorityConfig,
    ledger: Arc<SqlLedger>,
    issuer: Issuer<'static, KeyPair>,
    /// The one that signs, and those above it.
    chain: Vec<CertificateDer<'static>>,
    ends_s: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Makes key and certificate of an authority. Gives its fingerprint.
pub fn init(config: &AuthorityConfig, name: &str) -> Result<String, AuthorityError> {
    let Identity { cert_file, key_file } = &config.identity;
    for file in [cert_file, key_file] {
        if file.exists() {
            return Err(AuthorityError::There(file.display().to_string()));
        }
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(serial()));
    (params.not_before, params.not_after) = (time(now_s()), time(now_s().saturating_add(AUTHORITY_LIFE.as_secs())));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(key_file, &key.serialize_pem(), Readable::ByOwner)?;
    write(cert_file, &certificate.pem(), Readable::ByAll)?;
    Ok(certificate::fingerprint(certificate.der()))
}

impl Authority {
    /// Reads the files.
    pub fn open(config: AuthorityConfig, ledger: Arc<SqlLedger>) -> Result<Self, AuthorityError> {
        let chain = tls::certificates(&config.identity.cert_file)?;
        let key_file = &config.identity.key_file;
        let pem = |why: String| TlsError::Pem { file: key_file.clone(), what: "key", why };
        let key = std::fs::read_to_string(key_file).map_err(|error| pem(error.to_string()))?;
        let key = KeyPair::from_pem(&key).map_err(|error| pem(error.to_string()))?;
        let own = chain.first().ok_or_else(|| pem("no certificate".to_owned()))?;
        let facts = Facts::of(own)?;
        if facts.public_key != key.subject_public_key_info() {
            let (file, why) = (config.identity.cert_file.clone(), "the key is of another certificate".to_owned());
            return Err(TlsError::Identity { file, why }.into());
        }
        let issuer = Issuer::from_ca_cert_der(own, key)?;
        Ok(Self { config, ledger, issuer, chain, ends_s: facts.not_after_s })
    }

    /// What it was configured with.
    pub const fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    /// Its own certificate, and those above it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What whoever trusts this authority pins: the fingerprint of the last certificate of its file, which is its own where there is no other.
    pub fn fingerprint(&self) -> String {
        self.chain.last().map(certificate::fingerprint).unwrap_or_default()
    }

    /// A one-time token for a box, valid for so long.
    pub async fn make_token(
        &self,
        common_name: &str,
        valid: Duration,
        deed: &Deed,
    ) -> Result<(String, WallTime), AuthorityError> {
        let token = format!("{}{}", env::random_id(), env::random_id());
        let until = WallTime(env::wall().0.saturating_add(i64::try_from(valid.as_millis()).unwrap_or(i64::MAX)));
        self.ledger.make_enrolment(hash(&token), common_name, until, deed).await?;
        Ok((token, until))
    }

    /// Lets in who has a one-time token. The same again with the same key gives another certificate: the first answer may have been lost.
    pub async fn enrol(&self, token: &str, request: &[u8]) -> Result<Vec<CertificateDer<'static>>, Denied> {
        let request = read(request)?;
        let (token, public_key) = (hash(token), request.public_key.subject_public_key_info());
        let granted = match self.ledger.look_up_enrolment(token, &public_key).await? {
            Enrolment::For(common_name) => common_name,
            Enrolment::Unknown => return Err(Denied::Token),
            Enrolment::Late(until) => return Err(Denied::TokenLate(until.to_rfc3339())),
            Enrolment::Used => return Err(Denied::TokenUsed),
        };
        same_name(&request, &granted)?;
        let (issued, chain) = self.sign(&granted, &request)?;
        let deed = of_box(&issued, "simpleenroll");
        if !self.ledger.note_issued(&issued, Some((token, public_key)), &deed).await? {
            return Err(Denied::TokenUsed);
        }
        tracing::info!(identity = issued.common_name, not_after = %issued.not_after.to_rfc3339(), "A box was enrolled");
        Ok(chain)
    }

    /// Renews a certificate of this authority whose key the handshake has proven; `peer` is its chain, verified but for its age.
    pub async fn renew(
        &self,
        peer: &[CertificateDer<'static>],
        request: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, Denied> {
        let facts = peer.first().map(Facts::of).transpose().map_err(AuthorityError::from)?.ok_or(Denied::Unproven)?;
        let request = read(request)?;
        let granted = facts.common_name;
        same_name(&request, &granted)?;
        if self.ledger.is_revoked(&granted, &facts.serial).await? {
            return Err(Denied::Revoked(granted));
        }
        if now_s() > facts.not_after_s.saturating_add(self.config.renew_expired_within.as_secs()) {
            return Err(Denied::Late { common_name: granted, ended: wall(facts.not_after_s).to_rfc3339() });
        }
        let (issued, chain) = self.sign(&granted, &request)?;
        self.ledger.note_issued(&issued, None, &of_box(&issued, "simplereenroll")).await?;
        tracing::info!(identity = issued.common_name, not_after = %issued.not_after.to_rfc3339(), "A certificate was renewed");
        Ok(chain)
    }

    fn sign(
        &self,
        common_name: &str,
        request: &CertificateSigningRequestParams,
    ) -> Result<(Issued, Vec<CertificateDer<'static>>), AuthorityError> {
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issued = self.fill(&mut params, common_name, IdentityRole::Agent, self.config.certificate_life);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok((issued, self.with_chain(certificate.der().clone())))
    }

    /// Makes key and certificate for a machine of one's own: a broker or a hub's API under these names, or a hub process towards the broker.
    pub async fn issue(
        &self,
        common_name: &str,
        role: IdentityRole,
        names: &[String],
        life: Duration,
        files: &Identity,
        deed: &Deed,
    ) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::new(names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            IdentityRole::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            IdentityRole::Hub | IdentityRole::Agent => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let issued = self.fill(&mut params, common_name, role, life);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.ledger.note_issued(&issued, None, deed).await?;
        let chain = self.with_chain(certificate.der().clone());
        let pem: Result<Vec<String>, _> = chain.iter().map(certificate::pem).collect();
        write(&files.key_file, &key.serialize_pem(), Readable::ByOwner)?;
        write(&files.cert_file, &pem?.concat(), Readable::ByAll)?;
        Ok(issued)
    }

    fn fill(&self, params: &mut CertificateParams, common_name: &str, role: IdentityRole, life: Duration) -> Issued {
        let (now, serial) = (now_s(), serial());
        let not_after_s = now.saturating_add(life.as_secs()).min(self.ends_s);
        params.distinguished_name = named(common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        params.not_before = time(now.saturating_sub(BACKDATED.min(life / 10).as_secs()));
        params.not_after = time(not_after_s);
        Issued { serial, common_name: common_name.to_owned(), role, not_after: wall(not_after_s) }
    }

    /// A certificate with what leads from it to a root; the root itself is known to whom it concerns.
    fn with_chain(&self, certificate: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let is_root = |certificate: &CertificateDer<'_>| Facts::of(certificate).is_ok_and(|facts| facts.is_self_issued);
        let above = self.chain.iter().filter(|above| !is_root(above)).cloned();
        [certificate].into_iter().chain(above).collect()
    }

    /// The list of revoked certificates, PEM.
    pub async fn revocation_list(&self) -> Result<String, AuthorityError> {
        let revoked = self.ledger.revoked_certificates().await?;
        let revoked = revoked.into_iter().map(|revoked| RevokedCertParams {
            serial_number: SerialNumber::from(revoked.serial),
            revocation_time: time(seconds(revoked.revoked_at)),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: time(now_s().saturating_sub(BACKDATED.as_secs())),
            next_update: time(now_s().saturating_add(CRL_LIFE.as_secs())),
            crl_number: SerialNumber::from(u64::try_from(env::wall().0).unwrap_or(0)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// Who was let in and who is kept out.
    pub const fn ledger(&self) -> &Arc<SqlLedger> {
        &self.ledger
    }
}

fn read(request: &[u8]) -> Result<CertificateSigningRequestParams, Denied> {
    let request = CertificateSigningRequestDer::from(request);
    CertificateSigningRequestParams::from_der(&request).map_err(|error| Denied::Request(error.to_string()))
}

/// What a box does for itself, for the trail.
fn of_box(issued: &Issued, call: &str) -> Deed {
    let (who, route) = (issued.common_name.clone(), format!("POST /.well-known/est/{call}"));
    let what = format!("a certificate valid until {}", issued.not_after.to_rfc3339());
    Deed { who, role: "box", peer: None, route, what }
}

/// A request may leave the name out; one that names somebody else is refused, so that nobody wonders at what came back.
fn same_name(request: &CertificateSigningRequestParams, granted: &str) -> Result<(), Denied> {
    let asked = match request.params.distinguished_name.get(&DnType::CommonName) {
        None => return Ok(()),
        Some(DnValue::Utf8String(name)) => name.clone(),
        Some(DnValue::PrintableString(name)) => name.as_str().to_owned(),
        Some(DnValue::Ia5String(name)) => name.as_str().to_owned(),
        Some(_) => "a name in another alphabet".to_owned(),
    };
    if asked == granted { Ok(()) } else { Err(Denied::Name { asked, granted: granted.to_owned() }) }
}

/// A token's hash, which is all that is kept of it; the token itself is too random to be guessed.
fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 126 random bits: positive, and of one length.
fn serial() -> Vec<u8> {
    let mut serial = env::random_id().0;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    serial.to_vec()
}

fn now_s() -> u64 {
    seconds(env::wall())
}

fn seconds(at: WallTime) -> u64 {
    u64::try_from(at.0 / 1_000).unwrap_or(0)
}

fn wall(seconds: u64) -> WallTime {
    WallTime(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000))
}

fn time<T>(seconds: u64) -> T
where
    T: From<std::time::SystemTime>,
{
    T::from(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn write(file: &Path, text: &str, readable: Readable) -> Result<(), AuthorityError> {
    replace(file, text.as_bytes(), readable)
        .map_err(|why| AuthorityError::Write { file: file.display().to_string(), why })
}

/// What people write as the names of a server: host names and addresses.
pub fn is_server_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._*".contains(letter);
    name.parse::<IpAddr>().is_ok() || (!name.is_empty() && name.len() <= 253 && name.chars().all(plain))
}

#[cfg(test)]
mod tests;
