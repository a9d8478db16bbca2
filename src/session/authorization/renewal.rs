//! Tokens that are over are renewed, by one connection and one process at a time: a refresh token is often good for one time only, and one
//! that is used twice may cost the login.

use std::time::Duration;

use rmcp::transport::auth::{AuthError, CredentialStore, OAuthClientConfig};
use tokio::sync::MutexGuard;

use super::grants::quietly;
use super::problem::explain;
use super::tokens::{TokenLock, Tokens, locked};
use super::{Attempt, OAuth, Problem, State};
use crate::config::Grant;

/// How long to wait for others that renew the tokens: longer than one request may take. Then they are renewed all the same.
pub(super) const LOCK: Duration = Duration::from_secs(40);

/// The right to change what is kept for a server, as far as others ask for it.
pub(super) struct Turn<'a> {
    _here: Option<MutexGuard<'a, ()>>,
    _elsewhere: Option<TokenLock>,
}

impl OAuth {
    /// Waits for those who change what is kept for the server: connections of this client, and other processes.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let here = tokio::time::timeout(LOCK, self.login.keeping.lock()).await.ok();
        Turn { _here: here, _elsewhere: locked(&*self.store, &self.key, LOCK).await }
    }

    /// New tokens in place of `tokens`, without asking anybody.
    pub(super) async fn renew(&self, state: &mut State, tokens: &Tokens, challenge: &str) -> Result<(), Problem> {
        if self.config.grant != Grant::AuthorizationCode {
            return self.obtain(state, &Attempt::quiet(), challenge, Vec::new()).await;
        }
        // Others do not wait for what comes before the one request that counts.
        if tokens.refresh_token.is_some() {
            self.discover(state, challenge).await?;
        }
        let _turn = match &tokens.refresh_token {
            Some(_) => Some(self.turn().await),
            None => None,
        };
        // Another process may have renewed them meanwhile.
        let stored = self.load().await?;
        let another = stored.filter(|stored| stored.access_token != tokens.access_token);
        match another {
            Some(newer) if !newer.are_over() => self.take(state, Some(newer)),
            // Even if what it got is over again, the older refresh token is used up.
            Some(newer) => {
                self.take(state, Some(newer.clone()))?;
                self.refresh(state, &newer).await
            }
            None => self.refresh(state, tokens).await,
        }
    }

    /// Has the authorisation server give new tokens for a refresh token, and keeps them.
    async fn refresh(&self, state: &mut State, tokens: &Tokens) -> Result<(), Problem> {
        if tokens.refresh_token.is_none() {
            return Err(Problem::failed("they can't be renewed"));
        }
        self.discover(state, "").await?;
        let Some(server) = &mut state.server else { return Err(Problem::failed("there is no authorisation server")) };
        let registration = &tokens.registration;
        if registration.issuer != server.metadata.issuer {
            return Err(Problem::failed("they are those of another authorisation server"));
        }
        let redirect_uri = registration.redirect_uri.clone().unwrap_or_else(|| self.url.to_string());
        let mut client = OAuthClientConfig::new(&registration.id, redirect_uri);
        client.client_secret.clone_from(&registration.secret);
        self.client.hide(&registration.secret);
        server.manager.configure_client(client).map_err(|error| explain(&error))?;
        server.slot.save(tokens.to_rmcp()?).await.map_err(|error| explain(&error))?;
        let mut renewed = match quietly(server.manager.refresh_token()).await {
            Ok(answer) => self.tokens(&answer, registration.clone(), &tokens.scopes)?,
            Err(error) => {
                if matches!(error, AuthError::TokenRefreshRejected(_)) {
                    match self.load().await? {
                        // Where there is no lock, somebody else may have been faster.
                        Some(other) if other.access_token != tokens.access_token => {
                            if !other.are_over() {
                                return self.take(state, Some(other));
                            }
                        }
                        _ => {
                            state.tokens = None;
                            let _ = self.store.remove(&self.key).await;
                        }
                    }
                }
                return Err(explain(&error));
            }
        };
        // A renewal that brings no refresh token leaves the one that there is.
        if renewed.refresh_token.is_none() {
            renewed.refresh_token.clone_from(&tokens.refresh_token);
        }
        // Where there are none any more, somebody wants them to be forgotten.
        let kept = match self.store.load(&self.key).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => self.save(&renewed).await,
        };
        if let Err(error) = kept {
            tracing::warn!(server = self.key.server, %error, "the renewed tokens could not be kept");
        }
        tracing::debug!(server = self.key.server, "renewed the tokens");
        self.take(state, Some(renewed))
    }
}
