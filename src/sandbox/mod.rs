//! Isolation. wasmtime: engine settings, the clock that interrupts guests, memory limits, the cache of compiled code; wasm servers on it;
//! and the sandbox for native servers. Knows nothing of scripts or MCP.

mod cache;
mod denials;
mod meter;
mod mounts;
#[cfg_attr(not(target_os = "linux"), path = "native/elsewhere.rs")]
mod native;
mod server;
mod turns;
mod typed;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{EnterGuard, Runtime};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter};

use crate::config::SandboxConfig;
use crate::error::Error;
use crate::limits::MAX_MEMORY;

use cache::Compiled;
use denials::Denials;
pub(crate) use meter::{Limit, Meter, MeteredOutput, mib};
pub(crate) use native::{
    Grace, Guard, NATIVE_MEMORY, NativeSandbox, clear_abandoned, explain as explain_native, level as native_level,
    program_files, unenforceable,
};
pub(crate) use server::{
    CallFailed, Ended, MEMORY, Running, TypedServer, WasmKind, WasmServer, check_mounts, is_wasm, kind_of_file,
};
pub(crate) use turns::Turn;
use turns::Turns;
pub(crate) use typed::{Answer, TypedTool};

/// Guests that may live at once. Each takes about five memory mappings, of which a process has 65,530 by default on Linux.
pub(crate) const SLOTS: usize = 1000;
/// Between two interruptions of a busy guest; short, so that other tasks on its thread go on.
const TICK: Duration = Duration::from_millis(2);
/// Stack of a guest, and the part of it that wasm may use. Script functions 100 levels deep need most of it.
const STACK: usize = 2 << 20;
const WASM_STACK: usize = 3 << 19;

/// Threads that wait for files of wasm servers, all of them together.
const WAITING: usize = 64;

/// What whoever speaks with a sandboxed server has to see to.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) denials: Arc<Denials>,
    /// Has to be told of each request, and of each answer.
    pub(crate) meter: Arc<Meter>,
    /// How long a request to it may take.
    pub(crate) wall_time: Duration,
}

impl Bounds {
    /// `hides`: what is not mounted looks as if it were not there.
    fn new(sandbox: &SandboxConfig, hides: bool) -> Self {
        Self {
            denials: Arc::new(Denials::new(sandbox, hides)),
            meter: Meter::new(sandbox.cpu_time, sandbox.max_output),
            wall_time: sandbox.wall_time,
        }
    }
}

/// What compiling needs to know.
#[derive(Clone, Default)]
pub(crate) struct Compiling {
    /// Folder for compiled code; without one, it is compiled anew in each process.
    pub(crate) cache_dir: Option<PathBuf>,
    /// Is told the name before something is compiled, which may take seconds.
    pub(crate) on_compile: Option<Arc<OnCompile>>,
}

/// Is told what is compiled.
pub(crate) type OnCompile = dyn Fn(&str) + Send + Sync;

/// Runs wasm components, each instance with its own memory and a stack of its own.
pub(crate) struct Sandbox {
    engine: Engine,
    clock: Arc<Clock>,
    turns: Arc<Turns>,
    /// Where servers wait for files, sockets and timers. Reading a pipe that nobody writes to keeps a thread for good: not one of the program's.
    waiting: Option<Runtime>,
}

impl Sandbox {
    /// Instances come from a pool; where address space is too limited for one (`ulimit -v`), each is allocated on demand.
    pub(crate) fn new() -> Result<Self, Error> {
        Self::with(Engine::new(&pooling()).or_else(|_| Engine::new(&on_demand())))
    }

    /// Servers live long and differ in what they need, so that their instances are allocated on demand. Of what is not in all components yet,
    /// they may use maps, not what wasmtime itself says is incomplete: lists of fixed length, async, error contexts.
    pub(crate) fn for_servers() -> Result<Self, Error> {
        let sandbox = Self::with(Engine::new(on_demand().wasm_component_model_map(true)))?;
        let waiting = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(WAITING)
            .thread_name("rhaiway-wasi")
            .enable_all()
            .build()
            .map_err(|error| failed("start a thread", &error.into()))?;
        Ok(Self { waiting: Some(waiting), ..sandbox })
    }

    fn with(engine: wasmtime::Result<Engine>) -> Result<Self, Error> {
        let engine = engine.map_err(|error| failed("start wasmtime", &error))?;
        let clock = Arc::new(Clock::default());
        let (ticking, ticked) = (Arc::clone(&clock), engine.clone());
        std::thread::Builder::new()
            .name("rhaiway-clock".into())
            .spawn(move || ticking.run(&ticked))
            .map_err(|error| failed("start a thread", &error.into()))?;
        Ok(Self { engine, clock, turns: Arc::new(Turns::new()), waiting: None })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component or module, or takes its compiled code from the cache. Blocks for seconds where it compiles.
    pub(crate) fn load<C: Compiled>(&self, name: &str, wasm: &[u8], compiling: &Compiling) -> Result<C, String> {
        let on_compile = || compiling.on_compile.iter().for_each(|tell| tell(name));
        cache::load(&self.engine, wasm, compiling.cache_dir.as_deref(), &on_compile)
            .map_err(|error| format!("{error:#}"))
    }

    /// Where what a guest waits for is waited for, until the guard is dropped.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.waiting.as_ref().map(Runtime::enter)
    }

    /// The turns of a new guest.
    pub(crate) fn turn(&self) -> Turn {
        Turn::new(&self.turns)
    }

    /// Lets the clock tick until the guard is dropped: guests with an epoch deadline are interrupted every 2 ms.
    pub(crate) fn tick(&self) -> Ticking<'_> {
        self.clock.start();
        Ticking(&self.clock)
    }
}

fn failed(action: &str, error: &wasmtime::Error) -> Error {
    Error::Sandbox { message: format!("can't {action}: {error:#}") }
}

fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).async_stack_size(STACK).max_wasm_stack(WASM_STACK).wasm_backtrace_max_frames(None);
    config
}

fn pooling() -> Config {
    let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(4))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(2))
        .total_stacks(slots)
        .max_memory_size(MAX_MEMORY)
        .max_memories_per_component(1)
        .max_core_instances_per_component(4)
        .max_tables_per_component(2)
        .table_elements(4096);
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

fn on_demand() -> Config {
    let mut config = settings();
    config.memory_reservation(16 << 20).memory_reservation_for_growth(0).memory_guard_size(64 << 10);
    config
}

/// Bounds a guest's memory, and remembers how far it went.
pub(crate) struct MemoryLimit {
    max: usize,
    pub(crate) peak: usize,
    pub(crate) exceeded: bool,
}

impl MemoryLimit {
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.min(MAX_MEMORY), peak: 0, exceeded: false }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.exceeded |= desired > self.max;
        if !self.exceeded {
            self.peak = self.peak.max(desired);
        }
        Ok(!self.exceeded)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 10_000)
    }
}

/// Advances the engine's epoch while guests run, and sleeps while none does.
#[derive(Default)]
struct Clock {
    state: Mutex<ClockState>,
    started: Condvar,
}

#[derive(Default)]
struct ClockState {
    running: usize,
    sleeps: bool,
}

impl Clock {
    fn state(&self) -> std::sync::MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) {
        let mut state = self.state();
        state.running += 1;
        if std::mem::take(&mut state.sleeps) {
            self.started.notify_one();
        }
    }

    fn stop(&self) {
        self.state().running -= 1;
    }

    fn run(&self, engine: &Engine) {
        loop {
            let mut state = self.state();
            while state.running == 0 {
                // Anew each time: whoever woke it may have stopped by now.
                state.sleeps = true;
                state = self.started.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            std::thread::sleep(TICK);
            engine.increment_epoch();
        }
    }
}

/// Keeps the clock ticking; made by [`Sandbox::tick`].
pub(crate) struct Ticking<'a>(&'a Clock);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
