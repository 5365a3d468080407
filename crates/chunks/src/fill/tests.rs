use std::sync::Arc;

use base::env::Env;
use map::{Current, Map, Member};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, Storage, here};

const GROUP: GroupId = GroupId(0);
const IDS: [DeviceId; 3] = [DeviceId(1), DeviceId(2), DeviceId(3)];

/// A group of two full members and a third that is to be filled.
struct Fixture {
    devices: [Arc<MemoryDevice>; 3],
    map: Current,
    chunks: Chunks,
}

impl Fixture {
    fn new(count: u64) -> Self {
        let devices = IDS.map(|id| Arc::new(MemoryDevice::new(id)));
        let mut map = Map::default().with_devices(IDS);
        let since = map.epoch;
        let group = map.groups.get_mut(&GROUP).unwrap();
        let fills = [Fill::Full, Fill::Full, Fill::Filling { since }];
        let members = IDS.into_iter().zip(fills);
        group.members = members
            .map(|(device, fill)| Member {
                device,
                index: 0,
                fill,
            })
            .collect();
        for number in 0..count {
            for device in &devices[..2] {
                device.set(id(number), Some(chunk(number)));
            }
        }
        // Of another group, and so not to be copied.
        devices[0].set(ChunkId::new(GroupId(1), 1, 1), Some(chunk(1)));
        let map = Current::new(map);
        let storages = devices.iter().map(|one| one.clone() as Arc<dyn Storage>);
        let chunks = Chunks::new(Env::real(), map.clone(), here(storages), &Config::default());
        Self {
            devices,
            map,
            chunks,
        }
    }

    async fn fill(&self) -> Result<Filled, Error> {
        self.chunks.fill(GROUP, IDS[2], &IDS, |_| {}).await
    }

    fn held(&self) -> usize {
        self.devices[2].chunks().len()
    }
}

fn id(number: u64) -> ChunkId {
    ChunkId::new(GROUP, 1, number)
}

fn chunk(number: u64) -> (Label, Bytes) {
    let label = label(&format!("o{number}"));
    // Some are longer than one read.
    let bytes = if number % 1000 == 7 { 3 << 20 } else { 10 };
    (label, vec![number.to_le_bytes()[0]; bytes].into())
}

#[tokio::test]
async fn a_new_member_gets_what_the_others_have() {
    let fixture = Fixture::new(2500);
    fixture.devices[2].set(id(3), Some(chunk(3)));
    let filled = fixture.fill().await.unwrap();
    let expected = Filled {
        listed: 2500,
        present: 1,
        copied: 2499,
        copied_bytes: 2496 * 10 + 3 * (3 << 20),
        lost: 0,
    };
    assert_eq!(filled, expected);
    let of_group = |device: &MemoryDevice| {
        let chunks = device.chunks().into_iter();
        chunks
            .filter(|(id, ..)| id.group() == GROUP)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_group(&fixture.devices[2]), of_group(&fixture.devices[0]));
    let again = fixture.fill().await.unwrap();
    assert_eq!((again.present, again.copied), (2500, 0));
}

#[tokio::test]
async fn only_who_is_fenced_says_what_there_is() {
    let fixture = Fixture::new(10);
    // A writer with an old map has not come to the others.
    fixture.devices[0].set(id(11), Some(chunk(11)));
    let fill = async |fenced: &[DeviceId]| {
        let chunks = &fixture.chunks;
        chunks.fill(GROUP, IDS[2], fenced, |_| {}).await
    };
    fixture.devices[1].rot(id(4));
    let filled = fill(&[IDS[1], IDS[2]]).await.unwrap();
    assert_eq!((filled.copied, filled.lost), (10, 0));
    assert_eq!(fixture.held(), 10);
    assert_eq!(fill(&[IDS[2]]).await, Err(Error::unavailable()));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_holds_up_no_fill_for_ever() {
    let fixture = Fixture::new(10);
    fixture.devices[0].hang_reads();
    assert_eq!(fixture.fill().await.unwrap().copied, 10, "from another");
    fixture.devices[2].hang_reads();
    assert_eq!(fixture.fill().await, Err(Error::unavailable()));
}

#[tokio::test]
async fn a_bad_copy_is_taken_from_another_and_a_lost_chunk_is_told() {
    let fixture = Fixture::new(10);
    fixture.devices[0].rot(id(3));
    fixture.devices[0].rot(id(4));
    fixture.devices[1].rot(id(4));
    let filled = fixture.fill().await.unwrap();
    assert_eq!((filled.copied, filled.lost), (9, 1));
    assert!(fixture.devices[2].chunks().iter().all(|one| one.0 != id(4)));
}

#[tokio::test]
async fn what_stands_in_the_way_ends_the_pass_and_the_next_goes_on() {
    let fixture = Fixture::new(10);
    fixture.devices[2].fail_writes(Some(device::Error::Full));
    assert_eq!(fixture.fill().await, Err(Error::OutOfSpace));
    fixture.devices[2].fail_writes(None);
    for device in &fixture.devices[..2] {
        device.fail_reads(Some(device::Error::Closed));
    }
    assert!(matches!(
        fixture.fill().await,
        Err(Error::Unavailable { .. })
    ));
    assert_eq!(fixture.held(), 0);
    for device in &fixture.devices[..2] {
        device.fail_reads(None);
    }
    assert_eq!(fixture.fill().await.unwrap().copied, 10);
}

#[tokio::test]
async fn a_group_that_changes_ends_the_pass() {
    let fixture = Fixture::new(10);
    let map = fixture.map.clone();
    let pass = fixture.chunks.fill(GROUP, IDS[2], &IDS, |filled: &Filled| {
        if filled.copied == 5 {
            let mut newer = (*map.get()).clone();
            newer.epoch = newer.epoch.next();
            newer.groups.get_mut(&GROUP).unwrap().epoch = newer.epoch;
            map.advance(newer);
        }
    });
    assert!(matches!(pass.await, Err(Error::Unavailable { .. })));
    assert_eq!(fixture.held(), 5);
    assert_eq!(fixture.fill().await.unwrap().present, 5);
    let full = fixture.chunks.fill(GROUP, IDS[0], &IDS, |_| {}).await;
    assert!(
        matches!(full, Err(Error::Unavailable { .. })),
        "not filling"
    );
}
