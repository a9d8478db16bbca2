//! JSON text straight to Rhai values and back; integers beyond 64 bits keep their digits, as strings.

use std::borrow::Cow;

use crate::{current, library};
use rhai::{Dynamic, Map};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// How deep a value may nest on its way out. Many servers read at most 128 levels, those of the message around it included, and some
/// answer nothing to what they can't read.
const DEPTH: usize = 100;

pub(crate) fn from_text(text: &str) -> Result<Dynamic, String> {
    serde_json::from_str(&quote_big_integers(text)).map_err(|error| format!("not JSON: {error}"))
}

/// The text of a script's value. What JSON has no form for becomes a label, so that one stray closure does not lose a result.
pub(crate) fn to_text(value: &Dynamic) -> Result<String, String> {
    serde_json::to_string(&Json { value, depth: 0, strict: false }).map_err(|error| error.to_string())
}

/// The text of a tool's arguments. What JSON has no form for is an error.
pub(crate) fn to_strict_text(value: &Dynamic) -> Result<String, String> {
    serde_json::to_string(&Json { value, depth: 0, strict: true }).map_err(|error| error.to_string())
}

/// The same, with so many spaces a level.
pub(crate) fn to_pretty_text(value: &Dynamic, indent: usize) -> Result<String, String> {
    let indent = " ".repeat(indent);
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    Json { value, depth: 0, strict: true }.serialize(&mut serializer).map_err(|error| error.to_string())?;
    String::from_utf8(out).map_err(|error| error.to_string())
}

pub(crate) fn map_to_text(map: &Map) -> Result<String, String> {
    serde_json::to_string(&JsonMap { map, depth: 0, strict: true }).map_err(|error| error.to_string())
}

/// Puts quotes around integers that fit no `i64`; Rhai would make them floats and lose digits.
fn quote_big_integers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                at += 1;
                while at < bytes.len() && matches!(bytes[at], b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') {
                    at += 1;
                }
                let number = &text[start..at];
                // 18 digits and a sign always fit. What is no JSON stays as it is, and is refused.
                if number.len() > 18 && is_integer(number) && number.parse::<i64>().is_err() && !is_key(&bytes[at..]) {
                    out.push_str(&text[copied..start]);
                    out.push('"');
                    out.push_str(number);
                    out.push('"');
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number).as_bytes();
    !digits.starts_with(b"0") && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn is_key(rest: &[u8]) -> bool {
    rest.trim_ascii_start().starts_with(b":")
}

/// Functions have names that differ from run to run, so that they are not shown.
pub(crate) fn label(value: &Dynamic) -> String {
    if value.is_fnptr() {
        return "<function>".into();
    }
    let name = value.type_name().split('<').next().unwrap_or_default();
    format!("<{}>", name.rsplit("::").next().unwrap_or_default())
}

/// A value on its way out.
struct Json<'a> {
    value: &'a Dynamic,
    depth: usize,
    strict: bool,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, depth, strict } = *self;
        if depth > DEPTH {
            return Err(S::Error::custom(format!("it nests more than {DEPTH} levels deep")));
        }
        if let Ok(array) = value.as_array_ref() {
            let mut out = serializer.serialize_seq(Some(array.len()))?;
            for value in array.iter() {
                out.serialize_element(&Json { value, depth: depth + 1, strict })?;
            }
            return out.end();
        }
        if let Ok(map) = value.as_map_ref() {
            return JsonMap { map: &map, depth, strict }.serialize(serializer);
        }
        if value.is_unit() {
            serializer.serialize_unit()
        } else if let Ok(int) = value.as_int() {
            serializer.serialize_i64(int)
        } else if let Ok(float) = value.as_float() {
            serializer.serialize_f64(float)
        } else if let Ok(bool) = value.as_bool() {
            serializer.serialize_bool(bool)
        } else if let Ok(text) = value.as_immutable_string_ref() {
            serializer.serialize_str(&text)
        } else if let Ok(blob) = value.as_blob_ref() {
            serializer.serialize_bytes(&blob)
        } else if value.is_char() {
            serializer.collect_str(value)
        } else if let Some(date) = library::date_text(value) {
            serializer.serialize_str(&date)
        } else {
            let label = current::server_label(value).unwrap_or_else(|| label(value));
            if strict {
                Err(S::Error::custom(format!("{label} has no form in JSON")))
            } else {
                serializer.serialize_str(&label)
            }
        }
    }
}

struct JsonMap<'a> {
    map: &'a Map,
    depth: usize,
    strict: bool,
}

impl Serialize for JsonMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(self.map.len()))?;
        for (key, value) in self.map {
            out.serialize_entry(key.as_str(), &Json { value, depth: self.depth + 1, strict: self.strict })?;
        }
        out.end()
    }
}
