//! HTTP on the wire, with raw sockets against a small service.
//!
//! The clock is tokio's paused one: it jumps to the next timer as soon as nothing else can happen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use base::env::Env;
use bytes::Bytes;
use futures_util::StreamExt as _;
use gateway::{Announced, Body, Broken, Config, Request, Response, Server, Service, State};
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the service does is in the path.
struct Toy;

impl Service for Toy {
    async fn answer(&self, request: &mut Request) -> Response {
        match request.uri.path() {
            "/refuse" => status(StatusCode::FORBIDDEN),
            "/big" => Response::new(Body::from(Bytes::from(vec![b'x'; 64 << 20]))),
            "/broken" => broken(),
            "/panic" => panic!("a bug"),
            "/zero" => {
                let mut response = Response::new(Body::Zero);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "/wait" => {
                request.progress.enter(State::Committing);
                tokio::time::sleep(Duration::from_secs(5)).await;
                Response::new(Body::from("waited"))
            }
            _ if request.method == Method::GET => Response::new(Body::from("hello")),
            _ => count(request).await,
        }
    }
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::from("no"));
    *response.status_mut() = status;
    response
}

fn broken() -> Response {
    let pieces = [
        Ok(Bytes::from_static(b"half")),
        Err(Broken::Part("gone".to_owned())),
    ];
    let pieces = futures_util::stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        piece
    });
    Response::new(Body::stream(Some(8), pieces))
}

async fn count(request: &mut Request) -> Response {
    let mut bytes = 0;
    while let Some(piece) = request.body.next().await {
        match piece {
            Ok(piece) => bytes += piece.len(),
            Err(error) => return status(error.status()),
        }
    }
    let length = match request.body.announced() {
        Announced::Nothing => "nothing",
        Announced::Length(_) => "length",
        Announced::Chunked => "chunked",
    };
    Response::new(Body::from(format!("{length} {bytes}")))
}

/// A server and how to end it.
struct World {
    address: SocketAddr,
    server: Server<Toy>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl World {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(config, Env::real(), Toy);
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = {
            let server = server.clone();
            tokio::spawn(async move {
                server
                    .serve(listener, async {
                        let _ = stopped.await;
                    })
                    .await;
            })
        };
        Self {
            address,
            server,
            stop,
            ended,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends all of `request`, and returns all that comes until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        rest(&mut client).await
    }
}

async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer.extend(b"(reset)"),
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// Reads until `end` has come.
async fn until(client: &mut TcpStream, end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap(), 1, "{answer}");
        answer.push(char::from(byte[0]));
    }
    answer
}

#[track_caller]
fn check_status(answer: &str, expected: u16) {
    let head = format!("HTTP/1.1 {expected} ");
    assert!(answer.starts_with(&head), "{expected}: {answer}");
}

#[tokio::test(start_paused = true)]
async fn every_answer_names_its_transaction() {
    let world = World::start().await;
    let request = "GET / HTTP/1.1\r\nX-Trans-Id-Extra: a b\r\nConnection: close\r\n\r\n";
    let answer = world.exchange(request).await;
    check_status(&answer, 200);
    let of = |name: &str| {
        let mut lines = answer.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.to_owned()
    };
    assert!(of("X-Trans-Id: ").ends_with("-a%20b"));
    assert_eq!(of("X-Trans-Id: "), of("X-Openstack-Request-Id: "));
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn malformed_heads_are_refused() {
    let world = World::start().await;
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(300);
    for (request, expected) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA\u{0}: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n".to_owned(), 400),
        (
            "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            501,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            400,
        ),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nA: {}", long.repeat(10)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", long.repeat(10)), 431),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/0.9\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.2\r\nA: b\r\n\r\n".to_owned(), 505),
        ("GET / HTP/1.1\r\n\r\n".to_owned(), 400),
    ] {
        let shown = &request[..request.len().min(60)];
        let mut client = world.connect().await;
        // The server may have closed before it has read all.
        let _ = client.write_all(request.as_bytes()).await;
        client.shutdown().await.unwrap_or_default();
        let answer = rest(&mut client).await;
        let head = format!("HTTP/1.1 {expected} ");
        assert!(answer.starts_with(&head), "{shown:?}: {answer}");
        check_whole(&answer);
    }
}

/// Whoever refused it: an answer has an id, a date, and a body of the length that it says.
#[track_caller]
fn check_whole(answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let of = |name: &str| {
        let mut lines = head.lines();
        let line = lines.find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}: {head}"))
    };
    assert!(of("X-Trans-Id: ").starts_with("tx"), "{head}");
    assert_eq!(of("X-Trans-Id: "), of("X-Openstack-Request-Id: "));
    assert!(of("Date: ").ends_with(" GMT"), "{head}");
    assert_eq!(of("Content-Length: "), body.len().to_string(), "{answer}");
    assert!(!body.is_empty(), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_behind_a_good_request_is_refused_as_well() {
    let world = World::start().await;
    let good = "GET / HTTP/1.1\r\n\r\n";
    for bad in ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\nA : b\r\n\r\n"] {
        let answers = world.exchange(&format!("{good}{good}{bad}")).await;
        let (before, refusal) = answers.split_at(answers.rfind("HTTP/1.1 ").unwrap());
        assert_eq!(before.matches("\r\n\r\nhello").count(), 2, "{answers}");
        check_status(refusal, 400);
        check_whole(refusal);
    }

    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write_all(good.as_bytes()).await.unwrap();
        until(&mut client, "hello").await;
    }
    client.write_all(b"GET / HTTP/2.0\r\n\r\n").await.unwrap();
    let refusal = rest(&mut client).await;
    check_status(&refusal, 505);
    check_whole(&refusal);
}

/// In real time: the answer is far longer than what sockets hold.
#[tokio::test]
async fn a_refusal_comes_behind_the_answer_before_it() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let both = b"GET /big HTTP/1.1\r\n\r\nGARBAGE\r\n\r\n";
    client.write_all(both).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    let rest = rest(&mut client).await;
    let (body, refusal) = rest.split_at(64 << 20);
    assert!(body.bytes().all(|byte| byte == b'x'));
    check_status(refusal, 400);
    check_whole(refusal);
}

#[tokio::test(start_paused = true)]
async fn refused_heads_are_counted() {
    struct Lines(Vec<String>);
    impl base::metrics::Report for Lines {
        fn counter(&mut self, name: &str, _: &str, labels: base::metrics::Labels<'_>, value: u64) {
            self.0.push(format!("{name} {labels:?} {value}"));
        }
        fn gauge(&mut self, name: &str, _: &str, _: base::metrics::Labels<'_>, value: i64) {
            self.0.push(format!("{name} {value}"));
        }
        fn histogram(
            &mut self,
            _: &str,
            _: &str,
            _: base::metrics::Labels<'_>,
            _: &base::metrics::Histogram,
        ) {
        }
    }
    let world = World::start().await;
    world.exchange("GARBAGE\r\n\r\n").await;
    let mut lines = Lines(Vec::new());
    world.server.report(&mut lines);
    for expected in [
        r#"martlet_requests_total [("method", "OTHER"), ("status", "400")] 1"#,
        "martlet_requests_in_flight 0",
    ] {
        assert!(lines.0.iter().any(|line| line == expected), "{:?}", lines.0);
    }
}

/// RFC 9112 lets a recipient take a bare line feed for the end of a line, and so does nearly all that
/// stands in front of us. In the framing of a body it ends nothing.
#[tokio::test(start_paused = true)]
async fn a_bare_line_feed_ends_a_line_of_a_head_and_nothing_else() {
    let world = World::start().await;
    let answer = world
        .exchange("GET / HTTP/1.1\nConnection: close\n\n")
        .await;
    check_status(&answer, 200);

    for body in [
        "4\nbody\r\n0\r\n\r\n",
        "4;a=b\nbody\r\n0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\r\n\n\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
    ] {
        let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let hidden = "GET /smuggled HTTP/1.1\r\n\r\n";
        let answers = world.exchange(&format!("{head}{body}{hidden}")).await;
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "{body:?}: {answers}"
        );
        assert!(
            answers.contains("Connection: close\r\n"),
            "{body:?}: {answers}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_handler_costs_one_answer() {
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::io::Write::write(&mut *self.0.lock().unwrap(), bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(lines.with_ansi(false).finish());

    let world = World::start().await;
    let request = "PUT /panic HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let answer = world.exchange(request).await;
    check_status(&answer, 500);
    check_whole(&answer);
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(world.server.requests().is_empty());
    let again = world.exchange("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    check_status(&again.await, 200);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let (_, id) = answer.split_once("X-Trans-Id: ").unwrap();
    let id = id.lines().next().unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("a bug broke a request off"));
    assert!(line.is_some_and(|line| line.contains(id)), "{id}: {log}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_no_utf8_reaches_the_front_door() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let request = b"GET /\xff\xfe HTTP/1.1\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let answer = rest(&mut client).await;
    check_status(&answer, 200);
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_its_length_and_confirms_keep_alive() {
    let world = World::start().await;
    let mut client = world.connect().await;
    for (method, path, status, length) in [("HEAD", "/", 200, 9), ("PUT", "/zero", 204, 0)] {
        let head = format!("{method} {path} HTTP/1.1\r\nConnection: Keep-Alive\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = until(&mut client, "\r\n\r\n").await;
        check_status(&answer, status);
        let length = format!("Content-Length: {length}\r\n");
        assert!(answer.contains(&length), "{answer}");
        assert!(answer.contains("Connection: keep-alive\r\n"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn chunked_wins_over_a_length_and_ends_the_connection() {
    let world = World::start().await;
    let head = "PUT / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "5\r\nabcde\r\n0\r\n\r\n";
    let answer = world.exchange(&format!("{head}{body}GET /smuggled")).await;
    check_status(&answer, 200);
    assert!(answer.ends_with("\r\n\r\nchunked 5"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn old_and_pipelining_clients_are_served() {
    let world = World::start().await;
    let answer = world.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");

    let mut client = world.connect().await;
    let two = "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
    client.write_all(two.as_bytes()).await.unwrap();
    until(&mut client, "length 3").await;
    until(&mut client, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_still_gets_its_answer() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client
        .write_all(b"GET /wait HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert!(rest(&mut client).await.ends_with("waited"));
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_body_is_read() {
    let world = World::start().await;
    let head = "HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let mut client = world.connect().await;
    client
        .write_all(format!("PUT / {head}").as_bytes())
        .await
        .unwrap();
    let first = until(&mut client, "\r\n\r\n").await;
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").await.unwrap();
    until(&mut client, "length 3").await;

    let answer = world.exchange(&format!("PUT /refuse {head}")).await;
    check_status(&answer, 403);
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_small_unread_body_keeps_the_connection() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let head = b"PUT /refuse HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    client.write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    client
        .write_all(b"abcGET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let refusal = until(&mut client, "no").await;
    assert!(!refusal.contains("Connection: close"), "{refusal}");
    until(&mut client, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_large_unread_body_does_not_cost_the_client_its_answer() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let head = format!(
        "PUT /refuse HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
        8 << 20
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; 8 << 20]).await.unwrap();
    let answer = rest(&mut client).await;
    check_status(&answer, 403);
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("no"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_is_499() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let head = b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc";
    client.write_all(head).await.unwrap();
    client.shutdown().await.unwrap();
    let answer = rest(&mut client).await;
    check_status(&answer, 499);
    assert!(answer.starts_with("HTTP/1.1 499 Client Disconnect"));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_or_trickling_body_is_408() {
    let world = World::start().await;
    let head = b"PUT / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let mut stalled = world.connect().await;
    stalled.write_all(head).await.unwrap();
    check_status(&rest(&mut stalled).await, 408);

    let mut trickling = world.connect().await;
    trickling.write_all(head).await.unwrap();
    let mut bytes = 0;
    while trickling.write_all(b"x").await.is_ok() && bytes < 500 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bytes += 1;
        if trickling.try_read(&mut []).is_err() {
            continue;
        }
        let mut answer = [0; 12];
        if matches!(trickling.try_read(&mut answer), Ok(1..)) {
            assert_eq!(&answer, b"HTTP/1.1 408");
            return;
        }
    }
    panic!("a trickle was accepted");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_and_a_pause_between_requests_is_not() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut client, "hello").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut client, "hello").await;

    let start = tokio::time::Instant::now();
    client.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    client.write_all(b"TP/1.1\r\n").await.unwrap();
    let answer = rest(&mut client).await;
    assert_eq!(start.elapsed().as_secs(), 10);
    check_status(&answer, 408);
    check_whole(&answer);
    assert!(world.server.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_all_that_a_connection_may_begin_with_for_so_long() {
    let world = World::start().await;
    for beginning in ["G", "GET / HTTP/1.1\r\nA: b", "\r\n"] {
        let start = tokio::time::Instant::now();
        let mut client = world.connect().await;
        client.write_all(beginning.as_bytes()).await.unwrap();
        // While something runs the clock stands still.
        while world.server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = rest(&mut client).await;
        check_status(&answer, 408);
        check_whole(&answer);
        assert_eq!(start.elapsed().as_secs(), 10, "{beginning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let world = World::start().await;
    let start = tokio::time::Instant::now();
    let mut client = world.connect().await;
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(start.elapsed().as_secs(), 10);

    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut client, "hello").await;
    let start = tokio::time::Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client
        .write_all(b"GET /big HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    until(&mut client, "\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(world.server.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_breaks_the_connection() {
    let world = World::start().await;
    let answer = world.exchange("GET /broken HTTP/1.1\r\n\r\n").await;
    check_status(&answer, 200);
    assert!(answer.contains("Content-Length: 8\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn too_many_connections_are_refused_aloud() {
    let world = World::with(Config {
        connections_max: 1,
        ..Config::default()
    })
    .await;
    let mut first = world.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut first, "hello").await;
    let answer = rest(&mut world.connect().await).await;
    check_status(&answer, 503);
    check_whole(&answer);
    assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let request = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    check_status(&world.exchange(request).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_requests_end() {
    let world = World::start().await;
    let mut busy = world.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\n\r\n").await.unwrap();
    let mut idle = world.connect().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.stop.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("waited"), "{answer}");
    world.ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_register_says_what_a_request_is_doing() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client
        .write_all(b"GET /wait HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = world.server.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].path.as_str(), seen[0].state),
        ("/wait", State::Committing)
    );
    until(&mut client, "waited").await;
    assert!(world.server.requests().is_empty());

    client.write_all(b"GET / ").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.server.requests()[0].state, State::ReadingHead);
}
