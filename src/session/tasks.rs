//! Tools that run as tasks: those that a server makes a task of by itself (protocol 2026-07-28), and those that must be called as tasks
//! (2025-11-25). A task is asked after until it is over, and cancelled when nobody waits for it any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::model::{
    CancelTaskParams, CancelTaskRequest, ClientRequest, CustomRequest, GetExtensions, GetTaskParams, GetTaskRequest,
    InputRequests, UpdateTaskParams, UpdateTaskRequest,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::lenient;
use super::requests::{Deadline, Exchange, Trouble};
use super::wire::{Flight, HasDigits};
use crate::tool::{CallOptions, FailureKind};

/// How often a task is asked after, where its server does not say, and the bounds on what it may say.
const POLL: Duration = Duration::from_secs(1);
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_mins(1);
/// How long a server is asked to keep the result of a task, in milliseconds.
const KEPT: u64 = 3_600_000;

/// A task, as a server tells of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskState {
    #[serde(deserialize_with = "lenient::text")]
    task_id: String,
    status: String,
    status_message: Option<String>,
    /// The first is that of protocol 2026-07-28, the second that of 2025-11-25.
    poll_interval_ms: Option<f64>,
    poll_interval: Option<f64>,
    result: Option<Box<RawValue>>,
    error: Option<Value>,
    input_requests: Option<InputRequests>,
}

impl TaskState {
    fn read(text: &str) -> Result<Self, Trouble> {
        serde_json::from_str(text).map_err(Trouble::unusable)
    }

    /// How long to wait before it is asked after again.
    fn poll(&self) -> Duration {
        let poll = self.poll_interval_ms.or(self.poll_interval);
        let poll = poll.and_then(|poll| Duration::try_from_secs_f64(poll / 1000.0).ok());
        poll.unwrap_or(POLL).clamp(POLL_MIN, POLL_MAX)
    }
}

impl Exchange<'_> {
    /// Whether a tool is known to be one that must be called as a task.
    pub(super) fn runs_as_task(&self, name: &str) -> bool {
        let tools = self.connection.tools().filter(|_| !self.connection.is_modern());
        tools.is_some_and(|tools| tools.resolve(name, true).is_some_and(|entry| entry.tool.runs_as_task()))
    }

    /// Whether a server that refuses to call a tool may mean that it must be called as a task.
    pub(super) fn may_run_as_task(&self, refusal: &str) -> bool {
        !self.connection.is_modern() && refusal.to_lowercase().contains("task")
    }

    /// Calls a tool as a task (2025-11-25): the JSON text of its result. When the future is dropped, the task is cancelled.
    pub(super) async fn run_as_task(
        &self,
        name: &str,
        arguments: &Map<String, Value>,
        options: &CallOptions,
        deadline: &mut Deadline,
    ) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        struct Created {
            task: Option<Box<RawValue>>,
        }
        let params = json!({"name": name, "arguments": arguments, "task": {"ttl": KEPT}});
        let mut request = custom("tools/call", params);
        if let Some(digits) = &options.digits {
            request.extensions_mut().insert(HasDigits(Arc::clone(digits)));
        }
        // Progress is told under the token of the request that makes the task, to its end.
        let flight = Flight::of_task(options.clone());
        let mut text = self.text_of_task(request, &flight, deadline).await?;
        // One that answers at once has made no task of it.
        let Ok(Created { task: Some(task) }) = serde_json::from_str(&text) else { return Ok(text) };
        let mut state = TaskState::read(task.get())?;
        let id = state.task_id.clone();
        let mut cancel = CancelTask { connection: self.connection, id: Some(id.clone()), is_modern: false };
        let ask = |method: &str| custom(method, json!({"taskId": id}));
        // While it wants input, it asks for that as servers do; `tasks/result` waits for the end.
        while state.status == "working" {
            let again = Instant::now() + state.poll();
            while !again.saturating_duration_since(Instant::now()).is_zero() {
                tokio::select! {
                    slept = deadline.sleep(again.saturating_duration_since(Instant::now())) => slept?,
                    () = flight.progress() => deadline.heard(),
                }
            }
            let before = flight.told();
            let told = self.text_of_task(ask("tasks/get"), &flight, deadline).await?;
            if told != text || flight.told() > before {
                deadline.heard();
            }
            state = TaskState::read(&told)?;
            text = told;
        }
        if state.status == "cancelled" {
            cancel.id = None;
            return Err(ended(&state));
        }
        let result = self.text_of_task(ask("tasks/result"), &flight, deadline).await;
        if state.status != "input_required" || result.is_ok() {
            cancel.id = None;
        }
        result
    }

    async fn text_of_task(
        &self,
        request: ClientRequest,
        flight: &Arc<Flight>,
        deadline: &Deadline,
    ) -> Result<String, Trouble> {
        let options = deadline.options(&CallOptions::default())?;
        match self.connection.text_in(request, &options, flight, &self.meta).await {
            Ok(text) => Ok(text),
            Err(error) => Err(deadline.explain(self.trouble(error).await)),
        }
    }

    /// Asks after a task that a server made of a call (2026-07-28) until it is over: the JSON text of its result. When the future is
    /// dropped, the task is cancelled.
    pub(super) async fn follow(&self, text: &str, deadline: &mut Deadline) -> Result<String, Trouble> {
        let mut state = TaskState::read(text)?;
        let mut before = String::new();
        let id = state.task_id.clone();
        let mut answered = HashSet::new();
        let mut cancel = CancelTask { connection: self.connection, id: Some(id.clone()), is_modern: true };
        loop {
            match state.status.as_str() {
                "completed" => {
                    cancel.id = None;
                    let result = state.result.ok_or_else(|| Trouble::unusable("the task has no result"))?;
                    return Ok(result.get().into());
                }
                "failed" | "cancelled" => {
                    cancel.id = None;
                    return Err(ended(&state));
                }
                _ => {}
            }
            let mut wanted = state.input_requests.take().unwrap_or_default();
            // What was answered may still be listed; the names are those of the whole task.
            wanted.retain(|name, _| !answered.contains(name));
            if !wanted.is_empty() {
                answered.extend(wanted.keys().cloned());
                let update = async {
                    let params = UpdateTaskParams::new(id.clone(), self.answer_all(wanted).await?);
                    self.text(ClientRequest::UpdateTaskRequest(UpdateTaskRequest::new(params))).await
                };
                deadline.bound(update).await?;
            }
            deadline.sleep(state.poll()).await?;
            let request = GetTaskRequest::new(GetTaskParams::new(id.clone()));
            let options = deadline.options(&CallOptions::default())?;
            let text = self.text_with(ClientRequest::GetTaskRequest(request), options).await;
            let text = text.map_err(|trouble| deadline.explain(trouble))?;
            if text != before {
                deadline.heard();
            }
            state = TaskState::read(&text)?;
            before = text;
        }
    }
}

fn custom(method: &str, params: Value) -> ClientRequest {
    ClientRequest::CustomRequest(CustomRequest::new(method, Some(params)))
}

/// The error of a task that came to no result.
fn ended(state: &TaskState) -> Trouble {
    let error = state.error.clone().unwrap_or_default();
    let said = error.get("message").and_then(Value::as_str).map(String::from).or(state.status_message.clone());
    let reason = said.map(|said| format!(": {said}")).unwrap_or_default();
    let message = format!("the task that the server made of it was {}{reason}", state.status);
    let mut trouble = Trouble::new(FailureKind::Protocol, message);
    trouble.data = error.get("data").cloned();
    trouble
}

/// Cancels a task that nobody waits for any more.
struct CancelTask<'a> {
    connection: &'a Connection,
    id: Option<String>,
    is_modern: bool,
}

impl Drop for CancelTask<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.connection.send_and_forget(if self.is_modern {
            ClientRequest::CancelTaskRequest(CancelTaskRequest::new(CancelTaskParams::new(id)))
        } else {
            custom("tasks/cancel", json!({"taskId": id}))
        });
    }
}
