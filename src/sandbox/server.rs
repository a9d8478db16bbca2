//! Wasm servers: a module for WASI preview 1, a component for preview 2, or a component with typed functions, run in this process with
//! what it was granted and no more.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasmtime::component::{self, Component, HasData, Resource, ResourceTableError};
use wasmtime::{InstancePre, Linker, Module, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView, WasiSocketsView};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};

use super::denials::Denials;
use super::meter::{Limit, Meter, Metered, MeteredOutput};
use super::typed::{Answer, TypedTool, TypedTools, Unanswered, is_out_of_fuel};
use super::{Bounds, Compiling, Sandbox, Turn, mounts};
use crate::config::{Access, Endpoint, Lifetime, SandboxConfig};
use crate::tool::BoxFuture;

/// Largest file that is compiled.
const MAX_WASM: u64 = 128 << 20;
/// Memory of a server, where nothing else was said.
pub(crate) const MEMORY: usize = 64 << 20;
/// What a pipe holds before its writer waits.
const PIPE: usize = 64 << 10;
const ERRORS_PIPE: usize = 4 << 10;
/// Files, folders and sockets that a server may have open at once; each is one of this process's, too, which often may have 1,024.
const OPEN: usize = 256;
/// What it may hand to the host at once.
const HANDED: usize = 16 << 20;
const TABLES: usize = 1000;
/// Bytes of an entry of a table.
const ENTRY: usize = 16;
/// Calls of a component with typed functions at once: each has an instance, with memory of its own.
const CALLS: usize = 16;
/// What is kept of the output of a component with typed functions.
const TAIL: usize = 4 << 10;

/// The sandbox of all wasm servers of this process.
fn shared() -> Result<Arc<Sandbox>, String> {
    static SHARED: Mutex<Option<Arc<Sandbox>>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sandbox) = &*shared {
        return Ok(Arc::clone(sandbox));
    }
    let sandbox = Arc::new(Sandbox::for_servers().map_err(|error| error.to_string())?);
    *shared = Some(Arc::clone(&sandbox));
    Ok(sandbox)
}

/// What a wasm file holds.
pub(crate) enum WasmKind {
    Module,
    Component,
}

/// Whether the file is wasm.
pub(crate) fn is_wasm(path: &Path) -> bool {
    kind_of_file(path).is_ok()
}

/// What the file holds, by its first bytes; or why it can't be run.
pub(crate) fn kind_of_file(path: &Path) -> Result<WasmKind, String> {
    let mut start = [0; 8];
    let read = open_wasm(path)?.read(&mut start).map_err(|error| unreadable(path, &error))?;
    if !start[..read].starts_with(b"\0asm") {
        return Err(format!("`{}` is no wasm: it does not begin with `\\0asm`", path.display()));
    }
    Ok(if is_component(&start) { WasmKind::Component } else { WasmKind::Module })
}

/// Opens a file that is not too large; nothing that would keep its reader waiting.
fn open_wasm(path: &Path) -> Result<std::fs::File, String> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(format!("can't read `{}`: it is no file", path.display()));
    }
    if metadata.len() > MAX_WASM {
        return Err(format!("`{}` has {} bytes, and may have {MAX_WASM}", path.display(), metadata.len()));
    }
    std::fs::File::open(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("can't read `{}`: {error}", path.display())
}

/// Whether the folders can be mounted for a wasm server.
pub(crate) fn check_mounts(sandbox: &SandboxConfig) -> Result<(), String> {
    mounts(sandbox).map(drop)
}

fn mounts(sandbox: &SandboxConfig) -> Result<Vec<mounts::Granted>, String> {
    let mounts = mounts::find(&sandbox.mounts)?;
    mounts::contradiction(&mounts).map_or(Ok(mounts), Err)
}

/// A wasm file, compiled, with all that it imports found.
pub(crate) struct WasmServer {
    sandbox: Arc<Sandbox>,
    /// That of the file, without its folder.
    name: String,
    code: Code,
}

enum Code {
    Module(InstancePre<State>),
    Command(CommandPre<State>),
    Typed(component::InstancePre<State>, TypedTools),
}

/// What the imports of an instance work on.
struct State {
    wasi: WasiP1Ctx,
    memory: Memory,
    meter: Arc<Meter>,
    turn: Arc<Turn>,
    network: Arc<Network>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// All linear memories and tables of an instance together.
struct Memory {
    used: usize,
    max: usize,
    meter: Arc<Meter>,
}

impl Memory {
    /// By so many bytes, if it may by what the server says itself.
    fn grow(&mut self, more: usize, may: bool) -> wasmtime::Result<bool> {
        if !may {
            return Ok(false);
        }
        let used = self.used.saturating_add(more);
        if used > self.max {
            // It ends here, as what a server makes of a failed allocation says nothing of the limit.
            self.meter.exceed(Limit::Memory(self.max));
            wasmtime::bail!("memory limit");
        }
        self.used = used;
        Ok(true)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current), maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current).saturating_mul(ENTRY);
        self.grow(more, maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn tables(&self) -> usize {
        TABLES
    }
}

/// A server that runs.
pub(crate) struct Running {
    /// Its standard input.
    pub(crate) input: DuplexStream,
    pub(crate) output: DuplexStream,
    pub(crate) errors: DuplexStream,
    pub(crate) bounds: Bounds,
    /// Runs it. Dropping it ends it at once.
    pub(crate) run: BoxFuture<'static, Ended>,
}

/// How a server came to its end.
pub(crate) struct Ended {
    pub(crate) message: String,
    pub(crate) limit: Option<Limit>,
}

impl WasmServer {
    /// Compiles a file, or takes the compiled code from this process or from the cache. Goes on where nobody waits for it any more.
    pub(crate) async fn from_file(path: &Path, compiling: Compiling) -> Result<Arc<Self>, String> {
        type Loaded = Arc<tokio::sync::Mutex<Option<((u64, Option<SystemTime>), Arc<WasmServer>)>>>;
        static LOADED: OnceLock<Mutex<HashMap<PathBuf, Loaded>>> = OnceLock::new();
        let path = path.canonicalize().map_err(|error| unreadable(path, &error))?;
        let entry = {
            let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loaded.entry(path.clone()).or_default())
        };
        // Several servers of one file wait for the first.
        let mut entry = entry.lock_owned().await;
        let file = open_wasm(&path)?;
        let metadata = file.metadata().map_err(|error| unreadable(&path, &error))?;
        let stamp = (metadata.len(), metadata.modified().ok());
        if let Some((known, server)) = &*entry
            && *known == stamp
        {
            return Ok(Arc::clone(server));
        }
        let load = move || {
            let mut wasm = Vec::new();
            file.take(MAX_WASM).read_to_end(&mut wasm).map_err(|error| unreadable(&path, &error))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let server = Self::compile(name, &wasm, &compiling)?;
            *entry = Some((stamp, Arc::clone(&server)));
            Ok(server)
        };
        tokio::task::spawn_blocking(load).await.map_err(|error| error.to_string())?
    }

    /// Compiles what is in memory, or takes the compiled code from the cache.
    pub(crate) async fn from_bytes(
        name: String,
        wasm: Cow<'static, [u8]>,
        compiling: Compiling,
    ) -> Result<Arc<Self>, String> {
        let compile = move || Self::compile(name, &wasm, &compiling);
        tokio::task::spawn_blocking(compile).await.map_err(|error| error.to_string())?
    }

    fn compile(name: String, wasm: &[u8], compiling: &Compiling) -> Result<Arc<Self>, String> {
        let failed = |action: &str, error: String| format!("can't {action} `{name}`: {error}");
        let sandbox = shared()?;
        let code = if is_component(wasm) {
            let component: Component = sandbox.load(&name, wasm, compiling).map_err(|e| failed("compile", e))?;
            link_component(&sandbox, &component, wasm)
        } else {
            let module: Module = sandbox.load(&name, wasm, compiling).map_err(|e| failed("compile", e))?;
            link_module(&sandbox, &module)
        };
        let code = code.map_err(|error| failed("run", format!("{error:#}")))?;
        Ok(Arc::new(Self { sandbox, name, code }))
    }

    /// Whether it is a component with typed functions, and no server itself.
    pub(crate) fn is_typed(&self) -> bool {
        matches!(self.code, Code::Typed(..))
    }

    /// Starts it as a server. Strings of `sandbox` are expanded.
    pub(crate) fn start(self: &Arc<Self>, arguments: &[String], sandbox: &SandboxConfig) -> Result<Running, String> {
        let bounds = Bounds::new(sandbox, true);
        let Bounds { denials, meter, .. } = &bounds;
        let (input, their_input) = tokio::io::duplex(PIPE);
        let (output, their_output) = tokio::io::duplex(PIPE);
        let (errors, their_errors) = tokio::io::duplex(ERRORS_PIPE);
        let mut wasi = self.context(arguments, sandbox)?;
        wasi.stdin(AsyncStdinStream::new(their_input))
            .stdout(AsyncStdoutStream::new(PIPE, MeteredOutput::new(their_output, meter)))
            .stderr(AsyncStdoutStream::new(ERRORS_PIPE, MeteredOutput::new(their_errors, meter)));
        let mut store = self.store(&mut wasi, sandbox, meter, denials);
        // What it reads at once is in its own memory, too.
        store.set_hostcall_fuel(HANDED.max(sandbox.memory.unwrap_or(MEMORY)));
        let (server, counted) = (Arc::clone(self), Arc::clone(meter));
        let run = async move {
            let (turn, sandbox) = (Arc::clone(&store.data().turn), Arc::clone(&server.sandbox));
            let running = Metered::new(server.run(store), &counted, &turn, &sandbox);
            let ended = tokio::select! {
                ended = running => ended,
                _ = counted.until_exceeded() => Ok(()),
            };
            ending(&counted, ended)
        };
        Ok(Running { input, output, errors, bounds, run: Box::pin(run) })
    }

    async fn run(&self, mut store: Store<State>) -> wasmtime::Result<()> {
        match &self.code {
            Code::Module(module) => {
                let instance = module.instantiate_async(&mut store).await?;
                instance.get_typed_func::<(), ()>(&mut store, "_start")?.call_async(&mut store, ()).await
            }
            Code::Command(command) => {
                let command = command.instantiate_async(&mut store).await?;
                let ended = command.wasi_cli_run().call_run(&mut store).await?;
                ended.map_err(|()| wasmtime::format_err!("it returned an error"))
            }
            Code::Typed(..) => wasmtime::bail!("a component with typed functions is no server"),
        }
    }

    /// All that it is granted, but for its pipes.
    fn context(&self, arguments: &[String], sandbox: &SandboxConfig) -> Result<WasiCtxBuilder, String> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.arg(&self.name).args(arguments);
        for (name, value) in &sandbox.env {
            if let Some(value) = value {
                wasi.env(name, value);
            }
        }
        for mount in mounts(sandbox)? {
            let guest = mount.guest.clone().unwrap_or_else(|| mount.host.display().to_string());
            let failed = |error: String| format!("can't mount `{}` at `{guest}`: {error}", mount.host.display());
            let permissions = match mount.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            let (_opened, path) = mount.open().map_err(|error| failed(error.to_string()))?;
            wasi.preopened_dir(path, &guest, permissions).map_err(|error| failed(format!("{error:#}")))?;
        }
        Ok(wasi)
    }

    fn store(
        &self,
        wasi: &mut WasiCtxBuilder,
        sandbox: &SandboxConfig,
        meter: &Arc<Meter>,
        denials: &Arc<Denials>,
    ) -> Store<State> {
        let network = Arc::new(Network::new(&sandbox.network, denials));
        let checked = Arc::clone(&network);
        // The check of addresses tells what was denied, and denies all where nothing was granted.
        wasi.allow_tcp(true).allow_udp(false).allow_ip_name_lookup(true).socket_addr_check(move |address, usage| {
            let network = Arc::clone(&checked);
            Box::pin(async move { network.allows(address, usage).await })
        });
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(OPEN);
        let memory = Memory { used: 0, max: sandbox.memory.unwrap_or(MEMORY), meter: Arc::clone(meter) };
        let turn = Arc::new(self.sandbox.turn());
        let state = State { wasi, memory, meter: Arc::clone(meter), turn, network };
        let mut store = Store::new(self.sandbox.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HANDED);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            let State { meter, turn, .. } = store.data();
            if !meter.may_compute() {
                return Ok(UpdateDeadline::Interrupt);
            }
            let (meter, turn) = (Arc::clone(meter), turn.give_way());
            let give_way = async move {
                turn.await;
                meter.goes_on();
            };
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(give_way)))
        });
        store
    }
}

fn is_component(wasm: &[u8]) -> bool {
    wasm.get(4..8) == Some(&[0x0d, 0, 1, 0])
}

fn link_module(sandbox: &Sandbox, module: &Module) -> wasmtime::Result<Code> {
    wasmtime::ensure!(
        module.get_export("_start").is_some(),
        "it exports no `_start`, as programs for WASI preview 1 do; is it a library?"
    );
    let mut linker = Linker::new(sandbox.engine());
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
    Ok(Code::Module(linker.instantiate_pre(module)?))
}

fn link_component(sandbox: &Sandbox, component: &Component, wasm: &[u8]) -> wasmtime::Result<Code> {
    let mut linker = component::Linker::new(sandbox.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    ip_name_lookup::add_to_linker::<State, NameLookupData>(&mut linker, |state| NameLookup {
        network: Arc::clone(&state.network),
        sockets: state.sockets(),
    })?;
    let instance = linker.instantiate_pre(component)?;
    let runs = |(name, _): (&str, _)| name.starts_with("wasi:cli/run@");
    if component.component_type().exports(sandbox.engine()).any(runs) {
        return Ok(Code::Command(CommandPre::new(instance)?));
    }
    let tools = TypedTools::of(sandbox.engine(), component, wasm);
    if tools.tools.is_empty() {
        let why: Vec<String> = tools.unsupported.iter().map(|(name, why)| format!("; `{name}`: {why}")).collect();
        let message = "it exports neither `wasi:cli/run`, as servers do, nor a function that can be called";
        wasmtime::bail!("{message}{}", why.concat());
    }
    for (name, why) in &tools.unsupported {
        tracing::warn!(function = name, why, "a function of the component is left out");
    }
    Ok(Code::Typed(instance, tools))
}

/// Why an instance came to its end.
fn ending(meter: &Meter, ended: wasmtime::Result<()>) -> Ended {
    let (message, limit) = match (meter.exceeded(), ended) {
        (Some(limit), _) => (limit.to_string(), Some(limit)),
        (None, Ok(())) => ("it ended by itself".into(), None),
        (None, Err(error)) => match (error.downcast_ref::<I32Exit>(), error.downcast_ref::<Trap>()) {
            (Some(I32Exit(0)), _) => ("it ended by itself".into(), None),
            (Some(I32Exit(code)), _) => (format!("it ended with exit code {code}"), None),
            (_, Some(Trap::StackOverflow)) => (Limit::Stack.to_string(), Some(Limit::Stack)),
            _ if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) => {
                (Limit::Files(OPEN).to_string(), Some(Limit::Files(OPEN)))
            }
            // Compiled code keeps a second stack at the low end of the memory.
            (_, Some(Trap::MemoryOutOfBounds)) => {
                ("it crashed: out of bounds memory access, as when the stack is full".into(), None)
            }
            (_, Some(trap)) => (format!("it crashed: {trap}"), None),
            _ => (format!("it crashed: {:#}", error.root_cause()), None),
        },
    };
    let message = if limit.is_some() { format!("the sandbox ended it: {message}") } else { message };
    Ended { message, limit }
}

/// The hosts that an instance may connect to.
struct Network {
    granted: Vec<Endpoint>,
    /// What the names among them were resolved to so far.
    resolved: Mutex<HashSet<SocketAddr>>,
    denials: Arc<Denials>,
}

impl Network {
    fn new(granted: &[Endpoint], denials: &Arc<Denials>) -> Self {
        Self { granted: granted.to_vec(), resolved: Mutex::default(), denials: Arc::clone(denials) }
    }

    fn resolved(&self) -> std::sync::MutexGuard<'_, HashSet<SocketAddr>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn allows(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match usage {
            // Before it connects, the system binds it to any port.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            SocketAddrUse::TcpConnect => {
                let allowed = self.is_granted(address) || self.is_of_a_name(address).await;
                if !allowed {
                    self.denials.network(address);
                }
                allowed
            }
            _ => false,
        }
    }

    fn is_granted(&self, address: SocketAddr) -> bool {
        let is = |endpoint: &Endpoint| endpoint.port == address.port() && endpoint.host.parse() == Ok(address.ip());
        self.granted.iter().any(is) || self.resolved().contains(&address)
    }

    async fn is_of_a_name(&self, address: SocketAddr) -> bool {
        for Endpoint { host, port } in self.granted.iter().filter(|endpoint| endpoint.port == address.port()) {
            if let Ok(found) = tokio::net::lookup_host((host.as_str(), *port)).await {
                self.resolved().extend(found.map(|found| SocketAddr::new(found.ip().to_canonical(), *port)));
            }
        }
        self.resolved().contains(&address)
    }

    /// Whether a name, or an address as text, may be looked up.
    fn knows(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let known = self.granted.iter().any(|endpoint| endpoint.host.eq_ignore_ascii_case(name));
        if !known {
            self.denials.name(name);
        }
        known
    }
}

/// Resolves the names that were granted, and no others: a question for a name tells somebody something, too.
struct NameLookup<'a> {
    network: Arc<Network>,
    sockets: WasiSocketsCtxView<'a>,
}

struct NameLookupData;

impl HasData for NameLookupData {
    type Data<'a> = NameLookup<'a>;
}

impl network::Host for NameLookup<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<network::ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<network::ErrorCode>> {
        self.sockets.network_error_code(error)
    }
}

impl network::HostNetwork for NameLookup<'_> {
    fn drop(&mut self, network: Resource<network::Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}

type Stream = Resource<ip_name_lookup::ResolveAddressStream>;

impl ip_name_lookup::Host for NameLookup<'_> {
    fn resolve_addresses(&mut self, network: Resource<network::Network>, name: String) -> Result<Stream, SocketError> {
        if !self.network.knows(&name) {
            return Err(network::ErrorCode::AccessDenied.into());
        }
        ip_name_lookup::Host::resolve_addresses(&mut self.sockets, network, name)
    }
}

impl ip_name_lookup::HostResolveAddressStream for NameLookup<'_> {
    fn resolve_next_address(&mut self, stream: Stream) -> Result<Option<network::IpAddress>, SocketError> {
        self.sockets.resolve_next_address(stream)
    }

    fn subscribe(&mut self, stream: Stream) -> wasmtime::Result<Resource<DynPollable>> {
        self.sockets.subscribe(stream)
    }

    fn drop(&mut self, stream: Stream) -> wasmtime::Result<()> {
        ip_name_lookup::HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

/// A component with typed functions, with what it was granted: each function a tool.
pub(crate) struct TypedServer {
    server: Arc<WasmServer>,
    arguments: Vec<String>,
    sandbox: SandboxConfig,
    denials: Arc<Denials>,
    /// The instance of the session, where it has one.
    kept: tokio::sync::Mutex<Option<TypedInstance>>,
    /// For calls at once.
    places: Semaphore,
}

struct TypedInstance {
    store: Store<State>,
    instance: component::Instance,
    meter: Arc<Meter>,
    tail: Tail,
}

/// Why a typed function gave nothing.
pub(crate) struct CallFailed {
    pub(crate) message: String,
    /// What the function gave as its error.
    pub(crate) data: Option<Value>,
}

impl From<String> for CallFailed {
    fn from(message: String) -> Self {
        Self { message, data: None }
    }
}

impl TypedServer {
    /// `None` for what is a server itself.
    pub(crate) fn new(server: &Arc<WasmServer>, arguments: &[String], sandbox: &SandboxConfig) -> Option<Self> {
        server.is_typed().then(|| Self {
            server: Arc::clone(server),
            arguments: arguments.to_vec(),
            denials: Arc::new(Denials::new(sandbox, true)),
            sandbox: sandbox.clone(),
            kept: tokio::sync::Mutex::default(),
            places: Semaphore::new(CALLS),
        })
    }

    pub(crate) fn name(&self) -> String {
        self.server.name.trim_end_matches(".wasm").into()
    }

    pub(crate) fn denials(&self) -> &Arc<Denials> {
        &self.denials
    }

    pub(crate) fn tools(&self) -> &[TypedTool] {
        match &self.server.code {
            Code::Typed(_, tools) => &tools.tools,
            _ => &[],
        }
    }

    /// Makes sure that an instance can be made.
    pub(crate) async fn try_out(&self) -> Result<(), String> {
        let made = self.instance(Instant::now() + self.sandbox.wall_time).await;
        let instance = made.map_err(|message| format!("{message}{}", self.denials.hint(&message, "")))?;
        if self.sandbox.instance == Lifetime::Session {
            *self.kept.lock().await = Some(instance);
        }
        Ok(())
    }

    async fn instance(&self, until: Instant) -> Result<TypedInstance, String> {
        let Code::Typed(component, _) = &self.server.code else { return Err("it has no typed functions".into()) };
        let meter = Meter::new(self.sandbox.cpu_time, self.sandbox.max_output);
        let tail = Tail::default();
        let mut wasi = self.server.context(&self.arguments, &self.sandbox)?;
        let output = || AsyncStdoutStream::new(PIPE, TailWriter { tail: tail.clone(), meter: Arc::clone(&meter) });
        wasi.stdout(output()).stderr(output());
        let mut store = self.server.store(&mut wasi, &self.sandbox, &meter, &self.denials);
        let turn = Arc::clone(&store.data().turn);
        let made = self.bounded(&meter, &turn, until, component.instantiate_async(&mut store)).await;
        let instance = made.map_err(|error| explain(&error, &tail))?;
        Ok(TypedInstance { store, instance, meter, tail })
    }

    /// Bounds what runs in an instance.
    async fn bounded<T>(
        &self,
        meter: &Arc<Meter>,
        turn: &Arc<Turn>,
        until: Instant,
        work: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<T, Ended> {
        let work = Metered::new(work, meter, turn, &self.server.sandbox);
        let ended = tokio::select! {
            done = work => match done {
                Ok(value) => return Ok(value),
                Err(error) => Err(error),
            },
            _ = meter.until_exceeded() => Ok(()),
            () = tokio::time::sleep_until(until) => {
                meter.exceed(Limit::WallTime(self.sandbox.wall_time));
                Ok(())
            }
        };
        Err(ending(meter, ended))
    }

    /// Calls a function. After a failure that is not the function's own, the next call has a fresh instance.
    pub(crate) async fn call(&self, tool: &TypedTool, arguments: Map<String, Value>) -> Result<Answer, CallFailed> {
        let (max_output, wall_time) = (self.sandbox.max_output, self.sandbox.wall_time);
        let until = Instant::now() + wall_time;
        let arguments = tool.arguments(arguments).await?;
        let late = |_| CallFailed::from(Limit::WallTime(wall_time).to_string());
        let _place = tokio::time::timeout_at(until, self.places.acquire()).await.map_err(late)?;
        let mut kept = match self.sandbox.instance {
            Lifetime::Session => Some(tokio::time::timeout_at(until, self.kept.lock()).await.map_err(late)?),
            Lifetime::Call => None,
        };
        let before = kept.as_mut().and_then(|kept| kept.take());
        let mut instance = match before {
            Some(instance) => instance,
            None => self.instance(until).await?,
        };
        let TypedInstance { store, instance: exports, meter, tail } = &mut instance;
        meter.request();
        tail.clear();
        let turn = Arc::clone(&store.data().turn);
        store.set_hostcall_fuel(tool.fuel(max_output));
        let mut results = vec![component::Val::Bool(false); tool.result_count()];
        let work = async {
            let function = exports.get_func(&mut *store, tool.export());
            let function = function.ok_or_else(|| wasmtime::format_err!("the function is not there"))?;
            let called = function.call_async(&mut *store, &arguments, &mut results).await;
            if called.as_ref().is_err_and(is_out_of_fuel) {
                meter.exceed(Limit::Answer(max_output));
            }
            called
        };
        self.bounded(meter, &turn, until, work).await.map_err(|ended| explain(&ended, tail))?;
        meter.answered();
        // What follows needs neither the instance nor its turn.
        match kept {
            Some(mut kept) => *kept = Some(instance),
            None => drop(instance),
        }
        tool.answer(results, max_output).await.map_err(|unanswered| match unanswered {
            Unanswered::Failed { message, data } => CallFailed { message, data: Some(data) },
            Unanswered::TooLong => Limit::Output(max_output).to_string().into(),
        })
    }
}

fn explain(ended: &Ended, tail: &Tail) -> String {
    let said = tail.text();
    let said =
        if said.is_empty() { said } else { format!("; the last that it wrote:\n  {}", said.replace('\n', "\n  ")) };
    format!("{}{said}", ended.message)
}

/// The last that a component wrote.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).trim().into()
    }
}

struct TailWriter {
    tail: Tail,
    meter: Arc<Meter>,
}

impl tokio::io::AsyncWrite for TailWriter {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.meter.wrote(bytes.len());
        tracing::debug!(target: "rhaiway::server_stderr", "{}", String::from_utf8_lossy(bytes).trim_end());
        let mut tail = self.tail.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        let over = tail.len().saturating_sub(TAIL);
        tail.drain(..over);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
