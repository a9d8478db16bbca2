//! The headers of an entry for HTTP: those that can be sent, and are not ours to set.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::entry::Entry;
use crate::error::Error;

/// Set by us, from what the protocol needs and the HTTP client can take.
const OURS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Whether a header belongs to the transport, whatever a configuration says.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// What documented configurations say of ours, and is so anyway.
const SO_ANYWAY: [(&str, &[&str]); 2] =
    [("accept", &["application/json", "text/event-stream", "*/*"]), ("content-type", &["application/json"])];

/// Reads `headers`, and `env_http_headers`, as Codex has it: names of headers, and the variables that hold them.
pub(super) fn parse(entry: &Entry<'_>) -> Result<BTreeMap<String, String>, Error> {
    let key = entry.find("headers").map_or("headers", |(key, _)| key);
    let mut headers = entry.text_map("headers")?;
    for (name, variable) in entry.text_map("env_http_headers")? {
        headers.entry(name).or_insert_with(|| format!("${{{variable}}}"));
    }
    let mut sent: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let place = format!("{key}.{name}");
        let known = name.parse::<HeaderName>();
        let known = known.map_err(|_| entry.fault(&place, "no HTTP header can have this name"))?;
        // With variables in it, it is known only when they are.
        if !value.contains("${") && HeaderValue::from_str(&value).is_err() {
            return Err(entry.fault(&place, "it has characters that no HTTP header can hold"));
        }
        if is_ours(known.as_str()) {
            let so_anyway = SO_ANYWAY.iter().find(|(name, _)| *name == known.as_str());
            let is_so = |parts: &[&str]| {
                value.split([',', ';']).all(|part| parts.contains(&part.trim()) || part.trim().starts_with("charset="))
            };
            if !so_anyway.is_some_and(|(_, parts)| is_so(parts)) {
                entry.warn(&place, "it is left out, as the protocol says what this header has to be");
            }
            continue;
        }
        if let Some(other) = sent.keys().find(|other| other.eq_ignore_ascii_case(&name)) {
            return Err(entry.fault(&place, format!("it is `{other}` in other letters: keep one")));
        }
        warn_of_bare(entry, &place, &value);
        sent.insert(name, value);
    }
    Ok(sent)
}

/// Warns of `$NAME` where a variable is meant, as Gemini CLI has them.
pub(super) fn warn_of_bare(entry: &Entry<'_>, place: &str, value: &str) {
    let bare = value.split_whitespace().last().and_then(|word| word.strip_prefix('$'));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    if let Some(name) = bare.filter(|name| is_name(name)) {
        entry.warn(place, format!("`${name}` is sent as it is: write `${{{name}}}` for the variable"));
    }
}

/// Whether an address has a name or password before its host.
pub(super) fn has_credentials(url: &str) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// The token in a variable, as Codex has it.
pub(super) fn token_variable(entry: &Entry<'_>) -> Result<Option<Value>, Error> {
    let variable = entry.text("bearer_token_env_var")?;
    Ok(variable.map(|variable| Value::String(format!("${{{variable}}}"))))
}
