//! `scripts/hostile` as a whole, in processes of their own, so that nothing else is in what is measured: their size, their threads, and
//! whether they still answer. What each script comes to by itself is tested with all other suites.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use libtest_mimic::Trial;
use rhaiway::{Client, ExecuteOptions, Isolation};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::lateness;
use crate::scripts::{Script, files};
use crate::support::{Ignored, client, run, test, value};

/// First argument of the test binary that makes it such a process; the second is how often it runs all scripts, or `slots`.
pub const ARGUMENT: &str = "hostile-watch";
/// Scripts that run at once.
const AT_ONCE: usize = 4;
/// As many scripts as can have an instance at once.
const SLOTS: usize = 1000;

pub fn tests() -> Vec<Trial> {
    vec![
        test("hostile::the_process_keeps_its_size_and_answers", keeps_its_size),
        test("hostile::timers_and_short_scripts_go_on_while_hostile_scripts_use_all_slots", all_slots_busy),
    ]
}

pub fn main(what: &str) {
    // As the command does.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).event_interval(2).enable_all().build();
    runtime.unwrap().block_on(async {
        match what.parse() {
            Ok(rounds) => run_all(rounds).await,
            Err(_) => use_all_slots().await,
        }
    });
}

/// Runs this binary for `what`; the lines of JSON that it printed.
async fn watched(what: &str) -> Vec<Value> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([ARGUMENT, what]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("panicked"), "{}: {errors}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A number of `/proc/self/status`.
fn status(key: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

/// Prints a line a script, and one a round.
async fn run_all(rounds: usize) {
    for _ in 0..rounds {
        let scripts = stream::iter(files("hostile")).map(|file| async move {
            let script = Script::read(&file);
            let started = Instant::now();
            let wrong = script.check(&script.run(Isolation::Sandbox).await).err();
            let seconds = started.elapsed().as_secs_f64();
            println!("{}", json!({"script": script.name, "seconds": seconds, "wrong": wrong, "open": script.open()}));
            status("Threads")
        });
        let threads = scripts.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        // It is still of use.
        assert_eq!(value(run(&client(json!({})), "40 + 2").await), json!(42));
        println!("{}", json!({"threads": threads.iter().max(), "kib": status("RssAnon")}));
    }
}

async fn keeps_its_size() -> Result<(), Ignored> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let lines = watched("2").await;
    let (scripts, rounds): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["script"].is_string());
    assert!(scripts.len() >= 2 * 85, "{} scripts in two rounds", scripts.len());
    let wrong: Vec<_> = scripts.iter().filter(|line| line["wrong"].is_string() && line["open"].is_null()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let [first, second] = &rounds[..] else { panic!("{rounds:?}") };
    println!("after the first round {first}, after the second {second}");
    let grown = second["kib"].as_i64().unwrap() - first["kib"].as_i64().unwrap();
    // It goes up and down by 27 MiB, as large messages come and go; one instance that stayed would show all the same.
    assert!(grown < 48 << 10, "{grown} KiB");
    assert!(second["threads"].as_i64().unwrap() <= 12, "{second}");
    Ok(())
}

async fn use_all_slots() {
    let client = client(json!({}));
    assert_eq!(value(run(&client, "40 + 2").await), json!(42));
    let hog = |client: Client| async move {
        let options = ExecuteOptions::default().timeout(Duration::from_secs(4));
        client.execute_code("loop {}", options).await.unwrap()
    };
    let work = async {
        // From a task of the runtime, as a server would.
        let all = client.clone();
        let hogs = tokio::spawn(async move { join_all((0..SLOTS).map(|_| tokio::spawn(hog(all.clone())))).await });
        while !hogs.is_finished() && run(&client, "1").await.usage.instances < Some(SLOTS / 2) {}
        let from = Instant::now();
        for _ in 0..10 {
            assert_eq!(value(run(&client, "40 + 2").await), json!(42));
        }
        (from.elapsed(), hogs.await.unwrap())
    };
    let ((short, hogs), late) = lateness::watch(work).await;
    let mut all_at_once = 0;
    for hog in hogs {
        let execution = hog.unwrap();
        assert_eq!(execution.error.unwrap().kind.as_str(), "timeout");
        all_at_once = all_at_once.max(execution.usage.instances.unwrap());
    }
    let latest = late.last().unwrap();
    println!(
        "{}",
        json!({"instances": all_at_once, "short": short.as_secs_f64(), "timers": late.len(), "latest": latest.as_secs_f64()})
    );
}

/// Bounds for a machine that is busy with other tests; the figures have their aims in `benches/responsiveness.rs`.
async fn all_slots_busy() -> Result<(), Ignored> {
    let lines = watched("slots").await;
    let [figures] = &lines[..] else { panic!("{lines:?}") };
    println!("{figures}");
    assert_eq!(figures["instances"], json!(SLOTS));
    assert!(figures["timers"].as_u64().unwrap() > 10, "{figures}");
    assert!(figures["latest"].as_f64().unwrap() < 10.0, "{figures}");
    assert!(figures["short"].as_f64().unwrap() < 60.0, "{figures}");
    Ok(())
}
