//! What membership asks of the Raft groups of this node.

use base::{DeviceId, ShardId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use shard::{Error, Led, ReplicaId};

/// The Raft groups of this node.
pub trait Replication: Send + Sync + 'static {
    /// The replicas that are here.
    fn local(&self) -> Vec<(DeviceId, ShardId)>;

    /// Makes an empty replica that waits for a leader. One that is there stays as it is. It is waited for to its end,
    /// as is the destruction.
    fn create(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<ReplicaId, Error>>;

    /// Ends a replica and deletes what it holds; one that is not there changes nothing.
    fn destroy(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<(), Error>>;

    /// The shards that this node leads, as far as it knows.
    fn led(&self) -> Vec<Led>;

    /// Proves, by asking a quorum, that this node led the shard after the call began.
    fn prove(&self, shard: ShardId) -> BoxFuture<'_, Result<(), Error>>;

    /// Makes these the replicas of a shard that this node leads in this term, by joint consensus; in
    /// another term it is refused, because what was decided then may be out of date. On `Ok` it is
    /// committed.
    fn set_membership(
        &self,
        shard: ShardId,
        term: u64,
        voters: Vec<(DeviceId, ReplicaId)>,
        learners: Vec<(DeviceId, ReplicaId)>,
    ) -> BoxFuture<'_, Result<(), Error>>;

    /// Asks a voter to take over a shard that this node leads.
    fn transfer(&self, shard: ShardId, to: DeviceId) -> BoxFuture<'_, Result<(), Error>>;

    /// A message of Raft for a replica of this node. It may be lost. Gives what the replica has to say to it at
    /// once, and the device of the replica to which it says it.
    fn receive(
        &self,
        device: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)>;

    /// A piece of a snapshot for a replica of this node; gives the answer.
    ///
    /// # Cancel safety
    /// The future is dropped when the sender has gone, as that of [`Replication::answer`].
    fn receive_piece(
        &self,
        device: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>>;

    /// Runs an encoded procedure or query on a shard that `device` is thought to lead; gives the encoded
    /// answer.
    fn answer(
        &self,
        device: DeviceId,
        shard: ShardId,
        name: String,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>>;
}
