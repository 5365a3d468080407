//! A connection's bytes, with the deadlines that HTTP itself does not see.
//!
//! hyper's own `header_read_timeout` is not used: it counts the pause between requests as reading
//! the head, and makes a timer for each request. Here the alarm of a connection is set once and put
//! off only when it rings. Half a head that came in one piece with the request before it is in hyper's
//! hands already, and looks like a pause.
//!
//! hyper answers a head that it cannot parse by itself, barely. What it writes while no request awaits
//! its answer can be nothing else, and goes out as a [`Refusal`] instead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::connection::Ticket;
use crate::line::Line;
use crate::pace::{Alarm, Pace};
use crate::refusal::Refusal;
use crate::register::{Slot, State};
use crate::server::Core;

/// How long, and how much, we listen to a client that sends what nobody will read. To close at once
/// would make the kernel reset the connection, and the client might lose our answer.
const LINGER_MAX: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: u64 = 64 << 20;

pub(crate) struct Stream {
    tcp: TcpStream,
    slot: Arc<Slot>,
    core: Arc<Core>,
    /// No byte has come yet.
    is_new: bool,
    /// Since when we wait for a request, or for the rest of its head.
    waiting: Option<(Waiting, Instant)>,
    read_alarm: Alarm,
    line: Line,
    /// What was read and rewritten but did not fit: at most three times what one read gives.
    rewritten: Vec<u8>,
    write_pace: Pace,
    write_alarm: Alarm,
    /// What is left to write of the refusal that ends the connection.
    refusal: Option<Bytes>,
    lingering: Option<Lingering>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    ForRequest,
    ForHead,
}

struct Lingering {
    until: Instant,
    bytes: u64,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, slot: Arc<Slot>, core: Arc<Core>) -> Self {
        let config = &core.config;
        Self {
            tcp,
            slot,
            is_new: true,
            waiting: None,
            read_alarm: Alarm::default(),
            line: Line::default(),
            rewritten: Vec::new(),
            write_pace: Pace::new(config.body_timeout(), config.body_bytes_min()),
            write_alarm: Alarm::default(),
            refusal: None,
            lingering: None,
            core,
        }
    }

    /// Bytes came, those after `before`: the first ones after a pause begin a head.
    fn read_some(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if self.slot.state().is_none() {
            self.slot.enter(State::ReadingHead);
            self.is_new = false;
            self.waiting = Some((Waiting::ForHead, Instant::now()));
            self.line = Line::coming();
        }
        if let Some(encoded) = self.line.encode(&buffer.filled()[before..]) {
            buffer.set_filled(before);
            self.rewritten = encoded;
            self.give_rewritten(buffer);
        }
    }

    fn give_rewritten(&mut self, buffer: &mut ReadBuf<'_>) {
        let fits = self.rewritten.len().min(buffer.remaining());
        buffer.put_slice(&self.rewritten[..fits]);
        self.rewritten.drain(..fits);
    }

    /// No bytes came. While a request is handled its body has its own deadline.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let config = &self.core.config;
        let (waiting, timeout) = match self.slot.state() {
            // Who connects has something to say.
            None if self.is_new => (Waiting::ForRequest, config.head_timeout()),
            None => (Waiting::ForRequest, config.idle_timeout()),
            Some(State::ReadingHead) => (Waiting::ForHead, config.head_timeout()),
            Some(_) => {
                self.waiting = None;
                return Poll::Pending;
            }
        };
        let since = match self.waiting {
            Some((known, since)) if known == waiting => since,
            _ => Instant::now(),
        };
        self.waiting = Some((waiting, since));
        ready!(self.read_alarm.poll(cx, since + timeout));
        match waiting {
            // As if the client had closed: nothing is owed to it.
            Waiting::ForRequest => Poll::Ready(Ok(())),
            Waiting::ForHead => self.poll_give_up(cx),
        }
    }

    /// hyper knows nothing of a head that did not come, so it neither answers nor shuts down.
    fn poll_give_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refuse(cx, StatusCode::REQUEST_TIMEOUT))?;
        ready!(Pin::new(&mut *self).poll_shutdown(cx))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether what hyper writes now is its own refusal of a head.
    fn is_refused(&self) -> bool {
        self.refusal.is_some() || !self.slot.is_answered.load(Relaxed)
    }

    /// Writes a refusal in place of `bytes`, which are hyper's.
    fn poll_replace(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<()>> {
        let status = bytes.get(9..12).map(StatusCode::from_bytes);
        let status = match status {
            Some(Ok(status)) if status != StatusCode::BAD_REQUEST => status,
            _ if self.line.is_of_other_version() => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        };
        self.poll_refuse(cx, status)
    }

    fn poll_refuse(&mut self, cx: &mut Context<'_>, status: StatusCode) -> Poll<io::Result<()>> {
        let mut left = match self.refusal.take() {
            Some(left) => left,
            None => {
                let Refusal { transaction, bytes } = Refusal::new(&self.core, status);
                let (core, slot) = (self.core.clone(), self.slot.clone());
                Ticket::refused(core, slot, transaction, status);
                self.slot.linger.store(true, Relaxed);
                bytes.into()
            }
        };
        while !left.is_empty() {
            let written = Pin::new(&mut self.tcp).poll_write(cx, &left);
            match self.poll_written(cx, written) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => left.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.refusal = Some(left);
                    return Poll::Pending;
                }
            }
        }
        self.refusal = Some(left);
        Poll::Ready(Ok(()))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let due = self.write_pace.wait(Instant::now());
            let now = ready!(self.write_alarm.poll(cx, due));
            if self.write_pace.is_too_slow(now) {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.write_pace.moved(Instant::now(), bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }

    /// Reads and forgets until the client closes or a bound is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            until: Instant::now() + LINGER_MAX,
            bytes: 0,
        });
        let mut space = [std::mem::MaybeUninit::uninit(); 16 << 10];
        while lingering.bytes < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.tcp).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingering.bytes += buffer.filled().len() as u64;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.read_alarm.poll(cx, lingering.until).map(|_| ()),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refusal.is_some() {
            return self.poll_give_up(cx);
        }
        if !self.rewritten.is_empty() {
            self.give_rewritten(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.tcp).poll_read(cx, buffer) {
            Poll::Pending => self.poll_wait(cx),
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.read_some(buffer, before);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refused() {
            return self.poll_replace(cx, bytes).map_ok(|()| bytes.len());
        }
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_refused() {
            let bytes = pieces.first().map_or(&[][..], |piece| piece);
            return self.poll_replace(cx, bytes).map_ok(|()| bytes.len());
        }
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, pieces);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all that it had.
        if matches!(self.slot.state(), None | Some(State::ReadingHead)) {
            self.slot.is_answered.store(false, Relaxed);
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
        if self.slot.linger.load(Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
