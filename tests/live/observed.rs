//! Metrics, alerts and dashboards against the real thing: a hub and an agent at work, scraped by a real Prometheus, which then evaluates every
//! expression that we ship.
//!
//! Invariant: what is served is what `config/prometheus/metrics.md` lists, and promtool finds nothing to say against it; an alert's expression is
//! one that Prometheus takes, and a panel of a dashboard shows something in a store where everything happens once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use world::agent::{Agent, Mqtt};
use world::broker::{Broker, acl_of_agent, acl_of_hub};
use world::http::{Api, segment};
use world::hub::Hub;
use world::needs::{PROMETHEUS, PROMTOOL};
use world::pki::Pki;
use world::postgres::Postgres;
use world::process::{Process, free_port, write_file};
use world::wait::Deadline;

use crate::stage::{post, sale};

const LIMIT: Duration = Duration::from_mins(3);
const DASHBOARDS: [&str; 2] = ["config/grafana/fleet.json", "config/grafana/store.json"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Name, type and help of the families in a program's table of the list.
fn listed(title: &str) -> BTreeMap<String, (String, String)> {
    let list = std::fs::read_to_string(root().join("config/prometheus/metrics.md")).unwrap();
    let table = list.split(&format!("## {title}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| row.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim().to_owned()).collect());
    rows.map(|cells: Vec<String>| {
        let [name, form, .., help] = cells.as_slice() else { panic!("{cells:?}") };
        (name.trim_matches('`').to_owned(), (form.clone(), help.clone()))
    })
    .collect()
}

/// The same of what a program serves.
fn served(text: &str) -> BTreeMap<String, (String, String)> {
    let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut families.entry(name.to_owned()).or_default().1);
        }
        if let Some((name, form)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            form.clone_into(&mut families.entry(name.to_owned()).or_default().0);
        }
    }
    families
}

fn check_metrics(text: &str) {
    let mut command = Command::new(PROMTOOL.path());
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

async fn metrics(api: &Api) -> String {
    String::from_utf8(api.success("/metrics").await.unwrap().body).unwrap()
}

/// One of each, over TLS, so that certificates are there as well.
struct Watched {
    agent: Agent,
    hub: Hub,
    _postgres: Postgres,
    _broker: Broker,
    /// Certificates are read anew at each look.
    _pki: Pki,
    directory: tempfile::TempDir,
}

impl Watched {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let acl = acl_of_agent("0042", "box1") + &acl_of_hub("hub1");
        let broker = Broker::tls(&pki, &acl).await;
        let postgres = Postgres::new().await;
        let ledger = postgres.create_database("ledger").await;
        let mqtt = |identity| Mqtt { url: broker.url(), identity: Some(identity) };
        let mut hub = Hub::new(&directory.path().join("hub"), "hub1", &mqtt(pki.client("hub1")), &ledger, "");
        hub.start();
        hub.ready().await;
        let mut agent =
            Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt(pki.agent("0042", "box1")), "");
        agent.start();
        agent.ready().await;
        Self { agent, hub, _postgres: postgres, _broker: broker, _pki: pki, directory }
    }

    /// Everything that a store does, once.
    async fn live(&mut self, days: &[String; 2]) {
        let api = self.agent.api();
        for (index, day) in (1..).zip(days) {
            let mut document = on(sale(index, 1_000), day);
            assert_eq!(post(&api, &document).await.status, 201);
            assert_eq!(post(&api, &document).await.status, 200);
            document["totals"]["gross"] = json!("10.01");
            assert_eq!(post(&api, &document).await.status, 409);
            assert_eq!(post(&api, &json!({"workstation_id": 7})).await.status, 422);
            let close = json!({"document_id": format!("z{index}"), "business_day_date": day,
                "end_date_time": format!("{day}T20:00:00+00:00"),
                "totals": [{"currency_code": "GBP", "transactions": 1, "gross": "10.00"}]});
            let answer = api.post("/v1/day-closes", "application/json", close.to_string().into_bytes()).await.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        self.agent.drained(LIMIT).await;
        let deadline = Deadline::new(LIMIT);
        while !self.hub_text().await.contains("counterfoil_hub_ledger_unposted_records 0\n") {
            deadline.rest_for("the hub to post what it stored").await;
        }
        // The stores' days are looked at when a hub starts, and every five minutes.
        self.hub.stop().await;
        self.hub.start();
        self.hub.ready().await;
        while !self.hub_text().await.contains("day=\"yesterday\"") || self.hub.api().success("/readyz").await.is_err() {
            deadline.rest_for("the hub to judge the stores' days").await;
        }
    }

    async fn hub_text(&self) -> String {
        metrics(&self.hub.api()).await
    }

    /// Scrapes both each second, and knows our alerts.
    fn prometheus(&self) -> (Process, Api) {
        let directory = self.directory.path().join("prometheus");
        std::fs::create_dir(&directory).unwrap();
        let address = |api: &Api| api.base().trim_start_matches("http://").to_owned();
        let rules = root().join("config/prometheus/counterfoil.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n\
             - job_name: counterfoil-agent\n  static_configs:\n  - targets: [{:?}]\n    labels: {{store_id: \"0042\", agent_id: box1}}\n\
             - job_name: counterfoil-hub\n  static_configs:\n  - targets: [{:?}]\n",
            rules.display().to_string(),
            address(&self.agent.api()),
            address(&self.hub.api()),
        );
        write_file(&directory.join("prometheus.yml"), &config);
        let port = free_port();
        let mut command = Command::new(PROMETHEUS.path());
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let process = Process::start("prometheus", command, &directory.join("prometheus.log"));
        (process, Api::new(&format!("http://127.0.0.1:{port}")))
    }
}

fn on(mut document: Value, day: &str) -> Value {
    document["business_day_date"] = json!(day);
    document["end_date_time"] = json!(format!("{day}T10:15:40+00:00"));
    document
}

/// Where it stands, and the expression, of all panels.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in DASHBOARDS {
        let board: Value = serde_json::from_slice(&std::fs::read(root().join(path)).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().unwrap();
                let expression = expression.replace("$__rate_interval", "10s").replace("$store", "0042");
                assert!(!expression.contains('$'), "{path}: a variable that is not known: {expression}");
                found.push((format!("{path}: {}", panel["title"]), expression));
            }
        }
    }
    assert!(found.len() > 50, "the panels were found");
    found
}

/// What Prometheus says of an expression now: how many samples, or why it does not take it.
async fn ask(prometheus: &Api, expression: &str) -> Result<usize, String> {
    let answer = prometheus.get(&format!("/api/v1/query?query={}", segment(expression))).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    if answer["status"] != "success" {
        return Err(answer["error"].to_string());
    }
    Ok(answer["data"]["result"].as_array().map_or(1, Vec::len))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_listed_and_every_expression_that_we_ship_finds_it() {
    let today = jiff::Timestamp::now();
    let days = [today, today - jiff::SignedDuration::from_hours(24)].map(|at| at.to_string()[..10].to_owned());
    let mut watched = Watched::new().await;
    watched.live(&days).await;

    let agent = metrics(&watched.agent.api()).await;
    let hub = watched.hub_text().await;
    for (title, text) in [("Agent", &agent), ("Hub", &hub)] {
        check_metrics(text);
        assert_eq!(served(text), listed(title), "what the {title} serves, and what is listed");
    }
    let expiry = |text: &str| {
        text.lines().find(|line| line.starts_with("counterfoil_certificate_expires_seconds{")).map(str::to_owned)
    };
    for text in [&agent, &hub] {
        let line = expiry(text).unwrap_or_else(|| panic!("no certificate in\n{text}"));
        let at: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(line.contains("{file=\"mqtt\"}") && at > today.as_second(), "{line}");
    }

    let (_process, prometheus) = watched.prometheus();
    let deadline = Deadline::new(LIMIT);
    while prometheus.success("/-/ready").await.is_err() {
        deadline.rest_for("Prometheus").await;
    }
    let mut empty: BTreeSet<(String, String)> = expressions().into_iter().collect();
    for number in 1_000.. {
        // A till that does everything wrong, so that rates have something to show.
        let document = on(sale(number, 499), &days[0]);
        assert_eq!(post(&watched.agent.api(), &document).await.status, 201);
        assert_eq!(post(&watched.agent.api(), &json!({"workstation_id": 7})).await.status, 422);
        let mut still = BTreeSet::new();
        for (place, expression) in empty {
            match ask(&prometheus, &expression).await {
                Ok(0) => {
                    still.insert((place, expression));
                }
                Ok(_) => {}
                Err(why) => panic!("{place}: {expression}: {why}"),
            }
        }
        empty = still;
        if empty.is_empty() {
            break;
        }
        deadline.rest_for(&format!("samples for {empty:#?}")).await;
    }

    let rules: Value = prometheus.json("/api/v1/rules").await.unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 20, "the alerts were taken: {groups:?}");
    for rule in rules {
        let expression = rule["query"].as_str().unwrap();
        assert_eq!(ask(&prometheus, expression).await.map(|_| ()), Ok(()), "{}: {expression}", rule["name"]);
        assert_eq!(rule["lastError"], Value::Null, "{rule}");
    }
    // The clean world pages nobody.
    let alerts: Value = prometheus.json("/api/v1/alerts").await.unwrap();
    let firing = alerts["data"]["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
    assert_eq!(firing.collect::<Vec<_>>(), Vec::<&Value>::new());
}
