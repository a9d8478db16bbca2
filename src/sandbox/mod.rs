//! wasmtime, set up once for the process: engine settings, the clock that interrupts guests, memory limits, the cache of compiled code.
//! Knows nothing of scripts or servers.

mod cache;
mod turns;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter};

use crate::error::Error;
use crate::limits::MAX_MEMORY;

pub(crate) use turns::Turn;
use turns::Turns;

/// Guests that may live at once. Each takes about five memory mappings, of which a process has 65,530 by default on Linux.
pub(crate) const SLOTS: usize = 1000;
/// Between two interruptions of a busy guest; short, so that other tasks on its thread go on.
const TICK: Duration = Duration::from_millis(2);
/// Stack of a guest, and the part of it that wasm may use. Script functions 100 levels deep need most of it.
const STACK: usize = 2 << 20;
const WASM_STACK: usize = 3 << 19;

/// Runs wasm components, each instance with its own memory and a stack of its own.
pub(crate) struct Sandbox {
    engine: Engine,
    clock: Arc<Clock>,
    turns: Arc<Turns>,
}

impl Sandbox {
    /// Instances come from a pool; where address space is too limited for one (`ulimit -v`), each is allocated on demand.
    pub(crate) fn new() -> Result<Self, Error> {
        let engine = Engine::new(&pooling())
            .or_else(|_| Engine::new(&on_demand()))
            .map_err(|error| failed("start wasmtime", &error))?;
        let clock = Arc::new(Clock::default());
        let (ticking, ticked) = (Arc::clone(&clock), engine.clone());
        std::thread::Builder::new()
            .name("rhaiway-clock".into())
            .spawn(move || ticking.run(&ticked))
            .map_err(|error| failed("start a thread", &error.into()))?;
        Ok(Self { engine, clock, turns: Arc::new(Turns::new()) })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component, or takes its compiled code from `cache_dir`. Blocks for seconds where it compiles; `on_compile` is
    /// told first.
    pub(crate) fn load(
        &self,
        wasm: &[u8],
        cache_dir: Option<&Path>,
        on_compile: &dyn Fn(),
    ) -> Result<Component, Error> {
        cache::load(&self.engine, wasm, cache_dir, on_compile).map_err(|error| failed("compile the guest", &error))
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
    running: Mutex<usize>,
    started: Condvar,
}

impl Clock {
    fn start(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        if *running == 1 {
            self.started.notify_one();
        }
    }

    fn stop(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    fn run(&self, engine: &Engine) {
        loop {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.started.wait_while(running, |running| *running == 0));
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
