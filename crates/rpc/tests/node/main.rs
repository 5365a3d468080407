//! Nodes that call each other over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by it, and its numbers are small"
)]

mod calls;
mod common;
mod faults;
mod raw;
mod strangers;
