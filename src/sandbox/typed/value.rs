//! Values from JSON and back, by their type.
//!
//! Integers are exact in both directions, those beyond 2^53 too. Floats that JSON has no number for are the strings `NaN`, `Infinity`
//! and `-Infinity`.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Number, Value};
use wasmtime::component::Val;

use super::schema::NOT_FINITE;
use super::shape::{Case, Field, Integer, Kind, Label, Shape};

/// Longest value that an error shows, in characters, and most names.
pub(super) const SHOWN: usize = 60;
const NAMES: usize = 12;
/// Up to here, a float that is an integer is no other integer rounded.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The arguments of a call, in the order of the parameters.
pub(super) fn parameters(parameters: &[Field], arguments: &Map<String, Value>) -> Result<Vec<Val>, String> {
    fields(parameters, arguments, "parameter").map_err(|misfit| misfit.to_string())
}

/// Where a value is not of its type, and why.
struct Misfit {
    /// The innermost first.
    path: Vec<String>,
    problem: String,
}

type Fit = Result<Val, Misfit>;

impl Misfit {
    fn new(problem: String) -> Self {
        Self { path: Vec::new(), problem }
    }

    fn of(shape: &Shape, found: &Value) -> Self {
        Self::expected(&expected(shape), found)
    }

    fn expected(expected: &str, found: &Value) -> Self {
        Self::new(format!("expected {expected}, found `{}`", shown(found)))
    }

    fn missing(shape: &Shape) -> Self {
        Self::new(format!("missing, expected {}", expected(shape)))
    }

    fn no_such_field<'a>(what: &str, name: &str, fields: impl Iterator<Item = &'a str>) -> Self {
        let names = listed(fields);
        let has = if names.is_empty() { "none" } else { &names };
        Self::new(format!("has no {what} `{}`; it has {has}", cut(name, SHOWN)))
    }

    fn in_field(mut self, name: &str) -> Self {
        self.path.push(format!(".{name}"));
        self
    }

    fn in_item(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }

    fn in_key(mut self, key: &str) -> Self {
        self.path.push(format!("[{}]", shown(&key.into())));
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.problem);
        }
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        write!(f, "`{}`: {}", path.trim_start_matches('.'), self.problem)
    }
}

/// What a value of a type looks like.
fn expected(shape: &Shape) -> String {
    match &shape.kind {
        Kind::Bool => "`true` or `false`".into(),
        Kind::Integer(integer) => {
            let (least, most) = integer.range();
            format!("an integer from {least} to {most}")
        }
        Kind::Float32 => "a number of 32 bits".into(),
        Kind::Float64 => "a number".into(),
        Kind::Char => "one character".into(),
        Kind::String => "a string".into(),
        Kind::List(_) => "an array".into(),
        Kind::Tuple(items) => format!("an array of {}", items.len()),
        Kind::Map(key, _) if !matches!(key.kind, Kind::String) => "an array of pairs".into(),
        Kind::Map(..) | Kind::Record(_) => "an object".into(),
        Kind::Variant(cases) => {
            format!("an object whose `tag` is {}", one_of(cases.iter().map(|case| case.label.name.as_str())))
        }
        Kind::Enum(labels) => one_of(labels.iter().map(|label| label.name.as_str())),
        Kind::Flags(_) => "an array of names".into(),
        Kind::Option(item) if item.kind.is_option() => "an object with a `value`, or null".into(),
        Kind::Option(item) => format!("{}, or null", expected(item)),
        Kind::Result(..) => "an object with either `ok` or `error`".into(),
    }
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", listed(names))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.map(|name| format!("`{name}`"));
    let text = names.by_ref().take(NAMES).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn value(shape: &Shape, json: &Value) -> Fit {
    let fit = match (&shape.kind, json) {
        (Kind::Option(_), Value::Null) => Some(Val::Option(None)),
        (Kind::Option(item), Value::Object(object)) if item.kind.is_option() => Some(some_option(item, object)?),
        (Kind::Option(item), json) if !item.kind.is_option() => Some(Val::Option(Some(Box::new(value(item, json)?)))),
        (Kind::Bool, Value::Bool(value)) => Some(Val::Bool(*value)),
        (Kind::Integer(kind), json) => integer(json, *kind).and_then(|integer| integer_value(*kind, integer)),
        (Kind::Float32, json) => float(json).and_then(narrow).map(Val::Float32),
        (Kind::Float64, json) => float(json).map(Val::Float64),
        (Kind::Char, Value::String(text)) => only(text.chars()).map(Val::Char),
        (Kind::String, Value::String(text)) => Some(Val::String(text.clone())),
        (Kind::List(item), Value::Array(array)) => Some(Val::List(items(array.iter().map(|json| (&**item, json)))?)),
        (Kind::Tuple(shapes), Value::Array(array)) if array.len() == shapes.len() => {
            Some(Val::Tuple(items(shapes.iter().zip(array))?))
        }
        (Kind::Map(key, item), Value::Object(object)) if matches!(key.kind, Kind::String) => {
            Some(entries(item, object)?)
        }
        (Kind::Map(key, item), Value::Array(array)) if !matches!(key.kind, Kind::String) => {
            Some(pairs(key, item, array)?)
        }
        (Kind::Record(members), Value::Object(object)) => {
            let values = fields(members, object, "field")?;
            Some(Val::Record(members.iter().map(|field| field.name.clone()).zip(values).collect()))
        }
        (Kind::Variant(cases), Value::Object(object)) => Some(variant(cases, object)?),
        (Kind::Enum(labels), Value::String(name)) => {
            labels.iter().find(|label| label.name == *name).map(|label| Val::Enum(label.name.clone()))
        }
        (Kind::Flags(labels), Value::Array(array)) => Some(flags(labels, array)?),
        (Kind::Result(ok, error), Value::Object(object)) => result(ok.as_deref(), error.as_deref(), object)?,
        _ => None,
    };
    fit.ok_or_else(|| Misfit::of(shape, json))
}

fn some_option(item: &Shape, object: &Map<String, Value>) -> Fit {
    only_fields(object, ["value"].into_iter())?;
    let json = object.get("value").ok_or_else(|| Misfit::missing(item).in_field("value"))?;
    let value = value(item, json).map_err(|misfit| misfit.in_field("value"))?;
    Ok(Val::Option(Some(Box::new(value))))
}

/// The values of parameters or of a record's fields.
fn fields(fields: &[Field], object: &Map<String, Value>, what: &str) -> Result<Vec<Val>, Misfit> {
    let mut known = 0;
    let values = fields.iter().map(|field| {
        let json = object.get(&field.key);
        known += usize::from(json.is_some());
        or_none(&field.shape, json).map_err(|misfit| misfit.in_field(&field.key))
    });
    let values = values.collect::<Result<Vec<_>, _>>();
    // What is not known is told first: it may be the misspelt name of what is missing.
    if known < object.len()
        && let Some(unknown) = object.keys().find(|name| fields.iter().all(|field| field.key != **name))
    {
        return Err(Misfit::no_such_field(what, unknown, fields.iter().map(|field| field.key.as_str())));
    }
    values
}

/// What is not there is `none` of an option.
fn or_none(shape: &Shape, json: Option<&Value>) -> Fit {
    match json {
        Some(json) => value(shape, json),
        None if shape.kind.is_option() => Ok(Val::Option(None)),
        None => Err(Misfit::missing(shape)),
    }
}

fn only_fields<'a>(object: &Map<String, Value>, known: impl Iterator<Item = &'a str> + Clone) -> Result<(), Misfit> {
    match object.keys().find(|name| known.clone().all(|known| known != **name)) {
        Some(unknown) => Err(Misfit::no_such_field("field", unknown, known)),
        None => Ok(()),
    }
}

fn items<'a>(items: impl Iterator<Item = (&'a Shape, &'a Value)>) -> Result<Vec<Val>, Misfit> {
    let values =
        items.enumerate().map(|(index, (shape, json))| value(shape, json).map_err(|misfit| misfit.in_item(index)));
    values.collect()
}

fn entries(item: &Shape, object: &Map<String, Value>) -> Fit {
    let entries = object.iter().map(|(key, json)| {
        let value = value(item, json).map_err(|misfit| misfit.in_key(key))?;
        Ok((Val::String(key.clone()), value))
    });
    Ok(Val::Map(entries.collect::<Result<_, _>>()?))
}

fn pairs(key: &Shape, item: &Shape, array: &[Value]) -> Fit {
    let pairs = array.iter().enumerate().map(|(index, json)| {
        let Some([left, right]) = json.as_array().map(Vec::as_slice) else {
            return Err(Misfit::expected("an array of 2", json).in_item(index));
        };
        let part = |shape, json, part| value(shape, json).map_err(|misfit| misfit.in_item(part).in_item(index));
        Ok((part(key, left, 0)?, part(item, right, 1)?))
    });
    Ok(Val::Map(pairs.collect::<Result<_, _>>()?))
}

fn variant(cases: &[Case], object: &Map<String, Value>) -> Fit {
    let names = || one_of(cases.iter().map(|case| case.label.name.as_str()));
    let tag = object.get("tag").ok_or_else(|| Misfit::new(format!("missing, expected {}", names())).in_field("tag"))?;
    let case = cases.iter().find(|case| tag.as_str() == Some(&case.label.name));
    let case = case.ok_or_else(|| Misfit::expected(&names(), tag).in_field("tag"))?;
    let known = ["tag", "value"].into_iter().take(1 + usize::from(case.shape.is_some()));
    only_fields(object, known)?;
    let payload = case.shape.as_ref().map(|shape| or_none(shape, object.get("value")).map(Box::new)).transpose();
    let payload = payload.map_err(|misfit| misfit.in_field("value"))?;
    Ok(Val::Variant(case.label.name.clone(), payload))
}

fn flags(labels: &[Label], array: &[Value]) -> Fit {
    let mut names: Vec<String> = Vec::new();
    for (index, json) in array.iter().enumerate() {
        let label = labels.iter().find(|label| json.as_str() == Some(&label.name));
        let label = label.ok_or_else(|| {
            Misfit::expected(&one_of(labels.iter().map(|label| label.name.as_str())), json).in_item(index)
        })?;
        if names.contains(&label.name) {
            return Err(Misfit::new(format!("`{}` is given twice", label.name)).in_item(index));
        }
        names.push(label.name.clone());
    }
    Ok(Val::Flags(names))
}

fn result(ok: Option<&Shape>, error: Option<&Shape>, object: &Map<String, Value>) -> Result<Option<Val>, Misfit> {
    let side = |shape: Option<&Shape>, json: &Value, name: &str| {
        let value = match (shape, json) {
            (None, Value::Null) => Ok(None),
            (None, json) => Err(Misfit::expected("null", json)),
            (Some(shape), json) => value(shape, json).map(|value| Some(Box::new(value))),
        };
        value.map_err(|misfit| misfit.in_field(name))
    };
    Ok(match only(object.iter()) {
        Some((name, json)) if name == "ok" => Some(Val::Result(Ok(side(ok, json, name)?))),
        Some((name, json)) if name == "error" => Some(Val::Result(Err(side(error, json, name)?))),
        _ => None,
    })
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    first.filter(|_| items.next().is_none())
}

/// Floats without a fraction are integers in JSON. Integers of 64 bits may be strings, as scripts have them where they are big.
fn integer(json: &Value, kind: Integer) -> Option<i128> {
    match json {
        Value::Number(number) => {
            let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT);
            let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            #[allow(clippy::cast_possible_truncation, reason = "it is an integer, and exact")]
            integer.or_else(|| float().map(|float| float as i128))
        }
        Value::String(text) if matches!(kind, Integer::S64 | Integer::U64) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        }
        _ => None,
    }
}

fn integer_value(kind: Integer, integer: i128) -> Option<Val> {
    match kind {
        Integer::S8 => integer.try_into().map(Val::S8),
        Integer::U8 => integer.try_into().map(Val::U8),
        Integer::S16 => integer.try_into().map(Val::S16),
        Integer::U16 => integer.try_into().map(Val::U16),
        Integer::S32 => integer.try_into().map(Val::S32),
        Integer::U32 => integer.try_into().map(Val::U32),
        Integer::S64 => integer.try_into().map(Val::S64),
        Integer::U64 => integer.try_into().map(Val::U64),
    }
    .ok()
}

fn float(json: &Value) -> Option<f64> {
    let [nan, infinity, negative_infinity] = NOT_FINITE;
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text == nan => Some(f64::NAN),
        Value::String(text) if text == infinity => Some(f64::INFINITY),
        Value::String(text) if text == negative_infinity => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The nearest of 32 bits; none where that would be infinite.
fn narrow(float: f64) -> Option<f32> {
    #[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    let narrow = float as f32;
    (narrow.is_finite() || !float.is_finite()).then_some(narrow)
}

/// A value as JSON; `None` where it is not of the type.
pub(super) fn json(shape: &Shape, value: &Val) -> Option<Value> {
    Some(match (&shape.kind, value) {
        (Kind::Bool, Val::Bool(value)) => (*value).into(),
        (Kind::Integer(_), value) => integer_json(value)?,
        (Kind::Float32, Val::Float32(value)) => float_json(widen(*value)),
        (Kind::Float64, Val::Float64(value)) => float_json(*value),
        (Kind::Char, Val::Char(value)) => value.to_string().into(),
        (Kind::String, Val::String(value)) => value.as_str().into(),
        (Kind::List(item), Val::List(values)) => array(values.len(), values.iter().map(|value| json(item, value)))?,
        (Kind::Tuple(items), Val::Tuple(values)) if items.len() == values.len() => {
            array(values.len(), items.iter().zip(values).map(|(item, value)| json(item, value)))?
        }
        (Kind::Map(key, item), Val::Map(pairs)) => map_json(key, item, pairs)?,
        (Kind::Record(fields), Val::Record(values)) if fields.len() == values.len() => {
            let fields = fields.iter().zip(values);
            object(
                values.len(),
                fields.map(|(field, (_, value))| Some((field.key.clone(), json(&field.shape, value)?))),
            )?
        }
        (Kind::Variant(cases), Val::Variant(name, payload)) => variant_json(cases, name, payload.as_deref())?,
        (Kind::Enum(_), Val::Enum(name)) => name.as_str().into(),
        (Kind::Flags(_), Val::Flags(names)) => names.iter().map(String::as_str).collect(),
        (Kind::Option(_), Val::Option(None)) => Value::Null,
        (Kind::Option(item), Val::Option(Some(value))) if item.kind.is_option() => field("value", json(item, value)?),
        (Kind::Option(item), Val::Option(Some(value))) => json(item, value)?,
        (Kind::Result(ok, error), Val::Result(result)) => match result {
            Ok(value) => field("ok", side_json(ok.as_deref(), value.as_deref())?),
            Err(value) => field("error", side_json(error.as_deref(), value.as_deref())?),
        },
        _ => return None,
    })
}

/// Collecting would not know the length, and make room for more.
fn array(length: usize, items: impl Iterator<Item = Option<Value>>) -> Option<Value> {
    let mut all = Vec::with_capacity(length);
    for item in items {
        all.push(item?);
    }
    Some(Value::Array(all))
}

fn object(length: usize, entries: impl Iterator<Item = Option<(String, Value)>>) -> Option<Value> {
    let mut all = Map::with_capacity(length);
    for entry in entries {
        let (key, value) = entry?;
        all.insert(key, value);
    }
    Some(Value::Object(all))
}

fn field(name: &str, value: Value) -> Value {
    let mut object = Map::with_capacity(1);
    object.insert(name.into(), value);
    Value::Object(object)
}

fn integer_json(value: &Val) -> Option<Value> {
    Some(match value {
        Val::S8(value) => (*value).into(),
        Val::U8(value) => (*value).into(),
        Val::S16(value) => (*value).into(),
        Val::U16(value) => (*value).into(),
        Val::S32(value) => (*value).into(),
        Val::U32(value) => (*value).into(),
        Val::S64(value) => (*value).into(),
        Val::U64(value) => (*value).into(),
        _ => return None,
    })
}

/// The float of 64 bits with the fewest digits that is this one in 32: `0.1`, not `0.10000000149011612`.
fn widen(float: f32) -> f64 {
    let short = float.to_string().parse().ok();
    short.filter(|short| narrow(*short) == Some(float)).unwrap_or_else(|| f64::from(float))
}

fn float_json(float: f64) -> Value {
    let [nan, infinity, negative_infinity] = NOT_FINITE;
    let not_finite = if float.is_nan() {
        nan
    } else if float > 0.0 {
        infinity
    } else {
        negative_infinity
    };
    Number::from_f64(float).map_or_else(|| not_finite.into(), Value::Number)
}

fn map_json(key: &Shape, item: &Shape, pairs: &[(Val, Val)]) -> Option<Value> {
    if matches!(key.kind, Kind::String) {
        let entries = pairs.iter().map(|(key, value)| match key {
            Val::String(key) => Some((key.clone(), json(item, value)?)),
            _ => None,
        });
        return object(pairs.len(), entries);
    }
    array(pairs.len(), pairs.iter().map(|(left, right)| Some(Value::Array(vec![json(key, left)?, json(item, right)?]))))
}

fn variant_json(cases: &[Case], name: &str, payload: Option<&Val>) -> Option<Value> {
    let case = cases.iter().find(|case| case.label.name == name)?;
    let mut object = Map::with_capacity(2);
    object.insert("tag".into(), name.into());
    match (&case.shape, payload) {
        (None, None) => {}
        (Some(shape), Some(payload)) => {
            object.insert("value".into(), json(shape, payload)?);
        }
        _ => return None,
    }
    Some(Value::Object(object))
}

fn side_json(shape: Option<&Shape>, value: Option<&Val>) -> Option<Value> {
    match (shape, value) {
        (None, None) => Some(Value::Null),
        (Some(shape), Some(value)) => json(shape, value),
        _ => None,
    }
}

/// A value as JSON text, cut. Writes no more than is shown, however big or deep the value is.
fn shown(value: &Value) -> String {
    // Characters have up to four bytes; one that was cut in its middle is past what is shown.
    let mut start = Start { text: Vec::new(), room: SHOWN * 4 + 4 };
    // The error is that there is more.
    let _ = serde_json::to_writer(&mut start, value);
    cut(&String::from_utf8_lossy(&start.text), SHOWN)
}

/// A value as JSON text, where that has at most so many bytes.
pub(super) fn text(value: &impl Serialize, longest: usize) -> Option<String> {
    let mut start = Start { text: Vec::new(), room: longest };
    serde_json::to_writer(&mut start, value).ok()?;
    String::from_utf8(start.text).ok()
}

/// Takes bytes while there is room for them.
struct Start {
    text: Vec<u8>,
    room: usize,
}

impl std::io::Write for Start {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = bytes.get(..self.room).unwrap_or(bytes);
        self.room -= written.len();
        self.text.extend_from_slice(written);
        if written.is_empty() && !bytes.is_empty() {
            Err(std::io::ErrorKind::WriteZero.into())
        } else {
            Ok(written.len())
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes what a value is made of from the room for it; whether there was enough.
pub(super) fn has_room(value: &Val, room: &mut usize) -> bool {
    let size = match value {
        Val::String(text) => text.len(),
        Val::Flags(names) => names.len(),
        _ => 1,
    };
    let left = room.checked_sub(size);
    *room = left.unwrap_or_default();
    left.is_some()
        && match value {
            Val::List(items) | Val::Tuple(items) => items.iter().all(|item| has_room(item, room)),
            Val::Record(fields) => fields.iter().all(|(_, value)| has_room(value, room)),
            Val::Map(pairs) => pairs.iter().all(|(key, value)| has_room(key, room) && has_room(value, room)),
            Val::Variant(_, payload) | Val::Option(payload) | Val::Result(Ok(payload) | Err(payload)) => {
                payload.as_ref().is_none_or(|payload| has_room(payload, room))
            }
            _ => true,
        }
}

pub(super) fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}
