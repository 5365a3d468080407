//! The namespace on shards and devices in memory.

mod story;
pub(crate) mod world;
