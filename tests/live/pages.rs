//! The agent's status page in a real browser, over a real agent: what it says, that a keyboard is enough, that foreign text stays text, and that
//! no other page can write here.

use std::time::Duration;

use counterfoil::answer::ExceptionAnswer;
use serde_json::{Value, json};
use world::agent::{Agent, Mqtt};
use world::browser::{DESKTOP, PHONE, Page, TABLET, screenshots};
use world::process::{free_port, write_file};

use crate::stage::{Stage, post, sale};

const LIMIT: Duration = Duration::from_mins(1);

/// A name that would run, were it ever taken for HTML.
const HOSTILE: &str = "<img src=x onerror=document.body.id='owned'>";

/// A sale whose receipt does not add up, under the hostile name.
fn hostile_sale() -> Value {
    let mut document = sale(3, 700);
    document["document_id"] = HOSTILE.into();
    document["totals"]["gross"] = "9.00".into();
    document["tenders"][0]["amount"] = "9.00".into();
    document["line_items"][0]["description"] = HOSTILE.into();
    document
}

fn day_close(till: &str, number: u64, transactions: u64, gross: &str) -> Value {
    json!({"document_id": format!("close-{till}-{number}"), "workstation_id": till, "business_day_date": "2026-11-23",
        "end_date_time": "2026-11-23T20:00:00+00:00",
        "totals": [{"currency_code": "GBP", "transactions": transactions, "gross": gross}]})
}

fn of_till(mut document: Value, till: &str) -> Value {
    document["workstation_id"] = till.into();
    document
}

async fn close(stage: &Stage, document: &Value) {
    let body = document.to_string().into_bytes();
    let answer = stage.agent.api().post("/v1/day-closes", "application/json", body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn open_page(url: &str) -> Page {
    let mut page = Page::new().await;
    page.look(DESKTOP, false).await;
    page.open(url).await;
    page
}

#[tokio::test]
async fn a_manager_sees_what_is_wrong_and_settles_it_with_the_keyboard() {
    let mut stage = Stage::new().await;
    let api = stage.agent.api();
    for document in [sale(1, 499), sale(2, 1250), of_till(sale(1, 300), "2")] {
        assert_eq!(post(&api, &document).await.status, 201);
    }
    close(&stage, &day_close("2", 1, 1, "3.00")).await;
    stage.agent.drained(LIMIT).await;
    let mut page = open_page(&format!("{}/?day=2026-11-23", stage.agent.url())).await;
    page.shows("Everything is all right").await;
    page.shows("Connected").await;
    page.until("document.getElementById('waiting').innerText === '0 records'").await;
    assert!(page.text("close").await.contains("Not closed yet"));
    page.pictures(&screenshots(), "agent-good", &[TABLET, DESKTOP]).await;
    page.look(DESKTOP, false).await;

    // Nothing is loaded anew: what happens is seen by itself.
    page.eval("window.sameDocument = true; document.body.querySelectorAll('section').forEach((node) => { node.mine = true; })").await;
    let answer = post(&api, &hostile_sale()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    close(&stage, &day_close("1", 2, 3, "99.00")).await;
    page.shows("1 matter needs a person").await;
    page.shows("The lines of this receipt do not add up to its total").await;
    page.shows("Too little counted").await;
    page.shows(HOSTILE).await;
    let untouched = "window.sameDocument && [...document.querySelectorAll('section')].every((node) => node.mine)";
    assert_eq!(page.eval(untouched).await, true);
    assert_eq!(page.eval("document.body.id !== 'owned' && document.images.length === 0").await, true);
    page.pictures(&screenshots(), "agent-matters", &[TABLET, DESKTOP, PHONE]).await;
    page.look(TABLET, false).await;

    resolve_by_keyboard(&mut page).await;
    let all: Vec<ExceptionAnswer> = api.json("/v1/exceptions?all=true").await.unwrap();
    let resolved = all.iter().find(|one| one.code == "TOTALS_MISMATCH").unwrap();
    assert_eq!((resolved.state.as_str(), resolved.resolved_by.as_deref()), ("resolved", Some("Ada Byron")));
    assert_eq!(resolved.reason.as_deref(), Some("printed again and compared"));
    assert_eq!(page.faults(), [""; 0]);

    // Without the hub the page says what that means; without the agent that nobody answers, and since when.
    stage.hub.kill();
    stage.broker.kill();
    assert_eq!(post(&api, &sale(9, 100)).await.status, 201);
    page.shows("Head office cannot be reached").await;
    page.shows("are safe on this box").await;
    page.until("!document.getElementById('waiting').innerText.startsWith('0 ')").await;
    page.pictures(&screenshots(), "agent-offline", &[TABLET]).await;
    stage.agent.kill();
    page.shows("No answer from the box since").await;
    assert_eq!(page.eval("document.body.classList.contains('stale')").await, true);
    page.pictures(&screenshots(), "agent-lost", &[TABLET]).await;
}

/// Opens the first matter, is refused, corrects it, and sends it.
async fn resolve_by_keyboard(page: &mut Page) {
    page.eval("document.activeElement.blur()").await;
    page.tab_to("#matters button").await;
    let ring = page.eval("getComputedStyle(document.activeElement).outlineStyle").await;
    assert_ne!(ring, "none", "where the focus is, is seen");
    page.press("Enter").await;
    page.until("document.getElementById('resolve').open && document.activeElement.id === 'resolve-by'").await;
    page.pictures(&screenshots(), "agent-resolve", &[TABLET]).await;
    page.type_text("Ada Byron").await;
    page.press("Tab").await;
    page.type_text(" ").await;
    page.tab_to("#resolve-send").await;
    page.press("Enter").await;
    // The agent's own words about a reason that is none.
    page.shows("Not resolved").await;
    page.shows("1 to 500 characters").await;
    page.tab_to("#resolve-reason").await;
    page.type_text("printed again and compared").await;
    page.tab_to("#resolve-send").await;
    page.press("Enter").await;
    page.until("!document.getElementById('resolve').open").await;
    page.shows("✓ Resolved").await;
    page.shows("Ada Byron: printed again and compared").await;
    page.until("document.getElementById('said').textContent === 'Resolved by Ada Byron.'").await;
    page.shows("Everything is all right").await;
}

fn lonely(directory: &std::path::Path, more: &str) -> Agent {
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    Agent::new(directory, "0042", "box1", &mqtt, more)
}

#[tokio::test]
async fn a_token_is_asked_for_and_kept_in_the_tab_alone() {
    let directory = tempfile::tempdir().unwrap();
    write_file(&directory.path().join("tokens"), "manager 0123456789abcdef\n");
    let mut agent = lonely(directory.path(), "");
    let config = std::fs::read_to_string(agent.config()).unwrap();
    write_file(&agent.config(), &config.replace("[ingress]\n", "[ingress]\ntokens_file = \"tokens\"\n"));
    agent.start();
    agent.ready().await;
    let mut page = open_page(&agent.url()).await;
    page.until("document.getElementById('token').open").await;
    page.type_text("not the token that it is").await;
    page.press("Enter").await;
    page.shows("That token is not known").await;
    page.type_text("0123456789abcdef").await;
    page.press("Enter").await;
    page.shows("Store 0042").await;
    page.shows("Head office cannot be reached").await;
    let kept = "[sessionStorage.getItem('counterfoil.token'), localStorage.length, document.cookie]";
    assert_eq!(page.eval(kept).await, json!(["0123456789abcdef", 0, ""]));
}

#[tokio::test]
async fn no_other_page_writes_or_reads_here() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = lonely(directory.path(), "");
    agent.start();
    agent.ready().await;
    let api = agent.api();
    let url = agent.url();
    // Another origin on the same machine: another port is another origin.
    let mut other = lonely(&directory.path().join("other"), "");
    other.start();
    other.ready().await;
    let mut page = open_page(&format!("{}/healthz", other.url())).await;
    page.until("document.body.innerText.includes('accepting')").await;
    let document = sale(1, 499).to_string();
    let send = |content_type: &str, mode: &str| {
        let init = json!({"method": "POST", "mode": mode, "body": document, "headers": {"content-type": content_type}});
        format!("fetch('{url}/v1/transactions', {init}).then((answer) => answer.type, () => 'refused')")
    };
    // What a browser sends without asking first is not JSON, and is refused.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(page.eval(&send(content_type, "no-cors")).await, "opaque", "{content_type}");
    }
    let form = format!(
        "(() => {{ const form = document.createElement('form'); form.method = 'post'; form.enctype = 'text/plain'; \
         form.action = '{url}/v1/transactions'; document.body.append(form); form.submit(); return true; }})()"
    );
    // For what is JSON it asks first, and is told no.
    assert_eq!(page.eval(&send("application/json", "cors")).await, "refused");
    let read = format!("fetch('{url}/v1/status').then(() => 'read', () => 'refused')");
    assert_eq!(page.eval(&read).await, "refused");
    assert_eq!(page.eval(&form).await, true);
    page.shows("content-type-not-supported").await;
    // Nor may it show the page in a frame of its own.
    page.open(&format!("{}/healthz", other.url())).await;
    let frame = format!(
        "new Promise((done) => {{ const frame = document.createElement('iframe'); frame.onload = () => {{ \
         let seen = 'nothing'; try {{ seen = frame.contentDocument ? 'read' : 'blocked'; }} catch {{ seen = 'blocked'; }} done(seen); }}; \
         frame.src = '{url}/'; document.body.append(frame); }})"
    );
    page.until("document.body.innerText.includes('accepting')").await;
    assert_eq!(page.eval(&frame).await, "blocked");
    page.until_fault("frame-ancestors").await;

    // A name that somebody else's name server turned to this machine.
    let rebound = url.replace("127.0.0.1", "evil.example");
    for path in ["/", "/app.js", "/v1/status", "/v1/exceptions"] {
        page.open(&format!("{rebound}{path}")).await;
        page.shows("host-not-allowed").await;
    }
    let write = "fetch('/v1/transactions', {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'}).then((answer) => answer.status)";
    assert_eq!(page.eval(write).await, 403);

    let status = agent.status().await.unwrap();
    assert_eq!((status.recorded, status.conflicts), (0, 0));
    let metrics = String::from_utf8(api.success("/metrics").await.unwrap().body).unwrap();
    let refused = metrics.lines().find_map(|line| {
        line.strip_prefix("counterfoil_http_responses_total{route=\"/v1/transactions\",status=\"415\"} ")?.parse().ok()
    });
    assert_eq!(refused, Some(4_u64), "each of them arrived, and was refused\n{metrics}");
}
