//! What both ends of a connection do alike: read frames, write them in batches, and notice silence.
//!
//! Sketch of a call of 300 bytes under load: its header and body are copied into the batch that is being
//! gathered while the previous one is written, so many calls share a TLS record, a system call and
//! a wake-up. A body of megabytes is never copied here: the batch refers to it, and TLS reads it from
//! where it lies; on the other side it is decrypted and copied once, into memory of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::error::Fault;
use crate::frame::{BadFrame, HEADER_BYTES, HELLO_BYTES_MAX, Header, Hello, Kind};

/// What one system call reads or writes at most. TLS alone would read 4 KiB at a time. Of the buffer, only
/// what is ever filled takes memory, which is little where messages are small.
pub(crate) const SOCKET_BYTES: usize = 256 << 10;

/// What is read ahead of the frame being handled: a record of TLS.
const READ_BYTES: usize = 16 << 10;

/// Pieces up to here are copied together; a longer one is written from where it lies.
const COPY_BYTES_MAX: usize = 4 << 10;

/// A batch is written when it has so much.
const BATCH_BYTES: usize = SOCKET_BYTES;

/// Ticks of the [`Pulse`] in [`crate::Config::silence`].
const TICKS: u32 = 8;

/// Whether a connection lives.
///
/// Each side says [`Kind::Alive`] when it said nothing else for a tick. So a peer that is dead, cut off
/// or stopped is noticed, however long its calls may take; one that is slow to read is not taken for dead,
/// because it goes on speaking.
pub(crate) struct Pulse {
    silence: Duration,
    /// Ticks since something was heard.
    silent: AtomicU32,
    /// We do not read now, so hearing nothing means nothing.
    deaf: AtomicBool,
    /// Something was written since the last tick.
    spoke: AtomicBool,
    /// It is time to say something.
    due: AtomicBool,
    /// Wakes the writer.
    pub(crate) wake: Notify,
}

impl Pulse {
    pub(crate) fn new(silence: Duration) -> Self {
        Self {
            silence,
            silent: AtomicU32::new(0),
            deaf: AtomicBool::new(false),
            spoke: AtomicBool::new(false),
            due: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    fn heard(&self) {
        self.silent.store(0, Relaxed);
    }

    /// While `wait` runs, nobody reads.
    pub(crate) async fn deaf<T>(&self, wait: impl Future<Output = T>) -> T {
        self.deaf.store(true, Relaxed);
        let done = wait.await;
        self.deaf.store(false, Relaxed);
        self.heard();
        done
    }

    /// Ends when the peer has been silent for too long, or when `tick`, which runs now and then, says so.
    pub(crate) async fn watch(&self, mut tick: impl FnMut() -> Result<(), Fault>) -> Fault {
        let mut ticks = tokio::time::interval(self.silence / TICKS);
        // Who was stopped for a while does not conclude that everybody else was.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(fault) = tick() {
                return fault;
            }
            if !self.spoke.swap(false, Relaxed) {
                self.due.store(true, Relaxed);
                self.wake.notify_one();
            }
            let silent = self.silent.fetch_add(1, Relaxed) + 1;
            if self.deaf.load(Relaxed) {
                self.heard();
            } else if silent >= TICKS {
                return Fault::Silent(self.silence);
            }
        }
    }
}

/// Reads frames.
pub(crate) struct FrameReader<R> {
    from: R,
    pulse: Arc<Pulse>,
    ahead: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(from: R, pulse: Arc<Pulse>) -> Self {
        Self {
            from,
            pulse,
            ahead: BytesMut::new(),
        }
    }

    pub(crate) async fn header(&mut self) -> Result<Header, Fault> {
        while self.ahead.len() < HEADER_BYTES {
            self.ahead.reserve(READ_BYTES);
            let read = self.from.read_buf(&mut self.ahead).await;
            self.read(read)?;
        }
        let header = self.ahead.first_chunk().expect("waited for it");
        let header = Header::decode(header)?;
        self.ahead.advance(HEADER_BYTES);
        Ok(header)
    }

    /// Reads a body, whose length was checked, into memory of its own: a short one must not keep the
    /// whole buffer from being used again.
    pub(crate) async fn body(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let mut body = BytesMut::with_capacity(bytes);
        let ahead = self.ahead.len().min(bytes);
        body.extend_from_slice(&self.ahead[..ahead]);
        self.ahead.advance(ahead);
        while body.len() < bytes {
            let missing = bytes - body.len();
            let read = self.from.read_buf(&mut (&mut body).limit(missing)).await;
            self.read(read)?;
        }
        Ok(body.freeze())
    }

    /// Reads the first frame of the other side.
    pub(crate) async fn hello(&mut self) -> Result<Hello, Fault> {
        let header = self.header().await?;
        if header.kind != Kind::Hello {
            return Err(BadFrame::Hello.into());
        }
        let bytes = header.body_within(HELLO_BYTES_MAX)?;
        Ok(Hello::decode(&self.body(bytes).await?)?)
    }

    /// Reads something and forgets it.
    pub(crate) async fn skip(&mut self) -> Result<(), Fault> {
        self.ahead.clear();
        self.ahead.reserve(READ_BYTES);
        let read = self.from.read_buf(&mut self.ahead).await;
        self.read(read)
    }

    fn read(&mut self, result: io::Result<usize>) -> Result<(), Fault> {
        self.pulse.heard();
        match result {
            // TLS was ended in order; a connection that breaks is an error.
            Ok(0) => Err(Fault::Stopping),
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::broken(error)),
        }
    }
}

/// Frames on their way into one write.
#[derive(Default)]
pub(crate) struct Batch {
    /// Complete pieces, in order, not empty.
    pieces: VecDeque<Bytes>,
    /// The sum of their lengths.
    bytes: usize,
    /// What was copied since the last piece.
    copied: BytesMut,
}

impl Batch {
    pub(crate) fn push(&mut self, header: Header, body: Vec<Bytes>) {
        self.copied.put_slice(&header.encode());
        for piece in body {
            if piece.len() <= COPY_BYTES_MAX {
                self.copied.put_slice(&piece);
            } else {
                self.end_piece();
                self.bytes += piece.len();
                self.pieces.push_back(piece);
            }
        }
    }

    /// Whether it is time to write it.
    pub(crate) fn is_full(&self) -> bool {
        self.remaining() >= BATCH_BYTES
    }

    fn end_piece(&mut self) {
        if !self.copied.is_empty() {
            self.bytes += self.copied.len();
            self.pieces.push_back(self.copied.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.bytes + self.copied.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.copied, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        let last = (!self.copied.is_empty()).then_some(&self.copied[..]);
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain(last);
        let mut filled = 0;
        for (slot, piece) in to.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut by: usize) {
        while let Some(front) = self.pieces.front_mut() {
            let here = by.min(front.len());
            front.advance(here);
            self.bytes -= here;
            by -= here;
            if !front.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.copied.advance(by);
    }
}

/// Writes what `fill` puts into the batch, for ever; sleeps until [`Pulse::wake`] while there is nothing.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    pulse: &Pulse,
    mut fill: impl FnMut(&mut Batch) -> Result<(), Fault>,
) -> Result<Infallible, Fault> {
    let mut batch = Batch::default();
    loop {
        fill(&mut batch)?;
        if pulse.due.swap(false, Relaxed) && !batch.has_remaining() {
            batch.push(Header::new(Kind::Alive, 0, 0), vec![]);
        }
        if !batch.has_remaining() {
            pulse.wake.notified().await;
            continue;
        }
        batch.end_piece();
        to.write_all_buf(&mut batch).await.map_err(Fault::broken)?;
        to.flush().await.map_err(Fault::broken)?;
        pulse.spoke.store(true, Relaxed);
    }
}

/// Writes one frame.
pub(crate) async fn write_one<W: AsyncWrite + Unpin>(
    to: &mut W,
    header: Header,
    body: Bytes,
) -> Result<(), Fault> {
    let mut batch = Batch::default();
    batch.push(header, vec![body]);
    to.write_all_buf(&mut batch).await.map_err(Fault::broken)?;
    to.flush().await.map_err(Fault::broken)
}

/// The length of a body in pieces.
pub(crate) fn length(body: &[Bytes]) -> usize {
    body.iter().map(Bytes::len).sum()
}

/// Writes the first frame of this side.
pub(crate) async fn write_hello<W: AsyncWrite + Unpin>(
    to: &mut W,
    hello: &Hello,
) -> Result<(), Fault> {
    let body = hello.encode();
    write_one(to, Header::new(Kind::Hello, 0, fit(body.len())), body).await
}

/// A length that was checked against a bound of 32 bits.
pub(crate) fn fit(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("bodies are checked before they are sent")
}

#[cfg(test)]
mod tests;
