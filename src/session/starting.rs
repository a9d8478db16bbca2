//! Starting the servers that run here: a few at a time in this process, so that each has a processor for its start; and what is said of one
//! that ran out of time while it may have been downloading.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::process::Program;

/// Servers that start at the same time at least; else twice as many as there are processors.
const PLACES: usize = 4;
/// How long a start keeps its place at most, so that silent servers do not hold up the others.
const HELD: Duration = Duration::from_secs(5);

/// For all clients of this process, as its processors are.
static FREE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new(PLACES.max(2 * processors)))
});

/// A place among the servers that start. It is free again when this is dropped, or after a while.
pub(super) struct Place {
    _taken: oneshot::Sender<()>,
}

impl Place {
    /// Waits for its turn.
    pub(super) async fn take() -> Option<Self> {
        // It is never closed.
        let place = Arc::clone(&FREE).acquire_owned().await.ok()?;
        let (taken, free) = oneshot::channel();
        tokio::spawn(hold(place, free));
        Some(Self { _taken: taken })
    }
}

/// Says that a server waits for its turn, until it is dropped.
pub(super) struct InLine<'a>(&'a AtomicBool);

impl<'a> InLine<'a> {
    pub(super) fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn hold(_place: OwnedSemaphorePermit, free: oneshot::Receiver<()>) {
    let _ = tokio::time::timeout(HELD, free).await;
}

/// What downloads the program that it starts: its name, and its first argument where only some do. Containers too.
const DOWNLOADERS: [(&str, &[&str]); 13] = [
    ("npx", &[]),
    ("pnpx", &[]),
    ("bunx", &[]),
    ("uvx", &[]),
    ("npm", &["exec", "x"]),
    ("pnpm", &["dlx"]),
    ("yarn", &["dlx"]),
    ("bun", &["x"]),
    ("uv", &["tool", "run"]),
    ("pipx", &["run"]),
    ("docker", &["run"]),
    ("podman", &["run"]),
    ("nerdctl", &["run"]),
];

/// The program's name, if it is one that may download another for the first start.
pub(super) fn downloader(program: &Program) -> Option<String> {
    let mut words = std::iter::once(program.file_name()).chain(program.args.iter().cloned());
    let mut name = words.next()?;
    // As it has to be on Windows.
    if name == "cmd" {
        name = file_name(&words.find(|word| !word.starts_with('/'))?);
    }
    let (known, first) = DOWNLOADERS.iter().find(|(known, _)| *known == name)?;
    let fits =
        first.is_empty() || words.find(|word| !word.starts_with('-')).is_some_and(|word| first.contains(&&*word));
    fits.then(|| (*known).into())
}

/// The name of a program's file, without what marks it as one.
pub(super) fn file_name(program: &str) -> String {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let end = [".exe", ".cmd", ".bat"].into_iter().find_map(|end| name.strip_suffix(end));
    end.map_or(name.clone(), String::from)
}

/// What is added to the error of one that ran out of time.
pub(super) fn may_be_downloading(downloader: &str, bound: Duration) -> String {
    let seconds = bound.as_secs_f64();
    format!(
        "; `{downloader}` may still have been downloading: run the command once by hand, or give it more time with the entry's \
         `connect_timeout` (now {seconds} s)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_download() {
        for (command, args, expected) in [
            ("npx", "-y some-server", Some("npx")),
            ("/usr/local/bin/uvx", "some-server", Some("uvx")),
            ("NPX.CMD", "some-server", Some("npx")),
            ("cmd", "/c npx -y some-server", Some("npx")),
            ("cmd.exe", "/d /s /c C:/node/npx.cmd some-server", Some("npx")),
            ("pipx", "run some-server", Some("pipx")),
            ("pipx", "list", None),
            ("pnpm", "--silent dlx some-server", Some("pnpm")),
            ("uv", "tool run some-server", Some("uv")),
            ("uv", "--directory x", None),
            ("docker", "run -i --rm image", Some("docker")),
            ("docker", "exec -i container server", None),
            ("node", "npx", None),
            ("cmd", "/c", None),
            ("", "", None),
        ] {
            let program = Program {
                command: command.into(),
                written: command.into(),
                args: args.split_whitespace().map(String::from).collect(),
                env: std::collections::BTreeMap::new(),
                cwd: None,
                written_cwd: String::new(),
                inherit: Vec::new(),
                stop_timeout: None,
            };
            assert_eq!(downloader(&program).as_deref(), expected, "{command} {args}");
        }
    }
}
