use std::sync::Arc;

use base::env::Env;
use bytes::Bytes;
use map::{Current, Fill, Map, Member, State};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, Label, Storage, here};

const GROUP: GroupId = GroupId(0);
const IDS: [DeviceId; 3] = [DeviceId(1), DeviceId(2), DeviceId(3)];

/// A group of three, of which two are full.
fn fixture(count: u64) -> ([Arc<MemoryDevice>; 3], Current, Chunks) {
    let devices = IDS.map(|id| Arc::new(MemoryDevice::new(id)));
    for device in &devices[..2] {
        (0..count).for_each(|number| device.set(id(number), Some(chunk())));
    }
    let mut map = Map::default().with_devices(IDS);
    let fills = [Fill::Full, Fill::Full, Fill::Filling { since: map.epoch }];
    let members = IDS.into_iter().zip(fills);
    let members = members.map(|(device, fill)| Member {
        device,
        index: 0,
        fill,
    });
    map.groups.get_mut(&GROUP).unwrap().members = members.collect();
    let map = Current::new(map);
    let storages = devices.iter().map(|one| one.clone() as Arc<dyn Storage>);
    let chunks = Chunks::new(Env::real(), map.clone(), here(storages), &Config::default());
    (devices, map, chunks)
}

fn id(number: u64) -> ChunkId {
    ChunkId::new(GROUP, 1, number)
}

fn chunk() -> (Label, Bytes) {
    let label = label("o");
    (label, Bytes::from_static(b"body"))
}

async fn all(chunks: &Chunks) -> (Vec<Missing>, usize) {
    let (mut missing, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let compared = chunks.compare(GROUP, after).await.unwrap();
        missing.extend(compared.missing);
        parts += 1;
        match compared.next {
            Some(next) => after = Some(next),
            None => return (missing, parts),
        }
    }
}

#[tokio::test]
async fn what_a_full_member_lacks_is_found_wherever_it_is_in_the_lists() {
    let count = 3 * LIST_MAX as u64 + 5;
    let (devices, _, chunks) = fixture(count);
    let (missing, parts) = all(&chunks).await;
    assert_eq!((missing, parts), (vec![], 4));
    // First, last, on the border of a page, and many in a row.
    let border = LIST_MAX as u64;
    let mut expected = Vec::new();
    for number in [0, border - 1, border, count - 1] {
        devices[0].set(id(number), None);
        expected.push((number, IDS[0], IDS[1]));
    }
    for number in border + 10..2 * border + 20 {
        devices[1].set(id(number), None);
        expected.push((number, IDS[1], IDS[0]));
    }
    expected.sort_unstable();
    let (missing, _) = all(&chunks).await;
    let expected = expected.into_iter().map(|(number, on, source)| Missing {
        chunk: id(number),
        on,
        source,
    });
    assert!(missing.into_iter().eq(expected));
}

#[tokio::test]
async fn nothing_is_missing_as_long_as_somebody_does_not_answer() {
    let (devices, map, chunks) = fixture(10);
    devices[1].set(id(3), None);
    devices[1].fail_reads(Some(device::Error::Closed));
    assert_eq!(chunks.compare(GROUP, None).await, Err(Error::unavailable()));
    assert_eq!(chunks.to_compare(), [GROUP]);
    let mut newer = Map::clone(&map.get());
    newer.epoch = newer.epoch.next();
    let since = base::Timestamp::from_secs(1);
    newer.devices.get_mut(&IDS[1]).unwrap().state = State::Down { since };
    assert!(map.advance(newer));
    assert_eq!(chunks.to_compare(), []);
}
