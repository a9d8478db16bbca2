//! Pauses before an event stream is opened again that ended at once: rmcp's worker opens them again after a second, for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sse_stream::{Error as SseError, Sse};

type Events = BoxStream<'static, Result<Sse, SseError>>;

/// A stream that stood for so long did not end at once.
const LONG: Duration = Duration::from_secs(10);
/// Ends at once that are taken without a pause, as servers do that let clients poll.
const FREE: usize = 2;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);
/// Streams that are remembered.
const STREAMS: usize = 256;

/// How often streams in a row brought nothing, by the event after which they go on.
#[derive(Default)]
pub(super) struct Pauses {
    in_vain: Mutex<HashMap<Option<String>, usize>>,
}

impl Pauses {
    fn in_vain(&self) -> MutexGuard<'_, HashMap<Option<String>, usize>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as a stream that goes on after `event` is to be left alone.
    pub(super) async fn wait(&self, event: Option<&str>) {
        let in_vain = self.in_vain().get(&event.map(String::from)).copied().unwrap_or_default();
        let pause = pause(in_vain);
        // Servers may ask something as soon as they can, so that the first stream must not be late.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Notes whether a stream brings something, or stands for a while.
    pub(super) fn watched(self: &Arc<Self>, event: Option<String>, events: Events) -> Events {
        let opened = Opened { pauses: Arc::clone(self), event, since: Instant::now(), brought: false };
        let watched = futures_util::stream::unfold((events, opened), |(mut events, mut opened)| async move {
            let event = events.next().await?;
            opened.brought |=
                event.as_ref().is_ok_and(|event| event.data.as_ref().is_some_and(|data| !data.is_empty()));
            Some((event, (events, opened)))
        });
        watched.boxed()
    }
}

fn pause(in_vain: usize) -> Duration {
    let Some(nth) = in_vain.checked_sub(FREE + 1) else { return Duration::ZERO };
    let pauses = ExponentialBuilder::new().with_min_delay(SHORTEST).with_max_delay(LONGEST).without_max_times();
    pauses.build().nth(nth.min(16)).unwrap_or(LONGEST)
}

/// An open stream; what became of it is noted when it ends.
struct Opened {
    pauses: Arc<Pauses>,
    event: Option<String>,
    since: Instant,
    brought: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut in_vain = self.pauses.in_vain();
        let event = self.event.take();
        if self.brought || self.since.elapsed() >= LONG {
            in_vain.remove(&event);
            return;
        }
        if in_vain.len() >= STREAMS {
            in_vain.clear();
        }
        *in_vain.entry(event).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_minutes() {
        let seconds: Vec<u64> = (0..16).map(|in_vain| pause(in_vain).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }
}
