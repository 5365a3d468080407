//! Bodies on their way out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::{Frame, SizeHint};
use namespace::BodyReader;

use crate::connection::Ticket;

/// The body of an answer.
pub enum Body {
    Empty,
    /// Empty, and the head says so even with a 204, where HTTP would leave it unsaid: Swift does, and
    /// its clients look.
    Zero,
    Bytes(Bytes),
    /// Pieces that come one by one; see [`Body::stream`].
    Stream(Streamed),
}

/// Why a body broke off. The connection is closed without the end of the answer, so that the
/// client cannot take what it got for all.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("reading the body: {0}")]
    Read(#[from] namespace::Error),
    /// A part of a large object is missing or has changed since the answer began.
    #[error("{0}")]
    Part(String),
    /// The source ended before the announced length.
    #[error("the body ended {0} bytes early")]
    Short(u64),
}

/// See [`Body::stream`].
pub struct Streamed {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>,
    /// `None`: unknown, so the answer is chunked.
    remaining: Option<u64>,
    /// Nothing follows: the source has failed.
    ended: bool,
}

impl Body {
    /// Pieces that come one by one, `length` bytes in all if that is known.
    pub fn stream(
        length: Option<u64>,
        pieces: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static,
    ) -> Self {
        Self::Stream(Streamed {
            pieces: Box::pin(pieces),
            remaining: length,
            ended: false,
        })
    }

    /// What a reader gives, `length` bytes in all. Its first piece is read now, so that what cannot
    /// be read at all still gets an answer that says so.
    pub async fn read(length: u64, mut reader: BodyReader) -> Result<Self, namespace::Error> {
        if let Some(bytes) = reader.inline() {
            return Ok(Self::Bytes(bytes));
        }
        let first = match reader.next().await {
            Some(first) => first?,
            None => return Ok(Self::Bytes(Bytes::new())),
        };
        if first.len() as u64 == length {
            return Ok(Self::Bytes(first));
        }
        let first = stream::once(async { Ok(first) });
        Ok(Self::stream(Some(length), first.chain(pieces(reader))))
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Bytes(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Stream(streamed) => streamed.poll_piece(cx),
            Self::Empty | Self::Zero | Self::Bytes(_) => Poll::Ready(None),
        }
    }

    /// How much is left; `None` if that is not known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty | Self::Zero => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream(streamed) => streamed.remaining,
        }
    }

    /// Whether nothing is left to send, as far as that is known.
    pub fn is_empty(&self) -> bool {
        self.length() == Some(0)
    }
}

/// The pieces of a reader as a stream.
pub fn pieces(reader: BodyReader) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(reader, |mut reader| async {
        let piece = reader.next().await?;
        Some((piece.map_err(Broken::from), reader))
    })
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl Streamed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.ended || self.remaining == Some(0) {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.as_mut().poll_next(cx));
        Poll::Ready(match (piece, self.remaining) {
            (Some(Ok(piece)), Some(remaining)) => {
                let length = piece.len() as u64;
                assert!(length <= remaining, "a body never exceeds its length");
                self.remaining = Some(remaining - length);
                Some(Ok(piece))
            }
            (None, Some(remaining)) => {
                self.ended = true;
                Some(Err(Broken::Short(remaining)))
            }
            (Some(Err(broken)), _) => {
                self.ended = true;
                Some(Err(broken))
            }
            (other, None) => other,
        })
    }
}

/// A body with the ticket of its request: it says what was sent, and when it is over.
pub(crate) struct Tracked {
    body: Body,
    ticket: Ticket,
}

impl Tracked {
    pub(crate) fn new(body: Body, ticket: Ticket) -> Self {
        Self { body, ticket }
    }

    fn sent(&self, piece: Bytes) -> Frame<Bytes> {
        self.ticket.sent(piece.len() as u64);
        Frame::data(piece)
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(match std::task::ready!(self.body.poll_piece(cx)) {
            Some(Ok(piece)) => Some(Ok(self.sent(piece))),
            Some(Err(broken)) => {
                self.ticket.broke(&broken);
                Some(Err(broken))
            }
            None => {
                self.body = Body::Empty;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        // With `Zero`, hyper asks for the length instead, and then lets the head say it.
        self.body.is_empty() && !matches!(self.body, Body::Zero)
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.body.length();
        length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.body.is_empty() {
            self.ticket.complete();
        }
    }
}
