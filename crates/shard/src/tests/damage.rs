//! What is not as it was written is an error, and never data.

use std::io::IoSlice;
use std::path::Path;

use base::env::Open;

use super::{World, first, write};
use crate::{Error, Scan, Shards};

/// Flips a bit of every occurrence of `pattern` in a file.
fn spoil(world: &World, path: &Path, pattern: &[u8]) -> usize {
    let file = world.env.disk.open(path, Open::Write).unwrap();
    let mut all = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut all, 0).unwrap();
    let places = all.windows(pattern.len()).enumerate();
    let places: Vec<_> = places.filter(|(_, here)| here == &pattern).collect();
    for (at, here) in &places {
        let bad = [here[0] ^ 1];
        file.write_at(&[IoSlice::new(&bad)], *at as u64).unwrap();
    }
    places.len()
}

#[tokio::test]
async fn a_damaged_row_is_an_error() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    write(first(&shards), |batch| {
        batch.put("good", "value");
        batch.put("victim", "spoil me, I am long enough to be found");
        batch.add("n", 0x5e5e_5e5e_5e5e_5e5e);
    })
    .await;
    shards.shutdown().await.unwrap();

    let tree = world.path(0).join("tree/data.mdb");
    assert!(spoil(&world, &tree, b"spoil me, I am long enough") > 0);
    assert!(spoil(&world, &tree, &[0x5e; 8]) > 0);
    let shards = world.open().await;
    let view = first(&shards).view().await.unwrap();
    assert_eq!(view.get(b"good").unwrap().unwrap(), "value");
    let damaged = |result: Result<_, Error>| matches!(result, Err(Error::Damaged(_)));
    assert!(damaged(view.get(b"victim").map(drop)));
    assert!(damaged(view.counter(b"n").map(drop)));
    let all = std::ops::Bound::Unbounded;
    assert!(damaged(view.scan(all, all, &mut |_, _| Scan::Next)));

    // Overwritten it is whole again; a counter stays damaged, since its sum is lost.
    write(first(&shards), |batch| {
        batch.put("victim", "new");
        batch.add("n", 1);
    })
    .await;
    shards.flush().await.unwrap();
    let view = first(&shards).view().await.unwrap();
    assert_eq!(view.get(b"victim").unwrap().unwrap(), "new");
    assert!(damaged(view.counter(b"n").map(drop)));
}

#[tokio::test]
async fn a_log_that_is_gone_is_missed() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    write(first(&shards), |batch| batch.put("k", "v")).await;
    shards.shutdown().await.unwrap();

    let log = world.path(0).join("log");
    for name in world.env.disk.list(&log).unwrap() {
        world.env.disk.remove(&log.join(name)).unwrap();
    }
    let refused = world.try_open().await.err();
    assert!(
        matches!(refused, Some(device::Error::Damaged(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_tree_that_is_gone_is_not_made_again() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    write(first(&shards), |batch| batch.put("k", "v")).await;
    shards.shutdown().await.unwrap();

    let tree = world.path(0).join("tree");
    for name in world.env.disk.list(&tree).unwrap() {
        world.env.disk.remove(&tree.join(name)).unwrap();
    }
    let device = world.free_device(0).await;
    let refused = Shards::format(&[device], 1, &world.config).err();
    assert!(
        matches!(refused, Some(device::Error::Damaged(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_log_of_another_device_is_refused() {
    let (world, other) = (World::new(1, 1), World::new(1, 1));
    for world in [&world, &other] {
        let shards = world.open().await;
        write(first(&shards), |batch| batch.put("k", "v")).await;
        shards.shutdown().await.unwrap();
    }
    let log = world.path(0).join("log");
    for name in world.env.disk.list(&log).unwrap() {
        world.env.disk.remove(&log.join(name)).unwrap();
    }
    let foreign = other.path(0).join("log");
    for name in other.env.disk.list(&foreign).unwrap() {
        let (from, to) = (foreign.join(&name), log.join(&name));
        world.env.disk.rename(&from, &to).unwrap();
    }
    let refused = world.try_open().await.err();
    assert!(
        matches!(refused, Some(device::Error::Damaged(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_damaged_log_refuses_to_open() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    for i in 0..3 {
        write(first(&shards), |batch| {
            batch.put("k", format!("look for me {i}"))
        })
        .await;
    }
    shards.kill().await;
    let file = world.path(0).join("log/0000.log");
    assert_eq!(spoil(&world, &file, b"look for me 1"), 1);
    let refused = world.try_open().await.err();
    assert!(
        matches!(refused, Some(device::Error::Damaged(_))),
        "{refused:?}"
    );
}
