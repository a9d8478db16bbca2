//! Watches the process groups of native servers: how many processes they have, what they compute, and the memory that is theirs alone. The
//! kernel's own limits are for single processes, do not hold for root, and can't be renewed with each request.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::super::meter::{Limit, Meter};

/// Between two looks, while servers compute, and while all wait.
const SOON: Duration = Duration::from_nanos(SOON_NANOS);
const LATER: Duration = Duration::from_millis(250);
const SOON_NANOS: u64 = 50_000_000;
/// Looks at which nobody computed, before those come later.
const IDLE: u32 = 20;

/// A group that is watched. Dropping it ends the watch.
pub(crate) struct Watch {
    group: u32,
}

struct Watched {
    meter: Arc<Meter>,
    memory: usize,
    processes: usize,
    /// Whether the two processes above the server are ours.
    namespaces: bool,
    /// What each process had used at the last look.
    known: HashMap<Id, Used>,
}

/// A process: its number, and when it was started, as numbers are used again.
type Id = (u32, u64);

/// CPU time in nanoseconds: of a process, and of its children that have ended and were waited for.
#[derive(Clone, Copy, Default)]
struct Used {
    own: u64,
    waited: u64,
}

/// A process at the moment.
struct Process {
    id: Id,
    used: Used,
    runs: bool,
}

/// What there is of a group.
#[derive(Default)]
struct Seen {
    /// The first process of its namespace.
    first: Option<u32>,
    processes: Vec<Process>,
}

type Groups = HashMap<u32, Watched>;

static GROUPS: Mutex<Option<Groups>> = Mutex::new(None);
static BEGUN: Condvar = Condvar::new();

fn groups() -> MutexGuard<'static, Option<Groups>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Fails where there can be no thread to watch.
    pub(super) fn new(
        group: u32,
        meter: &Arc<Meter>,
        memory: usize,
        processes: usize,
        namespaces: bool,
    ) -> std::io::Result<Self> {
        let mut all = groups();
        if all.is_none() {
            std::thread::Builder::new().name("rhaiway-watch".into()).spawn(run)?;
        }
        let watched = Watched { meter: Arc::clone(meter), memory, processes, namespaces, known: HashMap::new() };
        all.get_or_insert_default().insert(group, watched);
        BEGUN.notify_one();
        Ok(Self { group })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        groups().as_mut().and_then(|groups| groups.remove(&self.group));
    }
}

fn run() {
    // Root has no limit of processes but this one, and may come before all of them.
    let _ = rustix::process::setpriority_process(None, -20);
    let (mut last, mut idle) = (Instant::now(), 0);
    loop {
        let is_empty = |groups: &mut Option<Groups>| groups.as_ref().is_none_or(HashMap::is_empty);
        drop(BEGUN.wait_while(groups(), is_empty));
        let seen = look();
        let mut computed = false;
        // After a wait for a group to watch, nothing was to be seen for most of the time.
        let passed = u64::try_from(last.elapsed().min(LATER).as_nanos()).unwrap_or(SOON_NANOS);
        last = Instant::now();
        for (group, watched) in groups().iter_mut().flatten() {
            let Some(Seen { first, processes }) = seen.get(group) else { continue };
            let since = watched.since(processes, passed);
            computed |= since > 0;
            watched.meter.used(since);
            if processes.len() > watched.processes {
                watched.meter.exceed(Limit::Processes(watched.processes));
                // Those who are told of it may have to wait for all of these.
                kill(*group, *first);
            } else if watched.is_over(processes) {
                watched.meter.exceed(Limit::Memory(watched.memory));
            }
        }
        idle = if computed { 0 } else { idle + 1 };
        std::thread::sleep(if idle < IDLE { SOON } else { LATER });
    }
}

/// Ends a group: by the first process of its namespace, where there is one, as that takes all others with it.
fn kill(group: u32, first: Option<u32>) {
    let process = |number: u32| i32::try_from(number).ok().and_then(Pid::from_raw);
    let _ = match (first.and_then(process), process(group)) {
        (Some(first), _) => rustix::process::kill_process(first, Signal::KILL),
        (None, Some(group)) => rustix::process::kill_process_group(group, Signal::KILL),
        (None, None) => Ok(()),
    };
}

impl Watched {
    /// What its processes have computed since the last look.
    fn since(&mut self, processes: &[Process], passed: u64) -> u64 {
        let mut gone = std::mem::take(&mut self.known);
        let (mut own, mut waited, mut fresh, mut fresh_running) = (0, 0, 0, 0);
        for process in processes {
            let known = gone.remove(&process.id);
            let more = |now: u64, then: fn(&Used) -> u64| now.saturating_sub(known.as_ref().map_or(0, then));
            waited += more(process.used.waited, |used| used.waited);
            if known.is_some() {
                own += more(process.used.own, |used| used.own);
            } else {
                fresh += process.used.own;
                fresh_running += u64::from(process.runs);
            }
            self.known.insert(process.id, process.used);
        }
        // Where its parent waited for a process that is gone, what was counted of it already is in the parent's account now.
        let counted: u64 = gone.values().map(|used| used.own + used.waited).sum();
        // A new one that runs stands for others that came and went unseen.
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        own + fresh.max(fresh_running.min(cpus) * passed) + waited.saturating_sub(counted)
    }

    /// Whether they have more memory than they may, without what they share.
    fn is_over(&self, processes: &[Process]) -> bool {
        let sum = |of: fn(u32) -> Option<usize>| -> usize {
            processes.iter().map(|process| of(process.id.0).or_else(|| resident(process.id.0)).unwrap_or(0)).sum()
        };
        // The kernel takes its time for the exact number.
        sum(resident) > self.memory && sum(proportional) > self.memory
    }
}

/// The memory of a process in bytes, but for files; what it shares with a child that it made counts for both.
fn resident(process: u32) -> Option<usize> {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let mut pages = text.split(' ').skip(1).map(|field| field.parse::<usize>().unwrap_or(0));
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size())
}

/// The same, where what several share is divided among them.
fn proportional(process: u32) -> Option<usize> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
}

/// The processes of all groups that are watched. Where one has too many, that is all that matters: it is told before those compute on.
fn look() -> HashMap<u32, Seen> {
    let mut groups: HashMap<u32, (usize, bool, Seen)> = groups()
        .iter()
        .flatten()
        .map(|(group, watched)| (*group, (watched.processes, watched.namespaces, Seen::default())))
        .collect();
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        // After the name, which may hold anything.
        let Some(end) = stat.windows(2).rposition(|bytes| bytes == b") ") else { continue };
        let rest = String::from_utf8_lossy(&stat[end + 2..]);
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let Ok(group) = u32::try_from(field(2)) else { continue };
        let Some((most, namespaces, seen)) = groups.get_mut(&group) else { continue };
        // That which was started, and the first one inside.
        if *namespaces && number == group {
            continue;
        }
        if *namespaces && field(1) == u64::from(group) {
            seen.first = Some(number);
            continue;
        }
        let used = Used { own: (field(11) + field(12)) * tick, waited: (field(13) + field(14)) * tick };
        seen.processes.push(Process { id: (number, field(19)), used, runs: fields[0] == "R" });
        if seen.processes.len() > *most {
            return HashMap::from([(group, std::mem::take(seen))]);
        }
    }
    groups.into_iter().map(|(group, (_, _, seen))| (group, seen)).collect()
}
