//! The published description against the running agent: schemathesis (pinned in `schemathesis.txt`) sends what the description
//! allows and what it forbids, and every answer must be one that stands in it: status, content type, headers, body.
//!
//! `.ci/run` puts schemathesis below the target directory; where it is neither there nor on PATH, the test says so loudly.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use world::agent::{Agent, Mqtt};
use world::process::{Process, free_port};

use crate::stage::{post, sale};

const PINNED: &str = include_str!("schemathesis.txt");
const LIMIT: Duration = Duration::from_mins(10);
/// `unsupported_method` and `allow_header_conformance` are about what is not in the description: it must not be there either.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance,unsupported_method,allow_header_conformance";

/// Where `st` is, in the version that is pinned.
fn schemathesis() -> Result<PathBuf, String> {
    let me = std::env::current_exe().expect("the path of this program");
    let below_target = me.ancestors().map(|place| place.join("tools/schemathesis/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = below_target.chain(std::env::split_paths(&path));
    let Some(file) = places.map(|place| place.join("st")).find(|file| file.is_file()) else {
        return Err(format!("{} is neither below the target directory nor on PATH", PINNED.trim()));
    };
    let output = Command::new(&file).arg("--version").output();
    let output = output.map_err(|error| format!("{} does not start: {error}", file.display()))?;
    let (version, wanted) = (String::from_utf8_lossy(&output.stdout), PINNED.trim().rsplit('=').next().unwrap());
    if version.split_whitespace().last() == Some(wanted) {
        Ok(file)
    } else {
        Err(format!("{} is {}, not {wanted}", file.display(), version.trim()))
    }
}

/// What the examples of the description ask for.
async fn record_examples(agent: &Agent) {
    let api = agent.api();
    assert_eq!(post(&api, &sale(1, 499)).await.status, 201);
    let count = json!({"document_id": "count-1", "type": "count", "end_date_time": "2026-11-23T07:00:00+00:00",
        "line_items": [{"line": 1, "item_id": "85123A", "quantity": "10", "unit": "EA"}]});
    let answer = api.post("/v1/stock-movements", "application/json", count.to_string().into_bytes()).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn every_answer_stands_in_the_published_description() {
    let st = match schemathesis() {
        Ok(st) => st,
        Err(reason) => {
            // Past the harness, which shows what a test prints only when it fails.
            let notice = format!("\n*** SKIPPED: the description was not held against the agent: {reason} ***\n");
            return std::io::stderr().write_all(notice.as_bytes()).expect("stderr takes a line");
        }
    };
    let directory = tempfile::tempdir().unwrap();
    // Nobody is there: what tills are told does not depend on it.
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, "");
    agent.start();
    agent.ready().await;
    record_examples(&agent).await;

    let mut command = Command::new(st);
    command.args(["run", &format!("{}/openapi.json", agent.url()), "--checks", CHECKS]);
    // One worker: CPython 3.11 loses count of its recursion where two threads read source texts.
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--workers", "1"]);
    command.args(["--generation-database", "none", "--continue-on-failure", "--no-color", "--warnings", "off"]);
    command.current_dir(directory.path());
    let mut run = Process::start("schemathesis", command, &directory.path().join("schemathesis.log"));
    let status = run.end(LIMIT).await;
    assert!(status.success(), "{status}\n{}", run.output());
    assert!(agent.process().unwrap().ended().is_none(), "the agent lives");

    // It cannot have been content with nothing: each write was made in a way that must be refused, and each read succeeded.
    let metrics = String::from_utf8(agent.api().success("/metrics").await.unwrap().body).unwrap();
    let answered = |route: &str, status: u16| {
        let labels = [format!("route=\"{route}\""), format!("status=\"{status}\"")];
        metrics.lines().any(|line| labels.iter().all(|label| line.contains(label.as_str())))
    };
    let description: serde_json::Value = agent.api().json("/openapi.json").await.unwrap();
    for (route, item) in description["paths"].as_object().unwrap() {
        // A profile that is made up comes before everything else.
        let is_named = route.ends_with("{profile}");
        let expected = if is_named {
            404
        } else if item.get("post").is_some() {
            415
        } else {
            200
        };
        assert!(answered(route, expected), "{route} never gave {expected}\n{metrics}");
    }
    let log = agent.process().unwrap().output();
    assert!(!log.contains("fault of the program") && !log.contains("panicked"), "{log}");
}
