//! Why a request is not authorised, in words that hold no secret.

use rmcp::transport::auth::AuthError;
use serde_json::Value;

use crate::error::with_causes;

/// What is shown of what an authorisation server says.
const SHOWN: usize = 300;

/// Why a request is not authorised. Holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::session) enum Problem {
    /// `reason` is empty, or why the tokens that there are were not renewed.
    #[error(
        "it wants authorisation (HTTP 401{reason}): run `rhaiway auth login {server}`, or set `auth` to a token, or `headers`, in its \
         configuration"
    )]
    LoginNeeded { server: String, reason: String },
    #[error(
        "it wants more access than was granted (`{scopes}`): set it as `scope` of its `auth`, and run `rhaiway auth login {server}`"
    )]
    AccessNeeded { server: String, scopes: String },
    #[error("it refuses the token that its `auth` is (HTTP 401)")]
    TokenRefused,
    #[error("it refuses the tokens that were just obtained for it (HTTP 401)")]
    NewTokensRefused,
    #[error("authorisation failed: {0}")]
    Failed(String),
}

impl Problem {
    pub(super) fn failed(message: &str) -> Self {
        Self::Failed(message.into())
    }
}

/// As much of a server's text as an error can hold.
pub(super) fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN)]
}

/// rmcp's errors without addresses, which may hold secrets, and without what a server sent in place of tokens.
pub(super) fn explain(error: &AuthError) -> Problem {
    Problem::Failed(match error {
        AuthError::DiscoveryRequestFailed { source, .. } => {
            format!("its OAuth metadata can't be read: {}", with_causes(&**source))
        }
        AuthError::ProtectedResourceMetadataInvalid { .. } => {
            "its OAuth metadata is unusable, or that of another resource".into()
        }
        AuthError::AuthorizationServersUnavailable { .. } => {
            "the authorisation servers that it names publish no usable metadata".into()
        }
        AuthError::AuthorizationServerMismatch { expected_issuer, received_issuer } => format!(
            "the authorisation server says that it is `{}`, and not `{}`",
            shown(received_issuer),
            shown(expected_issuer)
        ),
        AuthError::AuthorizationServerMissingIssuer { .. } => {
            "the authorisation server does not say which it is".into()
        }
        AuthError::PkceUnsupported => "the authorisation server does not support PKCE with S256".into(),
        AuthError::TokenExchangeFailed(text)
        | AuthError::TokenRefreshFailed(text)
        | AuthError::TokenRefreshRejected(text)
        | AuthError::ClientCredentialsError(text) => {
            let refused = ["error response", "Token exchange failed", "does not support", "required", "Insecure"];
            if refused.iter().any(|words| text.contains(words)) {
                let text = text.trim_start_matches("Server returned error response: ");
                format!("the token request was refused: {}", shown(text))
            } else {
                "the token request was not answered, or with what is no token".into()
            }
        }
        AuthError::RegistrationFailed(text) => {
            // The answer, in the standard's form.
            let answer = text.find('{').and_then(|at| serde_json::from_str::<Value>(&text[at..]).ok());
            let answer = answer.unwrap_or_default();
            let words = [&answer["error"], &answer["error_description"]].map(Value::as_str);
            let words: Vec<&str> = words.into_iter().flatten().collect();
            if words.is_empty() {
                format!("the registration failed: {}", shown(text))
            } else {
                format!("the registration was refused: {}", words.join(": "))
            }
        }
        other => shown(&with_causes(other)).to_string(),
    })
}
