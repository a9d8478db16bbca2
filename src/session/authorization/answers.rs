//! What authorisation servers answer, put into the form of the standards. rmcp and `oauth2` take each field of an answer strictly; servers
//! write numbers as texts, lists with commas, `null`, and errors with the status of success. Nothing here decides whom to trust.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use reqwest::{Request, Url};
use serde_json::{Map, Value, json};

use super::problem::shown;
use super::tokens::words;

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// Longest lifetime of a token that is believed, in seconds: a hundred years.
const LIFETIME: u64 = 100 * 366 * 24 * 60 * 60;
/// The error of an answer that has none.
const NOTHING: &str = "it answered with neither what was asked for nor an error";
/// Fields of what a server publishes that hold a text, and that hold a list, where they are not to hold anything else.
const TEXTS: [&str; 5] = ["authorization_server", "issuer", "jwks_uri", "registration_endpoint", "resource"];
const LISTS: [&str; 4] =
    ["authorization_servers", "code_challenge_methods_supported", "response_types_supported", "scopes_supported"];
/// A text of fewer bytes is no secret that could be told from other words.
const SECRET_BYTES: usize = 4;
/// Fields of a token request that hold secrets.
const SECRETS: [&str; 8] = [
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "refresh_token",
    "subject_token",
    "token",
];

/// What an answer is to be, by its request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a form: a token.
    Token,
    /// To a registration: a client.
    Client,
    /// To a look: what a server publishes.
    Metadata,
}

impl Kind {
    pub(super) fn of(request: &Request) -> Self {
        let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        match *request.method() {
            Method::POST if kind.starts_with(FORM.as_bytes()) => Self::Token,
            Method::POST => Self::Client,
            _ => Self::Metadata,
        }
    }
}

/// The secrets in a request's form, which an answer may repeat.
pub(super) fn secrets(request: &Request) -> Vec<String> {
    let body = request.body().and_then(reqwest::Body::as_bytes).filter(|_| Kind::of(request) == Kind::Token);
    let form = pairs(&String::from_utf8_lossy(body.unwrap_or_default()));
    form.into_iter().filter(|(name, _)| SECRETS.contains(&name.as_str())).map(|(_, value)| value).collect()
}

/// The fields of a form.
pub(super) fn pairs(form: &str) -> Vec<(String, String)> {
    let Ok(mut url) = Url::parse("http://form") else { return Vec::new() };
    url.set_query(Some(form));
    url.query_pairs().into_owned().collect()
}

/// An answer in the standard's form, as far as it can be made out. `secrets` are not to be in what it says of an error.
pub(super) fn standard(kind: Kind, answer: Response<Vec<u8>>, secrets: &[String]) -> Response<Vec<u8>> {
    let (mut head, body) = answer.into_parts();
    let fields = fields(kind, &body);
    let fields = match kind {
        Kind::Metadata => match fields {
            Some(fields) if head.status.is_success() => metadata(fields),
            _ => return Response::from_parts(head, body),
        },
        Kind::Token | Kind::Client => {
            let given = fields.as_ref().filter(|_| head.status.is_success()).and_then(|fields| match kind {
                Kind::Token => token(fields),
                _ => client(fields),
            });
            match given {
                Some(given) => given,
                // What does not even look like an answer says as much as its status.
                None if fields.is_none() && !head.status.is_client_error() && !head.status.is_server_error() => {
                    return Response::from_parts(head, body);
                }
                None => {
                    let refusal = refusal(head.status, &fields.unwrap_or_default(), secrets);
                    if !head.status.is_client_error() && !head.status.is_server_error() {
                        head.status = StatusCode::BAD_REQUEST;
                    }
                    refusal
                }
            }
        }
    };
    if head.status.is_success() {
        head.status = StatusCode::OK;
    }
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(head, Value::Object(fields).to_string().into_bytes())
}

/// The fields of an answer, in JSON or as a form, as GitHub writes tokens.
fn fields(kind: Kind, body: &[u8]) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if let Ok(value) = serde_json::from_str(text) {
        return match value {
            Value::Object(fields) => Some(fields),
            _ => None,
        };
    }
    let form = if kind == Kind::Token { pairs(text) } else { Vec::new() };
    let is_one = form.iter().any(|(name, _)| matches!(name.as_str(), "access_token" | "error"));
    is_one.then(|| form.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

/// A text that says something.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// The fields of a token, if it is one.
fn token(fields: &Map<String, Value>) -> Option<Map<String, Value>> {
    text(fields, "access_token")?;
    let mut token = fields.clone();
    // What `null` says is nothing.
    token.retain(|_, value| !value.is_null());
    // An assertion for another server is of no kind that could be sent along (RFC 8693).
    let kind = if token.contains_key("issued_token_type") { "N_A" } else { "Bearer" };
    let kind = text(fields, "token_type").unwrap_or(kind);
    token.insert("token_type".into(), json!(kind));
    let lifetime = fields.get("expires_in").and_then(lifetime).map(Value::from);
    let scopes = fields.get("scope").and_then(scopes).map(Value::from);
    let refresh_token = text(fields, "refresh_token").map(Value::from);
    for (name, value) in [("expires_in", lifetime), ("scope", scopes), ("refresh_token", refresh_token)] {
        match value {
            Some(value) => token.insert(name.into(), value),
            None => token.shift_remove(name),
        };
    }
    Some(token)
}

/// How long a token is good, in seconds, if that is said: by a number or its text. A token that is over when it is issued, or in a
/// hundred years, is one of which it is not known.
fn lifetime(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let seconds = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
    Some(seconds).filter(|seconds| (1..=LIFETIME).contains(seconds))
}

/// Scopes with one space between them: of a text, or of a list.
fn scopes(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => return None,
    };
    Some(words(&text).join(" ")).filter(|scopes| !scopes.is_empty())
}

/// What is used of a client that was registered, if it was.
fn client(fields: &Map<String, Value>) -> Option<Map<String, Value>> {
    let id = match fields.get("client_id")? {
        Value::String(id) if !id.is_empty() => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let mut client = Map::from_iter([("client_id".to_string(), json!(id)), ("redirect_uris".into(), json!([]))]);
    if let Some(secret) = text(fields, "client_secret") {
        client.insert("client_secret".into(), json!(secret));
    }
    Some(client)
}

/// What a server says of an error, in the standard's two fields.
fn refusal(status: StatusCode, fields: &Map<String, Value>, secrets: &[String]) -> Map<String, Value> {
    let empty = Map::new();
    // Some put all that they say of an error into an object.
    let inner = fields.get("error").and_then(Value::as_object).unwrap_or(&empty);
    let first = |candidates: &[(&Map<String, Value>, &str)]| {
        candidates.iter().find_map(|(fields, name)| text(fields, name)).map(|text| hidden(text, secrets))
    };
    let error = first(&[(fields, "error"), (inner, "code"), (inner, "type"), (inner, "status")]);
    let description = first(&[
        (fields, "error_description"),
        (inner, "message"),
        (inner, "error_description"),
        (fields, "message"),
        (fields, "detail"),
    ]);
    let error = error.unwrap_or_else(|| if status.is_success() { NOTHING.into() } else { format!("HTTP {status}") });
    let mut refusal = Map::from_iter([("error".to_string(), json!(shown(&error)))]);
    if let Some(description) = description {
        refusal.insert("error_description".into(), json!(shown(&description)));
    }
    refusal
}

/// A text of a server without the secrets that it was sent.
fn hidden(text: &str, secrets: &[String]) -> String {
    let mut secrets: Vec<&String> = secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES).collect();
    // The longest first, as one may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_string(), |text, secret| text.replace(secret.as_str(), "[secret]"))
}

/// What a server publishes, with lists where lists belong, and texts where texts do. A field of another kind is left out.
fn metadata(mut fields: Map<String, Value>) -> Map<String, Value> {
    for name in TEXTS {
        if fields.contains_key(name) && text(&fields, name).is_none() {
            fields.shift_remove(name);
        }
    }
    for (name, value) in &mut fields {
        let is_list = name == "authorization_servers" || name.ends_with("_supported");
        match value {
            Value::String(text) if is_list => {
                *value = text.split([' ', ',']).filter(|word| !word.is_empty()).map(Value::from).collect();
            }
            Value::Array(items) if is_list => items.retain(Value::is_string),
            _ => {}
        }
    }
    fields.retain(|name, value| value.is_array() || !LISTS.contains(&name.as_str()));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, status: u16, body: &str, secrets: &[&str]) -> (u16, Value) {
        let answer = Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap();
        let secrets: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        let answer = standard(kind, answer, &secrets);
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    #[test]
    fn a_lifetime_is_a_number_however_it_is_written() {
        for (written, expected) in [
            ("3600", Some(3600)),
            ("\"5250\"", Some(5250)),
            ("\" 60 \"", Some(60)),
            ("3599.9", Some(3599)),
            ("\"3600.0\"", Some(3600)),
            ("1e3", Some(1000)),
            ("null", None),
            ("0", None),
            ("-1", None),
            ("\"-3600\"", None),
            ("18446744073709551615", None),
            ("99999999999999999999999", None),
            ("\"inf\"", None),
            ("\"NaN\"", None),
            ("\"in a while\"", None),
            ("true", None),
            ("[3600]", None),
        ] {
            let body = format!(r#"{{"access_token": "t", "token_type": "bearer", "expires_in": {written}}}"#);
            let (status, token) = read(Kind::Token, 200, &body, &[]);
            assert_eq!((status, token["expires_in"].as_u64()), (200, expected), "{written}");
            assert_eq!(token.get("expires_in").is_some(), expected.is_some(), "{written}");
        }
    }

    #[test]
    fn scopes_have_one_space_between_them() {
        for (written, expected) in [
            (json!("read write"), json!("read write")),
            (json!("read,write"), json!("read write")),
            (json!("read, write,"), json!("read write")),
            (json!("  read \t write read "), json!("read write")),
            (json!("https://a/b,c read"), json!("https://a/b,c read")),
            (json!(["read", "write", 5, null]), json!("read write")),
            (json!(""), Value::Null),
            (json!([]), Value::Null),
            (json!(null), Value::Null),
            (json!({"read": true}), Value::Null),
        ] {
            let body = json!({"access_token": "t", "scope": written}).to_string();
            assert_eq!(read(Kind::Token, 200, &body, &[]).1["scope"], expected, "{written}");
        }
    }

    #[test]
    fn a_token_is_one_whatever_is_beside_it() {
        let bearer = json!({"access_token": "t", "token_type": "Bearer"});
        for (status, body, expected) in [
            (200, r#"{"access_token": "t"}"#, bearer.clone()),
            (201, "\u{feff} {\"access_token\": \"t\", \"token_type\": null, \"refresh_token\": null}", bearer.clone()),
            (202, r#"{"access_token": "t", "token_type": 5, "refresh_token": "", "error": null}"#, bearer),
            (200, r#"{"access_token": "t", "token_type": "DPoP"}"#, json!({"access_token": "t", "token_type": "DPoP"})),
            (
                200,
                r#"{"access_token": "t", "issued_token_type": "x"}"#,
                json!({"access_token": "t", "issued_token_type": "x", "token_type": "N_A"}),
            ),
            (
                200,
                "access_token=t&expires_in=28800&refresh_token=r%2B1&scope=repo%2Cgist&token_type=bearer",
                json!({
                    "access_token": "t", "token_type": "bearer", "expires_in": 28800, "scope": "repo gist", "refresh_token": "r+1",
                }),
            ),
        ] {
            assert_eq!(read(Kind::Token, status, body, &[]), (200, expected), "{body}");
        }
    }

    #[test]
    fn an_error_is_one_whatever_its_status_and_form() {
        for (status, body, expected_status, error, description) in [
            (200, r#"{"error": "bad", "error_description": "so it is"}"#, 400, "bad", json!("so it is")),
            (201, r#"{"access_token": "", "error": "bad"}"#, 400, "bad", Value::Null),
            (200, "error=bad&error_description=so+it+is", 400, "bad", json!("so it is")),
            (400, r#"{"error": {"code": "bad", "message": "so it is"}}"#, 400, "bad", json!("so it is")),
            (401, r#"{"error": true, "message": "so it is"}"#, 401, "HTTP 401 Unauthorized", json!("so it is")),
            (503, "<html>", 503, "HTTP 503 Service Unavailable", Value::Null),
            (200, r#"{"ok": 1}"#, 400, NOTHING, Value::Null),
        ] {
            let (status, answer) = read(Kind::Token, status, body, &[]);
            assert_eq!((status, &answer["error"]), (expected_status, &json!(error)), "{body}");
            assert_eq!(answer["error_description"], description, "{body}");
        }
        assert_eq!(read(Kind::Client, 200, r#"{"error": "bad"}"#, &[]), (400, json!({"error": "bad"})));
    }

    #[test]
    fn an_error_repeats_no_secret() {
        let body =
            r#"{"error": "bad", "error_description": "the code hush-hush and hush-hush-hush are no pair; see a"}"#;
        let (_, answer) = read(Kind::Token, 400, body, &["hush-hush", "a", "hush-hush-hush"]);
        assert_eq!(answer["error_description"], "the code [secret] and [secret] are no pair; see a");
        let form = "grant_type=authorization_code&code=hush%20hush&client_secret=s1&code_verifier=v1&resource=x";
        let request = reqwest::Client::new().post("http://host").header(CONTENT_TYPE, FORM).body(form);
        assert_eq!(secrets(&request.build().unwrap()), ["hush hush", "s1", "v1"]);
    }

    #[test]
    fn of_a_registered_client_only_what_is_used_has_to_be_right() {
        for (status, body, secret) in [
            (200, r#"{"client_id": "c", "client_secret": null, "redirect_uris": null}"#, Value::Null),
            (201, r#"{"client_id": "c", "client_secret": "", "client_name": null}"#, Value::Null),
            (201, r#"{"client_id": "c", "client_secret": "s", "redirect_uris": "http://x"}"#, json!("s")),
        ] {
            let (status, client) = read(Kind::Client, status, body, &[]);
            assert_eq!((status, &client["client_id"], &client["client_secret"]), (200, &json!("c"), &secret), "{body}");
            assert_eq!(client["redirect_uris"], json!([]));
        }
        assert_eq!(read(Kind::Client, 201, r#"{"client_id": 17}"#, &[]).1["client_id"], "17");
    }

    #[test]
    fn what_a_server_publishes_has_lists_and_texts() {
        let body = json!({
            "resource": "http://host", "issuer": null, "registration_endpoint": false, "authorization_servers": "http://as",
            "scopes_supported": "read, write", "code_challenge_methods_supported": ["S256", null], "response_types_supported": null,
            "token_endpoint_auth_methods_supported": "none", "claims_parameter_supported": true,
        });
        let expected = json!({
            "resource": "http://host", "authorization_servers": ["http://as"], "scopes_supported": ["read", "write"],
            "code_challenge_methods_supported": ["S256"], "token_endpoint_auth_methods_supported": ["none"],
            "claims_parameter_supported": true,
        });
        assert_eq!(read(Kind::Metadata, 203, &body.to_string(), &[]), (200, expected));
        // Only success is changed, and only what can be read.
        assert_eq!(read(Kind::Metadata, 404, r#"{"issuer": null}"#, &[]), (404, json!({"issuer": null})));
        assert_eq!(read(Kind::Metadata, 203, "<html>", &[]), (203, Value::Null));
    }
}
