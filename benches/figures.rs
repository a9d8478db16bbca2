//! The figures that rhaiway promises, each beside its aim: `cargo bench --bench figures`.
//!
//! Criterion measures what stands alone, and compares it with the run before. What is a ratio takes turns instead, so that the drift of
//! a busy machine meets both sides. All figures are medians. The binary is also the servers and the other processes that this needs.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints figures, and there is nobody to handle an error")]
#![allow(clippy::disallowed_methods, reason = "reads the environment that it runs in")]

mod shared;

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use rhaiway::middleware::{Metrics, Middleware, Next, Ping, Request, async_trait};
use rhaiway::{Client, Detail, Error, ExecuteOptions, Isolation, Limits};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use shared::{cache_home, median, status, time};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rhaiway");
/// First arguments that make this binary something else.
const SERVER: &str = "server-with-25-tools";
const RATIOS: &str = "ratios";
const MEMORY: &str = "memory-of-a-process";

const SERVERS: usize = 20;
const CALLS: usize = 200;

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(SERVER) {
        return server();
    }
    let runtime = Runtime::new().unwrap();
    match argument.as_deref() {
        Some(RATIOS) => return runtime.block_on(ratios()),
        Some(MEMORY) => return runtime.block_on(memory()),
        // `cargo test --benches` wants to know only that it compiles.
        _ if !std::env::args().any(|argument| argument == "--bench") => return,
        _ => {}
    }
    alone(&runtime);
    println!("\n{CALLS} calls in one script, beside the bare rmcp client, on all CPUs (varies with what runs where)");
    runtime.block_on(beside_the_bare_client());

    // Where two CPUs wake each other for every message, that costs more than all else; it comes and goes, so ratios are taken on one.
    let this = std::env::current_exe().unwrap();
    println!("\non one CPU");
    if !Command::new("taskset").args(["-c", "0"]).arg(&this).arg(RATIOS).status().is_ok_and(|status| status.success()) {
        println!("\nnot on one CPU: `taskset` does not work here");
        runtime.block_on(ratios());
    }
    process_start();
    println!("\nmemory at rest, no aim");
    assert!(Command::new(&this).arg(MEMORY).status().unwrap().success());
}

fn alone(runtime: &Runtime) {
    let (sandbox, in_process) = (client(&json!({}), Isolation::Sandbox), client(&json!({}), Isolation::InProcess));
    let many = client(&servers(SERVERS), Isolation::Sandbox);
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    measure(&mut criterion, runtime, "1+1 warm", "aim: under 150 µs", async || run(&sandbox, "1+1").await);
    measure(&mut criterion, runtime, "1+1 warm in process", "aim: under 30 µs", async || {
        run(&in_process, "1+1").await;
    });
    measure(&mut criterion, runtime, "search in 500 tools", "no aim", async || {
        let found = many.search_tools("create issue", Detail::Descriptions).await;
        assert_eq!((found.meta.result_count, found.meta.total_tools), (9 * SERVERS, 25 * SERVERS));
    });
    runtime.block_on(many.close_all_sessions());
    for (name, aim, metrics) in [
        ("ping that middleware answers", "no aim", None),
        ("the same through `Metrics`", "aim: under 1 µs more", Some(Metrics::default())),
    ] {
        let mut builder = Client::builder().in_process_server("quiet", || Quiet);
        if let Some(metrics) = metrics {
            builder = builder.middleware(metrics);
        }
        let client = builder.middleware(Answers).build().unwrap();
        let session = runtime.block_on(client.create_session("quiet")).unwrap();
        measure(&mut criterion, runtime, name, aim, async || session.ping().await.unwrap());
    }
}

#[derive(Clone)]
struct Quiet;

impl rmcp::ServerHandler for Quiet {}

/// Answers pings in the server's place.
struct Answers;

#[async_trait]
impl Middleware for Answers {
    async fn on_ping(&self, _: Request<Ping>, _: Next<'_, Ping>) -> Result<(), Error> {
        Ok(())
    }
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, name: &str, aim: &str, work: impl AsyncFn()) {
    let mut times = Vec::new();
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let before = times.len();
            runtime.block_on(async {
                for _ in 0..count {
                    times.push(time(work()).await);
                }
            });
            times[before..].iter().sum()
        });
    });
    // Not measured where the arguments name other benches.
    if !times.is_empty() {
        println!("{name}: median {:.1?} ({aim})\n", median(&mut times));
    }
}

async fn ratios() {
    println!("{CALLS} calls in one script, beside the bare rmcp client");
    beside_the_bare_client().await;

    let one = client(&servers(1), Isolation::Sandbox);
    let many = client(&servers(SERVERS), Isolation::Sandbox);
    for client in [&one, &many] {
        client.search_tools("", Detail::Names).await; // connects all
    }
    let in_process = client(&json!({}), Isolation::InProcess);
    let (sandboxed, unboxed) =
        take_turns(10_000, async || run(&one, "1+1").await, async || run(&in_process, "1+1").await).await;
    println!("1+1 in process and in the sandbox");
    print_ratio(("in process", unboxed), ("sandbox", sandboxed), "aim: under 30 µs and under 150 µs");
    for (what, script, rounds) in [("1+1", "1+1", 10_000), ("one call", "server_0.list_issue()", 5000)] {
        let (with_one, with_many) =
            take_turns(rounds, async || run(&one, script).await, async || run(&many, script).await).await;
        println!("{what}, with 25 tools on 1 server and with 500 on {SERVERS}");
        print_ratio(("1 server", with_one), ("20 servers", with_many), "aim: 1");
    }
    one.close_all_sessions().await;
    many.close_all_sessions().await;
}

async fn beside_the_bare_client() {
    let client = client(&json!({"demo": {"command": PROGRAM, "args": ["demo-server"]}}), Isolation::Sandbox);
    let script = format!("for i in 0..{CALLS} {{ demo.list_users() }}");
    let mut child = tokio::process::Command::new(PROGRAM)
        .arg("demo-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // What rmcp's `TokioChildProcess` does too; its feature is not worth a second build of rmcp.
    let pipes = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    // What our client speaks with this server.
    let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let bare = ().serve_with_lifecycle(pipes, lifecycle).await.unwrap();
    let (ours, theirs) = take_turns(
        200,
        async || run(&client, &script).await,
        async || {
            for _ in 0..CALLS {
                let answer = bare.call_tool(CallToolRequestParams::new("list_users")).await.unwrap();
                assert_eq!(answer.is_error, Some(false));
            }
        },
    )
    .await;
    print_ratio(("bare", theirs), ("script", ours), "aim: at most 1.15");
    bare.cancel().await.unwrap();
    client.close_all_sessions().await;
}

fn process_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mcp.json");
    std::fs::write(&config, r#"{"mcpServers": {}}"#).unwrap();
    let start = || {
        let start = Instant::now();
        let output = Command::new(PROGRAM)
            .args(["run", "-e", "1+1", "--config"])
            .arg(&config)
            .env("XDG_CACHE_HOME", cache_home())
            .output()
            .unwrap();
        let time = start.elapsed();
        assert_eq!(output.stdout, b"2\n");
        time
    };
    start();
    let mut times: Vec<Duration> = (0..100).map(|_| start()).collect();
    println!("\nprocess start to first result, warm cache");
    println!("  {:.1?} (aim: under 50 ms)", median(&mut times));
}

/// In a process of its own, as the others have done much before.
async fn memory() {
    let client = client(&json!({}), Isolation::Sandbox);
    let print = |when: &str| {
        let size = |name: &str| status(name).unwrap_or("unknown".into());
        println!("  {when:<24} resident {:>9}, of it not from files {:>9}", size("VmRSS"), size("RssAnon"));
    };
    print("before any script");
    run(&client, "1+1").await;
    print("after one script");
    for _ in 0..1000 {
        run(&client, "1+1").await;
    }
    print("after 1,000 more");
}

/// Medians of two that take turns, after a warm-up.
async fn take_turns(rounds: usize, a: impl AsyncFn(), b: impl AsyncFn()) -> (Duration, Duration) {
    for _ in 0..rounds.div_ceil(10) {
        a().await;
        b().await;
    }
    let (mut times_a, mut times_b) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Neither is always the one that comes second.
        if round % 2 == 0 {
            times_a.push(time(a()).await);
            times_b.push(time(b()).await);
        } else {
            times_b.push(time(b()).await);
            times_a.push(time(a()).await);
        }
    }
    (median(&mut times_a), median(&mut times_b))
}

fn print_ratio(base: (&str, Duration), other: (&str, Duration), aim: &str) {
    let ratio = other.1.as_secs_f64() / base.1.as_secs_f64();
    println!("  {} {:.1?}, {} {:.1?}: ratio {ratio:.3} ({aim})", base.0, base.1, other.0, other.1);
}

async fn run(client: &Client, script: &str) {
    let run = client.execute_code(script, ExecuteOptions::default()).await.unwrap();
    assert_eq!(run.error, None);
}

fn client(servers: &Value, isolation: Isolation) -> Client {
    shared::client(servers, isolation, Limits::default())
}

fn servers(count: usize) -> Value {
    let entry = json!({"command": std::env::current_exe().unwrap(), "args": [SERVER]});
    (0..count).map(|number| (format!("server_{number}"), entry.clone())).collect()
}

/// An MCP server with 25 tools, which all answer at once.
fn server() {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "initialize" => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "bench", "version": "1"},
            }),
            "tools/list" => json!({"tools": tools()}),
            "tools/call" => json!({"content": [], "structuredContent": {"answer": 42}}),
            "server/discover" => {
                let error = json!({"code": -32601, "message": "unknown"});
                writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).unwrap();
                continue;
            }
            _ => continue, // notifications
        };
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        writeln!(out, "{answer}").unwrap();
    }
}

fn tools() -> Vec<Value> {
    let verbs = ["list", "get", "create", "update", "delete"];
    let nouns = ["issue", "comment", "label", "milestone", "project"];
    let tool = |verb: &str, noun: &str| {
        json!({
            "name": format!("{verb}_{noun}"),
            "description": format!("Use this to {verb} one {noun} or several in a project that you have access to."),
            "inputSchema": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer", "description": "Which one."},
                    "text": {"type": "string", "description": "What it says."},
                    "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to sort it by."},
                },
            },
        })
    };
    verbs.iter().flat_map(|verb| nouns.iter().map(move |noun| tool(verb, noun))).collect()
}
