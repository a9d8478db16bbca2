//! Names of servers and tools as identifiers of a script, each reachable, none overwritten.

use std::collections::HashSet;

/// Words that Rhai reads as something else than a variable, and our own functions, which would be hidden.
const RESERVED: &[&str] = &[
    "Fn",
    "__tool_namespaces",
    "as",
    "async",
    "await",
    "break",
    "call",
    "case",
    "catch",
    "const",
    "continue",
    "curry",
    "debug",
    "default",
    "do",
    "else",
    "eval",
    "exit",
    "export",
    "false",
    "fn",
    "for",
    "global",
    "go",
    "goto",
    "if",
    "import",
    "in",
    "is",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "let",
    "loop",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "print",
    "private",
    "protected",
    "public",
    "return",
    "shared",
    "spawn",
    "static",
    "super",
    "switch",
    "sync",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "type_of",
    "until",
    "use",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Identifiers for the tools of one server. After the dot every word is allowed, keywords too.
pub(super) fn of_tools<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    assign(names, "tool", |_| false)
}

/// Identifiers for the servers; one named like a keyword of Rhai gets an underscore behind it.
pub(super) fn of_servers<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    assign(names, "server", |name| RESERVED.contains(&name))
}

/// Whether a map in a script may have this as a key without quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars().skip_while(|c| *c == '_').peekable();
    letters.peek().is_some_and(char::is_ascii_alphabetic)
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

/// A name that is an identifier already is kept, whatever comes before it; of those that collide, the later gets a number.
fn assign<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    fallback: &str,
    reserved: impl Fn(&str) -> bool,
) -> Vec<String> {
    let wanted = |name: &str| {
        let mut wanted = sanitise(name, fallback);
        if reserved(&wanted) {
            wanted.push('_');
        }
        wanted
    };
    let mut taken: HashSet<String> = names.clone().filter(|name| wanted(name) == *name).map(String::from).collect();
    let mut exact = taken.clone();
    names
        .map(|name| {
            if exact.remove(name) {
                return name.to_string();
            }
            let wanted = wanted(name);
            let mut free = wanted.clone();
            let mut number = 2;
            while !taken.insert(free.clone()) {
                free = format!("{wanted}_{number}");
                number += 1;
            }
            free
        })
        .collect()
}

fn sanitise(name: &str, fallback: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if out.chars().all(|c| c == '_') {
        return fallback.into(); // such as `日本`: nothing is left to tell it by
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], tools: &[&str], servers: &[&str]) {
        assert_eq!(of_tools(names.iter().copied()), tools);
        assert_eq!(of_servers(names.iter().copied()), servers);
    }

    #[test]
    fn every_name_is_reachable() {
        check(
            &["list-files", "a.b", "3d", "plain"],
            &["list_files", "a_b", "_3d", "plain"],
            &["list_files", "a_b", "_3d", "plain"],
        );
        check(
            &["a-b", "a_b", "a.b", "a_b_2"],
            &["a_b_3", "a_b", "a_b_4", "a_b_2"],
            &["a_b_3", "a_b", "a_b_4", "a_b_2"],
        );
        check(&["if", "call", "if_"], &["if", "call", "if_"], &["if__2", "call_", "if_"]);
        check(
            &["日本", "", "--", "same", "same"],
            &["tool", "tool_2", "tool_3", "same", "same_2"],
            &["server", "server_2", "server_3", "same", "same_2"],
        );
    }
}
