//! What holds for the repository itself: the import rules of ARCHITECTURE.md, and the built guest against its sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The floors of `src/`, lowest first; a module imports only from floors below its own, and from its own folder.
const FLOORS: &[&[&str]] = &[
    &["near", "tool", "units"],
    &["error", "files"],
    &["limits"],
    &["catalog", "config", "middleware"],
    &["sandbox"],
    &["script", "session"],
    &["serve"],
    &["client"],
    &["lib"],
    &["cli", "main"],
];

/// Crates that only some modules may name.
const CRATES: &[(&str, &[&str])] = &[
    ("rhai::", &[]),
    ("rhaiway_engine", &["script"]),
    ("wasmtime", &["sandbox", "script"]),
    ("cap_std", &["sandbox"]),
    ("landlock::", &["sandbox"]),
    ("seccompiler::", &["sandbox"]),
    ("libc::", &["sandbox"]),
    ("wit_parser", &["sandbox"]),
    ("jsonschema", &["catalog"]),
    // `config` for names of tools that are denied.
    ("deunicode", &["catalog", "config"]),
    ("jsonc_parser", &["config"]),
    ("toml::", &["config"]),
    // `middleware` and `client` for its model types, which are in the public API, and for handlers that are given as servers.
    ("rmcp", &["middleware", "session", "serve", "client", "lib"]),
    // `cli` for its URLs.
    ("reqwest", &["session", "cli"]),
    ("tokio_tungstenite", &["session"]),
    ("jsonwebtoken", &["session"]),
    ("aws_lc_rs", &["session"]),
    ("keyring::", &["cli"]),
    ("open::", &["cli"]),
    ("comfy_table", &["cli"]),
    ("rhaiway_demo_server", &["cli"]),
    ("println!", &["cli"]),
    ("print!", &["cli"]),
    ("std::env::", &["cli"]),
    ("unsafe ", &["sandbox"]),
];

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("repository::modules_import_downward", modules_import_downward),
        Trial::test("repository::crates_stay_in_their_modules", crates_stay_in_their_modules),
        Trial::test("repository::the_built_guests_are_those_of_these_sources", built_guests_are_current),
        Trial::test("repository::the_built_guests_have_their_checksums", built_guests_have_their_checksums),
    ]
}

/// The sources of `src/`, by module, without comments.
fn modules() -> BTreeMap<String, String> {
    fn read(path: &Path, into: &mut String) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                read(&entry.unwrap().path(), into);
            }
        } else {
            let text = std::fs::read_to_string(path).unwrap();
            let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
            into.extend(code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]));
        }
    }
    let mut modules = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        read(&path, modules.entry(name).or_default());
    }
    modules
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("`src/{module}` is on no floor: add it to FLOORS and to ARCHITECTURE.md"))
}

fn modules_import_downward() -> Result<(), libtest_mimic::Failed> {
    let modules = modules();
    let mut found = 0;
    for (module, code) in &modules {
        for import in code.split("crate::").skip(1) {
            let imported: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !modules.contains_key(&imported) || imported == *module {
                continue;
            }
            found += 1;
            if floor(&imported) >= floor(module) {
                return Err(format!("`src/{module}` imports `crate::{imported}`, which is not below it").into());
            }
        }
    }
    assert!(found > 20, "the imports were not found");
    Ok(())
}

fn crates_stay_in_their_modules() -> Result<(), libtest_mimic::Failed> {
    let modules = modules();
    for (name, allowed) in CRATES {
        for (module, code) in &modules {
            let names = code
                .match_indices(name)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if names && !allowed.contains(&module.as_str()) {
                return Err(format!("`src/{module}` names `{name}`, which only {allowed:?} may").into());
            }
        }
    }
    Ok(())
}

fn dist(file: &str) -> PathBuf {
    Path::new(ROOT).join("sandbox/dist").join(file)
}

/// The names of the guests that are built.
fn guests() -> Vec<String> {
    let files = std::fs::read_dir(dist("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut guests: Vec<String> = files.filter_map(|file| file.strip_suffix(".wasm").map(String::from)).collect();
    guests.sort();
    guests
}

fn built_guests_are_current() -> Result<(), libtest_mimic::Failed> {
    if !cfg!(target_os = "linux") {
        return Ok(()); // the digest is made by a script for Linux
    }
    assert_eq!(guests(), ["demo", "engine", "notes", "probe-p1", "probe-p2", "units"]);
    for guest in guests() {
        let script = Path::new(ROOT).join("sandbox/build.sh");
        let output = Command::new("bash").arg(script).args(["--digest", &guest]).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let now = String::from_utf8(output.stdout)?;
        let built = std::fs::read_to_string(dist(&format!("{guest}.sources")))?;
        let changed: Vec<&str> = now.lines().filter(|line| !built.contains(line)).collect();
        if now != built {
            let message = format!(
                "sandbox/dist/{guest}.wasm is not built from these sources: run sandbox/build.sh --changed. Changed: {changed:#?}"
            );
            return Err(message.into());
        }
    }
    Ok(())
}

fn built_guests_have_their_checksums() -> Result<(), libtest_mimic::Failed> {
    use sha2::{Digest, Sha256};
    let line = |guest: String| {
        let sum = Sha256::digest(std::fs::read(dist(&format!("{guest}.wasm"))).unwrap());
        format!("{sum:x}  {guest}.wasm")
    };
    let sums: Vec<String> = guests().into_iter().map(line).collect();
    assert_eq!(std::fs::read_to_string(dist("SHA256SUMS"))?.lines().collect::<Vec<_>>(), sums);
    Ok(())
}
