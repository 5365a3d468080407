//! Single calls to a device of another node.

use base::{ChunkId, GroupId, NodeId, Timestamp};
use bytes::Bytes;
use map::{Epoch, State};
use proptest::prelude::*;

use super::world::{body, nodes};
use crate::remote::wire;
use crate::testing::label;
use crate::{CHUNK_BYTES_MAX, Description, LIST_MAX, StorageError};

fn id(number: u64) -> ChunkId {
    ChunkId::new(GroupId(0), 1, number)
}

#[tokio::test]
async fn a_writer_with_an_old_map_is_refused_over_there() {
    let nodes = nodes(2, &[&[1]]).await;
    let device = nodes[1].device(1);
    let payload = [body(10)];
    let write = async |epoch, number| {
        let label = label("o");
        let written = device.write(Epoch(epoch), id(number), &label, &payload);
        written.await
    };
    write(1, 1).await.unwrap();
    nodes[0].fence.raise(GroupId(0), Epoch(5)).await;
    assert_eq!(write(4, 2).await, Err(StorageError::Stale));
    write(5, 3).await.unwrap();
    nodes[0].fence.close();
    let closed = write(5, 4).await.unwrap_err();
    assert!(matches!(closed, StorageError::Unavailable(_)), "{closed}");
    nodes[0].fence.open();
    nodes[0].device.fail_writes(Some(device::Error::Full));
    assert_eq!(write(5, 5).await, Err(StorageError::Full));
    assert_eq!(nodes[0].device.chunks().len(), 2);
}

#[tokio::test]
async fn lists_come_in_pages_and_deletes_may_be_repeated() {
    let nodes = nodes(2, &[&[1]]).await;
    let device = nodes[1].device(1);
    let all: Vec<ChunkId> = (0..40_000).map(id).collect();
    for id in &all {
        let chunk = (label("o"), Bytes::from_static(b"x"));
        nodes[0].device.set(*id, Some(chunk));
    }
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let page = device.list(GroupId(0), after).await.unwrap();
        assert!(page.len() <= LIST_MAX);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        listed.extend(page);
    }
    assert!(listed == all);
    assert_eq!(device.list(GroupId(1), None).await, Ok(vec![]));
    let expected = Description {
        label: label("o"),
        bytes: 1,
    };
    assert_eq!(device.describe(id(7)).await, Ok(expected));
    // More than one call takes.
    device.delete(&all).await.unwrap();
    assert_eq!(nodes[0].device.chunks().len(), 0);
    device.delete(&all).await.unwrap();
    assert_eq!(device.describe(id(7)).await, Err(StorageError::Missing));
    assert_eq!(
        device.read(id(7), None, 0..1).await,
        Err(StorageError::Missing)
    );
}

#[tokio::test]
async fn the_reasons_of_a_device_arrive_as_they_are() {
    let nodes = nodes(2, &[&[1]]).await;
    let device = nodes[1].device(1);
    nodes[0].device.set(id(1), Some((label("o"), body(9))));
    assert_eq!(device.read(id(1), None, 2..9).await, Ok(body(9).slice(2..)));
    nodes[0].device.rot(id(1));
    let rotten = Err(StorageError::Damaged("rot".into()));
    assert_eq!(device.read(id(1), None, 0..9).await, rotten);
    let closed = device::Error::Closed;
    nodes[0].device.fail_deletes(Some(closed.clone()));
    let expected = StorageError::Unavailable(closed.to_string());
    assert_eq!(device.delete(&[id(1)]).await, Err(expected));
}

#[tokio::test]
async fn what_was_not_reached_did_not_happen() {
    let mut nodes = nodes(3, &[&[1]]).await;
    let unreached = |written: Result<(), StorageError>| {
        assert!(
            matches!(written, Err(StorageError::Unreached(_))),
            "{written:?}"
        );
    };
    // The map here thinks that the device has moved to a node that does not have it.
    nodes[1].change(|map| map.devices.get_mut(&base::DeviceId(1)).unwrap().node = NodeId(3));
    let device = nodes[1].device(1);
    let payload = [body(1)];
    unreached(device.write(Epoch(1), id(1), &label("o"), &payload).await);
    nodes[1].change(|map| map.devices.get_mut(&base::DeviceId(1)).unwrap().node = NodeId(1));
    device
        .write(Epoch(1), id(1), &label("o"), &payload)
        .await
        .unwrap();
    nodes[0].kill().await;
    // The broken connection is noticed with the first call at the latest.
    let _ = device.describe(id(1)).await;
    unreached(device.write(Epoch(1), id(2), &label("o"), &payload).await);
    nodes[1].change(|map| {
        map.devices.remove(&base::DeviceId(1));
    });
    unreached(device.write(Epoch(1), id(3), &label("o"), &payload).await);
    assert_eq!(nodes[0].device.chunks().len(), 1);
}

#[tokio::test]
async fn free_space_is_what_the_map_says() {
    let nodes = nodes(2, &[&[1]]).await;
    let device = nodes[1].device(1);
    assert_eq!(device.free_bytes(), Some(1 << 39));
    nodes[1].change(|map| {
        let since = Timestamp::from_secs(1);
        map.nodes.get_mut(&NodeId(1)).unwrap().state = State::Down { since };
    });
    assert_eq!(device.free_bytes(), None);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let nodes = nodes(2, &[&[1]]).await;
    let device = nodes[1].device(1);
    for bytes in [CHUNK_BYTES_MAX + 1, 9 << 20] {
        let payload = [Bytes::from(vec![1; bytes])];
        let refused = device.write(Epoch(1), id(1), &label("o"), &payload).await;
        assert!(
            matches!(refused, Err(StorageError::Unreached(_))),
            "{refused:?}"
        );
    }
    let over = device.read(id(1), None, 0..u32::MAX).await;
    assert!(matches!(over, Err(StorageError::Unreached(_))), "{over:?}");
    // The connection has survived.
    let payload = [Bytes::from(vec![1; CHUNK_BYTES_MAX])];
    device
        .write(Epoch(1), id(1), &label("o"), &payload)
        .await
        .unwrap();
}

#[test]
fn any_bytes_are_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let nodes = runtime.block_on(nodes(1, &[&[1]]));
    nodes[0].device.set(id(1), Some((label("o"), body(9))));
    let garbage = (any::<Vec<u8>>(), 0..8u8, 0..3u8, any::<bool>());
    proptest!(|((rest, operation, place, is_there) in garbage)| {
        // What looks like a call gets further than what does not.
        let mut body = vec![1, operation];
        body.extend(u128::from(place).to_le_bytes());
        if is_there {
            body.extend(id(1).0.to_le_bytes());
        }
        body.extend(rest);
        for from in [0, 1, 2] {
            let body = Bytes::copy_from_slice(&body[from..]);
            if let Err(refusal) = runtime.block_on(nodes[0].server.serve(body)) {
                let error = wire::decode_refusal(&refusal);
                prop_assert_eq!(wire::encode_refusal(error), refusal);
            }
        }
    });
}
