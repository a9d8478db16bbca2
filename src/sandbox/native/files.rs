//! The files that a program needs to start: its own, those of its interpreter, and the system's libraries. Nothing of them can be written.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::mounts::{Granted, follow};
use crate::config::Access;

/// Programs and libraries of the system, and what these read.
const SYSTEM: &[&str] = &[
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/usr",
    "/gnu/store",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/proc/version",
    "/sys/devices/system/cpu",
];
/// Devices that hold nothing of anybody's. Not `/dev/zero`, of which memory can be mapped that counts as nobody's.
pub(super) const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom"];
/// Bytes of a first line, as the kernel has it, and of the settings of a Python environment.
const LINE: u64 = 256;
const SETTINGS: u64 = 16 << 10;
/// Interpreters that start interpreters.
const DEPTH: usize = 4;

/// The file of a program: looked up on `path`, unless it is named with its folder.
pub(super) fn find_program(program: &str, folder: Option<&Path>, path: Option<&str>) -> Option<PathBuf> {
    if program.contains('/') {
        let file = folder.map_or_else(|| PathBuf::from(program), |folder| folder.join(program));
        return std::path::absolute(file).ok().filter(|file| file.is_file());
    }
    path?.split(':').map(|folder| Path::new(folder).join(program)).find(|file| is_executable(file))
}

/// Whether everybody has it.
pub(super) fn is_of_system(file: &Path) -> bool {
    SYSTEM.iter().any(|system| file.starts_with(system))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What a program needs to start.
pub(super) struct Needed<'a> {
    path: Option<&'a str>,
    granted: &'a [Granted],
    /// All that is readable to it therefore.
    pub(super) files: BTreeSet<PathBuf>,
    /// What a file says that it needs, which the server could have written itself: not granted, and so it can't start.
    pub(super) missing: BTreeSet<PathBuf>,
}

impl<'a> Needed<'a> {
    /// What `program` needs, which is looked up on `path`. `granted` is what it is granted beside that.
    pub(super) fn of(
        program: &Path,
        arguments: &[String],
        folder: Option<&Path>,
        path: Option<&'a str>,
        granted: &'a [Granted],
    ) -> Self {
        let files = SYSTEM.iter().map(PathBuf::from).collect();
        let mut needed = Self { path, granted, files, missing: BTreeSet::new() };
        needed.add_program(program, false, DEPTH);
        // The script of an interpreter.
        if let Some(script) = arguments.iter().find(|argument| !argument.starts_with('-')) {
            let script = folder.map_or_else(|| PathBuf::from(script), |folder| folder.join(script));
            if script.is_file() {
                needed.add_file(&script, false);
            }
        }
        needed
    }

    /// Whether the server could have put something else there, or a link on the way to it.
    fn may_change(&self, path: &Path) -> bool {
        let mut writable = self.granted.iter().filter(|granted| granted.access == Access::ReadWrite).peekable();
        if writable.peek().is_none() {
            return false;
        }
        let Ok((real, links)) = follow(path) else { return false };
        writable.any(|granted| [&real].into_iter().chain(&links).any(|path| path.starts_with(&granted.real)))
    }

    /// `is_said` by a file that the server may write to, it is granted only if it is anyway.
    fn add(&mut self, path: &Path, is_said: bool) {
        if !(is_said || self.may_change(path)) {
            self.files.insert(path.to_path_buf());
            return;
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let is_granted = is_of_system(&real) || self.granted.iter().any(|granted| real.starts_with(&granted.real));
        if !is_granted && real.exists() {
            self.missing.insert(real);
        }
    }

    fn add_program(&mut self, program: &Path, is_said: bool, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        self.add_file(program, is_said);
        let is_said = is_said || self.may_change(program);
        for file in [Some(program.to_path_buf()), program.canonicalize().ok()].into_iter().flatten() {
            if let Some(folder) = file.parent().filter(|folder| folder.ends_with("bin")).and_then(Path::parent) {
                self.add_prefix(folder, is_said, depth);
            }
        }
        if let Some(interpreter) = interpreter(program, self.path) {
            self.add_program(&interpreter, is_said, depth);
        }
    }

    /// A file, where it really is; of a package of Node's, all packages beside it.
    fn add_file(&mut self, file: &Path, is_said: bool) {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        for file in [file, &real] {
            let packages = file.ancestors().filter(|folder| folder.ends_with("node_modules")).last();
            self.add(packages.unwrap_or(file), is_said);
        }
    }

    /// Where a program and its libraries are installed, such as `/opt/python`.
    fn add_prefix(&mut self, prefix: &Path, is_said: bool, depth: usize) {
        let settings = prefix.join("pyvenv.cfg");
        if let Some(text) = start_of(&settings, SETTINGS).and_then(|text| String::from_utf8(text).ok()) {
            self.add(prefix, is_said);
            let home = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "home");
            if let Some((_, home)) = home {
                let python = Path::new(home.trim()).join("python3");
                self.add_program(&python, is_said || self.may_change(&settings), depth);
            }
            return;
        }
        // Only what is installed there, as the prefix may be somebody's home.
        let libraries = prefix.join("lib");
        for entry in std::fs::read_dir(&libraries).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_library = name.starts_with("python3") || name.starts_with("lib") || name == "node_modules";
            if is_library && !self.may_change(&entry.path()) {
                self.add(&entry.path(), is_said);
            }
        }
    }
}

/// The first bytes of a file; never waits, as for a pipe that a server put in its place.
fn start_of(path: &Path, most: u64) -> Option<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let file = std::fs::File::from(file);
    let mut start = Vec::new();
    (file.metadata().ok()?.is_file() && file.take(most).read_to_end(&mut start).is_ok()).then_some(start)
}

/// The program that a script's first line names.
fn interpreter(script: &Path, path: Option<&str>) -> Option<PathBuf> {
    let start = start_of(script, LINE)?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if program.ends_with("/env") {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        return find_program(name, None, path);
    }
    Some(PathBuf::from(program))
}
