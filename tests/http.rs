//! Streamable HTTP: what comes of answers that are too long, too late, or no success.

use std::future::Future;
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{Client, Session};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::authorization::Request;
use crate::support::{Ignored, config, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("http::answers_are_bounded", bounded),
        test("http::errors_say_what_the_server_said", errors),
        test("http::an_answer_that_does_not_come_is_an_error", silence),
        test("http::addresses_are_not_in_errors", no_addresses),
        test("http::an_expired_session_is_begun_again", expired),
        test("http::a_server_that_answers_in_any_case_of_letters", letters),
    ]
}

const JSON: &str = "content-type: application/json\r\n";

/// A whole HTTP response.
fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A server that can be initialised, and that does with a call what it is told: its address.
async fn serve<F>(call: fn(Request, Value, BufReader<TcpStream>) -> F) -> String
where
    F: Future<Output = Option<BufReader<TcpStream>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                while let Some(request) = Request::read(&mut connection).await {
                    let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
                    let id = &message["id"];
                    let answer = match (request.method.as_str(), message["method"].as_str().unwrap_or_default()) {
                        ("POST", "initialize") => {
                            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "a", "version": "1"}});
                            let headers = "Content-Type: Application/JSON; charset=UTF-8\r\nMcp-Session-Id: one\r\n";
                            response(
                                "200 OK",
                                headers,
                                &json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
                            )
                        }
                        ("POST", "tools/call") => match call(request, message, connection).await {
                            Some(given_back) => {
                                connection = given_back;
                                continue;
                            }
                            None => return,
                        },
                        ("POST", method) if method.starts_with("notifications/") => response("202 Accepted", "", ""),
                        ("POST", _) => response("400 Bad Request", "", "what?"),
                        _ => response("405 Method Not Allowed", "", ""),
                    };
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

async fn session(url: &str) -> Session {
    let entry = json!({"url": url, "sse_read_timeout": 0.5, "headers": {"X-Key": "SECRET"}});
    let client = Client::builder().config(config(&json!({"remote": entry}))).build().unwrap();
    client.create_session("remote").await.unwrap()
}

async fn error(session: &Session, tool: &str) -> String {
    session.call_tool(tool, Map::new(), rhaiway::CallOptions::default()).await.unwrap_err().to_string()
}

async fn bounded() -> Result<(), Ignored> {
    let url = serve(|_, message, mut connection| async move {
        let kind = if message["params"]["name"] == "stream" { "text/event-stream" } else { "application/json" };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        connection.write_all(head.as_bytes()).await.ok()?;
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        // For ever, if the client lets it.
        while connection.write_all(chunk.as_bytes()).await.is_ok() {}
        None
    })
    .await;
    let session = session(&url).await;
    let long = error(&session, "plain").await;
    assert!(long.ends_with("HTTP response body exceeded the maximum size of 33554432 bytes"), "{long}");
    let long = error(&session, "stream").await;
    assert!(
        long.ends_with("the connection ended before the answer came; it sent a message of more than 32 MiB"),
        "{long}"
    );
    assert!(session.is_connected());
    Ok(())
}

fn refused(id: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": "not now"}}).to_string()
}

async fn errors() -> Result<(), Ignored> {
    let url = serve(|_, message, mut connection| async move {
        let id = &message["id"];
        let answer = match message["params"]["name"].as_str().unwrap() {
            "busy" => response("429 Too Many Requests", "retry-after: 7\r\n", "slow down"),
            "broken" => response("500 Internal Server Error", "content-type: text/html\r\n", "<h1>oops</h1>"),
            "told" => {
                let error = json!({"code": -32000, "message": "the disk is full"});
                response(
                    "500 Internal Server Error",
                    JSON,
                    &json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string(),
                )
            }
            // Without the request's id, nobody would hear of it.
            "no-id" => response("400 Bad Request", JSON, &refused(&Value::Null)),
            "no-id-with-200" => response("200 OK", JSON, &refused(&Value::Null)),
            "other-id" => {
                response("200 OK", JSON, "{\"jsonrpc\": \"2.0\", \"id\": 999, \"result\": {\"content\": []}}")
            }
            "other" => response("400 Bad Request", JSON, "{\"detail\": \"no such tenant\"}"),
            "html" => response("200 OK", "content-type: text/html\r\n", "<h1>hello</h1>"),
            "junk" => response("200 OK", JSON, "{\"hello\": 1}"),
            _ => response("401 Unauthorized", JSON, "{\"detail\": \"SECRET\"}"),
        };
        connection.write_all(answer.as_bytes()).await.ok()?;
        Some(connection)
    })
    .await;
    let session = session(&url).await;
    for (tool, expected) in [
        ("busy", "it answered HTTP 429 Too Many Requests (Retry-After: 7)"),
        ("broken", "it answered HTTP 500 Internal Server Error"),
        ("told", "the disk is full (JSON-RPC error -32000)"),
        ("no-id", "not now (JSON-RPC error -32000)"),
        ("no-id-with-200", "not now (JSON-RPC error -32000)"),
        (
            "other-id",
            "its answer is to another request: `{\"jsonrpc\": \"2.0\", \"id\": 999, \"result\": {\"content\": []}}`",
        ),
        ("other", "it answered HTTP 400 Bad Request: `{\"detail\": \"no such tenant\"}`"),
        ("html", "it answered with `text/html`, which is neither JSON nor an event stream"),
        ("junk", "its answer is no MCP message: `{\"hello\": 1}`"),
        ("refused", "run `rhaiway auth login remote`, or set `auth` to a token, or `headers`, in its configuration"),
    ] {
        let error = error(&session, tool).await;
        assert!(error.ends_with(expected), "{error}\n{expected}");
    }
    Ok(())
}

async fn silence() -> Result<(), Ignored> {
    let url = serve(|_, message, mut connection| async move {
        if message["params"]["name"] == "late" {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n";
            connection.write_all(head.as_bytes()).await.ok()?;
        }
        std::future::pending().await
    })
    .await;
    let session = session(&url).await;
    for tool in ["never", "late"] {
        let call = tokio::time::timeout(Duration::from_secs(30), error(&session, tool));
        let error = call.await.unwrap();
        assert!(error.ends_with("it sent nothing for 0.5 s"), "{error}");
    }
    Ok(())
}

async fn no_addresses() -> Result<(), Ignored> {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let entry = json!({"url": format!("http://user:SECRET@{address}/SECRET?key=SECRET")});
    let client = Client::builder().config(config(&json!({"remote": entry}))).build().unwrap();
    let error = client.create_session("remote").await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("onnection refused") && !shown.contains("SECRET"), "{shown}");
    Ok(())
}

async fn expired() -> Result<(), Ignored> {
    let url = serve(|request, message, mut connection| async move {
        use std::sync::atomic::{AtomicBool, Ordering};
        static EXPIRED: AtomicBool = AtomicBool::new(false);
        assert_eq!(request.headers["mcp-session-id"], "one");
        assert_eq!(request.headers["x-key"], "SECRET");
        let answer = if EXPIRED.swap(true, Ordering::SeqCst) {
            let result = json!({"content": [], "structuredContent": {"ok": true}});
            response("200 OK", JSON, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
        } else {
            response("404 Not Found", "", "")
        };
        connection.write_all(answer.as_bytes()).await.ok()?;
        Some(connection)
    })
    .await;
    let session = session(&url).await;
    let answer = session.call_tool("any", Map::new(), rhaiway::CallOptions::default()).await.unwrap();
    assert_eq!(answer.structured(), Some(json!({"ok": true})));
    Ok(())
}

async fn letters() -> Result<(), Ignored> {
    let url = serve(|_, message, mut connection| async move {
        let result = json!({"content": [], "structuredContent": {"ok": true}});
        let event = format!("data: {}\r\n\r\n", json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
        connection
            .write_all(response("200 OK", "CONTENT-TYPE: Text/Event-Stream\r\n", &event).as_bytes())
            .await
            .ok()?;
        Some(connection)
    })
    .await;
    let session = session(&url).await;
    assert_eq!(
        session.call_tool("any", Map::new(), rhaiway::CallOptions::default()).await.unwrap().structured(),
        Some(json!({"ok": true}))
    );
    Ok(())
}
