//! Proof by use: everything here drives the real binary from outside, as a client or as a fault
//! would, and knows nothing of its insides.

#![expect(
    clippy::disallowed_methods,
    reason = "the seams are for the server; these tests stand outside of it"
)]

pub mod conformance;
mod process;
