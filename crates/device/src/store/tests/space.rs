//! Space runs out and comes back.

use super::*;

/// Writes chunks from `first` until the device is full; answers with the ids.
async fn fill(device: &Device, first: u64) -> Vec<u64> {
    let mut written = Vec::new();
    for id in first.. {
        match write(device, id, CHUNK_BYTES_MAX).await {
            Ok(()) => written.push(id),
            Err(Error::Full) => break,
            Err(other) => panic!("{other}"),
        }
    }
    written
}

#[tokio::test]
async fn a_full_device_takes_deletes_and_then_writes_again() {
    let world = World::new(1, 100 * MIB);
    let device = world.open();
    let reserve = device.reserve_bytes();
    let mut first = 0;
    let mut counts = Vec::new();
    for _ in 0..4 {
        let written = fill(&device, first).await;
        let free = device.space().unwrap().free_bytes;
        assert!(free >= reserve, "the reserve is left alone");
        assert!(free < reserve + 8 * MIB, "all else is used: {free}");
        assert_eq!(device.health().state(), State::Healthy);
        let last = *written.last().unwrap();
        assert!(read(&device, last, CHUNK_BYTES_MAX).await.is_ok());

        let ids: Vec<_> = written.iter().map(|id| chunk(*id)).collect();
        device.store().delete(&ids).await.unwrap();
        device.store().flush().await.unwrap();
        counts.push(written.len());
        first = last + 1;
    }
    assert!(counts.iter().all(|n| *n + 2 >= counts[0]), "{counts:?}");
}

#[tokio::test]
async fn what_is_deleted_gives_its_blocks_back() {
    let world = World::new(2, 320 * MIB);
    let device = world.open();
    write(&device, 1, CHUNK_BYTES_MAX).await.unwrap();
    write(&device, 2, 100_000).await.unwrap();
    write(&device, 3, 10_000).await.unwrap();
    let free = || device.space().unwrap().free_bytes;
    let before = free();
    device.store().delete(&[chunk(3)]).await.unwrap();
    device.store().delete(&[chunk(1), chunk(2)]).await.unwrap();
    let punched = 4096 + CHUNK_BYTES_MAX as u64 + 4096 + 102_400;
    assert_eq!(free() - before, punched, "but for the small one");
    assert_eq!(device.metrics().bytes_punched.get(), punched);
    let usage = device.store().usage();
    assert_eq!((usage.chunks, usage.live_bytes), (0, 0));
    assert_eq!(usage.dead_bytes, 4096 + 12_288);
}

#[tokio::test]
async fn a_hole_is_punched_only_after_the_index_is_durable() {
    let world = World::new(3, 320 * MIB);
    let device = world.open();
    write(&device, 1, 200_000).await.unwrap();
    device.store().flush().await.unwrap();
    device.store().shared.delete(chunk(1), None).unwrap();
    let read = read(&device, 1, 200_000).await;
    assert!(matches!(read, Err(Error::NotFound)));
    assert_eq!(world.disk.calls(testkit::Call::Punch), 0);
    // A crash before the flush: the deletion was not acknowledged, and did not happen.
    drop(device);
    let device = world.open();
    assert!(super::read(&device, 1, 200_000).await.unwrap() == payload(1, 200_000));
}

#[tokio::test]
async fn emptied_segments_are_removed() {
    let world = World::new(4, 320 * MIB);
    let device = world.open();
    for id in 0..4 {
        write(&device, id, CHUNK_BYTES_MAX).await.unwrap();
    }
    assert_eq!(device.store().usage().segments, 4);
    let ids: Vec<_> = (0..3).map(chunk).collect();
    device.store().delete(&ids).await.unwrap();
    device.store().flush().await.unwrap();
    assert_eq!(device.store().usage().segments, 1);
    let names = world.env.disk.list(&world.path("segments")).unwrap();
    assert_eq!(names, [segment::file_name(4)]);
    drop(device);
    let device = world.open();
    assert_eq!(device.store().usage().segments, 1);
    assert!(read(&device, 3, CHUNK_BYTES_MAX).await.is_ok());
}

#[tokio::test]
async fn many_holes_do_not_hold_up_the_index() {
    let world = World::new(5, 320 * MIB);
    let device = world.open();
    for id in 0..400 {
        write(&device, id, 70_000).await.unwrap();
    }
    let free = || device.space().unwrap().free_bytes;
    let before = free();
    // Every second: none are neighbours.
    let ids: Vec<_> = (0..400).step_by(2).map(chunk).collect();
    device.store().delete(&ids).await.unwrap();
    while free() < before + 200 * (4096 + 73_728) {
        device.store().flush().await.unwrap();
    }
    assert_eq!(device.store().usage().dead_bytes, 0);
}

#[tokio::test]
async fn an_index_that_finds_no_space_loses_nothing() {
    let mut world = World::new(6, 320 * MIB);
    world.config.index_bytes_max = Some(256 * 1024);
    let device = world.open();
    let mut chunks = BTreeMap::new();
    let full = loop {
        for _ in 0..200 {
            let id = chunks.len() as u64;
            write(&device, id, 100).await.unwrap();
            chunks.insert(id, 100);
        }
        if let Err(error) = device.store().flush().await {
            break error;
        }
    };
    assert!(matches!(full, Error::Full), "{full:?}");
    assert_eq!(device.health().state(), State::Healthy);
    write(&device, 100_000, 100).await.unwrap();
    chunks.insert(100_000, 100);
    check_all(&device, &chunks).await;
    assert!(matches!(device.close().await, Err(Error::Full)));
    drop(device);

    check_all(&world.open(), &chunks).await;
    world.config.index_bytes_max = None;
    let device = world.open();
    check_all(&device, &chunks).await;
    device.close().await.unwrap();
}
