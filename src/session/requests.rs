//! What each kind of request is on the wire, and how its answer is read: leniently, item by item, and for requests that the server wants
//! more input for to the end. Tools that run as tasks are in `tasks.rs`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, CompleteRequest, CompleteResult, ErrorCode, GetExtensions,
    GetPromptRequest, GetPromptResult, InputRequests, InputResponses, ListPromptsRequest, ListResourceTemplatesRequest,
    ListResourcesRequest, ListToolsRequest, MetaObject, ReadResourceRequest, ReadResourceResult, RequestMetaObject,
    ServerResult, SetLevelRequest, SetLevelRequestParams, SubscribeRequest, SubscribeRequestParams, UnsubscribeRequest,
    UnsubscribeRequestParams,
};
use rmcp::service::ServiceError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::callbacks::{Callbacks, Origin};
use super::connection::{Connection, sign_of_life};
use super::lenient;
use super::wire::{HasDigits, typed_tools};
use crate::error::Error;
use crate::middleware::{Answer, Params};
use crate::tool::{CallOptions, Failure, FailureKind, Tool, ToolAnswer, ToolCall, ToolPage, lenient_list};

/// How often a server may ask for more input before it answers a request.
const ROUNDS: usize = 10;

/// A connection that is asked something.
pub(super) struct Exchange<'a> {
    pub(super) server: &'a str,
    pub(super) connection: &'a Connection,
    pub(super) callbacks: &'a Callbacks,
    pub(super) method: &'static str,
    pub(super) meta: RequestMetaObject,
}

/// Why a request failed.
pub(super) struct Trouble {
    pub(super) kind: FailureKind,
    pub(super) message: String,
    pub(super) data: Option<Value>,
    /// Whether the server says that it knows no such method.
    is_unknown_method: bool,
}

impl Trouble {
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), data: None, is_unknown_method: false }
    }

    pub(super) fn unusable(reason: impl std::fmt::Display) -> Self {
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

/// The time that a request may take: in all, and without a sign of life from the server.
pub(super) struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
    silence: Option<Duration>,
    heard: Instant,
}

impl Deadline {
    fn new(options: &CallOptions) -> Self {
        let CallOptions { timeout, silence, .. } = *options;
        let now = Instant::now();
        Self { timeout, at: timeout.and_then(|timeout| now.checked_add(timeout)), silence, heard: now }
    }

    /// Notes a sign of life.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    fn left(&self) -> Result<Option<Duration>, Trouble> {
        let silence = self.silence.and_then(|silence| self.heard.checked_add(silence));
        let Some(at) = self.at.into_iter().chain(silence).min() else { return Ok(None) };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.over());
        }
        Ok(Some(left))
    }

    /// Waits for a while, as long as there is time.
    pub(super) async fn sleep(&self, wait: Duration) -> Result<(), Trouble> {
        let left = self.left()?;
        tokio::time::sleep(left.map_or(wait, |left| left.min(wait))).await;
        self.left().map(drop)
    }

    /// Waits for something that is ours to do.
    pub(super) async fn bound<T>(&mut self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let done = match self.at {
            Some(at) => tokio::time::timeout_at(at.into(), work).await.unwrap_or_else(|_| Err(self.over())),
            None => work.await,
        };
        // As long as it took, the server could not go on.
        self.heard();
        done
    }

    fn over(&self) -> Trouble {
        let is_over = self.at.is_some_and(|at| at <= Instant::now());
        let bound = if is_over { self.timeout } else { self.silence.or(self.timeout) };
        let seconds = bound.unwrap_or_default().as_secs_f64();
        Trouble::new(FailureKind::Timeout, format!("the time limit of the call, {seconds} s, is over"))
    }

    /// Where a request ran out of the time that was left, it is the whole that is told.
    pub(super) fn explain(&self, trouble: Trouble) -> Trouble {
        if trouble.kind == FailureKind::Timeout { self.over() } else { trouble }
    }

    /// For one request of several.
    pub(super) fn options(&self, options: &CallOptions) -> Result<CallOptions, Trouble> {
        let left = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.over());
        }
        Ok(CallOptions { timeout: left, silence: self.silence, ..options.clone() })
    }
}

impl Exchange<'_> {
    /// Sends a request and reads its answer.
    pub(super) async fn run(self, params: Params) -> Result<Answer, Error> {
        let answer = match params {
            Params::CallTool(call) => {
                let name = call.name.clone();
                return self.call_tool(call).await.map(Answer::CallTool).map_err(|trouble| {
                    let Trouble { kind, message, data, .. } = trouble;
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
                let text = self.rounds(&mut Deadline::new(&CallOptions::default()), &CallOptions::default(), ask).await;
                text.and_then(|text| read::<ReadResourceResult>(&text, &["contents"])).map(Answer::ReadResource)
            }
            Params::GetPrompt(params) => {
                let ask = |responses, state| {
                    let mut params = params.clone();
                    (params.input_responses, params.request_state) = (responses, state);
                    ClientRequest::GetPromptRequest(GetPromptRequest::new(params))
                };
                let text = self.rounds(&mut Deadline::new(&CallOptions::default()), &CallOptions::default(), ask).await;
                text.and_then(|text| read::<GetPromptResult>(&text, &["messages"])).map(Answer::GetPrompt)
            }
            Params::Complete(params) => {
                let request = ClientRequest::CompleteRequest(CompleteRequest::new(params));
                let text = self.text(request).await;
                text.and_then(|text| read::<CompleteResult>(&text, &["completion", "values"])).map(Answer::Complete)
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

    pub(super) async fn text(&self, request: ClientRequest) -> Result<String, Trouble> {
        self.text_with(request, CallOptions::default()).await
    }

    pub(super) async fn text_with(&self, request: ClientRequest, options: CallOptions) -> Result<String, Trouble> {
        match self.connection.text_of(request, options, &self.meta).await {
            Ok(text) => Ok(text),
            Err(error) => Err(self.trouble(error).await),
        }
    }

    pub(super) async fn trouble(&self, error: ServiceError) -> Trouble {
        let (kind, message) = self.connection.explain(&error).await;
        let (data, is_unknown_method) = match error {
            ServiceError::McpError(error) => (error.data, error.code == ErrorCode::METHOD_NOT_FOUND),
            _ => (None, false),
        };
        Trouble { kind, message, data, is_unknown_method }
    }

    /// Asks until the server needs no more input.
    async fn rounds(
        &self,
        deadline: &mut Deadline,
        options: &CallOptions,
        ask: impl Fn(Option<InputResponses>, Option<String>) -> ClientRequest,
    ) -> Result<String, Trouble> {
        let (mut responses, mut state) = (None, None);
        for _ in 0..ROUNDS {
            let text = self.text_with(ask(responses, state), deadline.options(options)?).await;
            let text = text.map_err(|trouble| deadline.explain(trouble))?;
            deadline.heard();
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

    pub(super) async fn answer_all(&self, requests: InputRequests) -> Result<InputResponses, Trouble> {
        let origin = Origin { server: self.server.into() };
        self.callbacks.answer_all(requests, &origin).await.map_err(|error| {
            let message = format!("the server needs input that this client does not give: {}", error.message);
            Trouble { data: error.data, ..Trouble::new(FailureKind::Protocol, message) }
        })
    }

    async fn call_tool(&self, call: ToolCall) -> Result<ToolAnswer, Trouble> {
        let ToolCall { name, arguments, options } = call;
        let mut deadline = Deadline::new(&options);
        let text = if self.runs_as_task(&name) {
            self.run_as_task(&name, &arguments, &options, &mut deadline).await?
        } else {
            let ask = |responses, state| {
                let mut params = CallToolRequestParams::new(name.clone()).with_arguments(arguments.clone());
                (params.input_responses, params.request_state) = (responses, state);
                let mut request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
                if let Some(digits) = &options.digits {
                    request.extensions_mut().insert(HasDigits(Arc::clone(digits)));
                }
                request
            };
            match self.rounds(&mut deadline, &options, ask).await {
                // So a tool refuses that has not been listed and must run as a task.
                Err(trouble) if trouble.is_unknown_method && self.may_run_as_task(&trouble.message) => {
                    self.run_as_task(&name, &arguments, &options, &mut deadline).await?
                }
                answered => answered?,
            }
        };
        let read = |text: &str| -> Result<ToolAnswer, Trouble> {
            serde_json::from_str(text)
                .map_err(|error| Trouble::unusable(format!("it is no object with `content`: {error}")))
        };
        let mut answer = read(&text)?;
        match answer.result_type.as_deref() {
            None | Some("complete") => {}
            Some("task") => answer = read(&self.follow(&text, &mut deadline).await?)?,
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

    async fn list_tools(&self, request: ClientRequest) -> Result<Answer, Trouble> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default, deserialize_with = "lenient_list")]
            tools: Vec<Value>,
            #[serde(default, deserialize_with = "lenient::cursor")]
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
        lenient::make_list(&mut page, key);
        if let Some(Value::Array(items)) = page.get_mut(key) {
            items.retain_mut(|item| match lenient::item::<T>(item) {
                Ok(()) => true,
                Err(reason) => {
                    tracing::warn!(server = self.server, %reason, "skipped an item of `{key}`");
                    false
                }
            });
        }
        let next = page.remove("nextCursor").map(lenient::cursor).and_then(Result::ok).flatten();
        page.extend(next.map(|next| ("nextCursor".to_string(), Value::String(next))));
        // Of the rest of a page, nothing is needed.
        page.retain(|name, _| name == key || name == "nextCursor");
        serde_json::from_value(Value::Object(page)).map_err(Trouble::unusable)
    }
}

/// An answer with a list, which stands at `place` in it; where it is not of its form, as far as it can be mended.
fn read<T: DeserializeOwned>(text: &str, place: &[&str]) -> Result<T, Trouble> {
    let reason = match serde_json::from_str(text) {
        Ok(answer) => return Ok(answer),
        Err(reason) => reason,
    };
    let mended = serde_json::from_str::<Value>(text).ok().and_then(|mut answer| {
        lenient::mend(&mut answer, place);
        serde_json::from_value(answer).ok()
    });
    mended.ok_or_else(|| Trouble::unusable(reason))
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
