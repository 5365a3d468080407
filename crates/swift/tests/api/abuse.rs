//! Bad input and rude clients: the right answer, and nothing stored.

use std::time::Duration;

use crate::world::{World, rest};
use tokio::io::AsyncWriteExt;

/// The paths, heads and bodies that are refused, and with what.
const REFUSED: &[(u16, &str, &[&str], &str)] = &[
    // Malformed HTTP.
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: -1"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: five"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "Content-Length: 2"],
        "xy",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Transfer-Encoding: chunked"],
        "nonsense\r\n",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Transfer-Encoding: chunked"],
        "1\r\nxx\r\n",
    ),
    (
        501,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Transfer-Encoding: gzip, chunked"],
        "0\r\n\r\n",
    ),
    (411, "PUT /v1/AUTH_test/c/o HTTP/1.1", &[], ""),
    (
        413,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 9007199254740992"],
        "x",
    ),
    (
        499,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 10"],
        "short",
    ),
    (
        499,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Transfer-Encoding: chunked"],
        "5\r\nabc",
    ),
    // Paths.
    (
        412,
        "PUT /v1/AUTH_test/c/%ff HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/%00 HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/% HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/%4 HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/%zz HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/50%-off HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/o?x=%zz HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (412, "GET /v1/AUTH_test/c?marker=%4 HTTP/1.1", &[], ""),
    (404, "PUT /v1//c/o HTTP/1.1", &["Content-Length: 1"], "x"),
    (
        404,
        "PUT /v1/AUTH_test//o HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (412, "PUT /v1 HTTP/1.1", &["Content-Length: 1"], "x"),
    (
        400,
        "PUT /v3/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        404,
        "PUT /v1/AUTH_test/missing/o HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        403,
        "PUT /v1/AUTH_other/c/o HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    (
        405,
        "BREW /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1"],
        "x",
    ),
    // Headers.
    (
        412,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 0", "X-Copy-From: c/%zz"],
        "",
    ),
    (
        412,
        "COPY /v1/AUTH_test/c/o HTTP/1.1",
        &["Destination: c/100%"],
        "",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 0", "X-Object-Manifest: c/%4"],
        "",
    ),
    (
        422,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "Etag: wrong"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "X-Delete-At: -1"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "X-Object-Meta-: x"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "X-Object-Manifest: x"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "If-None-Match: x"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "If-Match: x"],
        "x",
    ),
    (
        400,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 1", "X-Copy-From: c/x"],
        "x",
    ),
    (
        412,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 0", "X-Copy-From: x"],
        "",
    ),
    (
        404,
        "PUT /v1/AUTH_test/c/o HTTP/1.1",
        &["Content-Length: 0", "X-Copy-From: c/x"],
        "",
    ),
    (
        412,
        "COPY /v1/AUTH_test/c/o HTTP/1.1",
        &["Destination: %ff/x"],
        "",
    ),
];

fn request(world_token: &str, line: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    format!("{line}\r\nHost: x\r\nX-Auth-Token: {world_token}\r\n{headers}\r\n{body}")
}

async fn with_container(config: gateway::Config) -> World {
    let world = World::with(config).await;
    let token = world.token("owner").await;
    let put = request(
        &token,
        "PUT /v1/AUTH_test/c HTTP/1.1",
        &["Connection: close"],
        "",
    );
    let answer = world.exchange(put.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    world
}

/// The container is empty, no chunk is on the device, no request is in flight.
async fn check_nothing_stored(world: &World) {
    let token = world.token("owner").await;
    let head = request(
        &token,
        "HEAD /v1/AUTH_test/c HTTP/1.1",
        &["Connection: close"],
        "",
    );
    let answer = world.exchange(head.as_bytes()).await;
    assert!(
        answer.contains("X-Container-Object-Count: 0\r\n"),
        "{answer}"
    );
    assert!(answer.contains("X-Container-Bytes-Used: 0\r\n"), "{answer}");
    assert!(world.server.requests().is_empty());
    world.settle().await;
    assert!(world.device.chunks().is_empty());
}

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_is_stored() {
    let world = with_container(gateway::Config::default()).await;
    let token = world.token("owner").await;
    for (status, line, headers, body) in REFUSED {
        let request = request(&token, line, headers, body);
        let mut client = world.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = rest(&mut client).await;
        let head = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&head), "{line} {headers:?}: {answer}");
    }
    check_nothing_stored(&world).await;
}

#[tokio::test]
async fn long_names_and_much_metadata_are_refused() {
    let world = with_container(gateway::Config::default()).await;
    let token = world.token("owner").await;
    let object = "o".repeat(1025);
    let container = "c".repeat(257);
    let many: Vec<_> = (0..91).map(|n| format!("X-Object-Meta-{n}: x")).collect();
    let long_value = format!("X-Object-Meta-A: {}", "v".repeat(257));
    let long_name = format!("X-Object-Meta-{}: v", "n".repeat(129));
    let large: Vec<_> = (0..20)
        .map(|n| format!("X-Object-Meta-{n:02}: {}", "v".repeat(250)))
        .collect();
    let line = "PUT /v1/AUTH_test/c/o HTTP/1.1".to_owned();
    for (line, headers, sentence) in [
        (
            format!("PUT /v1/AUTH_test/c/{object} HTTP/1.1"),
            vec![],
            "Object name length of 1025 longer than 1024",
        ),
        (
            format!("PUT /v1/AUTH_test/{container} HTTP/1.1"),
            vec![],
            "Container name length of 257 longer than 256",
        ),
        (line.clone(), many, "Too many metadata items; max 90"),
        (
            line.clone(),
            vec![long_value],
            "Metadata value longer than 256: a",
        ),
        (
            line.clone(),
            vec![long_name],
            "Metadata name too long; max 128",
        ),
        (line, large, "Total metadata too large; max 4096"),
    ] {
        let mut headers: Vec<_> = headers.iter().map(String::as_str).collect();
        headers.extend(["Content-Length: 1", "Connection: close"]);
        let answer = world
            .exchange(request(&token, &line, &headers, "x").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{sentence}: {answer}");
        assert!(answer.ends_with(sentence), "{sentence}: {answer}");
    }
    for target in [
        format!("GET /v1/AUTH_test/c/{object}"),
        format!("DELETE /v1/AUTH_test/c/{object}"),
        format!("GET /v1/AUTH_test/{container}"),
        format!("GET /v1/AUTH_test/{container}/o"),
        format!("POST /v1/AUTH_test/{container}"),
        format!("HEAD /v1/AUTH_{container}"),
    ] {
        let line = format!("{target} HTTP/1.1");
        let request = request(&token, &line, &["Connection: close"], "");
        let answer = world.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{target}: {answer}");
    }
    check_nothing_stored(&world).await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing() {
    let world = with_container(gateway::Config::default()).await;
    let token = world.token("owner").await;
    let line = "PUT /v1/AUTH_test/c/o HTTP/1.1";
    let head = request(&token, line, &["Content-Length: 10000000"], "");
    for body_bytes in [0, 1, 100_000, 9_999_999] {
        let mut client = world.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; body_bytes]).await.unwrap();
        drop(client);
    }
    while !world.server.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    check_nothing_stored(&world).await;
}

#[tokio::test]
async fn a_client_that_trickles_is_told_so_and_leaves_nothing() {
    let world = with_container(gateway::Config {
        body_timeout_s: 1,
        body_rate_min_bytes_per_s: 1000,
        ..gateway::Config::default()
    })
    .await;
    let token = world.token("owner").await;
    let line = "PUT /v1/AUTH_test/c/o HTTP/1.1";
    let head = request(&token, line, &["Content-Length: 1000000"], "");
    let mut client = world.connect().await;
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = client.into_split();
    let trickle = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer)
        .await
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    trickle.abort();
    check_nothing_stored(&world).await;
}

#[tokio::test]
async fn a_damaged_body_is_an_error_and_never_data() {
    let world = with_container(gateway::Config::default()).await;
    let token = world.token("owner").await;
    let body = "x".repeat(3_000_000);
    let length = format!("Content-Length: {}", body.len());
    let headers = [length.as_str(), "Connection: close"];
    let line = "PUT /v1/AUTH_test/c/o HTTP/1.1";
    let answer = world
        .exchange(request(&token, line, &headers, &body).as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let flipped = device::Error::damaged("a flipped bit");
    world.device.fail_reads(Some(flipped));
    let get = request(
        &token,
        "GET /v1/AUTH_test/c/o HTTP/1.1",
        &["Connection: close"],
        "",
    );
    let answer = world.exchange(get.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 500 Internal"), "{answer}");
}
