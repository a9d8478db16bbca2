//! A server's entry with its strings expanded: what is started, with what, and what it runs in. Every fault names the entry's path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::SessionSettings;
use super::process::Program;
use crate::config::{Expansion, SandboxConfig, Sandboxing, ServerConfig, Surroundings, Transport, read_env_file};
use crate::error::Error;
use crate::sandbox::is_wasm;

/// A server's entry while its strings are expanded.
pub(super) struct ConfigPlace<'a> {
    pub(super) server: &'a str,
    pub(super) variables: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
    /// Where the entry is, as a path.
    path: String,
    surroundings: Cow<'a, Surroundings>,
    answers: BTreeMap<String, String>,
}

impl<'a> ConfigPlace<'a> {
    pub(super) fn new(server: &'a str, entry: Option<&'a ServerConfig>, settings: &'a SessionSettings) -> Self {
        let path = entry.map_or_else(|| format!("mcpServers.{server}"), |entry| entry.path.clone());
        let surroundings = entry.map_or_else(Cow::default, |entry| Cow::Borrowed(&entry.surroundings));
        Self { server, variables: &*settings.variables, path, surroundings, answers: settings.inputs.answers() }
    }

    pub(super) fn wrong(&self, key: &str, message: impl Into<String>) -> Error {
        Error::Config { path: format!("{}.{key}", self.path), message: message.into() }
    }

    fn expansion(&self) -> Expansion<'_> {
        Expansion { variables: self.variables, surroundings: &self.surroundings, answers: &self.answers }
    }

    pub(super) fn expand(&self, key: &str, text: &str) -> Result<String, Error> {
        self.expansion().expand(text).map_err(|message| self.wrong(key, message))
    }

    /// A path, from the configuration's folder where it is relative.
    pub(super) fn path(&self, key: &str, path: &Path) -> Result<PathBuf, Error> {
        self.expansion().path(&path.to_string_lossy()).map_err(|message| self.wrong(key, message))
    }
}

/// What a server that is started here runs in, with all strings expanded.
pub(super) enum Isolation {
    None,
    Wasm(SandboxConfig),
    Native(SandboxConfig),
}

impl ConfigPlace<'_> {
    /// The program of a server that is started here.
    pub(super) fn program(&self, entry: &ServerConfig) -> Option<Result<Program, Error>> {
        let Transport::Stdio { command, args, env, env_file, cwd, inherit_env, .. } = &entry.transport else {
            return None;
        };
        let program = || {
            let read = |file: &PathBuf| {
                let path = self.path("envFile", file)?;
                read_env_file(&path, &file.to_string_lossy()).map_err(|message| self.wrong("envFile", message))
            };
            // The entry's own go before those of the file.
            let mut variables = env_file.as_ref().map(read).transpose()?.unwrap_or_default();
            for (name, value) in env {
                variables.insert(name.clone(), self.expand(&format!("env.{name}"), value)?);
            }
            Ok(Program {
                command: self.expansion().program(command).map_err(|message| self.wrong("command", message))?,
                written: command.into(),
                args: args.iter().map(|arg| self.expand("args", arg)).collect::<Result<_, _>>()?,
                env: variables,
                cwd: cwd.as_ref().map(|cwd| self.path("cwd", cwd)).transpose()?,
                written_cwd: cwd.as_ref().map(|cwd| cwd.display().to_string()).unwrap_or_default(),
                inherit: inherit_env.clone(),
                stop_timeout: entry.stop_timeout,
            })
        };
        Some(program())
    }

    /// The entry's own setting wins over that of the client.
    pub(super) fn isolation(
        &self,
        program: &Program,
        own: Option<&Sandboxing>,
        default: Option<&SandboxConfig>,
    ) -> Result<Isolation, Error> {
        let names_wasm = Path::new(&program.command).extension().is_some_and(|end| end.eq_ignore_ascii_case("wasm"));
        let sandbox = match (own, default) {
            (Some(Sandboxing::Off), _) if names_wasm => {
                let message = "a wasm server always runs in a sandbox: remove the key, or say what it is granted";
                return Err(self.wrong("sandbox", message));
            }
            (Some(Sandboxing::On(sandbox)), _) => (**sandbox).clone(),
            (None, Some(sandbox)) => sandbox.clone(),
            (None, None) if names_wasm => SandboxConfig::default(),
            (Some(Sandboxing::Off), _) | (None, None) => return Ok(Isolation::None),
        };
        if !program.inherit.is_empty() {
            let message = "a sandboxed server gets no other variables than those in `sandbox.env`: name them there";
            return Err(self.wrong("inherit_env", message));
        }
        let sandbox = if own.is_some() {
            self.granted_with(sandbox, &program.env, |key, host| self.path(key, host))?
        } else {
            self.granted(sandbox, &program.env)?
        };
        if names_wasm || is_wasm(&program.path()) {
            Ok(Isolation::Wasm(sandbox))
        } else {
            Ok(Isolation::Native(sandbox))
        }
    }

    /// A sandbox that is no entry's own, with all strings expanded, and the variables `own`.
    pub(super) fn granted(
        &self,
        sandbox: SandboxConfig,
        own: &BTreeMap<String, String>,
    ) -> Result<SandboxConfig, Error> {
        self.granted_with(sandbox, own, |key, host| Ok(self.expand(key, &host.to_string_lossy())?.into()))
    }

    /// The same, with the folders that `folder` makes of what is written under a key.
    fn granted_with(
        &self,
        mut sandbox: SandboxConfig,
        own: &BTreeMap<String, String>,
        folder: impl Fn(&str, &Path) -> Result<PathBuf, Error>,
    ) -> Result<SandboxConfig, Error> {
        for (index, mount) in sandbox.mounts.iter_mut().enumerate() {
            mount.host = folder(&format!("sandbox.mounts[{index}].host"), &mount.host)?;
        }
        let value = |(name, value): (String, Option<String>)| {
            let value = match value {
                Some(value) => Some(self.expand(&format!("sandbox.env.{name}"), &value)?),
                None => (self.variables)(&name),
            };
            Ok((name, value))
        };
        let granted =
            std::mem::take(&mut sandbox.env).into_iter().map(value).collect::<Result<BTreeMap<_, _>, Error>>()?;
        sandbox.env = own.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).chain(granted).collect();
        sandbox.checked().map_err(|(key, message)| self.wrong(&format!("sandbox.{key}"), message))
    }
}
