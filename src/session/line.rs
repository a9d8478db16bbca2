//! MCP over a pair of byte streams: a line of JSON a message. What servers write beside their messages is read past.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use rmcp::RoleClient;
use rmcp::model::{ClientNotification, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde::de::IgnoredAny;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;

use super::wire::{MESSAGE_BYTES, Wire, encoded};
use crate::sandbox::Meter;
use crate::units::size;

/// Places in a line that are looked at for the begin of a message.
const PLACES: usize = 16;

/// The transport. Lines that are no messages are skipped, as servers do print banners.
pub(super) struct LineTransport<R, W> {
    reader: BufReader<R>,
    /// The line as far as it has been read; `receive` may be cancelled in the middle of one.
    line: Vec<u8>,
    /// Messages that stood in one line with the last one.
    ready: VecDeque<ServerJsonRpcMessage>,
    writer: Arc<tokio::sync::Mutex<Option<W>>>,
    /// Ends a write that the server does not take.
    closed: watch::Sender<bool>,
    wire: Arc<Wire>,
    /// Of a sandboxed server.
    meter: Option<Arc<Meter>>,
}

impl<R: AsyncRead + Unpin, W> LineTransport<R, W> {
    pub(super) fn new(reader: R, writer: W, wire: Arc<Wire>) -> Self {
        let writer = Arc::new(tokio::sync::Mutex::new(Some(writer)));
        let reader = BufReader::with_capacity(64 << 10, reader);
        let (line, ready) = Default::default();
        Self { reader, line, ready, writer, closed: watch::Sender::new(false), wire, meter: None }
    }

    /// Tells the meter of each request.
    pub(super) fn metered(self, meter: Option<Arc<Meter>>) -> Self {
        Self { meter, ..self }
    }

    /// Reads up to the next line's end into `line`; `false` at the end of the stream, or where the line is too long.
    async fn read_line(&mut self) -> bool {
        loop {
            let Ok(available) = self.reader.fill_buf().await else { return false };
            if available.is_empty() {
                return false;
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            self.line.extend_from_slice(&available[..taken]);
            self.reader.consume(taken);
            if self.line.len() > MESSAGE_BYTES {
                self.wire.complain(format!(
                    "it sent a message of more than {}, and the connection was closed",
                    size(MESSAGE_BYTES)
                ));
                return false;
            }
            if end.is_some() {
                return true;
            }
        }
    }

    /// Takes the messages of a line, mostly one.
    fn take(&mut self, line: &str) {
        let reason = match self.wire.read(line) {
            Ok(message) => return self.ready.extend(message),
            Err(reason) => reason,
        };
        let messages = messages_in(line);
        // A batch is none of what is read past.
        let is_batch = || line.starts_with('[') && serde_json::from_str::<Vec<IgnoredAny>>(line).is_ok();
        if messages.is_empty() || is_batch() {
            return self.wire.junk(line, &reason);
        }
        tracing::debug!(line = &line[..line.floor_char_boundary(200)], "read past what stands beside a message");
        for message in messages {
            let message = self.wire.read(message).unwrap_or_else(|reason| {
                self.wire.junk(message, &reason);
                None
            });
            self.ready.extend(message);
        }
    }
}

/// The messages in a line that has something else in it too: a byte order mark, codes for a terminal, text that was printed without an
/// end of the line, or another message.
fn messages_in(line: &str) -> Vec<&str> {
    let mut messages = Vec::new();
    let (mut rest, mut left) = (line, 2 * PLACES);
    // Where there are many places, only those are looked at that messages mostly begin with.
    while let Some(place) = rest.find(if left > PLACES { "{" } else { "{\"jsonrpc\"" }).filter(|_| left > 0) {
        let from = &rest[place..];
        let mut values = serde_json::Deserializer::from_str(from).into_iter::<IgnoredAny>();
        if let Some(Ok(_)) = values.next() {
            let (value, after) = from.split_at(values.byte_offset());
            if value.contains("\"jsonrpc\"") {
                messages.push(value);
            } else {
                left -= 1;
            }
            rest = after;
        } else {
            left -= 1;
            rest = &from[1..];
        }
    }
    messages
}

/// Writes a message, unless the connection is closed first.
async fn write<W: AsyncWrite + Unpin>(
    writer: Arc<tokio::sync::Mutex<Option<W>>>,
    mut closed: watch::Receiver<bool>,
    message: TxJsonRpcMessage<RoleClient>,
) -> io::Result<()> {
    let mut line = encoded(&message)?;
    line.push('\n');
    let write = async {
        let mut writer = writer.lock().await;
        let writer = writer.as_mut().ok_or_else(not_connected)?;
        writer.write_all(line.as_bytes()).await?;
        writer.flush().await
    };
    tokio::select! {
        written = write => written,
        _ = closed.wait_for(|closed| *closed) => Err(not_connected()),
    }
}

pub(super) fn not_connected() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection is closed")
}

impl<R, W> Transport<RoleClient> for LineTransport<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Error = io::Error;

    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.wire.sent(&message);
        match (&message, &self.meter) {
            (JsonRpcMessage::Request(_), Some(meter)) => meter.request(),
            (JsonRpcMessage::Notification(told), Some(meter))
                if matches!(told.notification, ClientNotification::CancelledNotification(_)) =>
            {
                meter.answered();
            }
            _ => {}
        }
        write(Arc::clone(&self.writer), self.closed.subscribe(), message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let wire = Arc::clone(&self.wire);
        loop {
            while let Some(message) = self.ready.pop_front() {
                let message = match wire.take_early(message) {
                    Ok(answer) => {
                        let (writer, closed) = (Arc::clone(&self.writer), self.closed.subscribe());
                        tokio::spawn(async move { write(writer, closed, answer.await).await });
                        continue;
                    }
                    Err(message) => message,
                };
                if let (JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_), Some(meter)) = (&message, &self.meter) {
                    meter.answered();
                }
                return Some(message);
            }
            tokio::select! {
                is_line = self.read_line() => if !is_line { return None },
                nothing = wire.silence() => return Some(nothing),
            }
            let line = std::mem::take(&mut self.line);
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if !text.is_empty() {
                self.take(text);
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.send_replace(true);
        // Dropping it closes the server's standard input, which tells it to end.
        drop(self.writer.lock().await.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_beside_other_things() {
        let message = r#"{"jsonrpc":"2.0","id":1,"result":{"a":"{"}}"#;
        for line in [
            format!("\u{feff}{message}"),
            format!("\u{1b}[2J\u{1b}[32m{message}\u{1b}[0m"),
            format!("Server is up! {message}"),
            format!("loading {{config}} {{}} {{\"a\": 1}} … {message} done"),
            format!("{message}Content-Length: 5"),
            format!("[INFO] up {message}"),
            format!("{} {message}", "{} {x} ".repeat(99)),
        ] {
            assert_eq!(messages_in(&line), [message], "{line}");
        }
        assert_eq!(messages_in(&format!("{message}{message} and {message}")), [message; 3]);
        for nothing in ["", "Traceback", "{\"a\": 1}", "{{{{", "{\"jsonrpc\": \"2.0\", ", &"{".repeat(1 << 20)] {
            assert!(messages_in(nothing).is_empty());
        }
    }
}
