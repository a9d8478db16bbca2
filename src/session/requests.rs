//! What each kind of request is on the wire, and how its answer is read: leniently, item by item, and for requests that the server wants
//! more input for, or makes a task of, to the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelTaskParams, CancelTaskRequest, ClientRequest, CompleteRequest,
    GetExtensions, GetPromptRequest, GetTaskParams, GetTaskRequest, InputRequests, InputResponses, ListPromptsRequest,
    ListResourceTemplatesRequest, ListResourcesRequest, ListToolsRequest, MetaObject, ReadResourceRequest,
    RequestMetaObject, ServerResult, SetLevelRequest, SetLevelRequestParams, SubscribeRequest, SubscribeRequestParams,
    UnsubscribeRequest, UnsubscribeRequestParams, UpdateTaskParams, UpdateTaskRequest,
};
use rmcp::service::ServiceError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::callbacks::{Callbacks, Origin};
use super::connection::{Connection, sign_of_life};
use super::wire::{HasDigits, typed_tools};
use crate::error::Error;
use crate::middleware::{Answer, Params};
use crate::tool::{CallOptions, Failure, FailureKind, Tool, ToolAnswer, ToolCall, ToolPage};

/// How often a server may ask for more input before it answers a request.
const ROUNDS: usize = 10;
/// How often a task is asked after, where its server does not say, and the bounds on what it may say.
const POLL: Duration = Duration::from_secs(1);
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_mins(1);

/// A connection that is asked something.
pub(super) struct Exchange<'a> {
    pub(super) server: &'a str,
    pub(super) connection: &'a Connection,
    pub(super) callbacks: &'a Callbacks,
    pub(super) method: &'static str,
    pub(super) meta: RequestMetaObject,
}

/// Why a request failed.
struct Trouble {
    kind: FailureKind,
    message: String,
    data: Option<Value>,
}

impl Trouble {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), data: None }
    }

    fn unusable(reason: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::Answer, format!("the answer can't be used: {reason}"))
    }
}

/// What a server wants to know before it goes on (protocol 2026-07-28, multi-round-trip requests).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputRequired {
    #[serde(default)]
    result_type: Option<String>,
    input_requests: Option<InputRequests>,
    request_state: Option<String>,
}

/// A task, as a server that made one of a call tells of it (extension `io.modelcontextprotocol/tasks`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskState {
    task_id: String,
    status: String,
    status_message: Option<String>,
    poll_interval_ms: Option<u64>,
    result: Option<Box<RawValue>>,
    error: Option<Value>,
    input_requests: Option<InputRequests>,
}

/// The time that is left until an instant.
#[derive(Clone, Copy)]
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    fn left(self) -> Result<Option<Duration>, Trouble> {
        let Some(at) = self.at else { return Ok(None) };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.over());
        }
        Ok(Some(left))
    }

    /// Waits for something that has no bound of its own.
    async fn bound<T>(self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        match self.left()? {
            Some(left) => tokio::time::timeout(left, work).await.unwrap_or_else(|_| Err(self.over())),
            None => work.await,
        }
    }

    fn over(self) -> Trouble {
        let seconds = self.timeout.unwrap_or_default().as_secs_f64();
        Trouble::new(FailureKind::Timeout, format!("the time limit of the call, {seconds} s, is over"))
    }

    /// Where a request ran out of the time that was left, it is the whole that is told.
    fn explain(self, trouble: Trouble) -> Trouble {
        if trouble.kind == FailureKind::Timeout { self.over() } else { trouble }
    }
}

impl Exchange<'_> {
    /// Sends a request and reads its answer.
    pub(super) async fn run(self, params: Params) -> Result<Answer, Error> {
        let answer = match params {
            Params::CallTool(call) => {
                let name = call.name.clone();
                return self.call_tool(call).await.map(Answer::CallTool).map_err(|trouble| {
                    let Trouble { kind, message, data } = trouble;
                    Failure { data, ..Failure::new(kind, self.server, &name, message) }.into()
                });
            }
            Params::ListTools(page) => {
                self.list_tools(ClientRequest::ListToolsRequest(ListToolsRequest::with_param(page))).await
            }
            Params::ListResources(page) => {
                let request = ClientRequest::ListResourcesRequest(ListResourcesRequest::with_param(page));
                self.list::<rmcp::model::Resource, _>(request, "resources").await.map(Answer::ListResources)
            }
            Params::ListResourceTemplates(page) => {
                let request = ListResourceTemplatesRequest::with_param(page);
                let request = ClientRequest::ListResourceTemplatesRequest(request);
                self.list::<rmcp::model::ResourceTemplate, _>(request, "resourceTemplates")
                    .await
                    .map(Answer::ListResourceTemplates)
            }
            Params::ListPrompts(page) => {
                let request = ClientRequest::ListPromptsRequest(ListPromptsRequest::with_param(page));
                self.list::<rmcp::model::Prompt, _>(request, "prompts").await.map(Answer::ListPrompts)
            }
            Params::ReadResource(params) => {
                let ask = |responses, state| {
                    let mut params = params.clone();
                    (params.input_responses, params.request_state) = (responses, state);
                    ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params))
                };
                self.rounds(&CallOptions::default(), ask).await.and_then(|text| read(&text)).map(Answer::ReadResource)
            }
            Params::GetPrompt(params) => {
                let ask = |responses, state| {
                    let mut params = params.clone();
                    (params.input_responses, params.request_state) = (responses, state);
                    ClientRequest::GetPromptRequest(GetPromptRequest::new(params))
                };
                self.rounds(&CallOptions::default(), ask).await.and_then(|text| read(&text)).map(Answer::GetPrompt)
            }
            Params::Complete(params) => {
                let request = ClientRequest::CompleteRequest(CompleteRequest::new(params));
                self.text(request).await.and_then(|text| read(&text)).map(Answer::Complete)
            }
            Params::Subscribe(uri) if self.connection.is_modern() => match self.connection.listen_to(&uri).await {
                Ok(()) => Ok(Answer::Subscribe(())),
                Err(error) => Err(self.trouble(error).await),
            },
            Params::Unsubscribe(uri) if self.connection.is_modern() => {
                self.connection.listen_no_more(&uri);
                Ok(Answer::Unsubscribe(()))
            }
            Params::Subscribe(uri) => {
                let request = SubscribeRequest::new(SubscribeRequestParams::new(uri));
                self.text(ClientRequest::SubscribeRequest(request)).await.map(|_| Answer::Subscribe(()))
            }
            Params::Unsubscribe(uri) => {
                let request = UnsubscribeRequest::new(UnsubscribeRequestParams::new(uri));
                self.text(ClientRequest::UnsubscribeRequest(request)).await.map(|_| Answer::Unsubscribe(()))
            }
            Params::SetLevel(level) => {
                self.connection.wire.set_log_level(level);
                if self.connection.is_modern() {
                    self.connection.ask_for_logs(level);
                    return Ok(Answer::SetLevel(()));
                }
                let request = SetLevelRequest::new(SetLevelRequestParams::new(level));
                self.text(ClientRequest::SetLevelRequest(request)).await.map(|_| Answer::SetLevel(()))
            }
            Params::Ping(()) => {
                let request = sign_of_life(self.connection.is_modern());
                self.text(request).await.map(|_| Answer::Ping(()))
            }
            Params::Initialize(_) => Err(Trouble::new(FailureKind::Rejected, "the connection stands already")),
        };
        answer.map_err(|Trouble { kind, message, .. }| Error::Request {
            server: self.server.into(),
            method: self.method,
            kind,
            message,
        })
    }

    async fn text(&self, request: ClientRequest) -> Result<String, Trouble> {
        self.text_with(request, CallOptions::default()).await
    }

    async fn text_with(&self, request: ClientRequest, options: CallOptions) -> Result<String, Trouble> {
        match self.connection.text_of(request, options, &self.meta).await {
            Ok(text) => Ok(text),
            Err(error) => Err(self.trouble(error).await),
        }
    }

    async fn trouble(&self, error: ServiceError) -> Trouble {
        let (kind, message) = self.connection.explain(&error).await;
        let data = match error {
            ServiceError::McpError(error) => error.data,
            _ => None,
        };
        Trouble { kind, message, data }
    }

    /// Asks until the server needs no more input.
    async fn rounds(
        &self,
        options: &CallOptions,
        ask: impl Fn(Option<InputResponses>, Option<String>) -> ClientRequest,
    ) -> Result<String, Trouble> {
        let deadline = Deadline::new(options.timeout);
        let (mut responses, mut state) = (None, None);
        for _ in 0..ROUNDS {
            let options = CallOptions { timeout: deadline.left()?, ..options.clone() };
            let text =
                self.text_with(ask(responses, state), options).await.map_err(|trouble| deadline.explain(trouble))?;
            // Without the words there is no need to parse.
            if !text.contains("input_required") {
                return Ok(text);
            }
            let Ok(wanted) = serde_json::from_str::<InputRequired>(&text) else { return Ok(text) };
            if wanted.result_type.as_deref() != Some("input_required") {
                return Ok(text);
            }
            responses = match wanted.input_requests {
                Some(requests) => Some(deadline.bound(self.answer_all(requests)).await?),
                None => None,
            };
            state = wanted.request_state;
        }
        Err(Trouble::new(FailureKind::Protocol, format!("it asked for more input {ROUNDS} times")))
    }

    async fn answer_all(&self, requests: InputRequests) -> Result<InputResponses, Trouble> {
        let origin = Origin { server: self.server.into() };
        self.callbacks.answer_all(requests, &origin).await.map_err(|error| {
            let message = format!("the server needs input that this client does not give: {}", error.message);
            Trouble { kind: FailureKind::Protocol, message, data: error.data }
        })
    }

    async fn call_tool(&self, call: ToolCall) -> Result<ToolAnswer, Trouble> {
        let ToolCall { name, arguments, options } = call;
        let deadline = Deadline::new(options.timeout);
        let text = self
            .rounds(&options, |responses, state| {
                let mut params = CallToolRequestParams::new(name.clone()).with_arguments(arguments.clone());
                (params.input_responses, params.request_state) = (responses, state);
                let mut request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
                if let Some(digits) = &options.digits {
                    request.extensions_mut().insert(HasDigits(Arc::clone(digits)));
                }
                request
            })
            .await?;
        let read = |text: &str| -> Result<ToolAnswer, Trouble> {
            serde_json::from_str(text)
                .map_err(|error| Trouble::unusable(format!("it is no object with `content`: {error}")))
        };
        let mut answer = read(&text)?;
        match answer.result_type.as_deref() {
            None | Some("complete") => {}
            Some("task") => answer = read(&self.follow(&text, deadline).await?)?,
            Some(other) => {
                return Err(Trouble::unusable(format!("its type is `{other}`, which this client does not know")));
            }
        }
        answer.explain_denial(|said| {
            let arguments = serde_json::to_string(&arguments).unwrap_or_default();
            self.connection.denied(said, &arguments)
        });
        Ok(answer)
    }

    /// Asks after a task until it is over: the JSON text of its result. When the future is dropped, the task is cancelled.
    async fn follow(&self, text: &str, deadline: Deadline) -> Result<String, Trouble> {
        let task = |text: &str| serde_json::from_str::<TaskState>(text).map_err(Trouble::unusable);
        let mut state = task(text)?;
        let id = state.task_id.clone();
        let mut answered = HashSet::new();
        let mut cancel = CancelTask { connection: self.connection, id: Some(id.clone()) };
        loop {
            match state.status.as_str() {
                "completed" => {
                    cancel.id = None;
                    let result = state.result.ok_or_else(|| Trouble::unusable("the task has no result"))?;
                    return Ok(result.get().into());
                }
                status @ ("failed" | "cancelled") => {
                    cancel.id = None;
                    let error = state.error.unwrap_or_default();
                    let said = error.get("message").and_then(Value::as_str).map(String::from).or(state.status_message);
                    let reason = said.map(|said| format!(": {said}")).unwrap_or_default();
                    let data = error.get("data").cloned();
                    let message = format!("the task that the server made of it was {status}{reason}");
                    return Err(Trouble { kind: FailureKind::Protocol, message, data });
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
            let poll = state.poll_interval_ms.map_or(POLL, Duration::from_millis).clamp(POLL_MIN, POLL_MAX);
            let left = deadline.left()?;
            tokio::time::sleep(left.map_or(poll, |left| left.min(poll))).await;
            let options = CallOptions { timeout: deadline.left()?, ..CallOptions::default() };
            let request = GetTaskRequest::new(GetTaskParams::new(id.clone()));
            let text = self.text_with(ClientRequest::GetTaskRequest(request), options).await;
            state = task(&text.map_err(|trouble| deadline.explain(trouble))?)?;
        }
    }

    async fn list_tools(&self, request: ClientRequest) -> Result<Answer, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            tools: Vec<Value>,
            next_cursor: Option<String>,
        }
        let answer = self.connection.text_and_result_of(request, CallOptions::default(), &self.meta).await;
        let (text, result) = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(self.trouble(error).await),
        };
        let refused = refused_tools(&text, &result);
        let page: Page = serde_json::from_str(&text).map_err(Trouble::unusable)?;
        let mut tools = Vec::with_capacity(page.tools.len());
        for entry in page.tools {
            match Tool::from_json(entry) {
                Ok(tool) if refused.contains(&tool.name) => {
                    tracing::warn!(
                        server = self.server,
                        tool = tool.name,
                        "skipped a tool whose `x-mcp-header` is wrong"
                    );
                }
                Ok(tool) => tools.push(tool),
                Err(reason) => tracing::warn!(server = self.server, reason, "skipped a tool"),
            }
        }
        Ok(Answer::ListTools(ToolPage { tools, next_cursor: page.next_cursor }))
    }

    /// A page whose items are `T`; those that are not are left out, as one odd item must not cost the list.
    async fn list<T: DeserializeOwned, Page: DeserializeOwned>(
        &self,
        request: ClientRequest,
        key: &str,
    ) -> Result<Page, Trouble> {
        let text = self.text(request).await?;
        let mut page: Map<String, Value> = serde_json::from_str(&text).map_err(Trouble::unusable)?;
        let items = page.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(items) = items {
            items.retain(|item| match T::deserialize(item) {
                Ok(_) => true,
                Err(reason) => {
                    tracing::warn!(server = self.server, %reason, "skipped an item of `{key}`");
                    false
                }
            });
        }
        serde_json::from_value(Value::Object(page)).map_err(Trouble::unusable)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(Trouble::unusable)
}

/// Tools that rmcp has taken out of a list, as no call of them could have the headers that they ask for.
fn refused_tools(text: &str, result: &ServerResult) -> HashSet<String> {
    let ServerResult::ListToolsResult(kept) = result else { return HashSet::new() };
    let mut refused: HashSet<String> = typed_tools(text).into_iter().map(|tool| tool.name.into()).collect();
    for tool in &kept.tools {
        refused.remove(&*tool.name);
    }
    refused
}

/// `_meta` as a request carries it.
pub(super) fn request_meta(meta: Map<String, Value>) -> RequestMetaObject {
    RequestMetaObject(MetaObject(meta))
}

/// Cancels a task that nobody waits for any more.
struct CancelTask<'a> {
    connection: &'a Connection,
    id: Option<String>,
}

impl Drop for CancelTask<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let request = CancelTaskRequest::new(CancelTaskParams::new(id));
            self.connection.send_and_forget(ClientRequest::CancelTaskRequest(request));
        }
    }
}
