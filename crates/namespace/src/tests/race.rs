//! Many at once, on several threads.

use std::sync::Arc;

use bytes::Bytes;

use super::world::{LIMITS, World};
use crate::check::Report;
use crate::{Condition, Created, Error, MetadataChange, Missing, Usage};

/// A change of one header.
fn set(name: &str, value: &'static str) -> MetadataChange {
    let value = Some(Bytes::from_static(value.as_bytes()));
    MetadataChange([(name.to_owned(), value)].into())
}

/// Everything fits together when all have gone.
async fn checked(world: Arc<World>) -> Report {
    let mut world = Arc::into_inner(world).expect("all tasks have ended");
    world.check_stopped().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_insist_on_being_first_one_is() {
    for world in World::both().await {
        let world = Arc::new(world);
        let container = world.container("c").await;
        for round in 0..20 {
            let name = format!("o{round}");
            let tries = (0..16u8).map(|number| {
                let (world, container, name) = (world.clone(), container.clone(), name.clone());
                tokio::spawn(async move {
                    // Small and large bodies, which take different ways.
                    let body = vec![number; if number % 2 == 0 { 100 } else { 20_000 }];
                    let absent = |put: &mut crate::PutObject| put.condition = Condition::Absent;
                    world.put_with(&container, &name, &body, absent).await
                })
            });
            let tries = futures_util::future::join_all(tries).await;
            let mut winners = 0;
            for outcome in tries.into_iter().map(Result::unwrap) {
                match outcome {
                    Ok(written) => {
                        assert_eq!(written.created, Created::New);
                        winners += 1;
                    }
                    Err(error) => assert_eq!(error, Error::Precondition),
                }
            }
            assert_eq!(winners, 1);
        }
        // What the losers stored is gone.
        world.namespace.chunks().settle().await;
        assert_eq!(checked(world).await.leftover_records, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_is_deleted_empty_or_not_at_all() {
    for world in World::both().await {
        let world = Arc::new(world);
        for _ in 0..50 {
            let container = world.container("c").await;
            let put = tokio::spawn({
                let (world, container) = (world.clone(), container.clone());
                async move { world.put(&container, "o", b"x").await }
            });
            let deleted = world.namespace.delete_container("a", "c").await;
            match (put.await.unwrap(), deleted) {
                (Ok(_), Err(Error::NotEmpty)) => {
                    let deleted =
                        world
                            .namespace
                            .delete_object(&container, "o", Condition::None, None);
                    deleted.await.unwrap();
                    world.namespace.delete_container("a", "c").await.unwrap();
                }
                (Err(Error::NotFound(Missing::Container)), Ok(())) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(checked(world).await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_add_up_and_a_containers_quota_is_exact() {
    for world in World::both().await {
        let world = Arc::new(world);
        world.container("c").await;
        let quota = set("x-container-meta-quota-bytes", "1000");
        world
            .namespace
            .post_container("a", "c", quota, LIMITS)
            .await
            .unwrap();
        let container = world.namespace.container("a", "c").await.unwrap();
        let tries = (0..64).map(|number| {
            let (world, container) = (world.clone(), container.clone());
            tokio::spawn(async move {
                let name = format!("o{number}");
                world.put(&container, &name, &[0; 100]).await
            })
        });
        let tries = futures_util::future::join_all(tries).await;
        let stored = tries.iter().filter(|one| one.as_ref().unwrap().is_ok());
        assert_eq!(stored.count(), 10);
        let expected = Usage {
            containers: 1,
            objects: 10,
            bytes: 1000,
        };
        assert_eq!(world.namespace.usage("a").await, Ok(expected));
        assert_eq!(checked(world).await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn makers_and_deleters_of_one_name_lose_nothing() {
    for world in World::both().await {
        let world = Arc::new(world);
        let tasks = (0..8).map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let change = MetadataChange::default();
                    if task % 2 == 0 {
                        world
                            .namespace
                            .put_container("a", "c", change, LIMITS, crate::PolicyChoice::default())
                            .await
                            .unwrap();
                    } else {
                        let deleted = world.namespace.delete_container("a", "c").await;
                        let missing = Err(Error::NotFound(Missing::Container));
                        assert!(deleted.is_ok() || deleted == missing, "{deleted:?}");
                    }
                }
            })
        });
        for task in futures_util::future::join_all(tasks).await {
            task.unwrap();
        }
        world.container("c").await;
        let query = crate::ListQuery {
            limit: 9,
            ..Default::default()
        };
        let listed = world.namespace.list_containers("a", &query).await.unwrap();
        assert_eq!(listed.len(), 1);
        let report = checked(world).await;
        assert_eq!((report.problems, report.leftover_lines), (vec![], 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn metadata_that_changes_meanwhile_stops_a_write() {
    let world = World::new(1).await;
    let before = world.container("c").await;
    let upload = world.namespace.upload(&before, "o");
    let acl = set("x-container-read", "none");
    world
        .namespace
        .post_container("a", "c", acl, LIMITS)
        .await
        .unwrap();
    drop(upload);
    assert_eq!(world.put(&before, "o", b"x").await, Err(Error::Changed));
    let after = world.namespace.container("a", "c").await.unwrap();
    world.put(&after, "o", b"x").await.unwrap();

    // A PUT that changes nothing is in nobody's way.
    world.container("c").await;
    world.put(&after, "o", b"y").await.unwrap();

    world
        .namespace
        .delete_object(&after, "o", Condition::None, None)
        .await
        .unwrap();
    world.namespace.delete_container("a", "c").await.unwrap();
    let missing = Err(Error::NotFound(Missing::Container));
    assert_eq!(world.put(&after, "o", b"x").await, missing);
    world.container("c").await;
    let delete = world
        .namespace
        .delete_object(&after, "o", Condition::None, None)
        .await;
    assert_eq!(delete, Err(Error::Changed));
}
