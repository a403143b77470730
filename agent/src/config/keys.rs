//! Every key of the configuration: form, unit, range, default, and why the default is what it is. The one place for that.
//!
//! Invariant: a key that is not here is refused, a default that is not here does not exist, and `config/agent.toml` shows each
//! key with this very default (a test compares). This module deliberately does not know what the keys are used for.

use counterfoil_config::key::Form::{Bytes, Choice, Count, Duration, Flag, Path, Text, Texts};
use counterfoil_config::key::Presence::{Default, Optional, Required};
use counterfoil_config::key::{DAY, GIB, Key, MIB, MINUTE, SECOND, key};
use counterfoil_config::written::Schema;

use crate::journal::limits::FORMAT_VERSION;

/// The agent's configuration, for reading it.
pub const SCHEMA: Schema = Schema { program: "agent", sample: "config/agent.toml", keys: KEYS, renamed: RENAMED };

/// Keys that were renamed: the old name and the new one. An old name is refused with the new one in the message.
pub const RENAMED: &[(&str, &str)] = &[];

/// All keys, in the order in which the sample and `check-config` show them.
pub const KEYS: &[Key] = &[
    key("store_id", Text, Required, "The site; a GLN where there is one. 1 to 32 letters, digits, '_' or '-'"),
    key("agent_id", Text, Required, "This box, unique in the store. 1 to 31 letters, digits, '_' or '-'"),
    key("data_dir", Path, Required, "Where journal and state live; on a disk that keeps what it synced"),
    key("store.time_zone", Text, Default("UTC"), "IANA name; where times without a zone resolve"),
    key(
        "store.day_cutover",
        Text,
        Default("04:00"),
        "Local time until which a sale without a business day belongs to the day before; most stores are closed then",
    ),
    key(
        "store.mask_13_digits",
        Flag,
        Default("false"),
        "Also take 13-digit numbers for card numbers; off, because one random EAN in ten would match",
    ),
    key(
        "store.pickup_patience",
        Duration { min_ms: MINUTE, max_ms: 366 * DAY },
        Default("3d"),
        "How long prepared goods may lie, where the order does not say until when, before somebody is told that nobody collects them",
    ),
    key(
        "store.sequence_gap_patience",
        Duration { min_ms: SECOND, max_ms: 30 * DAY },
        Default("15min"),
        "How long a till's number may be missing before somebody is told; tills send late, not never. At the close of its day it is told at once",
    ),
    key(
        "ingress.listen",
        Text,
        Default("127.0.0.1:7360"),
        "Address and port for the tills; loopback, because another address needs TLS, and tokens or client certificates",
    ),
    key(
        "ingress.cert_file",
        Path,
        Optional,
        "PEM certificate of this box for the tills, with those that lead to a root they know; then TCP is TLS. Renewed files need no restart",
    ),
    key("ingress.key_file", Path, Optional, "PEM key to it"),
    key(
        "ingress.client_ca_file",
        Path,
        Optional,
        "PEM certificates that tills' certificates are checked against; one whose common name is a workstation may post for that, another needs a line in ingress.tokens_file",
    ),
    key(
        "ingress.unix_socket",
        Path,
        Optional,
        "A Unix socket for tills on this box; file permissions (0660) and tokens, where configured, guard it",
    ),
    key(
        "ingress.tokens_file",
        Path,
        Optional,
        "One `name token` per line, tokens of at least 16 characters; every call but /healthz, /readyz and the page then needs `Authorization: Bearer` (or a certificate). Behind it, if wanted, `workstation=3,4` (posts for those tills alone) and `role=read`, `role=post` or `role=support` (settles exceptions); post with workstations, support without. `common-name - …` says the same of a certificate",
    ),
    key(
        "ingress.allowed_hosts",
        Texts,
        Default(""),
        "Host names that tills call this box by, beside loopback names and the address it listens on; keeps web pages from reaching it (DNS rebinding)",
    ),
    key(
        "ingress.connections_max",
        Count { unit: "connections", min: 16, max: 8_192 },
        Default("256"),
        "A till needs one or two; when reached, one that never got a request through makes room, else the longest idle or slowest, else 503. 32 KiB each at most; with TLS 100 KiB",
    ),
    key(
        "ingress.peer_connections_percent",
        Count { unit: "percent of ingress.connections_max", min: 1, max: 100 },
        Default("25"),
        "That one address may have; when reached, its own longest idle or slowest one makes room, else 503. 64 by default: more than the tills of a store behind one server",
    ),
    key(
        "ingress.peer_requests_per_second",
        Count { unit: "requests per second", min: 1, max: 1_000_000 },
        Default("200"),
        "That one peer (the name of its token or certificate, else its address) may go on with; more gets 429 with Retry-After. 25 busy tills behind one server ask 15 times a second. Each 16 KiB of bodies and each connection count as one (with TLS as four): a backlog in large bodies comes at 3 MB/s, some 4,500 sales. The Unix socket has no such limit",
    ),
    key(
        "ingress.peer_burst",
        Count { unit: "requests", min: 10, max: 1_000_000 },
        Default("1000"),
        "That one peer may make at once after a pause: a till's outbox after an outage, or 16 MB of backlog",
    ),
    key(
        "ingress.body_bytes_max",
        Bytes { min: MIB, max: 4 * MIB },
        Default("4MiB"),
        "Of one request; more is refused with 413. The contract names 4 MiB, one document may have 1 MiB",
    ),
    key(
        "ingress.bodies_bytes_max",
        Bytes { min: 4 * MIB, max: GIB },
        Default("16MiB"),
        "Of all requests at work together, so that memory stays flat; when reached, 503 with Retry-After",
    ),
    key(
        "ingress.header_timeout",
        Duration { min_ms: 100, max_ms: MINUTE },
        Default("10s"),
        "From the first byte of a request to the end of its headers; then the connection is closed. Slow Wi-Fi needs under a second",
    ),
    key(
        "ingress.body_timeout",
        Duration { min_ms: 100, max_ms: 5 * MINUTE },
        Default("30s"),
        "For a whole body, at least 1 KiB every 5 s; then 503 and the connection is closed. 4 MiB fit at 140 KB/s",
    ),
    key(
        "ingress.idle_timeout",
        Duration { min_ms: SECOND, max_ms: DAY },
        Default("2min"),
        "Of a connection without a request; longer than the pause between two customers",
    ),
    key(
        "ingress.drain_timeout",
        Duration { min_ms: 0, max_ms: MINUTE },
        Default("5s"),
        "For requests at work when the agent is stopped; a sync takes well under a second",
    ),
    key(
        "ingress.queue_max",
        Count { unit: "requests", min: 1, max: 65_536 },
        Default("1024"),
        "Requests that wait for the writer; when reached, 503 with Retry-After. Some seconds' worth on a slow card",
    ),
    key(
        "ingest.dialects",
        Texts,
        Default(""),
        "POSLog dialects beside ncr-2.1 and poslog-6, each `name = base setting=value`: void=flagged|negative|positive, change=tender|nested, return=negative|positive, tax=included|added, rewards=none|detailed, zone=store|IANA, gross, weight_unit, store",
    ),
    key(
        "spool.directory",
        Path,
        Optional,
        "Files of another system that are put here are taken in and answered beside themselves, in done/ or failed/; on one file system",
    ),
    key(
        "spool.profile",
        Text,
        Default("poslog-6"),
        "How they are read: ncr-2.1, poslog-6, square, shopify, or one of ingest.dialects",
    ),
    key(
        "spool.poll_interval",
        Duration { min_ms: 100, max_ms: 60 * MINUTE },
        Default("5s"),
        "Between two looks; a file is taken when it did not change between two of them, so that one being written is left",
    ),
    key(
        "spool.retain",
        Duration { min_ms: MINUTE, max_ms: 3_660 * DAY },
        Default("30d"),
        "How long files in done/ and their results stay; what is in failed/ waits for a person",
    ),
    key(
        "mqtt.url",
        Text,
        Required,
        "mqtts://host:8883 with TLS, or mqtt://host:1883 without, for a broker on this box",
    ),
    key("mqtt.ca_file", Path, Optional, "PEM certificates that the broker's is checked against; mqtts needs it"),
    key(
        "mqtt.cert_file",
        Path,
        Optional,
        "PEM certificate of this agent, common name `{store_id}.{agent_id}`; read anew at each connection",
    ),
    key("mqtt.key_file", Path, Optional, "PEM key to it; read anew at each connection"),
    key("mqtt.username", Text, Optional, "For brokers without client certificates"),
    key("mqtt.password_file", Path, Optional, "A file that holds the password and nothing else"),
    key(
        "mqtt.topic_prefix",
        Text,
        Default("counterfoil/v1"),
        "What every topic begins with; the hub's must be the same",
    ),
    key(
        "mqtt.keep_alive",
        Duration { min_ms: 5 * SECOND, max_ms: 20 * MINUTE },
        Default("30s"),
        "Whole seconds; how soon a dead line is noticed, against a few bytes of traffic each time",
    ),
    key(
        "mqtt.connect_timeout",
        Duration { min_ms: SECOND, max_ms: 5 * MINUTE },
        Default("15s"),
        "For TCP, TLS and ConnAck together; enough for a satellite line",
    ),
    key(
        "mqtt.backoff_max",
        Duration { min_ms: SECOND, max_ms: 60 * MINUTE },
        Default("1min"),
        "The longest pause between two attempts, before jitter; bounds how long after an outage the first record takes",
    ),
    key(
        "identity.url",
        Text,
        Optional,
        "Where the certificate is renewed: the hub's API, or any EST server (RFC 7030); without it somebody else has to see to it",
    ),
    key(
        "identity.ca_file",
        Path,
        Optional,
        "PEM certificates that the server's is checked against; mqtt.ca_file when left out",
    ),
    key(
        "identity.retry_max",
        Duration { min_ms: SECOND, max_ms: DAY },
        Default("5min"),
        "The longest pause between two attempts, before jitter; it is tried for ever, also when the certificate has expired",
    ),
    key(
        "wire.encoding",
        Choice(&["postcard", "json"]),
        Default("postcard"),
        "How the agent speaks to the hub; json is for hubs that are not written in Rust (config/examples/hub), and some twenty times as many bytes",
    ),
    key(
        "journal.segment_bytes",
        Bytes { min: 4 * MIB, max: 256 * MIB },
        Default("16MiB"),
        "One journal file; the unit of reclaim, and of what an opening has to check",
    ),
    key(
        "journal.bytes_max",
        Bytes { min: 64 * MIB, max: 1024 * GIB },
        Default("4GiB"),
        "The journal with all it needs beside; about ten million sales",
    ),
    key(
        "journal.retain",
        Duration { min_ms: 0, max_ms: 366 * DAY },
        Default("7d"),
        "How long records stay after the hub has them safe: what a restored hub can ask for again, and how far back duplicates are known here",
    ),
    key(
        "journal.high_water_percent",
        Count { unit: "percent of journal.bytes_max", min: 50, max: 99 },
        Default("95"),
        "New records get 507 above it; the rest is for draining, checkpoints and reclaim",
    ),
    key(
        "journal.free_bytes_min",
        Bytes { min: 16 * MIB, max: 1024 * GIB },
        Default("128MiB"),
        "Of the file system; below it new records get 507, so that others on this box are not starved",
    ),
    key(
        "journal.checkpoint_interval",
        Duration { min_ms: 100, max_ms: 60 * MINUTE },
        Default("5s"),
        "Between two checkpoints of the state; bounds the replay at a start, against writes to the card",
    ),
    key(
        "journal.format_write",
        Count { unit: "versions", min: 1, max: FORMAT_VERSION as u64 },
        Default("1"),
        "Format of new journal files. The release before reads 1 as well, so that it can be gone back to with a backlog on board; 2 once nobody will",
    ),
    key(
        "log.level",
        Choice(&["error", "warn", "info", "debug", "trace"]),
        Default("info"),
        "What is told; documents never are",
    ),
    key(
        "log.output",
        Choice(&["auto", "stderr", "journald"]),
        Default("auto"),
        "auto: systemd's journal, with fields, where that is what stderr leads to, else text on stderr",
    ),
    key(
        "log.lines_max",
        Count { unit: "lines", min: 1, max: 1_000_000 },
        Default("120"),
        "Of a minute from one place in the program; more are counted, and told as a number, so that a flood does not fill the card",
    ),
    key(
        "log.otlp_endpoint",
        Text,
        Optional,
        "An OpenTelemetry collector that takes traces by HTTP, http://host:4318; the program must be built with the feature otlp",
    ),
];
