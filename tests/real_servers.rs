//! Against servers that others wrote: four over stdio from one configuration, one over streamable HTTP, and rhaiway itself as the
//! server of the official Python SDK.

use std::process::Stdio;

use libtest_mimic::Trial;
use rhaiway::Detail;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::processes::Mark;
use crate::support::{Ignored, client, need, program, run, test, value};
use crate::{fixtures, support};

pub fn tests() -> Vec<Trial> {
    vec![
        test("real_servers::four_over_stdio_from_one_configuration", four_over_stdio),
        test("real_servers::the_everything_server_calls_back", everything_calls_back),
        test("real_servers::memory_keeps_what_a_script_writes", memory),
        test("real_servers::streamable_http", streamable_http),
        test("real_servers::http_and_sse_of_the_typescript_sdk", sse_of_typescript),
        test("real_servers::http_and_sse_of_the_python_sdk", sse_of_python),
        test("real_servers::web_socket_of_another_library", web_socket),
        test("real_servers::the_python_sdk_is_served", python_sdk),
        test("real_servers::the_python_sdk_is_served_in_process", python_sdk_in_process),
    ]
}

async fn four_over_stdio() -> Result<(), Ignored> {
    let [everything, filesystem, time, git] =
        [need(fixtures::everything())?, need(fixtures::filesystem())?, need(fixtures::time())?, need(fixtures::git())?];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::write(root.join("hello.txt"), "hello from a file\n").unwrap();
    let repository = root.join("repository");
    let make =
        std::process::Command::new("git").args(["init", "--quiet", "--initial-branch=trunk"]).arg(&repository).status();
    assert!(make.unwrap().success());
    let mark = Mark::new("four");
    let config = json!({"mcpServers": {
        "everything": mark.on(everything.entry(&[])),
        "files": mark.on(filesystem.entry(&[root.to_str().unwrap()])),
        "time": mark.on(time.entry(&[])),
        "git-tools": mark.on(git.entry(&["--repository", repository.to_str().unwrap()])),
    }});
    // Through a file, as a user has it.
    let file = root.join("mcp.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let client = support::builder(json!({})).config(rhaiway::Config::from_file(&file).unwrap()).build().unwrap();

    let found = client.search_tools("read file", Detail::Names).await;
    assert!(found.results.iter().any(|tool| tool.server == "files" && tool.name == "read_text_file"), "{found:?}");
    assert_eq!(found.meta.namespaces, ["everything", "files", "time", "git_tools"]);
    assert!(found.meta.total_tools > 30 && found.meta.unreachable.is_empty(), "{:?}", found.meta);
    assert_eq!(mark.alive().len(), 4, "{:?}", mark.alive());

    let script = r#"
        let out = #{};
        out.sum = everything.get_sum(#{a: 2, b: 40});
        out.weather = everything.get_structured_content(#{location: "Chicago"});
        out.image = everything.get_tiny_image().filter(|block| block.type == "image")[0].mimeType;
        out.text = files.read_text_file(#{path: ROOT + "/hello.txt"}).content;
        out.hour = time.convert_time(#{source_timezone: "Europe/Berlin", time: "12:30", target_timezone: "Asia/Tokyo"}).time_difference;
        out.branch = git_tools.git_status(#{repo_path: ROOT + "/repository"});
        try { files.read_text_file(#{path: "/etc/passwd"}) } catch (e) { out.denied = `${e.kind} of ${e.server}.${e.tool}`; out.why = e.message; }
        try { everything.get_sum(#{a: "two"}) } catch (e) { out.wrong = [e.kind, e.message.split("\n")]; }
        out
    "#
    .replace("ROOT", &format!("{:?}", root.to_str().unwrap()));
    let execution = run(&client, &script).await;
    assert_eq!(execution.calls.len(), 8);
    let outcomes: Vec<&str> = execution.calls.iter().map(|call| call.outcome.as_str()).collect();
    let out = value(execution);
    assert_eq!(out["sum"], json!("The sum of 2 and 40 is 42."));
    assert_eq!(out["weather"]["conditions"], json!("Light rain / drizzle"));
    assert_eq!(out["image"], json!("image/png"));
    assert_eq!(out["text"], json!("hello from a file\n"));
    assert!(["+7.0h", "+8.0h"].contains(&out["hour"].as_str().unwrap()), "{out}");
    assert!(out["branch"].as_str().unwrap().contains("trunk"), "{out}");
    assert_eq!(out["denied"], json!("tool of files.read_text_file"));
    assert!(out["why"].as_str().unwrap().contains("outside allowed directories"), "{out}");
    assert_eq!(outcomes[6..], ["tool", "arguments"]);
    let wrong = "`everything.get_sum` was not called: `b` is missing (number)";
    let wrong = [
        wrong,
        "  `a` has to be a number, and was given the string \"two\"",
        "  everything.get_sum(#{a: number, b: number})",
    ];
    assert_eq!(out["wrong"], json!(["arguments", wrong]));

    client.close_all_sessions().await;
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

async fn everything_calls_back() -> Result<(), Ignored> {
    let everything = need(fixtures::everything())?;
    let content = |value: Value| serde_json::from_value(value).unwrap();
    let client = support::builder(json!({"everything": everything.entry(&[])}))
        .on_sampling(move |request, _| async move {
            let request = serde_json::to_value(request).unwrap();
            let said = format!("at most {} tokens", request["maxTokens"]);
            let answer = json!({"model": "test", "role": "assistant", "content": {"type": "text", "text": said}});
            Ok::<_, rhaiway::Error>(serde_json::from_value(answer).unwrap())
        })
        .on_elicitation(|_, _| async {
            let answer = json!({"action": "accept", "content": {"name": "Ada Lovelace", "check": true}});
            Ok::<_, rhaiway::Error>(serde_json::from_value(answer).unwrap())
        })
        .roots([content(json!({"uri": "file:///srv/work", "name": "work"}))])
        .build()
        .unwrap();
    let script = r#"
        let said = |answer| if type_of(answer) == "string" { answer } else { answer.to_json() };
        #{
            sampled: said.call(everything.trigger_sampling_request(#{prompt: "hi", maxTokens: 77})),
            elicited: said.call(everything.trigger_elicitation_request()),
            roots: said.call(everything.get_roots_list()),
            long: said.call(everything.trigger_long_running_operation(#{duration: 0.2, steps: 2}))
        }"#;
    let options = rhaiway::ExecuteOptions::default().log_progress(true);
    let execution = client.execute_code(script, options).await.unwrap();
    let progress: Vec<_> = execution.logs.iter().filter(|line| line.contains("progress of")).cloned().collect();
    let out = value(execution);
    let said = |key: &str| out[key].as_str().unwrap();
    assert!(said("sampled").contains("at most 77 tokens"), "{out}");
    assert!(said("elicited").contains("Ada Lovelace"), "{out}");
    assert!(said("roots").contains("file:///srv/work"), "{out}");
    assert!(said("long").contains("completed"), "{out}");
    assert_eq!(progress.len(), 2, "{progress:?}");
    assert_eq!(progress[1], "[everything] progress of trigger_long_running_operation: 2 of 2");

    let session = client.create_session("everything").await.unwrap();
    assert!(session.instructions().unwrap().contains("Everything"), "{:?}", session.instructions());
    let resources = session.list_resources().await.unwrap();
    let read = session.read_resource(&resources[0].uri).await.unwrap();
    assert_eq!(read.contents.len(), 1);
    assert!(!session.list_resource_templates().await.unwrap().is_empty());
    let prompts = session.list_prompts().await.unwrap();
    assert!(prompts.iter().any(|prompt| prompt.name == "simple-prompt"), "{prompts:?}");
    client.close_all_sessions().await;
    Ok(())
}

async fn memory() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let mut entry = need(fixtures::memory())?.entry(&[]);
    entry["env"] = json!({"MEMORY_FILE_PATH": folder.path().join("memory.jsonl")});
    let client = client(json!({"memory": entry}));
    let script = r#"
        memory.create_entities(#{entities: [#{name: "Ada", entityType: "person", observations: ["wrote the first program"]}]});
        memory.search_nodes(#{query: "program"}).entities.map(|entity| entity.name)
    "#;
    assert_eq!(value(run(&client, script).await), json!(["Ada"]));
    client.close_all_sessions().await;
    Ok(())
}

/// Starts server-everything over HTTP on a free port: the process and its origin.
async fn everything_over_http(transport: &str) -> Result<(Child, String), Ignored> {
    let everything = need(fixtures::everything())?;
    let mut server = Command::new(&everything.program);
    server.args(&everything.args).arg(transport);
    Ok(listening(server, &["listening on port", "is running on port"]).await)
}

/// Starts a server that listens on the port `PORT`, and says so on its standard error: the process and its origin.
async fn listening(mut server: Command, says: &[&str]) -> (Child, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = server
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if says.iter().any(|what| line.contains(what)) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (server, format!("http://127.0.0.1:{port}"));
        }
        said.push_str(&line);
    }
    panic!("the server ended before it listened: {said}");
}

async fn streamable_http() -> Result<(), Ignored> {
    let (mut server, origin) = everything_over_http("streamableHttp").await?;
    let url = format!("${{SCHEME:-http}}{}/mcp", &origin["http".len()..]);
    let client = client(json!({"remote": {"url": url, "headers": {"X-Test": "1"}}}));
    let script = r#"
        let weather = remote.get_structured_content(#{location: "New York"});
        let caught = ();
        try { remote.get_resource_reference(#{resourceId: -1}) } catch (e) { caught = e.kind; }
        [remote.get_sum(#{a: 1, b: 2}), weather.temperature, caught, search_tools("sum", "names").results[0].name]
    "#;
    assert_eq!(value(run(&client, script).await), json!(["The sum of 1 and 2 is 3.", 33, "tool", "get_sum"]));
    // The server goes away: the next call says so, and the script goes on.
    server.kill().await.unwrap();
    let execution = run(&client, "try { remote.get_sum(#{a: 1, b: 2}) } catch (e) { return e.kind }").await;
    assert_eq!(value(execution), json!("connection"));
    client.close_all_sessions().await;
    Ok(())
}

/// Found out about, and by its type.
async fn sse_of_typescript() -> Result<(), Ignored> {
    for kind in [Value::Null, json!("sse")] {
        let (mut server, origin) = everything_over_http("sse").await?;
        let client = client(json!({"remote": {"url": format!("{origin}/sse"), "type": kind}}));
        let script = r#"
            let weather = remote.get_structured_content(#{location: "New York"});
            let sums = parallel_map(0..20, |i| remote.get_sum(#{a: i, b: 2}));
            [remote.echo(#{message: "ä\n\u2028"}), weather.temperature, sums.len(), sums[19]]
        "#;
        assert_eq!(
            value(run(&client, script).await),
            json!(["Echo: ä\n\u{2028}", 33, 20, "The sum of 19 and 2 is 21."])
        );
        server.kill().await.unwrap();
        let execution = run(&client, "try { remote.get_sum(#{a: 1, b: 2}) } catch (e) { return e.kind }").await;
        assert_eq!(value(execution), json!("connection"));
        client.close_all_sessions().await;
    }
    Ok(())
}

const SDK_SERVER: &str = r#"
import os
from mcp.server import MCPServer

server = MCPServer("sums")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def fail() -> str:
    raise ValueError("no such thing")

server.run("sse", host="127.0.0.1", port=int(os.environ["PORT"]))
"#;

async fn sse_of_python() -> Result<(), Ignored> {
    let python = need(fixtures::python_sdk())?;
    let mut command = Command::new(&python.program);
    command.args(["-c", SDK_SERVER]);
    let (_server, origin) = listening(command, &["Uvicorn running"]).await;
    for kind in [Value::Null, json!("sse")] {
        let client = client(json!({"sums": {"url": format!("{origin}/sse"), "type": kind}}));
        let script = "let why = (); try { sums.fail() } catch (e) { why = e.kind }
            [sums.add(#{a: 1, b: 2}).result, parallel_map(0..20, |i| sums.add(#{a: i, b: 1}).result).len(), why]";
        assert_eq!(value(run(&client, script).await), json!([3, 20, "tool"]));
        client.close_all_sessions().await;
    }
    Ok(())
}

/// Hands each message of a WebSocket on to a process of its own, and back.
const WEB_SOCKET_SERVER: &str = r#"
import asyncio, os, sys
from asyncio.subprocess import PIPE
from websockets.asyncio.server import serve

async def relay(socket):
    process = await asyncio.create_subprocess_exec(*sys.argv[1:], stdin=PIPE, stdout=PIPE, limit=1 << 24)
    async def back():
        async for line in process.stdout:
            await socket.send(line.decode())
    task = asyncio.create_task(back())
    async for message in socket:
        if "get_issue" in message and "404" in message:
            await socket.close(4404, "gone fishing")
        process.stdin.write(message.encode() + b"\n")
    print("closed with", socket.close_code, file=sys.stderr, flush=True)
    process.stdin.close()
    await process.wait()
    await task

async def main():
    async with serve(relay, "127.0.0.1", int(os.environ["PORT"]), subprotocols=["mcp"]):
        print("listening on port", file=sys.stderr, flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"#;

async fn web_socket() -> Result<(), Ignored> {
    let python = need(fixtures::python_websockets())?;
    let mut command = Command::new(&python.program);
    command.args(["-c", WEB_SOCKET_SERVER, program(), "demo-server"]);
    let (mut server, origin) = listening(command, &["listening on port"]).await;
    let client = client(json!({"demo": {"ws_url": origin.replace("http", "ws")}}));
    let script = "
        let long = \"ä\";
        long.pad(100_000, \"ö\");
        let number = demo.create_issue(#{title: \"long\", body: long}).number;
        let same = demo.get_issue(#{number: number}).body == long;
        let numbers = parallel_map(1..20, |i| demo.get_issue(#{number: i}).number);
        try { demo.get_issue(#{number: 404}) } catch (e) { return [same, numbers, e.message] }
    ";
    let execution = run(&client, script).await;
    let numbers: Vec<u32> = (1..20).collect();
    let why = "the connection is closed; it closed the WebSocket with code 4404: `gone fishing`";
    assert_eq!(value(execution), json!([true, numbers, why]));
    server.kill().await.unwrap();
    let execution = run(&client, "try { demo.list_users() } catch (e) { return e.kind }").await;
    assert_eq!(value(execution), json!("connection"));
    client.close_all_sessions().await;
    Ok(())
}

const SDK_CLIENT: &str = r#"
import asyncio, json, sys
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main():
    out = {}
    server = StdioServerParameters(command=sys.argv[1], args=sys.argv[2:])
    async with Client(stdio_client(server)) as client:
        out["tools"] = sorted(tool.name for tool in (await client.list_tools()).tools)
        call = lambda tool, arguments: client.call_tool(tool, arguments)
        ok = await call("execute_code", {"code": "print(`hi`); demo.list_issues(#{}).total + 1"})
        out["ok"] = [ok.is_error, ok.structured_content["result"], ok.structured_content["logs"], len(ok.structured_content["calls"])]
        bad = await call("execute_code", {"code": "demo.get_isue(#{})"})
        out["bad"] = [bad.is_error, bad.structured_content["error"]["kind"], bad.structured_content["error"]["message"]]
        slow = await call("execute_code", {"code": "loop {}", "timeout": 0.2})
        out["slow"] = [slow.is_error, slow.structured_content["error"]["kind"]]
        found = await call("search_tools", {"query": "close issue", "detail_level": "names"})
        out["found"] = found.structured_content["results"][0]
        out["text"] = json.loads(found.content[0].text) == found.structured_content
        try:
            wrong = await call("search_tools", {"detail_level": "everything"})
            out["wrong"] = wrong.content[0].text
        except Exception as error:
            out["wrong"] = str(error)
    print(json.dumps(out))

asyncio.run(main())
"#;

async fn python_sdk() -> Result<(), Ignored> {
    drive_by_python_sdk(&[]).await
}

async fn python_sdk_in_process() -> Result<(), Ignored> {
    drive_by_python_sdk(&["--isolation", "in-process"]).await
}

async fn drive_by_python_sdk(more: &[&str]) -> Result<(), Ignored> {
    let python = need(fixtures::python_sdk())?;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("client.py"), SDK_CLIENT).unwrap();
    let mut child = Command::new(&python.program)
        .args(&python.args)
        .arg(folder.path().join("client.py"))
        .arg(program())
        .arg("serve")
        .args(more)
        .env("XDG_CACHE_HOME", support::target_dir().join("cache"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let out: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(out["tools"], json!(["execute_code", "read_guide", "search_tools"]));
    assert_eq!(out["ok"], json!([false, 17, ["hi"], 1]));
    assert_eq!(out["bad"][0], json!(true));
    assert_eq!(out["bad"][1], json!("unknown_tool"));
    assert!(out["bad"][2].as_str().unwrap().contains("did you mean `get_issue`?"), "{out}");
    assert_eq!(out["slow"], json!([true, "timeout"]));
    assert_eq!(out["found"], json!({"name": "close_issue", "server": "demo"}));
    assert_eq!(out["text"], json!(true));
    assert!(out["wrong"].as_str().unwrap().contains("everything"), "{out}");
    Ok(())
}
