//! The configuration: what was written (file, then environment over it), and what was checked.
//!
//! Invariant: a [`Config`] is complete and coherent. Every key, its default and its reason stand in [`KEYS`]; what is not in
//! there is refused with file, line and what to write instead. Secrets are in files that the configuration names. Nothing
//! is opened here but the file of tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use counterfoil_proto::topic;
use toml::de::{DeTable, DeValue};

use crate::api::tokens::Tokens;
use crate::ledger::SafeWhen;

/// What variables of the environment begin with that override keys: `COUNTERFOIL__LEDGER__URL` is `ledger.url`.
pub const ENVIRONMENT_PREFIX: &str = "COUNTERFOIL__";

/// A key of the file.
struct Key {
    name: &'static str,
    default: Option<&'static str>,
    /// What it is for; shown where it is missing or wrong.
    reason: &'static str,
}

const fn key(name: &'static str, default: Option<&'static str>, reason: &'static str) -> Key {
    Key { name, default, reason }
}

const KEYS: &[Key] = &[
    key("mqtt.url", None, "the broker: mqtt://host:1883, or mqtts://host:8883 with TLS"),
    key("mqtt.ca_file", None, "PEM file with the certificates that sign the broker's; needed for mqtts"),
    key("mqtt.cert_file", None, "PEM file with this hub's certificate chain"),
    key("mqtt.key_file", None, "PEM file with the key of mqtt.cert_file"),
    key("mqtt.username", None, "for brokers that ask for a password"),
    key("mqtt.password_file", None, "file with the password of mqtt.username"),
    key("mqtt.topic_prefix", Some(topic::DEFAULT_PREFIX), "the head of all topics, the same on agents and hub"),
    key("mqtt.share_group", Some("hub"), "the group in which hub processes share what agents send; 1 to 32 letters, digits, '_' or '-'"),
    key("mqtt.client_id", Some("hub"), "the MQTT client id is this and a random suffix; 1 to 48 letters, digits, '_', '.' or '-'"),
    key("ledger.url", None, "sqlite:hub.db, or postgres://user@host/database"),
    key("ledger.password_file", None, "file with the password for PostgreSQL"),
    key("ledger.ca_file", None, "PEM file with the certificates that sign PostgreSQL's; with it the connection is encrypted and verified"),
    key("ledger.safe", None, "\"stored\": an agent may give a record up as soon as the ledger has it; \"confirmed\": when `counterfoil-hub backup-verified` saw it in a restored backup"),
    key("api.listen", Some("127.0.0.1:7370"), "address and port of the HTTP API"),
    key("api.tokens_file", None, "file with a line `name role token` for each caller; role is read, support or admin"),
    key("api.connections_max", Some("256"), "connections at once, 1 to 10000; more wait"),
    key("broker.embedded", Some("false"), "true runs an MQTT broker inside the hub, for a pilot of a few stores"),
    key("broker.listen", Some("127.0.0.1:1883"), "address and port of the embedded broker"),
    key("log.level", Some("info"), "error, warn, info, debug or trace; or filters such as counterfoil_hub=debug"),
];

/// Keys that were called differently.
const RENAMED: &[(&str, &str)] = &[("mqtt.broker", "mqtt.url"), ("ledger.path", "ledger.url"), ("database.url", "ledger.url")];

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
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
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
    /// Where the embedded broker listens, if there is one.
    pub broker: Option<SocketAddr>,
    /// What goes to stderr.
    pub log_level: String,
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
    pub tls: Option<TlsFiles>,
    /// User name, and the file with the password.
    pub credentials: Option<(String, Option<PathBuf>)>,
    /// What every topic begins with.
    pub topic_prefix: String,
    /// The shared subscription's group; `None` subscribes alone.
    pub share_group: Option<String>,
    /// The head of the client id.
    pub client_id: String,
}

/// PEM files, read anew at each connection.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// What the server's certificate is checked against.
    pub ca_file: PathBuf,
    /// Certificate and key of this hub.
    pub identity: Option<(PathBuf, PathBuf)>,
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
        let mut reading = Reading { file, text: &text, values: BTreeMap::new(), faults: Vec::new() };
        match DeTable::parse(&text) {
            Ok(table) => reading.table("", table.get_ref()),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                reading.faults.push(format!("{}:{line}: {}", file.display(), error.message()));
            }
        }
        for (variable, value) in environment {
            let Some(path) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let name = path.replace("__", ".").to_ascii_lowercase();
            reading.take(&name, value, variable.clone());
        }
        reading.check()
    }
}

/// What `check-config` prints: every key with its value and where it comes from. No secret is among them.
impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

struct Reading<'a> {
    file: &'a Path,
    text: &'a str,
    /// Text and origin of each key.
    values: BTreeMap<&'static str, (String, String)>,
    faults: Vec<String>,
}

impl Reading<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let full = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let origin = format!("{}:{}", self.file.display(), line_of(self.text, name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) if prefix.is_empty() => self.table(&full, inner),
                DeValue::String(text) => self.take(&full, text.to_string(), origin),
                DeValue::Boolean(flag) => self.take(&full, flag.to_string(), origin),
                DeValue::Integer(number) => self.take(&full, number.to_string(), origin),
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                    self.faults.push(format!("{origin}: `{full}` must be text in quotes, true or false, or a whole number"));
                }
            }
        }
    }

    fn take(&mut self, name: &str, value: String, origin: String) {
        if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == name) {
            self.faults.push(format!("{origin}: `{name}` has been renamed to `{new}`; write that instead"));
        } else if let Some(key) = KEYS.iter().find(|key| key.name == name) {
            self.values.insert(key.name, (value, origin));
        } else {
            let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
            let near = KEYS.iter().find(|key| last(key.name) == last(name)).map_or_else(
                || "remove it, or see the sample config/hub.toml".to_owned(),
                |key| format!("did you mean `{}`?", key.name),
            );
            self.faults.push(format!("{origin}: `{name}` is not a key of the hub; {near}"));
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        let written = self.values.get(name).map(|(value, _)| value.as_str());
        written.or_else(|| KEYS.iter().find(|key| key.name == name).and_then(|key| key.default))
    }

    fn fault(&mut self, name: &str, what: &str) {
        let origin = self.values.get(name).map_or_else(|| self.file.display().to_string(), |(_, origin)| origin.clone());
        self.faults.push(format!("{origin}: `{name}` {what}"));
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let found = self.text(name).map(str::to_owned);
        if found.is_none() {
            let reason = KEYS.iter().find(|key| key.name == name).map_or("", |key| key.reason);
            self.fault(name, &format!("is missing; write {reason}"));
        }
        found
    }

    fn parsed<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.required(name)?;
        let found = read(&text);
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

    fn check(mut self) -> Result<Config, ConfigError> {
        let (mqtt, ledger, api) = (self.mqtt(), self.ledger(), self.api());
        let is_embedded = self.parsed("broker.embedded", |text| text.parse::<bool>().ok()).unwrap_or(false);
        let listen = self.parsed("broker.listen", |text| text.parse::<SocketAddr>().ok());
        if is_embedded && cfg!(not(feature = "embedded-broker")) {
            self.fault("broker.embedded", "is true, but this hub was built without a broker; run one, and write false");
        }
        if is_embedded && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            self.fault("broker.listen", "is not a loopback address; the embedded broker has neither TLS nor passwords, so run a broker of its own for other machines");
        }
        let log_level = self.text("log.level").unwrap_or("info").to_owned();
        let shown = self.shown();
        match (mqtt, ledger, api) {
            (Some(mut mqtt), Some(ledger), Some(api)) if self.faults.is_empty() => {
                if is_embedded {
                    // The embedded broker has one hub, and its shared subscriptions are not needed.
                    mqtt.share_group = None;
                }
                Ok(Config { mqtt, ledger, api, broker: listen.filter(|_| is_embedded), log_level, shown })
            }
            _ => Err(ConfigError::Faults(self.faults)),
        }
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
            self.fault("mqtt.ca_file", "is missing; mqtts needs the PEM file with the certificates that sign the broker's");
        }
        if !is_tls && (ca_file.is_some() || cert_file.is_some()) {
            self.fault("mqtt.url", "is mqtt:// although certificates are given; write mqtts://");
        }
        let identity = cert_file.zip(key_file);
        let tls = ca_file.filter(|_| is_tls).map(|ca_file| TlsFiles { ca_file, identity });
        let credentials = self.text("mqtt.username").map(|name| (name.to_owned(), self.path("mqtt.password_file")));
        let (topic_prefix, share_group, client_id) = (topic_prefix?, share_group, client_id?);
        Some(MqttConfig { host, port, tls, credentials, topic_prefix, share_group, client_id })
    }

    fn ledger(&mut self) -> Option<LedgerConfig> {
        let url = self.required("ledger.url")?;
        let safe = self.text("ledger.safe").map(str::to_owned);
        let (password_file, ca_file) = (self.path("ledger.password_file"), self.path("ledger.ca_file"));
        let place = if let Some(path) = url.strip_prefix("sqlite:") {
            Place::Sqlite(self.near(path))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let config = url.parse::<tokio_postgres::Config>();
            if config.is_err() {
                self.fault("ledger.url", "is not a URL that PostgreSQL understands; write postgres://user@host/database");
            }
            let is_in_file = self.values.get("ledger.url").is_some_and(|(_, origin)| !origin.starts_with(ENVIRONMENT_PREFIX));
            if is_in_file && config.is_ok_and(|config| config.get_password().is_some()) {
                self.fault("ledger.url", "has a password in it; put that into a file and write its path to `ledger.password_file`");
            }
            Place::Postgres { url, password_file, ca_file }
        } else {
            self.fault("ledger.url", "cannot be taken; expected: sqlite:hub.db, or postgres://user@host/database");
            return None;
        };
        let safe_when = match (safe.as_deref(), &place) {
            (Some("stored"), _) | (None, Place::Sqlite(_)) => SafeWhen::Stored,
            (Some("confirmed"), _) => SafeWhen::Confirmed,
            (None, Place::Postgres { .. }) => {
                self.fault("ledger.safe", "is missing, and has to be chosen with PostgreSQL: write \"stored\" where losing the database \
                    may lose what agents gave up since the backup, or \"confirmed\" and run `counterfoil-hub backup-verified` after each restore test");
                return None;
            }
            (Some(_), _) => {
                self.fault("ledger.safe", "must be \"stored\" or \"confirmed\"");
                return None;
            }
        };
        Some(LedgerConfig { place, safe_when })
    }

    fn api(&mut self) -> Option<ApiConfig> {
        let listen = self.parsed("api.listen", |text| text.parse::<SocketAddr>().ok());
        let most = self.parsed("api.connections_max", |text| text.parse().ok().filter(|most| (1..=10_000).contains(most)));
        let tokens = match self.path("api.tokens_file").map(|file| Tokens::read(&file)) {
            Some(Ok(tokens)) => Some(tokens),
            Some(Err(why)) => {
                self.fault("api.tokens_file", &why);
                return None;
            }
            None => None,
        };
        let listen = listen?;
        if !listen.ip().is_loopback() && tokens.is_none() {
            self.fault("api.listen", "is not a loopback address, so callers need tokens: write `api.tokens_file`, or listen on 127.0.0.1:7370");
        }
        Some(ApiConfig { listen, tokens, connections_max: most? })
    }

    fn shown(&self) -> String {
        let mut text = format!("# {}\n", self.file.display());
        let mut table = "";
        for key in KEYS {
            let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if of != table {
                table = of;
                text.push_str(&format!("\n[{table}]\n"));
            }
            let line = match (self.values.get(key.name), key.default) {
                (Some((_, origin)), _) if key.name == "ledger.url" && origin.starts_with(ENVIRONMENT_PREFIX) => {
                    format!("{name} = …  # {origin}\n")
                }
                (Some((value, origin)), _) => format!("{name} = {value:?}  # {origin}\n"),
                (None, Some(default)) => format!("{name} = {default:?}  # default\n"),
                (None, None) => format!("# {name} is not set\n"),
            };
            text.push_str(&line);
        }
        text
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
    let is_host = !host.is_empty() && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter));
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
        let config = load(GOOD, &[("COUNTERFOIL__MQTT__URL", "mqtt://[::1]:99"), ("COUNTERFOIL__BROKER__EMBEDDED", "true")]);
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
        refused("[mqtt]\nurl = \"mqtts://b\"\n", &[], "`mqtt.ca_file` is missing");
        refused("[mqtt\n", &[], "/hub.toml:1:");
        refused(GOOD, &[("COUNTERFOIL__LEDGER__URL", "postgres://a@b/c")], "`ledger.safe` is missing, and has to be chosen");
        refused(GOOD, &[("COUNTERFOIL__API__LISTEN", "0.0.0.0:7370")], "callers need tokens");
        refused(GOOD, &[("COUNTERFOIL__BROKER__EMBEDDED", "yes")], "COUNTERFOIL__BROKER__EMBEDDED: `broker.embedded` cannot be taken");
        let secret = "[mqtt]\nurl = \"mqtt://b\"\n[ledger]\nurl = \"postgres://a:secret@b/c\"\nsafe = \"stored\"\n";
        refused(secret, &[], "/hub.toml:4: `ledger.url` has a password in it");
        assert!(!load(secret, &[]).unwrap_err().contains("secret@"));
    }
}
