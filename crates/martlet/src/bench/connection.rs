//! One kept-alive HTTP/1.1 connection, as cheap as it can be: the load generator shares its
//! processors with the server that it measures.
//!
//! A small request leaves in one system call and a small answer is read in one. Bodies are neither
//! copied on their way out nor kept on their way in.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::body::Body;
use super::tally::{Fault, Sent};

/// Holds an answer's head, and is what is read at a time of its body.
const BUFFER_BYTES: usize = 256 << 10;

/// As many as any server sends us.
const HEADERS_MAX: usize = 64;

/// How often a paced upload sends a piece.
const PACE: Duration = Duration::from_millis(100);

/// What goes out.
pub(super) struct Request<'a> {
    /// Request line and headers, with the empty line.
    pub(super) head: &'a [u8],
    pub(super) body: Option<&'a Body<'a>>,
    /// Bytes a second, at most; for the body.
    pub(super) pace: Option<u64>,
    /// An answer without a body, whatever its headers say.
    pub(super) is_head: bool,
}

/// What came back, its body aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of the whole answer.
    pub(super) bytes: u64,
}

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// What was read and not yet looked at: `buffer[from..to]`.
    from: usize,
    to: usize,
    received: u64,
    reusable: bool,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

struct Head {
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|_| Fault::Connect)?;
        stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            from: 0,
            to: 0,
            received: 0,
            reusable: true,
        })
    }

    /// Whether another request may follow.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Sends a request and reads its answer; `sink` gets the body of the answer, piece by piece, and
    /// the status with each. `sent` tells how far the request got, whatever happened then.
    pub(super) async fn exchange(
        &mut self,
        request: &Request<'_>,
        sent: &mut Sent,
        sink: &mut (dyn FnMut(u16, &[u8]) + Send),
    ) -> Result<Answer, Fault> {
        self.reusable = false;
        self.received = 0;
        // A server that refuses may close its side before all is sent: its answer still counts.
        let sending = self.send(request, sent).await;
        let head = match (self.head().await, sending) {
            (Ok(head), _) => head,
            (Err(_), Err(fault)) | (Err(fault), Ok(())) => return Err(fault),
        };
        let without_body = request.is_head || head.status == 204 || head.status == 304;
        let framing = if without_body {
            Framing::Length(0)
        } else {
            head.framing
        };
        let mut sink = |bytes: &[u8]| sink(head.status, bytes);
        match framing {
            Framing::Length(len) => self.body(len, &mut sink).await?,
            Framing::Chunked => self.chunks(&mut sink).await?,
            Framing::UntilClosed => self.rest(&mut sink).await?,
        }
        let over = self.from == self.to && framing != Framing::UntilClosed;
        self.reusable = over && head.keep_alive && sent.whole;
        Ok(Answer {
            status: head.status,
            bytes: self.received,
        })
    }

    async fn send(&mut self, request: &Request<'_>, sent: &mut Sent) -> Result<(), Fault> {
        let head_len = request.head.len();
        let body_len = request.body.map_or(0, |body| body.len);
        let total = head_len as u64 + body_len;
        let piece_max = request.pace.map_or(u64::MAX, |pace| (pace / 10).max(1));
        while sent.bytes < total {
            let head = request.head.get(to_usize(sent.bytes)..).unwrap_or_default();
            let position = sent.bytes.saturating_sub(head_len as u64);
            let slices = slices(request.body, position, piece_max);
            let io = [head, slices[0], slices[1]].map(IoSlice::new);
            match self.stream.try_write_vectored(&io) {
                Ok(n) => sent.bytes += n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.writable_or_answered().await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(_) => return Err(Fault::Closed),
            }
            if request.pace.is_some() && sent.bytes < total {
                tokio::time::sleep(PACE).await;
                if self.answered()? {
                    return Ok(());
                }
            }
        }
        sent.whole = true;
        Ok(())
    }

    /// Waits for room to write; `true` if the server answered meanwhile.
    async fn writable_or_answered(&mut self) -> Result<bool, Fault> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let ready = self.stream.ready(interest).await;
        let ready = ready.map_err(|_| Fault::Closed)?;
        if ready.is_readable() {
            return self.answered();
        }
        Ok(false)
    }

    /// Whether anything of an answer is there, without waiting.
    fn answered(&mut self) -> Result<bool, Fault> {
        match self.stream.try_read(&mut self.buffer[self.to..]) {
            Ok(0) => Err(Fault::Closed),
            Ok(n) => {
                self.took(n);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Fault::Closed),
        }
    }

    fn took(&mut self, n: usize) {
        self.to += n;
        self.received += n as u64;
    }

    /// Reads more into the buffer; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Fault> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from.., 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.to == self.buffer.len() {
            return Err(Fault::Protocol);
        }
        loop {
            match self.stream.try_read(&mut self.buffer[self.to..]) {
                Ok(n) => {
                    self.took(n);
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.readable().await.map_err(|_| Fault::Closed)?;
                }
                Err(_) => return Err(Fault::Closed),
            }
        }
    }

    async fn more(&mut self) -> Result<(), Fault> {
        if self.fill().await? {
            Ok(())
        } else {
            Err(Fault::Closed)
        }
    }

    /// The head of the final answer; those of 1xx are passed over.
    async fn head(&mut self) -> Result<Head, Fault> {
        loop {
            match parse_head(&self.buffer[self.from..self.to])? {
                None => self.more().await?,
                Some((len, head)) => {
                    self.from += len;
                    if head.status >= 200 {
                        return Ok(head);
                    }
                }
            }
        }
    }

    /// Passes `left` bytes to the sink.
    async fn body(
        &mut self,
        mut left: u64,
        sink: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), Fault> {
        while left > 0 {
            if self.from == self.to {
                self.more().await?;
            }
            let len = (self.to - self.from).min(to_usize(left));
            sink(&self.buffer[self.from..self.from + len]);
            self.from += len;
            left -= len as u64;
        }
        Ok(())
    }

    async fn rest(&mut self, sink: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), Fault> {
        loop {
            sink(&self.buffer[self.from..self.to]);
            self.from = self.to;
            if !self.fill().await? {
                return Ok(());
            }
        }
    }

    async fn chunks(&mut self, sink: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), Fault> {
        loop {
            let line = self.line().await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let len = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
                .ok_or(Fault::Protocol)?;
            if len == 0 {
                // Trailers, then an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            self.body(len, sink).await?;
            if !self.line().await?.is_empty() {
                return Err(Fault::Protocol);
            }
        }
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            let unread = &self.buffer[self.from..self.to];
            if let Some(len) = unread.iter().position(|byte| *byte == b'\n') {
                let line = unread[..len].strip_suffix(b"\r").unwrap_or(&unread[..len]);
                let line = line.to_vec();
                self.from += len + 1;
                return Ok(line);
            }
            self.more().await?;
        }
    }
}

/// The next two slices of a body, of `max` bytes together at most: a small body is in them whole.
fn slices<'a>(body: Option<&'a Body<'a>>, position: u64, max: u64) -> [&'a [u8]; 2] {
    let Some(body) = body else { return [&[], &[]] };
    let first = body.slice(position);
    let first = &first[..first.len().min(to_usize(max))];
    let second = body.slice(position + first.len() as u64);
    let room = to_usize(max) - first.len();
    [first, &second[..second.len().min(room)]]
}

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes).map_err(|_| Fault::Protocol)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let mut head = Head {
        status: response.code.ok_or(Fault::Protocol)?,
        framing: Framing::UntilClosed,
        keep_alive: response.version == Some(1),
    };
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| Fault::Protocol)?;
            head.framing = Framing::Length(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keep_alive &= !value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some((len, head)))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
