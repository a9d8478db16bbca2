//! The `mcpServers` configuration that editors and agents already have, typed. Reads and writes JSON; connects to nothing.

mod auth;
mod sandbox;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::limits::Limits;

pub use auth::{AuthConfig, Grant, IdentityProvider, OAuthConfig};
pub use sandbox::{Access, Endpoint, Lifetime, Mount, SandboxConfig};

const SERVERS: &str = "mcpServers";
const LIMITS: &str = "limits";
/// What a `type` may be, as various clients write it, with the key that such an entry has.
const KINDS: [(&str, &str); 8] = [
    ("stdio", "command"),
    ("http", "url"),
    ("streamable-http", "url"),
    ("streamable_http", "url"),
    ("streamableHttp", "url"),
    (SSE, "url"),
    ("ws", "ws_url"),
    ("websocket", "ws_url"),
];
const SSE: &str = "sse";
/// What VS Code calls it.
const SERVERS_OF_VS_CODE: &str = "servers";

/// Which servers there are and how they are reached: `{"mcpServers": {"name": {…}}}`.
///
/// Keys that rhaiway does not know are kept, and written again by [`Config::save`]. A malformed entry does not take the others
/// down: it is an error only when it is used, and [`Config::problems`] lists all of them.
///
/// ```
/// let config = rhaiway::Config::from_value(serde_json::json!({"mcpServers": {
///     "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "."]},
///     "remote": {"url": "https://example.com/mcp", "headers": {"X-Key": "${KEY}"}},
/// }}))?;
/// assert_eq!(config.server_names(), ["files", "remote"]);
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Clone, PartialEq, Default)]
pub struct Config {
    document: Map<String, Value>,
}

impl fmt::Debug for Config {
    /// The names of the servers alone, as an entry may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("servers", &self.server_names()).finish_non_exhaustive()
    }
}

/// How one server is reached.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Kind of connection, by the key that the entry has.
    pub transport: Transport,
    /// How long connecting may take (`connect_timeout`, in seconds); the client's own bound where it is not set.
    pub connect_timeout: Option<Duration>,
    /// How long one call of a script may go on without a sign of life from the server (`call_timeout`, in seconds): its answer, or a message
    /// of progress. As long as the script where it is not set.
    pub call_timeout: Option<Duration>,
    /// Calls of tools that may be under way at once, those of all scripts together (`calls_in_flight`); further ones wait. Any number
    /// where it is not set.
    pub calls_in_flight: Option<usize>,
    /// Calls of tools that may begin in a second, those of all scripts together (`calls_per_second`, such as `2` or `0.5`); further ones
    /// wait. Any number where it is not set.
    pub calls_per_second: Option<f64>,
    /// How often the server is pinged, and how long it may take to answer (`keep_alive`, in seconds); never where it is not set.
    pub keep_alive: Option<Duration>,
    /// The protocol revision to speak (`protocol_version`), such as `2025-11-25`; where it is not set, the newest that both know.
    pub protocol_version: Option<String>,
    /// How long a server that was started here may take to end after its input was closed, and again after SIGTERM (`stop_timeout`, in
    /// seconds). Where it is not set, 2 s each; for `docker` and the like 1 s and 10 s.
    pub stop_timeout: Option<Duration>,
}

/// Kind of connection. Strings may hold `${VAR}` and `${VAR:-default}`, which are expanded when the server is connected.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// A child process that speaks MCP on its standard input and output (`command`).
    Stdio {
        /// Program, looked up on the `PATH`.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Variables it gets beside the few that every program needs.
        env: BTreeMap<String, String>,
        /// Folder it runs in; this process's own where it is not set.
        cwd: Option<PathBuf>,
        /// What the entry says of a sandbox (`sandbox`): that of the client where it says nothing.
        sandbox: Option<Sandboxing>,
        /// Names of further variables that it gets from this process (`inherit_env`).
        inherit_env: Vec<String>,
    },
    /// Streamable HTTP (`url`).
    Http(HttpConfig),
    /// HTTP+SSE, which was before streamable HTTP (`url`, and `"type": "sse"`).
    Sse(HttpConfig),
    /// WebSocket (`ws_url`).
    WebSocket(HttpConfig),
}

/// Whether a server that is started here runs in a sandbox.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Sandboxing {
    /// It runs as the user runs (`false`). A wasm server never does.
    Off,
    /// It can touch only what it was given (`true`, or an object).
    On(Box<SandboxConfig>),
}

/// How a server is reached over HTTP, or over WebSocket, which begins as HTTP.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Endpoint.
    pub url: String,
    /// Headers sent with each request.
    pub headers: BTreeMap<String, String>,
    /// How requests are authorised: a bearer token, or OAuth (`auth`).
    pub auth: Option<AuthConfig>,
    /// Bound on connecting to the host (`timeout`, in seconds).
    pub timeout: Option<Duration>,
    /// Longest silence of a response stream (`sse_read_timeout`, in seconds).
    pub read_timeout: Option<Duration>,
    /// Whether HTTP+SSE is tried where the server refuses streamable HTTP: where the entry has no `type`.
    pub sse_fallback: bool,
    /// File with certificates (PEM) of authorities that are trusted beside the system's (`ca_file`).
    pub ca_file: Option<String>,
    /// File with the certificate (PEM) that this client shows (`client_cert`).
    pub client_cert: Option<String>,
    /// File with the key (PEM) of that certificate (`client_key`), where it is not in the same file.
    pub client_key: Option<String>,
}

impl fmt::Debug for HttpConfig {
    /// Without the values of headers and without the address, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("auth", &self.auth)
            .field("timeout", &self.timeout)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// No servers.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Takes a configuration that is in memory.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not an object, or its `mcpServers` is none. Faults of single entries come later.
    #[doc(alias = "from_dict")]
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let Value::Object(document) = value else {
            return Err(fault("(top level)", format!("expected an object with `mcpServers`, found {}", kind(&value))));
        };
        let config = Self { document };
        match config.document.get(config.key()) {
            Some(Value::Object(_)) => Ok(config),
            Some(other) => {
                Err(fault(config.key(), format!("expected an object of servers by name, found {}", kind(other))))
            }
            None if config.document.is_empty() => Ok(config),
            None => {
                let keys: Vec<&str> = config.document.keys().map(String::as_str).collect();
                Err(fault("(top level)", format!("expected `{SERVERS}`, found only `{}`", keys.join("`, `"))))
            }
        }
    }

    /// Where the servers are.
    fn key(&self) -> &'static str {
        let other = !self.document.contains_key(SERVERS) && self.document.contains_key(SERVERS_OF_VS_CODE);
        if other { SERVERS_OF_VS_CODE } else { SERVERS }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, [`Error::Config`] with line and column if it is not JSON.
    #[doc(alias = "from_config_file")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| Error::File {
            action: "read",
            path: path.into(),
            source: source.into(),
        })?;
        let value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| fault(&path.display().to_string(), format!("not JSON: {error}")))?;
        Self::from_value(value).map_err(|error| match error {
            Error::Config { path: place, message } => fault(&format!("{}, {place}", path.display()), message),
            other => other,
        })
    }

    /// Writes the configuration as indented JSON, through a temporary file, so that a reader sees the old or the new one. Variables
    /// stay as they were written, unexpanded.
    ///
    /// # Errors
    /// [`Error::File`].
    #[doc(alias = "save_config")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let write = || -> std::io::Result<()> {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, &self.document)?;
            std::io::Write::write_all(&mut file, b"\n")?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source| Error::File { action: "write", path: path.into(), source: source.into() })
    }

    /// Names of the configured servers, in the order of the document.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        self.entries().into_iter().flat_map(Map::keys).cloned().collect()
    }

    /// One server, checked.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], or [`Error::Config`] with the path of the fault.
    pub fn server(&self, name: &str) -> Result<ServerConfig, Error> {
        match self.entries().and_then(|entries| entries.get(name)) {
            Some(entry) => parse(name, entry),
            None => Err(Error::UnknownServer { name: name.into(), known: self.server_names() }),
        }
    }

    /// The bounds on scripts: the defaults, changed by what stands in `limits` beside `mcpServers`, such as
    /// `"limits": {"wall_time": 5, "memory_bytes": "128 MiB"}`.
    ///
    /// # Errors
    /// [`Error::Config`] for a name or value that is none.
    pub fn limits(&self) -> Result<Limits, Error> {
        let mut limits = Limits::default();
        match self.document.get(LIMITS) {
            None | Some(Value::Null) => {}
            Some(Value::Object(given)) => {
                limits.set_all(given).map_err(|(name, message)| fault(&format!("{LIMITS}.{name}"), message))?;
            }
            Some(other) => return Err(fault(LIMITS, format!("expected an object, found {}", kind(other)))),
        }
        Ok(limits)
    }

    /// Whether the entry says `"disabled": true` or `"enabled": false`, as some editors do.
    pub(crate) fn is_disabled(&self, name: &str) -> bool {
        let entry = self.entries().and_then(|entries| entries.get(name));
        entry.is_some_and(|entry| {
            entry.get("disabled") == Some(&Value::Bool(true)) || entry.get("enabled") == Some(&Value::Bool(false))
        })
    }

    /// The faults of all malformed entries.
    #[must_use]
    pub fn problems(&self) -> Vec<Error> {
        self.entries().into_iter().flatten().filter_map(|(name, entry)| parse(name, entry).err()).collect()
    }

    /// Adds a server, or replaces the one of that name.
    ///
    /// # Errors
    /// [`Error::Config`] if the entry is malformed; nothing is changed then.
    pub fn add_server(&mut self, name: &str, entry: Value) -> Result<(), Error> {
        parse(name, &entry)?;
        if let Value::Object(servers) = self.document.entry(self.key()).or_insert_with(|| Value::Object(Map::new())) {
            servers.insert(name.into(), entry);
        }
        Ok(())
    }

    /// Removes a server.
    ///
    /// # Errors
    /// [`Error::UnknownServer`].
    pub fn remove_server(&mut self, name: &str) -> Result<(), Error> {
        let key = self.key();
        let servers = self.document.get_mut(key).and_then(Value::as_object_mut);
        let removed = servers.and_then(|servers| servers.shift_remove(name));
        removed.map(drop).ok_or_else(|| Error::UnknownServer { name: name.into(), known: self.server_names() })
    }

    fn entries(&self) -> Option<&Map<String, Value>> {
        self.document.get(self.key()).and_then(Value::as_object)
    }
}

/// The revisions of the protocol that an entry can ask for.
const PROTOCOL_VERSIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

fn parse(name: &str, entry: &Value) -> Result<ServerConfig, Error> {
    let place = format!("{SERVERS}.{name}");
    let Value::Object(fields) = entry else {
        return Err(fault(&place, format!("expected an object, found {}", kind(entry))));
    };
    let entry = Entry { place, fields };
    let given: Vec<&str> = ["command", "url", "ws_url"].into_iter().filter(|key| fields.contains_key(*key)).collect();
    let kind = match given.as_slice() {
        [key] => entry.kind(key)?,
        _ => None,
    };
    let http = |key| -> Result<HttpConfig, Error> {
        Ok(HttpConfig {
            url: entry.required_text(key)?,
            headers: entry.text_map("headers")?,
            auth: auth::parse(&entry)?,
            timeout: entry.seconds("timeout")?,
            read_timeout: entry.seconds("sse_read_timeout")?,
            sse_fallback: kind.is_none() && key == "url",
            ca_file: entry.text("ca_file")?,
            client_cert: entry.text("client_cert")?,
            client_key: entry.text("client_key")?,
        })
    };
    let transport = match given.as_slice() {
        ["command"] => Transport::Stdio {
            command: entry.required_text("command")?,
            args: entry.texts("args")?,
            env: entry.text_map("env")?,
            cwd: entry.text("cwd")?.map(PathBuf::from),
            sandbox: sandbox::parse(&entry)?,
            inherit_env: entry.variable_names("inherit_env")?,
        },
        ["url"] if kind == Some(SSE) => Transport::Sse(http("url")?),
        ["url"] => Transport::Http(http("url")?),
        ["ws_url"] => Transport::WebSocket(http("ws_url")?),
        [] => {
            return Err(fault(
                &entry.place,
                "it has none of `command` (stdio), `url` (HTTP), `ws_url` (WebSocket)".into(),
            ));
        }
        several => {
            return Err(fault(
                &entry.place,
                format!("it has `{}`, which exclude each other: keep one", several.join("` and `")),
            ));
        }
    };
    if !matches!(transport, Transport::Stdio { .. }) {
        entry.no_sandbox()?;
    }
    Ok(ServerConfig {
        transport,
        connect_timeout: entry.seconds("connect_timeout")?,
        call_timeout: entry.seconds("call_timeout")?,
        calls_in_flight: entry.count("calls_in_flight")?,
        calls_per_second: entry.rate("calls_per_second")?,
        keep_alive: entry.seconds("keep_alive")?,
        protocol_version: entry.one_of("protocol_version", PROTOCOL_VERSIONS)?,
        stop_timeout: entry.seconds("stop_timeout")?,
    })
}

/// A server's entry while it is read; every fault names its path.
struct Entry<'a> {
    place: String,
    fields: &'a Map<String, Value>,
}

impl Entry<'_> {
    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        fault(&format!("{}.{key}", self.place), format!("expected {expected}, found {}", kind(found)))
    }

    /// The kind of connection that `type` names, or `transport`, which other clients say for it. `given` is the key that the entry has.
    fn kind(&self, given: &str) -> Result<Option<&'static str>, Error> {
        let mut found = None;
        for key in ["type", "transport"] {
            let Some(text) = self.text(key)? else { continue };
            let path = format!("{}.{key}", self.place);
            let Some((kind, needs)) = KINDS.iter().find(|(kind, _)| *kind == text) else {
                let known = "`stdio`, `http`, `streamable-http`, `sse`, `websocket`";
                return Err(fault(&path, format!("expected one of {known}, found `{text}`")));
            };
            if *needs != given {
                return Err(fault(&path, format!("`{kind}` needs `{needs}`, and the entry has `{given}`")));
            }
            if found.is_some_and(|found| (found == SSE) != (*kind == SSE)) {
                return Err(fault(&path, format!("it is `{kind}`, and `type` is not: keep one")));
            }
            found = Some(*kind);
        }
        Ok(found)
    }

    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, "a string", other)),
        }
    }

    fn one_of(&self, key: &str, known: &[&str]) -> Result<Option<String>, Error> {
        let text = self.text(key)?;
        match &text {
            Some(text) if !known.contains(&text.as_str()) => {
                let message = format!("expected one of `{}`, found `{text}`", known.join("`, `"));
                Err(fault(&format!("{}.{key}", self.place), message))
            }
            _ => Ok(text),
        }
    }

    fn required_text(&self, key: &str) -> Result<String, Error> {
        self.text(key)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| fault(&format!("{}.{key}", self.place), "expected a string, found nothing".into()))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    item.as_str()
                        .map(String::from)
                        .ok_or_else(|| self.wrong(&format!("{key}[{index}]"), "a string", item))
                })
                .collect(),
            Some(other) => Err(self.wrong(key, "an array of strings", other)),
        }
    }

    /// Names alone: variables are looked up one by one, so that nothing can be looked up by how it begins.
    fn variable_names(&self, key: &str) -> Result<Vec<String>, Error> {
        let names = self.texts(key)?;
        let is_none = |name: &String| name.is_empty() || name.contains(['=', '*', '?', '\0']);
        match names.iter().position(is_none) {
            None => Ok(names),
            Some(index) => {
                let message = format!("expected the full name of a variable, found `{}`", names[index]);
                Err(fault(&format!("{}.{key}[{index}]", self.place), message))
            }
        }
    }

    fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, Error> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(items)) => items
                .iter()
                .map(|(name, item)| match item {
                    Value::String(text) => Ok((name.clone(), text.clone())),
                    Value::Number(_) | Value::Bool(_) => Ok((name.clone(), item.to_string())),
                    other => Err(self.wrong(&format!("{key}.{name}"), "a string", other)),
                })
                .collect(),
            Some(other) => Err(self.wrong(key, "an object of strings", other)),
        }
    }

    fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(found) = self.fields.get(key).filter(|found| !found.is_null()) else { return Ok(None) };
        let count = found.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        count.map(Some).ok_or_else(|| self.wrong(key, "a whole number from 1 up", found))
    }

    fn rate(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(found) = self.fields.get(key).filter(|found| !found.is_null()) else { return Ok(None) };
        let rate = found.as_f64().filter(|rate| rate.is_finite() && *rate > 0.0);
        rate.map(Some).ok_or_else(|| self.wrong(key, "a number over 0", found))
    }

    fn seconds(&self, key: &str) -> Result<Option<Duration>, Error> {
        let wrong = |found| self.wrong(key, "a positive number of seconds", found);
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(found) => {
                let seconds = found.as_f64().filter(|seconds| *seconds > 0.0).ok_or_else(|| wrong(found))?;
                Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong(found))
            }
        }
    }
}

fn fault(path: &str, message: String) -> Error {
    Error::Config { path: path.into(), message }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("`{value}`"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in `text`; `${env:VAR}` is the same as `${VAR}`. `Err` is the name of a variable that is not
/// set and has no default. A `${` that is never closed stays as it is.
pub(crate) fn expand(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inside, tail)) = after.split_once('}') else { break };
        out.push_str(before);
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let name = name.strip_prefix("env:").unwrap_or(name);
        // As in a shell, `:-` also replaces an empty value.
        match (variables(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(name.into()),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}
