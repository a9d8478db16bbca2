//! The first middleware of every client: a `tracing` span and two debug events for each request, and the trace context in its `_meta`.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::Value;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::{Answer, Any, Middleware, Next, Params, Request};
use crate::error::Error;

/// Where a request stands in a distributed trace ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// Such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
    pub traceparent: String,
    /// What tracing systems add of their own.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// A context without state.
    pub fn new(traceparent: impl Into<String>) -> Self {
        Self { traceparent: traceparent.into(), tracestate: None }
    }
}

/// What tells the trace context of the current span.
pub(crate) type Propagator = Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>;

#[derive(Default)]
pub(crate) struct RequestLog {
    pub(crate) trace_context: Option<Propagator>,
}

/// What the request is about: the tool, prompt or resource.
fn target(params: &Params) -> Option<&str> {
    match params {
        Params::CallTool(call) => Some(&call.name),
        Params::GetPrompt(prompt) => Some(&prompt.name),
        Params::ReadResource(resource) => Some(&resource.uri),
        Params::Subscribe(uri) | Params::Unsubscribe(uri) => Some(uri),
        _ => None,
    }
}

/// The names are those of OpenTelemetry's conventions for RPC and MCP.
fn span(request: &Request) -> Span {
    let method = request.method();
    let span = tracing::info_span!(
        "request",
        otel.name = Empty,
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "jsonrpc",
        rpc.service = &*request.server,
        rpc.method = method,
        mcp.method.name = method,
        gen_ai.tool.name = Empty,
        gen_ai.prompt.name = Empty,
        mcp.resource.uri = Empty,
        network.transport = request.transport,
        error.type = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let target = target(&request.params);
    match (&request.params, target) {
        (Params::CallTool(_), Some(name)) => drop(span.record("gen_ai.tool.name", name)),
        (Params::GetPrompt(_), Some(name)) => drop(span.record("gen_ai.prompt.name", name)),
        (_, Some(uri)) => drop(span.record("mcp.resource.uri", uri)),
        (_, None) => {}
    }
    match target {
        // A URI may be one of many; it would make a name for each.
        Some(name) if matches!(request.params, Params::CallTool(_) | Params::GetPrompt(_)) => {
            span.record("otel.name", display(format_args!("{method} {name}")));
        }
        _ => drop(span.record("otel.name", method)),
    }
    span
}

#[async_trait]
impl Middleware for RequestLog {
    async fn on_request(&self, mut request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        let span = span(&request);
        if let Some(context) = self.trace_context.as_ref().and_then(|context| span.in_scope(|| context())) {
            request.meta.insert("traceparent".into(), Value::String(context.traceparent));
            if let Some(state) = context.tracestate {
                request.meta.insert("tracestate".into(), Value::String(state));
            }
        }
        let outcome = span.clone();
        async {
            let (id, started) = (request.id, Instant::now());
            tracing::debug!(id, "sent");
            let answer = next.run(request).await;
            let seconds = started.elapsed().as_secs_f64();
            match &answer {
                Ok(answer) => {
                    if matches!(answer, Answer::CallTool(answer) if answer.is_error()) {
                        outcome.record("otel.status_code", "ERROR");
                        outcome.record("error.type", "tool_error");
                    }
                    tracing::debug!(id, seconds, "answered");
                }
                Err(error) => {
                    outcome.record("otel.status_code", "ERROR");
                    outcome.record("error.type", error.kind().map_or("error", crate::tool::FailureKind::as_str));
                    tracing::debug!(id, seconds, %error, "failed");
                }
            }
            answer
        }
        .instrument(span)
        .await
    }
}
