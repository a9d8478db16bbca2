//! Plain data about tools: what a server offers, what a call answers, how it fails. Knows neither scripts nor sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A tool as its server describes it ([MCP, tools](https://modelcontextprotocol.io/specification/2025-11-25/server/tools)).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tool {
    /// Name that the server calls it by.
    pub name: String,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the arguments, as sent; `{"type": "object"}` where the server sent none.
    pub input_schema: Value,
    /// JSON Schema of the structured answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Hints such as `readOnlyHint`, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

impl Tool {
    /// Reads one entry of a server's list. Odd entries are kept as far as they can be: only a tool without a name is none.
    pub(crate) fn from_json(mut entry: Value) -> Result<Self, String> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(String::from);
        let name = text("name").filter(|name| !name.is_empty()).ok_or("it has no name")?;
        let (title, description) = (text("title"), text("description"));
        let mut object = |key: &str| entry.get_mut(key).map(Value::take).filter(Value::is_object);
        Ok(Self {
            name,
            title,
            description,
            input_schema: object("inputSchema").unwrap_or_else(|| serde_json::json!({"type": "object"})),
            output_schema: object("outputSchema"),
            annotations: object("annotations"),
        })
    }
}

/// What a tool answered, as the JSON text that the server sent.
#[derive(Debug, Clone, Default, Deserialize)]
#[non_exhaustive]
pub struct ToolAnswer {
    /// Content blocks: text, images, audio, resources.
    #[serde(default)]
    pub content: Vec<Box<RawValue>>,
    /// The structured answer.
    #[serde(default, rename = "structuredContent")]
    pub structured: Option<Box<RawValue>>,
    /// The tool says that it failed.
    #[serde(default, rename = "isError", deserialize_with = "null_is_default")]
    pub is_error: bool,
    /// `input_required` where the server wants something before it goes on (protocol 2026-07-28).
    #[serde(default, rename = "resultType")]
    pub(crate) result_type: Option<String>,
}

fn null_is_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The part of a content block that decides how it reaches a script.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    text: Option<String>,
}

impl ToolAnswer {
    /// The JSON text that a script sees, or what the tool said when it failed.
    ///
    /// In this order: structured content; one text block that is JSON; one text block as a string; `null` where there are no
    /// blocks; else all blocks as an array of maps. Blocks that are not text are never lost: beside structured content they are
    /// in its `_content`.
    ///
    /// # Errors
    /// The tool's own message, where `is_error` is set.
    pub fn into_script_value(self) -> Result<String, String> {
        if self.is_error {
            return Err(self.error_message());
        }
        let text = match self.content.as_slice() {
            [only] => as_text(only),
            _ => None,
        };
        if let Some(structured) =
            self.structured.map(|json| String::from(Box::<str>::from(json))).filter(|json| json != "null")
        {
            let others: Vec<&RawValue> =
                self.content.iter().filter(|block| as_text(block).is_none()).map(|block| &**block).collect();
            return Ok(if others.is_empty() { structured } else { with_content(&structured, &others) });
        }
        Ok(match (text, self.content.as_slice()) {
            (Some(text), _) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => text,
            (Some(text), _) => Value::String(text).to_string(),
            (None, []) => "null".into(),
            (None, blocks) => array(blocks.iter().map(|block| block.get())),
        })
    }

    fn error_message(&self) -> String {
        let texts: Vec<String> = self.content.iter().filter_map(|block| as_text(block)).collect();
        match (texts.is_empty(), &self.structured) {
            (false, _) => texts.join("\n"),
            (true, Some(structured)) => structured.get().into(),
            (true, None) => "the tool failed and did not say why".into(),
        }
    }
}

fn as_text(block: &RawValue) -> Option<String> {
    serde_json::from_str::<Block>(block.get()).ok().filter(|block| block.kind == "text").and_then(|block| block.text)
}

fn array<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn with_content(structured: &str, blocks: &[&RawValue]) -> String {
    let blocks = array(blocks.iter().map(|block| block.get()));
    match structured.trim_start().strip_prefix('{') {
        Some(rest) if rest.trim_start() == "}" => format!(r#"{{"_content":{blocks}}}"#),
        Some(rest) => format!(r#"{{"_content":{blocks},{rest}"#),
        None => format!(r#"{{"_content":{blocks},"structured":{structured}}}"#),
    }
}

/// Why a call of a tool failed. A script catches it as `#{kind, server, tool, message}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("`{server}.{tool}` failed: {message}")]
#[non_exhaustive]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// Script name of the server.
    pub server: String,
    /// The tool, by the name it was called with.
    pub tool: String,
    /// Why.
    pub message: String,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The tool ran and said that it failed (`isError`).
    Tool,
    /// The server answered the request with a JSON-RPC error.
    Protocol,
    /// The server could not be reached, or the connection ended before it answered.
    Connection,
    /// The server has no such tool.
    UnknownTool,
    /// No such server is configured or allowed.
    UnknownServer,
    /// The arguments can't be sent as they are.
    Arguments,
    /// The answer can't be used: too large, or not of the protocol's form.
    Answer,
    /// The call took longer than its own time limit.
    Timeout,
}

impl FailureKind {
    /// The name that a script sees.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Protocol => "protocol",
            Self::Connection => "connection",
            Self::UnknownTool => "unknown_tool",
            Self::UnknownServer => "unknown_server",
            Self::Arguments => "arguments",
            Self::Answer => "answer",
            Self::Timeout => "timeout",
        }
    }
}

/// One call that a script made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CallRecord {
    /// Script name of the server.
    pub server: String,
    /// The tool's own name, or the name in the script where there is no such tool.
    pub tool: String,
    /// Line in the script, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// `ok`, the kind of the failure, or `cancelled` where the script ended before the answer came.
    pub outcome: &'static str,
    /// From the call to its answer.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// Size of the arguments as JSON.
    pub argument_bytes: usize,
    /// Size of the answer as JSON, 0 where there is none.
    pub answer_bytes: usize,
}

pub(crate) fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

/// How much a search says about each tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Detail {
    /// Only the names.
    Names,
    /// Names and descriptions.
    Descriptions,
    /// Names, descriptions and schemas.
    #[default]
    Full,
}

impl std::str::FromStr for Detail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "names" => Ok(Self::Names),
            "descriptions" => Ok(Self::Descriptions),
            "full" => Ok(Self::Full),
            other => Err(format!("the detail level `{other}` is none of `names`, `descriptions`, `full`")),
        }
    }
}
