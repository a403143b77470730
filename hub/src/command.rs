//! The command line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use counterfoil_proto::id::{AgentId, Lane, PublicKey, Source, StoreId};
use counterfoil_proto::time::WallTime;
use counterfoil_telemetry::log::{self, LogConfig, Output, Teller};

use crate::config::{Config, LedgerConfig, Place};
use crate::error::ExitError;
use crate::import::Wanted;
use crate::ledger::{ReplayPart, ReplayQuery, ReplayView};
use crate::run;

mod authority;

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
    /// Have an agent send again what it sent in some time. Records keep their numbers, so what is here stays as it is.
    ///
    /// Without --order it is a dry run that says what there would be to send.
    Replay(Replay),
    /// Show what was ordered to be sent again: who, why, and what came of it.
    Replays {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Take in a parcel: what `counterfoil export` put onto a stick in a store whose line is dead.
    ///
    /// Records keep their numbers: taken in twice, or come over the line as well, they are here once. What is signed by a key that this ledger does
    /// not know of that box is taken only with --public-key. Exit 65: not all of the parcel is here.
    Import {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The parcel.
        file: PathBuf,
        /// The box's key, as counterfoil export printed it there, 64 hexadecimal digits.
        #[arg(long)]
        public_key: Option<PublicKey>,
        /// Who does it, for the trail of changes (`GET /v1/audit`); the user of the session where it is left out.
        #[arg(long)]
        by: Option<String>,
    },
    /// Be a small certificate authority for the boxes: enrol them, list them, keep them out.
    Ca(authority::Ca),
    /// Tell agents that what a restored copy of the ledger holds is safe (for ledger.safe = "confirmed").
    BackupVerified {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The restored copy: sqlite:FILE or postgres://…
        #[arg(long)]
        copy: String,
        /// Who says so, for the trail of changes (`GET /v1/audit`); the user of the session where it is left out.
        #[arg(long)]
        by: Option<String>,
    },
}

/// The command line, for whoever writes its manual.
pub(crate) fn arguments() -> clap::Command {
    Arguments::command()
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// The store.
    #[arg(long)]
    store: StoreId,
    /// The agent in it.
    #[arg(long)]
    agent: AgentId,
    /// Received here at this time or later, 2026-11-20T00:00:00Z.
    #[arg(long)]
    from: jiff::Timestamp,
    /// And not after this one.
    #[arg(long)]
    to: jiff::Timestamp,
    /// trade, stock or ops; all when left out.
    #[arg(long)]
    lane: Option<Lane>,
    /// Do it: a running hub asks the agent as soon as it is online.
    #[arg(long, requires = "by", requires = "reason")]
    order: bool,
    /// Who orders it.
    #[arg(long)]
    by: Option<String>,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
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
            let runtime = runtime()?;
            let traces = runtime.block_on(async { log::set_up(&config.log, &teller(&config)) });
            let ended = runtime.block_on(async {
                let stop = stop_signal();
                run::run(config, stop).await
            });
            traces.end();
            ended?;
            Ok(String::new())
        }
        Command::Import { config, file, public_key, by } => {
            let config = Config::load(&config)?;
            log_to_stderr(&config);
            let wanted = Wanted { file, public_key };
            let imported = runtime()?.block_on(run::import(
                &config,
                &wanted,
                &by.unwrap_or_else(session_user),
                &mut progress(),
            ))?;
            if imported.is_whole() { Ok(imported.to_string()) } else { Err(ExitError::Parcel(imported.to_string())) }
        }
        Command::Replay(wanted) => replay(wanted),
        Command::Ca(ca) => authority::execute(ca),
        Command::Replays { config } => {
            let config = Config::load(&config)?;
            log_to_stderr(&config);
            Ok(orders_text(&runtime()?.block_on(run::replays(&config))?))
        }
        Command::BackupVerified { config, copy, by } => {
            let config = Config::load(&config)?;
            log_to_stderr(&config);
            let place = match copy.strip_prefix("sqlite:") {
                Some(path) => Place::Sqlite(path.into()),
                None => Place::Postgres { url: copy, password_file: None, ca_file: None },
            };
            let copy = LedgerConfig { place, safe_when: config.ledger.safe_when };
            let lanes = runtime()?.block_on(run::backup_verified(&config, &copy, &by.unwrap_or_else(session_user)))?;
            Ok(format!("{lanes} lanes are safe further than before\n"))
        }
    }
}

/// Shows a person how far long work is.
fn progress() -> impl FnMut(u64, u64) + Send {
    let is_shown = std::io::stderr().is_terminal();
    move |done, total| {
        if is_shown {
            let end = if done == total { "\n" } else { "" };
            drop(write!(std::io::stderr(), "\r{:>7} of {} MiB {end}", done >> 20, total >> 20));
        }
    }
}

fn replay(wanted: Replay) -> Result<String, ExitError> {
    let Replay { config, store, agent, from, to, lane, order, by, reason } = wanted;
    let config = Config::load(&config)?;
    log_to_stderr(&config);
    let time = |at: jiff::Timestamp| WallTime(at.as_millisecond());
    let source = Source { store_id: store, agent_id: agent };
    let query = ReplayQuery { source, lane, from: time(from), to: time(to) };
    let order = by.zip(reason).filter(|_| order);
    let parts = runtime()?.block_on(run::replay(&config, &query, order.as_ref()))?;
    Ok(plan_text(&query, &parts, order.is_some()))
}

fn plan_text(query: &ReplayQuery, parts: &[ReplayPart], is_ordered: bool) -> String {
    let head = format!("{}, received {} to {}", query.source, query.from.to_rfc3339(), query.to.to_rfc3339());
    let line = |ReplayPart { key, range, held, .. }: &ReplayPart| {
        let (first, last) = (range.first.0, range.last.0);
        let missing = last.saturating_sub(first).saturating_add(1).saturating_sub(*held);
        format!("epoch {} {}: {first} to {last}, {held} here, {missing} not", key.epoch, key.lane)
    };
    let end = match (parts.is_empty(), is_ordered) {
        (true, _) => "Nothing is known of that time, so there is nothing to ask for.",
        (false, false) => "Nothing was ordered. With --order --by NAME --reason WHY the agent sends it again.",
        (false, true) => {
            "Ordered. A running hub asks the agent as soon as it is online; counterfoil-hub replays shows what came of it."
        }
    };
    let lines: Vec<String> = [head].into_iter().chain(parts.iter().map(line)).chain([end.to_owned()]).collect();
    lines.join("\n") + "\n"
}

fn orders_text(orders: &[ReplayView]) -> String {
    if orders.is_empty() {
        return "Nothing was ordered yet.\n".to_owned();
    }
    let entry = |order: &ReplayView| {
        let ReplayView { number, source, key, range, ordered_at, by, reason, asked_at, came_again, new } = order;
        let asked = asked_at.map_or_else(|| "not asked yet".to_owned(), |at| format!("asked {}", at.to_rfc3339()));
        let (first, last, at) = (range.first.0, range.last.0, ordered_at.to_rfc3339());
        format!(
            "{number}  {source} epoch {} {}: {first} to {last}\n    {at} by {by}: {reason}\n    \
             {asked}; since then in this lane: {came_again} came again, {new} new\n",
            key.epoch, key.lane
        )
    };
    orders.iter().map(entry).collect::<Vec<_>>().concat()
}

/// As the session says; nobody's word is checked, who gets here may write the ledger's file or has its password.
fn session_user() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "nobody named".to_owned())
}

fn runtime() -> Result<tokio::runtime::Runtime, ExitError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ExitError::Runtime)
}

/// What a command for people tells beside its answer.
fn log_to_stderr(config: &Config) {
    let plain = LogConfig { output: Output::Stderr, otlp_endpoint: None, ..config.log.clone() };
    drop(log::set_up(&plain, &teller(config)));
}

fn teller(config: &Config) -> Teller {
    let (program, version) = ("counterfoil-hub", env!("CARGO_PKG_VERSION"));
    Teller { program, version, instance: config.mqtt.client_id.clone() }
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
