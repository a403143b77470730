//! An agent that was built for another machine, at work: it sells, speaks TLS with a real Mosquitto, is killed, and hands everything to a hub.
//!
//! Invariant: broker, hub and judge are those of this machine, and so is the program that checks the data directory afterwards: what one
//! processor wrote the other reads. `cross/test` calls this with each program that it built. Exit 0: nothing was lost, doubled or wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use world::agent::{Agent, Mqtt};
use world::bin::bin;
use world::broker::{Broker, acl_of_agent, acl_of_hub};
use world::checkout::Checkout;
use world::checkout::judge::Look;
use world::hub::Hub;
use world::pki::Pki;

const STORE: &str = "0042";
/// Sales before the kill, and as many after it.
const SALES: u64 = 100;
const LIMIT: Duration = Duration::from_mins(5);
/// Segments turn and checkpoints happen within so few sales.
const AGENT: &str = "[journal]\nsegment_bytes = \"4MiB\"\ncheckpoint_interval = \"200ms\"\n";

/// Runs an agent that was built for another machine against Mosquitto with TLS and a hub, kills it once, and looks for every receipt at the end.
#[derive(Debug, Parser)]
#[command(name = "cross")]
struct Arguments {
    /// The agent, behind what runs it here: `qemu-aarch64 target/cross/aarch64-unknown-linux-gnu/debug/counterfoil`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program for a terminal")]
async fn main() -> ExitCode {
    let Arguments { program } = Arguments::parse();
    match Box::pin(session(&program)).await {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            println!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn command(program: &[PathBuf]) -> Command {
    let (first, rest) = program.split_first().expect("clap wants one at least");
    let mut command = Command::new(first);
    command.args(rest);
    command
}

async fn session(program: &[PathBuf]) -> Result<String, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let pki = Pki::new();
    let acl = acl_of_agent(STORE, "box1") + &acl_of_hub("hub1");
    let broker = Broker::tls(&pki, &acl).await;
    let mqtt = |identity| Mqtt { url: broker.url(), identity: Some(identity) };
    let of_hub = mqtt(pki.client("hub1"));
    let mut hub = Hub::new(&directory.path().join("hub"), "hub1", &of_hub, "sqlite:hub.db", "");
    hub.start();
    hub.ready().await;
    let of_agent = mqtt(pki.agent(STORE, "box1"));
    let mut agent = Agent::new(&directory.path().join("agent"), STORE, "box1", &of_agent, AGENT);
    let mut checkout = Checkout::new(STORE, 3, 16);
    for _ in 0..2 {
        agent.start_as(command(program));
        agent.ready().await;
        let before = checkout.judge(&agent, Look::Newest(usize::MAX)).await;
        let mut faults = before.faults;
        faults.extend(checkout.sell(&agent, Some(SALES)).await);
        if before.lost > 0 || !faults.is_empty() {
            return Err(format!("{} receipts lost, {faults:?}", before.lost));
        }
        agent.kill();
    }
    agent.start_as(command(program));
    agent.ready().await;
    agent.drained(LIMIT).await;
    let verdict = checkout.compare(&hub.api()).await?;
    let harmful = verdict.harmful();
    if !harmful.is_empty() || !verdict.report.agrees() {
        return Err(format!("{harmful:?}\n{}", verdict.report.text()));
    }
    let ended = agent.stop().await;
    if !ended.is_some_and(|status| status.success()) {
        return Err(format!("the agent ended with {ended:?}"));
    }
    let theirs = verify(command(program), &agent.data_dir())?;
    let ours = verify(Command::new(bin("counterfoil")), &agent.data_dir())?;
    if theirs != ours {
        return Err(format!("it says of its journal:\n{theirs}\nand the program of this machine:\n{ours}"));
    }
    let told = checkout.told();
    Ok(format!(
        "{told} sales over TLS, two kills: the hub has each once; this machine's program reads the journal:\n{ours}"
    ))
}

/// What a program says of a data directory, when it is as it was written.
fn verify(mut program: Command, data_dir: &Path) -> Result<String, String> {
    let output =
        program.arg("verify").arg(data_dir).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("verify ended with {}:\n{said}", output.status)) }
}
