//! A server that was started here: a child process in a group of its own, or a wasm instance in this process. Its last words are kept, and
//! it is ended for good, however the session ends.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::environment::inherited;
use super::starting::file_name;
use crate::config::SandboxConfig;
use crate::sandbox::{
    Bounds, Ended, Grace, Guard, Limit, Meter, MeteredOutput, NativeSandbox, Running, clear_abandoned, explain_native,
};
use crate::tool::BoxFuture;

/// Lines of standard error that are kept, and the length of each.
const STDERR_LINES: usize = 20;
const STDERR_BYTES: u64 = 4096;
/// How long a process may take to end after its input was closed, after SIGTERM, and after SIGKILL, where nothing else was said.
const GRACE: Duration = Duration::from_secs(2);
/// What starts containers has to stop them, after SIGTERM and not before: the time before and after that, where nothing else was said.
const CONTAINERS: [&str; 3] = ["docker", "podman", "nerdctl"];
const CONTAINER_GRACE: Grace = Grace { input: Duration::from_secs(1), terminate: Duration::from_secs(10) };

/// How long the end of a process may take at most.
fn longest(grace: Grace) -> Duration {
    grace.input.saturating_add(grace.terminate).saturating_add(GRACE * 2)
}

/// The children of one client that have not ended yet.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<watch::Sender<Living>>);

#[derive(Default)]
struct Living {
    count: usize,
    /// How long the end of the slowest may take, until there are none.
    longest: Duration,
}

impl Children {
    /// One that is ended like others.
    pub(super) fn count(&self) -> Counted {
        self.count_for(Grace { input: GRACE, terminate: GRACE })
    }

    fn count_for(&self, grace: Grace) -> Counted {
        self.0.send_modify(|living| {
            living.count += 1;
            living.longest = living.longest.max(longest(grace));
        });
        Counted(Arc::clone(&self.0))
    }

    /// Waits until the last one has ended, those included whose sessions never came about.
    pub(crate) async fn all_ended(&self) {
        let bound = self.0.borrow().longest;
        let _ = timeout(bound, self.0.subscribe().wait_for(|living| living.count == 0)).await;
    }
}

/// One of them, until it is dropped.
pub(super) struct Counted(Arc<watch::Sender<Living>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|living| {
            living.count -= 1;
            if living.count == 0 {
                living.longest = Duration::ZERO;
            }
        });
    }
}

/// How to start a server, with all variables expanded.
pub(super) struct Program {
    pub(super) command: String,
    /// The command as the configuration has it, which holds no secret of a variable.
    pub(super) written: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<PathBuf>,
    /// As it is written in the entry, for messages.
    pub(super) written_cwd: String,
    /// Names of variables that it gets beside those that all get.
    pub(super) inherit: Vec<String>,
    /// How long it may take to end, if its entry says so.
    pub(super) stop_timeout: Option<Duration>,
}

impl Program {
    /// The name of its file, without what marks it as a program.
    pub(super) fn file_name(&self) -> String {
        file_name(&self.command)
    }

    fn grace(&self) -> Grace {
        match self.stop_timeout {
            Some(time) => Grace { input: time, terminate: time },
            None if CONTAINERS.contains(&&*self.file_name()) => CONTAINER_GRACE,
            None => Grace { input: GRACE, terminate: GRACE },
        }
    }

    /// Where its file is, if it is not looked up on the `PATH`.
    pub(super) fn path(&self) -> PathBuf {
        self.cwd.as_ref().map_or_else(|| PathBuf::from(&self.command), |cwd| cwd.join(&self.command))
    }

    /// Where a sandboxed program is looked up: its own `PATH`, or the client's.
    pub(super) fn search_path(&self, variables: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        self.env.get("PATH").cloned().or_else(|| variables("PATH"))
    }

    /// The command, without its variables.
    fn piped(&self) -> Command {
        let mut command = Command::new(&self.command);
        command
            .args(&self.args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        #[cfg(unix)]
        command.process_group(0);
        command
    }

    fn native_sandbox(
        &self,
        variables: &dyn Fn(&str) -> Option<String>,
        sandbox: &SandboxConfig,
    ) -> Result<NativeSandbox, String> {
        let path = self.search_path(variables);
        NativeSandbox::new(&self.command, &self.args, self.cwd.as_deref(), path, sandbox)
            .map_err(|message| format!("can't start `{}`: {message}", self.written))
    }
}

/// A server that runs. Dropping it ends it in the background, without waiting.
pub(super) struct Process {
    stderr: Arc<Mutex<VecDeque<String>>>,
    /// Dropped or set: it is to end.
    close: watch::Sender<Close>,
    ended: watch::Receiver<Option<Ended>>,
    /// Of a sandboxed server.
    bounds: Option<Bounds>,
    grace: Grace,
}

/// Whether a server is to end, and how.
#[derive(Clone, Copy, PartialEq)]
enum Close {
    No,
    /// It is given time.
    Gently,
    /// It hit a limit.
    AtOnce(Limit),
}

/// What a server writes and what it reads.
pub(super) type Pipes = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

impl Process {
    /// A child process, in a sandbox where there is one.
    pub(super) fn start(
        program: &Program,
        sandbox: Option<&SandboxConfig>,
        variables: &dyn Fn(&str) -> Option<String>,
        children: &Children,
    ) -> Result<(Self, Pipes), String> {
        let mut command = program.piped();
        let (grace, command_name) = (program.grace(), &program.written);
        let no_pipe = |error| format!("can't start `{command_name}`: no pipe for it: {error}");
        let mut native = sandbox.map(|sandbox| program.native_sandbox(variables, sandbox)).transpose()?;
        let mut guard = None;
        if let Some(native) = &mut native {
            tokio::task::spawn_blocking(clear_abandoned);
            native.confine(&mut command).map_err(no_pipe)?;
        } else {
            command.envs(inherited(&program.inherit, variables)).envs(&program.env);
            guard = Guard::watch(&mut command, grace).map_err(no_pipe)?;
        }
        let mut child = command.spawn().map_err(|error| start_error(program, &error))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(format!("`{}` was started without pipes", program.written));
        };
        let Some(native) = native else {
            let group = guard.as_mut().map_or_else(|| Group::of(child.id()), |guard| Group::of(guard.group()));
            let process = Self::supervised(stderr, children, grace, |closing| async move {
                let let_go = || guard.take().map(Guard::end).is_some();
                let ended = supervise(child, &group, closing, std::future::pending(), let_go, grace).await;
                drop(group); // what the child started and left behind
                (ended, nothing())
            });
            return Ok((process, (Box::new(stdout), Box::new(stdin))));
        };
        let group = Group::of(child.id());
        let mut confined = native.started(child.id().unwrap_or_default())?;
        let bounds = confined.bounds.clone();
        let meter = Arc::clone(&bounds.meter);
        let stderr = MeteredOutput::new(stderr, &bounds.meter);
        let process = Self::supervised(stderr, children, grace, |closing| async move {
            let let_go = || confined.let_go();
            let ended = supervise(child, &group, closing, meter.until_exceeded(), let_go, grace).await;
            let clear = async move {
                group.end().await;
                let _ = tokio::task::spawn_blocking(|| confined.clear()).await;
            };
            (ended, Box::pin(clear) as _)
        });
        let pipes = (Box::new(MeteredOutput::new(stdout, &bounds.meter)) as _, Box::new(stdin) as _);
        Ok((Self { bounds: Some(bounds), ..process }, pipes))
    }

    /// A wasm server that was started.
    pub(super) fn of_guest(running: Running, children: &Children) -> (Self, Pipes) {
        let Running { input, output, errors, bounds, run } = running;
        let grace = Grace { input: GRACE, terminate: GRACE };
        let process = Self::supervised(errors, children, grace, |closing| async move {
            (supervise_guest(run, closing).await, nothing())
        });
        let process = Self { bounds: Some(bounds), ..process };
        (process, (Box::new(output), Box::new(input)))
    }

    /// What counts its use of the sandbox, and has to be told of each request.
    pub(super) fn meter(&self) -> Option<Arc<Meter>> {
        self.bounds.as_ref().map(|bounds| Arc::clone(&bounds.meter))
    }

    /// How long a request to it may take.
    pub(super) fn wall_time(&self) -> Option<Duration> {
        self.bounds.as_ref().map(|bounds| bounds.wall_time)
    }

    /// `supervise` gives how it ended, and what is to be done then.
    fn supervised<F: Future<Output = (Ended, BoxFuture<'static, ()>)> + Send + 'static>(
        stderr: impl AsyncRead + Unpin + Send + 'static,
        children: &Children,
        grace: Grace,
        supervise: impl FnOnce(watch::Receiver<Close>) -> F,
    ) -> Self {
        let last_lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (close, closing) = watch::channel(Close::No);
        let (end, ended) = watch::channel(None);
        let reading = tokio::spawn(keep_last_lines(stderr, Arc::clone(&last_lines)));
        let counted = children.count_for(grace);
        let running = supervise(closing);
        tokio::spawn(async move {
            let _counted = counted;
            let (status, clear) = running.await;
            // What it wrote last is still in the pipe; a grandchild that keeps the pipe open must not hold us up.
            let _ = timeout(Duration::from_millis(200), reading).await;
            end.send_replace(Some(status));
            clear.await;
        });
        Self { stderr: last_lines, close, ended, bounds: None, grace }
    }

    /// Waits until it has ended by itself, or `bound` is over: how it ended.
    pub(super) async fn ended_within(&self, bound: Duration) -> Option<String> {
        let mut ended = self.ended.clone();
        let ended = timeout(bound, ended.wait_for(Option::is_some)).await.ok()?.ok()?;
        ended.as_ref().map(|ended| ended.message.clone())
    }

    /// Whether it is to end, or has ended.
    pub(super) fn is_ending(&self) -> bool {
        *self.close.borrow() != Close::No || self.ended.borrow().is_some()
    }

    /// Whether a limit of its sandbox ended it.
    pub(super) fn hit_limit(&self) -> bool {
        self.ended.borrow().as_ref().is_some_and(|ended| ended.limit.is_some())
    }

    /// Ends it: its input is closed by now; then a child gets SIGTERM, then SIGKILL, each after the time that it may take.
    pub(super) async fn close(&self) {
        self.close.send_if_modified(|close| {
            *close == Close::No && {
                *close = Close::Gently;
                true
            }
        });
        let _ = timeout(longest(self.grace), self.ended.clone().wait_for(|_| false)).await;
    }

    /// Ends it without giving it time, as it hit a limit.
    pub(super) fn end(&self, limit: Limit) {
        self.close.send_replace(Close::AtOnce(limit));
    }

    /// What would allow what its sandbox denied, as far as that is known: an end for an error message.
    pub(super) fn denied(&self, said: &str, arguments: &str) -> String {
        self.bounds.as_ref().map(|bounds| bounds.denials.hint(said, arguments)).unwrap_or_default()
    }

    /// The last lines that it wrote to its standard error.
    pub(super) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn nothing() -> BoxFuture<'static, ()> {
    Box::pin(std::future::ready(()))
}

fn start_error(program: &Program, error: &std::io::Error) -> String {
    let command = &program.written;
    if let Some(reason) = explain_native(error) {
        return format!("can't start `{command}`: {reason}");
    }
    match (error.kind(), &program.cwd) {
        (std::io::ErrorKind::NotFound, Some(cwd)) if !cwd.is_dir() => {
            format!("can't start `{command}`: its folder `{}` does not exist", program.written_cwd)
        }
        (std::io::ErrorKind::NotFound, _) if command.trim().contains(char::is_whitespace) => {
            let mut words = command.split_whitespace();
            let (first, rest) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>().join("\", \""));
            format!(
                "can't start `{command}`: there is no such program; arguments belong into `args`: \"command\": \"{first}\", \"args\": \
                 [\"{rest}\"]"
            )
        }
        (std::io::ErrorKind::NotFound, _) => {
            format!("can't start `{command}`: there is no such program; is it installed, and on the PATH?")
        }
        _ => format!("can't start `{command}`: {error}"),
    }
}

async fn supervise(
    mut child: Child,
    group: &Group,
    mut closing: watch::Receiver<Close>,
    limit: impl Future<Output = Limit>,
    let_go: impl FnOnce() -> bool,
    grace: Grace,
) -> Ended {
    let close = tokio::select! {
        // What ended it is told rather than how.
        biased;
        limit = limit => Close::AtOnce(limit),
        status = child.wait() => return describe(status),
        close = closing.wait_for(|close| *close != Close::No) => close.map_or(Close::Gently, |close| *close),
    };
    let gently = [Signal::None, Signal::Terminate, Signal::LetGo, Signal::Kill];
    let signals = if matches!(close, Close::AtOnce(_)) { &gently[2..] } else { &gently[..] };
    let mut let_go = Some(let_go);
    for signal in signals {
        match signal {
            Signal::None => {}
            Signal::Terminate => group.terminate(),
            // The kernel ends it with all that it has started, and its parents take it away.
            Signal::LetGo => {
                if !let_go.take().is_some_and(|let_go| let_go()) {
                    continue;
                }
            }
            Signal::Kill => {
                group.kill();
                let _ = child.start_kill();
            }
        }
        let time = match signal {
            Signal::None => grace.input,
            Signal::Terminate => grace.terminate,
            Signal::LetGo | Signal::Kill => GRACE,
        };
        if let Ok(status) = timeout(time, child.wait()).await {
            return match close {
                Close::AtOnce(limit) => by_limit(limit),
                _ => describe(status),
            };
        }
    }
    Ended { message: "it does not end".into(), limit: None }
}

async fn supervise_guest(mut run: BoxFuture<'static, Ended>, mut closing: watch::Receiver<Close>) -> Ended {
    let close = tokio::select! {
        ended = &mut run => return ended,
        close = closing.wait_for(|close| *close != Close::No) => close.map_or(Close::Gently, |close| *close),
    };
    if let Close::AtOnce(limit) = close {
        return by_limit(limit);
    }
    let killed = |_| Ended { message: "it was ended, as it did not end by itself".into(), limit: None };
    timeout(GRACE, run).await.unwrap_or_else(killed)
}

fn by_limit(limit: Limit) -> Ended {
    Ended { message: format!("the sandbox ended it: {limit}"), limit: Some(limit) }
}

enum Signal {
    None,
    Terminate,
    LetGo,
    Kill,
}

fn describe(status: std::io::Result<ExitStatus>) -> Ended {
    let message = match status {
        Ok(status) => format!("its process ended ({status})"),
        Err(error) => format!("its process ended ({error})"),
    };
    Ended { message, limit: None }
}

async fn keep_last_lines(stderr: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>) {
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
    fn of(leader: Option<u32>) -> Self {
        Self { leader: leader.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) }
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

    /// Ends what is left, and waits until the system has taken it away.
    async fn end(&self) {
        self.kill();
        let is_there = || self.leader.is_some_and(|leader| rustix::process::test_kill_process_group(leader).is_ok());
        let gone = async {
            while is_there() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(GRACE, gone).await;
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_leader: Option<u32>) -> Self {
        Self {}
    }

    fn terminate(&self) {}

    fn kill(&self) {}

    async fn end(&self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
