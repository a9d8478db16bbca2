//! What gives requests to one server over HTTP the right to be answered: a static token, or OAuth 2.1. A transport asks
//! [`Authorization::authorize`] for the headers of a request, tells [`Authorization::answered`] what came of it, and sends it again where
//! that says so. Knows no transport; rmcp does discovery, registration and the exchange of codes (`grants.rs`).

mod addresses;
mod answers;
mod client;
mod dpop;
mod grants;
mod kept;
mod problem;
mod renewal;
mod tokens;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;
use rmcp::transport::auth::WWWAuthenticateParams;
use tokio::sync::watch;

use super::ConfigPlace;
use crate::config::{AuthConfig, HttpConfig, OAuthConfig};
use crate::error::Error;
use addresses::Guard;
use client::Client;
use dpop::Key;
use grants::Server;
pub(super) use kept::{forget, log_in, stored};
pub(super) use problem::Problem;
pub(crate) use tokens::MemoryStore;
use tokens::{Registration, Tokens, words};
pub use tokens::{StoredAuthorization, TokenKey, TokenLock, TokenStore};

/// How often more access is asked for, for the sake of one request.
const STEP_UPS: u32 = 2;
/// Half of the time after which rmcp takes a server for one of an older revision.
const LONG: Duration = Duration::from_secs(5);
/// How long nobody is asked again after a login that came to nothing.
const PAUSE: Duration = Duration::from_mins(1);
/// How long tokens that are still good are not renewed again after that failed.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// A place in the browser where a person has to agree.
#[derive(Clone)]
#[non_exhaustive]
pub struct AuthorizationRequest {
    /// The server that wants authorisation, by its name in the configuration.
    pub server: String,
    /// What to open in the browser.
    pub url: String,
    /// Where the browser is sent afterwards. What it is then asked for, with all parameters, is the answer.
    pub redirect_uri: String,
}

impl fmt::Debug for AuthorizationRequest {
    /// Without the parameters of the address, which are for the browser alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .field("server", &self.server)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}

/// Has a person agree: the address that the browser was sent to, or why there is none.
pub(crate) type Ask = Arc<dyn Fn(AuthorizationRequest) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// How the servers of a client are authorised.
#[derive(Clone)]
pub(crate) struct AuthorizationSettings {
    pub(crate) store: Arc<dyn TokenStore>,
    /// Where the browser is sent, and who opens it.
    pub(crate) ask: Option<(String, Ask)>,
    logins: Arc<Logins>,
}

impl Default for AuthorizationSettings {
    fn default() -> Self {
        Self { store: Arc::new(MemoryStore::default()), ask: None, logins: Arc::default() }
    }
}

/// The logins of a client. They are not a connection's, as one that fails must not be what makes somebody be asked again.
#[derive(Default)]
struct Logins {
    servers: Mutex<HashMap<TokenKey, Arc<Login>>>,
    /// Closed when the client is gone.
    client: watch::Sender<()>,
}

impl Logins {
    fn of(&self, key: &TokenKey) -> Arc<Login> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(key.clone()).or_default())
    }
}

/// Logging in to one server.
#[derive(Default)]
struct Login {
    one_at_a_time: tokio::sync::Mutex<()>,
    /// Changing what is kept for the server.
    keeping: tokio::sync::Mutex<()>,
    /// The last one, if it came to nothing.
    failed: Mutex<Option<(Instant, Problem)>>,
    /// Why there are no tokens, if somebody wanted them last, whether or not it came to asking anybody.
    last: Mutex<Option<Problem>>,
}

impl Login {
    /// Why nobody is asked now, if so.
    fn problem(&self) -> Option<Problem> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE).map(|(_, problem)| problem.clone())
    }

    fn ended(&self, problem: Option<&Problem>) {
        let failed = problem.map(|problem| (Instant::now(), problem.clone()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn came_to(&self, problem: Option<&Problem>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = problem.cloned();
    }

    fn last(&self) -> Option<Problem> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one request has been through, so that it is not sent for ever.
#[derive(Clone, Default)]
pub(super) struct Attempt {
    /// Whether it is not worth asking anybody.
    quiet: bool,
    /// The access token that it went out with.
    used: Option<String>,
    refused: bool,
    nonce_wanted: bool,
    step_ups: u32,
}

impl Attempt {
    /// One for whose sake nobody is asked.
    pub(super) fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }
}

/// How the requests to one server are authorised. Requests that need new tokens at the same time wait for the same ones.
pub(super) enum Authorization {
    /// By the user's own headers, or not at all.
    None,
    /// By a token that never changes.
    Token(HeaderValue),
    OAuth(Arc<OAuth>),
}

pub(super) struct OAuth {
    key: TokenKey,
    url: Url,
    config: OAuthConfig,
    store: Arc<dyn TokenStore>,
    ask: Option<(String, Ask)>,
    login: Arc<Login>,
    /// Closed when the client is gone.
    owner: watch::Receiver<()>,
    client: Client,
    state: tokio::sync::Mutex<State>,
    /// In milliseconds, how long people have been asked; while one is, it is odd (see [`Asking`]).
    asked: AtomicU64,
}

#[derive(Default)]
struct State {
    loaded: bool,
    tokens: Option<Arc<Tokens>>,
    /// As which the client is known, if it is.
    registration: Option<Registration>,
    /// The authorisation server, once it was looked for.
    server: Option<Server>,
    /// When the tokens were last to be renewed, if that failed.
    renewal_failed: Option<Instant>,
    /// Whether it was said that secrets go to a server that the user has not named.
    warned: bool,
}

impl State {
    /// The tokens, if they are to be renewed before they are used.
    fn due(&self) -> Option<Arc<Tokens>> {
        let failed = self.renewal_failed.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE);
        self.tokens.clone().filter(|tokens| tokens.are_over() && !(failed && tokens.are_good()))
    }
}

impl Authorization {
    /// `http` sets up a client for requests to authorisation servers; `proxied` says whether they go through a proxy.
    pub(super) fn new(
        config: &HttpConfig,
        url: &Url,
        place: &ConfigPlace<'_>,
        settings: &AuthorizationSettings,
        http: reqwest::ClientBuilder,
        proxied: bool,
    ) -> Result<Self, Error> {
        let own = config.headers.keys().any(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        let oauth = match &config.auth {
            None if own => return Ok(Self::None),
            Some(_) if own => return Err(place.wrong("auth", "it excludes the header `Authorization`: keep one")),
            None => OAuthConfig::default(),
            Some(AuthConfig::Token(token)) => {
                let mut header = HeaderValue::from_str(&with_scheme(&place.expand("auth", token)?))
                    .map_err(|_| place.wrong("auth", "it has characters that no HTTP header can hold"))?;
                header.set_sensitive(true);
                return Ok(Self::Token(header));
            }
            Some(AuthConfig::OAuth(config)) => expanded(config, place)?,
        };
        let key = TokenKey { server: place.server.into(), url: url.to_string() };
        let named = [&oauth.issuer].into_iter().flatten();
        let provider = oauth.identity_provider.iter().map(|provider| &provider.token_endpoint);
        let guard = Guard::new(url, named.chain(provider).map(String::as_str));
        let client = Client::new(http, guard, proxied).map_err(|error| Error::Connect {
            server: place.server.into(),
            message: format!("the HTTP client can't be set up: {error}"),
            stderr: Vec::new(),
        })?;
        let provider = oauth.identity_provider.as_ref();
        let secrets = [&oauth.client_secret, &oauth.private_key, &oauth.assertion].into_iter().flatten();
        client.hide(
            secrets
                .chain(provider.iter().flat_map(|provider| provider.client_secret.iter().chain([&provider.id_token]))),
        );
        let (state, asked) = Default::default();
        // Not the settings themselves, by which it is known that there is a client.
        let AuthorizationSettings { store, ask, logins } = settings.clone();
        let (login, owner) = (logins.of(&key), logins.client.subscribe());
        let (url, config) = (url.clone(), oauth);
        Ok(Self::OAuth(Arc::new(OAuth { key, url, config, store, ask, login, owner, client, state, asked })))
    }

    /// Adds to `headers` what authorises a request, if there is something.
    ///
    /// # Errors
    /// If there are tokens that can't be used.
    pub(super) async fn authorize(
        &self,
        attempt: &mut Attempt,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
    ) -> Result<(), Problem> {
        match self {
            Self::None => Ok(()),
            Self::Token(header) => {
                headers.insert(AUTHORIZATION, header.clone());
                Ok(())
            }
            Self::OAuth(oauth) => oauth.authorize(attempt, method, url, headers).await,
        }
    }

    /// Takes the answer to a request: whether to authorise it anew, and to send it again.
    ///
    /// # Errors
    /// If the answer says that the request is not authorised, and it can't be.
    pub(super) async fn answered(
        &self,
        attempt: &mut Attempt,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<bool, Problem> {
        match self {
            Self::Token(_) if status == StatusCode::UNAUTHORIZED => Err(Problem::TokenRefused),
            Self::None | Self::Token(_) => Ok(false),
            Self::OAuth(oauth) => oauth.answered(attempt, url, status, headers).await,
        }
    }

    /// Waits for `work`, for `bound` and as long as a person is asked. `None` if that is over.
    pub(super) async fn within<T>(&self, bound: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut left = bound;
        let mut asked = self.asked();
        loop {
            if let Ok(done) = tokio::time::timeout(left, &mut work).await {
                return Some(done);
            }
            // What a person took of it is given again.
            let now = self.asked();
            left = now.0.saturating_sub(asked.0).min(bound);
            asked = now;
            if now.1 {
                left = left.max(Duration::from_millis(100));
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// How long people have been asked, and whether one is being asked now.
    fn asked(&self) -> (Duration, bool) {
        match self {
            Self::OAuth(oauth) => {
                let asked = oauth.asked.load(Ordering::Acquire);
                (Duration::from_millis(asked & !1), asked & 1 == 1)
            }
            Self::None | Self::Token(_) => (Duration::ZERO, false),
        }
    }

    /// Whether somebody logged in, and took so long for it that the server may have seemed to be silent.
    pub(super) fn took_long(&self) -> bool {
        let Self::OAuth(oauth) = self else { return false };
        let has_tokens = oauth.state.try_lock().is_ok_and(|state| state.tokens.is_some());
        has_tokens && self.asked().0 > LONG
    }
}

impl OAuth {
    /// Does what must not end with the request that needs it: somebody may have been asked, or a refresh token be used up.
    async fn detached<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(self))).await;
        done.unwrap_or_else(|_| Err(Problem::failed("it was broken off")))
    }

    async fn authorize(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
    ) -> Result<(), Problem> {
        // It has nothing to wait for: where somebody is asked, the tokens do not serve.
        if attempt.quiet && self.asked.load(Ordering::Acquire) & 1 == 1 {
            return Err(self.login_needed());
        }
        let tokens = self.current().await?;
        attempt.used = tokens.as_ref().map(|tokens| tokens.access_token.clone());
        let Some(tokens) = tokens else { return Ok(()) };
        let key = self.client.key().filter(|_| tokens.dpop_key.is_some());
        let scheme = if key.is_some() { "DPoP" } else { "Bearer" };
        let mut header = HeaderValue::from_str(&format!("{scheme} {}", tokens.access_token))
            .map_err(|_| Problem::failed("the access token has characters that no HTTP header can hold"))?;
        header.set_sensitive(true);
        headers.insert(AUTHORIZATION, header);
        if let Some(key) = key {
            headers.insert(dpop::PROOF, key.proof(method, url, Some(&tokens.access_token), &self.client.nonces)?);
        }
        Ok(())
    }

    async fn answered(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<bool, Problem> {
        self.client.nonces.remember(url, headers);
        let challenge: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenge = challenge.join(", ");
        match status {
            StatusCode::UNAUTHORIZED => {
                if attempt.used.is_some() && !attempt.nonce_wanted && challenge.contains(dpop::USE_NONCE) {
                    attempt.nonce_wanted = true;
                    return Ok(true);
                }
                if std::mem::replace(&mut attempt.refused, true) {
                    return Err(Problem::NewTokensRefused);
                }
                let attempt = attempt.clone();
                self.detached(|oauth| async move { oauth.refused(&attempt, &challenge).await }).await?;
                Ok(true)
            }
            StatusCode::FORBIDDEN => {
                let params = WWWAuthenticateParams::parse(&challenge, &self.url);
                if !params.is_insufficient_scope() {
                    return Ok(false);
                }
                attempt.step_ups += 1;
                let scopes = words(&params.scope.unwrap_or_default());
                let attempt = attempt.clone();
                self.detached(|oauth| async move { oauth.step_up(&attempt, &challenge, scopes).await }).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The tokens to use now, renewed if they are over.
    async fn current(self: &Arc<Self>) -> Result<Option<Arc<Tokens>>, Problem> {
        {
            let mut state = self.state.lock().await;
            if !state.loaded {
                let stored = self.load().await?;
                self.take(&mut state, stored)?;
                state.loaded = true;
            }
            if state.due().is_none() {
                return Ok(state.tokens.clone());
            }
        }
        self.detached(|oauth| async move { Ok(oauth.renewed().await) }).await
    }

    /// The tokens, renewed unless another request has done that meanwhile.
    async fn renewed(&self) -> Option<Arc<Tokens>> {
        let mut state = self.state.lock().await;
        if let Some(tokens) = state.due()
            && let Err(problem) = self.renew(&mut state, &tokens, "").await
        {
            state.renewal_failed = Some(Instant::now());
            // The server itself says whether they are over, and what to do then.
            tracing::debug!(server = self.key.server, %problem, "the tokens are over and were not renewed");
        }
        state.tokens.clone()
    }

    /// New tokens after the server refused those that a request came with, if it did with any.
    async fn refused(&self, attempt: &Attempt, challenge: &str) -> Result<(), Problem> {
        let used = attempt.used.as_deref();
        let mut state = self.state.lock().await;
        if state.tokens.as_ref().is_some_and(|tokens| Some(tokens.access_token.as_str()) != used) {
            return Ok(()); // another request has got them
        }
        // Another process may have, too.
        let stored = self.load().await?;
        if stored.as_ref().is_some_and(|tokens| Some(tokens.access_token.as_str()) != used && !tokens.are_over()) {
            return self.take(&mut state, stored);
        }
        let mut not_renewed = None;
        if let Some(tokens) = state.tokens.clone().or(stored.map(Arc::new))
            && tokens.refresh_token.is_some()
        {
            match self.renew(&mut state, &tokens, challenge).await {
                Ok(()) => return Ok(()),
                Err(problem) => {
                    tracing::debug!(server = self.key.server, %problem, "the tokens were refused and not renewed");
                    not_renewed = Some(problem);
                }
            }
        }
        state.tokens = None;
        let obtained = self.obtain(&mut state, attempt, challenge, Vec::new()).await;
        match (obtained, not_renewed) {
            (Err(Problem::LoginNeeded { server, .. }), Some(Problem::Failed(problem))) => {
                let reason = format!("; its tokens were not renewed: {problem}");
                Err(Problem::LoginNeeded { server, reason })
            }
            (obtained, _) => obtained,
        }
    }

    /// Tokens with more scopes, after the server said that those of a request do not suffice.
    async fn step_up(&self, attempt: &Attempt, challenge: &str, wanted: Vec<String>) -> Result<(), Problem> {
        let mut state = self.state.lock().await;
        let granted = match &state.tokens {
            Some(tokens) if Some(&tokens.access_token) != attempt.used.as_ref() => return Ok(()),
            Some(tokens) => tokens.scopes.clone(),
            None => Vec::new(),
        };
        let needed = || Problem::AccessNeeded { server: self.key.server.clone(), scopes: wanted.join(" ") };
        let has_all = wanted.iter().all(|scope| granted.contains(scope));
        if attempt.step_ups > STEP_UPS || has_all {
            return Err(Problem::Failed(format!(
                "it wants the scopes `{}`, and refuses tokens that were to have them",
                wanted.join(" ")
            )));
        }
        if !self.can_obtain(attempt) {
            return Err(needed());
        }
        let mut scopes = granted;
        scopes.extend(wanted.iter().cloned());
        self.obtain(&mut state, attempt, challenge, scopes).await
    }

    fn login_needed(&self) -> Problem {
        Problem::LoginNeeded { server: self.key.server.clone(), reason: String::new() }
    }

    /// Makes tokens those that are used.
    fn take(&self, state: &mut State, tokens: Option<Tokens>) -> Result<(), Problem> {
        if let Some(tokens) = &tokens {
            if let Some(key) = &tokens.dpop_key {
                self.client.set_key(Some(Key::from_text(key)?));
            }
            state.registration = Some(tokens.registration.clone());
        }
        state.renewal_failed = None;
        state.tokens = tokens.map(Arc::new);
        Ok(())
    }

    async fn load(&self) -> Result<Option<Tokens>, Problem> {
        load(&self.key, &*self.store).await.map_err(|error| Problem::Failed(format!("can't load its tokens: {error}")))
    }

    async fn save(&self, tokens: &Tokens) -> io::Result<()> {
        let text = serde_json::to_string(tokens).map_err(io::Error::other)?;
        self.store.save(&self.key, &text).await
    }
}

/// What is kept for a server. What can't be read is as good as nothing.
async fn load(key: &TokenKey, store: &dyn TokenStore) -> io::Result<Option<Tokens>> {
    let text = store.load(key).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// A person is being asked, as long as this lives.
struct Asking<'a> {
    asked: &'a AtomicU64,
    since: Instant,
}

impl<'a> Asking<'a> {
    fn new(asked: &'a AtomicU64) -> Self {
        asked.fetch_or(1, Ordering::AcqRel);
        Self { asked, since: Instant::now() }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX / 4) & !1;
        // Ends being odd, and adds what it took; one at a time, as the state is locked.
        let before = self.asked.load(Ordering::Acquire) & !1;
        self.asked.store(before.saturating_add(took), Ordering::Release);
    }
}

fn expanded(config: &OAuthConfig, place: &ConfigPlace<'_>) -> Result<OAuthConfig, Error> {
    let mut config = config.clone();
    for (key, text) in [
        ("auth.client_id", &mut config.client_id),
        ("auth.client_secret", &mut config.client_secret),
        ("auth.client_metadata_url", &mut config.client_metadata_url),
        ("auth.issuer", &mut config.issuer),
        ("auth.private_key", &mut config.private_key),
        ("auth.assertion", &mut config.assertion),
    ] {
        if let Some(text) = text {
            *text = place.expand(key, text)?;
        }
    }
    for scope in &mut config.scopes {
        *scope = place.expand("auth.scopes", scope)?;
    }
    if let Some(provider) = &mut config.identity_provider {
        for (key, text) in [
            ("issuer", &mut provider.issuer),
            ("token_endpoint", &mut provider.token_endpoint),
            ("client_id", &mut provider.client_id),
            ("id_token", &mut provider.id_token),
        ] {
            *text = place.expand(&format!("auth.identity_provider.{key}"), text)?;
        }
        if let Some(secret) = &mut provider.client_secret {
            *secret = place.expand("auth.identity_provider.client_secret", secret)?;
        }
    }
    Ok(config)
}

/// A token as the header has it: `Bearer` before one that has no scheme. No token has a space in it.
fn with_scheme(token: &str) -> String {
    match token.trim().split_once(char::is_whitespace) {
        None => format!("Bearer {}", token.trim()),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => format!("Bearer {}", token.trim_start()),
        Some(_) => token.trim().into(),
    }
}
