//! Reads a script before Rhai does: tokens with Rhai's own positions, and what to put in the place of which token, so that what
//! authors write from habit (`===`, `null`, `{a: 1}`, `'text'`, …) works, and positions stay those of the source.

use std::borrow::Cow;

use rhai::{ImmutableString, Position as RhaiPosition, Token as RhaiToken};

use crate::Position;
use crate::current::{in_place, mangle, snapshot_name};

/// No bracket on the other side.
const UNPAIRED: u32 = u32::MAX;
/// Brackets in brackets that are still looked at; Rhai reads no script that nests half as deep.
const DEPTH: usize = 250;
/// Closures with more tokens for their parameters are left alone.
const PARAMETERS: usize = 64;
/// Rhai counts lines and columns up to here, and then stands still.
const LAST_PLACE: u32 = u16::MAX as u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Number,
    /// `"…"`
    Text,
    /// `'…'`
    Apostrophe,
    /// `#"…"#`
    Raw,
    /// A piece of a text in back-ticks, up to its end or to the next `${`.
    Template,
    /// Also what is no part of the language.
    Symbol,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Texts and comments: whether the end was found. Pieces of templates: whether it is the last one.
    pub(crate) closed: bool,
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// As Rhai counts: from 1, in characters.
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Index of the bracket on the other side.
    pub(crate) pair: u32,
}

impl Token {
    pub(crate) fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }
}

/// What the lexer is to deliver instead of a token.
#[derive(Debug, Clone)]
pub(crate) enum Instead {
    Token(RhaiToken),
    /// A piece of a template: its escapes are those of JavaScript.
    Unescaped,
}

/// Replacements in the order of the source.
#[derive(Debug, Default)]
pub(crate) struct Replacements {
    places: Vec<(u32, Instead)>,
    next: usize,
}

impl Replacements {
    /// What to deliver instead of this token. Tokens are asked for in the order of the source.
    pub(crate) fn take(&mut self, token: &RhaiToken, position: RhaiPosition) -> Option<RhaiToken> {
        let (place, _) = self.places.get(self.next)?;
        let key = key(position.line()?, position.position()?)?;
        if key < *place {
            return None;
        }
        while self.places.get(self.next).is_some_and(|(place, _)| *place < key) {
            self.next += 1;
        }
        let (_, instead) = self.places.get_mut(self.next).filter(|(place, _)| *place == key)?;
        self.next += 1;
        match (instead, token) {
            (Instead::Token(token), _) => Some(std::mem::replace(token, RhaiToken::EOF)),
            (Instead::Unescaped, RhaiToken::StringConstant(text)) => {
                Some(RhaiToken::StringConstant(Box::new(unescape(text).into())))
            }
            (Instead::Unescaped, RhaiToken::InterpolatedString(text)) => {
                Some(RhaiToken::InterpolatedString(Box::new(unescape(text).into())))
            }
            (Instead::Unescaped, _) => None,
        }
    }
}

fn key(line: usize, column: usize) -> Option<u32> {
    Some(u32::from(u16::try_from(line).ok()?) << 16 | u32::from(u16::try_from(column).ok()?))
}

/// What is wrong with a source that Rhai would read all the same.
#[derive(Debug, Clone)]
pub(crate) struct Mistake {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) position: Position,
}

/// A source that was read.
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a str,
    pub(crate) tokens: Vec<Token>,
    pub(crate) mistake: Option<Mistake>,
    /// Names of the variables of `catch`.
    pub(crate) caught: Vec<ImmutableString>,
    /// Variables at the root of a chain that a closure among its arguments changes.
    pub(crate) races: Vec<usize>,
    replacements: Vec<(u32, Instead)>,
    edits: Vec<Edit>,
}

/// What is blanked in the source, character for character.
#[derive(Debug, Clone, Copy)]
struct Edit {
    start: usize,
    end: usize,
    /// A text stays one, for Rhai's own lexer.
    quoted: bool,
}

pub(crate) fn read<'a>(source: &'a str, servers: &[ImmutableString]) -> Reading<'a> {
    let (tokens, mistake) = Lexer::new(source).lex();
    let mut reading = Reading {
        source,
        tokens,
        mistake,
        caught: Vec::new(),
        races: Vec::new(),
        replacements: Vec::new(),
        edits: Vec::new(),
    };
    Walk::new(&mut reading, servers).walk();
    reading
}

impl<'a> Reading<'a> {
    pub(crate) fn text(&self, index: usize) -> &'a str {
        self.tokens.get(index).map_or("", |token| &self.source[token.start as usize..token.end as usize])
    }

    /// The symbol or word at that place, and nothing for a text or a number.
    pub(crate) fn sign(&self, index: usize) -> &'a str {
        match self.tokens.get(index) {
            Some(Token { kind: Kind::Word | Kind::Symbol, .. }) => self.text(index),
            _ => "",
        }
    }

    pub(crate) fn is(&self, index: usize, kind: Kind) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == kind)
    }

    pub(crate) fn word(&self, index: usize) -> Option<&'a str> {
        self.is(index, Kind::Word).then(|| self.text(index))
    }

    pub(crate) fn pair(&self, index: usize) -> Option<usize> {
        self.tokens.get(index).filter(|token| token.pair != UNPAIRED).map(|token| token.pair as usize)
    }

    /// The replacements, which can be taken once, and the source for Rhai, with every character in its place.
    pub(crate) fn replacements(&mut self) -> (Replacements, Cow<'a, str>) {
        let mut places = std::mem::take(&mut self.replacements);
        places.sort_by_key(|(place, _)| *place);
        (Replacements { places, next: 0 }, self.edited())
    }

    fn edited(&mut self) -> Cow<'a, str> {
        if self.edits.is_empty() {
            return Cow::Borrowed(self.source);
        }
        self.edits.sort_by_key(|edit| edit.start);
        let mut out = String::with_capacity(self.source.len());
        let mut copied = 0;
        for Edit { start, end, quoted } in &self.edits {
            out.push_str(&self.source[copied..*start]);
            let characters = self.source[*start..*end].chars().count();
            if *quoted {
                out.push('"');
                out.extend(std::iter::repeat_n(' ', characters.saturating_sub(2)));
                out.push('"');
            } else {
                out.extend(std::iter::repeat_n(' ', characters));
            }
            copied = *end;
        }
        out.push_str(&self.source[copied..]);
        Cow::Owned(out)
    }
}

struct Lexer<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    column: u32,
    tokens: Vec<Token>,
    /// Brackets that are open, and whether they are the braces of a `${`.
    open: Vec<(u32, bool)>,
    mistake: Option<Mistake>,
}

impl<'a> Lexer<'a> {
    fn new(source: &'a str) -> Self {
        let tokens = Vec::with_capacity(source.len() / 4 + 4);
        Self { source, bytes: source.as_bytes(), at: 0, line: 1, column: 1, tokens, open: Vec::new(), mistake: None }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Goes on by one character, which is not the end of a line.
    fn step(&mut self) {
        let length = match self.peek(0) {
            0..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0.. => 4,
        };
        self.at = (self.at + length).min(self.bytes.len());
        self.column += 1;
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    fn new_line(&mut self) {
        self.line += 1;
        self.column = 1;
    }

    /// Goes on by one character, whatever it is.
    fn cross(&mut self) {
        if self.peek(0) == b'\n' {
            self.at += 1;
            self.new_line();
        } else {
            self.step();
        }
    }

    fn begin(&self, kind: Kind) -> Token {
        let start = u32::try_from(self.at).unwrap_or(u32::MAX);
        Token { kind, closed: true, start, end: start, line: self.line, column: self.column, pair: UNPAIRED }
    }

    fn push(&mut self, mut token: Token) {
        token.end = u32::try_from(self.at).unwrap_or(u32::MAX);
        self.tokens.push(token);
    }

    fn lex(mut self) -> (Vec<Token>, Option<Mistake>) {
        // Offsets are 32 bits wide; no source is that long.
        if u32::try_from(self.bytes.len()).is_err() {
            return (Vec::new(), None);
        }
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\n' | b' ' | b'\t' | b'\r' | 0x0c => self.cross(),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
                b'0'..=b'9' => self.number(),
                b'/' if self.peek(1) == b'/' => self.line_comment(),
                b'/' if self.peek(1) == b'*' => self.block_comment(),
                quote @ (b'"' | b'\'') => {
                    if !self.quoted(quote) {
                        break; // nor does Rhai read on
                    }
                }
                b'`' => self.template(true),
                b'#' if matches!(self.peek(1), b'"' | b'#') => self.raw(),
                _ => self.symbol(),
            }
        }
        (self.tokens, self.mistake)
    }

    fn word(&mut self) {
        let token = self.begin(Kind::Word);
        while matches!(self.peek(0), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') {
            self.step();
        }
        self.push(token);
    }

    fn number(&mut self) {
        let token = self.begin(Kind::Number);
        if self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X' | b'o' | b'O' | b'b' | b'B') {
            let valid: fn(u8) -> bool = match self.peek(1) | 0x20 {
                b'x' => |byte| byte.is_ascii_hexdigit(),
                b'o' => |byte| matches!(byte, b'0'..=b'7'),
                _ => |byte| matches!(byte, b'0' | b'1'),
            };
            self.steps(2);
            while valid(self.peek(0)) || self.peek(0) == b'_' {
                self.step();
            }
            return self.push(token);
        }
        let (mut point, mut exponent) = (false, false);
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'0'..=b'9' | b'_', _) => self.step(),
                (b'.', next) if !point => match next {
                    b'0'..=b'9' => {
                        point = true;
                        self.step();
                    }
                    b'_' | b'.' | b'a'..=b'z' | b'A'..=b'Z' => break,
                    _ if self.at + 1 < self.bytes.len() => {
                        point = true;
                        self.step();
                    }
                    _ => break,
                },
                (b'e' | b'E', b'0'..=b'9') if !exponent => {
                    (point, exponent) = (true, true);
                    self.step();
                }
                (b'e' | b'E', b'+' | b'-') if !exponent => {
                    (point, exponent) = (true, true);
                    self.steps(2);
                }
                _ => break,
            }
        }
        self.push(token);
    }

    fn line_comment(&mut self) {
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\n' => return self.cross(),
                // Here, and only here, Rhai takes a lone carriage return for the end of a line.
                b'\r' => {
                    self.at += if self.peek(1) == b'\n' { 2 } else { 1 };
                    return self.new_line();
                }
                _ => self.step(),
            }
        }
    }

    fn block_comment(&mut self) {
        let token = self.begin(Kind::Symbol);
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.steps(2);
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.steps(2);
                }
                _ => self.cross(),
            }
            if depth == 0 {
                return;
            }
        }
        self.mistake.get_or_insert(Mistake {
            message: "the comment that starts here has no end".into(),
            hint: Some("end the comment with `*/`; comments nest, so every `/*` needs its own".into()),
            position: token.position(),
        });
    }

    /// Whether the text has an end.
    fn quoted(&mut self, quote: u8) -> bool {
        let mut token = self.begin(if quote == b'"' { Kind::Text } else { Kind::Apostrophe });
        self.step();
        // `''` is nothing for Rhai; for authors it is an empty text.
        let mut closed = quote == b'\'' && self.peek(0) == quote;
        if closed {
            self.step();
        }
        while !closed && self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' if self.peek(1) == b'\n' && quote == b'"' => {
                    self.step();
                    self.cross();
                }
                b'\\' if self.peek(1) != b'\n' => self.steps(2),
                b'\n' => break,
                byte if byte == quote && self.peek(1) == quote => self.steps(2),
                byte if byte == quote => {
                    self.step();
                    closed = true;
                }
                _ => self.step(),
            }
        }
        token.closed = closed;
        self.push(token);
        closed
    }

    fn raw(&mut self) {
        let mut token = self.begin(Kind::Raw);
        let mut hashes = 0;
        while self.peek(0) == b'#' {
            hashes += 1;
            self.step();
        }
        if self.peek(0) != b'"' {
            token.kind = Kind::Symbol;
            return self.push(token);
        }
        self.step();
        token.closed = false;
        while self.at < self.bytes.len() {
            if self.peek(0) != b'"' {
                self.cross();
                continue;
            }
            self.step();
            let mut seen = 0;
            while seen < hashes && self.peek(0) == b'#' {
                seen += 1;
                self.step();
            }
            if seen == hashes {
                token.closed = true;
                break;
            }
        }
        self.push(token);
    }

    /// A piece of a template, up to its end or to the brace of the next `${`.
    fn template(&mut self, first: bool) {
        let mut token = self.begin(Kind::Template);
        if first {
            self.step();
            match self.peek(0) {
                b'\n' => self.cross(),
                b'\r' => {
                    self.at += if self.peek(1) == b'\n' { 2 } else { 1 };
                    self.new_line();
                }
                _ => {}
            }
        } else if self.peek(0) == b'`' && self.peek(1) == b'`' {
            token.column += 1; // where Rhai sees the first character, which is the second of two back-ticks
        }
        token.closed = false;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1), self.peek(2)) {
                (b'`', b'`', _) => self.steps(2),
                (b'`', ..) => {
                    self.step();
                    token.closed = true;
                    return self.push(token);
                }
                (b'$', b'{', _) => {
                    self.step();
                    self.push(token);
                    let brace = self.begin(Kind::Symbol);
                    self.open.push((u32::try_from(self.tokens.len()).unwrap_or(UNPAIRED), true));
                    self.step();
                    return self.push(brace);
                }
                // Rhai counts the two characters `\$` as one.
                (b'\\', b'$', b'{') => {
                    self.at += 3;
                    self.column += 2;
                }
                // The dollar is not counted here either, where Rhai looks past it and gives it back.
                _ => self.cross(),
            }
        }
        self.push(token);
    }

    fn symbol(&mut self) {
        const LONG: [&str; 40] = [
            "===", "!==", "...", "..=", "**=", "<<=", ">>=", "::<", "#{", "==", "!=", "=>", "<=", ">=", "&&", "||",
            "??", "?.", "?[", "..", "::", ":=", ":;", "->", "<-", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=",
            "^=", "**", "<<", ">>", "<|", "|>",
        ];
        let mut token = self.begin(Kind::Symbol);
        let index = u32::try_from(self.tokens.len()).unwrap_or(UNPAIRED);
        let rest = &self.bytes[self.at..];
        let length = match self.peek(0) {
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b';' | b'~' | b'@' | b'$' => 1,
            b'!' if rest.starts_with(b"!in")
                && !matches!(self.peek(3), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') =>
            {
                3
            }
            _ if !b"=.<{>&|?:;-+*[".contains(&self.peek(1)) => 1,
            _ => LONG.iter().find(|long| rest.starts_with(long.as_bytes())).map_or(1, |long| long.len()),
        };
        self.steps(length);
        let mut interpolation = false;
        match &self.source[token.start as usize..self.at] {
            "(" | "[" | "{" | "#{" | "?[" => self.open.push((index, false)),
            close @ (")" | "]" | "}") => {
                if let Some((open, of_template)) = self.open.last().copied().filter(|(open, _)| {
                    let open = self.tokens.get(*open as usize);
                    let opening = open.map_or("", |open| &self.source[open.start as usize..open.end as usize]);
                    matches!((opening, close), ("(", ")") | ("[" | "?[", "]") | ("{" | "#{", "}"))
                }) {
                    self.open.pop();
                    token.pair = open;
                    if let Some(open) = self.tokens.get_mut(open as usize) {
                        open.pair = index;
                    }
                    interpolation = of_template;
                }
            }
            _ => {}
        }
        self.push(token);
        if interpolation {
            self.template(false);
        }
    }
}

/// What a bracket, or a closure, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Arguments, or an expression in parentheses.
    Paren,
    /// Parameters of a function.
    Parameters,
    Array,
    Index,
    Block,
    Switch,
    Map,
    /// The body of a closure, whose parameters are the tokens of this range.
    Closure(usize, usize),
}

struct Open {
    frame: Frame,
    /// The root of the chain that the bracket stands in.
    chain: Option<usize>,
    /// Arguments of a method: the root of the chain, which Rhai locks during the call.
    root: Option<usize>,
    /// How many such roots of the same name there are, this one included.
    level: usize,
    /// Uses of the root's name in closures among the arguments.
    uses: Vec<usize>,
    /// A closure changes the root, which a copy would lose.
    changed: bool,
    /// `switch` was read, but not its brace.
    switch: bool,
}

/// Words with another meaning than Rhai's, unless the script declares them.
const ADOPTED: [&str; 10] = ["null", "None", "undefined", "nil", "True", "False", "and", "or", "not", "is"];

struct Walk<'r, 'a> {
    reading: &'r mut Reading<'a>,
    servers: &'r [ImmutableString],
    open: Vec<Open>,
    roots: usize,
    /// The last token ends an expression.
    ended: bool,
    /// The variable at the root of the chain that the last token is part of.
    chain: Option<usize>,
    /// The last token is a minus sign before an operand.
    negative: bool,
    declared: u16,
    /// Only constants are visible as `global::name`.
    keep_constants: bool,
}

impl<'r, 'a> Walk<'r, 'a> {
    fn new(reading: &'r mut Reading<'a>, servers: &'r [ImmutableString]) -> Self {
        let keep_constants = reading.source.contains("global");
        let mut walk = Self {
            reading,
            servers,
            open: Vec::with_capacity(16),
            roots: 0,
            ended: false,
            chain: None,
            negative: false,
            declared: 0,
            keep_constants,
        };
        walk.enter(Frame::Block, None);
        walk
    }

    fn walk(mut self) {
        let mut index = 0;
        while index < self.reading.tokens.len() && self.open.len() <= DEPTH {
            let negative = std::mem::take(&mut self.negative);
            let next = index + 1;
            index = match self.reading.tokens[index].kind {
                Kind::Word => self.word(index),
                Kind::Symbol => self.symbol(index),
                kind => {
                    match kind {
                        Kind::Number if !negative => self.number(index, false),
                        Kind::Number => self.number(index, true),
                        Kind::Apostrophe => self.apostrophe(index),
                        Kind::Template if self.reading.text(index).contains('\\') => {
                            self.put(index, Instead::Unescaped);
                        }
                        _ => {}
                    }
                    (self.ended, self.chain) = (true, None);
                    next
                }
            };
        }
    }

    fn enter(&mut self, frame: Frame, root: Option<usize>) {
        let mut level = 0;
        if let Some(root) = root {
            let name = self.reading.text(root);
            level =
                1 + self.open.iter().filter(|open| open.root.is_some_and(|at| self.reading.text(at) == name)).count();
            self.roots += 1;
        }
        let chain = self.chain.take();
        self.open.push(Open { frame, chain, root, level, uses: Vec::new(), changed: false, switch: false });
        self.ended = false;
    }

    fn leave_closures(&mut self) {
        while self.open.len() > 1 && self.open.last().is_some_and(|open| matches!(open.frame, Frame::Closure(..))) {
            self.open.pop();
        }
    }

    fn frame(&self) -> Frame {
        self.open.last().map_or(Frame::Block, |open| open.frame)
    }

    fn put(&mut self, index: usize, instead: Instead) {
        let Token { line, column, .. } = self.reading.tokens[index];
        // Beyond, places are no longer told apart.
        if line < LAST_PLACE && column < LAST_PLACE {
            self.reading.replacements.push((line << 16 | column, instead));
        }
    }

    fn token(&mut self, index: usize, token: RhaiToken) {
        self.put(index, Instead::Token(token));
    }

    fn identifier(&mut self, index: usize, name: &str) {
        self.token(index, RhaiToken::Identifier(Box::new(name.into())));
        // Rhai's lexer takes a sign after these for that of an operand.
        let word = self.reading.text(index);
        if matches!(word, "if" | "while" | "until" | "in" | "return" | "throw") || !rhai::is_valid_identifier(word) {
            match self.reading.sign(index + 1) {
                "+" => self.token(index + 1, RhaiToken::Plus),
                "-" if !self.reading.is(index + 2, Kind::Number) => self.token(index + 1, RhaiToken::Minus),
                _ => {}
            }
        }
    }

    fn blank(&mut self, index: usize) {
        let Token { start, end, .. } = self.reading.tokens[index];
        self.reading.edits.push(Edit { start: start as usize, end: end as usize, quoted: false });
    }

    fn number(&mut self, index: usize, negative: bool) {
        let text = self.reading.text(index);
        if text.len() < 19 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
            return;
        }
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let adjacent = negative && self.reading.tokens[index - 1].end == self.reading.tokens[index].start;
        let sign = if negative { "-" } else { "" };
        if digits.parse::<i64>().is_ok() || adjacent && format!("-{digits}").parse::<i64>().is_ok() {
            return;
        }
        let position = self.reading.tokens[index].position();
        let limit = if negative { "at least -9223372036854775808" } else { "at most 9223372036854775807" };
        self.reading.mistake.get_or_insert(Mistake {
            message: format!("{sign}{text} is too large for an integer ({limit})"),
            hint: Some(format!("write it as a string, `\"{sign}{digits}\"`")),
            position,
        });
    }

    fn apostrophe(&mut self, index: usize) {
        let token = self.reading.tokens[index];
        let text = self.reading.text(index);
        let Some(content) = text.get(1..text.len() - 1).filter(|_| token.closed) else { return };
        let content = unescape_quoted(content);
        let is_character = content.chars().count() == 1 && text != "''";
        let is_key = self.is_key(index) || self.frame() == Frame::Index && self.reading.sign(index + 1) == "]";
        if is_character && !is_key {
            return;
        }
        if !is_character {
            self.reading.edits.push(Edit { start: token.start as usize, end: token.end as usize, quoted: true });
        }
        self.token(index, RhaiToken::StringConstant(Box::new(content.into())));
    }

    /// Whether the token is the key of an entry in a map.
    fn is_key(&self, index: usize) -> bool {
        self.frame() == Frame::Map
            && self.reading.sign(index + 1) == ":"
            && matches!(self.previous(index), "#{" | "{" | ",")
    }

    fn previous(&self, index: usize) -> &'a str {
        index.checked_sub(1).map_or("", |index| self.reading.sign(index))
    }

    fn is_server(&self, name: &str) -> bool {
        self.servers.iter().any(|server| server == name)
    }

    fn is_declared(&self, name: &str) -> bool {
        ADOPTED.iter().position(|word| *word == name).is_some_and(|at| self.declared & 1 << at != 0)
    }

    /// A variable or parameter of this name exists from here on.
    fn declare(&mut self, index: usize) {
        let Some(name) = self.reading.word(index) else { return };
        if let Some(at) = ADOPTED.iter().position(|word| *word == name) {
            self.declared |= 1 << at;
        }
        if name.starts_with('_') && !is_identifier(name) {
            self.identifier(index, name);
        }
    }

    /// As [`Walk::declare`], of a variable in the middle of a block.
    fn declare_anew(&mut self, index: usize) {
        self.declare(index);
        if self.reading.is(index, Kind::Word) {
            self.change(index);
        }
    }

    /// Whether an operand may start with this token.
    fn starts_operand(&self, index: usize) -> bool {
        let Some(token) = self.reading.tokens.get(index) else { return false };
        match token.kind {
            Kind::Symbol => matches!(self.reading.text(index), "(" | "[" | "{" | "#{" | "!" | "-" | "+"),
            Kind::Word => !matches!(self.reading.text(index), "and" | "or" | "in" | "is"),
            _ => true,
        }
    }

    /// Reads a word and says where to go on.
    fn word(&mut self, index: usize) -> usize {
        let text = self.reading.text(index);
        let previous = self.previous(index);
        if matches!(previous, "." | "?.") {
            self.property(index, text);
            return index + 1;
        }
        if previous == "::" {
            if index > 1 && self.chain == Some(index - 2) {
                self.property(index, text);
            }
            (self.ended, self.chain) = (true, None);
            return index + 1;
        }
        if self.is_key(index) {
            if !is_identifier(text) {
                self.identifier(index, text);
            }
            (self.ended, self.chain) = (false, None);
            return index + 1;
        }
        let ended = std::mem::replace(&mut self.ended, false);
        self.chain = None;
        match text {
            "let" | "const" | "var" => {
                if text != "let" && !(text == "const" && self.keep_constants) {
                    self.token(index, RhaiToken::Let);
                }
                self.declare_anew(index + 1);
                // What is declared is no use of a variable.
                return index + 1 + usize::from(self.reading.is(index + 1, Kind::Word));
            }
            "fn" | "function" if self.reading.is(index + 1, Kind::Word) && self.reading.sign(index + 2) == "(" => {
                if text == "function" {
                    self.token(index, RhaiToken::Fn);
                }
                self.declare(index + 1);
                self.enter(Frame::Parameters, None);
                return index + 3;
            }
            "for" => return self.for_loop(index),
            "catch" if self.reading.sign(index + 1) == "(" => {
                self.declare_anew(index + 2);
                if let Some(name) = self.reading.word(index + 2) {
                    if !self.reading.caught.iter().any(|known| known == name) {
                        self.reading.caught.push(name.into());
                    }
                    self.ended = true;
                    return if self.reading.sign(index + 3) == ")" { index + 4 } else { index + 1 };
                }
            }
            "switch" => {
                if let Some(open) = self.open.last_mut() {
                    open.switch = true;
                }
            }
            "async" if matches!(self.reading.sign(index + 1), "function" | "fn" | "|" | "||") => self.blank(index),
            "new" if is_error_class(self.reading.sign(index + 1)) && self.reading.sign(index + 2) == "(" => {
                self.blank(index);
                if self.reading.text(index + 1) != "Error" {
                    self.identifier(index + 1, "Error");
                }
                return index + 2;
            }
            "and" | "or" if ended && !self.is_declared(text) && self.starts_operand(index + 1) => {
                self.token(index, if text == "and" { RhaiToken::And } else { RhaiToken::Or });
            }
            "is" if ended && !self.is_declared(text) => {
                if self.reading.sign(index + 1) == "not" && self.starts_operand(index + 2) {
                    self.token(index, RhaiToken::NotEqualsTo);
                    self.blank(index + 1);
                    return index + 2;
                }
                self.token(index, RhaiToken::EqualsTo);
            }
            "not" if !self.is_declared(text) && (ended || self.starts_operand(index + 1)) => {
                return self.negation(index, ended);
            }
            "in" | "return" | "throw" | "if" | "else" | "while" | "until" | "loop" | "do" | "try" | "await" | "as"
            | "case" | "export" | "import" | "private" | "break" | "continue" => {}
            _ => self.operand(index, text),
        }
        index + 1
    }

    /// The word after a dot.
    fn property(&mut self, index: usize, text: &'a str) {
        let call = self.reading.sign(index + 1) == "(";
        let of_server = self.chain.is_some_and(|root| root + 2 == index && self.is_server(self.reading.text(root)));
        self.ended = true;
        if of_server {
            if self.previous(index) == "::" {
                self.token(index - 1, RhaiToken::Period);
            }
            // A property of a variable that shadows the server keeps its name.
            if call {
                let Token { line, column, .. } = self.reading.tokens[index];
                return self.identifier(index, &mangle(text, line as usize, column as usize));
            }
        }
        if call && self.is_statement(index) && matches!(text, "trim" | "replace") {
            return self.identifier(index, &in_place(text));
        }
        let method = call && matches!(text, "call" | "curry" | "is_shared" | "type_of");
        if !method && !is_identifier(text) {
            self.identifier(index, text);
        }
        if call
            && MUTATORS.contains(&text)
            && let Some(root) = self.chain
        {
            self.change(root);
        }
    }

    /// Whether the call of this method is a statement, so that nobody takes its value: then it is meant to change the variable.
    fn is_statement(&self, index: usize) -> bool {
        let begins = |root| matches!(self.previous(root), "" | ";" | "{" | "}");
        let ends = || self.reading.pair(index + 1).is_some_and(|close| self.reading.sign(close + 1) == ";");
        self.chain.is_some_and(begins) && ends()
    }

    fn for_loop(&mut self, index: usize) -> usize {
        let mut at = index + 1 + usize::from(self.reading.sign(index + 1) == "(");
        while at < index + 6 && self.reading.is(at, Kind::Word) && self.reading.text(at) != "in" {
            self.declare_anew(at);
            at += 1 + usize::from(self.reading.sign(at + 1) == ",");
        }
        if self.reading.sign(at) == ")" && self.reading.sign(index + 1) == "(" {
            at += 1;
        }
        if self.reading.sign(at) == "in" { at } else { index + 1 }
    }

    /// `not`, which Python binds more loosely than comparisons.
    fn negation(&mut self, index: usize, ended: bool) -> usize {
        if ended {
            // `a not in b`
            if self.reading.sign(index + 1) == "in" {
                self.token(index, RhaiToken::NotIn);
                self.blank(index + 1);
                return index + 2;
            }
            return index + 1;
        }
        let mut at = index + 1;
        while at < self.reading.tokens.len() {
            let opposite = match self.reading.sign(at) {
                "==" | "===" => RhaiToken::NotEqualsTo,
                "!=" | "!==" => RhaiToken::EqualsTo,
                "<" => RhaiToken::GreaterThanEqualsTo,
                "<=" => RhaiToken::GreaterThan,
                ">" => RhaiToken::LessThanEqualsTo,
                ">=" => RhaiToken::LessThan,
                "in" => RhaiToken::NotIn,
                "!in" => RhaiToken::In,
                "(" | "[" | "#{" | "?[" => match self.reading.pair(at) {
                    Some(close) if close > at => {
                        at = close + 1;
                        continue;
                    }
                    _ => break,
                },
                "and" | "or" | "&&" | "||" | "," | ";" | "{" | "}" | ")" | "]" | "?" | "=" | ":" | "=>" | "not"
                | "is" | "|" | "??" | "let" | "if" | "for" | "return" => break,
                _ => {
                    at += 1;
                    continue;
                }
            };
            self.blank(index);
            self.token(at, opposite);
            return index + 1;
        }
        self.token(index, RhaiToken::Bang);
        index + 1
    }

    fn operand(&mut self, index: usize, text: &'a str) {
        self.ended = true;
        if self.frame() == Frame::Parameters {
            return self.declare(index);
        }
        let next = self.reading.sign(index + 1);
        if !self.is_declared(text) && !matches!(next, "(" | "::" | "=") {
            match text {
                "null" | "None" | "undefined" | "nil" => return self.token(index, RhaiToken::Unit),
                "True" => return self.token(index, RhaiToken::True),
                "False" => return self.token(index, RhaiToken::False),
                _ => {}
            }
        }
        // Of the words that Rhai reserves and does not use, each may be a server's name.
        let is_odd = text.starts_with('_') && text != "_" || self.is_server(text);
        if is_odd && !is_identifier(text) {
            self.identifier(index, text);
        }
        if next != "(" {
            self.chain = Some(index);
            self.used(index);
        }
    }

    /// A variable is used: maybe in a closure among the arguments of a method, with that variable at the root of its chain.
    fn used(&mut self, index: usize) {
        let chain = self.chains(index).next();
        if let Some(at) = chain {
            self.open[at].uses.push(index);
        }
    }

    /// A variable is changed, or declared anew.
    fn change(&mut self, index: usize) {
        let chains: Vec<usize> = self.chains(index).collect();
        for at in chains {
            self.open[at].changed = true;
        }
    }

    /// The arguments that the variable is in a closure of and whose chain has it at its root, innermost first, by their places in `open`.
    fn chains(&self, index: usize) -> impl Iterator<Item = usize> {
        let name = self.reading.text(index);
        let mut in_closure = false;
        let open = if self.roots == 0 { &[] } else { self.open.as_slice() };
        let reached = open.iter().enumerate().rev().map_while(move |(at, open)| match (open.frame, open.root) {
            (Frame::Closure(from, to), _) => {
                in_closure = true;
                let is_parameter = to - from > PARAMETERS || (from..to).any(|at| self.reading.text(at) == name);
                (!is_parameter).then_some(None)
            }
            (_, Some(root)) if in_closure && self.reading.text(root) == name => Some(Some(at)),
            _ => Some(None),
        });
        reached.flatten()
    }

    /// Reads a symbol and says where to go on.
    fn symbol(&mut self, index: usize) -> usize {
        let text = self.reading.text(index);
        let ended = self.ended;
        match text {
            "." | "?." => {
                self.ended = false;
                return index + 1;
            }
            "::" => {
                self.ended = false;
                if self.chain.is_some_and(|root| root + 1 == index && self.is_server(self.reading.text(root)))
                    && !self.reading.is(index + 1, Kind::Word)
                {
                    self.token(index, RhaiToken::Period);
                }
                return index + 1;
            }
            "(" => self.parenthesis(index, ended),
            "[" | "?[" => {
                if ended {
                    self.enter(Frame::Index, None);
                } else {
                    self.chain = None;
                    self.enter(Frame::Array, None);
                }
            }
            "#{" => {
                self.chain = None;
                self.enter(Frame::Map, None);
            }
            "{" => self.brace(index, ended),
            ")" | "]" | "}" => self.close(),
            "|" | "||" if !ended => return self.closure(index, text),
            _ => {
                if let Some(root) = self.chain
                    && ASSIGNMENTS.contains(&text)
                {
                    self.change(root);
                }
                if matches!(text, "," | ";") {
                    self.leave_closures();
                }
                match text {
                    "===" => self.token(index, RhaiToken::EqualsTo),
                    "!==" => self.token(index, RhaiToken::NotEqualsTo),
                    "-" => self.negative = !ended,
                    _ => {}
                }
                (self.ended, self.chain) = (false, None);
            }
        }
        index + 1
    }

    fn parenthesis(&mut self, index: usize, ended: bool) {
        let method =
            index > 1 && self.reading.is(index - 1, Kind::Word) && matches!(self.previous(index - 1), "." | "?.");
        let root = self.chain.filter(|root| {
            // Closures that are kept, not called, see the variable itself.
            method
                && !matches!(self.reading.text(index - 1), "push" | "insert" | "append" | "call" | "curry" | "set")
                && !self.is_server(self.reading.text(*root))
                && self.reading.text(*root) != "this"
        });
        if !(ended && method) {
            self.chain = None;
        }
        self.enter(Frame::Paren, root);
    }

    fn brace(&mut self, index: usize, ended: bool) {
        let of_template =
            index > 0 && self.reading.is(index - 1, Kind::Template) && !self.reading.tokens[index - 1].closed;
        let switch = self.open.last_mut().is_some_and(|open| std::mem::take(&mut open.switch));
        let frame = if of_template {
            Frame::Block
        } else if switch {
            Frame::Switch
        } else if self.is_map(index, ended) {
            self.token(index, RhaiToken::MapStart);
            Frame::Map
        } else {
            Frame::Block
        };
        self.chain = None;
        self.enter(frame, None);
    }

    fn is_map(&self, index: usize, ended: bool) -> bool {
        let previous = self.previous(index);
        if ended || matches!(previous, "else" | "loop" | "do" | "try") {
            return false;
        }
        if self.reading.sign(index + 1) == "}" {
            return match previous {
                "=" | "(" | "[" | "return" | "??" | "==" | "!=" | "===" | "!==" => true,
                "," | ":" => matches!(self.frame(), Frame::Paren | Frame::Array | Frame::Map),
                _ => false,
            };
        }
        let key = self.reading.tokens.get(index + 1);
        key.is_some_and(|key| key.kind != Kind::Number && key.kind != Kind::Symbol && key.closed)
            && self.reading.sign(index + 2) == ":"
    }

    fn close(&mut self) {
        self.leave_closures();
        if self.open.len() <= 1 {
            (self.ended, self.chain) = (true, None);
            return;
        }
        let Some(open) = self.open.pop() else { return };
        self.ended = !matches!(open.frame, Frame::Block | Frame::Switch);
        self.chain = open.chain;
        if let Some(root) = open.root {
            self.roots -= 1;
            if open.changed {
                self.reading.races.push(root);
            } else {
                let name = snapshot_name(self.reading.text(root), open.level);
                for index in open.uses {
                    self.identifier(index, &name);
                }
            }
        }
    }

    fn closure(&mut self, index: usize, text: &str) -> usize {
        self.chain = None;
        let mut at = index + 1;
        if text == "|" {
            while self.reading.is(at, Kind::Word) || self.reading.sign(at) == "," {
                at += 1;
            }
            if self.reading.sign(at) != "|" {
                self.ended = false;
                return index + 1;
            }
            for parameter in index + 1..at {
                self.declare(parameter);
            }
            at += 1;
        }
        self.enter(Frame::Closure(index + 1, at), None);
        at
    }
}

/// Methods that change the value they are called on; one too many costs no more than the error that Rhai has for it.
#[rustfmt::skip]
const MUTATORS: [&str; 34] = [
    "push", "pop", "insert", "remove", "clear", "append", "shift", "unshift", "truncate", "set", "drain", "retain",
    "splice", "sort", "sort_by", "sort_desc", "order", "order_by", "reverse", "dedup", "pad", "chop", "crop",
    "replace", "trim", "make_upper", "make_lower", "mixin", "fill_with", "extend", "update", "add", "delete",
    "set_tag",
];

const ASSIGNMENTS: [&str; 14] = ["=", "+=", "-=", "*=", "/=", "%=", "**=", "<<=", ">>=", "&=", "|=", "^=", "++", "--"];

fn is_error_class(name: &str) -> bool {
    matches!(name, "Error" | "TypeError" | "RangeError" | "ReferenceError" | "SyntaxError")
}

/// Whether Rhai takes the word for a name.
pub(crate) fn is_identifier(word: &str) -> bool {
    rhai::is_valid_identifier(word) && RhaiToken::lookup_symbol_from_syntax(word).is_none() && !RESERVED.contains(&word)
}

/// Words that Rhai lexes as no name, beside its own keywords.
#[rustfmt::skip]
const RESERVED: [&str; 37] = [
    "Fn", "async", "await", "call", "case", "curry", "debug", "default", "eval", "go", "goto", "is", "is_def_fn",
    "is_def_var", "is_shared", "match", "module", "new", "nil", "null", "package", "print", "protected", "public",
    "shared", "spawn", "static", "super", "sync", "this", "thread", "type_of", "use", "var", "void", "with", "yield",
];

/// A piece of a template with JavaScript's commonest escapes; others stay, as those of regular expressions.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.as_str().chars().next().and_then(plain_escape) {
            Some(escaped) => {
                characters.next();
                out.push(escaped);
            }
            None => out.push('\\'),
        }
    }
    out
}

fn plain_escape(character: char) -> Option<char> {
    Some(match character {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '\\' => '\\',
        '"' => '"',
        _ => return None,
    })
}

/// The content of a text between apostrophes.
fn unescape_quoted(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        if character == '\'' {
            rest = rest.strip_prefix('\'').unwrap_or(rest); // two of them stand for one
        }
        if character != '\\' {
            out.push(character);
            continue;
        }
        let Some(escaped) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let code = rest.get(1..=digits).filter(|_| digits > 0).and_then(|code| u32::from_str_radix(code, 16).ok());
        if let Some(code) = code.and_then(char::from_u32) {
            out.push(code);
            rest = &rest[1 + digits..];
        } else if let Some(plain) = plain_escape(escaped).or_else(|| (escaped == '\'').then_some('\'')) {
            out.push(plain);
            rest = &rest[1..];
        } else {
            out.push('\\');
        }
    }
    out
}

#[cfg(test)]
mod tests;
