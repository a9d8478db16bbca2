//! Arguments that a tool's schema refuses are told before the server is called; what it does not clearly refuse is sent.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rhaiway::middleware::{CallTool, Middleware, Next, Request, async_trait};
use rhaiway::{Client, Detail, Error, Execution, ToolAnswer};
use serde_json::{Value, json};

use crate::fake_server;
use crate::support::{self, Ignored, builder, client, demo, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("arguments::what_is_wrong_is_told", what_is_wrong),
        test("arguments::the_server_is_not_called", not_called),
        test("arguments::what_is_not_clearly_wrong_is_sent", not_clearly_wrong),
        test("arguments::integers_are_sent_where_the_schema_wants_them", integers),
        test("arguments::digits_pass_middleware_as_strings", digits_and_middleware),
        test("arguments::a_schema_that_is_no_use_stops_no_call", no_use),
        test("arguments::no_schema_takes_long", no_schema_takes_long),
        test("arguments::what_is_not_given_is_left_out", left_out),
        test("arguments::signatures_are_in_a_search", signatures),
    ]
}

fn servers() -> Value {
    json!({"fake": fake_server::entry("schemas"), "demo": demo()})
}

const TYPED: &str = "fake.typed(#{owner: string, number: integer, state?: \"open\" | \"closed\" = \"open\", limit?: integer, \
                     labels?: [#{name: string, colour?: string}], slug?: string, \"private\"?: boolean})";

#[track_caller]
fn refused(execution: &Execution) -> &str {
    let Some(error) = &execution.error else { panic!("it was sent: {}", execution.result) };
    assert_eq!(error.kind.as_str(), "arguments", "{error}");
    let outcomes: Vec<&str> = execution.calls.iter().map(|call| call.outcome.as_str()).collect();
    assert_eq!(outcomes, ["arguments"]);
    &error.message
}

async fn what_is_wrong() -> Result<(), Ignored> {
    let client = client(servers());
    let typed = |given: &str| format!("fake.typed(#{{owner: \"a\", {given}}})");
    for (script, problems, signature) in [
        (typed(r#"number: "5""#), "`number` has to be an integer, and was given the string \"5\"", TYPED),
        (typed("number: 5.5"), "`number` has to be an integer, and was given 5.5", TYPED),
        (typed("number: ()"), "`number` has to be an integer, and was given `()`", TYPED),
        (typed("number: true"), "`number` has to be an integer, and was given true", TYPED),
        ("fake.typed()".into(), "`owner` is missing (string)\n  `number` is missing (integer)", TYPED),
        (
            typed("nmber: 5"),
            "`number` is missing (integer), and `nmber` is no parameter: did you mean `number`?",
            TYPED,
        ),
        (typed("number: 5, stat: 1"), "`stat` is no parameter: did you mean `state`?", TYPED),
        (typed("number: 5, other: 1"), "`other` is no parameter", TYPED),
        (
            typed(r#"number: 5, state: "opened""#),
            "`state` has to be one of \"open\", \"closed\", and was given \"opened\": did you mean \"open\"?",
            TYPED,
        ),
        (typed("number: 5, limit: 10"), "`limit` has to be at most 9, and was given 10", TYPED),
        (
            typed("number: 5, slug: \"A\""),
            "`slug` has to match the pattern `^[a-z]+$`, and was given the string \"A\"",
            TYPED,
        ),
        (
            typed(r#"number: 5, labels: [#{name: "a"}, #{name: ["b"]}, #{}, 7]"#),
            "`labels[2].name` is missing (string)\n  `labels[1].name` has to be a string, and was given the array [\"b\"]\n  \
             `labels[3]` has to be a map, and was given 7",
            TYPED,
        ),
        (
            typed("number: 5, labels: [1, 2, 3, 4, 5, 6, 7]"),
            "`labels[0]` has to be a map, and was given 1\n  `labels[1]` has to be a map, and was given 2\n  \
             `labels[2]` has to be a map, and was given 3\n  `labels[3]` has to be a map, and was given 4\n  \
             `labels[4]` has to be a map, and was given 5\n  and 2 more",
            TYPED,
        ),
        (
            "let long = \"\"; long.pad(900, 'é'); fake.typed(#{owner: \"a\", number: long})".into(),
            &format!("`number` has to be an integer, and was given the string \"{}…", "é".repeat(59)),
            TYPED,
        ),
        (
            "fake.open_ended(#{tite: \"a\"})".into(),
            "`title` is missing (string), and `tite` is no parameter: did you mean `title`?",
            "fake.open_ended(#{title: string})",
        ),
        ("fake.either()".into(), "`id` or `name` is missing", "fake.either(#{id?: integer, name?: string})"),
        ("fake.nothing_at_all(#{a: 1})".into(), "`a` is no parameter", "fake.nothing_at_all()"),
        (
            "fake.call_tool(\"look-around\", #{count: \"5\"})".into(),
            "`count` has to be an integer, and was given the string \"5\"",
            "fake.look_around(#{code?: string, count?: integer})",
        ),
    ] {
        let tool = signature.split('(').next().unwrap();
        assert_eq!(
            refused(&run(&client, &script).await),
            format!("`{tool}` was not called: {problems}\n  {signature}"),
            "{script}"
        );
    }
    // Of alternatives, the one that was meant.
    for (shape, problem) in [
        ("#{kind: \"circle\", radius: \"5\"}", "`shape.radius` has to be a number, and was given the string \"5\""),
        ("#{kind: \"square\"}", "`shape.side` is missing (number)"),
        (
            "5",
            "`shape` has to be `#{kind: \"circle\", radius: number} | #{kind: \"square\", side: number} | string`, and was given 5",
        ),
    ] {
        let execution = run(&client, &format!("fake.tagged(#{{shape: {shape}}})")).await;
        let message = refused(&execution);
        assert_eq!(message.lines().next().unwrap(), format!("`fake.tagged` was not called: {problem}"));
    }
    // The place is that of the call.
    let error = run(&client, "\n  demo.get_issue(#{number: \"5\"})").await.error.unwrap();
    assert_eq!((error.line, error.column), (Some(2), Some(8)));
    client.close_all_sessions().await;
    Ok(())
}

async fn not_called() -> Result<(), Ignored> {
    let client = client(servers());
    let script = "let kinds = [];
        for given in [#{}, #{owner: 5, number: 1}, #{owner: \"a\", number: \"1\"}] { try { fake.typed(given) } catch (e) { kinds.push(e.kind) } }
        fake.typed(#{owner: \"a\", number: 1});
        [kinds, fake.calls().count]";
    let execution = run(&client, script).await;
    let calls: Vec<(&str, &str)> =
        execution.calls.iter().map(|call| (call.tool.as_str(), call.outcome.as_str())).collect();
    let typed = |outcome| ("typed", outcome);
    assert_eq!(calls, [typed("arguments"), typed("arguments"), typed("arguments"), typed("ok"), ("calls", "ok")]);
    // The server has seen the one that was right, and the question.
    assert_eq!(value(execution), json!([["arguments", "arguments", "arguments"], 2]));
    client.close_all_sessions().await;
    Ok(())
}

/// Calls tools of the fake server and compares what arrived there.
async fn arrives(cases: &[(&str, &str, Value)]) {
    let client = client(servers());
    for (tool, given, arrived) in cases {
        let answer = value(run(&client, &format!("fake.{tool}({given})")).await);
        assert_eq!(answer["arguments"], *arrived, "{tool}({given})");
    }
    client.close_all_sessions().await;
}

async fn not_clearly_wrong() -> Result<(), Ignored> {
    arrives(&[
        ("open_ended", "#{title: \"a\", tite: \"b\"}", json!({"title": "a", "tite": "b"})),
        ("sloppy", "#{site: \"no URI\"}", json!({"site": "no URI"})),
        ("sloppy", "#{both: 5}", json!({"both": 5})),
        ("required_with_default", "#{}", json!({})),
        ("look_around", "#{code: \"x1\"}", json!({"code": "x1"})),
        ("tagged", "#{shape: \"round\"}", json!({"shape": "round"})),
    ])
    .await;
    Ok(())
}

/// What a tool was sent, as it stood in the message, for these arguments.
async fn sent(client: &Client, given: &str) -> String {
    let line = value(run(client, &format!("fake.raw({given})")).await);
    let line = line.as_str().map_or_else(|| line.to_string(), String::from);
    let (_, arguments) = line.split_once("\"arguments\":").unwrap();
    // A map of ours has no braces inside of strings.
    let mut depth = 0;
    let end = arguments.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    arguments[..=end.unwrap()].into()
}

async fn integers() -> Result<(), Ignored> {
    let integer = json!({"type": "integer"});
    let properties = json!({
        "limit": integer, "page": {"anyOf": [integer, {"type": "null"}]}, "ids": {"type": "array", "items": integer},
        "window": {"type": "object", "properties": {"days": integer}}, "ratio": {"type": "number"}, "text": {"type": "string"}, "any": {},
        "of": {"$ref": "#/$defs/Count"},
    });
    let schema = json!({"type": "object", "properties": properties, "$defs": {"Count": integer}});
    let stats = r#"{"content":[],"structuredContent":{"total":30.0,"id":123456789012345678901234567890,"half":18446744073709551615}}"#;
    let tools = [json!({"name": "raw", "inputSchema": schema}), fake_server::tool("stats")];
    let server = fake_server::scripted(&tools, &[("stats", stats)]);
    let client = client(json!({"fake": server}));
    for (given, expected) in [
        ("#{limit: fake.stats().total}", r#"{"limit":30}"#),
        ("#{limit: (7.5).floor(), page: [2, 4].avg()}", r#"{"limit":7,"page":3}"#),
        ("#{ids: [1.0, 2.0], window: #{days: 7.0, hours: 1.0}}", r#"{"ids":[1,2],"window":{"days":7,"hours":1.0}}"#),
        ("#{of: 5.0}", r#"{"of":5}"#),
        ("#{ratio: 2.0, any: 2.0}", r#"{"any":2.0,"ratio":2.0}"#),
        // Digits that a script got as a string go back as they came.
        (
            "#{limit: fake.stats().id, page: fake.stats().half}",
            r#"{"limit":123456789012345678901234567890,"page":18446744073709551615}"#,
        ),
        ("#{ids: [1, fake.stats().id]}", r#"{"ids":[1,123456789012345678901234567890]}"#),
        (
            "#{text: fake.stats().id, any: fake.stats().id}",
            r#"{"any":"123456789012345678901234567890","text":"123456789012345678901234567890"}"#,
        ),
    ] {
        assert_eq!(sent(&client, given).await, expected, "{given}");
    }
    for (given, problem) in [
        ("limit: 7.5", "`limit` has to be an integer, and was given 7.5"),
        ("limit: \"12\"", "`limit` has to be an integer, and was given the string \"12\""),
        ("window: #{days: 0.5}", "`window.days` has to be an integer, and was given 0.5"),
    ] {
        let execution = run(&client, &format!("fake.raw(#{{{given}}})")).await;
        assert!(refused(&execution).contains(problem), "{}", refused(&execution));
    }
    client.close_all_sessions().await;
    // Where not all of a schema is known, what is known of it holds.
    let schema = json!({"type": "object", "properties": {"limit": {"type": "integer"}, "elsewhere": {"$ref": "https://example.com/schema"}}});
    let tools = [json!({"name": "raw", "inputSchema": schema})];
    let client = support::client(json!({"fake": fake_server::scripted(&tools, &[])}));
    assert_eq!(sent(&client, "#{limit: 2.0, elsewhere: 2.0}").await, r#"{"elsewhere":2.0,"limit":2}"#);
    client.close_all_sessions().await;
    Ok(())
}

/// Sees the arguments of calls, and changes a page.
struct Changes;

#[async_trait]
impl Middleware for Changes {
    async fn on_call_tool(
        &self,
        mut request: Request<CallTool>,
        next: Next<'_, CallTool>,
    ) -> Result<ToolAnswer, Error> {
        if let Some(page) = request.params.arguments.get_mut("page") {
            assert_eq!(page.as_str(), Some("123456789012345678901234567890"));
            *page = json!("changed");
        }
        next.run(request).await
    }
}

async fn digits_and_middleware() -> Result<(), Ignored> {
    let integer = json!({"type": "integer"});
    let schema = json!({"type": "object", "properties": {"limit": integer, "page": integer}});
    let server = fake_server::scripted(&[json!({"name": "raw", "inputSchema": schema})], &[]);
    let client = builder(json!({"fake": server})).middleware(Changes).build().unwrap();
    let long = "\"123456789012345678901234567890\"";
    assert_eq!(
        sent(&client, &format!("#{{limit: {long}, page: {long}}}")).await,
        r#"{"limit":123456789012345678901234567890,"page":"changed"}"#
    );
    client.close_all_sessions().await;
    Ok(())
}

async fn no_use() -> Result<(), Ignored> {
    let tools = ["strange_type", "elsewhere", "file", "dangling", "itself", "doubling", "deep"];
    let cases: Vec<(&str, &str, Value)> = tools.map(|tool| (tool, "#{a: 5}", json!({"a": 5}))).to_vec();
    arrives(&cases).await;
    Ok(())
}

async fn no_schema_takes_long() -> Result<(), Ignored> {
    let client = client(servers());
    run(&client, "fake.calls()").await;
    let start = Instant::now();
    let script = "let long = \"\"; long.pad(40000, 'a'); long += \"!\";
        try { fake.slow_pattern(#{a: long}) } catch (e) { print(e.kind) }
        long.pad(400000, 'a');
        [fake.slow_pattern(#{a: long}).arguments.a.len(), fake.doubling(#{a: [[5]]}).tool, fake.deep(#{a: [[5]]}).tool]";
    let execution = run(&client, script).await;
    assert_eq!(execution.logs, ["arguments"]);
    assert_eq!(value(execution), json!([400_000, "doubling", "deep"]));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    client.close_all_sessions().await;
    Ok(())
}

async fn left_out() -> Result<(), Ignored> {
    arrives(&[
        // A `null` that the schema takes is sent, one that it refuses is left out where that may be.
        (
            "typed",
            "#{owner: \"a\", number: 1, slug: (), limit: (), labels: (), state: ()}",
            json!({"owner": "a", "number": 1, "limit": null}),
        ),
        ("open_ended", "#{title: \"a\", extra: ()}", json!({"title": "a", "extra": null})),
    ])
    .await;
    let client = client(servers());
    let execution = run(&client, "fake.typed(#{owner: \"a\", number: \"1\", slug: ()})").await;
    let message = refused(&execution);
    assert!(message.contains("`number`") && !message.contains("`slug`"), "{message}");
    client.close_all_sessions().await;
    Ok(())
}

async fn signatures() -> Result<(), Ignored> {
    let client = client(servers());
    for (detail, expected) in [(Detail::Full, Some(TYPED)), (Detail::Descriptions, Some(TYPED)), (Detail::Names, None)]
    {
        let found = client.search_tools("typed", detail).await;
        let typed = found.results.iter().find(|tool| tool.name == "typed").unwrap();
        assert_eq!(typed.signature.as_deref(), expected, "{detail:?}");
    }
    let all = client.search_tools("", Detail::Full).await;
    let of = |name: &str| all.results.iter().find(|tool| tool.name == name).unwrap().signature.clone().unwrap();
    assert_eq!(of("deep"), "fake.deep(#{…})", "it is too deep");
    assert_eq!(of("elsewhere"), "fake.elsewhere(#{a?: any})");
    assert_eq!(of("list_users"), "demo.list_users()");
    client.close_all_sessions().await;
    Ok(())
}
