//! Code mode as an MCP server: the tools `execute_code`, `search_tools` and `read_guide`, for an agent's own MCP client. Knows rmcp; knows
//! the client only as [`CodeMode`].

mod arguments;
mod content;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::{Peer, QuitReason, RequestContext, ServerInitializeError, ServiceExt};
use rmcp::{RoleServer, ServerHandler};
use serde::Serialize;

use arguments::Arguments;

use crate::catalog::SearchResults;
use crate::error::Error;
use crate::script::{CODE_MODE_PROMPT, Execution};
use crate::tool::{BoxFuture, Detail};

/// How much the tool `execute_code` of a code-mode server says of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Description {
    /// What a model needs most, in at most 1,024 characters; the rest is what the tool `read_guide` gives.
    #[default]
    Short,
    /// The whole guide, some 4,600 characters, for clients that cut nothing.
    Guide,
}

/// What the server offers to its clients.
pub(crate) trait CodeMode: Send + Sync + 'static {
    fn execute(&self, code: String, timeout: Option<Duration>) -> BoxFuture<'_, Result<Execution, Error>>;
    fn search(&self, query: String, detail: Detail) -> BoxFuture<'_, Result<SearchResults, Error>>;
    /// Names of the servers in scripts.
    fn namespaces(&self) -> Vec<String>;
    /// How long a script may take, and takes where its caller does not say less.
    fn wall_time(&self) -> Duration;
    /// How much the description of `execute_code` says.
    fn description(&self) -> Description;
    /// Tells who is served, and can be asked what servers ask.
    fn serves(&self, peer: &Peer<RoleServer>);
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
        let code_mode = Arc::clone(&self.code_mode);
        let service = match self.serve(rmcp::transport::stdio()).await {
            Ok(service) => service,
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()), // a client that changed its mind
            Err(error) => return Err(failed(error.to_string())),
        };
        code_mode.serves(service.peer());
        match service.waiting().await {
            Ok(QuitReason::JoinError(error)) | Err(error) => Err(failed(error.to_string())),
            Ok(_) => Ok(()),
        }
    }
}

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
        Ok(ListToolsResult::with_all_items(tools::tools(self.code_mode.wall_time(), self.code_mode.description())))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Arguments(call.arguments.unwrap_or_default());
        // A call that the client cancels ends its script.
        tokio::select! {
            answer = self.answer(&call.name, &arguments) => Ok(answer.unwrap_or_else(|reason| said(reason, true)).into()),
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled by the client", None)),
        }
    }
}

impl CodeModeServer {
    /// What a tool gives.
    ///
    /// # Errors
    /// In words for the model, who sees the result of a tool, and mostly not the error of a request.
    async fn answer(&self, tool: &str, arguments: &Arguments) -> Result<CallToolResult, String> {
        match tool {
            "execute_code" => {
                let code = arguments.code()?;
                let (timeout, note) = arguments.timeout(self.code_mode.wall_time())?;
                let execution = self.code_mode.execute(code, timeout).await;
                let mut execution = execution.map_err(|error| error.with_causes())?;
                execution.logs.splice(0..0, note);
                result(&execution, execution.error.is_some())
            }
            "search_tools" => {
                let found = self.code_mode.search(arguments.query()?.into(), arguments.detail()?).await;
                result(&found.map_err(|error| error.with_causes())?, false)
            }
            "read_guide" => Ok(said(CODE_MODE_PROMPT, false)),
            other => {
                Err(format!("there is no tool `{other}`: there are `execute_code`, `search_tools` and `read_guide`"))
            }
        }
    }
}

fn result(value: &impl Serialize, is_error: bool) -> Result<CallToolResult, String> {
    let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
    let mut result = CallToolResult::structured(value.clone());
    result.content = content::blocks(&value);
    result.is_error = Some(is_error);
    Ok(result)
}

/// Words for the model.
fn said(text: impl Into<String>, is_error: bool) -> CallToolResult {
    let mut result = CallToolResult::default();
    result.content = vec![ContentBlock::text(text)];
    result.is_error = Some(is_error);
    result
}
