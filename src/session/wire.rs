//! Messages on the wire, whatever the transport. rmcp types every message, which for answers of tools means a detour over values that
//! loses digits and rejects a whole list for one odd tool. So the answers that a caller wants as text are diverted here, and rmcp sees an
//! empty result.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rmcp::RoleClient;
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, EmptyResult, ErrorCode, ErrorData, GetExtensions, ListToolsResult, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;

/// Longest message that a server may send. An answer may have 8 MiB, which can double when JSON is sent inside of a JSON string.
pub(super) const MESSAGE_BYTES: usize = 32 << 20;
/// Requests under way from which on those are looked for that nobody waits for.
const FORGOTTEN: usize = 64;
/// No notification of a change is longer.
const NOTIFICATION_BYTES: usize = 4096;
/// Messages of junk that are kept for an error message, and the length of each.
const JUNK_LINES: usize = 3;
const JUNK_BYTES: usize = 200;

/// Where the text of an answer goes. It travels to the transport with its request.
pub(super) type Slot = Mutex<Option<String>>;

/// Marks a request whose answer is wanted as text.
#[derive(Clone)]
pub(super) struct WantsText(pub(super) Weak<Slot>);

/// What a connection's transport and its session share: the requests under way whose answers are wanted as text, what was wrong with
/// what the server sent, and whether its tools changed. Every transport hands it each message, in order: [`Wire::sent`],
/// [`Wire::received`].
#[derive(Default)]
pub(super) struct Wire {
    /// How often the server said that its tools changed. Counted here, as rmcp tells of it in a task of its own, after answers that
    /// came later.
    pub(super) tools_changed: AtomicU64,
    /// Whether rmcp gets lists of tools as such, beside the text. A tool that it can't read is not in its list.
    pub(super) lists_tools_typed: AtomicBool,
    waiting: Mutex<HashMap<RequestId, Waiting>>,
    /// The `server/discover` that is under way.
    discovering: Mutex<Option<RequestId>>,
    complaints: Mutex<VecDeque<String>>,
}

/// A request under way whose answer is wanted as text.
struct Waiting {
    slot: Weak<Slot>,
    lists_tools: bool,
}

/// As much of a message as decides whether it is a diverted answer.
#[derive(Deserialize)]
struct Peek<'a> {
    id: Option<RequestId>,
    method: Option<IgnoredAny>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

impl Wire {
    /// Notes a request that goes out.
    pub(super) fn sent(&self, message: &ClientJsonRpcMessage) {
        let ClientJsonRpcMessage::Request(request) = message else { return };
        if matches!(request.request, ClientRequest::DiscoverRequest(_)) {
            *self.discovering.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.id.clone());
        }
        if let Some(WantsText(slot)) = request.request.extensions().get::<WantsText>() {
            let mut waiting = self.waiting();
            if waiting.len() >= FORGOTTEN {
                // Callers that are gone, and whose servers never answered.
                waiting.retain(|_, waiting| waiting.slot.strong_count() > 0);
            }
            let lists_tools = self.lists_tools_typed.load(Ordering::Relaxed)
                && matches!(request.request, ClientRequest::ListToolsRequest(_));
            waiting.insert(request.id.clone(), Waiting { slot: slot.clone(), lists_tools });
        }
    }

    /// Takes a message that came in, in the order in which it came: what rmcp gets in its place. `None` for what is no message, which is
    /// noted for [`Wire::complaints`].
    pub(super) fn received(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        if let Some(message) = self.divert(text) {
            return Some(message);
        }
        match serde_json::from_str(text) {
            Ok(message) => Some(message),
            Err(error) => {
                let shown = &text[..text.floor_char_boundary(JUNK_BYTES)];
                tracing::warn!(message = shown, %error, "skipped what is no MCP message");
                self.complain(format!("it sent what is no MCP message: `{shown}`"));
                None
            }
        }
    }

    /// Takes a message that came in, if its text is wanted: the message that rmcp gets in its place.
    pub(super) fn divert(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        // To list once too often does no harm, so that there is no need to parse, whether slashes are escaped or not.
        if text.len() < NOTIFICATION_BYTES && text.contains("tools") && text.contains("list_changed\"") {
            self.tools_changed.fetch_add(1, Ordering::Release);
        }
        if let Some(refused) = self.discovery(text) {
            return Some(refused);
        }
        if self.waiting().is_empty() {
            return None;
        }
        let Peek { id: Some(id), method: None, result } = serde_json::from_str(text).ok()? else { return None };
        let waiting = self.waiting().remove(&id)?;
        let result = result?; // else an error, which rmcp types well
        // Where nobody waits any more, the answer is dropped.
        if let Some(slot) = waiting.slot.upgrade() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.get().into());
        }
        let typed = if waiting.lists_tools {
            ServerResult::ListToolsResult(ListToolsResult::with_all_items(typed_tools(result.get())))
        } else {
            ServerResult::EmptyResult(EmptyResult {})
        };
        Some(ServerJsonRpcMessage::response(typed, id))
    }

    /// What rmcp gets in place of an answer to `server/discover` that is none: some older servers answer what they don't know with an
    /// empty result, and rmcp goes on with them only after an error.
    fn discovery(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Discovery {
            #[allow(dead_code, reason = "it only has to be there")]
            supported_versions: Vec<IgnoredAny>,
        }
        let mut discovering = self.discovering.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = discovering.as_ref()?;
        let Peek { id: Some(id), method: None, result } = serde_json::from_str(text).ok()? else { return None };
        if id != *expected {
            return None;
        }
        *discovering = None;
        let is_one = serde_json::from_str::<Discovery>(result?.get()).is_ok();
        let error = || ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "the answer is none to `server/discover`", None);
        (!is_one).then(|| ServerJsonRpcMessage::error(error(), Some(id)))
    }

    /// Notes what is wrong with what the server sends.
    pub(super) fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() == JUNK_LINES {
            complaints.pop_front();
        }
        complaints.push_back(complaint);
    }

    /// What was wrong with what the server sent last, for the end of an error message: `; it …`, or nothing.
    pub(super) fn complaints(&self) -> String {
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.iter().flat_map(|complaint| ["; ", complaint]).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those tools of a list that rmcp can read.
pub(super) fn typed_tools(list: &str) -> Vec<rmcp::model::Tool> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, default)]
        tools: Vec<&'a RawValue>,
    }
    let tools = serde_json::from_str(list).map(|List { tools }| tools).unwrap_or_default();
    tools.into_iter().filter_map(|tool| serde_json::from_str(tool.get()).ok()).collect()
}

/// MCP over a pair of byte streams: a line of JSON a message. Other lines are skipped, as servers do print banners.
pub(super) struct LineTransport<R, W> {
    reader: BufReader<R>,
    /// The line as far as it has been read; `receive` may be cancelled in the middle of one.
    line: Vec<u8>,
    writer: Arc<tokio::sync::Mutex<Option<W>>>,
    /// Ends a write that the server does not take.
    closed: watch::Sender<bool>,
    wire: Arc<Wire>,
}

impl<R: AsyncRead + Unpin, W> LineTransport<R, W> {
    pub(super) fn new(reader: R, writer: W, wire: Arc<Wire>) -> Self {
        let writer = Arc::new(tokio::sync::Mutex::new(Some(writer)));
        let reader = BufReader::with_capacity(64 << 10, reader);
        Self { reader, line: Vec::new(), writer, closed: watch::Sender::new(false), wire }
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
                    "it sent a message of more than {MESSAGE_BYTES} bytes, and the connection was closed"
                ));
                return false;
            }
            if end.is_some() {
                return true;
            }
        }
    }
}

fn not_connected() -> io::Error {
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
        let (writer, mut closed) = (Arc::clone(&self.writer), self.closed.subscribe());
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let write = async {
                let mut writer = writer.lock().await;
                let writer = writer.as_mut().ok_or_else(not_connected)?;
                writer.write_all(&line).await?;
                writer.flush().await
            };
            tokio::select! {
                written = write => written,
                _ = closed.wait_for(|closed| *closed) => Err(not_connected()),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        while self.read_line().await {
            let line = std::mem::take(&mut self.line);
            let text = String::from_utf8_lossy(&line);
            if let Some(message) =
                Some(text.trim()).filter(|text| !text.is_empty()).and_then(|text| self.wire.received(text))
            {
                return Some(message);
            }
        }
        None
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.send_replace(true);
        // Dropping it closes the server's standard input, which tells it to end.
        drop(self.writer.lock().await.take());
        Ok(())
    }
}
