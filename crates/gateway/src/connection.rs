//! One connection: hyper between the stream and the service.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::body::{Broken, Tracked};
use crate::config::AccessLog;
use crate::register::{About, Progress, Slot, State};
use crate::server::{Core, Service};
use crate::stream::Stream;
use crate::{Body, Request, RequestBody, Response, TransactionId};

/// One for each connection, at most; it grows towards this only where bytes come fast.
pub const READ_BUFFER_BYTES_MAX: usize = 128 << 10;
/// All of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// 90 items of metadata and what else a client may say; then enough that too many items are still
/// told from too many headers.
const HEADERS_MAX: usize = 256;
/// Of the request line, and of each header line.
const LINE_BYTES_MAX: usize = 8192;

static X_TRANS_ID: HeaderName = HeaderName::from_static("x-trans-id");
static X_OPENSTACK_REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
static X_TRANS_ID_EXTRA: HeaderName = HeaderName::from_static("x-trans-id-extra");

pub(crate) fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        // Clients may close their side as soon as they have asked; and a commit is not to be
        // abandoned half-way because its client has.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true);
    protocol
}

/// Serves a connection until either side closes it; after `stop` until its request is answered.
pub(crate) async fn drive<S: Service>(
    tcp: TcpStream,
    core: Arc<Core>,
    service: Arc<S>,
    slot: Arc<Slot>,
    stop: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(Stream::new(tcp, slot.clone(), core.clone()));
    let answer = {
        let (core, slot) = (core.clone(), slot.clone());
        service_fn(move |request| handle(core.clone(), service.clone(), slot.clone(), request))
    };
    let connection = core.protocol.serve_connection(stream, answer);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %slot.peer, %error, "connection ended early");
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // If the sender has gone, so has the server.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn handle<S: Service>(
    core: Arc<Core>,
    service: Arc<S>,
    slot: Arc<Slot>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Tracked>, Infallible> {
    let (head, incoming) = request.into_parts();
    let extra = head.headers.get(&X_TRANS_ID_EXTRA);
    let transaction = core.transactions.next(core.env.clock.now(), extra);
    let about = About {
        transaction: transaction.clone(),
        method: head.method.clone(),
        uri: head.uri.clone(),
        started: core.env.clock.monotonic(),
    };
    let mut ticket = Ticket::new(core, slot.clone(), about);
    let body = RequestBody::new(incoming, &head.headers, &ticket.core.config, slot.clone());
    let mut request = Request {
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        body,
        transaction,
        peer: slot.peer,
        progress: Progress::new(slot.clone()),
    };
    let mut response = match refuse(&request) {
        Some(refusal) => refusal,
        None => guarded(&*service, &mut request).await,
    };
    request.body.settle(&mut response).await;
    stamp(&mut response, request.transaction.header_value());
    confirm_keep_alive(&request.headers, response.headers_mut());
    settle_length(&mut response, &request.method);
    slot.enter(State::Sending);
    ticket.status = response.status();
    Ok(response.map(|body| Tracked::new(body, ticket)))
}

/// The service's answer, and one in its place if it breaks off: the bug costs one request, not the
/// connection with all that a client may have sent on it.
async fn guarded<S: Service>(service: &S, request: &mut Request) -> Response {
    let answer = AssertUnwindSafe(service.answer(request)).catch_unwind();
    if let Ok(response) = answer.await {
        return response;
    }
    let (method, target) = (&request.method, &request.uri);
    let transaction = request.transaction.as_str();
    tracing::error!(transaction, %method, %target, "a bug broke a request off");
    let text = "The server failed to answer the request.\n";
    let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR, text);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// What no front door needs to see.
fn refuse(request: &Request) -> Option<Response> {
    let target = request.uri.path_and_query().map_or("", |p| p.as_str());
    if target.len() + request.method.as_str().len() > LINE_BYTES_MAX {
        return Some(plain(StatusCode::URI_TOO_LONG, "Request-URI Too Long\n"));
    }
    let long = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": ".len() > LINE_BYTES_MAX
    };
    if request.headers.iter().any(long) {
        let mut refusal = plain(StatusCode::BAD_REQUEST, "Header Line Too Long\n");
        let close = HeaderValue::from_static("close");
        refusal.headers_mut().insert(header::CONNECTION, close);
        return Some(refusal);
    }
    if !is_known_coding(&request.headers) {
        let text = "The only Transfer-Encoding is chunked\n";
        return Some(plain(StatusCode::NOT_IMPLEMENTED, text));
    }
    None
}

fn is_known_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.all(|coding| {
        coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn stamp(response: &mut Response, transaction: HeaderValue) {
    if let Some(reason) = reason(response.status()) {
        let reason = hyper::ext::ReasonPhrase::from_static(reason);
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    headers.insert(X_TRANS_ID.clone(), transaction.clone());
    headers.insert(X_OPENSTACK_REQUEST_ID.clone(), transaction);
}

/// A client that asks for what HTTP/1.1 does anyway may wait to be told so. If the connection closes
/// all the same, hyper says that instead.
fn confirm_keep_alive(request: &HeaderMap, response: &mut HeaderMap) {
    let Some(asked) = request.get(header::CONNECTION) else {
        return;
    };
    if asked.as_bytes().eq_ignore_ascii_case(b"keep-alive") {
        let alive = HeaderValue::from_static("keep-alive");
        response.entry(header::CONNECTION).or_insert(alive);
    }
}

/// Where clients know a status by another phrase than HTTP's present one.
fn reason(status: StatusCode) -> Option<&'static [u8]> {
    match status.as_u16() {
        413 => Some(b"Request Entity Too Large"),
        416 => Some(b"Requested Range Not Satisfiable"),
        499 => Some(b"Client Disconnect"),
        _ => None,
    }
}

/// An answer to HEAD says how long its body would be, and has none.
fn settle_length(response: &mut Response, method: &Method) {
    let says_length = response.headers().contains_key(header::CONTENT_LENGTH);
    let is_head = *method == Method::HEAD;
    let must_say = is_head || matches!(response.body(), Body::Zero);
    if let Some(length) = response.body().length()
        && must_say
        && !says_length
    {
        let length = HeaderValue::from(length);
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    if is_head {
        *response.body_mut() = Body::Empty;
    }
}

/// A request from the end of its head to the end of its answer. However it leaves, it is counted,
/// logged and taken off the register.
pub(crate) struct Ticket {
    core: Arc<Core>,
    slot: Arc<Slot>,
    /// Until there is an answer, and if there never is one: the client has gone.
    status: StatusCode,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody waited for the end of the answer.
    Abandoned,
    /// We broke it off.
    Broken,
    Complete,
}

impl Ticket {
    fn new(core: Arc<Core>, slot: Arc<Slot>, about: About) -> Self {
        slot.begin(about);
        core.numbers.in_flight.add(1);
        Self {
            core,
            slot,
            status: gone(),
            end: End::Abandoned,
        }
    }

    /// Counts and logs what never became a request.
    pub(crate) fn refused(
        core: Arc<Core>,
        slot: Arc<Slot>,
        transaction: TransactionId,
        status: StatusCode,
    ) {
        let about = About {
            transaction,
            method: Method::from_bytes(b"-").expect("a dash is a method"),
            uri: Uri::from_static("*"),
            started: core.env.clock.monotonic(),
        };
        let mut ticket = Self::new(core, slot, about);
        ticket.status = status;
        ticket.complete();
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.slot.sent.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn complete(&mut self) {
        if self.end == End::Abandoned {
            self.end = End::Complete;
        }
    }

    pub(crate) fn broke(&mut self, why: &Broken) {
        self.end = End::Broken;
        self.core.numbers.broken.add(1);
        tracing::error!(%why, "answer broken off");
    }

    fn log(&self, about: &About, status: StatusCode, micros: u128) {
        let failed = status.is_server_error()
            || matches!(status.as_u16(), 408 | 499)
            || self.end == End::Broken;
        match self.core.config.access_log {
            AccessLog::Failures if failed => {}
            AccessLog::All => {}
            AccessLog::Failures | AccessLog::Off => return,
        }
        tracing::info!(
            target: "access",
            transaction = about.transaction.as_str(),
            peer = %self.slot.peer,
            method = about.method.as_str(),
            target = about.uri.path_and_query().map_or("", |p| p.as_str()),
            status = status.as_u16(),
            received_bytes = self.slot.received.load(Relaxed),
            sent_bytes = self.slot.sent.load(Relaxed),
            micros = u64::try_from(micros).unwrap_or(u64::MAX),
        );
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let numbers = &self.core.numbers;
        numbers.in_flight.add(-1);
        numbers.received_bytes.add(self.slot.received.load(Relaxed));
        numbers.sent_bytes.add(self.slot.sent.load(Relaxed));
        let Some(about) = self.slot.end() else { return };
        let status = match self.end {
            End::Abandoned => gone(),
            End::Broken | End::Complete => self.status,
        };
        let took = self
            .core
            .env
            .clock
            .monotonic()
            .saturating_sub(about.started);
        numbers.request(&about.method, status, took);
        self.log(&about, status, took.as_micros());
    }
}

fn gone() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is a status")
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

    use super::*;

    /// Counts the writes that reach the kernel.
    struct Counting(DuplexStream, Arc<std::sync::atomic::AtomicU64>);

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Relaxed);
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let flat: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            self.poll_write(cx, &flat)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn head_and_small_body_are_one_write() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let core = Arc::new(Core::new(Default::default(), base::env::Env::real()));
        let slot = core.register.open(([127, 0, 0, 1], 1).into());
        let service =
            service_fn(move |request| handle(core.clone(), Arc::new(Small), slot.clone(), request));
        let io = TokioIo::new(Counting(server, writes.clone()));
        let serving = tokio::spawn(protocol().serve_connection(io, service));

        let request = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        serving.await.unwrap().unwrap();
        assert!(answer.ends_with(&[b'x'; 4096]));
        assert_eq!(writes.load(Relaxed), 1);
    }

    struct Small;
    impl Service for Small {
        async fn answer(&self, _: &mut Request) -> Response {
            Response::new(Body::from("x".repeat(4096)))
        }
    }
}
