//! What the configuration takes, and what it says about what it does not.

use counterfoil_config::key::{Form, Presence};
use counterfoil_config::written::Schema;

use super::keys::KEYS;
use super::*;

const LEAST: &str =
    "store_id = \"0042\"\nagent_id = \"box1\"\ndata_dir = \"data\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:1883\"\n";

struct Trial(tempfile::TempDir);

impl Trial {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = self.0.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        Config::load_with(&file, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }
    fn refused(&self, text: &str, environment: &[(&str, &str)]) -> String {
        self.load(text, environment).unwrap_err().to_string()
    }
}

#[test]
fn the_least_that_must_be_written_is_enough_and_paths_are_relative_to_the_file() {
    let trial = Trial::new();
    let config = trial.load(LEAST, &[]).unwrap();
    assert_eq!(config.source.to_string(), "0042.box1");
    assert_eq!(config.data_dir, trial.0.path().join("data"));
    assert_eq!(config.ingress.listen.to_string(), "127.0.0.1:7360");
    assert_eq!(config.journal.retain, Duration::from_hours(7 * 24));
    assert_eq!(config.journal.high_water_bytes, (4 << 30) / 100 * 95);
    assert_eq!(config.journal.format_write, crate::journal::limits::FORMAT_WRITE_DEFAULT);
    assert_eq!(config.mqtt.port, 1883);
    assert!(config.mqtt.tls.is_none() && config.ingress.tokens.is_none());
    assert_eq!(config.context().day_cutover, civil::time(4, 0, 0, 0));
}

#[test]
fn the_environment_overrides_any_key_typed_like_the_key() {
    let trial = Trial::new();
    let variables = [
        ("COUNTERFOIL__MQTT__URL", "mqtts://broker.example"),
        ("COUNTERFOIL__MQTT__CA_FILE", "/etc/ca.pem"),
        ("COUNTERFOIL__STORE_ID", "0099"),
        ("COUNTERFOIL__INGRESS__CONNECTIONS_MAX", "64"),
        ("COUNTERFOIL__INGRESS__ALLOWED_HOSTS", "box1.local, 10.0.0.5"),
        ("COUNTERFOIL__JOURNAL__SEGMENT_BYTES", "4MiB"),
        ("PATH", "/bin"),
    ];
    let config = trial.load(LEAST, &variables).unwrap();
    assert_eq!((config.mqtt.host.as_str(), config.mqtt.port), ("broker.example", 8883));
    assert_eq!(config.source.store_id.as_str(), "0099");
    assert_eq!(config.ingress.connections_max, 64);
    assert_eq!(config.ingress.allowed_hosts, ["box1.local", "10.0.0.5"]);
    assert_eq!(config.journal.segment_bytes, 4 << 20);
    let shown = config.to_string();
    assert!(shown.contains("segment_bytes = \"4MiB\"  # COUNTERFOIL__JOURNAL__SEGMENT_BYTES"), "{shown}");
    assert!(shown.contains("agent_id = \"box1\"  # line 2"), "{shown}");
    let message = trial.refused(LEAST, &[("COUNTERFOIL__MQTT__URI", "x"), ("COUNTERFOIL__INGRESS__QUEUE_MAX", "many")]);
    assert_eq!(
        message,
        "environment variable COUNTERFOIL__MQTT__URI: `mqtt.uri` is not a key of the agent; did you mean `mqtt.url`?\n\
         environment variable COUNTERFOIL__INGRESS__QUEUE_MAX: `ingress.queue_max` must be a whole number of requests from 1 to 65536"
    );
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_what_to_write() {
    let trial = Trial::new();
    let file = trial.0.path().join("agent.toml");
    for (text, line, says) in [
        (
            "[ingress]\nlissten = \"x\"\n",
            7,
            "`ingress.lissten` is not a key of the agent; did you mean `ingress.listen`?",
        ),
        ("[uplink]\nkeep_alive = \"30s\"\n", 6, "`uplink` is not a key of the agent; remove it"),
        (
            "[ingress]\nheader_timeout = 10\n",
            7,
            "`ingress.header_timeout` must be a duration with its unit from \"100ms\" to \"1min\"",
        ),
        (
            "[ingress]\nconnections_max = 3\n",
            7,
            "`ingress.connections_max` must be a whole number of connections from 16 to 8192",
        ),
        ("[ingress]\nconnections_max = 0x40\n", 7, "must be a whole number"),
        ("[journal]\nformat_write = 3\n", 7, "`journal.format_write` must be a whole number of versions from 1 to 2"),
        ("[journal]\nretain = \"7 weeks\"\n", 7, "`journal.retain` must be a duration"),
        ("[journal]\nbytes_max = \"64MiB\"\nsegment_bytes = \"32MiB\"\n", 7, "must hold at least four segments"),
        ("[log]\nlevel = \"loud\"\n", 7, "one of \"error\", \"warn\", \"info\", \"debug\", \"trace\""),
        ("[store]\ntime_zone = \"Mars/Base\"\n", 7, "`store.time_zone` must be an IANA time zone"),
        ("[store]\nday_cutover = \"4 o'clock\"\n", 7, "`store.day_cutover` must be a local time"),
        ("[ingress]\nlisten = \"0.0.0.0:7360\"\n", 7, "needs TLS: `ingress.cert_file` and `ingress.key_file`"),
        ("[ingress]\ncert_file = \"c\"\nkey_file = \"k\"\nlisten = \"[::]:7360\"\n", 9, "needs to know who calls"),
        ("[ingress]\ncert_file = \"c\"\n", 7, "need each other"),
        ("[ingress]\nclient_ca_file = \"c\"\n", 7, "needs TLS"),
        ("[ingress]\nlisten = \"localhost\"\n", 7, "`ingress.listen` must be an address and a port"),
        ("[ingress]\ntokens_file = \"none\"\n", 7, "ingress.tokens_file"),
        ("ca_file = \"ca.pem\"\n", 6, "`mqtt.url`"),
        ("password_file = \"secret\"\n", 6, "needs `mqtt.username`"),
        ("topic_prefix = \"a/#\"\n", 6, "`mqtt.topic_prefix` must be topic levels"),
        ("keep_alive = \"5500ms\"\n", 6, "whole seconds"),
        ("[ingress\n", 6, "this is not TOML"),
        ("url = \"twice\"\n", 6, "this is not TOML"),
    ] {
        let message = trial.refused(&format!("{LEAST}{text}"), &[]);
        let place = format!("{}:{line}: ", file.display());
        assert!(message.starts_with(&place) && message.contains(says), "{text:?} gave {message}");
    }
}

#[test]
fn all_faults_come_at_once_and_missing_keys_are_explained() {
    let message = Trial::new().refused("[mqtt]\nkeep_alive = 3\nbogus = 1\n", &[]);
    assert_eq!(message.lines().count(), 2, "{message}");
    let message = Trial::new().refused("[mqtt]\n", &[]);
    assert_eq!(message.lines().count(), 4, "{message}");
    assert!(message.contains("`store_id` is missing; The site"), "{message}");
}

#[test]
fn a_renamed_key_gives_the_new_name() {
    let schema = Schema { renamed: &[("mqtt.broker", "mqtt.url")], ..keys::SCHEMA };
    let faults = Written::read(Path::new("a.toml"), "[mqtt]\nbroker = \"x\"\n", [], &schema).unwrap_err();
    assert_eq!(faults[0].to_string(), "a.toml:2: `mqtt.broker` has been renamed to `mqtt.url`; write that instead");
}

#[test]
fn a_url_with_a_password_is_refused_without_repeating_it() {
    let text = LEAST.replace("127.0.0.1", "me:hunter2@127.0.0.1");
    let message = Trial::new().refused(&text, &[]);
    assert!(message.contains("`mqtt.password_file`") && !message.contains("hunter2"), "{message}");
    for bad in ["127.0.0.1", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h:port", "mqtt://h/path", "mqtt://[::1]x"] {
        assert!(read_mqtt_url(bad).is_err(), "{bad}");
    }
    assert_eq!(read_mqtt_url("mqtts://[::1]:99/"), Ok((true, "::1".to_owned(), 99)));
    assert_eq!(read_mqtt_url("mqtt://[::1]"), Ok((false, "::1".to_owned(), 1883)));
}

#[test]
fn tls_and_tokens_or_certificates_let_the_agent_listen_elsewhere_and_tokens_are_never_shown() {
    let trial = Trial::new();
    std::fs::write(trial.0.path().join("tokens"), "# tills\ntill1 0123456789abcdef0123 workstation=1\n").unwrap();
    let elsewhere = format!("{LEAST}[ingress]\nlisten = \"0.0.0.0:7360\"\n");
    let (tokens, client_ca) = ("tokens_file = \"tokens\"\n", "client_ca_file = \"ca.pem\"\n");
    let tls = "cert_file = \"box.pem\"\nkey_file = \"box.key\"\n";
    for (more, says) in [(tokens, "needs TLS"), (tls, "needs to know who calls")] {
        let message = trial.refused(&format!("{elsewhere}{more}"), &[]);
        assert!(message.contains(says) && message.lines().count() == 1, "{message}");
    }
    let config = trial.load(&format!("{elsewhere}{tls}{tokens}"), &[]).unwrap();
    assert!(config.ingress.tokens.is_some());
    assert!(config.to_string().contains("# Tokens: till1"));
    assert!(!format!("{config} {config:?}").contains("0123456789abcdef0123"));
    let config = trial.load(&format!("{elsewhere}{tls}{client_ca}"), &[]).unwrap();
    let files = config.ingress.tls.unwrap();
    assert_eq!(files.client_ca_file, Some(trial.0.path().join("ca.pem")));
    assert_eq!((config.ingress.connections_max, config.ingress.peer_connections_max), (256, 64));
    // Loopback is left as it was.
    assert!(trial.load(LEAST, &[]).unwrap().ingress.tls.is_none());
}

#[test]
fn the_sample_shows_every_key_with_its_default_and_its_reason() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.toml");
    let text = std::fs::read_to_string(&sample).unwrap();
    Config::load_with(&sample, []).unwrap();
    // What is left to its default stands there as a comment; with the comment signs taken away it must be the default.
    let opened: String = text
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let written = Written::read(&sample, &opened, [], &keys::SCHEMA).unwrap();
    let defaults = Written::read(&sample, LEAST, [], &keys::SCHEMA).unwrap();
    for key in KEYS {
        assert!(matches!(written.origin(key.name), Origin::Line(_)), "{} is not in the sample", key.name);
        let reason = text.lines().any(|line| line.trim_start_matches("# ") == key.reason);
        assert!(reason, "the sample does not say of {}: {}", key.name, key.reason);
        if matches!(key.presence, Presence::Default(_)) {
            let name = key.name;
            assert_eq!(written.text(name), defaults.text(name), "{name}");
            assert_eq!(written.texts(name), defaults.texts(name), "{name}");
            assert_eq!(written.flag(name), defaults.flag(name), "{name}");
            if matches!(key.form, Form::Count { .. } | Form::Bytes { .. } | Form::Duration { .. }) {
                assert_eq!(written.number(name), defaults.number(name), "{name}");
            }
        }
    }
}
