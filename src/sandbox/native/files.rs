//! The files that a program needs to start: its own, those of its interpreter, and the system's libraries. Nothing of them can be written.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

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
/// Devices that hold nothing of anybody's.
pub(super) const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];
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

/// All that a program needs to start.
pub(super) fn needed(
    program: &Path,
    arguments: &[String],
    folder: Option<&Path>,
    path: Option<&str>,
) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    add_program(program, path, DEPTH, &mut files);
    // The script of an interpreter.
    if let Some(script) = arguments.iter().find(|argument| !argument.starts_with('-')) {
        let script = folder.map_or_else(|| PathBuf::from(script), |folder| folder.join(script));
        if script.is_file() {
            add_file(&script, &mut files);
        }
    }
    files
}

fn add_program(program: &Path, path: Option<&str>, depth: usize, files: &mut BTreeSet<PathBuf>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    add_file(program, files);
    for file in [Some(program.to_path_buf()), program.canonicalize().ok()].into_iter().flatten() {
        if let Some(folder) = file.parent().filter(|folder| folder.ends_with("bin")).and_then(Path::parent) {
            add_prefix(folder, path, depth, files);
        }
    }
    if let Some(interpreter) = interpreter(program, path) {
        add_program(&interpreter, path, depth, files);
    }
}

/// A file, where it really is; of a package of Node's, all packages beside it.
fn add_file(file: &Path, files: &mut BTreeSet<PathBuf>) {
    let real = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    for file in [file, &real] {
        let packages = file.ancestors().filter(|folder| folder.ends_with("node_modules")).last();
        files.insert(packages.unwrap_or(file).to_path_buf());
    }
}

/// Where a program and its libraries are installed, such as `/opt/python`.
fn add_prefix(prefix: &Path, path: Option<&str>, depth: usize, files: &mut BTreeSet<PathBuf>) {
    let settings = prefix.join("pyvenv.cfg");
    if let Ok(text) = std::fs::read_to_string(&settings) {
        files.insert(prefix.to_path_buf());
        let home = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "home");
        if let Some((_, home)) = home {
            let python = Path::new(home.trim()).join("python3");
            add_program(&python, path, depth, files);
        }
        return;
    }
    // Only what is installed there, as the prefix may be somebody's home.
    let libraries = prefix.join("lib");
    for entry in std::fs::read_dir(&libraries).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("python3") || name.starts_with("lib") || name == "node_modules" {
            files.insert(entry.path());
        }
    }
}

/// The program that a script's first line names.
fn interpreter(script: &Path, path: Option<&str>) -> Option<PathBuf> {
    let mut start = [0; 256];
    let read = std::fs::File::open(script).ok()?.read(&mut start).ok()?;
    let line = start[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if program.ends_with("/env") {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        return find_program(name, None, path);
    }
    Some(PathBuf::from(program))
}
