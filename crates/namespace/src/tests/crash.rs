//! What is left when a process dies in the middle.

use std::time::Duration;

use base::ContainerId;

use super::world::World;
use crate::sweep::Sweeper;
use crate::{Created, Entry, Error, ListQuery, MetadataChange, placement};

/// The lines of the account's list, as they are shown.
async fn listed(world: &World, query: &ListQuery) -> Vec<String> {
    let entries = world.namespace.list_containers("a", query).await.unwrap();
    let names = entries.into_iter().map(|entry| match entry {
        Entry::Row(row) => row.name,
        Entry::Subdir(subdir) => format!("[{subdir}]"),
    });
    names.collect()
}

/// An id that a container of this name could have.
fn id(world: &World, name: &str) -> ContainerId {
    let shard = placement::of_container("a", name, world.shards.count());
    placement::container_id(shard, 7 << 20)
}

/// Lists a container that is not made then.
async fn half_make(world: &World, name: &str) {
    let listed = world.namespace.list_container("a", name, id(world, name));
    listed.await.unwrap();
}

#[tokio::test]
async fn a_half_made_container_is_seen_by_nobody() {
    let world = World::new(1).await;
    for name in ["a-dead", "b-dead", "b-dead-too", "c-dead", "live", "z-dead"] {
        half_make(&world, name).await;
    }
    world.container("b-live").await;
    world.container("live").await;
    let query = |limit, delimiter: &str, reverse| ListQuery {
        limit,
        delimiter: delimiter.to_owned(),
        reverse,
        ..ListQuery::default()
    };
    for limit in [2, 3, 100] {
        assert_eq!(
            listed(&world, &query(limit, "", false)).await,
            ["b-live", "live"]
        );
        assert_eq!(
            listed(&world, &query(limit, "-", false)).await,
            ["[b-]", "live"]
        );
        assert_eq!(
            listed(&world, &query(limit, "-", true)).await,
            ["live", "[b-]"]
        );
    }
    assert_eq!(listed(&world, &query(1, "-", false)).await, ["[b-]"]);
    assert_eq!(listed(&world, &query(1, "", true)).await, ["live"]);
    let report = world.check().await;
    assert_eq!((report.leftover_lines, report.problems_total), (6, 0));
}

#[tokio::test]
async fn lines_that_lead_nowhere_are_swept_when_nobody_can_be_at_work_on_them() {
    let world = World::new(1).await;
    for name in ["dead", "live"] {
        half_make(&world, name).await;
    }
    world.container("live").await;
    let sweep = async || {
        for shard in world.namespace.shard_ids() {
            let mut sweeper = Sweeper::default();
            while sweeper.round(&world.namespace, shard).await.unwrap() {}
        }
    };
    sweep().await;
    assert_eq!(world.check().await.leftover_lines, 2);
    world.clock.advance(Duration::from_secs(121));
    sweep().await;
    let report = world.check().await;
    assert_eq!((report.leftover_lines, report.problems_total), (0, 0));
    assert_eq!(report.containers, 1);
}

#[tokio::test]
async fn an_account_with_a_half_made_container_is_deleted_a_little_later() {
    let world = World::new(1).await;
    half_make(&world, "dead").await;
    let delete = world.namespace.delete_account("a").await;
    assert!(
        matches!(delete, Err(Error::Unavailable { .. })),
        "{delete:?}"
    );
    world.clock.advance(Duration::from_secs(121));
    world.namespace.delete_account("a").await.unwrap();
    assert_eq!(world.check().await.leftover_lines, 0);
}

#[tokio::test]
async fn a_name_whose_making_was_interrupted_can_be_made() {
    let world = World::new(1).await;
    half_make(&world, "c").await;
    let change = MetadataChange::default();
    let put = world
        .namespace
        .put_container("a", "c", change, super::world::LIMITS);
    assert_eq!(put.await, Ok(Created::New));
    let query = ListQuery {
        limit: 9,
        ..ListQuery::default()
    };
    assert_eq!(listed(&world, &query).await, ["c"]);
}

#[tokio::test]
async fn an_interrupted_upload_leaves_chunks_that_nobody_owns() {
    let mut world = World::new(1).await;
    let container = world.container("c").await;
    let mut upload = world.namespace.upload(&container, "o");
    upload.write(vec![1; 100_000].into()).await.unwrap();
    let stored = upload.finish().await.unwrap();
    let (chunk, owner, _) = world
        .devices
        .iter()
        .flat_map(|device| device.chunks())
        .next()
        .unwrap();
    assert_eq!(world.namespace.owns(&owner, chunk).await, crate::Owns::Yes);
    // A process that dies runs no destructors.
    std::mem::forget(stored);
    world.reopen().await;
    assert_eq!(world.namespace.owns(&owner, chunk).await, crate::Owns::No);
    let report = world.check().await;
    assert_eq!((report.leftover_records, report.problems_total), (1, 0));
}
