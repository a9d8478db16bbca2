//! In the place of the sandbox for native servers, where the system is not Linux: nothing is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::Bounds;
use crate::config::SandboxConfig;

pub(crate) const NATIVE_MEMORY: usize = 1 << 30;

/// Never made.
pub(crate) enum NativeSandbox {}

/// Never made.
pub(crate) enum Guard {}

/// How a server is ended where this process is gone: only where there is a guard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    pub(crate) input: Duration,
    pub(crate) terminate: Duration,
}

impl Guard {
    #[expect(clippy::unnecessary_wraps, reason = "there are systems with one")]
    pub(crate) fn watch(_command: &mut Command, _grace: Grace) -> std::io::Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn group(&mut self) -> Option<u32> {
        match *self {}
    }

    pub(crate) fn end(self) {
        match self {}
    }
}

pub(crate) fn clear_abandoned() {}

pub(crate) struct Confined {
    pub(crate) bounds: Bounds,
}

pub(crate) fn level() -> Result<String, String> {
    Err("native servers can be sandboxed on Linux only so far, and this one never runs unsandboxed: use a wasm server, or \
        say `\"sandbox\": false`"
        .into())
}

pub(crate) fn unenforceable(_level: String, _sandbox: &SandboxConfig) -> Option<String> {
    None
}

impl Confined {
    pub(crate) fn let_go(&mut self) -> bool {
        false
    }

    pub(crate) fn clear(self) {}
}

impl NativeSandbox {
    pub(crate) fn new(
        _program: &str,
        _arguments: &[String],
        _folder: Option<&Path>,
        _path: Option<String>,
        _sandbox: &SandboxConfig,
    ) -> Result<Self, String> {
        level().and_then(Err)
    }

    pub(crate) fn confine(&mut self, _command: &mut Command) -> std::io::Result<()> {
        match *self {}
    }

    pub(crate) fn started(self, _group: u32) -> Result<Confined, String> {
        match self {}
    }
}

pub(crate) fn program_files(
    _program: &str,
    _arguments: &[String],
    _folder: Option<&Path>,
    _path: Option<&str>,
    _sandbox: &SandboxConfig,
) -> Result<Vec<PathBuf>, String> {
    Ok(Vec::new())
}

pub(crate) fn explain(_error: &std::io::Error) -> Option<String> {
    None
}
