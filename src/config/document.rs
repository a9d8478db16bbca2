//! A configuration as a text: JSON with comments, or TOML, read; the text edited where something changes, so that comments stay. Knows
//! nothing of servers.

use std::collections::HashSet;

use jsonc_parser::ast::Value as Ast;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions};
use serde_json::Value;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// How a text is to be read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Format {
    Json,
    Toml,
    Yaml,
}

impl Format {
    /// By the end of a file's name.
    pub(super) fn of_file(path: &std::path::Path) -> Self {
        let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
        match end.as_deref() {
            Some("toml") => Self::Toml,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }

    /// What a text that is no JSON seems to be, by its first line that says something.
    fn guessed(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' ');
        match lines.next() {
            Some(line) if line.starts_with('[') && line.ends_with(']') && line.contains(char::is_alphabetic) => {
                Self::Toml
            }
            Some(line) if line.split_once('=').is_some_and(|(key, _)| key.chars().all(is_word)) => Self::Toml,
            Some("---") => Self::Yaml,
            Some(line) if line.split_once(':').is_some_and(|(key, _)| !key.is_empty() && key.chars().all(is_word)) => {
                Self::Yaml
            }
            _ => Self::Json,
        }
    }
}

/// JSON as most clients read it: with comments and commas at the end, and nothing else.
fn options() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// What a text holds. The error has the line and column.
pub(super) fn read(text: &str, format: Format) -> Result<Value, String> {
    let text = without_mark(text);
    match format {
        Format::Json => json(text).map_err(|error| match Format::guessed(text) {
            Format::Json => format!("not JSON: {error}"),
            Format::Toml => {
                format!("not JSON: {error}; it looks like TOML, which is read from files whose names end with `.toml`")
            }
            Format::Yaml => yaml(),
        }),
        Format::Toml => {
            let error = |error: toml::de::Error| {
                let place = error.span().map(|span| place(text, span.start)).unwrap_or_default();
                format!("not TOML: {}{place}", error.message())
            };
            toml::from_str(text).map_err(error)
        }
        Format::Yaml => Err(yaml()),
    }
}

fn json(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    // Once for keys that are repeated, and once for values, as only the other reader takes numbers as JSON has them.
    let parsed =
        jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &options()).map_err(|error| told(&error))?;
    if let Some((key, at)) = parsed.value.as_ref().and_then(repeated) {
        return Err(format!("the key `{key}` is there twice in one object, again{}: keep one", place(text, at)));
    }
    jsonc_parser::parse_to_serde_value(text, &options()).map_err(|error| told(&error))
}

/// What is wrong, and where.
fn told(error: &ParseError) -> String {
    let what = match error.kind() {
        ParseErrorKind::String(kind) => kind.to_string(),
        kind => kind.to_string(),
    };
    let mut letters = what.chars();
    let first = letters.next().map(|letter| letter.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{} at line {} column {}", letters.as_str(), error.line_display(), error.column_display())
}

/// A key that is there twice in one object, where readers differ in which they take; and the place of the second.
fn repeated(value: &Ast<'_>) -> Option<(String, usize)> {
    match value {
        Ast::Array(array) => array.elements.iter().find_map(repeated),
        Ast::Object(object) => {
            let mut seen = HashSet::new();
            let again = object.properties.iter().find(|property| !seen.insert(property.name.as_str()));
            let again = again.map(|property| (property.name.as_str().into(), property.range.start));
            again.or_else(|| object.properties.iter().find_map(|property| repeated(&property.value)))
        }
        _ => None,
    }
}

fn yaml() -> String {
    "it looks like YAML, and only JSON (comments are fine) and TOML are read: write it as \
     {\"mcpServers\": {\"name\": {\"command\": \"program\", \"args\": [\"…\"], \"env\": {\"KEY\": \"…\"}}}}"
        .into()
}

fn place(text: &str, at: usize) -> String {
    let before = &text[..text.floor_char_boundary(at)];
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count());
    format!(" at line {} column {}", before.matches('\n').count() + 1, column + 1)
}

fn without_mark(text: &str) -> &str {
    text.trim_start_matches(BYTE_ORDER_MARK)
}

/// The text with the value at the place `keys` set, or removed. `None` where the text can't be edited so that it has just that.
pub(super) fn edited(text: &str, keys: &[&str], value: Option<&Value>, document: &Value) -> Option<String> {
    let bare = without_mark(text);
    let root = CstRootNode::parse(bare, &options()).ok()?;
    let (name, folders) = keys.split_last()?;
    let mut object = root.object_value_or_create()?;
    for folder in folders {
        object = object.object_value_or_create(folder)?;
    }
    match (object.get(name), value) {
        (Some(property), Some(value)) => property.set_value(input(value)),
        (None, Some(value)) => drop(object.append(name, input(value))),
        (Some(property), None) => property.remove(),
        (None, None) => {}
    }
    let edited = format!("{}{root}", &text[..text.len() - bare.len()]);
    // A key that is there twice, say: better without comments than with something else.
    (json(without_mark(&edited)).as_ref() == Ok(document)).then_some(edited)
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(fields) => {
            CstInputValue::Object(fields.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}
