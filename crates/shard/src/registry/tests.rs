use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::call::RequestId;
use crate::tests::TokioClock;
use crate::{Batch, Error, Execution, Latch, Peers, View};

/// Sets a key, or refuses to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Set {
    key: Bytes,
    value: Option<Bytes>,
}

impl Procedure for Set {
    const NAME: &'static str = "set";

    type Output = Timestamp;
    type Error = String;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.key.clone())]
    }

    fn plan(&self, now: Timestamp, _: &View) -> Result<(Batch, Timestamp), Execution<String>> {
        let mut batch = Batch::new();
        let value = self.value.clone();
        batch.put(
            self.key.clone(),
            value.ok_or(Execution::Refused("no".into()))?,
        );
        Ok((batch, now))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Get {
    key: Bytes,
}

impl Query for Get {
    const NAME: &'static str = "get";

    type Output = Option<Bytes>;
    type Error = String;

    fn answer(&self, view: &View) -> Result<Option<Bytes>, Execution<String>> {
        Ok(view.get(&self.key)?)
    }
}

fn registry() -> Registry {
    Registry::new().procedure::<Set>().query::<Get>()
}

/// The node of each device, as calls find it.
struct Far<F> {
    devices: Vec<DeviceId>,
    answer: F,
}

/// The answer of a device to a call.
type Answered = BoxFuture<'static, Result<Bytes, Error>>;

impl<F> Peers for Far<F>
where
    F: Fn(DeviceId, ShardId, &'static str, Bytes) -> Answered + Send + Sync + 'static,
{
    fn send(&self, _: DeviceId, _: ShardId, _: Bytes) {}

    fn send_piece(&self, _: DeviceId, _: ShardId, _: Bytes) -> BoxFuture<'_, Result<Bytes, Error>> {
        async { Err(Error::Unknown) }.boxed()
    }

    fn call(
        &self,
        to: DeviceId,
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        (self.answer)(to, shard, name, call)
    }

    fn replicas(&self, _: ShardId) -> Vec<DeviceId> {
        self.devices.clone()
    }
}

fn far(
    answer: impl Fn(DeviceId, ShardId, &'static str, Bytes) -> Answered + Send + Sync + 'static,
) -> Shards {
    let devices = vec![DeviceId(1), DeviceId(2)];
    Shards::elsewhere(&TokioClock::env(), 2, Arc::new(Far { devices, answer }))
}

/// Shards in the same process, through their wire forms.
fn near(registry: Registry, here: Shards) -> Shards {
    let there = Arc::new((registry, here));
    far(move |_, shard, name, call| {
        let there = there.clone();
        async move { Ok(there.0.call(&there.1, shard, name, call).await) }.boxed()
    })
}

/// Every call has this answer.
fn answers(answer: Result<Bytes, Error>) -> Shards {
    far(move |_, _, _, _| std::future::ready(answer.clone()).boxed())
}

fn reply<T: Wire, E: Wire>(answer: Answer<T, E>) -> Bytes {
    let position = 300;
    wire::encode(&Reply { position, answer })
}

/// The first try of a call.
fn first_try(procedure: Set) -> (Call, Set) {
    let request = RequestId {
        origin: 1,
        number: 2,
    };
    let call = Call {
        request,
        is_repeat: false,
        since: 300,
    };
    (call, procedure)
}

fn set(value: Option<&'static str>) -> Set {
    Set {
        key: "k".into(),
        value: value.map(Bytes::from),
    }
}

fn get() -> Get {
    Get { key: "k".into() }
}

#[tokio::test]
async fn a_shard_elsewhere_is_used_as_one_that_is_here() {
    let here = Shards::volatile(&Env::real(), 2);
    let far = near(registry(), here);
    let shard = far.get(ShardId(1));
    assert_eq!(shard.query(get()).await, Ok(None));
    let first = shard.execute(set(Some("v"))).await.unwrap();
    assert_eq!(shard.query(get()).await, Ok(Some("v".into())));
    assert!(shard.execute(set(Some("w"))).await.unwrap() > first);
    let refused = shard.execute(set(None)).await;
    assert_eq!(refused, Err(Execution::Refused("no".to_owned())));
    assert_eq!(far.get(ShardId(0)).query(get()).await, Ok(None));
    assert!(shard.view().await.is_err());
}

#[tokio::test]
async fn a_shard_elsewhere_is_exported_as_one_that_is_here() {
    let here = Shards::volatile(&Env::real(), 2);
    let far = near(registry(), here);
    let shard = far.get(ShardId(1));
    shard.execute(set(Some("v"))).await.unwrap();
    let export = shard.open_export().await.unwrap();
    shard.execute(set(Some("w"))).await.unwrap();
    let piece = shard.read_export(&export, Bytes::new()).await.unwrap();
    let expected = (Bytes::from("k"), crate::Exported::Row("v".into()));
    assert_eq!((piece.rows, piece.is_last), (vec![expected], true));
    let lost = shard.read_export(&export, Bytes::new()).await;
    assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn every_failure_of_a_shard_arrives() {
    let retry_in = Duration::new(3, 7);
    let all = [
        Error::Unavailable { retry_in },
        Error::OutOfSpace,
        Error::Unknown,
        Error::Damaged("k".to_owned()),
    ];
    for error in all {
        let far = answers(Ok(reply(Answer::<(), ()>::Failed(error.clone()))));
        let failed = far.get(ShardId(0)).execute(set(None)).await;
        assert_eq!(failed, Err(Execution::Shard(error.clone())));
    }
    // Sent, and not answered.
    let far = answers(Err(Error::Unknown));
    let failed = far.get(ShardId(0)).execute(set(None)).await;
    assert_eq!(failed, Err(Execution::Shard(Error::Unknown)));
    let failed = far.get(ShardId(0)).query(get()).await;
    // It cannot have changed anything.
    assert!(matches!(
        failed,
        Err(Execution::Shard(Error::Unavailable { .. }))
    ));
}

#[tokio::test]
async fn the_leader_is_looked_for() {
    let here = Arc::new((registry(), Shards::volatile(&Env::real(), 2)));
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let shards = {
        let asked = asked.clone();
        far(move |device, shard, name, call| {
            asked.lock().push(device.0);
            let (here, count) = (here.clone(), asked.lock().len());
            async move {
                match (count, device.0) {
                    // Not reached: then the other one.
                    (1, _) => Err(Error::Unavailable {
                        retry_in: Duration::ZERO,
                    }),
                    (_, 2) => {
                        let elsewhere = Answer::<(), ()>::Elsewhere(Some(DeviceId(7)));
                        Ok(reply(elsewhere))
                    }
                    _ => Ok(here.0.call(&here.1, shard, name, call).await),
                }
            }
            .boxed()
        })
    };
    shards
        .get(ShardId(0))
        .execute(set(Some("v")))
        .await
        .unwrap();
    assert_eq!(*asked.lock(), [1, 2, 7]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_leaves_the_outcome_unknown() {
    for bytes in ["", "\u{2}", "\u{1}\u{0}\u{0}\u{0}", "\u{2}\u{0}\u{9}"] {
        let far = answers(Ok(bytes.into()));
        let failed = far.get(ShardId(0)).execute(set(None)).await;
        assert_eq!(failed, Err(Error::Unknown.into()), "{bytes:?}");
    }
}

/// What a leader of another version says to what it does not know.
#[tokio::test]
async fn what_is_not_understood_is_refused_and_not_run() {
    let here = Shards::volatile(&Env::real(), 1);
    let registry = registry();
    let good = wire::encode(&first_try(set(Some("v"))));
    let longer: Bytes = [&good[..], &[0]].concat().into();
    let later: Bytes = [&[3], &good[1..]].concat().into();
    let calls = [
        (ShardId(0), "unset", good.clone()),
        (ShardId(1), "set", good.clone()),
        (ShardId(0), "set", good.slice(..good.len() - 1)),
        (ShardId(0), "set", longer),
        (ShardId(0), "set", later),
        (ShardId(0), "set", Bytes::new()),
    ];
    for (shard, name, call) in calls {
        let answer = registry.call(&here, shard, name, call.clone()).await;
        let reply: Reply<Timestamp, String> = wire::decode(&answer).unwrap();
        assert!(
            matches!(reply.answer, Answer::NotUnderstood(_)),
            "{name} {call:?}"
        );
    }
    assert_eq!(here.get(ShardId(0)).query(get()).await, Ok(None));

    let far = near(Registry::new(), here);
    let failed = far.get(ShardId(0)).execute(set(Some("v"))).await;
    let is_unavailable = matches!(failed, Err(Execution::Shard(Error::Unavailable { .. })));
    assert!(is_unavailable);
}

#[test]
#[should_panic(expected = "only one call has the name get")]
fn a_name_is_given_once() {
    let _ = registry().query::<Get>();
}

/// The form of version 2, as docs/formats/call.md has it.
#[test]
fn calls_and_answers_are_as_they_were() {
    let call = wire::encode(&first_try(set(Some("v"))));
    assert_eq!(&call[..], b"\x02\x01\x02\x00\xac\x02\x01k\x01\x01v");
    assert_eq!(&wire::encode(&get())[..], b"\x02\x01k");
    let done = reply(Answer::<_, ()>::Done(Some(300u64)));
    assert_eq!(&done[..], b"\x02\xac\x02\x00\x01\xac\x02");
    let refused = reply(Answer::<(), _>::Refused(7u64));
    assert_eq!(&refused[..], b"\x02\xac\x02\x01\x07");
    let retry_in = Duration::new(2, 5);
    let all = [
        (
            Error::Unavailable { retry_in },
            &b"\x02\xac\x02\x02\x00\x02\x05"[..],
        ),
        (Error::OutOfSpace, b"\x02\xac\x02\x02\x01"),
        (Error::Unknown, b"\x02\xac\x02\x02\x02"),
        (Error::Damaged("k".to_owned()), b"\x02\xac\x02\x02\x03\x01k"),
    ];
    for (error, bytes) in all {
        assert_eq!(&reply(Answer::<(), ()>::Failed(error))[..], bytes);
    }
    let not = reply(Answer::<(), ()>::NotUnderstood("k".to_owned()));
    assert_eq!(&not[..], b"\x02\xac\x02\x03\x01k");
    let forgotten = reply(Answer::<(), ()>::Forgotten(7));
    assert_eq!(&forgotten[..], b"\x02\xac\x02\x05\x07");
}

/// A call is tried anew if it did nothing, and again if nobody knows.
#[tokio::test(start_paused = true)]
async fn each_try_says_what_is_known_of_those_before() {
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let shards = {
        let seen = seen.clone();
        far(move |_, _, _, call| {
            let (call, _): (Call, Set) = wire::decode(&call).unwrap();
            seen.lock().push(call);
            let answer = match seen.lock().len() {
                1 => Ok(reply(Answer::<(), ()>::Elsewhere(None))),
                2 => Ok(reply(Answer::<(), ()>::Forgotten(500))),
                3 => Err(Error::Unknown),
                4 => Ok(reply(Answer::<(), ()>::Elsewhere(None))),
                // It did nothing, but the third may have.
                _ => Ok(reply(Answer::<(), ()>::Failed(Error::OutOfSpace))),
            };
            std::future::ready(answer).boxed()
        })
    };
    let shard = shards.get(ShardId(0));
    let failed = shard.execute(set(Some("v"))).await;
    assert_eq!(failed, Err(Error::Unknown.into()));
    let seen = std::mem::take(&mut *seen.lock());
    let said: Vec<_> = seen.iter().map(|c| (c.is_repeat, c.since)).collect();
    let expected = [
        (false, 0),
        (false, 0),
        (false, 500),
        (true, 500),
        (true, 500),
    ];
    assert_eq!(said, expected);
    assert!(seen.iter().all(|call| call.request == seen[0].request));
    // What an answer said, the next call knows.
    assert_eq!(shard.position(), 300);
}

/// Nobody remembers: then the outcome stays unknown, and nothing is executed.
#[tokio::test(start_paused = true)]
async fn a_repetition_that_nobody_remembers_is_the_last() {
    let tries = Arc::new(parking_lot::Mutex::new(0));
    let shards = {
        let tries = tries.clone();
        far(move |_, _, _, _| {
            *tries.lock() += 1;
            let answer = match *tries.lock() {
                1 => Err(Error::Unknown),
                _ => Ok(reply(Answer::<(), ()>::Forgotten(500))),
            };
            std::future::ready(answer).boxed()
        })
    };
    let failed = shards.get(ShardId(0)).execute(set(Some("v"))).await;
    assert_eq!(failed, Err(Error::Unknown.into()));
    assert_eq!(*tries.lock(), 2);
}

/// Half a minute, and some hundred tries.
#[tokio::test(start_paused = true)]
async fn repetitions_have_an_end() {
    let tries = Arc::new(parking_lot::Mutex::new(0));
    let shards = {
        let tries = tries.clone();
        far(move |_, _, _, _| {
            *tries.lock() += 1;
            std::future::ready(Err(Error::Unknown)).boxed()
        })
    };
    let started = tokio::time::Instant::now();
    let failed = shards.get(ShardId(0)).execute(set(Some("v"))).await;
    assert_eq!(failed, Err(Error::Unknown.into()));
    let took = started.elapsed().as_secs();
    assert!((30..32).contains(&took), "{took}");
    assert!((50..100).contains(&*tries.lock()), "{}", tries.lock());
}

proptest! {
    #[test]
    fn any_bytes_are_a_call_or_an_error(mut bytes: Vec<u8>, versioned: bool) {
        if versioned && let Some(first) = bytes.first_mut() {
            *first = 2;
        }
        let _ = wire::decode::<(Call, Set)>(&bytes);
        let _ = wire::decode::<Reply<Option<Bytes>, String>>(&bytes);
        let _ = wire::decode::<Reply<Vec<u64>, Error>>(&bytes);
    }
}
