//! Node to node: calls with deadlines over mutual TLS.
//!
//! A node listens with a [`Listener`] in front of its [`Service`], and calls the others through
//! [`Peers`]. Who they are is proved by certificates of the cluster's own [`Authority`]; a new node gets its
//! own with a [`JoinToken`]. What a body means is between the two services: this crate only carries it.
//!
//! **Invariant:** no handler but [`Service::join`] runs for anybody who has not shown a certificate of
//! this cluster's authority and is not admitted by [`Service::admits`].
//! **Invariant:** no clock of one node is compared with another's, and none is asked about
//! certificates: deadlines travel as what remains of them.
//! **Invariant:** what waits is bounded: calls by slots, bodies being handled by bytes, connections
//! and joins by counts; who waits for room does so in its own future, until its own deadline.
//!
//! Each pair of nodes has one connection each way for small messages, and up to four for bulk.

mod authority;
mod config;
mod connect;
mod error;
mod frame;
mod link;
mod metrics;
mod peers;
mod server;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod token;
mod wire;

pub use authority::{Authority, BadCredentials, Credentials, Fingerprint, NodeKey};
pub use config::{Config, FREE_BYTES, Lane, LaneConfig};
pub use connect::join;
pub use error::{CallError, Fault, Versions};
pub use peers::Peers;
pub use server::{Call, Listener, Service};
pub use token::{Denied, JoinToken, NoToken, Secret, TokenRecord};
