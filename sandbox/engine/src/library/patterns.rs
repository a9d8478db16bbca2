//! Regular expressions, of the crate `regex`: linear time, and a bound to the size of a compiled pattern.

use std::cell::RefCell;
use std::rc::Rc;

use regex::{Captures, Regex, RegexBuilder};
use rhai::{Array, Dynamic, Engine, FnPtr, ImmutableString, Map, NativeCallContext};

use super::Result;
use super::functions::{Callback, position};
use super::numbers::quoted;
use super::values::{Text, text};
use crate::error;

/// Bytes of the longest pattern.
const MAX_PATTERN: usize = 16 << 10;
/// Bytes of a compiled pattern.
const MAX_COMPILED: usize = 1 << 20;
/// Patterns that a thread keeps compiled: scripts use the same ones in loops.
const KEPT: usize = 32;

thread_local! {
    /// The last used is the last.
    static COMPILED: RefCell<Vec<(ImmutableString, Rc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn register(engine: &mut Engine) {
    for name in ["regex_test", "is_match"] {
        engine.register_fn(name, |text: &str, pattern: &str| compiled(pattern).map(|regex| regex.is_match(text)));
    }
    engine.register_fn("regex_find", |text: &str, pattern: &str| -> Result<Dynamic> {
        Ok(compiled(pattern)?.find(text).map_or(Dynamic::UNIT, |found| string(found.as_str())))
    });
    for name in ["regex_find_all", "find_all"] {
        engine.register_fn(name, |text: &str, pattern: &str| -> Result<Array> {
            Ok(compiled(pattern)?.find_iter(text).map(|found| string(found.as_str())).collect())
        });
    }
    engine
        .register_fn("regex_captures", |text: &str, pattern: &str| -> Result<Dynamic> {
            let regex = compiled(pattern)?;
            let mut places = Places::new(text);
            Ok(regex.captures(text).map_or(Dynamic::UNIT, |found| described(&regex, &found, &mut places).into()))
        })
        .register_fn("regex_captures_all", |text: &str, pattern: &str| -> Result<Array> {
            let regex = compiled(pattern)?;
            let mut places = Places::new(text);
            Ok(regex.captures_iter(text).map(|found| described(&regex, &found, &mut places).into()).collect())
        })
        .register_fn("regex_replace", |text: &str, pattern: &str, with: &str| {
            replace(text, &*compiled(pattern)?, |out, _, found| expand(out, with, found))
        })
        .register_fn("regex_replace", replace_with_function)
        .register_fn("regex_split", |text: &str, pattern: &str| -> Result<Array> {
            Ok(compiled(pattern)?.split(text).map(string).collect())
        })
        .register_fn("regex_escape", |text: &str| regex::escape(text));
}

fn compiled(pattern: &str) -> Result<Rc<Regex>> {
    let kept = COMPILED.with_borrow_mut(|kept| {
        let entry = kept.iter().rposition(|(known, _)| known == pattern).map(|index| kept.remove(index))?;
        kept.push(entry);
        kept.last().map(|(_, regex)| Rc::clone(regex))
    });
    if let Some(regex) = kept {
        return Ok(regex);
    }
    if pattern.len() > MAX_PATTERN {
        return Err(error::runtime(format!("a pattern has at most {} KiB", MAX_PATTERN >> 10)));
    }
    let regex = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
    let regex = Rc::new(regex.map_err(|fault| error::runtime(refusal(pattern, &fault)))?);
    COMPILED.with_borrow_mut(|kept| {
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((pattern.into(), Rc::clone(&regex)));
    });
    Ok(regex)
}

fn refusal(pattern: &str, fault: &regex::Error) -> String {
    let pattern = quoted(pattern);
    if let regex::Error::CompiledTooBig(_) = fault {
        return format!("the pattern {pattern} is too large once its repetitions are written out");
    }
    // The crate draws the place under the pattern; its last line says what is wrong.
    let fault = fault.to_string();
    let cause = fault.lines().last().unwrap_or_default();
    let cause = cause.strip_prefix("error: ").unwrap_or(cause);
    let hint = if cause.contains("look-around") { "; find more and look at it in the script" } else { "" };
    format!("the pattern {pattern} can't be read: {cause}{hint}")
}

fn string(text: &str) -> Dynamic {
    ImmutableString::from(text).into()
}

/// Tells the characters before a byte, reading the text once where the bytes come in order.
struct Places<'t> {
    text: &'t str,
    byte: usize,
    character: usize,
}

impl<'t> Places<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, byte: 0, character: 0 }
    }

    fn at(&mut self, byte: usize) -> Dynamic {
        if byte < self.byte {
            (self.byte, self.character) = (0, 0);
        }
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        position(self.character)
    }
}

/// `#{text, groups, names, start, end}`; what takes no part in a match is `()`.
fn described(regex: &Regex, found: &Captures, places: &mut Places) -> Map {
    let group = |group: Option<regex::Match>| group.map_or(Dynamic::UNIT, |group| string(group.as_str()));
    let mut out = Map::new();
    if let Some(whole) = found.get(0) {
        out.insert("text".into(), string(whole.as_str()));
        out.insert("start".into(), places.at(whole.start()));
        out.insert("end".into(), places.at(whole.end()));
    }
    out.insert("groups".into(), found.iter().skip(1).map(group).collect::<Array>().into());
    let names = regex.capture_names().flatten().map(|name| (name.into(), group(found.name(name))));
    out.insert("names".into(), names.collect::<Map>().into());
    out
}

fn replace(
    text: &str,
    regex: &Regex,
    mut put: impl FnMut(&mut Text, usize, &Captures) -> Result<()>,
) -> Result<ImmutableString> {
    let mut out = Text::default();
    let mut end = 0;
    for (index, found) in regex.captures_iter(text).enumerate() {
        let Some(whole) = found.get(0) else { continue };
        out.push(&text[end..whole.start()])?;
        put(&mut out, index, &found)?;
        end = whole.end();
    }
    out.push(&text[end..])?;
    Ok(out.finish())
}

#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn replace_with_function(
    context: NativeCallContext,
    source: &str,
    pattern: &str,
    function: FnPtr,
) -> Result<ImmutableString> {
    let function = Callback::new(&context, function)?;
    let regex = compiled(pattern)?;
    let mut places = Places::new(source);
    replace(source, &regex, |out, index, found| {
        let answer = function.call(&mut described(&regex, found, &mut places).into(), index)?;
        out.push(&text(&answer)?)
    })
}

/// Puts a replacement with `$1`, `${1}`, `${name}`, `$<name>`, `$0` or `$&`; `$$` is a dollar.
fn expand(out: &mut Text, with: &str, found: &Captures) -> Result<()> {
    let mut rest = with;
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at])?;
        let after = &rest[at + 1..];
        let enclosed = |open, close| after.strip_prefix(open).and_then(|after: &str| after.split_once(close));
        if let Some(rest_after) = after.strip_prefix('$') {
            out.push("$")?;
            rest = rest_after;
        } else if let Some(rest_after) = after.strip_prefix('&') {
            out.push(found.get(0).map_or("", |whole| whole.as_str()))?;
            rest = rest_after;
        } else if let Some((name, rest_after)) = enclosed('{', '}').or_else(|| enclosed('<', '>')) {
            let group = name.parse().ok().and_then(|index| found.get(index)).or_else(|| found.name(name));
            out.push(group.map_or("", |group| group.as_str()))?;
            rest = rest_after;
        } else {
            // `$10` is group 1 and a zero where there are fewer than ten.
            let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
            let index = (1..=digits).rev().find_map(|length| {
                let index = after[..length].parse::<usize>().ok().filter(|index| *index < found.len())?;
                Some((index, length))
            });
            if let Some((index, length)) = index {
                out.push(found.get(index).map_or("", |group| group.as_str()))?;
                rest = &after[length..];
            } else {
                out.push("$")?;
                rest = after;
            }
        }
    }
    out.push(rest)
}
