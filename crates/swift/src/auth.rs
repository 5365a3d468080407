//! `/auth/v1.0`: a token for a name and a password.

use gateway::{Body, Request, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use namespace::User;

use crate::authorise::unauthorized;
use crate::headers::{X_AUTH_TOKEN, X_STORAGE_TOKEN, number, value};
use crate::identity::storage_account;
use crate::respond::Refusal;
use crate::service::{Swift, not_allowed};

static X_STORAGE_URL: HeaderName = HeaderName::from_static("x-storage-url");
static X_AUTH_TOKEN_EXPIRES: HeaderName = HeaderName::from_static("x-auth-token-expires");

/// Who somebody says to be.
struct Credentials<'a> {
    account: &'a str,
    user: &'a str,
    password: &'a str,
}

impl Swift {
    /// Answers a request for a token; the path may name the account.
    pub(crate) async fn authenticate(&self, request: &Request, account: Option<&str>) -> Response {
        if request.method != Method::GET {
            return not_allowed("GET");
        }
        match self.verify(&request.headers, account).await {
            Ok(Some(user)) => self.grant(&request.headers, &user),
            Ok(None) => unauthorized(account).into_response(),
            Err(error) => Refusal::from(error).into_response(),
        }
    }

    async fn verify(
        &self,
        headers: &HeaderMap,
        account: Option<&str>,
    ) -> Result<Option<User>, namespace::Error> {
        let Some(given) = credentials(headers, account) else {
            return Ok(None);
        };
        let users = self.namespace.users();
        users
            .verify(given.account, given.user, given.password)
            .await
    }

    fn grant(&self, headers: &HeaderMap, user: &User) -> Response {
        let now = self.now();
        let (token, expires) = self.tokens.mint(user, now);
        let mut token = value(token);
        token.set_sensitive(true);
        let url = self.storage_url(headers, &user.account);
        let Ok(url) = HeaderValue::try_from(url) else {
            return Refusal::bad("Host header cannot be understood").into_response();
        };
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(X_AUTH_TOKEN.clone(), token.clone());
        headers.insert(X_STORAGE_TOKEN.clone(), token);
        headers.insert(X_AUTH_TOKEN_EXPIRES.clone(), number(expires - now));
        headers.insert(X_STORAGE_URL.clone(), url);
        let html = HeaderValue::from_static("text/html; charset=UTF-8");
        headers.insert(header::CONTENT_TYPE, html);
        *response.status_mut() = StatusCode::OK;
        response
    }

    fn storage_url(&self, headers: &HeaderMap, account: &str) -> String {
        let account = storage_account(account);
        let account = gateway::percent::encode_path(&account);
        if !self.config.public_url.is_empty() {
            let base = self.config.public_url.trim_end_matches('/');
            return format!("{base}/v1/{account}");
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        format!("http://{}/v1/{account}", host.unwrap_or("localhost"))
    }
}

/// `X-Auth-User: account:user` and `X-Auth-Key`, or the same under their other names. Where the path
/// names the account, the header may leave it out, and must not name another.
fn credentials<'a>(headers: &'a HeaderMap, account: Option<&'a str>) -> Option<Credentials<'a>> {
    let utf8 = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    };
    let name = utf8("x-auth-user").or_else(|| utf8("x-storage-user"))?;
    let password = utf8("x-auth-key").or_else(|| utf8("x-storage-pass"))?;
    let (given, user) = match (name.split_once(':'), account) {
        (Some((given, user)), _) => (given, user),
        (None, Some(account)) => (account, name),
        (None, None) => return None,
    };
    let agrees = account.is_none_or(|account| account == given);
    let named = !given.is_empty() && !user.is_empty();
    (agrees && named).then_some(Credentials {
        account: given,
        user,
        password,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_all_forms() {
        let of = |user: &str, account: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-storage-user", user.parse().unwrap());
            headers.insert("x-storage-pass", "secret".parse().unwrap());
            let given = credentials(&headers, account)?;
            assert_eq!(given.password, "secret");
            Some(format!("{}|{}", given.account, given.user))
        };
        assert_eq!(of("test:tester", None).as_deref(), Some("test|tester"));
        assert_eq!(of("test:a:b", None).as_deref(), Some("test|a:b"));
        assert_eq!(of("tester", Some("test")).as_deref(), Some("test|tester"));
        assert_eq!(of("test:x", Some("test")).as_deref(), Some("test|x"));
        for (user, account) in [
            ("tester", None),
            (":x", None),
            ("x:", None),
            ("", Some("test")),
            ("other:x", Some("test")),
        ] {
            assert_eq!(of(user, account), None, "{user}");
        }
        assert!(credentials(&HeaderMap::new(), None).is_none());
    }
}
