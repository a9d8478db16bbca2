//! One server's entry while it is read: its fields under all the names that clients have for them, with faults and warnings that name
//! their path. Knows no field in particular.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use super::{ConfigWarning, fault, kind};
use crate::error::Error;
use crate::units;

/// Names that other clients have for a field, beside its own in snake and in camel case.
const ALIASES: [(&str, &[&str]); 9] = [
    ("command", &["cmd"]),                                                              // goose
    ("cwd", &["workingDirectory", "workdir"]),                                          // Junie, Zed's older ones
    ("env", &["environment", "envs"]),                                                  // opencode; goose
    ("url", &["serverUrl", "httpUrl", "uri"]),                                          // Windsurf; Gemini CLI; goose
    ("headers", &["http_headers"]),                                                     // Codex
    ("type", &["transportType"]),                                                       // older versions of Cline
    ("call_timeout", &["tool_timeout_sec"]),                                            // Codex
    ("connect_timeout", &["startup_timeout_sec", "startup_timeout_ms", "initTimeout"]), // Codex; LibreChat
    ("sse_read_timeout", &["read_timeout"]),
];
/// Keys that clients have for what is none of our business, and that come near to ours.
const OTHERS: [&str; 8] = ["oauth", "name", "names", "arch", "title", "types", "envFiles", "curl"];
/// What nobody waits for in seconds.
const MILLISECONDS: f64 = 1000.0;

/// An entry, or an object in one.
pub(super) struct Entry<'a> {
    /// JSON path; empty for the whole document.
    pub(super) place: String,
    pub(super) fields: &'a Map<String, Value>,
    pub(super) notes: &'a Notes,
}

/// What comes up while an entry is read.
#[derive(Default)]
pub(super) struct Notes {
    /// The names of all fields that were asked for: whoever reads a field makes it known.
    asked: RefCell<BTreeSet<String>>,
    warnings: RefCell<Vec<ConfigWarning>>,
    fault: RefCell<Option<Error>>,
}

impl Notes {
    pub(super) fn warn(&self, path: String, message: impl Into<String>) {
        let warning = ConfigWarning { path, message: message.into() };
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(super) fn take_warnings(&self) -> Vec<ConfigWarning> {
        self.warnings.take()
    }

    pub(super) fn take_fault(&self) -> Option<Error> {
        self.fault.take()
    }
}

/// A key without what languages differ in: capitals, `_` and `-`.
pub(super) fn fold(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// `call_timeout` as `callTimeout`, and the other way round.
fn other_case(key: &str) -> String {
    let mut other = String::new();
    let mut upper = false;
    for letter in key.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                other.push(letter.to_ascii_uppercase());
                upper = false;
            }
            letter if letter.is_ascii_uppercase() => {
                other.push('_');
                other.push(letter.to_ascii_lowercase());
            }
            letter => other.push(letter),
        }
    }
    other
}

impl<'a> Entry<'a> {
    /// An object under a key of this one.
    pub(super) fn inner(&self, key: &str, fields: &'a Map<String, Value>) -> Entry<'a> {
        Entry { place: self.path(key), fields, notes: self.notes }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.place.is_empty() { key.into() } else { format!("{}.{key}", self.place) }
    }

    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        fault(&self.path(key), message.into())
    }

    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        self.notes.warn(self.path(key), message);
    }

    pub(super) fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.fault(key, format!("expected {expected}, found {}", kind(found)))
    }

    /// A field under any of its names, with that which it has.
    pub(super) fn find(&self, key: &str) -> Option<(&'a str, &'a Value)> {
        let aliases = ALIASES.iter().filter(|(own, _)| *own == key).flat_map(|(_, others)| others.iter().copied());
        let aliases = aliases.flat_map(|alias| [alias.to_string(), other_case(alias)]);
        let names: Vec<String> = [key.to_string(), other_case(key)].into_iter().chain(aliases).collect();
        let mut found: Option<(&'a str, &'a Value)> = None;
        for name in &names {
            let Some((name, value)) = self.fields.get_key_value(name.as_str()) else { continue };
            match found {
                Some((first, _)) if first != name && !value.is_null() => {
                    let message = format!("it has `{first}` too, which means the same: keep one");
                    self.notes.fault.borrow_mut().get_or_insert_with(|| self.fault(name, message));
                }
                Some(_) => {}
                None => found = Some((name, value)),
            }
        }
        self.notes.asked.borrow_mut().extend(names);
        found
    }

    /// A field that is there and not `null`.
    pub(super) fn get(&self, key: &str) -> Option<(&'a str, &'a Value)> {
        self.find(key).filter(|(_, value)| !value.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text.clone())),
            Some((key, other)) => Err(self.wrong(key, "a string", other)),
        }
    }

    pub(super) fn one_of(&self, key: &str, known: &[&str]) -> Result<Option<String>, Error> {
        let text = self.text(key)?;
        match &text {
            Some(text) if !known.contains(&text.as_str()) => {
                Err(self.fault(key, format!("expected one of `{}`, found `{text}`", known.join("`, `"))))
            }
            _ => Ok(text),
        }
    }

    pub(super) fn required_text(&self, key: &str) -> Result<String, Error> {
        self.text(key)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.fault(key, "expected a string, found nothing"))
    }

    /// An array of texts; numbers and booleans become texts, as people write ports.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some((key, Value::Array(items))) => self.texts_in(key, items),
            Some((key, other)) => Err(self.wrong(key, "an array of strings", other)),
        }
    }

    pub(super) fn texts_in(&self, key: &str, items: &[Value]) -> Result<Vec<String>, Error> {
        let text = |(index, item): (usize, &Value)| {
            plain(item).ok_or_else(|| self.wrong(&format!("{key}[{index}]"), "a string", item))
        };
        items.iter().enumerate().map(text).collect()
    }

    /// An object of texts; what is `null` is left out.
    pub(super) fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, Error> {
        let (key, items) = match self.get(key) {
            None => return Ok(BTreeMap::new()),
            Some((key, Value::Object(items))) => (key, items),
            Some((key, other)) => return Err(self.wrong(key, "an object of strings", other)),
        };
        let text = |(name, item): (&String, &Value)| {
            let text = plain(item).ok_or_else(|| self.wrong(&format!("{key}.{name}"), "a string", item))?;
            Ok((name.clone(), text))
        };
        items.iter().filter(|(_, item)| !item.is_null()).map(text).collect()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some((_, Value::Bool(on))) => Ok(Some(*on)),
            Some((key, other)) => Err(self.wrong(key, "`true` or `false`", other)),
        }
    }

    /// Names alone: variables are looked up one by one, so that nothing can be looked up by how it begins.
    pub(super) fn variable_names(&self, key: &str) -> Result<Vec<String>, Error> {
        let names = self.texts(key)?;
        let is_none = |name: &String| name.is_empty() || name.contains(['=', '*', '?', '\0']);
        match names.iter().position(is_none) {
            None => Ok(names),
            Some(index) => {
                let message = format!("expected the full name of a variable, found `{}`", names[index]);
                Err(self.fault(&format!("{key}[{index}]"), message))
            }
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some((key, found)) = self.get(key) else { return Ok(None) };
        let count = found.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        count.map(Some).ok_or_else(|| self.wrong(key, "a whole number from 1 up", found))
    }

    pub(super) fn rate(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some((key, found)) = self.get(key) else { return Ok(None) };
        let rate = found.as_f64().filter(|rate| rate.is_finite() && *rate > 0.0);
        rate.map(Some).ok_or_else(|| self.wrong(key, "a number over 0", found))
    }

    /// A duration: a number of seconds, or a text with a unit.
    pub(super) fn seconds(&self, key: &str) -> Result<Option<Duration>, Error> {
        let Some((key, found)) = self.get(key) else { return Ok(None) };
        if let Value::String(text) = found {
            // What is expected says nothing of the text, which may be anything.
            return units::parse_duration(text).map(Some).map_err(|message| self.fault(key, message));
        }
        let wrong = || self.wrong(key, "a positive number of seconds", found);
        let number = found.as_f64().filter(|number| *number > 0.0).ok_or_else(wrong)?;
        let folded = fold(key);
        let is_milliseconds =
            folded.ends_with("ms") || matches!(&*folded, "timeout" | "inittimeout") && number >= MILLISECONDS;
        let seconds = if is_milliseconds { number / 1000.0 } else { number };
        if is_milliseconds && !folded.ends_with("ms") {
            let message = format!(
                "`{found}` is taken as milliseconds, as other clients write them: {seconds} s. Durations are in seconds here: write \
                 {seconds}, or \"{number}ms\""
            );
            self.warn(key, message);
        }
        units::from_seconds(seconds).map(Some).ok_or_else(|| self.fault(key, units::no_duration(seconds)))
    }

    /// The fields that nobody asked for.
    pub(super) fn unknown(&self) -> Vec<&'a String> {
        let asked = self.notes.asked.borrow();
        let is_unknown = |key: &&String| !asked.contains(key.as_str()) && !OTHERS.contains(&key.as_str());
        self.fields.keys().filter(is_unknown).collect()
    }

    /// The known key that comes so near to one that is not known that it was meant, most likely.
    pub(super) fn nearest(&self, key: &str) -> Option<String> {
        let folded = fold(key);
        let asked = self.notes.asked.borrow();
        let near =
            asked.iter().map(String::as_str).map(|name| (strsim::damerau_levenshtein(&fold(name), &folded), name));
        // Of two forms of a name, the one that is written like this.
        let is_like = |name: &str| name.contains('_') == key.contains('_');
        let (distance, name) = near.min_by_key(|(distance, name)| (*distance, !is_like(name)))?;
        let slips = if folded.len() < 6 { 1 } else { 2 };
        (folded.len() > 2 && distance <= slips).then(|| name.into())
    }
}

/// A text, or what becomes one.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}
