//! How many durable commits a shard makes, beside what the log alone makes of the same bytes: the
//! machine's own limit. Both run one after the other, several times, so that ratios mean something
//! on a busy machine.
//!
//! `cargo run --release -p shard --example commit [DIR]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use device::{Device, Health, Identity, Kind, Log, LogConfig, Record};
use shard::{Batch, Config, Execution, Latch, Procedure, Shards, View};
use tokio::sync::oneshot;

const TASKS: u64 = 32;
const VALUE_BYTES: usize = 4096;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

/// What a small PUT does, about: a container that stays, an object row, a body, counters.
struct Put {
    name: u64,
    body: Bytes,
}

impl Procedure for Put {
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
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
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
        for _ in 0..ROUNDS {
            let raw = measure(&env, |until| append(env.clone(), log.clone(), until)).await;
            println!("raw log    {raw}");
            for count in [1, 8] {
                let made = measure(&env, |until| put(env.clone(), &shards, count, until)).await;
                let ratio = made.per_second / raw.per_second;
                println!("{count} shard(s) {made}  {:.0} % of raw", 100.0 * ratio);
            }
        }
        let mut printer = Print;
        shards.report(&mut printer);
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
    let shards = Shards::open(env, vec![device], 64, config).await;
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

fn append(env: Env, log: Log, until: Duration) -> Vec<tokio::task::JoinHandle<u64>> {
    let mark = Arc::new(AtomicU64::new(0));
    let body = Bytes::from(vec![7; VALUE_BYTES]);
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
    until: Duration,
) -> Vec<tokio::task::JoinHandle<u64>> {
    let name = Arc::new(AtomicU64::new(0));
    let body = Bytes::from(vec![7; VALUE_BYTES]);
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

struct Measured {
    per_second: f64,
    cpu_micros: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (per_second, cpu) = (self.per_second, self.cpu_micros);
        write!(f, "{per_second:8.0}/s  {cpu:6.1} us CPU each")
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
    let took = env.clock.monotonic() - started;
    let count = count as f64;
    Measured {
        per_second: count / took.as_secs_f64(),
        cpu_micros: (cpu_time() - cpu).as_secs_f64() * 1e6 / count,
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

struct Print;

impl base::metrics::Report for Print {
    fn counter(&mut self, name: &str, _: &str, _: base::metrics::Labels<'_>, value: u64) {
        println!("{name} {value}");
    }

    fn gauge(&mut self, name: &str, _: &str, _: base::metrics::Labels<'_>, value: i64) {
        println!("{name} {value}");
    }

    fn histogram(
        &mut self,
        name: &str,
        _: &str,
        _: base::metrics::Labels<'_>,
        value: &base::metrics::Histogram,
    ) {
        let at = value.snapshot();
        let mean = at.sum.as_secs_f64() * 1e6 / (at.count().max(1)) as f64;
        println!("{name} count {} mean {mean:.0} us", at.count());
    }
}
