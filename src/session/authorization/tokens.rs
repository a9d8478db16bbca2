//! Tokens, and where they are kept.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rmcp::transport::auth::{OAuthTokenResponse, StoredCredentials};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Problem;

/// Tokens are renewed so long before they end, in seconds; those that are good for less than that, in the second half of it.
const RENEWAL: u64 = 30;

/// Where tokens are kept: one text for each server, which is a secret. In memory where [`ClientBuilder`](crate::ClientBuilder) is not
/// told otherwise, so that they are gone with the client.
///
/// A failure to load or to save ends a login; a failure to save renewed tokens is only logged.
#[async_trait::async_trait]
pub trait TokenStore: Send + Sync {
    /// What was saved for the server, if anything.
    async fn load(&self, key: &TokenKey) -> io::Result<Option<String>>;

    /// Keeps `tokens` for the server, in place of what was kept for it.
    async fn save(&self, key: &TokenKey, tokens: &str) -> io::Result<()>;

    /// Forgets what is kept for the server; nothing where nothing is.
    async fn remove(&self, key: &TokenKey) -> io::Result<()>;

    /// Waits until nobody else has the lock on what is kept for the server, and takes it, until it is dropped. It is taken to renew tokens,
    /// so that two processes that share the store do not use one refresh token twice; loading, saving and removing need no lock. The
    /// caller gives up the wait after a while. The lock of a process that ends has to end with it. As provided, there is none.
    async fn lock(&self, _key: &TokenKey) -> io::Result<TokenLock> {
        Ok(TokenLock::default())
    }
}

/// A lock that [`TokenStore::lock`] has taken. Dropping it gives it back.
#[derive(Default)]
#[must_use]
pub struct TokenLock {
    _held: Option<Box<dyn Send + Sync>>,
}

impl TokenLock {
    /// A lock that is given back when `held` is dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self { _held: Some(Box::new(held)) }
    }
}

impl fmt::Debug for TokenLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLock").finish_non_exhaustive()
    }
}

/// The lock on what is kept for a server; `None` where it can't be had within `bound`.
pub(super) async fn locked(store: &dyn TokenStore, key: &TokenKey, bound: Duration) -> Option<TokenLock> {
    match tokio::time::timeout(bound, store.lock(key)).await {
        Ok(Ok(lock)) => return Some(lock),
        Ok(Err(error)) => tracing::debug!(server = key.server, %error, "its tokens can't be locked"),
        Err(_) => tracing::warn!(
            server = key.server,
            "another process has the lock on its tokens for more than {} s, and is not waited for any longer",
            bound.as_secs_f64()
        ),
    }
    None
}

/// Which server tokens are for. An entry of the same name with another address has none of them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    pub(super) server: String,
    pub(super) url: String,
}

impl TokenKey {
    /// Name of the server in the configuration.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Its address, which may hold secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for TokenKey {
    /// Without the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Keeps tokens as long as the client.
#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<HashMap<TokenKey, String>>);

#[async_trait::async_trait]
impl TokenStore for MemoryStore {
    async fn load(&self, key: &TokenKey) -> io::Result<Option<String>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn save(&self, key: &TokenKey, tokens: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), tokens.into());
        Ok(())
    }

    async fn remove(&self, key: &TokenKey) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }
}

/// How the client is known to an authorisation server.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Registration {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redirect_uri: Option<String>,
    /// Who issued it, and the tokens: they are for no other server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
}

/// An access token with what belongs to it. Its JSON is what a [`TokenStore`] keeps.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    /// In seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_at: Option<u64>,
    pub(super) scopes: Vec<String>,
    pub(super) registration: Registration,
    /// The key that the access token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<String>,
}

impl Tokens {
    /// The tokens of an answer; `requested` are the scopes that are granted where it does not say which.
    pub(super) fn new(answer: &Value, registration: Registration, requested: &[String]) -> Result<Self, Problem> {
        let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let access_token = text("access_token").ok_or_else(|| Problem::failed("the answer has no access token"))?;
        // What no header can hold is no token.
        if access_token.bytes().any(|byte| !(b'!'..=b'~').contains(&byte)) {
            return Err(Problem::failed("the access token has characters that no HTTP header can hold"));
        }
        let scopes = text("scope").map_or_else(|| requested.to_vec(), words);
        let lifetime = answer.get("expires_in").and_then(Value::as_u64);
        Ok(Self {
            access_token: access_token.into(),
            refresh_token: text("refresh_token").map(String::from),
            expires_at: lifetime.map(|lifetime| now().saturating_add(lifetime)),
            renew_at: lifetime.map(|lifetime| now().saturating_add(lifetime - RENEWAL.min(lifetime / 2))),
            scopes,
            registration,
            dpop_key: None,
        })
    }

    /// Whether they are over, or nearly.
    pub(super) fn are_over(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= now())
    }

    /// Whether they can still be used.
    pub(super) fn are_good(&self) -> bool {
        self.expires_at.is_none_or(|at| at > now())
    }

    /// As rmcp has them.
    pub(super) fn to_rmcp(&self) -> Result<StoredCredentials, Problem> {
        let mut answer = json!({"access_token": self.access_token, "token_type": "Bearer"});
        if let Some(token) = &self.refresh_token {
            answer["refresh_token"] = json!(token);
        }
        let answer: OAuthTokenResponse =
            serde_json::from_value(answer).map_err(|_| Problem::failed("the tokens that are kept can't be read"))?;
        let registration = &self.registration;
        Ok(StoredCredentials::new(registration.id.clone(), Some(answer), self.scopes.clone(), None)
            .with_issuer(registration.issuer.clone()))
    }
}

/// What is known of the tokens that are kept for a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredAuthorization {
    /// The authorisation server's issuer.
    pub issuer: Option<String>,
    /// What access was granted.
    pub scopes: Vec<String>,
    /// When the access token ends; not known where it is not set.
    pub expires_at: Option<SystemTime>,
    /// Whether it can be renewed then.
    pub renewable: bool,
}

impl From<&Tokens> for StoredAuthorization {
    fn from(tokens: &Tokens) -> Self {
        Self {
            issuer: tokens.registration.issuer.clone(),
            scopes: tokens.scopes.clone(),
            expires_at: tokens.expires_at.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at))),
            renewable: tokens.refresh_token.is_some(),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The scopes in a text, each once. They have spaces between them, or as some servers write them, commas.
pub(super) fn words(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    // A scope may have a comma in it; one between scopes is where no space is, or before one.
    let has_commas = words.len() == 1 || words.iter().any(|word| word.ends_with(','));
    let words = words.into_iter().flat_map(|word| word.split(move |c| has_commas && c == ','));
    let mut seen = HashSet::new();
    words.filter(|word| !word.is_empty() && seen.insert(*word)).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody has its lock, and does not give it back.
    struct Stuck;

    #[async_trait::async_trait]
    impl TokenStore for Stuck {
        async fn load(&self, _: &TokenKey) -> io::Result<Option<String>> {
            Ok(None)
        }

        async fn save(&self, _: &TokenKey, _: &str) -> io::Result<()> {
            Ok(())
        }

        async fn remove(&self, _: &TokenKey) -> io::Result<()> {
            Ok(())
        }

        async fn lock(&self, _: &TokenKey) -> io::Result<TokenLock> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_lock_is_not_waited_for_for_ever() {
        let key = TokenKey { server: "remote".into(), url: "http://host/mcp".into() };
        assert!(locked(&Stuck, &key, Duration::from_millis(10)).await.is_none());
        assert!(locked(&MemoryStore::default(), &key, Duration::from_millis(10)).await.is_some());
    }
}
