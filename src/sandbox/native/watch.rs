//! Watches the process groups of native servers: how many processes they have, what they compute, and the memory that is theirs alone. The
//! kernel's own limits are for single processes, do not hold for root, and can't be renewed with each request.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::meter::{Limit, Meter};

/// Between two looks, while servers compute, and while all wait.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(250);

/// A group that is watched. Dropping it ends the watch.
pub(crate) struct Watch {
    group: u32,
}

struct Watched {
    meter: Arc<Meter>,
    memory: usize,
    processes: usize,
    /// CPU time at the last look, in nanoseconds.
    cpu: u64,
}

/// What a group uses at the moment.
#[derive(Default)]
struct Use {
    processes: usize,
    cpu: u64,
    memory: usize,
}

type Groups = HashMap<u32, Watched>;

static GROUPS: Mutex<Option<Groups>> = Mutex::new(None);
static BEGUN: Condvar = Condvar::new();

fn groups() -> MutexGuard<'static, Option<Groups>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Fails where there can be no thread to watch.
    pub(super) fn new(group: u32, meter: &Arc<Meter>, memory: usize, processes: usize) -> std::io::Result<Self> {
        let mut all = groups();
        if all.is_none() {
            std::thread::Builder::new().name("rhaiway-watch".into()).spawn(run)?;
        }
        let watched = Watched { meter: Arc::clone(meter), memory, processes, cpu: 0 };
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
    loop {
        let is_empty = |groups: &mut Option<Groups>| groups.as_ref().is_none_or(HashMap::is_empty);
        drop(BEGUN.wait_while(groups(), is_empty));
        let uses = look();
        let mut computed = false;
        for (group, watched) in groups().iter_mut().flatten() {
            let Some(now) = uses.get(group) else { continue };
            let since = now.cpu.saturating_sub(watched.cpu);
            watched.cpu = watched.cpu.max(now.cpu);
            // Most of a processor since the last look.
            let is_busy = since > u64::try_from(SOON.as_nanos() / 2).unwrap_or(u64::MAX);
            computed |= since > 0;
            watched.meter.used(since, is_busy);
            if now.processes > watched.processes {
                watched.meter.exceed(Limit::Processes(watched.processes));
            } else if now.memory > watched.memory {
                watched.meter.exceed(Limit::Memory(watched.memory));
            }
        }
        std::thread::sleep(if computed { SOON } else { LATER });
    }
}

/// What all groups that are watched use.
fn look() -> HashMap<u32, Use> {
    let mut uses: HashMap<u32, Use> =
        groups().iter().flat_map(HashMap::keys).map(|group| (*group, Use::default())).collect();
    let (tick, page) = (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1), rustix::param::page_size());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name, which may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let Some(uses) = u32::try_from(number(2)).ok().and_then(|group| uses.get_mut(&group)) else { continue };
        uses.processes += 1;
        // Its own, and of its children that have ended and were waited for.
        uses.cpu += (11..=14).map(number).sum::<u64>() * tick;
        let memory = fs::read_to_string(entry.path().join("statm")).unwrap_or_default();
        let mut pages = memory.split(' ').skip(1).map(|field| field.parse::<usize>().unwrap_or(0));
        let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        uses.memory += resident.saturating_sub(shared) * page;
    }
    uses
}
