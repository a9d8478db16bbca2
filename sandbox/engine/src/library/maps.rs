//! Maps.

use rhai::{Array, Dynamic, Engine, FnPtr, ImmutableString, Map, NativeCallContext};

use super::functions::{position, unwrapped, wrong};
use super::values::key_text;
use super::{Result, register_change};

pub(super) fn register(engine: &mut Engine) {
    for name in ["entries", "items"] {
        engine.register_fn(name, |map: &mut Map| entries(map));
    }
    for name in ["has", "includes", "hasOwnProperty", "has_key"] {
        engine.register_fn(name, |map: &mut Map, key: &str| map.contains_key(key));
    }
    for name in ["length", "size", "count"] {
        engine.register_fn(name, |map: &mut Map| position(map.len()));
    }
    engine
        .register_fn("empty", |map: &mut Map| map.is_empty())
        .register_fn("get", |map: &mut Map, key: &str, default: Dynamic| {
            map.get(key).filter(|value| !value.is_unit()).cloned().unwrap_or(default)
        })
        .register_fn("pick", |map: &mut Map, keys: Array| pick(map, &keys, true))
        .register_fn("omit", |map: &mut Map, keys: Array| pick(map, &keys, false))
        .register_fn("merge", |map: &mut Map, other: Map| merge(map, other))
        .register_fn("filter", |context: NativeCallContext, map: &mut Map, function: FnPtr| -> Result<Map> {
            let mut kept = Map::new();
            for (key, value) in map.iter_mut() {
                if test(&context, &function, key, value)? {
                    kept.insert(key.clone(), value.clone());
                }
            }
            Ok(kept)
        })
        .register_fn("map_values", |context: NativeCallContext, map: &mut Map, function: FnPtr| -> Result<Map> {
            let mut out = Map::new();
            for (key, value) in map.iter_mut() {
                out.insert(key.clone(), call(&context, &function, key, value)?);
            }
            Ok(out)
        });
    for (name, expected) in [("retain", false), ("drain", true)] {
        register_change(
            engine,
            name,
            move |context: NativeCallContext, map: &mut Map, function: FnPtr| -> Result<Map> {
                let answers = map.iter_mut().map(|(key, value)| test(&context, &function, key, value));
                let answers: Vec<bool> = answers.collect::<Result<_>>()?;
                let (mut kept, mut out) = (Map::new(), Map::new());
                for ((key, value), answer) in std::mem::take(map).into_iter().zip(answers) {
                    if answer == expected {
                        out.insert(key, value)
                    } else {
                        kept.insert(key, value)
                    };
                }
                *map = kept;
                Ok(out)
            },
        );
    }
}

pub(super) fn entries(map: &Map) -> Array {
    map.iter().map(|(key, value)| vec![ImmutableString::from(key.as_str()).into(), value.clone()].into()).collect()
}

pub(super) fn merge(map: &Map, other: Map) -> Map {
    let mut out = map.clone();
    out.extend(other);
    out
}

fn pick(map: &Map, keys: &Array, inside: bool) -> Result<Map> {
    let keys = keys.iter().map(key_text).collect::<Result<std::collections::BTreeSet<_>>>()?;
    let entries = map.iter().filter(|(key, _)| keys.contains(key.as_str()) == inside);
    Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Of functions with the parameters (key, value); with one parameter it gets the key, as in Rhai.
#[allow(deprecated, reason = "Rhai marks what may change so; the version is pinned")]
fn call(context: &NativeCallContext, function: &FnPtr, key: &str, value: &mut Dynamic) -> Result<Dynamic> {
    function
        .call_raw_with_extra_args(context.fn_name(), context, Some(value), [key.into()], [], Some(1))
        .map_err(unwrapped)
}

fn test(context: &NativeCallContext, function: &FnPtr, key: &str, value: &mut Dynamic) -> Result<bool> {
    let answer = call(context, function, key, value)?;
    answer.as_bool().map_err(|_| wrong(context.fn_name(), "true or false", &answer))
}
