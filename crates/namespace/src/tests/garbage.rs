//! Deleted and expired objects, and what becomes of their bodies.

use std::time::Duration;

use super::world::World;
use crate::garbage::{Collector, RETRY_IN};
use crate::{Backlog, Condition, Error, Expired, ListQuery, Missing, Owns, PostObject};

static LARGE: [u8; 50_000] = [7; 50_000];

async fn delete(world: &World, container: &crate::Container, name: &str) {
    let deleted = world
        .namespace
        .delete_object(container, name, Condition::None, None);
    deleted.await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_being_read_is_not_collected() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let object = world
        .namespace
        .object(&container, "o", Expired::Hide)
        .await
        .unwrap();
    world.put(&container, "o", b"other").await.unwrap();
    world.clock.advance(Duration::from_secs(3600));
    world.collect().await;

    let range = 0..object.bytes;
    let mut reader = world
        .namespace
        .read(&container, &object, range)
        .await
        .unwrap();
    drop(object);
    world.collect().await;
    let mut read = 0;
    while let Some(piece) = reader.next().await {
        read += piece.unwrap().len();
    }
    assert_eq!(read, LARGE.len());
    assert_eq!(world.chunks(), 1);
    drop(reader);
    world.collect().await;
    assert_eq!(world.chunks(), 0);
}

#[tokio::test]
async fn garbage_is_young_first_then_gone() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    delete(&world, &container, "o").await;
    world.collect().await;
    let expected = Backlog {
        garbage_bodies: 1,
        garbage_bytes: 50_000,
    };
    assert_eq!(world.namespace.backlog().await, Ok(expected));
    assert_eq!(world.chunks(), 1);
    world.clock.advance(Duration::from_secs(6));
    world.collect().await;
    assert_eq!(world.namespace.backlog().await, Ok(Backlog::default()));
    assert_eq!(world.chunks(), 0);
}

#[tokio::test]
async fn a_device_that_is_gone_holds_up_only_its_own_garbage() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for name in &names {
        world.put(&container, name, &LARGE).await.unwrap();
    }
    let on_first = world.devices[0].chunks().len();
    assert!((1..20).contains(&on_first));
    for name in &names {
        delete(&world, &container, name).await;
    }
    world.clock.advance(Duration::from_secs(6));
    let failed = device::Error::Failed("EIO".into());
    world.devices[0].fail_deletes(Some(failed));
    world.collect().await;
    assert_eq!(world.chunks(), on_first);
    assert_eq!(world.check().await.garbage, on_first as u64);

    world.devices[0].fail_deletes(None);
    world.collect().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(world.check().await.garbage, 0);
}

#[tokio::test]
async fn a_group_that_could_not_delete_is_left_alone_for_a_while() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    delete(&world, &container, "o").await;
    world.clock.advance(Duration::from_secs(6));
    let mut collector = Collector::default();
    let mut round = async || {
        let round = collector.round(&world.namespace, container.shard());
        round.await.unwrap()
    };
    for device in &world.devices {
        device.fail_deletes(Some(device::Error::Closed));
    }
    assert_eq!(round().await, 0);
    for device in &world.devices {
        device.fail_deletes(None);
    }
    world.clock.advance(RETRY_IN - Duration::from_millis(1));
    assert_eq!(round().await, 0, "nobody is asked");
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(round().await, 2);
    assert_eq!(world.chunks(), 0);
}

#[tokio::test]
async fn a_chunk_is_owned_until_it_is_collected() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let all = world.devices.iter().flat_map(|device| device.chunks());
    let (chunk, label, _) = all.clone().next().unwrap();
    let owns = async || world.namespace.owns(&label.owner, chunk).await;
    assert_eq!(owns().await, Owns::Yes);

    // A POST keeps the body, and a write that fails leaves a second copy of which nobody knows.
    let post = PostObject {
        name: "o".into(),
        content_type: None,
        metadata: Default::default(),
        delete_at: None,
        expired: Expired::Hide,
    };
    world.namespace.post_object(&container, post).await.unwrap();
    assert_eq!(owns().await, Owns::Yes);
    let copy = base::ChunkId::new(chunk.group(), 1, 1);
    assert_eq!(world.namespace.owns(&label.owner, copy).await, Owns::No);

    world.put(&container, "o", b"small").await.unwrap();
    assert_eq!(owns().await, Owns::Doomed);
    assert_eq!(world.namespace.owns(&label.owner, copy).await, Owns::No);
    world.clock.advance(Duration::from_secs(6));
    world.collect().await;
    assert_eq!(owns().await, Owns::No);

    let mut foreign = label.clone();
    foreign.owner.container_id = base::ContainerId(u64::MAX);
    assert_eq!(
        world.namespace.owns(&foreign.owner, chunk).await,
        Owns::Unknown
    );
}

#[tokio::test]
async fn an_expired_object_is_hidden_at_once_and_removed_later() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let soon = world.namespace.now().secs() + 10;
    let expire = |put: &mut crate::PutObject| put.delete_at = Some(soon);
    for (name, body) in [("small", &LARGE[..10]), ("large", &LARGE)] {
        world
            .put_with(&container, name, body, expire)
            .await
            .unwrap();
    }
    world.clock.advance(Duration::from_millis(9_999));
    world.expire().await;
    world.get(&container, "small").await.unwrap();

    world.clock.advance(Duration::from_millis(1));
    let missing = Err(Error::NotFound(Missing::Object));
    assert_eq!(world.get(&container, "small").await, missing);
    let query = ListQuery {
        limit: 9,
        ..ListQuery::default()
    };
    let listed = world.namespace.list_objects(&container, &query).await;
    assert_eq!(listed, Ok(vec![]));
    let shown = world
        .namespace
        .object(&container, "small", Expired::Show)
        .await;
    assert_eq!(shown.unwrap().delete_at, Some(soon));
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 2);

    world.expire().await;
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 2);
    world.clock.advance(Duration::from_secs(60));
    world.expire().await;
    let usage = world.namespace.usage("a").await.unwrap();
    assert_eq!((usage.objects, usage.bytes), (0, 0));
    assert_eq!(world.namespace.metrics().objects_expired.get(), 2);
    assert_eq!(world.check().await.problems, []);
    world.clock.advance(Duration::from_secs(6));
    world.collect().await;
    assert_eq!(world.chunks(), 0);
}

#[tokio::test]
async fn many_objects_expire_in_rounds() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let soon = world.namespace.now().secs() + 1;
    for number in 0..1500 {
        let expire = |put: &mut crate::PutObject| put.delete_at = Some(soon);
        world
            .put_with(&container, &number.to_string(), b"x", expire)
            .await
            .unwrap();
    }
    world.clock.advance(Duration::from_secs(61));
    world.expire().await;
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 0);
}

#[tokio::test]
async fn expired_objects_are_not_in_the_way_of_a_containers_deletion() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let soon = world.namespace.now().secs() + 1;
    let expire = |put: &mut crate::PutObject| put.delete_at = Some(soon);
    world.put_with(&container, "a", b"x", expire).await.unwrap();
    world.put(&container, "b", b"x").await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let delete = || world.namespace.delete_container("a", "c");
    assert_eq!(delete().await, Err(Error::NotEmpty));
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 2);
    self::delete(&world, &container, "b").await;
    delete().await.unwrap();
    assert_eq!(world.check().await.problems, []);
}

#[tokio::test(start_paused = true)]
async fn the_background_does_all_of_this_by_itself() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let soon = world.namespace.now().secs() + 1;
    let expire = |put: &mut crate::PutObject| put.delete_at = Some(soon);
    world
        .put_with(&container, "p", &LARGE, expire)
        .await
        .unwrap();
    delete(&world, &container, "o").await;
    let background = world.namespace.start();
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(61));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    background.stop().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 0);
}
