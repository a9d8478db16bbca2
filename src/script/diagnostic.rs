//! Why a script failed, as its author needs to see it.

use std::fmt;

use rhaiway_engine::Fault;
use serde::Serialize;
use serde_json::Value;

use super::accounts::Ending;
use crate::tool::{CallRecord, FailureKind};

/// Why a script failed.
///
/// Its `Display` is the message, then the place with the source line and a caret.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// `syntax`, `runtime`, `thrown` (by the script's own `throw`), `limit`, `timeout`, `internal`, or the kind of the call that
    /// failed: `tool`, `protocol`, `connection`, `unknown_tool`, `unknown_server`, `arguments`, `answer`.
    pub kind: String,
    /// One or two sentences.
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
    /// What the script threw, or the failure of the call: `{kind, server, tool, message}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thrown: Option<Value>,
}

/// Kinds of failed calls whose message is only the reason.
const OF_CALLS: [FailureKind; 5] =
    [FailureKind::Tool, FailureKind::Protocol, FailureKind::Connection, FailureKind::Answer, FailureKind::Timeout];

/// Longest part of a source line that a diagnostic carries.
const SOURCE_LINE: usize = 400;

impl Diagnostic {
    fn new(kind: &str, message: String) -> Self {
        Self { kind: kind.into(), message, line: None, column: None, source_line: None, thrown: None }
    }

    pub(super) fn limit(message: String) -> Self {
        Self::new("limit", message)
    }

    pub(super) fn internal(message: String) -> Self {
        Self::new("internal", message)
    }

    pub(super) fn from_fault(fault: Fault, source: &str) -> Self {
        let thrown: Option<Value> = fault.thrown.and_then(|text| serde_json::from_str(&text).ok());
        let message = match &thrown {
            // The reason alone does not say whose it is.
            Some(thrown) if OF_CALLS.iter().any(|kind| kind.as_str() == fault.kind) => {
                let text = |key: &str| thrown.get(key).and_then(Value::as_str).unwrap_or_default();
                format!("`{}.{}` failed: {}", text("server"), text("tool"), fault.message)
            }
            _ => fault.message,
        };
        let place = fault.position.map(|place| (place.line, place.column));
        Self { thrown, ..Self::new(&fault.kind, message) }.at(place, source)
    }

    pub(super) fn from_ending(ending: Ending, waiting: Option<&CallRecord>, source: &str) -> Self {
        let place = match &ending {
            Ending::Limit(_, position) => position.map(|place| (place.line, place.column)),
            _ => waiting.and_then(|call| call.line.zip(call.column)),
        };
        match ending {
            Ending::Limit(message, _) => Self::limit(message),
            Ending::Internal(message) => Self::internal(message),
            Ending::Timeout(limit) => {
                let busy = waiting
                    .map(|call| format!(" while it waited for `{}.{}`", call.server, call.tool))
                    .unwrap_or_default();
                Self::new(
                    "timeout",
                    format!("the script took longer than the limit of {} s (`wall_time`){busy}", limit.as_secs_f64()),
                )
            }
        }
        .at(place, source)
    }

    fn at(mut self, place: Option<(u32, u32)>, source: &str) -> Self {
        if let Some((line, column)) = place {
            self.line = Some(line);
            self.column = Some(column);
            let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
            self.source_line = source.lines().nth(index).map(|line| line.chars().take(SOURCE_LINE).collect());
        }
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        let (Some(line), Some(column)) = (self.line, self.column) else { return Ok(()) };
        write!(f, "\n  --> line {line}, column {column}")?;
        if let Some(source) = &self.source_line {
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
        Ok(())
    }
}
