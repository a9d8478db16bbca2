//! Code mode as an MCP server: the two tools `execute_code` and `search_tools`, for an agent's own MCP client. Knows rmcp; knows the
//! client only as [`CodeMode`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{QuitReason, RequestContext, ServerInitializeError, ServiceExt};
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::catalog::SearchResults;
use crate::error::Error;
use crate::script::{CODE_MODE_PROMPT, Execution};
use crate::tool::{BoxFuture, Detail};

/// What the server offers to its clients.
pub(crate) trait CodeMode: Send + Sync + 'static {
    fn execute(&self, code: String, timeout: Option<Duration>) -> BoxFuture<'_, Result<Execution, Error>>;
    fn search(&self, query: String, detail: Detail) -> BoxFuture<'_, Result<SearchResults, Error>>;
    /// Names of the servers in scripts.
    fn namespaces(&self) -> Vec<String>;
    /// How long a script may take, and takes where its caller does not say less.
    fn wall_time(&self) -> Duration;
}

/// Serves code mode to one client.
#[derive(Clone)]
pub(crate) struct CodeModeServer {
    code_mode: Arc<dyn CodeMode>,
}

impl CodeModeServer {
    pub(crate) fn new(code_mode: Arc<dyn CodeMode>) -> Self {
        Self { code_mode }
    }

    /// Serves on this process's standard input and output until the client closes them.
    pub(crate) async fn serve_stdio(self) -> Result<(), Error> {
        let failed = |message: String| Error::Serve { message };
        let service = match self.serve(rmcp::transport::stdio()).await {
            Ok(service) => service,
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()), // a client that changed its mind
            Err(error) => return Err(failed(error.to_string())),
        };
        match service.waiting().await {
            Ok(QuitReason::JoinError(error)) | Err(error) => Err(failed(error.to_string())),
            Ok(_) => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecuteCode {
    code: String,
    /// Seconds.
    timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchTools {
    #[serde(default)]
    query: String,
    #[serde(default)]
    detail_level: Detail,
}

const EXECUTE_CODE: &str = "Runs a script that calls tools of MCP servers, and returns only the script's value. The language and its library:\n\n";

const SEARCH_TOOLS: &str =
    "Finds the tools that scripts can call, with their parameters. `server.name(#{…})` calls one in `execute_code`.";

impl ServerHandler for CodeModeServer {
    fn get_info(&self) -> ServerConfig {
        let namespaces = self.code_mode.namespaces();
        let instructions = format!(
            "Find tools with `search_tools`, then call many of them in one script with `execute_code`. Servers: {}.",
            if namespaces.is_empty() { "none".into() } else { namespaces.join(", ") }
        );
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools(self.code_mode.wall_time())))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(call.arguments.unwrap_or_default());
        let answer = async {
            match &*call.name {
                "execute_code" => {
                    let ExecuteCode { code, timeout } = parse(arguments)?;
                    let timeout = timeout.map(|timeout| seconds(timeout, self.code_mode.wall_time())).transpose()?;
                    let execution =
                        self.code_mode.execute(code, timeout).await.map_err(|error| invalid_state(&error))?;
                    answer(&execution, execution.error.is_some())
                }
                "search_tools" => {
                    let SearchTools { query, detail_level } = parse(arguments)?;
                    let results =
                        self.code_mode.search(query, detail_level).await.map_err(|error| invalid_state(&error))?;
                    answer(&results, false)
                }
                other => Err(ErrorData::invalid_params(
                    format!("there is no tool `{other}`: there are `execute_code` and `search_tools`"),
                    None,
                )),
            }
        };
        // A call that the client cancels ends its script.
        tokio::select! {
            answer = answer => answer.map(Into::into),
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled by the client", None)),
        }
    }
}

fn tools(wall_time: Duration) -> Vec<Tool> {
    let seconds = wall_time.as_secs_f64();
    let execute = json!({
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "The script, in Rhai"},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": seconds, "default": seconds, "description": "Seconds that the script may take"},
        },
        "required": ["code"],
    });
    let search = json!({
        "type": "object",
        "properties": {
            "query": {"type": "string", "default": "", "description": "Words to look for; empty for all tools"},
            "detail_level": {"type": "string", "enum": ["names", "descriptions", "full"], "default": "full"},
        },
    });
    let execution = json!({
        "type": "object",
        "properties": {
            "result": {"description": "The script's value; null if it failed"},
            "logs": {"type": "array", "items": {"type": "string"}},
            "error": {"type": ["object", "null"], "description": "Why the script failed: kind, message, line, column, source_line, hint, trace"},
            "execution_time": {"type": "number", "description": "Seconds"},
            "calls": {"type": "array", "items": {"type": "object"}, "description": "Every call of a tool, also of a script that failed"},
            "usage": {"type": "object"},
        },
        "required": ["result", "logs", "error", "execution_time", "calls", "usage"],
    });
    let found = json!({
        "type": "object",
        "properties": {
            "meta": {"type": "object"},
            "results": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["meta", "results"],
    });
    vec![
        tool("execute_code", format!("{EXECUTE_CODE}{CODE_MODE_PROMPT}"), execute, execution, ToolAnnotations::new()),
        tool("search_tools", SEARCH_TOOLS, search, found, ToolAnnotations::new().read_only(true)),
    ]
}

fn tool(
    name: &'static str,
    description: impl Into<Cow<'static, str>>,
    input: Value,
    output: Value,
    annotations: ToolAnnotations,
) -> Tool {
    let object = |schema: Value| match schema {
        Value::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    };
    let mut tool = Tool::new(name, description, object(input)).with_annotations(annotations);
    tool.output_schema = Some(object(output));
    tool
}

fn parse<T: DeserializeOwned>(arguments: Value) -> Result<T, ErrorData> {
    serde_json::from_value(arguments).map_err(|error| ErrorData::invalid_params(error.to_string(), None))
}

fn seconds(seconds: f64, max: Duration) -> Result<Duration, ErrorData> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero() && *duration <= max);
    duration.ok_or_else(|| {
        let max = max.as_secs_f64();
        ErrorData::invalid_params(
            format!("`timeout` is {seconds}, and has to be over 0 and at most {max}, this server's own"),
            None,
        )
    })
}

fn invalid_state(error: &Error) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

fn answer(value: &impl Serialize, is_error: bool) -> Result<CallToolResult, ErrorData> {
    let value = serde_json::to_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    let mut result = CallToolResult::structured(value.clone());
    result.content = vec![ContentBlock::text(value.to_string())];
    result.is_error = Some(is_error);
    Ok(result)
}
