//! A client for the MCP conformance suite, made of [`rhaiway::Client`] alone: one process a scenario. The suite gives the server's URL
//! as the last argument, and the scenario with what it needs to know in variables. `tests/conformance.rs` runs all scenarios.

#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a program is told what to do by its variables")]

use std::error::Error;
use std::process::ExitCode;

use rhaiway::model::{ElicitResult, ElicitationAction};
use rhaiway::{CallOptions, Client, Config, Session};
use serde_json::{Map, Value, json};

const SERVER: &str = "conformance";
/// Nobody listens there, as no browser goes there.
const REDIRECT_URI: &str = "http://127.0.0.1:8765/callback";
/// The metadata document that the suite expects clients to name.
const CLIENT_METADATA_URL: &str = "https://conformance-test.local/client-metadata.json";

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
    let entry = json!({"url": url, "auth": authorization(scenario)});
    let client = Client::builder()
        .config(Config::from_value(json!({"mcpServers": {SERVER: entry}}))?)
        .on_authorization(REDIRECT_URI, |request| async move {
            agree(&request.url).await.map_err(|error| error.to_string())
        })
        // The form as it comes: what is left out has its defaults.
        .on_elicitation(|_, _| async {
            Ok::<_, rhaiway::Error>(ElicitResult::new(ElicitationAction::Accept).with_content(json!({})))
        })
        .build()?;
    let outcome = match client.create_session(SERVER).await {
        Ok(session) => use_server(scenario, &session).await,
        Err(error) => Err(error.into()),
    };
    client.close_all_sessions().await;
    outcome
}

/// The entry's `auth`, with the credentials of the scenario.
fn authorization(scenario: &Scenario) -> Value {
    let given = |key: &str| scenario.context[key].clone();
    match scenario.name.as_str() {
        "auth/client-credentials-basic" => json!({
            "grant": "client_credentials", "client_id": given("client_id"), "client_secret": given("client_secret"),
        }),
        "auth/client-credentials-jwt" => json!({
            "grant": "client_credentials", "client_id": given("client_id"), "private_key": given("private_key_pem"),
            "algorithm": given("signing_algorithm"),
        }),
        "auth/wif-jwt-bearer" => json!({
            "grant": "jwt_bearer", "client_id": given("client_id"), "assertion": given("valid_jwt"),
        }),
        "auth/enterprise-managed-authorization" | "auth/cross-app-access-complete-flow" => json!({
            "grant": "enterprise_managed", "client_id": given("client_id"), "client_secret": given("client_secret"),
            "identity_provider": {
                "issuer": given("idp_issuer"), "token_endpoint": given("idp_token_endpoint"),
                "client_id": given("idp_client_id"), "id_token": given("idp_id_token"),
            },
        }),
        "auth/pre-registration" => json!({
            "client_id": given("client_id"), "client_secret": given("client_secret"), "issuer": given("issuer"),
        }),
        _ => json!({"client_metadata_url": CLIENT_METADATA_URL}),
    }
}

/// Does what a browser does in which somebody has agreed before: the suite's servers redirect at once.
async fn agree(url: &str) -> Result<String, Box<dyn Error>> {
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let response = browser.get(url).send().await?;
    let location = response.headers().get("location").ok_or("it does not redirect")?;
    Ok(location.to_str()?.into())
}

/// Everything that the server offers, once, or what the scenario asks for.
async fn use_server(scenario: &Scenario, session: &Session) -> Result<(), Box<dyn Error>> {
    let tools = session.list_tools().await?;
    if let Some(calls) = scenario.context["toolCalls"].as_array() {
        for call in calls {
            let arguments = call["arguments"].as_object().cloned().unwrap_or_default();
            session.call_tool(call["name"].as_str().unwrap_or_default(), arguments, CallOptions::default()).await?;
        }
        return Ok(());
    }
    if scenario.name == "json-schema-2020-12-preservation" {
        let schema =
            &tools.iter().find(|tool| tool.name == "json_schema_2020_12_tool").ok_or("no such tool")?.input_schema;
        let arguments = Map::from_iter([("schema".to_string(), json!(schema))]);
        session.call_tool("json_schema_echo", arguments, CallOptions::default()).await?;
        return Ok(());
    }
    if scenario.name == "json-schema-ref-no-deref" {
        return Ok(()); // its tool can't be called
    }
    for tool in &tools {
        session.call_tool(&tool.name, sample(&tool.input_schema), CallOptions::default()).await?;
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
