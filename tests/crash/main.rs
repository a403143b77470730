//! One command for the kills. Only arguments and the exit code live here; `world::crash` does it.
//!
//! Exit 0: nothing was lost, doubled or wrong; 1: something was.

use std::process::ExitCode;

use clap::Parser;
use world::crash::{Options, crashes};

/// Kills agent and hub with SIGKILL at random moments while tills sell, and looks for every receipt: at the agent after each kill, at the hub at the
/// end.
#[derive(Debug, Parser)]
#[command(name = "crash")]
struct Arguments {
    /// How often something is killed
    #[arg(long, default_value_t = 1_000)]
    cycles: u64,
    /// What everything by lot is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mosquitto and `PostgreSQL`, which are killed too, instead of the hub's own broker and `SQLite`
    #[arg(long)]
    servers: bool,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program for a terminal")]
async fn main() -> ExitCode {
    let Arguments { cycles, seed, servers } = Arguments::parse();
    let figures = Box::pin(crashes(&Options { cycles, seed, servers, progress: |line| println!("{line}") })).await;
    print!("{}", figures.text());
    if figures.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
