//! The engine guest in the sandbox: a fresh instance for each run, the host interface on top of [`Accounts`].

use std::sync::Arc;
use std::time::Instant;

use rhaiway_engine::{Refusal, Ticket};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::accounts::{Accounts, Ending};
use super::flights::{Answer, Flights};
use super::{Call, Ended, Measured, Run, call_depth};
use crate::error::Error;
use crate::sandbox::{Compiling, MemoryLimit, SLOTS, Sandbox, Turn};
use crate::units::size;

wasmtime::component::bindgen!({
    path: "sandbox/wit",
    world: "engine",
    imports: {
        "rhaiway:engine/host.call-tool": async | trappable,
        "rhaiway:engine/host.start-call": trappable,
        "rhaiway:engine/host.start-clock": trappable,
        "rhaiway:engine/host.wait-any": async | trappable,
        "rhaiway:engine/host.search-tools": async,
    },
    exports: { "run": async },
});

use self::rhaiway::engine::{host, types};

/// The built guest. `sandbox/build.sh` makes it, and a test compares it with its sources.
const ENGINE: &[u8] = include_bytes!("../../sandbox/dist/engine.wasm");

const NAME: &str = "the script engine";

/// The one of this process: compiled code and pooled instances are shared by all clients.
static SHARED: OnceCell<Arc<SandboxedEngine>> = OnceCell::const_new();

pub(super) async fn shared(compiling: &Compiling) -> Result<Arc<SandboxedEngine>, Error> {
    let engine = SHARED.get_or_try_init(|| async {
        let compiling = compiling.clone();
        let loaded = tokio::task::spawn_blocking(move || SandboxedEngine::load(&compiling)).await;
        loaded.unwrap_or_else(|error| Err(Error::Sandbox { message: error.to_string() })).map(Arc::new)
    });
    engine.await.cloned()
}

pub(crate) struct SandboxedEngine {
    sandbox: Sandbox,
    guest: EnginePre<Host>,
    slots: Semaphore,
}

/// What an instance's imports work on.
struct Host {
    accounts: Arc<Accounts>,
    flights: Flights,
    memory: MemoryLimit,
    turn: Turn,
    /// Ticks at which it was busy.
    ticks: u64,
}

impl SandboxedEngine {
    fn load(compiling: &Compiling) -> Result<Self, Error> {
        let failed =
            |error: wasmtime::Error| Error::Sandbox { message: format!("the engine guest does not load: {error:#}") };
        let sandbox = Sandbox::new()?;
        let failed_to = |message| Error::Sandbox { message: format!("can't compile the guest: {message}") };
        let component: Component = sandbox.load(NAME, ENGINE, compiling).map_err(failed_to)?;
        let mut linker = Linker::new(sandbox.engine());
        Engine::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host).map_err(failed)?;
        let guest = linker.instantiate_pre(&component).and_then(EnginePre::new).map_err(failed)?;
        Ok(Self { sandbox, guest, slots: Semaphore::new(SLOTS) })
    }

    /// Waits until one more instance may live.
    pub(super) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.acquire().await.ok() // never closed
    }

    /// Runs the script in an instance of its own: what it took, and how it ended.
    pub(super) async fn run(&self, run: &Run, accounts: &Arc<Accounts>) -> (Measured, Result<Ended, Ending>) {
        let wall_time = run.limits.wall_time;
        let instances = SLOTS - self.slots.available_permits();
        let host = Host {
            accounts: Arc::clone(accounts),
            flights: Flights::new(Arc::clone(accounts)),
            memory: MemoryLimit::new(run.limits.memory_bytes),
            turn: self.sandbox.turn(),
            ticks: 0,
        };
        let mut store = Store::new(self.sandbox.engine(), host);
        store.limiter(|host| &mut host.memory);
        store.set_epoch_deadline(1);
        // A busy script gives way at every tick, to other scripts and to all else that the runtime has to do, such as the timer below.
        store.epoch_deadline_callback(|mut store| {
            let host = store.data_mut();
            host.ticks += 1;
            if Instant::now() > host.accounts.deadline {
                Ok(UpdateDeadline::Interrupt)
            } else {
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(host.turn.give_way())))
            }
        });
        let ticking = self.sandbox.tick();
        let running = async {
            store.data().turn.begin().await;
            let engine = self.guest.instantiate_async(&mut store).await?;
            engine.call_run(&mut store, &run.source, &run.servers, call_depth(run)).await
        };
        let ended = tokio::time::timeout(wall_time, running).await;
        drop(ticking);
        let memory = &store.data().memory;
        let ended = match ended {
            Err(_) => Err(Ending::Timeout(wall_time)),
            Ok(Ok(outcome)) => Ok(outcome.map_err(Into::into)),
            Ok(Err(error)) => Err(ending(&error, run, accounts, memory)),
        };
        let (peak_memory, cpu_ticks) = (Some(memory.peak), Some(store.data().ticks));
        (Measured { peak_memory, cpu_ticks, instances: Some(instances) }, ended)
    }
}

/// Why the guest broke off.
fn ending(error: &wasmtime::Error, run: &Run, accounts: &Accounts, memory: &MemoryLimit) -> Ending {
    if let Some(ending) = accounts.ending() {
        return ending;
    }
    if memory.exceeded {
        let max = run.limits.memory_bytes;
        return Ending::Limit(
            format!("the script needs more memory than the limit of {} (`memory_bytes`)", size(max)),
            None,
        );
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Ending::Timeout(run.limits.wall_time),
        // Besides its own stack, compiled Rust keeps one at the low end of the memory, and traps when it runs out at address 0.
        Some(Trap::StackOverflow | Trap::MemoryOutOfBounds) => Ending::Limit(
            "the script's data or calls are nested too deeply for the stack: build flat lists, and loop rather than recurse".into(),
            None,
        ),
        _ => Ending::Internal(format!("the engine broke off: {error:#}")),
    }
}

impl types::Host for Host {}

fn call(call: host::Call) -> (Call, Option<rhaiway_engine::Position>) {
    let host::Call { server, tool, by_name, arguments, position } = call;
    (Call { server, tool, by_name, arguments }, position.map(Into::into))
}

/// A refusal as a trap, which no `try` in the script gets past; the accounts know why.
fn or_trap<T>(result: Result<T, Refusal>) -> wasmtime::Result<Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Refusal::Failed(failure)) => Ok(Err(failure)),
        Err(Refusal::Stop) => Err(wasmtime::Error::msg("stopped by the host")),
    }
}

impl host::Host for Host {
    async fn call_tool(&mut self, request: host::Call) -> wasmtime::Result<Result<String, String>> {
        let (call, position) = call(request);
        self.turn.end();
        let answer = self.flights.call(call, position).await;
        self.turn.begin().await;
        or_trap(answer)
    }

    fn start_call(&mut self, request: host::Call) -> wasmtime::Result<Option<Ticket>> {
        let (call, position) = call(request);
        or_trap(self.flights.start_call(call, position))?.map_err(wasmtime::Error::msg)
    }

    fn start_clock(&mut self, seconds: f64) -> wasmtime::Result<Ticket> {
        or_trap(self.flights.start_clock(seconds))?.map_err(wasmtime::Error::msg)
    }

    async fn wait_any(&mut self) -> wasmtime::Result<(Ticket, Answer)> {
        self.turn.end();
        let answer = self.flights.wait_any().await;
        self.turn.begin().await;
        or_trap(answer)?.map_err(wasmtime::Error::msg)
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.flights.cancel(ticket);
    }

    async fn search_tools(&mut self, query: String, detail_level: String) -> Result<String, String> {
        self.turn.end();
        let found = self.accounts.search_tools(query, &detail_level).await;
        self.turn.begin().await;
        found
    }

    fn now(&mut self) -> i64 {
        Accounts::now()
    }

    fn random(&mut self) -> u64 {
        Accounts::random()
    }

    fn log(&mut self, line: String) {
        self.accounts.log(&line);
    }
}

impl From<types::Position> for rhaiway_engine::Position {
    fn from(types::Position { line, column }: types::Position) -> Self {
        Self { line, column }
    }
}

impl From<types::Fault> for rhaiway_engine::Fault {
    fn from(fault: types::Fault) -> Self {
        let types::Fault { kind, message, position, hint, trace, thrown } = fault;
        let trace = trace.into_iter().map(|types::Frame { function, position }| rhaiway_engine::Frame {
            function,
            position: position.map(Into::into),
        });
        Self { kind, message, position: position.map(Into::into), hint, trace: trace.collect(), thrown }
    }
}
