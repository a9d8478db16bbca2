//! Why a script failed, as its author needs to see it.

use std::fmt;

use rhaiway_engine::Fault;
use serde::Serialize;
use serde_json::Value;

use super::accounts::{Ending, Ledger};
use crate::limits::Limits;
use crate::tool::{CallRecord, FailureKind};

/// Why a script failed.
///
/// Its `Display` is the message, then the place with the source line and a caret, the call stack, and the hint.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// What kind of fault.
    pub kind: DiagnosticKind,
    /// One or two sentences; cut at 4 KiB.
    pub message: String,
    /// Line in the script, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// That line of the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_line: Option<String>,
    /// What to write instead; cut at 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Script functions that were under way, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<Frame>,
    /// What the script threw, or the failure of the call: `{kind, server, tool, message}`. Over 64 KiB, a note of its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thrown: Option<Value>,
}

/// A script function that was under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Frame {
    /// Its name; cut at 200 bytes.
    pub function: String,
    /// Line in the script where it was called, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// Kinds of [`Diagnostic`], by their names in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// `syntax`: the script can't be read.
    Syntax,
    /// `runtime`: an operation failed.
    Runtime,
    /// `thrown`: the script's own `throw`.
    Thrown,
    /// `limit`: a limit was hit; the message names it.
    Limit,
    /// `timeout`: the wall clock ran out.
    Timeout,
    /// `internal`: a fault of rhaiway.
    Internal,
    /// A call failed and was not caught; the name is that of its kind.
    Call(FailureKind),
}

impl DiagnosticKind {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Runtime => "runtime",
            Self::Thrown => "thrown",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Call(kind) => kind.as_str(),
        }
    }

    /// By the names that the engine gives its faults.
    fn from_engine(name: &str) -> Self {
        match name {
            "syntax" => Self::Syntax,
            "runtime" => Self::Runtime,
            "thrown" => Self::Thrown,
            "limit" => Self::Limit,
            name => FailureKind::from_name(name).map_or(Self::Internal, Self::Call),
        }
    }
}

impl Serialize for DiagnosticKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Longest part of a source line that a diagnostic carries, in characters.
const SOURCE_LINE: usize = 200;
/// Longest message and hint, longest name of a function, and longest thrown value as JSON, in bytes.
const MESSAGE: usize = 4 << 10;
const FUNCTION: usize = 200;
const THROWN: usize = 64 << 10;

/// The text, or as much of it as may be, and how much that was.
fn cut(what: &str, text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    format!("{}… [cut: the {what} has {} bytes]", &text[..text.floor_char_boundary(max)], text.len())
}

impl Diagnostic {
    fn new(kind: DiagnosticKind, message: String) -> Self {
        let message = cut("message", message, MESSAGE);
        Self { kind, message, line: None, column: None, source_line: None, hint: None, trace: Vec::new(), thrown: None }
    }

    pub(super) fn limit(message: String) -> Self {
        Self::new(DiagnosticKind::Limit, message)
    }

    pub(super) fn internal(message: String) -> Self {
        Self::new(DiagnosticKind::Internal, message)
    }

    pub(super) fn from_fault(fault: Fault, source: &str) -> Self {
        let kind = DiagnosticKind::from_engine(&fault.kind);
        let thrown: Option<Value> = fault.thrown.and_then(|text| match text.len() {
            0..=THROWN => serde_json::from_str(&text).ok(),
            size => Some(Value::String(format!("[cut: the value has {size} bytes]"))),
        });
        let of_call = |key: &str| thrown.as_ref().and_then(|thrown| thrown.get(key)).and_then(Value::as_str);
        let message = match (kind, of_call("server"), of_call("tool")) {
            // The others' messages name server and tool; of these, it is only the reason.
            (
                DiagnosticKind::Call(
                    FailureKind::Tool
                    | FailureKind::Protocol
                    | FailureKind::Connection
                    | FailureKind::Answer
                    | FailureKind::Timeout,
                ),
                Some(server),
                Some(tool),
            ) => format!("`{server}.{tool}` failed: {}", fault.message),
            _ => fault.message,
        };
        let place = fault.position.map(|place| (place.line, place.column));
        let frame = |frame: rhaiway_engine::Frame| Frame {
            function: cut("name", frame.function, FUNCTION),
            line: frame.position.map(|place| place.line),
            column: frame.position.map(|place| place.column),
        };
        let trace = fault.trace.into_iter().map(frame).collect();
        let hint = fault.hint.map(|hint| cut("hint", hint, MESSAGE));
        Self { hint, trace, thrown, ..Self::new(kind, message) }.at(place, source)
    }

    pub(super) fn from_ending(ending: Ending, ledger: &Ledger, source: &str) -> Self {
        // What the script was waiting for, if it was waiting.
        let waiting: Vec<&CallRecord> = ledger.unfinished.iter().filter_map(|place| ledger.calls.get(*place)).collect();
        let place = match &ending {
            Ending::Limit(_, position) => position.map(|place| (place.line, place.column)),
            _ => waiting.first().and_then(|call| call.line.zip(call.column)),
        };
        match ending {
            Ending::Limit(message, _) => Self::limit(message),
            Ending::Internal(message) => Self::internal(message),
            Ending::Timeout(limit) => {
                let mut names: Vec<String> =
                    waiting.iter().take(3).map(|call| format!("`{}.{}`", call.server, call.tool)).collect();
                if waiting.len() > names.len() {
                    names.push(format!("{} more", waiting.len() - names.len()));
                }
                let busy =
                    if names.is_empty() { String::new() } else { format!(" while it waited for {}", names.join(", ")) };
                Self::new(
                    DiagnosticKind::Timeout,
                    format!("the script took longer than the limit of {} s (`wall_time`){busy}", limit.as_secs_f64()),
                )
            }
        }
        .at(place, source)
    }

    /// The limit that was hit.
    pub(super) fn limit_name(&self) -> Option<&'static str> {
        if !matches!(self.kind, DiagnosticKind::Limit | DiagnosticKind::Timeout) {
            return None;
        }
        Limits::NAMES.into_iter().find(|name| self.message.contains(&format!("(`{name}`)")))
    }

    fn at(mut self, place: Option<(u32, u32)>, source: &str) -> Self {
        if let Some((line, column)) = place {
            self.line = Some(line);
            self.column = Some(column);
            let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
            // A place far out in a line that no person wrote is told by its numbers alone.
            let line =
                source.lines().nth(index).filter(|_| usize::try_from(column).is_ok_and(|column| column <= SOURCE_LINE));
            self.source_line = line.map(|line| line.chars().take(SOURCE_LINE).collect());
        }
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "\n  --> line {line}, column {column}")?;
        }
        if let (Some(line), Some(column), Some(source)) = (self.line, self.column, &self.source_line) {
            let width = line.to_string().len();
            let before = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            // Tabs stay tabs, so that the caret stands below its character.
            let indent: String = source
                .chars()
                .chain(std::iter::repeat(' '))
                .take(before)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n{:width$} |\n{line} | {source}\n{:width$} | {indent}^", "", "")?;
        }
        for frame in &self.trace {
            write!(f, "\n  in `{}`", frame.function)?;
            if let (Some(line), Some(column)) = (frame.line, frame.column) {
                write!(f, ", called at line {line}, column {column}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
