//! Faults as RFC 9457 problems. Invariant: nothing of a request's values is in them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::tokens::Role;

/// A fault.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_point: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restart_after: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, slug: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://counterfoil.example/problems/{slug}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            restore_point: None,
            restart_after: None,
        }
    }

    pub(super) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(super) fn query(takes: &str) -> Self {
        let detail = format!("The query cannot be read; this call takes {takes}");
        Self::new(StatusCode::BAD_REQUEST, "query", "Query not understood", detail)
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "This call needs `Authorization: Bearer` with a token of api.tokens_file";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Not authorised", detail)
    }

    pub(super) fn role(needed: Role) -> Self {
        let detail = format!(
            "This call needs the role {}; the token's line in api.tokens_file says which it has",
            needed.as_str()
        );
        Self::new(StatusCode::FORBIDDEN, "role", "The token may not do that", detail)
    }

    pub(super) fn media_type() -> Self {
        let detail = "Send Content-Type application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", "The content type is not taken", detail)
    }

    pub(super) fn method() -> Self {
        let detail = "The call takes another method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "The call does not take that method", detail)
    }

    pub(super) fn body(wanted: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "body", "The body is not what the call needs", wanted)
    }

    pub(super) fn forbidden_host() -> Self {
        let detail = "The Host header names neither this machine, as localhost does, nor one of api.allowed_hosts";
        Self::new(StatusCode::FORBIDDEN, "host", "Host not allowed", detail)
    }

    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Ledger not available", "Try again later")
    }

    pub(super) fn gone(restore_point: u64) -> Self {
        let detail = "The ledger was restored from a backup after this cursor was given: what was read up to restore_point holds, what \
            was read above it may come again with other positions; go on with restart_after";
        let problem = Self::new(StatusCode::GONE, "restored", "The cursor is of a state that is gone", detail);
        Self { restore_point: Some(restore_point), ..problem }
    }

    pub(super) fn restore_point(&self) -> Option<u64> {
        self.restore_point
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, super::json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
