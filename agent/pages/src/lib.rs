//! The pages that agent and hub serve: which files there are, and how one is answered.
//!
//! A page is plain HTML, one stylesheet and one ES module; it asks the same JSON API that everybody asks, and shows what that says. It
//! loads nothing from elsewhere, and its policy forbids it to.
//!
//! Invariant: nothing here depends on a store or a caller, so files may be served without a token; everything that is
//! worth one comes from the API. Who may call, and under which host name, is not known here.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

/// What a page may do: its own files, its own API, and no form, frame, plugin or inline script at all.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html";
const CSS: &str = "text/css";
const JAVASCRIPT: &str = "text/javascript";

/// A file of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is served.
    pub path: &'static str,
    /// Without its charset, which is always UTF-8.
    pub content_type: &'static str,
    /// What it is, for descriptions of the API.
    pub summary: &'static str,
    text: &'static str,
}

const STYLE: File = File {
    path: "/app.css",
    content_type: CSS,
    summary: "The stylesheet of the pages",
    text: include_str!("../assets/app.css"),
};

/// The agent's status page.
pub const AGENT: [File; 3] = [
    File {
        path: "/",
        content_type: HTML,
        summary: "The status page: is everything all right in this store",
        text: include_str!("../assets/agent.html"),
    },
    STYLE,
    File {
        path: "/app.js",
        content_type: JAVASCRIPT,
        summary: "The module of the status page",
        text: concat!(include_str!("../assets/common.js"), include_str!("../assets/agent.js")),
    },
];

/// The hub's pages: the fleet, and one store in depth.
pub const HUB: [File; 4] = [
    File {
        path: "/",
        content_type: HTML,
        summary: "The fleet at a glance",
        text: include_str!("../assets/fleet.html"),
    },
    File {
        path: "/stores/{store}",
        content_type: HTML,
        summary: "One store in depth",
        text: include_str!("../assets/store.html"),
    },
    STYLE,
    File {
        path: "/app.js",
        content_type: JAVASCRIPT,
        summary: "The module of the pages",
        text: concat!(
            include_str!("../assets/common.js"),
            include_str!("../assets/fleet.js"),
            include_str!("../assets/store.js")
        ),
    },
];

impl File {
    /// Bytes that travel.
    pub const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The file, or 304 where the caller has it.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let digest = blake3::hash(self.text.as_bytes()).to_hex();
        let etag = format!("\"{}\"", digest.get(..16).unwrap_or_default());
        let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = known.flat_map(|value| value.split(',')).any(|tag| tag.trim() == etag);
        let mut response = Response::new(if is_known { Body::empty() } else { Body::from(self.text) });
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(ETAG, &etag);
        // Kept, and asked for again each time: after an update nobody sees the old page.
        set(CACHE_CONTROL, "no-cache");
        set(CONTENT_TYPE, &format!("{}; charset=utf-8", self.content_type));
        set(CONTENT_SECURITY_POLICY, POLICY);
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(REFERRER_POLICY, "no-referrer");
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a page with all that it loads; a tablet on a slow line has it in a second.
    const PAGE_BYTES_MAX: usize = 80_000;

    fn files() -> impl Iterator<Item = &'static File> {
        AGENT.iter().chain(&HUB)
    }

    #[test]
    fn a_page_asks_for_nothing_that_is_not_served_here() {
        for file in files() {
            for needle in
                ["http://", "https://", "//cdn", "@import", "url(", "innerHTML", "outerHTML", "insertAdjacent"]
            {
                assert!(!file.text.contains(needle), "{} has {needle}", file.path);
            }
            for needle in ["style=", "onclick", "onload", "<script>", "javascript:"] {
                assert!(!(file.content_type == HTML && file.text.contains(needle)), "{} has {needle}", file.path);
            }
        }
        for set in [&AGENT[..], &HUB[..]] {
            for page in set.iter().filter(|file| file.content_type == HTML) {
                let named = page.text.split(['"', '\'']).filter(|text| text.starts_with('/') && text.contains('.'));
                for name in named {
                    assert!(set.iter().any(|file| file.path == name), "{} names {name}", page.path);
                }
            }
        }
    }

    #[test]
    fn a_page_is_light() {
        for set in [&AGENT[..], &HUB[..]] {
            let bytes: usize = set.iter().map(File::bytes).sum();
            assert!(bytes <= PAGE_BYTES_MAX, "{bytes} bytes");
        }
    }

    #[test]
    fn who_has_a_file_is_not_sent_it_again() {
        for file in files() {
            let first = file.answer(&HeaderMap::new());
            assert_eq!(first.status(), StatusCode::OK);
            assert_eq!(first.headers()[CONTENT_SECURITY_POLICY], POLICY);
            let etag = first.headers()[ETAG].clone();
            let ask = |value: HeaderValue| file.answer(&HeaderMap::from_iter([(IF_NONE_MATCH, value)])).status();
            assert_eq!(ask(etag.clone()), StatusCode::NOT_MODIFIED);
            let many = format!("\"x\", {}", etag.to_str().unwrap());
            assert_eq!(ask(many.parse().unwrap()), StatusCode::NOT_MODIFIED);
            assert_eq!(ask(HeaderValue::from_static("\"x\"")), StatusCode::OK);
        }
    }
}
