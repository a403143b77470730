//! Other people's pages in a real browser, against the hub's writes: from another origin, from a form, from a name that was turned to this machine.
//! (Against the agent's: `pages`.)

use serde_json::{Value, json};
use world::browser::{DESKTOP, Page};
use world::wait::Deadline;

use crate::stage::Stage;

#[tokio::test]
async fn no_other_page_settles_anything_at_the_hub() {
    let stage = Stage::new().await;
    let api = stage.hub.api();
    let url = stage.hub.url();
    let mut page = Page::new().await;
    page.look(DESKTOP, false).await;
    // Another origin on the same machine: another port is another origin.
    page.open(&format!("{}/healthz", stage.agent.url())).await;
    page.until("document.body.innerText.includes('accepting')").await;
    let path = "/v1/exceptions/ex-0011223344556677/resolve";
    let remark = "{\"by\":\"Mallory\",\"reason\":\"none\"}";
    let send = |content_type: &str, mode: &str| {
        let init = json!({"method": "POST", "mode": mode, "body": remark, "headers": {"content-type": content_type}});
        format!("fetch('{url}{path}', {init}).then((answer) => answer.type, () => 'refused')")
    };
    // What a browser sends without asking first is not JSON, and is refused.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(page.eval(&send(content_type, "no-cors")).await, "opaque", "{content_type}");
    }
    // For what is JSON it asks first, and is told no.
    assert_eq!(page.eval(&send("application/json", "cors")).await, "refused");
    assert_eq!(
        page.eval(&format!("fetch('{url}/v1/exceptions').then(() => 'read', () => 'refused')")).await,
        "refused"
    );
    let form = format!(
        "(() => {{ const form = document.createElement('form'); form.method = 'post'; form.enctype = 'text/plain'; \
         form.action = '{url}{path}'; document.body.append(form); form.submit(); return true; }})()"
    );
    assert_eq!(page.eval(&form).await, true);
    page.shows("content-type").await;
    // A name that somebody else's name server turned to this machine.
    let rebound = url.replace("127.0.0.1", "evil.example");
    for path in ["/", "/v1/exceptions", "/v1/audit"] {
        page.open(&format!("{rebound}{path}")).await;
        page.shows("Host not allowed").await;
    }
    let write = format!(
        "fetch('{path}', {{method: 'POST', headers: {{'content-type': 'application/json'}}, body: '{remark}'}}).then((answer) => answer.status)"
    );
    assert_eq!(page.eval(&write).await, 403);
    // Nothing of it came as far as a write; from the hub's own page the same does.
    let trail = async || -> Vec<Value> {
        let answer: Value = api.json("/v1/audit").await.unwrap();
        answer["entries"].as_array().cloned().unwrap()
    };
    assert_eq!(trail().await, [] as [Value; 0]);
    page.open(&url).await;
    assert_eq!(page.eval(&write).await, 404, "that exception is not known");
    let deadline = Deadline::new(std::time::Duration::from_secs(10));
    while trail().await.is_empty() {
        deadline.rest_for("the entry of the hub's own page").await;
    }
    assert_eq!(trail().await[0]["outcome"], "refused: not known");
}
