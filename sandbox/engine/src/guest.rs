//! The engine as a wasm component: `sandbox/wit/engine.wit` on one side, [`Host`] on the other.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::pedantic, reason = "of the generated bindings")]

use std::rc::Rc;

use crate::{Host, Position, Refusal, ToolCall};

wit_bindgen::generate!({ world: "engine", path: "../wit" });

use self::rhaiway::engine::{host, types};

impl From<Position> for types::Position {
    fn from(Position { line, column }: Position) -> Self {
        Self { line, column }
    }
}

struct Door;

impl Host for Door {
    fn call_tool(&self, call: ToolCall<'_>) -> Result<String, Refusal> {
        host::call_tool(&host::Call {
            server: call.server.into(),
            tool: call.tool.into(),
            by_name: call.by_name,
            arguments: call.arguments.into(),
            position: call.position.map(Into::into),
        })
        .map_err(Refusal::Failed)
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        host::search_tools(query, detail_level)
    }

    fn log(&self, line: &str) {
        host::log(line);
    }
}

struct Component;

impl Guest for Component {
    fn init() {
        // A panic ends the instance; what it says would otherwise go nowhere.
        std::panic::set_hook(Box::new(|panic| host::log(&format!("[engine] {panic}"))));
        crate::init();
    }

    fn run(source: String, servers: Vec<String>) -> Result<String, types::Fault> {
        crate::run(Rc::new(Door), &source, servers).map_err(|fault| types::Fault {
            kind: fault.kind,
            message: fault.message,
            position: fault.position.map(Into::into),
            thrown: fault.thrown,
        })
    }
}

export!(Component);
