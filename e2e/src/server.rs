//! The real server as a child process.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Client, Endpoint, Request};
use crate::network::Namespace;
use crate::process;

/// Longer than any start should take on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// How a server is started; the same again after each crash.
#[derive(Clone, Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub data: PathBuf,
    /// Takes what the server prints, one run after the other.
    pub log: PathBuf,
    pub arguments: Vec<String>,
    /// Another free one at each start if there is none.
    pub address: Option<SocketAddr>,
    pub environment: Vec<(&'static str, String)>,
    /// The network that it lives in; this process's own if there is none.
    pub namespace: Option<Arc<Namespace>>,
}

impl Launch {
    /// A server as it comes on `data`. The log lies beside `data`, not in it.
    pub fn new(binary: &Path, data: &Path, log: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
            arguments: vec!["--admin-listen".to_owned(), "off".to_owned()],
            address: None,
            environment: Vec::new(),
            namespace: None,
        }
    }

    /// With another setting.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Starts it and returns at once, ready or not.
    pub fn spawn(&self) -> Result<Server> {
        let address = self.address.map_or_else(free_address, Ok)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command("server");
        command
            .arg("--data")
            .arg(&self.data)
            .arg("--listen")
            .arg(address.to_string());
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = match &self.namespace {
            Some(namespace) => namespace.within(|| command.spawn()),
            None => command.spawn(),
        };
        Ok(Server {
            child: child.context("starting the server")?,
            address,
            namespace: self.namespace.clone(),
            log: self.log.clone(),
        })
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> Result<Server> {
        let mut server = self.spawn()?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Adds a user by the command line, as an administrator does.
    pub fn add_user(&self, user: &str, password: &str, role: &str, groups: &[&str]) -> Result<()> {
        let mut command = self.command("user");
        command.args(["add", user, "--password-stdin", "--role", role]);
        command.args(groups.iter().flat_map(|group| ["--group", group]));
        command
            .arg("--data")
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("stdin was piped")?;
        writeln!(stdin, "{password}")?;
        drop(stdin);
        if !child.wait()?.success() {
            bail!("adding {user} failed");
        }
        Ok(())
    }

    /// The offline check of the data directory, while no server runs. Gives its complaint, if any.
    pub fn check(&self) -> Result<Option<String>> {
        check(&self.binary, &[&self.data])
    }

    /// The name and password of the administrator whom the first start made.
    pub fn administrator(&self) -> Result<(String, String)> {
        let path = self.data.join("admin-credentials");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value = |key| {
            let found = text.lines().find_map(|line| line.strip_prefix(key));
            found
                .map(str::to_owned)
                .with_context(|| format!("no {key} in {}", path.display()))
        };
        Ok((value("MARTLET_USER=")?, value("MARTLET_PASSWORD=")?))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg(subcommand)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The offline check of all data directories of a server or a cluster, while nothing runs on them. Gives its
/// complaint, if any.
pub fn check(binary: &Path, data: &[&PathBuf]) -> Result<Option<String>> {
    let (is_good, text) = look(binary, data)?;
    Ok((!is_good).then_some(text))
}

/// Whether `martlet check` finds nothing wrong, and all that it says.
pub fn look(binary: &Path, data: &[&PathBuf]) -> Result<(bool, String)> {
    let output = Command::new(binary).arg("check").args(data).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok((true, text.into_owned())),
        Some(1) => Ok((false, text.into_owned())),
        _ => bail!("martlet check ended with {}: {text}", output.status),
    }
}

/// A running server. It is killed when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    namespace: Option<Arc<Namespace>>,
    log: PathBuf,
}

impl Server {
    /// Where its clients find it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            namespace: self.namespace.clone(),
        }
    }

    /// Waits until the server answers; fails if it ends instead.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(1);
        let deadline = Instant::now() + START_TIME_MAX;
        let mut client = Client::new(self.endpoint());
        loop {
            if client
                .send(&Request::new("GET", "/healthcheck"))
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "the server is not ready after {START_TIME_MAX:?}:\n{}",
                    self.last_words()
                );
            }
            thread::sleep(STEP);
        }
    }

    /// Ends it as a power cut would: at once.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        kill_process(self.pid(), Signal::TERM)?;
        match process::wait(&mut self.child, STOP_TIME_MAX)? {
            Some(status) => Ok(status),
            None => bail!(
                "the server did not stop in {STOP_TIME_MAX:?}:\n{}",
                self.last_words()
            ),
        }
    }

    /// Stops it in its tracks, as a machine that stalls, until it is resumed.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(self.pid(), Signal::STOP)?)
    }

    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(self.pid(), Signal::CONT)?)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn last_words(&self) -> String {
        const LINES: usize = 20;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of the loopback interface where nobody listens. Below the range from which the kernel
/// draws the ports of clients, so that none of those takes it before the server does; and from a range
/// that this process has for itself, so that no other harness's server answers in its place.
pub fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = own_ports()?;
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first + step));
        if TcpListener::bind(address).is_ok() && TcpStream::connect(address).is_err() {
            return Ok(address);
        }
    }
    bail!("no free port")
}

/// Of each process: more than it has servers at any time.
const PORTS: u16 = 100;

/// The first of the ports that are this process's own until it ends.
fn own_ports() -> Result<u16> {
    const FIRST: u16 = 10_000;
    const RANGES: u16 = 200;
    static OWN: Mutex<Option<(u16, File)>> = Mutex::new(None);
    let mut own = OWN.lock().expect("nobody panics with it in hand");
    if let Some((first, _)) = &*own {
        return Ok(*first);
    }
    // All checkouts share the loopback interface, so the locks lie where all find them.
    let folder = std::env::temp_dir().join("martlet-e2e-ports");
    fs::create_dir_all(&folder)?;
    for range in 0..RANGES {
        let lock = File::create(folder.join(range.to_string()))?;
        if lock.try_lock().is_ok() {
            let first = FIRST + range * PORTS;
            *own = Some((first, lock));
            return Ok(first);
        }
    }
    bail!("all ranges of ports are in use")
}
