//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, LedgerConfig, Place};
use crate::error::ExitError;
use crate::run;

/// The central receiver of Counterfoil: owns the ledger and answers for it.
#[derive(Debug, Parser)]
#[command(name = "counterfoil-hub", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hub.
    Run {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Say what the hub makes of a configuration.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
    /// Tell agents that what a restored copy of the ledger holds is safe (for ledger.safe = "confirmed").
    BackupVerified {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The restored copy: sqlite:FILE or postgres://…
        #[arg(long)]
        copy: String,
    },
}

/// The command line, for whoever writes its manual.
pub(crate) fn arguments() -> clap::Command {
    Arguments::command()
}

/// What `arguments` ask for, the program's name first; gives what is to be printed.
pub(crate) fn execute(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<String, ExitError> {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => return Err(ExitError::Usage(error.to_string())),
        Err(help) => return Ok(help.to_string()),
    };
    match parsed.command {
        Command::CheckConfig { file } => Ok(Config::load(&file)?.to_string()),
        Command::Run { config } => {
            let config = Config::load(&config)?;
            log_to_stderr(&config);
            runtime()?.block_on(async {
                let stop = stop_signal();
                run::run(config, stop).await
            })?;
            Ok(String::new())
        }
        Command::BackupVerified { config, copy } => {
            let config = Config::load(&config)?;
            log_to_stderr(&config);
            let place = match copy.strip_prefix("sqlite:") {
                Some(path) => Place::Sqlite(path.into()),
                None => Place::Postgres { url: copy, password_file: None, ca_file: None },
            };
            let copy = LedgerConfig { place, safe_when: config.ledger.safe_when };
            let lanes = runtime()?.block_on(run::backup_verified(&config, &copy))?;
            Ok(format!("{lanes} lanes are safe further than before\n"))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, ExitError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ExitError::Runtime)
}

fn log_to_stderr(config: &Config) {
    let level = &config.log_level;
    let is_plain = ["error", "warn", "info", "debug", "trace"].contains(&level.as_str());
    // The embedded broker is noisy about ordinary ends of connections.
    let filter = if is_plain { format!("{level},rumqttd=error") } else { level.clone() };
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_default();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Where a test or an embedding program has one already, that one stays.
    drop(subscriber.try_init());
}

/// Completes at SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
