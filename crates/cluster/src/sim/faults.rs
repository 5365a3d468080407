//! How bad a world is.

use testkit::Random;

pub(super) const SECOND: u64 = 1000;

/// Times are in milliseconds of virtual time, probabilities in thousandths.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) nodes: u64,
    /// With faults.
    pub(super) duration: u64,
    /// A connection breaks in the middle of a call.
    pub(super) broken: u64,
    pub(super) delay_max: u64,
    pub(super) write_max: u64,
    /// Mean times between each of these.
    pub(super) crash_every: u64,
    pub(super) pause_every: u64,
    pub(super) cut_every: u64,
    pub(super) clock_every: u64,
    pub(super) drain_every: u64,
    pub(super) destroy_every: u64,
    /// Before a silent node is out.
    pub(super) grace: u64,
}

impl Faults {
    pub(super) fn drawn(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut one = |of: &[u64]| of[usize::try_from(random.below(of.len() as u64)).expect("few")];
        Self {
            nodes: one(&[2, 3, 3, 4, 4, 5]),
            duration: one(&[10, 15, 20, 25]) * SECOND,
            broken: one(&[0, 0, 5, 50]),
            delay_max: one(&[1, 20, 100]),
            write_max: one(&[1, 10, 100]),
            crash_every: one(&[2, 4, 8]) * SECOND,
            pause_every: one(&[3, 6, 12]) * SECOND,
            cut_every: one(&[2, 4, 8]) * SECOND,
            clock_every: one(&[3, 10]) * SECOND,
            drain_every: one(&[5, 20]) * SECOND,
            destroy_every: one(&[5, 15]) * SECOND,
            grace: one(&[2, 5, 600]) * SECOND,
        }
    }

    /// No faults any more.
    pub(super) fn peace(&self) -> Self {
        Self {
            broken: 0,
            delay_max: 1,
            write_max: 1,
            ..self.clone()
        }
    }
}
