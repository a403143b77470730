//! Lines into systemd's journal, each field as one of the journal's (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Invariant: a line is one datagram of bounded size; its MESSAGE says all of it to whoever runs `journalctl` without options, and each field is
//! there by its own name as well, also those of the request that it belongs to. Control characters are escaped in both. Own code and not
//! `tracing-journald`, which leaves fields out of the message, and passes control characters on. A line that the journal does not take is lost:
//! nobody waits for a log.

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::escaped;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Characters of one value; the longest of ours are errors with their causes.
const VALUE_CHARS_MAX: usize = 1_024;
/// Fields of one line with those of its spans. With the bound of a value it keeps a datagram below what a socket takes (208 KiB).
const FIELDS_MAX: usize = 24;

/// The way into the journal.
#[derive(Debug)]
pub(super) struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
    program: &'static str,
}

impl Journald {
    /// Fails where no journal listens.
    pub(super) fn open(program: &'static str) -> io::Result<Self> {
        Self::open_at(SOCKET.into(), program)
    }

    fn open_at(path: PathBuf, program: &'static str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // A journal ignores what is empty; by its path a new one is found as well.
        socket.send_to(&[], &path)?;
        Ok(Self { socket, path, program })
    }
}

/// Names and values of a line or a span.
#[derive(Clone, Debug, Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut cut = Cut(String::new());
        // The only failure is that it was cut.
        cut.write_fmt(value).unwrap_or_default();
        let value = escaped(&cut.0);
        if field.name() == "message" {
            self.message = value;
        } else if self.named.len() < FIELDS_MAX {
            self.named.retain(|(name, _)| *name != field.name());
            self.named.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Text up to the bound.
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VALUE_CHARS_MAX.saturating_sub(self.0.chars().count());
        let mut letters = text.chars();
        self.0.extend(letters.by_ref().take(room));
        if letters.next().is_some() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Journald {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root);
        let mut of_spans = Vec::new();
        for span in spans {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_spans.extend(of_span.named.iter().cloned());
            }
        }
        // What the line itself says of a name counts.
        of_spans.retain(|(name, _)| fields.named.iter().all(|(known, _)| known != name));
        fields.named.extend(of_spans);
        fields.named.truncate(FIELDS_MAX);
        drop(self.socket.send_to(&self.datagram(event, &fields), &self.path));
    }
}

impl Journald {
    fn datagram(&self, event: &Event<'_>, fields: &Fields) -> Vec<u8> {
        let metadata = event.metadata();
        let mut message = fields.message.clone();
        for (name, value) in &fields.named {
            let quote = if value.contains(' ') || value.is_empty() { "\"" } else { "" };
            write!(message, " {name}={quote}{value}{quote}").expect("writing to a String does not fail");
        }
        let mut datagram = Vec::with_capacity(512);
        put(&mut datagram, "MESSAGE", &message);
        put(&mut datagram, "PRIORITY", priority(*metadata.level()));
        put(&mut datagram, "SYSLOG_IDENTIFIER", self.program);
        put(&mut datagram, "TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(&mut datagram, "CODE_FILE", file);
            put(&mut datagram, "CODE_LINE", &line.to_string());
        }
        for (name, value) in &fields.named {
            put(&mut datagram, &name.to_ascii_uppercase().replace('.', "_"), value);
        }
        datagram
    }
}

/// As `syslog(3)` counts; `debug` and below are one.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// With its length before it, so that nothing in a value ends it.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tracing_subscriber::layer::SubscriberExt;

    /// What a journal makes of a datagram.
    fn read(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
            let (name, rest) = (&datagram[..end], &datagram[end + 1..]);
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            let value = &rest[8..8 + length];
            assert_eq!(rest[8 + length], b'\n');
            let [name, value] = [name, value].map(|text| String::from_utf8(text.to_vec()).unwrap());
            assert!(fields.insert(name.clone(), value).is_none(), "{name} twice");
            datagram = &rest[8 + length + 1..];
        }
        fields
    }

    #[test]
    fn fields_of_the_line_and_of_its_request_arrive_by_name_and_in_the_message_and_escaped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = Journald::open_at(path.clone(), "box").unwrap();
        assert_eq!(journal.recv(&mut [0; 8]).unwrap(), 0);
        let hear = || {
            let mut datagram = vec![0; 100_000];
            let length = journal.recv(&mut datagram).unwrap();
            read(&datagram[..length])
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", trace_id = "4bf9", status = tracing::field::Empty);
            let _within = span.enter();
            span.record("status", 201);
            tracing::warn!(item = "a\u{1b}[31m\nPRIORITY=0", count = 3, "said \u{1b}]0;{}", "x");
            let heard = hear();
            assert_eq!(
                heard["MESSAGE"],
                "said \\u{1b}]0;x item=a\\u{1b}[31m\\nPRIORITY=0 count=3 trace_id=4bf9 status=201"
            );
            assert_eq!(heard["ITEM"], "a\\u{1b}[31m\\nPRIORITY=0");
            assert_eq!(
                (heard["COUNT"].as_str(), heard["TRACE_ID"].as_str(), heard["STATUS"].as_str()),
                ("3", "4bf9", "201")
            );
            assert_eq!((heard["PRIORITY"].as_str(), heard["SYSLOG_IDENTIFIER"].as_str()), ("4", "box"));
            assert!(heard["CODE_FILE"].ends_with("journald.rs") && heard["TARGET"].contains("journald"), "{heard:?}");
            tracing::info!(long = "x".repeat(1_000_000), status = 1, "long");
            let heard = hear();
            assert_eq!((heard["LONG"].len(), heard["STATUS"].as_str()), (VALUE_CHARS_MAX, "1"));
        });
    }
}
