//! The agent's command line: arguments, configuration, run, exit code.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use counterfoil::config::Config;
use counterfoil::error::{EXIT_DISK, ExitError, chain};
use counterfoil_proto::id::PublicKey;

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
    /// Check that a data directory is what the agent wrote: checksums, numbers, chains, signed control totals. Changes nothing.
    ///
    /// Exit 0: it is; 1: it is not, and what is wrong is named; 74: it cannot be read. Best on a stopped agent or a copy: of a running one
    /// the last records may still be on their way.
    Verify {
        /// The data directory.
        data_dir: PathBuf,
        /// The public key that must have signed the control totals, 64 hexadecimal digits; without it, all have to be of one key.
        #[arg(long)]
        public_key: Option<PublicKey>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration and print it as it takes effect, without secrets.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Verify { data_dir, public_key, json } => return verify(&data_dir, public_key, json),
        Command::Run { config } => Config::load(&config).map_err(ExitError::from).and_then(counterfoil::run),
        Command::CheckConfig { file } => Config::load(&file).map_err(ExitError::from).map(|config| print(&config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = chain(&error);
            counterfoil::service::failed(&why);
            complain(&why);
            ExitCode::from(&error)
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
fn verify(data_dir: &Path, public_key: Option<PublicKey>, json: bool) -> ExitCode {
    let shows_progress = std::io::stderr().is_terminal();
    let mut on_progress = |done: u64, total: u64| {
        if shows_progress {
            eprint!("\r{:>7} of {} MiB ", done >> 20, total >> 20);
        }
    };
    let report = match counterfoil::verify::directory(data_dir, public_key, &mut on_progress) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("counterfoil: {} cannot be verified: {error}", data_dir.display());
            return ExitCode::from(EXIT_DISK);
        }
    };
    if shows_progress {
        eprintln!();
    }
    if json {
        println!("{}", serde_json::json!(report));
    } else {
        print!("{report}");
    }
    if report.journal.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print(config: &Config) {
    print!("{config}");
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn complain(why: &str) {
    eprintln!("counterfoil: {why}");
}
