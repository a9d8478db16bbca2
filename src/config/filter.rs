//! Which tools of a server may be called: the lists that clients keep in a server's entry. What they forbid is forbidden here too.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::entry::{Entry, fold};
use super::tool_keys::{self, ALLOW, DENY, TOOL_FILTER, TOOLS, has_word, is_on, word};
use crate::error::Error;
use crate::near::did_you_mean;
use crate::tool::{DIGEST, LONG_DIGEST, digest_at_end, digest_of};

/// Longest pattern, and how many with a `*` there may be in one entry.
const PATTERN_BYTES: usize = 512;
const PATTERNS: usize = 256;
/// Longest name of a tool that is compared with them.
const NAME_BYTES: usize = 2 << 10;

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
#[derive(Debug, Clone, PartialEq, Default)]
struct List {
    key: String,
    /// As they were written, in order.
    written: Vec<String>,
    names: HashSet<String>,
    patterns: Vec<String>,
    denies: bool,
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
        let mut unknown = Vec::new();
        for list in self.deny.iter().chain(&self.allow).filter(|list| list.is_own) {
            let known: HashSet<String> = tools.iter().flat_map(|tool| list.forms_of(tool)).collect();
            let is_known = |name: &String| {
                let folded = folded(name);
                if folded.contains('*') {
                    known.iter().any(|form| matches(&folded, form))
                } else {
                    list.ways_to_write(&folded).any(|written| known.contains(&written))
                }
            };
            unknown.extend(
                list.written.iter().filter(|name| !is_known(name)).map(|name| (name.as_str(), list.key.as_str())),
            );
        }
        unknown
    }

    fn add(&mut self, list: List) {
        if list.denies { self.deny.push(list) } else { self.allow.push(list) }
    }
}

/// A name as it is compared: without regard to capitals, and without the arguments that Gemini's `name(…)` may have.
fn folded(name: &str) -> String {
    name.split('(').next().unwrap_or_default().trim().to_lowercase()
}

/// A name as no two that people take for one differ: in letters of ASCII and digits alone.
fn loose(name: &str) -> String {
    deunicode::deunicode(name).chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl List {
    /// A list of tools of `server` that can't be called, or of the only ones that can. What is denied is denied however its name is
    /// written; what is allowed has to be named as it is.
    fn new(entry: &Entry<'_>, server: &str, key: &str, denies: bool, written: Vec<String>) -> Result<Self, Error> {
        let mut list = Self { key: key.into(), denies, is_own: true, ..Self::default() };
        if denies {
            list.prefixes =
                ["_", "__", ".", "/", ":", "::"].iter().map(|between| format!("{server}{between}")).collect();
            list.prefixes.extend([format!("mcp__{server}__"), format!("mcp_{server}_")]);
        }
        for (index, name) in written.iter().enumerate() {
            let folded = folded(name);
            let place = format!("{key}[{index}]");
            if folded.is_empty() {
                return Err(entry.fault(&place, "expected the name of a tool, found nothing"));
            }
            if folded.len() > PATTERN_BYTES {
                return Err(entry.fault(&place, format!("no name of a tool is longer than {PATTERN_BYTES} bytes")));
            }
            if let Some(sign) = sign(&folded) {
                let message = format!(
                    "`{sign}` means nothing in the name of a tool: `*` is any text, `excludeTools` names those that can't be called"
                );
                return Err(entry.fault(&place, message));
            }
            if !folded.contains('*') {
                let ways: Vec<String> = list.ways_to_write(&folded).collect();
                list.names.extend(ways);
            } else if list.patterns.len() < PATTERNS {
                list.patterns.push(folded);
            } else {
                return Err(entry.fault(&place, format!("there are more than {PATTERNS} names with a `*`")));
            }
        }
        // Claude Code's name for all that a server has.
        if denies && written.iter().any(|name| folded(name) == format!("mcp__{}", server.to_lowercase())) {
            list.patterns.push("*".into());
        }
        list.written = written;
        Ok(list)
    }

    /// All that a name in the list stands for.
    fn ways_to_write(&self, folded: &str) -> impl Iterator<Item = String> {
        let loosely = self.denies.then(|| {
            [
                Some(loose(folded)).filter(|loose| !loose.is_empty()),
                digest_at_end(folded).map(|digest| format!("#{digest}")),
            ]
        });
        std::iter::once(folded.to_string()).chain(loosely.into_iter().flatten().flatten())
    }

    /// All that a tool may be called in the list: its own name, the identifier that scripts have for it, and what is like them.
    fn forms_of(&self, tool: &str) -> Vec<String> {
        let forms = |name: &str| {
            let own = name.trim().to_lowercase();
            let identifier: String = own.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            [own, identifier]
        };
        let mut all: Vec<String> = forms(tool).into();
        if self.denies {
            for name in
                std::iter::once(tool.to_string()).chain(self.prefixes.iter().map(|prefix| format!("{prefix}{tool}")))
            {
                all.extend(forms(&name));
                all.extend([folded(&name), loose(&name)]);
            }
            let hash = digest_of(tool);
            all.extend([DIGEST, LONG_DIGEST].map(|digits| format!("#{}", &hash[..digits])));
        }
        all
    }

    fn is_all(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern == "*")
    }

    fn has(&self, tool: &str) -> bool {
        // A server can't make it take long: what is too long to be compared is not allowed.
        if tool.len() > NAME_BYTES {
            return self.denies || self.is_all();
        }
        let is_named =
            |form: &String| self.names.contains(form) || self.patterns.iter().any(|pattern| matches(pattern, form));
        self.forms_of(tool).iter().any(is_named)
    }
}

/// What other programs read as a pattern, and would be taken for a letter here.
fn sign(name: &str) -> Option<char> {
    if name.starts_with('!') {
        return Some('!');
    }
    if name.len() > 1 && name.starts_with('/') && name.ends_with('/') {
        return Some('/');
    }
    name.chars().find(|c| matches!(c, '?' | '[' | ']' | '{' | '}'))
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
    lists(entry, server, &mut filter, true)?;
    match entry.get(TOOL_FILTER) {
        None => {}
        Some((key, Value::Object(fields))) => {
            inner_lists(entry, server, key, fields, &mut filter, true)?;
            let is_known = |field: &str| DENY.iter().chain(&ALLOW).any(|known| fold(known) == fold(field));
            if let Some(other) = fields.keys().find(|field| !is_known(field)) {
                let message = "there is no such key: it has `allowedTools` and `blockedTools`, each an array of names";
                return Err(entry.fault(&format!("{key}.{other}"), message));
            }
        }
        Some((key, found)) => return Err(entry.wrong(key, "an object with lists of names", found)),
    }
    if let Some((key, found)) = entry.find(TOOLS) {
        tools(entry, server, key, found, &mut filter)?;
    }
    for_all(document, server, &mut filter)?;
    Ok(filter)
}

fn lists(entry: &Entry<'_>, server: &str, filter: &mut ToolFilter, allows_too: bool) -> Result<(), Error> {
    for (denies, keys) in [(true, &DENY[..]), (false, &ALLOW[..])] {
        for key in keys.iter().filter(|_| denies || allows_too) {
            let Some((key, found)) = entry.find(key) else { continue };
            let Some(names) = names(entry, key, found)? else { continue };
            // goose writes an empty list where all tools are meant.
            if names.is_empty() && fold(key) == "availabletools" {
                continue;
            }
            filter.add(List::new(entry, server, key, denies, names)?);
        }
    }
    Ok(())
}

/// The lists in an object under `key`, which messages then name too.
fn inner_lists(
    entry: &Entry<'_>,
    server: &str,
    key: &str,
    fields: &Map<String, Value>,
    filter: &mut ToolFilter,
    allows_too: bool,
) -> Result<(), Error> {
    let mut inner = ToolFilter::default();
    lists(&entry.inner(key, fields), server, &mut inner, allows_too)?;
    for mut list in inner.deny.into_iter().chain(inner.allow) {
        list.key = format!("{key}.{}", list.key);
        filter.add(list);
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
fn tools(entry: &Entry<'_>, server: &str, key: &str, found: &Value, filter: &mut ToolFilter) -> Result<(), Error> {
    match found {
        Value::Null => Ok(()),
        // Copilot's `"tools": "*"`.
        Value::String(all) if all == "*" => Ok(()),
        Value::Array(_) => {
            let names = names(entry, key, found)?.unwrap_or_default();
            filter.add(List::new(entry, server, key, false, names)?);
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
                filter.add(List::new(entry, server, key, false, named(true))?);
            }
            let off = named(false);
            if !off.is_empty() {
                filter.add(List::new(entry, server, key, true, off)?);
            }
            Ok(())
        }
        other => Err(entry.wrong(key, "an array of names of tools, or an object that says which are on", other)),
    }
}

/// Whether a tool is on; `None` where nothing is said of that.
fn state_of(entry: &Entry<'_>, key: &str, name: &str, state: &Value) -> Result<Option<bool>, Error> {
    let place = format!("{key}.{name}");
    let wrong = |place: &str, found| Err(entry.wrong(place, "`true` or `false`, or `allow` or `deny`", found));
    match state {
        Value::Null => Ok(None),
        Value::Bool(on) => Ok(Some(*on)),
        Value::String(said) => is_on(said).map_or_else(|| wrong(&place, state), |on| Ok(Some(on))),
        Value::Object(fields) => {
            let mut on: Option<bool> = None;
            for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let place = format!("{place}.{field}");
                let says = match (word(field), value) {
                    (Some(means), Value::Bool(is)) => *is == means,
                    (Some(_), other) => return wrong(&place, other),
                    (None, Value::String(said)) if has_word(field) => match is_on(said) {
                        Some(says) => says,
                        None => return wrong(&place, value),
                    },
                    (None, _) if has_word(field) => {
                        return Err(
                            entry.fault(&place, "there is no such key: `enabled` says whether a tool can be called")
                        );
                    }
                    (None, _) => continue,
                };
                // What is off in one way is off.
                on = Some(on.unwrap_or(true) && says);
            }
            Ok(on)
        }
        other => wrong(&place, other),
    }
}

/// What the whole file forbids for all servers. Only that: what is *allowed* at that place is, in the clients that have it, what nobody is
/// asked about.
fn for_all(document: &Entry<'_>, server: &str, filter: &mut ToolFilter) -> Result<(), Error> {
    if let Some((key, meant)) = document.fields.keys().find_map(|key| Some((key, tool_keys::meant_for_all(key)?))) {
        let message = format!(
            "there is no such key{} It seems to say which tools can't be called, so no server starts",
            did_you_mean(&[meant])
        );
        return Err(document.fault(key, message));
    }
    let own = filter.deny.len();
    lists(document, server, filter, false)?;
    for key in [TOOL_FILTER, "mcp"] {
        if let Some((key, Value::Object(fields))) = document.find(key) {
            inner_lists(document, server, key, fields, filter, false)?;
        }
    }
    let mut add = |key: &str, names: Vec<String>| -> Result<(), Error> {
        if !names.is_empty() {
            filter.add(List::new(document, server, key, true, names)?);
        }
        Ok(())
    };
    if let Some((key, Value::Object(fields))) = document.find(TOOLS) {
        // Gemini's `tools.exclude`.
        if let Some(found @ Value::Array(_)) = fields.get("exclude") {
            let key = format!("{key}.exclude");
            add(&key, names(document, &key, found)?.unwrap_or_default())?;
        }
        // opencode's `"files_*": false`.
        add(key, off(fields))?;
    }
    // opencode's `"files_*": "deny"`.
    if let Some((key, Value::Object(fields))) = document.find("permission") {
        add(key, off(fields))?;
    }
    // Claude Code's `mcp__files__delete_all`, among rules for its own tools.
    if let Some((key, Value::Object(fields))) = document.find("permissions")
        && let Some(rules @ Value::Array(_)) = fields.get("deny")
    {
        let key = format!("{key}.deny");
        let mut rules = names(document, &key, rules)?.unwrap_or_default();
        rules.retain(|rule| rule.starts_with("mcp__"));
        add(&key, rules)?;
    }
    filter.deny[own..].iter_mut().for_each(|list| list.is_own = false);
    Ok(())
}

/// The tools that a client's settings have off, at a place where there are other settings too.
fn off(fields: &Map<String, Value>) -> Vec<String> {
    let is_off = |state: &Value| match state {
        Value::Bool(on) => !on,
        Value::String(said) => is_on(said) == Some(false),
        Value::Object(fields) => {
            fields.iter().any(|(field, is)| is.as_bool().zip(word(field)).is_some_and(|(is, means)| is != means))
        }
        _ => false,
    };
    fields.iter().filter(|(_, state)| is_off(state)).map(|(name, _)| name.clone()).collect()
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
}
