//! Names of servers and tools as identifiers of a script. Each follows from the own name alone, not from what else is listed or where: a
//! script that is kept must not come to call another tool because a list has changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use deunicode::deunicode_char;

use crate::tool::{DIGEST, LONG_DIGEST, digest_at_end, digest_of};

/// Words that Rhai reads as something else than a variable, and our own functions, which would be hidden.
const RESERVED: &[&str] = &[
    "Fn",
    "__tool_namespaces",
    "as",
    "async",
    "await",
    "break",
    "call",
    "case",
    "catch",
    "const",
    "continue",
    "curry",
    "debug",
    "default",
    "do",
    "else",
    "eval",
    "exit",
    "export",
    "false",
    "fn",
    "for",
    "global",
    "go",
    "goto",
    "if",
    "import",
    "in",
    "is",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "let",
    "loop",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "print",
    "private",
    "protected",
    "public",
    "return",
    "shared",
    "spawn",
    "static",
    "super",
    "switch",
    "sync",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "type_of",
    "until",
    "use",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Those of them that the reader of scripts takes for names, where they are servers'.
const READ_AS_NAMES: &[&str] = &[
    "async",
    "default",
    "go",
    "goto",
    "match",
    "module",
    "new",
    "package",
    "protected",
    "public",
    "shared",
    "spawn",
    "static",
    "super",
    "sync",
    "thread",
    "use",
    "void",
    "with",
    "yield",
];

/// Longest name that is made or shown; of longer ones the start is, with a digest behind it.
const LONGEST: usize = 128;
const START: usize = 48;

/// The names of a list in scripts, and what each word means there.
#[derive(Debug, Default)]
pub(super) struct Names {
    shown: Vec<String>,
    meant: HashMap<String, Meant>,
}

/// What a word means, by place in the list.
#[derive(Debug, PartialEq)]
pub(super) enum Meant {
    /// It is this one's own name.
    Own(usize),
    /// It is made of this one's name, and of no other's.
    Made(usize),
    /// It is made of the names of several, so that it is none of theirs.
    Several(Vec<usize>),
}

impl Names {
    /// Of the tools of one server. After the dot every word is allowed, keywords too.
    pub(super) fn of_tools(names: &[&str]) -> Self {
        Self::new(names, "tool", |_| false)
    }

    /// Of the servers. One that is named like a keyword of Rhai gets an underscore behind it.
    pub(super) fn of_servers(names: &[&str]) -> Self {
        Self::new(names, "server", |name| RESERVED.contains(&name) && !READ_AS_NAMES.contains(&name))
    }

    /// Own names go first, then names with a digest, then those without: what stands in a script with a digest means one tool for ever, or
    /// nothing.
    fn new(names: &[&str], what: &str, is_reserved: impl Fn(&str) -> bool) -> Self {
        let mut all = Self::default();
        let is_own = |name: &str| is_plain(name) && !is_reserved(name);
        for (index, name) in names.iter().enumerate().filter(|(_, name)| is_own(name)) {
            all.meant.entry((*name).into()).or_insert(Meant::Own(index));
        }
        let made: Vec<Option<Made>> = names
            .iter()
            .map(|name| (!is_own(name) || name.len() > LONGEST).then(|| Made::of(name, what, &is_reserved)))
            .collect();
        let each = || made.iter().enumerate().filter_map(|(index, made)| Some((index, made.as_ref()?)));
        for (index, made) in each() {
            all.claim(&made.digest, index);
            all.claim(&made.long_digest, index);
        }
        let with_digests: Vec<_> = each()
            .filter_map(|(index, made)| Some((index, made.plain.as_ref()?)))
            .filter(|(_, plain)| !all.meant.contains_key(*plain))
            .collect();
        for (index, plain) in with_digests {
            all.claim(plain, index);
        }
        let shown = names.iter().zip(&made).enumerate().map(|(index, (name, made))| match made {
            None => (*name).to_string(),
            Some(made) => {
                let names = made.plain.iter().chain([&made.digest]);
                let own = names.into_iter().find(|name| all.meant.get(*name) == Some(&Meant::Made(index)));
                own.unwrap_or(&made.long_digest).clone()
            }
        });
        all.shown = shown.collect();
        all
    }

    fn claim(&mut self, name: &str, index: usize) {
        match self.meant.entry(name.into()) {
            Entry::Vacant(free) => drop(free.insert(Meant::Made(index))),
            Entry::Occupied(mut taken) => match taken.get_mut() {
                Meant::Own(_) => {}
                Meant::Several(all) => all.push(index),
                Meant::Made(first) => {
                    let several = Meant::Several(vec![*first, index]);
                    taken.insert(several);
                }
            },
        }
    }

    /// The name to use in scripts.
    pub(super) fn shown(&self, index: usize) -> &str {
        self.shown.get(index).map_or("", String::as_str)
    }

    pub(super) fn meant(&self, word: &str) -> Option<&Meant> {
        self.meant.get(word)
    }
}

/// Names that are made of one that is no identifier.
struct Made {
    /// Without a digest; not where nothing would be left to tell it by, and not where it could be taken for one with a digest.
    plain: Option<String>,
    digest: String,
    long_digest: String,
}

impl Made {
    fn of(name: &str, what: &str, is_reserved: impl Fn(&str) -> bool) -> Self {
        let is_long = name.len() > LONGEST;
        let mut plain = sanitised(name);
        if is_reserved(&plain) {
            plain.push('_');
        }
        let hash = digest_of(name);
        let is_nothing = plain.bytes().all(|byte| byte == b'_');
        let start = if is_nothing { what } else { &plain[..plain.len().min(START)] };
        let with = |digits: usize| format!("{start}_{}", &hash[..digits]);
        let (digest, long_digest) = (with(DIGEST), with(LONG_DIGEST));
        let is_told = !is_long && !is_nothing && plain.len() <= LONGEST && digest_at_end(&plain).is_none();
        Self { plain: is_told.then_some(plain), digest, long_digest }
    }
}

/// Whether a map in a script may have this as a key without quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars().skip_while(|c| *c == '_').peekable();
    letters.peek().is_some_and(char::is_ascii_alphabetic)
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&name)
}

/// Whether a name can be written after the dot as it is.
fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().any(|byte| byte != b'_')
}

/// The start of a name in the letters, digits and underscores of ASCII: `list-files` is `list_files`, `日本` is `RiBen`.
fn sanitised(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().take(LONGEST) {
        match c {
            c if c.is_ascii_alphanumeric() => out.push(c),
            c if c.is_ascii() => out.push('_'),
            c => match deunicode_char(c) {
                Some(letters) => out.extend(letters.chars().filter(char::is_ascii_alphanumeric)),
                None => out.push('_'),
            },
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], tools: &[&str]) {
        let all = Names::of_tools(names);
        let shown: Vec<&str> = (0..names.len()).map(|index| all.shown(index)).collect();
        assert_eq!(shown, tools);
    }

    #[test]
    fn names_are_written_in_ascii() {
        check(
            &["list-files", "a.b", "3d", "plain", "_", "if"],
            &["list_files", "a_b", "_3d", "plain", "tool_16681c65", "if"],
        );
        check(&["日本", "получить-заказ", "été", "🚀", "ｇｅｔ"], &["RiBen", "poluchit_zakaz", "ete", "rocket", "get"]);
        check(&["", "--", "\u{e000}"], &["tool_af1349b9", "tool_a85bbde9", "tool_bcfe3646"]);
        let long = ["x".repeat(128), "x".repeat(129), "-".repeat(10 << 20)];
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        let all = Names::of_tools(&long);
        assert_eq!(all.shown(0), long[0]);
        assert_eq!(all.meant(long[1]), Some(&Meant::Own(1)));
        assert!(all.shown(1).starts_with("xxx") && all.shown(2).starts_with("tool_"));
        assert!(
            (1..3).all(|index| all.shown(index).len() < 60 && all.meant(all.shown(index)) == Some(&Meant::Made(index)))
        );
    }

    #[test]
    fn keywords_are_no_names_of_servers() {
        let names = ["if", "call", "if_", "call-"];
        let all = Names::of_servers(&names);
        let shown: Vec<&str> = (0..names.len()).map(|index| all.shown(index)).collect();
        assert!(shown[0].starts_with("if__") && shown[0].len() == "if__".len() + DIGEST, "{shown:?}");
        assert_eq!(shown[2], "if_");
        assert_eq!(all.meant("call_"), Some(&Meant::Several(vec![1, 3])));
    }

    #[test]
    fn names_with_a_digest_are_nobody_elses() {
        let digest = Made::of("a-b", "tool", |_| false).digest;
        // One that comes to the same name, and one that has it.
        let alike = digest.replacen('_', "-", 1);
        let all = Names::of_tools(&[&alike, "a-b"]);
        assert_eq!(all.meant(&digest), Some(&Meant::Made(1)));
        assert_eq!(Names::of_tools(&[&alike]).meant(&digest), None);
        let all = Names::of_tools(&["a-b", &digest, "a_b"]);
        assert_eq!(all.meant(&digest), Some(&Meant::Own(1)));
        assert_eq!(all.meant(all.shown(0)), Some(&Meant::Made(0)));
    }

    /// Numbers that look random, the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % end
        }
    }

    #[test]
    fn no_name_comes_to_mean_another() {
        let of_digest = Made::of("a-b", "tool", |_| false).digest;
        let pool = [
            "a-b", "a.b", "a_b", "a b", "ä-b", "_a_b", "a_b_2", "a_b_", "a-b-", "日本", "日-本", "RiBen", "", "-",
            "--", "_", "__", "tool", "tool_2", "3d", "_3d", "3-d", "if", "if-", &of_digest,
        ];
        let mut numbers = Numbers(7);
        // What each name was given to, with the own name of whom it was given.
        let mut with_digest: HashMap<String, String> = HashMap::new();
        for _ in 0..2000 {
            let mut list: Vec<&str> = pool.iter().copied().filter(|_| numbers.below(2) == 0).collect();
            for index in (1..list.len()).rev() {
                list.swap(index, numbers.below(index + 1));
            }
            let all = Names::of_tools(&list);
            for (index, name) in list.iter().enumerate() {
                let meant = |word: &str| match all.meant(word) {
                    Some(Meant::Own(index) | Meant::Made(index)) => Some(list[*index]),
                    _ => None,
                };
                // Each is reached by the name that is shown, by its own where that can be written, and by the one with the digest.
                assert_eq!(meant(all.shown(index)), Some(*name), "{list:?}");
                let made = Made::of(name, "tool", |_| false);
                if is_plain(name) {
                    assert_eq!((all.shown(index), meant(name)), (*name, Some(*name)), "{list:?}");
                } else if !list.contains(&made.digest.as_str()) {
                    assert_eq!(meant(&made.digest), Some(*name), "{list:?}");
                }
                // A name without a digest is nobody's where several come to it, and where it is another's own.
                let rivals = |other: &&str| Made::of(other, "tool", |_| false).plain == made.plain;
                if made.plain.as_deref() == Some(all.shown(index)) && !is_plain(name) {
                    assert_eq!(list.iter().filter(|other| rivals(other)).count(), 1, "{list:?}");
                }
                if digest_at_end(all.shown(index)).is_some() {
                    let first = with_digest.entry(all.shown(index).into()).or_insert_with(|| (*name).into());
                    assert!(first == name || is_plain(first) || is_plain(name), "{first} and {name}");
                }
            }
        }
        assert!(with_digest.len() > 10);
    }

    #[test]
    fn many_names_that_are_alike_take_no_long_time() {
        let names: Vec<String> =
            (0..60_000).map(|index| format!("{}{}", "-".repeat(index % 300), "a".repeat(index / 300))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let start = std::time::Instant::now();
        let all = Names::of_tools(&names);
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
        let unreachable = (0..names.len()).filter(|index| {
            !matches!(all.meant(all.shown(*index)), Some(Meant::Own(found) | Meant::Made(found)) if found == index)
        });
        assert_eq!(unreachable.count(), 0);
    }
}
