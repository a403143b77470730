//! The way up: one session after another with the hub, over whatever connection there is.
//!
//! Invariants: the journal and the hub's word are all that a session starts from; nothing that MQTT or an earlier session
//! remember is trusted. Memory is flat whatever the backlog: at most one batch is read at a time, and the window bounds what is in
//! flight. What to send and when is [`counterfoil_proto::sync::sender`]'s to decide; this module carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_proto::codec::{self, Encoding};
use counterfoil_proto::id::{LaneKey, RecordKey, Seq, SessionId};
use counterfoil_proto::message::{Down, Hello, NackReason, Presence};
use counterfoil_proto::sync::sender::{Command, Sender};
use counterfoil_proto::time::{ClockQuality, Moment, WallTime};
use counterfoil_proto::topic::{Topics, Up};
use counterfoil_telemetry::follow;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::agent::AgentHandle;
use crate::answer::{CertificateStatus, UplinkStatus};
use crate::config::Config;
use crate::env::{Env, EnvError};
use crate::identity::{self, Alarms};
use crate::journal::Reader;

pub mod backoff;
pub mod mqtt;
pub mod packer;

use mqtt::{Connection, Event, LinkError, Will};
use packer::{PackError, Packed, Packer, heads};

/// An absence of the hub, in milliseconds, that is worth a record.
const OUTAGE_MS_MIN: u64 = 60_000;

/// How long a session waits for the hub's answer, in milliseconds, before head office is asked whether it knows this box still: a broker may take our
/// messages and drop them.
const DOUBT_MS: u64 = 20_000;

/// How the uplink is, for status, receipts and reclaim.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// For `GET /v1/status`.
    pub status: UplinkStatus,
    /// The last number sent per lane, in this session.
    pub sent: BTreeMap<LaneKey, Seq>,
    /// How the certificate is; [`crate::identity::renewal`] says it.
    pub certificate: Option<CertificateStatus>,
}

/// What ties the uplink to the box's identity.
#[derive(Debug)]
pub struct Ties {
    /// What a person hears of it.
    pub alarms: Alarms,
    /// Counts certificates: each is used at once.
    pub renewed: watch::Receiver<u64>,
    /// Told when the broker keeps this box out.
    pub doubted: Arc<Notify>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(
        "The hub takes nothing from this box: its identity was revoked. `counterfoil enroll --again` with a token from head office lets it in"
    )]
    Revoked,
    #[error("The certificate was renewed")]
    Renewed,
    #[error("The agent is stopping")]
    Stopping,
}

/// The uplink, driven by [`Uplink::run`].
#[derive(Debug)]
pub struct Uplink {
    env: Env,
    config: Config,
    agent: AgentHandle,
    packer: Option<Packer>,
    news: Reader,
    view: watch::Sender<Arc<View>>,
    status: UplinkStatus,
    topics: Topics,
    /// Sessions in a row in which the hub said nothing.
    silent_sessions: u32,
    /// Sessions in a row that sent batches of which none was committed.
    fruitless_sessions: u32,
    heard: Option<(WallTime, Moment)>,
    ties: Ties,
}

impl Uplink {
    /// An uplink that reads with `reader`, asks and tells `agent`, and publishes how it is on `view`.
    pub fn new(
        config: Config,
        env: Env,
        agent: AgentHandle,
        reader: Reader,
        view: watch::Sender<Arc<View>>,
        ties: Ties,
    ) -> Self {
        let topics = Topics::new(&config.mqtt.topic_prefix, &config.source);
        Self {
            env,
            agent,
            news: reader.clone(),
            packer: Packer::new(reader).map(|packer| match config.encoding {
                Encoding::Postcard => packer,
                Encoding::Json => packer.in_json(config.source.clone()),
            }),
            view,
            status: UplinkStatus::default(),
            topics,
            silent_sessions: 0,
            fruitless_sessions: 0,
            heard: None,
            ties,
            config,
        }
    }

    /// Session after session, until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let end = self.session(&mut stop).await;
            self.status.connected = false;
            self.status.welcomed = false;
            let Err(reason) = end else { continue };
            match &reason {
                End::Stopping => break,
                End::Renewed => {
                    info!("connecting anew with the renewed certificate");
                    continue;
                }
                End::Revoked => {
                    self.status.revoked = true;
                    self.ties.alarms.revoked().await;
                }
                End::Link(error) if error.keeps_out() => self.ties.doubted.notify_one(),
                End::Link(_) | End::Pack(_) | End::Codec(_) | End::Env(_) => {}
            }
            let text = crate::error::chain(&reason);
            self.silent_sessions = self.silent_sessions.saturating_add(1);
            self.status.attempts = u64::from(self.silent_sessions);
            self.status.last_error = Some(text.clone());
            self.publish_view(None);
            let draw = self.env.random_bytes().map_or(0, u64::from_le_bytes);
            let wait_ms_max = u64::try_from(self.config.mqtt.backoff_max.as_millis()).unwrap_or(u64::MAX);
            let wait_ms = backoff::wait_ms(self.silent_sessions, wait_ms_max, draw);
            info!(reason = %text, wait_ms, "uplink down");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                Ok(()) = self.ties.renewed.changed() => {}
                _ = stop.changed() => {}
            }
        }
        self.publish_view(None);
    }

    async fn session(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
        let session = SessionId(self.env.random_bytes()?);
        let will = Will { topic: self.topics.up(Up::State), payload: self.presence("offline", session) };
        let client_id = self.config.source.to_string();
        self.ties.renewed.mark_unchanged();
        let files = self.config.mqtt.tls.as_ref().and_then(|files| files.identity.as_ref());
        let clock = identity::clock(&self.env, files);
        let mut connection = Connection::open(&self.config.mqtt, clock, &client_id, self.topics.down_ack(), will)?;
        tokio::select! {
            event = connection.events.recv() => match event {
                Some(Event::Ready) => {}
                Some(Event::Lost(error)) => return Err(error.into()),
                Some(Event::Message(_)) | None => return Err(LinkError::Subscription.into()),
            },
            _ = stop.changed() => return Err(End::Stopping),
        }
        self.status.connected = true;
        self.status.contested_lanes = 0;
        self.status.connections = self.status.connections.saturating_add(1);
        info!(%session, "connected to the broker");
        connection.publish(&self.topics.up(Up::State), self.presence("online", session), true).await?;
        let seed = u64::from_le_bytes(self.env.random_bytes()?);
        let mut sender =
            Sender::new(session, crate::SOFTWARE.to_owned(), seed, self.fruitless_sessions, self.env.moment());
        sender.handle_heads(heads(self.news.lanes()), self.env.moment());
        let before = self.status.clone();
        let end = self.converse(&mut sender, &mut connection, &before, stop).await;
        self.count(&sender, &before);
        match end {
            Err(End::Stopping) => {
                let offline = self.presence("offline", session);
                if connection.publish(&self.topics.up(Up::State), offline, true).await.is_ok() {
                    connection.close().await;
                }
            }
            // Without a goodbye the broker would say that this box is offline.
            Err(End::Renewed) => connection.close().await,
            Ok(()) | Err(_) => {}
        }
        end
    }

    async fn converse(
        &mut self,
        sender: &mut Sender,
        connection: &mut Connection,
        before: &UplinkStatus,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), End> {
        let begun = self.env.moment();
        loop {
            while let Some(command) = sender.next_command(self.env.moment()) {
                self.carry_out(sender, connection, command).await?;
                while let Ok(event) = connection.events.try_recv() {
                    self.take(sender, event).await?;
                }
            }
            self.count(sender, before);
            self.publish_view(Some(sender));
            if !sender.is_welcomed() && self.env.moment().since_ms(begun) >= DOUBT_MS {
                self.ties.doubted.notify_one();
            }
            let wait_ms = sender.poll_timeout().since_ms(self.env.moment());
            tokio::select! {
                event = connection.events.recv() => match event {
                    Some(event) => self.take(sender, event).await?,
                    None => return Err(LinkError::Line("the connection ended".to_owned()).into()),
                },
                changed = self.news.changed() => {
                    changed.map_err(|_| End::Stopping)?;
                    sender.handle_heads(heads(self.news.lanes()), self.env.moment());
                }
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => sender.handle_timeout(self.env.moment()),
                Ok(()) = self.ties.renewed.changed() => return Err(End::Renewed),
                _ = stop.changed() => return Err(End::Stopping),
            }
        }
    }

    async fn take(&mut self, sender: &mut Sender, event: Event) -> Result<(), End> {
        match event {
            Event::Ready => Ok(()),
            Event::Lost(error) => Err(error.into()),
            Event::Message(bytes) => {
                match codec::read::<Down>(&bytes) {
                    Ok(Down::Nack(nack)) if nack.reason == NackReason::Revoked => {
                        // A word to an earlier session is none to this one: the box may have been enrolled again since.
                        return if nack.session == sender.session() { Err(End::Revoked) } else { Ok(()) };
                    }
                    Ok(down) => {
                        debug!(?down, "heard");
                        sender.handle_down(down, self.env.moment());
                        self.heard_something(sender.is_welcomed()).await;
                    }
                    Err(error) => warn!(%error, bytes = bytes.len(), "a message of the hub was not understood"),
                }
                self.tell_marks(sender).await;
                Ok(())
            }
        }
    }

    async fn heard_something(&mut self, welcomed: bool) {
        let (wall, now) = (self.env.wall(), self.env.moment());
        if welcomed && !self.status.welcomed {
            info!("the hub answered");
            self.status.revoked = false;
            self.ties.alarms.welcome();
            if let Some((from, since)) = self.heard.filter(|(_, since)| now.since_ms(*since) >= OUTAGE_MS_MIN) {
                self.agent.outage(from, wall, now.since_ms(since)).await;
            }
        }
        self.status.welcomed = welcomed;
        self.heard = Some((wall, now));
        self.silent_sessions = 0;
        self.status.attempts = 0;
        self.status.last_word_at = Some(wall.to_rfc3339());
    }

    async fn carry_out(&mut self, sender: &mut Sender, connection: &Connection, command: Command) -> Result<(), End> {
        match command {
            Command::Hello(pages) => {
                for hello in pages {
                    let hello = Hello { wall_time: self.env.wall(), clock: ClockQuality::default(), ..hello };
                    connection
                        .publish(&self.topics.up(Up::Hello), codec::write(&hello, self.config.encoding)?, false)
                        .await?;
                }
            }
            Command::Positions => self.send_positions(sender.session(), connection).await?,
            Command::Prove(key) => {
                let chain = self.packing(move |packer| packer.chain(key)).await??;
                sender.handle_chain(key, chain, self.env.moment());
                self.tell_marks(sender).await;
            }
            Command::Send { first, records_max, plain } => {
                self.send(sender, connection, first, records_max, plain).await?;
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        sender: &mut Sender,
        connection: &Connection,
        first: RecordKey,
        records_max: usize,
        plain: bool,
    ) -> Result<(), End> {
        let session = sender.session();
        let batch = self.packing(move |packer| packer.pack(session, first, records_max, plain)).await??;
        let key = first.lane_key();
        match batch {
            Packed::Batch { range, bytes, digests, names } => {
                let count = bytes.len();
                let followed = follow::begin("sent", names);
                connection.publish(&self.topics.up(Up::Batch(first.lane)), bytes, false).await?;
                followed.done();
                sender.handle_sent(key, range, count, &digests, self.env.moment());
            }
            Packed::Damaged { segment } => {
                self.agent.damaged(segment).await;
                sender.handle_unreadable(key, self.env.moment());
            }
            Packed::Nothing => {
                sender.handle_unreadable(key, self.env.moment());
                sender.handle_heads(heads(self.news.lanes()), self.env.moment());
            }
        }
        Ok(())
    }

    /// Reading may wait for the disk, and compressing takes a while: not on the runtime's threads.
    async fn packing<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Packer) -> T + Send + 'static,
    ) -> Result<T, End> {
        let Some(mut packer) = self.packer.take() else { return Err(End::Stopping) };
        let task = tokio::task::spawn_blocking(move || {
            let made = work(&mut packer);
            (packer, made)
        });
        let Ok((packer, made)) = task.await else { return Err(End::Stopping) };
        self.packer = Some(packer);
        Ok(made)
    }

    async fn tell_marks(&mut self, sender: &mut Sender) {
        let Some(marks) = sender.take_marks() else { return };
        let progressed = marks.iter().any(|mark| mark.stored > Seq::NONE);
        self.fruitless_sessions = if progressed { 0 } else { self.fruitless_sessions };
        if sender.contested() > self.status.contested_lanes {
            warn!(
                "the hub has other records under this box's numbers: was it copied, or set back? Sending all that is kept again"
            );
        }
        self.status.contested_lanes = sender.contested();
        self.agent.marks(marks).await;
    }

    async fn send_positions(&mut self, session: SessionId, connection: &Connection) -> Result<(), End> {
        let Ok(snapshot) = self.agent.positions().await else { return Ok(()) };
        for positions in packer::positions(session, snapshot) {
            connection
                .publish(&self.topics.up(Up::Positions), codec::write(&positions, self.config.encoding)?, false)
                .await?;
        }
        Ok(())
    }

    fn presence(&self, state: &str, session: SessionId) -> Vec<u8> {
        let live = self.news.lanes().into_iter().find(|view| view.live);
        let presence = Presence {
            state: state.to_owned(),
            session,
            epoch: live.map(|view| view.epoch),
            software: crate::SOFTWARE.to_owned(),
        };
        serde_json::to_vec(&presence).unwrap_or_default()
    }

    fn count(&mut self, sender: &Sender, before: &UplinkStatus) {
        let counters = sender.counters();
        self.status.batches_sent = before.batches_sent.saturating_add(counters.sent);
        self.status.batches_resent = before.batches_resent.saturating_add(counters.resent);
        self.status.bytes_sent = before.bytes_sent.saturating_add(counters.bytes);
    }

    fn publish_view(&self, sender: Option<&Sender>) {
        let sent = sender.map(|sender| {
            let keys = self.news.lanes().into_iter().flat_map(|view| {
                let epoch = view.epoch;
                view.lanes.into_iter().map(move |lane| LaneKey { epoch, lane: lane.lane })
            });
            keys.map(|key| (key, sender.sent(key))).collect()
        });
        self.view.send_modify(|view| {
            let certificate = view.certificate.clone();
            *view = Arc::new(View { status: self.status.clone(), sent: sent.unwrap_or_default(), certificate });
        });
    }
}
