//! What every layer names: ids, time stamps, checksums, and the seam to the outside world.
//!
//! **Invariant:** nothing above this crate asks the operating system for time, randomness or a
//! file; it asks an [`env::Env`], so that tests can fail, cut and bend all three.

pub mod checksum;
pub mod env;
mod id;
pub mod metrics;
mod real;
mod time;

pub use id::{ChunkId, ContainerId, DeviceId, GroupId, NodeId, ShardId, Version};
pub use time::Timestamp;
