//! One server, for as long as a client knows it: connecting and connecting again, requests through the middleware, cached lists,
//! callbacks, and its end. Knows rmcp; knows no scripts.

pub(crate) mod authorization;
mod callbacks;
mod connection;
mod cookies;
mod environment;
mod http;
mod inputs;
mod lenient;
mod line;
mod listings;
mod pauses;
mod permissions;
mod place;
mod process;
mod requests;
mod sse;
mod starting;
mod subscription;
mod tasks;
mod tls;
mod typed;
mod used;
mod websocket;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use rmcp::model::{
    ArgumentInfo, ClientConfig, ClientNotification, CompleteRequestParams, CompletionInfo, GetPromptRequestParams,
    GetPromptResult, Implementation, JsonObject, LoggingLevel, PaginatedRequestParams, Prompt, ProtocolVersion,
    ReadResourceRequestParams, ReadResourceResult, Reference, Resource, ResourceTemplate, RootsListChangedNotification,
    ServerPeerInfo,
};
use rmcp::service::ServiceExt;
use rmcp::{RoleServer, Service};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::DuplexStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::catalog::{ToolSet, did_you_mean, suggest};
use crate::config::{HttpConfig, SandboxConfig, ServerConfig, ToolFilter, Transport};
use crate::error::Error;
use crate::middleware::{
    Answer, CallTool, Chain, Complete, GetPrompt, Initialize, Kind, Lane, ListPrompts, ListResourceTemplates,
    ListResources, ListTools, Params, Ping, ReadResource, Request, SetLevel, Subscribe, Transmit,
};
use crate::sandbox::{Compiling, TypedServer, WasmServer};
use crate::tool::{BoxFuture, CallOptions, Failure, FailureKind, Tool, ToolAnswer, ToolCall};
use crate::units::size;
use authorization::{AuthorizationSettings, StoredAuthorization};
pub(crate) use callbacks::Callbacks;
pub use callbacks::{CallbackError, Origin, ServerMessage};
use connection::{ASKED, Connection, Handler, HandshakeError, LEGACY, Lifecycle, Link, MODERN, Opened};
pub(crate) use inputs::Inputs;
use line::LineTransport;
pub(crate) use listings::{Listings, Patience};
pub use permissions::Permissions;
pub(crate) use permissions::permissions;
use place::{ConfigPlace, Isolation};
pub(crate) use process::Children;
use process::{Process, Program};
use requests::{Exchange, request_meta};
use starting::{InLine, Place, downloader, may_be_downloading};
pub use subscription::Subscription;
use used::{Use, Used};

/// Looks up the variables of a configuration: `${NAME}` becomes what it returns.
pub(crate) type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How sessions are opened, the same for all servers of a client.
#[derive(Clone)]
pub(crate) struct SessionSettings {
    pub(crate) variables: Variables,
    pub(crate) connect_timeout: Duration,
    pub(crate) verify_tls: bool,
    pub(crate) children: Children,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) middleware: Arc<Chain>,
    pub(crate) authorization: AuthorizationSettings,
    /// For servers that are started here, where their entries say nothing else.
    pub(crate) sandbox: Option<SandboxConfig>,
    pub(crate) compiling: Compiling,
    /// What the user is asked for.
    pub(crate) inputs: Inputs,
}

/// Pages of one list, and the items and bytes of all of them: a server that always names a next page must not keep us for ever.
const PAGES: usize = 1000;
const LIST_BYTES: usize = 64 << 20;
/// A connection that ends before counts as one that failed.
const STABLE: Duration = Duration::from_secs(10);
/// How long a server that failed is left alone: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// Serves one connection of a server in this process.
type Serve = dyn Fn(DuplexStream) -> BoxFuture<'static, ()> + Send + Sync;

/// Where a server is.
#[derive(Clone)]
pub(crate) enum Source {
    /// As its entry says.
    Entry(Box<ServerConfig>),
    /// In this process.
    InProcess(Arc<Serve>),
    /// A wasm file in memory.
    Wasm(Arc<EmbeddedWasm>),
}

/// A wasm server that this program brings.
pub(crate) struct EmbeddedWasm {
    wasm: Cow<'static, [u8]>,
    sandbox: SandboxConfig,
    compiled: tokio::sync::OnceCell<Arc<WasmServer>>,
}

impl Source {
    /// A server in this process, made anew for each connection.
    pub(crate) fn in_process<S: Service<RoleServer>>(make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self::InProcess(Arc::new(move |pipe| {
            let server = make();
            Box::pin(async move {
                if let Ok(service) = server.serve(pipe).await {
                    let _ = service.waiting().await;
                }
            })
        }))
    }

    /// A wasm server that this program brings.
    pub(crate) fn wasm(wasm: Cow<'static, [u8]>, sandbox: SandboxConfig) -> Self {
        Self::Wasm(Arc::new(EmbeddedWasm { wasm, sandbox, compiled: tokio::sync::OnceCell::new() }))
    }

    fn entry(&self) -> Option<&ServerConfig> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::InProcess(_) | Self::Wasm(_) => None,
        }
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Entry(one), Self::Entry(other)) => one == other,
            (Self::InProcess(one), Self::InProcess(other)) => Arc::ptr_eq(one, other),
            (Self::Wasm(one), Self::Wasm(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// One server of a client. Clones share it. Its connection ends with [`Session::close`], or when the client and all clones are gone; one
/// that broke is made again by the next request.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    source: Source,
    settings: SessionSettings,
    state: Mutex<State>,
    /// One connects, and the others wait for it.
    connecting: tokio::sync::Mutex<()>,
    /// Counts how often the session was closed, which ends attempts to connect.
    closings: tokio::sync::watch::Sender<u64>,
    /// What bounds calls of its tools, if anything does.
    lane: Option<Lane>,
    /// Whether it waits until others have started.
    in_line: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// A transport that waits for [`Session::initialize`].
    link: Option<Link>,
    /// Why there is no connection, and until when no other is made.
    failed: Option<(Error, Instant)>,
    /// How often in a row connecting failed, or the connection soon ended.
    failures: usize,
    /// What the connection was good for.
    used: Used,
    /// Closed on purpose: requests do not open it.
    is_closed: bool,
    /// The server is known not to know `server/discover`.
    is_legacy: bool,
}

/// Who wants a connection.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    /// A caller that says so.
    Now,
    /// One that can do without: a server that failed a moment ago is left alone.
    IfDue,
    /// A request on a session; beside that, what was closed on purpose, or was not to be initialised yet, stays so.
    ByRequest,
}

/// How a server stands with a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerStatus {
    /// Not connected, as nothing has needed it, or no longer.
    Closed,
    /// It is being connected.
    Connecting,
    /// Connected.
    Connected,
    /// Its entry is malformed, or the last attempt to connect it failed.
    Failed(Error),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.inner.name)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that is not connected yet.
    pub(crate) fn new(name: &str, source: Source, settings: SessionSettings) -> Self {
        let (state, connecting, closings, in_line) = Default::default();
        let lane = source.entry().and_then(|entry| Lane::of(entry.calls_in_flight, entry.calls_per_second));
        let name = name.into();
        Self { inner: Arc::new(Inner { name, source, settings, state, connecting, closings, lane, in_line }) }
    }

    /// Whether a session for this source would be the same as this one.
    pub(crate) fn has_source(&self, source: &Source) -> bool {
        self.inner.source == *source
    }

    /// Connects and shakes hands, unless that is done; also where the session was closed, or could not be connected a moment ago.
    ///
    /// # Errors
    /// [`Error::Config`] if a string of its entry can't be expanded, else [`Error::Connect`].
    #[doc(alias = "initialize")]
    pub async fn connect(&self) -> Result<(), Error> {
        self.inner.connect(Asked::Now).await.map(drop)
    }

    /// The same for a caller that can do without: a server that failed is left alone for a while.
    pub(crate) async fn connect_if_due(&self) -> Result<(), Error> {
        self.inner.connect(Asked::IfDue).await.map(drop)
    }

    /// Starts or reaches the server and says nothing yet: [`Session::initialize`] does. Until then, requests fail.
    ///
    /// # Errors
    /// As of [`Session::connect`].
    pub(crate) async fn open(&self) -> Result<(), Error> {
        let mut closings = self.inner.closings.subscribe();
        let _one_at_a_time = self.inner.connecting.lock().await;
        if self.is_connected() || self.inner.state().link.is_some() {
            return Ok(());
        }
        let open = async {
            let _place = self.inner.place().await;
            self.inner.open_link().await
        };
        let link = tokio::select! {
            biased;
            _ = closings.changed() => return Err(self.inner.closed_meanwhile()),
            link = open => link?,
        };
        let mut state = self.inner.state();
        (state.link, state.is_closed) = (Some(link), false);
        Ok(())
    }

    /// Shakes hands with a server that was only connected, and connects it where it is not: the same as [`Session::connect`].
    ///
    /// # Errors
    /// As of [`Session::connect`].
    pub async fn initialize(&self) -> Result<(), Error> {
        self.connect().await
    }

    /// How long a call that a script makes may take.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.inner.source.entry().and_then(|entry| entry.call_timeout)
    }

    /// Name of the server.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.inner.name
    }

    /// Whether the connection stands, and hands were shaken.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.standing().is_some()
    }

    /// Whether it waits until others have started, before it is started itself.
    pub(crate) fn is_in_line(&self) -> bool {
        self.inner.in_line.load(Ordering::Relaxed)
    }

    /// How long the server is still left alone, if it is.
    pub(crate) fn left_alone(&self) -> Option<Duration> {
        let state = self.inner.state();
        let (_, until) = state.failed.as_ref()?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// How the server stands.
    pub(crate) fn status(&self) -> ServerStatus {
        if self.is_connected() {
            return ServerStatus::Connected;
        }
        let Ok(_not_connecting) = self.inner.connecting.try_lock() else { return ServerStatus::Connecting };
        match &self.inner.state().failed {
            Some((error, _)) => ServerStatus::Failed(error.clone()),
            None => ServerStatus::Closed,
        }
    }

    /// What the server said of itself: name, version, capabilities, instructions, protocol version. None where it is not connected.
    #[must_use]
    pub fn server_info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.inner.standing()?.server_info()
    }

    /// How the server says it is to be used.
    #[must_use]
    pub fn instructions(&self) -> Option<String> {
        self.server_info()?.instructions.clone()
    }

    /// Calls a tool by its own name. When the future is dropped, the call is cancelled at the server. Where the server asks for more
    /// input, the callbacks answer; where it makes a task of the call, the task is asked after until it is over.
    ///
    /// # Errors
    /// [`Error::Call`] if the call itself fails, or the configuration excludes the tool ([`ServerConfig::tools`]); [`Error::Connect`] if the
    /// connection had ended and can't be made again. A tool that failed is an answer, with `is_error` set.
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        options: CallOptions,
    ) -> Result<ToolAnswer, Error> {
        if let Some(key) = self.inner.filter().and_then(|filter| filter.why_not(name)) {
            let message = self.inner.excluded(key);
            let server = self.inner.name.to_string();
            return Err(Failure { kind: FailureKind::Rejected, server, tool: name.into(), message, data: None }.into());
        }
        self.inner.request::<CallTool>(ToolCall::new(name, arguments, options)).await
    }

    /// The server's tools. Listed once, and again after the server said that they changed.
    ///
    /// # Errors
    /// [`Error::Request`], or [`Error::Connect`] if the connection had ended and can't be made again.
    pub async fn list_tools(&self) -> Result<Vec<Tool>, Error> {
        Ok(self.tools().await?.iter().cloned().collect())
    }

    pub(crate) async fn tools(&self) -> Result<Arc<ToolSet>, Error> {
        let connection = self.inner.connection().await?;
        if let Some(tools) = connection.tools() {
            return Ok(tools);
        }
        let _one_at_a_time = connection.listing.lock().await;
        if let Some(tools) = connection.tools() {
            return Ok(tools);
        }
        let changes = connection.wire.tools_changed.load(Ordering::Acquire);
        let bound = self.inner.bound();
        let list = async {
            if connection.server_info().is_some_and(|info| info.capabilities.tools.is_none()) {
                return Ok(Vec::new());
            }
            match self.pages::<ListTools, _>(|page| (page.tools, page.next_cursor)).await {
                // It did not say whether it has any.
                Err(Error::Request { kind: FailureKind::Protocol, .. })
                    if connection.wire.is_vague.load(Ordering::Acquire) =>
                {
                    Ok(Vec::new())
                }
                tools => tools,
            }
        };
        let tools = connection.within(bound, list).await.unwrap_or_else(|| {
            let message = format!("its tools were not listed within {} s", bound.as_secs_f64());
            Err(self.inner.failed::<ListTools>(FailureKind::Timeout, message))
        })?;
        let tools = Arc::new(self.inner.callable(tools));
        connection.keep_tools(changes, Arc::clone(&tools));
        Ok(tools)
    }

    /// All pages of a list.
    async fn pages<K, T>(&self, items: impl Fn(K::Answer) -> (Vec<T>, Option<String>)) -> Result<Vec<T>, Error>
    where
        K: Kind<Params = PaginatedRequestParams>,
        T: Serialize,
    {
        let failed = |message| Err(self.inner.failed::<K>(FailureKind::Answer, message));
        // An empty cursor was an end for many, until the protocol said that it is none.
        let empty_goes_on = self.inner.connection().await?.is_modern();
        let (mut all, mut bytes, mut cursor) = (Vec::new(), 0, None);
        for _ in 0..PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let (items, next) = items(self.inner.request::<K>(params).await?);
            bytes += serde_json::to_vec(&items).map_or(0, |json| json.len());
            if bytes > LIST_BYTES {
                return failed(format!("the list has more than {}", size(LIST_BYTES)));
            }
            all.extend(items);
            match next.filter(|next| empty_goes_on || !next.is_empty()) {
                None => return Ok(all),
                next if next == cursor => return failed("it names the same next page again and again".into()),
                next => cursor = next,
            }
        }
        failed(format!("the list has more than {PAGES} pages"))
    }

    /// Whether a connected server said that it has something.
    async fn offers(&self, has: impl Fn(&ServerPeerInfo) -> bool) -> Result<bool, Error> {
        let connection = self.inner.connection().await?;
        Ok(connection.server_info().is_none_or(|info| has(&info)))
    }

    /// The server's resources, all pages; none where it offers none.
    ///
    /// # Errors
    /// [`Error::Request`], or [`Error::Connect`] if the connection had ended and can't be made again.
    pub async fn list_resources(&self) -> Result<Vec<Resource>, Error> {
        if !self.offers(|info| info.capabilities.resources.is_some()).await? {
            return Ok(Vec::new());
        }
        self.pages::<ListResources, _>(|page| (page.resources, page.next_cursor)).await
    }

    /// The server's resource templates, all pages; none where it offers none.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn list_resource_templates(&self) -> Result<Vec<ResourceTemplate>, Error> {
        if !self.offers(|info| info.capabilities.resources.is_some()).await? {
            return Ok(Vec::new());
        }
        self.pages::<ListResourceTemplates, _>(|page| (page.resource_templates, page.next_cursor)).await
    }

    /// Reads a resource by its URI.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn read_resource(&self, uri: &str) -> Result<ReadResourceResult, Error> {
        self.inner.request::<ReadResource>(ReadResourceRequestParams::new(uri)).await
    }

    /// Subscribes to a resource: the server tells when it is updated, until the subscription is dropped or the connection ends.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn subscribe(&self, uri: &str) -> Result<Subscription, Error> {
        let connection = self.inner.connection().await?;
        // Before it is asked for, so that no update is missed.
        let updates = connection.wire.updated.subscribe();
        let mut subscribed = connection.subscribed.lock().await;
        let count = subscribed.entry(uri.into()).or_default();
        if *count == 0 {
            self.inner.request::<Subscribe>(uri.into()).await?;
        }
        *count += 1;
        drop(subscribed);
        Ok(Subscription { session: self.clone(), connection, uri: Some(uri.into()), updates })
    }

    /// The server's prompts, all pages; none where it offers none.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn list_prompts(&self) -> Result<Vec<Prompt>, Error> {
        if !self.offers(|info| info.capabilities.prompts.is_some()).await? {
            return Ok(Vec::new());
        }
        self.pages::<ListPrompts, _>(|page| (page.prompts, page.next_cursor)).await
    }

    /// Fills in a prompt.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn get_prompt(&self, name: &str, arguments: JsonObject) -> Result<GetPromptResult, Error> {
        self.inner.request::<GetPrompt>(GetPromptRequestParams::new(name).with_arguments(arguments)).await
    }

    /// Suggestions for the value of an argument of a prompt or a resource template.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn complete(&self, of: Reference, argument: &str, value: &str) -> Result<CompletionInfo, Error> {
        let argument = ArgumentInfo::new(argument, value);
        Ok(self.inner.request::<Complete>(CompleteRequestParams::new(of, argument)).await?.completion)
    }

    /// Sets the least severe log messages that the server is to send.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn set_log_level(&self, level: LoggingLevel) -> Result<(), Error> {
        self.inner.request::<SetLevel>(level).await
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// As of [`Session::list_resources`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.inner.request::<Ping>(()).await
    }

    /// Tells the server that the roots are others now.
    pub(crate) async fn roots_changed(&self) {
        let Some(connection) = self.inner.standing().filter(|connection| !connection.is_modern()) else { return };
        let changed = RootsListChangedNotification::default();
        if let Err(error) = connection.notify(ClientNotification::RootsListChangedNotification(changed)).await {
            tracing::warn!(server = &*self.inner.name, %error, "the server could not be told that the roots changed");
        }
    }

    /// Ends the connection; requests fail until it is connected again. A child process is ended with it: its input is closed, then it
    /// gets SIGTERM, then SIGKILL, each after the time that its entry gives it (`stop_timeout`).
    #[doc(alias = "disconnect")]
    pub async fn close(&self) {
        self.end().await;
    }

    /// The same; `false` where there was nothing to end.
    pub(crate) async fn end(&self) -> bool {
        self.inner.closings.send_modify(|closings| *closings += 1);
        let _one_at_a_time = self.inner.connecting.lock().await;
        let (connection, link) = {
            let mut state = self.inner.state();
            let is_legacy = state.is_legacy;
            let closed = std::mem::replace(&mut *state, State { is_closed: true, is_legacy, ..State::default() });
            (closed.connection, closed.link)
        };
        let was_open = connection.is_some() || link.is_some();
        if let Some(connection) = connection {
            connection.close().await;
        }
        if let Some(link) = link {
            link.close().await;
        }
        was_open
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Option<Arc<Connection>> {
        self.state().connection.clone().filter(|connection| connection.is_open())
    }

    fn filter(&self) -> Option<&ToolFilter> {
        self.source.entry().map(|entry| &entry.tools).filter(|filter| !filter.is_all())
    }

    fn excluded(&self, key: &str) -> String {
        let place = self.source.entry().map_or("its entry", |entry| &entry.path);
        format!("`{key}` of its configuration (`{place}`) does not let it be called")
    }

    /// The tools that can be called. Says what the configuration names and there is not.
    fn callable(&self, tools: Vec<Tool>) -> ToolSet {
        let Some(filter) = self.filter() else { return self.named(tools) };
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        for (name, key) in filter.unknown(&names) {
            let near = did_you_mean(&suggest(name, names.iter().copied()));
            tracing::warn!(
                "the server `{}` has no tool `{name}`, which `{key}` of its configuration names{near}",
                self.name
            );
        }
        self.named(tools).without(|tool| filter.why_not(tool).map(|key| self.excluded(key)))
    }

    fn named(&self, tools: Vec<Tool>) -> ToolSet {
        let tools = ToolSet::new(tools);
        if tools.doubles > 0 {
            let (server, doubles) = (&*self.name, tools.doubles);
            tracing::warn!(server, doubles, "left out tools that have the name of one before them");
        }
        tools
    }

    /// How long connecting may take, and listing tools.
    fn bound(&self) -> Duration {
        self.source.entry().and_then(|entry| entry.connect_timeout).unwrap_or(self.settings.connect_timeout)
    }

    fn transport(&self) -> &'static str {
        match self.source.entry().map(|entry| &entry.transport) {
            Some(Transport::Http(_) | Transport::Sse(_) | Transport::WebSocket(_)) => "tcp",
            _ => "pipe",
        }
    }

    /// Whether the transport is older than `server/discover`.
    fn is_older(&self) -> bool {
        self.source.entry().is_some_and(|entry| matches!(entry.transport, Transport::Sse(_)))
    }

    fn failed<K: Kind<Params = PaginatedRequestParams>>(&self, kind: FailureKind, message: String) -> Error {
        let method = K::method(&PaginatedRequestParams::default());
        Error::Request { server: self.name.to_string(), method, kind, message }
    }

    fn connect_error(&self, message: String, stderr: Vec<String>) -> Error {
        Error::Connect { server: self.name.to_string(), message, stderr }
    }

    fn closed_meanwhile(&self) -> Error {
        self.connect_error("it was closed while it was being connected".into(), Vec::new())
    }

    /// A place among those that start at the same time, for a server that is started here as a process.
    async fn place(&self) -> Option<Place> {
        let entry = self.source.entry()?;
        if !matches!(entry.transport, Transport::Stdio { .. }) {
            return None;
        }
        let _in_line = InLine::new(&self.in_line);
        Place::take().await
    }

    /// What is told of a server that ran out of time, if it may have been downloading.
    fn downloading(&self, bound: Duration) -> Option<String> {
        let entry = self.source.entry()?;
        let place = ConfigPlace::new(&self.name, Some(entry), &self.settings);
        let program = place.program(entry)?.ok()?;
        Some(may_be_downloading(&downloader(&program)?, bound))
    }

    async fn request<K: Kind>(&self, params: K::Params) -> Result<K::Answer, Error> {
        self.settings.middleware.run::<K>(&self.name, self.transport(), params, self).await
    }

    /// The connection, made again if it broke, or if the server does not know it any more.
    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        match self.standing().filter(|connection| !connection.wire.is_doubted()) {
            Some(connection) => Ok(connection),
            // Seldom, and large.
            None => Box::pin(self.connect(Asked::ByRequest)).await,
        }
    }

    /// Connects, unless it is connected.
    async fn connect(&self, asked: Asked) -> Result<Arc<Connection>, Error> {
        let is_trusted = |connection: &Arc<Connection>| !connection.wire.is_doubted();
        if let Some(connection) = self.standing().filter(is_trusted) {
            return Ok(connection);
        }
        let mut closings = self.closings.subscribe();
        let _one_at_a_time = self.connecting.lock().await;
        let connect = async {
            match self.standing() {
                Some(connection) if is_trusted(&connection) || connection.is_still_known().await => Ok(connection),
                _ => self.connect_now(asked).await,
            }
        };
        // Also where it was closed while this waited for its turn.
        tokio::select! {
            biased;
            _ = closings.changed() => Err(self.closed_meanwhile()),
            connected = connect => connected,
        }
    }

    async fn connect_now(&self, asked: Asked) -> Result<Arc<Connection>, Error> {
        let broken = self.state().connection.take();
        match broken {
            // The server forgot it. What is under way on it goes on, and is the last to let go of it.
            Some(forgotten) if forgotten.is_open() && forgotten.wire.is_doubted() => {
                tracing::debug!(server = &*self.name, "the server does not know the session any more");
            }
            Some(broken) => self.bury(&broken).await,
            None => {}
        }
        {
            let mut state = self.state();
            if asked == Asked::ByRequest && state.is_closed {
                return Err(Error::NoSession { server: self.name.to_string() });
            }
            if asked == Asked::ByRequest && state.link.is_some() {
                return Err(self.connect_error("it is not initialised yet: call `initialize` first".into(), Vec::new()));
            }
            if let Some((error, until)) = &state.failed
                && asked != Asked::Now
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            (state.failed, state.is_closed) = (None, false);
        }
        let started = Instant::now();
        match self.shake_hands().await {
            Ok(connection) => {
                // Before anybody else sees it; where this is given up, it is as if it had never been.
                self.settle(&connection).await;
                let mut state = self.state();
                (state.connection, state.used) = (Some(Arc::clone(&connection)), Used::default());
                Ok(connection)
            }
            Err(error) => {
                let mut state = self.state();
                state.failures += 1;
                // No more of the time goes into trying than into leaving it alone.
                let delay = backoff(state.failures).max(started.elapsed());
                state.failed = Some((error.clone(), Instant::now() + delay));
                Err(error)
            }
        }
    }

    /// What is left of a connection that broke. The first time, another is made at once; where they break again and again, later.
    async fn bury(&self, broken: &Connection) {
        let reason = broken.why_closed().await;
        tracing::warn!(server = &*self.name, reason, "the connection broke");
        broken.close().await;
        // A fresh instance may do better at once.
        if broken.hit_limit() {
            return;
        }
        let mut state = self.state();
        let was_good = broken.since.elapsed() >= STABLE || std::mem::take(&mut state.used).worked();
        state.failures = if was_good { 0 } else { state.failures + 1 };
        if state.failures > 1 {
            let delay = backoff(state.failures - 1);
            let message = format!(
                "{reason}; it soon ended {} times in a row, so it is left alone for {} s",
                state.failures,
                delay.as_secs_f64()
            );
            state.failed = Some((self.connect_error(message, Vec::new()), Instant::now() + delay));
        }
    }

    /// The handshake, through the middleware. Where `server/discover` seems to have confused the server, once more without.
    async fn shake_hands(&self) -> Result<Arc<Connection>, Error> {
        let version = self.source.entry().and_then(|entry| entry.protocol_version.clone());
        let lifecycle = match version {
            Some(version) => Lifecycle::Version(version_named(&version)),
            None if self.state().is_legacy || self.is_older() => Lifecycle::Version(LEGACY),
            None => Lifecycle::Automatic,
        };
        let mut info = ClientConfig::default();
        info.protocol_version = lifecycle.version();
        info.client_info = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        info.capabilities = self.settings.callbacks.capabilities();
        let end = Handshake { inner: self, lifecycle, made: Mutex::default() };
        let answer =
            self.settings.middleware.run::<Initialize>(&self.name, self.transport(), Box::new(info), &end).await;
        let made = end.made.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (answer, made) {
            (Ok(_), Some(connection)) => Ok(connection),
            (Ok(_), None) => {
                Err(self.connect_error("a middleware answered `initialize` in its place".into(), Vec::new()))
            }
            (Err(error), made) => {
                if let Some(connection) = made {
                    connection.close().await;
                }
                Err(error)
            }
        }
    }

    /// What follows the handshake.
    async fn settle(&self, connection: &Arc<Connection>) {
        tracing::debug!(server = &*self.name, "connected");
        if !connection.is_modern() {
            self.state().is_legacy = true;
        }
        if connection.server_info().is_some_and(|info| info.capabilities.logging.is_some()) {
            let level = self.settings.callbacks.log_level;
            let end = OnConnection { inner: self, connection };
            let set = self.settings.middleware.run::<SetLevel>(&self.name, self.transport(), level, &end);
            match tokio::time::timeout(self.bound(), set).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(server = &*self.name, %error, "the level of log messages is not set"),
                Err(_) => {
                    tracing::warn!(server = &*self.name, "the level of log messages is not set: it does not answer");
                }
            }
        }
        if let Some(interval) = self.source.entry().and_then(|entry| entry.keep_alive) {
            connection.keep_alive(Arc::clone(&self.name), interval);
        }
    }

    /// The transport.
    async fn open_link(&self) -> Result<Link, Error> {
        let callbacks = &self.settings.callbacks;
        if let Some(entry) = self.source.entry() {
            self.settings.inputs.resolve(entry, &self.settings.variables).await?;
        }
        let place = ConfigPlace::new(&self.name, self.source.entry(), &self.settings);
        let entry = match &self.source {
            Source::Entry(entry) => entry,
            Source::InProcess(serve) => {
                return Link::new(callbacks, |wire| {
                    let (ours, theirs) = tokio::io::duplex(64 << 10);
                    // Ends when the connection closes its end of the pipe.
                    tokio::spawn(serve(theirs));
                    let (reader, writer) = tokio::io::split(ours);
                    Ok(Opened::new(LineTransport::new(reader, writer, Arc::clone(wire))))
                });
            }
            Source::Wasm(embedded) => {
                let EmbeddedWasm { wasm, sandbox, compiled } = &**embedded;
                let compile =
                    || WasmServer::from_bytes(self.name.to_string(), wasm.clone(), self.settings.compiling.clone());
                let sandbox = place.granted(sandbox.clone(), &BTreeMap::new())?;
                let server = self.in_time(compiled.get_or_try_init(compile)).await?;
                return self.open_wasm(server, &[], &sandbox).await;
            }
        };
        match &entry.transport {
            Transport::Stdio { sandbox, .. } => {
                let program = place.program(entry).transpose()?;
                let program = program.ok_or_else(|| self.connect_error("it is no program".into(), Vec::new()))?;
                match place.isolation(&program, sandbox.as_ref(), self.settings.sandbox.as_ref())? {
                    Isolation::None => self.open_process(&program, None),
                    Isolation::Native(sandbox) => self.open_process(&program, Some(&sandbox)),
                    Isolation::Wasm(sandbox) => {
                        let path = program.path();
                        let server =
                            self.in_time(WasmServer::from_file(&path, self.settings.compiling.clone())).await?;
                        self.open_wasm(&server, &program.args, &sandbox).await
                    }
                }
            }
            Transport::Http(http) => {
                Link::new(callbacks, |wire| http::transport(http, &place, self.bound(), &self.settings, wire))
            }
            Transport::Sse(http) => self.open_older(http).await,
            Transport::WebSocket(http) => {
                let open =
                    |wire| async move { websocket::connect(http, &place, self.bound(), &self.settings, &wire).await };
                Link::reach(callbacks, open).await
            }
        }
    }

    /// What readies a wasm server, which may take as long as connecting to others.
    async fn in_time<T>(&self, ready: impl Future<Output = Result<T, String>>) -> Result<T, Error> {
        let bound = self.bound();
        let late = |_| {
            format!("it was not compiled and started within {} s; compiling goes on for later", bound.as_secs_f64())
        };
        let done = tokio::time::timeout(bound, ready).await.map_err(late).flatten();
        done.map_err(|message| self.connect_error(message, Vec::new()))
    }

    /// A child process.
    fn open_process(&self, program: &Program, sandbox: Option<&SandboxConfig>) -> Result<Link, Error> {
        Link::new(&self.settings.callbacks, |wire| {
            let (process, (output, input)) =
                Process::start(program, sandbox, &*self.settings.variables, &self.settings.children)
                    .map_err(|message| self.connect_error(message, Vec::new()))?;
            let transport = LineTransport::new(output, input, Arc::clone(wire)).metered(process.meter());
            Ok(Opened::new(transport).with_process(process))
        })
    }

    /// An instance of a wasm server, or a server for one with typed functions.
    async fn open_wasm(
        &self,
        server: &Arc<WasmServer>,
        arguments: &[String],
        sandbox: &SandboxConfig,
    ) -> Result<Link, Error> {
        let callbacks = &self.settings.callbacks;
        if let Some(functions) = TypedServer::new(server, arguments, sandbox) {
            self.in_time(functions.try_out()).await?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(typed::serve(functions, theirs, self.settings.children.clone()));
            return Link::new(callbacks, |wire| {
                let (reader, writer) = tokio::io::split(ours);
                Ok(Opened::new(LineTransport::new(reader, writer, Arc::clone(wire))))
            });
        }
        Link::new(callbacks, |wire| {
            let running =
                server.start(arguments, sandbox).map_err(|message| self.connect_error(message, Vec::new()))?;
            let (process, (output, input)) = Process::of_guest(running, &self.settings.children);
            let transport = LineTransport::new(output, input, Arc::clone(wire)).metered(process.meter());
            Ok(Opened::new(transport).with_process(process))
        })
    }

    /// The transport that was before streamable HTTP.
    async fn open_older(&self, http: &HttpConfig) -> Result<Link, Error> {
        let place = ConfigPlace::new(&self.name, self.source.entry(), &self.settings);
        let open = |wire| async move { sse::connect(http, &place, self.bound(), &self.settings, &wire).await };
        Link::reach(&self.settings.callbacks, open).await
    }

    /// How to reach the server over HTTP+SSE, where it may be meant: the entry leaves it open, and streamable HTTP was refused.
    fn may_be_older(&self, refused: &HandshakeError) -> Option<&HttpConfig> {
        match &self.source.entry()?.transport {
            Transport::Http(http) if http.sse_fallback && sse::may_be_meant(refused.refusal?) => Some(http),
            _ => None,
        }
    }
}

fn backoff(failures: usize) -> Duration {
    let delays = ExponentialBuilder::new().with_min_delay(BACKOFF_MIN).with_max_delay(BACKOFF_MAX).without_max_times();
    delays.build().nth(failures.saturating_sub(1).min(16)).unwrap_or(BACKOFF_MAX)
}

/// The configuration has checked that there is such a revision.
fn version_named(name: &str) -> ProtocolVersion {
    ProtocolVersion::KNOWN_VERSIONS.iter().find(|version| version.as_str() == name).cloned().unwrap_or(LEGACY)
}

impl Transmit for Inner {
    fn transmit(&self, request: Request) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let (_place, request) = self.in_turn(request).await?;
            let connection = self.connection().await?;
            OnConnection { inner: self, connection: &connection }.run(request).await
        })
    }
}

impl Inner {
    /// Waits until a call of a tool may go out, where the entry bounds them. Where the call has a time limit, what it waits
    /// here is part of that; the limits of a script go on.
    async fn in_turn(&self, mut request: Request) -> Result<(Option<SemaphorePermit<'_>>, Request), Error> {
        let (Some(lane), Params::CallTool(call)) = (&self.lane, &mut request.params) else {
            return Ok((None, request));
        };
        let Some(timeout) = call.options.timeout else { return Ok((lane.enter().await, request)) };
        let began = Instant::now();
        let Ok(place) = tokio::time::timeout(timeout, lane.enter()).await else {
            let seconds = timeout.as_secs_f64();
            let message = format!(
                "its turn did not come within {seconds} s (`calls_in_flight`, `calls_per_second` of its entry)"
            );
            return Err(Failure::new(FailureKind::Timeout, &self.name, &call.name, message).into());
        };
        call.options.timeout = Some(timeout.saturating_sub(began.elapsed()));
        Ok((place, request))
    }
}

/// What is known of the tokens that are kept for a server; nothing for one that needs none.
pub(crate) async fn stored_authorization(
    name: &str,
    config: &ServerConfig,
    settings: &SessionSettings,
) -> Result<Option<StoredAuthorization>, Error> {
    let place = ConfigPlace::new(name, Some(config), settings);
    match over_http(config) {
        Some((http, key)) => authorization::stored(http, key, &place, &settings.authorization).await,
        None => Ok(None),
    }
}

/// Logs in to a server, whether or not `used`, which uses it, needs that: `false` where there is nothing to log in to.
pub(crate) async fn log_in(
    name: &str,
    config: &ServerConfig,
    settings: &SessionSettings,
    used: impl Future<Output = Result<(), Error>>,
) -> Result<bool, Error> {
    let place = ConfigPlace::new(name, Some(config), settings);
    let Some((http, key)) = over_http(config) else { return used.await.map(|()| false) };
    let authorization = || http::authorization(key, http, &place, settings);
    authorization::log_in(http, key, &place, &settings.authorization, used, authorization).await
}

/// Forgets the tokens that are kept for a server, and revokes them.
pub(crate) async fn forget_authorization(
    name: &str,
    config: &ServerConfig,
    settings: &SessionSettings,
) -> Result<(), Error> {
    let place = ConfigPlace::new(name, Some(config), settings);
    let Some((http, key)) = over_http(config) else { return Ok(()) };
    let authorization = http::authorization(key, http, &place, settings);
    authorization::forget(http, key, &place, &settings.authorization, authorization).await
}

/// How a server is reached over HTTP, and the key that has its URL.
fn over_http(config: &ServerConfig) -> Option<(&HttpConfig, &'static str)> {
    match &config.transport {
        Transport::Http(http) | Transport::Sse(http) => Some((http, "url")),
        Transport::WebSocket(http) => Some((http, "ws_url")),
        Transport::Stdio { .. } => None,
    }
}

/// The end of the way of what is asked on this connection, and no other.
struct OnConnection<'a> {
    inner: &'a Inner,
    connection: &'a Connection,
}

impl OnConnection<'_> {
    async fn run(&self, request: Request) -> Result<Answer, Error> {
        let what = Use::of(&request.params);
        self.inner.state().used.asked(what);
        let answer = self.exchange(request).await;
        self.inner.state().used.heard(what, &answer);
        answer
    }

    async fn exchange(&self, request: Request) -> Result<Answer, Error> {
        let exchange = Exchange {
            server: &self.inner.name,
            connection: self.connection,
            callbacks: &self.inner.settings.callbacks,
            method: request.method(),
            meta: request_meta(request.meta),
        };
        exchange.run(request.params).await
    }
}

impl Transmit for OnConnection<'_> {
    fn transmit(&self, request: Request) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(self.run(request))
    }
}

/// The end of the way of a handshake.
struct Handshake<'a> {
    inner: &'a Inner,
    lifecycle: Lifecycle,
    made: Mutex<Option<Arc<Connection>>>,
}

impl Handshake<'_> {
    async fn run(&self, info: &ClientConfig) -> Result<Connection, Error> {
        let inner = self.inner;
        let on = async |link: Link, lifecycle: &Lifecycle| {
            let mut info = info.clone();
            info.protocol_version = lifecycle.version();
            let origin = Origin { server: Arc::clone(&inner.name) };
            let handler = Handler {
                callbacks: Arc::clone(&inner.settings.callbacks),
                origin,
                info,
                asked: Semaphore::new(ASKED),
            };
            link.initialize(handler, lifecycle, inner.bound()).await
        };
        let shake = async |lifecycle: &Lifecycle| {
            let opened = inner.state().link.take();
            let (link, _place) = if let Some(link) = opened {
                (link, None)
            } else {
                let place = inner.place().await;
                (inner.open_link().await?, place)
            };
            Ok::<_, Error>(on(link, lifecycle).await)
        };
        let failed = |HandshakeError { mut message, stderr, late, .. }| {
            message.extend(late.and_then(|bound| inner.downloading(bound)));
            inner.connect_error(message, stderr)
        };
        let legacy = Lifecycle::Version(LEGACY);
        let first = match shake(&self.lifecycle).await? {
            // What was taken for silence was a person who logged in. Now there are tokens.
            Err(error) if error.asked_somebody => shake(&self.lifecycle).await?,
            first => first,
        };
        let refused = match first {
            Ok(connection) => return Ok(connection),
            Err(error) if error.is_modern => match shake(&Lifecycle::Version(MODERN)).await? {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            },
            Err(error) if error.maybe_legacy && self.lifecycle == Lifecycle::Automatic => {
                tracing::debug!(
                    server = &*inner.name,
                    reason = error.message,
                    "connecting again without `server/discover`"
                );
                match shake(&legacy).await? {
                    Ok(connection) => return Ok(connection),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let Some(http) = inner.may_be_older(&refused) else { return Err(failed(refused)) };
        tracing::debug!(server = &*inner.name, reason = refused.message, "connecting again over HTTP+SSE");
        let older = match inner.open_older(http).await {
            Ok(link) => on(link, &legacy).await.map_err(failed),
            Err(error) => Err(error),
        };
        older.map_err(|error| both_failed(failed(refused), error))
    }
}

/// The error of a server that speaks neither streamable HTTP nor what was before it.
fn both_failed(streamable: Error, older: Error) -> Error {
    match (streamable, older) {
        (Error::Connect { server, message, stderr }, Error::Connect { message: older, .. }) => {
            let message = format!("{message}; and as a server of the older HTTP+SSE: {older}");
            Error::Connect { server, message, stderr }
        }
        (_, older) => older,
    }
}

impl Transmit for Handshake<'_> {
    fn transmit(&self, request: Request) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let Params::Initialize(info) = request.params else {
                return Err(self.inner.connect_error("a middleware made another request of it".into(), Vec::new()));
            };
            let connection = Arc::new(Box::pin(self.run(&info)).await?);
            let server = connection.server_info();
            let before = self.made.lock().unwrap_or_else(PoisonError::into_inner).replace(connection);
            if let Some(before) = before {
                before.close().await;
            }
            server
                .map(Answer::Initialize)
                .ok_or_else(|| self.inner.connect_error("it did not say what it is".into(), Vec::new()))
        })
    }
}
