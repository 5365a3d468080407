//! A device that hangs: the client is told to come back, and the administrator sees what is waited for.

use std::time::Duration;

use crate::world::World;
use gateway::State;

/// Long enough for whoever waits for a device, and shorter than any patience with clients.
const LONG: Duration = Duration::from_secs(31);

/// Sends a request that waits in this state for a device, and lets half a minute pass.
async fn check_refused(world: &World, request: &str, state: State) {
    let is_waiting = || {
        let requests = world.server.requests();
        requests.iter().any(|request| request.state == state)
    };
    let wait_long = async {
        while !is_waiting() {
            tokio::task::yield_now().await;
        }
        // It has begun to wait when it has been given up to us a few times.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(is_waiting(), "it still waits");
        tokio::time::pause();
        tokio::time::advance(LONG).await;
        tokio::time::resume();
    };
    let (answer, ()) = tokio::join!(world.exchange(request.as_bytes()), wait_long);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
}

#[tokio::test]
async fn a_request_that_waits_for_a_hung_device_is_answered() {
    let world = World::new().await;
    let token = world.token("owner").await;
    let head = format!("HTTP/1.1\r\nHost: h\r\nX-Auth-Token: {token}\r\nConnection: close\r\n");
    let made = format!("PUT /v1/AUTH_test/c {head}Content-Length: 0\r\n\r\n");
    let made = world.exchange(made.as_bytes()).await;
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    let body = "x".repeat(100_000);
    let put = |name: &str| {
        let length = body.len();
        format!("PUT /v1/AUTH_test/c/{name} {head}Content-Length: {length}\r\n\r\n{body}")
    };

    world.device.hang_writes();
    check_refused(&world, &put("o"), State::WritingChunks).await;
    world.device.release();
    while world
        .exchange(put("o").as_bytes())
        .await
        .starts_with("HTTP/1.1 503 ")
    {
        tokio::task::yield_now().await;
    }
    let get = format!("GET /v1/AUTH_test/c/o {head}\r\n");
    let got = world.exchange(get.as_bytes()).await;
    assert!(got.ends_with(&body), "{} bytes", got.len());
    world.settle().await;
    assert_eq!(world.device.chunks().len(), 1);
}
