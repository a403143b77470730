//! The crash rig: agent, hub, broker and database killed at random moments while tills sell, and every receipt looked for afterwards.
//!
//! Moments are drawn by lot, in the middle of sales, of starts and of nothing; the page cache survives, so this proves the order of things and not
//! the disk (`power` does). Invariant: a cycle ends with the agent killed or not, but always judged before the next sale.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::agent::{Agent, Mqtt};
use crate::broker::Broker;
use crate::checkout::Checkout;
use crate::checkout::judge::Look;
use crate::compare::Report;
use crate::hub::Hub;
use crate::postgres::Postgres;
use crate::process::{Process, free_port, tail};
use crate::random::Random;
use crate::wait::rest;

const STORE: &str = "0042";
/// Small segments and frequent checkpoints, so that kills meet them.
const AGENT: &str = "[journal]\nsegment_bytes = \"4MiB\"\ncheckpoint_interval = \"200ms\"\n";
/// For the hub to have everything at the end.
const LIMIT: Duration = Duration::from_mins(5);
/// The longest that tills sell between two kills, ms.
const SELLING_MS_MAX: u64 = 120;
/// The longest that a start is left alone before it is killed, ms.
const OPENING_MS_MAX: u64 = 40;
/// Receipts of each till that are looked at after each kill; all are after every [`WHOLE_EVERY`], and at the end.
const NEWEST: usize = 200;
const WHOLE_EVERY: u64 = 50;
const FAULTS_SHOWN: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often something is killed.
    pub cycles: u64,
    /// What everything by lot is drawn from.
    pub seed: u64,
    /// A real broker and a real database, which are killed too; else the hub's own broker and `SQLite`.
    pub servers: bool,
    /// Where the progress goes.
    pub progress: fn(&str),
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Cycles that were made.
    pub cycles: u64,
    /// SIGKILLs of the agent, and of those, during a start.
    pub agent: (u64, u64),
    /// SIGKILLs of the hub.
    pub hub: u64,
    /// Crashes of broker and database.
    pub servers: u64,
    /// Receipts at the end.
    pub receipts: usize,
    /// Comparisons of a receipt with the agent's answer.
    pub compared: usize,
    /// Receipts that were not true any more.
    pub lost: usize,
    /// The comparison with the hub.
    pub report: Report,
    /// Everything that was not as it should be.
    pub faults: Vec<String>,
}

impl Figures {
    /// Whether nothing was lost, doubled or wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.lost == 0 && self.report.agrees() && self.compared > 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} cycles: the agent killed {} times ({} during a start), the hub {}, broker or database {}.\n\
             {} receipts, compared {} times, lost {}.\n{}",
            self.cycles,
            self.agent.0,
            self.agent.1,
            self.hub,
            self.servers,
            self.receipts,
            self.compared,
            self.lost,
            self.report.text()
        );
        for fault in self.faults.iter().take(FAULTS_SHOWN) {
            writeln!(text, "{fault}").expect("writing into a string");
        }
        if self.faults.len() > FAULTS_SHOWN {
            writeln!(text, "and {} faults more", self.faults.len() - FAULTS_SHOWN).expect("writing into a string");
        }
        text
    }
}

/// What stands below the hub, where it is not the hub's own. Fields are dropped after agent and hub.
struct Servers {
    broker: Broker,
    postgres: Postgres,
}

struct Rig {
    agent: Agent,
    hub: Hub,
    servers: Option<Servers>,
    directory: TempDir,
    checkout: Checkout,
    random: Random,
    figures: Figures,
}

/// Kills again and again.
pub async fn crashes(options: &Options) -> Figures {
    let mut rig = Rig::new(options).await;
    if let Err(fault) = rig.run(options).await {
        let log = std::fs::read_to_string(rig.directory.path().join("agent/agent.log")).unwrap_or_default();
        let fault = format!("cycle {}: {fault}\nThe end of the agent's log:\n{}", rig.figures.cycles, tail(&log));
        rig.figures.faults.push(fault);
    }
    rig.figures
}

impl Rig {
    async fn new(options: &Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let servers = if options.servers {
            Some(Servers { broker: Broker::plain().await, postgres: Postgres::new().await })
        } else {
            None
        };
        let (url, ledger, more) = if let Some(servers) = &servers {
            (servers.broker.url(), servers.postgres.create_database("ledger").await, String::new())
        } else {
            let address = format!("127.0.0.1:{}", free_port());
            let broker = format!("[broker]\nembedded = true\nlisten = \"{address}\"\n");
            (format!("mqtt://{address}"), "sqlite:hub.db".to_owned(), broker)
        };
        let mqtt = Mqtt { url, identity: None };
        let hub = Hub::new(&directory.path().join("hub"), "hub", &mqtt, &ledger, &more);
        let agent = Agent::new(&directory.path().join("agent"), STORE, "box1", &mqtt, AGENT);
        let random = Random::named(options.seed, "crash");
        Self {
            agent,
            hub,
            servers,
            directory,
            checkout: Checkout::new(STORE, 4, 16),
            random,
            figures: Figures::default(),
        }
    }

    async fn run(&mut self, options: &Options) -> Result<(), String> {
        let start = Instant::now();
        self.hub.start();
        self.hub.ready().await;
        for cycle in 1..=options.cycles {
            self.cycle(cycle).await?;
            self.figures.cycles = cycle;
            if cycle.is_multiple_of(10) || cycle == options.cycles {
                (options.progress)(&format!(
                    "{:>7.1} s  cycle {cycle:>5} of {}: agent killed {:>4} times, hub {:>4}; {:>7} receipts, {} lost, {} faults",
                    start.elapsed().as_secs_f32(),
                    options.cycles,
                    self.figures.agent.0,
                    self.figures.hub,
                    self.checkout.told(),
                    self.figures.lost,
                    self.figures.faults.len()
                ));
            }
        }
        self.up().await;
        self.judge(Look::Newest(usize::MAX)).await?;
        self.agent.drained(LIMIT).await;
        let verdict = self.checkout.compare(&self.hub.api()).await?;
        verdict.doubtful().iter().for_each(|line| (options.progress)(line));
        self.figures.faults.extend(verdict.harmful());
        self.figures.report = verdict.report;
        Ok(())
    }

    /// Sales, and something killed in the middle of them.
    async fn cycle(&mut self, cycle: u64) -> Result<(), String> {
        if self.agent.id().is_none() && self.random.one_in(4) {
            self.agent.start();
            rest(Duration::from_millis(self.random.below(OPENING_MS_MAX))).await;
            self.agent.kill();
            self.figures.agent.0 += 1;
            self.figures.agent.1 += 1;
            return Ok(());
        }
        self.up().await;
        let newest = if cycle.is_multiple_of(WHOLE_EVERY) { usize::MAX } else { NEWEST };
        self.judge(Look::Newest(newest)).await?;
        let moment = Duration::from_millis(self.random.below(SELLING_MS_MAX));
        let (kills_agent, kills_hub) = match self.random.below(10) {
            0..=6 => (true, false),
            7 => (true, true),
            _ => (false, true),
        };
        let enough = self.random.below(60);
        let Self { agent, hub, checkout, .. } = self;
        let id = agent.id().ok_or("the agent has no process")?;
        // Where the agent is to die the tills stop when nobody answers, else after some sales.
        let selling = checkout.sell(agent, (!kills_agent).then_some(enough));
        let killing = async {
            rest(moment).await;
            if kills_hub {
                hub.kill();
            }
            if kills_agent {
                crate::process::send(id, rustix::process::Signal::KILL);
            }
        };
        let (faults, ()) = tokio::join!(selling, killing);
        self.figures.hub += u64::from(kills_hub);
        if kills_agent {
            self.agent.kill();
            self.figures.agent.0 += 1;
        }
        if self.random.one_in(25) {
            self.crash_servers().await;
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// Everything up; the hub may still be starting.
    async fn up(&mut self) {
        if self.hub.process().is_none() {
            self.hub.start();
        }
        if self.agent.id().is_none() {
            self.agent.start();
        }
        self.agent.ready().await;
    }

    /// The broker loses what it remembered, or the database does what databases do at a crash.
    async fn crash_servers(&mut self) {
        let Some(Servers { broker, postgres }) = &mut self.servers else { return };
        if self.random.one_in(2) {
            broker.kill();
            broker.wipe();
            broker.start().await;
        } else {
            postgres.crash().await;
            postgres.start().await;
        }
        self.figures.servers += 1;
    }

    async fn judge(&mut self, look: Look) -> Result<(), String> {
        let findings = self.checkout.judge(&self.agent, look).await;
        self.figures.compared += findings.receipts;
        self.figures.lost += findings.lost;
        self.figures.receipts = self.checkout.told();
        let cycle = self.figures.cycles;
        self.figures.faults.extend(findings.faults.iter().map(|fault| format!("after cycle {cycle}: {fault}")));
        if let Some(status) = self.hub.process().and_then(Process::ended) {
            // A hub whose database is away ends, and its supervisor starts it again; so do we.
            self.hub.kill();
            if self.servers.is_none() {
                return Err(format!("the hub ended by itself with {status}"));
            }
        }
        match self.agent.process().and_then(Process::ended) {
            Some(status) => Err(format!("the agent ended by itself with {status}")),
            None => Ok(()),
        }
    }
}
