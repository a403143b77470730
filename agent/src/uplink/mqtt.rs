//! One MQTT connection, from connecting to its end: the only file of the agent that names the MQTT library.
//!
//! Invariant: client and event loop live for one connection and are dropped with it, whatever ends it; so the library's own reconnection
//! and its list of pending publishes, which lost records in every trial, never come into play. What is published may be lost:
//! the hub's acknowledgement alone says what arrived. This file does not know what the bytes mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use counterfoil_config::tls::TlsError;
use counterfoil_proto::limits::{JSON_PUBLISH_BYTES_MAX, PUBLISH_BYTES_MAX};
use rumqttc::{
    AsyncClient, ConnectReturnCode, Event as MqttEvent, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet, QoS,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::time_provider::TimeProvider;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::MqttConfig;

/// Publishes that wait in the client; the sender then waits in turn.
const REQUESTS_MAX: usize = 8;

/// `QoS` 1 publishes in flight to the broker.
const INFLIGHT_MAX: u16 = 100;

/// What the hub said and nobody took yet; beyond it messages are dropped, since the hub repeats whatever matters.
const EVENTS_MAX: usize = 256;

/// Seconds without any event, pings included, after which the connection counts as dead.
const WATCHDOG_S: u64 = 90;

/// What happens on a connection.
#[derive(Debug)]
pub enum Event {
    /// Connected and subscribed.
    Ready,
    /// Something arrived on the subscribed topic.
    Message(Bytes),
    /// The connection is over.
    Lost(LinkError),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file of the login cannot be used.
    #[error("Cannot use {}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up from these files.
    #[error("Cannot set up TLS for the broker: {0}")]
    Tls(#[from] TlsError),
    /// The broker said no.
    #[error("The broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    /// The broker does not let us listen.
    #[error("The broker refused the subscription to our own topic; check its access rules")]
    Subscription,
    /// The line broke, or could not be made.
    #[error("The connection to the broker failed: {0}")]
    Line(String),
    /// Nothing was heard for too long.
    #[error("The broker was silent for {WATCHDOG_S} seconds")]
    Silent,
}

impl LinkError {
    /// Whether the broker keeps this very box out, rather than being away.
    pub fn keeps_out(&self) -> bool {
        match self {
            Self::Subscription | Self::Refused(_) => true,
            // The library passes a TLS alert on as text alone.
            Self::Line(why) => why.contains("CertificateRevoked") || why.contains("CertificateExpired"),
            Self::File { .. } | Self::Tls(_) | Self::Silent => false,
        }
    }
}

/// A connection that is being made, or is there.
#[derive(Debug)]
pub struct Connection {
    client: AsyncClient,
    /// What happens on it; ends after [`Event::Lost`].
    pub events: mpsc::Receiver<Event>,
    poll: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

/// A message that the broker publishes for us when the connection breaks.
#[derive(Clone, Debug)]
pub struct Will {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
}

impl Connection {
    /// Starts connecting, with what `clock` says for TLS; [`Event::Ready`] or [`Event::Lost`] tells how it went.
    pub fn open(
        config: &MqttConfig,
        clock: Arc<dyn TimeProvider>,
        client_id: &str,
        subscription: String,
        will: Will,
    ) -> Result<Self, LinkError> {
        let mut options = MqttOptions::new(client_id, &config.host, config.port);
        options.set_clean_session(true);
        options.set_keep_alive(config.keep_alive);
        options.set_inflight(INFLIGHT_MAX);
        // A batch in JSON is the longest that is sent.
        options.set_max_packet_size(PUBLISH_BYTES_MAX + 1024, JSON_PUBLISH_BYTES_MAX + 1024);
        options.set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, true));
        if let Some((username, password_file)) = &config.credentials {
            let password = match password_file {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|error| LinkError::File { path: path.clone(), reason: error.to_string() })?,
                None => String::new(),
            };
            options.set_credentials(username, password.trim_end());
        }
        if let Some(files) = &config.tls {
            let mut tls = files.read()?;
            tls.time_provider = clock;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        }
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(config.connect_timeout.as_secs().max(1));
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        let (into, events) = mpsc::channel(EVENTS_MAX);
        let poll = tokio::spawn(poll(event_loop, client.clone(), subscription, into));
        Ok(Self { client, events, poll })
    }

    /// Publishes with `QoS` 1; waits while the client is full. An error means that the connection is over.
    pub async fn publish(&self, topic: &str, payload: Vec<u8>, retain: bool) -> Result<(), LinkError> {
        self.client
            .publish_bytes(topic, QoS::AtLeastOnce, retain, Bytes::from(payload))
            .await
            .map_err(|error| LinkError::Line(error.to_string()))
    }

    /// Says goodbye and waits until the broker has it, for at most two seconds.
    pub async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            let ended = async { while self.events.recv().await.is_some() {} };
            if tokio::time::timeout(Duration::from_secs(2), ended).await.is_err() {
                tracing::debug!("the broker did not close the connection in time");
            }
        }
    }
}

async fn poll(mut event_loop: EventLoop, client: AsyncClient, subscription: String, into: mpsc::Sender<Event>) {
    let error = loop {
        let event = match tokio::time::timeout(Duration::from_secs(WATCHDOG_S), event_loop.poll()).await {
            Err(_) => break LinkError::Silent,
            Ok(Err(error)) => break line_error(error),
            Ok(Ok(event)) => event,
        };
        match event {
            MqttEvent::Incoming(Packet::ConnAck(_)) => {
                if client.try_subscribe(&subscription, QoS::AtLeastOnce).is_err() {
                    break LinkError::Subscription;
                }
            }
            MqttEvent::Incoming(Packet::SubAck(ack)) => {
                let is_granted = ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
                if !is_granted {
                    break LinkError::Subscription;
                }
                if into.send(Event::Ready).await.is_err() {
                    return;
                }
            }
            MqttEvent::Incoming(Packet::Publish(publish)) => {
                // A full channel drops the message: the hub repeats what matters, and this loop must never wait for the sender.
                if matches!(into.try_send(Event::Message(publish.payload)), Err(mpsc::error::TrySendError::Closed(_))) {
                    return;
                }
            }
            MqttEvent::Outgoing(rumqttc::Outgoing::Disconnect) => return,
            MqttEvent::Incoming(_) | MqttEvent::Outgoing(_) => {}
        }
    };
    // Dropping the receiver is how the other side says that it no longer cares.
    into.send(Event::Lost(error)).await.unwrap_or_default();
}

fn line_error(error: rumqttc::ConnectionError) -> LinkError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's kinds of failure are told apart by their text only"
    )]
    match error {
        rumqttc::ConnectionError::ConnectionRefused(code) => LinkError::Refused(code),
        other => LinkError::Line(other.to_string()),
    }
}
