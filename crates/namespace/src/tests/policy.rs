//! Policies that were added through other nodes.

use std::time::Duration;

use base::NodeId;
use map::{Map, NamedPolicy, Node};

use super::world::World;

fn change(world: &World, change: impl FnOnce(&mut Map)) {
    let current = world.namespace.chunks().map();
    let mut map = (*current.get()).clone();
    map.epoch = map.epoch.next();
    change(&mut map);
    assert!(current.advance(map));
}

fn add(map: &mut Map) {
    map.policies.list.push(NamedPolicy {
        name: "cold".into(),
        policy: Map::POLICY,
    });
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_was_just_added_elsewhere_is_waited_for() {
    let world = World::new(1).await;
    let began = tokio::time::Instant::now();
    assert_eq!(world.namespace.find_policy("cold").await, None);
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "nobody else can have added it"
    );
    change(&world, |map| {
        drop(map.nodes.insert(NodeId(2), Node::default()))
    });
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        change(&world, add);
    };
    let (found, ()) = tokio::join!(world.namespace.find_policy("Cold"), later);
    assert_eq!(found, Some(1));
    assert_eq!(world.namespace.find_policy("warm").await, None);
}
