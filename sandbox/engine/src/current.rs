//! The run that this thread is in: its host, its names, and what its words were replaced by.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::{Dynamic, EvalContext, ImmutableString, Position as RhaiPosition, Token};

use crate::Host;
use crate::effects::{self, Tasks};
use crate::reader::Replacements;

/// Joins a word and its position; no word in a source can contain it.
const MARK: char = '\u{1}';

/// A server in a script.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) ImmutableString);

impl Server {
    pub(crate) fn label(&self) -> String {
        format!("<server {}>", self.0)
    }
}

/// What stands for a value in JSON that is a server.
pub(crate) fn server_label(value: &Dynamic) -> Option<String> {
    value.read_lock::<Server>().map(|server| server.label())
}

pub(crate) struct Run {
    host: Rc<dyn Host>,
    source: Rc<str>,
    servers: Rc<Vec<ImmutableString>>,
    replacements: Replacements,
    /// Names of the variables of `catch`.
    caught: Vec<ImmutableString>,
    pub(crate) tasks: Tasks,
    pub(crate) call_depth: usize,
}

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// Ends the run of this thread when it goes out of scope.
pub(crate) struct RunGuard;

impl Drop for RunGuard {
    fn drop(&mut self) {
        RUN.set(None);
    }
}

pub(crate) fn enter(
    host: Rc<dyn Host>,
    source: &str,
    servers: Rc<Vec<ImmutableString>>,
    replacements: Replacements,
    caught: Vec<ImmutableString>,
    call_depth: usize,
) -> RunGuard {
    effects::begin();
    let source = source.into();
    RUN.set(Some(Run { host, source, servers, replacements, caught, tasks: Tasks::default(), call_depth }));
    RunGuard
}

/// The host of the run; a default where there is none, as while the engine is built.
pub(crate) fn with_host<T: Default>(f: impl FnOnce(&dyn Host) -> T) -> T {
    let host = RUN.with_borrow(|run| run.as_ref().map(|run| Rc::clone(&run.host)));
    host.map_or_else(T::default, |host| f(&*host))
}

pub(crate) fn source() -> Rc<str> {
    RUN.with_borrow(|run| run.as_ref().map_or_else(|| Rc::from(""), |run| Rc::clone(&run.source)))
}

pub(crate) fn servers() -> Rc<Vec<ImmutableString>> {
    RUN.with_borrow(|run| run.as_ref().map(|run| Rc::clone(&run.servers)).unwrap_or_default())
}

/// The token as the reader wants it.
pub(crate) fn replaced(token: Token, position: RhaiPosition) -> Token {
    let replacement = RUN.with_borrow_mut(|run| run.as_mut()?.replacements.take(&token, position));
    replacement.unwrap_or(token)
}

/// Whether a `catch` of the script has a variable of this name.
pub(crate) fn is_caught(name: &str) -> bool {
    RUN.with_borrow(|run| run.as_ref().is_some_and(|run| run.caught.iter().any(|caught| caught == name)))
}

/// The name of a variable's copy, which a closure works on while the variable itself is locked; roots of the same name nest.
pub(crate) fn snapshot_name(name: &str, level: usize) -> String {
    std::iter::once(name).chain(std::iter::repeat_n("\u{1}", level)).collect()
}

pub(crate) fn is_snapshot(name: &str) -> bool {
    name.ends_with(MARK)
}

/// The value of such a name where a closure is made: the variable's, or what the closure around it was given.
pub(crate) fn snapshot(name: &str, context: &EvalContext) -> Option<Dynamic> {
    let scope = context.scope();
    if let Some(value) = scope.get(name.trim_end_matches(MARK)) {
        return Some(value.flatten_clone());
    }
    // A closure around this one only passes it on, and has no such variable yet.
    (!scope.contains(name)).then_some(Dynamic::UNIT)
}

/// Changes the run's own state, where there is a run.
pub(crate) fn with_run<T>(f: impl FnOnce(&mut Run) -> T) -> Option<T> {
    RUN.with_borrow_mut(|run| run.as_mut().map(f))
}

/// The word and its place as one identifier.
pub(crate) fn mangle(word: &str, line: usize, column: usize) -> String {
    format!("{word}{MARK}{line}:{column}")
}

/// Name of the function that changes its first argument, where the word alone names one that only returns.
pub(crate) fn in_place(word: &str) -> String {
    mangle(word, 0, 0)
}

/// The word and its place, of an identifier that [`mangle`] made.
pub(crate) fn unmangle_name(name: &str) -> Option<(&str, RhaiPosition)> {
    let (word, place) = name.split_once(MARK)?;
    let (line, column) = place.split_once(':')?;
    let (line, column) = (line.parse().ok()?, column.parse().ok()?);
    Some((word, if line == 0 { RhaiPosition::NONE } else { RhaiPosition::new(line, column) }))
}

/// A message as the author wrote the words in it.
pub(crate) fn unmangle(message: &str) -> String {
    let mut parts = message.split(MARK);
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
    }
    out
}
