use std::sync::Arc;

use base::env::Env;
use bytes::Bytes;
use map::{Current, Member, Policy, State};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, Label, Storage, here};

const GROUP: GroupId = GroupId(0);
const IDS: [DeviceId; 3] = [DeviceId(1), DeviceId(2), DeviceId(3)];
const COUNT: u64 = 100;

/// A group of two full members that a third has left; all have the same chunks.
struct Fixture {
    devices: [Arc<MemoryDevice>; 3],
    map: Current,
    chunks: Chunks,
}

impl Fixture {
    fn new() -> Self {
        let devices = IDS.map(|id| Arc::new(MemoryDevice::new(id)));
        for device in &devices {
            for number in 0..COUNT {
                device.set(id(number), Some(chunk()));
            }
        }
        // Its own group, which it has not left, and one that the map does not know yet.
        for group in [2, 99] {
            devices[2].set(ChunkId::new(GroupId(group), 1, 1), Some(chunk()));
        }
        let mut map = Map::default().with_devices(IDS);
        let group = map.groups.get_mut(&GROUP).unwrap();
        group.members = members(&IDS[..2]);
        group.policy = Policy::Replicated { copies: 2 };
        let map = Current::new(map);
        let storages = devices.iter().map(|one| one.clone() as Arc<dyn Storage>);
        let chunks = Chunks::new(Env::real(), map.clone(), here(storages), &Config::default());
        Self {
            devices,
            map,
            chunks,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Map)) {
        let mut newer = (*self.map.get()).clone();
        newer.epoch = newer.epoch.next();
        change(&mut newer);
        assert!(self.map.advance(newer));
    }

    /// Two rounds: in the first, what has just changed is left alone.
    async fn rounds(&self) -> u64 {
        let first = self.chunks.remove_left_behind().await;
        first + self.chunks.remove_left_behind().await
    }

    /// Of the group that was left.
    fn kept(&self, device: usize) -> u64 {
        let chunks = self.devices[device].chunks();
        chunks.iter().filter(|one| one.0.group() == GROUP).count() as u64
    }
}

fn members(devices: &[DeviceId]) -> Vec<Member> {
    let full = |device: &DeviceId| Member {
        device: *device,
        index: 0,
        fill: Fill::Full,
    };
    devices.iter().map(full).collect()
}

fn id(number: u64) -> ChunkId {
    ChunkId::new(GROUP, 1, number)
}

fn chunk() -> (Label, Bytes) {
    let label = label("o");
    (label, Bytes::from_static(b"body"))
}

#[tokio::test(start_paused = true)]
async fn copies_go_when_all_members_have_theirs() {
    let fixture = Fixture::new();
    assert_eq!(fixture.chunks.remove_left_behind().await, 0, "too early");
    assert_eq!(fixture.chunks.remove_left_behind().await, COUNT);
    assert_eq!([0, 1, 2].map(|one| fixture.kept(one)), [COUNT, COUNT, 0]);
    assert_eq!(fixture.devices[2].chunks().len(), 2, "of other groups");
    assert_eq!(fixture.rounds().await, 0);
}

#[tokio::test(start_paused = true)]
async fn copies_stay_while_a_member_is_wanting() {
    let fixture = Fixture::new();
    fixture.change(|map| {
        map.groups.get_mut(&GROUP).unwrap().policy = Policy::Replicated { copies: 3 };
    });
    assert_eq!(fixture.rounds().await, 0);
    assert_eq!(fixture.kept(2), COUNT);
}

#[tokio::test(start_paused = true)]
async fn a_copy_stays_until_each_member_has_a_good_one() {
    let fixture = Fixture::new();
    fixture.devices[0].rot(id(7));
    fixture.devices[1].set(id(8), None);
    assert_eq!(fixture.rounds().await, COUNT - 2);
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.rounds().await, 2, "they were repaired");
    assert_eq!([0, 1, 2].map(|one| fixture.kept(one)), [COUNT, COUNT, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_deleted_is_not_made_again() {
    let fixture = Fixture::new();
    fixture.devices[0].set(id(7), None);
    fixture.chunks.remove_left_behind().await;
    let deleting = async {
        tokio::time::sleep(DELETE_TIME / 2).await;
        fixture.devices[1].set(id(7), None);
    };
    let (removed, ()) = tokio::join!(fixture.chunks.remove_left_behind(), deleting);
    fixture.chunks.settle_repairs().await;
    assert_eq!((removed, fixture.kept(0)), (COUNT - 1, COUNT - 1));
    assert_eq!(fixture.chunks.metrics().copies_bad.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_copy_stays() {
    let fixture = Fixture::new();
    for device in &fixture.devices[..2] {
        device.set(id(7), None);
    }
    assert_eq!(fixture.rounds().await, COUNT - 1);
    assert_eq!(fixture.rounds().await, 0);
    assert_eq!(fixture.kept(2), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_a_member_is_not_full_or_does_not_answer() {
    let changes: [fn(&mut Map); 3] = [
        |map| {
            let since = map.epoch;
            map.groups.get_mut(&GROUP).unwrap().members[1].fill = Fill::Filling { since };
        },
        |map| map.devices.get_mut(&IDS[1]).unwrap().state = State::Out,
        |map| map.groups.get_mut(&GROUP).unwrap().members.clear(),
    ];
    for change in changes {
        let fixture = Fixture::new();
        fixture.change(change);
        assert_eq!(fixture.rounds().await, 0);
    }
    let fixture = Fixture::new();
    fixture.devices[1].fail_reads(Some(device::Error::Closed));
    assert_eq!(fixture.rounds().await, 0);
    assert_eq!(fixture.kept(2), COUNT);
}

#[tokio::test(start_paused = true)]
async fn what_a_fill_has_found_is_not_deleted() {
    let fixture = Fixture::new();
    fixture.chunks.remove_left_behind().await;
    // It is a member again when a part of the copies has been looked at.
    let removing = fixture.chunks.remove_left_behind();
    let coming_back = async {
        while fixture.kept(2) == COUNT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fixture.change(|map| {
            let since = map.epoch;
            let group = map.groups.get_mut(&GROUP).unwrap();
            group.epoch = since;
            group.members = members(&IDS);
            group.members[2].fill = Fill::Filling { since };
        });
        let chunks = &fixture.chunks;
        chunks.fill(GROUP, IDS[2], &IDS, |_| {}).await
    };
    let (removed, filled) = tokio::join!(removing, coming_back);
    assert!((1..COUNT).contains(&removed));
    assert_eq!(filled.unwrap().copied, removed);
    assert_eq!(fixture.kept(2), COUNT);
}
