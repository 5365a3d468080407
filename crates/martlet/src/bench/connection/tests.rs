use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::body::Pattern;
use super::*;

/// Serves one connection: reads `request_bytes` in all, answers with `answer`, closes.
async fn server(request_bytes: usize, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; request_bytes];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(answer).await.unwrap();
    });
    address
}

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

async fn get(answer: &'static [u8]) -> (Result<Answer, Fault>, Vec<u8>, bool) {
    let address = server(GET.len(), answer).await;
    let mut connection = Connection::open(address).await.unwrap();
    let request = Request {
        head: GET,
        body: None,
        pace: None,
        is_head: false,
    };
    let (mut sent, mut body) = (Sent::default(), Vec::new());
    let answer = connection
        .exchange(&request, &mut sent, &mut |_, bytes| {
            body.extend_from_slice(bytes)
        })
        .await;
    assert!(sent.whole && sent.bytes == GET.len() as u64);
    (answer, body, connection.is_reusable())
}

#[track_caller]
fn status(answer: Result<Answer, Fault>) -> u16 {
    answer.unwrap().status
}

#[tokio::test]
async fn a_body_ends_where_its_length_says() {
    let (answer, body, reusable) = get(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(
        (status(answer), body.as_slice(), reusable),
        (200, &b"hello"[..], true)
    );
    assert_eq!(answer.unwrap().bytes, 43);
}

#[tokio::test]
async fn chunks_are_joined_and_trailers_passed_over() {
    let (answer, body, reusable) = get(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n, world...\r\n0\r\nA: b\r\n\r\n",
    )
    .await;
    assert_eq!(
        (status(answer), body.as_slice(), reusable),
        (200, &b"hello, world..."[..], true)
    );
}

#[tokio::test]
async fn an_interim_answer_is_none() {
    let (answer, _, _) = get(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(status(answer), 204);
}

#[tokio::test]
async fn a_connection_that_is_to_close_is_not_used_again() {
    let (answer, body, reusable) = get(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall").await;
    assert_eq!(
        (status(answer), body.as_slice(), reusable),
        (200, &b"all"[..], false)
    );
}

#[tokio::test]
async fn a_cut_answer_is_no_answer() {
    for cut in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        assert_eq!(get(cut).await.0, Err(Fault::Closed));
    }
    assert_eq!(get(b"SSH-2.0-nope\r\n\r\n").await.0, Err(Fault::Protocol));
}

#[tokio::test]
async fn a_refusal_before_the_body_is_through_is_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        // Reads nothing, so the body can never be sent.
        stream
    });
    let pattern = Pattern::new(1);
    let body = pattern.body("o", 1 << 40);
    let mut connection = Connection::open(address).await.unwrap();
    let request = Request {
        head: b"PUT / HTTP/1.1\r\n\r\n",
        body: Some(&body),
        pace: None,
        is_head: false,
    };
    let mut sent = Sent::default();
    let answer = connection
        .exchange(&request, &mut sent, &mut |_, _| {})
        .await;
    assert_eq!(status(answer), 413);
    assert!(!sent.whole && !connection.is_reusable());
    drop(held);
}

#[tokio::test]
async fn the_body_arrives_as_it_was_made() {
    const LEN: usize = 700_001;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 3 + LEN];
        stream.read_exact(&mut bytes).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        bytes
    });
    let pattern = Pattern::new(1);
    let body = pattern.body("o", LEN as u64);
    let mut connection = Connection::open(address).await.unwrap();
    let request = Request {
        head: b"PUT",
        body: Some(&body),
        pace: None,
        is_head: false,
    };
    let mut sent = Sent::default();
    let answer = connection
        .exchange(&request, &mut sent, &mut |_, _| {})
        .await;
    assert_eq!(status(answer), 201);
    assert!(body.matches(0, &received.await.unwrap()[3..]));
}
