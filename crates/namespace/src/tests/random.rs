//! Random operations on the namespace and on the model: both must always answer the same.
//!
//! `MODEL_SEED=n` replays one seed; `MODEL_OPS=n` makes each run longer.

mod operations;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use testkit::Random;

use super::disk::End;
use super::model::{Handle, Model};
use super::world::World;
use crate::{
    Condition, Config, ListQuery, Metadata, MetadataChange, MetadataLimits, Subdirs, hash,
};

/// Small, so that they are met.
const LIMITS: MetadataLimits = MetadataLimits {
    prefix: Cow::Borrowed("x-"),
    count_max: 4,
    bytes_max: 120,
};

const EXPIRY_DELAY: u64 = 3;

struct Run {
    random: Random,
    world: World,
    model: Model,
    /// Containers that were looked up, perhaps long ago.
    handles: Vec<Handle>,
    /// A process ended before it had deleted what abandoned uploads had written.
    left_chunks: bool,
}

/// Runs `check` with each seed and this many operations, unless the environment says otherwise.
fn for_seeds<F: Future<Output = ()>>(seeds: u64, operations: u64, check: impl Fn(u64, u64) -> F) {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let operations = number("MODEL_OPS").unwrap_or(operations);
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds,
    };
    for seed in seeds {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(check(seed, operations));
    }
}

fn config() -> Config {
    Config {
        expiry_delay: Duration::from_secs(EXPIRY_DELAY),
        ..Config::default()
    }
}

#[test]
fn the_namespace_does_what_the_model_does() {
    for_seeds(8, 3_000, |seed, operations| async move {
        let world = World::with_config(seed, config()).await;
        check(seed, world, operations).await;
    });
}

#[test]
fn the_namespace_does_so_on_a_disk_whose_power_is_cut() {
    for_seeds(4, 1_500, |seed, operations| async move {
        let world = World::on_disk(seed, config()).await;
        check(seed, world, operations).await;
    });
}

async fn check(seed: u64, world: World, operations: u64) {
    let mut run = Run {
        random: Random::new(seed),
        world,
        model: Model::default(),
        handles: Vec::new(),
        left_chunks: false,
    };
    for operation in 0..operations {
        run.pass_time();
        println!("{operation} at {}", run.model.now);
        run.step().await;
        if run.world.on_disk.is_some() && run.random.chance(1, 25) {
            run.crash().await;
        }
        if operation % 500 == 499 {
            run.check_all().await;
        }
    }
    run.empty().await;
}

impl Run {
    /// The process, or the power, goes between two operations.
    async fn crash(&mut self) {
        if self.random.chance(1, 4) {
            self.world.shards.flush().await.unwrap();
        }
        if self.random.chance(3, 4) {
            self.world.namespace.chunks().settle().await;
        } else {
            self.left_chunks = true;
        }
        let seed = self.random.u64();
        let end = self.pick(&[End::Kill, End::PowerCut(seed), End::PowerCut(seed)]);
        println!("{end:?}");
        self.world.restart(end).await;
    }

    fn pass_time(&mut self) {
        let clock = &self.world.clock;
        let millis = match self.random.below(1000) {
            0 => self.random.below(200_000_000),
            1..20 => self.random.below(5_000),
            _ => 10 + self.random.below(40),
        };
        clock.advance(Duration::from_millis(millis));
        self.model.now = self.world.namespace.now();
        if self.random.chance(1, 500) {
            let back = self.model.now.ticks() - self.random.below(500_000);
            clock.set(Timestamp::from_ticks(back));
        }
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.put_container().await,
            8..10 => self.post_container().await,
            10..14 => self.delete_container().await,
            14..18 => self.look_container_up().await,
            18..44 => self.put_object().await,
            44..49 => self.post_object().await,
            49..58 => self.delete_object().await,
            58..70 => self.get_object().await,
            70..82 => self.list_objects().await,
            82..88 => self.list_containers().await,
            88..90 => self.update_account().await,
            90..91 => self.delete_account().await,
            91..94 => self.look_account_up().await,
            94..96 => self.expire().await,
            96..97 => self.world.collect().await,
            97..98 => self.abandon_upload().await,
            98..99 => self.copy_object().await,
            _ => self.world.reopen().await,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.random.below(from.len() as u64)).unwrap()]
    }

    fn account(&mut self) -> String {
        self.pick(&["a", "ab"]).to_owned()
    }

    fn name(&mut self) -> String {
        let parts =
            (0..1 + self.random.below(3)).map(|_| self.pick(&["a", "b", "/", "aa", "é", "-"]));
        parts.collect()
    }

    /// A name, or none; or what no name can be: clients put a zero byte behind a name to mean "this
    /// one too".
    fn marker(&mut self) -> String {
        let mut marker = if self.random.chance(1, 2) {
            String::new()
        } else {
            self.name()
        };
        if self.random.chance(1, 5) {
            marker += self.pick(&["\0", "\0\0", "\0a", "\u{1}"]);
        }
        marker
    }

    fn container_name(&mut self) -> String {
        self.pick(&["a", "aa", "a-", "a-b", "a\u{1}", "b", "é"])
            .to_owned()
    }

    fn metadata(&mut self, prefix: &str) -> Metadata {
        let count = self.random.below(3);
        let pairs = (0..count).map(|_| {
            let name = format!(
                "{prefix}{}",
                self.pick(&["one", "two", "three", "four", "five"])
            );
            (name, self.value())
        });
        pairs.collect()
    }

    fn value(&mut self) -> Bytes {
        self.pick(&[
            "",
            "x",
            "some value",
            "a value that is not short, but longer than others",
        ])
        .into()
    }

    fn change(&mut self, prefix: &str, quota: &str) -> MetadataChange {
        let mut change = BTreeMap::new();
        for (name, value) in self.metadata(prefix) {
            let removes = self.random.chance(1, 3);
            change.insert(name, (!removes).then_some(value));
        }
        if self.random.chance(1, 5) {
            let name = format!("{quota}{}", self.pick(&["-bytes", "-count"]));
            let value = self.pick(&[None, None, Some("10"), Some("20000")]);
            change.insert(name, value.map(Bytes::from));
        }
        MetadataChange(change)
    }

    fn condition(&mut self) -> Condition {
        let md5s = vec![hash::md5(b"1"), hash::md5(b"22")];
        match self.random.below(12) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2 => Condition::Matches(md5s),
            3 => Condition::Differs(md5s),
            _ => Condition::None,
        }
    }

    fn delete_at(&mut self) -> Option<u64> {
        let soon = self.model.now.secs() + self.random.below(8);
        self.random.chance(1, 4).then_some(soon)
    }

    fn body(&mut self) -> Vec<u8> {
        let len = match self.random.below(100) {
            0..40 => return self.pick(&["1", "22", ""]).into(),
            40..90 => self.random.below(40),
            90..96 => self.pick(&[16_384, 16_385, 10_000]),
            96..99 => 16_000 + self.random.below(20_000),
            _ => 128 * 1024 + self.random.below(200_000),
        };
        self.random.bytes(usize::try_from(len).unwrap())
    }

    /// A container to write to, as it is or as it was.
    async fn handle(&mut self) -> Option<Handle> {
        if self.random.chance(1, 10) && !self.handles.is_empty() {
            let at = self.random.below(self.handles.len() as u64);
            return Some(self.handles[usize::try_from(at).unwrap()].clone());
        }
        let (account, name) = (self.account(), self.container_name());
        let container = self.world.namespace.container(&account, &name).await;
        let expected = match self.model.container(&account, &name) {
            Ok(expected) => expected,
            Err(error) => {
                assert_eq!(container, Err(error));
                return None;
            }
        };
        let handle = Handle {
            container: container.unwrap(),
            id: expected.id,
            changed: expected.changed,
        };
        if self.handles.len() >= 20 {
            self.handles.remove(0);
        }
        self.handles.push(handle.clone());
        Some(handle)
    }

    fn query(&mut self) -> ListQuery {
        ListQuery {
            limit: usize::try_from(self.random.below(12)).unwrap(),
            marker: self.marker(),
            end_marker: if self.random.chance(1, 3) {
                self.marker()
            } else {
                String::new()
            },
            prefix: if self.random.chance(1, 2) {
                self.marker()
            } else {
                String::new()
            },
            delimiter: self.pick(&["", "/", "-", "a", "aa", "/a", "é"]).to_owned(),
            reverse: self.random.chance(1, 3),
            subdirs: self.pick(&[Subdirs::Show, Subdirs::Show, Subdirs::Hide]),
        }
    }
}
