//! A node whose shards are led elsewhere, and the network between them loses answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{DeviceId, ShardId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shard::{Error, Peers, Registry, Shards};

use super::world::World;
use crate::{Condition, Config, Created, Error as Refused};

/// Runs every call where the shards are, and loses the answers to the next few.
struct Net {
    there: Arc<Shards>,
    registry: Registry,
    lost: AtomicUsize,
}

impl Net {
    fn lose(&self, answers: usize) {
        self.lost.store(answers, Ordering::Relaxed);
    }

    /// Whether this answer is lost.
    fn loses(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.lost
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
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
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let answer = self.registry.call(&self.there, shard, name, call).await;
            match self.loses() {
                true => Err(Error::Unknown),
                false => Ok(answer),
            }
        }
        .boxed()
    }

    fn replicas(&self, _: ShardId) -> Vec<DeviceId> {
        vec![DeviceId(1)]
    }
}

/// A world on a disk, used from a node without any of it.
async fn elsewhere() -> (World, Arc<Net>) {
    let mut world = World::on_disk(1, Config::default()).await;
    let net = Arc::new(Net {
        there: world.shards.clone(),
        registry: crate::registry(),
        lost: AtomicUsize::new(0),
    });
    world.use_through(net.clone()).await;
    (world, net)
}

#[tokio::test]
async fn a_put_under_a_condition_survives_the_loss_of_its_answer() {
    let (world, net) = elsewhere().await;
    let container = world.container("c").await;
    for lost in 1..4 {
        let name = format!("o{lost}");
        let put = |condition| {
            let set = |put: &mut crate::PutObject| put.condition = condition;
            world.put_with(&container, &name, b"body", set)
        };
        net.lose(lost);
        let written = put(Condition::Absent).await.unwrap();
        assert_eq!(written.created, Created::New, "the first try's answer");
        net.lose(lost);
        let refused = put(Condition::Absent).await;
        assert_eq!(refused.err(), Some(Refused::Precondition));
        net.lose(lost);
        let written = put(Condition::Present).await.unwrap();
        assert_eq!(written.created, Created::Existed);
    }
    net.lose(1);
    let delete = |name| {
        let namespace = &world.namespace;
        namespace.delete_object(&container, name, Condition::None, None)
    };
    delete("o1").await.unwrap();
    net.lose(1);
    assert!(matches!(delete("o1").await, Err(Refused::NotFound(_))));
    let now = world.namespace.container_held("a", "c").await.unwrap();
    let held = (now.1.objects, now.1.bytes);
    assert_eq!(held, (2, 8), "each was counted once");
}
