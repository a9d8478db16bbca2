//! The configurations that editors and agents already have, typed: their servers, wherever they keep them and whatever they call the
//! keys. Reads and writes JSON; connects to nothing.

mod auth;
mod dialects;
mod document;
mod entry;
mod env_file;
mod expand;
mod filter;
mod headers;
mod sandbox;
mod server;
mod tool_keys;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::limits::Limits;
use crate::near::did_you_mean;

use dialects::{Location, locations};
use document::Format;
use entry::{Entry, Notes};

pub use auth::{AuthConfig, Grant, IdentityProvider, OAuthConfig};
pub(crate) use env_file::read as read_env_file;
pub use expand::Input;
pub(crate) use expand::{Expansion, Surroundings};
pub use filter::ToolFilter;
pub(crate) use headers::is_ours;
pub use sandbox::{Access, Endpoint, Lifetime, Mount, SandboxConfig};

const SERVERS: &str = "mcpServers";
const LIMITS: &str = "limits";
/// Longest file that is read.
const FILE_BYTES: u64 = 16 << 20;
/// Folders in which clients keep their configuration for the folder above.
const CLIENT_FOLDERS: [&str; 9] =
    [".vscode", ".cursor", ".roo", ".gemini", ".codex", ".amazonq", ".kiro", ".zed", ".windsurf"];

/// Which servers there are and how they are reached: `{"mcpServers": {"name": {…}}}`, or what other clients have in its place, such as
/// `servers` (VS Code), `context_servers` (Zed) and `mcp` (opencode).
///
/// Keys that rhaiway does not know are kept, and written again by [`Config::save`]; comments too. A malformed entry does not take the others
/// down: it is an error only when it is used, and [`Config::problems`] lists all of them. [`Config::warnings`] lists what is read, and most
/// likely was meant in another way.
///
/// ```
/// let config = rhaiway::Config::from_value(serde_json::json!({"mcpServers": {
///     "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "."]},
///     "remote": {"url": "https://example.com/mcp", "headers": {"X-Key": "${KEY}"}},
/// }}))?;
/// assert_eq!(config.server_names(), ["files", "remote"]);
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Config {
    document: Map<String, Value>,
    /// What it was read from, with all changes: JSON with comments.
    text: Option<Arc<str>>,
    folder: Option<PathBuf>,
}

impl PartialEq for Config {
    /// Whether both say the same, comments aside.
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl fmt::Debug for Config {
    /// The names of the servers alone, as an entry may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("servers", &self.server_names()).finish_non_exhaustive()
    }
}

/// What a configuration says and most likely does not mean. Its `Display` names the path, and no value that may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigWarning {
    /// JSON path, such as `mcpServers.files.timeout`.
    pub path: String,
    /// What is made of it, and what to write.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the configuration, {}: {}", self.path, self.message)
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
    /// Which of its tools can be called (`includeTools`, `excludeTools`, …); all where nothing is said.
    pub tools: ToolFilter,
    /// Where the entry is, as a path: `mcpServers.files`.
    pub(crate) path: String,
    /// What its strings are expanded with.
    pub(crate) surroundings: Surroundings,
}

/// Kind of connection. Strings may hold `${VAR}`, `${VAR:-default}` and the like, which are expanded when the server is connected. Relative
/// paths start in the folder of the configuration's file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// A child process that speaks MCP on its standard input and output (`command`).
    Stdio {
        /// Program, looked up on the `PATH`; or its path, which starts in the folder of the configuration's file.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Variables it gets beside the few that every program needs.
        env: BTreeMap<String, String>,
        /// A file of further variables (`envFile`), which those of `env` go before.
        env_file: Option<PathBuf>,
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
        if let Some((path, other)) = dialects::malformed(&document) {
            return Err(fault(path, format!("expected an object of servers by name, found {}", kind(other))));
        }
        if locations(&document).next().is_none() && !document.is_empty() {
            let keys: Vec<&str> = document.keys().map(String::as_str).collect();
            return Err(fault("(top level)", format!("expected `{SERVERS}`, found only `{}`", keys.join("`, `"))));
        }
        Ok(Self { document, text: None, folder: None })
    }

    /// Reads a configuration file: JSON, in which comments and commas at the end are allowed, or TOML (`.toml`).
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, [`Error::Config`] with line and column if it is not JSON.
    #[doc(alias = "from_config_file")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            std::fs::File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
            if text.len() as u64 > FILE_BYTES {
                return Err(std::io::Error::other("it is longer than 16 MiB"));
            }
            Ok(text)
        };
        let text = read().map_err(|source| Error::File { action: "read", path: path.into(), source: source.into() })?;
        Self::from_text(&text, path)
    }

    /// Reads the text of a configuration file that was read already. `file` is where it was: paths in it start there, and errors name it.
    ///
    /// ```
    /// let text = r#"{"mcpServers": {"files": {"command": "./server"}}} // ours"#;
    /// let config = rhaiway::Config::from_text(text, "/home/me/project/mcp.json")?;
    /// assert_eq!(config.server_names(), ["files"]);
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] with line and column if it is not JSON.
    pub fn from_text(text: &str, file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref();
        let format = Format::of_file(file);
        let value = document::read(text, format).map_err(|message| fault(&file.display().to_string(), message))?;
        let config = Self::from_value(value).map_err(|error| match error {
            Error::Config { path: place, message } => fault(&format!("{}, {place}", file.display()), message),
            other => other,
        })?;
        // Servers may be started in another folder, and are to find what the configuration means.
        let folder = std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_path_buf));
        let text = (format == Format::Json).then(|| text.into());
        Ok(Self { text, folder, ..config })
    }

    /// Writes the configuration through a temporary file, so that a reader sees the old or the new one: as the text that it was read from,
    /// comments included, with the changes; or else as indented JSON. Variables stay as they were written, unexpanded.
    ///
    /// # Errors
    /// [`Error::File`], also for a file whose name says that it is not JSON.
    #[doc(alias = "save_config")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let write = || -> std::io::Result<()> {
            if Format::of_file(path) != Format::Json {
                let message = "a configuration is written as JSON only: choose a name that ends with `.json`";
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            if let Some(text) = &self.text {
                std::io::Write::write_all(&mut file, text.as_bytes())?;
            } else {
                serde_json::to_writer_pretty(&mut file, &self.document)?;
                std::io::Write::write_all(&mut file, b"\n")?;
            }
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source| Error::File { action: "write", path: path.into(), source: source.into() })
    }

    /// Names of the configured servers, in the order of the document.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let names = locations(&self.document).flat_map(|location| location.entries().map(|(name, _)| name));
        names.filter(|name| seen.insert(name.as_str())).cloned().collect()
    }

    /// One server, checked.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], or [`Error::Config`] with the path of the fault.
    pub fn server(&self, name: &str) -> Result<ServerConfig, Error> {
        match self.entry(name) {
            Some((location, entry)) => self.parse(location, name, entry, &Notes::default()),
            None => Err(Error::UnknownServer { name: name.into(), known: self.server_names() }),
        }
    }

    fn parse(&self, at: Location<'_>, name: &str, entry: &Value, notes: &Notes) -> Result<ServerConfig, Error> {
        let surroundings = || self.surroundings(at, entry);
        let document = Entry { place: String::new(), fields: &self.document, notes };
        server::parse(&format!("{}.{name}", at.path), name, entry, &document, surroundings, notes)
    }

    /// What the strings of an entry are expanded with.
    fn surroundings(&self, location: Location<'_>, entry: &Value) -> Surroundings {
        let above = |folder: &Path| {
            let name = folder.file_name()?.to_str()?;
            CLIENT_FOLDERS.contains(&name).then(|| folder.parent().map(Path::to_path_buf))?
        };
        let workspace = self.folder.as_deref().map(|folder| above(folder).unwrap_or_else(|| folder.into()));
        let text = entry.to_string();
        let ids: Vec<&str> = expand::input_ids(&text).collect();
        let mut inputs = if ids.is_empty() { Vec::new() } else { dialects::inputs(&self.document) };
        inputs.retain(|input| ids.contains(&input.id.as_str()));
        Surroundings { folder: self.folder.clone(), workspace, braces: location.has_braces(), inputs }
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

    /// Whether the entry says `"disabled": true` or `"enabled": false`, as some editors do, or the file leaves it out as a whole.
    pub(crate) fn is_disabled(&self, name: &str) -> bool {
        let says = |key: &str, value: bool| {
            self.entry(name).is_some_and(|(_, entry)| entry.get(key) == Some(&Value::Bool(value)))
        };
        says("disabled", true) || says("enabled", false) || dialects::leaves_out(&self.document, name)
    }

    /// The faults of all malformed entries.
    #[must_use]
    pub fn problems(&self) -> Vec<Error> {
        self.all().into_iter().filter_map(|(parsed, _)| parsed.err()).collect()
    }

    /// What is read and most likely was meant in another way: keys with slips, times in milliseconds, headers that can't be set.
    ///
    /// ```
    /// let config = rhaiway::Config::from_value(serde_json::json!({"mcpServers": {"a": {"command": "x", "args_": []}}}))?;
    /// let warning = config.warnings().remove(0).to_string();
    /// assert_eq!(warning, "in the configuration, mcpServers.a.args_: there is no such key: did you mean `args`?");
    /// # Ok::<(), rhaiway::Error>(())
    /// ```
    #[must_use]
    pub fn warnings(&self) -> Vec<ConfigWarning> {
        let mut warnings = Vec::new();
        for key in self.document.keys().filter(|key| *key != LIMITS && entry::fold(key) != "inputs") {
            let slip = |known: &str| strsim::damerau_levenshtein(&entry::fold(key), known) <= 1;
            if let Some(meant) = [LIMITS, "inputs"].into_iter().find(|known| slip(known)) {
                let message = format!("there is no such key{}", did_you_mean(&[meant]));
                warnings.push(ConfigWarning { path: key.clone(), message });
            }
        }
        if self.document.get("sandbox").is_some_and(|sandbox| !matches!(sandbox, Value::Null | Value::Bool(false))) {
            let message = "it means nothing here: a server is in a sandbox where its own entry says so";
            warnings.push(ConfigWarning { path: "sandbox".into(), message: message.into() });
        }
        let mut seen = BTreeMap::new();
        for location in locations(&self.document) {
            for (name, _) in location.entries() {
                if let Some(first) = seen.get(name) {
                    let message = format!("it is not used, as there is `{first}.{name}`, which goes before it");
                    warnings.push(ConfigWarning { path: format!("{}.{name}", location.path), message });
                } else {
                    seen.insert(name, location.path);
                }
            }
        }
        let of_entries = self.all().into_iter().filter(|(parsed, _)| parsed.is_ok()).flat_map(|(_, warnings)| warnings);
        warnings.extend(of_entries);
        warnings
    }

    /// All entries that are used, each with what comes up.
    fn all(&self) -> Vec<(Result<ServerConfig, Error>, Vec<ConfigWarning>)> {
        let parsed = |name: String| {
            let notes = Notes::default();
            let (location, entry) = self.entry(&name)?;
            let parsed = self.parse(location, &name, entry, &notes);
            Some((parsed, notes.take_warnings()))
        };
        self.server_names().into_iter().filter_map(parsed).collect()
    }

    /// Adds a server, or replaces the one of that name. Comments in the file stay, but for those within an entry that is replaced.
    ///
    /// # Errors
    /// [`Error::Config`] if the entry is malformed; nothing is changed then.
    #[expect(clippy::needless_pass_by_value, reason = "a program makes it for this, and has no use for it afterwards")]
    pub fn add_server(&mut self, name: &str, entry: Value) -> Result<(), Error> {
        let location = self.entry(name).map(|(location, _)| location).or_else(|| locations(&self.document).next());
        let none = Map::new();
        let own = Location { keys: &[SERVERS], path: SERVERS, servers: &none };
        let location = location.unwrap_or(own);
        self.parse(location, name, &entry, &Notes::default())?;
        self.set(location.keys, name, Some(&entry));
        Ok(())
    }

    /// Removes a server.
    ///
    /// # Errors
    /// [`Error::UnknownServer`].
    pub fn remove_server(&mut self, name: &str) -> Result<(), Error> {
        if self.entry(name).is_none() {
            return Err(Error::UnknownServer { name: name.into(), known: self.server_names() });
        }
        // One of the same name at another place is not to come up in its place.
        while let Some((location, _)) = self.entry(name) {
            self.set(location.keys, name, None);
        }
        Ok(())
    }

    /// Sets an entry in the document and in its text, or removes it.
    fn set(&mut self, location: &[&'static str], name: &str, entry: Option<&Value>) {
        let keys: Vec<&str> = location.iter().copied().chain([name]).collect();
        let mut servers = &mut self.document;
        for key in location {
            let inner = servers.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else { return };
            servers = inner;
        }
        match entry {
            Some(entry) => drop(servers.insert(name.into(), entry.clone())),
            None => drop(servers.shift_remove(name)),
        }
        self.text = self.text.take().and_then(|text| {
            let document = Value::Object(self.document.clone());
            document::edited(&text, &keys, entry, &document).map(Into::into)
        });
    }

    /// The entry of a server, and where it is.
    fn entry(&self, name: &str) -> Option<(Location<'_>, &Value)> {
        locations(&self.document).find_map(|location| Some((location, location.entry(name)?)))
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
