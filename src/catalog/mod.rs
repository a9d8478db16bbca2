//! What there is to call: an immutable snapshot of the servers' tools, by the names that scripts use, what they take, and the search
//! over them. Knows neither how tools are listed nor how they are called.

mod arguments;
mod fit;
mod names;
mod schema;
mod signature;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use arguments::Checked;
use arguments::Checker;
use names::{Meant, Names};

use crate::tool::{Detail, Tool};

/// Names that a message tells, and the longest of them, in bytes.
const TOLD: usize = 3;
const LONGEST_TOLD: usize = 200;
/// Characters of a name that are compared with another, and names that are compared character by character.
const COMPARED: usize = 64;
const NEAR: usize = 1000;

/// A server and its name in scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) script_name: String,
}

/// The servers, by both of their names.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    all: Vec<Namespace>,
    names: Names,
}

impl Namespaces {
    /// The servers with these names.
    pub(crate) fn new(servers: &[String]) -> Self {
        let names = Names::of_servers(&servers.iter().map(String::as_str).collect::<Vec<_>>());
        let with_script_name = |(index, name): (usize, &String)| Namespace {
            name: name.clone(),
            script_name: names.shown(index).to_string(),
        };
        Self { all: servers.iter().enumerate().map(with_script_name).collect(), names }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.all.iter()
    }

    /// The server that `word` means in a script.
    pub(crate) fn meant(&self, word: &str) -> Option<&Namespace> {
        match self.names.meant(word)? {
            Meant::Own(index) | Meant::Made(index) => self.all.get(*index),
            Meant::Several(_) => None,
        }
    }

    /// The servers that a source names, comments and strings included, and all words that are names of servers for it: those that are
    /// shown, and others that it uses. One that several come to is among them, so that its call says what to write.
    pub(crate) fn named_in(&self, source: &str) -> (Vec<&Namespace>, Vec<String>) {
        let words: BTreeSet<&str> = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let named: Vec<&Namespace> = words.iter().filter_map(|word| self.meant(word)).collect();
        let mut known: Vec<String> = self.all.iter().map(|space| space.script_name.clone()).collect();
        let shown: HashSet<&str> = self.all.iter().map(|space| space.script_name.as_str()).collect();
        known.extend(
            words
                .into_iter()
                .filter(|word| !shown.contains(word) && self.names.meant(word).is_some())
                .map(String::from),
        );
        (named, known)
    }

    /// What to say of a word that means no server.
    pub(crate) fn unknown(&self, word: &str) -> String {
        let own = |index: usize| self.all.get(index).map_or("", |space| &space.name);
        unknown(&self.names, word, own, self.all.iter().map(|space| space.script_name.as_str()))
    }
}

/// The tools of one server, by both of their names.
#[derive(Debug, Default)]
pub(crate) struct ToolSet {
    entries: Vec<Entry>,
    names: Names,
    by_name: HashMap<String, usize>,
    /// How many were left out, as another tool has their name.
    pub(crate) doubles: usize,
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
    fn new(tool: Tool, script_name: &str) -> Self {
        let names = format!("{} {script_name} {}", tool.name, tool.title.as_deref().unwrap_or_default());
        let text =
            format!("{} {}", tool.description.as_deref().unwrap_or_default(), parameter_names(&tool.input_schema));
        Self {
            names: names.to_lowercase(),
            text: text.to_lowercase(),
            tool,
            script_name: script_name.into(),
            parameters: OnceLock::new(),
            checker: OnceLock::new(),
        }
    }

    /// The tool as a script calls it: `github.get_issue(#{number: integer})`.
    fn signature(&self, server: &str) -> String {
        let parameters = self.parameters.get_or_init(|| signature::parameters(&self.tool.input_schema));
        format!("{server}.{}{parameters}", self.script_name)
    }

    /// The arguments as they are to be sent to the tool, or why not.
    pub(crate) fn check(&self, server: &str, arguments: Map<String, Value>) -> Result<Checked, String> {
        let checker = self.checker.get_or_init(|| Checker::new(&self.tool.input_schema).map(Box::new));
        let Some(checker) = checker else { return Ok(Checked { arguments, digits: None }) };
        checker.check(arguments).map_err(|problems| {
            let problems = problems.join("\n  ");
            format!("`{server}.{}` was not called: {problems}\n  {}", self.script_name, self.signature(server))
        })
    }
}

impl ToolSet {
    /// Of tools that have the same name, which their server could not tell apart, the first is kept.
    pub(crate) fn new(mut tools: Vec<Tool>) -> Self {
        let listed = tools.len();
        let mut by_name = HashMap::new();
        tools.retain(|tool| {
            let index = by_name.len();
            let is_new = !by_name.contains_key(&tool.name);
            by_name.entry(tool.name.clone()).or_insert(index);
            is_new
        });
        let names = Names::of_tools(&tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>());
        let doubles = listed - tools.len();
        let entries = tools.into_iter().enumerate().map(|(index, tool)| Entry::new(tool, names.shown(index))).collect();
        Self { entries, names, by_name, doubles }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.entries.iter().map(|entry| &entry.tool)
    }

    /// The tool that `word` means after the dot; any name is taken `by_name`, as in `server.call_tool("any-name")`.
    pub(crate) fn resolve(&self, word: &str, by_name: bool) -> Option<&Entry> {
        let own = by_name.then(|| self.by_name.get(word)).flatten();
        let index = own.or_else(|| match self.names.meant(word)? {
            Meant::Own(index) | Meant::Made(index) => Some(index),
            Meant::Several(_) => None,
        });
        self.entries.get(*index?)
    }

    /// What to say of a word that means no tool.
    pub(crate) fn unknown(&self, word: &str) -> String {
        let own = |index: usize| self.entries.get(index).map_or("", |entry| &entry.tool.name);
        unknown(&self.names, word, own, self.entries.iter().map(|entry| entry.script_name.as_str()))
    }
}

/// The end of a message about a word that means nothing: the names that it may stand for, or those that come near to it.
fn unknown<'a>(
    names: &'a Names,
    word: &str,
    own: impl Fn(usize) -> &'a str,
    all: impl Iterator<Item = &'a str>,
) -> String {
    let Some(Meant::Several(several)) = names.meant(word) else { return did_you_mean(&suggest(word, all)) };
    let told = several.iter().take(TOLD).map(|index| format!("`{}` (`{}`)", names.shown(*index), start(own(*index))));
    let more = several.len().saturating_sub(TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        ", as {} have names that come to that: write {}{more}",
        several.len(),
        told.collect::<Vec<_>>().join(" or ")
    )
}

/// The start of a name that somebody else chose, for a message.
pub(crate) fn start(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(COMPARED) {
        Some((end, _)) => format!("{}…", &name[..end]).into(),
        None => name.into(),
    }
}

/// Up to three of `names` that come near to `word`, nearest first. Of long names the start is compared, and of many names those whose letters
/// are nearest, up to a number.
pub(crate) fn suggest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = |name: &str| name.chars().take(COMPARED).collect::<String>().to_lowercase();
    let wanted = lower(word);
    let most = wanted.chars().count().max(3) / 3 + 1;
    let letters = Letters::of(&wanted);
    let mut likely: Vec<(usize, bool, String, &str)> = names
        .filter_map(|name| {
            let lower = lower(name);
            let contained = wanted.len() > 2 && (lower.contains(&wanted) || wanted.contains(&lower));
            let least = letters.distance(&Letters::of(&lower));
            (contained || least <= most).then_some((least, contained, lower, name))
        })
        .collect();
    likely.sort_unstable();
    let mut near: Vec<(usize, &str)> = likely
        .into_iter()
        .take(NEAR)
        .map(|(_, contained, lower, name)| (strsim::damerau_levenshtein(&wanted, &lower), contained, name))
        .filter_map(|(distance, contained, name)| (distance <= most || contained).then_some((distance, name)))
        .collect();
    near.sort_unstable();
    near.into_iter().take(TOLD).filter(|(_, name)| name.len() <= LONGEST_TOLD).map(|(_, name)| name).collect()
}

/// How often each letter occurs in a text.
struct Letters([u8; 32]);

impl Letters {
    fn of(text: &str) -> Self {
        let mut counts = [0u8; 32];
        for letter in text.chars() {
            let count = &mut counts[(u32::from(letter) % 32) as usize];
            *count = count.saturating_add(1);
        }
        Self(counts)
    }

    /// No more than the number of edits that lead from one text to the other.
    fn distance(&self, other: &Self) -> usize {
        let pairs = || self.0.iter().zip(&other.0);
        let more: usize = pairs().map(|(one, other)| usize::from(one.saturating_sub(*other))).sum();
        let fewer: usize = pairs().map(|(one, other)| usize::from(other.saturating_sub(*one))).sum();
        more.max(fewer)
    }
}

/// `: did you mean …?`, or nothing.
pub(crate) fn did_you_mean(near: &[&str]) -> String {
    if near.is_empty() { String::new() } else { format!(": did you mean `{}`?", near.join("`, `")) }
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
        output_schema: full.then(|| output_schema(&entry.tool)).flatten(),
    }
}

/// The schema of what a script gets: without the wrapper that is taken off.
fn output_schema(tool: &Tool) -> Option<Value> {
    let schema = tool.output_schema.clone()?;
    let Some(Value::Object(mut inner)) = schema["properties"].get("result").filter(|_| tool.wraps_result()).cloned()
    else {
        return Some(schema);
    };
    if let Some(definitions) = schema.get("$defs") {
        inner.insert("$defs".into(), definitions.clone());
    }
    Some(Value::Object(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_many_names_is_found() {
        let names: Vec<String> = (0..60_000).map(|index| format!("tool_{index}")).collect();
        let near = suggest("tool_59876x", names.iter().map(String::as_str));
        assert_eq!(near.first(), Some(&"tool_59876"), "{near:?}");
        let long = "x".repeat(10 << 20);
        assert!(suggest(&long, [long.as_str()].into_iter()).is_empty());
    }
}
