//! The run that this thread is in: its host, its names, and what its words were replaced by.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::{Dynamic, ImmutableString, Position as RhaiPosition, Token};

use crate::Host;
use crate::effects::{self, Tasks};

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
    pub(crate) lines: Vec<Box<str>>,
    pub(crate) servers: Rc<Vec<ImmutableString>>,
    /// The last three tokens, oldest first.
    pub(crate) before: [Token; 3],
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

pub(crate) fn enter(host: Rc<dyn Host>, source: &str, servers: Vec<String>, call_depth: usize) -> RunGuard {
    effects::begin();
    RUN.set(Some(Run {
        host,
        lines: source.split('\n').map(Into::into).collect(),
        servers: Rc::new(servers.into_iter().map(Into::into).collect()),
        before: [Token::EOF, Token::EOF, Token::EOF],
        tasks: Tasks::default(),
        call_depth,
    }));
    RunGuard
}

/// The host of the run; a default where there is none, as while the engine is built.
pub(crate) fn with_host<T: Default>(f: impl FnOnce(&dyn Host) -> T) -> T {
    let host = RUN.with_borrow(|run| run.as_ref().map(|run| Rc::clone(&run.host)));
    host.map_or_else(T::default, |host| f(&*host))
}

pub(crate) fn servers() -> Rc<Vec<ImmutableString>> {
    RUN.with_borrow(|run| run.as_ref().map(|run| Rc::clone(&run.servers)).unwrap_or_default())
}

/// Changes the run's own state, where there is a run.
pub(crate) fn with_run<T>(f: impl FnOnce(&mut Run) -> T) -> Option<T> {
    RUN.with_borrow_mut(|run| run.as_mut().map(f))
}

/// The word and its place as one identifier.
pub(crate) fn mangle(word: &str, line: usize, column: usize) -> String {
    format!("{word}{MARK}{line}:{column}")
}

/// The word and its place, of an identifier that [`mangle`] made.
pub(crate) fn unmangle_name(name: &str) -> Option<(&str, RhaiPosition)> {
    let (word, place) = name.split_once(MARK)?;
    let (line, column) = place.split_once(':')?;
    Some((word, RhaiPosition::new(line.parse().ok()?, column.parse().ok()?)))
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
