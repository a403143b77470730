//! Traces: a request is followed from the till through agent and hub, by the W3C trace context that its record carries.
//!
//! Invariant: without the feature `otlp`, or without an endpoint, nothing here costs more than a look, and contexts are still passed on. What
//! callers ask for follows from `traceparent` alone; which records carry one is theirs to say.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Span;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

use crate::log::Teller;

/// Whether this program was built to export traces.
pub const CAN_EXPORT: bool = cfg!(feature = "otlp");

static IS_ON: AtomicBool = AtomicBool::new(false);

/// The collector that a configuration names.
///
/// # Errors
/// In words, for a person who wrote something else.
pub fn endpoint(text: &str) -> Result<String, &'static str> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or_default();
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte));
    if host.is_empty() || !is_plain {
        return Err("an address such as http://127.0.0.1:4318, without user and query");
    }
    if !CAN_EXPORT {
        return Err("left out: this program was built without OpenTelemetry (cargo build --features otlp)");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Whether traces are exported.
pub fn is_on() -> bool {
    CAN_EXPORT && IS_ON.load(Ordering::Relaxed)
}

/// The trace id in a `traceparent`, 32 hexadecimal digits.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.get(3..35)
}

/// Whether a `traceparent` says that its trace is kept.
pub fn is_sampled(traceparent: &str) -> bool {
    traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & 1 == 1)
}

/// Puts `span` below what a `traceparent` names. Before it is entered.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    #[cfg(feature = "otlp")]
    if let Some(traceparent) = traceparent.filter(|_| is_on()) {
        crate::otlp::follow(span, traceparent);
    }
    #[cfg(not(feature = "otlp"))]
    let (_, _) = (span, traceparent);
}

/// The `traceparent` of what comes below `span`; `None` where it is not exported.
pub fn context_of(span: &Span) -> Option<String> {
    #[cfg(feature = "otlp")]
    if is_on() {
        return crate::otlp::context_of(span);
    }
    let _ = span;
    None
}

/// What exports; to be ended with the program.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otlp")]
    exporter: Option<crate::otlp::Exporter>,
    failure: Option<String>,
}

impl Traces {
    /// Why nothing is exported though it was asked for.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Hands over what waits, for at most a few seconds.
    pub fn end(self) {
        IS_ON.store(false, Ordering::Relaxed);
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.end();
        }
    }
}

type Exported = Box<dyn Layer<Within> + Send + Sync>;
type Within = tracing_subscriber::layer::Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

#[cfg(feature = "otlp")]
pub(crate) fn open(endpoint: Option<&str>, teller: &Teller) -> (Traces, Option<Exported>) {
    let Some(endpoint) = endpoint else { return Default::default() };
    match crate::otlp::open(endpoint, teller) {
        Ok((exporter, layer)) => {
            IS_ON.store(true, Ordering::Relaxed);
            (Traces { exporter: Some(exporter), failure: None }, Some(layer))
        }
        Err(failure) => (Traces { exporter: None, failure: Some(failure) }, None),
    }
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn open(endpoint: Option<&str>, _: &Teller) -> (Traces, Option<Exported>) {
    let failure = endpoint.map(|_| "this program was built without OpenTelemetry".to_owned());
    (Traces { failure }, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_and_needs_a_program_that_can_export() {
        for wrong in
            ["collector:4318", "http://", "http://a b", "http://user@host:4318", "http://host?x=1", "ftp://host"]
        {
            assert!(endpoint(wrong).is_err_and(|expected| expected.starts_with("an address")), "{wrong}");
        }
        let taken = endpoint("http://127.0.0.1:4318/");
        if CAN_EXPORT {
            assert_eq!(taken.as_deref(), Ok("http://127.0.0.1:4318"));
        } else {
            assert!(taken.is_err_and(|why| why.contains("--features otlp")));
        }
    }

    #[test]
    fn a_traceparent_names_its_trace_and_whether_it_is_kept() {
        let kept = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_id(kept), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(is_sampled(kept) && is_sampled(&kept.replace("-01", "-03")));
        for not in [&kept.replace("-01", "-00"), &kept.replace("-01", "-02"), "", "00-é"] {
            assert!(!is_sampled(not), "{not}");
        }
    }
}
