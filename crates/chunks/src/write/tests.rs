use std::sync::Arc;

use base::DeviceId;
use base::env::Env;
use map::Current;

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, PIECE_BYTES, Storage, here};

struct Fixture {
    chunks: Chunks,
    devices: Vec<Arc<MemoryDevice>>,
}

impl Fixture {
    fn new(devices: u128) -> Self {
        let devices: Vec<_> = (1..=devices)
            .map(|id| Arc::new(MemoryDevice::new(DeviceId(id))))
            .collect();
        let map = Map::default().with_devices(devices.iter().map(|device| device.id()));
        let storages = devices
            .iter()
            .map(|device| device.clone() as Arc<dyn Storage>);
        let map = Current::new(map);
        let chunks = Chunks::new(Env::real(), map, here(storages), &Config::default());
        Self { chunks, devices }
    }

    fn writer(&self) -> Writer {
        self.chunks.writer(label("o").owner, Map::POLICY)
    }

    fn stored(&self) -> usize {
        self.devices
            .iter()
            .map(|device| device.chunks().len())
            .sum()
    }
}

fn piece(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

#[tokio::test]
async fn a_body_becomes_chunks_of_four_mebibytes() {
    let fixture = Fixture::new(2);
    let mut writer = fixture.writer();
    for _ in 0..65 {
        writer.push(piece(1, PIECE_BYTES)).await.unwrap();
    }
    writer.push(piece(2, 7)).await.unwrap();
    let chunks = writer.finish().await.unwrap();
    let bytes: Vec<u32> = chunks.iter().map(|chunk| chunk.bytes).collect();
    assert_eq!(bytes, [4 << 20, 4 << 20, (128 << 10) + 7]);
    assert_eq!(fixture.stored(), 3);
}

#[tokio::test]
async fn a_cut_gives_the_memory_back() {
    let fixture = Fixture::new(1);
    let mut writer = fixture.writer();
    let mut pieces = Vec::new();
    while let Some(mut piece) = fixture.chunks.pool().try_take() {
        piece.fill(&[7; PIECE_BYTES]);
        pieces.push(piece);
    }
    writer.push(pieces.pop().unwrap().freeze()).await.unwrap();
    assert!(fixture.chunks.pool().try_take().is_none());
    writer.cut().await.unwrap();
    fixture.chunks.pool().take().await.unwrap();
    let chunks = writer.finish().await.unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!(fixture.chunks.metrics().chunks_cut_short.get(), 1);
}

#[tokio::test]
async fn a_failed_write_goes_to_another_group() {
    let fixture = Fixture::new(2);
    fixture.devices[0].fail_writes(Some(device::Error::Failed("EIO".into())));
    for _ in 0..20 {
        let mut writer = fixture.writer();
        writer.push(piece(1, 100)).await.unwrap();
        writer.finish().await.unwrap();
    }
    assert_eq!(fixture.devices[1].chunks().len(), 20);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let failed = || Some(device::Error::Failed("EIO".into()));
    let full = || Some(device::Error::Full);
    let unavailable = Error::unavailable();
    // The writes' errors and the free space of two devices; what the client hears.
    let cases = [
        ([full(), full()], [Some(9), Some(9)], Error::OutOfSpace),
        ([None, None], [Some(0), Some(0)], Error::OutOfSpace),
        ([None, None], [Some(0), None], Error::OutOfSpace),
        ([None, None], [None, None], unavailable),
        ([failed(), full()], [Some(9), Some(9)], Error::OutOfSpace),
    ];
    for (errors, free_bytes, expected) in cases {
        let fixture = Fixture::new(2);
        for (at, device) in fixture.devices.iter().enumerate() {
            device.fail_writes(errors[at].clone());
            device.set_free_bytes(free_bytes[at]);
        }
        let mut writer = fixture.writer();
        writer.push(piece(1, 100)).await.unwrap();
        assert_eq!(writer.finish().await, Err(expected));
    }
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing() {
    let fixture = Fixture::new(2);
    for pieces in [1, 31, 32, 64, 97, 129] {
        let mut writer = fixture.writer();
        for _ in 0..pieces {
            writer.push(piece(1, PIECE_BYTES)).await.unwrap();
        }
        drop(writer);
        fixture.chunks.settle().await;
        assert_eq!(fixture.stored(), 0, "{pieces} pieces");
    }
}

#[tokio::test]
async fn what_cannot_be_discarded_is_counted() {
    let fixture = Fixture::new(1);
    fixture.devices[0].fail_deletes(Some(device::Error::Failed("EIO".into())));
    let mut writer = fixture.writer();
    for _ in 0..32 {
        writer.push(piece(1, PIECE_BYTES)).await.unwrap();
    }
    writer.cut().await.unwrap();
    drop(writer);
    fixture.chunks.settle().await;
    let metrics = fixture.chunks.metrics();
    assert_eq!(
        (metrics.discards_left.get(), metrics.discards_queued.get()),
        (1, 0)
    );
}

#[tokio::test]
async fn deletes_tell_which_groups_failed() {
    let fixture = Fixture::new(2);
    let mut ids = Vec::new();
    while fixture
        .devices
        .iter()
        .any(|device| device.chunks().is_empty())
    {
        let mut writer = fixture.writer();
        writer.push(piece(1, 10)).await.unwrap();
        ids.push(writer.finish().await.unwrap()[0].id);
    }
    fixture.devices[1].fail_deletes(Some(device::Error::Failed("EIO".into())));
    let failed = fixture.chunks.delete(&ids).await;
    assert_eq!(failed.into_iter().collect::<Vec<_>>(), [GroupId(1)]);
    assert_eq!(fixture.devices[0].chunks().len(), 0);
    let unknown = ChunkId::new(GroupId(99), 0, 0);
    let failed = fixture.chunks.delete(&[unknown]).await;
    assert!(failed.contains(&GroupId(99)));
}

/// A group of all devices beside each device's own.
fn threefold() -> Fixture {
    let fixture = Fixture::new(3);
    let map = fixture.chunks.map();
    let mut newer = (*map.get()).clone();
    newer.epoch = newer.epoch.next();
    let members = fixture.devices.iter().map(|device| map::Member {
        index: 0,
        device: device.id(),
        fill: map::Fill::Full,
    });
    let group = Group {
        epoch: newer.epoch,
        members: members.collect(),
        ..newer.groups[&GroupId(0)].clone()
    };
    newer.groups.insert(GroupId(3), group);
    assert!(map.advance(newer));
    fixture
}

#[tokio::test]
async fn a_chunk_is_acknowledged_when_all_members_have_it() {
    let fixture = threefold();
    let mut writer = fixture.writer();
    writer.push(piece(1, 10)).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!(fixture.stored(), 3);
    assert!(fixture.chunks.delete(&[written[0].id]).await.is_empty());
    assert_eq!(fixture.stored(), 0);
}

#[tokio::test]
async fn what_a_member_does_not_take_is_not_acknowledged_and_leaves_nothing() {
    let fixture = threefold();
    for error in [device::Error::Full, device::Error::Closed] {
        fixture.devices[1].fail_writes(Some(error));
        let mut writer = fixture.writer();
        writer.push(piece(1, 10)).await.unwrap();
        writer.finish().await.unwrap_err();
        fixture.chunks.settle().await;
        assert_eq!(fixture.stored(), 0, "the others' copies are discarded");
    }
}

#[tokio::test]
async fn a_chunk_stays_garbage_until_all_members_have_deleted_it() {
    let fixture = threefold();
    let mut writer = fixture.writer();
    writer.push(piece(1, 10)).await.unwrap();
    let written = writer.finish().await.unwrap();
    fixture.devices[2].fail_deletes(Some(device::Error::Closed));
    let failed = fixture.chunks.delete(&[written[0].id]).await;
    assert!(failed.contains(&GroupId(3)));
    fixture.devices[2].fail_deletes(None);
    assert!(fixture.chunks.delete(&[written[0].id]).await.is_empty());
    assert_eq!(fixture.stored(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_costs_one_try_and_what_it_writes_late_is_deleted() {
    let fixture = Fixture::new(2);
    fixture.devices[0].hang_writes();
    let start = Instant::now();
    for _ in 0..20 {
        let mut writer = fixture.writer();
        writer.push(piece(1, 100)).await.unwrap();
        writer.finish().await.unwrap();
    }
    assert!(start.elapsed() < 2 * TRY_TIME_MAX, "{:?}", start.elapsed());
    assert_eq!(fixture.devices[1].chunks().len(), 20);
    assert_eq!(fixture.chunks.metrics().writes_moved.get(), 1);
    assert_eq!(fixture.chunks.devices_hung(), 1);
    fixture.chunks.settle().await;

    fixture.devices[0].release();
    while fixture.chunks.devices_hung() > 0 {
        tokio::task::yield_now().await;
    }
    fixture.chunks.settle().await;
    assert_eq!(fixture.stored(), 20);
}

impl Fixture {
    /// The map calls a device down from now on.
    fn fell(&self, device: usize) {
        let map = self.chunks.map();
        let mut newer = (*map.get()).clone();
        newer.epoch = newer.epoch.next();
        let device = newer.devices.get_mut(&self.devices[device].id());
        device.unwrap().state = map::State::Out;
        assert!(map.advance(newer));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_device_that_is_called_down_goes_elsewhere() {
    let fixture = Fixture::new(2);
    fixture.devices[0].hang_writes();
    fixture.devices[1].set_free_bytes(None);
    let mut writer = fixture.writer();
    writer.push(piece(1, 100)).await.unwrap();
    let finish = tokio::spawn(writer.finish());
    fixture.devices[0].write_begun().await;
    fixture.devices[1].set_free_bytes(Some(1 << 30));
    let start = Instant::now();
    fixture.fell(0);
    let written = finish.await.unwrap().unwrap();
    assert!(start.elapsed() < TRY_TIME_MAX, "by the clock of the test");
    assert_eq!(fixture.chunks.devices_hung(), 0, "nobody knows that");
    // The first discard is given up, too.
    tokio::time::sleep(DEVICE_TIME_MAX).await;
    fixture.chunks.settle().await;
    assert_eq!(fixture.devices[1].chunks()[0].0, written[0].id);

    // What it writes late is deleted, or at least tried.
    fixture.devices[0].fail_deletes(Some(device::Error::Closed));
    let left = || fixture.chunks.metrics().discards_left.get();
    let before = left();
    fixture.devices[0].release();
    let deleted = async {
        while left() == before || fixture.devices[0].chunks().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(TRY_TIME_MAX, deleted).await;
    assert!(in_time.is_ok(), "nothing was discarded");
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_group_says_that_it_wants_another_map() {
    let fixture = Fixture::new(1);
    let map = fixture.chunks.map();
    let mut newer = (*map.get()).clone();
    newer.epoch = newer.epoch.next();
    newer.nodes.insert(base::NodeId(2), map::Node::default());
    assert!(map.advance(newer));
    fixture.fell(0);
    let mut writer = fixture.writer();
    writer.push(piece(1, 100)).await.unwrap();
    let finish = tokio::spawn(writer.finish());
    fixture.chunks.map_wanted().notified().await;
    let mut newer = (*map.get()).clone();
    newer.epoch = newer.epoch.next();
    let device = newer.devices.get_mut(&fixture.devices[0].id());
    device.unwrap().state = map::State::Up;
    assert!(map.advance(newer));
    finish.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_when_all_devices_hang() {
    for count in [1, 3, 6] {
        let fixture = Fixture::new(count);
        for device in &fixture.devices {
            device.hang_writes();
        }
        let start = Instant::now();
        let mut writer = fixture.writer();
        writer.push(piece(1, 100)).await.unwrap();
        assert_eq!(writer.finish().await, Err(Error::unavailable()));
        let waited = start.elapsed();
        let slack = Duration::from_secs(1);
        assert!(waited < DEVICE_TIME_MAX + slack, "{count}: {waited:?}");
        assert!(waited >= DEVICE_TIME_MAX, "{count}: {waited:?}");
    }
}
