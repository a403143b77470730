//! The configuration: what was written (file and environment), then what was checked.
//!
//! Invariant: a [`Config`] is complete and coherent; what starts from it finds no value missing, out of range or at odds with another.
//! Defaults, units and ranges stand in [`keys`] alone. Secrets are never in it: it names the files that hold them, and of the
//! tills' tokens it keeps hashes. This module deliberately does not open sockets or journals.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use counterfoil_proto::codec::Encoding;
use counterfoil_proto::id::{AgentId, Source, StoreId};
use counterfoil_proto::record::Context;
use counterfoil_telemetry::log::{LogConfig, Output};
use counterfoil_telemetry::trace;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::ingress::grant::{self, Grant};
use crate::ingress::peers::Allowance;
use crate::legacy::{Profile, Profiles};

pub mod identity;
pub mod keys;

use counterfoil_config::tls::{ClientFiles, Identity, ServerFiles};
use counterfoil_config::tokens::Tokens;
use identity::IdentityConfig;

use counterfoil_config::written::{Fault, Origin, Written};

/// The configuration cannot be taken (exit 78).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not text.
    #[error("Cannot read the configuration {file}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What was written is wrong; one line each.
    #[error("{}", Lines(.0))]
    Faults(Vec<Fault>),
}

struct Lines<'a>(&'a [Fault]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(formatter, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// All of it, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// Store and agent.
    pub source: Source,
    /// Where journal and state live.
    pub data_dir: PathBuf,
    /// What documents are judged by.
    pub store: StoreConfig,
    /// The tills' side.
    pub ingress: IngressConfig,
    /// Files of other systems; `None` where none are taken.
    pub spool: Option<SpoolConfig>,
    /// The hub's side.
    pub mqtt: MqttConfig,
    /// Where the box's certificate is renewed.
    pub identity: IdentityConfig,
    /// How the hub is spoken to; it may answer either way.
    pub encoding: Encoding,
    /// The buffer.
    pub journal: JournalConfig,
    /// The log, and traces.
    pub log: LogConfig,
    written: Written,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where times without a zone resolve.
    pub time_zone: TimeZone,
    /// Until when a sale belongs to the business day before.
    pub day_cutover: civil::Time,
    /// Whether 13-digit numbers are taken for card numbers.
    pub mask_13_digits: bool,
    /// How long prepared goods may lie, where nothing else is said.
    pub pickup_patience: Duration,
    /// How long a till's number may be missing.
    pub sequence_gap_patience: Duration,
}

/// `[ingress]`
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Address and port for the tills.
    pub listen: SocketAddr,
    /// A Unix socket beside it.
    pub unix_socket: Option<PathBuf>,
    /// What TCP is encrypted with; `None` where it is plain.
    pub tls: Option<ServerFiles>,
    /// Who may call; `None` where everybody on this box may, or who has a certificate.
    pub tokens: Option<Tokens<Grant>>,
    /// Host names beside loopback names and the address.
    pub allowed_hosts: Vec<String>,
    /// Connections at once.
    pub connections_max: usize,
    /// Of these, of one address.
    pub peer_connections_max: usize,
    /// What one peer may ask for.
    pub allowance: Allowance,
    /// Bytes of one body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies at work.
    pub bodies_bytes_max: usize,
    /// From the first byte to the end of the headers.
    pub header_timeout: Duration,
    /// For a whole body.
    pub body_timeout: Duration,
    /// Without a request.
    pub idle_timeout: Duration,
    /// For requests at work at a stop.
    pub drain_timeout: Duration,
    /// Requests that wait for the writer.
    pub queue_max: usize,
    /// What documents of other systems are mapped by.
    pub profiles: Profiles,
    /// Certificate files whose expiry metrics tell, by what they are for.
    pub certificates: Vec<(&'static str, PathBuf)>,
}

/// `[spool]`
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Where the files come to.
    pub directory: PathBuf,
    /// How they are read.
    pub profile: Profile,
    /// Between two looks.
    pub poll_interval: Duration,
    /// How long files that were taken in are kept.
    pub retain: Duration,
}

/// `[mqtt]`
#[derive(Clone, Debug)]
pub struct MqttConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, or `None` for a plain connection.
    pub tls: Option<ClientFiles>,
    /// User name, and the file with the password.
    pub credentials: Option<(String, Option<PathBuf>)>,
    /// What every topic begins with.
    pub topic_prefix: String,
    /// How soon a dead line is noticed; whole seconds.
    pub keep_alive: Duration,
    /// TCP, TLS and the broker's acceptance together.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
}

/// `[journal]`
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// One file.
    pub segment_bytes: u64,
    /// All of it.
    pub bytes_max: u64,
    /// How long records stay after they are safe.
    pub retain: Duration,
    /// Bytes above which new records are refused.
    pub high_water_bytes: u64,
    /// Free bytes of the file system below which new records are refused.
    pub free_bytes_min: u64,
    /// Between two checkpoints.
    pub checkpoint_interval: Duration,
    /// The format of new segments.
    pub format_write: u16,
}

impl Config {
    /// Reads and checks the file, with the process's environment over it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Self::load_with(file, environment)
    }

    /// Reads and checks the file, with `environment` over it.
    pub fn load_with(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::File { file: file.to_owned(), source })?;
        Self::of_text(file, &text, environment)
    }

    /// Checks the text of a file, with `environment` over it.
    pub fn of_text(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let written = Written::read(file, text, environment, &keys::SCHEMA).map_err(ConfigError::Faults)?;
        let directory = std::path::absolute(file).ok().and_then(|path| path.parent().map(Path::to_owned));
        let mut check = Check { file, directory: directory.unwrap_or_default(), written: &written, faults: Vec::new() };
        let checked = check.all();
        match (checked, check.faults) {
            (Some(config), faults) if faults.is_empty() => Ok(Self { written, ..config }),
            (_, faults) => Err(ConfigError::Faults(faults)),
        }
    }

    /// What documents are judged by.
    pub fn context(&self) -> Context {
        Context {
            store_id: self.source.store_id.clone(),
            time_zone: self.store.time_zone.clone(),
            day_cutover: self.store.day_cutover,
            mask_13_digits: self.store.mask_13_digits,
        }
    }
}

/// What `check-config` prints: every key with its value and where it comes from. No secret is among them.
impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "# {}", self.file.display())?;
        write!(formatter, "{}", self.written)?;
        if let Some(tokens) = &self.ingress.tokens {
            writeln!(formatter, "\n# Tokens: {}", tokens.names().collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

struct Check<'a> {
    file: &'a Path,
    directory: PathBuf,
    written: &'a Written,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn all(&mut self) -> Option<Config> {
        // Every part is checked before any is missed, so that all faults are reported at once.
        let store_id = self.parse("store_id", StoreId::new);
        let agent_id = self.parse("agent_id", AgentId::new);
        let store = self.store();
        let profiles = self.profiles();
        let spool = self.spool(&profiles);
        let ingress = self.ingress(profiles);
        let mqtt = self.mqtt();
        let identity = self.identity();
        let journal = self.journal();
        Some(Config {
            file: self.file.to_owned(),
            source: Source { store_id: store_id?, agent_id: agent_id? },
            data_dir: self.path("data_dir")?,
            store: store?,
            ingress: ingress?,
            spool,
            mqtt: mqtt?,
            identity,
            encoding: if self.written.text("wire.encoding") == Some("json") {
                Encoding::Json
            } else {
                Encoding::Postcard
            },
            journal,
            log: self.log()?,
            written: Written::default(),
        })
    }

    fn store(&mut self) -> Option<StoreConfig> {
        let time_zone = self.parse("store.time_zone", |name| {
            TimeZone::get(name).map_err(|_| "an IANA time zone, such as \"Europe/Paris\"")
        });
        let day_cutover = self.parse("store.day_cutover", |text| {
            civil::Time::strptime("%H:%M", text).map_err(|_| "a local time, such as \"04:00\"")
        });
        Some(StoreConfig {
            time_zone: time_zone?,
            day_cutover: day_cutover?,
            mask_13_digits: self.written.flag("store.mask_13_digits"),
            pickup_patience: self.duration("store.pickup_patience"),
            sequence_gap_patience: self.duration("store.sequence_gap_patience"),
        })
    }

    fn profiles(&mut self) -> Profiles {
        Profiles::read(self.written.texts("ingest.dialects")).unwrap_or_else(|message| {
            self.fault("ingest.dialects", format!("`ingest.dialects`: {message}"));
            Profiles::default()
        })
    }

    fn spool(&mut self, profiles: &Profiles) -> Option<SpoolConfig> {
        let directory = self.path("spool.directory")?;
        let known = format!("one of {}", profiles.names().join(", "));
        let profile = self.parse("spool.profile", |name| profiles.find(name).ok_or(known))?;
        Some(SpoolConfig {
            directory,
            profile,
            poll_interval: self.duration("spool.poll_interval"),
            retain: self.duration("spool.retain"),
        })
    }

    fn ingress(&mut self, profiles: Profiles) -> Option<IngressConfig> {
        let listen: Option<SocketAddr> = self.parse("ingress.listen", |text| {
            text.parse().map_err(|_| "an address and a port, such as \"127.0.0.1:7360\" or \"[::1]:7360\"")
        });
        let tokens_file = self.path("ingress.tokens_file");
        let tokens = tokens_file.as_ref().and_then(|path| match grant::read(path) {
            Ok(tokens) => Some(tokens),
            Err(error) => {
                self.fault("ingress.tokens_file", crate::error::chain(&error));
                None
            }
        });
        let tls = self.ingress_tls();
        let is_asked = tokens_file.is_some() || self.written.text("ingress.client_ca_file").is_some();
        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            let (is_encrypted, here) = (tls.is_some(), "; write that too, or listen on \"127.0.0.1:7360\"");
            if !is_encrypted {
                let needs =
                    "`ingress.listen` is not loopback and needs TLS: `ingress.cert_file` and `ingress.key_file`";
                self.fault("ingress.listen", format!("{needs}{here}"));
            }
            if !is_asked {
                let needs = "`ingress.listen` is not loopback and needs to know who calls: `ingress.tokens_file` or `ingress.client_ca_file`";
                self.fault("ingress.listen", format!("{needs}{here}"));
            }
        }
        let unix_socket = self.path("ingress.unix_socket");
        if unix_socket.as_ref().is_some_and(|path| path.as_os_str().len() > 107) {
            self.fault("ingress.unix_socket", "the kernel takes at most 107 bytes; write a shorter path".to_owned());
        }
        for host in self.written.texts("ingress.allowed_hosts") {
            if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
                self.fault(
                    "ingress.allowed_hosts",
                    "write host names or addresses, without scheme and path".to_owned(),
                );
            }
        }
        let connections_max = self.count("ingress.connections_max");
        Some(IngressConfig {
            listen: listen?,
            unix_socket,
            tls,
            tokens,
            allowed_hosts: self.written.texts("ingress.allowed_hosts").to_vec(),
            connections_max,
            peer_connections_max: (connections_max * self.count("ingress.peer_connections_percent") / 100).max(1),
            allowance: Allowance {
                per_second: self.number("ingress.peer_requests_per_second"),
                burst: self.number("ingress.peer_burst"),
            },
            body_bytes_max: self.count("ingress.body_bytes_max"),
            bodies_bytes_max: self.count("ingress.bodies_bytes_max"),
            header_timeout: self.duration("ingress.header_timeout"),
            body_timeout: self.duration("ingress.body_timeout"),
            idle_timeout: self.duration("ingress.idle_timeout"),
            drain_timeout: self.duration("ingress.drain_timeout"),
            queue_max: self.count("ingress.queue_max"),
            profiles,
            certificates: [("mqtt", "mqtt.cert_file"), ("ingress", "ingress.cert_file")]
                .into_iter()
                .filter_map(|(of, key)| Some((of, self.path(key)?)))
                .collect(),
        })
    }

    fn ingress_tls(&mut self) -> Option<ServerFiles> {
        let [cert_file, key_file, client_ca_file] =
            ["ingress.cert_file", "ingress.key_file", "ingress.client_ca_file"].map(|name| self.path(name));
        match (cert_file, key_file) {
            (Some(cert_file), Some(key_file)) => {
                Some(ServerFiles { identity: Identity { cert_file, key_file }, client_ca_file })
            }
            (None, None) => {
                if client_ca_file.is_some() {
                    let needs = "asks for certificates, which needs TLS: `ingress.cert_file` and `ingress.key_file`; write those too";
                    self.fault("ingress.client_ca_file", format!("`ingress.client_ca_file` {needs}"));
                }
                None
            }
            (cert_file, _) => {
                let there = if cert_file.is_some() { "ingress.cert_file" } else { "ingress.key_file" };
                self.fault(
                    there,
                    "`ingress.cert_file` and `ingress.key_file` need each other; write both or none".to_owned(),
                );
                None
            }
        }
    }

    fn mqtt(&mut self) -> Option<MqttConfig> {
        let address = self.parse("mqtt.url", read_mqtt_url);
        let [ca_file, cert_file, key_file, password_file] =
            ["mqtt.ca_file", "mqtt.cert_file", "mqtt.key_file", "mqtt.password_file"].map(|name| self.path(name));
        let tls = address.as_ref().is_some_and(|(tls, ..)| *tls);
        if address.is_some() && tls && ca_file.is_none() {
            self.fault("mqtt.url", "mqtts needs `mqtt.ca_file`; write that too".to_owned());
        }
        for (name, path) in [("mqtt.ca_file", &ca_file), ("mqtt.cert_file", &cert_file), ("mqtt.key_file", &key_file)] {
            if address.is_some() && !tls && path.is_some() {
                self.fault(name, "has no effect without TLS; write mqtts:// in `mqtt.url`, or remove it".to_owned());
            }
        }
        if cert_file.is_some() != key_file.is_some() {
            let there = if cert_file.is_some() { "mqtt.cert_file" } else { "mqtt.key_file" };
            self.fault(there, "`mqtt.cert_file` and `mqtt.key_file` need each other; write both or none".to_owned());
        }
        let username = self.written.text("mqtt.username").map(str::to_owned);
        if username.is_none() && password_file.is_some() {
            self.fault("mqtt.password_file", "needs `mqtt.username`; write that too, or remove it".to_owned());
        }
        let topic_prefix = self.parse("mqtt.topic_prefix", |text| {
            let level = |level: &str| {
                !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
            };
            let good = text.len() <= 128 && text.split('/').all(level);
            good.then(|| text.to_owned())
                .ok_or("topic levels of letters, digits, '_', '-' or '.', such as \"counterfoil/v1\"")
        });
        let keep_alive = self.duration("mqtt.keep_alive");
        if keep_alive.subsec_millis() != 0 {
            self.fault("mqtt.keep_alive", "MQTT counts whole seconds; write such as \"30s\"".to_owned());
        }
        let (_, host, port) = address?;
        let tls = match ca_file {
            Some(ca_file) if tls => Some(ClientFiles {
                ca_file,
                identity: cert_file.zip(key_file).map(|(cert_file, key_file)| Identity { cert_file, key_file }),
            }),
            Some(_) | None => None,
        };
        Some(MqttConfig {
            host,
            port,
            tls,
            credentials: username.map(|name| (name, password_file)),
            topic_prefix: topic_prefix?,
            keep_alive,
            connect_timeout: self.duration("mqtt.connect_timeout"),
            backoff_max: self.duration("mqtt.backoff_max"),
        })
    }

    fn journal(&mut self) -> JournalConfig {
        let segment_bytes = self.written.number("journal.segment_bytes");
        let bytes_max = self.written.number("journal.bytes_max");
        // One being written, one being reclaimed, the ballast of one, and room for a record in between.
        if bytes_max / 4 < segment_bytes {
            let message = "must hold at least four segments; raise it, or lower `journal.segment_bytes`";
            self.fault("journal.bytes_max", message.to_owned());
        }
        JournalConfig {
            segment_bytes,
            bytes_max,
            retain: self.duration("journal.retain"),
            high_water_bytes: bytes_max / 100 * self.written.number("journal.high_water_percent"),
            free_bytes_min: self.written.number("journal.free_bytes_min"),
            checkpoint_interval: self.duration("journal.checkpoint_interval"),
            // A number beyond is refused as out of range.
            format_write: u16::try_from(self.written.number("journal.format_write")).unwrap_or_default(),
        }
    }

    fn log(&mut self) -> Option<LogConfig> {
        let otlp_endpoint = self.parse("log.otlp_endpoint", trace::endpoint);
        Some(LogConfig {
            level: self.written.text("log.level")?.to_owned(),
            output: self.written.text("log.output").and_then(Output::from_name)?,
            lines_max: self.written.number("log.lines_max"),
            otlp_endpoint,
        })
    }

    fn parse<T, E: fmt::Display>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match read(self.written.text(name)?) {
            Ok(value) => Some(value),
            Err(expected) => {
                let text = expected.to_string();
                // Names of proto say "store_id must be …" themselves.
                let message = if text.contains(" must be ") { text } else { format!("`{name}` must be {text}") };
                self.fault(name, message);
                None
            }
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.written.text(name).map(|path| self.directory.join(path))
    }

    fn count(&self, name: &str) -> usize {
        usize::try_from(self.written.number(name)).unwrap_or(usize::MAX)
    }

    fn number(&self, name: &str) -> u32 {
        u32::try_from(self.written.number(name)).unwrap_or(u32::MAX)
    }

    fn duration(&self, name: &str) -> Duration {
        Duration::from_millis(self.written.number(name))
    }

    fn fault(&mut self, name: &str, message: String) {
        let origin = self.written.origin(name);
        let message = if message.contains('`') { message } else { format!("`{name}`: {message}") };
        let message =
            if origin == Origin::Default && !message.contains(name) { format!("`{name}`: {message}") } else { message };
        self.faults.push(Fault { file: self.file.to_owned(), origin, message });
    }
}

/// TLS or not, host, port. The message never repeats the text: somebody may have written a password into it.
fn read_mqtt_url(text: &str) -> Result<(bool, String, u16), &'static str> {
    const EXPECTED: &str = "mqtts://host:8883 or mqtt://host:1883, without path";
    let (tls, rest, port) = match text.split_once("://") {
        Some(("mqtt", rest)) => (false, rest, 1_883),
        Some(("mqtts", rest)) => (true, rest, 8_883),
        Some(_) | None => return Err(EXPECTED),
    };
    if rest.contains('@') {
        return Err("without user and password; write `mqtt.username` and `mqtt.password_file`");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed.or_else(|| rest.rsplit_once(':').map(|(host, _)| (host, &rest[host.len()..]))) {
        Some((host, "")) => (host, port),
        Some((host, given)) => {
            let given = given.strip_prefix(':').ok_or(EXPECTED)?;
            (host, given.parse().ok().filter(|port| *port != 0).ok_or(EXPECTED)?)
        }
        None => (rest, port),
    };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (bracketed.is_some() && byte == b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(EXPECTED);
    }
    Ok((tls, host.to_owned(), port))
}

#[cfg(test)]
mod tests;
