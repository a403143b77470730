//! Tells webhooks of exceptions: a task that writes letters into the ledger's outbox, and one for each webhook that delivers them.
//!
//! A letter is a `POST` of a `CloudEvent` 1.0 in structured JSON (`application/cloudevents+json`):
//!
//! | field | |
//! |---|---|
//! | `id` | the letter's, 32 hexadecimal digits; the header `Idempotency-Key` says the same |
//! | `source` | `/stores/{store}/agents/{agent}` |
//! | `type` | `counterfoil.exception.` and `open`, `acknowledged`, `resolved`, `waived` or `escalated` |
//! | `subject` | the exception's id |
//! | `time` | when the letter was written |
//! | `data` | the exception as in `GET /v1/exceptions`, without its age; `owner` as of this letter; `route` and `region` |
//!
//! With a secret, `Counterfoil-Signature` is `sha256=` and the HMAC-SHA256 of the body in hexadecimal digits.
//!
//! Invariant: at least once. A letter is delivered when a 2xx was read; anything else, silence included, means that it comes again with the same
//! id and the same bytes, further and further apart, for ever. Each webhook has a task of its own: one that is down delays no other. Nothing is
//! followed to another address.

use std::sync::Arc;
use std::time::Duration;

use counterfoil_proto::id::SessionId;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::exception_answer;
use crate::env;
use crate::ledger::{ExceptionView, LedgerError, Letter, SqlLedger};
use crate::routing::{Routes, Sending, Webhook};
use crate::run::stopped;

/// How often to look for changes, and for letters that are due.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Letters in one hand: a webhook that is slow holds no more than these.
const LETTERS_AT_ONCE: i64 = 4;
/// Characters of a failure that are kept.
const FAILURE_CHARS_MAX: usize = 200;

/// What a letter says beside the exception.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// What happened.
    pub change: &'a str,
    /// By which route.
    pub route: &'a str,
    /// Who deals with it.
    pub owner: &'a str,
    /// Where its store is.
    pub region: Option<&'a str>,
    /// Wall time.
    pub now: i64,
}

/// The body of a letter.
pub fn event(id: SessionId, exception: &ExceptionView, about: &About<'_>) -> serde_json::Value {
    let mut data = serde_json::to_value(exception_answer(exception.clone(), about.now)).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.remove("age_s");
        fields.insert("owner".to_owned(), about.owner.into());
        fields.insert("route".to_owned(), about.route.into());
        fields.insert("region".to_owned(), about.region.into());
    }
    serde_json::json!({
        "specversion": "1.0",
        "id": id.to_string(),
        "source": format!("/stores/{}/agents/{}", exception.store_id, exception.agent_id),
        "type": format!("counterfoil.exception.{}", about.change),
        "subject": exception.id,
        "time": counterfoil_proto::time::WallTime(about.now).to_rfc3339(),
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// Tells of exceptions until `stop`.
pub async fn run(ledger: Arc<SqlLedger>, routes: Arc<Routes>, mut stop: watch::Receiver<bool>) {
    let client = reqwest::Client::builder()
        .timeout(routes.sending.timeout)
        .connect_timeout(routes.sending.timeout)
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("counterfoil-hub/", env!("CARGO_PKG_VERSION")));
    let client = if routes.roots.is_empty() { client } else { client.tls_certs_only(routes.roots.iter().cloned()) };
    let mut tasks = JoinSet::new();
    match client.build() {
        Ok(client) => {
            for (target, webhook) in routes.targets() {
                let post = Post {
                    ledger: Arc::clone(&ledger),
                    client: client.clone(),
                    sending: routes.sending,
                    target,
                    webhook,
                };
                tasks.spawn(post.run());
            }
        }
        // Letters are written all the same, and are delivered by a process that can.
        Err(error) => tracing::error!(%error, "Webhooks cannot be called from here"),
    }
    tasks.spawn(write(ledger, routes));
    stopped(&mut stop).await;
    // What is in hand comes again, with the same id.
    tasks.shutdown().await;
}

/// Writes letters.
async fn write(ledger: Arc<SqlLedger>, routes: Arc<Routes>) {
    loop {
        match ledger.tell(&routes).await {
            Ok(0) => env::pause(LOOK_INTERVAL).await,
            Ok(_) => {}
            Err(error) => wait(&error).await,
        }
    }
}

/// The poster and the receiver see to a ledger that went back; here it is waited for.
async fn wait(error: &LedgerError) {
    tracing::warn!(%error, "Telling of exceptions waits for the ledger");
    env::pause(env::jittered(2_000)).await;
}

/// Delivers to one webhook.
struct Post {
    ledger: Arc<SqlLedger>,
    client: reqwest::Client,
    sending: Sending,
    target: String,
    webhook: Webhook,
}

impl Post {
    async fn run(self) {
        // All letters in hand may time out, one after the other, and be noted.
        let lease = self.sending.timeout.saturating_mul(u32::try_from(LETTERS_AT_ONCE + 1).unwrap_or(u32::MAX));
        loop {
            match self.ledger.take_letters(&self.target, LETTERS_AT_ONCE, milliseconds(lease)).await {
                Ok(letters) if letters.is_empty() => env::pause(LOOK_INTERVAL).await,
                Ok(letters) => {
                    for letter in letters {
                        let sent = self.send(&letter).await;
                        if let Err(error) = self.note(&letter, sent).await {
                            wait(&error).await;
                        }
                    }
                }
                Err(error) => wait(&error).await,
            }
        }
    }

    async fn send(&self, letter: &Letter) -> Result<(), String> {
        let mut request = self.client.post(&self.webhook.url);
        request = request.header(CONTENT_TYPE, "application/cloudevents+json");
        request = request.header("idempotency-key", letter.id.to_string());
        if let Some(secret) = &self.webhook.secret {
            request = request.header("counterfoil-signature", secret.sign(&letter.body));
        }
        let answer = request.body(letter.body.clone()).send().await.map_err(|error| {
            let what = if error.is_timeout() { "no answer in time" } else { "no answer" };
            // The address may hold a secret of its receiver's.
            format!("{what}: {}", error.without_url())
        })?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("answered {}", status.as_u16())) }
    }

    async fn note(&self, letter: &Letter, sent: Result<(), String>) -> Result<(), LedgerError> {
        let Err(failure) = sent else { return self.ledger.delivered(letter).await };
        let failure: String = failure.chars().take(FAILURE_CHARS_MAX).collect();
        tracing::warn!(route = self.target, letter = %letter.id, letter.attempts, failure, "A webhook did not take a letter");
        let doublings = letter.attempts.saturating_sub(1).min(30);
        let pause = self.sending.retry_min.saturating_mul(1 << doublings).min(self.sending.retry_max);
        let pause = env::jittered(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self.ledger.not_delivered(letter, &failure, milliseconds(pause)).await
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
