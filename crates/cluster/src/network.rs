//! From a device's id to the node that has it: messages of Raft, pieces of snapshots, calls.
//!
//! Messages of Raft are small, many, and need not arrive: they wait in one queue for each node, and a task that
//! lives as long as the queue is not empty sends what waits as one call, a few calls at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{DeviceId, NodeId, ShardId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use map::Current;
use parking_lot::Mutex;
use rpc::{CallError, Lane, Peers};
use shard::Error;
use tokio::time::Instant;

use crate::replication::Replication;
use crate::wire;

/// What may wait for one node: more than Raft has in flight for all shards of a node. The rest is lost, and
/// Raft sends it again.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// One call takes so much: well below what the small lane takes.
const BATCH_BYTES_MAX: usize = 960 << 10;

/// Batches on their way to one node: one is on the wire while another is handled, and none waits for a slow
/// one.
const BATCHES_MAX: usize = 4;

/// A message that is older is of no use: its sender has given up.
const MESSAGE_LIFE: Duration = Duration::from_secs(1);

/// A piece is a few megabytes, and is written to disk before it is answered.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);

/// A commit waits for disks and a quorum; a caller that has less time gives up by itself.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// After something that could not be sent.
const SOON: Duration = Duration::from_millis(200);

/// The way to the replicas on other nodes, and back to those of this one, by the node port. Cheap to clone.
#[derive(Clone)]
pub struct Wires {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    map: Current,
    peers: Peers,
    /// The replicas of this node, which may have these wires themselves; none before they are given.
    here: Mutex<Option<Weak<dyn Replication>>>,
    queues: Mutex<HashMap<NodeId, Queue>>,
}

/// What waits for a node; there is a task that sends it.
#[derive(Default)]
struct Queue {
    messages: Vec<(DeviceId, ShardId, Bytes)>,
    bytes: usize,
}

impl Wires {
    pub fn new(node: NodeId, map: Current, peers: Peers) -> Self {
        Self {
            inner: Arc::new(Inner {
                node,
                map,
                peers,
                here: Mutex::default(),
                queues: Mutex::default(),
            }),
        }
    }

    /// Where messages to devices of this node go, as long as somebody else keeps it.
    pub fn connect(&self, replication: &Arc<dyn Replication>) {
        *self.inner.here.lock() = Some(Arc::downgrade(replication));
    }

    /// The node that has a device, by the newest map.
    fn node_of(&self, device: DeviceId) -> Option<NodeId> {
        let map = self.inner.map.load();
        map.devices.get(&device).map(|device| device.node)
    }

    fn here(&self) -> Option<Arc<dyn Replication>> {
        self.inner.here.lock().as_ref()?.upgrade()
    }

    /// Puts a message into the queue of a node, and starts to send if nobody does.
    fn enqueue(&self, node: NodeId, device: DeviceId, shard: ShardId, message: Bytes) {
        let bytes = message.len() + wire::MESSAGE_HEAD_BYTES;
        if bytes > BATCH_BYTES_MAX {
            tracing::error!(%shard, bytes, "a message of Raft is too long to be sent");
            return;
        }
        let mut queues = self.inner.queues.lock();
        let is_new = !queues.contains_key(&node);
        let queue = queues.entry(node).or_default();
        if queue.bytes + bytes > QUEUE_BYTES_MAX {
            return;
        }
        queue.bytes += bytes;
        queue.messages.push((device, shard, message));
        drop(queues);
        if is_new {
            tokio::spawn(self.clone().drain(node));
        }
    }

    /// Sends what waits for a node until nothing does.
    async fn drain(self, node: NodeId) {
        let mut sending = FuturesUnordered::new();
        loop {
            while sending.len() < BATCHES_MAX {
                let Some(batch) = self.batch(node, sending.is_empty()) else {
                    break;
                };
                sending.push(self.send_batch(node, batch));
            }
            if sending.next().await.is_none() {
                return;
            }
        }
    }

    async fn send_batch(&self, node: NodeId, batch: Vec<Bytes>) {
        let deadline = Instant::now() + MESSAGE_LIFE;
        let peers = &self.inner.peers;
        let sent = peers.call(node, Lane::Small, wire::RAFT, batch, deadline);
        match sent.await {
            Ok(answers) => self.answered(node, answers),
            Err(error) => tracing::debug!(%node, %error, "messages of Raft were lost"),
        }
    }

    /// Delivers what a node had to say at once.
    fn answered(&self, node: NodeId, answers: Bytes) {
        let Some(here) = self.here() else {
            return;
        };
        let messages = wire::messages(answers).unwrap_or_else(|why| {
            tracing::warn!(%node, %why, "an answer to messages of Raft was not understood");
            Vec::new()
        });
        for (device, shard, message) in messages {
            if let Some((to, answer)) = here.receive(device, shard, message) {
                self.send(to, shard, answer);
            }
        }
    }

    /// What is to be sent next. If nothing waits, and this is the end, the queue is removed.
    fn batch(&self, node: NodeId, is_end: bool) -> Option<Vec<Bytes>> {
        let mut queues = self.inner.queues.lock();
        let queue = queues.get_mut(&node)?;
        if queue.messages.is_empty() {
            if is_end {
                queues.remove(&node);
            }
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for (_, _, message) in &queue.messages {
            let more = message.len() + wire::MESSAGE_HEAD_BYTES;
            if bytes + more > BATCH_BYTES_MAX {
                break;
            }
            bytes += more;
            count += 1;
        }
        queue.bytes -= bytes;
        let messages = queue.messages.drain(..count);
        let pieces = messages.flat_map(|(device, shard, message)| {
            [wire::message_head(device, shard, &message), message]
        });
        Some(pieces.collect())
    }

    /// Asks the node of a device for something that its shard answers.
    async fn ask(
        &self,
        node: NodeId,
        lane: Lane,
        service: u16,
        body: Vec<Bytes>,
        time_max: Duration,
    ) -> Result<Bytes, Error> {
        let deadline = Instant::now() + time_max;
        let peers = &self.inner.peers;
        match peers.call(node, lane, service, body, deadline).await {
            Ok(answer) => Ok(answer),
            Err(CallError::NotSent(fault)) => {
                tracing::debug!(%node, service, %fault, "not sent");
                Err(Error::Unavailable { retry_in: SOON })
            }
            Err(CallError::Unknown(fault)) => {
                tracing::debug!(%node, service, %fault, "sent, and not answered");
                Err(Error::Unknown)
            }
            Err(CallError::Refused(error)) => Err(wire::decode(&error).unwrap_or(Error::Unknown)),
        }
    }
}

/// What [`shard::Peers`] asks for, by the newest map.
impl Wires {
    /// See [`shard::Peers::send`].
    pub fn send(&self, to: DeviceId, shard: ShardId, message: Bytes) {
        match (self.node_of(to), self.here()) {
            (Some(node), Some(here)) if node == self.inner.node => {
                if let Some((to, answer)) = here.receive(to, shard, message) {
                    self.send(to, shard, answer);
                }
            }
            (Some(node), _) if node != self.inner.node => self.enqueue(node, to, shard, message),
            (Some(_) | None, _) => {}
        }
    }

    /// See [`shard::Peers::send_piece`].
    pub fn send_piece(
        &self,
        to: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            match (self.node_of(to), self.here()) {
                (Some(node), Some(here)) if node == self.inner.node => {
                    here.receive_piece(to, shard, piece).await
                }
                (Some(node), _) if node != self.inner.node => {
                    let body = vec![wire::address(to, shard), piece];
                    let time_max = PIECE_TIME_MAX;
                    self.ask(node, Lane::Bulk, wire::PIECE, body, time_max)
                        .await
                }
                (Some(_) | None, _) => Err(Error::Unavailable { retry_in: SOON }),
            }
        }
        .boxed()
    }

    /// See [`shard::Peers::call`].
    pub fn call(
        &self,
        to: DeviceId,
        shard: ShardId,
        name: String,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            match (self.node_of(to), self.here()) {
                (Some(node), Some(here)) if node == self.inner.node => {
                    here.answer(to, shard, name, call).await
                }
                (Some(node), _) if node != self.inner.node => {
                    let body = vec![wire::address(to, shard), wire::name(&name), call];
                    let time_max = CALL_TIME_MAX;
                    self.ask(node, Lane::Small, wire::CALL, body, time_max)
                        .await
                }
                (Some(_) | None, _) => Err(Error::Unavailable { retry_in: SOON }),
            }
        }
        .boxed()
    }
}
