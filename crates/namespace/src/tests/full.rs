//! A disk that others fill: what frees space is still done.

use std::time::Duration;

use base::env::Open;

use super::world::World;
use crate::{Config, Error, MetadataChange};

/// A file of somebody else takes all the space that is left; it goes when it is truncated.
fn fill(world: &World) -> impl Fn() + use<> {
    let on_disk = world.on_disk.as_ref().unwrap();
    let dir = on_disk.dir().to_owned();
    let disk = world.disk();
    let free = disk.space(&dir).unwrap().free_bytes;
    let file = disk.open(&dir.join("foreign"), Open::Write).unwrap();
    file.allocate(free).unwrap();
    move || file.truncate(0).unwrap()
}

#[tokio::test]
async fn everything_can_be_deleted_from_a_full_device() {
    let mut world = World::on_disk(1, Config::default()).await;
    let container = world.container("c").await;
    let soon = world.namespace.now().secs() + 5;
    let bodies = [
        ("empty", 0),
        ("inline", 100),
        ("chunk", 20_000),
        ("chunks", 9 << 20),
    ];
    for (name, len) in bodies {
        world.put(&container, name, &vec![1; len]).await.unwrap();
        let expires = format!("expires-{name}");
        let expire = |put: &mut crate::PutObject| put.delete_at = Some(soon);
        let body = vec![1; len];
        let put = world.put_with(&container, &expires, &body, expire);
        put.await.unwrap();
    }
    let empty = fill(&world);
    // The shards notice with the next flush.
    world.shards.flush().await.unwrap();
    let refused = world.put(&container, "o", b"new").await;
    assert_eq!(refused, Err(Error::OutOfSpace));

    for (name, _) in bodies {
        let deleted = world
            .namespace
            .delete_object(&container, name, Default::default(), None);
        assert_eq!(deleted.await, Ok(()), "{name}");
    }
    world.clock.advance(Duration::from_secs(100));
    world.expire().await;
    world.clock.advance(Duration::from_secs(10));
    world.collect().await;
    assert_eq!(world.namespace.backlog().await.unwrap(), Default::default());
    assert_eq!(world.namespace.delete_container("a", "c").await, Ok(()));
    assert_eq!(world.namespace.delete_account("a").await, Ok(()));
    let report = world.check_stopped().await;
    assert_eq!(report.problems, []);
    assert_eq!((report.leftover_records, report.leftover_lines), (0, 0));

    empty();
    world.shards.flush().await.unwrap();
    let change = MetadataChange::default();
    let made = world.namespace.put_container(
        "a",
        "c",
        change,
        super::world::LIMITS,
        crate::PolicyChoice::default(),
    );
    made.await.unwrap();
}
