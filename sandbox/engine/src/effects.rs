//! What a script does to the world and learns from it; and `parallel`, `sleep`, `timeout` and `retry`, which decide when.
//!
//! There is one stack, so branches that wait are not kept: each has a journal of what it did, in order. A branch that needs an answer
//! that is not there yet is left, and run again once it is; what it did before is then taken from its journal, and not done twice.
//! Outside `parallel` there is no journal: the host suspends the script where it stands.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, Map, NativeCallContext, Position as RhaiPosition};

use crate::current::{with_host, with_run};
use crate::error::{self, Raised};
use crate::{Host, Position, Refusal, Ticket, ToolCall, json, library};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;
/// The value of a branch, a group or a call, or what it threw.
type Outcome = std::result::Result<Dynamic, Raised>;

/// Branches of one `parallel` that are under way at once, where the script says nothing, and at most.
const LIMIT: i64 = 16;
const LIMIT_MAX: usize = 64;
/// Items of a range that `parallel_map` takes.
const RANGE: i64 = 1_000_000;
/// How deep `parallel` may be nested.
const NESTING: usize = 16;
/// How often `retry` may try.
const ATTEMPTS: i64 = 100;
/// Seconds before the second attempt of `retry`; doubled before each further one, up to the second number.
const BACKOFF: (f64, f64) = (0.1, 10.0);
/// How deep captured variables may nest.
const DEPTH: usize = 100;

thread_local! {
    /// Why the code that runs now is being left; nothing has an effect any more until whoever it is meant for has taken it.
    static LEAVING: Cell<Option<Leaving>> = const { Cell::new(None) };
}

/// Why running code is left, past every `try`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// The branch waits for an answer.
    Waiting,
    /// The clock of a `timeout` is over, by its place in [`Tasks::clocks`] or in the journal of the branch.
    Clock(usize),
    /// The host ends the script.
    Stopped,
}

/// Whether the code that runs now is being left. Rhai's natives make errors of their closures catchable that are not; so this is
/// asked at every operation.
pub(crate) fn is_leaving() -> bool {
    LEAVING.get().is_some()
}

fn leave(why: Leaving) -> Box<EvalAltResult> {
    LEAVING.set(Some(why));
    left()
}

fn left() -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, RhaiPosition::NONE).into()
}

fn stopped(refusal: Refusal) -> Box<EvalAltResult> {
    match refusal {
        Refusal::Stop => leave(Leaving::Stopped),
        Refusal::Failed(message) => error::runtime(message),
    }
}

/// All that is under way in a run.
#[derive(Default)]
pub(crate) struct Tasks {
    /// What runs now: a branch, or the script outside all.
    current: Option<BranchId>,
    /// The clocks of the `timeout`s that the script outside all is in, outermost first.
    clocks: Vec<Clock>,
    branches: HashMap<BranchId, Branch>,
    groups: HashMap<GroupId, Group>,
    /// Whom an answer is for.
    waiting: HashMap<Ticket, Waiting>,
    /// Branches to run next; some may be gone by then.
    ready: VecDeque<BranchId>,
    /// Branches whose call has not been sent, as enough were under way.
    unsent: VecDeque<BranchId>,
    last_id: u32,
}

type BranchId = u32;
type GroupId = u32;

struct Clock {
    ticket: Ticket,
    over: bool,
}

enum Waiting {
    Main,
    MainClock,
    Branch(BranchId),
    BranchClock(BranchId, usize),
}

/// One function of a `parallel`.
struct Branch {
    group: GroupId,
    /// Its place in the group.
    index: usize,
    function: FnPtr,
    argument: Option<Dynamic>,
    journal: Vec<Entry>,
    /// How far the run that goes on now has come in the journal.
    cursor: usize,
    /// Lines printed by this run, and by the runs before.
    lines: usize,
    lines_told: usize,
    /// Places in the journal of the clocks that the run is in, outermost first.
    clocks: Vec<usize>,
}

/// One `parallel`.
struct Group {
    parent: Option<BranchId>,
    nesting: usize,
    settled: bool,
    /// Branches that were not started yet, the next one last.
    pending: Vec<(FnPtr, Option<Dynamic>)>,
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    /// Set once it is over.
    outcome: Option<Outcome>,
}

/// One thing that a branch did.
enum Entry {
    /// A call or a sleep.
    Effect {
        fingerprint: u64,
        state: State,
    },
    /// A `parallel` in the branch.
    Group(GroupId),
    GroupDone(Outcome),
    /// A search, the time, a random number: known at once.
    Known(Outcome),
    /// A `timeout` began.
    Clock {
        ticket: Ticket,
        state: ClockState,
    },
    /// Here a clock was over; its place in the journal.
    TimedOut(usize),
}

enum State {
    Unsent(Effect),
    Sent(Ticket),
    Done(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClockState {
    Running,
    Over,
    Ended,
}

/// Something that takes its time.
pub(crate) enum Effect {
    Call { server: String, tool: String, by_name: bool, arguments: String, position: Option<Position> },
    Sleep(f64),
}

impl Effect {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Call { server, tool, by_name, arguments, .. } => (server, tool, by_name, arguments).hash(&mut hasher),
            Self::Sleep(seconds) => seconds.to_bits().hash(&mut hasher),
        }
        hasher.finish()
    }

    fn start(&self) -> std::result::Result<Option<Ticket>, Refusal> {
        let start = |host: &dyn Host| match self {
            Self::Call { server, tool, by_name, arguments, position } => {
                host.start_call(ToolCall { server, tool, by_name: *by_name, arguments, position: *position })
            }
            Self::Sleep(seconds) => host.start_clock(*seconds).map(Some),
        };
        with_host(|host| Some(start(host))).unwrap_or(Err(Refusal::Stop))
    }
}

/// Changes the tasks of the run.
fn tasks<T>(f: impl FnOnce(&mut Tasks) -> T) -> Result<T> {
    with_run(|run| f(&mut run.tasks)).ok_or_else(|| error::runtime("no script is running"))
}

/// Whether a branch of a `parallel` is running.
pub(crate) fn in_branch() -> bool {
    with_run(|run| run.tasks.current.is_some()).unwrap_or(false)
}

/// Forgets what an earlier run of this thread left.
pub(crate) fn begin() {
    LEAVING.set(None);
}

/// Calls a tool: its answer, or what the call throws.
pub(crate) fn call_tool(call: ToolCall<'_>) -> Result<std::result::Result<Dynamic, Raised>> {
    if is_leaving() {
        return Err(left());
    }
    if tasks(|tasks| tasks.current.is_none() && tasks.clocks.is_empty())? {
        // The common case: nothing else is under way, and the host suspends the script here.
        return match with_host(|host| Some(host.call_tool(call))) {
            Some(Ok(text)) => Ok(answer(Ok(text))),
            Some(Err(Refusal::Failed(text))) => Ok(answer(Err(text))),
            Some(Err(Refusal::Stop)) | None => Err(leave(Leaving::Stopped)),
        };
    }
    let ToolCall { server, tool, by_name, arguments, position } = call;
    perform(Effect::Call { server: server.into(), tool: tool.into(), by_name, arguments: arguments.into(), position })
}

fn answer(answer: std::result::Result<String, String>) -> Outcome {
    match answer {
        Ok(text) => json::from_text(&text)
            .map_err(|message| Raised::failure("answer", format!("the answer can't be read: {message}"))),
        Err(text) => Err(Raised::new(json::from_text(&text).unwrap_or_else(|_| text.into()))),
    }
}

/// Waits for `seconds`.
fn sleep(seconds: f64) -> Result<()> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(error::runtime(format!("`sleep` takes seconds from 0 up, such as 0.5; it was given {seconds}")));
    }
    perform(Effect::Sleep(seconds))?.map(drop).map_err(Raised::into_error)
}

/// Microseconds since 1970, recorded.
pub(crate) fn now() -> Result<i64> {
    number(|host| host.now())
}

/// 64 random bits, recorded.
pub(crate) fn random() -> Result<u64> {
    number(|host| host.random().cast_signed()).map(i64::cast_unsigned)
}

fn number(ask: fn(&dyn Host) -> i64) -> Result<i64> {
    let outcome = known(|| Ok(with_host(ask).into()))?;
    Ok(outcome.map_err(Raised::into_error)?.as_int().unwrap_or_default())
}

/// Finds tools, recorded.
pub(crate) fn search(query: &str, detail_level: &str) -> Result<Dynamic> {
    known(|| {
        with_host(|host| Some(host.search_tools(query, detail_level)))
            .unwrap_or_else(|| Err("no script is running".into()))
            .and_then(|text| json::from_text(&text))
            .map_err(|message| Raised::failure("runtime", message))
    })?
    .map_err(Raised::into_error)
}

/// Prints a line; a line that an earlier run of the same branch printed is not printed again.
pub(crate) fn log(line: &str) {
    if is_leaving() {
        return;
    }
    let is_new = with_run(|run| {
        let tasks = &mut run.tasks;
        let Some(branch) = tasks.current.and_then(|id| tasks.branches.get_mut(&id)) else { return true };
        branch.lines += 1;
        let is_new = branch.lines > branch.lines_told;
        branch.lines_told = branch.lines_told.max(branch.lines);
        is_new
    });
    if is_new != Some(false) {
        with_host(|host| host.log(line));
    }
}

/// Something that the host answers at once.
fn known(ask: impl FnOnce() -> Outcome) -> Result<Outcome> {
    match next_entry(|entry| match entry {
        Entry::Known(outcome) => Some(outcome.clone()),
        _ => None,
    })? {
        Next::Main => Ok(ask()),
        Next::Done(outcome) => Ok(outcome),
        Next::New(branch) => {
            let outcome = ask();
            tasks(|tasks| tasks.record(branch, Entry::Known(outcome.clone())))?;
            Ok(outcome)
        }
    }
}

/// What stands at the branch's place in its journal.
enum Next<T> {
    /// The script outside all branches, which has no journal.
    Main,
    Done(T),
    /// Nothing yet.
    New(BranchId),
}

/// Takes the journal's next entry; `read` gives nothing for an entry of another kind than the script now asks for.
fn next_entry<T>(read: impl FnOnce(&Entry) -> Option<T>) -> Result<Next<T>> {
    enum Found<T> {
        Next(Next<T>),
        TimedOut(usize),
        Other,
    }
    if is_leaving() {
        return Err(left());
    }
    let found = tasks(|tasks| {
        let Some(id) = tasks.current else {
            return match tasks.clocks.iter().position(|clock| clock.over) {
                Some(clock) => Found::TimedOut(clock),
                None => Found::Next(Next::Main),
            };
        };
        let Some(branch) = tasks.branches.get_mut(&id) else { return Found::Other };
        let place = branch.cursor;
        branch.cursor += 1;
        match branch.journal.get(place) {
            Some(Entry::TimedOut(clock)) => Found::TimedOut(*clock),
            Some(entry) => read(entry).map_or(Found::Other, |value| Found::Next(Next::Done(value))),
            None => {
                let over = |place: &&usize| {
                    matches!(branch.journal.get(**place), Some(Entry::Clock { state: ClockState::Over, .. }))
                };
                match branch.clocks.iter().find(over).copied() {
                    Some(clock) => {
                        branch.journal.push(Entry::TimedOut(clock));
                        Found::TimedOut(clock)
                    }
                    None => Found::Next(Next::New(id)),
                }
            }
        }
    })?;
    match found {
        Found::Next(next) => Ok(next),
        Found::TimedOut(clock) => Err(leave(Leaving::Clock(clock))),
        Found::Other => Err(error::internal("a branch of `parallel` did not do the same when it was run again")),
    }
}

fn perform(effect: Effect) -> Result<Outcome> {
    let fingerprint = effect.fingerprint();
    let next = next_entry(|entry| match entry {
        Entry::Effect { fingerprint: of_entry, state: State::Done(outcome) } if *of_entry == fingerprint => {
            Some(outcome.clone())
        }
        _ => None,
    })?;
    match next {
        Next::Done(outcome) => Ok(outcome),
        Next::Main => {
            let Some(ticket) = effect.start().map_err(stopped)? else {
                return Err(error::internal("a call could not be started"));
            };
            tasks(|tasks| tasks.waiting.insert(ticket, Waiting::Main))?;
            loop {
                match deliver()? {
                    None => {}
                    Some(ForMain::Answer(outcome)) => return Ok(outcome),
                    Some(ForMain::Clock(clock)) => {
                        tasks(|tasks| tasks.waiting.remove(&ticket))?;
                        cancel(ticket);
                        return Err(leave(Leaving::Clock(clock)));
                    }
                }
            }
        }
        Next::New(branch) => {
            tasks(|tasks| {
                tasks.record(branch, Entry::Effect { fingerprint, state: State::Unsent(effect) });
                tasks.unsent.push_back(branch);
            })?;
            send()?;
            Err(leave(Leaving::Waiting))
        }
    }
}

/// Starts what has not been sent, as far as that goes.
fn send() -> Result<()> {
    loop {
        // Taken out, as the host may not be asked while the tasks are held.
        let unsent = tasks(|tasks| {
            let id = tasks.unsent.pop_front()?;
            let entry = tasks.branches.get_mut(&id).and_then(|branch| branch.journal.last_mut());
            match entry {
                Some(Entry::Effect { state, .. }) if matches!(state, State::Unsent(_)) => {
                    Some((id, Some(std::mem::replace(state, State::Sent(Ticket::MAX)))))
                }
                _ => Some((id, None)), // abandoned in the meantime
            }
        })?;
        let Some((id, state)) = unsent else { return Ok(()) };
        let Some(State::Unsent(effect)) = state else { continue };
        let ticket = effect.start().map_err(stopped)?;
        tasks(|tasks| {
            let state = if let Some(ticket) = ticket {
                tasks.waiting.insert(ticket, Waiting::Branch(id));
                State::Sent(ticket)
            } else {
                tasks.unsent.push_front(id);
                State::Unsent(effect)
            };
            if let Some(Entry::Effect { state: place, .. }) =
                tasks.branches.get_mut(&id).and_then(|branch| branch.journal.last_mut())
            {
                *place = state;
            }
        })?;
        if ticket.is_none() {
            return Ok(());
        }
    }
}

fn cancel(ticket: Ticket) {
    with_host(|host| host.cancel(ticket));
}

/// What the script outside all branches waits for.
enum ForMain {
    Answer(Outcome),
    /// The clock of a `timeout` around it is over, by its place.
    Clock(usize),
}

/// Waits for one answer and gives it to the branch that it is for.
fn deliver() -> Result<Option<ForMain>> {
    let (ticket, text) = with_host(|host| Some(host.wait_any())).unwrap_or(Err(Refusal::Stop)).map_err(stopped)?;
    let outcome = answer(text);
    let (found, cancelled) = tasks(|tasks| match tasks.waiting.remove(&ticket) {
        Some(Waiting::Main) => (Some(ForMain::Answer(outcome)), Vec::new()),
        Some(Waiting::MainClock) => {
            let place = tasks.clocks.iter().position(|clock| clock.ticket == ticket);
            if let Some(place) = place {
                tasks.clocks[place].over = true;
            }
            (place.map(ForMain::Clock), Vec::new())
        }
        Some(Waiting::Branch(id)) => {
            if let Some(Entry::Effect { state, .. }) =
                tasks.branches.get_mut(&id).and_then(|branch| branch.journal.last_mut())
            {
                *state = State::Done(outcome);
                tasks.ready.push_back(id);
            }
            (None, Vec::new())
        }
        Some(Waiting::BranchClock(id, place)) => (None, tasks.clock_is_over(id, place)),
        None => (None, Vec::new()),
    })?;
    cancelled.into_iter().for_each(cancel);
    Ok(found)
}

impl Tasks {
    fn record(&mut self, branch: BranchId, entry: Entry) {
        if let Some(branch) = self.branches.get_mut(&branch) {
            branch.journal.push(entry);
        }
    }

    /// A clock in a branch is over: what the branch waits for is given up. Returns what is to be cancelled.
    fn clock_is_over(&mut self, id: BranchId, place: usize) -> Vec<Ticket> {
        let Some(branch) = self.branches.get_mut(&id) else { return Vec::new() };
        if let Some(Entry::Clock { state, .. }) = branch.journal.get_mut(place) {
            *state = ClockState::Over;
        }
        let Some(last) = branch.journal.last_mut() else { return Vec::new() };
        let group = match last {
            Entry::Group(group) => Some(*group),
            _ => None,
        };
        let cancelled = match last {
            Entry::Effect { state: State::Sent(ticket), .. } => vec![*ticket],
            Entry::Effect { state: State::Unsent(_), .. } | Entry::Group(_) => Vec::new(),
            _ => return Vec::new(), // it has its answer, and will be told by its next effect
        };
        *last = Entry::TimedOut(place);
        self.ready.push_back(id);
        for ticket in &cancelled {
            self.waiting.remove(ticket);
        }
        cancelled.into_iter().chain(group.into_iter().flat_map(|group| self.abandon(group))).collect()
    }

    /// Makes a group and the first of its branches.
    fn begin(&mut self, functions: Functions, limit: usize, settled: bool) -> std::result::Result<GroupId, String> {
        let parent = self.current;
        let nesting = parent
            .and_then(|id| self.branches.get(&id))
            .and_then(|branch| self.groups.get(&branch.group))
            .map_or(0, |group| group.nesting + 1);
        if nesting > NESTING {
            return Err(format!("`parallel` is nested more than {NESTING} levels deep"));
        }
        let count = functions.len();
        let pending = functions.into_iter().rev().collect();
        let group = Group {
            parent,
            nesting,
            settled,
            pending,
            outcomes: std::iter::repeat_with(|| None).take(count).collect(),
            missing: count,
            outcome: (count == 0).then(|| Ok(Array::new().into())),
        };
        self.last_id += 1;
        let id = self.last_id;
        self.groups.insert(id, group);
        (0..limit).for_each(|_| self.start_next(id));
        Ok(id)
    }

    fn start_next(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let index = group.outcomes.len() - group.pending.len();
        let Some((function, argument)) = group.pending.pop() else { return };
        self.last_id += 1;
        let branch = Branch {
            group: id,
            index,
            function,
            argument,
            journal: Vec::new(),
            cursor: 0,
            lines: 0,
            lines_told: 0,
            clocks: Vec::new(),
        };
        self.branches.insert(self.last_id, branch);
        self.ready.push_back(self.last_id);
    }

    /// A branch is over, and with it perhaps its group, and then whoever waits for that. Returns what is to be cancelled.
    fn finish(&mut self, id: BranchId, outcome: Outcome) -> Vec<Ticket> {
        let Some(branch) = self.branches.get(&id) else { return Vec::new() };
        let (group_id, index) = (branch.group, branch.index);
        let mut cancelled = self.remove(id);
        let Some(group) = self.groups.get_mut(&group_id) else { return cancelled };
        match outcome {
            Err(raised) if !group.settled => {
                group.outcome = Some(Err(raised));
                cancelled.extend(self.abandon_branches(group_id));
            }
            outcome => {
                group.outcomes[index] = Some(outcome);
                group.missing -= 1;
                if group.missing > 0 {
                    self.start_next(group_id);
                    return cancelled;
                }
                let (settled, outcomes) = (group.settled, std::mem::take(&mut group.outcomes));
                let values = outcomes.into_iter().flatten();
                let values =
                    if settled { values.map(settled_value).collect::<Array>() } else { values.flatten().collect() };
                group.outcome = Some(Ok(values.into()));
            }
        }
        self.wake_parent(group_id);
        cancelled
    }

    /// Gives the outcome of a group to the branch that waits for it; the script outside all branches looks for itself.
    fn wake_parent(&mut self, id: GroupId) {
        let Some(parent) = self.groups.get(&id).and_then(|group| group.parent) else { return };
        let Some(outcome) = self.groups.remove(&id).and_then(|group| group.outcome) else { return };
        if let Some(entry) = self.branches.get_mut(&parent).and_then(|branch| branch.journal.last_mut()) {
            *entry = Entry::GroupDone(outcome);
            self.ready.push_back(parent);
        }
    }

    /// Removes a branch and all that goes on in it. Returns what is to be cancelled.
    fn remove(&mut self, id: BranchId) -> Vec<Ticket> {
        let Some(branch) = self.branches.remove(&id) else { return Vec::new() };
        let mut cancelled = Vec::new();
        for entry in branch.journal {
            match entry {
                Entry::Effect { state: State::Sent(ticket), .. }
                | Entry::Clock { ticket, state: ClockState::Running } => {
                    self.waiting.remove(&ticket);
                    cancelled.push(ticket);
                }
                Entry::Group(group) => cancelled.extend(self.abandon(group)),
                _ => {}
            }
        }
        cancelled
    }

    fn abandon(&mut self, id: GroupId) -> Vec<Ticket> {
        let cancelled = self.abandon_branches(id);
        self.groups.remove(&id);
        cancelled
    }

    fn abandon_branches(&mut self, id: GroupId) -> Vec<Ticket> {
        if let Some(group) = self.groups.get_mut(&id) {
            group.pending.clear();
        }
        let of_group = self.branches.iter().filter(|(_, branch)| branch.group == id);
        let mut branches: Vec<BranchId> = of_group.map(|(id, _)| *id).collect();
        branches.sort_unstable(); // in the order in which they began
        branches.into_iter().flat_map(|id| self.remove(id)).collect()
    }
}

fn settled_value(outcome: Outcome) -> Dynamic {
    let (ok, key, value) = match outcome {
        Ok(value) => (true, "value", value),
        Err(raised) => (false, "error", raised.value),
    };
    let entries = [("ok", Dynamic::from(ok)), (key, value)];
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<Map>().into()
}

/// The functions of a `parallel`, each with what it is called with.
type Functions = Vec<(FnPtr, Option<Dynamic>)>;

/// Runs the functions as branches; their values in order, or the first error.
fn run(context: &NativeCallContext, functions: Functions, limit: i64, settled: bool) -> Result<Dynamic> {
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        let name = context.fn_name();
        error::runtime(format!(
            "the limit of `{name}` is how many run at once, from 1 to {LIMIT_MAX}; it was given {limit}"
        ))
    })?;
    let next = next_entry(|entry| match entry {
        Entry::GroupDone(outcome) => Some(outcome.clone()),
        _ => None,
    })?;
    match next {
        Next::Done(outcome) => outcome.map(|value| detached(&value, 0, false)).map_err(Raised::into_error),
        Next::Main => {
            let group = tasks(|tasks| tasks.begin(functions, limit, settled))?.map_err(error::runtime)?;
            drive(context, group)?.map_err(Raised::into_error)
        }
        Next::New(branch) => {
            let group = tasks(|tasks| tasks.begin(functions, limit, settled))?.map_err(error::runtime)?;
            tasks(|tasks| {
                tasks.record(branch, Entry::Group(group));
                if tasks.groups.get(&group).is_some_and(|group| group.outcome.is_some()) {
                    tasks.wake_parent(group); // without branches, it is over
                }
            })?;
            Err(leave(Leaving::Waiting))
        }
    }
}

/// Runs branches and waits for answers until the group is over.
fn drive(context: &NativeCallContext, group: GroupId) -> Result<Outcome> {
    loop {
        while let Some(id) = tasks(|tasks| tasks.ready.pop_front())? {
            run_branch(context, id)?;
        }
        let outcome = tasks(|tasks| tasks.groups.get_mut(&group).and_then(|group| group.outcome.take()))?;
        if let Some(outcome) = outcome {
            tasks(|tasks| tasks.groups.remove(&group))?;
            return Ok(outcome);
        }
        send()?;
        if let Some(ForMain::Clock(clock)) = deliver()? {
            tasks(|tasks| tasks.abandon(group))?.into_iter().for_each(cancel);
            return Err(leave(Leaving::Clock(clock)));
        }
    }
}

fn run_branch(context: &NativeCallContext, id: BranchId) -> Result<()> {
    let work = tasks(|tasks| {
        let branch = tasks.branches.get_mut(&id)?; // or it was abandoned
        (branch.cursor, branch.lines) = (0, 0);
        branch.clocks.clear();
        tasks.current = Some(id);
        Some((branch.function.clone(), branch.argument.clone()))
    })?;
    let Some((function, argument)) = work else { return Ok(()) };
    let result = function.call_raw(context, None, Vec::from_iter(argument));
    let leaving = LEAVING.get();
    // While the branch is the one that runs: what an error says depends on that.
    let outcome = match result {
        Err(error) if leaving.is_none() && !error::is_final(&error) => Ok(Err(Raised::from_error(*error))),
        Err(error) => Err(error),
        Ok(value) => Ok(Ok(detached(&value, 0, false))),
    };
    tasks(|tasks| tasks.current = None)?;
    match (leaving, outcome) {
        (Some(Leaving::Waiting), _) => {
            LEAVING.set(None);
            Ok(())
        }
        (Some(Leaving::Clock(_)), _) => Err(error::internal("a clock was over outside its `timeout`")),
        (Some(Leaving::Stopped), _) => Err(left()),
        (None, Err(error)) => Err(error),
        (None, Ok(outcome)) => {
            tasks(|tasks| tasks.finish(id, outcome))?.into_iter().for_each(cancel);
            Ok(())
        }
    }
}

/// The value without anything that it shares with other variables; `constant`: with captured variables that can't be assigned to.
///
/// A branch may be run several times, and others read the same variables, so that nothing it writes to them could be right.
fn detached(value: &Dynamic, depth: usize, constant: bool) -> Dynamic {
    if depth > DEPTH {
        return value.clone();
    }
    if let Ok(array) = value.as_array_ref() {
        return array.iter().map(|item| detached(item, depth + 1, constant)).collect::<Array>().into();
    }
    if let Ok(map) = value.as_map_ref() {
        let map: Map = map.iter().map(|(key, item)| (key.clone(), detached(item, depth + 1, constant))).collect();
        return map.into();
    }
    if let Some(function) = value.read_lock::<FnPtr>() {
        return Dynamic::from(detached_function(&function, depth + 1, constant));
    }
    value.flatten_clone()
}

fn detached_function(function: &FnPtr, depth: usize, constant: bool) -> FnPtr {
    let captured: Vec<Dynamic> = function
        .iter_curry()
        .map(|value| {
            let copy = detached(value, depth, constant);
            match (value.is_shared(), constant) {
                (true, true) => copy.into_read_only().into_shared(),
                (true, false) => copy.into_shared(),
                (false, _) => copy,
            }
        })
        .collect();
    let mut function = function.clone();
    function.set_curry(captured);
    function
}

/// The function as a branch calls it.
fn branch_function(context: &NativeCallContext, function: &FnPtr) -> Result<FnPtr> {
    if function.iter_curry().any(Dynamic::is_locked) {
        return Err(EvalAltResult::ErrorDataRace(context.fn_name().to_string(), RhaiPosition::NONE).into());
    }
    Ok(detached_function(function, 0, true))
}

fn functions(context: &NativeCallContext, branches: &Array) -> Result<Functions> {
    let name = context.fn_name();
    let function = |(index, value): (usize, &Dynamic)| match value.read_lock::<FnPtr>() {
        Some(function) => Ok((branch_function(context, &function)?, None)),
        None => Err(error::runtime(format!(
            "`{name}` takes an array of functions, as in `{name}([|| a.x(#{{}}), || b.y(#{{}})])`; its item {index} is no function but {}",
            library::kind(value)
        ))),
    };
    branches.iter().enumerate().map(function).collect()
}

fn calls(context: &NativeCallContext, items: impl IntoIterator<Item = Dynamic>, function: &FnPtr) -> Result<Functions> {
    let function = branch_function(context, function)?;
    Ok(items.into_iter().map(|item| (function.clone(), Some(item))).collect())
}

fn range(items: &Range<i64>) -> Result<impl Iterator<Item = Dynamic> + use<>> {
    if items.end.saturating_sub(items.start) > RANGE {
        return Err(error::runtime(format!("the range {}..{} has more than {RANGE} items", items.start, items.end)));
    }
    Ok(items.clone().map(Dynamic::from))
}

/// Runs `function`; calls that are under way when the seconds are over are cancelled, and an error is thrown.
fn timeout(context: &NativeCallContext, seconds: f64, function: &FnPtr) -> Result<Dynamic> {
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(error::runtime(format!("`timeout` takes seconds over 0, such as 2.5; it was given {seconds}")));
    }
    let start = || {
        let ticket = with_host(|host| Some(host.start_clock(seconds))).unwrap_or(Err(Refusal::Stop));
        ticket.map_err(stopped)
    };
    let next = next_entry(|entry| matches!(entry, Entry::Clock { .. }).then_some(()))?;
    let place = match next {
        Next::Main => {
            let ticket = start()?;
            tasks(|tasks| {
                tasks.waiting.insert(ticket, Waiting::MainClock);
                tasks.clocks.push(Clock { ticket, over: false });
                tasks.clocks.len() - 1
            })?
        }
        Next::Done(()) => tasks(Tasks::enter_clock)?,
        Next::New(id) => {
            let ticket = start()?;
            tasks(|tasks| {
                tasks.record(id, Entry::Clock { ticket, state: ClockState::Running });
                let place = tasks.enter_clock();
                tasks.waiting.insert(ticket, Waiting::BranchClock(id, place));
                place
            })?
        }
    };
    let result = function.call_raw(context, None, []);
    match LEAVING.get() {
        Some(Leaving::Clock(over)) if over == place => {
            LEAVING.set(None);
            end_clock(place)?;
            Err(error::thrown([
                ("kind", "call_timeout".into()),
                ("message", format!("it took longer than the {seconds} s of its `timeout`").into()),
            ]))
        }
        // The branch comes back to it.
        Some(Leaving::Waiting) => Err(left()),
        Some(_) => {
            end_clock(place)?;
            Err(left())
        }
        None => {
            end_clock(place)?;
            result
        }
    }
}

impl Tasks {
    /// The branch enters the `timeout` whose clock is the entry just taken.
    fn enter_clock(&mut self) -> usize {
        let Some(branch) = self.current.and_then(|id| self.branches.get_mut(&id)) else { return 0 };
        let place = branch.cursor - 1;
        branch.clocks.push(place);
        place
    }
}

fn end_clock(place: usize) -> Result<()> {
    let cancelled = tasks(|tasks| {
        let Some(id) = tasks.current else {
            let clock = tasks.clocks.pop().filter(|clock| !clock.over)?;
            tasks.waiting.remove(&clock.ticket);
            return Some(clock.ticket);
        };
        let branch = tasks.branches.get_mut(&id)?;
        branch.clocks.pop();
        let Some(Entry::Clock { ticket, state }) = branch.journal.get_mut(place) else { return None };
        let was = std::mem::replace(state, ClockState::Ended);
        let ticket = Some(*ticket).filter(|_| was == ClockState::Running)?;
        tasks.waiting.remove(&ticket);
        Some(ticket)
    })?;
    cancelled.into_iter().for_each(cancel);
    Ok(())
}

/// Calls `function` until it succeeds, at most `times` times, and waits a while in between; where a server is left alone for a time, until
/// that is over. Errors that the next attempt would meet again are not tried again.
fn retry(context: &NativeCallContext, times: i64, function: &FnPtr) -> Result<Dynamic> {
    if !(1..=ATTEMPTS).contains(&times) {
        return Err(error::runtime(format!(
            "`retry` takes how often to try, from 1 to {ATTEMPTS}; it was given {times}"
        )));
    }
    let mut pause = BACKOFF.0;
    let mut attempt = 1;
    loop {
        let result = function.call_raw(context, None, []);
        if is_leaving() {
            return Err(left());
        }
        match result {
            Err(error) if attempt < times && error::is_passing(&error) => match error::left_alone(&error) {
                Some(alone) if alone.too_late => return Err(error),
                Some(alone) => sleep(alone.seconds.max(pause))?,
                None => sleep(pause)?,
            },
            result => return result,
        }
        attempt += 1;
        pause = (pause * 2.0).min(BACKOFF.1);
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds")]
pub(crate) fn register(engine: &mut Engine) {
    type Context<'a> = NativeCallContext<'a>;
    for (name, settled) in [("parallel", false), ("parallel_settled", true)] {
        engine
            .register_fn(name, move |context: Context, branches: &mut Array| {
                run(&context, functions(&context, branches)?, LIMIT, settled)
            })
            .register_fn(name, move |context: Context, branches: &mut Array, limit: i64| {
                run(&context, functions(&context, branches)?, limit, settled)
            });
    }
    for (name, settled) in [("parallel_map", false), ("parallel_map_settled", true)] {
        engine
            .register_fn(name, move |context: Context, items: Range<i64>, function: FnPtr| {
                run(&context, calls(&context, range(&items)?, &function)?, LIMIT, settled)
            })
            .register_fn(name, move |context: Context, items: Range<i64>, function: FnPtr, limit: i64| {
                run(&context, calls(&context, range(&items)?, &function)?, limit, settled)
            })
            .register_fn(name, move |context: Context, items: &mut Array, function: FnPtr| {
                run(&context, calls(&context, items.iter().cloned(), &function)?, LIMIT, settled)
            })
            .register_fn(name, move |context: Context, items: &mut Array, function: FnPtr, limit: i64| {
                run(&context, calls(&context, items.iter().cloned(), &function)?, limit, settled)
            });
    }
    engine
        .register_fn("sleep", |seconds: i64| sleep(seconds as f64))
        .register_fn("sleep", sleep)
        .register_fn("timeout", |context: Context, seconds: i64, function: FnPtr| {
            timeout(&context, seconds as f64, &function)
        })
        .register_fn("timeout", |context: Context, seconds: f64, function: FnPtr| timeout(&context, seconds, &function))
        .register_fn("retry", |context: Context, times: i64, function: FnPtr| retry(&context, times, &function));
}
