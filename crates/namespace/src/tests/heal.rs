//! Copies that are bad or missing are made again, and those of garbage are not.

use std::time::Duration;

use base::{DeviceId, GroupId};
use map::{Fill, Map, Member, State};

use super::world::World;
use crate::Condition;
use crate::heal::Healer;

static LARGE: [u8; 50_000] = [7; 50_000];

/// A world in which every chunk has two copies.
async fn twofold() -> World {
    let world = World::new(1).await;
    change(&world, |map| {
        let members = [1, 2].map(|id| Member {
            index: 0,
            device: DeviceId(id),
            fill: Fill::Full,
        });
        map.groups.retain(|id, _| *id == GroupId(0));
        map.groups.get_mut(&GroupId(0)).unwrap().members = members.into();
    });
    world
}

fn change(world: &World, change: impl FnOnce(&mut Map)) {
    let map = world.namespace.chunks().map();
    let mut newer = Map::clone(&map.get());
    newer.epoch = newer.epoch.next();
    change(&mut newer);
    assert!(map.advance(newer));
}

async fn round(healer: &mut Healer, world: &World) -> bool {
    let found = healer.round(&world.namespace).await;
    world.namespace.chunks().settle_repairs().await;
    found
}

#[tokio::test]
async fn a_copy_that_is_missing_is_made_again_and_that_of_garbage_is_not() {
    let world = twofold().await;
    let container = world.container("c").await;
    for name in ["kept", "deleted"] {
        world.put(&container, name, &LARGE).await.unwrap();
    }
    let all = world.devices[0].chunks();
    assert_eq!((all.len(), world.chunks()), (2, 4));
    let deleted = world
        .namespace
        .delete_object(&container, "deleted", Condition::None, None);
    deleted.await.unwrap();
    for (id, ..) in &all {
        world.devices[1].set(*id, None);
    }
    let mut healer = Healer::default();
    // They may be on their way.
    assert!(!round(&mut healer, &world).await);
    assert_eq!(world.chunks(), 2);

    // A member was away: the group is compared again.
    let since = base::Timestamp::from_secs(1);
    let device = DeviceId(2);
    change(&world, |map| {
        map.devices.get_mut(&device).unwrap().state = State::Down { since }
    });
    assert!(!round(&mut healer, &world).await);
    change(&world, |map| {
        map.devices.get_mut(&device).unwrap().state = State::Up
    });
    world.clock.advance(Duration::from_secs(61));
    assert!(round(&mut healer, &world).await);
    let there: Vec<_> = world.devices[1].chunks();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].1.owner.object, "kept");

    // All is well: nothing is looked at before a day is over.
    assert!(!round(&mut healer, &world).await);
    world.devices[0].set(there[0].0, None);
    assert!(!round(&mut healer, &world).await);
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert!(round(&mut healer, &world).await);
    assert_eq!(world.devices[0].chunks().len(), 2);
    world.collect().await;
    assert_eq!(world.chunks(), 2);
}

#[tokio::test]
async fn rot_is_mended_and_what_is_lost_has_a_name() {
    let world = twofold().await;
    let container = world.container("c").await;
    for name in ["mended", "lost"] {
        world.put(&container, name, &LARGE).await.unwrap();
    }
    for (id, label, _) in world.devices[0].chunks() {
        world.devices[0].rot(id);
        if label.owner.object == "lost" {
            world.devices[1].rot(id);
        }
    }
    round(&mut Healer::default(), &world).await;
    assert_eq!(world.get(&container, "mended").await.unwrap(), LARGE);
    let lost = world.namespace.chunks().lost();
    assert_eq!(lost.len(), 2);
    assert!(
        lost.iter()
            .all(|one| one.owner.as_ref().unwrap().object == "lost")
    );
    assert!(world.get(&container, "lost").await.is_err());
}

#[tokio::test]
async fn a_group_that_cannot_be_compared_holds_up_no_other() {
    let world = twofold().await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let (id, ..) = world.devices[0].chunks()[0];
    world.devices[1].set(id, None);
    world.clock.advance(Duration::from_secs(61));
    // One that comes before it has a member that nobody can reach, and that is called up.
    change(&world, |map| {
        let group = map.groups[&id.group()].clone();
        let mut first = group.clone();
        first.members[1].device = DeviceId(99);
        let device = map.devices[&DeviceId(1)].clone();
        map.devices.insert(DeviceId(99), device);
        map.groups = [(id.group(), group), (GroupId(7), first)].into();
    });
    let mut healer = Healer::default();
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(10));
        round(&mut healer, &world).await;
    }
    assert_eq!(world.devices[1].chunks().len(), 1);
    // Whichever was first, the other one was looked at too.
    world.devices[1].set(id, None);
    world.clock.advance(Duration::from_secs(24 * 3600));
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(10));
        round(&mut healer, &world).await;
    }
    assert_eq!(world.devices[1].chunks().len(), 1);
}
