//! The engine against a host that answers with what it was asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::{Fault, Host, Refusal, Ticket, ToolCall, run};

/// Answers `{server, tool, by_name, line, column, arguments}`; `boom` fails, `big` has a big integer, `stop` ends the script.
#[derive(Default)]
pub(crate) struct Echo {
    logs: RefCell<Vec<String>>,
    /// What was started, with its answer, in order.
    started: RefCell<Vec<(Ticket, Result<String, String>)>>,
    /// All tickets and questions so far, which are also the time and the random numbers.
    count: Cell<u32>,
    /// How often it was asked whether the script has to stop; it has to after a while.
    asked: Cell<u32>,
}

impl Echo {
    fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }
}

impl Host for Echo {
    fn call_tool(&self, call: ToolCall<'_>) -> Result<String, Refusal> {
        let ToolCall { server, tool, by_name, arguments, position } = call;
        match tool {
            "boom" => Err(Refusal::Failed(format!(r#"{{"kind":"tool","server":"{server}","tool":"{tool}","message":"it broke"}}"#))),
            "big" => Ok(r#"{"n": 12345678901234567890123, "m": [-9223372036854775808, -9223372036854775809], "s": "a\"99999999999999999999\" b"}"#
            .into()),
            "junk" => Ok("{".into()),
            "stop" => Err(Refusal::Stop),
            _ => Ok(format!(
                r#"{{"server":"{server}","tool":"{tool}","by_name":{by_name},"line":{},"column":{},"arguments":{arguments}}}"#,
                position.map_or(0, |place| place.line),
                position.map_or(0, |place| place.column)
            )),
        }
    }

    fn start_call(&self, call: ToolCall<'_>) -> Result<Option<Ticket>, Refusal> {
        let answer = match self.call_tool(call) {
            Ok(answer) => Ok(answer),
            Err(Refusal::Failed(failure)) => Err(failure),
            Err(Refusal::Stop) => return Err(Refusal::Stop),
        };
        let ticket = self.next();
        self.started.borrow_mut().push((ticket, answer));
        Ok(Some(ticket))
    }

    fn start_clock(&self, _seconds: f64) -> Result<Ticket, Refusal> {
        let ticket = self.next();
        self.started.borrow_mut().push((ticket, Ok("null".into())));
        Ok(ticket)
    }

    fn wait_any(&self) -> Result<(Ticket, Result<String, String>), Refusal> {
        let mut started = self.started.borrow_mut();
        if started.is_empty() { Err(Refusal::Stop) } else { Ok(started.remove(0)) }
    }

    fn cancel(&self, ticket: Ticket) {
        self.started.borrow_mut().retain(|(other, _)| *other != ticket);
    }

    fn now(&self) -> i64 {
        // 2026-11-22 12:00:00 UTC
        1_795_348_800_000_000 + i64::from(self.next())
    }

    fn random(&self) -> u64 {
        u64::from(self.next())
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        if detail_level == "none" {
            return Err("detail_level is `none`".into());
        }
        Ok(format!(r#"{{"results":[{{"name":"{query}/{detail_level}"}}]}}"#))
    }

    fn log(&self, line: &str) {
        self.logs.borrow_mut().push(line.into());
    }

    fn interrupted(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.asked.get() > 500
    }
}

pub(crate) fn failure(source: &str) -> Result<String, Fault> {
    run(Rc::new(Echo::default()), source, ["github", "jira"].map(String::from).to_vec(), 100)
}

pub(crate) fn outcome(source: &str) -> (String, Vec<String>) {
    let host = Rc::new(Echo::default());
    let servers = ["github", "jira", "_3d", "files"].map(String::from).to_vec();
    let text = match run(host.clone(), source, servers, 100) {
        Ok(value) => value,
        Err(fault) => {
            let place =
                fault.position.map_or_else(|| "nowhere".into(), |place| format!("{}:{}", place.line, place.column));
            format!("{} at {place}: {}", fault.kind, fault.message)
        }
    };
    (text, host.logs.take())
}

#[track_caller]
pub(crate) fn check(source: &str, expected: &str) {
    assert_eq!(outcome(source).0, expected, "script: {source}");
}

#[test]
fn calls_in_every_form() {
    for source in [
        "github.dup(#{a: 1})",
        "github::dup(#{a: 1})",
        "await github.dup(#{a: 1})",
        "[1].map(|x| github.dup(#{a: x}))[0]",
    ] {
        check(
            &format!("let r = {{ {source} }}; `${{r.server}}.${{r.tool}} ${{r.arguments.a}} ${{r.by_name}}`"),
            r#""github.dup 1 false""#,
        );
    }
    check("fn f() { github.dup(#{a: 1}) } f().tool", r#""dup""#);
    check("github.dup().arguments", "{}");
    check("github.dup(()).arguments", "{}");
    check("github.call_tool(\"list-files\", #{a: 1}).tool", r#""list-files""#);
    check("github.call_tool(#{a: 1}).tool", r#""call_tool""#);
    check("let g = github; g.call_tool(\"x\").tool + type_of(g)", r#""xserver""#);
    check("[github, jira].map(|s| s.list(#{}).server)", r#"["github","jira"]"#);
    check("`${github.dup(#{a: `${jira.x().tool}`}).arguments.a}`", r#""x""#);
    check("fn f(s) { s.list(#{}).server } [github, jira].map(f)", r#"["github","jira"]"#);
    check("_3d.render().server + files._2d().tool", r#""_3d_2d""#);
    check("github\n  .dup\n  (#{a: 1}).line", "2");
    check("let x = await github.dup(#{a: 1}); x.column", "22");
}

#[test]
fn words_of_rhai_are_tools_too() {
    for word in [
        "call",
        "curry",
        "type_of",
        "print",
        "debug",
        "len",
        "keys",
        "eval",
        "is_shared",
        "to_string",
        "import",
        "fn",
        "if",
        "this",
        "true",
        "sync",
        "async",
        "await",
        "null",
        "default",
        "with",
        "go",
        "_1",
        "call_tool",
    ] {
        check(&format!("github.{word}(#{{a: 1}}).tool"), &format!("\"{word}\""));
        check(&format!("fn f() {{ github::{word}() }} f().tool"), &format!("\"{word}\""));
    }
}

#[test]
fn a_variable_shadows_a_server() {
    check("fn f(github) { github.len() } f([1, 2])", "2");
    check("let github = [1, 2]; github.len() + github.filter(|x| x > 1).len()", "3");
    check("let github = #{name: 1}; github.name += 1; github.name", "2");
    check("let github = #{}; github.name = 7; github", r#"{"name":7}"#);
    check("let github = #{f: |x| x + 1}; github.f(1)", "2");
    check("let github = |x| x * 2; github.call(4)", "8");
    check("let github = 5; github.type_of()", r#""i64""#);
    check("fn double() { this * 2 } let github = 4; github.double()", "8");
    check("[[1, 2, 3]].map(|github| github.len())", "[3]");
    check("for jira in [[1], [2, 3]] { if jira.len() == 2 { return jira.len() } }", "2");
    check("let o = #{github: [1]}; o.github.len()", "1");
    check("let github = 5; github.nope()", "runtime at 1:24: i64 has no method `nope()`");
}

#[test]
fn failures_can_be_caught() {
    check(
        "try { github.boom(#{}) } catch (e) { return `${e.kind} ${e.server}.${e.tool}: ${e.message}` }",
        r#""tool github.boom: it broke""#,
    );
    check("try { github.boom() } catch (e) { throw e }", "tool at 1:35: it broke");
    check("\n  github.boom()", "tool at 2:10: it broke");
    check("fn f() {\n  github.boom()\n}\nf()", "tool at 2:10: it broke");
    check("try { github.stop() } catch (e) { 1 }", "stopped at 1:14: the script was stopped");
    check(
        "github.junk()",
        "answer at 1:8: the answer can't be read: not JSON: EOF while parsing an object at line 1 column 1",
    );
    check(
        "github.dup(1, \"a\")",
        "arguments at 1:8: a tool takes one object map, as in `github.dup(#{name: value})`; it was given (i64, string)",
    );
    check("throw #{kind: \"internal\", server: \"a\", tool: \"b\", message: \"no\"}", "thrown at 1:1: no");
    check("throw \"no\"", "thrown at 1:1: no");
    check("throw #{message: \"no\", code: 5}", "thrown at 1:1: no");
}

#[test]
fn sorting_loses_no_error() {
    check("let a = [3, 1, 2, 1]; a.sort(|x, y| x - y); a", "[1,1,2,3]");
    check("let a = [3.5, 1.25, 10.0, 2.0]; a.sort(|x, y| x - y); a", "[1.25,2.0,3.5,10.0]");
    check("let a = [#{k: 1, v: 1}, #{k: 0, v: 2}, #{k: 1, v: 3}]; a.sort(|x, y| x.k - y.k); a.map(|x| x.v)", "[2,1,3]");
    check(
        "let a = []; for i in 0..1000 { a.push((i * 7919) % 1009); } a.sort(|x, y| x - y); [a[0], a[999]]",
        "[0,1008]",
    );
    check("let a = [2, 1, 3]; a.sort(|x, y| 1); a.len()", "3");
    check("let a = [2, 1]; a.sort(|x, y| { github.boom(); 0 }); a", "tool at 1:40: it broke");
    check("let a = [2, 1]; try { a.sort(|x, y| throw 1) } catch { return a }", "[2,1]");
    check(
        "fn f(n) { f(n + 1) } let a = [2, 1]; a.sort(|x, y| f(1)); a",
        "limit at 1:40: functions call each other over 100 levels deep (`call_depth`): is there an end to the recursion?",
    );
    check("let a = [2, 1]; a.sort(|x, y| { github.stop(); 0 }); a", "stopped at 1:19: the script was stopped");
    check(
        "let a = [2, 1]; a.sort(|x, y| x > y); a",
        "runtime at 1:19: the function given to `sort` returns a number: below 0, 0, or above; it returned a bool",
    );
    check("let a = [1, 1, 2, 1]; a.dedup(|x, y| x == y); a", "[1,2,1]");
    check("let a = [1, 1]; a.dedup(|x, y| github.boom()); a", "tool at 1:39: it broke");
}

#[test]
fn mistakes_have_a_place_and_a_suggestion() {
    check(
        "let a = 1;\nlet b = githb.dup()",
        "runtime at 2:9: there is no variable or server `githb`: did you mean `github`?",
    );
    check("completely_else", "runtime at 1:1: there is no variable or server `completely_else`");
    check(
        "github.dup",
        "runtime at 1:7: a tool is called, not read: `github.dup(#{…})`, or `github.call_tool(\"dup\", #{…})`",
    );
    check("let x = ;", "syntax at 1:9: unexpected `;`");
    check("eval(\"1\")", "syntax at 1:1: reserved keyword 'eval' is disabled");
    check("import \"x\" as y;", "runtime at 1:8: there is no module `x`: a script can't import any");
    check("sleep(-1)", "runtime at 1:1: `sleep` takes seconds from 0 up, such as 0.5; it was given -1");
    check("retry(0, || 1)", "runtime at 1:1: `retry` takes how often to try, from 1 to 100; it was given 0");
    check(
        "fn f(x) { f(x + 1) } f(0)",
        "limit at 1:22: functions call each other over 100 levels deep (`call_depth`): is there an end to the recursion?",
    );
}

#[test]
fn values_keep_their_digits() {
    check(
        "github.big()",
        r#"{"m":[-9223372036854775808,"-9223372036854775809"],"n":"12345678901234567890123","s":"a\"99999999999999999999\" b"}"#,
    );
    check(
        "github.dup(#{a: 9223372036854775807, b: 1.5, c: (), d: 'x', e: [true]}).arguments",
        r#"{"a":9223372036854775807,"b":1.5,"c":null,"d":"x","e":[true]}"#,
    );
    check(
        "let a = []; for i in 0..200 { a = [a]; } a",
        "runtime at nowhere: the result can't be returned: it nests more than 100 levels deep",
    );
    check("[|x| x, github, 0.0 / 0.0, 1..3].map(|x| type_of(x))[1]", r#""server""#);
    check("[|x| x, 1..3]", r#"["<function>","<Range>"]"#);
    check(
        "github.dup(#{f: |x| x})",
        "arguments at 1:8: the arguments of `github.dup` can't be sent: <function> has no form in JSON",
    );
    check(
        "github.call_tool(5)",
        "arguments at 1:8: a tool takes one object map, as in `github.call_tool(\"name\", #{name: value})`; it was given (i64)",
    );
    check("[github, 0.0 / 0.0]", r#"["<server github>",null]"#);
    check("parse_json(\"[1, 99999999999999999999]\")", r#"[1,"99999999999999999999"]"#);
    check("parse_json(\"[931577.2233720369, 0.30000000000000004]\")", "[931577.2233720369,0.30000000000000004]");
    // No JSON becomes JSON by the quotes that keep their digits.
    for text in ["--99999999999999999999", "[099999999999999999999]", "{99999999999999999999 : 1}"] {
        check(
            &format!("let m = (); try {{ parse_json(\"{text}\") }} catch (e) {{ m = e.message.split(\":\")[0] }} m"),
            r#""not JSON""#,
        );
    }
    check("", "null");
    check("return 5; 6", "5");
    check("exit(3)", "3");
}

#[test]
fn functions_that_natives_call_are_interrupted() {
    for source in [
        "let a = []; a.pad(1000, 1); a.map(|x| a.map(|y| a.map(|z| z).len()).len())",
        "fn f() { parallel([|| f(), || f()]) } f()",
    ] {
        assert_eq!(failure(source).unwrap_err().kind, "stopped", "script: {source}");
    }
}

#[test]
fn the_rest_of_the_door() {
    check("__tool_namespaces", r#"["github","jira","_3d","files"]"#);
    check("fn f() { __tool_namespaces.len() } f()", "4");
    check("search_tools(\"issue\").results[0].name", r#""issue/full""#);
    check(
        "search_tools(\"issue\", \"names\").results[0].name + search_tools().results[0].name",
        r#""issue/names/full""#,
    );
    check("search_tools(\"\", \"none\")", "runtime at 1:1: detail_level is `none`");
    assert_eq!(
        outcome("print(\"a\"); print(#{x: 1}); debug(\"b\"); print(github)").1,
        ["a", "#{\"x\": 1}", "[1:29] \"b\"", "<server github>"]
    );
}
