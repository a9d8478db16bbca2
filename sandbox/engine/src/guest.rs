//! The engine as a wasm component: `sandbox/wit/engine.wit` on one side, [`Host`] on the other.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::pedantic, reason = "of the generated bindings")]

use std::rc::Rc;

use crate::{Host, Position, Refusal, Ticket, ToolCall};

wit_bindgen::generate!({ world: "engine", path: "../wit" });

use self::rhaiway::engine::{host, types};

impl From<Position> for types::Position {
    fn from(Position { line, column }: Position) -> Self {
        Self { line, column }
    }
}

struct Door;

fn call(call: ToolCall<'_>) -> host::Call {
    host::Call {
        server: call.server.into(),
        tool: call.tool.into(),
        by_name: call.by_name,
        arguments: call.arguments.into(),
        position: call.position.map(Into::into),
    }
}

// Where the host refuses for good, it traps, and nothing comes back.
impl Host for Door {
    fn call_tool(&self, request: ToolCall<'_>) -> Result<String, Refusal> {
        host::call_tool(&call(request)).map_err(Refusal::Failed)
    }

    fn start_call(&self, request: ToolCall<'_>) -> Result<Option<Ticket>, Refusal> {
        Ok(host::start_call(&call(request)))
    }

    fn start_clock(&self, seconds: f64) -> Result<Ticket, Refusal> {
        Ok(host::start_clock(seconds))
    }

    fn wait_any(&self) -> Result<(Ticket, Result<String, String>), Refusal> {
        Ok(host::wait_any())
    }

    fn cancel(&self, ticket: Ticket) {
        host::cancel(ticket);
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        host::search_tools(query, detail_level)
    }

    fn now(&self) -> i64 {
        host::now()
    }

    fn random(&self) -> u64 {
        host::random()
    }

    fn log(&self, line: &str) {
        host::log(line);
    }
}

struct Component;

impl Guest for Component {
    fn init() {
        // A panic ends the instance; what it says would otherwise go nowhere.
        std::panic::set_hook(Box::new(|panic| {
            if panic.payload_as_str() == Some("capacity overflow") {
                // The script asked for more than can be addressed: ask the host for all of it, which is over any limit.
                core::arch::wasm32::memory_grow(0, 1 << 16);
            } else {
                host::log(&format!("[engine] {panic}"));
            }
        }));
        crate::init();
    }

    fn run(source: String, servers: Vec<String>, call_depth: u32) -> Result<String, types::Fault> {
        crate::run(Rc::new(Door), &source, servers, call_depth).map_err(|fault| {
            let crate::Fault { kind, message, position, hint, trace, thrown } = fault;
            let trace = trace.into_iter().map(|crate::Frame { function, position }| types::Frame {
                function,
                position: position.map(Into::into),
            });
            types::Fault { kind, message, position: position.map(Into::into), hint, trace: trace.collect(), thrown }
        })
    }
}

export!(Component);
