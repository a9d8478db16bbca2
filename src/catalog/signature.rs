//! A tool's parameters as text: `(#{owner: string, state?: "open" | "closed" = "open"})`, in the notation of scripts as far as it goes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{names, schema};

/// Longest parameters, maps in them, and maps in those, in characters; what may be left out is cut first.
const LONGEST: [usize; 3] = [400, 160, 80];
/// Most values of an enumeration, and most types of a union; the longest literal, in characters.
const ALTERNATIVES: usize = 6;
const LITERAL: usize = 40;

/// The parameters of a tool as in a call; `()` where it has none.
pub(super) fn parameters(input_schema: &Value) -> String {
    let Some(tree) = schema::tree(input_schema, &|_| true) else { return "(#{…})".into() };
    let properties = properties_of(&tree.schema);
    if properties.is_empty() {
        return "()".into();
    }
    let mut text = String::new();
    for depth in (0..LONGEST.len()).rev() {
        text = format!("({})", Writer { depth }.map(&tree.schema, &properties, 0));
        if text.chars().count() <= LONGEST[0] + "(#{, …})".len() {
            break;
        }
    }
    text
}

/// The type of a value.
pub(super) fn kind(schema: &Value) -> String {
    Writer { depth: LONGEST.len() - 1 }.kind(schema, 1)
}

fn union(mut kinds: Vec<String>) -> String {
    let mut seen = BTreeSet::new();
    kinds.retain(|kind| seen.insert(kind.clone()));
    if kinds.is_empty() || kinds.iter().any(|kind| kind == "any") {
        return "any".into();
    }
    if kinds.len() > ALTERNATIVES {
        kinds.truncate(ALTERNATIVES);
        kinds.push("…".into());
    }
    kinds.join(" | ")
}

/// Writes types, with the properties of maps down to a depth; the parameters themselves are at level 0.
struct Writer {
    depth: usize,
}

impl Writer {
    fn kind(&self, schema: &Value, level: usize) -> String {
        union(self.alternatives(schema, level))
    }

    /// The type of a value that may also be left out: that it may be `()` too says nothing more.
    fn optional(&self, schema: &Value, level: usize) -> String {
        let mut kinds = self.alternatives(schema, level);
        if kinds.len() > 1 {
            kinds.retain(|kind| kind != "()");
        }
        union(kinds)
    }

    fn alternatives(&self, schema: &Value, level: usize) -> Vec<String> {
        let any = || vec!["any".to_string()];
        let Value::Object(keywords) = schema else { return any() };
        if let Some(constant) = keywords.get("const") {
            return vec![literal(constant)];
        }
        if let Some(Value::Array(values)) = keywords.get("enum") {
            return values.iter().map(literal).collect();
        }
        let parts = |keyword: &str| keywords.get(keyword).and_then(Value::as_array).into_iter().flatten();
        let is_any = |kinds: &[String]| kinds.is_empty() || kinds.iter().any(|kind| kind == "any");
        let kinds: Vec<String> = parts("anyOf").flat_map(|schema| self.alternatives(schema, level)).collect();
        if !is_any(&kinds) {
            return kinds;
        }
        match keywords.get("type") {
            Some(Value::String(kind)) => vec![self.plain(kind, schema, level)],
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).map(|kind| self.plain(kind, schema, level)).collect()
            }
            _ if keywords.contains_key("properties") => vec![self.plain("object", schema, level)],
            _ if keywords.contains_key("items") => vec![self.plain("array", schema, level)],
            _ => parts("allOf")
                .map(|schema| self.alternatives(schema, level))
                .find(|kinds| !is_any(kinds))
                .unwrap_or_else(any),
        }
    }

    fn plain(&self, kind: &str, schema: &Value, level: usize) -> String {
        match kind {
            "null" => "()".into(),
            "array" => {
                let items = schema.get("items").map_or_else(|| "any".into(), |items| self.kind(items, level));
                // Whoever goes deeper reads the schema.
                if items.starts_with("[[") { "[[any]]".into() } else { format!("[{items}]") }
            }
            "object" => match &properties_of(schema)[..] {
                [] => "map".into(),
                _ if level > self.depth => "map".into(),
                properties => self.map(schema, properties, level),
            },
            "string" | "integer" | "number" | "boolean" => kind.into(),
            _ => "any".into(),
        }
    }

    fn map(&self, schema: &Value, properties: &[(&String, &Value)], level: usize) -> String {
        let (required, others): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| is_required(schema, name));
        let required = required.into_iter().map(|(name, schema)| {
            let property = format!("{}: {}", key(name), self.kind(schema, level + 1));
            (property, true)
        });
        let others = others.into_iter().map(|(name, schema)| {
            let property = format!("{}?: {}{}", key(name), self.optional(schema, level + 1), default(schema));
            (property, false)
        });
        let longest = LONGEST.get(level).copied().unwrap_or_default();
        let mut written = Vec::new();
        let mut length = 0;
        for (property, is_required) in required.chain(others) {
            length += property.chars().count() + 2;
            if length > if is_required { 2 * longest } else { longest } {
                written.push("…".to_string());
                break;
            }
            written.push(property);
        }
        format!("#{{{}}}", written.join(", "))
    }
}

/// Properties in the order of the schema, those of its parts too.
fn properties_of(schema: &Value) -> Vec<(&String, &Value)> {
    let own = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    own.chain(parts.flat_map(properties_of)).collect()
}

fn is_required(schema: &Value, name: &str) -> bool {
    let own = schema.get("required").and_then(Value::as_array).into_iter().flatten().any(|required| required == name);
    let parts = schema.get("allOf").and_then(Value::as_array);
    own || parts.into_iter().flatten().any(|schema| is_required(schema, name))
}

fn key(name: &str) -> String {
    if names::is_identifier(name) { name.into() } else { quoted(name) }
}

fn default(schema: &Value) -> String {
    match schema.get("default") {
        Some(Value::Array(items)) if items.is_empty() => " = []".into(),
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => format!(" = {}", literal(value)),
        _ => String::new(),
    }
}

/// A value as a script writes it, of a long text the start.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "()".into(),
        Value::String(text) => match text.char_indices().nth(LITERAL) {
            Some((end, _)) => quoted(&format!("{}…", &text[..end])),
            None => quoted(text),
        },
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) => "[any]".into(),
        Value::Object(_) => "map".into(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(properties: &Value, expected: &str) {
        assert_eq!(parameters(&json!({"properties": properties, "required": ["z"]})), expected);
    }

    #[test]
    fn types_are_written_as_in_a_script() {
        check(&json!({}), "()");
        check(
            &json!({"a": {"type": "integer", "default": 5}, "z": {"type": "string"}}),
            "(#{z: string, a?: integer = 5})",
        );
        check(
            &json!({"a-b": {}, "if": true, "z": {"type": ["string", "null"]}}),
            r#"(#{z: string | (), "a-b"?: any, "if"?: any})"#,
        );
        check(&json!({"a": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": null}}), "(#{a?: number})");
        check(&json!({"a": {"enum": ["x", 1, true, null], "default": "x"}}), r#"(#{a?: "x" | 1 | true = "x"})"#);
        check(&json!({"a": {"enum": (0..9).collect::<Vec<_>>()}}), "(#{a?: 0 | 1 | 2 | 3 | 4 | 5 | …})");
        check(
            &json!({"a": {"items": {"type": "string"}, "default": []}, "b": {"const": "k"}}),
            r#"(#{a?: [string] = [], b?: "k"})"#,
        );
        check(
            &json!({"a": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}}),
            "(#{a?: string | [string]})",
        );
        check(&json!({"a": {"type": "object", "anyOf": [{"required": ["x"]}]}}), "(#{a?: map})");
        check(&json!({"a": {"allOf": [{"type": "string"}, {"minLength": 1}]}}), "(#{a?: string})");
        let long = "x".repeat(41);
        check(
            &json!({"a": {"type": "string", "default": long}, "b": {"enum": [long, "y"]}}),
            &format!(r#"(#{{a?: string = "{0}…", b?: "{0}…" | "y"}})"#, "x".repeat(40)),
        );
        check(&json!({"a": {"enum": []}, "b": {"type": "strange"}}), "(#{a?: any, b?: any})");
        check(&json!({"a": {"items": {"items": {"items": {"type": "string"}}}}}), "(#{a?: [[any]]})");
    }

    #[test]
    fn maps_are_written_to_a_depth_and_a_length() {
        let map = |property: Value| json!({"properties": {"z": property, "o": {"type": "boolean"}}, "required": ["z"]});
        let deep = map(map(map(json!({"type": "string"}))));
        assert_eq!(parameters(&deep), "(#{z: #{z: #{z: string, o?: boolean}, o?: boolean}, o?: boolean})");
        assert_eq!(parameters(&map(deep.clone())), "(#{z: #{z: #{z: map, o?: boolean}, o?: boolean}, o?: boolean})");
        let many: Value =
            (0..99).map(|index| (format!("property_{index}"), json!({}))).collect::<serde_json::Map<_, _>>().into();
        let text = parameters(&json!({"properties": many}));
        assert!((350..=410).contains(&text.chars().count()) && text.ends_with(", …})"), "{text}");
        // Where the parameters themselves would not fit, maps in them are not written out.
        let maps: Value =
            (0..20).map(|index| (format!("z{index}"), deep.clone())).collect::<serde_json::Map<_, _>>().into();
        let names: Vec<String> = (0..20).map(|index| format!("z{index}")).collect();
        let text = parameters(&json!({"properties": maps, "required": names}));
        assert!(text.starts_with("(#{z0: map, z1: map, ") && text.ends_with("z19: map})"), "{text}");
    }
}
