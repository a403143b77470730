//! The configuration: what was written (file, then environment over it), and what was checked.
//!
//! Invariant: a [`Config`] is complete and coherent. Every key, its default and its reason stand in one table; what is not in
//! there is refused with file, line and what to write instead. Secrets are in files that the configuration names. Nothing
//! is opened here but the file of tokens.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use counterfoil_config::key::{Form, Key, Presence, key};
use counterfoil_config::tls::{ClientFiles, Identity};
use counterfoil_config::written::{Fault, Origin, Schema, Written};
use counterfoil_proto::topic;
use counterfoil_telemetry::log::{LogConfig, Output};
use counterfoil_telemetry::trace;

use crate::api::tokens::{self, Tokens};
use crate::ledger::SafeWhen;
use crate::routing::Routes;

mod authority;
mod routes;

pub use authority::AuthorityConfig;

use Form::{Choice, Count, Duration, Flag, Path as PathForm, Tables, Text, Texts};
use Presence::{Default, Optional, Required};

const KEYS: &[Key] = &[
    key("mqtt.url", Text, Required, "the broker: mqtt://host:1883, or mqtts://host:8883 with TLS"),
    key("mqtt.ca_file", PathForm, Optional, "PEM file with the certificates that sign the broker's; needed for mqtts"),
    key("mqtt.cert_file", PathForm, Optional, "PEM file with this hub's certificate chain"),
    key("mqtt.key_file", PathForm, Optional, "PEM file with the key of mqtt.cert_file"),
    key("mqtt.username", Text, Optional, "for brokers that ask for a password"),
    key("mqtt.password_file", PathForm, Optional, "file with the password of mqtt.username"),
    key(
        "mqtt.topic_prefix",
        Text,
        Default(topic::DEFAULT_PREFIX),
        "the head of all topics, the same on agents and hub",
    ),
    key(
        "mqtt.share_group",
        Text,
        Default("hub"),
        "hub processes of one group share what agents send; 1 to 32 letters, digits, '_' or '-'",
    ),
    key(
        "mqtt.client_id",
        Text,
        Default("hub"),
        "the client id is this and a random suffix; 1 to 48 letters, digits, '_', '.' or '-'",
    ),
    key("ledger.url", Text, Required, "sqlite:hub.db, or postgres://user@host/database"),
    key("ledger.password_file", PathForm, Optional, "file with the password for PostgreSQL"),
    key(
        "ledger.ca_file",
        PathForm,
        Optional,
        "PEM file with the certificates that sign PostgreSQL's; with it the connection is encrypted and verified",
    ),
    key(
        "ledger.safe",
        Choice(&["stored", "confirmed"]),
        Optional,
        "when an agent may give a record up: as soon as it is stored, or when backup-verified saw it in a restored backup",
    ),
    key("api.listen", Text, Default("127.0.0.1:7370"), "address and port of the HTTP API"),
    key("api.cert_file", PathForm, Optional, "PEM file with the API's certificate chain; with it the API speaks TLS"),
    key("api.key_file", PathForm, Optional, "PEM file with the key of api.cert_file"),
    key(
        "api.tokens_file",
        PathForm,
        Optional,
        "file with a line `name role token` for each caller; role is read, support or admin",
    ),
    key(
        "api.allowed_hosts",
        Texts,
        Default(""),
        "names that the hub is called by, beside localhost and its addresses; with tokens and without such names any will do",
    ),
    key(
        "api.connections_max",
        Count { unit: "connections", min: 1, max: 10_000 },
        Default("256"),
        "at once; more wait",
    ),
    key("ca.cert_file", PathForm, Optional, "PEM file with the certificate that signs the agents', and those above it"),
    key("ca.key_file", PathForm, Optional, "PEM file with the key of ca.cert_file"),
    key(
        "ca.certificate_life",
        Duration { min_ms: 5_000, max_ms: 3_660 * 86_400_000 },
        Default("90d"),
        "how long an agent's certificate is valid; it is renewed after two thirds",
    ),
    key(
        "ca.renew_expired_within",
        Duration { min_ms: 0, max_ms: 3_660 * 86_400_000 },
        Default("365d"),
        "how long after its end a certificate still renews itself, for boxes that were offline",
    ),
    key("ca.crl_file", PathForm, Optional, "where the list of revoked certificates is kept for the broker, PEM"),
    key("ca.acl_file", PathForm, Optional, "where the access rules are kept for a Mosquitto broker"),
    key(
        "exceptions.ca_file",
        PathForm,
        Optional,
        "PEM file with the certificates that sign the webhooks'; those of this machine when left out",
    ),
    key(
        "exceptions.timeout",
        Duration { min_ms: 50, max_ms: 60_000 },
        Default("10s"),
        "how long a webhook may take to answer",
    ),
    key(
        "exceptions.retry_min",
        Duration { min_ms: 10, max_ms: 3_600_000 },
        Default("5s"),
        "before a letter is sent a second time; doubled before each further one",
    ),
    key("exceptions.retry_max", Duration { min_ms: 10, max_ms: 86_400_000 }, Default("1h"), "at most"),
    key("exceptions.region", Tables(routes::REGION), Optional, "the stores of a region, for routes"),
    key(
        "exceptions.route",
        Tables(routes::ROUTE),
        Optional,
        "who deals with which exceptions; the first that matches holds",
    ),
    key("broker.embedded", Flag, Default("false"), "runs an MQTT broker inside the hub, for a pilot of a few stores"),
    key("broker.listen", Text, Default("127.0.0.1:1883"), "address and port of the embedded broker; loopback only"),
    key(
        "log.level",
        Choice(&["error", "warn", "info", "debug", "trace"]),
        Default("info"),
        "error, warn, info, debug or trace; documents are never logged",
    ),
    key(
        "log.output",
        Choice(Output::NAMES),
        Default("auto"),
        "auto: systemd's journal, with fields, where that is what stderr leads to, else text on stderr",
    ),
    key(
        "log.lines_max",
        Count { unit: "lines", min: 1, max: 1_000_000 },
        Default("120"),
        "of a minute from one place in the program; more are counted, and told as a number",
    ),
    key(
        "log.otlp_endpoint",
        Text,
        Optional,
        "an OpenTelemetry collector that takes traces by HTTP, http://host:4318; needs a hub built with the feature otlp",
    ),
];

const SCHEMA: Schema = Schema {
    program: "hub",
    sample: "config/hub.toml",
    keys: KEYS,
    renamed: &[("mqtt.broker", "mqtt.url"), ("ledger.path", "ledger.url"), ("database.url", "ledger.url")],
};

/// The configuration cannot be taken (exit 78).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not text.
    #[error("Cannot read the configuration {file}: {why}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// What was written is wrong, one line each.
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
}

/// All of it, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where agents are heard.
    pub mqtt: MqttConfig,
    /// Where records are kept.
    pub ledger: LedgerConfig,
    /// Where people and systems ask.
    pub api: ApiConfig,
    /// The small authority, if this hub is one.
    pub authority: Option<AuthorityConfig>,
    /// Who deals with exceptions.
    pub exceptions: Routes,
    /// Where the embedded broker listens, if there is one.
    pub broker: Option<SocketAddr>,
    /// The log, and traces.
    pub log: LogConfig,
    shown: String,
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
    /// The shared subscription's group; `None` subscribes alone.
    pub share_group: Option<String>,
    /// The head of the client id.
    pub client_id: String,
}

/// `[ledger]`
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Which database.
    pub place: Place,
    /// When a record counts as safe.
    pub safe_when: SafeWhen,
}

/// A database.
#[derive(Clone, Debug)]
pub enum Place {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres {
        /// How to reach it.
        url: String,
        /// The password's file.
        password_file: Option<PathBuf>,
        /// What its certificate is checked against.
        ca_file: Option<PathBuf>,
    },
}

/// `[api]`
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Who may call; `None` where everybody on this machine may.
    pub tokens: Option<Tokens>,
    /// Names that the hub may be called by, beside those of its machine.
    pub allowed_hosts: Vec<String>,
    /// Certificate and key, or `None` for plain HTTP.
    pub tls: Option<Identity>,
    /// Connections at once.
    pub connections_max: usize,
}

impl Config {
    /// Reads and checks the file, with the process's environment over it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Self::load_with(file, variables)
    }

    /// Reads and checks the file, with `environment` over it.
    pub fn load_with(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::File { file: file.to_owned(), why: error.to_string() })?;
        let written = Written::read(file, &text, environment, &SCHEMA).map_err(ConfigError::Faults)?;
        Check { file, written, faults: Vec::new() }.all()
    }
}

/// What `check-config` prints: every key with its value and where it comes from. No secret is among them.
impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

struct Check<'a> {
    file: &'a Path,
    written: Written,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.written.text(name)
    }

    fn fault(&mut self, name: &str, what: &str) {
        let message = format!("`{name}` {what}");
        self.faults.push(Fault { file: self.file.to_owned(), origin: self.written.origin(name), message });
    }

    fn parsed<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let found = read(self.text(name)?);
        if found.is_none() {
            let reason = KEYS.iter().find(|key| key.name == name).map_or("", |key| key.reason);
            self.fault(name, &format!("cannot be taken; expected: {reason}"));
        }
        found
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|path| self.near(path))
    }

    /// Relative paths are relative to the file.
    fn near(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    fn all(mut self) -> Result<Config, ConfigError> {
        let (mqtt, ledger, api, exceptions) = (self.mqtt(), self.ledger(), self.api(), self.routes());
        let authority = self.authority();
        let is_embedded = self.written.flag("broker.embedded");
        let listen = self.parsed("broker.listen", |text| text.parse::<SocketAddr>().ok());
        if is_embedded && cfg!(not(feature = "embedded-broker")) {
            self.fault("broker.embedded", "is true, but this hub was built without a broker; run one, and write false");
        }
        if is_embedded && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            self.fault("broker.listen", "is not a loopback address; the embedded broker has neither TLS nor passwords, so run a broker of its own for other machines");
        }
        let log = self.log();
        let shown = self.shown();
        match (mqtt, ledger, api, exceptions) {
            (Some(mut mqtt), Some(ledger), Some(api), Some(exceptions)) if self.faults.is_empty() => {
                if is_embedded {
                    // The embedded broker has one hub, and its shared subscriptions are not to be relied upon.
                    mqtt.share_group = None;
                }
                let broker = listen.filter(|_| is_embedded);
                Ok(Config { mqtt, ledger, api, authority, exceptions, broker, log, shown })
            }
            _ => Err(ConfigError::Faults(self.faults)),
        }
    }

    fn log(&mut self) -> LogConfig {
        let otlp_endpoint = match self.text("log.otlp_endpoint").map(trace::endpoint) {
            Some(Err(expected)) => {
                self.fault("log.otlp_endpoint", &format!("must be {expected}"));
                None
            }
            found => found.and_then(Result::ok),
        };
        let output = self.text("log.output").and_then(Output::from_name).unwrap_or(Output::Auto);
        let level = self.text("log.level").unwrap_or("info").to_owned();
        LogConfig { level, output, lines_max: self.written.number("log.lines_max"), otlp_endpoint }
    }

    fn mqtt(&mut self) -> Option<MqttConfig> {
        let is_name = |text: &str, length: usize, more: &str| {
            let good = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
            (1..=length).contains(&text.len()) && text.chars().all(good)
        };
        let address = self.parsed("mqtt.url", mqtt_address);
        let topic_prefix = self.parsed("mqtt.topic_prefix", |text| topic::is_prefix(text).then(|| text.to_owned()));
        let share_group = self.parsed("mqtt.share_group", |text| is_name(text, 32, "_-").then(|| text.to_owned()));
        let client_id = self.parsed("mqtt.client_id", |text| is_name(text, 48, "_.-").then(|| text.to_owned()));
        let (ca_file, cert_file, key_file) =
            (self.path("mqtt.ca_file"), self.path("mqtt.cert_file"), self.path("mqtt.key_file"));
        if cert_file.is_some() != key_file.is_some() {
            self.fault("mqtt.cert_file", "and `mqtt.key_file` belong together; write both or none");
        }
        if self.text("mqtt.password_file").is_some() && self.text("mqtt.username").is_none() {
            self.fault("mqtt.password_file", "needs `mqtt.username` beside it");
        }
        let (host, port, is_tls) = address?;
        if is_tls && ca_file.is_none() {
            self.fault(
                "mqtt.ca_file",
                "is missing; mqtts needs the PEM file with the certificates that sign the broker's",
            );
        }
        if !is_tls && (ca_file.is_some() || cert_file.is_some()) {
            self.fault("mqtt.url", "is mqtt:// although certificates are given; write mqtts://");
        }
        let identity = cert_file.zip(key_file).map(|(cert_file, key_file)| Identity { cert_file, key_file });
        let tls = ca_file.filter(|_| is_tls).map(|ca_file| ClientFiles { ca_file, identity });
        let credentials = self.text("mqtt.username").map(|name| (name.to_owned(), self.path("mqtt.password_file")));
        let (topic_prefix, share_group, client_id) = (topic_prefix?, share_group, client_id?);
        Some(MqttConfig { host, port, tls, credentials, topic_prefix, share_group, client_id })
    }

    fn ledger(&mut self) -> Option<LedgerConfig> {
        let url = self.text("ledger.url")?.to_owned();
        let safe = self.text("ledger.safe").map(str::to_owned);
        let (password_file, ca_file) = (self.path("ledger.password_file"), self.path("ledger.ca_file"));
        let place = if let Some(path) = url.strip_prefix("sqlite:") {
            Place::Sqlite(self.near(path))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let config = url.parse::<tokio_postgres::Config>();
            if config.is_err() {
                self.fault(
                    "ledger.url",
                    "is not a URL that PostgreSQL understands; write postgres://user@host/database",
                );
            }
            let is_in_file = matches!(self.written.origin("ledger.url"), Origin::Line(_));
            if is_in_file && config.is_ok_and(|config| config.get_password().is_some()) {
                self.fault(
                    "ledger.url",
                    "has a password in it; put that into a file and write its path to `ledger.password_file`",
                );
            }
            Place::Postgres { url, password_file, ca_file }
        } else {
            self.fault("ledger.url", "cannot be taken; expected: sqlite:hub.db, or postgres://user@host/database");
            return None;
        };
        let safe_when = match (safe.as_deref(), &place) {
            (Some("confirmed"), _) => SafeWhen::Confirmed,
            (Some(_), _) | (None, Place::Sqlite(_)) => SafeWhen::Stored,
            (None, Place::Postgres { .. }) => {
                self.fault("ledger.safe", "is missing, and has to be chosen with PostgreSQL: write \"stored\" where losing the database \
                    may lose what agents gave up since the backup, or \"confirmed\" and run `counterfoil-hub backup-verified` after each restore test");
                return None;
            }
        };
        Some(LedgerConfig { place, safe_when })
    }

    fn api(&mut self) -> Option<ApiConfig> {
        let listen = self.parsed("api.listen", |text| text.parse::<SocketAddr>().ok());
        let connections_max = usize::try_from(self.written.number("api.connections_max")).unwrap_or(usize::MAX);
        let tokens = match self.path("api.tokens_file").map(|file| tokens::read(&file)) {
            Some(Ok(tokens)) => Some(tokens),
            Some(Err(error)) => {
                let why = error.source().map(|why| format!(": {why}")).unwrap_or_default();
                self.fault("api.tokens_file", &format!("cannot be used: {error}{why}"));
                return None;
            }
            None => None,
        };
        let listen = listen?;
        let tls = self.identity("api.cert_file", "api.key_file");
        if !listen.ip().is_loopback() && (tokens.is_none() || tls.is_none()) {
            self.fault("api.listen", "is not a loopback address, so callers need tokens and TLS: write `api.tokens_file`, `api.cert_file` and `api.key_file`, or listen on 127.0.0.1:7370");
        }
        let allowed_hosts = self.written.texts("api.allowed_hosts").to_vec();
        Some(ApiConfig { listen, tokens, allowed_hosts, tls, connections_max })
    }

    /// A password that came with the environment is not shown.
    fn shown(&self) -> String {
        let text = format!("# {}\n{}", self.file.display(), self.written);
        match self.text("ledger.url").filter(|url| url.contains('@')) {
            Some(url) => {
                let place = url.rsplit('@').next().unwrap_or_default();
                text.replace(&format!("{url:?}"), &format!("\"postgres://…@{place}\""))
            }
            None => text,
        }
    }
}

/// Host, port, and whether with TLS.
fn mqtt_address(url: &str) -> Option<(String, u16, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let (is_tls, default_port) = match scheme {
        "mqtt" => (false, 1883),
        "mqtts" => (true, 8883),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        Some(_) | None => (rest, default_port),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host =
        !host.is_empty() && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter));
    is_host.then(|| (host.to_owned(), port, is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hub.toml");
        std::fs::write(&file, text).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load_with(&file, environment)
            .map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
    }

    const GOOD: &str = "[mqtt]\nurl = \"mqtt://127.0.0.1:1883\"\n[ledger]\nurl = \"sqlite:hub.db\"\n";

    #[test]
    fn the_contracts_sample_is_enough_and_paths_are_relative_to_the_file() {
        let config = load(GOOD, &[]).unwrap();
        assert_eq!((config.mqtt.host.as_str(), config.mqtt.port), ("127.0.0.1", 1883));
        let Place::Sqlite(path) = config.ledger.place else { panic!("not SQLite") };
        assert!(path.is_absolute() && path.ends_with("hub.db"));
        assert_eq!((config.ledger.safe_when, config.broker), (SafeWhen::Stored, None));
    }

    #[test]
    fn the_sample_in_config_is_taken() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/hub.toml");
        Config::load_with(&file, []).unwrap();
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config =
            load(GOOD, &[("COUNTERFOIL__MQTT__URL", "mqtt://[::1]:99"), ("COUNTERFOIL__BROKER__EMBEDDED", "true")]);
        let config = config.unwrap();
        assert_eq!((config.mqtt.host.as_str(), config.mqtt.port), ("::1", 99));
        assert!(config.broker.is_some() && config.mqtt.share_group.is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line_and_what_to_write() {
        let refused = |text: &str, environment: &[(&str, &str)], expected: &str| {
            let error = load(text, environment).unwrap_err();
            assert!(error.contains(expected), "{error}\nlacks\n{expected}");
        };
        refused(&format!("{GOOD}pool = 3\n"), &[], "/hub.toml:5: `ledger.pool` is not a key of the hub");
        refused("[mqtt]\nbroker = \"x\"\n", &[], "/hub.toml:2: `mqtt.broker` has been renamed to `mqtt.url`");
        refused(GOOD, &[("COUNTERFOIL__MQTT__URL", "mqtts://b")], "`mqtt.ca_file` is missing");
        refused("[mqtt]\nurl = \"mqtt://b\"\n", &[], "`ledger.url` is missing");
        refused("[mqtt\n", &[], "this is not TOML");
        refused(
            GOOD,
            &[("COUNTERFOIL__LEDGER__URL", "postgres://a@b/c")],
            "`ledger.safe` is missing, and has to be chosen",
        );
        refused(GOOD, &[("COUNTERFOIL__API__LISTEN", "0.0.0.0:7370")], "callers need tokens and TLS");
        refused(GOOD, &[("COUNTERFOIL__API__CERT_FILE", "a")], "`api.cert_file` and `api.key_file` belong together");
        let half =
            "[mqtt]\nurl = \"mqtt://b\"\n[ledger]\nurl = \"sqlite:a\"\n[ca]\ncert_file = \"a\"\nkey_file = \"b\"\n";
        refused(half, &[], "needs `api.cert_file` and `api.key_file`");
        refused(GOOD, &[("COUNTERFOIL__CA__CRL_FILE", "a")], "`ca.crl_file` has no effect without `ca.cert_file`");
        refused(
            GOOD,
            &[("COUNTERFOIL__BROKER__EMBEDDED", "yes")],
            "environment variable COUNTERFOIL__BROKER__EMBEDDED: `broker.embedded` must be true or false",
        );
        let secret = "[mqtt]\nurl = \"mqtt://b\"\n[ledger]\nurl = \"postgres://a:secret@b/c\"\nsafe = \"stored\"\n";
        refused(secret, &[], "/hub.toml:4: `ledger.url` has a password in it");
        assert!(!load(secret, &[]).unwrap_err().contains("secret@"));
    }
}
