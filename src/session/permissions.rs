//! What each server may do: for people who want to know before it runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::environment::inherited;
use super::process::Program;
use super::{ConfigPlace, Isolation, SessionSettings, Source};
use crate::config::{SandboxConfig, Transport};
use crate::error::Error;
use crate::sandbox::{
    MEMORY, NATIVE_MEMORY, WasmKind, check_mounts, kind_of_file, mib, native_level, program_files, unenforceable,
};

/// What one server may do. Made by [`Client::permissions`](crate::Client::permissions), which starts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Permissions {
    /// The server.
    pub server: String,
    /// What keeps it from doing more: `wasm module`, `wasm component`, `wasm` (in memory), `native: Landlock, seccomp, namespaces`, `none`,
    /// `remote`, `in this process`; or `does not start`.
    pub isolation: String,
    /// Folders and files with `ro` or `rw`.
    pub files: Vec<String>,
    /// Addresses that it can connect to.
    pub network: Vec<String>,
    /// Names of the variables that it sees.
    pub environment: Vec<String>,
    /// Limits, as in the configuration, with their units.
    pub limits: Vec<String>,
    /// Which of its tools can be called, with the key that says so: `not delete_all (excludeTools)`. All where this is empty.
    pub tools: Vec<String>,
    /// Why it can't start as it is configured.
    pub problem: Option<String>,
}

const ALL: &str = "all that you can";

/// Without starting anything.
pub(crate) fn permissions(name: &str, source: Result<&Source, Error>, settings: &SessionSettings) -> Permissions {
    let entry = source.as_ref().ok().and_then(|source| source.entry());
    let bare = |isolation: &str| Permissions {
        server: name.into(),
        isolation: isolation.into(),
        files: Vec::new(),
        network: Vec::new(),
        environment: Vec::new(),
        limits: Vec::new(),
        tools: entry.map(|entry| entry.tools.summary()).unwrap_or_default(),
        problem: None,
    };
    let place = ConfigPlace::new(name, entry, settings);
    let source = match source {
        Ok(source) => source,
        Err(error) => return Permissions { problem: Some(error.to_string()), ..bare("does not start") },
    };
    let entry = match source {
        Source::InProcess(_) => return bare("in this process"),
        Source::Wasm(embedded) => {
            return match place.granted(embedded.sandbox.clone(), &BTreeMap::new()) {
                Ok(sandbox) => of_wasm(bare("wasm"), &sandbox, None),
                Err(error) => Permissions { problem: Some(error.to_string()), ..bare("does not start") },
            };
        }
        Source::Entry(entry) => entry,
    };
    let (Transport::Stdio { sandbox, inherit_env, .. }, Some(program)) = (&entry.transport, place.program(entry))
    else {
        return bare("remote");
    };
    let isolation = program
        .and_then(|program| Ok((place.isolation(&program, sandbox.as_ref(), settings.sandbox.as_ref())?, program)));
    match isolation {
        Err(error) => Permissions { problem: Some(error.to_string()), ..bare("does not start") },
        Ok((Isolation::None, program)) => {
            let inherited = inherited(inherit_env, &*settings.variables).map(|(name, _)| name);
            let inherited = inherited.filter(|name| !program.env.contains_key(name));
            Permissions {
                files: vec![ALL.into()],
                network: vec![ALL.into()],
                environment: inherited.chain(program.env.keys().cloned()).collect(),
                ..bare("none")
            }
        }
        Ok((Isolation::Wasm(sandbox), program)) => {
            let path = program.path();
            let (kind, problem) = match kind_of_file(&path) {
                Ok(WasmKind::Component) => ("wasm component", None),
                Ok(WasmKind::Module) => ("wasm module", None),
                Err(problem) => ("does not start", Some(problem)),
            };
            of_wasm(bare(kind), &sandbox, problem)
        }
        Ok((Isolation::Native(sandbox), program)) => of_native(bare(""), &sandbox, &program, &place),
    }
}

fn of_wasm(permissions: Permissions, sandbox: &SandboxConfig, problem: Option<String>) -> Permissions {
    let problem = problem.or_else(|| check_mounts(sandbox).err());
    Permissions { problem, ..of_sandbox(permissions, sandbox, MEMORY) }
}

fn of_native(
    permissions: Permissions,
    sandbox: &SandboxConfig,
    program: &Program,
    place: &ConfigPlace<'_>,
) -> Permissions {
    let path = program.search_path(place.variables);
    let mut permissions = of_sandbox(permissions, sandbox, NATIVE_MEMORY);
    match native_level() {
        Ok(level) => {
            permissions.isolation = format!("native: {level}");
            permissions.problem = unenforceable(level, sandbox);
        }
        Err(message) => {
            permissions.isolation = "does not start".into();
            permissions.problem = Some(message);
        }
    }
    match program_files(&program.command, &program.args, program.cwd.as_deref(), path.as_deref(), sandbox) {
        Ok(files) => permissions.files.extend(files.iter().map(|file| format!("{} ro", file.display()))),
        Err(problem) => permissions.problem = permissions.problem.or(Some(problem)),
    }
    permissions.files.extend(["the system's programs and libraries ro".into(), "a temporary folder rw".into()]);
    for name in ["HOME", "PATH", "TMPDIR"] {
        if !permissions.environment.iter().any(|known| known == name) {
            permissions.environment.push(name.into());
        }
    }
    permissions
}

fn of_sandbox(permissions: Permissions, sandbox: &SandboxConfig, memory: usize) -> Permissions {
    let mount = |mount: &crate::config::Mount| {
        let (host, access) = (mount.host.display(), mount.access.as_str());
        match mount.guest.as_ref().filter(|guest| Path::new(guest) != mount.host) {
            Some(guest) => format!("{host} {access} as {guest}"),
            None => format!("{host} {access}"),
        }
    };
    let set = sandbox.env.iter().filter(|(_, value)| value.is_some());
    Permissions {
        files: sandbox.mounts.iter().map(mount).collect(),
        network: sandbox.network.iter().map(ToString::to_string).collect(),
        environment: set.map(|(name, _)| name.clone()).collect(),
        limits: vec![
            format!("memory_mb {}", mib(sandbox.memory.unwrap_or(memory))),
            format!("cpu_seconds {}", sandbox.cpu_time.as_secs_f64()),
            format!("wall_seconds {}", sandbox.wall_time.as_secs_f64()),
            format!("max_output_mb {}", mib(sandbox.max_output)),
        ],
        ..permissions
    }
}
