//! Tools that attempt what only a process can: other processes, their memory, and what the kernel offers beside files.

#![allow(unsafe_code, reason = "system calls, with the raw interface that an attacker would use")]

use std::ffi::{CString, c_int, c_long, c_void};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;
use std::ptr::null_mut;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Arguments, Outcome, Tool};

pub(crate) const TOOLS: &[Tool] = &[
    ("spawn", |arguments| {
        let given = arguments.0["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let output = Command::new(arguments.text("program")?).args(given).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (code, out, errors) = (output.status.code(), text(&output.stdout), text(&output.stderr));
        Ok(json!({"code": code, "stdout": out, "stderr": errors}).to_string())
    }),
    ("fork_bomb", fork_bomb),
    ("signal", |arguments| {
        let (pid, signal) = (arguments.number("pid")?, arguments.number("signal")?);
        check(unsafe { libc::kill(pid, signal) })?;
        Ok("sent".into())
    }),
    ("parent", |_| Ok(json!({"parent": std::os::unix::process::parent_id(), "own": std::process::id()}).to_string())),
    ("read_memory", |arguments| {
        let pid: libc::pid_t = arguments.number("pid")?;
        let address = arguments.number("address").or_else(|_| a_readable_address(pid)).unwrap_or(0x1000);
        let said = |outcome: io::Result<()>| outcome.map_or_else(|error| error.to_string(), |()| "read".into());
        Ok(json!({
            "process_vm_readv": said(read_with_system_call(pid, address)),
            "proc": said(read_with_proc(pid, address)),
            "ptrace": said(attach(pid)),
        })
        .to_string())
    }),
    ("unix_connect", |arguments| {
        UnixStream::connect(arguments.text("path")?)?;
        Ok("connected".into())
    }),
    ("unix_abstract", |arguments| {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(arguments.text("name")?)?)?;
        Ok("connected".into())
    }),
    ("raw_socket", |_| socket(libc::AF_INET, libc::IPPROTO_ICMP)),
    ("netlink", |_| socket(libc::AF_NETLINK, libc::NETLINK_ROUTE)),
    ("unshare", |_| {
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
        Ok("in a namespace of its own".into())
    }),
    ("mount", mount),
    ("io_uring", |_| {
        // `io_uring_params` is 120 bytes.
        let mut parameters = [0_u64; 15];
        owned(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })?;
        Ok("set up".into())
    }),
    ("keyctl", |_| {
        // KEYCTL_GET_KEYRING_ID of KEY_SPEC_PROCESS_KEYRING, which is made where there is none.
        check(unsafe { libc::syscall(libc::SYS_keyctl, 0, -2, 1) })?;
        Ok("has a keyring".into())
    }),
    ("setsid_child", |_| {
        let pid = fork(|| {
            let left = unsafe { libc::setsid() };
            if left < 0 { 1 } else { pause() }
        })?;
        Ok(pid.to_string())
    }),
    // A child that stays, whatever becomes of its parent.
    ("leave_child", |_| Ok(fork(|| pause())?.to_string())),
    ("unwaited_children", unwaited_children),
    ("clone_parent", |_| {
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
            0 => unsafe { libc::_exit(0) },
            pid => Ok(pid.to_string()),
        }
    }),
    ("nameless", |_| {
        // Its name is no text.
        check(unsafe { libc::prctl(libc::PR_SET_NAME, c"\xff\xfe) R 1".as_ptr()) })?;
        Ok("named".into())
    }),
    ("limits_of", |arguments| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let process: libc::pid_t = arguments.number("pid")?;
        check(unsafe { libc::prlimit(process, libc::RLIMIT_CPU, std::ptr::null(), &raw mut limit) })?;
        Ok("asked".into())
    }),
    ("inotify", |arguments| {
        let watch = owned(unsafe { libc::inotify_init1(0) }.into())?;
        let path = CString::new(arguments.text("path")?)?;
        check(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_ALL_EVENTS) })?;
        Ok("watches".into())
    }),
    ("limits", limits),
    ("open_device", |arguments| {
        File::options().read(true).write(true).open(arguments.text("path")?)?;
        Ok("opened".into())
    }),
    ("chroot", |arguments| {
        std::os::unix::fs::chroot(arguments.text("path")?)?;
        Ok("changed".into())
    }),
    ("ioctl_terminal", |_| {
        check(unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) })?;
        Ok("typed".into())
    }),
    ("memfd", memfd),
    ("shared_memory", shared_memory),
];

fn check<T: Default + PartialOrd>(result: T) -> io::Result<T> {
    if result < T::default() { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The file descriptor that a system call made.
fn owned(result: c_long) -> io::Result<OwnedFd> {
    let descriptor = c_int::try_from(check(result)?).map_err(io::Error::other)?;
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Starts a child that does this and ends with the code that it gives.
fn fork(child: impl FnOnce() -> c_int) -> io::Result<libc::pid_t> {
    match check(unsafe { libc::fork() })? {
        0 => {
            let code = child();
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

fn pause() -> ! {
    loop {
        unsafe { libc::pause() };
    }
}

fn wait(pid: libc::pid_t) -> io::Result<c_int> {
    let mut status = 0;
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })?;
    Ok(status)
}

fn fork_bomb(arguments: Arguments<'_>) -> Outcome {
    let count: usize = arguments.number("count")?;
    let (mut children, mut error) = (Vec::new(), None);
    while children.len() < count && error.is_none() {
        match fork(|| pause()) {
            Ok(child) => children.push(child),
            Err(failed) => error = Some(failed.to_string()),
        }
    }
    std::thread::sleep(Duration::from_millis(arguments.number("ms").unwrap_or(0)));
    for child in &children {
        unsafe { libc::kill(*child, libc::SIGKILL) };
        wait(*child)?;
    }
    Ok(json!({"started": children.len(), "error": error}).to_string())
}

/// Computes in children, one after the other, whose time nobody asks for.
fn unwaited_children(arguments: Arguments<'_>) -> Outcome {
    let (count, each): (u32, u64) = (arguments.number("count")?, arguments.number("ms")?);
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    for _ in 0..count {
        let child = fork(|| {
            let from = std::time::Instant::now();
            while from.elapsed() < Duration::from_millis(each) {}
            0
        })?;
        // Comes back with an error when it has ended.
        unsafe { libc::waitpid(child, null_mut(), 0) };
    }
    Ok("computed".into())
}

/// The start of the first mapping of the process, which is that of its program.
fn a_readable_address(pid: libc::pid_t) -> Result<usize, String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| error.to_string())?;
    let start = maps.split('-').next().unwrap_or_default();
    usize::from_str_radix(start, 16).map_err(|error| error.to_string())
}

fn read_with_system_call(pid: libc::pid_t, address: usize) -> io::Result<()> {
    let mut bytes = [0_u8; 8];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
    check(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }).map(drop)
}

fn read_with_proc(pid: libc::pid_t, address: usize) -> io::Result<()> {
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut [0; 8], address as u64)
}

fn attach(pid: libc::pid_t) -> io::Result<()> {
    check(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, null_mut::<c_void>(), null_mut::<c_void>()) })?;
    wait(pid)?;
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, null_mut::<c_void>(), null_mut::<c_void>()) }).map(drop)
}

fn socket(family: c_int, protocol: c_int) -> Outcome {
    owned(unsafe { libc::socket(family, libc::SOCK_RAW, protocol) }.into())?;
    Ok("made".into())
}

/// Asks for a file system that does not exist: the kernel looks for it only after it has seen that mounting is allowed, and so
/// nothing is ever mounted.
fn mount(_: Arguments<'_>) -> Outcome {
    let mounted =
        unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), c"rhaiway-none".as_ptr(), 0, std::ptr::null()) };
    match check(mounted) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok("allowed".into()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok("mounted".into()),
    }
}

fn limits(_: Arguments<'_>) -> Outcome {
    let wanted = [
        ("AS", libc::RLIMIT_AS),
        ("CPU", libc::RLIMIT_CPU),
        ("NPROC", libc::RLIMIT_NPROC),
        ("NOFILE", libc::RLIMIT_NOFILE),
        ("CORE", libc::RLIMIT_CORE),
    ];
    let number = |limit: libc::rlim_t| if limit == libc::RLIM_INFINITY { Value::Null } else { limit.into() };
    let mut limits = serde_json::Map::new();
    for (name, resource) in wanted {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
        limits.insert(name.into(), json!({"soft": number(limit.rlim_cur), "hard": number(limit.rlim_max)}));
    }
    Ok(Value::Object(limits).to_string())
}

/// Memory that is no process's own, and stays where nobody has it mapped.
fn memfd(_: Arguments<'_>) -> Outcome {
    owned(unsafe { libc::memfd_create(c"memory".as_ptr(), 0) }.into())?;
    Ok("made".into())
}

fn shared_memory(arguments: Arguments<'_>) -> Outcome {
    let zeros =
        arguments.text("device").ok().map(|path| File::options().read(true).write(true).open(path)).transpose()?;
    let (flags, file) = match &zeros {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
    };
    let mapped = unsafe { libc::mmap(null_mut(), 1 << 20, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error().into()) } else { Ok("mapped".into()) }
}
