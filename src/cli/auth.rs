//! `rhaiway auth`: logging in to servers, logging out, and how it stands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use rhaiway::{
    AuthConfig, AuthorizationRequest, Client, Config, Grant, StoredAuthorization, TokenKey, TokenLock, TokenStore,
    Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use super::tokens::Tokens;
use super::{Failure, ServerArguments, render, until_signal};

/// Where the browser is sent.
const PATH: &str = "/callback";
/// How long a browser may take for one request, and how long that may be.
const REQUEST: Duration = Duration::from_secs(10);
const REQUEST_BYTES: usize = 16 << 10;

#[derive(Args)]
pub(super) struct AuthArguments {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Subcommand)]
enum AuthCommand {
    /// Log in to a server in the browser (OAuth).
    Login(LoginArguments),
    /// Forget the tokens that are kept for a server, and revoke them at its authorisation server.
    Logout(OneServer),
    /// Tell whether there are tokens for a server; the exit code is 1 if there are none.
    Status(OneServer),
}

#[derive(Args)]
struct OneServer {
    /// Name of the server in the configuration.
    server: String,
    #[command(flatten)]
    servers: ServerArguments,
}

#[derive(Args)]
struct LoginArguments {
    #[command(flatten)]
    server: OneServer,
    /// Only print the address, do not open a browser.
    #[arg(long)]
    no_browser: bool,
    /// How long to wait for the browser: seconds, or with a unit, such as `5m`.
    #[arg(long, value_name = "DURATION", default_value = "300", value_parser = rhaiway::parse_duration)]
    timeout: Duration,
}

pub(super) async fn auth(arguments: AuthArguments) -> Result<u8, Failure> {
    match arguments.command {
        AuthCommand::Login(arguments) => Box::pin(login(arguments)).await,
        AuthCommand::Logout(arguments) => {
            let client = client(&arguments)?;
            client.forget_authorization(&arguments.server).await?;
            render::note(&format!("there are no tokens for `{}` any more", arguments.server));
            Ok(0)
        }
        AuthCommand::Status(arguments) => {
            let stored = client(&arguments)?.stored_authorization(&arguments.server).await?;
            render::data(&status(&arguments.server, stored.as_ref()))?;
            Ok(u8::from(stored.is_none()))
        }
    }
}

fn client(arguments: &OneServer) -> Result<Client, Failure> {
    let config = super::config(&arguments.servers)?;
    Ok(super::builder(&arguments.servers, config).build()?)
}

fn status(server: &str, stored: Option<&StoredAuthorization>) -> String {
    let Some(stored) = stored else { return format!("{server}: not logged in") };
    let mut lines = vec![format!("{server}: logged in")];
    if let Some(issuer) = &stored.issuer {
        lines.push(format!("  by: {issuer}"));
    }
    if !stored.scopes.is_empty() {
        lines.push(format!("  access: {}", stored.scopes.join(" ")));
    }
    let renewed = if stored.renewable { ", then it is renewed" } else { "" };
    lines.push(match stored.expires_at.map(|at| at.duration_since(SystemTime::now())) {
        Some(Ok(left)) => format!("  good for: {} min{renewed}", left.as_secs() / 60),
        Some(Err(_)) if stored.renewable => "  good for: to be renewed at the next request".into(),
        Some(Err(_)) => "  good for: nothing any more: log in again".into(),
        None => "  good for: as long as the server says".into(),
    });
    lines.join("\n")
}

/// What tells that a login makes no sense for a server, and the port that the browser is sent to.
fn redirect_port(config: &Config, server: &str) -> Result<u16, Failure> {
    let (Transport::Http(http) | Transport::Sse(http) | Transport::WebSocket(http)) = config.server(server)?.transport
    else {
        return Err(Failure::usage(format!("`{server}` is no server over HTTP: there is nothing to log in to")));
    };
    match http.auth {
        Some(AuthConfig::OAuth(config)) if config.grant == Grant::AuthorizationCode => {
            Ok(config.redirect_port.unwrap_or(0))
        }
        None => Ok(0),
        Some(_) => Err(Failure::usage(format!("the `auth` of `{server}` needs no login: it is used as it is"))),
    }
}

async fn login(arguments: LoginArguments) -> Result<u8, Failure> {
    let LoginArguments { server: OneServer { server, servers }, no_browser, timeout } = arguments;
    let config = super::config(&servers)?;
    let port = redirect_port(&config.clone().unwrap_or_default(), &server)?;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| Failure::usage(format!("can't listen on port {port} for the browser: {error}")))?;
    let redirect_uri = format!("http://127.0.0.1:{}{PATH}", listener.local_addr()?.port());
    let store = Tokens::of_this_user().ok_or_else(|| Failure::usage("this user has no folder to keep tokens in"))?;
    let (listener, obtained) = (Arc::new(Mutex::new(listener)), Arc::new(AtomicBool::new(false)));
    let asked = move |request: AuthorizationRequest| {
        let listener = Arc::clone(&listener);
        async move {
            show(&request, no_browser);
            let listener = listener.lock().await;
            let waited = tokio::time::timeout(timeout, answer(&listener, &request)).await;
            waited.map_err(|_| format!("nobody came back from the browser within {} s", timeout.as_secs_f64()))?
        }
    };
    let client = super::builder(&servers, config)
        .token_store(Fresh { store: store.clone(), obtained: Arc::clone(&obtained) })
        .on_authorization(redirect_uri, asked)
        .build()?;
    let logged_in = until_signal(&client, client.authorize(&server)).await?;
    client.close_all_sessions().await;
    render::note(&if logged_in? {
        format!("logged in to `{server}`")
    } else {
        format!(
            "`{server}` answers without authorisation, and publishes nobody who gives it: there is nothing to log in to"
        )
    });
    Ok(0)
}

fn show(request: &AuthorizationRequest, no_browser: bool) {
    render::note(&format!("to log in to `{}`, open this address in a browser:\n\n{}\n", request.server, request.url));
    if !no_browser && let Err(error) = open::that_detached(&request.url) {
        render::note(&format!("no browser could be opened: {error}"));
    }
}

/// Waits for the browser to be sent back: the address that it asked for.
async fn answer(listener: &TcpListener, request: &AuthorizationRequest) -> Result<String, String> {
    // Browsers open connections before they need them, so that none may keep the others waiting.
    let (found, mut answers) = mpsc::channel(1);
    let state = parameter(&request.url, "state");
    loop {
        tokio::select! {
            answer = answers.recv() => return answer.ok_or_else(|| "nobody listens any more".to_string()),
            accepted = listener.accept() => {
                let (connection, _) = accepted.map_err(|error| format!("the browser can't be heard: {error}"))?;
                let (found, state, origin) = (found.clone(), state.clone(), request.redirect_uri.clone());
                tokio::spawn(tokio::time::timeout(REQUEST, async move {
                    if let Ok(Some(answer)) = hear(connection, &origin, state.as_deref()).await {
                        let _ = found.send(answer).await;
                    }
                }));
            }
        }
    }
}

/// Reads one request of a browser and answers it: the address, if it is what is waited for.
async fn hear(mut connection: TcpStream, redirect_uri: &str, state: Option<&str>) -> io::Result<Option<String>> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = connection.read(&mut chunk).await?;
        request.extend_from_slice(&chunk[..read]);
        if read == 0 || request.len() > REQUEST_BYTES {
            return Ok(None);
        }
    }
    let request = String::from_utf8_lossy(&request);
    let target = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let query = target.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('?'));
    let answer = query.map(|query| format!("{redirect_uri}?{query}"));
    let (status, text) = match &answer {
        None => ("404 Not Found", "There is nothing here."),
        Some(answer) if parameter(answer, "state").as_deref() != state => {
            ("400 Bad Request", "This belongs to another login than the one that is under way.")
        }
        Some(answer) if parameter(answer, "error").is_some() => {
            ("200 OK", "The login was refused. You can close this page; the terminal says more.")
        }
        Some(_) => ("200 OK", "You can close this page and go back to the terminal."),
    };
    let page = format!("<!doctype html><meta charset=\"utf-8\"><title>rhaiway</title><p>{text}</p>\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nreferrer-policy: no-referrer\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        page.len()
    );
    connection.write_all(format!("{head}{page}").as_bytes()).await?;
    connection.shutdown().await?;
    Ok(answer.filter(|_| status.starts_with("200")))
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// A store that has nothing before a login, so that it is one, and keeps what comes of it.
struct Fresh {
    store: Tokens,
    obtained: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl TokenStore for Fresh {
    async fn load(&self, key: &TokenKey) -> io::Result<Option<String>> {
        // Whoever took long for the login is not to be asked again when the connection is made again.
        if self.obtained.load(Ordering::Acquire) { self.store.load(key).await } else { Ok(None) }
    }

    async fn save(&self, key: &TokenKey, tokens: &str) -> io::Result<()> {
        self.store.save(key, tokens).await?;
        self.obtained.store(true, Ordering::Release);
        render::note(&format!("the tokens are kept in {}", self.store.place(key)));
        Ok(())
    }

    async fn remove(&self, key: &TokenKey) -> io::Result<()> {
        self.store.remove(key).await
    }

    async fn lock(&self, key: &TokenKey) -> io::Result<TokenLock> {
        self.store.lock(key).await
    }
}
