//! The cuts: the agent starts, is judged, sells, loses its power; at the end the hub must have it all.
//!
//! The power goes before the *n*-th write or flush of the disk, *n* by lot: in the middle of sales, or while the agent opens what the cut before
//! left. A hub with a broker of its own takes the records in meanwhile, on an honest disk. Invariant: between a cut and the judgement no till
//! speaks with the agent, and a fault names its cut.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Outcome;
use super::drive::Drive;
use super::medium::{Cut, Keep};
use super::place::Place;
use crate::agent::{Agent, Mqtt};
use crate::checkout::judge::Look;
use crate::checkout::{Checkout, verdict};
use crate::compare::Report;
use crate::hub::Hub;
use crate::process::{Process, free_port, send, tail};
use crate::random::Random;
use crate::wait::Deadline;

/// Room for the agent's ballast and some hundred cuts' worth of small segments; only what is written takes memory.
const DISK_BYTES: usize = 640 * 1024 * 1024;
const AGENT: &str = "[journal]\nsegment_bytes = \"4MiB\"\nbytes_max = \"384MiB\"\nfree_bytes_min = \"16MiB\"\ncheckpoint_interval = \"200ms\"\n";
/// Nothing is kept for longer than it must be.
const RECLAIMING: &str = "retain = \"0s\"\n";
const STORE: &str = "0042";
/// For a start, for the operations until a cut, for the hub to have everything.
const LIMIT: Duration = Duration::from_mins(3);
/// As long as there are no more receipts, each is looked at after each cut.
const WHOLE_MAX: usize = 12_000;
/// Later each is looked at after every so many cuts and at the end, and after the others the newest of each till.
const WHOLE_EVERY: u64 = 8;
const NEWEST: usize = 1_000;
/// Faults that are kept.
const FAULTS_MAX: usize = 1_000;
/// Faults that are printed, with the agent's output among them.
const FAULTS_SHOWN: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the power goes.
    pub cuts: u64,
    /// What everything by lot is drawn from.
    pub seed: u64,
    /// The agent gives segments back as soon as the hub has them, and writes into their files again.
    pub reclaiming: bool,
    /// Where the progress goes.
    pub progress: fn(&str),
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Cuts that were made.
    pub cuts: u64,
    /// Of those, while the agent was opening what the one before had left.
    pub while_opening: u64,
    /// Blocks that were not flushed at the cuts.
    pub pending: usize,
    /// Of those, what was there after the cut all the same.
    pub kept: usize,
    /// Cuts after which a receipt was not true any more.
    pub losing: u64,
    /// Receipts that were not true any more.
    pub lost: usize,
    /// Comparisons of a receipt with the agent's answer.
    pub compared: usize,
    /// Starts without a state store.
    pub without_state: u64,
    /// The highest number of a segment that was given back.
    pub given_back: u64,
    /// Receipts at the end.
    pub receipts: usize,
    /// The comparison with the hub.
    pub report: Report,
    /// Codes of the open exceptions at the hub.
    pub named: Vec<String>,
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
            "{} power cuts, {} of them during a start. Of {} blocks that were not flushed {} were left.\n\
             {} receipts, compared {} times; lost after {} cuts: {}. Starts without a state store: {}. Segments given back: {}.\n",
            self.cuts,
            self.while_opening,
            self.pending,
            self.kept,
            self.receipts,
            self.compared,
            self.losing,
            self.lost,
            self.without_state,
            self.given_back
        );
        text.push_str(&self.report.text());
        for fault in self.faults.iter().take(FAULTS_SHOWN) {
            text.push_str(fault);
            text.push('\n');
        }
        if self.faults.len() > FAULTS_SHOWN {
            writeln!(text, "and {} faults more", self.faults.len() - FAULTS_SHOWN).expect("writing into a string");
        }
        text
    }
}

/// Everything of a run. Fields are dropped in this order: who uses the disk, the disk, the place.
struct Rig {
    agent: Agent,
    hub: Hub,
    drive: Drive,
    place: Place,
    checkout: Checkout,
    random: Random,
    /// The last one: what was not flushed, what was kept of it, and how that was chosen.
    cut: Option<(Keep, Cut)>,
    reclaiming: bool,
    figures: Figures,
}

/// Cuts the power again and again.
pub async fn cuts(options: &Options) -> Outcome {
    if let Err(reason) = super::possible().await {
        return Outcome::Skipped(reason);
    }
    let figures = match Rig::new(options).await {
        Err(fault) => Figures { faults: vec![fault], ..Figures::default() },
        Ok(mut rig) => {
            if let Err(fault) = rig.run(options).await {
                let fault = rig.with_evidence(&fault);
                rig.figures.faults.push(fault);
            }
            rig.figures
        }
    };
    Outcome::Ran(figures)
}

/// One cut of a disk that confirms flushes without doing them. A rig that finds no loss here would find none anywhere.
pub async fn lies(options: &Options) -> Outcome {
    if let Err(reason) = super::possible().await {
        return Outcome::Skipped(reason);
    }
    let figures = match Rig::new(options).await {
        Err(fault) => Figures { faults: vec![fault], ..Figures::default() },
        Ok(mut rig) => {
            if let Err(fault) = rig.lie(options).await {
                let fault = rig.with_evidence(&fault);
                rig.figures.faults.push(fault);
            }
            rig.figures
        }
    };
    Outcome::Ran(figures)
}

impl Rig {
    async fn new(options: &Options) -> Result<Self, String> {
        let place = Place::take().await?;
        let drive = Drive::new(&place, DISK_BYTES).await?;
        let data = drive.path().join("data");
        std::fs::create_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        drive.sync().await?;
        // Long sales where segments are to turn often.
        let (more, long_in) = if options.reclaiming { (RECLAIMING, 2) } else { ("", 16) };
        let mqtt = Mqtt { url: format!("mqtt://127.0.0.1:{}", free_port()), identity: None };
        let broker = format!("[broker]\nembedded = true\nlisten = \"{}\"\n", mqtt.url.trim_start_matches("mqtt://"));
        let hub = Hub::new(&place.path().join("hub"), "hub", &mqtt, "sqlite:hub.db", &broker);
        // Configuration and log lie on an honest disk.
        let agent = Agent::new(&place.path().join("agent"), STORE, "box1", &mqtt, &(AGENT.to_owned() + more));
        std::os::unix::fs::symlink(&data, agent.data_dir()).map_err(|error| format!("a link: {error}"))?;
        let checkout = Checkout::new(STORE, 5, long_in);
        let figures = Figures::default();
        let mut rig = Self {
            agent,
            hub,
            drive,
            place,
            checkout,
            random: Random::named(options.seed, "power"),
            cut: None,
            reclaiming: options.reclaiming,
            figures,
        };
        rig.hub.start();
        rig.hub.ready().await;
        Ok(rig)
    }

    async fn run(&mut self, options: &Options) -> Result<(), String> {
        let start = Instant::now();
        for number in 1..=options.cuts {
            let cut = self.life(number).await?;
            self.figures.cuts += 1;
            self.figures.pending += cut.pending;
            self.figures.kept += cut.kept;
            (options.progress)(&format!(
                "{:>7.1} s  cut {number:>4} of {}: {:>5} blocks not flushed, {:>5} left; {:>6} receipts, {} lost, {} faults",
                start.elapsed().as_secs_f32(),
                options.cuts,
                cut.pending,
                cut.kept,
                self.checkout.told(),
                self.figures.lost,
                self.figures.faults.len()
            ));
        }
        self.agent.start();
        if !self.opened().await? {
            return Err("the power went without a cut".to_owned());
        }
        self.judge(options.cuts, true).await?;
        self.compare(options).await
    }

    /// From one start to the next cut.
    async fn life(&mut self, number: u64) -> Result<Cut, String> {
        if number > 1 && self.random.one_in(4) {
            self.drive.arm(self.random.below(25)).await?;
        }
        self.agent.start();
        if self.opened().await? && self.drive.disarm().await? {
            self.judge(number - 1, false).await?;
            if self.random.one_in(3) {
                self.start_without_state().await?;
            }
            if self.reclaiming {
                // What the hub has is given back in the middle of the sales that follow.
                self.agent.drained(LIMIT).await;
            }
            self.drive.arm(1 + self.random.below(250)).await?;
            self.sell().await?;
        } else {
            self.figures.while_opening += 1;
            self.power_off().await?;
        }
        let keep = self.random.pick(&[Keep::None, Keep::Prefix, Keep::Subset]);
        let seed = self.random.next();
        let cut = self.drive.restore(keep, seed).await?;
        self.cut = Some((keep, cut));
        Ok(cut)
    }

    /// Waits until the agent is ready (`true`) or the power is gone (`false`).
    async fn opened(&mut self) -> Result<bool, String> {
        let api = self.agent.api();
        let deadline = Deadline::new(LIMIT);
        loop {
            let ready = tokio::time::timeout(Duration::from_secs(1), api.success("/readyz")).await;
            if self.drive.is_off().await? {
                return Ok(false);
            }
            if ready.is_ok_and(|ready| ready.is_ok()) {
                return Ok(true);
            }
            if let Some(status) = self.agent.process().and_then(Process::ended) {
                return Err(format!("the agent ended with {status} while it opened what the cut had left"));
            }
            if !deadline.rest().await {
                return Err(format!(
                    "Waited {} s in vain for the agent to open what the cut had left",
                    LIMIT.as_secs()
                ));
            }
        }
    }

    /// Sells until the armed cut comes.
    async fn sell(&mut self) -> Result<(), String> {
        let deadline = Deadline::new(LIMIT);
        let Self { checkout, agent, drive, .. } = self;
        let mut faults = Vec::new();
        loop {
            // The tills stop by themselves when the agent is dead; the hand that kills it waits for the disk, not for them.
            let selling = checkout.sell(agent, None);
            tokio::pin!(selling);
            let off = loop {
                tokio::select! {
                    done = &mut selling => {
                        faults.extend(done);
                        break drive.is_off().await?;
                    }
                    () = crate::wait::rest(Duration::from_millis(2)) => {}
                }
                if drive.is_off().await? {
                    let process = agent.id().ok_or("the agent has no process")?;
                    send(process, Signal::KILL);
                    drive.fail().await?;
                    faults.extend(selling.await);
                    break true;
                }
                if !deadline.rest().await {
                    return Err(format!("Waited {} s in vain for the cut in the middle of sales", LIMIT.as_secs()));
                }
            };
            if off {
                break;
            }
            if !faults.is_empty() || !deadline.rest().await {
                return Err(format!("the tills stopped before the power went: {faults:?}"));
            }
        }
        self.power_off().await?;
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// The agent is dead before it can see that the disk fails.
    async fn power_off(&mut self) -> Result<(), String> {
        if let Some(process) = self.agent.id() {
            send(process, Signal::KILL);
        }
        self.drive.fail().await?;
        self.agent.kill();
        Ok(())
    }

    async fn judge(&mut self, cut: u64, is_last: bool) -> Result<(), String> {
        let is_whole = self.checkout.told() < WHOLE_MAX || cut.is_multiple_of(WHOLE_EVERY) || is_last;
        let look = match (self.reclaiming, is_whole) {
            (true, _) => Look::Forgetting,
            (false, true) => Look::Newest(usize::MAX),
            (false, false) => Look::Newest(NEWEST),
        };
        let findings = self.checkout.judge(&self.agent, look).await;
        self.figures.compared += findings.receipts;
        self.figures.lost += findings.lost;
        self.figures.losing += u64::from(findings.lost > 0);
        self.figures.receipts = self.checkout.told();
        if !findings.faults.is_empty() {
            let output = self.output();
            self.figures.faults.push(format!("After cut {cut} ({:?}). {output}", self.cut));
            let faults = findings.faults.iter().map(|fault| format!("after cut {cut}: {fault}"));
            self.figures.faults.extend(faults);
            self.figures.faults.truncate(FAULTS_MAX);
        }
        self.figures.given_back = self.figures.given_back.max(self.first_segment().saturating_sub(1));
        match self.agent.process().and_then(Process::ended) {
            Some(status) => Err(format!("after cut {cut} the agent ended with {status} while it was asked")),
            None => Ok(()),
        }
    }

    /// A second start, without the state store: the same answers.
    async fn start_without_state(&mut self) -> Result<(), String> {
        let before = self.checkout.answers(&self.agent).await?;
        self.agent.kill();
        let state = self.agent.data_dir().join("state");
        std::fs::remove_dir_all(&state).map_err(|error| format!("{}: {error}", state.display()))?;
        self.agent.start();
        if !self.opened().await? {
            return Err("the power went without a cut".to_owned());
        }
        let after = self.checkout.answers(&self.agent).await?;
        let differ = before.iter().zip(&after).filter(|(before, after)| before != after);
        let differ =
            differ.map(|(before, after)| format!("the answer was {before}; without the state store it is {after}"));
        self.figures.faults.extend(differ);
        self.figures.without_state += 1;
        Ok(())
    }

    /// The hub has every receipt once, and nothing to complain of.
    async fn compare(&mut self, options: &Options) -> Result<(), String> {
        self.agent.drained(LIMIT).await;
        let verdict = self.checkout.compare(&self.hub.api()).await?;
        verdict.doubtful().iter().for_each(|line| (options.progress)(line));
        self.figures.faults.extend(verdict.harmful());
        self.figures.named = verdict.named();
        self.figures.report = verdict.report;
        Ok(())
    }

    async fn lie(&mut self, options: &Options) -> Result<(), String> {
        self.agent.start();
        self.opened().await?;
        let mut faults = self.checkout.sell(&self.agent, Some(40)).await;
        self.agent.drained(LIMIT).await;
        (options.progress)("from now on the disk confirms flushes without doing them");
        self.drive.lie().await?;
        faults.extend(self.checkout.sell(&self.agent, Some(80)).await);
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        self.agent.drained(LIMIT).await;
        self.drive.arm(0).await?;
        self.sell().await?;
        let cut = self.drive.restore(Keep::None, 0).await?;
        self.figures = Figures { cuts: 1, pending: cut.pending, kept: cut.kept, ..Figures::default() };
        self.agent.start();
        self.opened().await?;
        self.judge(1, true).await?;
        self.agent.drained(LIMIT).await;
        let deadline = Deadline::new(LIMIT);
        loop {
            self.figures.named = verdict::named(&self.hub.api(), STORE).await?;
            if !self.figures.named.is_empty() || !deadline.rest().await {
                break;
            }
        }
        // The hub had what the box lost, from the box's former life.
        let ledger = verdict::read(&self.hub.api(), self.checkout.told()).await?;
        let missing = self.checkout.stubs().into_keys().filter(|key| !ledger.stubs.contains_key(key)).collect();
        self.figures.report.add("Every sale is in the ledger", self.checkout.told(), missing);
        Ok(())
    }

    fn output(&mut self) -> String {
        let output = self.agent.process().map(|process| process.output()).unwrap_or_default();
        format!("The end of the agent's output:\n{}", tail(&output))
    }

    fn with_evidence(&self, fault: &str) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        format!("After cut {}: {fault}\nThe end of the agent's log:\n{}", self.figures.cuts, tail(&log))
    }

    /// The number of the oldest segment.
    fn first_segment(&self) -> u64 {
        let entries = std::fs::read_dir(self.agent.data_dir().join("journal")).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".seg")?.parse().ok());
        numbers.min().unwrap_or(0)
    }

    fn log(&self) -> PathBuf {
        self.place.path().join("agent/agent.log")
    }
}
