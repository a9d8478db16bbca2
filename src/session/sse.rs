//! The transport that MCP had before streamable HTTP (protocol revision 2024-11-05): one event stream brings all that the server says,
//! and its first event names the endpoint that our messages are posted to. The stream can't be resumed, so that its end is the
//! connection's.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode, Url};
use rmcp::RoleClient;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::watch;

use super::connection::Opened;
use super::http::{Endpoint, is_of_session, request_failed};
use super::line::not_connected;
use super::wire::{MESSAGE_BYTES, Wire, encoded};
use super::{ConfigPlace, SessionSettings};
use crate::config::HttpConfig;
use crate::error::Error;
use crate::units::size;

/// An answer to a message says nothing but its status; as much of its body is read, so that the HTTP connection can be used again.
const ANSWER_BYTES: usize = 64 << 10;

/// Whether a server that refuses to `initialize` over streamable HTTP with this status may be one of the older transport: it knows no
/// POST at this address. Statuses that say who may call, or when, are about neither.
pub(super) fn may_be_meant(refusal: StatusCode) -> bool {
    let of_others = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    refusal.is_client_error() && !of_others.contains(&refusal)
}

/// A transport for a server that has opened its event stream and named its endpoint.
pub(super) async fn connect(
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    bound: Duration,
    settings: &SessionSettings,
    wire: &Arc<Wire>,
) -> Result<Opened<SseTransport>, Error> {
    let server = Endpoint::new("url", &[("http", "http"), ("https", "https")], config, place, bound, settings)?;
    let opened = match server.authorization.within(bound, open(&server)).await {
        Some(opened) => opened,
        None => Err(format!("it did not name the endpoint for messages within {} s", bound.as_secs_f64())),
    };
    let (events, endpoint) =
        opened.map_err(|message| Error::Connect { server: place.server.into(), message, stderr: Vec::new() })?;
    let closed = watch::Sender::new(false);
    let (authorization, wire) = (Arc::clone(&server.authorization), Arc::clone(wire));
    let transport = SseTransport { events: Some(events), server: Arc::new(server), endpoint, closed, wire };
    Ok(Opened::new(transport).authorized(authorization))
}

async fn open(server: &Endpoint) -> Result<(Events, Url), String> {
    let mut request = request(server, Method::GET, server.url.clone());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let response = server.send(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(
                "it wants authorisation (HTTP 401): set `auth` to a token, or `headers`, in its configuration".into()
            );
        }
        status => return Err(format!("it answered HTTP {status} where it was asked for its event stream")),
    }
    let kind =
        response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing that says so");
    if !kind.starts_with("text/event-stream") {
        return Err(format!("it answered with `{kind}` where it was asked for an event stream"));
    }
    let base = response.url().clone();
    let mut events = Events::new(response);
    let named = loop {
        match events.next().await? {
            Some((kind, data)) if kind == "endpoint" => break data,
            Some(_) => {}
            None => return Err("its event stream ended before it named the endpoint for messages".into()),
        }
    };
    let endpoint = base.join(named.trim()).map_err(|error| format!("the endpoint that it named is no URL: {error}"))?;
    if endpoint.origin() != base.origin() {
        return Err(format!(
            "the endpoint for messages that it named is at `{}`, and not at `{}` where it is itself; nothing is sent there, as it \
             would get the headers",
            endpoint.origin().ascii_serialization(),
            base.origin().ascii_serialization(),
        ));
    }
    Ok((events, endpoint))
}

fn request(server: &Endpoint, method: Method, url: Url) -> Request {
    let mut request = Request::new(method, url);
    request.headers_mut().extend(server.headers.clone());
    request
}

/// MCP over an event stream and the endpoint that it named.
pub(super) struct SseTransport {
    events: Option<Events>,
    server: Arc<Endpoint>,
    endpoint: Url,
    /// Ends what is under way, when we close, or when the server does not know us any more.
    closed: watch::Sender<bool>,
    wire: Arc<Wire>,
}

impl Transport<RoleClient> for SseTransport {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.wire.sent(&message);
        self.poster().send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let mut closed = self.closed.subscribe();
        let events = self.events.as_mut()?;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = closed.wait_for(|closed| *closed) => return None,
            };
            match event {
                Ok(Some((kind, data))) if kind == "message" => {
                    let Some(message) = self.wire.received(&data) else { continue };
                    match self.wire.take_early(message) {
                        Ok(answer) => {
                            let (server, endpoint) = (Arc::clone(&self.server), self.endpoint.clone());
                            let poster =
                                Poster { server, endpoint, close: self.closed.clone(), wire: Arc::clone(&self.wire) };
                            tokio::spawn(async move { poster.send(answer.await).await });
                        }
                        Err(message) => return Some(message),
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.wire.complain("it ended its event stream".into());
                    return None;
                }
                Err(reason) => {
                    self.wire.complain(reason);
                    return None;
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.send_replace(true);
        // Dropping it ends the HTTP connection, which is all that there is to tell the server.
        self.events = None;
        Ok(())
    }
}

impl SseTransport {
    fn poster(&self) -> Poster {
        let (server, endpoint) = (Arc::clone(&self.server), self.endpoint.clone());
        Poster { server, endpoint, close: self.closed.clone(), wire: Arc::clone(&self.wire) }
    }
}

/// What posts one message.
struct Poster {
    server: Arc<Endpoint>,
    endpoint: Url,
    close: watch::Sender<bool>,
    wire: Arc<Wire>,
}

impl Poster {
    async fn send(self, message: TxJsonRpcMessage<RoleClient>) -> io::Result<()> {
        let mut closed = self.close.subscribe();
        let is_request = matches!(message, JsonRpcMessage::Request(_));
        let body = encoded(&message)?.into_bytes();
        tokio::select! {
            biased;
            posted = self.post(body, is_request) => posted.map_err(io::Error::other),
            _ = closed.wait_for(|closed| *closed) => Err(not_connected()),
        }
    }

    async fn post(&self, body: Vec<u8>, is_request: bool) -> Result<(), String> {
        let mut request = request(&self.server, Method::POST, self.endpoint.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.into());
        let mut response = self.server.send(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let mut said = Vec::new();
        while let Ok(Some(part)) = response.chunk().await
            && said.len() < ANSWER_BYTES
        {
            said.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(());
        }
        let is_unknown = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
            || is_of_session(status, &String::from_utf8_lossy(&said));
        if is_unknown {
            let reason = format!("it answered HTTP {status}: it does not know this connection any more");
            // Whoever waits for an answer is told by the end of the connection, and may be so before this message fails.
            self.wire.complain(reason.clone());
            self.close.send_replace(true);
            return Err(reason);
        }
        let reason = format!("it answered HTTP {status}");
        if is_request {
            self.wire.doubt();
            return Err(reason);
        }
        // What needs no answer is not worth a connection.
        tracing::debug!("{reason} to a message that is no request");
        self.wire.complain(reason);
        Ok(())
    }
}

/// The events of a response.
struct Events {
    response: Response,
    parser: Parser,
}

impl Events {
    fn new(response: Response) -> Self {
        Self { response, parser: Parser::default() }
    }

    /// The next event, its kind and its data; nothing at the end of the stream. May be dropped while it waits.
    async fn next(&mut self) -> Result<Option<(String, String)>, String> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            let part = self.response.chunk().await;
            let part = part.map_err(|error| format!("its event stream broke: {}", request_failed(error)))?;
            let Some(part) = part else { return Ok(None) };
            self.parser.take(&part)?;
        }
    }
}

/// Makes events of bytes, however they are cut. No event is longer than a message may be.
#[derive(Default)]
struct Parser {
    /// Received, and not yet a whole line.
    rest: Vec<u8>,
    /// The last line ended with a carriage return, which a line feed may follow.
    after_return: bool,
    event: Event,
    ready: VecDeque<(String, String)>,
}

#[derive(Default)]
struct Event {
    kind: String,
    data: Option<String>,
}

impl Parser {
    fn take(&mut self, part: &[u8]) -> Result<(), String> {
        for piece in part.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match piece {
                [text @ .., end @ (b'\n' | b'\r')] => (text, Some(*end)),
                text => (text, None),
            };
            // The second half of a line's end.
            if std::mem::take(&mut self.after_return) && text.is_empty() && end == Some(b'\n') {
                continue;
            }
            self.rest.extend_from_slice(text);
            if self.rest.len() + self.event.data.as_ref().map_or(0, String::len) > MESSAGE_BYTES {
                return Err(format!(
                    "it sent a message of more than {}, and the connection was closed",
                    size(MESSAGE_BYTES)
                ));
            }
            if let Some(end) = end {
                self.after_return = end == b'\r';
                let line = std::mem::take(&mut self.rest);
                if let Some(event) = self.event.line(&String::from_utf8_lossy(&line)) {
                    self.ready.push_back(event);
                }
            }
        }
        Ok(())
    }
}

impl Event {
    /// Takes a line; an empty one ends the event, which counts only if it has data.
    fn line(&mut self, line: &str) -> Option<(String, String)> {
        if line.is_empty() {
            let Self { kind, data } = std::mem::take(self);
            let kind = if kind.is_empty() { "message".into() } else { kind };
            return data.map(|data| (kind, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("event", _) => self.kind = value.into(),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", data) => *data = Some(value.into()),
            _ => {} // comments, ids, and times to reconnect after
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES, Parser};

    const STREAM: &str = ": hello\n\nevent: endpoint\r\nid: 5\r\ndata:/a\r\n\r\ndata: ä\rdata: two\rdata\r\r\n\n\ndata: last\n\ndata: cut off";

    fn events(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        for part in parts {
            parser.take(part).unwrap();
        }
        parser.ready.into()
    }

    #[test]
    fn bytes_become_events_however_they_are_cut() {
        let expected = [("endpoint", "/a"), ("message", "ä\ntwo\n"), ("message", "last")];
        let expected = expected.map(|(kind, data)| (kind.to_string(), data.to_string()));
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(events(&bytes.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_event_has_its_bound() {
        let long = vec![b'x'; MESSAGE_BYTES / 2];
        let mut parser = Parser::default();
        for part in [b"data: ", &long[..], b"\ndata: "] {
            assert_eq!(parser.take(part), Ok(()));
        }
        assert!(parser.take(&long).is_err_and(|error| error.contains("more than 32 MiB")));
    }
}
