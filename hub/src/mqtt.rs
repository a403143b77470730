//! The line to the broker; the only file that names the MQTT library.
//!
//! Invariant: one client and event loop per connection, clean session, and a client id of its own; on any error everything is dropped and
//! built anew with the certificates of the day, after a pause with jitter. What arrives waits in bounded queues: when
//! they are full the connection is not read (so the broker holds back) for as long as keep-alive allows, then messages are dropped, which
//! their senders notice by the missing acknowledgement. Nothing here knows what messages mean.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use counterfoil_config::tls::TlsError;
use counterfoil_proto::codec;
use counterfoil_proto::id::Source;
use counterfoil_proto::limits::JSON_PUBLISH_BYTES_MAX;
use counterfoil_proto::message::Down;
use counterfoil_proto::topic::{self, Topics, Up};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::config::MqttConfig;
use crate::env;

/// Messages that wait for the receiver.
pub const QUEUE_MESSAGES_MAX: usize = 512;
/// KiB of messages that wait or are at work.
pub const QUEUE_KIB_MAX: usize = 64 * 1024;
/// Messages that wait for the connection on the way down; what is above is dropped and said again later.
const OUTLET_MESSAGES_MAX: usize = 4_096;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Without any event, pings included, for this long the connection is given up.
const WATCHDOG: Duration = Duration::from_secs(75);
/// How long a full queue may hold up the connection for one message.
const HOLD_MAX: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT_S: u64 = 15;
const BACKOFF_MS_MIN: u64 = 250;
const BACKOFF_MS_MAX: u64 = 30_000;

/// Something an agent said.
#[derive(Debug)]
pub struct Incoming {
    /// Who.
    pub source: Source,
    /// Where.
    pub up: Up,
    /// What.
    pub payload: Bytes,
    /// Whether the broker had kept it, rather than just received it.
    pub is_retained: bool,
    /// Its share of the bytes that may wait.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("Cannot read the password in {file}: {why}")]
    Password { file: String, why: String },
    #[error("The connection ended: {0}")]
    Connection(#[from] Box<rumqttc::ConnectionError>),
    #[error("The broker was silent for too long")]
    Silent,
    #[error("The broker refused a subscription; allow this client {filters}")]
    Subscription { filters: String },
    #[error("The client's queue is full")]
    Client,
}

/// The way down, which any task may use at any time.
#[derive(Clone, Debug)]
pub struct Outlet {
    way: Way,
    topic_prefix: Arc<str>,
}

#[derive(Clone, Debug)]
enum Way {
    Broker(watch::Receiver<Option<AsyncClient>>),
    Queue(mpsc::UnboundedSender<(Source, Down)>),
}

impl Outlet {
    /// An outlet into a queue, for a hub without a broker: that of a test or of the simulator.
    pub fn queue(queue: mpsc::UnboundedSender<(Source, Down)>) -> Self {
        Self { way: Way::Queue(queue), topic_prefix: topic::DEFAULT_PREFIX.into() }
    }

    /// Says something to an agent if that is possible at once. What is lost is said again, or asked for again.
    pub fn down(&self, source: &Source, message: &Down) -> bool {
        let client = match &self.way {
            Way::Broker(client) => client.borrow().clone(),
            Way::Queue(queue) => return queue.send((source.clone(), message.clone())).is_ok(),
        };
        let (Some(client), Ok(bytes)) = (client, codec::encode(message)) else { return false };
        let topic = Topics::new(&self.topic_prefix, source).down_ack();
        // An ack that is lost is repeated; the rest is worth a confirmation by the broker.
        let qos = if matches!(message, Down::Ack(_)) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        client.try_publish(topic, qos, false, bytes).is_ok()
    }

    /// Whether the broker accepted the subscriptions.
    pub fn is_connected(&self) -> bool {
        match &self.way {
            Way::Broker(client) => client.borrow().is_some(),
            Way::Queue(queue) => !queue.is_closed(),
        }
    }
}

/// The line, before it runs.
#[derive(Debug)]
pub struct Line {
    config: MqttConfig,
    client_id: String,
    filters: Vec<String>,
    incoming: mpsc::Sender<Incoming>,
    room: Arc<Semaphore>,
    client: watch::Sender<Option<AsyncClient>>,
    /// Messages that were dropped because the receiver did not keep up.
    pub dropped: Arc<AtomicU64>,
}

impl Line {
    /// A line, its way up and its way down.
    pub fn new(config: MqttConfig) -> (Self, mpsc::Receiver<Incoming>, Outlet) {
        let (incoming, arrivals) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (client, clients) = watch::channel(None);
        let prefix = &config.topic_prefix;
        let mut filters = match &config.share_group {
            Some(group) => topic::hub_shared_filters(prefix, group).to_vec(),
            None => vec![format!("{prefix}/+/+/up/+")],
        };
        filters.push(topic::hub_state_filter(prefix));
        let outlet = Outlet { way: Way::Broker(clients), topic_prefix: prefix.as_str().into() };
        let client_id = format!("{}-{}", config.client_id, &env::random_id().to_string()[..12]);
        let room = Arc::new(Semaphore::new(QUEUE_KIB_MAX));
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { config, client_id, filters, incoming, room, client, dropped }, arrivals, outlet)
    }

    /// Connects, again and again, until nobody listens any more.
    pub async fn run(self) {
        let mut attempts: u32 = 0;
        while !self.incoming.is_closed() {
            let ended = self.serve(&mut attempts).await;
            self.client.send_replace(None);
            let Err(error) = ended else { return };
            tracing::warn!(%error, host = self.config.host, port = self.config.port, attempts, "The broker is not reachable");
            let pause = BACKOFF_MS_MIN.saturating_mul(1 << attempts.min(7)).min(BACKOFF_MS_MAX);
            attempts = attempts.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(env::jittered(pause)) => {}
                () = self.incoming.closed() => {}
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn serve(&self, attempts: &mut u32) -> Result<(), LineError> {
        let (client, mut events) = AsyncClient::new(self.options()?, OUTLET_MESSAGES_MAX);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        events.set_network_options(network);
        loop {
            let event = tokio::select! {
                event = next(&mut events) => event?,
                () = self.incoming.closed() => return Ok(()),
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filters =
                        self.filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                    client.try_subscribe_many(filters).map_err(|_| LineError::Client)?;
                }
                Event::Incoming(Packet::SubAck(answer)) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(LineError::Subscription { filters: self.filters.join(", ") });
                    }
                    *attempts = 0;
                    tracing::info!(client_id = self.client_id, "Listening to the agents");
                    self.client.send_replace(Some(client.clone()));
                }
                Event::Incoming(Packet::Publish(publish)) => self.deliver(publish).await,
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    }

    async fn deliver(&self, publish: Publish) {
        let Some((source, up)) = topic::parse(&self.config.topic_prefix, &publish.topic) else { return };
        let kib = u32::try_from(publish.payload.len() / 1024).unwrap_or(u32::MAX).saturating_add(1);
        let passed_on = timeout(HOLD_MAX, async {
            let room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok()?;
            let place = self.incoming.reserve().await.ok()?;
            let (payload, is_retained) = (publish.payload, publish.retain);
            place.send(Incoming { source, up, payload, is_retained, room: Some(room) });
            Some(())
        });
        if passed_on.await.ok().flatten().is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn options(&self) -> Result<MqttOptions, LineError> {
        let config = &self.config;
        let mut options = MqttOptions::new(&self.client_id, &config.host, config.port);
        options.set_clean_session(true);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_inflight(200);
        options.set_max_packet_size(JSON_PUBLISH_BYTES_MAX + 1024, JSON_PUBLISH_BYTES_MAX + 1024);
        if let Some((name, file)) = &config.credentials {
            options.set_credentials(name, read_password(file.as_deref())?);
        }
        if let Some(files) = &config.tls {
            let tls = files.read()?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        }
        Ok(options)
    }
}

fn read_password(file: Option<&Path>) -> Result<String, LineError> {
    let Some(file) = file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(file);
    text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| LineError::Password { file: file.display().to_string(), why: error.to_string() })
}

async fn next(events: &mut EventLoop) -> Result<Event, LineError> {
    match timeout(WATCHDOG, events.poll()).await {
        Ok(event) => event.map_err(|error| LineError::Connection(Box::new(error))),
        Err(_) => Err(LineError::Silent),
    }
}
