//! Bodies whose manifests are longer than an object's row takes. In tests that is few chunks, and the
//! chunks are small because the upload budget is almost used up.

use std::time::Duration;

use chunks::{PIECE_BYTES, Piece};

use super::world::World;
use crate::{Condition, Config, Container, Error, Expired, Owns, PutObject, Stored};

/// A world with so little memory for uploads that every chunk is one or two pieces.
pub(super) async fn world() -> (World, Container, Vec<Piece>) {
    let mut config = Config::default();
    config.chunks.buffer_bytes = 0;
    let world = World::with_config(1, config).await;
    let container = world.container("c").await;
    let pool = world.namespace.chunks().pool();
    let mut held: Vec<Piece> = std::iter::from_fn(|| pool.try_take()).collect();
    held.truncate(held.len() - 2);
    (world, container, held)
}

fn body(pieces: usize) -> Vec<u8> {
    let pattern = (0..=250u8).cycle();
    pattern.take(pieces * PIECE_BYTES + 77).collect()
}

async fn upload(world: &World, container: &Container, body: &[u8]) -> Result<Stored, Error> {
    let mut upload = world.namespace.upload(container, "o");
    for piece in body.chunks(100_000) {
        upload.write(piece.to_vec().into()).await?;
    }
    upload.finish().await
}

fn put(stored: Stored) -> PutObject {
    PutObject {
        name: "o".into(),
        content_type: String::new(),
        metadata: Default::default(),
        delete_at: None,
        condition: Condition::None,
        account_quota: Default::default(),
        stored,
    }
}

#[tokio::test]
async fn a_long_manifest_is_read_and_deleted_part_by_part() {
    for pieces in [3, 10, 40, 75] {
        let (world, container, _held) = world().await;
        let body = body(pieces);
        world.put(&container, "o", &body).await.unwrap();
        assert!(world.get(&container, "o").await.unwrap() == body);
        assert_eq!(world.check().await.problems, []);

        let object = world
            .namespace
            .object(&container, "o", Expired::Hide)
            .await
            .unwrap();
        let len = object.bytes;
        for range in [
            0..1,
            len - 1..len,
            len / 2..len / 2,
            130_000..len - 130_000,
            len / 3..len,
        ] {
            let namespace = &world.namespace;
            let mut reader = namespace
                .read(&container, &object, range.clone())
                .await
                .unwrap();
            let mut read = Vec::new();
            while let Some(piece) = reader.next().await {
                read.extend_from_slice(&piece.unwrap());
            }
            let at = |at: u64| usize::try_from(at).unwrap();
            assert!(read == body[at(range.start)..at(range.end)], "{range:?}");
        }
        drop(object);
        let labels: Vec<_> = world
            .devices
            .iter()
            .flat_map(|device| device.chunks())
            .collect();
        for (chunk, label, _) in &labels {
            assert_eq!(world.namespace.owns(&label.owner, *chunk).await, Owns::Yes);
        }

        world.put(&container, "o", b"short").await.unwrap();
        assert_eq!(world.check().await.problems, []);
        for (chunk, label, _) in &labels {
            assert_eq!(
                world.namespace.owns(&label.owner, *chunk).await,
                Owns::Doomed
            );
        }
        world.clock.advance(Duration::from_secs(60));
        world.collect().await;
        assert_eq!(world.chunks(), 0);
        let report = world.check().await;
        assert_eq!((report.garbage, report.problems_total), (0, 0));
    }
}

#[tokio::test]
async fn a_long_body_that_is_given_up_leaves_nothing() {
    let (world, container, _held) = world().await;
    let body = body(40);
    drop(upload(&world, &container, &body).await.unwrap());
    let mut half = world.namespace.upload(&container, "o");
    half.write(body.into()).await.unwrap();
    drop(half);
    // The rows of the pending uploads are given up in tasks of their own.
    while world.check().await.pending_uploads > 0 {
        tokio::task::yield_now().await;
    }
    world.clock.advance(Duration::from_secs(60));
    world.collect().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(world.check().await.problems, []);
}

#[tokio::test]
async fn an_upload_whose_process_died_is_reaped_after_a_day() {
    let (mut world, container, _held) = world().await;
    let stored = upload(&world, &container, &body(40)).await.unwrap();
    let (chunk, label, _) = world.devices[0].chunks()[0].clone();
    std::mem::forget(stored);
    world.reopen().await;
    let reap = async |world: &World| {
        for shard in world.namespace.shard_ids() {
            while world.namespace.reap(shard).await.unwrap() > 0 {}
        }
    };
    reap(&world).await;
    assert_eq!(world.check().await.pending_uploads, 1);
    assert_eq!(
        world.namespace.owns(&label.owner, chunk).await,
        Owns::Unknown
    );

    world.clock.advance(Duration::from_secs(25 * 3600));
    reap(&world).await;
    let report = world.check().await;
    assert_eq!((report.pending_uploads, report.garbage), (0, 1));
    world.clock.advance(Duration::from_secs(60));
    world.collect().await;
    let report = world.check().await;
    // What was not in a part yet is the scrubber's.
    assert_eq!(report.leftover_records, world.chunks() as u64);
    assert_eq!(report.problems_total, 0);
}

#[tokio::test]
async fn an_upload_is_not_reaped_while_it_goes_on_nor_committed_after_it_was() {
    let (mut world, container, _held) = world().await;
    let stored = upload(&world, &container, &body(40)).await.unwrap();
    world.clock.advance(Duration::from_secs(25 * 3600));
    for shard in world.namespace.shard_ids() {
        assert_eq!(world.namespace.reap(shard).await, Ok(0));
    }
    let before = world.namespace.clone();
    world.reopen().await;
    for shard in world.namespace.shard_ids() {
        world.namespace.reap(shard).await.unwrap();
    }
    let put = before.put_object(&container, put(stored)).await;
    assert!(matches!(put, Err(Error::Unavailable { .. })), "{put:?}");
    assert_eq!(world.check().await.objects, 0);
}
