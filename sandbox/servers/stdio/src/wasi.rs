//! Stdin, stdout and timers for tokio in a guest of WASI preview 1.
//!
//! There is one thread, so a read that blocks would hold up every call. But when tokio is about to park, all calls wait: for
//! stdin or for a timer, and [`wait`] waits for both at once with `poll_oneoff`, in which the host suspends the guest.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const STDIN: wasip1::Fd = 0;

/// What is waited for.
#[derive(Default)]
struct Waiting {
    reader: Option<Waker>,
    /// Whether a read would not block.
    readable: bool,
    /// Those of futures that are gone stay until their time has come, and wake nobody.
    timers: Vec<(Instant, Waker)>,
}

thread_local! {
    static WAITING: RefCell<Waiting> = RefCell::default();
}

/// Waits like `tokio::time::sleep`, of which [`wait`] would not know.
pub async fn sleep(duration: Duration) {
    let end = Instant::now() + duration;
    poll_fn(|context| {
        if Instant::now() >= end {
            return Poll::Ready(());
        }
        WAITING.with_borrow_mut(|waiting| {
            if !waiting.timers.iter().any(|(at, waker)| *at == end && waker.will_wake(context.waker())) {
                waiting.timers.push((end, context.waker().clone()));
            }
        });
        Poll::Pending
    })
    .await;
}

/// Called when nothing can go on: returns when something can. Where nothing is waited for, tokio parks, for timers of its own.
pub(crate) fn wait() {
    let (reads, next) =
        WAITING.with_borrow(|waiting| (waiting.reader.is_some(), waiting.timers.iter().map(|(at, _)| *at).min()));
    let readable = poll(reads, next.map(|at| at.saturating_duration_since(Instant::now())));
    let woken = WAITING.with_borrow_mut(|waiting| {
        let now = Instant::now();
        let due = waiting.timers.extract_if(.., |(at, _)| *at <= now).map(|(_, waker)| waker);
        let mut woken: Vec<_> = due.collect();
        if readable {
            waiting.readable = true;
            woken.extend(waiting.reader.take());
        }
        woken
    });
    woken.into_iter().for_each(Waker::wake);
}

/// Blocks until stdin can be read or the time is over, and returns whether it can be read. The end of stdin is readable, too.
fn poll(stdin: bool, timeout: Option<Duration>) -> bool {
    use wasip1::{
        CLOCKID_MONOTONIC, EVENTTYPE_CLOCK, EVENTTYPE_FD_READ, Event, Subscription, SubscriptionClock,
        SubscriptionFdReadwrite, SubscriptionU, SubscriptionUU,
    };
    let stdin = stdin.then(|| SubscriptionU {
        tag: EVENTTYPE_FD_READ.raw(),
        u: SubscriptionUU { fd_read: SubscriptionFdReadwrite { file_descriptor: STDIN } },
    });
    let clock = timeout.map(|timeout| {
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let clock = SubscriptionClock { id: CLOCKID_MONOTONIC, timeout, precision: 0, flags: 0 };
        SubscriptionU { tag: EVENTTYPE_CLOCK.raw(), u: SubscriptionUU { clock } }
    });
    let wanted: Vec<_> = stdin.into_iter().chain(clock).map(|u| Subscription { userdata: 0, u }).collect();
    if wanted.is_empty() {
        return false;
    }
    let mut events = Vec::<Event>::with_capacity(wanted.len());
    #[allow(
        unsafe_code,
        reason = "the host reads as many subscriptions as it is told, and writes no more events than that"
    )]
    let happened = unsafe {
        wasip1::poll_oneoff(wanted.as_ptr(), events.as_mut_ptr(), wanted.len()).inspect(|count| events.set_len(*count))
    };
    // Where the host can't poll, the read says why.
    happened.is_err() || events.iter().any(|event| event.type_ == EVENTTYPE_FD_READ)
}

/// Read only when that does not block.
pub(crate) struct Stdin;

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let readable = WAITING.with_borrow_mut(|waiting| {
            let readable = std::mem::take(&mut waiting.readable);
            waiting.reader = (!readable).then(|| context.waker().clone());
            readable
        });
        if !readable {
            return Poll::Pending;
        }
        let buffer = into.initialize_unfilled();
        let slices = [wasip1::Iovec { buf: buffer.as_mut_ptr(), buf_len: buffer.len() }];
        #[allow(
            unsafe_code,
            reason = "the host writes into the buffer, and no more than fits; std's own stdin keeps a buffer"
        )]
        let read = unsafe { wasip1::fd_read(STDIN, &slices) };
        Poll::Ready(match read {
            Ok(count) => {
                into.advance(count);
                Ok(())
            }
            Err(errno) => Err(io::Error::from_raw_os_error(errno.raw().into())),
        })
    }
}

/// Blocks, as a client that does not read can't be served anyway.
pub(crate) struct Stdout;

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(io::stdout().write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(io::stdout().flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
