//! Messages on the wire, whatever the transport. rmcp types every message, which for answers of tools means a detour over values that
//! loses digits and rejects a whole list for one odd tool. So the answers that a caller wants as text are diverted here, and rmcp sees an
//! empty result.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, EmptyResult, ErrorCode, ErrorData, GetExtensions, GetMeta, JsonRpcMessage,
    ListToolsResult, LoggingLevel, ProgressToken, RequestId, ServerJsonRpcMessage, ServerNotification, ServerResult,
};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast, mpsc};

use super::callbacks::{Callbacks, Origin, severity};
use super::connection::ASKED;
use super::lenient::{self, Greeting};
use crate::tool::{BoxFuture, CallOptions, Digits, LogSink, Progress, WithDigits};

/// Longest message that a server may send. An answer may have 8 MiB, which can double when JSON is sent inside of a JSON string.
pub(super) const MESSAGE_BYTES: usize = 32 << 20;
/// Requests under way from which on those are looked for that nobody waits for.
const FORGOTTEN: usize = 64;
/// How long a server may be silent before it counts as one that does not know `server/discover`.
const SILENCE: Duration = Duration::from_secs(3);
/// Longest URI of a resource whose updates are told.
const URI_BYTES: usize = 8 << 10;
/// Updates of resources that a subscriber may be behind.
const UPDATES: usize = 256;
/// Messages of junk that are kept for an error message, and the length of each.
const JUNK_LINES: usize = 3;
const JUNK_BYTES: usize = 200;

/// A request under way: where the text of its answer goes, and who hears of it in the meantime. It travels to the transport with its
/// request.
#[derive(Default)]
pub(super) struct Flight {
    answer: Mutex<Option<String>>,
    options: CallOptions,
    /// Told when the server says that it goes on.
    progressed: Notify,
    /// How often it was.
    told: AtomicU64,
    /// Whether progress is told under its token after the answer too, as that of a task is.
    outlives_answer: AtomicBool,
}

impl Flight {
    pub(super) fn new(options: CallOptions) -> Arc<Self> {
        Arc::new(Self { options, ..Self::default() })
    }

    /// A request that makes a task, and those about that task after it.
    pub(super) fn of_task(options: CallOptions) -> Arc<Self> {
        Arc::new(Self { options, outlives_answer: AtomicBool::new(true), ..Self::default() })
    }

    /// Waits for the next sign that the server goes on with it. One that came since the last wait counts.
    pub(super) async fn progress(&self) {
        self.progressed.notified().await;
    }

    /// How often the server said that it goes on with it.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// The JSON text of the result, once it is there.
    pub(super) fn answer(&self) -> Option<String> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Marks a request whose answer is wanted as text.
#[derive(Clone)]
pub(super) struct WantsText(pub(super) Weak<Flight>);

/// Marks a call of a tool among whose arguments are integers that rmcp's types can't hold, so that they are strings there.
#[derive(Clone)]
pub(super) struct HasDigits(pub(super) Arc<Digits>);

/// The text of a message that goes out.
pub(super) fn encoded(message: &ClientJsonRpcMessage) -> serde_json::Result<String> {
    let marked = match message {
        ClientJsonRpcMessage::Request(request) => request.request.extensions().get::<HasDigits>(),
        _ => None,
    };
    let Some(HasDigits(digits)) = marked else { return serde_json::to_string(message) };
    let digits = Digits::clone(digits).in_property("arguments").in_property("params");
    serde_json::to_string(&WithDigits { value: &serde_json::to_value(message)?, digits: Some(&digits) })
}

/// A `server/discover` that is under way.
struct Discovery {
    id: RequestId,
    /// When silence counts as an answer.
    until: Option<Instant>,
    /// Whether `initialize` was sent after it.
    is_given_up: bool,
}

/// What begins a connection.
#[derive(Clone, Copy)]
enum Handshake {
    Initialize,
    Discover,
}

/// Who answers what a server asks before it has answered the handshake: rmcp does so only after it.
struct Early {
    callbacks: Arc<Callbacks>,
    origin: Origin,
    asked: AtomicUsize,
}

/// A notification on its way to the callbacks.
pub(super) struct Heard {
    pub(super) notification: ServerNotification,
    pub(super) bytes: usize,
}

struct UnderWay {
    flight: Weak<Flight>,
    lists_tools: bool,
    progress_token: Option<ProgressToken>,
}

/// What a connection's transport and its session share: the requests under way, what the server said of its own accord, and what was
/// wrong with what it sent. Every transport hands it each message, in order: [`Wire::sent`], [`Wire::received`]. What is here is in that
/// order too, as rmcp tells of notifications in tasks of their own, after answers that came later.
pub(super) struct Wire {
    /// How often the server said that its tools changed.
    pub(super) tools_changed: AtomicU64,
    /// The URIs of resources that the server said were updated.
    pub(super) updated: broadcast::Sender<String>,
    /// Whether rmcp gets lists of tools as such, beside the text. A tool that it can't read is not in its list.
    pub(super) lists_tools_typed: AtomicBool,
    under_way: Mutex<HashMap<RequestId, UnderWay>>,
    /// Whether `server/discover` is only tried, and `initialize` follows where there is no answer.
    pub(super) tries_discovery: AtomicBool,
    discovering: Mutex<Option<Discovery>>,
    /// Whether the server knows `server/discover`, and only took long to say so.
    pub(super) discovered_late: AtomicBool,
    /// The request that is to begin the connection.
    handshake: Mutex<Option<(RequestId, Handshake)>>,
    /// Whether it was answered.
    has_begun: AtomicBool,
    /// What is wrong with the answer to `initialize`.
    misfit: Mutex<Option<String>>,
    /// Whether the server did not say what it offers, so that it has to be asked.
    pub(super) is_vague: AtomicBool,
    early: OnceLock<Early>,
    /// Whether the server may have forgotten the session.
    doubted: AtomicBool,
    complaints: Mutex<VecDeque<String>>,
    /// For the callbacks, where there are any.
    heard: Option<mpsc::Sender<Heard>>,
    /// Size of what waits for the callbacks.
    waiting_bytes: AtomicUsize,
    unheard: AtomicU64,
    /// The severity from which on log messages are told.
    log_level: AtomicU8,
}

/// As much of a message as decides what becomes of it.
#[derive(Deserialize)]
struct Peek<'a> {
    id: Option<RequestId>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgressMessage {
    progress_token: ProgressToken,
    progress: f64,
    total: Option<f64>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct LogMessage {
    level: LoggingLevel,
    logger: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Updated {
    uri: String,
}

impl Wire {
    /// `heard` gets the notifications; log messages are told from `log_level` on.
    pub(super) fn new(log_level: LoggingLevel, heard: Option<mpsc::Sender<Heard>>) -> Arc<Self> {
        Arc::new(Self {
            tools_changed: AtomicU64::default(),
            updated: broadcast::Sender::new(UPDATES),
            lists_tools_typed: AtomicBool::default(),
            under_way: Mutex::default(),
            tries_discovery: AtomicBool::default(),
            discovering: Mutex::default(),
            discovered_late: AtomicBool::default(),
            handshake: Mutex::default(),
            has_begun: AtomicBool::default(),
            misfit: Mutex::default(),
            is_vague: AtomicBool::default(),
            early: OnceLock::new(),
            doubted: AtomicBool::default(),
            complaints: Mutex::default(),
            heard,
            waiting_bytes: AtomicUsize::default(),
            unheard: AtomicU64::default(),
            log_level: severity(log_level).into(),
        })
    }

    pub(super) fn set_log_level(&self, level: LoggingLevel) {
        self.log_level.store(severity(level), Ordering::Relaxed);
    }

    /// Whether a log message is severe enough to be told.
    pub(super) fn tells(&self, level: LoggingLevel) -> bool {
        severity(level) >= self.log_level.load(Ordering::Relaxed)
    }

    /// Notes a request that goes out.
    pub(super) fn sent(&self, message: &ClientJsonRpcMessage) {
        let ClientJsonRpcMessage::Request(request) = message else { return };
        match (&request.request, &mut *self.discovering()) {
            (ClientRequest::DiscoverRequest(_), discovering) if self.tries_discovery.load(Ordering::Relaxed) => {
                *discovering = Some(Discovery {
                    id: request.id.clone(),
                    until: Some(Instant::now() + SILENCE),
                    is_given_up: false,
                });
            }
            (ClientRequest::InitializeRequest(_), Some(discovery)) => discovery.is_given_up = true,
            _ => {}
        }
        let handshake = match &request.request {
            ClientRequest::InitializeRequest(_) => Some(Handshake::Initialize),
            // Later, it is a sign of life.
            ClientRequest::DiscoverRequest(_) if !self.has_begun.load(Ordering::Acquire) => Some(Handshake::Discover),
            _ => None,
        };
        if let Some(handshake) = handshake {
            *self.handshake.lock().unwrap_or_else(PoisonError::into_inner) = Some((request.id.clone(), handshake));
        }
        if let Some(WantsText(flight)) = request.request.extensions().get::<WantsText>() {
            let mut under_way = self.under_way();
            if under_way.len() >= FORGOTTEN {
                // Callers that are gone, and whose servers never answered.
                under_way.retain(|_, entry| entry.flight.strong_count() > 0);
            }
            let progress_token = request.request.get_meta().get_progress_token();
            let lists_tools = self.lists_tools_typed.load(Ordering::Relaxed)
                && matches!(request.request, ClientRequest::ListToolsRequest(_));
            let entry = UnderWay { flight: flight.clone(), lists_tools, progress_token };
            under_way.insert(request.id.clone(), entry);
        }
    }

    /// Takes a message that came in, in the order in which it came: what rmcp gets in its place. What answers a request, but can't be read,
    /// becomes an error for whoever waits for it. `None` for what is no message, which is noted for [`Wire::complaints`].
    pub(super) fn received(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        self.read(text).unwrap_or_else(|reason| {
            self.junk(text, &reason);
            None
        })
    }

    /// Notes what is no message.
    pub(super) fn junk(&self, text: &str, reason: &serde_json::Error) {
        let shown = &text[..text.floor_char_boundary(JUNK_BYTES)];
        tracing::warn!(message = shown, error = %reason, "skipped what is no MCP message");
        self.complain(format!("it sent what is no MCP message: `{shown}`"));
    }

    /// The same as [`Wire::received`], where somebody else sees to what is no message.
    ///
    /// # Errors
    /// Why it is no message.
    pub(super) fn read(&self, text: &str) -> Result<Option<ServerJsonRpcMessage>, serde_json::Error> {
        let text = text.trim_start_matches('\u{feff}');
        if self.is_late_discovery(text) {
            return Ok(None);
        }
        if let Some(message) = self.greeted(text).or_else(|| self.divert(text)) {
            return Ok(Some(message));
        }
        let reason = match serde_json::from_str(text) {
            Ok(message) => return Ok(Some(message)),
            Err(reason) => reason,
        };
        let Ok(Peek { id: Some(id), method: None, .. }) = serde_json::from_str(text) else { return Err(reason) };
        if let Some(error) = lenient::error(text) {
            return Ok(Some(ServerJsonRpcMessage::error(error, Some(id))));
        }
        let shown = &text[..text.floor_char_boundary(JUNK_BYTES)];
        tracing::warn!(message = shown, error = %reason, "an answer is no JSON-RPC response");
        let error = ErrorData::parse_error(format!("its answer is no JSON-RPC response: `{shown}`"), None);
        Ok(Some(ServerJsonRpcMessage::error(error, Some(id))))
    }

    /// Reads the answer to the handshake, as servers really write it.
    fn greeted(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        let mut handshake = self.handshake.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, kind) = handshake.as_ref()?;
        let Ok(Peek { id: Some(answered), method: None, result: Some(result), .. }) = serde_json::from_str(text) else {
            return None;
        };
        // Some give a number back as text.
        if answered.to_string() != id.to_string() {
            return None;
        }
        let greeting = match kind {
            Handshake::Initialize => lenient::initialize_result(result.get())
                .map(|Greeting { result, is_vague }| (ServerResult::InitializeResult(result), is_vague)),
            // Where it is no answer to that, the server may not know what it was asked.
            Handshake::Discover => lenient::discover_result(result.get())
                .map(|Greeting { result, is_vague }| (ServerResult::DiscoverResult(result), is_vague)),
        };
        match (greeting, kind) {
            (Ok((result, is_vague)), _) => {
                self.is_vague.store(is_vague, Ordering::Release);
                self.has_begun.store(true, Ordering::Release);
                let (id, _) = handshake.take()?;
                Some(ServerJsonRpcMessage::response(result, id))
            }
            (Err(_), Handshake::Discover) => None,
            (Err(misfit), Handshake::Initialize) => {
                let error = ErrorData::invalid_request(misfit.clone(), None);
                *self.misfit.lock().unwrap_or_else(PoisonError::into_inner) = Some(misfit);
                Some(ServerJsonRpcMessage::error(error, Some(id.clone())))
            }
        }
    }

    /// What is wrong with the answer to `initialize`, if it can't be used.
    pub(super) fn misfit(&self) -> Option<String> {
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets who answers what the server asks before it has answered the handshake.
    pub(super) fn answer_early_by(&self, callbacks: Arc<Callbacks>, origin: Origin) {
        // A wire has one handshake after the other at most, all by the same.
        let _ = self.early.set(Early { callbacks, origin, asked: AtomicUsize::new(0) });
    }

    /// Takes out what the server asks before it has answered the handshake, as it may wait for the answer: the answer, which the transport
    /// is to send. Everything else is given back.
    #[expect(clippy::result_large_err, reason = "almost every message is given back, as it came")]
    pub(super) fn take_early(
        &self,
        message: ServerJsonRpcMessage,
    ) -> Result<BoxFuture<'static, ClientJsonRpcMessage>, ServerJsonRpcMessage> {
        let Some(Early { callbacks, origin, asked }) = self.early.get() else { return Err(message) };
        let JsonRpcMessage::Request(request) = message else { return Err(message) };
        if self.has_begun.load(Ordering::Acquire) {
            return Err(JsonRpcMessage::Request(request));
        }
        let is_too_much = asked.fetch_add(1, Ordering::Relaxed) >= ASKED;
        let (callbacks, origin, id) = (Arc::clone(callbacks), origin.clone(), request.id);
        Ok(Box::pin(async move {
            if is_too_much {
                let message = format!("this client answers {ASKED} requests before the handshake, and no more");
                return ClientJsonRpcMessage::error(ErrorData::internal_error(message, None), Some(id));
            }
            callbacks.requested(request.request.clone(), &origin).await;
            match callbacks.answer(request.request, &origin).await {
                Ok(result) => ClientJsonRpcMessage::response(result, id),
                Err(error) => ClientJsonRpcMessage::error(error, Some(id)),
            }
        }))
    }

    /// Notes that the server may have forgotten the session, so that it is to be asked before it is used again.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Acquire)
    }

    /// The server knows the session.
    pub(super) fn trust(&self) {
        self.doubted.store(false, Ordering::Release);
    }

    /// Whether this answers a `server/discover` that was given up, as a server may do that took long to start. rmcp would take it for
    /// the answer to `initialize`.
    fn is_late_discovery(&self, text: &str) -> bool {
        let mut discovering = self.discovering();
        let Some(discovery) = &*discovering else { return false };
        match serde_json::from_str(text) {
            Ok(Peek { id: Some(answered), method: None, result, .. }) if answered == discovery.id => {
                let is_late = discovery.is_given_up;
                *discovering = None;
                if is_late && result.is_some() {
                    self.discovered_late.store(true, Ordering::Relaxed);
                }
                is_late
            }
            _ => false,
        }
    }

    /// Waits until `server/discover` has been tried for long enough, if it is being tried: what rmcp gets in place of an answer, so that it
    /// goes on with `initialize`. Servers must answer what they do not know, and some do not.
    pub(super) async fn silence(&self) -> ServerJsonRpcMessage {
        let until = self.discovering().as_ref().and_then(|discovery| discovery.until);
        let Some(until) = until else { return std::future::pending().await };
        tokio::time::sleep_until(until.into()).await;
        let mut discovering = self.discovering();
        let id = discovering.as_mut().map(|discovery| {
            discovery.until = None;
            discovery.id.clone()
        });
        let error = ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "it does not answer `server/discover`", None);
        ServerJsonRpcMessage::error(error, id)
    }

    fn discovering(&self) -> std::sync::MutexGuard<'_, Option<Discovery>> {
        self.discovering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message that came in, if its text is wanted: the message that rmcp gets in its place.
    pub(super) fn divert(&self, text: &str) -> Option<ServerJsonRpcMessage> {
        let Peek { id, method, params, result } = serde_json::from_str(text).ok()?;
        let id = match (id, method) {
            (None, Some(method)) => {
                self.notified(&method, params.map_or("null", RawValue::get), text);
                return None;
            }
            (Some(id), None) => id,
            _ => return None,
        };
        let mut under_way = self.under_way();
        let UnderWay { flight, lists_tools, .. } = under_way.get(&id)?;
        let (flight, lists_tools) = (flight.upgrade(), *lists_tools);
        // Only the first of a task's requests has the token.
        if !flight.as_ref().is_some_and(|flight| flight.outlives_answer.swap(false, Ordering::Relaxed)) {
            under_way.remove(&id);
        }
        drop(under_way);
        let result = result?; // else an error, which rmcp types well
        // Where nobody waits any more, the answer is dropped.
        if let Some(flight) = flight {
            *flight.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.get().into());
        }
        let typed = if lists_tools {
            ServerResult::ListToolsResult(ListToolsResult::with_all_items(typed_tools(result.get())))
        } else {
            ServerResult::EmptyResult(EmptyResult {})
        };
        Some(ServerJsonRpcMessage::response(typed, id))
    }

    fn notified(&self, method: &str, params: &str, text: &str) {
        match method {
            "notifications/tools/list_changed" => drop(self.tools_changed.fetch_add(1, Ordering::Release)),
            "notifications/resources/updated" => {
                if let Ok(Updated { uri }) = serde_json::from_str(params)
                    && uri.len() <= URI_BYTES
                {
                    let _ = self.updated.send(uri);
                }
            }
            "notifications/progress" => self.progressed(params),
            "notifications/message" => self.logged(params),
            _ => {}
        }
        let Some(heard) = &self.heard else { return };
        let Ok(ServerJsonRpcMessage::Notification(message)) = serde_json::from_str(text) else { return };
        let bytes = text.len();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_room = waiting == 0 || waiting + bytes <= MESSAGE_BYTES;
        if !is_room || heard.try_send(Heard { notification: message.notification, bytes }).is_err() {
            self.taken(bytes);
            let unheard = self.unheard.fetch_add(1, Ordering::Relaxed);
            // Once a burst, not once a message.
            if unheard.is_multiple_of(1000) {
                tracing::warn!(method, unheard = unheard + 1, "notifications come faster than the callbacks take them");
            }
        }
    }

    /// Notes that a callback has taken a notification.
    pub(super) fn taken(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn progressed(&self, params: &str) {
        let Ok(ProgressMessage { progress_token, progress, total, message }) = serde_json::from_str(params) else {
            return self.complain("it sent a `notifications/progress` that can't be read".into());
        };
        let flight = {
            let under_way = self.under_way();
            let mut flights = under_way.values().filter(|entry| entry.progress_token.as_ref() == Some(&progress_token));
            flights.next().and_then(|entry| entry.flight.upgrade())
        };
        let Some(flight) = flight else { return };
        flight.told.fetch_add(1, Ordering::Relaxed);
        flight.progressed.notify_one();
        if let Some(tell) = &flight.options.on_progress {
            guarded(|| tell(&Progress { progress, total, message }));
        }
    }

    fn logged(&self, params: &str) {
        let Ok(LogMessage { level, logger, data }) = serde_json::from_str(params) else {
            return self.complain("it sent a `notifications/message` that can't be read".into());
        };
        if !self.tells(level) {
            return;
        }
        let flights: Vec<Arc<Flight>> = self.under_way().values().filter_map(|entry| entry.flight.upgrade()).collect();
        let mut sinks = flights.iter().filter_map(|flight| flight.options.on_log.as_ref()).peekable();
        if sinks.peek().is_none() {
            return;
        }
        let level = serde_json::to_value(level).unwrap_or_default();
        let level = level.as_str().unwrap_or_default();
        let logger = logger.map(|logger| format!(" {logger}")).unwrap_or_default();
        let data = data.as_str().map_or_else(|| data.to_string(), String::from);
        // A run that has several calls under way has one log.
        let mut told: Vec<&LogSink> = Vec::new();
        for sink in sinks {
            if !told.iter().any(|other| Arc::ptr_eq(other, sink)) {
                guarded(|| sink(&format!("{level}{logger}: {data}")));
                told.push(sink);
            }
        }
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

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Calls what somebody else wrote, on the task that reads from the server.
fn guarded(callback: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback for progress or log messages panicked");
    }
}
