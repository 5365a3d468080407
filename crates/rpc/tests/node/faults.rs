//! Peers that die, hang, lie or are slow.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use rpc::{CallError, Config, Fault, Lane, LaneConfig, Peers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{client, server};

use crate::common::*;
use crate::raw;

/// A callee that is ours to lead astray, and a node that calls it.
async fn fake(config: Config) -> (raw::Fake, Peers) {
    let authority = rpc::Authority::new(CLUSTER).unwrap();
    let fake = raw::Fake::new(&credentials(&authority, SERVER)).await;
    let peers = peers_to(fake.address, &credentials(&authority, CLIENT), config);
    (fake, peers)
}

/// Takes a connection and welcomes its caller.
async fn welcome(fake: &raw::Fake) -> server::TlsStream<TcpStream> {
    let mut stream = fake.accept().await;
    let hello = raw::hello((1, 1), raw::SMALL);
    stream.write_all(&hello).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// A caller that is ours to lead astray, welcomed by a good callee.
async fn misbehave(server: &Server) -> client::TlsStream<TcpStream> {
    let own = credentials(&server.authority, CLIENT);
    let mut stream = raw::connect(server.address, Some(&own)).await.unwrap();
    let hello = raw::hello((1, 1), raw::SMALL);
    stream.write_all(&hello).await.unwrap();
    assert_eq!(raw::read(&mut stream).await.unwrap().3[13], 0);
    stream
}

fn calling(peers: &Peers, lane: Lane, service: u16, body: Bytes) -> JoinHandle<Outcome> {
    let peers = peers.clone();
    tokio::spawn(async move { call(&peers, lane, service, body).await })
}

type Outcome = Result<Bytes, CallError>;

/// A fifth of the usual times.
fn impatient() -> Config {
    Config {
        silence: Duration::from_millis(400),
        connect_timeout: Duration::from_millis(600),
        ..Config::default()
    }
}

/// Tries again at once.
fn hasty() -> Config {
    Config {
        backoff_min: Duration::ZERO,
        backoff_max: Duration::ZERO,
        ..Config::default()
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once_and_not_asked_again_soon() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    drop(tcp);
    let config = Config {
        backoff_min: Duration::from_secs(600),
        backoff_max: Duration::from_secs(600),
        ..Config::default()
    };
    let authority = rpc::Authority::new(CLUSTER).unwrap();
    let peers = peers_to(address, &credentials(&authority, CLIENT), config);
    for _ in 0..3 {
        let result = call(&peers, Lane::Small, ECHO, Bytes::new()).await;
        let fault = result.unwrap_err();
        let unreachable = CallError::NotSent(Fault::Unreachable {
            address: address.to_string(),
            reason: "Connection refused (os error 111)".into(),
        });
        assert_eq!(fault, unreachable);
    }
    let body = vec![Bytes::new()];
    let nowhere = peers.call(CLIENT, Lane::Small, ECHO, body, soon()).await;
    assert_eq!(nowhere, Err(CallError::NotSent(Fault::NoAddress(CLIENT))));
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_connects_failed_total{small}"], 2);
    assert_eq!(numbers["martlet_rpc_calls_total{small,not_sent}"], 4);
}

#[tokio::test]
async fn a_peer_that_does_not_finish_the_handshake_is_waited_for_until_the_deadline() {
    let (fake, peers) = fake(Config::default()).await;
    let body = vec![Bytes::new()];
    let late = peers.call(SERVER, Lane::Small, ECHO, body, after(50)).await;
    assert_eq!(late, Err(CallError::NotSent(Fault::Deadline)));
    let _mute = fake.accept_tcp().await;
}

#[tokio::test]
async fn connecting_has_a_limit_of_its_own() {
    let (_fake, peers) = fake(impatient()).await;
    let result = call(&peers, Lane::Small, ECHO, Bytes::new()).await;
    let Err(CallError::NotSent(Fault::Unreachable { reason, .. })) = result else {
        panic!("{result:?}");
    };
    assert_eq!(&*reason, "no answer");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_dead() {
    let config = impatient();
    let silence = config.silence;
    let (fake, peers) = fake(config).await;
    let calls = [(); 3].map(|()| calling(&peers, Lane::Small, ECHO, Bytes::new()));
    // It takes the calls and says no more, as if its cable were cut or its process stopped.
    let _stream = welcome(&fake).await;
    for call in calls {
        let silent = Err(CallError::Unknown(Fault::Silent(silence)));
        assert_eq!(call.await.unwrap(), silent);
    }
}

#[tokio::test]
async fn a_caller_that_falls_silent_is_found_dead_and_its_handlers_end() {
    let server = Server::start(impatient()).await;
    let mut stream = misbehave(&server).await;
    let call = raw::frame(raw::CALL, GATED, 1, b"");
    stream.write_all(&call).await.unwrap();
    server.state.until(|state| state.left() == 1).await;
    server
        .until_number("martlet_rpc_server_connections", 0)
        .await;
    assert!(server.state.done.lock().is_empty());
}

#[tokio::test]
async fn a_peer_that_lives_but_does_not_answer_is_left_at_the_deadline() {
    let (fake, peers) = fake(Config::default()).await;
    let alive = tokio::spawn(async move {
        let mut stream = welcome(&fake).await;
        loop {
            let alive = raw::frame(raw::ALIVE, 0, 0, b"");
            stream.write_all(&alive).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut ms = 50;
    loop {
        let body = vec![Bytes::new()];
        let late = peers.call(SERVER, Lane::Small, ECHO, body, after(ms)).await;
        match late {
            // Before it was connected.
            Err(CallError::NotSent(Fault::Deadline)) => ms *= 2,
            other => break assert_eq!(other, Err(CallError::Unknown(Fault::Deadline))),
        }
    }
    alive.abort();
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_what_was_sent_unknown() {
    let (fake, peers) = fake(Config::default()).await;
    let call = calling(&peers, Lane::Small, ECHO, "x".into());
    let mut stream = welcome(&fake).await;
    assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::CALL);
    drop(stream);
    let result = call.await.unwrap();
    assert!(
        matches!(result, Err(CallError::Unknown(Fault::Broken(_)))),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_half_closed_connection_ends_the_calls_on_it() {
    let (fake, peers) = fake(hasty()).await;
    let call = calling(&peers, Lane::Small, ECHO, "x".into());
    let mut stream = welcome(&fake).await;
    assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::CALL);
    // TCP only: TLS was not ended in order.
    stream.get_mut().0.shutdown().await.unwrap();
    let result = call.await.unwrap();
    assert!(
        matches!(result, Err(CallError::Unknown(Fault::Broken(_)))),
        "{result:?}"
    );

    // In order: then the protocol says that the call was not begun.
    let call = calling(&peers, Lane::Small, ECHO, "x".into());
    let mut stream = welcome(&fake).await;
    assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::CALL);
    stream.shutdown().await.unwrap();
    assert_eq!(
        call.await.unwrap(),
        Err(CallError::NotSent(Fault::Stopping))
    );
}

#[tokio::test]
async fn a_peer_that_hangs_up_at_once_is_not_asked_all_the_time() {
    let config = Config {
        backoff_min: Duration::from_secs(600),
        backoff_max: Duration::from_secs(600),
        ..Config::default()
    };
    let (fake, peers) = fake(config).await;
    let call_1 = calling(&peers, Lane::Small, ECHO, "x".into());
    drop(welcome(&fake).await);
    assert!(call_1.await.unwrap().is_err());
    let again = call(&peers, Lane::Small, ECHO, "x".into()).await;
    assert!(
        matches!(again, Err(CallError::NotSent(Fault::Broken(_)))),
        "{again:?}"
    );
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_connects_total{small}"], 1);
}

#[tokio::test]
async fn who_waits_for_a_slot_of_a_connection_that_breaks_gets_another_one() {
    let config = hasty();
    let small = LaneConfig {
        in_flight_max: 1,
        ..config.small.clone()
    };
    let (fake, peers) = fake(Config { small, ..config }).await;
    let first = calling(&peers, Lane::Small, ECHO, "1".into());
    let mut stream = welcome(&fake).await;
    assert_eq!(raw::read(&mut stream).await.unwrap().3, b"1");
    let mut second = Box::pin(call(&peers, Lane::Small, ECHO, "2".into()));
    let waits = tokio::time::timeout(Duration::from_millis(1), &mut second);
    assert!(waits.await.is_err());
    drop(stream);
    let serving = async {
        let mut stream = welcome(&fake).await;
        assert_eq!(raw::read(&mut stream).await.unwrap().3, b"2");
        let answer = raw::frame(raw::ANSWER, 0, 1, b"2");
        stream.write_all(&answer).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(second, serving);
    assert_eq!(answer, Ok("2".into()));
    let lost = first.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown(_))), "{lost:?}");
}

#[tokio::test]
async fn a_node_that_comes_back_is_called_again() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "1".into()).await,
        Ok("1".into())
    );
    let (address, authority) = (server.address, server.authority.to_pem());
    server.begin_stop();
    server.stopped().await;
    assert!(call(&peers, Lane::Small, ECHO, "2".into()).await.is_err());
    let again = Server::start_at(address, &authority, Config::default()).await;
    let answer = loop {
        match call(&peers, Lane::Small, ECHO, "3".into()).await {
            Err(CallError::NotSent(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => break other,
        }
    };
    assert_eq!(answer, Ok("3".into()));
    assert_eq!(again.state.entered(), 1);
}

#[tokio::test]
async fn a_stop_cuts_off_what_does_not_end() {
    let config = Config {
        grace: Duration::from_millis(50),
        ..Config::default()
    };
    let server = Server::start(config).await;
    let state = server.state.clone();
    let peers = server.peers(Config::default());
    let endless = calling(&peers, Lane::Small, GATED, Bytes::new());
    state.until(|state| state.entered() == 1).await;
    server.begin_stop();
    server.stopped().await;
    let cut = endless.await.unwrap();
    assert!(
        matches!(cut, Err(CallError::Unknown(Fault::Broken(_)))),
        "{cut:?}"
    );
    state.until(|state| state.left() == 1).await;
}

#[tokio::test]
async fn what_breaks_the_rules_ends_the_connection_before_a_handler() {
    let server = Server::start(Config::default()).await;
    let call = |id| raw::frame(raw::CALL, GATED, id, b"");
    let too_large = {
        let mut frame = call(1);
        frame[..4].copy_from_slice(&((1_u32 << 20) + 1).to_le_bytes());
        frame
    };
    for (broken, entered) in [
        (raw::frame(99, 0, 0, b""), 0),
        (raw::hello((1, 1), raw::SMALL), 0),
        (raw::frame(raw::ANSWER, 0, 1, b""), 0),
        (too_large, 0),
        ([call(1), call(1)].concat(), 1),
        ((1..=1025).flat_map(call).collect(), 1024),
    ] {
        let before = server.state.entered();
        let mut stream = misbehave(&server).await;
        // The callee may hang up while this is being written.
        let _ = stream.write_all(&broken).await;
        assert!(raw::read(&mut stream).await.is_err());
        // A handler that was cancelled before it ran is not counted.
        assert!(server.state.entered() - before <= entered);
        server
            .until_number("martlet_rpc_server_connections", 0)
            .await;
        server
            .until_number("martlet_rpc_server_in_flight{small}", 0)
            .await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_the_rules_ends_the_connection() {
    let (fake, peers) = fake(hasty()).await;
    let too_large = {
        let mut frame = raw::frame(raw::ANSWER, 0, 1, b"");
        frame[..4].copy_from_slice(&((1_u32 << 20) + 1).to_le_bytes());
        frame
    };
    for broken in [
        raw::frame(99, 0, 0, b""),
        raw::frame(raw::CALL, ECHO, 1, b""),
        raw::frame(raw::ANSWER, 0, 2, b""),
        raw::frame(raw::NOT_TAKEN, 99, 1, b""),
        too_large,
    ] {
        let call = calling(&peers, Lane::Small, ECHO, "x".into());
        let mut stream = welcome(&fake).await;
        assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::CALL);
        stream.write_all(&broken).await.unwrap();
        stream.flush().await.unwrap();
        let result = call.await.unwrap();
        assert!(
            matches!(result, Err(CallError::Unknown(Fault::Broken(_)))),
            "{result:?}"
        );
    }
}

/// Random changes of good frames, and random bytes.
fn mutated(random: &mut fastrand::Rng, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..20) {
        bytes.extend(random.choice(frames).unwrap());
    }
    for _ in 0..random.usize(0..4) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..at, std::iter::repeat_with(|| random.u8(..)).take(9))),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_of_a_caller_hurt_the_callee() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start(Config::default()).await;
    let good: Vec<_> = (1..6)
        .map(|id| raw::frame(raw::CALL, ECHO, id, b"body"))
        .chain((1..6).map(|id| raw::frame(raw::CANCEL, 0, id, b"")))
        .chain([
            raw::frame(raw::ALIVE, 0, 0, b""),
            raw::frame(raw::CALL, GATED, 6, &[0; 5_000]),
        ])
        .collect();
    for _ in 0..100 {
        let mut stream = misbehave(&server).await;
        let _ = stream.write_all(&mutated(&mut random, &good)).await;
        let _ = stream.shutdown().await;
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers).await;
        assert!(answers.len() < 1 << 20);
    }
    server
        .until_number("martlet_rpc_server_connections", 0)
        .await;
    server
        .until_number("martlet_rpc_server_in_flight{small}", 0)
        .await;
    assert_eq!(server.state.bytes.load(SeqCst), 0);
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "on".into()).await,
        Ok("on".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_of_a_callee_hurt_the_caller() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (fake, peers) = fake(hasty()).await;
    let good: Vec<_> = [raw::ANSWER, raw::REFUSED, raw::NOT_TAKEN, raw::UNFINISHED]
        .into_iter()
        .flat_map(|kind| (1..4).map(move |id| raw::frame(kind, 1, id, b"body")))
        .chain([raw::frame(raw::ALIVE, 0, 0, b"")])
        .collect();
    let lying = tokio::spawn(async move {
        loop {
            let mut stream = welcome(&fake).await;
            let _ = stream.write_all(&mutated(&mut random, &good)).await;
            let _ = stream.flush().await;
            let _ = stream.get_mut().0.shutdown().await;
        }
    });
    for _ in 0..100 {
        let calls = [(); 3].map(|()| calling(&peers, Lane::Small, ECHO, "x".into()));
        for call in calls {
            // Any outcome, but an outcome.
            let _ = call.await.unwrap();
        }
    }
    lying.abort();
    let numbers = numbers(|to| peers.report(to));
    assert_eq!(numbers["martlet_rpc_in_flight{small}"], 0);
}

/// Room for three bodies of a megabyte at a time.
fn three_megabytes() -> Config {
    let config = Config::default();
    let room = |lane: LaneConfig| LaneConfig {
        handling_bytes_max: 3 << 20,
        ..lane
    };
    Config {
        small: room(config.small.clone()),
        bulk: room(config.bulk.clone()),
        ..config
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_callee_holds_no_more_than_its_memory() {
    let server = Server::start(three_megabytes()).await;
    let peers = server.peers(Config::default());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let calls: Vec<_> = (0..40)
        .map(|_| calling(&peers, Lane::Bulk, GATED, body.clone()))
        .collect();
    server.state.until(|state| state.entered() == 3).await;
    while server.number("martlet_rpc_server_waits_total{bulk}") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.state.gate.add_permits(40);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok("1048576".into()));
    }
    assert!(server.state.bytes_most.load(SeqCst) <= 3 << 20);
    let numbers = numbers(|to| peers.report(to));
    // How many it takes depends on how long they take to open.
    assert!((1..=4).contains(&numbers["martlet_rpc_connects_total{bulk}"]));
}

#[tokio::test]
async fn a_callee_that_waits_for_memory_is_not_taken_for_dead() {
    let server = Server::start(three_megabytes()).await;
    let peers = server.peers(Config::default());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let calls: Vec<_> = (0..20)
        .map(|_| calling(&peers, Lane::Bulk, GATED, body.clone()))
        .collect();
    server.state.until(|state| state.entered() == 3).await;
    tokio::time::sleep(Config::default().silence * 2).await;
    server.state.gate.add_permits(20);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok("1048576".into()));
    }
}

#[tokio::test]
async fn a_call_that_waited_too_long_for_memory_is_not_begun() {
    let server = Server::start(three_megabytes()).await;
    let peers = server.peers(Config::default());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let gated = [(); 3].map(|()| calling(&peers, Lane::Bulk, GATED, body.clone()));
    server.state.until(|state| state.entered() == 3).await;
    let late = peers.call(SERVER, Lane::Bulk, ECHO, vec![body.clone()], after(50));
    assert!(late.await.unwrap_err().is_deadline());
    server.state.gate.add_permits(3);
    for call in gated {
        assert_eq!(call.await.unwrap(), Ok("1048576".into()));
    }
    assert_eq!(
        call(&peers, Lane::Bulk, ECHO, "x".into()).await,
        Ok("x".into())
    );
    assert_eq!(server.state.entered(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bulk_does_not_hold_up_small_calls() {
    let server = Server::start(three_megabytes()).await;
    let peers = server.peers(Config::default());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let flood: Vec<_> = (0..200)
        .map(|_| calling(&peers, Lane::Bulk, GATED, body.clone()))
        .collect();
    server.state.until(|state| state.entered() == 3).await;
    // Every bulk connection is stuffed and every byte of memory for bulk is used.
    for _ in 0..100 {
        assert_eq!(
            call(&peers, Lane::Small, ECHO, "vote".into()).await,
            Ok("vote".into())
        );
    }
    let before = server.state.done.lock().clone();
    assert_eq!(before, vec![ECHO; 100]);
    server.state.gate.add_permits(200);
    for call in flood {
        assert_eq!(call.await.unwrap(), Ok("1048576".into()));
    }
}

#[tokio::test]
async fn a_heartbeat_needs_no_memory() {
    let server = Server::start(three_megabytes()).await;
    let greedy = server.peers(Config::default());
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let gated: Vec<_> = (0..10)
        .map(|_| calling(&greedy, Lane::Small, GATED, body.clone()))
        .collect();
    server.state.until(|state| state.entered() == 3).await;
    let other = server.peers(Config::default());
    let beat = Bytes::from(vec![b'b'; rpc::FREE_BYTES]);
    assert_eq!(
        call(&other, Lane::Small, ECHO, beat.clone()).await,
        Ok(beat)
    );
    server.state.gate.add_permits(10);
    for call in gated {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_only_its_own_slots() {
    let server = Server::start(Config::default()).await;
    let mut deaf = misbehave(&server).await;
    let body = (1_u32 << 20).to_le_bytes();
    let calls: Vec<u8> = (1..=200)
        .flat_map(|id| raw::frame(raw::CALL, LARGE, id, &body))
        .collect();
    deaf.write_all(&calls).await.unwrap();
    deaf.flush().await.unwrap();
    server.state.until(|state| state.left() == 200).await;
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "x".into()).await,
        Ok("x".into())
    );
    // Cut off, it holds nothing.
    drop(deaf);
    server
        .until_number("martlet_rpc_server_connections", 1)
        .await;
}
