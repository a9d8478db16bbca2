//! What ends a script: Rhai's errors turned into a [`Fault`] with a position, and nothing mangled in its message.

use rhai::{Dynamic, EvalAltResult, EvalContext, ImmutableString, Map, Position as RhaiPosition};

use crate::hints::{self, lower};
use crate::reader::{self, Reading};
use crate::{Position, current, json};

/// Kinds that what a script throws may have: those of failed calls, which a script may throw on, and of our own functions.
const KINDS: [&str; 10] = [
    "answer",
    "arguments",
    "call_timeout",
    "connection",
    "protocol",
    "rejected",
    "runtime",
    "tool",
    "unknown_server",
    "unknown_tool",
];

/// Most calls in a trace.
const FRAMES: usize = 16;

/// A call of a script function that was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Name of the function.
    pub function: String,
    /// Where it was called.
    pub position: Option<Position>,
}

/// Why a script ended without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `syntax`, `runtime`, `thrown`, `limit`, `stopped`, or the kind of the failed call (`tool`, `unknown_tool`, …).
    pub kind: String,
    /// One sentence, without the position.
    pub message: String,
    /// Where, if it is known.
    pub position: Option<Position>,
    /// What to write instead.
    pub hint: Option<String>,
    /// Script functions that were under way, innermost first.
    pub trace: Vec<Frame>,
    /// The thrown value as JSON, where the script threw one.
    pub thrown: Option<String>,
}

impl Fault {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), position: None, hint: None, trace: Vec::new(), thrown: None }
    }

    pub(crate) fn from_eval(error: EvalAltResult, reading: &Reading) -> Self {
        let mut frames = Vec::new();
        let mut error = innermost(error, &mut frames);
        let known = position(error.take_position());
        let place = known
            .or_else(|| hints::place(reading, &error))
            .or_else(|| frames.iter().rev().find_map(|frame| frame.position));
        // Rhai's own functions, such as `map`, stand between a closure and its caller.
        frames.retain(|frame| frame.function == CLOSURE || hints::declares_function(reading, &frame.function));
        let (message, hint) = hints::runtime(reading, &error, known);
        let fault = match error {
            EvalAltResult::ErrorRuntime(value, _) => Self::from_thrown(&value),
            EvalAltResult::ErrorTerminated(..) => Self::new("stopped", "the script was stopped"),
            EvalAltResult::ErrorSystem(_, error) => Self::new("internal", error.to_string()),
            EvalAltResult::ErrorVariableNotFound(name, _) => {
                Self::new("runtime", message.unwrap_or_else(|| unknown_name(&name)))
            }
            EvalAltResult::ErrorModuleNotFound(name, _) => Self::new(
                "runtime",
                near_server(&name).map_or_else(
                    || format!("there is no module `{name}`: a script can't import any"),
                    |near| format!("there is no server `{name}`: did you mean `{near}`?"),
                ),
            ),
            EvalAltResult::ErrorStackOverflow(_) => Self::new(
                "limit",
                format!(
                    "functions call each other over {} levels deep (`call_depth`): is there an end to the recursion?",
                    current::with_run(|run| run.call_depth).unwrap_or_default()
                ),
            ),
            other => Self::new("runtime", message.unwrap_or_else(|| lower(&current::unmangle(&other.to_string())))),
        };
        let hint = hint.or(fault.hint);
        Self { position: place, hint, trace: trace(frames), ..fault }
    }

    fn from_thrown(value: &Dynamic) -> Self {
        let text = |key| {
            value.as_map_ref().ok().and_then(|map| map.get(key)?.as_immutable_string_ref().ok().map(|s| s.to_string()))
        };
        // A failed call keeps its kind when a script throws on what it caught.
        let hint = text("hint");
        let kind = text("kind").filter(|kind| KINDS.contains(&kind.as_str()));
        let message = match text("message") {
            Some(message) => message,
            None if value.is_unit() => "the script threw an error without a value".into(),
            None => value
                .clone()
                .into_immutable_string()
                .map_or_else(|_| json::to_text(value).unwrap_or_else(|error| error), |s| s.to_string()),
        };
        Self {
            thrown: json::to_text(value).ok(),
            hint,
            ..Self::new(kind.as_deref().unwrap_or("thrown"), current::unmangle(&message))
        }
    }
}

/// How a function without a name is shown.
const CLOSURE: &str = "closure";

/// The error itself; the calls that were under way go to `frames`, outermost first.
fn innermost(error: EvalAltResult, frames: &mut Vec<Frame>) -> EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(name, _, inner, place) => {
            let function = if name.starts_with("anon$") { CLOSURE.into() } else { name };
            frames.push(Frame { function, position: position(place) });
            innermost(*inner, frames)
        }
        EvalAltResult::ErrorInModule(_, inner, _) => innermost(*inner, frames),
        error => error,
    }
}

/// Innermost first; of a long recursion, the middle is left out.
fn trace(mut frames: Vec<Frame>) -> Vec<Frame> {
    frames.reverse();
    if frames.len() > FRAMES {
        let left_out = frames.len() - FRAMES + 1;
        let note = Frame { function: format!("… {left_out} more"), position: None };
        frames.splice(FRAMES / 2..FRAMES / 2 + left_out, [note]);
    }
    frames
}

pub(crate) fn position(position: RhaiPosition) -> Option<Position> {
    let line = u32::try_from(position.line()?).ok()?;
    Some(Position { line, column: u32::try_from(position.position().unwrap_or(1)).ok()? })
}

fn unknown_name(name: &str) -> String {
    let name = &current::unmangle(name);
    match near_server(name) {
        Some(near) => format!("there is no variable or server `{name}`: did you mean `{near}`?"),
        None => format!("there is no variable or server `{name}`"),
    }
}

fn near_server(name: &str) -> Option<ImmutableString> {
    let servers = current::servers();
    let distances = servers.iter().map(|server| (strsim::damerau_levenshtein(name, server), server));
    let near = distances.filter(|(distance, server)| *distance <= server.chars().count().max(3) / 3 + 1).min();
    near.map(|(_, server)| server.clone())
}

/// Gives what a script caught of Rhai's own errors a kind, and the message that we would show.
pub(crate) fn complete(name: &str, context: &mut EvalContext) {
    let Some(mut map) = context.scope_mut().get_mut(name).and_then(Dynamic::write_lock::<Map>) else { return };
    // Only Rhai names its error so, beside the message.
    let text =
        |key: &str| map.get(key).and_then(|value| value.as_immutable_string_ref().ok().map(|text| text.to_string()));
    let (Some(error), Some(message)) = (text("error"), text("message")) else { return };
    if map.contains_key("kind") || !error.starts_with("Error") {
        return;
    }
    let message = match (error.as_str(), text("variable")) {
        ("ErrorVariableNotFound", Some(name)) => unknown_name(&name),
        _ => current::unmangle(&message),
    };
    map.insert("kind".into(), "runtime".into());
    map.insert("message".into(), message.into());
}

/// An error of one of our own functions, which a script catches as `#{kind, message}`.
pub(crate) fn runtime(message: impl Into<String>) -> Box<EvalAltResult> {
    thrown([("kind", "runtime".into()), ("message", message.into().into())])
}

/// An error that a script catches as a map.
pub(crate) fn thrown<const N: usize>(entries: [(&str, Dynamic); N]) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(map(entries).into(), RhaiPosition::NONE).into()
}

fn map<const N: usize>(entries: [(&str, Dynamic); N]) -> Map {
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// A fault of the engine itself, which no script can catch.
pub(crate) fn internal(message: &str) -> Box<EvalAltResult> {
    EvalAltResult::ErrorSystem("internal".into(), message.into()).into()
}

/// Whether the error ends the script, past every `try`.
pub(crate) fn is_final(error: &EvalAltResult) -> bool {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            is_final(inner)
        }
        error => !error.is_catchable(),
    }
}

/// Whether the same might work a moment later: what a tool or the script itself throws, but no mistake in the script.
pub(crate) fn is_passing(error: &EvalAltResult) -> bool {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => is_passing(inner),
        EvalAltResult::ErrorRuntime(value, _) => {
            let kind = value.as_map_ref().ok().and_then(|map| map.get("kind")?.clone().into_immutable_string().ok());
            kind.is_none_or(|kind| !["arguments", "runtime", "unknown_server", "unknown_tool"].contains(&kind.as_str()))
        }
        _ => false,
    }
}

/// That a call met a server which is left alone for a while.
pub(crate) struct LeftAlone {
    pub(crate) seconds: f64,
    /// Whether that is longer than the script has.
    pub(crate) too_late: bool,
}

/// What the host says of that.
pub(crate) fn left_alone(error: &EvalAltResult) -> Option<LeftAlone> {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => left_alone(inner),
        EvalAltResult::ErrorRuntime(value, _) => {
            let error = value.as_map_ref().ok()?;
            let kind = error.get("kind")?.clone().into_immutable_string().ok()?;
            let data = error.get("data").filter(|_| kind == "connection")?.as_map_ref().ok()?;
            let seconds = data.get("retry_after")?.as_float().ok()?;
            let too_late = data.get("too_late").is_some_and(|late| late.as_bool().unwrap_or(false));
            Some(LeftAlone { seconds, too_late })
        }
        _ => None,
    }
}

/// What a branch or a call threw, to be thrown again.
#[derive(Debug, Clone)]
pub(crate) struct Raised {
    pub(crate) value: Dynamic,
    position: Option<Position>,
    /// Functions that were under way, outermost first.
    frames: Vec<Frame>,
}

impl Raised {
    pub(crate) fn new(value: Dynamic) -> Self {
        Self { value, position: None, frames: Vec::new() }
    }

    pub(crate) fn failure(kind: &str, message: String) -> Self {
        Self::new(map([("kind", kind.into()), ("message", message.into())]).into())
    }

    /// An error of Rhai's own becomes a map like all others.
    pub(crate) fn from_error(error: EvalAltResult) -> Self {
        let mut frames = Vec::new();
        let error = innermost(error, &mut frames);
        let mut place = position(error.position());
        let value = match error {
            EvalAltResult::ErrorRuntime(value, _) => value,
            other => {
                let source = current::source();
                let Fault { message, hint, position, .. } =
                    Fault::from_eval(other, &reader::read(&source, &current::servers()));
                place = place.or(position);
                let mut value = map([("kind", "runtime".into()), ("message", message.into())]);
                value.extend(hint.map(|hint| ("hint".into(), hint.into())));
                value.into()
            }
        };
        Self { value, position: place, frames }
    }

    pub(crate) fn into_error(self) -> Box<EvalAltResult> {
        let error = EvalAltResult::ErrorRuntime(self.value, rhai_position(self.position)).into();
        self.frames.into_iter().rev().fold(error, |inner, Frame { function, position }| {
            EvalAltResult::ErrorInFunctionCall(function, String::new(), inner, rhai_position(position)).into()
        })
    }
}

fn rhai_position(position: Option<Position>) -> RhaiPosition {
    let position = position
        .and_then(|Position { line, column }| Some(RhaiPosition::new(line.try_into().ok()?, column.try_into().ok()?)));
    position.unwrap_or(RhaiPosition::NONE)
}
