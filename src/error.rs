//! The one error of the library. A script that fails is no [`Error`]: it is a value, [`Execution::error`](crate::Execution).

use std::path::PathBuf;

use crate::near::did_you_mean_or;
use crate::tool::{Failure, FailureKind};

/// What went wrong outside a script.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("can't {action} `{path}`")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::sync::Arc<std::io::Error>,
    },
    /// A configuration is not what it has to be, at a JSON path such as `mcpServers.files.args[0]`.
    #[error("in the configuration, {path}: {message}")]
    Config {
        /// JSON path, or the file where the whole is broken.
        path: String,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// No server of that name is configured, or it is not among the allowed ones.
    #[error("there is no server `{name}`{}", known_names(name, known))]
    UnknownServer {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The server is configured, but no session is open.
    #[error("there is no open session for the server `{server}`: create one first")]
    NoSession {
        /// The server.
        server: String,
    },
    /// A server could not be started or reached, or did not answer as an MCP server.
    #[error("can't connect to the server `{server}`: {message}{}", stderr_lines(stderr))]
    Connect {
        /// The server.
        server: String,
        /// Why.
        message: String,
        /// The last lines that it wrote to its standard error.
        stderr: Vec<String>,
    },
    /// Logging in to a server came to nothing.
    #[error("can't log in to the server `{server}`: {message}")]
    Authorization {
        /// The server.
        server: String,
        /// Why.
        message: String,
    },
    /// What is kept to authorise requests to a server could not be read or changed.
    #[error("can't get at the tokens for the server `{server}`: {message}")]
    Tokens {
        /// The server.
        server: String,
        /// Why.
        message: String,
    },
    /// A server answered a request with an error, or not at all.
    #[error("the server `{server}` failed on `{method}`: {message}")]
    Request {
        /// The server.
        server: String,
        /// Method of the request, such as `resources/read`.
        method: &'static str,
        /// What kind of failure.
        kind: FailureKind,
        /// What the server said, or what became of the connection.
        message: String,
    },
    /// A tool could not be called, or failed.
    #[error(transparent)]
    Call(Box<Failure>),
    /// The client of the code-mode server does not speak MCP.
    #[error("can't serve code mode: {message}")]
    Serve {
        /// Why.
        message: String,
    },
    /// Code mode is off for this client.
    #[error("code mode is off for this client: build it with `code_mode(true)`")]
    CodeModeOff,
    /// A limit is out of its range.
    #[error("{message}")]
    Limit {
        /// Which, and its range.
        message: String,
    },
    /// The script sandbox could not be set up.
    #[error("can't set up the script sandbox: {message}")]
    Sandbox {
        /// Why.
        message: String,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Call(Box::new(failure))
    }
}

impl Error {
    /// Whether the fault is in the configuration rather than in a server.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::UnknownServer { .. } | Self::Limit { .. })
    }

    /// The message with those of its causes, on one line but for what a server wrote.
    #[must_use]
    pub fn with_causes(&self) -> String {
        with_causes(self)
    }

    /// What kind of failure it was, of a request or a connection.
    #[must_use]
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Request { kind, .. } => Some(*kind),
            Self::Call(failure) => Some(failure.kind),
            Self::Connect { .. } | Self::NoSession { .. } => Some(FailureKind::Connection),
            _ => None,
        }
    }

    /// Whether a server could not be reached.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}

/// An error with its causes, each said once.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

fn known_names(name: &str, known: &[String]) -> String {
    if known.is_empty() {
        ": none is configured".into()
    } else {
        did_you_mean_or(name, known.iter().map(String::as_str))
    }
}

fn stderr_lines(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("; its last lines on stderr:\n  {}", lines.join("\n  ")) }
}
