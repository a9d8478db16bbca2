//! What happens in the child between `fork` and `exec`. Nothing here may allocate or take a lock, as another thread may have held one when
//! the process was forked; so it is system calls, on what was made ready before.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use landlock::{RulesetCreated, RulesetStatus};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::init;
use super::network::Inside;
use super::syscalls::Filter;
use crate::config::Access;

/// Added to the number of an error, a thousandfold, so that it says which step failed: numbers are all that reaches the parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    Namespaces = 1,
    Mounts,
    Network,
    Limits,
    Capabilities,
    Files,
    Landlock,
    Seccomp,
}

const STEPS: [Step; 8] = [
    Step::Namespaces,
    Step::Mounts,
    Step::Network,
    Step::Limits,
    Step::Capabilities,
    Step::Files,
    Step::Landlock,
    Step::Seccomp,
];
/// Larger than any number of an error.
const FACTOR: i32 = 10_000;

impl Step {
    /// The step that an error was marked with, and the error itself.
    pub(super) fn of(error: &io::Error) -> Option<(Self, io::Error)> {
        let code = error.raw_os_error()?;
        let step = STEPS.into_iter().find(|step| *step as i32 == code / FACTOR)?;
        Some((step, io::Error::from_raw_os_error(code % FACTOR)))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Mounts => "mounts",
            Self::Network => "network",
            Self::Limits => "resource limits",
            Self::Capabilities => "capabilities",
            Self::Files => "open files",
            Self::Landlock => "Landlock",
            Self::Seccomp => "seccomp",
        }
    }

    fn failed(self, error: impl Into<io::Error>) -> io::Error {
        let code = error.into().raw_os_error().unwrap_or(libc::EPERM);
        io::Error::from_raw_os_error(self as i32 * FACTOR + code)
    }
}

/// What is mounted anew.
pub(super) struct Bound {
    pub(super) path: CString,
    pub(super) access: Access,
    /// Of what it has to be.
    pub(super) identity: Option<Identity>,
}

/// The device and number of a file.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(file: &OwnedFd) -> rustix::io::Result<Identity> {
    rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino))
}

/// What the child does to itself.
#[derive(Default)]
pub(super) struct Child {
    pub(super) namespaces: bool,
    /// What is mounted anew where there are namespaces, without links, the outer before the inner. Everything else is read-only there.
    pub(super) mounts: Vec<Bound>,
    pub(super) network: Option<Inside>,
    pub(super) limits: Vec<(libc::__rlimit_resource_t, u64)>,
    ruleset: Option<RulesetCreated>,
    filter: Filter,
    /// Hangs up when everything is to end.
    alive: Option<OwnedFd>,
    /// What the processes above the server give back.
    data: init::Data,
    user_map: CString,
    group_map: CString,
}

impl Child {
    pub(super) fn new(ruleset: Option<RulesetCreated>, filter: Filter) -> Self {
        let map = |id: u32| CString::new(format!("{id} {id} 1")).unwrap_or_default();
        Self {
            ruleset,
            filter,
            user_map: map(rustix::process::geteuid().as_raw()),
            group_map: map(rustix::process::getegid().as_raw()),
            ..Self::default()
        }
    }

    /// Has the child of this command do it. Where there are namespaces, all that runs in there ends when the end of a pipe is dropped.
    pub(super) fn confine(mut self, command: &mut Command) -> io::Result<OwnedFd> {
        let (alive, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        self.alive = Some(alive);
        self.data = init::Data::of_this_process();
        // SAFETY: `run` makes system calls only, on memory of its own.
        #[allow(unsafe_code, reason = "there is no other way between fork and exec")]
        unsafe {
            command.pre_exec(move || self.run());
        }
        Ok(ours)
    }

    fn run(&mut self) -> io::Result<()> {
        if self.namespaces {
            self.enter_namespaces().map_err(|error| Step::Namespaces.failed(error))?;
            self.mount_read_only().map_err(|error| Step::Mounts.failed(error))?;
        }
        if let Some(network) = &mut self.network {
            network.set_up().map_err(|error| Step::Network.failed(error))?;
        }
        if let (true, Some(alive)) = (self.namespaces, &self.alive) {
            init::split(alive, &self.data).map_err(|error| Step::Namespaces.failed(error))?;
        }
        for (resource, value) in &self.limits {
            limit(*resource, *value).map_err(|error| Step::Limits.failed(error))?;
        }
        drop_capabilities().map_err(|error| Step::Capabilities.failed(error))?;
        close_on_exec().map_err(|error| Step::Files.failed(error))?;
        if !self.namespaces {
            become_reaper().map_err(|error| Step::Limits.failed(error))?;
        }
        rustix::thread::set_no_new_privs(true).map_err(|error| Step::Landlock.failed(error))?;
        if let Some(ruleset) = self.ruleset.take() {
            let status = ruleset.restrict_self().map_err(|_| Step::Landlock.failed(rustix::io::Errno::PERM))?;
            if status.ruleset != RulesetStatus::FullyEnforced {
                return Err(Step::Landlock.failed(rustix::io::Errno::NOTSUP));
            }
        }
        for filter in &self.filter {
            seccompiler::apply_filter(filter).map_err(|_| Step::Seccomp.failed(rustix::io::Errno::PERM))?;
        }
        Ok(())
    }

    /// Users, so that nothing is needed for the others; a network without a way out; queues and shared memory of its own; mounts; for the
    /// processes to come, none but themselves.
    fn enter_namespaces(&self) -> rustix::io::Result<()> {
        let flags = UnshareFlags::NEWUSER
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID;
        // SAFETY: file descriptors are not among what is unshared.
        #[allow(unsafe_code, reason = "the safe function is deprecated for the sake of one flag")]
        unsafe {
            rustix::thread::unshare_unsafe(flags)?;
        }
        write(c"/proc/self/setgroups", b"deny")?;
        write(c"/proc/self/uid_map", self.user_map.as_bytes())?;
        write(c"/proc/self/gid_map", self.group_map.as_bytes())
    }

    /// Landlock lets everybody change modes, owners and times of files; what is mounted read-only does not.
    fn mount_read_only(&self) -> rustix::io::Result<()> {
        use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        for Bound { path, identity: expected, .. } in &self.mounts {
            let opened = open_without_links(path)?;
            if expected.is_some_and(|expected| identity(&opened) != Ok(expected)) {
                return Err(rustix::io::Errno::STALE);
            }
            let mut place = [0; PLACE];
            let place = place_of(&opened, &mut place);
            mount_bind_recursive(place, place)?;
        }
        set_read_only(&open_without_links(c"/")?, true, true)?;
        for Bound { path, access, .. } in &self.mounts {
            let opened = open_without_links(path)?;
            let read_only = *access == Access::ReadOnly;
            // What was mounted read-only inside of it has to stay so.
            set_read_only(&opened, read_only, true).or_else(|_| set_read_only(&opened, read_only, false))?;
        }
        // Into what is mounted there now.
        let mut folder = [0; libc::PATH_MAX as usize];
        // SAFETY: the path is written to memory of that size, and read from there.
        #[allow(unsafe_code, reason = "system calls")]
        unsafe {
            let is_there = !libc::getcwd(folder.as_mut_ptr(), folder.len()).is_null();
            // What was only this user's as long as it was root, or is no more, is nobody's working folder.
            if (is_there && libc::chdir(folder.as_ptr()) == 0) || libc::chdir(c"/".as_ptr()) == 0 {
                return Ok(());
            }
        }
        Err(last_error())
    }
}

fn write(path: &CStr, bytes: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, bytes).map(drop)
}

pub(super) fn last_error() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// The file itself, however it is changed meanwhile.
fn open_without_links(path: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// As long as the longest.
const PLACE: usize = c"/proc/self/fd/2147483647".to_bytes_with_nul().len();

/// A path to what is open.
fn place_of<'a>(opened: &OwnedFd, place: &'a mut [u8; PLACE]) -> &'a CStr {
    use std::io::Write;
    let _ = write!(&mut place[..PLACE - 1], "/proc/self/fd/{}", opened.as_raw_fd());
    CStr::from_bytes_until_nul(place).unwrap_or(c"")
}

fn set_read_only(opened: &OwnedFd, on: bool, below: bool) -> rustix::io::Result<()> {
    let (set, clear) = if on { (libc::MOUNT_ATTR_RDONLY, 0) } else { (0, libc::MOUNT_ATTR_RDONLY) };
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path and the attributes are read from memory that holds them.
    #[allow(unsafe_code, reason = "a system call")]
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            opened.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it is written to the memory of `now`.
    #[allow(unsafe_code, reason = "a system call")]
    if unsafe { libc::getrlimit(resource, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let value = value.min(now.rlim_max);
    let wanted = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: it is read from the memory of `wanted`.
    #[allow(unsafe_code, reason = "a system call")]
    if unsafe { libc::setrlimit(resource, &raw const wanted) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Root has them all, and would have them in its new namespace.
fn drop_capabilities() -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // This system does not know it; this user has none.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// What this process has open is not the server's; ours close by themselves, those that were handed to us do not.
fn close_on_exec() -> io::Result<()> {
    let flag = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default();
    // SAFETY: it marks file descriptors, and closes none.
    #[allow(unsafe_code, reason = "a system call")]
    if unsafe { libc::close_range(3, libc::c_uint::MAX, flag) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Processes whose parents ended stay below it, where their computing is still counted. In a namespace the first process takes them.
pub(super) fn become_reaper() -> io::Result<()> {
    // SAFETY: it sets a flag of this process.
    #[allow(unsafe_code, reason = "a system call")]
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
