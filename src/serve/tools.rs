//! The tools of code mode as a model sees them: descriptions and schemas.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::Description;
use crate::script::CODE_MODE_PROMPT;

const EXECUTE_CODE: &str = "Runs a script that calls tools of MCP servers, and returns only the script's value. The language and its library:\n\n";

/// What a model needs most, as clients cut descriptions at 2,048 characters, and some refuse more than 1,024.
const EXECUTE_CODE_SHORT: &str = include_str!("execute_code.md");

const SEARCH_TOOLS: &str =
    "Finds the tools that scripts can call, with their parameters. `server.name(#{…})` calls one in `execute_code`.";

const READ_GUIDE: &str = "The whole language and library of the scripts of `execute_code`, with examples.";

/// All tools; a script may take `wall_time` at most.
pub(super) fn tools(wall_time: Duration, description: Description) -> Vec<Tool> {
    let seconds = wall_time.as_secs_f64();
    let execute = json!({
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "The script, in Rhai"},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": seconds, "default": seconds, "description": "Seconds that the script may take"},
        },
        "required": ["code"],
    });
    let nothing = json!({"type": "object", "properties": {}});
    let search = json!({
        "type": "object",
        "properties": {
            "query": {"type": "string", "default": "", "description": "Words to look for; empty for all tools"},
            "detail_level": {"type": "string", "enum": ["names", "descriptions", "full"], "default": "full"},
        },
    });
    let execution = json!({
        "type": "object",
        "properties": {
            "result": {"description": "The script's value; null if it failed"},
            "logs": {"type": "array", "items": {"type": "string"}},
            "error": {"type": ["object", "null"], "description": "Why the script failed: kind, message, line, column, source_line, hint, trace"},
            "execution_time": {"type": "number", "description": "Seconds"},
            "calls": {"type": "array", "items": {"type": "object"}, "description": "Every call of a tool, also of a script that failed"},
            "usage": {"type": "object"},
        },
        "required": ["result", "logs", "error", "execution_time", "calls", "usage"],
    });
    let found = json!({
        "type": "object",
        "properties": {
            "meta": {"type": "object"},
            "results": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["meta", "results"],
    });
    let about_scripts = match description {
        Description::Short => EXECUTE_CODE_SHORT.trim_end().into(),
        Description::Guide => format!("{EXECUTE_CODE}{CODE_MODE_PROMPT}"),
    };
    vec![
        tool("execute_code", about_scripts, execute, Some(execution), ToolAnnotations::new()),
        tool("search_tools", SEARCH_TOOLS, search, Some(found), ToolAnnotations::new().read_only(true)),
        tool("read_guide", READ_GUIDE, nothing, None, ToolAnnotations::new().read_only(true)),
    ]
}

fn tool(
    name: &'static str,
    description: impl Into<Cow<'static, str>>,
    input: Value,
    output: Option<Value>,
    annotations: ToolAnnotations,
) -> Tool {
    let object = |schema: Value| match schema {
        Value::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    };
    let mut tool = Tool::new(name, description, object(input)).with_annotations(annotations);
    tool.output_schema = output.map(object);
    tool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_survive_what_clients_do_to_them() {
        for tool in tools(Duration::from_secs(30), Description::Short) {
            let length = tool.description.unwrap().chars().count();
            assert!(length <= 1024, "{}: {length} characters", tool.name);
        }
    }
}
