//! Runs a script: the engine guest in the sandbox, or the same engine in the process. Here are the host's side of the door, the
//! limits, and what a run gives back. Knows tools only as something to ask for.

mod accounts;
mod diagnostic;
mod flights;
mod guest;
mod in_process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::limits::Limits;
use crate::sandbox::Compiling;
use crate::tool::{BoxFuture, CallRecord, Detail, Failure, LogSink, seconds};
use crate::units::{self, size_over};

use accounts::{Accounts, Ending, Ledger};
pub use diagnostic::{Diagnostic, DiagnosticKind, Frame};

/// The language of scripts and its library, in 1,500 tokens, for a model that has never seen Rhai. The text of `GUIDE.md`.
///
/// ```
/// assert!(rhaiway::CODE_MODE_PROMPT.contains("parallel_map"));
/// ```
#[doc(alias = "CODE_MODE_AGENT_PROMPT")]
pub const CODE_MODE_PROMPT: &str = include_str!("../../GUIDE.md");

/// When `wall_time` is over; a time so long that no clock holds it is over in a century.
fn deadline(wall_time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wall_time).unwrap_or(now + Duration::from_hours(100 * 365 * 24))
}

/// What the host gives a script beside its own memory.
pub(crate) trait Door: Send + Sync + 'static {
    /// Calls a tool: the JSON text of its answer. The script is over at `deadline`; `log` takes what its server says meanwhile.
    fn call_tool<'a>(&'a self, call: &'a Call, deadline: Instant, log: &LogSink) -> BoxFuture<'a, Called>;
    /// Finds tools: the JSON text of the results.
    fn search_tools(&self, query: String, detail: Detail) -> BoxFuture<'_, String>;
}

/// A call on its way out.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) server: String,
    pub(crate) tool: String,
    pub(crate) by_name: bool,
    pub(crate) arguments: String,
}

/// A call that came back: the tool's own name, where the tool was found, and its answer.
pub(crate) struct Called {
    pub(crate) tool: Option<String>,
    pub(crate) answer: Result<String, Failure>,
}

/// Where a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// In a wasm instance of its own, with hard limits: for every script that somebody else wrote.
    #[default]
    Sandbox,
    /// In this process, on a thread of its own: for scripts that you trust, such as your own tests. Computes about twice as fast. The
    /// wall clock is checked between operations only, memory is not bounded, and deeply nested data can end the process.
    InProcess,
}

/// What a script came to. A script that failed is one too: its `error` is set, and logs and calls tell how far it came.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Execution {
    /// The script's value; `null` if it failed.
    pub result: Value,
    /// The lines that it printed.
    pub logs: Vec<String>,
    /// Why it failed, if it did.
    pub error: Option<Diagnostic>,
    /// From start to end, waiting for tools included; in JSON as seconds.
    #[serde(serialize_with = "seconds")]
    pub execution_time: Duration,
    /// Every call of a tool, in the order they were made.
    pub calls: Vec<CallRecord>,
    /// What the run used.
    pub usage: Usage,
}

/// What a run used.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// From start to end; in JSON as seconds.
    #[serde(serialize_with = "seconds")]
    pub wall_time: Duration,
    /// Time that the script waited for tools and clocks, those that overlap counted once; in JSON as seconds.
    #[serde(serialize_with = "seconds")]
    pub tool_time: Duration,
    /// Ticks of 2 ms at which the script was found computing; none in the process, where it is not measured.
    pub cpu_ticks: Option<u64>,
    /// Highest memory of the script's instance; none in the process, where it is not measured.
    pub peak_memory_bytes: Option<usize>,
    /// Number of calls of tools.
    pub tool_calls: usize,
    /// JSON sent to tools.
    pub argument_bytes: usize,
    /// JSON received from tools.
    pub answer_bytes: usize,
    /// Scripts of this process that had an instance when this one began, itself included; none in the process.
    pub instances: Option<usize>,
    /// The limit that came nearest to being hit, or was.
    pub nearest_limit: Option<NearestLimit>,
}

/// The limit that a run came nearest to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NearestLimit {
    /// Its name in [`Limits`].
    pub name: &'static str,
    /// How much of it was used, from 0 to 1; 1 where it was hit.
    pub share: f64,
}

/// One script to run.
pub(crate) struct Run {
    pub(crate) source: String,
    /// Script names of the servers.
    pub(crate) servers: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) isolation: Isolation,
    pub(crate) on_log: Option<LogSink>,
    pub(crate) door: Arc<dyn Door>,
    pub(crate) compiling: Compiling,
}

/// How a script itself ended: the JSON text of its value, or what the engine says.
type Ended = Result<String, rhaiway_engine::Fault>;

/// What the place where a script ran knows of it.
#[derive(Default)]
struct Measured {
    peak_memory: Option<usize>,
    cpu_ticks: Option<u64>,
    instances: Option<usize>,
}

/// Runs a script to its end. Dropping the future ends it, cancels its calls and frees its instance.
///
/// # Errors
/// Only where the sandbox can't be set up; a failing script is an [`Execution`].
pub(crate) async fn run(run: Run) -> Result<Execution, Error> {
    let max = run.limits.source_bytes;
    if run.source.len() > max {
        let message = limit("the source is", "source_bytes", run.source.len(), max);
        let accounts = Accounts::new(&run, Instant::now());
        return Ok(
            finish(&run, &accounts, Instant::now(), &Measured::default(), Err(Ending::Limit(message, None))).await
        );
    }
    match run.isolation {
        Isolation::Sandbox => {
            let engine = guest::shared(&run.compiling).await?;
            let slot = engine.slot().await;
            let started = Instant::now();
            let accounts = Arc::new(Accounts::new(&run, deadline(run.limits.wall_time)));
            let (measured, ended) = engine.run(&run, &accounts).await;
            drop(slot);
            Ok(finish(&run, &accounts, started, &measured, ended).await)
        }
        Isolation::InProcess => {
            let started = Instant::now();
            let accounts = Arc::new(Accounts::new(&run, deadline(run.limits.wall_time)));
            let ended = in_process::run(&run, &accounts).await;
            Ok(finish(&run, &accounts, started, &Measured::default(), ended).await)
        }
    }
}

/// JSON longer than this is read on a thread where it keeps nothing else waiting; a few at once, as they take CPUs all the same.
const LONG: usize = 64 << 10;
static READERS: Semaphore = Semaphore::const_new(2);

async fn read_json(text: String) -> Result<Value, String> {
    let is_long = text.len() > LONG;
    let read = move || serde_json::from_str(&text).map_err(|error| error.to_string());
    if !is_long {
        return read();
    }
    let _reader = READERS.acquire().await;
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn finish(
    run: &Run,
    accounts: &Accounts,
    started: Instant,
    measured: &Measured,
    ended: Result<Ended, Ending>,
) -> Execution {
    let execution_time = started.elapsed();
    let ledger = accounts.close();
    let result_bytes = ended.as_ref().map_or(0, |ended| ended.as_ref().map_or(0, String::len));
    let value = match ended {
        Ok(Ok(text)) if text.len() > run.limits.result_bytes => {
            Err(Diagnostic::limit(limit("the result is", "result_bytes", text.len(), run.limits.result_bytes)))
        }
        Ok(Ok(text)) => {
            read_json(text).await.map_err(|error| Diagnostic::internal(format!("the result is not JSON: {error}")))
        }
        Ok(Err(fault)) => Err(Diagnostic::from_fault(fault, &run.source)),
        Err(ending) => Err(Diagnostic::from_ending(ending, &ledger, &run.source)),
    };
    let (result, error) = value.map_or_else(|error| (Value::Null, Some(error)), |value| (value, None));
    let Ledger { logs, calls, waited, log_bytes, .. } = ledger;
    let log_lines = logs.len();
    let largest = |size: fn(&CallRecord) -> usize| calls.iter().map(size).max().unwrap_or(0);
    let limits = &run.limits;
    let nearest_limit = nearest([
        ("wall_time", execution_time.as_secs_f64(), limits.wall_time.as_secs_f64()),
        share("memory_bytes", measured.peak_memory.unwrap_or(0), limits.memory_bytes),
        share("tool_calls", calls.len(), limits.tool_calls),
        share("source_bytes", run.source.len(), limits.source_bytes),
        share("argument_bytes", largest(|call| call.argument_bytes), limits.argument_bytes),
        share("answer_bytes", largest(|call| call.answer_bytes), limits.answer_bytes),
        share("result_bytes", result_bytes, limits.result_bytes),
        share("log_bytes", log_bytes, limits.log_bytes),
        share("log_lines", log_lines, limits.log_lines),
    ]);
    let hit = error.as_ref().and_then(Diagnostic::limit_name);
    let usage = Usage {
        wall_time: execution_time,
        tool_time: waited,
        cpu_ticks: measured.cpu_ticks,
        peak_memory_bytes: measured.peak_memory,
        tool_calls: calls.len(),
        argument_bytes: calls.iter().map(|call| call.argument_bytes).sum(),
        answer_bytes: calls.iter().map(|call| call.answer_bytes).sum(),
        instances: measured.instances,
        nearest_limit: hit.map(|name| NearestLimit { name, share: 1.0 }).or(nearest_limit),
    };
    Execution { result, logs, error, execution_time, calls, usage }
}

#[allow(clippy::cast_precision_loss, reason = "only shares are wanted")]
fn share(name: &'static str, used: usize, max: usize) -> (&'static str, f64, f64) {
    (name, used as f64, max as f64)
}

fn nearest<const N: usize>(limits: [(&'static str, f64, f64); N]) -> Option<NearestLimit> {
    let shares = limits.into_iter().map(|(name, used, max)| NearestLimit { name, share: (used / max).min(1.0) });
    let mut nearest = shares.max_by(|one, other| one.share.total_cmp(&other.share))?;
    nearest.share = (nearest.share * 1e4).round() / 1e4;
    Some(nearest)
}

fn call_depth(run: &Run) -> u32 {
    u32::try_from(run.limits.call_depth).unwrap_or(u32::MAX)
}

fn limit(what: &str, name: &str, size: usize, max: usize) -> String {
    format!("{what} too large: {}, over the limit of {} (`{name}`)", size_over(size, max), units::size(max))
}
