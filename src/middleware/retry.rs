//! Middleware that repeats requests that failed for reasons that may pass. Knows which may be repeated; how connections are made again is
//! the session's.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use serde_json::Value;

use super::{Answer, Any, ListTools, Middleware, Next, Params, Request};
use crate::error::Error;
use crate::tool::{FailureKind, Tool, ToolPage};

/// How long a session leaves a server alone that it could not connect: asked sooner, it answers what it remembers.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// Longer delays are no different from none at all.
const LONGEST_DELAY: Duration = Duration::from_hours(24);

/// Repeats requests that failed because the connection broke or could not be made ([`FailureKind::Connection`]), or because they took too
/// long ([`FailureKind::Timeout`]). What a server or a tool answered is not asked again, whatever it says.
///
/// Repeated are requests that change nothing: lists, reading resources, filling in prompts, completion and pings; calls of tools only where
/// [`Retry::tool`] or [`Retry::hinted_tools`] says so. The handshake is not: sessions have their own delays for connecting again.
///
/// Between tries it waits: 0.2 s at first and twice as long each time, at most 5 s, each with up to the same at random on top, so
/// that clients that failed together do not come back together. A server that could not be connected is left alone by its session, for 1 s
/// at first and twice as long each time, so then it waits at least as long. There are at most 4 tries, and none begins later
/// than 15 s after the first. What a try may take is bounded by the request itself, such as by
/// [`CallOptions::timeout`](crate::CallOptions).
///
/// It repeats what follows it: middleware that was given before it sees one request, and that behind it each try, all with the same
/// [`Request::id`].
///
/// ```
/// use std::time::Duration;
/// use rhaiway::middleware::Retry;
///
/// let client = rhaiway::Client::builder()
///     .middleware(Retry::new().tries(3).delays(Duration::from_millis(50), Duration::from_secs(1)).tool("github", "get_issue"))
///     .build()?;
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[must_use]
pub struct Retry {
    tries: usize,
    min_delay: Duration,
    max_delay: Duration,
    total: Duration,
    tools: HashSet<(String, String)>,
    /// The tools that their servers mark, by server; none where that does not count.
    hinted: Option<Mutex<HashMap<Arc<str>, HashSet<String>>>>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("tries", &self.tries)
            .field("min_delay", &self.min_delay)
            .field("max_delay", &self.max_delay)
            .field("total", &self.total)
            .field("tools", &self.tools)
            .field("hinted_tools", &self.hinted.is_some())
            .finish()
    }
}

impl Retry {
    /// With the defaults.
    pub fn new() -> Self {
        Self {
            tries: 4,
            min_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(5),
            total: Duration::from_secs(15),
            tools: HashSet::new(),
            hinted: None,
        }
    }

    /// How often a request is tried, the first time included; 4 where this is not called. 0 is as 1.
    pub fn tries(mut self, tries: usize) -> Self {
        self.tries = tries;
        self
    }

    /// The delay after the first try, and what it doubles up to, both without what is random on top; 0.2 s and 5 s where this is not
    /// called.
    pub fn delays(mut self, first: Duration, longest: Duration) -> Self {
        (self.min_delay, self.max_delay) = (first.min(LONGEST_DELAY), longest.min(LONGEST_DELAY));
        self
    }

    /// How long after the first try others may begin; 15 s where this is not called. A try that is under way then is not cut off.
    pub fn total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// Repeats calls of this tool, too: of the server by its name in the configuration, and by the tool's own name. It has to be one that
    /// may run twice, as a connection that breaks does not tell whether the call had been carried out.
    pub fn tool(mut self, server: impl Into<String>, tool: impl Into<String>) -> Self {
        self.tools.insert((server.into(), tool.into()));
        self
    }

    /// Repeats calls of tools, too, that their server marks with `readOnlyHint` or `idempotentHint`.
    ///
    /// These hints are the server's word, and no more: use it with servers that you trust to know. They are remembered from the lists of
    /// tools that pass this middleware, so that it has to be there before the tools are listed, and calls that are made before are not
    /// repeated. Scripts always list tools first.
    pub fn hinted_tools(mut self) -> Self {
        self.hinted = Some(Mutex::default());
        self
    }

    fn may_repeat(&self, request: &Request) -> bool {
        match &request.params {
            Params::ListTools(_)
            | Params::ListResources(_)
            | Params::ListResourceTemplates(_)
            | Params::ReadResource(_)
            | Params::ListPrompts(_)
            | Params::GetPrompt(_)
            | Params::Complete(_)
            | Params::Ping(()) => true,
            Params::CallTool(call) => {
                self.tools.iter().any(|(server, tool)| **server == *request.server && *tool == call.name)
                    || self.is_hinted(&request.server, &call.name)
            }
            Params::Initialize(_) | Params::Subscribe(_) | Params::Unsubscribe(_) | Params::SetLevel(_) => false,
        }
    }

    fn is_hinted(&self, server: &str, tool: &str) -> bool {
        self.hinted.as_ref().is_some_and(|hinted| {
            let hinted = hinted.lock().unwrap_or_else(PoisonError::into_inner);
            hinted.get(server).is_some_and(|tools| tools.contains(tool))
        })
    }
}

/// Whether a failure may pass.
fn may_pass(error: &Error) -> bool {
    // A session that was closed stays so.
    !matches!(error, Error::NoSession { .. })
        && matches!(error.kind(), Some(FailureKind::Connection | FailureKind::Timeout))
}

fn says_it_may_run_twice(tool: &Tool) -> bool {
    let hint = |name| tool.annotations.as_ref().and_then(|hints| hints.get(name)) == Some(&Value::Bool(true));
    hint("readOnlyHint") || hint("idempotentHint")
}

#[async_trait]
impl Middleware for Retry {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        if self.tries <= 1 || !self.may_repeat(&request) {
            return next.run(request).await;
        }
        let began = Instant::now();
        // Of itself, `backon` without its feature `std` has the same seed everywhere.
        let seed = getrandom::u64().unwrap_or(request.id);
        let delays = ExponentialBuilder::new().with_jitter().with_jitter_seed(seed).without_max_times();
        let mut usual = delays.with_min_delay(self.min_delay).with_max_delay(self.max_delay).build();
        let mut unconnected = delays.with_min_delay(LEFT_ALONE).with_max_delay(LONGEST_DELAY).build();
        for tried in 1..self.tries {
            let try_began = Instant::now();
            let error = match next.run(request.clone()).await {
                Err(error) if may_pass(&error) => error,
                answer => return answer,
            };
            let mut delay = usual.next().unwrap_or_default();
            if matches!(error, Error::Connect { .. }) {
                delay = delay.max(unconnected.next().unwrap_or_default()).max(try_began.elapsed());
            }
            if began.elapsed().saturating_add(delay) > self.total {
                return Err(error);
            }
            let (server, seconds) = (&*request.server, delay.as_secs_f64());
            tracing::debug!(id = request.id, server, tried, seconds, %error, "will be tried again");
            tokio::time::sleep(delay).await;
        }
        next.run(request).await
    }

    async fn on_list_tools(&self, request: Request<ListTools>, next: Next<'_, ListTools>) -> Result<ToolPage, Error> {
        let Some(hinted) = &self.hinted else { return next.run(request).await };
        let (server, is_first) = (Arc::clone(&request.server), request.params.cursor.is_none());
        let page = next.run(request).await?;
        let mut hinted = hinted.lock().unwrap_or_else(PoisonError::into_inner);
        let tools = hinted.entry(server).or_default();
        if is_first {
            tools.clear();
        }
        for tool in &page.tools {
            if says_it_may_run_twice(tool) {
                tools.insert(tool.name.clone());
            } else {
                tools.remove(&tool.name);
            }
        }
        Ok(page)
    }
}
