//! A disk that hangs: nobody waits for it for ever, and what waits for a commit is told the truth.

use std::time::Duration;

use testkit::Call;

use super::world::World;
use crate::patience::SHARD_TIME_MAX;
use crate::{Config, Error};

#[tokio::test]
async fn nobody_waits_for_a_commit_that_hangs() {
    let mut world = World::on_disk(1, Config::default()).await;
    let container = world.container("c").await;
    world.put(&container, "o", b"old").await.unwrap();
    let on_disk = world.on_disk.as_ref().unwrap();
    let (disk, log) = (on_disk.disk.clone(), on_disk.dir().join("log"));
    disk.hang_when(move |call, path| call == Call::Write && path.starts_with(&log));

    let wait_long = async {
        while disk.calls_hung() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(SHARD_TIME_MAX + Duration::from_secs(1)).await;
        tokio::time::resume();
    };
    // The second waits for the latch of the first, the third for the log.
    let (first, second, third, ()) = tokio::join!(
        world.put(&container, "o", b"new"),
        world.put(&container, "o", b"newer"),
        world.put(&container, "other", b"new"),
        wait_long,
    );
    assert_eq!([first, second, third], [const { Err(Error::Unknown) }; 3]);
    assert_eq!(world.get(&container, "o").await.unwrap(), b"old");

    disk.heal();
    world.put(&container, "o", b"newest").await.unwrap();
    assert_eq!(world.get(&container, "o").await.unwrap(), b"newest");
    // It was in the log when its caller gave up.
    while world.get(&container, "other").await != Ok(b"new".to_vec()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.check_stopped().await.problems, []);
}
