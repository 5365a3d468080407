//! Membership and health: the control group that publishes the map.
//!
//! The node that leads the control shard runs the [`Controller`]: it hears how the nodes are, and changes
//! the map a step at a time. Every node runs an [`Agent`]: it does what the map says, and reports. Nobody is told
//! what to do. Both are pure; what drives them is short.
//!
//! **Invariant:** the map changes only by procedures of the control shard ([`control`]), each planned on the
//! newest map; what a deposed controller planned is refused.
//! **Invariant:** a report is answered only after a proof that the answering node leads the control shard.
//!
//! In reading order: who is down (`health`, `heard`), what nodes say (`report`), what the controller makes of it
//! (`controller`), what a node does by its map (`agent`), the rows and procedures (`control`), how the cluster is
//! (`status`, `metrics`); what a node keeps (`home`) and how it becomes one (`join`); what is asked of Raft and given to it
//! (`replication`, `network`, `directory`), the messages (`wire`), and what drives all this (`cluster`).

pub mod agent;
mod cluster;
pub mod control;
mod controller;
mod copying;
mod directory;
mod health;
mod heard;
mod home;
mod join;
mod metrics;
mod network;
mod replication;
mod report;
#[cfg(test)]
mod sim;
mod status;
#[cfg(test)]
mod tests;
mod wire;

pub use agent::Agent;
pub use cluster::{Cluster, Config, Devices, Fill, Handler, Parts, Service, TOKEN_LIFE};
pub use controller::{Change, Controller, Event};
pub use copying::{Copying, Progress, Repair};
pub use directory::Directory;
pub use health::{Config as HealthConfig, Now};
pub use home::{Error as HomeError, Home, Joining};
pub use join::{Error as JoinError, Member, Newcomer, found, join};
pub use network::Wires;
pub use replication::Replication;
pub use report::{Answer, Condition, DeviceReport, Filled, Reign, Report};
pub use status::{DeviceStatus, NodeStatus, Status, Unsettled};
pub use wire::{CHUNKS, Declined};
