//! Types as JSON Schema (draft 2020-12). What it takes is what `value.rs` takes, but that it does not say the range of integers that are
//! strings of digits: scripts have those for integers that are too big for them.

use serde_json::{Map, Number, Value, json};

use super::shape::{Field, Integer, Kind, Label, Shape};

type Schema = Map<String, Value>;

/// Floats that JSON has no numbers for.
pub(super) const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Of the arguments of a tool.
pub(super) fn parameters(parameters: &[Field]) -> Schema {
    record(parameters)
}

/// Of a tool's structured content, which is an object.
pub(super) fn answer(shape: Option<&Shape>) -> Schema {
    match shape {
        None => object([]),
        Some(shape) if matches!(shape.kind, Kind::Record(_)) => schema(shape, None),
        Some(shape) => object([("result", schema(shape, None), true)]),
    }
}

/// `docs` are those on where the type is used, which come before the type's own.
fn schema(shape: &Shape, docs: Option<&str>) -> Schema {
    let (mut schema, labels) = match &shape.kind {
        Kind::Enum(labels) => (keywords(json!({"type": "string", "enum": names(labels)})), label_docs(labels)),
        Kind::Flags(labels) => {
            let items = json!({"type": "string", "enum": names(labels)});
            (keywords(json!({"type": "array", "items": items, "uniqueItems": true})), label_docs(labels))
        }
        kind => (kind_schema(kind), None),
    };
    let docs = [docs, shape.docs.as_deref(), labels.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    if !docs.is_empty() {
        schema.insert("description".into(), docs.join("\n\n").into());
    }
    schema
}

fn kind_schema(kind: &Kind) -> Schema {
    match kind {
        Kind::Bool => keywords(json!({"type": "boolean"})),
        Kind::Integer(integer) => integer_schema(*integer),
        Kind::Float32 => {
            float(json!({"type": "number", "minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX)}))
        }
        Kind::Float64 => float(json!({"type": "number"})),
        Kind::Char => keywords(json!({"type": "string", "minLength": 1, "maxLength": 1})),
        Kind::String | Kind::Enum(_) => keywords(json!({"type": "string"})),
        Kind::List(item) => keywords(json!({"type": "array", "items": schema(item, None)})),
        Kind::Map(key, value) if matches!(key.kind, Kind::String) => {
            keywords(json!({"type": "object", "additionalProperties": schema(value, None)}))
        }
        Kind::Map(key, value) => keywords(json!({"type": "array", "items": tuple([&**key, &**value])})),
        Kind::Record(fields) => record(fields),
        Kind::Tuple(items) => tuple(items),
        Kind::Variant(cases) => alternatives(
            "oneOf",
            cases.iter().map(|case| {
                let tag = ("tag", keywords(json!({"const": case.label.name})), true);
                let value = case.shape.as_ref().map(|shape| ("value", schema(shape, None), !shape.kind.is_option()));
                let mut object = object([tag].into_iter().chain(value));
                if let Some(docs) = &case.label.docs {
                    object.insert("description".into(), docs.as_str().into());
                }
                object
            }),
        ),
        Kind::Flags(_) => keywords(json!({"type": "array", "items": {"type": "string"}})),
        // That there is no value and that there is none inside would both be `null`.
        Kind::Option(item) if item.kind.is_option() => {
            alternatives("anyOf", [object([("value", schema(item, None), true)]), null()])
        }
        Kind::Option(item) => alternatives("anyOf", [schema(item, None), null()]),
        Kind::Result(ok, error) => {
            let side = |name, shape: &Option<Box<Shape>>| {
                object([(name, shape.as_deref().map_or_else(null, |shape| schema(shape, None)), true)])
            };
            alternatives("oneOf", [side("ok", ok), side("error", error)])
        }
    }
}

fn integer_schema(integer: Integer) -> Schema {
    let (least, most) = integer.range();
    let limit = |limit| Number::from_i128(limit).map_or(Value::Null, Value::Number);
    let schema = keywords(json!({"type": "integer", "minimum": limit(least), "maximum": limit(most)}));
    match integer {
        Integer::S64 | Integer::U64 => {
            alternatives("anyOf", [schema, keywords(json!({"type": "string", "pattern": "^-?[0-9]+$"}))])
        }
        _ => schema,
    }
}

fn float(number: Value) -> Schema {
    alternatives("anyOf", [keywords(number), keywords(json!({"enum": NOT_FINITE}))])
}

fn record(fields: &[Field]) -> Schema {
    let fields = fields.iter().map(|field| {
        let is_required = !field.shape.kind.is_option();
        (field.key.as_str(), schema(&field.shape, field.docs.as_deref()), is_required)
    });
    object(fields)
}

/// An object of these properties, with whether they are required.
fn object<'a>(properties: impl IntoIterator<Item = (&'a str, Schema, bool)>) -> Schema {
    let (mut all, mut required) = (Map::new(), Vec::new());
    for (name, schema, is_required) in properties {
        all.insert(name.into(), schema.into());
        required.extend(is_required.then_some(name));
    }
    keywords(json!({"type": "object", "properties": all, "required": required, "additionalProperties": false}))
}

fn tuple<'a>(items: impl IntoIterator<Item = &'a Shape>) -> Schema {
    let items: Vec<Schema> = items.into_iter().map(|item| schema(item, None)).collect();
    let length = items.len();
    keywords(json!({"type": "array", "prefixItems": items, "items": false, "minItems": length, "maxItems": length}))
}

fn alternatives(keyword: &str, schemas: impl IntoIterator<Item = Schema>) -> Schema {
    Map::from_iter([(keyword.to_string(), schemas.into_iter().map(Value::Object).collect())])
}

fn null() -> Schema {
    keywords(json!({"type": "null"}))
}

fn keywords(schema: Value) -> Schema {
    match schema {
        Value::Object(keywords) => keywords,
        _ => Map::new(),
    }
}

fn names(labels: &[Label]) -> Vec<&str> {
    labels.iter().map(|label| label.name.as_str()).collect()
}

/// JSON Schema has no place for what is to be said of single values of an enumeration.
fn label_docs(labels: &[Label]) -> Option<String> {
    let lines = labels.iter().filter_map(|label| Some(format!("- `{}`: {}", label.name, label.docs.as_deref()?)));
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
