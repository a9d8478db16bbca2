//! [`rhaiway::Client`]: configuration, sessions and their ends, cached lists, code mode.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rhaiway::{CODE_MODE_SESSION, CallOptions, Client, Config, Detail, Error, ExecuteOptions, ServerStatus};
use serde_json::{Value, json};

use crate::fake_server;
use crate::processes::Mark;
use crate::support::{Ignored, builder, client, demo, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("client::configuration_is_edited_and_saved", configuration_is_edited_and_saved),
        test("client::malformed_entries_are_named_by_their_path", malformed_entries_are_named),
        test("client::variables_are_expanded_when_connecting", variables_are_expanded),
        test("client::sessions_are_opened_once", sessions_are_opened_once),
        test("client::sessions_are_opened_at_the_same_time", sessions_are_opened_together),
        test("client::only_allowed_servers_are_connected", only_allowed_servers),
        test("client::code_mode_shows_only_its_own_session", code_mode_session),
        test("client::without_code_mode_no_script_runs", without_code_mode),
        test("client::a_failing_server_fails_only_the_calls_to_it", a_failing_server),
        test("client::a_server_that_died_is_connected_again", a_server_that_died),
        test("client::a_server_that_is_not_named_is_not_started", not_named_not_started),
        test("client::lists_are_cached_until_they_change", lists_are_cached),
        test("client::odd_tools_do_not_lose_the_list", odd_tools),
        test("client::colliding_names_are_all_reachable", colliding_names),
        test("client::a_name_never_comes_to_mean_another_tool", names_stay),
        test("client::a_name_never_comes_to_mean_another_server", server_names_stay),
        test("client::of_tools_with_one_name_the_first_is_kept", listed_twice),
        test("client::long_names_cost_no_time_and_no_space", long_names),
        test("client::a_banner_on_stdout_is_skipped", banner),
        test("client::answers_reach_scripts_as_the_server_meant_them", answers),
        test("client::dropping_a_run_cancels_its_calls", dropping_a_run),
        test("client::closing_ends_stubborn_processes", closing_stubborn),
        test("client::dropping_the_client_ends_its_processes", dropping_the_client),
        test("client::dropping_the_runtime_ends_its_processes", dropping_the_runtime),
        test("client::logs_come_as_they_are_printed", logs_as_printed),
        test("client::errors_of_connecting_say_why", errors_of_connecting),
        test("client::a_server_that_never_lists_is_unreachable", never_lists),
        test("client::a_server_that_does_not_read_can_be_closed", closing_deaf),
        test("client::a_corrected_entry_is_tried_at_once", a_corrected_entry),
        test("client::a_server_may_be_named_like_the_code_mode_session", named_code_mode),
        test("client::headers_do_not_follow_a_redirect", redirect),
    ]
}

async fn configuration_is_edited_and_saved() -> Result<(), Ignored> {
    let document = json!({"theme": "dark", "mcpServers": {"b": {"command": "x", "unknown": [1]}, "a": {"url": "https://${HOST}/mcp"}}});
    let client = Client::builder().config(Config::from_value(document).unwrap()).build().unwrap();
    client.add_server("new", json!({"ws_url": "wss://example.com"})).unwrap();
    assert_eq!(client.server_names(), ["b", "a", "new"]);
    let refused = client.add_server("bad", json!({"command": "x", "args": ["ok", {}]})).unwrap_err();
    assert_eq!(refused.to_string(), "in the configuration, mcpServers.bad.args[1]: expected a string, found an object");
    client.remove_server("new").await.unwrap();
    assert_eq!(
        client.remove_server("new").await.unwrap_err().to_string(),
        "there is no server `new`: there are `b`, `a`"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.json");
    client.save_config(&file).unwrap();
    let saved = std::fs::read_to_string(&file).unwrap();
    let document: Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(
        document,
        json!({"theme": "dark", "mcpServers": {"b": {"command": "x", "unknown": [1]}, "a": {"url": "https://${HOST}/mcp"}}})
    );
    assert!(saved.starts_with("{\n  \"theme\""), "indented, in the order it had: {saved}");
    assert_eq!(Config::from_file(&file).unwrap(), client.config());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    Ok(())
}

async fn malformed_entries_are_named() -> Result<(), Ignored> {
    let client = client(json!({
        "demo": demo(),
        "both": {"command": "x", "url": "http://localhost"},
        "none": {"args": []},
        "list": [],
        "number": {"command": 5},
        "time": {"url": "http://localhost", "timeout": -1},
        "boxed": {"command": "x", "sandbox": {"mount": []}},
        "folder": {"command": "x", "sandbox": {"mounts": [{"guest": "/data"}]}},
        "access": {"command": "x", "sandbox": {"mounts": [{"host": "/data", "access": "write"}]}},
        "address": {"command": "x", "sandbox": {"network": ["example.com"]}},
        "nobody": {"command": "x", "sandbox": {"network": ["0.0.0.0:80"]}},
        "short": {"command": "x", "sandbox": {"network": ["127.1:80"]}},
        "port": {"command": "x", "sandbox": {"network": ["example.com:080"]}},
        "upwards": {"command": "x", "sandbox": {"mounts": [{"host": ".", "guest": "/a/../b"}]}},
        "name": {"command": "x", "sandbox": {"env": ["A=B"]}},
        "memory": {"command": "x", "sandbox": {"memory_mb": 0}},
        "remote": {"url": "http://localhost", "sandbox": true},
        "sse": {"command": "x", "type": "sse"},
        "http": {"ws_url": "ws://localhost", "transport": "http"},
        "pigeon": {"url": "http://localhost", "type": "pigeon"},
        "typed": {"url": "http://localhost", "type": {"name": "http"}},
        "two": {"url": "http://localhost", "type": "http", "transport": "sse"},
        "fine": {"command": "x", "type": "stdio", "transport": null},
    }));
    let problems: Vec<String> = client.config().problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "in the configuration, mcpServers.both: it has `command` and `url`, which exclude each other: keep one",
            "in the configuration, mcpServers.none: it has none of `command` (stdio), `url` (HTTP), `ws_url` (WebSocket)",
            "in the configuration, mcpServers.list: expected an object, found an array",
            "in the configuration, mcpServers.number.command: expected a string, found `5`",
            "in the configuration, mcpServers.time.timeout: expected a positive number of seconds, found `-1`",
            "in the configuration, mcpServers.boxed.sandbox.mount: there is no such key; there are `mounts`, `env`, `network`, \
             `memory_mb`, `cpu_seconds`, `wall_seconds`, `max_output_mb`, `instance`",
            "in the configuration, mcpServers.folder.sandbox.mounts[0].host: expected a string, found nothing",
            "in the configuration, mcpServers.access.sandbox.mounts[0].access: expected one of `ro`, `rw`, found `write`",
            "in the configuration, mcpServers.address.sandbox.network[0]: expected a host and a port, such as `127.0.0.1:8080` or \
             `api.example.com:443`, found `example.com`",
            "in the configuration, mcpServers.nobody.sandbox.network[0]: `0.0.0.0:80` is the address of no host that could be connected to",
            "in the configuration, mcpServers.short.sandbox.network[0]: expected a host and a port, such as `127.0.0.1:8080` or \
             `api.example.com:443`, found `127.1:80`",
            "in the configuration, mcpServers.port.sandbox.network[0]: expected a host and a port, such as `127.0.0.1:8080` or \
             `api.example.com:443`, found `example.com:080`",
            "in the configuration, mcpServers.upwards.sandbox.mounts[0].guest: expected an absolute path such as `/data`, without `..`, \
             found `/a/../b`",
            "in the configuration, mcpServers.name.sandbox.env: expected names of variables, or an object of names and values, found `A=B`",
            "in the configuration, mcpServers.memory.sandbox.memory_mb: expected a number of MiB, over 0 and at most 4096, found `0`",
            "in the configuration, mcpServers.remote.sandbox: only a server that is started here (`command`) can be sandboxed, and this \
             one is reached by an address: remove the key (found `true`)",
            "in the configuration, mcpServers.sse.type: `sse` needs `url`, and the entry has `command`",
            "in the configuration, mcpServers.http.transport: `http` needs `url`, and the entry has `ws_url`",
            "in the configuration, mcpServers.pigeon.type: expected one of `stdio`, `http`, `streamable-http`, `sse`, `websocket`, \
             found `pigeon`",
            "in the configuration, mcpServers.typed.type: expected a string, found an object",
            "in the configuration, mcpServers.two.transport: it is `sse`, and `type` is not: keep one",
        ]
    );
    let execution = run(
        &client,
        "try { both.x() } catch (e) { print(e.kind + \": \" + e.message); } demo.list_users().users.len()",
    )
    .await;
    assert_eq!(
        execution.logs,
        [
            "connection: in the configuration, mcpServers.both: it has `command` and `url`, which exclude each other: keep one"
        ]
    );
    assert_eq!(value(execution), json!(5));
    client.close_all_sessions().await;
    for (text, message) in [
        (json!([]), "in the configuration, (top level): expected an object with `mcpServers`, found an array"),
        (
            json!({"mcpServers": []}),
            "in the configuration, mcpServers: expected an object of servers by name, found an array",
        ),
    ] {
        assert_eq!(Config::from_value(text).unwrap_err().to_string(), message);
    }
    let typo = Config::from_value(json!({"mcpserver": {}})).unwrap_err().to_string();
    assert_eq!(typo, "in the configuration, (top level): expected `mcpServers`, found only `mcpserver`");
    assert_eq!(Config::from_value(json!({"servers": {"a": {"command": "x"}}})).unwrap().server_names(), ["a"]);
    Ok(())
}

async fn variables_are_expanded() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("${BEHAVIOUR}");
    entry["env"] = json!({"A": "${env:BEHAVIOUR}-${MISSING:-default}-${"});
    let servers = json!({"fake": entry, "unset": {"command": "${NO_SUCH}", "args": []}});
    let variables = |name: &str| match name {
        "BEHAVIOUR" => Some("plain".to_string()),
        _ => None,
    };
    let client = builder(servers).variables(variables).build().unwrap();
    let info = client.create_session("fake").await.unwrap().server_info().unwrap();
    assert_eq!(info.server_info.as_ref().unwrap().name, "plain");
    let error = client.create_session("unset").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "in the configuration, mcpServers.unset.command: it needs the variable `NO_SUCH`, which is not set"
    );
    client.close_all_sessions().await;
    Ok(())
}

async fn sessions_are_opened_once() -> Result<(), Ignored> {
    let mark = Mark::new("once");
    let client = builder(json!({"demo": mark.on(demo())})).code_mode(false).build().unwrap();
    assert!(matches!(client.session("demo"), Err(Error::NoSession { .. })));
    let opened = futures_util::future::join_all((0..8).map(|_| client.create_session("demo"))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(mark.alive().len(), 1);
    assert_eq!(client.active_sessions().keys().collect::<Vec<_>>(), ["demo"]);
    let session = client.session("demo").unwrap();
    session.ping().await.unwrap();
    let answer = session
        .call_tool("get_issue", json!({"number": 1}).as_object().unwrap().clone(), CallOptions::default())
        .await
        .unwrap();
    assert!(!answer.is_error() && answer.structured().is_some());
    assert!(matches!(client.create_session("nope").await, Err(Error::UnknownServer { .. })));
    client.close_session("demo").await;
    client.close_session("demo").await;
    assert!(!session.is_connected());
    assert_eq!(mark.alive(), Vec::<String>::new());
    assert!(matches!(session.ping().await, Err(Error::NoSession { .. })));
    Ok(())
}

async fn sessions_are_opened_together() -> Result<(), Ignored> {
    // The first never answers; the others must not wait for it.
    let servers = json!({"silent": fake_server::entry("silent"), "a": demo(), "b": demo(), "bad": {"command": "no-such-program-anywhere"}});
    let client = builder(servers).code_mode(false).connect_timeout(Duration::from_secs(4)).build().unwrap();
    let all = client.create_all_sessions();
    let others = async {
        loop {
            if client.session("a").is_ok() && client.session("b").is_ok() {
                return Instant::now();
            }
            tokio::task::yield_now().await;
        }
    };
    let (sessions, connected) = tokio::join!(all, others);
    assert!(connected.elapsed() > Duration::from_millis(500), "the silent server held the others up");
    assert_eq!(sessions.open.keys().collect::<Vec<_>>(), ["a", "b"]);
    let failed: Vec<String> = sessions.failed.values().map(ToString::to_string).collect();
    assert_eq!(
        failed,
        [
            "can't connect to the server `bad`: can't start `no-such-program-anywhere`: there is no such program; is it installed, and on \
             the PATH?",
            "can't connect to the server `silent`: it did not answer the handshake within 4 s",
        ]
    );
    client.close_all_sessions().await;
    Ok(())
}

async fn only_allowed_servers() -> Result<(), Ignored> {
    let servers = json!({"demo": demo(), "other": demo()});
    let error = builder(servers.clone()).allowed_servers(["demo", "typo"]).build().err().unwrap();
    assert_eq!(error.to_string(), "there is no server `typo`: there are `demo`, `other`");
    let client = builder(servers).allowed_servers(["demo"]).build().unwrap();
    assert_eq!(value(run(&client, "__tool_namespaces").await), json!(["demo"]));
    let error = run(&client, "other.list_users()").await.error.unwrap();
    assert_eq!(error.message, "there is no variable or server `other`");
    assert!(matches!(client.create_session("other").await, Err(Error::UnknownServer { .. })));
    client.close_all_sessions().await;
    Ok(())
}

async fn code_mode_session() -> Result<(), Ignored> {
    let client = client(json!({"demo": demo()}));
    let sessions = client.create_all_sessions().await;
    assert_eq!(sessions.open.keys().collect::<Vec<_>>(), [CODE_MODE_SESSION]);
    assert_eq!(client.server_names(), ["demo"]);
    let session = client.session(CODE_MODE_SESSION).unwrap();
    let tools = session.list_tools().await.unwrap();
    assert_eq!(
        tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
        ["execute_code", "search_tools", "read_guide"]
    );
    // The guide is text, and nothing else.
    assert_eq!(tools.iter().map(|tool| tool.output_schema.is_some()).collect::<Vec<_>>(), [true, true, false]);
    let arguments = json!({"code": "demo.list_users().users.len()"}).as_object().unwrap().clone();
    let answer = session.call_tool("execute_code", arguments, CallOptions::default()).await.unwrap();
    assert_eq!(answer.structured().unwrap()["result"], json!(5));
    assert_eq!(client.active_sessions().keys().collect::<Vec<_>>(), [CODE_MODE_SESSION]);
    client.close_all_sessions().await;
    assert!(client.active_sessions().is_empty());
    Ok(())
}

async fn without_code_mode() -> Result<(), Ignored> {
    let client = builder(json!({})).code_mode(false).build().unwrap();
    assert!(matches!(client.execute_code("1", ExecuteOptions::default()).await, Err(Error::CodeModeOff)));
    assert!(client.create_all_sessions().await.open.is_empty());
    Ok(())
}

async fn a_failing_server() -> Result<(), Ignored> {
    let client = client(json!({"demo": demo(), "broken": fake_server::entry("exits")}));
    let script =
        "let why = (); try { broken.anything(#{}) } catch (e) { why = e; } [demo.list_users().users.len(), why]";
    let out = value(run(&client, script).await);
    assert_eq!(out[0], json!(5));
    assert_eq!(out[1]["kind"], json!("connection"));
    assert_eq!(out[1]["server"], json!("broken"));
    let found = client.search_tools("", Detail::Names).await;
    assert_eq!(found.meta.unreachable.keys().collect::<Vec<_>>(), ["broken"]);
    let status = client.server_status().await;
    assert!(matches!(status["demo"], ServerStatus::Connected) && matches!(status["broken"], ServerStatus::Failed(_)));
    client.close_all_sessions().await;
    Ok(())
}

async fn a_server_that_died() -> Result<(), Ignored> {
    let client = client(json!({"fake": fake_server::entry("plain")}));
    let script = "let r = []; try { fake.exit() } catch (e) { r.push(e.kind); print(e.message); } r.push(fake.echo(#{a: 1}).tool); r";
    let execution = run(&client, script).await;
    assert_eq!(execution.calls.iter().map(|call| call.outcome.as_str()).collect::<Vec<_>>(), ["connection", "ok"]);
    assert_eq!(
        execution.logs,
        ["the connection is closed: its process ended (exit status: 7); its last lines on stderr:\n  going down"]
    );
    assert_eq!(value(execution), json!(["connection", "echo"]));
    client.close_all_sessions().await;
    Ok(())
}

async fn not_named_not_started() -> Result<(), Ignored> {
    let mark = Mark::new("not-named");
    let mut disabled = mark.on(demo());
    disabled["disabled"] = json!(true);
    let servers = json!({"demo": mark.on(demo()), "silent": fake_server::entry("silent"), "off": disabled});
    let client = client(servers);
    assert_eq!(value(run(&client, "__tool_namespaces").await), json!(["demo", "silent"]));
    assert_eq!(value(run(&client, "let demonstration = 1; demonstration + 1").await), json!(2));
    assert_eq!(mark.alive().len(), 0);
    assert_eq!(value(run(&client, "demo.list_users().users.len()").await), json!(5));
    assert_eq!(mark.alive().len(), 1);
    client.close_all_sessions().await;
    Ok(())
}

async fn lists_are_cached() -> Result<(), Ignored> {
    let client = client(json!({"fake": fake_server::entry("plain"), "paged": fake_server::entry("pages")}));
    let names = |found: rhaiway::SearchResults| found.results.into_iter().map(|tool| tool.name).collect::<Vec<_>>();
    assert_eq!(names(client.search_tools("page", Detail::Names).await), ["page_0", "page_1", "page_2"]);
    // The server counts how often it is asked, in the name of a tool.
    let lists = "search_tools(\"listed\", \"names\").results[0].name";
    let script = format!("let r = [{lists}, {lists}]; fake.echo(); r.push({lists}); fake.change(); r.push({lists}); r");
    assert_eq!(value(run(&client, &script).await), json!(["listed_1", "listed_1", "listed_1", "listed_2"]));
    client.close_all_sessions().await;
    Ok(())
}

async fn odd_tools() -> Result<(), Ignored> {
    let client = client(json!({"fake": fake_server::entry("odd-schemas")}));
    let found = client.search_tools("", Detail::Full).await;
    let names: Vec<_> = found.results.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["no_schema", "no_type", "schema_is_a_list", "fine"]);
    assert_eq!(found.results[1].input_schema, Some(json!({"properties": {"a": {"type": "string"}}})));
    let script = "[fake.no_schema(#{a: 1}).tool, fake.no_type().tool, fake.schema_is_a_list().tool, fake.fine().tool]";
    assert_eq!(value(run(&client, script).await), json!(["no-schema", "no-type", "schema-is-a-list", "fine"]));
    client.close_all_sessions().await;
    Ok(())
}

async fn colliding_names() -> Result<(), Ignored> {
    let servers = json!({"a-b": fake_server::entry("collisions"), "a.b": demo(), "fn": demo()});
    let client = client(servers);
    // The first is `a_b` with a digest of `a-b`.
    let [first, second] = ["a_b_ab628bfc", "a_b_08b91858"];
    assert_eq!(value(run(&client, "__tool_namespaces").await), json!([first, second, "fn_"]));
    let found = client.search_tools("", Detail::Names).await;
    let names: Vec<_> = found
        .results
        .iter()
        .filter(|tool| tool.server == first)
        .map(|tool| (tool.name.as_str(), tool.tool_name.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            ("list_files_444c4831", Some("list-files")),
            ("list_files_f12af19f", Some("list.files")),
            ("list_files", None),
            ("_3d", Some("3d")),
            ("if", None),
            ("call", None),
            ("len", None),
            ("print", None),
            ("RiBen", Some("日本")),
            ("type_of", None),
            ("is_shared", None),
        ]
    );
    let script = "let out = []; for tool in search_tools(\"\", \"names\").results { if tool.server == \"FIRST\" { out.push(FIRST.call_tool(tool.name).tool); } }
        [out, FIRST.list_files().tool, FIRST.list_files_444c4831().tool, FIRST.list_files_f12af19f().tool, FIRST._3d().tool, FIRST.if().tool,
         FIRST.RiBen().tool, FIRST.RiBen_fb52b4c8().tool, FIRST.call_tool(\"list.files\").tool, SECOND.list_users().users.len(), fn_.list_users().users.len()]";
    let all =
        ["list-files", "list.files", "list_files", "3d", "if", "call", "len", "print", "日本", "type_of", "is_shared"];
    assert_eq!(
        value(run(&client, &script.replace("FIRST", first).replace("SECOND", second)).await),
        json!([all, "list_files", "list-files", "list.files", "3d", "if", "日本", "日本", "list.files", 5, 5])
    );
    client.close_all_sessions().await;
    Ok(())
}

/// What a script comes to: its value, or the message of its error.
async fn told(client: &Client, code: &str) -> Value {
    let execution = run(client, code).await;
    execution.error.map_or(execution.result, |error| json!(format!("{}: {}", error.kind.as_str(), error.message)))
}

async fn names_stay() -> Result<(), Ignored> {
    // Each call, and what it comes to on a server with these tools, in whatever order.
    let neither = "unknown_tool: the server `it` has no tool `order_get`, as 2 have names that come to that: write";
    let [dot, hyphen] = ["`order_get_cd109c10` (`order.get`)", "`order_get_7df67baf` (`order-get`)"];
    let gone = "unknown_tool: the server `it` has no tool `order_get_cd109c10`";
    for (tools, plain, with_digest, is_own) in [
        (vec!["order.get"], "order.get", "order.get", false),
        (vec!["order.get", "other"], "order.get", "order.get", false),
        (vec!["order.get", "order-get"], "", "order.get", false),
        (vec!["order-get", "order.get"], "", "order.get", false),
        (vec!["order.get", "order_get", "order-get"], "order_get", "order.get", true),
        (vec!["order_get", "order-get", "order.get"], "order_get", "order.get", true),
        (vec!["order-get", "order_get"], "order_get", "", true),
    ] {
        let listed: Vec<Value> = tools.iter().map(|name| fake_server::tool(name)).collect();
        let client = client(json!({"it": fake_server::scripted(&listed, &[])}));
        let called = told(&client, "it.order_get().tool").await;
        if plain.is_empty() {
            let (first, second) = if tools[0] == "order.get" { (dot, hyphen) } else { (hyphen, dot) };
            assert_eq!(called, json!(format!("{neither} {first} or {second}")), "{tools:?}");
        } else {
            assert_eq!(called, json!(plain), "{tools:?}");
        }
        let called = told(&client, "it.order_get_cd109c10().tool").await;
        if with_digest.is_empty() {
            assert!(called.as_str().unwrap().starts_with(gone), "{called}");
        } else {
            assert_eq!(called, json!(with_digest), "{tools:?}");
        }
        for name in &tools {
            assert_eq!(told(&client, &format!("it.call_tool({name:?}).tool")).await, json!(name));
        }
        // What a search shows is what can be called.
        for found in client.search_tools("order", Detail::Names).await.results {
            let own = found.tool_name.clone().unwrap_or_else(|| found.name.clone());
            assert_eq!(told(&client, &format!("it.{}().tool", found.name)).await, json!(own), "{tools:?}");
            assert_eq!(found.name == "order_get", own == "order_get" || (!is_own && plain == own), "{tools:?}");
        }
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn server_names_stay() -> Result<(), Ignored> {
    let server = |name: &str| fake_server::scripted(&[fake_server::tool(name)], &[]);
    let both = client(json!({"a.b": server("dot"), "a-b": server("hyphen")}));
    assert_eq!(told(&both, "a_b_08b91858.dot().tool").await, json!("dot"));
    assert_eq!(told(&both, "fn f() { a_b_ab628bfc.hyphen().tool } f()").await, json!("hyphen"));
    assert_eq!(
        told(&both, "a_b.dot()").await,
        json!(
            "unknown_server: there is no server `a_b`, as 2 have names that come to that: write `a_b_08b91858` (`a.b`) or \
             `a_b_ab628bfc` (`a-b`)"
        )
    );
    both.close_all_sessions().await;
    // The name with the digest is one also where it need not be, and never another server's.
    let one = client(json!({"a.b": server("dot")}));
    assert_eq!(told(&one, "[a_b.dot().tool, a_b_08b91858.dot().tool]").await, json!(["dot", "dot"]));
    assert_eq!(told(&one, "__tool_namespaces").await, json!(["a_b"]));
    let unknown = "runtime: there is no variable or server `a_b_ab628bfc`";
    let said = told(&one, "a_b_ab628bfc.dot()").await;
    assert!(said.as_str().unwrap().starts_with(unknown), "{said}");
    one.close_all_sessions().await;
    let own = client(json!({"a.b": server("dot"), "a_b": server("own")}));
    assert_eq!(told(&own, "[a_b.own().tool, a_b_08b91858.dot().tool]").await, json!(["own", "dot"]));
    own.close_all_sessions().await;
    Ok(())
}

async fn listed_twice() -> Result<(), Ignored> {
    let described =
        |name: &str, words: &str| json!({"name": name, "description": words, "inputSchema": {"type": "object"}});
    let tools = [described("same", "first"), described("other", ""), described("same", "second")];
    let client = client(json!({"it": fake_server::scripted(&tools, &[])}));
    let found = client.search_tools("", Detail::Descriptions).await;
    let names: Vec<_> = found.results.iter().map(|tool| (&*tool.name, tool.description.as_deref())).collect();
    assert_eq!(names, [("same", Some("first")), ("other", Some(""))]);
    assert_eq!(told(&client, "it.same().tool").await, json!("same"));
    client.close_all_sessions().await;
    Ok(())
}

async fn long_names() -> Result<(), Ignored> {
    // Of ten million characters, as a list may have, and many that are near to what is asked for.
    let mut tools = vec![fake_server::tool(&"-".repeat(100_000)), fake_server::tool(&"x".repeat(100_000))];
    tools.extend((0..200).map(|index| fake_server::tool(&format!("tool-{index}-{}", "y".repeat(60)))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tools.json");
    std::fs::write(&file, json!({"tools": tools}).to_string()).unwrap();
    let client = client(json!({"it": fake_server::entry(&format!("file:{}", file.display()))}));
    let found = client.search_tools("", Detail::Descriptions).await;
    assert_eq!(found.results.len(), tools.len());
    for tool in &found.results {
        assert!(tool.name.len() <= 128 && tool.signature.as_ref().unwrap().len() < 200, "{}", tool.name.len());
    }
    let code = format!("it.{}().tool.len()", found.results[1].name);
    assert_eq!(told(&client, &code).await, json!(100_000));
    let start = Instant::now();
    let said = told(&client, &format!("it.call_tool(\"{}\")", "x".repeat(50_000))).await;
    assert!(said.as_str().unwrap().len() < 1000, "{said}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    client.close_all_sessions().await;
    Ok(())
}

async fn banner() -> Result<(), Ignored> {
    let client = client(json!({"fake": fake_server::entry("banner")}));
    assert_eq!(value(run(&client, "fake.echo().tool").await), json!("echo"));
    client.close_all_sessions().await;
    Ok(())
}

async fn answers() -> Result<(), Ignored> {
    let client = client(json!({"fake": fake_server::entry("plain")}));
    for (call, expected) in [
        ("text", json!("plain words")),
        ("json_text", json!({"a": [1, 2]})),
        ("nothing", json!(null)),
        ("structured", json!({"a": 1})),
        (
            "structured_image",
            json!({"a": 1, "_content": [{"type": "text", "text": "x"}, {"type": "image", "data": "AAEC", "mimeType": "image/png"}]}),
        ),
        ("structured_list", json!({"result": ["a", 2]})),
        ("structured_warning", json!({"a": 1, "_content": [{"type": "text", "text": "truncated"}]})),
        (
            "two_blocks",
            json!([
                {"type": "text", "text": "one"},
                {"type": "image", "data": "AAEC", "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "file:///a", "text": "b"}},
            ]),
        ),
        ("big_integers", json!({"id": "123456789012345678901234567890", "max": i64::MAX, "min": i64::MIN, "pi": 3.5})),
    ] {
        assert_eq!(value(run(&client, &format!("fake.{call}()")).await), expected, "{call}");
    }
    for (call, kind, message) in [
        ("error", "tool", "disk full"),
        ("error_with_data", "tool", "bad"),
        ("error_without_text", "tool", "the tool failed and did not say why"),
        ("protocol_error", "protocol", "no such thing (JSON-RPC error -32602)"),
        ("not_an_answer", "answer", "the answer can't be used: "),
    ] {
        let out = value(run(&client, &format!("try {{ fake.{call}() }} catch (e) {{ return e }}")).await);
        assert_eq!((&out["kind"], &out["server"]), (&json!(kind), &json!("fake")), "{out}");
        assert!(out["message"].as_str().unwrap().starts_with(message), "{out}");
    }
    let data = value(run(&client, "try { fake.error_with_data() } catch (e) { return e.data.structured.code }").await);
    assert_eq!(data, json!(5));
    client.close_all_sessions().await;
    Ok(())
}

async fn dropping_a_run() -> Result<(), Ignored> {
    for isolation in [rhaiway::Isolation::Sandbox, rhaiway::Isolation::InProcess] {
        let client = builder(json!({"fake": fake_server::entry("plain")})).isolation(isolation).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("here");
        let script = format!("fake.never(#{{path: {:?}}})", here.to_str().unwrap());
        tokio::select! {
            execution = client.execute_code(&script, ExecuteOptions::default()) => panic!("it ended: {execution:?}"),
            () = async { while !here.exists() { tokio::task::yield_now().await } } => {}
        }
        // The server is told, and goes on.
        while value(run(&client, "fake.cancelled().count").await) != json!(1) {}
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn closing_stubborn() -> Result<(), Ignored> {
    let mark = Mark::new("stubborn");
    let client = client(json!({"stubborn": mark.on(fake_server::entry("stubborn")), "demo": mark.on(demo())}));
    assert!(run(&client, "stubborn.echo(); demo.list_users()").await.error.is_none());
    assert!(mark.alive().len() >= 3, "{:?}", mark.alive());
    client.close_all_sessions().await;
    mark.gone().await;
    Ok(())
}

async fn dropping_the_client() -> Result<(), Ignored> {
    let mark = Mark::new("dropped");
    let client = client(json!({"stubborn": mark.on(fake_server::entry("stubborn")), "demo": mark.on(demo())}));
    assert!(run(&client, "stubborn.echo(); demo.list_users()").await.error.is_none());
    client.create_all_sessions().await;
    drop(client);
    mark.gone().await;
    Ok(())
}

async fn dropping_the_runtime() -> Result<(), Ignored> {
    let mark = Mark::new("runtime");
    let servers = json!({"stubborn": mark.on(fake_server::entry("stubborn")), "demo": mark.on(demo())});
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = client(servers);
        assert!(runtime.block_on(run(&client, "stubborn.echo(); demo.list_users()")).error.is_none());
        drop(runtime);
    })
    .join()
    .unwrap();
    mark.gone().await;
    Ok(())
}

async fn logs_as_printed() -> Result<(), Ignored> {
    let client = client(json!({"demo": demo()}));
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = lines.clone();
    let options = ExecuteOptions::default().on_log(move |line| sink.lock().unwrap().push(line.to_string()));
    let execution = client.execute_code("print(\"a\"); print(#{b: 1}); throw \"end\"", options).await.unwrap();
    assert_eq!(execution.logs, ["a", "#{\"b\": 1}"]);
    assert_eq!(*lines.lock().unwrap(), execution.logs);
    Ok(())
}

async fn errors_of_connecting() -> Result<(), Ignored> {
    let servers = json!({
        "exits": fake_server::entry("exits"),
        "junk": fake_server::entry("junk"),
        "folder": {"command": "cat", "cwd": "/no/such/folder"},
        "refused": {"url": "http://127.0.0.1:1/mcp"},
        "socket": {"ws_url": "ws://127.0.0.1:1"},
    });
    let client = builder(servers).connect_timeout(Duration::from_secs(2)).build().unwrap();
    let error = |name: &'static str| {
        let client = client.clone();
        async move { client.create_session(name).await.unwrap_err().to_string() }
    };
    assert_eq!(
        error("exits").await,
        "can't connect to the server `exits`: its process ended (exit status: 3) before it answered `initialize`; its last lines on \
         stderr:\n  first line of trouble\n  no database at localhost:5432"
    );
    assert_eq!(
        error("junk").await,
        "can't connect to the server `junk`: it did not answer the handshake within 2 s; it sent what is no MCP message: \
         `Usage: something else`"
    );
    assert_eq!(
        error("folder").await,
        "can't connect to the server `folder`: can't start `cat`: its folder `/no/such/folder` does not exist"
    );
    assert!(error("refused").await.contains("onnection refused"), "{}", error("refused").await);
    assert!(error("socket").await.contains("onnection refused"), "{}", error("socket").await);
    client.close_all_sessions().await;
    Ok(())
}

async fn never_lists() -> Result<(), Ignored> {
    let servers = json!({"slow": fake_server::entry("never-lists"), "demo": demo()});
    let client = builder(servers).connect_timeout(Duration::from_secs(1)).build().unwrap();
    let found = client.search_tools("", Detail::Names).await;
    assert_eq!(found.meta.total_tools, 9);
    assert_eq!(
        found.meta.unreachable["slow"],
        "the server `slow` failed on `tools/list`: its tools were not listed within 1 s"
    );
    client.close_all_sessions().await;
    Ok(())
}

async fn closing_deaf() -> Result<(), Ignored> {
    let mark = Mark::new("deaf");
    let client = client(json!({"deaf": mark.on(fake_server::entry("deaf"))}));
    // More than a pipe holds, so that the write is still going on when the session is closed.
    let script = "let text = \"x\"; for i in 0..19 { text += text; } deaf.echo(#{text: text})";
    let options = ExecuteOptions::default().timeout(Duration::from_secs(1));
    let error = client.execute_code(script, options).await.unwrap().error.unwrap();
    assert_eq!(error.kind.as_str(), "timeout");
    client.close_all_sessions().await;
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

async fn a_corrected_entry() -> Result<(), Ignored> {
    let client = client(json!({"demo": {"command": "no-such-program-anywhere"}}));
    assert!(run(&client, "demo.list_users()").await.error.is_some());
    client.add_server("demo", demo()).unwrap();
    assert_eq!(value(run(&client, "demo.list_users().users.len()").await), json!(5));
    client.close_all_sessions().await;
    Ok(())
}

async fn named_code_mode() -> Result<(), Ignored> {
    let client = client(json!({"code_mode": demo()}));
    assert_eq!(value(run(&client, "code_mode.list_users().users.len()").await), json!(5));
    let session = client.create_session(CODE_MODE_SESSION).await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 3);
    assert_eq!(value(run(&client, "code_mode.list_users().users.len()").await), json!(5));
    client.close_all_sessions().await;
    Ok(())
}

async fn redirect() -> Result<(), Ignored> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let [first, second] = [
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let url = format!("http://{}/mcp", first.local_addr().unwrap());
    let elsewhere = format!("http://{}/mcp", second.local_addr().unwrap());
    let redirects = tokio::spawn(async move {
        let (mut connection, _) = first.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = connection.read(&mut request).await.unwrap();
        assert!(String::from_utf8_lossy(&request[..read]).contains("x-key: secret"));
        let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(answer.as_bytes()).await.unwrap();
    });
    let client = client(json!({"remote": {"url": url, "headers": {"X-Key": "secret"}}}));
    let error = client.create_session("remote").await.unwrap_err().to_string();
    assert!(error.contains("redirects to another origin"), "{error}");
    redirects.await.unwrap();
    tokio::select! {
        biased;
        _ = second.accept() => panic!("the other origin was asked"),
        () = std::future::ready(()) => {}
    }
    Ok(())
}
