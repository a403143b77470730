//! The agent's command line: arguments, configuration, run, exit code.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use counterfoil::client::{Client, ClientError, exceptions, status};
use counterfoil::command::{Arguments, Command, Done, Target, Word};
use counterfoil::config::Config;
use counterfoil::doctor::{Health, examine};
use counterfoil::env::Env;
use counterfoil::error::{EXIT_DISK, EXIT_UNAVAILABLE, EXIT_USAGE, ExitError, chain};
use counterfoil::export::Wanted;
use counterfoil::identity::enroll;
use counterfoil_proto::id::PublicKey;
use counterfoil_proto::record::flag::Change;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    match execute(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            let why = chain(&error);
            counterfoil::service::failed(&why);
            complain(&why);
            ExitCode::from(&error)
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, ExitError> {
    Ok(match command {
        Command::Run { config } => {
            counterfoil::run(Config::load(&config)?)?;
            ExitCode::SUCCESS
        }
        Command::Status { target, json } => status(&target, json),
        Command::Enroll(wanted) => enrolled(&Config::load(&wanted.config)?, &wanted),
        Command::Exceptions { target, all, json, word } => exceptions_of(&target, all, json, word.as_ref()),
        Command::Doctor { config, ca_file, token_file, json } => {
            let config = Config::load(&config)?;
            let target = Target::of(&config.ingress, ca_file, token_file);
            doctor(&config, &target, &Env::of_this_box()?, json)
        }
        Command::Verify { data_dir, public_key, json, delivered } => verify(&data_dir, public_key, json, delivered),
        Command::Export { data_dir, file, all, json } => {
            export(&Wanted { data_dir, file, all }, &Env::of_this_box()?, json)
        }
        Command::CheckConfig { file } => {
            print(&Config::load(&file)?);
            ExitCode::SUCCESS
        }
    })
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn doctor(config: &Config, target: &Target, env: &Env, json: bool) -> ExitCode {
    let checks = examine(config, target, env, &mut |check| {
        if !json {
            print!("{check}");
        }
    });
    if json {
        println!("{}", serde_json::json!(checks));
    }
    let is_well = checks.iter().all(|check| check.health <= Health::Unknown);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
fn verify(data_dir: &Path, public_key: Option<PublicKey>, json: bool, delivered: bool) -> ExitCode {
    let report = match with_progress(|on_progress| counterfoil::verify::directory(data_dir, public_key, on_progress)) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("counterfoil: {} cannot be verified: {error}", data_dir.display());
            return ExitCode::from(EXIT_DISK);
        }
    };
    if json {
        println!("{}", serde_json::json!(report));
    } else {
        print!("{report}");
    }
    let is_whole = report.journal.findings.is_empty() && !(delivered && report.journal.undelivered > 0);
    if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
fn export(wanted: &Wanted, env: &Env, json: bool) -> ExitCode {
    match with_progress(|on_progress| counterfoil::export::export(wanted, env, on_progress)) {
        Ok(exported) if json => println!("{}", serde_json::json!(exported)),
        Ok(exported) => print!("{}: {exported}", wanted.file.display()),
        Err(error) => {
            eprintln!("counterfoil: {error}");
            return ExitCode::from(EXIT_DISK);
        }
    }
    ExitCode::SUCCESS
}

/// Does long work, and shows a person how far it is.
#[expect(clippy::print_stderr, reason = "the result goes to stdout")]
fn with_progress<T>(work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let is_shown = std::io::stderr().is_terminal();
    let done = work(&mut |done, total| {
        if is_shown {
            eprint!("\r{:>7} of {} MiB ", done >> 20, total >> 20);
        }
    });
    if is_shown {
        eprintln!();
    }
    done
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
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
        Err(error) => return no_answer(&error),
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn status(target: &Target, json: bool) -> ExitCode {
    match Client::new(target).and_then(|client| status::overview(&client)) {
        Ok(overview) if json => println!("{}", serde_json::json!(overview)),
        Ok(overview) => print!("{}", overview.text()),
        Err(error) => return no_answer(&error),
    }
    ExitCode::SUCCESS
}

fn no_answer(error: &ClientError) -> ExitCode {
    complain(&error.to_string());
    if matches!(error, ClientError::Silent(..)) { ExitCode::from(EXIT_UNAVAILABLE) } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn enrolled(config: &Config, wanted: &enroll::Wanted) -> ExitCode {
    match enroll::run(config, wanted) {
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
