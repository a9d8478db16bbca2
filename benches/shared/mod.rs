//! What the benchmarks have in common: a client on the tests' cache, medians, and what Linux says of this process.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use rhaiway::{Client, Config, Isolation, Limits};
use serde_json::{Value, json};

#[allow(dead_code, reason = "not every benchmark runs scripts")]
pub(crate) fn client(servers: &Value, isolation: Isolation, limits: Limits) -> Client {
    Client::builder()
        .config(Config::from_value(json!({"mcpServers": servers})).unwrap())
        .variables(|name| std::env::var(name).ok())
        .cache_dir(cache_home().join("rhaiway"))
        .code_mode(true)
        .isolation(isolation)
        .limits(limits)
        .build()
        .unwrap()
}

/// The tests' cache too.
#[allow(dead_code, reason = "one has a cache of its own")]
pub(crate) fn cache_home() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"))
}

#[allow(dead_code, reason = "not every benchmark times work without a value")]
pub(crate) async fn time(work: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    work.await;
    start.elapsed()
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

/// A line of `/proc/self/status`, such as `12345 kB`; nothing where there is no such file.
pub(crate) fn status(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().into())
}

/// kB of memory that this process has, pages that are mapped several times counted once.
#[allow(dead_code, reason = "not every benchmark weighs itself")]
pub(crate) fn proportional() -> usize {
    let sums = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let sum = sums.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    sum.map_or(0, |sum| sum.parse().unwrap())
}
