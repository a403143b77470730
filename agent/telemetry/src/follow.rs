//! Records on their way, one by one: a line of the log at `debug`, and a span where the record's trace is kept.
//!
//! Invariant: nobody looks into a record for this unless somebody wants to know; what is told of it are its names, never its contents.

use tracing::{Level, Span};

use crate::trace;

/// The names of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `{epoch}-{lane}-{seq}`.
    pub record: String,
    /// What ties it to others; the same where nobody said otherwise.
    pub correlation_id: String,
    /// Its trace context.
    pub traceparent: Option<String>,
}

/// Whether anybody wants to know.
pub fn is_wanted() -> bool {
    trace::is_on() || tracing::enabled!(Level::DEBUG)
}

/// Records that something is being done to.
#[derive(Debug)]
pub struct Followed {
    step: &'static str,
    records: Vec<(Names, Span)>,
}

/// Begins a step with records: `sent`, `stored`, `posted`.
pub fn begin(step: &'static str, records: Vec<Names>) -> Followed {
    let span_of = |names: &Names| {
        let traceparent = names.traceparent.as_deref().filter(|of| trace::is_on() && trace::is_sampled(of));
        let Some(traceparent) = traceparent else { return Span::none() };
        let Names { record, correlation_id, .. } = names;
        let span = tracing::info_span!("record", otel.name = step, record, correlation_id);
        trace::follow(&span, Some(traceparent));
        // Entered once, the span begins now.
        span.in_scope(|| ());
        span
    };
    let records = records.into_iter().map(|names| {
        let span = span_of(&names);
        (names, span)
    });
    Followed { step, records: records.collect() }
}

impl Followed {
    /// The step was done.
    pub fn done(self) {
        let step = self.step;
        for (Names { record, correlation_id, traceparent }, span) in self.records {
            let trace_id = traceparent.as_deref().and_then(trace::trace_id);
            span.in_scope(|| tracing::debug!(record, correlation_id, trace_id, "{step}"));
        }
    }
}
