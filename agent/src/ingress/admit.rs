//! Whether a request may come in, decided from its head alone: host, token, content type, encoding, length.
//!
//! Invariant: pure; nothing here reads a body, waits, or knows what the request would do. What is not allowed comes back as the
//! [`Problem`] that the caller is told, and never carries a value of the request.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Uri};
use counterfoil_proto::record::is_trace_parent;

use super::reply::{Problem, problems};

/// Documents of one request. More would hold one sync for too long; the request is refused with 413.
pub const DOCUMENTS_MAX: usize = 1_000;

/// Bytes of a request's head; more ends in 431 and the end of the connection. Tills send under 1 KiB.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the file with the tokens; it holds some dozens of short lines.
const TOKENS_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Characters that a token must have at least: 96 bits in base 64.
const TOKEN_CHARS_MIN: usize = 16;

/// The tokens that may call, by name; of the tokens only hashes are kept.
#[derive(Clone)]
pub struct Tokens {
    by_name: BTreeMap<String, blake3::Hash>,
}

/// The file with the tokens cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("Cannot read the tokens from {path}")]
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line is not what it should be; it is not repeated, as it may hold a token.
    #[error(
        "{path}:{line}: write `name token`, the name once, the token of at least {TOKEN_CHARS_MIN} visible ASCII characters"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
    /// Nobody could call.
    #[error("{path} holds no token; write one `name token` per line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// Reads `name token` lines; empty ones and those that begin with `#` are passed over.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > TOKENS_FILE_BYTES_MAX {
            return Err(failed(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "the file has more than 256 KiB",
            )));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut by_name = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let (name, token) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(name), ..) if name.starts_with('#') => continue,
                (Some(name), Some(token), None) => (name, token),
                _ => return Err(TokensError::Line { path: path.to_owned(), line: index + 1 }),
            };
            let good = token.len() >= TOKEN_CHARS_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
            if !good || by_name.insert(name.to_owned(), blake3::hash(token.as_bytes())).is_some() {
                return Err(TokensError::Line { path: path.to_owned(), line: index + 1 });
            }
        }
        if by_name.is_empty() { Err(TokensError::Empty { path: path.to_owned() }) } else { Ok(Self { by_name }) }
    }

    /// Who may call.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whose token that is. Hashes of equal length are compared in constant time, and always all of them.
    fn name_of(&self, token: &[u8]) -> Option<&str> {
        let presented = blake3::hash(token);
        self.by_name
            .iter()
            .fold(None, |found, (name, hash)| if *hash == presented { Some(name.as_str()) } else { found })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}

/// Who may call, and by what name the box may be called.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: Option<Tokens>,
    hosts: Vec<String>,
}

/// What a call is known by; for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody asks who it is: loopback or the Unix socket, without tokens configured.
    Local,
    /// By the name beside its token.
    Named(String),
}

impl Gate {
    /// A gate that lets pass who has one of `tokens`, or everybody where there are none.
    pub fn new(tokens: Option<Tokens>, allowed_hosts: &[String]) -> Self {
        let bare = |host: &String| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Self { tokens, hosts: allowed_hosts.iter().map(bare).collect() }
    }

    /// Checks the host. `local` is the address that the connection came in on; `None` for the Unix socket.
    pub fn admit_host(&self, uri: &Uri, headers: &HeaderMap, local: Option<IpAddr>) -> Result<(), Problem> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = uri.authority().map(axum::http::uri::Authority::as_str).or_else(|| hosts.next()?.to_str().ok());
        if hosts.next().is_some() || !host.is_some_and(|host| self.knows(host, local)) {
            return Err(problems::HOST_NOT_ALLOWED
                .detail("The Host header names no host of `ingress.allowed_hosts`; call the box by its address or add the name there"));
        }
        Ok(())
    }

    /// Checks host, then token.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap, local: Option<IpAddr>) -> Result<Caller, Problem> {
        self.admit_host(uri, headers, local)?;
        let Some(tokens) = &self.tokens else { return Ok(Caller::Local) };
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Err(problems::TOKEN_MISSING.detail("Send `Authorization: Bearer` with the token of this till"));
        };
        let token = match header.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => b"",
        };
        match tokens.name_of(token) {
            Some(name) => Ok(Caller::Named(name.to_owned())),
            None => Err(problems::TOKEN_UNKNOWN.detail("The token is not in `ingress.tokens_file`")),
        }
    }

    /// Loopback names, the address itself, and what was allowed. An address cannot be rebound by a foreign name server, but it can be
    /// another box's, so only the one that the connection came in on counts.
    fn knows(&self, authority: &str, local: Option<IpAddr>) -> bool {
        let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        host == "localhost"
            || address.is_some_and(|address| {
                address.is_loopback() || Some(address) == local.map(|local| local.to_canonical())
            })
            || self.hosts.contains(&host)
    }
}

/// How the documents of a body are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// One object, or an array of them.
    Json,
    /// One object per line.
    NdJson,
}

/// Checks that a body is not compressed.
pub fn plain_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let plain =
        headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if plain { Ok(()) } else { Err(problems::ENCODING_NOT_SUPPORTED.detail("Send the body without Content-Encoding")) }
}

/// Checks what a body claims to be: JSON (which no web page can send across origins unasked) and not compressed.
pub fn media_type(headers: &HeaderMap) -> Result<MediaType, Problem> {
    plain_encoding(headers)?;
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(MediaType::Json),
        "application/x-ndjson" => Ok(MediaType::NdJson),
        _ => Err(problems::CONTENT_TYPE_NOT_SUPPORTED
            .detail("Send Content-Type application/json, or application/x-ndjson with one document per line")),
    }
}

/// Checks a stated length against the bound; what comes without one is counted while it comes.
pub fn content_length(headers: &HeaderMap, bytes_max: usize) -> Result<(), Problem> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > bytes_max)) {
        return Err(body_too_large(bytes_max));
    }
    Ok(())
}

/// What a body beyond the bound is answered with.
pub fn body_too_large(bytes_max: usize) -> Problem {
    problems::BODY_TOO_LARGE
        .detail(format!("A body may have {bytes_max} bytes; send the documents in several requests"))
}

/// The key that says the same as `document_id`, where a single document comes with one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| bad_key())?.trim();
            // The draft of the header quotes it; most clients do not.
            let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
            if text.is_empty() { Err(bad_key()) } else { Ok(Some(text.to_owned())) }
        }
        (Some(_), Some(_)) => Err(bad_key()),
    }
}

/// The W3C trace context that a request comes in with; one that is not as the standard has it is nobody's.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok().filter(|text| is_trace_parent(text))
}

fn bad_key() -> Problem {
    problems::BAD_REQUEST.detail("Send one Idempotency-Key of visible ASCII characters, the same as `document_id`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn tokens(text: &str) -> Result<Tokens, TokensError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Tokens::read(file.path())
    }

    #[test]
    fn loopback_names_the_own_address_and_allowed_names_pass_no_other() {
        let gate = Gate::new(None, &["Box1.Local".to_owned(), "[fe80::1]".to_owned()]);
        let local = Some("10.0.0.5".parse().unwrap());
        let admitted =
            |host: &'static str| gate.admit(&Uri::from_static("/"), &headers(&[("host", host)]), local).is_ok();
        for host in
            ["localhost:7360", "LOCALHOST", "127.0.0.1:1", "[::1]:7360", "10.0.0.5:7360", "box1.local.", "[fe80::1]"]
        {
            assert!(admitted(host), "{host}");
        }
        for host in ["evil.example", "10.0.0.6", "localhost.evil.example", "", "127.0.0.1.evil.example:7360", "[::2]"] {
            assert!(!admitted(host), "{host}");
        }
        assert!(gate.admit(&Uri::from_static("/"), &HeaderMap::new(), local).is_err());
        let foreign = gate.admit(&Uri::from_static("http://evil.example/"), &headers(&[("host", "localhost")]), local);
        assert_eq!(foreign.unwrap_err().status, 403);
    }

    #[test]
    fn a_token_is_known_by_its_name_and_anything_else_is_401() {
        let gate = Gate::new(Some(tokens("till1 0123456789abcdef\n\n# x\ntill2 fedcba9876543210\n").unwrap()), &[]);
        let admit = |value: Option<&'static str>| {
            let mut headers = headers(&[("host", "localhost")]);
            value.map(|value| headers.insert(AUTHORIZATION, value.parse().unwrap()));
            gate.admit(&Uri::from_static("/"), &headers, None)
        };
        assert_eq!(admit(Some("Bearer fedcba9876543210")), Ok(Caller::Named("till2".to_owned())));
        assert_eq!(admit(Some("bearer  0123456789abcdef")), Ok(Caller::Named("till1".to_owned())));
        for bad in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic 0123456789abcdef"),
            Some("Bearer 0123456789abcdeF"),
        ] {
            assert_eq!(admit(bad).unwrap_err().status, 401, "{bad:?}");
        }
    }

    #[test]
    fn a_file_of_tokens_is_refused_by_line_without_repeating_it() {
        for text in ["till1 short", "till1", "till1 0123456789abcdef x", "a 0123456789abcdef\na 1123456789abcdef"] {
            let message = tokens(text).unwrap_err().to_string();
            assert!(message.contains("write `name token`") && !message.contains("short"), "{message}");
        }
        assert!(matches!(tokens("# none\n"), Err(TokensError::Empty { .. })));
    }

    #[test]
    fn only_plain_json_comes_in() {
        for (value, media) in [
            ("application/json", MediaType::Json),
            ("Application/JSON; charset=utf-8", MediaType::Json),
            ("application/x-ndjson", MediaType::NdJson),
        ] {
            assert_eq!(media_type(&headers(&[("content-type", value)])), Ok(media));
        }
        for pairs in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            assert_eq!(media_type(&headers(pairs)).unwrap_err().status, 415, "{pairs:?}");
        }
        assert_eq!(content_length(&headers(&[("content-length", "11")]), 10).unwrap_err().status, 413);
        assert_eq!(content_length(&headers(&[("content-length", "10")]), 10), Ok(()));
    }

    #[test]
    fn a_key_may_be_quoted_and_comes_once() {
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "\"a-1\"")])), Ok(Some("a-1".to_owned())));
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "a-1")])), Ok(Some("a-1".to_owned())));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        let mut twice = headers(&[("idempotency-key", "a")]);
        twice.append("idempotency-key", "b".parse().unwrap());
        assert_eq!(idempotency_key(&twice).unwrap_err().status, 400);
    }
}
