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
    ] {
        let shown = &request[..request.len().min(60)];
        let mut client = world.connect().await;
        // The server may have closed before it has read all.
        let _ = client.write_all(request.as_bytes()).await;
        client.shutdown().await.unwrap_or_default();
        let answer = rest(&mut client).await;
        let head = format!("HTTP/1.1 {expected} ");
        assert!(answer.starts_with(&head), "{shown:?}: {answer}");
    }
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
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut client, "hello").await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(&mut client, "hello").await;

    let start = tokio::time::Instant::now();
    client.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    client.write_all(b"TP/1.1\r\n").await.unwrap();
    rest(&mut client).await;
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let world = World::start().await;
    let start = tokio::time::Instant::now();
    assert_eq!(rest(&mut world.connect().await).await, "");
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
