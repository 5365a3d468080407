use std::sync::Arc;

use base::GroupId;
use base::env::Env;
use bytes::Bytes;
use map::{Current, Fill, Map, Member};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Chunk, Config, Span, Storage, here};

const IDS: [DeviceId; 3] = [DeviceId(1), DeviceId(2), DeviceId(3)];

/// A group of three, and chunks that all of them have.
struct Fixture {
    devices: [Arc<MemoryDevice>; 3],
    chunks: Chunks,
}

impl Fixture {
    fn new(count: u64) -> Self {
        let devices = IDS.map(|id| Arc::new(MemoryDevice::new(id)));
        let mut map = Map::default().with_devices(IDS);
        let members = IDS.map(|device| Member {
            device,
            index: 0,
            fill: Fill::Full,
        });
        map.groups.get_mut(&GroupId(0)).unwrap().members = members.into();
        let label = label("o");
        for number in 0..count {
            for device in &devices {
                let chunk = (label.clone(), Bytes::from(vec![7; 3_000_000]));
                device.set(id(number), Some(chunk));
            }
        }
        let storages = devices.iter().map(|one| one.clone() as Arc<dyn Storage>);
        let (map, config) = (Current::new(map), Config::default());
        let chunks = Chunks::new(Env::real(), map, here(storages), &config);
        Self { devices, chunks }
    }

    async fn read(&self, number: u64) {
        let mut reader = self.chunks.reader();
        reader.push(Span {
            chunk: Chunk {
                id: id(number),
                bytes: 3_000_000,
            },
            range: 0..3_000_000,
        });
        while let Some(piece) = reader.next().await {
            piece.unwrap();
        }
    }

    /// The device that is asked first.
    async fn first(&self, number: u64) -> &MemoryDevice {
        let group = self.chunks.group(id(number).group()).await.unwrap();
        let first = self.chunks.sources(&group, id(number))[0];
        let mut devices = self.devices.iter();
        devices.find(|device| device.id() == first).unwrap()
    }

    /// Copies that were found to be bad, and those that were repaired.
    fn counts(&self) -> (u64, u64) {
        let metrics = self.chunks.metrics();
        (metrics.copies_bad.get(), metrics.copies_repaired.get())
    }
}

fn id(number: u64) -> ChunkId {
    ChunkId::new(GroupId(0), 1, number)
}

#[tokio::test]
async fn a_bad_or_missing_copy_is_replaced_after_a_read() {
    let fixture = Fixture::new(2);
    fixture.first(0).await.rot(id(0));
    fixture.first(1).await.set(id(1), None);
    for number in [0, 1] {
        fixture.read(number).await;
    }
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 2));
    for device in &fixture.devices {
        for number in [0, 1] {
            fixture
                .chunks
                .fetch(device.id(), id(number), None)
                .await
                .unwrap();
        }
    }
    fixture.read(0).await;
    assert_eq!(fixture.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_replaced_is_tried_once_a_second_at_most() {
    let fixture = Fixture::new(1);
    let first = fixture.first(0).await;
    first.rot(id(0));
    first.fail_writes(Some(device::Error::Full));
    // Each body is read in several pieces.
    fixture.read(0).await;
    fixture.read(0).await;
    assert_eq!(fixture.counts(), (1, 0));
    fixture.chunks.settle_repairs().await;
    first.fail_writes(None);
    fixture.read(0).await;
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 1));
}

#[tokio::test]
async fn what_is_unreachable_or_gone_everywhere_is_left_alone() {
    let fixture = Fixture::new(2);
    let first = fixture.first(0).await;
    first.fail_reads(Some(device::Error::Closed));
    fixture.read(0).await;
    assert_eq!(fixture.counts(), (0, 0));
    first.fail_reads(None);

    // Noticed while it was being deleted.
    for device in &fixture.devices {
        device.set(id(1), None);
    }
    let missing = StorageError::Missing;
    fixture.chunks.repair(id(1), IDS[0], &missing);
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (1, 0));
    assert_eq!(fixture.devices[0].chunks().len(), 1);
    // A device that is no member any more.
    fixture.chunks.repair(id(0), DeviceId(9), &missing);
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_does_not_keep_the_others_copies_bad() {
    let fixture = Fixture::new(2);
    fixture.devices[0].hang_reads();
    fixture.devices[1].set(id(1), None);
    let missing = StorageError::Missing;
    // The first device comes first, as the one to be repaired and as the source for the second.
    fixture.chunks.repair(id(0), IDS[0], &missing);
    fixture.chunks.repair(id(1), IDS[1], &missing);
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 1));
    fixture.chunks.fetch(IDS[1], id(1), None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded() {
    let fixture = Fixture::new(0);
    for number in 0..2 * QUEUE_MAX as u64 {
        fixture
            .chunks
            .repair(id(number), IDS[0], &StorageError::Missing);
    }
    assert_eq!(
        fixture.chunks.inner.repairs.queue.lock().copies.len(),
        QUEUE_MAX
    );
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts().1, 0);
}

#[tokio::test]
async fn what_the_devices_have_found_is_mended_without_a_reader() {
    let fixture = Fixture::new(3);
    fixture.devices[0].rot(id(0));
    fixture.devices[2].rot(id(2));
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 2));
    assert_eq!(fixture.chunks.lost(), []);
    for device in &fixture.devices {
        assert_eq!(device.bad(), []);
    }
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_has_no_good_copy_is_called_lost_until_one_comes_back_or_it_is_deleted() {
    let fixture = Fixture::new(2);
    for device in &fixture.devices {
        device.rot(id(0));
    }
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    let lost = fixture.chunks.lost();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert!(lost.iter().all(|one| one.chunk == id(0)));
    assert_eq!(lost[0].owner.as_ref().unwrap().object, "o");
    assert_eq!(fixture.counts(), (3, 0));
    // It is not looked at again and again, nor told again.
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts(), (3, 0));

    // One that could not be reached comes back with a good copy.
    let good = fixture.devices[1].chunks()[0].1.clone();
    let payload = Bytes::from(vec![7; 3_000_000]);
    let write =
        fixture.devices[1].write(map::Epoch(9), id(0), &good, std::slice::from_ref(&payload));
    write.await.unwrap();
    tokio::time::advance(AGAIN_AFTER).await;
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.chunks.lost(), []);
    assert_eq!(fixture.counts(), (3, 2));

    for device in &fixture.devices {
        device.rot(id(1));
    }
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.chunks.lost().len(), 3);
    fixture.chunks.delete(&[id(1)]).await;
    fixture.chunks.mend();
    assert_eq!(fixture.chunks.lost(), []);
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_no_reason_to_call_anything_lost() {
    let fixture = Fixture::new(1);
    fixture.devices[0].rot(id(0));
    fixture.devices[1].rot(id(0));
    fixture.devices[2].fail_reads(Some(device::Error::Closed));
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.chunks.lost(), []);
    fixture.devices[2].fail_reads(None);
    fixture.chunks.mend();
    fixture.chunks.settle_repairs().await;
    assert_eq!(fixture.counts().1, 2);
}
