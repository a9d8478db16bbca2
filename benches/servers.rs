//! Two hundred servers behind one client, each a process: `cargo bench --bench servers [-- HOW-MANY]`. How long it takes to connect
//! them all at once, to call a tool of each, and to close them; what that takes of this process; and that no process is left.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints figures, and there is nobody to handle an error")]
#![allow(clippy::disallowed_methods, reason = "reads the environment that it runs in")]

mod shared;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rhaiway::{CallOptions, Client, ExecuteOptions, Isolation, Limits, Session};
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;

use shared::{median, proportional, status, time};

const SERVERS: usize = 200;
const ROUNDS: usize = 5;
const CALLS: usize = 20;

fn main() {
    // `cargo test --benches` wants to know only that it compiles.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(SERVERS);
    let workers = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().min(4));
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap().block_on(servers(count));
}

async fn servers(count: usize) {
    println!("{count} servers over stdio, each a process, on {workers} CPUs", workers = cpus());
    let names: Vec<String> = (0..count).map(|number| format!("server_{number}")).collect();
    let entry = json!({"command": env!("CARGO_BIN_EXE_rhaiway"), "args": ["demo-server"], "connect_timeout": 120});
    let entries: Map<String, Value> = names.iter().map(|name| (name.clone(), entry.clone())).collect();
    let mut limits = Limits::default();
    limits.tool_calls = 10_000;
    limits.source_bytes = 1 << 20;
    let client = shared::client(&entries.into(), Isolation::Sandbox, limits);
    // The engine is set up before anything is weighed.
    assert_eq!(client.execute_code("1", ExecuteOptions::default()).await.unwrap().error, None);
    let before = proportional();
    println!("  without a session: {}", weight());
    let (mut connecting, mut calling, mut from_script, mut closing) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        let start = Instant::now();
        let sessions: Vec<Session> = connect(&client, &names).await;
        connecting.push(start.elapsed());
        assert_eq!(children(), count);
        if round == 1 {
            println!("  connected: {}", weight());
        }
        call(&sessions).await; // lists the tools too
        for _ in 0..CALLS {
            calling.push(time(call(&sessions)).await);
        }
        from_script.push(time(call_from_script(&client, &names)).await);
        if round == 1 || round == ROUNDS {
            let each = proportional().saturating_sub(before) / count;
            println!("  in use, round {round}: {}, {each} kB for each server", weight());
        }
        drop(sessions);
        closing.push(time(client.close_all_sessions()).await);
        assert_eq!(children(), 0, "processes are left");
    }
    println!("  closed: {}, no process left", weight());
    print("connecting all at once", &mut connecting);
    print("a call of each, at once", &mut calling);
    print("a call of each, from one script, 64 at once", &mut from_script);
    print("closing all", &mut closing);
}

async fn connect(client: &Client, names: &[String]) -> Vec<Session> {
    let sessions = join_all(names.iter().map(|name| client.create_session(name))).await;
    sessions.into_iter().map(Result::unwrap).collect()
}

async fn call(sessions: &[Session]) {
    for answer in
        join_all(sessions.iter().map(|session| session.call_tool("list_users", Map::new(), CallOptions::default())))
            .await
    {
        assert!(!answer.unwrap().is_error());
    }
}

async fn call_from_script(client: &Client, names: &[String]) {
    let calls: Vec<String> = names.iter().map(|name| format!("|| {name}.list_users().users.len()")).collect();
    let script = format!("parallel([{}], 64).filter(|count| count == 5).len()", calls.join(", "));
    let run = client.execute_code(&script, ExecuteOptions::default()).await.unwrap();
    assert_eq!((run.error, run.result), (None, json!(names.len())));
}

/// Median, lowest and highest.
fn print(what: &str, times: &mut [Duration]) {
    let (least, most) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    println!("  {what:<44} {:>8.1?}  ({least:.1?} to {most:.1?})", median(times));
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What Linux says of this process.
fn weight() -> String {
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let threads = status("Threads").unwrap_or("unknown".into());
    let resident = status("VmRSS").unwrap_or("unknown".into());
    format!("{} kB of memory (resident {resident}), {threads} threads, {files} open files", proportional())
}

/// Processes that this one has started, those included that have ended and were not waited for.
fn children() -> usize {
    let this = std::process::id().to_string();
    let is_child = |process: &Path| {
        let text = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, and the parent.
        text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&this)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| is_child(&entry.path())).count()
}
