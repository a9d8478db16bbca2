//! The processes above a server in its process namespace. The child that was started stays outside and ends as the server does; its own child
//! is the first process inside, and the server is the child of that. Where the first one ends, the kernel ends all others: when the server
//! does, and when we do, however that comes about, as we hold the other end of a pipe. Runs between `fork` and `exec`; see there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};

/// Memory of the parent that its copies need not keep.
const RANGES: usize = 256;

/// Ranges of addresses that hold nothing but data of this process, the largest first.
#[derive(Clone, Copy)]
pub(super) struct Data([(usize, usize); RANGES]);

impl Default for Data {
    fn default() -> Self {
        Self([(0, 0); RANGES])
    }
}

impl Data {
    /// As far as that can be told.
    pub(super) fn of_this_process() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut ranges: Vec<(usize, usize)> = maps.lines().filter_map(range).collect();
        ranges.sort_unstable_by_key(|(start, end)| std::cmp::Reverse(end - start));
        let mut data = Self::default();
        for (place, range) in data.0.iter_mut().zip(ranges) {
            *place = range;
        }
        data
    }

    /// Gives it back, but for what holds these addresses. What was shared with the parent would else be kept for it when the parent changes it.
    fn release(&self, kept: &[usize]) {
        for (start, end) in self.0 {
            if end > start && !kept.iter().any(|address| (start..end).contains(address)) {
                // SAFETY: nothing of it is used any more: this process makes system calls only, with what is on its stack.
                #[allow(unsafe_code, reason = "a system call")]
                unsafe {
                    libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
                }
            }
        }
    }
}

/// A line of `/proc/self/maps` about memory that is written to, and no file.
fn range(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    // The main thread's stack may have grown since, and be the one that is used.
    let is_data = fields.next()? == "rw-p" && fields.nth(2)? == "0" && fields.next() != Some("[stack]");
    let address = |text| usize::from_str_radix(text, 16).ok();
    is_data.then_some((address(start)?, address(end)?))
}

/// Makes the two processes, and comes back in that of the server. `alive` hangs up when everything is to end.
pub(super) fn split(alive: &OwnedFd, data: &Data) -> io::Result<()> {
    // Whoever started us may ignore the ends of children; these are waited for.
    // SAFETY: no handler runs.
    #[allow(unsafe_code, reason = "a system call")]
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    let (told, tells) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork()? {
        0 => {}
        first => stand_for(first, &told, data),
    }
    match fork()? {
        0 => Ok(()),
        server => watch_over(server, alive, &tells, data),
    }
}

/// Outside: waits for the first process inside, and ends as the server did.
fn stand_for(first: libc::pid_t, told: &OwnedFd, data: &Data) -> ! {
    keep_only(&[told.as_raw_fd()], data);
    let mut status = [0; size_of::<libc::c_int>()];
    let read = loop {
        match rustix::io::read(standard(0), &mut status) {
            Err(rustix::io::Errno::INTR) => {}
            read => break read,
        }
    };
    // With it, all that was in there has ended.
    // SAFETY: the status is not asked for.
    #[allow(unsafe_code, reason = "a system call")]
    unsafe {
        libc::waitpid(first, std::ptr::null_mut(), 0);
    }
    match read {
        Ok(count) if count == status.len() => end_as(libc::c_int::from_ne_bytes(status)),
        _ => end_as(libc::SIGKILL),
    }
}

/// Inside: waits for whoever has no other parent any more, and ends with the server, or when it is told to.
fn watch_over(server: libc::pid_t, alive: &OwnedFd, tells: &OwnedFd, data: &Data) -> ! {
    let Some(ended) = ended_children() else { exit(1) };
    keep_only(&[alive.as_raw_fd(), tells.as_raw_fd(), ended.as_raw_fd()], data);
    let (alive, tells, ended) = (standard(0), standard(1), standard(2));
    loop {
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(ended, &mut signal);
        // Those of before, too.
        while let Some((process, status)) = wait() {
            if process == server {
                let _ = rustix::io::write(tells, &status.to_ne_bytes());
                exit(0);
            }
        }
        let mut events = [
            PollFd::from_borrowed_fd(alive, PollFlags::empty()),
            PollFd::from_borrowed_fd(tells, PollFlags::empty()),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        match rustix::event::poll(&mut events, None) {
            Ok(_) if events[..2].iter().any(|event| !event.revents().is_empty()) => exit(0),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => exit(1),
        }
    }
}

/// What can be read when a child has ended, as long as its signal is held off.
pub(super) fn ended_children() -> Option<OwnedFd> {
    // SAFETY: the set of signals is written before it is read, and nobody else has the file.
    #[allow(unsafe_code, reason = "system calls")]
    unsafe {
        let mut signals = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGCHLD);
        let ended = libc::signalfd(-1, signals.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        (ended >= 0).then(|| OwnedFd::from_raw_fd(ended))
    }
}

/// A child that has ended, and how, if there is one.
pub(super) fn wait() -> Option<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    // SAFETY: the status is written to the memory of `status`.
    #[allow(unsafe_code, reason = "a system call")]
    let process = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    (process > 0).then_some((process, status))
}

/// As `fork`, but for the library's own state: nothing but system calls follows.
pub(super) fn fork() -> io::Result<libc::pid_t> {
    let (signal, none): (libc::c_long, libc::c_long) = (libc::SIGCHLD.into(), 0);
    // SAFETY: without a stack of its own, and no memory shared, it is a `fork`.
    #[allow(unsafe_code, reason = "a system call")]
    let process = unsafe { libc::syscall(libc::SYS_clone, signal, none, none, none, none) };
    if process < 0 { Err(io::Error::last_os_error()) } else { Ok(process.try_into().unwrap_or(-1)) }
}

/// The signals that were held off before.
pub(super) struct Mask(libc::sigset_t);

/// Holds off all signals. What came to be in this process would run handlers of the one that it is a copy of.
pub(super) fn hold_off_signals() -> Mask {
    // SAFETY: both sets of signals are written before they are read.
    #[allow(unsafe_code, reason = "system calls")]
    unsafe {
        let (mut all, mut before) = (std::mem::MaybeUninit::uninit(), std::mem::MaybeUninit::zeroed());
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        // Whoever started us may ignore the ends of children; these are waited for.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        Mask(before.assume_init())
    }
}

impl Mask {
    /// Lets the others come again.
    pub(super) fn restore(&self) {
        // SAFETY: the set is read from memory that holds it.
        #[allow(unsafe_code, reason = "a system call")]
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut());
        }
    }
}

/// From now on signals only end it that nothing holds off, and it has nothing open but these, as 0, 1 and so on.
pub(super) fn keep_only(open: &[RawFd], data: &Data) {
    let here = 0_u8;
    // SAFETY: what is closed and given back is used by nobody in this process; the set of signals is written before it is read.
    #[allow(unsafe_code, reason = "system calls")]
    unsafe {
        let mut all = std::mem::MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
        for (place, file) in (0..).zip(open) {
            libc::dup2(*file, place);
        }
        let rest = libc::c_uint::try_from(open.len()).unwrap_or(0);
        libc::close_range(rest, libc::c_uint::MAX, 0);
        data.release(&[(&raw const here).addr(), libc::__errno_location().addr(), std::ptr::from_ref(data).addr()]);
    }
}

pub(super) fn standard(file: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `keep_only` made sure that it is open, and nothing closes it.
    #[allow(unsafe_code, reason = "it has no owner")]
    unsafe {
        BorrowedFd::borrow_raw(file)
    }
}

/// Ends with the same status.
pub(super) fn end_as(status: libc::c_int) -> ! {
    if !libc::WIFSIGNALED(status) {
        exit(libc::WEXITSTATUS(status));
    }
    // SAFETY: no handler runs, and the set of signals is written before it is read.
    #[allow(unsafe_code, reason = "system calls")]
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(libc::WTERMSIG(status), libc::SIG_DFL);
        let mut all = std::mem::MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_UNBLOCK, all.as_ptr(), std::ptr::null_mut());
        libc::kill(libc::getpid(), libc::WTERMSIG(status));
    }
    exit(1)
}

fn exit(code: libc::c_int) -> ! {
    // SAFETY: nothing of this process is to be done at its end.
    #[allow(unsafe_code, reason = "a system call")]
    unsafe {
        libc::_exit(code)
    }
}
