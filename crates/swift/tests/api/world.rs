//! The whole front: gateway and Swift API over a namespace that lives in memory, behind a socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::DeviceId;
use base::env::Clock as _;
use chunks::testing::MemoryDevice;
use gateway::Server;
use map::{Current, Map};
use namespace::{Namespace, Role};
use parking_lot::Mutex;
use shard::Shards;
use swift::Swift;
use testkit::SimClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The users that a world can have: a short name, the rest as OpenStack's suite has them.
const USERS: [(&str, &str, &str, Role, &[&str]); 5] = [
    ("owner", "test", "tester", Role::Owner, &[]),
    ("member", "test", "tester3", Role::Member, &[]),
    ("other", "test2", "tester2", Role::Owner, &[]),
    ("service", "test5", "tester5", Role::Member, &["service"]),
    ("reseller", "admin", "admin", Role::Reseller, &[]),
];

pub(crate) const PASSWORD: &str = "testing";

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) clock: SimClock,
    pub(crate) server: Server<Swift>,
    pub(crate) device: Arc<MemoryDevice>,
    namespace: Namespace,
    tokens: Mutex<HashMap<String, String>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(gateway::Config::default()).await
    }

    pub(crate) async fn with(config: gateway::Config) -> Self {
        let (env, _, clock) = testkit::env(7, 1 << 20);
        let shards = Arc::new(Shards::volatile(&env, 2));
        let device = Arc::new(MemoryDevice::new(DeviceId(1)));
        let map = Current::new(Map::default().with_devices([DeviceId(1)]));
        let devices = chunks::here([device.clone() as Arc<dyn chunks::Storage>]);
        let namespace = Namespace::open(env.clone(), shards, map, devices, Default::default());
        let swift = Swift::new(namespace.clone(), env.clone(), Default::default());
        let server = Server::new(config, env, swift.await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener, std::future::pending()).await }
        });
        Self {
            address,
            clock,
            server,
            device,
            namespace,
            tokens: Mutex::default(),
        }
    }

    /// The token of one of the users, who is made when first named: passwords are slow by design.
    pub(crate) async fn token(&self, name: &str) -> String {
        if let Some(token) = self.tokens.lock().get(name) {
            return token.clone();
        }
        let found = USERS.iter().find(|(known, ..)| *known == name);
        let (_, account, user, role, groups) = found.unwrap_or_else(|| panic!("no user {name}"));
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let users = self.namespace.users();
        users
            .put(account, user, *role, groups, PASSWORD)
            .await
            .unwrap();
        let token = self.authenticate(account, user).await;
        self.tokens.lock().insert(name.to_owned(), token.clone());
        token
    }

    async fn authenticate(&self, account: &str, user: &str) -> String {
        let head = format!(
            "GET /auth/v1.0 HTTP/1.1\r\nX-Auth-User: {account}:{user}\r\n\
             X-Auth-Key: {PASSWORD}\r\nConnection: close\r\n\r\n"
        );
        let answer = self.exchange(head.as_bytes()).await;
        let mut lines = answer.lines();
        let token = lines.find_map(|line| line.strip_prefix("X-Auth-Token: "));
        token.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request, which should ask for the connection to be closed, and reads all that comes.
    pub(crate) async fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        // It may be refused before it is read to its end.
        let _ = client.write_all(request).await;
        rest(&mut client).await
    }

    /// Waits until all that was given up is deleted.
    pub(crate) async fn settle(&self) {
        self.namespace.chunks().settle().await;
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        assert!(self.clock.monotonic() >= time);
    }
}

/// All that comes until the server closes.
pub(crate) async fn rest(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
