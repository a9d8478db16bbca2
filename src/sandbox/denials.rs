//! What a sandboxed server was denied, and the line of its configuration that would allow it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::config::{Access, SandboxConfig};

/// Refusals that are remembered.
const KEPT: usize = 8;
/// Longest name or path of them, in bytes.
const LONGEST: usize = 256;
/// How programs say that they may not.
const REFUSALS: [&str; 8] = [
    "eacces",
    "eperm",
    "erofs",
    "permission denied",
    "not permitted",
    "read-only file system",
    "capabilities insufficient",
    "pre-opened file descriptor",
];

const MISSING: &str = "no such file";

/// Refusals of one server since they were last told.
pub(crate) struct Denials {
    mounts: Vec<(PathBuf, PathBuf, Access)>,
    /// Whether what is not mounted looks as if it were not there.
    hides: bool,
    network: Mutex<BTreeSet<String>>,
    names: Mutex<BTreeSet<String>>,
}

impl Denials {
    pub(crate) fn new(sandbox: &SandboxConfig, hides: bool) -> Self {
        let mount = |mount: &crate::config::Mount| {
            let guest = mount.guest.as_ref().map_or_else(|| mount.host.clone(), PathBuf::from);
            (mount.host.clone(), guest, mount.access)
        };
        Self {
            mounts: sandbox.mounts.iter().map(mount).collect(),
            hides,
            network: Mutex::default(),
            names: Mutex::default(),
        }
    }

    /// It was not let to `address`.
    pub(crate) fn network(&self, address: SocketAddr) {
        remember(&self.network, address.to_string());
    }

    /// It was not let know the address of `name`.
    pub(crate) fn name(&self, name: &str) {
        if is_fit(name) {
            remember(&self.names, name.into());
        }
    }

    /// What would allow that which was denied since this was last asked, or of which `said`, a server's words, speaks: an end for an
    /// error message, or nothing. Where the words name no path, it is looked for in `arguments`, those of the call.
    pub(crate) fn hint(&self, said: &str, arguments: &str) -> String {
        let take = |set: &Mutex<_>| std::mem::take(&mut *set.lock().unwrap_or_else(PoisonError::into_inner));
        let (network, names): (BTreeSet<String>, BTreeSet<String>) = (take(&self.network), take(&self.names));
        let mut lines: Vec<String> = network.iter().map(|address| format!("`\"network\": [\"{address}\"]`")).collect();
        lines.extend(names.iter().map(|name| format!("`{name}` with its port in `network`")));
        let denied = if lines.is_empty() { "seems to have denied that" } else { "denied that" };
        lines.extend(self.hint_of(said, arguments));
        if lines.is_empty() {
            return String::new();
        }
        format!("; its sandbox {denied}, and {} in the `sandbox` of its entry would allow it", lines.join(" and "))
    }

    fn hint_of(&self, said: &str, arguments: &str) -> Option<String> {
        let lower = said.to_ascii_lowercase();
        let refused = REFUSALS.iter().any(|refusal| lower.contains(refusal));
        let hidden = self.hides && lower.contains(MISSING);
        if !(refused || hidden) {
            return None;
        }
        if let Some(address) = refused.then(|| words(said).find_map(|word| word.parse::<SocketAddr>().ok())).flatten() {
            return Some(format!("`\"network\": [\"{address}\"]`"));
        }
        let path = paths(said).chain(paths(arguments)).next()?;
        let line = |host: &Path, guest: &Path, access: Access| {
            let json = |path: &Path| Value::from(path.to_string_lossy()).to_string();
            let (host, guest, access) = (json(host), json(guest), access.as_str());
            format!("`\"mounts\": [{{\"host\": {host}, \"guest\": {guest}, \"access\": \"{access}\"}}]`")
        };
        match self.mounts.iter().find(|(_, guest, _)| path.starts_with(guest)) {
            Some((host, guest, Access::ReadOnly)) if refused => Some(line(host, guest, Access::ReadWrite)),
            Some(_) => None, // the system refused it, and not the sandbox
            None => {
                let folder = path.parent().filter(|folder| folder.parent().is_some()).unwrap_or(&path);
                Some(line(folder, folder, Access::ReadOnly))
            }
        }
    }
}

fn remember(what: &Mutex<BTreeSet<String>>, denied: String) {
    let mut what = what.lock().unwrap_or_else(PoisonError::into_inner);
    if what.len() < KEPT {
        what.insert(denied);
    }
}

/// Whether what a server says may be said again as a part of an error.
fn is_fit(text: &str) -> bool {
    text.len() <= LONGEST && !text.contains(|c: char| c.is_control() || c == '`')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '(' | ')' | ',' | ';' | '<' | '>');
    text.split(separates).map(|word| word.trim_end_matches([':', '.']))
}

/// The absolute paths in a text, without those that lead upwards.
fn paths(text: &str) -> impl Iterator<Item = PathBuf> {
    words(text)
        .filter(|word| word.len() > 1 && word.starts_with('/') && !word.starts_with("//") && is_fit(word))
        .map(PathBuf::from)
        .filter(|path| !path.components().any(|part| part == Component::ParentDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_line_that_would_allow_it() {
        let sandbox = SandboxConfig::default().mount("/home/me/data", "/data", Access::ReadOnly);
        let denials = Denials::new(&sandbox, true);
        let mount = |line: &str| {
            format!(
                "; its sandbox seems to have denied that, and `\"mounts\": [{line}]` in the `sandbox` of its entry would allow it"
            )
        };
        assert_eq!(
            denials.hint("EACCES: permission denied, open '/etc/hosts'", ""),
            mount(r#"{"host": "/etc", "guest": "/etc", "access": "ro"}"#)
        );
        assert_eq!(
            denials.hint("Operation not permitted (os error 63)", r#"{"path":"/data/a.txt"}"#),
            mount(r#"{"host": "/home/me/data", "guest": "/data", "access": "rw"}"#)
        );
        assert_eq!(
            denials.hint("No such file or directory (os error 44)", "open(\"/etc/hosts\")"),
            mount(r#"{"host": "/etc", "guest": "/etc", "access": "ro"}"#)
        );
        assert_eq!(denials.hint("No such file or directory: /data/b.txt", ""), "");
        assert_eq!(denials.hint("/etc/nothing is odd", ""), "");
        assert_eq!(denials.hint("permission denied", "{}"), "");
        assert_eq!(
            denials.hint("connect EPERM 192.0.2.9:443 - Local (undefined:undefined)", ""),
            "; its sandbox seems to have denied that, and `\"network\": [\"192.0.2.9:443\"]` in the `sandbox` of its entry would allow it"
        );
        assert_eq!(denials.hint(&format!("EACCES: /{}/x", "long".repeat(100)), ""), "");
        denials.name("example.com");
        denials.name("ex`ample");
        assert_eq!(
            denials.hint("", ""),
            "; its sandbox denied that, and `example.com` with its port in `network` in the `sandbox` of its entry would allow it"
        );
        denials.network("192.0.2.1:80".parse().unwrap());
        assert_eq!(
            denials.hint("", ""),
            "; its sandbox denied that, and `\"network\": [\"192.0.2.1:80\"]` in the `sandbox` of its entry would allow it"
        );
        assert_eq!(denials.hint("", ""), "");
    }
}
