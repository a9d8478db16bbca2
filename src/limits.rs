//! The bounds on one script: their names, defaults and ranges. Knows nothing of what holds them.

use std::time::Duration;

use serde_json::Value;

use crate::near::did_you_mean_or;
use crate::units;

/// Largest memory that a script can be given.
pub(crate) const MAX_MEMORY: usize = 1 << 30;
/// Most calls that one script can have under way.
const MAX_CALLS_IN_FLIGHT: usize = 64;
/// Deepest that functions can call each other on the stack that a script has.
const MAX_CALL_DEPTH: usize = 100;

/// Bounds on one run. A limit that was hit ends the script, whatever it catches; the error names the limit and its value.
///
/// A configuration sets them in `limits`, the command with `--limit NAME=VALUE`; the names are those of the fields.
///
/// ```
/// let mut limits = rhaiway::Limits::default();
/// limits.tool_calls = 20;
/// limits.set("memory_bytes", "128 MiB")?;
/// assert_eq!(limits.memory_bytes, 128 << 20);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Wall clock, tool calls included, but not the time in which the servers that the script names are connected before it starts;
    /// 30 s.
    pub wall_time: Duration,
    /// Memory of the script, at most 1 GiB; 64 MiB. In the process, it bounds only the answers that have come and wait for the script.
    pub memory_bytes: usize,
    /// Calls of tools; 256.
    pub tool_calls: usize,
    /// Calls that are under way at once, at most 64; 64. Further ones wait for their turn: this ends no script. `parallel` itself runs
    /// 16 branches at once, where the script says nothing else.
    pub calls_in_flight: usize,
    /// Length of the source; 64 KiB.
    pub source_bytes: usize,
    /// Arguments of one call, as JSON; 1 MiB.
    pub argument_bytes: usize,
    /// Answer of one call, as JSON; 8 MiB.
    pub answer_bytes: usize,
    /// The script's value, as JSON; 1 MiB.
    pub result_bytes: usize,
    /// All that the script prints; 64 KiB. What is over is cut, and the last line says so; the script goes on.
    pub log_bytes: usize,
    /// Lines that the script prints; 1,000. Cut like `log_bytes`.
    pub log_lines: usize,
    /// One line; 4 KiB. Cut, with its original length.
    pub log_line_bytes: usize,
    /// How deep script functions may call each other, at most 100; 100.
    pub call_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time: Duration::from_secs(30),
            memory_bytes: 64 << 20,
            tool_calls: 256,
            calls_in_flight: 64,
            source_bytes: 64 << 10,
            argument_bytes: 1 << 20,
            answer_bytes: 8 << 20,
            result_bytes: 1 << 20,
            log_bytes: 64 << 10,
            log_lines: 1000,
            log_line_bytes: 4 << 10,
            call_depth: MAX_CALL_DEPTH,
        }
    }
}

/// A limit's value, its unit, and the largest that it can have.
enum Field<'a> {
    Seconds(&'a mut Duration),
    Bytes(&'a mut usize, usize),
    Count(&'a mut usize, usize),
}

impl Limits {
    /// Names of the limits.
    pub const NAMES: [&'static str; 12] = [
        "wall_time",
        "memory_bytes",
        "tool_calls",
        "calls_in_flight",
        "source_bytes",
        "argument_bytes",
        "answer_bytes",
        "result_bytes",
        "log_bytes",
        "log_lines",
        "log_line_bytes",
        "call_depth",
    ];

    fn field(&mut self, name: &str) -> Result<Field<'_>, String> {
        const ANY: usize = usize::MAX;
        Ok(match name {
            "wall_time" => Field::Seconds(&mut self.wall_time),
            "memory_bytes" => Field::Bytes(&mut self.memory_bytes, MAX_MEMORY),
            "tool_calls" => Field::Count(&mut self.tool_calls, ANY),
            "calls_in_flight" => Field::Count(&mut self.calls_in_flight, MAX_CALLS_IN_FLIGHT),
            "source_bytes" => Field::Bytes(&mut self.source_bytes, ANY),
            "argument_bytes" => Field::Bytes(&mut self.argument_bytes, ANY),
            "answer_bytes" => Field::Bytes(&mut self.answer_bytes, ANY),
            "result_bytes" => Field::Bytes(&mut self.result_bytes, ANY),
            "log_bytes" => Field::Bytes(&mut self.log_bytes, ANY),
            "log_lines" => Field::Count(&mut self.log_lines, ANY),
            "log_line_bytes" => Field::Bytes(&mut self.log_line_bytes, ANY),
            "call_depth" => Field::Count(&mut self.call_depth, MAX_CALL_DEPTH),
            other => {
                return Err(format!(
                    "there is no limit `{other}`{}",
                    did_you_mean_or(other, Self::NAMES.iter().copied())
                ));
            }
        })
    }

    /// Sets a limit by its name: for `wall_time` seconds, or a duration with its unit (`2.5`, `500ms`, `2m`); bytes with or without a unit
    /// (`65536`, `64 KiB`, `1.5MiB`); or a number.
    ///
    /// # Errors
    /// The message says what is wrong with the name or the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = value.trim();
        match self.field(name)? {
            Field::Seconds(place) => {
                *place = units::parse_duration(value)
                    .map_err(|_| format!("`{name}` is {}, over 0, not `{value}`", units::DURATION))?;
            }
            Field::Bytes(place, max) => {
                *place = units::parse_size(value).filter(|bytes| (1..=max).contains(bytes)).ok_or_else(|| {
                    let max = (max < usize::MAX).then(|| units::size(max));
                    format!("`{name}` is {}, not `{value}`", expected("bytes, such as `64 KiB`", max))
                })?;
            }
            Field::Count(place, max) => {
                *place = value
                    .parse()
                    .ok()
                    .filter(|count| (1..=max).contains(count))
                    .ok_or_else(|| format!("`{name}` is {}, not `{value}`", expected("a number", whole(max))))?;
            }
        }
        Ok(())
    }

    /// Sets the limits that a JSON object names; numbers, or texts as for [`Limits::set`]. The error comes with the name that it is about.
    pub(crate) fn set_all(&mut self, limits: &serde_json::Map<String, Value>) -> Result<(), (String, String)> {
        for (name, value) in limits {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            self.set(name, &text).map_err(|message| (name.clone(), message))?;
        }
        Ok(())
    }

    /// Whether all are in their ranges, as a program can set the fields to anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut copy = self.clone();
        for name in Self::NAMES {
            match copy.field(name)? {
                Field::Seconds(value) if value.is_zero() => {
                    return Err(format!("the limit `{name}` has to be over 0"));
                }
                Field::Bytes(value, max) if !(1..=max).contains(&*value) => {
                    let (max, value) = ((max < usize::MAX).then(|| units::size(max)), units::size_over(*value, max));
                    return Err(out_of_range(name, max, &value));
                }
                Field::Count(value, max) if !(1..=max).contains(&*value) => {
                    return Err(out_of_range(name, whole(max), &value.to_string()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn out_of_range(name: &str, max: Option<String>, value: &str) -> String {
    let expected = max.map_or_else(|| "over 0".into(), |max| format!("from 1 to {max}"));
    format!("the limit `{name}` has to be {expected}, and is {value}")
}

fn expected(unit: &str, max: Option<String>) -> String {
    max.map_or_else(|| format!("{unit}, from 1 up"), |max| format!("{unit}, from 1 to {max}"))
}

/// The end of a range that has one.
fn whole(max: usize) -> Option<String> {
    (max < usize::MAX).then(|| max.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_units() {
        let mut limits = Limits::default();
        for (name, text) in [("wall_time", "2.5"), ("memory_bytes", "1 GiB"), ("log_bytes", "7kB"), ("call_depth", "9")]
        {
            limits.set(name, text).unwrap();
        }
        assert_eq!(limits.wall_time, Duration::from_millis(2500));
        assert_eq!((limits.memory_bytes, limits.log_bytes, limits.call_depth), (1 << 30, 7000, 9));
    }

    #[test]
    fn wrong_values_are_named() {
        let mut limits = Limits::default();
        for (name, text, message) in [
            ("wall_time", "0", "`wall_time` is a duration, such as `5`, `0.5 s`, `500ms` or `2m`, over 0, not `0`"),
            ("wall_time", "NaN", "`wall_time` is a duration, such as `5`, `0.5 s`, `500ms` or `2m`, over 0, not `NaN`"),
            ("memory_bytes", "2 GiB", "`memory_bytes` is bytes, such as `64 KiB`, from 1 to 1 GiB, not `2 GiB`"),
            ("log_bytes", "5 XB", "`log_bytes` is bytes, such as `64 KiB`, from 1 up, not `5 XB`"),
            ("log_bytes", "", "`log_bytes` is bytes, such as `64 KiB`, from 1 up, not ``"),
            (
                "log_bytes",
                "99999999999999999999",
                "`log_bytes` is bytes, such as `64 KiB`, from 1 up, not `99999999999999999999`",
            ),
            ("calls_in_flight", "65", "`calls_in_flight` is a number, from 1 to 64, not `65`"),
            ("tool_calls", "-1", "`tool_calls` is a number, from 1 up, not `-1`"),
        ] {
            assert_eq!(limits.set(name, text), Err(message.into()));
        }
        assert!(
            limits.set("speed", "1").unwrap_err().starts_with("there is no limit `speed`: there are `wall_time`, ")
        );
        for (slip, meant) in [("toolcalls", "tool_calls"), ("wall_tyme", "wall_time"), ("memory", "memory_bytes")] {
            let message = limits.set(slip, "1").unwrap_err();
            assert_eq!(message, format!("there is no limit `{slip}`: did you mean `{meant}`?"));
        }
        assert_eq!(limits, Limits::default());
        limits.call_depth = 101;
        assert_eq!(limits.check(), Err("the limit `call_depth` has to be from 1 to 100, and is 101".into()));
    }
}
