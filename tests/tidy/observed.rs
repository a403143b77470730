//! What watches the programs from outside: the list of metrics, the alerts, the dashboards.
//!
//! Invariant: a metric that is in the list keeps its name, type, labels and meaning, or a test fails; alerts and dashboards ask for nothing that
//! is not in the list. What the running programs serve is held against the same list by the live tests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use counterfoil_telemetry::metrics::{Family, Form, table};
use serde_json::Value;
use world::needs::PROMTOOL;

use super::{none, root};

const LIST: &str = "config/prometheus/metrics.md";
const RULES: &str = "config/prometheus/counterfoil.rules.yml";
const DASHBOARDS: [&str; 2] = ["config/grafana/fleet.json", "config/grafana/store.json"];
/// The last version of Grafana's dashboard model before that of its resource API; Grafana 12 and 13 read it as it is, older ones have
/// all that these dashboards use since 10.
const SCHEMA_VERSION: u64 = 42;
/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

const HEAD: &str = "# Metrics

Names, types, labels and meanings are stable: one that changed gets a new name, and one that goes is named in the changelog a release before. This
list is made of the tables in `agent/src/ingress/metrics/families.rs` and `hub/src/api/metrics/families.rs`; a test compares, and another holds it
against what running programs serve.

Cardinality: an agent has 80 to 150 series, whatever tills send; the hub has some 100, 15 to 20 for each store (20,000 for a thousand stores), and one
for each code of an exception and owner of a route.

`counterfoil.rules.yml` has the alerts, `tests/` their cases, `prometheus.yml` a sample of a scrape configuration, `../grafana/` the dashboards.
";

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn agent() -> &'static [Family] {
    counterfoil::ingress::metrics::families::FAMILIES
}

fn hub() -> &'static [Family] {
    counterfoil_hub::api::metrics::families::FAMILIES
}

#[test]
fn the_list_of_metrics_is_what_the_programs_have() {
    let expected = format!("{HEAD}\n## Agent\n\n{}\n## Hub\n\n{}", table(agent()), table(hub()));
    let found = text(LIST);
    if found != expected {
        let made = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("metrics.md");
        std::fs::write(&made, &expected).expect("a file in the target directory");
        let [found, expected] = [&found, &expected].map(|text| text.lines().collect::<BTreeSet<_>>());
        let gone: Vec<_> = found.difference(&expected).collect();
        let new: Vec<_> = expected.difference(&found).collect();
        panic!(
            "{LIST} is not what the programs have. A metric that others may read keeps its name, type and meaning.\n\
             only in the list: {gone:#?}\nonly in the programs: {new:#?}\nIf it has to be: cp {} {LIST}",
            made.display()
        );
    }
}

#[test]
fn metrics_are_named_as_prometheus_names_them() {
    let mut findings = Vec::new();
    for (families, prefix) in [(agent(), "counterfoil_"), (hub(), "counterfoil_hub_")] {
        let names: BTreeSet<_> = families.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), families.len(), "a name stands once");
        for Family { name, form, help, labels } in families {
            // What both programs have has one name.
            let is_shared =
                agent().iter().any(|family| family.name == *name) && hub().iter().any(|of| of.name == *name);
            let is_plain = |text: &&str| {
                text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
            };
            if !(name.starts_with(prefix) || is_shared) || !is_plain(name) || !labels.iter().all(is_plain) {
                findings.push(format!("{name}: its name or a label's"));
            }
            if (*form == Form::Counter) != name.ends_with("_total") {
                findings.push(format!("{name}: counters, and they alone, end in _total"));
            }
            if *form == Form::Histogram && !name.ends_with("_seconds") {
                findings.push(format!("{name}: durations are in seconds"));
            }
            if !help.ends_with('.') || help.contains(['\n', '\\', '|']) {
                findings.push(format!("{name}: its help is a sentence on one line"));
            }
        }
    }
    none("Metrics", &findings);
}

/// Every metric that a text names, as it is in an expression.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    words.filter(|word| word.starts_with("counterfoil_")).collect()
}

fn is_listed(name: &str) -> bool {
    let all = || agent().iter().chain(hub());
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
    all().any(|family| family.name == name && family.form != Form::Histogram)
        || of_histogram.is_some_and(|base| all().any(|family| family.name == base && family.form == Form::Histogram))
}

#[test]
fn alerts_and_dashboards_name_no_metric_that_is_not_listed() {
    let mut findings = Vec::new();
    let tests = ["config/prometheus/tests/agent.yml", "config/prometheus/tests/hub.yml"];
    for path in tests.into_iter().chain(DASHBOARDS) {
        let text = text(path);
        let names = named(&text);
        assert!(names.len() > 10, "{path} names metrics: {names:?}");
        findings.extend(names.iter().filter(|name| !is_listed(name)).map(|name| format!("{path}: {name}")));
    }
    // Words about a rule may name a whole histogram.
    let is_known = |name: &&&str| is_listed(name) || agent().iter().chain(hub()).any(|family| family.name == **name);
    findings.extend(named(&text(RULES)).iter().filter(|name| !is_known(name)).map(|name| format!("{RULES}: {name}")));
    none("A metric that nobody serves", &findings);
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let (rules, tests) =
        (text(RULES), text("config/prometheus/tests/agent.yml") + &text("config/prometheus/tests/hub.yml"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 20, "the alerts were found");
    let mut findings = Vec::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        for part in ["expr: ", "summary: ", "description: "] {
            if !alert.contains(part) {
                findings.push(format!("{name}: no {part}"));
            }
        }
        if !["page", "ticket"].iter().any(|severity| alert.contains(&format!("labels: {{severity: {severity}}}"))) {
            findings.push(format!("{name}: severity page or ticket"));
        }
        if !tests.contains(&format!("{{alertname=\"{name}\"}}")) {
            findings.push(format!("{name}: no case in which it fires"));
        }
    }
    none("Alerts", &findings);
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new(PROMTOOL.path());
    let output =
        command.args(arguments).current_dir(root().join("config/prometheus")).output().expect("promtool starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn promtool_takes_the_alerts_their_cases_and_the_sample_of_a_configuration() {
    promtool(&["check", "rules", "counterfoil.rules.yml"]);
    promtool(&["test", "rules", "tests/agent.yml", "tests/hub.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
}

/// What is wrong with a panel, by Grafana's model.
fn faults_of(panel: &Value, places: &mut Vec<[u64; 4]>) -> Vec<String> {
    let mut faults = Vec::new();
    let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or(u64::MAX / 4));
    let [x, y, width, height] = place;
    let overlaps = |[left, top, wide, high]: &[u64; 4]| {
        x < left + wide && *left < x + width && y < top + high && *top < y + height
    };
    if x + width > COLUMNS || width == 0 || height == 0 || places.iter().any(overlaps) {
        faults.push(format!("its place {place:?}"));
    }
    places.push(place);
    if panel["title"].as_str().is_none_or(str::is_empty) {
        faults.push("its title".to_owned());
    }
    let of_datasource = |value: &Value| value["type"] == "prometheus" && value["uid"] == "${datasource}";
    let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    match panel["type"].as_str() {
        Some("row") => return faults,
        Some("timeseries" | "stat" | "table") if !targets.is_empty() && of_datasource(&panel["datasource"]) => {}
        _ => faults.push("its type, data source or queries".to_owned()),
    }
    let references: BTreeSet<_> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
    if references.len() != targets.len() || !targets.iter().all(|target| of_datasource(&target["datasource"])) {
        faults.push("its queries' names or data source".to_owned());
    }
    if !panel["fieldConfig"]["defaults"]["unit"].is_string() || !panel["fieldConfig"]["overrides"].is_array() {
        faults.push("its unit".to_owned());
    }
    faults
}

#[test]
fn dashboards_are_whole_and_leave_the_data_source_open() {
    let mut findings = Vec::new();
    for path in DASHBOARDS {
        let board: Value = serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(board["schemaVersion"], SCHEMA_VERSION, "{path}");
        let variables = board["templating"]["list"].as_array().expect("variables");
        let source =
            variables.iter().find(|variable| variable["type"] == "datasource").expect("a data source to choose");
        assert_eq!(
            (source["name"].as_str(), source["query"].as_str()),
            (Some("datasource"), Some("prometheus")),
            "{path}"
        );
        for key in ["uid", "title"] {
            assert!(board[key].as_str().is_some_and(|text| !text.is_empty()), "{path}: {key}");
        }
        let panels = board["panels"].as_array().expect("panels");
        let numbers: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(numbers.len(), panels.len(), "{path}: each panel has a number of its own");
        let mut places = Vec::new();
        for panel in panels {
            let title = panel["title"].as_str().unwrap_or_default();
            findings.extend(faults_of(panel, &mut places).into_iter().map(|fault| format!("{path}: {title}: {fault}")));
        }
    }
    none("Dashboards", &findings);
}
