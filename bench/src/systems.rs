//! The systems under test: each set up by its own script, started afresh, stopped when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::server::{Launch, Server, free_address};
use e2e::volume::{Kind, Volume};

use crate::load::Target;

/// Where everything is.
pub(crate) struct Bench {
    /// The release build: server and load generator.
    pub(crate) martlet: PathBuf,
    /// For file systems and what is installed; outside of the repository.
    pub(crate) work: PathBuf,
}

/// `bench/` in the repository.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Bench {
    pub(crate) fn prepare() -> Result<Self> {
        let work = e2e::binary::target().join("bench");
        fs::create_dir_all(&work)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "martlet",
            "--target-dir",
        ]);
        let built = build
            .arg(e2e::binary::target())
            .current_dir(folder())
            .status()?;
        ensure!(built.success(), "martlet does not build");
        Ok(Self {
            martlet: e2e::binary::target().join("release/martlet"),
            work,
        })
    }

    /// An empty file system, the same for everybody. Sparse: only what is written takes space. Written
    /// past the page cache of its image, as a disk is: else that would hold everything a second time.
    pub(crate) fn volume(&self, name: &str) -> Result<Volume> {
        const BYTES: u64 = 100 << 30;
        let work = self.work.join(name);
        fs::create_dir_all(&work)?;
        Volume::create_direct(Kind::Xfs, &work, BYTES)
    }
}

/// Runs one of the scripts beside us and gives what it prints.
fn script(name: &str, arguments: &[&Path]) -> Result<String> {
    let mut command = Command::new(folder().join(name));
    printed(command.args(arguments))
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// OpenStack Swift with the shortest pipeline, which is its fastest.
pub(crate) struct OpenStack {
    root: PathBuf,
    pub(crate) target: Target,
}

impl OpenStack {
    pub(crate) fn start(bench: &Bench, replicas: usize) -> Result<Self> {
        let root = bench.work.join("openstack");
        script("openstack_swift", &[Path::new("install"), &root])?;
        let mut start = Command::new(folder().join("openstack_swift"));
        start.env("REPLICAS", replicas.to_string());
        let url = printed(start.arg("start").arg(&root).arg("lean"))?;
        let target = Target {
            arguments: ["--auth", &url, "--user", "test:tester"]
                .map(str::to_owned)
                .into(),
            password: "testing".to_owned(),
        };
        Ok(Self { root, target })
    }
}

impl Drop for OpenStack {
    fn drop(&mut self) {
        if let Err(error) = script("openstack_swift", &[Path::new("stop"), &self.root]) {
            eprintln!("OpenStack Swift could not be stopped: {error:#}");
        }
    }
}

/// nginx with a folder of static files.
pub(crate) struct Nginx {
    root: PathBuf,
    pub(crate) url: String,
}

impl Nginx {
    pub(crate) fn start(bench: &Bench, files: &Path) -> Result<Self> {
        let root = bench.work.join("nginx");
        script("nginx", &[Path::new("install")])?;
        let url = script("nginx", &[Path::new("start"), &root, files])?;
        Ok(Self { root, url })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Err(error) = script("nginx", &[Path::new("stop"), &self.root]) {
            eprintln!("nginx could not be stopped: {error:#}");
        }
    }
}

/// Martlet as it comes: no setting differs from its default.
pub(crate) struct Martlet {
    pub(crate) server: Server,
    pub(crate) launch: Launch,
    pub(crate) target: Target,
}

impl Martlet {
    pub(crate) fn start(bench: &Bench, volume: &Volume) -> Result<Self> {
        let log = bench.work.join("martlet.log");
        let launch = Launch::new(&bench.martlet, &volume.path().join("data"), &log);
        let server = launch.start()?;
        let target = target(&launch, &server)?;
        Ok(Self {
            server,
            launch,
            target,
        })
    }

    /// What it has resident now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.process_id()))?;
        let bytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            anyhow::Ok(kib.context(name)?.parse::<u64>()? << 10)
        };
        Ok(Memory {
            own: bytes("RssAnon:")?,
            mapped: bytes("RssFile:")?,
        })
    }
}

/// Several nodes of Martlet that keep three copies of everything: as they come, on loopback, each on a file
/// system of its own.
pub(crate) struct Cluster {
    // Dropped first: a file system that is in use cannot be unmounted.
    servers: Vec<Server>,
    _volumes: Vec<Volume>,
    /// The first node.
    pub(crate) target: Target,
}

impl Cluster {
    pub(crate) fn start(bench: &Bench, nodes: usize) -> Result<Self> {
        let (mut servers, mut volumes) = (Vec::new(), Vec::new());
        let mut first: Option<(Launch, Target)> = None;
        let meeting = free_address()?.to_string();
        for number in 0..nodes {
            let name = format!("node{number}");
            let volume = bench.volume(&name)?;
            let log = bench.work.join(format!("{name}.log"));
            let launch = Launch::new(&bench.martlet, &volume.path().join("data"), &log);
            match &first {
                None => {
                    let launch = launch.with("--node-listen", &meeting);
                    let server = launch.start()?;
                    let target = target(&launch, &server)?;
                    servers.push(server);
                    first = Some((launch, target));
                }
                Some((member, _)) => {
                    let token = printed(&mut ask(member, &["token", "create"]))?;
                    let launch = launch
                        .with("--node-listen", &free_address()?.to_string())
                        .with("--join", &meeting)
                        .with("--token", &token);
                    servers.push(launch.start()?);
                }
            }
            volumes.push(volume);
        }
        let (launch, target) = first.context("no nodes")?;
        wait_until_whole(&launch)?;
        Ok(Self {
            servers,
            _volumes: volumes,
            target,
        })
    }

    pub(crate) fn stop(self) -> Result<()> {
        for server in self.servers {
            ensure!(server.stop()?.success(), "a node did not stop well");
        }
        Ok(())
    }
}

/// An administrator's command to a node.
fn ask(node: &Launch, words: &[&str]) -> Command {
    let mut command = Command::new(&node.binary);
    command.args(words).arg("--data").arg(&node.data);
    command
}

/// Waits until everything has all its copies.
fn wait_until_whole(node: &Launch) -> Result<()> {
    const STEP: Duration = Duration::from_millis(200);
    const TIME_MAX: Duration = Duration::from_secs(120);
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let status = printed(&mut ask(node, &["status", "--json"]))?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        if status["cluster"]["whole"] == true {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "not whole after {TIME_MAX:?}: {status}"
        );
        thread::sleep(STEP);
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// What it allocated.
    pub(crate) own: u64,
    /// Pages of the page cache that it has mapped: of its trees and of its program. The kernel takes
    /// them back when it wants to.
    pub(crate) mapped: u64,
}

pub(crate) fn target(launch: &Launch, server: &Server) -> Result<Target> {
    let (user, password) = launch.administrator()?;
    let url = format!("http://{}/auth/v1.0", server.address);
    let arguments = ["--auth", &url, "--user", &user].map(str::to_owned).into();
    Ok(Target {
        arguments,
        password,
    })
}
