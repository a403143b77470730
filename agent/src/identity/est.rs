//! EST (RFC 7030) as a client: whom to trust, a first certificate, the next one. Any EST server will do; the hub is one.
//!
//! Invariant: secrets go only to a server that was verified. Answers are bounded in bytes and time. Not known here: where certificates are kept.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use counterfoil_config::certificate::{self, CertificateError};
use counterfoil_config::tls;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::exchange_over;

/// How long an exchange may take, from connecting on.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Bytes of an answer: a dozen long chains.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Characters of a refusal that are passed on.
const SAID_MAX: usize = 300;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EstError {
    /// Nobody answers, or not as whom we trust.
    #[error("{at} cannot be asked: {why}")]
    Line {
        /// Who.
        at: String,
        /// Why not.
        why: String,
    },
    /// It says no.
    #[error("{at} refuses ({status}): {said}")]
    Refused {
        /// Who.
        at: String,
        /// The HTTP status.
        status: u16,
        /// In its own words.
        said: String,
    },
    /// It wants more time, for a person to agree.
    #[error("{0} has not decided yet; ask again later")]
    Undecided(String),
    /// The answer is none.
    #[error("{at} gives something else than a certificate: {why}")]
    Form {
        /// Who.
        at: String,
        /// What is wrong.
        why: String,
    },
}

impl EstError {
    /// Whether the authority keeps us out.
    pub fn is_revocation(&self) -> bool {
        matches!(self, Self::Refused { status: 403, said, .. } if said.contains("revoked"))
    }
}

/// An EST server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    /// A server with several authorities tells them apart by one more segment.
    label: Option<String>,
}

impl std::fmt::Display for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "https://{}", self.authority())
    }
}

impl Server {
    /// Reads `https://host:port`, or with a label `https://host:port/label`.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "https://host:port, and where the server has several authorities a label behind it: https://host:port/label";
        let uri: hyper::Uri = text.parse().map_err(|_| EXPECTED)?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or(EXPECTED)?;
        let label = uri.path().trim_matches('/');
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_name = ServerName::try_from(host.trim_matches(['[', ']'])).is_ok();
        if !plain || !is_name || uri.query().is_some() || text.contains('@') {
            return Err(EXPECTED);
        }
        let label = (!label.is_empty()).then(|| label.to_owned());
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(443), label })
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn path(&self, call: &str) -> String {
        match &self.label {
            Some(label) => format!("/.well-known/est/{label}/{call}"),
            None => format!("/.well-known/est/{call}"),
        }
    }

    /// Whom to trust, as the server says it; worth as much as the server's own verification in `tls`.
    pub async fn authorities(&self, tls: ClientConfig) -> Result<Vec<CertificateDer<'static>>, EstError> {
        self.call(tls, Method::GET, "cacerts", None, None).await
    }

    /// A first certificate, for a one-time token.
    pub async fn enroll(
        &self,
        tls: ClientConfig,
        token: &str,
        request: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, EstError> {
        // The user name is of no account here; other servers may want to see one.
        let basic = format!("Basic {}", STANDARD.encode(format!("counterfoil:{token}")));
        self.call(tls, Method::POST, "simpleenroll", Some(basic), Some(request)).await
    }

    /// The next certificate; `tls` shows the one before.
    pub async fn renew(&self, tls: ClientConfig, request: &[u8]) -> Result<Vec<CertificateDer<'static>>, EstError> {
        self.call(tls, Method::POST, "simplereenroll", None, Some(request)).await
    }

    async fn call(
        &self,
        tls: ClientConfig,
        method: Method,
        call: &str,
        authorization: Option<String>,
        request: Option<&[u8]>,
    ) -> Result<Vec<CertificateDer<'static>>, EstError> {
        let body = request.map(|request| Bytes::from(STANDARD.encode(request))).unwrap_or_default();
        let path = self.path(call);
        let exchange = self.exchange(tls, method, &path, authorization, body);
        let line = |why: String| EstError::Line { at: self.to_string(), why };
        let answer = tokio::time::timeout(ANSWER_WITHIN, exchange).await;
        let answer = answer.map_err(|_| line(format!("nothing within {} s", ANSWER_WITHIN.as_secs())))?;
        let (status, body) = answer.map_err(line)?;
        let at = self.to_string();
        match status {
            200 => opened(&body).map_err(|why| EstError::Form { at, why }),
            202 => Err(EstError::Undecided(at)),
            status => Err(EstError::Refused { at, status, said: said(&body) }),
        }
    }

    async fn exchange(
        &self,
        tls: ClientConfig,
        method: Method,
        path: &str,
        authorization: Option<String>,
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let words = |error: &dyn std::error::Error| crate::error::chain(error);
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.authority());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/pkcs10").header("content-transfer-encoding", "base64");
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| words(&error))?;
        let host = self.host.trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((host.as_str(), self.port)).await.map_err(|error| words(&error))?;
        let name = ServerName::try_from(host).map_err(|error| words(&error))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| words(&error))?;
        exchange_over(stream, request, ANSWER_BYTES_MAX).await
    }
}

fn opened(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let envelope = STANDARD.decode(text).map_err(|error| error.to_string())?;
    certificate::open(&envelope).map_err(|error: CertificateError| error.to_string())
}

/// A refusal on one line of a terminal.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = text.trim().chars().map(|one| if one.is_control() { ' ' } else { one });
    let text: String = plain.take(SAID_MAX).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

/// A client that trusts these certificates, and shows none of its own.
pub fn trusting(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client that takes whoever answers: good for nothing but asking for certificates that are compared with a fingerprint afterwards (RFC 7030, 4.1.1).
pub fn trusting_nobody() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Provisional)).with_no_client_auth())
}

#[derive(Debug)]
struct Provisional;

impl ServerCertVerifier for Provisional {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_https_url_with_at_most_a_label() {
        let read = |text: &str| Server::read(text).map(|server| (server.authority(), server.path("cacerts")));
        let plain = "/.well-known/est/cacerts".to_owned();
        assert_eq!(read("https://hub.example"), Ok(("hub.example:443".to_owned(), plain.clone())));
        assert_eq!(read("https://[::1]:7370/"), Ok(("[::1]:7370".to_owned(), plain)));
        let labelled = "/.well-known/est/boxes/cacerts".to_owned();
        assert_eq!(read("https://10.0.0.1:8443/boxes"), Ok(("10.0.0.1:8443".to_owned(), labelled)));
        for bad in ["http://hub", "hub", "https://", "https://a@b", "https://a/b/c", "https://a/?b", "https://a b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_server_says_is_short_and_plain() {
        assert_eq!(said(b"no\x1b[2J\nway"), "no [2J way");
        assert_eq!(said(b" \n"), "no reason given");
        assert_eq!(said(&[b'x'; 5_000]).len(), SAID_MAX);
        assert!(opened(b"AAAA").is_err() && opened(b"?").is_err() && opened(b"").is_err());
    }
}
