//! A server as a child process: started in a group of its own, its last words kept, and ended for good, however the session ends.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// What a program needs to start at all; the rest of this process's environment is not passed on.
const INHERITED: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "APPDATA",
    "COMPUTERNAME",
    "HOMEDRIVE",
    "HOMEPATH",
    "LOCALAPPDATA",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "PROGRAMDATA",
    "PROGRAMFILES",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERDOMAIN",
    "USERNAME",
    "USERPROFILE",
    "WINDIR",
];
/// Lines of standard error that are kept, and the length of each.
const STDERR_LINES: usize = 20;
const STDERR_BYTES: u64 = 4096;
/// How long a process may take to end after its input was closed, after SIGTERM, and after SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The children of one client that have not ended yet.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<watch::Sender<usize>>);

impl Children {
    fn count(&self) -> Counted {
        self.0.send_modify(|count| *count += 1);
        Counted(Arc::clone(&self.0))
    }

    /// Waits until the last one has ended, those included whose sessions never came about.
    pub(crate) async fn all_ended(&self) {
        let _ = timeout(GRACE * 4, self.0.subscribe().wait_for(|count| *count == 0)).await;
    }
}

struct Counted(Arc<watch::Sender<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// How to start a server, with all variables expanded.
pub(super) struct Program {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<PathBuf>,
}

/// A running child. Dropping it ends the child in the background, without waiting.
pub(super) struct Process {
    stderr: Arc<Mutex<VecDeque<String>>>,
    /// Dropped or set: the child is to end.
    close: watch::Sender<bool>,
    ended: watch::Receiver<Option<String>>,
}

impl Process {
    pub(super) fn start(
        program: &Program,
        variables: &dyn Fn(&str) -> Option<String>,
        children: &Children,
    ) -> Result<(Self, ChildStdout, ChildStdin), String> {
        let mut command = Command::new(&program.command);
        command
            .args(&program.args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, variables(name)?))))
            .envs(&program.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(cwd) = &program.cwd {
            command.current_dir(cwd);
        }
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| start_error(program, &error))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(format!("`{}` was started without pipes", program.command));
        };
        let group = Group::of(&child);
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let (close, closing) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let reading = tokio::spawn(keep_last_lines(stderr, Arc::clone(&last_lines)));
        let counted = children.count();
        tokio::spawn(async move {
            let _counted = counted;
            let status = supervise(child, &group, closing).await;
            drop(group); // what the child started and left behind
            // What it wrote last is still in the pipe; a grandchild that keeps the pipe open must not hold us up.
            let _ = timeout(Duration::from_millis(200), reading).await;
            end.send_replace(Some(status));
        });
        Ok((Self { stderr: last_lines, close, ended }, stdout, stdin))
    }

    /// Waits until the child has ended by itself, or `bound` is over: how it ended.
    pub(super) async fn ended_within(&self, bound: Duration) -> Option<String> {
        let mut ended = self.ended.clone();
        timeout(bound, ended.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// Ends the child: its input is closed by now; then SIGTERM, then SIGKILL, two seconds after each other.
    pub(super) async fn close(&self) {
        self.close.send_replace(true);
        self.ended_within(GRACE * 4).await;
    }

    /// The last lines that it wrote to its standard error.
    pub(super) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn start_error(program: &Program, error: &std::io::Error) -> String {
    let command = &program.command;
    match (error.kind(), &program.cwd) {
        (std::io::ErrorKind::NotFound, Some(cwd)) if !cwd.is_dir() => {
            format!("can't start `{command}`: its folder `{}` does not exist", cwd.display())
        }
        (std::io::ErrorKind::NotFound, _) => {
            format!("can't start `{command}`: there is no such program; is it installed, and on the PATH?")
        }
        _ => format!("can't start `{command}`: {error}"),
    }
}

async fn supervise(mut child: Child, group: &Group, mut closing: watch::Receiver<bool>) -> String {
    tokio::select! {
        status = child.wait() => return describe(status),
        _ = closing.wait_for(|close| *close) => {}
    }
    for signal in [Signal::None, Signal::Terminate, Signal::Kill] {
        match signal {
            Signal::None => {}
            Signal::Terminate => group.terminate(),
            Signal::Kill => {
                group.kill();
                let _ = child.start_kill();
            }
        }
        if let Ok(status) = timeout(GRACE, child.wait()).await {
            return describe(status);
        }
    }
    "it does not end".into()
}

enum Signal {
    None,
    Terminate,
    Kill,
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("its process ended ({status})"),
        Err(error) => format!("its process ended ({error})"),
    }
}

async fn keep_last_lines(stderr: ChildStderr, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // A line longer than the bound is kept in pieces.
    while let Ok(1..) = (&mut reader).take(STDERR_BYTES).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_string();
        line.clear();
        if text.is_empty() {
            continue;
        }
        tracing::debug!(target: "rhaiway::server_stderr", "{text}");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

/// The process group of a child. Dropping it kills what is left of the group, so that not even the end of the runtime leaves anything.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(leader) = self.leader {
            // There may be nobody left to receive it.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }

    fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_child: &Child) -> Self {
        Self {}
    }

    fn terminate(&self) {}

    fn kill(&self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
