use std::collections::BTreeMap;
use std::ops::Bound;

use base::env::Env;
use base::{ShardId, Timestamp};

use super::*;
use crate::{Latch, Scan};

/// Does what a closure says, under latches on the given keys.
struct Do<F>(Vec<Latch>, F);

impl<F, T> Procedure for Do<F>
where
    F: Fn(Timestamp, &View) -> (Batch, T) + Send + 'static,
    T: Send + 'static,
{
    type Output = T;
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        self.0.clone()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, T), Execution<()>> {
        Ok((self.1)(now, view))
    }
}

async fn write(shard: &Shard, fill: impl Fn(&mut Batch) + Send + 'static) {
    let plan = move |_, _: &View| {
        let mut batch = Batch::new();
        fill(&mut batch);
        (batch, ())
    };
    shard.execute(Do(Vec::new(), plan)).await.unwrap();
}

fn rows(view: &View) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    view.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
        rows.push((text(key), text(value)));
        Scan::Next
    })
    .unwrap();
    rows
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_view_stays_as_it_was() {
    let shards = Shards::volatile(&Env::real(), 2);
    let shard = shards.get(ShardId(1));
    write(shard, |batch| {
        batch.put("a", "1");
        batch.put("b", "1");
        batch.add("n", 5);
    })
    .await;
    let before = shard.view().await.unwrap();
    write(shard, |batch| {
        batch.delete("a");
        batch.put("b", "2");
        batch.add("n", -2);
    })
    .await;
    let after = shard.view().await.unwrap();

    let pair = |k: &str, v: &str| (k.to_string(), v.to_string());
    assert_eq!(rows(&before), [pair("a", "1"), pair("b", "1")]);
    assert_eq!(rows(&after), [pair("b", "2")]);
    assert_eq!(before.counter(b"n").unwrap(), 5);
    assert_eq!(after.counter(b"n").unwrap(), 3);
    assert_eq!(after.get(b"a").unwrap(), None);
}

#[tokio::test]
async fn scans_seek_both_ways() {
    let shards = Shards::volatile(&Env::real(), 1);
    let shard = shards.get(ShardId(0));
    write(shard, |batch| {
        for key in ["a", "b/1", "b/2", "b/3", "c"] {
            batch.put(key, key);
        }
    })
    .await;
    let view = shard.view().await.unwrap();

    let mut seen = Vec::new();
    view.scan(
        Bound::Excluded(b"a"),
        Bound::Included(b"c"),
        &mut |key, _| {
            seen.push(text(key));
            match key {
                b"b/1" => Scan::Seek(b"b0".to_vec()),
                _ => Scan::Next,
            }
        },
    )
    .unwrap();
    assert_eq!(seen, ["b/1", "c"]);

    seen.clear();
    view.scan_back(Bound::Unbounded, Bound::Excluded(b"c"), &mut |key, _| {
        seen.push(text(key));
        match key {
            b"b/3" => Scan::Seek(b"b/1".to_vec()),
            _ => Scan::Next,
        }
    })
    .unwrap();
    assert_eq!(seen, ["b/3", "a"]);
}

#[tokio::test]
async fn times_never_repeat() {
    let shards = Shards::volatile(&Env::real(), 1);
    let shard = shards.get(ShardId(0));
    let mut times = BTreeMap::new();
    for i in 0..100 {
        let plan = |now: Timestamp, _: &View| (Batch::new(), now);
        let now = shard.execute(Do(Vec::new(), plan)).await.unwrap();
        times.insert(now, i);
    }
    assert!(times.values().copied().eq(0..100));
}
