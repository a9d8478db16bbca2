//! What to write instead: recognises what an author meant where a script can't be read, or failed.
//! A hint that is wrong costs more than none: each stands on something that is never right in Rhai.

use rhai::{EvalAltResult, LexError, ParseError, ParseErrorType};

use crate::current::{servers, unmangle};
use crate::error::{self, Fault};
use crate::reader::{Kind, Reading};
use crate::{Position, effects};

/// As much as a hint repeats of a script.
const LONGEST: usize = 60;

/// The fault of a source that can't be read.
pub(crate) fn syntax(reading: &Reading, error: Option<&ParseError>) -> Option<Fault> {
    let place = error.and_then(|error| error::position(error.position()));
    if let Some(mistake) = &reading.mistake
        && place.is_none_or(|place| (mistake.position.line, mistake.position.column) <= (place.line, place.column))
    {
        let fault = Fault::new("syntax", mistake.message.clone());
        return Some(Fault { position: Some(mistake.position), hint: mistake.hint.clone(), ..fault });
    }
    let error = error?;
    let at = place.map_or(reading.tokens.len(), |place| {
        reading.tokens.partition_point(|token| (token.line, token.column) < (place.line, place.column))
    });
    let view = View { reading };
    // A statement of many thousand tokens is not looked at from its beginning.
    let begin = view.begin_of_statement(at).max(at.saturating_sub(1_000));
    let fault = Fault { position: place, ..Fault::new("syntax", wording(error.err_type())) };
    if let Some(fault) = view.unclosed_text(&fault) {
        return Some(fault);
    }
    let last = at.min(reading.tokens.len().saturating_sub(1));
    let hint = (begin..=last).find_map(|index| view.meant(index));
    let fault = match hint {
        Some(hint) => Fault { hint: Some(hint), ..fault },
        None => view.unfinished(at, error.err_type(), fault),
    };
    Some(fault)
}

/// Rhai's words for what it can't read, in the words of our other messages.
fn wording(error: &ParseErrorType) -> String {
    let text = match error {
        ParseErrorType::MissingToken(token, _) if token == ";" => "expected `;` to end the statement".into(),
        ParseErrorType::MissingToken(token, why) => format!("expected `{token}` {}", why.replace('\'', "`")),
        ParseErrorType::BadInput(LexError::UnexpectedInput(input)) => format!("unexpected `{input}`"),
        ParseErrorType::BadInput(LexError::UnterminatedString) => "the text that starts here has no end".into(),
        ParseErrorType::BadInput(LexError::MalformedEscapeSequence(escape)) => {
            format!("`{escape}` is no escape in a text")
        }
        ParseErrorType::BadInput(LexError::MalformedIdentifier(name)) => format!("`{name}` can't be a name"),
        ParseErrorType::BadInput(LexError::ImproperSymbol(symbol, _)) | ParseErrorType::Reserved(symbol)
            if !symbol.starts_with(|first: char| first.is_ascii_alphabetic()) =>
        {
            format!("`{symbol}` has no meaning in Rhai")
        }
        ParseErrorType::Reserved(word) => format!("`{word}` is a word that Rhai reserves"),
        ParseErrorType::UnknownOperator(operator) => format!("there is no operator `{operator}`"),
        ParseErrorType::UnexpectedEOF => "the script ends in the middle of an expression".into(),
        ParseErrorType::PropertyExpected => "expected the name of a property".into(),
        ParseErrorType::VariableExpected => "expected the name of a variable".into(),
        ParseErrorType::MismatchedType(expected, actual) => format!("expected {expected}, not {actual}"),
        ParseErrorType::ExprExpected(what) if what.ends_with("literal") => {
            "expected a literal, such as a number or a text".into()
        }
        ParseErrorType::ExprExpected(what) => format!("expected {what} expression"),
        ParseErrorType::ExprTooDeep => "expressions nest too deeply here: use variables for their parts".into(),
        ParseErrorType::WrongFnDefinition => "a function can't be defined inside a block or another function".into(),
        ParseErrorType::LoopBreak => "`break` and `continue` stand in loops only".into(),
        other => lower(&other.to_string()),
    };
    unmangle(&text)
}

pub(crate) fn lower(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        // A name in capitals stays one.
        Some(first) if !characters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.into(),
    }
}

struct View<'r, 'a> {
    reading: &'r Reading<'a>,
}

impl<'a> View<'_, 'a> {
    fn sign(&self, index: usize) -> &'a str {
        self.reading.sign(index)
    }

    fn word(&self, index: usize) -> Option<&'a str> {
        self.reading.word(index)
    }

    fn before(&self, index: usize) -> &'a str {
        index.checked_sub(1).map_or("", |index| self.sign(index))
    }

    fn line(&self, index: usize) -> u32 {
        self.reading.tokens.get(index).map_or(0, |token| token.line)
    }

    fn is_text(&self, index: usize) -> bool {
        [Kind::Text, Kind::Apostrophe, Kind::Template].iter().any(|kind| self.reading.is(index, *kind))
    }

    /// Whether an expression may end with this token.
    fn ends(&self, index: usize) -> bool {
        match self.reading.tokens.get(index).map(|token| token.kind) {
            None => false,
            Some(Kind::Symbol) => matches!(self.sign(index), ")" | "]" | "}"),
            Some(Kind::Word) => !is_operator(self.sign(index)),
            Some(_) => true,
        }
    }

    /// The source between two tokens on one line, where that is short.
    fn snippet(&self, from: usize, to: usize) -> Option<&'a str> {
        let (first, last) = (self.reading.tokens.get(from)?, self.reading.tokens.get(to.checked_sub(1)?)?);
        let text = self.reading.source.get(first.start as usize..last.end as usize)?;
        (from < to && !text.contains('\n') && text.chars().count() <= LONGEST).then_some(text)
    }

    fn snippet_or(&self, from: usize, to: usize, other: &'a str) -> &'a str {
        self.snippet(from, to).unwrap_or(other)
    }

    /// Where the expression that starts at a token ends: before a comma, a closing bracket, `;`, one of `stops`, or a new line.
    fn end_of_expression(&self, from: usize, stops: &[&str]) -> usize {
        let mut at = from;
        while at < self.reading.tokens.len() {
            let sign = self.sign(at);
            let new_line = at > from && self.line(at) != self.line(at - 1) && !matches!(sign, "." | "?.");
            if matches!(sign, "," | ")" | "]" | "}" | ";") || stops.contains(&sign) || new_line {
                break;
            }
            at = match self.reading.pair(at) {
                Some(close) if close > at => close + 1,
                _ => at + 1,
            };
        }
        at
    }

    /// The bracket that the token stands in.
    fn enclosing(&self, index: usize) -> Option<usize> {
        let mut at = index.min(self.reading.tokens.len());
        while at > 0 {
            at -= 1;
            match self.sign(at) {
                ")" | "]" | "}" => at = self.reading.pair(at).filter(|open| *open < at).unwrap_or(at),
                "(" | "[" | "?[" | "{" | "#{" => return Some(at),
                _ => {}
            }
        }
        None
    }

    fn begin_of_statement(&self, index: usize) -> usize {
        let mut at = index.min(self.reading.tokens.len());
        while at > 0 {
            match self.sign(at - 1) {
                "{" if self.is_value_brace(at - 1) => at -= 1,
                ";" | "{" => break,
                "}" => match self.reading.pair(at - 1).filter(|open| *open < at) {
                    Some(open) if self.sign(open) == "#{" || self.is_value_brace(open) => at = open,
                    _ => break,
                },
                ")" | "]" => at = self.reading.pair(at - 1).filter(|open| *open < at).unwrap_or(at - 1),
                _ => at -= 1,
            }
        }
        at
    }

    /// Whether the brace stands where a value is expected, rather than a block.
    fn is_value_brace(&self, open: usize) -> bool {
        matches!(self.before(open), "=" | "(" | "," | "[" | ":" | "return" | "let" | "const" | "var")
    }

    fn is_in_switch(&self, index: usize) -> bool {
        let Some(open) = self.enclosing(index).filter(|open| self.sign(*open) == "{") else { return false };
        let begin = self.begin_of_statement(open);
        (begin..open).any(|at| self.sign(at) == "switch")
    }

    fn unclosed_text(&self, fault: &Fault) -> Option<Fault> {
        let last = self.reading.tokens.last()?;
        if last.closed || !matches!(last.kind, Kind::Text | Kind::Apostrophe | Kind::Template | Kind::Raw) {
            return None;
        }
        let place = fault.position.filter(|place| (place.line, place.column) < (last.line, last.column));
        if place.is_some() {
            return None; // something else is wrong before
        }
        let hint = match last.kind {
            Kind::Text | Kind::Apostrophe => {
                let quote = if last.kind == Kind::Text { '"' } else { '\'' };
                format!("end it with `{quote}` on the same line, or write a text of several lines between back-ticks")
            }
            Kind::Raw => "end it with `\"` and as many `#` as it starts with".into(),
            _ if self.reading.text(self.reading.tokens.len() - 1).contains("\\`") => {
                "a back-slash does not keep a back-tick in such a text: write two back-ticks for one".into()
            }
            _ => "end it with a back-tick".into(),
        };
        let fault = Fault::new("syntax", "the text that starts here has no end");
        Some(Fault { position: Some(last.position()), hint: Some(hint), ..fault })
    }

    /// A statement without an end, or a bracket.
    fn unfinished(&self, at: usize, error: &ParseErrorType, fault: Fault) -> Fault {
        if let ParseErrorType::BadInput(LexError::MalformedEscapeSequence(escape)) = error {
            let hint = match escape.as_str() {
                "\\'" => "write `'` without the back-slash".into(),
                escape => format!("write `\\{escape}` for a back-slash in the text"),
            };
            return Fault { hint: Some(hint), ..fault };
        }
        if matches!(error, ParseErrorType::WrongFnDefinition) {
            return Fault { hint: Some("write it as a closure: `let name = |x| { … };`".into()), ..fault };
        }
        if let Some(name) = self.word(at)
            && matches!(error, ParseErrorType::VariableExpected | ParseErrorType::Reserved(_))
            && (matches!(self.before(at), "let" | "const" | "var" | "for" | "fn")
                || matches!(error, ParseErrorType::VariableExpected))
        {
            let message = format!("`{name}` is a word of the language, and can't be a name");
            return Fault { message, hint: Some(format!("choose another name, such as `{name}_`")), ..fault };
        }
        if let Some(hint) = self.unclosed_bracket(at) {
            return Fault { hint: Some(hint), ..fault };
        }
        if at >= self.reading.tokens.len()
            && let Some(open) = (0..at).rev().find(|open| {
                matches!(self.sign(*open), "(" | "[" | "?[" | "{" | "#{") && self.reading.pair(*open).is_none()
            })
        {
            let (sign, place) = (self.sign(open), self.reading.tokens[open].position());
            let close = match sign {
                "(" => ")",
                "[" | "?[" => "]",
                _ => "}",
            };
            let hint = format!("close the `{sign}` of line {}, column {} with `{close}`", place.line, place.column);
            return Fault {
                message: format!("the `{sign}` has no `{close}`"),
                position: Some(place),
                hint: Some(hint),
                ..fault
            };
        }
        let missing = matches!(error, ParseErrorType::MissingToken(token, _) if token == ";");
        if missing && at > 0 && at < self.reading.tokens.len() && self.line(at - 1) < self.line(at) {
            let last = self.reading.tokens[at - 1];
            let length = self.reading.text(at - 1);
            if !length.contains('\n') {
                let column = last.column + u32::try_from(length.chars().count()).unwrap_or(0);
                let hint = format!("end line {} with `;`", last.line);
                let position = Some(Position { line: last.line, column });
                return Fault {
                    message: "there is no `;` after this statement".into(),
                    position,
                    hint: Some(hint),
                    ..fault
                };
            }
        }
        fault
    }

    /// A bracket before a token that can't stand in it.
    fn unclosed_bracket(&self, at: usize) -> Option<String> {
        let open = self.enclosing(at).filter(|_| at < self.reading.tokens.len())?;
        let close = match self.sign(open) {
            "(" => ")",
            "[" | "?[" => "]",
            "#{" => "}",
            "{" if self.is_value_brace(open) && self.sign(open + 2) == ":" => "}",
            _ => return None,
        };
        let sign = self.sign(at);
        let foreign = match sign {
            ";" => true,
            ")" | "]" | "}" => sign != close,
            _ => {
                matches!(sign, "let" | "const" | "for" | "while" | "return" | "fn") && self.line(at) > self.line(at - 1)
            }
        };
        let place = self.reading.tokens[open].position();
        foreign.then(|| {
            format!("close the `{}` of line {}, column {} with `{close}`", self.sign(open), place.line, place.column)
        })
    }

    /// What an author meant by what starts at this token.
    fn meant(&self, index: usize) -> Option<String> {
        let sign = self.sign(index);
        if self.reading.is(index, Kind::Word) {
            if matches!(self.before(index), "." | "?." | "::") {
                return None;
            }
            return self.meant_by_word(index, sign);
        }
        match sign {
            "" if self.reading.is(index, Kind::Template) => self.template_cut_short(index),
            "=>" => self.arrow(index),
            "(" => {
                let close = self.reading.pair(index)?;
                if self.sign(close + 1) == "=>" { self.arrow(close + 1) } else { None }
            }
            "?" => self.ternary(index),
            "++" | "--" => {
                let operator = &sign[..1];
                let name = index.checked_sub(1).and_then(|before| self.word(before)).or_else(|| self.word(index + 1));
                Some(format!("write `{} {operator}= 1`", name.unwrap_or("x")))
            }
            "..." => Some(self.spread(index)),
            "**" if matches!(self.before(index), "{" | "#{" | "," | "(") => Some(self.spread(index)),
            ":" => self.colon(index),
            "=" => self.named_argument(index).or_else(|| self.assigned_twice(index)),
            "," => self.comma(index),
            "[" if self.ends(index.checked_sub(1)?) => self.tool_by_index(index),
            "{" => self.shorthand(index),
            "->" if self.before(index) == ")" && self.sign(self.begin_of_statement(index)) == "fn" => {
                Some("leave out the type that a function returns: `fn f(x) { … }`".into())
            }
            _ if sign.starts_with('#') && sign != "#{" => self.hash(index),
            _ => None,
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table of words")]
    fn meant_by_word(&self, index: usize, word: &str) -> Option<String> {
        let next = self.sign(index + 1);
        let next_word = self.word(index + 1);
        let starts = index == self.begin_of_statement(index);
        let fixed = |text: &str| Some(text.to_string());
        match word {
            "def" if next_word.is_some() && self.sign(index + 2) == "(" => Some(format!(
                "write a function as `fn {}{} {{ … }}`",
                self.word(index + 1)?,
                self.parameters(index + 2)
            )),
            "lambda" => {
                let colon = self.end_of_lambda(index)?;
                let parameters = self.snippet_or(index + 1, colon, "");
                let body = self.snippet_or(colon + 1, self.end_of_expression(colon + 1, &[]), "…");
                Some(format!("write a function as `|{parameters}| {body}`"))
            }
            "function" if next == "(" => {
                let close = self.reading.pair(index + 1)?;
                let parameters = self.snippet(index + 2, close).unwrap_or_default();
                Some(format!("write a function without a name as `|{parameters}| {{ … }}`"))
            }
            "fn" | "function" if next_word.is_some() && self.sign(index + 2) == "(" => self.typed_parameters(index + 2),
            "for" => self.for_loop(index),
            "let" | "const" | "var" => self.declaration(index),
            "elif" | "elsif" if starts => {
                let end = self.end_of_expression(index + 1, &["{", ":"]);
                Some(format!("write `else if {} {{ … }}`", self.snippet_or(index + 1, end, "…")))
            }
            "try" if next == ":" => fixed("write `try { … } catch (e) { … }`"),
            "try" if index > 0 && matches!(self.before(index), "=" | "return" | "(" | ",") => {
                fixed("`try` has no value: assign in its block, as in `let x = (); try { x = …; } catch (e) { … }`")
            }
            "except" | "rescue" if starts => fixed("write `catch (e) { … }` after the block of `try { … }`"),
            "finally" if starts => {
                fixed("there is no `finally`: write what is to be done last after `try { … } catch (e) { … }`")
            }
            "catch" if starts && next != "(" && next != "{" => fixed("write `catch (e) { … }`"),
            "if" | "while" if self.block_colon(index).is_some() => self.block(index),
            "else" if next == ":" => fixed("write a block in braces: `else { … }`"),
            "if" if index > 0 && self.ends(index - 1) && self.line(index) == self.line(index - 1) => {
                self.python_condition(index)
            }
            "class" | "interface" | "enum" | "struct" if next_word.is_some() => {
                fixed("there are no classes: use maps, as in `#{name: value}`, and functions")
            }
            "import" if next_word.is_some() || next == "{" || next == "*" => fixed(IMPORT),
            "from" if next_word.is_some() && starts => fixed(IMPORT),
            "with" => fixed("there is no `with`: call what you need, as in `let x = server.tool(#{…});`"),
            "typeof" if next_word.is_some() => {
                let end = self.end_of_expression(index + 1, &["==", "!=", "===", "!==", "&&", "||"]);
                Some(format!("write `type_of({})`", self.snippet_or(index + 1, end, "x")))
            }
            "instanceof" => fixed("compare the name of the type: `type_of(x) == \"map\"`"),
            "case" if starts || next_word.is_some() || self.is_text(index + 1) => {
                let end = self.end_of_expression(index + 1, &[":"]);
                Some(format!(
                    "write `{} => {{ … }}` in a `switch`, without `case` and `break`",
                    self.snippet_or(index + 1, end, "1")
                ))
            }
            "default" if next == ":" => fixed("write `_ => { … }` at the end of a `switch`"),
            "match" if next_word.is_some() => {
                let end = self.end_of_expression(index + 1, &["{", ":"]);
                Some(format!("write `switch {} {{ 1 => …, _ => … }}`", self.snippet_or(index + 1, end, "x")))
            }
            "new" => self.new_object(index),
            "async" => fixed("leave out `async`: every call waits for its answer"),
            "raise" => fixed("write `throw \"…\"`"),
            "del" | "delete" if next_word.is_some() => fixed("remove an entry of a map with `m.remove(\"key\")`"),
            "yield" => fixed("there is no `yield`: collect the values in a list, and return it"),
            "not" if next == "in" => None,
            "print" | "debug"
                if next_word.is_some() || self.is_text(index + 1) || self.reading.is(index + 1, Kind::Number) =>
            {
                let end = self.end_of_expression(index + 1, &[]);
                Some(format!("write `{word}({})`", self.snippet_or(index + 1, end, "x")))
            }
            "f" | "r" | "b" | "F" | "rf" | "fr" if self.is_text(index + 1) => self.prefixed_text(index, word),
            _ => None,
        }
    }

    fn parameters(&self, open: usize) -> String {
        let Some(close) = self.reading.pair(open) else { return "(x)".into() };
        let mut names = Vec::new();
        let mut at = open + 1;
        while at < close {
            if let Some(name) = self.word(at) {
                names.push(name);
            }
            at = self.end_of_expression(at, &[]).max(at) + 1;
        }
        format!("({})", names.join(", "))
    }

    fn typed_parameters(&self, open: usize) -> Option<String> {
        let close = self.reading.pair(open)?;
        let form = || format!("`fn {}{}`", self.word(open - 1).unwrap_or("f"), self.parameters(open));
        let has = |sign: &str| (open + 1..close).any(|at| self.sign(at) == sign);
        if has("=") {
            return Some(format!("parameters have no default values: write {}", form()));
        }
        if has(":") {
            return Some(format!("leave out the types of parameters: write {}", form()));
        }
        if self.sign(close + 1) == ":" {
            return Some(format!("write a block in braces: {} and `{{ … }}`", form()));
        }
        None
    }

    fn arrow(&self, index: usize) -> Option<String> {
        let before = index.checked_sub(1)?;
        let parameters = if self.sign(before) == ")" {
            let open = self.reading.pair(before)?;
            if self.is_in_switch(open) {
                return None;
            }
            self.snippet(open + 1, before).unwrap_or_default()
        } else {
            if self.is_in_switch(index) {
                return None;
            }
            self.word(before)?
        };
        if parameters.contains(['{', '[', '=', '.']) {
            return Some("write a function as `|x| …`, and take the parts of `x` in its body: `x.name`, `x[0]`".into());
        }
        let from = index + 1;
        let body = match self.reading.pair(from) {
            // `x => ({…})`
            Some(close) if self.sign(from) == "(" && self.sign(from + 1) == "{" => {
                self.snippet_or(from + 1, close, "#{…}")
            }
            _ => self.snippet_or(from, self.end_of_expression(from, &[]), "…"),
        };
        Some(format!("write a function as `|{parameters}| {body}`"))
    }

    fn end_of_lambda(&self, index: usize) -> Option<usize> {
        (index + 1..index + 12).take_while(|at| *at < self.reading.tokens.len()).find(|at| self.sign(*at) == ":")
    }

    fn ternary(&self, index: usize) -> Option<String> {
        let colon = self.end_of_expression(index + 1, &[":", "?"]);
        if self.sign(colon) != ":" {
            return None;
        }
        let from = self.start_of_expression(index);
        let parts = (
            self.snippet(from, index),
            self.snippet(index + 1, colon),
            self.snippet(colon + 1, self.end_of_expression(colon + 1, &["?"])),
        );
        Some(match parts {
            (Some(condition), Some(yes), Some(no)) if self.sign(self.end_of_expression(colon + 1, &["?"])) != "?" => {
                format!("write `if {condition} {{ {yes} }} else {{ {no} }}`")
            }
            _ => "write `if a { b } else { c }` instead of `a ? b : c`".into(),
        })
    }

    /// Where the expression begins that ends before this token.
    fn start_of_expression(&self, end: usize) -> usize {
        let mut from = end;
        while from > 0
            && !matches!(self.sign(from - 1), "=" | "(" | "," | ";" | "{" | "}" | "[" | ":" | "return" | "=>" | "+=")
        {
            from = match self.reading.pair(from - 1) {
                Some(open) if open < from => open,
                _ => from - 1,
            };
        }
        from
    }

    /// `b if a else c`
    fn python_condition(&self, index: usize) -> Option<String> {
        let otherwise = self.end_of_expression(index + 1, &["else", "{"]);
        if self.sign(otherwise) != "else" {
            return None;
        }
        let from = self.start_of_expression(index);
        let yes = self.snippet_or(from, index, "b");
        let condition = self.snippet_or(index + 1, otherwise, "a");
        let no = self.snippet_or(otherwise + 1, self.end_of_expression(otherwise + 1, &[]), "c");
        Some(format!("write `if {condition} {{ {yes} }} else {{ {no} }}`"))
    }

    fn spread(&self, index: usize) -> String {
        let value = self.snippet_or(index + 1, self.end_of_expression(index + 1, &[]), "x");
        match self.enclosing(index).map_or("", |open| self.sign(open)) {
            "[" => format!("join lists with `+`: `{value} + […]`"),
            "{" | "#{" => format!("join maps with `+`: `{value} + #{{…}}`"),
            _ => "write every argument by itself, or give the function a list".into(),
        }
    }

    fn colon(&self, index: usize) -> Option<String> {
        let open = self.enclosing(index)?;
        match self.sign(open) {
            "(" => self.named_argument(index),
            "[" if open > 0 && self.ends(open - 1) => {
                let value = self.word(open - 1).unwrap_or("x");
                let from = self.snippet_or(open + 1, index, "0");
                let close = self.reading.pair(open)?;
                Some(match self.snippet(index + 1, close) {
                    Some(to) => format!("write `{value}.extract({from}..{to})`"),
                    None => format!("write `{value}.extract({from})`"),
                })
            }
            "{" | "#{" if self.sign(self.end_of_expression(index + 1, &["for"])) == "for" => {
                Some("fill the map in a loop: `let m = #{}; for x in xs { m[x.key] = x.value; }`".into())
            }
            "{" if self.is_value_brace(open) && !matches!(self.before(index - 1), "{" | ",") => Some(
                "keys of a map are names or texts, as in `#{name: value}`: set others with `m[key] = value`".into(),
            ),
            _ => None,
        }
    }

    /// `f(name: "x")` and `f(name = "x")`
    fn named_argument(&self, index: usize) -> Option<String> {
        let open = self.enclosing(index).filter(|open| self.sign(*open) == "(")?;
        let callee = open.checked_sub(1).and_then(|at| self.word(at)).filter(|callee| !is_operator(callee))?;
        if !matches!(self.before(index - 1), "(" | ",") || self.word(index - 1).is_none() || open < 1 {
            return None;
        }
        let close = self.reading.pair(open)?;
        let mut values = Vec::new();
        let mut entries = Vec::new();
        let mut at = open + 1;
        while at < close {
            let end = self.end_of_expression(at, &[]);
            let named = matches!(self.sign(at + 1), ":" | "=");
            let value = self.snippet_or(if named { at + 2 } else { at }, end, "…");
            entries.push(format!("{}: {value}", if named { self.reading.text(at) } else { "name" }));
            values.push(value);
            at = end.max(at) + 1;
        }
        let server = (matches!(self.before(open - 1), "." | "::") && open >= 3)
            .then(|| self.sign(open - 3))
            .filter(|name| servers().iter().any(|server| server == name));
        Some(match server {
            Some(server) => format!("a tool takes one map: `{server}.{callee}(#{{{}}})`", entries.join(", ")),
            None => format!("arguments have no names: `{callee}({})`", values.join(", ")),
        })
    }

    /// `a = b = c`
    fn assigned_twice(&self, index: usize) -> Option<String> {
        let begin = self.begin_of_statement(index);
        let (first, second) = (self.word(begin)?, self.word(index.checked_sub(1)?)?);
        if index != begin + 3 || self.sign(begin + 1) != "=" {
            return None;
        }
        let value = self.snippet(index + 1, self.end_of_expression(index + 1, &["="]))?;
        Some(format!("assign one variable at a time: `{second} = {value}; {first} = {second};`"))
    }

    /// `a, b = b, a`
    fn comma(&self, index: usize) -> Option<String> {
        let begin = self.begin_of_statement(index);
        let both = self.word(begin).filter(|_| begin + 1 == index).zip(self.word(index + 1));
        let (first, second) = both.filter(|_| self.sign(index + 2) == "=")?;
        if self.enclosing(index).is_some_and(|open| self.sign(open) != "{") {
            return None;
        }
        Some(format!("assign one variable at a time: `{first} = …; {second} = …;`"))
    }

    /// `server["tool"](…)`
    fn tool_by_index(&self, index: usize) -> Option<String> {
        let server = self.word(index - 1)?;
        let is_server = servers().iter().any(|name| name == server);
        let close = self.reading.pair(index)?;
        if !is_server || self.sign(close + 1) != "(" {
            return None;
        }
        let tool = self.snippet(index + 1, close).filter(|_| close == index + 2 && self.is_text(index + 1));
        let tool = tool.map_or("name".into(), |tool| format!("\"{}\"", tool.trim_matches(['"', '\'', '`'])));
        Some(format!("call a tool by its name as `{server}.call_tool({tool}, #{{…}})`"))
    }

    /// `{a, b}`
    fn shorthand(&self, index: usize) -> Option<String> {
        if !matches!(self.before(index), "=" | "(" | "," | "[" | ":" | "return") {
            return None;
        }
        if self.sign(index + 1) == "..." {
            return Some(self.spread(index + 1));
        }
        let close = self.reading.pair(index)?;
        let names: Vec<&str> = (index + 1..close).step_by(2).filter_map(|at| self.word(at)).collect();
        let listed = (index + 2..close).step_by(2).all(|at| self.sign(at) == ",");
        if !listed || names.len() < 2 || (close - index) / 2 != names.len() || names.len() > 8 {
            return None;
        }
        let entries: Vec<String> = names.iter().map(|name| format!("{name}: {name}")).collect();
        Some(format!("name every entry of a map: `#{{{}}}`", entries.join(", ")))
    }

    /// A text that a back-tick after a back-slash ended.
    fn template_cut_short(&self, index: usize) -> Option<String> {
        let next = self.reading.tokens.get(index + 1)?;
        let goes_on = next.line == self.line(index) && !matches!(next.kind, Kind::Symbol);
        (goes_on && self.reading.text(index).ends_with("\\`"))
            .then(|| "a back-slash does not keep a back-tick in such a text: write two back-ticks for one".into())
    }

    fn hash(&self, index: usize) -> Option<String> {
        let token = self.reading.tokens.get(index)?;
        let rest = self.reading.source.get(token.start as usize..)?.lines().next()?;
        let rest = rest.trim_start_matches('#');
        if rest.trim_start().starts_with('{') {
            return Some("write a map as `#{…}`, without a space".into());
        }
        let text: String = rest.trim().chars().take(LONGEST).collect();
        Some(format!("write comments as `// {text}`"))
    }

    fn for_loop(&self, index: usize) -> Option<String> {
        let parenthesis = self.sign(index + 1) == "(";
        let mut at = index + 1 + usize::from(parenthesis);
        let declares = matches!(self.sign(at), "let" | "const" | "var");
        at += usize::from(declares);
        if self.enclosing(index).is_some_and(|open| matches!(self.sign(open), "[" | "(")) && !parenthesis {
            return self.comprehension(index);
        }
        if self.enclosing(index).is_some_and(|open| self.sign(open) == "#{" || self.is_value_brace(open)) {
            return Some("fill the map in a loop: `let m = #{}; for x in xs { m[x.key] = x.value; }`".into());
        }
        let close = if parenthesis { self.reading.pair(index + 1)? } else { 0 };
        if let Some(name) = self.word(at)
            && matches!(self.sign(at + 1), "of" | "in")
            && (parenthesis || declares || self.sign(at + 1) == "of")
        {
            let end = if parenthesis { close } else { self.end_of_expression(at + 2, &["{", ":"]) };
            return Some(format!("write `for {name} in {} {{ … }}`", self.snippet_or(at + 2, end, "xs")));
        }
        if parenthesis && declares && matches!(self.sign(at), "[" | "{") {
            return Some(
                "write `for key in m.keys() { let value = m[key]; … }`, or `for (x, i) in xs { … }` with an index"
                    .into(),
            );
        }
        if parenthesis && (index + 1..close).any(|at| self.sign(at) == ";") {
            return Some(self.counting_loop(at, close));
        }
        if self.word(at).is_some() && self.sign(at + 1) == "," && !parenthesis {
            let (first, second) = (self.word(at)?, self.word(at + 2)?);
            return Some(if self.sign(at + 4) == "enumerate" {
                format!("write `for ({second}, {first}) in xs {{ … }}`: the value, then its index")
            } else {
                format!("write `for {first} in m.keys() {{ let {second} = m[{first}]; … }}`")
            });
        }
        self.block_colon(index).and_then(|_| self.block(index))
    }

    /// `for (let i = 0; i < n; i++)`
    fn counting_loop(&self, at: usize, close: usize) -> String {
        let counted = || {
            let name = self.word(at)?;
            let first = (at..close).find(|at| self.sign(*at) == ";")?;
            let second = (first + 1..close).find(|at| self.sign(*at) == ";")?;
            let steps = self.snippet(second + 1, close)?;
            let up = steps == format!("{name}++") || steps == format!("++{name}") || steps == format!("{name} += 1");
            if !up || self.sign(at + 1) != "=" || self.word(first + 1) != Some(name) {
                return None;
            }
            let range = match self.sign(first + 2) {
                "<" => "..",
                "<=" => "..=",
                _ => return None,
            };
            let (from, to) = (self.snippet(at + 2, first)?, self.snippet(first + 3, second)?);
            Some(format!("write `for {name} in {from}{range}{to} {{ … }}`"))
        };
        counted().unwrap_or_else(|| "write `for i in 0..10 { … }`, or `while i < 10 { … }`".into())
    }

    /// `[f(x) for x in xs if g(x)]`
    fn comprehension(&self, index: usize) -> Option<String> {
        let open = self.enclosing(index)?;
        let name = self.word(index + 1).filter(|_| self.sign(index + 2) == "in")?;
        let value = self.snippet(open + 1, index)?;
        let condition = self.end_of_expression(index + 3, &["if", "for"]);
        let list = self.snippet_or(index + 3, condition, "xs");
        let filter = if self.sign(condition) == "if" {
            let end = self.end_of_expression(condition + 1, &["for"]);
            format!(".filter(|{name}| {})", self.snippet_or(condition + 1, end, "…"))
        } else {
            String::new()
        };
        let map = if value == name { String::new() } else { format!(".map(|{name}| {value})") };
        let map = if map.is_empty() && filter.is_empty() { format!(".map(|{name}| {name})") } else { map };
        Some(format!("write `{list}{filter}{map}`"))
    }

    fn declaration(&self, index: usize) -> Option<String> {
        let next = self.sign(index + 1);
        if matches!(next, "{" | "[" | "(") {
            let close = self.reading.pair(index + 1)?;
            let value = self.snippet(close + 2, self.end_of_expression(close + 2, &[])).unwrap_or("x");
            let value =
                if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') { value } else { "x" };
            let names: Vec<&str> = (index + 2..close).filter_map(|at| self.word(at)).take(4).collect();
            let parts = names.iter().enumerate().map(|(at, name)| match next {
                "{" => format!("let {name} = {value}.{name};"),
                _ => format!("let {name} = {value}[{at}];"),
            });
            let parts = parts.collect::<Vec<_>>().join(" ");
            return Some(format!("take the values one by one: `{parts}`"));
        }
        let name = self.word(index + 1)?;
        match self.sign(index + 2) {
            "," => {
                let second = self.word(index + 3).unwrap_or("y");
                Some(format!("declare one variable at a time: `let {name} = …; let {second} = …;`"))
            }
            ":" => Some(format!("leave out the type: `let {name} = …`")),
            _ => {
                let second = self.end_of_expression(index + 3, &[]);
                let assigned = self.sign(index + 2) == "=" && self.sign(second) == "," && self.sign(second + 2) == "=";
                let other = self.word(second + 1).filter(|_| assigned)?;
                Some(format!("declare one variable at a time: `let {name} = …; let {other} = …;`"))
            }
        }
    }

    /// The colon that ends the line of a block as Python has it.
    fn block_colon(&self, index: usize) -> Option<usize> {
        let colon = self.end_of_expression(index + 1, &[":", "{"]);
        (self.sign(colon) == ":" && colon > index + 1).then_some(colon)
    }

    fn block(&self, index: usize) -> Option<String> {
        let colon = self.block_colon(index)?;
        Some(format!("write a block in braces: `{} {{ … }}`", self.snippet_or(index, colon, self.sign(index))))
    }

    fn new_object(&self, index: usize) -> Option<String> {
        Some(match self.word(index + 1)? {
            "Map" | "Object" => "write a map as `#{}`".into(),
            "Date" => "write `now()`, or `date(\"2026-01-31T10:00:00Z\")`".into(),
            "Array" | "Set" => "write a list as `[]`".into(),
            "Promise" => "leave out `new Promise`: every call waits for its answer".into(),
            "Exception" => "write `throw \"…\"`, or `throw #{message: \"…\"}`".into(),
            name => format!("there are no classes such as `{name}`: use maps, as in `#{{name: value}}`, and functions"),
        })
    }

    fn prefixed_text(&self, index: usize, prefix: &str) -> Option<String> {
        let (word, text) = (self.reading.tokens.get(index)?, self.reading.tokens.get(index + 1)?);
        if word.end != text.start {
            return None;
        }
        if prefix.eq_ignore_ascii_case("f") {
            let content = self.snippet(index + 1, index + 2).map(|text| text.trim_matches(['"', '\'', '`']));
            let content =
                content.filter(|text| text.contains('{') && !text.contains(['$', ':', '`']) && !text.contains("{{"));
            let content = content.map_or("Hello ${name}".into(), |text| text.replace('{', "${"));
            return Some(format!("write values in a text between back-ticks: `` `{content}` ``"));
        }
        Some(format!("leave out the `{prefix}` before the text; a raw text is `#\"…\"#`"))
    }
}

const IMPORT: &str = "a script can't import anything, and needs not: servers and functions are there by their names";

/// Words after which an operand is still to come.
#[rustfmt::skip]
const OPERATORS: [&str; 29] = [
    "let", "const", "var", "if", "else", "while", "until", "loop", "for", "in", "do", "return", "throw", "switch",
    "and", "or", "not", "is", "case", "new", "await", "async", "typeof", "try", "catch", "fn", "function", "match",
    "print",
];

fn is_operator(word: &str) -> bool {
    OPERATORS.contains(&word)
}

/// Names that a script declares: variables, parameters and functions.
pub(crate) fn names<'a>(reading: &Reading<'a>) -> Vec<&'a str> {
    let view = View { reading };
    let mut names = Vec::new();
    for index in 0..reading.tokens.len() {
        match view.sign(index) {
            "let" | "const" | "var" | "for" | "fn" | "function" | "catch" => {
                let at = index + 1 + usize::from(view.sign(index + 1) == "(");
                names.extend(view.word(at));
                let list = if view.sign(at + 1) == "(" { at + 1 } else { at };
                if list != at || view.sign(index + 1) == "(" {
                    let rest = (list + 1..list + 24).take_while(|at| view.word(*at).is_some() || view.sign(*at) == ",");
                    names.extend(rest.filter_map(|at| view.word(at)));
                }
            }
            "|" => {
                let rest = (index + 1..index + 24).take_while(|at| view.word(*at).is_some() || view.sign(*at) == ",");
                let rest: Vec<usize> = rest.collect();
                if view.sign(index + 1 + rest.len()) == "|" {
                    names.extend(rest.into_iter().filter_map(|at| view.word(at)));
                }
            }
            _ => {}
        }
    }
    names
}

/// The name that is meant by a misspelt one.
pub(crate) fn near<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let alike = |other: &&str| *other != name && other.len() <= LONGEST && name.len() <= LONGEST;
    let distances = names.filter(alike).map(|other| (strsim::damerau_levenshtein(name, other), other));
    distances
        .filter(|(distance, other)| *distance * 3 <= other.chars().count().min(name.chars().count()))
        .min()
        .map(|(_, near)| near)
}

/// What a script had better written, after it failed; with a better message, where there is one.
pub(crate) fn runtime(
    reading: &Reading,
    error: &EvalAltResult,
    place: Option<Position>,
) -> (Option<String>, Option<String>) {
    let view = View { reading };
    let at = place.map_or(usize::MAX, |place| {
        reading.tokens.partition_point(|token| (token.line, token.column) < (place.line, place.column))
    });
    match error {
        EvalAltResult::ErrorVariableNotFound(name, _) => view.unknown_variable(&unmangle(name), at),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => view.unknown_function(&unmangle(signature), at),
        EvalAltResult::ErrorDotExpr(text, _) => view.unknown_property(text, at),
        EvalAltResult::ErrorIndexingType(text, _) if text.starts_with("() [") => {
            (Some("`()` has no entries".into()), Some(view.nothing_before(at)))
        }
        EvalAltResult::ErrorArrayBounds(length, index, _) => {
            let message = format!("the list has no item {index}: {}", count(*length, "item"));
            (Some(message), Some("the first item is `[0]`, the last `[-1]`; `len()` says how many there are".into()))
        }
        EvalAltResult::ErrorStringBounds(length, index, _) => {
            (Some(format!("the text has no character {index}: {}", count(*length, "character"))), None)
        }
        EvalAltResult::ErrorMismatchDataType(expected, actual, _) if !expected.is_empty() && !actual.is_empty() => {
            let message = format!("expected {}, not {}", type_name(expected), type_name(actual));
            let of_map = view.sign(at) == "[" || view.before(at) == "[";
            let hint = (expected == "string" && actual == "i64" && of_map)
                .then(|| "keys of maps are texts: `m[\"1\"]`, or `` m[`${key}`] ``".into());
            (Some(message), hint)
        }
        EvalAltResult::ErrorDataRace(..) => view.race(),
        EvalAltResult::ErrorAssignmentToConstant(name, _) => View::constant(&unmangle(name)),
        EvalAltResult::ErrorNonPureMethodCallOnConstant(name, _) if effects::in_branch() => {
            (Some(format!("`{}` changes a variable that can't be changed here", unmangle(name))), Some(BRANCH.into()))
        }
        EvalAltResult::ErrorFor(_) => (
            Some("a `for` loop goes over lists, ranges and texts".into()),
            Some("go over the keys of a map with `for key in m.keys() { … }`".into()),
        ),
        _ => (None, None),
    }
}

const BRANCH: &str = "a branch of `parallel` works on copies of outer variables: return the value instead";

fn count(number: usize, what: &str) -> String {
    match number {
        0 => "it is empty".into(),
        1 => format!("it has only 1 {what}"),
        _ => format!("it has only {number} {what}s"),
    }
}

/// A type as `type_of` names it.
fn type_name(name: &str) -> &str {
    if name.contains("ImmutableString") { "string" } else { name }
}

/// Functions that are there, for those who misspell them.
#[rustfmt::skip]
const KNOWN: [&str; 190] = [
    "abs", "add", "all", "any", "append", "avg", "avg_by", "base64_decode", "base64_encode", "bool", "build_query",
    "capitalize", "ceil", "ceiling", "char_at", "chars", "choice", "chop", "chunks", "clear", "compact", "concat",
    "contains", "copy", "count", "count_by", "crop", "date", "date_add", "date_diff", "days_between", "debug",
    "dedup", "diff", "difference", "drain", "drop", "empty", "ends_with", "entries", "enumerate", "every", "except",
    "extend", "extract", "fill_with", "filter", "find", "find_all", "find_index", "find_last", "find_map", "first",
    "flat_map", "flatten", "float", "floor", "for_each", "format", "format_date", "from_entries", "get", "group_by",
    "has", "hex_decode", "hex_encode", "includes", "index_by", "index_of", "insert", "int", "intersect", "is_empty",
    "is_even", "is_match", "is_odd", "items", "join", "keys", "last", "len", "lines", "lower", "make_lower",
    "make_upper", "map", "map_values", "max", "max_by", "mean", "merge", "min", "min_by", "mixin", "none", "now",
    "omit", "order_by", "pad", "pad_end", "pad_start", "parallel", "parallel_map", "parallel_map_settled",
    "parallel_settled", "parse_date", "parse_float", "parse_int", "parse_json", "parse_url", "partition", "pick",
    "pluck", "pop", "pow", "print", "push", "random", "random_int", "range", "reduce", "reduce_rev", "regex_captures",
    "regex_captures_all", "regex_escape", "regex_find", "regex_find_all", "regex_replace", "regex_split",
    "regex_test", "reject", "remove", "repeat", "replace", "retain", "retry", "reverse", "reversed", "round",
    "sample", "search_tools", "set", "sha256", "shift", "shuffle", "skip", "sleep", "slice", "some", "sort",
    "sort_by", "sort_desc", "sorted", "splice", "split", "sqrt", "start_of", "starts_with", "str", "sub",
    "sub_string", "substring", "sum", "sum_by", "take", "timeout", "title", "to_fixed", "to_float", "to_int",
    "to_json", "to_lower", "to_map", "to_string", "to_upper", "trim", "trim_end", "trim_start", "trunc", "truncate",
    "union", "unique", "unique_by", "upper", "url_decode", "url_encode", "uuid", "values", "words", "zip",
];

/// What functions and methods of other languages are called here.
const TRANSLATED: [(&str, &str); 12] = [
    ("add", "`xs.push(x)`"),
    ("charCodeAt", "`s.char_at(index)`"),
    ("findall", "`text.regex_find_all(pattern)`"),
    ("isoformat", "`date.iso`"),
    ("localeCompare", "`xs.sort_by(|x| x.name)`"),
    ("match", "`text.regex_find(pattern)`"),
    ("search", "`text.regex_find(pattern)`"),
    ("strftime", "`date.format(\"%Y-%m-%d\")`"),
    ("strptime", "`parse_date(text, \"%Y-%m-%d\")`"),
    ("substr", "`text.slice(start, end)`"),
    ("toLocaleString", "`format(\"{:,}\", x)`"),
    ("update", "`m.merge(#{key: value})`, which gives a new map"),
];

/// Where an error happened that Rhai gives no place.
pub(crate) fn place(reading: &Reading, error: &EvalAltResult) -> Option<Position> {
    match (error, reading.races.as_slice()) {
        (EvalAltResult::ErrorDataRace(..), [root]) => Some(reading.tokens.get(*root)?.position()),
        _ => None,
    }
}

pub(crate) fn declares_function(reading: &Reading, name: &str) -> bool {
    View { reading }.declared_function(name).is_some()
}

impl View<'_, '_> {
    fn unknown_variable(&self, name: &str, at: usize) -> (Option<String>, Option<String>) {
        let hint = match name {
            "Promise" | "asyncio" => "every call waits for its answer: leave out what waits",
            "os" | "sys" | "subprocess" | "process" | "json" | "re" | "fs" | "require" => IMPORT,
            "pass" => "leave the block empty: `{ }`",
            _ => "",
        };
        if !hint.is_empty() {
            return (Some(format!("there is no `{name}` here")), Some(hint.into()));
        }
        let names = names(self.reading);
        if names.contains(&name) {
            let function = self.function_around(at);
            let hint = function.map(|function| {
                format!("a function sees only its own parameters and variables: pass `{name}` to `{function}`")
            });
            return (None, hint);
        }
        let servers = servers();
        let all = names.iter().copied().chain(servers.iter().map(rhai::ImmutableString::as_str));
        let message =
            near(name, all).map(|near| format!("there is no variable or server `{name}`: did you mean `{near}`?"));
        (message, None)
    }

    /// The function whose body the token stands in.
    fn function_around(&self, at: usize) -> Option<&str> {
        (0..at.min(self.reading.tokens.len()))
            .rev()
            .filter(|index| matches!(self.sign(*index), "fn" | "function"))
            .find_map(|index| {
                let body = self.reading.pair(index + 2)? + 1;
                (body < at && at < self.reading.pair(body)?).then(|| self.word(index + 1)).flatten()
            })
    }

    fn unknown_function(&self, signature: &str, at: usize) -> (Option<String>, Option<String>) {
        let (name, types) = signature.split_once(" (").unwrap_or((signature, ")"));
        let types = types.strip_suffix(')').unwrap_or(types);
        let types: Vec<&str> = types.split(", ").filter(|name| !name.is_empty()).map(type_name).collect();
        let shown = types.join(", ");
        if self.sign(at) == "in" || self.sign(at) == "!in" {
            let inside = types.first().copied().unwrap_or("this");
            return (Some(format!("`in` does not look into {inside}")), None);
        }
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            let hint = match (name, types.as_slice()) {
                ("-" | "*" | "/" | "%" | "**", ["string", "i64" | "f64"] | ["i64" | "f64", "string"]) => {
                    Some("turn the text into a number first: `parse_int(text)` or `parse_float(text)`".into())
                }
                (_, ["()", ..] | [_, "()"]) => {
                    Some("one of the values is `()`: give it another with `??`, as in `x ?? 0`".into())
                }
                ("!", [_]) => Some("compare it: `x == ()`, `x == 0`, `x == \"\"`, or `x.is_empty()`".into()),
                ("+", ["array", _]) => Some("put the value in a list: `xs + [x]`, or `xs.push(x)`".into()),
                _ => None,
            };
            let message = match types.as_slice() {
                [one] => format!("`{name}` has no meaning for {one}"),
                _ => format!("`{name}` has no meaning between {}", types.join(" and ")),
            };
            return (Some(message), hint);
        }
        let method = matches!(self.before(at), "." | "?.") && self.word(at) == Some(name);
        let message = match types.split_first() {
            Some((receiver, arguments)) if method => {
                format!("{receiver} has no method `{name}({})`", arguments.join(", "))
            }
            _ => format!("there is no function `{name}({shown})`"),
        };
        if method && types.first() == Some(&"()") {
            return (Some(message), Some(self.nothing_before(at)));
        }
        (Some(message), self.meant_function(name, &types, method))
    }

    fn meant_function(&self, name: &str, types: &[&str], method: bool) -> Option<String> {
        match name {
            "setTimeout" | "setInterval" => {
                return Some("every call waits for its answer: leave out what waits".into());
            }
            "fetch" | "open" => {
                return Some("a script reaches the world through tools only: `search_tools(\"…\")` finds them".into());
            }
            "require" | "__import__" => return Some(IMPORT.into()),
            "isinstance" => return Some("compare the name of the type: `type_of(x) == \"map\"`".into()),
            _ => {}
        }
        if let Some((parameters, count)) = self.declared_function(name) {
            let given = types.len() - usize::from(method && types.len() > count);
            return (given != count).then(|| format!("it is declared as `fn {name}{parameters}`"));
        }
        if let Some((_, here)) = TRANSLATED.iter().find(|(there, _)| *there == name) {
            return Some(format!("write {here}"));
        }
        if KNOWN.contains(&name) {
            return None; // it is there, for other arguments
        }
        let functions: Vec<&str> = names(self.reading);
        let near = near(name, functions.into_iter().chain(KNOWN))?;
        Some(format!("did you mean `{near}`?"))
    }

    fn declared_function(&self, name: &str) -> Option<(String, usize)> {
        let index = (0..self.reading.tokens.len())
            .find(|index| matches!(self.sign(*index), "fn" | "function") && self.word(index + 1) == Some(name))?;
        let close = self.reading.pair(index + 2)?;
        let count = (index + 3..close).filter(|at| self.word(*at).is_some()).count();
        Some((self.parameters(index + 2), count))
    }

    fn unknown_property(&self, text: &str, at: usize) -> (Option<String>, Option<String>) {
        let mut parts = text.split('\'');
        let (Some(name), Some(of)) = (parts.nth(1), parts.nth(1)) else { return (None, None) };
        let of = type_name(of);
        if of == "()" {
            return (Some(format!("there is no `{name}` in `()`")), Some(self.nothing_before(at)));
        }
        if of == "server" {
            return (Some(format!("nothing can be assigned to `{name}` of a server")), None);
        }
        let hint = match name {
            "length" | "size" => Some("write `.len()`".into()),
            _ => TRANSLATED.iter().find(|(there, _)| *there == name).map(|(_, here)| format!("write {here}")),
        };
        (Some(format!("{of} has no property `{name}`")), hint)
    }

    /// What is `()` before the dot or bracket at this token.
    fn nothing_before(&self, at: usize) -> String {
        let dot = if matches!(self.before(at), "." | "?.") { at - 1 } else { at };
        let mut from = dot.min(self.reading.tokens.len());
        while from > 0 {
            let before = from - 1;
            if matches!(self.sign(before), ")" | "]") {
                match self.reading.pair(before).filter(|open| *open < before) {
                    Some(open) => from = open,
                    None => break,
                }
            } else if self.word(before).is_some_and(|word| !is_operator(word)) {
                from = before;
                if !matches!(self.before(before), "." | "?.") {
                    break;
                }
                from -= 1;
            } else {
                break;
            }
        }
        match self.snippet(from, dot).filter(|_| self.sign(dot) == "." && self.word(dot + 1).is_some()) {
            Some(value) => {
                let property = self.reading.text(dot + 1);
                format!(
                    "the value before the dot, `{value}`, is `()`: print what is there, or write `{value}?.{property}` where it may be missing"
                )
            }
            None => "the value before it is `()`: print what is there".into(),
        }
    }

    fn race(&self) -> (Option<String>, Option<String>) {
        let message = "a variable is used by a closure while one of its own methods runs that closure";
        let example = match self.reading.races.as_slice() {
            [root] => {
                let end =
                    (*root..self.reading.tokens.len()).find(|at| self.sign(*at) == "(" && self.before(*at - 1) == ".");
                end.and_then(|end| Some((self.word(*root)?, self.snippet(root + 1, end)?)))
            }
            _ => None,
        };
        let (name, rest) = example.unwrap_or(("x", ".items.map"));
        (Some(message.into()), Some(format!("take a copy first: `copy({name}){rest}(…)`")))
    }

    fn constant(name: &str) -> (Option<String>, Option<String>) {
        let message = format!("`{name}` can't be assigned to");
        if effects::in_branch() {
            return (Some(message), Some(BRANCH.into()));
        }
        let hint = servers()
            .iter()
            .any(|server| server == name)
            .then(|| format!("`{name}` is a server: declare a variable, `let x = …`"));
        (Some(message), hint)
    }
}

#[cfg(test)]
mod tests;
