//! A small blocking HTTP client for the command line: one request, one answer, no runtime.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long a server may be silent: it may be verifying a password behind others.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer's bound: a listing of a million users fits.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

const HEADERS_MAX: usize = 64;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer<'a> {
    /// `HOST:PORT`.
    Tcp(&'a str),
    Socket(&'a Path),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An `http` address in its two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// From the first slash on, as it came; `/` if there was none.
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        if text.starts_with("https://") {
            bail!("{text}: Martlet's own client speaks no TLS; use the server's http address");
        }
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("{text}: an address looks like http://127.0.0.1:8080");
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.is_empty() || authority.contains('@') {
            bail!("{text}: names no host, or credentials that do not belong into an address");
        }
        let has_port = !authority.ends_with(']') && authority.contains(':');
        let port = if has_port { "" } else { ":80" };
        Ok(Self {
            authority: format!("{authority}{port}"),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        })
    }
}

impl Peer<'_> {
    /// Sends one request on a connection of its own.
    pub(crate) fn request(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        match self {
            Peer::Tcp(authority) => {
                let stream = TcpStream::connect(authority)
                    .with_context(|| format!("connecting to {authority}"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, authority, method, path, headers, body)
            }
            Peer::Socket(socket) => {
                let stream = UnixStream::connect(socket)
                    .with_context(|| format!("connecting to {}", socket.display()))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, "localhost", method, path, headers, body)
            }
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        if value.contains(['\r', '\n']) {
            bail!("the value of {name} has a line break in it");
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(&[request.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => {}
        // Closing with something of ours unread resets the connection behind the answer.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !bytes.is_empty() => {}
        Err(error) => return Err(error).context("reading the answer"),
    }
    parse(&bytes, method == "HEAD")
}

fn parse(bytes: &[u8], is_head: bool) -> anyhow::Result<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) =
        response.parse(bytes).context("the answer is not HTTP")?
    else {
        bail!("the answer was cut off");
    };
    let headers = response.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).trim().to_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    let mut answer = Answer {
        status: response.code.context("the answer has no status")?,
        headers: headers.collect(),
        body: bytes[len..].to_vec(),
    };
    if answer.header("transfer-encoding").is_some() {
        bail!("the answer is chunked, which this client does not read");
    }
    // An answer to HEAD says how long the body would be.
    let length = answer.header("content-length").filter(|_| !is_head);
    if let Some(length) = length {
        let length: usize = length.parse().context("the answer's length is no number")?;
        if answer.body.len() < length {
            bail!("the answer was cut off");
        }
        answer.body.truncate(length);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn url(text: &str, expected: Option<(&str, &str)>) {
        let found = Url::parse(text).ok();
        let found = found
            .as_ref()
            .map(|url| (url.authority.as_str(), url.path.as_str()));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses_have_a_host_a_port_and_a_path() {
        url("http://h:81/a/b?c", Some(("h:81", "/a/b?c")));
        url("http://h", Some(("h:80", "/")));
        url("http://[::1]", Some(("[::1]:80", "/")));
        url("http://[::1]:8", Some(("[::1]:8", "/")));
        for text in ["https://h", "h:81", "", "http://", "http://u:p@h/"] {
            url(text, None);
        }
    }

    #[test]
    fn an_answer_has_a_status_headers_and_a_body() {
        let answer = parse(
            b"HTTP/1.1 200 OK\r\nX-A:  b \r\nContent-Length: 2\r\n\r\nhi",
            false,
        )
        .unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hi"[..]));
        assert_eq!(
            (answer.header("x-a"), answer.header("x-b")),
            (Some("b"), None)
        );
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi";
        parse(cut, false).unwrap_err();
        parse(cut, true).unwrap();
        parse(b"HTTP/1.1 200 OK\r\nContent-Le", false).unwrap_err();
        parse(b"", false).unwrap_err();
        parse(b"SSH-2.0\r\n", false).unwrap_err();
    }
}
