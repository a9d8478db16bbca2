//! `rhaiway serve` for clients and models as they are: what they send, and what they can take.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::field;
use crate::support::{Ignored, program, target_dir, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("serving::descriptions_survive_what_clients_do_to_them", descriptions),
        test("serving::arguments_are_taken_as_clients_send_them", arguments),
        test("serving::what_is_wrong_is_told_to_the_model", wrong),
        test("serving::pictures_are_pictures_for_the_model", pictures),
        test("serving::questions_reach_the_client_that_can_answer_them", questions),
    ]
}

/// A client of `rhaiway serve`, a line of JSON a message.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    id: u64,
    _folder: tempfile::TempDir,
}

impl Client {
    fn start(capabilities: &Value, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mcp.json");
        std::fs::write(&file, json!({"mcpServers": {"cam": field::entry("camera")}}).to_string()).unwrap();
        let mut child = Command::new(program())
            .args(["serve", "--config"])
            .arg(&file)
            .args(more)
            .env("XDG_CACHE_HOME", target_dir().join("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut client = Self { child, input, output, id: 0, _folder: folder };
        let info = json!({"name": "c", "version": "1"});
        client.ask(
            "initialize",
            &json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": info}),
        );
        client.send(&json!({"method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: &Value) {
        let mut message = message.clone();
        message["jsonrpc"] = json!("2.0");
        writeln!(self.input, "{message}").unwrap();
    }

    /// The answer to a request; what the server asks in between is accepted.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.id += 1;
        let id = self.id;
        self.send(&json!({"id": id, "method": method, "params": params}));
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["method"] == "elicitation/create" {
                let accepted = json!({"action": "accept", "content": {"sure": true}});
                self.send(&json!({"id": message["id"], "result": accepted}));
            } else if message["id"] == id {
                return message;
            }
        }
    }

    /// The result of a tool.
    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let mut answer = self.ask("tools/call", &json!({"name": tool, "arguments": arguments}));
        assert!(answer["error"].is_null(), "the model does not see this: {answer}");
        answer["result"].take()
    }

    fn execute(&mut self, arguments: &Value) -> Value {
        self.call("execute_code", arguments)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn descriptions() -> Result<(), Ignored> {
    let lengths = |more: &[&str]| -> Vec<usize> {
        let mut client = Client::start(&json!({}), more);
        let tools = client.ask("tools/list", &json!({}))["result"]["tools"].take();
        tools.as_array().unwrap().iter().map(|tool| tool["description"].as_str().unwrap().chars().count()).collect()
    };
    assert!(lengths(&[]).iter().all(|length| *length <= 1024));
    assert!(lengths(&["--description", "guide"])[0] > 4000);
    let mut client = Client::start(&json!({}), &[]);
    let guide = client.call("read_guide", &json!({}));
    assert_eq!(guide["content"][0]["text"], rhaiway::CODE_MODE_PROMPT);
    assert!(guide["structuredContent"].is_null());
    Ok(())
}

async fn arguments() -> Result<(), Ignored> {
    let mut client = Client::start(&json!({}), &[]);
    for arguments in [
        json!({"code": "cam.add(#{a: 1})"}),
        json!({"code": "```rhai\ncam.add(#{a: 1})\n```", "timeout": "5"}),
        json!({"code": "Here it is:\n\n```\ncam.add(#{a: 1})\n```\n", "timeout": null, "description": "adds"}),
    ] {
        assert_eq!(client.execute(&arguments)["structuredContent"]["result"], "add", "{arguments}");
    }
    let cut = client.execute(&json!({"code": "1", "timeout": 30000}));
    let said = "note: the timeout of 30000 s was cut to 30 s, the most that this server gives";
    assert_eq!(cut["structuredContent"]["logs"], json!([said]));
    let found = client.call("search_tools", &json!({"query": "shot", "detail_level": "FULL", "limit": 5}));
    assert_eq!(found["structuredContent"]["results"][0]["name"], "shot");
    // Lines are those that the model wrote.
    let failed = client.execute(&json!({"code": "```\n1;\nnothing\n```"}));
    assert_eq!(failed["structuredContent"]["error"]["line"], 3);
    Ok(())
}

async fn wrong() -> Result<(), Ignored> {
    let mut client = Client::start(&json!({}), &[]);
    for (tool, arguments, said) in [
        ("execute_code", json!({"script": "1"}), "`code` is missing: the script to run. Given: `script`"),
        ("execute_code", json!({"code": 5}), "`code` has to be a text, and is 5"),
        (
            "execute_code",
            json!({"code": "1", "timeout": "soon"}),
            "`timeout` has to be a number of seconds over 0, and is \"soon\"",
        ),
        (
            "search_tools",
            json!({"detail_level": "all"}),
            "the detail level `all` is none of `names`, `descriptions`, `full`",
        ),
        (
            "run_code",
            json!({}),
            "there is no tool `run_code`: there are `execute_code`, `search_tools` and `read_guide`",
        ),
    ] {
        let answer = client.call(tool, &arguments);
        assert_eq!((&answer["isError"], &answer["content"][0]["text"]), (&json!(true), &json!(said)), "{arguments}");
    }
    Ok(())
}

async fn pictures() -> Result<(), Ignored> {
    let mut client = Client::start(&json!({}), &[]);
    for code in ["cam.shot(#{})", "let s = cam.shot(#{}); #{size: s[0].text, deep: [#{picture: s[1]}]}"] {
        let answer = client.execute(&json!({"code": code}));
        let picture = json!({"type": "image", "data": "AAECAwQ=", "mimeType": "image/png"});
        assert_eq!((&answer["content"][1], answer["content"].as_array().unwrap().len()), (&picture, 2), "{answer}");
        assert!(!answer["content"][0]["text"].as_str().unwrap().contains("AAECAwQ="), "{answer}");
    }
    Ok(())
}

async fn questions() -> Result<(), Ignored> {
    for (capabilities, said) in [(json!({"elicitation": {}}), "the user: accept"), (json!({}), "the user: refused")] {
        let mut client = Client::start(&capabilities, &[]);
        let answer = client.execute(&json!({"code": "cam.ask(#{})"}));
        assert_eq!(answer["structuredContent"]["result"], said, "{capabilities}");
    }
    Ok(())
}
