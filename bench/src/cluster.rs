//! Three nodes that keep three copies, beside one that keeps one, and beside OpenStack Swift with three.
//!
//! All nodes are on one machine: what three nodes cost there is processor time, three times, and not the network.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::report::{Report, Unit, Wanted};
use crate::speed::Runs;
use crate::systems::{Bench, Cluster, Martlet, OpenStack};

const NODES: usize = 3;

pub(crate) fn measure(bench: &Bench, effort: Effort, report: &mut Report) -> Result<()> {
    let volume = bench.volume("martlet")?;
    let alone = Martlet::start(bench, &volume)?;
    let cluster = Cluster::start(bench, NODES)?;
    let openstack = OpenStack::start(bench, NODES)?;
    let runs = Runs {
        martlet: &bench.martlet,
        effort,
    };
    let targets = [&cluster.target, &alone.target, &openstack.target];
    for target in targets {
        runs.fill_small(target)?;
    }
    let (mut puts, mut gets) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for (which, target) in targets.into_iter().enumerate() {
            let (put, get) = runs.small(round, target)?;
            puts[which].push(put);
            gets[which].push(get);
        }
    }
    drop(openstack);
    let [ours, one, theirs] = puts;
    report
        .measured(
            "three nodes: durable PUT of 4 KiB, 32 connections",
            Unit::PerSecond,
            ours,
        )
        .against("OpenStack Swift, 3 replicas", theirs, Wanted::AtLeast(10.0))
        .against("Martlet alone", one, Wanted::Nothing);
    let [ours, one, theirs] = gets;
    report
        .measured(
            "three nodes: GET of 4 KiB, 32 connections",
            Unit::PerSecond,
            ours,
        )
        .against("Martlet alone", one, Wanted::AtLeast(0.7))
        .against("OpenStack Swift, 3 replicas", theirs, Wanted::Nothing);
    cluster.stop()?;
    ensure!(alone.server.stop()?.success(), "martlet did not stop well");
    Ok(())
}
