//! Runs a script: the engine guest in the sandbox, or the same engine in the process. Here are the host's side of the door, the
//! limits, and what a run gives back. Knows tools only as something to ask for.

mod accounts;
mod diagnostic;
mod guest;
mod in_process;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::tool::{CallRecord, Detail, Failure, seconds};

use accounts::{Accounts, Ending};
pub use diagnostic::{Diagnostic, DiagnosticKind};

/// A future that is boxed, so that a trait with it can be used as an object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// When `wall_time` is over; a time so long that no clock holds it is over in a century.
fn deadline(wall_time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wall_time).unwrap_or(now + Duration::from_hours(100 * 365 * 24))
}

/// What the host gives a script beside its own memory.
pub(crate) trait Door: Send + Sync + 'static {
    /// Calls a tool: the JSON text of its answer.
    fn call_tool(&self, call: Call) -> BoxFuture<'_, Called>;
    /// Finds tools: the JSON text of the results.
    fn search_tools(&self, query: String, detail: Detail) -> BoxFuture<'_, String>;
}

/// A call on its way out.
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

/// Bounds on one run. A limit that was hit ends the script, whatever it catches; the error names the limit and its value.
///
/// ```
/// let mut limits = rhaiway::Limits::default();
/// limits.tool_calls = 20;
/// assert_eq!(limits.memory_bytes, 64 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Wall clock, tool calls included, but not the time in which the servers that the script names are connected before it starts;
    /// 30 s.
    pub wall_time: Duration,
    /// Memory of the script, at most 1 GiB; 64 MiB. Holds only in the sandbox.
    pub memory_bytes: usize,
    /// Calls of tools; 256.
    pub tool_calls: usize,
    /// Length of the source; 64 KiB.
    pub source_bytes: usize,
    /// Arguments of one call, as JSON; 1 MiB.
    pub argument_bytes: usize,
    /// Answer of one call, as JSON; 8 MiB.
    pub answer_bytes: usize,
    /// The script's value, as JSON; 1 MiB.
    pub result_bytes: usize,
    /// All that the script prints; 64 KiB. What is over is cut, and the last line says so; the script goes on.
    pub log_bytes: usize,
    /// Lines that the script prints; 1,000. Cut like `log_bytes`.
    pub log_lines: usize,
    /// One line; 4 KiB. Cut, with its original length.
    pub log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time: Duration::from_secs(30),
            memory_bytes: 64 << 20,
            tool_calls: 256,
            source_bytes: 64 << 10,
            argument_bytes: 1 << 20,
            answer_bytes: 8 << 20,
            result_bytes: 1 << 20,
            log_bytes: 64 << 10,
            log_lines: 1000,
            log_line_bytes: 4 << 10,
        }
    }
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

/// Is told each line as the script prints it.
pub(crate) type LogSink = Arc<dyn Fn(&str) + Send + Sync>;

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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Time spent waiting for tools; in JSON as seconds.
    #[serde(serialize_with = "seconds")]
    pub tool_time: Duration,
    /// Number of calls of tools.
    pub tool_calls: usize,
    /// JSON sent to tools.
    pub argument_bytes: usize,
    /// JSON received from tools.
    pub answer_bytes: usize,
    /// Highest memory of the script's instance; none in the process, where it is not measured.
    pub peak_memory_bytes: Option<usize>,
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
    /// Folder for the compiled engine; compiled anew in each process where there is none.
    pub(crate) cache_dir: Option<PathBuf>,
    /// Is told when the engine has to be compiled, which takes seconds.
    pub(crate) on_compile: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// How a script itself ended: the JSON text of its value, or what the engine says.
type Ended = Result<String, rhaiway_engine::Fault>;

/// Runs a script to its end. Dropping the future ends it.
///
/// # Errors
/// Only where the sandbox can't be set up; a failing script is an [`Execution`].
pub(crate) async fn run(run: Run) -> Result<Execution, Error> {
    let accounts = Arc::new(Accounts::new(&run));
    if run.source.len() > run.limits.source_bytes {
        let message = limit("the source is", "source_bytes", run.source.len(), run.limits.source_bytes);
        return Ok(finish(&run, &accounts, Instant::now(), None, Err(Ending::Limit(message, None))));
    }
    let (started, peak, ended) = match run.isolation {
        Isolation::Sandbox => {
            let engine = guest::shared(run.cache_dir.clone(), run.on_compile.clone()).await?;
            let slot = engine.slot().await;
            let started = Instant::now();
            let (peak, ended) = engine.run(&run, &accounts).await;
            drop(slot);
            (started, Some(peak), ended)
        }
        Isolation::InProcess => {
            let started = Instant::now();
            (started, None, in_process::run(&run, &accounts).await)
        }
    };
    Ok(finish(&run, &accounts, started, peak, ended))
}

fn finish(
    run: &Run,
    accounts: &Accounts,
    started: Instant,
    peak: Option<usize>,
    ended: Result<Ended, Ending>,
) -> Execution {
    let execution_time = started.elapsed();
    let ledger = accounts.close();
    let value = match ended {
        Ok(Ok(text)) if text.len() > run.limits.result_bytes => {
            Err(Diagnostic::limit(limit("the result is", "result_bytes", text.len(), run.limits.result_bytes)))
        }
        Ok(Ok(text)) => serde_json::from_str(&text)
            .map_err(|error| Diagnostic::internal(format!("the result is not JSON: {error}"))),
        Ok(Err(fault)) => Err(Diagnostic::from_fault(fault, &run.source)),
        // What the script was doing then, if it was waiting for a tool.
        Err(ending) => Err(Diagnostic::from_ending(ending, ledger.unfinished.as_ref(), &run.source)),
    };
    let (result, error) = value.map_or_else(|error| (Value::Null, Some(error)), |value| (value, None));
    let usage = Usage {
        tool_time: ledger.calls.iter().map(|call| call.duration).sum(),
        tool_calls: ledger.calls.len(),
        argument_bytes: ledger.calls.iter().map(|call| call.argument_bytes).sum(),
        answer_bytes: ledger.calls.iter().map(|call| call.answer_bytes).sum(),
        peak_memory_bytes: peak,
    };
    Execution { result, logs: ledger.logs, error, execution_time, calls: ledger.calls, usage }
}

fn limit(what: &str, name: &str, size: usize, max: usize) -> String {
    format!("{what} too large: {size} bytes, over the limit of {max} (`{name}`)")
}
