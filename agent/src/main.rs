//! The agent's command line: arguments, configuration, run, exit code.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use counterfoil::client::{Client, ClientError, exceptions};
use counterfoil::command::{Arguments, Command, Done, Target, Word};
use counterfoil::config::Config;
use counterfoil::error::{EXIT_CONFIGURATION, EXIT_DISK, EXIT_UNAVAILABLE, ExitError, chain};
use counterfoil::identity::enroll::{self, Wanted};
use counterfoil_proto::id::PublicKey;
use counterfoil_proto::record::flag::Change;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Verify { data_dir, public_key, json, delivered } => {
            return verify(&data_dir, public_key, json, delivered);
        }
        Command::Exceptions { target, all, json, word } => return exceptions_of(&target, all, json, word.as_ref()),
        Command::Enroll(wanted) => return enroll(&wanted),
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
fn verify(data_dir: &Path, public_key: Option<PublicKey>, json: bool, delivered: bool) -> ExitCode {
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
    let is_whole = report.journal.findings.is_empty() && !(delivered && report.journal.undelivered > 0);
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
fn exceptions_of(target: &Target, all: bool, json: bool, word: Option<&Word>) -> ExitCode {
    let answer = Client::new(target).and_then(|client| {
        let (change, Done { id, by, reason }) = match word {
            None => return exceptions::list(&client, all),
            Some(Word::Acknowledge(done)) => (Change::Acknowledged, done),
            Some(Word::Resolve(done)) => (Change::Resolved, done),
            Some(Word::Waive(done)) => (Change::Waived, done),
        };
        exceptions::change(&client, change, id, by, reason).map(|changed| vec![changed])
    });
    match answer {
        Ok(found) if json => println!("{}", serde_json::json!(found)),
        Ok(found) => print!("{}", exceptions::table(&found)),
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
fn enroll(wanted: &Wanted) -> ExitCode {
    let config = match Config::load(&wanted.config) {
        Ok(config) => config,
        Err(error) => {
            complain(&chain(&error));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match enroll::run(&config, wanted) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&chain(&error));
            ExitCode::from(error.code())
        }
    }
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print(config: &Config) {
    print!("{config}");
}

#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
fn complain(why: &str) {
    eprintln!("counterfoil: {why}");
}
