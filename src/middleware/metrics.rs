//! Middleware that counts and times requests, by server and method. Does not look at what they carry.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Answer, Any, Middleware, Next, Request};
use crate::error::Error;
use crate::tool::{FailureKind, seconds};

/// Pairs of a server and a method that are told apart. Each takes at most some 30 kB.
const SERIES: usize = 1024;
/// The server that all further pairs are counted for.
const OTHER_SERVERS: &str = "(other servers)";
/// The longest duration that percentiles tell apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Digits of a percentile that are right.
const DIGITS: u8 = 2;

/// Counts and times requests, by server and method. Clones share what they count: keep one, and give one to the client.
///
/// What it sees depends on its place: before a [`Retry`](super::Retry), a request that is repeated is one, and waiting for a
/// [`Limit`](super::Limit) is part of its duration; behind them, each try is one. A first request's duration has connecting in it; the
/// handshake is beside that a request of its own, `initialize`.
///
/// It takes well under a microsecond a request, and some 30 kB for each pair of a server and a method. 1,024 of these are told apart, which
/// only a client that adds ever other servers can exceed; further ones are counted for a server `(other servers)`, by method.
///
/// ```
/// use rhaiway::middleware::Metrics;
///
/// # #[derive(Clone)] struct Quiet;
/// # impl rmcp::ServerHandler for Quiet {}
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rhaiway::Error> {
/// let metrics = Metrics::default();
/// let client = rhaiway::Client::builder()
///     .in_process_server("quiet", || Quiet)
///     .middleware(metrics.clone())
///     .build()?;
/// client.create_session("quiet").await?.ping().await?;
///
/// let snapshot = metrics.snapshot();
/// let ping = &snapshot["quiet"]["ping"];
/// assert_eq!((ping.requests, ping.in_flight), (1, 0));
/// println!("p99: {:?}", ping.durations.p99);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Metrics {
    table: Arc<RwLock<Table>>,
}

#[derive(Default)]
struct Table {
    servers: HashMap<Arc<str>, HashMap<&'static str, Arc<Series>>>,
    series: usize,
}

#[derive(Default)]
struct Series(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: u64,
    in_flight: u64,
    cancelled: u64,
    errors: BTreeMap<&'static str, u64>,
    /// In microseconds; made by the first, as it is large.
    durations: Option<Histogram<u64>>,
    total: Duration,
    max: Duration,
}

impl Series {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was counted for one method of one server. As JSON, durations are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestMetrics {
    /// Requests that are over, however they ended.
    pub requests: u64,
    /// Requests that are not over.
    pub in_flight: u64,
    /// Of `requests`, those whose caller did not wait for the end.
    pub cancelled: u64,
    /// Of `requests`, those that failed, by [`FailureKind::as_str`]; `tool` where a tool answered that it failed, and `other` for what is
    /// no failure of a request or a connection, such as a configuration that is wrong.
    pub errors: BTreeMap<&'static str, u64>,
    /// How long requests took that were answered or failed.
    pub durations: Durations,
}

/// Durations, from the request to its answer; all zero where there were none.
///
/// Percentiles are right to two digits, and up to an hour; the maximum and the mean are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Durations {
    /// Half of the requests took no longer.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// 90 % took no longer.
    #[serde(serialize_with = "seconds")]
    pub p90: Duration,
    /// 95 % took no longer.
    #[serde(serialize_with = "seconds")]
    pub p95: Duration,
    /// 99 % took no longer.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
    /// The longest.
    #[serde(serialize_with = "seconds")]
    pub max: Duration,
    /// The arithmetic mean.
    #[serde(serialize_with = "seconds")]
    pub mean: Duration,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.snapshot()).finish()
    }
}

impl Metrics {
    /// What was counted so far: by server, then by method.
    ///
    /// Each pair is counted exactly; as requests go on while it is made, one pair may be a moment ahead of another.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, BTreeMap<&'static str, RequestMetrics>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let methods = |methods: &HashMap<&'static str, Arc<Series>>| {
            methods.iter().map(|(method, series)| (*method, series.counts().metrics())).collect()
        };
        table.servers.iter().map(|(server, series)| (server.to_string(), methods(series))).collect()
    }

    /// Begins anew. Requests that are in flight stay so, and are counted when they are over.
    pub fn reset(&self) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for methods in table.servers.values_mut() {
            methods.retain(|_, series| {
                let mut counts = series.counts();
                *counts = Counts { in_flight: counts.in_flight, ..Counts::default() };
                counts.in_flight > 0
            });
        }
        table.servers.retain(|_, methods| !methods.is_empty());
        table.series = table.servers.values().map(HashMap::len).sum();
    }

    fn begin(&self, server: &Arc<str>, method: &'static str) -> Flight {
        // Under the lock, so that a reset sees that the series is in use.
        let enter = |series: &Arc<Series>| {
            series.counts().in_flight += 1;
            Flight { series: Arc::clone(series), began: Instant::now(), end: End::Cancelled }
        };
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(series) = table.servers.get(server).and_then(|methods| methods.get(method)) {
                return enter(series);
            }
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let server = if table.series < SERIES { Arc::clone(server) } else { OTHER_SERVERS.into() };
        let methods = table.servers.entry(server).or_default();
        let before = methods.len();
        let flight = enter(methods.entry(method).or_default());
        let added = methods.len() - before;
        table.series += added;
        flight
    }
}

impl Counts {
    fn metrics(&self) -> RequestMetrics {
        let counted = self.durations.as_ref().map_or(0, Histogram::len);
        let at = |quantile| {
            let value = self.durations.as_ref().map_or(0, |durations| durations.value_at_quantile(quantile));
            Duration::from_micros(value).min(self.max)
        };
        let mean = self.total.as_nanos().checked_div(counted.into()).unwrap_or_default();
        RequestMetrics {
            requests: self.requests,
            in_flight: self.in_flight,
            cancelled: self.cancelled,
            errors: self.errors.clone(),
            durations: Durations {
                p50: at(0.5),
                p90: at(0.9),
                p95: at(0.95),
                p99: at(0.99),
                max: self.max,
                mean: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            },
        }
    }
}

/// A request that is not over. It is when this is dropped, at the latest.
struct Flight {
    series: Arc<Series>,
    began: Instant,
    end: End,
}

enum End {
    Answered,
    Failed(&'static str),
    Cancelled,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let mut counts = self.series.counts();
        counts.in_flight -= 1;
        counts.requests += 1;
        match self.end {
            End::Answered => {}
            End::Failed(kind) => *counts.errors.entry(kind).or_default() += 1,
            End::Cancelled => {
                counts.cancelled += 1;
                return;
            }
        }
        if counts.durations.is_none() {
            // These bounds are valid ones.
            counts.durations = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok();
        }
        if let Some(durations) = &mut counts.durations {
            durations.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
        }
        counts.total += took;
        counts.max = counts.max.max(took);
    }
}

#[async_trait]
impl Middleware for Metrics {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        let mut flight = self.begin(&request.server, request.method());
        let answer = next.run(request).await;
        flight.end = match &answer {
            Ok(Answer::CallTool(answer)) if answer.is_error() => End::Failed(FailureKind::Tool.as_str()),
            Ok(_) => End::Answered,
            Err(error) => End::Failed(error.kind().map_or("other", FailureKind::as_str)),
        };
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_a_reset_gives_them_back() {
        let metrics = Metrics::default();
        let flights: Vec<Flight> =
            (0..SERIES + 9).map(|index| metrics.begin(&format!("server-{index}").into(), "ping")).collect();
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.len(), SERIES + 1);
        assert_eq!(snapshot[OTHER_SERVERS]["ping"].in_flight, 9);
        drop(flights);
        assert_eq!(metrics.snapshot()[OTHER_SERVERS]["ping"].cancelled, 9);
        metrics.reset();
        assert_eq!(metrics.snapshot().len(), 0);
        drop(metrics.begin(&"again".into(), "ping"));
        assert_eq!(metrics.snapshot().keys().collect::<Vec<_>>(), ["again"]);
    }

    #[test]
    fn a_series_takes_the_memory_that_the_docs_say() {
        let durations = Histogram::<u64>::new_with_bounds(1, LONGEST, DIGITS).unwrap();
        assert!(durations.distinct_values() * size_of::<u64>() < 32_000);
    }
}
