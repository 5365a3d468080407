//! The namespace on shards and devices in memory.

mod story;
mod world;
