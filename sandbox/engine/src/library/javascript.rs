//! Objects that authors know from JavaScript: `JSON`, `Math`, `Object`, `Array`, `Number`, `Date`, `console`.

use std::any::TypeId;
use std::cmp::Ordering;

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::values::{Number, character_text, kind};
use super::{Result, dates, lists, maps, numbers, text};
use crate::{error, json};

/// Most arguments of a function that takes any number.
const MAX_ARGUMENTS: usize = 10;
/// Most spaces of a level of JSON, as in JavaScript.
const MAX_INDENT: i64 = 10;

macro_rules! objects {
    ($($object:ident $name:literal),*) => {
        $(#[derive(Clone)] struct $object;)*

        pub(super) fn variable(name: &str) -> Option<Dynamic> {
            match name {
                $($name => Some(Dynamic::from($object)),)*
                _ => None,
            }
        }

        fn register_types(engine: &mut Engine) {
            $(engine
                .register_type_with_name::<$object>($name)
                .register_fn("to_string", |_: &mut $object| $name)
                .register_fn("to_debug", |_: &mut $object| $name);)*
        }
    };
}

objects!(Json "JSON", Math "Math", Object "Object", ArrayObject "Array", NumberObject "Number", DateObject "Date", Console "console");

pub(super) fn register(engine: &mut Engine) {
    register_types(engine);
    register_math(engine);
    engine
        .register_fn("parse", |_: &mut Json, text: &str| json::from_text(text).map_err(error::runtime))
        .register_fn("stringify", |_: &mut Json, value: Dynamic| stringify(&value, &Dynamic::UNIT))
        .register_fn("stringify", |_: &mut Json, value: Dynamic, _: Dynamic| stringify(&value, &Dynamic::UNIT))
        .register_fn("stringify", |_: &mut Json, value: Dynamic, _: Dynamic, indent: Dynamic| {
            stringify(&value, &indent)
        });
    engine
        .register_fn("keys", |_: &mut Object, map: Map| {
            map.into_keys().map(|key| ImmutableString::from(key.as_str()).into()).collect::<Array>()
        })
        .register_fn("values", |_: &mut Object, map: Map| map.into_values().collect::<Array>())
        .register_fn("entries", |_: &mut Object, map: Map| maps::entries(&map))
        .register_fn("assign", |_: &mut Object, map: Map, other: Map| maps::merge(&map, other))
        .register_fn("fromEntries", |context: NativeCallContext, _: &mut Object, pairs: Array| {
            lists::to_map(context.fn_name(), &pairs)
        })
        .register_fn("isArray", |_: &mut ArrayObject, value: Dynamic| value.is_array())
        .register_fn("from", |_: &mut ArrayObject, array: Array| array)
        .register_fn("from", |_: &mut ArrayObject, text: &str| {
            text.chars().map(|character| character_text(character).into()).collect::<Array>()
        })
        .register_fn("isInteger", |_: &mut NumberObject, value: Dynamic| match Number::of(&value) {
            Some(Number::Int(_)) => true,
            Some(Number::Float(float)) => float.is_finite() && float.fract() == 0.0,
            None => false,
        })
        .register_fn("now", |_: &mut DateObject| dates::milliseconds())
        .register_fn("parse", |context: NativeCallContext, _: &mut DateObject, text: &str| {
            dates::read_milliseconds(context.fn_name(), text)
        });
    let any = TypeId::of::<Dynamic>();
    for name in ["log", "info", "warn", "error", "debug"] {
        for count in 0..=MAX_ARGUMENTS {
            let form: Vec<TypeId> = [TypeId::of::<Console>()].into_iter().chain(vec![any; count]).collect();
            engine.register_raw_fn(name, form, |_, arguments| {
                text::print(&arguments.iter().skip(1).map(|value| &**value).collect::<Vec<_>>())
            });
        }
    }
}

/// With so many spaces a level, or on one line.
pub(super) fn stringify(value: &Dynamic, indent: &Dynamic) -> Result<String> {
    match indent.as_int() {
        Ok(indent) if indent > 0 => {
            json::to_pretty_text(value, usize::try_from(indent.min(MAX_INDENT)).unwrap_or_default())
        }
        _ => json::to_strict_text(value),
    }
    .map_err(error::runtime)
}

fn register_math(engine: &mut Engine) {
    macro_rules! functions {
        ($($name:literal $function:expr),* $(,)?) => {$(
            engine.register_fn($name, |context: NativeCallContext, _: &mut Math, value: Dynamic| {
                let function: fn(f64) -> f64 = $function;
                float(&context, &value).map(function)
            });
        )*};
    }
    macro_rules! to_integers {
        ($($name:literal $function:expr),* $(,)?) => {$(
            engine.register_fn($name, |context: NativeCallContext, _: &mut Math, value: Dynamic| -> Result<Dynamic> {
                let function: fn(f64) -> f64 = $function;
                if value.is_int() { Ok(value.flatten()) } else { float(&context, &value).map(|value| whole(function(value))) }
            });
        )*};
    }
    functions!("sqrt" f64::sqrt, "cbrt" f64::cbrt, "log" f64::ln, "log2" f64::log2, "log10" f64::log10, "exp" f64::exp,
        "sin" f64::sin, "cos" f64::cos, "tan" f64::tan, "atan" f64::atan);
    // Halves go up, as in JavaScript.
    to_integers!("floor" f64::floor, "ceil" f64::ceil, "trunc" f64::trunc, "round" |value| (value + 0.5).floor());
    engine
        .register_fn("abs", |context: NativeCallContext, _: &mut Math, value: Dynamic| -> Result<Dynamic> {
            match value.as_int().ok().and_then(i64::checked_abs) {
                Some(int) => Ok(int.into()),
                None => float(&context, &value).map(|value| value.abs().into()),
            }
        })
        .register_fn("sign", |context: NativeCallContext, _: &mut Math, value: Dynamic| -> Result<i64> {
            let value = float(&context, &value)?;
            Ok(i64::from(value > 0.0) - i64::from(value < 0.0))
        })
        .register_fn("pow", |context: NativeCallContext, _: &mut Math, base: Dynamic, exponent: Dynamic| {
            numbers::raise(context.fn_name(), &base, &exponent)
        })
        .register_fn("random", |_: &mut Math| numbers::random())
        .register_get("PI", |_: &mut Math| std::f64::consts::PI)
        .register_get("E", |_: &mut Math| std::f64::consts::E);
    let any = TypeId::of::<Dynamic>();
    for (name, wanted) in [("min", Ordering::Less), ("max", Ordering::Greater)] {
        for count in 1..=MAX_ARGUMENTS {
            let form: Vec<TypeId> = [TypeId::of::<Math>()].into_iter().chain(vec![any; count]).collect();
            engine.register_raw_fn(name, form, move |context, arguments| {
                let values: Vec<&Dynamic> = arguments.iter().skip(1).map(|value| &**value).collect();
                // `Math.max(...numbers)` has lost its dots.
                if let [value] = values.as_slice()
                    && let Ok(array) = value.as_array_ref()
                {
                    return numbers::extreme(context.fn_name(), &array.iter().collect::<Vec<_>>(), wanted);
                }
                numbers::extreme(context.fn_name(), &values, wanted)
            });
        }
    }
}

fn float(context: &NativeCallContext, value: &Dynamic) -> Result<f64> {
    let number = Number::of(value).map(Number::float);
    number.ok_or_else(|| {
        error::runtime(format!("`Math.{}` takes a number; it was given {}", context.fn_name(), kind(value)))
    })
}

/// An integer where it fits.
#[allow(clippy::cast_possible_truncation, reason = "what does not fit stays a float")]
fn whole(float: f64) -> Dynamic {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) {
        (float as i64).into()
    } else {
        float.into()
    }
}
