//! [`rhaiway::middleware`]: what hooks see and may do, on the way of real requests, and the middleware that ships.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use libtest_mimic::Trial;
use rhaiway::middleware::{
    Answer, Any, CallTool, Complete, Durations, GetPrompt, Initialize, Limit, ListPrompts, ListResourceTemplates,
    ListResources, ListTools, Metrics, Middleware, Next, Params, Ping, ReadResource, Request, Retry, SetLevel,
    Subscribe, TraceContext, Unsubscribe, async_trait,
};
use rhaiway::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientConfig, ClientRequest, CompleteResult, ContentBlock,
    ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult, JsonObject, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams, Prompt,
    PromptMessage, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig, ServerPeerInfo, ServerResult,
    SetLevelRequestParams, SubscribeRequestParams, ToolAnnotations, UnsubscribeRequestParams,
};
use rhaiway::{
    CallOptions, Client, ClientBuilder, Error, Failure, FailureKind, Session, ToolAnswer, ToolCall, ToolPage,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{RoleServer, ServerHandler, Service};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::fake_server;
use crate::support::{Ignored, builder, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("middleware::it_runs_in_the_order_given_behind_the_log", order),
        test("middleware::each_kind_of_request_has_its_hook", each_kind),
        test("middleware::parameters_and_meta_can_be_changed", parameters_and_meta),
        test("middleware::it_can_answer_by_itself", answering_by_itself),
        test("middleware::next_can_be_run_twice", running_next_twice),
        test("middleware::what_is_delayed_holds_up_nothing_else", delaying),
        test("middleware::what_is_rejected_does_not_reach_the_server", rejecting),
        test("middleware::the_handshake_passes_it", handshake),
        test("middleware::it_can_be_added_to_open_sessions", adding_later),
        test("middleware::an_answer_of_another_kind_is_an_error", another_kind),
        test("middleware::a_panic_fails_one_request", panicking),
        test("middleware::scripts_pass_it", scripts),
        test("middleware::spans_say_what_is_asked_and_how_it_ended", spans),
        test("middleware::the_trace_context_reaches_the_server", trace_context),
        test("middleware::metrics_count_how_requests_end", metrics_counts),
        test("middleware::metrics_begin_anew", metrics_reset),
        test("middleware::retry_repeats_what_may_pass_and_may_be_repeated", retry_cases),
        test("middleware::retry_believes_hints_only_where_it_is_to", retry_hints),
        test("middleware::retry_ends", retry_ends),
        test("middleware::retry_outlasts_a_server_that_keeps_dying", retry_dying_server),
        test("middleware::limit_bounds_what_is_in_flight_in_order", limit_in_flight),
        test("middleware::limit_gives_back_the_place_of_what_is_dropped", limit_dropping),
        test("middleware::limit_rejects_what_waited_too_long", limit_rejects),
        test("middleware::limit_spreads_requests", limit_rate),
        test("middleware::limit_lets_a_request_connect", limit_connecting),
    ]
}

/// A server with one of everything. Clones are the same server.
#[derive(Clone, Default)]
struct Server {
    state: Arc<State>,
}

struct State {
    /// What was asked for, as JSON-RPC messages without their ids, with `_meta`.
    requests: Mutex<Vec<Value>>,
    /// How many calls of `wait` have come.
    waiting: Semaphore,
    /// How many of them may be answered.
    go: Semaphore,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Default for State {
    fn default() -> Self {
        let none = || Semaphore::new(0);
        let (requests, under_way, most_under_way) = Default::default();
        Self { requests, waiting: none(), go: none(), under_way, most_under_way }
    }
}

impl Server {
    fn add_to(&self, builder: ClientBuilder) -> ClientBuilder {
        let server = self.clone();
        builder.in_process_server("one", move || Recorder(server.clone()))
    }

    fn client(&self, set_up: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        self.add_to(set_up(builder(json!({})).code_mode(false))).build().unwrap()
    }

    async fn session(&self, set_up: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Session {
        self.client(set_up).create_session("one").await.unwrap()
    }

    fn requests(&self, method: &str) -> Vec<Value> {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().filter(|request| request["method"] == method).cloned().collect()
    }

    /// Waits until so many calls of `wait` have come.
    async fn waiting(&self, calls: u32) {
        self.state.waiting.acquire_many(calls).await.unwrap().forget();
    }
}

/// Notes what a server is asked.
struct Recorder(Server);

impl Service<RoleServer> for Recorder {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let mut asked = serde_json::to_value(&request).unwrap();
        asked["params"]["_meta"] = serde_json::to_value(&context.meta).unwrap();
        self.0.state.requests.lock().unwrap().push(asked);
        Service::handle_request(&self.0, request, context).await
    }

    async fn handle_notification(
        &self,
        notification: rhaiway::model::ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Service::handle_notification(&self.0, notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        ServerHandler::get_info(&self.0)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        ServerHandler::supported_protocol_versions(&self.0)
    }
}

fn tool(name: &'static str, annotations: Option<ToolAnnotations>) -> rhaiway::model::Tool {
    let schema: JsonObject = json!({"type": "object"}).as_object().unwrap().clone();
    let mut tool = rhaiway::model::Tool::new(name, "", Arc::new(schema));
    tool.annotations = annotations;
    tool
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_prompts().enable_completions();
        let capabilities = capabilities.enable_resources().enable_resources_subscribe().enable_logging();
        ServerConfig::new(capabilities.build())
    }

    // The newest revision that has a request for each hook.
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&[ProtocolVersion::V_2025_11_25])
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![
            tool("echo", None),
            tool("wait", None),
            tool("fail", None),
            tool("read", Some(ToolAnnotations::new().read_only(true))),
            tool("again", Some(ToolAnnotations::new().idempotent(true))),
            tool("write", Some(ToolAnnotations::new().read_only(false).idempotent(false))),
        ]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match &*request.name {
            "wait" => {
                let now = self.state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
                self.state.most_under_way.fetch_max(now, Ordering::SeqCst);
                self.state.waiting.add_permits(1);
                self.state.go.acquire().await.unwrap().forget();
                self.state.under_way.fetch_sub(1, Ordering::SeqCst);
            }
            "fail" => return Ok(CallToolResult::error(vec![ContentBlock::text("disk full")]).into()),
            "broken" => return Err(ErrorData::invalid_params("no such thing", None)),
            _ => {}
        }
        Ok(CallToolResult::structured(json!({"tool": request.name, "arguments": request.arguments})).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new("file:///a", "a")]))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(vec![ResourceTemplate::new("file:///{name}", "files")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(ReadResourceResult::new(vec![ResourceContents::text("contents", request.uri)]).into())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(vec![Prompt::new("greet", None::<String>, None)]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, request.name)]).into())
    }

    async fn complete(
        &self,
        request: rhaiway::model::CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let completion = rhaiway::model::CompletionInfo::new(vec![format!("{}nes", request.argument.value)]).unwrap();
        Ok(CompleteResult::new(completion))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }
}

fn arguments(arguments: &Value) -> JsonObject {
    arguments.as_object().unwrap().clone()
}

async fn call(session: &Session, tool: &str) -> Result<ToolAnswer, Error> {
    session.call_tool(tool, JsonObject::new(), CallOptions::default()).await
}

/// What middleware noted.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Middleware of one function, which is asked before each request, and may answer in its place.
struct Before<F>(F);

#[async_trait]
impl<F: Fn(&mut Request) -> Option<Result<Answer, Error>> + Send + Sync + 'static> Middleware for Before<F> {
    async fn on_request(&self, mut request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        match (self.0)(&mut request) {
            Some(answer) => answer,
            None => next.run(request).await,
        }
    }
}

/// Fails so many of the requests of a method, and counts them.
#[derive(Clone)]
struct Failing {
    method: &'static str,
    left: Arc<AtomicUsize>,
    tried: Arc<AtomicUsize>,
    with: Error,
}

impl Failing {
    fn new(method: &'static str, with: Error) -> Self {
        Self { method, left: Arc::default(), tried: Arc::default(), with }
    }

    fn fail(&self, times: usize) {
        self.left.store(times, Ordering::SeqCst);
        self.tried.store(0, Ordering::SeqCst);
    }

    fn tried(&self) -> usize {
        self.tried.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Middleware for Failing {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        if request.method() == self.method {
            self.tried.fetch_add(1, Ordering::SeqCst);
            let less = |left: usize| left.checked_sub(1);
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                return Err(self.with.clone());
            }
        }
        next.run(request).await
    }
}

fn failed(kind: FailureKind) -> Error {
    Error::Request { server: "one".into(), method: "any", kind, message: "made up".into() }
}

fn unconnected() -> Error {
    Error::Connect { server: "one".into(), message: "made up".into(), stderr: Vec::new() }
}

// ---- what hooks see and may do

struct Named(&'static str, Notes);

#[async_trait]
impl Middleware for Named {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        let (name, id) = (self.0, request.id);
        let span = tracing::Span::current().metadata().map_or("no span", |span| span.name());
        self.1.add(format!("{name} general {} in `{span}`", request.method()));
        let answer = next.run(request).await;
        self.1.add(format!("{name} general end"));
        assert!(id < 100);
        answer
    }

    async fn on_ping(&self, request: Request<Ping>, next: Next<'_, Ping>) -> Result<(), Error> {
        self.1.add(format!("{} ping of {}", self.0, request.server));
        let answer = next.run(request).await;
        self.1.add(format!("{} ping end", self.0));
        answer
    }
}

async fn order() -> Result<(), Ignored> {
    let (server, notes) = (Server::default(), Notes::default());
    let (a, b) = (Named("a", notes.clone()), Named("b", notes.clone()));
    let session = server.session(|builder| builder.middleware(a).middleware(b)).await;
    notes.take();
    session.ping().with_subscriber(tracing_subscriber::registry()).await.unwrap();
    assert_eq!(
        notes.take(),
        [
            "a general ping in `request`",
            "a ping of one",
            "b general ping in `request`",
            "b ping of one",
            "b ping end",
            "b general end",
            "a ping end",
            "a general end",
        ]
    );
    Ok(())
}

/// Notes what each of the typed hooks sees of question and answer.
struct Typed(Notes);

#[async_trait]
impl Middleware for Typed {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        let (method, at) = (request.method(), request.at);
        assert!(at <= std::time::SystemTime::now() && request.transport == "pipe");
        let answer = next.run(request).await;
        self.0.add(format!("- {method}"));
        answer
    }

    async fn on_initialize(
        &self,
        request: Request<Initialize>,
        next: Next<'_, Initialize>,
    ) -> Result<Arc<ServerPeerInfo>, Error> {
        let from = request.params.client_info.name.clone();
        let info = next.run(request).await?;
        self.0.add(format!("initialize {from} {}", info.protocol_version));
        Ok(info)
    }

    async fn on_call_tool(&self, request: Request<CallTool>, next: Next<'_, CallTool>) -> Result<ToolAnswer, Error> {
        let ToolCall { name, arguments, options, .. } = request.params.clone();
        let answer = next.run(request).await?;
        let structured = answer.structured().unwrap();
        self.0.add(format!("call {name} {} {:?} {}", json!(arguments), options.timeout, structured["tool"]));
        Ok(answer)
    }

    async fn on_list_tools(&self, request: Request<ListTools>, next: Next<'_, ListTools>) -> Result<ToolPage, Error> {
        let cursor = request.params.cursor.clone();
        let page = next.run(request).await?;
        self.0.add(format!("tools {cursor:?} {} {:?}", page.tools.len(), page.next_cursor));
        Ok(page)
    }

    async fn on_list_resources(
        &self,
        request: Request<ListResources>,
        next: Next<'_, ListResources>,
    ) -> Result<ListResourcesResult, Error> {
        let page = next.run(request).await?;
        self.0.add(format!("resources {}", page.resources[0].uri));
        Ok(page)
    }

    async fn on_list_resource_templates(
        &self,
        request: Request<ListResourceTemplates>,
        next: Next<'_, ListResourceTemplates>,
    ) -> Result<ListResourceTemplatesResult, Error> {
        let page = next.run(request).await?;
        self.0.add(format!("templates {}", page.resource_templates[0].uri_template));
        Ok(page)
    }

    async fn on_read_resource(
        &self,
        request: Request<ReadResource>,
        next: Next<'_, ReadResource>,
    ) -> Result<ReadResourceResult, Error> {
        let uri = request.params.uri.clone();
        let contents = next.run(request).await?;
        self.0.add(format!("read {uri} {}", contents.contents.len()));
        Ok(contents)
    }

    async fn on_subscribe(&self, request: Request<Subscribe>, next: Next<'_, Subscribe>) -> Result<(), Error> {
        self.0.add(format!("subscribe {}", request.params));
        next.run(request).await
    }

    async fn on_unsubscribe(&self, request: Request<Unsubscribe>, next: Next<'_, Unsubscribe>) -> Result<(), Error> {
        self.0.add(format!("unsubscribe {}", request.params));
        next.run(request).await
    }

    async fn on_list_prompts(
        &self,
        request: Request<ListPrompts>,
        next: Next<'_, ListPrompts>,
    ) -> Result<ListPromptsResult, Error> {
        let page = next.run(request).await?;
        self.0.add(format!("prompts {}", page.prompts[0].name));
        Ok(page)
    }

    async fn on_get_prompt(
        &self,
        request: Request<GetPrompt>,
        next: Next<'_, GetPrompt>,
    ) -> Result<GetPromptResult, Error> {
        let name = request.params.name.clone();
        let prompt = next.run(request).await?;
        self.0.add(format!("prompt {name} {}", prompt.messages.len()));
        Ok(prompt)
    }

    async fn on_complete(&self, request: Request<Complete>, next: Next<'_, Complete>) -> Result<CompleteResult, Error> {
        let argument = request.params.argument.name.clone();
        let answer = next.run(request).await?;
        self.0.add(format!("complete {argument} {:?}", answer.completion.values));
        Ok(answer)
    }

    async fn on_set_level(&self, request: Request<SetLevel>, next: Next<'_, SetLevel>) -> Result<(), Error> {
        self.0.add(format!("level {:?}", request.params));
        next.run(request).await
    }

    async fn on_ping(&self, request: Request<Ping>, next: Next<'_, Ping>) -> Result<(), Error> {
        self.0.add("ping");
        next.run(request).await
    }
}

async fn each_kind() -> Result<(), Ignored> {
    let (server, notes) = (Server::default(), Notes::default());
    let session = server.session(|builder| builder.middleware(Typed(notes.clone()))).await;
    assert_eq!(notes.take(), ["initialize rhaiway 2025-11-25", "- initialize", "level Warning", "- logging/setLevel"]);
    let options = CallOptions::default().timeout(Duration::from_secs(9));
    session.call_tool("echo", arguments(&json!({"a": 1})), options).await.unwrap();
    session.list_tools().await.unwrap();
    session.list_resources().await.unwrap();
    session.list_resource_templates().await.unwrap();
    session.read_resource("file:///a").await.unwrap();
    session.subscribe("file:///a").await.unwrap().end().await.unwrap();
    session.list_prompts().await.unwrap();
    session.get_prompt("greet", JsonObject::new()).await.unwrap();
    session.complete(Reference::for_prompt("greet"), "name", "i").await.unwrap();
    session.set_log_level(LoggingLevel::Error).await.unwrap();
    session.ping().await.unwrap();
    assert_eq!(
        notes.take(),
        [
            r#"call echo {"a":1} Some(9s) "echo""#,
            "- tools/call",
            "tools None 6 None",
            "- tools/list",
            "resources file:///a",
            "- resources/list",
            "templates file:///{name}",
            "- resources/templates/list",
            "read file:///a 1",
            "- resources/read",
            "subscribe file:///a",
            "- resources/subscribe",
            "unsubscribe file:///a",
            "- resources/unsubscribe",
            "prompts greet",
            "- prompts/list",
            "prompt greet 1",
            "- prompts/get",
            r#"complete name ["ines"]"#,
            "- completion/complete",
            "level Error",
            "- logging/setLevel",
            "ping",
            "- ping",
        ]
    );
    Ok(())
}

async fn parameters_and_meta() -> Result<(), Ignored> {
    let server = Server::default();
    let change = Before(|request: &mut Request| {
        if let Params::CallTool(call) = &mut request.params {
            call.name = "echo".into();
            call.arguments.insert("added".into(), json!(true));
            request.meta.insert("example.com/why".into(), json!("a test"));
            request.metadata.insert("note".into(), json!("for the next"));
        }
        None
    });
    let notes = Notes::default();
    let read = {
        let notes = notes.clone();
        Before(move |request: &mut Request| {
            notes.add(format!("{} {}", request.method(), json!(request.metadata)));
            None
        })
    };
    let session = server.session(|builder| builder.middleware(change).middleware(read)).await;
    notes.take();
    let answer = session.call_tool("other", arguments(&json!({"a": 1})), CallOptions::default()).await.unwrap();
    assert_eq!(answer.structured().unwrap(), json!({"tool": "echo", "arguments": {"a": 1, "added": true}}));
    assert_eq!(notes.take(), [r#"tools/call {"note":"for the next"}"#]);
    let meta = &server.requests("tools/call")[0]["params"]["_meta"];
    assert_eq!((&meta["example.com/why"], meta.get("note")), (&json!("a test"), None));
    Ok(())
}

/// Has the resource in its cache.
struct Cached;

#[async_trait]
impl Middleware for Cached {
    async fn on_read_resource(
        &self,
        request: Request<ReadResource>,
        _: Next<'_, ReadResource>,
    ) -> Result<ReadResourceResult, Error> {
        Ok(ReadResourceResult::new(vec![ResourceContents::text("from the cache", request.params.uri)]))
    }
}

async fn answering_by_itself() -> Result<(), Ignored> {
    let (server, notes) = (Server::default(), Notes::default());
    let session = server.session(|builder| builder.middleware(Cached).middleware(Named("behind", notes.clone()))).await;
    notes.take();
    let read = serde_json::to_value(session.read_resource("file:///a").await.unwrap()).unwrap();
    assert_eq!(read["contents"][0]["text"], "from the cache");
    assert_eq!(notes.take(), Vec::<String>::new());
    assert_eq!(server.requests("resources/read"), Vec::<Value>::new());
    Ok(())
}

struct Twice;

#[async_trait]
impl Middleware for Twice {
    async fn on_call_tool(&self, request: Request<CallTool>, next: Next<'_, CallTool>) -> Result<ToolAnswer, Error> {
        let mut second = request.clone();
        second.params.arguments.insert("time".into(), json!(2));
        next.run(request).await?;
        next.run(second).await
    }
}

async fn running_next_twice() -> Result<(), Ignored> {
    let (server, ids) = (Server::default(), Notes::default());
    let behind = {
        let ids = ids.clone();
        Before(move |request: &mut Request| {
            ids.add(request.id.to_string());
            None
        })
    };
    let session = server.session(|builder| builder.middleware(Twice).middleware(behind)).await;
    ids.take();
    let answer = call(&session, "echo").await.unwrap();
    assert_eq!(answer.structured().unwrap()["arguments"], json!({"time": 2}));
    let sent = server.requests("tools/call");
    assert_eq!(
        sent.iter().map(|call| &call["params"]["arguments"]).collect::<Vec<_>>(),
        [&json!({}), &json!({"time": 2})]
    );
    let ids = ids.take();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    Ok(())
}

/// Holds pings back until it is told to let them go.
struct Delay(Arc<Semaphore>);

#[async_trait]
impl Middleware for Delay {
    async fn on_ping(&self, request: Request<Ping>, next: Next<'_, Ping>) -> Result<(), Error> {
        self.0.acquire().await.unwrap().forget();
        next.run(request).await
    }
}

/// Runs a future as far as it goes; whether it is over.
async fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    let mut future = future;
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

async fn delaying() -> Result<(), Ignored> {
    let (server, go) = (Server::default(), Arc::new(Semaphore::new(0)));
    let session = server.session(|builder| builder.middleware(Delay(Arc::clone(&go)))).await;
    let mut ping = pin!(session.ping());
    assert!(!poll_once(ping.as_mut()).await);
    call(&session, "echo").await.unwrap();
    assert_eq!(server.requests("ping").len(), 0);
    go.add_permits(1);
    ping.await.unwrap();
    assert_eq!(server.requests("ping").len(), 1);
    Ok(())
}

/// Lets no call of `write` pass, nor any ping.
struct Reject;

#[async_trait]
impl Middleware for Reject {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        match &request.params {
            Params::CallTool(call) if call.name == "write" => Err(request.rejection("writing is not allowed")),
            _ => next.run(request).await,
        }
    }

    async fn on_ping(&self, request: Request<Ping>, _: Next<'_, Ping>) -> Result<(), Error> {
        Err(request.rejection("no pings"))
    }
}

async fn rejecting() -> Result<(), Ignored> {
    let server = Server::default();
    let client = server.client(|builder| builder.middleware(Reject).code_mode(true));
    let script = "let kinds = [];
        for write in [|| one.write(#{}), || parallel([|| one.write(#{})])] {
            try { write.call() } catch (e) { kinds.push([e.kind, e.server, e.tool, e.message]); }
        }
        kinds.push(one.echo(#{}).tool); kinds";
    let rejected = json!(["rejected", "one", "write", "writing is not allowed"]);
    assert_eq!(value(run(&client, script).await), json!([rejected, rejected, "echo"]));
    assert_eq!(server.requests("tools/call").len(), 1);
    let error = run(&client, "one.write(#{})").await.error.unwrap();
    assert_eq!((error.kind.as_str(), &*error.message), ("rejected", "writing is not allowed"));

    let session = server.session(|builder| builder.middleware(Reject)).await;
    let error = call(&session, "write").await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Rejected));
    assert_eq!(error.to_string(), "`one.write` failed: writing is not allowed");
    let error = session.ping().await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Rejected));
    assert_eq!(error.to_string(), "the server `one` failed on `ping`: no pings");
    Ok(())
}

/// What is to become of a handshake.
#[derive(Clone, Copy)]
enum Greeting {
    Renamed,
    Refused,
    Invented,
    Twice,
}

#[async_trait]
impl Middleware for Greeting {
    async fn on_initialize(
        &self,
        mut request: Request<Initialize>,
        next: Next<'_, Initialize>,
    ) -> Result<Arc<ServerPeerInfo>, Error> {
        let info: &mut ClientConfig = &mut request.params;
        match self {
            Self::Renamed => info.client_info.name = "renamed".into(),
            Self::Refused => return Err(request.rejection("not today")),
            Self::Invented => {
                let capabilities = ServerCapabilities::default();
                return Ok(Arc::new(ServerPeerInfo::new(ProtocolVersion::V_2025_11_25, capabilities)));
            }
            Self::Twice => drop(next.run(request.clone()).await?),
        }
        next.run(request).await
    }
}

async fn handshake() -> Result<(), Ignored> {
    let server = Server::default();
    let session = server.session(|builder| builder.middleware(Greeting::Renamed)).await;
    session.ping().await.unwrap();
    assert_eq!(server.requests("initialize")[0]["params"]["clientInfo"]["name"], "renamed");

    for (greeting, message) in [
        (Greeting::Refused, "the server `one` failed on `initialize`: not today"),
        (Greeting::Invented, "can't connect to the server `one`: a middleware answered `initialize` in its place"),
    ] {
        let server = Server::default();
        let client = server.client(|builder| builder.middleware(greeting));
        assert_eq!(client.create_session("one").await.unwrap_err().to_string(), message);
        assert_eq!(server.requests("initialize").len(), 0);
    }
    let client = Server::default().client(|builder| builder.middleware(Greeting::Refused).code_mode(true));
    let script = "try { one.echo(#{}) } catch (e) { return e.kind; }";
    assert_eq!(value(run(&client, script).await), json!("rejected"));

    let server = Server::default();
    let session = server.session(|builder| builder.middleware(Greeting::Twice)).await;
    session.ping().await.unwrap();
    assert_eq!(server.requests("initialize").len(), 2);
    Ok(())
}

async fn adding_later() -> Result<(), Ignored> {
    let (server, notes) = (Server::default(), Notes::default());
    let client = server.client(|builder| builder.middleware(Named("first", notes.clone())));
    let session = client.create_session("one").await.unwrap();
    client.add_middleware(Named("later", notes.clone()));
    notes.take();
    session.ping().await.unwrap();
    let general: Vec<String> = notes.take().into_iter().filter(|note| note.contains("ping of")).collect();
    assert_eq!(general, ["first ping of one", "later ping of one"]);
    Ok(())
}

async fn another_kind() -> Result<(), Ignored> {
    let server = Server::default();
    let wrong = Before(|request: &mut Request| match request.params {
        Params::CallTool(_) => Some(Ok(Answer::Ping(()))),
        // Becomes another request, whose answer is of another kind, too.
        Params::ListPrompts(_) => {
            request.params = Params::Ping(());
            None
        }
        _ => None,
    });
    let client = server.client(|builder| builder.middleware(wrong).code_mode(true));
    let script = "try { one.echo(#{}) } catch (e) { return [e.kind, e.message]; }";
    let message = "the server `one` failed on `tools/call`: a middleware answered with an answer of another kind";
    assert_eq!(value(run(&client, script).await), json!(["rejected", message]));

    let wrong = Before(|request: &mut Request| {
        request.params = Params::Ping(());
        None
    });
    let session = server.session(|builder| builder).await;
    let other = server.client(|builder| builder);
    let prompts = other.create_session("one").await.unwrap();
    other.add_middleware(wrong);
    let error = prompts.list_prompts().await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Rejected));
    prompts.ping().await.unwrap();
    assert_eq!(session.list_prompts().await.unwrap().len(), 1);
    Ok(())
}

/// Panics on its first handshake, and on calls of `write`.
#[derive(Default)]
struct Panics(AtomicUsize);

#[async_trait]
impl Middleware for Panics {
    async fn on_initialize(
        &self,
        request: Request<Initialize>,
        next: Next<'_, Initialize>,
    ) -> Result<Arc<ServerPeerInfo>, Error> {
        let answer = next.run(request).await;
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "no handshakes before breakfast");
        answer
    }

    async fn on_call_tool(&self, request: Request<CallTool>, next: Next<'_, CallTool>) -> Result<ToolAnswer, Error> {
        assert!(request.params.name != "write", "no writing");
        next.run(request).await
    }
}

async fn panicking() -> Result<(), Ignored> {
    let (server, metrics) = (Server::default(), Metrics::default());
    let client =
        server.client(|builder| builder.middleware(metrics.clone()).middleware(Panics::default()).code_mode(true));
    let script = "try { one.echo(#{}) } catch (e) { return [e.kind, e.message]; }";
    let message = "the server `one` failed on `initialize`: a middleware panicked: no handshakes before breakfast";
    assert_eq!(value(run(&client, script).await), json!(["rejected", message]));

    client.close_all_sessions().await;
    let script = "let kinds = [];
        for write in [|| one.write(#{}), || parallel([|| one.echo(#{}), || one.write(#{})])] {
            try { write.call() } catch (e) { kinds.push([e.kind, e.message]); }
        }
        kinds.push(one.echo(#{}).tool); kinds";
    let panicked = json!(["rejected", "the server `one` failed on `tools/call`: a middleware panicked: no writing"]);
    assert_eq!(value(run(&client, script).await), json!([panicked, panicked, "echo"]));
    let calls = &metrics.snapshot()["one"]["tools/call"];
    assert_eq!((calls.in_flight, calls.errors["rejected"]), (0, 2));
    Ok(())
}

/// Signs what it sees.
struct Sign;

#[async_trait]
impl Middleware for Sign {
    async fn on_call_tool(
        &self,
        mut request: Request<CallTool>,
        next: Next<'_, CallTool>,
    ) -> Result<ToolAnswer, Error> {
        request.params.arguments.insert("signed".into(), json!(true));
        if request.params.name == "wait" {
            request.params.options.timeout = Some(Duration::from_millis(1));
        }
        next.run(request).await
    }

    async fn on_list_tools(&self, request: Request<ListTools>, next: Next<'_, ListTools>) -> Result<ToolPage, Error> {
        let mut page = next.run(request).await?;
        page.tools.retain(|tool| tool.name != "write");
        Ok(page)
    }
}

async fn scripts() -> Result<(), Ignored> {
    let server = Server::default();
    let client = server.client(|builder| builder.middleware(Sign).code_mode(true));
    let script = "let kind = ();
        try { one.write(#{}) } catch (e) { kind = e.kind; }
        [one.echo(#{a: 1}).arguments, parallel_map([2], |a| one.echo(#{a: a}).arguments), kind]";
    assert_eq!(
        value(run(&client, script).await),
        json!([{"a": 1, "signed": true}, [{"a": 2, "signed": true}], "unknown_tool"])
    );
    let script = "try { one.wait(#{}) } catch (e) { return [e.kind, e.message]; }";
    let message = "the time limit of the call, 0.001 s, is over";
    assert_eq!(value(run(&client, script).await), json!(["call_timeout", message]));
    Ok(())
}

// ---- tracing

/// Keeps the fields of the spans that are over, and the events in them.
#[derive(Clone, Default)]
struct Spans {
    open: Arc<Mutex<HashMap<u64, Fields>>>,
    closed: Arc<Mutex<Vec<Fields>>>,
}

#[derive(Clone, Default, Debug)]
struct Fields {
    fields: BTreeMap<&'static str, String>,
    events: Vec<String>,
}

impl tracing::field::Visit for Fields {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.fields.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl<S> tracing_subscriber::Layer<S> for Spans
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_new_span(&self, span: &tracing::span::Attributes<'_>, id: &tracing::Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        fields.fields.insert("name", span.metadata().name().into());
        self.open.lock().unwrap().insert(id.into_u64(), fields);
    }

    fn on_record(&self, id: &tracing::Id, values: &tracing::span::Record<'_>, _: Context<'_, S>) {
        if let Some(fields) = self.open.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(span) = context.event_span(event) else { return };
        if let Some(open) = self.open.lock().unwrap().get_mut(&span.id().into_u64()) {
            open.events.extend(fields.fields.get("message").cloned());
        }
    }

    fn on_close(&self, id: tracing::Id, _: Context<'_, S>) {
        let closed = self.open.lock().unwrap().remove(&id.into_u64());
        self.closed.lock().unwrap().extend(closed);
    }
}

impl Spans {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync {
        tracing_subscriber::registry().with(self.clone())
    }

    /// The request of that name, and its events.
    #[track_caller]
    fn request(&self, name: &str) -> (Value, Vec<String>) {
        let closed = self.closed.lock().unwrap();
        let mut found = closed.iter().filter(|span| span.fields.get("otel.name").is_some_and(|other| other == name));
        let (Some(span), None) = (found.next(), found.next()) else { panic!("not one `{name}`: {closed:?}") };
        (json!(span.fields), span.events.clone())
    }
}

async fn spans() -> Result<(), Ignored> {
    let (server, spans) = (Server::default(), Spans::default());
    let ask = async {
        let session = server.session(|builder| builder).await;
        call(&session, "echo").await.unwrap();
        call(&session, "broken").await.unwrap_err();
        call(&session, "fail").await.unwrap();
        session.get_prompt("greet", JsonObject::new()).await.unwrap();
        session.read_resource("file:///a").await.unwrap();
    };
    ask.with_subscriber(spans.subscriber()).await;
    let common = |method: &str, name: &str, more: Value| {
        let mut fields = json!({
            "name": "request", "otel.kind": "client", "otel.name": name, "rpc.system": "jsonrpc", "rpc.service": "one",
            "rpc.method": method, "mcp.method.name": method, "network.transport": "pipe",
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    let (fields, events) = spans.request("tools/call echo");
    assert_eq!(fields, common("tools/call", "tools/call echo", json!({"gen_ai.tool.name": "echo"})));
    assert_eq!(events, ["sent", "answered"]);
    let (fields, events) = spans.request("tools/call broken");
    let failed = json!({"gen_ai.tool.name": "broken", "otel.status_code": "ERROR", "error.type": "protocol"});
    assert_eq!(fields, common("tools/call", "tools/call broken", failed));
    assert_eq!(events, ["sent", "failed"]);
    let (fields, events) = spans.request("tools/call fail");
    let failed = json!({"gen_ai.tool.name": "fail", "otel.status_code": "ERROR", "error.type": "tool_error"});
    assert_eq!(fields, common("tools/call", "tools/call fail", failed));
    assert_eq!(events, ["sent", "answered"]);
    let (fields, _) = spans.request("prompts/get greet");
    assert_eq!(fields, common("prompts/get", "prompts/get greet", json!({"gen_ai.prompt.name": "greet"})));
    let (fields, _) = spans.request("resources/read");
    assert_eq!(fields, common("resources/read", "resources/read", json!({"mcp.resource.uri": "file:///a"})));
    assert_eq!(spans.request("initialize").0, common("initialize", "initialize", json!({})));
    Ok(())
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn trace_context() -> Result<(), Ignored> {
    let server = Server::default();
    let context = || {
        let span = tracing::Span::current().metadata()?.name();
        let mut context = TraceContext::new(PARENT);
        context.tracestate = Some(format!("in={span}"));
        Some(context)
    };
    let notes = Notes::default();
    let behind = {
        let notes = notes.clone();
        Before(move |request: &mut Request| {
            notes.add(json!(request.meta).to_string());
            None
        })
    };
    let session = server.session(|builder| builder.trace_context(context).middleware(behind)).await;
    notes.take();
    call(&session, "echo").with_subscriber(Spans::default().subscriber()).await.unwrap();
    // Where there is no trace, nothing is said of one.
    call(&session, "echo").with_subscriber(tracing::subscriber::NoSubscriber::default()).await.unwrap();
    let seen = json!({"traceparent": PARENT, "tracestate": "in=request"});
    assert_eq!(notes.take(), [seen.to_string(), "{}".into()]);
    let sent = server.requests("tools/call");
    let meta = |index: usize, key: &str| sent[index]["params"]["_meta"].get(key).cloned();
    assert_eq!(meta(0, "traceparent"), Some(json!(PARENT)));
    assert_eq!(meta(0, "tracestate"), Some(json!("in=request")));
    assert_eq!((meta(1, "traceparent"), meta(1, "tracestate")), (None, None));
    Ok(())
}

// ---- the middleware that ships

async fn metrics_counts() -> Result<(), Ignored> {
    let (server, metrics) = (Server::default(), Metrics::default());
    let session = server.session(|builder| builder.middleware(metrics.clone()).middleware(Reject)).await;
    for tool in ["echo", "echo", "fail", "broken", "write"] {
        let _ = call(&session, tool).await;
    }
    {
        let mut waits = pin!(call(&session, "wait"));
        assert!(!poll_once(waits.as_mut()).await);
        assert_eq!(metrics.snapshot()["one"]["tools/call"].in_flight, 1);
    }
    let snapshot = metrics.snapshot();
    let methods: Vec<&str> = snapshot["one"].keys().copied().collect();
    assert_eq!(methods, ["initialize", "logging/setLevel", "tools/call"]);
    let calls = &snapshot["one"]["tools/call"];
    assert_eq!((calls.requests, calls.in_flight, calls.cancelled), (6, 0, 1));
    assert_eq!(json!(calls.errors), json!({"tool": 1, "protocol": 1, "rejected": 1}));
    let durations = calls.durations;
    assert!(Duration::ZERO < durations.p50 && durations.p50 <= durations.p90 && durations.p90 <= durations.p95);
    assert!(durations.p95 <= durations.p99 && durations.p99 <= durations.max && durations.mean <= durations.max);
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["one"]["tools/call"]["requests"], 6);
    assert_eq!(json["one"]["initialize"]["errors"], json!({}));
    assert!(json["one"]["tools/call"]["durations"]["p99"].as_f64().unwrap() > 0.0);
    Ok(())
}

async fn metrics_reset() -> Result<(), Ignored> {
    let (server, metrics) = (Server::default(), Metrics::default());
    let session = server.session(|builder| builder.middleware(metrics.clone())).await;
    call(&session, "fail").await.unwrap();
    let mut waits = pin!(call(&session, "wait"));
    assert!(!poll_once(waits.as_mut()).await);
    metrics.reset();
    let snapshot = metrics.snapshot();
    assert_eq!(snapshot["one"].keys().collect::<Vec<_>>(), [&"tools/call"]);
    let calls = &snapshot["one"]["tools/call"];
    assert_eq!((calls.requests, calls.in_flight, calls.errors.len()), (0, 1, 0));
    assert_eq!(calls.durations, Durations::default());
    server.state.go.add_permits(1);
    waits.await.unwrap();
    let calls = &metrics.snapshot()["one"]["tools/call"];
    assert_eq!((calls.requests, calls.in_flight), (1, 0));
    Ok(())
}

fn quick() -> Retry {
    Retry::new().delays(Duration::from_millis(1), Duration::from_millis(2))
}

async fn retry_cases() -> Result<(), Ignored> {
    use FailureKind::{Connection, Protocol, Rejected, Timeout};
    let ask = async |method: &str, session: &Session| match method {
        "ping" => session.ping().await,
        "resources/read" => session.read_resource("file:///a").await.map(drop),
        "prompts/get" => session.get_prompt("greet", JsonObject::new()).await.map(drop),
        "prompts/list" => session.list_prompts().await.map(drop),
        "resources/list" => session.list_resources().await.map(drop),
        "resources/templates/list" => session.list_resource_templates().await.map(drop),
        "tools/list" => session.list_tools().await.map(drop),
        "completion/complete" => session.complete(Reference::for_prompt("greet"), "name", "i").await.map(drop),
        "logging/setLevel" => session.set_log_level(LoggingLevel::Error).await,
        "resources/subscribe" => session.subscribe("file:///a").await.map(drop),
        "initialize" => session.connect().await,
        _ => call(session, "echo").await.map(drop),
    };
    let closed = Error::NoSession { server: "one".into() };
    let timed_out: Error = Failure::new(Timeout, "one", "echo", "made up").into();
    for (method, error, tries) in [
        ("ping", failed(Connection), 3),
        ("ping", failed(Timeout), 3),
        ("ping", failed(Protocol), 1),
        ("ping", failed(Rejected), 1),
        ("ping", closed, 1),
        ("resources/read", failed(Connection), 3),
        ("prompts/get", failed(Connection), 3),
        ("prompts/list", failed(Connection), 3),
        ("resources/list", failed(Connection), 3),
        ("resources/templates/list", failed(Connection), 3),
        ("tools/list", failed(Connection), 3),
        ("completion/complete", failed(Connection), 3),
        ("logging/setLevel", failed(Connection), 1),
        ("resources/subscribe", failed(Connection), 1),
        ("tools/call", failed(Connection), 1),
        ("tools/call", timed_out.clone(), 1),
    ] {
        let failing = Failing::new(method, error.clone());
        let session =
            Server::default().session(|builder| builder.middleware(quick()).middleware(failing.clone())).await;
        failing.fail(2);
        let outcome = ask(method, &session).await;
        assert_eq!((failing.tried(), outcome.is_ok()), (tries, tries > 1), "{method}: {error}");
    }
    // A tool that the user names, and no other.
    for (tool, server, tries) in [("echo", "one", 3), ("echo", "other", 1), ("read", "one", 1)] {
        let failing = Failing::new("tools/call", timed_out.clone());
        let retry = quick().tool(server, tool);
        let session = Server::default().session(|builder| builder.middleware(retry).middleware(failing.clone())).await;
        failing.fail(2);
        assert_eq!(call(&session, "echo").await.is_ok(), tries > 1, "{server}.{tool}");
        assert_eq!(failing.tried(), tries, "{server}.{tool}");
    }
    // The session alone sees to connecting again.
    let failing = Failing::new("initialize", unconnected());
    let client = Server::default().client(|builder| builder.middleware(quick()).middleware(failing.clone()));
    failing.fail(1);
    client.create_session("one").await.unwrap_err();
    assert_eq!(failing.tried(), 1);
    Ok(())
}

async fn retry_hints() -> Result<(), Ignored> {
    let failing = Failing::new("tools/call", failed(FailureKind::Connection));
    let retry = quick().hinted_tools();
    let session = Server::default().session(|builder| builder.middleware(retry).middleware(failing.clone())).await;
    let tries = async |session: &Session, tool: &str| {
        failing.fail(1);
        let _ = call(session, tool).await;
        failing.tried()
    };
    assert_eq!(tries(&session, "read").await, 1, "nothing is known of it yet");
    session.list_tools().await.unwrap();
    assert_eq!(tries(&session, "read").await, 2);
    assert_eq!(tries(&session, "again").await, 2);
    assert_eq!(tries(&session, "write").await, 1);
    assert_eq!(tries(&session, "echo").await, 1);

    let session = Server::default().session(|builder| builder.middleware(quick()).middleware(failing.clone())).await;
    session.list_tools().await.unwrap();
    assert_eq!(tries(&session, "read").await, 1);
    Ok(())
}

async fn retry_ends() -> Result<(), Ignored> {
    let lasting = Duration::from_hours(1);
    for (retry, error, tries) in [
        (quick(), failed(FailureKind::Connection), 4),
        (quick().tries(2), failed(FailureKind::Connection), 2),
        (quick().tries(0), failed(FailureKind::Connection), 1),
        (quick().total(Duration::ZERO), failed(FailureKind::Connection), 1),
        (Retry::new().delays(lasting, lasting), failed(FailureKind::Connection), 1),
        (Retry::new().delays(Duration::MAX, Duration::MAX), failed(FailureKind::Connection), 1),
        // A session leaves a server alone for a second, before which there is no use in asking again.
        (quick().total(Duration::from_millis(900)), unconnected(), 1),
    ] {
        let failing = Failing::new("ping", error);
        let retries = format!("{retry:?}");
        let session = Server::default().session(|builder| builder.middleware(retry).middleware(failing.clone())).await;
        failing.fail(1000);
        session.ping().await.unwrap_err();
        assert_eq!(failing.tried(), tries, "{retries}");
    }
    Ok(())
}

async fn retry_dying_server() -> Result<(), Ignored> {
    let (metrics, entry) = (Metrics::default(), fake_server::entry("plain"));
    let retry = Retry::new().tries(2).tool("fake", "exit");
    let builder = builder(json!({"fake": entry})).code_mode(false).middleware(retry).middleware(metrics.clone());
    let client = builder.build().unwrap();
    let session = client.create_session("fake").await.unwrap();
    let error = call(&session, "exit").await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Connection));
    assert_eq!(metrics.snapshot()["fake"]["tools/call"].requests, 2);
    // It died twice, so that the session leaves it alone for a while: without `Retry`, this fails.
    session.ping().await.unwrap();
    let snapshot = metrics.snapshot();
    assert_eq!(json!(snapshot["fake"]["ping"].errors), json!({"connection": 1}));
    assert_eq!((snapshot["fake"]["ping"].requests, snapshot["fake"]["initialize"].requests), (2, 3));
    client.close_all_sessions().await;
    Ok(())
}

async fn limit_in_flight() -> Result<(), Ignored> {
    let server = Server::default();
    let session = server.session(|builder| builder.middleware(Limit::new().in_flight(2))).await;
    let calls = join_all(
        (0..9).map(|index| session.call_tool("wait", arguments(&json!({"index": index})), CallOptions::default())),
    );
    let answering = async {
        server.waiting(2).await;
        for _ in 2..9 {
            server.state.go.add_permits(1);
            server.waiting(1).await;
        }
        server.state.go.add_permits(2);
    };
    let (answers, ()) = tokio::join!(calls, answering);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(server.state.most_under_way.load(Ordering::SeqCst), 2);
    let sent = server.requests("tools/call");
    // The first two may come in any order.
    let order: Vec<u64> =
        sent.iter().skip(2).map(|call| call["params"]["arguments"]["index"].as_u64().unwrap()).collect();
    assert_eq!(order, [2, 3, 4, 5, 6, 7, 8]);
    Ok(())
}

async fn limit_dropping() -> Result<(), Ignored> {
    let server = Server::default();
    let limits = |builder: ClientBuilder| builder.middleware(Limit::new().in_flight(1));
    let session = server.session(limits).await;
    let mut last = pin!(call(&session, "echo"));
    {
        let mut first = pin!(call(&session, "wait"));
        assert!(!poll_once(first.as_mut()).await);
        {
            let mut waits = pin!(session.ping());
            assert!(!poll_once(waits.as_mut()).await);
            assert!(!poll_once(last.as_mut()).await);
        }
    }
    last.await.unwrap();
    assert_eq!(server.requests("ping").len(), 0);

    // The same where it waits for its turn in the rate.
    let rate = Limit::new().rate(1, Duration::from_millis(20));
    let session = server.session(|builder| builder.middleware(rate)).await;
    session.ping().await.unwrap();
    {
        let mut waits = pin!(session.ping());
        assert!(!poll_once(waits.as_mut()).await);
    }
    session.ping().await.unwrap();
    assert_eq!(server.requests("ping").len(), 2);
    Ok(())
}

async fn limit_rejects() -> Result<(), Ignored> {
    let server = Server::default();
    let limit = Limit::new().in_flight(1).max_wait(Duration::from_millis(1));
    let session = server.session(|builder| builder.middleware(limit)).await;
    let mut first = pin!(call(&session, "wait"));
    assert!(!poll_once(first.as_mut()).await);
    let error = call(&session, "echo").await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Rejected));
    assert_eq!(
        error.to_string(),
        "`one.echo` failed: the server `one` may have 1 requests in flight (`in_flight`), and the turn of this one did not come within \
         0.001 s"
    );
    server.state.go.add_permits(1);
    first.await.unwrap();
    call(&session, "echo").await.unwrap();

    let rate = || Limit::new().rate(2, Duration::from_hours(2)).burst(2).max_wait(Duration::ZERO);
    let client =
        server.client(|builder| builder.middleware(rate()).in_process_server("two", || Recorder(Server::default())));
    let (one, two) = (client.create_session("one").await.unwrap(), client.create_session("two").await.unwrap());
    for session in [&one, &two] {
        session.ping().await.unwrap();
        session.ping().await.unwrap();
        let error = session.ping().await.unwrap_err();
        assert_eq!(error.kind(), Some(FailureKind::Rejected));
        assert!(
            error.to_string().ends_with(
                "gets at most 2 requests in 7200 s (`rate`), and the turn of this one did not come within 0 s"
            ),
            "{error}"
        );
    }
    let others = rate().servers(["two"]);
    let session = server.session(|builder| builder.middleware(others)).await;
    for _ in 0..5 {
        session.ping().await.unwrap();
    }
    Ok(())
}

async fn limit_rate() -> Result<(), Ignored> {
    let server = Server::default();
    let period = Duration::from_millis(20);
    let limit = Limit::new().rate(1, period).burst(2);
    let session = server.session(|builder| builder.middleware(limit)).await;
    let began = Instant::now();
    let names = ["a", "b", "c", "d", "e"];
    let answers = join_all(names.iter().map(|name| session.get_prompt(name, JsonObject::new()))).await;
    // Two come at once, and the others one by one.
    assert!(began.elapsed() >= 3 * period, "{:?}", began.elapsed());
    assert!(answers.iter().all(Result::is_ok));
    let sent = server.requests("prompts/get");
    let order: Vec<&str> = sent.iter().skip(2).map(|request| request["params"]["name"].as_str().unwrap()).collect();
    assert_eq!(order, names[2..]);
    Ok(())
}

async fn limit_connecting() -> Result<(), Ignored> {
    let entry = fake_server::entry("plain");
    let limit = Limit::new().in_flight(1).rate(1, Duration::from_millis(1));
    let client = builder(json!({"fake": entry})).code_mode(false).middleware(limit).build().unwrap();
    let session = client.create_session("fake").await.unwrap();
    call(&session, "exit").await.unwrap_err();
    // Has the only place, and shakes hands before it is sent.
    session.ping().await.unwrap();
    client.close_all_sessions().await;

    let server = Server::default();
    let session = server.session(|builder| builder.middleware(Limit::new().in_flight(1))).await;
    let mut only = pin!(call(&session, "wait"));
    assert!(!poll_once(only.as_mut()).await);
    // Is a part of connecting, too.
    session.set_log_level(LoggingLevel::Error).await.unwrap();
    server.state.go.add_permits(1);
    only.await.unwrap();
    Ok(())
}
