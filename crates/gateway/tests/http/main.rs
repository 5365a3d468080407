//! HTTP on the wire, with raw sockets against a small service.
//!
//! The clock is tokio's paused one: it jumps to the next timer as soon as nothing else can happen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod heads;
mod world;

use std::time::Duration;

use gateway::{Config, State};
use tokio::io::AsyncWriteExt;

use world::{World, check_status, check_whole, rest, until};

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
