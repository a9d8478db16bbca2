//! An MCP server whose tools attempt what a sandbox must prevent, and say what came of it. For tests: nobody should run it
//! outside of a sandbox.
//!
//! Every tool answers with a text; what was prevented is a failed call with the system's error as its text. The protocol is
//! done by hand, so that the server is small, and so that it can also break it.

#![allow(clippy::disallowed_methods, reason = "the server is there to read the environment and to end the process")]

mod files;
#[cfg(target_os = "linux")]
mod linux;
#[cfg_attr(all(feature = "sockets", target_family = "wasm"), path = "sockets.rs")]
mod network;
mod process;

use std::error::Error;
use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

type Outcome = Result<String, Box<dyn Error>>;
type Tool = (&'static str, fn(Arguments<'_>) -> Outcome);

/// The arguments of a call, by name.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a Value);

impl<'a> Arguments<'a> {
    fn text(self, name: &str) -> Result<&'a str, String> {
        self.0[name].as_str().ok_or_else(|| format!("`{name}` must be a text"))
    }

    fn number<T: TryFrom<i64>>(self, name: &str) -> Result<T, String> {
        let number = self.0[name].as_i64().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| format!("`{name}` must be an integer in range"))
    }
}

/// Serves until stdin ends. The first argument after the program's name says what to do before:
/// `spin`, `exit`, `panic`, `flood`, `hang`, `allocate` and `recurse` never get to serve, `deaf` stops to read after the list of tools.
pub fn main(arguments: &[String]) {
    let first = arguments.get(1).map_or("", String::as_str);
    match first {
        "spin" => process::spin(),
        "exit" => std::process::exit(3),
        "panic" => process::panic("before serving"),
        "flood" => while process::flood(&mut io::stdout(), 1).is_ok() {},
        "hang" => process::hang(),
        "allocate" => loop {
            process::allocate(16);
        },
        "recurse" => drop(process::recurse(0)),
        _ => {}
    }
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let (method, answer) = answer(&line);
        let written = answer.map_or(Ok(()), |answer| {
            let mut out = io::stdout().lock();
            writeln!(out, "{answer}").and_then(|()| out.flush())
        });
        if written.is_err() {
            break;
        }
        if first == "deaf" && method == "tools/list" {
            process::hang();
        }
    }
}

/// The method of a message, and the answer to it; notifications have none.
fn answer(line: &str) -> (String, Option<Value>) {
    let message: Value = match serde_json::from_str(line) {
        Ok(message) => message,
        Err(error) => {
            return (String::new(), Some(failure(&Value::Null, -32700, &error.to_string())));
        }
    };
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let parameters = &message["params"];
    let answer = message.get("id").map(|id| match method.as_str() {
        "initialize" => success(
            id,
            &json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "rhaiway-probe", "version": env!("CARGO_PKG_VERSION")},
            }),
        ),
        "ping" => success(id, &json!({})),
        "tools/list" => {
            let tools: Vec<Value> =
                tools().map(|(name, _)| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
            success(id, &json!({"tools": tools}))
        }
        "tools/call" => {
            let wanted = parameters["name"].as_str().unwrap_or_default();
            match tools().find(|(name, _)| *name == wanted) {
                Some((_, tool)) => {
                    let outcome = tool(Arguments(&parameters["arguments"]));
                    let (text, failed) = match outcome {
                        Ok(text) => (text, false),
                        Err(error) => (error.to_string(), true),
                    };
                    success(id, &json!({"content": [{"type": "text", "text": text}], "isError": failed}))
                }
                None => failure(id, -32602, &format!("there is no tool `{wanted}` here")),
            }
        }
        _ => failure(id, -32601, "method not found"),
    });
    (method, answer)
}

fn tools() -> impl Iterator<Item = Tool> {
    let tools = files::TOOLS.iter().chain(network::TOOLS).chain(process::TOOLS);
    #[cfg(target_os = "linux")]
    let tools = tools.chain(linux::TOOLS);
    tools.copied()
}

fn success(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn failure(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}
