//! The life of some objects, told from beginning to end.

use std::time::Duration;

use super::world::World;
use crate::{Created, Entry, Error, ListQuery, Missing, Usage};

fn body(len: usize) -> Vec<u8> {
    let pattern = (0..=250u8).cycle();
    pattern.take(len).collect()
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let world = World::new(1).await;
    let namespace = &world.namespace;
    let container = world.container("c").await;
    for len in [
        0,
        5,
        4075,
        4 << 10,
        8 << 10,
        16 << 10,
        (16 << 10) + 1,
        128 << 10,
        9 << 20,
    ] {
        let written = world.put(&container, "o", &body(len)).await.unwrap();
        assert_eq!(written.created == Created::New, len == 0);
        assert!(
            world.get(&container, "o").await.unwrap() == body(len),
            "{len}"
        );
        let usage = namespace.usage("a").await.unwrap();
        let expected = Usage {
            containers: 1,
            objects: 1,
            bytes: len as u64,
        };
        assert_eq!(usage, expected);
        let totals = namespace.totals().await.unwrap();
        assert_eq!((totals.accounts, totals.containers), (1, 1));
        assert_eq!((totals.objects, totals.bytes), (1, len as u64));
        world.check().await;
    }
    assert_eq!(
        namespace.delete_container("a", "c").await,
        Err(Error::NotEmpty)
    );
    world.clock.advance(Duration::from_secs(10));
    world.collect().await;
    assert_eq!(world.chunks(), 3);

    let query = ListQuery {
        limit: 9,
        ..ListQuery::default()
    };
    let listed = namespace.list_objects(&container, &query);
    let [Entry::Row(entry)] = &listed.await.unwrap()[..] else {
        panic!("one object is listed");
    };
    assert_eq!((&*entry.name, entry.bytes), ("o", 9 << 20));

    let delete = || namespace.delete_object(&container, "o", Default::default(), None);
    delete().await.unwrap();
    assert_eq!(delete().await, Err(Error::NotFound(Missing::Object)));
    assert_eq!(namespace.usage("a").await.unwrap().bytes, 0);
    world.clock.advance(Duration::from_secs(10));
    world.collect().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(namespace.backlog().await.unwrap(), Default::default());

    namespace.delete_container("a", "c").await.unwrap();
    assert_eq!(namespace.usage("a").await.unwrap(), Usage::default());
    namespace.delete_account("a").await.unwrap();
    assert_eq!(namespace.account("a").await.unwrap(), None);
}

/// No name holds a zero byte; but where the key goes on behind the name, it holds one.
#[tokio::test]
async fn a_zero_byte_in_a_query_is_ordered_as_text_is() {
    let world = World::new(1).await;
    for name in ["a", "a\u{1}", "aa"] {
        world.container(name).await;
    }
    let list = async |query: ListQuery| {
        let query = ListQuery { limit: 9, ..query };
        let listed = world.namespace.list_containers("a", &query).await.unwrap();
        let names = listed.into_iter().map(|entry| match entry {
            Entry::Row(row) => row.name,
            Entry::Subdir(name) => name,
        });
        names.collect::<Vec<_>>()
    };
    for bound in ["a\0", "a\0\0", "a\0z"] {
        let marker = bound.to_owned();
        let behind = list(ListQuery {
            marker,
            ..ListQuery::default()
        });
        assert_eq!(behind.await, ["a\u{1}", "aa"], "{bound:?}");
        let end_marker = bound.to_owned();
        let before = list(ListQuery {
            end_marker,
            ..ListQuery::default()
        });
        assert_eq!(before.await, ["a"], "{bound:?}");
        let prefix = bound.to_owned();
        let under = list(ListQuery {
            prefix,
            ..ListQuery::default()
        });
        assert_eq!(under.await, [""; 0], "{bound:?}");
    }
}
