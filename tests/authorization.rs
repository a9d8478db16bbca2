//! OAuth for servers over HTTP, against a server that is its own authorisation server. All that it hands out as a secret has `SECRET` in it.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use libtest_mimic::Trial;
use rhaiway::{AuthorizationRequest, CallOptions, Client, ClientBuilder, Isolation, TokenKey, TokenStore};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use crate::support::{Ignored, cache_dir, config, program, run, target_dir, test, value};

mod habits;
mod processes;

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";

pub fn tests() -> Vec<Trial> {
    let mut tests = habits::tests();
    tests.extend(processes::tests());
    tests.extend([
        test("authorization::a_login_gives_tokens_that_stay", login),
        test("authorization::without_anybody_to_ask_it_says_what_to_do", nobody_to_ask),
        test("authorization::tokens_are_renewed_in_time", renewed_in_time),
        test("authorization::refused_tokens_are_renewed_once_for_all_calls_of_a_session", renewed_in_a_session),
        test("authorization::tokens_that_cannot_be_renewed_need_a_login", login_again),
        test("authorization::more_access_is_asked_for_when_it_is_wanted", step_up),
        test("authorization::access_that_is_not_granted_is_not_asked_for_forever", step_up_in_vain),
        test("authorization::new_tokens_that_are_refused_are_an_error", always_refused),
        test("authorization::a_refused_login_is_an_error", refused_login),
        test("authorization::another_logins_answer_is_refused", another_state),
        test("authorization::tokens_of_another_authorization_server_are_not_sent", another_issuer),
        test("authorization::a_static_token_is_sent_as_it_is", static_token),
        test("authorization::client_credentials_need_nobody", client_credentials),
        test("authorization::a_person_may_take_longer_than_the_server", slow_person),
        test("authorization::the_older_transport_is_authorised_too", older_transport),
        test("authorization::a_login_does_not_end_with_the_call_that_it_is_for", given_up_login),
        test("authorization::a_login_does_not_end_with_the_connection_that_it_is_for", given_up_connection),
        test("authorization::a_login_ends_with_the_client", gone_client),
        test("authorization::a_renewal_does_not_end_with_the_call_that_it_is_for", given_up_renewal),
        test("authorization::a_renewal_that_fails_does_not_hold_up_tokens_that_are_good", failing_renewal),
        test("authorization::forgotten_tokens_stay_forgotten", forgotten),
        test("authorization::a_websocket_has_the_tokens_of_its_address", websocket_tokens),
        test("authorization::settings_are_checked", settings),
        test("authorization::secrets_are_not_shown", secrets_are_not_shown),
        test("authorization::the_command_logs_in_and_out", command),
        test("authorization::the_command_asks_once_however_long_it_takes", slow_command),
        test("authorization::a_secret_for_whoever_the_server_names_is_warned_of", unnamed_issuer),
        test("authorization::a_keyring_that_does_not_answer_is_left_alone", silent_keyring),
        test("authorization::older_tokens_in_the_keyring_are_not_left_there", older_in_keyring),
        test("http::integers_in_plain_json_keep_their_digits", integers),
        test("http::an_idle_stream_is_not_an_answer_that_fails", idle_stream),
    ]);
    tests
}

/// What the server does, and what was done to it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each test sets one")]
struct State {
    refuse_login: bool,
    refuse_all: bool,
    grant_only: Option<&'static str>,
    issuer: Option<&'static str>,
    stream: bool,
    /// Token requests are served, and then answered when this is notified.
    hold_tokens: Option<Arc<Notify>>,
    tokens_down: bool,
    /// What becomes of a good token answer, and of that to a registration.
    token_habit: Option<Habit>,
    registration_habit: Option<Habit>,
    /// How the server names itself in its metadata, where not by the address that it is reached at.
    resource: Option<String>,
    /// What the resource is to be in requests.
    expected_resource: Option<String>,
    publishes: Publishes,
    /// Wants authorisation for calls only.
    lazy: bool,
    /// Has an endpoint for revocation, which answers with this status.
    revocation: Option<&'static str>,
    /// The kinds and tokens that were to be revoked.
    revoked: Vec<(String, String)>,
    /// Speaks HTTP+SSE, and what goes out on its event stream.
    older: bool,
    events: Option<mpsc::UnboundedSender<String>>,
    /// Scopes by access token.
    valid: HashMap<String, BTreeSet<String>>,
    refresh_tokens: BTreeSet<String>,
    /// Challenge and scopes by code.
    codes: HashMap<String, (String, String)>,
    issued: usize,
    registrations: usize,
    /// Scopes of each login.
    logins: Vec<String>,
    renewals: usize,
    refused: usize,
    lists: usize,
}

/// In place of a status: no answer comes.
const NEVER: &str = "never";

type Habit = fn(Value) -> Response;

/// What a server publishes for those who want to log in to it.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Publishes {
    #[default]
    All,
    /// Its authorisation server, which it is itself, but not that it is one.
    AuthorizationServer,
    Nothing,
}

#[derive(Clone)]
struct Server {
    origin: String,
    state: Arc<Mutex<State>>,
}

/// A request as a server of a test reads it.
pub struct Request {
    pub method: String,
    target: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Request {
    pub async fn read(connection: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        let mut words = line.split(' ').map(String::from);
        let (method, target) = (words.next()?, words.next()?);
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_string());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.ok()?;
        Some(Self { method, target, headers, body: String::from_utf8(body).ok()? })
    }
}

fn query(text: &str) -> HashMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://host/?{text}")).unwrap();
    url.query_pairs().into_owned().collect()
}

struct Response {
    status: &'static str,
    headers: String,
    body: String,
}

fn answer(status: &'static str, headers: String, body: impl ToString) -> Response {
    Response { status, headers, body: body.to_string() }
}

fn json_answer(status: &'static str, body: Value) -> Response {
    answer(status, "content-type: application/json\r\n".into(), body)
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { origin: format!("http://{}", listener.local_addr().unwrap()), state: Arc::default() };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let server = accepting.clone();
                tokio::spawn(async move {
                    let mut connection = BufReader::new(connection);
                    while let Some(request) = Request::read(&mut connection).await {
                        let is_stream = request.method == "GET" && matches!(request.target.as_str(), "/mcp" | "/");
                        if is_stream && server.state().stream {
                            server.stream(connection).await;
                            return;
                        }
                        if request.method == "GET" && request.target == "/mcp" && server.is_older_for(&request) {
                            server.older_stream(connection).await;
                            return;
                        }
                        let Response { status, headers, body } = server.respond(&request);
                        let held = server.state().hold_tokens.clone().filter(|_| request.target == "/token");
                        if let Some(held) = held {
                            held.notified().await;
                        }
                        if request.target == "/revoke" && status == NEVER {
                            std::future::pending::<()>().await;
                        }
                        let length = body.len();
                        let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
                        if connection.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Logins, registrations and renewals so far.
    fn seen(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.logins.len(), state.registrations, state.renewals)
    }

    fn entry(&self) -> Value {
        json!({"url": format!("{}/mcp", self.origin)})
    }

    fn expected_resource(&self) -> String {
        self.state().expected_resource.clone().unwrap_or_else(|| format!("{}/mcp", self.origin))
    }

    fn issuer(&self) -> String {
        self.state().issuer.map_or_else(|| self.origin.clone(), |path| format!("{}{path}", self.origin))
    }

    /// Says that the tools changed after a silence that is longer than any read may take.
    async fn stream(&self, mut connection: BufReader<TcpStream>) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: here\n\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let event = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
        let _ = connection.write_all(event.as_bytes()).await;
        std::future::pending::<()>().await;
    }

    /// Whether it is to open the event stream of the older transport.
    fn is_older_for(&self, request: &Request) -> bool {
        let state = self.state();
        let token = request.headers.get("authorization").and_then(|header| header.strip_prefix("Bearer "));
        state.older && token.is_some_and(|token| state.valid.contains_key(token))
    }

    async fn older_stream(&self, mut connection: BufReader<TcpStream>) {
        let (sender, mut events) = mpsc::unbounded_channel();
        self.state().events = Some(sender);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: endpoint\ndata: /messages\n\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        while let Some(event) = events.recv().await {
            if connection.write_all(format!("data: {event}\n\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn respond(&self, request: &Request) -> Response {
        let (path, parameters) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let origin = &self.origin;
        match (request.method.as_str(), path) {
            ("GET", path)
                if path.starts_with("/.well-known/oauth-protected-resource")
                    && self.state().publishes == Publishes::All =>
            {
                let resource = self.state().resource.clone().unwrap_or_else(|| format!("{origin}/mcp"));
                json_answer(
                    "200 OK",
                    json!({"resource": resource, "authorization_servers": [self.issuer()], "scopes_supported": ["read"]}),
                )
            }
            ("GET", path)
                if path.starts_with("/.well-known/oauth-authorization-server")
                    && self.state().publishes != Publishes::Nothing =>
            {
                let mut metadata = json!({
                    "issuer": self.issuer(), "authorization_endpoint": format!("{origin}/authorize"),
                    "token_endpoint": format!("{origin}/token"), "registration_endpoint": format!("{origin}/register"),
                    "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                });
                if self.state().revocation.is_some() {
                    metadata["revocation_endpoint"] = json!(format!("{origin}/revoke"));
                }
                json_answer("200 OK", metadata)
            }
            ("POST", "/register") => {
                self.state().registrations += 1;
                let client =
                    json!({"client_id": "registered", "client_secret": "SECRET-of-client", "redirect_uris": []});
                let habit = self.state().registration_habit;
                habit.unwrap_or(|client| json_answer("201 Created", client))(client)
            }
            ("POST", "/revoke") => self.revoke(&query(&request.body)),
            // An identity provider, which refuses.
            ("POST", "/provider") => json_answer("200 OK", refusal(&query(&request.body))),
            ("GET", "/authorize") => self.authorize(&query(parameters)),
            ("POST", "/token") => self.token(&query(&request.body)),
            ("POST", "/mcp" | "/") if self.state().older => answer("405 Method Not Allowed", String::new(), ""),
            ("POST", "/mcp" | "/") => self.mcp(request),
            ("POST", "/messages") => {
                let answered = self.mcp(request);
                if answered.status != "200 OK" {
                    return answered;
                }
                self.state().events.as_ref().unwrap().send(answered.body).unwrap();
                answer("202 Accepted", String::new(), "")
            }
            ("GET", "/mcp") if self.state().older => {
                let metadata = format!("{origin}/.well-known/oauth-protected-resource/mcp");
                answer("401 Unauthorized", format!("www-authenticate: Bearer resource_metadata=\"{metadata}\"\r\n"), "")
            }
            ("DELETE", "/mcp" | "/") => answer("204 No Content", String::new(), ""),
            ("GET", "/mcp" | "/") => answer("405 Method Not Allowed", String::new(), ""),
            _ => answer("404 Not Found", String::new(), ""),
        }
    }

    fn authorize(&self, query: &HashMap<String, String>) -> Response {
        assert_eq!(query["resource"], self.expected_resource());
        let mut state = self.state();
        assert_eq!(query["code_challenge_method"], "S256");
        let scopes = query.get("scope").cloned().unwrap_or_default();
        state.logins.push(scopes.clone());
        let (back, id) = (&query["redirect_uri"], &query["state"]);
        let location = if state.refuse_login {
            format!("{back}?error=access_denied&error_description=not+today&state={id}")
        } else {
            let code = format!("SECRET-code-{}", state.logins.len());
            state.codes.insert(code.clone(), (query["code_challenge"].clone(), scopes));
            format!("{back}?code={code}&state={id}")
        };
        answer("302 Found", format!("location: {location}\r\n"), "")
    }

    fn revoke(&self, form: &HashMap<String, String>) -> Response {
        let mut state = self.state();
        assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), ("registered", "SECRET-of-client"));
        state.revoked.push((form["token_type_hint"].clone(), form["token"].clone()));
        state.valid.remove(&form["token"]);
        state.refresh_tokens.remove(&form["token"]);
        let status = state.revocation.unwrap();
        let error = json!({"error": "unavailable", "error_description": format!("can't revoke {}", form["token"])});
        if status == "200 OK" { answer(status, String::new(), "") } else { json_answer(status, error) }
    }

    fn token(&self, form: &HashMap<String, String>) -> Response {
        assert_eq!(form["resource"], self.expected_resource());
        let mut state = self.state();
        let refused =
            || json_answer("400 Bad Request", json!({"error": "invalid_grant", "error_description": "it is unknown"}));
        if form["grant_type"] == "refresh_token" {
            state.renewals += 1;
        }
        if state.tokens_down {
            let error = json!({"error": "temporarily_unavailable", "error_description": "x".repeat(5000)});
            return json_answer("503 Service Unavailable", error);
        }
        let scopes = match form["grant_type"].as_str() {
            "authorization_code" => {
                assert_eq!(form["client_secret"], "SECRET-of-client");
                let Some((challenge, scopes)) = state.codes.remove(&form["code"]) else { return refused() };
                assert_eq!(challenge, base64url(&Sha256::digest(&form["code_verifier"])));
                scopes
            }
            "refresh_token" => {
                assert_eq!(form["client_secret"], "SECRET-of-client");
                if !state.refresh_tokens.remove(&form["refresh_token"]) {
                    return refused();
                }
                form.get("scope").cloned().unwrap_or_default()
            }
            "client_credentials" => {
                assert_eq!(
                    (form["client_id"].as_str(), form["client_secret"].as_str()),
                    ("machine", "SECRET-of-machine")
                );
                form.get("scope").cloned().unwrap_or_default()
            }
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => form.get("scope").cloned().unwrap_or_default(),
            other => panic!("grant {other}"),
        };
        state.issued += 1;
        let (access, refresh) = (format!("SECRET-access-{}", state.issued), format!("SECRET-refresh-{}", state.issued));
        let scopes = state.grant_only.map_or(scopes, String::from);
        state.valid.insert(access.clone(), scopes.split(' ').map(String::from).collect());
        state.refresh_tokens.insert(refresh.clone());
        let tokens = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 3600, "scope": scopes, "refresh_token": refresh,
        });
        match state.token_habit {
            Some(habit) => habit(tokens),
            None => json_answer("200 OK", tokens),
        }
    }

    fn mcp(&self, request: &Request) -> Response {
        let mut state = self.state();
        let message: Value = serde_json::from_str(&request.body).unwrap();
        let metadata = format!("resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"", self.origin);
        let token = request.headers.get("authorization").and_then(|header| header.strip_prefix("Bearer "));
        let granted = token.and_then(|token| state.valid.get(token).cloned());
        let granted = granted.or((state.lazy && message["method"] != "tools/call").then(BTreeSet::new));
        let Some(scopes) = granted.filter(|_| !state.refuse_all) else {
            state.refused += 1;
            return answer("401 Unauthorized", format!("www-authenticate: Bearer {metadata}\r\n"), "");
        };
        if message["params"]["name"] == "admin" && !scopes.contains("admin") {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"admin\", {metadata}");
            return answer("403 Forbidden", format!("www-authenticate: {challenge}\r\n"), "");
        }
        let id = &message["id"];
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "remote", "version": "1"},
            }),
            "tools/list" => {
                state.lists += 1;
                json!({"tools": [{"name": "read", "inputSchema": {"type": "object"}}, {"name": "admin"}, {"name": "big"}]})
            }
            "tools/call" if message["params"]["name"] == "big" => {
                let result = r#"{"content":[],"structuredContent":{"id":123456789012345678901234567890}}"#;
                let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
                return answer("200 OK", "content-type: application/json; charset=utf-8\r\n".into(), body);
            }
            "tools/call" => json!({"content": [], "structuredContent": {"ok": true}}),
            method if method.starts_with("notifications/") => return answer("202 Accepted", String::new(), ""),
            _ => {
                let error = json!({"code": -32601, "message": "no such method"});
                return json_answer("400 Bad Request", json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
        };
        let session = if state.stream { "mcp-session-id: one\r\n" } else { "" };
        let headers = format!("content-type: application/json\r\n{session}");
        answer("200 OK", headers, json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }
}

/// What GitHub answers with the status of success, and what no server should.
fn refusal(form: &HashMap<String, String>) -> Value {
    let secrets: Vec<&str> = form.values().map(String::as_str).filter(|value| value.contains("SECRET")).collect();
    json!({"error": "incorrect_client_credentials", "error_description": format!("The client_secret is missing. {secrets:?}")})
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = bytes.iter().flat_map(|byte| format!("{byte:08b}").into_bytes()).map(char::from).collect();
    let digit = |six: &[u8]| {
        let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
        char::from(DIGITS[usize::from_str_radix(&six, 2).unwrap()])
    };
    bits.as_bytes().chunks(6).map(digit).collect()
}

/// What a browser does in which somebody agrees at once.
async fn agree(request: AuthorizationRequest) -> Result<String, String> {
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let response = browser.get(&request.url).send().await.unwrap();
    Ok(response.headers()["location"].to_str().unwrap().to_string())
}

fn builder(entry: Value) -> ClientBuilder {
    Client::builder().config(config(&json!({"remote": entry}))).variables(|name| match name {
        "SECRET" => Some("SECRET-of-machine".to_string()),
        _ => None,
    })
}

fn client(entry: Value) -> Client {
    builder(entry).on_authorization(REDIRECT_URI, agree).build().unwrap()
}

async fn call(client: &Client, tool: &str) -> Result<Value, String> {
    let session = client.create_session("remote").await.map_err(|error| error.to_string())?;
    let answer =
        session.call_tool(tool, Map::new(), CallOptions::default()).await.map_err(|error| error.to_string())?;
    Ok(answer.structured().map(|content| content.to_string().parse().unwrap()).unwrap_or_default())
}

#[derive(Clone, Default)]
struct Store(Arc<Mutex<HashMap<String, String>>>);

#[async_trait::async_trait]
impl TokenStore for Store {
    async fn load(&self, key: &TokenKey) -> std::io::Result<Option<String>> {
        Ok(self.0.lock().unwrap().get(key.server()).cloned())
    }

    async fn save(&self, key: &TokenKey, tokens: &str) -> std::io::Result<()> {
        self.0.lock().unwrap().insert(key.server().into(), tokens.into());
        Ok(())
    }

    async fn remove(&self, key: &TokenKey) -> std::io::Result<()> {
        self.0.lock().unwrap().remove(key.server());
        Ok(())
    }
}

async fn login() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let client =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    assert_eq!(call(&client, "read").await.unwrap(), json!({"ok": true}));
    client.close_session("remote").await;
    call(&client, "read").await.unwrap();
    assert_eq!(server.seen(), (1, 1, 0));
    assert_eq!(server.state().logins, ["read"]);
    let stored = client.stored_authorization("remote").await.unwrap().unwrap();
    assert_eq!((stored.scopes, stored.renewable), (vec!["read".to_string()], true));
    assert_eq!(stored.issuer.as_deref(), Some(server.origin.as_str()));
    // Another client finds them, and asks nobody.
    let another = builder(server.entry()).token_store(store).build().unwrap();
    call(&another, "read").await.unwrap();
    assert_eq!(server.state().logins.len(), 1);
    another.forget_authorization("remote").await.unwrap();
    assert!(client.stored_authorization("remote").await.unwrap().is_none());
    Ok(())
}

async fn nobody_to_ask() -> Result<(), Ignored> {
    let server = Server::start().await;
    let error = call(&builder(server.entry()).build().unwrap(), "read").await.unwrap_err();
    assert_eq!(
        error,
        "can't connect to the server `remote`: it wants authorisation (HTTP 401): run `rhaiway auth login remote`, or set `auth` to a \
         token, or `headers`, in its configuration"
    );
    Ok(())
}

async fn renewed_in_time() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let first =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    call(&first, "read").await.unwrap();
    let mut kept: Value = serde_json::from_str(&store.0.lock().unwrap()["remote"]).unwrap();
    assert!(kept["renew_at"].as_u64().unwrap() < kept["expires_at"].as_u64().unwrap());
    kept["renew_at"] = json!(1);
    store.0.lock().unwrap().insert("remote".into(), kept.to_string());
    let refused = server.state().refused;
    let client = builder(server.entry()).token_store(store).build().unwrap();
    call(&client, "read").await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    assert_eq!(server.state().refused, refused, "they were renewed before they were used");
    Ok(())
}

async fn renewed_in_a_session() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = client(server.entry());
    let session = client.create_session("remote").await.unwrap();
    server.state().valid.clear();
    join_all((0..20).map(|_| session.call_tool("read", Map::new(), CallOptions::default())))
        .await
        .into_iter()
        .for_each(|answer| {
            answer.unwrap();
        });
    assert_eq!(server.seen(), (1, 1, 1));
    Ok(())
}

async fn login_again() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let with_person =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    let session = with_person.create_session("remote").await.unwrap();
    let alone = builder(server.entry()).token_store(store.clone()).build().unwrap();
    call(&alone, "read").await.unwrap();
    {
        let mut state = server.state();
        state.valid.clear();
        state.refresh_tokens.clear();
    }
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (2, 1, 1));
    // The other one takes what this one has got, without asking anybody.
    call(&alone, "read").await.unwrap();
    assert_eq!(server.seen(), (2, 1, 1));
    {
        let mut state = server.state();
        state.valid.clear();
        state.refresh_tokens.clear();
    }
    let error = call(&alone, "read").await.unwrap_err();
    assert!(error.contains("rhaiway auth login remote"), "{error}");
    assert!(store.0.lock().unwrap().is_empty(), "what is good for nothing is not kept");
    Ok(())
}

async fn step_up() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = client(server.entry());
    call(&client, "read").await.unwrap();
    call(&client, "admin").await.unwrap();
    call(&client, "admin").await.unwrap();
    assert_eq!(server.state().logins, ["read", "read admin"]);
    let store = Store::default();
    let first =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    call(&first, "read").await.unwrap();
    let error = call(&builder(server.entry()).token_store(store).build().unwrap(), "admin").await.unwrap_err();
    assert!(
        error.contains("it wants more access than was granted (`admin`): set it as `scope` of its `auth`"),
        "{error}"
    );
    Ok(())
}

async fn step_up_in_vain() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = client(server.entry());
    server.state().grant_only = Some("read");
    let error = call(&client, "admin").await.unwrap_err();
    assert!(error.contains("it wants the scopes `admin`, and refuses tokens that were to have them"), "{error}");
    assert_eq!(server.state().logins.len(), 3);
    Ok(())
}

async fn always_refused() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().refuse_all = true;
    let error = call(&client(server.entry()), "read").await.unwrap_err();
    assert!(error.contains("it refuses the tokens that were just obtained for it (HTTP 401)"), "{error}");
    assert_eq!(server.state().logins.len(), 1);
    Ok(())
}

async fn refused_login() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().refuse_login = true;
    let error = call(&client(server.entry()), "read").await.unwrap_err();
    assert!(
        error.ends_with("authorisation failed: it was refused in the browser: access_denied: not today"),
        "{error}"
    );
    // Nor is another connection a reason to ask again.
    let client = client(server.entry());
    let first = call(&client, "read").await.unwrap_err();
    assert_eq!(call(&client, "read").await.unwrap_err(), first);
    assert_eq!(server.state().logins.len(), 2);
    server.state().refuse_login = false;
    client.forget_authorization("remote").await.unwrap();
    call(&client, "read").await.unwrap();
    Ok(())
}

async fn another_state() -> Result<(), Ignored> {
    let server = Server::start().await;
    let forged = |request: AuthorizationRequest| async move {
        Ok(format!("{}?code=SECRET-code-1&state=another", agree(request).await?.split('?').next().unwrap()))
    };
    let client = builder(server.entry()).on_authorization(REDIRECT_URI, forged).build().unwrap();
    let error = call(&client, "read").await.unwrap_err();
    assert!(error.contains("the browser came back with another `state`"), "{error}");
    assert_eq!(server.state().issued, 0);
    Ok(())
}

async fn another_issuer() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = client(server.entry());
    let session = client.create_session("remote").await.unwrap();
    {
        let mut state = server.state();
        state.valid.clear();
        state.issuer = Some("/moved");
    }
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (2, 2, 0));
    let pinned = json!({"url": server.entry()["url"], "auth": {"issuer": "https://login.example.com"}});
    let error = call(&self::client(pinned), "read").await.unwrap_err();
    assert!(error.contains("but the `issuer` of its `auth` is `https://login.example.com`"), "{error}");
    Ok(())
}

async fn static_token() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().valid.insert("SECRET-of-machine".into(), BTreeSet::new());
    let mut entry = server.entry();
    entry["auth"] = json!("${SECRET}");
    call(&client(entry.clone()), "read").await.unwrap();
    entry["auth"] = json!("SECRET-wrong");
    let error = call(&client(entry.clone()), "read").await.unwrap_err();
    assert!(error.ends_with("it refuses the token that its `auth` is (HTTP 401)"), "{error}");
    assert_eq!(server.state().logins.len(), 0);
    // A header of one's own is left alone.
    entry["headers"] = json!({"Authorization": "Bearer SECRET-of-machine"});
    let error = call(&client(entry.clone()), "read").await.unwrap_err();
    assert!(error.contains("mcpServers.remote.auth: it excludes the header `Authorization`"), "{error}");
    entry.as_object_mut().unwrap().remove("auth");
    call(&client(entry), "read").await.unwrap();
    Ok(())
}

async fn client_credentials() -> Result<(), Ignored> {
    let server = Server::start().await;
    let mut entry = server.entry();
    entry["auth"] =
        json!({"grant": "client_credentials", "client_id": "machine", "client_secret": "${SECRET}", "scope": "read"});
    let client = builder(entry.clone()).build().unwrap();
    let session = client.create_session("remote").await.unwrap();
    session.call_tool("admin", Map::new(), CallOptions::default()).await.unwrap();
    server.state().valid.clear();
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (0, 0, 0));
    assert_eq!(server.state().issued, 3);
    server.state().tokens_down = true;
    let error = call(&builder(entry).build().unwrap(), "read").await.unwrap_err();
    assert!(error.contains("the token request was refused: temporarily_unavailable: xxx"), "{error}");
    assert!(error.len() < 1000, "{error}");
    Ok(())
}

async fn slow_person() -> Result<(), Ignored> {
    let server = Server::start().await;
    let slow = |request| async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        agree(request).await
    };
    let mut entry = server.entry();
    entry["connect_timeout"] = json!(1);
    call(&builder(entry).on_authorization(REDIRECT_URI, slow).build().unwrap(), "read").await.unwrap();
    Ok(())
}

/// A person who agrees once told to, and how often one was asked.
fn waiting_person() -> (watch::Sender<bool>, Arc<Mutex<usize>>, impl Fn(AuthorizationRequest) -> Agreed + Send + Sync) {
    let (told, asked) = (watch::Sender::new(false), Arc::new(Mutex::new(0)));
    let (receiver, count) = (told.subscribe(), Arc::clone(&asked));
    let ask = move |request| -> Agreed {
        *count.lock().unwrap() += 1;
        let mut told = receiver.clone();
        Box::pin(async move {
            told.wait_for(|told| *told).await.unwrap();
            agree(request).await
        })
    };
    (told, asked, ask)
}

type Agreed = BoxFuture<'static, Result<String, String>>;

fn soon() -> CallOptions {
    CallOptions::default().timeout(Duration::from_millis(300))
}

async fn given_up_login() -> Result<(), Ignored> {
    let server = Server::start().await;
    let (told, asked, ask) = waiting_person();
    let client = builder(server.entry()).on_authorization(REDIRECT_URI, ask).build().unwrap();
    told.send_replace(true);
    let session = client.create_session("remote").await.unwrap();
    told.send_replace(false);
    {
        let mut state = server.state();
        state.valid.clear();
        state.refresh_tokens.clear();
    }
    let began = std::time::Instant::now();
    for _ in 0..3 {
        let error = session.call_tool("read", Map::new(), soon()).await.unwrap_err();
        assert_eq!(error.kind(), Some(rhaiway::FailureKind::Timeout), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "a call that is given up does not wait for the login");
    told.send_replace(true);
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!((*asked.lock().unwrap(), server.state().logins.len()), (2, 2));
    Ok(())
}

async fn given_up_connection() -> Result<(), Ignored> {
    let server = Server::start().await;
    let (told, asked, ask) = waiting_person();
    let client = builder(server.entry()).on_authorization(REDIRECT_URI, ask).build().unwrap();
    for _ in 0..3 {
        let connecting = tokio::time::timeout(Duration::from_millis(300), client.create_session("remote"));
        connecting.await.unwrap_err();
    }
    told.send_replace(true);
    call(&client, "read").await.unwrap();
    assert_eq!((*asked.lock().unwrap(), server.state().logins.len()), (1, 1));
    Ok(())
}

async fn gone_client() -> Result<(), Ignored> {
    let server = Server::start().await;
    let (asked, mut waits) = mpsc::unbounded_channel();
    let ask = move |_| {
        let (waiting, ended) = mpsc::channel::<()>(1);
        asked.send(ended).unwrap();
        async move {
            std::future::pending::<()>().await;
            drop(waiting);
            Err("it is over".to_string())
        }
    };
    let client = builder(server.entry()).on_authorization(REDIRECT_URI, ask).build().unwrap();
    let mut ended = tokio::select! {
        _ = client.create_session("remote") => panic!("nobody agreed"),
        ended = waits.recv() => ended.unwrap(),
    };
    drop(client);
    assert!(tokio::time::timeout(Duration::from_secs(30), ended.recv()).await.unwrap().is_none());
    Ok(())
}

async fn given_up_renewal() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = client(server.entry());
    let session = client.create_session("remote").await.unwrap();
    let held = Arc::new(Notify::new());
    {
        let mut state = server.state();
        state.valid.clear();
        state.hold_tokens = Some(Arc::clone(&held));
    }
    let error = session.call_tool("read", Map::new(), soon()).await.unwrap_err();
    assert_eq!(error.kind(), Some(rhaiway::FailureKind::Timeout), "{error}");
    server.state().hold_tokens = None;
    held.notify_one();
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    Ok(())
}

async fn failing_renewal() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let first =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    call(&first, "read").await.unwrap();
    let mut kept: Value = serde_json::from_str(&store.0.lock().unwrap()["remote"]).unwrap();
    kept["renew_at"] = json!(1);
    store.0.lock().unwrap().insert("remote".into(), kept.to_string());
    server.state().tokens_down = true;
    let client = builder(server.entry()).token_store(store.clone()).build().unwrap();
    let session = client.create_session("remote").await.unwrap();
    for _ in 0..3 {
        session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    }
    assert_eq!(server.seen(), (1, 1, 1));
    Ok(())
}

async fn forgotten() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let client =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    call(&client, "read").await.unwrap();
    client.forget_authorization("remote").await.unwrap();
    server.state().valid.clear();
    call(&client, "read").await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    assert!(store.0.lock().unwrap().is_empty());
    Ok(())
}

async fn websocket_tokens() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().older = true;
    let address = server.origin.replace("http", "WS");
    let client = client(json!({"ws_url": format!("{address}/mcp")}));
    // It is no WebSocket, but wants a login all the same.
    call(&client, "read").await.unwrap_err();
    assert_eq!(server.state().logins.len(), 1);
    assert!(client.stored_authorization("remote").await.unwrap().is_some());
    client.forget_authorization("remote").await.unwrap();
    assert!(client.stored_authorization("remote").await.unwrap().is_none());
    Ok(())
}

async fn older_transport() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().older = true;
    let mut entry = server.entry();
    entry["type"] = json!("sse");
    let client = client(entry);
    call(&client, "read").await.unwrap();
    assert_eq!(server.seen(), (1, 1, 0));
    server.state().valid.clear();
    call(&client, "read").await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    call(&client, "admin").await.unwrap();
    assert_eq!(server.seen(), (2, 1, 1));
    Ok(())
}

async fn settings() -> Result<(), Ignored> {
    for (auth, message) in [
        (json!(5), ": expected a token, or an object for OAuth, found `5`"),
        (json!({"clientId": "x"}), ".clientId: there is no such setting: there are `grant`, `client_id`, "),
        (json!({"grant": "password"}), ".grant: expected `authorization_code`, `client_credentials`, "),
        (json!({"scopes": "a b"}), ".scopes: expected an array of strings, found a string"),
        (json!({"scopes": ["a"], "scope": "b"}), ".scope: it excludes `scopes`: keep one"),
        (json!({"redirect_port": 0}), ".redirect_port: expected a port from 1 to 65535, found `0`"),
        (json!({"client_secret": "x"}), ".client_id: `client_secret` needs it"),
        (json!({"grant": "client_credentials"}), ".client_id: the grant `client_credentials` needs it"),
        (
            json!({"grant": "client_credentials", "client_id": "x"}),
            ".client_secret: the grant `client_credentials` needs it, or `private_key`",
        ),
        (json!({"algorithm": "none"}), ".algorithm: expected `ES256`, "),
        (json!({"grant": "jwt_bearer"}), ".assertion: the grant `jwt_bearer` needs it"),
        (
            json!({"grant": "enterprise_managed", "client_id": "x", "identity_provider": {"issuer": "https://id"}}),
            ".identity_provider.token_endpoint: expected a string, found nothing",
        ),
        (
            json!({"grant": "enterprise_managed", "dpop": true}),
            ".dpop: the grant `enterprise_managed` binds no tokens to a key",
        ),
        (json!({"dpop": "yes"}), ".dpop: expected `true` or `false`, found a string"),
    ] {
        let config = config(&json!({"remote": {"url": "https://example.com", "auth": auth}}));
        let error = config.server("remote").unwrap_err().to_string();
        let expected = format!("in the configuration, mcpServers.remote.auth{message}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
    Ok(())
}

async fn secrets_are_not_shown() -> Result<(), Ignored> {
    let entry = json!({
        "url": "https://example.com/SECRET", "headers": {"X-Key": "SECRET"},
        "auth": {
            "grant": "enterprise_managed", "client_id": "x", "client_secret": "SECRET", "private_key": "SECRET", "assertion": "SECRET",
            "identity_provider": {
                "issuer": "https://id", "token_endpoint": "https://id/token", "client_id": "y", "client_secret": "SECRET",
                "id_token": "SECRET",
            },
        },
    });
    let config = config(&json!({"remote": entry, "token": {"url": "https://example.com", "auth": "SECRET"}}));
    for shown in [
        format!("{config:?}"),
        format!("{:?}", config.server("remote").unwrap()),
        format!("{:?}", config.server("token").unwrap()),
    ] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let client = client(server.entry());
    call(&client, "read").await.unwrap();
    let saved = folder.path().join("saved.json");
    client.save_config(&saved).unwrap();
    assert!(!std::fs::read_to_string(saved).unwrap().contains("SECRET"));
    let session = client.create_session("remote").await.unwrap();
    assert!(!format!("{session:?} {:?}", client.config()).contains("SECRET"));
    Ok(())
}

/// The command with folders of its own, and as chatty as it can be.
fn rhaiway(folder: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program());
    command.args(arguments).arg("--trust").current_dir(folder);
    command.env("RHAIWAY_LOG", "trace").env("RHAIWAY_KEYRING", "never");
    command.env("HOME", folder).env("XDG_STATE_HOME", folder.join("state"));
    command.env("XDG_CACHE_HOME", target_dir().join("cache"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Standard output and error of a command that ends with `code`.
async fn ran(mut command: tokio::process::Command, code: i32) -> (String, String) {
    let output = command.output().await.unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

/// Logs in with what the command prints as the browser's address; `with_page` may do more with its loopback address first.
async fn log_in<F: Future<Output = ()>>(
    command: tokio::process::Command,
    with_page: impl FnOnce(String) -> F,
) -> String {
    let (code, stderr) = tried_to_log_in(command, with_page).await;
    assert_eq!(code, Some(0), "{stderr}");
    stderr
}

/// As [`log_in`], whatever comes of it.
async fn tried_to_log_in<F: Future<Output = ()>>(
    mut command: tokio::process::Command,
    with_page: impl FnOnce(String) -> F,
) -> (Option<i32>, String) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut stderr = String::new();
    let mut with_page = Some(with_page);
    while let Some(line) = lines.next_line().await.unwrap() {
        stderr.extend([line.as_str(), "\n"]);
        if line.starts_with("http://") && line.contains("/authorize?") {
            let query = query(line.split_once('?').unwrap().1);
            let redirect_uri = query["redirect_uri"].clone();
            with_page.take().unwrap()(redirect_uri.clone()).await;
            let request = reqwest::Client::builder().no_proxy().build().unwrap().get(&line);
            let page = request.send().await.unwrap().text().await.unwrap();
            assert!(page.contains("You can close this page"), "{page}");
        }
    }
    (child.wait().await.unwrap().code(), stderr)
}

async fn command() -> Result<(), Ignored> {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("mcp.json"), json!({"mcpServers": {"remote": server.entry()}}).to_string()).unwrap();
    let script = "remote.read().ok";
    let mut shown = vec![ran(rhaiway(folder, &["run", "-e", script]), 3).await];
    assert!(shown[0].1.contains("run `rhaiway auth login remote`"), "{}", shown[0].1);
    assert_eq!(ran(rhaiway(folder, &["auth", "status", "remote"]), 1).await.0, "remote: not logged in\n");

    let stderr = log_in(rhaiway(folder, &["auth", "login", "remote", "--no-browser"]), |page| async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // What is not the answer does not end the login.
        let forged = http.get(format!("{page}?code=x&state=y")).send().await.unwrap();
        assert_eq!(forged.status(), 400);
        let other = http.get(page.replace("/callback", "/favicon.ico")).send().await.unwrap();
        assert_eq!(other.status(), 404);
    })
    .await;
    assert!(stderr.contains("logged in to `remote`"), "{stderr}");
    shown.push((String::new(), stderr));

    let kept = folder.join("state/rhaiway/tokens");
    let files: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert!(std::fs::read_to_string(&files[0]).unwrap().contains("SECRET-refresh-1"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(&files[0])), (0o700, 0o600));
    }
    let status = ran(rhaiway(folder, &["auth", "status", "remote"]), 0).await;
    assert!(status.0.starts_with("remote: logged in\n") && status.0.contains("access: read"), "{}", status.0);
    shown.push(status);

    server.state().valid.clear();
    let ran_script = ran(rhaiway(folder, &["run", "-e", script]), 0).await;
    assert_eq!(ran_script.0, "true\n");
    shown.push(ran_script);
    assert_eq!(server.seen(), (1, 1, 1));

    shown.push(ran(rhaiway(folder, &["auth", "logout", "remote"]), 0).await);
    assert_eq!(ran(rhaiway(folder, &["auth", "status", "remote"]), 1).await.0, "remote: not logged in\n");
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
    for (stdout, stderr) in shown {
        assert!(!stdout.contains("SECRET") && !stderr.contains("SECRET"), "{stdout}{stderr}");
    }
    let nobody = rhaiway(folder, &["auth", "login", "remote", "--no-browser", "--timeout", "0.2"]);
    let (_, stderr) = ran(nobody, 1).await;
    assert!(stderr.contains("nobody came back from the browser within 0.2 s"), "{stderr}");
    let (_, stderr) = ran(rhaiway(folder, &["auth", "login", "none"]), 2).await;
    assert!(stderr.contains("there is no server `none`"), "{stderr}");
    Ok(())
}

/// rmcp takes a server for one of an older revision after 10 s of silence, and connects again.
async fn slow_command() -> Result<(), Ignored> {
    let command = async |older: bool, takes: Duration| {
        let server = Server::start().await;
        server.state().older = older;
        let folder = tempfile::tempdir().unwrap();
        let mut entry = server.entry();
        if older {
            entry["type"] = json!("sse");
        }
        let config = json!({"mcpServers": {"remote": entry}});
        std::fs::write(folder.path().join("mcp.json"), config.to_string()).unwrap();
        let login = rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]);
        let stderr = log_in(login, |_| tokio::time::sleep(takes)).await;
        assert!(stderr.contains("logged in to `remote`"), "{stderr}");
        assert_eq!(stderr.matches("open this address in a browser").count(), 1, "{stderr}");
        assert_eq!(server.seen(), (1, 1, 0));
    };
    tokio::join!(command(false, Duration::from_secs(11)), command(true, Duration::ZERO));
    Ok(())
}

async fn unnamed_issuer() -> Result<(), Ignored> {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut entry = server.entry();
    let auth = json!({"grant": "client_credentials", "client_id": "machine", "client_secret": "SECRET-of-machine"});
    entry["auth"] = auth;
    for warnings in [1, 0] {
        let config = json!({"mcpServers": {"remote": entry}});
        std::fs::write(folder.path().join("mcp.json"), config.to_string()).unwrap();
        let mut command = rhaiway(folder.path(), &["run", "-e", "remote.read(); remote.admin().ok"]);
        command.env_remove("RHAIWAY_LOG");
        let (_, stderr) = ran(command, 0).await;
        assert_eq!(stderr.matches("set `issuer` in its `auth`").count(), warnings, "{stderr}");
        assert_eq!(stderr.contains(&server.origin), warnings == 1, "{stderr}");
        entry["auth"]["issuer"] = json!(server.origin);
    }
    Ok(())
}

async fn older_in_keyring() -> Result<(), Ignored> {
    #[cfg(target_os = "linux")]
    {
        let server = Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("mcp.json"), json!({"mcpServers": {"remote": server.entry()}}).to_string()).unwrap();
        let without_keyring = |command: &str| {
            let mut command = rhaiway(folder, &["auth", command, "remote"]);
            command.env_remove("RHAIWAY_KEYRING").env_remove("DBUS_SESSION_BUS_ADDRESS");
            command.env("XDG_RUNTIME_DIR", folder.join("none"));
            command
        };
        let mut login = without_keyring("login");
        login.arg("--no-browser");
        log_in(login, |_| async {}).await;
        let kept = std::fs::read_dir(folder.join("state/rhaiway/tokens")).unwrap().next().unwrap().unwrap().path();
        let text = || std::fs::read_to_string(&kept).unwrap();
        assert!(text().contains("SECRET") && !text().contains("keyring"));
        // As after a login that the keyring has kept.
        std::fs::write(&kept, json!({"server": "remote"}).to_string()).unwrap();
        let mut login = without_keyring("login");
        login.arg("--no-browser");
        log_in(login, |_| async {}).await;
        assert!(text().contains("SECRET") && text().contains(r#""also_in_keyring":true"#), "{}", text());
        let (_, stderr) = ran(without_keyring("logout"), 2).await;
        assert!(stderr.contains("the keyring: "), "{stderr}");
        assert!(!text().contains("SECRET"), "{}", text());
    }
    Ok(())
}

async fn silent_keyring() -> Result<(), Ignored> {
    #[cfg(unix)]
    {
        let server = Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("mcp.json"), json!({"mcpServers": {"remote": server.entry()}}).to_string()).unwrap();
        let bus = folder.join("bus");
        let _bus = std::os::unix::net::UnixListener::bind(&bus).unwrap();
        let mut login = rhaiway(folder, &["auth", "login", "remote", "--no-browser"]);
        login.env_remove("RHAIWAY_KEYRING").env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", bus.display()));
        let stderr = log_in(login, |_| async {}).await;
        assert!(stderr.contains("logged in to `remote`") && !stderr.contains("panicked"), "{stderr}");
        let mut login = rhaiway(folder, &["auth", "login", "remote", "--no-browser"]);
        login
            .env_remove("RHAIWAY_KEYRING")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env("XDG_RUNTIME_DIR", folder.join("none"));
        let stderr = log_in(login, |_| async {}).await;
        assert!(stderr.contains("logged in to `remote`") && !stderr.contains("panicked"), "{stderr}");
        assert_eq!(std::fs::read_dir(folder.join("state/rhaiway/tokens")).unwrap().count(), 1);
    }
    Ok(())
}

async fn integers() -> Result<(), Ignored> {
    let server = Server::start().await;
    let client = builder(server.entry())
        .on_authorization(REDIRECT_URI, agree)
        .code_mode(true)
        .cache_dir(cache_dir())
        .isolation(Isolation::InProcess)
        .build()
        .unwrap();
    assert_eq!(value(run(&client, "remote.big().id").await), json!("123456789012345678901234567890"));
    Ok(())
}

async fn idle_stream() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().stream = true;
    let mut entry = server.entry();
    entry["sse_read_timeout"] = json!(0.3);
    let client = client(entry);
    let session = client.create_session("remote").await.unwrap();
    session.list_tools().await.unwrap();
    // The stream says that they changed after it was silent for longer than an answer may be.
    let relisted = async {
        while server.state().lists < 2 {
            session.list_tools().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), relisted).await.unwrap();
    assert!(session.is_connected());
    Ok(())
}
