//! JSON, base64, hex, SHA-256, URLs.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rhai::{Array, Blob, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use sha2::{Digest, Sha256};

use super::numbers::quoted;
use super::values::{Text, kind, text};
use super::{Result, javascript};
use crate::{error, json};

/// What stays as it is in a part of a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Decoded with and without the padding.
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const BASE64_OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

pub(super) fn register(engine: &mut Engine) {
    register_json(engine);
    for name in ["base64_encode", "btoa"] {
        engine.register_fn(name, |context: NativeCallContext, value: Dynamic| -> Result<String> {
            Ok(BASE64.encode(bytes(context.fn_name(), &value)?))
        });
    }
    for name in ["base64_decode", "atob"] {
        engine.register_fn(name, |context: NativeCallContext, text: &str| base64_decode(context.fn_name(), text));
    }
    engine
        .register_fn("hex_encode", |context: NativeCallContext, value: Dynamic| -> Result<String> {
            Ok(hex(&bytes(context.fn_name(), &value)?))
        })
        .register_fn("hex_decode", hex_decode)
        .register_fn("sha256", |context: NativeCallContext, value: Dynamic| -> Result<String> {
            Ok(hex(&Sha256::digest(bytes(context.fn_name(), &value)?)))
        })
        .register_fn("parse_url", parse_url)
        .register_fn("build_query", |map: &mut Map| build_query(map));
    for name in ["url_encode", "encodeURIComponent"] {
        engine.register_fn(name, |value: Dynamic| text(&value).map(|text| url_encode(&text)));
    }
    for name in ["url_decode", "decodeURIComponent"] {
        engine.register_fn(name, |context: NativeCallContext, text: &str| url_decode(context.fn_name(), text));
    }
}

fn register_json(engine: &mut Engine) {
    engine
        // Rhai's own pair knows only maps, and turns large integers into floats.
        .register_fn("parse_json", |text: &str| json::from_text(text).map_err(error::runtime))
        .register_fn("to_json", |map: &mut Map| json::map_to_text(map).map_err(error::runtime))
        .register_fn("to_json", |value: Dynamic| json::to_strict_text(&value).map_err(error::runtime))
        .register_fn("to_json", |value: Dynamic, indent: i64| javascript::stringify(&value, &indent.into()));
}

/// The bytes of a string or a blob.
fn bytes(name: &str, value: &Dynamic) -> Result<Vec<u8>> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(text.as_bytes().to_vec());
    }
    match value.as_blob_ref() {
        Ok(blob) => Ok(blob.clone()),
        Err(_) => Err(error::runtime(format!("`{name}` takes a string or a blob; it was given {}", kind(value)))),
    }
}

/// A string where the bytes are one.
fn string_or_blob(bytes: Blob) -> Dynamic {
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(fault) => Dynamic::from_blob(fault.into_bytes()),
    }
}

fn base64_decode(name: &str, text: &str) -> Result<Dynamic> {
    let compact: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let engine = if compact.contains(['-', '_']) { BASE64_OF_URLS } else { BASE64 };
    let bytes = engine.decode(&compact);
    let bytes = bytes.map_err(|_| error::runtime(format!("`{name}` takes base64; it was given {}", quoted(text))))?;
    Ok(string_or_blob(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

fn hex_decode(text: &str) -> Result<Dynamic> {
    let digits: Option<Vec<u8>> =
        text.trim().chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(string_or_blob(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect()))
        }
        _ => Err(error::runtime(format!(
            "`hex_decode` takes pairs of hexadecimal digits; it was given {}",
            quoted(text)
        ))),
    }
}

fn url_encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn url_decode(name: &str, text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| error::runtime(format!("`{name}`: {} holds bytes that are no text", quoted(text))))
}

/// A URL in its parts, as RFC 3986 splits it; `()` is what it does not have.
fn parse_url(url: &str) -> Result<Map> {
    let absent = || {
        error::runtime(format!(
            "`parse_url` takes a whole URL, such as \"https://a.org/b\"; it was given {}",
            quoted(url)
        ))
    };
    let url = url.trim();
    let (rest, fragment) = url.split_once('#').map_or((url, None), |(rest, fragment)| (rest, Some(fragment)));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (scheme, rest) = rest.split_once(':').ok_or_else(absent)?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !is_scheme {
        return Err(absent());
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Some(authority), path)
        }
        None => (None, rest),
    };
    let (mut username, mut host, mut port) = (Dynamic::UNIT, Dynamic::UNIT, Dynamic::UNIT);
    if let Some(authority) = authority {
        let place = authority.rsplit_once('@').map_or(authority, |(user, place)| {
            username = lenient(user.split(':').next().unwrap_or_default());
            place
        });
        // An IPv6 address has colons of its own, between brackets.
        let colon = place.rfind(':').filter(|colon| place.rfind(']').is_none_or(|bracket| bracket < *colon));
        let (name, digits) = colon.map_or((place, ""), |colon| (&place[..colon], &place[colon + 1..]));
        host = name.to_lowercase().into();
        if !digits.is_empty() {
            let number = digits.parse::<u16>();
            let number = number.map_err(|_| error::runtime(format!("`parse_url`: {} is no port", quoted(digits))))?;
            port = i64::from(number).into();
        }
    }
    let mut out = Map::new();
    out.insert("scheme".into(), scheme.to_lowercase().into());
    out.insert("username".into(), username);
    out.insert("host".into(), host);
    out.insert("port".into(), port);
    out.insert("path".into(), lenient(path));
    out.insert("query".into(), parse_query(query.unwrap_or_default()).into());
    out.insert("fragment".into(), fragment.map_or(Dynamic::UNIT, lenient));
    Ok(out)
}

/// Decoded; what is no text afterwards stays as it was written.
fn lenient(text: &str) -> Dynamic {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map_or_else(|_| text.into(), std::borrow::Cow::into_owned).into()
}

/// A key that is there several times has an array.
fn parse_query(query: &str) -> Map {
    let mut values: std::collections::BTreeMap<String, Array> = std::collections::BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [key, value] = [key, value].map(|text| lenient(&text.replace('+', " ")));
        values.entry(key.to_string()).or_default().push(value);
    }
    let single = |mut values: Array| match values.len() {
        1 => values.remove(0),
        _ => values.into(),
    };
    values.into_iter().map(|(key, values)| (key.as_str().into(), single(values))).collect()
}

fn build_query(map: &Map) -> Result<ImmutableString> {
    let mut out = Text::default();
    let mut put = |key: &str, value: &Dynamic| {
        if value.is_unit() {
            return Ok(());
        }
        if value.is_map() || value.is_array() || value.is_fnptr() {
            let kind = kind(value);
            return Err(error::runtime(format!(
                "`build_query` takes plain values and arrays of them; `{key}` has {kind}"
            )));
        }
        out.push(if out.is_empty() { "" } else { "&" })?;
        out.push(&format!("{}={}", url_encode(key), url_encode(&text(value)?)))
    };
    for (key, value) in map {
        match value.as_array_ref() {
            Ok(values) => values.iter().try_for_each(|value| put(key, value))?,
            Err(_) => put(key, value)?,
        }
    }
    Ok(out.finish())
}
