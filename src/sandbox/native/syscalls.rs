//! The system calls that a native server is denied: those that reach other processes, the network, the kernel's inner workings, or out of
//! its process group. They fail with EPERM.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Denied whatever their arguments.
const DENIED: &[i64] = &[
    // Other processes. Its group is how it is ended, so it may not leave it.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgctl,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Sockets for which there is no grant. Pairs of them need no `bind` or `listen`.
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Namespaces and file systems.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Tells the names of files in folders that can't be listed.
    libc::SYS_inotify_add_watch,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];
/// As if the kernel did not have them: programs do without.
const UNKNOWN: &[i64] = &[
    // Its arguments are in memory, where they can't be looked at; there is `clone`.
    libc::SYS_clone3,
    // The same; there is `openat`.
    libc::SYS_openat2,
    // Memory that counts as no process's.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
];
/// What changes files that were opened for reading: `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR`.
const SET_FLAGS: [libc::Ioctl; 2] = [0x4008_6602, 0x401c_5820];
/// What changes files without opening them, and processes.
const ATTRIBUTES: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SYS_SETXATTRAT,
    SYS_REMOVEXATTRAT,
    SYS_FILE_SETATTR,
    // Other processes, by their user.
    libc::SYS_ioprio_set,
];
// The same everywhere, and younger than the crate.
const SYS_FCHMODAT2: i64 = 452;
const SYS_SETXATTRAT: i64 = 463;
const SYS_REMOVEXATTRAT: i64 = 466;
const SYS_FILE_SETATTR: i64 = 469;
/// What changes any process of the same user, and the argument that names it: nothing but 0, itself, where others can be named.
const OWN_PROCESS: &[(i64, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 0),
    (libc::SYS_setpriority, 1),
];
/// The bits with which a program runs as its owner or group, and where calls have the mode.
const SET_ID: [u64; 2] = [0o4000, 0o2000];
const MODES: &[(i64, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (SYS_FCHMODAT2, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    (libc::SYS_openat, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];
/// What makes namespaces of a new process, or makes it a child of somebody else.
const NOT_CLONED: libc::c_int = libc::CLONE_PARENT
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;
/// The kind of a socket, without its flags.
const SOCKET_KIND: u64 = 0xf;
/// Calls of the x32 interface, which the kernel may have beside that of x86-64.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: TargetArch = TargetArch::riscv64;

/// The filter. With `network`, TCP sockets can be made, and nothing but that. In `namespaces` no other processes can be named, and everything
/// that must not be changed is mounted read-only; without them, calls that change processes or the attributes of files are denied.
pub(super) fn filter(network: bool, namespaces: bool) -> Result<Filter, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the filter of system calls can't be made: {error}");
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    conditional(network, namespaces, &mut rules).map_err(|error| failed(&error))?;
    if !namespaces {
        rules.extend(ATTRIBUTES.iter().map(|call| (*call, Vec::new())));
    }
    let compile = |mut rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int| -> Result<BpfProgram, String> {
        #[cfg(target_arch = "x86_64")]
        rules.extend(rules.clone().into_iter().map(|(call, rules)| (call | X32, rules)));
        let action = SeccompAction::Errno(errno.cast_unsigned());
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, action, ARCHITECTURE).map_err(|error| failed(&error))?;
        filter.try_into().map_err(|error| failed(&error))
    };
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![compile(unknown, libc::ENOSYS)?, compile(rules, libc::EPERM)?])
}

/// Programs that are all asked.
pub(super) type Filter = Vec<BpfProgram>;

fn conditional(
    network: bool,
    namespaces: bool,
    rules: &mut BTreeMap<i64, Vec<SeccompRule>>,
) -> Result<(), seccompiler::BackendError> {
    let argument = |index, operator, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    let not_kind = |index, kinds: &[libc::c_int]| -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
        // No kind has all bits of another and more, so that "is not" is said with the bits of every kind that is.
        (0..=SOCKET_KIND)
            .filter(|kind| !kinds.iter().any(|allowed| u64::from(allowed.cast_unsigned()) == *kind))
            .map(|kind| argument(index, SeccompCmpOp::MaskedEq(SOCKET_KIND), kind))
            .collect()
    };
    let each = |conditions: Vec<SeccompCondition>| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        conditions.into_iter().map(|condition| SeccompRule::new(vec![condition])).collect()
    };
    let number = |value: libc::c_int| u64::from(value.cast_unsigned());
    // One rule that matches is enough to deny.
    if network {
        let neither = vec![
            argument(0, SeccompCmpOp::Ne, number(libc::AF_INET))?,
            argument(0, SeccompCmpOp::Ne, number(libc::AF_INET6))?,
        ];
        let mut denied = vec![SeccompRule::new(neither)?];
        denied.extend(each(not_kind(1, &[libc::SOCK_STREAM])?)?);
        rules.insert(libc::SYS_socket, denied);
    } else {
        for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind] {
            rules.insert(call, Vec::new());
        }
    }
    // Pairs are pipes, as long as they can't send to anybody else: those for datagrams can.
    let mut pairs = vec![SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, number(libc::AF_UNIX))?])?];
    pairs.extend(each(not_kind(1, &[libc::SOCK_STREAM, libc::SOCK_SEQPACKET])?)?);
    rules.insert(libc::SYS_socketpair, pairs);
    // One rule a flag, as any of them is too much.
    let flags = (0..32).map(|bit| 1 << bit).filter(|bit| number(NOT_CLONED) & bit != 0);
    let flags = flags.map(|bit| argument(0, SeccompCmpOp::MaskedEq(bit), bit)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, each(flags)?);
    // Shared memory without a file would count as nobody's.
    let shared = number(libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    rules.insert(libc::SYS_mmap, each(vec![argument(3, SeccompCmpOp::MaskedEq(shared), shared)?])?);
    // A program that it makes must not run as somebody else for others.
    for (call, index) in MODES {
        let bits = SET_ID.map(|bit| argument(*index, SeccompCmpOp::MaskedEq(bit), bit));
        rules.insert(*call, each(bits.into_iter().collect::<Result<_, _>>()?)?);
    }
    // Typing into a terminal, were there one.
    let mut requests = vec![libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];
    if !namespaces {
        requests.extend(SET_FLAGS);
        for (call, index) in OWN_PROCESS {
            let other = argument(*index, SeccompCmpOp::Ne, 0)?;
            rules.entry(*call).or_default().push(SeccompRule::new(vec![other])?);
        }
    }
    let requests = requests.into_iter().map(|request| argument(1, SeccompCmpOp::Eq, request & 0xffff_ffff));
    rules.insert(libc::SYS_ioctl, each(requests.collect::<Result<_, _>>()?)?);
    Ok(())
}
