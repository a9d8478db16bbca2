//! What servers ask of the client, and tell it: the callbacks that answer and hear it. What a callback does wrong becomes a protocol
//! error for the server and a logged error here; it ends nothing.

use std::error::Error as StdError;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{
    ClientCapabilities, ClientResult, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
    ElicitResult, ElicitationAction, ElicitationCapability, ErrorCode, ErrorData, ExtensionCapabilities,
    FormElicitationCapability, InputRequest, InputRequests, InputResponses, ListRootsResult, LoggingLevel,
    LoggingMessageNotificationParam, Root, RootsCapabilities, SamplingCapability, ServerNotification, ServerRequest,
    TASKS_EXTENSION_ID, UrlElicitationCapability,
};
use rmcp::service::{Peer, ServiceError};
use serde_json::Value;

use super::wire::Wire;
use crate::error::panic_message;
use crate::tool::BoxFuture;

/// Where a request or a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Name of the server in the configuration.
    pub server: Arc<str>,
}

/// Anything that a server sends of its own accord.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerMessage {
    /// Needs no answer.
    Notification(ServerNotification),
    /// Is answered by the callback for its kind.
    Request(ServerRequest),
}

/// Why a callback failed; the server gets an [`ErrorData`] as it is, and of others the message, as an internal error.
pub type CallbackError = Box<dyn StdError + Send + Sync>;

type Answering<P, R> = Arc<dyn Fn(P, Origin) -> BoxFuture<'static, Result<R, CallbackError>> + Send + Sync>;
type Hearing<P> = Arc<dyn Fn(P, Origin) -> BoxFuture<'static, ()> + Send + Sync>;

/// The callbacks of a client.
#[derive(Clone)]
pub(crate) struct Callbacks {
    sampling: Option<Answering<CreateMessageRequestParams, CreateMessageResult>>,
    elicitation: Option<Answering<ElicitRequestParams, ElicitResult>>,
    list_roots: Option<Answering<(), Vec<Root>>>,
    /// The roots where no callback tells them.
    roots: Option<Arc<RwLock<Vec<Root>>>>,
    logging: Option<Hearing<LoggingMessageNotificationParam>>,
    message: Option<Hearing<ServerMessage>>,
    /// The client that is served, which answers where no callback does.
    served: Arc<OnceLock<Peer<RoleServer>>>,
    /// What servers are asked to log, and what is let through of what they log all the same.
    pub(crate) log_level: LoggingLevel,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            sampling: None,
            elicitation: None,
            list_roots: None,
            roots: None,
            logging: None,
            message: None,
            served: Arc::default(),
            log_level: LoggingLevel::Warning,
        }
    }
}

/// Boxes a callback, so that a panic in it, or in the future that it returns, is an error.
fn answering<P, R, F, E>(callback: impl Fn(P, Origin) -> F + Send + Sync + 'static) -> Answering<P, R>
where
    P: Send + 'static,
    R: 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    E: Into<CallbackError>,
{
    let callback = Arc::new(callback);
    Arc::new(move |params, origin| {
        let callback = Arc::clone(&callback);
        let guarded = AssertUnwindSafe(async move { callback(params, origin).await }).catch_unwind();
        Box::pin(async move {
            match guarded.await {
                Ok(answer) => answer.map_err(Into::into),
                Err(panic) => Err(format!("the callback panicked: {}", panic_message(&*panic)).into()),
            }
        })
    })
}

fn hearing<P, F>(what: &'static str, callback: impl Fn(P, Origin) -> F + Send + Sync + 'static) -> Hearing<P>
where
    P: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let callback = Arc::new(callback);
    Arc::new(move |params, origin: Origin| {
        let (callback, server) = (Arc::clone(&callback), Arc::clone(&origin.server));
        let guarded = AssertUnwindSafe(async move { callback(params, origin).await }).catch_unwind();
        Box::pin(async move {
            if let Err(panic) = guarded.await {
                tracing::error!(
                    server = &*server,
                    callback = what,
                    panic = panic_message(&*panic),
                    "a callback panicked"
                );
            }
        })
    })
}

impl Callbacks {
    pub(crate) fn set_sampling<F, E>(
        &mut self,
        callback: impl Fn(CreateMessageRequestParams, Origin) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<CreateMessageResult, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.sampling = Some(answering(callback));
    }

    pub(crate) fn set_elicitation<F, E>(
        &mut self,
        callback: impl Fn(ElicitRequestParams, Origin) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<ElicitResult, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.elicitation = Some(answering(callback));
    }

    pub(crate) fn set_list_roots<F, E>(&mut self, callback: impl Fn(Origin) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Vec<Root>, E>> + Send + 'static,
        E: Into<CallbackError>,
    {
        self.list_roots = Some(answering(move |(), origin| callback(origin)));
    }

    pub(crate) fn set_logging<F>(
        &mut self,
        callback: impl Fn(LoggingMessageNotificationParam, Origin) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.logging = Some(hearing("logging", callback));
    }

    pub(crate) fn set_message<F>(&mut self, callback: impl Fn(ServerMessage, Origin) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.message = Some(hearing("message", callback));
    }

    /// Sets the static list of roots; `false` where servers were never told that there are any.
    pub(crate) fn set_roots(&self, roots: Vec<Root>) -> bool {
        let Some(place) = &self.roots else { return false };
        *place.write().unwrap_or_else(PoisonError::into_inner) = roots;
        true
    }

    pub(crate) fn offer_roots(&mut self, roots: Vec<Root>) {
        self.roots = Some(Arc::new(RwLock::new(roots)));
    }

    /// Has the client that is served answer what no callback answers, as far as it said that it can. The first one stays.
    pub(crate) fn pass_on_to(&self, client: Peer<RoleServer>) {
        let _ = self.served.set(client);
    }

    /// The client that is served, if it can answer servers in their way: later revisions know no requests to clients.
    fn served(&self, can: impl Fn(&ClientCapabilities) -> bool) -> Option<&Peer<RoleServer>> {
        let client = self.served.get()?;
        let info = client.peer_info()?;
        (info.protocol_version.has_initialize() && can(&info.capabilities)).then_some(client)
    }

    /// Whether anybody wants to hear what servers send of their own accord.
    pub(super) fn hear(&self) -> bool {
        self.logging.is_some() || self.message.is_some()
    }

    /// What servers are told that they may ask for.
    pub(super) fn capabilities(&self) -> ClientCapabilities {
        let mut capabilities = ClientCapabilities::default();
        let mut extensions = ExtensionCapabilities::default();
        extensions.insert(TASKS_EXTENSION_ID.into(), serde_json::Map::new());
        capabilities.extensions = Some(extensions);
        let can_sample = self.sampling.is_some() || self.served(|can| can.sampling.is_some()).is_some();
        capabilities.sampling = can_sample.then(SamplingCapability::default);
        capabilities.elicitation = if self.elicitation.is_some() {
            let forms = ElicitationCapability::new().with_form(FormElicitationCapability::default());
            Some(forms.with_url(UrlElicitationCapability::default()))
        } else {
            let client = self.served(|can| can.elicitation.is_some()).and_then(Peer::peer_info);
            client.and_then(|client| client.capabilities.elicitation.clone())
        };
        let has_roots = self.roots.is_some() || self.list_roots.is_some();
        if has_roots || self.served(|can| can.roots.is_some()).is_some() {
            let mut roots = RootsCapabilities::default();
            roots.list_changed = Some(true);
            capabilities.roots = Some(roots);
        }
        capabilities
    }

    /// Tells of a notification, in the order in which they came.
    pub(super) async fn notified(&self, notification: ServerNotification, wire: &Wire, origin: &Origin) {
        if let (Some(logging), ServerNotification::LoggingMessageNotification(message)) = (&self.logging, &notification)
            && wire.tells(message.params.level)
        {
            logging(message.params.clone(), origin.clone()).await;
        }
        if let Some(message) = &self.message {
            message(ServerMessage::Notification(notification), origin.clone()).await;
        }
    }

    /// What the server gets for a request of its own.
    pub(super) async fn answer(&self, request: ServerRequest, origin: &Origin) -> Result<ClientResult, ErrorData> {
        match request {
            ServerRequest::PingRequest(_) => Ok(ClientResult::empty(())),
            ServerRequest::CreateMessageRequest(request) => {
                let result = self.sample(request.params, origin).await?;
                Ok(ClientResult::CreateMessageResult(Box::new(result)))
            }
            ServerRequest::ListRootsRequest(_) => Ok(ClientResult::ListRootsResult(self.list_roots(origin).await?)),
            ServerRequest::ElicitRequest(request) => {
                Ok(ClientResult::ElicitResult(self.elicit(request.params, origin).await?))
            }
            ServerRequest::CustomRequest(request) => Err(unknown(&request.method)),
            _ => Err(unknown("of this request")),
        }
    }

    /// Answers what a server wants to know before it goes on with a request (protocol 2026-07-28): by the names that it gave.
    pub(super) async fn answer_all(
        &self,
        requests: InputRequests,
        origin: &Origin,
    ) -> Result<InputResponses, ErrorData> {
        let mut responses = InputResponses::new();
        for (name, request) in requests {
            let request = match request {
                InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
                InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
                InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
                _ => return Err(ErrorData::invalid_request("a kind of input that this client does not know", None)),
            };
            self.requested(request.clone(), origin).await;
            let result = self.answer(request, origin).await?;
            let value =
                serde_json::to_value(result).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            responses.insert(name, value);
        }
        Ok(responses)
    }

    /// Tells of a request; the answer comes from the callback for its kind.
    pub(super) async fn requested(&self, request: ServerRequest, origin: &Origin) {
        if let Some(message) = &self.message {
            message(ServerMessage::Request(request), origin.clone()).await;
        }
    }

    async fn sample(
        &self,
        params: CreateMessageRequestParams,
        origin: &Origin,
    ) -> Result<CreateMessageResult, ErrorData> {
        match self.served(|can| can.sampling.is_some()).filter(|_| self.sampling.is_none()) {
            Some(client) => passed_on(client.create_message(params).await),
            None => answer("sampling", self.sampling.as_ref(), params, origin).await,
        }
    }

    async fn list_roots(&self, origin: &Origin) -> Result<ListRootsResult, ErrorData> {
        let roots = match (&self.list_roots, &self.roots) {
            (None, Some(roots)) => roots.read().unwrap_or_else(PoisonError::into_inner).clone(),
            (None, None) if let Some(client) = self.served(|can| can.roots.is_some()) => {
                return passed_on(client.list_roots().await);
            }
            (callback, _) => answer("list_roots", callback.as_ref(), (), origin).await?,
        };
        Ok(ListRootsResult::new(roots))
    }

    /// What the user leaves out of a form gets the form's defaults.
    async fn elicit(&self, params: ElicitRequestParams, origin: &Origin) -> Result<ElicitResult, ErrorData> {
        let defaults: Vec<(String, Value)> = match &params {
            ElicitRequestParams::FormElicitationParams { requested_schema, .. } => {
                let schema = serde_json::to_value(requested_schema).unwrap_or_default();
                let properties = schema.get("properties").and_then(Value::as_object);
                let default = |(name, field): (&String, &Value)| Some((name.clone(), field.get("default")?.clone()));
                properties.into_iter().flatten().filter_map(default).collect()
            }
            _ => Vec::new(),
        };
        let mut result = match self.served(|can| can.elicitation.is_some()).filter(|_| self.elicitation.is_none()) {
            Some(client) => passed_on(client.create_elicitation(params).await)?,
            None => answer("elicitation", self.elicitation.as_ref(), params, origin).await?,
        };
        if result.action == ElicitationAction::Accept && !defaults.is_empty() {
            let content = result.content.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Value::Object(content) = content {
                for (name, value) in defaults {
                    content.entry(name).or_insert(value);
                }
            }
        }
        Ok(result)
    }
}

/// What the client that is served says.
fn passed_on<T>(answer: Result<T, ServiceError>) -> Result<T, ErrorData> {
    answer.map_err(|error| match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(format!("the client could not be asked: {other}"), None),
    })
}

fn unknown(method: &str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("this client does not know the method `{method}`"), None)
}

async fn answer<P, R>(
    name: &'static str,
    callback: Option<&Answering<P, R>>,
    params: P,
    origin: &Origin,
) -> Result<R, ErrorData> {
    let Some(callback) = callback else {
        let message = format!("this client has no callback for {name}");
        return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None));
    };
    callback(params, origin.clone()).await.map_err(|error| {
        tracing::error!(server = &*origin.server, callback = name, %error, "a callback failed");
        match error.downcast::<ErrorData>() {
            Ok(data) => *data,
            Err(error) => ErrorData::internal_error(error.to_string(), None),
        }
    })
}

/// The order of levels, which rmcp does not give.
pub(super) fn severity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
