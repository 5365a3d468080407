//! Every call of the disk may fail, one at a time.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::crash::{STEPS, body, found, put, state};
use super::disk::End;
use super::world::World;
use crate::{Config, Error};

/// What a reader gets is what is there, or an error that says that it cannot be told.
async fn reads_right(world: &World, expected: Option<Option<usize>>) {
    let container = match world.namespace.container("a", "c").await {
        Ok(container) => container,
        Err(Error::NotFound(_)) => return assert_eq!(expected, None),
        Err(error) => return assert!(is_trouble(&error), "{error:?}"),
    };
    match (world.get(&container, "o").await, expected.flatten()) {
        (Ok(found), Some(len)) => assert!(found == body(len), "{} of {len} bytes", found.len()),
        (Err(Error::NotFound(_)), None) => {}
        (Err(error), _) => assert!(is_trouble(&error), "{error:?}"),
        (Ok(found), None) => panic!("{} bytes of what is not there", found.len()),
    }
}

fn is_trouble(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::Damaged(_))
}

/// The steps, of which a call of the disk fails; half of a write happens then. Gives how many were done, and
/// whether that call came.
async fn run(world: &World, n: u64, kind: ErrorKind) -> (usize, bool) {
    let disk = &world.on_disk.as_ref().unwrap().disk;
    let before = disk.calls_all();
    disk.fail_nth(n, kind);
    let mut done = 0;
    for (name, step) in STEPS {
        match step(world).await {
            Ok(()) => done += 1,
            Err(error) => {
                let is_clear =
                    is_trouble(&error) || [Error::OutOfSpace, Error::Unknown].contains(&error);
                assert!(is_clear, "call {n}, in {name}: {error:?}");
                break;
            }
        }
        reads_right(world, state(done)).await;
    }
    let came = disk.calls_all() - before > n;
    disk.heal();
    (done, came)
}

async fn any_call_may_fail(kind: ErrorKind) -> BTreeSet<&'static str> {
    let mut failed_in = BTreeSet::new();
    for n in 0.. {
        let mut world = World::on_disk(n, Config::default()).await;
        let (done, came) = run(&world, n, kind).await;
        match STEPS.get(done) {
            Some((name, _)) => drop(failed_in.insert(*name)),
            None if came => {}
            None => break,
        }
        world.restart(End::PowerCut(n)).await;
        let report = world.check_stopped().await;
        assert_eq!(report.problems, [], "call {n}, {done} steps done");
        let found = found(&world).await;
        let is_one = found == state(done) || done < STEPS.len() && found == state(done + 1);
        assert!(is_one, "call {n}, {done} steps done: {found:?}");
        // And it goes on from there.
        world.container("c").await;
        put(&world, 30_000).await.unwrap();
    }
    failed_in
}

#[tokio::test]
async fn any_call_may_fail_as_on_a_broken_disk() {
    let failed_in = any_call_may_fail(ErrorKind::Other).await;
    assert_eq!(failed_in.len(), STEPS.len(), "{failed_in:?}");
}

#[tokio::test]
async fn any_call_may_find_no_space() {
    let failed_in = any_call_may_fail(ErrorKind::StorageFull).await;
    assert!(!failed_in.is_empty());
}
