//! How requests to a server over HTTP are authorised: the key `auth` of its entry.

use std::fmt;

use serde_json::Value;

use super::entry::Entry;
use crate::error::Error;

const AUTH: &str = "auth";

/// How requests are authorised (`auth`). Where it is not set, OAuth is used once the server asks for it (HTTP 401), if there are tokens or
/// there is [somebody to ask](crate::ClientBuilder::on_authorization).
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum AuthConfig {
    /// A string: a bearer token, sent as it is.
    Token(String),
    /// An object: OAuth 2.1.
    OAuth(Box<OAuthConfig>),
}

/// Settings of OAuth for one server; everything may be left out. Strings may hold `${VAR}`.
#[derive(Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct OAuthConfig {
    /// How tokens are obtained (`grant`).
    pub grant: Grant,
    /// The client's identifier, where it is registered already (`client_id`); else the client registers itself.
    pub client_id: Option<String>,
    /// Its secret (`client_secret`).
    pub client_secret: Option<String>,
    /// An HTTPS address of the client's metadata document (`client_metadata_url`), which is the client's identifier at servers that
    /// support it.
    pub client_metadata_url: Option<String>,
    /// What access is asked for (`scopes`, an array, or `scope`, words in a string); what the server says where it is empty.
    pub scopes: Vec<String>,
    /// The authorisation server's issuer (`issuer`): any other is refused.
    pub issuer: Option<String>,
    /// Port of the loopback address that `rhaiway auth login` has the browser sent to (`redirect_port`); any where it is not set.
    pub redirect_port: Option<u16>,
    /// Key that signs the client's assertions, as PEM (`private_key`), for [`Grant::ClientCredentials`] in place of a secret.
    pub private_key: Option<String>,
    /// Its algorithm (`algorithm`): `ES256`, `ES384`, `RS256`, `RS384` or `RS512`; `ES256` where it is not set.
    pub algorithm: Option<String>,
    /// A signed token that says who the client is (`assertion`), for [`Grant::JwtBearer`].
    pub assertion: Option<String>,
    /// Who vouches for the user (`identity_provider`), for [`Grant::EnterpriseManaged`].
    pub identity_provider: Option<IdentityProvider>,
    /// Whether tokens are bound to a key of this client (`dpop`); if the server asks for it where it is not set.
    pub dpop: Option<bool>,
}

/// How tokens are obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Grant {
    /// A person agrees in the browser (`authorization_code`).
    #[default]
    AuthorizationCode,
    /// The client itself is known to the server, by a secret or a key (`client_credentials`).
    ClientCredentials,
    /// The client's platform vouches for it (`jwt_bearer`): workload identity federation.
    JwtBearer,
    /// The company's identity provider decides (`enterprise_managed`).
    EnterpriseManaged,
}

/// The identity provider of [`Grant::EnterpriseManaged`], which gives an assertion for a server in exchange for the user's ID token.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct IdentityProvider {
    /// Its issuer (`issuer`).
    pub issuer: String,
    /// Its token endpoint (`token_endpoint`).
    pub token_endpoint: String,
    /// The client's identifier there (`client_id`).
    pub client_id: String,
    /// The client's secret there (`client_secret`).
    pub client_secret: Option<String>,
    /// The user's ID token (`id_token`).
    pub id_token: String,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::OAuth(config) => config.fmt(f),
        }
    }
}

impl fmt::Debug for OAuthConfig {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthConfig")
            .field("grant", &self.grant)
            .field("client_id", &self.client_id)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityProvider {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityProvider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

const KEYS: [&str; 13] = [
    "grant",
    "client_id",
    "client_secret",
    "client_metadata_url",
    "scopes",
    "scope",
    "issuer",
    "redirect_port",
    "private_key",
    "algorithm",
    "assertion",
    "identity_provider",
    "dpop",
];
const PROVIDER_KEYS: [&str; 5] = ["issuer", "token_endpoint", "client_id", "client_secret", "id_token"];

/// Reads `auth` of a server's entry.
pub(super) fn parse(entry: &Entry<'_>) -> Result<Option<AuthConfig>, Error> {
    match entry.get(AUTH).map(|(_, found)| found) {
        None => Ok(None),
        Some(Value::String(token)) => Ok(Some(AuthConfig::Token(token.clone()))),
        Some(Value::Object(fields)) => {
            // Its own notes, as its keys are not those of the entry.
            let notes = super::Notes::default();
            let entry = Entry { place: entry.path(AUTH), fields, notes: &notes };
            Ok(Some(AuthConfig::OAuth(Box::new(oauth(&entry)?))))
        }
        Some(other) => Err(entry.wrong(AUTH, "a token, or an object for OAuth", other)),
    }
}

fn known(entry: &Entry<'_>, keys: &[&str]) -> Result<(), Error> {
    match entry.fields.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(entry.fault(key, format!("there is no such setting: there are `{}`", keys.join("`, `")))),
        None => Ok(()),
    }
}

fn oauth(entry: &Entry<'_>) -> Result<OAuthConfig, Error> {
    known(entry, &KEYS)?;
    let words = |text: String| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    let scopes = match (entry.texts("scopes")?, entry.text("scope")?) {
        (scopes, None) => scopes,
        (scopes, Some(text)) if scopes.is_empty() => words(text),
        _ => return Err(entry.fault("scope", "it excludes `scopes`: keep one")),
    };
    let grant = match entry.text("grant")?.as_deref() {
        None | Some("authorization_code") => Grant::AuthorizationCode,
        Some("client_credentials") => Grant::ClientCredentials,
        Some("jwt_bearer") => Grant::JwtBearer,
        Some("enterprise_managed") => Grant::EnterpriseManaged,
        Some(other) => {
            let expected = "`authorization_code`, `client_credentials`, `jwt_bearer` or `enterprise_managed`";
            return Err(entry.fault("grant", format!("expected {expected}, found `{other}`")));
        }
    };
    let redirect_port = match entry.fields.get("redirect_port") {
        None | Some(Value::Null) => None,
        Some(port) => {
            let number = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            Some(number.ok_or_else(|| entry.wrong("redirect_port", "a port from 1 to 65535", port))?)
        }
    };
    let dpop = match entry.fields.get("dpop") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(on)) => Some(*on),
        Some(other) => return Err(entry.wrong("dpop", "`true` or `false`", other)),
    };
    let identity_provider = match entry.fields.get("identity_provider") {
        None | Some(Value::Null) => None,
        Some(Value::Object(fields)) => {
            let provider = entry.inner("identity_provider", fields);
            known(&provider, &PROVIDER_KEYS)?;
            Some(IdentityProvider {
                issuer: provider.required_text("issuer")?,
                token_endpoint: provider.required_text("token_endpoint")?,
                client_id: provider.required_text("client_id")?,
                client_secret: provider.text("client_secret")?,
                id_token: provider.required_text("id_token")?,
            })
        }
        Some(other) => return Err(entry.wrong("identity_provider", "an object", other)),
    };
    let config = OAuthConfig {
        grant,
        client_id: entry.text("client_id")?,
        client_secret: entry.text("client_secret")?,
        client_metadata_url: entry.text("client_metadata_url")?,
        scopes,
        issuer: entry.text("issuer")?,
        redirect_port,
        private_key: entry.text("private_key")?,
        algorithm: entry.text("algorithm")?,
        assertion: entry.text("assertion")?,
        identity_provider,
        dpop,
    };
    complete(entry, &config)?;
    Ok(config)
}

/// What each way to obtain tokens can't do without.
fn complete(entry: &Entry<'_>, config: &OAuthConfig) -> Result<(), Error> {
    let needed = |key: &str, given: bool, grant: &str| {
        if given { Ok(()) } else { Err(entry.fault(key, format!("the grant `{grant}` needs it"))) }
    };
    if let Some(algorithm) = &config.algorithm
        && !["ES256", "ES384", "RS256", "RS384", "RS512"].contains(&algorithm.as_str())
    {
        let message = format!("expected `ES256`, `ES384`, `RS256`, `RS384` or `RS512`, found `{algorithm}`");
        return Err(entry.fault("algorithm", message));
    }
    let client_id = config.client_id.is_some();
    match config.grant {
        Grant::AuthorizationCode if config.client_secret.is_some() && !client_id => {
            Err(entry.fault("client_id", "`client_secret` needs it"))
        }
        Grant::AuthorizationCode => Ok(()),
        Grant::ClientCredentials => {
            needed("client_id", client_id, "client_credentials")?;
            match (&config.client_secret, &config.private_key) {
                (Some(_), Some(_)) => Err(entry.fault("private_key", "it excludes `client_secret`: keep one")),
                (None, None) => {
                    Err(entry.fault("client_secret", "the grant `client_credentials` needs it, or `private_key`"))
                }
                _ => Ok(()),
            }
        }
        Grant::JwtBearer => needed("assertion", config.assertion.is_some(), "jwt_bearer"),
        Grant::EnterpriseManaged => {
            if config.dpop == Some(true) {
                return Err(entry.fault("dpop", "the grant `enterprise_managed` binds no tokens to a key"));
            }
            needed("client_id", client_id, "enterprise_managed")?;
            needed("identity_provider", config.identity_provider.is_some(), "enterprise_managed")
        }
    }
}
