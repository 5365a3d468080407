//! PUT and GET, small and large, beside the yardsticks.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};

use crate::Effort;
use crate::load::{self, Figures, Target};
use crate::report::{Report, Unit, Wanted};
use crate::systems::{Bench, Martlet, Nginx, OpenStack};

const SMALL: &str = "4KiB";
const LARGE: &str = "64MiB";
const CONNECTIONS: &str = "32";
/// One stream: a second one would have a core of its own for its MD5.
const LARGE_CONNECTIONS: &str = "1";

pub(crate) fn measure(bench: &Bench, effort: Effort, report: &mut Report) -> Result<()> {
    let volume = bench.volume("martlet")?;
    let martlet = Martlet::start(bench, &volume)?;
    let openstack = OpenStack::start(bench, 1)?;
    let served = bench.volume("nginx-files")?;
    write_files(
        bench,
        &served.path().join("small"),
        SMALL,
        effort.small_objects,
    )?;
    write_files(
        bench,
        &served.path().join("large"),
        LARGE,
        effort.large_objects,
    )?;
    let nginx = Nginx::start(bench, served.path())?;

    let runs = Runs {
        martlet: &bench.martlet,
        effort,
    };
    let mut got = Measured::default();
    runs.fill(&martlet.target)?;
    runs.fill(&openstack.target)?;
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        got.appends.push(append_limit(volume.path())?);
        got.md5.push(md5_rate(effort.duration));
        runs.one_round(round, &martlet.target, &mut got.ours)?;
        runs.one_round(round, &openstack.target, &mut got.openstack)?;
        let [small, large] =
            ["small", "large"].map(|folder| format!("--url {}/{folder}/{{}}", nginx.url));
        let nobody = Target::default();
        let small = runs.get(&nobody, &small, Objects::Small)?;
        got.nginx_small.push(small.answered_per_second);
        let large = runs.get(&nobody, &large, Objects::Large)?;
        got.nginx_large.push(large.received_bytes_per_second);
    }
    drop(nginx);
    drop(openstack);
    got.report(report);
    ensure!(
        martlet.server.stop()?.success(),
        "martlet did not stop well"
    );
    Ok(())
}

/// The rounds of all measurements.
#[derive(Default)]
struct Measured {
    ours: Swift,
    openstack: Swift,
    nginx_small: Vec<f64>,
    nginx_large: Vec<f64>,
    appends: Vec<f64>,
    md5: Vec<f64>,
}

/// Of one system with the Swift API.
#[derive(Default)]
struct Swift {
    small_puts: Vec<f64>,
    small_gets: Vec<f64>,
    large_puts: Vec<f64>,
    large_gets: Vec<f64>,
}

impl Measured {
    fn report(self, report: &mut Report) {
        use Wanted::{AtLeast, Nothing};
        let (ours, openstack) = (self.ours, self.openstack);
        report
            .measured(
                "durable PUT of 4 KiB, 32 connections",
                Unit::PerSecond,
                ours.small_puts,
            )
            .against("OpenStack Swift", openstack.small_puts, AtLeast(30.0))
            .against(
                "appends of 4 KiB to the log alone",
                self.appends,
                AtLeast(0.5),
            );
        report
            .measured(
                "GET of 4 KiB, 32 connections",
                Unit::PerSecond,
                ours.small_gets,
            )
            .against("nginx", self.nginx_small, AtLeast(0.5))
            .against("OpenStack Swift", openstack.small_gets, Nothing);
        report
            .measured(
                "durable PUT of 64 MiB, one connection",
                Unit::BytesPerSecond,
                ours.large_puts,
            )
            .against("MD5 on one core", self.md5, AtLeast(0.8))
            .against("OpenStack Swift", openstack.large_puts, Nothing);
        report
            .measured(
                "GET of 64 MiB, one connection",
                Unit::BytesPerSecond,
                ours.large_gets,
            )
            .against("nginx", self.nginx_large, AtLeast(0.6))
            .against("OpenStack Swift", openstack.large_gets, Nothing);
    }
}

/// The load of one kind after the other.
pub(crate) struct Runs<'a> {
    pub(crate) martlet: &'a Path,
    pub(crate) effort: Effort,
}

impl Runs<'_> {
    /// Puts there what is read later.
    fn fill(&self, target: &Target) -> Result<()> {
        self.fill_small(target)?;
        self.put_large(target)?;
        Ok(())
    }

    pub(crate) fn fill_small(&self, target: &Target) -> Result<()> {
        let small = self.effort.small_objects;
        let put = format!("put --container small --size {SMALL} --count {small} -c {CONNECTIONS}");
        load::run(self.martlet, target, &put)?;
        Ok(())
    }

    /// PUTs and GETs of 4 KiB a second.
    pub(crate) fn small(&self, round: usize, target: &Target) -> Result<(f64, f64)> {
        let seconds = self.effort.duration.as_secs();
        let put = format!(
            "put --container puts --prefix round-{round}/ --size {SMALL} --duration {seconds}s -c {CONNECTIONS}"
        );
        let put = load::run(self.martlet, target, &put)?;
        let get = self.get(target, "--container small", Objects::Small)?;
        Ok((put.answered_per_second, get.answered_per_second))
    }

    fn one_round(&self, round: usize, target: &Target, got: &mut Swift) -> Result<()> {
        let (put, get) = self.small(round, target)?;
        got.small_puts.push(put);
        got.small_gets.push(get);
        let put = self.put_large(target)?;
        got.large_puts.push(put.sent_bytes_per_second);
        let get = self.get(target, "--container large", Objects::Large)?;
        got.large_gets.push(get.received_bytes_per_second);
        Ok(())
    }

    /// The same names in each round: overwriting is what a full disk's space comes back by.
    fn put_large(&self, target: &Target) -> Result<Figures> {
        let large = self.effort.large_objects;
        let put =
            format!("put --container large --size {LARGE} --count {large} -c {LARGE_CONNECTIONS}");
        load::run(self.martlet, target, &put)
    }

    /// Reads at random from where `place` says.
    fn get(&self, target: &Target, place: &str, objects: Objects) -> Result<Figures> {
        let (count, size, connections) = match objects {
            Objects::Small => (self.effort.small_objects, SMALL, CONNECTIONS),
            Objects::Large => (self.effort.large_objects, LARGE, LARGE_CONNECTIONS),
        };
        let seconds = self.effort.duration.as_secs();
        let get = format!(
            "get {place} --objects {count} --size {size} --duration {seconds}s -c {connections} --no-check"
        );
        load::run(self.martlet, target, &get)
    }
}

#[derive(Clone, Copy)]
enum Objects {
    Small,
    Large,
}

/// The same objects as files.
fn write_files(bench: &Bench, folder: &Path, size: &str, count: u64) -> Result<()> {
    let mut command = Command::new(&bench.martlet);
    command.args([
        "bench",
        "files",
        "--size",
        size,
        "--count",
        &count.to_string(),
    ]);
    let status = command.arg(folder).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Bytes a second through MD5 on one core.
fn md5_rate(duration: Duration) -> f64 {
    let piece = vec![0x5a; 1 << 20];
    let (mut digest, mut bytes) = (Md5::new(), 0.0);
    let start = Instant::now();
    while start.elapsed() < duration {
        digest.update(&piece);
        bytes += piece.len() as f64;
    }
    black_box(digest.finalize());
    bytes / start.elapsed().as_secs_f64()
}

/// 4 KiB appends a second to the log alone, by 32 tasks at once, on the same file system.
fn append_limit(folder: &Path) -> Result<f64> {
    let folder = folder.join("appends");
    std::fs::create_dir_all(&folder)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "shard",
        "--example",
        "commit",
    ]);
    command.arg("--target-dir").arg(e2e::binary::target());
    let output = command
        .arg("--")
        .arg(&folder)
        .current_dir(crate::systems::folder())
        .output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::remove_dir_all(&folder)?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("raw log"));
    let rate = line
        .and_then(|line| line.split("/s").next())
        .map(|rate| rate.trim().parse());
    rate.transpose()?
        .with_context(|| format!("{command:?} printed {text}"))
}
