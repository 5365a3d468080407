//! `cargo xtask cluster`: several nodes and what may happen to them, as often as there is time for.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use e2e::binary::{Build, martlet};
use e2e::cluster::{Plan, Scenario, run};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many nodes [default: 3; 5 to grow to, and for late writers]
    #[arg(long)]
    nodes: Option<usize>,
    /// How often it happens
    #[arg(long, default_value_t = 20)]
    cycles: usize,
    /// Repeats a run's choices [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// What happens [default: all]; some of it needs root
    #[arg(value_enum)]
    scenarios: Vec<Story>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Story {
    /// Kills, pauses, power cuts, cut and bad links, one after the other
    Faults,
    /// A node is cut off and comes back; needs a network of its own
    Cuts,
    /// Nodes are killed and started again
    Kills,
    /// All nodes lose their power at once
    PowerCuts,
    /// A node stands still for 30 seconds
    Pauses,
    /// A node that does not know the newest map goes on with an upload; needs a network of its own
    LateWriters,
    /// One node dies: how long does service stop?
    Availability,
    /// One node more at a time
    Growth,
    /// Each node gets a second device, which is taken from it again
    Devices,
    /// Bits flip in what nodes have stored
    Rot,
    /// A node dies for ever, and another one for a moment while that is mended
    Loss,
    /// Two of six nodes are gone, and bits flip, where bodies are kept in fragments (ec:4+2)
    Fragments,
}

impl Story {
    fn scenario(self) -> Scenario {
        match self {
            Self::Faults => Scenario::Faults,
            Self::Cuts => Scenario::Cuts,
            Self::Kills => Scenario::Kills,
            Self::PowerCuts => Scenario::PowerCuts,
            Self::Pauses => Scenario::Pauses(Duration::from_secs(30)),
            Self::LateWriters => Scenario::LateWriters,
            Self::Availability => Scenario::Availability,
            Self::Growth => Scenario::Growth,
            Self::Devices => Scenario::Devices,
            Self::Rot => Scenario::Rot,
            Self::Loss => Scenario::Loss,
            Self::Fragments => Scenario::Fragments,
        }
    }
}

pub(crate) fn run_all(arguments: &Arguments) -> Result<()> {
    let binary = martlet(Build::Plain)?;
    let scenarios = match arguments.scenarios.as_slice() {
        [] => Story::value_variants(),
        chosen => chosen,
    };
    let mut failed = 0;
    for scenario in scenarios.iter().map(|story| story.scenario()) {
        let plan = Plan {
            binary: binary.clone(),
            scenario,
            nodes: arguments.nodes.unwrap_or(match scenario {
                Scenario::Growth | Scenario::LateWriters => 5,
                Scenario::Loss => 4,
                Scenario::Fragments => 6,
                _ => 3,
            }),
            cycles: arguments.cycles,
            seed: arguments.seed.unwrap_or_else(e2e::seed),
            environment: Vec::new(),
        };
        println!("{scenario:?}, {} nodes, seed {}", plan.nodes, plan.seed);
        match run(&plan) {
            Ok(report) => println!("{report}"),
            Err(error) => {
                println!("FAILED: {error:?}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} scenarios failed");
    }
    Ok(())
}
