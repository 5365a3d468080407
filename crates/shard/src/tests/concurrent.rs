//! Many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Do, World, commit, first, write};
use crate::{Batch, Latch, Shard, View};

/// Runs a flush again and again until told to stop; returns how many it ran.
fn flush_often(world: &Arc<crate::Shards>, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
    let (shards, stop) = (world.clone(), stop.clone());
    tokio::spawn(async move {
        let mut flushes = 0;
        while !stop.load(Ordering::Relaxed) {
            shards.flush().await.unwrap();
            flushes += 1;
        }
        flushes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn views_are_consistent_while_memtables_are_flushed() {
    let world = World::new(1, 1);
    let shards = Arc::new(world.open().await);
    let stop = Arc::new(AtomicBool::new(false));
    let flushes = flush_often(&shards, &stop);

    // Each commit adds to three counters and replaces two rows: in every view they agree.
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (shards, stop) = (shards.clone(), stop.clone());
            tokio::spawn(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let view = first(&shards).view().await.unwrap();
                    last = agree(&view, last);
                    drop(view);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for i in 1..=400 {
        write(first(&shards), |batch| {
            for name in ["n/a", "n/b", "n/c"] {
                batch.add(name, 1);
            }
            batch.put("a", i.to_string());
            batch.put("z", i.to_string());
        })
        .await;
        let view = first(&shards).view().await.unwrap();
        assert_eq!(agree(&view, i - 1), i, "what was acknowledged is seen");
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(flushes.await.unwrap() > 0);
}

/// Returns what all the counters and rows say, at least `last`.
fn agree(view: &View, last: i64) -> i64 {
    let n = view.counter(b"n/a").unwrap();
    for name in [b"n/b", b"n/c"] {
        assert_eq!(view.counter(name).unwrap(), n);
    }
    for row in [b"a", b"z"] {
        let row = view.get(row).unwrap();
        let row = row.map_or(0, |row| super::text(&row).parse().unwrap());
        assert_eq!(row, n);
    }
    assert!(n >= last, "{n} after {last}");
    n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn concurrent_additions_are_all_counted() {
    let world = World::new(1, 1);
    let shards = Arc::new(world.open().await);
    let stop = Arc::new(AtomicBool::new(false));
    let flushes = flush_often(&shards, &stop);
    let add = |shard: Shard| async move {
        for _ in 0..40 {
            let mut batch = Batch::new();
            batch.add("n", 1);
            commit(&shard, batch).await.unwrap();
        }
    };
    let tasks: Vec<_> = (0..16)
        .map(|_| tokio::spawn(add(first(&shards).clone())))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    flushes.await.unwrap();
    let view = first(&shards).view().await.unwrap();
    assert_eq!(view.counter(b"n").unwrap(), 16 * 40);
}

#[tokio::test]
async fn a_dropped_call_keeps_its_latches_until_it_is_applied() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let shard = first(&shards);
    for i in 0..20u64 {
        // The first one is sent and given up; the second must see what it did, or wait for it.
        let increment = || {
            let plan = |_, view: &View| {
                let now = view.get(b"n").unwrap();
                let now: u64 = now.map_or(0, |now| super::text(&now).parse().unwrap());
                let mut batch = Batch::new();
                batch.put("n", (now + 1).to_string());
                (batch, now + 1)
            };
            shard.execute(Do(vec![Latch::Exclusive("n".into())], plan))
        };
        let mut given_up = Box::pin(increment());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(given_up.as_mut().poll(&mut context).is_pending());
        drop(given_up);
        assert_eq!(increment().await.unwrap(), 2 * i + 2);
    }
}
