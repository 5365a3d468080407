//! Power cuts and failing calls: the log on a simulated disk, the tree on the real one. The tree is
//! synced before its commit returns, so what it has is what it had.

use std::io::ErrorKind;

use testkit::Random;

use super::{SimWorld, commit, first};
use crate::{Batch, Shards};

/// Adds to a counter and puts a row per commit, a few at a time, with flushes in between, until one
/// fails. Returns how many were acknowledged of those numbered from `from` on, and tried.
async fn work(shards: &Shards, seed: u64, from: u64) -> (Vec<u64>, Vec<u64>) {
    let mut random = Random::new(seed);
    let (mut acknowledged, mut tried) = (Vec::new(), Vec::new());
    for round in 0..12 {
        let numbers = (0..1 + random.below(4)).map(|i| from + round * 10 + i);
        let commits = numbers.map(|number| async move {
            let mut batch = Batch::new();
            batch.add("n", 1);
            let len = usize::try_from(number * 977 % 9000).unwrap();
            batch.put(format!("{number:06}"), vec![b'x'; len]);
            (number, commit(first(shards), batch).await.is_ok())
        });
        for (number, ok) in futures_util::future::join_all(commits).await {
            tried.push(number);
            if ok {
                acknowledged.push(number);
            }
        }
        if acknowledged.len() < tried.len() {
            break;
        }
        if random.chance(1, 5) {
            // May fail like any other.
            let _ = shards.flush().await;
        }
    }
    (acknowledged, tried)
}

/// Whether every acknowledged row is there, whole, and the counter agrees with the rows.
async fn verify(shards: &Shards, acknowledged: &[u64], tried: &[u64], what: &str) {
    let view = first(shards).view().await.unwrap();
    let rows = super::rows(&view);
    let sum = view.counter(b"n").unwrap();
    assert_eq!(sum, rows.len() as i64, "{what}: counter and rows");
    let mut left: Vec<u64> = Vec::new();
    for (key, value) in rows {
        let number: u64 = key.parse().unwrap();
        assert_eq!(
            value.len() as u64,
            number * 977 % 9000,
            "{what}: row {number}"
        );
        left.push(number);
    }
    for number in acknowledged {
        assert!(left.contains(number), "{what}: {number} is lost");
    }
    for number in left {
        assert!(
            tried.contains(&number),
            "{what}: {number} comes from nowhere"
        );
    }
}

#[tokio::test]
async fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    for n in 0..40 {
        let world = SimWorld::new();
        let (mut acknowledged, mut tried) = (Vec::new(), Vec::new());
        // Two lives, each ended by a power cut.
        for life in 0..2 {
            let what = format!("cut {n}, life {life}");
            let shards = match world.open().await {
                Ok(shards) => shards,
                Err(error) => panic!("{what}: {error}"),
            };
            verify(&shards, &acknowledged, &tried, &what).await;
            world.disk.power_off_at(n);
            let (ok, all) = work(&shards, n + life, 1000 * (life + 1)).await;
            acknowledged.extend(ok);
            tried.extend(all);
            shards.kill().await;
            world.disk.power_cut(n * 3 + life);
        }
        let shards = world.open().await.unwrap();
        verify(&shards, &acknowledged, &tried, &format!("cut {n}, last")).await;
        shards.kill().await;
    }
}

#[tokio::test]
async fn any_call_may_fail() {
    for n in 0..60 {
        let world = SimWorld::new();
        let what = format!("call {n}");
        world.disk.fail_nth(n, ErrorKind::Other);
        let (mut acknowledged, mut tried) = (Vec::new(), Vec::new());
        if let Ok(shards) = world.open().await {
            (acknowledged, tried) = work(&shards, n, 1000).await;
            shards.kill().await;
        }
        world.disk.heal();
        let shards = world.open().await.unwrap();
        verify(&shards, &acknowledged, &tried, &what).await;
        shards.kill().await;
    }
}
