//! A backup in a container of any store that speaks Swift's API v1 with its auth v1.0: each file is an object.
//!
//! A PUT is acknowledged when it is durable, and takes effect as a whole: so the manifest, put last, completes the backup.

use std::cell::RefCell;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use namespace::backup::MANIFEST_NAME;

use super::target::is_leftover;
use crate::credentials::{self, Password};
use crate::http::{Answer, Peer, Url};

/// `http://HOST:PORT/v1/ACCOUNT/CONTAINER`, and perhaps `/FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    authority: String,
    /// Encoded, as it came.
    container: String,
    /// What the names of all objects begin with.
    prefix: String,
}

impl FromStr for StoreUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Url { authority, path } = Url::parse(text)?;
        let mut parts = path.trim_end_matches('/').splitn(5, '/');
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some(""), Some("v1"), Some(account), Some(container), folder)
                if !account.is_empty() && !container.is_empty() && !path.contains(['?', '%']) =>
            {
                let container = format!("/v1/{account}/{container}");
                let prefix = folder.map_or_else(String::new, |folder| format!("{folder}/"));
                Ok(Self {
                    authority,
                    container,
                    prefix,
                })
            }
            _ => bail!("{text}: a container is named http://HOST:PORT/v1/ACCOUNT/CONTAINER"),
        }
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            authority,
            container,
            prefix,
        } = self;
        write!(f, "http://{authority}{container}/{prefix}")
    }
}

/// A container, by somebody who is logged in.
pub(crate) struct Store {
    url: StoreUrl,
    user: String,
    password: Password,
    /// Another one when it has expired.
    token: RefCell<String>,
}

impl Store {
    pub(crate) fn login(url: &StoreUrl, user: &str) -> anyhow::Result<Self> {
        let password = match credentials::from_environment()? {
            Some(password) => password,
            None => credentials::ask(&format!("Password of {user} at {}: ", url.authority))?,
        };
        let store = Self {
            url: url.clone(),
            user: user.to_owned(),
            password,
            token: RefCell::default(),
        };
        store.renew_token()?;
        Ok(store)
    }

    fn renew_token(&self) -> anyhow::Result<()> {
        let headers = [
            ("X-Auth-User", self.user.as_str()),
            ("X-Auth-Key", self.password.reveal()),
        ];
        let peer = Peer::Tcp(&self.url.authority);
        let answer = peer.request("GET", "/auth/v1.0", &headers, b"")?;
        let token = answer.header("x-auth-token");
        match token.filter(|_| answer.status == 200) {
            Some(token) => {
                self.token.replace(token.to_owned());
                Ok(())
            }
            None => bail!(
                "logging in at {} as {}: {}",
                self.url.authority,
                self.user,
                answer.status
            ),
        }
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        const UNAUTHORIZED: u16 = 401;
        let send = || {
            let token = self.token.borrow();
            let headers = [("X-Auth-Token", token.as_str())];
            Peer::Tcp(&self.url.authority).request(method, path, &headers, body)
        };
        let answer = send()?;
        if answer.status != UNAUTHORIZED {
            return Ok(answer);
        }
        self.renew_token()?;
        send()
    }

    /// Makes the container, and looks into it.
    pub(super) fn make_ready(&self) -> anyhow::Result<()> {
        let container = &self.url.container;
        let made = self.request("PUT", container, b"")?;
        if !matches!(made.status, 201 | 202) {
            bail!("making {}: {}", self.url, made.status);
        }
        let prefix = &self.url.prefix;
        // A listing may be long; whether it is empty shows at once.
        let query = format!("{container}?prefix={prefix}&limit=1000&format=plain");
        loop {
            let answer = self.request("GET", &query, b"")?;
            if !matches!(answer.status, 200 | 204) {
                bail!("listing {}: {}", self.url, answer.status);
            }
            let names = String::from_utf8(answer.body).context("names")?;
            if names.is_empty() {
                return Ok(());
            }
            let own = |name: &'_ str| name.strip_prefix(prefix.as_str()).map(str::to_owned);
            let names: Vec<_> = names.lines().filter_map(own).collect();
            if self.get(MANIFEST_NAME)?.is_some() {
                bail!("{} holds a backup already: name another one", self.url);
            }
            if let Some(name) = names.iter().find(|name| !is_leftover(name)) {
                bail!("{} holds {name:?}: name an empty one", self.url);
            }
            for name in names {
                let answer = self.request("DELETE", &self.path(&name), b"")?;
                if !matches!(answer.status, 204 | 404) {
                    bail!("deleting {name} in {}: {}", self.url, answer.status);
                }
            }
        }
    }

    fn path(&self, name: &str) -> String {
        let StoreUrl {
            container, prefix, ..
        } = &self.url;
        format!("{container}/{prefix}{name}")
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let answer = self.request("PUT", &self.path(name), bytes)?;
        match answer.status {
            201 => Ok(()),
            status => bail!("writing {name} in {}: {status}", self.url),
        }
    }

    pub(super) fn get(&self, name: &str) -> anyhow::Result<Option<Bytes>> {
        let answer = self.request("GET", &self.path(name), b"")?;
        match answer.status {
            200 => Ok(Some(answer.body.into())),
            404 => Ok(None),
            status => bail!("reading {name} in {}: {status}", self.url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let url = text.parse::<StoreUrl>().ok();
        let parts = url
            .as_ref()
            .map(|url| (url.container.as_str(), url.prefix.as_str()));
        assert_eq!(parts, expected, "{text}");
    }

    #[test]
    fn a_container_and_a_folder_are_named() {
        check("http://h:1/v1/AUTH_a/c", Some(("/v1/AUTH_a/c", "")));
        check("http://h:1/v1/AUTH_a/c/", Some(("/v1/AUTH_a/c", "")));
        check("http://h/v1/a/c/d/e", Some(("/v1/a/c", "d/e/")));
        for text in [
            "http://h/v1/a",
            "http://h/v1/a/",
            "http://h/v2/a/c",
            "http://h/v1//c",
            "http://h/v1/a/c?d",
            "https://h/v1/a/c",
            "http://h",
        ] {
            check(text, None);
        }
    }
}
