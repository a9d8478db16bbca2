//! Which content blocks of an answer say nothing that its structured content does not. Servers repeat it for clients that know no other,
//! in forms of their own. A server chooses the size of both, so that one pass over each has to do: what the blocks say is hashed, and then
//! looked for among all values in the structured content.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::as_text;

/// Levels of JSON that are looked at; no script reads as many.
const LEVELS: usize = 1000;
/// What may stand between items that are written one after the other.
const BETWEEN: [&str; 6] = ["", "\n", "\n\n", ", ", ",", " "];

/// Whether each block is repeated.
pub(super) fn repeated(structured: &str, blocks: &[Box<RawValue>]) -> Vec<bool> {
    if let [only] = blocks
        && as_text(only).is_some_and(|text| is_same_json(&text, structured))
    {
        return vec![true];
    }
    let mut wanted = Wanted { repeated: vec![false; blocks.len()], ..Wanted::default() };
    for (index, block) in blocks.iter().enumerate() {
        match as_text(block) {
            Some(text) => wanted.text(index, text.trim()),
            None => wanted.block(index, block.get()),
        }
    }
    if wanted.values.is_empty() {
        return wanted.repeated;
    }
    let hashing = wanted.hashing.clone();
    let is_known = Walk::new(&hashing, Some(&mut wanted)).over(structured).is_some();
    if is_known { wanted.repeated } else { vec![false; blocks.len()] }
}

/// What blocks say, by its hash, with the places of the blocks that say it.
#[derive(Default)]
struct Wanted {
    hashing: Hashing,
    values: HashMap<u64, Vec<usize>>,
    /// Texts that may be items one after the other, by their lengths too.
    joined: HashMap<(usize, u64), Vec<usize>>,
    lengths: HashSet<usize>,
    longest: usize,
    repeated: Vec<bool>,
}

impl Wanted {
    /// A text: as such, as JSON, and as items one after the other.
    fn text(&mut self, index: usize, text: &str) {
        if text.is_empty() {
            self.repeated[index] = true;
            return;
        }
        let mut hashes = vec![self.hashing.text(text)];
        let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().collect::<Result<Vec<_>, _>>();
        match values.as_deref() {
            Ok([only]) => hashes.extend(Walk::new(&self.hashing, None).over(only.get()).map(|hashes| hashes.strict)),
            Ok(values @ [_, _, ..]) => {
                let mut list = Container::new(true);
                let each = values.iter().map(|value| Walk::new(&self.hashing, None).over(value.get()));
                for hashes in each.into_iter().flatten() {
                    list.add(&self.hashing, hashes, false);
                }
                if list.count.strict == values.len() as u64 {
                    hashes.push(list.hashes(&self.hashing).strict);
                }
            }
            _ => {}
        }
        for hash in hashes {
            self.values.entry(hash).or_default().push(index);
        }
        let mut whole = Joined::default();
        whole.add(&self.hashing, text);
        self.joined.entry((whole.length, whole.hash)).or_default().push(index);
        self.lengths.insert(whole.length);
        self.longest = self.longest.max(whole.length);
    }

    /// Another block: as it stands, and a resource without what is around it. Some servers write what is not there as `null`.
    fn block(&mut self, index: usize, block: &str) {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Resource<'a> {
            #[serde(rename = "type")]
            _kind: IgnoredAny,
            #[serde(borrow)]
            resource: &'a RawValue,
        }
        let inner = serde_json::from_str::<Resource>(block).ok().map(|block| block.resource.get());
        for json in [Some(block), inner].into_iter().flatten() {
            if let Some(hashes) = Walk::new(&self.hashing, None).over(json) {
                self.values.entry(hashes.lax).or_default().push(index);
            }
        }
    }

    /// Notes that the structured content has a value. Each block is found once, however often it is there.
    fn found(&mut self, hashes: Hashes) {
        for hash in [hashes.strict, hashes.lax] {
            for index in self.values.remove(&hash).unwrap_or_default() {
                self.repeated[index] = true;
            }
        }
    }

    fn found_joined(&mut self, joined: &Joined) {
        if self.lengths.contains(&joined.length) {
            for index in self.joined.remove(&(joined.length, joined.hash)).unwrap_or_default() {
                self.repeated[index] = true;
            }
        }
    }
}

/// Of one value: as it stands, and without properties that are `null`.
#[derive(Clone, Copy, Default)]
struct Hashes {
    strict: u64,
    lax: u64,
}

/// Hashes that a server can't foresee.
#[derive(Clone, Default)]
struct Hashing(RandomState);

impl Hashing {
    fn of(&self, kind: u8, one: u64, other: u64) -> u64 {
        self.0.hash_one((kind, one, other))
    }

    /// White space around a text is no more than that.
    fn text(&self, text: &str) -> u64 {
        self.0.hash_one((b's', text.trim()))
    }

    /// Numbers are alike by value: `1`, `1.0` and `1e0`. Of long integers every digit counts.
    fn number(&self, token: &str) -> u64 {
        let is_integer = token.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let float = || token.parse::<f64>().unwrap_or_default();
        let token: Cow<str> = match token {
            "-0" => "0".into(),
            token if is_integer => token.into(),
            // What is beyond has more zeros than are worth writing.
            _ if float().fract() == 0.0 && float().abs() < 1e22 => format!("{:.0}", float() + 0.0).into(),
            _ => return self.of(b'f', float().to_bits(), 0),
        };
        self.0.hash_one((b'n', token))
    }

    fn scalar(&self, token: &str) -> u64 {
        match token.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => self.number(token),
            _ => self.0.hash_one((b'l', token)),
        }
    }
}

/// Texts one after the other. Where one ends and the next begins counts for nothing, so that this is no hash of [`Hashing`], but the value of
/// a polynomial at a place that a server can't foresee.
#[derive(Clone, Default)]
struct Joined {
    length: usize,
    hash: u64,
}

impl Joined {
    fn add(&mut self, hashing: &Hashing, text: &str) {
        const PRIME: u128 = (1 << 61) - 1;
        let base = u128::from(hashing.0.hash_one(b'j')) % PRIME;
        self.length += text.len();
        for byte in text.bytes() {
            let next = (u128::from(self.hash) * base + u128::from(byte) + 1) % PRIME;
            self.hash = u64::try_from(next).unwrap_or_default();
        }
    }
}

/// A list or a map that is not over yet.
struct Container {
    is_list: bool,
    hashes: Hashes,
    count: Hashes,
    /// The name of the property whose value comes next.
    name: Option<u64>,
    /// The items one after the other, as long as they are texts, numbers and the like.
    joined: Option<Vec<Joined>>,
}

impl Container {
    fn new(is_list: bool) -> Self {
        let (hashes, count) = Default::default();
        Self { is_list, hashes, count, name: None, joined: is_list.then(Vec::new) }
    }

    fn add(&mut self, hashing: &Hashing, value: Hashes, is_null: bool) {
        let Hashes { strict, lax } = &mut self.hashes;
        if self.is_list {
            (*strict, *lax) = (hashing.of(b'i', *strict, value.strict), hashing.of(b'i', *lax, value.lax));
        } else {
            // The order of properties counts for nothing.
            let name = self.name.take().unwrap_or_default();
            *strict = strict.wrapping_add(hashing.of(b'p', name, value.strict));
            if !is_null {
                *lax = lax.wrapping_add(hashing.of(b'p', name, value.lax));
            }
        }
        self.count.strict += 1;
        self.count.lax += u64::from(self.is_list || !is_null);
    }

    fn hashes(&self, hashing: &Hashing) -> Hashes {
        let kind = if self.is_list { b'[' } else { b'{' };
        let Hashes { strict, lax } = self.hashes;
        Hashes { strict: hashing.of(kind, strict, self.count.strict), lax: hashing.of(kind, lax, self.count.lax) }
    }

    /// Adds an item's text to those before it, as long as something of that length is looked for.
    fn join(&mut self, hashing: &Hashing, text: &str, longest: usize) {
        let is_first = self.count.strict == 0;
        let Some(joined) = &mut self.joined else { return };
        if is_first {
            *joined = vec![Joined::default(); BETWEEN.len()];
        }
        for (joined, between) in joined.iter_mut().zip(BETWEEN) {
            if joined.length + text.len() <= longest {
                joined.add(hashing, if is_first { "" } else { between });
                joined.add(hashing, text);
            } else {
                joined.length = usize::MAX / 2;
            }
        }
        if joined.iter().all(|joined| joined.length > longest) {
            self.joined = None;
        }
    }
}

/// Goes over the values in a JSON text, from the inside out.
struct Walk<'a> {
    hashing: &'a Hashing,
    wanted: Option<&'a mut Wanted>,
    open: Vec<Container>,
    root: Option<Hashes>,
}

impl<'a> Walk<'a> {
    fn new(hashing: &'a Hashing, wanted: Option<&'a mut Wanted>) -> Self {
        Self { hashing, wanted, open: Vec::new(), root: None }
    }

    /// The hashes of the whole; `None` where it is too deep. The text is known to be JSON.
    fn over(mut self, json: &str) -> Option<Hashes> {
        let bytes = json.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'{' | b'[' => {
                    if self.open.len() == LEVELS {
                        return None;
                    }
                    if let Some(outer) = self.open.last_mut() {
                        outer.joined = None;
                    }
                    self.open.push(Container::new(*byte == b'['));
                }
                b'}' | b']' => self.close()?,
                b'"' => {
                    while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                        at += if *byte == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                    self.string(json.get(start..at)?);
                }
                b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {}
                _ => {
                    let rest = &bytes[at..];
                    at += rest
                        .iter()
                        .take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'E' | b'+' | b'-'))
                        .count();
                    let token = json.get(start..at)?;
                    let hash = self.hashing.scalar(token);
                    self.value(Hashes { strict: hash, lax: hash }, Some(token), token == "null");
                }
            }
        }
        self.root
    }

    fn string(&mut self, token: &str) {
        let text: Cow<str> = if token.contains('\\') {
            // What is no text, such as half a character, is only like itself.
            serde_json::from_str(token).map_or(token.into(), |text: String| text.into())
        } else {
            token.trim_matches('"').into()
        };
        match self.open.last_mut() {
            Some(map) if !map.is_list && map.name.is_none() => map.name = Some(self.hashing.0.hash_one((b'k', &text))),
            _ => {
                let hash = self.hashing.text(&text);
                self.value(Hashes { strict: hash, lax: hash }, Some(&text), false);
            }
        }
    }

    fn close(&mut self) -> Option<()> {
        let closed = self.open.pop()?;
        if let Some(wanted) = self.wanted.as_deref_mut().filter(|_| closed.count.strict > 1) {
            closed.joined.iter().flatten().for_each(|joined| wanted.found_joined(joined));
        }
        self.value(closed.hashes(self.hashing), None, false);
        Some(())
    }

    /// A value that is over, with its text where it is neither a list nor a map.
    fn value(&mut self, hashes: Hashes, text: Option<&str>, is_null: bool) {
        if let Some(wanted) = self.wanted.as_deref_mut() {
            wanted.found(hashes);
        }
        let Some(outer) = self.open.last_mut() else {
            self.root = Some(hashes);
            return;
        };
        if let (Some(text), Some(wanted)) = (text, &self.wanted) {
            outer.join(self.hashing, text, wanted.longest);
        }
        outer.add(self.hashing, hashes, is_null);
    }
}

/// Whether two JSON texts are the same but for white space between tokens; `false` also where only a parser could tell.
fn is_same_json(a: &str, b: &str) -> bool {
    fn tokens(text: &str) -> impl Iterator<Item = u8> {
        let (mut in_string, mut escaped) = (false, false);
        text.bytes().filter(move |byte| {
            let keep = in_string || !byte.is_ascii_whitespace();
            if in_string {
                in_string = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
            } else {
                in_string = *byte == b'"';
            }
            keep
        })
    }
    tokens(a).eq(tokens(b))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;

    fn of(structured: &str, blocks: &[Value]) -> Vec<bool> {
        let blocks: Vec<_> = blocks.iter().map(|block| serde_json::value::to_raw_value(block).unwrap()).collect();
        repeated(structured, &blocks)
    }

    fn texts(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
    }

    #[track_caller]
    fn check(structured: &str, blocks: &[&str], expected: &[bool]) {
        assert_eq!(of(structured, &texts(blocks)), expected, "{structured} {blocks:?}");
    }

    #[test]
    fn what_is_there_is_found_in_any_form() {
        check(r#"{"a":1}"#, &[r#"{ "a": 1.0 }"#], &[true]);
        check(r#"{"a":1,"b":[2]}"#, &["{\"b\":[2e0],\"a\":1}", "[2]", "2"], &[true; 3]);
        check(r#"{"content":"one\ntwo\u00e9"}"#, &["one\ntwo\u{e9}\n"], &[true]);
        check(r#"{"a":{"b":["x","y"]}}"#, &["x", "x\ny", "x, y", "xy", "[\"x\", \"y\"]", "\"y\""], &[true; 6]);
        check(r#"{"result":["a",2,true]}"#, &["a", "2", "true", "a\n2\ntrue", ""], &[true; 5]);
        check(r#"{"result":[{"a":1},{"b":2}]}"#, &["{\"a\":1}\n{\"b\":2}", "{\"a\":1}{\"b\":2}"], &[true; 2]);
        check(r#"{"n":[1,2,3]}"#, &["1\n2\n3", "1 2 3"], &[true; 2]);
        check("[1,2]", &["[1, 2]"], &[true]);
        check(r#""words""#, &["words"], &[true]);
        check(r#"{"id":123456789012345678901234567890}"#, &[r#"{"id": 123456789012345678901234567890}"#], &[true]);
        check(r#"{"a":"\ud800"}"#, &["x"], &[false]);
    }

    #[test]
    fn what_is_not_there_is_kept() {
        check(
            r#"{"a":1}"#,
            &["{\"a\":1}", "truncated", "{\"a\":2}", "{\"a\":1,\"b\":null}", "a", "1 2"],
            &[true, false, false, false, false, false],
        );
        check(r#"{"a":["x","y"]}"#, &["y\nx", "x\ny\nz", "x y z", "x\n y"], &[false; 4]);
        check(r#"{"id":123456789012345678901234567890}"#, &[r#"{"id":123456789012345678901234567891}"#], &[false]);
        check(r#"{"a":0.1,"b":1e300}"#, &["0.10", "0.2", "1e301"], &[true, false, false]);
        check(r#"{"a":[1,[2,3]]}"#, &["[1,2,3]", "[[1,2],3]", "[1,[2,3]]"], &[false, false, true]);
        check(r#"{"a":"1","b":{}}"#, &["{\"a\":1}", "[]", "{}"], &[false, false, true]);
    }

    #[test]
    fn other_blocks_are_found_as_they_stand() {
        let image = json!({"type": "image", "data": "AAEC", "mimeType": "image/png"});
        let resource = json!({"uri": "file:///a", "text": "b"});
        let blocks = [image.clone(), json!({"type": "resource", "resource": resource})];
        let other = json!({"type": "image", "data": "AAED", "mimeType": "image/png"});
        assert_eq!(of(&json!({"content": blocks}).to_string(), &blocks), [true, true]);
        assert_eq!(of(&json!({"content": [resource, other]}).to_string(), &blocks), [false, true]);
        let mut with_nulls = image.clone();
        with_nulls["annotations"] = Value::Null;
        assert_eq!(of(&json!({"result": [with_nulls]}).to_string(), &blocks), [true, false]);
    }

    #[test]
    fn no_size_takes_long() {
        let many = |what: &str, count: usize| vec![what; count].join(",");
        let lists = |inner: &str| format!("[{}]", many(inner, 60_000));
        let same = texts(&vec!["11"; 5_000]);
        let mut different = String::new();
        for index in 0..20_000 {
            write!(different, "\"{index}\",").unwrap();
        }
        let different = format!("[{different}0]");
        let start = Instant::now();
        for structured in [lists("1"), lists("[1,1]"), lists("\"11\""), lists("{\"a\":1}"), different] {
            of(&structured, &same);
            of(&structured, &texts(&[&structured[1..], "x"]));
        }
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(of(&deep, &texts(&[&deep, "x", &deep[1..]])), [false; 3]);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
