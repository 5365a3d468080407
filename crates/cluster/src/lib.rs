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
//! In reading order: who is down (`health`), what nodes say (`report`), what the controller makes of it
//! (`controller`), what a node does by its map (`agent`), the rows and procedures (`control`); what is asked of
//! Raft and the network (`replication`).

pub mod agent;
pub mod control;
mod controller;
mod health;
mod replication;
mod report;
mod status;
#[cfg(test)]
mod tests;

pub use agent::Agent;
pub use controller::{Change, Controller, Event};
pub use health::{Config as HealthConfig, Now};
pub use replication::{Led, Network, ReplicaId, Replication};
pub use report::{Answer, Condition, DeviceReport, Filled, Reign, Report};
pub use status::{DeviceStatus, NodeStatus, Status, Unsettled};
