//! What the front doors share: HTTP as it is on the wire, and the rules that every object API obeys.
//!
//! A front door is a [`Service`]: it is given a [`Request`] whose head has been read and whose body
//! has not, and answers with a [`Response`]. Everything around that is here: connections with
//! deadlines and bounds, transaction ids, the register of requests in flight, numbers, the access
//! log, and the pure rules (ranges, conditions, percent-encoding).
//!
//! **Invariant:** a request's memory does not depend on its body's size or its client's speed: one
//! read buffer of [`READ_BUFFER_BYTES_MAX`] per connection, one piece of the body on its way out.
//!
//! **Invariant:** a client that stalls is cut off. The head has a deadline, and so has the pause
//! between requests; a body has a least rate, both ways, measured only while we wait for the client.
//!
//! Sketch of a 4 KiB request: one read, one `writev` with head and body; one allocation for the
//! transaction id, none for the register, no timer unless something has to wait.

mod body;
pub mod condition;
mod config;
mod connection;
pub mod date;
mod line;
mod metrics;
mod pace;
pub mod percent;
pub mod query;
pub mod range;
mod refusal;
mod register;
mod request;
mod server;
mod stream;
mod transaction;

pub use body::{Body, Broken, pieces};
pub use config::{AccessLog, Config};
pub use connection::READ_BUFFER_BYTES_MAX;
pub use register::{InFlight, Progress, State};
pub use request::{Announced, BodyError, Request, RequestBody};
pub use server::{Server, Service};
pub use transaction::TransactionId;

/// An answer. Its transaction id is added on the way out.
pub type Response = http::Response<Body>;
