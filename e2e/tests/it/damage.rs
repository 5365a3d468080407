//! Flipped bits are found, and never served.

use e2e::binary::{Build, martlet};
use e2e::damage::Subject;
use fastrand::Rng;

#[test]
fn flipped_bits_are_never_served() {
    let seed = e2e::seed();
    eprintln!("E2E_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let binary = martlet(Build::Plain).expect("it builds");
    let subject = Subject::prepare(&binary, &mut random).expect("a full server");
    eprintln!(
        "{}",
        subject
            .flip_many(30, &mut random)
            .expect("no flip is served")
    );
}

#[test]
fn a_flipped_bit_in_a_body_is_found_and_fails_the_read() {
    let seed = e2e::seed();
    eprintln!("E2E_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let binary = martlet(Build::Plain).expect("it builds");
    let subject = Subject::prepare(&binary, &mut random).expect("a full server");
    let flipped = subject.flip_bodies().expect("each flip is found");
    assert!(flipped >= 10, "only {flipped} bodies were in segments");
}
