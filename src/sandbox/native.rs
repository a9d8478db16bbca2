//! The sandbox for native servers, on Linux: Landlock for files, signals and connections, seccomp for system calls, namespaces where there
//! are any, resource limits, and a watch over the whole process group. What can't be enforced does not start.

mod child;
mod files;
mod guard;
mod home;
mod init;
mod network;
mod syscalls;
mod watch;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use tokio::process::Command;

use self::child::{Bound, Child, Identity, Step};
use self::network::Forwarder;
use super::Bounds;
use super::mounts::Granted;
use crate::config::{Access, Mount, SandboxConfig};

use files::Needed;
pub(crate) use guard::{Grace, Guard};
use home::Home;
pub(crate) use home::clear_abandoned;
use watch::Watch;

/// The oldest Landlock that keeps signals and abstract sockets inside, and what brought it.
const LANDLOCK: ABI = ABI::V6;
const NEEDS: &str = "it needs Linux 6.12 or newer, with Landlock enabled";
/// Memory of a server with all its processes, where nothing else was said. Interpreters map much more than a wasm server.
pub(crate) const NATIVE_MEMORY: usize = 1 << 30;
/// Processes that a server may have, itself included.
const PROCESSES: usize = 64;
/// Threads of all of them, for users other than root.
const THREADS: u64 = 512;
const OPEN_FILES: u64 = 1024;

/// What this machine can enforce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// A network of its own, with no way out, and users of its own.
    pub(crate) namespaces: bool,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Landlock, seccomp")?;
        if self.namespaces { f.write_str(", namespaces") } else { Ok(()) }
    }
}

/// What this machine can enforce, tried out once; or what is missing, and how to get it.
pub(crate) fn level() -> Result<Level, String> {
    static LEVEL: OnceLock<Result<Level, String>> = OnceLock::new();
    LEVEL.get_or_init(probe).clone()
}

fn probe() -> Result<Level, String> {
    ruleset(std::iter::empty())
        .map_err(|error| format!("this system can't sandbox native servers: {NEEDS} ({error})"))?;
    let mut child = Child::new(None, syscalls::filter(false, true)?);
    child.namespaces = true;
    let tried = |child: Child| {
        let mut command = std::process::Command::new("/bin/true");
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _alive = child.confine(&mut command)?;
        command.status()
    };
    match tried(child) {
        Ok(_) => Ok(Level { namespaces: true }),
        Err(error) => match Step::of(&error) {
            Some((Step::Seccomp, reason)) => {
                Err(format!("this system can't sandbox native servers: seccomp: {reason}"))
            }
            Some(_) => Ok(Level { namespaces: false }),
            // It came as far as to the program.
            None => Ok(Level { namespaces: true }),
        },
    }
}

/// What of this can't be enforced here, and how that could be changed.
pub(crate) fn unenforceable(level: Level, sandbox: &SandboxConfig) -> Option<String> {
    let message = "its `network` can't be enforced: that needs user namespaces, which this system does not allow \
        (sysctl `kernel.unprivileged_userns_clone=1`, or `kernel.apparmor_restrict_unprivileged_userns=0`)";
    (!level.namespaces && !sandbox.network.is_empty()).then(|| message.into())
}

/// A native server that is about to start.
pub(crate) struct NativeSandbox {
    child: Child,
    network: Option<network::Prepared>,
    env: BTreeMap<String, String>,
    /// Its home and its temporary files; removed with this.
    home: Home,
    memory: usize,
    bounds: Bounds,
    namespaces: bool,
    alive: Option<OwnedFd>,
}

/// A native server that was started.
pub(crate) struct Confined {
    pub(crate) bounds: Bounds,
    /// All of these have to live as long as the server, which ends with the first.
    alive: Option<OwnedFd>,
    _watch: Watch,
    _network: Option<Forwarder>,
    home: Home,
}

impl NativeSandbox {
    /// `path` is the `PATH` that it gets. Strings of `sandbox` are expanded.
    pub(crate) fn new(
        program: &str,
        arguments: &[String],
        folder: Option<&Path>,
        path: Option<String>,
        sandbox: &SandboxConfig,
    ) -> Result<Self, String> {
        let level = level()?;
        if let Some(message) = unenforceable(level, sandbox) {
            return Err(message);
        }
        let program = files::find_program(program, folder, path.as_deref());
        let program = program.ok_or("there is no such program; is it installed, and on the PATH?")?;
        let mounts = mounts(level, sandbox)?;
        let needed = Needed::of(&program, arguments, folder, path.as_deref(), &mounts);
        if let Some(message) = missing(&needed) {
            return Err(message);
        }
        let home = Home::new();
        let home = home.map_err(|error| format!("can't make a folder for its temporary files: {error}"))?;
        let own = home.path().canonicalize().map_err(|error| format!("can't find its temporary folder: {error}"))?;
        // What was found above and no other, as a server that has it already may put another in its place at any time.
        let opened = mounts.iter().map(|mount| Ok((mount, open_itself(mount)?))).collect::<Result<Vec<_>, String>>()?;
        let identities =
            opened.iter().map(|(mount, file)| Ok((*mount, identity(file)?))).collect::<Result<Vec<_>, String>>()?;
        let folders = opened.into_iter().map(|(mount, file)| match mount.access {
            Access::ReadOnly => (file, AccessFs::from_read(LANDLOCK)),
            Access::ReadWrite => (file, read_write()),
        });
        let mut files = vec![(own.clone(), read_write())];
        files.extend(needed.files.into_iter().map(|path| (path, AccessFs::from_read(LANDLOCK))));
        files.extend(files::DEVICES.iter().map(|path| (path.into(), AccessFs::ReadFile | AccessFs::WriteFile)));
        let network = if sandbox.network.is_empty() {
            None
        } else {
            let network = network::Prepared::new(&sandbox.network, home.path())?;
            files.push((network.hosts().into(), AccessFs::ReadFile.into()));
            Some(network)
        };
        // What is not there needs no rule.
        let files = files.into_iter().filter_map(|(path, access)| Some((open(&path).ok()?, access)));
        let mut ruleset =
            ruleset(files.chain(folders)).map_err(|error| format!("Landlock refuses its rules: {error}"))?;
        for endpoint in &sandbox.network {
            let rule = NetPort::new(endpoint.port, AccessNet::ConnectTcp);
            ruleset = ruleset.add_rule(rule).map_err(|error| format!("Landlock refuses its rules: {error}"))?;
        }
        let memory = sandbox.memory.unwrap_or(NATIVE_MEMORY);
        let mut child = Child::new(Some(ruleset), syscalls::filter(network.is_some(), level.namespaces)?);
        child.namespaces = level.namespaces;
        child.mounts = bound(own, &identities)?;
        child.network = network.as_ref().map(network::Prepared::inside).transpose()?;
        child.limits =
            vec![(libc::RLIMIT_CORE, 0), (libc::RLIMIT_DATA, memory as u64), (libc::RLIMIT_NOFILE, OPEN_FILES)];
        // Without a namespace it would count all threads of the user.
        child.limits.extend(level.namespaces.then_some((libc::RLIMIT_NPROC, THREADS)));
        let folder = home.path().display().to_string();
        let mut env: BTreeMap<_, _> = [("HOME", Some(folder.clone())), ("TMPDIR", Some(folder)), ("PATH", path)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_string(), value?)))
            .collect();
        env.extend(sandbox.env.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))));
        let (bounds, namespaces) = (Bounds::new(sandbox, false), level.namespaces);
        Ok(Self { child, network, env, home, memory, bounds, namespaces, alive: None })
    }

    /// Sets the command up: its variables, and what it does before it becomes the server.
    pub(crate) fn confine(&mut self, command: &mut Command) -> std::io::Result<()> {
        command.env_clear().envs(&self.env);
        self.alive = Some(std::mem::take(&mut self.child).confine(command.as_std_mut())?);
        Ok(())
    }

    /// The server was started; it leads its process group.
    pub(crate) fn started(self, group: u32) -> Result<Confined, String> {
        let Self { network, home, memory, bounds, namespaces, alive, .. } = self;
        let network = network.map(network::Prepared::forward).transpose()?;
        let watch = Watch::new(group, &bounds.meter, memory, PROCESSES, namespaces);
        let watch = watch.map_err(|error| format!("its limits can't be enforced: no thread to watch it: {error}"))?;
        let alive = alive.filter(|_| namespaces);
        Ok(Confined { bounds, home, alive, _watch: watch, _network: network })
    }
}

impl Confined {
    /// Has the kernel end all of it, where that can be done.
    pub(crate) fn let_go(&mut self) -> bool {
        self.alive.take().is_some()
    }

    /// After all its processes have ended: removes what it has left in its home. Blocks.
    pub(crate) fn clear(self) {
        self.home.clear();
    }
}

/// What is not the system's of what a program needs to start: it can be read. An error where it can't start like that.
pub(crate) fn program_files(
    program: &str,
    arguments: &[String],
    folder: Option<&Path>,
    path: Option<&str>,
    sandbox: &SandboxConfig,
) -> Result<Vec<PathBuf>, String> {
    let found = files::find_program(program, folder, path).ok_or_else(|| format!("there is no program `{program}`"))?;
    let mounts = mounts(level()?, sandbox)?;
    let needed = Needed::of(&found, arguments, folder, path, &mounts);
    if let Some(message) = missing(&needed) {
        return Err(message);
    }
    let inside = |file: &Path| file.ancestors().skip(1).any(|folder| needed.files.contains(folder));
    Ok(needed.files.iter().filter(|file| !files::is_of_system(file) && !inside(file)).cloned().collect())
}

fn missing(needed: &Needed<'_>) -> Option<String> {
    let paths: Vec<String> = needed.missing.iter().map(|path| path.display().to_string()).collect();
    (!paths.is_empty()).then(|| {
        format!(
            "it needs `{}`, as files say that it may write to, and so could have written: if that is right, add it to `mounts` with `ro`",
            paths.join("`, `")
        )
    })
}

/// The folders that it is granted.
fn mounts(level: Level, sandbox: &SandboxConfig) -> Result<Vec<Granted>, String> {
    for Mount { host, guest, .. } in &sandbox.mounts {
        if let Some(guest) = guest.as_ref().filter(|guest| Path::new(guest) != host) {
            return Err(format!(
                "a native server sees folders under their own paths only: remove `\"guest\": \"{guest}\"` from the mount of `{}`",
                host.display()
            ));
        }
    }
    let all = super::mounts::find(&sandbox.mounts)?;
    let contradiction = super::mounts::contradiction(&all).filter(|_| !level.namespaces);
    contradiction.map_or(Ok(all), |message| Err(format!("{message}; to enforce that needs user namespaces")))
}

/// What is mounted anew where there are namespaces, the outer before the inner: all that can be written, and what can't, but is inside of that.
fn bound(home: PathBuf, mounts: &[(&Granted, Identity)]) -> Result<Vec<Bound>, String> {
    let mut bound = BTreeMap::from([(home, (Access::ReadWrite, None))]);
    let outer = |inner: &Granted| {
        let all = mounts.iter().filter(|(mount, _)| mount.access == Access::ReadWrite);
        let outer = all.filter(|(mount, _)| inner.real.starts_with(&mount.real)).map(|(mount, _)| &mount.real);
        outer.min_by_key(|path| path.components().count())
    };
    for (mount, identity) in mounts {
        let Some(outer) = outer(mount) else { continue };
        if mount.access == Access::ReadOnly {
            // Each folder on the way to it, as what is mounted can't be renamed, and the way can't be led elsewhere.
            let between = mount.real.ancestors().skip(1).take_while(|folder| *folder != outer);
            for folder in between {
                bound.entry(folder.to_path_buf()).or_insert((Access::ReadWrite, None));
            }
            // The same folder twice: what is allowed less wins.
            bound.insert(mount.real.clone(), (Access::ReadOnly, Some(*identity)));
        } else {
            bound.entry(mount.real.clone()).or_insert((Access::ReadWrite, Some(*identity))).1 = Some(*identity);
        }
    }
    let mut bound: Vec<_> = bound.into_iter().collect();
    bound.sort_by_key(|(path, _)| path.components().count());
    let path = |path: PathBuf| CString::new(path.into_os_string().into_vec()).map_err(|error| error.to_string());
    let ready = |(real, (access, identity))| Ok(Bound { path: path(real)?, access, identity });
    bound.into_iter().map(ready).collect()
}

/// Opens what a mount was found to be.
fn open_itself(mount: &Granted) -> Result<OwnedFd, String> {
    let failed = |error| format!("can't mount `{}`: {}", mount.host.display(), std::io::Error::from(error));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, &mount.real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(failed)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn identity(file: &OwnedFd) -> Result<Identity, String> {
    child::identity(file).map_err(|error| format!("can't look at a mount: {error}"))
}

/// Why a command that was set up could not be started, if that is the sandbox's doing.
pub(crate) fn explain(error: &std::io::Error) -> Option<String> {
    let (step, reason) = Step::of(error)?;
    Some(format!("its sandbox can't be set up ({}): {reason}", step.name()))
}

/// Everything but making devices and sockets.
fn read_write() -> BitFlags<AccessFs> {
    AccessFs::from_all(LANDLOCK) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev)
}

/// Lets do with these files what stands beside them, and nothing with all others.
fn ruleset(
    granted: impl Iterator<Item = (OwnedFd, BitFlags<AccessFs>)>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    for (file, access) in granted {
        let is_folder = rustix::fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        let access = if is_folder { access } else { access & AccessFs::from_file(LANDLOCK) };
        ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
    }
    Ok(ruleset)
}
