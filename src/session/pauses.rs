//! Pauses before the event stream of a server's own accord is opened again, where it ended at once: rmcp's worker opens it again after a
//! second, for ever. Streams that go on with the answer to a request are left to what the server says.

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
/// Longest ID of an event that is remembered.
const ID_BYTES: usize = 1 << 10;

/// What became of the stream so far.
#[derive(Default)]
pub(super) struct Pauses {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often in a row it brought nothing.
    in_vain: usize,
    /// The ID of its last event, by which it is known when it goes on.
    last_event: Option<String>,
}

impl Pauses {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long the stream is to be left alone; `None` where one that goes on after `event` is another.
    fn before(&self, event: Option<&str>) -> Option<Duration> {
        let state = self.state();
        let is_own = event.is_none() || event == state.last_event.as_deref();
        is_own.then(|| pause(state.in_vain))
    }

    /// Waits for as long as the stream is to be left alone; `false` where one that goes on after `event` is another.
    pub(super) async fn wait(&self, event: Option<&str>) -> bool {
        let Some(pause) = self.before(event) else { return false };
        // Servers may ask something as soon as they can, so that the first stream must not be late.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// Notes whether the stream brings something, or stands for a while.
    pub(super) fn watched(self: &Arc<Self>, events: Events) -> Events {
        let opened = Opened { pauses: Arc::clone(self), since: Instant::now(), brought: false };
        let watched = futures_util::stream::unfold((events, opened), |(mut events, mut opened)| async move {
            let event = events.next().await?;
            if let Ok(event) = &event {
                opened.brought |= event.data.as_ref().is_some_and(|data| !data.is_empty());
                if let Some(id) = event.id.as_ref().filter(|id| id.len() <= ID_BYTES) {
                    opened.pauses.state().last_event = Some(id.clone());
                }
            }
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
    since: Instant,
    brought: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let was_good = self.brought || self.since.elapsed() >= LONG;
        let mut state = self.pauses.state();
        state.in_vain = if was_good { 0 } else { state.in_vain + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(events: &[(&str, &str)]) -> Events {
        let events = events
            .iter()
            .map(|(id, data)| Ok(Sse { id: Some((*id).into()), data: Some((*data).into()), ..Sse::default() }));
        futures_util::stream::iter(events.collect::<Vec<_>>()).boxed()
    }

    #[test]
    fn pauses_grow_to_minutes() {
        let seconds: Vec<u64> = (0..16).map(|in_vain| pause(in_vain).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
    }

    #[tokio::test]
    async fn only_streams_in_vain_are_left_alone() {
        let pauses: Arc<Pauses> = Arc::default();
        let seconds = |event: Option<&str>| pauses.before(event).map(|pause| pause.as_secs());
        // A server that begins each stream with another ID, and says nothing.
        let mut waited = Vec::new();
        let mut last: Option<String> = None;
        for number in 0..6 {
            waited.push(seconds(last.as_deref()));
            let id = format!("e{number}");
            let _: Vec<_> = pauses.watched(stream(&[(&id, "")])).collect().await;
            last = Some(id);
        }
        assert_eq!(waited, [Some(0), Some(0), Some(0), Some(1), Some(2), Some(4)]);
        // The answer to a request that goes on is another stream.
        assert_eq!(seconds(Some("of a request")), None);
        let _: Vec<_> = pauses.watched(stream(&[("e9", "news")])).collect().await;
        assert_eq!(seconds(Some("e9")), Some(0));
    }
}
