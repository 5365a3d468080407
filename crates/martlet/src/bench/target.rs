//! The server under load: where it is, and what a request to it looks like.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, anyhow, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::args::{Kind, LoadArgs, NameArgs};
use crate::http;

const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    host: String,
    /// With `{}` for the object's name, percent-encoded already.
    object_path: String,
    container_path: String,
    token: Option<String>,
}

impl Target {
    /// Logs in by Swift's auth v1.0.
    pub(super) fn swift(load: &LoadArgs, names: &NameArgs, password: &str) -> anyhow::Result<Self> {
        let auth = http::Url::parse(&load.auth)?;
        let headers = [
            ("X-Auth-User", load.user.as_str()),
            ("X-Auth-Key", password),
        ];
        let answer = http::Peer::Tcp(&auth.authority)
            .request("GET", &auth.path, &headers, b"")
            .with_context(|| format!("logging in at {}", load.auth))?;
        if answer.status / 100 != 2 {
            bail!(
                "logging in at {} as {}: {}",
                load.auth,
                load.user,
                answer.status
            );
        }
        let header = |name: &str| {
            let value = answer.header(name);
            value.ok_or_else(|| anyhow!("{} gave no {name}", load.auth))
        };
        let storage = http::Url::parse(header("x-storage-url")?)?;
        let container = utf8_percent_encode(&names.container, QUERY);
        let container_path = format!("{}/{container}", storage.path.trim_end_matches('/'));
        Ok(Self {
            address: resolve(&storage.authority)?,
            object_path: format!("{container_path}/{{}}"),
            host: storage.authority,
            container_path,
            token: Some(header("x-auth-token")?.to_owned()),
        })
    }

    /// Plain GETs of what `pattern` names.
    pub(super) fn plain(pattern: &str) -> anyhow::Result<Self> {
        let url = http::Url::parse(pattern)?;
        Ok(Self {
            address: resolve(&url.authority)?,
            host: url.authority,
            object_path: url.path,
            container_path: String::new(),
            token: None,
        })
    }

    /// The head of a request for an object, or for the container if `kind` lists.
    pub(super) fn head(&self, kind: Kind, name_or_query: &str, body_bytes: u64) -> Vec<u8> {
        let (method, path) = match kind {
            Kind::List => ("GET", format!("{}?{name_or_query}", self.container_path)),
            Kind::Put => ("PUT", self.object(name_or_query)),
            Kind::Get => ("GET", self.object(name_or_query)),
            Kind::Delete => ("DELETE", self.object(name_or_query)),
        };
        let length = match kind {
            Kind::Put => format!("Content-Length: {body_bytes}\r\n"),
            Kind::Get | Kind::Delete | Kind::List => String::new(),
        };
        let token = match &self.token {
            Some(token) => format!("X-Auth-Token: {token}\r\n"),
            None => String::new(),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}{length}\r\n",
            self.host
        )
        .into_bytes()
    }

    fn object(&self, name: &str) -> String {
        let name = utf8_percent_encode(name, PATH).to_string();
        self.object_path.replace("{}", &name)
    }

    /// Makes the container.
    pub(super) fn make_container(&self) -> anyhow::Result<()> {
        let token = self.token.as_deref().unwrap_or_default();
        let headers = [("X-Auth-Token", token)];
        let answer =
            http::Peer::Tcp(&self.host).request("PUT", &self.container_path, &headers, b"")?;
        if answer.status / 100 != 2 {
            bail!("making the container: {}", answer.status);
        }
        Ok(())
    }
}

/// The query of a listing.
pub(super) fn listing_query(parameters: &BTreeMap<&str, String>) -> String {
    let pairs = parameters.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
    pairs.collect::<Vec<_>>().join("&")
}

fn resolve(authority: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = authority
        .to_socket_addrs()
        .with_context(|| format!("finding {authority}"))?;
    addresses
        .next()
        .ok_or_else(|| anyhow!("{authority} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swift_request_names_its_object_encoded() {
        let target = Target {
            address: "127.0.0.1:1".parse().unwrap(),
            host: "h:1".to_owned(),
            object_path: "/v1/AUTH_a/c/{}".to_owned(),
            container_path: "/v1/AUTH_a/c".to_owned(),
            token: Some("t".to_owned()),
        };
        let head = |kind, name, bytes| String::from_utf8(target.head(kind, name, bytes)).unwrap();
        assert_eq!(
            head(Kind::Put, "d/ü 1?", 5),
            "PUT /v1/AUTH_a/c/d/%C3%BC%201%3F HTTP/1.1\r\nHost: h:1\r\nX-Auth-Token: t\r\n\
             Content-Length: 5\r\n\r\n"
        );
        let query = listing_query(&BTreeMap::from([
            ("delimiter", "/".to_owned()),
            ("prefix", "a&b/".to_owned()),
        ]));
        assert_eq!(
            head(Kind::List, &query, 0),
            "GET /v1/AUTH_a/c?delimiter=%2F&prefix=a%26b%2F HTTP/1.1\r\nHost: h:1\r\n\
             X-Auth-Token: t\r\n\r\n"
        );
    }

    #[test]
    fn a_plain_target_fills_its_pattern() {
        let target = Target::plain("http://127.0.0.1:9000/files/{}").unwrap();
        assert_eq!(
            target.head(Kind::Get, "d0001/7", 0),
            b"GET /files/d0001/7 HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n"
        );
        Target::plain("https://127.0.0.1/").unwrap_err();
    }
}
