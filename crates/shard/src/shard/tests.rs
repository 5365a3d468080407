use std::ops::Bound;

use base::env::Env;
use base::{ShardId, Timestamp};
use bytes::Bytes;

use crate::tests::{Do, World, commit, first, pair, rows, text, write};
use crate::{Batch, Error, Execution, Latch, Offline, Row, Scan, Shards, View};

#[tokio::test]
async fn a_view_stays_as_it_was() {
    let world = World::new(1, 2);
    for shards in [Shards::volatile(&Env::real(), 2), world.open().await] {
        let shard = shards.get(ShardId(1));
        write(shard, |batch| {
            batch.put("a", "1");
            batch.put("b", "1");
            batch.add("n", 5);
        })
        .await;
        let before = shard.view().await.unwrap();
        shards.flush().await.unwrap();
        let flushed = shard.view().await.unwrap();
        write(shard, |batch| {
            batch.delete("a");
            batch.put("b", "2");
            batch.add("n", -2);
        })
        .await;
        let after = shard.view().await.unwrap();
        shards.flush().await.unwrap();
        let flushed_again = shard.view().await.unwrap();

        for view in [before, flushed] {
            assert_eq!(rows(&view), [pair("a", "1"), pair("b", "1")]);
            assert_eq!(view.counter(b"n").unwrap(), 5);
        }
        for view in [after, flushed_again] {
            assert_eq!(rows(&view), [pair("b", "2")]);
            assert_eq!(view.counter(b"n").unwrap(), 3);
            assert_eq!(view.get(b"a").unwrap(), None);
            assert_eq!(view.get(b"b").unwrap().unwrap(), "2");
        }
    }
}

#[tokio::test]
async fn scans_seek_both_ways() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let shard = first(&shards);
    // Every second row in the tree, the others in the memtable.
    let keys = ["a", "b/1", "b/2", "b/3", "c"];
    for half in [0, 1] {
        write(shard, |batch| {
            for key in keys.iter().skip(half).step_by(2) {
                batch.put(*key, *key);
            }
        })
        .await;
        if half == 0 {
            shards.flush().await.unwrap();
        }
    }
    let view = shard.view().await.unwrap();

    let mut seen = Vec::new();
    let each = &mut |key: &[u8], _: &[u8]| {
        seen.push(text(key));
        match key {
            b"b/1" => Scan::Seek(b"b0".to_vec()),
            _ => Scan::Next,
        }
    };
    view.scan(Bound::Excluded(b"a"), Bound::Included(b"c"), each)
        .unwrap();
    assert_eq!(seen, ["b/1", "c"]);

    seen.clear();
    let each = &mut |key: &[u8], _: &[u8]| {
        seen.push(text(key));
        match key {
            b"b/3" => Scan::Seek(b"b/1".to_vec()),
            _ => Scan::Next,
        }
    };
    view.scan_back(Bound::Unbounded, Bound::Excluded(b"c"), each)
        .unwrap();
    assert_eq!(seen, ["b/3", "a"]);
}

#[tokio::test]
async fn times_never_repeat_also_after_a_restart() {
    let world = World::new(1, 1);
    let mut last = Timestamp::default();
    for _ in 0..3 {
        let shards = world.open().await;
        for _ in 0..20 {
            let plan = |now: Timestamp, _: &View| {
                let mut batch = Batch::new();
                batch.put("k", "v");
                (batch, now)
            };
            let now = first(&shards).execute(Do(Vec::new(), plan)).await.unwrap();
            assert!(now > last, "{now} after {last}");
            last = now;
        }
        shards.kill().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_any_end() {
    let world = World::new(1, 3);
    for round in 0..6 {
        let shards = world.open().await;
        for i in 0..3 {
            let shard = shards.get(ShardId(i));
            assert_eq!(shard.view().await.unwrap().counter(b"n").unwrap(), round);
            write(shard, |batch| {
                batch.add("n", 1);
                batch.put(format!("{round}"), "");
            })
            .await;
            let view = shard.view().await.unwrap();
            assert_eq!(rows(&view).len() as i64, round + 1);
        }
        match round % 3 {
            0 => shards.kill().await,
            1 => drop(shards),
            _ => shards.shutdown().await.unwrap(),
        }
    }
}

#[tokio::test]
async fn latches_exclude() {
    let world = World::new(1, 1);
    for shards in [Shards::volatile(&Env::real(), 1), world.open().await] {
        let increments = (0..50).map(|_| {
            let shard = first(&shards).clone();
            let plan = |_, view: &View| {
                let now = view.get(b"n").unwrap();
                let now: u64 = now.map_or(0, |now| text(&now).parse().unwrap());
                let mut batch = Batch::new();
                batch.put("n", (now + 1).to_string());
                (batch, ())
            };
            let latch = Latch::Exclusive("n".into());
            tokio::spawn(async move { shard.execute(Do(vec![latch], plan)).await })
        });
        for task in increments.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        let view = first(&shards).view().await.unwrap();
        assert_eq!(view.get(b"n").unwrap().unwrap(), "50");
    }
}

#[tokio::test]
async fn a_missing_device_takes_only_its_shards() {
    let world = World::new(2, 4);
    let shards = world.open().await;
    for i in 0..4 {
        write(shards.get(ShardId(i)), |batch| batch.put("k", "v")).await;
    }
    drop(shards);

    let devices = vec![world.free_device(1).await];
    let shards = Shards::open(&world.env, devices, 4, world.config.clone(), None);
    let shards = shards.await.unwrap();
    for i in [1, 3] {
        write(shards.get(ShardId(i)), |batch| batch.put("k", "w")).await;
    }
    for i in [0, 2] {
        let shard = shards.get(ShardId(i));
        assert!(matches!(shard.view().await, Err(Error::Unavailable { .. })));
        let refused = crate::tests::commit(shard, Batch::new()).await;
        let unavailable = matches!(refused, Err(Execution::Shard(Error::Unavailable { .. })));
        assert!(unavailable);
    }
}

#[tokio::test]
async fn offline_sees_what_the_next_start_would() {
    let world = World::new(1, 2);
    let shards = world.open().await;
    write(shards.get(ShardId(1)), |batch| {
        batch.put("flushed", "1");
        batch.put("gone", "1");
        batch.add("n", 2);
        batch.add("zero", 1);
    })
    .await;
    shards.flush().await.unwrap();
    write(shards.get(ShardId(1)), |batch| {
        batch.put("tail", "2");
        batch.delete("gone");
        batch.add("n", 3);
        batch.add("zero", -1);
        batch.add("new", -1);
    })
    .await;
    shards.kill().await;

    let _lock = world.free_device(0).await;
    let offline = Offline::open(&*world.env.disk, &world.path(0)).unwrap();
    assert!(offline.shards().eq([ShardId(0), ShardId(1)]));
    let mut seen = Vec::new();
    let each = &mut |key: &[u8], row: Result<Row<'_>, Error>| {
        seen.push(format!("{} {:?}", text(key), row.unwrap()));
    };
    offline.visit(ShardId(1), each).unwrap();
    let value = |v: &[u8]| format!("{:?}", Row::Value(v));
    let expected = [
        format!("flushed {}", value(b"1")),
        "n Counter(5)".to_owned(),
        "new Counter(-1)".to_owned(),
        format!("tail {}", value(b"2")),
    ];
    seen.sort();
    assert_eq!(seen, expected);
    let view = offline.view(ShardId(1)).unwrap().unwrap();
    assert_eq!(view.counter(b"n").unwrap(), 5);
    assert!(offline.view(ShardId(2)).is_none());
}

#[tokio::test]
async fn nobody_waits_for_an_entry_that_cannot_be_applied() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let shard = first(&shards);
    write(shard, |batch| batch.put("k", "v")).await;
    // Two entries; the second is behind the first in the log, and never looked at.
    let nonsense = Bytes::from_static(b"\x09");
    let leader = shard.leader();
    let commits = (0..2).map(|_| leader.commit_bytes(nonsense.clone()));
    for refused in futures_util::future::join_all(commits).await {
        assert!(refused.is_err());
    }
    drop(leader);
    let mut batch = Batch::new();
    batch.put("k", "w");
    let refused = commit(shard, batch).await;
    let unavailable = |e: &Execution<()>| matches!(e, Execution::Shard(Error::Unavailable { .. }));
    assert!(refused.as_ref().is_err_and(unavailable), "{refused:?}");
    assert_eq!(shard.view().await.unwrap().get(b"k").unwrap().unwrap(), "v");
}
