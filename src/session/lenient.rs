//! Answers as servers really write them, made into what the protocol says: `[]` or `true` where an object belongs, `null` for a list,
//! fields that are missing. What can't be mended is an error that names the field.

use rmcp::model::{DiscoverResult, ErrorCode, ErrorData, InitializeResult};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Capabilities that are objects, whatever is in them.
const CAPABILITIES: [&str; 7] =
    ["tools", "prompts", "resources", "logging", "completions", "experimental", "extensions"];
/// What capabilities hold that is true or false.
const FLAGS: [&str; 2] = ["listChanged", "subscribe"];
/// What a server says of itself in text.
const TEXTS: [&str; 5] = ["name", "title", "version", "description", "websiteUrl"];
/// Fields of a listed item that are text, and enough to use it.
const ITEM_TEXTS: [&str; 6] = ["name", "uri", "uriTemplate", "title", "description", "mimeType"];

/// An answer to `initialize` or `server/discover`.
pub(super) struct Greeting<T> {
    pub(super) result: T,
    /// Whether it does not tell what the server offers: then it is asked.
    pub(super) is_vague: bool,
}

/// The answer to `initialize`.
///
/// # Errors
/// The field that can't be used, and what it is.
pub(super) fn initialize_result(answer: &str) -> Result<Greeting<InitializeResult>, String> {
    let (mut fields, is_vague) = greeting(answer)?;
    match fields.get("protocolVersion") {
        Some(Value::String(_)) => {}
        other => return Err(misfit("protocolVersion", "a text such as `2025-11-25`", other)),
    }
    let info = server_info(fields.remove("serverInfo"));
    fields.insert("serverInfo".into(), info);
    Ok(Greeting { result: typed(fields)?, is_vague })
}

/// The answer to `server/discover`.
///
/// # Errors
/// As of [`initialize_result`].
pub(super) fn discover_result(answer: &str) -> Result<Greeting<DiscoverResult>, String> {
    let (mut fields, is_vague) = greeting(answer)?;
    match fields.get("supportedVersions") {
        Some(Value::Array(versions)) if versions.iter().all(Value::is_string) => {}
        other => return Err(misfit("supportedVersions", "a list of texts", other)),
    }
    let usable = |key: &str, is_usable: fn(&Value) -> bool| fields.get(key).is_some_and(is_usable);
    let defaults = [
        ("resultType", usable("resultType", Value::is_string), json!("complete")),
        ("ttlMs", usable("ttlMs", Value::is_u64), json!(0)),
        ("cacheScope", usable("cacheScope", |scope| scope == "public" || scope == "private"), json!("private")),
    ];
    for (key, is_usable, default) in defaults {
        if !is_usable {
            fields.insert(key.into(), default);
        }
    }
    Ok(Greeting { result: typed(fields)?, is_vague })
}

/// What both have in common.
fn greeting(answer: &str) -> Result<(Map<String, Value>, bool), String> {
    let mut fields = match serde_json::from_str(answer) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Array(items)) if items.is_empty() => Map::new(),
        Ok(other) => return Err(format!("it has to be an object, and is {}", kind(&other))),
        Err(error) => return Err(error.to_string()),
    };
    let given = fields.remove("capabilities");
    let is_vague = !matches!(given, Some(Value::Object(_)));
    let capabilities = match given {
        Some(Value::Object(capabilities)) => capabilities,
        // As good as every server is there for its tools.
        _ => Map::from_iter([("tools".to_string(), json!({}))]),
    };
    fields.insert("capabilities".into(), Value::Object(mended(capabilities)));
    if !fields.get("instructions").is_some_and(Value::is_string) {
        fields.remove("instructions");
    }
    if !fields.get("_meta").is_some_and(Value::is_object) {
        fields.remove("_meta");
    }
    Ok((fields, is_vague))
}

/// Each capability an object, with flags that are true or false.
fn mended(mut capabilities: Map<String, Value>) -> Map<String, Value> {
    for name in CAPABILITIES {
        let Some(capability) = capabilities.get_mut(name) else { continue };
        match capability {
            Value::Null | Value::Bool(false) => drop(capabilities.remove(name)),
            Value::Object(settings) if name == "experimental" || name == "extensions" => {
                for setting in settings.values_mut().filter(|setting| !setting.is_object()) {
                    *setting = json!({});
                }
            }
            Value::Object(settings) => {
                for flag in FLAGS {
                    match settings.get(flag) {
                        None | Some(Value::Bool(_)) => {}
                        Some(other) => {
                            let on = *other == json!("true") || *other == json!(1);
                            settings.insert(flag.into(), Value::Bool(on));
                        }
                    }
                }
            }
            other => *other = json!({}),
        }
    }
    capabilities
}

/// Who the server is. Nothing depends on it, so that anything goes.
fn server_info(given: Option<Value>) -> Value {
    let given = match given {
        Some(Value::Object(fields)) => fields,
        Some(Value::String(name)) => Map::from_iter([("name".to_string(), Value::String(name))]),
        _ => Map::new(),
    };
    let text = |key: &str| match given.get(key)? {
        Value::String(text) => Some(Value::String(text.clone())),
        number @ Value::Number(_) => Some(Value::String(number.to_string())),
        _ => None,
    };
    let mut info: Map<String, Value> =
        TEXTS.into_iter().filter_map(|key| Some((key.to_string(), text(key)?))).collect();
    info.entry("name").or_insert_with(|| json!("unknown"));
    info.entry("version").or_insert_with(|| json!(""));
    Value::Object(info)
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

fn misfit(field: &str, expected: &str, found: Option<&Value>) -> String {
    match found {
        None => format!("`{field}` is missing"),
        Some(found) => format!("`{field}` has to be {expected}, and is {}", kind(found)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The error of an answer that is not of the form of one: without a code, or a text.
pub(super) fn error(answer: &str) -> Option<ErrorData> {
    #[derive(Deserialize)]
    struct Failed {
        error: Value,
    }
    let Failed { mut error } = serde_json::from_str(answer).ok()?;
    let code = error.get("code").and_then(|code| i32::try_from(code.as_i64()?).ok());
    let said = match &error {
        Value::Null => return None,
        Value::String(said) => said.clone(),
        other => other.get("message").and_then(Value::as_str).unwrap_or("it did not say why").to_string(),
    };
    let data = error.get_mut("data").map(Value::take);
    Some(ErrorData::new(code.map_or(ErrorCode::INTERNAL_ERROR, ErrorCode), said, data))
}

/// Makes `key` a list: what is empty in another way is an empty one.
pub(super) fn make_list(fields: &mut Map<String, Value>, key: &str) {
    match fields.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => drop(fields.insert(key.into(), json!([]))),
        Some(Value::Object(empty)) if empty.is_empty() => drop(fields.insert(key.into(), json!([]))),
        Some(_) => {}
    }
}

/// Mends an answer whose list stands at `place`: the list is one, and its items have no `null` and no `[]` where something else belongs.
pub(super) fn mend(answer: &mut Value, place: &[&str]) {
    let Value::Object(fields) = answer else { return };
    fields.retain(|key, field| Some(&&**key) == place.first() || field.is_string());
    match place {
        [] => {}
        [key] => {
            make_list(fields, key);
            if let Some(Value::Array(items)) = fields.get_mut(*key) {
                items.iter_mut().for_each(without_nothing);
            }
        }
        [key, rest @ ..] => {
            let inner = fields.entry(*key).or_insert_with(|| json!({}));
            if inner.is_null() || inner.as_array().is_some_and(Vec::is_empty) {
                *inner = json!({});
            }
            mend(inner, rest);
        }
    }
}

/// Takes out the fields of an item that are `null` or `[]`, and those of what is in it.
fn without_nothing(item: &mut Value) {
    if let Value::Object(fields) = item {
        fields.retain(|_, field| !field.is_null() && !field.as_array().is_some_and(Vec::is_empty));
        fields.values_mut().for_each(without_nothing);
    }
}

/// A text, for which servers also write a number.
pub(super) fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        number @ Value::Number(_) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("expected a text, found {}", kind(&other)))),
    }
}

/// The name of the next page: a text, or nothing.
pub(super) fn cursor<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(cursor) => Some(cursor),
        Value::Number(cursor) => Some(cursor.to_string()),
        _ => None,
    })
}

/// Makes `item` one that can be read as `T`, by taking out the fields that keep it from that.
///
/// # Errors
/// Why it can't be read as `T`, where that is not enough.
pub(super) fn item<T: DeserializeOwned>(item: &mut Value) -> Result<(), serde_json::Error> {
    let Err(reason) = T::deserialize(&*item) else { return Ok(()) };
    let Value::Object(fields) = item else { return Err(reason) };
    // `null` and `[]` for what is not there.
    fields.retain(|_, field| !field.is_null() && !field.as_array().is_some_and(Vec::is_empty));
    if T::deserialize(&Value::Object(fields.clone())).is_ok() {
        return Ok(());
    }
    fields.retain(|key, field| ITEM_TEXTS.contains(&key.as_str()) && field.is_string());
    T::deserialize(&*item).map(drop).map_err(|_| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of an answer: the capabilities and the server's name and version.
    #[track_caller]
    fn greeted(answer: &Value, capabilities: &Value, name: &str, version: &str, is_vague: bool) {
        let Greeting { result, is_vague: vague } = initialize_result(&answer.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&result.capabilities).unwrap(), *capabilities);
        assert_eq!((&*result.server_info.name, &*result.server_info.version, vague), (name, version, is_vague));
    }

    #[test]
    fn an_answer_to_initialize_is_read_leniently() {
        let with = |key: &str, value: Value| {
            let mut answer = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "a", "version": "1"}});
            answer[key] = value;
            answer
        };
        let tools = json!({"tools": {}});
        for odd in [json!([]), json!(true), json!({}), json!("yes"), json!([1]), json!(3)] {
            greeted(&with("capabilities", json!({"tools": odd})), &tools, "a", "1", false);
            greeted(
                &with("capabilities", json!({"tools": {}, "logging": odd})),
                &json!({"logging": {}, "tools": {}}),
                "a",
                "1",
                false,
            );
        }
        for nothing in [json!(null), json!(false)] {
            greeted(&with("capabilities", json!({"tools": {}, "prompts": nothing})), &tools, "a", "1", false);
        }
        greeted(
            &with(
                "capabilities",
                json!({"tools": {"listChanged": null}, "resources": {"subscribe": "true", "listChanged": []}}),
            ),
            &json!({"tools": {"listChanged": false}, "resources": {"subscribe": true, "listChanged": false}}),
            "a",
            "1",
            false,
        );
        greeted(
            &with("capabilities", json!({"experimental": {"x": true, "y": {"z": 1}}})),
            &json!({"experimental": {"x": {}, "y": {"z": 1}}}),
            "a",
            "1",
            false,
        );
        for vague in [json!([]), json!(null), json!(true), json!("tools")] {
            greeted(&with("capabilities", vague), &tools, "a", "1", true);
        }
        greeted(&json!({"protocolVersion": "2025-06-18"}), &tools, "unknown", "", true);
        greeted(&with("serverInfo", json!({"name": "b"})), &tools, "b", "", false);
        greeted(&with("serverInfo", json!({"name": "b", "version": 2.5, "icons": "no"})), &tools, "b", "2.5", false);
        greeted(&with("serverInfo", json!("b")), &tools, "b", "", false);
        for odd in [json!([]), json!(null), json!({}), json!({"name": [], "version": null})] {
            greeted(&with("serverInfo", odd), &tools, "unknown", "", false);
        }
        for key in ["instructions", "_meta"] {
            for odd in [json!(null), json!([]), json!(7)] {
                greeted(&with(key, odd), &tools, "a", "1", false);
            }
        }
    }

    #[test]
    fn what_can_not_be_mended_names_the_field() {
        let reason = |answer: Value| initialize_result(&answer.to_string()).map(|_| ()).unwrap_err();
        assert_eq!(reason(json!({"capabilities": {}})), "`protocolVersion` is missing");
        assert_eq!(reason(json!([])), "`protocolVersion` is missing");
        assert_eq!(
            reason(json!({"protocolVersion": 2025})),
            "`protocolVersion` has to be a text such as `2025-11-25`, and is a number"
        );
        assert_eq!(reason(json!("hello")), "it has to be an object, and is a text");
        let reason = |answer: Value| discover_result(&answer.to_string()).map(|_| ()).unwrap_err();
        assert_eq!(reason(json!({})), "`supportedVersions` is missing");
        assert_eq!(
            reason(json!({"supportedVersions": [1]})),
            "`supportedVersions` has to be a list of texts, and is a list"
        );
    }

    #[test]
    fn an_answer_to_discover_is_read_leniently() {
        for odd in
            [json!({}), json!({"ttlMs": -1, "cacheScope": "all", "resultType": null, "capabilities": {"tools": []}})]
        {
            let mut answer = odd;
            answer["supportedVersions"] = json!(["2026-07-28"]);
            let Greeting { result, .. } = discover_result(&answer.to_string()).unwrap();
            assert!(result.capabilities.tools.is_some());
            assert_eq!(result.ttl_ms, 0);
        }
    }

    #[test]
    fn an_odd_item_is_kept_without_what_is_odd() {
        use rmcp::model::{Prompt, Resource};
        let mut prompt = json!({"name": "p", "arguments": null, "icons": [], "description": "d"});
        assert!(item::<Prompt>(&mut prompt).is_ok());
        let mut resource = json!({"uri": "a:b", "name": "n", "size": "big", "annotations": [1]});
        assert!(item::<Resource>(&mut resource).is_ok());
        assert_eq!(resource, json!({"uri": "a:b", "name": "n"}));
        assert!(item::<Resource>(&mut json!({"name": "n"})).is_err());
        assert!(item::<Resource>(&mut json!("n")).is_err());
    }
}
