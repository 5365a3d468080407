//! Crashes under load, again and again, on one data directory.
//!
//! A cycle starts the server, compares all that it holds with the ledger, lets many clients loose and
//! takes it down at a random moment, now and then already while it starts. A start that takes an
//! acknowledged write back, or half of an unacknowledged one, is a [`Violation`](crate::Violation); so
//! is whatever `martlet check` finds in the directory as the crash left it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::ledger::Ledger;
use crate::progress::{Interrupted, Progress};
use crate::server::{Launch, Server};
use crate::session::Session;
use crate::verify;
use crate::volume::{Kind, Volume};
use crate::workload::Load;
use crate::{broken, promised};

/// What takes the server down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: the kernel still has all that was written.
    Kill,
    /// The file system under the data directory loses what was not synced.
    PowerCut(Kind),
}

/// A run of the harness.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    pub fault: Fault,
    pub cycles: usize,
    /// Makes the same choices again, though not at the same moments.
    pub seed: u64,
    /// For the server; switches canaries on.
    pub environment: Vec<(&'static str, String)>,
}

/// What a run did, if nothing was wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub cycles: usize,
    /// Requests that were answered before a fault.
    pub answered: usize,
    /// Objects and containers that were verified after one.
    pub verified: usize,
    pub took: Duration,
    /// The longest time from a crash's restart to the first answer.
    pub slowest_start: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cycles,
            answered,
            verified,
            took,
            slowest_start,
        } = self;
        write!(
            f,
            "{cycles} crashes in {took:.1?}: {answered} requests answered, {verified} objects and \
             containers verified, slowest start {slowest_start:.1?}"
        )
    }
}

/// The file system is as small as it can be, so that log and segments are reused.
const VOLUME_BYTES: u64 = 2 << 30;
/// What each crash leaves of uploads that it broke off, and no server lives long enough to clean up: some
/// 2.5 MiB, as measured over 666 crashes.
const LEFT_BYTES: u64 = 4 << 20;

/// Runs the plan in a new directory, which is removed unless something was wrong.
pub fn run(plan: &Plan) -> Result<Report> {
    let work = tempfile::Builder::new()
        .prefix("crash-")
        .tempdir_in(crate::scratch()?)?;
    let report = Run::prepare(plan, work.path()).and_then(Run::run);
    match report {
        Err(error) if error.is::<Interrupted>() => {
            Err(error.context(format!("seed {}", plan.seed)))
        }
        Err(error) => {
            let kept = work.keep();
            Err(error.context(format!(
                "seed {}; all is kept in {}",
                plan.seed,
                kept.display()
            )))
        }
        Ok(report) => Ok(report),
    }
}

struct Run<'a> {
    plan: &'a Plan,
    launch: Launch,
    /// Nothing when only the process is killed.
    volume: Option<Volume>,
    ledger: Ledger,
    /// Kept over all crashes: tokens survive them.
    session: Option<Session>,
    random: Rng,
    report: Report,
}

impl<'a> Run<'a> {
    fn prepare(plan: &'a Plan, work: &Path) -> Result<Self> {
        let volume = match plan.fault {
            Fault::Kill => None,
            Fault::PowerCut(kind) => {
                let bytes = VOLUME_BYTES + plan.cycles as u64 * LEFT_BYTES;
                Some(Volume::create(kind, work, bytes)?)
            }
        };
        let data = volume.as_ref().map_or(work, Volume::path).join("data");
        let mut launch = Launch::new(&plan.binary, &data, &work.join("server.log"))
            .with("--shards", "4")
            .with("--reserve-bytes", "64MiB");
        launch.environment.clone_from(&plan.environment);
        Ok(Self {
            plan,
            launch,
            volume,
            ledger: Ledger::default(),
            session: None,
            random: Rng::with_seed(plan.seed),
            report: Report::default(),
        })
    }

    fn run(mut self) -> Result<Report> {
        let start = Instant::now();
        let mut progress = Progress::new("cycles", self.plan.cycles);
        for _ in 0..self.plan.cycles {
            progress.step(|| self.cycle())?;
        }
        self.report.cycles = progress.done();
        self.stop_well()
            .with_context(|| format!("stopped well after {progress}"))?;
        self.report.took = start.elapsed();
        Ok(self.report)
    }

    /// A clean stop keeps everything, too.
    fn stop_well(&mut self) -> Result<()> {
        for _ in 0..2 {
            let server = self.start_and_verify()?;
            let status = server.stop()?;
            promised!(status.success(), "the server stopped with {status}");
            self.check()?;
        }
        Ok(())
    }

    fn cycle(&mut self) -> Result<()> {
        /// Of a hundred starts.
        const CUT_SHORT: u8 = 20;
        if self.random.u8(0..100) < CUT_SHORT {
            self.crash_while_starting()?;
        }
        let server = self.start_and_verify()?;
        self.crash_under_load(server)?;
        self.check()
    }

    fn start_and_verify(&mut self) -> Result<Server> {
        let before = Instant::now();
        let server = self.launch.start().map_err(broken)?;
        let took = before.elapsed();
        match &self.session {
            None => {
                let (user, password) = self.launch.administrator()?;
                let session = Session::login(server.address, &user, &password)?;
                Load::new(&self.ledger, &session, server.address).prepare()?;
                self.session = Some(session);
            }
            Some(session) => {
                let mut session = session.again(server.address);
                self.report.slowest_start = self.report.slowest_start.max(took);
                let verified = verify::everything(&mut session, &self.ledger, &mut self.random);
                self.report.verified += verified.map_err(broken)?;
            }
        }
        Ok(server)
    }

    fn crash_while_starting(&mut self) -> Result<()> {
        let server = self.launch.spawn()?;
        thread::sleep(Duration::from_micros(self.random.u64(0..60_000)));
        self.take_down(server)?;
        self.restore()
    }

    fn crash_under_load(&mut self, server: Server) -> Result<()> {
        let session = self
            .session
            .take()
            .context("logged in at the first start")?;
        let load = Load::new(&self.ledger, &session, server.address);
        let burst = Duration::from_micros(self.random.u64(20_000..250_000));
        let mut random = self.random.fork();
        let answered = load.run(&mut random, || {
            thread::sleep(burst);
            load.fault.store(true, Ordering::SeqCst);
            self.take_down(server)
        });
        self.report.answered += answered?;
        self.session = Some(session);
        self.restore()
    }

    fn take_down(&self, mut server: Server) -> Result<()> {
        if let Some(volume) = &self.volume {
            volume.cut()?;
            // The server may still say something, and that must be true.
            const LAST_WORDS: Duration = Duration::from_millis(3);
            thread::sleep(LAST_WORDS);
        }
        server.kill()
    }

    fn restore(&self) -> Result<()> {
        self.volume.as_ref().map_or(Ok(()), Volume::restore)
    }

    fn check(&self) -> Result<()> {
        if fs::exists(&self.launch.data)? {
            let found = self.launch.check().map_err(broken)?;
            promised!(
                found.is_none(),
                "martlet check: {}",
                found.unwrap_or_default()
            );
        }
        Ok(())
    }
}
