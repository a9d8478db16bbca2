//! Numbers as a tool's schema wants them. To JSON Schema `30.0` is an integer, to most servers it is not; and integers beyond 64 bits are
//! strings in scripts. Where the schema clearly wants an integer, it is sent as one.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use crate::tool::Digits;

/// What a schema takes, as far as it matters here.
const INTEGER: u8 = 1;
const FRACTION: u8 = 2;
const STRING: u8 = 4;
const OTHER: u8 = 8;
const ALL: u8 = INTEGER | FRACTION | STRING | OTHER;

/// Changes what is to be an integer into one. Integers of more than 64 bits become floats that are near to them, for a validator, and their
/// digits are in what is returned. The schema is one without references.
pub(super) fn fit(arguments: &mut Value, schema: &Value) -> Option<Digits> {
    if !may_change(arguments) {
        return None;
    }
    Wanted::new(Schemas::One(schema)).fit(arguments)
}

/// Whether there is a number or a string in it that could be changed.
fn may_change(value: &Value) -> bool {
    match value {
        Value::Number(number) => whole(number).is_some(),
        Value::String(text) => is_long_integer(text),
        Value::Array(items) => items.iter().any(may_change),
        Value::Object(properties) => properties.values().any(may_change),
        _ => false,
    }
}

/// The integer that a float is.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it is checked"
)]
fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
    // The ends of the ranges are powers of two, which floats have.
    if (i64::MIN as f64..-(i64::MIN as f64)).contains(&float) {
        Some((float as i64).into())
    } else if (0.0..-2.0 * (i64::MIN as f64)).contains(&float) {
        Some((float as u64).into())
    } else {
        None
    }
}

/// Whether a script got this string for an integer.
fn is_long_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.len() > 18
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<i64>().is_err()
}

/// The schemas that hold for one value.
enum Schemas<'a> {
    One(&'a Value),
    All(Vec<Self>),
    Either(Vec<Self>),
}

/// Schemas, and what they take, once that is asked for.
struct Wanted<'a> {
    schemas: Schemas<'a>,
    kinds: OnceCell<u8>,
}

impl<'a> Wanted<'a> {
    fn new(schemas: Schemas<'a>) -> Self {
        Self { schemas, kinds: OnceCell::new() }
    }

    fn takes(&self, kind: u8) -> bool {
        self.kinds.get_or_init(|| self.schemas.kinds()) & kind != 0
    }

    fn fit(&self, value: &mut Value) -> Option<Digits> {
        match value {
            Value::Number(number) if self.takes(INTEGER) && !self.takes(FRACTION) => {
                if let Some(whole) = whole(number) {
                    *number = whole;
                }
                None
            }
            Value::String(text) if is_long_integer(text) && self.takes(INTEGER) && !self.takes(STRING) => {
                if let Ok(number) = text.parse::<u64>() {
                    *value = number.into();
                    return None;
                }
                let near = Number::from_f64(text.parse().ok()?)?;
                let digits = Digits::Here(std::mem::take(text));
                *value = Value::Number(near);
                Some(digits)
            }
            Value::Array(_) | Value::Object(_) => self.fit_inside(value),
            _ => None,
        }
    }

    fn fit_inside(&self, value: &mut Value) -> Option<Digits> {
        let inside = self.schemas.inside(value)?;
        match value {
            Value::Array(items) => {
                let listed = inside.listed();
                let others = Self::new(inside.item(listed));
                let mut found = BTreeMap::new();
                for (index, item) in items.iter_mut().enumerate() {
                    let digits =
                        if index < listed { Self::new(inside.item(index)).fit(item) } else { others.fit(item) };
                    found.extend(digits.map(|digits| (index, digits)));
                }
                (!found.is_empty()).then_some(Digits::Items(found))
            }
            Value::Object(properties) => {
                let mut found = BTreeMap::new();
                for (name, value) in properties {
                    let digits = Self::new(inside.property(name)).fit(value);
                    found.extend(digits.map(|digits| (name.clone(), digits)));
                }
                (!found.is_empty()).then_some(Digits::Properties(found))
            }
            _ => None,
        }
    }
}

impl<'a> Schemas<'a> {
    /// What a value may be that is neither a list nor a map.
    fn kinds(&self) -> u8 {
        match self {
            Self::One(schema) => kinds(schema),
            Self::All(schemas) => schemas.iter().fold(ALL, |kinds, schema| kinds & schema.kinds()),
            Self::Either(schemas) => schemas.iter().fold(0, |kinds, schema| kinds | schema.kinds()),
        }
    }

    /// The schemas that hold for a list or a map, without the alternatives that it is clearly none of; `None` where nothing is left.
    fn inside(&self, value: &Value) -> Option<Inside<'a>> {
        match self {
            Self::One(schema) => inside(schema, value),
            Self::All(schemas) => {
                Some(Inside::All(schemas.iter().map(|schema| schema.inside(value)).collect::<Option<_>>()?))
            }
            Self::Either(schemas) => {
                let left: Vec<Inside> = schemas.iter().filter_map(|schema| schema.inside(value)).collect();
                (!left.is_empty()).then_some(Inside::Either(left))
            }
        }
    }
}

fn kinds(schema: &Value) -> u8 {
    let Value::Object(keywords) = schema else { return if *schema == Value::Bool(false) { 0 } else { ALL } };
    let parts = |keyword: &str| keywords.get(keyword).and_then(Value::as_array);
    let mut taken = match keywords.get("type") {
        Some(Value::String(kind)) => named(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).fold(0, |kinds, kind| kinds | named(kind)),
        _ => ALL,
    };
    let values = keywords.get("const").map(std::slice::from_ref).or_else(|| parts("enum").map(Vec::as_slice));
    if let Some(values) = values {
        taken &= values.iter().fold(0, |kinds, value| kinds | kind_of(value));
    }
    if let Some(schemas) = parts("anyOf") {
        taken &= schemas.iter().fold(0, |taken, schema| taken | kinds(schema));
    }
    parts("allOf").into_iter().flatten().fold(taken, |taken, schema| taken & kinds(schema))
}

fn named(kind: &str) -> u8 {
    match kind {
        "integer" => INTEGER,
        "number" => INTEGER | FRACTION,
        "string" => STRING,
        "boolean" | "null" | "array" | "object" => OTHER,
        _ => ALL,
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Number(number) if number.is_f64() => FRACTION,
        Value::Number(_) => INTEGER,
        Value::String(_) => STRING,
        _ => OTHER,
    }
}

/// The schemas that hold for a list or a map, of which its items and properties have theirs.
enum Inside<'a> {
    One(&'a Map<String, Value>),
    All(Vec<Self>),
    Either(Vec<Self>),
}

fn inside<'a>(schema: &'a Value, value: &Value) -> Option<Inside<'a>> {
    let Value::Object(keywords) = schema else {
        return (*schema != Value::Bool(false)).then(|| Inside::All(Vec::new()));
    };
    if !may_be(keywords, value) {
        return None;
    }
    let mut all = vec![Inside::One(keywords)];
    let parts = |keyword: &str| keywords.get(keyword).and_then(Value::as_array);
    for schema in parts("allOf").into_iter().flatten() {
        all.push(inside(schema, value)?);
    }
    if let Some(schemas) = parts("anyOf") {
        let left: Vec<Inside> = schemas.iter().filter_map(|schema| inside(schema, value)).collect();
        if left.is_empty() {
            return None;
        }
        all.push(Inside::Either(left));
    }
    Some(Inside::All(all))
}

/// Whether a list or a map may be what a schema describes: by its type, its properties such as `"kind": "file"`, and which there are.
fn may_be(keywords: &Map<String, Value>, value: &Value) -> bool {
    let is_named = |kind: &Value| kind == if value.is_array() { "array" } else { "object" };
    let has_type = match keywords.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is_named),
        Some(kind @ Value::String(_)) => is_named(kind),
        _ => true,
    };
    let Value::Object(given) = value else { return has_type };
    let known = keywords.get("properties").and_then(Value::as_object);
    let is_one_of = |schema: &Value, value: &Value| match (schema.get("const"), schema.get("enum")) {
        (Some(constant), _) => constant == value || !constant.is_string(),
        (None, Some(Value::Array(values))) => values.iter().any(|other| other == value || !other.is_string()),
        _ => true,
    };
    let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten();
    let is_closed = keywords.get("additionalProperties") == Some(&Value::Bool(false))
        && !keywords.contains_key("patternProperties");
    has_type
        && required.filter_map(Value::as_str).all(|name| given.contains_key(name))
        && known
            .into_iter()
            .flatten()
            .all(|(name, schema)| given.get(name).is_none_or(|value| is_one_of(schema, value)))
        && (!is_closed || given.keys().all(|name| known.is_some_and(|known| known.contains_key(name))))
}

impl<'a> Inside<'a> {
    fn each(&self, of: &impl Fn(&'a Map<String, Value>) -> Option<&'a Value>) -> Schemas<'a> {
        match self {
            Self::One(keywords) => of(keywords).map_or_else(|| Schemas::All(Vec::new()), Schemas::One),
            Self::All(all) => Schemas::All(all.iter().map(|inside| inside.each(of)).collect()),
            Self::Either(all) => Schemas::Either(all.iter().map(|inside| inside.each(of)).collect()),
        }
    }

    /// The schemas of a property. Which patterns a name matches is not looked at, so that with patterns nothing is clear.
    fn property(&self, name: &str) -> Schemas<'a> {
        self.each(&|keywords| {
            let listed = keywords.get("properties").and_then(|properties| properties.get(name));
            let others = keywords.get("additionalProperties").filter(|_| !keywords.contains_key("patternProperties"));
            listed.or(others)
        })
    }

    /// The schemas of an item. Before draft 2020-12, `items` was what `prefixItems` is now.
    fn item(&self, index: usize) -> Schemas<'a> {
        self.each(&|keywords| {
            let (listed, others) = list(keywords);
            listed.and_then(|listed| listed.get(index)).or(others)
        })
    }

    /// How many items may have schemas of their own.
    fn listed(&self) -> usize {
        match self {
            Self::One(keywords) => list(keywords).0.map_or(0, Vec::len),
            Self::All(all) | Self::Either(all) => all.iter().map(Self::listed).max().unwrap_or_default(),
        }
    }
}

/// The schemas of the first items, and of the others.
fn list(keywords: &Map<String, Value>) -> (Option<&Vec<Value>>, Option<&Value>) {
    match (keywords.get("prefixItems"), keywords.get("items")) {
        (Some(Value::Array(listed)), others) => (Some(listed), others),
        (_, Some(Value::Array(listed))) => (Some(listed), keywords.get("additionalItems")),
        (_, others) => (None, others),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: &Value, given: &str, sent: &str) {
        let schema = json!({"properties": {"a": schema}});
        let mut value: Value = serde_json::from_str(&format!(r#"{{"a":{given}}}"#)).unwrap();
        let digits = fit(&mut value, &schema);
        if let Some(digits) = &digits {
            digits.write_as_strings(&mut value);
        }
        let with_digits = crate::tool::WithDigits { value: &value, digits: digits.as_ref() };
        assert_eq!(serde_json::to_string(&with_digits).unwrap(), format!(r#"{{"a":{sent}}}"#), "{schema}");
    }

    #[test]
    fn whole_floats_are_integers_where_these_are_wanted() {
        let integer = || json!({"type": "integer"});
        check(&integer(), "30.0", "30");
        check(&integer(), "-0.0", "0");
        check(&integer(), "7.5", "7.5");
        check(&integer(), "1e300", "1e+300");
        check(&integer(), "9223372036854775808.0", "9223372036854775808");
        check(&integer(), "18446744073709551616.0", "1.8446744073709552e+19");
        check(&integer(), "-9223372036854775808.0", "-9223372036854775808");
        for open in [
            json!({}),
            json!(true),
            json!({"type": "number"}),
            json!({"type": ["integer", "number"]}),
            json!({"minimum": 0}),
        ] {
            check(&open, "2.0", "2.0");
        }
        check(&json!({"anyOf": [integer(), {"type": "null"}]}), "2.0", "2");
        check(&json!({"anyOf": [integer(), {"type": "number"}]}), "2.0", "2.0");
        check(&json!({"anyOf": [integer(), {"type": "string"}]}), "2.0", "2");
        check(&json!({"allOf": [{"type": "number"}, integer()]}), "2.0", "2");
        check(&json!({"type": ["integer", "null"]}), "2.0", "2");
        check(&json!({"enum": [1, 2]}), "2.0", "2");
        check(&json!({"const": 2.0}), "2.0", "2.0");
    }

    #[test]
    fn it_goes_as_deep_as_the_arguments() {
        let integer = || json!({"type": "integer"});
        check(&json!({"items": integer()}), "[1.0,[2.0],3.5]", "[1,[2.0],3.5]");
        check(
            &json!({"prefixItems": [integer(), {"type": "number"}], "items": integer()}),
            "[1.0,2.0,3.0]",
            "[1,2.0,3]",
        );
        check(&json!({"items": [integer()], "additionalItems": integer()}), "[1.0,2.0]", "[1,2]");
        check(
            &json!({"properties": {"b": integer()}, "additionalProperties": integer()}),
            r#"{"b":1.0,"c":2.0}"#,
            r#"{"b":1,"c":2}"#,
        );
        check(
            &json!({"patternProperties": {"c": {}}, "additionalProperties": integer()}),
            r#"{"c":2.0}"#,
            r#"{"c":2.0}"#,
        );
        check(&json!({"allOf": [{"properties": {"b": integer()}}]}), r#"{"b":1.0}"#, r#"{"b":1}"#);
        let window = |kind: &str, days: &Value| json!({"properties": {"kind": {"const": kind}, "days": days}, "required": ["kind"]});
        let windows = json!({"anyOf": [window("whole", &integer()), window("part", &json!({"type": "number"})), {"type": "null"}]});
        check(&windows, r#"{"kind":"whole","days":7.0}"#, r#"{"kind":"whole","days":7}"#);
        check(&windows, r#"{"kind":"part","days":7.0}"#, r#"{"kind":"part","days":7.0}"#);
        check(&windows, r#"{"days":7.0}"#, r#"{"days":7.0}"#);
        let either = json!({"anyOf": [{"type": "array", "items": integer()}, {"type": "object", "additionalProperties": {"type": "number"}}]});
        check(&either, "[7.0]", "[7]");
        check(&either, r#"{"b":7.0}"#, r#"{"b":7.0}"#);
    }

    #[test]
    fn digits_are_numbers_where_integers_are_wanted() {
        let (integer, long) = (json!({"type": "integer"}), "123456789012345678901234567890");
        let quoted = |digits: &str| format!("\"{digits}\"");
        check(&integer, &quoted(long), long);
        check(&integer, &quoted(&format!("-{long}")), &format!("-{long}"));
        check(&integer, &quoted("18446744073709551615"), "18446744073709551615");
        check(&json!({"type": "number"}), &quoted(long), long);
        check(
            &json!({"items": {"properties": {"b": integer}}}),
            &format!(r#"[1,{{"b":"{long}"}}]"#),
            &format!(r#"[1,{{"b":{long}}}]"#),
        );
        for text in
            ["5", "9223372036854775807", "0123456789012345678901", "12345678901234567890x", "1234567890123456789.5"]
        {
            check(&integer, &quoted(text), &quoted(text));
        }
        for open in
            [json!({}), json!({"type": "string"}), json!({"type": ["integer", "string"]}), json!({"type": "boolean"})]
        {
            check(&open, &quoted(long), &quoted(long));
        }
    }
}
