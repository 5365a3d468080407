//! A small service, a server for it, and how its clients read.

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
pub(crate) struct Toy;

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
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) server: Server<Toy>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
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

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends all of `request`, and returns all that comes until the server closes.
    pub(crate) async fn exchange(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        rest(&mut client).await
    }
}

pub(crate) async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer.extend(b"(reset)"),
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// Reads until `end` has come.
pub(crate) async fn until(client: &mut TcpStream, end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap(), 1, "{answer}");
        answer.push(char::from(byte[0]));
    }
    answer
}

#[track_caller]
pub(crate) fn check_status(answer: &str, expected: u16) {
    let head = format!("HTTP/1.1 {expected} ");
    assert!(answer.starts_with(&head), "{expected}: {answer}");
}

/// Whoever refused it: an answer has an id, a date, and a body of the length that it says.
#[track_caller]
pub(crate) fn check_whole(answer: &str) {
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
