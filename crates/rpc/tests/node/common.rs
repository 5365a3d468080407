//! Two nodes on loopback: one serves, one calls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base::NodeId;
use base::metrics::{Histogram, Labels, Report};
use bytes::Bytes;
use parking_lot::Mutex;
use rpc::{
    Authority, Call, CallError, Config, Credentials, Lane, Listener, NodeKey, Peers, Service,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) const CLUSTER: u128 = 0xc1u128 << 100;
pub(crate) const SERVER: NodeId = NodeId(1);
pub(crate) const CLIENT: NodeId = NodeId(2);

/// Gives the body back.
pub(crate) const ECHO: u16 = 1;
/// Refuses with the body.
pub(crate) const REFUSE: u16 = 2;
/// Waits for a permit of [`State::gate`], then gives the body's length.
pub(crate) const GATED: u16 = 3;
pub(crate) const PANIC: u16 = 4;
/// Answers with as many bytes as the body says (u32, little-endian).
pub(crate) const LARGE: u16 = 5;

/// What the test and its service share.
pub(crate) struct State {
    pub(crate) gate: Semaphore,
    /// Handlers that were entered, and those of them that were left, in whatever way.
    pub(crate) entered: AtomicUsize,
    pub(crate) left: AtomicUsize,
    /// Bytes of bodies in handlers now, and the most there ever were.
    pub(crate) bytes: AtomicUsize,
    pub(crate) bytes_most: AtomicUsize,
    pub(crate) joins: AtomicUsize,
    pub(crate) admits: AtomicBool,
    /// Changes of the numbers above.
    pub(crate) changed: Notify,
    /// Services in the order in which their handlers ended well.
    pub(crate) done: Mutex<Vec<u16>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(0),
            entered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bytes_most: AtomicUsize::new(0),
            joins: AtomicUsize::new(0),
            admits: AtomicBool::new(true),
            changed: Notify::new(),
            done: Mutex::default(),
        }
    }
}

impl State {
    /// Waits until `is` holds; the test's own time limit is the bound.
    pub(crate) async fn until(&self, is: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if is(self) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn entered(&self) -> usize {
        self.entered.load(SeqCst)
    }

    pub(crate) fn left(&self) -> usize {
        self.left.load(SeqCst)
    }
}

struct Inside<'a>(&'a State, usize);

impl<'a> Inside<'a> {
    fn enter(state: &'a State, bytes: usize) -> Self {
        let now = state.bytes.fetch_add(bytes, SeqCst) + bytes;
        state.bytes_most.fetch_max(now, SeqCst);
        state.entered.fetch_add(1, SeqCst);
        state.changed.notify_waiters();
        Self(state, bytes)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, SeqCst);
        self.0.left.fetch_add(1, SeqCst);
        self.0.changed.notify_waiters();
    }
}

pub(crate) struct TestService(pub(crate) Arc<State>);

impl Service for TestService {
    fn admits(&self, _: NodeId) -> bool {
        self.0.admits.load(SeqCst)
    }

    async fn call(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        let _inside = Inside::enter(&self.0, call.body.len());
        assert_eq!(call.from, CLIENT);
        let result = match call.service {
            ECHO => Ok(vec![call.body]),
            REFUSE => Err(call.body),
            GATED => {
                self.0.gate.acquire().await.unwrap().forget();
                Ok(vec![Bytes::from(call.body.len().to_string())])
            }
            LARGE => {
                let bytes = u32::from_le_bytes(call.body[..].try_into().unwrap());
                Ok(vec![vec![b'x'; bytes as usize].into()])
            }
            _ => panic!("as the test wants it"),
        };
        self.0.done.lock().push(call.service);
        result
    }

    async fn join(&self, _: SocketAddr, request: Bytes) -> Result<Bytes, Bytes> {
        self.0.joins.fetch_add(1, SeqCst);
        match &request[..] {
            b"please" => Ok("welcome".into()),
            b"wait" => std::future::pending().await,
            _ => Err("no".into()),
        }
    }
}

pub(crate) fn credentials(authority: &Authority, node: NodeId) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let certificate = authority.sign(node, key.public()).unwrap();
    key.certified(certificate, authority.certificate().to_vec())
        .unwrap()
}

/// A node that serves, and the authority of its cluster.
pub(crate) struct Server {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    pub(crate) listener: Arc<Listener<TestService>>,
    stop: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(config: Config) -> Self {
        let authority = Authority::new(CLUSTER).unwrap().to_pem();
        Self::start_at(([127, 0, 0, 1], 0).into(), &authority, config).await
    }

    pub(crate) async fn start_at(address: SocketAddr, authority: &str, config: Config) -> Self {
        let authority = Authority::from_pem(authority).unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let state = Arc::new(State::default());
        let own = credentials(&authority, SERVER);
        let service = TestService(state.clone());
        let listener = Arc::new(Listener::new(tcp, &own, config, service).unwrap());
        let stop = Arc::new(Notify::new());
        let serving = tokio::spawn({
            let (listener, stop) = (listener.clone(), stop.clone());
            async move { listener.serve(stop.notified()).await }
        });
        Self {
            authority,
            address,
            state,
            listener,
            stop,
            serving,
        }
    }

    pub(crate) fn peers(&self, config: Config) -> Peers {
        self.peers_as(&credentials(&self.authority, CLIENT), config)
    }

    pub(crate) fn peers_as(&self, credentials: &Credentials, config: Config) -> Peers {
        peers_to(self.address, credentials, config)
    }

    pub(crate) fn begin_stop(&self) {
        self.stop.notify_one();
    }

    pub(crate) async fn stopped(self) {
        self.serving.await.unwrap();
    }

    /// Waits until a number of the listener is so; the test's own time limit is the bound.
    pub(crate) async fn until_number(&self, name: &str, value: i64) {
        while self.number(name) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        numbers(|to| self.listener.report(to))[name]
    }
}

pub(crate) fn peers_to(address: SocketAddr, credentials: &Credentials, config: Config) -> Peers {
    let resolver = move |node| (node == SERVER).then_some(address);
    Peers::new(credentials, config, resolver).unwrap()
}

pub(crate) async fn call(
    peers: &Peers,
    lane: Lane,
    service: u16,
    body: Bytes,
) -> Result<Bytes, CallError> {
    peers.call(SERVER, lane, service, vec![body], soon()).await
}

/// A deadline that no test should reach.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// What a report says: `name` or `name{value,value}`.
pub(crate) fn numbers(report: impl Fn(&mut dyn Report)) -> HashMap<String, i64> {
    #[derive(Default)]
    struct Numbers(HashMap<String, i64>);
    impl Numbers {
        fn put(&mut self, name: &str, labels: Labels<'_>, value: i64) {
            let values: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
            let name = match values.is_empty() {
                true => name.to_owned(),
                false => format!("{name}{{{}}}", values.join(",")),
            };
            assert_eq!(self.0.insert(name, value), None);
        }
    }
    impl Report for Numbers {
        fn counter(&mut self, name: &str, _: &str, labels: Labels<'_>, value: u64) {
            self.put(name, labels, i64::try_from(value).unwrap());
        }
        fn gauge(&mut self, name: &str, _: &str, labels: Labels<'_>, value: i64) {
            self.put(name, labels, value);
        }
        fn histogram(&mut self, name: &str, _: &str, labels: Labels<'_>, value: &Histogram) {
            let count = value.snapshot().count();
            self.put(name, labels, i64::try_from(count).unwrap());
        }
    }
    let mut numbers = Numbers::default();
    report(&mut numbers);
    numbers.0
}
