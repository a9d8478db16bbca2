//! The suites in `scripts/`: every script is a test, run in the sandbox and in the process, with what it must come to in its header.
//!
//! The header is the comment lines at the top:
//! `// result: JSON`, `// error: KIND LINE:COLUMN MESSAGE` (or `KIND - MESSAGE`), `// log: LINE` for each line, `// calls: N`, and
//! `// only: sandbox` where it must not run in the process.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use rhaiway::{Execution, Isolation};
use serde_json::{Value, json};

use crate::fake_server;
use crate::support::{builder, demo, run, test};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

pub fn tests() -> Vec<Trial> {
    let mut files = Vec::new();
    collect(Path::new(ROOT), &mut files);
    assert!(!files.is_empty(), "the suites are missing");
    files
        .into_iter()
        .flat_map(|file| [(file.clone(), Isolation::Sandbox), (file, Isolation::InProcess)])
        .filter(|(file, isolation)| *isolation == Isolation::Sandbox || !is_for_the_sandbox_only(file))
        .map(|(file, isolation)| {
            let name = file.strip_prefix(ROOT).unwrap().display().to_string();
            test(&format!("scripts::{name}::{isolation:?}"), move || check(file, isolation))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rhai") {
            files.push(path);
        }
    }
    files.sort();
}

/// Some limits only wasm can hold; those scripts say `// only: sandbox`.
fn is_for_the_sandbox_only(file: &Path) -> bool {
    std::fs::read_to_string(file).unwrap().lines().any(|line| line == "// only: sandbox")
}

async fn check(file: PathBuf, isolation: Isolation) -> Result<(), crate::support::Ignored> {
    let source = std::fs::read_to_string(&file).unwrap();
    let servers =
        json!({"demo": demo(), "fake-server": fake_server::entry("plain"), "3d": fake_server::entry("collisions")});
    let client = builder(servers).isolation(isolation).build().unwrap();
    let execution = run(&client, &source).await;
    client.close_all_sessions().await;
    let expected: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("// ")).collect();
    assert!(
        expected.iter().any(|line| line.starts_with("result: ") || line.starts_with("error: ")),
        "the header says neither `// result: …` nor `// error: …`"
    );
    for key in ["result", "error", "calls"] {
        let prefix = format!("{key}: ");
        if let Some(expected) = expected.iter().find_map(|line| line.strip_prefix(&prefix)) {
            compare(key, expected, &execution);
        }
    }
    let logs: Vec<&str> = expected.iter().filter_map(|line| line.strip_prefix("log: ")).collect();
    assert!(logs.is_empty() || execution.logs == logs, "logs: {:?}, expected {logs:?}", execution.logs);
    Ok(())
}

fn compare(key: &str, expected: &str, execution: &Execution) {
    match key {
        "result" => {
            let expected: Value = serde_json::from_str(expected).expect("the header's result is JSON");
            assert_eq!(execution.error, None);
            assert_eq!(execution.result, expected);
        }
        "error" => {
            let error = execution.error.as_ref().unwrap_or_else(|| panic!("no error, but {}", execution.result));
            let place = error.line.zip(error.column).map_or("-".into(), |(line, column)| format!("{line}:{column}"));
            assert_eq!(format!("{} {place} {}", error.kind.as_str(), error.message), expected);
        }
        _ => assert_eq!(execution.calls.len().to_string(), expected),
    }
}
