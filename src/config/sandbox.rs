//! What a sandboxed server is granted: the key `sandbox` of its entry.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::entry::Entry;
use super::{fault, kind};
use crate::error::Error;

const SANDBOX: &str = "sandbox";
const KEYS: [&str; 8] =
    ["mounts", "env", "network", "memory_mb", "cpu_seconds", "wall_seconds", "max_output_mb", "instance"];
const MOUNT_KEYS: [&str; 3] = ["host", "guest", "access"];
/// More is no sandbox any more.
const MAX_MEMORY_MB: f64 = 4096.0;
const MIB: f64 = (1 << 20) as f64;
#[cfg(target_pointer_width = "64")]
const MAX_MEMORY: usize = 4 << 30;
#[cfg(not(target_pointer_width = "64"))]
const MAX_MEMORY: usize = usize::MAX;

/// What a sandboxed server may touch and use: nothing but what stands here. The default grants no file, no variable and no address.
///
/// ```
/// use rhaiway::{Access, SandboxConfig};
/// let mut sandbox = SandboxConfig::default().mount("./data", "/data", Access::ReadOnly).network("127.0.0.1:8080")?;
/// sandbox.memory = Some(128 << 20);
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SandboxConfig {
    /// Folders (`mounts`). Host paths may hold `${VAR}`; relative ones start where this process runs.
    pub mounts: Vec<Mount>,
    /// Variables (`env`, an object of values, or an array of names). `None` passes on the client's own, if it is set. Values may hold `${VAR}`.
    pub env: BTreeMap<String, Option<String>>,
    /// Hosts and TCP ports that may be connected to (`network`), such as `127.0.0.1:8080`, `[::1]:80` or `api.example.com:443`. Names are
    /// resolved on the host. Nothing can listen, and there is no UDP.
    pub network: Vec<Endpoint>,
    /// Memory in bytes (`memory_mb`, MiB); 64 MiB of a wasm server where it is not set, at most 4 GiB, and 1 GiB of a native one.
    pub memory: Option<usize>,
    /// Computing for one request (`cpu_seconds`); 5 s.
    pub cpu_time: Duration,
    /// From a request to its answer (`wall_seconds`); 60 s.
    pub wall_time: Duration,
    /// What it writes for one request, to its standard output and error, or as the answer of a typed function (`max_output_mb`, MiB); 16 MiB.
    pub max_output: usize,
    /// How long an instance of a component with typed functions lives (`instance`: `call` or `session`); a call.
    pub instance: Lifetime,
}

/// A folder of the host that a sandboxed server sees.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Mount {
    /// The folder (`host`).
    pub host: PathBuf,
    /// Where a wasm server sees it (`guest`); under its own path where it is not set, and always for a native server.
    pub guest: Option<String>,
    /// What may be done in it (`access`: `ro` or `rw`); reading.
    pub access: Access,
}

/// What may be done in a mounted folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Access {
    /// Reading (`ro`).
    #[default]
    ReadOnly,
    /// Reading, writing, making and removing (`rw`).
    ReadWrite,
}

impl Access {
    /// As the configuration has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        }
    }
}

/// A host and a TCP port.
///
/// ```
/// let endpoint: rhaiway::Endpoint = "[::1]:8080".parse()?;
/// assert_eq!((&*endpoint.host, endpoint.port), ("::1", 8080));
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = Error;

    /// [`Error::Config`] for what is no host and port.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|message| fault("network", message))
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected a host and a port, such as `127.0.0.1:8080` or `api.example.com:443`, found `{text}`");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_number = port.starts_with(|digit: char| matches!(digit, '1'..='9'));
        let port = port.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address = match bracketed {
            Some(host) => Some(IpAddr::V6(host.parse().map_err(|_| wrong())?)),
            None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        if let Some(address) = address {
            let is_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            if address.is_unspecified() || address.is_multicast() || is_local {
                return Err(format!("`{text}` is the address of no host that could be connected to"));
            }
            return Ok(Self { host: address.to_string(), port });
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let is_label = |label: &str| !label.is_empty() && label.chars().all(is_letter);
        // What ends with a number is an address, and none that is written out.
        let is_address = name.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()));
        if !name.split('.').all(is_label) || is_address {
            return Err(wrong());
        }
        Ok(Self { host: name, port })
    }
}

/// How long an instance of a typed component lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Lifetime {
    /// Each call has a fresh one (`call`).
    #[default]
    Call,
    /// All calls of a session have the same (`session`); after one that failed there is a fresh one.
    Session,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            mounts: Vec::new(),
            env: BTreeMap::new(),
            network: Vec::new(),
            memory: None,
            cpu_time: Duration::from_secs(5),
            wall_time: Duration::from_mins(1),
            max_output: 16 << 20,
            instance: Lifetime::default(),
        }
    }
}

impl SandboxConfig {
    /// Grants a folder.
    #[must_use]
    pub fn mount(mut self, host: impl Into<PathBuf>, guest: impl Into<String>, access: Access) -> Self {
        self.mounts.push(Mount { host: host.into(), guest: Some(guest.into()), access });
        self
    }

    /// Grants a folder where it is on the host, as native servers see all of theirs.
    #[must_use]
    pub fn mount_in_place(mut self, host: impl Into<PathBuf>, access: Access) -> Self {
        self.mounts.push(Mount { host: host.into(), guest: None, access });
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), Some(value.into()));
        self
    }

    /// Passes a variable of the client on, if it is set.
    #[must_use]
    pub fn pass_env(mut self, name: impl Into<String>) -> Self {
        self.env.insert(name.into(), None);
        self
    }

    /// Lets it connect to a host and port, such as `127.0.0.1:8080`.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no host and port.
    pub fn network(mut self, endpoint: &str) -> Result<Self, Error> {
        self.network.push(endpoint.parse()?);
        Ok(self)
    }
}

impl SandboxConfig {
    /// The same where everything in it can be granted; else the key that is wrong, and why.
    pub(crate) fn checked(mut self) -> Result<Self, (String, String)> {
        let mut guests = Vec::new();
        for (index, mount) in self.mounts.iter_mut().enumerate() {
            let wrong = |message: String| (format!("mounts[{index}].guest"), message);
            let Some(guest) = &mut mount.guest else { continue };
            *guest = guest_path(guest).map_err(wrong)?;
            if guests.contains(guest) {
                return Err(wrong(format!("there is another mount at `{guest}`")));
            }
            guests.push(guest.clone());
        }
        for (name, value) in &self.env {
            if !is_variable(name) {
                return Err(("env".into(), format!("`{}` can't be the name of a variable", name.escape_debug())));
            }
            if value.as_ref().is_some_and(|value| value.contains('\0')) {
                return Err((format!("env.{name}"), "there is a NUL in it".into()));
            }
        }
        self.memory = self.memory.map(|memory| memory.min(MAX_MEMORY));
        Ok(self)
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// As it is compared: absolute, and without what means nothing.
fn guest_path(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if !text.starts_with('/') || text.contains('\0') || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(format!(
            "expected an absolute path such as `/data`, without `..`, found `{}`",
            text.escape_debug()
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// What an entry says of its sandbox.
pub(super) fn parse(entry: &Entry) -> Result<Option<super::Sandboxing>, Error> {
    let fields = match entry.get(SANDBOX).map(|(_, found)| found) {
        None => return Ok(None),
        Some(Value::Bool(false)) => return Ok(Some(super::Sandboxing::Off)),
        Some(Value::Bool(true)) => return Ok(Some(super::Sandboxing::On(Box::default()))),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(entry.wrong(SANDBOX, "`true`, `false` or an object", other)),
    };
    // Its own notes, as its keys are not those of the entry.
    let notes = super::Notes::default();
    let entry = Entry { place: entry.path(SANDBOX), fields, notes: &notes };
    entry.only(&KEYS)?;
    let default = SandboxConfig::default();
    let size = |key, max| -> Result<Option<usize>, Error> {
        let Some(found) = fields.get(key).filter(|found| !found.is_null()) else { return Ok(None) };
        let size = found.as_f64().filter(|size| *size > 0.0 && *size <= max);
        let size =
            size.ok_or_else(|| entry.wrong(key, &format!("a number of MiB, over 0 and at most {max}"), found))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
        Ok(Some((size * MIB) as usize))
    };
    Ok(Some(super::Sandboxing::On(Box::new(SandboxConfig {
        mounts: mounts(&entry)?,
        env: variables(&entry)?,
        network: network(&entry)?,
        memory: size("memory_mb", MAX_MEMORY_MB)?,
        cpu_time: entry.seconds("cpu_seconds")?.unwrap_or(default.cpu_time),
        wall_time: entry.seconds("wall_seconds")?.unwrap_or(default.wall_time),
        max_output: size("max_output_mb", MAX_MEMORY_MB)?.unwrap_or(default.max_output),
        instance: match entry.one_of("instance", &["call", "session"])?.as_deref() {
            Some("session") => Lifetime::Session,
            _ => Lifetime::Call,
        },
    }))))
}

fn mounts(entry: &Entry) -> Result<Vec<Mount>, Error> {
    let items = match entry.fields.get("mounts") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(entry.wrong("mounts", "an array of folders", other)),
    };
    let mount = |(index, item): (usize, &Value)| {
        let key = format!("mounts[{index}]");
        let example = "an object such as `{\"host\": \"./data\", \"guest\": \"/data\", \"access\": \"ro\"}`";
        let Value::Object(fields) = item else { return Err(entry.wrong(&key, example, item)) };
        let entry = entry.inner(&key, fields);
        entry.only(&MOUNT_KEYS)?;
        let access = match entry.one_of("access", &["ro", "rw"])?.as_deref() {
            Some("rw") => Access::ReadWrite,
            _ => Access::ReadOnly,
        };
        let guest = entry.text("guest")?;
        let guest =
            guest.map(|guest| guest_path(&guest).map_err(|message| fault(&format!("{}.guest", entry.place), message)));
        let guest = guest.transpose()?;
        Ok(Mount { host: entry.required_text("host")?.into(), guest, access })
    };
    items.iter().enumerate().map(mount).collect()
}

fn variables(entry: &Entry) -> Result<BTreeMap<String, Option<String>>, Error> {
    let variables: BTreeMap<_, _> = match entry.fields.get("env") {
        Some(Value::Array(_)) => entry.texts("env")?.into_iter().map(|name| (name, None)).collect(),
        _ => entry.text_map("env")?.into_iter().map(|(name, value)| (name, Some(value))).collect(),
    };
    match variables.keys().find(|name| !is_variable(name)) {
        Some(name) => {
            let message = format!(
                "expected names of variables, or an object of names and values, found `{}`",
                name.escape_debug()
            );
            Err(fault(&format!("{}.env", entry.place), message))
        }
        None => Ok(variables),
    }
}

fn network(entry: &Entry) -> Result<Vec<Endpoint>, Error> {
    let endpoint = |(index, text): (usize, String)| {
        Endpoint::parse(&text).map_err(|message| fault(&format!("{}.network[{index}]", entry.place), message))
    };
    entry.texts("network")?.into_iter().enumerate().map(endpoint).collect()
}

impl Entry<'_> {
    /// A key that is none must not look as if it granted or refused something.
    fn only(&self, known: &[&str]) -> Result<(), Error> {
        let fields: &Map<String, Value> = self.fields;
        let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let message = format!("there is no such key; there are `{}`", known.join("`, `"));
        Err(self.fault(unknown, message))
    }

    /// Refuses `sandbox` where the server runs elsewhere.
    pub(super) fn no_sandbox(&self) -> Result<(), Error> {
        match self.find(SANDBOX).map(|(_, found)| found) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(found) => {
                let message = format!(
                    "only a server that is started here (`command`) can be sandboxed, and this one is reached by an address: remove the key (found {})",
                    kind(found)
                );
                Err(self.fault(SANDBOX, message))
            }
        }
    }
}
