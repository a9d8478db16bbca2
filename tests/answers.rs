//! What scripts get of answers: texts as texts, what `FastMCP` wrapped without its wrapper, nothing twice, and failures by the names that
//! scripts use.

use libtest_mimic::Trial;
use rhaiway::{Detail, ExecuteOptions};
use serde_json::{Value, json};

use crate::fake_server::{scripted, tool};
use crate::fixtures;
use crate::support::{Ignored, client, need, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("answers::only_objects_and_lists_are_read_as_json", texts),
        test("answers::fastmcp_wrappers_are_taken_off", wrappers),
        test("answers::what_structured_content_repeats_is_left_out", repeated),
        test("answers::nothing_is_twice_from_real_servers", real_servers),
        test("answers::failures_name_tools_as_scripts_do", names_in_failures),
        test("answers::large_answers_are_read_too", large),
    ]
}

fn text(text: &str) -> String {
    json!({"content": [{"type": "text", "text": text}]}).to_string()
}

/// What calls of these tools come to, each with its answer.
async fn come_to(cases: &[(&str, String, Value)]) {
    let tools: Vec<Value> = cases.iter().map(|(name, ..)| tool(name)).collect();
    let answers: Vec<(&str, &str)> = cases.iter().map(|(name, answer, _)| (*name, &**answer)).collect();
    let client = client(json!({"it": scripted(&tools, &answers)}));
    for (name, answer, expected) in cases {
        let execution = run(&client, &format!("it.call_tool({name:?})")).await;
        assert_eq!(value(execution), *expected, "{name}: {answer}");
    }
    client.close_all_sessions().await;
}

async fn texts() -> Result<(), Ignored> {
    let as_it_is = [
        "10115",
        "4930123456789012345678",
        "1.10",
        "null",
        "true",
        "1e5",
        "\"as typed\"",
        "0042",
        "{a: 1}",
        "[1",
        "{} {}",
        "",
    ];
    let mut cases: Vec<_> = as_it_is.iter().map(|said| (*said, text(said), json!(said))).collect();
    cases[11].0 = "empty";
    for (said, read) in
        [("{\"a\": 1}", json!({"a": 1})), (" \n[1, 2]\n", json!([1, 2])), ("[]", json!([])), ("{}", json!({}))]
    {
        cases.push((said, text(said), read));
    }
    come_to(&cases).await;
    // So that a text that was given can be given back.
    let by_zip = json!({"name": "by_zip", "inputSchema": {"properties": {"zip": {"type": "string"}}}});
    let client = client(json!({"it": scripted(&[tool("zip"), by_zip], &[("zip", &text("10115"))])}));
    assert_eq!(value(run(&client, "it.by_zip(#{zip: it.zip()}).arguments.zip").await), json!("10115"));
    client.close_all_sessions().await;
    Ok(())
}

async fn wrappers() -> Result<(), Ignored> {
    let wrapped = |name: &str, inner: Value| {
        let schema = json!({"type": "object", "properties": {"result": inner}, "required": ["result"], "x-fastmcp-wrap-result": true,
            "$defs": {"Name": {"type": "string"}}});
        json!({"name": name, "inputSchema": {"type": "object"}, "outputSchema": schema})
    };
    let own = json!({"name": "own", "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object", "properties": {"result": {"type": "string"}}}});
    let tools = [
        wrapped("names", json!({"type": "array", "items": {"$ref": "#/$defs/Name"}})),
        wrapped("nothing", json!({"type": "null"})),
        wrapped("drawn", json!({"type": "integer"})),
        wrapped("more", json!({"type": "integer"})),
        tool("marked"),
        own,
    ];
    let answers = [
        (
            "names",
            r#"{"content":[{"type":"text","text":"ines"},{"type":"text","text":"mei"}],"structuredContent":{"result":["ines","mei"]}}"#,
        ),
        ("nothing", r#"{"content":[],"structuredContent":{"result":null}}"#),
        (
            "drawn",
            r#"{"content":[{"type":"image","data":"AAEC","mimeType":"image/png"}],"structuredContent":{"result":5}}"#,
        ),
        ("more", r#"{"content":[],"structuredContent":{"result":5,"more":6}}"#),
        (
            "marked",
            r#"{"content":[{"type":"text","text":"2"}],"structuredContent":{"result":2},"_meta":{"fastmcp":{"wrap_result":true}}}"#,
        ),
        ("own", r#"{"content":[{"type":"text","text":"{\"result\": \"won\"}"}],"structuredContent":{"result":"won"}}"#),
    ];
    let client = client(json!({"fast": scripted(&tools, &answers)}));
    let script = "[fast.names().map(|name| name.upper()), fast.nothing(), fast.drawn().structured, fast.drawn()._content[0].mimeType,
        fast.more().more, fast.marked(), fast.own()]";
    assert_eq!(
        value(run(&client, script).await),
        json!([["INES", "MEI"], null, 5, "image/png", 6, 2, {"result": "won"}])
    );
    let found = client.search_tools("names", Detail::Full).await;
    let expected = json!({"type": "array", "items": {"$ref": "#/$defs/Name"}, "$defs": {"Name": {"type": "string"}}});
    assert_eq!(found.results[0].output_schema, Some(expected));
    client.close_all_sessions().await;
    Ok(())
}

async fn repeated() -> Result<(), Ignored> {
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image", "data": "AAEC", "mimeType": "image/png"});
    let answer =
        |structured: &Value, blocks: &[Value]| json!({"content": blocks, "structuredContent": structured}).to_string();
    let mut cases = Vec::new();
    for (name, structured, blocks) in [
        ("same", json!({"a": 1, "b": [2.5]}), vec![text("{\n  \"b\": [2.5],\n  \"a\": 1.0\n}")]),
        ("field", json!({"content": "line one\nline two"}), vec![text("line one\nline two")]),
        ("deep", json!({"page": {"items": [{"body": "words"}]}}), vec![text("words")]),
        ("part", json!({"page": {"items": [{"body": "words"}]}}), vec![text("[{\"body\": \"words\"}]")]),
        ("items", json!({"items": ["a", {"b": 2}]}), vec![text("a"), text("{\"b\":2}")]),
        ("lines", json!({"files": ["a.txt", "b.txt"]}), vec![text("a.txt\nb.txt")]),
        ("values", json!({"result": [{"a": 1}, {"a": 2}]}), vec![text("{\"a\": 1}\n{\"a\": 2}")]),
        ("blocks", json!({"content": [image]}), vec![image.clone()]),
    ] {
        cases.push((name, answer(&structured, &blocks), structured));
    }
    for (name, structured, blocks, kept) in [
        ("warning", json!({"a": 1}), vec![text("{\"a\":1}"), text("truncated")], vec![text("truncated")]),
        ("picture", json!({"a": "x"}), vec![text("x"), image.clone()], vec![image.clone()]),
        ("another", json!({"a": 1}), vec![text("{\"a\":2}")], vec![text("{\"a\":2}")]),
        ("key", json!({"a": 1}), vec![text("a")], vec![text("a")]),
    ] {
        let mut expected = structured.clone();
        expected["_content"] = json!(kept);
        cases.push((name, answer(&structured, &blocks), expected));
    }
    come_to(&cases).await;
    Ok(())
}

async fn real_servers() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::write(root.join("hello.txt"), "hello\nfrom a file\n").unwrap();
    std::fs::write(root.join("dot.png"), [0x89, b'P', b'N', b'G', 1, 2, 3]).unwrap();
    let mut memory = need(fixtures::memory())?.entry(&[]);
    memory["env"] = json!({"MEMORY_FILE_PATH": root.join("memory.jsonl")});
    let files = need(fixtures::filesystem())?.entry(&[root.to_str().unwrap()]);
    let client = client(json!({"files": files, "memory": memory}));
    let script = r#"
        let at = |name| #{path: ROOT + "/" + name};
        memory.create_entities(#{entities: [
            #{name: "Ada", entityType: "person", observations: ["wrote the first program", "1815"]},
            #{name: "Charles", entityType: "person", observations: []}]});
        memory.create_relations(#{relations: [#{from: "Ada", to: "Charles", relationType: "knew"}]});
        let answers = #{
            text: files.read_text_file(at.call("hello.txt")),
            list: files.list_directory(#{path: ROOT}),
            media: files.read_media_file(at.call("dot.png")),
            tree: files.directory_tree(#{path: ROOT}),
            info: files.get_file_info(at.call("hello.txt")),
            graph: memory.read_graph(),
            found: memory.search_nodes(#{query: "program"}),
            opened: memory.open_nodes(#{names: ["Ada"]})
        };
        #{twice: answers.entries().filter(|entry| type_of(entry[1]) == "map" && "_content" in entry[1]).map(|entry| entry[0]),
          text: answers.text.content, graph: answers.graph.entities.len(), media: answers.media.to_json().len() < 200}
    "#
    .replace("ROOT", &format!("{:?}", root.to_str().unwrap()));
    let found = value(run(&client, &script).await);
    assert_eq!(found, json!({"twice": [], "text": "hello\nfrom a file\n", "graph": 2, "media": true}));
    client.close_all_sessions().await;
    Ok(())
}

async fn names_in_failures() -> Result<(), Ignored> {
    let fails = r#"{"content":[{"type":"text","text":"no disk"}],"isError":true}"#;
    let tools = [tool("do-it"), tool("protocol-error")];
    let client = client(json!({"my-server": scripted(&tools, &[("do-it", fails)])}));
    for (call, name, message) in [
        ("my_server.do_it()", "do_it", "`my_server.do_it` failed: no disk"),
        ("my_server.call_tool(\"do-it\")", "do-it", "`my_server.do-it` failed: no disk"),
        ("my_server.protocol_error()", "protocol_error", "`my_server.protocol_error` failed: no such thing"),
    ] {
        let caught = value(run(&client, &format!("try {{ {call} }} catch (e) {{ return [e.server, e.tool]; }}")).await);
        assert_eq!(caught, json!(["my_server", name]), "{call}");
        let execution = run(&client, call).await;
        let error = execution.error.unwrap();
        assert!(error.to_string().contains(message), "{call}: {error}");
        let own = if name == "protocol_error" { "protocol-error" } else { "do-it" };
        assert_eq!(execution.calls[0].tool, own);
    }
    client.close_all_sessions().await;
    Ok(())
}

async fn large() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.json");
    let words = "words ".repeat(100_000);
    let answer = json!({"content": [{"type": "text", "text": words}, {"type": "text", "text": "end"}], "structuredContent": {"text": words}});
    let script = json!({"tools": [tool("read")], "answers": {"read": answer.to_string()}});
    std::fs::write(&file, script.to_string()).unwrap();
    let entry = crate::fake_server::entry(&format!("file:{}", file.display()));
    let client = client(json!({"it": entry}));
    let options = ExecuteOptions::default();
    let code = "let all = it.read(); [all.text.len(), all._content.len(), all._content[0].text]";
    assert_eq!(value(client.execute_code(code, options).await.unwrap()), json!([600_000, 1, "end"]));
    client.close_all_sessions().await;
    Ok(())
}
