//! `cargo demo`: the whole way of a sale on one machine, with a broker outage and a killed agent in the middle.
//!
//! A hub with its broker and an agent run as child processes (this same program, in another role); three synthetic tills sell through
//! HTTP and write down what they were told. The hub is killed for a while, and with it the broker and all that it
//! remembered; the agent is killed and started again. At the end the tills' notes are held against the hub's ledger.
//!
//! Invariant: the verdict compares what tills were told with what the hub serves over HTTP, nothing else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people says what it does")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use world::http::Api;
use world::process::{Process, free_port, write_file};
use world::wait::{Deadline, rest};

mod table;
mod tills;

use table::{Ledger, Verdict};
use tills::Till;

const STORE: &str = "0042";
const TILLS: [&str; 3] = ["1", "2", "3"];

/// How long the hub may take to catch up after the last sale.
const CATCH_UP: Duration = Duration::from_mins(2);

/// Sells through an agent into a hub, breaks things in between, and compares.
#[derive(Debug, Parser)]
#[command(name = "demo", about)]
struct Arguments {
    /// How long to sell; at the end the demo compares and exits, 0 when hub and tills agree, 1 when not.
    #[arg(long = "for", default_value = "30s", value_parser = duration, conflicts_with = "serve")]
    duration: Duration,
    /// Stay up instead: print the addresses and a curl line, sell until Ctrl-C, then compare.
    #[arg(long)]
    serve: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What a child process of the demo is.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Agent { config: PathBuf },
    #[command(hide = true)]
    Hub { config: PathBuf },
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is no duration; write 30s or 2m"))?;
    match unit {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("'{unit}' is no unit; write s or m")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Agent { config }) => {
            let config = counterfoil::config::Config::load(&config).map_err(counterfoil::error::ExitError::from);
            role(config.and_then(counterfoil::run))
        }
        Some(Role::Hub { config }) => {
            let arguments = ["counterfoil-hub".into(), "run".into(), "--config".into(), config.into_os_string()];
            role(counterfoil_hub::main_with_args(arguments).map(drop))
        }
        None => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime for the demo");
            let agreed = runtime.block_on(demo(&arguments));
            if agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn role<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The parts of the demo that can be killed and started again.
struct Stage {
    directory: tempfile::TempDir,
    hub: Option<Process>,
    agent: Option<Process>,
    hub_api: Api,
    agent_api: Api,
    broker_port: u16,
    started: Instant,
}

impl Stage {
    fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("counterfoil-demo-").tempdir().expect("a directory for the demo");
        let (broker_port, hub_port, agent_port) = (free_port(), free_port(), free_port());
        write_file(
            &directory.path().join("hub.toml"),
            &format!(
                "[mqtt]\nurl = \"mqtt://127.0.0.1:{broker_port}\"\n[ledger]\nurl = \"sqlite:hub.db\"\n[api]\nlisten = \"127.0.0.1:{hub_port}\"\n\
                 [broker]\nembedded = true\nlisten = \"127.0.0.1:{broker_port}\"\n"
            ),
        );
        write_file(
            &directory.path().join("agent.toml"),
            &format!(
                "store_id = \"{STORE}\"\nagent_id = \"box1\"\ndata_dir = \"agent\"\n[store]\ntime_zone = \"Europe/Paris\"\n\
                 [ingress]\nlisten = \"127.0.0.1:{agent_port}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{broker_port}\"\nbackoff_max = \"2s\"\n"
            ),
        );
        Self {
            directory,
            hub: None,
            agent: None,
            hub_api: Api::new(&format!("http://127.0.0.1:{hub_port}")),
            agent_api: Api::new(&format!("http://127.0.0.1:{agent_port}")),
            broker_port,
            started: Instant::now(),
        }
    }

    fn start(&self, role: &str) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.arg(role).arg(self.directory.path().join(format!("{role}.toml")));
        Process::start(role, command, &self.directory.path().join(format!("{role}.log")))
    }

    async fn start_hub(&mut self) {
        let mut hub = self.start("hub");
        ready(&self.hub_api, &mut hub).await;
        self.hub = Some(hub);
    }

    async fn start_agent(&mut self) {
        let mut agent = self.start("agent");
        ready(&self.agent_api, &mut agent).await;
        self.agent = Some(agent);
    }

    fn say(&self, text: &str) {
        println!("{:>6.1} s  {text}", self.started.elapsed().as_secs_f32());
    }

    async fn progress(&self, tills: &[Arc<Till>]) {
        let told: u64 = tills.iter().map(|till| till.told()).sum();
        let status = self.agent_api.json::<counterfoil::answer::Status>("/v1/status").await.ok();
        let (waiting, link) = status.map_or(("?".to_owned(), "agent down"), |status| {
            let waiting: u64 = status.lanes.values().map(|lane| lane.waiting).sum();
            (waiting.to_string(), if status.uplink.welcomed { "hub answers" } else { "hub away" })
        });
        self.say(&format!("tills were told {told:>6}   waiting for the hub {waiting:>6}   {link}"));
    }
}

/// Waits for `/readyz`; panics with the child's output where it ends or does not get there.
async fn ready(api: &Api, process: &mut Process) {
    let deadline = Deadline::new(Duration::from_mins(2));
    while api.success("/readyz").await.is_err() {
        process.wait_on(deadline, "/readyz").await;
    }
}

async fn demo(arguments: &Arguments) -> bool {
    println!("Counterfoil demo: three tills -> agent -> MQTT -> hub. Everything below happens on 127.0.0.1.");
    let mut stage = Stage::new();
    stage.start_hub().await;
    stage.say("hub and embedded broker are up");
    stage.start_agent().await;
    stage.say("agent is up; the tills begin to sell");
    let stop = Arc::new(AtomicBool::new(false));
    let tills: Vec<Arc<Till>> = TILLS.iter().map(|id| Arc::new(Till::new(id, stage.agent_api.clone()))).collect();
    let selling: Vec<_> = tills.iter().map(|till| tokio::spawn(Arc::clone(till).sell(Arc::clone(&stop)))).collect();
    if arguments.serve {
        serve(&stage, &tills).await;
    } else {
        break_things(&mut stage, &tills, arguments.duration).await;
    }
    stop.store(true, Ordering::SeqCst);
    for till in selling {
        till.await.expect("a till ends by itself");
    }
    stage.say("the tills closed their day; waiting for the hub to have it all");
    let verdict = compare(&stage, &tills).await;
    println!("\n{verdict}");
    if !verdict.agrees() {
        let kept = stage.directory.keep();
        println!("The logs are in {}", kept.display());
    }
    verdict.agrees()
}

async fn break_things(stage: &mut Stage, tills: &[Arc<Till>], duration: Duration) {
    let at = |share: f64| duration.mul_f64(share);
    let begun = Instant::now();
    let events: [(Duration, &str); 4] =
        [(at(0.25), "hub down"), (at(0.55), "hub up"), (at(0.70), "agent killed"), (at(1.0), "end")];
    for (when, what) in events {
        while begun.elapsed() < when {
            rest(Duration::from_secs(2).min(when.saturating_sub(begun.elapsed()))).await;
            stage.progress(tills).await;
        }
        match what {
            "hub down" => {
                stage.hub = None;
                stage.say(
                    "*** SIGKILL: hub and broker are gone, and all that the broker remembered. The tills do not notice",
                );
            }
            "hub up" => {
                stage.start_hub().await;
                stage.say("*** hub and an empty broker are back");
            }
            "agent killed" => {
                stage.agent = None;
                stage.say("*** SIGKILL: the agent is gone in the middle of sales; tills get no answer and try again");
                stage.start_agent().await;
                stage.say("*** the agent recovered its journal and goes on");
            }
            _ => {}
        }
    }
}

async fn serve(stage: &Stage, tills: &[Arc<Till>]) {
    println!("\nThe agent listens on   {}/v1/status", stage.agent_api.base());
    println!("The hub listens on     {}/v1/stores", stage.hub_api.base());
    println!("The broker listens on  mqtt://127.0.0.1:{}", stage.broker_port);
    println!("Sell something yourself:\n\n{}\n", tills::curl_line(stage.agent_api.base()));
    println!("Ctrl-C stops the tills and compares.\n");
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => return,
            () = rest(Duration::from_secs(10)) => stage.progress(tills).await,
        }
    }
}

async fn compare(stage: &Stage, tills: &[Arc<Till>]) -> Verdict {
    let deadline = Deadline::new(CATCH_UP);
    loop {
        let ledger = Ledger::read(&stage.hub_api).await;
        let verdict = Verdict::new(tills, &ledger.unwrap_or_default());
        if verdict.agrees() || !deadline.rest().await {
            return verdict;
        }
    }
}
