//! The API from outside: over a socket, through the gateway, down to a namespace in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod golden;
mod hung;
mod world;
