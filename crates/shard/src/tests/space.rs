//! Bounds: of memory, and of the disk.

use std::sync::Arc;
use std::time::Duration;

use super::{World, commit, first, write};
use crate::{Batch, Error, Execution};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_wait_for_memory_and_go_on() {
    let mut world = World::new(1, 2);
    world.config.memtable_bytes = Some(256 << 10);
    let shards = Arc::new(world.open().await);
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let shards = shards.clone();
            tokio::spawn(async move {
                for i in 0..40 {
                    let shard = shards.get(base::ShardId(u16::try_from(task % 2).unwrap()));
                    write(shard, |batch| {
                        batch.put(format!("{task}/{i}"), vec![0; 8000])
                    })
                    .await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // 2.5 MB went through a memtable of 256 KiB, and the next flush is a minute away.
    let mut rows = 0;
    for i in 0..2 {
        rows += super::rows(&shards.get(base::ShardId(i)).view().await.unwrap()).len();
    }
    assert_eq!(rows, 8 * 40);
    assert!(
        shards.memory_bytes() < 512 << 10,
        "{}",
        shards.memory_bytes()
    );
}

#[tokio::test]
async fn a_full_device_still_takes_what_frees_space() {
    let world = super::SimWorld::new();
    let shards = world.open().await.unwrap();
    let shard = first(&shards);
    write(shard, |batch| batch.put("k", "v")).await;

    // Others fill the disk.
    world.disk.resize(world.used_bytes() + (1 << 20));
    shards.flush().await.unwrap();
    let mut put = Batch::new();
    put.put("l", "v");
    let refused = commit(shard, put.clone()).await;
    assert!(
        matches!(refused, Err(Execution::Shard(Error::OutOfSpace))),
        "{refused:?}"
    );
    let mut delete = Batch::new();
    delete.delete("k");
    commit(shard, delete).await.unwrap();
    let mut moved = Batch::new();
    moved.put("garbage", "v");
    moved.frees_space();
    commit(shard, moved).await.unwrap();

    world.disk.resize(super::SimWorld::DISK_BYTES);
    shards.flush().await.unwrap();
    commit(shard, put).await.unwrap();
    let rows = super::rows(&shard.view().await.unwrap());
    assert_eq!(rows.len(), 2, "{rows:?}");
}

#[tokio::test]
async fn deletes_always_find_room_in_the_log() {
    let world = super::SimWorld::new();
    // Others fill the disk before the log has made a file of its own accord.
    world.fill_disk();
    let shards = world.open().await.unwrap();
    let shard = first(&shards);
    // Alone each takes a block: three times what all files of the log hold.
    for number in 0..400 {
        let mut delete = Batch::new();
        delete.delete(format!("{number}"));
        let deleted = commit(shard, delete).await;
        assert!(deleted.is_ok(), "{number}: {deleted:?}");
    }
    shards.kill().await;
}

#[tokio::test]
async fn replicas_come_and_go_on_a_full_device() {
    let world = super::SimWorld::new();
    world.fill_disk();
    let shards = world.open().await.unwrap();
    let (device, shard) = (base::DeviceId(1), base::ShardId(7));
    // Each takes two blocks: several times what all files of the log hold.
    for number in 0..200 {
        let made = shards.create(device, shard).await;
        assert!(made.is_ok(), "{number}: {made:?}");
        shards.destroy(device, shard).await.unwrap();
        write(first(&shards), |batch| batch.delete("k")).await;
    }
    shards.kill().await;
}

#[tokio::test]
async fn a_batch_that_no_log_file_holds_is_refused() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let mut batch = Batch::new();
    batch.put("k", vec![0; 600 << 10]);
    let refused = commit(first(&shards), batch).await;
    assert!(matches!(refused, Err(Execution::Shard(Error::OutOfSpace))));
    write(first(&shards), |batch| batch.put("k", vec![0; 400 << 10])).await;
}

#[tokio::test]
async fn a_failed_device_still_answers_reads() {
    let world = super::SimWorld::new();
    let shards = world.open().await.unwrap();
    let shard = first(&shards);
    write(shard, |batch| batch.put("k", "v")).await;
    world.fail_writes();
    let mut batch = Batch::new();
    batch.put("k", "w");
    let unknown = commit(shard, batch.clone()).await;
    assert!(
        matches!(unknown, Err(Execution::Shard(Error::Unknown))),
        "{unknown:?}"
    );
    for _ in 0..3 {
        let refused = commit(shard, batch.clone()).await;
        let Err(Execution::Shard(Error::Unavailable { retry_in })) = refused else {
            panic!("{refused:?}");
        };
        assert!(retry_in > Duration::ZERO);
    }
    let view = shard.view().await.unwrap();
    assert_eq!(view.get(b"k").unwrap().unwrap(), "v");
    drop(view);
    assert!(shards.flush().await.is_err());
    shards.kill().await;

    world.disk.heal();
    let shards = world.open().await.unwrap();
    let view = first(&shards).view().await.unwrap();
    let value = view.get(b"k").unwrap().unwrap();
    assert!(value == "v" || value == "w", "{value:?}");
}
