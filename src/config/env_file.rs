//! Files of variables (`envFile`), as VS Code reads them: `NAME=value` lines. Written here, as the well-kept libraries for it put this
//! process's own variables into the values.

use std::collections::BTreeMap;
use std::path::Path;

/// Longest such file.
const BYTES: usize = 1 << 20;

/// The variables of a file. `Err` names the file as it is `written`, as its path may hold secrets, and the line where there is one, and
/// no value.
pub(crate) fn read(path: &Path, written: &str) -> Result<BTreeMap<String, String>, String> {
    let unread = |error: std::io::Error| format!("can't read `{written}`: {error}");
    let content = crate::files::read(path, BYTES).map_err(unread)?;
    let text = String::from_utf8(content).map_err(|_| format!("can't read `{written}`: it is not UTF-8"))?;
    parse(&text).map_err(|(line, message)| format!("`{written}`, line {line}: {message}"))
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, &'static str)> {
    let mut variables = BTreeMap::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or((number, "expected `NAME=value`"))?;
        let name = name.trim();
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err((number, "expected the name of a variable before the `=`"));
        }
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                // A quoted value may go over lines.
                let mut quoted = value[1..].to_string();
                while end_of_quoted(&quoted, quote).is_none() {
                    let (_, more) = lines.next().ok_or((number, "a quotation mark has no end"))?;
                    quoted.push('\n');
                    quoted.push_str(more);
                    if quoted.len() > 16 << 10 {
                        return Err((number, "a quotation mark has no end within 16 KiB"));
                    }
                }
                let end = end_of_quoted(&quoted, quote).unwrap_or_default();
                if !matches!(quoted[end + 1..].trim_start().chars().next(), None | Some('#')) {
                    return Err((number, "there is something after the quotation mark"));
                }
                if quote == '"' { unescaped(&quoted[..end]) } else { quoted[..end].to_string() }
            }
            _ => match value.find(" #") {
                Some(comment) => value[..comment].trim_end().into(),
                None => value.trim_end().into(),
            },
        };
        if value.contains('\0') {
            return Err((number, "there is a NUL in it"));
        }
        variables.insert(name.to_string(), value);
    }
    Ok(variables)
}

/// Where the closing quotation mark is.
fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let is_end = letter == quote && !is_escaped;
        is_escaped = quote == '"' && letter == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(letter @ ('"' | '\\' | '$')) => out.push(letter),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_people_write_them() {
        let text = "\u{feff}# a comment\n\nA=1\nexport B = two words # why\nC='$A #x'\r\nD=\"a\\n\\\"b\\\"\" # c\nE=\nF=a#b\nG=\"two\nlines\"\nexported=yes\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A #x"),
            ("D", "a\n\"b\""),
            ("E", ""),
            ("F", "a#b"),
            ("G", "two\nlines"),
            ("exported", "yes"),
        ];
        let expected = expected.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn faults_have_their_line_and_no_value() {
        for (text, line, message) in [
            ("A=1\nsecret", 2, "expected `NAME=value`"),
            ("=secret", 1, "expected the name of a variable before the `=`"),
            ("A B=secret", 1, "expected the name of a variable before the `=`"),
            ("\nA=\"secret", 2, "a quotation mark has no end"),
            ("A='x' secret", 1, "there is something after the quotation mark"),
        ] {
            assert_eq!(parse(text), Err((line, message)), "{text}");
        }
    }
}
