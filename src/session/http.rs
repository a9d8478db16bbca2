//! Streamable HTTP: requests, their answers as JSON or as streams of events, all of which go through the wire. rmcp's worker decides what
//! is sent when, and reconnects streams; this sends it, authorised, and bounds what comes back.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{NoProxy, Proxy, Request, Response, Url, redirect};
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, JsonRpcMessage, JsonRpcRequest,
    ServerJsonRpcMessage,
};
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use sse_stream::{Error as SseError, Sse, SseStream};
use tokio::sync::watch;

use super::authorization::{Attempt, Authorization, Problem};
use super::connection::Opened;
use super::cookies::Cookies;
use super::pauses::Pauses;
use super::tls::Tls;
use super::wire::{MESSAGE_BYTES, Wire, encoded};
use super::{ConfigPlace, SessionSettings};
use crate::config::{HttpConfig, is_ours};
use crate::error::{Error, with_causes};
use crate::units::size;

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type HttpResult<T> = Result<T, StreamableHttpError<HttpError>>;

/// Longest answer that says what is wrong.
const ERROR_BYTES: usize = 64 << 10;
/// What is shown of it.
const SHOWN: usize = 200;
/// How much of what comes back for a message that needs no answer is read, and for how long, so that the HTTP connection can be used again.
const TOLD_BYTES: usize = 64 << 10;
const TOLD: Duration = Duration::from_secs(1);
/// POSTs that are under way at the same time, before they become streams; scripts make at most 64 calls at a time.
const POSTS: usize = 128;
/// Redirects that are followed, as long as they stay at the same origin.
const REDIRECTS: usize = 10;

/// Where an HTTP or WebSocket server is, and how to speak to it. Headers may hold secrets, so that redirects to another origin are not
/// followed. Proxies come from the configuration's variables, as nothing else here reads the environment.
pub(super) struct Endpoint {
    /// Its scheme is `http` or `https`.
    pub(super) url: Url,
    client: reqwest::Client,
    /// Those of the configuration, which [`Endpoint::send`] does not add.
    pub(super) headers: Headers,
    pub(super) authorization: Arc<Authorization>,
    cookies: Cookies,
    /// Longest silence of an answer.
    silence: Option<Duration>,
}

impl Endpoint {
    /// `key` is the entry's key that holds the URL; `schemes` are those that it may have, and what they are for HTTP.
    pub(super) fn new(
        key: &str,
        schemes: &[(&str, &str); 2],
        config: &HttpConfig,
        place: &ConfigPlace<'_>,
        bound: Duration,
        settings: &SessionSettings,
    ) -> Result<Self, Error> {
        let verify_tls = settings.verify_tls;
        if !verify_tls {
            tracing::warn!(server = place.server, "its TLS certificate is not checked");
        }
        let text = place.expand(key, &config.url)?;
        let mut url = Url::parse(&text).map_err(|error| place.wrong(key, format!("it is not a URL: {error}")))?;
        let Some((_, scheme)) = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
            let [(one, _), (other, _)] = schemes;
            // What a variable holds is in no message.
            let found = if config.url == text { format!(", found `{}`", url.scheme()) } else { String::new() };
            return Err(place.wrong(key, format!("expected `{one}` or `{other}`{found}")));
        };
        if url.scheme() != *scheme {
            let rest = text.split_once(':').map_or("", |(_, rest)| rest);
            url = Url::parse(&format!("{scheme}:{rest}")).map_err(|error| place.wrong(key, error.to_string()))?;
        }
        let config = &with_credentials(config, &mut url, key, place)?;
        let same_origin = redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if from.is_some_and(|from| from == attempt.url().origin()) && attempt.previous().len() <= REDIRECTS {
                attempt.follow()
            } else {
                attempt.error("it redirects to another origin, which would get the headers of this one")
            }
        });
        let connect = |message| Error::Connect { server: place.server.into(), message, stderr: Vec::new() };
        let proxy = proxy(url.scheme(), place).transpose()?;
        let tls = Tls::new(config, place)?;
        let client = || {
            let client = reqwest::Client::builder()
                .connect_timeout(config.timeout.unwrap_or(bound))
                .danger_accept_invalid_certs(!verify_tls)
                .no_proxy();
            let client = tls.apply(client);
            match proxy.clone() {
                Some(proxy) => client.proxy(proxy),
                None => client,
            }
        };
        let authorization =
            Authorization::new(config, &url, place, &settings.authorization, client(), proxy.is_some())?;
        let client = client().redirect(same_origin).build();
        let client = client.map_err(|error| connect(format!("the HTTP client can't be set up: {error}")))?;
        let mut headers = Headers::new();
        for (key, value) in &config.headers {
            let path = format!("headers.{key}");
            let name =
                key.parse::<HeaderName>().map_err(|_| place.wrong(&path, "no HTTP header can have this name"))?;
            let value = HeaderValue::from_str(&place.expand(&path, value)?)
                .map_err(|_| place.wrong(&path, "it has characters that no HTTP header can hold"))?;
            // Copied from examples, they say what is sent anyway, or what would be wrong.
            if is_ours(name.as_str()) {
                tracing::debug!(
                    server = place.server,
                    header = key,
                    "left out a header that the transport sets itself"
                );
                continue;
            }
            headers.insert(name, value);
        }
        let silence = config.read_timeout;
        let (authorization, cookies) = (Arc::new(authorization), Cookies::default());
        Ok(Self { url, client, headers, authorization, cookies, silence })
    }

    /// Sends a request, authorised; again where it has to be authorised anew.
    pub(super) async fn send(&self, request: Request) -> Result<Response, HttpError> {
        self.attempt(Attempt::default(), request).await
    }

    async fn attempt(&self, mut attempt: Attempt, request: Request) -> Result<Response, HttpError> {
        loop {
            let mut request = request.try_clone().ok_or(HttpError::Failed("the request can't be repeated".into()))?;
            let (method, url) = (request.method().clone(), request.url().clone());
            self.authorization.authorize(&mut attempt, &method, &url, request.headers_mut()).await?;
            self.cookies.add_to(&url, request.headers_mut());
            let sent = self.client.execute(request);
            let response = match self.silence {
                Some(silence) => tokio::time::timeout(silence, sent).await.map_err(|_| HttpError::Silent(silence))?,
                None => sent.await,
            };
            let response = response.map_err(|error| HttpError::sending(error, &url))?;
            self.cookies.learn(&url, response.headers());
            let (status, headers) = (response.status(), response.headers());
            if !self.authorization.answered(&mut attempt, &url, status, headers).await? {
                return Ok(response);
            }
        }
    }

    /// The events of an answer.
    pub(super) fn events(&self, response: Response) -> Events {
        events(response, self.silence)
    }
}

/// The settings with the name and password of the URL as a header, as no request and no message is to have them in the URL.
fn with_credentials(
    config: &HttpConfig,
    url: &mut Url,
    key: &str,
    place: &ConfigPlace<'_>,
) -> Result<HttpConfig, Error> {
    let mut config = config.clone();
    if url.username().is_empty() && url.password().is_none() {
        return Ok(config);
    }
    let has_own = config.headers.keys().any(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
    if has_own || config.auth.is_some() {
        let other = if has_own { "the header `Authorization`" } else { "`auth`" };
        return Err(place.wrong(key, format!("there are a name and password in it, which exclude {other}: keep one")));
    }
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let (mut pair, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    pair.push(b':');
    pair.extend(password);
    // A variable's name can't be in it: base64 has no `$`.
    config.headers.insert(AUTHORIZATION.to_string(), format!("Basic {}", BASE64_STANDARD.encode(pair)));
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| place.wrong(key, "the name and password in it can't be used"))?;
    Ok(config)
}

/// Why a request failed. Holds neither its URL nor its headers, which may hold secrets.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    Authorization(#[from] Problem),
    #[error("it answered HTTP {0}{1}")]
    Status(StatusCode, String),
    #[error("it sent nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("it sent a message of more than {}", size(MESSAGE_BYTES))]
    LongEvent,
    #[error("{0}")]
    Failed(String),
}

impl HttpError {
    /// Names the host where it could not be reached. The rest of an address may hold secrets.
    fn sending(error: reqwest::Error, url: &Url) -> Self {
        if !error.is_connect() {
            return Self::new(error);
        }
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Self::Failed(format!("`{host}{port}` can't be reached: {}", Self::new(error)))
    }

    fn new(error: reqwest::Error) -> Self {
        // What reqwest says first is that there was an error, and the URL.
        let error = error.without_url();
        Self::Failed(std::error::Error::source(&error).map_or_else(|| error.to_string(), with_causes))
    }
}

impl From<HttpError> for StreamableHttpError<HttpError> {
    fn from(error: HttpError) -> Self {
        Self::Client(error)
    }
}

/// A transport for a server that speaks streamable HTTP.
pub(super) fn transport(
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    bound: Duration,
    settings: &SessionSettings,
    wire: &Arc<Wire>,
) -> Result<Opened<StreamableHttpClientTransport<HttpClient>>, Error> {
    let schemes = [("http", "http"), ("https", "https")];
    let endpoint = Endpoint::new("url", &schemes, config, place, bound, settings)?;
    let authorization = Arc::clone(&endpoint.authorization);
    let mut transport = StreamableHttpClientTransportConfig::with_uri(endpoint.url.as_str());
    transport.custom_headers.clone_from(&endpoint.headers);
    transport.max_concurrent_requests = POSTS;
    // rmcp's worker makes headers of arguments, for which it has to see the tools.
    wire.lists_tools_typed.store(true, Ordering::Relaxed);
    let (needed, alive) = watch::channel(());
    let (endpoint, pauses) = (Arc::new(endpoint), Arc::default());
    let client = HttpClient { endpoint, wire: Arc::clone(wire), alive, pauses };
    let transport = StreamableHttpClientTransport::with_client(client, transport);
    Ok(Opened::new(transport).authorized(authorization).while_needed(needed))
}

/// What authorises requests to a server, without a connection to it.
pub(super) fn authorization(
    key: &str,
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    settings: &SessionSettings,
) -> Result<Arc<Authorization>, Error> {
    let schemes = match key {
        "ws_url" => [("ws", "http"), ("wss", "https")],
        _ => [("http", "http"), ("https", "https")],
    };
    Ok(Endpoint::new(key, &schemes, config, place, settings.connect_timeout, settings)?.authorization)
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

/// Why a request failed that was not sent through [`Endpoint::send`], or what followed it.
pub(super) fn request_failed(error: reqwest::Error) -> String {
    HttpError::new(error).to_string()
}

/// The HTTP status with which a server refused a message.
pub(super) fn refusal(error: &DynamicTransportError) -> Option<StatusCode> {
    match error.error.downcast_ref::<StreamableHttpError<HttpError>>()? {
        StreamableHttpError::Client(HttpError::Status(status, _)) => Some(*status),
        _ => None,
    }
}

/// Whether another handshake may go better: not where the host can't be reached, redirects elsewhere, or wants authorisation.
pub(super) fn may_be_confused(error: &DynamicTransportError) -> bool {
    match error.error.downcast_ref::<StreamableHttpError<HttpError>>() {
        Some(StreamableHttpError::Client(error)) => matches!(error, HttpError::Status(..)),
        _ => true,
    }
}

/// Whether a request was refused for want of authorisation.
pub(super) fn wants_authorisation(error: &DynamicTransportError) -> bool {
    let error = error.error.downcast_ref::<StreamableHttpError<HttpError>>();
    matches!(error, Some(StreamableHttpError::Client(HttpError::Authorization(_))))
}

/// Why a transport failed, without rmcp's names of types.
pub(super) fn explain(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<StreamableHttpError<HttpError>>() {
        Some(StreamableHttpError::Client(error)) => error.to_string(),
        Some(StreamableHttpError::SessionExpired) => "it does not know this session any more".into(),
        Some(StreamableHttpError::UnexpectedContentType(Some(kind))) => {
            format!("it answered with `{kind}`, which is neither JSON nor an event stream")
        }
        Some(StreamableHttpError::UnexpectedContentType(None)) => "it answered without saying what with".into(),
        Some(error) => with_causes(error),
        None => with_causes(&*error.error),
    }
}

#[derive(Clone)]
pub(super) struct HttpClient {
    endpoint: Arc<Endpoint>,
    wire: Arc<Wire>,
    /// Changes when nobody needs the connection any more.
    alive: watch::Receiver<()>,
    pauses: Arc<Pauses>,
}

impl HttpClient {
    fn request(&self, method: Method, session: Option<&str>, headers: Headers) -> HttpResult<Request> {
        let mut request = Request::new(method, self.endpoint.url.clone());
        request.headers_mut().extend(headers);
        if let Some(session) = session {
            let session = HeaderValue::from_str(session)
                .map_err(|_| HttpError::Failed("its session ID is no header's value".into()))?;
            insert(request.headers_mut(), HEADER_SESSION_ID, session);
        }
        Ok(request)
    }

    async fn post(
        &self,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        headers: Headers,
    ) -> HttpResult<StreamableHttpPostResponse> {
        self.wire.sent(&message);
        let mut request = self.request(Method::POST, session_id.as_deref(), headers)?;
        *request.body_mut() = Some(encoded(&message)?.into());
        request.headers_mut().insert(ACCEPT, accepts());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON_MIME_TYPE));
        // What gives a request up does not wait for the login that the request waited for.
        let gives_up = matches!(
            &message,
            JsonRpcMessage::Notification(sent)
                if matches!(sent.notification, ClientNotification::CancelledNotification(_))
        );
        let attempt = if gives_up { Attempt::quiet() } else { Attempt::default() };
        let response = self.endpoint.attempt(attempt, request).await?;
        let status = response.status();
        let in_session = session_id.is_some();
        let JsonRpcMessage::Request(request) = &message else {
            return Ok(self.told(&message, response).await);
        };
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && in_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let session = response.headers().get(HEADER_SESSION_ID).and_then(|id| id.to_str().ok()).map(String::from);
        if !status.is_success() {
            return self.refused(request, in_session, session, response).await;
        }
        if is(&response, EVENT_STREAM_MIME_TYPE) {
            let events =
                self.divert(self.endpoint.events(response), session.clone().or(session_id.map(|id| id.to_string())));
            return Ok(StreamableHttpPostResponse::Sse(events, session));
        }
        if !is(&response, JSON_MIME_TYPE) {
            return Err(unexpected_type(&response));
        }
        let body = body(response, self.endpoint.silence, MESSAGE_BYTES).await?;
        let body = String::from_utf8_lossy(&body);
        // rmcp drops what is for no request that it knows, and the caller would wait for ever.
        let shown = || &body[..body.floor_char_boundary(SHOWN)];
        let answer = match self.wire.received(&body) {
            Some(ServerJsonRpcMessage::Error(error)) => {
                ServerJsonRpcMessage::error(error.error, Some(request.id.clone()))
            }
            Some(ServerJsonRpcMessage::Response(answer)) if answer.id.to_string() == request.id.to_string() => {
                ServerJsonRpcMessage::Response(answer)
            }
            Some(_) => {
                return Err(HttpError::Failed(format!("its answer is to another request: `{}`", shown())).into());
            }
            None => return Err(HttpError::Failed(format!("its answer is no MCP message: `{}`", shown())).into()),
        };
        Ok(StreamableHttpPostResponse::Json(answer, session))
    }

    /// What comes back for a message that is no request. It has no answer, so that nothing that comes back ends the connection.
    async fn told(&self, message: &ClientJsonRpcMessage, response: Response) -> StreamableHttpPostResponse {
        let status = response.status();
        if !status.is_success() {
            let method = serde_json::to_value(message).unwrap_or_default()["method"].take();
            let what = method.as_str().map_or_else(|| "an answer".into(), |method| format!("`{method}`"));
            tracing::debug!("it answered HTTP {status} to {what}");
            self.wire.complain(format!("it answered HTTP {status} to {what}"));
        }
        let is_first = matches!(
            message,
            JsonRpcMessage::Notification(sent)
                if matches!(sent.notification, ClientNotification::InitializedNotification(_))
        );
        // What it has to say on a stream is heard; only right after the handshake, rmcp does not take one.
        if status.is_success() && is(&response, EVENT_STREAM_MIME_TYPE) && !is_first {
            return StreamableHttpPostResponse::Sse(self.divert(self.endpoint.events(response), None), None);
        }
        let read = body(response, self.endpoint.silence, TOLD_BYTES);
        if let Ok(Ok(body)) = tokio::time::timeout(TOLD, read).await
            && let Ok(text) = str::from_utf8(&body)
        {
            // Some put a message of their own there.
            let _ = self.wire.read(text);
        }
        StreamableHttpPostResponse::Accepted
    }

    /// Gives events to the wire, and answers what the server asks before the handshake is over.
    fn divert(&self, events: Events, session: Option<String>) -> Events {
        let wire = Arc::clone(&self.wire);
        let client = self.clone();
        let divert = move |event: Result<Sse, SseError>| {
            let mut event = event.inspect_err(|error| {
                let too_long = match error {
                    SseError::Body(cause) => cause.downcast_ref().filter(|cause| matches!(cause, HttpError::LongEvent)),
                    _ => None,
                };
                let broke = || format!("its event stream broke: {}", with_causes(error));
                wire.complain(too_long.map_or_else(broke, ToString::to_string));
            })?;
            let text = event.data.as_deref().filter(|text| !text.trim().is_empty());
            if let Some(message) = text.and_then(|text| wire.received(text)) {
                match wire.take_early(message) {
                    Ok(answer) => {
                        let (client, session) = (client.clone(), session.as_deref().map(Arc::from));
                        tokio::spawn(async move {
                            let headers = client.endpoint.headers.clone();
                            client.post(answer.await, session, headers).await.map(drop)
                        });
                        event.data = None;
                    }
                    Err(message) => event.data = serde_json::to_string(&message).ok(),
                }
            }
            Ok(event)
        };
        events.map(divert).boxed()
    }

    /// What becomes of an answer that is no success.
    async fn refused(
        &self,
        request: &JsonRpcRequest<ClientRequest>,
        in_session: bool,
        session: Option<String>,
        response: Response,
    ) -> HttpResult<StreamableHttpPostResponse> {
        let status = response.status();
        let is_json = is(&response, JSON_MIME_TYPE);
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let retry_after = retry_after.filter(|after| after.len() < SHOWN).map(String::from);
        let body = body(response, self.endpoint.silence, ERROR_BYTES).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let unauthorised = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if matches!(request.request, ClientRequest::DiscoverRequest(_))
            && !in_session
            && status.is_client_error()
            && !unauthorised
            && status != StatusCode::TOO_MANY_REQUESTS
        {
            // An older server refuses what it does not know, in any way: rmcp goes on from there.
            let error = match serde_json::from_str(&body) {
                Ok(ServerJsonRpcMessage::Error(error)) => error.error,
                _ => ErrorData::invalid_request(format!("server/discover was refused with HTTP {status}"), None),
            };
            let error = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
            return Ok(StreamableHttpPostResponse::Json(error, None));
        }
        let error = match serde_json::from_str(&body) {
            Ok(ServerJsonRpcMessage::Error(error)) if is_json && !unauthorised => Some(error),
            _ => None,
        };
        let of_request = error.as_ref().and_then(|error| error.id.as_ref());
        let is_of_request = of_request.is_some_and(|id| id.to_string() == request.id.to_string());
        if in_session && !unauthorised && !is_of_request && status != StatusCode::TOO_MANY_REQUESTS {
            let said = error.as_ref().map_or(&*body, |error| &error.error.message);
            // Then it has not looked at the request, which is sent again in a new session, once.
            if is_of_session(status, said) {
                return Err(StreamableHttpError::SessionExpired);
            }
            self.wire.doubt();
        }
        if let Some(error) = error {
            // Servers that could not read the request, or did not want to, leave out its id.
            let error = ServerJsonRpcMessage::error(error.error, Some(request.id.clone()));
            return Ok(StreamableHttpPostResponse::Json(error, session));
        }
        let retry_after = retry_after.map(|after| format!(" (Retry-After: {after})")).unwrap_or_default();
        let shown = if is_json && !unauthorised { body.trim() } else { "" };
        let shown = &shown[..shown.floor_char_boundary(SHOWN)];
        let shown = if shown.is_empty() { retry_after } else { format!("{retry_after}: `{shown}`") };
        Err(HttpError::Status(status, shown).into())
    }
}

/// Whether a refusal is about the session: servers that forgot one say so with HTTP 400 too, most of them in the words of an SDK. A
/// request that was carried out must not be taken for one.
pub(super) fn is_of_session(status: StatusCode, said: &str) -> bool {
    let words = [
        "no valid session",
        "invalid session",
        "session id",
        "session not found",
        "unknown session",
        "no transport found for sessionid",
        "not initialized",
        "not initialised",
    ];
    let said = said[..said.floor_char_boundary(SHOWN)].to_lowercase();
    status == StatusCode::BAD_REQUEST && words.iter().any(|words| said.contains(words))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: HeaderValue) {
    if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
        headers.insert(name, value);
    }
}

fn accepts() -> HeaderValue {
    HeaderValue::from_static("text/event-stream, application/json")
}

/// Whether an answer is of this type, with whatever parameters.
fn is(response: &Response, kind: &str) -> bool {
    let given = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    given.get(..kind.len()).is_some_and(|given| given.eq_ignore_ascii_case(kind.as_bytes()))
}

fn unexpected_type(response: &Response) -> StreamableHttpError<HttpError> {
    let given = response.headers().get(CONTENT_TYPE);
    StreamableHttpError::UnexpectedContentType(given.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned()))
}

/// The bytes of an answer as they come, none of them later than `silence` after the one before.
fn chunks(response: Response, silence: Option<Duration>) -> impl Stream<Item = Result<Vec<u8>, HttpError>> + Send {
    let chunks = Box::pin(response.bytes_stream());
    futures_util::stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        let next = match silence {
            Some(silence) => match tokio::time::timeout(silence, chunks.next()).await {
                Ok(next) => next,
                Err(_) => return Some((Err(HttpError::Silent(silence)), None)),
            },
            None => chunks.next().await,
        };
        match next? {
            Ok(chunk) => Some((Ok(chunk.to_vec()), Some(chunks))),
            Err(error) => Some((Err(HttpError::new(error)), None)),
        }
    })
}

/// A whole answer.
async fn body(response: Response, silence: Option<Duration>, limit: usize) -> HttpResult<Vec<u8>> {
    let mut body = Vec::new();
    let mut chunks = std::pin::pin!(chunks(response, silence));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if body.len() + chunk.len() > limit {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn events(response: Response, silence: Option<Duration>) -> Events {
    let chunks = bounded_events(chunks(response, silence)).map(|chunk| chunk.map(Cursor::new));
    SseStream::from_bytes_stream(chunks).boxed()
}

/// Ends where an event is longer than a message may be: what parses events keeps all of one.
fn bounded_events(
    chunks: impl Stream<Item = Result<Vec<u8>, HttpError>> + Send,
) -> impl Stream<Item = Result<Vec<u8>, HttpError>> + Send {
    #[derive(Default)]
    struct Event {
        bytes: usize,
        line: usize,
        after_return: bool,
    }
    chunks.scan(Some(Event::default()), |event, chunk| {
        let Some(current) = event else { return std::future::ready(None) };
        for byte in chunk.iter().flatten() {
            current.bytes += 1;
            match byte {
                b'\n' if current.after_return => current.after_return = false,
                b'\n' | b'\r' => {
                    if current.line == 0 {
                        current.bytes = 0;
                    }
                    current.line = 0;
                    current.after_return = *byte == b'\r';
                }
                _ => {
                    current.line += 1;
                    current.after_return = false;
                }
            }
        }
        let too_long = current.bytes > MESSAGE_BYTES;
        if too_long || chunk.is_err() {
            *event = None;
        }
        let chunk = if too_long { Err(HttpError::LongEvent) } else { chunk };
        std::future::ready(Some(chunk))
    })
}

impl StreamableHttpClient for HttpClient {
    type Error = HttpError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> HttpResult<StreamableHttpPostResponse> {
        // rmcp's worker does not look up from a handshake that is given up.
        let mut alive = self.alive.clone();
        tokio::select! {
            answer = self.post(message, session_id, headers) => answer,
            _ = alive.changed() => Err(HttpError::Failed("the connection is closed".into()).into()),
        }
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> HttpResult<()> {
        let request = self.request(Method::DELETE, Some(&session_id), headers)?;
        let response = self.endpoint.attempt(Attempt::quiet(), request).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportDeleteSession),
            status if status.is_success() => Ok(()),
            status => Err(HttpError::Status(status, String::new()).into()),
        }
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> HttpResult<Events> {
        let is_of_its_own = self.pauses.wait(last_event_id.as_deref()).await;
        let mut request = self.request(Method::GET, session_id.as_deref(), headers)?;
        request.headers_mut().insert(ACCEPT, accepts());
        if let Some(id) = last_event_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            insert(request.headers_mut(), HEADER_LAST_EVENT_ID, id);
        }
        let response = match self.endpoint.send(request).await {
            // rmcp would try again and again, and ask somebody each time.
            Err(HttpError::Authorization(problem)) => {
                return Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(problem.to_string())));
            }
            other => other?,
        };
        match response.status() {
            // Asking again would change nothing.
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                return Err(StreamableHttpError::ServerDoesNotSupportSse);
            }
            status if !status.is_success() => return Err(HttpError::Status(status, String::new()).into()),
            _ => {}
        }
        if !is(&response, EVENT_STREAM_MIME_TYPE) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        // A server that has nothing to say is silent here for as long as it likes.
        let events = self.divert(events(response, None), session_id.map(|id| id.to_string()));
        Ok(if is_of_its_own { self.pauses.watched(events) } else { events })
    }
}
