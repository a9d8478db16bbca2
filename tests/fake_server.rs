//! A server that misbehaves on purpose, for what no real server does: a line of JSON in, lines of JSON out. Its one argument names
//! the misbehaviour.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// First argument of the test binary that makes it this server.
pub const ARGUMENT: &str = "fake-server";

/// The configuration's entry for this server.
pub fn entry(behaviour: &str) -> Value {
    json!({"command": std::env::current_exe().unwrap(), "args": [ARGUMENT, behaviour]})
}

/// The entry of a server that has these tools. A call of one in `answers` gives that text as its result, others are echoed.
pub fn scripted(tools: &[Value], answers: &[(&str, &str)]) -> Value {
    let answers: serde_json::Map<String, Value> =
        answers.iter().map(|(name, answer)| ((*name).into(), (*answer).into())).collect();
    entry(&json!({"tools": tools, "answers": answers}).to_string())
}

/// A tool as a server lists it.
pub fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}

pub fn main(behaviour: &str) {
    match behaviour {
        "exits" => {
            eprintln!("first line of trouble\nno database at localhost:5432");
            std::process::exit(3);
        }
        "silent" => return std::io::stdin().lock().lines().for_each(drop),
        "banner" => println!("Welcome to the best server!\n\n{{\"not\": \"mcp\"}}"),
        "junk" => {
            println!("Usage: something else");
            return std::io::stdin().lock().lines().for_each(drop);
        }
        #[cfg(unix)]
        #[allow(clippy::zombie_processes, reason = "it is to be left behind")]
        "stubborn" => {
            // A child that ignores SIGTERM too, and does not end with its input.
            std::process::Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 1; done"]).spawn().unwrap();
        }
        "starts-slowly" => std::thread::sleep(Duration::from_secs(4)),
        "starts-at-the-fifth" => {
            let folder = std::env::var("FOLDER").unwrap();
            let starts = std::fs::read_dir(&folder).unwrap().count();
            std::fs::write(std::path::Path::new(&folder).join(starts.to_string()), "").unwrap();
            if starts < 4 {
                std::process::exit(3);
            }
        }
        "starts-with-others" => start_with_others(std::path::Path::new(&std::env::var("FOLDER").unwrap())),
        "leaves-a-session" | "forks-twice" | "leaves-many" => leave(behaviour),
        _ => {}
    }
    // What is too long for an argument.
    let read = behaviour.strip_prefix("file:").map(|file| std::fs::read_to_string(file).unwrap());
    let behaviour = read.as_deref().unwrap_or(behaviour);
    let mut seen = Seen::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request: Value = serde_json::from_str(&line).unwrap();
        let method = request["method"].as_str().unwrap_or_default();
        seen.lists += u32::from(method == "tools/list");
        seen.calls += u32::from(method == "tools/call");
        seen.cancelled += u32::from(method == "notifications/cancelled");
        if method == "tools/call" && request["params"]["name"] == "work" {
            work(&mut seen, &request);
            continue;
        }
        let Some(id) = request.get("id") else { continue };
        if behaviour == "hostile" && method == "tools/call" {
            let tool = request["params"]["name"].as_str().unwrap_or_default();
            std::io::stdout().write_all(&attack(tool, id, &mut seen)).unwrap();
            std::io::stdout().flush().unwrap();
            continue;
        }
        // The text, for what is lost when it is read.
        if method == "tools/call" && request["params"]["name"] == "raw" {
            println!(
                "{}",
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": format!("sent {line}")}]}})
            );
            continue;
        }
        let answers = answer(behaviour, &mut seen, id, method, &request["params"]);
        for answer in answers {
            println!("{answer}");
        }
        std::io::stdout().flush().unwrap();
        if behaviour == "deaf" && method == "tools/list" {
            break; // and read no more
        }
    }
    if behaviour == "ends-slowly" {
        std::thread::sleep(Duration::from_secs(9));
        std::fs::write(std::env::var("DONE").unwrap(), "").unwrap();
    }
    if matches!(behaviour, "stubborn" | "deaf") {
        loop {
            std::thread::park();
        }
    }
}

/// Takes a second to start, and keeps in the folder how many do so at the same time.
fn start_with_others(folder: &std::path::Path) {
    let starting = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().starts_with("starting");
    let own = folder.join(format!("starting-{}", std::process::id()));
    std::fs::write(&own, "").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let count = std::fs::read_dir(folder).unwrap().flatten().filter(starting).count();
    std::fs::write(folder.join(format!("count-{count}")), "").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    std::fs::remove_file(own).unwrap();
}

/// Starts what is in another process group, and goes on when this server ends: five processes, in all three ways together.
#[allow(clippy::zombie_processes, reason = "they are to be left behind")]
fn leave(how: &str) {
    let endless = "trap '' TERM HUP INT; while :; do sleep 0.2; done";
    let script = match how {
        // Keeps this server's output open, too.
        "leaves-a-session" => r#"setsid sh -c "$LEFT" left-behind &"#,
        // As daemons do: whoever started it ends, and its parent is somebody else.
        "forks-twice" => r#"(setsid sh -c "$LEFT" left-behind <&- >&- 2>&- &)"#,
        // One below the other, each in a session of its own.
        _ => {
            r#"setsid sh -c 'setsid sh -c "setsid sh -c \"\$LEFT\" left-behind & eval \"\$LEFT\"" left-behind & eval "$LEFT"' left-behind &"#
        }
    };
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).env("LEFT", endless).spawn().unwrap().wait().unwrap();
}

/// How often something was asked.
#[derive(Default)]
pub struct Seen {
    lists: u32,
    calls: u32,
    cancelled: u32,
    /// The `id` of a `server/discover` that was not answered.
    discovery: Value,
    /// Lines that come with the next answer.
    late: Vec<u8>,
    /// The `id`s of all calls of `work`, in order, since they were last asked for.
    work: Vec<Value>,
    /// Calls of `work` that are under way, and the most that ever were.
    under_way: Arc<[AtomicUsize; 2]>,
}

/// Answers with the call's `id` after `delay` milliseconds, without keeping others waiting; fails if `fail` is set.
fn work(seen: &mut Seen, request: &Value) {
    let (arguments, id) = (&request["params"]["arguments"], &request["id"]);
    seen.work.push(arguments["id"].clone());
    let delay = Duration::from_millis(arguments["delay"].as_u64().unwrap_or(0));
    let content = json!([{"type": "text", "text": format!("work {} failed", arguments["id"])}]);
    let result = if arguments["fail"] == json!(true) {
        json!({"content": content, "isError": true})
    } else {
        json!({"content": [], "structuredContent": {"id": arguments["id"], "after": arguments["after"]}})
    };
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    let under_way = Arc::clone(&seen.under_way);
    let now = under_way[0].fetch_add(1, Ordering::SeqCst) + 1;
    under_way[1].fetch_max(now, Ordering::SeqCst);
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        under_way[0].fetch_sub(1, Ordering::SeqCst);
        println!("{answer}");
    });
}

/// The lines that answer a request, as text, so that numbers and odd JSON go out as they stand here.
pub fn answer(behaviour: &str, seen: &mut Seen, id: &Value, method: &str, params: &Value) -> Vec<String> {
    let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    match method {
        // As servers do that know no such method, and those that took long to start.
        "server/discover" if matches!(behaviour, "ignores-the-unknown" | "starts-late") => {
            seen.discovery = id.clone();
            vec![]
        }
        // As new servers do that took long to start.
        "server/discover" if behaviour == "starts-late-and-new" => {
            let answer = result(
                r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#,
            );
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(3500));
                println!("{answer}");
            });
            vec![]
        }
        "initialize" if behaviour == "starts-late-and-new" => {
            // After that answer.
            std::thread::sleep(Duration::from_secs(1));
            let refused = json!({"code": -32022, "message": "the initialize handshake is not accepted"});
            vec![json!({"jsonrpc": "2.0", "id": id, "error": refused}).to_string()]
        }
        "initialize" if behaviour == "starts-late" && !seen.discovery.is_null() => {
            let late = std::mem::take(&mut seen.discovery);
            let refused = json!({"jsonrpc": "2.0", "id": late, "error": {"code": -32601, "message": "unknown"}});
            let mut answers = vec![refused.to_string()];
            answers.extend(answer(behaviour, seen, id, method, params));
            answers
        }
        "initialize" => vec![result(&format!(
            r#"{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{"listChanged":true}}}},"serverInfo":{{"name":{},"version":"1"}}}}"#,
            json!(behaviour)
        ))],
        "ping" => vec![result("{}")],
        "tools/list" if behaviour == "never-lists" => vec![],
        "tools/list" => vec![result(&tools(behaviour, seen, params))],
        "tools/call" => match params["name"].as_str().unwrap_or_default() {
            "exit" => {
                eprintln!("going down");
                std::process::exit(7)
            }
            "never" => {
                if let Some(path) = params["arguments"]["path"].as_str() {
                    std::fs::write(path, "").unwrap(); // says that the call has come
                }
                vec![]
            }
            "cancelled" => {
                vec![result(&json!({"content": [], "structuredContent": {"count": seen.cancelled}}).to_string())]
            }
            "worked" => {
                let [now, most] = &*seen.under_way;
                let most = most.swap(now.load(Ordering::SeqCst), Ordering::SeqCst);
                let worked = json!({"ids": std::mem::take(&mut seen.work), "most": most});
                vec![result(&json!({"content": [], "structuredContent": worked}).to_string())]
            }
            "calls" => {
                vec![result(&json!({"content": [], "structuredContent": {"count": seen.calls}}).to_string())]
            }
            "change" => vec![
                r#"{"jsonrpc":"2.0","method":"notifications\/tools\/list_changed"}"#.into(),
                result(r#"{"content":[]}"#),
            ],
            "protocol-error" => {
                vec![format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"no such thing"}}}}"#)]
            }
            name => {
                let script: Value = serde_json::from_str(behaviour).unwrap_or_default();
                let scripted = script["answers"][name].as_str().map(String::from);
                vec![result(&scripted.unwrap_or_else(|| content(name, params)))]
            }
        },
        _ => vec![format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no method {method}"}}}}"#)],
    }
}

/// Tools of the server that attacks its client, each by what it answers.
const ATTACKS: [&str; 24] = [
    "fine",
    "invalid-utf8",
    "controls",
    "raw-controls",
    "lone-surrogate",
    "beyond-floats",
    "long-integer",
    "ten-megabytes",
    "forty-megabytes",
    "long-failure",
    "deep",
    "deep-text",
    "duplicate-keys",
    "wrong-id",
    "twice",
    "late",
    "notifications",
    "changes",
    "requests",
    "many-blocks",
    "wrong-types",
    "null",
    "\u{1b}[2J\u{202e}",
    "../../etc/passwd",
];

/// The bytes that answer a call of one of [`ATTACKS`].
fn attack(tool: &str, id: &Value, seen: &mut Seen) -> Vec<u8> {
    let line =
        |result: &[u8]| [format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#).as_bytes(), result, b"}\n"].concat();
    // As it stands between the quotes of a JSON string.
    let text = |text: &[u8]| line(&[br#"{"content":[{"type":"text","text":""#, text, br#""}]}"#].concat());
    let structured = |value: &str| line(format!(r#"{{"content":[],"structuredContent":{value}}}"#).as_bytes());
    let flood = |message: &str| message.repeat(20_000).into_bytes();
    let mut answer = std::mem::take(&mut seen.late);
    answer.extend(match tool {
        "invalid-utf8" => text(b"a\xff\xc3\x28\xed\xa0\x80z"),
        "controls" => text(br"\u0000\u0001\u001b[2J\u202e\u0085"),
        "raw-controls" => text(b"\x00\x1b[2J"),
        "lone-surrogate" => text(br"\ud800"),
        "beyond-floats" => structured(r#"{"a":1e999}"#),
        "long-integer" => structured(&format!(r#"{{"a":{}}}"#, "9".repeat(1_000_000))),
        "ten-megabytes" => text(&vec![b'x'; 10 << 20]),
        "forty-megabytes" => text(&vec![b'x'; 40 << 20]),
        "long-failure" => {
            let words = "x".repeat(10 << 20);
            line(format!(r#"{{"content":[{{"type":"text","text":"{words}"}}],"isError":true}}"#).as_bytes())
        }
        "deep" => structured(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        "deep-text" => text(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes()),
        "duplicate-keys" => structured(r#"{"a":1,"a":2}"#),
        "wrong-id" => br#"{"jsonrpc":"2.0","id":987654321,"result":{"content":[]}}
{"jsonrpc":"2.0","id":"1","result":{"content":[]}}
{"jsonrpc":"2.0","id":null,"result":{"content":[]}}
"#
        .to_vec(),
        "twice" => [text(b"once"), text(b"twice")].concat(),
        "late" => {
            seen.late = text(b"late");
            Vec::new()
        }
        "notifications" => {
            let progress =
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":0,"progress":1}}"#;
            [flood(&format!("{progress}\n")), text(b"at last")].concat()
        }
        "changes" => {
            let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
            [flood(&format!("{changed}\n")), text(b"at last")].concat()
        }
        "requests" => {
            let requests =
                (0..5000).map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}{}"#, "\n"));
            [requests.collect::<String>().into_bytes(), text(b"at last")].concat()
        }
        "many-blocks" => {
            let blocks = vec![r#"{"type":"text","text":"x"}"#; 100_000].join(",");
            line(format!(r#"{{"content":[{blocks}]}}"#).as_bytes())
        }
        "wrong-types" => line(br#"{"content":[{"type":"text","text":5},{"type":"nothing"},7],"isError":"no"}"#),
        "null" => line(b"null"),
        tool => text(tool.replace('\u{1b}', "ESC").as_bytes()),
    });
    answer
}

fn tools(behaviour: &str, seen: &Seen, params: &Value) -> String {
    if let Ok(script) = serde_json::from_str::<Value>(behaviour) {
        return json!({"tools": script["tools"]}).to_string();
    }
    let names = match behaviour {
        "odd-schemas" => {
            return json!({"tools": [
                {"name": "no-schema"},
                {"name": "no-type", "inputSchema": {"properties": {"a": {"type": "string"}}}},
                {"name": "schema-is-a-list", "inputSchema": [1, 2], "description": 7},
                {"description": "a tool without a name"},
                "not even an object",
                {"name": "fine", "inputSchema": {"type": "object"}},
            ]})
            .to_string();
        }
        "schemas" => return json!({"tools": schemas()}).to_string(),
        "pages" => {
            let page = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
            let next = if page < 2 { json!((page + 1).to_string()) } else { Value::Null };
            return json!({"tools": [tool(&format!("page-{page}"))], "nextCursor": next}).to_string();
        }
        "hostile" => ATTACKS.to_vec(),
        "faults" => vec!["echo", "fault"],
        "collisions" => vec![
            "list-files",
            "list.files",
            "list_files",
            "3d",
            "if",
            "call",
            "len",
            "print",
            "日本",
            "type_of",
            "is_shared",
        ],
        _ => vec![
            "echo",
            "exit",
            "never",
            "cancelled",
            "work",
            "worked",
            "change",
            "protocol-error",
            "big-integers",
            "text",
            "json-text",
            "two-blocks",
            "nothing",
            "structured",
            "structured-image",
            "structured-list",
            "structured-warning",
            "error-with-data",
            "error",
            "error-without-text",
            "not-an-answer",
        ],
    };
    let mut tools: Vec<Value> = names.into_iter().map(tool).collect();
    if behaviour == "plain" {
        tools.push(tool(&format!("listed-{}", seen.lists)));
    }
    json!({"tools": tools}).to_string()
}

/// Tools that say what they take, well or badly.
fn schemas() -> Value {
    let string = json!({"type": "string"});
    let tool = |name: &str, schema: Value| json!({"name": name, "inputSchema": schema});
    let properties = |name: &str, properties: Value| tool(name, json!({"type": "object", "properties": properties}));
    let look_around = json!({"code": {"type": "string", "pattern": "^(?!x)[a-z]+$"}, "count": {"type": "integer"}});
    // Each level refers to the next one twice: 2^60 ways to the end.
    let level = |index: u32| json!({"anyOf": [{"$ref": format!("#/$defs/{}", index + 1)}, {"$ref": format!("#/$defs/{}", index + 1)}]});
    let levels: serde_json::Map<String, Value> = (0..60).map(|index| (index.to_string(), level(index))).collect();
    let mut deep = string.clone();
    for _ in 0..40 {
        deep = json!({"type": "array", "items": {"type": "array", "items": deep}});
    }
    json!([
        properties("calls", json!({})),
        tool("nothing-at-all", json!({"type": "object", "additionalProperties": false})),
        tool(
            "typed",
            json!({"type": "object", "required": ["owner", "number"], "additionalProperties": false, "properties": {
            "owner": string,
            "number": {"type": "integer"},
            "state": {"enum": ["open", "closed"], "default": "open"},
            "limit": {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "null"}], "default": null},
            "labels": {"type": "array", "items": {"$ref": "#/$defs/Label"}},
            "slug": {"type": "string", "pattern": "^[a-z]+$"},
            "private": {"type": "boolean"},
        }, "$defs": {"Label": {"type": "object", "required": ["name"], "properties": {"name": string, "colour": string}}}})
        ),
        tool("open-ended", json!({"type": "object", "required": ["title"], "properties": {"title": string}})),
        tool(
            "either",
            json!({"properties": {"id": {"type": "integer"}, "name": string}, "anyOf": [{"required": ["id"]}, {"required": ["name"]}]})
        ),
        properties(
            "tagged",
            json!({"shape": {"oneOf": [
                {"type": "object", "required": ["kind", "radius"], "properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}}},
                {"type": "object", "required": ["kind", "side"], "properties": {"kind": {"const": "square"}, "side": {"type": "number"}}},
                string,
            ]}})
        ),
        properties(
            "sloppy",
            json!({"site": {"type": "string", "format": "uri"}, "both": {"oneOf": [{"type": "integer"}, {"type": "number"}]}})
        ),
        tool(
            "required-with-default",
            json!({"type": "object", "required": ["scale"], "properties": {"scale": {"type": "string", "default": "css"}}})
        ),
        properties("look-around", look_around),
        properties("strange-type", json!({"a": {"type": "strange"}})),
        properties("elsewhere", json!({"a": {"$ref": "https://example.com/schema.json"}})),
        properties("file", json!({"a": {"$ref": "file:///etc/hostname"}})),
        properties("dangling", json!({"a": {"$ref": "#/$defs/none"}})),
        properties("itself", json!({"a": {"$ref": "#/properties/a"}})),
        tool("doubling", json!({"properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": levels})),
        properties("deep", json!({"a": deep})),
        properties("slow-pattern", json!({"a": {"type": "string", "pattern": "^(a+)+$"}})),
    ])
}

/// Answers of tools. What is not named here echoes its name and arguments.
fn content(name: &str, params: &Value) -> String {
    match name {
        "big-integers" => {
            r#"{"content":[],"structuredContent":{"id":123456789012345678901234567890,"max":9223372036854775807,"min":-9223372036854775808,"pi":3.5}}"#.into()
        }
        "text" => r#"{"content":[{"type":"text","text":"plain words"}]}"#.into(),
        "json-text" => r#"{"content":[{"type":"text","text":"{\"a\": [1, 2]}"}]}"#.into(),
        "two-blocks" => {
            r#"{"content":[{"type":"text","text":"one"},{"type":"image","data":"AAEC","mimeType":"image/png"},{"type":"resource","resource":{"uri":"file:///a","text":"b"}}]}"#.into()
        }
        "nothing" => r#"{"content":[]}"#.into(),
        "structured" => r#"{"content":[{"type":"text","text":"{\"a\":1}"}],"structuredContent":{"a":1},"isError":null}"#.into(),
        "structured-image" => {
            r#"{"content":[{"type":"text","text":"x"},{"type":"image","data":"AAEC","mimeType":"image/png"}],"structuredContent":{"a":1}}"#.into()
        }
        "error" => r#"{"content":[{"type":"text","text":"disk full"}],"isError":true}"#.into(),
        "error-without-text" => r#"{"content":[],"isError":true}"#.into(),
        "not-an-answer" => r#"{"content":"what?"}"#.into(),
        "structured-list" => {
            r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"2"}],"structuredContent":{"result":["a",2]}}"#.into()
        }
        "structured-warning" => {
            r#"{"content":[{"type":"text","text":"{ \"a\": 1 }"},{"type":"text","text":"truncated"}],"structuredContent":{"a":1}}"#.into()
        }
        "error-with-data" => {
            r#"{"content":[{"type":"text","text":"bad"}],"structuredContent":{"code":5},"isError":true}"#.into()
        }
        name => json!({"content": [], "structuredContent": {"tool": name, "arguments": params["arguments"]}}).to_string(),
    }
}
