//! A request, and its body on the way in.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Config;
use crate::pace::{Alarm, Pace};
use crate::register::{Progress, Slot, State};
use crate::{Body, Response, TransactionId};

/// A request whose head has been read and whose body has not.
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: RequestBody,
    pub transaction: TransactionId,
    pub peer: SocketAddr,
    /// Where the request says what it is doing.
    pub progress: Progress,
}

/// What the head says about the length of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no body.
    Nothing,
    Length(u64),
    Chunked,
}

/// Why a body ended early. What came of it is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client has gone, or closed before it had sent all: 499.
    #[error("client disconnected")]
    Gone,
    /// 408
    #[error("client too slow")]
    TooSlow,
    /// What came was no chunked encoding: 400.
    #[error("malformed body")]
    Malformed,
}

impl BodyError {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Gone => StatusCode::from_u16(499).expect("499 is a status"),
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Malformed => StatusCode::BAD_REQUEST,
        }
    }
}

/// A body on its way in.
pub struct RequestBody {
    incoming: Incoming,
    announced: Announced,
    expects_continue: bool,
    pace: Pace,
    alarm: Alarm,
    slot: Arc<Slot>,
    /// Nothing was read yet; so a client that expects 100 has not been told to go on.
    untouched: bool,
    has_trailers: bool,
    failed: Option<BodyError>,
}

impl RequestBody {
    pub(crate) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        config: &Config,
        slot: Arc<Slot>,
    ) -> Self {
        let announced = match incoming.size_hint().exact() {
            _ if headers.contains_key(header::TRANSFER_ENCODING) => Announced::Chunked,
            Some(length) if headers.contains_key(header::CONTENT_LENGTH) => {
                Announced::Length(length)
            }
            _ => Announced::Nothing,
        };
        Self {
            incoming,
            announced,
            expects_continue: headers.contains_key(header::EXPECT),
            pace: Pace::new(config.body_timeout(), config.body_bytes_min()),
            alarm: Alarm::default(),
            slot,
            untouched: true,
            has_trailers: false,
            failed: None,
        }
    }

    pub fn announced(&self) -> Announced {
        self.announced
    }

    /// The next piece; `None` at the end. A client that expects `100 Continue` gets it now. After
    /// an error there is nothing but the same error.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        self.slot.enter(State::ReadingBody);
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(error) = self.failed {
            return Poll::Ready(Some(Err(error)));
        }
        self.untouched = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return self.fail(classify(&error)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers carry nothing that Swift knows.
                    match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(self.count(data)))),
                        Err(_) => self.has_trailers = true,
                    }
                }
                Poll::Pending => {
                    let due = self.pace.wait(Instant::now());
                    let Poll::Ready(now) = self.alarm.poll(cx, due) else {
                        return Poll::Pending;
                    };
                    if self.pace.is_too_slow(now) {
                        return self.fail(BodyError::TooSlow);
                    }
                }
            }
        }
    }

    fn count(&mut self, data: Bytes) -> Bytes {
        self.pace.moved(Instant::now(), data.len() as u64);
        self.slot.received.fetch_add(data.len() as u64, Relaxed);
        data
    }

    fn fail<T>(&mut self, error: BodyError) -> Poll<Option<Result<T, BodyError>>> {
        self.failed = Some(error);
        Poll::Ready(Some(Err(error)))
    }

    /// Reads what the front door left, if it is little; else the connection is to be closed after
    /// the answer, since the rest of the body cannot be told from a next request. Nor can it behind
    /// trailers: a proxy that lets a bare line feed end them takes for a request what hyper takes for
    /// more of them.
    pub(crate) async fn settle(&mut self, response: &mut Response) {
        let is_read =
            self.failed.is_none() && (self.incoming.is_end_stream() || self.drain().await);
        if is_read && !self.has_trailers {
            return;
        }
        self.slot.linger.store(true, Relaxed);
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }

    /// Whether the body's end was reached.
    async fn drain(&mut self) -> bool {
        /// What is cheaper to read than a new connection is to make.
        const BYTES_MAX: u64 = 64 << 10;
        const TIME_MAX: Duration = Duration::from_secs(2);
        let waits_for_continue = self.untouched && self.expects_continue;
        let hint = self.incoming.size_hint();
        if waits_for_continue || hint.lower() > BYTES_MAX {
            return false;
        }
        let drained = tokio::time::timeout(TIME_MAX, async {
            let mut left = BYTES_MAX;
            while let Some(piece) = self.next().await {
                let Ok(piece) = piece else { return false };
                match left.checked_sub(piece.len() as u64) {
                    Some(less) => left = less,
                    None => return false,
                }
            }
            true
        });
        drained.await.unwrap_or(false)
    }
}

/// What hyper could not read: it tells "the client closed" and "this is no chunk" apart only by
/// the kind of the I/O error inside.
fn classify(error: &hyper::Error) -> BodyError {
    let source = std::error::Error::source(error);
    let kind = source
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData) => {
            BodyError::Malformed
        }
        _ => BodyError::Gone,
    }
}

impl Request {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Response {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        response
    }
}
