//! The HTTP client that talks to authorisation servers: bounded, without redirects, with proofs for bound tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Response};
use reqwest::{Request, Url, redirect};
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientError, OAuthHttpClientFuture, OAuthHttpRequest};

use super::Problem;
use super::addresses::Guard;
use super::dpop::{self, Key, Nonces};
use super::grants::shown;
use crate::error::with_causes;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer.
const ANSWER_BYTES: usize = 1 << 20;
const FORM: &str = "application/x-www-form-urlencoded";

/// Talks to authorisation servers. Clones share the key and the nonces.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
    /// With which proofs are made on token requests, once tokens are to be bound.
    key: Arc<Mutex<Option<Arc<Key>>>>,
    pub(super) nonces: Arc<Nonces>,
}

impl Client {
    pub(super) fn new(http: reqwest::ClientBuilder, guard: Guard, proxied: bool) -> reqwest::Result<Self> {
        // A redirect would lead secrets elsewhere; rmcp follows those of metadata by itself.
        let mut http = http.redirect(redirect::Policy::none());
        // A proxy looks up names itself, and may have one that only this network knows.
        if !proxied {
            http = http.dns_resolver(Arc::new(guard.clone()));
        }
        Ok(Self { http: http.build()?, guard, key: Arc::default(), nonces: Arc::default() })
    }

    /// The key that tokens are bound to.
    pub(super) fn key(&self) -> Option<Arc<Key>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_key(&self, key: Option<Key>) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key.map(Arc::new);
    }

    /// Sends a form to a token endpoint, with the client's identifier and secret in a header if they are given: the JSON of its answer.
    pub(super) async fn token_request(
        &self,
        endpoint: &str,
        fields: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<serde_json::Value, Problem> {
        let wrong = || Problem::failed("the token endpoint is not a URL");
        let endpoint = Url::parse(endpoint).map_err(|_| wrong())?;
        let mut request = self
            .http
            .post(endpoint)
            .header(CONTENT_TYPE, FORM)
            .header(ACCEPT, "application/json")
            .body(form(fields).ok_or_else(wrong)?);
        if let Some((id, secret)) = basic {
            let [id, secret] =
                [id, secret].map(|text| form(&[("", text)]).unwrap_or_default().trim_start_matches('=').to_string());
            request = request.basic_auth(id, Some(secret));
        }
        let response = self.execute_bounded(request.build().map_err(|_| wrong())?).await.map_err(Problem::Failed)?;
        let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if response.status().is_success() {
            return Ok(answer);
        }
        let text = |key: &str| answer.get(key).and_then(serde_json::Value::as_str);
        Err(Problem::failed(&match (text("error"), text("error_description")) {
            (Some(error), Some(description)) => {
                format!("the token request was refused: {}: {}", shown(error), shown(description))
            }
            (Some(error), None) => format!("the token request was refused: {}", shown(error)),
            (None, _) => format!("the token endpoint answered HTTP {}", response.status()),
        }))
    }

    /// The JSON at an address, if there is any.
    pub(super) async fn get(&self, url: &Url) -> Option<serde_json::Value> {
        let response = self.execute_bounded(Request::new(Method::GET, url.clone())).await.ok()?;
        serde_json::from_slice(response.body()).ok().filter(|_| response.status().is_success())
    }

    async fn execute_bounded(&self, request: Request) -> Result<Response<Vec<u8>>, String> {
        let is_form =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(FORM.as_bytes()));
        let key = self.key().filter(|_| is_form && request.method() == Method::POST);
        if !self.guard.allows(request.url()).await {
            return Err("it is in a network that the MCP server is not in".into());
        }
        let mut nonce_wanted = false;
        loop {
            let mut attempt = request.try_clone().ok_or("the request can't be repeated")?;
            *attempt.timeout_mut() = Some(TIMEOUT);
            if let Some(key) = &key {
                let proof = key
                    .proof(attempt.method(), attempt.url(), None, &self.nonces)
                    .map_err(|problem| problem.to_string())?;
                attempt.headers_mut().insert(dpop::PROOF, proof);
            }
            let response = self.http.execute(attempt).await.map_err(|error| with_causes(&error.without_url()))?;
            self.nonces.remember(request.url(), response.headers());
            let response = read(response).await?;
            let again = key.is_some() && response.status().is_client_error() && !nonce_wanted && {
                let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap_or_default();
                answer["error"] == dpop::USE_NONCE
            };
            if !again {
                return Ok(response);
            }
            nonce_wanted = true;
        }
    }
}

/// Fields as a form's text.
fn form(fields: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse("http://form").ok()?;
    url.query_pairs_mut().extend_pairs(fields);
    Some(url.query().unwrap_or_default().into())
}

/// The whole of a response.
async fn read(response: reqwest::Response) -> Result<Response<Vec<u8>>, String> {
    let mut whole = Response::builder().status(response.status());
    for (name, value) in response.headers() {
        whole = whole.header(name, value);
    }
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| with_causes(&error.without_url()))?;
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(format!("the answer has more than {ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    whole.body(body).map_err(|_| "the answer has headers that are none".into())
}

impl OAuthHttpClient for Client {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let request = Request::try_from(request.request).map_err(|_| "it names what is no URL")?;
            self.execute_bounded(request).await.map_err(OAuthHttpClientError::from)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_does_not_open_other_networks() {
        let guard = Guard::new(&Url::parse("https://93.184.216.34/mcp").unwrap(), [].into_iter());
        let client = Client::new(reqwest::Client::builder().no_proxy(), guard, true).unwrap();
        let problem = client.token_request("http://127.0.0.1:1/token", &[], None).await.unwrap_err();
        assert!(problem.to_string().ends_with("it is in a network that the MCP server is not in"), "{problem}");
    }
}
