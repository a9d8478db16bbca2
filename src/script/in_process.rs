//! The same engine in this process, for scripts that are trusted: on threads of its own, with a stack that is large enough.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use rhaiway_engine::{Refusal, ToolCall};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::accounts::{Accounts, Ending};
use super::{Call, Ended, Run, deadline};

/// Functions 100 levels deep take more than the 2 MiB that threads have.
const STACK: usize = 16 << 20;
/// Threads that are kept for the next script: each has built its engine, and a new one takes longer than a small script.
const KEPT: usize = 4;

type Job = Box<dyn FnOnce() + Send>;
static IDLE: Mutex<Vec<mpsc::Sender<Job>>> = Mutex::new(Vec::new());

pub(super) async fn run(run: &Run, accounts: &Arc<Accounts>) -> Result<Ended, Ending> {
    let deadline = deadline(run.limits.wall_time);
    // Dropped with this future: the thread sees that nobody waits for it any more.
    let (_wanted, wanted) = watch::channel(());
    let (accounts_of_host, runtime) = (Arc::clone(accounts), Handle::current());
    let (source, servers) = (run.source.clone(), run.servers.clone());
    let (done, ended) = oneshot::channel();
    let script = move || {
        let host = Host { accounts: accounts_of_host, runtime, deadline, wanted };
        let _ = done.send(rhaiway_engine::run(Rc::new(host), &source, servers));
    };
    if let Err(error) = start(Box::new(script)) {
        return Err(Ending::Internal(format!("no thread could be started: {error}")));
    }
    match ended.await {
        Ok(Err(fault)) if fault.kind == "stopped" => {
            Err(accounts.ending().unwrap_or(Ending::Timeout(run.limits.wall_time)))
        }
        Ok(ended) => Ok(ended),
        Err(_) => Err(Ending::Internal("the engine panicked".into())),
    }
}

/// Runs the job on a thread that is idle, or else on a new one.
fn start(mut job: Job) -> io::Result<()> {
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(thread) = { idle().pop() } {
        match thread.send(job) {
            Ok(()) => return Ok(()),
            Err(mpsc::SendError(returned)) => job = returned,
        }
    }
    let work = move || {
        let (sender, jobs) = mpsc::channel();
        job();
        loop {
            {
                let mut idle = idle();
                if idle.len() >= KEPT {
                    return;
                }
                idle.push(sender.clone());
            }
            match jobs.recv() {
                Ok(job) => job(),
                Err(mpsc::RecvError) => return,
            }
        }
    };
    std::thread::Builder::new().name("rhaiway-script".into()).stack_size(STACK).spawn(work).map(drop)
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
                answer = timeout_at(self.deadline.into(), self.accounts.call_tool(call, position)) => {
                    answer.unwrap_or(Err(Refusal::Stop))
                }
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
