//! How servers that are started here start: a few at a time, each with its own time; what a search does about those that are silent; and
//! what follows when they end.

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rhaiway::{Client, Detail, ServerStatus};
use serde_json::{Value, json};

use crate::fake_server;
use crate::processes::Mark;
use crate::support::{Ignored, builder, client, demo, run, test, value};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("starting::a_few_at_a_time_each_with_its_own_time", a_few_at_a_time),
        test("starting::silent_servers_do_not_hold_up_the_others", silent_ones),
        test("starting::closing_ends_the_wait_for_a_place", closing_the_waiting),
        test("starting::a_search_does_not_wait_for_a_silent_server", search),
        test("starting::a_search_is_ended_with_its_client", ending_a_search),
        test("starting::all_are_waited_for_if_asked", search_all),
        test("starting::a_server_that_worked_is_not_left_alone", worked),
        test("starting::a_failed_call_says_when_to_try_again", try_again),
        test("starting::retry_outlasts_that_a_server_is_left_alone", retry),
        test("starting::retry_gives_up_where_the_script_has_no_time", no_time_to_retry),
    ];
    if cfg!(unix) {
        tests.push(test("starting::a_server_that_lists_and_is_killed_is_not_left_alone", listed));
        tests.push(test("starting::what_may_be_downloading_says_so", downloading));
        tests.push(test("starting::what_a_server_inherits", inherits));
    }
    tests
}

/// How many start at the same time.
fn places() -> usize {
    std::thread::available_parallelism().map_or(4, |processors| 4.max(2 * processors.get()))
}

async fn a_few_at_a_time() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let mut entry = fake_server::entry("starts-with-others");
    entry["env"] = json!({"FOLDER": folder.path()});
    // More than one of them has from its start, for all of them.
    entry["connect_timeout"] = json!(4);
    let servers: serde_json::Map<String, Value> =
        (0..places() * 5).map(|number| (format!("it{number}"), entry.clone())).collect();
    let client = builder(servers.into()).code_mode(false).build().unwrap();
    let started = Instant::now();
    let sessions = client.create_all_sessions().await;
    assert!(sessions.failed.is_empty(), "{:?}", sessions.failed);
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    let counted = |file: std::fs::DirEntry| file.file_name().to_string_lossy().strip_prefix("count-")?.parse().ok();
    let most: usize = std::fs::read_dir(folder.path()).unwrap().flatten().filter_map(counted).max().unwrap();
    assert!((2..=places()).contains(&most), "{most} started at the same time");
    client.close_all_sessions().await;
    Ok(())
}

/// Silent servers, with much time to connect.
fn silent(mark: &Mark, count: usize) -> serde_json::Map<String, Value> {
    let entry = || {
        let mut entry = mark.on(fake_server::entry("silent"));
        entry["connect_timeout"] = json!(300);
        entry
    };
    (0..count).map(|number| (format!("silent{number}"), entry())).collect()
}

async fn silent_ones() -> Result<(), Ignored> {
    let mark = Mark::new("silent-ones");
    let mut servers = silent(&mark, places());
    servers.insert("good".into(), fake_server::entry("plain"));
    let client = builder(servers.into()).code_mode(false).build().unwrap();
    let all = tokio::spawn({
        let client = client.clone();
        async move { client.create_all_sessions().await }
    });
    while mark.alive().len() < places() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.create_session("good").await.unwrap();
    assert!(!all.is_finished());
    client.close_all_sessions().await;
    assert_eq!(all.await.unwrap().failed.len(), places());
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

async fn closing_the_waiting() -> Result<(), Ignored> {
    let mark = Mark::new("closing-waiting");
    let client = builder(silent(&mark, places() * 2).into()).code_mode(false).build().unwrap();
    let mut all = Box::pin(client.create_all_sessions());
    // All have begun then: some have started, and the others wait.
    assert!(futures_util::poll!(&mut all).is_pending());
    let ((), sessions) = tokio::join!(client.close_all_sessions(), all);
    let failed = sessions.failed;
    assert_eq!(failed.len(), places() * 2);
    for error in failed.values() {
        assert!(error.to_string().contains("it was closed while it was being connected"), "{error}");
    }
    assert_eq!(mark.alive(), Vec::<String>::new());
    Ok(())
}

/// What is said of a server that a search did not wait for.
const STILL: &str = "it is still being connected; search again in a moment";

async fn search() -> Result<(), Ignored> {
    let mark = Mark::new("search");
    let mut servers = silent(&mark, 1);
    let slow = Mark::new("search-slow");
    servers.insert("slow".into(), slow.on(fake_server::entry("starts-slowly")));
    servers.insert("demo".into(), demo());
    let client = client(servers.into());
    let started = Instant::now();
    let found = client.search_tools("", Detail::Names).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(found.meta.unreachable["silent0"], STILL);
    assert!(found.results.iter().all(|tool| tool.server != "silent0"));
    assert!(found.results.iter().any(|tool| tool.server == "demo"));
    // In scripts too; and the server that was slow goes on starting meanwhile: the same one.
    let script = "let found = (); while found == () || \"slow\" in found.meta.unreachable { found = search_tools(\"echo\", \"names\") } found";
    let found = value(run(&client, script).await);
    assert!(found["results"].as_array().unwrap().iter().any(|tool| tool["server"] == "slow"), "{found}");
    assert_eq!(found["meta"]["unreachable"]["silent0"], STILL);
    assert_eq!((slow.alive().len(), mark.alive().len()), (1, 1));
    client.close_all_sessions().await;
    assert_eq!((slow.alive(), mark.alive()), (vec![], vec![]));
    Ok(())
}

async fn ending_a_search() -> Result<(), Ignored> {
    let mark = Mark::new("ending-search");
    let searched = client(silent(&mark, 1).into());
    assert_eq!(searched.search_tools("", Detail::Names).await.meta.unreachable["silent0"], STILL);
    assert_eq!(mark.alive().len(), 1);
    searched.close_session("silent0").await;
    mark.gone().await;
    assert_eq!(searched.search_tools("", Detail::Names).await.meta.unreachable["silent0"], STILL);
    assert_eq!(mark.alive().len(), 1);
    // It goes on connecting, but does not keep the client.
    drop::<Client>(searched);
    mark.gone().await;
    Ok(())
}

async fn search_all() -> Result<(), Ignored> {
    let client = client(json!({"slow": fake_server::entry("starts-slowly"), "demo": demo()}));
    let found = client.search_all_tools("echo", Detail::Names).await;
    assert_eq!(found.meta.unreachable.len(), 0, "{:?}", found.meta);
    assert!(found.results.iter().any(|tool| tool.server == "slow"));
    client.close_all_sessions().await;
    Ok(())
}

async fn worked() -> Result<(), Ignored> {
    let client = client(json!({"it": fake_server::entry("plain")}));
    let script = "let said = []; for i in 0..6 { said.push(it.echo().tool); try { it.exit() } catch (e) { said.push(e.kind) } } said";
    let said = value(run(&client, script).await);
    assert_eq!(said, json!([["echo", "connection"]; 6].concat()));
    // An error is an answer, too; a server that only ever ends has given none.
    let script = "let said = []; for i in 0..6 { try { it.protocol_error() } catch (e) { said.push(e.kind) } try { it.exit() } catch (e) { } } said";
    assert_eq!(value(run(&client, script).await), json!(vec!["protocol"; 6]));
    let script = "let said = []; for i in 0..4 { try { it.exit() } catch (e) { said.push(e.message.contains(\"it is left alone\")) } } said";
    assert_eq!(value(run(&client, script).await), json!([false, false, true, true]));
    client.close_all_sessions().await;
    Ok(())
}

#[cfg(unix)]
async fn listed() -> Result<(), Ignored> {
    let mark = Mark::new("listed");
    let client = client(json!({"it": mark.on(fake_server::entry("plain"))}));
    for _ in 0..5 {
        assert_eq!(client.search_tools("", Detail::Names).await.meta.unreachable.len(), 0);
        let processes: Vec<_> = mark.processes().collect();
        assert_eq!(processes.len(), 1);
        let process = processes[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
        let process = rustix::process::Pid::from_raw(process).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        // Until then, what is cached is answered.
        while matches!(client.server_status().await["it"], ServerStatus::Connected) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    client.close_all_sessions().await;
    Ok(())
}

async fn try_again() -> Result<(), Ignored> {
    let client = client(json!({"none": {"command": "no-such-program-anywhere"}}));
    let script = "try { none.x() } catch (e) { return e }";
    let error = value(run(&client, script).await);
    let seconds = error["data"]["retry_after"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds <= 1.0 + 0.001, "{error}");
    assert_eq!(error["kind"], "connection");
    Ok(())
}

async fn retry() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let mut entry = fake_server::entry("starts-at-the-fifth");
    entry["env"] = json!({"FOLDER": folder.path()});
    let client = client(json!({"it": entry}));
    // Connecting fails twice, each time with two starts, and it is left alone for one second and for two.
    let execution = run(&client, "retry(3, || it.echo().tool)").await;
    assert_eq!(value(execution), json!("echo"));
    client.close_all_sessions().await;
    Ok(())
}

async fn no_time_to_retry() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("silent");
    entry["connect_timeout"] = json!(4);
    let client = client(json!({"it": entry}));
    // It is left alone for as long as connecting took, and the script has less.
    let script = "try { retry(3, || it.echo()) } catch (e) { return e }";
    let options = rhaiway::ExecuteOptions::default().timeout(Duration::from_secs(2));
    let error = value(client.execute_code(script, options).await.unwrap());
    assert_eq!((&error["kind"], &error["data"]["too_late"]), (&json!("connection"), &json!(true)), "{error}");
    assert!(error["data"]["retry_after"].as_f64().unwrap() > 2.0, "{error}");
    assert!(error["message"].as_str().unwrap().contains("trying again here is no use"), "{error}");
    client.close_all_sessions().await;
    Ok(())
}

#[cfg(unix)]
fn script(folder: &Path, name: &str, text: &str) -> Value {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    json!({"command": file, "args": ["-y", "some-server"], "connect_timeout": 1.5})
}

#[cfg(unix)]
async fn downloading() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let text = "echo 'fetching some-server 3 of 9 MB' >&2; exec sleep 60";
    let [npx, uvx, other] = ["npx", "uvx", "other"].map(|name| script(folder.path(), name, text));
    let broken = script(folder.path(), "bunx", "echo 'no such package' >&2; exit 1");
    let client = client(json!({"npx": npx, "uvx": uvx, "other": other, "broken": broken}));
    let error = async |name| client.create_session(name).await.unwrap_err().to_string();
    for name in ["npx", "uvx"] {
        let error = error(name).await;
        let expected = format!(
            "can't connect to the server `{name}`: it did not answer the handshake within 1.5 s; `{name}` may still have been downloading: \
             run the command once by hand, or give it more time with the entry's `connect_timeout` (now 1.5 s); its last lines on \
             stderr:\n  fetching some-server 3 of 9 MB"
        );
        assert_eq!(error, expected);
    }
    for name in ["other", "broken"] {
        let error = error(name).await;
        assert!(!error.contains("downloading"), "{error}");
    }
    client.close_all_sessions().await;
    Ok(())
}

#[cfg(unix)]
async fn inherits() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("variables");
    let server = fake_server::entry("plain");
    let script = format!("env > '{}'; exec {} {} plain", file.display(), server["command"], fake_server::ARGUMENT);
    let entry = json!({"command": "/bin/sh", "args": ["-c", script], "inherit_env": ["SSH_AUTH_SOCK", "HOME", "NOT_SET"], "env": {"OWN": "1", "HTTP_PROXY": "own"}});
    let path = std::env::var("PATH").unwrap();
    let variables = move |name: &str| match name {
        "PATH" => Some(path.clone()),
        "NOT_SET" => None,
        name => Some(format!("of the user: {name}")),
    };
    let client = builder(json!({"it": entry})).variables(variables).build().unwrap();
    assert_eq!(value(run(&client, "it.echo().tool").await), json!("echo"));
    let shown = std::fs::read_to_string(&file).unwrap();
    let value_of = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    for name in [
        "HOME",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "ALL_PROXY",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "DOCKER_HOST",
        "LC_CTYPE",
        "NVM_DIR",
        "UV_CACHE_DIR",
        "SSH_AUTH_SOCK",
    ] {
        assert_eq!(value_of(name), Some(&*format!("of the user: {name}")), "{shown}");
    }
    assert_eq!((value_of("OWN"), value_of("HTTP_PROXY"), value_of("NOT_SET")), (Some("1"), Some("own"), None));
    // The table says the same: the shell has added two or three of its own.
    let permitted = client.permissions()[0].environment.clone();
    assert_eq!(permitted.iter().collect::<std::collections::HashSet<_>>().len(), permitted.len(), "{permitted:?}");
    for name in &permitted {
        assert!(value_of(name).is_some() || name.contains('('), "{name}: {shown}");
    }
    for name in shown.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name)) {
        let is_of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name);
        assert!(is_of_the_shell || permitted.iter().any(|permitted| permitted == name), "{name} is not told of");
        // Nothing that gives access to what is the user's alone.
        let is_secret = ["TOKEN", "SECRET", "PASSWORD", "API_KEY", "ACCESS_KEY", "CREDENTIAL"]
            .iter()
            .any(|part| name.contains(part));
        assert!(!is_secret, "{name}");
    }
    client.close_all_sessions().await;
    let refused = |entry: Value| crate::support::client(json!({"it": entry}));
    for (entry, expected) in [
        (
            json!({"command": "x", "inherit_env": ["A", "AWS_*"]}),
            "mcpServers.it.inherit_env[1]: expected the full name of a variable, found `AWS_*`",
        ),
        (json!({"command": "x", "inherit_env": "A"}), "mcpServers.it.inherit_env: expected an array of strings"),
        (
            json!({"command": "x", "inherit_env": ["A"], "sandbox": true}),
            "mcpServers.it.inherit_env: a sandboxed server gets no other variables",
        ),
    ] {
        let error = refused(entry).create_session("it").await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}
