//! Arrays. Rhai's own functions lose the errors of functions that they are given, and take an answer that is no bool for false.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use rhai::{Array, Dynamic, Engine, FnPtr, Identifier, ImmutableString, Map, NativeCallContext};

use super::functions::{Callback, Key, position, wrong};
use super::values::{Number, Text, Value, key_text, kind, text};
use super::{MAX_ITEMS, Result, register_change};
use crate::{effects, error};

/// How deep `flatten` goes.
const MAX_FLATTEN: i64 = 100;

type Keyed = fn(&mut Array, &Key, &NativeCallContext) -> Result<Dynamic>;

pub(super) fn register(engine: &mut Engine) {
    register_order(engine);
    register_predicates(engine);
    register_keyed(engine);
    register_shapes(engine);
    register_parts(engine);
    register_changes(engine);
    register_sets(engine);
}

/// A function whose last argument is a function or a property.
fn keyed(engine: &mut Engine, names: &[&str], function: Keyed) {
    for name in names {
        engine
            .register_fn(*name, move |context: NativeCallContext, array: &mut Array, key: FnPtr| {
                function(array, &Key::new(&context, key.into())?, &context)
            })
            .register_fn(*name, move |context: NativeCallContext, array: &mut Array, key: ImmutableString| {
                function(array, &Key::new(&context, key.into())?, &context)
            })
            .register_fn(*name, move |context: NativeCallContext, array: &mut Array, key: Dynamic| {
                function(array, &Key::new(&context, key)?, &context)
            });
    }
}

/// The same, and it changes the array.
fn keyed_change(engine: &mut Engine, name: &str, function: Keyed) {
    register_change(engine, name, move |context: NativeCallContext, array: &mut Array, key: FnPtr| {
        function(array, &Key::new(&context, key.into())?, &context)
    });
    register_change(engine, name, move |context: NativeCallContext, array: &mut Array, key: ImmutableString| {
        function(array, &Key::new(&context, key.into())?, &context)
    });
    register_change(engine, name, move |context: NativeCallContext, array: &mut Array, key: Dynamic| {
        function(array, &Key::new(&context, key)?, &context)
    });
}

fn register_order(engine: &mut Engine) {
    for (in_place, new, descending) in
        [("sort", ["sorted", "order"], false), ("sort_desc", ["sorted_desc", "order_desc"], true)]
    {
        register_change(engine, in_place, move |array: &mut Array| -> Result<Array> {
            let order = natural_order(array, &Key::Itself, descending)?;
            Ok(rearrange(array, &order))
        });
        for name in new {
            engine.register_fn(name, move |array: &mut Array| {
                natural_order(array, &Key::Itself, descending).map(|order| picked(array, &order))
            });
        }
    }
    keyed_change(engine, "sort", |array, key, context| sort_in_place(array, key, context, false));
    keyed_change(engine, "sort_desc", |array, key, context| sort_in_place(array, key, context, true));
    keyed(engine, &["sort_by", "sorted", "sorted_by", "order", "order_by"], |array, key, context| {
        let order = order(array, key, context, false)?;
        Ok(picked(array, &order).into())
    });
    keyed(engine, &["sort_by_desc", "sorted_desc", "order_desc"], |array, key, context| {
        let order = order(array, key, context, true)?;
        Ok(picked(array, &order).into())
    });
    for name in ["sort_by", "sorted"] {
        engine.register_fn(
            name,
            |context: NativeCallContext, array: &mut Array, key: Dynamic, direction: Dynamic| -> Result<Array> {
                let key = Key::new(&context, key)?;
                let order = order(array, &key, &context, is_descending(&context, &direction)?)?;
                Ok(picked(array, &order))
            },
        );
    }
    register_change(engine, "reverse", |array: &mut Array| {
        array.reverse();
        array.clone()
    });
    engine.register_fn("reversed", |array: &mut Array| array.iter().rev().cloned().collect::<Array>());
    register_change(engine, "shuffle", |array: &mut Array| -> Result<Array> {
        let order = random_order(array.len())?;
        Ok(rearrange(array, &order))
    });
    engine.register_fn("shuffled", |array: &mut Array| random_order(array.len()).map(|order| picked(array, &order)));
    for name in ["sample", "choice"] {
        engine.register_fn(name, |array: &mut Array| -> Result<Dynamic> {
            if array.is_empty() {
                return Ok(Dynamic::UNIT);
            }
            Ok(array[random_below(effects::random()?, array.len())].clone())
        });
    }
    engine.register_fn("sample", |array: &mut Array, count: i64| -> Result<Array> {
        let mut order = random_order(array.len())?;
        order.truncate(size(count));
        Ok(picked(array, &order))
    });
}

fn is_descending(context: &NativeCallContext, direction: &Dynamic) -> Result<bool> {
    if let Ok(text) = direction.as_immutable_string_ref() {
        match text.as_str() {
            "asc" | "ascending" => return Ok(false),
            "desc" | "descending" => return Ok(true),
            _ => {}
        }
    }
    Err(error::runtime(format!("`{}` sorts \"asc\" or \"desc\"", context.fn_name())))
}

fn sort_in_place(array: &mut Array, key: &Key, context: &NativeCallContext, descending: bool) -> Result<Dynamic> {
    let order = order(array, key, context, descending)?;
    Ok(rearrange(array, &order).into())
}

fn order(array: &mut Array, key: &Key, context: &NativeCallContext, descending: bool) -> Result<Vec<usize>> {
    match key {
        Key::Function(comparer) if comparer.takes_two() => sorted(array.len(), &mut |left, right| {
            let order = compare(context, comparer, &array[left], &array[right])?;
            Ok(if descending { order.reverse() } else { order })
        }),
        _ => natural_order(array, key, descending),
    }
}

fn natural_order(array: &mut Array, key: &Key, descending: bool) -> Result<Vec<usize>> {
    let items = array.iter_mut().enumerate();
    let keys: Vec<Value> = items.map(|(index, item)| key.read(item, index, Value::of)).collect::<Result<_>>()?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|left, right| {
        let order = keys[*left].cmp(&keys[*right]);
        if descending { order.reverse() } else { order }
    });
    Ok(order)
}

fn compare(context: &NativeCallContext, comparer: &Callback, left: &Dynamic, right: &Dynamic) -> Result<Ordering> {
    let answer = comparer.compare(left, right)?;
    if let Ok(float) = answer.as_float() {
        return Ok(float.partial_cmp(&0.0).unwrap_or(Ordering::Equal));
    }
    let int = answer.as_int();
    int.map(|int| int.cmp(&0)).map_err(|_| wrong(context.fn_name(), "a number: below 0, 0, or above", &answer))
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

fn picked(array: &Array, order: &[usize]) -> Array {
    order.iter().map(|index| array[*index].clone()).collect()
}

/// Brings the array into the order, and returns a copy: who writes `let s = a.sort()` means it.
fn rearrange(array: &mut Array, order: &[usize]) -> Array {
    let mut items = take(array);
    *array = order.iter().map(|index| take(&mut items[*index])).collect();
    array.clone()
}

/// A number below the length, which is not 0.
#[allow(clippy::cast_possible_truncation, reason = "it is below a length")]
fn random_below(random: u64, length: usize) -> usize {
    ((u128::from(random) * length as u128) >> 64) as usize
}

/// All places in an order made of one random number, so that one is recorded and not one for each.
fn random_order(length: usize) -> Result<Vec<usize>> {
    let mut state = effects::random()?;
    let mut order: Vec<usize> = (0..length).collect();
    for last in (1..length).rev() {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        order.swap(last, random_below(mixed ^ (mixed >> 31), last + 1));
    }
    Ok(order)
}

fn register_predicates(engine: &mut Engine) {
    keyed(engine, &["filter"], |array, key, _| {
        let mut kept = Array::new();
        for (index, item) in array.iter_mut().enumerate() {
            if key.test(item, index)? {
                kept.push(item.clone());
            }
        }
        Ok(kept.into())
    });
    keyed(engine, &["reject"], |array, key, _| {
        let mut kept = Array::new();
        for (index, item) in array.iter_mut().enumerate() {
            if !key.test(item, index)? {
                kept.push(item.clone());
            }
        }
        Ok(kept.into())
    });
    keyed(engine, &["partition"], |array, key, _| {
        let mut parts = [Array::new(), Array::new()];
        for (index, item) in array.iter_mut().enumerate() {
            parts[usize::from(!key.test(item, index)?)].push(item.clone());
        }
        Ok(parts.map(Dynamic::from).to_vec().into())
    });
    keyed(engine, &["some", "any"], |array, key, _| Ok((find(array, key, 0, true)?.is_some()).into()));
    keyed(engine, &["all", "every"], |array, key, _| Ok((find(array, key, 0, false)?.is_none()).into()));
    keyed(engine, &["none"], |array, key, _| Ok((find(array, key, 0, true)?.is_none()).into()));
    keyed(engine, &["find"], |array, key, _| {
        Ok(find(array, key, 0, true)?.map_or(Dynamic::UNIT, |index| array[index].clone()))
    });
    keyed(engine, &["find_last", "findLast"], |array, key, _| {
        for index in (0..array.len()).rev() {
            if key.test(&mut array[index], index)? {
                return Ok(array[index].clone());
            }
        }
        Ok(Dynamic::UNIT)
    });
    keyed(engine, &["find_index", "findIndex"], |array, key, _| {
        Ok(find(array, key, 0, true)?.map_or_else(|| (-1_i64).into(), position))
    });
    engine.register_fn(
        "find",
        |context: NativeCallContext, array: &mut Array, key: FnPtr, start: i64| -> Result<Dynamic> {
            let found = find(array, &Key::new(&context, key.into())?, offset(array.len(), start), true)?;
            Ok(found.map_or(Dynamic::UNIT, |index| array[index].clone()))
        },
    );
    for name in ["index_of", "indexOf"] {
        engine
            .register_fn(name, |context: NativeCallContext, array: &mut Array, key: FnPtr| -> Result<Dynamic> {
                let found = find(array, &Key::new(&context, key.into())?, 0, true)?;
                Ok(found.map_or_else(|| (-1_i64).into(), position))
            })
            .register_fn(
                name,
                |context: NativeCallContext, array: &mut Array, key: FnPtr, start: i64| -> Result<Dynamic> {
                    let found = find(array, &Key::new(&context, key.into())?, offset(array.len(), start), true)?;
                    Ok(found.map_or_else(|| (-1_i64).into(), position))
                },
            )
            .register_fn(name, |array: &mut Array, value: ImmutableString| index_of(array, &value.into(), 0))
            .register_fn(name, |array: &mut Array, value: Dynamic| index_of(array, &value, 0))
            .register_fn(name, |array: &mut Array, value: ImmutableString, start: i64| {
                index_of(array, &value.into(), offset(array.len(), start))
            })
            .register_fn(name, |array: &mut Array, value: Dynamic, start: i64| {
                index_of(array, &value, offset(array.len(), start))
            });
    }
    for name in ["contains", "includes"] {
        engine.register_fn(name, |array: &mut Array, value: Dynamic| -> Result<bool> {
            Ok(first_equal(array, &Value::of(&value)?, 0)?.is_some())
        });
    }
    engine
        .register_fn("count", |array: &mut Array| position(array.len()))
        .register_fn("count", |context: NativeCallContext, array: &mut Array, key: FnPtr| -> Result<Dynamic> {
            let key = Key::new(&context, key.into())?;
            let mut count = 0;
            for (index, item) in array.iter_mut().enumerate() {
                count += usize::from(key.test(item, index)?);
            }
            Ok(position(count))
        })
        .register_fn("count", |array: &mut Array, value: Dynamic| -> Result<Dynamic> {
            let value = Value::of(&value)?;
            let mut count = 0;
            for item in array.iter() {
                count += usize::from(Value::of(item)? == value);
            }
            Ok(position(count))
        });
}

/// The first element for which the answer is as expected.
fn find(array: &mut Array, key: &Key, start: usize, expected: bool) -> Result<Option<usize>> {
    for (index, item) in array.iter_mut().enumerate().skip(start) {
        if key.test(item, index)? == expected {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn index_of(array: &Array, value: &Dynamic, start: usize) -> Result<Dynamic> {
    Ok(first_equal(array, &Value::of(value)?, start)?.map_or_else(|| (-1_i64).into(), position))
}

fn first_equal(array: &Array, value: &Value, start: usize) -> Result<Option<usize>> {
    for (index, item) in array.iter().enumerate().skip(start) {
        if Value::of(item)? == *value {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn register_keyed(engine: &mut Engine) {
    keyed(engine, &["map", "pluck"], |array, key, _| {
        let items = array.iter_mut().enumerate();
        Ok(items.map(|(index, item)| key.get(item, index)).collect::<Result<Array>>()?.into())
    });
    keyed(engine, &["flat_map", "flatMap"], |array, key, _| {
        let mut out = Array::new();
        for (index, item) in array.iter_mut().enumerate() {
            match key.get(item, index)?.try_cast_result::<Array>() {
                Ok(items) => out.extend(items),
                Err(value) => out.push(value),
            }
        }
        Ok(out.into())
    });
    keyed(engine, &["find_map"], |array, key, _| {
        for (index, item) in array.iter_mut().enumerate() {
            let value = key.get(item, index)?;
            if !value.is_unit() {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    });
    keyed(engine, &["for_each", "forEach"], |array, key, _| {
        array.iter_mut().enumerate().try_for_each(|(index, item)| key.get(item, index).map(drop))?;
        Ok(Dynamic::UNIT)
    });
    keyed(engine, &["group_by"], |array, key, _| {
        let mut groups: BTreeMap<Identifier, Array> = BTreeMap::new();
        for (index, item) in array.iter_mut().enumerate() {
            let name = key.read(item, index, key_text)?;
            groups.entry(name.as_str().into()).or_default().push(item.clone());
        }
        Ok(groups.into_iter().map(|(name, items)| (name, items.into())).collect::<Map>().into())
    });
    keyed(engine, &["count_by"], |array, key, _| {
        let mut counts: BTreeMap<Identifier, usize> = BTreeMap::new();
        for (index, item) in array.iter_mut().enumerate() {
            let name = key.read(item, index, key_text)?;
            *counts.entry(name.as_str().into()).or_default() += 1;
        }
        Ok(counts.into_iter().map(|(name, count)| (name, position(count))).collect::<Map>().into())
    });
    keyed(engine, &["index_by", "key_by"], |array, key, _| {
        let mut out = Map::new();
        for (index, item) in array.iter_mut().enumerate() {
            let name = key.read(item, index, key_text)?;
            out.insert(name.as_str().into(), item.clone());
        }
        Ok(out.into())
    });
    keyed(engine, &["unique_by", "uniqueBy"], |array, key, _| unique(array, key).map(Dynamic::from));
    engine.register_fn("unique", |array: &mut Array| unique(array, &Key::Itself));
    keyed(engine, &["unique"], |array, key, _| unique(array, key).map(Dynamic::from));
    engine
        .register_fn("sum", |context: NativeCallContext, array: &mut Array| sum(array, &Key::Itself, &context))
        .register_fn("avg", |context: NativeCallContext, array: &mut Array| average(array, &Key::Itself, &context))
        .register_fn("mean", |context: NativeCallContext, array: &mut Array| average(array, &Key::Itself, &context));
    keyed(engine, &["sum", "sum_by"], sum);
    keyed(engine, &["avg", "mean", "avg_by"], average);
    engine
        .register_fn("min", |context: NativeCallContext, array: &mut Array| minimum(array, &Key::Itself, &context))
        .register_fn("max", |context: NativeCallContext, array: &mut Array| maximum(array, &Key::Itself, &context));
    keyed(engine, &["min"], minimum);
    keyed(engine, &["max"], maximum);
    keyed(engine, &["min_by"], |array, key, _| {
        let order = extreme(array, key, Ordering::Less, |_, _| Ok(()))?;
        Ok(order.map_or(Dynamic::UNIT, |index| array[index].clone()))
    });
    keyed(engine, &["max_by"], |array, key, _| {
        let order = extreme(array, key, Ordering::Greater, |_, _| Ok(()))?;
        Ok(order.map_or(Dynamic::UNIT, |index| array[index].clone()))
    });
    register_reduce(engine);
}

fn reduce(context: &NativeCallContext, array: &mut Array, function: FnPtr, initial: Dynamic) -> Result<Dynamic> {
    let function = Callback::after(context, function, 1)?;
    let mut items = array.iter_mut().enumerate();
    items.try_fold(initial, |result, (index, item)| function.call_after([result], item, index))
}
fn reduce_rev(context: &NativeCallContext, array: &mut Array, function: FnPtr, initial: Dynamic) -> Result<Dynamic> {
    let function = Callback::after(context, function, 1)?;
    let mut items = array.iter_mut().enumerate().rev();
    items.try_fold(initial, |result, (index, item)| function.call_after([result], item, index))
}

fn register_reduce(engine: &mut Engine) {
    for name in ["reduce", "reduce_rev"] {
        engine
            .register_fn(name, |context: NativeCallContext, _: &mut Array, _: ImmutableString| {
                no_name(context.fn_name())
            })
            .register_fn(name, |context: NativeCallContext, _: &mut Array, _: ImmutableString, _: Dynamic| {
                no_name(context.fn_name())
            });
    }
    engine
        .register_fn("reduce", |context: NativeCallContext, array: &mut Array, function: FnPtr| {
            reduce(&context, array, function, Dynamic::UNIT)
        })
        .register_fn("reduce", |context: NativeCallContext, array: &mut Array, function: FnPtr, initial: Dynamic| {
            reduce(&context, array, function, initial)
        })
        .register_fn("reduce_rev", |context: NativeCallContext, array: &mut Array, function: FnPtr| {
            reduce_rev(&context, array, function, Dynamic::UNIT)
        })
        .register_fn(
            "reduce_rev",
            |context: NativeCallContext, array: &mut Array, function: FnPtr, initial: Dynamic| {
                reduce_rev(&context, array, function, initial)
            },
        );
}

/// Rhai's own takes the name of a function here, and a name that is none ends the script for good.
fn no_name(function: &str) -> Result<Dynamic> {
    Err(error::runtime(format!("`{function}` takes a function such as `|a, b| …`; it was given a string")))
}

fn unique(array: &mut Array, key: &Key) -> Result<Array> {
    let mut seen = BTreeSet::new();
    let mut kept = Array::new();
    for (index, item) in array.iter_mut().enumerate() {
        if seen.insert(key.read(item, index, Value::of)?) {
            kept.push(item.clone());
        }
    }
    Ok(kept)
}

/// Calls `add` with every number.
fn numbers(array: &mut Array, key: &Key, context: &NativeCallContext, mut add: impl FnMut(Number)) -> Result<()> {
    array.iter_mut().enumerate().try_for_each(|(index, item)| {
        key.read(item, index, |value| {
            let Some(number) = Number::of(value) else {
                let (name, place, kind) = (context.fn_name(), key.place(index), kind(value));
                return Err(error::runtime(format!("`{name}` takes numbers; {place} is {kind}")));
            };
            add(number);
            Ok(())
        })
    })
}

#[allow(clippy::cast_precision_loss, reason = "as near as a float comes")]
fn sum(array: &mut Array, key: &Key, context: &NativeCallContext) -> Result<Dynamic> {
    // No array has so many elements that an `i128` overflows.
    let (mut ints, mut floats, mut is_float) = (0_i128, 0.0, false);
    numbers(array, key, context, |number| match number {
        Number::Int(int) => ints += i128::from(int),
        Number::Float(float) => {
            floats += float;
            is_float = true;
        }
    })?;
    Ok(match i64::try_from(ints) {
        Ok(int) if !is_float => int.into(),
        _ => (ints as f64 + floats).into(),
    })
}

#[allow(clippy::cast_precision_loss, reason = "as near as a float comes")]
fn average(array: &mut Array, key: &Key, context: &NativeCallContext) -> Result<Dynamic> {
    if array.is_empty() {
        return Ok(Dynamic::UNIT);
    }
    let mut total = 0.0;
    numbers(array, key, context, |number| total += number.float())?;
    Ok((total / array.len() as f64).into())
}

fn minimum(array: &mut Array, key: &Key, context: &NativeCallContext) -> Result<Dynamic> {
    extreme_value(array, key, context, Ordering::Less)
}

fn maximum(array: &mut Array, key: &Key, context: &NativeCallContext) -> Result<Dynamic> {
    extreme_value(array, key, context, Ordering::Greater)
}

fn extreme_value(array: &mut Array, key: &Key, context: &NativeCallContext, wanted: Ordering) -> Result<Dynamic> {
    let mut first = None;
    let found = extreme(array, key, wanted, |value, index| {
        let rank = match value {
            Value::Number(_) => 0,
            Value::Text(_) => 1,
            Value::Date(_) => 2,
            _ => 3,
        };
        if rank == 3 || *first.get_or_insert(rank) != rank {
            let (name, place) = (context.fn_name(), key.place(index));
            let expected = "numbers, or strings, or dates";
            return Err(error::runtime(format!("`{name}` compares {expected}, all of one kind; {place} is another")));
        }
        Ok(())
    })?;
    match found {
        Some(index) => key.get(&mut array[index], index),
        None => Ok(Dynamic::UNIT),
    }
}

/// The first of the elements whose values come first, or last.
fn extreme(
    array: &mut Array,
    key: &Key,
    wanted: Ordering,
    mut check: impl FnMut(&Value, usize) -> Result<()>,
) -> Result<Option<usize>> {
    let mut best: Option<(Value, usize)> = None;
    for (index, item) in array.iter_mut().enumerate() {
        let value = key.read(item, index, Value::of)?;
        check(&value, index)?;
        if best.as_ref().is_none_or(|(best, _)| value.cmp(best) == wanted) {
            best = Some((value, index));
        }
    }
    Ok(best.map(|(_, index)| index))
}

fn register_shapes(engine: &mut Engine) {
    engine
        .register_fn("flatten", |array: &mut Array| flattened(array, 1))
        .register_fn("flatten", |array: &mut Array, depth: i64| flattened(array, depth.min(MAX_FLATTEN)))
        .register_fn("flat", |array: &mut Array| flattened(array, 1))
        .register_fn("compact", |array: &mut Array| {
            array.iter().filter(|item| !item.is_unit()).cloned().collect::<Array>()
        })
        .register_fn("enumerate", |array: &mut Array| pairs(array))
        .register_fn("entries", |array: &mut Array| pairs(array))
        .register_fn("zip", |array: &mut Array, other: Array| {
            let pairs = array.iter().zip(other).map(|(left, right)| vec![left.clone(), right].into());
            pairs.collect::<Array>()
        })
        .register_fn("chunks", |array: &mut Array, size: i64| -> Result<Array> {
            match usize::try_from(size) {
                Ok(size) if size > 0 => Ok(array.chunks(size).map(|chunk| chunk.to_vec().into()).collect()),
                _ => Err(error::runtime(format!("`chunks` takes a size of at least 1; it was given {size}"))),
            }
        })
        .register_fn("join", |array: &mut Array| join(array, ","))
        .register_fn("join", |array: &mut Array, separator: &str| join(array, separator))
        .register_fn("join", |array: &mut Array, separator: char| join(array, separator.encode_utf8(&mut [0; 4])));
    for name in ["to_map", "from_entries"] {
        engine.register_fn(name, |context: NativeCallContext, array: &mut Array| to_map(context.fn_name(), array));
    }
    engine
        .register_fn("range", |end: i64| range(0, end, 1))
        .register_fn("range", |start: i64, end: i64| range(start, end, 1))
        .register_fn("range", range);
}

fn flattened(array: &Array, depth: i64) -> Array {
    let mut out = Array::new();
    for item in array {
        match item.as_array_ref() {
            Ok(inner) if depth > 1 => out.extend(flattened(&inner, depth - 1)),
            Ok(inner) if depth > 0 => out.extend(inner.iter().cloned()),
            _ => out.push(item.clone()),
        }
    }
    out
}

fn pairs(array: &Array) -> Array {
    array.iter().enumerate().map(|(index, item)| vec![position(index), item.clone()].into()).collect()
}

fn join(array: &Array, separator: &str) -> Result<ImmutableString> {
    let mut out = Text::default();
    for (index, item) in array.iter().enumerate() {
        out.push(if index == 0 { "" } else { separator })?;
        out.push(&text(item)?)?;
    }
    Ok(out.finish())
}

pub(super) fn to_map(name: &str, array: &Array) -> Result<Map> {
    let mut out = Map::new();
    for (index, item) in array.iter().enumerate() {
        let pair = item.as_array_ref().ok();
        let Some([key, value]) = pair.as_ref().map(|pair| &pair[..]) else {
            let kind = kind(item);
            return Err(error::runtime(format!(
                "`{name}` takes an array of pairs [key, value]; element {index} is {kind}"
            )));
        };
        out.insert(key_text(key)?.as_str().into(), value.clone());
    }
    Ok(out)
}

fn range(start: i64, end: i64, step: i64) -> Result<Array> {
    if step == 0 {
        return Err(error::runtime("`range` takes a step other than 0"));
    }
    let (from, to, by) = (i128::from(start), i128::from(end), i128::from(step));
    let distance = if by > 0 { to - from } else { from - to };
    let steps = by.abs();
    let count = if distance <= 0 { 0 } else { (distance + steps - 1) / steps };
    match usize::try_from(count) {
        Ok(count) if count <= MAX_ITEMS => {
            // All of them lie between the two ends.
            let items = (0..count as i128).map(|index| i64::try_from(from + index * by).unwrap_or(end).into());
            Ok(items.collect())
        }
        _ => Err(error::runtime(format!(
            "`range` makes an array of at most {MAX_ITEMS} elements; write `for i in {start}..{end}` to count further"
        ))),
    }
}

fn register_parts(engine: &mut Engine) {
    for name in ["length", "size"] {
        engine
            .register_get(name, |array: &mut Array| position(array.len()))
            .register_fn(name, |array: &mut Array| position(array.len()));
    }
    engine
        .register_fn("len", |array: &mut Array| position(array.len()))
        .register_fn("empty", |array: &mut Array| array.is_empty())
        .register_fn("first", |array: &mut Array| array.first().cloned().unwrap_or_default())
        .register_fn("last", |array: &mut Array| array.last().cloned().unwrap_or_default())
        .register_fn("first", |array: &mut Array, count: i64| array[..size(count).min(array.len())].to_vec())
        .register_fn("last", |array: &mut Array, count: i64| array[array.len().saturating_sub(size(count))..].to_vec())
        .register_fn("take", |array: &mut Array, count: i64| array[..size(count).min(array.len())].to_vec())
        .register_fn("skip", |array: &mut Array, count: i64| array[size(count).min(array.len())..].to_vec())
        .register_fn("drop", |array: &mut Array, count: i64| array[size(count).min(array.len())..].to_vec())
        .register_fn("slice", |array: &mut Array, start: i64| slice(array, start, i64::MAX))
        .register_fn("slice", |array: &mut Array, start: i64, end: i64| slice(array, start, end))
        .register_fn("get", |array: &mut Array, index: i64, default: Dynamic| {
            let places = bounds(array.len(), index, i64::MAX);
            let outside = index < 0 && index.unsigned_abs() > array.len() as u64;
            array[places].first().filter(|_| !outside).cloned().unwrap_or(default)
        });
}

fn slice(array: &Array, start: i64, end: i64) -> Array {
    array[bounds(array.len(), start, end)].to_vec()
}

/// A size that a script gave; below 0 is 0.
pub(super) fn size(count: i64) -> usize {
    usize::try_from(count.max(0)).unwrap_or(usize::MAX)
}

/// The place of an index, which counts from the end where it is below 0.
pub(super) fn offset(length: usize, index: i64) -> usize {
    if index < 0 {
        length.saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        size(index).min(length)
    }
}

/// The places of a slice, of which the first comes never after the last.
pub(super) fn bounds(length: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let (start, end) = (offset(length, start), offset(length, end));
    start..end.max(start)
}

fn register_changes(engine: &mut Engine) {
    keyed_change(engine, "retain", |array, key, _| Ok(split_off(array, key, false)?.into()));
    keyed_change(engine, "drain", |array, key, _| Ok(split_off(array, key, true)?.into()));
    register_change(engine, "append", |array: &mut Array, item: Dynamic| array.push(item));
    register_change(engine, "extend", |array: &mut Array, other: Array| array.extend(other));
    register_change(engine, "unshift", |array: &mut Array, item: Dynamic| array.insert(0, item));
    register_change(engine, "pad", |array: &mut Array, length: i64, item: Dynamic| -> Result<()> {
        let length = size(length);
        if length > array.len().max(MAX_ITEMS) {
            return Err(error::runtime(format!("`pad` makes an array of at most {MAX_ITEMS} elements")));
        }
        if length > array.len() {
            array.resize(length, item);
        }
        Ok(())
    });
    register_change(engine, "dedup", |array: &mut Array| -> Result<()> {
        let values: Vec<Value> = array.iter().map(Value::of).collect::<Result<_>>()?;
        let mut index = 0;
        array.retain(|_| {
            index += 1;
            index == 1 || values[index - 1] != values[index - 2]
        });
        Ok(())
    });
    register_change(engine, "dedup", dedup);
    register_change(engine, "dedup", |_: &mut Array, _: ImmutableString| no_name("dedup"));
}

#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn dedup(context: NativeCallContext, array: &mut Array, is_same: FnPtr) -> Result<()> {
    let mut kept = Array::new();
    for item in array.iter() {
        let repeats = match kept.last() {
            Some(last) => {
                let answer = is_same.call_raw(&context, None, [item.clone(), last.clone()])?;
                answer.as_bool().map_err(|_| wrong("dedup", "true or false", &answer))?
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

/// Takes out the elements for which the answer is as expected. An error leaves the array as it was.
fn split_off(array: &mut Array, key: &Key, expected: bool) -> Result<Array> {
    let items = array.iter_mut().enumerate();
    let answers: Vec<bool> = items.map(|(index, item)| key.test(item, index)).collect::<Result<_>>()?;
    let (mut kept, mut out) = (Array::new(), Array::new());
    for (item, answer) in take(array).into_iter().zip(answers) {
        if answer == expected { out.push(item) } else { kept.push(item) }
    }
    *array = kept;
    Ok(out)
}

fn register_sets(engine: &mut Engine) {
    for (names, inside) in [(["intersect", "intersection"], true), (["difference", "except"], false)] {
        for name in names {
            engine.register_fn(name, move |array: &mut Array, other: Array| -> Result<Array> {
                let other = set(&other)?;
                let mut kept = Array::new();
                for item in array.iter() {
                    if other.contains(&Value::of(item)?) == inside {
                        kept.push(item.clone());
                    }
                }
                Ok(kept)
            });
        }
    }
    engine.register_fn("union", |array: &mut Array, other: Array| {
        let mut all: Array = array.iter().cloned().chain(other).collect();
        unique(&mut all, &Key::Itself)
    });
    engine
        .register_fn("concat", |array: &mut Array, other: Array| array.iter().cloned().chain(other).collect::<Array>());
    engine.register_fn("concat", |array: &mut Array, item: Dynamic| {
        array.iter().cloned().chain([item]).collect::<Array>()
    });
}

fn set(array: &Array) -> Result<BTreeSet<Value>> {
    array.iter().map(Value::of).collect()
}
