//! What the kernel sees: the sync of a sale before its answer, and fewer syncs than sales where many tills wait at once.

use std::path::Path;
use std::time::Duration;

use world::agent::{Agent, Mqtt};
use world::needs;
use world::process::free_port;
use world::wait::Deadline;

use crate::stage::{post, sale};

/// The calls of a trace in order; a call that was interrupted by another thread's stands where it ended.
fn calls(trace: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(trace).unwrap();
    let ended = text.lines().filter(|line| !line.contains("<unfinished"));
    ended.filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned())).collect()
}

fn is_sync(call: &str) -> bool {
    ["fdatasync", "fsync", "sync_file_range"]
        .iter()
        .any(|name| call.starts_with(name) || call.contains(&format!("<... {name}")))
}

#[tokio::test]
async fn the_sync_of_a_sale_ends_before_its_answer_begins() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    // No checkpoint and no status of the day falls between: the only syncs are the sale's.
    let quiet = "[journal]\ncheckpoint_interval = \"60min\"\n";
    let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, quiet);
    // As a grandchild (-D), the tracer leaves the signals to the agent.
    let arguments = [
        "-D",
        "-f",
        "-s",
        "64",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        "trace=fdatasync,fsync,sync_file_range,write,writev,sendto,sendmsg",
    ];
    agent.start_below(&needs::STRACE.path(), &arguments);
    agent.ready().await;
    // The first sale begins the epoch; the second is looked at.
    assert_eq!(post(&agent.api(), &sale(1, 499)).await.status, 201);
    assert_eq!(post(&agent.api(), &sale(2, 499)).await.status, 201);
    agent.stop().await;
    let calls = calls(&trace);
    let answers: Vec<usize> =
        calls.iter().enumerate().filter(|(_, call)| call.contains("HTTP/1.1 201")).map(|(index, _)| index).collect();
    let [first, second] = answers[..] else { panic!("two sales were answered, the trace shows {}", answers.len()) };
    let between: Vec<&String> = calls[first..second].iter().filter(|call| is_sync(call)).collect();
    assert_eq!(between.len(), 1, "one sync between two answers: {between:?}");
    assert!(between[0].contains("fdatasync") && between[0].contains("= 0"), "{between:?}");
}

#[tokio::test]
async fn sixty_four_tills_share_their_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
    let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, "");
    // A disk that takes 50 ms for a sync: on a fast one it would depend on the machine how many tills wait at once.
    let slow = [
        "-D",
        "-f",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_exit=50000",
    ];
    agent.start_below(&needs::STRACE.path(), &slow);
    agent.ready().await;
    let tills: Vec<_> = (0..64)
        .map(|till| {
            let api = agent.api();
            tokio::spawn(async move {
                for number in 0..20 {
                    assert_eq!(post(&api, &sale(till * 20 + number + 1, 499)).await.status, 201);
                }
            })
        })
        .collect();
    for till in tills {
        till.await.unwrap();
    }
    let deadline = Deadline::new(Duration::from_mins(1));
    let status = loop {
        let status = agent.status().await.unwrap();
        if status.recorded == 64 * 20 {
            break status;
        }
        deadline.rest_for("the status to count every sale").await;
    };
    assert!(status.disk.syncs < status.recorded / 2, "{} syncs for {} sales", status.disk.syncs, status.recorded);
}
