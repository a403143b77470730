//! A box in a store: its disk, its clock, and the agent's process on it, with its line to the broker.
//!
//! Invariant: the agent's own code does everything that a box does; here it is only started, driven and killed. What the box suffered
//! is written down in [`Past`], for the checkers to know what may be missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use counterfoil::agent::{self, Ground, Inbox, Owner, Request};
use counterfoil::answer::{Outcome, Refused, Status, UplinkStatus};
use counterfoil::config::Config;
use counterfoil::env::{Env, Script};
use counterfoil::journal::disk::memory::Cut;
use counterfoil::journal::{Disk, JournalConfig, Reader};
use counterfoil::state::Shelf;
use counterfoil::uplink::View;
use counterfoil::uplink::packer::{self, Packed, Packer, heads};
use counterfoil_proto::codec;
use counterfoil_proto::id::{LaneKey, Seq, SessionId, Source};
use counterfoil_proto::message::{Down, Hello, Presence};
use counterfoil_proto::sync::sender::{Command, Sender};
use counterfoil_proto::time::{ClockQuality, Moment, WallTime};
use counterfoil_proto::topic::Up;
use tokio::sync::{oneshot, watch};

use crate::disk::SimDisk;
use crate::random::Random;

/// When the simulation begins, by clocks that are right: 2026-11-24T09:00:00Z.
pub(crate) const BEGINNING: i64 = 1_795_510_800_000;

/// What a box suffered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Past {
    /// What a till was told until then may be lost without a word: the box was set back, or its disk lied and lost power.
    pub(crate) excused_until: u64,
    /// How often bytes or files were damaged: what is lost must be named.
    pub(crate) damages: u32,
    /// The box was set back, copied, or lied to.
    pub(crate) is_odd: bool,
    /// Its last group may have been cut.
    pub(crate) was_cut: bool,
}

/// What an agent says, and when it wants to be asked again.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) messages: Vec<(Up, Vec<u8>)>,
    pub(crate) wake_at: Option<u64>,
    pub(crate) line_ended: bool,
}

/// The process is over: its disk failed it.
#[derive(Clone, Debug)]
pub(crate) struct Died(pub(crate) String);

type Answer = oneshot::Receiver<Result<Vec<Outcome>, Refused>>;

/// A session over the broker.
struct Session {
    connection: u64,
    sender: Sender,
    packer: Packer,
}

/// The agent's process.
pub(crate) struct Process {
    owner: Owner,
    inbox: Inbox,
    view: watch::Sender<Arc<View>>,
    env: Env,
    script: Script,
    pub(crate) reader: Reader,
    pub(crate) waiting: Vec<Request>,
    asked: Vec<(usize, Answer)>,
    session: Option<Session>,
    /// Sessions in a row in which the hub said nothing.
    pub(crate) silent_sessions: u32,
    /// The hub had another's records under numbers of this process's lanes.
    pub(crate) was_contested: bool,
    /// What the hub has of this very box, as far as its sender knows.
    pub(crate) told: BTreeMap<LaneKey, Seq>,
    fruitless_sessions: u32,
    heard: Option<(WallTime, Moment)>,
    status: UplinkStatus,
    /// The first retained number of each lane, as last seen.
    firsts: BTreeMap<LaneKey, Seq>,
    clock: u64,
}

/// A box.
pub(crate) struct StoreBox {
    pub(crate) source: Source,
    pub(crate) config: Config,
    limits: JournalConfig,
    pub(crate) disk: SimDisk,
    pub(crate) shelf: Shelf,
    seed: u64,
    /// Counts its starts; what was meant for an earlier process is not for a later one.
    pub(crate) life: u32,
    pub(crate) process: Option<Process>,
    pub(crate) wall_skew: i64,
    pub(crate) is_cut_off: bool,
    pub(crate) past: Past,
    pub(crate) image: Option<(SimDisk, Shelf)>,
    /// The seed of the next start, where another box shares it.
    pub(crate) next_env: Option<u64>,
    /// When its sender is to be asked next.
    pub(crate) wake_at: Option<u64>,
}

impl StoreBox {
    pub(crate) fn new(seed: u64, store: &str, agent: &str, limits: JournalConfig) -> Self {
        let text = format!(
            "store_id = \"{store}\"\nagent_id = \"{agent}\"\ndata_dir = \"data\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n"
        );
        let config = Config::of_text(Path::new("/sim/agent.toml"), &text, []).expect("a whole configuration");
        Self {
            source: config.source.clone(),
            config,
            limits,
            disk: SimDisk::default(),
            shelf: Shelf::default(),
            seed,
            life: 0,
            process: None,
            wall_skew: 0,
            is_cut_off: false,
            past: Past::default(),
            image: None,
            next_env: None,
            wake_at: None,
        }
    }

    /// A box with a copy of this one's disk.
    pub(crate) fn copy(&self, seed: u64) -> Self {
        Self {
            source: self.source.clone(),
            config: self.config.clone(),
            limits: self.limits,
            disk: self.disk.image(),
            shelf: self.shelf.copy(),
            seed,
            life: 0,
            process: None,
            wall_skew: 0,
            is_cut_off: false,
            past: self.past,
            image: None,
            next_env: None,
            wake_at: None,
        }
    }

    /// The seed of a start: of its random numbers.
    pub(crate) fn env_seed(&self, life: u32) -> u64 {
        Random::new(self.seed, &format!("start {life}")).next()
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, now: u64) -> Result<(), Died> {
        let disk = Arc::new(self.disk.clone());
        self.start_on(now, disk)
    }

    /// The same on a disk of the caller's.
    pub(crate) fn start_on(&mut self, now: u64, disk: Arc<dyn Disk>) -> Result<(), Died> {
        self.life += 1;
        self.wake_at = None;
        let seed = self.next_env.take().unwrap_or_else(|| self.env_seed(self.life));
        let (env, script) = Env::scripted(seed);
        script.advance_ms(now);
        script.set_wall(self.wall(now));
        let (view, views) = watch::channel(Arc::new(View::default()));
        let ground = Ground { disk, limits: self.limits, shelf: Some(self.shelf.clone()) };
        let (_, inbox) = agent::channel(1, Status::default());
        let died = |error: counterfoil::error::ExitError| Died(counterfoil::error::chain(&error));
        let mut owner = Owner::open_on(ground, &self.config, env.clone(), views).map_err(died)?;
        owner.settle(&inbox).map_err(died)?;
        let reader = owner.reader();
        self.process = Some(Process {
            owner,
            inbox,
            view,
            env,
            script,
            reader,
            waiting: Vec::new(),
            asked: Vec::new(),
            session: None,
            silent_sessions: 0,
            was_contested: false,
            told: BTreeMap::new(),
            fruitless_sessions: 0,
            heard: None,
            status: UplinkStatus::default(),
            firsts: BTreeMap::new(),
            clock: now,
        });
        Ok(())
    }

    fn wall(&self, now: u64) -> WallTime {
        WallTime(BEGINNING.saturating_add(i64::try_from(now).unwrap_or(i64::MAX)).saturating_add(self.wall_skew))
    }

    /// Moves the process's clocks.
    pub(crate) fn set_time(&mut self, now: u64) {
        let wall = self.wall(now);
        if let Some(process) = &mut self.process {
            process.script.advance_ms(now - process.clock);
            process.script.set_wall(wall);
            process.clock = now;
        }
    }

    /// The process is gone; the disk's cache stays.
    pub(crate) fn kill(&mut self, now: u64) {
        self.process = None;
        self.disk.medium.kill();
        if self.disk.controller().lost > 0 {
            // What never got to the cache was the end of the log, perhaps, and nobody knows of it.
            self.past.excused_until = now;
        }
    }

    /// The power is gone.
    pub(crate) fn cut(&mut self, now: u64, cut: Cut) {
        self.process = None;
        self.disk.medium.power_cut(cut);
        self.past.was_cut = true;
        let controller = *self.disk.controller();
        if controller.lies + controller.lost > 0 {
            self.past.excused_until = now;
        }
    }

    /// The box stands on another disk.
    pub(crate) fn stand_on(&mut self, now: u64, disk: SimDisk, state: Shelf) {
        self.process = None;
        self.disk = disk;
        self.shelf = state;
        self.past.excused_until = now;
        self.past.is_odd = true;
    }
}

/// A document by its number, and its answer; `None` for a line that was closed without one.
pub(crate) type Answered = (usize, Option<Result<Outcome, Refused>>);

impl Process {
    /// A till's document, under the number that the till knows it by.
    pub(crate) fn submit(&mut self, document: usize, prepared: counterfoil_proto::record::Prepared) {
        let (reply, answer) = oneshot::channel();
        self.waiting.push(Request::Submit { documents: vec![prepared], reply });
        self.asked.push((document, answer));
    }

    /// Serves what waits.
    pub(crate) fn serve(&mut self) -> (Vec<Answered>, Result<(), Died>) {
        let requests = std::mem::take(&mut self.waiting);
        let served = self.round(requests);
        let answers = std::mem::take(&mut self.asked).into_iter().map(|(document, mut answer)| {
            let answer = answer.try_recv().ok().map(|result| result.map(|mut outcomes| outcomes.remove(0)));
            (document, answer)
        });
        (answers.collect(), served)
    }

    fn round(&mut self, requests: Vec<Request>) -> Result<(), Died> {
        self.owner.serve(requests, &self.inbox).map_err(|error| Died(counterfoil::error::chain(&error)))
    }

    /// What was given back since the last look: lanes with the first and the last number.
    pub(crate) fn given_back(&mut self) -> Vec<(LaneKey, Seq, Seq)> {
        let mut given = Vec::new();
        let mut firsts = BTreeMap::new();
        for view in self.reader.lanes() {
            for lane in view.lanes {
                let key = LaneKey { epoch: view.epoch, lane: lane.lane };
                let before = self.firsts.remove(&key).unwrap_or(lane.first);
                if lane.first > before {
                    given.push((key, before, lane.first.previous()));
                }
                firsts.insert(key, lane.first);
            }
        }
        self.firsts = firsts;
        given
    }

    pub(crate) fn connection(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.connection)
    }

    /// The broker accepted the connection.
    pub(crate) fn connected(&mut self, connection: u64, now: Moment) -> Option<Said> {
        let session = SessionId(self.env.random_bytes().ok()?);
        let seed = u64::from_le_bytes(self.env.random_bytes().ok()?);
        let software = counterfoil::SOFTWARE.to_owned();
        let mut sender = Sender::new(session, software.clone(), seed, self.fruitless_sessions, now);
        sender.handle_heads(heads(self.reader.lanes()), now);
        let packer = Packer::new(self.reader.clone())?;
        self.session = Some(Session { connection, sender, packer });
        self.status.connected = true;
        let live = self.reader.lanes().into_iter().find(|view| view.live);
        let presence = Presence { state: "online".to_owned(), session, epoch: live.map(|view| view.epoch), software };
        let presence = serde_json::to_vec(&presence).unwrap_or_default();
        Some(Said { messages: vec![(Up::State, presence)], ..Said::default() })
    }

    /// The connection is over.
    pub(crate) fn disconnected(&mut self) {
        if self.session.take().is_some() {
            self.silent_sessions = self.silent_sessions.saturating_add(1);
        }
        (self.status.connected, self.status.welcomed) = (false, false);
        self.publish_view();
    }

    fn publish_view(&self) {
        let sent = self.session.as_ref().map(|session| {
            let keys = self.reader.lanes().into_iter().flat_map(|view| {
                let epoch = view.epoch;
                view.lanes.into_iter().map(move |lane| LaneKey { epoch, lane: lane.lane })
            });
            keys.map(|key| (key, session.sender.sent(key))).collect()
        });
        self.view.send_replace(Arc::new(View {
            status: self.status.clone(),
            sent: sent.unwrap_or_default(),
            certificate: None,
        }));
    }

    /// Something was appended, damaged or given back.
    pub(crate) fn news(&mut self, now: Moment) {
        if let Some(session) = &mut self.session {
            session.sender.handle_heads(heads(self.reader.lanes()), now);
        }
    }

    /// The hub said something.
    pub(crate) fn heard(&mut self, bytes: &[u8], now: Moment) {
        let Some(session) = &mut self.session else { return };
        let Ok(down) = codec::decode::<Down>(bytes) else { return };
        session.sender.handle_down(down, now);
        let wall = self.env.wall();
        if session.sender.is_welcomed()
            && !self.status.welcomed
            && let Some((from, since)) = self.heard.filter(|(_, since)| now.since_ms(*since) >= 60_000)
        {
            self.waiting.push(Request::Outage { from, until: wall, duration_ms: now.since_ms(since) });
        }
        self.status.welcomed = session.sender.is_welcomed();
        self.heard = Some((wall, now));
        self.silent_sessions = 0;
        self.tell_marks();
    }

    fn tell_marks(&mut self) {
        let Some(marks) = self.session.as_mut().and_then(|session| session.sender.take_marks()) else { return };
        self.told = marks.iter().map(|mark| (mark.key, mark.stored)).collect();
        self.was_contested |= self.session.as_ref().is_some_and(|session| session.sender.contested() > 0);
        let progressed = marks.iter().any(|mark| mark.stored > Seq::NONE);
        self.fruitless_sessions = if progressed { 0 } else { self.fruitless_sessions };
        self.waiting.push(Request::Marks { marks });
    }

    /// Carries out what the sender wants.
    pub(crate) fn pump(&mut self, now: Moment) -> Result<Said, Died> {
        let mut said = Said::default();
        let Some(session) = &mut self.session else { return Ok(said) };
        if session.sender.poll_timeout() <= now {
            session.sender.handle_timeout(now);
        }
        let mut rounds = 0;
        while let Some(command) = self.session.as_mut().and_then(|session| session.sender.next_command(now)) {
            rounds += 1;
            assert!(rounds < 20_000, "the sender has no end of commands");
            self.carry_out(command, now, &mut said)?;
            if said.line_ended {
                return Ok(said);
            }
        }
        self.publish_view();
        let timeout = self.session.as_ref().map(|session| session.sender.poll_timeout().0);
        said.wake_at = timeout.map(|at| at.max(now.0 + 1));
        Ok(said)
    }

    fn carry_out(&mut self, command: Command, now: Moment, said: &mut Said) -> Result<(), Died> {
        let Some(session) = &mut self.session else { return Ok(()) };
        match command {
            Command::Hello(pages) => {
                for hello in pages {
                    let hello = Hello { wall_time: self.env.wall(), clock: ClockQuality::default(), ..hello };
                    said.messages.push((Up::Hello, codec::encode(&hello).expect("a hello fits")));
                }
            }
            Command::Positions => {
                let (reply, mut answer) = oneshot::channel();
                let id = session.sender.session();
                self.round(vec![Request::Positions { reply }])?;
                let Ok(Ok(snapshot)) = answer.try_recv() else { return Ok(()) };
                for positions in packer::positions(id, snapshot) {
                    said.messages.push((Up::Positions, codec::encode(&positions).expect("a part fits")));
                }
            }
            Command::Prove(key) => {
                let Ok(chain) = session.packer.chain(key) else {
                    said.line_ended = true;
                    return Ok(());
                };
                session.sender.handle_chain(key, chain, now);
                self.tell_marks();
            }
            Command::Send { first, records_max, plain } => {
                let (id, key) = (session.sender.session(), first.lane_key());
                match session.packer.pack(id, first, records_max, plain) {
                    Ok(Packed::Batch { range, bytes, digests, .. }) => {
                        session.sender.handle_sent(key, range, bytes.len(), &digests, now);
                        said.messages.push((Up::Batch(first.lane), bytes));
                    }
                    Ok(Packed::Damaged { segment }) => {
                        self.round(vec![Request::Damaged { segment }])?;
                        if let Some(session) = &mut self.session {
                            session.sender.handle_unreadable(key, now);
                            session.sender.handle_heads(heads(self.reader.lanes()), now);
                        }
                    }
                    Ok(Packed::Nothing) => {
                        session.sender.handle_unreadable(key, now);
                        session.sender.handle_heads(heads(self.reader.lanes()), now);
                    }
                    Err(_) => said.line_ended = true,
                }
            }
        }
        Ok(())
    }
}
