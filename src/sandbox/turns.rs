//! Whose turn it is to compute. A runtime gives each of its tasks a turn before it comes back to the first, so that with a thousand busy
//! guests all others, timers too, would wait for a thousand slices. Therefore at most as many guests as there are CPUs compute, twice:
//! those that begin or come back from waiting, and those that have used up a slice. The rest wait here, first come, first served.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of a process.
pub(crate) struct Turns {
    fresh: Arc<Semaphore>,
    busy: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, Into::into);
        Self { fresh: Arc::new(Semaphore::new(cpus)), busy: Arc::new(Semaphore::new(cpus)) }
    }
}

/// One guest's turn; over when this is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    held: Held,
}

type Held = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// Waits for a turn, and gives all other tasks theirs first: the runtime would else go from one guest straight to the next, and guests
/// that have not asked for a turn yet would each take one on the way.
async fn next(turns: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let turn = turns.acquire_owned().await;
    tokio::task::yield_now().await;
    turn.ok() // never closed
}

fn hold(held: &Held, permit: Option<OwnedSemaphorePermit>) {
    *held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
}

impl Turn {
    pub(super) fn new(turns: &Arc<Turns>) -> Self {
        Self { turns: Arc::clone(turns), held: Held::default() }
    }

    /// Waits until the guest may begin to compute, or go on after it has waited for something.
    pub(crate) async fn begin(&self) {
        hold(&self.held, next(Arc::clone(&self.turns.fresh)).await);
    }

    /// The guest waits for something, and does not compute.
    pub(crate) fn end(&self) {
        hold(&self.held, None);
    }

    /// The guest has used up its slice: ends its turn, and waits for the next.
    pub(crate) fn give_way(&self) -> impl Future<Output = ()> + Send + use<> {
        self.end();
        let (busy, held) = (Arc::clone(&self.turns.busy), Arc::clone(&self.held));
        async move { hold(&held, next(busy).await) }
    }
}
