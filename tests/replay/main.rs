//! One command for the main run: real sales through real parts, killed again and again, and the comparison at the end.
//!
//! Only arguments and the exit code live here; `world::replay` does it. Exit 0: everything agrees; 1: something differs; 2: the run did not
//! come to its end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use world::replay::{Options, Source, run};
use world::sales::INVENTED;
use world::till::Mode;

/// Four stores with three tills each, TLS to a real Mosquitto, `PostgreSQL`, two hub processes; the broker wiped, agents and hubs
/// killed with SIGKILL at seeded moments; at the end the ledger against the golden sums.
#[derive(Debug, Parser)]
#[command(name = "replay", after_help = INVENTED)]
struct Arguments {
    /// A directory with online-retail.csv.zst and golden.json
    #[arg(long, value_name = "DIR", required_unless_present = "synthetic", conflicts_with = "synthetic")]
    data: Option<PathBuf>,
    /// Made-up sales instead, at least so many rows
    #[arg(long, value_name = "ROWS")]
    synthetic: Option<usize>,
    /// Stores, with one agent each
    #[arg(long, default_value_t = 4)]
    stores: usize,
    /// Tills in each store
    #[arg(long, default_value_t = 3)]
    tills: u64,
    /// SIGKILLs of each agent
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Hub processes
    #[arg(long, default_value_t = 2)]
    hubs: usize,
    /// SIGKILLs of each hub process
    #[arg(long, default_value_t = 5)]
    hub_kills: usize,
    /// What the moments of the kills are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Documents in one request (NDJSON); one by one when left out
    #[arg(long, value_name = "DOCUMENTS")]
    batch: Option<usize>,
    /// The broker
    #[arg(long, value_enum, default_value_t = BrokerKind::Mosquitto)]
    broker: BrokerKind,
    /// Keep configurations, data directories, logs and receipts here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BrokerKind {
    /// Mosquitto with TLS, client certificates and an ACL
    Mosquitto,
    /// Mosquitto without TLS
    MosquittoPlain,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let source = match (arguments.data, arguments.synthetic) {
        (Some(directory), _) => Source::Directory(directory),
        (None, rows) => Source::Synthetic(rows.unwrap_or_default()),
    };
    let options = Options {
        source,
        stores: arguments.stores.max(1),
        tills: arguments.tills.max(1),
        kills: arguments.kills,
        hubs: arguments.hubs.max(1),
        hub_kills: arguments.hub_kills,
        seed: arguments.seed,
        mode: arguments.batch.map_or(Mode::Single, |documents| Mode::Batch(documents.clamp(1, 1_000))),
        tls: matches!(arguments.broker, BrokerKind::Mosquitto),
        keep: arguments.keep,
    };
    match Box::pin(run(&options)).await {
        Ok(report) => {
            print!("{}", report.text());
            if report.agrees() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
