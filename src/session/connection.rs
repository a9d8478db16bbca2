//! One connection to one server, from the transport that stands to its end: the handshake, requests as text, what the server asks, and
//! the tasks that belong to it. A session has one after the other.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::StatusCode;
use rmcp::model::{
    CancelledNotification, CancelledNotificationParam, ClientConfig, ClientNotification, ClientRequest, ClientResult,
    DiscoverRequest, DiscoverRequestParams, ErrorData, GetExtensions, LoggingLevel, PingRequest, ProtocolVersion,
    RequestId, RequestMetaObject, ServerNotification, ServerPeerInfo, ServerRequest, ServerResult, SubscriptionFilter,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext, Peer, PeerRequestOptions,
    RequestContext, RunningService, ServiceError,
};
use rmcp::transport::Transport;
use rmcp::{RoleClient, Service};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::authorization::Authorization;
use super::callbacks::{Callbacks, Origin};
use super::http;
use super::process::Process;
use super::wire::{Flight, Heard, WantsText, Wire};
use crate::catalog::ToolSet;
use crate::error::with_causes;
use crate::sandbox::Limit;
use crate::tool::{BoxFuture, CallOptions, FailureKind};

/// The newest revision without `initialize`, and the newest with it.
pub(super) const MODERN: ProtocolVersion = ProtocolVersion::V_2026_07_28;
pub(super) const LEGACY: ProtocolVersion = ProtocolVersion::V_2025_11_25;
/// Notifications that may wait for the callbacks.
const UNHEARD: usize = 1024;
/// Requests of a server that are answered at once.
pub(super) const ASKED: usize = 64;
/// How long closing may take at most, over the bounds of the process itself.
const CLOSE: Duration = Duration::from_secs(10);
/// How long a server may take to say whether it still knows a session.
const KNOWN: Duration = Duration::from_secs(5);
/// How long to wait before changes are listened for again, when the server ended it.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

type Running = RunningService<RoleClient, Handler>;
type Serve =
    Box<dyn FnOnce(Handler, ClientLifecycleMode) -> BoxFuture<'static, Result<Running, ClientInitializeError>> + Send>;

/// A transport, and what belongs to it.
pub(super) struct Opened<T> {
    transport: T,
    process: Option<Process>,
    authorization: Arc<Authorization>,
    needed: Option<watch::Sender<()>>,
}

impl<T> Opened<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport, process: None, authorization: Arc::new(Authorization::None), needed: None }
    }

    /// It is told, by the end of this, when nobody needs it any more.
    pub(super) fn while_needed(self, needed: watch::Sender<()>) -> Self {
        Self { needed: Some(needed), ..self }
    }

    /// It speaks with a process of ours.
    pub(super) fn with_process(self, process: Process) -> Self {
        Self { process: Some(process), ..self }
    }

    /// What it sends is authorised.
    pub(super) fn authorized(self, authorization: Arc<Authorization>) -> Self {
        Self { authorization, ..self }
    }
}

/// A transport that stands, with nothing said on it yet.
pub(super) struct Link {
    pub(super) wire: Arc<Wire>,
    process: Option<Process>,
    authorization: Arc<Authorization>,
    needed: Option<watch::Sender<()>>,
    heard: Option<mpsc::Receiver<Heard>>,
    serve: Serve,
}

/// How a connection is to begin.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lifecycle {
    /// `server/discover`, and where the server does not know it, `initialize`.
    Automatic,
    /// With this revision only.
    Version(ProtocolVersion),
}

impl Lifecycle {
    fn mode(&self) -> ClientLifecycleMode {
        match self {
            Self::Automatic => {
                ClientLifecycleMode::Auto { preferred_versions: vec![MODERN], legacy_version: Some(LEGACY) }
            }
            Self::Version(version) if version.has_initialize() => ClientLifecycleMode::Initialize,
            Self::Version(version) => ClientLifecycleMode::Discover { preferred_versions: vec![version.clone()] },
        }
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        match self {
            Self::Automatic => MODERN,
            Self::Version(version) => version.clone(),
        }
    }
}

/// Why a handshake failed.
pub(super) struct HandshakeError {
    pub(super) message: String,
    pub(super) stderr: Vec<String>,
    /// Whether the server may just not know `server/discover`, and be confused by it.
    pub(super) maybe_legacy: bool,
    /// Whether it does know it, but took so long to start that it seemed not to.
    pub(super) is_modern: bool,
    /// The time that it had, if that was what it ran out of.
    pub(super) late: Option<Duration>,
    /// Whether it took so long as a person was asked, and may do better now.
    pub(super) asked_somebody: bool,
    /// The HTTP status with which it was refused.
    pub(super) refusal: Option<StatusCode>,
}

impl Link {
    /// `open` makes the transport, which reports to the wire that it is given.
    pub(super) fn new<T, E>(
        callbacks: &Callbacks,
        open: impl FnOnce(&Arc<Wire>) -> Result<Opened<T>, E>,
    ) -> Result<Self, E>
    where
        T: Transport<RoleClient> + 'static,
    {
        let (wire, heard) = wire(callbacks);
        Ok(Self::over(open(&wire)?, wire, heard))
    }

    /// The same where it takes its time to open the transport.
    pub(super) async fn reach<T, E, F>(callbacks: &Callbacks, open: impl FnOnce(Arc<Wire>) -> F) -> Result<Self, E>
    where
        T: Transport<RoleClient> + 'static,
        F: Future<Output = Result<Opened<T>, E>>,
    {
        let (wire, heard) = wire(callbacks);
        Ok(Self::over(open(Arc::clone(&wire)).await?, wire, heard))
    }

    fn over<T: Transport<RoleClient> + 'static>(
        opened: Opened<T>,
        wire: Arc<Wire>,
        heard: Option<mpsc::Receiver<Heard>>,
    ) -> Self {
        let Opened { transport, process, authorization, needed } = opened;
        let serve: Serve = Box::new(move |handler, mode| Box::pin(handler.serve_with_lifecycle(transport, mode)));
        Self { wire, process, authorization, needed, heard, serve }
    }

    /// Shakes hands. The process of a link that fails is ended.
    pub(super) async fn initialize(
        self,
        handler: Handler,
        lifecycle: &Lifecycle,
        bound: Duration,
    ) -> Result<Connection, HandshakeError> {
        let Self { wire, process, authorization, needed, heard, serve } = self;
        wire.tries_discovery.store(*lifecycle == Lifecycle::Automatic, Ordering::Relaxed);
        let (callbacks, origin) = (Arc::clone(&handler.callbacks), handler.origin.clone());
        wire.answer_early_by(Arc::clone(&callbacks), origin.clone());
        // What rmcp starts stays in the span in which it starts, and would keep that of the request that connects open.
        let span = tracing::info_span!(parent: None, "connection", server = &*origin.server);
        let served = serve(handler, lifecycle.mode()).instrument(span);
        let error = match authorization.within(bound, served).await {
            Some(Ok(service)) => {
                let mut tasks = JoinSet::new();
                if let Some(heard) = heard {
                    tasks.spawn(hear(heard, callbacks, Arc::clone(&wire), origin));
                }
                let connection = Connection {
                    peer: service.peer().clone(),
                    service: tokio::sync::Mutex::new(Some(service)),
                    process,
                    authorization,
                    _needed: needed,
                    wire,
                    since: Instant::now(),
                    tasks: Mutex::new(tasks),
                    listening: Mutex::default(),
                    subscribed: tokio::sync::Mutex::default(),
                    tools: Mutex::default(),
                    listing: tokio::sync::Mutex::default(),
                    log_level: Mutex::default(),
                };
                if let Some(version) = connection.unknown_version() {
                    connection.close().await;
                    return Err(unknown_version(&version));
                }
                connection.listen();
                return Ok(connection);
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        let asked = match lifecycle {
            Lifecycle::Version(version) if version.has_initialize() => "initialize",
            _ => "server/discover",
        };
        let maybe_legacy = error.as_ref().is_some_and(|error| match error {
            error if error.is_authorization_required() => false,
            ClientInitializeError::TransportError { error, .. } => http::may_be_confused(error),
            ClientInitializeError::LegacyFallbackFailed { .. } => false,
            ClientInitializeError::NoCompatibleProtocolVersion { server_supported, .. } => {
                server_supported.iter().any(ProtocolVersion::has_initialize)
            }
            _ => true,
        });
        // A process that has just ended explains more than the pipe that broke.
        let ended = match (&process, &error) {
            (Some(process), Some(error)) if broke(error) => process.ended_within(Duration::from_millis(500)).await,
            _ => None,
        };
        let reason = match (ended, &error, wire.misfit()) {
            (Some(ended), ..) => format!("{ended} before it answered `{asked}`"),
            (None, Some(_), Some(misfit)) => format!("its answer to `initialize` can't be used: {misfit}"),
            (None, Some(error), None) => explain_handshake(error, asked),
            (None, None, _) => format!("it did not answer the handshake within {} s", bound.as_secs_f64()),
        };
        let (mut stderr, mut denied) = (Vec::new(), String::new());
        if let Some(process) = &process {
            process.close().await;
            stderr = process.stderr();
            denied = process.denied(&stderr.join("\n"), "");
        }
        let refusal = error.as_ref().and_then(refusal);
        let message = format!("{reason}{}{denied}", wire.complaints());
        let is_modern = wire.discovered_late.load(Ordering::Relaxed);
        Err(HandshakeError {
            message,
            stderr,
            maybe_legacy,
            is_modern,
            late: error.is_none().then_some(bound),
            asked_somebody: authorization.took_long(),
            refusal,
        })
    }

    /// Ends it unused.
    pub(super) async fn close(self) {
        drop(self.serve);
        if let Some(process) = self.process {
            process.close().await;
        }
    }
}

/// A wire for a transport, and what the callbacks hear from it.
fn wire(callbacks: &Callbacks) -> (Arc<Wire>, Option<mpsc::Receiver<Heard>>) {
    let (sender, heard) = callbacks.hear().then(|| mpsc::channel(UNHEARD)).unzip();
    (Wire::new(callbacks.log_level, sender), heard)
}

fn unknown_version(version: &ProtocolVersion) -> HandshakeError {
    let known: Vec<&str> = ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect();
    let known = known.join("`, `");
    let message = format!("it speaks the protocol revision `{version}`, which is none of those known here: `{known}`");
    HandshakeError {
        message,
        stderr: Vec::new(),
        maybe_legacy: false,
        is_modern: false,
        late: None,
        asked_somebody: false,
        refusal: None,
    }
}

/// The HTTP status with which the server refused to shake hands.
fn refusal(error: &ClientInitializeError) -> Option<StatusCode> {
    match error {
        ClientInitializeError::TransportError { error, .. } => http::refusal(error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => refusal(fallback),
        _ => None,
    }
}

/// Whether it is the connection that failed, and not what was said on it.
fn broke(error: &ClientInitializeError) -> bool {
    match error {
        ClientInitializeError::ConnectionClosed(_) | ClientInitializeError::TransportError { .. } => true,
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => broke(fallback),
        _ => false,
    }
}

fn explain_handshake(error: &ClientInitializeError, asked: &str) -> String {
    match error {
        ClientInitializeError::ConnectionClosed(_) => {
            format!("it closed the connection before it answered `{asked}`")
        }
        ClientInitializeError::TransportError { error, .. } => http::explain(error),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => explain_handshake(fallback, "initialize"),
        ClientInitializeError::JsonRpcError(error) => {
            format!("it answered `{asked}` with the error: {} (JSON-RPC error {})", error.message, error.code.0)
        }
        ClientInitializeError::NoCompatibleProtocolVersion { client_supported, server_supported } => {
            let names = |versions: &[ProtocolVersion]| {
                versions.iter().map(ToString::to_string).collect::<Vec<_>>().join("`, `")
            };
            let (ours, theirs) = (names(client_supported), names(server_supported));
            format!("no common protocol revision: it speaks `{theirs}`, and this client asked for `{ours}`")
        }
        ClientInitializeError::ExpectedInitResponse(_) | ClientInitializeError::ExpectedInitResult(_) => {
            format!("what it answered to `{asked}` is no answer to that")
        }
        other => with_causes(other),
    }
}

/// Tells the callbacks of notifications, one after the other.
async fn hear(mut heard: mpsc::Receiver<Heard>, callbacks: Arc<Callbacks>, wire: Arc<Wire>, origin: Origin) {
    while let Some(Heard { notification, bytes }) = heard.recv().await {
        callbacks.notified(notification, &wire, &origin).await;
        wire.taken(bytes);
    }
}

/// What rmcp asks of the client.
pub(super) struct Handler {
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) origin: Origin,
    pub(super) info: ClientConfig,
    pub(super) asked: Semaphore,
}

impl Service<RoleClient> for Handler {
    async fn handle_request(
        &self,
        request: ServerRequest,
        _context: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        // rmcp makes a task of each.
        let Ok(_asked) = self.asked.try_acquire() else {
            let message = format!("this client answers {ASKED} requests at once, and no more");
            return Err(ErrorData::internal_error(message, None));
        };
        self.callbacks.requested(request.clone(), &self.origin).await;
        self.callbacks.answer(request, &self.origin).await
    }

    async fn handle_notification(
        &self,
        _notification: ServerNotification,
        _context: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        // The wire has told of it, in order.
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        self.info.clone()
    }
}

/// A connection after the handshake.
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    service: tokio::sync::Mutex<Option<Running>>,
    /// Kept after the service, so that its input is closed before the process is waited for.
    process: Option<Process>,
    authorization: Arc<Authorization>,
    _needed: Option<watch::Sender<()>>,
    pub(super) wire: Arc<Wire>,
    pub(super) since: Instant,
    /// They end with the connection.
    tasks: Mutex<JoinSet<()>>,
    /// Subscriptions to resources, by URI.
    listening: Mutex<HashMap<String, Listening>>,
    /// How many subscriptions there are to each resource: the server knows of one.
    pub(super) subscribed: tokio::sync::Mutex<HashMap<String, usize>>,
    /// With the count of changes that it was listed at.
    tools: Mutex<Option<(u64, Arc<ToolSet>)>>,
    pub(super) listing: tokio::sync::Mutex<()>,
    /// What a server without `logging/setLevel` is asked for with each request.
    log_level: Mutex<Option<LoggingLevel>>,
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        // A server that hit a limit may take a moment to end.
        !self.peer.is_transport_closed() && !self.process.as_ref().is_some_and(Process::is_ending)
    }

    pub(super) fn server_info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.peer.peer_info()
    }

    /// Whether the server still knows the session, where that was in doubt: a ping that is refused as a request says that it does not.
    pub(super) async fn is_still_known(&self) -> bool {
        let ping = self.peer.send_request(sign_of_life(self.is_modern()));
        // An error of the server's own is a sign of life, too; and one that is slow is not one that forgot.
        let is_refused = matches!(
            self.within(KNOWN, ping).await,
            Some(Err(ServiceError::TransportSend(_) | ServiceError::TransportClosed))
        );
        if !is_refused {
            self.wire.trust();
        }
        !is_refused
    }

    /// Waits for `work`, for `bound` and as long as a person is asked to log in. `None` if that is over.
    pub(super) async fn within<T>(&self, bound: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.authorization.within(bound, work).await
    }

    fn unknown_version(&self) -> Option<ProtocolVersion> {
        let version = self.server_info()?.protocol_version.clone();
        (!ProtocolVersion::KNOWN_VERSIONS.contains(&version)).then_some(version)
    }

    /// Whether requests carry what `initialize` told once in earlier revisions.
    pub(super) fn is_modern(&self) -> bool {
        self.server_info().is_some_and(|info| !info.protocol_version.has_initialize())
    }

    pub(super) fn tools(&self) -> Option<Arc<ToolSet>> {
        let changes = self.wire.tools_changed.load(Ordering::Acquire);
        let tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        tools.as_ref().filter(|(listed_at, _)| *listed_at == changes).map(|(_, tools)| Arc::clone(tools))
    }

    /// Keeps the tools that were asked for when `changes` changes had been told of.
    pub(super) fn keep_tools(&self, changes: u64, tools: Arc<ToolSet>) {
        *self.tools.lock().unwrap_or_else(PoisonError::into_inner) = Some((changes, tools));
    }

    /// Asks for log messages with each request from now on.
    pub(super) fn ask_for_logs(&self, level: LoggingLevel) {
        *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// Asks a server whose revision has it to tell of changes; earlier ones tell unasked.
    fn listen(&self) {
        let Some(info) = self.server_info().filter(|_| self.is_modern()) else { return };
        let capabilities = &info.capabilities;
        let told = |changes: Option<bool>| changes.filter(|told| *told);
        let mut filter = SubscriptionFilter::new();
        filter.tools_list_changed = capabilities.tools.as_ref().and_then(|tools| told(tools.list_changed));
        filter.prompts_list_changed = capabilities.prompts.as_ref().and_then(|prompts| told(prompts.list_changed));
        filter.resources_list_changed = capabilities.resources.as_ref().and_then(|has| told(has.list_changed));
        if filter == SubscriptionFilter::new() {
            return;
        }
        let (peer, wire) = (self.peer.clone(), Arc::clone(&self.wire));
        self.spawn(async move {
            while !peer.is_transport_closed() {
                match peer.listen(filter.clone()).await {
                    // The wire has told of what comes.
                    Ok(mut changes) => while let Ok(Some(_)) = changes.next().await {},
                    Err(error) => {
                        tracing::debug!(%error, "the server does not tell of changes");
                        if is_final(&error) {
                            return; // nor will it
                        }
                    }
                }
                // What changed in the meantime is not known.
                wire.tools_changed.fetch_add(1, Ordering::Release);
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        });
    }

    /// Pings the server; where it does not answer in time, the connection is closed, so that the next use makes another.
    pub(super) fn keep_alive(&self, server: Arc<str>, interval: Duration) {
        let (peer, is_modern, authorization) = (self.peer.clone(), self.is_modern(), Arc::clone(&self.authorization));
        let token = self.service.try_lock().ok().and_then(|service| Some(service.as_ref()?.cancellation_token()));
        self.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let ping = peer.send_request(sign_of_life(is_modern));
                // An error is a sign of life, too.
                let answer = authorization.within(interval, ping).await;
                if matches!(answer, None | Some(Err(ServiceError::TransportSend(_)))) {
                    tracing::warn!(server = &*server, "the server does not answer pings: the connection is closed");
                    if let Some(token) = token {
                        token.cancel();
                    }
                    return;
                }
            }
        });
    }

    /// Sends a request and waits for the JSON text of its result. When the future is dropped, the request is cancelled at the server.
    pub(super) async fn text_of(
        &self,
        request: ClientRequest,
        options: CallOptions,
        meta: &RequestMetaObject,
    ) -> Result<String, ServiceError> {
        Ok(self.text_and_result_of(request, options, meta).await?.0)
    }

    /// The same for one request of several that a flight stands for.
    pub(super) async fn text_in(
        &self,
        request: ClientRequest,
        options: &CallOptions,
        flight: &Arc<Flight>,
        meta: &RequestMetaObject,
    ) -> Result<String, ServiceError> {
        Ok(self.sent(request, (options.timeout, options.silence), flight, meta).await?.0)
    }

    /// The same, with what rmcp made of the result.
    pub(super) async fn text_and_result_of(
        &self,
        request: ClientRequest,
        options: CallOptions,
        meta: &RequestMetaObject,
    ) -> Result<(String, ServerResult), ServiceError> {
        let bounds = (options.timeout, options.silence);
        self.sent(request, bounds, &Flight::new(options), meta).await
    }

    async fn sent(
        &self,
        mut request: ClientRequest,
        (timeout, silence): (Option<Duration>, Option<Duration>),
        flight: &Arc<Flight>,
        meta: &RequestMetaObject,
    ) -> Result<(String, ServerResult), ServiceError> {
        let mut peer_options = PeerRequestOptions::no_options();
        let mut meta = meta.clone();
        if let Some(level) = *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) {
            meta.set_log_level(level);
        }
        peer_options.meta = (!meta.is_empty()).then_some(meta);
        // A sandboxed server has bounds of its own.
        let wall_time = self.process.as_ref().and_then(Process::wall_time);
        let wall_time = wall_time.filter(|wall_time| timeout.is_none_or(|timeout| *wall_time < timeout));
        peer_options.timeout = timeout;
        request.extensions_mut().insert(WantsText(Arc::downgrade(flight)));
        let answer = Box::pin(async {
            let handle = self.peer.send_request_with_option(request, peer_options).await?;
            let mut cancel = CancelOnDrop { peer: &self.peer, id: Some(handle.id.clone()) };
            let result = handle.await_response().await;
            cancel.id = None;
            result
        });
        let answer = Box::pin(alive(answer, silence, flight));
        let result: ServerResult = match (wall_time, &self.process) {
            // Sending takes time too, where the server does not read.
            (Some(wall_time), Some(process)) => {
                let Ok(result) = tokio::time::timeout(wall_time, answer).await else {
                    process.end(Limit::WallTime(wall_time));
                    return Err(ServiceError::TransportClosed);
                };
                result?
            }
            _ => answer.await?,
        };
        let text = match flight.answer() {
            Some(text) => text,
            // A transport that does not divert gives the typed result.
            None => serde_json::to_string(&result).map_err(|_| ServiceError::UnexpectedResponse)?,
        };
        Ok((text, result))
    }

    /// Sends a request whose answer does not matter, where there is still a runtime to do it.
    pub(super) fn send_and_forget(&self, request: ClientRequest) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let peer = self.peer.clone();
        runtime.spawn(async move { drop(peer.send_request(request).await) });
    }

    /// Tells the server something.
    pub(super) async fn notify(&self, notification: ClientNotification) -> Result<(), ServiceError> {
        self.peer.send_notification(notification).await
    }

    /// Subscribes to a resource of a server that has `subscriptions/listen`.
    pub(super) async fn listen_to(&self, uri: &str) -> Result<(), ServiceError> {
        let filter = SubscriptionFilter::builder().resource_subscriptions([uri.to_string()]).build();
        let mut changes = self.peer.listen(filter.clone()).await?;
        let (peer, wire, updated) = (self.peer.clone(), Arc::clone(&self.wire), uri.to_string());
        let task = tokio::spawn(async move {
            loop {
                // The wire has told of what comes; but somebody must take it.
                while let Ok(Some(_)) = changes.next().await {}
                changes = loop {
                    tokio::time::sleep(LISTEN_AGAIN).await;
                    match peer.listen(filter.clone()).await {
                        Ok(changes) => break changes,
                        Err(error) if is_final(&error) || peer.is_transport_closed() => return,
                        Err(error) => tracing::debug!(%error, "the server does not tell of updates"),
                    }
                };
                // What happened in the meantime is not known.
                let _ = wire.updated.send(updated.clone());
            }
        });
        self.listening().insert(uri.into(), Listening(task));
        Ok(())
    }

    /// Ends such a subscription.
    pub(super) fn listen_no_more(&self, uri: &str) {
        self.listening().remove(uri);
    }

    /// Whether updates of a resource that was subscribed to can still come.
    pub(super) fn tells_of(&self, uri: &str) -> bool {
        let ended = || self.listening().get(uri).is_some_and(|listening| listening.0.is_finished());
        self.is_open() && !ended()
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, HashMap<String, Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a limit of its server's sandbox ended it.
    pub(super) fn hit_limit(&self) -> bool {
        self.process.as_ref().is_some_and(Process::hit_limit)
    }

    /// What would allow what the server's sandbox denied, as far as that is known: an end for an error message.
    pub(super) fn denied(&self, said: &str, arguments: &str) -> String {
        self.process.as_ref().map(|process| process.denied(said, arguments)).unwrap_or_default()
    }

    /// What is known of the end of the connection: how the process ended, and what it said last.
    pub(super) async fn why_closed(&self) -> String {
        let mut reason = format!("the connection is closed{}", self.wire.complaints());
        if let Some(process) = &self.process {
            if let Some(ended) = process.ended_within(Duration::from_millis(500)).await {
                reason = format!("{reason}: {ended}");
            }
            let stderr = process.stderr();
            let last = stderr[stderr.len().saturating_sub(5)..].join("\n  ");
            if !stderr.is_empty() {
                reason = format!("{reason}; its last lines on stderr:\n  {last}");
            }
            reason.push_str(&process.denied(&last, ""));
        }
        reason
    }

    pub(super) async fn explain(&self, error: &ServiceError) -> (FailureKind, String) {
        match error {
            ServiceError::McpError(error) => {
                (FailureKind::Protocol, format!("{} (JSON-RPC error {})", error.message, error.code.0))
            }
            ServiceError::Timeout { timeout } => {
                // What was left of it when the request went out is a little less.
                let seconds = (timeout.as_secs_f64() * 1000.0).round() / 1000.0;
                (FailureKind::Timeout, format!("the time limit of the call, {seconds} s, is over"))
            }
            // Over HTTP, each answer has a stream of its own.
            ServiceError::TransportClosed if self.process.is_none() && self.is_open() => {
                let complaints = self.wire.complaints();
                (FailureKind::Connection, format!("the connection ended before the answer came{complaints}"))
            }
            ServiceError::TransportClosed => (FailureKind::Connection, self.why_closed().await),
            ServiceError::TransportSend(error) => (FailureKind::Connection, http::explain(error)),
            other => (FailureKind::Connection, with_causes(other)),
        }
    }

    /// Ends the connection. A child process is ended with it: its input is closed, then it gets SIGTERM, then SIGKILL, each after the
    /// time that it is given (`stop_timeout`).
    pub(super) async fn close(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(mut service) = self.service.lock().await.take() {
            let _ = tokio::time::timeout(CLOSE, service.close()).await;
        }
        if let Some(process) = &self.process {
            process.close().await;
        }
    }
}

/// Waits for an answer as long as the server gives signs of life at least every `silence`.
async fn alive<T>(
    answer: impl Future<Output = Result<T, ServiceError>>,
    silence: Option<Duration>,
    flight: &Flight,
) -> Result<T, ServiceError> {
    let Some(silence) = silence else { return answer.await };
    let mut answer = std::pin::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = flight.progress() => {}
            () = tokio::time::sleep(silence) => return Err(ServiceError::Timeout { timeout: silence }),
        }
    }
}

/// A task that ends with this.
struct Listening(tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a server that refuses to be listened to will refuse again; where it wants authorisation, nobody is asked for that.
fn is_final(error: &ServiceError) -> bool {
    match error {
        ServiceError::McpError(_) => true,
        ServiceError::TransportSend(error) => http::wants_authorisation(error),
        _ => false,
    }
}

/// A request that every server answers.
pub(super) fn sign_of_life(is_modern: bool) -> ClientRequest {
    if is_modern {
        ClientRequest::DiscoverRequest(DiscoverRequest::new(DiscoverRequestParams {}))
    } else {
        ClientRequest::PingRequest(PingRequest::default())
    }
}

/// Tells the server that nobody waits any more, when the caller is gone before the answer.
struct CancelOnDrop<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let peer = self.peer.clone();
        runtime.spawn(async move {
            let reason = Some("the caller does not wait any more".to_string());
            let cancelled = CancelledNotification::new(CancelledNotificationParam::new(Some(id), reason));
            let _ = peer.send_notification(cancelled.into()).await;
        });
    }
}
