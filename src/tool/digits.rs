//! Integers of more digits than a JSON value here can hold. Scripts and middleware see them as strings of their digits; in the message to
//! the server they are numbers again.

use std::collections::BTreeMap;

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The places of such integers in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Digits {
    /// It is one itself.
    Here(String),
    /// Some of its items have them.
    Items(BTreeMap<usize, Self>),
    /// Some of its properties have them.
    Properties(BTreeMap<String, Self>),
}

impl Digits {
    /// The same in a value whose property has this value.
    pub(crate) fn in_property(self, name: &str) -> Self {
        Self::Properties(BTreeMap::from([(name.to_string(), self)]))
    }

    /// Puts the strings where the integers are.
    pub(crate) fn write_as_strings(&self, value: &mut Value) {
        match self {
            Self::Here(digits) => *value = Value::String(digits.clone()),
            Self::Items(items) => {
                for (index, digits) in items {
                    if let Some(value) = value.get_mut(*index) {
                        digits.write_as_strings(value);
                    }
                }
            }
            Self::Properties(properties) => {
                for (name, digits) in properties {
                    if let Some(value) = value.get_mut(name.as_str()) {
                        digits.write_as_strings(value);
                    }
                }
            }
        }
    }
}

/// A value whose strings of digits are written as numbers. What a middleware has changed meanwhile is written as it is.
pub(crate) struct WithDigits<'a> {
    pub(crate) value: &'a Value,
    pub(crate) digits: Option<&'a Digits>,
}

impl Serialize for WithDigits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.digits) {
            (Value::String(text), Some(Digits::Here(digits))) if text == digits => {
                RawValue::from_string(digits.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
            (Value::Array(values), Some(Digits::Items(items))) => {
                let mut out = serializer.serialize_seq(Some(values.len()))?;
                for (index, value) in values.iter().enumerate() {
                    out.serialize_element(&WithDigits { value, digits: items.get(&index) })?;
                }
                out.end()
            }
            (Value::Object(values), Some(Digits::Properties(properties))) => {
                let mut out = serializer.serialize_map(Some(values.len()))?;
                for (name, value) in values {
                    out.serialize_entry(name, &WithDigits { value, digits: properties.get(name) })?;
                }
                out.end()
            }
            (value, _) => value.serialize(serializer),
        }
    }
}
