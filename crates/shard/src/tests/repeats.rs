//! Calls whose answers are lost: each has its effects once, and its caller learns which.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::{Clock, Env};
use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use testkit::Random;

use super::replicas::{SHARD, device, grow, led, until};
use super::{World, first, write};
use crate::call::{Call, Calls};
use crate::wire::{self, Answer, Reply};
use crate::{Batch, Error, Execution, Latch, Peers, Procedure, Registry, Shards, View};

/// Counts itself, and says when it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Count {
    has_latch: bool,
}

impl Procedure for Count {
    const NAME: &'static str = "count";

    type Output = Timestamp;
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        let latch = Latch::Exclusive("n".into());
        self.has_latch.then_some(latch).into_iter().collect()
    }

    fn plan(&self, now: Timestamp, _: &View) -> Result<(Batch, Timestamp), Execution<()>> {
        let mut batch = Batch::new();
        batch.add("n", 1);
        Ok((batch, now))
    }
}

/// Makes a row, unless there is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Create;

impl Procedure for Create {
    const NAME: &'static str = "create";

    type Output = ();
    type Error = String;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive("k".into())]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, ()), Execution<String>> {
        if view.get(b"k")?.is_some() {
            return Err(Execution::Refused("it exists".into()));
        }
        let mut batch = Batch::new();
        batch.put("k", "v");
        batch.add("n", 1);
        Ok((batch, ()))
    }
}

fn registry() -> Registry {
    Registry::new().procedure::<Count>().procedure::<Create>()
}

/// What becomes of a try.
#[derive(Clone, Copy, Debug)]
enum Way {
    Answered,
    /// It is executed, and nobody is told.
    AnswerLost,
    /// It is still under way when its caller gives it up.
    Late,
    /// It is executed, and then who leads leads no more.
    LeaderMoves,
    /// It is executed, and then who leads dies.
    LeaderDies,
}

/// The shards of other nodes, behind a network that loses answers.
struct Net {
    there: Shards,
    registry: Registry,
    /// What becomes of the next tries. The others are answered.
    ways: Mutex<VecDeque<Way>>,
    /// Those that are late.
    late: Mutex<Vec<(&'static str, Bytes)>>,
}

impl Net {
    /// The shards of a world, and who calls them from elsewhere.
    fn new(env: &Env, there: Shards) -> (Arc<Self>, Shards) {
        let net = Arc::new(Self {
            there,
            registry: registry(),
            ways: Mutex::default(),
            late: Mutex::default(),
        });
        let far = Shards::elsewhere(env, 1, net.clone());
        (net, far)
    }

    async fn run(&self, name: &str, call: Bytes) -> Bytes {
        self.registry.call(&self.there, SHARD, name, call).await
    }

    /// What was late arrives.
    async fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock());
        for (name, call) in late {
            self.run(name, call).await;
        }
    }

    async fn count(&self) -> i64 {
        let view = first(&self.there).view().await.unwrap();
        view.counter(b"n").unwrap()
    }

    async fn end(self: Arc<Self>, far: Shards) {
        drop(far);
        let net = Arc::into_inner(self).expect("nobody calls any more");
        net.there.shutdown().await.unwrap();
    }
}

impl Peers for Net {
    fn send(&self, _: DeviceId, _: ShardId, _: Bytes) {}

    fn send_piece(&self, _: DeviceId, _: ShardId, _: Bytes) -> BoxFuture<'_, Result<Bytes, Error>> {
        async { Err(Error::Unknown) }.boxed()
    }

    fn call(
        &self,
        _: DeviceId,
        _: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let way = self.ways.lock().pop_front().unwrap_or(Way::Answered);
            if let Way::Late = way {
                self.late.lock().push((name, call));
                return Err(Error::Unknown);
            }
            let answer = self.run(name, call).await;
            match way {
                Way::Answered => return Ok(answer),
                Way::LeaderMoves => {
                    if let Some(now) = led(&self.there) {
                        let mut others = now.voters.keys().filter(|one| **one != now.leader);
                        let next = others.next().expect("there are three");
                        self.there.transfer(SHARD, *next);
                    }
                }
                Way::LeaderDies => first(&self.there).leader().stop(),
                Way::AnswerLost | Way::Late => {}
            }
            Err(Error::Unknown)
        }
        .boxed()
    }

    fn replicas(&self, _: ShardId) -> Vec<DeviceId> {
        (0..3).map(device).collect()
    }
}

/// Three replicas elsewhere.
async fn three(world: &World, ways: &[Way]) -> (Arc<Net>, Shards) {
    let there = world.open().await;
    grow(&there).await;
    let (net, far) = Net::new(&world.env, there);
    // From the answer it knows a place in the log.
    let count = Count { has_latch: false };
    first(&far).execute(count).await.unwrap();
    write(first(&net.there), |batch| batch.add("n", -1)).await;
    net.ways.lock().extend(ways);
    (net, far)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_without_an_answer_is_repeated_and_counts_once() {
    let world = World::new(3, 1);
    let (net, far) = three(&world, &[]).await;
    let mut count = 0;
    let mut times = BTreeSet::new();
    for has_latch in [true, false] {
        for way in [
            Way::Answered,
            Way::AnswerLost,
            Way::Late,
            Way::LeaderMoves,
            Way::LeaderMoves,
        ] {
            net.ways.lock().extend([way]);
            let done = first(&far).execute(Count { has_latch }).await;
            times.insert(done.unwrap());
            count += 1;
            assert_eq!(net.count().await, count, "{way:?}");
            net.deliver().await;
            assert_eq!(net.count().await, count, "{way:?}, late");
        }
    }
    assert_eq!(times.len(), 10, "each execution has its time");
    net.end(far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_next_knows_what_the_one_that_died_had_decided() {
    for has_latch in [true, false] {
        let world = World::new(3, 1);
        let (net, far) = three(&world, &[]).await;
        let dead = led(&net.there).unwrap().leader;
        net.ways.lock().extend([Way::LeaderDies]);
        let done = first(&far).execute(Count { has_latch }).await;
        assert_eq!(net.count().await, 1);
        assert_ne!(led(&net.there).unwrap().leader, dead);
        // It was remembered and not made again.
        let later = first(&far).execute(Count { has_latch }).await;
        assert!(done.unwrap() < later.unwrap());
        assert_eq!(net.there.recalled(), 1);
        net.end(far).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_is_not_broken_by_the_first_try() {
    let world = World::new(3, 1);
    let (net, far) = three(&world, &[Way::LeaderMoves]).await;
    assert_eq!(first(&far).execute(Create).await, Ok(()));
    let exists = Err(Execution::Refused("it exists".to_owned()));
    assert_eq!(first(&far).execute(Create).await, exists);
    // A lost refusal is a refusal still.
    net.ways.lock().extend([Way::AnswerLost, Way::AnswerLost]);
    assert_eq!(first(&far).execute(Create).await, exists);
    assert_eq!(net.count().await, 1);
    net.end(far).await;
}

/// What was refused does not happen later, whatever is still under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final() {
    let world = World::new(3, 1);
    let (net, far) = three(&world, &[]).await;
    assert_eq!(first(&far).execute(Create).await, Ok(()));
    net.ways.lock().extend([Way::Late, Way::Answered]);
    let refused = first(&far).execute(Create).await;
    assert_eq!(refused, Err(Execution::Refused("it exists".to_owned())));
    write(first(&net.there), |batch| batch.delete("k")).await;
    net.ways.lock().extend([Way::LeaderMoves]);
    first(&far)
        .execute(Count { has_latch: false })
        .await
        .unwrap();
    net.deliver().await;
    let view = first(&net.there).view().await.unwrap();
    assert_eq!(view.get(b"k").unwrap(), None);
    drop(view);
    net.end(far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_lost_each_call_counts_once() {
    const CALLERS: usize = 4;
    const CALLS: usize = 20;
    let seed = 0x5eed_0001_u64;
    let mut random = Random::new(seed);
    let ways: Vec<_> = (0..CALLERS * CALLS * 2)
        .map(|_| match random.below(40) {
            0..14 => Way::AnswerLost,
            14..24 => Way::Late,
            24 => Way::LeaderMoves,
            _ => Way::Answered,
        })
        .collect();
    let world = World::new(3, 1);
    let (net, far) = three(&world, &ways).await;
    let far = Arc::new(far);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (far, net) = (far.clone(), net.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                for call in 0..CALLS {
                    let has_latch = (caller + call) % 2 == 0;
                    let done = first(&far).execute(Count { has_latch }).await;
                    times.push(done.expect("everything is answered in the end"));
                    if call % 3 == 0 {
                        net.deliver().await;
                    }
                }
                times
            })
        })
        .collect();
    let mut times = BTreeSet::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    net.deliver().await;
    let calls = CALLERS * CALLS;
    assert_eq!(times.len(), calls, "seed {seed:x}");
    let count = net.count().await;
    assert_eq!(count, calls as i64, "seed {seed:x}");
    net.end(Arc::into_inner(far).unwrap()).await;
}

/// Callers on the node whose replica leads, and dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_outlive_the_leader_beside_them() {
    let world = World::new(3, 1);
    let shards = Arc::new(world.open().await);
    grow(&shards).await;
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let shards = shards.clone();
            tokio::spawn(async move {
                for call in 0..30 {
                    let has_latch = (caller + call) % 2 == 0;
                    let done = first(&shards).execute(Count { has_latch }).await;
                    done.unwrap();
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    first(&shards).leader().stop();
    for caller in callers {
        caller.await.unwrap();
    }
    let view = first(&shards).view().await.unwrap();
    assert_eq!(view.counter(b"n").unwrap(), 8 * 30);
    drop(view);
    Arc::into_inner(shards).unwrap().shutdown().await.unwrap();
}

/// Tries a call, as if it came from another node.
async fn try_count(shards: &Shards, call: Call) -> Answer<Timestamp, ()> {
    let count = Count { has_latch: false };
    let call = wire::encode(&(call, count));
    let reply = registry().call(shards, SHARD, "count", call).await;
    let reply: Reply<Timestamp, ()> = wire::decode(&reply).unwrap();
    reply.answer
}

#[track_caller]
fn done(answer: Answer<Timestamp, ()>) -> Timestamp {
    match answer {
        Answer::Done(time) => time,
        Answer::Forgotten(_) => panic!("forgotten"),
        _ => panic!("not done"),
    }
}

async fn check_count(shards: &Shards, expected: i64) {
    let view = first(shards).view().await.unwrap();
    assert_eq!(view.counter(b"n").unwrap(), expected);
}

#[tokio::test]
async fn a_start_knows_the_calls_of_the_log_and_forgets_those_of_the_tree() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let call = Calls::new(&world.env).first_try(first(&shards).position());
    let time = done(try_count(&shards, call).await);
    let repeat = Call {
        is_repeat: true,
        ..call
    };
    assert_eq!(done(try_count(&shards, repeat).await), time);
    shards.kill().await;

    let shards = world.open().await;
    assert_eq!(done(try_count(&shards, repeat).await), time);
    shards.shutdown().await.unwrap();

    let shards = world.open().await;
    // A first try that comes so late might be another one's repetition.
    for late in [repeat, call] {
        let Answer::Forgotten(position) = try_count(&shards, late).await else {
            panic!("it cannot know");
        };
        assert!(position > call.since);
    }
    check_count(&shards, 1).await;
    // Who calls for the first time comes again, with a place that it has been told.
    let Answer::Forgotten(since) = try_count(&shards, call).await else {
        panic!("it cannot know");
    };
    let fresh = Calls::new(&world.env).first_try(since);
    done(try_count(&shards, fresh).await);
    check_count(&shards, 2).await;
    shards.shutdown().await.unwrap();
}

/// A clock that a test puts forward.
struct Ahead {
    real: Arc<dyn Clock>,
    secs: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn monotonic(&self) -> Duration {
        let ahead = Duration::from_secs(self.secs.load(Ordering::Relaxed));
        self.real.monotonic() + ahead
    }
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_not_executed_again() {
    let mut world = World::new(1, 1);
    let ahead = Arc::new(Ahead {
        real: world.env.clock.clone(),
        secs: AtomicU64::new(0),
    });
    world.env.clock = ahead.clone();
    let shards = world.open().await;
    let calls = Calls::new(&world.env);
    let call = calls.first_try(first(&shards).position());
    let time = done(try_count(&shards, call).await);
    let repeat = Call {
        is_repeat: true,
        ..call
    };
    ahead.secs.store(29, Ordering::Relaxed);
    write(first(&shards), |batch| batch.put("k", "v")).await;
    assert_eq!(done(try_count(&shards, repeat).await), time);
    ahead.secs.store(32, Ordering::Relaxed);
    write(first(&shards), |batch| batch.put("k", "v")).await;
    let answer = try_count(&shards, repeat).await;
    assert!(matches!(answer, Answer::Forgotten(_)));
    check_count(&shards, 1).await;
    // Another call of that time might have been done as well; one of now was not.
    let other = Call {
        is_repeat: true,
        ..calls.first_try(call.since)
    };
    let answer = try_count(&shards, other).await;
    assert!(matches!(answer, Answer::Forgotten(_)));
    let since = first(&shards).position();
    let other = Call { since, ..other };
    done(try_count(&shards, other).await);
    check_count(&shards, 2).await;
    shards.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_made_of_a_snapshot_does_not_know_what_was_before() {
    let world = World::new(3, 1);
    let shards = world.open().await;
    let calls = Calls::new(&world.env);
    let before = calls.first_try(first(&shards).position());
    done(try_count(&shards, before).await);
    for number in 0..150 {
        // More than of the log is kept.
        let value = vec![b'x'; 20_000];
        write(first(&shards), |batch| {
            batch.put(format!("{number:03}"), value);
        })
        .await;
    }
    shards.flush().await.unwrap();
    grow(&shards).await;
    let since = calls.first_try(first(&shards).position());
    let time = done(try_count(&shards, since).await);
    let old = led(&shards).unwrap().leader;
    let next = device((1..3).find(|one| device(*one) != old).unwrap());
    until("it leads", async || {
        let now = led(&shards)?;
        if now.leader != next {
            shards.transfer(SHARD, next);
            return None;
        }
        Some(())
    })
    .await;
    let repeat = |call| Call {
        is_repeat: true,
        ..call
    };
    let answer = try_count(&shards, repeat(before)).await;
    assert!(matches!(answer, Answer::Forgotten(_)));
    assert_eq!(done(try_count(&shards, repeat(since)).await), time);
    check_count(&shards, 2).await;
    shards.shutdown().await.unwrap();
}

/// Two tries of a call at the same time: the one waits for the other, whether they have latches or not.
#[tokio::test]
async fn a_try_waits_for_one_that_is_under_way() {
    let world = World::new(1, 1);
    let shards = world.open().await;
    let calls = Calls::new(&world.env);
    for round in 1..=50 {
        let call = calls.first_try(first(&shards).position());
        let repeat = Call {
            is_repeat: true,
            ..call
        };
        let both = [call, repeat].map(|call| try_count(&shards, call));
        let [one, other] = futures_util::future::join_all(both)
            .await
            .try_into()
            .unwrap_or_else(|_| panic!("two tries"));
        let other = done(other);
        // If they met, who no longer listens is told nothing.
        if let Answer::Done(one) = one {
            assert_eq!(one, other);
        }
        check_count(&shards, round).await;
    }
    shards.shutdown().await.unwrap();
}
