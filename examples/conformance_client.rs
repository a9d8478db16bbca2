//! A client for the MCP conformance suite, made of [`rhaiway::Client`] alone: one process a scenario. The suite gives the server's URL
//! as the last argument, and the scenario with what it needs to know in variables. `tests/conformance.rs` runs all scenarios.

use std::error::Error;
use std::process::ExitCode;

use rhaiway::{Client, Config, Session};
use serde_json::{Map, Value, json};

const SERVER: &str = "conformance";

/// What the suite asks for.
struct Scenario {
    name: String,
    /// What the scenario tells its client, such as its credentials.
    context: Value,
}

/// Reads what the suite asks for from the arguments and variables, and does it.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let context = serde_json::from_str(&variable("MCP_CONFORMANCE_CONTEXT")).unwrap_or_default();
    let scenario = Scenario { name: variable("MCP_CONFORMANCE_SCENARIO"), context };
    match run(&scenario, &std::env::args().next_back().unwrap_or_default()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: &Scenario, url: &str) -> Result<(), Box<dyn Error>> {
    let client =
        Client::builder().config(Config::from_value(json!({"mcpServers": {SERVER: {"url": url}}}))?).build()?;
    let outcome = match client.create_session(SERVER).await {
        Ok(session) => use_server(scenario, &session).await,
        Err(error) => Err(error.into()),
    };
    client.close_all_sessions().await;
    outcome
}

/// Everything that the server offers, once, or what the scenario asks for.
async fn use_server(scenario: &Scenario, session: &Session) -> Result<(), Box<dyn Error>> {
    let tools = session.list_tools().await?;
    if let Some(calls) = scenario.context["toolCalls"].as_array() {
        for call in calls {
            let arguments = call["arguments"].as_object().cloned().unwrap_or_default();
            session.call_tool(call["name"].as_str().unwrap_or_default(), arguments, None).await?;
        }
        return Ok(());
    }
    if scenario.name == "json-schema-2020-12-preservation" {
        let schema =
            &tools.iter().find(|tool| tool.name == "json_schema_2020_12_tool").ok_or("no such tool")?.input_schema;
        let arguments = Map::from_iter([("schema".to_string(), json!(schema))]);
        session.call_tool("json_schema_echo", arguments, None).await?;
        return Ok(());
    }
    for tool in &tools {
        session.call_tool(&tool.name, sample(&tool.input_schema), None).await?;
    }
    let capabilities = session.server_info().map(|info| info.capabilities.clone()).unwrap_or_default();
    if capabilities.resources.is_some() {
        for resource in session.list_resources().await? {
            session.read_resource(&resource.uri).await?;
        }
    }
    if capabilities.prompts.is_some() {
        for prompt in session.list_prompts().await? {
            let required = prompt.arguments.iter().flatten().filter(|argument| argument.required == Some(true));
            let arguments = required.map(|argument| (argument.name.clone(), json!("sample"))).collect();
            session.get_prompt(&prompt.name, arguments).await?;
        }
    }
    Ok(())
}

/// Arguments for a tool: something for each required property.
fn sample(schema: &Value) -> Map<String, Value> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let value = |name: &str| match schema["properties"][name]["type"].as_str() {
        Some("number" | "integer") => json!(5),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("sample"),
    };
    required.map(|name| (name.to_string(), value(name))).collect()
}
