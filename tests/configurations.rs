//! Configurations as other clients write them: where servers are, what keys are called, filters of tools, `${…}`, comments that stay, and
//! whether a file that was found may start programs.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use rhaiway::{CallOptions, Client, Config, Detail, Error, FailureKind, Transport};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::authorization::Request;
use crate::support::{Ignored, builder, cache_dir, demo, program, run, target_dir, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("configurations::every_dialect_starts_the_same_server", dialects),
        test("configurations::what_is_not_read_says_what_to_write", not_read),
        test("configurations::comments_stay_when_servers_change", comments),
        test("configurations::slips_are_told_and_those_about_safety_refused", slips),
        test("configurations::times_and_headers_are_taken_as_they_are_meant", meant),
        test("configurations::a_tool_that_is_excluded_can_not_be_called", filters),
        test("configurations::a_filter_that_makes_no_sense_starts_nothing", broken_filters),
        test("configurations::paths_and_files_of_variables_start_in_its_folder", paths),
        test("configurations::inputs_are_asked_for_once", inputs),
        test("configurations::no_secret_is_in_an_error", secrets),
        test("configurations::credentials_are_sent_once_and_never_shown", credentials),
        test("configurations::a_file_that_was_found_needs_trust", trust),
        #[cfg(unix)]
        test("configurations::a_person_at_the_terminal_is_asked", terminal),
        test("configurations::the_demo_says_that_it_is_one", the_demo),
    ]
}

/// First argument of the test binary that makes it a server which says what it was given.
pub const ARGUMENT: &str = "given-server";

pub fn main(arguments: &[String]) {
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let Some(id) = request.get("id") else { continue };
        let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
        let answer = match request["method"].as_str().unwrap_or_default() {
            "initialize" => json!({"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "given", "version": "1"}}}),
            "tools/list" => json!({"result": {"tools": [tool("given"), tool("delete-all"), tool("read")]}}),
            "tools/call" if request["params"]["name"] == "given" => {
                let env: Map<String, Value> = std::env::vars().map(|(name, value)| (name, value.into())).collect();
                let cwd = std::env::current_dir().unwrap();
                json!({"result": {"content": [], "structuredContent": {"args": arguments, "env": env, "cwd": cwd}}})
            }
            "tools/call" => json!({"result": {"content": [{"type": "text", "text": "did it"}]}}),
            _ => json!({"error": {"code": -32601, "message": "no such method"}}),
        };
        let mut answer = answer;
        answer["jsonrpc"] = json!("2.0");
        answer["id"] = id.clone();
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

fn this_program() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

/// The entry of that server.
fn given() -> Value {
    json!({"command": this_program(), "args": [ARGUMENT]})
}

fn with(mut entry: Value, key: &str, value: Value) -> Value {
    entry[key] = value;
    entry
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn client_of(config: Config) -> Client {
    let variables = |name: &str| match name {
        "GIVEN" => Some("from outside".to_string()),
        "SECRET" => Some("s3cr3t value".to_string()),
        "RHAIWAY_INPUT_API_KEY" => Some("from the environment".to_string()),
        name => std::env::var(name).ok(),
    };
    Client::builder().config(config).variables(variables).cache_dir(cache_dir()).code_mode(true).build().unwrap()
}

async fn what_was_given(config: Config) -> Value {
    let client = client_of(config);
    let given = value(run(&client, "fake.given()").await);
    client.close_all_sessions().await;
    given
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// The command in a folder, for a user whose state is in another.
fn command(arguments: &[&str], folder: &Path, state: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("RHAIWAY_LOG")
        .env("XDG_CACHE_HOME", target_dir().join("cache"))
        .env("XDG_STATE_HOME", state)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn ran(arguments: &[&str], folder: &Path, state: &Path) -> Ran {
    let output = command(arguments, folder, state).output().await.unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn dialects() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let this = serde_json::to_string(&this_program()).unwrap();
    let entry = given().to_string();
    let mut list = serde_json::to_string(&[&this_program(), ARGUMENT]).unwrap();
    list.pop();
    for (name, text) in [
        ("claude.json", format!("{{\"mcpServers\": {{\"fake\": {entry}}}}}")),
        (
            "comments.json",
            format!(
                "\u{feff}// ours\n{{\"mcpServers\": {{\n// \"old\": {{}},\n\"fake\": {{\"command\": {this}, /* a port */ \"args\": [\"{ARGUMENT}\", 8080, true], \
                 \"env\": {{\"A\": 1, \"B\": null, \"C\": false}}, }}, }}, }}"
            ),
        ),
        ("mcp.json", format!("{{\"inputs\": [], \"servers\": {{\"fake\": {entry}}}}}")),
        ("settings.json", format!("{{\"editor.fontSize\": 12, \"mcp\": {{\"servers\": {{\"fake\": {entry}}}}}}}")),
        ("dotted.json", format!("{{\"mcp.servers\": {{\"fake\": {entry}}}}}")),
        (
            "zed.json",
            format!(
                "{{\"context_servers\": {{\"fake\": {{\"source\": \"custom\", \"command\": {{\"path\": {this}, \"args\": [\"{ARGUMENT}\"], \"env\": \
                 {{\"A\": \"1\"}}}}}}}}}}"
            ),
        ),
        (
            "opencode.json",
            format!(
                "{{\"mcp\": {{\"fake\": {{\"type\": \"local\", \"command\": {list}, \"two\"], \"environment\": {{\"A\": \"{{env:GIVEN}}\"}}, \"enabled\": \
                 true}}}}}}"
            ),
        ),
        (
            "codex.toml",
            format!(
                "[mcp_servers.fake]\ncommand = {this}\nargs = [\"{ARGUMENT}\"]\nstartup_timeout_sec = 20\ntool_timeout_sec = 60\n\
                 enabled_tools = [\"given\"]\n[mcp_servers.fake.env]\nA = \"1\"\n"
            ),
        ),
        (
            "copilot.json",
            format!(
                "{{\"mcpServers\": {{\"fake\": {{\"type\": \"local\", \"command\": {this}, \"args\": [\"{ARGUMENT}\"], \"tools\": [\"*\"]}}}}}}"
            ),
        ),
        (
            "goose.json",
            format!(
                "{{\"mcpServers\": {{\"fake\": {{\"type\": \"stdio\", \"cmd\": {this}, \"args\": [\"{ARGUMENT}\"], \"envs\": {{\"A\": \"1\"}}}}}}}}"
            ),
        ),
    ] {
        let path = file(folder.path(), name, &text);
        let config = Config::from_file(&path).unwrap();
        assert_eq!(config.server_names(), ["fake"], "{name}");
        assert_eq!(
            config.problems().iter().map(ToString::to_string).collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{name}"
        );
        assert_eq!(config.warnings(), [], "{name}");
        // What it is saved as is what it was, to the byte; TOML becomes JSON that says the same.
        let saved = folder.path().join("saved.json");
        config.save(&saved).unwrap();
        if name != "codex.toml" {
            assert_eq!(std::fs::read_to_string(&saved).unwrap(), text, "{name}");
        }
        assert_eq!(Config::from_file(&saved).unwrap(), config, "{name}");
        let given = what_was_given(config).await;
        match name {
            "comments.json" => {
                assert_eq!(given["args"], json!(["8080", "true"]), "{name}");
                assert_eq!(
                    json!([given["env"]["A"], given["env"]["B"], given["env"]["C"]]),
                    json!(["1", null, "false"])
                );
            }
            "opencode.json" => {
                assert_eq!((&given["args"], &given["env"]["A"]), (&json!(["two"]), &json!("from outside")));
            }
            "zed.json" | "codex.toml" | "goose.json" => assert_eq!(given["env"]["A"], json!("1"), "{name}"),
            _ => {}
        }
    }
    // Addresses under other names.
    for (key, is_streamable_only) in [("url", false), ("serverUrl", false), ("uri", false), ("httpUrl", true)] {
        let config = Config::from_value(json!({"mcpServers": {"far": {key: "http://127.0.0.1:9/mcp"}}})).unwrap();
        let Transport::Http(http) = config.server("far").unwrap().transport else { panic!("{key} is HTTP") };
        assert_eq!((http.url.as_str(), http.sse_fallback), ("http://127.0.0.1:9/mcp", !is_streamable_only), "{key}");
    }
    // The same name twice: the first is used, and it is said.
    let both = json!({"mcpServers": {"fake": given()}, "servers": {"fake": {"command": "other"}, "more": given()}});
    let config = Config::from_value(both).unwrap();
    assert_eq!(config.server_names(), ["fake", "more"]);
    assert_eq!(
        config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["in the configuration, servers.fake: it is not used, as there is `mcpServers.fake`, which goes before it"]
    );
    what_was_given(config).await;
    Ok(())
}

async fn not_read() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, message) in [
        (
            "goose.yaml",
            "extensions:\n  fake:\n    cmd: x\n",
            "it looks like YAML, and only JSON (comments are fine) and TOML are read",
        ),
        ("config.json", "mcp:\n  a: b\n", "it looks like YAML"),
        (
            "config.json",
            "[mcp_servers.fake]\ncommand = \"x\"\n",
            "it looks like TOML, which is read from files whose names end with `.toml`",
        ),
        ("config.toml", "[a]\nb = \n", "not TOML: "),
        ("config.json", "{\n  // why\n  \"mcpServers\": {\n    \"a\": {,}\n}}", "at line 4 column 11"),
        ("config.json", "{\"mcpServers\": {}", "not JSON: unterminated object"),
        ("config.json", "{'mcpServers': {}}", "not JSON: single-quoted strings are not allowed"),
        ("config.json", "", "not JSON: it is empty"),
        (
            "config.json",
            "{\"theme\": 1, \"mcp\": {\"enabled\": true}}",
            "expected `mcpServers`, found only `theme`, `mcp`",
        ),
    ] {
        let path = file(folder.path(), name, text);
        let error = Config::from_file(path).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains(name), "{text}: {error}");
    }
    let deep = format!("{{\"mcpServers\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Config::from_text(&deep, "deep.json").is_err());
    let config = Config::from_value(json!({"mcpServers": {}})).unwrap();
    let error = config.save(folder.path().join("config.toml")).unwrap_err().with_causes();
    assert!(error.contains("written as JSON only"), "{error}");
    Ok(())
}

async fn comments() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let text = "// ours\n{\n  \"theme\": \"dark\", // as it should be\n  \"servers\": {\n    // the old one\n    \"old\": { \"command\": \"x\" },\n    \
                /* kept */ \"kept\": { \"command\": \"y\", }, // here\n  },\n}\n";
    let path = file(folder.path(), "mcp.json", text);
    let client = Client::builder().config(Config::from_file(&path).unwrap()).build().unwrap();
    client.add_server("new", json!({"command": "z", "args": ["a\"b"]})).unwrap();
    client.remove_server("old").await.unwrap();
    client.save_config(&path).unwrap();
    let saved = std::fs::read_to_string(&path).unwrap();
    for kept in ["// ours\n", "// as it should be\n", "/* kept */ \"kept\": { \"command\": \"y\", }", "// here"] {
        assert!(saved.contains(kept), "{kept}: {saved}");
    }
    let again = Config::from_file(&path).unwrap();
    assert_eq!(again, client.config());
    assert_eq!(again.server_names(), ["kept", "new"]);
    let mut replaced = again.clone();
    replaced.add_server("kept", json!({"url": "http://localhost"})).unwrap();
    replaced.save(&path).unwrap();
    let saved = std::fs::read_to_string(&path).unwrap();
    assert!(saved.contains("// here") && saved.contains("http://localhost"), "{saved}");
    assert_eq!(Config::from_file(&path).unwrap(), replaced);
    Ok(())
}

async fn slips() -> Result<(), Ignored> {
    let config = |key: &str, found: Value| {
        let mut entry = json!({"command": "x"});
        entry[key] = found;
        Config::from_value(json!({"mcpServers": {"a": entry}})).unwrap()
    };
    for (key, meant) in
        [("arg", "args"), ("cwdd", "cwd"), ("conect_timeout", "connect_timeout"), ("call_timeot", "call_timeout")]
    {
        let config = config(key, json!("x"));
        assert_eq!(config.problems().len(), 0, "{key}");
        let expected =
            format!("in the configuration, mcpServers.a.{key}: there is no such key: did you mean `{meant}`?");
        assert_eq!(config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
    for (key, meant) in [
        ("sandboxx", "sandbox"),
        ("sandboxed", "sandbox"),
        ("sandBox", "sandbox"),
        ("excludeTool", "excludeTools"),
        ("disabledtools", "disabledTools"),
        ("exclude-tools", "excludeTools"),
        ("alowedTools", "allowedTools"),
        ("tool", "tools"),
        ("disable", "disabled"),
    ] {
        let config = config(key, json!(true));
        let problem = config.problems().first().map(ToString::to_string).unwrap_or_default();
        let expected = format!("mcpServers.a.{key}: there is no such key: did you mean `{meant}`?");
        assert!(problem.contains(&expected), "{key}: {problem}");
        assert!(config.server("a").is_err());
    }
    // Keys of other clients, and both of our cases.
    for key in [
        "description",
        "icon",
        "trust",
        "alwaysAllow",
        "autoApprove",
        "autoapprove",
        "oauth",
        "source",
        "gallery",
        "note",
    ] {
        let config = config(key, json!(["given"]));
        assert_eq!((config.problems().len(), config.warnings()), (0, Vec::new()), "{key}");
    }
    for key in ["callTimeout", "call_timeout"] {
        let timeout = config(key, json!(5)).server("a").unwrap().call_timeout;
        assert_eq!(timeout, Some(std::time::Duration::from_secs(5)), "{key}");
    }
    let twice =
        Config::from_value(json!({"mcpServers": {"a": {"command": "x", "env": {}, "environment": {}}}})).unwrap();
    assert_eq!(
        twice.problems()[0].to_string(),
        "in the configuration, mcpServers.a.environment: it has `env` too, which means the same: keep one"
    );
    let slip = Config::from_value(json!({"mcpServers": {"a": {"comand": "x"}}})).unwrap().problems()[0].to_string();
    assert!(slip.ends_with("it has none of `command` (stdio), `url` (HTTP), `ws_url` (WebSocket); there is `comand`: did you mean `command`?"), "{slip}");
    let error = Client::builder().config(config("args", json!([]))).allowed_servers(["aa"]).build().err().unwrap();
    assert_eq!(error.to_string(), "there is no server `aa`: did you mean `a`?");
    Ok(())
}

async fn meant() -> Result<(), Ignored> {
    let entry = json!({"url": "http://localhost/mcp", "timeout": 30000, "call_timeout": "90s", "connect_timeout": "500ms", "headers": {
        "Accept": "application/json, text/event-stream", "content-type": "text/plain", "X-Key": "$TOKEN", "X-None": null, "X-Port": 8080}});
    let config = Config::from_value(json!({"mcpServers": {"a": entry}})).unwrap();
    let server = config.server("a").unwrap();
    let Transport::Http(http) = &server.transport else { panic!("it is HTTP") };
    let seconds = std::time::Duration::from_secs;
    assert_eq!((http.timeout, server.call_timeout), (Some(seconds(30)), Some(seconds(90))));
    assert_eq!(server.connect_timeout, Some(std::time::Duration::from_millis(500)));
    assert_eq!(http.headers.keys().collect::<Vec<_>>(), ["X-Key", "X-Port"]);
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for message in [
        "mcpServers.a.timeout: `30000` is taken as milliseconds, as other clients write them: 30 s",
        "mcpServers.a.headers.content-type: it is left out",
        "mcpServers.a.headers.X-Key: `$TOKEN` is sent as it is: write `${TOKEN}`",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(message)), "{message}: {warnings:#?}");
    }
    for (entry, message) in [
        (
            json!({"url": "http://a", "headers": {"a b": "c"}}),
            "mcpServers.a.headers.a b: no HTTP header can have this name",
        ),
        (
            json!({"url": "http://a", "headers": {"A": "b\nc"}}),
            "mcpServers.a.headers.A: it has characters that no HTTP header can hold",
        ),
        (
            json!({"url": "http://a", "headers": {"A": "b", "a": "c"}}),
            "mcpServers.a.headers.a: it is `A` in other letters: keep one",
        ),
        (json!({"url": "http://a", "timeout": "soon"}), "mcpServers.a.timeout: expected a duration, such as"),
        (
            json!({"url": "http://me:pass@a", "auth": "t"}),
            "mcpServers.a.url: there are a name and password in it, which exclude `auth`",
        ),
    ] {
        let problem = Config::from_value(json!({"mcpServers": {"a": entry}})).unwrap().problems()[0].to_string();
        assert!(problem.contains(message) && !problem.contains("pass@"), "{problem}");
    }
    Ok(())
}

async fn filters() -> Result<(), Ignored> {
    for (key, filter) in [
        ("excludeTools", json!(["delete-all"])),
        ("exclude_tools", json!(["delete_all"])),
        ("disabledTools", json!(["DELETE-all"])),
        ("disabled_tools", json!(["*all*"])),
        ("blockedTools", json!(["delete*"])),
        ("deniedTools", json!(["nothing", "delete-all"])),
        ("denyTools", json!(["delete-all(x)"])),
        ("includeTools", json!(["read"])),
        ("allowedTools", json!(["re*"])),
        ("enabled_tools", json!(["read", "given"])),
        ("include_tools", json!(["read"])),
        ("tools", json!(["read"])),
        ("tools", json!({"delete-all": false})),
        ("tools", json!({"delete-all": {"enabled": false}, "read": {"enabled": true}})),
        ("tools", json!({"*": false, "read": true})),
        ("toolFilter", json!({"blockedToolNames": ["delete-all"]})),
        // As the tool's name is written elsewhere.
        ("excludeTools", json!(["deleteAll"])),
        ("excludeTools", json!(["fake_delete-all"])),
        ("excludeTools", json!(["mcp__fake__delete_all"])),
        ("excludeTools", json!(["fake::delete-all"])),
        ("tools", json!({"delete-all": "deny"})),
        ("tools", json!({"delete-all": {"Enabled": false}})),
        ("tools", json!({"delete-all": {"permission": "deny"}})),
        ("tools", json!({"delete-all": {"hidden": true, "enabled": true}})),
    ] {
        let client = builder(json!({"fake": with(given(), key, filter.clone())})).build().unwrap();
        let script = "let said = []; for name in [\"delete-all\", \"delete_all\"] { try { said.push(fake.call_tool(name)) } catch (e) { said.push(e.kind); \
                      said.push(e.message); } } try { fake.delete_all() } catch (e) { said.push(e.kind) } [fake.read(), said, search_tools(\"delete\").results.len()]";
        let out = value(run(&client, script).await);
        assert_eq!(
            json!([out[0], out[1][0], out[1][2], out[1][4], out[2]]),
            json!(["did it", "unknown_tool", "unknown_tool", "unknown_tool", 0]),
            "{key}: {out}"
        );
        let named = key.split(['.', '_']).next().unwrap();
        assert!(out[1][1].as_str().unwrap().contains(named), "{key}: {out}");
        let found = client.search_tools("", Detail::Names).await;
        assert!(found.results.iter().all(|tool| tool.name != "delete_all"), "{key}");
        assert!(found.meta.total_tools < 3, "{key}");
        let permissions = client.permissions();
        assert!(permissions[0].tools.join(" ").contains(named), "{key}: {permissions:?}");
        client.close_all_sessions().await;
        // The library's own way in.
        let client = builder(json!({"fake": with(given(), key, filter)})).code_mode(false).build().unwrap();
        let session = client.create_session("fake").await.unwrap();
        assert!(session.list_tools().await.unwrap().iter().all(|tool| tool.name != "delete-all"));
        let Err(Error::Call(failure)) = session.call_tool("delete-all", Map::new(), CallOptions::default()).await
        else {
            panic!("{key}: it was called")
        };
        assert_eq!(failure.kind, FailureKind::Rejected);
        assert!(failure.message.contains("`mcpServers.fake`"), "{}", failure.message);
        client.close_all_sessions().await;
    }
    // What is denied is denied, whatever allows it; what is not asked about is something else.
    let mut both = with(given(), "includeTools", json!(["*"]));
    both["exclude_tools"] = json!(["delete-all"]);
    let filter = |entry: Value| {
        Config::from_value(json!({"mcpServers": {"fake": entry}})).unwrap().server("fake").unwrap().tools
    };
    assert!(!filter(both.clone()).allows("delete-all") && filter(both).allows("read"));
    for key in ["alwaysAllow", "autoApprove", "autoapprove"] {
        assert!(filter(with(given(), key, json!(["read"]))).allows("delete-all"), "{key}");
    }
    assert!(filter(with(given(), "tools", json!(["*"]))).is_all());
    assert!(filter(with(given(), "available_tools", json!([]))).is_all());
    assert!(!filter(with(given(), "tools", json!([]))).allows("read"));
    // What the file says of all servers.
    for more in [
        json!({"excludeTools": ["delete-all"]}),
        json!({"tools": {"fake_delete*": false}}),
        json!({"tools": {"exclude": ["delete-all"]}}),
        json!({"tools": {"fake_delete-all": "deny", "fake_read": "ask"}}),
        json!({"tools": {"fake_delete-all": {"enabled": false}}}),
        json!({"excludeTools": ["fake::delete-all"]}),
        json!({"permissions": {"deny": ["Bash(rm:*)", "mcp__fake__delete_all"], "allow": ["mcp__fake__read"]}}),
        json!({"permission": {"bash": "ask", "fake_delete*": "deny"}}),
        json!({"toolFilter": {"blockedTools": ["delete-all"]}}),
        json!({"mcp": {"excludeTools": ["delete-all"]}}),
    ] {
        let mut document = more;
        document["mcpServers"] = json!({"fake": given()});
        let tools = Config::from_value(document.clone()).unwrap().server("fake").unwrap().tools;
        assert!(!tools.allows("delete-all") && tools.allows("read"), "{document}");
    }
    let whole = json!({"mcpServers": {"fake": given()}, "permissions": {"deny": ["mcp__fake"]}});
    assert!(!Config::from_value(whole).unwrap().server("fake").unwrap().tools.allows("read"));
    // Letters that are not those of ASCII, in each way to write them, and what `rhaiway tools` shows in their place.
    let digest = &blake3::hash("delete.it".as_bytes()).to_hex()[..8];
    for (tool, name) in [
        ("löschen", "LO\u{308}SCHEN".to_string()),
        ("löschen", "loschen".into()),
        ("删除", "ShanChu".into()),
        ("delete.it", format!("delete_it_{digest}")),
    ] {
        let denies = filter(with(given(), "excludeTools", json!([name])));
        assert!(!denies.allows(tool) && denies.allows("read"), "{tool} {name}");
    }
    // A name that is too long to be compared is allowed where nothing is said alone.
    let long = "x".repeat(100_000);
    assert!(!filter(with(given(), "excludeTools", json!(["*a*b"]))).allows(&long));
    assert!(!filter(with(given(), "includeTools", json!(["x*"]))).allows(&long));
    assert!(filter(with(given(), "includeTools", json!(["*"]))).allows(&long) && filter(given()).allows(&long));
    // What is allowed has to be named as it is.
    let allows = filter(with(given(), "includeTools", json!(["read", "Delete_all(path)"])));
    assert!(allows.allows("read") && allows.allows("delete-all") && allows.allows("delete_all"));
    assert!(!allows.allows("read(evil)") && !allows.allows("deleteall") && !allows.allows("fake_read"));
    let without = json!({"mcpServers": {"fake": given(), "other": given()}, "mcp": {"excluded": ["other"]}});
    let client = Client::builder().config(Config::from_value(without).unwrap()).code_mode(true).build().unwrap();
    assert_eq!(value(run(&client, "__tool_namespaces").await), json!(["fake"]));
    // A name that is none is told when the tools are listed; permissions show the filter.
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let slip = json!({"mcpServers": {"fake": with(given(), "excludeTools", json!(["delete_al"]))}});
    let path = file(folder.path(), "config.json", &slip.to_string());
    let listed = ran(&["tools", "--config", &path], folder.path(), state.path()).await;
    assert!(
        listed.stderr.contains("the server `fake` has no tool `delete_al`, which `excludeTools` of its configuration names: did you mean `delete-all`?"),
        "{}",
        listed.stderr
    );
    let shown = ran(&["permissions", "--config", &path], folder.path(), state.path()).await;
    assert!(shown.stdout.contains("excludeTools") && shown.stdout.contains("delete_al"), "{}", shown.stdout);
    Ok(())
}

async fn broken_filters() -> Result<(), Ignored> {
    for (key, filter, message) in [
        ("excludeTools", json!("delete_all"), "expected an array of names of tools, found a string"),
        ("disabled_tools", json!([5]), "disabled_tools[0]: expected the name of a tool, found `5`"),
        ("tools", json!(true), "expected an array of names of tools, or an object that says which are on"),
        ("tools", json!({"read": "no"}), "tools.read: expected `true` or `false`"),
        ("tools", json!({"read": {"enabled": "no"}}), "tools.read.enabled: expected `true` or `false`"),
        ("allowedTools", json!([" "]), "allowedTools[0]: expected the name of a tool, found nothing"),
        ("includeTools", json!(["x".repeat(1000)]), "no name of a tool is longer than 512 bytes"),
        (
            "excludeTools",
            json!((0..300).map(|number| format!("{number}*")).collect::<Vec<_>>()),
            "there are more than 256 names with a `*`",
        ),
        ("disabled", json!("yes"), "disabled: expected `true` or `false`"),
        ("includeTools", json!(["*", "!delete-all"]), "includeTools[1]: `!` means nothing in the name of a tool"),
        ("excludeTools", json!(["delete?all"]), "excludeTools[0]: `?` means nothing in the name of a tool"),
        ("excludeTools", json!(["/delete.*/"]), "`/` means nothing in the name of a tool"),
        ("excludeTools", json!(["{read,delete-all}"]), "`{` means nothing in the name of a tool"),
        ("tools", json!({"delete-all": {"excludeFrom": ["x"]}}), "tools.delete-all.excludeFrom: there is no such key"),
        ("toolFilter", json!({"exclude": ["delete-all"]}), "toolFilter.exclude: there is no such key"),
        ("toolFilter", json!({"mode": "deny", "tools": ["delete-all"]}), "toolFilter.mode: there is no such key"),
        ("exclude", json!(["delete-all"]), "exclude: there is no such key"),
        ("blocked", json!(["delete-all"]), "blocked: there is no such key"),
        ("permissions", json!({"deny": ["delete-all"]}), "permissions: there is no such key"),
        ("permission", json!({"delete-all": "deny"}), "permission: there is no such key"),
        ("toolSettings", json!({"delete-all": {"enabled": false}}), "toolSettings: there is no such key"),
        ("toolOverrides", json!({"delete-all": {"disabled": true}}), "toolOverrides: there is no such key"),
        (
            "tool_configuration",
            json!({"enabled": true, "allowed_tools": ["read"]}),
            "tool_configuration: there is no such key",
        ),
        ("hideTools", json!(["delete-all"]), "hideTools: there is no such key"),
        ("ignoreTools", json!(["delete-all"]), "ignoreTools: there is no such key"),
        ("options", json!({"sandbox": true}), "options.sandbox: it means nothing here"),
        ("isolated", json!(true), "isolated: there is no such key"),
        ("args", json!(["x", "a\u{0}b"]), "args[1]: there is a NUL in it"),
        ("connect_timeout", json!(1e300), "connect_timeout: expected a duration of less than 10^19 seconds"),
        ("call_timeout", json!("1e300s"), "call_timeout: expected a duration of less than 10^19 seconds"),
    ] {
        let client = builder(json!({"fake": with(given(), key, filter)})).build().unwrap();
        let problem = client.config().problems().first().map(ToString::to_string).unwrap_or_default();
        assert!(problem.contains(message), "{key}: {problem}");
        assert!(run(&client, "fake.read()").await.error.is_some(), "{key}");
    }
    // What other settings of tools are called is nobody's business.
    for (key, value) in [
        ("tool_config", json!({"enabled": true, "format": "short"})),
        ("toolPrefix", json!("x_")),
        ("tools", json!({"read": {"approval_mode": "prompt", "description": "reads"}})),
        ("default_tools_approval_mode", json!("prompt")),
    ] {
        let config = Config::from_value(json!({"mcpServers": {"fake": with(given(), key, value)}})).unwrap();
        assert!(config.server("fake").unwrap().tools.allows("delete-all"), "{key}");
    }
    // A slip at the top.
    for key in ["excludeTool", "disabled_tool"] {
        let document = json!({"mcpServers": {"fake": given()}, key: ["delete-all"]});
        let problem = Config::from_value(document).unwrap().server("fake").unwrap_err().to_string();
        assert!(problem.contains(&format!("{key}: there is no such key: did you mean")), "{problem}");
    }
    let document = json!({"mcpServers": {"fake": given()}, "sandbox": true});
    let warnings = Config::from_value(document).unwrap().warnings();
    assert!(warnings[0].to_string().contains("sandbox: it means nothing here"), "{warnings:?}");
    // Which of two is taken differs from reader to reader.
    for text in [
        r#"{"mcpServers": {"a": {"command": "x", "excludeTools": ["y"],"excludeTools": []}}}"#,
        "{\"mcpServers\": {\"a\": {\"command\": \"x\"},\n // later\n \"a\": {\"command\": \"y\"}}}",
    ] {
        let problem = Config::from_text(text, "mcp.json").unwrap_err().to_string();
        assert!(problem.contains("is there twice in one object, again at line"), "{problem}");
    }
    Ok(())
}

async fn paths() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(place.join("work")).unwrap();
    file(&place, ".vscode/vars.env", "# ours\nFROM_FILE=\"yes\"\nBOTH=file\n");
    let mut entry = with(given(), "cwd", json!("../work"));
    entry["envFile"] = json!("vars.env");
    entry["env"] = json!({"BOTH": "entry", "FOLDER": "${workspaceFolder}|${workspaceFolderBasename}", "LITERAL": "$${A} ${d%/}",
        "NESTED": "${NO_SUCH:-${NOR_THIS:-x}}", "HOMES": "${userHome}"});
    entry["args"] = json!([ARGUMENT, "~/x", "./y"]);
    let path = file(&place, ".vscode/mcp.json", &json!({"servers": {"fake": entry}}).to_string());
    let given = what_was_given(Config::from_file(&path).unwrap()).await;
    assert_eq!(given["cwd"], json!(place.join("work")));
    assert_eq!(given["args"], json!(["~/x", "./y"]), "arguments are the program's own");
    let env = &given["env"];
    assert_eq!(
        json!([env["FROM_FILE"], env["BOTH"], env["NESTED"], env["LITERAL"]]),
        json!(["yes", "entry", "x", "${A} ${d%/}"])
    );
    let name = place.file_name().unwrap().to_str().unwrap();
    assert_eq!(env["FOLDER"], json!(format!("{}|{name}", place.display())));
    assert_eq!(env["HOMES"], json!(std::env::var("HOME").unwrap()));

    // Folders of a sandbox are expanded once, as all else is.
    std::fs::create_dir_all(place.join("${GIVEN}")).unwrap();
    let mounts = json!({"mounts": [{"host": "$${GIVEN}", "guest": "/given"}]});
    let path =
        file(&place, "mcp.json", &json!({"mcpServers": {"fake": with(self::given(), "sandbox", mounts)}}).to_string());
    let shown = client_of(Config::from_file(&path).unwrap()).permissions();
    assert!(format!("{shown:?}").contains(&format!("{}/${{GIVEN}}", place.display())), "{shown:?}");
    // Certificates are beside the configuration too.
    file(&place, "ca.pem", "none");
    let entry = json!({"url": "https://localhost:1/mcp", "ca_file": "ca.pem"});
    let path = file(&place, "mcp.json", &json!({"mcpServers": {"far": entry}}).to_string());
    let error = client_of(Config::from_file(&path).unwrap()).create_session("far").await.unwrap_err().to_string();
    assert!(error.contains("ca_file: the file `ca.pem` has no certificates"), "{error}");

    // A program beside the configuration, which is started from anywhere.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(this_program(), place.join("server")).unwrap();
        let entry = json!({"command": "./server", "args": [ARGUMENT], "cwd": "work"});
        let path = file(&place, "mcp.json", &json!({"mcpServers": {"fake": entry}}).to_string());
        assert_eq!(what_was_given(Config::from_file(&path).unwrap()).await["cwd"], json!(place.join("work")));
    }

    for (vars, message) in
        [(Some("A=1\nsecret words\n"), "vars.env`, line 2: expected `NAME=value`"), (None, "No such file or directory")]
    {
        let folder = tempfile::tempdir().unwrap();
        if let Some(vars) = vars {
            file(folder.path(), "vars.env", vars);
        }
        let entry = with(self::given(), "envFile", json!("vars.env"));
        let path = file(folder.path(), "mcp.json", &json!({"servers": {"fake": entry}}).to_string());
        let error = client_of(Config::from_file(&path).unwrap())
            .execute_code("fake.given()", rhaiway::ExecuteOptions::default())
            .await
            .unwrap()
            .error
            .unwrap()
            .message;
        assert!(
            error.contains("servers.fake.envFile: ") && error.contains(message) && !error.contains("secret"),
            "{error}"
        );
    }
    Ok(())
}

async fn inputs() -> Result<(), Ignored> {
    let document = |id: &str| {
        let entry = with(given(), "env", json!({"KEY": format!("${{input:{id}}}"), "EASY": "${input:easy}"}));
        json!({"inputs": [{"id": "api-key", "type": "promptString", "password": true}, {"id": "secret", "description": "The key"},
            {"id": "easy", "default": "default"}], "servers": {"fake": entry, "again": given()}})
    };
    // From the environment, and from its default.
    let given = what_was_given(Config::from_value(document("api-key")).unwrap()).await;
    assert_eq!((&given["env"]["KEY"], &given["env"]["EASY"]), (&json!("from the environment"), &json!("default")));
    // From whoever can be asked, once.
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let client = Client::builder()
        .config(Config::from_value(document("secret")).unwrap())
        .variables(|name| std::env::var(name).ok())
        .cache_dir(cache_dir())
        .code_mode(true)
        .on_input(move |input| {
            log.lock().unwrap().push((input.id.clone(), input.is_password));
            async move { Ok::<_, String>((input.id == "secret").then(|| "answered".to_string())) }
        })
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(value(run(&client, "fake.given().env.KEY").await), json!("answered"));
        client.close_all_sessions().await;
    }
    assert_eq!(*asked.lock().unwrap(), [("secret".to_string(), false), ("easy".to_string(), false)]);
    // From nobody.
    for (id, message) in [
        (
            "secret",
            "servers.fake.env.KEY: it needs the input `secret` (see `inputs`), and there is nobody to ask: set the variable `RHAIWAY_INPUT_SECRET`",
        ),
        ("none", "servers.fake.env.KEY: it needs the input `none`, and `inputs` has none of that `id`"),
    ] {
        let client = client_of(Config::from_value(document(id)).unwrap());
        let error = run(&client, "fake.given()").await.error.unwrap().message;
        assert!(error.contains(message), "{error}");
    }
    Ok(())
}

async fn secrets() -> Result<(), Ignored> {
    for (entry, message) in [
        (
            json!({"command": "no-such-program --key ${SECRET}"}),
            "arguments belong into `args`: \"command\": \"no-such-program\"",
        ),
        (json!({"command": "no-such-program-${SECRET}"}), "there is no such program"),
        (json!({"url": "${SECRET}"}), "mcpServers.a.url: it is not a URL"),
        (json!({"url": "http://${SECRET}@127.0.0.1:1/mcp", "auth": "t"}), "exclude `auth`"),
        (json!({"url": "http://me:${SECRET}@127.0.0.1:1/mcp"}), "onnection refused"),
        (
            json!({"url": "http://127.0.0.1:1/mcp", "headers": {"A": "${SECRET}\n"}}),
            "mcpServers.a.headers.A: it has characters",
        ),
        (
            json!({"command": "x", "cwd": "${SECRET}${NO_SUCH}"}),
            "mcpServers.a.cwd: it needs the variable `NO_SUCH`, which is not set",
        ),
    ] {
        let config = Config::from_value(json!({"mcpServers": {"a": entry}})).unwrap();
        let client = client_of(config);
        let error = run(&client, "a.x()").await.error.unwrap().message;
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
    Ok(())
}

async fn credentials() -> Result<(), Ignored> {
    for (entry, expected) in [
        (json!({"auth": "Bearer abc"}), "Bearer abc"),
        (json!({"auth": "bearer  abc"}), "Bearer abc"),
        (json!({"auth": "abc"}), "Bearer abc"),
        (json!({"auth": "${TOKEN}"}), "Bearer from-outside"),
        (json!({"auth": "Basic bWU6cw=="}), "Basic bWU6cw=="),
        (json!({"user": "me:p%40ss@"}), "Basic bWU6cEBzcw=="),
        (json!({"bearer_token_env_var": "TOKEN"}), "Bearer from-outside"),
        (json!({"headers": {"authorization": "Key ${TOKEN}"}}), "Key Bearer from-outside"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let user = entry["user"].as_str().unwrap_or_default();
        let url = format!("http://{user}{address}/mcp");
        let mut entry = with(entry.clone(), "url", json!(url));
        entry.as_object_mut().unwrap().remove("user");
        let heard = tokio::spawn(async move {
            let (connection, _) = listener.accept().await.unwrap();
            let mut connection = tokio::io::BufReader::new(connection);
            let request = Request::read(&mut connection).await.unwrap();
            let answer = "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            connection.write_all(answer.as_bytes()).await.unwrap();
            request.headers["authorization"].clone()
        });
        let variables = |name: &str| (name == "TOKEN").then(|| "Bearer from-outside".to_string());
        let config = Config::from_value(json!({"mcpServers": {"a": entry}})).unwrap();
        let client = Client::builder().config(config).variables(variables).code_mode(false).build().unwrap();
        let connecting = client.create_session("a");
        let (error, heard) = tokio::join!(connecting, heard);
        assert_eq!(heard.unwrap(), expected);
        let error = format!("{:?} {:?}", error.err().map(|error| error.with_causes()), client.config().server("a"));
        assert!(!error.contains("p%40ss") && !error.contains("p@ss"), "{error}");
    }
    Ok(())
}

async fn trust() -> Result<(), Ignored> {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, state) = (folder.path(), state.path());
    let script = ["run", "-e", "mine.list_users().users.len()"];
    let config =
        json!({"mcpServers": {"mine": demo(), "far": {"url": "https://me:pass@example.com/mcp?key=k"}}}).to_string();
    let path = file(folder, "mcp.json", &config);
    let refused = ran(&script, folder, state).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    for words in ["`mcp.json` was found in this folder", "`--config mcp.json`", "`--trust`", "`rhaiway trust mcp.json`"]
    {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    // For one run, by its name, and from now on.
    assert_eq!(ran(&["run", "--trust", "-e", "mine.list_users().users.len()"], folder, state).await.stdout, "5\n");
    assert_eq!(ran(&["run", "--config", "mcp.json", "-e", "1"], folder, state).await.stdout, "1\n");
    assert_eq!(ran(&script, folder, state).await.code, 2, "neither is remembered");
    let trusted = ran(&["trust"], folder, state).await;
    assert_eq!(trusted.code, 0, "{}", trusted.stderr);
    assert!(
        trusted.stderr.contains("mine: ") && trusted.stderr.contains("far: https://example.com"),
        "{}",
        trusted.stderr
    );
    assert!(!trusted.stderr.contains("pass") && !trusted.stderr.contains("key=k"), "{}", trusted.stderr);
    assert_eq!(ran(&script, folder, state).await.stdout, "5\n");
    let listed = ran(&["trust", "--list"], folder, state).await.stdout;
    assert_eq!(listed.lines().count(), 1);
    assert!(listed.contains("mcp.json"), "{listed}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| std::fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("rhaiway"), mode("rhaiway/trusted.json")), (0o700, 0o600));
    }
    // One byte more is another file.
    std::fs::write(&path, format!("{config}\n")).unwrap();
    let changed = ran(&script, folder, state).await;
    assert!(changed.code == 2 && changed.stderr.contains("has changed since you trusted it"), "{}", changed.stderr);
    assert_eq!(ran(&["trust", "mcp.json"], folder, state).await.code, 0);
    assert_eq!(ran(&script, folder, state).await.stdout, "5\n");
    assert_eq!(ran(&["trust", "--remove"], folder, state).await.code, 0);
    assert_eq!(ran(&script, folder, state).await.code, 2);
    // As JSON, there is one object; and what is broken trusts nothing.
    let out: Value = serde_json::from_str(&ran(&["run", "--json", "-e", "1"], folder, state).await.stdout).unwrap();
    assert_eq!(out["error"]["kind"], json!("untrusted"));
    // Nothing is made of it, and it is not overwritten.
    for broken in [&b"broken"[..], b"\xff"] {
        std::fs::write(state.join("rhaiway/trusted.json"), broken).unwrap();
        for arguments in [&script[..], &["trust", "--list"], &["trust"]] {
            let said = ran(arguments, folder, state).await;
            assert!(said.code == 2 && said.stderr.contains("remove it, and trust them again"), "{}", said.stderr);
        }
        assert_eq!(std::fs::read(state.join("rhaiway/trusted.json")).unwrap(), broken);
    }
    // Who is asked sees what it is started with, and that there is more than is shown.
    let mut odd = with(given(), "env", json!({"LD_PRELOAD": "/tmp/evil.so"}));
    odd["args"] = json!(["a".repeat(250), "HIDDEN", "b".repeat(5000)]);
    odd["cwd"] = json!("elsewhere");
    std::fs::remove_file(state.join("rhaiway/trusted.json")).unwrap();
    std::fs::write(&path, json!({"mcpServers": {"odd": odd}}).to_string()).unwrap();
    let shown = ran(&["trust"], folder, state).await.stderr;
    assert!(shown.contains("HIDDEN") && shown.contains("letters more: see the file"), "{shown}");
    let odd = with(with(given(), "env", json!({"LD_PRELOAD": "/tmp/evil.so"})), "cwd", json!("elsewhere"));
    std::fs::write(&path, json!({"mcpServers": {"odd": odd}}).to_string()).unwrap();
    let shown = ran(&["trust"], folder, state).await.stderr;
    assert!(shown.contains("elsewhere, with LD_PRELOAD") && !shown.contains("evil.so"), "{shown}");
    // Pipes keep nobody waiting.
    #[cfg(unix)]
    {
        let pipe = |path: &Path| {
            drop(std::fs::remove_file(path));
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        };
        pipe(&state.join("rhaiway/trusted.json"));
        assert!(ran(&["trust", "--list"], folder, state).await.stderr.contains("it is no file"));
        pipe(&folder.join("mcp.json"));
        assert_eq!(ran(&["run", "-e", "1"], folder, state).await.stdout, "1\n");
    }
    Ok(())
}

/// Starts the command at a terminal of its own, and writes what is typed there once the question is seen: what the terminal showed, and
/// the exit code.
#[cfg(unix)]
async fn at_terminal(mut command: Command, typed: &'static [(&'static str, &'static str)]) -> (String, i32) {
    use std::io::Read;
    let terminal = nix::pty::openpty(None, None).unwrap();
    let inside = std::fs::File::from(terminal.slave);
    command.stdin(inside.try_clone().unwrap()).stderr(inside.try_clone().unwrap()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop((command, inside));
    let mut outside = std::fs::File::from(terminal.master);
    let shown = tokio::task::spawn_blocking(move || {
        let (mut shown, mut typed) = (Vec::new(), typed.iter());
        let mut next = typed.next();
        let mut from = 0;
        let mut chunk = [0; 4096];
        // Reading fails once the other end is closed.
        while let Ok(read @ 1..) = outside.read(&mut chunk) {
            shown.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&shown[from..]).into_owned();
            if let Some((question, answer)) = next
                && text.contains(question)
            {
                from = shown.len();
                outside.write_all(answer.as_bytes()).unwrap();
                next = typed.next();
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    });
    let code = child.wait().await.unwrap().code().unwrap_or(-1);
    (shown.await.unwrap(), code)
}

#[cfg(unix)]
async fn terminal() -> Result<(), Ignored> {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, state) = (folder.path(), state.path());
    let mut entry = with(given(), "env", json!({"KEY": "${input:key}"}));
    entry["args"] = json!([ARGUMENT, "\u{1b}[2Jx"]);
    let config =
        json!({"inputs": [{"id": "key", "description": "Your key", "password": true}], "servers": {"fake": entry}});
    file(folder, "mcp.json", &config.to_string());
    let script = ["run", "-e", "if fake.given().env.KEY != \"typed\" { throw \"another\" }"];
    let (shown, code) = at_terminal(command(&script, folder, state), &[("[y/N]", "n\n")]).await;
    assert!(code == 2 && shown.contains("nothing was started") && !shown.contains("\u{1b}[2J"), "{shown:?}");
    let both = &[("[y/N]", "y\n"), ("Your key: ", "typed\n")];
    let (shown, code) = at_terminal(command(&script, folder, state), both).await;
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("fake: ") && !shown.contains("typed"), "what is typed is not seen: {shown}");
    // Not asked again; and the variable is an answer too.
    let mut command = command(&script, folder, state);
    command.env("RHAIWAY_INPUT_KEY", "typed");
    let (shown, code) = at_terminal(command, &[]).await;
    assert!(code == 0 && !shown.contains("[y/N]") && !shown.contains("Your key"), "{shown}");
    Ok(())
}

async fn the_demo() -> Result<(), Ignored> {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let said = ran(&["run", "-e", "files.x()"], folder.path(), state.path()).await;
    assert_eq!(said.code, 1);
    let note =
        "no configuration found (rhaiway.json or mcp.json in this folder, or --config): using the built-in demo\n";
    assert_eq!(said.stderr.matches(note).count(), 1, "{}", said.stderr);
    assert!(said.stderr.contains("there is no variable or server `files`"), "{}", said.stderr);
    assert!(said.stderr.contains("note: there are the servers `demo`"), "{}", said.stderr);
    // One grammar for durations and sizes.
    let some = [
        "run",
        "-e",
        "1",
        "--timeout",
        "500ms",
        "--connect-timeout",
        "5s",
        "--limit",
        "wall_time=2m",
        "--limit",
        "memory_bytes=64mib",
    ];
    assert_eq!(ran(&some, folder.path(), state.path()).await.stdout, "1\n");
    let slip = ran(&["run", "-e", "1", "--limit", "toolcalls=1"], folder.path(), state.path()).await;
    assert!(
        slip.code == 2 && slip.stderr.contains("there is no limit `toolcalls`: did you mean `tool_calls`?"),
        "{}",
        slip.stderr
    );
    Ok(())
}
