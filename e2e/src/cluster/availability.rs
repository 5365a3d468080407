//! How long does the service through the other nodes stop when one dies?
//!
//! A process that is killed says so: its connections are reset, and nobody can make a new one. A machine that loses
//! its power says nothing. Where links can be cut, every other death is of that kind.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{CONTAINERS, OUTSIDE};
use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Number};
use crate::http::Body;
use crate::network::Link;
use crate::promised;
use crate::session::Session;

/// The longest times without a success, over all containers and survivors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Of bodies that are in the commit.
    pub small_writes: Duration,
    /// Of bodies that lie in chunks.
    pub large_writes: Duration,
    /// Of what was written before.
    pub reads: Duration,
}

impl Gaps {
    fn of(self, what: What) -> Duration {
        match what {
            What::SmallWrites => self.small_writes,
            What::LargeWrites => self.large_writes,
            What::Reads => self.reads,
        }
    }

    fn add(&mut self, what: What, gap: Duration) {
        let worst = match what {
            What::SmallWrites => &mut self.small_writes,
            What::LargeWrites => &mut self.large_writes,
            What::Reads => &mut self.reads,
        };
        *worst = gap.max(*worst);
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            small_writes,
            large_writes,
            reads,
        } = self;
        write!(
            f,
            "longest gap in writes {small_writes:.2?}, in writes of chunks {large_writes:.2?}, in reads \
             {reads:.2?}"
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    SmallWrites,
    LargeWrites,
    Reads,
}

impl What {
    const ALL: [Self; 3] = [Self::SmallWrites, Self::LargeWrites, Self::Reads];
}

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Killed,
    /// The others hear nothing of it, not even that it has died.
    Silent,
}

/// Far more than the aim, which the report is held against: a busy machine fails no test.
const GAP_MAX: Duration = Duration::from_secs(20);
/// Before the death, so that all are at work.
const BEFORE: Duration = Duration::from_secs(1);
/// After it: longer than any gap that is no failure.
const AFTER: Duration = Duration::from_secs(8);
/// Too long to be part of a commit.
const LARGE_BYTES: usize = 64 << 10;

/// Kills one node so many times and measures.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let nodes = run.cluster.size();
    ensure!(nodes >= 3, "with {nodes} nodes none may die");
    let mut worst = Gaps::default();
    for cycle in 0..run.plan.cycles {
        let victim = run.random.usize(0..nodes);
        let death = match run.cluster.network() {
            Some(_) if cycle % 2 == 1 => Death::Silent,
            Some(_) | None => Death::Killed,
        };
        let recovery = wait_for_service(&mut run.cluster, &run.session)?;
        run.report.slowest_recovery = run.report.slowest_recovery.max(recovery);
        run.cluster.wait_until_whole()?;
        let gaps = kill_one(&mut run.cluster, &run.session, victim, death)?;
        eprintln!("node {victim}, {death:?}: {gaps}");
        if let Some(network) = run.cluster.network() {
            network.heal();
        }
        run.cluster.start(victim)?;
        for what in What::ALL {
            worst.add(what, gaps.of(what));
        }
        run.report.cycles += 1;
    }
    wait_for_service(&mut run.cluster, &run.session)?;
    run.report.gaps = Some(worst);
    for what in What::ALL {
        let gap = worst.of(what);
        promised!(
            gap < GAP_MAX,
            "one node died, and {what:?} stopped for {gap:?}"
        );
    }
    Ok(())
}

fn kill_one(
    cluster: &mut Cluster,
    session: &Session,
    victim: Number,
    death: Death,
) -> Result<Gaps> {
    let survivors = (0..cluster.size()).filter(|node| *node != victim);
    let mut streams = Vec::new();
    for node in survivors {
        let connect = || {
            let endpoint = cluster.endpoint(node).clone();
            session.again(endpoint).with_patience(GAP_MAX)
        };
        let mut add = |what, path: String, bytes| streams.push((what, connect(), path, bytes));
        for container in 0..CONTAINERS {
            // What `wait_for_service` has put there through this node.
            let path = format!("c{container}/{OUTSIDE}{node}");
            add(What::SmallWrites, format!("{path}.new"), 10);
            add(What::Reads, path, 0);
        }
        let large = format!("c0/{OUTSIDE}{node}.large");
        let body = vec![7; LARGE_BYTES];
        let put = session.request("PUT", &large, "").body(Body::Sized(&body));
        let answer = connect().send(&put)?;
        promised!(answer.is_success(), "nothing is broken, but {answer:?}");
        add(What::LargeWrites, format!("{large}.new"), LARGE_BYTES);
        add(What::Reads, large, 0);
    }
    let end = Instant::now() + BEFORE + AFTER;
    thread::scope(|scope| {
        let streams: Vec<_> = streams
            .into_iter()
            .map(|(what, session, path, bytes)| {
                let stream = scope.spawn(move || longest_gap(session, what, &path, bytes, end));
                (what, stream)
            })
            .collect();
        thread::sleep(BEFORE);
        if death == Death::Silent {
            silence(cluster, victim);
        }
        cluster.kill(victim)?;
        let mut gaps = Gaps::default();
        for (what, stream) in streams {
            gaps.add(what, stream.join().expect("it does not panic"));
        }
        Ok(gaps)
    })
}

/// Nothing passes between a node and the others any more.
fn silence(cluster: &Cluster, node: Number) {
    if let Some(network) = cluster.network() {
        for other in (0..cluster.size()).filter(|other| *other != node) {
            network.set(node, other, Link::CUT);
            network.set(other, node, Link::CUT);
        }
    }
}

/// Repeats one request to the end; gives the longest time between two successes.
fn longest_gap(
    mut session: Session,
    what: What,
    path: &str,
    bytes: usize,
    end: Instant,
) -> Duration {
    /// Between two requests, so that the clients of all streams leave the servers some of the machine.
    const STEP: Duration = Duration::from_millis(20);
    let body = vec![b'h'; bytes];
    let request = match what {
        What::Reads => session.request("GET", path, ""),
        What::SmallWrites | What::LargeWrites => {
            let put = session.request("PUT", path, "");
            put.body(Body::Sized(&body))
        }
    };
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let done = session
            .send(&request)
            .is_ok_and(|answer| answer.is_success());
        let now = Instant::now();
        if done || now >= end {
            longest = longest.max(now - last);
            last = now;
        }
        if now >= end {
            return longest;
        }
        thread::sleep(STEP);
    }
}
