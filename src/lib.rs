//! Code mode for the [Model Context Protocol](https://modelcontextprotocol.io): run the [Rhai](https://rhai.rs/book) scripts that agents
//! write against the MCP servers that a user has configured.
//!
//! An agent that calls tools one by one sees every intermediate result. With code mode it sends one script, in which each server is an
//! object, and sees only what the script returns:
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), rhaiway::Error> {
//! use rhaiway::{Client, Config, ExecuteOptions};
//!
//! let client = Client::builder()
//!     .config(Config::from_file("mcp.json")?)
//!     .variables(|name| std::env::var(name).ok())
//!     .code_mode(true)
//!     .build()?;
//! let run = client
//!     .execute_code("github.list_issues(#{state: \"open\"}).issues.map(|issue| issue.title)", ExecuteOptions::default())
//!     .await?;
//! match &run.error {
//!     None => println!("{}", run.result),
//!     Some(error) => eprintln!("{error}"),
//! }
//! client.close_all_sessions().await;
//! # Ok(()) }
//! ```
//!
//! * [`Config`] reads the `mcpServers` configuration of other MCP clients.
//! * [`Client`] connects the servers, each once ([`Session`]), finds their tools ([`Client::search_tools`]) and runs scripts
//!   ([`Client::execute_code`]).
//! * An [`Execution`] is what a script came to: its value, logs, every call it made, and the [`Diagnostic`] if it failed.
//! * Scripts run as a wasm guest with hard [`Limits`]; [`Isolation::InProcess`] is for those that you trust.
//! * An [`Error`] is never a script's fault.

mod catalog;
#[expect(deprecated, reason = "sampling, roots and logging go in a later revision; today's servers use them")]
mod client;
mod config;
mod error;
mod files;
mod limits;
#[expect(deprecated, reason = "logging goes in a later revision; today's servers use it")]
pub mod middleware;
mod near;
mod sandbox;
mod script;
mod serve;
#[expect(deprecated, reason = "sampling, roots and logging go in a later revision; today's servers use them")]
mod session;
mod tool;
mod units;

pub use catalog::{FoundTool, SearchMeta, SearchResults};
pub use client::{CODE_MODE_SESSION, Client, ClientBuilder, ExecuteOptions, Sessions};
pub use config::{
    Access, AuthConfig, Config, ConfigWarning, Endpoint, Grant, HttpConfig, IdentityProvider, Input, Lifetime, Mount,
    OAuthConfig, SandboxConfig, Sandboxing, ServerConfig, ToolFilter, Transport,
};
pub use error::Error;
pub use limits::Limits;
/// Types of the protocol, as rmcp has them.
pub use rmcp::model;
pub use script::{CODE_MODE_PROMPT, Diagnostic, DiagnosticKind, Execution, Frame, Isolation, NearestLimit, Usage};
pub use serve::Description;
pub use session::authorization::{AuthorizationRequest, StoredAuthorization, TokenKey, TokenLock, TokenStore};
pub use session::{CallbackError, Origin, Permissions, ServerMessage, ServerStatus, Session, Subscription};
pub use tool::{
    CallOptions, CallRecord, Detail, Failure, FailureKind, Outcome, Progress, ProgressSink, Tool, ToolAnswer, ToolCall,
    ToolPage,
};
pub use units::parse_duration;

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
