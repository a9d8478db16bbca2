//! Arguments as clients really send them: numbers as texts, unknown keys, code in Markdown fences. What can't be used is told in words, as a
//! model sees the result of a tool, and not the error of a request.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::tool::Detail;

/// The arguments of one call.
pub(super) struct Arguments(pub(super) Map<String, Value>);

impl Arguments {
    fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{key}` has to be a text, and is {other}")),
        }
    }

    /// The script.
    pub(super) fn code(&self) -> Result<String, String> {
        let given = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join("`, `");
        match self.text("code")? {
            Some(code) => Ok(unfenced(code)),
            None if self.0.is_empty() => Err("`code` is missing: the script to run".into()),
            None => Err(format!("`code` is missing: the script to run. Given: `{}`", given())),
        }
    }

    /// How long the script may take, and what to say where that is less than what was asked for.
    pub(super) fn timeout(&self, max: Duration) -> Result<(Option<Duration>, Option<String>), String> {
        let seconds = match self.0.get("timeout") {
            None | Some(Value::Null) => return Ok((None, None)),
            Some(Value::String(text)) => text.trim().trim_end_matches('s').trim_end().parse().ok(),
            Some(other) => other.as_f64(),
        };
        let wrong = || format!("`timeout` has to be a number of seconds over 0, and is {}", self.0["timeout"]);
        let seconds: f64 = seconds.filter(|seconds| *seconds > 0.0).ok_or_else(wrong)?;
        match Duration::try_from_secs_f64(seconds).ok().filter(|timeout| *timeout <= max) {
            Some(timeout) if timeout.is_zero() => Err(wrong()),
            Some(timeout) => Ok((Some(timeout), None)),
            None => {
                let most = max.as_secs_f64();
                Ok((
                    Some(max),
                    Some(format!(
                        "note: the timeout of {seconds} s was cut to {most} s, the most that this server gives"
                    )),
                ))
            }
        }
    }

    pub(super) fn query(&self) -> Result<&str, String> {
        Ok(self.text("query")?.unwrap_or_default())
    }

    pub(super) fn detail(&self) -> Result<Detail, String> {
        match self.text("detail_level")? {
            None | Some("") => Ok(Detail::default()),
            Some(level) => level.trim().to_lowercase().parse(),
        }
    }
}

/// The code in a Markdown fence, where a model put it in one, with words around it. Lines keep their numbers.
fn unfenced(code: &str) -> String {
    let is_fence = |line: &&str| line.trim_start().starts_with("```");
    // In back-ticks, a script can have such a line too; before it, there is code then.
    let is_words = |line: &&str| !line.contains(['`', ';', '=', '(', '{', '"']);
    let lines: Vec<&str> = code.lines().collect();
    let Some(begin) = lines.iter().position(&is_fence) else { return code.into() };
    let Some(length) = lines[begin + 1..].iter().position(is_fence) else { return code.into() };
    let opens = lines[begin].trim().trim_start_matches('`');
    if !lines[..begin].iter().all(is_words) || opens.contains(['`', '$', ';']) {
        return code.into();
    }
    let inside = &lines[begin + 1..=begin + length];
    format!("{}{}", "\n".repeat(begin + 1), inside.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn code_is_taken_out_of_fences() {
        for (given, expected) in [
            ("1 + 1", "1 + 1"),
            ("```rhai\n1 + 1\n```", "\n1 + 1"),
            ("  ```\nlet a = 1;\na\n  ```\n", "\nlet a = 1;\na"),
            ("Here it is:\n\n```js\nf()\n```\nIt calls f.", "\n\n\nf()"),
            ("```rhai\n1\n", "```rhai\n1\n"),
            ("let s = `a\n```\nb\n```\n`; s", "let s = `a\n```\nb\n```\n`; s"),
        ] {
            assert_eq!(unfenced(given), expected, "{given}");
        }
    }

    #[test]
    fn arguments_are_read_leniently() {
        let arguments = |value: Value| Arguments(value.as_object().cloned().unwrap());
        let max = Duration::from_secs(30);
        let timeout = |value: Value| arguments(json!({"timeout": value})).timeout(max);
        for five in [json!(5), json!(5.0), json!("5"), json!(" 5 s ")] {
            assert_eq!(timeout(five), Ok((Some(Duration::from_secs(5)), None)));
        }
        assert_eq!(timeout(json!(null)), Ok((None, None)));
        for over in [json!(31), json!("30000"), json!(1e300)] {
            let (cut, said) = timeout(over).unwrap();
            assert!(cut == Some(max) && said.unwrap().ends_with("was cut to 30 s, the most that this server gives"));
        }
        for wrong in [json!(0), json!(-1), json!("soon"), json!([]), json!("NaN"), json!(1e-300)] {
            assert!(timeout(wrong.clone()).unwrap_err().ends_with(&format!("and is {wrong}")));
        }
        assert_eq!(arguments(json!({"detail_level": "FULL"})).detail(), Ok(Detail::Full));
        assert!(arguments(json!({"detail_level": "much"})).detail().unwrap_err().contains("none of `names`"));
        let missing = arguments(json!({"script": "1"})).code().unwrap_err();
        assert_eq!(missing, "`code` is missing: the script to run. Given: `script`");
    }
}
