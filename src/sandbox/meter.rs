//! What a server has used of its limits. Computing and output are counted by the request: a request that finds no other open starts afresh,
//! and one that comes while others are adds to what the server may use.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::{Sandbox, Turn};

/// A limit that a server hit: how it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Memory(usize),
    CpuTime(Duration),
    Output(usize),
    /// What an answer takes before it is output, bounded by the same setting.
    Answer(usize),
    WallTime(Duration),
    Stack,
    Processes(usize),
    Files(usize),
}

/// MiB, as the configuration has it.
#[allow(clippy::cast_precision_loss, reason = "it is for people")]
pub(crate) fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Memory(max) => write!(f, "it needs more memory than its {} MiB (`memory_mb`)", mib(max)),
            Self::CpuTime(max) => {
                write!(
                    f,
                    "it computed for longer than the {} s that one request may take (`cpu_seconds`)",
                    max.as_secs_f64()
                )
            }
            Self::Output(max) => {
                write!(f, "it wrote more than the {} MiB that it may write for one request (`max_output_mb`)", mib(max))
            }
            Self::Answer(max) => {
                write!(f, "its answer takes more memory than answers may (`max_output_mb`: {} MiB)", mib(max))
            }
            Self::WallTime(max) => {
                write!(
                    f,
                    "it did not answer within the {} s that a request may take (`wall_seconds`)",
                    max.as_secs_f64()
                )
            }
            Self::Stack => write!(f, "its stack is full: it calls itself too deeply"),
            Self::Processes(max) => write!(f, "it has more than {max} processes"),
            Self::Files(max) => write!(f, "it has more than {max} files, folders and sockets open"),
        }
    }
}

/// Counts for one instance. Shared by the instance, its pipes, and whoever waits for its end.
pub(crate) struct Meter {
    cpu_time: Duration,
    max_output: usize,
    cpu: Count,
    output: Count,
    /// CPU time of the thread at which the instance went on.
    went_on: AtomicU64,
    /// Requests that it has not answered.
    open: AtomicU64,
    /// Whether it was interrupted, and waits for its turn to go on.
    gives_way: AtomicBool,
    exceeded: OnceLock<Limit>,
    told: Notify,
}

/// How much of something was used, and may be.
struct Count {
    used: AtomicU64,
    may: AtomicU64,
    each: u64,
}

impl Count {
    fn new(each: u64) -> Self {
        Self { used: AtomicU64::new(0), may: AtomicU64::new(each), each }
    }

    /// For a request more, with which so many are open. What was left over by others is not kept.
    fn another(&self, open: u64) {
        if open <= 1 {
            self.used.store(0, Ordering::Relaxed);
            self.may.store(self.each, Ordering::Relaxed);
        } else {
            let most = self.used.load(Ordering::Relaxed).saturating_add(self.each.saturating_mul(open));
            let may = self.may.load(Ordering::Relaxed).saturating_add(self.each);
            self.may.store(may.min(most), Ordering::Relaxed);
        }
    }

    /// Whether that is too much.
    fn add(&self, more: u64) -> bool {
        self.used.fetch_add(more, Ordering::Relaxed).saturating_add(more) > self.may.load(Ordering::Relaxed)
    }
}

impl Meter {
    pub(crate) fn new(cpu_time: Duration, max_output: usize) -> Arc<Self> {
        Arc::new(Self {
            cpu_time,
            max_output,
            cpu: Count::new(u64::try_from(cpu_time.as_nanos()).unwrap_or(u64::MAX / 2)),
            output: Count::new(max_output as u64),
            went_on: AtomicU64::default(),
            open: AtomicU64::default(),
            gives_way: AtomicBool::default(),
            exceeded: OnceLock::new(),
            told: Notify::new(),
        })
    }

    /// A request is about to be given to it. Answers to what it asks itself are none, or it could renew its limits as it likes.
    pub(crate) fn request(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.cpu.another(open);
        self.output.another(open);
    }

    /// It has answered a request, or need not any more.
    pub(crate) fn answered(&self) {
        let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| open.checked_sub(1));
    }

    pub(crate) fn exceed(&self, limit: Limit) {
        let _ = self.exceeded.set(limit);
        self.told.notify_one();
    }

    /// The limit that was hit first.
    pub(crate) fn exceeded(&self) -> Option<Limit> {
        self.exceeded.get().copied()
    }

    /// Waits until a limit is hit.
    pub(crate) async fn until_exceeded(&self) -> Limit {
        loop {
            if let Some(limit) = self.exceeded() {
                return limit;
            }
            self.told.notified().await;
        }
    }

    /// The instance is interrupted while it computes: whether it may go on.
    pub(crate) fn may_compute(&self) -> bool {
        self.gives_way.store(true, Ordering::Relaxed);
        let now = thread_time();
        let since = now.saturating_sub(self.went_on.swap(now, Ordering::Relaxed));
        let too_much = self.cpu.add(since);
        if too_much {
            self.exceed(Limit::CpuTime(self.cpu_time));
        }
        !too_much
    }

    /// A process group has computed for so long since this was last told.
    #[cfg(target_os = "linux")]
    pub(crate) fn used(&self, nanos: u64) {
        if self.cpu.add(nanos) {
            self.exceed(Limit::CpuTime(self.cpu_time));
        }
    }

    /// It goes on after it was interrupted.
    pub(crate) fn goes_on(&self) {
        self.gives_way.store(false, Ordering::Relaxed);
        self.went_on.store(thread_time(), Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        if self.output.add(bytes as u64) {
            self.exceed(Limit::Output(self.max_output));
        }
    }
}

/// CPU time of this thread in nanoseconds.
fn thread_time() -> u64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
        seconds * 1_000_000_000 + nanos
    }
    #[cfg(not(unix))]
    {
        // The wall clock, where threads have no clock of their own.
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(std::time::Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Runs an instance: the clock ticks and its computing is counted while it is polled.
pub(crate) struct Metered<'a, F> {
    running: Pin<Box<F>>,
    meter: Arc<Meter>,
    turn: Arc<Turn>,
    sandbox: &'a Sandbox,
}

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(running: F, meter: &Arc<Meter>, turn: &Arc<Turn>, sandbox: &'a Sandbox) -> Self {
        Self { running: Box::pin(running), meter: Arc::clone(meter), turn: Arc::clone(turn), sandbox }
    }
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.meter.went_on.store(thread_time(), Ordering::Relaxed);
        let _ticking = this.sandbox.tick();
        let _waiting = this.sandbox.enter();
        let polled = this.running.as_mut().poll(context);
        let since = thread_time().saturating_sub(this.meter.went_on.load(Ordering::Relaxed));
        // What is too much by now is told at the next interruption, if there is one.
        this.meter.cpu.add(since);
        if !this.meter.gives_way.load(Ordering::Relaxed) {
            this.turn.end();
        }
        polled
    }
}

/// An end of a pipe that a server writes to, the server's or ours.
pub(crate) struct MeteredOutput<P> {
    pipe: P,
    meter: Arc<Meter>,
}

impl<P> MeteredOutput<P> {
    pub(crate) fn new(pipe: P, meter: &Arc<Meter>) -> Self {
        Self { pipe, meter: Arc::clone(meter) }
    }
}

impl<P: AsyncRead + Unpin> AsyncRead for MeteredOutput<P> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(context, into);
        self.meter.wrote(into.filled().len() - before);
        read
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for MeteredOutput<P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.pipe).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.meter.wrote(count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_after_all_were_answered_starts_afresh() {
        let meter = Meter::new(Duration::from_secs(1), 10);
        for _ in 0..3 {
            meter.request();
            meter.answered();
        }
        meter.wrote(10);
        assert_eq!(meter.exceeded(), None);
        meter.request();
        meter.wrote(10);
        assert_eq!(meter.exceeded(), None);
        meter.wrote(1);
        assert_eq!(meter.exceeded(), Some(Limit::Output(10)));
    }

    #[test]
    fn requests_at_once_add_up_and_leave_nothing_over() {
        let meter = Meter::new(Duration::from_secs(1), 10);
        for _ in 0..10 {
            meter.request();
            meter.request();
            meter.answered();
        }
        for _ in 0..9 {
            meter.answered();
        }
        meter.request();
        meter.wrote(20);
        assert_eq!(meter.exceeded(), None);
        meter.wrote(1);
        assert_eq!(meter.exceeded(), Some(Limit::Output(10)));
    }
}
