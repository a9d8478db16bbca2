//! Values and lists as text for people.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use rhaiway::{FoundTool, Permissions, SearchResults};
use serde_json::Value;

/// A line on stdout, as it is.
pub(super) fn data(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Nobody reads any more, as in `… | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A line on stderr. What scripts and servers say must not control the terminal.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", without_controls(text));
}

/// Control characters, and those that turn the order of others round.
pub(super) fn without_controls(text: &str) -> Cow<'_, str> {
    let controls = |c: char| match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if text.contains(controls) { text.replace(controls, "\u{fffd}").into() } else { text.into() }
}

fn for_stdout(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { without_controls(text) } else { text.into() }
}

/// A string as it is, nothing for `null`, everything else as indented JSON.
pub(super) fn value(value: &Value) -> io::Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) => data(&for_stdout(text)),
        // JSON escapes only some of them.
        other => data(&for_stdout(&format!("{other:#}"))),
    }
}

/// The tools by server, one line a tool, with its parameters as in a call; then what else is told of it.
pub(super) fn tools(found: &SearchResults) -> io::Result<()> {
    let mut servers: BTreeMap<&str, Vec<&FoundTool>> = BTreeMap::new();
    for tool in &found.results {
        servers.entry(&tool.server).or_default().push(tool);
    }
    for (server, tools) in servers {
        for tool in tools {
            let name = || format!("{server}.{}", tool.name);
            data(&without_controls(&tool.signature.clone().unwrap_or_else(name)))?;
            if let Some(description) = &tool.description {
                let lines = if tool.input_schema.is_some() { usize::MAX } else { 1 };
                for line in description.trim().lines().take(lines) {
                    data(&without_controls(&format!("    {line}")))?;
                }
            }
            for (what, schema) in [("takes", &tool.input_schema), ("gives", &tool.output_schema)] {
                if let Some(schema) = schema {
                    let lines = format!("{schema:#}").replace('\n', "\n    ");
                    data(&without_controls(&format!("    {what} {lines}")))?;
                }
            }
        }
    }
    let meta = &found.meta;
    let servers = meta.namespaces.len();
    let plural = if servers == 1 { "" } else { "s" };
    note(&format!("{} of {} tools on {servers} server{plural}", meta.result_count, meta.total_tools));
    Ok(())
}

/// A row a server.
pub(super) fn permissions(permissions: &[Permissions]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL).set_content_arrangement(ContentArrangement::Dynamic);
    // Only where something is said of them, as the table is wide.
    let with_tools = permissions.iter().any(|server| !server.tools.is_empty());
    let header = ["server", "isolation", "files", "network", "environment", "limits", "tools"];
    table.set_header(&header[..if with_tools { 7 } else { 6 }]);
    for server in permissions {
        let lines = |lines: &[String]| if lines.is_empty() { "none".into() } else { lines.join("\n") };
        // What runs elsewhere, or as part of this program, is not ours to say.
        let is_known = !matches!(&*server.isolation, "remote" | "in this process" | "does not start");
        let cell = |text: &[String]| if is_known { without_controls(&lines(text)).into_owned() } else { "-".into() };
        let mut row = vec![
            without_controls(&server.server).into_owned(),
            server.isolation.clone(),
            cell(&server.files),
            cell(&server.network),
            cell(&server.environment),
            cell(&server.limits),
        ];
        if with_tools {
            row.push(if server.tools.is_empty() {
                "all".into()
            } else {
                without_controls(&server.tools.join("\n")).into_owned()
            });
        }
        table.add_row(row);
    }
    data(&table.to_string())
}
