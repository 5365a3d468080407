//! The network of a cluster of one: nobody is there.

use std::future::Future;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, Snapshot};

use super::{NodeId, Types, Vote};

/// Answers every call with "unreachable".
pub(crate) struct NoNetwork;

#[derive(Debug, thiserror::Error)]
#[error("there is no network between nodes yet")]
struct NoPeers;

type CallError = RPCError<NodeId, EmptyNode, RaftError<NodeId>>;

impl RaftNetworkFactory<Types> for NoNetwork {
    type Network = Self;

    async fn new_client(&mut self, _target: NodeId, _node: &EmptyNode) -> Self {
        Self
    }
}

impl RaftNetwork<Types> for NoNetwork {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError> {
        Err(RPCError::Unreachable(Unreachable::new(&NoPeers)))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, CallError> {
        Err(RPCError::Unreachable(Unreachable::new(&NoPeers)))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        Err(StreamingError::Unreachable(Unreachable::new(&NoPeers)))
    }
}
