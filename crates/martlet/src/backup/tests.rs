use std::cell::Cell;
use std::path::Path;

use admin::api::BackupView;
use bytes::Bytes;
use namespace::backup::Exported;
use testkit::SimDisk;

use super::source::{Page, Scope};
use super::*;

/// Two shards of some pages each, the views of which are lost now and then.
#[derive(Default)]
struct Fake {
    /// This many pages are given, and then the view is lost, once.
    lost_at: Cell<Option<u32>>,
}

const SHARDS: u16 = 2;
const PAGES: u32 = 3;

fn page(shard: ShardId, number: u32) -> Vec<(Bytes, Exported)> {
    let key = format!("O{number}");
    let value = format!("{shard} {number}");
    vec![
        (key.into(), Exported::Row(value.into())),
        (format!("Q{number}").into(), Exported::Counter(3)),
    ]
}

fn expected() -> Vec<(ShardId, Vec<(Bytes, Exported)>)> {
    let shards = (0..SHARDS).map(ShardId);
    let rows = |shard| (0..PAGES).flat_map(move |number| page(shard, number));
    shards.map(|shard| (shard, rows(shard).collect())).collect()
}

impl Source for Fake {
    fn scope(&self) -> anyhow::Result<Scope> {
        Ok(Scope {
            cluster: 7,
            shards: SHARDS,
        })
    }

    fn open(&self, _: ShardId) -> anyhow::Result<BackupView> {
        Ok(BackupView {
            device: "d0".into(),
            number: 1,
            position: 5,
        })
    }

    fn read(&self, shard: ShardId, _: &BackupView, after: &str) -> anyhow::Result<Page> {
        match self.lost_at.get() {
            Some(0) => {
                self.lost_at.set(None);
                return Err(Lost(anyhow::anyhow!("closed")).into());
            }
            left => self.lost_at.set(left.map(|left| left - 1)),
        }
        let number = after.parse().unwrap_or(0);
        let next = number + 1;
        Ok(Page {
            rows: page(shard, number),
            next: (next < PAGES).then(|| next.to_string()),
        })
    }
}

const TARGET: &str = "/backup";

fn directory(env: &Env) -> Target {
    Target::directory(env, Path::new(TARGET))
}

fn save_to(env: &Env, source: &Fake) -> anyhow::Result<Tally> {
    let target = directory(env);
    target.make_ready()?;
    save(env, source, &target, Duration::ZERO)
}

/// Whether there is a backup: then it is a whole one.
async fn is_complete(env: &Env, what: &str) -> bool {
    let Ok(saved) = Saved::open(directory(env)) else {
        return false;
    };
    let mut all = Vec::new();
    let read = saved.read(async |shard, rows| {
        all.push((shard, rows));
        Ok(())
    });
    read.await
        .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    assert_eq!(all, expected(), "{what}");
    true
}

fn world(seed: u64) -> (Env, SimDisk) {
    let (env, disk, _) = testkit::env(seed, 1 << 20);
    (env, disk)
}

#[tokio::test]
async fn what_was_saved_is_read() {
    let (env, _) = world(1);
    let saved = save_to(&env, &Fake::default()).unwrap();
    assert_eq!((saved.shards, saved.rows), (2, 12));
    assert!(is_complete(&env, "saved").await);
    // It is not written over, nor is anything else.
    assert!(save_to(&env, &Fake::default()).is_err());
    let other = Target::directory(&env, Path::new("/other"));
    other.make_ready().unwrap();
    other.put("letters", b"dear").unwrap();
    assert!(other.make_ready().is_err());
}

#[tokio::test]
async fn a_view_that_is_lost_costs_its_shard_alone() {
    for pages in 0..2 * PAGES {
        let (env, _) = world(1);
        let source = Fake {
            lost_at: Cell::new(Some(pages)),
        };
        save_to(&env, &source).unwrap();
        assert!(is_complete(&env, &format!("{pages} pages")).await);
    }
}

#[tokio::test]
async fn a_backup_that_was_cut_short_is_none_and_is_begun_anew() {
    let (env, disk) = world(1);
    save_to(&env, &Fake::default()).unwrap();
    let calls = disk.calls_all();
    for seed in 0..4 {
        for cut in 0..calls + 1 {
            let what = format!("seed {seed}, cut {cut}");
            let (env, disk) = world(seed);
            disk.power_off_at(cut);
            let saved = save_to(&env, &Fake::default());
            disk.power_cut(seed * 1000 + cut);
            let is_there = is_complete(&env, &what).await;
            assert!(is_there || saved.is_err(), "{what}: a promise was broken");
            if !is_there {
                save_to(&env, &Fake::default()).unwrap();
                assert!(is_complete(&env, &what).await, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_backup() {
    let (env, disk) = world(1);
    save_to(&env, &Fake::default()).unwrap();
    let calls = disk.calls_all();
    for n in 0..calls {
        let (env, disk) = world(1);
        disk.fail_nth(n, std::io::ErrorKind::Other);
        let saved = save_to(&env, &Fake::default());
        disk.heal();
        let what = format!("call {n}");
        let is_there = is_complete(&env, &what).await;
        assert!(is_there || saved.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_part_that_is_damaged_or_gone_is_named() {
    let (env, disk) = world(1);
    save_to(&env, &Fake::default()).unwrap();
    let name = part_name(ShardId(1), 0);
    let path = Path::new(TARGET).join(&name);
    let read = async || {
        let saved = Saved::open(directory(&env)).unwrap();
        let read = saved.read(async |_, _| Ok(())).await;
        format!("{:#}", read.unwrap_err())
    };
    disk.flip(&path, 40, &[1]);
    assert_eq!(read().await, format!("{name}: wrong checksum"));
    env.disk.remove(&path).unwrap();
    assert_eq!(read().await, format!("{name} is missing"));
}
