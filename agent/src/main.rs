//! The agent's command line: arguments, configuration, run, exit code.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use counterfoil::cli::{self, Client, ClientError, Target};
use counterfoil::config::Config;
use counterfoil::error::{EXIT_DISK, EXIT_UNAVAILABLE, ExitError, chain};
use counterfoil_proto::id::PublicKey;
use counterfoil_proto::record::flag::Change;

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
    /// Show what needs a person, or note that somebody looks after it.
    ///
    /// Without a further word: the open exceptions, the oldest first.
    Exceptions {
        #[command(flatten)]
        target: Target,
        /// Also those that ended and are still known.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        word: Option<Word>,
    },
    /// Check a configuration and print it as it takes effect, without secrets.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
}

/// What a person does about an exception.
#[derive(Debug, Subcommand)]
enum Word {
    /// Somebody looks after it; it stays open.
    Acknowledge(Done),
    /// It needs nobody any more.
    Resolve(Done),
    /// Leave it as it is, on purpose.
    Waive(Done),
}

#[derive(Debug, clap::Args)]
struct Done {
    /// Which, as the list shows it: ex-0123456789abcdef.
    id: String,
    /// Who.
    #[arg(long)]
    by: String,
    /// Why.
    #[arg(long)]
    reason: String,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Verify { data_dir, public_key, json } => return verify(&data_dir, public_key, json),
        Command::Exceptions { target, all, json, word } => return exceptions(&target, all, json, word.as_ref()),
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

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
fn exceptions(target: &Target, all: bool, json: bool, word: Option<&Word>) -> ExitCode {
    let answer = Client::new(target).and_then(|client| {
        let (change, Done { id, by, reason }) = match word {
            None => return cli::exceptions::list(&client, all),
            Some(Word::Acknowledge(done)) => (Change::Acknowledged, done),
            Some(Word::Resolve(done)) => (Change::Resolved, done),
            Some(Word::Waive(done)) => (Change::Waived, done),
        };
        cli::exceptions::change(&client, change, id, by, reason).map(|changed| vec![changed])
    });
    match answer {
        Ok(found) if json => println!("{}", serde_json::json!(found)),
        Ok(found) => print!("{}", cli::exceptions::table(&found)),
        Err(error) => {
            eprintln!("counterfoil: {error}");
            return if matches!(error, ClientError::Silent(..)) {
                ExitCode::from(EXIT_UNAVAILABLE)
            } else {
                ExitCode::FAILURE
            };
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print(config: &Config) {
    print!("{config}");
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn complain(error: &ExitError) {
    eprintln!("counterfoil: {}", chain(error));
}
