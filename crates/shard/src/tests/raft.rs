//! The parts that openraft drives, by its own suite and by hand.

use openraft::storage::RaftStateMachine;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{RaftSnapshotBuilder, StorageError};

use super::{SimWorld, World, first, pair, rows, write};
use crate::host::{Host, Opened};
use crate::raft::{LogStore, SnapshotData, StateMachine, Types};

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, SimWorld> for Builder {
    async fn build(&self) -> Result<(SimWorld, LogStore, StateMachine), StorageError<u64>> {
        let world = SimWorld::new();
        let device = world.device().unwrap();
        let Opened { host, mut shards } = Host::open(device, &SimWorld::config()).unwrap();
        let (core, store) = shards.remove(0);
        Ok((world, store, StateMachine::new(host, core)))
    }
}

#[test]
fn log_and_state_pass_openrafts_suite() {
    Suite::test_all(Builder).unwrap();
}

/// What a snapshot is made of, piece by piece.
fn pieces(data: &mut SnapshotData) -> Vec<bytes::Bytes> {
    std::iter::from_fn(|| data.next_piece().unwrap()).collect()
}

#[tokio::test]
async fn a_snapshot_of_one_shard_becomes_another() {
    let from = World::new(1, 1);
    let shards = from.open().await;
    for i in 0..60 {
        // More than one piece.
        write(first(&shards), |batch| {
            batch.put(format!("row {i:02}"), vec![b'x'; 20_000]);
            batch.add("n", 7);
        })
        .await;
    }
    let there = rows(&first(&shards).view().await.unwrap());
    let mut source = first(&shards).machine();
    let mut snapshot = source.build_snapshot().await.unwrap();
    // What comes later is not in it.
    write(first(&shards), |batch| batch.put("row 00", "later")).await;
    let pieces = pieces(&mut snapshot.snapshot);
    assert!(pieces.len() > 3, "{} pieces", pieces.len());

    let (world, _, mut sink) = Builder.build().await.unwrap();
    let mut effects = crate::Batch::new();
    effects.put("old", "1");
    effects.add("n", 1);
    let entry = super::entry(0, effects);
    sink.apply([entry]).await.unwrap();
    let before = sink.core.view().unwrap();

    // Broken, it changes nothing.
    let mut spool = sink.begin_receiving_snapshot().await.unwrap();
    for (i, piece) in pieces.iter().enumerate() {
        let mut piece = piece.to_vec();
        if i == 2 {
            piece[5000] ^= 1;
        }
        push(&mut spool, &piece);
    }
    assert!(sink.install_snapshot(&snapshot.meta, spool).await.is_err());
    assert_eq!(rows(&sink.core.view().unwrap()), [pair("old", "1")]);

    let mut spool = sink.begin_receiving_snapshot().await.unwrap();
    pieces.iter().for_each(|piece| push(&mut spool, piece));
    sink.install_snapshot(&snapshot.meta, spool).await.unwrap();
    let after = sink.core.view().unwrap();
    assert_eq!(rows(&after), there);
    assert_eq!(after.counter(b"n").unwrap(), 60 * 7);
    assert_eq!(
        sink.applied_state().await.unwrap().0,
        snapshot.meta.last_log_id
    );
    assert_eq!(rows(&before), [pair("old", "1")], "a view stays as it was");
    let left = world.env.disk.list(world.dir.path()).unwrap();
    assert!(
        !left.iter().any(|name| name.starts_with("snapshot")),
        "{left:?}"
    );
}

fn push(spool: &mut SnapshotData, piece: &[u8]) {
    match spool {
        SnapshotData::Spool(spool) => spool.push(piece).unwrap(),
        SnapshotData::Tree(_) => panic!("a snapshot to be sent"),
    }
}

#[tokio::test]
async fn a_flush_purges_the_log() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    // Several times the size of the log's files.
    for _ in 0..60 {
        write(first(&shards), |batch| batch.put("k", vec![1; 100_000])).await;
        shards.flush().await.unwrap();
    }
    let files = world.env.disk.list(&world.path(0).join("log")).unwrap();
    assert!(files.len() <= 5, "{files:?}");
}
