//! The commands' end of the control API.

use std::io;
use std::path::PathBuf;

use admin::api::Fault;
use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{ServerChoice, UserName};
use crate::credentials;
use crate::http::{Answer, Peer, Url};

/// Where a server keeps its data if it was not told.
pub(crate) const DATA_DEFAULT: &str = "./martlet-data";

/// A running server, as a command sees it.
pub(crate) enum Client {
    Socket {
        data: PathBuf,
    },
    Tcp {
        authority: String,
        authorization: String,
    },
}

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: &'a str,
    /// Only if there is nothing yet.
    pub(crate) only_add: bool,
}

impl Client {
    /// Chooses the socket or the address; asks for the administrator's password where it must.
    pub(crate) fn new(choice: &ServerChoice) -> anyhow::Result<Self> {
        let Some(server) = &choice.server else {
            return Ok(Self::Socket {
                data: data_directory(choice),
            });
        };
        let url = Url::parse(server)?;
        let user = std::env::var("MARTLET_USER").unwrap_or_else(|_| "main:admin".to_owned());
        let password = match credentials::from_environment()? {
            Some(password) => password,
            None => credentials::ask(&format!("Password of {user} at {server}: "))?,
        };
        let encoded = STANDARD.encode(format!("{user}:{}", password.reveal()));
        Ok(Self::Tcp {
            authority: url.authority,
            authorization: format!("Basic {encoded}"),
        })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let method = "GET";
        let answer = self.call(
            &Call {
                method,
                path,
                only_add: false,
            },
            &(),
        )?;
        serde_json::from_slice(&answer.body).context("the server's answer is not what was expected")
    }

    /// Asks for something by saying what; the answer is JSON.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let call = Call {
            method: "POST",
            path,
            only_add: false,
        };
        let answer = self.call(&call, body)?;
        serde_json::from_slice(&answer.body).context("the server's answer is not what was expected")
    }

    /// Sends `body` as JSON; an answer of 4xx or 5xx is an error with the server's own words.
    pub(crate) fn call(&self, call: &Call<'_>, body: &impl Serialize) -> anyhow::Result<Answer> {
        let body = match call.method {
            "GET" | "DELETE" => Vec::new(),
            _ => serde_json::to_vec(body)?,
        };
        let mut headers = vec![("Content-Type", "application/json")];
        if call.only_add {
            headers.push(("If-None-Match", "*"));
        }
        let answer = match self {
            Self::Socket { data } => {
                let socket = admin::socket_path(data);
                let answer = Peer::Socket(&socket).request(call.method, call.path, &headers, &body);
                answer.map_err(|error| not_running(data, error))?
            }
            Self::Tcp {
                authority,
                authorization,
            } => {
                headers.push(("Authorization", authorization));
                Peer::Tcp(authority).request(call.method, call.path, &headers, &body)?
            }
        };
        match answer.status {
            200..=299 => Ok(answer),
            status => Err(refusal(status, &answer.body)),
        }
    }
}

/// An answer of 4xx or 5xx.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    text: String,
}

/// What a refusal says, or at least its status.
fn refusal(status: u16, body: &[u8]) -> anyhow::Error {
    let text = match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.error,
        Err(_) => format!("the server answered {status}"),
    };
    Refusal { status, text }.into()
}

fn not_running(data: &std::path::Path, error: anyhow::Error) -> anyhow::Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let data = data.display();
    match kind {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => anyhow!(
            "no server is running on {data} (--data DIR names another data directory, --server URL \
             another machine)"
        ),
        Some(io::ErrorKind::PermissionDenied) => {
            anyhow!("only the owner of {data} may use its admin socket")
        }
        _ => error,
    }
}

/// The flag, or what the server itself would take first.
fn data_directory(choice: &ServerChoice) -> PathBuf {
    let flag = choice.data.clone();
    let variable = || {
        let variable = std::env::var("MARTLET_DATA").ok()?;
        let first = variable.split(':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(first))
    };
    flag.or_else(variable)
        .unwrap_or_else(|| PathBuf::from(DATA_DEFAULT))
}

/// A user's path in the control API.
pub(crate) fn user_path(user: &UserName, rest: &str) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let (account, name) = (encode(&user.account), encode(&user.name));
    format!("/admin/users/{account}/{name}{rest}")
}
