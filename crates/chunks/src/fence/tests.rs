use futures_util::poll;
use map::Map;

use super::*;
use crate::testing::{MemoryDevice, label};

const GROUP: GroupId = GroupId(0);

fn fence() -> Arc<Fence> {
    let map = Map::default().with_devices([DeviceId(1)]);
    Arc::new(Fence::new(Current::new(map)))
}

#[tokio::test]
async fn a_write_passes_only_with_an_epoch_that_is_not_older() {
    let fence = fence();
    let memory = Arc::new(MemoryDevice::new(DeviceId(1)));
    let device = Fenced::new(memory.clone(), fence.clone());
    let mut number = 0;
    let mut write = async |epoch| {
        number += 1;
        let id = ChunkId::new(GROUP, 1, number);
        let payload = [Bytes::from_static(b"x")];
        device.write(Epoch(epoch), id, &label("o"), &payload).await
    };
    let closed = write(1).await.unwrap_err();
    assert!(matches!(closed, StorageError::Unavailable(_)), "{closed}");
    fence.open();
    assert_eq!(
        write(0).await,
        Err(StorageError::Stale),
        "older than the map"
    );
    write(1).await.unwrap();
    write(7).await.unwrap();
    fence.raise(GROUP, Epoch(5)).await;
    assert_eq!(write(4).await, Err(StorageError::Stale));
    write(5).await.unwrap();
    fence.raise(GROUP, Epoch(3)).await;
    assert_eq!(
        write(4).await,
        Err(StorageError::Stale),
        "it never goes back"
    );
    fence.close();
    assert!(write(9).await.is_err());
    assert_eq!(memory.chunks().len(), 3);
}

#[tokio::test]
async fn a_disk_that_hangs_ties_up_bounded_memory() {
    let fence = fence();
    fence.open();
    let memory = Arc::new(MemoryDevice::new(DeviceId(1)));
    memory.hang_writes();
    let device = Fenced::new(memory, fence.clone());
    let (label, payload) = (label("o"), [Bytes::from(vec![0; device::CHUNK_BYTES_MAX])]);
    let given_up = WRITING_BYTES_MAX / device::CHUNK_BYTES_MAX;
    for number in 0..u64::try_from(given_up).unwrap() + 3 {
        let id = ChunkId::new(GROUP, 1, number);
        let mut write = device.write(Epoch(1), id, &label, &payload);
        assert!(poll!(&mut write).is_pending());
    }
    assert_eq!(fence.gates.lock()[&GROUP].writing[&Epoch(1)], given_up);
}

#[tokio::test]
async fn a_raise_waits_for_older_writes_and_for_no_others() {
    let fence = fence();
    fence.open();
    let old = fence.pass(GROUP, Epoch(2)).unwrap();
    let older = fence.pass(GROUP, Epoch(1)).unwrap();
    let _new = fence.pass(GROUP, Epoch(3)).unwrap();
    let _other = fence.pass(GroupId(9), Epoch(1)).unwrap();
    let mut raise = std::pin::pin!(fence.raise(GROUP, Epoch(3)));
    assert!(poll!(&mut raise).is_pending());
    assert_eq!(fence.pass(GROUP, Epoch(2)).err(), Some(StorageError::Stale));
    drop(old);
    assert!(poll!(&mut raise).is_pending());
    drop(older);
    raise.await;
}

#[tokio::test]
async fn a_write_whose_caller_is_gone_still_holds_its_pass() {
    let fence = fence();
    fence.open();
    let device = Fenced::new(Arc::new(MemoryDevice::new(DeviceId(1))), fence.clone());
    let label = label("o");
    {
        let payload = [Bytes::from_static(b"x")];
        let id = ChunkId::new(GROUP, 1, 1);
        let mut write = device.write(Epoch(1), id, &label, &payload);
        assert!(poll!(&mut write).is_pending());
    }
    let mut raise = std::pin::pin!(fence.raise(GROUP, Epoch(2)));
    assert!(poll!(&mut raise).is_pending(), "the device still writes");
    raise.await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_keeps_a_write_hangs_until_it_ends() {
    let fence = fence();
    fence.open();
    let memory = Arc::new(MemoryDevice::new(DeviceId(1)));
    let device = Fenced::new(memory.clone(), fence);
    memory.hang_writes();
    for number in 0..2 {
        let (id, label, payload) = (
            ChunkId::new(GROUP, 1, number),
            label("o"),
            [Bytes::from_static(b"x")],
        );
        let write = device.write(Epoch(1), id, &label, &payload);
        // The caller goes, the write stays.
        let gone = tokio::time::timeout(TRY_TIME_MAX * 3 / 4, write);
        assert!(gone.await.is_err());
        assert_eq!(device.hangs(), number == 1);
    }
    memory.release();
    while memory.chunks().len() < 2 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert!(!device.hangs());
}
