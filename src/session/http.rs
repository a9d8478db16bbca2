//! Streamable HTTP through rmcp, with the answers in event streams diverted as text. (An answer that comes as a plain JSON body is typed
//! by rmcp first, and integers beyond 64 bits lose digits there.)

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{NoProxy, Proxy, Request, Response, StatusCode, Url, redirect};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use sse_stream::{Error as SseError, Sse};

use super::ConfigPlace;
use super::wire::Wire;
use crate::config::HttpConfig;
use crate::error::{Error, with_causes};

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type HttpResult<T> = Result<T, StreamableHttpError<reqwest::Error>>;

/// Redirects that are followed, as long as they stay at the same origin.
const REDIRECTS: usize = 10;

/// Where an HTTP or WebSocket server is, and how to speak to it. Headers may hold secrets, so that redirects to another origin are not
/// followed. Proxies come from the configuration's variables, as nothing else here reads the environment.
pub(super) struct Endpoint {
    /// Its scheme is `http` or `https`.
    pub(super) url: Url,
    pub(super) client: reqwest::Client,
    pub(super) headers: Headers,
    /// A static bearer token.
    pub(super) token: Option<String>,
}

impl Endpoint {
    /// `key` is the entry's key that holds the URL; `schemes` are those that it may have, and what they are for HTTP.
    pub(super) fn new(
        key: &str,
        schemes: &[(&str, &str); 2],
        config: &HttpConfig,
        place: &ConfigPlace<'_>,
        bound: Duration,
        verify_tls: bool,
    ) -> Result<Self, Error> {
        if !verify_tls {
            tracing::warn!(server = place.server, "its TLS certificate is not checked");
        }
        let text = place.expand(key, &config.url)?;
        let mut url = Url::parse(&text).map_err(|error| place.wrong(key, format!("it is not a URL: {error}")))?;
        let Some((_, scheme)) = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
            let [(one, _), (other, _)] = schemes;
            return Err(place.wrong(key, format!("expected `{one}` or `{other}`, found `{}`", url.scheme())));
        };
        if url.scheme() != *scheme {
            let rest = text.split_once(':').map_or("", |(_, rest)| rest);
            url = Url::parse(&format!("{scheme}:{rest}")).map_err(|error| place.wrong(key, error.to_string()))?;
        }
        let same_origin = redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if from.is_some_and(|from| from == attempt.url().origin()) && attempt.previous().len() <= REDIRECTS {
                attempt.follow()
            } else {
                attempt.error("it redirects to another origin, which would get the headers of this one")
            }
        });
        let mut client = reqwest::Client::builder()
            .connect_timeout(config.timeout.unwrap_or(bound))
            .danger_accept_invalid_certs(!verify_tls)
            .redirect(same_origin)
            .no_proxy();
        if let Some(read_timeout) = config.read_timeout {
            client = client.read_timeout(read_timeout);
        }
        if let Some(proxy) = proxy(url.scheme(), place) {
            client = client.proxy(proxy?);
        }
        let connect = |message| Error::Connect { server: place.server.into(), message, stderr: Vec::new() };
        let client = client.build().map_err(|error| connect(format!("the HTTP client can't be set up: {error}")))?;
        let token = config.auth.as_ref().map(|auth| place.expand("auth", auth)).transpose()?;
        if token.as_ref().is_some_and(|token| HeaderValue::from_str(token).is_err()) {
            return Err(place.wrong("auth", "it has characters that no HTTP header can hold"));
        }
        let mut headers = Headers::new();
        for (key, value) in &config.headers {
            let path = format!("headers.{key}");
            let name =
                key.parse::<HeaderName>().map_err(|_| place.wrong(&path, "no HTTP header can have this name"))?;
            let value = HeaderValue::from_str(&place.expand(&path, value)?)
                .map_err(|_| place.wrong(&path, "it has characters that no HTTP header can hold"))?;
            headers.insert(name, value);
        }
        Ok(Self { url, client, headers, token })
    }

    /// Sends a request, authorised. Its headers are the caller's to add, those of the configuration too.
    pub(super) async fn send(&self, mut request: Request) -> Result<Response, String> {
        if let Some(token) = &self.token
            && let Ok(token) = HeaderValue::from_str(&format!("Bearer {token}"))
        {
            request.headers_mut().entry(AUTHORIZATION).or_insert(token);
        }
        self.client.execute(request).await.map_err(|error| request_failed(&error))
    }
}

/// A transport for a server that speaks streamable HTTP.
pub(super) fn transport(
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    bound: Duration,
    verify_tls: bool,
    wire: &Arc<Wire>,
) -> Result<StreamableHttpClientTransport<DivertingClient>, Error> {
    let schemes = [("http", "http"), ("https", "https")];
    let endpoint = Endpoint::new("url", &schemes, config, place, bound, verify_tls)?;
    let mut transport = StreamableHttpClientTransportConfig::with_uri(endpoint.url.as_str());
    transport.auth_header = endpoint.token;
    transport.custom_headers = endpoint.headers;
    let client = DivertingClient { http: endpoint.client, wire: Arc::clone(wire) };
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
        Some(StreamableHttpError::Client(error)) => request_failed(error),
        Some(StreamableHttpError::AuthRequired(_)) => {
            "it wants authorisation (HTTP 401): set `auth` to a token, or `headers`, in its configuration".into()
        }
        Some(error) => with_causes(error),
        None => with_causes(&*error.error),
    }
}

/// The HTTP status with which a server refused a message.
pub(super) fn refusal(error: &DynamicTransportError) -> Option<StatusCode> {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::Client(error) => error.status(),
        // rmcp has the status of some in its message only.
        StreamableHttpError::UnexpectedServerResponse(message) => {
            let status = message.strip_prefix("HTTP ")?.get(..3)?;
            status.parse().ok()
        }
        _ => None,
    }
}

/// Why a request failed, without the URL.
pub(super) fn request_failed(error: &reqwest::Error) -> String {
    match (error.status(), error.source()) {
        (Some(status), _) => format!("it answered HTTP {status}"),
        (None, Some(cause)) => with_causes(cause),
        (None, None) => "the HTTP request failed".into(),
    }
}

#[derive(Clone)]
pub(super) struct DivertingClient {
    pub(super) http: reqwest::Client,
    pub(super) wire: Arc<Wire>,
}

impl DivertingClient {
    fn divert(&self, events: Events) -> Events {
        let wire = Arc::clone(&self.wire);
        let divert = move |event: Result<Sse, SseError>| {
            event.map(|mut event| {
                if let Some(message) = event.data.as_deref().and_then(|text| wire.divert(text)) {
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
        self.wire.sent(&message);
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

/// Whether another handshake may go better: not where the host can't be reached, or redirects elsewhere.
pub(super) fn may_be_confused(error: &DynamicTransportError) -> bool {
    let error = error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>();
    !matches!(error, Some(StreamableHttpError::Client(error)) if error.status().is_none())
}
