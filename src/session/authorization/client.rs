//! The HTTP client that talks to authorisation servers: bounded, without redirects, with proofs for bound tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use reqwest::{Request, Url, redirect};
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientError, OAuthHttpClientFuture, OAuthHttpRequest};

use super::Problem;
use super::addresses::Guard;
use super::answers::{self, FORM, Kind};
use super::dpop::{self, Key, Nonces};
use crate::error::with_causes;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer.
const ANSWER_BYTES: usize = 1 << 20;
/// Of an answer that goes on for as long as it likes, nothing is read.
const EVENT_STREAM: &[u8] = b"text/event-stream";
const WRONG_HEADERS: &str = "the answer has headers that are none";

/// Talks to authorisation servers. Clones share the key and the nonces.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
    /// With which proofs are made on token requests, once tokens are to be bound.
    key: Arc<Mutex<Option<Arc<Key>>>>,
    pub(super) nonces: Arc<Nonces>,
    /// What no error may repeat, beside what is in the request itself.
    secrets: Arc<Mutex<Vec<String>>>,
    /// What rmcp calls an MCP server that does not say its name, and what we call it.
    name: Arc<Mutex<Option<(String, String)>>>,
}

impl Client {
    pub(super) fn new(http: reqwest::ClientBuilder, guard: Guard, proxied: bool) -> reqwest::Result<Self> {
        // A redirect would lead secrets elsewhere; rmcp follows those of metadata by itself.
        let mut http = http.redirect(redirect::Policy::none());
        // A proxy looks up names itself, and may have one that only this network knows.
        if !proxied {
            http = http.dns_resolver(Arc::new(guard.clone()));
        }
        let (key, nonces, secrets, name) = Default::default();
        Ok(Self { http: http.build()?, guard, key, nonces, secrets, name })
    }

    /// Keeps a secret out of errors.
    pub(super) fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a String>) {
        let mut hidden = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            if !hidden.contains(secret) {
                hidden.push(secret.clone());
            }
        }
    }

    /// What the MCP server is called in requests, in place of what rmcp calls it.
    pub(super) fn name_of(&self, resource: &str) -> String {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        let other = name.as_ref().filter(|(from, _)| from == resource).map(|(_, to)| to.as_str());
        other.unwrap_or(resource).into()
    }

    pub(super) fn set_name(&self, name: Option<(String, String)>) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
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
        let request = self.form_request(endpoint, fields, basic)?;
        let response = self.answer(request).await.map_err(Problem::Failed)?;
        if response.status().is_success() {
            return serde_json::from_slice(response.body())
                .map_err(|_| Problem::failed("the token endpoint answered with what is no token"));
        }
        Err(Problem::Failed(format!("the token request was refused: {}", refusal(&response))))
    }

    /// Has a token revoked (RFC 7009).
    pub(super) async fn revoke(
        &self,
        endpoint: &str,
        fields: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<(), String> {
        let request = self.form_request(endpoint, fields, basic).map_err(|problem| problem.to_string())?;
        let hidden = self.hidden(&request);
        let response = self.execute_bounded(request).await?;
        // What it says of success is of no interest.
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(&answers::standard(Kind::Token, response, &hidden)))
    }

    fn form_request(
        &self,
        endpoint: &str,
        fields: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<Request, Problem> {
        let wrong = || Problem::failed("the authorisation server names an endpoint that is not a URL");
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
        request.build().map_err(|_| wrong())
    }

    /// The JSON at an address, if there is any.
    pub(super) async fn get(&self, url: &Url) -> Option<serde_json::Value> {
        let response = self.answer(Request::new(Method::GET, url.clone())).await.ok()?;
        serde_json::from_slice(response.body()).ok().filter(|_| response.status().is_success())
    }

    /// Sends a request: its answer in the standard's form.
    async fn answer(&self, request: Request) -> Result<Response<Vec<u8>>, String> {
        let (kind, hidden) = (Kind::of(&request), self.hidden(&request));
        Ok(answers::standard(kind, self.execute_bounded(request).await?, &hidden))
    }

    /// What is not to be in an error that answers a request.
    fn hidden(&self, request: &Request) -> Vec<String> {
        let mut hidden = answers::secrets(request);
        hidden.extend(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        hidden
    }

    async fn execute_bounded(&self, request: Request) -> Result<Response<Vec<u8>>, String> {
        let key = self.key().filter(|_| Kind::of(&request) == Kind::Token);
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

/// The words of an answer in the standard's form that is an error.
pub(super) fn refusal(answer: &Response<Vec<u8>>) -> String {
    let fields: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
    match (text("error"), text("error_description")) {
        (Some(error), Some(description)) => format!("{error}: {description}"),
        (Some(error), None) => error.into(),
        (None, _) => format!("HTTP {}", answer.status()),
    }
}

/// Fields as a form's text.
fn form(fields: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse("http://form").ok()?;
    url.query_pairs_mut().extend_pairs(fields);
    Some(url.query().unwrap_or_default().into())
}

/// Names the MCP server in a form otherwise.
fn rename_resource(request: &mut Request, renamed: impl Fn(&str) -> String) {
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let mut fields = answers::pairs(&String::from_utf8_lossy(body));
    for (_, value) in fields.iter_mut().filter(|(name, _)| name == "resource") {
        *value = renamed(value);
    }
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if let Some(form) = form(&fields) {
        *request.body_mut() = Some(form.into());
    }
}

/// The whole of a response.
async fn read(response: reqwest::Response) -> Result<Response<Vec<u8>>, String> {
    let mut whole = Response::builder().status(response.status());
    for (name, value) in response.headers() {
        whole = whole.header(name, value);
    }
    let mut body = Vec::new();
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with(EVENT_STREAM) {
        return whole.body(body).map_err(|_| WRONG_HEADERS.into());
    }
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| with_causes(&error.without_url()))?;
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(format!("the answer has more than {ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    whole.body(body).map_err(|_| WRONG_HEADERS.into())
}

impl OAuthHttpClient for Client {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let mut request = Request::try_from(request.request).map_err(|_| "it names what is no URL")?;
            if Kind::of(&request) == Kind::Token {
                rename_resource(&mut request, |resource| self.name_of(resource));
            }
            self.answer(request).await.map_err(OAuthHttpClientError::from)
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
        let problem = client.revoke("http://127.0.0.1:1/revoke", &[("token", "t")], None).await.unwrap_err();
        assert_eq!(problem, "it is in a network that the MCP server is not in");
    }
}
