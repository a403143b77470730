//! The embedded broker of a pilot: rumqttd in threads of its own, MQTT 3.1.1 on loopback, everything in memory.
//!
//! Invariant: nothing depends on what it remembers. It forgets all at a restart, and a subscriber that is slower than its segments
//! loses messages in silence; agents send again whatever the ledger has not acknowledged, so neither loses a record.
//! It has neither TLS nor access rules and therefore listens on loopback only (the configuration refuses anything else).
//!
//! Why rumqttd 0.20 (measured): 15 MB resident with four segments of 1 MB against 495 MB with the sample's, 1,400 batches of 16 KB
//! a second; single-process hubs subscribe plainly, so that its shared subscriptions are not relied upon.

use std::net::{SocketAddr, TcpListener};

use counterfoil_proto::limits::JSON_PUBLISH_BYTES_MAX;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Bytes of a segment of its log; one publish of the greatest length fits.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// Segments per subscription filter. Together they hold an agent's whole window of ordinary batches.
const SEGMENTS: usize = 4;
const CONNECTIONS_MAX: usize = 256;
/// Messages per round for one subscriber.
const OUTGOING_MAX: u64 = 200;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its address cannot be had.
    #[error("The embedded broker cannot listen on {listen}: {why}; stop what listens there, or change broker.listen")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        why: std::io::Error,
    },
}

/// Starts the broker; it ends with the process.
pub fn start(listen: SocketAddr) -> Result<(), BrokerError> {
    // It only logs when it cannot listen, so that is found out before.
    drop(TcpListener::bind(listen).map_err(|why| BrokerError::Listen { listen, why })?);
    let config = config(listen);
    let thread = std::thread::Builder::new().name("broker".to_owned());
    let started = thread.spawn(move || {
        let mut broker = Broker::new(config);
        if let Err(error) = broker.start() {
            tracing::error!(%error, "The embedded broker ended");
        }
    });
    started.map(drop).map_err(|why| BrokerError::Listen { listen, why })
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: JSON_PUBLISH_BYTES_MAX + 1024,
        max_inflight_count: 200,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server =
        ServerSettings { name: "mqtt".to_owned(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: OUTGOING_MAX,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    Config { router, v4: Some(std::iter::once(("mqtt".to_owned(), server)).collect()), ..Config::default() }
}
