//! Several replicas of a shard, on devices of one process.

use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, ShardId};

use super::{World, commit, first, pair, rows, write};
use crate::{Batch, Led, Shards};

pub(super) const SHARD: ShardId = ShardId(0);

pub(super) fn device(number: u16) -> DeviceId {
    DeviceId(u128::from(number) + 1)
}

/// Waits until it holds, however busy the machine is.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain: {what}");
}

pub(super) fn led(shards: &Shards) -> Option<Led> {
    shards.led().into_iter().find(|led| led.shard == SHARD)
}

/// Makes the shard's only replica three.
pub(super) async fn grow(shards: &Shards) {
    let before = until("a leader", async || led(shards)).await;
    let mut all: Vec<_> = before.voters.iter().map(|(d, id)| (*d, *id)).collect();
    let first = all.clone();
    for number in 1..3 {
        let id = shards.create(device(number), SHARD).await.unwrap();
        all.push((device(number), id));
    }
    assert!(shards.change(SHARD, before.term, &first, &all[1..]));
    until("the learners have caught up", async || {
        let now = led(shards)?;
        (now.is_settled && now.ready.len() == 2).then_some(())
    })
    .await;
    let term = led(shards).unwrap().term;
    assert!(!shards.change(SHARD, term + 1, &all, &[]), "another reign");
    assert!(shards.change(SHARD, term, &all, &[]));
    until("three voters", async || {
        let now = led(shards)?;
        (now.is_settled && now.voters.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_becomes_three_and_each_has_everything() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    for number in 0..60 {
        // More than one piece of a snapshot.
        write(first(&shards), |batch| {
            batch.put(format!("{number:02}"), vec![b'x'; 20_000]);
            batch.add("n", 7);
        })
        .await;
    }
    shards.flush().await.unwrap();
    grow(&shards).await;
    write(first(&shards), |batch| batch.put("later", "v")).await;
    let expected = rows(&first(&shards).view().await.unwrap());
    assert_eq!(expected.len(), 61);
    assert_eq!(shards.replicas().len(), 3);

    // Each leads once, and answers as the one before it did.
    for number in [1, 2, 0] {
        let to = device(number);
        until("it leads", async || {
            let now = led(&shards);
            if now.as_ref().is_some_and(|now| now.leader == to) {
                return Some(());
            }
            shards.transfer(SHARD, to);
            None
        })
        .await;
        write(first(&shards), |batch| {
            batch.put("leads", format!("{number}"))
        })
        .await;
        let view = first(&shards).view().await.unwrap();
        assert_eq!(view.get(b"leads").unwrap().unwrap(), format!("{number}"));
        assert_eq!(view.counter(b"n").unwrap(), 60 * 7);
        let mut found = rows(&view);
        found.retain(|(key, _)| key != "leads");
        assert_eq!(found, expected);
    }
    shards.shutdown().await.unwrap();

    // And all is there after a start.
    let shards = world.open().await;
    let mut found = rows(&first(&shards).view().await.unwrap());
    found.retain(|(key, _)| key != "leads");
    assert_eq!(found, expected);
    shards.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_shows_all_that_was_acknowledged() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    grow(&shards).await;
    let leader = led(&shards).unwrap().leader;
    let devices = (0..3).map(device).filter(|device| *device != leader);
    let followers: Vec<_> = devices
        .map(|device| shards.table.get(SHARD, device).expect("it is here"))
        .collect();
    for number in 0..100 {
        let value = format!("{number}");
        write(first(&shards), |batch| batch.put("k", value.clone())).await;
        for follower in &followers {
            // One that lags for a moment says so, and shows nothing.
            let view = until("it keeps up", async || follower.view().await.ok()).await;
            assert_eq!(view.get(b"k").unwrap().unwrap(), value);
        }
    }
    assert!(followers.iter().all(|follower| !follower.is_leader()));
    shards.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_readers_on_another_node_ask_is_answered_at_once() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    grow(&shards).await;
    write(first(&shards), |batch| batch.put("k", "v")).await;
    let before = led(&shards).unwrap();
    let leader = shards.table.get(SHARD, before.leader).unwrap();
    let followers = before.voters.iter().filter(|(on, _)| **on != before.leader);
    for (device, id) in followers {
        let say = |body| raft::Message {
            from: *id,
            to: leader.id(),
            term: before.term,
            body,
        };
        // Its lock may be taken in this moment: then the answer comes by itself.
        let answer = until("an answer", async || {
            leader.converse(*device, say(raft::Body::ReadIndex { number: 7 }))
        });
        let answer = answer.await;
        assert_eq!((answer.from, answer.to), (leader.id(), *id));
        let raft::Body::ReadIndexReply { number: 7, index } = answer.body else {
            panic!("{answer:?}");
        };
        assert!(index >= leader.position());
        // What is not for readers is for the replica's task.
        let vote = raft::Body::VoteReply { granted: false };
        assert_eq!(leader.converse(*device, say(vote)), None);
    }
    shards.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_leaves_takes_nothing_with_it_and_comes_back_as_another() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    grow(&shards).await;
    let before = led(&shards).unwrap();
    let voters = before.voters.iter().map(|(device, id)| (*device, *id));
    let (mut leave, stay): (Vec<_>, Vec<_>) = voters.partition(|(one, _)| *one != before.leader);
    let (leaver, id) = leave.remove(0);
    let stay = [stay, leave].concat();
    assert!(shards.change(SHARD, before.term, &stay, &[]));
    until("it has left", async || {
        let now = led(&shards)?;
        (now.is_settled && now.voters.len() == 2).then_some(())
    })
    .await;
    shards.destroy(leaver, SHARD).await.unwrap();
    write(first(&shards), |batch| batch.put("k", "without it")).await;
    assert_eq!(shards.replicas().len(), 2);

    let again = shards.create(leaver, SHARD).await.unwrap();
    assert_ne!(again, id);
    assert_eq!(shards.create(leaver, SHARD).await.unwrap(), again);
    shards.kill().await;
    let shards = world.open().await;
    assert_eq!(
        shards.create(leaver, SHARD).await.unwrap(),
        again,
        "it lives on"
    );
    until("it is a voter again", async || {
        let now = led(&shards)?;
        let mut all = stay.clone();
        all.push((leaver, again));
        if now.is_settled && now.voters.len() == 2 {
            shards.change(SHARD, now.term, &all, &[]);
        }
        (now.is_settled && now.voters.len() == 3 && now.ready.len() == 2).then_some(())
    })
    .await;
    write(first(&shards), |batch| batch.put("l", "with it")).await;
    let found = rows(&first(&shards).view().await.unwrap());
    assert_eq!(found, [pair("k", "without it"), pair("l", "with it")]);
    shards.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_where_the_old_one_was_under_load() {
    let world = World::new(3, 1);
    let shards = Arc::new(world.open().await);
    grow(&shards).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let shards = shards.clone();
            tokio::spawn(async move {
                let mut done = 0;
                for number in 0..50 {
                    let mut batch = Batch::new();
                    batch.put(format!("{task}/{number:02}"), "v");
                    batch.add("n", 1);
                    commit(first(&shards), batch).await.unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    for number in [1, 2, 0, 2, 1] {
        shards.transfer(SHARD, device(number));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let view = first(&shards).view().await.unwrap();
    assert_eq!(done, 400);
    assert_eq!(view.counter(b"n").unwrap(), done);
    assert_eq!(rows(&view).len(), 400);
    drop(view);
    Arc::into_inner(shards).unwrap().shutdown().await.unwrap();
}

/// What the tree has of a membership may be old: from before the shard grew, or of another replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_without_the_others_and_answers_nothing() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    grow(&shards).await;
    write(first(&shards), |batch| batch.put("k", "v")).await;
    shards.kill().await;
    for number in 0..3 {
        let devices = vec![world.free_device(number).await];
        let opened = Shards::open(&world.env, devices, 1, world.config.clone(), None);
        let opened = tokio::time::timeout(Duration::from_secs(30), opened).await;
        let shards = opened.expect("nobody is waited for").unwrap();
        assert!(first(&shards).view().await.is_err(), "{number}");
        assert!(led(&shards).is_none());
        shards.kill().await;
    }
    let shards = world.open().await;
    let found = rows(&first(&shards).view().await.unwrap());
    assert_eq!(found, [pair("k", "v")]);
    shards.shutdown().await.unwrap();
}
