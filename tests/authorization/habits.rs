//! Authorisation servers as they are: what they answer that is not quite what the standards have, and what they leave out.

use std::collections::HashMap;

use libtest_mimic::Trial;
use rhaiway::CallOptions;
use serde_json::{Map, Value, json};

use super::{
    Habit, NEVER, Publishes, REDIRECT_URI, Response, Server, Store, agree, answer, builder, call, json_answer, log_in,
    ran, refusal, rhaiway, tried_to_log_in,
};
use crate::support::{Ignored, test};

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<Trial> = habits()
        .into_iter()
        .map(|(name, habit)| test(&format!("authorization::tokens_are_taken_{name}"), move || taken(habit)))
        .collect();
    tests.extend([
        test("authorization::a_registration_is_taken_as_it_is", registration),
        test("authorization::an_error_with_the_status_of_success_is_one", errors_in_success),
        test("authorization::a_refused_renewal_is_told", refused_renewal),
        test("authorization::the_command_says_why_a_login_failed", failed_login),
        test("authorization::a_renewal_without_a_refresh_token_keeps_the_old_one", kept_refresh_token),
        test("authorization::the_resource_is_named_as_it_names_itself", resource),
        test("authorization::a_server_that_asks_at_the_first_call_is_logged_in_to", lazy),
        test("authorization::the_command_logs_in_where_it_is_not_asked_for_yet", lazy_command),
        test("authorization::logging_out_revokes", revoked),
        test("authorization::logging_out_forgets_what_can_not_be_revoked", not_revoked),
    ]);
    tests
}

fn habits() -> [(&'static str, Habit); 13] {
    fn with(mut token: Value, field: &str, value: Value) -> Response {
        token[field] = value;
        json_answer("200 OK", token)
    }
    [
        ("with_a_lifetime_as_text", |token| with(token, "expires_in", json!("3600"))),
        ("with_a_lifetime_in_fractions", |token| with(token, "expires_in", json!(3600.5))),
        ("with_a_lifetime_that_is_null", |token| with(token, "expires_in", json!(null))),
        ("with_a_lifetime_below_nothing", |token| with(token, "expires_in", json!(-1))),
        ("with_a_lifetime_beyond_counting", |token| with(token, "expires_in", json!(1e30))),
        ("with_commas_in_scopes", |token| with(token, "scope", json!("read,write"))),
        ("with_a_list_of_scopes", |token| with(token, "scope", json!(["read", "write"]))),
        ("with_a_kind_in_capitals", |token| with(token, "token_type", json!("BEARER"))),
        ("without_a_kind", |token| with(token, "token_type", json!(null))),
        ("as_created", |token| json_answer("201 Created", token)),
        ("as_text", |token| {
            answer("200 OK", "content-type: text/html; charset=utf-8\r\n".into(), format!("\u{feff}\n{token}"))
        }),
        ("as_a_form", |token| {
            let mut url = reqwest::Url::parse("http://form").unwrap();
            for (name, value) in token.as_object().unwrap() {
                url.query_pairs_mut().append_pair(name, value.as_str().unwrap_or(&value.to_string()));
            }
            let kind = "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n";
            answer("200 OK", kind.into(), url.query().unwrap())
        }),
        ("beside_an_error_that_is_null", |token| with(token, "error", json!(null))),
    ]
}

/// Logs in to a server with this habit, renews its tokens, and gets some for a machine.
async fn taken(habit: Habit) -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().token_habit = Some(habit);
    let store = Store::default();
    let client =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    let session = client.create_session("remote").await.unwrap();
    let stored = client.stored_authorization("remote").await.unwrap().unwrap();
    let sample = habit(json!({"expires_in": 3600, "scope": "read"})).body;
    let scopes: &[&str] = if sample.contains("write") { &["read", "write"] } else { &["read"] };
    assert_eq!(stored.scopes, scopes);
    assert_eq!(stored.expires_at.is_some(), sample.contains("3600"), "{sample}");
    server.state().valid.clear();
    session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
    assert_eq!(server.seen(), (1, 1, 1));
    let stored = client.stored_authorization("remote").await.unwrap().unwrap();
    assert_eq!(stored.scopes, scopes);
    assert!(stored.renewable);
    for auth in [
        json!({"grant": "client_credentials", "client_id": "machine", "client_secret": "${SECRET}"}),
        json!({"grant": "jwt_bearer", "assertion": "${SECRET}"}),
    ] {
        let mut entry = server.entry();
        entry["auth"] = auth;
        call(&builder(entry).build().unwrap(), "read").await.unwrap();
    }
    Ok(())
}

async fn registration() -> Result<(), Ignored> {
    let habits: [Habit; 3] = [
        |client| json_answer("200 OK", client),
        |mut client| {
            client["redirect_uris"] = json!(null);
            client["client_name"] = json!(17);
            json_answer("201 Created", client)
        },
        |mut client| {
            client.as_object_mut().unwrap().remove("redirect_uris");
            json_answer("202 Accepted", client)
        },
    ];
    for habit in habits {
        let server = Server::start().await;
        server.state().registration_habit = Some(habit);
        let client = builder(server.entry()).on_authorization(REDIRECT_URI, agree).build().unwrap();
        call(&client, "read").await.unwrap();
        assert_eq!(server.seen(), (1, 1, 0));
    }
    Ok(())
}

async fn errors_in_success() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().token_habit = Some(|token| {
        let secret = |name: &str| (name.to_string(), token[name].as_str().unwrap().to_string());
        json_answer("200 OK", refusal(&HashMap::from([secret("access_token"), secret("scope")])))
    });
    let provider = json!({
        "issuer": "http://127.0.0.1:1", "token_endpoint": format!("{}/provider", server.origin), "client_id": "us",
        "client_secret": "${SECRET}", "id_token": "SECRET-of-the-company",
    });
    for auth in [
        json!({}),
        json!({"grant": "client_credentials", "client_id": "machine", "client_secret": "${SECRET}"}),
        json!({"grant": "jwt_bearer", "assertion": "${SECRET}"}),
        json!({"grant": "enterprise_managed", "client_id": "us", "client_secret": "${SECRET}", "identity_provider": provider}),
    ] {
        let mut entry = server.entry();
        entry["auth"] = auth;
        let client = builder(entry.clone()).on_authorization(REDIRECT_URI, agree).build().unwrap();
        let error = call(&client, "read").await.unwrap_err();
        let words = "incorrect_client_credentials: The client_secret is missing.";
        assert!(error.contains(words), "{entry}: {error}");
        assert!(!error.contains("SECRET-of"), "{entry}: {error}");
    }
    server.state().registration_habit =
        Some(|_| json_answer("200 OK", json!({"error": "invalid_redirect_uri", "error_description": "no loopback"})));
    let client = builder(server.entry()).on_authorization(REDIRECT_URI, agree).build().unwrap();
    let error = client.authorize("remote").await.unwrap_err();
    assert!(matches!(error, rhaiway::Error::Authorization { .. }), "{error}");
    let expected = "can't log in to the server `remote`: authorisation failed: the registration was refused: \
                    invalid_redirect_uri: no loopback";
    assert_eq!(error.to_string(), expected);
    Ok(())
}

async fn refused_renewal() -> Result<(), Ignored> {
    let server = Server::start().await;
    let store = Store::default();
    let first =
        builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
    call(&first, "read").await.unwrap();
    {
        let mut state = server.state();
        state.valid.clear();
        state.token_habit = Some(|_| {
            let words = "it is over: SECRET-refresh-1, SECRET-of-client";
            json_answer("200 OK", json!({"error": "bad_refresh_token", "error_description": words}))
        });
    }
    let error = call(&builder(server.entry()).token_store(store).build().unwrap(), "read").await.unwrap_err();
    assert!(error.contains("bad_refresh_token: it is over: [secret], [secret]"), "{error}");
    assert!(error.contains("run `rhaiway auth login remote`"), "{error}");
    Ok(())
}

async fn failed_login() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().token_habit = Some(|_| json_answer("200 OK", refusal(&HashMap::new())));
    let folder = configured(&server);
    let login = rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]);
    let (code, stderr) = tried_to_log_in(login, |_| async {}).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("error: can't log in to the server `remote`: "), "{stderr}");
    assert!(stderr.contains("incorrect_client_credentials: The client_secret is missing."), "{stderr}");
    // A server that is not there is none that refuses.
    let config = json!({"mcpServers": {"remote": {"url": "http://127.0.0.1:1/mcp"}}}).to_string();
    std::fs::write(folder.path().join("mcp.json"), config).unwrap();
    let (_, stderr) = ran(rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]), 3).await;
    assert!(stderr.contains("can't connect to the server `remote`"), "{stderr}");
    Ok(())
}

async fn kept_refresh_token() -> Result<(), Ignored> {
    let habits: [Habit; 3] = [
        |mut token| {
            if token["refresh_token"] != "SECRET-refresh-1" {
                token.as_object_mut().unwrap().remove("refresh_token");
            }
            json_answer("200 OK", token)
        },
        |mut token| {
            if token["refresh_token"] != "SECRET-refresh-1" {
                token["refresh_token"] = json!(null);
            }
            json_answer("200 OK", token)
        },
        |mut token| {
            if token["refresh_token"] != "SECRET-refresh-1" {
                token["refresh_token"] = json!("");
            }
            json_answer("200 OK", token)
        },
    ];
    for habit in habits {
        let server = Server::start().await;
        server.state().token_habit = Some(habit);
        let store = Store::default();
        let client =
            builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
        let session = client.create_session("remote").await.unwrap();
        for renewals in 1..=3 {
            {
                let mut state = server.state();
                state.valid.clear();
                state.refresh_tokens.insert("SECRET-refresh-1".into());
            }
            session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
            assert_eq!(server.seen(), (1, 1, renewals));
            let kept: Value = serde_json::from_str(&store.0.lock().unwrap()["remote"]).unwrap();
            assert_eq!(kept["refresh_token"], "SECRET-refresh-1");
            assert_eq!(kept["access_token"], format!("SECRET-access-{}", renewals + 1));
        }
    }
    Ok(())
}

async fn resource() -> Result<(), Ignored> {
    for (publishes, named, expected) in [
        (Publishes::All, "", ""),
        (Publishes::All, "/", "/"),
        // It says nothing of its name.
        (Publishes::AuthorizationServer, "", ""),
    ] {
        let server = Server::start().await;
        {
            let mut state = server.state();
            state.publishes = publishes;
            state.resource = Some(format!("{}{named}", server.origin));
            state.expected_resource = Some(format!("{}{expected}", server.origin));
        }
        let url =
            if publishes == Publishes::All { server.origin.clone() } else { format!("{}/?key=SECRET", server.origin) };
        let client = builder(json!({"url": url})).on_authorization(REDIRECT_URI, agree).build().unwrap();
        let session = client.create_session("remote").await.unwrap();
        server.state().valid.clear();
        session.call_tool("read", Map::new(), CallOptions::default()).await.unwrap();
        assert_eq!(server.seen(), (1, 1, 1));
        for auth in [
            json!({"grant": "client_credentials", "client_id": "machine", "client_secret": "${SECRET}"}),
            json!({"grant": "jwt_bearer", "assertion": "${SECRET}"}),
        ] {
            call(&builder(json!({"url": url, "auth": auth})).build().unwrap(), "read").await.unwrap();
        }
    }
    Ok(())
}

async fn lazy() -> Result<(), Ignored> {
    for (publishes, stream) in [
        (Publishes::All, false),
        (Publishes::AuthorizationServer, false),
        (Publishes::All, true),
        (Publishes::Nothing, true),
    ] {
        let server = Server::start().await;
        {
            let mut state = server.state();
            (state.lazy, state.publishes, state.stream) = (true, publishes, stream);
        }
        let store = Store::default();
        let alone = builder(server.entry()).token_store(store.clone()).build().unwrap();
        let error = call(&alone, "read").await.unwrap_err();
        assert!(
            error.starts_with("`remote.read` failed: ") && error.contains("run `rhaiway auth login remote`"),
            "{error}"
        );
        let person =
            builder(server.entry()).on_authorization(REDIRECT_URI, agree).token_store(store.clone()).build().unwrap();
        let to_log_in_to = publishes != Publishes::Nothing;
        assert_eq!(person.authorize("remote").await.unwrap(), to_log_in_to);
        assert_eq!(server.state().logins.len(), usize::from(to_log_in_to));
        if to_log_in_to {
            assert!(person.authorize("remote").await.unwrap());
            call(&alone, "read").await.unwrap();
            assert_eq!(server.state().logins.len(), 1, "nobody is asked where there are tokens");
        }
    }
    Ok(())
}

/// A folder with a configuration of the server.
fn configured(server: &Server) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"mcpServers": {"remote": server.entry()}});
    std::fs::write(folder.path().join("mcp.json"), config.to_string()).unwrap();
    folder
}

async fn lazy_command() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().lazy = true;
    let folder = configured(&server);
    let call = || rhaiway(folder.path(), &["run", "-e", "remote.read().ok"]);
    let (_, stderr) = ran(call(), 1).await;
    assert!(stderr.contains("run `rhaiway auth login remote`"), "{stderr}");
    let stderr = log_in(rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]), |_| async {}).await;
    assert!(stderr.contains("logged in to `remote`") && !stderr.contains("SECRET"), "{stderr}");
    assert_eq!(ran(call(), 0).await.0, "true\n");
    server.state().publishes = Publishes::Nothing;
    let (_, stderr) = ran(rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]), 0).await;
    assert!(stderr.contains("there is nothing to log in to"), "{stderr}");
    assert_eq!(server.state().logins.len(), 1);
    Ok(())
}

async fn revoked() -> Result<(), Ignored> {
    let server = Server::start().await;
    server.state().revocation = Some("200 OK");
    let folder = configured(&server);
    log_in(rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]), |_| async {}).await;
    let (_, stderr) = ran(rhaiway(folder.path(), &["auth", "logout", "remote"]), 0).await;
    assert!(!stderr.contains("could not be revoked") && !stderr.contains("SECRET"), "{stderr}");
    let expected = [("refresh_token", "SECRET-refresh-1"), ("access_token", "SECRET-access-1")];
    assert_eq!(server.state().revoked, expected.map(|(kind, token)| (kind.to_string(), token.to_string())));
    // There is nothing left to revoke.
    ran(rhaiway(folder.path(), &["auth", "logout", "remote"]), 0).await;
    assert_eq!(server.state().revoked.len(), 2);
    Ok(())
}

async fn not_revoked() -> Result<(), Ignored> {
    let server = Server::start().await;
    let folder = configured(&server);
    let login = || rhaiway(folder.path(), &["auth", "login", "remote", "--no-browser"]);
    let logout = || {
        let mut command = rhaiway(folder.path(), &["auth", "logout", "remote"]);
        command.env_remove("RHAIWAY_LOG");
        command
    };
    // Where there is no endpoint, there is nothing to be said.
    log_in(login(), |_| async {}).await;
    let (_, stderr) = ran(logout(), 0).await;
    assert!(!stderr.contains("revoked"), "{stderr}");
    log_in(login(), |_| async {}).await;
    server.state().revocation = Some("503 Service Unavailable");
    let (_, stderr) = ran(logout(), 0).await;
    assert_eq!(stderr.matches("could not be revoked at its authorisation server").count(), 1, "{stderr}");
    assert!(stderr.contains("unavailable: can't revoke [secret]") && !stderr.contains("SECRET"), "{stderr}");
    assert!(stderr.contains("there are no tokens for `remote` any more"), "{stderr}");
    assert_eq!(server.state().revoked.len(), 2, "the access token is tried where the refresh token failed");
    // Nor does it wait for ever.
    log_in(login(), |_| async {}).await;
    server.state().revocation = Some(NEVER);
    let (_, stderr) = ran(logout(), 0).await;
    assert!(stderr.contains("could not be revoked") && stderr.contains("it took longer than 10 s"), "{stderr}");
    // Nor is it followed to where the server is not.
    log_in(login(), |_| async {}).await;
    server.state().revocation = Some("200 OK");
    server.state().issuer = Some("/moved");
    let (_, stderr) = ran(logout(), 0).await;
    assert!(stderr.contains("they are those of another authorisation server"), "{stderr}");
    assert_eq!(server.state().revoked.len(), 3);
    assert_eq!(std::fs::read_dir(folder.path().join("state/rhaiway/tokens")).unwrap().count(), 0);
    Ok(())
}
