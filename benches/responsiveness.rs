//! How late a timer of the host fires, and how long a short script takes, while hostile scripts use what they can get:
//! `cargo bench --bench responsiveness`. Each figure beside its aim. The binary is also the server that this needs.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints figures, and there is nobody to handle an error")]
#![allow(clippy::disallowed_methods, unreachable_pub, reason = "reads the environment that it runs in")]

#[path = "../tests/lateness.rs"]
mod lateness;

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rhaiway::{Client, Config, ExecuteOptions};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// First argument that makes this binary the server.
const SERVER: &str = "server-with-large-answers";
/// As many as can have an instance at once.
const SLOTS: usize = 1000;
const AIM: Duration = Duration::from_millis(50);
/// How long each attack is measured.
const MEASURED: Duration = Duration::from_secs(10);

/// What runs meanwhile: its name, how many of it, and the script, which is started anew whenever it has ended.
const ATTACKS: [(&str, usize, &str); 10] = [
    ("nothing", 0, ""),
    ("loops, as many as CPUs", 2, "loop {}"),
    ("loops in all slots but one", SLOTS - 1, "loop {}"),
    ("natives that never end", 100, "let text = \"\"; text.pad(10, \"\");"),
    ("memory that doubles", 16, "let text = \"x\"; loop { text += text; }"),
    ("memory in pieces", 16, "let lists = []; loop { let list = []; list.pad(1000, 7); lists.push(list); }"),
    ("sources of many cases", 16, "CASES"),
    ("a log without an end", 16, "let line = \"\"; line.pad(1_000_000, \"x\"); loop { print(line); }"),
    ("results of a megabyte", 16, "let list = []; list.pad(100_000, [1, 2]); list"),
    ("answers of 8 MB", 4, "large.answer()"),
];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(SERVER) {
        return server();
    }
    // `cargo test --benches` wants to know only that it compiles.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    // As the command does.
    let runtime = Builder::new_multi_thread().worker_threads(2).event_interval(2).enable_all().build().unwrap();
    println!("{:30} {:>32} {:>32}", "", "timer late, aim: at most 50 ms", "short script");
    for (name, count, source) in ATTACKS {
        if only.as_ref().is_none_or(|only| name.contains(only)) {
            runtime.block_on(measure(name, count, source));
        }
    }
}

async fn measure(name: &str, count: usize, source: &str) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").join("rhaiway");
    let server = json!({"command": std::env::current_exe().unwrap(), "args": [SERVER]});
    let config = Config::from_value(json!({"mcpServers": {"large": server}})).unwrap();
    let client = Client::builder().config(config).cache_dir(cache).code_mode(true).build().unwrap();
    short(&client).await;
    let cases = || format!("switch 1 {{{}}}", (0..5000).map(|case| format!("{case}=>1,")).collect::<Vec<_>>().concat());
    let source = if source == "CASES" { cases() } else { source.to_string() };
    let attack = |client: Client, source: String| async move {
        loop {
            client.execute_code(&source, ExecuteOptions::default()).await.unwrap();
        }
    };
    let (all, mut attackers) = (client.clone(), JoinSet::<()>::new());
    // From a task of the runtime, as a server would.
    let started = tokio::spawn(async move {
        for _ in 0..count {
            attackers.spawn(attack(all.clone(), source.clone()));
        }
        attackers
    });
    let (mut shorts, late) = lateness::watch(async {
        let from = Instant::now();
        let mut shorts = Vec::new();
        while from.elapsed() < MEASURED {
            shorts.push(short(&client).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shorts
    })
    .await;
    shorts.sort_unstable();
    started.await.unwrap().shutdown().await;
    client.close_all_sessions().await;
    let missed = if *late.last().unwrap() > AIM { "MISSED" } else { "" };
    println!("{name:30} {:>32} {:>32} {missed}", shown(&late), shown(&shorts));
}

/// How long a short script takes.
async fn short(client: &Client) -> Duration {
    let from = Instant::now();
    let execution = client.execute_code("40 + 2", ExecuteOptions::default()).await.unwrap();
    assert_eq!(execution.result, json!(42));
    from.elapsed()
}

/// Median, 99 of 100, and the longest.
fn shown(sorted: &[Duration]) -> String {
    let milliseconds = |part: usize| sorted[(sorted.len() - 1) * part / 100].as_secs_f64() * 1e3;
    format!("{:.1} / {:.1} / {:.1} ms", milliseconds(50), milliseconds(99), milliseconds(100))
}

/// Answers every call with 8 MB of JSON.
fn server() {
    let numbers = vec!["1234567"; 1_000_000].join(",");
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let Some(id) = request.get("id") else { continue };
        let result = match request["method"].as_str().unwrap() {
            "initialize" => {
                r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"large","version":"1"}}"#.into()
            }
            "server/discover" => {
                println!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"unknown"}}}}"#);
                std::io::stdout().flush().unwrap();
                continue;
            }
            "tools/list" => r#"{"tools":[{"name":"answer","inputSchema":{"type":"object"}}]}"#.into(),
            _ => format!(r#"{{"content":[],"structuredContent":{{"numbers":[{numbers}]}}}}"#),
        };
        println!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        std::io::stdout().flush().unwrap();
    }
}
