//! Tests only: a simulated disk and clock, the suites that every implementation of a seam passes, and the
//! check that tells whether what clients saw is linearizable.
//!
//! Production code never depends on this crate. Everything random comes from a seed, and the same
//! calls with the same seed do the same.

mod clock;
pub mod conformance;
mod disk;
pub mod linearizable;
mod random;

pub use clock::SimClock;
pub use disk::{Call, SimDisk};
pub use random::{Random, SeededEntropy};

use std::sync::Arc;

use base::env::Env;

/// A simulated world: its disk of `disk_bytes`, its clock and its randomness.
pub fn env(seed: u64, disk_bytes: u64) -> (Env, SimDisk, SimClock) {
    let disk = SimDisk::new(disk_bytes);
    let clock = SimClock::default();
    let env = Env {
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SeededEntropy::new(seed)),
        disk: Arc::new(disk.clone()),
    };
    (env, disk, clock)
}
