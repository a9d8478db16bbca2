//! MCP over a WebSocket: a text frame a message. The handshake goes through the same HTTP client as everything else, so that headers,
//! certificates, proxies and redirects are treated alike.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use reqwest::{Method, Request, StatusCode, Upgraded};
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::connection::Opened;
use super::http::{Endpoint, request_failed};
use super::line::not_connected;
use super::wire::{MESSAGE_BYTES, Wire, encoded};
use super::{ConfigPlace, SessionSettings};
use crate::config::HttpConfig;
use crate::error::Error;
use crate::units::size;

type Socket = WebSocketStream<Upgraded>;

/// How the two sides say in the handshake that they mean MCP.
const SUBPROTOCOL: &str = "mcp";
/// How long the server may take to answer our close frame.
const CLOSE: Duration = Duration::from_secs(1);

/// A transport for a server that speaks MCP over a WebSocket, its handshake done.
pub(super) async fn connect(
    config: &HttpConfig,
    place: &ConfigPlace<'_>,
    bound: Duration,
    settings: &SessionSettings,
    wire: &Arc<Wire>,
) -> Result<Opened<WebSocketTransport>, Error> {
    let endpoint = Endpoint::new("ws_url", &[("ws", "http"), ("wss", "https")], config, place, bound, settings)?;
    let upgraded = match endpoint.authorization.within(bound, handshake(&endpoint)).await {
        Some(upgraded) => upgraded,
        None => Err(format!("it did not finish the WebSocket handshake within {} s", bound.as_secs_f64())),
    };
    let upgraded =
        upgraded.map_err(|message| Error::Connect { server: place.server.into(), message, stderr: Vec::new() })?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        .read_buffer_size(64 << 10)
        .write_buffer_size(0);
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(limits)).await;
    let (writer, reader) = socket.split();
    let writer = Arc::new(tokio::sync::Mutex::new(Some(writer)));
    let (closed, wire) = (watch::Sender::new(false), Arc::clone(wire));
    Ok(Opened::new(WebSocketTransport { reader, writer, closed, wire }).authorized(endpoint.authorization))
}

async fn handshake(endpoint: &Endpoint) -> Result<Upgraded, String> {
    let key = generate_key();
    let mut request = Request::new(Method::GET, endpoint.url.clone());
    let headers = request.headers_mut();
    headers.extend(endpoint.headers.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|error| error.to_string())?);
    let response = endpoint.send(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::UNAUTHORIZED => {
            return Err("it wants authorisation (HTTP 401 to the WebSocket handshake): set `auth` to a token, or \
                        `headers`, in its configuration"
                .into());
        }
        status => return Err(format!("it answered HTTP {status} to the WebSocket handshake; is `ws_url` right?")),
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if !header(UPGRADE).is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err("it switched to something other than a WebSocket".into());
    }
    if header(SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
        return Err("its answer to the WebSocket handshake was made for another request (`Sec-WebSocket-Accept`); is \
                    there a proxy in between?"
            .into());
    }
    // Many servers do not name the subprotocol; one that names another means something else.
    match header(SEC_WEBSOCKET_PROTOCOL) {
        None | Some(SUBPROTOCOL) => {}
        Some(other) => return Err(format!("it wants to speak `{other}` on the WebSocket, not `{SUBPROTOCOL}`")),
    }
    response.upgrade().await.map_err(request_failed)
}

/// MCP over an open WebSocket.
pub(super) struct WebSocketTransport {
    reader: SplitStream<Socket>,
    writer: Arc<tokio::sync::Mutex<Option<SplitSink<Socket, Message>>>>,
    /// Ends a write that the server does not take.
    closed: watch::Sender<bool>,
    wire: Arc<Wire>,
}

impl Transport<RoleClient> for WebSocketTransport {
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.wire.sent(&message);
        write(Arc::clone(&self.writer), self.closed.subscribe(), message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        // Pings are answered by the stream itself, while it is read.
        loop {
            let frame = tokio::select! {
                frame = self.reader.next() => frame?,
                nothing = self.wire.silence() => return Some(nothing),
            };
            let message = match frame {
                Ok(Message::Text(text)) => self.wire.received(&text),
                // Not what is agreed upon, but clear enough.
                Ok(Message::Binary(bytes)) => {
                    let text = str::from_utf8(&bytes).map_err(|_| bytes.len());
                    let tell = |length| self.wire.complain(format!("it sent a binary message of {length} bytes"));
                    text.map_err(tell).ok().and_then(|text| self.wire.received(text))
                }
                Ok(Message::Close(frame)) => {
                    self.wire.complain(closing(frame.as_ref()));
                    return None;
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
                Err(error) => {
                    self.wire.complain(broken(&error));
                    return None;
                }
            };
            let Some(message) = message else { continue };
            match self.wire.take_early(message) {
                Ok(answer) => {
                    let (writer, closed) = (Arc::clone(&self.writer), self.closed.subscribe());
                    tokio::spawn(async move { write(writer, closed, answer.await).await });
                }
                Err(message) => return Some(message),
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.send_replace(true);
        let Some(mut writer) = self.writer.lock().await.take() else { return Ok(()) };
        let farewell = async {
            // It fails where the server has closed first.
            let _ = writer.send(Message::Close(None)).await;
            while let Some(Ok(_)) = self.reader.next().await {}
        };
        let _ = tokio::time::timeout(CLOSE, farewell).await;
        Ok(())
    }
}

/// Writes a message, unless the connection is closed first.
async fn write(
    writer: Arc<tokio::sync::Mutex<Option<SplitSink<Socket, Message>>>>,
    mut closed: watch::Receiver<bool>,
    message: TxJsonRpcMessage<RoleClient>,
) -> io::Result<()> {
    let text = encoded(&message)?;
    let write = async {
        let mut writer = writer.lock().await;
        let writer = writer.as_mut().ok_or_else(not_connected)?;
        writer.send(Message::text(text)).await.map_err(|error| match error {
            SocketError::Io(error) => error,
            SocketError::ConnectionClosed | SocketError::AlreadyClosed => not_connected(),
            other => io::Error::other(other),
        })
    };
    tokio::select! {
        written = write => written,
        _ = closed.wait_for(|closed| *closed) => Err(not_connected()),
    }
}

fn closing(frame: Option<&CloseFrame>) -> String {
    match frame {
        None => "it closed the WebSocket without a code".into(),
        Some(frame) if frame.reason.is_empty() => format!("it closed the WebSocket with code {}", frame.code),
        Some(frame) => format!("it closed the WebSocket with code {}: `{}`", frame.code, frame.reason),
    }
}

fn broken(error: &SocketError) -> String {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => {
            format!("it sent a message of more than {}, and the connection was closed", size(MESSAGE_BYTES))
        }
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            "it ended the WebSocket without a close frame".into()
        }
        SocketError::Io(error) => format!("it ended the WebSocket without a close frame: {error}"),
        other => format!("it broke the WebSocket protocol: {other}"),
    }
}
