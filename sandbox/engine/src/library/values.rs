//! What values have in common, whatever their type: a total order, a text, the name of their kind.

use std::cmp::Ordering;

use rhai::{Array, Blob, Dynamic, Engine, Identifier, ImmutableString, Map};

use super::{Result, dates};
use crate::{current, error, json};

/// How deep values may nest that are compared or shown.
const DEPTH: usize = 100;
/// Bytes of the longest text that one function makes; a large one repeated would otherwise be without bound.
pub(super) const MAX_TEXT: usize = 64 << 20;

pub(super) fn register(engine: &mut Engine) {
    // Rhai's own show dates as the name of their type, and have no bound to their depth.
    engine
        .register_fn("to_string", |array: &mut Array| shown(|out| show_array(out, array, 0)))
        .register_fn("to_debug", |array: &mut Array| shown(|out| show_array(out, array, 0)))
        .register_fn("to_string", |map: &mut Map| shown(|out| show_map(out, map, 0)))
        .register_fn("to_debug", |map: &mut Map| shown(|out| show_map(out, map, 0)));
    for name in ["str", "toString", "String"] {
        engine.register_fn(name, |value: Dynamic| text(&value));
    }
}

/// A value that can be compared with any other; the variants are in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Unit,
    Bool(bool),
    Number(Number),
    Text(ImmutableString),
    Date(dates::Date),
    List(Vec<Value>),
    Map(Vec<(Identifier, Value)>),
    Blob(Blob),
    /// Such as functions, by their names.
    Other(String),
}

impl Value {
    pub(super) fn of(value: &Dynamic) -> Result<Self> {
        Self::at(value, 0)
    }

    fn at(value: &Dynamic, depth: usize) -> Result<Self> {
        if depth > DEPTH {
            return Err(error::runtime(format!("values that nest more than {DEPTH} levels deep can't be compared")));
        }
        if let Some(number) = Number::of(value) {
            return Ok(Self::Number(number));
        }
        if let Ok(text) = value.as_immutable_string_ref() {
            return Ok(Self::Text(text.clone()));
        }
        if value.is_unit() {
            return Ok(Self::Unit);
        }
        if let Ok(bool) = value.as_bool() {
            return Ok(Self::Bool(bool));
        }
        if let Ok(array) = value.as_array_ref() {
            return array.iter().map(|item| Self::at(item, depth + 1)).collect::<Result<_>>().map(Self::List);
        }
        if let Ok(map) = value.as_map_ref() {
            let entries = map.iter().map(|(key, item)| Ok((key.clone(), Self::at(item, depth + 1)?)));
            return entries.collect::<Result<_>>().map(Self::Map);
        }
        if let Some(date) = value.read_lock::<dates::Date>() {
            return Ok(Self::Date(*date));
        }
        if let Ok(character) = value.as_char() {
            return Ok(Self::Text(character_text(character)));
        }
        if let Ok(blob) = value.as_blob_ref() {
            return Ok(Self::Blob(blob.clone()));
        }
        Ok(Self::Other(value.to_string()))
    }
}

/// An integer or a float, compared by value; what is no number comes last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub(super) fn of(value: &Dynamic) -> Option<Self> {
        value.as_int().map(Self::Int).or_else(|_| value.as_float().map(Self::Float)).ok()
    }

    #[allow(clippy::cast_precision_loss, reason = "as near as a float comes")]
    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

impl From<i64> for Number {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f64> for Number {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Int(left), Self::Int(right)) => left.cmp(&right),
            (Self::Int(left), Self::Float(right)) => compare_mixed(left, right),
            (Self::Float(left), Self::Int(right)) => compare_mixed(right, left).reverse(),
            (Self::Float(left), Self::Float(right)) => {
                left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
            }
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// Exact: a detour over floats would make neighbouring large integers equal, and the order contradict itself.
#[allow(clippy::cast_possible_truncation, reason = "what does not fit was told before")]
fn compare_mixed(int: i64, float: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() || float >= LIMIT {
        return Ordering::Less;
    }
    if float < -LIMIT {
        return Ordering::Greater;
    }
    int.cmp(&(float.trunc() as i64)).then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal))
}

/// The kind of a value, as messages name it.
pub(crate) fn kind(value: &Dynamic) -> &'static str {
    if value.is_unit() {
        "()"
    } else if value.is_int() {
        "an integer"
    } else if value.is_float() {
        "a float"
    } else if value.is_bool() {
        "a bool"
    } else if value.is_string() {
        "a string"
    } else if value.is_char() {
        "a character"
    } else if value.is_array() {
        "an array"
    } else if value.is_map() {
        "a map"
    } else if value.is_blob() {
        "a blob"
    } else if value.is_fnptr() {
        "a function"
    } else if value.read_lock::<dates::Date>().is_some() {
        "a date"
    } else if current::server_label(value).is_some() {
        "a server"
    } else {
        "something else"
    }
}

/// A text that does not grow without bound.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn push(&mut self, piece: &str) -> Result<()> {
        if self.0.len().saturating_add(piece.len()) > MAX_TEXT {
            return Err(error::runtime(format!("a text has at most {} MiB", MAX_TEXT >> 20)));
        }
        self.0.push_str(piece);
        Ok(())
    }

    /// So many of them.
    pub(super) fn push_times(&mut self, piece: &str, times: usize) -> Result<()> {
        if piece.len().saturating_mul(times) > MAX_TEXT {
            return Err(error::runtime(format!("a text has at most {} MiB", MAX_TEXT >> 20)));
        }
        self.push(&piece.repeat(times))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn finish(self) -> ImmutableString {
        self.0.into()
    }
}

pub(super) fn character_text(character: char) -> ImmutableString {
    (&*character.encode_utf8(&mut [0; 4])).into()
}

/// As Rhai prints it.
pub(super) fn text(value: &Dynamic) -> Result<ImmutableString> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(text.clone());
    }
    shown(|out| show(out, value, 0))
}

/// The text of a value that becomes the key of a map.
pub(super) fn key_text(value: &Dynamic) -> Result<ImmutableString> {
    if value.is_unit() { Ok("null".into()) } else { text(value) }
}

fn shown(show: impl FnOnce(&mut Text) -> Result<()>) -> Result<ImmutableString> {
    let mut out = Text::default();
    show(&mut out)?;
    Ok(out.finish())
}

fn show(out: &mut Text, value: &Dynamic, depth: usize) -> Result<()> {
    if depth > DEPTH {
        out.push("…")
    } else if let Ok(array) = value.as_array_ref() {
        show_array(out, &array, depth)
    } else if let Ok(map) = value.as_map_ref() {
        show_map(out, &map, depth)
    } else if let Some(label) = dates::text_of(value).or_else(|| current::server_label(value)) {
        out.push(&label)
    } else if value.is_fnptr() {
        out.push(&json::label(value))
    } else if depth == 0 {
        out.push(&value.to_string())
    } else {
        out.push(&format!("{value:?}"))
    }
}

fn show_array(out: &mut Text, array: &Array, depth: usize) -> Result<()> {
    out.push("[")?;
    for (index, item) in array.iter().enumerate() {
        out.push(if index == 0 { "" } else { ", " })?;
        show(out, item, depth + 1)?;
    }
    out.push("]")
}

fn show_map(out: &mut Text, map: &Map, depth: usize) -> Result<()> {
    out.push("#{")?;
    for (index, (key, item)) in map.iter().enumerate() {
        out.push(if index == 0 { "" } else { ", " })?;
        out.push(&format!("{key:?}: "))?;
        show(out, item, depth + 1)?;
    }
    out.push("}")
}
