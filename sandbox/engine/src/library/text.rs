//! Strings. What Rhai changes in place and returns nothing of also returns its result here: `let t = s.trim()`.

use std::any::TypeId;

use rhai::{Array, Dynamic, Engine, ImmutableString};

use super::functions::{MAX_PATH, position, reach};
use super::lists::{bounds, offset, size};
use super::values::{MAX_TEXT, Number, Text, character_text, kind, text};
use super::{Result, numbers};
use crate::{current, error};

/// Most values that `format` and `print` take.
const MAX_VALUES: usize = 10;
/// Most characters of a field of `format`.
const MAX_WIDTH: usize = 10_000;
/// Most digits after the point.
const MAX_DIGITS: usize = 100;

pub(super) fn register(engine: &mut Engine) {
    register_changes(engine);
    register_case(engine);
    register_padding(engine);
    register_parts(engine);
    register_search(engine);
    register_format(engine);
}

type Change = fn(&str, &[&str], &[i64]) -> Result<ImmutableString>;

/// A function that returns the new text and also puts it in the place of the old one, where that is no constant.
fn change(engine: &mut Engine, name: &str, kinds: &[Argument], function: Change) {
    make(engine, name, kinds, true, function);
}

/// A function that returns the new text. It takes so many strings or characters, and so many integers before or after them.
fn make(engine: &mut Engine, name: &str, kinds: &[Argument], in_place: bool, function: Change) {
    let string = TypeId::of::<ImmutableString>();
    let choices = kinds.iter().map(|kind| match kind {
        Argument::Int => vec![TypeId::of::<i64>()],
        Argument::Text => vec![string, TypeId::of::<char>()],
    });
    let mut forms = vec![vec![string]];
    for choices in choices {
        forms = forms
            .iter()
            .flat_map(|form| choices.iter().map(|choice| form.iter().copied().chain([*choice]).collect()))
            .collect();
    }
    for form in forms {
        engine.register_raw_fn(name, form, move |_, arguments| -> Result<ImmutableString> {
            let Some((receiver, rest)) = arguments.split_first_mut() else {
                return Ok(ImmutableString::new());
            };
            let (mut texts, mut ints) = (Vec::new(), Vec::new());
            for argument in rest {
                match argument.as_int() {
                    Ok(int) => ints.push(int),
                    Err(_) => texts.push(text(argument)?),
                }
            }
            let texts: Vec<&str> = texts.iter().map(ImmutableString::as_str).collect();
            let old = text(receiver)?;
            let new = function(&old, &texts, &ints)?;
            if in_place
                && !receiver.is_read_only()
                && let Some(mut place) = receiver.write_lock::<ImmutableString>()
            {
                *place = new.clone();
            }
            Ok(new)
        });
    }
}

#[derive(Clone, Copy)]
enum Argument {
    Int,
    Text,
}

fn register_changes(engine: &mut Engine) {
    use Argument::{Int, Text};
    // A call that is a statement changes its variable, as in Rhai; one whose value is taken does not, as in other languages.
    for (in_place, name) in [(false, "trim".into()), (true, current::in_place("trim"))] {
        make(engine, &name, &[], in_place, |text, _, _| Ok(text.trim().into()));
    }
    let replacing = ["replace", "replaceAll", "replace_all"].map(|name| (false, String::from(name)));
    for (in_place, name) in replacing.into_iter().chain([(true, current::in_place("replace"))]) {
        make(engine, &name, &[Text, Text], in_place, |text, with, _| match with {
            [old, new] => replace(text, old, new),
            _ => Ok(text.into()),
        });
    }
    change(engine, "make_upper", &[], |text, _, _| upper(text));
    change(engine, "make_lower", &[], |text, _, _| lower(text));
    change(engine, "remove", &[Text], |text, old, _| old.first().map_or(Ok(text.into()), |old| replace(text, old, "")));
    change(engine, "truncate", &[Int], |text, _, ints| {
        Ok(part(text, 0, size(ints.first().copied().unwrap_or_default())).into())
    });
    change(engine, "crop", &[Int], |text, _, ints| {
        let start = offset(count(text), ints.first().copied().unwrap_or_default());
        Ok(part(text, start, usize::MAX).into())
    });
    change(engine, "crop", &[Int, Int], |text, _, ints| {
        let [start, length] = ints else { return Ok(text.into()) };
        let start = offset(count(text), *start);
        Ok(part(text, start, size(*length)).into())
    });
    change(engine, "pad", &[Int, Text], |text, filler, ints| {
        pad(text, ints.first().copied().unwrap_or_default(), filler.first().unwrap_or(&" "), Side::End, "pad")
    });
    change(engine, "pad", &[Int], |text, _, ints| {
        pad(text, ints.first().copied().unwrap_or_default(), " ", Side::End, "pad")
    });
}

fn replace(text: &str, old: &str, new: &str) -> Result<ImmutableString> {
    let mut out = Text::default();
    let mut end = 0;
    for (start, old) in text.match_indices(old) {
        out.push(&text[end..start])?;
        out.push(new)?;
        end = start + old.len();
    }
    out.push(&text[end..])?;
    Ok(out.finish())
}

fn upper(text: &str) -> Result<ImmutableString> {
    bounded(text.to_uppercase())
}

fn lower(text: &str) -> Result<ImmutableString> {
    bounded(text.to_lowercase())
}

fn bounded(text: String) -> Result<ImmutableString> {
    if text.len() > MAX_TEXT {
        return Err(error::runtime(format!("a text has at most {} MiB", MAX_TEXT >> 20)));
    }
    Ok(text.into())
}

fn count(text: &str) -> usize {
    text.chars().count()
}

/// So many characters from a place on.
fn part(text: &str, start: usize, length: usize) -> &str {
    let mut places = text.char_indices().map(|(place, _)| place).skip(start);
    let Some(first) = places.next() else { return "" };
    let Some(more) = length.checked_sub(1) else { return "" };
    &text[first..places.nth(more).unwrap_or(text.len())]
}

fn register_case(engine: &mut Engine) {
    for name in ["upper", "to_upper", "toUpperCase", "to_uppercase"] {
        engine.register_fn(name, |text: &str| upper(text));
    }
    for name in ["lower", "to_lower", "toLowerCase", "to_lowercase"] {
        engine.register_fn(name, |text: &str| lower(text));
    }
    engine
        .register_fn("capitalize", |text: &str| -> Result<ImmutableString> {
            let mut rest = text.chars();
            bounded(rest.next().into_iter().flat_map(char::to_uppercase).chain(rest).collect())
        })
        .register_fn("title", |text: &str| -> Result<ImmutableString> {
            let mut in_word = false;
            let mut out = Text::default();
            for character in text.chars() {
                if in_word {
                    out.push(&character.to_lowercase().to_string())?;
                } else {
                    out.push(&character.to_uppercase().to_string())?;
                }
                in_word = character.is_alphanumeric() || character == '\'';
            }
            Ok(out.finish())
        });
}

fn register_padding(engine: &mut Engine) {
    engine.register_fn("strip", |text: &str| ImmutableString::from(text.trim()));
    for name in ["trim_start", "trimStart", "lstrip"] {
        engine.register_fn(name, |text: &str| ImmutableString::from(text.trim_start()));
    }
    for name in ["trim_end", "trimEnd", "rstrip"] {
        engine.register_fn(name, |text: &str| ImmutableString::from(text.trim_end()));
    }
    for (side, names) in
        [(Side::Start, ["pad_start", "padStart", "rjust"]), (Side::End, ["pad_end", "padEnd", "ljust"])]
    {
        for name in names {
            engine
                .register_fn(name, move |text: &str, length: i64| pad(text, length, " ", side, name))
                .register_fn(name, move |text: &str, length: i64, filler: &str| pad(text, length, filler, side, name))
                .register_fn(name, move |text: &str, length: i64, filler: char| {
                    pad(text, length, filler.encode_utf8(&mut [0; 4]), side, name)
                });
        }
    }
    engine.register_fn("repeat", |text: &str, times: i64| -> Result<ImmutableString> {
        let mut out = Text::default();
        if !text.is_empty() {
            out.push_times(text, size(times))?;
        }
        Ok(out.finish())
    });
}

#[derive(Clone, Copy)]
enum Side {
    Start,
    End,
}

fn pad(text: &str, length: i64, filler: &str, side: Side, name: &str) -> Result<ImmutableString> {
    if filler.is_empty() {
        return Err(error::runtime(format!("`{name}` takes something to fill with, such as \" \"; it was given \"\"")));
    }
    let missing = size(length).saturating_sub(count(text));
    if missing > MAX_TEXT {
        return Err(error::runtime(format!("`{name}` makes a text of at most {} MiB", MAX_TEXT >> 20)));
    }
    let fill: String = filler.chars().cycle().take(missing).collect();
    let mut out = Text::default();
    let pieces = match side {
        Side::Start => [&fill, text],
        Side::End => [text, &fill],
    };
    pieces.into_iter().try_for_each(|piece| out.push(piece))?;
    Ok(out.finish())
}

fn register_parts(engine: &mut Engine) {
    for name in ["length", "size"] {
        engine
            .register_get(name, |text: &mut ImmutableString| position(count(text)))
            .register_fn(name, |text: &str| position(count(text)));
    }
    engine
        .register_fn("len", |text: &str| position(count(text)))
        .register_fn("empty", |text: &str| text.is_empty())
        .register_fn("split", |text: &str| strings(text.split_whitespace()))
        .register_fn("words", |text: &str| strings(text.split_whitespace()))
        .register_fn("lines", |text: &str| strings(text.lines()))
        .register_fn("split", |text: &str, separator: &str| match separator {
            "" => text.chars().map(|character| character_text(character).into()).collect(),
            separator => strings(text.split(separator)),
        })
        .register_fn("split", |text: &str, separator: char| strings(text.split(separator)))
        .register_fn("reversed", |text: &str| text.chars().rev().collect::<ImmutableString>())
        .register_fn("reverse", |text: &str| text.chars().rev().collect::<ImmutableString>())
        .register_fn("slice", |text: &str, start: i64| slice(text, start, i64::MAX))
        .register_fn("slice", slice)
        .register_fn("substring", |text: &str, start: i64| slice(text, start.max(0), i64::MAX))
        .register_fn("substring", |text: &str, start: i64, end: i64| {
            let (start, end) = (start.max(0), end.max(0));
            slice(text, start.min(end), start.max(end))
        })
        .register_fn("concat", |text: &str, other: &str| -> Result<ImmutableString> {
            let mut out = Text::default();
            out.push(text)?;
            out.push(other)?;
            Ok(out.finish())
        });
    for name in ["char_at", "charAt"] {
        engine.register_fn(name, |text: &str, index: i64| {
            let length = count(text);
            let outside = index < 0 && index.unsigned_abs() > length as u64;
            ImmutableString::from(if outside { "" } else { part(text, offset(length, index), 1) })
        });
    }
    for name in ["remove_prefix", "removeprefix"] {
        engine.register_fn(name, |text: &str, prefix: &str| {
            ImmutableString::from(text.strip_prefix(prefix).unwrap_or(text))
        });
    }
    for name in ["remove_suffix", "removesuffix"] {
        engine.register_fn(name, |text: &str, suffix: &str| {
            ImmutableString::from(text.strip_suffix(suffix).unwrap_or(text))
        });
    }
}

fn strings<'a>(parts: impl Iterator<Item = &'a str>) -> Array {
    parts.map(|part| ImmutableString::from(part).into()).collect()
}

fn slice(text: &str, start: i64, end: i64) -> ImmutableString {
    let places = bounds(count(text), start, end);
    part(text, places.start, places.len()).into()
}

/// A function of a text and a text in it, which may be a character.
fn with_piece<T: rhai::Variant + Clone>(engine: &mut Engine, names: &[&str], function: fn(&str, &str) -> T) {
    for name in names {
        engine
            .register_fn(*name, move |text: &str, piece: &str| function(text, piece))
            .register_fn(*name, move |text: &str, piece: char| function(text, piece.encode_utf8(&mut [0; 4])));
    }
}

fn register_search(engine: &mut Engine) {
    with_piece(engine, &["includes", "contains"], |text, piece| text.contains(piece));
    with_piece(engine, &["starts_with", "startswith", "startsWith"], |text, piece| text.starts_with(piece));
    with_piece(engine, &["ends_with", "endswith", "endsWith"], |text, piece| text.ends_with(piece));
    with_piece(engine, &["indexOf"], |text, piece| place(text, text.find(piece)));
    with_piece(engine, &["last_index_of", "lastIndexOf"], |text, piece| place(text, text.rfind(piece)));
    with_piece(engine, &["count"], |text, piece| position(text.matches(piece).count()));
}

fn place(text: &str, found: Option<usize>) -> Dynamic {
    found.map_or_else(|| (-1_i64).into(), |end| position(count(&text[..end])))
}

fn register_format(engine: &mut Engine) {
    let any = TypeId::of::<Dynamic>();
    for values in 0..=MAX_VALUES {
        let form: Vec<TypeId> = [TypeId::of::<ImmutableString>()].into_iter().chain(vec![any; values]).collect();
        engine.register_raw_fn("format", form, |_, arguments| -> Result<ImmutableString> {
            let Some((template, values)) = arguments.split_first() else { return Ok(ImmutableString::new()) };
            let template = text(template)?;
            format(&template, &values.iter().map(|value| &**value).collect::<Vec<_>>())
        });
    }
    for values in 2..=MAX_VALUES {
        // Rhai prints what a function of that name returns.
        engine.register_raw_fn("print", vec![any; values], |_, arguments| {
            spaced(&arguments.iter().map(|value| &**value).collect::<Vec<_>>())
        });
    }
}

/// The texts of the values with spaces between them.
pub(super) fn spaced(values: &[&Dynamic]) -> Result<ImmutableString> {
    let mut out = Text::default();
    for (index, value) in values.iter().enumerate() {
        out.push(if index == 0 { "" } else { " " })?;
        out.push(&text(value)?)?;
    }
    Ok(out.finish())
}

/// Prints the values as one line.
pub(super) fn print(values: &[&Dynamic]) -> Result<()> {
    let line = spaced(values)?;
    current::with_host(|host| host.log(&line));
    Ok(())
}

fn format(template: &str, values: &[&Dynamic]) -> Result<ImmutableString> {
    let mut out = Text::default();
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push(brace)?;
            rest = after;
            continue;
        }
        let Some((field, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err(error::runtime(format!(
                "`format`: a `{brace}` stands alone in the template; write `{brace}{brace}` for a brace"
            )));
        };
        rest = after;
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        push_field(&mut out, name.trim(), spec, values, &mut next)?;
    }
    out.push(rest)?;
    Ok(out.finish())
}

fn push_field(out: &mut Text, name: &str, spec: &str, values: &[&Dynamic], next: &mut usize) -> Result<()> {
    let index = if name.is_empty() {
        *next += 1;
        Some(*next - 1)
    } else {
        name.parse::<usize>().ok()
    };
    let put = |value: &Dynamic| Spec::parse(spec).and_then(|spec| spec.show(value));
    let shown = match (index, values) {
        (Some(index), values) => {
            let given = values.len();
            let value = values.get(index).ok_or_else(|| {
                error::runtime(format!(
                    "`format`: the template asks for value {index} (from 0), and {given} were given"
                ))
            })?;
            put(value)?
        }
        (None, [values]) if values.is_map() && name.split('.').nth(MAX_PATH).is_none() => {
            match reach(values, name, put) {
                Some(shown) => shown?,
                None => return Err(error::runtime(format!("`format`: `{name}` leads through what is no map"))),
            }
        }
        _ => {
            return Err(error::runtime(format!(
                "`format`: the template asks for `{name}`: give a map, as in `format(\"{{{name}}}\", #{{{name}: 1}})`"
            )));
        }
    };
    out.push(&shown)
}

/// How a value is shown: `[[fill]align][+][0][width][,][.digits][type]`.
#[derive(Debug)]
struct Spec {
    fill: char,
    align: Option<char>,
    plus: bool,
    zero: bool,
    width: usize,
    comma: bool,
    digits: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(spec: &str) -> Result<Self> {
        let mut rest = spec.chars().peekable();
        let mut out =
            Self { fill: ' ', align: None, plus: false, zero: false, width: 0, comma: false, digits: None, kind: None };
        let is_align = |character: char| matches!(character, '<' | '>' | '^');
        let mut start = spec.chars();
        match (start.next(), start.next()) {
            (Some(fill), Some(align)) if is_align(align) => {
                (out.fill, out.align) = (fill, Some(align));
                rest.nth(1);
            }
            (Some(align), _) if is_align(align) => {
                out.align = Some(align);
                rest.next();
            }
            _ => {}
        }
        out.plus = rest.next_if_eq(&'+').is_some();
        out.zero = rest.next_if_eq(&'0').is_some();
        let number = |rest: &mut std::iter::Peekable<std::str::Chars>| {
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            (!digits.is_empty()).then(|| digits.parse::<usize>().unwrap_or(usize::MAX))
        };
        out.width = number(&mut rest).unwrap_or_default();
        out.comma = rest.next_if(|character| matches!(character, ',' | '_')).is_some();
        let point = rest.next_if_eq(&'.').is_some();
        out.digits = if point { number(&mut rest) } else { None };
        out.kind = rest.next_if(|kind| "dsfFgeExXbo%?".contains(*kind));
        if rest.peek().is_some() || (point && out.digits.is_none()) {
            return Err(error::runtime(format!(
                "`format` can't read `{{:{spec}}}`: write as in {{:.2}}, {{:>8}}, {{:<8}}, {{:^8}}, {{:08.3}}, {{:,}}, {{:x}} or {{:.1%}}"
            )));
        }
        if out.width > MAX_WIDTH {
            return Err(error::runtime(format!("`format`: a width is at most {MAX_WIDTH}")));
        }
        Ok(out)
    }

    fn show(&self, value: &Dynamic) -> Result<String> {
        let number = Number::of(value);
        let mut shown = match (number, self.kind) {
            (Some(Number::Int(int)), Some('x')) => radix(int, format!("{:x}", int.unsigned_abs())),
            (Some(Number::Int(int)), Some('X')) => radix(int, format!("{:X}", int.unsigned_abs())),
            (Some(Number::Int(int)), Some('b')) => radix(int, format!("{:b}", int.unsigned_abs())),
            (Some(Number::Int(int)), Some('o')) => radix(int, format!("{:o}", int.unsigned_abs())),
            (Some(number), Some('%')) => {
                format!("{}%", numbers::fixed(number.float() * 100.0, self.digits.unwrap_or(6).min(MAX_DIGITS)))
            }
            (Some(number), Some('e' | 'E')) => {
                format!("{:.*e}", self.digits.unwrap_or(6).min(MAX_DIGITS), number.float())
            }
            (Some(number), Some('f' | 'F')) => numbers::fixed(number.float(), self.digits.unwrap_or(6).min(MAX_DIGITS)),
            (Some(Number::Int(int)), None | Some('d' | 's' | 'g' | '?')) if self.digits.is_none() => int.to_string(),
            (Some(number), None | Some('d' | 's' | 'g' | '?')) if self.digits.is_some() => {
                numbers::fixed(number.float(), self.digits.unwrap_or_default().min(MAX_DIGITS))
            }
            (_, None | Some('s' | '?' | 'd' | 'g')) => {
                let shown = text(value)?;
                if number.is_none() && matches!(self.kind, Some('d' | 'g')) {
                    return Err(self.mismatch(value));
                }
                part(&shown, 0, self.digits.filter(|_| number.is_none()).unwrap_or(usize::MAX)).to_string()
            }
            _ => return Err(self.mismatch(value)),
        };
        if number.is_some() {
            if self.comma {
                shown = grouped(&shown);
            }
            if self.plus && !shown.starts_with('-') {
                shown.insert(0, '+');
            }
        }
        let missing = self.width.saturating_sub(count(&shown));
        if missing == 0 {
            return Ok(shown);
        }
        if self.zero && self.align.is_none() && number.is_some() {
            let sign = usize::from(shown.starts_with(['-', '+']));
            shown.insert_str(sign, &"0".repeat(missing));
            return Ok(shown);
        }
        let before = match self.align {
            Some('>') => missing,
            Some('^') => missing / 2,
            None if number.is_some() => missing,
            _ => 0,
        };
        let fill = |times| std::iter::repeat_n(self.fill, times).collect::<String>();
        Ok(format!("{}{shown}{}", fill(before), fill(missing - before)))
    }

    fn mismatch(&self, value: &Dynamic) -> Box<rhai::EvalAltResult> {
        let (kind, form) = (kind(value), self.kind.unwrap_or_default());
        error::runtime(format!("`format`: `{{:{form}}}` shows a number; it was given {kind}"))
    }
}

fn radix(int: i64, digits: String) -> String {
    if int < 0 { format!("-{digits}") } else { digits }
}

/// With commas between thousands.
fn grouped(number: &str) -> String {
    let start = number.find(|character: char| character.is_ascii_digit()).unwrap_or(number.len());
    let length = number[start..].find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len() - start);
    let (digits, rest) = number[start..].split_at(length);
    let mut out = String::from(&number[..start]);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (length - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}
