//! Plain data about tools: what a server offers, what a call answers, how it fails. Knows neither scripts nor sessions.

mod digest;
mod digits;
mod repeated;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub(crate) use digest::{DIGEST, LONG_DIGEST, digest_at_end, digest_of};
pub(crate) use digits::{Digits, WithDigits};

/// From so many bytes on, an answer is read elsewhere than where answers of others wait.
const LARGE: usize = 256 << 10;

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
    /// How it runs, such as `{"taskSupport": "required"}`, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Value>,
}

impl Tool {
    /// Reads one entry of a server's list. Odd entries are kept as far as they can be: only a tool without a name is none.
    pub(crate) fn from_json(mut entry: Value) -> Result<Self, String> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(String::from);
        let name = text("name").filter(|name| !name.is_empty()).ok_or("it has no name")?;
        let (title, description) = (text("title"), text("description"));
        let mut object = |key: &str| entry.get_mut(key).map(Value::take).filter(Value::is_object);
        let schema = |mut schema: Value| {
            mend_schema(&mut schema);
            schema
        };
        Ok(Self {
            name,
            title,
            description,
            input_schema: object("inputSchema").map_or_else(|| serde_json::json!({"type": "object"}), schema),
            output_schema: object("outputSchema").map(schema),
            annotations: object("annotations"),
            execution: object("execution"),
        })
    }

    /// Whether `FastMCP` puts what it gives in an object with `result`, as answers have to be objects.
    pub(crate) fn wraps_result(&self) -> bool {
        self.output_schema.as_ref().is_some_and(|schema| schema["x-fastmcp-wrap-result"] == true)
    }

    /// Whether it can only be called as a task (protocol 2025-11-25).
    pub(crate) fn runs_as_task(&self) -> bool {
        self.execution.as_ref().is_some_and(|execution| execution["taskSupport"] == "required")
    }
}

/// Keywords whose values are objects of schemas.
const OBJECTS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// Makes objects of empty lists, as PHP writes both alike, and takes out keywords that are `null`, as Go writes those that are not set.
fn mend_schema(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            keywords.retain(|keyword, value| !value.is_null() || matches!(&**keyword, "default" | "const" | "example"));
            for (keyword, value) in keywords {
                if OBJECTS.contains(&&**keyword) && value.as_array().is_some_and(Vec::is_empty) {
                    *value = Value::Object(Map::new());
                }
                // What stands in these is data, whatever it looks like.
                if !matches!(&**keyword, "default" | "const" | "enum" | "example" | "examples") {
                    mend_schema(value);
                }
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(mend_schema),
        _ => {}
    }
}

/// What a tool answered ([MCP, tool result](https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result)), kept as
/// the JSON text that the server sent.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ToolAnswer {
    #[serde(default, deserialize_with = "lenient_blocks")]
    content: Vec<Box<RawValue>>,
    #[serde(default, rename = "structuredContent")]
    structured: Option<Box<RawValue>>,
    #[serde(default, rename = "_meta")]
    meta: Option<Box<RawValue>>,
    #[serde(default, rename = "isError", deserialize_with = "lenient_flag")]
    is_error: bool,
    /// `input_required` where the server wants something before it goes on (protocol 2026-07-28).
    #[serde(default, rename = "resultType")]
    pub(crate) result_type: Option<String>,
    /// What its server's sandbox had to do with a failure, for the end of its message.
    #[serde(skip)]
    pub(crate) denied: String,
}

/// Whether something is true, as servers write it: also as a number, or as text.
fn lenient_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let found = Value::deserialize(deserializer)?;
    let flag = match &found {
        Value::Bool(on) => Some(*on),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => match &*text.to_lowercase() {
            "true" | "1" => Some(true),
            "" | "false" | "0" => Some(false),
            _ => None,
        },
        Value::Null => Some(false),
        Value::Array(_) | Value::Object(_) => None,
    };
    flag.ok_or_else(|| serde::de::Error::custom("`isError` is neither `true` nor `false`"))
}

/// The blocks of an answer: one that stands by itself is one.
fn lenient_blocks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    let given = Box::<RawValue>::deserialize(deserializer)?;
    let text = given.get().trim_start();
    if text.starts_with('{') && !text[1..].trim_start().starts_with('}') {
        return Ok(vec![given]);
    }
    let mut reader = serde_json::Deserializer::from_str(given.get());
    lenient_list(&mut reader).map_err(|error| {
        let told = error.to_string();
        let told = told.split(" at line").next().unwrap_or_default();
        serde::de::Error::custom(told)
    })
}

/// A list, for which servers also write `null`, or `{}`, where it is empty.
pub(crate) fn lenient_list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    struct List<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a sequence")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(list)
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            match entries.next_key::<String>()? {
                None => Ok(Vec::new()),
                Some(_) => Err(serde::de::Error::invalid_type(serde::de::Unexpected::Map, &self)),
            }
        }
    }
    deserializer.deserialize_any(List(std::marker::PhantomData))
}

/// The part of a content block that decides how it reaches a script.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default)]
    text: Option<String>,
}

/// What a tool says of its failure, and what it sent beside the words.
pub(crate) struct ToolFault {
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl ToolAnswer {
    /// Whether the tool says that it failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// Content blocks: text, images, audio, resources.
    #[must_use]
    pub fn content(&self) -> Vec<Value> {
        self.content.iter().filter_map(|block| serde_json::from_str(block.get()).ok()).collect()
    }

    /// The structured answer, if there is one.
    #[must_use]
    pub fn structured(&self) -> Option<Value> {
        self.structured
            .as_ref()
            .and_then(|json| serde_json::from_str(json.get()).ok())
            .filter(|value: &Value| !value.is_null())
    }

    /// Whether reading it takes long enough to be done elsewhere.
    pub(crate) fn is_large(&self) -> bool {
        let size = |json: &RawValue| json.get().len();
        self.structured.as_deref().map_or(0, size) + self.content.iter().map(|block| size(block)).sum::<usize>() > LARGE
    }

    /// Whether `FastMCP` says that it put what the tool gave in an object.
    fn is_wrapped(&self) -> bool {
        let meta = self.meta.as_ref().and_then(|meta| serde_json::from_str::<Value>(meta.get()).ok());
        meta.is_some_and(|meta| meta["fastmcp"]["wrap_result"] == true)
    }

    /// The JSON text that a script sees.
    ///
    /// In this order: structured content, out of its wrapper where the tool or the answer says that it has one; one text block that is a
    /// JSON object or array; one text block as a string; `null` where there are no blocks; else all blocks as an array of maps. No block is
    /// lost: those that structured content does not repeat are in its `_content`.
    pub(crate) fn into_script_value(self, is_wrapped: bool) -> Result<String, ToolFault> {
        if self.is_error {
            return Err(self.into_fault());
        }
        let blocks = self.content.as_slice();
        if let Some(structured) = self.structured.as_ref().map(|json| json.get()).filter(|json| *json != "null") {
            let repeated = repeated::repeated(structured, blocks);
            let others = blocks.iter().zip(repeated).filter(|(_, repeated)| !repeated);
            let others: Vec<&str> = others.map(|(block, _)| block.get()).collect();
            let value = unwrapped(structured).filter(|_| is_wrapped || self.is_wrapped()).unwrap_or(structured);
            return Ok(if others.is_empty() { value.into() } else { with_content(value, &others) });
        }
        let text = match blocks {
            [only] => as_text(only),
            _ => None,
        };
        Ok(match (text, blocks) {
            (Some(text), _) => text_value(text),
            (None, []) => "null".into(),
            (None, blocks) => array(blocks.iter().map(|block| block.get())),
        })
    }

    fn into_fault(self) -> ToolFault {
        let texts: Vec<String> = self.content.iter().filter_map(|block| as_text(block)).collect();
        let structured = self.structured();
        let more_than_text = texts.len() < self.content.len() || structured.is_some();
        let data = more_than_text.then(|| serde_json::json!({"content": self.content(), "structured": structured}));
        let message = if texts.is_empty() { "the tool failed and did not say why".into() } else { texts.join("\n") };
        ToolFault { message: format!("{message}{}", self.denied), data }
    }

    /// Looks into what a tool says of its failure for what its sandbox denied.
    pub(crate) fn explain_denial(&mut self, hint: impl Fn(&str) -> String) {
        if self.is_error {
            let texts: Vec<String> = self.content.iter().filter_map(|block| as_text(block)).collect();
            self.denied = hint(&texts.join("\n"));
        }
    }
}

/// The JSON text of a text that a script gets: what it says where it is an object or a list, else the text itself.
pub(crate) fn text_value(text: String) -> String {
    if is_json(&text) { text } else { Value::String(text).to_string() }
}

fn as_text(block: &RawValue) -> Option<String> {
    let block = serde_json::from_str::<Block>(block.get()).ok()?;
    block.text.filter(|_| block.kind == "text")
}

fn array<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// The value in an object that has nothing but `result`.
fn unwrapped(structured: &str) -> Option<&str> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        result: &'a RawValue,
    }
    Some(serde_json::from_str::<Wrapped>(structured).ok()?.result.get())
}

/// Whether a text is meant as JSON: others that a parser would take, such as `10115`, `1.10` or `null`, are texts to whoever wrote them.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn with_content(structured: &str, blocks: &[&str]) -> String {
    let blocks = array(blocks.iter().copied());
    match structured.trim_start().strip_prefix('{') {
        Some(rest) if rest.trim_start() == "}" => format!(r#"{{"_content":{blocks}}}"#),
        Some(rest) => format!(r#"{{"_content":{blocks},{rest}"#),
        None => format!(r#"{{"_content":{blocks},"structured":{structured}}}"#),
    }
}

/// One page of a server's list of tools.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ToolPage {
    /// The tools.
    pub tools: Vec<Tool>,
    /// What to ask for the next page with; none on the last.
    pub next_cursor: Option<String>,
}

/// A call of a tool on its way to the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ToolCall {
    /// Name that the server calls the tool by.
    pub name: String,
    /// The arguments.
    pub arguments: Map<String, Value>,
    /// How to call.
    pub options: CallOptions,
}

impl ToolCall {
    pub(crate) fn new(name: &str, arguments: Map<String, Value>, options: CallOptions) -> Self {
        Self { name: name.into(), arguments, options }
    }
}

/// Settings of one call of a tool.
///
/// ```
/// use std::time::Duration;
/// let options = rhaiway::CallOptions::default()
///     .timeout(Duration::from_secs(5))
///     .on_progress(|progress| println!("{} of {:?}", progress.progress, progress.total));
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long to wait for the answer; for ever where it is not set. The server is told when nobody waits any more.
    pub timeout: Option<Duration>,
    /// Is told how far the call is, where the server says so; on the thread that reads from the server, so that it has to be quick.
    pub on_progress: Option<ProgressSink>,
    /// Is told what the server logs while the call is in flight.
    pub(crate) on_log: Option<LogSink>,
    /// How long to wait for a sign of life from the server: the answer, or a message of progress.
    pub(crate) silence: Option<Duration>,
    /// Strings among the arguments that are sent as integers.
    pub(crate) digits: Option<Arc<Digits>>,
}

impl CallOptions {
    /// Sets how long to wait for the answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets what is told how far the call is.
    #[must_use]
    pub fn on_progress(mut self, tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(tell));
        self
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// How far a request is, as its server says
/// ([MCP, progress](https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/progress)).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Grows from message to message.
    pub progress: f64,
    /// What it grows to, if that is known.
    pub total: Option<f64>,
    /// What is being done.
    pub message: Option<String>,
}

/// Is told how far a request is.
pub type ProgressSink = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Is told each line of a log.
pub(crate) type LogSink = Arc<dyn Fn(&str) + Send + Sync>;

/// A future that is boxed, so that a trait with it can be used as an object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a call of a tool failed. A script catches it as `#{kind, server, tool, message}`.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
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
    /// What the server sent beside the words: `{content, structured}` of a tool that failed, or the data of a JSON-RPC error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Failure {
    /// A failure, such as one of a middleware.
    pub fn new(kind: FailureKind, server: &str, tool: &str, message: impl Into<String>) -> Self {
        Self { kind, server: server.into(), tool: tool.into(), message: message.into(), data: None }
    }
}

/// Kinds of [`Failure`], by the name that a script sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// `tool`: the tool ran and said that it failed (`isError`).
    Tool,
    /// `protocol`: the server answered the request with a JSON-RPC error.
    Protocol,
    /// `connection`: the server could not be reached, or the connection ended before it answered.
    Connection,
    /// `unknown_tool`: the server has no such tool.
    UnknownTool,
    /// `unknown_server`: no such server is configured or allowed.
    UnknownServer,
    /// `arguments`: the arguments can't be sent as they are.
    Arguments,
    /// `answer`: the answer is not of the protocol's form.
    Answer,
    /// `call_timeout`: the call took longer than its own time limit.
    Timeout,
    /// `rejected`: a middleware did not let the request pass.
    Rejected,
}

impl FailureKind {
    const ALL: [Self; 9] = [
        Self::Tool,
        Self::Protocol,
        Self::Connection,
        Self::UnknownTool,
        Self::UnknownServer,
        Self::Arguments,
        Self::Answer,
        Self::Timeout,
        Self::Rejected,
    ];

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
            Self::Timeout => "call_timeout",
            Self::Rejected => "rejected",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Serialize for FailureKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// `ok`: with an answer.
    Ok,
    /// It failed; the name is the kind's.
    Failed(FailureKind),
    /// `limit`: its answer was over a limit, which ended the script.
    Limit,
    /// `cancelled`: the script ended before the answer came.
    Cancelled,
}

impl Outcome {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(kind) => kind.as_str(),
            Self::Limit => "limit",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
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
    /// How it ended.
    pub outcome: Outcome,
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
