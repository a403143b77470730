//! The log: where lines go, which of them, and how many.
//!
//! Invariant: what comes from outside never forges a line, moves a terminal or fills a card. Documents never come here: our own lines name no
//! contents, and what libraries would tell of a statement or a packet at `debug` is left out whatever the level, since it holds payloads.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

mod journald;
mod limit;

use journald::Journald;
use limit::{Limit, Limited};

/// Lines of a minute from one place in the program, where nothing else is said: two a second are more than anybody reads.
pub const LINES_MAX: u64 = 120;

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To systemd's journal where that is what stderr leads to, else to stderr.
    Auto,
    /// To stderr, as text.
    Stderr,
    /// To systemd's journal, with fields.
    Journald,
}

impl Output {
    /// As configurations write it.
    pub const NAMES: &[&str] = &["auto", "stderr", "journald"];

    /// The output of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "stderr" => Some(Self::Stderr),
            "journald" => Some(Self::Journald),
            _ => None,
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`, of our own lines.
    pub level: String,
    /// Where lines go.
    pub output: Output,
    /// Lines of a minute from one place in the program.
    pub lines_max: u64,
    /// Where traces go, `http://host:4318`; `None` for nowhere.
    pub otlp_endpoint: Option<String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), output: Output::Auto, lines_max: LINES_MAX, otlp_endpoint: None }
    }
}

/// Who tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teller {
    /// `counterfoil` or `counterfoil-hub`.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which of them: store and agent, or the hub's client id.
    pub instance: String,
}

static LIMIT: OnceLock<Arc<Limit>> = OnceLock::new();

/// Sets the log of this process up, once; where a test or an embedding program has one already, that one stays. With an endpoint for traces it
/// has to be called on a tokio runtime. Gives what flushes the traces at the end.
pub fn set_up(config: &LogConfig, teller: &Teller) -> crate::trace::Traces {
    let limit = Arc::new(Limit::new(config.lines_max));
    let filter = || levels(&config.level).and(Limited(Arc::clone(&limit)));
    let wants_journal = match config.output {
        Output::Auto => is_stderr_the_journal(),
        Output::Stderr => false,
        Output::Journald => true,
    };
    let (journal, failed) = match wants_journal.then(|| Journald::open(teller.program)) {
        Some(Ok(journal)) => (Some(journal), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let output: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        Some(journal) => journal.with_filter(filter()).boxed(),
        None => stderr().with_filter(filter()).boxed(),
    };
    let (traces, exported) = crate::trace::open(config.otlp_endpoint.as_deref(), teller);
    if tracing_subscriber::registry().with(output).with(exported).try_init().is_err() {
        tracing::debug!("a log is set up already");
        return traces;
    }
    drop(LIMIT.set(limit));
    if let Some(error) = failed {
        tracing::warn!(%error, "systemd's journal cannot be reached; the log goes to stderr");
    }
    if let Some(why) = traces.failure() {
        tracing::error!(why, "traces cannot be exported");
    }
    traces
}

/// Says how many lines were left out since it was last said; to be called every second or so.
pub fn tell_suppressed() {
    let Some(limit) = LIMIT.get() else { return };
    for (place, suppressed) in limit.take_suppressed() {
        tracing::warn!(target: limit::TARGET, place, suppressed, "more lines of this kind were left out");
    }
}

/// Lines that were left out since the start.
pub fn suppressed_total() -> u64 {
    LIMIT.get().map_or(0, |limit| limit.total())
}

/// Our own lines by the level, those of libraries from `warn` on.
fn levels(level: &str) -> Targets {
    let level = level.parse().map_or(Level::INFO, |level: Level| level);
    Targets::new()
        .with_default(LevelFilter::from(level.min(Level::WARN)))
        .with_target("counterfoil", level)
        // It calls ordinary ends of connections warnings.
        .with_target("rumqttd", LevelFilter::ERROR)
}

/// systemd sets `JOURNAL_STREAM` to device and inode of what it made of stderr.
fn is_stderr_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let Ok(found) = rustix::fs::fstat(io::stderr()) else { return false };
    device == found.st_dev.to_string() && inode == found.st_ino.to_string()
}

fn stderr() -> tracing_subscriber::fmt::Layer<
    Registry,
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    fn() -> Escaped<io::Stderr>,
> {
    let writer: fn() -> Escaped<io::Stderr> = || Escaped(io::stderr());
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer)
}

/// Writes a line at a time, control characters within it escaped.
#[derive(Debug)]
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (text, end) = match line.split_last() {
            Some((b'\n', text)) => (text, "\n"),
            Some(_) | None => (line, ""),
        };
        if text.iter().any(u8::is_ascii_control) {
            let text = escaped(&String::from_utf8_lossy(text));
            self.0.write_all((text + end).as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `text` without control characters: each as Rust writes it in a string, `\n` or `\u{1b}`.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let mut written = Vec::new();
        let mut writer = Escaped(&mut written);
        writer.write_all("ok\n".as_bytes()).unwrap();
        writer.write_all("a\u{1b}[2Jb\r\nERROR forged\u{9b}31m\u{7}é\n".as_bytes()).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text, "ok\na\\u{1b}[2Jb\\r\\nERROR forged\\u{9b}31m\\u{7}é\n");
    }

    #[test]
    fn only_our_own_lines_follow_the_level() {
        for (level, own, foreign) in [
            ("trace", Level::TRACE, Level::WARN),
            ("info", Level::INFO, Level::WARN),
            ("error", Level::ERROR, Level::ERROR),
        ] {
            let levels = levels(level);
            for of in [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR] {
                for target in ["counterfoil::uplink", "counterfoil_hub::posting"] {
                    assert_eq!(levels.would_enable(target, &of), of <= own, "{level} {target} {of}");
                }
                for target in ["tokio_postgres::query", "rumqttc::state", "hyper", "log"] {
                    assert_eq!(levels.would_enable(target, &of), of <= foreign, "{level} {target} {of}");
                }
            }
        }
    }
}
