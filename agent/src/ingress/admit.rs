//! Whether a request may come in, decided from its head alone: host, token or certificate, content type, encoding, length.
//!
//! Invariant: pure; nothing here reads a body, waits, or knows what the request would do. What is not allowed comes back as the
//! [`Problem`] that the caller is told, and never carries a value of the request.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Uri};
use counterfoil_proto::record::is_trace_parent;

use counterfoil_config::tokens::Tokens;

use super::grant::{Caller, Grant};
use super::reply::{Problem, problems};

/// Documents of one request. More would hold one sync for too long; the request is refused with 413.
pub const DOCUMENTS_MAX: usize = 1_000;

/// Bytes of a request's head; more ends in 431 and the end of the connection. Tills send under 1 KiB.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Who may call, and by what name the box may be called.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: Option<Tokens<Grant>>,
    takes_certificates: bool,
    hosts: Vec<String>,
}

impl Gate {
    /// A gate that lets pass who has one of `tokens`, or a certificate where those are taken, or everybody where there is neither.
    pub fn new(tokens: Option<Tokens<Grant>>, takes_certificates: bool, allowed_hosts: &[String]) -> Self {
        let bare = |host: &String| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Self { tokens, takes_certificates, hosts: allowed_hosts.iter().map(bare).collect() }
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

    /// Checks host, then token, then certificate; `common_name` is that of one which was verified.
    pub fn admit(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        local: Option<IpAddr>,
        common_name: Option<&str>,
    ) -> Result<Caller, Problem> {
        self.admit_host(uri, headers, local)?;
        if let (Some(tokens), Some(header)) = (&self.tokens, headers.get(AUTHORIZATION)) {
            let token = match header.as_bytes().split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
                _ => b"",
            };
            return match tokens.find(token) {
                Some((name, grant)) => Ok(Caller { name: Some(name.to_owned()), grant: grant.clone() }),
                None => Err(problems::TOKEN_UNKNOWN.detail("The token is not in `ingress.tokens_file`")),
            };
        }
        if let Some(caller) = common_name.and_then(|name| Caller::of_certificate(name, self.tokens.as_ref())) {
            return Ok(caller);
        }
        // There is no TLS on the Unix socket; its permissions say who may.
        let is_asked = self.tokens.is_some() || (self.takes_certificates && local.is_some());
        if !is_asked {
            return Ok(Caller::LOCAL);
        }
        Err(problems::TOKEN_MISSING.detail(match (&self.tokens, self.takes_certificates) {
            (Some(_), false) => "Send `Authorization: Bearer` with the token of this till",
            (Some(_), true) => {
                "Send `Authorization: Bearer` with the token of this till, or connect with its certificate"
            }
            (None, _) => "Connect with the certificate of this till",
        }))
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

    fn tokens(text: &str) -> Tokens<Grant> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        crate::ingress::grant::read(file.path()).unwrap()
    }

    #[test]
    fn loopback_names_the_own_address_and_allowed_names_pass_no_other() {
        let gate = Gate::new(None, false, &["Box1.Local".to_owned(), "[fe80::1]".to_owned()]);
        let local = Some("10.0.0.5".parse().unwrap());
        let admitted =
            |host: &'static str| gate.admit(&Uri::from_static("/"), &headers(&[("host", host)]), local, None).is_ok();
        for host in
            ["localhost:7360", "LOCALHOST", "127.0.0.1:1", "[::1]:7360", "10.0.0.5:7360", "box1.local.", "[fe80::1]"]
        {
            assert!(admitted(host), "{host}");
        }
        for host in ["evil.example", "10.0.0.6", "localhost.evil.example", "", "127.0.0.1.evil.example:7360", "[::2]"] {
            assert!(!admitted(host), "{host}");
        }
        assert!(gate.admit(&Uri::from_static("/"), &HeaderMap::new(), local, None).is_err());
        let foreign =
            gate.admit(&Uri::from_static("http://evil.example/"), &headers(&[("host", "localhost")]), local, None);
        assert_eq!(foreign.unwrap_err().status, 403);
    }

    #[test]
    fn a_token_is_known_by_its_name_and_anything_else_is_401() {
        let gate = Gate::new(Some(tokens("till1 0123456789abcdef\n\n# x\ntill2 fedcba9876543210\n")), false, &[]);
        let name_of = |value: Option<&'static str>| {
            let mut headers = headers(&[("host", "localhost")]);
            value.map(|value| headers.insert(AUTHORIZATION, value.parse().unwrap()));
            let admitted = gate.admit(&Uri::from_static("/"), &headers, None, None);
            admitted.map(|caller| caller.name.unwrap_or_default())
        };
        assert_eq!(name_of(Some("Bearer fedcba9876543210")), Ok("till2".to_owned()));
        assert_eq!(name_of(Some("bearer  0123456789abcdef")), Ok("till1".to_owned()));
        for bad in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic 0123456789abcdef"),
            Some("Bearer 0123456789abcdeF"),
        ] {
            assert_eq!(name_of(bad).unwrap_err().status, 401, "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_is_as_good_as_a_token_and_the_unix_socket_needs_none() {
        let loopback = Some(IpAddr::from([127, 0, 0, 1]));
        let of = |gate: &Gate, local, common_name, token: Option<&'static str>| {
            let mut headers = headers(&[("host", "localhost")]);
            token.map(|token| headers.insert(AUTHORIZATION, token.parse().unwrap()));
            let admitted = gate.admit(&Uri::from_static("/"), &headers, local, common_name);
            admitted.map(|caller| caller.name).map_err(|problem| problem.status)
        };
        let certificates = Gate::new(None, true, &[]);
        assert_eq!(of(&certificates, loopback, Some("3"), None), Ok(Some("3".to_owned())));
        assert_eq!(of(&certificates, loopback, None, None), Err(401));
        assert_eq!(of(&certificates, loopback, Some(""), None), Err(401), "a certificate that names nobody");
        assert_eq!(of(&certificates, None, None, None), Ok(None));
        let both = Gate::new(Some(tokens("till1 0123456789abcdef\n")), true, &[]);
        assert_eq!(of(&both, loopback, Some("3"), None), Ok(Some("3".to_owned())));
        assert_eq!(of(&both, loopback, Some("3"), Some("Bearer 0123456789abcdef")), Ok(Some("till1".to_owned())));
        assert_eq!(of(&both, loopback, Some("3"), Some("Bearer of nothing that is known")), Err(401));
        assert_eq!((of(&both, loopback, None, None), of(&both, None, None, None)), (Err(401), Err(401)));
        let tokens_alone = Gate::new(Some(tokens("till1 0123456789abcdef\n")), false, &[]);
        assert_eq!(of(&tokens_alone, None, None, None), Err(401));
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
