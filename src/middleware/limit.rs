//! Middleware that bounds how many requests a server gets at once, and in what time: it makes them wait. Does not look at what they carry.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::{Answer, Any, Middleware, Next, Params, Request};
use crate::error::Error;

/// What a burst may come to, in nanoseconds of its rate: some 30 years, which the limiter's arithmetic can do.
const LONGEST_BURST: u128 = 1_000_000_000_000_000_000;

/// Bounds the requests that each server gets: so many in flight at once, and so many in a time. What is over waits, in the order in which
/// it came; or, with [`Limit::max_wait`], fails with [`FailureKind::Rejected`](crate::FailureKind) when it has waited for long enough.
///
/// Each server is counted for itself. The handshake and `logging/setLevel` pass unbounded, as connecting is part of the request that needs
/// it and has its place already. A request that is dropped while it waits, or while it is in flight, gives its place back.
///
/// Behind a [`Retry`](super::Retry) each try counts, and a place is free between tries. More than one limit can be given, such as for
/// different servers.
///
/// ```
/// use std::time::Duration;
/// use rhaiway::middleware::Limit;
///
/// let client = rhaiway::Client::builder()
///     .middleware(Limit::new().in_flight(8))
///     .middleware(Limit::new().rate(30, Duration::from_mins(1)).burst(5).max_wait(Duration::from_secs(20)).servers(["github"]))
///     .build()?;
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct Limit {
    in_flight: Option<usize>,
    rate: Option<Rate>,
    burst: u32,
    max_wait: Option<Duration>,
    servers: Option<Vec<String>>,
    lanes: Mutex<HashMap<Arc<str>, Arc<Lane>>>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    requests: u32,
    per: Duration,
}

/// What one server has: its places and its rate.
pub(crate) struct Lane {
    places: Option<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
    /// Held by the request whose turn it is, so that none overtakes it.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("in_flight", &self.in_flight)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .field("max_wait", &self.max_wait)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

impl Limit {
    /// Without any bound yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many requests to a server are in flight at once; any number where this is not called. 0 is as 1.
    pub fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = Some(requests.clamp(1, Semaphore::MAX_PERMITS));
        self
    }

    /// A server gets at most so many requests in this time, evenly spread but for a [`burst`](Self::burst); any number where this is not
    /// called. 0 requests are as 1, and a time of 0 is no bound.
    ///
    /// Waits are rounded up to a millisecond, so that a rate of more than some hundred a second is only reached with a burst.
    pub fn rate(mut self, requests: u32, per: Duration) -> Self {
        self.rate = Some(Rate { requests: requests.max(1), per });
        self
    }

    /// So many requests may come at once after a time without any, where a [`rate`](Self::rate) is set; 1 where this is not called.
    pub fn burst(mut self, requests: u32) -> Self {
        self.burst = requests;
        self
    }

    /// A request that has waited for so long fails; 0 makes all fail that would have to wait. Where this is not called, requests
    /// wait for as long as it takes, or as their callers do.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Bounds requests to these servers only, by their names in the configuration; to all where this is not called.
    pub fn servers(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.servers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    fn covers(&self, request: &Request) -> bool {
        // To count these would be to wait for ever: they are made while the request that needs the connection holds a place.
        !matches!(request.params, Params::Initialize(_) | Params::SetLevel(_))
            && self.servers.as_ref().is_none_or(|servers| servers.iter().any(|server| **server == *request.server))
    }

    fn lane(&self, server: &Arc<str>) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes
            .entry(Arc::clone(server))
            .or_insert_with(|| Arc::new(Lane::new(self.in_flight, self.rate.and_then(|rate| rate.quota(self.burst)))));
        Arc::clone(lane)
    }

    fn waited(&self) -> String {
        format!("within {} s", self.max_wait.unwrap_or_default().as_secs_f64())
    }
}

impl Rate {
    /// None where there is nothing to bound.
    fn quota(self, burst: u32) -> Option<Quota> {
        let period = Duration::from_nanos(u64::try_from((self.per / self.requests).as_nanos()).unwrap_or(u64::MAX));
        let period = period.min(Duration::from_hours(24 * 365));
        let most = LONGEST_BURST.checked_div(period.as_nanos())?.max(1);
        let burst = u128::from(burst).clamp(1, most);
        Some(Quota::with_period(period)?.allow_burst(NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX))?))
    }
}

impl Lane {
    fn new(in_flight: Option<usize>, quota: Option<Quota>) -> Self {
        let (places, rate) = (in_flight.map(Semaphore::new), quota.map(RateLimiter::direct));
        Self { places, rate, turn: tokio::sync::Mutex::default() }
    }

    /// For so many requests at once, and so many in a second; `None` where neither is bounded.
    pub(crate) fn of(in_flight: Option<usize>, per_second: Option<f64>) -> Option<Self> {
        let per = per_second.map(|requests| Duration::try_from_secs_f64(1.0 / requests).unwrap_or(Duration::MAX));
        let quota = per.and_then(|per| Rate { requests: 1, per }.quota(1));
        (in_flight.is_some() || quota.is_some())
            .then(|| Self::new(in_flight.map(|requests| requests.clamp(1, Semaphore::MAX_PERMITS)), quota))
    }

    /// Waits for a place and for the turn of one more request. The place is given back when what comes of this is dropped.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        self.pass().await;
        place
    }

    /// Waits until the rate lets one more pass.
    async fn pass(&self) {
        let Some(rate) = &self.rate else { return };
        let _turn = self.turn.lock().await;
        let clock = DefaultClock::default();
        while let Err(early) = rate.check() {
            tokio::time::sleep(early.wait_time_from(clock.now())).await;
        }
    }
}

/// `None` if it took too long.
async fn by<T>(end: Option<Instant>, wait: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => timeout_at(end, wait).await.ok(),
        None => Some(wait.await),
    }
}

#[async_trait]
impl Middleware for Limit {
    async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
        if !self.covers(&request) {
            return next.run(request).await;
        }
        let lane = self.lane(&request.server);
        let end = self.max_wait.and_then(|wait| Instant::now().checked_add(wait));
        // A place first: one that passed the rate must not wait then, or requests would pile up behind it and go out all at once.
        let _place = match &lane.places {
            None => None,
            Some(places) => Some(by(end, places.acquire()).await.ok_or_else(|| {
                let (server, most) = (&request.server, self.in_flight.unwrap_or_default());
                let waited = self.waited();
                request.rejection(format!(
                    "the server `{server}` may have {most} requests in flight (`in_flight`), and the turn of this one did not come {waited}"
                ))
            })?),
        };
        by(end, lane.pass()).await.ok_or_else(|| {
            let server = &request.server;
            let Rate { requests, per } = self.rate.unwrap_or(Rate { requests: 0, per: Duration::ZERO });
            let (per, waited) = (per.as_secs_f64(), self.waited());
            request.rejection(format!(
                "the server `{server}` gets at most {requests} requests in {per} s (`rate`), and the turn of this one did not come {waited}"
            ))
        })?;
        next.run(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_is_beyond_the_limiter() {
        let periods =
            [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::from_hours(9), Duration::MAX];
        for per in periods {
            for requests in [1, 7, u32::MAX] {
                for burst in [0, 1, 7, u32::MAX] {
                    let quota = Rate { requests, per }.quota(burst);
                    assert_eq!(quota.is_none(), (per / requests).is_zero(), "{per:?} {requests}");
                    assert!(quota.is_none_or(|quota| RateLimiter::direct(quota).check().is_ok()));
                }
            }
        }
    }
}
