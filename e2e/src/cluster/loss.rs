//! A node dies for ever: what it held is made again elsewhere without a hand, also if another one fails meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::Expect;
use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Number};
use crate::damage::put;
use crate::promised;
use crate::verify;

/// So that nobody is waited for long.
pub(super) const SETTINGS: [(&str, &str); 1] = [("MARTLET_OUT_AFTER", "4s")];

/// Besides what the load writes: some take a while to be copied.
const OBJECTS: usize = 20;
const BYTES: usize = 6 << 20;

/// From the death until everything is threefold again.
const TIME_MAX: Duration = Duration::from_secs(180);

pub(super) fn strike(run: &mut Run<'_>) -> Result<()> {
    let nodes = run.cluster.size();
    ensure!(nodes > 3, "{nodes} nodes are too few for a further copy");
    run.cluster.wait_until_whole()?;
    run.session.call("PUT", "kept", "")?;
    let mut objects = Vec::new();
    for number in 0..OBJECTS {
        let path = format!("kept/{number}");
        let value = put(&mut run.session, &path, BYTES, &mut run.random)?;
        objects.push((path, value));
    }
    // Node 0 is asked how things are, and the last one leaves no gap in the numbers.
    let (dead, other) = (nodes - 1, run.random.usize(1..nodes - 1));
    let before = Instant::now();
    run.round(Expect::Truth, |run, _, _| {
        run.cluster.kill(dead)?;
        wait_until(run, "the dead node is out", |cluster| {
            Ok(cluster.status(0)?["nodes"][dead]["state"] == "out")
        })?;
        // In the middle of the repair.
        run.cluster.kill(other)?;
        thread::sleep(Duration::from_secs(1));
        run.cluster.start(other)?;
        wait_until(run, "everything is threefold", |cluster| {
            let status = cluster.status(0)?;
            let is_up = |node: Number| status["nodes"][node]["state"] == "up";
            Ok(status["whole"] == true && (0..dead).all(is_up))
        })?;
        let number = (dead + 1).to_string();
        let removed = run.cluster.ask(0, &["node", "remove", &number]).output()?;
        promised!(removed.status.success(), "nothing is lost: {removed:?}");
        run.cluster.bury_last();
        run.report.cycles += 1;
        Ok(())
    })?;
    run.report.slowest_recovery = before.elapsed();
    wait_for_service(&mut run.cluster, &run.session)?;
    for node in 0..run.cluster.size() {
        let mut session = run.session.again(run.cluster.endpoint(node).clone());
        for (path, value) in &objects {
            let answer = session.call("GET", path, "")?;
            let read = verify::object(path, &answer)?;
            promised!(read == *value, "{path} was {value:?} and is {read:?}");
        }
    }
    Ok(())
}

fn wait_until(run: &Run<'_>, what: &str, is_so: impl Fn(&Cluster) -> Result<bool>) -> Result<()> {
    const STEP: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + TIME_MAX;
    while !is_so(&run.cluster).context("the status")? {
        let status = run.cluster.status(0)?;
        promised!(
            Instant::now() < deadline,
            "not after {TIME_MAX:?}: {what}: {status}"
        );
        thread::sleep(STEP);
    }
    Ok(())
}
