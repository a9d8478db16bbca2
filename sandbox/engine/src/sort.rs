//! `sort` and `dedup` with a function. Rhai's own lose its errors, and with them limits, and panic where the order contradicts itself.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext};

use crate::error;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

pub(crate) fn register(engine: &mut Engine) {
    engine.register_fn("sort", sort).register_fn("dedup", dedup);
}

#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn sort(context: NativeCallContext, array: &mut Array, comparer: FnPtr) -> Result<()> {
    let order = sorted(array.len(), &mut |left, right| compare(&context, &comparer, &array[left], &array[right]))?;
    let mut items = std::mem::take(array);
    *array = order.into_iter().map(|index| std::mem::take(&mut items[index])).collect();
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn dedup(context: NativeCallContext, array: &mut Array, is_same: FnPtr) -> Result<()> {
    let mut kept = Array::new();
    for item in array.iter() {
        let repeats = match kept.last() {
            Some(last) => {
                let answer = is_same.call_raw(&context, None, [item.clone(), last.clone()])?;
                answer.as_bool().map_err(|other| wrong("`dedup`", "true or false", other))?
            }
            None => false,
        };
        if !repeats {
            kept.push(item.clone());
        }
    }
    *array = kept;
    Ok(())
}

fn compare(context: &NativeCallContext, comparer: &FnPtr, left: &Dynamic, right: &Dynamic) -> Result<Ordering> {
    let answer = comparer.call_raw(context, None, [left.clone(), right.clone()])?;
    if let Ok(float) = answer.as_float() {
        return Ok(float.partial_cmp(&0.0).unwrap_or(Ordering::Equal));
    }
    answer.as_int().map(|int| int.cmp(&0)).map_err(|other| wrong("`sort`", "a number: below 0, 0, or above", other))
}

fn wrong(function: &str, expected: &str, other: &str) -> Box<EvalAltResult> {
    error::runtime(format!("the function given to {function} returns {expected}; it returned {other}"))
}

/// The places of a merge sort, which is stable, and ends whatever the comparer answers.
fn sorted(length: usize, compare: &mut impl FnMut(usize, usize) -> Result<Ordering>) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..length).collect();
    let mut width = 1;
    while width < length {
        let mut merged = Vec::with_capacity(length);
        for run in order.chunks(width * 2) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let ([first, left_rest @ ..], [second, right_rest @ ..]) = (left, right) {
                if compare(*first, *second)? == Ordering::Greater {
                    merged.push(*second);
                    right = right_rest;
                } else {
                    merged.push(*first);
                    left = left_rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        order = merged;
        width *= 2;
    }
    Ok(order)
}
