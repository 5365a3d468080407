//! A client of the Swift API that is logged in.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http::{Begun, Client, Endpoint, Request, Response};

/// One connection with a token.
pub struct Session {
    client: Client,
    token: String,
    /// `/v1/AUTH_account`.
    account: String,
}

impl Session {
    pub fn login(endpoint: impl Into<Endpoint>, user: &str, password: &str) -> Result<Self> {
        let mut client = Client::new(endpoint);
        let request = Request::new("GET", "/auth/v1.0")
            .header("X-Auth-User", user)
            .header("X-Auth-Key", password);
        let answer = client.send(&request)?;
        if answer.status != 200 {
            bail!("no token for {user}: {answer:?}");
        }
        let header = |name| {
            answer
                .header(name)
                .with_context(|| format!("no {name}: {answer:?}"))
        };
        let token = header("X-Auth-Token")?.to_owned();
        let url = header("X-Storage-Url")?;
        let (_, path) = url
            .split_once("/v1/")
            .with_context(|| format!("storage at {url}?"))?;
        Ok(Self {
            client,
            token,
            account: format!("/v1/{path}"),
        })
    }

    /// Another connection with the same token, perhaps to the server's next run.
    pub fn again(&self, endpoint: impl Into<Endpoint>) -> Self {
        Self {
            client: Client::new(endpoint),
            token: self.token.clone(),
            account: self.account.clone(),
        }
    }

    /// Gives up when nothing moves for so long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        let client = self.client.with_patience(patience);
        Self { client, ..self }
    }

    /// A request for a container, an object, or with an empty path the account, with the token. `path` is not
    /// encoded yet, `query` is.
    pub fn request<'a>(&self, method: &'a str, path: &str, query: &str) -> Request<'a> {
        let mut target = self.account.clone();
        if !path.is_empty() {
            target += "/";
            target += &encode(path);
        }
        if !query.is_empty() {
            target += "?";
            target += query;
        }
        Request::new(method, target).header("X-Auth-Token", self.token.as_str())
    }

    pub fn send(&mut self, request: &Request<'_>) -> io::Result<Response> {
        self.client.send(request)
    }

    /// Sends the head of a request and this much of its body.
    pub fn begin<'a>(&self, request: &Request<'a>, bytes: usize) -> io::Result<Begun<'a>> {
        self.client.begin(request, bytes)
    }

    /// A request without a body, which must not fail.
    pub fn call(&mut self, method: &str, path: &str, query: &str) -> Result<Response> {
        let request = self.request(method, path, query);
        self.send(&request)
            .with_context(|| format!("{method} {path}?{query}"))
    }
}

/// Percent-encodes all but what is safe everywhere. Slashes stay.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            other => write!(encoded, "%{other:02X}").expect("a string takes everything"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_safe_is_encoded_byte_by_byte() {
        assert_eq!(encode("a/ü %?"), "a/%C3%BC%20%25%3F");
    }
}
