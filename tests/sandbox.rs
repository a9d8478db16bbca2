//! Sandboxed servers: what each kind of sandbox denies, the limits, and that a server which hit one is there again for the next call. The
//! server is one that attempts what it must not. Without a sandbox it succeeds, which is tested too: a denial shows something only then.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{CallOptions, Client, Session};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::processes::Mark;
use crate::support::{Ignored, builder, missing, need_native_sandbox, program, run, test, value};

/// First argument of the test binary that makes it this server.
pub const ARGUMENT: &str = "probe";
/// That which makes it the hosts of another network.
pub const HOSTS: &str = "hosts";
const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox/dist");
const SECRET: &str = "the secret of somebody else";

pub fn main(arguments: &[String]) {
    rhaiway_probe_server::main(arguments);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Preview1,
    Preview2,
    Native,
    /// A native server without a sandbox.
    Free,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Preview1 => "preview_1",
            Self::Preview2 => "preview_2",
            Self::Native => "native",
            Self::Free => "without_one",
        }
    }

    /// A test with a server of this kind, where there can be one.
    fn test<F>(self, name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial
    where
        F: Future<Output = Result<(), Ignored>>,
    {
        test(&format!("sandbox::{}::{name}", self.name()), move || async move {
            if self == Self::Native {
                need_native_sandbox()?;
            }
            run().await
        })
    }

    fn is_wasm(self) -> bool {
        matches!(self, Self::Preview1 | Self::Preview2)
    }

    /// The entry of a server of this kind, granted what `sandbox` says.
    fn entry(self, arguments: &[&str], sandbox: &Value) -> Value {
        match self {
            Self::Preview1 => {
                json!({"command": format!("{DIST}/probe-p1.wasm"), "args": arguments, "sandbox": sandbox})
            }
            Self::Preview2 => {
                json!({"command": format!("{DIST}/probe-p2.wasm"), "args": arguments, "sandbox": sandbox})
            }
            Self::Native | Self::Free => {
                let arguments: Vec<&str> = [ARGUMENT].into_iter().chain(arguments.iter().copied()).collect();
                let sandbox = if self == Self::Native { sandbox.clone() } else { json!(false) };
                json!({"command": std::env::current_exe().unwrap(), "args": arguments, "sandbox": sandbox})
            }
        }
    }
}

/// A server with a folder that it may write to, one that it may read, and one that it may not touch.
struct Probe {
    kind: Kind,
    folder: TempDir,
    client: Client,
}

impl Probe {
    fn new(kind: Kind, more: &Value) -> Self {
        Self::starting(kind, &[], more)
    }

    fn starting(kind: Kind, arguments: &[&str], more: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, file, text) in
            [("rw", "mine.txt", "mine"), ("ro", "given.txt", "given"), ("outside", "secret.txt", SECRET)]
        {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join(file), text).unwrap();
        }
        let mount = |name: &str| {
            let mut mount = json!({"host": folder.path().join(name), "access": name});
            if kind.is_wasm() {
                mount["guest"] = json!(format!("/{name}"));
            }
            mount
        };
        let mut sandbox = json!({"mounts": [mount("rw"), mount("ro")]});
        for (key, value) in more.as_object().unwrap() {
            sandbox[key] = value.clone();
        }
        let client = builder(json!({"probe": kind.entry(arguments, &sandbox)})).build().unwrap();
        Self { kind, folder, client }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.host(path)).unwrap_or_default()
    }

    /// A path in one of the folders, as the server sees it. What is outside has the host's path for all.
    fn path(&self, path: &str) -> String {
        if self.kind.is_wasm() && !path.starts_with("outside") {
            format!("/{path}")
        } else {
            self.host(path).display().to_string()
        }
    }

    /// The arguments, with paths that begin with `@` as the server sees them.
    fn arguments(&self, arguments: &Value) -> Map<String, Value> {
        let place = |value: &Value| match value.as_str().and_then(|text| text.strip_prefix('@')) {
            Some(path) => json!(self.path(path)),
            None => value.clone(),
        };
        arguments.as_object().unwrap().iter().map(|(name, value)| (name.clone(), place(value))).collect()
    }

    async fn session(&self) -> Session {
        self.client.create_session("probe").await.unwrap()
    }

    /// What the server says, or why it can't.
    async fn attempt(&self, tool: &str, arguments: Value) -> Result<String, String> {
        let session = self.client.create_session("probe").await.map_err(|error| error.to_string())?;
        let answer = session.call_tool(tool, self.arguments(&arguments), CallOptions::default()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let text = answer.content()[0]["text"].as_str().unwrap().to_string();
        if answer.is_error() { Err(text) } else { Ok(text) }
    }

    async fn end(self) {
        self.client.close_all_sessions().await;
    }
}

/// What a server attempts in one call.
struct Attempt {
    name: &'static str,
    tool: &'static str,
    arguments: Value,
}

fn attempt(name: &'static str, tool: &'static str, arguments: Value) -> Attempt {
    Attempt { name, tool, arguments }
}

/// Attempts on files. Each can be done where there is no sandbox.
fn on_files() -> Vec<Attempt> {
    let environment = format!("/proc/{}/environ", std::process::id());
    vec![
        attempt("reading_by_dot_dot", "read", json!({"path": "@rw/../outside/secret.txt"})),
        attempt("reading_an_absolute_path", "read", json!({"path": "@outside/secret.txt"})),
        attempt("listing_outside", "list", json!({"path": "@outside"})),
        attempt("writing_outside", "write", json!({"path": "@outside/secret.txt", "text": "overwritten"})),
        attempt("making_outside", "write", json!({"path": "@outside/new.txt", "text": "new"})),
        attempt("removing_outside", "remove", json!({"path": "@outside/secret.txt"})),
        attempt("truncating_outside", "truncate", json!({"path": "@outside/secret.txt"})),
        attempt("following_a_link_out", "read", json!({"path": "@rw/link"})),
        attempt("following_an_absolute_link_out", "read", json!({"path": "@rw/absolute_link"})),
        attempt("writing_through_a_link_out", "append", json!({"path": "@rw/link", "text": "more"})),
        attempt("linking_hard_to_outside", "hard_link", json!({"from": "@outside/secret.txt", "to": "@rw/hard"})),
        attempt("linking_hard_to_what_is_read_only", "hard_link", json!({"from": "@ro/given.txt", "to": "@rw/hard"})),
        attempt("renaming_out_of_what_is_read_only", "rename", json!({"from": "@ro/given.txt", "to": "@rw/taken"})),
        attempt("renaming_into_what_is_read_only", "rename", json!({"from": "@rw/mine.txt", "to": "@ro/mine.txt"})),
        attempt("renaming_from_outside", "rename", json!({"from": "@outside/secret.txt", "to": "@rw/taken"})),
        attempt("renaming_to_outside", "rename", json!({"from": "@rw/mine.txt", "to": "@outside/mine.txt"})),
        attempt("writing_what_is_read_only", "write", json!({"path": "@ro/given.txt", "text": "overwritten"})),
        attempt("appending_to_what_is_read_only", "append", json!({"path": "@ro/given.txt", "text": "more"})),
        attempt("truncating_what_is_read_only", "truncate", json!({"path": "@ro/given.txt"})),
        attempt("removing_what_is_read_only", "remove", json!({"path": "@ro/given.txt"})),
        attempt("making_a_folder_in_what_is_read_only", "make_dir", json!({"path": "@ro/folder"})),
        attempt("linking_in_what_is_read_only", "symlink", json!({"target": "given.txt", "link": "@ro/link"})),
        attempt("dating_what_is_read_only", "set_times", json!({"path": "@ro/given.txt"})),
        attempt("reading_proc_of_another", "read", json!({"path": environment})),
        attempt("listing_proc", "list", json!({"path": "/proc"})),
        attempt("reading_its_own_memory_as_a_file", "stat", json!({"path": "/proc/self/mem"})),
    ]
}

/// Attempts on the network, at servers of this test; each can be done where there is no sandbox.
fn on_the_network(tcp: u16, udp: u16) -> Vec<Attempt> {
    vec![
        attempt("connecting", "tcp_connect", json!({"address": format!("127.0.0.1:{tcp}")})),
        attempt("sending_a_datagram", "udp_send", json!({"address": format!("127.0.0.1:{udp}")})),
        attempt("listening", "listen", json!({"address": "127.0.0.1:0"})),
        attempt("listening_on_all_addresses", "listen", json!({"address": "0.0.0.0:0"})),
    ]
}

pub fn tests() -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in [Kind::Preview1, Kind::Preview2, Kind::Native, Kind::Free] {
        for attempt in on_files() {
            // `stat` is not an access that Landlock knows, and tells nothing.
            if (kind, attempt.name) != (Kind::Native, "reading_its_own_memory_as_a_file") {
                trials.push(kind.test(attempt.name, move || files(kind, attempt)));
            }
        }
        trials.push(kind.test("network", move || network(kind)));
    }
    for kind in [Kind::Preview1, Kind::Preview2, Kind::Native] {
        macro_rules! each {
            ($($test:ident),* $(,)?) => {$(
                trials.push(kind.test(stringify!($test), move || $test(kind)));
            )*};
        }
        each!(
            what_is_granted_works,
            links_that_it_makes_lead_nowhere,
            a_folder_that_is_swapped_for_a_link,
            only_the_variables_that_were_granted,
            granted_addresses,
            names_are_resolved_on_the_host,
            memory,
            computing_in_a_call,
            computing_while_it_asks,
            computing_at_the_start,
            memory_at_the_start,
            a_full_stack,
            a_flood_of_output,
            a_flood_of_errors,
            a_server_that_never_reads,
            a_server_that_never_answers,
            an_exit_in_the_middle,
            many_open_files,
            pipes_that_nobody_writes_to,
            the_files_of_another_server,
            what_would_allow_it,
            a_restart_grants_no_more,
            read_only_inside_of_what_is_not,
        );
    }
    trials.push(Kind::Native.test("a_fork_bomb", fork_bomb));
    trials.push(Kind::Native.test("other_processes", other_processes));
    trials.push(Kind::Native.test("computing_of_others", computing_of_others));
    trials.push(Kind::Native.test("memory_of_children", memory_of_children));
    trials.push(Kind::Native.test("a_client_that_is_killed", killed_client));
    trials.push(Kind::Native.test("ends_of_children_that_are_ignored", ignored_ends));
    trials.push(Kind::Native.test("what_it_needs_is_not_what_it_says", what_it_needs_is_not_what_it_says));
    trials.push(Kind::Native.test("the_kernel", kernel));
    trials.push(Kind::Native.test("attributes_of_files", attributes));
    #[cfg(target_os = "linux")]
    trials.push(Kind::Native.test("sockets_of_the_system", system_sockets));
    trials.push(Kind::Native.test("addresses_of_other_hosts", other_hosts));
    trials.push(Kind::Native.test("nothing_is_left_of_it", nothing_left));
    trials.push(Kind::Native.test("what_can_not_be_enforced", not_enforced));
    trials
}

async fn files(kind: Kind, Attempt { tool, arguments, .. }: Attempt) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../outside/secret.txt", probe.host("rw/link")).unwrap();
        std::os::unix::fs::symlink(probe.host("outside/secret.txt"), probe.host("rw/absolute_link")).unwrap();
    }
    let said = probe.attempt(tool, arguments).await;
    if kind == Kind::Free {
        said.unwrap();
        return Ok(());
    }
    let refused = said.unwrap_err();
    assert!(!refused.contains(SECRET), "{refused}");
    assert_eq!(probe.read("outside/secret.txt"), SECRET);
    assert_eq!(probe.read("ro/given.txt"), "given");
    assert_eq!(probe.read("rw/mine.txt"), "mine");
    let given = probe.host("ro/given.txt").metadata().unwrap();
    assert!(given.modified().unwrap().elapsed().unwrap() < Duration::from_secs(3600));
    for (folder, files) in [("outside", 1), ("ro", 1), ("rw", 3)] {
        assert_eq!(std::fs::read_dir(probe.host(folder)).unwrap().count(), files, "{folder}");
    }
    // It was refused, and goes on.
    assert_eq!(probe.attempt("echo", json!({"text": "still here"})).await.unwrap(), "still here");
    probe.end().await;
    Ok(())
}

/// A server that answers each connection with a line, as long as the test runs.
fn tcp_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    answer_connections(listener, "reached\n".into());
    port
}

fn answer_connections(listener: TcpListener, answer: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
}

async fn network(kind: Kind) -> Result<(), Ignored> {
    let tcp = tcp_server();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let attempts = on_the_network(tcp, udp.local_addr().unwrap().port());
    // Another address is granted, so that it is the address that decides.
    for sandbox in [json!({}), json!({"network": ["127.0.0.1:1"]})] {
        let probe = Probe::new(kind, &sandbox);
        for Attempt { name, tool, arguments } in &attempts {
            let said = probe.attempt(tool, arguments.clone()).await;
            assert_eq!(said.is_ok(), kind == Kind::Free, "{name}: {said:?}");
        }
        probe.end().await;
    }
    Ok(())
}

async fn what_is_granted_works(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    assert_eq!(probe.attempt("read", json!({"path": "@ro/given.txt"})).await.unwrap(), "given");
    probe.attempt("write", json!({"path": "@rw/new.txt", "text": "new"})).await.unwrap();
    probe.attempt("append", json!({"path": "@rw/new.txt", "text": "er"})).await.unwrap();
    probe.attempt("make_dir", json!({"path": "@rw/folder"})).await.unwrap();
    probe.attempt("rename", json!({"from": "@rw/new.txt", "to": "@rw/folder/new.txt"})).await.unwrap();
    probe.attempt("hard_link", json!({"from": "@rw/mine.txt", "to": "@rw/hard.txt"})).await.unwrap();
    probe.attempt("symlink", json!({"target": "mine.txt", "link": "@rw/soft.txt"})).await.unwrap();
    assert_eq!(probe.attempt("read", json!({"path": "@rw/soft.txt"})).await.unwrap(), "mine");
    probe.attempt("remove", json!({"path": "@rw/hard.txt"})).await.unwrap();
    assert_eq!(probe.attempt("list", json!({"path": "@rw"})).await.unwrap(), r#"["folder","mine.txt","soft.txt"]"#);
    assert_eq!(probe.read("rw/folder/new.txt"), "newer");
    probe.end().await;
    Ok(())
}

async fn links_that_it_makes_lead_nowhere(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    for (number, target) in
        ["../outside/secret.txt".into(), probe.path("outside/secret.txt"), "/etc/passwd".into()].iter().enumerate()
    {
        let link = format!("@rw/link{number}");
        // It may be made, where only following it is denied.
        let _ = probe.attempt("symlink", json!({"target": target, "link": link})).await;
        for tool in ["read", "list"] {
            let said = probe.attempt(tool, json!({"path": link})).await.unwrap_err();
            assert!(!said.contains(SECRET), "{said}");
        }
        probe.attempt("append", json!({"path": link, "text": "more"})).await.unwrap_err();
    }
    let _ = probe.attempt("symlink", json!({"target": "../outside", "link": "@rw/folder"})).await;
    probe.attempt("read", json!({"path": "@rw/folder/secret.txt"})).await.unwrap_err();
    probe.attempt("write", json!({"path": "@rw/folder/new.txt", "text": "new"})).await.unwrap_err();
    assert_eq!(probe.read("outside/secret.txt"), SECRET);
    assert!(!probe.host("outside/new.txt").exists());
    probe.end().await;
    Ok(())
}

/// While the server reads and writes, a folder becomes a link to the one outside, and a folder again, as fast as can be.
async fn a_folder_that_is_swapped_for_a_link(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"cpu_seconds": 60}));
    let (folder, link, spare) = (probe.host("rw/folder"), probe.host("rw/link"), probe.host("rw/spare"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("secret.txt"), "inside").unwrap();
    std::os::unix::fs::symlink("../outside", &link).unwrap();
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let swapping = std::thread::spawn({
        let (stop, swaps) = (Arc::clone(&stop), Arc::clone(&swaps));
        move || {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&folder, &spare).unwrap();
                std::fs::rename(&link, &folder).unwrap();
                std::fs::rename(&folder, &link).unwrap();
                std::fs::rename(&spare, &folder).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut seen = 0;
    for _ in 0..10 {
        let said = probe.attempt("read_loop", json!({"path": "@rw/folder/secret.txt", "times": 2000})).await.unwrap();
        assert!(matches!(&*said, "[\"inside\"]" | "[]"), "{said}");
        seen += usize::from(said.len() > 2);
        let write = json!({"path": "@rw/folder/written.txt", "text": "x", "times": 500});
        probe.attempt("write_loop", write).await.unwrap();
        assert!(!probe.host("outside/written.txt").exists());
    }
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(seen > 0 && swaps.load(Ordering::Relaxed) > 100, "the race was not run: {seen}, {swaps:?}");
    assert_eq!(probe.read("outside/secret.txt"), SECRET);
    probe.end().await;
    Ok(())
}

async fn only_the_variables_that_were_granted(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"env": {"GRANTED": "${HOME}", "LANG": "C"}}));
    let home = std::env::var("HOME").unwrap();
    let said = probe.attempt("variables", json!({})).await.unwrap();
    let mut variables: Map<String, Value> = serde_json::from_str(&said).unwrap();
    assert_eq!(variables.remove("GRANTED"), Some(json!(home)));
    assert_eq!(variables.remove("LANG"), Some(json!("C")));
    if kind == Kind::Native {
        // A home of its own, and where to find programs.
        assert_ne!(variables.remove("HOME"), Some(json!(home)));
        variables.remove("TMPDIR").unwrap();
        variables.remove("PATH").unwrap();
    }
    assert_eq!(variables, Map::new());
    probe.attempt("env", json!({"name": "USER"})).await.unwrap_err();
    probe.end().await;
    // By name alone, the client's own.
    let probe = Probe::new(kind, &json!({"env": ["CARGO_MANIFEST_DIR", "NOT_SET_ANYWHERE"]}));
    let said = probe.attempt("env", json!({"name": "CARGO_MANIFEST_DIR"})).await;
    assert_eq!(said.ok(), std::env::var("CARGO_MANIFEST_DIR").ok());
    probe.attempt("env", json!({"name": "NOT_SET_ANYWHERE"})).await.unwrap_err();
    probe.end().await;
    Ok(())
}

async fn granted_addresses(kind: Kind) -> Result<(), Ignored> {
    let (granted, other) = (tcp_server(), tcp_server());
    // The same one twice, and by another name.
    let network =
        json!([format!("127.0.0.1:{granted}"), format!("localhost.:{granted}"), format!("127.0.0.1:{granted}")]);
    let probe = Probe::new(kind, &json!({"network": network}));
    let connect = |port: u16, host: &str| probe.attempt("tcp_connect", json!({"address": format!("{host}:{port}")}));
    let said = connect(granted, "127.0.0.1").await;
    if kind == Kind::Preview1 {
        // It has no way to connect.
        assert!(said.is_err(), "{said:?}");
    } else {
        assert_eq!(said.unwrap(), "reached");
    }
    connect(other, "127.0.0.1").await.unwrap_err();
    connect(granted, "127.0.0.2").await.unwrap_err();
    connect(granted, "[::1]").await.unwrap_err();
    probe.attempt("udp_send", json!({"address": format!("127.0.0.1:{granted}")})).await.unwrap_err();
    probe.attempt("listen", json!({"address": "127.0.0.1:0"})).await.unwrap_err();
    probe.end().await;
    Ok(())
}

async fn names_are_resolved_on_the_host(kind: Kind) -> Result<(), Ignored> {
    let port = tcp_server();
    let granted = Probe::new(kind, &json!({"network": [format!("localhost:{port}")]}));
    let said = granted.attempt("resolve", json!({"name": "localhost"})).await;
    // Preview 1 knows no names.
    assert_eq!(said.is_ok(), kind != Kind::Preview1, "{said:?}");
    if kind != Kind::Preview1 {
        let said = granted.attempt("tcp_connect", json!({"address": format!("127.0.0.1:{port}")})).await;
        assert_eq!(said.unwrap(), "reached");
    }
    granted.attempt("resolve", json!({"name": "example.com"})).await.unwrap_err();
    granted.end().await;
    if kind.is_wasm() {
        let closed = Probe::new(kind, &json!({}));
        closed.attempt("resolve", json!({"name": "localhost"})).await.unwrap_err();
        closed.end().await;
    }
    Ok(())
}

/// The call fails with the limit's name, and the next one finds the server there again.
async fn hits(probe: &Probe, tool: &str, arguments: Value, limit: &str) {
    let refused = probe.attempt(tool, arguments).await.unwrap_err();
    assert!(refused.contains(limit), "{refused}");
    assert_eq!(probe.attempt("echo", json!({"text": "again"})).await.unwrap(), "again");
}

async fn memory(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"memory_mb": if kind.is_wasm() { 16 } else { 200 }}));
    probe.attempt("allocate", json!({"mb": 8})).await.unwrap();
    for _ in 0..3 {
        let refused = probe.attempt("allocate", json!({"mb": 400})).await.unwrap_err();
        // The system ends a native server before the watch does, where it asks for too much at once.
        let named = refused.contains("it needs more memory than its 16 MiB (`memory_mb`)");
        assert!(named || kind == Kind::Native, "{refused}");
        assert_eq!(probe.attempt("echo", json!({"text": "again"})).await.unwrap(), "again");
    }
    probe.end().await;
    Ok(())
}

async fn computing_in_a_call(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"cpu_seconds": 0.3}));
    let neighbour = Probe::new(kind, &json!({}));
    neighbour.session().await;
    let spinning = hits(
        &probe,
        "spin",
        json!({}),
        "it computed for longer than the 0.3 s that one request may take (`cpu_seconds`)",
    );
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let echoing = async {
        let mut stopped = stopped;
        let mut echoes = 0;
        while stopped.try_recv().is_err() {
            assert_eq!(neighbour.attempt("echo", json!({"text": "x"})).await.unwrap(), "x");
            echoes += 1;
        }
        echoes
    };
    let (echoes, ()) = tokio::join!(echoing, async {
        spinning.await;
        let _ = stop.send(());
    });
    assert!(echoes > 10, "the neighbour answered {echoes} times only");
    // Each request has as much.
    for _ in 0..3 {
        hits(&probe, "spin", json!({}), "cpu_seconds").await;
    }
    probe.end().await;
    neighbour.end().await;
    Ok(())
}

async fn computing_at_the_start(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::starting(kind, &["spin"], &json!({"cpu_seconds": 0.2}));
    let refused = probe.attempt("echo", json!({"text": "x"})).await.unwrap_err();
    assert!(refused.contains("can't connect to the server `probe`") && refused.contains("cpu_seconds"), "{refused}");
    probe.end().await;
    Ok(())
}

async fn memory_at_the_start(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::starting(kind, &["allocate"], &json!({"memory_mb": 64}));
    let refused = probe.attempt("echo", json!({"text": "x"})).await.unwrap_err();
    let named = refused.contains("it needs more memory than its 64 MiB (`memory_mb`)");
    assert!(refused.contains("can't connect to the server `probe`") && (named || kind == Kind::Native), "{refused}");
    probe.end().await;
    Ok(())
}

/// What it asks the client for is no request to it.
async fn computing_while_it_asks(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"cpu_seconds": 0.3}));
    hits(&probe, "spin_and_ask", json!({}), "it computed for longer than the 0.3 s").await;
    probe.end().await;
    Ok(())
}

async fn a_full_stack(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    for _ in 0..2 {
        hits(&probe, "recurse", json!({}), if kind.is_wasm() { "stack" } else { "signal" }).await;
    }
    probe.end().await;
    Ok(())
}

async fn a_flood_of_output(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"max_output_mb": 1}));
    hits(
        &probe,
        "flood",
        json!({"mb": 100}),
        "it wrote more than the 1 MiB that it may write for one request (`max_output_mb`)",
    )
    .await;
    probe.end().await;
    let probe = Probe::starting(kind, &["flood"], &json!({"max_output_mb": 1}));
    let refused = probe.attempt("echo", json!({"text": "x"})).await.unwrap_err();
    assert!(refused.contains("max_output_mb"), "{refused}");
    probe.end().await;
    Ok(())
}

async fn a_flood_of_errors(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({"max_output_mb": 1}));
    hits(&probe, "flood_errors", json!({"mb": 100}), "max_output_mb").await;
    probe.end().await;
    Ok(())
}

async fn a_server_that_never_reads(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::starting(kind, &["deaf"], &json!({"wall_seconds": 3}));
    let session = probe.session().await;
    session.list_tools().await.unwrap();
    // More than any pipe holds.
    let refused = probe.attempt("echo", json!({"text": "x".repeat(1 << 20)})).await.unwrap_err();
    assert!(refused.contains("it did not answer within the 3 s that a request may take (`wall_seconds`)"), "{refused}");
    session.list_tools().await.unwrap();
    probe.end().await;
    Ok(())
}

async fn a_server_that_never_answers(kind: Kind) -> Result<(), Ignored> {
    // Long enough for an answer from a machine that is busy with all the other tests.
    let probe = Probe::new(kind, &json!({"wall_seconds": 3}));
    for _ in 0..2 {
        hits(&probe, "hang", json!({}), "wall_seconds").await;
    }
    probe.end().await;
    let mut entry = kind.entry(&["hang"], &json!(true));
    entry["connect_timeout"] = json!(0.5);
    let client = builder(json!({"probe": entry})).build().unwrap();
    let refused = client.create_session("probe").await.unwrap_err().to_string();
    assert!(refused.contains("it did not answer the handshake within 0.5 s"), "{refused}");
    client.close_all_sessions().await;
    Ok(())
}

async fn an_exit_in_the_middle(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    let refused = probe.attempt("exit", json!({"code": 7})).await.unwrap_err();
    let how = match kind {
        Kind::Preview1 => "it ended with exit code 7",
        // It knows success and failure only.
        Kind::Preview2 => "it ended with exit code 1",
        _ => "exit status: 7",
    };
    assert!(refused.contains(how), "{refused}");
    assert_eq!(probe.attempt("echo", json!({"text": "again"})).await.unwrap(), "again");
    probe.end().await;
    let probe = Probe::new(kind, &json!({}));
    let refused = probe.attempt("panic", json!({})).await.unwrap_err();
    assert!(refused.contains("the probe panics as it was told to"), "{refused}");
    probe.end().await;
    Ok(())
}

/// What waits for a pipe that nobody writes to keeps neither the program nor its end waiting.
async fn pipes_that_nobody_writes_to(kind: Kind) -> Result<(), Ignored> {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let guest = if kind.is_wasm() { Path::new("/there") } else { place.path() };
    let mut mount = json!({"host": place.path()});
    if kind.is_wasm() {
        mount["guest"] = json!(guest);
    }
    let waiting = kind.entry(&[], &json!({"mounts": [mount], "wall_seconds": 0.05}));
    let servers = json!({"waiting": waiting, "probe": kind.entry(&[], &json!({}))});
    let file = place.path().join("mcp.json");
    std::fs::write(&file, json!({"mcpServers": servers}).to_string()).unwrap();
    // More than there are threads to wait.
    let count = if kind.is_wasm() { 70 } else { 3 };
    let script = format!(
        r#"
        let failed = [];
        for i in 0..{count} {{
            try {{ waiting.read(#{{path: "{}"}}); }} catch (e) {{ failed.push(e.message.contains("wall_seconds")); }}
        }}
        [failed.filter(|is_late| is_late).len(), probe.echo(#{{text: "again"}})]
        "#,
        guest.join("pipe").display()
    );
    let mut command = tokio::process::Command::new(program());
    let output = command.args(["run", "--eval", &script, "--config"]).arg(file).output().await.unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said, json!([count, "again"]), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn many_open_files(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    let refused = probe.attempt("open_many", json!({"path": "@ro/given.txt", "count": 5000})).await.unwrap_err();
    let opened = refused.strip_prefix("after ").and_then(|rest| rest.split(':').next()).and_then(|n| n.parse().ok());
    // A file takes two places of a component, which is told; a module is ended.
    let is_limit = match kind {
        Kind::Preview1 => {
            refused.contains("the sandbox ended it: it has more than 256 files, folders and sockets open")
        }
        Kind::Preview2 => opened.is_some_and(|opened: usize| (100..256).contains(&opened)),
        _ => opened.is_some_and(|opened: usize| (500..1024).contains(&opened)),
    };
    assert!(is_limit, "{refused}");
    assert_eq!(probe.attempt("echo", json!({"text": "again"})).await.unwrap(), "again");
    probe.end().await;
    Ok(())
}

async fn the_files_of_another_server(kind: Kind) -> Result<(), Ignored> {
    let (one, other) = (Probe::new(kind, &json!({})), Probe::new(kind, &json!({})));
    other.attempt("write", json!({"path": "@rw/hers.txt", "text": SECRET})).await.unwrap();
    let path = other.host("rw/hers.txt");
    one.attempt("read", json!({"path": path})).await.unwrap_err();
    one.attempt("read", json!({"path": "@rw/hers.txt"})).await.unwrap_err();
    one.end().await;
    other.end().await;
    Ok(())
}

/// The error that a script sees says which line of the configuration would allow what was denied.
async fn what_would_allow_it(kind: Kind) -> Result<(), Ignored> {
    let probe = Probe::new(kind, &json!({}));
    let told = |execution: rhaiway::Execution| execution.error.unwrap().to_string();
    let script = |tool: &str, path: &str| format!("probe.{tool}(#{{path: \"{}\", text: \"\"}})", probe.path(path));
    let said = told(run(&probe.client, &script("write", "ro/given.txt")).await);
    // The system's words name no path, so that the server has to; this one does not.
    assert!(!said.contains("would allow") || said.contains(r#""access": "rw""#), "{said}");
    if kind == Kind::Preview2 {
        let said = told(run(&probe.client, "probe.tcp_connect(#{address: \"192.0.2.7:81\"})").await);
        assert!(
            said.contains(
                " denied that, and `\"network\": [\"192.0.2.7:81\"]` in the `sandbox` of its entry would allow it"
            ),
            "{said}"
        );
    }
    if kind.is_wasm() {
        let said = told(run(&probe.client, "probe.read(#{path: \"/etc/hosts\"})").await);
        let line = r#"`"mounts": [{"host": "/etc", "guest": "/etc", "access": "ro"}]` in the `sandbox` of its entry would allow it"#;
        assert!(said.contains(line), "{said}");
    }
    probe.end().await;
    Ok(())
}

async fn fork_bomb() -> Result<(), Ignored> {
    let free = Probe::new(Kind::Free, &json!({}));
    let said = free.attempt("fork_bomb", json!({"count": 200})).await.unwrap();
    assert_eq!(said, r#"{"started":200,"error":null}"#.to_string(), "the attempt is none");
    free.end().await;
    let probe = Probe::new(Kind::Native, &json!({}));
    probe.attempt("fork_bomb", json!({"count": 20})).await.unwrap();
    let refused = probe.attempt("fork_bomb", json!({"count": 100_000})).await.unwrap_err();
    assert!(refused.contains("it has more than 64 processes"), "{refused}");
    assert_eq!(probe.attempt("echo", json!({"text": "again"})).await.unwrap(), "again");
    probe.end().await;
    Ok(())
}

async fn other_processes() -> Result<(), Ignored> {
    let mark = Mark::new("neighbour");
    let one = Probe::new(Kind::Native, &json!({}));
    let other = Probe::new(Kind::Native, &json!({"env": mark.variables()}));
    other.session().await;
    let numbers: Vec<u32> =
        mark.processes().map(|process| process.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
    let free = Probe::new(Kind::Free, &json!({}));
    let [neighbour] = numbers[..] else { panic!("{numbers:?}") };
    for pid in [std::process::id(), neighbour] {
        for (tool, arguments) in [("signal", json!({"pid": pid, "signal": 0})), ("limits_of", json!({"pid": pid}))] {
            one.attempt(tool, arguments.clone()).await.unwrap_err();
            free.attempt(tool, arguments).await.unwrap();
        }
    }
    // The first one in its namespace is not its own, either.
    one.attempt("signal", json!({"pid": 1, "signal": 0})).await.unwrap_err();
    for pid in [std::process::id(), neighbour, 1] {
        let said = one.attempt("read_memory", json!({"pid": pid})).await.unwrap();
        let said: Map<String, Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(said.len(), 3);
        assert!(said.values().all(|said| said != "read"), "{said:?}");
    }
    one.attempt("clone_parent", json!({})).await.unwrap_err();
    let group = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_string()
    };
    let before = group(&mark.processes().next().unwrap());
    let _ = other.attempt("setsid_child", json!({})).await;
    assert!(mark.processes().all(|process| group(&process) == before), "it left its group");
    assert_eq!(other.attempt("echo", json!({"text": "still here"})).await.unwrap(), "still here");
    for probe in [one, other, free] {
        probe.end().await;
    }
    Ok(())
}

/// Computing counts, whoever does it and whatever it is called.
async fn computing_of_others() -> Result<(), Ignored> {
    let limit = "it computed for longer than the 0.5 s that one request may take (`cpu_seconds`)";
    let probe = Probe::new(Kind::Native, &json!({"cpu_seconds": 0.5}));
    for each in [10, 200] {
        hits(&probe, "unwaited_children", json!({"count": 10_000, "ms": each}), limit).await;
    }
    probe.attempt("nameless", json!({})).await.unwrap();
    hits(&probe, "spin", json!({}), limit).await;
    probe.end().await;
    Ok(())
}

/// What a process shares with its children is there once.
async fn memory_of_children() -> Result<(), Ignored> {
    let probe = Probe::new(Kind::Native, &json!({"memory_mb": 100}));
    probe.attempt("allocate", json!({"mb": 50})).await.unwrap();
    let said = probe.attempt("fork_bomb", json!({"count": 10, "ms": 700})).await.unwrap();
    assert_eq!(said, r#"{"started":10,"error":null}"#);
    probe.end().await;
    Ok(())
}

/// Nothing lives on where nobody watches it any more.
async fn killed_client() -> Result<(), Ignored> {
    let mark = Mark::new("orphan");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("mcp.json");
    let entry = Kind::Native.entry(&[], &json!({"env": mark.variables()}));
    std::fs::write(&file, json!({"mcpServers": {"probe": entry}}).to_string()).unwrap();
    let mut command = tokio::process::Command::new(program());
    command.args(["run", "--eval", "probe.leave_child(); probe.hang()", "--config"]).arg(file);
    let mut client = command.spawn().unwrap();
    while mark.alive().len() < 2 {
        tokio::task::yield_now().await;
    }
    client.kill().await.unwrap();
    mark.gone().await;
    Ok(())
}

/// Whoever starts the client may ignore the ends of children, which is inherited.
async fn ignored_ends() -> Result<(), Ignored> {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("mcp.json");
    std::fs::write(&file, json!({"mcpServers": {"probe": Kind::Native.entry(&[], &json!({}))}}).to_string()).unwrap();
    let mut command = tokio::process::Command::new("sh");
    command.args([
        "-c",
        "trap '' CHLD; exec \"$0\" run --eval 'probe.echo(#{text: \"x\"})' --config \"$1\"",
        program(),
    ]);
    let output = command.arg(file).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What is granted at the next start is not what a server led there.
async fn a_restart_grants_no_more(kind: Kind) -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let place = |path: &str| folder.path().join(path);
    for path in ["rw/a/inner", "outside/inner"] {
        std::fs::create_dir_all(place(path)).unwrap();
    }
    std::fs::write(place("outside/inner/secret.txt"), SECRET).unwrap();
    let mount = |path: &str, guest: &str| {
        let mut mount = json!({"host": place(path), "access": "rw"});
        if kind.is_wasm() {
            mount["guest"] = json!(guest);
        }
        mount
    };
    let sandbox = json!({"mounts": [mount("rw", "/rw"), mount("rw/a/inner", "/inner")]});
    let client = builder(json!({"probe": kind.entry(&[], &sandbox)})).build().unwrap();
    let (rw, inner) = if kind.is_wasm() {
        ("/rw".to_string(), "/inner".to_string())
    } else {
        (place("rw").display().to_string(), place("rw/a/inner").display().to_string())
    };
    let script = format!(
        r#"
        probe.write(#{{path: "{inner}/mine.txt", text: "mine"}});
        probe.rename(#{{from: "{rw}/a", to: "{rw}/b"}});
        probe.symlink(#{{target: "../outside", link: "{rw}/a"}});
        try {{ probe.exit(#{{code: 0}}); }} catch {{}}
        probe.read(#{{path: "{inner}/secret.txt"}})
        "#
    );
    let refused = run(&client, &script).await.error.unwrap().to_string();
    let expected =
        format!("rw/a/inner`: a link in `{}`, where the server may write, leads to `", place("rw").display());
    assert!(refused.contains(&expected), "{refused}");
    client.close_all_sessions().await;
    Ok(())
}

/// The same for what a program needs to start: its interpreter, its libraries.
async fn what_it_needs_is_not_what_it_says() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let place = |path: &str| folder.path().join(path);
    for path in ["rw/bin", "rw/lib", "outside"] {
        std::fs::create_dir_all(place(path)).unwrap();
    }
    std::fs::write(place("outside/secret.txt"), SECRET).unwrap();
    let executable = |path: &str, text: String| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(place(path), text).unwrap();
        std::fs::set_permissions(place(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let own = std::env::current_exe().unwrap();
    executable("rw/bin/server", format!("#!/bin/sh\nexec {} {ARGUMENT}\n", own.display()));
    let mounts = json!([{"host": place("rw"), "access": "rw"}, {"host": own.parent().unwrap()}]);
    let client = builder(json!({"probe": {"command": place("rw/bin/server"), "sandbox": {"mounts": mounts}}}));
    let client = client.build().unwrap();
    let rw = place("rw").display().to_string();
    let script = format!(
        r#"
        probe.symlink(#{{target: "{}", link: "{rw}/lib/libsecret"}});
        try {{ probe.exit(#{{code: 0}}); }} catch {{}}
        probe.read(#{{path: "{rw}/lib/libsecret/secret.txt"}})
        "#,
        place("outside").display()
    );
    let refused = run(&client, &script).await.error.unwrap().to_string();
    assert!(refused.contains("Permission denied"), "{refused}");
    // What would keep its reader waiting.
    client.close_all_sessions().await;
    assert!(std::process::Command::new("mkfifo").arg(place("rw/pyvenv.cfg")).status().unwrap().success());
    assert_eq!(value(run(&client, "probe.echo(#{text: \"x\"})").await), json!("x"));
    // It names another interpreter, which is a secret.
    client.close_all_sessions().await;
    executable("rw/bin/server", format!("#!{}\n", place("outside/secret.txt").display()));
    let refused = client.create_session("probe").await.unwrap_err().to_string();
    let expected = format!("it needs `{}`, as files say that it may write to", place("outside/secret.txt").display());
    assert!(refused.contains(&expected), "{refused}");
    client.close_all_sessions().await;
    Ok(())
}

/// What is read-only stays it, also inside of what is not; where that can't be enforced, nothing starts.
async fn read_only_inside_of_what_is_not(kind: Kind) -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let (outer, inner) = (folder.path().join("outer"), folder.path().join("outer/between/inner"));
    std::fs::create_dir_all(&inner).unwrap();
    let mut mounts = json!([{"host": outer, "access": "rw"}, {"host": inner, "access": "ro"}]);
    if kind.is_wasm() {
        (mounts[0]["guest"], mounts[1]["guest"]) = (json!("/outer"), json!("/inner"));
    }
    let probe = Probe::new(kind, &json!({"mounts": mounts}));
    let refused = probe.attempt("write", json!({"path": inner.join("new.txt"), "text": "x"})).await.unwrap_err();
    if kind.is_wasm() {
        let expected = format!("with `ro`: it could be written by way of `{}`", outer.display());
        assert!(refused.contains(&expected), "{refused}");
    } else {
        assert!(refused.contains("Read-only file system"), "{refused}");
        probe.attempt("write", json!({"path": outer.join("new.txt"), "text": "x"})).await.unwrap();
        // Nor can something else be put in its place for the next start.
        for (from, to) in [("between", "renamed"), ("between/inner", "between/renamed")] {
            let arguments = json!({"from": outer.join(from), "to": outer.join(to)});
            probe.attempt("rename", arguments).await.unwrap_err();
        }
    }
    assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
    probe.end().await;
    Ok(())
}

async fn kernel() -> Result<(), Ignored> {
    let probe = Probe::new(Kind::Native, &json!({}));
    for (tool, arguments) in [
        ("unshare", json!({})),
        ("mount", json!({})),
        ("io_uring", json!({})),
        ("keyctl", json!({})),
        ("chroot", json!({"path": "@rw"})),
        ("raw_socket", json!({})),
        ("netlink", json!({})),
        ("ioctl_terminal", json!({})),
        ("open_device", json!({"path": "/dev/kmsg"})),
        ("open_device", json!({"path": "/dev/tty"})),
        ("inotify", json!({"path": "/etc"})),
    ] {
        let refused = probe.attempt(tool, arguments).await.unwrap_err();
        assert!(refused.contains("not permitted") || refused.contains("Permission denied"), "{tool}: {refused}");
    }
    let free = Probe::new(Kind::Free, &json!({}));
    // Memory that would count as nobody's.
    for (tool, arguments) in
        [("memfd", json!({})), ("shared_memory", json!({})), ("shared_memory", json!({"device": "/dev/zero"}))]
    {
        probe.attempt(tool, arguments.clone()).await.unwrap_err();
        free.attempt(tool, arguments).await.unwrap();
    }
    free.attempt("netlink", json!({})).await.unwrap();
    free.attempt("keyctl", json!({})).await.unwrap();
    let limits: Value = serde_json::from_str(&probe.attempt("limits", json!({})).await.unwrap()).unwrap();
    assert_eq!(limits["CORE"]["hard"], json!(0));
    assert_eq!(limits["NOFILE"]["hard"], json!(1024));
    free.end().await;
    probe.end().await;
    Ok(())
}

/// What Landlock does not know: modes, owners and times.
async fn attributes() -> Result<(), Ignored> {
    use std::os::unix::fs::PermissionsExt;
    let probe = Probe::new(Kind::Native, &json!({}));
    let spawn = async |program: &str, arguments: Value| -> i64 {
        let said = probe.attempt("spawn", json!({"program": program, "args": arguments})).await.unwrap();
        serde_json::from_str::<Value>(&said).unwrap()["code"].as_i64().unwrap()
    };
    for path in ["outside/secret.txt", "outside", "ro/given.txt", "ro"] {
        let before = probe.host(path).metadata().unwrap().permissions().mode();
        assert_ne!(spawn("/bin/chmod", json!(["777", probe.host(path)])).await, 0, "{path}");
        assert_ne!(
            spawn("/bin/touch", json!(["--no-create", "--date=1999-01-01", probe.host(path)])).await,
            0,
            "{path}"
        );
        assert_eq!(probe.host(path).metadata().unwrap().permissions().mode(), before);
    }
    // Nor a program that runs as its owner, for others.
    assert_ne!(spawn("/bin/chmod", json!(["u+s", probe.host("rw/mine.txt")])).await, 0);
    assert_eq!(probe.host("rw/mine.txt").metadata().unwrap().permissions().mode() & 0o7000, 0);
    probe.end().await;
    Ok(())
}

#[cfg(target_os = "linux")]
async fn system_sockets() -> Result<(), Ignored> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let (probe, free) = (Probe::new(Kind::Native, &json!({})), Probe::new(Kind::Free, &json!({})));
    // In a folder that it may even write to: a socket is a door to whoever listens.
    let path = probe.host("rw/socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let name = format!("rhaiway-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (tool, arguments) in [("unix_connect", json!({"path": path})), ("unix_abstract", json!({"name": name}))] {
        probe.attempt(tool, arguments.clone()).await.unwrap_err();
        free.attempt(tool, arguments).await.unwrap();
    }
    probe.end().await;
    free.end().await;
    Ok(())
}

/// In a network of the test's own, where other hosts can be played: each listens at an address that is none of the loopback's.
async fn other_hosts() -> Result<(), Ignored> {
    let tools = std::process::Command::new("sh").args(["-c", "command -v ip && command -v unshare"]).output().unwrap();
    if !tools.status.success() {
        return Err(missing("it needs the programs `ip` and `unshare`"));
    }
    let place = tempfile::tempdir().unwrap();
    let (config, hosts) = (place.path().join("mcp.json"), place.path().join("hosts"));
    let granted = ["203.0.113.5:80", "[2001:db8::5]:80", "granted.example:80"];
    let entry = Kind::Native.entry(&[], &json!({"network": granted}));
    std::fs::write(&config, json!({"mcpServers": {"probe": entry}}).to_string()).unwrap();
    std::fs::write(&hosts, "203.0.113.6 granted.example\n203.0.113.7 other.example\n").unwrap();
    let there = "ip link set lo up && ip address add 203.0.113.5/29 dev lo && ip address add 203.0.113.6/29 dev lo \
        && ip address add 203.0.113.7/29 dev lo && ip address add 2001:db8::5/64 dev lo nodad \
        && ip address add 2001:db8::6/64 dev lo nodad && mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let script = "[\"203.0.113.5:80\", \"[2001:db8::5]:80\", \"granted.example:80\", \"203.0.113.5:81\", \"203.0.113.6:80\", \
        \"203.0.113.7:80\", \"[2001:db8::6]:80\", \"other.example:80\"].map(|address| { \
            let said = (); \
            try { said = probe.tcp_connect(#{address: address}); } catch { said = \"not reached\"; } \
            said \
        })";
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "sh", "-c", there]).arg(hosts);
    command.arg(std::env::current_exe().unwrap()).arg(HOSTS);
    command.arg(program()).args(["run", "--eval", script, "--config"]).arg(config);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Value =
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let not = "not reached";
    let expected = json!(["203.0.113.5:80", "[2001:db8::5]:80", "203.0.113.6:80", not, not, not, not, not]);
    assert_eq!(said, expected);
    Ok(())
}

/// Listens as all hosts that [`other_hosts`] plays, which say their address, while a command runs.
pub fn hosts(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    for address in
        ["203.0.113.5:80", "203.0.113.5:81", "203.0.113.6:80", "203.0.113.7:80", "[2001:db8::5]:80", "[2001:db8::6]:80"]
    {
        answer_connections(TcpListener::bind(address).unwrap(), format!("{address}\n"));
    }
    let status = std::process::Command::new(arguments.next().unwrap()).args(arguments).status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn nothing_left() -> Result<(), Ignored> {
    let mark = Mark::new("left");
    let probe = Probe::new(Kind::Native, &json!({"env": mark.variables()}));
    let variables = probe.attempt("variables", json!({})).await.unwrap();
    let variables: Value = serde_json::from_str(&variables).unwrap();
    let home = Path::new(variables["HOME"].as_str().unwrap()).to_path_buf();
    assert!(home.is_dir());
    probe.attempt("write", json!({"path": home.join("file"), "text": "x"})).await.unwrap();
    probe.attempt("leave_child", json!({})).await.unwrap();
    assert_eq!(mark.alive().len(), 2);
    probe.end().await;
    assert!(!home.exists());
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

/// In a sandbox there are no namespaces to be had, so that one inside of it has to do without, and refuses what needs them.
async fn not_enforced() -> Result<(), Ignored> {
    let folder = Path::new(program()).parent().unwrap();
    let place = tempfile::tempdir().unwrap();
    let mounts = json!([{"host": folder}, {"host": place.path()}]);
    let probe = Probe::new(Kind::Native, &json!({"mounts": mounts}));
    let server = |sandbox: Value| json!({"command": "/bin/true", "sandbox": sandbox});
    let servers = json!({"closed": server(json!(true)), "open": server(json!({"network": ["127.0.0.1:80"]}))});
    let file = place.path().join("mcp.json");
    std::fs::write(&file, json!({"mcpServers": servers}).to_string()).unwrap();
    let arguments = json!({"program": program(), "args": ["permissions", "--json", "--config", file]});
    let said: Value = serde_json::from_str(&probe.attempt("spawn", arguments).await.unwrap()).unwrap();
    let servers: Value = serde_json::from_str(said["stdout"].as_str().unwrap()).unwrap();
    assert_eq!((&servers[0]["isolation"], &servers[0]["problem"]), (&json!("native: Landlock, seccomp"), &Value::Null));
    let problem = servers[1]["problem"].as_str().unwrap();
    assert!(problem.starts_with("its `network` can't be enforced: that needs user namespaces"), "{problem}");
    probe.end().await;
    Ok(())
}
