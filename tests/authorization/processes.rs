//! Several processes, or clients, with the same tokens: renewing them at the same time does not cost the login.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{CallOptions, TokenKey, TokenLock, TokenStore};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, Notify};

use super::{REDIRECT_URI, Server, Store, agree, builder, log_in, ran, rhaiway};
use crate::support::{Ignored, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("authorization::two_clients_renew_tokens_once", two_clients),
        test("authorization::a_process_that_waited_takes_what_another_renewed", waited),
        test("authorization::a_process_that_dies_holds_nobody_up", dead_process),
        test("authorization::what_another_process_renewed_is_renewed_in_turn", used_up),
    ]
}

/// A store with a lock, which tells when somebody waits for it.
#[derive(Clone, Default)]
struct Locked {
    store: Store,
    lock: Arc<Mutex<()>>,
    waited_for: Arc<Notify>,
}

#[async_trait::async_trait]
impl TokenStore for Locked {
    async fn load(&self, key: &TokenKey) -> std::io::Result<Option<String>> {
        self.store.load(key).await
    }

    async fn save(&self, key: &TokenKey, tokens: &str) -> std::io::Result<()> {
        self.store.save(key, tokens).await
    }

    async fn remove(&self, key: &TokenKey) -> std::io::Result<()> {
        self.store.remove(key).await
    }

    async fn lock(&self, _: &TokenKey) -> std::io::Result<TokenLock> {
        if let Ok(lock) = Arc::clone(&self.lock).try_lock_owned() {
            return Ok(TokenLock::new(lock));
        }
        self.waited_for.notify_one();
        Ok(TokenLock::new(Arc::clone(&self.lock).lock_owned().await))
    }
}

async fn until(done: impl Fn() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap();
}

async fn two_clients() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Locked::default();
    let client =
        || builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    let (one, other) = (client(), client());
    let (first, second) = (one.create_session("remote").await.unwrap(), other.create_session("remote").await.unwrap());
    let held = Arc::new(Notify::new());
    {
        let mut state = server.state();
        state.valid.clear();
        state.hold_tokens = Some(Arc::clone(&held));
    }
    let released = async {
        store.waited_for.notified().await;
        server.state().hold_tokens = None;
        held.notify_one();
    };
    let call = |session: rhaiway::Session| async move {
        session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    };
    let all = async { tokio::join!(call(first), call(second), released) };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    Ok(())
}

/// A server that the command has logged in to, in a folder of its own.
async fn logged_in() -> (Server, tempfile::TempDir) {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"mcpServers": {"remote": server.entry()}});
    std::fs::write(folder.path().join("mcp.json"), config.to_string()).unwrap();
    log_in(rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]), |_| async {}).await;
    (server, folder)
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

async fn waited() -> Result<(), Ignored> {
    #[cfg(target_os = "linux")]
    {
        let (server, folder) = logged_in().await;
        let state = folder.path().join("state/rhaiway");
        let lock = only_file(&state.join("locks"));
        let held = std::fs::File::open(&lock).unwrap();
        held.try_lock().unwrap();
        server.state().valid.clear();
        let command = rhaiway(folder.path(), &["run", "-e", "remote.read().ok"]).spawn().unwrap();
        let open = format!("/proc/{}/fd", command.id().unwrap());
        let waits = || {
            let files = std::fs::read_dir(&open).into_iter().flatten().flatten();
            files.map(|file| std::fs::read_link(file.path())).any(|path| path.is_ok_and(|path| path == lock))
        };
        until(waits).await;
        // As another process would, which has the lock.
        let kept = only_file(&state.join("tokens"));
        let mut entry: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
        let mut tokens: Value = serde_json::from_str(entry["tokens"].as_str().unwrap()).unwrap();
        tokens["access_token"] = json!("SECRET-access-of-another");
        entry["tokens"] = json!(tokens.to_string());
        std::fs::write(&kept, entry.to_string()).unwrap();
        server.state().valid.insert("SECRET-access-of-another".into(), ["read".to_string()].into());
        drop(held);
        let output = command.wait_with_output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "true\n", "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(server.seen(), (1, 1, 0));
    }
    Ok(())
}

async fn dead_process() -> Result<(), Ignored> {
    let (server, folder) = logged_in().await;
    {
        let mut state = server.state();
        state.valid.clear();
        state.hold_tokens = Some(Arc::default());
    }
    let command = || rhaiway(folder.path(), &["run", "-e", "remote.read().ok"]);
    let mut first = command().spawn().unwrap();
    until(|| server.state().renewals == 1).await;
    first.kill().await.unwrap();
    {
        let mut state = server.state();
        state.hold_tokens = None;
        state.valid.clear();
        state.refresh_tokens.insert("SECRET-refresh-1".into());
    }
    let began = std::time::Instant::now();
    assert_eq!(ran(command(), 0).await.0, "true\n");
    assert!(began.elapsed() < Duration::from_secs(30), "the lock ended with the process that had it");
    assert_eq!(server.seen(), (1, 1, 2));
    Ok(())
}

/// One refresh token is good for one time, also where the tokens that came of it are over again.
async fn used_up() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let client =
        || builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    let (one, other) = (client(), client());
    let (first, second) = (one.create_session("remote").await.unwrap(), other.create_session("remote").await.unwrap());
    server.state().valid.clear();
    first.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    let mut kept: Value = serde_json::from_str(&store.0.lock().unwrap()["remote"]).unwrap();
    (kept["renew_at"], kept["expires_at"]) = (json!(1), json!(1));
    store.0.lock().unwrap().insert("remote".into(), kept.to_string());
    server.state().valid.clear();
    second.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (1, 1, 2));
    Ok(())
}
