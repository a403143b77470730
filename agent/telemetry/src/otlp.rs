//! Spans to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! Invariant: what is exported is what the caller's trace context says (W3C, its flag `sampled`), and each request that comes without one; spans
//! wait in a bounded queue and are dropped when it is full, so nobody waits for a collector. TLS is the process's, with ring. No span has a
//! field with contents of a document.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::log::Teller;

/// For one request to the collector.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For what waits when the program ends.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a collector's answer, which is a few bytes; more is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What gathers and sends spans.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Sends what waits.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(END_TIMEOUT) {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

/// An exporter to `{endpoint}/v1/traces`, and what feeds it. On a tokio runtime.
pub(crate) fn open<S>(endpoint: &str, teller: &Teller) -> Result<(Exporter, Box<dyn Layer<S> + Send + Sync>), String>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let runtime = Handle::try_current().map_err(|error| error.to_string())?;
    let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().map_err(|error| error.to_string())?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client { http, runtime })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .with_timeout(REQUEST_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder()
        .with_service_name(teller.program)
        .with_attributes([
            KeyValue::new("service.version", teller.version),
            KeyValue::new("service.instance.id", teller.instance.clone()),
        ])
        .build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("counterfoil"))
        .with_threads(false)
        .with_filter(Targets::new().with_target("counterfoil", Level::INFO));
    Ok((Exporter(provider), layer.boxed()))
}

/// The process's HTTP client at the exporter's seam. The exporter waits on a thread of its own; the work is the runtime's.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let work = async move {
            let mut answer = http.execute(request).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                    break;
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok(response)
        };
        self.runtime.spawn(work).await?
    }
}

/// A carrier with a `traceparent` alone.
struct Carried<'a>(&'a str);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

pub(crate) fn follow(span: &Span, traceparent: &str) {
    let context = TraceContextPropagator::new().extract(&Carried(traceparent));
    if let Err(error) = span.set_parent(context) {
        tracing::debug!(%error, "a span has no place in its trace");
    }
}

pub(crate) fn context_of(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let of = span.span_context();
    (of.is_valid() && of.is_sampled()).then(|| format!("00-{}-{}-01", of.trace_id(), of.span_id()))
}
