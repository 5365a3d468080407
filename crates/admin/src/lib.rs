//! The control API: users, status, what is in flight, numbers.
//!
//! It has two doors. The socket in the data directory is mode 0600: who can open it owns the data
//! anyway, so it asks for nothing. The TCP door wants the credentials of a reseller for everything but
//! `/healthz`. Behind both stands the same [`Admin`].
//!
//! **Invariant:** a password leaves only in the answer to the request that had it generated; it is
//! never logged, listed or counted.
//! **Invariant:** `admin` knows no devices and no shards; what it shows of them comes through
//! [`System`].

mod admin;
pub mod api;
mod authority;
mod password;
mod prometheus;
mod route;
mod socket;
mod tcp;

pub use admin::{Admin, System};
pub use password::generate as generate_password;
pub use prometheus::Prometheus;
pub use socket::{SOCKET_NAME, Socket, socket_path};
