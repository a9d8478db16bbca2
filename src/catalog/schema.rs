//! A tool's input schema as one tree: references inlined, annotations left out, and where something can't be said in full, said more
//! laxly, never more strictly. So no reference is ever fetched, and what the tree costs is known before it is compiled.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// How many references are followed inside each other: the most with which the tree stays small. What is below accepts everything.
const REFERENCES: [usize; 5] = [8, 4, 2, 1, 0];
/// Most JSON values in a tree, and most schemas inside each other.
const VALUES: usize = 10_000;
const LEVELS: usize = 64;
/// Most patterns in a tree, and the longest, in bytes.
const PATTERNS: usize = 64;
const PATTERN: usize = 2 << 10;

/// A schema without references.
pub(super) struct Tree {
    pub(super) schema: Value,
    /// JSON values in it.
    pub(super) values: usize,
    pub(super) patterns: usize,
    /// Whether all that it accepts is known; not where it refers to what is not in it.
    pub(super) complete: bool,
}

/// The tree of a schema; `None` where it is too big. Patterns that `is_pattern` does not take are left out.
pub(super) fn tree(schema: &Value, is_pattern: &dyn Fn(&str) -> bool) -> Option<Tree> {
    // Up to draft 7, what stands beside a reference counts for nothing.
    let only_reference =
        ["draft-03", "draft-04", "draft-06", "draft-07"].iter().any(|draft| declared(schema).contains(draft));
    REFERENCES.into_iter().find_map(|references| {
        let mut inliner = Inliner {
            root: schema,
            is_pattern,
            only_reference,
            references,
            values: 0,
            patterns: 0,
            levels: 0,
            lax: false,
            complete: true,
        };
        let schema = inliner.schema(schema, 0);
        let Inliner { values, patterns, complete, .. } = inliner;
        (values <= VALUES).then_some(Tree { schema, values, patterns, complete })
    })
}

/// What a schema says it is written in.
pub(super) fn declared(schema: &Value) -> &str {
    schema.get("$schema").and_then(Value::as_str).unwrap_or_default()
}

struct Inliner<'a> {
    root: &'a Value,
    is_pattern: &'a dyn Fn(&str) -> bool,
    only_reference: bool,
    references: usize,
    values: usize,
    patterns: usize,
    levels: usize,
    /// Whether something was said more laxly than it was.
    lax: bool,
    complete: bool,
}

impl Inliner<'_> {
    fn schema(&mut self, schema: &Value, references: usize) -> Value {
        self.values += 1;
        let Value::Object(keywords) = schema else { return schema.clone() };
        // The rest of a tree that is too big is not made.
        if self.values > VALUES {
            return Value::Bool(true);
        }
        if self.levels == LEVELS {
            self.values = VALUES + 1;
            return Value::Bool(true);
        }
        self.levels += 1;
        let outer = std::mem::take(&mut self.lax);
        let made = match keywords.get("$ref") {
            Some(reference) => self.reference(reference, keywords, references),
            None => self.keywords(keywords, references),
        };
        self.lax |= outer;
        self.levels -= 1;
        made
    }

    fn reference(&mut self, reference: &Value, keywords: &Map<String, Value>, references: usize) -> Value {
        let pointer = reference.as_str().and_then(|reference| reference.strip_prefix('#')).map(without_percents);
        let Some(target) = pointer.and_then(|pointer| self.root.pointer(&pointer)) else {
            self.complete = false;
            return Value::Bool(true);
        };
        if references == self.references {
            self.lax = true;
            return Value::Bool(true);
        }
        let target = self.schema(target, references + 1);
        let mut beside = keywords.clone();
        beside.shift_remove("$ref");
        let Value::Object(mut beside) = self.keywords(&beside, references) else { return target };
        if self.only_reference {
            return target;
        }
        match (target, beside.len()) {
            (target, 0) => target,
            (Value::Object(mut target), 1) if beside.contains_key("default") => {
                target.append(&mut beside);
                Value::Object(target)
            }
            (target, _) => {
                let mut all = vec![target];
                if let Some(Value::Array(others)) = beside.get_mut("allOf") {
                    all.append(others);
                }
                beside.insert("allOf".into(), Value::Array(all));
                Value::Object(beside)
            }
        }
    }

    fn keywords(&mut self, keywords: &Map<String, Value>, references: usize) -> Value {
        let mut made = Map::new();
        for (keyword, value) in keywords {
            let value = match (keyword.as_str(), value) {
                // Formats and encodings are annotations too, as servers take them lightly.
                (
                    "$schema" | "$comment" | "$defs" | "definitions" | "$anchor" | "id" | "title" | "description"
                    | "examples" | "deprecated" | "readOnly" | "writeOnly" | "format" | "contentEncoding"
                    | "contentMediaType" | "contentSchema",
                    _,
                ) => continue,
                // In a part of the schema, it changes what references mean.
                ("$id", id) => {
                    self.complete &= self.root.get("$id") == Some(id);
                    continue;
                }
                ("$dynamicRef" | "$recursiveRef", _) => {
                    self.complete = false;
                    continue;
                }
                ("properties" | "patternProperties" | "dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    Value::Object(self.map(schemas, references))
                }
                ("items" | "allOf" | "anyOf" | "prefixItems", Value::Array(schemas)) => self.list(schemas, references),
                // Arguments that suit two alternatives are not clearly wrong.
                ("oneOf", Value::Array(schemas)) => {
                    self.lax = true;
                    if !keywords.contains_key("anyOf") {
                        made.insert("anyOf".into(), self.list(schemas, references));
                    }
                    continue;
                }
                (
                    "items"
                    | "additionalProperties"
                    | "additionalItems"
                    | "propertyNames"
                    | "then"
                    | "else"
                    | "unevaluatedItems"
                    | "unevaluatedProperties",
                    schema,
                ) => self.schema(schema, references),
                // What is laxer inside makes these stricter.
                ("not" | "if" | "contains", schema) => {
                    let outer = std::mem::take(&mut self.lax);
                    let schema = self.schema(schema, references);
                    if self.lax {
                        continue;
                    }
                    self.lax = outer;
                    schema
                }
                // Generators list what has a default as required, and servers fill it in.
                ("required", Value::Array(names)) => {
                    let has_default = |name: &Value| {
                        name.as_str().is_some_and(|name| keywords["properties"][name].get("default").is_some())
                    };
                    let names: Vec<Value> = match keywords.get("properties") {
                        Some(_) => names.iter().filter(|name| !has_default(name)).cloned().collect(),
                        None => names.clone(),
                    };
                    self.lax |= Some(names.len()) != value.as_array().map(Vec::len);
                    self.values += names.len();
                    Value::Array(names)
                }
                // Nothing would do.
                ("enum", Value::Array(values)) if values.is_empty() => {
                    self.lax = true;
                    continue;
                }
                ("pattern", Value::String(pattern)) if !self.takes_pattern(pattern) => continue,
                (_, value) => {
                    self.values += count(value);
                    value.clone()
                }
            };
            made.insert(keyword.clone(), value);
        }
        if let Some(Value::Object(patterns)) = keywords.get("patternProperties")
            && !patterns.keys().all(|pattern| self.takes_pattern(pattern))
        {
            made.shift_remove("patternProperties");
            made.shift_remove("additionalProperties");
        }
        if self.lax {
            made.shift_remove("unevaluatedProperties");
            made.shift_remove("unevaluatedItems");
        }
        Value::Object(made)
    }

    fn map(&mut self, schemas: &Map<String, Value>, references: usize) -> Map<String, Value> {
        schemas.iter().map(|(name, schema)| (name.clone(), self.schema(schema, references))).collect()
    }

    fn list(&mut self, schemas: &[Value], references: usize) -> Value {
        schemas.iter().map(|schema| self.schema(schema, references)).collect()
    }

    fn takes_pattern(&mut self, pattern: &str) -> bool {
        let takes = self.patterns < PATTERNS && pattern.len() <= PATTERN && (self.is_pattern)(pattern);
        self.patterns += usize::from(takes);
        self.lax |= !takes;
        takes
    }
}

/// The JSON values in a value, itself included.
pub(super) fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(properties) => properties.values().map(count).sum(),
        _ => 0,
    }
}

/// `%5B` is `[` in the fragment of a reference.
fn without_percents(fragment: &str) -> Cow<'_, str> {
    if !fragment.contains('%') {
        return fragment.into();
    }
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, after) = match hex {
            Some(byte) if *first == b'%' => (byte, &after[2..]),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: &Value, expected: &Value) {
        assert_eq!(tree(schema, &|pattern| !pattern.contains('?')).unwrap().schema, *expected);
    }

    #[test]
    fn references_are_inlined() {
        let defs = json!({"A b": {"type": "string", "description": "words", "format": "uri"}});
        check(
            &json!({"properties": {"a": {"$ref": "#/$defs/A%20b", "default": "x"}, "$ref": {"type": "null"}}, "$defs": defs}),
            &json!({"properties": {"a": {"type": "string", "default": "x"}, "$ref": {"type": "null"}}}),
        );
        check(
            &json!({"items": {"$ref": "#/$defs/A b", "minLength": 2}, "$defs": defs}),
            &json!({"items": {"minLength": 2, "allOf": [{"type": "string"}]}}),
        );
        let draft_7 = "http://json-schema.org/draft-07/schema#";
        check(
            &json!({"$schema": draft_7, "items": {"$ref": "#/$defs/A b", "minLength": 2}, "$defs": defs}),
            &json!({"items": {"type": "string"}}),
        );
    }

    #[test]
    fn what_is_laxer_stays_out_of_what_it_would_make_stricter() {
        let node = json!({"type": "array", "items": {"$ref": "#"}});
        let mut expected = json!(true);
        for _ in 0..=8 {
            expected = json!({"type": "array", "items": expected});
        }
        check(&node, &expected);
        check(&json!({"a": 1, "not": {"$ref": "#"}}), &json!({"a": 1}));
        check(&json!({"not": {"pattern": "a"}}), &json!({"not": {"pattern": "a"}}));
        check(&json!({"not": {"pattern": "(?=a)"}}), &json!({}));
        check(&json!({"if": {"oneOf": [{"type": "null"}]}, "then": false}), &json!({"then": false}));
        check(&json!({"contains": {"enum": []}, "maxContains": 1}), &json!({"maxContains": 1}));
        check(
            &json!({"oneOf": [{"type": "null"}], "unevaluatedProperties": false}),
            &json!({"anyOf": [{"type": "null"}]}),
        );
        check(
            &json!({"patternProperties": {"(?=a)": {}}, "additionalProperties": false, "pattern": "(?=a)"}),
            &json!({}),
        );
        check(
            &json!({"properties": {"a": {"default": 1}, "b": {}}, "required": ["a", "b"]}),
            &json!({"properties": {"a": {"default": 1}, "b": {}}, "required": ["b"]}),
        );
    }

    #[test]
    fn references_that_are_not_here_make_it_incomplete() {
        for schema in [
            json!({"items": {"$ref": "https://example.com/schema"}}),
            json!({"items": {"$ref": "#/$defs/none"}}),
            json!({"items": {"$ref": "#anchor"}}),
            json!({"items": {"$id": "https://example.com", "$ref": 5}}),
            json!({"items": {"$id": "https://example.com"}}),
            json!({"$dynamicRef": "#"}),
        ] {
            assert!(!tree(&schema, &|_| true).unwrap().complete, "{schema}");
        }
        assert!(tree(&json!({"$id": "https://example.com", "items": {"$ref": "#"}}), &|_| true).unwrap().complete);
    }

    #[test]
    fn a_tree_is_small() {
        let pair = |index: u32| json!({"anyOf": [{"$ref": format!("#/{index}")}, {"$ref": format!("#/{index}")}, {}]});
        let mut doubling: Value =
            (1..100).map(|index| (index.to_string(), pair(index + 1))).collect::<Map<_, _>>().into();
        doubling["$ref"] = "#/1".into();
        let small = tree(&doubling, &|_| true).unwrap();
        assert!((100..=VALUES).contains(&small.values) && small.complete, "{}", small.values);
        let mut deep = json!({"type": "string"});
        for _ in 0..LEVELS {
            assert!(tree(&deep, &|_| true).is_some());
            deep = json!({"items": deep});
        }
        assert!(tree(&deep, &|_| true).is_none());
        assert!(tree(&json!({"enum": vec![0; VALUES + 1]}), &|_| true).is_none());
        let patterns: Vec<Value> = (0..PATTERNS + 5).map(|_| json!({"pattern": "a"})).collect();
        let few = tree(&json!({"anyOf": patterns}), &|_| true).unwrap();
        assert_eq!((few.patterns, few.schema["anyOf"][PATTERNS].clone()), (PATTERNS, json!({})));
    }
}
