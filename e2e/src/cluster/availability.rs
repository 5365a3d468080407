//! How long does the service through the other nodes stop when one dies?

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{CONTAINERS, OUTSIDE};
use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Number};
use crate::http::Body;
use crate::promised;
use crate::session::Session;

/// The longest times without a success, over all containers and survivors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    pub writes: Duration,
    /// Of what was written before.
    pub reads: Duration,
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, reads } = self;
        write!(
            f,
            "longest gap in writes {writes:.2?}, in reads {reads:.2?}"
        )
    }
}

/// Far more than the aim, which the report is held against: a busy machine fails no test.
const GAP_MAX: Duration = Duration::from_secs(20);
/// Before the death, so that all are at work.
const BEFORE: Duration = Duration::from_secs(1);
/// After it: longer than any gap that is no failure.
const AFTER: Duration = Duration::from_secs(8);

/// Kills one node so many times and measures.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let nodes = run.cluster.size();
    ensure!(nodes >= 3, "with {nodes} nodes none may die");
    let mut worst = Gaps::default();
    for _ in 0..run.plan.cycles {
        let victim = run.random.usize(0..nodes);
        let recovery = wait_for_service(&mut run.cluster, &run.session)?;
        run.report.slowest_recovery = run.report.slowest_recovery.max(recovery);
        run.cluster.wait_until_whole()?;
        let gaps = kill_one(&mut run.cluster, &run.session, victim)?;
        run.cluster.start(victim)?;
        worst.writes = worst.writes.max(gaps.writes);
        worst.reads = worst.reads.max(gaps.reads);
        run.report.cycles += 1;
    }
    wait_for_service(&mut run.cluster, &run.session)?;
    run.report.gaps = Some(worst);
    for (what, gap) in [("writes", worst.writes), ("reads", worst.reads)] {
        promised!(
            gap < GAP_MAX,
            "one node died, and {what} stopped for {gap:?}"
        );
    }
    Ok(())
}

fn kill_one(cluster: &mut Cluster, session: &Session, victim: Number) -> Result<Gaps> {
    let start = Instant::now();
    let end = start + BEFORE + AFTER;
    let survivors = (0..cluster.size()).filter(|node| *node != victim);
    let streams: Vec<_> = survivors
        .flat_map(|node| (0..CONTAINERS).map(move |container| (node, container)))
        .map(|(node, container)| {
            let session = || {
                let endpoint = cluster.endpoint(node).clone();
                session.again(endpoint).with_patience(GAP_MAX)
            };
            // What `wait_for_service` has put there through this node.
            let path = format!("c{container}/{OUTSIDE}{node}");
            (session(), session(), path)
        })
        .collect();
    thread::scope(|scope| {
        let streams: Vec<_> = streams
            .into_iter()
            .map(|(writer, reader, path)| {
                let (to_write, to_read) = (format!("{path}.new"), path);
                let writes = scope.spawn(move || longest_gap(writer, "PUT", &to_write, end));
                let reads = scope.spawn(move || longest_gap(reader, "GET", &to_read, end));
                (writes, reads)
            })
            .collect();
        thread::sleep(BEFORE);
        cluster.kill(victim)?;
        let mut gaps = Gaps::default();
        for (writes, reads) in streams {
            gaps.writes = gaps.writes.max(writes.join().expect("it does not panic"));
            gaps.reads = gaps.reads.max(reads.join().expect("it does not panic"));
        }
        Ok(gaps)
    })
}

/// Repeats one request to the end; gives the longest time between two successes.
fn longest_gap(mut session: Session, method: &str, path: &str, end: Instant) -> Duration {
    /// Between two requests, so that the clients of all streams leave the servers some of the machine.
    const STEP: Duration = Duration::from_millis(20);
    let mut request = session.request(method, path, "");
    if method == "PUT" {
        request = request.body(Body::Sized(b"still here"));
    }
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
