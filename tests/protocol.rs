//! What a session does beside calling tools, in both of the protocol's lifecycles: callbacks, progress, logs, subscriptions, input that
//! a server wants in between, tasks, connecting in steps and again. The server runs in this process, and is rmcp's.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::model::*;
use rhaiway::{CallOptions, Client, ClientBuilder, Config, Error, ExecuteOptions, FailureKind, ServerMessage};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::fake_server;
use crate::support::{Ignored, builder, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("protocol::the_newest_common_revision_is_spoken", newest_revision),
        test("protocol::a_server_silent_about_discovery_is_initialised", silent_about_discovery),
        test("protocol::a_server_that_is_discovered_late_is_not_initialised", late_to_be_discovered),
        test("protocol::an_entry_can_ask_for_a_revision", asked_revision),
        test("protocol::sampling_elicitation_and_roots_answer", callbacks_answer),
        test("protocol::elicitation_can_ask_to_open_an_address", visits),
        test("protocol::a_callback_that_fails_or_panics_is_a_protocol_error", failing_callbacks),
        test("protocol::without_callbacks_servers_are_told_so", no_callbacks),
        test("protocol::input_that_a_server_wants_in_between_is_given", input_required),
        test("protocol::a_call_that_waits_for_input_has_its_time_limit", input_without_end),
        test("protocol::a_server_that_always_wants_more_input_is_given_up", endless_input),
        test("protocol::a_task_is_asked_after_until_it_is_over", tasks),
        test("protocol::a_task_that_nobody_waits_for_is_cancelled", abandoned_task),
        test("protocol::progress_reaches_the_caller_and_the_log", progress),
        test("protocol::what_a_server_logs_reaches_the_callback_and_the_run", server_logs),
        test("protocol::messages_come_in_order", messages_in_order),
        test("protocol::changed_roots_are_told", roots_change),
        test("protocol::subscriptions_tell_of_updates", subscriptions),
        test("protocol::changed_tools_are_listed_again", changed_tools),
        test("protocol::resources_prompts_and_completion", everything_else),
        test("protocol::a_session_can_be_initialised_later", initialised_later),
        test("protocol::closing_does_not_wait_for_a_handshake", closed_while_connecting),
        test("protocol::closing_ends_all_who_wait_for_a_connection", closed_while_waiting),
        test("protocol::a_server_that_died_is_started_by_the_next_use", reconnects),
        test("protocol::a_server_that_dies_again_and_again_is_left_alone", backs_off),
        test("protocol::a_server_without_answer_to_pings_is_left", keep_alive),
    ]
}

/// A value of the protocol as it is on the wire.
fn wire<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn text(text: &str) -> CallToolResponse {
    wire::<CallToolResult>(json!({"content": [{"type": "text", "text": text}]})).into()
}

/// What the test does to the server and hears of it.
#[derive(Default)]
struct Server {
    /// None speaks the newest revision.
    newest: Option<ProtocolVersion>,
    connections: AtomicUsize,
    tools: AtomicUsize,
    cancelled: Notify,
    roots_changed: Notify,
    /// The tools changed, and who listens was told.
    changed: Notify,
    told: Notify,
    subscribed: Mutex<Vec<String>>,
    meta: Mutex<Vec<Value>>,
    polls: AtomicUsize,
    level: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Handler(Arc<Server>);

impl Handler {
    fn speaks(newest: Option<ProtocolVersion>) -> Self {
        Self(Arc::new(Server { newest, ..Server::default() }))
    }
}

fn elicitation() -> Value {
    json!({"method": "elicitation/create", "params": {
        "mode": "form", "message": "Name?", "requestedSchema": {"type": "object", "properties": {
            "name": {"type": "string", "default": "Ada"}, "age": {"type": "integer", "default": 36}}}}})
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::default();
        info.capabilities = wire(json!({
            "tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true}, "prompts": {},
            "completions": {}, "logging": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}));
        info.instructions = Some("Ask nicely.".into());
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match &self.0.newest {
            Some(newest) => Cow::Owned(ProtocolVersion::known_up_to(newest).to_vec()),
            None => Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS),
        }
    }

    async fn on_initialized(&self, _: rmcp::service::NotificationContext<RoleServer>) {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
    }

    async fn on_roots_list_changed(&self, _: rmcp::service::NotificationContext<RoleServer>) {
        self.0.roots_changed.notify_one();
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.0.level.lock().unwrap().push(serde_json::to_value(request.level).unwrap().as_str().unwrap().into());
        Ok(())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // Two pages, and one tool more after each change.
        let names: Vec<String> = match request.and_then(|request| request.cursor) {
            None => ["sample", "elicit", "roots", "fail", "input", "endless", "task"].map(String::from).to_vec(),
            Some(_) => ["progress", "log", "change", "update"]
                .map(String::from)
                .into_iter()
                .chain((0..self.0.tools.load(Ordering::SeqCst)).map(|number| format!("new_{number}")))
                .collect(),
        };
        let next = names.contains(&"sample".to_string()).then_some("2");
        let tools: Vec<Value> =
            names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
        let mut page = json!({"tools": tools});
        if let Some(next) = next {
            page["nextCursor"] = next.into();
        }
        Ok(wire(page))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let peer = &context.peer;
        let refused = |error: rmcp::ServiceError| text(&format!("refused: {error}"));
        self.0.meta.lock().unwrap().push(serde_json::to_value(&context.meta).unwrap());
        Ok(match &*request.name {
            "sample" => {
                let params =
                    json!({"messages": [{"role": "user", "content": {"type": "text", "text": "2+2"}}], "maxTokens": 9});
                match peer.create_message(wire(params)).await {
                    Ok(answer) => text(&serde_json::to_string(&answer).unwrap()),
                    Err(error) => refused(error),
                }
            }
            "elicit" => match peer.create_elicitation(wire(elicitation()["params"].clone())).await {
                Ok(answer) => text(&serde_json::to_string(&answer).unwrap()),
                Err(error) => refused(error),
            },
            "visit" => {
                let params =
                    json!({"mode": "url", "message": "Pay", "url": "https://pay.test/1", "elicitationId": "e1"});
                match peer.create_elicitation(wire(params)).await {
                    Ok(answer) => text(&serde_json::to_string(&answer).unwrap()),
                    Err(error) => refused(error),
                }
            }
            "roots" => match peer.list_roots().await {
                Ok(answer) => text(&serde_json::to_string(&answer).unwrap()),
                Err(error) => refused(error),
            },
            "input" => match (request.input_responses, request.request_state.as_deref()) {
                (None, None) => CallToolResponse::InputRequired(wire(json!({
                    "resultType": "input_required", "inputRequests": {"who": elicitation()}, "requestState": "1"}))),
                (Some(responses), Some("1")) => CallToolResponse::InputRequired(wire(json!({
                    "resultType": "input_required", "requestState": responses["who"]["content"]["name"]}))),
                (None, Some(state)) => text(&format!("hello {state}")),
                other => text(&format!("{other:?}")),
            },
            "endless" => CallToolResponse::InputRequired(wire(json!({
                "resultType": "input_required", "requestState": "again"}))),
            "task" => CallToolResponse::Task(CreateTaskResult::new(wire(task("working")))),
            "progress" => {
                let token = context.meta.get_progress_token().unwrap();
                for step in [1.0, 2.0] {
                    let params = json!({"progressToken": token, "progress": step, "total": 2, "message": format!("step {step}")});
                    peer.notify_progress(wire(params)).await.unwrap();
                }
                text("done")
            }
            "log" => {
                for level in ["debug", "warning", "error"] {
                    let params = json!({"level": level, "logger": "db", "data": {"said": level}});
                    peer.notify_logging_message(wire(params)).await.unwrap();
                }
                text("logged")
            }
            "change" => {
                self.0.tools.fetch_add(1, Ordering::SeqCst);
                peer.notify_tool_list_changed().await.unwrap();
                text("changed")
            }
            "update" => {
                let uri = "memo://1".to_string();
                peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await.unwrap();
                text("updated")
            }
            name => text(&format!("called {name}")),
        })
    }

    async fn get_task(&self, _: GetTaskParams, _: RequestContext<RoleServer>) -> Result<GetTaskResult, ErrorData> {
        let mut state = match self.0.polls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let mut state = task("input_required");
                state["inputRequests"] = json!({"who": elicitation()});
                state
            }
            1 => task("working"),
            _ => {
                let mut state = task("completed");
                state["result"] = json!({"content": [{"type": "text", "text": "18446744073709551617"}]});
                state
            }
        };
        state["resultType"] = "complete".into();
        Ok(wire(state))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.0.meta.lock().unwrap().push(serde_json::to_value(request.input_responses).unwrap());
        Ok(())
    }

    async fn cancel_task(&self, _: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.0.cancelled.notify_one();
        Ok(())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(wire(json!({"resources": [{"uri": "memo://1", "name": "memo"}]})))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(wire(json!({"resourceTemplates": [{"uriTemplate": "memo://{id}", "name": "memos"}]})))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let result: ReadResourceResult = wire(json!({"contents": [{"uri": request.uri, "text": "milk"}]}));
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(wire(json!({"prompts": [{"name": "greet", "arguments": [{"name": "name"}]}]})))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let name = request.arguments.unwrap_or_default()["name"].clone();
        let text = format!("Hello {}", name.as_str().unwrap());
        let result: GetPromptResult =
            wire(json!({"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}));
        Ok(result.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Ok(wire(json!({"completion": {"values": [format!("{}da", request.argument.value)]}})))
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.0.subscribed.lock().unwrap().push(format!("+{}", request.uri));
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.0.subscribed.lock().unwrap().push(format!("-{}", request.uri));
        self.0.cancelled.notify_one();
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: rmcp::service::SubscriptionContext) -> Result<(), ErrorData> {
        let sink = context.sink().clone();
        let uris = context.accepted().resource_subscriptions.clone().unwrap_or_default();
        for uri in uris {
            let _ = sink.notify_resource_updated(uri).await;
        }
        if context.accepted().tools_list_changed == Some(true) {
            self.0.changed.notified().await;
            let _ = sink.notify_tool_list_changed().await;
            self.0.told.notify_one();
        }
        context.cancelled().await;
        self.0.cancelled.notify_one();
        Ok(())
    }
}

fn task(status: &str) -> Value {
    json!({"taskId": "t1", "status": status, "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z",
        "ttlMs": null, "pollIntervalMs": 20, "resultType": "task"})
}

const LEGACY: Option<ProtocolVersion> = Some(ProtocolVersion::V_2025_11_25);

/// A client with this server as `it`.
fn with(server: &Handler) -> ClientBuilder {
    let server = server.clone();
    builder(json!({})).in_process_server("it", move || server.clone())
}

async fn call(client: &Client, tool: &str) -> Result<Value, Error> {
    let session = client.create_session("it").await?;
    let answer = session.call_tool(tool, serde_json::Map::new(), CallOptions::default()).await?;
    let text = answer.content()[0]["text"].as_str().unwrap().to_string();
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn newest_revision() -> Result<(), Ignored> {
    for (speaks, spoken) in
        [(None, "2026-07-28"), (LEGACY, "2025-11-25"), (Some(ProtocolVersion::V_2025_03_26), "2025-03-26")]
    {
        let client = with(&Handler::speaks(speaks)).build().unwrap();
        let session = client.create_session("it").await.unwrap();
        assert_eq!(session.server_info().unwrap().protocol_version.as_str(), spoken);
        assert_eq!(session.instructions().as_deref(), Some("Ask nicely."));
        assert_eq!(call(&client, "anything").await.unwrap(), "called anything");
        session.ping().await.unwrap();
    }
    Ok(())
}

async fn silent_about_discovery() -> Result<(), Ignored> {
    let servers = json!({
        "ignores": fake_server::entry("ignores-the-unknown"), "late": fake_server::entry("starts-late")
    });
    let sessions = builder(servers).code_mode(false).build().unwrap().create_all_sessions().await;
    assert!(sessions.failed.is_empty(), "{:?}", sessions.failed);
    for session in sessions.open.values() {
        let server = session.server_info().unwrap();
        assert_eq!(server.protocol_version.as_str(), "2025-11-25");
        let calls = session.call_tool("calls", serde_json::Map::new(), CallOptions::default()).await.unwrap();
        assert_eq!(calls.structured().unwrap(), json!({"count": 1}));
    }
    Ok(())
}

async fn late_to_be_discovered() -> Result<(), Ignored> {
    let client = builder(json!({"new": fake_server::entry("starts-late-and-new")})).build().unwrap();
    let session = client.create_session("new").await.unwrap();
    assert_eq!(session.server_info().unwrap().protocol_version.as_str(), "2026-07-28");
    client.close_all_sessions().await;
    Ok(())
}

async fn asked_revision() -> Result<(), Ignored> {
    let entry = |version: &str| {
        let mut entry = crate::support::demo();
        entry["protocol_version"] = version.into();
        json!({"it": entry})
    };
    for version in ["2024-11-05", "2025-11-25", "2026-07-28"] {
        let client = builder(entry(version)).build().unwrap();
        let session = client.create_session("it").await.unwrap();
        assert_eq!(session.server_info().unwrap().protocol_version.as_str(), version);
    }
    let config = Config::from_value(json!({"mcpServers": entry("2020-01-01")})).unwrap();
    let problem = config.problems().remove(0).to_string();
    assert!(
        problem.starts_with("in the configuration, mcpServers.it.protocol_version: expected one of `2024-11-05`, "),
        "{problem}"
    );
    Ok(())
}

fn answering(builder: ClientBuilder) -> ClientBuilder {
    builder
        .on_sampling(|request, from| async move {
            let said = format!("{} messages from {}", request.messages.len(), from.server);
            let answer = json!({"model": "test", "role": "assistant", "content": {"type": "text", "text": said}});
            Ok::<CreateMessageResult, Error>(wire(answer))
        })
        .on_elicitation(|_, _| async {
            Ok::<ElicitResult, Error>(wire(json!({"action": "accept", "content": {"age": 7}})))
        })
        .roots([wire::<Root>(json!({"uri": "file:///work"}))])
}

async fn callbacks_answer() -> Result<(), Ignored> {
    let client = answering(with(&Handler::speaks(LEGACY))).build().unwrap();
    let sampled = call(&client, "sample").await.unwrap();
    assert_eq!(sampled["content"]["text"], "1 messages from it", "{sampled}");
    // What the user left out has the form's default.
    assert_eq!(
        call(&client, "elicit").await.unwrap(),
        json!({"action": "accept", "content": {"age": 7, "name": "Ada"}})
    );
    assert_eq!(call(&client, "roots").await.unwrap(), json!({"roots": [{"uri": "file:///work"}]}));
    // The callback goes before the list.
    let roots = |_| async { Ok::<_, Error>(vec![wire::<Root>(json!({"uri": "file:///dynamic"}))]) };
    let client = answering(with(&Handler::speaks(LEGACY))).on_list_roots(roots).build().unwrap();
    assert_eq!(call(&client, "roots").await.unwrap(), json!({"roots": [{"uri": "file:///dynamic"}]}));
    Ok(())
}

fn panics() -> ElicitResult {
    panic!("of all things")
}

async fn visits() -> Result<(), Ignored> {
    let (send, mut asked) = mpsc::unbounded_channel();
    let client = with(&Handler::speaks(LEGACY))
        .on_elicitation(move |request, from| {
            send.send(json!([serde_json::to_value(request).unwrap(), &*from.server])).unwrap();
            async { Ok::<_, Error>(ElicitResult::new(ElicitationAction::Accept)) }
        })
        .build()
        .unwrap();
    assert_eq!(call(&client, "visit").await.unwrap(), json!({"action": "accept"}));
    let asked = asked.recv().await.unwrap();
    assert_eq!((&asked[0]["url"], &asked[1]), (&json!("https://pay.test/1"), &json!("it")), "{asked}");
    Ok(())
}

async fn failing_callbacks() -> Result<(), Ignored> {
    let client = with(&Handler::speaks(LEGACY))
        .on_sampling(|_, _| async { Err::<CreateMessageResult, _>("no model today") })
        .on_elicitation(|_, _| async { Ok::<_, Error>(panics()) })
        .on_list_roots(|_| async { Err::<Vec<Root>, _>(ErrorData::new(ErrorCode(-32123), "mine", None)) })
        .on_message(|_, _| async { panic!("not again") })
        .build()
        .unwrap();
    let sampled = call(&client, "sample").await.unwrap();
    assert!(sampled.as_str().unwrap().contains("no model today"), "{sampled}");
    let elicited = call(&client, "elicit").await.unwrap();
    assert!(elicited.as_str().unwrap().contains("the callback panicked: of all things"), "{elicited}");
    let roots = call(&client, "roots").await.unwrap();
    assert!(roots.as_str().unwrap().contains("-32123") && roots.as_str().unwrap().contains("mine"), "{roots}");
    assert_eq!(call(&client, "anything").await.unwrap(), "called anything");
    Ok(())
}

async fn no_callbacks() -> Result<(), Ignored> {
    let client = with(&Handler::speaks(LEGACY)).build().unwrap();
    for tool in ["sample", "elicit", "roots"] {
        let answer = call(&client, tool).await.unwrap();
        assert!(answer.as_str().unwrap().starts_with("refused: "), "{tool}: {answer}");
    }
    let client = with(&Handler::speaks(None)).build().unwrap();
    let error = call(&client, "input").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "`it.input` failed: the server needs input that this client does not give: this client has no callback for elicitation"
    );
    Ok(())
}

async fn input_required() -> Result<(), Ignored> {
    let client = answering(with(&Handler::speaks(None))).build().unwrap();
    assert_eq!(call(&client, "input").await.unwrap(), "hello Ada");
    assert_eq!(value(run(&client, "it.input()").await), json!("hello Ada"));
    Ok(())
}

async fn input_without_end() -> Result<(), Ignored> {
    let never = |_, _| std::future::pending::<Result<ElicitResult, Error>>();
    let client = with(&Handler::speaks(None)).on_elicitation(never).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    for tool in ["input", "task"] {
        let options = CallOptions::default().timeout(Duration::from_millis(200));
        let error = session.call_tool(tool, serde_json::Map::new(), options).await.unwrap_err();
        assert_eq!(error.kind(), Some(FailureKind::Timeout), "{error}");
    }
    Ok(())
}

async fn endless_input() -> Result<(), Ignored> {
    let client = with(&Handler::speaks(None)).build().unwrap();
    let error = call(&client, "endless").await.unwrap_err();
    assert_eq!(error.to_string(), "`it.endless` failed: it asked for more input 10 times");
    assert_eq!(error.kind(), Some(FailureKind::Protocol));
    Ok(())
}

async fn tasks() -> Result<(), Ignored> {
    let server = Handler::speaks(None);
    let client = answering(with(&server)).build().unwrap();
    // Digits beyond 64 bits show that the text of the result is used.
    assert_eq!(value(run(&client, "it.task().to_string()").await), json!("18446744073709551617"));
    assert_eq!(server.0.polls.load(Ordering::SeqCst), 3);
    let updates = server.0.meta.lock().unwrap().clone();
    assert_eq!(updates.last().unwrap()["who"]["content"]["name"], "Ada", "{updates:?}");
    Ok(())
}

async fn abandoned_task() -> Result<(), Ignored> {
    let server = Handler::speaks(None);
    // Far from the end of the task.
    server.0.polls.store(usize::MAX / 2, Ordering::SeqCst);
    let client = with(&server).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    let options = CallOptions::default().timeout(Duration::from_millis(1));
    let error = session.call_tool("task", serde_json::Map::new(), options).await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Timeout), "{error}");
    let waiting = session.call_tool("task", serde_json::Map::new(), CallOptions::default());
    // Given up before the first poll.
    assert!(tokio::time::timeout(Duration::from_millis(5), waiting).await.is_err());
    server.0.cancelled.notified().await;
    Ok(())
}

async fn progress() -> Result<(), Ignored> {
    for speaks in [None, LEGACY] {
        let client = with(&Handler::speaks(speaks)).build().unwrap();
        let session = client.create_session("it").await.unwrap();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&heard);
        let options = CallOptions::default().on_progress(move |progress| {
            hear.lock().unwrap().push(format!("{} of {:?}: {:?}", progress.progress, progress.total, progress.message));
        });
        session.call_tool("progress", serde_json::Map::new(), options).await.unwrap();
        let expected = ["1 of Some(2.0): Some(\"step 1\")", "2 of Some(2.0): Some(\"step 2\")"];
        assert_eq!(*heard.lock().unwrap(), expected);

        let options = ExecuteOptions::default().log_progress(true);
        let execution = client.execute_code("it.progress()", options).await.unwrap();
        assert_eq!(
            execution.logs,
            ["[it] progress of progress: 1 of 2, step 1", "[it] progress of progress: 2 of 2, step 2"]
        );
        assert!(run(&client, "it.progress()").await.logs.is_empty());
        // One that panics costs nobody anything.
        let options = CallOptions::default().on_progress(|_| panic!("oh"));
        session.call_tool("progress", serde_json::Map::new(), options).await.unwrap();
    }
    Ok(())
}

async fn server_logs() -> Result<(), Ignored> {
    let server = Handler::speaks(LEGACY);
    let (send, mut heard) = mpsc::unbounded_channel();
    let client = with(&server)
        .on_logging(move |message, from| {
            let send = send.clone();
            async move {
                let level = serde_json::to_value(message.level).unwrap();
                send.send(format!("{} {level} {}", from.server, message.data)).unwrap();
            }
        })
        .build()
        .unwrap();
    let run = async |code: &str| client.execute_code(code, ExecuteOptions::default().server_logs(true)).await.unwrap();
    let execution = run("print(\"before\"); it.log(); print(\"after\")").await;
    // Below the level that was asked for, nothing is let through.
    assert_eq!(
        execution.logs,
        ["before", "[it] warning db: {\"said\":\"warning\"}", "[it] error db: {\"said\":\"error\"}", "after"]
    );
    assert_eq!(heard.recv().await.unwrap(), "it \"warning\" {\"said\":\"warning\"}");
    assert_eq!(heard.recv().await.unwrap(), "it \"error\" {\"said\":\"error\"}");
    // Said to several calls of one run, it is written once.
    let execution = run("parallel([|| it.log(), || it.update()])").await;
    let warnings = execution.logs.iter().filter(|line| line.contains("warning")).count();
    assert_eq!(warnings, 1, "{execution:?}");
    for _ in 0..2 {
        heard.recv().await.unwrap();
    }
    // The level was set when the session was connected.
    assert_eq!(*server.0.level.lock().unwrap(), ["warning"]);
    let session = client.create_session("it").await.unwrap();
    session.set_log_level(LoggingLevel::Error).await.unwrap();
    assert_eq!(*server.0.level.lock().unwrap(), ["warning", "error"]);
    assert_eq!(run("it.log()").await.logs, ["[it] error db: {\"said\":\"error\"}"]);
    // Without being asked for, a script's log has none of it.
    let execution = client.execute_code("it.log()", ExecuteOptions::default()).await.unwrap();
    assert!(execution.error.is_none() && execution.logs.is_empty(), "{execution:?}");

    // Where the level goes with each request.
    let server = Handler::speaks(None);
    let client = with(&server).log_level(LoggingLevel::Info).build().unwrap();
    call(&client, "anything").await.unwrap();
    let meta = server.0.meta.lock().unwrap().pop().unwrap();
    assert_eq!(meta["io.modelcontextprotocol/logLevel"], "info", "{meta}");
    Ok(())
}

async fn messages_in_order() -> Result<(), Ignored> {
    let (send, mut heard) = mpsc::unbounded_channel();
    let client = answering(with(&Handler::speaks(LEGACY)))
        .on_message(move |message, from| {
            let send = send.clone();
            async move {
                let said = match message {
                    ServerMessage::Notification(ServerNotification::ProgressNotification(progress)) => {
                        format!("progress {}", progress.params.progress)
                    }
                    ServerMessage::Notification(ServerNotification::ToolListChangedNotification(_)) => "changed".into(),
                    ServerMessage::Request(ServerRequest::CreateMessageRequest(_)) => "sampling".into(),
                    other => format!("{other:?}"),
                };
                send.send(format!("{}: {said}", from.server)).unwrap();
            }
        })
        .build()
        .unwrap();
    for tool in ["progress", "change", "sample"] {
        call(&client, tool).await.unwrap();
    }
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(heard.recv().await.unwrap());
    }
    // A request is told of when it comes, notifications as the callback takes them.
    all.sort_by_key(|said| said.ends_with("sampling"));
    assert_eq!(all, ["it: progress 1", "it: progress 2", "it: changed", "it: sampling"]);
    Ok(())
}

async fn roots_change() -> Result<(), Ignored> {
    let server = Handler::speaks(LEGACY);
    let client = answering(with(&server)).build().unwrap();
    assert_eq!(call(&client, "roots").await.unwrap()["roots"][0]["uri"], "file:///work");
    assert!(client.set_roots([wire::<Root>(json!({"uri": "file:///other"}))]).await);
    server.0.roots_changed.notified().await;
    assert_eq!(call(&client, "roots").await.unwrap()["roots"][0]["uri"], "file:///other");
    assert!(!with(&server).build().unwrap().set_roots([]).await, "servers were not told that there are roots");
    Ok(())
}

async fn subscriptions() -> Result<(), Ignored> {
    let server = Handler::speaks(LEGACY);
    let client = with(&server).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    let mut subscription = session.subscribe("memo://1").await.unwrap();
    call(&client, "update").await.unwrap();
    assert_eq!(subscription.next().await, Some(()));
    subscription.end().await.unwrap();
    assert_eq!(*server.0.subscribed.lock().unwrap(), ["+memo://1", "-memo://1"]);
    server.0.cancelled.notified().await;
    // Dropped, it ends too.
    drop(session.subscribe("memo://2").await.unwrap());
    server.0.cancelled.notified().await;
    assert_eq!(server.0.subscribed.lock().unwrap().last().unwrap(), "-memo://2");
    // Of two to one resource, the server knows one, and the other goes on.
    server.0.subscribed.lock().unwrap().clear();
    let (one, mut other) = (session.subscribe("memo://1").await.unwrap(), session.subscribe("memo://1").await.unwrap());
    one.end().await.unwrap();
    call(&client, "update").await.unwrap();
    assert_eq!(other.next().await, Some(()));
    assert_eq!(*server.0.subscribed.lock().unwrap(), ["+memo://1"]);
    other.end().await.unwrap();
    // With the connection, it is over.
    let mut subscription = session.subscribe("memo://1").await.unwrap();
    session.close().await;
    assert_eq!(subscription.next().await, None);

    // Over `subscriptions/listen`; this server tells of an update at once.
    let server = Handler::speaks(None);
    let client = with(&server).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    let mut subscription = session.subscribe("memo://1").await.unwrap();
    assert_eq!(subscription.next().await, Some(()));
    subscription.end().await.unwrap();
    server.0.cancelled.notified().await;
    Ok(())
}

async fn changed_tools() -> Result<(), Ignored> {
    let server = Handler::speaks(LEGACY);
    let client = with(&server).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 11);
    assert_eq!(value(run(&client, "it.change(); it.new_0()").await), json!("called new_0"));
    assert_eq!(session.list_tools().await.unwrap().len(), 12);

    // Over `subscriptions/listen`. What the server says then comes before its answer to a ping.
    let server = Handler::speaks(None);
    let client = with(&server).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 11);
    server.0.tools.fetch_add(1, Ordering::SeqCst);
    server.0.changed.notify_one();
    server.0.told.notified().await;
    session.ping().await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 12);
    Ok(())
}

async fn everything_else() -> Result<(), Ignored> {
    for speaks in [None, LEGACY] {
        let client = with(&Handler::speaks(speaks)).build().unwrap();
        let session = client.create_session("it").await.unwrap();
        assert_eq!(session.list_resources().await.unwrap()[0].uri, "memo://1");
        assert_eq!(session.list_resource_templates().await.unwrap()[0].uri_template, "memo://{id}");
        let read = serde_json::to_value(session.read_resource("memo://7").await.unwrap()).unwrap();
        assert_eq!(read["contents"][0]["text"], "milk");
        assert_eq!(session.list_prompts().await.unwrap()[0].name, "greet");
        let arguments = json!({"name": "Ada"}).as_object().unwrap().clone();
        let prompt = serde_json::to_value(session.get_prompt("greet", arguments).await.unwrap()).unwrap();
        assert_eq!(prompt["messages"][0]["content"]["text"], "Hello Ada");
        let of = wire::<Reference>(json!({"type": "ref/prompt", "name": "greet"}));
        assert_eq!(session.complete(of, "name", "A").await.unwrap().values, ["Ada"]);
    }
    // A server without any of it is not asked.
    let client = builder(json!({"demo": crate::support::demo()})).build().unwrap();
    let session = client.create_session("demo").await.unwrap();
    assert!(session.list_prompts().await.unwrap().is_empty());
    Ok(())
}

async fn initialised_later() -> Result<(), Ignored> {
    let client = builder(json!({"demo": crate::support::demo()})).build().unwrap();
    let session = client.open_session("demo").await.unwrap();
    assert!(!session.is_connected());
    assert!(session.server_info().is_none());
    let error = session.list_tools().await.unwrap_err().to_string();
    assert_eq!(error, "can't connect to the server `demo`: it is not initialised yet: call `initialize` first");
    session.initialize().await.unwrap();
    assert!(session.is_connected());
    assert!(!session.list_tools().await.unwrap().is_empty());
    // Opened and never initialised, it ends all the same.
    session.close().await;
    let session = client.open_session("demo").await.unwrap();
    client.close_session("demo").await;
    assert!(matches!(session.ping().await, Err(Error::NoSession { .. })));
    Ok(())
}

async fn closed_while_connecting() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("silent");
    entry["connect_timeout"] = json!(200);
    let client = builder(json!({"it": entry})).build().unwrap();
    let connect = async {
        let error = client.create_session("it").await.unwrap_err().to_string();
        assert_eq!(error, "can't connect to the server `it`: it was closed while it was being connected");
    };
    let close = async {
        // Once the attempt is under way; the bound of the test is the rest of the assertion.
        tokio::task::yield_now().await;
        client.close_all_sessions().await;
    };
    tokio::join!(connect, close);
    Ok(())
}

async fn closed_while_waiting() -> Result<(), Ignored> {
    let mark = crate::processes::Mark::new("waiting");
    let mut entry = mark.on(fake_server::entry("silent"));
    entry["connect_timeout"] = json!(200);
    let client = builder(json!({"it": entry})).build().unwrap();
    let session = client.open_session("it").await.unwrap();
    let connect = async || {
        let error = session.connect().await.unwrap_err().to_string();
        assert!(error.ends_with("it was closed while it was being connected"), "{error}");
    };
    let close = async {
        tokio::task::yield_now().await;
        client.close_all_sessions().await;
    };
    tokio::join!(connect(), connect(), connect(), close);
    assert!(mark.alive().is_empty());
    Ok(())
}

async fn reconnects() -> Result<(), Ignored> {
    let client = builder(json!({"it": fake_server::entry("ordinary")})).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    let error =
        session.call_tool("exit", serde_json::Map::new(), CallOptions::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("`it.exit` failed: the connection is closed: its process ended ("), "{error}");
    assert!(!session.is_connected());
    // The same session, another process; and the call that failed was not made again.
    let answer = session.call_tool("calls", serde_json::Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(answer.structured().unwrap(), json!({"count": 1}));
    assert!(session.is_connected());
    Ok(())
}

async fn backs_off() -> Result<(), Ignored> {
    let client =
        builder(json!({"it": fake_server::entry("ordinary"), "demo": crate::support::demo()})).build().unwrap();
    let script = "let said = []; for i in 0..4 { try { it.exit() } catch (e) { said.push(e.message) } } said.push(demo.list_users().users.len()); said";
    let said = value(run(&client, script).await);
    let said: Vec<&str> = said.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(said.len(), 4);
    for died in &said[..2] {
        assert!(died.starts_with("the connection is closed: its process ended"), "{died}");
    }
    for left_alone in &said[2..] {
        assert!(left_alone.contains("it soon ended 2 times in a row, so it is left alone for 1 s"), "{left_alone}");
    }
    // Asked for, it is started at once.
    assert!(client.create_session("it").await.unwrap().is_connected());
    Ok(())
}

async fn keep_alive() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("deaf");
    entry["keep_alive"] = json!(0.1);
    let client = builder(json!({"it": entry})).build().unwrap();
    let session = client.create_session("it").await.unwrap();
    // From here on it reads nothing; the call ends as the pings do.
    session.list_tools().await.unwrap();
    let call = session.call_tool("anything", serde_json::Map::new(), CallOptions::default());
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Connection), "{error}");
    Ok(())
}
