//! Arguments held against a tool's schema before they are sent, and what is wrong with them in words.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use super::{did_you_mean, fit, schema, signature, suggest};
use crate::tool::Digits;

/// Most work for one call, as JSON values of the arguments times those of the schema, and as bytes of text times patterns. Arguments over
/// that are sent unchecked.
const WORK: usize = 1 << 25;
const TEXT_WORK: usize = 64 << 10;
/// The same where it is not said what is wrong, as every problem takes memory.
const PROBLEMS_WORK: usize = 200_000;
/// Bytes that a compiled pattern may take. Its time is its size times that of the text.
const PATTERN_BYTES: usize = 32 << 10;
/// Most problems that are told, and the longest value and type in them, in characters.
const PROBLEMS: usize = 5;
const GIVEN: usize = 60;
const EXPECTED: usize = 200;
const VALUES: usize = 12;

/// A tool's schema, compiled.
pub(super) struct Checker {
    schema: Value,
    values: usize,
    patterns: usize,
    /// None where it is not known all that the schema accepts.
    validator: Option<Validator>,
}

/// Arguments as they are to be sent.
pub(crate) struct Checked {
    pub(crate) arguments: Map<String, Value>,
    /// Strings among them that are sent as integers.
    pub(crate) digits: Option<Digits>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Checker {
    /// `None` where the schema can't be held against anything: then calls go through as they are.
    pub(super) fn new(input_schema: &Value) -> Option<Self> {
        let draft = match schema::declared(input_schema) {
            declared if declared.contains("draft-04") => Draft::Draft4,
            declared if declared.contains("draft-06") => Draft::Draft6,
            declared if declared.contains("draft-07") => Draft::Draft7,
            declared if declared.contains("2019-09") => Draft::Draft201909,
            // What MCP says for a schema that does not.
            _ => Draft::Draft202012,
        };
        // Patterns that look around are not regular, so that the linear engine does not know them.
        let is_pattern = |pattern: &str| compile(&serde_json::json!({"pattern": pattern}), draft).is_some();
        let attempts: [&dyn Fn(&str) -> bool; 2] = [&|_| true, &is_pattern];
        let checker = attempts.into_iter().find_map(|is_pattern| {
            let tree = schema::tree(input_schema, is_pattern).filter(|tree| tree.complete)?;
            let validator = compile(&tree.schema, draft)?;
            Some(Self { schema: tree.schema, values: tree.values, patterns: tree.patterns, validator: Some(validator) })
        });
        checker.or_else(|| {
            let tree = schema::tree(input_schema, &|_| true)?;
            Some(Self { schema: tree.schema, values: tree.values, patterns: 0, validator: None })
        })
    }

    /// The arguments as they are to be sent, or what is wrong with them, one line a problem.
    ///
    /// Scripts write `()` for what they don't give. Where the schema refuses that, and the property may be left out, it is left out.
    pub(super) fn check(&self, arguments: Map<String, Value>) -> Result<Checked, Vec<String>> {
        let work = arguments.values().map(schema::count).sum::<usize>().saturating_mul(self.values);
        let mut value = Value::Object(arguments);
        let digits = if work <= WORK { fit::fit(&mut value, &self.schema) } else { None };
        let text_work = if self.patterns == 0 { 0 } else { text(&value).saturating_mul(self.patterns) };
        let validator = self.validator.as_ref().filter(|_| work <= WORK && text_work <= TEXT_WORK);
        // A fault of the validator is none of the script's.
        let check = || validator.map_or_else(|| Ok(Vec::new()), |validator| self.left_out(validator, &value, work));
        let left_out = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Ok(Vec::new()))?;
        if let Some(digits) = &digits {
            digits.write_as_strings(&mut value);
        }
        let Value::Object(mut arguments) = value else { return Ok(Checked { arguments: Map::new(), digits: None }) };
        arguments.retain(|name, _| !left_out.contains(name));
        Ok(Checked { arguments, digits })
    }

    /// What has to be left out of the arguments.
    fn left_out(&self, validator: &Validator, arguments: &Value, work: usize) -> Result<Vec<String>, Vec<String>> {
        let unsaid = || vec!["these arguments are not what it takes".to_string()];
        if validator.is_valid(arguments) {
            return Ok(Vec::new());
        }
        if work > PROBLEMS_WORK {
            return Err(unsaid());
        }
        let left_out = self.refused_nulls(validator, arguments);
        let mut rest = arguments.clone();
        if let Value::Object(rest) = &mut rest {
            rest.retain(|name, _| !left_out.contains(name));
        }
        if validator.is_valid(&rest) {
            return Ok(left_out);
        }
        let problems = Problems { schema: &self.schema, arguments: &rest }.told(validator.iter_errors(&rest));
        Err(if problems.is_empty() { unsaid() } else { problems })
    }

    /// The properties that are `null`, must not be, and may be left out.
    fn refused_nulls(&self, validator: &Validator, arguments: &Value) -> Vec<String> {
        let is_required = |name: &str| names(&self.schema, "required").any(|required| required == name);
        let errors = validator.iter_errors(arguments).filter(|error| error.instance().is_null());
        errors
            .filter_map(|error| match &path(error.instance_path().as_str())[..] {
                [name] if !is_required(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }
}

fn compile(schema: &Value, draft: Draft) -> Option<Validator> {
    let options = jsonschema::options()
        .with_draft(draft)
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES));
    catch_unwind(AssertUnwindSafe(|| options.build(schema))).ok()?.ok()
}

/// Bytes of all strings and keys.
fn text(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text).sum(),
        Value::Object(properties) => properties.iter().map(|(name, value)| name.len() + text(value)).sum(),
        _ => 0,
    }
}

/// The parts of a JSON pointer.
fn path(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// The strings in an array, or the keys of an object.
fn names<'a>(schema: &'a Value, keyword: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    match schema.get(keyword) {
        Some(Value::Array(names)) => Box::new(names.iter().filter_map(Value::as_str)),
        Some(Value::Object(properties)) => Box::new(properties.keys().map(String::as_str)),
        _ => Box::new(std::iter::empty()),
    }
}

struct Problems<'a> {
    schema: &'a Value,
    arguments: &'a Value,
}

impl Problems<'_> {
    /// One line for each problem.
    fn told<'e>(&self, errors: impl Iterator<Item = ValidationError<'e>>) -> Vec<String> {
        let errors: Vec<ValidationError> = errors.collect();
        let mut causes = Vec::new();
        for error in &errors {
            self.causes(error, &mut causes);
        }
        let mut told: Vec<String> = Vec::new();
        // Properties that are told of beside the one that they were meant to be.
        let mut meant: Vec<String> = Vec::new();
        for error in &causes {
            if let Kind::Required { property } = error.kind() {
                told.push(self.missing(error, property.as_str().unwrap_or_default(), &mut meant));
            }
        }
        for error in causes {
            match error.kind() {
                Kind::Required { .. } => {}
                Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                    let place = path(error.instance_path().as_str());
                    let unexpected = unexpected.iter().filter(|name| !meant.contains(&self.place_of(&place, name)));
                    told.extend(unexpected.map(|name| self.unknown(error, name)));
                }
                // So it says that there are no properties at all.
                Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
                    let given = self.arguments.pointer(error.instance_path().as_str());
                    let unexpected = given.and_then(Value::as_object).into_iter().flat_map(Map::keys);
                    told.extend(unexpected.map(|name| self.unknown(error, name)));
                }
                _ => told.push(self.wrong(error)),
            }
        }
        let mut seen = std::collections::HashSet::new();
        told.retain(|problem| seen.insert(problem.clone()));
        if told.len() > PROBLEMS {
            let more = told.len() - PROBLEMS;
            told.truncate(PROBLEMS);
            told.push(format!("and {more} more"));
        }
        told
    }

    /// Of alternatives, the problems of the one that was meant, where that can be told.
    fn causes<'e, 'i>(&self, error: &'e ValidationError<'i>, causes: &mut Vec<&'e ValidationError<'i>>)
    where
        'i: 'e,
        'static: 'i,
    {
        if let Kind::AnyOf { context } = error.kind()
            && let Some(branch) = self.meant_branch(error, context)
        {
            for error in branch {
                self.causes(error, causes);
            }
        } else {
            causes.push(error);
        }
    }

    fn meant_branch<'e>(
        &self,
        error: &ValidationError,
        branches: &'e [Vec<ValidationError<'static>>],
    ) -> Option<&'e Vec<ValidationError<'static>>> {
        let alternatives = self.schema.pointer(error.schema_path().as_str()).and_then(Value::as_array)?;
        let not_null: Vec<_> =
            branches.iter().zip(alternatives).filter(|(_, schema)| schema["type"] != "null").collect();
        if let [(branch, _)] = not_null[..] {
            return Some(branch);
        }
        let is_here = |inner: &ValidationError| inner.instance_path() == error.instance_path();
        let names_another = |inner: &ValidationError| matches!(inner.kind(), Kind::Enum { .. } | Kind::Constant { .. });
        let is_another_type = |inner: &ValidationError| {
            is_here(inner) && (names_another(inner) || matches!(inner.kind(), Kind::Type { .. } | Kind::FalseSchema))
        };
        // By the type of what was given, then by a property such as `"kind": "file"`, then by which properties there are.
        let signs: [&dyn Fn(&ValidationError) -> bool; 3] = [&is_another_type, &names_another, &is_here];
        let mut left: Vec<&Vec<ValidationError>> = branches.iter().collect();
        signs.into_iter().find_map(|sign| {
            left.retain(|branch| !branch.iter().any(sign));
            if let [branch] = left[..] { Some(branch) } else { None }
        })
    }

    /// The schema that a keyword stands in.
    fn schema_of(&self, error: &ValidationError) -> &Value {
        let pointer = error.schema_path().as_str();
        let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.schema.pointer(parent).unwrap_or(&Value::Null)
    }

    fn keyword(&self, error: &ValidationError) -> &Value {
        self.schema.pointer(error.schema_path().as_str()).unwrap_or(&Value::Null)
    }

    fn missing(&self, error: &ValidationError, name: &str, meant: &mut Vec<String>) -> String {
        let schema = self.schema_of(error);
        let kind = schema["properties"].get(name).map(signature::kind);
        let place = path(error.instance_path().as_str());
        let kind = kind.map(|kind| format!(" ({})", cut(&kind, EXPECTED))).unwrap_or_default();
        let mut told = format!("`{}` is missing{kind}", self.place_of(&place, name));
        let given = error.instance().as_object().into_iter().flat_map(Map::keys).map(String::as_str);
        let unknown = given.filter(|given| !names(schema, "properties").any(|known| known == *given));
        if let [near, ..] = suggest(name, unknown)[..] {
            let near = self.place_of(&place, near);
            told = format!("{told}, and `{near}` is no parameter{}", did_you_mean(&[name]));
            meant.push(near);
        }
        told
    }

    fn unknown(&self, error: &ValidationError, name: &str) -> String {
        let place = path(error.instance_path().as_str());
        let what = if place.is_empty() { "parameter" } else { "property" };
        let given = error.instance();
        let open = names(self.schema_of(error), "properties").filter(|known| given.get(known).is_none());
        format!("`{}` is no {what}{}", self.place_of(&place, name), did_you_mean(&suggest(name, open)))
    }

    /// What is expected of a value that is there.
    fn wrong(&self, error: &ValidationError) -> String {
        let place = path(error.instance_path().as_str());
        let subject = match self.place(&place) {
            place if place.is_empty() => "the map of arguments".into(),
            place => format!("`{place}`"),
        };
        let instance = error.instance();
        let limit = self.keyword(error);
        let size = |what: &str, least: &str| {
            let plural = if *limit == 1 { "" } else { "s" };
            let has = instance.as_array().map(Vec::len).or_else(|| instance.as_object().map(Map::len));
            let has = has.or_else(|| instance.as_str().map(|text| text.chars().count())).unwrap_or_default();
            format!("{subject} has to have {least} {limit} {what}{plural}, and has {has}")
        };
        let expected = match error.kind() {
            Kind::Type { .. } => types(limit),
            Kind::Enum { .. } => return one_of(&subject, limit.as_array().map_or(&[], Vec::as_slice), instance),
            Kind::Constant { .. } => return one_of(&subject, std::slice::from_ref(limit), instance),
            Kind::AnyOf { context } if let Some(names) = self.one_missing(&place, context) => {
                return format!("{names} is missing");
            }
            Kind::AnyOf { .. } => format!("`{}`", cut(&signature::kind(self.schema_of(error)), EXPECTED)),
            Kind::Minimum { .. } => format!("at least {limit}"),
            Kind::Maximum { .. } => format!("at most {limit}"),
            Kind::ExclusiveMinimum { limit } => format!("more than {limit}"),
            Kind::ExclusiveMaximum { limit } => format!("less than {limit}"),
            Kind::MultipleOf { .. } => format!("a multiple of {limit}"),
            Kind::Pattern { pattern } => {
                return format!(
                    "{subject} has to match the pattern `{}`, and was given {}",
                    cut(pattern, EXPECTED),
                    given(instance)
                );
            }
            Kind::MinLength { .. } => return size("character", "at least"),
            Kind::MaxLength { .. } => return size("character", "at most"),
            Kind::MinItems { .. } => return size("item", "at least"),
            Kind::MaxItems { .. } => return size("item", "at most"),
            Kind::MinProperties { .. } => return size("key", "at least"),
            Kind::MaxProperties { .. } => return size("key", "at most"),
            Kind::UniqueItems => return format!("{subject} has an item twice"),
            Kind::FalseSchema => return format!("{subject} must not be given"),
            Kind::PropertyNames { error } => {
                return format!(
                    "{subject} has a property of the name {}, which it must not have",
                    json(error.instance(), GIVEN)
                );
            }
            _ => {
                let told = error.masked_with("it").to_string();
                return format!("{subject} does not fit: {}", cut(&told, EXPECTED));
            }
        };
        format!("{subject} has to be {expected}, and was given {}", given(instance))
    }

    /// ``a` or `b``, where the alternatives differ in what they require.
    fn one_missing(&self, place: &[String], branches: &[Vec<ValidationError>]) -> Option<String> {
        let names = branches.iter().map(|branch| match branch.first()?.kind() {
            Kind::Required { property } if branch.len() == 1 => {
                Some(format!("`{}`", self.place_of(place, property.as_str()?)))
            }
            _ => None,
        });
        Some(names.collect::<Option<Vec<_>>>()?.join(" or "))
    }

    fn place_of(&self, place: &[String], name: &str) -> String {
        let mut place = place.to_vec();
        place.push(name.into());
        self.place(&place)
    }

    /// `labels[0].name`
    fn place(&self, parts: &[String]) -> String {
        let mut place = String::new();
        let mut at = Some(self.arguments);
        for part in parts {
            let is_index = at.is_some_and(Value::is_array);
            at = at.and_then(|at| match at {
                Value::Array(items) => items.get(part.parse::<usize>().ok()?),
                other => other.get(part),
            });
            let part = match part {
                index if is_index => format!("[{index}]"),
                name if super::names::is_identifier(name) && place.is_empty() => name.clone(),
                name if super::names::is_identifier(name) => format!(".{name}"),
                name if place.is_empty() => cut(name, GIVEN),
                name => format!("[{}]", json(&Value::from(name.as_str()), GIVEN)),
            };
            place.push_str(&part);
        }
        cut(&place, EXPECTED)
    }
}

/// `a string`, `an integer or ()`.
fn types(keyword: &Value) -> String {
    let article = |kind: &Value| match kind.as_str() {
        Some("null") => "`()`".into(),
        Some("object") => "a map".into(),
        Some(kind @ ("integer" | "array")) => format!("an {kind}"),
        kind => format!("a {}", kind.unwrap_or_default()),
    };
    match keyword {
        Value::Array(kinds) => kinds.iter().map(article).collect::<Vec<_>>().join(" or "),
        kind => article(kind),
    }
}

/// What one of a few values has to be.
fn one_of(subject: &str, values: &[Value], instance: &Value) -> String {
    let shown: Vec<String> = values.iter().take(VALUES).map(|value| json(value, GIVEN)).collect();
    let of = if values.len() > 1 { "one of " } else { "" };
    let more = values.len().saturating_sub(VALUES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let wanted = instance.as_str().unwrap_or_default();
    let near = suggest(wanted, values.iter().filter_map(Value::as_str)).into_iter().next();
    let hint = near.map(|near| format!(": did you mean {}?", json(&Value::from(near), GIVEN))).unwrap_or_default();
    format!("{subject} has to be {of}{}{more}, and was given {}{hint}", shown.join(", "), json(instance, GIVEN))
}

/// A value and what it is, as a script's author sees it.
fn given(value: &Value) -> String {
    let what = match value {
        Value::String(_) => "the string ",
        Value::Array(_) => "the array ",
        Value::Object(_) => "the map ",
        _ => "",
    };
    format!("{what}{}", json(value, GIVEN))
}

/// A value as JSON, cut; `()` for `null`.
fn json(value: &Value, longest: usize) -> String {
    /// Takes no more than is shown.
    struct Start(Vec<u8>, usize);
    impl std::io::Write for Start {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.1.saturating_sub(self.0.len());
            if room == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Ok(bytes.len().min(room))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    if value.is_null() {
        return "`()`".into();
    }
    // Characters have up to four bytes; one that was cut in its middle is past what is shown.
    let mut start = Start(Vec::new(), longest * 4 + 4);
    let _ = serde_json::to_writer(&mut start, value);
    cut(&String::from_utf8_lossy(&start.0), longest)
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
