//! Servers with faults ([`fault_server`](crate::fault_server)), over each transport: what a script is told, that the server next to it
//! goes on working, and that the next call works where it can.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rhaiway::{CallOptions, Error, ExecuteOptions, FailureKind, Session, ToolAnswer};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fake_server;
use crate::fault_server::{self, FaultServer};
use crate::fixtures;
use crate::processes::Mark;
use crate::support::{Ignored, builder, client, demo, need, run, test, value};

/// What a fault comes to, with `*` for anything in a text.
enum Outcome {
    /// The call of `fault` is answered as if nothing were wrong.
    Works,
    /// The call fails with this kind and message, and the next one works.
    Fails(&'static str),
    /// The call fails with this kind and message, and so does the next one.
    Never(&'static str),
    /// The tools can't be listed, with this message, and neither at the next call.
    NoTools(&'static str),
    /// There is no connection, with this message, and neither at the next call.
    NoConnection(&'static str),
}

use Outcome::{Fails, Never, NoConnection, NoTools, Works};

const ALL: &[&str] = &["stdio", "http", "sse", "ws"];
/// All that say why a connection ended.
const TELLING: &[&str] = &["stdio", "sse", "ws"];
const STDIO: &[&str] = &["stdio"];
const HTTP: &[&str] = &["http"];
const SSE: &[&str] = &["sse"];
/// HTTP+SSE that the client finds out about.
const OLDER: &[&str] = &["older"];
const WS: &[&str] = &["ws"];

const LATE: &str =
    "call_timeout: it took longer than the 1 s that a call may take (`call_timeout` of the server `bad`)";
const EXITED: &str =
    "connection: the connection is closed: its process ended (exit status: 7); its last lines on stderr:\n  going down";
const NO_ANSWER: &str = "connection: the connection ended before the answer came";
const ANSWER_BROKE: &str = "connection: the connection ended before the answer came; its event stream broke: *";
const CUT_OFF: &str = "connection: the connection is closed; its event stream broke: *unexpected EOF*";
const NO_CLOSE_FRAME: &str = "connection: the connection is closed; it ended the WebSocket without a close frame";
const TOO_LONG: &str = "connection: the connection is closed; it sent a message of more than 32 MiB, *";
const WANTS_TOKEN: &str = "it wants authorisation (HTTP 401): run `rhaiway auth login bad`, or set `auth` to a token, or `headers`, in its configuration";
const MOVES_AWAY: &str = "it redirects to another origin, which would get the headers of this one";

const CASES: &[(&[&str], &str, Outcome)] = &[
    (ALL, "none", Works),
    (OLDER, "none", Works),
    // At `initialize`.
    (ALL, "never-initialises", NoConnection("it did not answer the handshake within 1 s")),
    (
        STDIO,
        "dies-at-initialize",
        NoConnection(
            "its process ended (exit status: 7) before it answered `*`; its last lines on stderr:\n  going down",
        ),
    ),
    (
        HTTP,
        "dies-at-initialize",
        NoConnection("it closed the connection before it answered `initialize`; its event stream broke: *"),
    ),
    (
        SSE,
        "dies-at-initialize",
        NoConnection("it closed the connection before it answered `initialize`; its event stream broke: *"),
    ),
    (
        WS,
        "dies-at-initialize",
        NoConnection(
            "it closed the connection before it answered `initialize`; it ended the WebSocket without a close frame",
        ),
    ),
    (
        ALL,
        "other-version",
        NoConnection("it speaks the protocol revision `1999-01-01`, which is none of those known here: *`2025-11-25`*"),
    ),
    (
        ALL,
        "initialize-is-refused",
        NoConnection("it answered `initialize` with the error: licence expired (JSON-RPC error -32602)"),
    ),
    (
        ALL,
        "initialize-is-no-object",
        NoConnection("its answer to `initialize` can't be used: `protocolVersion` is missing"),
    ),
    (
        ALL,
        "greets-without-a-revision",
        NoConnection(
            "its answer to `initialize` can't be used: `protocolVersion` has to be a text such as `2025-11-25`, and is null",
        ),
    ),
    (ALL, "greets-with-lists", Works),
    (ALL, "greets-with-true", Works),
    (ALL, "greets-with-odd-flags", Works),
    (ALL, "greets-with-a-list", Works),
    (ALL, "greets-with-nothing", Works),
    (ALL, "greets-without-version", Works),
    (ALL, "greets-without-a-name", Works),
    // Over streamable HTTP, the questions come on the stream that brings the answer (`tests/http.rs`).
    (TELLING, "asks-before-it-greets", Works),
    // At `tools/list`.
    (
        STDIO,
        "dies-at-list",
        NoTools(
            "the connection is closed: its process ended (exit status: 7); its last lines on stderr:\n  going down",
        ),
    ),
    (
        SSE,
        "dies-at-list",
        Fails("connection: the server `bad` failed on `tools/list`: the connection is closed; its event stream *"),
    ),
    (
        WS,
        "dies-at-list",
        Fails("connection: the server `bad` failed on `tools/list`: the connection is closed; it ended *"),
    ),
    (ALL, "list-never-ends", NoTools("the list has more than 1000 pages")),
    (ALL, "list-goes-round", NoTools("it names the same next page again and again")),
    (ALL, "list-is-refused", NoTools("no database (JSON-RPC error -32603)")),
    (ALL, "list-is-no-list", NoTools("the answer can't be used: invalid type: string \"many\", expected a sequence *")),
    (ALL, "odd-tools", Works),
    (ALL, "list-is-null", Never("unknown_tool: the server `bad` has no tool `*`")),
    (ALL, "list-is-an-object", Never("unknown_tool: the server `bad` has no tool `*`")),
    (ALL, "cursor-is-empty", Works),
    (ALL, "cursor-is-false", Works),
    (ALL, "properties-are-a-list", Works),
    // At a call.
    (STDIO, "dies", Fails(EXITED)),
    (SSE, "dies", Fails(CUT_OFF)),
    (WS, "dies", Fails(NO_CLOSE_FRAME)),
    (ALL, "never", Fails(LATE)),
    (ALL, "twice", Works),
    (TELLING, "unknown-id", Works),
    (ALL, "id-as-text", Works),
    // It names no call, so that nobody can be told.
    (TELLING, "id-is-null", Fails(LATE)),
    (TELLING, "huge", Fails(TOO_LONG)),
    (&["stdio", "sse"], "invalid-utf8", Works),
    (
        WS,
        "invalid-utf8",
        Fails("connection: the connection is closed; it broke the WebSocket protocol: UTF-8 encoding error: *"),
    ),
    (STDIO, "half", Fails(EXITED)),
    (SSE, "half", Fails(CUT_OFF)),
    (WS, "half", Fails(NO_CLOSE_FRAME)),
    (ALL, "junk", Works),
    (TELLING, "only-junk", Fails(LATE)),
    (ALL, "flood", Works),
    (TELLING, "endless-flood", Never(LATE)),
    // An answer of streamable HTTP has a stream of its own, which keeps no other from coming.
    (HTTP, "endless-flood", Fails(LATE)),
    (ALL, "no-jsonrpc", Works),
    (ALL, "other-jsonrpc", Works),
    (
        ALL,
        "neither-result-nor-error",
        Fails("protocol: its answer is no JSON-RPC response: `{\"jsonrpc\":\"2.0\",\"id\":*}` (JSON-RPC error -32700)"),
    ),
    (ALL, "result-and-error", Works),
    (ALL, "error-without-message", Fails("protocol: it did not say why (JSON-RPC error -32000)")),
    (ALL, "error-is-text", Fails("protocol: disk full (JSON-RPC error -32603)")),
    (ALL, "result-is-text", Fails("answer: the answer can't be used: it is no object with `content`: *")),
    (ALL, "content-is-null", Works),
    (ALL, "content-is-null-in-a-failure", Fails("tool: the tool failed and did not say why")),
    (
        ALL,
        "content-is-text",
        Fails("answer: the answer can't be used: it is no object with `content`: invalid type: string \"fine\", *"),
    ),
    (ALL, "byte-order-mark", Works),
    (STDIO, "terminal-codes", Works),
    (STDIO, "text-before", Works),
    (STDIO, "log-before", Works),
    (STDIO, "two-in-a-line", Works),
    (ALL, "failed-is-a-number", Works),
    (ALL, "failed-is-text", Works),
    (ALL, "content-is-one-block", Works),
    (ALL, "error-without-code", Fails("protocol: disk full (JSON-RPC error -32603)")),
    (ALL, "error-code-is-text", Fails("protocol: disk full (JSON-RPC error -32603)")),
    (ALL, "error-beside-null", Fails("protocol: disk full (JSON-RPC error -32001)")),
    // Batches were in one revision of the protocol only, and are not understood.
    (TELLING, "batch", Fails(LATE)),
    (ALL, "trickle", Works),
    (ALL, "asks-for-roots", Works),
    (ALL, "asks-for-nonsense", Works),
    (ALL, "changes-tools", Works),
    // Streamable HTTP.
    (HTTP, "moves", Works),
    (HTTP, "moves-away", NoConnection(MOVES_AWAY)),
    (HTTP, "delete-is-refused", Works),
    (HTTP, "plain-json", Works),
    (HTTP, "accepted-only", Fails(LATE)),
    (HTTP, "wants-authorisation", NoConnection(WANTS_TOKEN)),
    (HTTP, "401-once", Fails("connection: it wants authorisation (HTTP 401): *")),
    (
        HTTP,
        "knows-no-such-page",
        NoConnection(
            "*HTTP 404 Not Found*; and as a server of the older HTTP+SSE: it answered HTTP 405 Method Not Allowed *",
        ),
    ),
    (HTTP, "forbids", NoConnection("*HTTP 403 Forbidden*")),
    (HTTP, "is-no-http", NoConnection("*invalid HTTP version*")),
    // Each answer has a stream of its own here, whose end is not the connection's.
    (
        HTTP,
        "dies-at-list",
        Fails("connection: the server `bad` failed on `tools/list`: the connection ended before *; its event stream *"),
    ),
    (HTTP, "dies", Fails(ANSWER_BROKE)),
    (HTTP, "half", Fails(ANSWER_BROKE)),
    (
        HTTP,
        "huge",
        Fails("connection: the connection ended before the answer came; it sent a message of more than 32 MiB*"),
    ),
    (HTTP, "unknown-id", Fails(NO_ANSWER)),
    (HTTP, "id-is-null", Fails(NO_ANSWER)),
    (HTTP, "invalid-utf8", Fails(ANSWER_BROKE)),
    (
        HTTP,
        "only-junk",
        Fails("connection: the connection ended *; it sent what is no MCP message: `Segmentation fault`"),
    ),
    (HTTP, "batch", Fails("connection: the connection ended *; it sent what is no MCP message: `[{*")),
    (HTTP, "broken-chunks", Fails(ANSWER_BROKE)),
    (HTTP, "stream-without-answer", Fails(NO_ANSWER)),
    (HTTP, "half-an-event", Fails(NO_ANSWER)),
    (HTTP, "loses-its-session", Fails("connection: it does not know this session any more")),
    (HTTP, "500-once", Fails("connection: it answered HTTP 500 Internal Server Error")),
    (HTTP, "503-once", Fails("connection: it answered HTTP 503 Service Unavailable (Retry-After: 1)")),
    (HTTP, "429-once", Fails("connection: it answered HTTP 429 Too Many Requests (Retry-After: 1)")),
    (HTTP, "html", Fails("connection: it answered with `text/html`, which is neither JSON nor an event stream")),
    (HTTP, "no-content-type", Fails("connection: it answered without saying what with")),
    (HTTP, "empty-body", Fails("connection: its answer is no MCP message: ``")),
    (
        HTTP,
        "json-cut-short",
        Fails("connection: error reading a body from connection: end of file before message length reached"),
    ),
    // A notification has no answer.
    (HTTP, "notifications-get-text", Works),
    (HTTP, "notifications-get-a-page", Works),
    (HTTP, "notifications-get-json", Works),
    (HTTP, "notifications-get-null", Works),
    (HTTP, "notifications-get-an-error", Works),
    (HTTP, "notifications-get-no-type", Works),
    (HTTP, "notifications-get-a-stream", Works),
    (HTTP, "notifications-get-400", Works),
    (HTTP, "notifications-get-404", Works),
    (HTTP, "notifications-get-500", Works),
    (HTTP, "forgets-with-400-and-words", Works),
    (HTTP, "forgets-with-400", Fails("connection: it answered HTTP 400 Bad Request")),
    (HTTP, "forgets-with-503", Fails("connection: it answered HTTP 503 Service Unavailable")),
    (HTTP, "needs-a-cookie", Works),
    // HTTP+SSE.
    (SSE, "wants-authorisation", NoConnection(WANTS_TOKEN)),
    (OLDER, "wants-authorisation", NoConnection("*HTTP 401*")),
    (SSE, "is-no-stream", NoConnection("it answered with `text/html` where it was asked for an event stream")),
    (
        OLDER,
        "is-no-stream",
        NoConnection(
            "*HTTP 405 Method Not Allowed*; and as a server of the older HTTP+SSE: it answered with `text/html` *",
        ),
    ),
    (
        SSE,
        "is-broken",
        NoConnection("it answered HTTP 500 Internal Server Error where it was asked for its event stream"),
    ),
    (SSE, "names-no-endpoint", NoConnection("its event stream ended before it named the endpoint for messages")),
    (SSE, "never-names-its-endpoint", NoConnection("it did not name the endpoint for messages within 1 s")),
    (
        SSE,
        "endpoint-elsewhere",
        NoConnection(
            "the endpoint for messages that it named is at `http://localhost:*`, and not at `http://127.0.0.1:*` where it is *",
        ),
    ),
    (SSE, "endpoint-is-no-url", NoConnection("the endpoint that it named is no URL: invalid IPv6 address")),
    (SSE, "comments-and-returns", Works),
    (SSE, "500-once", Fails("connection: it answered HTTP 500 Internal Server Error")),
    (SSE, "404-once", Fails("connection: *it answered HTTP 404 Not Found: it does not know this connection any more")),
    // WebSocket.
    (
        WS,
        "knows-no-such-page",
        NoConnection("it answered HTTP 404 Not Found to the WebSocket handshake; is `ws_url` right?"),
    ),
    (WS, "wants-authorisation", NoConnection(WANTS_TOKEN)),
    (WS, "is-no-web-socket", NoConnection("it answered HTTP 200 OK to the WebSocket handshake; is `ws_url` right?")),
    (WS, "moves", Works),
    (WS, "moves-away", NoConnection(MOVES_AWAY)),
    (WS, "wrong-accept-key", NoConnection("its answer to the WebSocket handshake was made for another request *")),
    (WS, "never-shakes-hands", NoConnection("it did not finish the WebSocket handshake within 1 s")),
    (WS, "other-protocol", NoConnection("it wants to speak `chat` on the WebSocket, not `mcp`")),
    (WS, "no-protocol", Works),
    (
        WS,
        "closes-with-a-code",
        Fails("connection: the connection is closed; it closed the WebSocket with code 1011: `out of tea`"),
    ),
    (
        WS,
        "closes-without-a-code",
        Fails("connection: the connection is closed; it closed the WebSocket without a code"),
    ),
    (WS, "pings", Works),
    (WS, "sends-binary", Works),
    (WS, "sends-binary-junk", Works),
    (WS, "sends-fragments", Works),
    (
        WS,
        "masks",
        Fails("connection: the connection is closed; it broke the WebSocket protocol: *a masked frame from server"),
    ),
    (
        WS,
        "invalid-text",
        Fails("connection: the connection is closed; it broke the WebSocket protocol: UTF-8 encoding error: *"),
    ),
    (WS, "announces-much", Fails(TOO_LONG)),
];

/// Faults that only a time limit ends; all others have to come to something long before theirs.
const ENDLESS: &[&str] = &[
    "never-initialises",
    "never",
    "endless-flood",
    "id-is-null",
    "only-junk",
    "batch",
    "accepted-only",
    "never-names-its-endpoint",
    "never-shakes-hands",
];

pub fn tests() -> Vec<Trial> {
    let cases = CASES.iter().flat_map(|case| case.0.iter().map(move |transport| (*transport, case)));
    let mut tests: Vec<Trial> = cases
        .map(|(transport, (_, fault, outcome))| {
            test(&format!("faults::{transport}_{fault}"), move || check(transport, fault, outcome))
        })
        .collect();
    for transport in ALL {
        let named = |what: &str| format!("faults::{transport}_{what}");
        tests.extend([
            test(&named("tools_that_change_in_a_script"), || tools_that_change(transport)),
            test(&named("death_with_calls_under_way"), || death_with_calls_under_way(transport)),
            test(&named("session_after_death"), || session_after_death(transport)),
            test(&named("one_who_does_not_wait_any_more"), || gives_up(transport)),
        ]);
    }
    tests.extend([
        test("faults::headers_go_with_every_request", headers),
        test("faults::headers_do_not_go_elsewhere", headers_elsewhere),
        test("faults::the_type_says_how_to_connect", type_of_entry),
        test("faults::closing_says_farewell", farewell),
        test("faults::an_error_that_nobody_catches_names_the_server", uncaught),
        test("faults::a_server_deaf_to_sigterm_is_ended", deaf_to_sigterm),
        test("faults::certificates_are_checked", certificates),
        test("faults::closing_does_not_wait_for_a_server_that_does_not_read", closing_while_writing),
    ]);
    tests
}

/// The entry of a server with a fault.
async fn entry(transport: &str, fault: &str) -> Value {
    let mut entry = match transport {
        "stdio" => fault_server::stdio_entry(fault),
        _ => FaultServer::start(fault).await.entry(transport),
    };
    let seconds = if ENDLESS.contains(&fault) { 1 } else { 20 };
    entry["connect_timeout"] = json!(seconds);
    entry["call_timeout"] = json!(seconds);
    entry
}

const SCRIPT: &str = "
    let out = [];
    try { out.push(`ok: ${bad.fault()}`) } catch (e) { out.push(`${e.server}: ${e.kind}: ${e.message}`) }
    out.push(good.list_users().users.len());
    try { out.push(`ok: ${bad.echo().tool}`) } catch (e) { out.push(`${e.server}: ${e.kind}: ${e.message}`) }
    out.push(good.list_users().users.len());
    out
";

async fn check(transport: &str, fault: &str, outcome: &Outcome) -> Result<(), Ignored> {
    let client = client(json!({"bad": entry(transport, fault).await, "good": demo()}));
    let out = value(run(&client, SCRIPT).await);
    client.close_all_sessions().await;
    let [Value::String(first), users, Value::String(then), users_again] = &out.as_array().unwrap()[..] else {
        panic!("{out}");
    };
    assert_eq!([users, users_again], [&json!(5), &json!(5)], "the server next to it");
    let (expected, expected_then) = match outcome {
        Works if fault == "twice" => ("ok: first".into(), "ok: echo".into()),
        // What can't be read of a text is shown as such.
        Works if fault == "invalid-utf8" => ("ok: \u{fffd}ine".into(), "ok: echo".into()),
        Works => ("ok: fine".into(), "ok: echo".into()),
        Fails(why) => (format!("bad: {why}"), "ok: echo".into()),
        Never(why) => (format!("bad: {why}"), format!("bad: {why}")),
        NoTools(why) => {
            let why = format!("bad: connection: the server `bad` failed on `tools/list`: {why}");
            (why.clone(), why)
        }
        NoConnection(why) => {
            let why = format!("bad: connection: can't connect to the server `bad`: {why}");
            (why.clone(), why)
        }
    };
    let fits = matches(&expected, first) && matches(&expected_then, then);
    assert!(fits, "expected: {expected}\n   found: {first}\n    then: {expected_then}\n   found: {then}");
    Ok(())
}

/// Whether a text is what a pattern says, with anything for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
}

async fn tools_that_change(transport: &str) -> Result<(), Ignored> {
    let client = client(json!({"bad": entry(transport, "changes-tools").await}));
    let script = "
        let before = search_tools(\"\", \"names\").results.map(|tool| tool.name);
        let out = [before, bad.fault()];
        try { bad.fault() } catch (e) { out.push(e.kind) }
        out.push(bad.instead());
        out.push(search_tools(\"\", \"names\").results.map(|tool| tool.name));
        out
    ";
    let out = value(run(&client, script).await);
    let instead = json!({"tool": "instead", "arguments": {}});
    assert_eq!(out, json!([["echo", "fault"], "fine", "unknown_tool", instead, ["echo", "instead"]]));
    client.close_all_sessions().await;
    Ok(())
}

async fn death_with_calls_under_way(transport: &str) -> Result<(), Ignored> {
    let mark = Mark::new("death");
    let client = client(json!({"bad": mark.on(entry(transport, "dies").await)}));
    let script = "
        bad.echo();
        let all = parallel_settled([|| bad.echo(), || bad.fault(), || bad.echo(), || bad.echo()]);
        let kinds = all.filter(|one| !one.ok).map(|one| one.error.kind);
        [kinds.len() >= 1, kinds.filter(|kind| kind != \"connection\"), parallel_map(0..8, |i| bad.echo(#{i: i}).arguments.i)]
    ";
    assert_eq!(value(run(&client, script).await), json!([true, [], [0, 1, 2, 3, 4, 5, 6, 7]]));
    let processes = mark.alive().len();
    assert_eq!(processes, usize::from(transport == "stdio"), "it was connected again once");
    client.close_all_sessions().await;
    Ok(())
}

/// What a call with a session comes to: an answer, or the kind of its failure.
async fn call(session: &Session, tool: &str) -> Result<ToolAnswer, FailureKind> {
    match session.call_tool(tool, Map::new(), CallOptions::default().timeout(Duration::from_secs(20))).await {
        Ok(answer) => Ok(answer),
        Err(Error::Call(failure)) => {
            assert_eq!((failure.server.as_str(), failure.tool.as_str()), ("bad", tool));
            Err(failure.kind)
        }
        Err(other) => panic!("{other}"),
    }
}

async fn session_after_death(transport: &str) -> Result<(), Ignored> {
    let client = builder(json!({"bad": entry(transport, "dies").await})).code_mode(false).build().unwrap();
    let session = client.create_session("bad").await.unwrap();
    session.ping().await.unwrap();
    assert_eq!(session.list_tools().await.unwrap().len(), 2);
    assert!(call(&session, "echo").await.is_ok());
    assert_eq!(call(&session, "fault").await.err(), Some(FailureKind::Connection));
    // It connects by itself, but for when it was closed on purpose.
    assert!(call(&session, "echo").await.is_ok() && session.is_connected());
    client.close_all_sessions().await;
    assert!(!session.is_connected());
    let closed = session.call_tool("echo", Map::new(), CallOptions::default()).await;
    assert!(matches!(closed, Err(Error::NoSession { .. })), "{closed:?}");
    let again = client.create_session("bad").await.unwrap();
    assert!(call(&again, "echo").await.is_ok() && session.is_connected());
    client.close_all_sessions().await;
    Ok(())
}

async fn gives_up(transport: &str) -> Result<(), Ignored> {
    let client = builder(json!({"bad": entry(transport, "never").await})).code_mode(false).build().unwrap();
    let session = client.create_session("bad").await.unwrap();
    let bound = CallOptions::default().timeout(Duration::from_millis(200));
    let Err(Error::Call(failure)) = session.call_tool("fault", Map::new(), bound).await else {
        panic!("it was answered")
    };
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert_eq!(failure.message, "the time limit of the call, 0.2 s, is over");
    // The connection stands, and the call that nobody waits for does not keep it from closing.
    assert!(session.is_connected());
    assert!(call(&session, "echo").await.is_ok());
    client.close_all_sessions().await;
    Ok(())
}

async fn headers() -> Result<(), Ignored> {
    for (transport, requests) in [("http", 3), ("sse", 3), ("ws", 1)] {
        let server = FaultServer::start("none").await;
        let mut entry = server.entry(transport);
        entry["headers"] = json!({"X-Key": "${KEY}"});
        entry["auth"] = json!("token-${KEY}");
        let client =
            builder(json!({"bad": entry})).variables(|name| (name == "KEY").then(|| "secret".into())).build().unwrap();
        assert_eq!(value(run(&client, "bad.fault()").await), json!("fine"));
        let all = server.count("HTTP/1.1\r\n");
        assert!(all >= requests, "{transport}: {all}");
        assert_eq!(server.count("x-key: secret\r\n"), all, "{transport}");
        assert_eq!(server.count("authorization: Bearer token-secret\r\n"), all, "{transport}");
        assert_eq!(server.count("sec-websocket-protocol: mcp\r\n"), usize::from(transport == "ws"));
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn headers_elsewhere() -> Result<(), Ignored> {
    for (transport, fault) in [("http", "moves-away"), ("ws", "moves-away"), ("sse", "endpoint-elsewhere")] {
        let server = FaultServer::start(fault).await;
        let client = client(json!({"bad": server.entry(transport)}));
        assert!(client.create_session("bad").await.is_err());
        assert!(server.count("host: 127.0.0.1") > 0 && server.count("host: localhost") == 0, "{transport}");
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn type_of_entry() -> Result<(), Ignored> {
    // Each with what it asks for first, and whether it comes to a session at a server that speaks only HTTP+SSE.
    for (key, kind, first, works) in [
        ("type", Value::Null, "POST /sse", true),
        ("type", json!("sse"), "GET /sse", true),
        ("transport", json!("sse"), "GET /sse", true),
        ("type", json!("http"), "POST /sse", false),
        ("type", json!("streamableHttp"), "POST /sse", false),
        ("transport", json!("streamable_http"), "POST /sse", false),
    ] {
        let server = FaultServer::start("none").await;
        let mut entry = server.entry("older");
        entry[key] = kind.clone();
        let client = client(json!({"bad": entry}));
        let session = client.create_session("bad").await;
        let asked = (server.count("POST /sse") > 0, server.count("GET /sse"));
        assert_eq!(asked, (first == "POST /sse", usize::from(works)), "{kind}");
        match session {
            Ok(session) => assert!(works && session.is_connected(), "{kind}"),
            Err(error) => {
                assert!(!works && !error.to_string().contains("SSE"), "{kind}: {error}");
                assert!(error.to_string().contains("HTTP 405"), "{kind}: {error}");
            }
        }
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn farewell() -> Result<(), Ignored> {
    for transport in ["http", "sse", "ws"] {
        let server = FaultServer::start("none").await;
        let client = client(json!({"bad": server.entry(transport)}));
        assert_eq!(value(run(&client, "bad.fault()").await), json!("fine"));
        let seen = || (server.count("DELETE /http"), server.farewells());
        assert_eq!((seen(), server.streams()), ((0, 0), usize::from(transport == "sse")));
        client.close_all_sessions().await;
        assert_eq!(seen(), (usize::from(transport == "http"), usize::from(transport == "ws")));
        // The server sees the end of a stream a moment later; the test's own bound ends the wait.
        while server.streams() > 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn uncaught() -> Result<(), Ignored> {
    let client = client(json!({"bad": entry("ws", "closes-with-a-code").await}));
    let error = run(&client, "1 + bad.fault()").await.error.unwrap();
    assert_eq!(
        error.message,
        "`bad.fault` failed: the connection is closed; it closed the WebSocket with code 1011: `out of tea`"
    );
    client.close_all_sessions().await;
    Ok(())
}

async fn deaf_to_sigterm() -> Result<(), Ignored> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let server = fake_server::entry("stubborn");
    let program = server["command"].as_str().unwrap();
    let mark = Mark::new("deaf-to-sigterm");
    // What a shell ignores, so does the program that it becomes.
    let arguments = json!(["-c", "trap '' TERM; exec \"$0\" \"$@\"", program, fake_server::ARGUMENT, "stubborn"]);
    let entry = mark.on(json!({"command": "sh", "args": arguments}));
    for closes in [true, false] {
        let client = client(json!({"deaf": entry}));
        assert!(run(&client, "deaf.echo()").await.error.is_none());
        assert!(!mark.alive().is_empty());
        if closes {
            client.close_all_sessions().await;
            assert_eq!(mark.alive(), Vec::<String>::new());
        } else {
            drop(client);
            mark.gone().await;
        }
    }
    Ok(())
}

/// Speaks TLS with a certificate of its own making, and hands all on to the port it is given.
const TLS: &str = r#"
import datetime, socket, ssl, sys, tempfile, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
now = datetime.datetime.now(datetime.timezone.utc)
builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
with tempfile.NamedTemporaryFile() as file:
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    file.write(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    file.flush()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file.name)
context.set_alpn_protocols(["h2", "http/1.1"])

def hand_on(source, target):
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        return
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    threading.Thread(target=hand_on, args=(server, client), daemon=True).start()
    hand_on(client, server)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

async fn certificates() -> Result<(), Ignored> {
    let python = need(fixtures::python_sdk())?;
    let server = FaultServer::start("none").await;
    let mut tls = tokio::process::Command::new(&python.program)
        .args(["-c", TLS, &server.port()])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let port = BufReader::new(tls.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    for transport in ["http", "sse", "older", "ws"] {
        let mut entry = server.entry(transport);
        let key = if transport == "ws" { "ws_url" } else { "url" };
        let (scheme, path) = (entry[key].as_str().unwrap().split("://").next().unwrap(), entry[key].as_str().unwrap());
        let path = path.rsplit('/').next().unwrap();
        entry[key] = json!(format!("{scheme}s://localhost:{port}/{path}"));
        let servers = json!({"bad": entry});
        let client = builder(servers.clone()).build().unwrap();
        let error = client.create_session("bad").await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{transport}: {error}");
        let client = builder(servers).verify_tls(false).build().unwrap();
        assert_eq!(value(run(&client, "bad.fault()").await), json!("fine"), "{transport}");
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn closing_while_writing() -> Result<(), Ignored> {
    for transport in ["sse", "ws"] {
        let client = client(json!({"bad": entry(transport, "stops-reading").await}));
        // The first call makes it stop; the second is more than sockets hold.
        let script = "bad.fault(); let text = \"x\"; text.pad(1_000_000, \"x\"); parallel_map(0..32, |i| bad.echo(#{text: text}))";
        let options = ExecuteOptions::default().timeout(Duration::from_secs(2));
        let error = client.execute_code(script, options).await.unwrap().error.unwrap();
        assert_eq!(error.kind.as_str(), "timeout", "{}", error.message);
        let closing = Instant::now();
        client.close_all_sessions().await;
        assert!(closing.elapsed() < Duration::from_secs(8), "{transport}: {:?}", closing.elapsed());
    }
    Ok(())
}
