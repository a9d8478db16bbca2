//! Servers as they are in the field: what none of the official SDKs does, and many servers do. Faults that end a call or a connection
//! are in `faults.rs`.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{CallOptions, Detail};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::authorization::Request;
use crate::fake_server;
use crate::fixtures;
use crate::support::{Ignored, client, need, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("field::an_empty_cursor_goes_on_since_2026_07_28_and_ends_a_list_before", empty_cursor),
        test("field::null_lists_are_empty", null_lists),
        test("field::odd_items_are_kept_without_what_is_odd", odd_items),
        test("field::a_tool_that_must_run_as_a_task_is_called_as_one", tasks),
        test("field::a_task_that_nobody_waits_for_is_cancelled", abandoned_task),
        test("field::progress_keeps_a_task_alive", telling_task),
        test("field::a_real_tool_that_must_run_as_a_task", real_task),
        test("field::links_to_resources_can_be_followed", links),
        test("field::servers_are_called_like_words_that_rhai_reserves", reserved_words),
        test("field::progress_keeps_a_call_alive", progress),
        test("field::calls_of_all_scripts_wait_for_their_turn", one_at_a_time),
        test("field::calls_begin_at_a_rate", rate),
        test("field::a_server_may_ask_on_the_stream_that_brings_its_greeting", asks_on_http),
        test("field::a_server_without_event_stream_is_left_alone", no_event_stream),
        test("field::headers_that_are_ours_do_no_harm", own_headers),
    ]
}

/// First argument of the test binary that makes it a server on its standard input and output; the second is what it does.
pub const ARGUMENT: &str = "field-server";

pub fn entry(behaviour: &str) -> Value {
    json!({"command": std::env::current_exe().unwrap(), "args": [ARGUMENT, behaviour]})
}

/// The server: a line of JSON in, lines of JSON out.
pub fn main(behaviour: &str) {
    let (mut polls, mut cancelled, mut asked, mut token) = (0, 0, Value::Null, Value::Null);
    let say = |message: Value| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{message}").unwrap();
        out.flush().unwrap();
    };
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (method, params) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let Some(id) = message.get("id").cloned() else { continue };
        if method.is_empty() {
            // The answer to the question of `ask`.
            let said = message["result"]["action"].as_str().unwrap_or("refused");
            say(
                json!({"jsonrpc": "2.0", "id": asked, "result": {"content": [{"type": "text", "text": format!("the user: {said}")}]}}),
            );
            continue;
        }
        let result = |result: Value| say(json!({"jsonrpc": "2.0", "id": id, "result": result}));
        let error =
            |code: i32, text: &str| say(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}}));
        match (method, params["name"].as_str().unwrap_or_default()) {
            ("server/discover", _) if behaviour == "modern" => {
                result(
                    json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "resources": {}, "prompts": {}}}),
                );
            }
            ("initialize", _) => {
                result(json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": behaviour, "version": "1"},
                "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "completions": {}, "tasks": {"requests": {"tools": {"call": {}}}}}}));
            }
            ("tools/list" | "resources/list" | "resources/templates/list" | "prompts/list", _) => {
                result(list(behaviour, method, params));
            }
            ("resources/read", _) if params["uri"] == "a:text" => {
                result(json!({"contents": [{"uri": "a:text", "mimeType": "text/csv", "text": "id,total"}]}));
            }
            ("resources/read", _) if params["uri"] == "a:both" => {
                result(json!({"contents": [{"uri": "a:1", "text": "{}"}, {"uri": "a:2", "blob": "AAEC"}]}));
            }
            ("resources/read", _) => result(json!({"contents": null})),
            ("prompts/get", _) => result(json!({"messages": null, "description": null})),
            ("completion/complete", _) => result(json!({"completion": {"values": null}})),
            ("tools/call", "task") if params["task"].is_null() => {
                error(-32601, "Tool task requires task augmentation (taskSupport: 'required')");
            }
            ("tools/call", "task") => {
                token = params["_meta"]["progressToken"].clone();
                result(json!({"task": {"taskId": "t-1", "status": "working", "ttl": null, "pollInterval": 20}}));
            }
            ("tasks/get", _) if behaviour == "telling" => {
                polls += 1;
                std::thread::sleep(Duration::from_millis(200));
                let told = json!({"progressToken": token, "progress": polls});
                say(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": told}));
                let status = if polls < 8 { "working" } else { "completed" };
                result(json!({"taskId": params["taskId"], "status": status, "pollInterval": 20}));
            }
            ("tasks/get", _) => {
                polls += 1;
                let status = if polls < 3 || behaviour == "endless" { "working" } else { "completed" };
                result(
                    json!({"taskId": params["taskId"], "status": status, "pollInterval": 20, "lastUpdatedAt": polls}),
                );
            }
            ("tasks/result", _) => {
                result(json!({"content": [{"type": "text", "text": format!("{} after {polls}", params["taskId"])}]}));
            }
            ("tasks/cancel", _) => {
                cancelled += 1;
                result(json!({}));
            }
            ("tools/call", "cancelled") => {
                result(json!({"content": [{"type": "text", "text": cancelled.to_string()}]}));
            }
            ("tools/call", "work") => {
                for step in 0..5 {
                    std::thread::sleep(Duration::from_millis(200));
                    let told = json!({"progressToken": params["_meta"]["progressToken"], "progress": step});
                    say(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": told}));
                }
                result(json!({"content": [{"type": "text", "text": "done"}]}));
            }
            ("tools/call", "export") => {
                result(json!({"content": [{"type": "resource_link", "uri": "a:text", "name": "report"}]}));
            }
            ("tools/call", "stuck") => {}
            ("tools/call", "shot") => result(
                json!({"content": [{"type": "text", "text": "1x1"}, {"type": "image", "data": "AAECAwQ=", "mimeType": "image/png"}]}),
            ),
            ("tools/call", "ask") => {
                asked = id.clone();
                let form = json!({"type": "object", "properties": {"sure": {"type": "boolean"}}});
                let params = json!({"message": "Really?", "requestedSchema": form});
                say(json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}));
            }
            ("tools/call", name) => result(json!({"content": [{"type": "text", "text": name}]})),
            ("ping", _) => result(json!([])),
            _ => error(-32601, "unknown"),
        }
    }
}

fn list(behaviour: &str, method: &str, params: &Value) -> Value {
    let (key, item): (&str, fn(&str) -> Value) = match method {
        "tools/list" => ("tools", |name| json!({"name": name, "inputSchema": {"type": "object"}})),
        "resources/list" => ("resources", |name| json!({"name": name, "uri": format!("a:{name}")})),
        "resources/templates/list" => {
            ("resourceTemplates", |name| json!({"name": name, "uriTemplate": format!("a:{name}")}))
        }
        _ => ("prompts", |name| json!({"name": name})),
    };
    match behaviour {
        "null" => json!({key: null, "nextCursor": null}),
        // Without any mark that it is odd.
        "odd" => json!({key: [
            {"name": "kept", "uri": "a:b", "uriTemplate": "a:b", "annotations": [], "icons": null, "size": "big", "arguments": [7], "inputSchema": []},
            "no item",
        ]}),
        "links" => json!({"tools": [item("export")]}),
        "camera" => json!({"tools": [item("shot"), item("ask"), item("add")]}),
        "tasks" | "endless" | "telling" => {
            json!({"tools": [{"name": "task", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}]})
        }
        "modern" if params["cursor"].is_null() => json!({key: [item("first")], "nextCursor": ""}),
        "modern" => json!({key: [item("second")]}),
        _ => json!({key: [item("work"), item("stuck")], "nextCursor": ""}),
    }
}

async fn empty_cursor() -> Result<(), Ignored> {
    let client = client(json!({"modern": entry("modern"), "legacy": entry("legacy")}));
    for (server, expected) in [("modern", ["first", "second"]), ("legacy", ["work", "stuck"])] {
        let session = client.create_session(server).await.unwrap();
        let tools = session.list_tools().await.unwrap().into_iter().map(|tool| tool.name);
        let resources = session.list_resources().await.unwrap().into_iter().map(|resource| resource.name);
        let templates = session.list_resource_templates().await.unwrap().into_iter().map(|template| template.name);
        let prompts = session.list_prompts().await.unwrap().into_iter().map(|prompt| prompt.name);
        let all: Vec<String> = tools.chain(resources).chain(templates).chain(prompts).collect();
        assert_eq!(all, expected.repeat(4), "{server}");
    }
    assert_eq!(value(run(&client, "modern.second()").await), json!("second"));
    Ok(())
}

async fn null_lists() -> Result<(), Ignored> {
    let client = client(json!({"it": entry("null")}));
    let session = client.create_session("it").await.unwrap();
    assert_eq!(session.list_tools().await.unwrap(), []);
    assert_eq!(session.list_resources().await.unwrap(), []);
    assert_eq!(session.list_resource_templates().await.unwrap(), []);
    assert_eq!(session.list_prompts().await.unwrap(), []);
    assert!(session.read_resource("a:b").await.unwrap().contents.is_empty());
    assert!(session.get_prompt("p", Map::new()).await.unwrap().messages.is_empty());
    let reference = serde_json::from_value(json!({"type": "ref/prompt", "name": "p"})).unwrap();
    assert!(session.complete(reference, "a", "b").await.unwrap().values.is_empty());
    session.ping().await.unwrap();
    Ok(())
}

async fn odd_items() -> Result<(), Ignored> {
    let client = client(json!({"it": entry("odd")}));
    let session = client.create_session("it").await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 1);
    assert_eq!(session.list_resources().await.unwrap()[0].uri, "a:b");
    assert_eq!(session.list_resource_templates().await.unwrap()[0].uri_template, "a:b");
    assert_eq!(session.list_prompts().await.unwrap()[0].name, "kept");
    Ok(())
}

async fn tasks() -> Result<(), Ignored> {
    let client = client(json!({"it": entry("tasks")}));
    assert_eq!(value(run(&client, "it.task()").await), json!("\"t-1\" after 3"));
    // Before anybody has listed the tools, the server's refusal tells.
    let client = self::client(json!({"it": entry("tasks")}));
    let session = client.create_session("it").await.unwrap();
    let answer = session.call_tool("task", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(answer.content()[0]["text"], "\"t-1\" after 3");
    Ok(())
}

async fn abandoned_task() -> Result<(), Ignored> {
    let client = client(json!({"it": entry("endless")}));
    let session = client.create_session("it").await.unwrap();
    let options = CallOptions::default().timeout(Duration::from_millis(200));
    let error = session.call_tool("task", Map::new(), options).await.unwrap_err();
    assert_eq!(error.to_string(), "`it.task` failed: the time limit of the call, 0.2 s, is over");
    loop {
        let answer = session.call_tool("cancelled", Map::new(), CallOptions::default()).await.unwrap();
        if answer.content()[0]["text"] == "1" {
            return Ok(());
        }
    }
}

async fn telling_task() -> Result<(), Ignored> {
    // All that changes is what it tells of the call that made the task, and the whole takes longer than a call may be silent.
    let mut entry = entry("telling");
    entry["call_timeout"] = json!(1);
    let client = client(json!({"it": entry}));
    assert_eq!(value(run(&client, "it.task()").await), json!("\"t-1\" after 8"));
    client.close_all_sessions().await;
    let session = client.create_session("it").await.unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let options = CallOptions::default().on_progress(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    session.call_tool("task", Map::new(), options).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 8);
    Ok(())
}

async fn real_task() -> Result<(), Ignored> {
    let everything = need(fixtures::everything())?;
    let client = client(json!({"everything": everything.entry(&[])}));
    let found = client.search_tools("research", Detail::Names).await;
    assert_eq!(found.results[0].name, "simulate_research_query");
    let report = value(run(&client, "everything.simulate_research_query(#{topic: \"tea\"})").await);
    assert!(report.to_string().contains("tea"), "{report}");
    Ok(())
}

async fn links() -> Result<(), Ignored> {
    let client = client(json!({"it": entry("links"), "plain": fake_server::entry("plain")}));
    let script = "
        let out = [it.read_resource(it.export()[0].uri), it.read_resource(\"a:both\"), it.read_resource(#{uri: \"a:none\"})];
        try { plain.read_resource(\"a:text\") } catch (e) { out.push(e.kind) }
        out
    ";
    let both = json!([{"uri": "a:1", "text": "{}"}, {"uri": "a:2", "blob": "AAEC"}]);
    assert_eq!(value(run(&client, script).await), json!(["id,total", both, [], "unknown_tool"]));
    // It counts as a call.
    let limits = run(&client, "for i in 0..300 { it.read_resource(\"a:text\") }").await;
    assert!(limits.error.unwrap().message.contains("256"));
    Ok(())
}

async fn reserved_words() -> Result<(), Ignored> {
    let words = ["go", "default", "match", "new", "with", "use", "static", "async", "void"];
    let servers: Map<String, Value> = words.iter().map(|word| ((*word).to_string(), entry("links"))).collect();
    let client = client(Value::Object(servers));
    for word in words {
        let script = format!(
            "fn f() {{ {word}.read_resource(\"a:text\") }}\n[{word}.export()[0].name, f(), {word}::export().len()]"
        );
        assert_eq!(value(run(&client, &script).await), json!(["report", "id,total", 1]), "{word}");
    }
    Ok(())
}

async fn progress() -> Result<(), Ignored> {
    let mut entry = entry("progress");
    entry["call_timeout"] = json!(0.8);
    let client = client(json!({"it": entry}));
    let script = "
        let out = [it.work()];
        try { it.stuck() } catch (e) { out.push(e.kind) }
        out
    ";
    // The work takes a second; it is silent for a fifth of one at most.
    assert_eq!(value(run(&client, script).await), json!(["done", "call_timeout"]));
    Ok(())
}

async fn one_at_a_time() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("plain");
    entry["calls_in_flight"] = json!(2);
    let client = client(json!({"it": entry}));
    let script = "parallel_map(0..6, |i| it.work(#{id: i, delay: 20}).id)";
    let (one, other) = tokio::join!(run(&client, script), run(&client, script));
    assert_eq!([value(one), value(other)], [json!([0, 1, 2, 3, 4, 5]), json!([0, 1, 2, 3, 4, 5])]);
    assert_eq!(value(run(&client, "it.worked().most").await), json!(2));
    // Whoever does not wait for ever is told.
    let session = client.create_session("it").await.unwrap();
    let never = || session.call_tool("never", Map::new(), CallOptions::default());
    let short = CallOptions::default().timeout(Duration::from_millis(50));
    let message = tokio::select! {
        biased;
        _ = never() => panic!("it never answers"),
        _ = never() => panic!("it never answers"),
        third = session.call_tool("echo", Map::new(), short) => third.unwrap_err().to_string(),
    };
    assert_eq!(
        message,
        "`it.echo` failed: its turn did not come within 0.05 s (`calls_in_flight`, `calls_per_second` of its entry)"
    );
    Ok(())
}

async fn rate() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("plain");
    entry["calls_per_second"] = json!(20);
    let client = client(json!({"it": entry}));
    let began = std::time::Instant::now();
    value(run(&client, "parallel_map(0..6, |i| it.echo())").await);
    // The first goes out at once.
    assert!(began.elapsed() >= Duration::from_millis(5 * 50), "{:?}", began.elapsed());
    Ok(())
}

/// An HTTP server that hands each request to `answer`, with the connection: its address.
async fn serve<F>(answer: impl Fn(Request, BufReader<TcpStream>) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = Option<BufReader<TcpStream>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                while let Some(request) = Request::read(&mut connection).await {
                    match answer(request, connection).await {
                        Some(given_back) => connection = given_back,
                        None => return,
                    }
                }
            });
        }
    });
    url
}

async fn write(connection: &mut BufReader<TcpStream>, head: &str, body: &str) -> Option<()> {
    let text = format!("HTTP/1.1 {head}content-length: {}\r\n\r\n{body}", body.len());
    connection.write_all(text.as_bytes()).await.ok()
}

const JSON: &str = "200 OK\r\ncontent-type: application/json\r\n";

/// What a plain server with a tool answers a request with.
fn answer(message: &Value) -> Value {
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "a", "version": "1"}})
        }
        "tools/list" => json!({"tools": [{"name": "hello", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": "hello"}]}),
        other => {
            let error = json!({"code": -32601, "message": format!("no method {other}")});
            return json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
        }
    };
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

async fn asks_on_http() -> Result<(), Ignored> {
    let answered: Arc<Notify> = Arc::default();
    let url = serve(move |request, mut connection| {
        let answered = Arc::clone(&answered);
        async move {
            let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
            if message["method"] == "initialize" {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nmcp-session-id: s\r\nconnection: close\r\n\r\n";
                let ask = "data: {\"jsonrpc\":\"2.0\",\"id\":\"early\",\"method\":\"ping\"}\n\n";
                connection.write_all(format!("{head}{ask}").as_bytes()).await.ok()?;
                answered.notified().await;
                connection.write_all(format!("data: {}\n\n", answer(&message)).as_bytes()).await.ok()?;
                return None;
            }
            if message["id"] == "early" {
                assert_eq!((&message["result"], request.headers["mcp-session-id"].as_str()), (&json!({}), "s"));
                answered.notify_one();
            }
            if message["method"].is_null() || message["id"].is_null() {
                let refused = if request.method == "GET" { "405 Method Not Allowed\r\n" } else { "202 Accepted\r\n" };
                write(&mut connection, refused, "").await?;
            } else {
                write(&mut connection, JSON, &answer(&message).to_string()).await?;
            }
            Some(connection)
        }
    })
    .await;
    let client = client(json!({"it": {"url": url}}));
    assert_eq!(value(run(&client, "it.hello()").await), json!("hello"));
    Ok(())
}

async fn no_event_stream() -> Result<(), Ignored> {
    const REFUSALS: [&str; 6] = [
        "400 Bad Request\r\n",
        "404 Not Found\r\n",
        "405 Method Not Allowed\r\n",
        "406 Not Acceptable\r\n",
        "200 OK\r\ncontent-type: text/html\r\n",
        "200 OK\r\n",
    ];
    let one = async |refusal: &'static str| {
        let gets: Arc<AtomicUsize> = Arc::default();
        let asked: Arc<Notify> = Arc::default();
        let (counted, told) = (Arc::clone(&gets), Arc::clone(&asked));
        let url = serve(move |request, mut connection| {
            let (gets, asked) = (Arc::clone(&counted), Arc::clone(&told));
            async move {
                let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
                if request.method == "GET" {
                    gets.fetch_add(1, Ordering::SeqCst);
                    write(&mut connection, refusal, "<h1>Hello</h1>").await?;
                    asked.notify_one();
                } else if message["id"].is_null() {
                    write(&mut connection, "202 Accepted\r\n", "").await?;
                } else {
                    let head = format!("{JSON}mcp-session-id: s\r\n");
                    write(&mut connection, &head, &answer(&message).to_string()).await?;
                }
                Some(connection)
            }
        })
        .await;
        let client = client(json!({"it": {"url": url}}));
        let session = client.create_session("it").await.unwrap();
        asked.notified().await;
        // For longer than after which one that is opened again would have been.
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            let answer = session.call_tool("hello", Map::new(), CallOptions::default()).await.unwrap();
            assert_eq!(answer.content()[0]["text"], "hello", "{refusal}");
        }
        client.close_all_sessions().await;
        assert_eq!(gets.load(Ordering::SeqCst), 1, "{refusal}");
    };
    futures_util::future::join_all(REFUSALS.map(one)).await;
    Ok(())
}

async fn own_headers() -> Result<(), Ignored> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&seen);
    let url = serve(move |request, mut connection| {
        let heads = Arc::clone(&heads);
        async move {
            let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
            let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
            if message["method"] == "tools/call" {
                let names = ["accept", "content-type", "mcp-protocol-version", "x-key", "user-agent"];
                heads.lock().unwrap().push(names.map(header).join(" | "));
            }
            if message["id"].is_null() {
                write(&mut connection, "202 Accepted\r\n", "").await?;
            } else {
                write(&mut connection, JSON, &answer(&message).to_string()).await?;
            }
            Some(connection)
        }
    })
    .await;
    let headers = json!({
        "Accept": "application/json", "Content-Type": "text/plain", "MCP-Protocol-Version": "2024-11-05", "Mcp-Session-Id": "mine",
        "Last-Event-ID": "5", "Content-Length": "1", "X-Key": "k", "User-Agent": "me/1",
    });
    let client = client(json!({"it": {"url": url, "headers": headers}}));
    assert_eq!(value(run(&client, "it.hello()").await), json!("hello"));
    let expected = "text/event-stream, application/json | application/json | 2025-11-25 | k | me/1";
    assert_eq!(*seen.lock().unwrap(), [expected]);
    Ok(())
}
