//! The agent's command line: arguments, configuration, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use counterfoil::config::Config;
use counterfoil::error::{ExitError, chain};

/// Takes documents from the tills of a store, puts them on disk, hands them to the hub.
#[derive(Debug, Parser)]
#[command(name = "counterfoil", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is told to stop.
    Run {
        /// The configuration; config/agent.toml is a commented sample.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and print it as it takes effect, without secrets.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { config } => Config::load(&config).map_err(ExitError::from).and_then(counterfoil::run),
        Command::CheckConfig { file } => Config::load(&file).map_err(ExitError::from).map(|config| print(&config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(&error)
        }
    }
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print(config: &Config) {
    print!("{config}");
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn complain(error: &ExitError) {
    eprintln!("counterfoil: {}", chain(error));
}
