//! Streamable HTTP through rmcp, with the answers in event streams diverted as text. (An answer that comes as a plain JSON body is typed
//! by rmcp first, and integers beyond 64 bits lose digits there.)

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::{StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse};
use sse_stream::{Error as SseError, Sse};

use super::wire::Diverter;
use super::with_causes;

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type Result<T, E = StreamableHttpError<reqwest::Error>> = std::result::Result<T, E>;

/// Why a transport failed, without rmcp's names of types, and without the URL, which may hold a secret.
pub(super) fn explain(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(error)) => match (error.status(), error.source()) {
            (Some(status), _) => format!("it answered HTTP {status}"),
            (None, Some(cause)) => with_causes(cause),
            (None, None) => "the HTTP request failed".into(),
        },
        Some(StreamableHttpError::AuthRequired(_)) => {
            "it wants authorisation (HTTP 401): set `auth` to a token, or `headers`, in its configuration".into()
        }
        Some(error) => with_causes(error),
        None => with_causes(&*error.error),
    }
}

#[derive(Clone)]
pub(super) struct DivertingClient {
    pub(super) http: reqwest::Client,
    pub(super) diverter: Arc<Diverter>,
}

impl DivertingClient {
    fn divert(&self, events: Events) -> Events {
        let diverter = Arc::clone(&self.diverter);
        let divert = move |event: std::result::Result<Sse, SseError>| {
            event.map(|mut event| {
                if let Some(message) = event.data.as_deref().and_then(|text| diverter.divert(text)) {
                    event.data = serde_json::to_string(&message).ok();
                }
                event
            })
        };
        events.map(divert).boxed()
    }
}

impl StreamableHttpClient for DivertingClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse> {
        self.diverter.sent(&message);
        let response = self.http.post_message(uri, message, session_id, auth_header, headers).await?;
        Ok(match response {
            StreamableHttpPostResponse::Sse(events, session_id) => {
                StreamableHttpPostResponse::Sse(self.divert(events), session_id)
            }
            other => other,
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<()> {
        self.http.delete_session(uri, session_id, auth_header, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<Events> {
        Ok(self.divert(self.http.get_stream(uri, session_id, last_event_id, auth_header, headers).await?))
    }
}
