//! The command `rhaiway`: arguments, output, exit codes, the cache of compiled code.

use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fake_server;
use crate::processes::Mark;
use crate::support::{Ignored, demo, program, target_dir, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("command::a_script_from_each_source", a_script_from_each_source),
        test("command::a_value_as_text_and_as_json", a_value_as_text_and_as_json),
        test("command::a_failing_script_shows_its_line", a_failing_script),
        test("command::an_endless_script_ends_in_time", an_endless_script),
        test("command::the_configuration_in_this_folder_is_used", the_configuration_in_this_folder),
        test("command::bad_input_has_its_message_and_exit_code", bad_input),
        test("command::unreachable_servers_have_their_exit_code", unreachable_servers),
        test("command::tools_are_listed_and_searched", tools),
        test("command::servers_that_list_no_tools_are_told_of", tools_that_are_not_listed),
        test("command::a_broken_cache_file_is_rebuilt", a_broken_cache_file),
        test("command::little_address_space_is_enough", little_address_space),
        test("command::a_signal_ends_the_servers_too", a_signal),
        test("command::it_does_not_matter_that_nobody_reads", nobody_reads),
        test("command::serve_without_a_client_ends", serve_without_a_client),
        test("command::serve_leaves_nothing_that_it_was_connecting", serve_while_connecting),
        test("command::a_full_disk_is_an_error", a_full_disk),
        test("command::limits_are_set_by_name", limits),
        test("command::what_scripts_print_does_not_control_the_terminal", control_characters),
    ]
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

struct Rhaiway(Command);

impl Rhaiway {
    fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .current_dir(target_dir()) // without a configuration of its own
            .env_remove("RHAIWAY_LOG")
            .env("XDG_CACHE_HOME", target_dir().join("cache"))
            .env("XDG_STATE_HOME", target_dir().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self(command)
    }

    fn folder(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    async fn with_stdin(mut self, input: &str) -> Ran {
        let mut child = self.0.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            // Whichever test is the first compiles the engine, and the demo.
            stderr: [COMPILING, COMPILING_DEMO, NO_CONFIGURATION]
                .iter()
                .fold(String::from_utf8(output.stderr).unwrap(), |stderr, line| stderr.replace(line, "")),
        }
    }

    async fn ran(self) -> Ran {
        self.with_stdin("").await
    }
}

const NO_CONFIGURATION: &str =
    "no configuration found (rhaiway.json or mcp.json in this folder, or --config): using the built-in demo\n";
const COMPILING_DEMO: &str = "compiling demo, this once (a few seconds) …\n";
const COMPILING: &str = "compiling the script engine, this once (a few seconds) …\n";

async fn rhaiway(arguments: &[&str]) -> Ran {
    Rhaiway::new(arguments).ran().await
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

async fn a_script_from_each_source() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let script = file(folder.path(), "script.rhai", "\u{feff}#!/usr/bin/env rhaiway\n6 * 7");
    assert_eq!(rhaiway(&["run", &script]).await.stdout, "42\n");
    assert_eq!(rhaiway(&["run", "-e", "6 * 7"]).await.stdout, "42\n");
    assert_eq!(Rhaiway::new(&["run", "-"]).with_stdin("6 * 7").await.stdout, "42\n");
    assert_eq!(rhaiway(&["run", "-e", "6 * 7", "--isolation", "in-process"]).await.stdout, "42\n");
    for isolation in ["sandbox", "in-process"] {
        // No clock holds it; it is as good as none.
        let ran = rhaiway(&["run", "-e", "6 * 7", "--timeout", "1e19", "--isolation", isolation]).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("42\n", ""));
    }
    Ok(())
}

async fn a_value_as_text_and_as_json() -> Result<(), Ignored> {
    let ran = rhaiway(&["run", "-e", "print(\"a log\"); #{b: [1], a: \"x\"}"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "a log\n"));
    assert_eq!(ran.stdout, "{\n  \"a\": \"x\",\n  \"b\": [\n    1\n  ]\n}\n");
    assert_eq!(rhaiway(&["run", "-e", "`two\nlines`"]).await.stdout, "two\nlines\n");
    assert_eq!(rhaiway(&["run", "-e", "()"]).await.stdout, "");

    let ran = rhaiway(&["run", "--json", "-e", "print(\"a log\"); demo.get_issue(#{number: 1}).number"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout.lines().count(), 1);
    let out: Value = serde_json::from_str(&ran.stdout).unwrap();
    let keys: Vec<&String> = out.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["result", "logs", "error", "execution_time", "calls", "usage"]);
    assert_eq!((&out["result"], &out["logs"], &out["error"]), (&json!(1), &json!(["a log"]), &json!(null)));
    assert!(out["execution_time"].as_f64().unwrap() > 0.0);
    let call = &out["calls"][0];
    assert_eq!(
        json!([call["server"], call["tool"], call["outcome"], call["line"], call["column"], call["argument_bytes"]]),
        json!(["demo", "get_issue", "ok", 1, 22, 12])
    );
    assert_eq!(out["usage"]["tool_calls"], json!(1));
    assert!(out["usage"]["peak_memory_bytes"].as_u64().unwrap() > 1 << 16);
    Ok(())
}

async fn a_failing_script() -> Result<(), Ignored> {
    let ran = rhaiway(&["run", "-e", "let x = 1;\n\tdemo.get_isue(#{number: x})"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: the server `demo` has no tool `get_isue`: did you mean `get_issue`?\n  --> line 2, column 7\n  |\n\
         2 | \tdemo.get_isue(#{number: x})\n  | \t     ^\n"
    );
    let ran = rhaiway(&["run", "--json", "-e", "demo.deploy(#{environment: \"production\"})"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let error = &serde_json::from_str::<Value>(&ran.stdout).unwrap()["error"];
    assert_eq!(error["kind"], json!("tool"));
    assert_eq!(error["message"], json!("`demo.deploy` failed: deploying to `production` needs a second approval"));
    assert_eq!(error["source_line"], json!("demo.deploy(#{environment: \"production\"})"));
    assert_eq!(error["thrown"]["message"], json!("deploying to `production` needs a second approval"));
    Ok(())
}

async fn an_endless_script() -> Result<(), Ignored> {
    for isolation in ["sandbox", "in-process"] {
        let ran = rhaiway(&[
            "run",
            "-e",
            "let x = 0; loop { x += 1 }",
            "--timeout",
            "0.5",
            "--isolation",
            isolation,
            "--json",
        ])
        .await;
        assert_eq!(ran.code, 1);
        let out: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(out["error"]["message"], json!("the script took longer than the limit of 0.5 s (`wall_time`)"));
        assert!(out["execution_time"].as_f64().unwrap() >= 0.5, "{out}");
    }
    Ok(())
}

async fn the_configuration_in_this_folder() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let names = || async {
        Rhaiway::new(&["run", "--trust", "-e", "__tool_namespaces[0]"]).folder(folder.path()).ran().await.stdout
    };
    assert_eq!(names().await, "demo\n");
    file(folder.path(), "mcp.json", &json!({"mcpServers": {"editor": demo()}}).to_string());
    assert_eq!(names().await, "editor\n");
    file(folder.path(), "rhaiway.json", &json!({"mcpServers": {"own": demo(), "two": demo()}}).to_string());
    assert_eq!(names().await, "own\n");
    let script = ["run", "--trust", "-e", "__tool_namespaces", "--allow-server", "two", "--json"];
    let ran = Rhaiway::new(&script).folder(folder.path()).ran().await;
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["result"], json!(["two"]));
    Ok(())
}

async fn bad_input() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let broken = file(folder.path(), "broken.json", "{\"mcpServers\": {\n  \"a\": }\n}");
    let typo = file(folder.path(), "typo.json", r#"{"mcpserver": {}}"#);
    let both = file(folder.path(), "both.json", r#"{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}"#);
    for (arguments, message) in [
        (&["run", "no-such.rhai"][..], "error: can't read the script `no-such.rhai`: No such file or directory"),
        (&["run"], "the following required arguments were not provided"),
        (&["run", "-e", "1", "--timeout", "0"], "expected a duration over 0"),
        (&["run", "-e", "1", "--timeout", "soon"], "expected a duration, such as `5`, `0.5 s`, `500ms` or `2m`"),
        (
            &["run", "-e", "1", "--config", "no-such.json"],
            "error: can't read `no-such.json`: No such file or directory",
        ),
        (&["run", "-e", "1", "--config", &broken], "broken.json: not JSON: unexpected close brace at line 2 column 8"),
        (
            &["run", "-e", "1", "--config", &typo],
            "typo.json, (top level): expected `mcpServers`, found only `mcpserver`",
        ),
        (&["run", "-e", "1", "--allow-server", "typo"], "error: there is no server `typo`: there are `demo`"),
        (
            &["run", "-e", "a.x()", "--config", &both],
            "error: `a.x` failed: in the configuration, mcpServers.a: it has `command` and `url`, which exclude each other: keep one",
        ),
        (&["tools", "--config", &both], "warning: in the configuration, mcpServers.a: it has `command` and `url`"),
    ] {
        let ran = rhaiway(arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"));
        let message = message.trim_start_matches("error: ");
        assert_eq!(ran.stderr.matches(message).count(), 1, "it is said once: {}", ran.stderr);
    }
    // As JSON, there is still exactly one object.
    for (arguments, kind) in [
        (&["run", "--json", "-e", "1", "--config", &broken][..], "config"),
        (&["run", "--json", "no-such.rhai"], "usage"),
        (&["run", "--json", "-e", "1", "--timeout", "0"], "usage"),
        (&["run", "--json"], "usage"),
    ] {
        let ran = rhaiway(arguments).await;
        let out: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.code, &out["error"]["kind"], &out["result"]), (2, &json!(kind), &json!(null)), "{arguments:?}");
    }
    Ok(())
}

async fn unreachable_servers() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let config = |servers: Value| file(folder.path(), "config.json", &json!({"mcpServers": servers}).to_string());
    for (entry, message) in [
        (
            json!({"command": "no-such-program-anywhere"}),
            "can't start `no-such-program-anywhere`: there is no such program",
        ),
        (
            fake_server::entry("exits"),
            "its process ended (exit status: 3) before it answered `initialize`; its last lines on stderr:\n  first line",
        ),
        (fake_server::entry("silent"), "it did not answer the handshake within 1 s"),
        (fake_server::entry("junk"), "it sent what is no MCP message: `Usage: something else`"),
        (json!({"url": "http://127.0.0.1:1/mcp"}), "onnection refused"),
    ] {
        let config = config(json!({"bad": entry}));
        let ran = rhaiway(&["run", "-e", "bad.x(#{})", "--config", &config, "--connect-timeout", "1"]).await;
        assert_eq!(ran.code, 3, "{message}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
        assert!(ran.stderr.contains("can't connect to the server `bad`"), "{}", ran.stderr);
        let ran = rhaiway(&["tools", "--config", &config, "--connect-timeout", "1"]).await;
        assert_eq!(ran.code, 3, "{message}: {}", ran.stderr);
    }
    // A script that does not need it, and one that can do without.
    let config = config(json!({"bad": fake_server::entry("exits"), "demo": demo()}));
    let ran = rhaiway(&["run", "-e", "1 + 1", "--config", &config]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "2\n", ""));
    let ran =
        rhaiway(&["run", "-e", "try { bad.x() } catch { } demo.list_users().users.len()", "--config", &config]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "5\n"));
    assert!(ran.stderr.starts_with("warning: can't connect to the server `bad`"), "{}", ran.stderr);
    let ran = rhaiway(&["run", "-e", "demo.list_users(); bad.x()", "--config", &config]).await;
    assert_eq!(ran.code, 1, "another server was reached");
    Ok(())
}

async fn tools() -> Result<(), Ignored> {
    let ran = rhaiway(&["tools"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "9 of 9 tools on 1 server\n"));
    assert!(ran.stdout.contains("demo.get_issue(#{number: integer})\n    Gets one issue"), "{}", ran.stdout);
    let ran = rhaiway(&["tools", "close", "--detail", "full"]).await;
    assert!(ran.stdout.starts_with("demo.close_issue(#{number: integer, reason?: string})\n"), "{}", ran.stdout);
    let schemas: Vec<&str> = ran.stdout.split("\n    takes ").nth(1).unwrap().split("\n    gives ").collect();
    let [takes, gives] = schemas[..] else { panic!("{}", ran.stdout) };
    assert!(takes.starts_with("{\n      \"") && takes.ends_with("\n    }"), "{takes}");
    let takes: Value = serde_json::from_str(takes).unwrap();
    assert_eq!((&takes["type"], &takes["required"]), (&json!("object"), &json!(["number"])));
    assert!(gives.starts_with("{\n      \""), "{gives}");
    assert!(!rhaiway(&["tools", "close"]).await.stdout.contains("takes {"));
    assert_eq!(rhaiway(&["tools", "close", "--detail", "names"]).await.stdout.lines().next(), Some("demo.close_issue"));
    let ran = rhaiway(&["tools", "close", "--json", "--detail", "full"]).await;
    let out: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(out["meta"]["total_tools"], json!(9));
    assert_eq!(out["meta"]["namespaces"], json!(["demo"]));
    assert_eq!(out["results"][0]["name"], json!("close_issue"));
    assert_eq!(out["results"][0]["input_schema"]["required"], json!(["number"]));
    Ok(())
}

async fn tools_that_are_not_listed() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let silent = fake_server::entry("never-lists");
    let said = |name: &str| {
        format!("warning: the server `{name}` failed on `tools/list`: its tools were not listed within 1 s\n")
    };
    let config = |name: &str, servers: Value| file(folder.path(), name, &json!({"mcpServers": servers}).to_string());
    let all = config("all.json", json!({"one": silent, "two": silent}));
    let ran = rhaiway(&["tools", "--config", &all, "--connect-timeout", "1"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    assert_eq!(ran.stderr, format!("{}{}0 of 0 tools on 2 servers\n", said("one"), said("two")));
    let some = config(
        "some.json",
        json!({"one": silent, "demo": {"command": program(), "args": ["demo-server"], "connect_timeout": 30}}),
    );
    for json in [&["--json"][..], &[]] {
        let ran = rhaiway(&[&["tools", "--config", &some, "--connect-timeout", "1"], json].concat()).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.starts_with(&said("one")), "{}", ran.stderr);
    }
    Ok(())
}

async fn a_broken_cache_file() -> Result<(), Ignored> {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("rhaiway");
    let run = || async {
        let mut command = Rhaiway::new(&["run", "-e", "1 + 1"]);
        command.0.env("XDG_CACHE_HOME", cache.path());
        let output = command.0.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n");
        String::from_utf8(output.stderr).unwrap().replace(NO_CONFIGURATION, "") == COMPILING
    };
    let code = || {
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect::<Vec<_>>()
    };
    assert!(run().await, "the first run says that it compiles");
    assert!(!run().await, "the second does not compile");
    let [file] = code().try_into().unwrap();
    // Not ours any more: one byte is another.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(run().await, "a changed file is compiled again");
    assert!(!run().await, "and replaced");
    std::fs::write(&file, &bytes[..100]).unwrap();
    assert!(run().await, "half a file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let elsewhere = cache.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert!(run().await, "a link");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        run().await;
        assert_eq!(
            std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700,
            "nobody else can write to it"
        );
    }
    Ok(())
}

async fn little_address_space() -> Result<(), Ignored> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    // 4 GiB: less than one slot of the pool reserves.
    let script = "let s = \"x\"; try { loop { s += s; } } catch { }";
    for (code, expected) in [("demo.list_users().users.len()", "5\n"), (script, "")] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 4194304 && exec \"$0\" run -e \"$1\"", program(), code])
            .current_dir(target_dir())
            .env("XDG_CACHE_HOME", target_dir().join("cache"))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
        if expected.is_empty() {
            assert!(stderr.contains("error: the script needs more memory than the limit"), "{stderr}");
        }
    }
    Ok(())
}

async fn a_signal() -> Result<(), Ignored> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    for (signal, code) in
        [(rustix::process::Signal::HUP, 129), (rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new("signal");
        let servers = json!({"stubborn": mark.on(fake_server::entry("stubborn")), "demo": mark.on(demo())});
        let config = file(folder.path(), "config.json", &json!({"mcpServers": servers}).to_string());
        let script = "demo.list_users(); stubborn.echo(); print(\"ready\"); stubborn.never()";
        let mut command = Rhaiway::new(&["run", "-e", script, "--config", &config]);
        let mut child = command.0.spawn().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
        while lines.next_line().await.unwrap().expect("it ends before it is ready") != "ready" {}
        let process = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(code));
        mark.gone().await;
    }
    Ok(())
}

async fn nobody_reads() -> Result<(), Ignored> {
    for arguments in [&["run", "-e", "print(1); 2"][..], &["run", "-e", "print(1); 2", "--json"], &["tools"]] {
        let mut command = Rhaiway::new(arguments);
        let mut child = command.0.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "{arguments:?}");
    }
    Ok(())
}

async fn serve_without_a_client() -> Result<(), Ignored> {
    let ran = rhaiway(&["serve"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    Ok(())
}

async fn control_characters() -> Result<(), Ignored> {
    let ran = rhaiway(&["run", "-e", "print(\"\\x1b[31mred\\ta\"); throw \"\\x07\""]).await;
    assert_eq!(ran.stderr.lines().take(2).collect::<Vec<_>>(), ["\u{fffd}[31mred\ta", "error: \u{fffd}"]);

    // What the script names, and what the server's tools are called, which the error suggests.
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"mcpServers": {"evil": fake_server::entry("hostile")}});
    let config = file(folder.path(), "config.json", &config.to_string());
    let script = "print(\"\\u202eab\"); evil.call_tool(\"\\x1b[3J\\u202e\")";
    let ran = rhaiway(&["run", "--config", &config, "-e", script]).await;
    assert!(
        ran.stderr.starts_with("\u{fffd}ab\nerror: the server `evil` has no tool `\u{fffd}[3J\u{fffd}`"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", ran.stderr);
    Ok(())
}

async fn serve_while_connecting() -> Result<(), Ignored> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark::new("connecting");
    let config = json!({"mcpServers": {"hang": mark.on(json!({"command": "sh", "args": ["-c", "sleep 4321"]}))}});
    let config = file(folder.path(), "config.json", &config.to_string());
    let mut command = Rhaiway::new(&["serve", "--config", &config]);
    let mut child = command.0.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "execute_code", "arguments": {"code": "hang.x()"}}}),
    ] {
        stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
    while mark.alive().is_empty() {
        tokio::task::yield_now().await;
    }
    let process = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(143));
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

async fn a_full_disk() -> Result<(), Ignored> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    for arguments in [&["run", "-e", "1"][..], &["run", "-e", "1", "--json"], &["tools"]] {
        let mut command = Rhaiway::new(arguments);
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = command.0.stdout(full).spawn().unwrap().wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("error: can't write to stdout: No space left"));
    }
    Ok(())
}

async fn limits() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let demo = json!({"command": program(), "args": ["demo-server"]});
    let with = |limits: &Value| {
        let config = json!({"mcpServers": {"demo": demo}, "limits": limits}).to_string();
        file(folder.path(), "mcp.json", &config)
    };
    let code = "demo.list_users(); demo.list_users(); 1";
    let of_calls =
        |count| format!("error: the script made more calls of tools than the limit of {count} (`tool_calls`)\n");

    let config = with(&json!({"tool_calls": 1, "memory_bytes": "8 MiB"}));
    let ran = rhaiway(&["run", "--config", &config, "-e", code]).await;
    assert!(ran.stderr.starts_with(&of_calls(1)), "{}", ran.stderr);
    let ran = rhaiway(&["run", "--config", &config, "-e", "let s = \"x\"; loop { s += s; }"]).await;
    let memory = "error: the script needs more memory than the limit of 8 MiB (`memory_bytes`)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, memory));
    // The command line goes before the configuration, and changes only what it names.
    let ran = rhaiway(&["run", "--config", &config, "--limit", "tool_calls=2", "-e", code]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1\n"));

    let config = with(&json!({"wall_time": 0.2}));
    let over = "error: the script took longer than the limit of 0.2 s (`wall_time`)\n";
    assert_eq!(rhaiway(&["run", "--config", &config, "-e", "loop {}"]).await.stderr, over);
    let ran = rhaiway(&["run", "--config", &config, "--timeout", "0.3", "-e", "loop {}"]).await;
    assert_eq!(ran.stderr, over.replace("0.2", "0.3"));

    for (limits, message) in [
        (json!({"tool_call": 1}), "limits.tool_call: there is no limit `tool_call`: did you mean `tool_calls`?"),
        (json!({"tool_calls": "many"}), "limits.tool_calls: `tool_calls` is a number, from 1 up, not `many`"),
        (json!([]), "limits: expected an object, found an array"),
    ] {
        let ran = rhaiway(&["run", "--config", &with(&limits), "-e", "1"]).await;
        let message = format!("error: in the configuration, {message}");
        assert!(ran.code == 2 && ran.stderr.starts_with(&message), "{}", ran.stderr);
    }
    let ran = rhaiway(&["run", "-e", "1", "--limit", "memory_bytes=2GiB"]).await;
    let message = "`memory_bytes` is bytes, such as `64 KiB`, from 1 to 1 GiB, not `2GiB`";
    assert!(ran.code == 2 && ran.stderr.contains(message), "{}", ran.stderr);
    Ok(())
}
