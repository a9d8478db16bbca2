//! A process above a server that runs without a sandbox, made by `fork` without `exec`. It ends what the server has started and left
//! behind, wherever that moved to, when the server ends and when we do. Runs between `fork` and `exec`; see `child.rs`.

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags, RawDir};

use super::child::{become_reaper, last_error};
use super::init::{Data, end_as, ended_children, fork, hold_off_signals, keep_only, standard, wait};

/// How long the guard tries to end what is left behind. What it may not kill (a program of another user) must not keep it for ever.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(5);
/// Room for the start of `/proc/…/stat`: a number, a name of at most 64 bytes, a letter, a number.
const STAT: usize = 256;

/// How a server is ended where this process is gone: the time after its input was closed, and after SIGTERM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    pub(crate) input: Duration,
    pub(crate) terminate: Duration,
}

/// The guard of a command that is about to start, or of a server that runs. Dropping it ends the server as if this process were gone.
pub(crate) struct Guard {
    alive: OwnedFd,
    server: Option<OwnedFd>,
}

impl Guard {
    /// Has the command start below a guard, where the system has what that needs. The child that is started is the guard; it ends as the
    /// server does.
    pub(crate) fn watch(command: &mut tokio::process::Command, grace: Grace) -> io::Result<Option<Self>> {
        let (told, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (server, tells) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let data = Data::of_this_process();
        // It ends by itself, after all that is below it: killed, it would leave that behind.
        command.kill_on_drop(false);
        let command: &mut Command = command.as_std_mut();
        // SAFETY: `split` makes system calls only, on memory of its own.
        #[allow(unsafe_code, reason = "there is no other way between fork and exec")]
        unsafe {
            command.pre_exec(move || split(&told, &tells, grace, &data));
        }
        Ok(Some(Self { alive, server: Some(server) }))
    }

    /// The process group of the server that was started: it told its number before it became the program.
    pub(crate) fn group(&mut self) -> Option<u32> {
        let mut number = [0; size_of::<i32>()];
        std::fs::File::from(self.server.take()?).read_exact(&mut number).ok()?;
        u32::try_from(i32::from_ne_bytes(number)).ok()
    }

    /// Ends the server and all that it has started, at once.
    pub(crate) fn end(self) {
        let _ = std::fs::File::from(self.alive).write_all(&[0]);
    }
}

/// Makes the process of the server, and comes back in it.
fn split(told: &OwnedFd, tells: &OwnedFd, grace: Grace, data: &Data) -> io::Result<()> {
    let mask = hold_off_signals();
    // Those below it whose parents end become its children.
    become_reaper()?;
    let ended = ended_children().ok_or_else(io::Error::last_os_error)?;
    let server = fork()?;
    if server == 0 {
        // A group of its own, so that what kills it does not kill the guard.
        rustix::process::setpgid(None, None)?;
        rustix::io::write(tells, &rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes())?;
        mask.restore();
        return Ok(());
    }
    keep_only(&[told.as_raw_fd(), ended.as_raw_fd()], data);
    guard(server, standard(0), standard(1), grace)
}

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;

/// Waits for the end of the server, or for ours.
fn guard(server: libc::pid_t, told: BorrowedFd<'_>, ended: BorrowedFd<'_>, grace: Grace) -> ! {
    let group = rustix::process::Pid::from_raw(server);
    let signal = |signal| group.map(|group| rustix::process::kill_process_group(group, signal));
    // What follows when the time is over; none while we are there.
    let mut next: Option<(Duration, rustix::process::Signal)> = None;
    loop {
        if let Some(status) = reap(server, ended) {
            // The group at once, as the system does it, and then one by one what has left it.
            signal(KILL);
            sweep(ended);
            end_as(status);
        }
        let left = next.map(|(at, _)| at.saturating_sub(now()));
        if let (Some(Duration::ZERO), Some((at, due))) = (left, next) {
            signal(due);
            // What can't be killed is left to itself.
            if due == KILL {
                sweep(ended);
                end_as(libc::SIGKILL);
            }
            next = Some((at + grace.terminate, KILL));
            continue;
        }
        let watched = if next.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut events = [PollFd::from_borrowed_fd(ended, PollFlags::IN), PollFd::from_borrowed_fd(told, watched)];
        // Once the other end has hung up there is nothing more to hear from it.
        let events = if next.is_some() { &mut events[..1] } else { &mut events[..] };
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        if rustix::event::poll(events, timeout.as_ref()).is_err()
            || events.get(1).is_none_or(|it| it.revents().is_empty())
        {
            continue;
        }
        let mut word = [0];
        next = match rustix::io::read(told, &mut word) {
            Ok(1..) => Some((now(), KILL)),
            // We are gone, and with us its input.
            Ok(0) => Some((now() + grace.input, rustix::process::Signal::TERM)),
            Err(_) => None,
        };
    }
}

/// Takes away the children that have ended; how the server did, if it is among them.
fn reap(server: libc::pid_t, ended: BorrowedFd<'_>) -> Option<libc::c_int> {
    let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
    let _ = rustix::io::read(ended, &mut signal);
    let mut found = None;
    while let Some((process, status)) = wait() {
        if process == server {
            found = Some(status);
        }
    }
    found
}

/// Kills all that is below this process, until nothing is left.
fn sweep(ended: BorrowedFd<'_>) {
    let until = now() + SWEEP;
    loop {
        // What was below one that ended is a child now.
        while wait().is_some() {}
        if !has_children() || now() >= until || kill_children().is_err() {
            return;
        }
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(ended, &mut signal);
        let mut events = [PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        let _ = rustix::event::poll(&mut events, Timespec::try_from(LOOK).ok().as_ref());
    }
}

fn has_children() -> bool {
    // SAFETY: the status is not asked for, and nothing is taken away.
    #[allow(unsafe_code, reason = "a system call")]
    let found = unsafe {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WNOHANG | libc::WNOWAIT | libc::WEXITED | libc::__WALL)
    };
    found == 0 || last_error() != rustix::io::Errno::CHILD
}

/// As far as `/proc` tells them, and is that of this process.
fn kill_children() -> rustix::io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, c"/proc", flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut link = [0_u8; 16];
    let length = rustix::fs::readlinkat_raw(&folder, c"self", link.as_mut_slice())?;
    if number(&link[..length]) != Some(own) {
        return Err(rustix::io::Errno::SRCH);
    }
    let mut entries = [std::mem::MaybeUninit::uninit(); 4096];
    let mut processes = RawDir::new(&folder, &mut entries);
    while let Some(entry) = processes.next() {
        let Some(process) = number(entry?.file_name().to_bytes()) else { continue };
        if parent(&folder, process) == Some(own)
            && let Some(process) = rustix::process::Pid::from_raw(process)
        {
            let _ = rustix::process::kill_process(process, KILL);
        }
    }
    Ok(())
}

/// The parent of a process.
fn parent(proc: &OwnedFd, process: i32) -> Option<i32> {
    let mut path = [0; 32];
    write!(&mut path[..31], "{process}/stat").ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut stat = [0_u8; STAT];
    let read = rustix::io::read(file, stat.as_mut_slice()).ok()?;
    // Its name is in parentheses and may hold anything.
    let stat = &stat[..read];
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat[end + 1..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    number(fields.nth(1)?)
}

fn number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Without the library's help, which keeps state in memory that was given back.
fn now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it is written to the memory of `now`.
    #[allow(unsafe_code, reason = "a system call")]
    unsafe {
        libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now);
    }
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}
