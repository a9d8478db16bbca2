//! How tokens are obtained: by each of the grants, and by renewing those that are over.

use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Url;
use rmcp::transport::auth::enterprise::{EmaAuthorizationServer, EmaClientAuthentication, EmaExchangeRequest};
use rmcp::transport::auth::{
    AuthError, AuthorizationCallback, AuthorizationManager, AuthorizationMetadata, AuthorizationMetadataSource,
    InMemoryCredentialStore, OAuthClientConfig, OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest,
    OAuthTokenResponse,
};
use serde_json::{Value, json};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::client::{Client, refusal};
use super::dpop::{Key, random_text};
use super::problem::{explain, shown};
use super::tokens::{Registration, Tokens, now};
use super::{Asking, Attempt, AuthorizationRequest, OAuth, Problem, State};
use crate::config::Grant;

/// Name under which the client registers itself.
const CLIENT_NAME: &str = env!("CARGO_PKG_NAME");

/// An authorisation server, and what rmcp knows of it.
pub(super) struct Server {
    pub(super) manager: AuthorizationManager,
    pub(super) metadata: AuthorizationMetadata,
    /// What rmcp takes the tokens from that it renews.
    pub(super) slot: InMemoryCredentialStore,
    /// Whether it publishes that it is one, or the MCP server names it.
    pub(super) discovered: bool,
}

impl Server {
    pub(super) fn supports(&self, key: &str, value: &str) -> Option<bool> {
        let supported = self.metadata.additional_fields.get(key)?.as_array()?;
        Some(supported.iter().any(|one| one == value))
    }

    fn flag(&self, key: &str) -> bool {
        self.metadata.additional_fields.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The resource that tokens are for, as the MCP server names itself.
    async fn resource(&mut self, client: &Client, fallback: &Url) -> Result<String, Problem> {
        // rmcp tells it in no other way.
        self.manager.configure_client_id(CLIENT_NAME).map_err(|error| explain(&error))?;
        let url = self.manager.get_authorization_url(&[]).await.map_err(|error| explain(&error))?;
        Ok(client.name_of(&parameter(&url, "resource").unwrap_or_else(|| fallback.to_string())))
    }
}

impl OAuth {
    /// Whether new tokens can be had for the sake of a request.
    pub(super) fn can_obtain(&self, attempt: &Attempt) -> bool {
        self.config.grant != Grant::AuthorizationCode || (self.ask.is_some() && !attempt.quiet)
    }

    /// Looks for the authorisation server, anew where the MCP server gives a `challenge`.
    pub(super) async fn discover(&self, state: &mut State, challenge: &str) -> Result<(), Problem> {
        if challenge.is_empty() && state.server.is_some() {
            return Ok(());
        }
        let client = Arc::new(self.client.clone());
        let mut manager = AuthorizationManager::new_with_oauth_http_client(self.url.as_str(), client)
            .await
            .map_err(|error| explain(&error))?;
        let challenge = Some(challenge).filter(|challenge| !challenge.is_empty());
        let (metadata, source) = match manager.resolve_metadata_from_challenge(challenge).await {
            Ok(found) => (found.metadata, found.source),
            Err(error @ AuthError::AuthorizationServerMismatch { .. }) => {
                let own = self.own_metadata(challenge).await.ok_or_else(|| explain(&error))?;
                (own, AuthorizationMetadataSource::AuthorizationServerMetadata)
            }
            Err(error) => return Err(explain(&error)),
        };
        let discovered = source != AuthorizationMetadataSource::LegacyEndpointFallback;
        // Where the MCP server says its name, rmcp takes it as it is; else it takes the address, with a slash and what is secret in it.
        let named = source == AuthorizationMetadataSource::ProtectedResourceMetadata;
        self.client.set_name((!named).then(|| (self.url.to_string(), canonical(&self.url))));
        let issuer = metadata.issuer.as_deref();
        if let Some(expected) = self.config.issuer.as_deref()
            && issuer != Some(expected)
        {
            return Err(Problem::Failed(format!(
                "its authorisation server is `{}`, but the `issuer` of its `auth` is `{expected}`",
                shown(issuer.unwrap_or("unknown"))
            )));
        }
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint];
        if endpoints.into_iter().chain(&metadata.registration_endpoint).any(|endpoint| !self.may_go_to(endpoint)) {
            return Err(Problem::failed("its authorisation server has an address that is not HTTPS"));
        }
        let slot = InMemoryCredentialStore::new();
        manager.set_credential_store(slot.clone());
        manager.set_metadata(metadata.clone());
        state.server = Some(Server { manager, metadata, slot, discovered });
        Ok(())
    }

    /// The metadata of an MCP server that is its own authorisation server, as in the protocol's revision 2025-03-26, which did not say
    /// who its issuer has to be. `None` for a server that names its authorisation servers, as all later ones do.
    async fn own_metadata(&self, challenge: Option<&str>) -> Option<AuthorizationMetadata> {
        if challenge.is_some_and(|challenge| challenge.contains("resource_metadata")) {
            return None;
        }
        let resource = "/.well-known/oauth-protected-resource";
        for path in [resource.to_string(), format!("{resource}{}", self.url.path())] {
            if self.client.get(&self.url.join(&path).ok()?).await.is_some() {
                return None;
            }
        }
        let metadata = self.client.get(&self.url.join("/.well-known/oauth-authorization-server").ok()?).await?;
        let mut metadata: AuthorizationMetadata = serde_json::from_value(metadata).ok()?;
        // It is not known who it is: an answer that says who it comes from is refused.
        metadata.issuer = None;
        Some(metadata)
    }

    /// Whether secrets may be sent to an address, and a browser. Without encryption, only on this machine, or where the MCP server
    /// is reached without it, too.
    pub(super) fn may_go_to(&self, address: &str) -> bool {
        let Ok(address) = Url::parse(address) else { return false };
        let local = matches!(address.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        address.scheme() == "https" || (address.scheme() == "http" && (local || self.url.scheme() == "http"))
    }

    /// Tokens where there are none that serve. `scopes` are those that are needed beside what is asked for anyway.
    pub(super) async fn obtain(
        &self,
        state: &mut State,
        attempt: &Attempt,
        challenge: &str,
        scopes: Vec<String>,
    ) -> Result<(), Problem> {
        let obtained = self.try_to_obtain(state, attempt, challenge, scopes).await;
        self.login.came_to(obtained.as_ref().err());
        obtained
    }

    async fn try_to_obtain(
        &self,
        state: &mut State,
        attempt: &Attempt,
        challenge: &str,
        scopes: Vec<String>,
    ) -> Result<(), Problem> {
        if !self.can_obtain(attempt) {
            return Err(self.login_needed());
        }
        let _turn;
        if self.config.grant == Grant::AuthorizationCode {
            _turn = if let Ok(turn) = self.login.one_at_a_time.try_lock() {
                turn
            } else {
                let turn = {
                    let _asking = Asking::new(&self.asked);
                    self.login.one_at_a_time.lock().await
                };
                // What another connection has obtained meanwhile may serve here, too.
                if let Some(stored) = self.load().await?
                    && Some(&stored.access_token) != attempt.used.as_ref()
                    && !stored.are_over()
                    && scopes.iter().all(|scope| stored.scopes.contains(scope))
                {
                    return self.take(state, Some(stored));
                }
                turn
            };
            if let Some(problem) = self.login.problem() {
                return Err(problem);
            }
        }
        self.discover(state, challenge).await?;
        self.warn(state);
        self.bind(challenge)?;
        let scopes = self.scopes(state, scopes).await;
        let tokens = match self.config.grant {
            Grant::AuthorizationCode => self.log_in(state, &scopes).await?,
            Grant::ClientCredentials => self.client_credentials(state, &scopes).await?,
            Grant::JwtBearer => self.jwt_bearer(state, &scopes).await?,
            Grant::EnterpriseManaged => self.enterprise_managed(state, &scopes).await?,
        };
        tracing::debug!(server = self.key.server, "obtained tokens");
        self.take(state, Some(tokens))
    }

    /// Says, once, that a secret goes to a server that nobody but the MCP server has named.
    fn warn(&self, state: &mut State) {
        if self.config.grant == Grant::AuthorizationCode || self.config.issuer.is_some() {
            return;
        }
        let Some(Server { metadata, .. }) = &state.server else { return };
        if !std::mem::replace(&mut state.warned, true) {
            tracing::warn!(
                server = self.key.server,
                authorization_server = shown(metadata.issuer.as_deref().unwrap_or(&metadata.token_endpoint)),
                "what its `auth` holds goes to the authorisation server that it names: set `issuer` in its `auth`, so that it \
                 goes to no other"
            );
        }
    }

    /// Decides whether the tokens are to be bound to a key.
    fn bind(&self, challenge: &str) -> Result<(), Problem> {
        let asked = challenge.split([',', ' ']).any(|word| word.eq_ignore_ascii_case("dpop"));
        if !self.config.dpop.unwrap_or(asked || self.client.key().is_some()) {
            self.client.set_key(None);
        } else if self.client.key().is_none() {
            self.client.set_key(Some(Key::generate()?));
        }
        Ok(())
    }

    /// What to ask for: what the configuration says, or else the server, and what is needed beside.
    async fn scopes(&self, state: &State, needed: Vec<String>) -> Vec<String> {
        let mut scopes = self.config.scopes.clone();
        let Some(server) = &state.server else { return scopes };
        if scopes.is_empty() && needed.is_empty() {
            scopes = if self.config.grant == Grant::AuthorizationCode {
                server.manager.select_initial_scopes(&[]).await
            } else {
                Vec::new()
            };
        }
        for scope in needed {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        let offline = "offline_access";
        let offered = server.metadata.scopes_supported.iter().flatten().any(|scope| scope == offline);
        if self.config.grant == Grant::AuthorizationCode
            && offered
            && !scopes.is_empty()
            && !scopes.iter().any(|scope| scope == offline)
        {
            scopes.push(offline.into());
        }
        scopes
    }

    pub(super) fn tokens(
        &self,
        answer: &OAuthTokenResponse,
        registration: Registration,
        scopes: &[String],
    ) -> Result<Tokens, Problem> {
        let answer = serde_json::to_value(answer).map_err(|_| Problem::failed("the answer is no token"))?;
        self.tokens_of(&answer, registration, scopes)
    }

    fn tokens_of(&self, answer: &Value, registration: Registration, scopes: &[String]) -> Result<Tokens, Problem> {
        let mut tokens = Tokens::new(answer, registration, scopes)?;
        let kind = answer.get("token_type").and_then(Value::as_str).unwrap_or_default();
        let bound = kind.eq_ignore_ascii_case("dpop");
        if self.config.dpop == Some(true) && !bound {
            return Err(Problem::failed(
                "the authorisation server does not bind tokens to a key, as `dpop` of its `auth` demands",
            ));
        }
        if bound {
            let key =
                self.client.key().ok_or_else(|| Problem::failed("the token is bound to a key that is not ours"))?;
            tokens.dpop_key = Some(key.to_text());
        }
        Ok(tokens)
    }

    /// Has a person agree in the browser.
    async fn log_in(&self, state: &mut State, scopes: &[String]) -> Result<Tokens, Problem> {
        let (redirect_uri, ask) = self.ask.as_ref().ok_or_else(|| self.login_needed())?;
        let known = state.registration.take();
        let server = state.server.as_mut().ok_or_else(|| Problem::failed("there is no authorisation server"))?;
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let registration = self.register(server, known, redirect_uri, &scopes).await?;
        let mut client = OAuthClientConfig::new(&registration.id, redirect_uri.as_str());
        client.client_secret.clone_from(&registration.secret);
        self.client.hide(&registration.secret);
        server.manager.configure_client(client).map_err(|error| explain(&error))?;
        let url = server.manager.get_authorization_url(&scopes).await.map_err(|error| explain(&error))?;
        let url = with_resource(&url, |resource| self.client.name_of(resource));
        let expected_state = parameter(&url, "state");
        let request = AuthorizationRequest { server: self.key.server.clone(), url, redirect_uri: redirect_uri.clone() };
        let agreed: Result<Tokens, Problem> = async {
            let answer = {
                let _asking = Asking::new(&self.asked);
                let mut owner = self.owner.clone();
                tokio::select! {
                    answer = ask(request) => answer.map_err(Problem::Failed)?,
                    _ = owner.changed() => return Err(Problem::failed("the client is gone")),
                }
            };
            if parameter(&answer, "state") != expected_state {
                return Err(Problem::failed("the browser came back with another `state`: it belongs to another login"));
            }
            let answer = exchange(server, &answer).await?;
            let requested: Vec<String> = scopes.iter().map(ToString::to_string).collect();
            let tokens = self.tokens(&answer, registration, &requested)?;
            let unkept = |error| Problem::Failed(format!("the tokens can't be kept: {error}"));
            let _turn = self.turn().await;
            self.save(&tokens).await.map_err(unkept)?;
            Ok(tokens)
        }
        .await;
        self.login.ended(agreed.as_ref().err());
        agreed
    }

    /// As whom the client is known to an authorisation server; registers it where it is not yet.
    async fn register(
        &self,
        server: &mut Server,
        known: Option<Registration>,
        redirect_uri: &str,
        scopes: &[&str],
    ) -> Result<Registration, Problem> {
        let issuer = server.metadata.issuer.clone();
        let new = |id: &str, secret: Option<String>| Registration {
            id: id.into(),
            secret,
            redirect_uri: Some(redirect_uri.into()),
            issuer: issuer.clone(),
        };
        if let Some(id) = &self.config.client_id {
            return Ok(new(id, self.config.client_secret.clone()));
        }
        if let Some(url) = self.config.client_metadata_url.as_deref()
            && server.flag("client_id_metadata_document_supported")
        {
            let usable = Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.path() != "/");
            if !usable {
                return Err(Problem::failed(
                    "`client_metadata_url` of its `auth` has to be an HTTPS address with a path",
                ));
            }
            return Ok(new(url, None));
        }
        if let Some(known) = known.filter(|known| {
            known.issuer == issuer && known.issuer.is_some() && known.redirect_uri.as_deref() == Some(redirect_uri)
        }) {
            return Ok(known);
        }
        if !server.discovered {
            tracing::debug!(server = self.key.server, "it publishes no OAuth metadata; the usual addresses are tried");
        }
        let registered = server.manager.register_client(CLIENT_NAME, redirect_uri, scopes).await;
        let client = registered.map_err(|error| match error {
            AuthError::RegistrationFailed(_) if server.metadata.registration_endpoint.is_none() => Problem::failed(
                "its authorisation server registers no clients: register one there, and set `client_id` of its `auth`",
            ),
            error => explain(&error),
        })?;
        Ok(new(&client.client_id, client.client_secret))
    }

    /// The client's own right, by its secret or its key. rmcp has this too, but not for threads.
    async fn client_credentials(&self, state: &mut State, scopes: &[String]) -> Result<Tokens, Problem> {
        let server = state.server.as_mut().ok_or_else(|| Problem::failed("there is no authorisation server"))?;
        let resource = server.resource(&self.client, &self.url).await?;
        let metadata = &server.metadata;
        let client_id = self.config.client_id.as_deref().unwrap_or_default();
        let scope = scopes.join(" ");
        let mut fields = vec![("grant_type", "client_credentials"), ("resource", resource.as_str())];
        if !scope.is_empty() {
            fields.push(("scope", &scope));
        }
        let supports = |method| server.supports("token_endpoint_auth_methods_supported", method);
        let secret = self.config.client_secret.as_deref().unwrap_or_default();
        let assertion;
        let mut basic = None;
        if let Some(key) = &self.config.private_key {
            if supports("private_key_jwt") == Some(false) {
                return Err(Problem::failed("the authorisation server knows clients by no key (`private_key_jwt`)"));
            }
            let audience = metadata.issuer.as_deref().unwrap_or(&metadata.token_endpoint);
            assertion = client_assertion(client_id, audience, key, self.config.algorithm.as_deref())?;
            fields.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            fields.push(("client_assertion", &assertion));
        } else if supports("client_secret_post").unwrap_or(false) {
            fields.extend([("client_id", client_id), ("client_secret", secret)]);
        } else {
            basic = Some((client_id, secret));
        }
        let answer = self.client.token_request(&metadata.token_endpoint, &fields, basic).await?;
        let registration =
            Registration { id: client_id.into(), secret: None, redirect_uri: None, issuer: metadata.issuer.clone() };
        self.tokens_of(&answer, registration, scopes)
    }

    /// Workload identity federation: what the platform says of the client is the grant (RFC 7523).
    async fn jwt_bearer(&self, state: &mut State, scopes: &[String]) -> Result<Tokens, Problem> {
        let server = state.server.as_mut().ok_or_else(|| Problem::failed("there is no authorisation server"))?;
        let resource = server.resource(&self.client, &self.url).await?;
        let scope = scopes.join(" ");
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", self.config.assertion.as_deref().unwrap_or_default()),
            ("resource", resource.as_str()),
        ];
        if !scope.is_empty() {
            fields.push(("scope", &scope));
        }
        let given = [("client_id", &self.config.client_id), ("client_secret", &self.config.client_secret)];
        fields.extend(given.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
        let answer = self.client.token_request(&server.metadata.token_endpoint, &fields, None).await?;
        let registration = Registration {
            id: self.config.client_id.clone().unwrap_or_default(),
            secret: None,
            redirect_uri: None,
            issuer: server.metadata.issuer.clone(),
        };
        self.tokens_of(&answer, registration, scopes)
    }

    /// The company's identity provider gives an assertion for this server, which is the grant (ID-JAG).
    async fn enterprise_managed(&self, state: &mut State, scopes: &[String]) -> Result<Tokens, Problem> {
        let server = state.server.as_mut().ok_or_else(|| Problem::failed("there is no authorisation server"))?;
        let resource = server.resource(&self.client, &self.url).await?;
        let (Some(provider), Some(client_id)) = (&self.config.identity_provider, &self.config.client_id) else {
            return Err(Problem::failed("it needs `identity_provider` and `client_id` in its `auth`"));
        };
        let issuer = server.metadata.issuer.clone().unwrap_or_default();
        let methods = "token_endpoint_auth_methods_supported";
        let basic = server.supports(methods, "client_secret_basic").unwrap_or(true);
        let resource_server = EmaAuthorizationServer::new(&issuer, &server.metadata.token_endpoint, client_id)
            .with_client_authentication(client_authentication(self.config.client_secret.as_deref(), basic)?);
        let identity_provider =
            EmaAuthorizationServer::new(&provider.issuer, &provider.token_endpoint, &provider.client_id)
                .with_client_authentication(client_authentication(provider.client_secret.as_deref(), true)?);
        let exchange =
            EmaExchangeRequest::new_with_id_token(identity_provider, resource_server, &resource, &provider.id_token)
                .with_scopes(scopes.iter().cloned());
        let listening = Listening { client: &self.client, refusal: Mutex::default() };
        let token = quietly(exchange.exchange(&listening, &listening)).await.map_err(|error| {
            let refusal = listening.refusal.into_inner().unwrap_or_else(PoisonError::into_inner);
            let refusal = refusal.map(|refusal| format!(": {refusal}")).unwrap_or_default();
            Problem::Failed(format!("{}{refusal}", shown(&error.to_string())))
        })?;
        let granted: Vec<&str> = token.scopes.iter().map(String::as_str).collect();
        let answer = json!({
            "access_token": token.access_token.secret(),
            "token_type": "Bearer",
            "scope": granted.join(" "),
            "expires_in": token.expires_in.map(|lifetime| lifetime.as_secs()),
        });
        let registration =
            Registration { id: client_id.clone(), secret: None, redirect_uri: None, issuer: Some(issuer) };
        self.tokens_of(&answer, registration, scopes)
    }
}

/// Hears in what words a token is refused, as what rmcp hands on of them is a few known ones.
struct Listening<'a> {
    client: &'a Client,
    refusal: Mutex<Option<String>>,
}

impl OAuthHttpClient for Listening<'_> {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let answer = self.client.execute(request).await?;
            let refusal = (!answer.status().is_success()).then(|| refusal(&answer));
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
            Ok(answer)
        })
    }
}

/// Exchanges what the browser came back with for tokens.
async fn exchange(server: &Server, answer: &str) -> Result<OAuthTokenResponse, Problem> {
    if let Some(error) = parameter(answer, "error") {
        let description = parameter(answer, "error_description");
        let description = description.map(|text| format!(": {}", shown(&text))).unwrap_or_default();
        return Err(Problem::Failed(format!("it was refused in the browser: {}{description}", shown(&error))));
    }
    let AuthorizationCallback { code, csrf_token, issuer, .. } = AuthorizationCallback::from_redirect_url(answer)
        .map_err(|_| Problem::failed("the address that the browser was sent to has no authorisation code"))?;
    let exchange = server.manager.exchange_code_for_token_with_issuer(&code, &csrf_token, issuer.as_deref());
    quietly(exchange).await.map_err(|error| explain(&error))
}

/// What a client signs to say who it is (RFC 7523).
fn client_assertion(
    client_id: &str,
    audience: &str,
    private_key: &str,
    algorithm: Option<&str>,
) -> Result<String, Problem> {
    let algorithm = match algorithm {
        Some("ES384") => Algorithm::ES384,
        Some("RS256") => Algorithm::RS256,
        Some("RS384") => Algorithm::RS384,
        Some("RS512") => Algorithm::RS512,
        _ => Algorithm::ES256,
    };
    let pem = private_key.as_bytes();
    let key = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
        _ => EncodingKey::from_rsa_pem(pem),
    };
    let unusable = |_| Problem::failed("`private_key` of its `auth` is no key in PEM for its `algorithm`");
    let mut header = Header::new(algorithm);
    header.typ = Some("client-authentication+jwt".into());
    let now = now();
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": audience, "iat": now, "exp": now + 300, "jti": random_text()?,
    });
    jsonwebtoken::encode(&header, &claims, &key.map_err(unusable)?).map_err(unusable)
}

fn client_authentication(secret: Option<&str>, basic: bool) -> Result<EmaClientAuthentication, Problem> {
    let Some(secret) = secret else { return Ok(EmaClientAuthentication::None) };
    let unusable = |_| Problem::failed("the client secret can't be used");
    // Its type is one of a crate that is not ours.
    let secret = serde_json::from_value(Value::String(secret.into())).map_err(unusable)?;
    Ok(if basic {
        EmaClientAuthentication::ClientSecretBasic(secret)
    } else {
        EmaClientAuthentication::ClientSecretPost(secret)
    })
}

/// Runs what handles secrets without any log, as rmcp logs authorisation codes when it is asked for details.
pub(super) async fn quietly<F: Future>(work: F) -> F::Output {
    work.with_subscriber(NoSubscriber::default()).await
}

/// A parameter in the query of an address.
fn parameter(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// An address of the browser's, with the MCP server named otherwise.
fn with_resource(url: &str, renamed: impl Fn(&str) -> String) -> String {
    let Ok(mut url) = Url::parse(url) else { return url.into() };
    let renamed = |(name, value): (String, String)| match name.as_str() {
        "resource" => (name, renamed(&value)),
        _ => (name, value),
    };
    let pairs: Vec<_> = url.query_pairs().into_owned().map(renamed).collect();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.into()
}

/// The name of an MCP server that says none: its address, without a slash that nobody wrote, and without what may be secret in it.
fn canonical(url: &Url) -> String {
    let path = if url.path() == "/" { "" } else { url.path() };
    format!("{}{path}", url.origin().ascii_serialization())
}
