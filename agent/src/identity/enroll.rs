//! `counterfoil enroll`: how a box comes by its identity.
//!
//! The key is made here and written before anybody is asked; the authority is known by a file or by its fingerprint, which came with the token; the token
//! goes to a server that this authority vouches for, and to nobody else. Whatever breaks in between, the same command again goes on: with the same
//! key, so that a token whose answer was lost still counts.
//!
//! Invariant: nothing is trusted because it answered. A valid identity is replaced only where that is asked for, and only by another valid one.

use std::path::{Path, PathBuf};

use counterfoil_config::certificate::{self, CertificateError, Facts, RequestKey};
use counterfoil_config::replace::{Readable, rename, replace};
use counterfoil_config::tls::{self, Identity, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::est::{EstError, Server, trusting, trusting_nobody};
use super::{IdentityError, clock, key, read, seconds, wall};
use crate::config::Config;
use crate::env::{Env, EnvError};
use crate::error::{EXIT_CONFIGURATION, EXIT_DISK, EXIT_UNAVAILABLE};

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct Wanted {
    /// The configuration: whose files, and who this box is.
    #[arg(long, default_value = "/etc/counterfoil/agent.toml")]
    pub config: PathBuf,
    /// The hub, or any EST server, `https://hub.example:7370`; `identity.url` of the configuration when left out.
    #[arg(long, value_name = "URL", value_parser = server)]
    pub hub: Option<Server>,
    /// A file with the one-time token, as `counterfoil-hub ca token` prints it.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// The certificates to trust, where they are at hand.
    #[arg(long, value_name = "FILE", conflicts_with = "ca_fingerprint")]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the certificate to trust, where the token's file does not say it.
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub ca_fingerprint: Option<String>,
    /// Make a new key, and replace an identity that is valid.
    #[arg(long)]
    pub again: bool,
}

fn server(text: &str) -> Result<Server, String> {
    Server::read(text).map_err(str::to_owned)
}

fn fingerprint(text: &str) -> Result<String, String> {
    certificate::read_fingerprint(text)
        .ok_or_else(|| "64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` shows them".to_owned())
}

/// Why the box has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The configuration names no files.
    #[error(
        "The configuration says nothing of certificates: write mqtts:// in `mqtt.url`, and `mqtt.ca_file`, `mqtt.cert_file` and `mqtt.key_file`"
    )]
    NoFiles,
    /// Nobody to ask.
    #[error("Whom to ask: give --hub https://…, or write `url` under [identity] in the configuration")]
    NoServer,
    /// The token's file is of no use.
    #[error("{file} holds no one-time token: {why}")]
    Token {
        /// Which.
        file: String,
        /// Why not.
        why: String,
    },
    /// Nothing to know the authority by.
    #[error(
        "Nothing to know the authority by: give --ca-file, or --ca-fingerprint, or the token's file as `counterfoil-hub ca token` printed it. Nobody is trusted for answering"
    )]
    NoTrust,
    /// The pinned authority is not among those that the server names.
    #[error(
        "{server} names no authority with the fingerprint {wanted}, but {found}; either the fingerprint is of another one, or somebody is in between"
    )]
    Pin {
        /// Who.
        server: String,
        /// What was to be there.
        wanted: String,
        /// What was there.
        found: String,
    },
    /// The server says no, or nothing.
    #[error(transparent)]
    Est(#[from] EstError),
    /// What came back is of no use.
    #[error("The certificate that came back is not for this box and its key; the server was {0}")]
    Foreign(String),
    /// A file cannot be written.
    #[error("{file} cannot be written: {why}")]
    Write {
        /// Which.
        file: String,
        /// Why not.
        why: std::io::Error,
    },
    /// A file cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// A key cannot be made, or read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A key that is there cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The box lacks clocks or randomness.
    #[error(transparent)]
    Env(#[from] EnvError),
}

impl EnrollError {
    /// What the process exits with.
    pub const fn code(&self) -> u8 {
        match self {
            Self::NoFiles | Self::NoServer | Self::NoTrust | Self::Token { .. } => EXIT_CONFIGURATION,
            Self::Est(EstError::Line { .. } | EstError::Undecided(_)) => EXIT_UNAVAILABLE,
            Self::Write { .. } => EXIT_DISK,
            Self::Pin { .. }
            | Self::Est(EstError::Refused { .. } | EstError::Form { .. })
            | Self::Foreign(_)
            | Self::Files(_)
            | Self::Certificate(_)
            | Self::Identity(_)
            | Self::Tls(_)
            | Self::Env(_) => 1,
        }
    }
}

/// Enrols this box. Gives what is to be said about it.
pub fn run(config: &Config, wanted: &Wanted) -> Result<String, EnrollError> {
    let env = Env::of_this_box()?;
    let files = config.mqtt.tls.as_ref().ok_or(EnrollError::NoFiles)?;
    let identity = files.identity.as_ref().ok_or(EnrollError::NoFiles)?;
    let common_name = config.source.to_string();
    if let Ok((facts, _)) = read(identity, &common_name)
        && !wanted.again
        && facts.not_after_s > seconds(env.time_for_tls())
    {
        let until = wall(facts.not_after_s).to_rfc3339();
        return Ok(format!("{common_name} has an identity already, valid until {until}; --again replaces it\n"));
    }
    let server = wanted.hub.clone().or_else(|| config.identity.server.clone()).ok_or(EnrollError::NoServer)?;
    let token = Token::read(&wanted.token_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| EstError::Line { at: server.to_string(), why: why.to_string() })?;
    runtime.block_on(async {
        let told = |mut tls: ClientConfig| {
            tls.time_provider = clock(&env, None);
            tls
        };
        let trusted = trusted(config, wanted, &token, &server).await?;
        let (key, key_file) = prepare_key(identity, wanted.again)?;
        let request = key.request(&common_name)?;
        let answer = server.enroll(told(trusting(&trusted)?), &token.text, &request).await?;
        let chain = chain_of(answer, &common_name, &key).ok_or_else(|| EnrollError::Foreign(server.to_string()))?;
        if !files.ca_file.exists() {
            let authorities = server.authorities(told(trusting(&trusted)?)).await?;
            write(&files.ca_file, &pem(&with_first(&trusted, authorities))?)?;
        }
        let facts = Facts::of(&chain[0])?;
        if key_file != identity.key_file {
            rename(&key_file, &identity.key_file).map_err(|why| unwritable(&identity.key_file, why))?;
        }
        write(&identity.cert_file, &pem(&chain)?)?;
        Ok(said(config, &server, &common_name, &facts, identity))
    })
}

fn said(config: &Config, server: &Server, common_name: &str, facts: &Facts, identity: &Identity) -> String {
    let until = wall(facts.not_after_s).to_rfc3339();
    let renewal = match &config.identity.server {
        Some(renewing) => format!("It is renewed by itself at {renewing}."),
        None => format!(
            "It is NOT renewed by itself: write under [identity] in {}: url = \"{server}\"",
            config.file.display()
        ),
    };
    format!("{common_name} is enrolled until {until}: {}\n{renewal}\n", identity.cert_file.display())
}

/// The certificates that vouch for the server: from a file, or by their fingerprint.
async fn trusted(
    config: &Config,
    wanted: &Wanted,
    token: &Token,
    server: &Server,
) -> Result<Vec<CertificateDer<'static>>, EnrollError> {
    if let Some(file) = &wanted.ca_file {
        return Ok(tls::certificates(file)?);
    }
    let configured = config.identity.ca_file.as_ref().or(config.mqtt.tls.as_ref().map(|files| &files.ca_file));
    let Some(pin) = wanted.ca_fingerprint.as_ref().or(token.fingerprint.as_ref()) else {
        return match configured {
            Some(file) if file.exists() => Ok(tls::certificates(file)?),
            Some(_) | None => Err(EnrollError::NoTrust),
        };
    };
    let named = server.authorities(trusting_nobody()?).await?;
    let fingerprints: Vec<String> = named.iter().map(certificate::fingerprint).collect();
    let found = named.into_iter().zip(&fingerprints).find(|(_, fingerprint)| *fingerprint == pin);
    let found = found.map(|(certificate, _)| vec![certificate]);
    found.ok_or_else(|| EnrollError::Pin {
        server: server.to_string(),
        wanted: pin.clone(),
        found: fingerprints.join(", "),
    })
}

/// The key to ask with. A new one is on the disk before anybody is asked; beside the one in place, where that is to be replaced.
fn prepare_key(identity: &Identity, again: bool) -> Result<(RequestKey, PathBuf), EnrollError> {
    let file = if again {
        let mut name = identity.key_file.clone().into_os_string();
        name.push(".next");
        PathBuf::from(name)
    } else {
        identity.key_file.clone()
    };
    if file.exists() {
        return Ok((key(&file)?, file));
    }
    let made = RequestKey::make()?;
    replace(&file, made.pem()?.as_bytes(), Readable::ByOwner).map_err(|why| unwritable(&file, why))?;
    Ok((made, file))
}

/// Of what came back, the certificate for this key and name first, and those that lead from it to a root.
pub(super) fn chain_of(
    answer: Vec<CertificateDer<'static>>,
    common_name: &str,
    key: &RequestKey,
) -> Option<Vec<CertificateDer<'static>>> {
    let public_key = key.public_key().ok()?;
    let (mut own, mut above) = (None, Vec::new());
    for certificate in answer {
        let facts = Facts::of(&certificate).ok()?;
        if facts.public_key == public_key && facts.common_name == common_name {
            own = Some(certificate);
        } else if !facts.is_self_issued {
            above.push(certificate);
        }
    }
    above.insert(0, own?);
    Some(above)
}

fn with_first(
    trusted: &[CertificateDer<'static>],
    authorities: Vec<CertificateDer<'static>>,
) -> Vec<CertificateDer<'static>> {
    let more = authorities.into_iter().filter(|authority| !trusted.contains(authority));
    trusted.iter().cloned().chain(more).collect()
}

pub(super) fn pem(certificates: &[CertificateDer<'static>]) -> Result<String, CertificateError> {
    let each: Result<Vec<String>, _> = certificates.iter().map(certificate::pem).collect();
    Ok(each?.concat())
}

fn write(file: &Path, text: &str) -> Result<(), EnrollError> {
    replace(file, text.as_bytes(), Readable::ByAll).map_err(|why| unwritable(file, why))
}

fn unwritable(file: &Path, why: std::io::Error) -> EnrollError {
    EnrollError::Write { file: file.display().to_string(), why }
}

/// What a token's file says.
struct Token {
    text: String,
    fingerprint: Option<String>,
}

impl Token {
    fn read(file: &Path) -> Result<Self, EnrollError> {
        let wrong = |why: &str| EnrollError::Token { file: file.display().to_string(), why: why.to_owned() };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let (mut token, mut fingerprint) = (None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("ca-fingerprint") {
                Some(written) => {
                    let read = certificate::read_fingerprint(written);
                    fingerprint = Some(read.ok_or_else(|| wrong("its ca-fingerprint is not 64 hexadecimal digits"))?);
                }
                None if token.is_none() => token = Some(line.to_owned()),
                None => return Err(wrong("it has more than one line that could be a token")),
            }
        }
        Ok(Self { text: token.ok_or_else(|| wrong("it is empty"))?, fingerprint })
    }
}
