use std::time::Duration;

use bytes::Bytes;
use shard::{Batch, Execution, Latch, Procedure};

use super::*;
use crate::tests::world::{LIMITS, World};
use crate::{Container, MetadataChange};

/// A change that breaks a rule.
type Spoil = fn(&mut Batch, &Container);

/// Writes whatever it is told, past all rules.
#[derive(serde::Serialize, serde::Deserialize)]
struct Write {
    #[serde(skip)]
    batch: Batch,
}

impl Procedure for Write {
    const NAME: &'static str = "spoil";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        Vec::new()
    }

    fn plan(&self, _: base::Timestamp, _: &View) -> Result<(Batch, ()), Execution<Error>> {
        Ok((self.batch.clone(), ()))
    }
}

/// A container with an object of each kind, and garbage.
async fn world() -> (World, Container) {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "small", b"body").await.unwrap();
    world.put(&container, "large", &[1; 20_000]).await.unwrap();
    world.put(&container, "gone", &[2; 30_000]).await.unwrap();
    let expire = |put: &mut crate::PutObject| put.delete_at = Some(4_000_000_000);
    world
        .put_with(&container, "later", b"", expire)
        .await
        .unwrap();
    let deleted = world
        .namespace
        .delete_object(&container, "gone", Default::default(), None);
    deleted.await.unwrap();
    (world, container)
}

#[tokio::test]
async fn what_fits_together_has_no_problems() {
    let (world, _) = world().await;
    world
        .namespace
        .update_account("b", MetadataChange::default(), LIMITS)
        .await
        .unwrap();
    let report = world.check().await;
    let expected = Report {
        accounts: 2,
        containers: 1,
        objects: 3,
        bytes: 20_004,
        garbage: 1,
        chunks: 2,
        ..Report::default()
    };
    assert_eq!(report, expected);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn every_broken_rule_is_a_problem() {
    let account_row = |batch: &mut Batch, _: &Container| {
        batch.put(key::account("a"), Bytes::from_static(b"\x01?"))
    };
    let cases: [(&str, Spoil); 14] = [
        ("row of 2 bytes", account_row),
        (
            "its account is missing",
            (|batch, _| batch.delete(key::account("a"))),
        ),
        ("there is no such table", (|batch, _| batch.put("?", "x"))),
        (
            "its account does not list it",
            (|batch, container| {
                batch.delete(key::account_container("a", "c", container.id));
            }),
        ),
        (
            "nothing leads from its id",
            (|batch, container| batch.delete(key::container_name(container.id))),
        ),
        (
            "there is no container",
            (|batch, _| batch.delete(key::container("a", "c"))),
        ),
        (
            "its body is missing",
            (|batch, container| batch.delete(key::body(container.id, "small"))),
        ),
        (
            "has 5 bytes of 4",
            (|batch, container| batch.put(key::body(container.id, "small"), "12345")),
        ),
        (
            "no object with an inline body",
            (|batch, container| batch.put(key::body(container.id, "other"), "12345")),
        ),
        (
            "not in the index of what expires",
            (|batch, container| batch.delete(key::expiry(4_000_000_000, container.id, "later"))),
        ),
        (
            "the object does not expire then",
            (|batch, container| batch.put(key::expiry(7, container.id, "later"), "")),
        ),
        (
            "counts 4 where there are 3",
            (|batch, container| batch.add(key::container_count(Count::Objects, container.id), 1)),
        ),
        (
            "counts 0 where there are 1",
            (|batch, _| batch.add(key::account_total(Count::Containers, "a"), -1)),
        ),
        (
            "counts 2 where there are 1",
            (|batch, _| batch.add(key::garbage_count(key::GarbageCount::Bodies), 1)),
        ),
    ];
    for (why, spoil) in cases {
        let (world, container) = world().await;
        let mut batch = Batch::new();
        spoil(&mut batch, &container);
        // Rows of the account go to the account's shard.
        let is_of_account = why.contains("row of") || why.contains("account");
        let shard = if is_of_account {
            placement::of_account("a", world.shards.count())
        } else {
            container.shard()
        };
        world
            .namespace
            .execute(shard, Write { batch })
            .await
            .unwrap();
        let report = world.check().await;
        let found = report
            .problems
            .iter()
            .any(|problem| problem.why.contains(why));
        assert!(found, "{why}: {:?}", report.problems);
        assert_eq!(report.problems_total, report.problems.len() as u64);
    }
}

#[tokio::test]
async fn rows_of_the_control_group_are_in_its_shard_only() {
    let (world, _) = world().await;
    for (shard, problems) in [(0, 0), (1, 1)] {
        let mut batch = Batch::new();
        batch.put("Mt12345678", "whatever it is");
        let write = world.namespace.execute(ShardId(shard), Write { batch });
        write.await.unwrap();
        let report = world.check().await;
        assert_eq!(report.problems_total, problems, "{:?}", report.problems);
    }
}

#[tokio::test]
async fn records_are_compared_with_what_refers_to_them() {
    let (world, _) = world().await;
    let records = world.records();
    let check = async |records: Vec<Record>| run(&world.shards, records).await.unwrap();

    let missing = check(Vec::new()).await;
    assert!(missing.problems[0].why.contains("0 good copies of 1"));

    let mut shorter = records.clone();
    shorter[0].bytes -= 1;
    let shorter = check(shorter).await;
    assert!(
        shorter.problems[0].why.contains("instead of"),
        "{shorter:?}"
    );

    let mut misplaced = records.clone();
    misplaced[0].device = DeviceId(99);
    let misplaced = check(misplaced).await;
    assert!(misplaced.problems[0].why.contains("does not belong"));

    let mut more = records;
    more.push(Record {
        chunk: ChunkId(7),
        ..more[0]
    });
    let more = check(more).await;
    assert_eq!((more.leftover_records, more.problems_total), (1, 0));
}

/// The collector deletes chunks before the row that names them.
#[tokio::test]
async fn an_interrupted_collection_is_no_problem() {
    let (world, _) = world().await;
    let records = world.records();
    let mut problems = 0;
    for missing in 0..records.len() {
        let mut found = records.clone();
        found.remove(missing);
        problems += run(&world.shards, found).await.unwrap().problems_total;
    }
    assert!(records.len() > 1, "one is of garbage");
    assert_eq!(problems, 1, "one is of an object");
}

#[tokio::test]
async fn collected_garbage_leaves_nothing_to_check() {
    let (world, _) = world().await;
    world.clock.advance(Duration::from_secs(60));
    world.collect().await;
    let report = world.check().await;
    assert_eq!(
        (report.garbage, report.chunks, report.problems_total),
        (0, 1, 0)
    );
}

/// What was counted for it is 0 when a container goes, so nothing is left of it; anything else is a bug.
#[tokio::test]
async fn a_counter_of_what_is_gone_is_a_problem() {
    let mut world = World::on_disk(1, Default::default()).await;
    let container = world.container("c").await;
    world.put(&container, "o", b"body").await.unwrap();
    let namespace = &world.namespace;
    let deleted = namespace.delete_object(&container, "o", Default::default(), None);
    deleted.await.unwrap();
    namespace.delete_container("a", "c").await.unwrap();
    assert_eq!(world.check_stopped().await.problems, []);

    let mut batch = Batch::new();
    batch.add(key::container_count(Count::Bytes, container.id), 4);
    batch.add(key::account_total(Count::Objects, "b"), 1);
    batch.add("?", 1);
    let shard = container.shard();
    world
        .namespace
        .execute(shard, Write { batch })
        .await
        .unwrap();
    let report = world.check_stopped().await;
    let whys: Vec<_> = report
        .problems
        .iter()
        .map(|problem| &*problem.why)
        .collect();
    assert_eq!(
        whys,
        [
            "counts 1 for a table that is not there",
            "counts 4 for a container that is not there",
            "counts 1 for an account that is not there",
        ]
    );
}
