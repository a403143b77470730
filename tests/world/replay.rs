//! The main run: stores with tills before real agents, real TLS, a real broker, a real database, two hubs, and violence at seeded moments.
//!
//! Moments are tied to what the tills have been told, not to the clock: the n-th receipt of a store kills its agent, so every kill
//! meets a till at work, on a fast machine and on a slow one. Invariant: nothing is skipped; the report counts the kills it saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use tokio::task::{JoinError, JoinSet};

use crate::agent::{self, Agent, Mqtt};
use crate::broker::{Broker, acl_of_agent, acl_of_hub};
use crate::compare::Report;
use crate::findings::Expected;
use crate::golden::Golden;
use crate::http::{Api, ApiError};
use crate::hub::Hub;
use crate::ledger::Ledger;
use crate::pki::Pki;
use crate::postgres::Postgres;
use crate::random::{Random, hash};
use crate::receipts::{BookError, ReceiptBook, Stub};
use crate::retail_csv::{CsvError, Row, read};
use crate::sales::{Script, TillScript, opening_count, script};
use crate::synthetic;
use crate::till::{Mode, Progress, Till, TillError};
use crate::wait::{self, Deadline};

/// How long the ledger may stand still at the end before the run is called a failure.
const STILL_MAX: Duration = Duration::from_mins(2);
/// Longer than any run.
const EVER: Duration = Duration::from_hours(24);

/// Where the sales come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory with `online-retail.csv.zst` and its `golden.json`.
    Directory(PathBuf),
    /// Made up, so many rows at least.
    Synthetic(usize),
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the sales come from.
    pub source: Source,
    /// Stores, with one agent each.
    pub stores: usize,
    /// Tills in each store.
    pub tills: u64,
    /// SIGKILLs of each agent while its tills are at work.
    pub kills: usize,
    /// Hub processes.
    pub hubs: usize,
    /// SIGKILLs of each hub process.
    pub hub_kills: usize,
    /// What the moments are drawn from.
    pub seed: u64,
    /// How documents travel.
    pub mode: Mode,
    /// TLS and client certificates at the broker.
    pub tls: bool,
    /// Where everything is kept; a temporary directory otherwise.
    pub keep: Option<PathBuf>,
}

/// Why a run could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The sales cannot be read.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A till stopped.
    #[error(transparent)]
    Till(#[from] TillError),
    /// A till's book failed.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The hub or an agent does not answer at the end.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A part of the world failed.
    #[error("A part of the run failed: {0}")]
    Part(#[from] JoinError),
}

/// What is at work.
enum Part {
    Agent(Agent),
    Hub(Hub),
    Broker(Broker),
}

/// The sales of a run.
struct Sales {
    script: Script,
    golden: Golden,
    findings: Expected,
    name: &'static str,
    stores: Vec<String>,
}

/// Runs it, says on standard error how it goes, and compares.
pub async fn run(options: &Options) -> Result<Report, ReplayError> {
    let start = Instant::now();
    let sales = load(options)?;
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let directory = options.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory.join("receipts")).expect("a directory in one of ours");
    let world = World::build(options, &sales, directory).await;
    say(&format!("The world stands after {:.1} s", start.elapsed().as_secs_f32()));

    let mut told = world.open_with_counts(&sales).await?;
    let replaying = Instant::now();
    let apis = world.hub_apis();
    let progress = world.progress.clone();
    let total: u64 = sales.script.tills.iter().map(|till| till.documents.len() as u64).sum();
    let (postgres, pki) = (world.postgres, world.pki);
    let mut faults = JoinSet::new();
    for (agent, progress) in world.agents.into_iter().zip(&progress) {
        let of_store = documents_of(&sales.script, &agent.store_id);
        faults.spawn(torment_agent(agent, progress.clone(), of_store, options.clone()));
    }
    for (index, hub) in world.hubs.into_iter().enumerate() {
        faults.spawn(torment_hub(hub, index, progress.clone(), total, options.clone()));
    }
    faults.spawn(torment_broker(world.broker, progress.clone(), total));
    let tills = spawn_tills(options, &sales, &world.agent_apis, &progress, directory)?;
    // One reader follows the ledger live, from hub to hub and across their deaths: positions must hold all the while.
    let follower = tokio::spawn(follow(apis.clone(), progress.clone(), total));

    told.extend(join_tills(tills).await?);
    say(&format!("All {} receipts after {:.1} s", told.len(), replaying.elapsed().as_secs_f32()));
    let mut parts = Vec::new();
    while let Some(part) = faults.join_next().await {
        parts.push(part?);
    }
    let mut live = follower.await?;
    settle(&apis, &mut live, &told).await;
    say(&format!("The ledger holds {} records after {:.1} s", live.position(), replaying.elapsed().as_secs_f32()));

    let mut report = compare(&sales, &apis, &world.agent_apis, &told, &live).await?;
    kills(&mut report, options, &parts);
    let sum = |count: fn(&Progress) -> u64| progress.iter().map(|progress| count(progress)).sum::<u64>();
    say(&format!(
        "{} epochs; sent again {}, answered as duplicate {}, flagged {}; {:.1} s in all",
        live.epochs(),
        sum(|progress| progress.again.load(Ordering::Relaxed)),
        sum(|progress| progress.duplicates.load(Ordering::Relaxed)),
        sum(|progress| progress.flagged.load(Ordering::Relaxed)),
        start.elapsed().as_secs_f32()
    ));
    drop((parts, postgres, pki));
    Ok(report)
}

fn load(options: &Options) -> Result<Sales, ReplayError> {
    let (rows, golden, name): (Vec<Row>, Golden, _) = match &options.source {
        Source::Directory(directory) => {
            let rows = read(&directory.join("online-retail.csv.zst"), usize::MAX)?;
            (rows, Golden::read(&directory.join("golden.json")), "golden.json")
        }
        Source::Synthetic(rows) => {
            let synthetic = synthetic::draw(*rows, options.seed);
            (synthetic.rows, synthetic.golden, "the golden sums of the made-up data")
        }
    };
    let stores: Vec<String> = (1..=options.stores).map(|number| format!("{number:04}")).collect();
    let script = script(&rows, &stores, options.tills);
    let findings = Expected::of_rows(&rows);
    Ok(Sales { script, golden, findings, name, stores })
}

struct World {
    broker: Broker,
    postgres: Postgres,
    /// Its files are read again at each start and each connection, so it lives as long as the run.
    pki: Pki,
    agents: Vec<Agent>,
    agent_apis: Vec<(String, Api)>,
    hubs: Vec<Hub>,
    progress: Vec<Arc<Progress>>,
    receipts: PathBuf,
}

impl World {
    async fn build(options: &Options, sales: &Sales, directory: &Path) -> Self {
        let pki = Pki::new();
        let hub_name = |number: usize| format!("hub{number}");
        let hub_names: Vec<String> = (1..=options.hubs).map(hub_name).collect();
        let broker = if options.tls {
            let acl = hub_names
                .iter()
                .map(|name| acl_of_hub(name))
                .chain(sales.stores.iter().map(|store| acl_of_agent(store, "box1")));
            Broker::tls(&pki, &acl.collect::<String>()).await
        } else {
            Broker::plain().await
        };
        let postgres = Postgres::new().await;
        let ledger = postgres.create_database("counterfoil").await;
        let mqtt = |identity| Mqtt { url: broker.url(), identity: options.tls.then_some(identity) };
        let mut hubs = Vec::new();
        for name in &hub_names {
            let mut hub = Hub::new(&directory.join(name), name, &mqtt(pki.client(name)), &ledger, "");
            hub.start();
            // One after the other: the first creates the tables.
            hub.ready().await;
            hubs.push(hub);
        }
        let mut agents = Vec::new();
        for store in &sales.stores {
            let mut agent = Agent::new(&directory.join(store), store, "box1", &mqtt(pki.agent(store, "box1")), "");
            agent.start();
            agent.ready().await;
            agents.push(agent);
        }
        let agent_apis = agents.iter().map(|agent| (agent.store_id.clone(), agent.api())).collect();
        let progress = agents.iter().map(|_| Arc::default()).collect();
        Self { broker, postgres, pki, agents, agent_apis, hubs, progress, receipts: directory.join("receipts") }
    }

    fn hub_apis(&self) -> Vec<Api> {
        self.hubs.iter().map(Hub::api).collect()
    }

    /// Counts every item of every store before anything is sold, so that stock on hand is a number.
    async fn open_with_counts(&self, sales: &Sales) -> Result<BTreeMap<String, Stub>, ReplayError> {
        let mut told = BTreeMap::new();
        for (store, api) in &self.agent_apis {
            let items = sales.script.stock.keys().filter(|(of, _)| of == store);
            let counted = items.map(|(store, item)| (item.clone(), counted(store, item))).collect();
            let documents = vec![opening_count(store, &counted)];
            let script = TillScript { store_id: store.clone(), workstation_id: "office".to_owned(), documents };
            let book = ReceiptBook::open(&self.receipts.join(format!("{store}-office.ndjson")))?;
            let till = Till::new(api.clone(), &format!("{store}/office"), book, Mode::Single, Arc::default());
            told.extend(till.run(&script).await?.stubs().clone());
        }
        Ok(told)
    }
}

/// What the opening count of an item says.
fn counted(store: &str, item: &str) -> Decimal {
    Decimal::from(hash(&format!("{store}/{item}")) % 1_000)
}

fn documents_of(script: &Script, store: &str) -> u64 {
    script.tills.iter().filter(|till| till.store_id == store).map(|till| till.documents.len() as u64).sum()
}

type Tills = JoinSet<Result<ReceiptBook, TillError>>;

fn spawn_tills(
    options: &Options,
    sales: &Sales,
    apis: &[(String, Api)],
    progress: &[Arc<Progress>],
    directory: &Path,
) -> Result<Tills, ReplayError> {
    let mut tills = JoinSet::new();
    for script in sales.script.tills.clone() {
        let (api, progress) = apis
            .iter()
            .zip(progress)
            .find_map(|((store, api), progress)| (*store == script.store_id).then(|| (api.clone(), progress.clone())))
            .expect("each store of the script has an agent");
        let name = format!("{}-{}", script.store_id, script.workstation_id);
        let book = ReceiptBook::open(&directory.join("receipts").join(format!("{name}.ndjson")))?;
        let till = Till::new(api, &name, book, options.mode, progress);
        tills.spawn(async move { till.run(&script).await });
    }
    Ok(tills)
}

async fn join_tills(mut tills: Tills) -> Result<BTreeMap<String, Stub>, ReplayError> {
    let mut told = BTreeMap::new();
    while let Some(book) = tills.join_next().await {
        told.extend(book??.stubs().clone());
    }
    Ok(told)
}

/// Waits until the tills have been told `point` receipts.
async fn until_told(progress: &[Arc<Progress>], point: u64) {
    let deadline = Deadline::new(EVER);
    while progress.iter().map(|progress| progress.told.load(Ordering::Relaxed)).sum::<u64>() < point {
        deadline.rest_for("receipts").await;
    }
}

async fn torment_agent(mut agent: Agent, progress: Arc<Progress>, documents: u64, options: Options) -> Part {
    let mut random = Random::named(options.seed, &format!("agent {}", agent.store_id));
    for point in random.ascending(options.kills, documents) {
        until_told(std::slice::from_ref(&progress), point).await;
        agent.kill();
        agent.start();
        if random.one_in(4) {
            // A second blow while it is still recovering from the first.
            wait::rest(Duration::from_millis(random.below(150))).await;
            agent.kill();
            agent.start();
        }
        agent.ready().await;
    }
    // A last one when the tills are done and the backlog is on its way.
    until_told(std::slice::from_ref(&progress), documents).await;
    if options.kills > 0 {
        agent.kill();
        agent.start();
        agent.ready().await;
    }
    Part::Agent(agent)
}

async fn torment_hub(
    mut hub: Hub,
    index: usize,
    progress: Vec<Arc<Progress>>,
    documents: u64,
    options: Options,
) -> Part {
    let mut random = Random::named(options.seed, &format!("hub {index}"));
    for point in random.ascending(options.hub_kills, documents) {
        until_told(&progress, point).await;
        hub.kill();
        hub.start();
        hub.ready().await;
    }
    Part::Hub(hub)
}

/// Down for a while with its memory wiped, later a plain crash.
async fn torment_broker(mut broker: Broker, progress: Vec<Arc<Progress>>, documents: u64) -> Part {
    until_told(&progress, documents * 2 / 5).await;
    broker.kill();
    broker.wipe();
    say("The broker is down, its persistence wiped");
    until_told(&progress, documents * 11 / 20).await;
    broker.start().await;
    say("The broker is back, empty");
    until_told(&progress, documents * 4 / 5).await;
    broker.kill();
    broker.start().await;
    Part::Broker(broker)
}

/// Reads the ledger while it grows, until the tills are done.
async fn follow(apis: Vec<Api>, progress: Vec<Arc<Progress>>, documents: u64) -> Ledger {
    let mut ledger = Ledger::default();
    let mut spoken = Instant::now();
    loop {
        for api in &apis {
            // A hub that is being killed does not answer; the next one goes on from the same cursor.
            let _dead_just_now = ledger.read_on(api).await.is_err();
        }
        let told: u64 = progress.iter().map(|progress| progress.told.load(Ordering::Relaxed)).sum();
        if told >= documents {
            return ledger;
        }
        if spoken.elapsed() > Duration::from_secs(5) {
            spoken = Instant::now();
            say(&format!(
                "{told} of {documents} receipts, ledger at {}, {} epochs",
                ledger.position(),
                ledger.epochs()
            ));
        }
        wait::rest(Duration::from_millis(100)).await;
    }
}

/// Waits until the ledger holds every receipt or stands still.
async fn settle(apis: &[Api], ledger: &mut Ledger, told: &BTreeMap<String, Stub>) {
    let Some(api) = apis.first() else { return };
    let mut moved = Instant::now();
    while !told.keys().all(|key| ledger.stubs.contains_key(key)) && moved.elapsed() < STILL_MAX {
        if ledger.read_on(api).await.is_ok_and(|count| count > 0) {
            moved = Instant::now();
        }
        wait::rest(Duration::from_millis(50)).await;
    }
}

/// What agents still have waiting, after some patience for the last acknowledgement.
async fn waiting(agents: &[(String, Api)]) -> Vec<String> {
    let mut waiting = Vec::new();
    for (store, api) in agents {
        let deadline = Deadline::new(STILL_MAX);
        let last = loop {
            match agent::waiting(api).await {
                Some(0) => break None,
                _ if deadline.rest().await => {}
                last => break Some(last),
            }
        };
        if let Some(last) = last {
            waiting.push(format!("{store}: {last:?} records wait (none stated: no answer, or no word from the hub)"));
        }
    }
    waiting
}

async fn compare(
    sales: &Sales,
    hubs: &[Api],
    agents: &[(String, Api)],
    told: &BTreeMap<String, Stub>,
    live: &Ledger,
) -> Result<Report, ReplayError> {
    let mut report = Report::default();
    let hub = hubs.first().expect("a run has a hub");
    let lag = waiting(agents).await;
    let mut whole = Ledger::default();
    whole.read_on(hub).await?;
    let golden = whole.golden();
    report.golden(sales.name, &sales.golden, &golden);
    report.stream(&whole);
    report.add("The same, read live from hub to hub", live.stubs.len(), live.faults.clone());
    report.receipts(told, &whole);
    report.totals(hub, &sales.script).await?;
    report.findings(&sales.findings, hub, &whole).await?;
    report.stock_fold(&sales.script, &whole);
    report.stock(agents, &sales.script, &|store, item| Some(counted(store, item))).await?;
    report.add("Every agent has nothing waiting", agents.len(), lag);
    Ok(report)
}

/// The kills that were asked for happened.
fn kills(report: &mut Report, options: &Options, parts: &[Part]) {
    let mut missing = Vec::new();
    let mut starts = 0;
    for part in parts {
        let (name, seen, asked) = match part {
            Part::Agent(agent) => (format!("agent {}", agent.store_id), agent.starts(), options.kills),
            Part::Hub(hub) => (hub.config().display().to_string(), hub.starts(), options.hub_kills),
            Part::Broker(broker) => {
                say(&format!("The broker on port {} lived through it", broker.port()));
                continue;
            }
        };
        starts += seen as usize;
        if (seen as usize) < asked + 1 {
            missing.push(format!("{name} was started {seen} times only"));
        }
        say(&format!("{name}: {seen} starts"));
    }
    report.add("Kills happened as asked for (starts of agents and hubs)", starts, missing);
}

#[expect(clippy::print_stderr, reason = "progress of a long run; standard output belongs to the report")]
fn say(text: &str) {
    eprintln!("{text}");
}
