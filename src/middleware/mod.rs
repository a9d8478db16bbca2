//! Hooks around every request to a server: the trait, the chain that a request passes, and the middleware that ships. Knows neither
//! sessions nor transports.

mod limit;
mod log;
mod metrics;
mod retry;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

pub use async_trait::async_trait;
use futures_util::FutureExt;
use rmcp::model::{
    ClientConfig, CompleteRequestParams, CompleteResult, GetPromptRequestParams, GetPromptResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, LoggingLevel, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResult, ServerPeerInfo,
};
use serde_json::{Map, Value};

use crate::error::{Error, panic_message};
use crate::tool::{BoxFuture, Failure, FailureKind, ToolAnswer, ToolCall, ToolPage};

pub(crate) use limit::Lane;
pub use limit::Limit;
pub(crate) use log::RequestLog;
pub use log::TraceContext;
pub use metrics::{Durations, Metrics, RequestMetrics};
pub use retry::Retry;

/// One request to one server, on its way through the middleware.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request<K: Kind = Any> {
    /// Counts the requests of a client; the same in all middleware, and in all tries of one that retries.
    pub id: u64,
    /// Name of the server in the configuration.
    pub server: Arc<str>,
    /// `pipe` for child processes and servers in this process, else `tcp`.
    pub transport: &'static str,
    /// When the request was made.
    pub at: SystemTime,
    /// What is sent as `_meta`, beside what the protocol itself needs there.
    pub meta: Map<String, Value>,
    /// For middleware to leave notes for those further in; it is not sent.
    pub metadata: Map<String, Value>,
    /// What is asked.
    pub params: K::Params,
}

impl<K: Kind> Request<K> {
    /// The method, such as `tools/call`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        K::method(&self.params)
    }

    /// What a middleware that does not let the request pass answers: an error with [`FailureKind::Rejected`], which a script catches as
    /// one with the kind `rejected`. For a call of a tool it is [`Error::Call`], else [`Error::Request`].
    #[must_use]
    pub fn rejection(&self, message: impl Into<String>) -> Error {
        let (kind, message) = (FailureKind::Rejected, message.into());
        match K::tool(&self.params) {
            Some(tool) => Failure::new(kind, &self.server, tool, message).into(),
            None => Error::Request { server: self.server.to_string(), method: self.method(), kind, message },
        }
    }

    fn with<Other: Kind>(self, change: impl FnOnce(K::Params) -> Other::Params) -> Request<Other> {
        let Self { id, server, transport, at, meta, metadata, params } = self;
        Request { id, server, transport, at, meta, metadata, params: change(params) }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A kind of request, with the types of its parameters and its answer.
pub trait Kind: sealed::Sealed + Send + Sync + Sized + 'static {
    /// What is asked.
    type Params: Clone + fmt::Debug + Send + Sync + 'static;
    /// What comes back.
    type Answer: Send + 'static;

    #[doc(hidden)]
    fn method(params: &Self::Params) -> &'static str;
    /// The tool that is called, if one is.
    #[doc(hidden)]
    fn tool(params: &Self::Params) -> Option<&str>;
    #[doc(hidden)]
    fn general(params: Self::Params) -> Params;
    #[doc(hidden)]
    fn special(answer: Answer) -> Option<Self::Answer>;
}

/// Any kind of request: what [`Middleware::on_request`] sees.
#[derive(Clone, Copy, Debug)]
pub enum Any {}

impl sealed::Sealed for Any {}

impl Kind for Any {
    type Params = Params;
    type Answer = Answer;

    fn method(params: &Params) -> &'static str {
        params.method()
    }

    fn tool(params: &Params) -> Option<&str> {
        match params {
            Params::CallTool(call) => Some(&call.name),
            _ => None,
        }
    }

    fn general(params: Params) -> Params {
        params
    }

    fn special(answer: Answer) -> Option<Answer> {
        Some(answer)
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $kind:ident, $hook:ident: $method:literal, $params:ty => $answer:ty;)*) => {
        /// The parameters of a request, by its kind.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum Params {
            $(#[doc = concat!("Of `", $method, "`.")] $kind($params),)*
        }

        impl Params {
            /// The method, such as `tools/call`.
            #[must_use]
            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $method,)*
                }
            }
        }

        /// The answer to a request, by its kind.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum Answer {
            $(#[doc = concat!("To `", $method, "`.")] $kind($answer),)*
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub enum $kind {}

            impl sealed::Sealed for $kind {}

            impl Kind for $kind {
                type Params = $params;
                type Answer = $answer;

                fn method(_: &$params) -> &'static str {
                    $method
                }

                fn tool(params: &$params) -> Option<&str> {
                    let params: &dyn std::any::Any = params;
                    params.downcast_ref::<ToolCall>().map(|call| &*call.name)
                }

                fn general(params: $params) -> Params {
                    Params::$kind(params)
                }

                fn special(answer: Answer) -> Option<$answer> {
                    match answer {
                        Answer::$kind(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*

        /// Sees every request to every server, and may change it, answer it, repeat it, delay it or reject it.
        ///
        /// A request passes the middleware in the order in which they were given: through each one's [`on_request`](Self::on_request), and
        /// from there, as `next` is run, through the hook of its kind. What is not written passes the request on. Middleware sees what is
        /// asked of a server, not how: pages of a list are single requests, and the rounds of a request that the server wants more input
        /// for, or of a task that is asked after, are one.
        ///
        /// A request that finds no connection makes one before it is sent, so that `initialize` and the first `logging/setLevel` pass the
        /// middleware while that request is in it: do not make them wait for a request to end. Pings that keep a connection alive do not
        /// pass, nor does what the code-mode session is asked.
        ///
        /// A hook that panics fails the request that it panicked on, as one that rejects it.
        ///
        /// ```
        /// use rhaiway::middleware::{CallTool, Middleware, Next, Request, async_trait};
        /// use rhaiway::{Error, ToolAnswer};
        ///
        /// struct ReadOnly;
        ///
        /// #[async_trait]
        /// impl Middleware for ReadOnly {
        ///     async fn on_call_tool(&self, request: Request<CallTool>, next: Next<'_, CallTool>) -> Result<ToolAnswer, Error> {
        ///         if request.params.name.starts_with("delete") {
        ///             return Err(request.rejection("deleting is not allowed here"));
        ///         }
        ///         next.run(request).await
        ///     }
        /// }
        /// let client = rhaiway::Client::builder().middleware(ReadOnly).build()?;
        /// # Ok::<(), Error>(())
        /// ```
        #[async_trait]
        pub trait Middleware: Send + Sync + 'static {
            /// Every request, around the hook of its kind.
            async fn on_request(&self, request: Request, next: Next<'_, Any>) -> Result<Answer, Error> {
                next.run(request).await
            }

            $(
                $(#[$doc])*
                async fn $hook(&self, request: Request<$kind>, next: Next<'_, $kind>) -> Result<$answer, Error> {
                    next.run(request).await
                }
            )*
        }

        /// Through the hook of the request's kind.
        async fn hook(middleware: &dyn Middleware, request: Request, way: Way<'_>) -> Result<Answer, Error> {
            let Request { id, server, transport, at, meta, metadata, params } = request;
            match params {
                $(Params::$kind(params) => {
                    let request = Request { id, server, transport, at, meta, metadata, params };
                    middleware.$hook(request, Next { this: None, way, kind: std::marker::PhantomData }).await.map(Answer::$kind)
                })*
            }
        }
    };
}

requests! {
    /// The handshake: `initialize`, or with servers of protocol 2026-07-28 `server/discover`.
    Initialize, on_initialize: "initialize", Box<ClientConfig> => Arc<ServerPeerInfo>;
    /// A call of a tool.
    CallTool, on_call_tool: "tools/call", ToolCall => ToolAnswer;
    /// A page of the list of tools.
    ListTools, on_list_tools: "tools/list", PaginatedRequestParams => ToolPage;
    /// A page of the list of resources.
    ListResources, on_list_resources: "resources/list", PaginatedRequestParams => ListResourcesResult;
    /// A page of the list of resource templates.
    ListResourceTemplates, on_list_resource_templates: "resources/templates/list", PaginatedRequestParams => ListResourceTemplatesResult;
    /// Reading a resource.
    ReadResource, on_read_resource: "resources/read", ReadResourceRequestParams => ReadResourceResult;
    /// The start of a subscription to a resource, by its URI.
    Subscribe, on_subscribe: "resources/subscribe", String => ();
    /// The end of a subscription to a resource, by its URI.
    Unsubscribe, on_unsubscribe: "resources/unsubscribe", String => ();
    /// A page of the list of prompts.
    ListPrompts, on_list_prompts: "prompts/list", PaginatedRequestParams => ListPromptsResult;
    /// Filling in a prompt.
    GetPrompt, on_get_prompt: "prompts/get", GetPromptRequestParams => GetPromptResult;
    /// Suggestions for an argument of a prompt or a resource template.
    Complete, on_complete: "completion/complete", CompleteRequestParams => CompleteResult;
    /// The least severity of log messages that the server is to send.
    SetLevel, on_set_level: "logging/setLevel", LoggingLevel => ();
    /// A sign of life.
    Ping, on_ping: "ping", () => ();
}

/// Sends what has passed all middleware.
pub(crate) trait Transmit: Send + Sync {
    fn transmit(&self, request: Request) -> BoxFuture<'_, Result<Answer, Error>>;
}

/// What is left of the way of a request.
#[derive(Clone, Copy)]
struct Way<'a> {
    rest: &'a [Arc<dyn Middleware>],
    end: &'a dyn Transmit,
}

impl Way<'_> {
    async fn run(self, request: Request) -> Result<Answer, Error> {
        let Some((first, rest)) = self.rest.split_first() else { return self.end.transmit(request).await };
        let way = Way { rest, ..self };
        let (server, method) = (Arc::clone(&request.server), request.method());
        let next = Next { this: Some(&**first), way, kind: std::marker::PhantomData };
        // Where a task of a script's panics, nobody would hear of its call again.
        let guarded = AssertUnwindSafe(async { first.on_request(request, next).await }).catch_unwind();
        guarded.await.unwrap_or_else(|panic| {
            Err(rejected(&server, method, format!("a middleware panicked: {}", panic_message(&*panic))))
        })
    }
}

/// What follows a hook. Can be run more than once.
pub struct Next<'a, K: Kind> {
    /// The middleware whose general hook this follows: the hook of the request's kind is next.
    this: Option<&'a dyn Middleware>,
    way: Way<'a>,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind> Clone for Next<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Kind> Copy for Next<'_, K> {}

impl<K: Kind> fmt::Debug for Next<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("middleware", &self.way.rest.len()).finish_non_exhaustive()
    }
}

impl<K: Kind> Next<'_, K> {
    /// Passes the request on: to the next middleware, and after the last to the server.
    ///
    /// # Errors
    /// Those of the middleware that follows, and of the request itself.
    pub async fn run(&self, request: Request<K>) -> Result<K::Answer, Error> {
        let (server, method) = (Arc::clone(&request.server), request.method());
        let request = request.with::<Any>(K::general);
        let answer = match self.this {
            Some(this) => hook(this, request, self.way).await?,
            None => self.way.run(request).await?,
        };
        let other = || rejected(&server, method, "a middleware answered with an answer of another kind".into());
        K::special(answer).ok_or_else(other)
    }
}

fn rejected(server: &str, method: &'static str, message: String) -> Error {
    Error::Request { server: server.into(), method, kind: FailureKind::Rejected, message }
}

/// The middleware of a client, in their order.
#[derive(Default)]
pub(crate) struct Chain {
    list: RwLock<Arc<[Arc<dyn Middleware>]>>,
    requests: AtomicU64,
}

impl Chain {
    pub(crate) fn add(&self, middleware: Arc<dyn Middleware>) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        *list = list.iter().cloned().chain([middleware]).collect();
    }

    /// Takes a request through all middleware, and what is left of it to its `end`.
    pub(crate) async fn run<K: Kind>(
        &self,
        server: &Arc<str>,
        transport: &'static str,
        params: K::Params,
        end: &dyn Transmit,
    ) -> Result<K::Answer, Error> {
        let list = Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner));
        let request = Request::<K> {
            id: self.requests.fetch_add(1, Ordering::Relaxed),
            server: Arc::clone(server),
            transport,
            at: SystemTime::now(),
            meta: Map::new(),
            metadata: Map::new(),
            params,
        };
        let way = Way { rest: &list, end };
        Next { this: None, way, kind: std::marker::PhantomData::<K> }.run(request).await
    }
}
