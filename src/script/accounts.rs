//! The books of one run: every call and log line passes here, is counted, bounded and remembered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rhaiway_engine::{Position, Refusal};

use super::{Call, Called, Limits, LogSink, Run, limit};
use crate::tool::{CallRecord, Detail, Failure, FailureKind, Outcome};

/// Longest name of a tool that is looked for, and longest query: both are compared with every tool.
const NAME_BYTES: usize = 256;
const QUERY_BYTES: usize = 1024;

/// How the host ends a script.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// A limit was hit; the message names it. With the call that hit it, if one did.
    Limit(String, Option<Position>),
    /// The wall clock ran out.
    Timeout(Duration),
    /// Something that no script should be able to cause.
    Internal(String),
}

pub(super) struct Accounts {
    limits: Limits,
    on_log: Option<LogSink>,
    door: std::sync::Arc<dyn super::Door>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) logs: Vec<String>,
    pub(super) calls: Vec<CallRecord>,
    /// The call that the script was waiting for when it ended.
    pub(super) unfinished: Option<CallRecord>,
    /// What was hit; the script is on its way out.
    ending: Option<Ending>,
    log_bytes: usize,
    lost_lines: usize,
    started: Option<Instant>,
}

impl Accounts {
    pub(super) fn new(run: &Run) -> Self {
        Self {
            limits: run.limits.clone(),
            on_log: run.on_log.clone(),
            door: run.door.clone(),
            ledger: Mutex::default(),
        }
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, message: String, position: Option<Position>) -> Refusal {
        self.ledger().ending.get_or_insert(Ending::Limit(message, position));
        Refusal::Stop
    }

    /// The limit that ended the script, if one did.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ledger().ending.clone()
    }

    pub(super) async fn call_tool(&self, call: Call, position: Option<Position>) -> Result<String, Refusal> {
        let limits = &self.limits;
        if call.tool.len() > NAME_BYTES {
            let message =
                format!("the name of the tool has {} bytes; none is longer than {NAME_BYTES}", call.tool.len());
            let tool = format!("{}…", &call.tool[..call.tool.floor_char_boundary(NAME_BYTES)]);
            let failure = Failure { kind: FailureKind::UnknownTool, server: call.server, tool, message, data: None };
            return Err(Refusal::Failed(serde_json::to_string(&failure).unwrap_or_default()));
        }
        if call.arguments.len() > limits.argument_bytes {
            let what = format!("the arguments of `{}.{}` are", call.server, call.tool);
            return Err(
                self.stop(limit(&what, "argument_bytes", call.arguments.len(), limits.argument_bytes), position)
            );
        }
        let mut record = CallRecord {
            server: call.server.clone(),
            tool: call.tool.clone(),
            line: position.map(|place| place.line),
            column: position.map(|place| place.column),
            outcome: Outcome::Cancelled,
            duration: Duration::ZERO,
            argument_bytes: call.arguments.len(),
            answer_bytes: 0,
        };
        let started = Instant::now();
        {
            let mut ledger = self.ledger();
            if ledger.calls.len() >= limits.tool_calls {
                drop(ledger);
                let message = format!(
                    "the script made more calls of tools than the limit of {} (`tool_calls`)",
                    limits.tool_calls
                );
                return Err(self.stop(message, position));
            }
            ledger.unfinished = Some(record.clone());
            ledger.started = Some(started);
        }
        let Called { tool, answer } = self.door.call_tool(call).await;
        record.duration = started.elapsed();
        record.tool = tool.unwrap_or(record.tool);
        let result = match answer {
            Ok(text) if text.len() > limits.answer_bytes => {
                record.outcome = Outcome::Limit;
                record.answer_bytes = text.len();
                let what = format!("the answer of `{}.{}` is", record.server, record.tool);
                Err(limit(&what, "answer_bytes", text.len(), limits.answer_bytes))
            }
            Ok(text) => {
                record.outcome = Outcome::Ok;
                record.answer_bytes = text.len();
                Ok(Ok(text))
            }
            Err(failure) => {
                let text = serde_json::to_string(&failure).unwrap_or_default();
                if text.len() > limits.answer_bytes {
                    record.outcome = Outcome::Limit;
                    let what = format!("what `{}.{}` says of its failure is", record.server, record.tool);
                    Err(limit(&what, "answer_bytes", text.len(), limits.answer_bytes))
                } else {
                    record.outcome = Outcome::Failed(failure.kind);
                    Ok(Err(Refusal::Failed(text)))
                }
            }
        };
        {
            let mut ledger = self.ledger();
            ledger.unfinished = None;
            ledger.calls.push(record);
        }
        result.unwrap_or_else(|message| Err(self.stop(message, position)))
    }

    pub(super) async fn search_tools(&self, query: String, detail_level: &str) -> Result<String, String> {
        let detail: Detail = detail_level.parse()?;
        if query.len() > QUERY_BYTES {
            return Err(format!("the query has {} bytes, and at most {QUERY_BYTES} are searched for", query.len()));
        }
        let found = self.door.search_tools(query, detail).await;
        let max = self.limits.answer_bytes;
        if found.len() > max {
            return Err(limit("what was found is", "answer_bytes", found.len(), max)
                + ": ask for less detail, or search for words");
        }
        Ok(found)
    }

    pub(super) fn log(&self, line: &str) {
        let Limits { log_line_bytes, log_lines, log_bytes, .. } = self.limits;
        let line = if line.len() > log_line_bytes {
            let cut = line.floor_char_boundary(log_line_bytes);
            format!("{}… [cut: the line has {} bytes]", &line[..cut], line.len())
        } else {
            line.to_string()
        };
        {
            let mut ledger = self.ledger();
            if ledger.lost_lines > 0 || ledger.logs.len() >= log_lines || ledger.log_bytes + line.len() > log_bytes {
                ledger.lost_lines += 1;
                return;
            }
            ledger.log_bytes += line.len();
            ledger.logs.push(line.clone());
        }
        if let Some(on_log) = &self.on_log {
            on_log(&line);
        }
    }

    /// Ends the books: what was not answered counts as cancelled, what was cut is said.
    pub(super) fn close(&self) -> Ledger {
        let mut ledger = std::mem::take(&mut *self.ledger());
        if let (Some(mut record), Some(started)) = (ledger.unfinished.clone(), ledger.started) {
            record.duration = started.elapsed();
            ledger.calls.push(record);
        }
        if ledger.lost_lines > 0 {
            let Limits { log_lines, log_bytes, .. } = self.limits;
            let note = format!(
                "[cut: {} more lines; the limits are {log_lines} lines and {log_bytes} bytes]",
                ledger.lost_lines
            );
            if let Some(on_log) = &self.on_log {
                on_log(&note);
            }
            ledger.logs.push(note);
        }
        ledger
    }
}
