//! What there is to call: an immutable snapshot of the servers' tools, by the names that scripts use, what they take, and the search
//! over them. Knows neither how tools are listed nor how they are called.

mod arguments;
mod names;
mod schema;
mod signature;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::{Map, Value};

use arguments::Checker;

pub(crate) use crate::near::{did_you_mean, suggest};
use crate::tool::{Detail, Tool};

/// A server and its name in scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) script_name: String,
}

/// Gives each server a script name; two that come out alike both get one.
pub(crate) fn namespaces(servers: &[String]) -> Vec<Namespace> {
    let script_names = names::of_servers(servers.iter().map(String::as_str));
    servers.iter().cloned().zip(script_names).map(|(name, script_name)| Namespace { name, script_name }).collect()
}

/// The tools of one server, by both of their names.
#[derive(Debug, Default)]
pub(crate) struct ToolSet {
    entries: Vec<Entry>,
    by_script_name: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
    /// Tools that can't be called, by both of their names, with the reason.
    excluded: HashMap<String, String>,
}

/// A tool and its name in scripts.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tool: Tool,
    script_name: String,
    /// What a search looks at, in lower case: the names, and the rest.
    names: String,
    text: String,
    /// The parameters as text, and what holds arguments against them: made when they are first asked for.
    parameters: OnceLock<String>,
    checker: OnceLock<Option<Box<Checker>>>,
}

impl Entry {
    /// The tool as a script calls it: `github.get_issue(#{number: integer})`.
    fn signature(&self, server: &str) -> String {
        let parameters = self.parameters.get_or_init(|| signature::parameters(&self.tool.input_schema));
        format!("{server}.{}{parameters}", self.script_name)
    }

    /// The arguments as they are to be sent to the tool, or why not.
    pub(crate) fn check(&self, server: &str, arguments: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let checker = self.checker.get_or_init(|| Checker::new(&self.tool.input_schema).map(Box::new));
        let Some(checker) = checker else { return Ok(arguments) };
        checker.check(arguments).map_err(|problems| {
            let problems = problems.join("\n  ");
            format!("`{server}.{}` was not called: {problems}\n  {}", self.script_name, self.signature(server))
        })
    }
}

impl ToolSet {
    pub(crate) fn new(tools: Vec<Tool>) -> Self {
        let script_names = names::of_tools(tools.iter().map(|tool| tool.name.as_str()));
        let entries: Vec<Entry> = tools
            .into_iter()
            .zip(script_names)
            .map(|(tool, script_name)| Entry {
                names: format!("{} {script_name} {}", tool.name, tool.title.as_deref().unwrap_or_default())
                    .to_lowercase(),
                text: format!(
                    "{} {}",
                    tool.description.as_deref().unwrap_or_default(),
                    parameter_names(&tool.input_schema)
                )
                .to_lowercase(),
                tool,
                script_name,
                parameters: OnceLock::new(),
                checker: OnceLock::new(),
            })
            .collect();
        let by_script_name =
            entries.iter().enumerate().map(|(index, entry)| (entry.script_name.clone(), index)).collect();
        // Of tools that a server lists twice, the first is the one that its own name means.
        let by_name = entries.iter().enumerate().rev().map(|(index, entry)| (entry.tool.name.clone(), index)).collect();
        Self { entries, by_script_name, by_name, excluded: HashMap::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.entries.iter().map(|entry| &entry.tool)
    }

    /// The same without the tools for which there is a reason, by their own names: they are in no list and no search.
    pub(crate) fn without(mut self, reason: impl Fn(&str) -> Option<String>) -> Self {
        let (mut kept, mut excluded) = (Vec::new(), HashMap::new());
        for entry in self.entries {
            match reason(&entry.tool.name) {
                None => kept.push(entry),
                Some(reason) => {
                    excluded.insert(entry.script_name, reason.clone());
                    excluded.insert(entry.tool.name, reason);
                }
            }
        }
        self.by_script_name =
            kept.iter().enumerate().map(|(index, entry)| (entry.script_name.clone(), index)).collect();
        self.by_name = kept.iter().enumerate().rev().map(|(index, entry)| (entry.tool.name.clone(), index)).collect();
        Self { entries: kept, excluded, ..self }
    }

    /// Why there is no tool of this name, if it was taken out.
    pub(crate) fn why_excluded(&self, word: &str) -> Option<&str> {
        self.excluded.get(word).map(String::as_str)
    }

    /// The tool that `word` means after the dot; any name is taken `by_name`, as in `server.call_tool("any-name")`.
    pub(crate) fn resolve(&self, word: &str, by_name: bool) -> Option<&Entry> {
        let own = || self.by_name.get(word);
        let script = || self.by_script_name.get(word);
        let index = if by_name { own().or_else(script) } else { script() }?;
        self.entries.get(*index)
    }

    /// Up to three names in scripts that come near to `word`, nearest first.
    pub(crate) fn suggest(&self, word: &str) -> Vec<&str> {
        suggest(word, self.entries.iter().map(|entry| entry.script_name.as_str()))
    }
}

fn parameter_names(schema: &Value) -> String {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(serde_json::Map::keys).cloned().collect::<Vec<_>>().join(" ")
}

/// Answer of a search, in the shape that mcp-use's `search_tools` has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SearchResults {
    /// About all tools, found or not.
    pub meta: SearchMeta,
    /// The tools found, best first.
    pub results: Vec<FoundTool>,
}

/// What a search says about all tools.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct SearchMeta {
    /// Number of tools of all connected servers.
    pub total_tools: usize,
    /// Names of the servers in scripts.
    pub namespaces: Vec<String>,
    /// Number of tools found.
    pub result_count: usize,
    /// Servers whose tools are missing here, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable: BTreeMap<String, String>,
}

/// One tool that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundTool {
    /// Name in scripts: `server.name(#{…})`.
    pub name: String,
    /// Name of its server in scripts.
    pub server: String,
    /// The tool's own name, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// The server's own name, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// What the tool does; not with [`Detail::Names`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tool as a script calls it, such as `github.get_issue(#{number: integer, full?: boolean})`; not with [`Detail::Names`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// JSON Schema of the arguments; only with [`Detail::Full`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// JSON Schema of the structured answer, where there is one; only with [`Detail::Full`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

/// The tools of all servers at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) servers: Vec<(Namespace, Result<Arc<ToolSet>, String>)>,
}

impl Catalog {
    /// Finds the tools in which most words of `query` occur, in their names first; an empty query finds all, in order.
    pub(crate) fn search(&self, query: &str, detail: Detail) -> SearchResults {
        let query = query.to_lowercase();
        let words: Vec<&str> = query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let mut meta = SearchMeta::default();
        let mut found: Vec<(usize, FoundTool)> = Vec::new();
        for (namespace, tools) in &self.servers {
            meta.namespaces.push(namespace.script_name.clone());
            let tools = match tools {
                Ok(tools) => tools,
                Err(reason) => {
                    meta.unreachable.insert(namespace.script_name.clone(), reason.clone());
                    continue;
                }
            };
            meta.total_tools += tools.entries.len();
            for entry in &tools.entries {
                let score = score(entry, &words);
                if score > 0 || words.is_empty() {
                    found.push((score, describe(namespace, entry, detail)));
                }
            }
        }
        found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        meta.result_count = found.len();
        SearchResults { meta, results: found.into_iter().map(|(_, tool)| tool).collect() }
    }
}

/// A word in a name counts most; of two tools, the one with more of the words comes first.
fn score(entry: &Entry, words: &[&str]) -> usize {
    words
        .iter()
        .map(|word| match (entry.names.contains(word), entry.text.contains(word)) {
            (true, _) => 100 + 3,
            (false, true) => 100 + 1,
            (false, false) => 0,
        })
        .sum()
}

fn describe(namespace: &Namespace, entry: &Entry, detail: Detail) -> FoundTool {
    let full = detail == Detail::Full;
    let other = |own: &str, script: &str| (own != script).then(|| own.to_string());
    FoundTool {
        name: entry.script_name.clone(),
        server: namespace.script_name.clone(),
        tool_name: other(&entry.tool.name, &entry.script_name),
        server_name: other(&namespace.name, &namespace.script_name),
        description: entry.tool.description.clone().filter(|_| detail != Detail::Names),
        signature: (detail != Detail::Names).then(|| entry.signature(&namespace.script_name)),
        input_schema: full.then(|| entry.tool.input_schema.clone()),
        output_schema: entry.tool.output_schema.clone().filter(|_| full),
    }
}
