//! The same engine in this process, for scripts that are trusted: on a blocking thread, with a stack of its own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rhaiway_engine::{Refusal, ToolCall};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::accounts::{Accounts, Ending};
use super::{Call, Ended, Run, deadline};

/// Of the script's thread; threads of the pool have too little for functions 100 levels deep.
const STACK: usize = 16 << 20;

pub(super) async fn run(run: &Run, accounts: &Arc<Accounts>) -> Result<Ended, Ending> {
    let deadline = deadline(run.limits.wall_time);
    // Dropped with this future: the thread sees that nobody waits for it any more.
    let (_wanted, wanted) = watch::channel(());
    let host = Host { accounts: Arc::clone(accounts), runtime: Handle::current(), deadline, wanted };
    let (source, servers) = (run.source.clone(), run.servers.clone());
    let script = move || stacker::grow(STACK, || rhaiway_engine::run(Rc::new(host), &source, servers));
    match tokio::task::spawn_blocking(script).await {
        Ok(Err(fault)) if fault.kind == "stopped" => {
            Err(accounts.ending().unwrap_or(Ending::Timeout(run.limits.wall_time)))
        }
        Ok(outcome) => Ok(outcome),
        Err(error) => Err(Ending::Internal(format!("the engine broke off: {error}"))),
    }
}

struct Host {
    accounts: Arc<Accounts>,
    runtime: Handle,
    deadline: Instant,
    wanted: watch::Receiver<()>,
}

impl rhaiway_engine::Host for Host {
    fn call_tool(&self, call: ToolCall<'_>) -> Result<String, Refusal> {
        let ToolCall { server, tool, by_name, arguments, position } = call;
        let call = Call { server: server.into(), tool: tool.into(), by_name, arguments: arguments.into() };
        self.runtime.block_on(async {
            let mut wanted = self.wanted.clone();
            tokio::select! {
                _ = wanted.changed() => Err(Refusal::Stop),
                answer = timeout_at(self.deadline.into(), self.accounts.call_tool(call, position)) => answer.unwrap_or(Err(Refusal::Stop)),
            }
        })
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        self.runtime.block_on(async {
            let search = self.accounts.search_tools(query.into(), detail_level);
            timeout_at(self.deadline.into(), search).await.unwrap_or_else(|_| Err("no time is left".into()))
        })
    }

    fn log(&self, line: &str) {
        self.accounts.log(line);
    }

    fn interrupted(&self) -> bool {
        self.wanted.has_changed().is_err() || Instant::now() > self.deadline
    }
}
