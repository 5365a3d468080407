//! One shard against two maps: whatever is done to both, in any order, looks the same.

use std::collections::BTreeMap;
use std::ops::Bound;

use testkit::Random;

use super::{World, commit, first};
use crate::{Batch, Scan, Shard, Shards, View};

#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    counters: BTreeMap<Vec<u8>, i64>,
}

/// Few keys, so that they meet, of a shape that makes scans seek: groups with members.
fn key(random: &mut Random) -> Vec<u8> {
    let (group, member) = (random.below(5), random.below(6));
    match member {
        0 => format!("g{group}").into(),
        _ => format!("g{group}/{member}").into(),
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    // Some values get pages of their own in the tree.
    let len = match random.below(8) {
        0 => 0,
        1 => random.below(9000),
        _ => random.below(30),
    };
    random.bytes(usize::try_from(len).unwrap())
}

fn batch(random: &mut Random, model: &mut Model) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..1 + random.below(6) {
        let key = key(random);
        match random.below(6) {
            0 | 1 => {
                model.rows.remove(&key);
                batch.delete(key);
            }
            2 => {
                let by = i64::try_from(random.below(7)).unwrap() - 3;
                let key = [b"n/", &key[..]].concat();
                *model.counters.entry(key.clone()).or_default() += by;
                batch.add(key, by);
            }
            _ => {
                let value = value(random);
                model.rows.insert(key.clone(), value.clone());
                batch.put(key, value);
            }
        }
    }
    batch
}

/// What a scan does after a key; the same for both sides.
#[derive(Clone)]
enum Then {
    Next,
    Stop,
    Seek(Vec<u8>),
}

fn then(salt: u64, key: &[u8]) -> Then {
    let seed = key.iter().fold(salt, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let mut random = Random::new(seed);
    match random.below(12) {
        0 => Then::Stop,
        1..4 => Then::Seek(self::key(&mut random)),
        _ => Then::Next,
    }
}

struct Range {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    back: bool,
    salt: u64,
}

impl Range {
    fn new(random: &mut Random) -> Self {
        let mut bound = || {
            let key = key(random);
            match random.below(3) {
                0 => Bound::Included(key),
                1 => Bound::Excluded(key),
                _ => Bound::Unbounded,
            }
        };
        let (from, to) = (bound(), bound());
        Self {
            from,
            to,
            back: random.chance(1, 2),
            salt: random.below(u64::MAX),
        }
    }

    /// The keys that a scan of `view` visits.
    fn of_view(&self, view: &View) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        let each = &mut |key: &[u8], value: &[u8]| {
            seen.push((key.to_vec(), value.to_vec()));
            match then(self.salt, key) {
                Then::Next => Scan::Next,
                Then::Stop => Scan::Stop,
                Then::Seek(to) => Scan::Seek(to),
            }
        };
        let from = self.from.as_ref().map(Vec::as_slice);
        let to = self.to.as_ref().map(Vec::as_slice);
        match self.back {
            false => view.scan(from, to, each).unwrap(),
            true => view.scan_back(from, to, each).unwrap(),
        }
        seen
    }

    /// The same by looking at every row.
    fn of_model(&self, model: &Model) -> Vec<(Vec<u8>, Vec<u8>)> {
        let inside = |key: &&Vec<u8>| {
            let above = match &self.from {
                Bound::Included(from) => *key >= from,
                Bound::Excluded(from) => *key > from,
                Bound::Unbounded => true,
            };
            above
                && match &self.to {
                    Bound::Included(to) => *key <= to,
                    Bound::Excluded(to) => *key < to,
                    Bound::Unbounded => true,
                }
        };
        let mut keys: Vec<_> = model.rows.keys().filter(inside).collect();
        if self.back {
            keys.reverse();
        }
        let mut seen = Vec::new();
        let mut skip: Option<Vec<u8>> = None;
        for key in keys {
            let skipped = |to: &Vec<u8>| match self.back {
                false => key < to,
                true => key >= to,
            };
            if skip.as_ref().is_some_and(skipped) {
                continue;
            }
            skip = None;
            seen.push((key.clone(), model.rows[key].clone()));
            match then(self.salt, key) {
                Then::Stop => break,
                Then::Seek(to) => skip = Some(to),
                Then::Next => {}
            }
        }
        seen
    }
}

fn check(view: &View, model: &Model, random: &mut Random) {
    for _ in 0..4 {
        let range = Range::new(random);
        assert_eq!(range.of_view(view), range.of_model(model));
    }
    for _ in 0..8 {
        let key = key(random);
        let value = view.get(&key).unwrap();
        assert_eq!(value.as_deref(), model.rows.get(&key).map(Vec::as_slice));
        let key = [b"n/", &key[..]].concat();
        let sum = model.counters.get(&key).copied().unwrap_or(0);
        assert_eq!(view.counter(&key).unwrap(), sum);
    }
}

async fn run(world: &World, seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut shards = world.open().await;
    let mut views: Vec<(View, Model)> = Vec::new();
    for _ in 0..steps {
        match random.below(40) {
            0 => {
                views.clear();
                shards = restart(world, shards, &mut random).await;
            }
            1..5 => shards.flush().await.unwrap(),
            5..8 => {
                let view = first(&shards).view().await.unwrap();
                views.push((view, model.clone()));
                if views.len() > 3 {
                    views.remove(0);
                }
            }
            _ => {
                let batch = batch(&mut random, &mut model);
                commit(first(&shards), batch).await.unwrap();
            }
        }
        check(&now(first(&shards)).await, &model, &mut random);
        for (view, then) in &views {
            check(view, then, &mut random);
        }
    }
    shards.kill().await;
}

async fn now(shard: &Shard) -> View {
    shard.view().await.unwrap()
}

async fn restart(world: &World, shards: Shards, random: &mut Random) -> Shards {
    match random.below(3) {
        0 => shards.kill().await,
        1 => drop(shards),
        _ => shards.shutdown().await.unwrap(),
    }
    world.open().await
}

#[tokio::test]
async fn a_shard_is_a_map() {
    for seed in 0..4 {
        println!("seed {seed}");
        run(&World::new(1, 1), seed, 250).await;
    }
}
