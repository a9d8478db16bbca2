//! The same engine in this process, for scripts that are trusted: on threads of its own, with a stack that is large enough.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use rhaiway_engine::{Position, Refusal, Ticket, ToolCall};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::accounts::{Accounts, Ending};
use super::flights::Flights;
use super::{Call, Ended, Run, call_depth};

/// Functions 100 levels deep take more than the 2 MiB that threads have.
const STACK: usize = 16 << 20;
/// Threads that are kept for the next script: each has built its engine, and a new one takes longer than a small script.
const KEPT: usize = 4;

type Job = Box<dyn FnOnce() + Send>;
static IDLE: Mutex<Vec<mpsc::Sender<Job>>> = Mutex::new(Vec::new());

pub(super) async fn run(run: &Run, accounts: &Arc<Accounts>) -> Result<Ended, Ending> {
    let (deadline, call_depth) = (accounts.deadline, call_depth(run));
    // Dropped with this future: the thread sees that nobody waits for it any more.
    let (_wanted, wanted) = watch::channel(());
    let (accounts_of_host, runtime) = (Arc::clone(accounts), Handle::current());
    let flights = Flights::new(Arc::clone(accounts));
    let (source, servers) = (run.source.clone(), run.servers.clone());
    let (done, ended) = oneshot::channel();
    let script = move || {
        let host = Host { accounts: accounts_of_host, flights: RefCell::new(flights), runtime, deadline, wanted };
        let _ = done.send(rhaiway_engine::run(Rc::new(host), &source, servers, call_depth));
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
    flights: RefCell<Flights>,
    runtime: Handle,
    deadline: Instant,
    wanted: watch::Receiver<()>,
}

impl Host {
    /// Waits for the work, unless nobody waits for the script any more, or its time is over.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        self.runtime.block_on(async {
            let mut wanted = self.wanted.clone();
            tokio::select! {
                _ = wanted.changed() => Err(Refusal::Stop),
                done = timeout_at(self.deadline.into(), work) => done.unwrap_or(Err(Refusal::Stop)),
            }
        })
    }
}

fn call(call: ToolCall<'_>) -> (Call, Option<Position>) {
    let ToolCall { server, tool, by_name, arguments, position } = call;
    (Call { server: server.into(), tool: tool.into(), by_name, arguments: arguments.into() }, position)
}

#[allow(clippy::await_holding_refcell_ref, reason = "one thread, which waits meanwhile and does nothing else")]
impl rhaiway_engine::Host for Host {
    fn call_tool(&self, request: ToolCall<'_>) -> Result<String, Refusal> {
        let (call, position) = call(request);
        let flights = self.flights.borrow();
        self.wait(flights.call(call, position))
    }

    fn start_call(&self, request: ToolCall<'_>) -> Result<Option<Ticket>, Refusal> {
        let (call, position) = call(request);
        self.flights.borrow_mut().start_call(call, position)
    }

    fn start_clock(&self, seconds: f64) -> Result<Ticket, Refusal> {
        self.flights.borrow_mut().start_clock(seconds)
    }

    fn wait_any(&self) -> Result<(Ticket, Result<String, String>), Refusal> {
        let mut flights = self.flights.borrow_mut();
        self.wait(flights.wait_any())
    }

    fn cancel(&self, ticket: Ticket) {
        self.flights.borrow_mut().cancel(ticket);
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        let search = self.accounts.search_tools(query.into(), detail_level);
        match self.wait(async { Ok(search.await) }) {
            Ok(found) => found,
            Err(_) => Err("no time is left".into()),
        }
    }

    fn now(&self) -> i64 {
        Accounts::now()
    }

    fn random(&self) -> u64 {
        Accounts::random()
    }

    fn log(&self, line: &str) {
        self.accounts.log(line);
    }

    fn interrupted(&self) -> bool {
        self.wanted.has_changed().is_err() || Instant::now() > self.deadline
    }
}
