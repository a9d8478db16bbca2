//! Calls the tools the way a client does, over an in-memory connection.

#![allow(clippy::unwrap_used, clippy::panic)]

use rhaiway_demo_server::IssueTracker;
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock};
use rmcp::service::{RoleClient, RunningService, ServiceExt};
use serde_json::{Value, json};

type Client = RunningService<RoleClient, ()>;

async fn connect() -> Client {
    let (server_end, client_end) = tokio::io::duplex(4096);
    tokio::spawn(async move { IssueTracker::default().serve(server_end).await.unwrap().waiting().await });
    ().serve(client_end).await.unwrap()
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else { panic!("the arguments of {tool} are no object") };
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap()
}

async fn value(client: &Client, tool: &'static str, arguments: Value) -> Value {
    let result = call(client, tool, arguments).await;
    assert_eq!(result.is_error, Some(false), "{result:?}");
    result.structured_content.unwrap()
}

async fn failure(client: &Client, tool: &'static str, arguments: Value) -> String {
    let result = call(client, tool, arguments).await;
    assert_eq!(result.is_error, Some(true), "{result:?}");
    result.content.first().and_then(ContentBlock::as_text).unwrap().text.clone()
}

fn numbers(list: &Value) -> Vec<u64> {
    list["issues"].as_array().unwrap().iter().map(|issue| issue["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_tool_and_argument_is_described() {
    let client = connect().await;
    let info = client.peer_info().unwrap().server_info.clone().unwrap();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("rhaiway-demo", env!("CARGO_PKG_VERSION")));

    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            "add_comment",
            "close_issue",
            "create_issue",
            "deploy",
            "get_issue",
            "list_issues",
            "list_users",
            "project_report",
            "search_issues"
        ]
    );
    for tool in tools {
        assert!(tool.title.is_some() && tool.description.is_some() && tool.annotations.is_some(), "{}", tool.name);
        assert_eq!(tool.output_schema.as_ref().unwrap()["type"], "object", "{}", tool.name);
        for (argument, schema) in tool.input_schema["properties"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{argument} of {}: {schema}", tool.name);
        }
    }
}

#[tokio::test]
async fn lists_are_filtered_and_limited() {
    let client = connect().await;
    let everything = value(&client, "list_issues", json!({"state": "all"})).await;
    assert_eq!(numbers(&everything), (1..=24).collect::<Vec<_>>());

    let open = value(&client, "list_issues", json!({"limit": 3})).await;
    assert_eq!((numbers(&open), &open["total"]), (vec![1, 4, 5], &json!(16)));

    let sync = json!({"state": "closed", "label": "sync", "assignee": "tomasz"});
    assert_eq!(numbers(&value(&client, "list_issues", sync).await), [3, 8]);

    let message = failure(&client, "list_issues", json!({"assignee": "bob"})).await;
    assert_eq!(message, "there is no user `bob`; there are ines, kofi, mei, priya, tomasz");
}

#[tokio::test]
async fn searching_looks_for_every_word_in_title_and_body() {
    let client = connect().await;
    let found = value(&client, "search_issues", json!({"query": "PAUSED recording"})).await;
    assert_eq!(numbers(&found), [5, 19]);
    let message = failure(&client, "search_issues", json!({"query": " "})).await;
    assert_eq!(message, "`query` is empty");
}

#[tokio::test]
async fn a_created_issue_can_be_read_and_commented_on() {
    let client = connect().await;
    let created = value(&client, "create_issue", json!({"title": "Add a compass", "labels": ["feature"]})).await;
    assert_eq!((&created["number"], &created["priority"]), (&json!(25), &json!("normal")));
    assert_eq!(value(&client, "get_issue", json!({"number": 25})).await, created);

    let comment = json!({"number": 25, "author": "mei", "body": "Yes, please."});
    assert_eq!(value(&client, "add_comment", comment).await, json!({"number": 25, "comments": 1}));
    assert_eq!(value(&client, "get_issue", json!({"number": 25})).await["comments"][0]["author"], "mei");
}

#[tokio::test]
async fn an_issue_is_closed_only_once() {
    let client = connect().await;
    let closed = value(&client, "close_issue", json!({"number": 1, "reason": "fixed in 2.6"})).await;
    assert_eq!((&closed["state"], &closed["close_reason"]), (&json!("closed"), &json!("fixed in 2.6")));
    assert_eq!(failure(&client, "close_issue", json!({"number": 1})).await, "issue #1 is already closed");
}

#[tokio::test]
async fn the_report_adds_up() {
    let client = connect().await;
    let report = value(&client, "project_report", json!({"delay_ms": 0})).await;
    assert_eq!((&report["total"], &report["by_state"]), (&json!(24), &json!({"open": 16, "closed": 8})));
    let assigned: u64 = report["by_assignee"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(assigned, 24);
}

#[tokio::test]
async fn wrong_calls_say_what_is_wrong() {
    let client = connect().await;
    for (tool, arguments, message) in [
        ("get_issue", json!({"number": 99}), "there is no issue #99; numbers run from 1 to 24"),
        ("get_issue", json!({"number": "four"}), "invalid type: string \"four\""),
        ("list_issues", json!({"status": "all"}), "unknown field `status`, expected one of `state`"),
        ("create_issue", json!({"title": ""}), "`title` is empty"),
        ("project_report", json!({"delay_ms": 6000}), "`delay_ms` is 6000, but can be at most 5000"),
        ("deploy", json!({"environment": "production"}), "deploying to `production` needs a second approval"),
    ] {
        let actual = failure(&client, tool, arguments).await;
        assert!(actual.contains(message), "{actual}");
    }
}
