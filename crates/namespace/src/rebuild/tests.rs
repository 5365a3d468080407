use std::ops::ControlFlow;

use chunks::Storage as _;
use shard::{Shards, View};

use super::*;
use crate::check::{self, Report};
use crate::key::{Parts, table};
use crate::reader::each_chunk;
use crate::restore::{Places, map_of, mend, put_map};
use crate::row::{GarbageRow, ObjectRead};
use crate::scan;
use crate::tests::world::{SHARDS, World};

/// What the headers of all chunks say, also of bodies that were replaced and are not collected yet.
async fn headers(world: &World) -> Vec<(Owner, Piece)> {
    let devices = world.devices.iter();
    let owners = devices.flat_map(|device| device.chunks());
    let owners: BTreeMap<_, _> = owners.map(|(id, label, _)| (id, label.owner)).collect();
    let mut all = Vec::new();
    for shard in (0..SHARDS).map(ShardId) {
        let view = world.shards.get(shard).view().await.unwrap();
        for (id, body) in bodies(&view) {
            let mut pieces = Vec::new();
            let mut offset = 0;
            each_chunk(&view, &id, &body, |chunk| {
                let owner = owners[&chunk.id].clone();
                let piece = Piece {
                    chunk,
                    offset,
                    is_last: false,
                };
                pieces.push((owner, piece));
                offset += u64::from(chunk.bytes);
                ControlFlow::Continue(())
            })
            .unwrap();
            if let Some((_, last)) = pieces.last_mut() {
                last.is_last = true;
            }
            all.extend(pieces);
        }
    }
    all
}

/// The bodies in chunks of a shard.
fn bodies(view: &View) -> Vec<(BodyId<'static>, Body<'static>)> {
    let mut bodies = Vec::new();
    let mut add = |id: BodyId<'_>, body: &Body<'_>| {
        let id = id.into_owned();
        match body {
            Body::Inline { .. } => {}
            // Its manifest is borrowed from a row.
            Body::Chunks { version, manifest } => {
                let manifest = Raw(manifest.0.to_vec().leak());
                let version = *version;
                bodies.push((id, Body::Chunks { version, manifest }));
            }
            Body::Parts { version } => bodies.push((id, Body::Parts { version: *version })),
        }
    };
    let all = [table::GARBAGE, table::OBJECT].map(|table| [table]);
    for from in all {
        scan::rows(view, &from, &key::end_of(&from), |key, value| {
            if from[0] == table::GARBAGE {
                let id = Parts::of(table::GARBAGE, key)?.body_id()?;
                let row: GarbageRow<'_> = row::decode(value)?;
                add(id, &row.body);
            } else {
                let mut parts = Parts::of(table::OBJECT, key)?;
                let (container, name) = (parts.container()?, parts.last_name()?);
                let row: ObjectRead<'_> = row::decode(value)?;
                let version = row.body.version().unwrap_or_default();
                let id = BodyId {
                    container,
                    name: name.into(),
                    version,
                };
                add(id, &row.body);
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    }
    bodies
}

/// Forgets all rows of the world, and makes them again from these headers.
async fn rebuild(world: &mut World, headers: Vec<(Owner, Piece)>) -> (Rebuilt, Report) {
    let mut found = Places::new();
    for record in world.records() {
        let group = found.entry(record.chunk.group()).or_default();
        group.insert(record.device, None);
    }
    let devices: Vec<_> = world.devices.iter().map(|device| device.id()).collect();
    let map = map_of(&map::Map::default(), &devices, &found);
    let empty = Shards::volatile(&base::env::Env::real(), SHARDS);
    put_map(&empty, &map).await.unwrap();
    world.shards = std::sync::Arc::new(empty);
    world.reopen().await;
    let mut rebuild = Rebuild::default();
    for (owner, piece) in headers {
        rebuild.add(owner, piece);
    }
    let rebuilt = rebuild.put(&world.namespace, |name| match name {
        "large" => "text/large",
        _ => "text/other",
    });
    let rebuilt = rebuilt.await.unwrap();
    mend(&world.shards).await.unwrap();
    let report = check::run(&world.shards, world.records()).await.unwrap();
    assert_eq!(report.problems, []);
    (rebuilt, report)
}

#[tokio::test]
async fn all_bodies_in_chunks_come_back_and_fit_together() {
    let mut world = World::new(1).await;
    let long = vec![3; 25 << 20];
    for name in ["a", "b"] {
        let container = world.container(name).await;
        world.put(&container, "small", b"body").await.unwrap();
        world.put(&container, "large", &[1; 20_000]).await.unwrap();
        world.put(&container, "long", &long).await.unwrap();
    }
    world.container("empty").await;
    let headers = headers(&world).await;
    let long_chunks = headers.iter().filter(|(owner, _)| owner.object == "long");
    // In rows of their own.
    assert!(long_chunks.count() > 2 * INLINE_CHUNKS_MAX);
    let (rebuilt, report) = rebuild(&mut world, headers).await;
    assert_eq!((rebuilt.objects, rebuilt.containers), (4, 2));
    assert_eq!(rebuilt.incomplete_total, 0);
    let totals = (report.objects, report.containers, report.accounts);
    assert_eq!(totals, (4, 2, 1));
    assert_eq!((report.bytes, report.leftover_records), (rebuilt.bytes, 0));
    for name in ["a", "b"] {
        let container = world.namespace.container("a", name).await.unwrap();
        assert_eq!(world.get(&container, "large").await.unwrap(), [1; 20_000]);
        assert_eq!(world.get(&container, "long").await.unwrap(), long);
        world.get(&container, "small").await.unwrap_err();
        let large = world
            .namespace
            .object(&container, "large", crate::Expired::Hide);
        let large = large.await.unwrap();
        assert_eq!(large.md5, crate::hash::md5(&[1; 20_000]));
        assert_eq!(large.content_type, "text/large");
        // It is a container as any other.
        world.put(&container, "large", &[4; 30_000]).await.unwrap();
        assert_eq!(world.get(&container, "large").await.unwrap(), [4; 30_000]);
    }
}

#[tokio::test]
async fn the_newest_version_that_is_whole_comes_back_and_the_others_are_named() {
    let mut world = World::new(1).await;
    let container = world.container("c").await;
    for (name, byte) in [("o", 1), ("o", 2), ("gone", 3), ("rotten", 4)] {
        world
            .put(&container, name, &vec![byte; 9 << 20])
            .await
            .unwrap();
    }
    let mut headers = headers(&world).await;
    let newest = headers.iter().filter(|(owner, _)| owner.object == "o");
    let newest = newest.map(|(owner, _)| owner.version).max().unwrap();
    headers.retain(|(owner, piece)| match owner.object.as_str() {
        "o" => owner.version != newest || !piece.is_last,
        "gone" => piece.offset > 0,
        _ => true,
    });
    for (owner, piece) in &headers {
        if owner.object == "rotten" && piece.is_last {
            let devices = world.devices.iter();
            devices.for_each(|device| device.rot(piece.chunk.id));
        }
    }
    let (rebuilt, report) = rebuild(&mut world, headers).await;
    assert_eq!((rebuilt.objects, report.objects), (1, 1));
    let container = world.namespace.container("a", "c").await.unwrap();
    assert_eq!(world.get(&container, "o").await.unwrap(), vec![1; 9 << 20]);
    let expected = [
        "a/c/gone: nothing that can be read begins at byte 0",
        "a/c/o: whether 8388608 bytes are all of it is not known",
        "a/c/rotten: nothing that can be read begins at byte 8388608",
    ];
    assert_eq!(rebuilt.incomplete, expected);
}

#[tokio::test]
async fn of_a_container_that_was_made_again_the_newer_comes_back() {
    let mut world = World::new(1).await;
    let mut all = Vec::new();
    for byte in [1, 2] {
        let container = world.container("c").await;
        let name = format!("o{byte}");
        world.put(&container, &name, &[byte; 20_000]).await.unwrap();
        all.extend(headers(&world).await);
        if byte == 1 {
            let namespace = &world.namespace;
            let deleted = namespace.delete_object(&container, &name, Default::default(), None);
            deleted.await.unwrap();
            namespace.delete_container("a", "c").await.unwrap();
        }
    }
    let (rebuilt, report) = rebuild(&mut world, all).await;
    assert_eq!((rebuilt.objects, report.containers), (1, 1));
    let container = world.namespace.container("a", "c").await.unwrap();
    assert_eq!(world.get(&container, "o2").await.unwrap(), [2; 20_000]);
    let expected = ["a/c/o1: its container was deleted and made again since"];
    assert_eq!(rebuilt.incomplete, expected);
}
