//! Asking a running agent, as a person at the box does.
//!
//! Invariant: it does what anybody can do over the HTTP API, and no more; whatever came from a till is shown without control characters.
//! Not known here: the agent's insides.

pub mod exceptions;
pub mod status;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use counterfoil_config::tls::{ClientFiles, TlsError};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::command::Target;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there is no usable answer; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0} is no address of an agent; http://host:port is wanted, or https://host:port with --ca-file")]
    Address(Uri),
    /// The authority's certificates cannot be read.
    #[error(transparent)]
    Tls(TlsError),
    /// The token cannot be read.
    #[error("the token in {0} cannot be read: {1}")]
    Token(String, io::Error),
    /// Nobody answers.
    #[error("no agent answers at {0}: {1}; is it running, and is that its ingress.listen?")]
    Silent(Uri, String),
    /// It says no.
    #[error("the agent says no ({status}): {said}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says, in words.
        said: String,
    },
    /// The answer is not what this version expects.
    #[error("the answer is not understood ({0}); does the agent have this version?")]
    Shape(String),
}

/// A way to a running agent.
#[derive(Debug)]
pub struct Client {
    base: Uri,
    authority: String,
    token: Option<String>,
    tls: Option<Encryption>,
}

/// How a connection is encrypted, and whom it has to reach.
struct Encryption {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Encryption").field(&self.name).finish()
    }
}

impl Client {
    /// Reads what the arguments name.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        let base = target.agent.clone();
        let (Some(authority), Some(scheme)) = (base.authority().map(ToString::to_string), base.scheme_str()) else {
            return Err(ClientError::Address(base));
        };
        let tls = match (scheme, &target.ca_file, ServerName::try_from(host_of(&base).to_owned())) {
            ("http", None, _) => None,
            ("https", Some(ca_file), Ok(name)) => {
                let config =
                    ClientFiles { ca_file: ca_file.clone(), identity: None }.read().map_err(ClientError::Tls)?;
                Some(Encryption { connector: TlsConnector::from(Arc::new(config)), name })
            }
            _ => return Err(ClientError::Address(base)),
        };
        let read = |path: &std::path::PathBuf| {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| ClientError::Token(path.display().to_string(), error))?;
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        let token = target.token_file.as_ref().map(read).transpose()?;
        Ok(Self { base, authority, token, tls })
    }

    /// What stands at a path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// Sends a document there.
    pub fn post<T: DeserializeOwned>(&self, path: &str, document: &Value) -> Result<T, ClientError> {
        self.call(Method::POST, path, document.to_string().into())
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let silent = |why: String| ClientError::Silent(self.base.clone(), why);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| silent(error.to_string()))?;
        let answer = runtime.block_on(async {
            let answer = tokio::time::timeout(ANSWER_WITHIN, self.exchange(method, path, body)).await;
            answer.map_err(|_| format!("nothing within {} s", ANSWER_WITHIN.as_secs()))?
        });
        let (status, body) = answer.map_err(silent)?;
        if !(200..300).contains(&status) {
            return Err(ClientError::Refused { status, said: said(&body) });
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Shape(error.to_string()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| words(&error))?;
        let port = self.base.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host_of(&self.base), port)).await.map_err(|error| words(&error))?;
        match &self.tls {
            None => exchange_over(stream, request, ANSWER_BYTES_MAX).await,
            Some(Encryption { connector, name }) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| words(&error))?;
                exchange_over(stream, request, ANSWER_BYTES_MAX).await
            }
        }
    }
}

/// One request over a connection that is there: the answer's status, and its body of at most so many bytes.
pub(crate) async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(u16, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| words(&error))?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    Ok((status, body))
}

fn words(error: &dyn std::error::Error) -> String {
    crate::error::chain(error)
}

fn host_of(base: &Uri) -> &str {
    base.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// A problem (RFC 9457) in words.
fn said(body: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<Value>(body) else { return "no reason given".to_owned() };
    let text = |name: &str| problem.get(name).and_then(Value::as_str).map(plain);
    let mut words: Vec<String> = ["title", "detail"].into_iter().filter_map(text).collect();
    for fault in problem.get("faults").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| fault.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        words.push(format!("{} {}", of("pointer"), of("detail")));
    }
    if words.is_empty() { "no reason given".to_owned() } else { words.join(": ") }
}

/// A text of foreign origin on one line of a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

/// Rows whose columns stand below one another.
fn laid_out(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Seconds as a person says them.
fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
    }

    #[test]
    fn an_age_is_said_in_the_largest_unit_that_leaves_two_of_it() {
        assert_eq!([0, 119, 120, 7_200, 172_800].map(age), ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
