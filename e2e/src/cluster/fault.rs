//! What may happen to a cluster, and how it ends.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;

use super::load::Load;
use super::{Cluster, Number};
use crate::network::{Link, Network};

/// A kind of fault. It hits nodes at random and lasts a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, and a start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// One node loses its power.
    PowerCut,
    /// All nodes lose their power at once.
    PowerCutAll,
    /// One node hears and is heard by no other.
    Isolated,
    /// One node hears no other.
    Deaf,
    /// One node is heard by no other.
    Mute,
    /// Two nodes do not hear each other.
    Split,
    /// Packets between all nodes are lost, late and out of order.
    Noise,
    /// Little passes between one node and the others.
    Slow,
}

impl Fault {
    pub(super) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::Isolated,
        Self::Deaf,
        Self::Mute,
        Self::Split,
        Self::Noise,
        Self::Slow,
    ];

    /// Whether there is anything to break in this cluster.
    pub(super) fn is_possible(self, cluster: &Cluster) -> bool {
        match self {
            Self::Kill | Self::Pause => true,
            Self::PowerCut | Self::PowerCutAll => cluster.setup.power_cuts,
            _ => cluster.network.is_some() && cluster.size() > 1,
        }
    }

    /// Breaks something for so long. In the end all is in order again and all nodes are started, though
    /// perhaps not yet ready.
    pub(super) fn strike(
        self,
        cluster: &mut Cluster,
        load: &Load<'_>,
        lasts: Duration,
        random: &mut Rng,
    ) -> Result<()> {
        let node = random.usize(0..cluster.size());
        match self {
            Self::Kill => {
                cluster.kill(node)?;
                thread::sleep(lasts);
                cluster.start(node)
            }
            Self::Pause => {
                load.paused_or_resumed(node);
                cluster.pause(node)?;
                thread::sleep(lasts);
                cluster.resume(node)?;
                load.paused_or_resumed(node);
                Ok(())
            }
            Self::PowerCut => power_cut(cluster, &[node], lasts),
            Self::PowerCutAll => {
                let all: Vec<Number> = (0..cluster.size()).collect();
                power_cut(cluster, &all, lasts)
            }
            _ => {
                let network = cluster.network().context("there is a network")?;
                self.disturb(network, node, cluster.size(), random);
                thread::sleep(lasts);
                network.heal();
                Ok(())
            }
        }
    }

    fn disturb(self, network: &Network, node: Number, nodes: usize, random: &mut Rng) {
        let others: Vec<Number> = (0..nodes).filter(|other| *other != node).collect();
        let hears = |link| {
            others
                .iter()
                .for_each(|other| network.set(*other, node, link))
        };
        let is_heard = |link| {
            others
                .iter()
                .for_each(|other| network.set(node, *other, link))
        };
        match self {
            Self::Kill | Self::Pause | Self::PowerCut | Self::PowerCutAll => {}
            Self::Isolated => {
                hears(Link::CUT);
                is_heard(Link::CUT);
            }
            Self::Deaf => hears(Link::CUT),
            Self::Mute => is_heard(Link::CUT),
            Self::Split => {
                let other = others[random.usize(0..others.len())];
                network.set(node, other, Link::CUT);
                network.set(other, node, Link::CUT);
            }
            Self::Noise => {
                let link = Link {
                    lost: random.u8(0..15),
                    delay: Duration::from_millis(random.u64(0..30)),
                    jitter: Duration::from_millis(random.u64(0..30)),
                    bytes_per_second: None,
                };
                for from in 0..nodes {
                    for to in (0..nodes).filter(|to| *to != from) {
                        network.set(from, to, link);
                    }
                }
            }
            Self::Slow => {
                let link = Link {
                    bytes_per_second: Some(random.u64(50_000..2_000_000)),
                    ..Link::default()
                };
                hears(link);
                is_heard(link);
            }
        }
    }
}

fn power_cut(cluster: &mut Cluster, nodes: &[Number], lasts: Duration) -> Result<()> {
    cluster.cut_power(nodes)?;
    thread::sleep(lasts);
    nodes.iter().try_for_each(|node| cluster.start(*node))
}
