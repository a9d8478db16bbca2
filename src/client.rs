//! [`Client`]: the configured servers, their sessions, and the scripts that call them. The only place that knows both.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rmcp::RoleServer;
use rmcp::model::{
    CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult, LoggingLevel,
    LoggingMessageNotificationParam, ResourceContents, Root,
};
use rmcp::service::Peer;
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, Checked, Namespaces, SearchResults, start};
use crate::config::{Config, Input, SandboxConfig};
use crate::error::Error;
use crate::limits::Limits;
use crate::middleware::{Chain, Middleware, RequestLog, TraceContext};
use crate::sandbox::Compiling;
use crate::script::{self, Call, Called, Door, Execution, Isolation, Run};
use crate::serve::{CodeMode, CodeModeServer, Description};
use crate::session::authorization::{AuthorizationRequest, AuthorizationSettings, StoredAuthorization, TokenStore};
use crate::session::{
    self, CallbackError, Callbacks, Children, Inputs, Listings, Origin, Patience, Permissions, ServerMessage,
    ServerStatus, Session, SessionSettings, Source,
};
use crate::tool::{BoxFuture, CallOptions, Detail, Failure, FailureKind, LogSink, text_value};

/// Name of the session that code mode shows instead of the servers' own.
pub const CODE_MODE_SESSION: &str = "code_mode";
/// Arguments up to this size are checked in microseconds, whatever the schema.
const FAST_CHECK: usize = 4 << 10;
/// What scripts call to read a resource.
const READ_RESOURCE: &str = "read_resource";
/// Larger ones take turns.
static CHECKS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);

/// The configured MCP servers as one thing to hold: manages their sessions, searches their tools, runs scripts that call them.
///
/// Clones share everything. Sessions live until they are closed, or until the last clone is dropped, which ends the servers' processes.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rhaiway::Error> {
/// let client = rhaiway::Client::builder()
///     .config(rhaiway::Config::from_file("mcp.json")?)
///     .variables(|name| std::env::var(name).ok())
///     .code_mode(true)
///     .build()?;
/// let run = client.execute_code("files.list_directory(#{path: \".\"})", Default::default()).await?;
/// println!("{} after {} calls", run.result, run.calls.len());
/// client.close_all_sessions().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "MCPClient")]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    configured: RwLock<Configured>,
    setup: Setup,
    limits: Limits,
    sessions: Mutex<HashMap<String, Session>>,
    /// What lists the tools of servers; it ends with the client.
    listings: Listings,
    /// Apart from the servers' own, which may have any name.
    code_mode_session: Session,
}

/// The configuration, and what follows from it for every script.
struct Configured {
    config: Config,
    namespaces: Arc<Namespaces>,
}

/// Sets up a [`Client`]. Made by [`Client::builder`].
#[must_use]
pub struct ClientBuilder {
    config: Config,
    setup: Setup,
}

/// What is set once, for all servers and scripts of a client.
struct Setup {
    allowed: Option<Vec<String>>,
    /// Servers in this process, in the order in which they were given.
    in_process: Vec<(String, Source)>,
    middleware: Vec<Arc<dyn Middleware>>,
    request_log: RequestLog,
    code_mode: bool,
    description: Description,
    settings: SessionSettings,
    /// Those of the configuration, where there are none.
    limits: Option<Limits>,
    isolation: Isolation,
}

impl ClientBuilder {
    /// The servers; none where this is not called.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Only these servers are connected; where this is not called, all but those with `"disabled": true`.
    pub fn allowed_servers(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.setup.allowed = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Enables [`Client::execute_code`], and shows only the code-mode session to the outside; off where this is not called.
    pub fn code_mode(mut self, on: bool) -> Self {
        self.setup.code_mode = on;
        self
    }

    /// How much the tool `execute_code` of [`Client::serve_stdio`] says of the language; [`Description::Short`] where this is not called.
    pub fn description(mut self, description: Description) -> Self {
        self.setup.description = description;
        self
    }

    /// Looks up `${VAR}` in the configuration, and the variables that child processes need, such as `PATH`. Nothing is known where this
    /// is not called; `|name| std::env::var(name).ok()` is what most programs want.
    pub fn variables(mut self, variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.setup.settings.variables = Arc::new(variables);
        self
    }

    /// Asks the user for what a configuration needs: the `inputs` in `${input:NAME}`, as VS Code has them. It is asked when the first server
    /// that needs an input is connected, once for each, one at a time. `None` takes the input's `default`. Where this is not called, or
    /// there is no answer and no default, the variable [`Input::variable`] has to be set.
    ///
    /// ```
    /// let client = rhaiway::Client::builder()
    ///     .on_input(|input| async move { Ok::<_, String>((input.id == "region").then(|| "eu".to_string())) })
    ///     .build()?;
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    pub fn on_input<F>(mut self, ask: impl Fn(Input) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<String>, String>> + Send + 'static,
    {
        self.setup.settings.inputs.ask = Some(Arc::new(move |input| -> BoxFuture<'static, _> { Box::pin(ask(input)) }));
        self
    }

    /// Adds a server that runs in this process, such as one of rmcp's handlers, made anew for each connection; for tests, and for programs
    /// that bring servers of their own. It goes before one of the same name in the configuration.
    ///
    /// ```
    /// #[derive(Clone)]
    /// struct Quiet;
    /// impl rmcp::ServerHandler for Quiet {}
    ///
    /// let client = rhaiway::Client::builder().in_process_server("quiet", || Quiet).build()?;
    /// assert_eq!(client.server_names(), ["quiet"]);
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    pub fn in_process_server<S: rmcp::Service<rmcp::RoleServer>>(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        self.add(name.into(), Source::in_process(make));
        self
    }

    /// Adds middleware, behind that which was added before. The first of all is always one that logs requests with `tracing`.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.setup.middleware.push(Arc::new(middleware));
        self
    }

    /// Tells where requests stand in a distributed trace; it is asked in the `tracing` span of each request, and what it says is sent as
    /// `_meta.traceparent`. With OpenTelemetry, it is made from the context of `tracing::Span::current()`.
    ///
    /// ```
    /// use rhaiway::middleware::TraceContext;
    /// let client = rhaiway::Client::builder()
    ///     .trace_context(|| Some(TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")))
    ///     .build()?;
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    pub fn trace_context(mut self, context: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        self.setup.request_log.trace_context = Some(Arc::new(context));
        self
    }

    fn callbacks(&mut self) -> &mut Callbacks {
        Arc::make_mut(&mut self.setup.settings.callbacks)
    }

    /// Lets servers ask this client's model for a completion (`sampling/createMessage`). Where this is not called, servers are told that
    /// they can't. A callback that fails or panics is an error for the server, and is logged; that holds for all callbacks.
    #[doc(alias = "sampling_callback")]
    pub fn on_sampling<F, E>(
        mut self,
        callback: impl Fn(CreateMessageRequestParams, Origin) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<CreateMessageResult, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.callbacks().set_sampling(callback);
        self
    }

    /// Lets servers ask the user for input: to fill in a form, or to open a URL (`elicitation/create`). What an accepted form leaves out
    /// gets the form's defaults.
    ///
    /// ```
    /// use rhaiway::model::{ElicitRequestParams, ElicitResult, ElicitationAction};
    /// let client = rhaiway::Client::builder()
    ///     .on_elicitation(|request: ElicitRequestParams, from| async move {
    ///         println!("{} asks: {request:?}", from.server);
    ///         Ok::<_, std::io::Error>(ElicitResult::new(ElicitationAction::Decline))
    ///     })
    ///     .build()?;
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    #[doc(alias = "elicitation_callback")]
    pub fn on_elicitation<F, E>(
        mut self,
        callback: impl Fn(ElicitRequestParams, Origin) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<ElicitResult, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.callbacks().set_elicitation(callback);
        self
    }

    /// The folders and other places that servers are to work in (`roots/list`); [`Client::set_roots`] changes them.
    pub fn roots(mut self, roots: impl IntoIterator<Item = Root>) -> Self {
        self.callbacks().offer_roots(roots.into_iter().collect());
        self
    }

    /// Tells servers the roots, in place of the list of [`ClientBuilder::roots`].
    #[doc(alias = "list_roots_callback")]
    pub fn on_list_roots<F, E>(mut self, callback: impl Fn(Origin) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Root>, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.callbacks().set_list_roots(callback);
        self
    }

    /// Hears what servers log (`notifications/message`), in order. [`ExecuteOptions::server_logs`] puts it in a script's log too.
    #[doc(alias = "logging_callback")]
    pub fn on_logging<F>(
        mut self,
        callback: impl Fn(LoggingMessageNotificationParam, Origin) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.callbacks().set_logging(callback);
        self
    }

    /// The least severe messages that servers are asked to log, and that are let through; warnings where this is not called.
    pub fn log_level(mut self, level: LoggingLevel) -> Self {
        self.callbacks().log_level = level;
        self
    }

    /// Hears every notification and request of every server; those of one server in order.
    #[doc(alias = "message_handler")]
    pub fn on_message<F>(mut self, callback: impl Fn(ServerMessage, Origin) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.callbacks().set_message(callback);
        self
    }

    /// How long connecting to one server may take, where its entry has no `connect_timeout`; 30 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.setup.settings.connect_timeout = timeout;
        self
    }

    /// Whether the certificates of HTTP servers are checked; on where this is not called. Off is logged as a warning.
    #[doc(alias = "verify")]
    pub fn verify_tls(mut self, on: bool) -> Self {
        self.setup.settings.verify_tls = on;
        self
    }

    /// Who has a person agree in the browser, where a server over HTTP wants authorisation (OAuth). `redirect_uri` is where the browser is
    /// sent afterwards, such as `http://127.0.0.1:8765/callback`. `ask` gets the address to open, and gives the full address that the
    /// browser was then sent to, or why there is none; it sees to it that it does not wait for ever. It is asked when the server refuses
    /// a request for want of (enough) authorisation, and one at a time for each server; the time that it takes does not count as the
    /// server's, and it goes on where the request is given up meanwhile, as long as there is the client or a session of it. After an
    /// answer that came to nothing, nobody is asked again for that server for a minute, or until its tokens are
    /// [forgotten](Client::forget_authorization).
    ///
    /// Where this is not called, such a server is an [`Error::Connect`] that names `rhaiway auth login`, unless tokens are
    /// [kept](ClientBuilder::token_store) for it, or its `auth` needs nobody.
    ///
    /// ```no_run
    /// # async fn open(url: &str) -> Result<String, String> { Err(url.into()) }
    /// let client = rhaiway::Client::builder()
    ///     .on_authorization("http://127.0.0.1:8765/callback", |request| async move { open(&request.url).await })
    ///     .build()?;
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    pub fn on_authorization<F, Answer>(mut self, redirect_uri: impl Into<String>, ask: F) -> Self
    where
        F: Fn(AuthorizationRequest) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<String, String>> + Send + 'static,
    {
        let ask = Arc::new(move |request| -> BoxFuture<'static, _> { Box::pin(ask(request)) });
        self.setup.settings.authorization.ask = Some((redirect_uri.into(), ask));
        self
    }

    /// Where the tokens are kept that authorise requests to servers over HTTP; in memory where this is not called.
    pub fn token_store(mut self, store: impl TokenStore + 'static) -> Self {
        self.setup.settings.authorization.store = Arc::new(store);
        self
    }

    /// Bounds on every script, in place of the configuration's `limits`; [`ExecuteOptions`] can change the wall clock for one.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = Some(limits);
        self
    }

    /// Where scripts run; the sandbox where this is not called.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.setup.isolation = isolation;
        self
    }

    /// Sandboxes all servers that are started here (`command`), but for those whose own entry has `sandbox`; none where this is not called.
    ///
    /// ```
    /// use rhaiway::{Access, Client, SandboxConfig};
    /// let client = Client::builder().sandbox(SandboxConfig::default().mount("./data", "/data", Access::ReadOnly)).build()?;
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    pub fn sandbox(mut self, sandbox: SandboxConfig) -> Self {
        self.setup.settings.sandbox = Some(sandbox);
        self
    }

    /// Adds a wasm server that this program brings: a module for WASI preview 1, a component for preview 2, or a component with typed
    /// functions. It goes before one of the same name in the configuration.
    ///
    /// ```no_run
    /// use rhaiway::{Access, Client, SandboxConfig};
    /// let sandbox = SandboxConfig::default().mount("./notes", "/notes", Access::ReadWrite);
    /// let client = Client::builder().wasm_server("notes", std::fs::read("sandbox/dist/notes.wasm")?, sandbox).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wasm_server(
        mut self,
        name: impl Into<String>,
        wasm: impl Into<Cow<'static, [u8]>>,
        sandbox: SandboxConfig,
    ) -> Self {
        self.add(name.into(), Source::wasm(wasm.into(), sandbox));
        self
    }

    fn add(&mut self, name: String, source: Source) {
        self.setup.in_process.retain(|(other, _)| *other != name);
        self.setup.in_process.push((name, source));
    }

    /// A folder of this user's for compiled code. Without one, each process spends two seconds on compiling the script engine, and the
    /// time that its wasm servers take.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.setup.settings.compiling.cache_dir = Some(folder.into());
        self
    }

    /// Is called before something is compiled, with what it is: the script engine, or the name of a wasm server's file.
    pub fn on_compile(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.setup.settings.compiling.on_compile = Some(Arc::new(tell));
        self
    }

    /// Makes the client. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::UnknownServer`] if an allowed server is not configured; [`Error::Limit`], or [`Error::Config`] where the configuration
    /// sets it, for a limit that is out of its range.
    pub fn build(self) -> Result<Client, Error> {
        let Self { config, mut setup } = self;
        let limits = setup.limits.clone().map_or_else(|| config.limits(), Ok)?;
        limits.check().map_err(|message| Error::Limit { message })?;
        let known = setup.server_names(&config);
        if let Some(name) = setup.allowed.iter().flatten().find(|name| !known.contains(name)) {
            return Err(Error::UnknownServer { name: name.clone(), known });
        }
        setup.settings.middleware.add(Arc::new(std::mem::take(&mut setup.request_log)));
        for middleware in std::mem::take(&mut setup.middleware) {
            setup.settings.middleware.add(middleware);
        }
        let namespaces = setup.namespaces(&config);
        let configured = RwLock::new(Configured { config, namespaces });
        let inner = Arc::new_cyclic(|client: &Weak<Inner>| {
            let client = client.clone();
            let serve = Source::in_process(move || CodeModeServer::new(Arc::new(WeakClient(client.clone()))));
            // It is no server of the user's, so that middleware and callbacks do not see it.
            let (callbacks, middleware) = Default::default();
            let settings = SessionSettings { callbacks, middleware, ..setup.settings.clone() };
            let code_mode_session = Session::new(CODE_MODE_SESSION, serve, settings);
            let (sessions, listings) = Default::default();
            Inner { configured, setup, limits, sessions, listings, code_mode_session }
        });
        Ok(Client { inner })
    }
}

impl Setup {
    fn server_names(&self, config: &Config) -> Vec<String> {
        let mut names = config.server_names();
        names.extend(
            self.in_process
                .iter()
                .map(|(name, _)| name.clone())
                .filter(|name| !names.contains(name))
                .collect::<Vec<_>>(),
        );
        names
    }

    /// The allowed servers.
    fn namespaces(&self, config: &Config) -> Arc<Namespaces> {
        let mut names = self.server_names(config);
        names.retain(|name| match &self.allowed {
            Some(allowed) => allowed.contains(name),
            None => self.in_process(name).is_some() || !config.is_disabled(name),
        });
        Arc::new(Namespaces::new(&names))
    }

    fn in_process(&self, name: &str) -> Option<&Source> {
        self.in_process.iter().find(|(other, _)| other == name).map(|(_, source)| source)
    }
}

/// Settings of one [`Client::execute_code`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ExecuteOptions {
    /// Wall clock of the script; that of the client's [`Limits`] where it is not set.
    pub timeout: Option<Duration>,
    /// Is told each line as the script prints it.
    pub on_log: Option<LogSink>,
    /// Whether the log tells how far calls are, where their servers say so.
    pub log_progress: bool,
    /// Whether the log tells what servers log while a call to them is in flight.
    pub server_logs: bool,
}

impl ExecuteOptions {
    /// Sets the wall clock.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether the log tells how far calls are.
    #[must_use]
    pub fn log_progress(mut self, on: bool) -> Self {
        self.log_progress = on;
        self
    }

    /// Sets whether the log tells what servers log (`notifications/message`) while a call to them is in flight, from
    /// [`ClientBuilder::log_level`] on; off where this is not called, as servers choose these words, and a model reads them.
    #[must_use]
    pub fn server_logs(mut self, on: bool) -> Self {
        self.server_logs = on;
        self
    }

    /// Sets what is told each line as the script prints it.
    #[must_use]
    pub fn on_log(mut self, on_log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_log = Some(Arc::new(on_log));
        self
    }
}

/// What became of connecting all servers.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Sessions {
    /// The open sessions, by server.
    pub open: BTreeMap<String, Session>,
    /// Why the other servers have none.
    pub failed: BTreeMap<String, Error>,
}

impl Client {
    /// A client without servers, to be set up.
    pub fn builder() -> ClientBuilder {
        let settings = SessionSettings {
            variables: Arc::new(|_: &str| None),
            connect_timeout: Duration::from_secs(30),
            verify_tls: true,
            children: Children::default(),
            callbacks: Arc::default(),
            middleware: Arc::new(Chain::default()),
            authorization: AuthorizationSettings::default(),
            sandbox: None,
            compiling: Compiling::default(),
            inputs: Inputs::default(),
        };
        let setup = Setup {
            allowed: None,
            in_process: Vec::new(),
            middleware: Vec::new(),
            request_log: RequestLog::default(),
            code_mode: false,
            description: Description::default(),
            settings,
            limits: None,
            isolation: Isolation::default(),
        };
        ClientBuilder { config: Config::empty(), setup }
    }

    /// Adds a server to the configuration, or replaces it; a session that is open goes on with the old entry until it is closed.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path of the fault; nothing is changed then.
    pub fn add_server(&self, name: &str, entry: Value) -> Result<(), Error> {
        self.inner.configure(|config| config.add_server(name, entry))
    }

    /// Removes a server from the configuration and closes its session.
    ///
    /// # Errors
    /// [`Error::UnknownServer`].
    pub async fn remove_server(&self, name: &str) -> Result<(), Error> {
        self.inner.configure(|config| config.remove_server(name))?;
        self.close_session(name).await;
        self.inner.sessions().remove(name);
        Ok(())
    }

    /// Names of the configured servers.
    #[must_use]
    #[doc(alias = "get_server_names")]
    pub fn server_names(&self) -> Vec<String> {
        self.inner.setup.server_names(&self.inner.configured().config)
    }

    /// The configuration as it is now.
    #[must_use]
    pub fn config(&self) -> Config {
        self.inner.configured().config.clone()
    }

    /// Writes the configuration as indented JSON, variables unexpanded and unknown keys kept.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_config(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        // Not under the lock, which scripts need too.
        let config = self.config();
        config.save(path)
    }

    /// Connects one server, unless it is connected already.
    ///
    /// # Errors
    /// [`Error::UnknownServer`] if it is not configured or not allowed, [`Error::Config`] if its entry is malformed, else
    /// [`Error::Connect`].
    pub async fn create_session(&self, name: &str) -> Result<Session, Error> {
        let session = self.inner.visible_session(name)?;
        session.connect().await?;
        Ok(session)
    }

    /// Starts or reaches one server and says nothing yet; [`Session::initialize`] does. (`auto_initialize = False` of mcp-use.)
    ///
    /// # Errors
    /// As of [`Client::create_session`].
    #[doc(alias = "auto_initialize")]
    pub async fn open_session(&self, name: &str) -> Result<Session, Error> {
        let session = self.inner.visible_session(name)?;
        session.open().await?;
        Ok(session)
    }

    /// Connects all allowed servers, at the same time. In code mode, the one session is the code-mode session, and the servers are
    /// connected by the first script or search that needs them.
    pub async fn create_all_sessions(&self) -> Sessions {
        let names = self.inner.visible_names();
        let connected = join_all(names.iter().map(|name| self.create_session(name))).await;
        let mut sessions = Sessions::default();
        for (name, session) in names.into_iter().zip(connected) {
            match session {
                Ok(session) => drop(sessions.open.insert(name, session)),
                Err(error) => drop(sessions.failed.insert(name, error)),
            }
        }
        sessions
    }

    /// The open session of a server.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    #[doc(alias = "get_session")]
    pub fn session(&self, name: &str) -> Result<Session, Error> {
        self.inner.open_session(name).ok_or_else(|| Error::NoSession { server: name.into() })
    }

    /// All open sessions by server; in code mode only the code-mode session.
    #[doc(alias = "get_all_active_sessions")]
    #[must_use]
    pub fn active_sessions(&self) -> BTreeMap<String, Session> {
        let names = self.inner.visible_names();
        let open = |name: String| Some((name.clone(), self.inner.open_session(&name)?));
        names.into_iter().filter_map(open).collect()
    }

    /// What each allowed server may do, as it is configured. Starts nothing.
    ///
    /// ```
    /// use rhaiway::{Client, Config};
    /// let config = Config::from_value(serde_json::json!({"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}))?;
    /// let client = Client::builder().config(config).build()?;
    /// assert_eq!(client.permissions()[0].isolation, "none");
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    #[must_use]
    pub fn permissions(&self) -> Vec<Permissions> {
        let settings = &self.inner.setup.settings;
        let of = |name: &String| {
            session::permissions(name, self.inner.source(name).as_ref().map_err(Error::clone), settings)
        };
        self.inner.allowed_names().iter().map(of).collect()
    }

    /// How each allowed server stands.
    #[expect(clippy::unused_async, reason = "part of the published surface")]
    pub async fn server_status(&self) -> BTreeMap<String, ServerStatus> {
        let status = |name: String| (name.clone(), self.inner.status(&name));
        self.inner.allowed_names().into_iter().map(status).collect()
    }

    /// What is known of the tokens that are kept for a server; `None` where there are none. Asks no server.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], [`Error::Config`] if its entry is malformed, [`Error::Tokens`].
    pub async fn stored_authorization(&self, name: &str) -> Result<Option<StoredAuthorization>, Error> {
        let config = self.inner.configured().config.server(name)?;
        session::stored_authorization(name, &config, &self.inner.setup.settings).await
    }

    /// Logs in to a server over HTTP, by asking [who was given for that](ClientBuilder::on_authorization): when the server asks for it as it is
    /// connected and its tools are listed; else, as some ask at the first call only, where it publishes who authorises. Nobody is asked
    /// where tokens are kept that it takes. `false` where there is nothing to log in to.
    ///
    /// # Errors
    /// [`Error::Authorization`], as for [`Client::create_session`], and as for [`Client::stored_authorization`].
    pub async fn authorize(&self, name: &str) -> Result<bool, Error> {
        let config = self.inner.configured().config.server(name)?;
        let used = async { self.create_session(name).await?.list_tools().await.map(drop) };
        Box::pin(session::log_in(name, &config, &self.inner.setup.settings, used)).await
    }

    /// Forgets the tokens that are kept for a server, and has its authorisation server revoke them, where that has an endpoint for it (RFC 7009).
    /// They are forgotten in any case: a revocation that fails, or takes longer than 10 s, is logged as a warning. An open session goes
    /// on with the tokens that it has as long as they are good, and keeps none that it renews.
    ///
    /// # Errors
    /// As for [`Client::stored_authorization`].
    pub async fn forget_authorization(&self, name: &str) -> Result<(), Error> {
        let config = self.inner.configured().config.server(name)?;
        session::forget_authorization(name, &config, &self.inner.setup.settings).await
    }

    /// Closes the session of a server and ends its process. Where none is open, nothing happens but a logged warning.
    pub async fn close_session(&self, name: &str) {
        self.inner.listings.end_of(name).await;
        let was_open = match self.inner.known_session(name) {
            Some(session) => session.end().await,
            None => false,
        };
        if !was_open {
            tracing::warn!(server = name, "there is no open session to close");
        }
    }

    /// Closes all sessions at the same time, and waits until their processes have ended, those included that never came to a session.
    pub async fn close_all_sessions(&self) {
        // They would connect again what is closed here.
        self.inner.listings.end().await;
        let sessions: Vec<Session> = self.inner.sessions().values().cloned().collect();
        join_all(sessions.iter().chain([&self.inner.code_mode_session]).map(Session::close)).await;
        self.inner.setup.settings.children.all_ended().await;
    }

    /// Adds middleware behind the others, for the open sessions too.
    pub fn add_middleware(&self, middleware: impl Middleware) {
        self.inner.setup.settings.middleware.add(Arc::new(middleware));
    }

    /// Sets the roots, and tells the connected servers (`notifications/roots/list_changed`). `false` where the client was built without
    /// [`ClientBuilder::roots`], so that servers were told that there are none.
    pub async fn set_roots(&self, roots: impl IntoIterator<Item = Root>) -> bool {
        let offered = self.inner.setup.settings.callbacks.set_roots(roots.into_iter().collect());
        if offered {
            let sessions: Vec<Session> = self.inner.sessions().values().cloned().collect();
            join_all(sessions.iter().map(Session::roots_changed)).await;
        }
        offered
    }

    /// Runs a Rhai script in which each allowed server is an object: `server.tool(#{…})`.
    ///
    /// Servers that the script names are connected first, at the same time. One that cannot be reached fails only the calls to it.
    /// Dropping the future ends the script and cancels the calls that are under way.
    ///
    /// # Errors
    /// [`Error::CodeModeOff`], or [`Error::Sandbox`] if the sandbox can't be set up. A script that fails is an [`Execution`].
    pub async fn execute_code(&self, code: &str, options: ExecuteOptions) -> Result<Execution, Error> {
        self.inner.execute(code.into(), options).await
    }

    /// Finds tools by words in their names, descriptions and parameters, in all allowed servers, which are connected first. An empty
    /// query finds all tools. Servers that can't be reached are named in the answer; so are those that are still being connected when no
    /// further server has become ready for two seconds: that goes on, and a later search finds their tools.
    pub async fn search_tools(&self, query: &str, detail: Detail) -> SearchResults {
        self.inner.catalog(Patience::Short).await.search(query, detail)
    }

    /// The same, but waits for all servers, as long as each may take. For people rather than models.
    pub async fn search_all_tools(&self, query: &str, detail: Detail) -> SearchResults {
        self.inner.catalog(Patience::Long).await.search(query, detail)
    }

    /// Serves code mode as an MCP server on this process's standard input and output, until the other side closes them. What servers ask
    /// (sampling, elicitation, roots), and no callback answers, is passed on to the other side, where it can answer that.
    ///
    /// # Errors
    /// [`Error::CodeModeOff`], or [`Error::Serve`] if the other side does not speak MCP.
    pub async fn serve_stdio(&self) -> Result<(), Error> {
        self.code_mode_server()?.serve_stdio().await
    }

    fn code_mode_server(&self) -> Result<CodeModeServer, Error> {
        if !self.inner.setup.code_mode {
            return Err(Error::CodeModeOff);
        }
        Ok(CodeModeServer::new(Arc::new(WeakClient(Arc::downgrade(&self.inner)))))
    }
}

impl Inner {
    fn configured(&self) -> std::sync::RwLockReadGuard<'_, Configured> {
        self.configured.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, change: impl FnOnce(&mut Config) -> Result<(), Error>) -> Result<(), Error> {
        let mut configured = self.configured.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut configured.config)?;
        configured.namespaces = self.setup.namespaces(&configured.config);
        Ok(())
    }

    /// The allowed servers.
    fn namespaces(&self) -> Arc<Namespaces> {
        Arc::clone(&self.configured().namespaces)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allowed_names(&self) -> Vec<String> {
        self.namespaces().iter().map(|space| space.name.clone()).collect()
    }

    /// The sessions that are shown to the outside.
    fn visible_names(&self) -> Vec<String> {
        if self.setup.code_mode { vec![CODE_MODE_SESSION.to_string()] } else { self.allowed_names() }
    }

    /// The code-mode session, if it is what the name means to the outside.
    fn code_mode_session(&self, name: &str) -> Option<Session> {
        (self.setup.code_mode && name == CODE_MODE_SESSION).then(|| self.code_mode_session.clone())
    }

    /// Connected or not.
    fn known_session(&self, name: &str) -> Option<Session> {
        self.code_mode_session(name).or_else(|| self.sessions().get(name).cloned())
    }

    fn open_session(&self, name: &str) -> Option<Session> {
        self.known_session(name).filter(Session::is_connected)
    }

    fn visible_session(&self, name: &str) -> Result<Session, Error> {
        self.code_mode_session(name).map_or_else(|| self.session_for(name), Ok)
    }

    fn status(&self, name: &str) -> ServerStatus {
        match self.session_for(name) {
            Ok(session) => session.status(),
            Err(error) => ServerStatus::Failed(error),
        }
    }

    /// The session of a server, one of the allowed, connected or not; that which goes on with an entry that is no longer in the
    /// configuration, until it is closed.
    fn session_for(&self, name: &str) -> Result<Session, Error> {
        if !self.namespaces().iter().any(|space| space.name == name) {
            return Err(Error::UnknownServer { name: name.into(), known: self.allowed_names() });
        }
        let session = self.sessions().get(name).cloned();
        if let Some(session) = session.filter(Session::is_connected) {
            return Ok(session);
        }
        let source = self.source(name)?;
        let mut sessions = self.sessions();
        if let Some(session) = sessions.get(name).filter(|session| session.has_source(&source)) {
            return Ok(session.clone());
        }
        let session = Session::new(name, source, self.setup.settings.clone());
        sessions.insert(name.into(), session.clone());
        Ok(session)
    }

    /// Where a server is.
    fn source(&self, name: &str) -> Result<Source, Error> {
        match self.setup.in_process(name) {
            Some(source) => Ok(source.clone()),
            None => Ok(Source::Entry(Box::new(self.configured().config.server(name)?))),
        }
    }

    /// The session of a server, connected, for those that can do without it.
    async fn connect(&self, name: &str) -> Result<Session, Error> {
        let session = self.session_for(name)?;
        session.connect_if_due().await?;
        Ok(session)
    }

    async fn execute(self: &Arc<Self>, source: String, options: ExecuteOptions) -> Result<Execution, Error> {
        if !self.setup.code_mode {
            return Err(Error::CodeModeOff);
        }
        let namespaces = self.namespaces();
        let (named, servers) = namespaces.named_in(&source);
        join_all(named.iter().map(|space| self.connect(&space.name))).await;
        let mut limits = self.limits.clone();
        limits.wall_time = options.timeout.unwrap_or(limits.wall_time);
        script::run(Run {
            source,
            servers,
            limits,
            isolation: self.setup.isolation,
            on_log: options.on_log,
            door: Arc::new(ScriptDoor {
                client: Arc::clone(self),
                namespaces,
                log_progress: options.log_progress,
                server_logs: options.server_logs,
                logs: Mutex::default(),
            }),
            compiling: self.setup.settings.compiling.clone(),
        })
        .await
    }

    async fn catalog(&self, patience: Patience) -> Catalog {
        let namespaces = self.namespaces();
        let sessions: Vec<_> = namespaces.iter().map(|space| self.session_for(&space.name)).collect();
        let tools = self.listings.of(&sessions, patience, self.setup.settings.connect_timeout).await;
        let servers = namespaces.iter().cloned().zip(tools).collect();
        Catalog { servers }
    }
}

/// Tells a script that tries again, and `retry`, when that may go better, or that the script has no time for it.
fn left_alone(mut failure: Failure, left: Duration, deadline: Instant) -> Failure {
    let mut data = json!({"retry_after": in_seconds(left)});
    let time = deadline.saturating_duration_since(Instant::now());
    if time <= left {
        data["too_late"] = true.into();
        let (left, time) = (left.as_secs_f64(), time.as_secs_f64());
        let no_time = format!(
            "; the server is left alone for {left:.1} s more, and this script has {time:.1} s left, so trying again here is no use"
        );
        failure.message.push_str(&no_time);
    }
    failure.data = Some(data);
    failure
}

/// Rounded up to milliseconds, so that whoever waits for so long does not come too early.
fn in_seconds(time: Duration) -> f64 {
    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
    f64::from(milliseconds) / 1000.0
}

/// The address of the resource that a script wants to read, as a link in an answer names it: `server.read_resource(uri)`, at servers
/// that have resources, and no tool of that name.
fn resource_of(call: &Call, session: &Session) -> Option<String> {
    if call.tool != READ_RESOURCE || call.by_name || session.server_info()?.capabilities.resources.is_none() {
        return None;
    }
    let arguments: Map<String, Value> = serde_json::from_str(&call.arguments).ok()?;
    arguments.get("uri")?.as_str().map(String::from)
}

/// What a resource has, as JSON: its text, as of an answer of a tool, or all that is in it as a list of maps.
async fn read_resource(session: &Session, uri: &str) -> Result<String, Error> {
    let contents = session.read_resource(uri).await?.contents;
    Ok(match <[ResourceContents; 1]>::try_from(contents) {
        Ok([ResourceContents::TextResourceContents { text, .. }]) => text_value(text),
        Ok(other) => json!(other).to_string(),
        Err(contents) => json!(contents).to_string(),
    })
}

/// The host's side of one script.
struct ScriptDoor {
    client: Arc<Inner>,
    namespaces: Arc<Namespaces>,
    log_progress: bool,
    server_logs: bool,
    /// What takes the log messages of each server, marked with its name; one each, so that what is said once is written once.
    logs: Mutex<HashMap<String, LogSink>>,
}

impl ScriptDoor {
    fn log_of(&self, server: &str, log: &LogSink) -> LogSink {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || -> LogSink {
            let (server, log) = (server.to_string(), Arc::clone(log));
            Arc::new(move |line| log(&format!("[{server}] {line}")))
        };
        Arc::clone(logs.entry(server.into()).or_insert_with(new))
    }

    async fn call(
        &self,
        call: &Call,
        deadline: Instant,
        log: &LogSink,
        tool_name: &mut Option<String>,
    ) -> Result<String, Failure> {
        let fail = |kind, message: String| Failure {
            kind,
            server: call.server.clone(),
            tool: call.tool.clone(),
            message,
            data: None,
        };
        let Some(space) = self.namespaces.meant(&call.server) else {
            let hint = self.namespaces.unknown(&call.server);
            return Err(fail(
                FailureKind::UnknownServer,
                format!("there is no server `{}`{hint}", start(&call.server)),
            ));
        };
        let unreachable = |error: Error| match error.kind() {
            Some(kind @ FailureKind::Rejected) => fail(kind, error.to_string()),
            _ => fail(FailureKind::Connection, error.to_string()),
        };
        let session = self.client.session_for(&space.name).map_err(unreachable)?;
        session.connect_if_due().await.map_err(|error| {
            let failure = unreachable(error);
            match session.left_alone() {
                Some(left) => left_alone(failure, left, deadline),
                None => failure,
            }
        })?;
        let tools = session.tools().await.map_err(unreachable)?;
        let Some(entry) = tools.resolve(&call.tool, call.by_name) else {
            if let Some(uri) = resource_of(call, &session) {
                *tool_name = Some(call.tool.clone());
                return read_resource(&session, &uri)
                    .await
                    .map_err(|error| fail(error.kind().unwrap_or(FailureKind::Connection), error.to_string()));
            }
            let tool = start(&call.tool);
            let message = if let Some(reason) = tools.why_excluded(&call.tool, call.by_name) {
                format!("the tool `{tool}` of the server `{}` is not there: {reason}", call.server)
            } else {
                format!("the server `{}` has no tool `{tool}`{}", call.server, tools.unknown(&call.tool))
            };
            return Err(fail(FailureKind::UnknownTool, message));
        };
        let tool = &entry.tool;
        *tool_name = Some(tool.name.clone());
        let arguments: Map<String, Value> = serde_json::from_str(&call.arguments)
            .map_err(|error| fail(FailureKind::Arguments, format!("the arguments are no JSON object: {error}")))?;
        let checked = if call.arguments.len() <= FAST_CHECK {
            entry.check(&space.script_name, arguments)
        } else {
            // Both schema and arguments may be somebody's attempt to keep this thread busy; so one at a time, on another.
            let _turn = CHECKS.acquire().await;
            let (tools, call, server) = (Arc::clone(&tools), call.clone(), space.script_name.clone());
            let check = move || match tools.resolve(&call.tool, call.by_name) {
                Some(entry) => entry.check(&server, arguments),
                None => Ok(Checked { arguments, digits: None }),
            };
            let checked = tokio::task::spawn_blocking(check).await;
            checked.unwrap_or_else(|error| Err(format!("the arguments could not be checked: {error}")))
        };
        let Checked { arguments, digits } = checked.map_err(|message| fail(FailureKind::Arguments, message))?;
        // Where the script has less left than the call may take, it is the script's end that is told.
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = session.call_timeout().filter(|timeout| *timeout < left);
        let log = self.log_of(&space.script_name, log);
        let mut options = CallOptions {
            silence: timeout,
            on_log: self.server_logs.then(|| Arc::clone(&log)),
            digits: digits.map(Arc::new),
            ..CallOptions::default()
        };
        if self.log_progress {
            let name = call.tool.clone();
            options = options.on_progress(move |progress| {
                let total = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
                let message = progress.message.as_ref().map(|message| format!(", {message}")).unwrap_or_default();
                log(&format!("progress of {name}: {}{total}{message}", progress.progress));
            });
        }
        let answer = session.call_tool(&tool.name, arguments, options).await.map_err(|error| match error {
            // Without a `call_timeout`, it was a middleware's.
            Error::Call(failure) if failure.kind == FailureKind::Timeout && timeout.is_some() => {
                let seconds = timeout.unwrap_or_default().as_secs_f64();
                fail(
                    FailureKind::Timeout,
                    format!(
                        "it took longer than the {seconds} s that a call may take (`call_timeout` of the server `{}`)",
                        space.name
                    ),
                )
            }
            // It is named as the script does.
            Error::Call(failure) => Failure { server: call.server.clone(), tool: call.tool.clone(), ..*failure },
            other => fail(other.kind().unwrap_or(FailureKind::Connection), other.to_string()),
        })?;
        let is_wrapped = tool.wraps_result();
        let value = if answer.is_large() {
            let read = tokio::task::spawn_blocking(move || answer.into_script_value(is_wrapped)).await;
            read.map_err(|error| fail(FailureKind::Answer, format!("the answer could not be read: {error}")))?
        } else {
            answer.into_script_value(is_wrapped)
        };
        value.map_err(|fault| Failure { data: fault.data, ..fail(FailureKind::Tool, fault.message) })
    }
}

impl Door for ScriptDoor {
    fn call_tool<'a>(&'a self, call: &'a Call, deadline: Instant, log: &LogSink) -> BoxFuture<'a, Called> {
        let log = Arc::clone(log);
        Box::pin(async move {
            let mut tool = None;
            let answer = self.call(call, deadline, &log, &mut tool).await;
            Called { tool, answer }
        })
    }

    fn search_tools(&self, query: String, detail: Detail) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let results = self.client.catalog(Patience::Short).await.search(&query, detail);
            serde_json::to_string(&results).unwrap_or_else(|error| format!("{:?}", error.to_string()))
        })
    }
}

struct WeakClient(Weak<Inner>);

impl WeakClient {
    fn client(&self) -> Result<Arc<Inner>, Error> {
        self.0.upgrade().ok_or_else(|| Error::NoSession { server: CODE_MODE_SESSION.into() })
    }
}

impl CodeMode for WeakClient {
    fn wall_time(&self) -> Duration {
        self.client().map_or(Duration::ZERO, |client| client.limits.wall_time)
    }

    fn execute(&self, code: String, timeout: Option<Duration>) -> BoxFuture<'_, Result<Execution, Error>> {
        Box::pin(
            async move { self.client()?.execute(code, ExecuteOptions { timeout, ..ExecuteOptions::default() }).await },
        )
    }

    fn search(&self, query: String, detail: Detail) -> BoxFuture<'_, Result<SearchResults, Error>> {
        Box::pin(async move { Ok(self.client()?.catalog(Patience::Short).await.search(&query, detail)) })
    }

    fn description(&self) -> Description {
        self.client().map_or_else(|_| Description::default(), |client| client.setup.description)
    }

    fn serves(&self, peer: &Peer<RoleServer>) {
        if let Ok(client) = self.client() {
            client.setup.settings.callbacks.pass_on_to(peer.clone());
        }
    }

    fn namespaces(&self) -> Vec<String> {
        let namespaces = self.client().map(|client| client.namespaces()).unwrap_or_default();
        namespaces.iter().map(|space| space.script_name.clone()).collect()
    }
}
