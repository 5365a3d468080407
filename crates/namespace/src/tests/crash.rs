//! What is left when a process dies in the middle.

use std::collections::BTreeSet;
use std::time::Duration;

use base::ContainerId;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};

use super::disk::End;
use super::world::{LIMITS, World};
use crate::sweep::Sweeper;
use crate::{Config, Created, Entry, Error, ListQuery, MetadataChange, PostObject, placement};

/// What was acknowledged must be there, and what was not is as it was.
async fn power_cut(world: &mut World) {
    world.restart(End::PowerCut(3)).await;
}

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
    for mut world in World::both().await {
        for name in ["a-dead", "b-dead", "b-dead-too", "c-dead", "live", "z-dead"] {
            half_make(&world, name).await;
        }
        world.container("b-live").await;
        world.container("live").await;
        power_cut(&mut world).await;
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
        let report = world.check_stopped().await;
        assert_eq!((report.leftover_lines, report.problems_total), (6, 0));
    }
}

#[tokio::test]
async fn lines_that_lead_nowhere_are_swept_when_nobody_can_be_at_work_on_them() {
    for mut world in World::both().await {
        for name in ["dead", "live"] {
            half_make(&world, name).await;
        }
        world.container("live").await;
        power_cut(&mut world).await;
        let sweep = async |world: &World| {
            for shard in world.namespace.shard_ids() {
                let mut sweeper = Sweeper::default();
                while sweeper.round(&world.namespace, shard).await.unwrap() {}
            }
        };
        sweep(&world).await;
        assert_eq!(world.check_stopped().await.leftover_lines, 2);
        world.clock.advance(Duration::from_secs(121));
        sweep(&world).await;
        power_cut(&mut world).await;
        let report = world.check_stopped().await;
        assert_eq!((report.leftover_lines, report.problems_total), (0, 0));
        assert_eq!(report.containers, 1);
    }
}

#[tokio::test]
async fn an_account_with_a_half_made_container_is_deleted_a_little_later() {
    for mut world in World::both().await {
        half_make(&world, "dead").await;
        power_cut(&mut world).await;
        let delete = world.namespace.delete_account("a").await;
        assert!(
            matches!(delete, Err(Error::Unavailable { .. })),
            "{delete:?}"
        );
        world.clock.advance(Duration::from_secs(121));
        world.namespace.delete_account("a").await.unwrap();
        power_cut(&mut world).await;
        assert_eq!(world.check_stopped().await.leftover_lines, 0);
    }
}

#[tokio::test]
async fn a_name_whose_making_was_interrupted_can_be_made() {
    for mut world in World::both().await {
        half_make(&world, "c").await;
        power_cut(&mut world).await;
        let change = MetadataChange::default();
        let put =
            world
                .namespace
                .put_container("a", "c", change, LIMITS, crate::PolicyChoice::default());
        assert_eq!(put.await, Ok(Created::New));
        power_cut(&mut world).await;
        let query = ListQuery {
            limit: 9,
            ..ListQuery::default()
        };
        assert_eq!(listed(&world, &query).await, ["c"]);
    }
}

#[tokio::test]
async fn an_interrupted_upload_leaves_chunks_that_nobody_owns() {
    let mut world = World::new(1).await;
    let container = world.container("c").await;
    let mut upload = world.namespace.upload(&container, "o");
    upload.write(vec![1; 100_000].into()).await.unwrap();
    let stored = upload.finish().await.unwrap();
    let (chunk, label, _) = world
        .devices
        .iter()
        .flat_map(|device| device.chunks())
        .next()
        .unwrap();
    assert_eq!(
        world.namespace.owns(&label.owner, chunk).await,
        crate::Owns::Yes
    );
    // A process that dies runs no destructors.
    std::mem::forget(stored);
    world.reopen().await;
    assert_eq!(
        world.namespace.owns(&label.owner, chunk).await,
        crate::Owns::No
    );
    let report = world.check().await;
    assert_eq!((report.leftover_records, report.problems_total), (1, 0));
}

/// A step of the story below, and what it does.
pub(super) type Step = (
    &'static str,
    for<'a> fn(&'a World) -> BoxFuture<'a, Result<(), Error>>,
);

/// Changes of every kind: inline bodies and chunks, overwritten both ways, and all removed again.
pub(super) const STEPS: [Step; 9] = [
    ("make", |world| {
        let change = MetadataChange::default();
        let made =
            world
                .namespace
                .put_container("a", "c", change, LIMITS, crate::PolicyChoice::default());
        made.map_ok(drop).boxed()
    }),
    ("small", |world| put(world, 10)),
    ("large", |world| put(world, 300_000)),
    ("other", |world| put(world, 200_000)),
    ("tiny", |world| put(world, 1)),
    ("again", |world| put(world, 17_000)),
    ("post", |world| {
        async {
            let container = world.namespace.container("a", "c").await?;
            let post = PostObject {
                name: "o".to_owned(),
                content_type: None,
                metadata: crate::Metadata::new(),
                delete_at: Some(4_000_000_000),
                expired: crate::Expired::Hide,
            };
            world.namespace.post_object(&container, post).await
        }
        .boxed()
    }),
    ("delete", |world| {
        async {
            let container = world.namespace.container("a", "c").await?;
            let deleted = world
                .namespace
                .delete_object(&container, "o", Default::default(), None);
            deleted.await
        }
        .boxed()
    }),
    ("unmake", |world| {
        world.namespace.delete_container("a", "c").boxed()
    }),
];

pub(super) fn put(world: &World, len: usize) -> BoxFuture<'_, Result<(), Error>> {
    async move {
        let container = world.namespace.container("a", "c").await?;
        world.put(&container, "o", &body(len)).await.map(drop)
    }
    .boxed()
}

pub(super) fn body(len: usize) -> Vec<u8> {
    testkit::Random::new(len as u64).bytes(len)
}

/// What is there after so many steps: no container, no object, or an object of this length.
pub(super) fn state(steps: usize) -> Option<Option<usize>> {
    match steps {
        0 | 9 => None,
        1 | 8 => Some(None),
        2 => Some(Some(10)),
        3 => Some(Some(300_000)),
        4 => Some(Some(200_000)),
        5 => Some(Some(1)),
        _ => Some(Some(17_000)),
    }
}

pub(super) async fn found(world: &World) -> Option<Option<usize>> {
    let container = world.namespace.container("a", "c").await.ok()?;
    Some(match world.get(&container, "o").await {
        Ok(found) => {
            assert!(found == body(found.len()), "{} bytes", found.len());
            Some(found.len())
        }
        Err(error) => {
            assert_eq!(error, Error::NotFound(crate::Missing::Object));
            None
        }
    })
}

#[tokio::test]
async fn the_power_may_go_at_any_call() {
    let mut cut_in = BTreeSet::new();
    for n in 0.. {
        let mut world = World::on_disk(n, Config::default()).await;
        let disk = world.on_disk.as_ref().unwrap().disk.clone();
        disk.power_off_at(n);
        let mut done = 0;
        for (_, step) in STEPS {
            if step(&world).await.is_err() {
                break;
            }
            done += 1;
        }
        if done == STEPS.len() {
            break;
        }
        cut_in.insert(STEPS[done].0);
        world.restart(End::PowerCut(n)).await;
        let report = world.check_stopped().await;
        assert_eq!(report.problems, [], "call {n}, in {}", STEPS[done].0);
        let found = found(&world).await;
        assert!(
            found == state(done) || found == state(done + 1),
            "call {n}, in {}: {found:?}",
            STEPS[done].0
        );
        // And it goes on from there.
        world.container("c").await;
        put(&world, 30_000).await.unwrap();
    }
    assert_eq!(cut_in.len(), STEPS.len(), "{cut_in:?}");
}
