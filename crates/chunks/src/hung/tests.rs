//! Real devices on a simulated disk of which one part hangs.

use std::path::PathBuf;

use base::{ChunkId, Timestamp};
use bytes::Bytes;
use device::{Device, Identity};
use map::{Current, Map};
use testkit::{Call as DiskCall, SimDisk};
use tokio::task::JoinHandle;

use super::*;
use crate::testing::{MemoryDevice, label};
use crate::{Chunk, Chunks, Config, Error, Span, Storage, here};

struct World {
    disk: SimDisk,
    chunks: Chunks,
    first: Arc<Device>,
    dirs: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (env, disk, _) = testkit::env(1, 4 << 30);
        let dir = tempfile::tempdir().unwrap();
        let (mut devices, mut dirs, mut first) = (Vec::new(), Vec::new(), None);
        for number in [1, 2] {
            let path = dir.path().join(number.to_string());
            #[expect(clippy::disallowed_methods, reason = "LMDB has its own files")]
            std::fs::create_dir_all(&path).unwrap();
            let identity = Identity {
                cluster: 1,
                device: DeviceId(number),
                shards: 1,
                created: Timestamp::from_secs(1),
            };
            Device::format(&env, &path, &identity).unwrap();
            let config = device::Config {
                segment_bytes: Some(64 << 20),
                write_threads: 2,
                ..device::Config::default()
            };
            let device = Arc::new(Device::open(env.clone(), &path, config).unwrap());
            first.get_or_insert(device.clone());
            devices.push(device as Arc<dyn Storage>);
            dirs.push(path);
        }
        let map = Map::default().with_devices(devices.iter().map(|device| device.id()));
        let map = Current::new(map);
        let chunks = Chunks::new(env, map, here(devices), &Config::default());
        Self {
            disk,
            chunks,
            first: first.expect("there are two"),
            dirs,
            _dir: dir,
        }
    }

    /// The first device's disk neither works nor fails.
    fn hang(&self) {
        let dir = self.dirs[0].join("segments");
        let disk_calls = [DiskCall::Read, DiskCall::Write, DiskCall::Sync];
        self.disk
            .hang_when(move |call, path| disk_calls.contains(&call) && path.starts_with(&dir));
    }

    /// Uploads a chunk whose memory is of the budget.
    fn upload(&self) -> JoinHandle<Result<Chunk, Error>> {
        let mut writer = self.chunks.writer(label("o").owner, Map::POLICY);
        let mut piece = self.chunks.pool().try_take().unwrap();
        piece.fill(b"all of it");
        tokio::spawn(async move {
            writer.push(piece.freeze()).await?;
            Ok(writer.finish().await?[0])
        })
    }

    fn read(&self, chunk: ChunkId) -> JoinHandle<Result<Bytes, Error>> {
        let mut reader = self.chunks.reader();
        let chunk = Chunk {
            id: chunk,
            bytes: 9,
        };
        reader.push(Span { chunk, range: 0..9 });
        tokio::spawn(async move { reader.next().await.expect("a span was pushed") })
    }

    fn is_on_first(&self, chunk: ChunkId) -> bool {
        let map = self.chunks.map().load();
        let mut members = map.groups[&chunk.group()].devices();
        members.any(|device| device == DeviceId(1))
    }

    /// A chunk on each device.
    async fn one_on_each(&self) -> (ChunkId, ChunkId) {
        let (mut first, mut second) = (None, None);
        while first.is_none() || second.is_none() {
            let chunk = self.upload().await.unwrap().unwrap().id;
            match self.is_on_first(chunk) {
                true => first = Some(chunk),
                false => second = Some(chunk),
            }
        }
        first.zip(second).expect("there is one on each")
    }

    async fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The devices wait for their threads.
        self.disk.heal();
    }
}

/// Lets so much time pass, and a little more, now that nothing but hung calls is left to wait for.
async fn wait_long(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time + Duration::from_secs(1)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn nobody_waits_for_writes_that_hang_and_their_memory_comes_back() {
    let world = World::new();
    let all = world.chunks.buffers().upload_bytes_free;
    world.hang();
    let mut uploads: Vec<_> = (0..20).map(|_| world.upload()).collect();
    // Some go to the other device and are done; the rest hang.
    let done = |uploads: &[JoinHandle<_>]| uploads.iter().filter(|one| one.is_finished()).count();
    let hang = || usize::try_from(world.first.metrics().write_queue.get()).unwrap();
    world
        .until(|| hang() > 0 && hang() + done(&uploads) == uploads.len())
        .await;
    let late = uploads.extract_if(.., |upload| !upload.is_finished());
    let late: Vec<_> = late.collect();
    assert!(!late.is_empty());
    for done in uploads {
        assert!(!world.is_on_first(done.await.unwrap().unwrap().id));
    }

    wait_long(TRY_TIME_MAX).await;
    let hung = late.len() as u64;
    for moved in late {
        assert!(!world.is_on_first(moved.await.unwrap().unwrap().id));
    }
    assert_eq!(world.chunks.devices_hung(), 1);
    // The disk still reads from it.
    let free = || world.chunks.buffers().upload_bytes_free;
    assert_eq!(free(), all - hung * crate::PIECE_BYTES as u64);
    for _ in 0..20 {
        let chunk = world.upload().await.unwrap().unwrap();
        assert!(!world.is_on_first(chunk.id), "it hangs");
    }

    world.disk.heal();
    world.until(|| free() == all).await;
    world.until(|| world.chunks.devices_hung() == 0).await;
    world.chunks.settle().await;
    let groups = world.chunks.map().load().groups.clone();
    for group in groups.into_keys() {
        let left = Storage::list(&*world.first, group, None).await.unwrap();
        assert_eq!(left, [], "what was given up");
    }
    world.one_on_each().await;
}

#[tokio::test]
async fn nobody_waits_for_reads_that_hang() {
    let world = World::new();
    let (first, second) = world.one_on_each().await;
    let all = world.chunks.buffers().read_bytes_free;
    world.disk.set_cold(true);
    world.hang();
    let reads: Vec<_> = (0..100).map(|_| world.read(first)).collect();
    let free = || world.chunks.buffers().read_bytes_free;
    let taken = 100 * crate::PIECE_BYTES as u64;
    world
        .until(|| world.disk.calls_hung() > 0 && free() == all - taken)
        .await;
    wait_long(DEVICE_TIME_MAX).await;
    for read in reads {
        let refused = read.await.unwrap().unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    }
    assert_eq!(world.chunks.devices_hung(), 1);
    assert_eq!(free(), all);
    assert_eq!(
        &world.read(second).await.unwrap().unwrap()[..],
        b"all of it"
    );

    world.disk.heal();
    world.until(|| world.chunks.devices_hung() == 0).await;
    assert_eq!(&world.read(first).await.unwrap().unwrap()[..], b"all of it");
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_hangs_is_left_for_later_and_those_of_other_groups_are_not() {
    let devices = [1, 2].map(|id| Arc::new(MemoryDevice::new(DeviceId(id))));
    let map = Map::default().with_devices([DeviceId(1), DeviceId(2)]);
    let group_of = |id| {
        let mut groups = map.groups.iter();
        let found = groups.find(|(_, group)| group.devices().eq([DeviceId(id)]));
        *found.expect("each device has a group of its own").0
    };
    let [first, second] = [1, 2].map(|id| ChunkId::new(group_of(id), 1, 1));
    let storages = devices.clone().map(|device| device as Arc<dyn Storage>);
    let env = base::env::Env::real();
    let chunks = Chunks::new(env, Current::new(map), here(storages), &Config::default());
    for (device, id) in devices.iter().zip([first, second]) {
        device.set(id, Some((label("o"), Bytes::from_static(b"body"))));
    }
    devices[0].hang_writes();
    let failed = chunks.delete(&[first, second]).await;
    assert_eq!(failed.into_iter().collect::<Vec<_>>(), [first.group()]);
    assert_eq!(devices[1].chunks().len(), 0);

    devices[0].release();
    while chunks.devices_hung() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(chunks.delete(&[first]).await.is_empty());
    assert_eq!(devices[0].chunks().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_another_node_gave_up_is_tried_again_after_a_while() {
    let hung = Hung::default();
    let device = DeviceId(1);
    let given_up = || ready(Err::<(), _>(StorageError::Overdue)).boxed();
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let ended = move || ended.send(()).expect("the test waits for it");
    let until = Instant::now() + TRY_TIME_MAX;
    let stays = std::future::pending();
    let write = hung.wait_for_write(device, until, stays, given_up(), ended);
    let write = write.await;
    assert_eq!(write, Err(StorageError::Overdue));
    assert!(hung.is_hung(device));
    // As long as it is hung, nothing more is remembered of it.
    let read = hung.wait(device, given_up()).await;
    assert_eq!(read, Err(StorageError::Overdue));
    let start = Instant::now();
    has_ended.await.unwrap();
    assert!(!hung.is_hung(device));
    assert!(start.elapsed() >= PAUSE);
    // A read finds it out as well, and a failure says nothing.
    let failed = StorageError::Unavailable("it has failed".into());
    let read = hung.wait(device, ready(Err::<(), _>(failed)).boxed()).await;
    assert!(read.is_err() && !hung.is_hung(device));
    let read = hung.wait(device, given_up()).await;
    assert!(read.is_err() && hung.is_hung(device));
}
