//! The books of one run: every call and log line passes here, is counted, bounded and remembered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhaiway_engine::{Position, Refusal};

use super::{Call, Called, Run, limit};
use crate::limits::Limits;
use crate::tool::{CallRecord, Detail, Failure, FailureKind, LogSink, Outcome};
use crate::units::size;

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
    pub(super) limits: Limits,
    on_log: Option<LogSink>,
    door: Arc<dyn super::Door>,
    /// When the script has to be over.
    pub(super) deadline: Instant,
    ledger: Mutex<Ledger>,
    /// One for all calls, so that what is said to all is written once.
    sink: Mutex<Option<LogSink>>,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) logs: Vec<String>,
    pub(super) calls: Vec<CallRecord>,
    /// Calls that were given up as the script ended, by their places in `calls`.
    pub(super) unfinished: Vec<usize>,
    /// Time that the script waited.
    pub(super) waited: Duration,
    pub(super) log_bytes: usize,
    lost_lines: usize,
    /// Answers that came and that the script has not taken yet, in bytes.
    held: usize,
    /// When the calls that are under way began, by their places in `calls`.
    under_way: Vec<(usize, Instant)>,
    /// What was hit; the script is on its way out.
    ending: Option<Ending>,
}

/// A call that is in the books, and under way until this is dropped.
pub(super) struct Booked {
    accounts: Arc<Accounts>,
    pub(super) place: usize,
    call: Call,
    position: Option<Position>,
}

impl Drop for Booked {
    fn drop(&mut self) {
        let mut ledger = self.accounts.ledger();
        if ledger.end(self.place) {
            ledger.unfinished.push(self.place);
        }
    }
}

impl Ledger {
    /// Notes when a call was over; `false` if that is known already.
    fn end(&mut self, place: usize) -> bool {
        let Some(index) = self.under_way.iter().position(|(other, _)| *other == place) else { return false };
        let (_, started) = self.under_way.swap_remove(index);
        if let Some(record) = self.calls.get_mut(place) {
            record.duration = started.elapsed();
        }
        true
    }
}

impl Accounts {
    pub(super) fn new(run: &Run, deadline: Instant) -> Self {
        Self {
            limits: run.limits.clone(),
            on_log: run.on_log.clone(),
            door: run.door.clone(),
            deadline,
            ledger: Mutex::default(),
            sink: Mutex::default(),
        }
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self, message: String, position: Option<Position>) -> Refusal {
        self.ledger().ending.get_or_insert(Ending::Limit(message, position));
        Refusal::Stop
    }

    /// Ends the script for what no script should be able to cause.
    pub(super) fn break_off(&self, message: &str) -> Refusal {
        self.ledger().ending.get_or_insert_with(|| Ending::Internal(message.into()));
        Refusal::Stop
    }

    /// What ended the script, if the host did.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ledger().ending.clone()
    }

    /// Microseconds since 1970, UTC.
    pub(super) fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// 64 random bits; where the system has none to give, the clock's.
    pub(super) fn random() -> u64 {
        getrandom::u64().unwrap_or_else(|_| Self::now().cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Notes an answer that waits for the script. More than it has memory for can't be of use to it.
    fn hold(&self, size: usize) -> Result<(), String> {
        let mut ledger = self.ledger();
        ledger.held += size;
        if ledger.held <= self.limits.memory_bytes {
            return Ok(());
        }
        Err(limit("the answers that wait for the script are", "memory_bytes", ledger.held, self.limits.memory_bytes))
    }

    /// Notes that the script took an answer.
    pub(super) fn take(&self, answer: &str) {
        let mut ledger = self.ledger();
        ledger.held = ledger.held.saturating_sub(answer.len());
    }

    /// Notes that the script gave up a call.
    pub(super) fn give_up(&self, place: usize) {
        self.ledger().end(place);
    }

    /// Notes that the script waited since `from`.
    pub(super) fn waited(&self, from: Instant) {
        self.ledger().waited += from.elapsed();
    }

    /// Enters a call that is about to be made.
    pub(super) fn book(self: &Arc<Self>, call: Call, position: Option<Position>) -> Result<Booked, Refusal> {
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
        let mut ledger = self.ledger();
        let place = ledger.calls.len();
        if place >= limits.tool_calls {
            drop(ledger);
            let message =
                format!("the script made more calls of tools than the limit of {} (`tool_calls`)", limits.tool_calls);
            return Err(self.stop(message, position));
        }
        ledger.calls.push(CallRecord {
            server: call.server.clone(),
            tool: call.tool.clone(),
            line: position.map(|place| place.line),
            column: position.map(|place| place.column),
            outcome: Outcome::Cancelled,
            duration: Duration::ZERO,
            argument_bytes: call.arguments.len(),
            answer_bytes: 0,
        });
        ledger.under_way.push((place, Instant::now()));
        drop(ledger);
        Ok(Booked { accounts: Arc::clone(self), place, call, position })
    }

    pub(super) async fn search_tools(&self, query: String, detail_level: &str) -> Result<String, String> {
        let detail: Detail = detail_level.parse()?;
        if query.len() > QUERY_BYTES {
            return Err(format!(
                "the query has {}, and at most {} are searched for",
                size(query.len()),
                size(QUERY_BYTES)
            ));
        }
        let from = Instant::now();
        let found = self.door.search_tools(query, detail).await;
        self.waited(from);
        let max = self.limits.answer_bytes;
        if found.len() > max {
            return Err(limit("what was found is", "answer_bytes", found.len(), max)
                + ": ask for less detail, or search for words");
        }
        Ok(found)
    }

    /// Takes lines for the log from elsewhere, for as long as the run lasts.
    fn log_sink(self: &Arc<Self>) -> LogSink {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || -> LogSink {
            let accounts = Arc::downgrade(self);
            Arc::new(move |line| {
                if let Some(accounts) = accounts.upgrade() {
                    accounts.log(line);
                }
            })
        };
        Arc::clone(sink.get_or_insert_with(new))
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
        while let Some((place, _)) = ledger.under_way.first().copied() {
            ledger.end(place);
            ledger.unfinished.push(place);
        }
        ledger.unfinished.sort_unstable();
        if ledger.lost_lines > 0 {
            let Limits { log_lines, log_bytes, .. } = self.limits;
            let note = format!(
                "[cut: {} more lines; the limits are {log_lines} lines and {}]",
                ledger.lost_lines,
                size(log_bytes)
            );
            if let Some(on_log) = &self.on_log {
                on_log(&note);
            }
            ledger.logs.push(note);
        }
        ledger
    }
}

impl Booked {
    /// Makes the call. Dropped before its end, it counts as cancelled.
    pub(super) async fn perform(self) -> Result<String, Refusal> {
        let Self { accounts, place, call, position } = &self;
        let limits = &accounts.limits;
        let called_as = call.tool.clone();
        let Called { tool, answer } = accounts.door.call_tool(call, accounts.deadline, &accounts.log_sink()).await;
        let tool = tool.unwrap_or(called_as);
        let (outcome, size, result) = match answer {
            Ok(text) if text.len() > limits.answer_bytes => {
                let what = format!("the answer of `{}.{tool}` is", call.server);
                let message = limit(&what, "answer_bytes", text.len(), limits.answer_bytes);
                (Outcome::Limit, text.len(), Err(message))
            }
            Ok(text) => match accounts.hold(text.len()) {
                Ok(()) => (Outcome::Ok, text.len(), Ok(Ok(text))),
                Err(message) => (Outcome::Limit, text.len(), Err(message)),
            },
            Err(failure) => {
                let text = serde_json::to_string(&failure).unwrap_or_default();
                if text.len() > limits.answer_bytes {
                    let what = format!("what `{}.{tool}` says of its failure is", call.server);
                    (Outcome::Limit, 0, Err(limit(&what, "answer_bytes", text.len(), limits.answer_bytes)))
                } else {
                    (Outcome::Failed(failure.kind), 0, Ok(Err(Refusal::Failed(text))))
                }
            }
        };
        let mut ledger = accounts.ledger();
        // A call that was given up in the meantime stays so.
        if ledger.end(*place)
            && let Some(record) = ledger.calls.get_mut(*place)
        {
            (record.tool, record.outcome, record.answer_bytes) = (tool, outcome, size);
        }
        drop(ledger);
        result.unwrap_or_else(|message| Err(accounts.stop(message, *position)))
    }
}
