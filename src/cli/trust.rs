//! Whether a configuration that is found in the folder may start programs: a person says so once for each content of it. What they said
//! is kept in a file of this user's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use etcetera::BaseStrategy;
use rhaiway::{Config, Transport};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Failure, USAGE, ask, render};

/// Configurations that are remembered; of more, the oldest is forgotten.
const KEPT: usize = 1000;
/// Longest file of them.
const FILE_BYTES: u64 = 4 << 20;
/// Servers that are shown in a question, and letters of each.
const SHOWN: usize = 200;
const SHOWN_LETTERS: usize = 2000;

#[derive(Args)]
pub(super) struct TrustArguments {
    /// The configuration; without it, the one in this folder.
    file: Option<PathBuf>,
    /// List what is trusted.
    #[arg(long, conflicts_with_all = ["file", "remove"])]
    list: bool,
    /// Trust it no longer.
    #[arg(long)]
    remove: bool,
}

/// What was trusted: the digest of its content, by its path.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    trusted: Vec<Trusted>,
}

#[derive(Serialize, Deserialize)]
struct Trusted {
    path: PathBuf,
    sha256: String,
}

pub(super) fn trust(arguments: TrustArguments) -> Result<u8, Failure> {
    let TrustArguments { file, list, remove } = arguments;
    if list {
        for Trusted { path, sha256 } in load()?.trusted {
            render::data(&format!("{sha256}  {}", path.display()))?;
        }
        return Ok(0);
    }
    let file = file
        .or_else(super::found_config)
        .ok_or_else(|| Failure::usage("there is neither `rhaiway.json` nor `mcp.json` in this folder: name a FILE"))?;
    let path = place(&file);
    if remove {
        let mut was_known = false;
        change(|known| {
            let before = known.trusted.len();
            known.trusted.retain(|trusted| trusted.path != path);
            was_known = known.trusted.len() < before;
        })?;
        let said = if was_known { "is not trusted any more" } else { "was not trusted" };
        render::note(&format!("`{}` {said}", file.display()));
        return Ok(0);
    }
    let text = super::read_config(&file)?;
    let config = Config::from_text(&text, &file)?;
    remember(&path, &text)?;
    render::note(&format!("trusted: `{}`, as it is now. It starts:\n{}", file.display(), what_it_starts(&config)));
    Ok(0)
}

/// Lets a configuration that was found pass, if it is trusted, or a person at the terminal says that it is.
pub(super) fn check(file: &Path, text: &str, config: &Config) -> Result<(), Failure> {
    let path = place(file);
    let digest = digest(text);
    let known = load()?.trusted.into_iter().find(|trusted| trusted.path == path);
    if known.as_ref().is_some_and(|trusted| trusted.sha256 == digest) || config.server_names().is_empty() {
        return Ok(());
    }
    let shown = file.display();
    let why = if known.is_some() { "has changed since you trusted it" } else { "was found in this folder" };
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure {
            code: USAGE,
            kind: "untrusted",
            message: format!(
                "`{shown}` {why}, and would start programs; there is no terminal to ask at. Name it with `--config {shown}`, say `--trust` for \
                 this run, or run `rhaiway trust {shown}` once"
            ),
        });
    }
    render::note(&format!("`{shown}` {why}. It starts:\n{}", what_it_starts(config)));
    if ask::yes("Start them from now on, for as long as the file stays as it is?").map_err(Failure::usage)? {
        return remember(&path, text);
    }
    Err(Failure {
        code: USAGE,
        kind: "untrusted",
        message: format!("`{shown}` is not trusted: nothing was started. `--config FILE` names another"),
    })
}

/// A line for each server: the program with its arguments, its folder and the names of its variables; or the host with the names of
/// headers. `${…}` is not expanded.
fn what_it_starts(config: &Config) -> String {
    let names = config.server_names();
    let mut lines = String::new();
    for name in names.iter().take(SHOWN) {
        let what = match config.server(name) {
            Err(_) => "nothing, as its entry is malformed".to_string(),
            Ok(server) => match server.transport {
                Transport::Stdio { command, args, env, env_file, cwd, inherit_env, .. } => {
                    let words: Vec<String> = std::iter::once(command).chain(args).collect();
                    let mut what = words.join(" ");
                    if let Some(folder) = cwd {
                        let _ = write!(what, ", in {}", folder.display());
                    }
                    let names: Vec<String> = env.into_keys().chain(inherit_env).collect();
                    if !names.is_empty() {
                        let _ = write!(what, ", with {}", names.join(", "));
                    }
                    if let Some(file) = env_file {
                        let _ = write!(what, ", with the variables in {}", file.display());
                    }
                    what
                }
                Transport::Http(http) | Transport::Sse(http) | Transport::WebSocket(http) => {
                    let headers: Vec<&str> = http.headers.keys().map(String::as_str).collect();
                    let sends =
                        if headers.is_empty() { String::new() } else { format!(", sends {}", headers.join(", ")) };
                    format!("{}{sends}", host(&http.url))
                }
                _ => "something else".into(),
            },
        };
        let line = format!("{name}: {what}");
        let cut = line.char_indices().nth(SHOWN_LETTERS).map_or(line.len(), |(at, _)| at);
        let left = line[cut..].chars().count();
        let more = if left > 0 { format!(" … and {left} letters more: see the file") } else { String::new() };
        let _ = writeln!(lines, "  {}{more}", line[..cut].replace(['\n', '\r', '\t'], " "));
    }
    if names.len() > SHOWN {
        let _ = writeln!(lines, "  … and {} more", names.len() - SHOWN);
    }
    lines.truncate(lines.trim_end().len());
    lines
}

/// Where an address leads, without names, passwords and keys in it.
fn host(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { host.into() } else { format!("{scheme}://{host}") }
}

fn digest(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

/// The file without links in its path, so that it is known from everywhere.
fn place(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.into())
}

fn folder() -> Result<PathBuf, Failure> {
    let folders =
        etcetera::choose_base_strategy().map_err(|_| Failure::usage("this user has no folder to keep it in"))?;
    Ok(folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("rhaiway"))
}

fn load() -> Result<Known, Failure> {
    let file = folder()?.join("trusted.json");
    let read = || -> io::Result<Known> {
        // Before it is opened, as a pipe would keep us waiting.
        if !std::fs::metadata(&file)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = String::new();
        std::fs::File::open(&file)?.take(FILE_BYTES).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
        read => read.map_err(|error| {
            let message = "It holds which configurations you trust; remove it, and trust them again";
            Failure::usage(format!("can't read `{}`: {error}. {message}", file.display()))
        }),
    }
}

fn remember(path: &Path, text: &str) -> Result<(), Failure> {
    change(|known| {
        known.trusted.retain(|trusted| trusted.path != path);
        known.trusted.push(Trusted { path: path.into(), sha256: digest(text) });
        let over = known.trusted.len().saturating_sub(KEPT);
        known.trusted.drain(..over);
    })
}

/// Changes the file, which only this user can read; one command at a time.
fn change(change: impl FnOnce(&mut Known)) -> Result<(), Failure> {
    let folder = folder()?;
    let write = || -> io::Result<std::fs::File> {
        super::tokens::private_folder(&folder)?;
        let lock =
            std::fs::File::options().create(true).truncate(false).write(true).open(folder.join("trusted.lock"))?;
        lock.lock()?;
        Ok(lock)
    };
    let failed = |error: io::Error| Failure::usage(format!("can't write to `{}`: {error}", folder.display()));
    let _lock = write().map_err(failed)?;
    let mut known = load()?;
    change(&mut known);
    let save = || -> io::Result<()> {
        // A temporary file can be read by its owner only, and stays so.
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer(&mut file, &known)?;
        file.as_file().sync_all()?;
        file.persist(folder.join("trusted.json"))?;
        Ok(())
    };
    save().map_err(failed)
}

/// The servers that there are, for a script that names another.
pub(super) fn servers_there_are(names: &BTreeMap<String, rhaiway::ServerStatus>) -> String {
    let names: Vec<&str> = names.keys().map(String::as_str).take(SHOWN).collect();
    if names.is_empty() {
        "no server is configured".into()
    } else {
        format!("there are the servers `{}`", names.join("`, `"))
    }
}
