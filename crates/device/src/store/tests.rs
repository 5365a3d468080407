//! The store at its promise, on a simulated disk: see the head of each module.

mod damage;
mod fault;
mod jobs;
mod random;
mod space;
mod verify;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use base::env::Env;
use base::{ChunkId, ContainerId};
use bytes::Bytes;
use testkit::{Random, SimClock, SimDisk};

use super::*;
use crate::{Config, Device, Identity, State};

pub(super) const MIB: u64 = 1 << 20;

/// A device on a simulated disk. The index is real, in a temporary directory.
pub(super) struct World {
    pub(super) env: Env,
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) config: Config,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(seed: u64, disk_bytes: u64) -> Self {
        let (env, disk, clock) = testkit::env(seed, disk_bytes);
        let world = Self {
            env,
            disk,
            clock,
            config: Config {
                segment_bytes: Some(8 * MIB),
                write_threads: 1,
                // Only when a test asks for it.
                index_flush_interval: Duration::from_secs(60),
                scrub_bytes_per_second: 1 << 30,
                compact_bytes_per_second: 1 << 30,
                ..Config::default()
            },
            // Memory, if there is some: nobody cuts the power of the index here.
            dir: tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()),
        };
        let identity = Identity {
            cluster: 1,
            device: DeviceId(u128::from(seed)),
            shards: 1,
            created: world.env.clock.now(),
        };
        Device::format(&world.env, world.dir.path(), &identity).unwrap();
        world
    }

    pub(super) fn try_open(&self) -> Result<Device, Error> {
        Device::open(self.env.clone(), self.dir.path(), self.config.clone())
    }

    pub(super) fn open(&self) -> Device {
        self.try_open().unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path("segments").join(segment::file_name(number))
    }
}

pub(super) fn owner(object: &str) -> Owner {
    Owner {
        account: "AUTH_test".into(),
        container: "c".into(),
        container_id: ContainerId(5),
        object: object.into(),
        version: base::Version(900_000),
    }
}

/// The payload of a chunk in these tests: its id and the position are in every block, so that no
/// other can be taken for it.
pub(super) fn payload(id: u64, len: usize) -> Bytes {
    let mut block = Random::new(id).bytes(4096);
    let mut all = Vec::with_capacity(len + 4096);
    for at in (0..len as u64).step_by(4096) {
        block[..8].copy_from_slice(&at.to_le_bytes());
        all.extend_from_slice(&block);
    }
    all.truncate(len);
    all.into()
}

pub(super) async fn write(device: &Device, id: u64, len: usize) -> Result<(), Error> {
    let payload = [payload(id, len)];
    let owner = owner(&id.to_string()).into();
    device.store().write(chunk(id), &owner, &payload).await
}

pub(super) fn chunk(id: u64) -> ChunkId {
    ChunkId(u128::from(id))
}

/// Runs what waits for the disk, as a background thread would.
pub(super) async fn blocking<R: Send + 'static>(
    device: &Device,
    run: impl FnOnce(&super::Shared) -> R + Send + 'static,
) -> R {
    let shared = device.store().shared.clone();
    tokio::task::spawn_blocking(move || run(&shared))
        .await
        .unwrap()
}

/// Reads a whole chunk.
pub(super) async fn read(device: &Device, id: u64, len: usize) -> Result<Bytes, Error> {
    let mut all = Vec::new();
    for start in (0..len).step_by(READ_BYTES_MAX) {
        let end = len.min(start + READ_BYTES_MAX);
        all.extend_from_slice(
            &device
                .store()
                .read(chunk(id), None, range(start, end))
                .await?,
        );
    }
    Ok(all.into())
}

fn range(start: usize, end: usize) -> Range<u32> {
    u32::try_from(start).unwrap()..u32::try_from(end).unwrap()
}

pub(super) async fn check_all(device: &Device, chunks: &BTreeMap<u64, usize>) {
    for (id, len) in chunks {
        let read = read(device, *id, *len).await;
        assert!(
            read.as_ref().is_ok_and(|read| *read == payload(*id, *len)),
            "{id}: {read:?}"
        );
    }
    assert_eq!(device.store().usage().chunks, chunks.len() as u64);
}

const SIZES: [usize; 7] = [
    1,
    4096,
    17_000,
    FRAME_BYTES - 1,
    FRAME_BYTES,
    3 * FRAME_BYTES + 1,
    CHUNK_BYTES_MAX,
];

async fn write_sizes(device: &Device) -> BTreeMap<u64, usize> {
    for (id, len) in (1..).zip(SIZES) {
        write(device, id, len).await.unwrap();
    }
    (1..).zip(SIZES).collect()
}

#[tokio::test]
async fn what_was_written_is_read() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    let chunks = write_sizes(&device).await;
    check_all(&device, &chunks).await;
    device.store().flush().await.unwrap();
    check_all(&device, &chunks).await;
    world.disk.set_cold(true);
    check_all(&device, &chunks).await;
    assert!(device.metrics().reads_waited.get() > 0);
}

#[tokio::test]
async fn ranges_are_cut_out_of_verified_frames() {
    let world = World::new(2, 320 * MIB);
    let device = world.open();
    let len = 5 * FRAME_BYTES + 77;
    write(&device, 1, len).await.unwrap();
    let (whole, mut random) = (payload(1, len), Random::new(2));
    for _ in 0..200 {
        let start = usize::try_from(random.below(len as u64)).unwrap();
        let end = start + 1 + usize::try_from(random.below((len - start) as u64)).unwrap();
        let end = end.min(start + READ_BYTES_MAX);
        let read = device
            .store()
            .read(chunk(1), None, range(start, end))
            .await
            .unwrap();
        assert!(read == whole[start..end], "{start}..{end}");
    }
}

#[tokio::test]
async fn pieces_may_lie_anywhere_in_memory() {
    let world = World::new(3, 320 * MIB);
    let device = world.open();
    let whole = payload(1, 2 * FRAME_BYTES + 4096 + 100);
    let mut aligned = crate::aligned::Aligned::zeroed(whole.len().next_multiple_of(4096));
    aligned[..whole.len()].copy_from_slice(&whole);
    let aligned = Bytes::from_owner(Shared(aligned)).slice(..whole.len());
    for (id, cut, source) in [
        (1, FRAME_BYTES, &aligned),
        (2, FRAME_BYTES, &whole.slice(..)),
        (3, 1000, &aligned),
        (4, 4096, &aligned),
    ] {
        let pieces: Vec<_> = (0..whole.len())
            .step_by(cut)
            .map(|at| source.slice(at..whole.len().min(at + cut)))
            .collect();
        let owner = owner("x").into();
        device
            .store()
            .write(chunk(id), &owner, &pieces)
            .await
            .unwrap();
        let read = device
            .store()
            .read(chunk(id), None, range(0, whole.len()))
            .await;
        assert!(read.unwrap() == whole, "cut every {cut}");
    }

    struct Shared(crate::aligned::Aligned);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new(4, 320 * MIB);
    let device = world.open();
    let read = device.store().read(chunk(1), None, 0..1).await;
    assert!(matches!(read, Err(Error::NotFound)));
    assert!(!device.store().contains(chunk(1)).unwrap());
    device.store().delete(&[chunk(1)]).await.unwrap();
    write(&device, 1, 10).await.unwrap();
    assert!(device.store().contains(chunk(1)).unwrap());
    let beyond = device.store().read(chunk(1), None, 0..11).await;
    assert!(matches!(beyond, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_group_is_listed_page_by_page() {
    let of_group = |group, number| ChunkId::new(base::GroupId(group), 1, number);
    let world = World::new(12, 320 * MIB);
    let device = world.open();
    let store = device.store();
    for id in [
        of_group(0, 1),
        of_group(1, 1),
        of_group(1, 2),
        of_group(1, 3),
    ] {
        let payload = [payload(1, 10)];
        store.write(id, &owner("o").into(), &payload).await.unwrap();
    }
    let list = async |group, after, max| store.list(base::GroupId(group), after, max).await;
    store.flush().await.unwrap();
    let second = of_group(1, 2);
    assert_eq!(list(1, None, 2).await.unwrap(), [of_group(1, 1), second]);
    assert_eq!(list(1, Some(second), 2).await.unwrap(), [of_group(1, 3)]);
    assert_eq!(list(0, None, 9).await.unwrap(), [of_group(0, 1)]);
    assert_eq!(list(2, None, 9).await.unwrap(), []);
    let all = store.list_all(Some(of_group(0, 1)), 2).await.unwrap();
    assert_eq!(all, [(of_group(1, 1), 10), (second, 10)]);
    store.delete(&[second]).await.unwrap();
    assert_eq!(list(1, None, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_chunk_is_described_by_its_header() {
    let world = World::new(13, 320 * MIB);
    let device = world.open();
    write(&device, 1, 5000).await.unwrap();
    let described = device.store().describe(chunk(1)).await.unwrap();
    assert_eq!(described, (owner("1").into(), 5000));
    let missing = device.store().describe(chunk(2)).await;
    assert!(matches!(missing, Err(Error::NotFound)));
    let place = device.store().shared.find(chunk(1)).unwrap().unwrap();
    world
        .disk
        .flip(&world.segment(place.segment), place.offset + 40, &[1]);
    let damaged = device.store().describe(chunk(1)).await;
    assert!(matches!(damaged, Err(Error::Damaged(_))), "{damaged:?}");
}

#[tokio::test]
async fn a_deleted_chunk_stays_deleted() {
    let world = World::new(5, 320 * MIB);
    let device = world.open();
    let mut chunks = write_sizes(&device).await;
    for id in [3, 5] {
        device
            .store()
            .delete(&[chunk(id), chunk(999)])
            .await
            .unwrap();
        chunks.remove(&id);
    }
    check_all(&device, &chunks).await;
    drop(device);
    let device = world.open();
    check_all(&device, &chunks).await;
    assert!(!device.store().contains(chunk(3)).unwrap());
}

#[tokio::test]
async fn a_stop_and_a_crash_lose_nothing() {
    let world = World::new(6, 320 * MIB);
    let device = world.open();
    let mut chunks = BTreeMap::new();
    for id in 1..5 {
        write(&device, id, 10_000).await.unwrap();
        chunks.insert(id, 10_000);
    }
    // A crash: nothing is written back.
    drop(device);
    let device = world.open();
    check_all(&device, &chunks).await;
    write(&device, 100, 5000).await.unwrap();
    chunks.insert(100, 5000);
    device.close().await.unwrap();
    assert!(matches!(
        write(&device, 101, 5000).await,
        Err(Error::Closed)
    ));
    assert!(device.store().delete(&[chunk(100)]).await.is_err());
    drop(device);
    let device = world.open();
    check_all(&device, &chunks).await;
    assert_eq!(
        device.store().usage().segments,
        1,
        "the same segment goes on"
    );
}

#[tokio::test]
async fn segments_follow_each_other() {
    let world = World::new(7, 320 * MIB);
    let device = world.open();
    let mut chunks = BTreeMap::new();
    for id in 0..4 {
        write(&device, id, CHUNK_BYTES_MAX).await.unwrap();
        chunks.insert(id, CHUNK_BYTES_MAX);
    }
    assert_eq!(device.store().usage().segments, 4);
    drop(device);
    let device = world.open();
    check_all(&device, &chunks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_readers_do_not_disturb_each_other() {
    let mut world = World::new(8, 320 * MIB);
    world.config.write_threads = 4;
    let device = world.open();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let device = device.clone();
            tokio::spawn(async move {
                for i in 0..10 {
                    let (id, len) = (task * 100 + i, 1000 + 20_000 * usize::try_from(i).unwrap());
                    write(&device, id, len).await.unwrap();
                    assert!(read(&device, id, len).await.unwrap() == payload(id, len));
                    if i % 2 == 0 {
                        device.store().delete(&[chunk(id)]).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(device.store().usage().chunks, 16 * 5);
    drop(device);
    let device = world.open();
    assert_eq!(device.store().usage().chunks, 16 * 5);
    assert_eq!(device.health().state(), State::Healthy);
}

#[tokio::test]
async fn a_dropped_write_leaves_the_chunk_or_nothing() {
    let world = World::new(9, 320 * MIB);
    let device = world.open();
    {
        let written = write(&device, 1, 100_000);
        tokio::pin!(written);
        let once = std::future::poll_fn(|cx| {
            let _ = written.as_mut().poll(cx);
            std::task::Poll::Ready(())
        });
        once.await;
    }
    write(&device, 2, 10).await.unwrap();
    match read(&device, 1, 100_000).await {
        Ok(read) => assert!(read == payload(1, 100_000)),
        Err(error) => assert!(matches!(error, Error::NotFound)),
    }
}
