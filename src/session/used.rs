//! What a connection was good for: whether its server did what it is there for, before it ended.

use crate::error::Error;
use crate::middleware::{Answer, Params};
use crate::tool::FailureKind;

/// What a request uses a server for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Use {
    /// To hear what there is.
    List,
    /// To have something done, or read.
    Call,
    /// Nothing: the connection itself.
    None,
}

impl Use {
    pub(super) fn of(params: &Params) -> Self {
        match params {
            Params::ListTools(_)
            | Params::ListResources(_)
            | Params::ListResourceTemplates(_)
            | Params::ListPrompts(_) => Self::List,
            Params::Ping(()) | Params::SetLevel(_) | Params::Initialize(_) => Self::None,
            _ => Self::Call,
        }
    }
}

/// What a connection did after its handshake.
#[derive(Default)]
pub(super) struct Used {
    /// Calls were made.
    was_called: bool,
    /// One of them was answered.
    answered: bool,
    /// A list was.
    listed: bool,
}

impl Used {
    pub(super) fn asked(&mut self, what: Use) {
        self.was_called |= what == Use::Call;
    }

    pub(super) fn heard(&mut self, what: Use, answer: &Result<Answer, Error>) {
        // An error of the server's is an answer, too.
        let was_answered = match answer {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), None | Some(FailureKind::Connection | FailureKind::Timeout)),
        };
        self.answered |= was_answered && what == Use::Call;
        self.listed |= was_answered && what == Use::List;
    }

    /// Whether the server did what it is there for. One that lists its tools and ends at each call did not.
    pub(super) fn worked(&self) -> bool {
        self.answered || (self.listed && !self.was_called)
    }
}
