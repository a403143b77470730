//! The HTTP client of tills, operators and the ERP: what the tests know of the agent and the hub, they know through this.
//!
//! Invariant: "no answer" and "an answer that says no" are told apart, because a till must treat them differently.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::de::DeserializeOwned;

/// How long an answer may take before it counts as none.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// An API at one address.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    token: Option<String>,
    client: reqwest::Client,
}

/// An answer, whatever it says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// `Next-After`: the cursor of the hub's records.
    pub next_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answered, or not to the end: what the other side did is not known.
    #[error("No answer from {url}: {source}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The answer is not a success.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The body, shortened.
        body: String,
    },
    /// The answer is not what it should be.
    #[error("{url} answered something else than expected ({source}): {body}")]
    Shape {
        /// What was asked.
        url: String,
        /// What did not fit.
        source: serde_json::Error,
        /// The body, shortened.
        body: String,
    },
}

impl Answer {
    /// Whether it says yes.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The body as text, shortened for a message.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.get(..2_000).unwrap_or(&self.body)).into_owned()
    }
}

impl Api {
    /// The API at `base` (`http://127.0.0.1:7360`).
    pub fn new(base: &str) -> Self {
        Self::with(base, |client| client)
    }

    /// The API behind a Unix socket.
    pub fn over_socket(socket: &std::path::Path) -> Self {
        Self::with("http://localhost", |client| client.unix_socket(socket))
    }

    /// The API at `base` (`https://…`), if a certificate of `ca_file` says that it is there.
    pub fn over_tls(base: &str, ca_file: &std::path::Path) -> Self {
        let pem = std::fs::read(ca_file).unwrap_or_else(|error| panic!("{}: {error}", ca_file.display()));
        let roots = reqwest::Certificate::from_pem_bundle(&pem).expect("certificates of our own");
        Self::with(base, |client| client.tls_certs_only(roots))
    }

    fn with(base: &str, wishes: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Self {
        // Only the first call finds the place free.
        let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
        // The machine's own roots are not asked for: loopback only, and a bare machine has none.
        let client = wishes(reqwest::Client::builder().tls_certs_only([]))
            .timeout(ANSWER_LIMIT)
            .no_proxy()
            .build()
            .expect("a client without special wishes");
        Self { base: base.trim_end_matches('/').to_owned(), token: None, client }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET`, whatever the status.
    pub async fn get(&self, path: &str) -> Result<Answer, ApiError> {
        self.send(self.client.get(self.url(path)), path).await
    }

    /// `POST`, whatever the status.
    pub async fn post(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer, ApiError> {
        self.send(self.client.post(self.url(path)).header(CONTENT_TYPE, content_type).body(body), path).await
    }

    /// `GET` of a JSON answer; anything but a success is an error.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = self.success(path).await?;
        serde_json::from_slice(&answer.body).map_err(|source| ApiError::Shape {
            url: self.url(path),
            source,
            body: answer.text(),
        })
    }

    /// `GET` of any answer; anything but a success is an error.
    pub async fn success(&self, path: &str) -> Result<Answer, ApiError> {
        let answer = self.get(path).await?;
        if answer.is_success() {
            Ok(answer)
        } else {
            Err(ApiError::Status { url: self.url(path), status: answer.status, body: answer.text() })
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, mut request: reqwest::RequestBuilder, path: &str) -> Result<Answer, ApiError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let no_answer = |source| ApiError::NoAnswer { url: self.url(path), source };
        let response = request.send().await.map_err(no_answer)?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let retry_after = header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let next_after = header("next-after");
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(no_answer)?.to_vec();
        Ok(Answer { status, retry_after, next_after, body })
    }
}

/// Text as one segment of a path.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing into a string");
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_any_text() {
        assert_eq!(segment("85123A"), "85123A");
        assert_eq!(segment("BANK CHARGES/ä"), "BANK%20CHARGES%2F%C3%A4");
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer() {
        let api = Api::new(&format!("http://127.0.0.1:{}", crate::process::free_port()));
        assert!(matches!(api.get("/healthz").await, Err(ApiError::NoAnswer { .. })));
    }
}
