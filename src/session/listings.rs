//! Lists of the tools of many servers at once: what is there, without waiting for servers that are silent. Those go on connecting in tasks
//! of their own, which end with what holds this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::Session;
use crate::catalog::ToolSet;
use crate::error::Error;

/// How long nobody waits for servers among which none becomes ready.
const SILENCE: Duration = Duration::from_secs(2);
/// The same where others wait for their turn to start.
const IN_LINE: Duration = Duration::from_secs(6);

/// How long the others are waited for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Patience {
    /// As long as servers become ready.
    Short,
    /// As long as each may take.
    Long,
}

/// The error says why they are not there.
type Listed = Result<Arc<ToolSet>, String>;

/// The lists that are under way, by server: one each, however many wait for it.
#[derive(Default)]
pub(crate) struct Listings(Mutex<HashMap<String, Listing>>);

struct Listing {
    session: Weak<super::Inner>,
    task: JoinHandle<()>,
    listed: watch::Receiver<Option<Listed>>,
}

impl Listing {
    async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listings {
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Listing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those that are under way, and waits until they have.
    pub(crate) async fn end(&self) {
        let under_way = std::mem::take(&mut *self.under_way());
        for listing in under_way.into_values() {
            listing.end().await;
        }
    }

    /// The same for one server.
    pub(crate) async fn end_of(&self, server: &str) {
        let under_way = self.under_way().remove(server);
        if let Some(listing) = under_way {
            listing.end().await;
        }
    }

    /// What `tools` gives for each session; where it is waited for no longer, an error that says so. `bound` is on all of it.
    pub(crate) async fn of(
        &self,
        sessions: &[Result<Session, Error>],
        patience: Patience,
        bound: Duration,
    ) -> Vec<Listed> {
        let mut results: Vec<Option<Listed>> = sessions.iter().map(|_| None).collect();
        let mut waiting = FuturesUnordered::new();
        for (index, session) in sessions.iter().enumerate() {
            match session {
                Ok(session) => {
                    let mut listed = self.start(session);
                    waiting.push(async move {
                        let listed = listed.wait_for(Option::is_some).await;
                        (index, listed.ok().and_then(|listed| listed.clone()))
                    });
                }
                Err(error) => results[index] = Some(Err(error.to_string())),
            }
        }
        let started = Instant::now();
        let (mut progressed, mut until) = (started, started + SILENCE);
        loop {
            let is_over = async {
                match patience {
                    Patience::Short => tokio::time::sleep_until(until).await,
                    Patience::Long => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                next = waiting.next() => match next {
                    None => break,
                    Some((index, listed)) => {
                        if matches!(listed, Some(Ok(_))) {
                            progressed = Instant::now();
                            until = progressed + SILENCE;
                        }
                        let ended = || Err(unfinished(sessions[index].as_ref()));
                        results[index] = Some(listed.unwrap_or_else(ended));
                    }
                },
                () = is_over => {
                    // One that waits for its turn has had no time yet; but others that are silent may keep it waiting for long.
                    let in_line = |session: &Result<Session, Error>| session.as_ref().is_ok_and(Session::is_in_line);
                    let is_stuck = progressed.elapsed() >= IN_LINE || started.elapsed() >= bound;
                    if is_stuck || !sessions.iter().any(in_line) {
                        break;
                    }
                    until = Instant::now() + SILENCE;
                }
            }
        }
        let missing = |(session, result): (&Result<Session, Error>, Option<Listed>)| {
            result.unwrap_or_else(|| Err(unfinished(session.as_ref())))
        };
        sessions.iter().zip(results).map(missing).collect()
    }

    /// Lists the tools of a server, unless that is under way.
    fn start(&self, session: &Session) -> watch::Receiver<Option<Listed>> {
        let mut all = self.under_way();
        all.retain(|_, listing| !listing.task.is_finished());
        if let Some(listing) =
            all.get(session.server_name()).filter(|listing| listing.session.as_ptr() == Arc::as_ptr(&session.inner))
        {
            return listing.listed.clone();
        }
        let (tell, listed) = watch::channel(None);
        let lists = session.clone();
        let list = async move {
            let listed = async {
                lists.connect_if_due().await?;
                lists.tools().await
            };
            tell.send_replace(Some(listed.await.map_err(|error: Error| error.to_string())));
        };
        let task = tokio::spawn(list.instrument(tracing::Span::current()));
        let listing = Listing { session: Arc::downgrade(&session.inner), task, listed: listed.clone() };
        all.insert(session.server_name().into(), listing);
        listed
    }
}

/// What is told of a server whose tools are not there yet.
fn unfinished(session: Result<&Session, &Error>) -> String {
    match session {
        Ok(session) if session.is_connected() => "its tools are still being listed; search again in a moment".into(),
        Ok(_) => "it is still being connected; search again in a moment".into(),
        Err(error) => error.to_string(),
    }
}
