//! Who may call what, and what is left of it: the router over a ledger in a file, without sockets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use axum::body::Body;
use counterfoil_proto::id::{AgentId, Source, StoreId};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::tokens::Role;
use super::*;
use crate::config::Config;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{SafeWhen, SqlLedger};
use crate::mqtt::Line;

const READ: &str = "0123456789abcde0";
const SUPPORT: &str = "0123456789abcde1";
const ADMIN: &str = "0123456789abcde2";

struct Api {
    router: Router,
    sources: Arc<Sources>,
    _directory: tempfile::TempDir,
}

async fn api(has_tokens: bool, more: &str) -> Api {
    let directory = tempfile::tempdir().unwrap();
    let tokens = format!("bi read {READ}\nann support {SUPPORT}\nben admin {ADMIN}\n");
    std::fs::write(directory.path().join("tokens"), tokens).unwrap();
    let tokens = if has_tokens { "tokens_file = \"tokens\"\n" } else { "" };
    let file = directory.path().join("hub.toml");
    let text =
        format!("[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n[ledger]\nurl = \"sqlite:hub.db\"\n[api]\n{tokens}{more}");
    std::fs::write(&file, text).unwrap();
    let config = Config::load_with(&file, []).unwrap();
    let database = Box::new(Sqlite::open(&directory.path().join("hub.db")).unwrap());
    let ledger: Arc<dyn Ledger> = Arc::new(SqlLedger::open(database, SafeWhen::Stored).await.unwrap());
    let (line, _, outlet) = Line::new(config.mqtt.clone());
    let sources = Arc::new(Sources {
        ledger,
        counters: Arc::default(),
        dropped: Arc::clone(&line.dropped),
        outlet,
        posted: watch::channel(0).1,
        tokens: config.api.tokens,
        allowed_hosts: config.api.allowed_hosts,
        regions: BTreeMap::new(),
        standings: watch::channel(Vec::new()).1,
        certificates: Vec::new(),
        authority: None,
    });
    let ends =
        Ends { remote: Some(SocketAddr::from(([10, 0, 0, 9], 4711))), local: Some(Ipv4Addr::new(10, 0, 0, 5).into()) };
    let router = router(Arc::clone(&sources)).layer(axum::Extension(ends));
    Api { router, sources, _directory: directory }
}

impl Api {
    /// An exception that needs a person.
    async fn exception(&self) -> String {
        let source = Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() };
        self.sources.ledger.reject(&source, None, "not a batch", b"x").await.unwrap();
        self.state().await.0
    }

    async fn state(&self) -> (String, String) {
        let filter = ExceptionFilter { limit: 1, ..ExceptionFilter::default() };
        let found = self.sources.ledger.exceptions(&filter).await.unwrap().pop().unwrap();
        (found.id, found.state)
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = axum::http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:7370");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn trail(&self, token: &str) -> Vec<(String, String, String)> {
        let (status, trail) = self.call("GET", "/v1/audit", &[("authorization", token)], "").await;
        assert_eq!(status, 200, "{trail}");
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = trail["entries"].as_array().unwrap();
        entries.iter().map(|entry| (text(entry, "who"), text(entry, "role"), text(entry, "outcome"))).collect()
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const REMARK: &str = "{\"by\":\"Ann\",\"reason\":\"seen\"}";

/// Each call with each role: what is refused is exactly what the table refuses.
#[tokio::test]
async fn each_role_may_what_the_table_says_and_no_more() {
    let api = api(true, "").await;
    let mut refused = BTreeSet::new();
    for (path, call, needed) in routes::ROUTES {
        let parts: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect();
        let method = if call.writes() { "POST" } else { "GET" };
        for (has, token) in [
            (None, None),
            (None, Some("Bearer 0123456789abcdef")),
            (None, Some("Basic 0123456789abcde2")),
            (Some(Role::Read), Some("Bearer 0123456789abcde0")),
            (Some(Role::Support), Some("bearer 0123456789abcde1")),
            (Some(Role::Admin), Some("Bearer 0123456789abcde2")),
        ] {
            let headers: Vec<(&str, &str)> =
                [JSON].into_iter().chain(token.map(|token| ("authorization", token))).collect();
            let (status, body) = api.call(method, &parts.join("/"), &headers, "").await;
            match has {
                None => assert_eq!(status, 401, "{method} {path} with {token:?}"),
                Some(has) if has < *needed => {
                    assert_eq!(status, 403, "{method} {path} as {has:?}: {body}");
                    refused.insert((*path, has.as_str()));
                }
                Some(has) => assert!(![401, 403, 405].contains(&status), "{method} {path} as {has:?}: {status} {body}"),
            }
        }
        // The other method is none of its, whoever asks.
        let other = if call.writes() { "GET" } else { "POST" };
        let (status, _) =
            api.call(other, &parts.join("/"), &[JSON, ("authorization", "Bearer 0123456789abcde2")], "").await;
        assert_eq!(status, 405, "{other} {path}");
    }
    // Written down once more, so that a call which changes its role is noticed.
    let expected = BTreeSet::from([
        ("/v1/exceptions/{id}/acknowledge", "read"),
        ("/v1/exceptions/{id}/resolve", "read"),
        ("/v1/exceptions/{id}/waive", "read"),
        ("/v1/audit", "read"),
        ("/v1/audit", "support"),
    ]);
    assert_eq!(refused, expected);
    assert_eq!(api.call("GET", "/v1/nothing", &[], "").await.0, 401);
    assert_eq!(api.call("GET", "/healthz", &[], "").await.0, 200);
}

#[tokio::test]
async fn a_write_leaves_who_it_was_and_so_does_one_that_was_refused() {
    let api = api(true, "").await;
    let id = api.exception().await;
    let path = format!("/v1/exceptions/{id}/resolve");
    let (read, support, admin) = (format!("Bearer {READ}"), format!("Bearer {SUPPORT}"), format!("Bearer {ADMIN}"));
    assert_eq!(api.call("POST", &path, &[JSON, ("authorization", &read)], REMARK).await.0, 403);
    for (headers, body, expected) in [
        (("content-type", "text/plain"), REMARK, 415),
        (JSON, "{\"by\":\"Ann\"}", 422),
        (JSON, "{\"by\":\" \",\"reason\":\"seen\"}", 422),
        (JSON, &*" ".repeat(17 * 1024), 422),
    ] {
        let (status, problem) = api.call("POST", &path, &[headers, ("authorization", &support)], body).await;
        assert_eq!(status, expected, "{problem}");
    }
    assert_eq!(api.state().await.1, "open");
    let (status, changed) = api.call("POST", &path, &[JSON, ("authorization", &support)], REMARK).await;
    assert_eq!(
        (status, &changed["state"], &changed["resolved_by"]),
        (200, &"resolved".into(), &"Ann".into()),
        "{changed}"
    );
    assert_eq!(api.state().await.1, "resolved");
    let unknown = "/v1/exceptions/ex-0000000000000000/waive";
    assert_eq!(api.call("POST", unknown, &[JSON, ("authorization", &admin)], REMARK).await.0, 404);

    let entry = |who: &str, role: &str, outcome: &str| (who.to_owned(), role.to_owned(), outcome.to_owned());
    let expected = [
        entry("ben", "admin", "refused: not known"),
        entry("ann", "support", "done"),
        entry("bi", "read", "refused: role"),
    ];
    assert_eq!(api.trail(&admin).await, expected);
    let (_, page) = api.call("GET", "/v1/audit?limit=1&before=3", &[("authorization", &admin)], "").await;
    let done = &page["entries"][0];
    assert_eq!(
        (&done["peer"], &done["route"]),
        (&"10.0.0.9".into(), &"POST /v1/exceptions/{id}/resolve".into()),
        "{page}"
    );
    assert!(done["what"].as_str().unwrap().contains(&id) && page["next_before"].is_u64(), "{page}");
    assert_eq!(api.call("GET", "/v1/audit?limit=x", &[("authorization", &admin)], "").await.0, 400);
}

#[tokio::test]
async fn only_hosts_that_are_allowed_are_answered_to_where_nobody_is_asked_for_a_token() {
    let open = api(false, "").await;
    let listed = api(true, "allowed_hosts = [\"hub.example\"]\n").await;
    let guarded = api(true, "").await;
    let admin = format!("Bearer {ADMIN}");
    let id = open.exception().await;
    for (host, of_open, of_listed) in [
        ("localhost:7370", true, true),
        ("127.0.0.1:7370", true, true),
        ("[::1]:7370", true, true),
        ("10.0.0.5:7370", true, true),
        ("hub.example", false, true),
        ("HUB.example.:7370", false, true),
        ("10.0.0.6", false, false),
        ("evil.example:7370", false, false),
        ("localhost.evil.example", false, false),
        ("", false, false),
    ] {
        for (api, expected) in [(&open, of_open), (&listed, of_listed), (&guarded, true)] {
            for path in ["/v1/exceptions", "/", "/app.js"] {
                let (status, problem) = api.call("GET", path, &[("host", host), ("authorization", &admin)], "").await;
                assert_eq!(status == 200, expected, "{host:?} {path}: {status} {problem}");
            }
        }
    }
    let path = format!("/v1/exceptions/{id}/resolve");
    assert_eq!(open.call("POST", &path, &[JSON, ("host", "evil.example")], REMARK).await.0, 403);
    assert_eq!(open.state().await.1, "open");
    assert_eq!(open.call("POST", &path, &[JSON], REMARK).await.0, 200);
    let local = ("somebody on this machine".to_owned(), "local".to_owned(), "done".to_owned());
    assert_eq!(open.trail("").await, [local]);
}
