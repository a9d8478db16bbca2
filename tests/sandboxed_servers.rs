//! Servers in a sandbox, of every kind: those that ship as wasm, one in Python, real native ones; how they are configured, and what is said
//! where they can't start.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use rhaiway::{Access, CallOptions, Client, SandboxConfig};
use serde_json::{Map, Value, json};

use crate::fixtures;
use crate::support::{Ignored, builder, client, config, demo, need, need_native_sandbox, program, run, test, value};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox/dist");

pub fn tests() -> Vec<Trial> {
    vec![
        test("sandboxed_servers::the_demo_serves_calls_at_once", demo_at_once),
        test("sandboxed_servers::notes_in_a_mounted_folder", notes),
        test("sandboxed_servers::a_typed_component", typed),
        test("sandboxed_servers::instances_of_a_typed_component", typed_instances),
        test("sandboxed_servers::python", python),
        test("sandboxed_servers::the_filesystem_server", filesystem),
        test("sandboxed_servers::the_git_server", git),
        test("sandboxed_servers::the_default_of_a_client", default_of_a_client),
        test("sandboxed_servers::wasm_in_memory", in_memory),
        test("sandboxed_servers::files_that_are_no_servers", no_servers),
        test("sandboxed_servers::what_can_not_be_set_up", not_set_up),
        test("sandboxed_servers::native_ones_that_can_not_be_set_up", native_not_set_up),
        test("sandboxed_servers::compiled_once", compiled_once),
        test("sandboxed_servers::permissions", permissions),
    ]
}

fn wasm(name: &str, sandbox: Value) -> Value {
    json!({"command": format!("{DIST}/{name}.wasm"), "sandbox": sandbox})
}

/// Why a server can't be connected.
async fn refusal(entry: Value) -> String {
    let client = client(json!({"it": entry}));
    let refused = client.create_session("it").await.unwrap_err().to_string();
    client.close_all_sessions().await;
    refused
}

async fn demo_at_once() -> Result<(), Ignored> {
    let client = client(json!({"demo": wasm("demo", json!(true))}));
    let session = client.create_session("demo").await.unwrap();
    let slow = json!({"delay_ms": 5_000}).as_object().unwrap().clone();
    let mut slow = Box::pin(session.call_tool("project_report", slow, CallOptions::default()));
    for _ in 0..20 {
        let quick = session.call_tool("list_users", Map::new(), CallOptions::default());
        tokio::select! {
            biased;
            _ = &mut slow => panic!("the slow call was the first"),
            answer = quick => assert!(!answer.unwrap().is_error()),
        }
    }
    drop(slow);
    // One that sleeps ends although nothing more is sent.
    let script = "parallel([|| demo.project_report(#{delay_ms: 50}), || demo.project_report(#{delay_ms: 20})]).len()";
    assert_eq!(value(run(&client, script).await), json!(2));
    client.close_all_sessions().await;
    Ok(())
}

async fn notes() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let mount = |access: &str| json!({"mounts": [{"host": folder.path(), "guest": "/notes", "access": access}]});
    let client = client(json!({
        "notes": wasm("notes", mount("rw")), "fixed": wasm("notes", mount("ro")), "bare": wasm("notes", json!(true)),
    }));
    let script = r#"
        notes.write_note(#{name: "plan", text: "first line\nsecond line"});
        notes.append_to_note(#{name: "plan", text: "third line"});
        [notes.list_notes().notes.map(|note| note.name), notes.search_notes(#{query: "SECOND"}), fixed.read_note(#{name: "plan"})]
    "#;
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/hosts", folder.path().join("link.md")).unwrap();
    let said = value(run(&client, script).await);
    assert_eq!(said[0], json!(["plan"]));
    assert!(said[1].to_string().contains("second line") && said[2].to_string().contains("third line"), "{said}");
    assert!(std::fs::read_to_string(folder.path().join("plan.md")).unwrap().contains("third line"));
    let failed = |execution: rhaiway::Execution| execution.error.unwrap().to_string();
    let said = failed(run(&client, "fixed.write_note(#{name: \"other\", text: \"x\"})").await);
    assert!(said.contains("read-only") || said.contains("rw"), "{said}");
    let said = failed(run(&client, "bare.list_notes()").await);
    let line = r#""mounts": [{"host": "./notes", "guest": "/notes", "access": "rw"}]"#;
    assert!(said.contains(line), "{said}");
    let said = failed(run(&client, "notes.read_note(#{name: \"../plan\"})").await);
    assert!(said.contains("../plan"), "{said}");
    client.close_all_sessions().await;
    Ok(())
}

async fn typed() -> Result<(), Ignored> {
    let client = client(json!({"units": wasm("units", json!(true))}));
    let session = client.create_session("units").await.unwrap();
    let tools = session.list_tools().await.unwrap();
    let convert = tools.iter().find(|tool| tool.name == "convert").unwrap();
    assert_eq!(convert.description.as_deref(), Some("Converts a value from one unit to another."));
    assert_eq!(convert.input_schema["required"], json!(["value", "from", "to"]));
    assert!(convert.input_schema["properties"]["from"].to_string().contains("\"millimetre\""));
    let script = r#"
        let mile = units.convert(#{value: 1, from: "mile", to: "metre"});
        let sum = units.add(#{measures: [mile, #{value: 1, unit: "kilometre"}]});
        [mile, sum, units.parse(#{text: "5 km"}), units.describe(#{measure: mile, style: ["long", "rounded"]})]
    "#;
    let said = value(run(&client, script).await);
    assert_eq!(said[0], json!({"value": 1609.344, "unit": "metre"}));
    assert_eq!(said[1]["result"], json!({"value": 2609.344, "unit": "metre"}));
    assert_eq!(said[2], json!({"value": 5.0, "unit": "kilometre"}));
    assert!(said[3].to_string().contains("metre"), "{said}");
    // The function's own error, with what it says of it.
    let script =
        r#"try { units.convert(#{value: 1, from: "mile", to: "gram"}); } catch (e) { return [e.kind, e.data]; }"#;
    let said = value(run(&client, script).await);
    assert_eq!(said[0], json!("tool"));
    assert!(said[1].to_string().contains("incompatible"), "{said}");
    // The schema's, before the call.
    let said =
        run(&client, "units.convert(#{value: 1, from: \"milé\", to: \"gram\"})").await.error.unwrap().to_string();
    assert!(said.contains("from"), "{said}");
    // A trap.
    let said = run(&client, "units.divide(#{a: 1, b: 0})").await.error.unwrap().to_string();
    assert!(said.contains("`units.divide` failed: it crashed: wasm trap:"), "{said}");
    assert_eq!(value(run(&client, "units.divide(#{a: 7, b: 2}).result").await), json!(3));
    client.close_all_sessions().await;
    Ok(())
}

async fn typed_instances() -> Result<(), Ignored> {
    let client =
        client(json!({"fresh": wasm("units", json!(true)), "kept": wasm("units", json!({"instance": "session"}))}));
    let counts = "[fresh.calls().result, fresh.calls().result, kept.calls().result, kept.calls().result]";
    assert_eq!(value(run(&client, counts).await), json!([1, 1, 1, 2]));
    // Of an instance that crashed, nothing is kept.
    assert!(run(&client, "kept.divide(#{a: 1, b: 0})").await.error.is_some());
    assert_eq!(value(run(&client, "[kept.calls().result, kept.calls().result]").await), json!([1, 2]));
    client.close_all_sessions().await;
    Ok(())
}

/// A server that the whole of Python comes with.
async fn python() -> Result<(), Ignored> {
    // It is a compatibility test: where the tool is not to be had, that is all that is wrong.
    let tool = fixtures::componentize_py().as_ref().map_err(|reason| Ignored(reason.clone()))?;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("wit/world.wit", "package rhaiway:python;\nworld server { export wasi:cli/run@0.2.0; }\n");
    file("wit/deps/cli/run.wit", "package wasi:cli@0.2.0;\ninterface run { run: func() -> result; }\n");
    file("app.py", PYTHON);
    let made = Command::new(&tool.program)
        .args(["-d", "wit", "-w", "server", "componentize", "app", "-o", "app.wasm"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::create_dir(folder.path().join("data")).unwrap();
    file("data/given.txt", "from a file");
    let sandbox = json!({"memory_mb": 128, "mounts": [{"host": folder.path().join("data"), "guest": "/data"}]});
    let entry = json!({"command": folder.path().join("app.wasm"), "connect_timeout": 120, "sandbox": sandbox});
    let client = client(json!({"python": entry}));
    let evaluate = |code: &str| format!("python.evaluate(#{{code: `{code}`}})");
    assert_eq!(value(run(&client, &evaluate("sum(range(100))")).await), json!("4950"));
    assert_eq!(value(run(&client, &evaluate("open('/data/given.txt').read()")).await), json!("from a file"));
    for code in
        ["open('/etc/hosts').read()", "open('/data/new.txt', 'w')", "open('/data/../app.py').read()", "os.listdir('/')"]
    {
        let said = run(&client, &evaluate(code)).await.error.unwrap().to_string();
        assert!(said.contains("Error("), "{code}: {said}");
    }
    let said = run(&client, &evaluate("open('/etc/hosts').read()")).await.error.unwrap().to_string();
    assert!(said.contains(r#"`"mounts": [{"host": "/etc", "guest": "/etc", "access": "ro"}]`"#), "{said}");
    let said = run(&client, &evaluate("len('x' * 500000000)")).await.error.unwrap().to_string();
    assert!(said.contains("it needs more memory than its 128 MiB (`memory_mb`)"), "{said}");
    assert_eq!(value(run(&client, &evaluate("dict(os.environ)")).await), json!({}));
    client.close_all_sessions().await;
    Ok(())
}

const PYTHON: &str = r#"
import json, os, sys

class Run:
    def run(self):
        for line in sys.stdin:
            message = json.loads(line)
            if "id" not in message:
                continue
            answer = {"jsonrpc": "2.0", "id": message["id"]}
            if message["method"] == "initialize":
                server = {"name": "python", "version": "1"}
                answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}
            elif message["method"] == "tools/list":
                answer["result"] = {"tools": [{"name": "evaluate", "inputSchema": {"type": "object"}}]}
            elif message["method"] == "tools/call":
                try:
                    text, failed = str(eval(message["params"]["arguments"]["code"])), False
                except Exception as error:
                    text, failed = repr(error), True
                answer["result"] = {"content": [{"type": "text", "text": text}], "isError": failed}
            else:
                answer["error"] = {"code": -32601, "message": "unknown"}
            print(json.dumps(answer), flush=True)
"#;

/// A folder with a file in it, and one beside it that is nobody's.
struct Folders {
    folder: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inside")).unwrap();
        std::fs::write(folder.path().join("inside/hello.txt"), "hello").unwrap();
        std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        Self { folder }
    }

    fn path(&self, path: &str) -> String {
        self.folder.path().canonicalize().unwrap().join(path).display().to_string()
    }
}

fn boxed(mut entry: Value, sandbox: Value) -> Value {
    entry["sandbox"] = sandbox;
    entry
}

async fn filesystem() -> Result<(), Ignored> {
    need_native_sandbox()?;
    let server = need(fixtures::filesystem())?;
    let folders = Folders::new();
    // The wide one is told that it may do more: what keeps it in is the sandbox.
    let (entry, wide) = (server.entry(&[&folders.path("inside")]), server.entry(&[&folders.path("")]));
    let mounts = |access: &str| json!({"mounts": [{"host": folders.path("inside"), "access": access}]});
    let client = client(json!({
        "files": boxed(entry.clone(), mounts("rw")),
        "fixed": boxed(entry, mounts("ro")),
        "wide": boxed(wide.clone(), mounts("rw")),
        "free": wide,
    }));
    let script = format!(
        r#"
        let inside = "{inside}";
        files.write_file(#{{path: inside + "/new.txt", content: "new"}});
        [files.read_text_file(#{{path: inside + "/hello.txt"}}).content, files.list_directory(#{{path: inside}}).content]
        "#,
        inside = folders.path("inside")
    );
    let said = value(run(&client, &script).await);
    assert_eq!(said[0], json!("hello"));
    assert_eq!(std::fs::read_to_string(folders.path("inside/new.txt")).unwrap(), "new");
    let attempts = [
        format!("read_text_file(#{{path: \"{}\"}})", folders.path("secret.txt")),
        format!("read_text_file(#{{path: \"{}\"}})", folders.path("inside/../secret.txt")),
        format!("list_directory(#{{path: \"{}\"}})", folders.path("")),
        format!("write_file(#{{path: \"{}\", content: \"x\"}})", folders.path("other.txt")),
        format!("create_directory(#{{path: \"{}\"}})", folders.path("made")),
    ];
    for attempt in &attempts {
        let said = run(&client, &format!("wide.{attempt}")).await.error.unwrap().to_string();
        assert!(said.contains("EACCES") || said.contains("EROFS") || said.contains("EPERM"), "{attempt}: {said}");
        assert!(said.contains("its sandbox seems to have denied that"), "{attempt}: {said}");
        assert_eq!(run(&client, &format!("free.{attempt}")).await.error, None, "{attempt}");
    }
    let write = format!("fixed.write_file(#{{path: \"{}\", content: \"x\"}})", folders.path("inside/hello.txt"));
    let said = run(&client, &write).await.error.unwrap().to_string();
    assert!(said.contains(r#""access": "rw""#), "{said}");
    assert_eq!(std::fs::read_to_string(folders.path("inside/hello.txt")).unwrap(), "hello");
    client.close_all_sessions().await;
    Ok(())
}

async fn git() -> Result<(), Ignored> {
    need_native_sandbox()?;
    let server = need(fixtures::git())?;
    let folders = Folders::new();
    let repository = folders.path("inside");
    let git = |arguments: &[&str]| {
        let configuration = ["-c", "user.name=Ines", "-c", "user.email=ines@example.com"];
        let made = Command::new("git").args(configuration).args(arguments).current_dir(&repository).status();
        assert!(made.unwrap().success());
    };
    git(&["init", "--quiet", "--initial-branch=trunk"]);
    git(&["config", "user.name", "Ines"]);
    git(&["config", "user.email", "ines@example.com"]);
    let other = folders.path("other");
    std::fs::create_dir(&other).unwrap();
    assert!(Command::new("git").args(["init", "--quiet"]).current_dir(&other).status().unwrap().success());
    let sandbox = json!({"mounts": [{"host": repository, "access": "rw"}]});
    let client = client(json!({"git": boxed(server.entry(&[]), sandbox), "free": server.entry(&[])}));
    let script = format!(
        r#"
        let repository = "{repository}";
        git.git_add(#{{repo_path: repository, files: ["hello.txt"]}});
        git.git_commit(#{{repo_path: repository, message: "Say hello"}});
        git.git_log(#{{repo_path: repository}})
        "#
    );
    let said = value(run(&client, &script).await);
    assert!(said.to_string().contains("Say hello"), "{said}");
    let status = |server: &str| format!("{server}.git_status(#{{repo_path: \"{other}\"}})");
    assert_eq!(run(&client, &status("free")).await.error, None);
    assert!(run(&client, &status("git")).await.error.is_some());
    client.close_all_sessions().await;
    Ok(())
}

async fn default_of_a_client() -> Result<(), Ignored> {
    let folders = Folders::new();
    let sandbox = SandboxConfig::default().mount(folders.path("inside"), "/data", Access::ReadOnly);
    let entries = json!({
        "plain": {"command": format!("{DIST}/probe-p1.wasm")},
        "own": wasm("probe-p1", json!(true)),
        "off": {"command": program(), "args": ["demo-server"], "sandbox": false},
        "never": wasm("demo", json!(false)),
    });
    let client = builder(entries).sandbox(sandbox).build().unwrap();
    let read = |server: &str| format!("{server}.read(#{{path: \"/data/hello.txt\"}})");
    assert_eq!(value(run(&client, &read("plain")).await), json!("hello"));
    // The entry's own setting wins.
    assert!(run(&client, &read("own")).await.error.is_some());
    assert_eq!(value(run(&client, "off.list_users().users.len()").await), json!(5));
    let refused = client.create_session("never").await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "in the configuration, mcpServers.never.sandbox: a wasm server always runs in a sandbox: remove the key, or say what it is granted"
    );
    let isolation: Vec<String> = client.permissions().into_iter().map(|server| server.isolation).collect();
    assert_eq!(isolation, ["wasm module", "wasm module", "none", "does not start"]);
    client.close_all_sessions().await;
    Ok(())
}

async fn in_memory() -> Result<(), Ignored> {
    let bytes = std::fs::read(format!("{DIST}/demo.wasm")).unwrap();
    let client = builder(json!({})).wasm_server("brought", bytes, SandboxConfig::default()).build().unwrap();
    assert_eq!(value(run(&client, "brought.list_users().users.len()").await), json!(5));
    client.close_session("brought").await;
    assert_eq!(value(run(&client, "brought.list_users().users.len()").await), json!(5));
    client.close_all_sessions().await;
    // It is granted what a server of the configuration would be.
    let folders = Folders::new();
    let inside = folders.path("inside");
    let sandbox = SandboxConfig::default().pass_env("HERE").env("THERE", "${HERE} and there");
    let sandbox = sandbox.mount("${FOLDER}", "/data/", Access::ReadOnly);
    let probe = std::fs::read(format!("{DIST}/probe-p2.wasm")).unwrap();
    let client = builder(json!({})).wasm_server("probe", probe, sandbox).variables(move |name| match name {
        "HERE" => Some("here".into()),
        "FOLDER" => Some(inside.clone()),
        _ => None,
    });
    let client = client.build().unwrap();
    let script = r#"[probe.env(#{name: "HERE"}), probe.env(#{name: "THERE"}), probe.read(#{path: "/data/hello.txt"})]"#;
    assert_eq!(value(run(&client, script).await), json!(["here", "here and there", "hello"]));
    client.close_all_sessions().await;
    Ok(())
}

async fn no_servers() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        json!({"command": path})
    };
    let missing = refusal(json!({"command": "/nowhere/server.wasm"})).await;
    assert!(
        missing.ends_with("can't read `/nowhere/server.wasm`: No such file or directory (os error 2)"),
        "{missing}"
    );
    let text = refusal(file("text.wasm", b"this is no wasm")).await;
    assert!(text.contains("can't compile `text.wasm`: "), "{text}");
    let demo = std::fs::read(format!("{DIST}/demo.wasm")).unwrap();
    let half = refusal(file("half.wasm", &demo[..demo.len() / 2])).await;
    assert!(half.contains("can't compile `half.wasm`: "), "{half}");
    // The smallest module, and the smallest component.
    let module = refusal(file("module.wasm", b"\0asm\x01\0\0\0")).await;
    assert!(
        module.contains(
            "can't run `module.wasm`: it exports no `_start`, as programs for WASI preview 1 do; is it a library?"
        ),
        "{module}"
    );
    let component = refusal(file("component.wasm", b"\0asm\x0d\0\x01\0")).await;
    assert!(
        component.contains("it exports neither `wasi:cli/run`, as servers do, nor a function that can be called"),
        "{component}"
    );
    // The script engine: a component that imports what no server is offered.
    let engine = refusal(json!({"command": format!("{DIST}/engine.wasm")})).await;
    assert!(engine.contains("can't run `engine.wasm`: ") && engine.contains("rhaiway:engine/"), "{engine}");
    Ok(())
}

async fn not_set_up() -> Result<(), Ignored> {
    let missing = refusal(wasm("demo", json!({"mounts": [{"host": "/nowhere", "guest": "/data"}]}))).await;
    assert!(missing.contains("can't mount `/nowhere`: No such file or directory (os error 2)"), "{missing}");
    let variable = refusal(wasm("demo", json!({"env": {"A": "${NOT_SET_ANYWHERE}"}}))).await;
    assert_eq!(
        variable,
        "in the configuration, mcpServers.it.sandbox.env.A: it needs the variable `NOT_SET_ANYWHERE`, which is not set"
    );
    Ok(())
}

async fn native_not_set_up() -> Result<(), Ignored> {
    need_native_sandbox()?;
    let native = |sandbox: Value| json!({"command": program(), "args": ["demo-server"], "sandbox": sandbox});
    let guest = refusal(native(json!({"mounts": [{"host": "/tmp", "guest": "/data"}]}))).await;
    assert!(
        guest.contains("a native server sees folders under their own paths only: remove `\"guest\": \"/data\"` from the mount of `/tmp`"),
        "{guest}"
    );
    let missing = refusal(native(json!({"mounts": [{"host": "/nowhere"}]}))).await;
    assert!(missing.contains("can't mount `/nowhere`: No such file or directory (os error 2)"), "{missing}");
    let program = refusal(json!({"command": "no-such-program", "sandbox": true})).await;
    assert!(program.contains("can't start `no-such-program`: there is no such program"), "{program}");
    Ok(())
}

/// Code that was compiled is found again by other processes, for which another path stands here, and by restarts.
async fn compiled_once() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let compiled = Arc::new(AtomicUsize::new(0));
    let names = Arc::new(Mutex::new(Vec::new()));
    for name in ["one.wasm", "two.wasm"] {
        let path = folder.path().join(name);
        std::fs::copy(format!("{DIST}/probe-p1.wasm"), &path).unwrap();
        let (count, told) = (Arc::clone(&compiled), Arc::clone(&names));
        let client = Client::builder()
            .config(config(&json!({"it": {"command": path}})))
            .cache_dir(folder.path().join("cache"))
            .on_compile(move |what| {
                count.fetch_add(1, Ordering::Relaxed);
                told.lock().unwrap().push(what.to_string());
            })
            .build()
            .unwrap();
        for _ in 0..2 {
            let session = client.create_session("it").await.unwrap();
            assert!(!session.list_tools().await.unwrap().is_empty());
            client.close_session("it").await;
        }
    }
    assert_eq!((compiled.load(Ordering::Relaxed), &*names.lock().unwrap()), (1, &vec!["one.wasm".to_string()]));
    Ok(())
}

async fn permissions() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let granted = json!({"mounts": [{"host": "./data", "guest": "/data", "access": "rw"}], "network": ["api.example.com:443"],
        "env": {"LANG": "C"}, "memory_mb": 32, "cpu_seconds": 1});
    let mut servers = json!({
        "tracker": wasm("demo", granted), "closed": wasm("units", json!(true)), "free": demo(),
        "remote": {"url": "https://example.com/mcp"}, "gone": {"command": "gone.wasm"}, "odd": {"command": "x", "sandbox": 1},
    });
    let is_native = need_native_sandbox().is_ok();
    if is_native {
        servers["native"] = boxed(demo(), json!({"mounts": [{"host": "/srv", "access": "ro"}]}));
    }
    std::fs::create_dir(folder.path().join("data")).unwrap();
    servers["bare"] = wasm("demo", json!({"mounts": [{"host": "./nothing", "guest": "/data"}]}));
    let file = folder.path().join("mcp.json");
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(&file, json!({"mcpServers": servers}).to_string()).unwrap();
    let rhaiway = |more: &[&str]| {
        let mut command = Command::new(program());
        command.args(["permissions", "--config"]).arg(&file).args(more).env("LANG", "C.UTF-8");
        command.current_dir(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (out, errors) = rhaiway(&["--json"]);
    let servers: Vec<Value> = serde_json::from_str(&out).unwrap();
    let of = |name: &str| servers.iter().find(|server| server["server"] == name).unwrap().clone();
    assert_eq!(
        of("tracker"),
        json!({"server": "tracker", "isolation": "wasm module", "files": [format!("{} rw as /data", place("data"))], "network": ["api.example.com:443"],
            "environment": ["LANG"], "limits": ["memory_mb 32", "cpu_seconds 1", "wall_seconds 60", "max_output_mb 16"], "tools": [], "problem": null})
    );
    assert_eq!(of("closed")["isolation"], json!("wasm component"));
    assert_eq!(of("closed")["files"], json!([]));
    assert_eq!(of("free")["network"], json!(["all that you can"]));
    assert_eq!(of("remote")["isolation"], json!("remote"));
    assert!(of("gone")["problem"].as_str().unwrap().contains(&format!("can't read `{}`", place("gone.wasm"))));
    assert_eq!(of("odd")["isolation"], json!("does not start"));
    assert_eq!(
        of("bare")["problem"],
        json!(format!("can't mount `{}`: No such file or directory (os error 2)", place("nothing")))
    );
    if is_native {
        let native = of("native");
        assert!(native["isolation"].as_str().unwrap().starts_with("native: Landlock, seccomp"), "{native}");
        let files: Vec<&str> = native["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        assert!(
            files.contains(&"/srv ro") && files.contains(&&*format!("{} ro", Path::new(program()).display())),
            "{files:?}"
        );
    }
    assert!(of("odd")["problem"].as_str().unwrap().contains("mcpServers.odd.sandbox"), "{errors}");
    let (table, errors) = rhaiway(&[]);
    for words in ["isolation", "files", "network", "environment", "limits", "rw as /data", "memory_mb 32"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(errors.contains("warning: `gone` does not start: can't read `"), "{errors}");
    assert_eq!(errors.matches("mcpServers.odd.sandbox").count(), 1, "told once: {errors}");
    Ok(())
}
