//! A client of HTTP/1.1 that does what it is told: one connection, one request at a time.
//!
//! It knows no more than the tests need, and never retries: what an error leaves open is the
//! caller's to find out.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::network::Namespace;

/// Longer than any answer should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LINE_BYTES_MAX: u64 = 64 << 10;

/// A request. Its target and headers go out as they stand.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: String,
    pub headers: Vec<(&'a str, String)>,
    pub body: Body<'a>,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body<'a> {
    #[default]
    None,
    Sized(&'a [u8]),
    /// With `Transfer-Encoding: chunked`, in pieces of this many bytes.
    Chunked(&'a [u8], usize),
    /// The second half comes so much later.
    Slow(&'a [u8], Duration),
    /// Announces all but sends this many bytes; then the client is gone.
    Broken(&'a [u8], usize),
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }
}

/// A whole answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(have, _)| have.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 300;
        let shown = &self.body[..self.body.len().min(SHOWN_BYTES_MAX)];
        write!(f, "{} {:?}", self.status, self.headers)?;
        write!(
            f,
            " {} bytes: {:?}",
            self.body.len(),
            String::from_utf8_lossy(shown)
        )
    }
}

/// Where a server is found.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// This process's own if there is none.
    pub namespace: Option<Arc<Namespace>>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            namespace: None,
        }
    }
}

impl Endpoint {
    fn connect(&self, patience: Duration) -> io::Result<TcpStream> {
        match &self.namespace {
            Some(namespace) => namespace.connect(self.address, patience),
            None => TcpStream::connect_timeout(&self.address, patience),
        }
    }
}

/// One client.
pub struct Client {
    endpoint: Endpoint,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Connects when it has something to say.
    pub fn new(endpoint: impl Into<Endpoint>) -> Self {
        Self {
            endpoint: endpoint.into(),
            patience: PATIENCE,
            stream: None,
        }
    }

    /// Gives up when nothing moves for so long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends the request and reads the whole answer. After an error the connection is closed, and
    /// the request may have had its effect or not.
    pub fn send(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        write(stream.get_mut(), request)?;
        if matches!(request.body, Body::Broken(..)) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let (response, close) = read(&mut stream, request.method == "HEAD")?;
        if !close {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    /// Sends the head of a request and this much of its body, which has a length.
    pub fn begin<'a>(&self, request: &Request<'a>, bytes: usize) -> io::Result<Begun<'a>> {
        let Body::Sized(body) = request.body else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut stream = self.connect()?;
        let first = Request {
            body: Body::Broken(body, bytes),
            ..request.clone()
        };
        write(stream.get_mut(), &first)?;
        let rest = &body[bytes..];
        Ok(Begun { stream, rest })
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = self.endpoint.connect(self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::new(stream))
    }
}

/// A request of which the server does not have the whole body yet.
pub struct Begun<'a> {
    stream: BufReader<TcpStream>,
    rest: &'a [u8],
}

impl Begun<'_> {
    /// Sends all but the last `left` bytes of what is left of the body.
    pub fn go_on(&mut self, left: usize) -> io::Result<()> {
        let (now, later) = self.rest.split_at(self.rest.len() - left);
        self.rest = later;
        self.stream.get_mut().write_all(now)
    }

    /// Sends the rest and reads the answer.
    pub fn finish(mut self) -> io::Result<Response> {
        self.go_on(0)?;
        Ok(read(&mut self.stream, false)?.0)
    }
}

fn write(stream: &mut TcpStream, request: &Request<'_>) -> io::Result<()> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: martlet\r\n",
        request.method, request.target
    );
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    match request.body {
        Body::None => head += "\r\n",
        Body::Sized(body) | Body::Slow(body, _) | Body::Broken(body, _) => {
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
        }
        Body::Chunked(..) => head += "Transfer-Encoding: chunked\r\n\r\n",
    }
    // In one piece with a small body, as good clients do.
    let mut out = head.into_bytes();
    match request.body {
        Body::None => {}
        Body::Sized(body) => out.extend_from_slice(body),
        Body::Slow(body, pause) => {
            let (first, second) = body.split_at(body.len() / 2);
            out.extend_from_slice(first);
            stream.write_all(&out)?;
            thread::sleep(pause);
            out = second.to_vec();
        }
        Body::Broken(body, bytes) => out.extend_from_slice(&body[..bytes]),
        Body::Chunked(body, piece_bytes) => {
            for piece in body.chunks(piece_bytes) {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
    stream.write_all(&out)
}

/// Reads an answer from a stream; also tells whether the server closes the connection after it.
pub(crate) fn read(stream: &mut impl BufRead, head_only: bool) -> io::Result<(Response, bool)> {
    let status = loop {
        let line = line(stream)?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse::<u16>().ok())
            .ok_or_else(|| malformed(&line))?;
        if status >= 200 {
            break status;
        }
        // An interim answer has a head of its own.
        headers(stream)?;
    };
    let headers = headers(stream)?;
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    let close = response
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if head_only || status == 204 || status == 304 {
        return Ok((response, close));
    }
    if response
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        response.body = chunked(stream)?;
    } else if let Some(length) = response.header("content-length") {
        let length = length.parse::<u64>().map_err(|_| malformed(length))?;
        stream.take(length).read_to_end(&mut response.body)?;
        if response.body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else {
        return Err(malformed("an answer of unknown length"));
    }
    Ok((response, close))
}

fn headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn chunked(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(stream)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(|_| malformed(&size))?;
        let before = body.len() as u64;
        stream.take(size).read_to_end(&mut body)?;
        if body.len() as u64 - before != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line(stream)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// A line without its end. Bytes that are not UTF-8 are replaced: the tests send none that come back.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wire: &str, head_only: bool, expected: Option<(u16, &str)>) {
        let read = read(&mut wire.as_bytes(), head_only).ok();
        let got =
            read.map(|(response, _)| (response.status, String::from_utf8(response.body).unwrap()));
        assert_eq!(
            got,
            expected.map(|(status, body)| (status, body.to_owned()))
        );
    }

    #[test]
    fn answers_are_read_to_their_end() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            false,
            Some((200, "hi")),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            true,
            Some((200, "")),
        );
        check("HTTP/1.1 204 No Content\r\n\r\n", false, Some((204, "")));
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
            false,
            Some((201, "")),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
            Some((200, "hi")),
        );
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        check("", false, None);
        check("HTTP/1.1 200 OK\r\nContent-Len", false, None);
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            false,
            None,
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            false,
            None,
        );
        check("SSH-2.0-x\r\n\r\n", false, None);
    }
}
