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
use tokio::sync::watch;

use super::process::{Children, Counted};
use super::wire::MESSAGE_BYTES;
use crate::sandbox::{Answer, CallFailed, TypedServer};

/// What is around an answer in its message.
const AROUND: usize = 4 << 10;

/// Serves until the other end of the pipe is closed, which ends what runs. It is one of `children` until that has ended.
pub(super) async fn serve(functions: TypedServer, pipe: DuplexStream, children: Children) {
    let (open, closed) = watch::channel(());
    if let Ok(service) = (Functions { component: functions, closed, _counted: children.count() }).serve(pipe).await {
        let _ = service.waiting().await;
    }
    drop(open);
}

struct Functions {
    component: TypedServer,
    /// Changes when nobody waits for an answer any more.
    closed: watch::Receiver<()>,
    _counted: Counted,
}

impl ServerHandler for Functions {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(self.component.name(), env!("CARGO_PKG_VERSION")))
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
        Ok(ListToolsResult::with_all_items(self.component.tools().iter().map(tool).collect()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.component.tools().iter().find(|tool| tool.name == call.name) else {
            return Err(ErrorData::invalid_params(format!("there is no function `{}`", call.name), None));
        };
        let arguments = call.arguments.unwrap_or_default();
        // For a hint, where it says that it may not, and not what.
        let paths =
            arguments.values().filter_map(Value::as_str).filter(|text| text.starts_with('/') && text.len() < 256);
        let said: Vec<String> = paths.map(String::from).collect();
        let mut closed = self.closed.clone();
        let called = tokio::select! {
            _ = closed.changed() => return Err(ErrorData::internal_error("the connection is closed", None)),
            called = self.component.call(tool, arguments) => called,
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
                let message = format!("{message}{}", self.component.denials().hint(&message, &said.join(" ")));
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
    format!("its answer is too long: a message may have {}", crate::units::size(MESSAGE_BYTES))
}
