//! Logging in, how it stands, and logging out, for people rather than for a request: what is kept for a server is told, and forgotten here and
//! at its authorisation server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use super::dpop::Key;
use super::renewal::LOCK;
use super::tokens::{Tokens, locked};
use super::{
    Attempt, Authorization, AuthorizationSettings, ConfigPlace, OAuth, Problem, StoredAuthorization, TokenKey, load,
};
use crate::config::HttpConfig;
use crate::error::Error;

/// How long an authorisation server may take to revoke tokens, all in all.
const REVOCATION: Duration = Duration::from_secs(10);

/// Which server's tokens an entry's are.
fn key(config: &HttpConfig, entry_key: &str, place: &ConfigPlace<'_>) -> Result<TokenKey, Error> {
    let text = place.expand(entry_key, &config.url)?;
    let mut url = Url::parse(&text).map_err(|error| place.wrong(entry_key, format!("it is not a URL: {error}")))?;
    // A WebSocket begins as HTTP.
    let scheme = match url.scheme() {
        "ws" => Some("http"),
        "wss" => Some("https"),
        _ => None,
    };
    if scheme.is_some_and(|scheme| url.set_scheme(scheme).is_err()) {
        return Err(place.wrong(entry_key, "it is not a URL"));
    }
    // They are no part of where the server is, and are to be kept nowhere.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Ok(TokenKey { server: place.server.into(), url: url.to_string() })
}

/// What is known of the tokens that are kept for a server.
pub(in crate::session) async fn stored(
    config: &HttpConfig,
    entry_key: &str,
    place: &ConfigPlace<'_>,
    settings: &AuthorizationSettings,
) -> Result<Option<StoredAuthorization>, Error> {
    let key = key(config, entry_key, place)?;
    let tokens = load(&key, &*settings.store).await.map_err(|error| unkept(place, &error))?;
    Ok(tokens.as_ref().map(StoredAuthorization::from))
}

/// Logs in to a server: as `used` wants it, which uses the server; or else, where that needs no authorisation, as the server publishes it.
/// `false` where it publishes nothing.
pub(in crate::session) async fn log_in(
    config: &HttpConfig,
    entry_key: &str,
    place: &ConfigPlace<'_>,
    settings: &AuthorizationSettings,
    used: impl Future<Output = Result<(), Error>>,
    authorization: impl FnOnce() -> Result<Arc<Authorization>, Error>,
) -> Result<bool, Error> {
    let key = key(config, entry_key, place)?;
    let login = settings.logins.of(&key);
    // Somebody wants it, whatever came of it before.
    login.ended(None);
    login.came_to(None);
    let failed = |problem: &Problem| Error::Authorization { server: place.server.into(), message: problem.to_string() };
    if let Err(error) = used.await {
        return Err(login.last().as_ref().map_or(error, failed));
    }
    if load(&key, &*settings.store).await.map_err(|error| unkept(place, &error))?.is_some() {
        return Ok(true);
    }
    match &*authorization()? {
        Authorization::OAuth(oauth) => oauth.log_in_unasked().await.map_err(|problem| failed(&problem)),
        Authorization::None | Authorization::Token(_) => Ok(false),
    }
}

/// Forgets the tokens that are kept for a server, here in any case, and at its authorisation server where that can be.
pub(in crate::session) async fn forget(
    config: &HttpConfig,
    entry_key: &str,
    place: &ConfigPlace<'_>,
    settings: &AuthorizationSettings,
    authorization: Result<Arc<Authorization>, Error>,
) -> Result<(), Error> {
    let key = key(config, entry_key, place)?;
    let login = settings.logins.of(&key);
    // Whoever comes next may ask again.
    login.ended(None);
    let (tokens, removed) = {
        // Of what is being renewed, the new ones are forgotten.
        let _here = tokio::time::timeout(LOCK, login.keeping.lock()).await;
        let _elsewhere = locked(&*settings.store, &key, LOCK).await;
        (load(&key, &*settings.store).await, settings.store.remove(&key).await)
    };
    if let Ok(Some(tokens)) = tokens {
        let revoked = match authorization.as_deref() {
            Ok(Authorization::OAuth(oauth)) => tokio::time::timeout(REVOCATION, oauth.revoke(&tokens))
                .await
                .unwrap_or_else(|_| Err(format!("it took longer than {} s", REVOCATION.as_secs()))),
            Ok(Authorization::None | Authorization::Token(_)) => Err("its entry has another `auth` now".into()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = revoked {
            tracing::warn!(
                server = place.server,
                reason,
                "its tokens could not be revoked at its authorisation server: they are good there until they end"
            );
        }
    }
    removed.map_err(|error| unkept(place, &error))
}

fn unkept(place: &ConfigPlace<'_>, error: &io::Error) -> Error {
    Error::Tokens { server: place.server.into(), message: error.to_string() }
}

impl OAuth {
    /// Logs in to a server that has not asked for it. `false` where nothing says who would authorise.
    async fn log_in_unasked(self: &Arc<Self>) -> Result<bool, Problem> {
        self.detached(|oauth| async move {
            let mut state = oauth.state.lock().await;
            oauth.discover(&mut state, "").await?;
            if !state.server.as_ref().is_some_and(|server| server.discovered) {
                return Ok(false);
            }
            oauth.obtain(&mut state, &Attempt::default(), "", Vec::new()).await?;
            Ok(true)
        })
        .await
    }

    /// Has the authorisation server forget tokens, where it has an endpoint for that (RFC 7009). The refresh token comes first, as others can
    /// be had for it.
    async fn revoke(&self, tokens: &Tokens) -> Result<(), String> {
        let mut state = self.state.lock().await;
        self.discover(&mut state, "").await.map_err(|problem| problem.to_string())?;
        let Some(server) = &state.server else { return Ok(()) };
        let endpoint = server.metadata.additional_fields.get("revocation_endpoint").and_then(Value::as_str);
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else { return Ok(()) };
        let registration = &tokens.registration;
        if registration.issuer != server.metadata.issuer {
            return Err("they are those of another authorisation server".into());
        }
        if !self.may_go_to(endpoint) {
            return Err("the address for that is not HTTPS".into());
        }
        if let Some(key) = &tokens.dpop_key {
            self.client.set_key(Some(Key::from_text(key).map_err(|problem| problem.to_string())?));
        }
        self.client.hide(&registration.secret);
        let supports = |method| {
            let own = server.supports("revocation_endpoint_auth_methods_supported", method);
            own.or_else(|| server.supports("token_endpoint_auth_methods_supported", method))
        };
        let posted = supports("client_secret_post") == Some(true) && supports("client_secret_basic") == Some(false);
        let basic = registration.secret.as_deref().filter(|_| !posted).map(|secret| (registration.id.as_str(), secret));
        let mut outcome = Ok(());
        let refresh_token = tokens.refresh_token.as_deref().map(|token| ("refresh_token", token));
        for (hint, token) in refresh_token.into_iter().chain([("access_token", tokens.access_token.as_str())]) {
            let mut fields = vec![("token", token), ("token_type_hint", hint)];
            if basic.is_none() {
                fields.push(("client_id", &registration.id));
                fields.extend(registration.secret.as_deref().map(|secret| ("client_secret", secret)));
            }
            let revoked = self.client.revoke(endpoint, &fields, basic).await;
            // A server that revokes no access tokens revokes them with the refresh token that they are from.
            let with_other = |error: &String| {
                hint == "access_token" && refresh_token.is_some() && error.starts_with("unsupported_token_type")
            };
            if let Err(error) = revoked
                && !with_other(&error)
            {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }
}
