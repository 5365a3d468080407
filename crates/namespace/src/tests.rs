//! The namespace on shards and devices in memory.

mod crash;
mod garbage;
mod large;
mod model;
mod race;
mod random;
mod refusal;
mod story;
pub(crate) mod world;
