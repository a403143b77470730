//! The till simulator: replays a CSV in the shape of Online Retail against agents that run, and holds the hub to the receipts.
//!
//! Only arguments, progress and the exit code live here; `world::sales`, `world::till` and `world::compare` do it. Exit 0: all receipts are there,
//! and where a hub was named, everything agrees; 1: something differs; 2: it did not come to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use counterfoil::answer::Status;
use tokio::task::JoinSet;
use world::compare::Report;
use world::golden::Golden;
use world::http::{Api, ApiError};
use world::ledger::Ledger;
use world::receipts::{BookError, ReceiptBook, Stub};
use world::retail_csv::{CsvError, read};
use world::sales::{INVENTED, Script, script};
use world::till::{Mode, Progress, Till, TillError};
use world::wait::{self, Deadline};

/// Replays sales through the HTTP API of one or several agents, with its own durable record of every receipt. Started again with the same
/// arguments, it goes on where it was.
#[derive(Debug, Parser)]
#[command(name = "till", after_help = INVENTED)]
struct Arguments {
    /// .csv or .csv.zst with the columns `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country`
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// An agent's address, http://HOST:PORT; each agent is one store, and the order decides which sales it gets
    #[arg(long = "agent", value_name = "URL", required = true)]
    agents: Vec<String>,
    /// Tills in each store
    #[arg(long, default_value_t = 3)]
    tills: u64,
    /// Where the tills keep their receipts
    #[arg(long, value_name = "DIR")]
    record: PathBuf,
    /// Documents in one request (NDJSON); one by one when left out
    #[arg(long, value_name = "DOCUMENTS")]
    batch: Option<usize>,
    /// Rows to read at most
    #[arg(long, value_name = "ROWS")]
    rows: Option<usize>,
    /// The hub to compare with at the end, http://HOST:PORT
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// A file with the hub's bearer token
    #[arg(long, value_name = "FILE", requires = "hub")]
    hub_token_file: Option<PathBuf>,
    /// A file with the agents' bearer token
    #[arg(long, value_name = "FILE")]
    agent_token_file: Option<PathBuf>,
    /// Seconds that the hub has for what is still on its way
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    patience: u64,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Csv(#[from] CsvError),
    #[error(transparent)]
    Till(#[from] TillError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("A till ended by itself: {0}")]
    Join(#[from] tokio::task::JoinError),
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a program for a terminal")]
async fn main() -> ExitCode {
    match Box::pin(run(Arguments::parse())).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
async fn run(arguments: Arguments) -> Result<bool, Failure> {
    let start = Instant::now();
    let rows = read(&arguments.input, arguments.rows.unwrap_or(usize::MAX))?;
    let golden = Golden::of_rows(&rows);
    let agents = stores(&arguments).await?;
    let stores: Vec<String> = agents.iter().map(|(store, _)| store.clone()).collect();
    let script = script(&rows, &stores, arguments.tills.max(1));
    drop(rows);
    let told = sell(&arguments, &script, &agents).await?;
    eprintln!("{} receipts after {:.1} s", told.len(), start.elapsed().as_secs_f32());
    let Some(hub) = &arguments.hub else { return Ok(true) };
    let hub = authorized(hub, arguments.hub_token_file.as_ref())?;
    let report = compare(&hub, &agents, &script, &golden, &told, Duration::from_secs(arguments.patience)).await?;
    print!("{}", report.text());
    Ok(report.agrees())
}

fn authorized(url: &str, token_file: Option<&PathBuf>) -> Result<Api, Failure> {
    let api = Api::new(url);
    let Some(path) = token_file else { return Ok(api) };
    let token = std::fs::read_to_string(path).map_err(|source| Failure::File { path: path.clone(), source })?;
    Ok(api.with_token(token.trim()))
}

/// Asks each agent which store it is in.
async fn stores(arguments: &Arguments) -> Result<Vec<(String, Api)>, Failure> {
    let mut stores = Vec::new();
    for url in &arguments.agents {
        let api = authorized(url, arguments.agent_token_file.as_ref())?;
        let status: Status = api.json("/v1/status").await?;
        stores.push((status.store_id, api));
    }
    Ok(stores)
}

/// All tills at once; gives what they were told.
#[expect(clippy::print_stderr, reason = "progress on a terminal")]
async fn sell(
    arguments: &Arguments,
    script: &Script,
    agents: &[(String, Api)],
) -> Result<BTreeMap<String, Stub>, Failure> {
    let record = &arguments.record;
    std::fs::create_dir_all(record).map_err(|source| Failure::File { path: record.clone(), source })?;
    let mode = arguments.batch.map_or(Mode::Single, |documents| Mode::Batch(documents.clamp(1, 1_000)));
    let progress = Arc::new(Progress::default());
    let documents: usize = script.tills.iter().map(|till| till.documents.len()).sum();
    let mut tills = JoinSet::new();
    for till_script in script.tills.clone() {
        let Some((_, api)) = agents.iter().find(|(store, _)| *store == till_script.store_id) else { continue };
        let name = format!("{}-{}", till_script.store_id, till_script.workstation_id);
        let book = ReceiptBook::open(&record.join(format!("{name}.ndjson")))?;
        let till = Till::new(api.clone(), &name, book, mode, progress.clone());
        tills.spawn(async move { till.run(&till_script).await });
    }
    let watched = progress.clone();
    let watch = tokio::spawn(async move {
        loop {
            wait::rest(Duration::from_secs(2)).await;
            let [done, again] = [&watched.done, &watched.again].map(|count| count.load(Ordering::Relaxed));
            eprintln!("{done} of {documents} documents done, {again} requests sent again");
        }
    });
    let mut told = BTreeMap::new();
    while let Some(book) = tills.join_next().await {
        told.extend(book??.stubs().clone());
    }
    watch.abort();
    Ok(told)
}

async fn compare(
    hub: &Api,
    agents: &[(String, Api)],
    script: &Script,
    golden: &Golden,
    told: &BTreeMap<String, Stub>,
    patience: Duration,
) -> Result<Report, Failure> {
    let mut ledger = Ledger::default();
    let deadline = Deadline::new(patience);
    while !told.keys().all(|key| ledger.stubs.contains_key(key)) && deadline.rest().await {
        // A hub that is away for a moment is asked again; what is missing at the end shows in the comparison.
        let _away_just_now = ledger.read_on(hub).await.is_err();
    }
    let found = ledger.golden();
    let mut report = Report::default();
    report.golden("the rows of the file", golden, &found);
    report.stream(&ledger);
    report.receipts(told, &ledger);
    report.totals(hub, script).await?;
    report.stock_fold(script, &ledger);
    report.stock(agents, script, &|_, _| None).await?;
    Ok(report)
}
