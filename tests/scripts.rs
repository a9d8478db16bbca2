//! The suites in `scripts/`: every script is a test, run in the sandbox and in the process, with what it must come to in its header.
//!
//! The header is the comment lines at the top:
//! `// result: JSON`, `// error: KIND LINE:COLUMN MESSAGE` (or `KIND - MESSAGE`, or the `KIND` alone where others choose the words),
//! `// hint: TEXT` of the error, `// log: LINE` for each line, `// calls: N`, `// limits: NAME=VALUE …` where other limits than the usual are to hold, and
//! `// only: sandbox` where it must not run in the process, as none of those in `scripts/hostile` must. `// open: REASON` stands where a
//! script is known not to come to what it must: it is ignored, and fails once it does.
//!
//! What is too large for a file is written as `⟦TEXT⟧×N`: TEXT so many times, each `№` in it the number of the time.

use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use rhaiway::{Execution, Isolation, Limits};
use serde_json::{Value, json};

use crate::fake_server;
use crate::support::{Ignored, builder, demo, run, test};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

pub fn tests() -> Vec<Trial> {
    let files = files("");
    assert!(!files.is_empty(), "the suites are missing");
    files
        .into_iter()
        .map(|file| Script::read(&file))
        .flat_map(|script| [(script.clone(), Isolation::Sandbox), (script, Isolation::InProcess)])
        .filter(|(script, isolation)| *isolation == Isolation::Sandbox || !script.is_for_the_sandbox_only())
        .map(|(script, isolation)| {
            test(&format!("scripts::{}::{isolation:?}", script.name), async move || {
                match (script.check(&script.run(isolation).await), script.open()) {
                    (Ok(()), None) => Ok(()),
                    (Err(_), Some(reason)) => Err(Ignored(reason.into())),
                    (Err(wrong), None) => panic!("{wrong}"),
                    (Ok(()), Some(_)) => panic!("it comes to what it must: take out `// open: …`"),
                }
            })
        })
        .collect()
}

/// The scripts in a folder of `scripts/`, and in the folders in it.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&Path::new(ROOT).join(folder), &mut files);
    files
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

/// A script with its header.
#[derive(Clone)]
pub struct Script {
    /// Its path in `scripts/`.
    pub name: String,
    /// Lines of the header, without their `// `.
    header: Vec<String>,
    source: String,
}

impl Script {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        Self {
            name: file.strip_prefix(ROOT).unwrap().display().to_string(),
            header: text.lines().map_while(|line| line.strip_prefix("// ")).map(Into::into).collect(),
            source: expanded(&text),
        }
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.header.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).collect()
    }

    /// Some limits only wasm can hold.
    fn is_for_the_sandbox_only(&self) -> bool {
        self.name.starts_with("hostile") || self.all("only") == ["sandbox"]
    }

    pub async fn run(&self, isolation: Isolation) -> Execution {
        let mut servers =
            json!({"demo": demo(), "fake-server": fake_server::entry("plain"), "3d": fake_server::entry("collisions")});
        if self.name.starts_with("hostile") {
            servers["evil"] = fake_server::entry("hostile");
        }
        let mut limits = Limits::default();
        for limit in self.all("limits").into_iter().flat_map(str::split_whitespace) {
            let (name, value) = limit.split_once('=').expect("a limit is NAME=VALUE");
            limits.set(name, value).unwrap();
        }
        let client = builder(servers).isolation(isolation).limits(limits).build().unwrap();
        let execution = run(&client, &self.source).await;
        client.close_all_sessions().await;
        execution
    }

    /// Why it is known not to come to what it must.
    pub fn open(&self) -> Option<&str> {
        self.all("open").first().copied()
    }

    /// What is not as the header says.
    pub fn check(&self, execution: &Execution) -> Result<(), String> {
        let (results, errors) = (self.all("result"), self.all("error"));
        let (expected, found) = match (&results[..], &errors[..]) {
            ([expected], []) => {
                let value: Value = serde_json::from_str(expected).expect("the header's result is JSON");
                let expected = format!("result: {expected}");
                let is_same = execution.error.is_none() && execution.result == value;
                let found = if is_same { expected.clone() } else { outcome(execution, &expected) };
                (expected, found)
            }
            ([], [expected]) => (format!("error: {expected}"), outcome(execution, expected)),
            _ => panic!("the header of {} says either `// result: …` or `// error: …`", self.name),
        };
        same("", &found, &expected)?;
        if let Some(expected) = self.all("hint").first() {
            let hint = execution.error.as_ref().and_then(|error| error.hint.as_deref());
            same("hint: ", hint.unwrap_or("none"), expected)?;
        }
        if let Some(expected) = self.all("calls").first() {
            same("calls: ", &execution.calls.len().to_string(), expected)?;
        }
        let logs = self.all("log");
        if logs.is_empty() { Ok(()) } else { same("logs: ", &execution.logs.join("\n"), &logs.join("\n")) }
    }
}

/// As it would stand in the header; of an error, the kind alone if that is all that is expected.
fn outcome(execution: &Execution, expected: &str) -> String {
    let Some(error) = &execution.error else { return format!("result: {}", execution.result) };
    let place = error.line.zip(error.column).map_or("-".into(), |(line, column)| format!("{line}:{column}"));
    let kind = error.kind.as_str();
    if kind == expected { format!("error: {kind}") } else { format!("error: {kind} {place} {}", error.message) }
}

fn same(what: &str, found: &str, expected: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let found: String = found.chars().take(2000).collect();
    Err(format!("{what}{found}\nexpected {what}{expected}"))
}

fn expanded(text: &str) -> String {
    let mut parts = text.split('⟦');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (repeated, rest) = part.split_once("⟧×").expect("⟦ and ⟧× belong together");
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let times: usize = rest[..digits].parse().expect("⟧× comes before a number");
        out.extend((0..times).map(|time| repeated.replace('№', &time.to_string())));
        out.push_str(&rest[digits..]);
    }
    out
}
