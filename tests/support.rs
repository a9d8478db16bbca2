//! What all tests share: making a test, a client, a configuration.

use std::future::Future;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rhaiway::{Client, ClientBuilder, Config, ExecuteOptions, Execution};
use serde_json::{Value, json};

use crate::fixtures::{Command, Fixture};

/// Why a test can't run here.
pub struct Ignored(pub String);

/// A test in a runtime of its own. Its name is `module::what_it_shows`.
pub fn test<F>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<(), Ignored>>,
{
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        // A test that hangs must not hang the others.
        match runtime.block_on(async { tokio::time::timeout(Duration::from_secs(240), run()).await }) {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(Ignored(reason))) => Ok(Completion::ignored_with(reason)),
            Err(_) => Err(Failed::from("it takes longer than 240 s")),
        }
    })
}

/// The command of a fetched server, or the end of the test.
pub fn need(fixture: &'static Fixture) -> Result<&'static Command, Ignored> {
    fixture.as_ref().map_err(|reason| missing(reason))
}

/// What can sandbox native servers, or the end of the test.
pub fn need_native_sandbox() -> Result<(), Ignored> {
    static PROBLEM: LazyLock<Value> = LazyLock::new(|| {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("mcp.json");
        let entry = json!({"command": program(), "sandbox": {"network": ["127.0.0.1:80"]}});
        std::fs::write(&file, json!({"mcpServers": {"it": entry}}).to_string()).unwrap();
        let mut command = std::process::Command::new(program());
        let output = command.args(["permissions", "--json", "--config"]).arg(file).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0]["problem"].take()
    });
    PROBLEM.as_str().map_or(Ok(()), |problem| Err(missing(problem)))
}

/// The end of a test that can't run here; a failure where all tests have to.
pub fn missing(reason: &str) -> Ignored {
    assert!(std::env::var_os("RHAIWAY_REQUIRE_FIXTURES").is_none(), "a fixture is missing: {reason}");
    Ignored(reason.into())
}

impl Command {
    /// The configuration's entry for this server.
    pub fn entry(&self, more_arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = self.args.iter().map(String::as_str).chain(more_arguments.iter().copied()).collect();
        json!({"command": self.program, "args": arguments})
    }
}

/// A folder that stays between runs of the tests.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// The compiled engine's cache that all tests share.
pub fn cache_dir() -> PathBuf {
    target_dir().join("cache").join("rhaiway")
}

/// The command under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_rhaiway")
}

/// The entry of the demo server.
pub fn demo() -> Value {
    json!({"command": program(), "args": ["demo-server"]})
}

pub fn config(servers: &Value) -> Config {
    Config::from_value(json!({"mcpServers": servers})).unwrap()
}

/// A client in code mode with these servers.
pub fn builder(servers: Value) -> ClientBuilder {
    Client::builder()
        .config(config(&servers))
        .variables(|name| std::env::var(name).ok())
        .cache_dir(cache_dir())
        .code_mode(true)
}

pub fn client(servers: Value) -> Client {
    builder(servers).build().unwrap()
}

pub async fn run(client: &Client, code: &str) -> Execution {
    client.execute_code(code, ExecuteOptions::default()).await.unwrap()
}

/// The value of a script that is expected to succeed.
#[track_caller]
pub fn value(execution: Execution) -> Value {
    if let Some(error) = execution.error {
        panic!("the script failed: {error}");
    }
    execution.result
}
