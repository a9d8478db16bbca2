//! How late timers fire while something else goes on. Also part of `benches/responsiveness.rs`, where the figure has its aim.

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Between two timers.
const PERIOD: Duration = Duration::from_millis(5);

/// Does the work; and how late each timer of the same runtime fired meanwhile, from the best to the worst.
pub async fn watch<T>(work: impl Future<Output = T>) -> (T, Vec<Duration>) {
    let (stop, mut stopped) = oneshot::channel::<()>();
    // Before the task is first run, which is part of what is measured.
    let mut due = Instant::now() + PERIOD;
    let timers = tokio::spawn(async move {
        let mut late = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => late.push(due.elapsed()),
                _ = &mut stopped => break late,
            }
            due = Instant::now() + PERIOD;
        }
    });
    let done = work.await;
    drop(stop);
    let mut late = timers.await.unwrap();
    late.sort_unstable();
    (done, late)
}
