//! What a script has started and not heard of yet: calls and clocks, each a task of the runtime. Dropping this cancels all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhaiway_engine::{Position, Refusal, Ticket};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

use super::Call;
use super::accounts::Accounts;

/// Clocks (`sleep`, `timeout`) that one script can have running.
const CLOCKS: usize = 1024;

/// An answer as the engine takes it.
pub(super) type Answer = Result<String, String>;

pub(super) struct Flights {
    accounts: Arc<Accounts>,
    runtime: Handle,
    tasks: JoinSet<Landed>,
    under_way: HashMap<Ticket, UnderWay>,
    last: Ticket,
}

/// What is over.
struct Landed {
    ticket: Ticket,
    is_call: bool,
    answer: Result<String, Refusal>,
}

struct UnderWay {
    /// Else it is a clock.
    is_call: bool,
    /// The place in the books, of a call that is in them: one that was refused is in none.
    place: Option<usize>,
    task: AbortHandle,
}

impl Flights {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        let under_way = HashMap::new();
        Self { accounts, runtime: Handle::current(), tasks: JoinSet::new(), under_way, last: 0 }
    }

    fn count(&self, calls: bool) -> usize {
        self.under_way.values().filter(|under_way| under_way.is_call == calls).count()
    }

    fn start(
        &mut self,
        is_call: bool,
        place: Option<usize>,
        work: impl Future<Output = Result<String, Refusal>> + Send + 'static,
    ) -> Ticket {
        self.last = self.last.wrapping_add(1);
        let ticket = self.last;
        let task = self.tasks.spawn_on(async move { Landed { ticket, is_call, answer: work.await } }, &self.runtime);
        self.under_way.insert(ticket, UnderWay { is_call, place, task });
        ticket
    }

    /// Calls a tool and waits for its answer.
    pub(super) async fn call(&self, call: Call, position: Option<Position>) -> Result<String, Refusal> {
        let from = Instant::now();
        let answer = self.accounts.book(call, position)?.perform().await;
        self.accounts.waited(from);
        if let Ok(text) = &answer {
            self.accounts.take(text);
        }
        answer
    }

    /// Starts a call; `None` where as many are under way as may be.
    pub(super) fn start_call(&mut self, call: Call, position: Option<Position>) -> Result<Option<Ticket>, Refusal> {
        if self.count(true) >= self.accounts.limits.calls_in_flight {
            return Ok(None);
        }
        Ok(Some(match self.accounts.book(call, position) {
            Ok(booked) => self.start(true, Some(booked.place), booked.perform()),
            Err(Refusal::Stop) => return Err(Refusal::Stop),
            Err(failed) => self.start(true, None, std::future::ready(Err(failed))),
        }))
    }

    /// Starts a clock.
    pub(super) fn start_clock(&mut self, seconds: f64) -> Result<Ticket, Refusal> {
        if self.count(false) >= CLOCKS {
            let message = format!("the script has more than {CLOCKS} clocks running (`sleep` and `timeout`)");
            return Err(self.accounts.stop(message, None));
        }
        // One that outlives the script need not be exact.
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(Duration::from_hours(24));
        Ok(self.start(false, None, async move {
            tokio::time::sleep(duration).await;
            Ok("null".into())
        }))
    }

    /// Waits for the first that is over.
    pub(super) async fn wait_any(&mut self) -> Result<(Ticket, Answer), Refusal> {
        let from = Instant::now();
        let next = async {
            loop {
                match self.tasks.join_next().await {
                    Some(Ok(Landed { ticket, is_call, answer })) => {
                        if let (true, Ok(text)) = (is_call, &answer) {
                            self.accounts.take(text);
                        }
                        // What was cancelled after it had come is not heard of.
                        if self.under_way.remove(&ticket).is_some() {
                            return Ok((ticket, answer));
                        }
                    }
                    Some(Err(_)) => {} // cancelled
                    None => return Err(self.accounts.break_off("the engine waits for nothing")),
                }
            }
        };
        let next = next.await;
        self.accounts.waited(from);
        match next? {
            (ticket, Ok(text)) => Ok((ticket, Ok(text))),
            (ticket, Err(Refusal::Failed(failure))) => Ok((ticket, Err(failure))),
            (_, Err(Refusal::Stop)) => Err(Refusal::Stop),
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        if let Some(UnderWay { place, task, .. }) = self.under_way.remove(&ticket) {
            task.abort();
            if let Some(place) = place {
                self.accounts.give_up(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::sandbox::Compiling;
    use crate::script::accounts::Ending;
    use crate::script::{Called, Door, Isolation, Run};
    use crate::tool::Detail;
    use crate::tool::{BoxFuture, LogSink};

    /// Answers at once, with half a megabyte.
    struct Talkative;

    impl Door for Talkative {
        fn call_tool<'a>(&'a self, _call: &'a Call, _deadline: Instant, _log: &LogSink) -> BoxFuture<'a, Called> {
            Box::pin(async { Called { tool: None, answer: Ok("x".repeat(500_000)) } })
        }

        fn search_tools(&self, _query: String, _detail: Detail) -> BoxFuture<'_, String> {
            Box::pin(async { String::new() })
        }
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_are_bounded() {
        let limits = Limits { memory_bytes: 1_200_000, ..Limits::default() };
        let run = Run {
            source: String::new(),
            servers: Vec::new(),
            limits,
            isolation: Isolation::Sandbox,
            on_log: None,
            door: Arc::new(Talkative),
            compiling: Compiling::default(),
        };
        let accounts = Arc::new(Accounts::new(&run, Instant::now()));
        let mut flights = Flights::new(Arc::clone(&accounts));
        let call = || Call { server: "a".into(), tool: "b".into(), by_name: false, arguments: "{}".into() };
        // One after the other, any number of them is fine.
        for _ in 0..5 {
            flights.start_call(call(), None).unwrap();
            assert!(flights.wait_any().await.is_ok());
        }
        for _ in 0..3 {
            flights.start_call(call(), None).unwrap();
        }
        while flights.wait_any().await.is_ok() {}
        let ending = accounts.ending();
        let expected =
            "the answers that wait for the script are too large: 1.4 MiB, over the limit of 1.1 MiB (`memory_bytes`)";
        assert!(matches!(&ending, Some(Ending::Limit(message, None)) if message == expected), "{ending:?}");
    }
}
