//! Some nodes with a device in memory each, and what they need to be a cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::env::Env;
use base::{ChunkId, DeviceId, GroupId, NodeId};
use bytes::Bytes;
use map::{Current, Device, Epoch, Fill, Group, Map, Member, Node, Policy, State};
use rpc::{Authority, Call, Listener, NodeKey, Peers, Service};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::remote::{AllDevices, Server};
use crate::testing::{MemoryDevice, label};
use crate::{Chunks, Config, Devices, Fence, Fenced, Span, Storage};

pub(super) const CHUNKS: u16 = 3;

/// A node and its only device, whose id is the node's number.
pub(super) struct TestNode {
    pub(super) map: Current,
    pub(super) device: Arc<MemoryDevice>,
    pub(super) fence: Arc<Fence>,
    pub(super) server: Server,
    pub(super) all: Arc<AllDevices>,
    pub(super) chunks: Chunks,
    /// Of other nodes, so far.
    pub(super) calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl TestNode {
    /// Its process dies.
    pub(super) async fn kill(&mut self) {
        self.serving.abort();
        (&mut self.serving).await.unwrap_err();
    }

    /// A device as this node reaches it.
    pub(super) fn device(&self, id: u128) -> Arc<dyn Storage> {
        self.all.get(DeviceId(id)).unwrap()
    }

    /// Makes another map the newest one.
    pub(super) fn change(&self, change: impl FnOnce(&mut Map)) {
        let mut map = (*self.map.get()).clone();
        map.epoch = map.epoch.next();
        change(&mut map);
        assert!(self.map.advance(map));
    }
}

struct Port {
    server: Server,
    calls: Arc<AtomicUsize>,
}

impl Service for Port {
    fn admits(&self, _: NodeId) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        assert_eq!(call.service, CHUNKS);
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.server.serve(call.body).await
    }

    async fn join(&self, _: SocketAddr, _: Bytes) -> Result<Bytes, Bytes> {
        Err(Bytes::new())
    }
}

/// A group of full members; the first of a map's groups is preferred.
pub(super) fn group(number: u32, epoch: Epoch, members: &[u128]) -> Group {
    let members = members.iter().map(|id| Member {
        index: 0,
        device: DeviceId(*id),
        fill: Fill::Full,
    });
    Group {
        policy: Policy::Replicated { copies: 3 },
        epoch,
        members: members.collect(),
        is_spare: number > 0,
    }
}

fn map(nodes: u32, groups: &[&[u128]]) -> Map {
    let mut map = Map {
        epoch: Epoch(1),
        ..Map::default()
    };
    for number in 1..=nodes {
        map.nodes.insert(NodeId(number), Node::default());
        let device = Device {
            node: NodeId(number),
            bytes: 1 << 40,
            bytes_free: 1 << 39,
            state: State::Up,
            is_draining: false,
        };
        map.devices.insert(DeviceId(number.into()), device);
    }
    for (number, members) in (0..).zip(groups) {
        let group = group(number, map.epoch, members);
        map.groups.insert(GroupId(number), group);
    }
    map
}

/// So many nodes, and these groups of devices.
pub(super) async fn nodes(count: u32, groups: &[&[u128]]) -> Vec<TestNode> {
    let authority = Authority::new(1).unwrap();
    let mut ports = Vec::new();
    let mut addresses = HashMap::new();
    for number in 1..=count {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.insert(NodeId(number), port.local_addr().unwrap());
        ports.push((NodeId(number), port));
    }
    let map = map(count, groups);
    let starts = ports.into_iter().map(|(node, port)| {
        let key = NodeKey::generate().unwrap();
        let certificate = authority.sign(node, key.public()).unwrap();
        let certified = key.certified(certificate, authority.certificate().to_vec());
        let (addresses, credentials) = (addresses.clone(), certified.unwrap());
        let resolver = move |node| addresses.get(&node).copied();
        let peers = Peers::new(&credentials, rpc::Config::default(), resolver).unwrap();
        let map = Current::new(map.clone());
        let fence = Arc::new(Fence::new(map.clone()));
        fence.open();
        let device = Arc::new(MemoryDevice::new(DeviceId(node.0.into())));
        let server = Server::new([Arc::new(Fenced::new(device.clone(), fence.clone()))]);
        let all = AllDevices::new(node, server.here(), map.clone(), peers, CHUNKS);
        let all = Arc::new(all);
        let config = Config::default();
        let chunks = Chunks::new(Env::real(), map.clone(), all.clone(), &config);
        let calls = Arc::new(AtomicUsize::new(0));
        let service = Port {
            server: server.clone(),
            calls: calls.clone(),
        };
        let listener = Listener::new(port, &credentials, rpc::Config::default(), service);
        let listener = listener.unwrap();
        let serving = tokio::spawn(async move {
            listener.serve(std::future::pending()).await;
        });
        TestNode {
            map,
            device,
            fence,
            server,
            all,
            chunks,
            calls,
            serving,
        }
    });
    starts.collect()
}

/// A body of so many bytes, no two pieces of which are alike.
pub(super) fn body(len: usize) -> Bytes {
    let numbers = 0..u32::try_from(len).unwrap().div_ceil(4);
    let bytes = numbers.flat_map(u32::to_le_bytes).take(len);
    bytes.collect()
}

/// Writes a body of one chunk.
pub(super) async fn write(chunks: &Chunks, body: &Bytes) -> Result<crate::Chunk, crate::Error> {
    let mut writer = chunks.writer(label("o").owner, Map::POLICY);
    let mut body = body.clone();
    while !body.is_empty() {
        let piece = body.split_to(body.len().min(crate::PIECE_BYTES));
        writer.push(piece).await?;
    }
    let written = writer.finish().await?;
    assert_eq!(written.len(), 1);
    Ok(written[0])
}

/// The device that is asked first.
pub(super) async fn first_source(chunks: &Chunks, chunk: ChunkId) -> DeviceId {
    let group = chunks.group(chunk.group()).await.unwrap();
    chunks.sources(&group, chunk)[0]
}

pub(super) async fn read(chunks: &Chunks, chunk: crate::Chunk) -> Result<Bytes, crate::Error> {
    let mut reader = chunks.reader();
    reader.push(Span {
        chunk,
        range: 0..chunk.bytes,
    });
    let mut got = Vec::new();
    while let Some(piece) = reader.next().await {
        got.extend_from_slice(&piece?);
    }
    Ok(got.into())
}
