//! Reading a shard as a whole.

use std::collections::BTreeMap;

use base::env::Env;
use bytes::Bytes;
use testkit::Random;

use super::{World, commit, first};
use crate::{Batch, Error, Export, Exported, Shard, Shards};

type Model = BTreeMap<Bytes, Exported>;

/// Puts, deletes and counts, in the shard and in the model.
async fn change(shard: &Shard, model: &mut Model, random: &mut Random) {
    let mut batch = Batch::new();
    for _ in 0..40 {
        let key = Bytes::from(format!("key {}", random.below(200)));
        let count = Bytes::from(format!("count {}", random.below(20)));
        let bytes = usize::try_from(random.below(9000)).unwrap();
        match random.below(4) {
            0 => {
                batch.delete(key.clone());
                model.remove(&key);
            }
            1 => {
                batch.add(count.clone(), 1);
                let before = model.entry(count).or_insert(Exported::Counter(0));
                let Exported::Counter(sum) = before else {
                    panic!("it is a counter");
                };
                *sum += 1;
            }
            _ => {
                let value = Bytes::from(random.bytes(bytes));
                batch.put(key.clone(), value.clone());
                model.insert(key, Exported::Row(value));
            }
        }
    }
    commit(shard, batch).await.unwrap();
}

/// All pieces, with changes in between, and how many there were.
async fn read_to_its_end(
    shards: &Shards,
    export: &Export,
    model: &mut Model,
    random: &mut Random,
) -> (Model, usize) {
    let shard = first(shards);
    let (mut all, mut pieces, mut after) = (Model::new(), 0, Bytes::new());
    loop {
        let piece = shard.read_export(export, after).await.unwrap();
        pieces += 1;
        after = piece.rows.last().map(|(key, _)| key.clone()).unwrap();
        all.extend(piece.rows);
        if piece.is_last {
            return (all, pieces);
        }
        change(shard, model, random).await;
        if random.below(3) == 0 {
            shards.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn all_pieces_are_of_the_moment_at_which_the_export_began() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let world = World::new(1, 1);
        let shards = world.open().await;
        let mut model = Model::new();
        for round in 0..12 {
            change(first(&shards), &mut model, &mut random).await;
            if random.below(3) == 0 {
                shards.flush().await.unwrap();
            }
            let export = first(&shards).open_export().await.unwrap();
            let expected = model.clone();
            let (all, pieces) = read_to_its_end(&shards, &export, &mut model, &mut random).await;
            assert!(all == expected, "round {round}");
            assert!(round < 9 || pieces > 1, "{pieces} pieces");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn few_are_open_and_those_that_nobody_reads_are_closed() {
    let shards = Shards::volatile(&Env::real(), 1);
    let shard = first(&shards);
    let mut batch = Batch::new();
    batch.put("k", "v");
    commit(shard, batch).await.unwrap();
    let one = shard.open_export().await.unwrap();
    let other = shard.open_export().await.unwrap();
    let refused = shard.open_export().await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })));
    // Read to its end, one makes room.
    let piece = shard.read_export(&other, Bytes::new()).await.unwrap();
    assert!(piece.is_last && piece.rows.len() == 1);
    let third = shard.open_export().await.unwrap();
    assert_eq!(third.position, one.position);
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    for idle in [one, third] {
        let closed = shard.read_export(&idle, Bytes::new()).await;
        assert!(matches!(closed, Err(Error::Unavailable { .. })));
    }
}
