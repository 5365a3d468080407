//! Verification of a device that nobody has open.

use super::*;
use crate::{Finding, Offline};

fn verify(world: &World) -> Vec<Finding> {
    let offline = Offline::open(world.env.clone(), world.dir.path()).unwrap();
    let mut all = Vec::new();
    offline.verify(&mut |finding| all.push(finding)).unwrap();
    all
}

/// The ids of all records: live, left over, and with a bad payload.
fn ids(findings: &[Finding]) -> [Vec<u64>; 3] {
    let mut all = [vec![], vec![], vec![]];
    for finding in findings {
        let Finding::Record(record) = finding else {
            continue;
        };
        let id = u64::try_from(record.chunk.0).unwrap();
        assert_eq!(record.label.owner, owner(&id.to_string()));
        all[usize::from(!record.live)].push(id);
        if record.wrong.is_some() {
            all[2].push(id);
        }
    }
    all
}

#[tokio::test]
async fn every_record_is_told_with_its_owner_and_nothing_changes() {
    let world = World::new(1, 320 * MIB);
    assert_eq!(verify(&world), [], "formatted, and never opened");
    let device = world.open();
    assert!(matches!(
        Offline::open(world.env.clone(), world.dir.path()),
        Err(Error::Locked)
    ));
    for id in 0..4 {
        write(&device, id, 30_000).await.unwrap();
    }
    device.store().delete(&[chunk(1)]).await.unwrap();
    // The index will not learn these before the crash.
    write(&device, 4, 30_000).await.unwrap();
    drop(device);

    let writes = world.disk.calls(testkit::Call::Write);
    let index = std::fs::read(world.path("index").join("data.mdb")).unwrap();
    let found = verify(&world);
    assert_eq!(ids(&found), [vec![0, 2, 3, 4], vec![1], vec![]]);
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(world.disk.calls(testkit::Call::Write), writes);
    assert!(std::fs::read(world.path("index").join("data.mdb")).unwrap() == index);

    let device = world.open();
    device.close().await.unwrap();
    drop(device);
    assert_eq!(ids(&verify(&world)), ids(&found), "as the start said");
}

#[tokio::test]
async fn damage_is_told() {
    let world = World::new(2, 320 * MIB);
    let device = world.open();
    for id in 0..4 {
        write(&device, id, 30_000).await.unwrap();
    }
    device.store().flush().await.unwrap();
    let place = |id| device.store().shared.find(chunk(id)).unwrap().unwrap();
    let (one, two) = (place(1), place(2));
    drop(device);
    world.disk.flip(&world.segment(1), one.offset + 7000, &[1]);
    world.disk.flip(&world.segment(1), two.offset + 7, &[1]);
    let found = verify(&world);
    assert_eq!(ids(&found), [vec![0, 1, 3], vec![], vec![1]]);
    let missing: Vec<_> = found
        .iter()
        .filter(|finding| matches!(finding, Finding::Missing { chunk: id, .. } if *id == chunk(2)))
        .collect();
    assert_eq!(missing.len(), 1, "{found:?}");

    world.env.disk.remove(&world.segment(1)).unwrap();
    let found = verify(&world);
    assert_eq!(found.len(), 4);
    assert!(
        found
            .iter()
            .all(|finding| matches!(finding, Finding::Missing { .. }))
    );
}

#[tokio::test]
async fn a_device_without_its_index_is_read_all_the_same() {
    let world = World::new(3, 320 * MIB);
    let device = world.open();
    for id in 0..3 {
        write(&device, id, 30_000).await.unwrap();
    }
    drop(device);
    std::fs::remove_dir_all(world.path("index")).unwrap();
    assert_eq!(ids(&verify(&world)), [vec![0, 1, 2], vec![], vec![]]);
}
