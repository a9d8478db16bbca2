//! The same Rust server as wasm in this process and as a native child, in and out of a sandbox: `cargo bench --bench sandbox`. How long they
//! take to start and to answer, taking turns; and what two hundred idle wasm servers weigh.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints figures, and there is nobody to handle an error")]
#![allow(clippy::cast_precision_loss, reason = "prints figures")]
#![allow(clippy::disallowed_methods, reason = "reads the environment that it runs in")]

mod shared;

use std::path::Path;
use std::time::{Duration, Instant};

use rhaiway::{CallOptions, Client, Config, Session};
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;

use shared::{median, proportional, status};

/// First argument that makes this binary the native server.
const SERVER: &str = "demo-server";
const WASM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox/dist/demo.wasm");
const STARTS: usize = 30;
const CALLS: usize = 2000;
const IDLE: usize = 200;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(SERVER) => {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(rhaiway_demo_server::serve_stdio()).unwrap();
        }
        // `cargo test --benches` wants to know only that it compiles.
        _ if !std::env::args().any(|argument| argument == "--bench") => {}
        _ => Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(figures()),
    }
}

fn wasm(path: &str) -> Value {
    json!({"command": path, "connect_timeout": 120})
}

fn native(sandbox: bool) -> Value {
    json!({"command": std::env::current_exe().unwrap(), "args": [SERVER], "sandbox": sandbox})
}

fn client(servers: &Value, cache: &Path) -> Client {
    let config = Config::from_value(json!({"mcpServers": servers})).unwrap();
    Client::builder().config(config).variables(|name| std::env::var(name).ok()).cache_dir(cache).build().unwrap()
}

async fn figures() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    println!("start, handshake included; medians of {STARTS}, and the ratio to the native child");
    let mut cold = Vec::new();
    let mut cached = Vec::new();
    for number in 0..7 {
        // A path of its own, so that this process has not loaded it before.
        let path = folder.path().join(format!("{number}.wasm")).display().to_string();
        std::fs::copy(WASM, &path).unwrap();
        let cache = if number == 0 { cache.clone() } else { folder.path().join(format!("cache-{number}")) };
        cold.push(start(&client(&json!({"it": wasm(&path)}), &cache)).await);
        let path = folder.path().join(format!("{number}-again.wasm")).display().to_string();
        std::fs::copy(WASM, &path).unwrap();
        cached.push(start(&client(&json!({"it": wasm(&path)}), &cache)).await);
    }
    let servers = json!({"wasm": wasm(WASM), "native": native(false), "confined": native(true)});
    let client = client(&servers, &cache);
    let (mut again, mut child, mut confined) = (Vec::new(), Vec::new(), Vec::new());
    start_of(&client, "wasm").await;
    for _ in 0..STARTS {
        again.push(start_of(&client, "wasm").await);
        child.push(start_of(&client, "native").await);
    }
    // By themselves, as the kernel takes their namespaces down while the next one starts.
    for _ in 0..STARTS {
        confined.push(start_of(&client, "confined").await);
    }
    let base = median(&mut child);
    for (what, times) in [
        ("wasm, compiled (7 times)", &mut cold),
        ("wasm, compiled code from the cache folder, as in a new process (7 times)", &mut cached),
        ("wasm, again in this process", &mut again),
        ("native child", &mut child),
        ("native child, sandboxed", &mut confined),
    ] {
        let time = median(times);
        println!("  {what:<76} {:>10.3?}  {:>6.2}", time, time.as_secs_f64() / base.as_secs_f64());
    }

    println!("a call and its answer; medians of {CALLS}, taking turns");
    let mut sessions = Vec::new();
    for name in ["native", "wasm", "confined"] {
        sessions.push((name, client.create_session(name).await.unwrap(), Vec::new()));
    }
    for round in 0..CALLS + 200 {
        for (_, session, times) in &mut sessions {
            let took = call(session).await;
            if round >= 200 {
                times.push(took);
            }
        }
    }
    let base = median(&mut sessions[0].2);
    for (name, _, times) in &mut sessions {
        let time = median(times);
        println!("  {name:<76} {:>10.1?}  {:>6.2}", time, time.as_secs_f64() / base.as_secs_f64());
    }
    drop(sessions);
    client.close_all_sessions().await;
    idle(&cache).await;
}

async fn start(client: &Client) -> Duration {
    start_of(client, "it").await
}

async fn start_of(client: &Client, name: &str) -> Duration {
    let from = Instant::now();
    client.create_session(name).await.unwrap();
    let took = from.elapsed();
    client.close_session(name).await;
    took
}

async fn call(session: &Session) -> Duration {
    let from = Instant::now();
    let answer = session.call_tool("list_users", Map::new(), CallOptions::default()).await.unwrap();
    let took = from.elapsed();
    assert!(!answer.is_error());
    took
}

async fn idle(cache: &Path) {
    let names: Vec<String> = (0..IDLE).map(|number| format!("server_{number}")).collect();
    let servers: Map<String, Value> = names.iter().map(|name| (name.clone(), wasm(WASM))).collect();
    let client = client(&servers.into(), cache);
    let threads = || status("Threads").unwrap_or("unknown".into());
    let (before, threads_before) = (proportional(), threads());
    let from = Instant::now();
    let mut sessions = Vec::new();
    for name in &names {
        sessions.push(client.create_session(name).await.unwrap());
    }
    let started = from.elapsed();
    let connected = proportional();
    for session in &sessions {
        call(session).await;
    }
    let used = proportional();
    let each = |now: usize| now.saturating_sub(before) as f64 / IDLE as f64;
    println!("{IDLE} wasm servers, idle: started in {started:.1?}");
    println!(
        "  kB each, after the handshake {:.0}; after a call {:.0} (its list of tools at the client included)",
        each(connected),
        each(used)
    );
    println!("  threads before {threads_before}, with them {}", threads());
    drop(sessions);
    client.close_all_sessions().await;
}
