//! EST (RFC 7030): how a box comes by its certificate, and by the next one. `config/identity.md` shows it from the outside.
//!
//! Invariant: spoken over TLS only; a box is let in by a one-time token (HTTP Basic, the user name does not matter) or renews with the client
//! certificate whose key the handshake has proven, and is told in words what is wrong otherwise. Not spoken: full CMC, keys made by the server,
//! binding a request to its TLS connection.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use counterfoil_config::certificate;
use rustls::pki_types::CertificateDer;

use super::Sources;
use crate::authority::{Authority, AuthorityError, Denied};

/// Bytes of a request; one of RSA 4096 with much beside fits.
pub(super) const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The client's certificate and those that lead from it, as the handshake gave them; empty without.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer(pub(super) Arc<Vec<CertificateDer<'static>>>);

/// `/.well-known/est/cacerts`: whom to trust.
pub(super) async fn authorities(State(sources): State<Arc<Sources>>) -> Response {
    match authority(&sources) {
        Some(authority) => envelope(authority.chain(), "application/pkcs7-mime"),
        None => nobody(),
    }
}

/// `/.well-known/est/simpleenroll`.
pub(super) async fn enrol(State(sources): State<Arc<Sources>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(authority) = authority(&sources) else { return nobody() };
    let answer = async {
        let token = token(&headers).ok_or(Denied::Token)?;
        authority.enrol(&token, &request(&body)?).await
    };
    answered(answer.await)
}

/// `/.well-known/est/simplereenroll`.
pub(super) async fn renew(
    State(sources): State<Arc<Sources>>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Response {
    let Some(authority) = authority(&sources) else { return nobody() };
    let answer = async { authority.renew(&peer.0, &request(&body)?).await };
    answered(answer.await)
}

fn authority(sources: &Sources) -> Option<&Arc<Authority>> {
    sources.authority.as_ref()
}

fn nobody() -> Response {
    (StatusCode::NOT_FOUND, "This hub is no certificate authority; see [ca] of its configuration\n").into_response()
}

/// The password of HTTP Basic.
fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, text) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let pair = STANDARD.decode(text.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(_, token)| token.to_owned())
}

/// The body is base64, in lines or not.
fn request(body: &[u8]) -> Result<Vec<u8>, Denied> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|error| Denied::Request(error.to_string()))
}

fn answered(answer: Result<Vec<CertificateDer<'static>>, Denied>) -> Response {
    let denied = match answer {
        Ok(chain) => return envelope(&chain, "application/pkcs7-mime; smime-type=certs-only"),
        Err(denied) => denied,
    };
    let status = match &denied {
        Denied::Request(_) => StatusCode::BAD_REQUEST,
        Denied::Token | Denied::TokenLate(_) | Denied::TokenUsed | Denied::Unproven => StatusCode::UNAUTHORIZED,
        Denied::Name { .. } | Denied::Revoked(_) | Denied::Late { .. } => StatusCode::FORBIDDEN,
        Denied::Authority(AuthorityError::Ledger(_)) => StatusCode::SERVICE_UNAVAILABLE,
        Denied::Authority(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::warn!(error = %denied, %status, "A certificate was asked for and not given");
    let said = if matches!(denied, Denied::Authority(_)) {
        // What is wrong inside is nobody else's.
        "The authority cannot sign now; try again later".to_owned()
    } else {
        denied.to_string()
    };
    let mut response = (status, format!("{said}\n")).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"one-time token\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
    }
    response
}

fn envelope(certificates: &[CertificateDer<'static>], content_type: &'static str) -> Response {
    let Ok(sealed) = certificate::seal(certificates) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let encoded = STANDARD.encode(sealed);
    // Lines of 64, as the tools that read it expect.
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (HeaderName::from_static("content-transfer-encoding"), HeaderValue::from_static("base64")),
    ];
    (headers, lines.join("\n") + "\n").into_response()
}
