//! Where the files of various clients have their servers, and what those files say of all servers. Knows nothing of what an entry says.

use serde_json::{Map, Value};

use super::expand::Input;

/// Where servers are, as keys from the top. `mcp` itself is last, as the others look into it too.
const LOCATIONS: [(&[&str], &str); 9] = [
    (&["mcpServers"], "mcpServers"),
    (&["servers"], "servers"),            // VS Code: mcp.json
    (&["mcp", "servers"], "mcp.servers"), // VS Code: settings
    (&["mcp.servers"], "mcp.servers"),
    (&["context_servers"], "context_servers"), // Zed
    (&["mcp_servers"], "mcp_servers"),         // Codex
    (&["mcp", "mcpServers"], "mcp.mcpServers"),
    (&["amp.mcpServers"], "amp.mcpServers"), // Amp
    (&["mcp"], "mcp"),                       // opencode, Crush
];
/// Keys of an object `mcp` that are no servers.
const NO_SERVERS: [&str; 6] = ["servers", "mcpServers", "inputs", "allowed", "excluded", "discovery"];
/// Lists of the only servers, and of servers that are off, as Gemini CLI and Claude Code have them.
const SERVERS_ALLOWED: [&[&str]; 2] = [&["mcp", "allowed"], &["allowMCPServers"]];
const SERVERS_OFF: [&[&str]; 3] = [&["mcp", "excluded"], &["excludeMCPServers"], &["disabledMcpjsonServers"]];

/// A place with servers in a document.
#[derive(Clone, Copy)]
pub(super) struct Location<'a> {
    /// Keys from the top.
    pub(super) keys: &'static [&'static str],
    /// The same as a path.
    pub(super) path: &'static str,
    pub(super) servers: &'a Map<String, Value>,
}

impl<'a> Location<'a> {
    /// The entries, but for what can't be one at this place.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.servers.iter().filter(move |(name, entry)| self.can_be(name, entry))
    }

    pub(super) fn entry(self, name: &str) -> Option<&'a Value> {
        self.servers.get(name).filter(|entry| self.can_be(name, entry))
    }

    fn can_be(self, name: &str, entry: &Value) -> bool {
        !self.is_shared() || entry.is_object() && !NO_SERVERS.contains(&name)
    }

    /// Whether settings of other kinds are at the same place.
    fn is_shared(self) -> bool {
        self.keys == ["mcp"]
    }

    /// Whether strings may have `{env:NAME}`.
    pub(super) fn has_braces(self) -> bool {
        self.is_shared()
    }
}

fn at<'a>(document: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(document.get(*first)?, |value, key| value.get(*key))
}

/// All places with servers, in the order in which they win.
pub(super) fn locations(document: &Map<String, Value>) -> impl Iterator<Item = Location<'_>> {
    LOCATIONS.iter().filter_map(|(keys, path)| {
        let location = Location { keys, path, servers: at(document, keys)?.as_object()? };
        // An object of settings for MCP is no list of servers, unless one is in it.
        (!location.is_shared() || location.entries().next().is_some()).then_some(location)
    })
}

/// A key that should have servers, and has something else.
pub(super) fn malformed(document: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    let (_, path) = LOCATIONS[0];
    let own = document.get(path).filter(|value| !value.is_object()).map(|value| (path, value));
    let others = || {
        let found = |(keys, path): &(&'static [&'static str], &'static str)| Some((*path, at(document, keys)?));
        LOCATIONS.iter().filter_map(found).find(|(_, value)| !value.is_object())
    };
    own.or_else(|| locations(document).next().is_none().then(others).flatten())
}

/// Whether the file as a whole leaves a server out.
pub(super) fn leaves_out(document: &Map<String, Value>, server: &str) -> bool {
    let lists = |places: &[&[&str]]| -> Vec<Vec<String>> {
        let list = |keys: &&[&str]| {
            Some(at(document, keys)?.as_array()?.iter().filter_map(Value::as_str).map(String::from).collect())
        };
        places.iter().filter_map(list).collect()
    };
    let has = |list: &Vec<String>| list.iter().any(|name| name == server);
    lists(&SERVERS_OFF).iter().any(has) || lists(&SERVERS_ALLOWED).iter().any(|list| !list.is_empty() && !has(list))
}

/// What the user can be asked for, as VS Code has it.
pub(super) fn inputs(document: &Map<String, Value>) -> Vec<Input> {
    let places: [&[&str]; 3] = [&["inputs"], &["mcp", "inputs"], &["mcp.inputs"]];
    let items = places.iter().filter_map(|keys| at(document, keys)?.as_array()).flatten();
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(String::from);
    let input = |item: &Value| {
        let options = item.get("options").and_then(Value::as_array);
        let option = |option: &Value| option.as_str().map(String::from).or_else(|| text(option, "value"));
        Some(Input {
            id: text(item, "id")?,
            description: text(item, "description"),
            is_password: item.get("password") == Some(&Value::Bool(true)),
            default: text(item, "default"),
            options: options.into_iter().flatten().filter_map(option).collect(),
        })
    };
    items.filter_map(input).collect()
}
