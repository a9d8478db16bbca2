//! A server with one fault, over any transport. It has two tools: `fault`, which shows the fault, and `echo`, which works. A fault is
//! the same on all transports where it can be ([`acts`]), and belongs to one where it can't. What is well-formed comes from
//! [`fake_server`].

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::fake_server;

/// First argument of the test binary that makes it this server on its standard input and output; the second is the fault.
pub const ARGUMENT: &str = "fault-server";

/// What the server does at a request, one after the other.
enum Act {
    /// Sends a message.
    Say(Vec<u8>),
    /// Sends a message a byte at a time.
    Trickle(Vec<u8>),
    /// Sends bytes that no frame is around.
    Raw(Vec<u8>),
    /// Sends a message again and again, for as long as the connection stands.
    Repeat(Vec<u8>),
    /// Ends the connection, and the process where there is one.
    Die,
}

/// What one server has seen.
#[derive(Default)]
pub struct Seen {
    fake: fake_server::Seen,
    lists: usize,
    faults: usize,
    /// Calls of `fault` that the transport has looked at.
    looked_at: usize,
    /// The `id` of an `initialize` that is not answered yet.
    greeted: Value,
}

fn say(text: impl Into<String>) -> Vec<Act> {
    vec![Act::Say(text.into().into_bytes())]
}

/// What answers a message. Its text goes out as it stands here.
fn acts(fault: &str, seen: &mut Seen, message: &Value) -> Vec<Act> {
    let method = message["method"].as_str().unwrap_or_default();
    let Some(id) = message.get("id") else { return Vec::new() };
    if fault == "asks-before-it-greets" {
        match (method, id.as_str()) {
            ("initialize", _) => {
                seen.greeted = id.clone();
                let ask = |id, method| say(format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"{method}"}}"#));
                return [ask("early-1", "ping"), ask("early-2", "roots/list")].into_iter().flatten().collect();
            }
            ("", Some("early-1")) => {
                assert_eq!(message["result"], json!({}));
                return Vec::new();
            }
            ("", Some("early-2")) => {
                assert_eq!(message["error"]["code"], -32601, "there are no roots: {message}");
                return fake_server::answer("faults", &mut seen.fake, &seen.greeted, "initialize", &Value::Null)
                    .into_iter()
                    .flat_map(say)
                    .collect();
            }
            _ => {}
        }
    }
    let called = method == "tools/call" && message["params"]["name"] == "fault";
    seen.lists += usize::from(method == "tools/list");
    seen.faults += usize::from(called);
    let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    let text = |text: &str| result(&format!(r#"{{"content":[{{"type":"text","text":"{text}"}}]}}"#));
    let notification = |method: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}"}}"#);
    let tools = |more: &str| {
        let tool = |name| format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#);
        format!(r#"{{"tools":[{},{}],{more}}}"#, tool("echo"), tool("fault"))
    };
    match (method, fault) {
        ("initialize", "never-initialises") => return Vec::new(),
        ("initialize", "dies-at-initialize") => return vec![Act::Die],
        ("initialize", "other-version") => {
            let info = json!({"protocolVersion": "1999-01-01", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}});
            return say(result(&info.to_string()));
        }
        ("initialize", "initialize-is-refused") => {
            return say(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"licence expired"}}}}"#
            ));
        }
        ("initialize", "initialize-is-no-object") => return say(result("[]")),
        ("initialize", greeting) if greeting.starts_with("greets-") => {
            let mut answer = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}});
            match greeting {
                // As PHP writes empty objects.
                "greets-with-lists" => answer["capabilities"] = json!({"tools": [], "prompts": [], "experimental": []}),
                "greets-with-true" => {
                    answer["capabilities"] = json!({"tools": true, "resources": [1], "logging": null});
                }
                "greets-with-odd-flags" => {
                    answer["capabilities"] = json!({"tools": {"listChanged": null}, "resources": {"subscribe": 1}});
                }
                "greets-with-a-list" => answer["capabilities"] = json!([]),
                "greets-with-nothing" => answer["capabilities"] = json!(null),
                "greets-without-version" => answer["serverInfo"] = json!({"name": "x"}),
                "greets-without-a-name" => answer["serverInfo"] = json!([]),
                "greets-without-a-revision" => answer["protocolVersion"] = json!(null),
                other => panic!("no greeting `{other}`"),
            }
            return say(result(&answer.to_string()));
        }
        ("tools/list", "dies-at-list") if seen.lists == 1 => return vec![Act::Die],
        ("tools/list", "list-never-ends") => return say(result(&tools(&format!(r#""nextCursor":"{}""#, seen.lists)))),
        ("tools/list", "list-goes-round") => return say(result(&tools(r#""nextCursor":"again""#))),
        ("tools/list", "list-is-refused") => {
            return say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"no database"}}}}"#));
        }
        ("tools/list", "list-is-no-list") => return say(result(r#"{"tools":"many"}"#)),
        ("tools/list", "list-is-null") => return say(result(r#"{"tools":null}"#)),
        ("tools/list", "list-is-an-object") => return say(result(r#"{"tools":{}}"#)),
        ("tools/list", "cursor-is-empty") => return say(result(&tools(r#""nextCursor":"""#))),
        ("tools/list", "cursor-is-false") => return say(result(&tools(r#""nextCursor":false"#))),
        ("tools/list", "properties-are-a-list") => {
            return say(result(
                &tools(r#""nextCursor":null"#)
                    .replace(r#"{"type":"object"}"#, r#"{"type":"object","properties":[],"required":null}"#),
            ));
        }
        ("tools/list", "changes-tools") if seen.faults > 0 => {
            return say(result(&tools(r#""nextCursor":null"#).replace("\"fault\"", "\"instead\"")));
        }
        ("tools/list", "odd-tools") => {
            let odd = r##"{"tools":[7,{"description":"nameless"},{"name":"fault","inputSchema":{"type":"object","properties":{"a":{"$ref":"#/none"}},"required":"all"}},
                {"name":"echo","inputSchema":null}]}"##;
            return say(result(&odd.replace('\n', "")));
        }
        _ if !called => {
            let answers = fake_server::answer("faults", &mut seen.fake, id, method, &message["params"]);
            return answers.into_iter().map(|answer| Act::Say(answer.into_bytes())).collect();
        }
        _ => {}
    }
    let fine = text("fine");
    match fault {
        "dies" => vec![Act::Die],
        "dies-once" if seen.faults == 1 => vec![Act::Die],
        "never" => Vec::new(),
        "twice" => [say(text("first")), say(text("second"))].into_iter().flatten().collect(),
        "unknown-id" => {
            let stranger = r#"{"jsonrpc":"2.0","id":987654,"result":{"content":[]}}"#;
            [say(stranger), say(fine)].into_iter().flatten().collect()
        }
        "id-as-text" => say(fine.replacen(&format!(r#""id":{id}"#), &format!(r#""id":"{id}""#), 1)),
        "id-is-null" => say(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"could not read that"}}"#),
        "huge" => say(text(&"x".repeat(50 << 20))),
        "invalid-utf8" => {
            let mut bytes = fine.into_bytes();
            let place = bytes.windows(4).position(|window| window == b"fine").unwrap();
            bytes[place] = 0xff;
            vec![Act::Say(bytes)]
        }
        "half" => {
            let half = fine.as_bytes()[..fine.len() / 2].to_vec();
            vec![Act::Raw(half), Act::Die]
        }
        "junk" => [say("Traceback (most recent call last):"), say(fine)].into_iter().flatten().collect(),
        "only-junk" => say("Segmentation fault"),
        "flood" => {
            let flood = (0..10_000).flat_map(|_| say(notification("resources/list_changed")));
            flood.chain(say(fine)).collect()
        }
        "endless-flood" => vec![Act::Repeat(notification("resources/list_changed").into_bytes())],
        "no-jsonrpc" => say(fine.replacen(r#""jsonrpc":"2.0","#, "", 1)),
        "other-jsonrpc" => say(fine.replacen("2.0", "1.0", 1)),
        "neither-result-nor-error" => say(format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#)),
        "result-and-error" => say(fine.replacen(r#""id""#, r#""error":{"code":-32000,"message":"both"},"id""#, 1)),
        "error-without-message" => say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000}}}}"#)),
        "error-is-text" => say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"disk full"}}"#)),
        "result-is-text" => say(result(r#""done""#)),
        "content-is-null" => say(result(r#"{"content":null,"structuredContent":"fine","isError":null}"#)),
        "content-is-null-in-a-failure" => say(result(r#"{"content":null,"isError":true}"#)),
        "failed-is-a-number" => say(fine.replacen(r#"{"content""#, r#"{"isError":0,"content""#, 1)),
        "failed-is-text" => say(fine.replacen(r#"{"content""#, r#"{"isError":"false","content""#, 1)),
        "content-is-one-block" => say(result(r#"{"content":{"type":"text","text":"fine"}}"#)),
        "error-without-code" => {
            say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"message":"disk full","data":[1]}}}}"#))
        }
        "error-code-is-text" => {
            say(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":"E17","message":"disk full"}}}}"#))
        }
        "error-beside-null" => say(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":null,"error":{{"code":-32001,"message":"disk full"}}}}"#
        )),
        "content-is-text" => say(result(r#"{"content":"fine"}"#)),
        "byte-order-mark" => say(format!("\u{feff}{fine}")),
        "terminal-codes" => say(format!("\u{1b}[2K\u{1b}[32m{fine}\u{1b}[0m")),
        "text-before" => say(format!("Loading {{plugins}} … {fine}")),
        "log-before" => say(format!("[INFO] ready {fine}")),
        "two-in-a-line" => say(format!("{}{fine}", notification("resources/list_changed"))),
        "batch" => say(format!("[{fine}]")),
        "trickle" => vec![Act::Trickle(fine.into_bytes())],
        "changes-tools" => {
            let changed = say(notification("tools/list_changed"));
            changed.into_iter().chain(say(fine)).collect()
        }
        "asks-for-roots" => {
            let question = r#"{"jsonrpc":"2.0","id":"q-1","method":"roots/list"}"#;
            [say(question), say(fine)].into_iter().flatten().collect()
        }
        "asks-for-nonsense" => {
            let question = r#"{"jsonrpc":"2.0","id":0,"method":"launch/missiles","params":[1]}"#;
            [say(question), say(fine)].into_iter().flatten().collect()
        }
        _ => say(fine),
    }
}

/// The configuration's entry for this server on standard input and output.
pub fn stdio_entry(fault: &str) -> Value {
    json!({"command": std::env::current_exe().unwrap(), "args": [ARGUMENT, fault]})
}

/// The server on standard input and output.
pub fn main(fault: &str) {
    let mut seen = Seen::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let mut out = std::io::stdout().lock();
        for act in acts(fault, &mut seen, &serde_json::from_str(&line).unwrap()) {
            // The client may be gone.
            let _ = match act {
                Act::Say(message) => out.write_all(&[&message[..], b"\n"].concat()),
                Act::Trickle(message) => message.iter().chain(b"\n").try_for_each(|byte| {
                    out.write_all(&[*byte])?;
                    out.flush()
                }),
                Act::Raw(bytes) => out.write_all(&bytes),
                Act::Repeat(message) => {
                    let line = [&message[..], b"\n"].concat();
                    while out.write_all(&line).is_ok() {}
                    return;
                }
                Act::Die => {
                    out.flush().unwrap();
                    eprintln!("going down");
                    std::process::exit(7)
                }
            };
        }
        let _ = out.flush();
    }
}

/// The server on a port of its own: streamable HTTP under `/http`, HTTP+SSE under `/sse`, WebSocket under `/ws`.
pub struct FaultServer {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    fault: String,
    seen: Mutex<Seen>,
    /// The heads of all requests, one after the other.
    heads: Mutex<String>,
    /// Close frames that came in.
    farewells: AtomicUsize,
    /// Counts sessions of streamable HTTP, or streams of HTTP+SSE.
    sessions: AtomicUsize,
    /// Open event streams of HTTP+SSE, by number.
    streams: Mutex<HashMap<String, mpsc::UnboundedSender<Act>>>,
    /// Another origin.
    elsewhere: String,
}

impl Shared {
    fn is_first_call(&self) -> bool {
        let mut seen = self.seen.lock().unwrap();
        seen.looked_at += 1;
        seen.looked_at == 1
    }
}

impl FaultServer {
    /// Runs for as long as the test's runtime.
    pub async fn start(fault: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            fault: fault.into(),
            seen: Mutex::default(),
            heads: Mutex::default(),
            farewells: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            streams: Mutex::default(),
            elsewhere: format!("http://{}", address.replace("127.0.0.1", "localhost")),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // Else each small write waits for the acknowledgement of the one before it.
                connection.set_nodelay(true).unwrap();
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { connection_of(connection, &shared).await });
            }
        });
        Self { address, shared }
    }

    /// The configuration's entry for a transport: `http`, `older` (HTTP+SSE that the client finds out about), `sse`, `ws`.
    pub fn entry(&self, transport: &str) -> Value {
        let address = &self.address;
        match transport {
            "http" => json!({"url": format!("http://{address}/http")}),
            "older" => json!({"url": format!("http://{address}/sse")}),
            "sse" => json!({"url": format!("http://{address}/sse"), "type": "sse"}),
            "ws" => json!({"ws_url": format!("ws://{address}/ws")}),
            other => panic!("no transport `{other}`"),
        }
    }

    /// Its port.
    pub fn port(&self) -> String {
        self.address.rsplit(':').next().unwrap().into()
    }

    /// How often a text occurs in the heads of all requests.
    pub fn count(&self, text: &str) -> usize {
        self.shared.heads.lock().unwrap().matches(text).count()
    }

    /// How often the client has closed a WebSocket with a close frame.
    pub fn farewells(&self) -> usize {
        self.shared.farewells.load(Ordering::SeqCst)
    }

    /// Event streams of HTTP+SSE that are open.
    pub fn streams(&self) -> usize {
        self.shared.streams.lock().unwrap().len()
    }
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Reads a request; nothing where the connection ends.
async fn read_request(connection: &mut TcpStream, buffer: &mut Vec<u8>, shared: &Shared) -> Option<Request> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
    shared.heads.lock().unwrap().push_str(&head);
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(String::from);
    let (method, path) = (words.next()?, words.next()?);
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_string()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { method, path, headers, body: buffer.drain(..length).collect() })
}

/// Answers requests until one ends the connection.
async fn connection_of(mut connection: TcpStream, shared: &Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut connection, &mut buffer, shared).await {
        let path = request.path.split('?').next().unwrap_or_default().to_string();
        let goes_on = match (request.method.as_str(), path.as_str()) {
            ("GET", "/ws" | "/ws/moved") => return web_socket(connection, &request, shared).await,
            ("GET", "/sse" | "/sse/moved") => return event_stream(connection, shared).await,
            ("POST", path) if path.starts_with("/messages/") => posted(&mut connection, &request, shared).await,
            (_, "/http" | "/http/moved") => streamable(&mut connection, &request, shared).await,
            ("POST", "/sse") if shared.fault == "wants-authorisation" => {
                status(&mut connection, "401 Unauthorized", "").await
            }
            ("POST", "/sse") => status(&mut connection, "405 Method Not Allowed", "allow: GET\r\n").await,
            _ => status(&mut connection, "404 Not Found", "").await,
        };
        if goes_on.is_none() {
            return;
        }
    }
}

/// `None` ends the connection.
async fn write(connection: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    connection.write_all(bytes).await.ok()
}

async fn status(connection: &mut TcpStream, status: &str, headers: &str) -> Option<()> {
    write(connection, format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n").as_bytes()).await
}

async fn chunk(connection: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    let head = format!("{:x}\r\n", bytes.len());
    write(connection, &[head.as_bytes(), bytes, b"\r\n"].concat()).await
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";

fn event(message: &[u8]) -> Vec<u8> {
    [b"event: message\ndata: ", message, b"\n\n"].concat()
}

/// Does what is to be done in an event stream.
async fn act(connection: &mut TcpStream, act: Act) -> Option<()> {
    match act {
        Act::Say(message) => chunk(connection, &event(&message)).await,
        Act::Trickle(message) => {
            for byte in event(&message) {
                chunk(connection, &[byte]).await?;
                tokio::task::yield_now().await;
            }
            Some(())
        }
        Act::Raw(bytes) => chunk(connection, &[b"data: ", &bytes[..]].concat()).await,
        Act::Repeat(message) => loop {
            chunk(connection, &event(&message)).await?;
        },
        Act::Die => None,
    }
}

/// Streamable HTTP.
async fn streamable(connection: &mut TcpStream, request: &Request, shared: &Shared) -> Option<()> {
    let fault = shared.fault.as_str();
    match request.method.as_str() {
        "POST" => {}
        "DELETE" if fault == "delete-is-refused" => return status(connection, "500 Internal Server Error", "").await,
        "DELETE" => return status(connection, "200 OK", "").await,
        _ => return status(connection, "405 Method Not Allowed", "").await,
    }
    let message: Value = serde_json::from_slice(&request.body).unwrap();
    let (initialises, called) = (message["method"] == "initialize", message["params"]["name"] == "fault");
    let first = called && shared.is_first_call();
    if fault == "moves" && request.path == "/http" {
        return status(connection, "307 Temporary Redirect", "location: /http/moved\r\n").await;
    }
    if fault == "moves-away" {
        let location = format!("location: {}/http\r\n", shared.elsewhere);
        return status(connection, "308 Permanent Redirect", &location).await;
    }
    if fault == "knows-no-such-page" {
        return status(connection, "404 Not Found", "").await;
    }
    if fault == "wants-authorisation" {
        return status(connection, "401 Unauthorized", "www-authenticate: Bearer\r\n").await;
    }
    if fault == "forbids" {
        return status(connection, "403 Forbidden", "").await;
    }
    if fault == "is-no-http" {
        write(connection, b"SSH-2.0-OpenSSH_9.6\r\n").await?;
        return None;
    }
    // Whoever is of a session that is over.
    let session = shared.sessions.load(Ordering::SeqCst);
    if fault == "loses-its-session" && !initialises {
        let mine = request.headers.get("mcp-session-id").is_some_and(|id| *id == format!("session-{session}"));
        if called {
            shared.sessions.fetch_add(1, Ordering::SeqCst);
        }
        if called || !mine {
            return status(connection, "404 Not Found", "").await;
        }
    }
    if let Some(refusal) = fault.strip_prefix("forgets-with-").filter(|_| !initialises) {
        shared.sessions.fetch_add(usize::from(first), Ordering::SeqCst);
        let session = format!("session-{}", shared.sessions.load(Ordering::SeqCst));
        if message.get("id").is_some() && request.headers.get("mcp-session-id") != Some(&session) {
            let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#;
            return match refusal {
                "400-and-words" => write(connection, format!("HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await,
                "400" => status(connection, "400 Bad Request", "").await,
                "503" => status(connection, "503 Service Unavailable", "").await,
                other => panic!("no refusal `{other}`"),
            };
        }
    }
    if fault == "needs-a-cookie" && !initialises && message.get("id").is_some() {
        let cookie = request.headers.get("cookie").map(String::as_str).unwrap_or_default();
        if cookie != "node=b; lane=7" {
            return status(connection, "404 Not Found", "").await;
        }
    }
    if called {
        match fault {
            "401-once" if first => return status(connection, "401 Unauthorized", "www-authenticate: Bearer\r\n").await,
            "500-once" if first => return status(connection, "500 Internal Server Error", "").await,
            "503-once" if first => return status(connection, "503 Service Unavailable", "retry-after: 1\r\n").await,
            "429-once" if first => return status(connection, "429 Too Many Requests", "retry-after: 1\r\n").await,
            "html" => {
                let page = "<html>Welcome</html>";
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
                return write(connection, (head + page).as_bytes()).await;
            }
            "no-content-type" => return write(connection, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await,
            "empty-body" => return status(connection, "200 OK", "content-type: application/json\r\n").await,
            "accepted-only" => return status(connection, "202 Accepted", "").await,
            "json-cut-short" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
                write(connection, format!("{head}{{\"jsonrpc\":").as_bytes()).await?;
                return None;
            }
            "broken-chunks" => {
                write(connection, format!("{EVENTS}\r\nzz\r\ndata").as_bytes()).await?;
                return None;
            }
            "stream-without-answer" => {
                return write(connection, format!("{EVENTS}\r\n0\r\n\r\n").as_bytes()).await;
            }
            "half-an-event" => {
                write(connection, format!("{EVENTS}\r\n").as_bytes()).await?;
                chunk(connection, b"data: {\"jsonrpc\":").await?;
                return write(connection, b"0\r\n\r\n").await;
            }
            _ => {}
        }
    }
    let acts = acts(fault, &mut shared.seen.lock().unwrap(), &message);
    if message.get("id").is_none() {
        let body =
            |kind: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{kind}content-length: {}\r\n\r\n{body}", body.len());
        let json = "content-type: application/json\r\n";
        let answer = match fault {
            "notifications-get-text" => body("content-type: text/plain\r\n", "accepted"),
            "notifications-get-a-page" => body("content-type: text/html\r\n", "<h1>ok</h1>"),
            "notifications-get-json" => body(json, "{\"ok\": true}"),
            "notifications-get-null" => body(json, "null"),
            "notifications-get-an-error" => {
                body(json, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no such method"}}"#)
            }
            "notifications-get-no-type" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "notifications-get-a-stream" => format!("{EVENTS}\r\n0\r\n\r\n"),
            "notifications-get-400" => return status(connection, "400 Bad Request", "").await,
            "notifications-get-404" => return status(connection, "404 Not Found", "").await,
            "notifications-get-500" => return status(connection, "500 Internal Server Error", "").await,
            _ => return status(connection, "202 Accepted", "").await,
        };
        return write(connection, answer.as_bytes()).await;
    }
    if fault == "plain-json" {
        let body: Vec<u8> =
            acts.into_iter().flat_map(|act| if let Act::Say(text) = act { text } else { Vec::new() }).collect();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        return write(connection, &[head.as_bytes(), &body].concat()).await;
    }
    let cookies =
        "set-cookie: node=a; Path=/\r\nset-cookie: node=b; Path=/; HttpOnly; SameSite=None\r\nset-cookie: lane=7\r\n";
    let cookies = if initialises && fault == "needs-a-cookie" { cookies } else { "" };
    let session = if initialises { format!("{cookies}mcp-session-id: session-{session}\r\n") } else { String::new() };
    write(connection, format!("{EVENTS}{session}\r\n").as_bytes()).await?;
    let silent = acts.is_empty();
    for next in acts {
        act(connection, next).await?;
    }
    if silent {
        // Until the client gives up.
        connection.read_u8().await.ok()?;
    }
    write(connection, b"0\r\n\r\n").await
}

/// The event stream of HTTP+SSE.
async fn event_stream(mut connection: TcpStream, shared: &Shared) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let number = {
        let number = shared.sessions.fetch_add(1, Ordering::SeqCst).to_string();
        shared.streams.lock().unwrap().insert(number.clone(), sender);
        number
    };
    let connection = &mut connection;
    let _ = async {
        match shared.fault.as_str() {
            "wants-authorisation" => return status(connection, "401 Unauthorized", "").await,
            "is-no-stream" => return status(connection, "200 OK", "content-type: text/html\r\n").await,
            "is-broken" => return status(connection, "500 Internal Server Error", "").await,
            _ => {}
        }
        write(connection, format!("{EVENTS}\r\n").as_bytes()).await?;
        match shared.fault.as_str() {
            "names-no-endpoint" => return write(connection, b"0\r\n\r\n").await,
            "never-names-its-endpoint" => {}
            "endpoint-elsewhere" => {
                let named = format!("event: endpoint\ndata: {}/messages/{number}\n\n", shared.elsewhere);
                chunk(connection, named.as_bytes()).await?;
            }
            "endpoint-is-no-url" => chunk(connection, b"event: endpoint\ndata: http://[\n\n").await?,
            "comments-and-returns" => {
                let named = format!(
                    ": hello\r\n\r\nevent: other\r\ndata: x\r\n\r\nevent: endpoint\r\ndata: messages/{number}\r\n\r\n"
                );
                chunk(connection, named.as_bytes()).await?;
            }
            _ => chunk(connection, format!("event: endpoint\ndata: /messages/{number}\n\n").as_bytes()).await?,
        }
        loop {
            tokio::select! {
                next = receiver.recv() => act(connection, next?).await?,
                // The client is gone.
                _ = connection.readable() => return None,
            }
        }
    }
    .await;
    shared.streams.lock().unwrap().remove(&number);
}

/// A message to the endpoint of HTTP+SSE.
async fn posted(connection: &mut TcpStream, request: &Request, shared: &Shared) -> Option<()> {
    let number = request.path.rsplit('/').next().unwrap_or_default();
    let stream = shared.streams.lock().unwrap().get(number).cloned();
    let Some(stream) = stream else { return status(connection, "404 Not Found", "").await };
    let message: Value = serde_json::from_slice(&request.body).unwrap();
    let first = message["params"]["name"] == "fault" && shared.is_first_call();
    if shared.fault == "stops-reading" && message["method"] == "tools/call" && message["params"]["name"] == "echo" {
        // No answer at all.
        return std::future::pending().await;
    }
    match shared.fault.as_str() {
        "500-once" if first => return status(connection, "500 Internal Server Error", "").await,
        "404-once" if first => return status(connection, "404 Not Found", "").await,
        _ => {}
    }
    for act in acts(&shared.fault, &mut shared.seen.lock().unwrap(), &message) {
        let _ = stream.send(act);
    }
    write(connection, b"HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\nAccepted").await
}

/// MCP over a WebSocket.
async fn web_socket(mut connection: TcpStream, request: &Request, shared: &Shared) {
    let fault = shared.fault.as_str();
    let key = request.headers.get("sec-websocket-key").map(String::as_str).unwrap_or_default();
    let accept = if fault == "wrong-accept-key" { "bm9wZQ==".into() } else { derive_accept_key(key.as_bytes()) };
    let refusal = match fault {
        "knows-no-such-page" => Some(("404 Not Found", String::new())),
        "wants-authorisation" => Some(("401 Unauthorized", String::new())),
        "is-no-web-socket" => Some(("200 OK", "content-type: text/html\r\n".into())),
        "moves-away" => Some(("307 Temporary Redirect", format!("location: {}/ws\r\n", shared.elsewhere))),
        "moves" if request.path == "/ws" => Some(("307 Temporary Redirect", "location: /ws/moved\r\n".into())),
        _ => None,
    };
    if let Some((refusal, headers)) = refusal {
        status(&mut connection, refusal, &format!("{headers}connection: close\r\n")).await;
        return;
    }
    if fault == "never-shakes-hands" {
        let _ = connection.read_u8().await;
        return;
    }
    let protocol = match fault {
        "other-protocol" => "sec-websocket-protocol: chat\r\n",
        "no-protocol" => "",
        _ => "sec-websocket-protocol: mcp\r\n",
    };
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n{protocol}\r\n"
    );
    if write(&mut connection, head.as_bytes()).await.is_none() {
        return;
    }
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    while let Some(Ok(frame)) = socket.next().await {
        let Message::Text(text) = frame else {
            shared.farewells.fetch_add(usize::from(matches!(frame, Message::Close(_))), Ordering::SeqCst);
            continue;
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        let called = message["params"]["name"] == "fault";
        let acts = acts(fault, &mut shared.seen.lock().unwrap(), &message);
        let close = |code, reason: &'static str| Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if called && fault == "stops-reading" {
            for act in acts {
                if let Act::Say(message) = act {
                    socket.send(Message::text(String::from_utf8(message).unwrap())).await.unwrap();
                }
            }
            // For as long as the connection stands.
            return std::future::pending().await;
        }
        if called {
            let done = match fault {
                "closes-with-a-code" => socket.send(close(CloseCode::Error, "out of tea")).await,
                "closes-without-a-code" => socket.send(Message::Close(None)).await,
                "pings" => socket.send(Message::Ping("are you there?".into())).await,
                "sends-binary-junk" => socket.send(Message::Binary(Bytes::from_static(b"\xff\xfe"))).await,
                // A frame that is masked, as only a client's may be.
                "masks" => socket.get_mut().write_all(b"\x81\x81\x00\x00\x00\x00x").await.map_err(Into::into),
                // A text frame that is no UTF-8.
                "invalid-text" => socket.get_mut().write_all(b"\x81\x02\xff\xfe").await.map_err(Into::into),
                // A frame that is said to be longer than any message may be.
                "announces-much" => {
                    socket.get_mut().write_all(b"\x81\x7f\x00\x00\x00\xff\x00\x00\x00\x00").await.map_err(Into::into)
                }
                _ => Ok(()),
            };
            if done.is_err() {
                return;
            }
            if fault == "pings" {
                // The answer comes only after the pong.
                while !matches!(socket.next().await, Some(Ok(Message::Pong(_))) | None) {}
            }
        }
        for act in acts {
            let sent = match act {
                Act::Say(message) if called && fault == "sends-binary" => socket.send(Message::binary(message)).await,
                Act::Say(message) if called && fault == "sends-fragments" => {
                    let (one, two) = message.split_at(100.min(message.len()));
                    // The length of a fragment fits into a byte, as far as 125.
                    let fragment =
                        |code: u8, bytes: &[u8]| [&[code, u8::try_from(bytes.len()).unwrap()], bytes].concat();
                    let both = [fragment(0x01, one), fragment(0x80, two)].concat();
                    socket.get_mut().write_all(&both).await.map_err(Into::into)
                }
                Act::Say(message) => match String::from_utf8(message) {
                    Ok(text) => socket.send(Message::text(text)).await,
                    // Not even as a frame of text.
                    Err(error) => {
                        let bytes = error.into_bytes();
                        let head = [0x81, u8::try_from(bytes.len()).unwrap()];
                        socket.get_mut().write_all(&[&head[..], &bytes].concat()).await.map_err(Into::into)
                    }
                },
                Act::Trickle(message) => {
                    let head = [0x81, u8::try_from(message.len()).unwrap()];
                    let mut sent = Ok(());
                    for byte in head.iter().chain(&message) {
                        sent = sent.and(socket.get_mut().write_all(&[*byte]).await.map_err(Into::into));
                        tokio::task::yield_now().await;
                    }
                    sent
                }
                // A frame that announces more than there is.
                Act::Raw(bytes) => {
                    socket.get_mut().write_all(&[&[0x81, 125], &bytes[..]].concat()).await.map_err(Into::into)
                }
                Act::Repeat(message) => {
                    let text = String::from_utf8(message).unwrap();
                    while socket.send(Message::text(text.clone())).await.is_ok() {}
                    return;
                }
                Act::Die => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
