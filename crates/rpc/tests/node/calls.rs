//! Calls between two nodes that trust each other.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::common::*;
use bytes::Bytes;
use rpc::{CallError, Config, Fault, Lane, LaneConfig};

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    for lane in [Lane::Small, Lane::Bulk] {
        for bytes in [0, 1, 300, 4_096, 4_097, 65_536, 1 << 20] {
            let body = pattern(bytes);
            assert_eq!(call(&peers, lane, ECHO, body.clone()).await, Ok(body));
        }
    }
    let body = pattern(8 << 20);
    assert_eq!(call(&peers, Lane::Bulk, ECHO, body.clone()).await, Ok(body));
}

#[tokio::test]
async fn a_body_may_come_in_pieces() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let pieces: Vec<_> = [0, 1, 5_000, 0, 100, 200_000, 4_096, 7].map(pattern).into();
    let whole = Bytes::from(pieces.concat());
    let answer = peers.call(SERVER, Lane::Bulk, ECHO, pieces, soon()).await;
    assert_eq!(answer, Ok(whole));
}

#[tokio::test]
async fn a_refusal_has_the_handlers_words() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let refusal = call(&peers, Lane::Small, REFUSE, "not the leader".into()).await;
    assert_eq!(refusal, Err(CallError::Refused("not the leader".into())));
}

#[tokio::test]
async fn a_handler_that_panics_hurts_only_its_own_call() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let panicked = call(&peers, Lane::Small, PANIC, Bytes::new()).await;
    assert_eq!(panicked, Err(CallError::Unknown(Fault::Unfinished)));
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "on".into()).await,
        Ok("on".into())
    );
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_connects_total{small}"], 1);
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_sent() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let (bytes, max) = ((1 << 20) + 1, 1 << 20);
    let too_large = Err(CallError::NotSent(Fault::TooLarge { bytes, max }));
    assert_eq!(
        call(&peers, Lane::Small, ECHO, pattern(bytes)).await,
        too_large
    );
    // An answer that is too large is the service's mistake: it may have done what was asked.
    let (bytes, max) = ((1_u32 << 20) + 1, 1_u32 << 20);
    let answer = |bytes: u32| Bytes::copy_from_slice(&bytes.to_le_bytes());
    let large = call(&peers, Lane::Small, LARGE, answer(max)).await;
    assert_eq!(large.map(|body| body.len()), Ok(1 << 20));
    let larger = call(&peers, Lane::Small, LARGE, answer(bytes)).await;
    assert_eq!(larger, Err(CallError::Unknown(Fault::Unfinished)));
    assert_eq!(server.state.entered(), 2);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_its_handler() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let mut ms = 50;
    let late = loop {
        let body = vec![Bytes::new()];
        let call = peers.call(SERVER, Lane::Small, GATED, body, after(ms));
        // A slow machine may need longer to connect.
        match call.await {
            Err(CallError::NotSent(Fault::Deadline)) => ms *= 2,
            other => break other,
        }
    };
    assert_eq!(late, Err(CallError::Unknown(Fault::Deadline)));
    server.state.until(|state| state.left() == 1).await;
    assert!(server.state.done.lock().is_empty());
}

#[tokio::test]
async fn a_deadline_in_the_past_sends_nothing() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, Bytes::new()).await,
        Ok(Bytes::new())
    );
    let body = vec![Bytes::new()];
    let late = peers.call(SERVER, Lane::Small, ECHO, body, after(0)).await;
    assert_eq!(late, Err(CallError::NotSent(Fault::Deadline)));
    assert_eq!(server.state.entered(), 1);
}

/// One connection with two slots.
fn narrow() -> Config {
    let config = Config::default();
    let small = LaneConfig {
        in_flight_max: 2,
        ..config.small.clone()
    };
    Config { small, ..config }
}

#[tokio::test]
async fn a_dropped_call_frees_its_slot_and_ends_its_handler() {
    let server = Server::start(narrow()).await;
    let peers = server.peers(Config::default());
    for round in 1..=10 {
        let pair = [(); 2].map(|()| {
            let peers = peers.clone();
            tokio::spawn(async move { call(&peers, Lane::Small, GATED, Bytes::new()).await })
        });
        server
            .state
            .until(|state| state.entered() == 2 * round)
            .await;
        pair.iter().for_each(|call| call.abort());
        server.state.until(|state| state.left() == 2 * round).await;
    }
    // All slots are free again: both calls are in flight at once.
    server.state.gate.add_permits(2);
    let both = tokio::join!(
        call(&peers, Lane::Small, GATED, Bytes::new()),
        call(&peers, Lane::Small, GATED, Bytes::new())
    );
    assert_eq!(both, (Ok("0".into()), Ok("0".into())));
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_in_flight{small}"], 0);
    assert_eq!(numbers["martlet_rpc_connects_total{small}"], 1);
}

#[tokio::test]
async fn who_finds_no_slot_waits_until_its_deadline() {
    let server = Server::start(narrow()).await;
    let peers = server.peers(Config::default());
    let pair = [(); 2].map(|()| {
        let peers = peers.clone();
        tokio::spawn(async move { call(&peers, Lane::Small, GATED, Bytes::new()).await })
    });
    server.state.until(|state| state.entered() == 2).await;
    let body = vec![Bytes::new()];
    let third = peers.call(SERVER, Lane::Small, ECHO, body, after(50)).await;
    assert_eq!(third, Err(CallError::NotSent(Fault::Deadline)));
    let waiting = tokio::spawn({
        let peers = peers.clone();
        async move { call(&peers, Lane::Small, ECHO, "late".into()).await }
    });
    server.state.gate.add_permits(2);
    assert_eq!(waiting.await.unwrap(), Ok("late".into()));
    for call in pair {
        assert_eq!(call.await.unwrap(), Ok("0".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_at_once_are_bounded() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let calls: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let peers = peers.clone();
            let body = Bytes::copy_from_slice(&number.to_le_bytes());
            tokio::spawn(async move { call(&peers, Lane::Small, GATED, body).await })
        })
        .collect();
    let slots = Config::default().small.in_flight_max as usize;
    server.state.until(|state| state.entered() == slots).await;
    assert_eq!(
        server.number("martlet_rpc_server_in_flight{small}"),
        slots as i64
    );
    let in_flight = numbers(|to| peers.report(to))["martlet_rpc_in_flight{small}"];
    assert_eq!(in_flight, slots as i64);
    server.state.gate.add_permits(10_000);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok("4".into()));
    }
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_calls_total{small,answered}"], 10_000);
    assert_eq!(numbers["martlet_rpc_wait_seconds{small}"], 10_000);
    assert_eq!(numbers["martlet_rpc_in_flight{small}"], 0);
    assert_eq!(numbers["martlet_rpc_connects_total{small}"], 1);
}

#[tokio::test]
async fn a_listener_that_stops_lets_calls_end_and_takes_no_new_ones() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    let state = server.state.clone();
    let begun = tokio::spawn({
        let peers = peers.clone();
        async move { call(&peers, Lane::Small, GATED, Bytes::new()).await }
    });
    state.until(|state| state.entered() == 1).await;
    server.begin_stop();
    // It may take a moment until the connection has heard of it.
    let refused = loop {
        let result = call(&peers, Lane::Small, ECHO, Bytes::new()).await;
        if result.is_err() {
            break result;
        }
    };
    assert_eq!(refused, Err(CallError::NotSent(Fault::Stopping)));
    state.gate.add_permits(1);
    assert_eq!(begun.await.unwrap(), Ok("0".into()));
    server.stopped().await;
    let gone = call(&peers, Lane::Small, ECHO, Bytes::new()).await;
    assert!(matches!(gone, Err(CallError::NotSent(_))), "{gone:?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_made_again() {
    let config = Config {
        idle: Duration::from_millis(50),
        silence: Duration::from_millis(400),
        ..Config::default()
    };
    let server = Server::start(config.clone()).await;
    let peers = server.peers(config);
    for round in 1..=2 {
        assert_eq!(
            call(&peers, Lane::Small, ECHO, "x".into()).await,
            Ok("x".into())
        );
        let made = numbers(|to| peers.report(to))["martlet_rpc_connects_total{small}"];
        assert_eq!(made, round);
        server
            .until_number("martlet_rpc_server_connections", 0)
            .await;
    }
}

#[tokio::test]
async fn dropping_the_pool_closes_its_connections() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "x".into()).await,
        Ok("x".into())
    );
    drop(peers);
    server
        .until_number("martlet_rpc_server_connections", 0)
        .await;
    assert_eq!(server.state.joins.load(SeqCst), 0);
}
