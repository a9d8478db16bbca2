//! Many calls, many scripts, much data and many runs, each beside its aim: `cargo bench --bench load [-- PART]`.
//!
//! Each part runs in a process of its own, so that threads and memory are those of the scripts alone. What is compared takes turns;
//! figures are medians, with the lowest and the highest. The binary is also the server.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints figures, and there is nobody to handle an error")]
#![allow(clippy::disallowed_methods, reason = "reads the environment that it runs in")]

mod shared;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rhaiway::{Client, ExecuteOptions, Execution, Isolation, Limits};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use shared::{median, proportional, status, time};

/// First arguments that make this binary something else.
const SERVER: &str = "server-that-waits";
/// A measurement, by the name that picks it.
type Part = (&'static str, fn(&Runtime));

const PARTS: [Part; 4] = [("parallel", parallel), ("rows", rows), ("at-once", at_once), ("flat-memory", flat_memory)];

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == SERVER {
        return server();
    }
    if let Some((_, part)) = PARTS.iter().find(|(name, _)| *name == argument) {
        // No more workers than the aim for threads leaves room for.
        let workers = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().min(4));
        return part(&Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap());
    }
    // `cargo test --benches` wants to know only that it compiles.
    if std::env::args().any(|argument| argument == "--bench") {
        for (part, _) in PARTS {
            assert!(Command::new(std::env::current_exe().unwrap()).arg(part).status().unwrap().success());
        }
    }
}

fn client(isolation: Isolation) -> Client {
    let mut limits = Limits::default();
    limits.tool_calls = 10_000;
    let servers = json!({"load": {"command": std::env::current_exe().unwrap(), "args": [SERVER]}});
    shared::client(&servers, isolation, limits)
}

async fn run(client: &Client, script: &str) -> Execution {
    let run = client.execute_code(script, ExecuteOptions::default()).await.unwrap();
    assert_eq!(run.error, None);
    run
}

/// Median, lowest and highest.
fn print(what: &str, times: &mut [Duration], aim: &str) {
    let (least, most) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    println!("  {what:<44} {:>8.1?}  ({least:.1?} to {most:.1?})  {aim}", median(times));
}

fn parallel(runtime: &Runtime) {
    println!("calls in parallel, in one script");
    let client = client(Isolation::Sandbox);
    runtime.block_on(async {
        run(&client, "load.wait(#{ms: 0})").await;
        for (what, script, aim) in [
            ("50 of 50 ms", "parallel_map(0..50, |i| load.wait(#{ms: 50}), 50)", "aim: at most 60 ms"),
            (
                "1,000 of 10 ms, 64 at a time",
                "parallel_map(0..1000, |i| load.wait(#{ms: 10}), 64)",
                "aim: at most 250 ms",
            ),
        ] {
            let mut times = Vec::new();
            for _ in 0..20 {
                times.push(time(async { drop(run(&client, script).await) }).await);
            }
            print(what, &mut times, aim);
        }
        client.close_all_sessions().await;
    });
}

fn at_once(runtime: &Runtime) {
    const SCRIPTS: usize = 1000;
    const ROUNDS: usize = 5;
    println!("\n{SCRIPTS} scripts at once, each one call of 100 ms");
    let client = Arc::new(client(Isolation::Sandbox));
    let (mut times, threads, memory) = (Vec::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    runtime.block_on(run(&client, "load.wait(#{ms: 0})"));
    println!("  after one script: {}", process());
    for round in 0..=ROUNDS + 1 {
        // To ask for it takes its time, and holds up the scripts.
        let of_memory = round > ROUNDS;
        runtime.block_on(async {
            let start = Instant::now();
            let mut scripts = JoinSet::new();
            for _ in 0..SCRIPTS {
                let client = Arc::clone(&client);
                scripts.spawn(async move { drop(run(&client, "load.wait(#{ms: 100})").await) });
            }
            let over = AtomicBool::new(false);
            let wait = async {
                while let Some(script) = scripts.join_next().await {
                    script.unwrap();
                }
                over.store(true, Ordering::Relaxed);
                start.elapsed()
            };
            let watch = async {
                while !over.load(Ordering::Relaxed) {
                    let now = status("Threads").map_or(0, |count| count.parse().unwrap());
                    threads.fetch_max(now, Ordering::Relaxed);
                    if of_memory {
                        memory.fetch_max(proportional(), Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let (elapsed, ()) = tokio::join!(wait, watch);
            if !of_memory {
                times.push(elapsed);
            }
        });
        if round == 0 {
            print("the first round", &mut times, "");
            times.clear();
        }
    }
    print("later rounds", &mut times, "aim: at most 500 ms");
    println!("  at most {} threads (aim: 8)", threads.into_inner());
    println!("  at most {} MB of memory (aim: under 250)", memory.into_inner() / 1000);
    let most = status("VmHWM").unwrap_or("unknown".into());
    println!("  resident at most {most}, which counts the guest's image, one in memory, for each script that reads it");
    println!("  after it: {}", process());
    runtime.block_on(client.close_all_sessions());
}

fn flat_memory(runtime: &Runtime) {
    const AT_ONCE: usize = 8;
    /// With whether they fail.
    const SCRIPTS: [(&str, bool); 4] = [
        ("1+1", false),
        ("load.wait(#{ms: 0}).waited", false),
        ("let list = [1, 2, 3]; throw #{list: list, word: `so ${list}`}", true),
        (
            "parallel([|| load.wait(#{ms: 0}), || load.wait(#{ms: 0}), || load.wait(#{ms: 0}), || load.wait(#{ms: 0})]).len()",
            false,
        ),
    ];
    println!("\nmemory after many short scripts, {AT_ONCE} at once (aim: flat within 5 %)");
    let client = Arc::new(client(Isolation::Sandbox));
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    for milestone in [1000, 10_000, 50_000, 100_000] {
        runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (client, next) = (Arc::clone(&client), Arc::clone(&next));
                workers.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= milestone {
                            return;
                        }
                        let (script, fails) = SCRIPTS[number % SCRIPTS.len()];
                        let run = client.execute_code(script, ExecuteOptions::default()).await.unwrap();
                        assert_eq!(run.error.is_some(), fails, "{:?}", run.error);
                    }
                });
            }
            while let Some(worker) = workers.join_next().await {
                worker.unwrap();
            }
        });
        next.store(milestone, Ordering::Relaxed);
        println!("  after {milestone:>6}, {:>5.1} s: {}", start.elapsed().as_secs_f64(), process());
    }
    runtime.block_on(client.close_all_sessions());
}

/// What Linux says of this process.
fn process() -> String {
    let value = |name| status(name).unwrap_or("unknown".into());
    format!("resident {}, of it not from files {}, threads {}", value("VmRSS"), value("RssAnon"), value("Threads"))
}

const ROWS: usize = 10_000;
const REGIONS: [&str; 8] = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

fn amount(row: usize) -> f64 {
    f64::from(u32::try_from(row * 7919 % 20_000).unwrap()) / 100.0
}

/// About 1 MB.
fn rows_text() -> String {
    let rows: Vec<Value> = (0..ROWS)
        .map(|row| {
            json!({
                "id": row,
                "region": REGIONS[row % REGIONS.len()],
                "customer": format!("Customer {row} \u{2013} \"Ltd\""),
                "amount": amount(row),
                "paid": row % 3 == 0,
            })
        })
        .collect();
    json!({"rows": rows}).to_string()
}

fn sums() -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for row in (0..ROWS).filter(|row| amount(*row) > 100.0) {
        *sums.entry(REGIONS[row % REGIONS.len()].to_string()).or_default() += amount(row);
    }
    sums
}

const FILTER: &str = "let rows = load.rows().rows; let big = rows.filter(|r| r.amount > 100.0);";
const LOOP: &str = "let out = #{};
    for r in big { let key = r.region; out[key] = if key in out { out[key] + r.amount } else { r.amount }; }";
const LIBRARY: &str = "let groups = big.group_by(\"region\"); let out = #{};
    for key in groups.keys() { out[key] = groups[key].sum(\"amount\"); }";

/// Works on the file that it is given, once, or as often as a line comes in; then it says how many seconds it took.
const PYTHON: &str = r#"
import json, sys, time
def work(text):
    rows = json.loads(text)["rows"]
    big = [row for row in rows if row["amount"] > 100.0]
    out = {}
    for row in big:
        out[row["region"]] = out.get(row["region"], 0.0) + row["amount"]
    return json.dumps(out)
text = open(sys.argv[1], encoding="utf-8").read()
if sys.argv[2] == "once":
    print(work(text))
else:
    for line in sys.stdin:
        start = time.perf_counter()
        work(text)
        print(time.perf_counter() - start, flush=True)
"#;

/// A Python that stays.
struct Python(ChildStdin, BufReader<ChildStdout>);

impl Python {
    fn start(file: &Path) -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON]).arg(file).arg("often").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        Some(Self(child.stdin.take()?, BufReader::new(child.stdout.take()?)))
    }

    fn work(&mut self) -> Duration {
        writeln!(self.0).unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        Duration::from_secs_f64(line.trim().parse().unwrap())
    }
}

fn rows(runtime: &Runtime) {
    const ROUNDS: usize = 15;
    let text = rows_text();
    println!("\n{ROWS} rows ({} bytes) from one tool, filtered, grouped, summed", text.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.json");
    std::fs::write(&file, &text).unwrap();
    let (sandbox, in_process) = (client(Isolation::Sandbox), client(Isolation::InProcess));

    let with_loop = format!("{FILTER} {LOOP} out");
    let with_library = format!("{FILTER} {LIBRARY} out");
    let sums = sums();
    let check = |result: &Value| {
        let result: BTreeMap<String, f64> = serde_json::from_value(result.clone()).unwrap();
        assert!(result.keys().eq(sums.keys()) && result.iter().all(|(key, sum)| (sum - sums[key]).abs() < 1e-3));
    };
    for script in [&with_loop, &with_library] {
        check(&runtime.block_on(run(&sandbox, script)).result);
    }
    // What each does beside the one before it.
    let steps = [
        ("an instance, its start and end", "load; ()".to_string()),
        ("the answer into the script", "load.rows(); ()".to_string()),
        ("`.rows`, a copy", "let rows = load.rows().rows; ()".to_string()),
        ("filter", format!("{FILTER} ()")),
        ("group and sum in a loop, result", with_loop),
        ("or with the library, result", with_library.clone()),
    ];
    let mut python = Python::start(&file);
    let mut sandboxed: [Vec<Duration>; 6] = Default::default();
    let (mut tool, mut unboxed, mut python_inside, mut python_start) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        for (times, (_, script)) in sandboxed.iter_mut().zip(&steps) {
            let start = Instant::now();
            let run = runtime.block_on(run(&sandbox, script));
            times.push(start.elapsed());
            if script.contains("load.rows") {
                tool.push(run.usage.tool_time);
            }
        }
        unboxed.push(runtime.block_on(time(async { drop(run(&in_process, &with_library).await) })));
        if let Some(python) = &mut python {
            python_inside.push(python.work());
            let start = Instant::now();
            let output = Command::new("python3").args(["-c", PYTHON]).arg(&file).arg("once").output().unwrap();
            python_start.push(start.elapsed());
            check(&serde_json::from_slice(&output.stdout).unwrap());
        }
        if round == 0 {
            // The warm-up.
            sandboxed
                .iter_mut()
                .chain([&mut tool, &mut unboxed, &mut python_inside, &mut python_start])
                .for_each(Vec::clear);
        }
    }
    print("in the sandbox, with the library", &mut sandboxed[5], "aim: at most 60 ms");
    print("in the sandbox, with a loop", &mut sandboxed[4], "");
    print("in the process, with the library", &mut unboxed, "");
    if python.is_some() {
        print("CPython, which has the text", &mut python_inside, "");
        print("CPython with its start, from a file", &mut python_start, "");
    }
    println!("  of it, each step beside the one before");
    print("the call, until the host has the answer", &mut tool, "");
    let medians = sandboxed.map(|mut times| median(&mut times));
    let tool = median(&mut tool);
    for (place, (what, _)) in steps.iter().enumerate() {
        let before = [Duration::ZERO, medians[0] + tool, medians[1], medians[2], medians[3], medians[3]][place];
        println!("  {what:<44} {:>8.1?}", medians[place].saturating_sub(before));
    }
    runtime.block_on(async {
        sandbox.close_all_sessions().await;
        in_process.close_all_sessions().await;
    });
}

/// An MCP server whose tool `wait` answers after `ms`, and whose tool `rows` has a large answer.
fn server() {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || answer_in_time(&receiver));
    let rows = rows_text();
    let tool = |name| json!({"name": name, "inputSchema": {"type": "object"}});
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let mut wait = 0;
        let result = match request["method"].as_str().unwrap() {
            "initialize" => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "load", "version": "1"},
            })
            .to_string(),
            "tools/list" => json!({"tools": [tool("wait"), tool("rows")]}).to_string(),
            "tools/call" if request["params"]["name"] == "rows" => {
                format!(r#"{{"content": [], "structuredContent": {rows}}}"#)
            }
            "tools/call" => {
                wait = request["params"]["arguments"]["ms"].as_u64().unwrap();
                format!(r#"{{"content": [], "structuredContent": {{"waited": {wait}}}}}"#)
            }
            "server/discover" => {
                let error = json!({"code": -32601, "message": "unknown"});
                let answer = format!("{}\n", json!({"jsonrpc": "2.0", "id": request["id"], "error": error}));
                sender.send((Instant::now(), answer)).unwrap();
                continue;
            }
            _ => continue, // notifications
        };
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}\n", request["id"]);
        sender.send((Instant::now() + Duration::from_millis(wait), answer)).unwrap();
    }
}

/// Writes each answer when it is due, those that are due together at once.
fn answer_in_time(receiver: &mpsc::Receiver<(Instant, String)>) {
    let mut answers = BinaryHeap::new();
    loop {
        let wait = answers.peek().map_or(Duration::MAX, |Reverse((due, _)): &Reverse<(Instant, String)>| {
            due.saturating_duration_since(Instant::now())
        });
        match receiver.recv_timeout(wait) {
            Ok(answer) => answers.push(Reverse(answer)),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        answers.extend(receiver.try_iter().map(Reverse));
        let (now, mut text) = (Instant::now(), String::new());
        while answers.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            text.extend(answers.pop().map(|Reverse((_, answer))| answer));
        }
        if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
