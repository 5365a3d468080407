//! The namespace, on shards and devices in memory and on a simulated disk.

mod crash;
mod disk;
mod faults;
mod full;
mod garbage;
mod heal;
mod hung;
mod large;
mod lost;
mod model;
mod policy;
mod race;
mod random;
mod refusal;
mod shared;
mod story;
pub(crate) mod world;
