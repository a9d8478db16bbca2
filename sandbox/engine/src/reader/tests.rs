//! What the reader makes work, and the reader against Rhai's own lexer.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rhai::{Engine, LexError, Token as RhaiToken};

use super::{Kind, read};
use crate::tests::{Echo, check};

/// Scripts and what they give. What is not said here stays what it is in Rhai.
fn check_all(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        check(source, expected);
    }
}

#[test]
fn declarations_of_other_languages() {
    check_all(&[
        ("const a = 1; a += 1; a", "2"),
        ("var a = 1; a += 1; a", "2"),
        ("const m = {a: 1}; m.b = 2; m", r#"{"a":1,"b":2}"#),
        ("const A = 5; fn f() { global::A } f()", "5"),
        ("function f(a, b) { return a + b; } f(1, 2)", "3"),
        ("async function f(a) { return await github.dup({a: a}); }\nlet r = await f(3); r.arguments", r#"{"a":3}"#),
        ("let f = async |x| await x + 1; f.call(1)", "2"),
        ("[1, 2].map(async |x| x * 2)", "[2,4]"),
        ("for _ in 0..3 { print(\"a\") } let _ = 5; [1, 2].map(|_, i| i).len() + [1].map(|_| 7)[0]", "9"),
        ("switch 3 { 1 => 2, _ => 4 }", "4"),
        ("let function = 3; function + 1", "4"),
    ]);
}

#[test]
fn operators_and_values_of_other_languages() {
    check_all(&[
        ("[1 === 1, 1 !== 1, 1 === 2]", "[true,false,false]"),
        ("[null, None, undefined, nil, (), True, False]", "[null,null,null,null,null,true,false]"),
        ("let None = 5; None", "5"),
        ("let undefined = 5; fn f(True) { True } undefined + f(1)", "6"),
        ("fn f(nulls) { nulls == null } [f(null), f(1)]", "[true,false]"),
        ("#{a: null, null: 1, undefined: 2, None: 3}", r#"{"None":3,"a":null,"null":1,"undefined":2}"#),
        ("let m = #{None: 1}; m.None", "1"),
        ("switch () { null => 1, _ => 2 }", "1"),
        ("true and false or true", "true"),
        ("let x = 5; x > 3 and x < 10", "true"),
        ("(1 == 1) and not (2 == 3)", "true"),
        ("if 1 == 2 or 3 == 3 { \"yes\" } else { \"no\" }", r#""yes""#),
        ("let x = 1; x and_ -1", "syntax at 1:14: expected `;` to end the statement"),
        ("let a = -3; let b = -4; a > -5 and -5 < b", "true"),
        ("let and = 1; let or = 2; and + or", "3"),
        ("let m = #{and: 1, or: 2, not: 3}; m.and + m.or + m.not", "6"),
        ("fn not(x) { x + 1 } not(5)", "6"),
        ("not true", "false"),
        ("let a = 1; let b = 2; not a == b", "true"),
        ("let a = 1; let b = 1; [not a == b, not a != b, not a < b, not b >= 1]", "[false,true,true,false]"),
        ("not [1].contains(1) or 3 in [3]", "true"),
        (
            "let xs = [1, 2]; [3 not in xs, 1 not in xs, not 3 in xs, not 1 in xs, 1 in xs, 3 !in xs]",
            "[true,false,true,false,true,true]",
        ),
        ("let x = (); [x is None, x is not None, 5 is None, 5 is not null]", "[true,false,false,true]"),
        ("if not github.dup().arguments.is_empty() { 1 } else { 2 }", "2"),
    ]);
}

#[test]
fn maps_without_a_hash() {
    check_all(&[
        ("let m = {a: 1, \"b\": 2, 'c': 3, 'long name': 4}; m", r#"{"a":1,"b":2,"c":3,"long name":4}"#),
        ("github.dup({a: {b: [1, {c: 2}]}}).arguments", r#"{"a":{"b":[1,{"c":2}]}}"#),
        ("let m = {}; m.a = 1; m", r#"{"a":1}"#),
        ("[{}, [{}], #{a: {}}]", r#"[{},[{}],{"a":{}}]"#),
        ("fn f() { return {}; } f()", "{}"),
        ("fn f() { return {a: 1}; } f()", r#"{"a":1}"#),
        ("[1].map(|x| {})", "[null]"),
        ("[1].map(|x| {a: x})", r#"[{"a":1}]"#),
        ("[1].map(|x| { x + 1 })", "[2]"),
        ("switch 1 { 1 => {}, _ => 2 }", "null"),
        ("switch 1 { 1 => {a: 1}, _ => {a: 2} }", r#"{"a":1}"#),
        ("if true {} else {}", "null"),
        ("let x = { let y = 2; y + 1 }; x", "3"),
        ("let x = 3; { x }", "3"),
        ("{a: 1}", r#"{"a":1}"#),
        ("let t = ({a: 1}).a; t", "1"),
        ("`${ {a: 5}.a }`", r#""5""#),
        ("#{type: 1, if: 2, new: 3, in: 4, fn: 5, default: 6, true: 7, match: 8, call: 9}.values().len()", "9"),
        ("let m = {type: 1, if: 2}; m", r#"{"if":2,"type":1}"#),
        ("let x = (); x ?? {}", "{}"),
        ("for x in [1] {} 5", "5"),
        ("let m = #{a: 1,}; m", r#"{"a":1}"#),
    ]);
}

#[test]
fn keywords_after_a_dot() {
    check_all(&[
        (
            "let x = #{type: 1, default: 2, match: 3, new: 4, if: 5, fn: 6, true: 7};
          x.type + x.default + x.match + x.new + x.if + x.fn + x.true",
            "28",
        ),
        ("let x = #{}; x.type = 3; x.in = 4; x", r#"{"in":4,"type":3}"#),
        ("let x = #{type: #{case: 5}}; x?.type?.case", "5"),
        ("let f = |x| x + 1; f.call(1)", "2"),
        ("let f = |x, y| x + y; f.curry(1).call(2)", "3"),
        ("let x = 5; x.type_of() + x.is_shared()", r#""i64false""#),
        ("#{call: 5}.call", "5"),
        ("let x = #{type_of: 5}; x.type_of", "5"),
        ("[1, 2].len()", "2"),
        ("let x = #{_1: 5}; x._1", "5"),
    ]);
}

#[test]
fn texts_between_apostrophes() {
    check_all(&[
        ("let a = 'text'; a + 'x' + ''", r#""textx""#),
        (
            "['a', 'ab', '', 'it\\'s', 'say \"hi\"', '\\n\\t\\\\\\u0041\\x42']",
            r#"["a","ab","","it's","say \"hi\"","\n\t\\AB"]"#,
        ),
        ("type_of('a') + type_of('ab') + type_of('')", r#""charstringstring""#),
        ("let m = #{'a': 1, 'bc': 2}; m['a'] + m['bc']", "3"),
        ("'ünï'.len() + ''.len()", "3"),
        ("'\\d+' + 'a\\${b'", r#""\\d+a\\${b""#),
        ("let x = 'ünïcödé'; let y = z;", "runtime at 1:28: there is no variable or server `z`"),
        ("github.dup({label: 'bug', 'x': 'y'}).arguments", r#"{"label":"bug","x":"y"}"#),
        ("switch 'ab' { 'ab' => 1, _ => 2 }", "1"),
        ("'it''s'", r#""it's""#),
        ("`${'ab'}`", r#""ab""#),
    ]);
}

#[test]
fn errors_of_javascript() {
    check_all(&[
        ("throw new Error(\"no\")", "thrown at 1:1: no"),
        ("throw Error(\"no\")", "thrown at 1:1: no"),
        ("try { throw new TypeError(\"no\" + 1) } catch (e) { return e.message }", r#""no1""#),
        ("let m = #{new: 1}; m.new", "1"),
    ]);
}

#[test]
fn escapes_in_templates() {
    check_all(&[
        ("`a\\nb\\t\\\"c\\\\`", r#""a\nb\t\"c\\""#),
        ("let x = 1; `a\\n${x}\\n${x}${x}\\tb`", r#""a\n1\n11\tb""#),
        ("let x = 1; `${x}\\n${`\\n`}`", r#""1\n\n""#),
        ("`\\d+\\.\\w`", r#""\\d+\\.\\w""#),
        ("`\\${x}\\n`", r#""${x}\n""#),
        ("let x = 1; `${x}``\\n`", r#""1`\n""#),
        ("let x = 1; `${x}\n\\n`", r#""1\n\n""#),
        ("`\n\\n`", r#""\n""#),
    ]);
}

#[test]
fn the_variable_of_a_chain_in_its_closures() {
    let data = "let pr = #{name: \"p\", n: 1, owner: 2, items: [1, 2], list: []};
        let a = #{items: [#{id: 1, x: 1}, #{id: 2, x: 5}], owner: 2, x: 1, list: [1]};
        let prs = [pr, pr]; let rows = [1, 2]; let data = #{items: [1], name: \"d\"};
        let x = #{a: [1, 2, 3], b: [2, 3], c: 9};\n";
    for (source, expected) in [
        ("pr.items.map(|i| pr.name + i)", r#"["p1","p2"]"#),
        ("prs.map(|pr| pr.items.map(|i| pr.name + i))", r#"[["p1","p2"],["p1","p2"]]"#),
        ("prs.map(|q| { let pr = q; pr.items.map(|i| pr.name + i) })", r#"[["p1","p2"],["p1","p2"]]"#),
        ("a.items.filter(|i| i.id == a.owner).len()", "1"),
        ("rows.map(|r| rows.len())", "[2,2]"),
        ("data[\"items\"].map(|i| data.name)", r#"["d"]"#),
        ("x.a.filter(|i| x.b.contains(i)).map(|i| x.c)", "[9,9]"),
        ("a.items.retain(|i| i.id != a.x); a.items.len()", "1"),
        ("pr.items.map(|i| `${pr.name}${i}`)", r#"["p1","p2"]"#),
        ("pr.items.map(|i| { let n = pr.name; n + i })", r#"["p1","p2"]"#),
        ("pr.items.map(|i| pr.items.map(|j| pr.name + i + j))", r#"[["p11","p12"],["p21","p22"]]"#),
        ("pr.items.map(|i| pr.items.map(|j| pr.items.map(|k| pr.n + i + j + k)))[1][1]", "[6,7]"),
        ("pr.items.map(|i| rows.map(|r| pr.name + r))", r#"[["p1","p2"],["p1","p2"]]"#),
        ("pr.items.map(|pr| pr + 1)", "[2,3]"),
        ("pr.items.map(|i| [i].map(|pr| pr + 1)[0] + pr.n)", "[3,4]"),
        ("pr.items.map(|i| #{pr: i, n: pr.n}.pr)", "[1,2]"),
        ("pr.items.map(|i| a.items.map(|j| pr.n + a.x + j.x + i))", "[[4,8],[5,9]]"),
        ("fn f(pr) { pr.items.map(|i| pr.name + i) } f(pr)", r#"["p1","p2"]"#),
        ("fn f(prs) { prs.map(|pr| pr.items.map(|i| pr.name + i + prs.len())) } f(prs)[0]", r#"["p12","p22"]"#),
        ("for pr in prs { print(pr.items.map(|i| pr.name)) }", "null"),
        ("pr?.items?.map(|i| pr?.name)", r#"["p","p"]"#),
        ("let pr = pr.items.map(|i| pr.n); pr", "[1,1]"),
        ("pr.items.filter(|i| i > pr.n).map(|i| i * pr.owner).map(|i| pr.n + i)", "[5]"),
        ("pr.items.reduce(|sum, i| sum + i + pr.n, 0)", "5"),
        ("pr.items.map(|i| { let pr = #{n: 5}; pr.n + i })", "[6,7]"),
        ("copy(pr).items.map(|i| { pr.n += i; i }); pr.n", "4"),
        ("let c = copy(pr); c.n = 7; pr.n + c.n", "8"),
        // A closure that is kept would be left with a copy.
        (
            "let keep = []; keep.push(|| keep.len()); keep.len()",
            "runtime at nowhere: a variable is used by a closure while one of its own methods runs that closure",
        ),
        ("let n = 0; rows.for_each(|r| n += 1); n", "2"),
        ("await pr.items.map(|i| await pr.name)", r#"["p","p"]"#),
        ("rows.map(|r| if r == rows.len() { pr.name } else { \"-\" })", r#"["-","p"]"#),
        ("pr.items.map(|i| pr.nope.nope)", "runtime at 5:26: there is no `nope` in `()`"),
        ("nope.items.map(|i| nope.x)", "runtime at 5:1: there is no variable or server `nope`"),
        ("pr.items.map(|i| pr())", "runtime at 5:18: there is no function `pr()`"),
    ] {
        check(&format!("{data}{source}"), expected);
    }
}

#[test]
fn positions_stay() {
    check_all(&[
        ("const a = {b: 'text', c: null}; nope", "runtime at 1:33: there is no variable or server `nope`"),
        ("async function f() { not false and nope } f()", "runtime at 1:36: there is no variable or server `nope`"),
        ("let x = 1 not in [1]; 'é' + nope", "runtime at 1:29: there is no variable or server `nope`"),
        ("// ü\r\n/* é\n */ let t = `ü\n${\n 'ab' + nope}`", "runtime at 5:9: there is no variable or server `nope`"),
    ]);
}

#[test]
fn what_a_script_catches_has_a_kind_and_our_words() {
    check_all(&[
        (
            "try { githb.dup() } catch (e) { return [e.kind, e.message, e.line] }",
            r#"["runtime","there is no variable or server `githb`: did you mean `github`?",1]"#,
        ),
        ("fn f() { try { nope } catch (err) { return err.kind } } f()", r#""runtime""#),
        ("let e = #{a: 1}; try { throw #{b: 2} } catch (e) { return e }", r#"{"b":2}"#),
        ("try { nope } catch (e) { throw e }", "runtime at 1:26: there is no variable or server `nope`"),
    ]);
}

#[test]
fn mistakes_that_rhai_does_not_see() {
    check_all(&[
        (
            "let a = 99999999999999999999;",
            "syntax at 1:9: 99999999999999999999 is too large for an integer (at most 9223372036854775807)",
        ),
        (
            "[-9223372036854775808, 9223372036854775807, 9_223_372_036_854_775_807, 1e30, 99999999999999999999.5].len()",
            "5",
        ),
        (
            "let a = 1; a -9223372036854775808",
            "syntax at 1:15: 9223372036854775808 is too large for an integer (at most 9223372036854775807)",
        ),
        (
            "-99999999999999999999",
            "syntax at 1:2: -99999999999999999999 is too large for an integer (at least -9223372036854775808)",
        ),
        ("let a = 1;\n  /* no end\nthrow 1;", "syntax at 2:3: the comment that starts here has no end"),
        ("/* a /* b */ c */ 5", "5"),
        ("let = 5; /* no end", "syntax at 1:5: expected the name of a variable"),
    ]);
}

/// Sources of all kinds: those of the tests around here, and the scripts.
fn sources() -> Vec<String> {
    let mut sources: Vec<String> = [
        "let a = 1; let b = \"x\\\"y\" + 'c' + `t${a + `u${b}v`}w`; #\"raw \" text\"# + ##\"a\"#b\"##",
        "a.b?.c[1]?[2]::d(1, 2.5, 1.max(2), 1..2, 1..=2, 0xff, 1e5, 1.5e-3, 1_000) // end",
        "/* a\n/* b */ c */ x\n// é\n y \u{1F600}",
        "x /* ü */ y \"ä\\\n   continued\" z `\nq\r\n${w}\r` v\r\nu\t\tt // c\rs\n r",
        "a!=b; a!in b; a !inb; a===b; a!==b; a->b; a<-b; a:=b; x|>y; (* c *) d; #!e; # f; #{g: 1}",
        "`a\\${b} ${c}` d `e``f` g `${h}``${i}` j \"k\"\"l\" m '\\'' n",
        "let x = 5; x.y.z(|a, b| a || b, || c).d { e } -1 - -2 ..= 3 ... 4 ~ 5 @ 6 $ 7 ? 8",
    ]
    .map(String::from)
    .to_vec();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts")];
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in entries {
            if path.is_dir() {
                // Hostile scripts need the host's limits.
                folders.extend(Some(path).filter(|path| !path.ends_with("hostile")));
            } else if path.extension().is_some_and(|extension| extension == "rhai") {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    assert!(sources.len() > 80, "the scripts are missing");
    sources
}

/// Positions of the words, numbers and texts, as Rhai's lexer sees them.
fn rhai_places(source: &str) -> Vec<(usize, usize, String)> {
    let engine = Engine::new_raw();
    let sources = [source];
    let (tokens, control) = engine.lex(&sources);
    let mut braces: Vec<bool> = Vec::new();
    let mut of_template = false;
    let mut places = Vec::new();
    for (token, position) in tokens.take_while(|(token, _)| *token != RhaiToken::EOF) {
        let word = match &token {
            RhaiToken::Identifier(word) | RhaiToken::Reserved(word) | RhaiToken::Custom(word) => Some(word.to_string()),
            RhaiToken::LexError(error) => match &**error {
                LexError::MalformedIdentifier(word) | LexError::ImproperSymbol(word, _) => Some(word.clone()),
                LexError::UnexpectedInput(_) => None,
                _ => break,
            },
            token if token.is_standard_keyword() || *token == RhaiToken::Underscore => {
                Some(token.literal_syntax().into())
            }
            _ => None,
        };
        let interpolation = std::mem::replace(&mut of_template, matches!(token, RhaiToken::InterpolatedString(_)));
        match &token {
            RhaiToken::LeftBrace | RhaiToken::MapStart => braces.push(interpolation),
            // As the parser does.
            RhaiToken::RightBrace if braces.pop() == Some(true) => control.borrow_mut().is_within_text = true,
            _ => {}
        }
        let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        if let (Some(word), Some(line), Some(column)) = (word, position.line(), position.position()) {
            places.push((line, column, word));
        }
    }
    places
}

#[test]
fn words_stand_where_rhai_sees_them() {
    for source in sources() {
        let reading = read(&source, &[]);
        let ours: Vec<(usize, usize, String)> = reading
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| token.kind == Kind::Word)
            .map(|(index, token)| (token.line as usize, token.column as usize, reading.text(index).to_string()))
            .filter(|(_, _, word)| word != "switch")
            .collect();
        let theirs: Vec<_> = rhai_places(&source).into_iter().filter(|(_, _, word)| word != "switch").collect();
        assert_eq!(ours, theirs, "source: {source}");
        assert!(!ours.is_empty(), "source: {source}");
    }
}

#[test]
fn edits_keep_every_character_in_its_place() {
    let source = "async fn f() { throw new Error('zwölf') } 3 not in [''] is not 'é'";
    let (_, edited) = read(source, &[]).replacements();
    assert_eq!(edited, "      fn f() { throw     Error(\"     \") } 3 not    [\"\"] is     'é'");
}

#[test]
fn no_source_panics() {
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below.max(1) as u64).unwrap()
    };
    let run = |source: &str| {
        let _ = crate::run(Rc::new(Echo::default()), source, vec!["github".into()], 100);
    };
    let odd = [
        "'",
        "\"",
        "`",
        "${",
        "}",
        "{",
        "(",
        ")",
        "|",
        "\\",
        "/*",
        "*/",
        "#",
        "#{",
        "é",
        "\u{1F600}",
        "\r",
        "\n",
        "\u{1}",
        "\0",
        "not ",
        "is ",
        "new Error(",
        "9999999999999999999",
    ];
    // Not those that work on the limits of the host, which is not here.
    for source in sources().iter().filter(|source| source.len() < 2_000 && !source.contains("// error: limit")) {
        for at in (0..source.len()).filter(|at| source.is_char_boundary(*at)) {
            run(&source[..at]);
            run(&source[at..]);
        }
        for _ in 0..20 {
            let mut characters: Vec<char> = source.chars().collect();
            for _ in 0..=next(4) {
                let at = next(characters.len());
                match next(3) {
                    0 if !characters.is_empty() => drop(characters.remove(at)),
                    1 => characters.insert(at, characters.get(next(characters.len())).copied().unwrap_or('x')),
                    _ => drop(characters.splice(at..at, odd[next(odd.len())].chars())),
                }
            }
            run(&characters.into_iter().collect::<String>());
        }
    }
}

#[test]
fn reading_takes_linear_time() {
    let wide = format!("x.map(|{}| {})", "x,".repeat(100_000), "x ".repeat(100_000));
    assert!(read(&wide, &[]).mistake.is_none());
    // Each would take minutes were any part of the reader quadratic.
    for piece in [
        "(",
        "{",
        "[",
        "|",
        "|a|",
        "not ",
        "x.map(|i| x.",
        "`${",
        "''",
        "#",
        "/*",
        "a,",
        "fn f(",
        "for (",
        "is not ",
        "catch (e) ",
        "{a: ",
    ] {
        let source = piece.repeat(200_000);
        let started = std::time::Instant::now();
        let reading = read(&source, &["github".into()]);
        assert!(reading.source.len() >= 200_000);
        assert!(started.elapsed().as_secs() < 10, "{piece} took {:?}", started.elapsed());
    }
}

/// Prints what reading costs: `cargo test --release -p rhaiway-engine cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]
fn cost() {
    for source in sources().iter().filter(|source| (100..2_000).contains(&source.len())).take(12) {
        let started = std::time::Instant::now();
        for _ in 0..2_000 {
            std::hint::black_box(read(std::hint::black_box(source), &["github".into(), "demo".into()]).replacements());
        }
        let nanoseconds = started.elapsed().as_nanos() as f64 / 2_000.0;
        println!("{} bytes: {nanoseconds:.0} ns, {:.1} ns per byte", source.len(), nanoseconds / source.len() as f64);
    }
}
