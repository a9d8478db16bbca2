//! How servers that are started here end, with all that they have started: what they may take for it, and what is left when we are killed.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fake_server;
use crate::processes::Mark;
use crate::support::{Ignored, builder, client, need_native_sandbox, program, run, target_dir, test, value};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("endings::containers_get_time_after_sigterm", containers),
        test("endings::the_time_to_end_is_a_key", the_time_to_end),
        test("endings::a_server_that_takes_its_time_is_waited_for", slow_to_end),
    ];
    if cfg!(target_os = "linux") {
        tests.extend([
            test("endings::closing_ends_what_left_the_group", closing),
            test("endings::dropping_the_client_ends_what_left_the_group", dropping_the_client),
            test("endings::dropping_the_runtime_ends_what_left_the_group", dropping_the_runtime),
            test("endings::a_server_that_ends_takes_along_what_left_the_group", ending_by_itself),
            test("endings::killed_with_what_left_the_group", killed),
            test("endings::what_can_not_be_started_says_so", not_started),
            test("endings::homes_of_the_killed_are_removed", homes),
        ]);
    }
    tests
}

/// Servers that have started what is in no group of theirs, as [`fake_server`] knows them.
const LEAVERS: [&str; 3] = ["leaves-a-session", "forks-twice", "leaves-many"];

fn leavers(mark: &Mark) -> Value {
    LEAVERS.iter().map(|name| (name.replace('-', "_"), mark.on(fake_server::entry(name)))).collect()
}

/// A client that has called each of them, with what they have started running.
async fn with_leavers(mark: &Mark) -> rhaiway::Client {
    let client = client(leavers(mark));
    let script = "[leaves_a_session.echo().tool, forks_twice.echo().tool, leaves_many.echo().tool]";
    assert_eq!(value(run(&client, script).await), json!(["echo", "echo", "echo"]));
    while mark.left_behind() < 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client
}

async fn closing() -> Result<(), Ignored> {
    let mark = Mark::new("left-closing");
    let client = with_leavers(&mark).await;
    client.close_all_sessions().await;
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

async fn dropping_the_client() -> Result<(), Ignored> {
    let mark = Mark::new("left-dropped");
    drop(with_leavers(&mark).await);
    mark.gone().await;
    Ok(())
}

async fn dropping_the_runtime() -> Result<(), Ignored> {
    let mark = std::sync::Arc::new(Mark::new("left-runtime"));
    let marked = std::sync::Arc::clone(&mark);
    let in_a_runtime = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(with_leavers(&marked));
        drop(runtime);
        drop(client);
    };
    std::thread::spawn(in_a_runtime).join().unwrap();
    mark.gone().await;
    Ok(())
}

async fn ending_by_itself() -> Result<(), Ignored> {
    let mark = Mark::new("left-ended");
    let client = with_leavers(&mark).await;
    let script =
        "let said = []; for exits in [|| leaves_a_session.exit(), || forks_twice.exit(), || leaves_many.exit()] {
        try { exits.call() } catch (e) { said.push(e.message) } } said";
    let said = value(run(&client, script).await);
    for message in said.as_array().unwrap() {
        let message = message.as_str().unwrap();
        assert!(message.contains("its process ended (exit status: 7)"), "{message}");
    }
    assert_eq!(said.as_array().unwrap().len(), LEAVERS.len());
    mark.gone().await;
    client.close_all_sessions().await;
    Ok(())
}

/// The command `rhaiway run` of a script, in a group of its own.
fn rhaiway(servers: &Value, folder: &Path, script: &str) -> Command {
    let config = folder.join("mcp.json");
    std::fs::write(&config, json!({"mcpServers": servers}).to_string()).unwrap();
    let mut command = Command::new(program());
    command
        .args(["run", "-e", script, "--config"])
        .arg(config)
        .env("XDG_CACHE_HOME", target_dir().join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn pid(child: &tokio::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap()
}

async fn killed() -> Result<(), Ignored> {
    for whole_group in [false, true] {
        let mark = Mark::new("left-killed");
        let folder = tempfile::tempdir().unwrap();
        let script = "leaves_a_session.echo(); forks_twice.echo(); leaves_many.echo(); sleep(60)";
        let mut child = rhaiway(&leavers(&mark), folder.path(), script).spawn().unwrap();
        while mark.left_behind() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let kill = if whole_group { kill_process_group } else { kill_process };
        kill(pid(&child), Signal::KILL).unwrap();
        child.wait().await.unwrap();
        mark.gone().await;
    }
    Ok(())
}

async fn not_started() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-program");
    std::fs::write(&file, "neither").unwrap();
    let client = client(json!({"none": {"command": "no-such-program-anywhere"}, "file": {"command": file}}));
    for (name, expected) in [("none", "there is no such program"), ("file", "ermission denied")] {
        let error = client.create_session(name).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}

/// A server, and a program above it that needs four seconds after SIGTERM, as what stops containers does; it writes a file when it ends
/// well.
#[cfg(unix)]
fn container(name: &str, folder: &Path) -> (Value, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (file, done) = (folder.join(name), folder.join(format!("{name}.done")));
    let server = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexec 3<&0\ntrap 'sleep 4; echo done > \"{}\"; exit 0' TERM\n\"{}\" {} plain <&3 &\nwhile :; do sleep 0.1; done\n",
        done.display(),
        server.display(),
        fake_server::ARGUMENT,
    );
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    (json!({"command": file}), done)
}

async fn containers() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let (docker, docker_done) = container("docker", folder.path());
    let (podman, podman_done) = container("podman", folder.path());
    let (other, other_done) = container("another", folder.path());
    let client = client(json!({"docker": docker, "podman": podman, "other": other}));
    assert!(run(&client, "docker.echo(); podman.echo(); other.echo()").await.error.is_none());
    client.close_all_sessions().await;
    assert_eq!([docker_done.exists(), podman_done.exists(), other_done.exists()], [true, true, false]);
    Ok(())
}

async fn the_time_to_end() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let (mut quick, quick_done) = container("docker", folder.path());
    quick["stop_timeout"] = json!(0.2);
    let (mut slow, slow_done) = container("another", folder.path());
    slow["stop_timeout"] = json!(6);
    let client = builder(json!({"quick": quick, "slow": slow})).build().unwrap();
    assert!(run(&client, "quick.echo(); slow.echo()").await.error.is_none());
    client.close_session("quick").await;
    assert!(!quick_done.exists());
    // Dropped, a session ends in the background, and that is waited for.
    client.remove_server("slow").await.unwrap();
    client.close_all_sessions().await;
    assert!(slow_done.exists() && !quick_done.exists());
    let error = rhaiway::Config::from_value(json!({"mcpServers": {"it": {"command": "x", "stop_timeout": 0}}}));
    let error = error.unwrap().server("it").unwrap_err().to_string();
    assert!(error.contains("mcpServers.it.stop_timeout: expected a positive number of seconds"), "{error}");
    Ok(())
}

async fn slow_to_end() -> Result<(), Ignored> {
    // It needs longer after the end of its input than others may take for all.
    let mut entry = fake_server::entry("ends-slowly");
    entry["stop_timeout"] = json!(20);
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    entry["env"] = json!({"DONE": done});
    let client = client(json!({"it": entry}));
    assert!(run(&client, "it.echo()").await.error.is_none());
    let closing = Instant::now();
    client.close_all_sessions().await;
    assert!(done.exists(), "closed after {:?}", closing.elapsed());
    Ok(())
}

async fn homes() -> Result<(), Ignored> {
    need_native_sandbox()?;
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let homes = || std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let servers = json!({"demo": {"command": program(), "args": ["demo-server"], "sandbox": true}});
    let command = |script: &str| {
        let mut command = rhaiway(&servers, folder.path(), script);
        command.env("TMPDIR", &temporary);
        command
    };
    let here = folder.path().join("here");
    let mut first = command("demo.list_users(); print(\"called\"); sleep(60)")
        .stderr(std::fs::File::create(&here).unwrap())
        .spawn()
        .unwrap();
    while !std::fs::read_to_string(&here).unwrap().contains("called") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let of_the_first = homes();
    assert_eq!(of_the_first.len(), 1);
    // What is needed stays, with what somebody else has there.
    std::fs::create_dir(temporary.join("rhaiway-other")).unwrap();
    assert!(command("demo.list_users()").status().await.unwrap().success());
    assert!(homes().contains(&of_the_first[0]));
    kill_process(pid(&first), Signal::KILL).unwrap();
    first.wait().await.unwrap();
    // Its server may hold the folder for a moment longer.
    while homes() != ["rhaiway-other"] {
        assert!(command("demo.list_users()").status().await.unwrap().success());
    }
    Ok(())
}
