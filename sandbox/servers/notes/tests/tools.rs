//! Calls the tools the way a client does, over an in-memory connection, on a folder of the test's own.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use rhaiway_notes_server::Notes;
use rmcp::model::{CallToolRequestParams, ContentBlock};
use rmcp::service::{RoleClient, RunningService, ServiceExt};
use serde_json::{Value, json};
use tempfile::TempDir;

type Client = RunningService<RoleClient, ()>;

async fn connect(folder: &Path) -> Client {
    let (server_end, client_end) = tokio::io::duplex(4096);
    let notes = Notes::new(folder);
    tokio::spawn(async move { notes.serve(server_end).await.unwrap().waiting().await });
    ().serve(client_end).await.unwrap()
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> Result<Value, String> {
    let Value::Object(arguments) = arguments else { panic!("the arguments of {tool} are no object") };
    let result = client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap();
    match result.structured_content {
        Some(value) if result.is_error == Some(false) => Ok(value),
        _ => Err(result.content.first().and_then(ContentBlock::as_text).unwrap().text.clone()),
    }
}

async fn with_notes(notes: &[(&str, &str)]) -> (TempDir, Client) {
    let folder = TempDir::new().unwrap();
    for (name, text) in notes {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let client = connect(folder.path()).await;
    (folder, client)
}

#[tokio::test]
async fn every_tool_and_argument_is_described() {
    let (_folder, client) = with_notes(&[]).await;
    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, ["append_to_note", "delete_note", "list_notes", "read_note", "search_notes", "write_note"]);
    for tool in tools {
        assert!(tool.title.is_some() && tool.description.is_some() && tool.annotations.is_some(), "{}", tool.name);
        assert_eq!(tool.output_schema.as_ref().unwrap()["type"], "object", "{}", tool.name);
        for (argument, schema) in tool.input_schema["properties"].as_object().into_iter().flatten() {
            assert!(schema["description"].is_string(), "{argument} of {}: {schema}", tool.name);
        }
    }
}

#[tokio::test]
async fn a_note_is_a_file() {
    let (folder, client) = with_notes(&[]).await;
    let file = folder.path().join("shopping list.md");
    let wanted = json!({"name": "shopping list", "text": "- tea"});
    let created = call(&client, "write_note", wanted.clone()).await;
    assert_eq!(created, Ok(json!({"name": "shopping list", "size": 5, "created": true})));
    assert_eq!(call(&client, "read_note", json!({"name": "shopping list"})).await, Ok(wanted.clone()));

    let added = call(&client, "append_to_note", json!({"name": "shopping list", "text": "- milk\n"})).await;
    assert_eq!(added, Ok(json!({"name": "shopping list", "size": 13, "created": false})));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "- tea\n- milk\n");

    let replaced = call(&client, "write_note", wanted).await.unwrap();
    assert_eq!((&replaced["created"], std::fs::read_to_string(&file).unwrap()), (&json!(false), "- tea".into()));

    let deleted = call(&client, "delete_note", json!({"name": "shopping list"})).await;
    assert_eq!(deleted, Ok(json!({"name": "shopping list", "remaining": 0})));
    assert!(!file.exists());
}

#[tokio::test]
async fn notes_are_listed_and_searched() {
    let files = [("b.md", "Tea\nwater"), ("a.md", "# Plants\nWater them"), ("c.txt", "water"), ("d.e.md", "water")];
    let (_folder, client) = with_notes(&files).await;
    let listed = call(&client, "list_notes", json!({})).await;
    let a = json!({"name": "a", "size": 19, "first_line": "# Plants"});
    assert_eq!(listed, Ok(json!({"notes": [a, {"name": "b", "size": 9, "first_line": "Tea"}]})));

    let found = call(&client, "search_notes", json!({"query": "WATER", "limit": 1})).await;
    assert_eq!(found, Ok(json!({"matches": [{"name": "a", "line": 2, "text": "Water them"}], "total": 2})));
    assert_eq!(call(&client, "search_notes", json!({"query": " "})).await, Err("`query` is empty".into()));
}

#[tokio::test]
async fn a_name_that_is_unknown_or_wrong_is_explained() {
    let (_folder, client) = with_notes(&[("shopping.md", ""), ("recipes.md", "")]).await;
    for (tool, name, said) in [
        ("read_note", "shoping", "there is no note `shoping`; did you mean `shopping`?"),
        ("append_to_note", "Recipe", "there is no note `Recipe`; did you mean `recipes`?"),
        ("delete_note", "xyz", "there is no note `xyz`; `list_notes` lists the 2 that there are"),
        ("read_note", "recipes.md", "the name of a note is given without `.md`: `recipes`"),
        (
            "write_note",
            "../x",
            "the name of a note `../x` has a '.', but can only have letters, digits, spaces, `-` and `_`",
        ),
    ] {
        let mut arguments = json!({"name": name});
        if matches!(tool, "write_note" | "append_to_note") {
            arguments["text"] = json!("text");
        }
        assert_eq!(call(&client, tool, arguments).await, Err(said.into()));
    }
}

#[tokio::test]
async fn without_its_folder_it_says_how_to_mount_one() {
    let folder = TempDir::new().unwrap();
    let client = connect(&folder.path().join("notes")).await;
    for (tool, arguments) in [
        ("list_notes", json!({})),
        ("read_note", json!({"name": "a"})),
        ("write_note", json!({"name": "a", "text": ""})),
        ("append_to_note", json!({"name": "a", "text": ""})),
        ("search_notes", json!({"query": "a"})),
        ("delete_note", json!({"name": "a"})),
    ] {
        let said = call(&client, tool, arguments).await.unwrap_err();
        assert!(said.contains(r#"add `"mounts": [{"host": "./notes", "guest": ""#), "{tool}: {said}");
    }
}
