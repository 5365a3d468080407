use base::ShardId;
use shard::{Batch, Latch, Procedure, View};

use super::*;
use crate::tests::world::{SHARDS, World};

/// What the control group keeps beside the map.
#[derive(serde::Serialize, serde::Deserialize)]
struct Secrets;

impl Procedure for Secrets {
    const NAME: &'static str = "secrets";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        Vec::new()
    }

    fn plan(&self, _: base::Timestamp, _: &View) -> Result<(Batch, ()), shard::Execution<Error>> {
        let mut batch = Batch::new();
        for key in ["M", "Ma", "Mk1234", "Mr", "Mt12345678", "Stokens"] {
            batch.put(key, "value");
        }
        Ok((batch, ()))
    }
}

#[tokio::test]
async fn of_what_the_control_group_keeps_only_the_map_is_saved() {
    let world = World::new(1).await;
    let namespace = &world.namespace;
    namespace.execute(ShardId::CONTROL, Secrets).await.unwrap();
    let view = namespace.open_backup(ShardId::CONTROL).await.unwrap();
    let page = namespace.read_backup(ShardId::CONTROL, &view, Bytes::new());
    let page = page.await.unwrap();
    assert!(page.next.is_none());
    let keys: Vec<_> = page.rows.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [&b"M"[..], b"Stokens"]);
    let none = namespace.open_backup(ShardId(SHARDS)).await;
    assert!(matches!(none, Err(Error::Limit(_))), "{none:?}");
}
