//! Two nodes on the same shards and devices.

use std::time::Duration;

use bytes::Bytes;

use super::large;
use super::world::{LIMITS, World};
use crate::renew::{RENEW_EVERY, RENEWED_FOR, Renew};
use crate::{
    Backlog, Condition, Config, Container, Error, Expired, MetadataChange, Namespace, Object, Owns,
    PutObject, Role, Stored,
};

static LARGE: [u8; 50_000] = [7; 50_000];

const HOUR: Duration = Duration::from_secs(3600);

async fn shared() -> (World, Namespace, Container) {
    let config = Config {
        is_shared: true,
        ..Config::default()
    };
    let world = World::with_config(1, config).await;
    let (other, container) = (world.beside().await, world.container("c").await);
    (world, other, container)
}

async fn look(namespace: &Namespace, container: &Container) -> Object {
    let object = namespace.object(container, "o", Expired::Hide).await;
    object.unwrap()
}

async fn read(
    namespace: &Namespace,
    container: &Container,
    object: &Object,
) -> Result<Vec<u8>, Error> {
    let range = 0..object.bytes;
    let mut reader = namespace.read(container, object, range).await?;
    let mut body = Vec::new();
    while let Some(piece) = reader.next().await {
        body.extend_from_slice(&piece?);
    }
    Ok(body)
}

async fn reap(namespace: &Namespace) -> usize {
    let mut reaped = 0;
    for shard in namespace.shard_ids() {
        reaped += namespace.reap(shard).await.unwrap();
    }
    reaped
}

async fn finish(namespace: &Namespace, container: &Container, stored: Stored) {
    let put = PutObject {
        name: "o".into(),
        content_type: String::new(),
        metadata: Default::default(),
        delete_at: None,
        condition: Condition::None,
        account_quota: Default::default(),
        stored,
    };
    namespace.put_object(container, put).await.unwrap();
}

#[tokio::test]
async fn uploads_of_one_object_in_one_moment_are_two_bodies() {
    let (world, other, container) = shared().await;
    let (mut first, mut second) = (
        world.namespace.upload(&container, "o"),
        other.upload(&container, "o"),
    );
    first.write(Bytes::from_static(&LARGE)).await.unwrap();
    second.write(vec![8; 60_000].into()).await.unwrap();
    let (first, second) = (
        first.finish().await.unwrap(),
        second.finish().await.unwrap(),
    );
    let chunks = world.devices.iter().flat_map(|device| device.chunks());
    let mut versions: Vec<_> = chunks.map(|(_, label, _)| label.owner.version).collect();
    versions.dedup();
    assert_eq!(versions.len(), 2);
    finish(&world.namespace, &container, first).await;
    finish(&other, &container, second).await;
    world.clock.advance(RENEWED_FOR + Duration::from_secs(1));
    world.collect().await;
    assert_eq!(world.chunks(), 1);
    assert_eq!(world.get(&container, "o").await.unwrap(), [8; 60_000]);
    assert_eq!(world.check().await.problems, []);
}

#[tokio::test]
async fn a_body_that_another_node_reads_is_not_collected() {
    let (world, other, container) = shared().await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let object = look(&other, &container).await;
    world.clock.advance(RENEW_EVERY);
    assert_eq!(other.renew().await, Ok(0), "it is no garbage");
    world.put(&container, "o", b"other").await.unwrap();
    for _ in 0..20 {
        world.clock.advance(RENEW_EVERY);
        assert_eq!(other.renew().await, Ok(1));
        world.collect().await;
    }
    // Some rounds may fail.
    world.clock.advance(RENEWED_FOR - Duration::from_millis(1));
    world.collect().await;
    assert!(read(&other, &container, &object).await.unwrap() == LARGE);
    assert_eq!(world.check().await.problems, []);

    drop(object);
    assert_eq!(other.renew().await, Ok(0));
    world.clock.advance(Duration::from_millis(1));
    world.collect().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(world.namespace.backlog().await, Ok(Backlog::default()));
}

#[tokio::test]
async fn a_reader_that_cannot_ask_gets_an_error() {
    let (world, other, container) = shared().await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let object = look(&other, &container).await;
    world.put(&container, "o", &[9; 50_000]).await.unwrap();
    world.clock.advance(RENEWED_FOR + Duration::from_secs(1));
    world.collect().await;
    let lost = read(&other, &container, &object).await;
    assert!(matches!(lost, Err(Error::Damaged(_))), "{lost:?}");
}

#[tokio::test]
async fn what_was_collected_does_not_come_back() {
    let (world, other, container) = shared().await;
    world.put(&container, "o", &LARGE).await.unwrap();
    let object = look(&other, &container).await;
    world.put(&container, "o", b"other").await.unwrap();
    world.clock.advance(RENEWED_FOR + Duration::from_secs(1));
    let id = other.inner.pins.since(RENEWED_FOR).remove(0);
    world.collect().await;
    let keys = vec![id.garbage()];
    let renew = other.execute(container.shard(), Renew { keys }).await;
    renew.unwrap();
    drop(object);
    assert_eq!(world.check().await.problems, []);
    assert_eq!(world.namespace.backlog().await, Ok(Backlog::default()));
}

#[tokio::test]
async fn what_another_node_changed_is_seen_after_a_second() {
    let (world, other, _) = shared().await;
    let put = async |password: &str| {
        let users = world.namespace.users();
        let put = users.put("a", "u", Role::Member, Vec::new(), password);
        put.await.unwrap();
    };
    let generation = async || {
        let user = other.users().get("a", "u").await.unwrap();
        user.map(|user| user.generation)
    };
    put("one").await;
    let first = generation().await;
    put("two").await;
    world.clock.advance(Duration::from_secs(1));
    let second = generation().await;
    assert!(first.is_some() && second.is_some() && first != second);
    world.namespace.users().remove("a", "u").await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(generation().await, None);

    let created = other.account("a").await.unwrap().unwrap().metadata.clone();
    let value = Some(Bytes::from_static(b"1"));
    let change = MetadataChange([("x-container-meta-a".to_owned(), value)].into());
    let update = world.namespace.update_account("a", change, LIMITS);
    update.await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let changed = other.account("a").await.unwrap().unwrap();
    assert_ne!(changed.metadata, created);
}

#[tokio::test]
async fn an_upload_of_days_is_known_to_all_nodes() {
    let (world, container, _held) = large::world().await;
    let other = world.beside().await;
    let mut upload = world.namespace.upload(&container, "o");
    upload.write(vec![1; 300_000].into()).await.unwrap();
    let chunks = world.devices.iter().flat_map(|device| device.chunks());
    let (chunk, label, _) = chunks.collect::<Vec<_>>().remove(0);
    for hour in 1..60 {
        world.clock.advance(HOUR);
        upload.write(vec![1; 10].into()).await.unwrap();
        assert_eq!(reap(&other).await, 0);
        // Nobody asks about a chunk that is not a day old.
        if hour >= 23 {
            assert_eq!(other.owns(&label.owner, chunk).await, Owns::Unknown);
        }
    }
    assert_eq!(world.check().await.pending_uploads, 1);
    assert_eq!(world.check().await.problems, []);
    finish(&world.namespace, &container, upload.finish().await.unwrap()).await;
    let report = world.check().await;
    assert_eq!((report.pending_uploads, report.problems_total), (0, 0));
    assert_eq!(other.owns(&label.owner, chunk).await, Owns::Yes);
    let object = look(&other, &container).await;
    let body = read(&other, &container, &object).await.unwrap();
    assert!(body == vec![1; 300_590]);
}

#[tokio::test]
async fn an_upload_that_was_taken_for_dead_fails_and_leaves_nothing() {
    for hours_silent in [1, 25] {
        let (world, container, _held) = large::world().await;
        let other = world.beside().await;
        let mut upload = world.namespace.upload(&container, "o");
        upload.write(vec![1; 300_000].into()).await.unwrap();
        world.clock.advance(7 * HOUR);
        upload.write(vec![1; 10].into()).await.unwrap();
        assert_eq!(world.check().await.pending_uploads, 1);
        world.clock.advance(hours_silent * HOUR);
        let is_dead = hours_silent > 24;
        assert_eq!(reap(&other).await, usize::from(is_dead));
        let goes_on = upload.write(vec![1; 10].into()).await;
        assert_eq!(goes_on.is_err(), is_dead, "{goes_on:?}");
        drop(upload);
        while world.check().await.pending_uploads > 0 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(HOUR);
        world.collect().await;
        assert_eq!(world.chunks(), 0);
        assert_eq!(world.check().await.problems, []);
    }
}
