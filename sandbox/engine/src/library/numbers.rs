//! Numbers: rounding, reading, chance.

use std::fmt::Write;

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};

use super::functions::position;
use super::values::{Number, kind};
use super::{Result, dates};
use crate::{effects, error};

/// Most digits after the point that `to_fixed` shows.
const MAX_DIGITS: i64 = 100;

pub(super) fn register(engine: &mut Engine) {
    register_rounding(engine);
    register_reading(engine);
    register_chance(engine);
    engine.register_fn("len", |map: &mut rhai::Map| position(map.len()));
    for name in ["type", "typeof"] {
        engine.register_fn(name, |context: NativeCallContext, value: Dynamic| {
            ImmutableString::from(context.engine().map_type_name(value.type_name()))
        });
    }
}

fn register_rounding(engine: &mut Engine) {
    for name in ["to_fixed", "toFixed"] {
        engine
            .register_fn(name, |context: NativeCallContext, int: i64, digits: i64| {
                to_fixed(&context, int.into(), digits)
            })
            .register_fn(name, |context: NativeCallContext, float: f64, digits: i64| {
                to_fixed(&context, float.into(), digits)
            })
            .register_fn(name, |int: i64| int.to_string())
            .register_fn(name, |float: f64| fixed(float, 0));
    }
    // Rhai has these for floats only.
    for name in ["round", "floor", "ceiling", "ceil", "trunc"] {
        engine.register_fn(name, |int: i64| int);
    }
    engine
        .register_fn("ceil", f64::ceil)
        .register_fn("trunc", f64::trunc)
        .register_fn("round", |float: f64, digits: i64| round(float, digits))
        .register_fn("round", |int: i64, digits: i64| round_int(int, digits))
        .register_fn("sqrt", |int: i64| Number::Int(int).float().sqrt())
        .register_fn("pow", power);
    for (name, wanted) in [("min", std::cmp::Ordering::Less), ("max", std::cmp::Ordering::Greater)] {
        for count in 3..=8 {
            let form = vec![std::any::TypeId::of::<Dynamic>(); count];
            engine.register_raw_fn(name, form, move |context, arguments| {
                extreme(context.fn_name(), &arguments.iter().map(|value| &**value).collect::<Vec<_>>(), wanted)
            });
        }
    }
}

/// The least or greatest of some numbers.
pub(super) fn extreme(name: &str, values: &[&Dynamic], wanted: std::cmp::Ordering) -> Result<Dynamic> {
    let mut best: Option<(Number, &Dynamic)> = None;
    for value in values {
        let Some(number) = Number::of(value) else {
            return Err(error::runtime(format!("`{name}` takes numbers, or an array; it was given {}", kind(value))));
        };
        if best.is_none_or(|(best, _)| number.cmp(&best) == wanted) {
            best = Some((number, value));
        }
    }
    Ok(best.map(|(_, value)| value.flatten_clone()).unwrap_or_default())
}

fn to_fixed(context: &NativeCallContext, value: Number, digits: i64) -> Result<String> {
    match usize::try_from(digits) {
        Ok(count) if digits <= MAX_DIGITS => Ok(fixed(value.float(), count)),
        _ => Err(error::runtime(format!(
            "`{}` takes 0 to {MAX_DIGITS} digits; it was given {digits}",
            context.fn_name()
        ))),
    }
}

/// With so many digits after the point; zero has no sign.
pub(super) fn fixed(float: f64, digits: usize) -> String {
    let text = format!("{float:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.into(),
        _ => text,
    }
}

fn round(float: f64, digits: i64) -> f64 {
    match usize::try_from(digits) {
        // More digits than a float has change nothing.
        Ok(digits) if digits > 0 => fixed(float, digits.min(20)).parse().unwrap_or(float),
        Ok(_) => float.round(),
        Err(_) => {
            let scale = 10_f64.powi(i32::try_from(digits.unsigned_abs()).unwrap_or(i32::MAX));
            if scale.is_finite() { (float / scale).round() * scale } else { 0.0 }
        }
    }
}

fn round_int(int: i64, digits: i64) -> i64 {
    let Some(scale) = u32::try_from(digits.min(0).unsigned_abs()).ok().and_then(|digits| 10_i128.checked_pow(digits))
    else {
        return 0;
    };
    let int = i128::from(int);
    let half = if int < 0 { -(scale / 2) } else { scale / 2 };
    let rounded = int.saturating_add(half) / scale * scale;
    i64::try_from(rounded).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX })
}

#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn power(context: NativeCallContext, base: Dynamic, exponent: Dynamic) -> Result<Dynamic> {
    raise(context.fn_name(), &base, &exponent)
}

/// An integer where both are and it fits.
pub(super) fn raise(name: &str, base: &Dynamic, exponent: &Dynamic) -> Result<Dynamic> {
    let number = |value: &Dynamic| {
        Number::of(value).ok_or_else(|| error::runtime(format!("`{name}` takes numbers; it was given {}", kind(value))))
    };
    let (base, exponent) = (number(base)?, number(exponent)?);
    if let (Number::Int(base), Number::Int(exponent)) = (base, exponent)
        && let Some(power) = u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent))
    {
        return Ok(power.into());
    }
    Ok(base.float().powf(exponent.float()).into())
}

fn register_reading(engine: &mut Engine) {
    for name in ["int", "to_int", "parse_int", "parseInt"] {
        engine.register_fn(name, |context: NativeCallContext, text: &str| {
            int(context.fn_name(), &ImmutableString::from(text).into())
        });
    }
    for name in ["float", "to_float", "parse_float", "parseFloat"] {
        engine.register_fn(name, |context: NativeCallContext, text: &str| {
            float(context.fn_name(), &ImmutableString::from(text).into())
        });
    }
    engine
        .register_fn("int", |context: NativeCallContext, value: Dynamic| int(context.fn_name(), &value))
        // Rhai's own cuts the digits off, and leaves a float.
        .register_fn("int", |context: NativeCallContext, value: f64| int(context.fn_name(), &value.into()))
        .register_fn("float", |context: NativeCallContext, value: Dynamic| float(context.fn_name(), &value))
        .register_fn("Number", |context: NativeCallContext, value: Dynamic| -> Result<Dynamic> {
            if let Some(number) = Number::of(&value) {
                return Ok(match number {
                    Number::Int(int) => int.into(),
                    Number::Float(float) => float.into(),
                });
            }
            match int(context.fn_name(), &value) {
                Ok(int) => Ok(int.into()),
                Err(_) => float(context.fn_name(), &value).map(Dynamic::from),
            }
        })
        .register_fn("bool", |value: Dynamic| truth(&value))
        .register_fn("Boolean", |value: Dynamic| truth(&value))
        .register_fn("isNaN", |value: Dynamic| Number::of(&value).is_none_or(|number| number.float().is_nan()));
}

#[allow(clippy::cast_possible_truncation, reason = "what does not fit is an error")]
pub(super) fn int(name: &str, value: &Dynamic) -> Result<i64> {
    if let Ok(int) = value.as_int() {
        return Ok(int);
    }
    if let Ok(bool) = value.as_bool() {
        return Ok(i64::from(bool));
    }
    if let Ok(float) = value.as_float() {
        if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) {
            return Ok(float as i64);
        }
        return Err(error::runtime(format!("`{name}` can't make an integer of {float:?}: it has more than 64 bits")));
    }
    given(name, value, "a whole number such as \"42\"", |text| text.parse().ok())
}

pub(super) fn float(name: &str, value: &Dynamic) -> Result<f64> {
    match Number::of(value) {
        Some(number) => Ok(number.float()),
        None => given(name, value, "a number such as \"1.5\"", |text| text.parse().ok()),
    }
}

/// Reads a string, or says what it should be.
fn given<T>(name: &str, value: &Dynamic, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let Ok(text) = value.as_immutable_string_ref() else {
        return Err(error::runtime(format!("`{name}` takes a number or {expected}; it was given {}", kind(value))));
    };
    read(text.trim())
        .ok_or_else(|| error::runtime(format!("`{name}` reads {expected}; it was given {}", quoted(&text))))
}

/// The start of a string that a message names.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut out = String::new();
    let _ = write!(out, "{:?}", text.chars().take(SHOWN).collect::<String>());
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// False are `()`, `false`, zero, and what is empty.
fn truth(value: &Dynamic) -> bool {
    if let Ok(bool) = value.as_bool() {
        return bool;
    }
    if let Some(number) = Number::of(value) {
        return number.float() != 0.0;
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return !text.is_empty();
    }
    if let Ok(array) = value.as_array_ref() {
        return !array.is_empty();
    }
    if let Ok(map) = value.as_map_ref() {
        return !map.is_empty();
    }
    !value.is_unit()
}

fn register_chance(engine: &mut Engine) {
    engine.register_fn("random", random).register_fn("random_int", random_int).register_fn("uuid", uuid);
    engine.register_fn("now", dates::now);
}

/// From 0 up to, not including, 1.
#[allow(clippy::cast_precision_loss, reason = "53 bits, which a float has")]
pub(super) fn random() -> Result<f64> {
    Ok((effects::random()? >> 11) as f64 / (1_u64 << 53) as f64)
}

#[allow(clippy::cast_possible_truncation, reason = "it lies between the two")]
fn random_int(from: i64, to: i64) -> Result<i64> {
    if from > to {
        return Err(error::runtime(format!(
            "`random_int` takes the least and the greatest; it was given {from} and {to}"
        )));
    }
    let choices = (i128::from(to) - i128::from(from) + 1).cast_unsigned();
    // Two 64-bit numbers: the product is below 2^128, for there are at most 2^64 choices.
    let chosen = u128::from(effects::random()?).saturating_mul(choices) >> 64;
    Ok((i128::from(from) + chosen.cast_signed()) as i64)
}

/// Version 4.
fn uuid() -> Result<String> {
    let (high, low) = (effects::random()?, effects::random()?);
    let high = (high & !0xF000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFF_FFFF_FFFF
    ))
}
