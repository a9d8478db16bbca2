//! Values and lists as text for people.

use std::collections::BTreeMap;

use rhaiway::{FoundTool, SearchResults};
use serde_json::Value;

/// A string as it is, nothing for `null`, everything else as indented JSON.
pub(super) fn value(value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => println!("{text}"),
        other => println!("{other:#}"),
    }
}

/// The tools by server, one line a tool, its parameters as in a call.
pub(super) fn tools(found: &SearchResults) {
    let mut servers: BTreeMap<&str, Vec<&FoundTool>> = BTreeMap::new();
    for tool in &found.results {
        servers.entry(&tool.server).or_default().push(tool);
    }
    for (server, tools) in servers {
        for tool in tools {
            println!("{server}.{}{}", tool.name, tool.input_schema.as_ref().map(parameters).unwrap_or_default());
            if let Some(description) = &tool.description {
                let lines = if tool.input_schema.is_some() { usize::MAX } else { 1 };
                for line in description.trim().lines().take(lines) {
                    println!("    {line}");
                }
            }
        }
    }
    let meta = &found.meta;
    eprintln!("{} of {} tools on {} servers", meta.result_count, meta.total_tools, meta.namespaces.len());
}

/// `(#{number: integer, body?: string})`, a question mark behind what may be left out.
fn parameters(schema: &Value) -> String {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|required| required == name))
    };
    let kind = |schema: &Value| match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|"),
        _ => "any".into(),
    };
    let parameters = schema["properties"].as_object().into_iter().flatten();
    let parameters: Vec<String> = parameters
        .map(|(name, schema)| format!("{name}{}: {}", if required(name) { "" } else { "?" }, kind(schema)))
        .collect();
    if parameters.is_empty() { "()".into() } else { format!("(#{{{}}})", parameters.join(", ")) }
}

/// An error and what caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
