//! A component with typed functions as an MCP server, so that it is reached as all others are: each function is a tool.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, ServiceExt};
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio::io::DuplexStream;

use super::wire::MESSAGE_BYTES;
use crate::sandbox::{Answer, CallFailed, TypedServer};

/// What is around an answer in its message.
const AROUND: usize = 4 << 10;

/// Serves until the other end of the pipe is closed.
pub(super) async fn serve(functions: TypedServer, pipe: DuplexStream) {
    if let Ok(service) = (Functions { functions }).serve(pipe).await {
        let _ = service.waiting().await;
    }
}

struct Functions {
    functions: TypedServer,
}

impl ServerHandler for Functions {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(self.functions.name(), env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |tool: &crate::sandbox::TypedTool| {
            let mut listed = Tool::new(
                tool.name.clone(),
                tool.description.clone().unwrap_or_default(),
                Arc::new(tool.input_schema.clone()),
            );
            listed.output_schema = Some(Arc::new(tool.output_schema.clone()));
            listed
        };
        Ok(ListToolsResult::with_all_items(self.functions.tools().iter().map(tool).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.functions.tools().iter().find(|tool| tool.name == call.name) else {
            return Err(ErrorData::invalid_params(format!("there is no function `{}`", call.name), None));
        };
        let arguments = call.arguments.unwrap_or_default();
        let called = tokio::select! {
            called = self.functions.call(tool, arguments) => called,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled by the client", None)),
        };
        let mut result = match called {
            Ok(Answer { text, .. }) if AROUND + text.len() > MESSAGE_BYTES => {
                CallToolResult::error(vec![ContentBlock::text(too_long())])
            }
            Ok(Answer { value, text }) => {
                // For who does not know structured content; where there is no room for both, it is alone.
                let blocks = if is_room(&text, true) { vec![ContentBlock::text(text)] } else { Vec::new() };
                let mut result = CallToolResult::success(blocks);
                result.structured_content = Some(Value::Object(value));
                result
            }
            Err(CallFailed { message, data }) => {
                let message = format!("{message}{}", self.functions.denials().hint(&message, ""));
                let data = data.filter(|data| !data.is_string());
                let is_room = is_room(&message, data.is_some());
                let message = if is_room { message } else { too_long() };
                let mut result = CallToolResult::error(vec![ContentBlock::text(message)]);
                result.structured_content = data.filter(|_| is_room);
                result
            }
        };
        result.meta = None;
        Ok(result.into())
    }
}

/// Whether there is room in a message for this text, and for the same as structured content.
fn is_room(text: &str, structured: bool) -> bool {
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        ..0x20 => 6,
        _ => 1,
    };
    let structured = if structured { text.len() } else { 0 };
    AROUND + structured + text.bytes().map(escaped).sum::<usize>() <= MESSAGE_BYTES
}

fn too_long() -> String {
    format!("its answer is too long: a message may have {MESSAGE_BYTES} bytes")
}
