//! The stories that a cluster must survive.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::availability::{self, Gaps};
use super::fault::Fault;
use super::history::Counts;
use super::load::{Expect, Load};
use super::{Cluster, Setup, can_cut_power, devices, fragments, late, loss, rot, verify};
use crate::session::Session;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Anything, one thing after the other.
    Faults,
    /// A node is cut off for so long that others take over what it led.
    Cuts,
    /// Nodes are killed and started again.
    Kills,
    /// All nodes lose their power at once.
    PowerCuts,
    /// A node stands still for so long, and goes on as if nothing had been.
    Pauses(Duration),
    /// A node is killed: how long does the service through the others stop?
    Availability,
    /// A node that does not know the newest map goes on with an upload.
    LateWriters,
    /// From one node to as many as there are to be.
    Growth,
    /// Each node gets a second device, which is taken from it again.
    Devices,
    /// Bits flip in what nodes have stored.
    Rot,
    /// A node dies for ever.
    Loss,
    /// Two of six nodes are gone, and bits flip, where bodies are kept in fragments.
    Fragments,
}

/// A run of a scenario.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    pub scenario: Scenario,
    pub nodes: usize,
    /// How often it happens.
    pub cycles: usize,
    /// Makes the same choices again, though not at the same moments.
    pub seed: u64,
    /// For all nodes; switches canaries on.
    pub environment: Vec<(&'static str, String)>,
}

/// What a run did, if nothing was wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub cycles: usize,
    pub requests: Counts,
    /// Whose histories were checked.
    pub objects: usize,
    pub took: Duration,
    /// The longest time from the end of a fault until every node served everything.
    pub slowest_recovery: Duration,
    /// Of availability alone.
    pub gaps: Option<Gaps>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cycles,
            requests,
            objects,
            took,
            slowest_recovery,
            gaps,
        } = self;
        write!(
            f,
            "{cycles} cycles in {took:.1?}: {requests}; {objects} histories of objects are \
             linearizable; slowest recovery {slowest_recovery:.1?}"
        )?;
        gaps.map_or(Ok(()), |gaps| write!(f, "; {gaps}"))
    }
}

/// Runs the plan in a new directory, which is removed only if all went well.
pub fn run(plan: &Plan) -> Result<Report> {
    let work = tempfile::Builder::new()
        .prefix("cluster-")
        .tempdir_in(crate::scratch()?)?;
    let start = Instant::now();
    let report = Run::prepare(plan, work.path()).and_then(Run::run);
    if report.is_err() {
        let kept = work.keep();
        return report
            .with_context(|| format!("seed {}; all is kept in {}", plan.seed, kept.display()));
    }
    Ok(Report {
        took: start.elapsed(),
        ..report?
    })
}

fn environment(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut environment = plan.environment.clone();
    let settings: &[_] = match plan.scenario {
        Scenario::Rot => &rot::SETTINGS,
        Scenario::Loss => &loss::SETTINGS,
        Scenario::Fragments => &fragments::SETTINGS,
        _ => &[],
    };
    let settings = settings
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    environment.extend(settings);
    environment
}

/// An answer may take so long on a busy machine while something is broken; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) folder: &'a Path,
    pub(super) cluster: Cluster,
    pub(super) session: Session,
    pub(super) random: Rng,
    rounds: usize,
    pub(super) report: Report,
}

impl<'a> Run<'a> {
    fn prepare(plan: &'a Plan, folder: &'a Path) -> Result<Self> {
        let power_cuts = match plan.scenario {
            Scenario::PowerCuts => true,
            Scenario::Faults => can_cut_power(),
            _ => false,
        };
        let setup = Setup {
            binary: plan.binary.clone(),
            seed: plan.seed,
            power_cuts,
            environment: environment(plan),
        };
        let cluster = Cluster::form(&setup, folder)?;
        let mut session = cluster.login()?;
        verify::prepare(&mut session)?;
        Ok(Self {
            plan,
            folder,
            cluster,
            session,
            random: Rng::with_seed(plan.seed),
            rounds: 0,
            report: Report::default(),
        })
    }

    fn run(mut self) -> Result<Report> {
        match self.plan.scenario {
            Scenario::Growth => self.grow()?,
            Scenario::LateWriters => {
                self.cluster.grow_to(self.plan.nodes)?;
                late::strike(&mut self)?;
            }
            Scenario::Loss => {
                self.cluster.grow_to(self.plan.nodes)?;
                loss::strike(&mut self)?;
            }
            Scenario::Fragments => {
                self.cluster.grow_to(self.plan.nodes)?;
                fragments::strike(&mut self)?;
            }
            Scenario::Rot => {
                self.cluster.grow_to(self.plan.nodes)?;
                rot::strike(&mut self)?;
            }
            Scenario::Devices => {
                self.cluster.grow_to(self.plan.nodes)?;
                devices::come_and_go(&mut self)?;
            }
            Scenario::Availability => {
                self.cluster.grow_to(self.plan.nodes)?;
                self.cluster.wait_until_whole()?;
                availability::measure(&mut self)?;
            }
            Scenario::Faults => self.strike(&Fault::ALL, 200..3000)?,
            Scenario::Cuts => self.strike(&[Fault::Isolated, Fault::Mute], 2000..4000)?,
            Scenario::Kills => self.strike(&[Fault::Kill], 0..2000)?,
            Scenario::PowerCuts => self.strike(&[Fault::PowerCutAll], 0..50)?,
            Scenario::Pauses(length) => {
                let length = u64::try_from(length.as_millis())?;
                self.strike(&[Fault::Pause], length..length + 1)?;
            }
        }
        match self.plan.scenario {
            Scenario::Growth | Scenario::Devices | Scenario::Loss | Scenario::Fragments => {
                self.cluster.stop_when_nothing_is_left_behind()?
            }
            _ => self.cluster.stop()?,
        }
        Ok(self.report)
    }

    /// Strikes with these faults, each of which lasts so many milliseconds.
    fn strike(&mut self, faults: &[Fault], lasts: std::ops::Range<u64>) -> Result<()> {
        /// Then the history is checked and a new one begins.
        const STRIKES: usize = 10;
        self.cluster.grow_to(self.plan.nodes)?;
        self.cluster.wait_until_whole()?;
        let possible = faults
            .iter()
            .filter(|fault| fault.is_possible(&self.cluster));
        let possible: Vec<Fault> = possible.copied().collect();
        ensure!(!possible.is_empty(), "{faults:?} are not possible here");
        let mut left = self.plan.cycles;
        while left > 0 {
            let strikes = left.min(STRIKES);
            left -= strikes;
            self.round(Expect::Truth, |run, load, random| {
                for _ in 0..strikes {
                    let fault = possible[random.usize(0..possible.len())];
                    let lasts = Duration::from_millis(random.u64(lasts.clone()));
                    run.strike_once(fault, lasts, load, random)
                        .with_context(|| format!("cycle {}: {fault:?}", run.report.cycles))?;
                    if load.has_stopped() {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn strike_once(
        &mut self,
        fault: Fault,
        lasts: Duration,
        load: &Load<'_>,
        random: &mut Rng,
    ) -> Result<()> {
        // What the nodes are doing then is never the same.
        thread::sleep(Duration::from_millis(random.u64(100..800)));
        fault.strike(&mut self.cluster, load, lasts, random)?;
        let recovery = verify::wait_for_service(&mut self.cluster, &self.session)?;
        self.report.slowest_recovery = self.report.slowest_recovery.max(recovery);
        self.report.cycles += 1;
        Ok(())
    }

    /// Runs clients while `meanwhile` runs, then checks everything that they saw.
    pub(super) fn round(
        &mut self,
        expect: Expect,
        meanwhile: impl FnOnce(&mut Self, &Load<'_>, &mut Rng) -> Result<()>,
    ) -> Result<()> {
        let patience = match self.plan.scenario {
            Scenario::Pauses(length) => PATIENCE + length,
            _ => PATIENCE,
        };
        let session = self.session.again(self.cluster.endpoint(0).clone());
        self.rounds += 1;
        let load = Load::new(&session, self.rounds, expect, patience);
        for node in 0..self.cluster.size() {
            load.add_node(self.cluster.endpoint(node));
        }
        let mut random = self.random.fork();
        let done = load
            .run(&mut random, |random| meanwhile(self, &load, random))
            .and_then(|()| verify::everything(&self.cluster, &load, &session, &mut random));
        if done.is_err() {
            load.history.save(&self.folder.join("history.json"))?;
        }
        self.report.objects += done?;
        self.report.requests += load.history.counts();
        Ok(())
    }

    /// One node more at a time, while clients expect to be served at the second try at the latest.
    fn grow(&mut self) -> Result<()> {
        /// Before, between and after.
        const PAUSE: Duration = Duration::from_secs(2);
        let nodes = self.plan.nodes;
        self.round(Expect::Service, |run, load, _| {
            thread::sleep(PAUSE);
            while run.cluster.size() < nodes && !load.has_stopped() {
                run.cluster.add_node()?;
                load.add_node(run.cluster.endpoint(run.cluster.size() - 1));
                run.report.cycles += 1;
                thread::sleep(PAUSE);
            }
            run.cluster.wait_until_whole()
        })?;
        let recovery = verify::wait_for_service(&mut self.cluster, &self.session)?;
        self.report.slowest_recovery = recovery;
        Ok(())
    }
}
