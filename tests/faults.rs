//! Servers with faults ([`fault_server`]), over each transport: what a script is told, that the server next to it goes on working, and
//! that the next call works where it can.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fault_server::{self, FaultServer};
use crate::support::{Ignored, client, demo, run, test, value};

/// What a script sees of a server with a fault. In the texts, `*` is anything.
struct Case {
    transports: &'static [&'static str],
    fault: &'static str,
    /// What the call of `fault` comes to: `ok: VALUE`, or `SERVER: KIND: MESSAGE`.
    first: &'static str,
    /// What the call of `echo` after it comes to.
    then: &'static str,
}

const fn case(
    transports: &'static [&'static str],
    fault: &'static str,
    first: &'static str,
    then: &'static str,
) -> Case {
    Case { transports, fault, first, then }
}

const ALL: &[&str] = &["stdio", "http", "sse", "ws"];
const STDIO: &[&str] = &["stdio"];
const HTTP: &[&str] = &["http"];
const SSE: &[&str] = &["sse"];
const OLDER: &[&str] = &["older"];
const WS: &[&str] = &["ws"];
const FINE: &str = "ok: \"fine\"";
const ECHO: &str = "ok: \"echo\"";

const CASES: &[Case] = &[
    case(ALL, "none", FINE, ECHO),
    case(OLDER, "none", FINE, ECHO),
    case(ALL, "never-initialises", "?", "?"),
    case(ALL, "dies-at-initialize", "?", "?"),
    case(ALL, "other-version", "?", "?"),
    case(ALL, "initialize-is-refused", "?", "?"),
    case(ALL, "initialize-is-no-object", "?", "?"),
    case(ALL, "dies-at-list", "?", "?"),
    case(ALL, "list-never-ends", "?", "?"),
    case(ALL, "list-goes-round", "?", "?"),
    case(ALL, "list-is-refused", "?", "?"),
    case(ALL, "list-is-no-list", "?", "?"),
    case(ALL, "odd-tools", FINE, ECHO),
    case(ALL, "dies", "?", ECHO),
    case(ALL, "never", "?", ECHO),
    case(ALL, "twice", "ok: \"first\"", ECHO),
    case(ALL, "unknown-id", FINE, ECHO),
    case(ALL, "id-as-text", "?", ECHO),
    case(ALL, "id-is-null", "?", ECHO),
    case(ALL, "huge", "?", ECHO),
    case(ALL, "invalid-utf8", "?", ECHO),
    case(ALL, "half", "?", ECHO),
    case(ALL, "junk", FINE, ECHO),
    case(ALL, "only-junk", "?", ECHO),
    case(ALL, "flood", FINE, ECHO),
    case(ALL, "no-jsonrpc", "?", ECHO),
    case(ALL, "other-jsonrpc", "?", ECHO),
    case(ALL, "neither-result-nor-error", "?", ECHO),
    case(ALL, "result-and-error", "?", ECHO),
    case(ALL, "error-without-message", "?", ECHO),
    case(ALL, "error-is-text", "?", ECHO),
    case(ALL, "result-is-text", "?", ECHO),
    case(ALL, "batch", "?", ECHO),
    case(ALL, "trickle", FINE, ECHO),
    case(ALL, "asks-for-roots", FINE, ECHO),
    case(ALL, "asks-for-nonsense", FINE, ECHO),
    case(HTTP, "moves", FINE, ECHO),
    case(HTTP, "moves-away", "?", "?"),
    case(HTTP, "knows-no-such-page", "?", "?"),
    case(HTTP, "wants-authorisation", "?", "?"),
    case(HTTP, "forbids", "?", "?"),
    case(HTTP, "is-no-http", "?", "?"),
    case(HTTP, "loses-its-session", "?", ECHO),
    case(HTTP, "delete-is-refused", FINE, ECHO),
    case(HTTP, "401-once", "?", ECHO),
    case(HTTP, "500-once", "?", ECHO),
    case(HTTP, "503-once", "?", ECHO),
    case(HTTP, "429-once", "?", ECHO),
    case(HTTP, "html", "?", ECHO),
    case(HTTP, "no-content-type", "?", ECHO),
    case(HTTP, "empty-body", "?", ECHO),
    case(HTTP, "accepted-only", "?", ECHO),
    case(HTTP, "json-cut-short", "?", ECHO),
    case(HTTP, "broken-chunks", "?", ECHO),
    case(HTTP, "stream-without-answer", "?", ECHO),
    case(HTTP, "half-an-event", "?", ECHO),
    case(HTTP, "plain-json", FINE, ECHO),
    case(SSE, "wants-authorisation", "?", "?"),
    case(OLDER, "wants-authorisation", "?", "?"),
    case(SSE, "is-no-stream", "?", "?"),
    case(OLDER, "is-no-stream", "?", "?"),
    case(SSE, "is-broken", "?", "?"),
    case(SSE, "names-no-endpoint", "?", "?"),
    case(SSE, "never-names-its-endpoint", "?", "?"),
    case(SSE, "endpoint-elsewhere", "?", "?"),
    case(SSE, "endpoint-is-no-url", "?", "?"),
    case(SSE, "comments-and-returns", FINE, ECHO),
    case(SSE, "500-once", "?", ECHO),
    case(SSE, "404-once", "?", ECHO),
    case(WS, "knows-no-such-page", "?", "?"),
    case(WS, "wants-authorisation", "?", "?"),
    case(WS, "is-no-web-socket", "?", "?"),
    case(WS, "moves", FINE, ECHO),
    case(WS, "moves-away", "?", "?"),
    case(WS, "wrong-accept-key", "?", "?"),
    case(WS, "never-shakes-hands", "?", "?"),
    case(WS, "other-protocol", "?", "?"),
    case(WS, "no-protocol", FINE, ECHO),
    case(WS, "closes-with-a-code", "?", ECHO),
    case(WS, "closes-without-a-code", "?", ECHO),
    case(WS, "pings", FINE, ECHO),
    case(WS, "sends-binary", FINE, ECHO),
    case(WS, "sends-binary-junk", FINE, ECHO),
    case(WS, "sends-fragments", FINE, ECHO),
    case(WS, "masks", "?", ECHO),
    case(WS, "invalid-text", "?", ECHO),
    case(WS, "announces-much", "?", ECHO),
];

/// Faults that only a time limit ends; all others have to come to something long before theirs.
const ENDLESS: &[&str] = &[
    "never-initialises",
    "never",
    "id-is-null",
    "only-junk",
    "batch",
    "accepted-only",
    "never-names-its-endpoint",
    "never-shakes-hands",
];

pub fn tests() -> Vec<Trial> {
    let cases = CASES.iter().flat_map(|case| case.transports.iter().map(move |transport| (case, *transport)));
    let cases = cases
        .map(|(case, transport)| test(&format!("faults::{transport}_{}", case.fault), move || check(case, transport)));
    cases.collect()
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
    try { out.push(`ok: ${to_json(bad.fault())}`) } catch (e) { out.push(`${e.server}: ${e.kind}: ${e.message}`) }
    out.push(good.list_users().users.len());
    try { out.push(`ok: ${to_json(bad.echo().tool)}`) } catch (e) { out.push(`${e.server}: ${e.kind}: ${e.message}`) }
    out.push(good.list_users().users.len());
    out
";

async fn check(case: &Case, transport: &str) -> Result<(), Ignored> {
    let client = client(json!({"bad": entry(transport, case.fault).await, "good": demo()}));
    let out = value(run(&client, SCRIPT).await);
    client.close_all_sessions().await;
    let [Value::String(first), users, Value::String(then), users_again] = &out.as_array().unwrap()[..] else {
        panic!("{out}");
    };
    assert_eq!([users, users_again], [&json!(5), &json!(5)], "the server next to it");
    let fits = matches(case.first, first) && matches(case.then, then);
    assert!(fits, "expected: {}\n   found: {first}\nthen: {}\n   found: {then}", case.first, case.then);
    Ok(())
}

/// Whether a text is what a pattern says, with anything for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
}
