//! Which processes a test has started: they carry a mark in their environment, and so do theirs.

use std::path::PathBuf;

use serde_json::{Value, json};

const VARIABLE: &str = "RHAIWAY_TEST_MARK";

pub struct Mark(String);

impl Mark {
    pub fn new(name: &str) -> Self {
        Self(format!("{name}-{}-{:?}", std::process::id(), std::time::Instant::now()).replace(char::is_whitespace, ""))
    }

    /// The entry of a server, marked.
    pub fn on(&self, mut entry: Value) -> Value {
        entry["env"][VARIABLE] = self.0.clone().into();
        entry
    }

    /// The same of a server in a sandbox.
    pub fn variables(&self) -> Value {
        json!({VARIABLE: self.0})
    }

    /// Command lines of the marked processes that live.
    pub fn alive(&self) -> Vec<String> {
        let line = |process: PathBuf| std::fs::read(process.join("cmdline")).unwrap_or_default();
        self.processes().map(line).map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
    }

    /// How many of them were left behind by servers that do that.
    pub fn left_behind(&self) -> usize {
        self.alive().iter().filter(|line| line.contains("left-behind")).count()
    }

    /// The folders in `/proc` of the marked processes that live.
    pub fn processes(&self) -> impl Iterator<Item = PathBuf> {
        let wanted = format!("{VARIABLE}={}", self.0);
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
        processes.filter(move |process| {
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
    }

    /// Waits until none lives; the test's own bound ends the wait.
    pub async fn gone(&self) {
        while !self.alive().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
