//! Compaction and scrubbing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::Referenced;
use crate::store::compact::{Stuck, pick};
use crate::store::pace::Go;

/// Too small for a hole.
const SMALL: usize = 50_000;

/// A device whose first segment is sealed and mostly dead; answers what is left in all.
async fn mostly_dead(seed: u64) -> (World, Device, BTreeMap<u64, usize>) {
    let world = World::new(seed, 320 * MIB);
    let device = world.open();
    let mut chunks = BTreeMap::new();
    while device.store().usage().segments < 2 {
        let id = chunks.len() as u64;
        write(&device, id, SMALL).await.unwrap();
        chunks.insert(id, SMALL);
    }
    // Never neighbours at once, which would become holes.
    for part in 1..10 {
        let dead: Vec<_> = chunks
            .keys()
            .copied()
            .filter(|id| id % 10 == part)
            .collect();
        let dead: Vec<_> = dead.into_iter().map(chunk).collect();
        device.store().delete(&dead).await.unwrap();
    }
    chunks.retain(|id, _| id % 10 == 0);
    (world, device, chunks)
}

async fn compact(device: &Device) -> Result<(), Error> {
    let outcome = blocking(device, |shared| shared.compact(1)).await;
    // One flush forgets the segment, the next the file.
    device.store().flush().await?;
    device.store().flush().await?;
    outcome.map(|go| assert_eq!(go, Go::On))
}

#[tokio::test]
async fn a_mostly_dead_segment_is_copied_and_removed() {
    let (world, device, chunks) = mostly_dead(1).await;
    assert!(device.store().usage().dead_bytes > 7 * MIB);
    let segments = device.store().shared.ledger.lock().segments();
    assert_eq!(pick(&segments, &Stuck::new()), Some(1));

    compact(&device).await.unwrap();
    check_all(&device, &chunks).await;
    assert!(device.store().usage().dead_bytes < MIB);
    let names = world.env.disk.list(&world.path("segments")).unwrap();
    assert_eq!(names, [segment::file_name(2)]);
    drop(device);
    check_all(&world.open(), &chunks).await;
}

#[tokio::test]
async fn the_power_may_go_at_every_step_of_a_compaction() {
    for n in 0.. {
        let (world, device, chunks) = mostly_dead(n).await;
        world.disk.power_off_at(n);
        let done = compact(&device).await.is_ok();
        drop(device);
        world.disk.power_cut(n);
        let device = world.open();
        check_all(&device, &chunks).await;
        assert!(!device.store().contains(chunk(1)).unwrap(), "step {n}");
        if done {
            assert!(n > 10, "all steps were tried");
            break;
        }
    }
}

#[tokio::test]
async fn a_chunk_deleted_during_compaction_stays_deleted() {
    let (world, device, mut chunks) = mostly_dead(3).await;
    // Compaction has copied the record of chunk 0 when its deletion comes.
    let store = device.store().clone();
    let once = Arc::new(AtomicBool::new(false));
    let deleted = once.clone();
    world.disk.fail_when(move |call, _| {
        if call == testkit::Call::Write && !deleted.swap(true, Ordering::Relaxed) {
            store.shared.delete(chunk(0), None).unwrap();
        }
        None
    });
    compact(&device).await.unwrap();
    world.disk.heal();
    assert!(once.load(Ordering::Relaxed));
    chunks.remove(&0);
    check_all(&device, &chunks).await;
    drop(device);
    let device = world.open();
    check_all(&device, &chunks).await;
    assert!(!device.store().contains(chunk(0)).unwrap());
}

#[tokio::test]
async fn a_bad_record_is_not_copied_and_not_lost() {
    let (world, device, mut chunks) = mostly_dead(4).await;
    let place = device.store().shared.find(chunk(10)).unwrap().unwrap();
    world
        .disk
        .flip(&world.segment(1), place.offset + 5000, &[4]);
    compact(&device).await.unwrap();
    assert_eq!(device.store().bad_records().len(), 1);
    let lost = read(&device, 10, SMALL).await;
    assert!(matches!(lost, Err(Error::Damaged(_))), "{lost:?}");
    // Its segment is there as long as it is.
    assert_eq!(device.store().usage().segments, 2);
    device.store().delete(&[chunk(10)]).await.unwrap();
    device.store().flush().await.unwrap();
    assert_eq!(device.store().usage().segments, 1);
    assert!(device.store().bad_records().is_empty());
    chunks.remove(&10);
    check_all(&device, &chunks).await;
}

#[tokio::test]
async fn compaction_may_use_half_of_the_reserve() {
    let (world, device, chunks) = mostly_dead(5).await;
    // The growing segment is full, and there is nothing above the reserve.
    let free = device.space().unwrap().free_bytes;
    world.disk.resize(320 * MIB - free + device.reserve_bytes());
    let mut id = 1000;
    while write(&device, id, CHUNK_BYTES_MAX).await.is_ok() {
        id += 1;
    }
    let mut all = chunks;
    all.extend((1000..id).map(|id| (id, CHUNK_BYTES_MAX)));
    compact(&device).await.unwrap();
    check_all(&device, &all).await;
    // What compaction has won is there for new chunks.
    world
        .disk
        .resize(320 * MIB - free + device.reserve_bytes() + MIB);
    write(&device, id, SMALL).await.unwrap();
}

#[tokio::test]
async fn compaction_and_scrubbing_run_in_the_background() {
    let (_world, device, chunks) = mostly_dead(6).await;
    let asked = Arc::new(AtomicBool::new(false));
    let saw = asked.clone();
    device
        .start_jobs(move |_, _| {
            saw.store(true, Ordering::Relaxed);
            std::future::ready(Referenced::Yes)
        })
        .unwrap();
    device.pause_jobs(true);
    device.pause_jobs(false);
    while device.metrics().bytes_compacted.get() == 0 || device.metrics().bytes_scrubbed.get() == 0
    {
        tokio::task::yield_now().await;
    }
    check_all(&device, &chunks).await;
    device.close().await.unwrap();
    assert!(!asked.load(Ordering::Relaxed), "nothing is old yet");
}

/// Scrubs once; answers who was asked about.
async fn scrub(device: &Device, answer: Referenced) -> BTreeSet<ChunkId> {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let all = asked.clone();
    let go = blocking(device, move |shared| {
        shared.scrub(&|id, owner| {
            assert_eq!(owner, super::owner(&id.0.to_string()));
            all.lock().insert(id);
            answer
        })
    });
    assert_eq!(go.await, Go::On);
    device.store().flush().await.unwrap();
    let asked = asked.lock();
    asked.clone()
}

#[tokio::test]
async fn what_is_bad_is_found_and_told_once() {
    let world = World::new(10, 320 * MIB);
    let device = world.open();
    for id in 0..4 {
        write(&device, id, 200_000).await.unwrap();
    }
    device.store().flush().await.unwrap();
    let place = |id| device.store().shared.find(chunk(id)).unwrap().unwrap();
    // A payload, and a header.
    world
        .disk
        .flip(&world.segment(1), place(1).offset + 150_000, &[1]);
    world
        .disk
        .flip(&world.segment(1), place(2).offset + 20, &[1]);
    for _ in 0..2 {
        scrub(&device, Referenced::Yes).await;
        let bad = device.store().bad_records();
        let ids: Vec<_> = bad.iter().map(|bad| bad.chunk).collect();
        assert_eq!(ids, [chunk(1), chunk(2)], "{bad:?}");
        assert_eq!(device.metrics().bad_records.get(), 2);
    }
    world
        .disk
        .flip(&world.segment(1), place(1).offset + 150_000, &[1]);
    scrub(&device, Referenced::Yes).await;
    assert_eq!(device.store().bad_records().len(), 1, "good again");
}

#[tokio::test]
async fn only_old_chunks_that_are_clearly_not_needed_are_deleted() {
    let world = World::new(11, 320 * MIB);
    let device = world.open();
    for id in 0..2 {
        write(&device, id, 200_000).await.unwrap();
    }
    assert!(
        scrub(&device, Referenced::No).await.is_empty(),
        "nothing is old"
    );
    world.clock.advance(Duration::from_secs(24 * 3600));
    write(&device, 2, 200_000).await.unwrap();

    for answer in [Referenced::Yes, Referenced::Unknown] {
        let asked = scrub(&device, answer).await;
        assert_eq!(asked, [chunk(0), chunk(1)].into());
        assert_eq!(device.store().usage().chunks, 3);
    }
    scrub(&device, Referenced::No).await;
    assert_eq!(device.store().usage().chunks, 1);
    assert!(device.store().contains(chunk(2)).unwrap());
    assert_eq!(device.metrics().leftovers.get(), 2);
}

#[tokio::test]
async fn a_torn_write_is_no_damage_unless_somebody_needs_it() {
    let world = World::new(12, 320 * MIB);
    let device = world.open();
    write(&device, 1, 200_000).await.unwrap();
    let place = device.store().shared.find(chunk(1)).unwrap().unwrap();
    world
        .disk
        .flip(&world.segment(1), place.offset + 9000, &[1]);
    scrub(&device, Referenced::No).await;
    assert!(device.store().bad_records().is_empty());
    assert!(device.store().contains(chunk(1)).unwrap(), "it is young");
    scrub(&device, Referenced::Unknown).await;
    assert_eq!(device.store().bad_records().len(), 1);
    world.clock.advance(Duration::from_secs(24 * 3600));
    scrub(&device, Referenced::No).await;
    assert!(!device.store().contains(chunk(1)).unwrap());
    assert!(device.store().bad_records().is_empty());
}

#[tokio::test]
async fn a_chunk_that_the_index_has_lost_comes_back() {
    let world = World::new(13, 320 * MIB);
    let device = world.open();
    write(&device, 1, 200_000).await.unwrap();
    device.store().flush().await.unwrap();
    let row = [(chunk(1), None)];
    let rows = row.iter().map(|(id, place)| (id, *place));
    device.store().shared.index.commit(rows, &[]).unwrap();
    world.clock.advance(Duration::from_secs(24 * 3600));

    scrub(&device, Referenced::Unknown).await;
    assert!(!device.store().contains(chunk(1)).unwrap());
    scrub(&device, Referenced::Yes).await;
    assert!(read(&device, 1, 200_000).await.unwrap() == payload(1, 200_000));
    assert_eq!(device.store().usage().chunks, 1);
}

#[tokio::test]
async fn what_a_crash_left_unpunched_is_given_back() {
    let world = World::new(14, 320 * MIB);
    let device = world.open();
    write(&device, 1, 200_000).await.unwrap();
    device.store().flush().await.unwrap();
    world.disk.fail_when(|call, _| {
        (call == testkit::Call::Punch).then_some(std::io::ErrorKind::StorageFull)
    });
    device.store().delete(&[chunk(1)]).await.unwrap();
    world.disk.heal();
    assert_eq!(device.metrics().bytes_punched.get(), 0);
    scrub(&device, Referenced::No).await;
    assert_eq!(device.metrics().bytes_punched.get(), 0, "it is young");
    world.clock.advance(Duration::from_secs(24 * 3600));
    scrub(&device, Referenced::No).await;
    assert_eq!(device.metrics().bytes_punched.get(), 204_800);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_answer() {
    let (world, device, _) = mostly_dead(15).await;
    world.clock.advance(Duration::from_secs(24 * 3600));
    let asked = Arc::new(AtomicBool::new(false));
    let saw = asked.clone();
    device
        .start_jobs(move |_, _| {
            saw.store(true, Ordering::Relaxed);
            std::future::pending()
        })
        .unwrap();
    while !asked.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    drop(device);
}
