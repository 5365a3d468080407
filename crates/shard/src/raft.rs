//! What openraft needs to know of us: its types, and the parts that it drives.
//!
//! A commit makes these hops: the task that executes hands the entry to openraft's core task; that
//! gives it to the log's writer thread and waits; the writer wakes it again, it hands the entry to
//! the state machine's task, and that completes all procedures in the entry. All are shared by
//! whatever travels in the entry.

mod codec;
mod log;
mod machine;
mod network;
mod proposal;
mod snapshot;

pub(crate) use codec::{LogRecord, Memo};
pub(crate) use log::{Cache, LogStore};
pub(crate) use machine::StateMachine;
pub(crate) use network::NoNetwork;
pub(crate) use proposal::{Local, Proposal, Slot, Waiter};
pub(crate) use snapshot::{SnapshotData, Spool, rows as snapshot_rows};

openraft::declare_raft_types!(
    /// Openraft's types as we use them.
    pub(crate) Types:
        D = Proposal,
        R = (),
        NodeId = NodeId,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = SnapshotData,
);

/// A voter of a shard: the replica on one device.
pub(crate) type NodeId = u64;
pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, openraft::EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, openraft::EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::EmptyNode>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
