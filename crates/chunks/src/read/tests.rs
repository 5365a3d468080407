use base::env::Env;
use base::{DeviceId, GroupId};
use map::{Current, Map};

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Config, Storage, here};

const FRAME: u32 = 128 * 1024;

fn body(len: usize) -> Bytes {
    let pattern = (0..=250u8).cycle();
    pattern.take(len).collect()
}

struct Fixture {
    chunks: Chunks,
    device: Arc<MemoryDevice>,
    chunk: ChunkId,
    body: Bytes,
}

impl Fixture {
    fn new(len: usize) -> Self {
        let device = Arc::new(MemoryDevice::new(DeviceId(1)));
        let map = Map::default().with_devices([DeviceId(1)]);
        let chunks = Chunks::new(
            Env::real(),
            Current::new(map),
            here([device.clone() as Arc<dyn Storage>]),
            &Config {
                buffer_bytes: 0,
                ..Config::default()
            },
        );
        let chunk = ChunkId::new(GroupId(0), 1, 1);
        let label = label("o");
        device.set(chunk, Some((label, body(len))));
        let body = body(len);
        Self {
            chunks,
            device,
            chunk,
            body,
        }
    }

    fn reader_of(&self, range: Range<u32>) -> Reader {
        self.reader(std::slice::from_ref(&range))
    }

    fn reader(&self, ranges: &[Range<u32>]) -> Reader {
        let mut reader = self.chunks.reader();
        for range in ranges {
            reader.push(span(self.chunk, range.clone()));
        }
        reader
    }
}

fn span(id: ChunkId, range: Range<u32>) -> Span {
    let bytes = range.end;
    Span {
        chunk: Chunk { id, bytes },
        range,
    }
}

#[tokio::test]
async fn what_is_read_is_what_was_asked_for() {
    let fixture = Fixture::new(4 << 20);
    let ranges = [
        0..4 << 20,
        5..6,
        FRAME - 1..FRAME + 1,
        0..FRAME,
        100..3 << 20,
    ];
    for ranges in ranges.chunk_by(|a, b| a.end >= b.start) {
        let mut reader = fixture.reader(ranges);
        let mut got = Vec::new();
        while let Some(piece) = reader.next().await {
            let piece = piece.unwrap();
            assert!(!piece.is_empty() && piece.len() <= device::READ_BYTES_MAX);
            got.extend_from_slice(&piece);
        }
        let all = ranges
            .iter()
            .map(|range| range.start as usize..range.end as usize);
        let expected: Vec<&[u8]> = all.map(|range| &fixture.body[range]).collect();
        assert!(got == expected.concat(), "{ranges:?}");
    }
    assert_eq!(fixture.chunks.buffers().read_bytes_free, 4 << 20);
}

#[tokio::test]
async fn slow_clients_get_smaller_pieces_and_all_of_them_get_some() {
    let fixture = Fixture::new(4 << 20);
    let mut held = Vec::new();
    // A quarter of 16 MiB is for reads: 32 frames.
    for _ in 0..16 {
        let mut reader = fixture.reader_of(0..4 << 20);
        let piece = reader.next().await.unwrap().unwrap();
        assert!(piece.len() <= 2 * FRAME as usize);
        held.push((piece, reader));
    }
    assert_eq!(fixture.chunks.buffers().read_bytes_free, 0);
    drop(held);
    tokio::task::yield_now().await;
    assert_eq!(fixture.chunks.buffers().read_bytes_free, 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_budget_has_an_end() {
    let fixture = Fixture::new(4 << 20);
    let held = fixture.chunks.read_permit(32).await.unwrap();
    let mut reader = fixture.reader_of(0..1);
    let refused = reader.next().await.unwrap();
    assert!(matches!(refused, Err(Error::Unavailable { .. })));
    drop(held);
}

#[tokio::test]
async fn a_bad_copy_is_an_error_and_never_data() {
    let fixture = Fixture::new(100);
    let damaged = device::Error::Damaged("frame 0: wrong checksum".into());
    fixture.device.fail_reads(Some(damaged));
    let read = fixture.reader_of(0..100).next().await.unwrap();
    let chunk = fixture.chunk;
    let told = format!("chunk {chunk}: frame 0: wrong checksum");
    assert_eq!(read, Err(Error::Damaged(told)));

    fixture.device.fail_reads(None);
    fixture.device.set(fixture.chunk, None);
    let read = fixture.reader_of(0..100).next().await.unwrap();
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
}

/// One group of three devices, with one chunk on all of them.
fn threefold(here_is: u128) -> (Chunks, [Arc<MemoryDevice>; 3], Span) {
    let ids = [DeviceId(1), DeviceId(2), DeviceId(3)];
    let mut map = Map::default().with_devices(ids);
    let members = ids.map(|device| map::Member {
        device,
        index: 0,
        fill: map::Fill::Full,
    });
    map.groups.get_mut(&GroupId(0)).unwrap().members = members.into();
    let fixture = Fixture::new(100);
    let (_, label, _) = fixture.device.chunks().remove(0);
    let devices = ids.map(|id| Arc::new(MemoryDevice::new(id)));
    for device in &devices {
        device.set(fixture.chunk, Some((label.clone(), body(100))));
    }
    struct Cluster(crate::Here, DeviceId);
    impl crate::Devices for Cluster {
        fn get(&self, id: DeviceId) -> Option<Arc<dyn Storage>> {
            crate::Devices::get(&self.0, id)
        }
        fn is_here(&self, id: DeviceId) -> bool {
            id == self.1
        }
    }
    let all = devices
        .iter()
        .map(|one| (one.id(), one.clone() as Arc<dyn Storage>));
    let cluster = Cluster(all.collect(), DeviceId(here_is));
    let chunks = Chunks::new(
        Env::real(),
        Current::new(map),
        Arc::new(cluster),
        &Config {
            buffer_bytes: 0,
            ..Config::default()
        },
    );
    let span = span(fixture.chunk, 0..100);
    (chunks, devices, span)
}

#[tokio::test(start_paused = true)]
async fn the_own_copy_is_read_and_another_when_it_is_bad_or_slow() {
    let (chunks, devices, span) = threefold(2);
    for other in [0, 2] {
        devices[other].fail_reads(Some(device::Error::damaged("not asked")));
    }
    assert_eq!(chunks.read(&span).await.unwrap(), body(100));
    devices[1].fail_reads(Some(device::Error::damaged("rot")));
    assert!(matches!(chunks.read(&span).await, Err(Error::Damaged(_))));
    devices[2].fail_reads(None);
    assert_eq!(chunks.read(&span).await.unwrap(), body(100));
    assert_eq!(chunks.metrics().reads_hedged.get(), 0);
    devices[1].fail_reads(None);
    devices[1].hang_reads();
    assert_eq!(chunks.read(&span).await.unwrap(), body(100));
    assert_eq!(chunks.metrics().reads_hedged.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_devices_that_hang_has_an_end() {
    let (chunks, devices, span) = threefold(1);
    devices[0].hang_reads();
    for other in [1, 2] {
        devices[other].fail_reads(Some(device::Error::damaged("rot")));
    }
    let read = chunks.read(&span).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
}

#[tokio::test]
async fn a_copy_that_may_come_back_is_not_called_lost() {
    let (chunks, devices, span) = threefold(1);
    let rot = || Some(device::Error::damaged("rot"));
    devices[0].fail_reads(rot());
    devices[1].fail_reads(Some(device::Error::Closed));
    devices[2].fail_reads(rot());
    let read = chunks.read(&span).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
}
