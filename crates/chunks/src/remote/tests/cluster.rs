//! What a cluster does with chunks, through any of its nodes.

use std::sync::atomic::Ordering;

use base::{GroupId, NodeId, Timestamp};
use map::State;

use super::world::{body, first_source, group, nodes, read, write};
use crate::{Error, Storage as _};

#[tokio::test]
async fn a_chunk_is_written_and_read_through_a_node_that_has_none() {
    let nodes = nodes(4, &[&[1, 2, 3]]).await;
    for len in [1, 100, crate::PIECE_BYTES + 1, crate::CHUNK_BYTES_MAX] {
        let body = body(len);
        let chunk = write(&nodes[3].chunks, &body).await.unwrap();
        for node in &nodes[..3] {
            assert!(node.device.chunks().iter().any(|one| one.0 == chunk.id));
        }
        for node in &nodes {
            assert!(read(&node.chunks, chunk).await.unwrap() == body, "{len}");
        }
    }
    assert_eq!(nodes[3].device.chunks().len(), 0);
}

/// All members are asked before any has answered, and once.
#[tokio::test]
async fn a_write_costs_one_trip_and_one_write_of_each_member() {
    let nodes = nodes(4, &[&[1, 2, 3]]).await;
    let calls = || -> Vec<_> {
        let calls = nodes.iter().map(|node| node.calls.load(Ordering::SeqCst));
        calls.collect()
    };
    for node in &nodes[..3] {
        node.device.hang_writes();
    }
    let body = body(300_000);
    let write = async {
        let chunk = write(&nodes[3].chunks, &body).await;
        chunk.unwrap()
    };
    let answer = async {
        while calls() != [1, 1, 1, 0] {
            tokio::task::yield_now().await;
        }
        for node in &nodes[..3] {
            assert_eq!(node.device.chunks(), [], "it has not answered yet");
            node.device.release();
        }
    };
    let (chunk, ()) = tokio::join!(write, answer);
    assert_eq!(calls(), [1, 1, 1, 0]);
    for node in &nodes[..3] {
        let held: Vec<_> = node.device.chunks().iter().map(|one| one.0).collect();
        assert_eq!(held, [chunk.id]);
    }
}

#[tokio::test]
async fn the_own_copy_is_read_and_others_share_the_work() {
    let mut nodes = nodes(4, &[&[1, 2, 3]]).await;
    let body = body(10);
    let mut written = Vec::new();
    for _ in 0..40 {
        written.push(write(&nodes[3].chunks, &body).await.unwrap());
    }
    let mut firsts = std::collections::BTreeSet::new();
    for chunk in &written {
        firsts.insert(first_source(&nodes[3].chunks, chunk.id).await);
        let own = first_source(&nodes[1].chunks, chunk.id).await;
        assert_eq!(own, base::DeviceId(2));
    }
    assert_eq!(firsts.len(), 3);
    nodes[0].kill().await;
    nodes[2].kill().await;
    for chunk in written {
        assert_eq!(read(&nodes[1].chunks, chunk).await.unwrap(), body);
    }
}

#[tokio::test]
async fn a_slow_or_bad_copy_is_made_up_for_by_another() {
    let nodes = nodes(4, &[&[1, 2, 3]]).await;
    let body = body(300_000);
    let chunk = write(&nodes[3].chunks, &body).await.unwrap();
    let first = first_source(&nodes[3].chunks, chunk.id).await;
    let first = nodes.iter().find(|node| node.device.id() == first).unwrap();
    first.device.rot(chunk.id);
    assert_eq!(read(&nodes[3].chunks, chunk).await.unwrap(), body);
    first.device.hang_reads();
    assert_eq!(read(&nodes[3].chunks, chunk).await.unwrap(), body);
    assert!(nodes[3].chunks.metrics().reads_hedged.get() >= 1);
}

#[tokio::test]
async fn what_a_node_takes_down_with_it_goes_to_another_group() {
    let mut nodes = nodes(5, &[&[1, 2, 3], &[2, 3, 5], &[1, 2, 4]]).await;
    let chunks = nodes[4].chunks.clone();
    nodes[2].device.hang_writes();
    let body = body(1 << 20);
    let writing = tokio::spawn({
        let (chunks, body) = (chunks.clone(), body.clone());
        async move { write(&chunks, &body).await }
    });
    nodes[2].device.write_begun().await;
    nodes[2].kill().await;
    let chunk = writing.await.unwrap().unwrap();
    // Not to the second group, in which the dead one is as well.
    assert_eq!(chunk.id.group(), GroupId(2));
    assert_eq!(chunks.metrics().writes_moved.get(), 1);
    assert_eq!(read(&chunks, chunk).await.unwrap(), body);
    chunks.settle().await;
    for at in [0, 1, 3] {
        let ids: Vec<_> = nodes[at].device.chunks().iter().map(|one| one.0).collect();
        assert_eq!(ids, [chunk.id], "the first try is discarded");
    }
}

#[tokio::test]
async fn an_upload_waits_for_the_map_that_goes_on_without_a_dead_node() {
    let mut nodes = nodes(4, &[&[1, 2, 3]]).await;
    nodes[2].device.hang_writes();
    let body = body(1 << 20);
    let writing = tokio::spawn({
        let (chunks, body) = (nodes[3].chunks.clone(), body.clone());
        async move { write(&chunks, &body).await }
    });
    nodes[2].device.write_begun().await;
    nodes[2].kill().await;
    // Maps that change nothing about the dead one do not use up the tries.
    for _ in 0..8 {
        nodes[3].change(|_| ());
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    nodes[3].change(|map| {
        let since = Timestamp::from_secs(1);
        map.nodes.get_mut(&NodeId(3)).unwrap().state = State::Down { since };
    });
    nodes[3].change(|map| {
        map.groups.insert(GroupId(1), group(1, map.epoch, &[1, 2]));
    });
    let chunk = writing.await.unwrap().unwrap();
    assert_eq!(chunk.id.group(), GroupId(1));
    assert_eq!(read(&nodes[3].chunks, chunk).await.unwrap(), body);
}

#[tokio::test]
async fn no_group_to_write_to_is_not_called_a_lack_of_space() {
    let nodes = nodes(1, &[&[1]]).await;
    nodes[0].change(|map| {
        map.groups.insert(GroupId(0), group(0, map.epoch, &[1, 2]));
    });
    let refused = write(&nodes[0].chunks, &body(1)).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_member_that_is_away_keeps_a_chunk_garbage_and_the_others_delete_it() {
    let mut nodes = nodes(4, &[&[1, 2, 3]]).await;
    let chunk = write(&nodes[3].chunks, &body(9)).await.unwrap();
    nodes[0].kill().await;
    for _ in 0..2 {
        let failed = nodes[3].chunks.delete(&[chunk.id]).await;
        assert!(failed.contains(&GroupId(0)));
        let held = nodes.iter().map(|node| node.device.chunks().len());
        assert_eq!(held.collect::<Vec<_>>(), [1, 0, 0, 0]);
    }
    // It leaves the group for good.
    nodes[3].change(|map| {
        map.groups.insert(GroupId(0), group(0, map.epoch, &[2, 3]));
    });
    assert!(nodes[3].chunks.delete(&[chunk.id]).await.is_empty());
}
