//! The wording of messages and hints.

use crate::tests::failure;

/// Source, place and message, hint.
const FAULTS: [(&str, &str, &str); 138] = [
    (
        "let ys = xs.map(x => x.a);",
        "1:19 expected `,` to separate the arguments to function call `map`",
        "write a function as `|x| x.a`",
    ),
    (
        "xs.map((a, b) => a + b)",
        "1:10 expected `)` for a matching ( in this expression",
        "write a function as `|a, b| a + b`",
    ),
    (
        "xs.map(() => 5)",
        "1:11 expected `,` to separate the arguments to function call `map`",
        "write a function as `|| 5`",
    ),
    (
        "xs.map(x => ({name: x.a}))",
        "1:10 expected `,` to separate the arguments to function call `map`",
        "write a function as `|x| {name: x.a}`",
    ),
    (
        "xs.map(({a, b}) => a)",
        "1:11 expected `;` to end the statement",
        "write a function as `|x| …`, and take the parts of `x` in its body: `x.name`, `x[0]`",
    ),
    (
        "let f = async (x) => { return x; };",
        "1:9 `async` is a word that Rhai reserves",
        "leave out `async`: every call waits for its answer",
    ),
    ("for (const x of xs) { print(x); }", "1:6 expected the name of a variable", "write `for x in xs { … }`"),
    ("for (x in xs) { print(x); }", "1:8 expected `,` after the iteration variable name", "write `for x in xs { … }`"),
    (
        "for (let i = 0; i < xs.len(); i++) { print(i); }",
        "1:6 expected the name of a variable",
        "write `for i in 0..xs.len() { … }`",
    ),
    (
        "for (let i = 10; i > 0; i--) { print(i); }",
        "1:6 expected the name of a variable",
        "write `for i in 0..10 { … }`, or `while i < 10 { … }`",
    ),
    (
        "for (const [k, v] of Object.entries(m)) { }",
        "1:6 expected the name of a variable",
        "write `for key in m.keys() { let value = m[key]; … }`, or `for (x, i) in xs { … }` with an index",
    ),
    ("for x of xs { }", "1:7 expected `in` after the iteration variable", "write `for x in xs { … }`"),
    (
        "for k, v in m.items():\n    print(k)",
        "1:6 expected `in` after the iteration variable",
        "write `for k in m.keys() { let v = m[k]; … }`",
    ),
    (
        "for i, x in enumerate(xs):\n    print(x)",
        "1:6 expected `in` after the iteration variable",
        "write `for (x, i) in xs { … }`: the value, then its index",
    ),
    (
        "let {a, b} = x;",
        "1:5 expected the name of a variable",
        "take the values one by one: `let a = x.a; let b = x.b;`",
    ),
    (
        "const [a, b] = f(1, 2);",
        "1:7 expected the name of a variable",
        "take the values one by one: `let a = x[0]; let b = x[1];`",
    ),
    (
        "let a = 1; let b = 2;\na, b = b, a",
        "2:2 expected `;` to end the statement",
        "assign one variable at a time: `a = …; b = …;`",
    ),
    ("def f(x, y):\n    return x", "1:5 expected `;` to end the statement", "write a function as `fn f(x, y) { … }`"),
    (
        "let s = f\"Hello {name}, {x.y}\";",
        "1:10 expected `;` to end the statement",
        "write values in a text between back-ticks: `` `Hello ${name}, ${x.y}` ``",
    ),
    (
        "let s = f'Hello';",
        "1:10 expected `;` to end the statement",
        "write values in a text between back-ticks: `` `Hello ${name}` ``",
    ),
    (
        "let x = 1; if x == 1 { 2 } elif x == 2 { 3 }",
        "1:33 expected `;` to end the statement",
        "write `else if x == 2 { … }`",
    ),
    ("let y = a ? b : c;", "1:11 there is no operator `?`", "write `if a { b } else { c }`"),
    (
        "return x > 1 ? \"a\" : x > 0 ? \"b\" : \"c\";",
        "1:14 there is no operator `?`",
        "write `if a { b } else { c }` instead of `a ? b : c`",
    ),
    (
        "try:\n    f()\nexcept Exception as e:\n    print(e)",
        "1:4 expected `{` to start a statement block",
        "write `try { … } catch (e) { … }`",
    ),
    (
        "try { 1 } finally { 2 }",
        "1:11 expected `catch` for the `try` statement",
        "there is no `finally`: write what is to be done last after `try { … } catch (e) { … }`",
    ),
    (
        "try { 1 } catch (e) { 2 } finally { 3 }",
        "1:35 expected `;` to end the statement",
        "there is no `finally`: write what is to be done last after `try { … } catch (e) { … }`",
    ),
    (
        "if x == 1:\n    print(x)",
        "1:10 expected `{` to start a statement block",
        "write a block in braces: `if x == 1 { … }`",
    ),
    (
        "if true { 1 }\nelse:\n    print(x)",
        "2:5 expected `{` to start a statement block",
        "write a block in braces: `else { … }`",
    ),
    (
        "while x < 5:\n    x += 1",
        "1:12 expected `{` to start a statement block",
        "write a block in braces: `while x < 5 { … }`",
    ),
    (
        "for x in xs:\n    print(x)",
        "1:12 expected `{` to start a statement block",
        "write a block in braces: `for x in xs { … }`",
    ),
    (
        "let ys = [x.a for x in xs if x.b > 1];",
        "1:15 expected `,` to separate the items of this array literal",
        "write `xs.filter(|x| x.b > 1).map(|x| x.a)`",
    ),
    (
        "let ys = [x for x in xs];",
        "1:13 expected `,` to separate the items of this array literal",
        "write `xs.map(|x| x)`",
    ),
    (
        "let m = {x.id: x for x in xs};",
        "1:14 expected `;` to end the statement",
        "fill the map in a loop: `let m = #{}; for x in xs { m[x.key] = x.value; }`",
    ),
    (
        "let total = sum(x.n for x in xs);",
        "1:21 expected `,` to separate the arguments to function call `sum`",
        "write `xs.map(|x| x.n)`",
    ),
    ("let x = 1; x++;", "1:13 there is no operator `++`", "write `x += 1`"),
    ("let x = 1; --x;", "1:12 `--` has no meaning in Rhai", "write `x -= 1`"),
    (
        "github.create(title: \"x\", body: \"y\")",
        "1:20 expected `,` to separate the arguments to function call `create`",
        "a tool takes one map: `github.create(#{title: \"x\", body: \"y\"})`",
    ),
    (
        "github.create(title=\"x\")",
        "1:20 expected `,` to separate the arguments to function call `create`",
        "a tool takes one map: `github.create(#{title: \"x\"})`",
    ),
    (
        "f(name: \"x\", 5)",
        "1:7 expected `,` to separate the arguments to function call `f`",
        "arguments have no names: `f(\"x\", 5)`",
    ),
    ("new Date()", "1:1 `new` is a word that Rhai reserves", "write `now()`, or `date(\"2026-01-31T10:00:00Z\")`"),
    ("let m = new Map();", "1:9 `new` is a word that Rhai reserves", "write a map as `#{}`"),
    ("let ys = [...xs, 1];", "1:11 `...` has no meaning in Rhai", "join lists with `+`: `xs + […]`"),
    ("let m = {...a, b: 1};", "1:10 `...` has no meaning in Rhai", "join maps with `+`: `a + #{…}`"),
    ("f(...xs)", "1:3 `...` has no meaning in Rhai", "write every argument by itself, or give the function a list"),
    ("let m = {**a, b: 1};", "1:10 unexpected `**`", "join maps with `+`: `a + #{…}`"),
    ("let f = lambda x, y: x + y;", "1:16 expected `;` to end the statement", "write a function as `|x, y| x + y`"),
    (
        "xs.map(lambda x: x.a)",
        "1:15 expected `,` to separate the arguments to function call `map`",
        "write a function as `|x| x.a`",
    ),
    ("let x, y;", "1:6 expected `;` to end the statement", "declare one variable at a time: `let x = …; let y = …;`"),
    (
        "let x = 1, y = 2;",
        "1:10 expected `;` to end the statement",
        "declare one variable at a time: `let x = …; let y = …;`",
    ),
    ("let x: int = 5;", "1:6 expected `;` to end the statement", "leave out the type: `let x = …`"),
    (
        "fn f(a: int, b: string) { a }",
        "1:7 expected `,` to separate the parameters of function `f`",
        "leave out the types of parameters: write `fn f(a, b)`",
    ),
    (
        "fn f(a, b = 1) { a }",
        "1:11 expected `,` to separate the parameters of function `f`",
        "parameters have no default values: write `fn f(a, b)`",
    ),
    (
        "fn f(a) -> int { a }",
        "1:9 expecting body statement block for function f",
        "leave out the type that a function returns: `fn f(x) { … }`",
    ),
    ("# a comment\nlet x = 1;", "1:1 `#` has no meaning in Rhai", "write comments as `// a comment`"),
    ("let x = 1; # it's a comment", "1:12 `#` has no meaning in Rhai", "write comments as `// it's a comment`"),
    (
        "import json",
        "1:8 there is no `json` here",
        "a script can't import anything, and needs not: servers and functions are there by their names",
    ),
    (
        "import x from \"y\";",
        "1:10 expected `;` to end the statement",
        "a script can't import anything, and needs not: servers and functions are there by their names",
    ),
    (
        "from os import path",
        "1:6 expected `;` to end the statement",
        "a script can't import anything, and needs not: servers and functions are there by their names",
    ),
    (
        "const fs = require(\"fs\");",
        "1:12 there is no function `require(string)`",
        "a script can't import anything, and needs not: servers and functions are there by their names",
    ),
    (
        "with open(\"f\") as f:\n    f.read()",
        "1:1 `with` is a word that Rhai reserves",
        "there is no `with`: call what you need, as in `let x = server.tool(#{…});`",
    ),
    (
        "class A { }",
        "1:7 expected `;` to end the statement",
        "there are no classes: use maps, as in `#{name: value}`, and functions",
    ),
    ("if typeof x === \"string\" { 1 }", "1:11 expected `{` to start a statement block", "write `type_of(x)`"),
    (
        "if x instanceof Array { 1 }",
        "1:6 expected `{` to start a statement block",
        "compare the name of the type: `type_of(x) == \"map\"`",
    ),
    (
        "switch x { case 1: print(1); break; default: print(2); }",
        "1:12 expected a literal, such as a number or a text",
        "write `1 => { … }` in a `switch`, without `case` and `break`",
    ),
    (
        "let t = try { 5 } catch { 6 };",
        "1:9 unexpected `try`",
        "`try` has no value: assign in its block, as in `let x = (); try { x = …; } catch (e) { … }`",
    ),
    (
        "github[\"list-files\"]({a: 1})",
        "1:21 expected `;` to end the statement",
        "call a tool by its name as `github.call_tool(\"list-files\", #{…})`",
    ),
    ("let a = 1\nlet b = 2", "1:10 there is no `;` after this statement", "end line 1 with `;`"),
    ("let xs = []\nxs.push(1)", "1:12 there is no `;` after this statement", "end line 1 with `;`"),
    ("print \"hello\"", "1:1 `print` is a word that Rhai reserves", "write `print(\"hello\")`"),
    ("print x", "1:1 `print` is a word that Rhai reserves", "write `print(x)`"),
    (
        "fn f() {\n  let a = [1, 2;\n}",
        "2:16 expected `,` to separate the items of this array literal",
        "close the `[` of line 2, column 11 with `]`",
    ),
    ("if true {\n  print(1);", "1:9 the `{` has no `}`", "close the `{` of line 1, column 9 with `}`"),
    (
        "let x = \"abc\nlet y = 1;",
        "1:9 the text that starts here has no end",
        "end it with `\"` on the same line, or write a text of several lines between back-ticks",
    ),
    (
        "let x = 'abc",
        "1:9 the text that starts here has no end",
        "end it with `'` on the same line, or write a text of several lines between back-ticks",
    ),
    (
        "let x = `abc \\` def",
        "1:17 expected `;` to end the statement",
        "a back-slash does not keep a back-tick in such a text: write two back-ticks for one",
    ),
    (
        "let x = \"\"\"\nabc\n\"\"\"",
        "1:9 the text that starts here has no end",
        "end it with `\"` on the same line, or write a text of several lines between back-ticks",
    ),
    ("\"\\d+\"", "1:3 `\\d` is no escape in a text", "write `\\\\d` for a back-slash in the text"),
    ("\"it\\'s\"", "1:5 `\\'` is no escape in a text", "write `'` without the back-slash"),
    (
        "let f = function(x) { return x; };",
        "1:21 expected `;` to end the statement",
        "write a function without a name as `|x| { … }`",
    ),
    (
        "fn f() { fn g() { 1 } g() }",
        "1:10 a function can't be defined inside a block or another function",
        "write it as a closure: `let name = |x| { … };`",
    ),
    ("let x = {a, b};", "1:11 expected `;` to end the statement", "name every entry of a map: `#{a: a, b: b}`"),
    (
        "let xs = [1, 2, 3]; xs[0:2]",
        "1:25 expected `]` for a matching [ in this index expression",
        "write `xs.extract(0..2)`",
    ),
    ("xs[:2]", "1:4 unexpected `:`", "write `xs.extract(0..2)`"),
    ("let x = 1 if true else 2;", "1:11 expected `;` to end the statement", "write `if true { 1 } else { 2 }`"),
    ("let n = 0; n += 1 if true else 2;", "1:19 expected `;` to end the statement", "write `if true { 1 } else { 2 }`"),
    ("match x { 1 => 2 }", "1:1 `match` is a word that Rhai reserves", "write `switch x { 1 => …, _ => … }`"),
    ("raise \"no\"", "1:7 expected `;` to end the statement", "write `throw \"…\"`"),
    ("let x = # {a: 1};", "1:9 `# {` has no meaning in Rhai", "write a map as `#{…}`, without a space"),
    ("x = y = 3", "1:7 expected `;` to end the statement", "assign one variable at a time: `y = 3; x = y;`"),
    ("let x = 5 -> 6;", "1:11 `->` has no meaning in Rhai", ""),
    (
        "let s = r\"\\d\";",
        "1:12 `\\d` is no escape in a text",
        "leave out the `r` before the text; a raw text is `#\"…\"#`",
    ),
    ("let fn = 5;", "1:5 `fn` is a word of the language, and can't be a name", "choose another name, such as `fn_`"),
    (
        "github.dup({a: 1)",
        "1:17 expected `}` to end this object map literal",
        "close the `{` of line 1, column 12 with `}`",
    ),
    ("foo(1, 2", "1:4 the `(` has no `)`", "close the `(` of line 1, column 4 with `)`"),
    (
        "let m = #{a: 1, b: 2\nlet y = 3;",
        "2:1 expected `}` to end this object map literal",
        "close the `#{` of line 1, column 9 with `}`",
    ),
    (
        "let x = 1;;\nlet y = (2 + 3;",
        "2:15 expected `)` for a matching ( in this expression",
        "close the `(` of line 2, column 9 with `)`",
    ),
    ("let s = \"a\" b;", "1:13 expected `;` to end the statement", ""),
    ("await", "1:6 the script ends in the middle of an expression", ""),
    (
        "let m = {[k]: 1};",
        "1:13 expected `;` to end the statement",
        "keys of a map are names or texts, as in `#{name: value}`: set others with `m[key] = value`",
    ),
    (
        "let match = 5;",
        "1:5 `match` is a word of the language, and can't be a name",
        "choose another name, such as `match_`",
    ),
    (
        "let y = (2 + 3;",
        "1:15 expected `)` for a matching ( in this expression",
        "close the `(` of line 1, column 9 with `)`",
    ),
    (
        "\"5\" - 1",
        "1:5 `-` has no meaning between string and i64",
        "turn the text into a number first: `parse_int(text)` or `parse_float(text)`",
    ),
    (
        "let m = #{a: 1}; m.b.c",
        "1:22 there is no `c` in `()`",
        "the value before the dot, `m.b`, is `()`: print what is there, or write `m.b?.c` where it may be missing",
    ),
    (
        "let m = #{a: 1}; m.b.c()",
        "1:22 () has no method `c()`",
        "the value before the dot, `m.b`, is `()`: print what is there, or write `m.b?.c` where it may be missing",
    ),
    (
        "let m = #{a: 1}; m.b.c = 5",
        "1:22 there is no `c` in `()`",
        "the value before the dot, `m.b`, is `()`: print what is there, or write `m.b?.c` where it may be missing",
    ),
    ("let m = #{a: 1}; m.list(1).b[0].c.d", "1:20 map has no method `list(i64)`", "did you mean `last`?"),
    ("let m = (); m[\"a\"]", "1:14 `()` has no entries", "the value before it is `()`: print what is there"),
    (
        "let a = [1]; a[5]",
        "1:16 the list has no item 5: it has only 1 item",
        "the first item is `[0]`, the last `[-1]`; `len()` says how many there are",
    ),
    ("let a = [1]; a.lenn()", "1:16 array has no method `lenn()`", "did you mean `len`?"),
    (
        "fn total(a, b) { a } totl(1, 2) + total(1)",
        "1:22 there is no function `totl(i64, i64)`",
        "did you mean `total`?",
    ),
    ("fn total(a, b) { a } total(1)", "1:22 there is no function `total(i64)`", "it is declared as `fn total(a, b)`"),
    ("parse_int(5)", "1:1 there is no function `parse_int(i64)`", ""),
    ("if \"a\" { 1 }", "1:4 expected a boolean expression, not a string", ""),
    ("for x in 5 { 1 }", "1:10 expected an iterable value, not a number", ""),
    (
        "let m = #{a: 1}; for x in m { print(x) }",
        "1:27 a `for` loop goes over lists, ranges and texts",
        "go over the keys of a map with `for key in m.keys() { … }`",
    ),
    (
        "let a = 1; fn f() { a } f()",
        "1:21 there is no variable or server `a`",
        "a function sees only its own parameters and variables: pass `a` to `f`",
    ),
    ("let x = 5; x.foo", "1:14 i64 has no property `foo`", ""),
    (
        "let pr = #{items: [1], name: \"a\"}; pr.items.map(|i| { pr.name = \"b\"; i })",
        "1:36 a variable is used by a closure while one of its own methods runs that closure",
        "take a copy first: `copy(pr).items.map(…)`",
    ),
    (
        "let pr = #{items: [1], name: \"a\"}; let f = |i| pr.name; pr.items.map(f)",
        "nowhere a variable is used by a closure while one of its own methods runs that closure",
        "take a copy first: `copy(x).items.map(…)`",
    ),
    ("github.dup = 5", "1:8 nothing can be assigned to `dup` of a server", ""),
    ("github = 5", "1:1 `github` can't be assigned to", "`github` is a server: declare a variable, `let x = …`"),
    (
        "fn a(x) { b(x) } fn b(x) { [x].map(|y| c(y)) } fn c(x) { x.y.z }\na(#{})",
        "1:62 there is no `z` in `()`",
        "the value before the dot, `x.y`, is `()`: print what is there, or write `x.y?.z` where it may be missing",
    ),
    ("fn f(n) { if n == 0 { nope } else { f(n - 1) } }\nf(30)", "1:23 there is no variable or server `nope`", ""),
    ("let m = #{}; m[1]", "1:16 expected string, not i64", "keys of maps are texts: `m[\"1\"]`, or `` m[`${key}`] ``"),
    ("\"abc\"[10]", "1:7 the text has no character 10: it has only 3 characters", ""),
    ("1 / 0", "1:3 division by zero: 1 / 0", ""),
    ("!5", "1:1 `!` has no meaning for i64", "compare it: `x == ()`, `x == 0`, `x == \"\"`, or `x.is_empty()`"),
    ("-\"a\"", "1:1 `-` has no meaning for string", ""),
    ("5 in 5", "1:3 `in` does not look into i64", ""),
    ("[1] + 5", "1:5 `+` has no meaning between array and i64", "put the value in a list: `xs + [x]`, or `xs.push(x)`"),
    (
        "() + 5",
        "1:4 `+` has no meaning between () and i64",
        "one of the values is `()`: give it another with `??`, as in `x ?? 0`",
    ),
    ("let issues = 1; isues", "1:17 there is no variable or server `isues`: did you mean `issues`?", ""),
    ("throw 5", "1:1 5", ""),
    (
        "fetch(\"x\")",
        "1:1 there is no function `fetch(string)`",
        "a script reaches the world through tools only: `search_tools(\"…\")` finds them",
    ),
    ("pr.items", "1:1 there is no variable or server `pr`", ""),
    ("let x = 5; x.then(|y| y)", "1:14 i64 has no method `then(Fn)`", ""),
    (
        "os.path",
        "1:1 there is no `os` here",
        "a script can't import anything, and needs not: servers and functions are there by their names",
    ),
    (
        "setTimeout(|| 1, 5)",
        "1:1 there is no function `setTimeout(Fn, i64)`",
        "every call waits for its answer: leave out what waits",
    ),
];

#[test]
fn every_mistake_has_its_words() {
    for (source, message, hint) in FAULTS {
        let fault = failure(source).expect_err(source);
        let place = fault.position.map_or("nowhere".into(), |place| format!("{}:{}", place.line, place.column));
        assert_eq!(
            (format!("{place} {}", fault.message).as_str(), fault.hint.as_deref().unwrap_or_default()),
            (message, hint),
            "script: {source}"
        );
    }
}

/// What is right, or wrong in another way, gets no hint for something that is not there.
#[test]
fn no_hint_where_there_is_nothing_to_say() {
    for source in [
        "let x = ;",
        "let f = |x| x +; 5",
        "switch 1 { 1 => (2 3), _ => 3 }",
        "let a = [1 2];",
        "throw 5",
        "let x = #{a: 1}; x.y(",
        "let m = #{a: if true { 1 } else { 2 }, b 3};",
    ] {
        let fault = failure(source).expect_err(source);
        let of_bracket = fault.hint.as_deref().is_some_and(|hint| hint.starts_with("close the"));
        assert!(fault.hint.is_none() || of_bracket, "script: {source}, hint: {:?}", fault.hint);
    }
}

#[test]
fn nothing_mangled_is_shown() {
    for source in [
        "let pr = #{items: [1], name: 1}; pr.items.map(|i| pr.nope.nope)",
        "let pr = #{items: [1], name: 1}; pr.items.map(|i| pr.items.map(|j| pr + #{}.a.b))",
        "let pr = #{items: [1], name: 1}; pr.items.map(|i| pr.name(1))",
        "let pr = #{items: [1], name: 1}; pr.items.map(|i| pr - 1)",
        "let pr = #{items: [1], name: 1}; pr.items.map(|i| pr[0])",
        "let pr = 1; pr.items.map(|i| pr)",
        "github.call_tool(",
        "github.if(1 2)",
        "github.f(;",
        "pr.items.map(|i| pr.name + i)",
    ] {
        let fault = failure(source).expect_err(source);
        assert!(!format!("{fault:?}").contains("u{1}"), "script: {source}, fault: {fault:?}");
    }
}

fn trace(source: &str) -> Vec<String> {
    let frames = failure(source).expect_err(source).trace.into_iter();
    frames
        .map(|frame| format!("{} {:?}", frame.function, frame.position.map(|place| (place.line, place.column))))
        .collect()
}

#[test]
fn calls_under_way_are_named_innermost_first() {
    assert_eq!(
        trace("fn a(x) { b(x) }\nfn b(x) { [x].map(|y| c(y)) }\nfn c(x) { x.y.z }\na(#{})"),
        ["c Some((2, 23))", "closure Some((2, 15))", "b Some((1, 11))", "a Some((4, 1))"]
    );
    assert_eq!(trace("nope"), [""; 0]);
    assert_eq!(trace("fn f() { throw 1 }\n\nf()"), ["f Some((3, 1))"]);
    assert_eq!(trace("fn f() { github.boom() }\n\nf()"), ["f Some((3, 1))"]);
    let deep = trace("fn f(n) { if n == 0 { throw 1 } else { f(n - 1) } }\nf(30)");
    assert_eq!(deep.len(), 16);
    assert_eq!([&*deep[0], &*deep[8], &*deep[15]], ["f Some((1, 40))", "… 16 more None", "f Some((2, 1))"]);
    assert_eq!(trace("fn f(n) { if n == 0 { throw 1 } else { f(n - 1) } }\nf(15)").len(), 16);
}
