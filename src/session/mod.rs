//! One connection to one MCP server: starting or reaching it, requests, cached lists, and its end. Knows rmcp; knows no scripts.

pub(crate) mod authorization;
mod http;
mod process;
mod wire;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotification, CancelledNotificationParam, ClientConfig,
    ClientRequest, GetExtensions, GetPromptRequestParams, GetPromptResult, Implementation, JsonObject,
    ListToolsRequest, PaginatedRequestParams, PingRequest, Prompt, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResult, RequestId, Resource, ResourceTemplate, ServerPeerInfo, ServerResult,
};
use rmcp::service::{ClientInitializeError, Peer, PeerRequestOptions, RunningService, ServiceError, ServiceExt};
use rmcp::{ClientHandler, RoleClient, RoleServer, Service};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::catalog::ToolSet;
use crate::config::{ServerConfig, Transport, expand};
use crate::error::{Error, with_causes};
use crate::tool::{Failure, FailureKind, Tool, ToolAnswer};
use authorization::{Authorization, AuthorizationSettings, StoredAuthorization};
pub(crate) use process::Children;
use process::{Process, Program};
use wire::{LineTransport, Slot, WantsText, Wire};

/// Looks up the variables of a configuration: `${NAME}` becomes what it returns.
pub(crate) type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How sessions are opened, the same for all servers of a client.
#[derive(Clone)]
pub(crate) struct SessionSettings {
    pub(crate) variables: Variables,
    pub(crate) connect_timeout: Duration,
    pub(crate) verify_tls: bool,
    pub(crate) children: Children,
    pub(crate) authorization: AuthorizationSettings,
}

/// A server's entry while its strings are expanded.
struct ConfigPlace<'a> {
    server: &'a str,
    variables: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
}

impl ConfigPlace<'_> {
    fn wrong(&self, key: &str, message: impl Into<String>) -> Error {
        Error::Config { path: format!("mcpServers.{}.{key}", self.server), message: message.into() }
    }

    fn expand(&self, key: &str, text: &str) -> Result<String, Error> {
        expand(text, self.variables)
            .map_err(|variable| self.wrong(key, format!("it needs the variable `{variable}`, which is not set")))
    }
}

/// How long closing may take at most, over the bounds of the process itself.
const CLOSE: Duration = Duration::from_secs(10);
/// Size of all pages of a server's list of tools.
const LIST_BYTES: usize = 64 << 20;
const TOOLS_LIST: &str = "tools/list";
/// Pages of one list; a server that always names a next page must not keep us for ever.
const PAGES: usize = 1000;

/// An open connection to one server. Clones share it; it ends with [`Session::close`], or when the client and all clones are gone.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    peer: Peer<RoleClient>,
    service: tokio::sync::Mutex<Option<RunningService<RoleClient, Events>>>,
    /// Kept after the service, so that its input is closed before the process is waited for.
    process: Option<Process>,
    wire: Arc<Wire>,
    authorization: Arc<Authorization>,
    /// With the count of changes that it was listed at.
    tools: Mutex<Option<(u64, Arc<ToolSet>)>>,
    listing: tokio::sync::Mutex<()>,
    /// Bounds listing too.
    connect_timeout: Duration,
    call_timeout: Option<Duration>,
}

/// What rmcp asks of the client.
struct Events;

impl ClientHandler for Events {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.protocol_version = ProtocolVersion::V_2025_11_25;
        info.client_info = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        info
    }
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
    /// Connects and initialises.
    pub(crate) async fn open(name: &str, config: &ServerConfig, settings: &SessionSettings) -> Result<Self, Error> {
        let connect = |message| Error::Connect { server: name.into(), message, stderr: Vec::new() };
        let place = ConfigPlace { server: name, variables: &*settings.variables };
        let bound = config.connect_timeout.unwrap_or(settings.connect_timeout);
        let wire = Arc::new(Wire::default());
        let opened = match &config.transport {
            Transport::Stdio { command, args, env, cwd } => {
                let cwd = cwd.as_ref().map(|cwd| place.expand("cwd", &cwd.display().to_string())).transpose()?;
                let program = Program {
                    command: place.expand("command", command)?,
                    args: args.iter().map(|arg| place.expand("args", arg)).collect::<Result<_, _>>()?,
                    env: env
                        .iter()
                        .map(|(key, value)| Ok((key.clone(), place.expand("env", value)?)))
                        .collect::<Result<_, Error>>()?,
                    cwd: cwd.map(PathBuf::from),
                };
                let (process, stdout, stdin) =
                    Process::start(&program, &*settings.variables, &settings.children).map_err(connect)?;
                let transport = LineTransport::new(stdout, stdin, Arc::clone(&wire));
                Self::initialize(name, transport, wire, Some(process), bound, Arc::new(Authorization::None)).await
            }
            Transport::Http(http) => {
                let (verify, settings) = (settings.verify_tls, &settings.authorization);
                let (transport, authorization) = http::transport(http, &place, bound, verify, settings, &wire)?;
                let first = Self::initialize(name, transport, wire, None, bound, Arc::clone(&authorization)).await;
                if first.is_err() && authorization.took_long() {
                    // What rmcp took for silence was a person who logged in. Now there are tokens.
                    let wire = Arc::new(Wire::default());
                    let (transport, authorization) = http::transport(http, &place, bound, verify, settings, &wire)?;
                    Self::initialize(name, transport, wire, None, bound, authorization).await
                } else {
                    first
                }
            }
            Transport::WebSocket(_) => Err(place.wrong("ws_url", "WebSocket servers are not supported yet")),
        };
        let mut session = opened?;
        if let Some(inner) = Arc::get_mut(&mut session.inner) {
            inner.call_timeout = config.call_timeout;
        }
        Ok(session)
    }

    /// Connects to a server in this process.
    pub(crate) async fn in_process<S: Service<RoleServer>>(name: &str, server: S) -> Result<Self, Error> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        // Ends when the session closes its end of the pipe.
        tokio::spawn(async move {
            if let Ok(service) = server.serve(theirs).await {
                let _ = service.waiting().await;
            }
        });
        let (reader, writer) = tokio::io::split(ours);
        let wire = Arc::new(Wire::default());
        let transport = LineTransport::new(reader, writer, Arc::clone(&wire));
        Self::initialize(name, transport, wire, None, Duration::from_secs(30), Arc::new(Authorization::None)).await
    }

    async fn initialize<T>(
        name: &str,
        transport: T,
        wire: Arc<Wire>,
        process: Option<Process>,
        bound: Duration,
        authorization: Arc<Authorization>,
    ) -> Result<Self, Error>
    where
        T: rmcp::transport::Transport<RoleClient> + 'static,
    {
        let lifecycle = rmcp::service::ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        let serving = rmcp::service::ClientServiceExt::serve_with_lifecycle(Events, transport, lifecycle);
        let service = match authorization.within(bound, serving).await {
            Some(Ok(service)) => service,
            Some(Err(error)) => {
                // A process that has just ended explains more than the pipe that broke.
                let ended = match &process {
                    Some(process) => process.ended_within(Duration::from_millis(500)).await,
                    None => None,
                };
                let reason = || match &error {
                    ClientInitializeError::ConnectionClosed(_) => {
                        "it closed the connection before it answered `initialize`".into()
                    }
                    ClientInitializeError::TransportError { error, .. } => http::explain(error),
                    other => with_causes(other),
                };
                let message = ended.map_or_else(reason, |how| format!("{how} before it answered `initialize`"));
                return Err(Self::connect_error(name, &message, process.as_ref(), &wire).await);
            }
            None => {
                let message = format!("it did not answer `initialize` within {} s", bound.as_secs_f64());
                return Err(Self::connect_error(name, &message, process.as_ref(), &wire).await);
            }
        };
        tracing::debug!(server = name, "connected");
        let inner = Inner {
            name: name.into(),
            peer: service.peer().clone(),
            service: tokio::sync::Mutex::new(Some(service)),
            process,
            wire,
            authorization,
            tools: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            connect_timeout: bound,
            call_timeout: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn connect_error(name: &str, message: &str, process: Option<&Process>, wire: &Wire) -> Error {
        let mut stderr = Vec::new();
        if let Some(process) = process {
            process.close().await;
            stderr = process.stderr();
        }
        Error::Connect { server: name.into(), message: format!("{message}{}", wire.complaints()), stderr }
    }

    /// How long a call that a script makes may take.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.inner.call_timeout
    }

    /// Name of the server.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.inner.name
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.inner.peer.is_transport_closed()
    }

    /// What the server said of itself: name, version, capabilities, instructions, protocol version.
    #[must_use]
    pub fn server_info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.inner.peer.peer_info()
    }

    /// Calls a tool by its own name, and waits for at most `timeout`, if one is given. When the future is dropped, the call is cancelled
    /// at the server.
    ///
    /// # Errors
    /// [`Error::Call`] if the call itself fails. A tool that failed is an answer, with `is_error` set.
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        timeout: Option<Duration>,
    ) -> Result<ToolAnswer, Error> {
        let call = CallToolRequest::new(CallToolRequestParams::new(name.to_string()).with_arguments(arguments));
        let answer = self.text_of(ClientRequest::CallToolRequest(call), timeout).await;
        let failed =
            |kind, message| Failure { kind, server: self.inner.name.clone(), tool: name.into(), message, data: None };
        let text = match answer {
            Ok(text) => text,
            Err(error) => {
                let (kind, reason) = self.explain(&error).await;
                let data = match error {
                    ServiceError::McpError(error) => error.data,
                    _ => None,
                };
                return Err(Failure { data, ..failed(kind, reason) }.into());
            }
        };
        let unusable = |reason: String| failed(FailureKind::Answer, format!("the answer can't be used: {reason}"));
        let answer: ToolAnswer = serde_json::from_str(&text)
            .map_err(|error| unusable(format!("it is no object with `content`: {error}")))?;
        match answer.result_type.as_deref() {
            None | Some("complete") => Ok(answer),
            Some(other) => Err(unusable(format!("its type is `{other}`, which is not supported yet")).into()),
        }
    }

    /// The server's tools. Listed once, and again after the server said that they changed.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn list_tools(&self) -> Result<Vec<Tool>, Error> {
        Ok(self.tools().await?.iter().cloned().collect())
    }

    pub(crate) async fn tools(&self) -> Result<Arc<ToolSet>, Error> {
        if let Some(tools) = self.cached_tools() {
            return Ok(tools);
        }
        let _one_at_a_time = self.inner.listing.lock().await;
        if let Some(tools) = self.cached_tools() {
            return Ok(tools);
        }
        let changes = self.inner.wire.tools_changed.load(Ordering::Acquire);
        let bound = self.inner.connect_timeout;
        let too_slow =
            || self.request_failed(TOOLS_LIST, format!("it did not answer within {} s", bound.as_secs_f64()));
        let tools = self.inner.authorization.within(bound, self.fetch_tools()).await.ok_or_else(too_slow)??;
        let tools = Arc::new(ToolSet::new(tools));
        *self.inner.tools.lock().unwrap_or_else(PoisonError::into_inner) = Some((changes, Arc::clone(&tools)));
        Ok(tools)
    }

    fn cached_tools(&self) -> Option<Arc<ToolSet>> {
        let changes = self.inner.wire.tools_changed.load(Ordering::Acquire);
        let cached = self.inner.tools.lock().unwrap_or_else(PoisonError::into_inner);
        cached.as_ref().filter(|(listed_at, _)| *listed_at == changes).map(|(_, tools)| Arc::clone(tools))
    }

    async fn fetch_tools(&self) -> Result<Vec<Tool>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            tools: Vec<Value>,
            next_cursor: Option<String>,
        }
        if self.server_info().is_some_and(|info| info.capabilities.tools.is_none()) {
            return Ok(Vec::new());
        }
        let mut tools = Vec::new();
        let mut bytes = 0;
        let mut cursor = None;
        for _ in 0..PAGES {
            let list = ListToolsRequest::with_param(PaginatedRequestParams::default().with_cursor(cursor.take()));
            let answer = self.text_and_result_of(ClientRequest::ListToolsRequest(list), None).await;
            let (text, result) = self.of_request(TOOLS_LIST, answer).await?;
            let refused = refused_tools(&text, &result);
            bytes += text.len();
            if bytes > LIST_BYTES {
                return Err(self.request_failed(TOOLS_LIST, format!("the list has more than {LIST_BYTES} bytes")));
            }
            let page: Page = serde_json::from_str(&text)
                .map_err(|error| self.request_failed(TOOLS_LIST, format!("its answer can't be read: {error}")))?;
            for entry in page.tools {
                match Tool::from_json(entry) {
                    Ok(tool) if refused.contains(&tool.name) => {
                        tracing::warn!(
                            server = self.inner.name,
                            tool = tool.name,
                            "skipped a tool whose `x-mcp-header` is wrong"
                        );
                    }
                    Ok(tool) => tools.push(tool),
                    Err(reason) => tracing::warn!(server = self.inner.name, reason, "skipped a tool"),
                }
            }
            match page.next_cursor.filter(|next| !next.is_empty()) {
                Some(next) => cursor = Some(next),
                None => return Ok(tools),
            }
        }
        Err(self.request_failed(TOOLS_LIST, format!("the list has more than {PAGES} pages")))
    }

    /// The server's resources, all pages.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn list_resources(&self) -> Result<Vec<Resource>, Error> {
        self.of_request("resources/list", self.inner.peer.list_all_resources().await).await
    }

    /// The server's resource templates, all pages.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn list_resource_templates(&self) -> Result<Vec<ResourceTemplate>, Error> {
        let templates = self.inner.peer.list_all_resource_templates().await;
        self.of_request("resources/templates/list", templates).await
    }

    /// Reads a resource by its URI.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn read_resource(&self, uri: &str) -> Result<ReadResourceResult, Error> {
        let read = self.inner.peer.read_resource(ReadResourceRequestParams::new(uri));
        self.of_request("resources/read", read.await).await
    }

    /// The server's prompts, all pages.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn list_prompts(&self) -> Result<Vec<Prompt>, Error> {
        self.of_request("prompts/list", self.inner.peer.list_all_prompts().await).await
    }

    /// Fills in a prompt.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn get_prompt(&self, name: &str, arguments: JsonObject) -> Result<GetPromptResult, Error> {
        let prompt = self.inner.peer.get_prompt(GetPromptRequestParams::new(name).with_arguments(arguments));
        self.of_request("prompts/get", prompt.await).await
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn ping(&self) -> Result<(), Error> {
        let ping = self.inner.peer.send_request(ClientRequest::PingRequest(PingRequest::default()));
        self.of_request("ping", ping.await).await.map(drop)
    }

    /// Ends the connection. A child process is ended with it: its input is closed, then it gets SIGTERM, then SIGKILL, each after two
    /// seconds more.
    #[doc(alias = "disconnect")]
    pub async fn close(&self) {
        if let Some(mut service) = self.inner.service.lock().await.take() {
            let _ = tokio::time::timeout(CLOSE, service.close()).await;
        }
        if let Some(process) = &self.inner.process {
            process.close().await;
        }
    }

    /// Sends a request and waits for the JSON text of its result. When the future is dropped, the request is cancelled at the server.
    async fn text_of(&self, request: ClientRequest, timeout: Option<Duration>) -> Result<String, ServiceError> {
        Ok(self.text_and_result_of(request, timeout).await?.0)
    }

    /// The same, with what rmcp made of the result.
    async fn text_and_result_of(
        &self,
        mut request: ClientRequest,
        timeout: Option<Duration>,
    ) -> Result<(String, ServerResult), ServiceError> {
        let slot = Arc::new(Slot::default());
        request.extensions_mut().insert(WantsText(Arc::downgrade(&slot)));
        let mut options = PeerRequestOptions::no_options();
        options.timeout = timeout;
        let handle = self.inner.peer.send_request_with_option(request, options).await?;
        let mut cancel = CancelOnDrop { peer: &self.inner.peer, id: Some(handle.id.clone()) };
        let result = handle.await_response().await;
        cancel.id = None;
        let result: ServerResult = result?;
        let text = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A transport that does not divert gives the typed result.
        let text =
            text.map_or_else(|| serde_json::to_string(&result).map_err(|_| ServiceError::UnexpectedResponse), Ok)?;
        Ok((text, result))
    }

    /// The result of a request, its error named.
    async fn of_request<T>(&self, method: &'static str, result: Result<T, ServiceError>) -> Result<T, Error> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.request_failed(method, self.explain(&error).await.1)),
        }
    }

    fn request_failed(&self, method: &'static str, message: String) -> Error {
        Error::Request { server: self.inner.name.clone(), method, message }
    }

    /// What is known of the end of a connection: how the process ended, and what it said last.
    async fn why_closed(&self) -> String {
        let mut reason = format!("the connection is closed{}", self.inner.wire.complaints());
        if let Some(process) = &self.inner.process {
            if let Some(ended) = process.ended_within(Duration::from_millis(500)).await {
                reason = format!("{reason}: {ended}");
            }
            let stderr = process.stderr();
            if !stderr.is_empty() {
                reason = format!(
                    "{reason}; its last lines on stderr:\n  {}",
                    stderr[stderr.len().saturating_sub(5)..].join("\n  ")
                );
            }
        }
        reason
    }

    async fn explain(&self, error: &ServiceError) -> (FailureKind, String) {
        match error {
            ServiceError::McpError(error) => {
                (FailureKind::Protocol, format!("{} (JSON-RPC error {})", error.message, error.code.0))
            }
            ServiceError::Timeout { timeout } => {
                (FailureKind::Timeout, format!("the time limit of the call, {} s, is over", timeout.as_secs_f64()))
            }
            ServiceError::TransportClosed => (FailureKind::Connection, self.why_closed().await),
            ServiceError::TransportSend(error) => (FailureKind::Connection, http::explain(error)),
            other => (FailureKind::Connection, with_causes(other)),
        }
    }
}

/// Tools that rmcp has taken out of a list, as no call of them could have the headers that they ask for.
fn refused_tools(text: &str, result: &ServerResult) -> HashSet<String> {
    let ServerResult::ListToolsResult(kept) = result else { return HashSet::new() };
    let mut refused: HashSet<String> = wire::typed_tools(text).into_iter().map(|tool| tool.name.into()).collect();
    for tool in &kept.tools {
        refused.remove(&*tool.name);
    }
    refused
}

/// What is known of the tokens that are kept for a server; nothing for one that needs none.
pub(crate) async fn stored_authorization(
    name: &str,
    config: &ServerConfig,
    settings: &SessionSettings,
) -> Result<Option<StoredAuthorization>, Error> {
    let place = ConfigPlace { server: name, variables: &*settings.variables };
    match &config.transport {
        Transport::Http(http) => authorization::stored(http, "url", &place, &settings.authorization).await,
        Transport::WebSocket(http) => authorization::stored(http, "ws_url", &place, &settings.authorization).await,
        Transport::Stdio { .. } => Ok(None),
    }
}

/// Forgets the tokens that are kept for a server.
pub(crate) async fn forget_authorization(
    name: &str,
    config: &ServerConfig,
    settings: &SessionSettings,
) -> Result<(), Error> {
    let place = ConfigPlace { server: name, variables: &*settings.variables };
    match &config.transport {
        Transport::Http(http) => authorization::forget(http, "url", &place, &settings.authorization).await,
        Transport::WebSocket(http) => authorization::forget(http, "ws_url", &place, &settings.authorization).await,
        Transport::Stdio { .. } => Ok(()),
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
