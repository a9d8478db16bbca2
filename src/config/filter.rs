//! Which tools of a server may be called: the lists that clients keep in a server's entry. What they forbid is forbidden here too.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::entry::{Entry, fold};
use crate::error::Error;

/// Keys whose lists name tools that can't be called, in camel case; snake case is read too.
pub(super) const DENY: [&str; 18] = [
    "excludeTools",  // Gemini CLI, Qwen Code, pi
    "disabledTools", // Roo Code, Windsurf, deepagents, Kiro, mcpo; Codex and Crush in snake case
    "excludedTools",
    "blockedTools",
    "deniedTools",
    "denyTools",
    "blockTools",
    "disableTools",
    "disallowedTools", // Claude Agent SDK
    "disallowTools",
    "forbiddenTools",
    "toolDenylist",
    "toolBlocklist",
    "toolBlacklist",
    "toolsDeny",
    "toolsExclude",
    "blockedToolNames", // OpenAI Agents SDK
    "deniedToolNames",
];
/// Keys whose lists name the only tools that can be called.
pub(super) const ALLOW: [&str; 13] = [
    "includeTools", // Gemini CLI, Amp
    "allowedTools", // deepagents; OpenAI in snake case
    "enabledTools", // Codex and Crush in snake case
    "includedTools",
    "allowTools",
    "enableTools",
    "onlyTools",
    "availableTools", // goose
    "toolAllowlist",
    "toolWhitelist",
    "toolsAllow",
    "toolsInclude",
    "allowedToolNames", // OpenAI Agents SDK
];
/// An array of the only tools, as Copilot CLI has it; or an object of tools that are on or off, as opencode has it.
pub(super) const TOOLS: &str = "tools";
/// An object of lists, as the Agents SDK has it.
pub(super) const TOOL_FILTER: &str = "toolFilter";
/// Keys with `tool` in them that say which calls nobody is asked about. Nobody is asked here, so they change nothing.
const ASK_NOTHING: [&str; 8] = [
    "alwaysallowtools",
    "autoapprovetools",
    "autoapprovedtools",
    "trustedtools",
    "autoallowtools",
    "directtools",
    "defaulttoolsapprovalmode",
    "approvedtools",
];
/// Words that a key has which is about what tools can be called.
const WORDS: [&str; 17] = [
    "exclud",
    "disabl",
    "block",
    "deny",
    "denied",
    "disallow",
    "forbid",
    "includ",
    "allow",
    "enabl",
    "whitelist",
    "blacklist",
    "filter",
    "only",
    "hidden",
    "permit",
    "permission",
];
/// Longest pattern, and how many with a `*` there may be in one entry.
const PATTERN_BYTES: usize = 512;
const PATTERNS: usize = 256;

/// Which tools of a server can be called: what its entry says in `includeTools`, `excludeTools` and the like, under the names that other
/// clients have for them. The others are in no list, and calls of them are refused. The default is all.
///
/// ```
/// let config = rhaiway::Config::from_value(serde_json::json!({"mcpServers": {
///     "files": {"command": "files-server", "excludeTools": ["delete_*"]},
/// }}))?;
/// let tools = config.server("files")?.tools;
/// assert!(tools.allows("read") && !tools.allows("delete_all"));
/// # Ok::<(), rhaiway::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolFilter {
    deny: Vec<List>,
    allow: Vec<List>,
}

/// The names under one key.
#[derive(Debug, Clone, PartialEq)]
struct List {
    key: String,
    /// As they were written, in order.
    written: Vec<String>,
    names: HashSet<String>,
    patterns: Vec<String>,
    /// Whether each of its names is one of a tool that the user expects to be there.
    is_own: bool,
    /// Further names that a tool goes by in this list, such as `files_` and its own.
    prefixes: Vec<String>,
}

impl ToolFilter {
    /// Whether a tool can be called, by its own name.
    #[must_use]
    pub fn allows(&self, tool: &str) -> bool {
        self.why_not(tool).is_none()
    }

    /// The key that keeps a tool from being called, such as `excludeTools`; `None` if nothing does.
    #[must_use]
    pub fn why_not(&self, tool: &str) -> Option<&str> {
        // Whatever allows it.
        let denied = self.deny.iter().find(|list| list.has(tool));
        let refused = denied.or_else(|| self.allow.iter().find(|list| !list.has(tool)));
        refused.map(|list| list.key.as_str())
    }

    /// Whether it leaves all tools.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.deny.is_empty() && self.allow.iter().all(List::is_all)
    }

    /// The keys with what they name, for people: `only read (tools)`, `not delete_all (excludeTools)`.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let line = |word: &str, list: &List| match list.written.as_slice() {
            [] => format!("none ({})", list.key),
            names => format!("{word} {} ({})", names.join(", "), list.key),
        };
        let only = self.allow.iter().filter(|list| !list.is_all()).map(|list| line("only", list));
        only.chain(self.deny.iter().filter(|list| !list.written.is_empty()).map(|list| line("not", list))).collect()
    }

    /// What is named and is no tool among `tools`, with its key: a slip, mostly.
    pub(crate) fn unknown<'a>(&'a self, tools: &[&str]) -> Vec<(&'a str, &'a str)> {
        let known: HashSet<String> = tools.iter().flat_map(|tool| forms(tool)).collect();
        let mut unknown = Vec::new();
        for list in self.deny.iter().chain(&self.allow).filter(|list| list.is_own) {
            for name in &list.written {
                let folded = folded(name);
                let is_known = if folded.contains('*') {
                    tools.iter().any(|tool| forms(tool).any(|form| matches(&folded, &form)))
                } else {
                    known.contains(&folded)
                };
                if !is_known {
                    unknown.push((name.as_str(), list.key.as_str()));
                }
            }
        }
        unknown
    }

    fn add(&mut self, denies: bool, list: List) {
        if denies { self.deny.push(list) } else { self.allow.push(list) }
    }
}

/// A name as it is compared: without regard to capitals, and without the arguments that Gemini's `name(…)` may have.
fn folded(name: &str) -> String {
    name.split('(').next().unwrap_or_default().trim().to_lowercase()
}

/// The names that a tool goes by: its own, and the identifier that scripts have for it.
fn forms(tool: &str) -> impl Iterator<Item = String> {
    let own = tool.trim().to_lowercase();
    let identifier: String = own.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    [own, identifier].into_iter()
}

impl List {
    fn new(entry: &Entry<'_>, key: &str, names: Vec<String>) -> Result<Self, Error> {
        let (mut exact, mut patterns) = (HashSet::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let folded = folded(name);
            let place = format!("{key}[{index}]");
            if folded.is_empty() {
                return Err(entry.fault(&place, "expected the name of a tool, found nothing"));
            }
            if folded.len() > PATTERN_BYTES {
                return Err(entry.fault(&place, format!("no name of a tool is longer than {PATTERN_BYTES} bytes")));
            }
            if !folded.contains('*') {
                exact.insert(folded);
            } else if patterns.len() < PATTERNS {
                patterns.push(folded);
            } else {
                return Err(entry.fault(&place, format!("there are more than {PATTERNS} names with a `*`")));
            }
        }
        let (written, prefixes) = (names, Vec::new());
        Ok(Self { key: key.into(), written, names: exact, patterns, is_own: true, prefixes })
    }

    fn is_all(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern == "*")
    }

    fn has(&self, tool: &str) -> bool {
        let prefixed = self.prefixes.iter().map(|prefix| format!("{prefix}{tool}"));
        std::iter::once(tool.to_string()).chain(prefixed).any(|tool| {
            // A tool whose name is written in another way is still that tool.
            let bare = folded(&tool);
            forms(&tool)
                .chain([bare])
                .any(|form| self.names.contains(&form) || self.patterns.iter().any(|pattern| matches(pattern, &form)))
        })
    }
}

/// Whether `*` in the pattern, as any text, makes it the name. Takes at most the length of the name times that of the pattern, which is
/// bounded.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut place, mut star) = (0, 0, None);
    while at < name.len() {
        match pattern.get(place) {
            Some(b'*') => {
                star = Some((place, at));
                place += 1;
            }
            Some(letter) if *letter == name[at] => (at, place) = (at + 1, place + 1),
            _ => match star {
                // The last `*` takes one letter more.
                Some((back, from)) => {
                    star = Some((back, from + 1));
                    (at, place) = (from + 1, back + 1);
                }
                None => return false,
            },
        }
    }
    pattern[place..].iter().all(|letter| *letter == b'*')
}

/// Reads what an entry says of its tools; `document` has what the file says of all servers' tools.
pub(super) fn parse(entry: &Entry<'_>, server: &str, document: &Entry<'_>) -> Result<ToolFilter, Error> {
    let mut filter = ToolFilter::default();
    lists(entry, &mut filter, true)?;
    if let Some((key, Value::Object(fields))) = entry.find(TOOL_FILTER) {
        lists(&entry.inner(key, fields), &mut filter, true)?;
        // So that a message names the whole path.
        let named = format!("{key}.");
        filter.deny.iter_mut().chain(&mut filter.allow).for_each(|list| {
            if fields.contains_key(&list.key) && !entry.fields.contains_key(&list.key) {
                list.key.insert_str(0, &named);
            }
        });
    } else if let Some((key, found)) = entry.find(TOOL_FILTER)
        && !found.is_null()
    {
        return Err(entry.wrong(key, "an object with lists of names", found));
    }
    if let Some((key, found)) = entry.find(TOOLS) {
        tools(entry, key, found, &mut filter)?;
    }
    for_all(document, server, &mut filter)?;
    Ok(filter)
}

fn lists(entry: &Entry<'_>, filter: &mut ToolFilter, allows_too: bool) -> Result<(), Error> {
    for (denies, keys) in [(true, &DENY[..]), (false, &ALLOW[..])] {
        for key in keys.iter().filter(|_| denies || allows_too) {
            let Some((key, found)) = entry.find(key) else { continue };
            let Some(names) = names(entry, key, found)? else { continue };
            // goose writes an empty list where all tools are meant.
            if names.is_empty() && fold(key) == "availabletools" {
                continue;
            }
            filter.add(denies, List::new(entry, key, names)?);
        }
    }
    Ok(())
}

fn names(entry: &Entry<'_>, key: &str, found: &Value) -> Result<Option<Vec<String>>, Error> {
    let items = match found {
        Value::Null => return Ok(None),
        Value::Array(items) => items,
        other => return Err(entry.wrong(key, "an array of names of tools", other)),
    };
    let name = |(index, item): (usize, &Value)| match item {
        Value::String(name) => Ok(name.clone()),
        other => Err(entry.wrong(&format!("{key}[{index}]"), "the name of a tool", other)),
    };
    items.iter().enumerate().map(name).collect::<Result<_, _>>().map(Some)
}

/// `tools`: the names of the only tools, or which are on and off.
fn tools(entry: &Entry<'_>, key: &str, found: &Value, filter: &mut ToolFilter) -> Result<(), Error> {
    match found {
        Value::Null => Ok(()),
        // Copilot's `"tools": "*"`.
        Value::String(all) if all == "*" => Ok(()),
        Value::Array(_) => {
            let names = names(entry, key, found)?.unwrap_or_default();
            filter.add(false, List::new(entry, key, names)?);
            Ok(())
        }
        Value::Object(fields) => {
            let mut states = HashMap::new();
            for (name, state) in fields {
                states.insert(name.as_str(), state_of(entry, key, name, state)?);
            }
            let named = |on: bool| {
                let named = fields.keys().filter(|name| name.as_str() != "*" && states[name.as_str()] == Some(on));
                named.cloned().collect::<Vec<_>>()
            };
            // Where all are off, those that are on are all that there is.
            if states.get("*") == Some(&Some(false)) {
                filter.add(false, List::new(entry, key, named(true))?);
            }
            let off = named(false);
            if !off.is_empty() {
                filter.add(true, List::new(entry, key, off)?);
            }
            Ok(())
        }
        other => Err(entry.wrong(key, "an array of names of tools, or an object that says which are on", other)),
    }
}

/// Whether a tool is on; `None` where nothing is said of that.
fn state_of(entry: &Entry<'_>, key: &str, name: &str, state: &Value) -> Result<Option<bool>, Error> {
    let place = format!("{key}.{name}");
    match state {
        Value::Null => Ok(None),
        Value::Bool(on) => Ok(Some(*on)),
        Value::Object(fields) => {
            let mut on = None;
            for (word, means) in [("enabled", true), ("disabled", false)] {
                match fields.get(word) {
                    None | Some(Value::Null) => {}
                    // What is off in one way is off.
                    Some(Value::Bool(is)) => on = Some(on.unwrap_or(true) && *is == means),
                    Some(other) => return Err(entry.wrong(&format!("{place}.{word}"), "`true` or `false`", other)),
                }
            }
            Ok(on)
        }
        other => Err(entry.wrong(&place, "`true` or `false`", other)),
    }
}

/// What the whole file forbids for all servers. Only that: what is *allowed* at that place is, in the clients that have it, what nobody is
/// asked about.
fn for_all(document: &Entry<'_>, server: &str, filter: &mut ToolFilter) -> Result<(), Error> {
    let own = filter.deny.len();
    lists(document, filter, false)?;
    if let Some((key, Value::Object(fields))) = document.find(TOOLS) {
        // Gemini's `tools.exclude`, and opencode's `"files_*": false`.
        if let Some(found @ Value::Array(_)) = fields.get("exclude") {
            let key = format!("{key}.exclude");
            let names = names(document, &key, found)?.unwrap_or_default();
            filter.add(true, List::new(document, &key, names)?);
        }
        let off = fields.iter().filter(|(_, state)| **state == Value::Bool(false)).map(|(name, _)| name.clone());
        let off: Vec<String> = off.collect();
        if !off.is_empty() {
            filter.add(true, List::new(document, key, off)?);
        }
    }
    for list in &mut filter.deny[own..] {
        list.is_own = false;
        list.prefixes = ["_", "__", ".", "/", ":"].iter().map(|between| format!("{server}{between}")).collect();
        list.prefixes.push(format!("mcp__{server}__"));
        list.prefixes.push(format!("mcp_{server}_"));
    }
    Ok(())
}

/// The key that was meant by one that is none but looks as if it said which tools can be called.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let folded = fold(key);
    if ASK_NOTHING.contains(&folded.as_str()) {
        return None;
    }
    let distance = |known: &&str| strsim::damerau_levenshtein(&fold(known), &folded);
    let nearest = DENY.iter().chain(&ALLOW).chain(&[TOOL_FILTER]).copied().min_by_key(|known| distance(known))?;
    let says_so = folded.contains("tool") && WORDS.iter().any(|word| folded.contains(word));
    (says_so || distance(&nearest) <= 2).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_text() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("re*", "read", true),
            ("re*", "pre", false),
            ("*_all", "delete_all", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*", "a", true),
            ("a", "ab", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        // No more than the product of the lengths.
        assert!(!matches(&"*a".repeat(200), &"b".repeat(100_000)));
    }

    #[test]
    fn slips_in_keys_are_known() {
        for (key, meant_key) in [
            ("excludeTool", Some("excludeTools")),
            ("disabledtools", Some("disabledTools")),
            ("exclude-tools", Some("excludeTools")),
            ("alowedTools", Some("allowedTools")),
            ("toolsDisabled", Some("disabledTools")),
            ("alwaysAllow", None),
            ("autoApprove", None),
            ("trustedTools", None),
            ("timeout", None),
            ("description", None),
            ("tools", None),
        ] {
            let found = meant(key);
            assert_eq!(found.is_some(), meant_key.is_some(), "{key}: {found:?}");
            if key != "toolsDisabled" {
                assert_eq!(found, meant_key, "{key}");
            }
        }
    }
}
