use map::Epoch;

use super::*;
use crate::tests::world::{SHARDS, World};

const A: DeviceId = DeviceId(10);
const B: DeviceId = DeviceId(20);
const C: DeviceId = DeviceId(30);

fn members(map: &Map, group: u32) -> Vec<DeviceId> {
    map.groups[&GroupId(group)].full().collect()
}

#[test]
fn all_groups_stay_and_are_where_something_of_them_was_found() {
    // Three groups, of A, B and C.
    let mut before = Map::default().with_devices([A, B, C]);
    before.last_node = NodeId(7);
    let found = [
        (GroupId(0), [(B, None)].into()),
        (GroupId(9), [(A, None), (B, None)].into()),
    ];
    let map = map_of(&before, &[A, B], &found.into());
    assert_eq!(map.epoch, before.epoch.next());
    assert!(map.devices.keys().eq(&[A, B]));
    assert!(map.nodes.keys().eq(&[NodeId::FIRST]));
    assert_eq!(map.last_node, NodeId(7));
    assert_eq!(members(&map, 0), [B]);
    // Nothing is found of them: by turns.
    assert_eq!((members(&map, 1), members(&map, 2)), (vec![A], vec![B]));
    assert_eq!(members(&map, 9), [A, B]);
    assert_eq!(map.groups.len(), 4);
}

#[test]
fn a_device_without_groups_gets_one() {
    let map = map_of(&Map::default(), &[A, B], &BTreeMap::new());
    assert_eq!((members(&map, 0), members(&map, 1)), (vec![A], vec![B]));
    let elsewhere = [(GroupId(5), [(C, None), (A, None)].into())];
    let map = map_of(&Map::default(), &[A, B], &elsewhere.into());
    assert_eq!((members(&map, 5), members(&map, 6)), (vec![A], vec![B]));
    assert!(map.groups.values().all(|group| group.epoch == Epoch(1)));
}

#[test]
fn a_group_of_fragments_is_known_by_what_was_found() {
    let fragment = |index| Fragment {
        index,
        data: 2,
        parity: 1,
        chunk_bytes: 4 << 20,
    };
    let found = [
        (B, Some(fragment(0))),
        (C, Some(fragment(1))),
        (A, Some(fragment(2))),
    ];
    let found = [(GroupId(4), found.into())];
    let map = map_of(&Map::default(), &[A, B, C], &found.into());
    let group = &map.groups[&GroupId(4)];
    assert_eq!(group.policy, Policy::Coded { data: 2, parity: 1 });
    assert_eq!(
        [A, B, C].map(|id| group.part(id)),
        [Some(2), Some(0), Some(1)]
    );
}

/// All rows of a world, shard by shard.
async fn save(world: &World) -> Vec<(ShardId, Vec<(Bytes, Exported)>)> {
    let mut saved = Vec::new();
    for shard in (0..SHARDS).map(ShardId) {
        let view = world.namespace.open_backup(shard).await.unwrap();
        let page = world.namespace.read_backup(shard, &view, Bytes::new());
        let page = page.await.unwrap();
        assert!(page.next.is_none());
        saved.push((shard, page.rows));
    }
    saved
}

/// The shards after a restore, what was mended, and what is wrong with them though all chunks are there.
async fn restore(
    world: &World,
    saved: Vec<(ShardId, Vec<(Bytes, Exported)>)>,
) -> (Mended, Vec<String>) {
    let shards = Shards::volatile(&base::env::Env::real(), SHARDS);
    for (shard, mut rows) in saved {
        if let Some(map) = take_map(&mut rows).unwrap() {
            put_map(&shards, &map).await.unwrap();
        }
        put(&shards, shard, rows).await.unwrap();
    }
    let mended = mend(&shards).await.unwrap();
    let report = crate::check::run(&shards, world.records()).await.unwrap();
    let problems = report.problems.iter().map(ToString::to_string);
    (mended, problems.collect())
}

#[tokio::test]
async fn what_was_saved_in_one_moment_needs_no_mending() {
    let world = World::new(1).await;
    for name in ["a", "b", "c", "d", "e"] {
        let container = world.container(name).await;
        world.put(&container, "small", b"body").await.unwrap();
        world.put(&container, "large", &[1; 20_000]).await.unwrap();
    }
    let (mended, problems) = restore(&world, save(&world).await).await;
    assert_eq!(mended, Mended::default());
    assert_eq!(problems, [""; 0]);
}

#[tokio::test]
async fn containers_made_or_deleted_while_shards_were_saved_are_listed_or_gone() {
    let world = World::new(1).await;
    let mut moments = vec![save(&world).await];
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        let container = world.container(name).await;
        world.put(&container, "small", b"body").await.unwrap();
    }
    moments.push(save(&world).await);
    for name in names {
        let container = world.namespace.container("a", name).await.unwrap();
        let namespace = &world.namespace;
        let deleted = namespace.delete_object(&container, "small", Default::default(), None);
        deleted.await.unwrap();
        namespace.delete_container("a", name).await.unwrap();
    }
    moments.push(save(&world).await);
    // Each shard as of any of them, in every combination.
    let mut all = Mended::default();
    for choice in 0..moments.len().pow(SHARDS.into()) {
        let mut left = choice;
        let one = |shard: usize| {
            let moment = left % moments.len();
            left /= moments.len();
            moments[moment][shard].clone()
        };
        let saved = (0..usize::from(SHARDS)).map(one).collect();
        let (mended, problems) = restore(&world, saved).await;
        assert_eq!(problems, [""; 0], "choice {choice}");
        all.lines += mended.lines;
        all.accounts += mended.accounts;
    }
    assert!(all.lines > 0 && all.accounts > 0, "{all:?}");
}
