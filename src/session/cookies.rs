//! Cookies of one server, as load balancers set them to keep a client at one node: in memory, for as long as the connection, and only
//! sent back to where they came from.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cookie::Cookie;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use reqwest::Url;

/// Cookies that are kept, and the longest of them. What is over is not kept, as a server may set any number.
const COOKIES: usize = 64;
const COOKIE_BYTES: usize = 4 << 10;
/// Cookies that one answer may set.
const SET_AT_ONCE: usize = 64;

/// The cookies of the origin that one connection speaks with.
#[derive(Default)]
pub(super) struct Cookies(Mutex<Vec<Kept>>);

struct Kept {
    name: String,
    value: String,
    path: String,
    /// When it is over, if it ends before the connection.
    until: Option<Instant>,
}

impl Kept {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// As RFC 6265, section 5.1.4, matches paths.
    fn is_for(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.path) else { return false };
        rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
    }
}

impl Cookies {
    /// Adds the cookies that belong to an address to the headers of a request, behind those that are there.
    pub(super) fn add_to(&self, url: &Url, headers: &mut HeaderMap) {
        let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cookies.retain(|cookie| !cookie.is_over());
        let ours = cookies.iter().filter(|cookie| cookie.is_for(url.path()));
        let ours = ours.map(|cookie| format!("{}={}", cookie.name, cookie.value));
        let own = headers.get(COOKIE).and_then(|own| own.to_str().ok()).map(String::from);
        let all = own.into_iter().chain(ours).collect::<Vec<_>>().join("; ");
        if let Some(mut all) = HeaderValue::from_str(&all).ok().filter(|all| !all.is_empty()) {
            all.set_sensitive(true);
            headers.insert(COOKIE, all);
        }
    }

    /// Takes what an answer from an address sets.
    pub(super) fn learn(&self, url: &Url, headers: &HeaderMap) {
        for set in headers.get_all(SET_COOKIE).iter().take(SET_AT_ONCE) {
            let text = set.to_str().ok().filter(|text| text.len() <= COOKIE_BYTES);
            if let Some(cookie) = text.and_then(|text| Cookie::parse(text).ok()) {
                self.set(url, &cookie);
            }
        }
    }

    fn set(&self, url: &Url, cookie: &Cookie<'_>) {
        let host = url.host_str().unwrap_or_default();
        let is_of_host = |domain: &str| {
            let domain = domain.trim_start_matches('.').to_ascii_lowercase();
            host == domain || host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
        };
        let is_ours = cookie.domain().is_none_or(is_of_host);
        if !is_ours || (cookie.secure() == Some(true) && url.scheme() != "https") {
            return;
        }
        let folder =
            url.path().rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        let path = cookie.path().filter(|path| path.starts_with('/')).unwrap_or(folder).to_string();
        let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cookies.retain(|kept| (&*kept.name, &kept.path) != (cookie.name(), &path) && !kept.is_over());
        let left = lifetime(cookie);
        if left.is_some_and(|left| left.is_zero()) || cookies.len() >= COOKIES {
            return;
        }
        let until = left.and_then(|left| Instant::now().checked_add(left));
        cookies.push(Kept { name: cookie.name().into(), value: cookie.value().into(), path, until });
    }
}

/// How long it may be kept; `None` for as long as the connection.
fn lifetime(cookie: &Cookie<'_>) -> Option<Duration> {
    if let Some(age) = cookie.max_age() {
        return Some(Duration::try_from(age).unwrap_or_default());
    }
    let end = cookie.expires_datetime()?;
    Some(SystemTime::from(end).duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to `to` after an answer from `from`.
    fn sent(from: &str, set: &[&str], to: &str, own: Option<&str>) -> Option<String> {
        let cookies = Cookies::default();
        let mut answer = HeaderMap::new();
        for set in set {
            answer.append(SET_COOKIE, HeaderValue::from_str(set).unwrap());
        }
        cookies.learn(&from.parse().unwrap(), &answer);
        let mut request = HeaderMap::new();
        if let Some(own) = own {
            request.insert(COOKIE, HeaderValue::from_str(own).unwrap());
        }
        cookies.add_to(&to.parse().unwrap(), &mut request);
        request.get(COOKIE).map(|sent| sent.to_str().unwrap().to_string())
    }

    #[test]
    fn cookies_go_back_to_where_they_belong() {
        let at = "https://a.example.com/mcp";
        let check = |set: &[&str], to: &str, expected: Option<&str>| {
            assert_eq!(sent(at, set, to, None).as_deref(), expected, "{set:?} {to}");
        };
        check(&["node=1; Path=/; HttpOnly; SameSite=None; Secure"], at, Some("node=1"));
        check(&["a=1; Path=/", "b=2; Path=/"], at, Some("a=1; b=2"));
        check(&["a=1; Path=/", "a=2; Path=/"], at, Some("a=2"));
        check(&["a=1; Path=/", "a=; Path=/; Max-Age=0"], at, None);
        check(&["a=1; Path=/", "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], at, None);
        check(&["a=1; Max-Age=60; Domain=.example.com"], at, Some("a=1"));
        check(&["a=1; Domain=example.org"], at, None);
        check(&["a=1; Domain=ple.com"], at, None);
        check(&["a=1; Path=/mcp"], "https://a.example.com/mcp/x", Some("a=1"));
        check(&["a=1; Path=/mcp"], "https://a.example.com/mcpx", None);
        check(&["a=1"], "https://a.example.com/other", Some("a=1"));
        check(&["", "=", "no cookie"], at, None);
        assert_eq!(sent("http://a/mcp", &["a=1; Secure"], "http://a/mcp", None), None);
        assert_eq!(sent(at, &["a=1"], at, Some("own=0")).as_deref(), Some("own=0; a=1"));
        assert_eq!(sent(at, &[], at, Some("own=0")).as_deref(), Some("own=0"));
    }

    #[test]
    fn what_a_server_sets_is_bounded() {
        let many: Vec<String> = (0..1000).map(|number| format!("n{number}=1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(sent("https://a/", &many, "https://a/", None).unwrap().split("; ").count(), COOKIES);
        assert_eq!(sent("https://a/", &[&format!("a={}", "x".repeat(COOKIE_BYTES))], "https://a/", None), None);
    }
}
