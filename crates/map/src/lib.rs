//! Nodes, devices, groups, replicas of shards: pure values.
//!
//! A [`Map`] says who belongs to the cluster and which devices hold what. It is a value: whoever
//! changes it makes another one, and whoever uses it is not surprised. Where a node keeps its newest
//! map is [`Current`].
//!
//! **Invariant:** a group's members change only together with its epoch: a chunk's id names its group
//! for ever, and the epoch tells late writers from those that know all members.
//!
//! In reading order: the values (`cluster`, `policy`), the bytes that they travel and lie as (`format`), the
//! choice of a group for a chunk (`place`), how one map becomes another (`step`), what is to be changed next
//! (`plan`), and the one place where a value is exchanged (`current`).

mod cluster;
mod current;
mod format;
mod place;
mod plan;
mod policy;
mod step;

pub use cluster::{Device, Epoch, Fill, Group, Map, Member, Node, Replicas, State, WIDTH};
pub use current::Current;
pub use format::Invalid;
pub use plan::{Membership, Observed, next_steps};
pub use policy::{DATA_MAX, NamedPolicy, NoPolicy, PARITY_MAX, Policies, Policy};
pub use step::Step;
