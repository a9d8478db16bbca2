//! One server's entry, in whichever form clients write it, as a [`ServerConfig`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::entry::{Entry, Notes, fold};
use super::{
    AuthConfig, HttpConfig, ServerConfig, Surroundings, Transport, auth, filter, headers, kind, sandbox, tool_keys,
};
use crate::error::Error;
use crate::near::did_you_mean;

/// What a `type` may be, as various clients write it without regard to capitals, `-` and `_`, with the key that such an entry has.
const KINDS: [(&str, &str); 9] = [
    ("stdio", "command"),
    ("local", "command"),
    ("http", "url"),
    ("streamablehttp", "url"),
    ("remote", "url"),
    (SSE, "url"),
    ("ws", "ws_url"),
    ("websocket", "ws_url"),
    ("streamable", "url"),
];
const SSE: &str = "sse";
/// No program can be given it.
const NUL: &str = "there is a NUL in it";
/// Any kind of HTTP.
const REMOTE: &str = "remote";
/// The revisions of the protocol that an entry can ask for.
const PROTOCOL_VERSIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
/// The keys that only some kinds of servers have.
const KEYS: [&str; 20] = [
    "ca_file",
    "client_cert",
    "client_key",
    "inherit_env",
    "stop_timeout",
    "command",
    "args",
    "env",
    "env_file",
    "cwd",
    "sandbox",
    "url",
    "ws_url",
    "type",
    "transport",
    "headers",
    "auth",
    "bearer_token_env_var",
    "timeout",
    "sse_read_timeout",
];

/// Reads an entry. `place` is its path; `document` the whole file, which may forbid tools for all servers.
pub(super) fn parse(
    place: &str,
    name: &str,
    value: &Value,
    document: &Entry<'_>,
    surroundings: impl FnOnce() -> Surroundings,
    notes: &Notes,
) -> Result<ServerConfig, Error> {
    let Value::Object(fields) = value else {
        return Err(super::fault(place, format!("expected an object, found {}", kind(value))));
    };
    // Notes of their own, as the keys of the document are not those of the entry.
    let document_notes = Notes::default();
    let document = Entry { place: String::new(), fields: document.fields, notes: &document_notes };
    let entry = Entry { place: place.into(), fields, notes };
    // All of them are known, whichever kind of server they are for.
    for key in KEYS {
        entry.find(key);
    }
    if let Some(fault) = notes.take_fault() {
        return Err(fault);
    }
    let parsed = server(&entry, name, &document, surroundings)?;
    if let Some(fault) = notes.take_fault().or_else(|| document_notes.take_fault()) {
        return Err(fault);
    }
    slips(&entry)?;
    Ok(parsed)
}

fn server(
    entry: &Entry<'_>,
    name: &str,
    document: &Entry<'_>,
    surroundings: impl FnOnce() -> Surroundings,
) -> Result<ServerConfig, Error> {
    let given: Vec<(&str, &str)> = ["command", "url", "ws_url"]
        .into_iter()
        .filter_map(|key| entry.find(key).map(|(written, _)| (key, written)))
        .collect();
    let kind = match given.as_slice() {
        [(key, written)] => kind_of_connection(entry, key, written)?,
        _ => None,
    };
    let transport = match given.as_slice() {
        [("command", _)] => program(entry)?,
        [("url", _)] if kind == Some(SSE) => Transport::Sse(http(entry, "url", kind)?),
        [("url", _)] => Transport::Http(http(entry, "url", kind)?),
        [("ws_url", _)] => Transport::WebSocket(http(entry, "ws_url", kind)?),
        [] => return Err(no_transport(entry)),
        several => {
            let several: Vec<&str> = several.iter().map(|(_, written)| *written).collect();
            let message = format!("it has `{}`, which exclude each other: keep one", several.join("` and `"));
            return Err(super::fault(&entry.place, message));
        }
    };
    if matches!(transport, Transport::Stdio { .. }) {
        unused_timeout(entry);
    } else {
        entry.no_sandbox()?;
    }
    entry.flag("disabled")?;
    entry.flag("enabled")?;
    Ok(ServerConfig {
        transport,
        connect_timeout: entry.seconds("connect_timeout")?,
        call_timeout: entry.seconds("call_timeout")?,
        calls_in_flight: entry.count("calls_in_flight")?,
        calls_per_second: entry.rate("calls_per_second")?,
        keep_alive: entry.seconds("keep_alive")?,
        protocol_version: entry.one_of("protocol_version", PROTOCOL_VERSIONS)?,
        stop_timeout: entry.seconds("stop_timeout")?,
        tools: filter::parse(entry, name, document)?,
        path: entry.place.clone(),
        surroundings: surroundings(),
    })
}

/// The kind of connection that `type` names, or `transport`, which other clients say for it. `given` is the key that the entry has.
fn kind_of_connection(entry: &Entry<'_>, given: &str, written: &str) -> Result<Option<&'static str>, Error> {
    let mut found = None;
    for key in ["type", "transport"] {
        let Some(text) = entry.text(key)? else { continue };
        let Some((kind, needs)) = KINDS.iter().find(|(kind, _)| *kind == fold(&text)) else {
            let known = "`stdio`, `http`, `streamable-http`, `sse`, `websocket`";
            return Err(entry.fault(key, format!("expected one of {known}, found `{text}`")));
        };
        if *needs != given {
            return Err(entry.fault(key, format!("`{text}` needs `{needs}`, and the entry has `{written}`")));
        }
        if found.is_some_and(|found| (found == SSE) != (*kind == SSE)) {
            return Err(entry.fault(key, format!("it is `{text}`, and `type` is not: keep one")));
        }
        found = Some(*kind);
    }
    Ok(found)
}

fn http(entry: &Entry<'_>, key: &'static str, kind: Option<&str>) -> Result<HttpConfig, Error> {
    let written = entry.find(key).map_or(key, |(written, _)| written);
    let url = entry.required_text(key)?;
    let headers = headers::parse(entry)?;
    let auth = match headers::token_variable(entry)? {
        Some(_) if entry.get("auth").is_some() => {
            return Err(entry.fault("bearer_token_env_var", "it excludes `auth`: keep one"));
        }
        Some(token) => token.as_str().map(|token| AuthConfig::Token(token.into())),
        None => auth::parse(entry)?,
    };
    if let Some(AuthConfig::Token(token)) = &auth {
        headers::warn_of_bare(entry, "auth", token);
    }
    let has_own = headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
    if headers::has_credentials(&url) && (auth.is_some() || has_own) {
        let other = if auth.is_some() { "`auth`" } else { "the header `Authorization`" };
        return Err(
            entry.fault(written, format!("there are a name and password in it, which exclude {other}: keep one"))
        );
    }
    Ok(HttpConfig {
        url,
        headers,
        auth,
        timeout: entry.seconds("timeout")?,
        read_timeout: entry.seconds("sse_read_timeout")?,
        // Gemini's `httpUrl` is streamable HTTP alone.
        sse_fallback: key == "url" && kind.is_none_or(|kind| kind == REMOTE) && fold(written) != "httpurl",
        ca_file: entry.text("ca_file")?,
        client_cert: entry.text("client_cert")?,
        client_key: entry.text("client_key")?,
    })
}

/// A program: its name, or a list of it and its arguments (opencode), or an object (Zed).
fn program(entry: &Entry<'_>) -> Result<Transport, Error> {
    let mut args = entry.texts("args")?;
    let mut env = entry.text_map("env")?;
    let command = match entry.get("command") {
        Some((key, Value::Array(items))) => {
            let mut words = entry.texts_in(key, items)?;
            if words.first().is_none_or(String::is_empty) {
                return Err(entry.fault(key, "expected a program and its arguments, found nothing"));
            }
            let command = words.remove(0);
            args.splice(..0, words);
            command
        }
        Some((key, Value::Object(fields))) => {
            let inner = entry.inner(key, fields);
            args.splice(..0, inner.texts("args")?);
            let own: BTreeMap<String, String> = inner.text_map("env")?;
            env = own.into_iter().chain(env).collect();
            if let Some(other) = fields.keys().find(|other| is_like_sandbox(other)) {
                return Err(inner.fault(other, "it means nothing here: write `sandbox` in the entry itself"));
            }
            inner.required_text("path")?
        }
        _ => entry.required_text("command")?,
    };
    for (name, value) in &env {
        headers::warn_of_bare(entry, &format!("env.{name}"), value);
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(entry.fault("env", format!("`{}` can't be the name of a variable", name.escape_debug())));
        }
        if value.contains('\0') {
            return Err(entry.fault(&format!("env.{name}"), NUL));
        }
    }
    if command.contains('\0') {
        return Err(entry.fault("command", NUL));
    }
    if let Some(index) = args.iter().position(|word| word.contains('\0')) {
        return Err(entry.fault(&format!("args[{index}]"), NUL));
    }
    Ok(Transport::Stdio {
        command,
        args,
        env,
        env_file: entry.text("env_file")?.map(PathBuf::from),
        cwd: entry.text("cwd")?.map(PathBuf::from),
        sandbox: sandbox::parse(entry)?,
        inherit_env: entry.variable_names("inherit_env")?,
    })
}

/// `timeout` is a bound on requests over HTTP; what clients mean by it for a program differs.
fn unused_timeout(entry: &Entry<'_>) {
    let Some((key, found)) = entry.get("timeout") else { return };
    let unit =
        if found.as_f64().is_some_and(|number| number >= 1000.0) { " (it seems to be in milliseconds)" } else { "" };
    let message = format!(
        "it means nothing for a server that is started here{unit}: `call_timeout` bounds calls, `connect_timeout` the start, in seconds"
    );
    entry.warn(key, message);
}

fn no_transport(entry: &Entry<'_>) -> Error {
    let mut message = "it has none of `command` (stdio), `url` (HTTP), `ws_url` (WebSocket)".to_string();
    let slip = |key: &String| Some((key.clone(), entry.nearest(key)?));
    let mut slips = entry.unknown().into_iter().filter_map(slip);
    if let Some((key, meant)) = slips.find(|(_, meant)| ["command", "url", "ws_url"].contains(&meant.as_str())) {
        message = format!("{message}; there is `{key}`{}", did_you_mean(&[&meant]));
    }
    super::fault(&entry.place, message)
}

/// Keys that are none, and come near to one. Where that would keep something from a server, the entry is wrong.
fn slips(entry: &Entry<'_>) -> Result<(), Error> {
    for key in entry.unknown() {
        let none = |meant: &str| format!("there is no such key{}", did_you_mean(&[meant]));
        let value = &entry.fields[key];
        if is_like_sandbox(key) {
            return Err(entry.fault(key, none("sandbox")));
        }
        if let Some(inner) = value.as_object().and_then(|inner| inner.keys().find(|inner| is_like_sandbox(inner))) {
            return Err(
                entry.fault(&format!("{key}.{inner}"), "it means nothing here: write `sandbox` in the entry itself")
            );
        }
        if let Some(meant) = tool_keys::meant(key, value) {
            let message =
                format!("{} It seems to say which tools can be called, so the server does not start", none(meant));
            return Err(entry.fault(key, message));
        }
        match entry.nearest(key) {
            Some(meant) if [tool_keys::TOOLS, "disabled"].contains(&meant.as_str()) => {
                return Err(entry.fault(key, none(&meant)));
            }
            Some(meant) => entry.warn(key, none(&meant)),
            None => {}
        }
    }
    Ok(())
}

/// Whether a key seems to ask for a sandbox.
fn is_like_sandbox(key: &str) -> bool {
    let folded = fold(key);
    folded.contains("sandbox")
        || strsim::damerau_levenshtein(&folded, "sandbox") <= 2
        || ["sbox", "isolate", "isolated", "isolation", "jail"].contains(&folded.as_str())
}
