//! Every I/O fails once, the power goes at every step, syncs fail, the directory disappears.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::Call;

use super::*;

/// What the outside world was told.
#[derive(Default, Debug)]
struct Told {
    /// Acknowledged, so they must be there.
    written: BTreeMap<u64, usize>,
    /// Their deletion was acknowledged, so they must not.
    deleted: BTreeMap<u64, usize>,
    /// Nothing was said: whole, or not there, or known to be bad.
    unknown: BTreeMap<u64, usize>,
}

/// Writes and deletes chunks; stops at the first error.
async fn scenario(device: &Device, told: &mut Told) -> Result<(), Error> {
    for round in 0..4 {
        for i in 0..4 {
            let id = 10 * round + i;
            let len = [17_000, 300_000, 1_000_000, 2_000_000][usize::try_from(i).unwrap()];
            told.unknown.insert(id, len);
            write(device, id, len).await?;
            told.unknown.remove(&id);
            told.written.insert(id, len);
        }
        if round == 1 {
            device.store().flush().await?;
        }
        let gone = [10 * round, 10 * round + 3];
        for id in gone {
            told.unknown.extend(told.written.remove_entry(&id));
        }
        device.store().delete(&gone.map(chunk)).await?;
        for id in gone {
            told.deleted.extend(told.unknown.remove_entry(&id));
        }
    }
    Ok(())
}

/// Whether the store keeps what it told.
async fn check(device: &Device, told: &Told) {
    for (id, len) in &told.written {
        let read = read(device, *id, *len).await;
        assert!(
            read.as_ref().is_ok_and(|read| *read == payload(*id, *len)),
            "{id}: {read:?}"
        );
    }
    for (id, len) in &told.deleted {
        let read = read(device, *id, *len).await;
        assert!(
            matches!(read, Err(Error::NotFound)),
            "{id} was deleted: {read:?}"
        );
    }
    for (id, len) in &told.unknown {
        match read(device, *id, *len).await {
            Ok(read) => assert!(read == payload(*id, *len), "{id} has wrong bytes"),
            Err(Error::NotFound | Error::Damaged(_)) => {}
            Err(other) => panic!("{id}: {other:?}"),
        }
    }
}

/// How many calls the scenario makes, from opening to its end.
async fn calls() -> u64 {
    let world = World::new(1, 320 * MIB);
    let before = world.disk.calls_all();
    let device = world.open();
    scenario(&device, &mut Told::default()).await.unwrap();
    world.disk.calls_all() - before
}

#[tokio::test]
async fn the_power_may_go_at_every_step() {
    let calls = calls().await;
    for n in 0..calls {
        let world = World::new(n, 320 * MIB);
        let mut told = Told::default();
        world.disk.power_off_at(n);
        if let Ok(device) = world.try_open() {
            let outcome = scenario(&device, &mut told).await;
            assert!(outcome.is_err() || n + 20 > calls, "step {n}");
        }
        world.disk.power_cut(n);

        // The next start may be cut off as well.
        world.disk.power_off_at(n % 17);
        drop(world.try_open());
        world.disk.power_cut(n + 1);
        let device = world.open();
        check(&device, &told).await;
        // And it goes on as if nothing had happened.
        write(&device, 1000, 500_000).await.unwrap();
        told.written.insert(1000, 500_000);
        drop(device);
        let device = world.open();
        check(&device, &told).await;
        assert_eq!(device.health().state(), State::Healthy, "step {n}");
    }
}

#[tokio::test]
async fn every_call_may_fail_once() {
    for n in 0..calls().await {
        for error in [ErrorKind::Other, ErrorKind::StorageFull] {
            let world = World::new(n, 320 * MIB);
            let mut told = Told::default();
            world.disk.fail_nth(n, error);
            if let Ok(device) = world.try_open() {
                // Nothing is tried again by us, and nothing here is wrong to try again.
                let _ = scenario(&device, &mut told).await;
                check(&device, &told).await;
            }
            world.disk.heal();
            let device = world.open();
            check(&device, &told).await;
        }
    }
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    write(&device, 1, 5000).await.unwrap();
    let failed = Arc::new(AtomicBool::new(false));
    let once = failed.clone();
    world.disk.fail_when(move |call, _| {
        let first = call == Call::Sync && !once.swap(true, Ordering::Relaxed);
        first.then_some(ErrorKind::Other)
    });
    let refused = write(&device, 2, 5000).await;
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
    assert!(failed.load(Ordering::Relaxed));
    assert_eq!(device.health().state(), State::Failed);

    let (syncs, writes) = (world.disk.calls(Call::Sync), world.disk.calls(Call::Write));
    let refused = write(&device, 3, 5000).await;
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
    assert!(device.store().delete(&[chunk(1)]).await.is_err());
    assert!(device.close().await.is_err());
    let now = (world.disk.calls(Call::Sync), world.disk.calls(Call::Write));
    assert_eq!(now, (syncs, writes), "a failed device is left alone");
    assert!(read(&device, 1, 5000).await.unwrap() == payload(1, 5000));
    let unsure = read(&device, 2, 5000).await;
    assert!(matches!(unsure, Err(Error::NotFound)), "{unsure:?}");
}

/// A bug, where the store makes such a call.
fn panic_at(world: &World, call: Call) {
    world.disk.fail_when(move |now, _| {
        assert!(now != call, "a bug");
        None
    });
}

#[tokio::test]
async fn nobody_waits_for_a_write_that_panicked() {
    for (call, writes) in [(Call::Sync, 40), (Call::Write, 40), (Call::Sync, 1)] {
        let mut world = World::new(1, 320 * MIB);
        world.config.write_threads = 2;
        let device = world.open();
        write(&device, 1, 5000).await.unwrap();
        panic_at(&world, call);
        let many = (2..2 + writes).map(|id| write(&device, id, 5000));
        for refused in futures_util::future::join_all(many).await {
            assert!(
                matches!(refused, Err(Error::Failed(_) | Error::Closed)),
                "{refused:?}"
            );
        }
        assert_eq!(device.health().state(), State::Failed);
        world.disk.heal();
        let refused = write(&device, 2, 5000).await;
        assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
        assert!(read(&device, 1, 5000).await.is_ok());
        assert!(device.close().await.is_err());
    }
}

#[tokio::test]
async fn nobody_waits_for_a_flush_that_panicked() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    write(&device, 1, 200_000).await.unwrap();
    panic_at(&world, Call::Punch);
    let refused = device.store().delete(&[chunk(1)]).await;
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
    assert_eq!(device.health().state(), State::Failed);
    assert!(device.store().flush().await.is_err());
}

#[tokio::test]
async fn a_read_only_file_system_is_told_apart() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    world
        .disk
        .fail_when(|call, _| (call == Call::Write).then_some(ErrorKind::ReadOnlyFilesystem));
    assert!(write(&device, 1, 5000).await.is_err());
    assert_eq!(device.health().state(), State::ReadOnly);
}

#[tokio::test]
async fn a_directory_that_disappears_is_noticed() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    write(&device, 1, 5000).await.unwrap();
    world.disk.vanish(world.dir.path());
    let _ = device.store().flush().await;
    assert_eq!(device.health().state(), State::Failed);
    let reason = device.health().reason();
    assert!(reason.contains("disappeared"), "{reason}");
    assert!(write(&device, 2, 5000).await.is_err());
}

#[tokio::test]
async fn a_directory_that_was_replaced_is_noticed() {
    let world = World::new(1, 320 * MIB);
    let device = world.open();
    world.disk.vanish(world.dir.path());
    let other = Identity {
        device: DeviceId(99),
        ..*device.identity()
    };
    Device::format(&world.env, world.dir.path(), &other).unwrap();
    let _ = device.store().flush().await;
    assert_eq!(device.health().state(), State::Failed);
}

#[tokio::test]
async fn the_index_never_points_to_what_a_power_cut_may_take() {
    for seed in 0..20 {
        let world = World::new(seed, 320 * MIB);
        let device = world.open();
        write(&device, 1, 5000).await.unwrap();
        // A write that is cut off by a kill: the system has it, the disk not.
        let payload = [payload(2, 5000)];
        let now = world.env.clock.now();
        let record = record::Record::new(chunk(2), owner("2").into(), now, &payload).unwrap();
        let body = super::super::write::Body::new(&payload);
        let shared = &device.store().shared;
        shared
            .write_record(&record, &body, active::For::NewChunk)
            .unwrap();
        drop(device);

        // This start finds the record. The next one comes after a power cut.
        world.open().close().await.unwrap();
        world.disk.power_cut(seed);
        let offline = crate::Offline::open(world.env.clone(), world.dir.path()).unwrap();
        let mut found = 0;
        offline
            .verify(&mut |finding| {
                found += 1;
                assert!(matches!(finding, crate::Finding::Record(_)), "{finding:?}");
            })
            .unwrap();
        assert_eq!(found, 2);
    }
}
