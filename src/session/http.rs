//! Streamable HTTP through rmcp, with the answers in event streams diverted as text. (An answer that comes as a plain JSON body is typed
//! by rmcp first, and integers beyond 64 bits lose digits there.)

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{NoProxy, Proxy, Url, redirect};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use sse_stream::{Error as SseError, Sse};

use super::ConfigPlace;
use super::wire::Diverter;
use crate::config::HttpConfig;
use crate::error::{Error, with_causes};

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type HttpResult<T> = Result<T, StreamableHttpError<reqwest::Error>>;

/// Redirects that are followed, as long as they stay at the same origin.
const REDIRECTS: usize = 10;

/// A transport for an HTTP server. Headers may hold secrets, so that redirects to another origin are not followed. Proxies come from the
/// configuration's variables, as nothing else here reads the environment.
pub(super) fn transport(
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    bound: Duration,
    verify_tls: bool,
    diverter: &Arc<Diverter>,
) -> Result<StreamableHttpClientTransport<DivertingClient>, Error> {
    if !verify_tls {
        tracing::warn!(server = place.server, "its TLS certificate is not checked");
    }
    let url = place.expand("url", &config.url)?;
    let parsed = Url::parse(&url).map_err(|error| place.wrong("url", format!("it is not a URL: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(place.wrong("url", format!("expected `http` or `https`, found `{}`", parsed.scheme())));
    }
    let same_origin = redirect::Policy::custom(|attempt| {
        let from = attempt.previous().last().map(Url::origin);
        if from.is_some_and(|from| from == attempt.url().origin()) && attempt.previous().len() <= REDIRECTS {
            attempt.follow()
        } else {
            attempt.error("it redirects to another origin, which would get the headers of this one")
        }
    });
    let mut http = reqwest::Client::builder()
        .connect_timeout(config.timeout.unwrap_or(bound))
        .danger_accept_invalid_certs(!verify_tls)
        .redirect(same_origin)
        .no_proxy();
    if let Some(read_timeout) = config.read_timeout {
        http = http.read_timeout(read_timeout);
    }
    if let Some(proxy) = proxy(parsed.scheme(), place) {
        http = http.proxy(proxy?);
    }
    let connect = |message| Error::Connect { server: place.server.into(), message, stderr: Vec::new() };
    let http = http.build().map_err(|error| connect(format!("the HTTP client can't be set up: {error}")))?;
    let mut transport = StreamableHttpClientTransportConfig::with_uri(url);
    if let Some(auth) = &config.auth {
        let token = place.expand("auth", auth)?;
        HeaderValue::from_str(&token)
            .map_err(|_| place.wrong("auth", "it has characters that no HTTP header can hold"))?;
        transport.auth_header = Some(token);
    }
    for (key, value) in &config.headers {
        let path = format!("headers.{key}");
        let name = key.parse::<HeaderName>().map_err(|_| place.wrong(&path, "no HTTP header can have this name"))?;
        let value = HeaderValue::from_str(&place.expand(&path, value)?)
            .map_err(|_| place.wrong(&path, "it has characters that no HTTP header can hold"))?;
        transport.custom_headers.insert(name, value);
    }
    let client = DivertingClient { http, diverter: Arc::clone(diverter) };
    Ok(StreamableHttpClientTransport::with_client(client, transport))
}

/// The proxy that the usual variables name.
fn proxy(scheme: &str, place: &ConfigPlace<'_>) -> Option<Result<Proxy, Error>> {
    let variable = |name: &str| {
        let value = (place.variables)(name).or_else(|| (place.variables)(&name.to_uppercase()));
        value.filter(|value| !value.is_empty())
    };
    let address = variable(&format!("{scheme}_proxy")).or_else(|| variable("all_proxy"))?;
    let except = variable("no_proxy").and_then(|hosts| NoProxy::from_string(&hosts));
    let wrong = |_| place.wrong("url", format!("the proxy that the variable `{scheme}_proxy` names is not a URL"));
    Some(Proxy::all(address).map(|proxy| proxy.no_proxy(except)).map_err(wrong))
}

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
        let divert = move |event: Result<Sse, SseError>| {
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
    ) -> HttpResult<StreamableHttpPostResponse> {
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
    ) -> HttpResult<()> {
        self.http.delete_session(uri, session_id, auth_header, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> HttpResult<Events> {
        Ok(self.divert(self.http.get_stream(uri, session_id, last_event_id, auth_header, headers).await?))
    }
}
