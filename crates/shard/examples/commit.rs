//! How many durable commits a shard makes, beside what the log alone makes of the same bytes: the
//! machine's own limit. Both run one after the other, several times, so that ratios mean something
//! on a busy machine.
//!
//! `cargo run --release -p shard --example commit [DIR [VALUE_BYTES]]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::Env;
use base::metrics::{Histogram, Labels, Report};
use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use device::{Device, Health, Identity, Kind, Log, LogConfig, Record};
use shard::{Batch, Config, Execution, Latch, Procedure, Shards, View};
use tokio::sync::oneshot;

const TASKS: u64 = 32;
const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 8;

/// What a small PUT does, about: a container that stays, an object row, a body, counters.
#[derive(serde::Serialize, serde::Deserialize)]
struct Put {
    name: u64,
    body: Bytes,
}

impl Procedure for Put {
    const NAME: &'static str = "put";

    type Output = ();
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        let object = Bytes::from(format!("object/container/{:016x}", self.name));
        vec![Latch::Shared("container".into()), Latch::Exclusive(object)]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, ()), Execution<()>> {
        view.get(b"container")?;
        let object = format!("object/container/{:016x}", self.name);
        let new = view.get(object.as_bytes())?.is_none();
        let mut batch = Batch::new();
        batch.put(object, vec![7; 200]);
        batch.put(format!("body/{:016x}", self.name), self.body.clone());
        batch.add("count/container", i64::from(new));
        batch.add("bytes/container", 4096);
        batch.add("bytes/account", 4096);
        Ok((batch, ()))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map(PathBuf::from);
    let value_bytes = arguments
        .next()
        .map_or(4096, |n| n.parse().expect("a number"));
    let body = Bytes::from(vec![7; value_bytes]);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.unwrap_or_else(|| temporary.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let env = Env::real();
        let shards = shards(&env, &dir.join("d1")).await;
        let log = raw_log(&env, &dir.join("raw"));
        let mut totals = [Measured::default(); 3];
        let mut shapes = [Sample::default(), Sample::default()];
        for _ in 0..ROUNDS {
            let append = |until| append(env.clone(), log.clone(), &body, until);
            totals[0].add(measure(&env, append).await);
            for (i, count) in [1, 8].into_iter().enumerate() {
                let before = Sample::of(&shards);
                let put = |until| put(env.clone(), &shards, count, &body, until);
                totals[1 + i].add(measure(&env, put).await);
                shapes[i].add(&Sample::of(&shards), &before);
            }
        }
        println!("raw log    {}", totals[0]);
        for (i, count) in [1, 8].into_iter().enumerate() {
            let made = totals[1 + i];
            let ratio = 100.0 * made.per_second() / totals[0].per_second();
            println!(
                "{count} shard(s) {made}  {ratio:.0} % of raw, {}",
                shapes[i]
            );
        }
        shards.shutdown().await.expect("a clean end");
    });
}

async fn shards(env: &Env, dir: &Path) -> Shards {
    let identity = Identity {
        cluster: 1,
        device: DeviceId(1),
        shards: 64,
        created: env.clock.now(),
    };
    Device::format(env, dir, &identity).expect("a new device");
    let device = Device::open(env.clone(), dir, device::Config::default()).expect("a device");
    let config = Config::default();
    let started = env.clock.monotonic();
    Shards::format(std::slice::from_ref(&device), 64, &config).expect("new shards");
    let formatted = env.clock.monotonic();
    let shards = Shards::open(env, vec![device], 64, config, None).await;
    let opened = env.clock.monotonic();
    println!(
        "format {:?}, open {:?}",
        formatted - started,
        opened - formatted
    );
    shards.expect("open shards")
}

fn raw_log(env: &Env, dir: &Path) -> Log {
    let (health, config) = (Health::new(DeviceId(2)), LogConfig::default());
    Log::create(env, dir, &health, &config).expect("a new log");
    Log::open(env, dir, &health, &config, &mut |_| Ok(())).expect("a log")
}

fn append(env: Env, log: Log, body: &Bytes, until: Duration) -> Vec<tokio::task::JoinHandle<u64>> {
    let mark = Arc::new(AtomicU64::new(0));
    let task = |_| {
        let (env, log, mark, body) = (env.clone(), log.clone(), mark.clone(), body.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while env.clock.monotonic() < until {
                let (done, result) = oneshot::channel();
                let mark = mark.fetch_add(1, Ordering::Relaxed);
                let record = Record {
                    stream: 0,
                    kind: Kind::Entry(mark),
                    body: vec![body.clone()],
                };
                log.append(vec![record], move |answer| drop(done.send(answer)));
                result.await.expect("an answer").expect("a durable write");
                if mark % 1024 == 0 {
                    log.release([(0, mark)]);
                }
                count += 1;
            }
            count
        })
    };
    (0..TASKS).map(task).collect()
}

fn put(
    env: Env,
    shards: &Shards,
    count: u16,
    body: &Bytes,
    until: Duration,
) -> Vec<tokio::task::JoinHandle<u64>> {
    let name = Arc::new(AtomicU64::new(0));
    let task = |i: u64| {
        let shard = ShardId(u16::try_from(i).expect("small") % count);
        let (env, shard) = (env.clone(), shards.get(shard).clone());
        let (name, body) = (name.clone(), body.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while env.clock.monotonic() < until {
                let put = Put {
                    name: name.fetch_add(1, Ordering::Relaxed),
                    body: body.clone(),
                };
                shard.execute(put).await.expect("a commit");
                count += 1;
            }
            count
        })
    };
    (0..TASKS).map(task).collect()
}

#[derive(Clone, Copy, Default)]
struct Measured {
    count: u64,
    took: Duration,
    cpu: Duration,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.took += other.took;
        self.cpu += other.cpu;
    }

    fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = self.cpu.as_secs_f64() * 1e6 / self.count as f64;
        write!(f, "{:8.0}/s  {cpu:6.1} us CPU each", self.per_second())
    }
}

async fn measure(
    env: &Env,
    run: impl FnOnce(Duration) -> Vec<tokio::task::JoinHandle<u64>>,
) -> Measured {
    let (started, cpu) = (env.clock.monotonic(), cpu_time());
    let mut count = 0;
    for task in run(started + ROUND) {
        count += task.await.expect("no panic");
    }
    Measured {
        count,
        took: env.clock.monotonic() - started,
        cpu: cpu_time() - cpu,
    }
}

/// The CPU time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().expect("a number"))
        .collect();
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}

/// Counters of the shards at one moment, by name.
#[derive(Default)]
struct Sample {
    counters: std::collections::BTreeMap<String, f64>,
}

impl Sample {
    fn of(shards: &Shards) -> Self {
        let mut sample = Self::default();
        shards.report(&mut sample);
        sample
    }

    /// Adds what grew between two samples.
    fn add(&mut self, after: &Self, before: &Self) {
        for (name, value) in &after.counters {
            *self.counters.entry(name.clone()).or_default() += value - before.counters[name];
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let grown = |name: &str| self.counters[name];
        let per = |a: &str, b: &str| grown(a) / grown(b).max(1.0);
        write!(
            f,
            "{:.1} entries a write of {:.0} us, flush {:.0} ms, {} waits",
            per("martlet_log_records_total", "martlet_log_batches_total"),
            per(
                "martlet_log_write_duration_seconds",
                "martlet_log_batches_total"
            ) * 1e6,
            per(
                "martlet_shard_flush_duration_seconds",
                "martlet_shard_flush_duration_seconds#"
            ) * 1e3,
            grown("martlet_shard_waits_total"),
        )
    }
}

impl Report for Sample {
    fn counter(&mut self, name: &str, _: &str, _: Labels<'_>, value: u64) {
        self.counters.insert(name.to_owned(), value as f64);
    }

    fn gauge(&mut self, _: &str, _: &str, _: Labels<'_>, _: i64) {}

    fn histogram(&mut self, name: &str, _: &str, _: Labels<'_>, value: &Histogram) {
        let at = value.snapshot();
        self.counters.insert(name.to_owned(), at.sum.as_secs_f64());
        self.counters.insert(format!("{name}#"), at.count() as f64);
    }
}
