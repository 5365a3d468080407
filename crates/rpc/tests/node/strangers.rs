//! Who is not of the cluster reaches no handler.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use base::env::{Clock, Env};
use base::{NodeId, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use rpc::{
    Authority, Call, CallError, Config, Credentials, Fault, Fingerprint, JoinToken, Lane, Listener,
    NodeKey, Service, TokenRecord, Versions,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::common::*;
use crate::raw;

fn untouched(server: &Server) {
    assert_eq!(server.state.entered(), 0);
    assert_eq!(server.state.joins.load(SeqCst), 0);
}

#[track_caller]
fn unreachable<T: std::fmt::Debug>(result: Result<T, CallError>, why: &str) {
    match result.unwrap_err() {
        CallError::NotSent(Fault::Unreachable { reason, .. }) => {
            assert!(reason.contains(why), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// That a caller with these credentials, or none, who says hello and calls gets nothing.
async fn refused(server: &Server, credentials: Option<&Credentials>) {
    let talk = async {
        let mut stream = raw::connect(server.address, credentials).await?;
        stream.write_all(&raw::hello((1, 1), raw::SMALL)).await?;
        stream
            .write_all(&raw::frame(raw::CALL, ECHO, 1, b"hello?"))
            .await?;
        stream.flush().await?;
        raw::read(&mut stream).await
    };
    let answer: std::io::Result<_> = talk.await;
    assert!(answer.is_err(), "{answer:?}");
    untouched(server);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let server = Server::start(Config::default()).await;
    refused(&server, None).await;
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused_by_both_sides() {
    let server = Server::start(Config::default()).await;
    // The same cluster's id, another key.
    for cluster in [CLUSTER, CLUSTER + 1] {
        let foreign = Authority::new(cluster).unwrap();
        let foreign = credentials(&foreign, CLIENT);
        refused(&server, Some(&foreign)).await;
        let peers = server.peers_as(&foreign, Config::default());
        unreachable(
            call(&peers, Lane::Small, ECHO, Bytes::new()).await,
            "certificate",
        );
        untouched(&server);
    }
    server
        .until_number("martlet_rpc_server_refused_total", 4)
        .await;
}

#[tokio::test]
async fn a_node_that_shows_another_nodes_certificate_is_not_called() {
    let server = Server::start(Config::default()).await;
    let own = credentials(&server.authority, CLIENT);
    let address = server.address;
    let peers = rpc::Peers::new(&own, Config::default(), move |_| Some(address)).unwrap();
    let body = vec![Bytes::new()];
    let other = peers
        .call(NodeId(77), Lane::Small, ECHO, body, soon())
        .await;
    unreachable(other, "not that of the node");
    untouched(&server);
}

#[tokio::test]
async fn a_node_that_the_map_does_not_have_is_refused() {
    let server = Server::start(Config::default()).await;
    server.state.admits.store(false, SeqCst);
    let stranger = Err(CallError::NotSent(Fault::Stranger));
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, Bytes::new()).await,
        stranger
    );
    // Nor does it get any further by calling all the same.
    let own = credentials(&server.authority, CLIENT);
    let mut stream = raw::connect(server.address, Some(&own)).await.unwrap();
    let hello = raw::hello((1, 1), raw::SMALL);
    let early = [hello, raw::frame(raw::CALL, ECHO, 1, b"")].concat();
    stream.write_all(&early).await.unwrap();
    assert_eq!(raw::read(&mut stream).await.unwrap().3[13], 1);
    assert!(raw::read(&mut stream).await.is_err());
    untouched(&server);
}

#[tokio::test]
async fn a_node_that_is_removed_is_refused_at_its_next_call() {
    let server = Server::start(Config::default()).await;
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "in".into()).await,
        Ok("in".into())
    );
    server.state.admits.store(false, SeqCst);
    let stranger = Err(CallError::NotSent(Fault::Stranger));
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "out".into()).await,
        stranger
    );
    assert_eq!(server.state.entered(), 1);
}

#[tokio::test]
async fn another_version_is_a_clear_error_on_both_sides() {
    let server = Server::start(Config::default()).await;
    let own = credentials(&server.authority, CLIENT);
    let mut stream = raw::connect(server.address, Some(&own)).await.unwrap();
    let hello = raw::hello((2, 3), raw::SMALL);
    stream.write_all(&hello).await.unwrap();
    let (kind, .., body) = raw::read(&mut stream).await.unwrap();
    assert_eq!((kind, &body[8..12]), (raw::HELLO, &[1, 0, 1, 0][..]));
    assert!(raw::read(&mut stream).await.is_err());
    untouched(&server);

    let fake = raw::Fake::new(&credentials(&server.authority, SERVER)).await;
    let peers = peers_to(fake.address, &own, Config::default());
    let calling = call(&peers, Lane::Small, ECHO, Bytes::new());
    let serving = async {
        let mut stream = fake.accept().await;
        stream.write_all(&hello).await.unwrap();
        stream.flush().await.unwrap();
        raw::read(&mut stream).await
    };
    let (called, heard) = tokio::join!(calling, serving);
    let (theirs, ours): (Versions, Versions) = (2..=3, 1..=1);
    assert_eq!(
        called,
        Err(CallError::NotSent(Fault::Version { theirs, ours }))
    );
    assert!(heard.is_err(), "a call in spite of the version: {heard:?}");
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let config = Config {
        connect_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = Server::start(config).await;
    let _tcp = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let own = credentials(&server.authority, CLIENT);
    let mut stream = raw::connect(server.address, Some(&own)).await.unwrap();
    assert!(raw::read(&mut stream).await.is_err());
    server
        .until_number("martlet_rpc_server_refused_total", 2)
        .await;
    untouched(&server);
}

#[tokio::test]
async fn too_many_handshakes_are_turned_away() {
    let config = Config {
        handshakes_max: 1,
        ..Config::default()
    };
    let server = Server::start(config).await;
    let silent = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let peers = server.peers(Config::default());
    unreachable(call(&peers, Lane::Small, ECHO, Bytes::new()).await, "");
    drop(silent);
    loop {
        let again = call(&peers, Lane::Small, ECHO, "x".into()).await;
        match again {
            Ok(_) => break,
            Err(error) => unreachable(Err::<(), _>(error), ""),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn join(server: &Server, request: &'static str) -> Result<Bytes, CallError> {
    let authority = server.authority.fingerprint();
    rpc::join(server.address, authority, request.into(), soon()).await
}

#[tokio::test]
async fn a_joiner_reaches_the_join_handler_only() {
    let server = Server::start(Config::default()).await;
    assert_eq!(join(&server, "please").await, Ok("welcome".into()));
    assert_eq!(
        join(&server, "let me").await,
        Err(CallError::Refused("no".into()))
    );
    let mut stream = raw::connect(server.address, None).await.unwrap();
    stream
        .write_all(&raw::hello((1, 1), raw::JOIN))
        .await
        .unwrap();
    let twice = raw::frame(raw::CALL, ECHO, 1, b"please").repeat(2);
    stream.write_all(&twice).await.unwrap();
    assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::HELLO);
    let answer = (raw::ANSWER, 0, 1, b"welcome".to_vec());
    assert_eq!(raw::read(&mut stream).await.unwrap(), answer);
    assert!(raw::read(&mut stream).await.is_err(), "a second answer");
    assert_eq!(server.state.joins.load(SeqCst), 3);
    assert_eq!(server.state.entered(), 0);
}

#[tokio::test]
async fn a_joiner_is_small_and_quick_or_is_cut_off() {
    let config = Config {
        join_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let server = Server::start(config).await;
    let fingerprint = server.authority.fingerprint();
    let large = Bytes::from(vec![b'x'; (8 << 10) + 1]);
    let (bytes, max) = (large.len(), 8 << 10);
    let too_large = Err(CallError::NotSent(Fault::TooLarge { bytes, max }));
    let result = rpc::join(server.address, fingerprint, large.clone(), soon()).await;
    assert_eq!(result, too_large);
    for first in [
        raw::frame(raw::CALL, 0, 1, &large),
        raw::frame(raw::CANCEL, 0, 1, b""),
        vec![],
    ] {
        let mut stream = raw::connect(server.address, None).await.unwrap();
        stream
            .write_all(&raw::hello((1, 1), raw::JOIN))
            .await
            .unwrap();
        stream.write_all(&first).await.unwrap();
        assert_eq!(raw::read(&mut stream).await.unwrap().0, raw::HELLO);
        assert!(raw::read(&mut stream).await.is_err());
    }
    untouched(&server);
    let slow = join(&server, "wait").await;
    assert!(
        matches!(slow, Err(CallError::Unknown(Fault::Broken(_)))),
        "{slow:?}"
    );
}

#[tokio::test]
async fn joins_are_rationed() {
    let config = Config {
        joins_burst: 2,
        ..Config::default()
    };
    let server = Server::start(config).await;
    let mut busy = 0;
    for _ in 0..10 {
        match join(&server, "please").await {
            Ok(_) => {}
            Err(CallError::NotSent(Fault::Busy)) => busy += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let joined = server.state.joins.load(SeqCst);
    assert!(busy > 0 && joined >= 2, "{busy} busy, {joined} joined");
    assert_eq!(busy + joined, 10);
    // Nodes are not touched by it.
    let peers = server.peers(Config::default());
    assert_eq!(
        call(&peers, Lane::Small, ECHO, "x".into()).await,
        Ok("x".into())
    );
}

#[tokio::test]
async fn a_joiner_does_not_speak_to_another_cluster() {
    let server = Server::start(Config::default()).await;
    let other = Authority::new(CLUSTER).unwrap().fingerprint();
    let result = rpc::join(server.address, other, "please".into(), soon()).await;
    unreachable(result, "certificate");
    // Nor to one that only shows the right authority's certificate.
    let impostor = Authority::new(CLUSTER).unwrap();
    let pem = credentials(&impostor, SERVER).to_pem();
    let blocks = |pem: &str| -> Vec<_> {
        let end = "-----END CERTIFICATE-----\n";
        pem.split_inclusive(end).map(str::to_owned).collect()
    };
    let theirs = blocks(&pem);
    let ours = blocks(&credentials(&server.authority, SERVER).to_pem());
    assert!(Credentials::from_pem(&[&*theirs[0], &ours[1], &theirs[2]].concat()).is_err());
    untouched(&server);
}

/// An issuer as the control shard will be: what it gives, and what it has given.
struct Issuer {
    authority: Authority,
    tokens: Mutex<HashMap<u64, TokenRecord>>,
    clock: Arc<dyn Clock>,
}

impl Service for Issuer {
    fn admits(&self, _: NodeId) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        Ok(vec![call.from.to_string().into()])
    }

    async fn join(&self, _: SocketAddr, request: Bytes) -> Result<Bytes, Bytes> {
        let (word, key) = request.split_at(request.len() - 65);
        let token = std::str::from_utf8(word).unwrap().parse::<JoinToken>();
        let token = token.map_err(|error| error.to_string())?;
        let mut tokens = self.tokens.lock();
        let record = tokens.get(&token.id).ok_or("no such token")?;
        let checked = record.check(&token.secret, self.clock.now());
        checked.map_err(|denied| denied.to_string())?;
        tokens.remove(&token.id);
        Ok(self.authority.sign(NodeId(9), key).unwrap().into())
    }
}

#[tokio::test]
async fn a_token_lets_one_node_in_once() {
    let env = Env::real();
    let now = env.clock.now();
    let authority = Authority::new(CLUSTER).unwrap();
    let own = credentials(&authority, SERVER);
    let certificate = authority.certificate().to_vec();
    let token = |expires| JoinToken::new(&*env.entropy, expires, authority.fingerprint());
    let good = token(now.after(Duration::from_secs(3_600)));
    let expired = token(Timestamp::from_secs(now.secs() - 1));
    let unknown = token(now.after(Duration::from_secs(3_600)));
    let stolen_id = JoinToken {
        id: good.id,
        ..unknown.clone()
    };
    let records = [&good, &expired].map(|token| (token.id, token.record()));
    let issuer = Issuer {
        authority: Authority::from_pem(&authority.to_pem()).unwrap(),
        tokens: Mutex::new(records.into()),
        clock: env.clock,
    };
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = Listener::new(tcp, &own, Config::default(), issuer).unwrap();
    let serving = tokio::spawn(async move { listener.serve(std::future::pending()).await });

    let key = NodeKey::generate().unwrap();
    let try_join = async |word: &str| {
        let token: JoinToken = word.parse().unwrap();
        let request = [word.as_bytes(), key.public()].concat();
        rpc::join(address, token.authority, request.into(), soon()).await
    };
    let refused = |why: &'static str| Err(CallError::Refused(why.into()));
    assert_eq!(
        try_join(&unknown.to_string()).await,
        refused("no such token")
    );
    let wrong = refused("the join token's secret is wrong");
    assert_eq!(try_join(&stolen_id.to_string()).await, wrong);
    let late = try_join(&expired.to_string()).await;
    assert!(matches!(late, Err(CallError::Refused(_))), "{late:?}");
    let joined = try_join(&good.to_string()).await.unwrap();
    assert_eq!(try_join(&good.to_string()).await, refused("no such token"));

    let joined = key.certified(joined.to_vec(), certificate).unwrap();
    assert_eq!((joined.node(), joined.cluster()), (NodeId(9), CLUSTER));
    let joined = Credentials::from_pem(&joined.to_pem()).unwrap();
    let peers = peers_to(address, &joined, Config::default());
    assert_eq!(
        call(&peers, Lane::Small, 0, Bytes::new()).await,
        Ok("n9".into())
    );
    serving.abort();
}

#[test]
fn credentials_that_do_not_fit_together_are_refused() {
    let authority = Authority::new(CLUSTER).unwrap();
    let other = Authority::new(CLUSTER).unwrap();
    let key = NodeKey::generate().unwrap();
    let signed = |by: &Authority, key: &NodeKey| by.sign(CLIENT, key.public()).unwrap();
    let certified = |certificate, by: &Authority| {
        let key = NodeKey::generate().unwrap();
        key.certified(certificate, by.certificate().to_vec())
    };
    // Another key's certificate, another authority's, and no certificate of a node.
    assert!(certified(signed(&authority, &key), &authority).is_err());
    assert!(certified(authority.certificate().to_vec(), &authority).is_err());
    assert!(certified(b"nonsense".to_vec(), &authority).is_err());
    let certificate = signed(&authority, &key);
    assert!(
        key.certified(certificate, other.certificate().to_vec())
            .is_err()
    );
    assert!(authority.sign(CLIENT, b"nonsense").is_err());
    let node = credentials(&authority, CLIENT).to_pem();
    assert!(Authority::from_pem(&node).is_err());
    assert!(Credentials::from_pem(&authority.to_pem()).is_err());
    assert!(Credentials::from_pem("").is_err());
}

#[test]
fn an_authority_that_was_kept_signs_as_before() {
    let authority = Authority::new(CLUSTER).unwrap();
    let kept = Authority::from_pem(&authority.to_pem()).unwrap();
    assert_eq!(kept.fingerprint(), authority.fingerprint());
    assert_eq!(kept.fingerprint(), Fingerprint::of(authority.certificate()));
    let key = NodeKey::generate().unwrap();
    let certificate = kept.sign(SERVER, key.public()).unwrap();
    // So does a key that was kept.
    let key = NodeKey::from_pem(&key.to_pem()).unwrap();
    let fits = key.certified(certificate, authority.certificate().to_vec());
    let fits = fits.unwrap();
    assert_eq!(fits.node(), SERVER);
    assert_eq!(fits.authority(), authority.fingerprint());
    assert!(NodeKey::from_pem(&authority.to_pem()).is_err());
    let shown = format!("{kept:?} {:?}", credentials(&kept, SERVER));
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
