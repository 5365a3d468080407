//! Nodes in one process that call each other over real sockets.

mod calls;
mod cluster;
mod world;

use base::{DeviceId, NodeId};
use rpc::{CallError, Fault};

use super::{no_answer, wire};
use crate::StorageError;

#[test]
fn only_a_node_that_is_there_has_a_device_that_hangs() {
    let error = |error: CallError| no_answer(DeviceId(1), NodeId(1), &error);
    let hangs = error(CallError::Unknown(Fault::Deadline));
    assert_eq!(hangs, StorageError::Overdue);
    // There was no room on the connection.
    let unreached = error(CallError::NotSent(Fault::Deadline));
    assert!(matches!(unreached, StorageError::Unreached(_)));
    let gone = error(CallError::Unknown(Fault::Stopping));
    assert!(matches!(gone, StorageError::Unavailable(_)));
    let full = wire::encode_refusal(StorageError::Full);
    assert_eq!(error(CallError::Refused(full)), StorageError::Full);
}
